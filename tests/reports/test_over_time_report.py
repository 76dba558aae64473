"The report of voices over time, on a toy."

import pytest

from avkit.reports.index import remake
from avkit.reports.over_time import (
    PLAIN_FACE, PLAIN_PRODUCT, PLAIN_VOICE, _row, attention_choices, chosen_runs, over_time_report,
    over_time_runs, same_answers, tallies_of)
from avkit.models.fusion import FUSIONS
from helpers import draw_small


@pytest.fixture(scope="module")
def made(toy_corpus, tmp_path_factory):
    d = tmp_path_factory.mktemp("over_time")
    same = toy_corpus | dict(
        recipe="ravdess_whisper", epochs=1, split="kfold3", fold=[0, 1])
    with pytest.MonkeyPatch.context() as monkeypatch:
        draw_small(monkeypatch)
        table = over_time_report(same, d / "report", "A toy", d / "runs", (1,), 1,
                                 fusions=("gauss", "concat"), enrolment=(0, "all"))
    return d, table


def test_rows_are_ordered_by_validation_and_end_with_the_baselines(made):
    d, table = made
    assert table.method.tolist()[-3:] == [PLAIN_VOICE, PLAIN_FACE, PLAIN_PRODUCT]
    own = table.validation.tolist()[:-3]
    assert own == sorted(own, reverse=True) and "chosen by each fold" in set(table.method)
    for name in ("known.md", "enrolment.md", "enrolment.png"):
        assert (d / "report" / name).is_file()


def test_tables_come_from_records_alone(made, tmp_path, monkeypatch):
    d, _ = made
    draw_small(monkeypatch)
    remake(d / "report", tmp_path)
    for f in ("table.md", "table.csv", "known.csv", "enrolment.csv"):
        assert (tmp_path / f).read_bytes() == (d / "report" / f).read_bytes()
    text = "".join(p.read_text() for p in (d / "report").glob("*.json"))
    assert str(d) not in text


def test_the_choice_never_looks_at_test_scores():
    def run(fusion, fold, validation, test):
        scores = dict(validation=dict(av=dict(accuracy=validation, uar=0)),
                      test=dict(av=dict(accuracy=test, uar=0)))
        return dict(recipe=dict(fusion=fusion), config={}, enrolment=0, seed=1, metrics=scores,
                    split=dict(fold=fold))
    runs = [run("a", 0, .9, .1), run("b", 0, .8, .99), run("a", 1, .1, .9), run("b", 1, .2, 0.)]
    assert chosen_runs(runs) == [runs[0], runs[3]]


def test_which_fusions_cannot_differ():
    "Over a face of one step some attention has nothing to choose; of two vectors, all has"
    idle = [f for f in FUSIONS if (c := attention_choices(f)) and not any(c.values())]
    assert [f for f in idle if f != "jca"] == ["ca"] and same_answers("ca") == "concat"
    for f in ("ca", "ia", "it", "lt"):
        assert not any(attention_choices(f, 1, 1).values())
        assert all(attention_choices(f, 16, 16).values())


def test_what_matters_most_runs_first():
    runs = over_time_runs(dict(recipe="ravdess_whisper", dataset="ravdess", fold=[0]), "runs")
    first = [(c["fusion"], c["enrolment"]) for c in runs[:6]]
    assert first[:4] == [("gauss", 0)] * 2 + [("late", 0)] * 2
    assert {c["seed"] for c in runs[:len(runs) // 3]} == {1}


def test_a_run_that_is_missing_makes_no_method_better():
    "The same answers as the product, but one seed lacks the hard fold"
    def run(seed, fold):
        right = (19, 6)[fold]
        told = {f"{fold}{i}": [[right, 20 - right], [0, 0]] for i in range(4)}
        return dict(seed=seed, speakers=told)
    product = tallies_of([run(1, 0), run(1, 1)])
    row = _row("same", [run(1, 0), run(1, 1), run(2, 0)], product, [0], [0])
    assert row["above"] == 0
