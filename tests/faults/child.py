"""Run with `failing.c` preloaded: what a scenario leaves when something goes wrong, each in a fork.

    LD_PRELOAD=failing.so python child.py FOLDER operations MOST [SCENARIO ...]
    python child.py FOLDER kills MOST [SCENARIO ...]
    python child.py FOLDER races MOST [RACE ...]

prints a line of JSON a trial: scenario, what went wrong, how it ended, what a repeat gave.
`operations`: MOST of a scenario's writes, spread evenly, fail once, or with all that follow, or are
the last moment. `kills`: SIGKILL to all its processes at MOST moments. `races`: commands at once,
MOST times.
"""

import contextlib, ctypes, errno, hashlib, io, json, os, shutil, signal, sys, time, traceback
from pathlib import Path

import avkit  # noqa: F401 before NumPy: it chooses their kernels
import numpy as np, pandas as pd, torch

from avkit.cli import main
from avkit.core import AvkitError, sweep_tmp, write_json
from avkit.store import Store, pack

FAULTS = ((errno.ENOSPC, True), (errno.EIO, False), (0, False))  # 0: killed
LIB = ctypes.CDLL(None)


def arm(root, k=0, error=errno.ENOSPC, lasting=False):
    "From now on the k-th operation below `root` fails, and with `lasting` all that follow"
    args = (ctypes.c_long(int(x)) for x in (k, error, lasting))
    LIB.fault_arm(ctypes.c_char_p(str(root).encode()), *args)


def store_put(folder):
    Store(folder / "store").sweep()  # as `prepare` does
    Store(folder / "store").put("ab" * 32, dict(x=torch.arange(5)), dict(fps=25))


def packed(folder):
    x = pack(Store(folder / "store"), "k", 5, lambda i, j: dict(x=torch.arange(i, j)), None, 2)
    assert x["x"].tolist() == [0, 1, 2, 3, 4]


def json_file(folder):
    sweep_tmp(folder)
    write_json(folder / "a" / "b.json", dict(a=1))


def run_main(*flags):
    status = main(list(flags))
    if status:
        raise AvkitError(f"status {status}")


def prepare(folder):
    run_main("prepare", "--dataset=folder", f"--data_root={folder.parent}/voices",
             "--modality=audio", "--n_jobs=1")  # fmt: skip


def learns(folder, *flags):
    toy = folder.parent
    return ("--dataset=folder", f"--data_root={toy}/voices", "--modality=audio", "--recipe=demo",
            "--epochs=2", "--n_jobs=1", "--batch_size=4", "--device=cpu", *flags)  # fmt: skip


def given(folder):
    return f"--audio_features={folder.parent}/features.csv"


def train(folder):
    run_main("train", *learns(folder, given(folder)), f"--run_dir={folder}/run")


def resume(folder):
    "The same, going on from what is there"
    more = ["--resume"] if (folder / "run").exists() else []
    run_main("train", *learns(folder, given(folder)), f"--run_dir={folder}/run", *more)


def hear(folder):
    "One that is trained on sound, not on given features: it can predict"
    run_main("train", *learns(folder), f"--run_dir={folder}/heard")


def grid(folder):
    run_main("grid", *learns(folder, given(folder)), "--seed=1,2", f"--to={folder}/grid")


def report(folder):
    run_main("report", f"{folder}/run", f"--to={folder}/table")


def predict(folder):
    clip = sorted((folder.parent / "voices").rglob("*.wav"))[0]
    run_main("predict", f"--run={folder}/heard", f"--to={folder}/predicted", str(clip))


def evaluate(folder):
    run_main("evaluate", f"--run={folder}/run", "--conditions=audio,audio_noise", "--device=cpu")


def export(folder):
    run_main("export", f"--run={folder}/run", f"--to={folder}/card", "--no-onnx")


SCENARIOS = dict(
    json_file=[json_file],
    store_put=[store_put],
    packed=[packed],
    prepare=[prepare],
    train=[train],
    resume=[resume],
    evaluate=[train, evaluate],
    grid=[grid],
    report=[train, report],
    export=[train, export],
    predict=[hear, predict],
)

