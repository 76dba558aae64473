"""RAVDESS-like clips for the benchmarks: 1280x720, 30 fps, 3.7 s, H.264 at about 10 Mb/s, AAC at
48 kHz, one talking face."""

from pathlib import Path
from common import real_data
import cv2
import numpy as np
from avkit.preprocessing.media import decode
from avkit.preprocessing.writing import write_video
from avkit.datasets.synth import RATE, render_clip

SECONDS, FPS, SIZE = 3.7, 30, (1280, 720)


def faces(n):
    """n clips of a face (T,h,w,3), their fps, sound (N,), rate, and what they are: real ones
    (GRID) or rendered"""
    folder = real_data("grid_clips")
    for f in sorted(folder.glob("*.mpg"))[:n] if folder else ():
        c = decode(f)
        yield c.frames, c.fps, c.sound, c.rate, f"real face ({f.stem}), scaled up"
    for i in range(0 if folder else n):
        frames, sound = render_clip(i % 8, actor=i + 1, size=(900, 720))
        yield np.stack(list(frames)), 25, sound, RATE, "rendered face"


def make(
    root, n=2, crf=20, noise=4.0
):  # what a camera adds, grey levels: it is what takes most of the bits
    "Write n clips in RAVDESS's layout below `root`; yields (path, Mb/s, what is in it)"
    rng = np.random.default_rng(0)
    grain = [rng.normal(0, noise, (SIZE[1], SIZE[0], 1)).astype(np.float32) for _ in range(7)]
    for i, (face, fps, sound, rate, what) in enumerate(faces(n), 1):
        path = Path(root) / f"Actor_{i:02d}/01-01-03-01-01-01-{i:02d}.mp4"
        t = np.minimum(np.arange(round(SECONDS * FPS)) / FPS * fps, len(face) - 1).astype(int)
        sound = np.interp(
            np.arange(round(SECONDS * 48000)) / 48000, np.arange(len(sound)) / rate, sound
        ).astype(np.float32)
        write_video(
            path,
            (_frame(face[k], grain[j % 7]) for j, k in enumerate(t)),
            FPS,
            sound,
            48000,
            crf=crf,
            preset="veryfast",
        )
        yield path, path.stat().st_size * 8 / SECONDS / 1e6, what


def _frame(face, grain):
    "The face in the middle of a bright wall, full height, with a camera's noise"
    picture = np.full((SIZE[1], SIZE[0], 3), 225, np.float32)
    w = round(SIZE[1] * face.shape[1] / face.shape[0])
    picture[:, (SIZE[0] - w) // 2 : (SIZE[0] - w) // 2 + w] = cv2.resize(
        face, (w, SIZE[1]), interpolation=cv2.INTER_CUBIC
    )
    return np.clip(picture + grain, 0, 255).astype(np.uint8)
