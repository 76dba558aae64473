"""How do time and memory grow with the clips? Rows of a table with tiny files and tiny arrays, in a
store, through avkit's own index, split, look-ups, packing, an epoch and a report; seconds of the
processor and the most memory at each size. Every stage has a process of its own.

Compared to: the first size; linear is an exponent of 1.

Takes: two minutes with `--quick`, half an hour with 100,000 clips."""

import argparse, json, math, os, resource, subprocess, sys, tempfile, time
from pathlib import Path

for k in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(k, "1")
os.environ.setdefault("AVKIT_PROGRESS", "0")
from common import arguments, environment, ROOT, tell

A_SPEAKER = 20  # clips of one person
CLASSES = ("angry", "happy", "neutral", "sad")
SIZE, FRAMES, RATE, WINDOW = 16, 2, 8000, 0.2  # pixels, images, Hz, s
OPTIONS = dict(
    preparation=dict(window=WINDOW, rate=RATE, frames=FRAMES, size=SIZE),
    audio_settings=dict(n_mfcc=10, n_fft=512, hop=256),
    video_size=SIZE,
    by_speaker=["audio"],
    audio_encoder="vector",
)


def config(home):
    "The settings of all stages"
    from avkit.training.configure import configure

    return configure(
        recipe="demo",
        dataset="folder",
        data_root=str(home / "data"),
        split="kfold5",
        epochs=1,
        batch_size=64,
        device="cpu",
        seed=1,
        options=OPTIONS,
        run_dir=str(home / "run"),
    )


def by_speaker(home):
    "The same, where each clip is scaled by two other clips of its speaker"
    from avkit.training.configure import configure

    cfg = config(home)
    return configure(**{k: v for k, v in vars(cfg.settings).items()} | dict(enrolment=2))


def no_sync():
    "Nobody cuts the power here, and 200,000 waits for a disk say nothing of a processor"
    os.fsync = lambda fd: None


def make(home, n):
    "A table, and two tiny files for each clip; no stage of its own"
    lines = ["audio,video,label,speaker"]
    for i in range(n):
        who = f"p{i // A_SPEAKER:06d}"
        folder = home / "data" / who
        if i % A_SPEAKER == 0:
            folder.mkdir(parents=True)
        for suffix in ("wav", "png"):
            (folder / f"c{i:07d}.{suffix}").write_text(f"{suffix} of clip {i}")
        lines.append(f"{who}/c{i:07d}.wav,{who}/c{i:07d}.png,{CLASSES[i % 7 % 4]},{who}")
    (home / "data/labels.csv").write_text("\n".join(lines) + "\n")


def manifest(home):
    "What the index stage wrote, split"
    import pandas as pd

    return pd.read_pickle(home / "manifest.pkl")


def index(home):
    "Table and files -> manifest, each file hashed"
    import pandas as pd
    from avkit.training.loading import open_manifest

    m = open_manifest(config(home))
    pd.to_pickle(m, home / "manifest.pkl")


def index_again(home):
    "The same, where all hashes are remembered"
    from avkit.training.loading import open_manifest

    open_manifest(config(home))


def split(home):
    "Folds of speakers, leaks, units, what is scarce, hashes"
    import pandas as pd
    from avkit.datasets.splits import apply_split, few_data, units

    m = apply_split(manifest(home), "kfold5", 0, 0)
    units(m.clips, m.corpus)
    few_data(m)
    assert m.data_hash and m.split_hash
    pd.to_pickle(m, home / "manifest.pkl")


def keys_of(home):
    "[(stream, key)] of all clips"
    from avkit.preprocessing.prepare import stream_key
    from avkit.training.loading import preparation_of

    m = manifest(home)
    prep = preparation_of(config(home), m)
    for r in m.clips.to_dict("records"):
        for s in ("audio", "video"):
            yield s, stream_key(r, s, prep, m.root)


