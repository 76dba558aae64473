"Videos of any length: timestamps of their own, parts, resuming, and features of the same time."

import numpy as np
import pytest

from avkit.datasets.features import track_frames, track_audio
from avkit.preprocessing.media import stream
from avkit.preprocessing.prepare import Preparation
from avkit.store import Store
from avkit.preprocessing.tracks import Track, make_track


def variable_rate(path, times, rate=8000):
    """A video whose frame i is shown at times[i] and has the brightness 5 i; a click stands at
    each of its times"""
    av = pytest.importorskip("av")
    from fractions import Fraction

    sound = np.zeros(round((times[-1] + 0.2) * rate), np.float32)
    for t in times:
        sound[round(t * rate) : round(t * rate) + 8] = 0.9
    with av.open(str(path), "w") as c:
        v, a = (
            c.add_stream("libx264", rate=25, options=dict(qp="0", bf="0")),
            c.add_stream("pcm_s16le", rate=rate, layout="mono"),
        )
        v.width = v.height = 64
        v.pix_fmt, v.codec_context.time_base = "yuv444p", Fraction(1, 1000)
        for i, t in enumerate(times):
            f = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 5 * i, np.uint8), format="rgb24")
            f.pts, f.time_base = round(t * 1000), Fraction(1, 1000)
            for p in v.encode(f):
                c.mux(p)
        for p in v.encode():
            c.mux(p)
        f = av.AudioFrame.from_ndarray(
            (sound[None] * 32767).astype(np.int16), format="s16", layout="mono"
        )
        f.sample_rate = rate
        for x in (*av.AudioResampler("s16", "mono", rate, frame_size=1024).resample(f), None):
            for p in a.encode(x):
                c.mux(p)
    return path


@pytest.fixture
def wandering(tmp_path):
    times = np.cumsum(np.r_[0, 0.04 + 0.06 * (np.arange(39) % 3 == 0)])
    return variable_rate(tmp_path / "vfr.mkv", times), times


def test_times_are_the_files_own(wandering):
    path, times = wandering
    got = [x for x in stream(path)]
    assert np.abs(np.concatenate([g[2] for g in got if g[0] == "video"]) - times).max() < 2e-3
    assert np.abs(got[-1][1] - times).max() < 2e-3


def test_sound_and_pictures_of_a_stretch_are_of_the_same_time(wandering, tmp_path):
    path, times = wandering
    store, prep = (
        Store(tmp_path / "s"),
        Preparation(long=True, views=("frame",), detector="none", size=64, rate=8000),
    )
    make_track(
        tmp_path,
        dict(clip="v", audio=path.name, video=path.name),
        ["video", "audio"],
        dict(video="11", audio="22"),
        prep,
        store,
    )
    assert np.abs(Track(store, "22").frame_times - times).max() < 2e-3
    numbers = np.array([np.arange(12, 20)])
    pictures = track_frames(store, ["11"], [0], numbers, 64, "frame")
    assert np.abs(pictures.x[0].float().mean((1, 2, 3)).numpy() - 5 * numbers[0]).max() < 3
    sound = Track(store, "22").sound(round(times[12] * 8000), 8)
    assert sound.max() > 0.5  # the click of frame 12 opens the stretch
    mel = track_audio(store, ["22"], [0], numbers, "logmel", 8000, n_mels=8, n_fft=64, hop=8)
    loud = mel.x[0].max(1).values
    clicks = np.flatnonzero((loud > loud.max() - 12).numpy()) * 8 / 8000 + times[12]
    assert all(np.abs(clicks - t).min() < 0.003 for t in times[12:20])


def test_a_killed_track_is_not_whole_and_resumes(wandering, tmp_path, monkeypatch):
    import avkit.preprocessing.tracks as tracks

    path, _ = wandering
    store, prep = (
        Store(tmp_path / "s"),
        Preparation(long=True, views=("frame",), detector="none", size=64, rate=8000),
    )
    row, keys = dict(clip="v", audio=path.name, video=path.name), dict(video="11")
    monkeypatch.setattr(tracks, "PART", 10)
    with monkeypatch.context() as m:
        m.setattr(tracks.Writer, "done", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            make_track(tmp_path, row, ["video"], keys, prep, store)
    parts = {p: p.stat().st_mtime_ns for p in store.root.rglob("*.safetensors")}
    assert len(parts) == 4 and not store.has("11")
    make_track(tmp_path, row, ["video"], keys, prep, store)
    assert store.has("11") and all(p.stat().st_mtime_ns == t for p, t in parts.items())
    assert [
        int(Track(store, "11").picture("frame", i).mean() / 5 + 0.5) for i in (0, 9, 10, 39)
    ] == [0, 9, 10, 39]


def test_blocks_do_not_change_the_boxes(tmp_path):
    """Faces cut from a stream of blocks are those of the same frames: the median looks across the
    blocks' edges"""
    from avkit.preprocessing.tracks import smooth_boxes

    boxes = np.cumsum(np.random.default_rng(0).normal(size=(40, 4)), 0)
    boxes[[3, 17, 31]] = np.nan
    whole = smooth_boxes(np.zeros((0, 4)), boxes, np.zeros((0, 4)))
    parts = [
        smooth_boxes(boxes[max(k - 4, 0) : k], boxes[k : k + 16], boxes[k + 16 : k + 20])
        for k in range(0, 40, 16)
    ]
    assert np.allclose(np.concatenate(parts), whole)
