"""What several test files share: toy data of every recipe, and processes that are forked from one
that has imported everything."""

import multiprocessing
import numpy as np, pandas as pd, torch
from avkit.datasets.batches import AVData
from avkit.datasets.features import Stream
from avkit.datasets.manifest import Manifest
from avkit.training.configure import configure
from avkit.training.loading import RunData

FORKS = multiprocessing.get_context("forkserver")
READ = [
    "avkit.training.learner",
    "accelerate",
    "sklearn.metrics",
    "torch.utils.tensorboard",
    "torch._dynamo",
]
FORKS.set_forkserver_preload(READ)

SIZES = dict(
    chumachenko2022=((20, 10), (4, 3, 40, 40)),
    emotiw2023=((5, 1, 128, 108), (5, 3, 40, 40)),
    jca2023=((8, 64, 32), (16, 3, 40, 40)),
    vavl2023=((12, 64), (4, 3, 40, 40)),
    ntua2021=((16, 32, 20), (16, 9, 40, 40)),
)


OWN = dict(
    chumachenko2022=dict(dataset="ravdess"),
    emotiw2023=dict(dataset="vgaf"),
    jca2023=dict(dataset="affwild2", track="va"),
    vavl2023=dict(dataset="msp_improv"),
    ntua2021=dict(dataset="affwild2", track="expr"),
)


def toy(recipe, n=14):
    "A corpus of random streams and labels: 8 clips train, 4 validation, 2 test"
    g = torch.Generator().manual_seed(0)
    a, v = SIZES[recipe]
    numbers, frames = recipe in ("jca2023", "vavl2023"), recipe in ("jca2023", "ntua2021")
    names = (
        ["valence", "arousal"]
        if numbers
        else list("abcdefgh")[: 3 if recipe == "emotiw2023" else 7]
    )
    S = {"jca2023": 8, "ntua2021": 16}.get(recipe)
    target = (
        torch.randn(n, *([S] if S else []), 2, generator=g)
        if numbers
        else torch.randint(0, len(names), (n, *([S] if S else [])), generator=g)
    )
    clips, split = (
        [f"c{i:02d}" for i in range(n)],
        np.array(["train"] * 8 + ["validation"] * 4 + ["test"] * 2),
    )
    more = {}
    if frames:
        target[::3, 0] = np.nan if numbers else -1
        more = dict(
            steps=torch.ones(n, S, dtype=torch.bool),
            numbers=np.tile(np.arange(64), (n, 1)),
            frames={c: np.repeat(t.numpy(), 64 // S, 0) for c, t in zip(clips, target)},
            limits=(np.float32([-3, -3]), np.float32([3, 3])) if numbers else None,
        )
    pictures = torch.randint(0, 256, (n, *v), generator=g, dtype=torch.uint8)
    streams = [
        Stream(x, torch.ones(x.shape[:2], dtype=torch.bool), "toy")
        for x in (torch.randn(n, *a, generator=g), pictures)
    ]
    d = AVData(*streams, target, clips, split, names, "regression" if numbers else "class", **more)
    table = pd.DataFrame(
        dict(
            clip=clips,
            label="",
            speaker=clips,
            audio="",
            video="",
            audio_sha256=clips,
            video_sha256=clips,
            split=split,
            **({k: np.zeros(n) for k in names} if numbers else {}),
        )
    )
    m = Manifest(
        OWN[recipe]["dataset"],
        "nowhere",
        table,
        [] if numbers else names,
        split=dict(name="toy", fold=0, speaker_independent=True, note=""),
        task=d.task,
        level="frame" if frames else "clip",
        targets=names if numbers else [],
    )
    return RunData(
        d,
        m,
        pd.DataFrame(columns=["clip", "reason"]),
        stats={"target": (torch.zeros(2), torch.ones(2))} if numbers else {},
    )


def config(recipe, run_dir, **more):
    return configure(
        recipe=recipe,
        data_root="twin",
        device="cpu",
        epochs=1,
        batch_size=4,
        run_dir=str(run_dir),
        **OWN[recipe],
        **more,
    )
