"""Kinds of files that go wrong elsewhere: turned, anamorphic, late, cut by an edit list, with
gaps, with sound that changes, of many channels, with numbers that are none, with false headers."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("imageio_ffmpeg")
av = pytest.importorskip("av")
from media_files import GROUPS, audio_in, run, video_in, write

from avkit.cli import main
from avkit.preprocessing import prepare as preparation
from avkit.preprocessing.media import (
    MediaError,
    SoundTimes,
    decode,
    frame_count,
    is_whole,
    length,
    probe,
    resample,
    stream,
    survey,
    to_mono,
)
from avkit.preprocessing.prepare import Preparation, prepare_clip
from avkit.preprocessing.writing import redraw
from avkit.store import Store

PLAIN = Preparation(window=1.2, frames=4, size=32, rate=8000, detector="none", views=("frame",))


def made(folder, group, name):
    "One file of the generated ones"
    case = next(c for c in GROUPS[group]() if c.file == name)
    write([case], folder)
    return folder / name


def row_of(path, video=True, audio=True):
    files = dict(video=path.name if video else "", audio=path.name if audio else "")
    hashes = {f"{k}_sha256": "0" * 64 if v else "" for k, v in files.items()}
    return dict(clip=path.stem) | files | hashes


def prepared(path, prep=PLAIN, **which):
    return prepare_clip(path.parent, row_of(path, **which), prep, Store(path.parent / "store"))


# time


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov", "ts"])
def test_late_video_has_the_same_window_everywhere(suffix, tmp_path):
    path = tmp_path / f"late.{suffix}"
    run(f"-itsoffset 1 {video_in(1)}", audio_in(1), "-c:v libx264 -preset ultrafast -c:a aac", path)
    asked = []
    decode(path, times=lambda s: asked.append(s) or [s / 2])
    assert abs(asked[-1] - 2) < 0.05 and abs(length(path) - 2) < 0.05
    _, start = preparation._decode(tmp_path, row_of(path), ["audio", "video"], PLAIN)
    assert abs(start - 0.4) < 0.03
    times = [x[2] for x in stream(path, times=[0.0, 1.5, 9.0]) if x[0] == "video"]
    assert np.allclose(np.concatenate(times), [1.0, 1.48, 1.96], atol=0.03)


def test_a_wrong_header_is_read_again_with_the_right_length(tmp_path):
    "The container speaks for a longer track that nobody chose"
    path = made(tmp_path, "tracks", "two_audio.mkv")
    asked = []
    clip = decode(path, times=lambda s: asked.append(s) or [s / 2])
    assert abs(asked[-1] - 0.62) < 0.03 and clip.duration == asked[-1]


def test_hidden_frames_are_no_frames(tmp_path):
    path = made(tmp_path, "edits", "cut_0.5_50_False.mp4")
    n = len(decode(path, audio=False).frames)
    with av.open(str(path)) as c:
        packets = sum(p.size > 0 for p in c.demux(video=0))
    assert n < packets and probe(path).video["frames"] == n == frame_count(path)
    assert len(list(stream(path, video=False))[-1][1]) == n == survey(path)["pictures"]


def test_frames_before_the_first_key_frame(tmp_path):
    "They are counted nowhere, and told"
    whole, path = tmp_path / "whole.mkv", tmp_path / "late_key.mkv"
    run(video_in(1), audio_in(1), "-c:v libx264 -preset ultrafast -g 15 -c:a aac", whole)
    run("-i", whole, r"-c copy -bsf:v noise=amount=0:drop='lt(n\,4)'", path)
    n = len(decode(path).frames)
    assert 0 < n < 15 and survey(path)["pictures"] == frame_count(path) == n
    assert "before the first key frame" in prepared(path)["reason"]


@pytest.mark.parametrize("seed", range(20))
def test_jitter_is_no_gap_and_a_gap_is(seed):
    rng = np.random.default_rng(seed)
    size, n = rng.choice([0.01, 0.02, 0.0232, 0.026, 0.093]), 60
    at = np.arange(n) * size
    jitter = rng.uniform(-0.45, 0.45, n) * min(size, 0.02)
    drift = 1 + rng.uniform(-1, 1) * 0.05 / (n * size)  # 50 ms in all
    gap, where = rng.uniform(0.03, 3), rng.integers(10, 50)
    for late in (0.0, gap):
        line = SoundTimes()
        times = at * drift + jitter + late * (np.arange(n) >= where)
        times[0] = 0
        placed = [x for t in times for x in line.feed(None, t, size)] + list(line.rest())
        assert len(line.gaps) == (late > 0) and len(placed) == n
        assert not late or abs(line.gaps[0][1] - gap) < 0.07


def test_silence_of_days_is_refused(tmp_path):
    path = tmp_path / "late.mp4"
    run(
        video_in(),
        f"-itsoffset 100000 {audio_in()}",
        "-c:v libx264 -preset ultrafast -c:a aac",
        path,
    )
    with pytest.raises(MediaError, match="99999.98 s of sound are missing"):
        decode(path)


def test_a_gap_is_told_and_filled(tmp_path):
    path = made(tmp_path, "gaps", "0.3_0.5_libopus.mkv")
    clip, told = decode(path), prepared(path)
    quiet = clip.sound[round(0.33 * clip.rate) : round(0.48 * clip.rate)]
    assert np.abs(quiet).max() < 0.02 < np.abs(clip.sound).max() / 4
    assert told["status"] == "done" and "silence there" in told["reason"]
    assert len(survey(path)["gaps"]) == 1


def test_a_gap_is_refused_where_that_is_asked_for(tmp_path):
    path = made(tmp_path, "gaps", "0.3_0.5_libopus.mkv")
    (seconds,) = [n for _, n in survey(path)["gaps"]]
    assert decode(path, max_gap=seconds + 0.01).notes
    for longest in (0, seconds - 0.01):
        with pytest.raises(MediaError, match=rf"{seconds:.2f} s of sound are missing"):
            decode(path, max_gap=longest)
        with pytest.raises(MediaError, match="are missing"):
            list(stream(path, max_gap=longest))
    whole = replace(PLAIN, max_gap=0.0)
    assert PLAIN.audio != whole.audio and PLAIN.video == whole.video
    told = prepared(path, whole)
    assert told["status"] == "failed" and "are missing" in told["reason"]
    late = made(tmp_path, "offsets", "audio_0.3.mp4")  # a late beginning is no gap
    assert decode(late, max_gap=0).duration


# what is really missing

CUT = {
    "live.webm": ("ends", "live.webm"), "live.mkv": ("ends", "live_short_video.mkv"),
    "a.ogg": ("sounds", "libvorbis_44100.ogg"), "a.aiff": ("sounds", "pcm_s16be_44100.aiff"),
    "a.mp3": ("sounds", "libmp3lame_44100.mp3"), "a.wma": ("sounds", "wmav2_44100.wma"),
    "a.wmv": ("containers", "wmv2_wmav2.wmv"), "a.mov": ("containers", "mpeg4_aac.mov"),
    "noise.mp4": ("trailers", "noise.mp4"), "zeros.avi": ("trailers", "zeros.avi"),
}  # fmt: skip


@pytest.mark.parametrize("name", CUT)
def test_what_is_cut_is_still_refused(name, tmp_path):
    path = made(tmp_path, *CUT[name])
    data = path.read_bytes()
    kept = len(data) - 3000 * (CUT[name][0] == "trailers")  # the file without what follows it
    for n in {int(kept * s) for s in (0.3, 0.5, 0.8, 0.95)} | {kept - 40}:
        path.write_bytes(data[:n])
        assert survey_or_reason(path), (name, n, kept)


def survey_or_reason(path):
    try:
        return survey(path)["problems"]
    except MediaError as e:
        return e.reason


# pictures


def test_a_new_size_midway_keeps_its_proportions(tmp_path):
    path = made(tmp_path, "changes", "size_48x64.ts")  # 64x48 first
    for frames in (
        decode(path).frames,
        np.concatenate([x[3] for x in stream(path) if x[0] == "video"]),
    ):
        assert frames.shape == (48, 48, 64, 3)
        late = frames[-1].max((0, 2)) > 24  # columns that show something
        assert late.sum() == 36 and late[14:50].all()
    assert prepared(path)["status"] == "done"


def test_a_copy_is_as_it_is_shown(tmp_path):
    path = made(tmp_path, "orientations", "90_hflip_4_3.mp4")
    seen, copy = decode(path), decode(redraw(path, tmp_path / "copy.mp4", lambda x, t: x))
    h, w = seen.frames.shape[1] // 2 * 2, seen.frames.shape[2] // 2 * 2
    assert copy.frames.shape[1:3] == (h, w)
    assert np.abs(copy.frames.astype(int) - seen.frames[:, :h, :w]).mean() < 6


def test_given_size_is_of_the_upright_picture(tmp_path):
    path = made(tmp_path, "orientations", "90__1.mp4")
    assert decode(path, audio=False, size=(24, 32)).frames.shape[1:] == (32, 24, 3)


# sound


@pytest.mark.parametrize(
    "rates",
    [(48000, 16000), (44100, 22050), (48000, 22050), (44100, 16000), (16000, 22050), (8000, 16000)],
)
def test_resampling_is_torchaudio_s(rates):
    import torch
    from torchaudio.functional import resample as sinc

    x = np.random.default_rng(0).normal(size=rates[0]).astype(np.float32) * 0.1
    how = dict(
        lowpass_filter_width=64, rolloff=0.9566, resampling_method="sinc_interp_kaiser", beta=8.0
    )
    theirs = sinc(torch.from_numpy(x), *rates, **how).numpy()
    ours = resample(x, *rates)
    middle = slice(300, -300)
    error = np.abs(ours - theirs)[middle].max()
    assert ours.shape == theirs.shape and error < 2e-3 * np.abs(theirs).max(), error


def test_odd_rates_need_no_memory():
    code = """
