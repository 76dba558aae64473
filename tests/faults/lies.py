"""Files that lie: whole ones whose header states another size, rate, duration, shape or number; and
files that say the truth, which is far too much: gigapixels, years, millions of hertz."""

import struct
import zlib

import small_media


def _at(data, tag, offset, new, which=0):
    "A copy with bytes replaced, counted from the end of the which-th occurrence of a tag"
    i = -1
    for _ in range(which + 1):
        i = data.index(tag, i + 1)
    i += len(tag) + offset
    return data[:i] + new + data[i + len(new) :]


def _fields(kind, *fields):
    "Yield (name, kind, bytes): each value in each place"
    whole = small_media.bytes_of(kind)
    for name, tag, offset, form, *values in fields:
        tag, which = tag if isinstance(tag, tuple) else (tag, 0)
        for v in values:
            data = _at(whole, tag, offset, struct.pack(form, v), which)
            yield f"{name}={v:g}.{kind}", kind, data


BIG32, BIG31 = 0xFFFFFFFF, 0x7FFFFFFF


def _wav():
    yield from _fields(
        "wav",
        ("channels", b"fmt ", 6, "<H", 0, 2, 17, 255, 65535),
        ("rate", b"fmt ", 8, "<I", 0, 1, 24001, 48000, 44100, BIG31, BIG32),
        ("bytes_a_second", b"fmt ", 12, "<I", 0, 1, BIG32),
        ("align", b"fmt ", 16, "<H", 0, 1, 4, 65535),
        ("bits", b"fmt ", 18, "<H", 0, 1, 8, 24, 32, 65535),
        ("format", b"fmt ", 4, "<H", 0, 3, 7, 0xFFFE),
        ("fmt_size", b"fmt ", 0, "<I", 0, 15, 18, 40, BIG32),
        ("data_size", b"data", 0, "<I", 0, 1, 28800, 57599, 57602, 10**9, BIG31, BIG32 - 1, BIG32),
        ("riff_size", b"RIFF", 0, "<I", 0, 1, 30000, BIG31, BIG32),
    )


def _mp4(kind):
    yield from _fields(
        kind,
        ("movie_scale", b"mvhd", 12, ">I", 0, 1, 2000, BIG32),
        ("movie_duration", b"mvhd", 16, ">I", 0, 1, 10**9, BIG32),
        ("scale", b"mdhd", 12, ">I", 0, 1, 100, BIG32),
        ("duration", b"mdhd", 16, ">I", 0, 1, 10**9, BIG32),
        ("sound_scale", (b"mdhd", 1), 12, ">I", 0, 1, 48000, BIG32),
        ("sound_duration", (b"mdhd", 1), 16, ">I", 0, 1, 10**9),
        ("samples", b"stsz", 8, ">I", 0, 1, 29, 31, 10**7, BIG32),
        ("all_of_size", b"stsz", 4, ">I", 1, 10**6, BIG32),
        ("size", b"stsz", 12, ">I", 0, 10**6, BIG32),
        ("steps", b"stts", 4, ">I", 0, 2, 10**7, BIG32),
        ("step_count", b"stts", 8, ">I", 0, 1, 10**9, BIG32),
        ("step", b"stts", 12, ">I", 0, 1, 10**6, BIG31, BIG32),
        ("chunks", b"stco", 4, ">I", 0, 10**7, BIG32),
        ("offset", b"stco", 8, ">I", 0, 10**6, BIG32),
    )  # fmt: skip


