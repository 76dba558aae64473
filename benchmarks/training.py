"""How long is a training step of every recipe, at its small size? The kit's own loop on random
input of the recipe's shapes: time, clips a second, memory of the GPU; fp32 and bf16.

Compared to: the recipes among each other; `memory.py` has their paper sizes.
Takes: 15 s.
"""

import frozen
from common import arguments, environment, figure, tell
import torch
from avkit.models.backbones import BACKBONES
from avkit.datasets.features import Stream
from avkit.training.configure import configure

WHERE = dict(
    chumachenko2022=dict(dataset="ravdess"),
    emotiw2023=dict(dataset="vgaf"),
    vavl2023=dict(dataset="crema_d", label="consensus"),
    jca2023=dict(dataset="affwild2", track="va"),
    ntua2021=dict(dataset="affwild2", track="va"),
)


def shapes(cfg):
    "{stream: shape of a row}, as preparation and frozen backbones give them"
    w, s = cfg["windows"], cfg["audio_settings"]
    T = w["length"] // w["stride"] if cfg["dataset"] == "affwild2" else cfg.preparation.frames
    b = cfg["video_backbone"] and BACKBONES[cfg["video_backbone"]]
    video = (
        (T, 3 * len(cfg["video_views"]), cfg["video_size"], cfg["video_size"])
        if not b
        else (w["steps"] if b.takes == "clips" else T, b.dim)
    )
    width = (
        s.get("frames", 107)
        if not s.get("seconds")
        else 1 + int(s["seconds"] * cfg.preparation.rate) // s.get("hop", 512)
    )
    audio = dict(
        mfcc=(156, s.get("n_mfcc", 10)),
        logmel=(156, s.get("n_mels", 64)),
        segments=(s.get("segments", 5), 1, 128, 112),
        mel_steps=(w["steps"], s.get("n_mels", 64), width),
        wave=(125,),
    )[cfg["audio"]]
    if cfg["audio_backbone"]:
        audio = (
            w["steps"] if cfg["audio"] == "mel_steps" else audio[0],
            BACKBONES[cfg["audio_backbone"]].dim,
        )
    return dict(audio=audio, video=video)


def streams_of(cfg, n):
    "n rows of random input of the recipe's shapes"
    torch.manual_seed(0)
    out = {}
    for k, shape in shapes(cfg).items():
        frames = k == "video" and len(shape) == 4
        x = torch.randn(n, *shape)
        if frames:
            x = torch.randint(0, 255, (n, *shape), dtype=torch.uint8)
        out[k] = Stream(x, torch.ones(x.shape[:2], dtype=torch.bool), k)
    return out


def row(recipe, precision, a):
    settings = WHERE[recipe] | dict(
        data_root="twin", size=a.size, device=a.device, precision=precision, random_backbone=True
    )
    cfg = configure(recipe=recipe, **settings | (dict(batch_size=a.batch) if a.batch else {}))
    n = cfg["batch_size"] * a.steps
    c = frozen.corpus(cfg, streams_of(cfg, n), n, cfg["windows"]["steps"])
    seconds, memory = frozen.epoch_seconds(cfg, c, a.repeats)
    return dict(
        recipe=recipe,
        size=a.size,
        precision=precision,
        batch=cfg["batch_size"],
        audio="x".join(map(str, shapes(cfg)["audio"])),
        video="x".join(map(str, shapes(cfg)["video"])),
        **{"ms / step": 1e3 * seconds / a.steps, "clips / s": n / seconds},
    ) | ({"GB": memory} if memory == memory else {})


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
    p.add_argument("--size", default="small", choices=["small", "paper"])
    p.add_argument("--device", default="cpu", help="cpu, cuda")
    p.add_argument("--precision", nargs="+", help="fp32, bf16; default: fp32, and bf16 on a GPU")
    p.add_argument("--batch", type=int, help="clips; default: the recipe's")
    p.add_argument("--steps", type=int, default=2, help="in an epoch")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--repeats", type=int, default=2, help="the shortest of so many epochs counts")
    a = p.parse_args()
    frozen.settle(a)
    rows = [
        row(k, x, a)
        for k in a.recipes
        for x in a.precision or (["fp32", "bf16"] if a.device.startswith("cuda") else ["fp32"])
    ]
    figures = [
        figure(f"{r['recipe']}, {r['precision']}", r["clips / s"], "clips / s") for r in rows
    ]
    where = environment("torch", "torchvision", "timm", threads=a.threads)
    tell(a, {f"Training steps on {frozen.machine(a)}": rows}, figures, where)


if __name__ == "__main__":
    main()
