"Several raters a clip: consensus, shares, agreement and the ceiling, against naive loops."

import itertools
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from avkit.core import AvkitError, repo_root
from avkit.datasets.crema_d import read_votes
from avkit.datasets.votes import (
    CEILINGS,
    CrowdModel,
    alpha,
    class_ceiling,
    class_ceilings,
    fit_crowd,
    left_out_raters,
    majority,
    number_ceiling,
    odd_raters,
    pair_agreement,
    rater_shares,
    vote,
)

CLASSES = ["angry", "happy", "sad"]


def ratings(seed, clips=40, raters=6, right=0.6, given=0.8):
    "A long table: who says what, with gaps"
    rng = np.random.default_rng(seed)
    rows = []
    for c, r in itertools.product(range(clips), range(raters)):
        if rng.random() > given and r:
            continue
        said = CLASSES[c % 3] if rng.random() < right else CLASSES[rng.integers(3)]
        rows.append((f"clip{c:02d}", f"r{r}", said))
    t = pd.DataFrame(rows, columns=["clip", "rater", "label"])
    return t.assign(line=np.arange(len(t)) + 2).sample(frac=1, random_state=seed)


def naive_alpha(units, distance):
    "Krippendorff's alpha as it is written: pairs within units over pairs of all"
    units = [u for u in units if len(u) > 1]
    every = [x for u in units for x in u]
    n = len(every)
    inside = sum(
        distance(a, b, every) / (len(u) - 1) for u in units for a, b in itertools.permutations(u, 2)
    )
    outside = sum(distance(a, b, every) for a, b in itertools.permutations(every, 2)) / (n - 1)
    return 1 - inside / outside


def ordinal(a, b, every):
    a, b = min(a, b), max(a, b)
    between = sum(a <= x <= b for x in every)
    return (between - (every.count(a) + every.count(b)) / 2) ** 2


DISTANCES = dict(
    nominal=lambda a, b, every: float(a != b),
    interval=lambda a, b, every: (a - b) ** 2,
    ordinal=ordinal,
)


@pytest.mark.parametrize("seed", range(4))
def test_consensus_and_shares_are_those_of_a_loop(seed):
    t = ratings(seed)
    got = vote(t, CLASSES)
    rows = got.rows.set_index("clip")
    aside = {c for c, _, _ in got.problems}
    for clip, g in t.groupby("clip"):
        n = Counter(g["label"])
        label, most = n.most_common(1)[0]
        assert (clip in aside) == (2 * most <= len(g)), clip
        if clip in aside:
            continue
        row = rows.loc[clip]
        assert row["label"] == label and row["n_raters"] == len(g)
        assert [row[f"share_{c}"] for c in CLASSES] == [n[c] / len(g) for c in CLASSES]
        pairs = list(itertools.combinations(g["label"], 2))
        agree = np.mean([a == b for a, b in pairs]) if pairs else np.nan
        assert row["agreement"] == pytest.approx(agree, nan_ok=True)
    assert len(rows) + len(aside) == t["clip"].nunique()
    assert aside and got.notes["no_majority"].startswith(f"{len(aside)} of {t['clip'].nunique()} ")


def test_a_clip_without_a_majority_says_how_people_voted():
    t = pd.DataFrame(
        [("a", "x", "happy"), ("a", "y", "sad"), ("b", "x", "sad"), ("b", "y", "sad")],
        columns=["clip", "rater", "label"],
    )
    assert vote(t).problems == [
        ("a", "invalid", "no class has more than half of its votes: 1 happy, 1 sad")
    ]
    assert list(vote(t).rows["clip"]) == ["b"]


def test_who_votes_twice_is_named_with_both_lines():
    t = ratings(0)
    again = t.iloc[[7]].assign(line=901, label="happy")
    first = t["line"].iloc[7]
    with pytest.raises(AvkitError, match=rf"line {first} and line 901: '{t['rater'].iloc[7]}'"):
        vote(pd.concat([t, again]))
    with pytest.raises(AvkitError, match="row 8 and row"):
        vote(pd.concat([t, again]).drop(columns="line"))


