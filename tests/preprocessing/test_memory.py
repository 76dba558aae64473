"What waits in a file instead of memory is what memory would hold; what is too much is refused."

import errno
import gc
import subprocess
import sys
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

FAULTS = Path(__file__).parents[1] / "faults"
sys.path.insert(0, str(FAULTS))
import lies
import small_media

from avkit.core import AvkitError, WriteError
from avkit.preprocessing import faces, held, media
from avkit.preprocessing.media import decode, MediaError, orientation, read_tensor, stream
from avkit.preprocessing.pieces import decode_piece
from avkit.preprocessing.prepare import prepare_clip, Preparation
from avkit.store import Store


@pytest.fixture
def film(tmp_path):
    return small_media.write_kind(tmp_path, "mp4")


def rows(folder, **row):
    given = dict(clip="a", video="", audio="", video_sha256="x", audio_sha256="x")
    return folder, given | row


def prepared(folder, row, store, prep):
    "(line, {file: {tensor: values}}) of a clip's video"
    line = prepare_clip(folder, row, prep, Store(store), ("video",))
    found = list(Path(store).rglob("*.safetensors"))
    tensors = {p.name: load_file(p) for p in found}
    return line, {p: {k: v.tolist() for k, v in x.items()} for p, x in tensors.items()}


HOW = [
    Preparation(window=None, frames=0, size=32, detector="none"),
    Preparation(window=1.0, frames=4, size=32, views=("face", "frame")),
    Preparation(window=None, frames=0, size=32, detector="none", square=False),
    Preparation(long=True, size=32, views=("frame",)),
]


@pytest.mark.parametrize("prep", HOW, ids=range(len(HOW)))
@pytest.mark.parametrize("piece", [{}, dict(start=0.2, end=1.0)], ids=["whole", "piece"])
def test_frames_in_a_file_give_the_same_store(film, tmp_path, monkeypatch, prep, piece):
    if prep.long and piece:
        pytest.skip("a track is of a whole film")
    folder, row = rows(tmp_path, video=film.name, **piece)
    in_memory = prepared(folder, row, tmp_path / "a", prep)
    files = []
    new = held._new_file
    monkeypatch.setattr(held, "_new_file", lambda *x: files.append(x) or new(*x))
    monkeypatch.setattr(held, "HELD_CLIP", 0)
    monkeypatch.setattr(held, "_QUEUED", 0)
    assert prepared(folder, row, tmp_path / "b", prep) == in_memory
    assert bool(files) == (not prep.long)  # whole frames need no shots


def test_a_track_of_faces_whose_frames_wait_in_a_file(film, tmp_path, monkeypatch):
    monkeypatch.setitem(faces.DETECTORS, "mtcnn", faces.Whole)
    faces.detector.cache_clear()
    prep = Preparation(long=True, size=32, every=2)
    folder, row = rows(tmp_path, video=film.name)
    in_memory = prepared(folder, row, tmp_path / "a", prep)
    monkeypatch.setattr(held, "_QUEUED", 0)
    assert prepared(folder, row, tmp_path / "b", prep) == in_memory and len(in_memory[1]) > 1
    faces.detector.cache_clear()


def test_a_folder_of_pictures_waits_in_a_file(tmp_path, monkeypatch):
    from PIL import Image

    (tmp_path / "p").mkdir()
    for k in range(5):
        Image.fromarray(small_media.picture(k)).save(tmp_path / f"p/{k}.png")
    folder, row = rows(tmp_path, video="p")
    prep = Preparation(window=None, frames=4, size=32, detector="none")
    in_memory = prepared(folder, row, tmp_path / "a", prep)
    monkeypatch.setattr(held, "HELD_CLIP", 0)
    assert prepared(folder, row, tmp_path / "b", prep) == in_memory


@pytest.mark.parametrize("times", [None, [0.9, 0.1, 0.1, 5.0], []])
def test_frames_of_a_file_are_those_of_an_array(film, tmp_path, monkeypatch, times):
    whole, piece = decode(film, times=times).frames, decode_piece(film, 0.2, 0.8, times=times)
    monkeypatch.setattr(held, "HELD_CLIP", 0)
    aside = decode(film, times=times, aside=tmp_path / "new").frames
    assert aside.shape == whole.shape and np.array_equal(np.asarray(aside), whole)
    again = decode_piece(film, 0.2, 0.8, times=times, aside=tmp_path).frames
    assert np.array_equal(np.asarray(again), piece.frames)


