"""What does each fusion cost? Milliseconds a clip with one thread, at the small sizes of the demo
and of RAVDESS's folds, on random input. They are this machine's, so no table of runs has them.

Compared to: `concat`, the cheapest fusion that has both streams.
Takes: 10 s.
"""

import avkit  # noqa: F401 before torch: it chooses its kernels
import torch
from common import arguments, best, environment, figure, tell
from avkit.models.fusion import FUSIONS
from avkit.models.model import build_model
from avkit.numerics import kernels, numerics, with_threads
from avkit.reports.records import one_clip
from avkit.training.configure import configure

SHAPES = dict(  # recipe: {stream: the shape of one clip}
    demo=dict(audio=(156, 10), video=(8, 3, 40, 40)),
    ravdess_folds=dict(audio=(1, 240), video=(1, 35)),
)


def model_of(recipe, fusion):
    "A model of eight classes in eval mode"
    r = configure(recipe=recipe, dataset="ravdess", data_root="rendered", fusion=fusion).recipe
    own = recipe == "ravdess_folds"
    more = {f"{s}_encoder": "vector" for s in SHAPES[recipe]} if own else {}
    width = {f"{s}_dim": x[-1] for s, x in SHAPES[recipe].items() if len(x) == 2}
    return build_model(r | dict(modality="av", n_out=8) | width | more).eval()


@torch.no_grad()
def milliseconds(recipe, fusion, repeats):
    "Of the fastest pass over one clip"
    model, batch = model_of(recipe, fusion), one_clip(SHAPES[recipe])
    with with_threads(1):
        return 1000 * best(lambda: model(**batch), repeats)


def main():
    p = arguments(__doc__)
    p.add_argument("--repeats", type=int, default=30, help="the fastest of so many passes")
    a = p.parse_args()
    rows = [
        {"fusion": f} | {f"{r}, ms a clip": milliseconds(r, f, a.repeats) for r in SHAPES}
        for f in FUSIONS
    ]
    first, figures = rows[0], []
    for r in rows[1:]:
        for size, ms in list(r.items())[1:]:
            name = f"{r['fusion']}, {size.partition(',')[0]}"
            figures.append(figure(name, ms, "ms a clip", first["fusion"], first[size] / ms))
    chosen = f"numerics {numerics()}: {', '.join(f'{k} {v}' for k, v in kernels().items())}"
    title = f"One clip at a time, the fastest of {a.repeats} passes"
    tell(a, {title: rows}, figures, f"{environment('torch', threads=1)}; {chosen}")


if __name__ == "__main__":
    main()
