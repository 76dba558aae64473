"""Where does the time of a training step go, at the small size: kernels, Python around them, the
batch? How near is that to what the processor can do? And what do more threads bring, alone and
beside a program that never rests?

Compared to: the processor's own rate of multiplying matrices; one thread.
Takes: two minutes.
"""

import subprocess, sys, time
from statistics import median
from common import arguments, best, environment, figure, tell
import torch
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode
from avkit.numerics import with_threads
from avkit.training.checkpoint import make_model
from avkit.training.configure import configure
from avkit.training.inference import forward
from avkit.training.learner import make_optimizer
from avkit.datasets.augment import unit_range
import frozen, numerics, training

RECIPES = dict(demo=dict(dataset="synth")) | training.WHERE
MATRIX = ("mm", "addmm", "bmm", "baddbmm", "convolution", "conv1d", "conv2d", "lstm", "gru")


def rate(n=1024):
    "Multiplications and additions a second, of two matrices of n x n"
    a, b = torch.rand(2, n, n)
    return 2 * n**3 / best(lambda: a @ b, 30)


def is_matrix(name):
    "Does a kernel multiply matrices, or fold an image?"
    return any(part in MATRIX for part in name.removeprefix("aten::").strip("_").split("_"))


def stepper(recipe):
    "A recipe's step, what reads its batch, and the number of clips in it"
    settings = RECIPES[recipe] | dict(size="small", device="cpu", random_backbone=True)
    settings |= {} if recipe == "demo" else dict(data_root="twin")
    cfg = configure(recipe=recipe, **settings)
    n = cfg["batch_size"]
    data = frozen.corpus(cfg, training.streams_of(cfg, n), n, cfg["windows"]["steps"]).data
    model = make_model(cfg, data).train()
    optimizer, idx = make_optimizer(cfg, model), torch.arange(n)

    def read():
        b = data.batch(idx)
        if b["video"].ndim == 5:
            b["video"] = unit_range(b["video"])
        return b

    def step():
        b = read()
        y = forward(model, b)
        target = b["target"].flatten().nan_to_num()
        of_classes = not target.is_floating_point()
        loss = F.cross_entropy(y.flatten(0, -2), target) if of_classes else y.square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step, read, n


def shares(recipe, repeats, peak):
    "A row: milliseconds of a step, and what of them goes where"
    step, read, n = stepper(recipe)
    step()
    took, reading = best(step, repeats), best(read, repeats)
    with FlopCounterMode(display=False) as counted:
        step()
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        step()
    each = {e.key: e.self_cpu_time_total / 1e6 for e in seen.key_averages()}
    kernels = {k: t for k, t in each.items() if k.startswith("aten::")}
    matrix = sum(t for k, t in kernels.items() if is_matrix(k))
    inside = sum(kernels.values())
    total = max(took, inside)
    return {
        "recipe": recipe,
        "clips": n,
        "ms / step": 1e3 * took,
        "matrices and convolutions, %": 100 * matrix / total,
        "other kernels, %": 100 * (inside - matrix) / total,
        "Python, autograd, dispatch, %": 100 * (total - inside) / total,
        "of it reading the batch, %": 100 * reading / took,
        "GFLOP": counted.get_total_flops() / 1e9,
        "of the matrix rate, %": 100 * counted.get_total_flops() / took / peak,
    }


def epoch(threads, a):
    "Wall time of an epoch like the demo's with so many threads: the median of some"
    line = next(x for x in numerics.CHILD.splitlines() if x.startswith("clock"))
    child = numerics.CHILD.replace(line, "clock = time.perf_counter")
    command = [sys.executable, "-c", child, str(a.epoch_clips), str(a.epochs), str(threads)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return median(map(float, done.stdout.split()))


def beside(threads, a):
    "Rows of a table: so many threads, on a machine as it is, and beside a busy program"
    took = {}
    for _ in range(a.rounds):
        for busy in (False, True):
            loop = [sys.executable, "-c", "while True: pass"]
            other = subprocess.Popen(loop) if busy else None
            try:
                time.sleep(0.2)
                for n in threads:
                    took.setdefault((n, busy), []).append(epoch(n, a))
            finally:
                if other:
                    other.kill()
                    other.wait()
    s = {k: min(v) for k, v in took.items()}
    first = threads[0]
    return [
        {
            "threads": n,
            "as it is, s": s[n, False],
            "beside a busy program, s": s[n, True],
            "times one thread's speed": s[first, False] / s[n, False],
            "the same, beside it": s[first, True] / s[n, True],
        }
        for n in threads
    ]


def main():
    p = arguments(__doc__)
    p.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=RECIPES)
    p.add_argument("--repeats", type=int, default=3, help="the shortest of so many steps counts")
    p.add_argument("--threads", type=int, nargs="*", default=[1, 2], help="to be compared")
    p.add_argument("--epoch-clips", type=int, default=64)
    p.add_argument("--epochs", type=int, default=3, help="the median of so many")
    p.add_argument("--rounds", type=int, default=2, help="in turns; the shortest counts")
    a = p.parse_args()
    with with_threads(1):
        peak = rate()
        rows = [shares(r, a.repeats, peak) for r in a.recipes]
    title = f"A step at the small size, one thread; the processor's matrix rate: {peak / 1e9:.0f}"
    tables = {f"{title} GFLOP/s": rows}
    figures = [
        figure(f"{r['recipe']}, a step", r["ms / step"], "ms", "matrix rate",
               r["of the matrix rate, %"] / 100)
        for r in rows
    ]  # fmt: skip
    if a.threads:
        tables["An epoch like the demo's, wall time"] = beside(a.threads, a)
    notes = [
        "Kernels are timed by PyTorch's profiler, which makes small ones look longer; Python is "
        "the rest of a step that was timed without it, 0 where the profile alone is longer. "
        "A step that reaches most of the matrix rate cannot be twice as fast with the same "
        "arithmetic. A run takes one thread (`--threads`)."
    ]
    tell(a, tables, figures, environment("torch", threads=1), notes)


if __name__ == "__main__":
    main()
