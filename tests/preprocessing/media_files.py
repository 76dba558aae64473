"""Tiny media files of many kinds, and what FFmpeg's own command line sees in them:
`python tests/preprocessing/media_files.py` writes them, compares avkit with FFmpeg file by file and
prints how many agree in each group. `test_differential.py` does the same, group by group."""

import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from avkit.core import AvkitError
from avkit.preprocessing.media import decode, frame_count, stream, survey

SECONDS = 0.6
FAST = dict(
    libx264="-preset ultrafast -crf 16", libx265="-preset ultrafast -x265-params log-level=0"
)
FAST |= {"libvpx": "-deadline realtime -cpu-used 8 -b:v 400k", "libaom-av1": "-cpu-used 8 -crf 30"}
FAST |= {"libvpx-vp9": "-deadline realtime -cpu-used 8 -b:v 400k", "libsvtav1": "-preset 12"}


@lru_cache(1)
def ffmpeg():
    "Path of the command"
    import imageio_ffmpeg

    return imageio_ffmpeg.get_ffmpeg_exe()


def run(*args):
    "FFmpeg with these arguments (strings are split) -> what it says"
    words = [w for a in args for w in (a.split() if isinstance(a, str) else [str(a)])]
    command = [ffmpeg(), "-hide_banner", "-nostdin", "-y", "-threads", "1", *words]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stderr[-1500:]}"
    return done.stderr


def video_in(seconds=SECONDS, fps="25", size="64x48"):
    return f"-f lavfi -i testsrc2=s={size}:r={fps}:d={seconds},gblur=6"


def audio_in(seconds=SECONDS, rate=44100, layout="stereo"):
    "Each channel has a tone of its own, and all of them rise"
    n = {"mono": 1, "stereo": 2}.get(layout) or channels_of(layout)
    tones = "|".join(f"0.2*sin({200 + 90 * k}*2*PI*t*(1+t/3))" for k in range(n))
    return f"-f lavfi -i aevalsrc={tones}:s={rate}:d={seconds}:c={layout}"


def channels_of(layout):
    import av

    return av.AudioLayout(layout).nb_channels


def codec_words(codec, kind):
    return f"-c:{kind} {codec} {FAST.get(codec, '')} -strict -2"


@dataclass
class Case:
    "A file to write: what FFmpeg takes after its inputs, and what is done to the file then"

    file: str
    out: str
    inputs: tuple = ()
    then: object = None  # path -> None
    pixels: bool = True  # are its frames of one size?
    fill: str = "-af aresample=async=1:min_hard_comp=0.012:first_pts=0"  # audio at its own time
    own: bool = field(default=False)  # written by `then` alone


def _name(*words):
    return re.sub(r"[^\w.]+", "_", "_".join(map(str, words)))


def containers():
    "Containers and codecs"
    table = {
        "mp4": (
            "libx264 mpeg4 libx265 libvpx-vp9 libaom-av1",
            "aac libmp3lame ac3 flac alac libopus",
        ),
        "mov": ("libx264 mjpeg prores qtrle mpeg4", "aac pcm_s16le pcm_f32le pcm_s24le alac"),
        "mkv": (
            "libx264 libvpx ffv1 mpeg2video libtheora huffyuv",
            "libopus libvorbis flac pcm_s16le ac3 tta",
        ),
        "webm": ("libvpx libvpx-vp9 libaom-av1", "libopus libvorbis"),
        "avi": ("mpeg4 mjpeg libx264 ffv1 msmpeg4v2 rawvideo", "libmp3lame pcm_s16le ac3 mp2"),
        "ts": ("libx264 mpeg2video libx265", "aac mp2 ac3 libmp3lame"),
        "mpg": ("mpeg1video mpeg2video", "mp2 ac3"),
        "flv": ("flv libx264", "libmp3lame aac"),
        "3gp": ("h263 libx264 mpeg4", "aac libopencore_amrnb"),
        "wmv": ("wmv2 msmpeg4", "wmav2 libmp3lame"),
        "ogv": ("libtheora", "libvorbis libopus flac"),
        "nut": ("libx264", "pcm_s16le aac"),
        "m2ts": ("libx264", "ac3"),
    }
    for suffix, (videos, audios) in table.items():
        for v in videos.split():
            for a in audios.split():
                if a != audios.split()[0] and v != videos.split()[0]:
                    continue  # a cross, not every pair
                more = "-s 128x96" if v == "h263" else ""
                rate = "-ar 8000 -ac 1" if "amr" in a else ""
                yield Case(
                    _name(v, a) + "." + suffix,
                    f"{codec_words(v, 'v')} {more} {codec_words(a, 'a')} {rate}",
                )