def fill(home):
    "What preparation would put into the store, drawn"
    import numpy as np
    from avkit.store import Store

    no_sync()
    store, rng = Store(), np.random.default_rng(0)
    for stream, key in keys_of(home):
        if stream == "audio":
            sound = rng.standard_normal(round(RATE * WINDOW), np.float32)
            store.put(key, dict(sound=sound), dict(clip=key))
        else:
            face = rng.integers(0, 256, (FRAMES, 3, SIZE, SIZE), np.uint8)
            found = np.ones(FRAMES, bool)
            store.put(key, dict(face=face, found=found), dict(clip=key, faces=FRAMES))


def look_up(home):
    "Is all of it in the store? Each entry read"
    from avkit.store import Store

    store = Store()
    for _, key in keys_of(home):
        assert store.has(key) and store.get(key) is not None


def prepare(home):
    "`prepare` where all is there"
    from avkit.preprocessing import prepare as p
    from avkit.training.loading import preparation_of

    m = manifest(home)
    done = p.prepare(m, preparation_of(config(home), m), None, n_jobs=1)
    assert (done.rows.status == "cached").all(), done


def pack(home):
    "Stored clips -> arrays of features, as a run reads them"
    from avkit.training.loading import read_clips

    no_sync()
    read_clips(config(home), manifest(home), verbose=False)


def pack_again(home):
    "The same, where they are packed"
    from avkit.training.loading import read_clips

    read_clips(config(home), manifest(home), verbose=False)


def enrol(home):
    "The same, where each clip is scaled by two other clips of its speaker"
    from avkit.training.loading import read_clips

    read_clips(by_speaker(home), manifest(home), verbose=False)


def epoch(home):
    "A run of one epoch: read, train, validate, score, predictions, record"
    from avkit.training.learner import fit
    from avkit.training.loading import read_clips

    cfg = config(home)
    fit(cfg, read_clips(cfg, manifest(home), verbose=False), verbose=False)


def report(home):
    "Table and figures of the run"
    from avkit.reports.records import runs_report

    runs_report([home / "run"], home / "report")


def compare(home):
    "What a comparison keeps of the run: tallies of each speaker, and an interval"
    from avkit.evaluation.statistics import interval, stacked
    from avkit.reports.records import slim

    import numpy as np

    m = manifest(home)
    kept = slim(home / "run", dict(zip(m.clips["clip"], m.clips["speaker"])))
    each = {k: np.array(v) for k, v in kept["speakers"]["av"].items()}
    interval(stacked([each])[0], "accuracy")


STAGES = {
    f.__name__: f
    for f in (
        index, index_again, split, fill, look_up, prepare, pack, pack_again, enrol, epoch,
        report, compare)
}  # fmt: skip


STEPS = 4  # of a clip's features of frames
CONDITIONS = "av,audio_lost_30,video_noise_0dB"


def tables(home, n):
    "Features of one's own: a vector a clip in place of its audio, four steps of its video"
    import numpy as np, pandas as pd

    rng, t = np.random.default_rng(0), pd.read_csv(home / "data/labels.csv", usecols=["audio"])
    name = t["audio"].str.removesuffix(".wav")
    for stream, steps, width in ("audio", 1, 16), ("video", STEPS, 12):
        x = rng.standard_normal((n * steps, width), np.float32).round(4)
        rows = pd.DataFrame(x, columns=[f"{stream}{i}" for i in range(width)])
        rows.insert(0, "clip", name.repeat(steps).to_numpy())
        rows.to_csv(home / f"{stream}.csv", index=False)


def train_flags(home, name):
    "What `avkit train` is told"
    told = dict(recipe="demo", dataset="folder", data_root=home / "data", split="kfold5", epochs=1,
                batch_size=64, device="cpu", seed=1, n_jobs=1,
                options=json.dumps(OPTIONS), run_dir=home / "runs" / name)  # fmt: skip
    return [x for k, v in told.items() for x in (f"--{k}", str(v))]


def _index(home):
    "`avkit index`, each file hashed"
    return ["index", "--dataset", "folder", "--data_root", str(home / "data")]


def _index_again(home):
    "The same, where all hashes are remembered"
    return _index(home)


