"""What does bf16 cost in score? Every recipe trained on its rendered data set in bf16, and the fp32
weights asked in bf16.

Compared to: the same training in fp32, with the same seed.
Takes: more than an hour.
"""

import frozen
from common import arguments, environment, figure, tell
import torch
from avkit.evaluation.runs import open_run as opened
from avkit.training.inference import score_conditions
from avkit.training.learner import fit
from avkit.training.loading import load_data
from avkit.training.quirks import with_quirks
from avkit.training.configure import configure
from training import WHERE


def trained(recipe, precision, a):
    "A run's Config and record; a finished one is not trained again"
    cfg = configure(
        recipe=recipe,
        **WHERE[recipe]
        | dict(
            data_root=a.data_root,
            precision=precision,
            device=a.device,
            seed=a.seed,
            run_dir=f"{a.runs}/{recipe}-{precision}",
        ),
        **(dict(epochs=a.epochs) if a.epochs else {}),
    )
    return cfg, fit(cfg, verbose=False, renew=True)


def asked_in_bf16(cfg, side, a):
    "Scores of a run's best weights under autocast to bf16"
    run = opened(cfg.run_dir)
    with torch.autocast(a.device.partition(":")[0], torch.bfloat16):
        return score_conditions(
            cfg,
            with_quirks(cfg, load_data(cfg, verbose=False)),
            run.model.to(a.device),
            ["av"],
            a.device,
            {side: side},
        )[1][side]["av"]


def row(recipe, a):
    runs = {p: trained(recipe, p, a) for p in ("fp32", "bf16")}
    cfg, r = runs["fp32"]
    side, name = (
        "test" if "test" in r["metrics"] else "validation",
        "accuracy" if r["task"] == "class" else "ccc",
    )
    score = {p: x["metrics"][side]["av"][name] for p, (_, x) in runs.items()}
    seconds = {p: min(x["timings"]["epochs"]) for p, (_, x) in runs.items()}
    return dict(
        recipe=recipe,
        dataset=" ".join(filter(None, (r["dataset"], cfg["label"], cfg["track"]))),
        side=side,
        score=name,
        epochs=r["epochs"],
        **score,
        difference=score["bf16"] - score["fp32"],
        **{"fp32 weights in bf16": asked_in_bf16(cfg, side, a)[name]},
        **{"times as fast": seconds["fp32"] / seconds["bf16"]},
    )


def main():
    p = arguments(__doc__)
    p.add_argument(
        "--recipes",
        nargs="+",
        default=list(WHERE),
        choices=WHERE,
        metavar="RECIPE",
        help=", ".join(WHERE),
    )
    p.add_argument("--device", default="cpu", help="cpu, cuda")
    p.add_argument("--data_root", default="twin", help="the corpora: twin, or sample for a look")
    p.add_argument(
        "--epochs",
        type=int,
        help="default: the recipe's; a processor without bf16 units is slow at it",
    )
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--runs", default="reports/runs/precision", help="the folder of the runs")
    a = p.parse_args()
    frozen.settle(a)
    rows = [row(k, a) for k in a.recipes]
    title = (
        f"fp32 beside bf16, both streams given, on {frozen.machine(a)}; "
        "rendered data sets: nobody's result"
    )
    figures = [
        figure(f"{r['recipe']}, {r['score']} in bf16", r["bf16"], r["score"], "fp32",
               r["bf16"] / r["fp32"])
        for r in rows
    ]  # fmt: skip
    where = environment("torch", "torchvision", "timm", threads=a.threads)
    tell(a, {title: rows}, figures, where)


if __name__ == "__main__":
    main()
