"""What do training steps cost a CPU? Processor time of a clip, how much of it the system spends (on
memory that is given back and asked for again), page faults and the most memory held. Random input
of each recipe's shapes at its own batch, every recipe in a process of its own, with mimalloc as
`avkit train` has it and with the system's allocator; of large networks also with `recompute`.

Compared to: the same step with the system's allocator (goals: less than 15 % in the kernel, 6 GB).
Takes: some minutes at the recipes' own batches, three minutes with `--batch 2`.
"""

import argparse, json, os, resource, subprocess, sys
from common import arguments, environment, figure, tell
import frozen, training
import torch
from avkit.numerics import allocator, keeping_variables
from avkit.training.configure import configure
from avkit.training.learner import start, train_epoch


HERE = "recipes", "alone", "out", "recompute"  # flags that are not handed on
LARGE = "ntua2021", "emotiw2023"  # whose networks have blocks


def used():
    "Seconds of the program and of the system, page faults, the most memory in GB; so far"
    r = resource.getrusage(resource.RUSAGE_SELF)
    return r.ru_utime, r.ru_stime, r.ru_minflt, r.ru_maxrss / 1e6


def one(recipe, a):
    "The table's row of a recipe: its third epoch of `a.steps` steps"
    torch.set_num_threads(a.threads)
    more = dict(batch_size=a.batch) if a.batch else {}
    where = training.WHERE[recipe] | dict(
        data_root="twin", size=a.size, device="cpu", recompute=a.recompute
    )
    cfg = configure(recipe=recipe, precision="fp32", random_backbone=True, **where, **more)
    n = cfg["batch_size"] * a.steps
    t = start(cfg, frozen.corpus(cfg, training.streams_of(cfg, n), n, cfg["windows"]["steps"]))
    for epoch in range(2):  # an allocator asks for its memory in both
        train_epoch(t, epoch)
    before = used()
    train_epoch(t, 2)
    user, system, faults, _ = (y - x for x, y in zip(before, used()))
    return {
        "batch": cfg["batch_size"],
        "s / clip": (user + system) / n,
        "in the kernel, %": 100 * system / (user + system),
        "faults / clip": round(faults / n),
        "peak GB": used()[3],
    }


def ways(recipe):
    "{how a step has its memory: (variables of its process, more words for it)}"
    kept, found = keeping_variables({}, allocator()), dict(system=({}, []))
    if kept:
        found["mimalloc"] = kept, []
    if recipe in LARGE:
        found["mimalloc, recompute" if kept else "recompute"] = kept, ["--recompute"]
    return found


def measured(words, variables):
    "`one`, in a process of its own"
    here = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
    command = [sys.executable, __file__, "--alone", "--recipes", *words]
    out = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=here | variables
    ).stdout
    return json.loads(out.splitlines()[-1])


def main():
    p = arguments(__doc__)
    known = list(training.WHERE)
    p.add_argument("--recipes", nargs="+", default=known, choices=known, metavar="RECIPE")
    p.add_argument("--size", default="paper", choices=["small", "paper"])
    p.add_argument("--batch", type=int, help="clips; default: the recipe's")
    p.add_argument("--steps", type=int, default=1, help="in an epoch")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--recompute", action="store_true", help=argparse.SUPPRESS)
    p.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.alone:
        return print(json.dumps(one(a.recipes[0], a)))
    rest = [f"--{k}={v}" for k, v in vars(a).items() if v and k not in HERE]
    rows, figures = [], []
    for recipe in a.recipes:
        found = {k: measured([recipe, *rest, *w], v) for k, (v, w) in ways(recipe).items()}
        rows += [{"recipe": recipe, "memory": name} | row for name, row in found.items()]
        took = {name: row["s / clip"] for name, row in found.items()}
        figures += [
            figure(f"{recipe}, {k}", t, "s / clip", "the system's allocator", took["system"] / t)
            for k, t in took.items()
        ]
    where = environment("torch", "torchvision", "timm", threads=a.threads)
    tell(a, {f"Training steps at {a.size} size, processor time": rows}, figures, where)


if __name__ == "__main__":
    main()
