"A decode that returns is not a decode that is whole: every container, cut and bent in many places."

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from avkit.core import repo_root
from avkit.preprocessing import media
from avkit.preprocessing.writing import CODECS, write_video, write_wav
from avkit.preprocessing.media import MediaError, Reading, decode, is_whole, probe, resample

av = pytest.importorskip("av")
DATA = Path(os.environ.get("AVKIT_DATA") or (repo_root() or Path.cwd()).parent / "shared" / "data")
grid = sorted((DATA / "grid_clips").glob("*.mpg"))
speech = sorted((DATA / "ravdess_speech").rglob("*.flac"))
needs_grid = pytest.mark.skipif(not grid, reason=f"no GRID clips below {DATA}; set AVKIT_DATA")
needs_speech = pytest.mark.skipif(
    not speech, reason=f"no RAVDESS speech below {DATA}; set AVKIT_DATA"
)
RATE, FPS, T = 44100, 25, 50
CUTS = np.linspace(0.01, 0.99, 20)


def _sound(seconds=T / FPS, rate=RATE):
    t = np.arange(int(seconds * rate)) / rate
    noise = np.random.default_rng(0).normal(size=t.size)
    return (0.3 * np.sin(2 * np.pi * 220 * t) + 0.02 * noise).astype(np.float32)


def _frames():
    y, x = np.mgrid[:96, :128]
    for i in range(T):
        yield np.stack([(x + 3 * i) % 256, (y + i) % 256, np.full_like(x, 5 * i)], -1).astype(
            np.uint8
        )


def _write_audio(path, fmt, codec, sound=None, rate=RATE):
    "(C,N) float: what write_wav does not write (stereo, FLAC)"
    x = _sound()[None] if sound is None else sound
    with av.open(str(path), "w", format=fmt) as c:
        layout = {1: "mono", 2: "stereo"}[len(x)]
        s = c.add_stream(codec, rate=rate, layout=layout)
        c.start_encoding()
        f = av.AudioFrame.from_ndarray(np.ascontiguousarray(x), format="fltp", layout=layout)
        f.sample_rate, f.pts = rate, 0
        cut = av.AudioResampler(
            s.format.name, layout, rate, frame_size=s.codec_context.frame_size or 1024
        )
        for g in [*cut.resample(f), *cut.resample(None), None]:
            c.mux(s.encode(g))
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    "{name: a whole file}, in a folder and under names with spaces and umlauts"
    d = tmp_path_factory.mktemp("media") / "Ünï cødé"
    files = {s: write_video(d / f"ä b{s}", _frames(), FPS, _sound(), RATE) for s in CODECS}
    files["h264.flv"] = _remux(d / "h264 ü.flv", files[".mp4"], "flv")
    files[".wav"] = write_wav(d / "ä b.wav", _sound(), RATE)
    files[".flac"] = _write_audio(d / "ä b.flac", "flac", "flac")
    return files


def _remux(path, source, fmt):
    with av.open(str(source)) as a, av.open(str(path), "w", format=fmt) as b:
        streams = {s.index: b.add_stream_from_template(s) for s in a.streams}
        for p in a.demux():
            if p.dts is None:
                continue
            p.stream = streams[p.stream_index]
            b.mux(p)
    return path


def _reason(path, **kw):
    kw.setdefault("video", path.suffix not in (".wav", ".flac"))
    try:
        decode(path, **kw)
    except MediaError as e:
        assert e.path == path and str(path) in str(e)
        return e.reason


NAMES = [*CODECS, "h264.flv", ".wav", ".flac"]
BROKEN = {"truncated", "unreadable", "no picture", "no sound"}


