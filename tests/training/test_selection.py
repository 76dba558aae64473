"Where the clips that are scored chose the epoch, record, table and figure say so; by rule."

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score

from avkit import configure, fit, load_data
from avkit.core import read_json
from avkit.evaluation.statistics import score_of
from avkit.reports.comparison import about, interval_figure, method_summary, pairs
from avkit.reports.papers import paper_curves
from avkit.reports.records import slim, speakers_of
from avkit.reports.tables import read_records, write_table
from avkit.training.metrics import scores
from avkit.training.record import SELECTED, score_lines, selection_note

NOTE = SELECTED[1:]  # it begins with a capital letter


@pytest.fixture(scope="module")
def runs(toy_corpus, tmp_path_factory):
    "{split: folder of a run}: HiCMAE's folds have no test set, Luna-Jimenez's get one"
    out = {}
    for split in ("hicmae6", "luna5"):
        out[split] = tmp_path_factory.mktemp(split) / "run"
        cfg = configure(**toy_corpus, split=split, epochs=1, run_dir=str(out[split]))
        fit(cfg, load_data(cfg))
    return out


def test_the_record_says_who_chose(runs):
    mine, apart = (read_json(runs[s] / "record.json") for s in ("hicmae6", "luna5"))
    assert mine["selection"] == dict(
        chosen_on="validation", by="accuracy", scored="validation", note=SELECTED
    )
    assert apart["selection"] == dict(
        chosen_on="validation", by="accuracy", scored="test", note=""
    )
    assert "HiCMAE" in mine["split"]["source"] and "MMEmotion" in apart["split"]["source"]
    assert SELECTED in score_lines(mine) and SELECTED not in score_lines(apart)


def test_tables_say_so(runs, tmp_path):
    for split, run in runs.items():
        write_table(read_records([run]), tmp_path / split, "A toy")
        text = (tmp_path / split / "table.md").read_text()
        assert (NOTE in text) == (split == "hicmae6")
        assert ("Rows of validation are of the clips that chose" in text) == (split == "luna5")
        assert f"Split {split}: " in text and "Source: https://github.com/" in text
    write_table(read_records(list(runs.values())), tmp_path, "Both")
    assert f"{NOTE}: ravdess.**" in (tmp_path / "table.md").read_text()


@pytest.mark.parametrize("split", ["hicmae6", "luna5"])
def test_comparisons_and_figures_say_so(runs, split):
    record = slim(runs[split], speakers_of(read_json(runs[split] / "record.json")["config"]))
    chose = split == "hicmae6"
    assert (selection_note(record) == SELECTED) == chose
    assert any(NOTE in line for line in about([record])) == chose
    other = record | dict(recipe=record["recipe"] | dict(fusion="ca"))
    summary = method_summary([record, other], ["accuracy"])
    (ax,) = interval_figure(summary, pairs([record, other], "accuracy"), "accuracy").axes
    assert ("on the clips that chose the epoch" in ax.get_xlabel()) == chose
    title = paper_curves([record]).axes[0].get_title(loc="left")
    assert ("clips that are scored" in title) == chose
    plt.close("all")


@pytest.mark.parametrize("seed", range(20))
def test_macro_f1_is_scikit_learns(seed):
    "With classes that nobody has, that nobody answers, and neither; of a run, and of its tally"
    rng = np.random.default_rng(seed)
    asked, answered = (rng.choice(6, rng.integers(1, 6), replace=False) for _ in range(2))
    t, p = rng.choice(asked, 25), rng.choice(answered, 25)
    got = scores(t, p, 6)
    tally = pd.crosstab(t, p).reindex(index=range(6), columns=range(6), fill_value=0).to_numpy()
    for average in ("macro", "micro", "weighted"):
        told = f1_score(t, p, average=average, zero_division=0)
        assert got[f"f1_{average}"] == pytest.approx(told)
    assert got["f1_macro"] == pytest.approx(float(score_of(tally, "f1_macro")))
    seen = np.isin(p, t)
    assert got["uar"] == pytest.approx(float(score_of(tally, "uar")))
    if seen.all():
        assert got["uar"] == pytest.approx(balanced_accuracy_score(t, p))
    # the same answers with a class more that neither has, and folds that are pooled
    assert scores(t, p, 9) == got
    halves = [pd.crosstab(t[i], p[i]).reindex(index=range(6), columns=range(6), fill_value=0)
              for i in (slice(0, 12), slice(12, None))]  # fmt: skip
    assert score_of(sum(h.to_numpy() for h in halves), "f1_macro") == pytest.approx(got["f1_macro"])
