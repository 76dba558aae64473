"""How fast are products of large matrices, where every processor has to give the same bits? The
layers of large networks forward, and both products of the way back; then whole networks.

Compared to: MKL as it has to be for that (`COMPATIBLE`), which makes all other products.

Takes: two minutes."""

import avkit  # first: it chooses how NumPy and torch compute  # noqa: F401
from unittest.mock import patch
from common import arguments, best, environment, figure, tell
import torch
from avkit import products
from avkit.models.backbones import build_backbone
from avkit.products import product, WIDE

SHAPES = {  # name: rows, inputs, outputs
    "ViT-L, MLP, a picture": (257, 1024, 4096),
    "ViT-L, MLP, 8 pictures": (2056, 1024, 4096),
    "wav2vec 2.0 large, attention, 3 s": (149, 1024, 1024),
    "base size, attention, 1 s": (49, 768, 768),
    "vavl2023, conformer, 32 clips": (2400, 512, 2048),
}
NETWORKS = {  # name: what it looks at
    "vit_large_patch14_clip_224": (1, 3, 224, 224),
    "wav2vec2_large_robust_12": (1, 48000),
}


def of_shape(name, rows, i, o, rounds):
    "A row for each of the three products of a layer"
    x, w, g = torch.randn(rows, i), torch.randn(o, i), torch.randn(rows, o)
    for what, a, b in (
        ("forward", x, w),
        ("to the input", g, w.t()),
        ("to the weights", g.t(), x.t()),
    ):
        ours, mkl = (2e-9 * rows * i * o / best(f, rounds)
                     for f in (lambda: product(a, b), lambda: a @ b.t()))  # fmt: skip
        yield dict(product=f"{name}: {what}", rows=rows, inputs=i, outputs=o) | rates(ours, mkl)


def rates(ours, mkl):
    "Both, and their ratio"
    return {"oneDNN, GFLOP/s": ours, "MKL, GFLOP/s": mkl, "times": ours / mkl}


def step(net, x):
    "Forward and backward"
    net(x).square().mean().backward()


def of_network(name, shape, rounds):
    "A row for a network that answers, and one for a step of its training"
    net, x = build_backbone(name, say=False), torch.rand(shape)

    def answers():
        with torch.no_grad():
            net(x)

    for what, f in ("answers", answers), ("a step", lambda: step(net, x)):
        ours = best(f, rounds)
        with patch.object(products, "numerics", lambda: "fast"):
            mkl = best(f, rounds)
        yield {"network": f"{name}: {what}", "oneDNN, s": ours, "MKL, s": mkl, "times": mkl / ours}


def main():
    p = arguments(__doc__)
    p.add_argument("--rounds", type=int, default=2)
    p.add_argument("--networks", nargs="*", default=list(NETWORKS))
    a = p.parse_args()
    torch.set_num_threads(1)
    layers = [r for name, shape in SHAPES.items() for r in of_shape(name, *shape, a.rounds)]
    networks = [r for n in a.networks for r in of_network(n, NETWORKS[n], a.rounds)]
    figures = [figure(r["product"], r["oneDNN, GFLOP/s"], "GFLOP/s", "MKL", r["times"])
               for r in layers]  # fmt: skip
    figures += [figure(r["network"], r["oneDNN, s"], "s", "MKL", r["times"]) for r in networks]
    tables = {
        "Products of a layer, by oneDNN and by MKL": layers,
        f"Networks with layers of {WIDE} inputs and outputs or more": networks,
    }
    tell(a, tables, figures, environment("torch", "timm", threads=1))


if __name__ == "__main__":
    main()