def _mp4_more(kind):
    whole = small_media.bytes_of(kind)
    at = whole.index(b"avc1") if b"avc1" in whole else whole.index(b"mp4v")
    tag = whole[at : at + 4]
    for w, h in ((16000, 8000), (65535, 65535), (1, 1), (0, 0)):
        yield f"size_{w}x{h}.{kind}", kind, _at(whole, tag, 24, struct.pack(">HH", w, h))
    if b"elst" in whole:
        for name, long, start in (("long", BIG31, 0), ("far", 1200, 10**8), ("empty", 10**8, -1)):
            new = struct.pack(">Ii", long, start)
            yield f"edit_{name}.{kind}", kind, _at(whole, b"elst", 8, new)
    at = whole.index(b"mp4a") if b"mp4a" in whole else whole.index(b"sowt")
    tag = whole[at : at + 4]
    for n in (0, 17, 65535):
        yield f"channels={n}.{kind}", kind, _at(whole, tag, 16, struct.pack(">H", n))
    for rate in (0, 1, 48000, 65535):
        yield f"rate={rate}.{kind}", kind, _at(whole, tag, 24, struct.pack(">H", rate))


def _mkv(kind):
    whole = small_media.bytes_of(kind)
    info = whole.index(b"\x2a\xd7\xb1")
    tail = whole[info:]
    for scale in (1, 10**5, 10**7, 2**24 - 1):
        yield f"scale={scale}.{kind}", kind, whole[:info] + _at(
            tail, b"\x2a\xd7\xb1\x83", 0, scale.to_bytes(3, "big"))  # fmt: skip
    if (d := whole.find(b"\x44\x89\x88")) > 0:
        for x in (0.0, -1.0, 1.0, 500.0, 1e9, 1e300, float("nan"), float("inf")):
            yield f"length={x}.{kind}", kind, _at(whole[:d] + whole[d:], b"\x44\x89\x88", 0,
                                                  struct.pack(">d", x))  # fmt: skip
    for name, tag, sizes in (
        ("width", b"\xb0\x81", (0, 1, 255)),
        ("height", b"\xba\x81", (0, 255)),
    ):
        for n in sizes:
            if tag in whole:
                yield f"{name}={n}.{kind}", kind, _at(whole, tag, 0, bytes([n]))
    for x in (0.0, 1.0, 8000.0, 1e9, float("nan")):
        if b"\xb5\x88" in whole:
            yield f"rate={x}.{kind}", kind, _at(whole, b"\xb5\x88", 0, struct.pack(">d", x))
    for n in (0, 2, 200):
        yield f"channels={n}.{kind}", kind, _at(whole, b"\x9f\x81", 0, bytes([n]))
    for k in range(whole.count(b"\x1f\x43\xb6\x75")):
        at = whole.index(
            b"\xe7", [i for i in range(len(whole)) if whole[i : i + 4] == b"\x1f\x43\xb6\x75"][k]
        )
        n = whole[at + 1] & 15
        for x in (0, 255):
            yield (
                f"cluster{k}={x}.{kind}",
                kind,
                whole[: at + 2] + bytes([x] * n) + whole[at + 2 + n :],
            )


def _avi():
    yield from _fields(
        "avi",
        ("frames", b"avih", 4 + 16, "<I", 0, 1, 29, 31, 10**9),
        ("width", b"avih", 4 + 32, "<I", 0, 16000, BIG31),
        ("scale", b"strh", 4 + 20, "<I", 0, 1000, BIG31),
        ("rate", b"strh", 4 + 24, "<I", 0, 1, 10**9),
        ("start", b"strh", 4 + 28, "<I", 100, 10**9),
        ("length", b"strh", 4 + 32, "<I", 0, 1, 10**9, BIG32),
        ("bitmap_width", b"strf", 4 + 4, "<i", 0, 16000, 65535, -5),
        ("bitmap_height", b"strf", 4 + 8, "<i", 0, 16000, 65535),
        ("sound_rate", (b"strf", 1), 4 + 4, "<I", 0, 1, 24001, 48000, BIG31),
        ("sound_channels", (b"strf", 1), 4 + 2, "<H", 0, 2, 17, 65535),
        ("sound_align", (b"strf", 1), 4 + 12, "<H", 0, 4, 65535),
        ("sound_bits", (b"strf", 1), 4 + 14, "<H", 0, 8, 32),
        ("sound_length", (b"strh", 1), 4 + 32, "<I", 0, 1, 10**9),
        ("sound_start", (b"strh", 1), 4 + 28, "<I", 1000, 10**9),
    )