def sounds():
    "Audio files, by codec and rate"
    kinds = dict(
        wav="pcm_u8 pcm_s16le pcm_s24le pcm_s32le pcm_f32le pcm_f64le pcm_alaw pcm_mulaw adpcm_ms"
    )
    kinds |= dict(
        flac="flac", m4a="aac alac", mp3="libmp3lame", ogg="libvorbis flac", opus="libopus"
    )
    kinds |= dict(
        aiff="pcm_s16be", caf="pcm_s16be", au="pcm_s16be", w64="pcm_s16le", mka="libvorbis"
    )
    kinds |= dict(
        aac="aac", ac3="ac3", eac3="eac3", wma="wmav2", wv="wavpack", tta="tta", mp2="mp2"
    )
    few = dict(
        opus=(8000, 16000, 48000), ac3=(32000, 44100, 48000), eac3=(48000,), mp2=(16000, 44100)
    )
    few |= dict(aac=(16000, 44100), wma=(16000, 44100), mp3=(8000, 16000, 22050, 44100, 48000))
    for suffix, codecs in kinds.items():
        for codec in codecs.split():
            rates = few.get(
                suffix, (8000, 22050, 44100, 48000) if len(codecs) < 20 else (16000, 44100)
            )
            if codec == "aac" and suffix == "m4a":
                rates = (8000, 11025, 16000, 22050, 32000, 44100, 48000, 96000)
            for rate in rates:
                yield Case(
                    _name(codec, rate) + f".{suffix}", f"-vn {codec_words(codec, 'a')} -ar {rate}"
                )
    for rate in (11025, 22051, 37800, 44099, 88200, 192000):
        yield Case(f"odd_{rate}.wav", "-vn", (audio_in(rate=rate),))


def layouts():
    "Channels: every layout, in what can hold it"
    names = "mono stereo 2.1 3.0 3.0(back) 4.0 quad quad(side) 3.1 5.0 5.0(side) 4.1 5.1 5.1(side)"
    for layout in f"{names} 6.0 6.1 7.0 7.1 7.1(wide)".split():
        yield Case(_name("pcm", layout) + ".wav", "", (audio_in(layout=layout),))
    for layout in "mono stereo 3.0 4.0 quad 5.0 5.1 6.1 7.1".split():
        yield Case(_name("flac", layout) + ".flac", "", (audio_in(layout=layout),))
        if layout != "6.1" and layout != "quad":
            yield Case(_name("aac", layout) + ".m4a", "-c:a aac", (audio_in(layout=layout),))
    for layout in "mono stereo 3.0 quad 5.0 5.1 6.1 7.1".split():
        yield Case(
            _name("opus", layout) + ".mka",
            "-c:a libopus -mapping_family 1",
            (audio_in(layout=layout),),
        )
    for layout in "stereo 5.1(side) 5.0(side) 4.0".split():
        yield Case(_name("ac3", layout) + ".ac3", "", (audio_in(layout=layout),))


def _turned(base, suffix, rotation, flips, sar):
    name = _name(rotation, flips, sar) + "." + suffix
    shape = f"-vf setsar={sar}" if sar != "1" else ""
    options = f"-display_rotation {rotation} {' '.join('-display_' + f for f in flips.split())}"

    def then(path):
        plain = path.with_suffix(".plain." + suffix)
        path.rename(plain)
        run(options, "-i", plain, "-c copy -map 0", path)

    return Case(name, f"{shape} {codec_words(base, 'v')} -c:a aac", then=then)


def orientations():
    "Eight orientations, with square pixels and others"
    for suffix, base, sar in (
        ("mp4", "libx264", "1"),
        ("mov", "mjpeg", "1"),
        ("mp4", "mpeg4", "4/3"),
        ("mov", "libx264", "8/9"),
    ):
        for rotation in (0, 90, 180, 270):
            for flips in ("", "hflip"):
                yield _turned(base, suffix, rotation, flips, sar)
    for rotation in (90, 180, 270):
        yield _turned("libx264", "mkv", rotation, "", "1")