@pytest.mark.parametrize("name", NAMES)
def test_whole_file_decodes(whole, name):
    picture = name not in (".wav", ".flac")
    clip = decode(whole[name], video=picture)
    assert is_whole(whole[name]) is not False
    assert abs(clip.duration - T / FPS) < 0.1 and abs(len(clip.sound) / clip.rate - T / FPS) < 0.1
    assert np.abs(clip.sound).max() <= 1.1 and clip.sound.dtype == np.float32
    if picture:
        assert clip.frames.shape == (T, 96, 128, 3) and clip.fps == FPS
        assert np.abs(clip.times - np.arange(T) / FPS).max() < (
            0.06 if name == ".mpg" else 0.03
        )  # MPEG: FFmpeg guesses some
        assert (
            np.abs(clip.frames[:, 40:50, 40:50, 2].mean((1, 2)) - 5 * np.arange(T)).max() < 8
        )  # in order, right colours


@pytest.mark.parametrize("name", NAMES)
def test_every_cut_is_noticed(whole, name, tmp_path):
    data, part = whole[name].read_bytes(), tmp_path / ("cut" + whole[name].suffix)
    sizes = {int(len(data) * s) for s in CUTS} | {len(data) - 1 - k for k in (100, 1000)}
    sizes |= {
        int(len(data) * s) // 2048 * 2048 for s in CUTS[3:]
    }  # where sectors and MPEG packets end
    for n in sorted(sizes):
        part.write_bytes(data[:n])
        assert _reason(part) in BROKEN, (name, n, len(data))


@pytest.mark.parametrize("name", [".mpg", ".flv", "h264.flv", ".mkv", ".avi", ".mp4"])
@pytest.mark.parametrize("asked", [dict(video=True, audio=False), dict(video=False, audio=True)])
def test_cut_is_noticed_in_one_stream(whole, name, asked, tmp_path):
    "Only one stream is decoded: the other one still counts"
    data, part = whole[name].read_bytes(), tmp_path / ("cut" + whole[name].suffix)
    for share in (0.2, 0.5, 0.8, 0.95):
        part.write_bytes(data[: int(len(data) * share)])
        assert _reason(part, **asked) in BROKEN, (name, share)


def test_flv_cut_between_tags(whole, tmp_path):
    "The chain of tags is intact: the announced duration tells"
    data, part = whole["h264.flv"].read_bytes(), tmp_path / "tags.flv"
    ends, pos = [], 13
    while pos < len(data):
        pos += 15 + int.from_bytes(data[pos + 1 : pos + 4], "big")
        ends.append(pos)
    assert ends[-1] == len(data)
    for n in ends[6 : int(len(ends) * 0.8) : 7]:
        part.write_bytes(data[:n])
        assert is_whole(part) is None and _reason(part) in BROKEN, n


@pytest.mark.parametrize("name", NAMES)
def test_zeroed_middle_is_noticed(whole, name, tmp_path):
    "A download with a hole: 20 % of the bytes are zero (PCM has no way to tell)"
    data, part = bytearray(whole[name].read_bytes()), tmp_path / ("hole" + whole[name].suffix)
    n = len(data)
    data[int(n * 0.4) : int(n * 0.6)] = bytes(int(n * 0.6) - int(n * 0.4))
    part.write_bytes(data)
    assert (_reason(part) in BROKEN) == (name != ".wav")


