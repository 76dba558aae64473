"""What intervals, tests and parts of variance promise is counted, on data whose truth is known.

Each count is of so many trials that its standard error is told; bounds are the promise, give or
take two points where that is what a table says, and three such errors.
"""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from avkit.datasets.manifest import known_datasets, unit_of
from avkit.evaluation.statistics import (
    UNITS,
    difference_interval,
    effect,
    equivalence_p,
    holm,
    interval,
    left_out_scores,
    permutation_p,
    score_of,
    spreads,
    stacked,
    tallies,
    unit_scores,
    variance_parts,
)

CLASSES = 4
TALK = np.linspace(-0.4, 0.4, CLASSES)  # some classes are easier


def speakers(g, trials, units, skew=False):
    "(trials, units, 1): log odds of being right; of some tests a few speakers are very hard"
    u = g.normal(0, 0.6, (trials, units, 1))
    if skew:
        u = 0.6 * (1 - g.exponential(1, (trials, units, 1)))
    return 1.2 + u


def confusions(g, odds, clips=24):
    "(..., units, C, C): a class's clips are right with these log odds, else any other class"
    n = clips // CLASSES
    hits = g.binomial(n, 1 / (1 + np.exp(-(odds + TALK))))
    T = np.zeros((*hits.shape, CLASSES))
    for c in range(CLASSES):
        others = [k for k in range(CLASSES) if k != c]
        wrong = g.multinomial(n - hits[..., c], [1 / len(others)] * len(others))
        T[..., c, c], T[..., c, others] = hits[..., c], wrong
    return T


def sums(g, trials, units, clips=20):
    "(trials, units, 1, 6): a number that is answered with noise, and a bias of each speaker"
    x = g.normal(0, 0.5, (trials, units, clips)) + g.normal(0, 0.2, (trials, units, 1))
    y = 0.7 * x + g.normal(0, 0.3, x.shape) + g.normal(0, 0.2, (trials, units, 1))
    return np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], -1).sum(2)[:, :, None]


def made_up(metric, g, trials, units, skew=False):
    if metric == "ccc":
        return sums(g, trials, units)
    return confusions(g, speakers(g, trials, units, skew))


def covered(ends, known, trials):
    inside = np.mean([low <= known <= high for low, high in ends])
    return inside, np.sqrt(inside * (1 - inside) / trials)


@pytest.mark.parametrize("metric, skew", [
    ("accuracy", False), ("accuracy", True), ("uar", True), ("f1_macro", False), ("ccc", False),
])  # fmt: skip
def test_intervals_hold_what_they_promise(metric, skew):
    "With 6, 12 and 20 units: .95 within two points"
    g = np.random.default_rng(7)
    whole = made_up(metric, g, 1, 100_000, skew).sum((0, 1))
    known, trials = float(score_of(whole, metric)), 1000
    for units in (6, 12, 20):
        found = made_up(metric, g, trials, units, skew)
        inside, error = covered([interval(t[None], metric)[1:] for t in found], known, trials)
        assert abs(inside - 0.95) <= 0.02 + 3 * error, (units, inside)


def test_percentiles_of_a_bootstrap_do_not():
    "Why we use none: .78 of 3 units, .84 of 6, .92 of 12, .94 of 20 (here within four points)"
    g = np.random.default_rng(3)
    right = lambda n, u: g.binomial(60, 1 / (1 + np.exp(-speakers(g, n, u)[..., 0]))) / 60
    known = right(1, 400_000).mean()
    for units, said in ((3, 0.78), (6, 0.84), (12, 0.92), (20, 0.94)):
        x = right(800, units)
        drawn = np.take_along_axis(
            x[:, None], g.integers(0, units, (800, 400, units)), 2
        ).mean(2)
        ends = np.quantile(drawn, [0.025, 0.975], axis=1).T
        inside, error = covered(ends, known, 800)
        assert abs(inside - said) <= 0.04 + 3 * error, (units, inside)


def test_scores_near_an_end_keep_their_promise_and_stay_inside():
    "Right in 97 of 100: the interval leans towards the middle, and never beyond 1"
    g, trials = np.random.default_rng(5), 1500
    odds = lambda n, u: 4 + g.normal(0, 0.8, (n, u, 1))
    known = float(score_of(confusions(g, odds(1, 100_000)).sum((0, 1)), "accuracy"))
    ends = [interval(t[None], "accuracy")[1:] for t in confusions(g, odds(trials, 12))]
    inside, error = covered(ends, known, trials)
    assert known > 0.97 and abs(inside - 0.95) <= 0.03 + 3 * error, inside
    assert 0 <= np.nanmin(ends) and np.nanmax(ends) <= 1


