"""Whole media files of every container that avkit reads, a few kB each."""

from fractions import Fraction
from pathlib import Path

import avkit  # noqa: F401 before NumPy: it chooses their kernels
import av
import numpy as np
from PIL import Image

RATE, FPS, FRAMES, SIZE = 24000, 25, 30, (96, 80)
SECONDS = FRAMES / FPS

# name: container, codecs of video and audio, options of the container
FILMS = {
    "mp4": ("mp4", "libx264", "aac", {}),
    "fragments.mp4": ("mp4", "libx264", "aac", dict(movflags="frag_keyframe+empty_moov")),
    "mov": ("mov", "mpeg4", "pcm_s16le", {}),
    "mkv": ("matroska", "libx264", "aac", {}),
    "live.mkv": ("matroska", "mpeg4", "pcm_s16le", dict(live="1")),
    "webm": ("webm", "libvpx", "libopus", {}),
    "live.webm": ("webm", "libvpx", "libopus", dict(live="1")),
    "avi": ("avi", "mpeg4", "pcm_s16le", {}),
    "flv": ("flv", "flv", "aac", {}),
    "mpg": ("mpeg", "mpeg1video", "mp2", {}),
    "ts": ("mpegts", "libx264", "aac", {}),
    "wmv": ("asf", "wmv2", "wmav2", {}),
}
SOUNDS = {
    "wav": ("wav", "pcm_s16le", {}),
    "mp3": ("mp3", "libmp3lame", {}),
    "plain.mp3": ("mp3", "libmp3lame", dict(write_xing="0", id3v2_version="0")),
    "flac": ("flac", "flac", {}),
    "ogg": ("ogg", "vorbis", {}),
    "opus": ("ogg", "libopus", {}),
    "m4a": ("ipod", "aac", {}),
    "aiff": ("aiff", "pcm_s16be", {}),
}
PICTURES = dict(jpg="JPEG", png="PNG", webp="WEBP", bmp="BMP")
KINDS = (*FILMS, *SOUNDS, *PICTURES)


def tone(seconds=SECONDS, rate=RATE):
    "A voice-like sound (N,) in [-1,1]: it rises, and is never silent"
    t = np.arange(round(seconds * rate)) / rate
    return 0.3 * np.sin(2 * np.pi * (200 + 60 * t) * t) + 0.1 * np.sin(2 * np.pi * 910 * t)


def picture(k, size=SIZE):
    "Frame k (H,W,3): a bright square that moves over a slope"
    w, h = size
    y, x = np.mgrid[:h, :w]
    out = np.stack([x * 255 // w, y * 255 // h, (x + y + 4 * k) % 256], 2).astype(np.uint8)
    out[20:50, (2 * k) % (w - 30) :][:, :30] = 230
    return out


def _audio(c, codec, rate):
    layout = "stereo" if codec == "vorbis" else "mono"  # FFmpeg's own encoder knows no other
    s = c.add_stream(codec, rate=48000 if codec == "libopus" else rate, layout=layout)
    if codec == "vorbis":
        s.codec_context.options = dict(strict="-2")
    if codec == "wmav2":
        s.bit_rate = 64000
    return s


def _sound_packets(s, sound, rate, block=1 << 14):
    "The packets of a sound, given as an array or as pieces of one"
    pieces = [sound] if isinstance(sound, np.ndarray) else sound
    known = s.codec_context.format.name if s.codec_context.format else "s16"
    r, at = av.AudioResampler(known, s.codec_context.layout, s.codec_context.sample_rate), 0
    fifo = av.AudioFifo()
    size = s.codec_context.frame_size or 4096
    for x in pieces:
        for i in range(0, len(x), block):
            part = np.ascontiguousarray(x[i : i + block], np.float32)
            f = av.AudioFrame.from_ndarray(part[None], "flt", "mono")
            f.sample_rate, f.pts, f.time_base = rate, at, Fraction(1, rate)
            at += len(part)
            for y in r.resample(f):
                fifo.write(y)
            for y in fifo.read_many(size):
                yield from s.encode(y)
    for y in r.resample(None):
        fifo.write(y)
    while (y := fifo.read(size, partial=True)) is not None:
        yield from s.encode(y)
    yield from s.encode(None)


def write_film(path, kind, frames=None, sound=None, rate=RATE, fps=FPS):
    "A film at `path`; by default the usual frames and sound"
    name, vcodec, acodec, options = FILMS[kind]
    sound = tone(rate=rate) if sound is None else sound
    frames = (picture(k) for k in range(FRAMES)) if frames is None else frames
    with av.open(str(path), "w", format=name, options=options) as c:
        first = next(frames := iter(frames))
        v, a = c.add_stream(vcodec, rate=fps), _audio(c, acodec, rate)
        v.width, v.height, v.pix_fmt = first.shape[1], first.shape[0], "yuv420p"
        v.codec_context.options = dict(preset="ultrafast") if vcodec == "libx264" else {}
        v.codec_context.gop_size, v.bit_rate = 12, 400_000
        packets = []
        for k, x in enumerate((first, *frames)):
            f = av.VideoFrame.from_ndarray(x, "rgb24").reformat(format="yuv420p")
            f.pts, f.time_base = k, Fraction(1, fps)
            packets += v.encode(f)
        packets += [*v.encode(None), *_sound_packets(a, sound, rate)]
        when = lambda p: float((p.dts if p.dts is not None else p.pts or 0) * p.time_base)
        for p in sorted(packets, key=when):
            c.mux(p)
    return Path(path)


def write_sound(path, kind, sound=None, rate=RATE):
    "A sound at `path`; an array, or pieces of one"
    name, codec, options = SOUNDS[kind]
    with av.open(str(path), "w", format=name, options=options) as c:
        a = _audio(c, codec, rate)
        for p in _sound_packets(a, tone(rate=rate) if sound is None else sound, rate):
            c.mux(p)
    return Path(path)


def write_picture(path, kind, size=SIZE):
    Image.fromarray(picture(0, size)).save(path, PICTURES[kind])
    return Path(path)


def write_kind(folder, kind):
    "The usual file of one of `KINDS`"
    path = Path(folder) / (f"whole.{kind}")
    if kind in FILMS:
        return write_film(path, kind)
    return write_sound(path, kind) if kind in SOUNDS else write_picture(path, kind)


def bytes_of(kind):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return write_kind(folder, kind).read_bytes()
