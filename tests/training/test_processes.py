"""Two processes train what one trains.

The same batches, the same pairs of mixed clips, the loss of both together, a last batch with a
single clip.
"""

import json, os, shlex, socket, subprocess, sys
from dataclasses import replace
from pathlib import Path
import numpy as np, pytest
from avkit.core import repo_root
from helpers import forked_process

MIXED = dict(mixup=0.4, warmup=1.5, per_step=True)


def corpus_of(cfg, numbers):
    """The toy corpus, 15 clips of a batch of 7 train; as classes, their shares, or two numbers; for
    a refit some clips test"""
    import torch
    from avkit.training.loading import load_data

    c = load_data(cfg, verbose=False)
    i = np.arange(len(c.data))
    c.data.split = np.where(i < 15, "train", np.where(i < 40, "validation", ""))
    if numbers == "refit":
        c.data.split[40:] = "test"
    if numbers == "shares":
        c.data.shares = torch.nn.functional.one_hot(c.data.target, 8) * 0.6 + 0.05
    if numbers is not True:
        return c
    y = torch.stack([c.data.target / 4 - 1, (c.data.target % 3) - 1.0], 1).float()
    y[3] = torch.nan
    c.stats["target"] = torch.zeros(2), torch.ones(2)
    told = dict(target=y, classes=["valence", "arousal"], task="regression")
    return replace(c, data=replace(c.data, **told))


def train(settings, numbers, rank, world, port):
    "One of `world` processes"
    os.environ |= dict(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    sys.stdout = open(os.devnull, "w")
    import torch

    torch.set_num_threads(1)
    from avkit.training.learner import fit
    from avkit.training.checkpoint import make_model
    from avkit.training.configure import configure

    cfg = configure(**settings)
    corpus = corpus_of(cfg, numbers)
    model = make_model(cfg, corpus.data)
    for m in model.modules():
        if isinstance(m, torch.nn.Dropout):
            m.p = 0.0
    fit(cfg, corpus, model, verbose=False)


def run(settings, run_dir, world, numbers=False):
    "The record of a run"
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    settings = settings | dict(run_dir=str(run_dir))
    jobs = [(settings, numbers, rank, world, port) for rank in range(world)]
    ps = [forked_process(target=train, args=job) for job in jobs]
    for p in ps:
        p.start()
    for p in ps:
        p.join(180)
    for p in ps:
        p.kill()
    assert [p.exitcode for p in ps] == [0] * world
    return json.loads((run_dir / "record.json").read_text())


BOTH = [(n, d, m) for n, d in ((False, "softhard"), (True, "nodropout")) for m in ({}, MIXED)]
EVEN = dict(sampling="balanced")


@pytest.mark.parametrize(
    "numbers,dropout,more",
    [*BOTH, ("shares", "softhard", MIXED), (False, "nodropout", EVEN)],
    ids=["cross-entropy", "cross-entropy-mixed", "ccc", "ccc-mixed", "shares-mixed", "sampling"],
)
def test_two_processes_are_one(toy_corpus, tmp_path, numbers, dropout, more):
    settings = toy_corpus | dict(epochs=4, batch_size=7, modality_dropout=dropout) | more
    one, two = (run(settings, tmp_path / str(w), w, numbers) for w in (1, 2))
    assert (one["processes"], two["processes"]) == (1, 2)
    for a, b in zip(one["history"], two["history"], strict=True):
        assert a.keys() == b.keys() and all(abs(a[k] - b[k]) < 1e-5 for k in a), (a, b)
    for side, cs in one["metrics"].items():
        for c, s in cs.items():
            assert s == pytest.approx(two["metrics"][side][c], abs=1e-5)
    assert ("mixup" in more) == (one["recipe"]["mixup"] > 0)


def test_two_processes_train_anew_what_one_does(toy_corpus, tmp_path):
    settings = toy_corpus | dict(epochs=2, batch_size=7, refit=True)
    one, two = (run(settings, tmp_path / str(w), w, "refit") for w in (1, 2))
    assert (one["processes"], two["processes"]) == (1, 2)
    assert one["refit"]["clips"] == two["refit"]["clips"] == 40
    assert two["refit"]["losses"] == pytest.approx(one["refit"]["losses"], abs=1e-5)
    assert one["metrics"].keys() == {"train", "validation", "test"}
    for side, cs in one["metrics"].items():
        for c, s in cs.items():
            assert s == pytest.approx(two["metrics"][side][c], abs=1e-5)


def test_processes_meet_where_auto_finds_no_gpu(toy_corpus, tmp_path):
    "As torchrun starts them, with nothing said of a device"
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU, which auto takes")
    settings = toy_corpus | dict(epochs=1, batch_size=64, device="auto")
    assert run(settings, tmp_path / "auto", 2)["processes"] == 2


def test_the_command_of_the_readme(toy_corpus, tmp_path):
    """accelerate starts two processes without a GPU; both work on one run. `accelerate-launch` is
    `accelerate launch`, without the other commands and all that they import"""
    lines = (repo_root() / "README.md").read_text().splitlines()
    shown = next(l for l in lines if "accelerate launch" in l and "--device cpu" in l)
    launch = shlex.split(shown)[: shlex.split(shown).index("train") + 1]
    settings = toy_corpus | dict(epochs=1, run_dir=str(tmp_path / "run"))
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        launch[2:2] = ["--main_process_port", str(s.getsockname()[1])]
    program = str(Path(sys.executable).parent / "-".join(launch[:2]))
    flags = [f"--{k}={v}" for k, v in settings.items()]
    own = os.environ | dict(OMP_NUM_THREADS="1", HF_HOME=str(tmp_path))
    p = subprocess.run(
        [program, *launch[2:], *flags], capture_output=True, text=True, timeout=300, env=own
    )
    assert p.returncode == 0, p.stderr[-2000:]
    r = json.loads((tmp_path / "run/record.json").read_text())
    assert r["processes"] == 2 and len(r["history"]) == 1
    assert p.stdout.count("epoch   1/1") == 1