def test_few_units_get_no_interval_and_no_test():
    g = np.random.default_rng(0)
    T = confusions(g, speakers(g, 1, UNITS))
    assert np.isfinite(interval(T, "uar")).all()
    assert np.isnan(interval(T[:, :-1], "uar")[1:]).all()
    assert np.isnan(equivalence_p(T[:, :-1], T[:, :-1], "uar", 0.1))
    assert np.isfinite(interval(T[:, :-1], "uar")[0])


def two_methods(g, units, gap=0.0, seeds=1, own=0.3, run=0.0, folds=1):
    "Tallies of two methods on the same speakers; each speaker suits one of them better by chance"
    u, fold = speakers(g, 1, units)[0], np.arange(units) % folds
    out = []
    for move in (0.0, gap):
        of_run = g.normal(0, run, (seeds, folds))[:, fold, None]
        out.append(confusions(g, u + g.normal(0, own, (units, 1)) + of_run + move))
    return [np.broadcast_to(t, (seeds, *t.shape[-3:])) for t in out]


@pytest.mark.parametrize("units, seeds", [(6, 1), (12, 1), (20, 3)])
def test_the_exchange_test_keeps_its_level(units, seeds):
    "False alarms at .05 where methods are alike; with 6 units the nearest level there is, .031"
    g, trials = np.random.default_rng(units), 800
    p = [permutation_p(*two_methods(g, units, seeds=seeds), "accuracy", n=600)
         for _ in range(trials)]  # fmt: skip
    alarms, said = np.mean(np.array(p) <= 0.05), 0.05 if units > 6 else 2 / 2**6
    error = np.sqrt(said * (1 - said) / trials)
    assert alarms <= said + 3 * error
    assert alarms >= said - (0.02 if units <= 6 else 0.01) - 3 * error, alarms


def test_the_exchange_test_finds_what_is_there():
    "Power at a difference of nine points: what eight, twenty and forty speakers can tell"
    g = np.random.default_rng(1)
    power = {n: np.mean([permutation_p(*two_methods(g, n, 0.5), "uar", n=400) <= 0.05
                         for _ in range(250)]) for n in (8, 20, 40)}  # fmt: skip
    assert 0.12 < power[8] < 0.36 and 0.56 < power[20] < 0.8 and power[40] > 0.87, power


def test_a_difference_has_an_interval_that_holds():
    g, trials = np.random.default_rng(2), 1000
    ends = [difference_interval(*two_methods(g, 12), "uar")[1:] for _ in range(trials)]
    inside, error = covered(ends, 0, trials)
    assert abs(inside - 0.95) <= 0.02 + 3 * error, inside


@pytest.mark.parametrize("units", [6, 20])
def test_the_test_of_equivalence_keeps_its_level(units):
    "Where methods are exactly the margin apart, 5 in 100 pass; where they are alike, more do"
    g, trials = np.random.default_rng(units), 1500
    big = np.random.default_rng(9)
    apart = [score_of(t.sum(1), "accuracy") for t in two_methods(big, 200_000, 0.6)]
    margin = abs(float((apart[0] - apart[1])[0]))
    at = np.mean([equivalence_p(*two_methods(g, units, 0.6), "accuracy", margin) < 0.05
                  for _ in range(trials)])  # fmt: skip
    alike = np.mean([equivalence_p(*two_methods(g, units), "accuracy", margin) < 0.05
                     for _ in range(300)])  # fmt: skip
    error = np.sqrt(0.05 * 0.95 / trials)
    assert abs(at - 0.05) <= 0.015 + 3 * error, at
    low, high = {6: (0.03, 0.15), 20: (0.6, 0.85)}[units]  # its power: six speakers say little
    assert low < alike < high, alike


def test_a_family_of_pairs_keeps_its_level():
    "Ten methods that are alike, nine pairs with the baseline: 5 tables in 100 claim anything"
    g, trials, false = np.random.default_rng(4), 150, 0
    for _ in range(trials):
        u = speakers(g, 1, 12)[0]
        T = [confusions(g, u + g.normal(0, 0.3, (12, 1)))[None] for _ in range(10)]
        false += min(holm([permutation_p(t, T[0], "accuracy") for t in T[1:]])) < 0.05
    assert false / trials <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / trials)


KNOWN = dict(fold=0.02, seed=0.015, unit=0.08, rest=0.03)


