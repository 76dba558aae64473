"""What a choice is worth: the nested score is that of the truth, the naive one is too high."""

import json

import numpy as np
import pandas as pd

from avkit.reports.selection import _choice_notes, naive, nested, select_candidate, worth_of_choice

CANDIDATES, FOLDS, TRUE = 24, 5, 0.75


def made_up(g):
    "Candidates that are all alike; what one does on a fold's speakers is chance, and stays so"
    on = TRUE + g.normal(0, 0.04, (CANDIDATES, FOLDS))  # of the speakers of each fold
    rows = [
        dict(candidate=str(c), fold=f, seed=1, test=on[c, f], validation=on[c, (f + 1) % FOLDS])
        for c in range(CANDIDATES)
        for f in range(FOLDS)
    ]
    return pd.DataFrame(rows)


def test_nested_is_honest_and_naive_is_not():
    "Means over 144 tables, within three standard errors; naive is off by most of its own luck"
    g = np.random.default_rng(0)
    both = np.array([(nested(t).test.mean(), naive(t)) for t in (made_up(g) for _ in range(144))])
    mean, error = both.mean(0), both.std(0) / 12
    assert abs(mean[0] - TRUE) <= 3 * error[0]
    assert mean[1] > TRUE + 0.02 > TRUE + 10 * error[1]


def test_both_are_said():
    t = made_up(np.random.default_rng(1))
    said = worth_of_choice(t, "accuracy")
    assert f"{nested(t).test.mean():.3f}" in said and f"folds: {naive(t):.3f}" in said
    assert worth_of_choice(t.assign(test=np.nan), "accuracy") == ""


def test_a_candidate_that_lacks_a_hard_fold_is_not_chosen():
    "Its mean is over easier clips; the naive score is of all folds"
    rows = [("whole", 0, 0.9), ("whole", 1, 0.5), ("part", 0, 0.85), ("worse", 0, 0.8),
            ("worse", 1, 0.4)]  # fmt: skip
    t = pd.DataFrame([dict(candidate=json.dumps(dict(x=c)), fold=f, seed=1, validation=v, test=v)
                      for c, f, v in rows])  # fmt: skip
    order = [json.loads(c)["x"] for c in select_candidate(t).candidate]
    assert order == ["whole", "worse", "part"] and naive(t) == nested(t).test.mean() == 0.7
    assert "1 of 3 candidates lack runs" in _choice_notes(t, "accuracy")[0]
    assert "lack" not in "".join(_choice_notes(t[t.fold == 0], "accuracy"))


def test_a_split_without_folds_is_one():
    rows = zip("abc", (0.5, 0.9, 0.7), (0.9, 0.6, 0.8))
    t = pd.DataFrame([dict(candidate=json.dumps(dict(x=c)), seed=1, validation=v, test=s)
                      for c, v, s in rows])  # fmt: skip
    best = t.loc[t.validation.idxmax()]
    for none in (None, np.nan):
        one = t.assign(fold=none)
        assert nested(one).candidate.tolist() == [best.candidate]
        assert naive(one) == nested(one).test[0] == best.test
        assert f"{best.test:.3f}" in worth_of_choice(one, "accuracy")
        assert "no fold: " in "".join(_choice_notes(one, "accuracy"))