@pytest.mark.parametrize(
    "change, says",
    [
        (dict(label="hapy"), "line 2: .*did you mean 'happy'"),
        (dict(rater=""), "line 2: no rater"),
        (dict(label=""), "No row .* has a label"),
    ],
)
def test_what_is_refused(change, says):
    t = ratings(0).sort_values("line").assign(**change)
    if "label" in change:
        t = t.drop_duplicates(["clip", "rater"])
    with pytest.raises(AvkitError, match=says):
        vote(t, CLASSES)


def test_an_empty_label_is_no_vote():
    t = ratings(1)
    t.iloc[3, t.columns.get_loc("label")] = " "
    clip = t["clip"].iloc[3]
    full, less = (vote(x).rows.set_index("clip")["n_raters"] for x in (ratings(1), t))
    if clip in full and clip in less:
        assert less[clip] == full[clip] - 1
    assert (
        vote(t, how="distribution").rows.filter(like="share_").sum(axis=1) - 1
    ).abs().max() < 1e-9


@pytest.mark.parametrize("level", DISTANCES)
@pytest.mark.parametrize("seed", range(3))
def test_alpha_is_krippendorffs(level, seed):
    rng = np.random.default_rng(seed)
    table = rng.integers(0, 4, (5, 12)).astype(float) ** 1.5
    table[rng.random(table.shape) < 0.35] = np.nan
    clips, values = zip(*[(u, x) for row in table for u, x in enumerate(row) if x == x])
    got, low, high = alpha(clips, values, level)
    units = [[x for x in column if x == x] for column in table.T]
    assert got == pytest.approx(naive_alpha(units, DISTANCES[level]), abs=1e-9)
    package = pytest.importorskip("krippendorff")
    assert got == pytest.approx(package.alpha(table, level_of_measurement=level), abs=1e-9)
    assert low <= got <= high


def test_krippendorffs_worked_example():
    "Computing Krippendorff's alpha-reliability (2011), section C: .743, .815, .849"
    _ = None
    rows = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, _, _, _],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, _, 3],
        [_, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, _],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, _],
    ]
    long = [(u, x) for row in rows for u, x in enumerate(row) if x is not None]
    found = {k: round(alpha(*zip(*long), k, draws=10)[0], 3) for k in DISTANCES}
    assert found == dict(nominal=0.743, ordinal=0.815, interval=0.849)


def test_the_interval_of_alpha_is_that_of_naive_draws():
    t = ratings(5, clips=60)
    _, low, high = alpha(t["clip"], t["label"], draws=2000, seed=1)
    units = [g.tolist() for _, g in t.groupby("clip")["label"]]
    rng = np.random.default_rng(2)
    drawn = [
        alpha(*zip(*[(i, x) for i, k in enumerate(rng.integers(60, size=60)) for x in units[k]]),
              draws=1)[0]
        for _ in range(400)
    ]  # fmt: skip
    assert np.percentile(drawn, [2.5, 97.5]) == pytest.approx([low, high], abs=0.035)


def test_each_rater_against_a_loop_and_the_odd_one_is_named():
    t = ratings(3, clips=60, right=0.8)
    turned = dict(angry="sad", happy="angry", sad="happy")
    mine = t["rater"] == "r4"
    t.loc[mine, "label"] = t.loc[mine, "label"].map(turned)
    got = vote(t)
    for r in got.raters.itertuples():
        each = []
        for clip, said in t[t["rater"] == r.rater][["clip", "label"]].values:
            others = t[(t["clip"] == clip) & (t["rater"] != r.rater)]["label"]
            if len(others):
                each.append(np.mean(others == said))
        assert r.agreement == pytest.approx(np.mean(each)) and r.clips == len(each)
    assert got.raters[got.raters["odd"]]["rater"].tolist() == ["r4"]
    assert "r4 (" in got.notes["odd_raters"]
    assert "odd_raters" not in vote(ratings(3, clips=60, right=0.8)).notes


