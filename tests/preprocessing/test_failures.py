"One clip's failure, whatever its kind, is a row and never ends the others; a full disk does."

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from killing_jobs import die, odd_or_double, told

from avkit.core import AvkitError, parallel
from avkit.datasets import verify as verification
from avkit.datasets.manifest import make_manifest
from avkit.preprocessing import prepare as preparing
from avkit.preprocessing.prepare import has_broken_on_purpose, ON_PURPOSE, prepare
from avkit.preprocessing.prepare import Preparation, Summary
from avkit.preprocessing.tracks import Track
from avkit.preprocessing.writing import write_wav
from avkit.store import Store

PREP = Preparation(window=1.0, rate=16000)


@pytest.fixture
def clips(tmp_path):
    "Four clips of sound"
    for k in range(4):
        write_wav(tmp_path / f"{k}.wav", np.sin(np.arange(8000) * (k + 1) / 40), 8000)
    rows = [dict(clip=str(k), label="ab"[k % 2], speaker="", audio=f"{k}.wav") for k in range(4)]
    return make_manifest("folder", tmp_path, rows, ["a", "b"])


@pytest.mark.parametrize("odd", [{7, 19}, {0, 1, 2}, {3, 11, 12}])
def test_jobs_that_kill_their_process_are_told_and_no_other_is_lost(odd):
    got = list(parallel(odd_or_double, [(i, odd) for i in range(20)], "", 2, instead=told))
    killed = [x for x in got if isinstance(x, str)]
    assert sorted(x for x in got if not isinstance(x, str)) == [
        2 * i for i in range(20) if i not in odd
    ]
    assert {int(x.split(":")[0]) for x in killed} == odd
    assert all("killed" in x for x in killed)


def test_in_order_too():
    jobs = [(i, {1, 4}) for i in range(6)]
    got = list(parallel(odd_or_double, jobs, "", 2, ordered=True, instead=told))
    assert [x if isinstance(x, int) else "told" for x in got] == [0, "told", 4, 6, "told", 10]


FAULTS = dict(
    memory=MemoryError("Unable to allocate 8.65 GiB"),
    empty=MemoryError(),
    os=OSError(errno.EIO, "Input/output error", "2.wav"),
    bug=ValueError("all input arrays must have the same shape"),
    recursion=RecursionError("maximum recursion depth exceeded"),
    stop=StopIteration(),
)


@pytest.mark.parametrize("fault", FAULTS)
def test_any_exception_of_a_clip_is_its_row(clips, tmp_path, monkeypatch, fault):
    decode = preparing.media.decode

    def broken(path, *a, **k):
        if Path(path).name == "2.wav":
            raise FAULTS[fault]
        return decode(path, *a, **k)

    monkeypatch.setattr(preparing.media, "decode", broken)
    summary = prepare(clips, PREP, Store(tmp_path / "store"), ["audio"], n_jobs=1)
    assert summary.rows.status.tolist() == ["done", "done", "failed", "done"]
    assert summary.failures["clip"].tolist() == ["2"] and summary.failures.reason.all()
    assert summary.failures.reason.iloc[0] in str(summary)


def test_a_clip_that_kills_its_worker_is_its_row(clips, tmp_path, monkeypatch):
    decode = preparing.media.decode
    monkeypatch.setattr(
        preparing.media,
        "decode",
        lambda path, *a, **k: die() if Path(path).name == "1.wav" else decode(path, *a, **k),
    )
    real = preparing._quiet_clip  # a closure takes the patched module along

    def in_worker(*job):
        preparing.media.decode = patched
        return real(*job)

    patched = preparing.media.decode
    monkeypatch.setattr(preparing, "_quiet_clip", in_worker)
    summary = prepare(clips, PREP, Store(tmp_path / "store"), ["audio"], n_jobs=2)
    status = summary.rows.status.tolist()
    assert status.pop(1) == "failed"
    # a clip that was made before its worker was killed is found when it is asked for again
    assert len(status) == 3 and set(status) <= {"done", "cached"}
    assert "killed" in summary.failures.reason.iloc[0]


def test_a_track_that_fails_is_its_row(clips, tmp_path, monkeypatch):
    make = preparing.make_track

    def broken(root, row, *a):
        if row["clip"] == "0":
            raise MemoryError
        return make(root, row, *a)

    monkeypatch.setattr(preparing, "make_track", broken)
    long, store = Preparation(rate=16000, long=True), Store(tmp_path / "store")
    summary = prepare(clips, long, store, ["audio"], n_jobs=1)
    assert summary.rows.status.tolist() == ["failed", "done", "done", "done"]
    row = clips.clips.to_dict("records")[3]
    assert Track(store, preparing.stream_key(row, "audio", long)).sound(0, 16000).any()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("where", ["store", "elsewhere"])
def test_a_full_disk_ends_the_command(clips, tmp_path, monkeypatch, code, where):
    full = OSError(code, os.strerror(code))

    def broken(*a, **k):
        raise full

    if where == "store":
        monkeypatch.setattr("avkit.store.save_file", broken)
    else:
        monkeypatch.setattr(preparing.media, "decode", broken)
    with pytest.raises(AvkitError, match="Disk full"):
        prepare(clips, PREP, Store(tmp_path / "store"), ["audio"], n_jobs=1)


def test_a_store_that_cannot_be_written_ends_the_command(clips, tmp_path):
    (tmp_path / "store").write_text("a file")
    with pytest.raises(AvkitError, match="Cannot write"):
        prepare(clips, PREP, Store(tmp_path / "store"), ["audio"], n_jobs=1)


@pytest.mark.parametrize("fault", FAULTS)
def test_verify_names_the_file_whatever_happens(clips, monkeypatch, fault):
    def broken(path, *a, **k):
        if Path(path).name == "2.wav":
            raise FAULTS[fault]
        return iter(())

    monkeypatch.setattr(verification, "stream", broken)
    t = verification.verify(clips, media=True, n_jobs=1)
    assert t[["file", "status"]].values.tolist() == [["2.wav", "invalid"]]
    assert "cannot be read" in t.problem.iloc[0]


def test_the_summary_is_the_same_table_for_all_kinds(clips):
    e = MemoryError("x")
    line = preparing._failed(e, clips.root, dict(clip="a"), PREP, None, ["audio"])
    done = dict(clip="b", status="done", reason="", faces=np.nan)
    assert list(pd.DataFrame([line, done])) == list(done)
    assert SimpleNamespace(**line).reason == "too little memory. x"


def test_rendered_clips_that_are_broken_on_purpose_say_so():
    "Of the demo data set, which has none of them, and of people's files nothing is excused"
    table = dict(clip=["a"], status=["failed"], reason=["it ends at 1.2 s"], faces=[1.])
    rows = pd.DataFrame(table)
    drawn, real = dict(rendered=True), dict(rendered=False)
    assert has_broken_on_purpose("vgaf", drawn)
    assert not has_broken_on_purpose("vgaf", real) and not has_broken_on_purpose("synth", drawn)
    assert ON_PURPOSE in str(Summary(rows, 1., True)) and ON_PURPOSE not in str(Summary(rows, 1.))
    assert ON_PURPOSE not in str(Summary(rows.assign(status="done", reason=""), 1., True))
