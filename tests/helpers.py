"""What several test files share: toy data of every recipe, and processes that are forked from one
that has imported everything."""

import functools, inspect, json, multiprocessing, os, tempfile
from multiprocessing import forkserver
from pathlib import Path
import numpy as np, pandas as pd, torch
from matplotlib.layout_engine import ConstrainedLayoutEngine
from avkit.core import repo_root
from avkit.datasets.batches import AVData
from avkit.datasets.features import audio_source, AudioWindows, Stream
from avkit.datasets.manifest import corpus_info, Manifest
from avkit.datasets.registry import corpus_module
from avkit.datasets.synth import FPS, PLAN, RATE, render_clip
from avkit.evaluation import figures
from avkit.reports.papers import STUDIES, study_of
from avkit.preprocessing.writing import write_video
from avkit.store import Store
from avkit.training.configure import configure
from avkit.training.loading import RunData

FORKS = multiprocessing.get_context("forkserver")
READ = [
    "avkit.training.learner",
    "accelerate",
    "sklearn.metrics",
    "torch.utils.tensorboard",
    "torch._dynamo",
    "pytest",
    "helpers",
    "forked",
]
FORKS.set_forkserver_preload(READ)


def forked_process(**of):
    "A process of the server, which finds `forked.py`: Python 3.11 does not tell it of this folder"
    before = os.environ.get("PYTHONPATH")
    here = str(Path(__file__).parent)
    os.environ["PYTHONPATH"] = here + (os.pathsep + before if before else "")
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
    return FORKS.Process(**of)


PAPERS = list(STUDIES)
OWN = {key: study_of(key).data for key in PAPERS} | dict(
    vavl2023=study_of("vavl2023", "msp_improv").data  # numbers per clip: no other paper has them
)


class Noise:
    "A waveform to compute features of"

    def __init__(self, samples):
        self.keys, self.samples = ["noise"], np.array([samples])

    def read(self, c, start, n):
        return np.random.default_rng(0).standard_normal(n, np.float32)


@functools.cache
def shapes(recipe):
    "(steps, ...) of audio and (frames, channels, height, width) of video at the small size"
    c = configure(recipe=recipe, data_root="rendered", **OWN[recipe])
    rate, seconds = c["preparation"]["rate"], c["preparation"].get("window") or 1
    n = round(rate * seconds)
    heard = AudioWindows(Noise(n), np.zeros(1, int), np.zeros(1, int), np.array([n]), rate)
    settings = c["audio_settings"]
    if c["audio"] == "mel_steps":
        settings = settings | dict(steps=c["windows"]["steps"])
    with tempfile.TemporaryDirectory() as folder:
        source = audio_source(Store(folder), heard, c["audio"], **settings)
        audio = tuple(source.make(0, 1)["x"].shape[1:])
    if per_frame(recipe):
        frames = c["windows"]["length"] // c["windows"]["stride"]
    else:
        frames = min(c["preparation"].get("frames") or 5, 5)  # enough for every step of a head
    video = (frames, 3 * len(c["video_views"]), c["video_size"], c["video_size"])
    return FROZEN if c["audio_backbone"] else audio, FROZEN if c["video_backbone"] else video


FROZEN = (8, 64)  # what a backbone that runs once per clip leaves: vectors


def per_frame(recipe):
    "Does its data set have a label for each frame?"
    return corpus_info(OWN[recipe]["dataset"]).get("kind", "").startswith("per frame")


def labels_of(recipe):
    "Names of classes, or of numbers; and which of the two"
    data = dict(OWN[recipe])
    name = data.pop("dataset")
    takes = inspect.signature(corpus_module(name).plan).parameters
    t = corpus_module(name).plan(**{k: v for k, v in data.items() if k in takes})
    numbers = [c for c in t if c not in PLAN]
    if numbers != ["label"]:
        return numbers, True
    return corpus_info(name)["classes"] or sorted(t.label.unique()), False


def toy(recipe, n=14):
    "A data set of random streams and labels: 8 clips train, 4 validation, 2 test"
    g = torch.Generator().manual_seed(0)
    audio, video = shapes(recipe)
    names, numbers = labels_of(recipe)
    frames = per_frame(recipe)
    windows = configure(recipe=recipe, data_root="rendered", **OWN[recipe])["windows"]
    steps = [windows["steps"]] if frames else []
    if numbers:
        target = torch.randn(n, *steps, len(names), generator=g)
    else:
        target = torch.randint(0, len(names), (n, *steps), generator=g)
    clips = [f"c{i:02d}" for i in range(n)]
    split = np.array(["train"] * 8 + ["validation"] * 4 + ["test"] * 2)
    more = {}
    if frames:
        length = windows["length"]
        target[::3, 0] = np.nan if numbers else -1
        each = length // steps[0]
        limits = [np.full(len(names), x, np.float32) for x in (-3, 3)]
        more = dict(
            steps=torch.ones(n, *steps, dtype=torch.bool),
            numbers=np.tile(np.arange(length), (n, 1)),
            frames={c: np.repeat(t.numpy(), each, 0) for c, t in zip(clips, target)},
            limits=tuple(limits) if numbers else None,
        )
    heard = torch.randn(n, *audio, generator=g)
    seen = torch.randint(0, 256, (n, *video), generator=g, dtype=torch.uint8)
    if len(video) == 2:
        seen = seen / 256
    streams = [Stream(x, torch.ones(x.shape[:2], dtype=torch.bool), "toy") for x in (heard, seen)]
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
    scale = torch.zeros(len(names)), torch.ones(len(names))
    stats = {"target": scale} if numbers else {}
    return RunData(d, m, pd.DataFrame(columns=["clip", "reason"]), stats=stats)


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


def rendered_actors(root, emotions=(0, 5), size=(96, 80)):
    """Rendered clips of three actors, one of each emotion, with RAVDESS's names; and a split in
    which each actor is a subset"""
    for actor in (1, 2, 3):
        for e in emotions:
            frames, sound = render_clip(e, actor=actor, size=size)
            name = f"01-01-{e + 1:02}-01-01-01-{actor:02}.mp4"
            write_video(root / f"Actor_{actor:02}" / name, frames, FPS, sound, RATE)
    (root / "synth.json").write_text("{}")  # what is rendered says so
    split = root.parent / "split.csv"
    split.write_text("speaker,split\n1,train\n2,validation\n3,test\n")
    return split


def few_pixels(monkeypatch):
    "Figures of few pixels, where no test looks at them"
    monkeypatch.setitem(figures._STYLE, "savefig.dpi", 30)


def draw_small(monkeypatch):
    """Figures as PNG alone, of few pixels, with nothing moved to its place, where a test asks no
    more than whether they are drawn"""
    monkeypatch.setattr(figures, "is_raster", lambda fig: True)
    few_pixels(monkeypatch)
    monkeypatch.setitem(figures._STYLE, "savefig.bbox", None)
    monkeypatch.setattr(ConstrainedLayoutEngine, "execute", lambda self, fig: None)


def run_cells(notebook, **given):
    """Run the code cells of a notebook of `nbs` in this process, as papermill does: the given
    parameters are set after the cell that is tagged so; returns its variables"""
    scope = {}
    for c in json.loads((repo_root() / f"nbs/{notebook}.ipynb").read_text())["cells"]:
        if c["cell_type"] == "code":
            exec("".join(c["source"]), scope)
        if "parameters" in c["metadata"].get("tags", []):
            scope.update(given)
    return scope
