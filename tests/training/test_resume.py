"""A run killed at any moment and started again ends with the same bytes.

The runs are forked from one small server process that has imported everything, so that a start
costs no imports.
"""

import json, os, random, signal, sys, time
import pandas as pd, pytest
from safetensors import safe_open
from helpers import forked_process

EPOCHS = 50  # ten kills take one or a few each


def train(flags, kill_at=None):
    "What a run's process does; `kill_at`: die in the middle of writing the n-th safetensors file"
    import torch
    from avkit import store

    torch.set_num_threads(1)
    sys.stdout = open(os.devnull, "w")
    whole, calls = store.save_file, [0]

    def half(tensors, path, metadata=None):
        whole(tensors, path, metadata=metadata)
        calls[0] += 1
        if calls[0] == kill_at:
            os.truncate(path, os.path.getsize(path) // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    if kill_at:
        store.save_file = half
    from avkit.cli import main

    sys.exit(main(["train", *flags]))


def start(settings, run_dir, *more, **kw):
    said = dict(epochs=EPOCHS) | settings | dict(batch_size=32, run_dir=run_dir)
    flags = [f"--{k}" if v is True else f"--{k}={v}" for k, v in said.items()] + list(more)
    p = forked_process(target=train, args=(flags,), kwargs=kw)
    p.start()
    return p


def finish(*args, **kw):
    p = start(*args, **kw)
    p.join()
    return p.exitcode


def result(run_dir, refit=False):
    "What must be equal: weights, optimizer, history, predictions"

    def tensors(p):
        with safe_open(p, "pt") as f:
            return {k: f.get_tensor(k).numpy().tobytes() for k in f.keys()}

    c = run_dir / "checkpoints"
    chosen = dict(chosen=tensors(c / "chosen.safetensors")) if refit else {}
    record = json.loads((run_dir / "record.json").read_text())
    return dict(
        last=tensors(c / "last.safetensors"),
        best=tensors(c / "best.safetensors"),
        metrics=record["metrics"],
        history=(run_dir / "history.csv").read_bytes(),
        predictions=(run_dir / "predictions.csv").read_bytes(),
        **chosen,
    )


def test_five_kills(toy_corpus, tmp_path):
    assert finish(toy_corpus, tmp_path / "whole") == 0
    run, rng, epochs = tmp_path / "killed", random.Random(0), []
    last = run / "checkpoints/last.safetensors"
    written = lambda: last.stat().st_mtime_ns if last.exists() else 0
    for kill in range(5):
        before = written()
        p = start(toy_corpus, run, "--resume")
        while p.is_alive() and written() == before:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.1))
        assert p.is_alive(), f"the run ended before kill {kill + 1}, with {p.exitcode}"
        p.kill()
        p.join()
        assert p.exitcode == -signal.SIGKILL and not (run / "record.json").exists()
        epochs.append(len(pd.read_csv(run / "history.csv")))
    assert epochs == sorted(epochs) and epochs[-1] > epochs[0]
    assert finish(toy_corpus, run, "--resume") == 0
    assert result(run) == result(tmp_path / "whole")


@pytest.fixture(scope="module")
def short(toy_corpus, tmp_path_factory):
    "Settings of a run that writes checkpoints a few times, and how it ends"
    run, settings = tmp_path_factory.mktemp("whole"), toy_corpus | dict(epochs=8)
    assert finish(settings, run) == 0
    return settings, result(run)


@pytest.mark.parametrize("at", [4, 7])
def test_killed_while_writing_a_checkpoint(short, tmp_path, at):
    run, (settings, uninterrupted) = tmp_path / "half", short
    assert finish(settings, run, kill_at=at) == -signal.SIGKILL
    assert list(run.rglob(".tmp-*"))
    assert finish(settings, run, "--resume") == 0
    assert result(run) == uninterrupted


@pytest.fixture(scope="module")
def twice(toy_corpus, tmp_path_factory):
    "The same of a run that trains once more on validation clips too, and how many files it writes"
    run, settings = tmp_path_factory.mktemp("twice"), toy_corpus | dict(epochs=4, refit=True)
    assert finish(settings, run) == 0
    history = pd.read_csv(run / "history.csv")
    best = json.loads((run / "record.json").read_text())["best_epoch"]
    improved = history.validation_accuracy.cummax().diff().fillna(1).gt(0).sum()
    return settings, result(run, True), len(history) + improved, best + 1


@pytest.mark.parametrize("at", [1, 2, "last"])
def test_killed_while_training_once_more(twice, tmp_path, at):
    settings, uninterrupted, before, epochs = twice
    run, at = tmp_path / "half", epochs + 1 if at == "last" else min(at, epochs)
    assert finish(settings, run, kill_at=before + at) == -signal.SIGKILL
    assert (run / "checkpoints/best.safetensors").exists() is False
    assert finish(settings, run, "--resume") == 0
    assert result(run, True) == uninterrupted


def test_resume_refuses_other_settings(toy_corpus, tmp_path):
    from avkit.core import AvkitError
    from avkit.training.learner import fit
    from avkit.training.configure import configure

    settings = toy_corpus | dict(run_dir=str(tmp_path / "r"), epochs=1)
    fit(configure(**settings), verbose=False)
    other = configure(**settings, resume=True, lr=0.5)
    with pytest.raises(AvkitError, match="lr: 0.003 then, 0.5 now"):
        fit(other, verbose=False)
    (tmp_path / "r/record.json").unlink()  # a finished run is not opened again
    (tmp_path / "r/checkpoints/last.safetensors").write_bytes(b"cut short")
    again = configure(**settings, resume=True)
    with pytest.raises(AvkitError, match="Cannot read the checkpoint"):
        fit(again, verbose=False)


def test_resume_goes_on_with_the_same_threads_and_says_how_many(toy_corpus, tmp_path):
    "Their number changes the last bits of sums"
    from avkit.core import AvkitError
    from avkit.numerics import numerics
    from avkit.training.learner import fit
    from avkit.training.configure import configure

    settings = toy_corpus | dict(run_dir=str(tmp_path / "r"), epochs=1)
    record = fit(configure(**settings, threads=2), verbose=False)
    assert (record["environment"]["threads"], record["environment"]["numerics"]) == (2, numerics())
    (tmp_path / "r/record.json").unlink()
    with pytest.raises(AvkitError, match="threads"):
        fit(configure(**settings, resume=True), verbose=False)
    assert configure(threads=2).hash == configure().hash  # no other method


def test_adam_on_a_cpu_takes_exact_roots():
    "MKL's are off by a bit in one of six, and elsewhere on another vendor's processor"
    import math, torch
    from avkit.training.configure import configure
    from avkit.training.learner import make_optimizer

    layer = torch.nn.Linear(64, 64, bias=False)
    before = layer.weight.detach().clone()
    cfg = configure(options={"optimizer": "adam", "weight_decay": 0.0}, lr=1.0)
    optimizer = make_optimizer(cfg, layer)
    layer.weight.grad = torch.rand(64, 64) + 0.5
    second = (1 - cfg["betas"][1]) * layer.weight.grad * layer.weight.grad
    optimizer.step()
    state = optimizer.state[layer.weight]
    assert optimizer.param_groups[0]["fused"] and torch.allclose(state["exp_avg_sq"], second)
    assert make_optimizer(cfg, layer, "mps").param_groups[0]["fused"] is None
    step = (before - layer.weight).detach()
    assert math.isclose(float(step.mean()), 1.0, rel_tol=1e-3)