def test_numbers_mean_deviation_and_ceiling():
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 1, 30)
    rows = [(f"c{c}", f"r{r}", truth[c] + rng.normal(0, 0.5)) for c in range(30) for r in range(4)]
    t = pd.DataFrame(rows, columns=["clip", "rater", "valence"])
    got = vote(t, targets=["valence"])
    for clip, g in t.groupby("clip"):
        row = got.rows.set_index("clip").loc[clip]
        assert row["valence"] == pytest.approx(np.mean(g["valence"]))
        assert row["valence_deviation"] == pytest.approx(np.std(g["valence"], ddof=1))
    assert got.classes == [] and "CCC at most" in got.notes["ceiling"]
    best = number_ceiling(t.rename(columns=dict(valence="value")))[0]
    second = [truth + rng.normal(0, 0.5, (4, 30)).mean(0) for _ in range(2)]
    assert best == pytest.approx(np.corrcoef(*second)[0, 1], abs=0.08)  # as two real panels agree
    turned = t.assign(valence=np.where(t["rater"] == "r1", -t["valence"], t["valence"]))
    raters = vote(turned, targets=["valence"]).raters.set_index("rater")["agreement"]
    assert raters["r1"] < 0 < raters["r0"]
    with pytest.raises(AvkitError, match="row 3: valence='loud' is not a number"):
        vote(t.astype(object).assign(valence=["loud" if i == 2 else 1.0 for i in range(120)]),
             targets=["valence"])  # fmt: skip


def crowd_of(kind, clips, rng):
    "What everybody says of each clip (N,C): drawn from kinds of clips, or from another model"
    if kind == "kinds":
        alpha = np.array([[12.0, 1, 1], [1, 9, 2], [1, 2, 12], [2, 2, 2]])
        share = rng.standard_gamma(alpha[rng.integers(4, size=clips)])
    else:
        clear = np.eye(3)[rng.integers(3, size=clips)] * rng.choice([0.5, 3.0], (clips, 1))
        share = np.exp(clear + 0.7 * rng.normal(size=(clips, 3)))
    return share / share.sum(1, keepdims=True)


def naive_ceilings(share, votes, again):
    "The five ceilings, by looking: who answers, against what raters said, clip by clip"
    hits = {k: [] for k in CEILINGS}
    for p, v, u in zip(share, votes, again):
        label, new = (int(x.argmax()) if 2 * x.max() > x.sum() else None for x in (v, u))
        tops = [set(np.flatnonzero(x == x.max())) for x in (v, u)]
        best = int(p.argmax())
        if label is not None:
            hits["consensus"].append(best == label)
        if new is not None:
            hits["new_consensus"].append(best == new)
        if label is not None and new is not None:
            hits["second_consensus"].append(label == new)
        hits["new_plurality"].append((best in tops[1]) / len(tops[1]))
        hits["second_plurality"].append(len(tops[0] & tops[1]) / len(tops[0]) / len(tops[1]))
    return {k: np.mean(x) for k, x in hits.items()}


def test_a_crowd_is_the_dirichlet_multinomial_of_scipy():
    from scipy.special import gammaln
    from scipy.stats import dirichlet_multinomial

    rng = np.random.default_rng(0)
    alpha = rng.gamma(2.0, 1.0, (3, 4))
    votes = rng.integers(0, 5, (20, 4))
    got = CrowdModel(np.array([0.2, 0.3, 0.5]), alpha).chances(votes)
    orders = gammaln(votes.sum(1) + 1) - gammaln(votes + 1).sum(1)
    for k, share in enumerate((0.2, 0.3, 0.5)):
        told = [dirichlet_multinomial.logpmf(v, alpha[k], v.sum()) for v in votes]
        assert np.allclose(got[:, k] + orders, np.log(share) + told)


def test_a_crowd_is_found_again():
    rng = np.random.default_rng(1)
    truth = np.array([4.0, 2.0, 0.5])
    votes = rng.multinomial(9, rng.dirichlet(truth, 4000))
    found = fit_crowd(votes, kinds=0)
    assert found.alpha[0] == pytest.approx(truth, rel=0.1)
    twice = fit_crowd(votes[:200], np.full(200, 2.0), kinds=1)
    both = fit_crowd(np.concatenate([votes[:200]] * 2), kinds=1)
    assert np.allclose(twice.alpha, both.alpha) and np.allclose(twice.share, both.share)


