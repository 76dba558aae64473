"""Files whose container contradicts itself: FFmpeg drops pictures of them without a word."""

import io
import struct
import subprocess
import sys
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from avkit.core import AvkitError
from avkit.preprocessing.media import read_image
from avkit.preprocessing.whole import MediaError, is_whole

sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))
import lies
import mutants
import small_media


def said(path, data):
    path.write_bytes(data)
    try:
        return is_whole(path)
    except MediaError as e:
        return e.detail


@pytest.mark.parametrize(
    "box,at,number", [("mdhd", 12, 2**32 - 1), ("mdhd", 12, 0), ("stts", 12, 2**31)]
)
@pytest.mark.parametrize("kind", ["mp4", "mov", "m4a"])
def test_a_track_is_as_long_in_each_way_of_saying_it(tmp_path, kind, box, at, number):
    data = bytearray(small_media.bytes_of(kind))
    assert said(tmp_path / f"x.{kind}", data) is True
    struct.pack_into(">I", data, data.index(box.encode()) + 4 + at, number)
    assert "a track of it has" in said(tmp_path / f"x.{kind}", data)


def test_a_late_track_is_no_contradiction(tmp_path):
    lies._far("mp4", 5000)(tmp_path / "x.mp4")
    data = bytearray((tmp_path / "x.mp4").read_bytes())
    assert b"elst" in data and is_whole(tmp_path / "x.mp4") is True


def test_boxes_within_boxes_have_an_end(tmp_path):
    data, n = b"", 8
    for _ in range(5000):
        data, n = struct.pack(">I4s", n, b"trak") + data, n + 8
    whole = small_media.bytes_of("mp4")
    data = whole + struct.pack(">I4s", n, b"moov") + data
    assert said(tmp_path / "deep.mp4", data) in (True, False)


def test_wmv_packets_that_are_damaged_or_moved(tmp_path):
    whole = small_media.bytes_of("wmv")
    at = whole.index(bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")) + 50
    assert said(tmp_path / "x.wmv", whole) is True
    for i in range(8):
        packet = at + 3200 * i
        zeroed = whole[:packet] + bytes(3200) + whole[packet + 3200 :]
        moved = whole[:packet] + bytes(100) + whole[packet:]
        assert said(tmp_path / "x.wmv", zeroed) is False
        assert said(tmp_path / "x.wmv", moved) is False
    found = {n: d for n, k, d in mutants.mutants(132) if k == "wmv"}
    assert said(tmp_path / "x.wmv", found["m131_zeroed.wmv"]) is False


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("size", [(1, 1), (5, 3), (33, 17)])
def test_a_png_has_the_pixels_it_says(tmp_path, mode, size):
    f = io.BytesIO()
    Image.new(mode, size).save(f, "PNG")
    assert said(tmp_path / "x.png", f.getvalue()) is True
    assert said(tmp_path / "x.png", f.getvalue()[:-12]) is False  # without its end


@pytest.mark.parametrize("pixels", ["rgb24", "rgba", "gray", "monob", "pal8", "rgb48be"])
@pytest.mark.parametrize("size", ["1:1", "5:3", "33:17"])
def test_an_interlaced_png_too(tmp_path, pixels, size):
    path = tmp_path / "x.png"
    source = ["-f", "lavfi", "-i", "testsrc=size=64x64", "-frames:v", "1", "-vf", f"scale={size}"]
    more = ["-pix_fmt", pixels, "-flags", "+ildct", str(path)]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *source, *more]
    subprocess.run(command, check=True)
    data = path.read_bytes()
    assert data[28] == 1 and is_whole(path) is True  # Adam7


def test_a_png_of_a_false_size(tmp_path):
    false = [(n, d) for n, k, d in lies.lies(100) if k == "png" and n.startswith("size")]
    assert false
    for name, data in false:  # those that are too large are refused by their size
        large = int.from_bytes(data[16:20]) * int.from_bytes(data[20:24]) > 1 << 27
        found = said(tmp_path / name, data)
        assert found is None if large else "another size" in found, name
        with pytest.raises(AvkitError):
            read_image(tmp_path / name)


