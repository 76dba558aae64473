"""No file, damaged, lying or endless, ends the others or takes the machine's memory; what is
missing from one is said. `tests/faults/mutants.py` tries thousands, here are some."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from avkit.preprocessing.held import CLIP_FRAMES
from avkit.preprocessing.media import (decode, is_whole, MediaError, read_image,
    Soundtrack, stream)  # fmt: skip
from avkit.preprocessing.writing import write_wav

FAULTS = Path(__file__).parents[1] / "faults"
sys.path.insert(0, str(FAULTS))
import small_media


def test_some_of_the_mutants_and_lies(tmp_path):
    "Each in a process of its own, below 1.5 GB"
    out = tmp_path / "out.json"
    flags = [sys.executable, FAULTS / "mutants.py", "--mutants", "12", "--lies", "12", "--out", out]
    r = subprocess.run(flags, capture_output=True, text=True)
    assert out.exists(), r.stderr[-2000:]
    got = json.loads(out.read_text())
    assert [r["tried"] for r in got["rows"]] == [12, 12] and not got["did_not_hold"]


@pytest.mark.parametrize("kind", small_media.KINDS)
def test_whole_files_give_no_alarm(kind, tmp_path):
    path = small_media.write_kind(tmp_path, kind)
    if kind in small_media.PICTURES:
        assert read_image(path).shape == (80, 96, 3)
        return
    clip = decode(path, video=kind in small_media.FILMS)
    assert not clip.notes and is_whole(path) is not False
    assert len(clip.sound) / clip.rate >= small_media.SECONDS - 1e-3
    assert kind in small_media.SOUNDS or len(clip.frames) == small_media.FRAMES


@pytest.mark.parametrize("kind", ["mp3", "plain.mp3", "ogg", "opus", "live.webm", "live.mkv"])
def test_what_is_cut_within_a_frame_is_found(kind, tmp_path):
    "Anywhere: of 20 cuts none is taken for the whole"
    whole = small_media.bytes_of(kind)
    for k, n in enumerate(np.linspace(len(whole) * 0.3, len(whole) - 2, 20).astype(int)):
        path = tmp_path / f"{k}.{kind}"
        path.write_bytes(whole[:n])
        if kind != "mp3" and _at_an_edge(whole, n):
            continue  # what has no list of its frames may end so
        with pytest.raises(MediaError):
            decode(path, video=kind in small_media.FILMS)


def _at_an_edge(whole, n):
    "Does a frame, a page or a block begin there?"
    return whole[n : n + 1] == b"\xff" or whole[n : n + 4] == b"OggS" or whole[n] == 0xA3


def test_a_wav_that_contradicts_itself_is_refused(tmp_path):
    path = write_wav(tmp_path / "a.wav", np.zeros(8000), 8000)
    good = path.read_bytes()
    for at, new in ((22, b"\2"), (24, b"\x41"), (40, b"\0\x20")):  # channels, rate, size of data
        path.write_bytes(good[:at] + new + good[at + len(new) :])
        with pytest.raises(MediaError, match="truncated"):
            decode(path, video=False)


@pytest.mark.parametrize("rate", [1, 7, 2**31 - 1])
def test_impossible_rates_are_named(rate, tmp_path):
    path = write_wav(tmp_path / "a.wav", np.zeros(8000), 8000)
    data = bytearray(path.read_bytes())
    data[24:32] = rate.to_bytes(4, "little") + (2 * rate & 0xFFFFFFFF).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(MediaError, match=f"a.wav: too much.*{rate} samples a second"):
        decode(path, video=False)


def test_frames_that_are_too_many_at_once_are_refused_by_name(tmp_path, monkeypatch):
    path = small_media.write_kind(tmp_path, "mp4")
    assert CLIP_FRAMES > 15 * 3 * 3840 * 2160  # the usual fifteen of 4K
    monkeypatch.setattr("avkit.preprocessing.held.CLIP_FRAMES", 10 * 3 * 96 * 80)
    with pytest.raises(MediaError, match="whole.mp4: too much.*make a smaller copy"):
        decode(path)
    assert len(decode(path, times=[0.1, 0.5]).frames) == 2
    with pytest.raises(MediaError, match="too much"):
        decode(path, times=np.full(11, 0.5))
    assert sum(len(x[2]) for k, *x in stream(path, audio=False) if k == "video") == 30


def test_silence_and_a_window_are_not_held_whole(tmp_path, monkeypatch):
    "A window of sound is cut as it comes, as it would be cut from all of it"
    path = write_wav(tmp_path / "a.wav", np.sin(np.arange(160000) / 9) * 0.3, 8000)
    whole = decode(path, video=False).sound
    monkeypatch.setattr("avkit.preprocessing.media.HELD_SOUND", 9000)
    with pytest.raises(MediaError, match="a.wav: too much"):
        decode(path, video=False)
    got = decode(path, video=False, span=lambda s, n: (round(s * 4000) - 4000, round(s * 4000)))
    assert (got.first, got.samples) == (76000, 160000)
    assert np.array_equal(got.sound, whole[76000:80000])
    assert max(len(x) for x in Soundtrack(path, 8000)._add((np.zeros(9), 8000), 500.0)) <= 1 << 16


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with a name are of Unix")
def test_a_pipe_is_named_and_never_opened(tmp_path):
    for name in ("a.wav", "a.png"):
        os.mkfifo(tmp_path / name)
    for read, name in ((decode, "a.wav"), (read_image, "a.png")):
        with pytest.raises(MediaError, match=f"{name}: unreadable.*no file"):
            read(tmp_path / name)


def test_a_picture_that_is_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    import lies

    lies._png_bomb(tmp_path / "a.png", 9000)
    with pytest.raises(MediaError, match="a.png: too much.*9000 x 9000"):
        read_image(tmp_path / "a.png")