def folds(g, sizes, seeds, trials, fold, seed, unit, rest):
    draw = lambda sd, *shape: g.normal(0, sd, (*shape, trials))
    return [draw(fold, 1, 1) + draw(seed, seeds, 1) + draw(unit, 1, K) + draw(rest, seeds, K)
            for K in sizes]  # fmt: skip


@pytest.mark.parametrize("sizes, seeds", [([4] * 5, 3), ([9, 4, 5, 3], 2), ([30] * 3, 5)])
def test_parts_of_variance_are_found(sizes, seeds):
    "Means over 3000 tables lie within three and a half errors of what was put in"
    found = variance_parts(folds(np.random.default_rng(8), sizes, seeds, 3000, **KNOWN))
    for name, sd in KNOWN.items():
        error = found[name].std() / 3000**0.5
        assert abs(found[name].mean() - sd**2) <= 3.5 * error, name
        assert found[name].std() > 0


def test_speakers_and_trainings_are_told_apart():
    "Only speakers differ, or only trainings do: the other deviation is about nothing"
    g = np.random.default_rng(6)
    told = {}
    for name in ("unit", "seed"):
        sds = {k: 0.1 if k == name else 1e-6 for k in KNOWN}
        made = folds(g, [4] * 5, 3, 200, **sds)
        each = [spreads([y[..., i] for y in made]) for i in range(200)]
        told[name] = pd.DataFrame(each).mean()
    assert told["unit"].units == pytest.approx(0.1, abs=0.01) and told["unit"].training < 0.035
    assert told["seed"].training == pytest.approx(0.1, abs=0.015) and told["seed"].units < 1e-4


def test_parts_are_those_of_the_analysis_of_variance():
    "One fold is a two-way table: scipy knows the test of its rows, from the same mean squares"
    y = np.random.default_rng(2).normal(0.7, 0.1, (3, 8))
    v = variance_parts([y])
    ratio = (3 * v["unit"] + v["rest"]) / v["rest"]
    chi = stats.friedmanchisquare(*y.T)  # by ranks, as a rough witness: both are small or large
    assert np.isnan(v["fold"]) and ratio > 0 and (ratio > 1) == (chi.statistic > 7)
    same = np.repeat(y[:1], 3, 0)  # seeds that all say the same
    assert variance_parts([same])["seed"] == pytest.approx(0, abs=1e-15)
    assert variance_parts([same])["unit"] == pytest.approx(y[0].var(ddof=1))


def test_every_data_set_says_what_is_independent():
    said = {name: unit_of(name)["name"] for name in known_datasets()}
    assert said["msp_improv"] == "dyad" and said["affwild2"] == "film"
    assert said["vgaf"] == "source video" and said["ravdess"] == "speaker"


def test_tallies_go_by_unit():
    p = pd.DataFrame(dict(clip=["a", "b", "c"], target=["x"] * 3, prediction=["x", "y", "x"]))
    got = tallies(p, ["x", "y"], dict(a="dyad 1", b="dyad 1"))
    assert {k: t.sum() for k, t in got.items()} == {"c": 1, "dyad 1": 2}


@pytest.mark.parametrize("metric", ["accuracy", "uar", "ccc"])
def test_a_seed_says_nothing_of_units_that_it_did_not_test(metric):
    "Of every unit, and of all but one, the mean over the seeds that tested some of them"
    g = np.random.default_rng(0)
    A, B = (made_up(metric, g, 2, 8) for _ in range(2))
    names = [f"{i}" for i in range(8)]
    seed_has = [names, names[:1]]  # the second seed finished one run of eight
    lean = [stacked([{n: t[names.index(n)] for n in has} for t, has in zip(T, seed_has)])[0]
            for T in (A, B)]  # fmt: skip
    own = [np.r_[score_of(T[:, :1], metric).mean(0), score_of(T[0, 1:], metric)] for T in (A, B)]
    np.testing.assert_allclose(unit_scores(lean[0], metric), own[0])
    d = own[0] - own[1]
    assert effect(*lean, metric) == pytest.approx(d.mean() / d.std(ddof=1))
    without = [score_of(np.delete(A[0], i, 0).sum(0), metric) for i in range(8)]
    rest = [(w + score_of(A[1, 0], metric)) / 2 for w in without[1:]]
    np.testing.assert_allclose(left_out_scores(lean[0], metric), [without[0], *rest])


def test_seeds_are_compared_in_pairs():
    g = np.random.default_rng(0)
    A, B = confusions(g, speakers(g, 3, 8)), confusions(g, speakers(g, 1, 8))
    with pytest.raises(ValueError):
        permutation_p(A, B, "accuracy")