def test_a_png_that_lacks_its_end(tmp_path):
    (tmp_path / "x.png").write_bytes(small_media.bytes_of("png")[:-12])
    with pytest.raises(MediaError, match="cut short"):
        read_image(tmp_path / "x.png")


@pytest.mark.parametrize("kind", ["live.webm", "live.mkv"])
def test_room_in_a_recording_that_was_not_filled(tmp_path, kind):
    whole = small_media.bytes_of(kind)
    assert said(tmp_path / f"x.{kind}", whole + b"foreign bytes") is None
    for end in (20, 200):
        begin = whole.rindex(b"\x1f\x43\xb6\x75")  # the last cluster
        holed = whole[:begin] + bytes(len(whole) - end - begin) + whole[-end:]
        assert said(tmp_path / f"x.{kind}", holed) is False


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("size", [(1, 1), (5, 3), (33, 17)])
def test_a_bmp_has_the_rows_it_says(tmp_path, mode, size):
    f = io.BytesIO()
    Image.new(mode, size).save(f, "BMP")
    assert said(tmp_path / "x.bmp", f.getvalue()) is True
    assert said(tmp_path / "x.bmp", f.getvalue()[:-1]) is False


def test_wmv_payloads_follow_one_another(tmp_path):
    "Two pieces within a packet change places: FFmpeg drops what they were of"
    whole = small_media.bytes_of("wmv")
    assert said(tmp_path / "x.wmv", whole) is True
    found = {n: d for n, k, d in mutants.mutants(804) if n == "m803_swapped.wmv"}
    assert said(tmp_path / "x.wmv", found["m803_swapped.wmv"]) is False


def jpegs():
    "(name, bytes, head's place) of whole JPEGs of every kind"
    rng = np.random.default_rng(0)
    for k in range(60):
        w, h = rng.integers(1, 150, 2).tolist()
        noise = rng.integers(0, 255, (h, w, 3), np.uint8) if k % 3 else np.full((h, w, 3), 90, "u1")
        how = dict(quality=int(rng.integers(5, 99)), subsampling=k % 3, progressive=k % 4 == 1)
        how |= dict(restart_marker_rows=1 + k % 3) if k % 5 == 0 else {}
        f = io.BytesIO()
        Image.fromarray(noise).convert(("RGB", "L", "CMYK")[k // 2 % 3]).save(f, "JPEG", **how)
        yield f"{k}.jpg", f.getvalue(), (w, h)


def test_whole_jpegs_give_no_alarm_and_false_heights_do(tmp_path):
    taller, shorter = [], []
    for name, data, (w, h) in jpegs():
        assert said(tmp_path / name, data) is None, name
        at = next(i for i in range(len(data)) if data[i : i + 2] in (b"\xff\xc0", b"\xff\xc2"))
        parts = data[: at + 5], data[at + 7 :]
        if data[at + 9] == 4:  # of CMYK FFmpeg does not know every kind
            continue
        taller.append(said(tmp_path / name, (h + 32).to_bytes(2, "big").join(parts)) is False)
        if w >= 64 and h > 48:
            found = said(tmp_path / name, (h - 40).to_bytes(2, "big").join(parts))
            shorter.append("another size" in str(found))
    assert len(taller) >= 40 and sum(taller) >= len(taller) - 2  # a row of a few grey pixels hides
    assert len(shorter) >= 12 and all(shorter)


def test_a_jpeg_or_bmp_of_a_false_size_is_no_picture(tmp_path):
    for name in (
        "size_96x81.jpg",
        "size_96x40.jpg",
        "size_96x40.bmp",
        "size_1x1.bmp",
        "size_1x1.jpg",
    ):
        (tmp_path / name).write_bytes({n: d for n, _, d in lies._pictures()}[name])
        with pytest.raises(MediaError, match="truncated"):
            read_image(tmp_path / name)
