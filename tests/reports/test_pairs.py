"""Pairs of interest: which are tested, which cannot differ, and what is said of few speakers."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from avkit.models.fusion import FUSIONS
from avkit.reports.comparison import (
    Comparison,
    about,
    asked_pairs,
    method_summary,
    pairs,
    readable_summary,
    write_compare,
)
from avkit.reports.index import ALL, CANNOT_DIFFER, kit_path
from avkit.reports.records import read_spec
from avkit.training.record import refit_lines

STEPS = {"a vector": 1, "a sequence": 4}


def fused(name, steps):
    "What a head sees of clips with so many steps in each stream: (16, ...)"
    torch.manual_seed(0)
    a, v = torch.randn(16, steps, 8), torch.randn(16, steps, 8)
    mask = torch.ones(16, steps, dtype=torch.bool)
    width = SimpleNamespace(mid_dim=8, dim=8)
    torch.manual_seed(1)
    block = FUSIONS[name](width, width).eval()
    with torch.no_grad():
        a, v = block.between_stages(a, mask, v, mask)
        return None if block.out_dim is None else block.fuse(a, mask, v, mask)


def same_as_concat(steps):
    plain = fused("concat", steps)
    solved = {"gauss"}  # its head is not learned but solved: the same steps, another head
    out = {n: fused(n, steps) for n in FUSIONS if n != "concat" and n not in solved}
    return {
        n for n, x in out.items()
        if x is not None and x.shape == plain.shape and torch.allclose(x, plain)
    }  # fmt: skip


def test_which_fusions_cannot_differ_where_a_clip_is_a_vector():
    "Attention over one step weighs it with 1; on sequences none is the same as another"
    assert same_as_concat(STEPS["a vector"]) == {"ia"}
    assert same_as_concat(STEPS["a sequence"]) == set()
    assert [set(s) for s in CANNOT_DIFFER] == [{"ia", "concat"}]


def test_the_committed_comparison_says_what_it_asked():
    spec = read_spec(kit_path("reports/ravdess_real"))
    told = pd.read_csv(kit_path("reports/ravdess_real/pairs.csv"))
    assert set(told.b) == {spec["baseline"]} == {Comparison().baseline}
    assert "ia" not in set(told.a) and len(told) == 11
    assert "named when these scores were known" in " ".join(ALL["ravdess_real"].notes)


def record(method, seed, hits, clips=20):
    tally = {f"{i:02d}": [[int(k), clips - int(k)], [0, 0]] for i, k in enumerate(hits)}
    accuracy = sum(map(int, hits)) / clips / len(hits)
    return dict(
        config={}, recipe=dict(fusion=method), seed=seed, side="test", task="class",
        parameters=10, cost=dict(mb=0.1), speakers=dict(av=tally), dataset="msp_improv",
        split=dict(name="kfold4", fold=0, note=""), device="cpu", recipe_name="demo", rendered=True,
        git_commit=None, code_hash="c", data_hash="d",
        metrics=dict(test=dict(av=dict(accuracy=accuracy, uar=0.5, f1_macro=0.5))),
    )  # fmt: skip


def made_up(speakers):
    g = np.random.default_rng(0)
    hard = g.normal(0, 0.08, speakers)
    rates = dict(concat=0.6, good=0.85, same=0.6)
    return [
        record(m, s, g.binomial(20, np.clip(r + hard, 0, 1)))
        for m, r in rates.items()
        for s in (1, 2)
    ]


def test_only_what_was_declared_is_tested(tmp_path):
    rs = made_up(12)
    t = pairs(rs, "accuracy", "concat", same=[["same", "concat"]])
    assert t[["a", "b"]].values.tolist() == [["good", "concat"]]
    assert t.p_holm[0] == t.p[0] < 0.05 and t.decision[0] == "differs"
    assert len(pairs(rs, "accuracy", None)) == 3
    assert asked_pairs(["x"], None) == []
    write_compare(
        dict(title="T", records=rs, baseline="concat", margin=0.5, same=[["same", "concat"]]),
        tmp_path,
    )
    text = (tmp_path / "table.md").read_text()
    assert "over 12 dyads" in text and "Cannot differ on these data, so not tested: same" in text
    assert "differs, but alike within 0.5" in (tmp_path / "pairs.md").read_text()


@pytest.mark.parametrize("speakers", [3, 5, 6])
def test_few_speakers_are_shown_one_by_one(speakers, tmp_path):
    rs = made_up(speakers)
    shown = readable_summary(method_summary(rs), ["accuracy"], "dyads")
    cell = shown.set_index("method")["95 % interval"]["good"]
    if speakers >= 6:
        assert " to " in cell and len(pairs(rs, "accuracy")) == 3
        return
    assert cell.startswith("each: ") and len(cell.split()) == 1 + speakers
    assert len(pairs(rs, "accuracy")) == 0
    write_compare(dict(title="T", records=rs), tmp_path)
    said = (tmp_path / "table.md").read_text()
    assert f"{speakers} dyads, fewer than 6: no interval" in said
    assert "No pair is tested" in (tmp_path / "pairs.md").read_text()


def on_two_folds(method, seed, fold, rate):
    "A run that tests six of twelve units; the first fold is easy"
    r = record(method, seed, [rate] * 6)
    told = {f"{fold}{u}": tally for u, tally in r["speakers"]["av"].items()}
    return r | dict(speakers=dict(av=told), split=dict(name="kfold3", fold=fold, note=""))


def test_a_method_that_lacks_a_hard_fold_is_no_better(tmp_path):
    "Two methods with the same answers in every run; one lacks a run, the other a whole seed"
    g = np.random.default_rng(0)
    rates = {(s, f): g.integers(*((16, 20) if f == 0 else (4, 9))) for s in (1, 2, 3) for f in (0, 1)}
    runs = {m: [on_two_folds(m, *k, x) for k, x in rates.items()] for m in ("a", "b")}
    some = [r for r in runs["a"] if (r["seed"], r["split"]["fold"]) != (2, 1)]
    less = [r for r in runs["b"] if r["seed"] != 3]
    t = pairs([*some, *less[::-1]], "accuracy").iloc[0]
    assert (t.difference, t.effect, t.p, t.decision) == (0, 0, 1, "alike within 0.02")
    other = [r for r in less if r["seed"] == 1]
    t = pairs([*runs["a"], *other], "accuracy").iloc[0]
    assert (t.difference, t.p) == (0, 1)
    assert not len(pairs([*[r for r in runs["a"] if r["seed"] == 2], *other], "accuracy"))


def test_a_run_without_a_condition_is_not_scored_zero():
    full, bare = record("a", 1, [20] * 6), record("a", 2, [20] * 6) | dict(speakers={})
    for rs in ([full, bare], [bare, full]):
        assert method_summary(rs).pooled[0] == 1


def test_two_methods_without_their_baseline_are_every_two(tmp_path):
    rs = [r for r in made_up(8) if r["recipe"]["fusion"] != "concat"]
    write_compare(dict(title="T", records=rs, baseline="concat"), tmp_path)
    said = (tmp_path / "pairs.md").read_text()
    assert "every two, 1 in the family" in said and "against concat" not in said


def test_units_that_score_alike_give_no_interval(tmp_path):
    "Nothing is known of how others would score, so an interval without width would say too much"
    rs = [record(m, s, [12] * 8) for m in ("a", "b") for s in (1, 2)]
    shown = write_compare(dict(title="T", records=rs), tmp_path)
    assert shown["95 % interval"].tolist() == ["", ""]
    assert "\nAll dyads score alike: no interval.\n" in (tmp_path / "table.md").read_text()
    rs += [record("c", 1, [9, 10, 11, 12, 13, 14, 15, 16])]
    write_compare(dict(title="T", records=rs), tmp_path)
    said = (tmp_path / "table.md").read_text()
    assert "\nAll dyads score alike (a, b): no interval.\n" in said and "over 8 dyads" in said


def test_what_was_trained_anew_is_said_of_a_comparison(tmp_path):
    rs = made_up(8)
    anew = [r | dict(refit=dict(epochs=e, clips=90)) for r, e in zip(rs, (3, 4, 5, 6, 7, 8))]
    write_compare(dict(title="T", records=anew), tmp_path)
    said = (tmp_path / "table.md").read_text()
    assert refit_lines(anew)[0] in said and "(refit) on 90 clips" in said
    assert "for the 3 to 8 epochs" in said and refit_lines(rs) == []
    assert "(refit; 2 of 6 runs)" in " ".join(about(anew[:2] + rs[2:]))