@pytest.mark.parametrize("name", NAMES)
def test_flipped_bits_are_named_or_harmless(whole, name, tmp_path):
    "A bent file ends in a MediaError or decodes to its full length; nothing else is ever raised"
    data, part = whole[name].read_bytes(), tmp_path / ("bent" + whole[name].suffix)
    rng, noticed = np.random.default_rng(1), 0
    for _ in range(12):
        bent = bytearray(data)
        for i in rng.integers(len(data) // 20, len(data), 8):
            bent[i] ^= 1 << rng.integers(8)
        part.write_bytes(bent)
        noticed += _reason(part) is not None
    assert noticed or name == ".wav"


def test_the_other_reasons(whole, tmp_path):
    (tmp_path / "zero.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a clip " * 300)
    (tmp_path / "text.txt").write_text("not a clip " * 300)
    (tmp_path / "list.m3u8").write_text(f"#EXTM3U\n#EXTINF:2,\n{whole['.mp4']}\n#EXT-X-ENDLIST\n")
    write_video(tmp_path / "mute.mp4", _frames(), FPS)
    names = dict(zero="empty", nowhere="missing", text="unreadable", mute="no sound")
    assert {n: _reason(tmp_path / f"{n}.mp4") for n in names} == names
    assert (
        _reason(tmp_path / "text.txt")
        == _reason(tmp_path / "list.m3u8")
        == _reason(tmp_path)
        == "unreadable"
    )
    assert _reason(whole[".wav"], video=True) == _reason(whole[".flac"], video=True) == "no picture"
    assert decode(tmp_path / "mute.mp4", audio=False).sound is None
    assert decode(whole[".mp4"], video=False).frames is None
    with pytest.raises(MediaError, match="missing"):
        probe(tmp_path / "nowhere.mp4")


def test_frames_by_timestamp(whole):
    "Any order, doubles, before the first and after the last"
    full, want = decode(whole[".mp4"], audio=False), [1.0, 0.05, -3, 0.0799, 0.08, 99, 0.05]
    clip = decode(whole[".mp4"], audio=False, times=want)
    index = [25, 1, 0, 2, 2, T - 1, 1]
    assert np.allclose(clip.times, full.times[index]) and (clip.frames == full.frames[index]).all()
    late = decode(whole[".mp4"], audio=False, times=lambda s: [s / 2, s], size=(32, 24))
    assert late.frames.shape == (2, 24, 32, 3) and np.allclose(late.times, full.times[[25, T - 1]])
    assert decode(whole[".mp4"], audio=False, times=[]).frames.shape[0] == 0


def test_an_error_in_times_is_not_the_files(whole):
    with pytest.raises(ZeroDivisionError):
        decode(whole[".mp4"], times=lambda s: 1 / 0)


@pytest.mark.parametrize("name", [".flv", "h264.flv", ".mkv", ".mpg", ".avi"])
def test_a_file_that_does_not_say_its_length_is_opened_once(whole, monkeypatch, name):
    "And gives what it gives where it is too large to hold, and opened again for its length"
    opened, open_container = [], media.open_container
    say = lambda *a: opened.append(a) or open_container(*a)
    monkeypatch.setattr(media, "open_container", say)
    monkeypatch.setattr(media, "guesses_end", lambda c: True)
    span = lambda s, n: (99, round(9e3 * s))
    want = dict(times=lambda s: [0.1, s / 2, s, s], rate=16000, span=span)
    once = decode(whole[name], **want)
    assert len(opened) == 1
    monkeypatch.setattr(media, "HELD_PACKETS", 0)
    again = decode(whole[name], **want)
    assert len(opened) == 3
    np.testing.assert_array_equal(once.frames, again.frames)
    np.testing.assert_array_equal(once.times, again.times)
    np.testing.assert_array_equal(once.sound, again.sound)
    assert (once.duration, once.samples, once.notes) == (again.duration, again.samples, again.notes)


def test_a_closed_file_forgets_its_streams(whole):
    "They are freed memory: asking one for its rate crashed the process, now and then"
    with Reading(whole[".mp4"]) as r:
        assert r.video.average_rate == 25
    assert not any(hasattr(r, x) for x in ("container", "video", "streams", "asked"))


@pytest.mark.parametrize("kind", ["yuv420p", "yuvj420p", "yuv422p", "nv12"])
def test_planes_change_no_bit(kind):
    "An image is what swscale makes of the pixels one by one, whatever its size and its colours"
    pytest.importorskip("cv2")
    rng = np.random.default_rng(0)
    for h in [*range(2, 65), 288, 360, 361]:
        f = av.VideoFrame(int(rng.integers(2, 99)), h, kind)
        for p in f.planes:
            p.update(rng.integers(0, 256, p.buffer_size, dtype=np.uint8).tobytes())
        f.colorspace, f.color_range = int(rng.choice([1, 5, 9])), int(rng.integers(0, 3))
        rgb = f.reformat(format="rgb24", interpolation=2 | media.EXACT)
        np.testing.assert_array_equal(media.Screen()(media.Shot(f)), rgb.to_ndarray())


def test_variable_frame_rate(tmp_path):
    "Frames at 0, .1, .2, 1.2, 1.25, 2: time decides, not the count"
    at, path = [0, 100, 200, 1200, 1250, 2000], tmp_path / "vfr.mkv"
    with av.open(str(path), "w") as c:
        s = c.add_stream("libx264", rate=25, options={"crf": "10"})
        s.width, s.height, s.pix_fmt, s.codec_context.time_base = (
            64,
            48,
            "yuv420p",
            Fraction(1, 1000),
        )
        for i, t in enumerate(at):
            f = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 40 * i, np.uint8), format="rgb24")
            f.pts, f.time_base = t, Fraction(1, 1000)
            c.mux(s.encode(f))
        c.mux(s.encode())
    clip = decode(path, audio=False, times=[0.15, 1.1, 1.22, 1.9, 2.0])
    assert np.allclose(clip.times, [0.1, 0.2, 1.2, 1.25, 2.0], atol=0.002)
    assert np.abs(clip.frames.mean((1, 2, 3)) - 40 * np.array([1, 2, 3, 4, 5])).max() < 6


