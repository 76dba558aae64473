"""A piece of a film, read by seeking, is what the film gives that is decoded from its beginning and
cut by its time stamps; whole clips keep their keys; audio in a file of its own has its own time."""

from dataclasses import replace

import numpy as np
import pytest
from media_files import run

from avkit.core import AvkitError
from avkit.datasets.manifest import make_manifest
from avkit.preprocessing import pieces
from avkit.preprocessing.media import MediaError, decode, probe
from avkit.preprocessing.pieces import decode_piece
from avkit.preprocessing.prepare import Preparation, prepare, stream_key
from avkit.preprocessing.writing import write_video, write_wav
from avkit.store import Store

SECONDS = 6
H264 = "-c:v libx264 -preset veryfast -bf 3 -g 30"
AAC = "-c:a aac -aac_pns 0"  # no noise, which each decoding would draw anew
FILMS = {
    "b_frames.mp4": f"{H264} {AAC}",
    "open_gop.mp4": f"{H264} -x264-params open-gop=1:keyint=30:bframes=3 {AAC}",
    "open_gop.mkv": f"{H264} -x264-params open-gop=1:keyint=30:bframes=3 -c:a flac",
    "one_gop.mp4": f"-c:v libx264 -preset veryfast -g 900 {AAC}",
    "refresh.mp4": f"{H264} -x264-params intra-refresh=1:keyint=30 {AAC}",
    "fragments.mp4": f"{H264} {AAC} -movflags +frag_keyframe+empty_moov",
    "hevc.mp4": "-c:v libx265 -preset ultrafast -x265-params log-level=0:keyint=30 -c:a alac",
    "milliseconds.mkv": f"{H264} {AAC}",
    "opus.webm": "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 30 -c:a libopus",
    "vorbis.webm": "-c:v libvpx -deadline realtime -cpu-used 8 -g 30 -c:a libvorbis",
    "live.webm": "-c:v libvpx -deadline realtime -cpu-used 8 -g 30 -c:a libopus -live 1",
    "mp3.mkv": "-c:v mpeg4 -g 30 -c:a libmp3lame",
    "begins_at_7.mkv": f"{H264} {AAC} -output_ts_offset 7",
    "begins_at_7.ts": f"{H264} {AAC} -output_ts_offset 7",
    "reorders.avi": "-c:v mpeg4 -bf 2 -g 30 -c:a pcm_s16le",
    "plain.avi": "-c:v mpeg4 -g 30 -c:a libmp3lame",
    "h264.flv": f"{H264} {AAC}",
    "pcm.mov": "-c:v mjpeg -c:a pcm_s16le",
    "wmv2.wmv": "-c:v wmv2 -g 30 -c:a wmav2",
    "theora.ogv": "-c:v libtheora -g 30 -c:a libvorbis",
    "sound.mp3": "-vn -c:a libmp3lame",
    "sound.wav": "-vn",
    "sound.aac": f"-vn {AAC}",
    "sound.ogg": "-vn -c:a libvorbis",
}
VIDEO = f"-f lavfi -i testsrc2=s=64x48:r=25:d={SECONDS}"
AUDIO = (
    f"-f lavfi -i aevalsrc=0.3*sin(400*PI*t*(1+t/30))+0.1*random(0)|0.3*sin(580*PI*t)"
    f":s=44100:d={SECONDS}:c=stereo"
)


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    "A folder with all of `FILMS`, and some more made of them"
    d = tmp_path_factory.mktemp("films")
    outs = [x for name, how in FILMS.items() for x in (how, "-threads 1", d / name)]
    run("-v error", VIDEO, AUDIO, *outs)
    run("-v error", f"-itsoffset 1.3 {VIDEO}", AUDIO, H264, AAC, d / "late_video.mp4")
    run("-v error", VIDEO, f"-itsoffset 0.777 {AUDIO}", H264, AAC, d / "late_audio.mkv")
    for suffix in ("mp4", "mov"):
        run("-v error -ss 1.3 -i", d / "b_frames.mp4", "-c copy -t 4", d / f"edit_list.{suffix}")
    some = r"-vf select='not(eq(mod(n\,5)\,2)+eq(mod(n\,7)\,3))' -fps_mode vfr"
    run("-v error", VIDEO, AUDIO, some, H264, AAC, d / "variable.mp4")
    drop = r"-c:a flac -strict -2 -bsf:a noise=amount=0:drop='between(pts*tb\,2.3\,3.5)'"
    run("-v error", VIDEO, AUDIO, H264, drop, d / "gap.mp4")
    return d


MADE = "late_video.mp4 late_audio.mkv edit_list.mp4 edit_list.mov variable.mp4 gap.mp4".split()


