"""How long is an epoch on a frozen backbone's features from the store? Each recipe, with the kit's
own loop.

Compared to: an epoch that runs the backbone in every step.
Takes: more than five minutes; some two with `--modality video --clips 2`.
"""

import tempfile, time
from common import arguments, environment, figure, tell
import numpy as np
import torch
from torch import nn
from avkit.training.frozen import backbone_stream, frozen_backbone, row_items, spread
from avkit.datasets.batches import AVData
from avkit.datasets.features import Source, Stream
from avkit.training.learner import start, train_epoch
from avkit.training.loading import RunData, backbone_of
from avkit.training.configure import configure
from avkit.store import Store

clock = time.perf_counter  # on the CPU: the processor's time, whatever else runs there

CASES = {  # recipe: settings, pictures of a clip, seconds of sound, goal
    "emotiw2023": (dict(dataset="vgaf", data_root="twin", variants="frozen"), 5, 5.0, "50"),
    "vavl2023": (dict(dataset="crema_d", data_root="twin", label="consensus"), 30, 2.5, "20"),
    "jca2023": (dict(dataset="affwild2", data_root="twin", track="va"), 64, 8.5, ""),
}


class EveryStep(nn.Module):
    "A model that runs the frozen trunks itself, on what a clip is made of"

    def __init__(self, model, trunks, rates, steps):
        super().__init__()
        self.model, self.rates, self.steps = model, rates, steps
        self.trunks = nn.ModuleDict(trunks)

    def train(self, mode=True):
        super().train(mode)
        self.trunks.eval()
        return self

    @torch.no_grad()
    def see(self, k, x, mask):
        t, items = (
            self.trunks[k],
            [
                row_items(self.trunks[k], a, m, self.steps, self.rates.get(k, 0))
                for a, m in zip(x, mask)
            ],
        )
        y = torch.cat([t(part) for part in torch.cat([i for i, _ in items]).split(128)])
        if t.takes == "wave":
            return y, torch.ones(y.shape[:2], dtype=torch.bool, device=y.device)
        return torch.stack(
            [spread(p, r) for p, (_, r) in zip(y.split([len(i) for i, _ in items]), items)]
        ), torch.stack([r for _, r in items])

    def forward(self, audio=None, video=None, audio_mask=None, video_mask=None, **more):
        given = dict(audio=audio, video=video, audio_mask=audio_mask, video_mask=video_mask)
        if more.get("only") in ("audio", "video"):
            given = {
                k: v for k, v in given.items() if k.startswith(more["only"])
            }  # vavl2023's single steps
        for k in self.trunks:
            if given.get(k) is not None:
                given[k], given[f"{k}_mask"] = self.see(k, given[k], given[f"{k}_mask"])
        return self.model(**given, **more)

    def __getattr__(self, k):
        try:
            return super().__getattr__(k)
        except AttributeError:
            return getattr(super().__getattr__("model"), k)


def raw(cfg, stream, n, frames, seconds):
    "n rows of random pictures, sound or spectrograms, as the recipe's preparation gives them"
    g = torch.Generator().manual_seed(0)
    b = backbone_of(cfg, stream)[1]
    if stream == "video":
        x = torch.randint(0, 255, (n, frames, 3, b.size, b.size), generator=g, dtype=torch.uint8)
    elif cfg["audio"] == "wave":
        x = torch.randn(n, int(seconds * 16000), generator=g)
    elif cfg["audio"] == "segments":
        x = torch.randn(n, 5, 1, 128, 112, generator=g)
    else:
        x = torch.randn(n, 8, 64, 107, generator=g)
    return x, torch.ones(x.shape[:2], dtype=torch.bool)


def corpus(cfg, streams, n, steps=8):
    frames = cfg["dataset"] == "affwild2"
    target = torch.randn(n, steps, 2) if frames else torch.arange(n) % 3
    data = AVData(
        target=target,
        clips=[str(i) for i in range(n)],
        split=np.full(n, "train"),
        classes=["valence", "arousal"] if frames else list("abc"),
        task="regression" if frames else "class",
        steps=torch.ones(n, steps, dtype=torch.bool) if frames else None,
        **dict(audio=None, video=None) | streams,
    )
    return RunData(data, None, None)


def epoch_seconds(cfg, c, repeats, wrap=lambda m: m):
    "The shortest time of an epoch after a first one, and the most memory of the GPU in GB"
    t = start(cfg, c)
    t.model = wrap(t.model)
    gpu, times = t.accelerator.device.type == "cuda", []
    for e in range(repeats + 1):
        if gpu and e == 1:
            torch.cuda.reset_peak_memory_stats()
        t0 = clock()
        train_epoch(t, 0)
        if gpu:
            torch.cuda.synchronize()
        times.append(clock() - t0)
    return min(times[1:] or times), torch.cuda.max_memory_allocated() / 1e9 if gpu else float("nan")


