"""What do the same bits everywhere cost? A training as the demo's on random clips of its shapes,
with one thread and with two.

Compared to: the same training with the kernels that the libraries choose (`--numerics fast`).
Takes: 50 s with one thread, 140 s with one and two.
"""

import os, subprocess, sys
from statistics import median
from common import arguments, environment, figure, tell

CHILD = """
import sys, time, avkit, torch
from avkit.datasets.batches import AVData
from avkit.datasets.features import Stream
from avkit.numerics import with_threads
from avkit.training.checkpoint import make_model
from avkit.training.configure import configure
from avkit.training.learner import make_optimizer
clips, epochs, threads = map(int, sys.argv[1:])
cfg = configure(fusion="ca", device="cpu")
g = torch.Generator().manual_seed(0)
shapes = dict(audio=(156, 10), video=(15, 3, 40, 40))
x = {k: torch.rand(clips, *s, generator=g) for k, s in shapes.items()}
streams = {k: Stream(v, torch.ones(v.shape[:2], dtype=torch.bool), "random") for k, v in x.items()}
names = [str(i) for i in range(clips)]
data = AVData(**streams, target=torch.arange(clips) % 8, clips=names, split=["train"] * clips,
              classes=list("abcdefgh"))
model = make_model(cfg, data)
optimizer = make_optimizer(cfg, model)
def epoch():
    for idx in torch.arange(clips).split(cfg["batch_size"]):
        b = data.batch(idx)
        target, _ = b.pop("target"), b.pop("index")
        loss = torch.nn.functional.cross_entropy(model(**b), target)
        optimizer.zero_grad(); loss.backward(); optimizer.step()
clock = time.process_time if threads == 1 else time.perf_counter
with with_threads(threads):
    epoch()
    for _ in range(epochs):
        began = clock(); epoch(); print(clock() - began)
"""


def seconds(numerics, threads, a):
    "Of an epoch in a process of its own: the median"
    env = {k: v for k, v in os.environ.items() if k != "AVKIT_NUMERICS"}
    command = [sys.executable, "-c", CHILD, str(a.clips), str(a.epochs), str(threads)]
    r = subprocess.run(
        command, env=env | dict(AVKIT_NUMERICS=numerics), check=True, capture_output=True, text=True
    )
    return median(map(float, r.stdout.split()))


def main():
    p = arguments(__doc__)
    p.add_argument("--clips", type=int, default=192)
    p.add_argument("--epochs", type=int, default=5, help="the median of so many")
    p.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    p.add_argument("--rounds", type=int, default=2, help="in turn, so that both see the same load")
    a = p.parse_args()
    rows = []
    for n in a.threads:
        got = {"portable": [], "fast": []}
        for _ in range(a.rounds):
            for k in got:
                got[k].append(seconds(k, n, a))
        s = {k: min(v) for k, v in got.items()}
        rows.append(
            {"threads": n} | {f"{k}, s an epoch": v for k, v in s.items()}
            | {"portable / fast": s["portable"] / s["fast"]}
        )
    figures = [
        figure(f"portable, {r['threads']} thread(s)", r["portable, s an epoch"], "s an epoch",
               "fast", 1 / r["portable / fast"])
        for r in rows
    ]  # fmt: skip
    title = f"{a.clips} clips, cross-attention, the demo's optimizer"
    tell(a, {title: rows}, figures, environment("torch", threads="as told"))


if __name__ == "__main__":
    main()
