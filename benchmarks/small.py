"""How much processor time do small parts of the kit take? It is what `compare.py` runs for two
commits, in turns.

Compared to: the same part at another commit.
Takes: about 10 s.
"""

import subprocess, sys, tempfile
from pathlib import Path
from common import arguments, best, environment, figure, tell
import numpy as np
import torch


def mfcc():
    "Of 40 clips"
    from avkit.preprocessing.audio import mfcc

    waves = torch.randn(40, 79380)
    return lambda: mfcc(waves)


def media():
    "A rendered clip: its file, read and prepared"
    from avkit.datasets.synth import RATE, render_clip
    from avkit.preprocessing.writing import write_video

    path = Path(tempfile.mkdtemp()) / "clip.mp4"
    frames, sound = render_clip(0, actor=1, size=(640, 480))
    write_video(path, frames, 25, sound, RATE)
    return path


def decoding():
    "Every frame and all sound of a clip of 640x480"
    from avkit.preprocessing.media import decode

    path = media()
    return lambda: decode(path)


def preparing():
    "A clip of 640x480 with MTCNN into an empty store"
    from avkit.preprocessing.prepare import Preparation, prepare_clip
    from avkit.store import Store

    path, prep = media(), Preparation(detector="mtcnn")
    row = dict(clip="clip", video=path.name, audio=path.name, video_sha256="", audio_sha256="")

    def prepare():
        with tempfile.TemporaryDirectory() as tmp:
            line = prepare_clip(path.parent, row, prep, Store(tmp))
        if line["status"] != "done":
            raise ValueError(line["reason"])

    return prepare


def joint_attention():
    "Forward and backward"
    from avkit.models.fusion import JointCrossAttention
    from joint_attention import Sequence

    block = JointCrossAttention(Sequence(), Sequence())
    audio, video = torch.randn(2, 48, 8, 512)
    mask = torch.ones(48, 8, dtype=torch.bool)

    def step():
        got = block.head_inputs(audio, mask, video, mask)
        sum(x.square().mean() for x, _ in got).backward()

    return step


def training_step(recipe):
    "An epoch of two steps of a recipe's small size"
    from avkit.training.configure import configure
    from avkit.training.learner import start, train_epoch
    import frozen, training

    settings = training.WHERE[recipe] | dict(size="small", batch_size=4, precision="fp32")
    cfg = configure(recipe=recipe, data_root="rendered", device="cpu", **settings)
    streams = training.streams_of(cfg, 8)
    t = start(cfg, frozen.corpus(cfg, streams, 8, cfg["windows"]["steps"]))
    return lambda: train_epoch(t, 0)


def storing():
    "Twenty clips written and read"
    from avkit.store import Store

    x = dict(frames=torch.zeros(15, 3, 64, 64, dtype=torch.uint8))

    def store():
        with tempfile.TemporaryDirectory() as tmp:
            s = Store(tmp)
            for i in range(20):
                s.put(f"{i:064x}", x)
                s.get(f"{i:064x}")

    return store


def windows():
    "All windows of a video of 300,000 frames"
    from avkit.datasets.features import frame_blocks
    from avkit.datasets.windows import JCA2023, step_ends

    def cut():
        ends = step_ends(300_000, JCA2023)
        frame_blocks(np.zeros(len(ends), int), ends, 32)

    return cut


def importing():
    "What `avkit --help` costs, in a process of its own"
    import resource

    def start():
        code = "from avkit.cli import main; main()"
        subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True)

    def seconds():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    seconds()
    return min(seconds() for _ in range(5))


PARTS = {f.__name__: f for f in (mfcc, decoding, preparing, joint_attention, storing, windows)}
RECIPES = "chumachenko2022", "emotiw2023", "vavl2023", "jca2023", "ntua2021"
PARTS |= {f"a step of {r}": lambda r=r: training_step(r) for r in RECIPES}
PARTS["avkit --help"] = importing


def milliseconds(name, repeats):
    "The shortest of some rounds, after a first one"
    torch.manual_seed(0)
    made = PARTS[name]()
    if not callable(made):
        return 1000 * made
    made()
    return 1000 * best(made, repeats)


def main():
    p = arguments(__doc__)
    p.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="NAME",
                   help=f"of {', '.join(PARTS)}")  # fmt: skip
    p.add_argument("--repeats", type=int, default=5, help="the shortest of so many rounds counts")
    a = p.parse_args()
    torch.set_num_threads(1)
    figures, failed = [], []
    for name in a.only:
        try:
            figures.append(figure(name, milliseconds(name, a.repeats), "ms"))
        except Exception as e:  # an older commit may have no such part
            failed.append(f"{name}: {type(e).__name__}: {e}")
    rows = [dict(part=f["name"], ms=f["value"]) for f in figures]
    tell(a, {"Processor time": rows}, figures, environment("torch", threads=1), failed)


if __name__ == "__main__":
    main()
