"Another decoder gives the same pixels, is told apart in the store, and is refused where it is not."

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from avkit.core import AvkitError
from avkit.preprocessing import prepare as prepared
from avkit.preprocessing.decoders import DECODERS, check_decoder, decoding_on, missing_decoder
from avkit.preprocessing.media import MediaError, Screen, Shot, decode
from avkit.preprocessing.pieces import decode_piece
from avkit.preprocessing.prepare import Preparation, prepare, stream_key
from avkit.preprocessing.writing import write_video
from avkit.store import Store
from avkit.training.configure import configure

av = pytest.importorskip("av")
OTHERS = [d for d in DECODERS if d != "cpu"]
CODECS = dict(h264=("libx264", "yuv420p"), hevc=("libx265", "yuv420p"),
              full_range=("libx264", "yuvj420p"), hevc_10=("libx265", "yuv420p10le"),
              vp9=("libvpx-vp9", "yuv420p"), mpeg4=("mpeg4", "yuv420p"))  # fmt: skip
CARD_FORMAT = dict(yuv420p="nv12", yuvj420p="nv12", yuv420p10le="p010le")
EXACT_CODECS = [c for c in CODECS if c != "mpeg4"]


def _images(n=12, h=144, w=256):
    y, x = np.mgrid[:h, :w]
    noise = np.random.default_rng(0).integers(0, 64, (h, w))
    for i in range(n):
        moving = [(x + 5 * i) % 256, (y * 2 + noise) % 256, (x + y + 9 * i) % 256]
        yield np.stack(moving, -1).astype(np.uint8)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    "{codec: a video}"
    d, out = tmp_path_factory.mktemp("decoders"), {}
    for name, (codec, kind) in CODECS.items():
        out[name] = d / f"{name}.mkv"
        with av.open(str(out[name]), "w") as c:
            s = c.add_stream(codec, rate=25)
            s.width, s.height, s.pix_fmt = 256, 144, kind
            if codec == "libx265":
                s.options = {"x265-params": "log-level=none:pools=1:frame-threads=1"}
            for x in _images():
                c.mux(s.encode(av.VideoFrame.from_ndarray(x, "rgb24").reformat(format=kind)))
            c.mux(s.encode())
    return out


@pytest.mark.parametrize("codec", EXACT_CODECS)
@pytest.mark.parametrize("size", [None, (160, 90), (97, 61), (512, 288)])
def test_colours_beside_each_other_are_the_same_pixels(videos, codec, size):
    "A card's frames: the same values in another place"
    seen = 0
    with av.open(str(videos[codec])) as c:
        for f in c.decode(video=0):
            kind = CARD_FORMAT[f.format.name]
            how = dict(src_color_range=f.color_range, dst_color_range=f.color_range)
            card = f.reformat(format=kind, **how)
            card.color_range, card.colorspace = f.color_range, f.colorspace
            assert card.format.name == kind
            np.testing.assert_array_equal(Screen(size)(Shot(card)), Screen(size)(Shot(f)))
            seen += 1
    assert seen == 12


@pytest.mark.parametrize("decoder", OTHERS)
@pytest.mark.parametrize("codec", CODECS)
def test_the_same_frames(videos, decoder, codec):
    "As the processor decodes; what leaves its rounding open, by one step of 8 bits in the mean"
    if why := missing_decoder(decoder):
        pytest.skip(f"no {decoder} here: {why}")
    times = [0.0, 0.1, 0.3, 0.41]
    for read in (decode, lambda p, **k: decode_piece(p, 0.04, 0.44, **k)):
        here = read(videos[codec], audio=False, times=times)
        with decoding_on(decoder):
            there = read(videos[codec], audio=False, times=times)
        np.testing.assert_array_equal(there.times, here.times)
        if codec in EXACT_CODECS or any("decoded on the processor" in n for n in there.notes):
            np.testing.assert_array_equal(there.frames, here.frames)
        else:
            apart = np.abs(there.frames.astype(int) - here.frames)
            assert apart.mean() < 1
        assert codec != "h264" or there.notes == here.notes, "H.264 is what every card decodes"


def test_a_codec_that_no_card_takes_is_told(tmp_path):
    "FLV of old, as CREMA-D ships it"
    path = write_video(tmp_path / "a.flv", _images(), 25)
    here = decode(path, audio=False)
    with decoding_on("cuda"):
        there = decode(path, audio=False)
    told = "decoded on the processor: cuda does not take this flv"
    assert here.notes == () and there.notes == (told,)
    np.testing.assert_array_equal(there.frames, here.frames)
    with decoding_on("cuda"):
        assert decode_piece(path, 0.1, 0.3, audio=False).notes == (told,)


def test_what_the_processor_decoded_is_found_as_before():
    "The key of the usual decoder is what it always was; another one's is another, audio's the same"
    row = dict(clip="a", audio="a.mp4", video="a.mp4", audio_sha256="1", video_sha256="1")
    usual, other = Preparation(), Preparation(decoder="cuda")
    assert "decoder" not in usual.video and "decoder" not in other.audio
    assert stream_key(row, "audio", usual) == stream_key(row, "audio", other)
    assert stream_key(row, "video", usual) != stream_key(row, "video", other)


def test_where_it_runs_is_not_what_is_learned():
    "A setting like the device: another decoder is the same run, prepared elsewhere"
    usual, other = configure(), configure(decoder="cuda")
    assert usual.hash == other.hash
    assert usual.preparation == replace(other.preparation, decoder="cpu")
    assert other.preparation.decoder == "cuda"
    with pytest.raises(AvkitError, match="decoder 'gpu'"):
        configure(decoder="gpu")


def test_without_a_card_it_says_what_to_do(tmp_path, monkeypatch):
    "Before the first clip, once"
    monkeypatch.setattr("avkit.preprocessing.decoders.missing_decoder", lambda d: "no such device")
    row = dict(clip="a", audio="", video="a.mp4", audio_sha256="", video_sha256="1")
    m = SimpleNamespace(root=tmp_path, corpus="mine", clips=pd.DataFrame([row]), notes={})
    monkeypatch.setattr(prepared, "parallel", lambda *a, **k: pytest.fail("it began"))
    with pytest.raises(AvkitError, match=r"no such device.*decoder=cpu.*nvidia-smi"):
        prepare(m, Preparation(decoder="cuda"), Store(tmp_path / "s"), ["video"], 1)


def test_a_machine_is_asked(videos):
    "What FFmpeg answers decides: a card, or an error that nobody made up"
    assert missing_decoder("cpu") == ""
    why = missing_decoder("cuda")
    if why:
        with pytest.raises(AvkitError) as e:
            check_decoder("cuda")
        assert why in str(e.value)
        with pytest.raises(MediaError), decoding_on("cuda"):
            decode(videos["h264"], audio=False)
    else:
        with decoding_on("cuda"):
            assert not decode(videos["h264"], audio=False).notes