def _train_on_features(home):
    "`avkit train` for one epoch on two tables of features of one's own"
    own = [x for s in ("audio", "video") for x in (f"--{s}_features", str(home / f"{s}.csv"))]
    return ["train", *train_flags(home, "features"), *own]


def _evaluate(home):
    "`avkit evaluate` of that run: whole, with audio that is lost, with noise on the video"
    return ["evaluate", "--run", str(home / "runs/features"), "--conditions", CONDITIONS]


def _train_and_pack(home):
    "`avkit train` for one epoch on stored clips, which it packs first"
    return ["train", *train_flags(home, "stored")]


def _train_packed(home):
    "The same, where they are packed"
    return ["train", *train_flags(home, "packed")]


def _first_step(home):
    "From the start of that command to its first optimizer step"
    return ["train", *train_flags(home, "stopped")]


def _report(home):
    "`avkit report` of the two runs on stored clips"
    runs = [str(home / "runs" / k) for k in ("stored", "packed")]
    return ["report", *runs, "--to", str(home / "table")]


def _leaderboard(home):
    "`avkit leaderboard` of all three"
    return ["leaderboard", str(home / "runs"), "--to", str(home / "leaderboard")]


COMMANDS = {
    f.__name__[1:]: f
    for f in (_index, _index_again, _train_on_features, _evaluate, _train_and_pack,
              _train_packed, _first_step, _report, _leaderboard)
}  # fmt: skip


def alone(stage, home):
    "Run a stage in this process -> its seconds of the processor, as JSON"
    import avkit.reports.records, torch  # noqa: F401 imports are no part of a stage

    torch.set_num_threads(1)
    before = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    STAGES[stage](home)
    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2]) - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(dict(seconds=used, peak=peak)), flush=True)


def own_memory(pid):
    "MB that a process holds and no file could give back; None where the system does not tell"
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next(int(x.split()[1]) / 1024 for x in lines if x.startswith("RssAnon"))
    except (OSError, StopIteration):
        return None


def watched(name, command, home):
    "What a process printed, its use of the machine, and its peak of memory that no file backs"
    env = os.environ | dict(AVKIT_HOME=str(home / "home"), PYTHONPATH=str(ROOT))
    most, said = 0, home / "said.txt"
    with said.open("w") as out:
        p = subprocess.Popen(command, env=env, stdout=out)
    while True:
        pid, status, used = os.wait4(p.pid, os.WNOHANG)
        if pid:
            break
        most = max(most, own_memory(p.pid) or 0)
        time.sleep(0.02)
    p.returncode = os.waitstatus_to_exitcode(status)
    if p.returncode:
        raise SystemExit(f"{name} failed: {said.read_text()[-1000:]}")
    return said.read_text(), used, most or used.ru_maxrss / 1024


def measured(stage, home):
    "{seconds, peak} of a stage in a process of its own; the peak without files that are mapped"
    command = [sys.executable, __file__, "--alone", stage, "--home", str(home)]
    said, _, peak = watched(stage, command, home)
    return json.loads(said.splitlines()[-1]) | dict(peak=peak)


def measured_command(name, home):
    "{seconds, peak} of a command as a user types it; from the start of Python to its end"
    command = [sys.executable, "-m", "avkit", *COMMANDS[name](home)]
    if name == "first_step":
        command[1:3] = [__file__, "--to-first-step"]
    _, used, peak = watched(name, command, home)
    return dict(seconds=used.ru_utime + used.ru_stime, peak=peak)


def to_first_step(argv):
    "A command of avkit, which ends where an optimizer is about to step for the first time"
    from avkit.cli import COMMANDS as avkit_commands, main as avkit_main

    real, sys.argv[1:] = avkit_commands[argv[0]], argv

    def stopped(rest):
        from torch.optim.optimizer import register_optimizer_step_pre_hook

        register_optimizer_step_pre_hook(lambda *_: os._exit(0))
        return real(rest)

    avkit_commands[argv[0]] = stopped
    avkit_main()
    raise SystemExit("no optimizer made a step")


