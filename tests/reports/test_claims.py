"""The papers' claims: decided by the rule, from committed records; no smoke in the reports."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from avkit.core import read_json, repo_root
from avkit.reports import claims
from avkit.reports.claims import (CLAIMS, WORTH, WORLDS, claim_notes, claims_report, decided,
                                  paired_interval, runs_of, trials_table, verdicts, write_page)
from avkit.reports.papers import STUDIES
from avkit.reports.records import read_spec
from avkit.reports.tables import was_rendered
from helpers import few_pixels

REPORTS = repo_root() / "reports"
FOLDER = REPORTS / "claims"
TINY = dict(clips=(16, 8, 8), epochs=2)


def test_every_claim_is_tried_where_it_is_open_and_where_it_must_fail():
    for c in CLAIMS:
        assert c.paper in STUDIES and c.kind in ("better", "as good") and c.said.endswith(".")
        assert {t.control for t in c.trials} == {True, False}, c.said
        assert all({t.world, t.second_world or t.world} <= set(WORLDS) for t in c.trials)
    assert {c.paper for c in CLAIMS} >= {
        "emotiw2023", "jca2023", "chumachenko2022", "vavl2023", "ntua2021"}
    assert len({(c.paper, c.said) for c in CLAIMS}) == len(CLAIMS)


def by_scipy(kind, d):
    "The rule, said again: a test of each bound in place of the interval"
    mean = np.mean(d)
    def surely(above): return stats.ttest_1samp(d, above, alternative="greater").pvalue < .025
    def surely_not(above): return stats.ttest_1samp(d, above, alternative="less").pvalue < .025
    if kind == "better":
        yes, no = surely(0) and mean >= WORTH, surely_not(WORTH)
    else:
        yes, no = surely(-WORTH), surely_not(0) and mean <= -WORTH
    return "holds" if yes else "does not" if no else "undecided"


@pytest.mark.parametrize("kind", ["better", "as good"])
def test_the_rule_is_two_tests_at_a_fortieth(kind):
    rng = np.random.default_rng(1)
    seen = set()
    for _ in range(600):
        d = rng.normal(rng.choice([-.1, -.05, 0, .05, .1]), .04, 5)
        said = decided(kind, *paired_interval(d))
        assert said == by_scipy(kind, d)
        seen.add(said)
    assert seen == {"holds", "does not", "undecided"}


@pytest.mark.parametrize("n", [3, 5, 10])
def test_where_nothing_differs_it_seldom_holds(n):
    "At most one in forty, whatever the noise; the interval covers as it says"
    rng = np.random.default_rng(n)
    d = rng.normal(0, .06, (4000, n))
    each = np.array([paired_interval(x) for x in d])
    assert abs(((each[:, 1] < 0) & (each[:, 2] > 0)).mean() - .95) < .02
    assert np.mean([decided("better", *x) == "holds" for x in each]) < .025 + .01
    worse = np.array([paired_interval(x - WORTH) for x in d])
    assert np.mean([decided("as good", *x) == "holds" for x in worse]) < .025 + .01


def made_up(score):
    "Records of every run, five seeds: score(run's name, seed) for all conditions"
    return [dict(run=n, seed=s, test=dict.fromkeys(("av", "audio", "video"), score(n, s)))
            for n in runs_of(CLAIMS) for s in range(1, 6)]


def test_pairs_are_of_one_seed():
    "Seeds differ by far more than methods: unpaired, nothing could be told"
    rng = np.random.default_rng(0)
    noise = {(n, s): rng.normal(0, .005) for n in runs_of(CLAIMS) for s in range(1, 6)}
    t = trials_table(made_up(lambda n, s: .2 * s + .1 * n.endswith("-ca") + noise[n, s]))
    mine = t[t.comparison == "`ca` against `concat`"]
    assert (mine.decision == "holds").all() and np.allclose(mine.difference, .1, atol=.02)
    assert verdicts(t).verdict.iloc[0] == "not shown: it holds in its control too"
    every, gone = made_up(lambda n, s: .2 * s), ("group_moments-ca", 3)
    lost = [r for r in every if (r["run"], r["seed"]) != gone]
    assert trials_table(lost).query("world == 'group_moments'").seeds.eq(4).all()


def test_where_both_sides_are_the_same_no_claim_holds():
    t = trials_table(made_up(lambda n, s: .1 * s))
    assert (t.decision[t.kind == "better"] == "does not").all()
    assert (t.decision[t.kind == "as good"] == "holds").all()


def test_a_report_is_resumed_and_made_again(tmp_path, monkeypatch):
    "A run that is there is not trained again; two starts write the same bytes"
    few_pixels(monkeypatch)
    some = [replace(CLAIMS[-2], trials=CLAIMS[-2].trials[:1])]
    def report(to):
        return claims_report(tmp_path / to, "Toy", (0, 1), tmp_path / "runs", some, **TINY)
    shown = report("a")
    assert shown.seeds.tolist() == [2] and len(list((tmp_path / "runs").glob("*/record.json"))) == 4
    monkeypatch.setattr("avkit.training.learner.train", lambda *a: pytest.fail("trained again"))
    report("b")
    for p in (tmp_path / "a").iterdir():
        if p.suffix != ".png": assert p.read_bytes() == (tmp_path / "b" / p.name).read_bytes(), p
    record = read_json(next((tmp_path / "runs").glob("*/record.json")))
    assert record["size"] == "small" and was_rendered(record) and record["dataset"] == "cues"


def test_only_what_is_lacking_is_trained(tmp_path, monkeypatch):
    "A paper that is added trains its own runs; records that are there stay as they are"
    some = [replace(c, trials=c.trials[:1]) for c in (CLAIMS[-2], CLAIMS[4])]
    trained = []

    def pretend(run, seed, folder, **more):
        trained.append((run.name, seed))
        test = dict.fromkeys(("av", "audio", "video"), .5)
        return dict(run=run.name, seed=seed, test=test, validation=[.1, .2], new=True)

    monkeypatch.setattr(claims, "claim_run", pretend)
    first = runs_of(some[:1])
    kept = [dict(pretend(r, s, ""), new=False) for s in (1, 2) for r in first.values()]
    trained.clear()
    claims_report(tmp_path, "Toy", (1, 2), tmp_path, some, kept)
    assert trained == [(n, s) for s in (1, 2) for n in runs_of(some[1:])]
    records = read_spec(tmp_path)["records"]
    assert {r["run"] for r in records if not r["new"]} == set(first)
    assert not claims.untried_runs(records, some, (1, 2))
    assert claims.untried_runs(kept, some, (1, 2))


def test_a_paper_without_epochs_of_its_own_takes_the_usual_ones():
    assert claims.epochs_of("ravdess_real") == claims.USUAL_EPOCHS not in (0, None)
    c = claims.claim_config("chumachenko2022", dict(fusion="ia"), 1)
    assert c["epochs"] == claims.EPOCHS["chumachenko2022"]
    assert claims.claim_config("ravdess_folds", dict(fusion="late"), 1, size=None)["epochs"] == 8


@pytest.mark.parametrize("name", sorted({c.paper for c in CLAIMS}))
def test_each_papers_recipe_trains_on_its_world(name, tmp_path):
    "One run of each paper, the way the report makes it, smaller"
    run = next(r for r in runs_of(CLAIMS).values() if r.paper == name)
    r = claims.claim_run(run, 0, tmp_path, **TINY)
    assert r["recipe_name"] == name and set(r["test"]) == {"av", "audio", "video"}
    assert len(r["validation"]) == 2 and all(np.isfinite(v) for v in r["test"].values())


def missing_page(key):
    return (f"reports/papers/{key} is missing, or not what is known now: run "
            f"`avkit reports papers/{key}` and commit reports/papers/{key} and reports/README.md")


def test_committed_claims_have_five_seeds_and_follow_the_rule():
    records = read_spec(FOLDER)["records"]
    untried = sorted({r.paper for r, _ in claims.untried_runs(records)})
    assert not untried, "; ".join(
        f"claims of {key} were not tried: run `avkit reports papers/{key}` (it trains them) and "
        f"commit reports/claims and reports/papers/{key}" for key in untried)
    t = trials_table(records)
    assert len(t) == sum(len(c.trials) for c in CLAIMS) and t.seeds.min() >= 5
    assert 0 not in {r["seed"] for r in records}  # by it the difficulty was set
    for r in t.itertuples():
        c = next(c for c in CLAIMS if (c.paper, c.said) == (r.paper, r.claim))
        where = r.world, r.given, r.control
        own = [x for x in c.trials if (x.world, x.given, x.control) == where]
        pairs = [claims.paired_scores(c, x, claims.test_scores(records)) for x in own]
        d = [p[:, 0] - p[:, 1] for p in pairs]
        mine = [v for v in d if np.allclose(v.mean(), r.difference)]
        assert mine and by_scipy(r.kind, mine[0]) == r.decision
    told = pd.read_csv(FOLDER / "table.csv")
    assert told.decision.tolist() == t.decision.tolist()


@pytest.mark.parametrize("key", STUDIES)
def test_a_papers_page_is_what_is_known_of_it(key, tmp_path):
    write_page(key, tmp_path)
    for name in ("table.md", "table.csv", "table.tex"):
        old = REPORTS / "papers" / key / name
        there = old.read_bytes() if old.is_file() else b""
        assert there == (tmp_path / name).read_bytes(), missing_page(key)
    assert {p.name for p in (REPORTS / "papers" / key).iterdir()} == {
        "table.md", "table.csv", "table.tex"}


def test_no_smoke_is_in_the_reports():
    "Runs of two epochs are in the tests alone"
    index = (REPORTS / "README.md").read_text()
    assert "smoke" not in index.lower()
    for path in sorted(REPORTS.rglob("records.json")):
        if "runs" in path.relative_to(REPORTS).parts: continue
        short = [r for r in read_spec(path.parent)["records"]
                 if "dataset" in r and was_rendered(r) and 0 < (r.get("epochs") or 99) < 3]
        assert not short, path


def test_what_chance_would_do_is_said_of_the_trials_that_it_is_true_of():
    "Where nothing differs, all of `as good` hold, and none of `better`"
    rs = [r | dict(validation=[0.5, 0.5]) for r in made_up(lambda n, s: .1 * s)]
    t = trials_table(rs).query("not control")
    said = " ".join(claim_notes(rs, trials_table(rs)))
    better, as_good = (int((t.kind == k).sum()) for k in ("better", "as good"))
    assert f"{better} are of better, of which at most one in forty" in said
    assert f"{as_good} are of as good" in said and "most hold if nothing differed" in said