def shapes():
    "Sample aspect ratios"
    for sar in "4/3 16/15 12/11 10/11 8/9 2/1 1/2 59/54".split():
        for suffix, codec in dict(
            mp4="libx264", mkv="libvpx", avi="mpeg4", ts="mpeg2video", mov="mpeg4"
        ).items():
            yield Case(
                _name(sar, codec) + f".{suffix}", f"-vf setsar={sar} {codec_words(codec, 'v')}"
            )
        yield Case(_name(sar, "h264") + ".ts", f"-vf setsar={sar} {codec_words('libx264', 'v')}")


def offsets():
    "Late video, late audio, a file that does not begin at 0"
    usual = dict(
        mp4="-c:v libx264 -preset ultrafast -c:a aac", mkv="-c:v libx264 -preset ultrafast -c:a aac"
    )
    usual |= dict(
        mov="-c:v mpeg4 -c:a pcm_s16le",
        webm="-c:v libvpx -c:a libopus",
        ts="-c:v mpeg2video -c:a mp2",
    )
    usual |= dict(
        flv="-c:v flv -c:a libmp3lame", wmv="-c:v wmv2 -c:a wmav2", nut="-c:v mpeg4 -c:a pcm_s16le"
    )
    for suffix, codecs in usual.items():
        for late in (0.1, 0.3, 1.0):
            yield Case(
                f"video_{late}.{suffix}", codecs, (f"-itsoffset {late} {video_in()}", audio_in())
            )
            yield Case(
                f"audio_{late}.{suffix}", codecs, (video_in(), f"-itsoffset {late} {audio_in()}")
            )
        if suffix not in ("flv", "wmv"):
            yield Case(f"begins.{suffix}", f"{codecs} -output_ts_offset 7")


def _copied(suffix, at, gop, frames):
    def then(path):
        plain = path.with_suffix(".plain." + suffix)
        path.rename(plain)
        run("-ss", str(at), "-i", plain, f"-c copy {frames}", path)

    codec = "libx264 -preset ultrafast" if frames == "" else "libx264 -preset fast -bf 2"
    return Case(
        _name("cut", at, gop, bool(frames)) + "." + suffix,
        f"-c:v {codec} -g {gop} -c:a aac",
        (video_in(1.2), audio_in(1.2)),
        then=then,
    )


def edits():
    "Cut without encoding: edit lists hide what comes before"
    for suffix in ("mp4", "mov", "mkv", "ts"):
        for at in (0.25, 0.5, 0.77):
            if suffix != "ts":  # whose copy would hold no key frame
                yield _copied(suffix, at, 50, "")
            yield _copied(suffix, at, 8, "-t 0.3")


def gaps():
    "Audio packets that are missing"
    for suffix, codec in dict(
        mkv="libopus", mp4="aac", webm="libvorbis", ts="mp2", mov="ac3", mka="aac", nut="flac"
    ).items():
        video = (
            "-c:v libvpx -b:v 200k"
            if suffix in ("mkv", "webm")
            else "-c:v mpeg4"
            if suffix != "ts"
            else "-c:v mpeg2video"
        )
        for begin, end in ((0.3, 0.5), (0.2, 0.9), (0.4, 0.45), (0.5, 0.95)):
            drop = rf"-bsf:a noise=amount=0:drop='between(pts*tb\,{begin}\,{end})'"
            yield Case(
                _name(begin, end, codec) + f".{suffix}",
                f"{video} -c:a {codec} {drop}",
                (video_in(1.2), audio_in(1.2)),
            )