@pytest.mark.parametrize(
    "fmt,codec,suffix",
    [
        ("flac", "flac", ".flac"),
        ("wav", "pcm_s16le", ".wav"),
        ("wav", "pcm_u8", ".wav"),
        ("wav", "pcm_f32le", ".wav"),
        ("wav", "pcm_s24le", ".wav"),
    ],
)
def test_stereo_is_the_mean(tmp_path, fmt, codec, suffix):
    left, right = _sound(), 0.5 * _sound()[::-1]
    clip = decode(
        _write_audio(tmp_path / f"s{suffix}", fmt, codec, np.stack([left, right])), video=False
    )
    assert clip.sound.shape == left.shape and np.abs(clip.sound - (left + right) / 2).max() < (
        0.01 if codec == "pcm_u8" else 1e-4
    )


def test_wav_roundtrip_and_streamed_header(tmp_path):
    x = _sound()
    p = write_wav(tmp_path / "a.wav", x, RATE)
    assert np.abs(decode(p, video=False).sound - x).max() < 1e-4
    data = bytearray(p.read_bytes())
    data[4:8] = data[40:44] = (
        b"\xff" * 4
    )  # as a pipe leaves it: the size is not known, which is no damage
    p.write_bytes(data)
    assert is_whole(p) is None and len(decode(p, video=False).sound) == len(x)


def test_resample_agrees_with_librosa():
    """MFCC within 1 % of each coefficient's standard deviation, for sound that fades and rises as
    speech does"""
    librosa = pytest.importorskip("librosa")
    t = np.arange(3 * 48000) / 48000
    rng = np.random.default_rng(0)
    x = (
        (
            np.sign(np.sin(2 * np.pi * 150 * t + 9 * np.sin(3 * t))) * 0.2
            + 0.05 * rng.normal(size=t.size)
        )
        * (1 + np.sin(9 * t)) ** 3
        / 8
    )
    x = (x + 1e-4 * rng.normal(size=t.size)).astype(np.float32)
    ours, theirs = resample(x, 48000, 22050), librosa.resample(x, orig_sr=48000, target_sr=22050)
    a, b = (librosa.feature.mfcc(y=y, sr=22050, n_mfcc=10) for y in (ours, theirs))
    assert ours.shape == theirs.shape
    assert (np.abs(a - b).mean(1) < 0.01 * b.std(1)).all()


def test_same_frames_same_bytes(tmp_path):
    for s in CODECS:
        a, b = (
            write_video(tmp_path / f"{n}{s}", _frames(), FPS, _sound(), RATE).read_bytes()
            for n in "ab"
        )
        assert a == b, s