def _flv():
    whole = small_media.bytes_of("flv")
    for name in (b"duration", b"framerate", b"width", b"height", b"audiosamplerate", b"filesize"):
        for x in (0.0, -1.0, 1.0, 1e9, float("nan"), float("inf")):
            at = whole.index(name) + len(name) + 1
            data = whole[:at] + struct.pack(">d", x) + whole[at + 8 :]
            yield f"{name.decode()}={x}.flv", "flv", data
    pos, k = 13, 0
    while pos + 15 < len(whole):
        n = int.from_bytes(whole[pos + 1 : pos + 4], "big")
        if k in (3, 20, 40):
            for t in (0, BIG31 >> 1, BIG32):
                stamp = struct.pack(">I", t)
                data = whole[: pos + 4] + stamp[1:] + stamp[:1] + whole[pos + 8 :]
                yield f"stamp{k}={t}.flv", "flv", data
        pos, k = pos + 15 + n, k + 1


def _flac():
    whole = small_media.bytes_of("flac")
    bits = int.from_bytes(whole[18:26], "big")  # rate 20, channels 3, bits 5, samples 36

    def said(name, shift, width, *values):
        for v in values:
            mask = (1 << width) - 1
            new = (bits & ~(mask << shift)) | (v << shift)
            yield f"{name}={v}.flac", "flac", whole[:18] + new.to_bytes(8, "big") + whole[26:]

    yield from said("rate", 44, 20, 0, 1, 24001, 48000, (1 << 20) - 1)
    yield from said("channels", 41, 3, 1, 7)
    yield from said("bits", 36, 5, 0, 7, 23, 31)
    yield from said("samples", 0, 36, 0, 1, 14400, 28799, 28801, 10**9, (1 << 36) - 1)
    for n in (0, 1, 15, 65535):
        yield f"block={n}.flac", "flac", whole[:8] + struct.pack(">HH", n, n) + whole[12:]


def _mp3():
    whole = small_media.bytes_of("mp3")
    at = max(whole.find(b"Xing"), whole.find(b"Info"))
    for name, offset, values in (
        ("frames", 8, (0, 1, 40, 60, 10**6, BIG32)),
        ("bytes", 12, (0, 1, 10**4, BIG32)),
    ):
        for v in values:
            data = whole[: at + offset] + struct.pack(">I", v) + whole[at + offset + 4 :]
            yield f"{name}={v}.mp3", "mp3", data
    for n in (1, 10**4, 2**27):
        size = bytes([n >> 21 & 127, n >> 14 & 127, n >> 7 & 127, n & 127])
        yield f"tag={n}.mp3", "mp3", whole[:6] + size + whole[10:]


def _ogg(kind):
    whole = small_media.bytes_of(kind)
    at = [i for i in range(len(whole)) if whole[i : i + 4] == b"OggS"]
    for k in (0, len(at) // 2, len(at) - 1):
        for v in (0, 1, 10**9, 2**62, 2**64 - 1):
            i = at[k]
            end = at[k + 1] if k + 1 < len(at) else len(whole)
            page = whole[i : i + 6] + struct.pack("<Q", v) + whole[i + 14 : end]
            yield f"granule{k}={v}.{kind}", kind, whole[:i] + _sealed(page) + whole[end:]
    mark, offset, form = (b"OpusHead", 4, "<I") if kind == "opus" else (b"\x01vorbis", 5, "<I")
    end = at[1]
    for rate in (0, 1, 48000, BIG32):
        page = _at(whole[:end], mark, offset, struct.pack(form, rate))
        yield f"rate={rate}.{kind}", kind, _sealed(page) + whole[end:]
    for n in (0, 3, 255):
        page = _at(whole[:end], mark, 1 if kind == "opus" else 4, bytes([n]))
        yield f"channels={n}.{kind}", kind, _sealed(page) + whole[end:]


def _sealed(page):
    "An Ogg page with the right checksum, bit by bit as its specification says"
    page, crc = page[:22] + bytes(4) + page[26:], 0
    for b in page:
        crc ^= b << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C11DB7 if crc & 1 << 31 else 0)) & BIG32
    return page[:22] + struct.pack("<I", crc) + page[26:]