def told(n, name, found):
    "Say what a stage took; returns it"
    print(f"{n} clips, {name}: {found['seconds']:.1f} s, {found['peak']:.0f} MB", file=sys.stderr)
    return found


def of_commands(n, folder):
    "{command: {seconds, peak}} of so many clips, and MB of their table"
    home, found = Path(folder) / str(n), {}
    make(home, n)
    tables(home, n)
    for name in COMMANDS:
        found[name] = told(n, name, measured_command(name, home))
        if name == "index":  # what the next ones find there
            for s in "index", "fill":
                measured(s, home)
    return found, table_mb(home)


def of_size(n, folder):
    "{stage: {seconds, peak}} of so many clips, and MB of their table"
    home = Path(folder) / str(n)
    make(home, n)
    return {s: told(n, s, measured(s, home)) for s in STAGES}, table_mb(home)


def table_mb(home):
    "MB of the table of clips"
    return float(manifest(home).clips.memory_usage(deep=True).sum() / 2**20)


def exponent(sizes, seconds):
    """As which power of the clips the time grows: from the last but one to the last size, less what
    the first one takes, where there are three; None where it hardly grows"""
    if len(sizes) > 2:
        if seconds[-1] < 1.5 * seconds[0]:
            return None
        sizes = [n - sizes[0] for n in sizes[1:]]
        seconds = [max(t - seconds[0], 1e-3) for t in seconds[1:]]
    (n, N), (t, T) = sizes[-2:], seconds[-2:]
    return math.log(T / t) / math.log(N / n)


def row(stage, found, sizes):
    "A row of the table"
    seconds, peaks = ([f[stage][k] for f in found] for k in ("seconds", "peak"))
    more = sizes[-1] - sizes[0]
    return (
        {"stage": stage.replace("_", " ")}
        | {f"s at {n:,}": t for n, t in zip(sizes, seconds)}
        | {
            "exponent": exponent(sizes, seconds),
            "ms more a clip": 1e3 * (seconds[-1] - seconds[0]) / more,
        }
        | {f"MB at {n:,}": p for n, p in zip(sizes, peaks)}
        | {
            "MB ratio": peaks[-1] / peaks[0],
            "KB more a clip": 1024 * (peaks[-1] - peaks[0]) / more,
        }
    )


def main(argv=None):
    if sys.argv[1:2] == ["--to-first-step"]:
        return to_first_step(sys.argv[2:])
    p = arguments(__doc__)
    p.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000, 100_000], help="clips")
    p.add_argument("--quick", action="store_true", help="200 and 2,000 clips")
    p.add_argument("--commands", action="store_true", help="avkit's commands in place of stages")
    p.add_argument("--folder", help="where to work; default: a temporary one")
    p.add_argument("--alone", choices=STAGES, help=argparse.SUPPRESS)
    p.add_argument("--home", help=argparse.SUPPRESS)
    a = p.parse_args(argv)
    if a.alone:
        return alone(a.alone, Path(a.home))
    sizes = [200, 2000] if a.quick else a.sizes
    measure, names = (of_commands, COMMANDS) if a.commands else (of_size, STAGES)
    with tempfile.TemporaryDirectory(dir=a.folder) as d:
        *found, (last, rows_mb) = [measure(n, d) for n in sizes]
    found = [f for f, _ in found] + [last]
    rows = [row(s, found, sizes) for s in names]
    where = environment("torch", "pandas", "scikit-learn", threads=1)
    notes = [f"The table of {sizes[-1]:,} clips alone takes {rows_mb:.0f} MB, "
             f"{1024 * rows_mb / sizes[-1]:.1f} KB a clip."]  # fmt: skip
    notes += [f"`{k}`: {f.__doc__}" for k, f in names.items()]
    what = "Commands on many clips" if a.commands else "Many clips"
    title = f"{what}: processor time, and the most memory that no file backs"
    tell(a, {title: rows}, [], where, notes)


if __name__ == "__main__":
    main()
