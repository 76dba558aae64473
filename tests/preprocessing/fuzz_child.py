"""One container's mutants through prepare, a JSON line per mutant.

Run by test_fuzz.py in a process of its own, so that a crash or a hang of a decoder ends here."""

import hashlib, json, sys
from pathlib import Path
import numpy as np
from avkit.preprocessing.media import MediaError, decode
from avkit.preprocessing.writing import write_video, write_wav
from avkit.preprocessing.prepare import Preparation, prepare_clip, stream_key
from avkit.store import Store
from avkit.datasets.synth import RATE, FACES, VOICES, perform

KINDS = ("truncated", "flipped", "zeroed", "swapped", "empty")


def mutant(data, kind, rng):
    "The bytes of a damaged copy"
    b, n = bytearray(data), len(data)
    if kind == "empty":
        return b""
    if kind == "truncated":
        return bytes(b[: int(rng.integers(1, n - 1))])
    if kind == "flipped":
        for i in rng.integers(0, n, int(rng.integers(1, 40))):
            b[i] ^= 1 << int(rng.integers(8))
        return bytes(b)
    size = int(rng.integers(1, max(2, n // 4)))
    i, j = (int(k) for k in rng.integers(0, n - size, 2))
    if kind == "zeroed":
        b[i : i + size] = bytes(size)
    else:
        b[i : i + size], b[j : j + size] = b[j : j + size], b[i : i + size]
    return bytes(b)


def source(path):
    "A whole file of a second of talking"
    frames, sound = perform(FACES[1], VOICES[1], actor=1, key=("fuzz",), seconds=1.2, size=(96, 80))
    if path.suffix == ".wav":
        return write_wav(path, sound, RATE)
    if path.suffix == ".flac":
        return _flac(path, sound)
    return write_video(path, frames, 25, sound, RATE)


def _flac(path, sound):
    import av

    with av.open(str(path), "w") as c:
        s = c.add_stream("flac", rate=RATE, layout="mono")
        f = av.AudioFrame.from_ndarray(
            (sound[None] * 32767).astype(np.int16), format="s16", layout="mono"
        )
        f.sample_rate = RATE
        for x in (*av.AudioResampler("s16", "mono", RATE, frame_size=4096).resample(f), None):
            for p in s.encode(x):
                c.mux(p)
    return path


def kept(row, prep, store):
    "The bytes that the store holds of a clip"
    keys = [stream_key(row, s, prep) for s in ("audio", "video")]
    return [{n: v.numpy().tobytes() for n, v in store.get(k)[0].items()} for k in keys if k]


def row_of(name, path, data, picture):
    h = hashlib.sha256(data).hexdigest()
    return dict(
        clip=name,
        audio=path.name,
        video=path.name if picture else "",
        audio_sha256=h,
        video_sha256=h if picture else "",
    )


def main(suffix, count, folder):
    root, prep = (
        Path(folder),
        Preparation(window=1.0, frames=4, size=32, rate=8000, detector="none", views=("frame",)),
    )
    whole = source(root / f"whole{suffix}")
    picture, data, store = (
        suffix not in (".wav", ".flac"),
        whole.read_bytes(),
        Store(root / "store"),
    )
    good, first = decode(whole, video=picture), row_of("whole", whole, data, picture)
    prepare_clip(root, first, prep, store)
    for i in range(count):
        kind = KINDS[i % len(KINDS)] if i % 25 else "empty"
        if kind == "empty" and i % 25:
            kind = KINDS[i // 5 % 4]
        bad = mutant(data, kind, np.random.default_rng(i))
        path = root / f"m{i}{suffix}"
        path.write_bytes(bad)
        row = row_of(f"m{i}", path, bad, picture)
        line = prepare_clip(root, row, prep, store)
        out = dict(
            mutant=i, kind=kind, same=bad == data, status=line["status"], reason=line["reason"]
        )
        if line["status"] == "done":
            try:
                got = decode(path, video=picture)
            except (
                MediaError
            ):  # damaged where nobody looks: what was stored must be as from the whole file
                got = good if kept(row, prep, store) == kept(first, prep, store) else None
            if got is None:
                print(json.dumps(out | dict(whole=False)), flush=True)
                continue
            out["whole"] = abs(len(got.sound) - len(good.sound)) < 0.05 * RATE and (
                not picture or abs(len(got.frames) - len(good.frames)) < 2
            )
        path.unlink()
        print(json.dumps(out), flush=True)


def write(suffix, count, folder):
    "`main`; what it prints, and an error, stands in a file"
    sys.stdout = sys.stderr = open(folder / "lines.txt", "w", buffering=1)
    main(suffix, count, folder)
