"""The corpus that renders itself: its layout, that it is the same every time, and that it gives
nothing away."""

import os
import re
from collections import Counter
from itertools import islice

import numpy as np
import pytest

from avkit.core import AvkitError, read_json
from avkit.preprocessing.media import decode, length
from avkit.datasets import ravdess
from avkit.datasets.synth import (
    FACES,
    FPS,
    RATE,
    VOICES,
    express,
    _names,
    _nuisance,
    _plan,
    rng_of,
    face_code,
    render_demo,
    render_clip,
    render_plan,
    planned_settings,
    voice_code,
)

pytest.importorskip("cv2")
SMALL = dict(actors=2, repeats=1, size=(96, 80), seed=3, progress=False)


def _bytes(root):
    return {
        str(p.relative_to(root)): p.read_bytes()
        for p in sorted(root.rglob("*.*"))
        if p.suffix != ".json"
    }


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return render_demo(tmp_path_factory.mktemp("synth") / "ä b", n_jobs=1, **SMALL)


def test_codes_meet_in_one_emotion():
    codes = [(face_code(e), voice_code(e)) for e in range(8)]
    assert len(set(codes)) == 8
    for k in (0, 1):
        assert sorted(Counter(c[k] for c in codes).items()) == [(i, 2) for i in range(4)]


def test_layout(corpus):
    names = sorted(_bytes(corpus))
    assert (
        len(names) == 2 * 8 * 2
        and (corpus / "synth.json").is_file()
        and not (corpus / "synth.part.json").exists()
    )
    pattern = r"Actor_(0[12])/(01-01-0[1-8]-0[12]-0[12]-0[12]-\1\.mp4|03-01-0[1-8]-0[12]-0[12]-0[12]-\1\.wav)"  # noqa: E501
    assert all(re.fullmatch(pattern, n) for n in names)
    assert {n[12:].replace("mp4", "wav") for n in names if "/01-" in n} == {
        n[12:] for n in names if "/03-" in n
    }


def test_clips_are_whole_and_both_files_tell_the_same(corpus):
    for p in sorted(corpus.rglob("01-*.mp4"))[::5]:
        av = decode(p)
        wav = decode(p.with_name("03" + p.stem[2:] + ".wav"), video=False)
        assert av.frames.shape[1:] == (80, 96, 3) and av.fps == FPS and av.rate == wav.rate == RATE
        assert 3.15 < av.duration < 4.1 and abs(len(av.frames) / FPS - len(wav.sound) / RATE) < 1e-6
        n = len(wav.sound) - 2000
        assert np.corrcoef(av.sound[:n], wav.sound[:n])[0, 1] > 0.95


def test_same_bytes_whatever_the_number_of_processes(corpus, tmp_path):
    assert _bytes(render_demo(tmp_path / "b", n_jobs=2, **SMALL)) == _bytes(corpus)
    other = _bytes(render_demo(tmp_path / "c", n_jobs=1, **{**SMALL, "actors": 1, "seed": 4}))
    assert not set(other.values()) & set(_bytes(corpus).values())


def test_resumes_and_repeats(corpus):
    before, stamps = _bytes(corpus), {p: p.stat().st_mtime_ns for p in corpus.rglob("*.*")}
    render_demo(corpus, n_jobs=1, **SMALL)
    assert {p: p.stat().st_mtime_ns for p in corpus.rglob("*.*")} == stamps
    lost = sorted(corpus.rglob("*.mp4"))[3], sorted(corpus.rglob("*.wav"))[5]
    for p in lost:
        p.unlink()
    os.replace(corpus / "synth.json", corpus / "synth.part.json")  # as a kill leaves it
    render_demo(corpus, n_jobs=1, **SMALL)
    assert _bytes(corpus) == before and (corpus / "synth.json").is_file()
    assert sum(p.stat().st_mtime_ns != t for p, t in stamps.items()) == 2


@pytest.mark.parametrize(
    "change",
    [dict(difficulty=0.5), dict(seed=1), dict(actors=3), dict(size=(128, 96)), dict(repeats=2)],
)
def test_another_setting_is_refused(corpus, change):
    with pytest.raises(AvkitError, match=next(iter(change))):
        render_demo(corpus, n_jobs=1, **{**SMALL, **change})
    assert read_json(corpus / "synth.json")["seed"] == 3


