"""How long does a face detector take for 15 frames of a clip on one core, and how well does its
steady box agree? Rendered clips and, where they are at hand, real ones of GRID and CREMA-D.

Compared to: MTCNN, frame by frame, at full size.
Takes: 60 s.
"""

import os, tempfile, time

for k in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[k] = "1"
from common import arguments, environment, figure, real_data, tell
import numpy as np
import torch
from avkit.core import AvkitError
from avkit.preprocessing.faces import detector, iou, track
from avkit.preprocessing.media import decode
import talking

REAL = ("GRID, 360x288", "grid_clips", "*.mpg"), ("CREMA-D, 480x360", "av_clips", "cremad/*.flv")


def clips(n):
    "{kind: [(15,H,W,3)]}"
    times = lambda d: (np.arange(15) + 0.5) / 15 * min(d, 3.6)
    with tempfile.TemporaryDirectory() as tmp:
        got = {
            "1280x720": [
                decode(path, audio=False, times=times).frames for path, *_ in talking.make(tmp, n)
            ]
        }
    for kind, folder, files in REAL:
        if folder := real_data(folder):
            found = sorted(folder.glob(files))
            got[kind] = [decode(f, audio=False, times=times).frames for f in found]
    return got


def timed(f, frames, rounds):
    "What f gives, and its shortest time in seconds"
    took = []
    for _ in range(rounds):
        t = time.process_time()
        result = f(frames)
        took.append(time.process_time() - t)
    return result, min(took)


def row(kind, name, many, reference, f, rounds):
    "A line of the table; `f` (T,H,W,3) -> boxes (T,4), found (T,)"
    results = [timed(f, frames, rounds) for frames in many]
    same = np.concatenate([np.diag(iou(b, r)) for ((b, _), _), r in zip(results, reference)])
    missed = sum(int((~found).sum()) for (_, found), _ in results)
    return {
        "clips": kind,
        "detector": name,
        "s / clip": float(np.mean([t for _, t in results])),
        "median IoU": float(np.median(same)),
        "lowest IoU": float(same.min()),
        "frames without a face": f"{missed} of {len(same)}",
    }


def main():
    p = arguments(__doc__)
    p.add_argument("--clips", type=int, default=2, help="how many clips of 1280x720")
    p.add_argument("--rounds", type=int, default=3, help="the shortest of so many rounds counts")
    p.add_argument(
        "--face-model",
        help="the file of YuNet's weights; default: yunet/*.onnx of the real data, if it is at hand",  # noqa: E501
    )
    a = p.parse_args()
    torch.set_num_threads(1)
    from facenet_pytorch import MTCNN

    full, rows, notes = MTCNN(), [], []
    model = (
        a.face_model
        or str(next((real_data("yunet") or talking.Path("/")).glob("yunet*.onnx"), ""))
        or None
    )
    for kind, many in clips(a.clips).items():

        def frame_by_frame(frames):
            found = [full.detect(f)[0] for f in frames]
            return np.array([np.zeros(4) if b is None else b[0] for b in found], float), np.array(
                [b is not None for b in found]
            )

        reference = [frame_by_frame(frames)[0] for frames in many]
        rows.append(
            row(kind, "mtcnn, full size, frame by frame", many, reference, frame_by_frame, 1)
        )
        for name in ("mtcnn", "centerface", "yunet", "yunet_small"):
            try:
                d = detector(name, model if name.startswith("yunet") else None)
            except AvkitError as e:
                notes.append(f"{kind}, {name} left out: {e}")
                continue
            rows.append(
                row(
                    kind,
                    name,
                    many,
                    reference,
                    lambda x, d=d: track(d.detect(x), x.shape[1:3]),
                    a.rounds,
                )
            )
    for kind, folder, _ in REAL:
        if not real_data(folder):
            notes.append(f"{kind} left out: there is no folder {folder} in $AVKIT_DATA")
    figures = []
    for r in rows:
        full_size = next(x for x in rows if x["clips"] == r["clips"])
        if r is not full_size:
            times = full_size["s / clip"] / r["s / clip"]
            name = f"{r['detector']}, {r['clips']}"
            figures.append(figure(name, r["s / clip"], "s / clip", full_size["detector"], times))
    where = environment("torch", "facenet-pytorch", "opencv-python-headless", threads=1)
    tell(a, {"Rule: a median IoU of .85 or more, then speed": rows}, figures, where, notes)


if __name__ == "__main__":
    main()