@pytest.mark.parametrize("name", [*FILMS, *MADE])
def test_a_piece_is_what_decoding_all_and_cutting_gives(films, name):
    path = films / name
    seen = probe(path).video is not None
    film = decode(path, seen)
    sounds = {r: decode(path, False, rate=r) for r in (16000, 22050)} | {None: film}
    end = film.duration
    rng = np.random.default_rng(sum(name.encode()))
    spans = [(s, min(s + rng.uniform(0.1, 3), end)) for s in rng.uniform(0, end - 0.3, 6)]
    for k, (start, stop) in enumerate([*spans, (end - 0.5, end), (2.5, 4.1)]):
        rate = (None, 16000, 22050)[k % 3]
        times = np.linspace(0, stop - start, 5) if k % 2 else None
        got = decode_piece(path, start, stop, seen, times=times, rate=rate)
        x = sounds[rate]
        wanted = x.sound[round(start * x.rate) : round(stop * x.rate)]
        np.testing.assert_array_equal(got.sound, wanted, err_msg=f"{name} {start} {rate}")
        if not seen:
            continue
        here = (film.times >= start - 1e-6) & (film.times < stop - 1e-6)
        frames, at = film.frames[here], film.times[here]
        if k % 2:
            last = stop - start - 2e-3  # then the last frame of the piece stands still
            shown = decode(path, audio=False, times=start + np.minimum(times, last))
            frames, at = shown.frames, shown.times
        np.testing.assert_array_equal(got.frames, frames, err_msg=f"{name} {start}")
        np.testing.assert_allclose(got.times + start, at, atol=1e-9)


@pytest.mark.parametrize("name", ["b_frames.mp4", "open_gop.mkv", "h264.flv", "begins_at_7.ts"])
def test_what_comes_before_is_not_decoded(films, name, monkeypatch):
    decoded = []
    take = pieces._Walk._decoded

    def count(self, kind, p):
        decoded.append(kind)
        return take(self, kind, p)

    decode_piece(films / name, 4.5, 5.0)  # asks once where the audio begins
    monkeypatch.setattr(pieces._Walk, "_decoded", count)
    decode_piece(films / name, 4.5, 5.0)
    assert 10 < decoded.count("video") < 90  # of 150; a group of pictures has 30


@pytest.mark.parametrize("span", [(5.0, 9.0), (20.0, None), (20.0, 21.0), (-1.0, 2.0), (3.0, 3.0)])
def test_a_piece_outside_its_film_is_refused(films, span):
    with pytest.raises(MediaError) as e:
        decode_piece(films / "b_frames.mp4", *span)
    assert e.value.reason == "outside"


