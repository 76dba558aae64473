"""Damaged files and files that lie go through avkit's preparation, each in a process of its own
with a limit of memory and time: refused with a sentence, or read whole, or read with a word about
what is missing. Anything else does not hold.

    python tests/faults/mutants.py --mutants 2000 --lies 100 --out mutants.json
"""

import argparse
import functools
import hashlib
import json
import os
import re
import resource
import select
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import avkit  # noqa: F401 before NumPy: it chooses their kernels
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import lies as lying
import small_media

MEMORY, HANG = 1500, 60  # MB of a worker, in all; s
ENDS = ("refused", "whole", "longer", "told", "gone", "no sentence", "crash", "hang", "swelling")
BAD = ENDS[4:]


# --- what is done to a file -----------------------------------------------------------------
def _flipped(b, rng):
    for i in rng.integers(0, len(b), int(rng.integers(1, 40))):
        b[i] ^= 1 << int(rng.integers(8))
    return b


def _header(b, rng):
    "A few bytes near the beginning, or near the end, where indices stand"
    near = min(len(b), 400)
    for _ in range(int(rng.integers(1, 4))):
        i = int(rng.integers(near))
        b[i if rng.random() < 0.8 else -1 - i] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFF]))
    return b


def _place(b, rng):
    n = int(rng.integers(1, max(2, len(b) // 4)))
    return n, int(rng.integers(0, len(b) - n))


def _cut(b, rng):
    return b[: int(rng.integers(1, len(b)))]


def _cut_late(b, rng):
    return b[: len(b) - int(rng.integers(1, max(2, len(b) // 20)))]


def _deleted(b, rng):
    n, i = _place(b, rng)
    del b[i : i + n]
    return b


def _zeroed(b, rng):
    n, i = _place(b, rng)
    b[i : i + n] = bytes(n)
    return b


def _swapped(b, rng):
    n, i = _place(b, rng)
    j = int(rng.integers(0, len(b) - n))
    b[i : i + n], b[j : j + n] = b[j : j + n], b[i : i + n]
    return b


def _doubled(b, rng):
    n, i = _place(b, rng)
    b[i:i] = b[i : i + n]
    return b


def _atoms(b, rng):
    "Two neighbours of what a file consists of change places"
    parts = atoms(bytes(b))
    if len(parts) < 2:
        return _swapped(b, rng)
    i = int(rng.integers(len(parts) - 1))
    parts[i : i + 2] = parts[i + 1], parts[i]
    return bytearray(b"".join(parts))


MARKS = rb"moov|mdat|free|\x1f\x43\xb6\x75|\x16\x54\xae\x6b|LIST|idx1|data|OggS|IDAT|IEND|IHDR|moof"


def atoms(b):
    "A file in pieces that begin where its boxes, clusters, chunks or pages do"
    at = [
        m.start() - (4 if m[0][:1].islower() or m[0][0] == 73 else 0) for m in re.finditer(MARKS, b)
    ]
    at = [0, *(i for i in at if 0 < i < len(b)), len(b)]
    return [b[i:j] for i, j in zip(at, at[1:])]


WAYS = dict(flipped=_flipped, header=_header, cut=_cut, late=_cut_late, deleted=_deleted,
            zeroed=_zeroed, swapped=_swapped, doubled=_doubled, atoms=_atoms)  # fmt: skip


def mutants(n, seed=0):
    "Yield (name, kind, bytes) of n damaged files, the same for the same seed"
    whole = {k: small_media.bytes_of(k) for k in small_media.KINDS}
    ways = list(WAYS)
    for i in range(n):
        kind = small_media.KINDS[i % len(small_media.KINDS)]
        way = ways[i // len(small_media.KINDS) % len(ways)]
        rng = np.random.default_rng((seed, i))
        yield f"m{i}_{way}.{kind}", kind, bytes(WAYS[way](bytearray(whole[kind]), rng))


# --- what avkit makes of it -----------------------------------------------------------------
def _is(kind, kinds):
    "big.wav is a sound too, though like no other one"
    return kind.removeprefix("big.") in kinds


def _row(path, data, kind):
    h = hashlib.sha256(path.name.encode() if data is None else data).hexdigest()
    heard, seen = not _is(kind, small_media.PICTURES), not _is(kind, small_media.SOUNDS)
    return dict(clip=path.stem, audio=path.name if heard else "", video=path.name if seen else "",
                audio_sha256=h if heard else "", video_sha256=h if seen else "")  # fmt: skip


def _looked_at(path, kind):
    "(frames, s of sound, a picture's size) of a file, read to its end"
    from avkit.preprocessing import media

    if _is(kind, small_media.PICTURES):
        return 1, 0.0, media.read_image(path).shape
    clip = media.decode(path, video=not _is(kind, small_media.SOUNDS))
    seconds = 0.0 if clip.sound is None else len(clip.sound) / clip.rate
    return 0 if clip.frames is None else len(clip.frames), seconds, None


def _kept(store, row, prep):
    "What the store holds of a clip"
    from avkit.preprocessing.prepare import stream_key

    keys = [stream_key(row, s, prep) for s in ("audio", "video") if row[s]]
    return [{n: v.numpy().tobytes() for n, v in store.get(k)[0].items()} for k in keys]


def _track(store, row, prep):
    "(frames, s of sound, None) of a track"
    from avkit.preprocessing.prepare import stream_key

    n, seconds = 0, 0.0
    if row["video"]:
        n = len(store.get(stream_key(row, "video", prep))[0]["numbers"])
    if row["audio"]:
        meta = store.get(stream_key(row, "audio", prep))[1]
        seconds = meta["samples"] / meta["rate"]
    return n, seconds, None


def look(path, kind, folder):
    "[status, reason, (frames, s, size) or bytes] of a file as a clip, and as a track"
    from avkit.preprocessing.media import MediaError
    from avkit.preprocessing.prepare import prepare_clip, Preparation
    from avkit.store import Store

    data = None if kind.startswith("big.") else path.read_bytes()
    row, store, out = _row(path, data, kind), Store(folder), []
    clip = Preparation(window=1.0, frames=4, size=32, rate=8000, detector="none")
    preps = [clip] if _is(kind, small_media.PICTURES) else [clip, Preparation(
        size=32, rate=8000, detector="none", long=True)]  # fmt: skip
    for prep in preps:
        line = prepare_clip(
            path.parent, row, prep, store, [s for s in ("audio", "video") if row[s]]
        )
        seen = None
        if line["status"] != "failed" and prep.long:
            seen = _track(store, row, prep)
        elif line["status"] != "failed" and kind.startswith("big."):
            seen = 0, 0.0, None  # too much to be held whole, which nobody asked for
        elif line["status"] != "failed":
            try:
                seen = _looked_at(path, kind)
            except MediaError:  # damaged where nobody looks: what was stored tells
                digest = hashlib.sha256(repr(_kept(store, row, prep)).encode())
                seen = digest.hexdigest()
        out.append([line["status"], line["reason"], seen])
    return out


# --- in a process of its own ----------------------------------------------------------------
def _memory():
    "(virtual, resident) MB of this process"
    pages = Path("/proc/self/statm").read_text().split()[:2]
    return [int(n) * resource.getpagesize() / 1e6 for n in pages]


def in_child(f, *args, memory=MEMORY, hang=HANG):
    "(how it ended, what f(*args) returned or None, MB at most, s) in a fork with limits"
    r, w = os.pipe()
    began = time.time()
    pid = os.fork()
    if not pid:
        os.close(r)
        try:
            virtual, resident = _memory()
            most = int((virtual - resident + memory) * 1e6)
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 2)
            text = json.dumps(f(*args))
        except MemoryError:
            text = json.dumps("memory")
        except BaseException as e:
            text = json.dumps(f"{type(e).__name__}: {e}")
        os.write(w, text.encode())
        os._exit(0)
    os.close(w)
    text, end = b"", "end"
    while True:
        left = hang - (time.time() - began)
        if left <= 0 or not select.select([r], [], [], left)[0]:
            os.kill(pid, signal.SIGKILL)
            end = "hang"
            break
        got = os.read(r, 1 << 16)
        if not got:
            break
        text += got
    os.close(r)
    _, status, used = os.wait4(pid, 0)
    if end != "hang" and (os.WIFSIGNALED(status) or not text):
        end = "crash"
    told = json.loads(text) if end == "end" else None
    return end, told, used.ru_maxrss * 1024 / 1e6, time.time() - began


def judge(name, end, told, most, right, kept):
    "One of `ENDS`, and what was seen"
    if end != "end":
        return end, ""
    if told == "memory" or most > MEMORY:
        return "swelling", f"{most:.0f} MB"
    if isinstance(told, str):
        return "no sentence", told
    ends = []
    for status, reason, seen in told:
        if "too little memory" in reason:
            ends.append(("swelling", reason))
        elif status == "failed":
            named = name in reason and not re.match(r"\w+(Error|Exception|Warning):", reason)
            ends.append(("refused" if named else "no sentence", reason))
        else:
            whole = _is_whole(seen, right, kept)
            end = "whole" if whole else "told" if reason else _less(seen, right)
            ends.append((end, f"{seen if not isinstance(seen, str) else '?'} of {right} {reason}"))
    return max(ends, key=lambda e: ENDS.index(e[0]))


def _is_whole(seen, right, kept):
    if isinstance(seen, str):
        return seen == kept
    if right is None:  # true, and too much: whatever was read
        return True
    frames, seconds, size = seen
    same = abs(frames - right[0]) <= 1 and abs(seconds - right[1]) <= 0.05
    return same and size == right[2]


def _less(seen, right):
    "longer: nothing is gone, something came twice"
    if isinstance(seen, str) or seen[2] != right[2]:
        return "gone"
    return "longer" if seen[0] >= right[0] - 1 and seen[1] >= right[1] - 0.05 else "gone"


@functools.cache
def whole_one(kind):
    "What the usual file of a kind gives, and what is stored of it; nothing of no usual kind"
    if kind not in small_media.KINDS:
        return [None], None
    with tempfile.TemporaryDirectory() as folder:
        path = small_media.write_kind(Path(folder), kind)
        end, told, _, _ = in_child(_both, path, kind, Path(folder) / "store")
    assert end == "end" and isinstance(told, list), (kind, end, told)
    (ends, kept) = told
    assert all(status != "failed" for status, *_ in ends), (kind, ends)
    return [seen for *_, seen in ends], kept


def _both(path, kind, folder):
    from avkit.preprocessing.prepare import Preparation
    from avkit.store import Store

    ends = look(path, kind, folder)
    prep = Preparation(window=1.0, frames=4, size=32, rate=8000, detector="none")
    kept = _kept(Store(folder), _row(path, path.read_bytes(), kind), prep)
    return ends, hashlib.sha256(repr(kept).encode()).hexdigest()


def trials(files, folder):
    "Yield {name, end, seen, mb, s} of files given as (name, kind, bytes or a writer)"
    for name, kind, data in files:
        path = folder / name
        if callable(data):
            made = in_child(data, path, memory=10**5, hang=600)  # large
            assert made[:2] == ("end", None) and path.exists(), (name, made)
        else:
            path.write_bytes(data)
        end, told, most, seconds = in_child(look, path, kind, folder / f"s_{name}")
        wanted, kept = whole_one(kind)
        sort, seen = judge(name, end, told, most, wanted[0], kept)
        yield dict(name=name, end=sort, seen=str(seen)[:300], mb=round(most), s=round(seconds, 2))
        path.unlink()


def table(rows):
    lines = ["| fault | tried | held | not |", "|---|---|---|---|"]
    return "\n".join(
        lines + [f"| {r['fault']} | {r['tried']} | {r['held']} | {r['not']} |" for r in rows]
    )


def warm():
    "Import what every trial needs, once"
    import cv2, scipy.ndimage, torch  # noqa: F401
    import avkit.preprocessing.prepare  # noqa: F401

    torch.set_num_threads(1)


def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--mutants", type=int, default=2000, help="how many damaged files")
    p.add_argument("--lies", type=int, default=1000, help="how many files that lie, at most")
    p.add_argument("--seed", type=int, default=0, help="of the damage")
    p.add_argument("--only", default="", help="only names with this in them")
    p.add_argument("--out", type=Path, help="a JSON file of all that was seen")
    p.add_argument("--verbose", action="store_true", help="a line for each file")
    a = p.parse_args(argv)
    warm()
    rows, bad, counts = [], [], {}
    sets = {"mutants of media files": mutants(a.mutants, a.seed),
            "headers and files that lie": lying.lies(a.lies)}  # fmt: skip
    for fault, files in sets.items():
        found = []
        with tempfile.TemporaryDirectory() as folder:
            for t in trials((f for f in files if a.only in f[0]), Path(folder)):
                found.append(t)
                if a.verbose or t["end"] in BAD:
                    print(json.dumps(t), file=sys.stderr, flush=True)
        counts[fault] = dict(Counter(t["end"] for t in found))
        counts[fault]["most MB"] = max((t["mb"] for t in found), default=0)
        held = [t for t in found if t["end"] not in BAD]
        bad += [t for t in found if t["end"] in BAD]
        rows.append(
            dict(fault=fault, tried=len(found), held=len(held), **{"not": len(found) - len(held)})
        )
    print(table(rows))
    print(json.dumps(counts), file=sys.stderr)
    if a.out:
        a.out.write_text(
            json.dumps(dict(rows=rows, counts=counts, did_not_hold=bad), indent=1) + "\n"
        )
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
