"""Recipes with published windows train on one's own films, whose labels move; what they say is on
the scale that the user declared."""

import numpy as np
import pandas as pd
import pytest

from avkit.datasets.folder import index
from avkit.evaluation.predict import predict
from avkit.evaluation.runs import open_run
from avkit.preprocessing.writing import write_video, write_wav
from avkit.training.configure import configure
from avkit.training.learner import fit
from avkit.training.loading import load_data

SUBSETS = ("train", "train", "val", "test")
FPS, SECONDS, SCALE = 12, 4, "valence=1:9,arousal=1:9"
OWN = dict(dataset="folder", size="small", epochs=1, detector="none", n_jobs=1, scale=SCALE)


def labels(k, at):
    "(T,2) on a scale from 1 to 9"
    return np.stack([5 + 3.9 * np.sin(at + k), 5 + 2 * np.cos(2 * at + k)], 1).round(4)


def write_labels(root, to=lambda y: y):
    for k, subset in enumerate(SUBSETS):
        at = np.arange(0, SECONDS, 0.2)
        t = pd.DataFrame(to(labels(k, at)), columns=["valence", "arousal"])
        t.insert(0, "time", at.round(3))
        t.to_csv(root / f"{subset}/film{k}.csv", index=False)


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("films"), np.random.default_rng(0)
    for k, subset in enumerate(SUBSETS):
        (root / subset).mkdir(exist_ok=True)
        frames = rng.integers(0, 255, (FPS * SECONDS, 32, 32, 3), dtype=np.uint8)
        sound = (0.1 * rng.normal(size=16000 * SECONDS)).astype(np.float32)
        write_video(root / f"{subset}/film{k}.mp4", frames, FPS, sound, 16000)
    write_labels(root)
    return root


PUBLISHED = dict(
    jca2023=(
        dict(windows=dict(length=256, hop=1, stride=4, steps=8), preparation=dict(every=1)),
        {},
    ),
    ntua2021=(
        dict(windows=dict(length=16, hop=16, stride=1, steps=16), preparation=dict(every=1)),
        dict(variants="face"),
    ),
)


@pytest.mark.parametrize("recipe", PUBLISHED)
def test_a_recipe_of_frames_trains_on_own_films(recipe, films, tmp_path):
    options, more = PUBLISHED[recipe]
    cfg = configure(recipe=recipe, data_root=str(films), run_dir=str(tmp_path / "run"),
                    options=options, **OWN, **more)  # fmt: skip
    fit(cfg, verbose=False)
    run = open_run(tmp_path / "run")
    assert run.record["notes"]["scale"] == dict(valence=[1, 9], arousal=[1, 9])
    p, m = run.predictions, index(films)
    both = p[(p.split == "test") & (p.condition == "av")]
    frames = m.frames["test/film3"]
    known = np.flatnonzero(~np.isnan(frames).any(1))
    if recipe == "jca2023":  # the last window of the other recipe holds fewer frames
        assert both.frame.tolist() == known.tolist()
    names = ["target_valence", "target_arousal"]
    np.testing.assert_allclose(both[names], frames[both.frame], atol=1e-4)
    said = p[["prediction_valence", "prediction_arousal"]].to_numpy()
    assert np.isfinite(said).all() and said.min() >= 1 and said.max() <= 9
    if recipe == "jca2023":
        line = predict(films / "test/film3.mp4", run)
        assert line.settings["scale"] == dict(valence=[1, 9], arousal=[1, 9])
        told = line.table[["valence", "arousal"]].to_numpy()
        assert told.min() >= 1 and told.max() <= 9 and len(told) == FPS * SECONDS


def test_what_is_learned_does_not_depend_on_the_scale(films, tmp_path):
    "Labels from 1 to 9, or the same from -1 to 1: one target, one range for the outputs"
    one = load_data(configure(recipe="jca2023", data_root=str(films), **OWN), verbose=False)
    for name in films.rglob("*.mp4"):
        place = tmp_path / name.relative_to(films)
        place.parent.mkdir(exist_ok=True)
        place.symlink_to(name)
    write_labels(tmp_path, lambda y: ((y - 5) / 4).round(6))
    own = OWN | dict(scale="valence=-1:1,arousal=-1:1")
    two = load_data(configure(recipe="jca2023", data_root=str(tmp_path), **own), verbose=False)
    np.testing.assert_allclose(one.data.target, two.data.target, atol=1e-4)
    np.testing.assert_allclose(one.data.limits, two.data.limits, atol=1e-4)
    for a, b in zip(one.stats["target"], two.stats["target"]):
        assert not np.allclose(a, b)  # each goes back to its own scale


def test_films_without_pictures_train_on_sound(tmp_path):
    rng = np.random.default_rng(0)
    for k, subset in enumerate(SUBSETS):
        (tmp_path / subset).mkdir(exist_ok=True)
        sound = (0.1 * rng.normal(size=16000 * SECONDS)).astype(np.float32)
        write_wav(tmp_path / f"{subset}/film{k}.wav", sound, 16000)
    write_labels(tmp_path)
    cfg = configure(recipe="jca2023", data_root=str(tmp_path), modality="auto",
                    run_dir=str(tmp_path / "run"), **OWN)  # fmt: skip
    fit(cfg, verbose=False)
    p = open_run(tmp_path / "run").predictions
    assert set(p.condition) == {"audio"}
    assert (p.split == "test").sum() == 96  # 25 a second until the last label, at 3.8 s
