"""A run begins with weights of another one, or of an author: what is taken, told and refused."""

import json
import pytest, torch
from helpers import config, toy
from avkit.core import AvkitError, file_hash
from avkit.datasets.splits import LeakError
from avkit.evaluation.export import card_text
from avkit.evaluation.runs import open_run
from avkit.models import released
from avkit.reports.comparison import method_of
from avkit.training.configure import configure
from avkit.training.learner import fit, start


@pytest.fixture(scope="module")
def parent(toy_corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("parent") / "run"
    fit(configure(**toy_corpus, epochs=2, run_dir=str(folder)), verbose=False)
    return folder


def test_a_run_begins_with_another(parent, toy_corpus, tmp_path, capsys):
    cfg = configure(**toy_corpus, epochs=1, init=str(parent), run_dir=str(tmp_path / "run"))
    plain = configure(**toy_corpus, epochs=1)
    weights = parent / "checkpoints/best.safetensors"
    assert cfg["init_sha256"] == file_hash(weights) and cfg.hash != plain.hash
    assert cfg.learned["init_sha256"] == cfg["init_sha256"] and "init" not in cfg.learned
    record = fit(cfg)
    assert "begins with run (avkit): " in capsys.readouterr().out
    began = record["began"]
    assert began["sha256"] == file_hash(weights) and not began["drawn"] and not began["unused"]
    assert began["unseen"].startswith("none of test")
    t = start(configure(**toy_corpus, init=str(weights)), open_run(parent).corpus)
    kept = open_run(parent).model.state_dict()
    assert all(torch.equal(v, kept[k]) for k, v in t.model.state_dict().items())
    run = open_run(tmp_path / "run")
    assert "Begun with run (avkit)" in card_text(run, {})
    assert open_run(tmp_path / "run").cfg.hash == record["config_hash"]
    assert method_of(record)


def test_a_run_gone_does_not_spoil_its_child(parent, toy_corpus, tmp_path):
    import shutil

    copy = shutil.copytree(parent, tmp_path / "copy")
    cfg = configure(**toy_corpus, epochs=1, init=str(copy), run_dir=str(tmp_path / "run"))
    fit(cfg, verbose=False)
    before = open_run(tmp_path / "run").cfg.hash
    shutil.rmtree(copy)
    assert open_run(tmp_path / "run").cfg.hash == before


def test_what_is_not_taken_is_listed(parent, toy_corpus):
    cfg = configure(**toy_corpus, init=str(parent))
    corpus = open_run(parent).corpus
    from dataclasses import replace

    fewer = replace(corpus.data, classes=corpus.data.classes[:5], target=corpus.data.target % 5)
    told = start(cfg, replace(corpus, data=fewer)).began
    assert told["drawn"] and all("classifier_1" in k for k in told["drawn"])
    assert told["drawn"] == told["unused"] and "drawn anew: " in told["told"]
    strict = configure(**toy_corpus, resume_from=str(parent))
    with pytest.raises(AvkitError, match="missing|another shape"):
        start(strict, replace(corpus, data=fewer))
    assert start(strict, corpus).began["drawn"] == []
    wide = configure(**toy_corpus, init=str(parent),
                     options='{"encoder_options": {"vector": {"hidden": 32}}}')
    with pytest.raises(AvkitError, match="has another shape|have another shape"):
        start(wide, corpus)


def test_clips_that_were_learned_are_not_tested(parent, toy_corpus, tmp_path):
    other = configure(**toy_corpus, fold=0, split="kfold4", init=str(parent),
                      run_dir=str(tmp_path / "run"))
    with pytest.raises(LeakError, match="are among those that"):
        fit(other, verbose=False)


@pytest.mark.parametrize("place, match", [
    ("no/such/run", "Cannot read the weights"), ("empty", "holds no weights"),
    ("backbone.pt", "no run and no card"),
])
def test_what_is_no_checkpoint(toy_corpus, tmp_path, place, match):
    (tmp_path / "empty").mkdir()
    torch.save({"conv1.weight": torch.zeros(3)}, tmp_path / "backbone.pt")
    with pytest.raises(AvkitError, match=match):
        fit(configure(**toy_corpus, init=str(tmp_path / place), run_dir=str(tmp_path / "r")),
            verbose=False)


def jca_file(path):
    "What jca2023's trainer saves, its weights drawn"
    torch.manual_seed(3)
    state = released._jca_model().state_dict()
    named = {released._jca_name(k).partition("#")[0]: v for k, v in state.items()}
    torch.save(dict(net=named, epoch=3), path)
    return path, state


def test_an_authors_checkpoint_is_where_a_run_begins(tmp_path):
    path, state = jca_file(tmp_path / "cam.pt")
    corpus = toy("jca2023")
    for stream in ("audio", "video"):  # what the frozen backbones of the paper's size give
        s = getattr(corpus.data, stream)
        x = torch.randn(len(corpus.data), 8, 512)
        setattr(corpus.data, stream, type(s)(x, torch.ones(x.shape[:2], dtype=torch.bool), "toy"))
    corpus.data.steps = torch.ones(len(corpus.data), 8, dtype=torch.bool)
    cfg = config("jca2023", tmp_path / "run", size="paper", init=str(path), random_backbone=True)
    t = start(cfg, corpus)
    assert t.began["whose"] == "jca2023" and t.began["sha256"] == file_hash(path)
    assert "classifier_1.2.weight" in t.began["drawn"]  # one number there, two here
    mine = t.model.state_dict()
    taken = [k for k in state if k not in t.began["unused"]]
    assert len(taken) > 10 and all(torch.equal(mine[k], state[k]) for k in taken)
    resumed = config("jca2023", tmp_path / "r", size="paper", resume_from=str(path))
    with pytest.raises(AvkitError, match="begin with it by init"):
        start(resumed, corpus)


def test_a_card_is_where_a_run_begins(parent, toy_corpus, tmp_path):
    from avkit.evaluation.export import export_card

    export_card(parent, tmp_path / "card", onnx=False)
    cfg = configure(**toy_corpus, init=str(tmp_path / "card"))
    hashes = json.loads((tmp_path / "card/hashes.json").read_text())
    assert cfg["init_sha256"] == hashes["model.safetensors"]
    began = start(cfg, open_run(parent).corpus).began
    assert not began["drawn"] and began["unseen"].startswith("not known")