def ends():
    "Video and audio that end unevenly, live recordings, fragments"
    usual = dict(
        mp4="-c:v libx264 -preset ultrafast -c:a aac", mkv="-c:v libx264 -preset ultrafast -c:a aac"
    )
    usual |= dict(
        webm="-c:v libvpx -c:a libopus",
        avi="-c:v mpeg4 -c:a pcm_s16le",
        ts="-c:v mpeg2video -c:a mp2",
    )
    usual |= dict(flv="-c:v flv -c:a libmp3lame", mov="-c:v mpeg4 -c:a alac")
    for suffix, codecs in usual.items():
        yield Case(f"short_video.{suffix}", codecs, (video_in(0.4), audio_in(1.4)))
        yield Case(f"short_audio.{suffix}", codecs, (video_in(1.4), audio_in(0.4)))
        yield Case(f"mute.{suffix}", codecs, (video_in(),))
    live = "-live 1 -cluster_time_limit 200"
    for suffix in ("webm", "mkv"):
        codecs = usual[suffix]
        yield Case(f"live.{suffix}", f"{codecs} {live}")
        yield Case(f"live_short_video.{suffix}", f"{codecs} {live}", (video_in(0.4), audio_in(1.4)))
        yield Case(f"live_short_audio.{suffix}", f"{codecs} {live}", (video_in(1.4), audio_in(0.4)))
        yield Case(f"live_mute.{suffix}", f"{codecs} {live}", (video_in(),))
        yield Case(f"live_sound.{suffix}", f"{codecs} {live}", (audio_in(),))
    for flags in (
        "frag_keyframe+empty_moov",
        "frag_keyframe",
        "faststart",
        "frag_keyframe+empty_moov+default_base_moof",
    ):
        yield Case(_name(flags) + ".mp4", f"{usual['mp4']} -g 5 -movflags +{flags}")


def rates():
    "Frame rates, and none at all"
    for fps in "10 12.5 15 24000/1001 30000/1001 30 50 60".split():
        for suffix, codec in dict(mp4="libx264", mkv="mpeg4", avi="mpeg4", ts="libx264").items():
            if suffix == "ts" and "/" not in fps and fps != "50":
                continue
            yield Case(
                _name(fps) + f".{suffix}", codec_words(codec, "v"), (video_in(fps=fps), audio_in())
            )
    some = r"-vf select='not(eq(mod(n\,5)\,2)+eq(mod(n\,7)\,3))' -fps_mode vfr"
    for suffix, codec in dict(
        mp4="libx264",
        mkv="libx264",
        webm="libvpx",
        avi="mpeg4",
        mov="mpeg4",
        flv="flv",
        ts="libx264",
    ).items():
        yield Case(
            f"variable.{suffix}",
            f"{some} {codec_words(codec, 'v')}",
            (video_in(1.2), audio_in(1.2)),
        )
    for suffix in ("mp4", "mkv", "avi", "ts"):
        yield Case(
            f"b_frames.{suffix}",
            "-c:v libx264 -preset fast -bf 3 -g 10" if suffix != "avi" else "-c:v mpeg4 -bf 2",
        )


def _packets(inputs, codecs):
    "How many packets of audio make .96 s"
    rate = int(re.search(r":s=(\d+):", inputs[1])[1])
    size = 1536 if "ac3" in codecs else 1152
    return f"-frames:a {round(0.96 * rate / size)}"


def _joined(name, first, second, codecs, pixels=True):
    "A transport stream that goes on as another one"

    def then(path):
        a, b, both = (path.with_suffix(s) for s in (".a.ts", ".b.ts", ".txt"))
        for inputs, to in ((first, a), (second, b)):
            run(*inputs, codecs, _packets(inputs, codecs), to)
        both.write_text(f"file {a.name}\nfile {b.name}\n")
        run("-f concat -i", both, "-c copy", path)

    fill = "-af aresample=ochl=mono:rematrix_maxval=1"
    return Case(name + ".ts", "", then=then, own=True, pixels=pixels, fill=fill)


def changes():
    "What changes midway: channels, rate, size"
    # both parts are as long as their frames and as their packets
    part = lambda rate, layout, size="64x48": (
        video_in(0.96, size=size),
        audio_in(0.96, rate, layout),
    )
    mono, stereo, slow, slow_mono = (
        part(48000, "mono"),
        part(48000, "stereo"),
        part(32000, "stereo"),
        part(32000, "mono"),
    )
    pairs = dict(up=(mono, stereo), down=(stereo, mono))
    ac3 = dict(
        slower=(stereo, slow),
        faster=(slow_mono, mono),
        both=(slow_mono, stereo),
        less=(stereo, slow_mono),
    )
    for video, audio, more in (
        ("mpeg2video", "mp2", {}),
        ("libx264", "ac3", ac3),
        ("libx265", "mp2", {}),
        ("mpeg2video", "ac3", ac3),
    ):
        for name, (first, second) in (pairs | more).items():
            yield _joined(
                _name(name, video, audio), first, second, f"{codec_words(video, 'v')} -c:a {audio}"
            )
    for size in ("96x48", "48x64", "128x96", "32x24"):
        yield _joined(
            _name("size", size),
            mono,
            part(48000, "mono", size),
            "-c:v libx264 -preset ultrafast -c:a mp2",
            False,
        )


