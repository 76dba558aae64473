"Overview: counts, pitch and loudness against another program, and what is written to a report."
import re

import numpy as np
import pandas as pd
import pytest

from avkit.reports import overview as o
from avkit.datasets import ravdess
from avkit.datasets.manifest import Manifest
from helpers import few_pixels

pytest.importorskip("cv2")


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    return ravdess.render(tmp_path_factory.mktemp("r") / "ä b", actors=2, repeats=1,
                               size=(96, 80), n_jobs=1, progress=False)


def labels(y, task, classes=(), targets=()):
    names = ["label", "speaker", "audio", "video", "audio_sha256", "video_sha256"]
    empty = dict.fromkeys(names, "")
    clips = pd.DataFrame([dict(clip=k, split="train") | empty for k in y])
    return Manifest("affwild2", ".", clips, list(classes), task=task, level="frame",
                    targets=list(targets), frames=y)


def test_counts_add_up(twin):
    m = ravdess.index(twin)
    t = o.counts(m).set_index("class")
    assert t.clips["all"] == len(m) == t.clips[:-1].sum() and (t.female + t.male == t.clips).all()
    assert o.speakers(m).clips.tolist() == m.clips.groupby("speaker").size().tolist()


def test_frames_are_counted_by_label():
    y = {"a": np.array([0, 1, 1, -1]), "b": np.array([2, 2, -1, -1])}
    t = o.counts(labels(y, "class", classes="xyz"))
    assert t["class"].tolist() == ["x", "y", "z", "unlabelled", "all"]
    assert t.frames.tolist() == [1, 2, 2, 3, 8] == t.train.tolist()
    v = {"a": np.array([[.5, 1], [np.nan, np.nan], [-.5, 0]])}
    m = labels(v, "regression", targets=["valence", "arousal"])
    assert o.counts(m).frames.tolist() == [2, 1, 3]
    told = o.labels_table(m)[["labelled", "mean", "min", "max"]].values.tolist()
    assert told == [[2, 0, -.5, .5], [2, .5, 0, 1]]
    over = o.label_rows(m, bins=3)
    assert over.valence.tolist()[::2] == [.5, -.5] and np.isnan(over.valence[1])
    assert over.time.round(3).tolist() == [.167, .5, .833]


def test_header_facts_are_remembered_and_failures_told(twin, monkeypatch):
    m = ravdess.index(twin)
    p = o.probes(m, n_jobs=1)
    assert (p.problem == "truncated").sum() == 1 and p.fps.dropna().eq(25).all()
    assert set(p.channels.dropna()) == {1, 2}
    monkeypatch.setattr(o, "_probe", lambda path: pytest.fail("looked again"))
    assert o.probes(m, n_jobs=1).equals(p)


@pytest.mark.parametrize("f0", [80, 140, 230, 400])
def test_pitch_of_a_voice(f0):
    from avkit.datasets.synth import RATE, _formants
    t = np.arange(RATE) / RATE
    noise = np.random.default_rng(0).normal(0, .002, RATE)
    x = _formants(2 * (t * f0 % 1) - 1, (700, 1200, 2500)) + noise
    for scale in (.001, .5):  # however loud
        f = o.pitch(x * scale, RATE)
        assert np.nanmedian(np.abs(12 * np.log2(f / f0))) < .1 and np.isnan(f).mean() < .05


def test_pitch_agrees_with_librosa_on_real_speech(shared_data):
    librosa = pytest.importorskip("librosa")
    from avkit.preprocessing.media import decode
    files = sorted((shared_data / "ravdess_speech").rglob("*.flac"))[7::480]
    if not files: pytest.skip("no ravdess_speech/ in the folder of real data")
    for p in files:
        sound = decode(p, video=False, rate=16000).sound
        third = len(sound) // 3
        sound = sound[third : 2 * third]  # what is said, between silence before and after it
        theirs, voiced, _ = librosa.pyin(
            sound, fmin=65, fmax=500, sr=16000, frame_length=1024, hop_length=160)
        ours = o.voice(sound, 16000)["pitch"]
        assert abs(12 * np.log2(ours / np.nanmedian(theirs[voiced]))) < 1.5, p.name


def test_loudness_is_the_level_of_the_speech():
    rate = 8000
    tone = .1 * np.sin(2 * np.pi * 200 * np.arange(rate) / rate)
    v = o.voice(np.concatenate([np.zeros(rate), tone, np.zeros(2 * rate)]), rate)
    assert abs(v["loudness"] - (20 * np.log10(.1) - 3.01)) < .4 and abs(v["pitch"] - 200) < 1
    assert abs(v["speech"] - 1) < .05 and v["duration"] == 4


def test_report(twin, tmp_path, monkeypatch):
    from avkit.datasets.verify import verify
    few_pixels(monkeypatch)
    m = ravdess.index(twin)
    m.problems.loc[0] = [f"{twin}/x.wav", "invalid", f"{twin}/x.wav: no"]
    verified = verify(m, media=True, n_jobs=1)
    made = o.write_overview(m, tmp_path / "r", verified=verified, n_jobs=1)
    files = {p.name: p for p in (tmp_path / "r").iterdir()}
    expected = {"table.md", "table.csv", "params.json", "speakers.csv", "set_aside.csv",
                "counts.png", "counts.svg", "voices.png"}
    assert expected <= set(files)
    for p in files.values():
        if p.suffix != ".png": assert str(tmp_path) not in p.read_text() or p.name == "never", p
    heads = [l for l in files["table.md"].read_text().splitlines() if l.startswith("#")]
    assert len(heads) >= 1 + len(made.tables) and all("(rendered)" in h for h in heads)
    for p in files.values():
        if p.suffix == ".csv": assert re.search(r"\brendered$", p.read_text().splitlines()[0]), p
    assert "truncated" in files["problems.csv"].read_text()
    again = o.write_overview(m, tmp_path / "s", verified=verified, n_jobs=1)
    for n, p in files.items(): assert (tmp_path / "s" / n).read_bytes() == p.read_bytes(), n
    assert again.tables.keys() == made.tables.keys()