def test_an_unfinished_other_corpus_and_foreign_folders_are_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("my thesis")
    with pytest.raises(AvkitError, match="other files"):
        render_demo(tmp_path, n_jobs=1, **SMALL)
    for wrong in (dict(actors=25), dict(repeats=5), dict(difficulty=2), dict(size=(97, 80))):
        with pytest.raises(AvkitError, match="actors 1-24"):
            render_demo(tmp_path / "x", **{**SMALL, **wrong})


@pytest.mark.parametrize("repeats", [1, 3, 4])
def test_plan_is_balanced_and_names_are_unique(repeats):
    plan = _plan(16, 0, repeats)
    assert len({n for c in plan for n in _names(*c)}) == 2 * len(plan) == 2 * 16 * 8 * repeats
    assert set(Counter((c[0], c[4]) for c in plan).values()) == {repeats}
    assert all(c[1] == 1 for c in plan if c[0] == 0)
    strong = np.array([np.mean([c[1] == 2 for c in plan if c[0] == e]) for e in range(1, 8)])
    assert repeats < 3 or (np.abs(strong - 0.5) < 0.25).all()


def test_nuisance_is_independent_of_the_emotion():
    """One-way F of length, begin, end, gain and rhythm over the emotions, in the plan of 24
    actors: none stands out"""
    from scipy.stats import f_oneway

    plan = _plan(24, 0, 4)
    nz = [_nuisance(rng_of(0, c[4], *c[:4], "nuisance")) for c in plan]
    e = np.array([c[0] for c in plan])
    for key in nz[0]:
        x = np.array([n[key] for n in nz])
        assert f_oneway(*(x[e == k] for k in range(8))).pvalue > 0.005, key
    assert 3.2 <= min(n["seconds"] for n in nz) < 3.4 and 3.8 < max(n["seconds"] for n in nz) <= 4.0


def test_face_and_voice_keep_to_their_codes():
    "Emotions of one pair look the same up to the draw: the code is all that enters the expression"
    for points, code in ((FACES, face_code), (VOICES, voice_code)):
        for a in range(8):
            for b in range(8):
                same = np.allclose(*(express(points, code(e), rng_of(0, "x"), 0.0) for e in (a, b)))
                assert same == (code(a) == code(b))
    d0 = np.linalg.norm(FACES[0] - FACES[2])
    far = [
        np.linalg.norm(np.subtract(*(express(FACES, c, rng_of(0, "x"), q) for c in (0, 2))))
        for q in (0, 0.5, 1)
    ]
    assert np.allclose(far, [d0, d0 * 0.625, d0 * 0.25])


def test_intensity_is_in_the_name_alone():
    "The rendered expression has the same distribution for both: only the seed differs"
    frames = {
        i: np.mean(
            [
                next(render_clip(2, intensity=i, actor=1, repetition=r, size=(96, 80))[0])
                for r in (1, 2)
            ],
            0,
        )
        for i in (1, 2)
    }
    assert np.abs(frames[1] - frames[2]).mean() < 6


def test_difficulty_adds_noise():
    rough = lambda q: np.abs(
        np.diff(next(render_clip(2, difficulty=q, size=(96, 80))[0]).astype(float), axis=0)
    ).mean()
    assert rough(0.0) < rough(0.5) < rough(1.0)
    quiet = lambda q: np.abs(render_clip(2, difficulty=q, size=(96, 80))[1][:2000]).mean()
    assert quiet(0.0) < quiet(0.5) < quiet(1.0)


def test_mtcnn_finds_the_faces():
    mtcnn = pytest.importorskip("facenet_pytorch").MTCNN(keep_all=False)
    frames = [
        f
        for a in range(1, 9)
        for e in (0, 2, 4, 6)
        for f in islice(render_clip(e, actor=a)[0], 5, 30, 20)
    ]
    _, p = mtcnn.detect(frames)
    assert np.mean([float(x[0] or 0) >= 0.9 for x in p]) >= 0.96 and all(
        x[0] is not None for x in p
    )


def test_a_plan_may_say_how_long_a_clip_is(tmp_path):
    plan = ravdess.plan(actors=1, repeats=1).head(2).assign(seconds=[3.0, 4.4])
    settings = planned_settings("ravdess", 0, 0.0, (64, 64), 1)
    render_plan(tmp_path, settings, plan, n_jobs=1, progress=False)
    for row in plan.itertuples():
        for f in row.files:
            assert length(tmp_path / f) == pytest.approx(row.seconds, abs=0.05)