def case(recipe, modality, a):
    settings, frames, seconds, goal = CASES[recipe]
    cfg = configure(
        recipe=recipe,
        size="paper",
        random_backbone=True,
        modality=modality,
        device=a.device,
        batch_size=min(a.batch, a.clips) if a.batch else None,
        **settings | (dict(precision=a.precision) if a.precision else {}),
    )
    frames, device = a.frames or frames, a.device
    want = ["audio", "video"] if modality == "av" else [modality]
    raws = {
        s: raw(cfg, s, a.clips, frames, seconds) if backbone_of(cfg, s)[0] or s == "audio" else None
        for s in want
    }
    trunks = {s: backbone_of(cfg, s)[0] for s in want if backbone_of(cfg, s)[0]}
    store, cached, once = Store(tempfile.mkdtemp()), {}, 0.0
    for s, (x, m) in raws.items():
        if s not in trunks:
            cached[s] = Stream(x, m, s)
            continue
        source = Source(
            [f"{s} {i}" for i in range(len(x))],
            s,
            lambda i, j, x=x, m=m: dict(x=x[i:j], real=m[i:j]),
            s,
            rate=16000 if cfg["audio"] == "wave" else 0,
        )
        t0 = clock()
        cached[s] = backbone_stream(
            store, source, trunks[s], device=device, steps=cfg["windows"]["steps"]
        )[0]
        once += clock() - t0
    fast, small = epoch_seconds(cfg, corpus(cfg, cached, a.clips), a.repeats)
    nets = {s: frozen_backbone(n, device=device) for s, n in trunks.items()}
    every = lambda m: EveryStep(m, nets, {"audio": 16000}, cfg["windows"]["steps"]).to(device)
    live = {s: Stream(x, m, s) for s, (x, m) in raws.items()}
    model = start(
        cfg, corpus(cfg, cached, a.clips)
    ).model  # the model for features; its input is made on the way
    slow, large = _slow(cfg, corpus(cfg, live, a.clips), model, every, a)
    ms = 1e3 / a.clips
    name = (
        f"{recipe}, {modality}, {frames} pictures" if "video" in want else f"{recipe}, {modality}"
    )
    row = lambda what, t, mem: (
        dict(
            recipe=name,
            what=what,
            **{
                "ms / clip": t * ms,
                "times every step": slow / t,
                "goal": goal if what == "from the store" else "",
            },
        )
        | ({"GB": mem} if mem == mem else {})
    )
    return [
        row(f"{' + '.join(trunks.values())} in every step", slow, large),
        row("once, into the store", once, float("nan")),
        row("from the store", fast, small),
    ]


def _slow(cfg, c, model, every, a):
    "An epoch with the trunks in every step"
    from avkit.training import learner

    made, learner.make_model = learner.make_model, lambda cfg, data: model
    try:
        return epoch_seconds(cfg, c, min(a.repeats, 1) if a.device == "cpu" else a.repeats, every)
    finally:
        learner.make_model = made


def settle(a):
    "Threads, and the clock"
    global clock
    if a.device == "cpu":
        clock = time.process_time
    torch.set_num_threads(a.threads)


def machine(a):
    return torch.cuda.get_device_name() if a.device.startswith("cuda") else "CPU, processor time"


def main():
    p = arguments(__doc__)
    p.add_argument(
        "--recipes",
        nargs="+",
        default=["emotiw2023", "vavl2023"],
        choices=CASES,
        metavar="RECIPE",
        help=", ".join(CASES),
    )
    p.add_argument("--modality", nargs="+", default=["av", "video"], help="av, audio, video")
    p.add_argument("--clips", type=int, default=4, help="in an epoch")
    p.add_argument("--batch", type=int, help="clips; default: the recipe's")
    p.add_argument("--frames", type=int, help="pictures of a clip; default: the recipe's")
    p.add_argument("--device", default="cpu", help="cpu, cuda")
    p.add_argument("--precision", help="fp32, bf16; default: the recipe's for the device")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument(
        "--repeats",
        type=int,
        default=3,
        help="the shortest of so many epochs counts (with the trunks on the CPU: one)",
    )
    a = p.parse_args()
    settle(a)
    rows = [r for k in a.recipes for m in a.modality for r in case(k, m, a)]
    title = (
        f"An epoch of {a.clips} clips on {machine(a)}; "
        "backbones at their published size, random weights"
    )
    figures = [
        figure(r["recipe"], r["ms / clip"], "ms / clip", "in every step", r["times every step"])
        for r in rows
        if r["what"] == "from the store"
    ]
    packages = "torch", "torchaudio", "torchvision", "timm"
    tell(a, {title: rows}, figures, environment(*packages, threads=a.threads))


if __name__ == "__main__":
    main()