def test_a_film_that_is_cut_short_is_refused(films, tmp_path):
    for name in ("b_frames.mp4", "milliseconds.mkv", "h264.flv"):
        part = tmp_path / name
        data = (films / name).read_bytes()
        part.write_bytes(data[: len(data) * 2 // 3])
        with pytest.raises(MediaError) as e:
            decode_piece(part, 2.5, 3.0)
        assert e.value.reason == "truncated"


def rows(**more):
    return [dict(clip="a", label="x", speaker="", audio="f.mp4", video="f.mp4") | more]


@pytest.fixture
def film(tmp_path):
    "A film whose brightness and pitch rise with its time"
    grey = np.arange(200, dtype=np.uint8)[:, None, None, None]
    frames = np.broadcast_to(grey, (200, 48, 64, 3)).copy()
    at = np.arange(8 * 16000) / 16000
    write_video(tmp_path / "f.mp4", frames, 25, 0.5 * np.sin(600 * np.pi * at * at), 16000)
    write_wav(tmp_path / "f.wav", 0.5 * np.sin(600 * np.pi * at * at).astype(np.float32), 16000)
    return tmp_path


PREP = Preparation(window=1.0, rate=16000, frames=4, size=16, views=("frame",), detector="none")


def made(root, row, prep=PREP):
    "What the store holds of a row: frames, sound"
    m = make_manifest("folder", root, [row], ["x"])
    store = Store(root / "store")
    told = prepare(m, prep, store, n_jobs=1)
    if len(told.failures):
        raise AvkitError(told.failures.reason.iloc[0])
    r = m.clips.to_dict("records")[0]
    keys = {s: stream_key(r, s, prep) for s in ("video", "audio")}
    got = {s: store.get(k)[0] for s, k in keys.items() if k}
    return [got[s][n].numpy() for s, n in (("video", "frame"), ("audio", "sound")) if s in got]


def test_preparation_takes_the_window_from_the_middle_of_the_piece(film):
    frames, sound = made(film, rows(start=4.0, end=7.0)[0])
    at = 5.0 + (np.arange(4) + 0.5) / 4  # the window is 5 to 6 s
    wanted = decode(film / "f.mp4", times=at, rate=16000)
    assert np.abs(frames.mean((1, 2, 3)) - wanted.frames.mean((1, 2, 3))).max() < 1
    assert np.abs(sound - wanted.sound[5 * 16000 : 6 * 16000]).max() < 1e-3


def test_a_piece_shorter_than_its_window_shows_nothing_of_what_follows(film):
    frames, sound = made(film, rows(start=4.0, end=4.5)[0])
    wanted = decode(film / "f.mp4", times=[4.125, 4.375, 4.48, 4.48], rate=16000)
    assert np.abs(frames.mean((1, 2, 3)) - wanted.frames.mean((1, 2, 3))).max() < 1
    assert np.abs(sound[:8000] - wanted.sound[64000:72000]).max() < 1e-3 and not sound[8000:].any()


@pytest.mark.parametrize("piece", [{}, dict(start=3.0, end=6.0)])
@pytest.mark.parametrize("offset", [0.48, -0.48, 0.0])
def test_audio_in_a_file_of_its_own_has_a_time_of_its_own(film, piece, offset):
    x = decode(film / "f.wav", video=False).sound
    late = x[round(0.48 * 16000) :] if offset < 0 else np.pad(x, (round(offset * 16000), 0))
    write_wav(film / "mic.wav", late, 16000)
    row = rows(audio="mic.wav", offset=offset, **piece)[0]
    _, sound = made(film, row)
    middle = (piece.get("start", 0.0) + piece.get("end", 8.0)) / 2
    first = round((middle - 0.5) * 16000)
    assert np.abs(sound - x[first : first + 16000]).max() < 1e-4


def test_sound_beyond_its_file_is_silence_and_none_at_all_an_error(film):
    whole = replace(PREP, window=None)
    _, sound = made(film, rows(audio="f.wav", offset=-2.0, start=1.0, end=4.0)[0], whole)
    assert len(sound) == 3 * 16000 and not sound[:16000].any() and sound[16000:].any()
    _, sound = made(film, rows(audio="f.wav", offset=5.0, start=1.0, end=4.0)[0], whole)
    assert len(sound) == 3 * 16000 and sound[: 2 * 16000].any() and not sound[2 * 16000 :].any()
    with pytest.raises(AvkitError, match="is the offset right"):
        made(film, rows(audio="f.wav", offset=50.0)[0])


def test_whole_clips_keep_their_keys_and_pieces_have_their_own():
    row = rows(audio_sha256="51f0", video_sha256="51f0")[0]
    keys = {s: stream_key(row, s, Preparation()) for s in ("audio", "video")}
    assert keys["audio"].startswith("d8993f7cad9c") and keys["video"].startswith("5c42cdb1c827")
    empty = row | dict(start=float("nan"), end="", offset=None, recording="film")
    assert keys == {s: stream_key(empty, s, Preparation()) for s in keys}
    others = [dict(start=0.5), dict(end=2.0), dict(start=0.0, end=2.0), dict(start=1.0, end=2.0)]
    for s in keys:
        assert len({stream_key(row | o, s, Preparation()) for o in [{}, *others]}) == 4
    two = row | dict(audio="f.wav")
    late = two | dict(offset=0.5)
    assert stream_key(two, "video", Preparation()) == stream_key(late, "video", Preparation())
    assert stream_key(two, "audio", Preparation()) != stream_key(late, "audio", Preparation())
    same = row | dict(offset=0.5)  # of one file: says nothing
    assert stream_key(same, "audio", Preparation()) == keys["audio"]


@pytest.mark.parametrize("name", ["f.pt", "images"])
def test_pieces_of_what_is_no_film_are_refused(film, name):
    (film / "images").mkdir()
    (film / "f.pt").write_bytes(b"")
    with pytest.raises(AvkitError, match="are for films"):
        made(film, rows(video=name, start=1.0)[0])


def test_a_track_has_an_offset_and_no_pieces(film):
    from avkit.preprocessing.tracks import Track

    prep = Preparation(long=True, rate=16000, size=16, views=("frame",), detector="none")
    with pytest.raises(AvkitError, match="short clips"):
        made(film, rows(start=1.0)[0], prep)
    x = decode(film / "f.wav", video=False).sound
    for offset in (0.48, -0.48):
        m = make_manifest("folder", film, rows(audio="f.wav", offset=offset), ["x"])
        store = Store(film / "store")
        assert not len(prepare(m, prep, store, n_jobs=1).failures)
        track = Track(store, stream_key(m.clips.to_dict("records")[0], "audio", prep))
        first = round(offset * 16000)
        got = track.sound(16000, 16000)
        np.testing.assert_array_equal(got, x[16000 + first : 32000 + first])