SHAPES = (
    (0, 0),
    (1, 1),
    (96, 81),
    (97, 80),
    (96, 40),
    (16000, 16000),
    (60000, 60000),
    (65535, 65535),
)


def _pictures():
    whole = small_media.bytes_of("png")
    for w, h in (*SHAPES, (BIG31, BIG31), (BIG31, 1)):
        head = b"IHDR" + struct.pack(">II", w, h) + whole[24:29]
        data = whole[:12] + head + struct.pack(">I", zlib.crc32(head)) + whole[33:]
        yield f"size_{w}x{h}.png", "png", data
    whole = small_media.bytes_of("jpg")
    for w, h in SHAPES:
        yield f"size_{w}x{h}.jpg", "jpg", _at(whole, b"\xff\xc0", 3, struct.pack(">HH", h, w))
    whole = small_media.bytes_of("bmp")
    for w, h in (*SHAPES, (BIG31, BIG31), (-96, 80)):
        yield f"size_{w}x{h}.bmp", "bmp", whole[:18] + struct.pack("<ii", w, h) + whole[26:]
    kinds = {k: small_media.bytes_of(k) for k in ("png", "jpg", "mp4", "wav", "flac")}
    for ext, inside in (("jpg", "png"), ("png", "jpg")):
        yield f"in_truth_{inside}.{ext}", ext, kinds[inside]
    for ext, inside in (
        ("jpg", "mp4"),
        ("png", "wav"),
        ("mp4", "wav"),
        ("wav", "mp4"),
        ("mp4", "png"),
        ("wav", "png"),
        ("flac", "jpg"),
        ("mkv", "flac"),
        ("mp3", "png"),
    ):
        yield f"in_truth_{inside}.{ext}", ext, kinds[inside]
    for ext in ("jpg", "png", "mp4", "wav", "mp3", "mkv"):
        yield f"empty.{ext}", ext, b""
        yield f"zeros.{ext}", ext, bytes(10**5)
        yield f"text.{ext}", ext, b"<html>404 Not Found</html>" * 99


def lies(most=10**6):
    "Yield (name, kind, bytes or a writer) of at most so many lies, evenly over all kinds"
    every = [*_wav(), *_avi(), *_flv(), *_flac(), *_mp3(), *_pictures(), *_big()]
    for kind in ("mp4", "mov"):
        every += [*_mp4(kind), *_mp4_more(kind)]
    for kind in ("mkv", "live.mkv", "webm", "live.webm"):
        every += _mkv(kind)
    for kind in ("ogg", "opus"):
        every += _ogg(kind)
    step = max(1, len(every) / max(1, most))
    yield from (every[int(k * step)] for k in range(min(most, len(every))))


# --- true, and far too much -----------------------------------------------------------------
def _png_bomb(path, side=30000):
    rows = zlib.compressobj(9)
    data = b"".join(rows.compress(bytes(side + 1)) for _ in range(side)) + rows.flush()
    chunk = lambda name, x: (
        struct.pack(">I", len(x)) + name + x + struct.pack(">I", zlib.crc32(name + x))
    )
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def _wide(codec, size, frames=3):
    def write(path):
        import av
        from fractions import Fraction

        with av.open(str(path), "w") as c:
            v = c.add_stream(codec, rate=25)
            v.width, v.height, v.pix_fmt = *size, "yuv420p" if codec != "mjpeg" else "yuvj420p"
            v.codec_context.options = dict(preset="ultrafast") if codec == "libx264" else {}
            v.codec_context.thread_count = 1
            for k in range(frames):
                f = av.VideoFrame(*size, v.pix_fmt)
                for p in f.planes:
                    p.update(bytes([128]) * p.buffer_size)
                f.pts, f.time_base = k, Fraction(1, 25)
                c.mux(v.encode(f))
            c.mux(v.encode(None))

    return write