def test_a_full_disk_is_no_fault_of_the_clip(film, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(held, "HELD_CLIP", 0)
    monkeypatch.setattr(held.FrameFile, "put", full)
    prep = Preparation(window=None, frames=0, size=32, detector="none")
    folder, row = rows(tmp_path, video=film.name)
    with pytest.raises(WriteError, match="Disk full"):
        prepare_clip(folder, row, prep, Store(tmp_path / "s"), ("video",))


def test_more_images_than_memory_holds_are_refused(film, tmp_path, monkeypatch):
    monkeypatch.setattr("avkit.preprocessing.prepare.MOST_IMAGES", 29 * 3 * 32**2)
    folder, row = rows(tmp_path, video=film.name)
    prep = Preparation(window=None, frames=0, size=32, detector="none")
    line, kept = prepared(folder, row, tmp_path / "s", prep)
    assert line["status"] == "failed" and not kept
    assert "30 images, and up to 29" in line["reason"]


def test_a_detector_sees_frames_in_blocks(monkeypatch):
    seen = []

    class Counts(faces.Whole):
        def detect(self, frames):
            seen.append(len(frames))
            return super().detect(frames)

    found = faces.detect_all(Counts(), np.zeros((400, 8, 8, 3), np.uint8))
    assert seen == [160, 160, 80] and len(found) == 400


def test_a_frame_is_let_go_at_once(film):
    "Its own `side_data` would hold it until Python looks for circles"
    with media.open_container(film)[0] as c:
        frame = next(c.decode(c.streams.video[0]))
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        assert orientation(frame) == (False, False, False)
        del frame
        gc.collect()
        left = [type(x).__name__ for x in gc.garbage]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
    assert "VideoFrame" not in left


def write_film(path, size, aspect="1/1"):
    source = ["-f", "lavfi", "-i", f"testsrc=size={size[0]}x{size[1]}:rate=25:duration=0.2"]
    how = ["-vf", f"setsar={aspect}:max=99999", "-pix_fmt", "yuv420p", "-preset", "ultrafast"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *source, *how, str(path)]
    subprocess.run(command, check=True)
    return path


def test_a_decoder_that_holds_too_much_is_refused(tmp_path, monkeypatch):
    path = write_film(tmp_path / "large.mp4", (4800, 2304))
    assert len(decode(path, times=[0.0], audio=False).frames) == 1
    monkeypatch.setattr(media, "HELD_DECODER", -(10**9))
    with pytest.raises(MediaError, match="large.mp4: too much.*MiB of memory"):
        decode(path, times=[0.0], audio=False)


def test_a_shape_of_pixels_that_makes_frames_endless_is_refused(tmp_path):
    path = write_film(tmp_path / "wide.mp4", (3000, 1500), "12/1")
    for read in (decode, decode_piece):
        with pytest.raises(MediaError, match="wide.mp4: too much.*pixels"):
            read(path, **({} if read is decode else dict(start=0.0)), audio=False)


def test_a_tensor_that_says_more_than_it_holds(tmp_path, monkeypatch):
    torch.save(torch.zeros(1).expand(9, 3, 8, 8), tmp_path / "a.pt")
    with pytest.raises(AvkitError, match="a.pt: its head says.*fewer values"):
        read_tensor(tmp_path / "a.pt")
    torch.save(torch.zeros(9, 3, 8, 8), tmp_path / "b.pt")
    assert read_tensor(tmp_path / "b.pt").shape == (9, 3, 8, 8)
    monkeypatch.setattr(media, "HELD_FRAMES", 9 * 3 * 8 * 8 * 4)
    with pytest.raises(AvkitError, match="b.pt.*keep fewer frames"):
        read_tensor(tmp_path / "b.pt")


def test_what_overlaps_in_sound_alone_is_told(tmp_path):
    "An Ogg whose page says an earlier time: its first second would lie before the beginning"
    path = tmp_path / "a.ogg"
    path.write_bytes({n: d for n, _, d in lies._ogg("ogg")}["granule2=0.ogg"])
    told = [x[2] for kind, *x in stream(path, video=False) if kind == "times"]
    assert told == [decode(path, video=False).notes] and "overlap" in told[0][0]