@pytest.mark.parametrize("kind", ["kinds", "another model"])
def test_intervals_of_the_ceilings_cover_what_is_true(kind):
    "Votes of a crowd that we know: the truth is what a very large set of clips shows"
    rng = np.random.default_rng(2)
    share = crowd_of(kind, 30_000, rng)
    truth = naive_ceilings(share, *(rng.multinomial(8, share) for _ in range(2)))
    inside, trials = Counter(), 12
    for seed in range(trials):
        votes = rng.multinomial(8, crowd_of(kind, 500, rng))
        found = class_ceilings(votes, range(500), draws=40, again=20, seed=seed)
        for name, (value, low, high) in found.items():
            inside[name] += low <= truth[name] <= high
            assert value == pytest.approx(truth[name], abs=0.06)
    assert min(inside[name] for name in CEILINGS) >= trials - 3, inside  # of 95 %
    plain = votes[majority(votes) >= 0]
    again = majority(np.concatenate([rng.multinomial(8, plain / 8) for _ in range(20)]))
    same = (again == np.tile(majority(plain), 20))[again >= 0].mean()
    assert same > truth["second_consensus"] + 0.02  # votes taken for what everybody would say


def test_raters_who_are_left_out_are_foretold():
    rng = np.random.default_rng(3)
    drawn = [rng.multinomial(10, crowd_of("kinds", 2000, rng)) for _ in range(3)]
    t = sum(left_out_raters(v, draws=5).set_index("crowd") for v in drawn) / 3
    seen = t.seen.iloc[0]
    assert t.expected["kinds of clips"] == pytest.approx(seen, abs=0.015)
    assert t.expected["the votes are the crowd's"] > seen + 0.03
    assert t.expected["one Dirichlet"] < seen - 0.02


def test_ceilings_of_few_and_of_sure_clips():
    assert class_ceiling(np.full((4, 1), 5), "abcd")[0] == 1  # one class
    value, low, high = class_ceiling(np.array([[3, 1]]), ["anna"])
    assert 0 < value <= 1 and np.isnan(low) and np.isnan(high)
    nobody = class_ceilings(np.array([[1, 1], [2, 2]]), "ab", again=4)
    assert np.isnan(nobody["consensus"][0]) and nobody["new_plurality"][0] <= 1
    sure = class_ceiling(np.eye(3, dtype=int)[np.arange(60) % 3] * 9, range(60))
    assert sure[0] > 0.99


@pytest.fixture(scope="module")
def audio_visual(shared_data):
    "CREMA-D's votes of those who heard and saw, and the actors"
    root = shared_data / "crema_d"
    if not root.is_dir():
        pytest.skip("CREMA-D's tables are not at hand")
    t = read_votes(root)
    av = t[t["raters"] == "audio-visual"]
    return av.iloc[:, 3:].to_numpy(), av["clip"].str[:4]


def test_crema_ds_raters_who_are_left_out_tell_the_model(audio_visual):
    "One Dirichlet for all clips expects too little, votes taken for the crowd's too much"
    votes, _ = audio_visual
    t = left_out_raters(votes, draws=5).set_index("crowd").round(3)
    seen = t.seen.iloc[0]
    assert seen == pytest.approx(0.89, abs=0.01)
    assert abs(t.expected["kinds of clips"] - seen) < 0.012
    assert t.expected["one Dirichlet"] < seen - 0.03
    assert t.expected["the votes are the crowd's"] > seen + 0.02


def test_crema_d_is_as_it_was(audio_visual):
    "What the committed tables of the real votes say"
    counts, actors = audio_visual
    told = pd.read_csv(repo_root() / "reports/corpora/crema_d/ceiling.csv")
    found = class_ceilings(counts, actors)
    for name, low, value, high in told[["name", "95 % low", "share", "95 % high"]].to_numpy():
        assert list(found[name]) == pytest.approx([value, low, high], abs=2e-4), name
    assert (majority(counts) >= 0).sum() == 5913
    package = pytest.importorskip("krippendorff")
    clips, classes = np.nonzero(counts)
    long = np.repeat(clips, counts[clips, classes]), np.repeat(classes, counts[clips, classes])
    told = package.alpha(value_counts=counts, level_of_measurement="nominal")
    assert alpha(*long, draws=2)[0] == pytest.approx(told, abs=1e-9)


def test_odd_needs_enough_to_go_by():
    few = pd.DataFrame(dict(rater=["a", "b"], clips=[50, 50], agreement=[0.9, 0.1]))
    assert not len(odd_raters(few))
    assert np.isnan(pair_agreement(np.array([[1, 0], [0, 0]]))).all()
    t = pd.DataFrame(dict(clip=["a"], value=["x"], rater=["r"]))
    assert not len(rater_shares(t, pd.DataFrame([[1]], index=["a"], columns=["x"])))