def test_a_failed_write_leaves_nothing(tmp_path):
    def broken():
        yield from list(_frames())[:10]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video(tmp_path / "a.mp4", broken(), FPS)
    assert list(tmp_path.iterdir()) == []


def test_importing_media_does_not_import_av():
    code = "import sys, avkit.preprocessing.media; sys.exit(any(m in sys.modules for m in ('av', 'cv2', 'torch')))"  # noqa: E501
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@needs_grid
@pytest.mark.parametrize("k", range(min(6, len(grid))))
def test_real_mpeg(k, tmp_path):
    clip = decode(grid[k], times=np.linspace(0, 2.9, 5), rate=22050)
    assert (
        clip.frames.shape == (5, 288, 360, 3)
        and abs(clip.duration - 3) < 0.05
        and abs(len(clip.sound) / 22050 - 2.98) < 0.05
    )
    data, part = grid[k].read_bytes(), tmp_path / "cut.mpg"
    for share in CUTS[k::3]:
        for n in (int(len(data) * share), int(len(data) * share) // 2048 * 2048):
            part.write_bytes(data[:n])
            assert _reason(part) in BROKEN | {"empty"}, (grid[k].name, n)


@needs_speech
def test_real_flac(tmp_path):
    for p in speech[::60]:
        clip = decode(p, video=False, rate=22050)
        assert 2.5 < clip.duration < 6 and abs(len(clip.sound) / 22050 - clip.duration) < 0.01
    data, part = speech[0].read_bytes(), tmp_path / "cut.flac"
    for share in CUTS:
        part.write_bytes(data[: int(len(data) * share)])
        assert _reason(part) in BROKEN, share


@pytest.mark.parametrize(
    "preset,suffix",
    [("medium", ".mp4"), ("slow", ".mp4"), ("medium", ".mkv"), ("ultrafast", ".mp4")],
)
def test_passing_over_pictures_changes_none_that_is_kept(tmp_path, preset, suffix):
    "With B-frames and without, the kept pictures are those of a whole decode, bit for bit"
    from avkit.datasets.synth import FACES, VOICES, RATE, perform

    frames, sound = perform(FACES[1], VOICES[1], actor=2, key=("skip",), seconds=3, size=(160, 120))
    path = write_video(tmp_path / f"a{suffix}", frames, 25, sound, RATE, preset=preset)
    full = decode(path)
    for times in (
        np.linspace(0.1, 2.9, 15),
        np.array([0.0, 2.99, 9.0]),
        np.array([-1.0, 0.5, 0.52]),
    ):
        some = decode(path, times=times)
        at = [max(0, int(np.searchsorted(full.times, t - 1e-3 + 2e-3, "right")) - 1) for t in times]
        assert np.array_equal(some.frames, full.frames[at]) and np.array_equal(
            some.times, full.times[at]
        )


def test_passing_over_pictures_of_a_wandering_rate(tmp_path):
    """B-frames in an MP4 whose pictures come at uneven times: nothing is passed over, the right
    ones are kept"""
    at, path = np.cumsum([0] + [40, 40, 200, 40, 80] * 12), tmp_path / "vfr.mp4"
    with av.open(str(path), "w") as c:
        s = c.add_stream("libx264", rate=25, options={"crf": "5", "preset": "medium"})
        s.width, s.height, s.pix_fmt, s.codec_context.time_base = (
            64,
            48,
            "yuv420p",
            Fraction(1, 1000),
        )
        for i, t in enumerate(at):
            f = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 4 * i, np.uint8), format="rgb24")
            f.pts, f.time_base = int(t), Fraction(1, 1000)
            c.mux(s.encode(f))
        c.mux(s.encode())
    full, times = decode(path, audio=False), np.linspace(0.05, 4.5, 15)
    some = decode(path, audio=False, times=times)
    assert np.array_equal(
        some.times,
        full.times[[int(np.searchsorted(full.times, t + 1e-3, "right")) - 1 for t in times]],
    )
