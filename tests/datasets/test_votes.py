"Several raters a clip: consensus, shares, agreement and the ceiling, against naive loops."

import itertools
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from avkit.core import AvkitError
from avkit.datasets.crema_d import read_votes
from avkit.datasets.votes import (
    alpha,
    class_ceiling,
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


def test_the_ceiling_is_that_of_second_panels():
    rng = np.random.default_rng(0)
    votes = rng.multinomial(7, [0.5, 0.3, 0.2], 50)
    label = majority(votes)
    hits, both = 0, 0
    for v, y in zip(votes, label):
        if y < 0:
            continue
        ballots = rng.choice(3, (2000, 7), p=v / 7)
        counts = (ballots[..., None] == range(3)).sum(1)
        said = majority(counts)
        hits += (said == y).sum() / (said >= 0).sum()
        both += 1
    mean, low, high = class_ceiling(votes, range(50), second=2000)
    assert mean == pytest.approx(hits / both, abs=0.01) and low < mean < high


def test_crema_d_is_as_it_was(shared_data):
    "What the committed tables of the real votes say: a ceiling of .9701 (.968 to .9721)"
    root = shared_data / "crema_d"
    if not root.is_dir():
        pytest.skip("CREMA-D's tables are not at hand")
    t = read_votes(root)
    av = t[t["raters"] == "audio-visual"]
    counts = av.iloc[:, 3:].to_numpy()
    found = class_ceiling(counts, av["clip"].str[:4])
    assert [round(x, 4) for x in found] == [0.9701, 0.968, 0.9721]
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
