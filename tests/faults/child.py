"""Run with `failing.c` preloaded: every operation of a scenario fails once, each in a fork.

    LD_PRELOAD=failing.so python child.py FOLDER MOST [SCENARIO ...]

prints a line of JSON for each: scenario, which operation, how it ended, what the repeat gave. MOST
operations of a scenario are tried, spread evenly.
"""

import contextlib, ctypes, errno, hashlib, io, json, os, shutil, sys, traceback
from pathlib import Path

import avkit
import numpy as np, pandas as pd, torch

from avkit.cli import main
from avkit.core import AvkitError, sweep_tmp, write_json
from avkit.store import Store, pack

FAULTS = ((errno.ENOSPC, True), (errno.EIO, False), (0, False))  # 0: killed
LIB = ctypes.CDLL(None)
LIB.fault_count.restype = ctypes.c_long


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


def train(folder):
    toy = folder.parent
    run_main("train", "--dataset=folder", f"--data_root={toy}/voices", "--modality=audio",
             f"--audio_features={toy}/features.csv", "--recipe=demo", "--epochs=2", "--n_jobs=1",
             "--batch_size=4", "--device=cpu", f"--run_dir={folder}/run")  # fmt: skip


def evaluate(folder):
    run_main("evaluate", f"--run={folder}/run", "--conditions=audio,audio_noise", "--device=cpu")


def export(folder):
    run_main("export", f"--run={folder}/run", f"--to={folder}/card", "--no-onnx")


SCENARIOS = dict(json_file=[json_file], store_put=[store_put], packed=[packed], prepare=[prepare],
                 train=[train], evaluate=[train, evaluate], export=[train, export])  # fmt: skip


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
    return LIB.fault_count()


def spread(n, most):
    "All of 1 to n, or `most` of them"
    return np.unique(np.linspace(1, n, most + 2)[1:-1].astype(int)).tolist() if most < n else [
        *range(1, n + 1)]  # fmt: skip


def trials(name, folder, most=10**9):
    "Each operation of a scenario's last step fails, alone and with all that follow"
    *before, step = SCENARIOS[name]
    base, work = folder / f"{name}-base", folder / "work"
    base.mkdir()

    def fresh():
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(base, work)
        return work

    def plain(steps, said):
        for s in steps:
            s(work)
        return state(work)

    os.environ["AVKIT_HOME"] = str(work)
    fresh()
    in_fork(plain, before)
    shutil.rmtree(base)
    shutil.copytree(work, base)
    right = in_fork(plain, [step])
    n = in_fork(count, step, fresh())
    if not isinstance(n, int):
        print(json.dumps(dict(scenario=name, n=0, end="broken", said=n)))
        return
    for k in spread(n, most):
        for error, lasting in FAULTS:
            end, said = in_fork(attempt, step, fresh(), k, error, lasting)
            again = in_fork(plain, [step])
            left = [p.name for p in work.rglob(".tmp*")]
            differs = again if isinstance(again, list) else changed(right, again)
            kind = errno.errorcode.get(error, "SIGKILL")
            line = dict(scenario=name, n=n, k=k, error=kind, end=end, said=said[-600:])
            print(json.dumps(line | dict(repeat=differs, left=left)), flush=True)


def changed(right, again):
    "The files in which two states differ"
    return sorted(f for f in {*right, *again} if right.get(f) != again.get(f))


if __name__ == "__main__":
    import torch.utils.tensorboard, sklearn.metrics  # noqa: F401 once, and not in each fork
    import avkit.evaluation.export, avkit.training.learner  # noqa: F401 the same

    torch.set_num_threads(1)
    top = Path(sys.argv[1])
    voices(top)
    for name in sys.argv[3:] or SCENARIOS:
        trials(name, top, int(sys.argv[2]))
