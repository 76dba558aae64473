"""A run killed at any moment and started again ends with the same bytes."""
import json, os, random, signal, subprocess, sys, textwrap, time
from pathlib import Path
import pandas as pd, pytest
from safetensors import safe_open

EPOCHS = 80


def command(settings, run_dir, *more):
    flags = [f"--{k}={v}" for k, v in settings.items()]
    return [sys.executable, "-m", "avkit.learner", *flags, f"--epochs={EPOCHS}", f"--run_dir={run_dir}", *more]


def result(run_dir):
    "What must be equal: weights, optimizer, history, predictions"
    def tensors(p):
        with safe_open(p, "pt") as f: return {k: f.get_tensor(k).numpy().tobytes() for k in f.keys()}
    c = run_dir / "checkpoints"
    record = json.loads((run_dir / "record.json").read_text())
    return dict(last=tensors(c / "last.safetensors"), best=tensors(c / "best.safetensors"), metrics=record["metrics"],
                history=(run_dir / "history.csv").read_bytes(), predictions=(run_dir / "predictions.csv").read_bytes())


@pytest.fixture
def uninterrupted(toy_corpus, tmp_path):
    subprocess.run(command(toy_corpus, tmp_path / "whole"), check=True, capture_output=True)
    return result(tmp_path / "whole")


def test_ten_kills(toy_corpus, tmp_path, uninterrupted):
    run, rng, kills, epochs = tmp_path / "killed", random.Random(0), 0, []
    last = run / "checkpoints/last.safetensors"
    while kills < 10:
        before = last.stat().st_mtime_ns if last.exists() else 0
        p = subprocess.Popen(command(toy_corpus, run, "--resume"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while p.poll() is None and (not last.exists() or last.stat().st_mtime_ns == before): time.sleep(.002)
        time.sleep(rng.uniform(0, .12))
        assert p.poll() is None, f"the run ended before kill {kills + 1}: {p.stderr.read().decode()[-2000:]}"
        p.send_signal(signal.SIGKILL)
        p.wait()
        kills += 1
        epochs.append(len(pd.read_csv(run / "history.csv")))
        assert not (run / "record.json").exists()
    assert epochs == sorted(epochs) and epochs[-1] > epochs[0]
    subprocess.run(command(toy_corpus, run, "--resume"), check=True, capture_output=True)
    assert result(run) == uninterrupted


HALF = """
import os, signal, sys
import avkit.learner as L, safetensors.torch as S
whole, calls = S.save_file, [0]
def half(tensors, path, metadata=None):
    whole(tensors, path, metadata=metadata)
    calls[0] += 1
    if calls[0] == int(os.environ["KILL_AT"]):
        os.truncate(path, os.path.getsize(path) // 2)
        os.kill(os.getpid(), signal.SIGKILL)
S.save_file = half
sys.exit(L.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("at", [4, 7])
def test_killed_while_writing_a_checkpoint(toy_corpus, tmp_path, uninterrupted, at):
    run = tmp_path / "half"
    p = subprocess.run([sys.executable, "-c", HALF, *command(toy_corpus, run)[3:]], env=os.environ | {"KILL_AT": str(at)}, capture_output=True)
    assert p.returncode == -signal.SIGKILL and list(run.rglob(".tmp-*"))
    subprocess.run(command(toy_corpus, run, "--resume"), check=True, capture_output=True)
    assert result(run) == uninterrupted


def test_resume_refuses_other_settings(toy_corpus, tmp_path):
    from avkit.core import AvkitError
    from avkit.learner import fit
    from avkit.recipes import configure
    settings = toy_corpus | dict(run_dir=str(tmp_path / "r"), epochs=1)
    fit(configure(**settings), verbose=False)
    with pytest.raises(AvkitError, match="another config"): fit(configure(**settings, resume=True, lr=.5), verbose=False)
    (tmp_path / "r/checkpoints/last.safetensors").write_bytes(b"cut short")
    with pytest.raises(AvkitError, match="Cannot read the checkpoint"): fit(configure(**settings, resume=True), verbose=False)
