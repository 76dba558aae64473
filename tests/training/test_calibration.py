"""What calibration promises is counted, on answers whose probabilities are known to be right."""

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss

from avkit.core import read_json
from avkit.evaluation.runs import read_predictions
from avkit.training.calibration import (
    brier,
    calibration_error2,
    calibration_of,
    nll,
    at_temperature,
    temperature_of,
)
from avkit.training.configure import configure
from avkit.training.learner import fit

CLASSES = 8


def answers(g, clips, sharper=1.0):
    "A model that knows how sure it may be, and says so with a temperature of 1 / sharper"
    p = g.dirichlet([0.3] * CLASSES, clips)
    target = (p.cumsum(1) < g.random((clips, 1))).sum(1).clip(max=CLASSES - 1)
    p = p**sharper
    return target, p / p.sum(1, keepdims=True)


def binned(target, p, bins=15):
    "What the usual ECE says"
    sure, right = p.max(1), p.argmax(1) == target
    k = np.minimum((sure * bins).astype(int), bins - 1)
    return np.abs(np.bincount(k, sure, bins) - np.bincount(k, right, bins)).sum() / len(p)


@pytest.mark.parametrize("clips", [60, 240, 1000])
def test_a_calibrated_model_shows_no_error(clips):
    "On average over 600 sets, within three standard errors; the usual measure shows some always"
    g = np.random.default_rng(clips)
    sets = [answers(g, clips) for _ in range(600)]
    found = np.array([calibration_error2(*s) for s in sets])
    assert abs(found.mean()) <= 3 * found.std() / 600**0.5
    assert 0.25 < (found > 0).mean() < 0.6  # neither side is cut off
    if clips == 240:
        assert np.mean([binned(*s) for s in sets]) > 0.05


@pytest.mark.parametrize("sharper", [0.5, 2.0, 4.0])
def test_an_error_is_found_as_large_as_it_is(sharper):
    g = np.random.default_rng(1)
    known = calibration_error2(*answers(g, 400_000, sharper), bins=15)
    found = np.array([calibration_error2(*answers(g, 240, sharper)) for _ in range(500)])
    assert known > 0.003
    assert abs(found.mean() - known) <= 3 * found.std() / 500**0.5 + 0.1 * known


def test_the_order_of_clips_does_not_count():
    "Also where many have the same confidence, and clips are sorted by class"
    g = np.random.default_rng(2)
    target, p = answers(g, 300)
    p = p.round(1) + 0.01
    order = np.argsort(target)
    again = calibration_error2(target[order], p[order])
    assert calibration_error2(target, p) == pytest.approx(again)


def test_proper_scores_are_scikit_learns():
    target, p = answers(np.random.default_rng(3), 500)
    told = dict(labels=range(CLASSES))
    assert brier(target, p) == pytest.approx(
        brier_score_loss(target, p, scale_by_half=False, **told)
    )
    p = p.clip(1e-5)
    p /= p.sum(1, keepdims=True)
    assert nll(target, p) == pytest.approx(log_loss(target, p, **told))


@pytest.mark.parametrize("sharper", [0.6, 1.0, 3.0])
def test_temperature_undoes_exaggeration(sharper):
    "Found on validation, it mends test: calibrated there, within what chance allows"
    g = np.random.default_rng(4)
    T = temperature_of(*answers(g, 4000, sharper))
    assert T == pytest.approx(sharper, rel=0.1)
    target, p = answers(g, 4000, sharper)
    after = at_temperature(p, T)
    assert (after.argmax(1) == p.argmax(1)).all()
    assert abs(calibration_error2(target, after)) < 0.0015
    assert nll(target, after) <= nll(target, p) + 1e-4


def test_a_run_keeps_its_temperature(toy_corpus, tmp_path):
    "In its record, found on its validation rows alone; before and after on its test rows"
    cfg = configure(**toy_corpus, split="kfold3", epochs=1, run_dir=str(tmp_path / "run"))
    record = fit(cfg, verbose=False)
    assert read_json(tmp_path / "run/record.json")["calibration"] == record["calibration"]
    p, classes = read_predictions(tmp_path / "run"), record["classes"]
    for condition, told in record["calibration"].items():
        mine = p.loc[p.condition == condition]
        assert told["clips"] == (mine.split == "test").sum() > 0
        rows = mine.loc[mine.split == "validation"]
        number = rows.target.map(classes.index)
        assert told["temperature"] == temperature_of(number, rows[classes])
        assert set(told["before"]) == set(told["after"]) >= {"nll", "brier"}
    assert "ece" not in record["metrics"]["test"]["av"]
    swapped = p.assign(target=np.where(p.split == "test", classes[0], p.target))
    again = calibration_of(swapped, classes)
    assert {c: x["temperature"] for c, x in again.items()} == {
        c: x["temperature"] for c, x in record["calibration"].items()
    }