COMMANDS = [*SCENARIOS][3:]


def hears_noise(folder):
    run_main("evaluate", f"--run={folder}/run", "--conditions=audio_noise", "--device=cpu")


def hears_all(folder):
    run_main("evaluate", f"--run={folder}/run", "--conditions=audio", "--device=cpu")


# what comes before, and what happens at once
RACES = dict(
    prepare=([], [prepare, prepare]),
    train=([prepare], [train, train]),
    evaluate=([train], [hears_all, hears_noise]),
    grid=([prepare], [grid, grid]),
    export=([train], [export, export]),
    report=([train], [report, report]),
    pack=([store_put], [packed, packed]),
    features=([], [hear, train]),
)


def voices(root):
    "Twelve clips of three people, two classes, and their features"
    from avkit.preprocessing.writing import write_wav

    rng, rows = np.random.default_rng(0), []
    for i in range(12):
        speaker, label = f"p{i % 3}", ("calm", "angry")[i // 3 % 2]
        name = f"{speaker}_{label}_{i}"
        path = root / "voices" / label / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_wav(path, (rng.standard_normal(4000) * 0.1).astype(np.float32), 8000)
        rows.append((f"{label}/{name}", i % 2 + rng.normal(), rng.normal()))
    pd.DataFrame(rows, columns=["name", "a", "b"]).to_csv(root / "features.csv", index=False)


def state(folder):
    "What is there: {file: hash}; times and versions of a record are left out"
    files = [p for p in sorted(folder.rglob("*")) if p.is_file()]
    return {str(p.relative_to(folder)): digest(p) for p in files if not p.name.startswith("events")}


def digest(path):
    data = path.read_bytes()
    if path.name == "record.json":
        record = json.loads(data)
        data = json.dumps([record["metrics"], record["history"]]).encode()
    return hashlib.sha256(data).hexdigest()[:8] if path.suffix not in (".md",) else ""


def in_fork(f, *args):
    "What f(*args) returns, of another process"
    r, w = os.pipe()
    if not (pid := os.fork()):
        os.close(r)
        try:
            out, said = io.StringIO(), io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(said):
                told = f(*args, said)
        except BaseException:
            told = ["traceback", traceback.format_exc()]
        with os.fdopen(w, "w") as out:
            json.dump(told, out)
            out.flush()
            os._exit(0)
    os.close(w)
    with os.fdopen(r) as told:
        text = told.read()
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == 9:
        return ["killed", ""]
    return json.loads(text) if text else ["crash", f"status {status}"]


def attempt(step, folder, k, error, lasting, said):
    arm(folder, k, error, lasting)
    try:
        step(folder)
        return ["ok", said.getvalue()]
    except AvkitError as e:
        return ["error", f"{e} {said.getvalue()}"]
    finally:
        LIB.fault_disarm()


def count(step, folder, said):
    arm(folder)
    step(folder)
    LIB.fault_count.restype = ctypes.c_long
    return LIB.fault_count()


def spread(n, most):
    "All of 1 to n, or `most` of them"
    return np.unique(np.linspace(1, n, most + 2)[1:-1].astype(int)).tolist() if most < n else [
        *range(1, n + 1)]  # fmt: skip


def operations(name, folder, most=10**9):
    "Each operation of a scenario's last step fails, alone and with all that follow"
    *before, step = SCENARIOS[name]
    bench = Bench(name, folder, before)
    right = bench.plain([step])
    n = in_fork(count, step, bench.fresh())
    if not isinstance(n, int):
        print(json.dumps(dict(scenario=name, n=0, end="broken", said=n)))
        return
    for k in spread(n, most):
        for error, lasting in FAULTS:
            end, said = in_fork(attempt, step, bench.fresh(), k, error, lasting)
            kind = errno.errorcode.get(error, "SIGKILL")
            tell(bench, right, step, end, said, n=n, k=k, error=kind)


def kills(name, folder, most):
    "SIGKILL to all processes of a scenario's last step, at moments that are spread evenly"
    *before, step = SCENARIOS[name]
    bench = Bench(name, folder, before)
    began = time.monotonic()
    right = bench.plain([step])
    lasts = time.monotonic() - began
    for k in range(most):
        for _ in range(5):  # what had ended before is begun again
            work = bench.fresh()
            began = time.monotonic()
            process = start(step, work)
            if not ends_within(process, lasts * (k + 0.5) / most):
                break
            lasts = time.monotonic() - began
        else:
            continue
        os.killpg(process, signal.SIGKILL)
        os.waitpid(process, 0)
        tell(bench, right, step, "killed", "", n=most, k=k, error="SIGKILL")


def ends_within(process, seconds):
    "Does a child end in this time? Then it has been waited for"
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if os.waitpid(process, os.WNOHANG)[0]:
            return True
        time.sleep(0.01)
    return False


def races(name, folder, most):
    "Steps at once, started a little apart: nothing is lost, and each ends well or says why not"
    before, steps = RACES[name]
    bench = Bench(f"race-{name}", folder, before)
    right = bench.plain(steps)
    for k in range(most):
        work = bench.fresh()
        began = []
        for step in steps:
            began.append(start(step, work, folder / f"said-{len(began)}"))
            time.sleep(0.05 * k)
        ends = [os.waitstatus_to_exitcode(os.waitpid(p, 0)[1]) for p in began]
        said = " ".join((folder / f"said-{i}").read_text() for i in range(len(began)))
        found = changed(right, state(work))
        end = "ok" if set(ends) <= {0, 2} and 0 in ends and not found else "lost"
        tell(bench, right, steps, end, said, n=most, k=k, error="race", found=found)


class Bench:
    "A folder that is as it was before a scenario's last step, as often as that is asked for"

    def __init__(self, name, folder, before):
        self.base, self.work = folder / f"{name}-base", folder / "work"
        os.environ["AVKIT_HOME"] = str(self.work)
        self.base.mkdir()
        self.fresh()
        self.plain(before)
        shutil.rmtree(self.base)
        shutil.copytree(self.work, self.base)

    def fresh(self):
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.copytree(self.base, self.work)
        return self.work

    def plain(self, steps):
        "What is there after these steps without a fault, each in a process of its own"
        told = state(self.work)
        for step in steps:
            told = in_fork(after, step, self.work)
        return told


def after(step, work, said):
    step(work)
    return state(work)


def start(step, work, said="/dev/null"):
    "The number of a process, and of its group, that does one step"
    if pid := os.fork():
        return pid
    os.setsid()
    status = 3
    try:
        with open(said, "w") as out:
            sys.stdout = sys.stderr = out
            status = ended(step, work)
    finally:
        os._exit(status)


def ended(step, work):
    "0: well; 2: with a sentence; 3: otherwise"
    try:
        step(work)
        return 0
    except AvkitError as e:
        print(e)
        return 2
    except BaseException:
        traceback.print_exc()
        return 3


def tell(bench, right, steps, end, said, **trial):
    "A line: the trial, its end, in what a repeat differs from a run without faults, what is left"
    steps = steps if isinstance(steps, list) else [steps]
    again = bench.plain(steps)
    differs = again if isinstance(again, list) else changed(right, again)
    left = [str(p.relative_to(bench.work)) for p in bench.work.rglob(".tmp*")]
    line = dict(scenario=bench.base.name.removesuffix("-base"), end=end, said=said[-300:])
    print(json.dumps(line | trial | dict(repeat=differs, left=left)), flush=True)


def changed(right, again):
    "The files in which two states differ"
    return sorted(f for f in {*right, *again} if right.get(f) != again.get(f))


def warm():
    "Import what commands need, once and not in each fork"
    import torch.utils.tensorboard, sklearn.metrics  # noqa: F401
    import avkit.evaluation.export, avkit.training.learner  # noqa: F401


if __name__ == "__main__":
    torch.set_num_threads(1)
    top, kind, most = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    todo = dict(operations=(operations, SCENARIOS), kills=(kills, COMMANDS), races=(races, RACES))
    trial, names = todo[kind]
    names = sys.argv[4:] or [*names]
    if not {*names} <= {*SCENARIOS} - {*COMMANDS}:
        warm()
        voices(top)
    for name in names:
        trial(name, top, most)