def tracks():
    "Tracks that are not chosen"
    long = audio_in(1.5, layout="mono")
    for suffix, codecs in dict(
        mp4="-c:v libx264 -preset ultrafast -c:a aac",
        mkv="-c:v libx264 -preset ultrafast -c:a libopus",
        mov="-c:v mpeg4 -c:a alac",
        ts="-c:v mpeg2video -c:a mp2",
        webm="-c:v libvpx -c:a libopus",
        avi="-c:v mpeg4 -c:a libmp3lame",
    ).items():
        yield Case(
            f"two_audio.{suffix}", f"-map 0 -map 1 -map 2 {codecs}", (video_in(), audio_in(), long)
        )
        if suffix not in ("avi", "ts"):
            yield Case(
                f"two_video.{suffix}",
                f"-map 0 -map 1 -map 2 {codecs}",
                (video_in(), video_in(1.5), audio_in()),
            )


def trailers():
    "Foreign bytes after the end"
    noise = np.random.default_rng(0).integers(0, 256, 3000, np.uint8).tobytes()
    usual = dict(
        mp4="-c:v libx264 -preset ultrafast -c:a aac", mkv="-c:v libx264 -preset ultrafast -c:a aac"
    )
    usual |= dict(
        mov="-c:v mpeg4 -c:a alac", webm="-c:v libvpx -c:a libopus", avi="-c:v mpeg4 -c:a pcm_s16le"
    )
    usual |= dict(flv="-c:v flv -c:a libmp3lame", wav="-vn", m4a="-vn -c:a aac", aiff="-vn")
    for suffix, codecs in usual.items():
        for kind, more in dict(
            noise=noise, zeros=bytes(3000), text=b"made by a camera " * 60
        ).items():

            def then(path, more=more):
                path.write_bytes(path.read_bytes() + more)

            yield Case(f"{kind}.{suffix}", codecs, then=then)


GROUPS = dict(
    containers=containers, sounds=sounds, layouts=layouts, orientations=orientations, shapes=shapes,
    offsets=offsets, edits=edits, gaps=gaps, ends=ends, rates=rates, changes=changes, tracks=tracks,
    trailers=trailers,
)  # fmt: skip


def write(cases, folder):
    "Write the files of a group: those with the same inputs in one go"
    together = {}
    for c in cases:
        if not c.own:
            together.setdefault(c.inputs or (video_in(), audio_in()), []).append(c)
    for inputs, some in together.items():
        run("-v error", *inputs, *(x for c in some for x in (c.out, "-threads 1", folder / c.file)))
    for c in cases:
        if c.then:
            c.then(folder / c.file)


@dataclass
class Seen:
    "What somebody sees of a file"

    times: np.ndarray
    frames: list
    sound: np.ndarray
    rate: int


def theirs(path, case, s):
    "FFmpeg's view of a file with this survey: frames as they are shown, audio at its own time"
    video, audio = path.with_suffix(".rgb"), path.with_suffix(".f32")
    out = []
    if s["pictures"]:
        square = "scale=trunc(iw*sar+0.5):ih:flags=accurate_rnd+full_chroma_int+bitexact+bicubic"
        out += [
            f"-map 0:v:0 -vf {square},setsar=1,showinfo -fps_mode passthrough",
            "-pix_fmt rgb24 -f rawvideo",
            video,
        ]
    if s["rate"]:
        out += [f"-map 0:a:0 {case.fill} -ac 1 -ar {s['rate']} -c:a pcm_f32le -f f32le", audio]
    told = run("-i", path, *out)
    times = np.array([float(t) for t in re.findall(r"pts_time:(\S+)", told)])
    sizes = [tuple(map(int, m)) for m in re.findall(r" s:(\d+)x(\d+) ", told)]
    frames, data, at = [], video.read_bytes() if s["pictures"] else b"", 0
    for w, h in sizes if case.pixels else ():
        frames.append(np.frombuffer(data[at : at + 3 * w * h], np.uint8).reshape(h, w, 3))
        at += 3 * w * h
    sound = np.fromfile(audio, "<f4") if s["rate"] else np.zeros(0, np.float32)
    return Seen(times, frames, sound, s["rate"])