def _far(kind, seconds, sound=True):
    "Two pictures or pieces of sound that lie far apart"

    def write(path):
        import av
        from fractions import Fraction

        name, vcodec, acodec, options = small_media.FILMS[kind]
        with av.open(str(path), "w", format=name) as c:
            v, a = c.add_stream(vcodec, rate=25), small_media._audio(c, acodec, 24000)
            v.width, v.height, v.pix_fmt = 96, 80, "yuv420p"
            packets = []
            for k in range(2):
                f = av.VideoFrame.from_ndarray(small_media.picture(k), "rgb24").reformat(
                    format="yuv420p"
                )
                f.pts, f.time_base = k * (1 if sound else seconds * 25), Fraction(1, 25)
                packets += v.encode(f)
            packets += v.encode(None)
            heard = list(small_media._sound_packets(a, small_media.tone(0.5), 24000))
            for p in heard[len(heard) // 2 :] if sound == "gap" else heard if sound else ():
                p.pts += round(seconds / p.time_base)
                p.dts = p.pts
            for p in sorted(packets + heard, key=lambda p: float((p.dts or 0) * p.time_base)):
                c.mux(p)

    return write


def _long_flac(rate, seconds):
    def write(path):
        pieces = (small_media.np.zeros(1 << 16, "f4") for _ in range(rate * seconds >> 16))
        small_media.write_sound(path, "flac", pieces, rate)

    return write


def _wav_of(rate, channels, samples=24000, bits=16):
    def write(path):
        n = samples * channels * bits // 8
        align = channels * bits // 8
        head = struct.pack(
            "<4sI4s4sIHHIIHH4sI",
            b"RIFF",
            (n + 36) & BIG32,
            b"WAVE",
            b"fmt ",
            16,
            1,
            channels,
            rate,
            (rate * align) & BIG32,
            align & 0xFFFF,
            bits,
            b"data",
            n,
        )
        with open(path, "wb") as f:
            f.write(head)
            f.truncate(44 + n)

    return write


def _big():
    "Yield (name, kind, writer): none of these is like a whole file of its kind"
    for size in ((8192, 4320), (16000, 8000)):
        yield f"wide_{size[0]}.mp4", "big.mp4", _wide("libx264", size)
        yield f"wide_{size[0]}.avi", "big.avi", _wide("mpeg4" if size[0] < 8192 else "mjpeg", size)
    yield "bomb.png", "png", _png_bomb
    for kind in ("mp4", "mkv", "avi", "flv", "mov"):
        for sound in (True, "gap", False)[: 3 if kind in ("mp4", "mkv") else 2]:
            name = {True: "late_sound", "gap": "hole", False: "late_picture"}[sound]
            yield f"{name}.{kind}", f"big.{kind}", _far(kind, 10**5, sound)
    yield "long.flac", "big.flac", _long_flac(8000, 6 * 3600)
    yield "fast.flac", "big.flac", _long_flac(192000, 1800)
    for rate in (1, 7, 44101, 10**6, 10**7, BIG31):
        yield f"rate_{rate}.wav", "big.wav", _wav_of(rate, 1)
    for channels in (9, 64, 255, 1024):
        yield f"channels_{channels}.wav", "big.wav", _wav_of(24000, channels)
    yield "sparse.wav", "big.wav", _wav_of(48000, 2, 6 * 3600 * 48000 // 8)
