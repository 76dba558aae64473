"""How fast is the preparation of every rendered data set (clips and minutes of video a second), and
how much memory does a long video take?

Compared to: real time, and the memory of a short video.
Takes: more than five minutes; two with `--only memory --minutes .5 4`.
"""

import itertools, json, os, subprocess, sys, tempfile, time
from pathlib import Path

for k in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(k, "1")
os.environ.setdefault("AVKIT_PROGRESS", "0")
from common import arguments, environment, figure, tell

CHILD = """
import json, resource, sys
from avkit.preprocessing.prepare import Preparation
from avkit.store import Store
from avkit.preprocessing.tracks import make_track
root, name, store = sys.argv[1:]
row = dict(clip=name, audio=name, video=name)
prep = Preparation(long=True, size=112, every=5, rate=22050, detector="mtcnn")
faces, _ = make_track(root, row, ["video", "audio"], dict(video="a" * 64, audio="b" * 64), prep, Store(store))
print(json.dumps(dict(faces=faces, peak=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)))
"""  # noqa: E501


def speed(n_jobs):
    "A row per corpus: clips, minutes of media, seconds, clips a second, minutes of media a minute"
    from avkit.datasets.registry import CORPORA, open_dataset, variants
    from avkit.preprocessing.media import MediaError, probe
    from avkit.training.loading import prepare_clips
    from avkit.training.configure import configure
    from avkit.store import Store

    rows = []
    for name in CORPORA:
        usual = variants(name)[0]
        cfg = configure(data_root="twin", n_jobs=n_jobs, **usual)
        m = open_dataset(data_root="twin", **usual)
        minutes = 0.0
        for f in set(m.clips.video) | set(m.clips.audio) - set(m.clips.video):
            try:
                minutes += (
                    (probe(m.root / f).duration or 0) / 60 if f and not f.endswith(".pt") else 0
                )
            except MediaError:
                pass
        with tempfile.TemporaryDirectory() as d:
            t0 = time.perf_counter()
            s = prepare_clips(cfg, m, Store(d))
            took = time.perf_counter() - t0
            size = sum(p.stat().st_size for p in Path(d).rglob("*") if p.is_file()) / 2**20
        rows.append(
            [
                name,
                len(m),
                f"{minutes:.1f}",
                f"{took:.1f}",
                f"{len(m) / took:.1f}",
                f"{minutes * 60 / took:.0f}",
                f"{size:.0f}",
                len(s.failures),
            ]
        )
    return rows


def film(path, minutes, size=(320, 240)):
    "A talking head over and over, with sound"
    import numpy as np
    from avkit.datasets import synth
    from avkit.preprocessing.writing import write_video

    frames, sound = synth.perform(
        synth.FACES[1], synth.VOICES[1], actor=3, key=("film",), seconds=12, size=size
    )
    frames, n = list(frames), round(minutes * 60 * synth.FPS)
    write_video(
        path,
        itertools.islice(itertools.cycle(frames), n),
        synth.FPS,
        np.resize(sound, round(minutes * 60 * synth.RATE)),
        synth.RATE,
    )


def memory(lengths):
    "A row per length of a video: seconds, peak memory"
    rows = []
    with tempfile.TemporaryDirectory() as d:
        for m in lengths:
            film(Path(d) / f"{m}.mp4", m)
            t0 = time.perf_counter()
            out = subprocess.run(
                [sys.executable, "-c", CHILD, d, f"{m}.mp4", f"{d}/store{m}"],
                capture_output=True,
                text=True,
            )
            if out.returncode:
                raise SystemExit(out.stderr)
            r = json.loads(out.stdout.splitlines()[-1])
            rows.append([m, r["faces"], time.perf_counter() - t0, r["peak"]])
    return rows


COLUMNS = "data set, clips, min of media, seconds, clips/s, x real time, store in MB, set aside"


def main():
    p = arguments(__doc__)
    p.add_argument("--n_jobs", type=int, default=-1)
    p.add_argument("--minutes", type=float, nargs="+", default=[1, 20])
    p.add_argument("--only", choices=["speed", "memory"])
    a = p.parse_args()
    tables, figures = {}, []
    if a.only != "memory":
        rows = [dict(zip(COLUMNS.split(", "), r)) for r in speed(a.n_jobs)]
        tables["Rendered data sets, prepared into an empty store"] = rows
        figures += [figure(r["data set"], float(r["clips/s"]), "clips/s") for r in rows]
    if a.only != "speed":
        columns = "video, min", "faces", "seconds", "peak memory, MB"
        rows = [dict(zip(columns, r)) for r in memory(a.minutes)]
        tables["Memory of a process that prepares one video"] = rows
        short, long = rows[0], rows[-1]
        peaks = short[columns[-1]], long[columns[-1]]
        name, beside = (f"video of {r[columns[0]]:g} min" for r in (long, short))
        figures.append(figure(name, peaks[1], "MB", beside, peaks[0] / peaks[1]))
    tell(a, tables, figures, environment("av", "torch", "facenet-pytorch", threads=1))


if __name__ == "__main__":
    main()