def ours(path):
    "avkit's view, by `decode`"
    s = survey(path)
    clip = decode(path, bool(s["pictures"]), bool(s["rate"]))
    frames, times = ([], np.zeros(0)) if clip.frames is None else (clip.frames, clip.times)
    sound = np.zeros(0, np.float32) if clip.sound is None else clip.sound
    return Seen(times, list(frames), sound, clip.rate), s


def _level(path):
    "FFmpeg's mono of floats over ours: it does not keep a voice's level where there is no centre"
    import av

    with av.open(str(path)) as c:
        f = next(iter(c.decode(audio=0)))
    names = [x.name for x in f.layout.channels]
    if "NONE" in names:
        names = [x.name for x in av.AudioLayout(f"{len(names)}c").channels]
    return 1.0 if len(names) == 1 or "FC" in names else 2**0.5


def differences(path, case):
    "In words, how avkit and FFmpeg differ about a file; none: they agree"
    try:
        mine, s = ours(path)
    except AvkitError as e:
        return [f"refused: {e}"]
    if s["problems"]:
        return s["problems"]
    other, found = theirs(path, case, s), []
    if len(mine.times) != len(other.times):
        return [f"{len(mine.times)} frames, FFmpeg {len(other.times)}"]
    if len(mine.times) and np.abs(mine.times - other.times).max() > 2e-3:
        found.append(f"times differ by {np.abs(mine.times - other.times).max():.4f} s")
    for a, b in zip(mine.frames, other.frames):
        if a.shape != b.shape:
            found.append(f"shape {a.shape}, FFmpeg {b.shape}")
            break
        if np.abs(a.astype(int) - b).mean() > 2:
            found.append(f"frames differ by {np.abs(a.astype(int) - b).mean():.1f}")
            break
    if s["rate"]:
        found += _sound_differences(
            path, mine, other, 1.0 if "maxval" in case.fill else _level(path)
        )
    return found + _own_differences(path, mine, s)


def _sound_differences(path, mine, other, level):
    n = min(len(mine.sound), len(other.sound))
    late, most = (len(other.sound) - len(mine.sound)) / mine.rate, 0.003
    # of some codecs in an MP4 FFmpeg also plays the encoder's padding, which the edit list cuts off
    most_late = 0.03 if path.suffix in (".mp4", ".mov", ".3gp", ".m4a") else most
    found = []
    if not -most < late < most_late:
        found.append(f"audio {len(mine.sound)} samples, FFmpeg {len(other.sound)}")
    a, b = mine.sound[:n] * level, other.sound[:n]
    error, loud = np.sqrt(np.mean((a - b) ** 2)), np.sqrt(np.mean(b**2))
    return found + ([f"audio differs by {error / loud:.3f}"] if error > 0.05 * loud + 1e-4 else [])


def _own_differences(path, mine, s):
    "survey, decode, stream and the count of frames agree"
    parts = list(stream(path, len(mine.times) > 0, bool(s["rate"]), seconds=1))
    sound = [p[1] for p in parts if p[0] == "audio"]
    times = [p[2] for p in parts if p[0] == "video"]
    found = []
    if s["problems"]:
        found.append("; ".join(s["problems"]))
    if sound and not np.array_equal(np.concatenate(sound), mine.sound):
        found.append("stream hears something else than decode")
    if times and not np.array_equal(np.concatenate(times), mine.times):
        found.append("stream sees something else than decode")
    counts = {s["pictures"], len(mine.times), frame_count(path)}
    return found + ([f"counts of frames: {counts}"] if len(counts) > 1 else [])


def compare(group, folder):
    "-> {file: differences} of a group"
    cases = list(GROUPS[group]())
    write(cases, folder)
    return {c.file: differences(folder / c.file, c) for c in cases}


def report(group, found):
    "A line of the table, and one for each file that differs"
    good = sum(not d for d in found.values())
    lines = [f"{group:<14}{good:>4} of {len(found)} files agree with FFmpeg"]
    return "\n".join(lines + [f"    {f}: {'; '.join(d)}" for f, d in found.items() if d])


if __name__ == "__main__":
    everything = {}
    for group in sys.argv[1:] or GROUPS:
        with tempfile.TemporaryDirectory() as folder:
            found = compare(group, Path(folder))
        print(report(group, found), flush=True)
        everything |= {f"{group}/{k}": v for k, v in found.items()}
    print(f"{'all':<14}{sum(not d for d in everything.values()):>4} of {len(everything)}")
