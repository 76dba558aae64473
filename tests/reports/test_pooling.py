"""A row of a table is one experiment: what differs is a row of its own, what is missing is said."""

import json, shutil
import pandas as pd, pytest
from avkit.cli import main
from avkit.core import read_json, write_json
from avkit.evaluation.runs import open_run
from avkit.reports.browser import of_one_corpus
from avkit.reports.ceilings import beside_ceilings
from avkit.reports.comparison import by_method
from avkit.reports.index import compared
from avkit.reports.records import read_spec, slim_record
from avkit.reports.side_by_side import Beside, run_table
from avkit.reports.tables import caption, experiments, folds_of, gaps, runs_table
from avkit.training.configure import configure
from avkit.training.learner import fit


@pytest.fixture(scope="module")
def runs(toy_corpus, tmp_path_factory):
    "Two corpora of one layout, clips of two and of four emotions; one and two epochs; a seed more"
    folder, make = tmp_path_factory.mktemp("runs"), {}
    for n in (2, 4):
        root = folder / f"data{n}/ravdess"
        shutil.copytree(toy_corpus["data_root"], root)
        for p in root.rglob("*.wav"):
            if int(p.stem.split("-")[2]) > n:
                p.unlink()
        make[n] = toy_corpus | dict(data_root=str(root), batch_size=64, split="kfold3")
    for n, more in (
        (2, dict(epochs=1)),
        (4, dict(epochs=1)),
        (4, dict(epochs=1, seed=2)),
        (4, dict(epochs=2)),
    ):
        name = "-".join(f"{k}{v}" for k, v in dict(n=n, **more).items())
        fit(configure(**make[n] | more, run_dir=str(folder / "runs" / name)), verbose=False)
    return folder / "runs"


def records(runs):
    return [read_json(p) for p in sorted(runs.rglob("record.json"))]


@pytest.mark.parametrize("slim", [False, True])
def test_only_what_is_the_same_is_averaged(runs, slim):
    rs = [slim_record(r) if slim else r for r in records(runs)]
    t = runs_table(rs, ["test"]).query("given == 'av'")
    assert sorted(t.runs) == [1, 1, 2] and {"epochs", "data"} <= set(t)
    assert not any("split" in c for c in t if c != "split")
    two = t.loc[t.runs == 2].iloc[0]
    assert two.epochs == "1" and (t.data == two.data).sum() == 2
    assert len(by_method([r | dict(side="test") for r in rs])) == 3


def test_a_table_of_both_says_which_are_rendered(runs):
    def told(drawn):
        rs = [r | dict(rendered=drawn(r), dataset="ravdess") for r in records(runs)]
        return [line for line in caption(rs) if "not human data" in line]

    assert told(lambda r: False) == []
    [whole] = told(lambda r: True)
    drawn, *real = sorted({r["data_hash"] for r in records(runs)})
    [part] = told(lambda r: r["data_hash"] == drawn)
    assert drawn[:8] in part and drawn[:8] not in whole
    assert real and not any(h[:8] in part for h in real)


def test_report_says_what_is_missing_repeated_unfinished(runs, tmp_path, capsys):
    copy = tmp_path / "runs"
    shutil.copytree(runs, copy)
    shutil.copytree(copy / "n4-epochs1", copy / "once-more")
    shutil.copytree(copy / "n4-epochs1", copy / "stopped")
    (copy / "stopped/record.json").unlink()
    assert main(["report", str(copy), "--to", str(tmp_path / "report")]) == 0
    said, table = capsys.readouterr().out, (tmp_path / "report/table.md").read_text()
    for text in (said, table):
        assert "Not finished, so not in the table: stopped" in text
        assert "left out: n4-epochs1" in text or "left out: once-more" in text
        assert "One fold was asked for: fold 0 of kfold3 (every row)" in text and "Missing" not in text
    assert len(read_spec(tmp_path / "report")["records"]) == 4
    t = pd.read_csv(tmp_path / "report/table.csv")
    assert t.loc[(t.given == "av") & (t.side == "test"), "runs"].max() == 2


def test_a_missing_seed_of_a_fold_is_named(runs):
    r = next(r for r in records(runs) if r["epochs"] == 2)
    grid = [
        r | dict(seed=s, split=r["split"] | dict(fold=f), split_hash=f"fold {f}")
        for s in (1, 2)
        for f in range(3)
    ]
    assert folds_of(r) == 3 and gaps(grid) == []
    assert "Missing: fold 2 with seed 2 of kfold3" in gaps(grid[:-1])[0]
    assert "more than one version" in gaps([grid[0] | dict(code_hash="other"), *grid[1:]])[0]


def test_one_fold_of_all_rows_was_asked_for_and_others_are_missing(runs):
    r = next(r for r in records(runs) if r["epochs"] == 2)
    run = lambda seed, fold: r | dict(seed=seed, split=r["split"] | dict(fold=fold), split_hash=f"{fold}")
    assert gaps([run(1, 1), run(2, 1)]) == ["One fold was asked for: fold 1 of kfold3 (every row)."]
    assert gaps([run(1, 0), run(1, 1)]) == ["**Missing: fold 2 of kfold3** (every row)."]
    other = r["config"] | dict(epochs=9), r["recipe"] | dict(epochs=9)
    alone = run(1, 0) | dict(config=other[0], recipe=other[1])
    said = gaps([run(1, 0), run(1, 1), run(1, 2), alone])
    assert len(said) == 1 and said[0].startswith("**Missing: fold 1, 2 of kfold3** (epochs 9")