import resource, numpy as np
from avkit.preprocessing.media import resample
x = np.zeros(3 * 44100, np.float32)
resample(x, 48000, 16000)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
for rate in (44099, 22051, 48001, 191999, 7919): resample(x, rate, 22050)
print(peak() - before)"""
    grown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(grown.stdout) < 50_000  # kB


@pytest.mark.parametrize("layout", ["5.1", "5.1(side)", "7.1", "6.1", "3.1", "4.1", "5.0", "3.0"])
@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_a_voice_in_the_centre_is_heard(layout, suffix, tmp_path):
    names = [c.name for c in av.AudioLayout(layout).channels]
    tones = dict(FC="0.3*sin(440*2*PI*t)", LFE="0.9*sin(40*2*PI*t)")
    source = "|".join(tones.get(n, "0") for n in names)
    path = tmp_path / f"a.{suffix}"
    if suffix == "flac" and layout in ("3.1", "4.1", "5.1"):
        pytest.skip("FLAC has no such layout")
    run(f"-f lavfi -i aevalsrc={source}:s=48000:d=0.5:c={layout}", path)
    x = decode(path, video=False, rate=48000).sound[4800:-4800]
    spectrum = np.abs(np.fft.rfft(x)) ** 2
    low = spectrum[: int(60 * len(x) / 48000)].sum() / spectrum.sum()
    level = 20 * np.log10(np.sqrt(np.mean(x**2)) / (0.3 / 2**0.5))
    assert abs(level) < 1 and low < 0.01, (level, low)


@pytest.mark.parametrize("channels", [1, 2, 5, 6, 7, 8])
@pytest.mark.parametrize("kind", ["u8", "s16", "s32", "flt", "dbl"])
def test_planes_and_interleaved_samples_are_the_same(channels, kind, tmp_path):
    "Eight planes are eight"
    layout = {1: "mono", 2: "stereo", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}[channels]
    run(audio_in(0.2, 8000, layout), "-c:a pcm_f32le", tmp_path / "a.wav")
    with av.open(str(tmp_path / "a.wav")) as c:
        f = next(c.decode(audio=0))
    kinds = (kind, kind + "p")
    both = [f if k == "flt" else av.AudioResampler(k, layout, 8000).resample(f)[0] for k in kinds]
    packed, planar = map(to_mono, both)
    assert np.array_equal(packed, planar) and np.abs(packed - to_mono(f)).max() < (
        0.03 if kind == "u8" else 1e-4
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_named(bad, tmp_path):
    import struct

    x = np.zeros(8000, "<f4")
    x[4000] = bad
    head = struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF",
        36 + x.nbytes,
        b"WAVE",
        b"fmt ",
        16,
        3,
        1,
        8000,
        32000,
        4,
        32,
        b"data",
        x.nbytes,
    )
    (tmp_path / "a.wav").write_bytes(head + x.tobytes())
    told = prepared(tmp_path / "a.wav", video=False)
    assert (
        told["status"] == "failed" and "not finite" in told["reason"] and "a.wav" in told["reason"]
    )
    with pytest.raises(MediaError, match="0.500 s"):
        decode(tmp_path / "a.wav", video=False, rate=16000)
    from avkit.datasets import verify

    assert "not finite" in verify._decode(tmp_path, "a.wav", False, True)[2]


# the command

KEYS = "pictures first last fps width height orientation audio_seconds rate channels gaps problems"


def test_probe_says_what_decode_gives(tmp_path, capsys):
    path = made(tmp_path, "orientations", "270__1.mp4")
    assert main(["probe", str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    clip = decode(path)
    assert list(told) == KEYS.split() and told["problems"] == []
    assert (told["pictures"], told["height"], told["width"]) == clip.frames.shape[:3]
    assert np.allclose([told["first"], told["last"]], clip.times[[0, -1]], atol=1e-6)
    assert told["audio_seconds"] == pytest.approx(len(clip.sound) / clip.rate, abs=1e-6)
    png, wav = tmp_path / "a.png", tmp_path / "a.wav"
    assert main(["probe", str(path), "--frame", "0.3", str(png), "--audio", str(wav)]) == 0
    assert "turned by" in capsys.readouterr().out
    from PIL import Image

    assert np.array_equal(np.asarray(Image.open(png)), decode(path, times=[0.3]).frames[0])
    assert np.abs(decode(wav, video=False).sound - clip.sound).max() < 1e-4


@pytest.mark.parametrize(
    "make", [lambda p: None, lambda p: p.write_text("no media " * 99), lambda p: p.touch()]
)
def test_probe_of_no_media_is_a_sentence(make, tmp_path, capsys):
    make(tmp_path / "a.mp4")
    assert main(["probe", str(tmp_path / "a.mp4"), "--json"]) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and "a.mp4" in said.err and not said.out


def test_probe_tells_what_is_wrong(tmp_path, capsys):
    path = made(tmp_path, "containers", "libx264_libopus.mkv")
    path.write_bytes(path.read_bytes()[:-500])
    assert is_whole(path) is False and main(["probe", str(path)]) == 2
    assert "cut short" in capsys.readouterr().err


# real files

CASES = {
    "selfie_hflip.mp4": dict(pictures=50, width=360, height=288, orientation="mirrored"),
    "anamorphic.mp4": dict(pictures=75, width=360, height=288),
    "mono_then_stereo.ts": dict(pictures=75, audio_seconds=3.03),
    "sound_gap_small.mkv": dict(audio_seconds=2.996, gaps=1),
    "sound_gap.mkv": dict(audio_seconds=2.996, gaps=1),
    "surround_voice_in_centre.m4a": dict(audio_seconds=2.99, channels=6),
    "video_late.mp4": dict(pictures=75, first=1.0, last=3.96),
    "video_late.mkv": dict(pictures=75, first=1.023, last=3.983),
    "cut_copy.mp4": dict(pictures=42, first=0.0, last=1.64),
    "two_audio.mp4": dict(pictures=75, audio_seconds=2.995),
    "vfr_drop.avi": dict(pictures=53, last=3.0),
    "live_video_short.webm": dict(pictures=75, audio_seconds=4.0),
    "live_mute.webm": dict(pictures=75, audio_seconds=0.0),
    "turn_change.webm": dict(pictures=75, width=360, height=288),
    "trailer.mp4": dict(pictures=75, last=2.96),
    "rate_44099.wav": dict(rate=44099, audio_seconds=1.0),
}


@pytest.mark.parametrize("name", CASES)
def test_real_cases(name, shared_data):
    path = shared_data / "cases" / name
    if not path.is_file():
        pytest.skip(f"no {name} below {shared_data}")
    told = survey(path)
    told["gaps"] = len(told["gaps"])
    for k, v in CASES[name].items():
        assert told[k] == (pytest.approx(v, abs=0.006) if isinstance(v, float) else v), k
    assert frame_count(path) == told["pictures"]


def test_real_selfie_is_upright(shared_data):
    folder = shared_data / "cases"
    if not folder.is_dir():
        pytest.skip(f"no cases below {shared_data}")
    want = decode(folder / "base_reference.mp4", audio=False).frames[:50].astype(int)
    for name in ("selfie_hflip.mp4", "anamorphic.mp4"):
        seen = decode(folder / name, audio=False).frames[:50]
        assert np.abs(seen - want).mean() < 5, name
