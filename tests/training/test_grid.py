"""Many runs: over processes, after a stop; each once, each the same. Over a cluster: test_dask."""

from avkit.training import grid as g, record, learner
from avkit.core import read_json

SAME = (
    "metrics",
    "config_hash",
    "data_hash",
    "split_hash",
    "code_hash",
    "files",
    "best_epoch",
    "history",
)


def made(configs):
    "What must be equal of the records of some runs"
    return [{k: read_json(c.run_dir / "record.json")[k] for k in SAME} for c in configs]


def test_over_processes_and_again(toy_corpus, tmp_path):
    here, there = (
        g.combine(to=tmp_path / n, **toy_corpus, epochs=2, fusion=["ca", "concat"])
        for n in ("here", "there")
    )
    assert g.run_grid(here, n_jobs=1).status.tolist() == ["done"] * 2
    no_fold = g.combine(to=tmp_path, **toy_corpus, fold=9)
    t = g.run_grid([*there, *there, *no_fold], n_jobs=2)
    assert t.status.tolist() == ["done", "done", "failed"]
    assert "folds 0 to 0" in t.reason.iloc[-1]
    assert made(here) == made(there)
    assert g.run_grid(there, n_jobs=2).status.tolist() == ["cached"] * 2


def test_other_code_or_other_features_run_again(toy_corpus, tmp_path, monkeypatch):
    own = tmp_path / "face.csv"
    own.write_text(open(toy_corpus["video_features"]).read())
    settings = toy_corpus | dict(video_features=str(own))
    configs = g.combine(to=tmp_path / "runs", **settings, epochs=1)
    status = lambda: g.run_grid(configs, n_jobs=1).status.tolist()
    assert status() == ["done"] and status() == ["cached"]
    own.write_text(own.read_text().replace("0.", "0.0", 1))
    assert status() == ["done"] and status() == ["cached"]
    monkeypatch.setattr(record, "code_hash", lambda corpus=None: "other")
    assert status() == ["done"] and status() == ["cached"]


def test_a_stopped_run_goes_on_to_the_same_record(toy_corpus, tmp_path, monkeypatch):
    whole, cut = (g.combine(to=tmp_path / n, **toy_corpus, epochs=3) for n in ("whole", "cut"))
    g.run_grid(whole, n_jobs=1)
    keep = learner.keep

    def stop(t, run_dir):
        keep(t, run_dir)
        if len(t.history) == 2:
            raise RuntimeError("out of luck")

    monkeypatch.setattr(learner, "keep", stop)
    t = g.run_grid(cut, n_jobs=1)
    assert t.status.tolist() == ["failed"] and "out of luck" in t.reason[0]
    monkeypatch.undo()
    assert g.run_grid(cut, n_jobs=1).status.tolist() == ["done"]
    assert made(cut) == made(whole)
    assert len(read_json(cut[0].run_dir / "record.json")["timings"]["epochs"]) == 1