@pytest.mark.parametrize("scores,said", [
    ([.7, .6, .5], "best of 3: `a` 0.700, then `b` 0.600; last `c` 0.500."),
    ([.7, .6, .6], "best of 3: `a` 0.700, then `b`, `c` 0.600 each."),
    ([.7, .7001, .5], "best of 3: `b`, `a` 0.700 each; last `c` 0.500."),
    ([.5, .5, .5], "accuracy: `a`, `b`, `c` 0.500 each."),
    ([.5], "best of 1: `a` 0.500."),
])
def test_the_headline_ranks_no_ties(scores, said):
    n = float("nan")
    rows = [(m, "av", "test", 1, 1, 4, s, n, n) for m, s in zip("abc", scores)]
    names = ["method", "given", "side", "runs", "seeds", "speakers", "accuracy", "low", "high"]
    assert compared(pd.DataFrame(rows, columns=names)).endswith(said)


def test_a_fold_of_other_clips_stands_alone(runs):
    r = next(r for r in records(runs) if r["epochs"] == 2)
    other = r | dict(seed=7, split_hash="of another list")
    assert [len(rs) for rs in experiments([r, other]).values()] == [1, 1]
    assert [len(rs) for rs in experiments([r, r | dict(seed=7)]).values()] == [2]


def test_two_corpora_are_not_compared(runs):
    a, b, c = (open_run(runs / n) for n in ("n2-epochs1", "n4-epochs1", "n4-epochs2"))
    apart, alike = Beside(a, b), Beside(b, c)
    assert "another data" in apart.apart and "another data" in apart._repr_html_()
    assert "difference" not in apart.scores and apart.answers is None
    assert alike.apart == "" and "difference" in alike.scores and alike.answers is not None
    assert {"clips", "data"} == set(apart.settings.setting)
    assert {r.folder.name for r in of_one_corpus(runs, a)} == {"n2-epochs1"}
    assert len(of_one_corpus(runs, b)) == 3
    t = run_table(runs)
    assert t.data.nunique() == 2 and t.data.value_counts().max() == 3


def test_ceilings_tell_runs_apart(runs, monkeypatch):
    from avkit.reports import ceilings

    best = pd.DataFrame([dict(given="av", score="accuracy", ceiling=1.0)])
    monkeypatch.setattr(ceilings, "ceilings_of", lambda r: best)
    t = beside_ceilings(records(runs))
    assert t.run.nunique() == 4 and any("epochs 2" in x for x in t.run)
    assert "run" not in beside_ceilings(records(runs)[:1])


def test_older_records_without_an_experiment(runs, tmp_path):
    old = [{k: v for k, v in r.items() if k != "experiment"} for r in records(runs)]
    slim = [{k: v for k, v in slim_record(r).items() if k != "experiment"} for r in old]
    assert len(experiments(old)) == len(experiments(slim)) == 3
    write_json(tmp_path / "one/record.json", json.loads(json.dumps(old[0])))


def test_what_is_missing_is_told_in_words_of_the_recipe(runs):
    r = next(r for r in records(runs) if r["epochs"] == 2)
    other = r["split"] | dict(fold=1)

    def told(changes, **recipe):
        a = r | dict(config=r["config"] | dict(modality="av"))
        b = r | dict(config=r["config"] | changes, recipe=r["recipe"] | recipe, split=other)
        return "\n".join(gaps([a, b]))

    text = told(dict(modality="audio"))
    assert "fold 1, 2 of kfold3** (modality av, fusion ca)" in text
    assert "fold 0, 2 of kfold3** (modality audio)" in text
    text = told({}, patience=5)
    assert "(patience none)" in text and "(patience 5)" in text


def test_a_fusion_that_one_modality_uses_is_told(runs):
    r = next(r for r in records(runs) if r["epochs"] == 2)
    alone = r | dict(config=r["config"] | dict(modality="audio"))
    several = [alone | dict(recipe=r["recipe"] | dict(fusion=f)) for f in ("ca", "ia", "vavl")]
    assert len(experiments(several)) == 2
    assert sorted(runs_table(several, ["test"]).fusion.unique()) == ["", "vavl"]


def test_ceilings_take_a_folder_of_runs(runs, monkeypatch, tmp_path, capsys):
    from avkit.reports import ceilings

    best = pd.DataFrame([dict(given="av", score="accuracy", ceiling=1.0)])
    monkeypatch.setattr(ceilings, "ceilings_of", lambda r: best)
    assert main(["ceilings", str(runs), "--to", str(tmp_path)]) == 0
    assert len(pd.read_csv(tmp_path / "ceilings.csv")) == 4
    assert main(["ceilings", str(tmp_path / "none"), "--to", str(tmp_path)]) == 2
    assert "train a run first" in capsys.readouterr().err
