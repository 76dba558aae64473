"MSP-IMPROV: the twin, labels turned round once, and what is set aside."

import shutil
import numpy as np
import pytest

from avkit.core import AvkitError
from avkit.datasets.msp_improv import MSP_TARGETS, _plan, _targets, index, render
from avkit.datasets.splits import apply_split

pytest.importorskip("cv2")
MEDIA = {".avi", ".flv", ".mp4", ".wav"}
SMALL = dict(takes=3, size=(96, 80), progress=False)


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    return render(tmp_path_factory.mktemp("msp") / "ä b", n_jobs=1, **SMALL)


def test_labels_are_what_was_rendered(twin):
    m = index(twin)
    assert (
        m.task == "regression" and m.targets == MSP_TARGETS and m.notes["rendered"] and len(m) == 35
    )
    truth = {s: _targets(a, v) for s, _, a, v in _plan(3, 0)}
    got = m.clips.set_index("clip")[MSP_TARGETS]
    assert all(
        np.abs(got.loc[s].to_numpy() - y).max() < 1e-6 for s, y in truth.items() if s in got.index
    )


def test_arousal_is_turned_round_once(twin):
    first, again = index(twin), index(twin)
    assert (first.clips.arousal == again.clips.arousal).all()
    rows = dict(
        l.split(",")[:2]
        for l in (twin / "labels/labels_consensus.csv").read_text().splitlines()[1:]
    )
    assert all(
        abs(r.arousal + float(rows[r.clip + ".wav"]) - 6) < 1e-9 for r in first.clips.itertuples()
    )


def test_sessions_are_speaker_independent(twin):
    m = index(twin)
    tested = [set(apply_split(m, None, k).clips.query("split == 'test'").speaker) for k in range(6)]
    assert [sorted(t) for t in tested] == [[f"F0{k}", f"M0{k}"] for k in range(1, 7)]
    assert apply_split(m).split["speaker_independent"] is True


def test_problems(twin, tmp_path):
    p = index(twin).problems
    assert sorted(p.status) == ["missing", "unexpected"]
    path = twin / "labels/labels_consensus.csv"
    whole = path.read_text()
    rows = whole.splitlines()
    try:
        path.write_text(
            "\n".join(
                [
                    rows[0],
                    *rows[2:],
                    rows[3],
                    rows[1].replace(",", ",0.5,", 1).rsplit(",", 3)[0] + ",x,y",
                ]
            )
        )
        p = index(twin).problems
        assert any(f"line {len(rows)}: a second row" in t for t in p.problem) and any(
            "EmoAct='0.5'" in t for t in p.problem
        )
        path.write_text("\n".join(rows[1:]))
        with pytest.raises(AvkitError, match="No label list"):
            index(twin)
        path.write_text("\n".join([rows[0], rows[1].rsplit(",", 1)[0]]))
        with pytest.raises(AvkitError, match="line 2: 5 fields"):
            index(twin)
    finally:
        path.write_text(whole)


def test_official_sides(twin, tmp_path):
    m = index(twin)
    side = {1: "Train", 2: "Train", 3: "Train", 4: "Development", 5: "Development", 6: "Test"}
    path = tmp_path / "list.csv"
    path.write_text(
        "FileName,EmoAct,EmoVal,EmoDom,Split_Set\n"
        + "\n".join(f"{r.clip}.avi,3,3,3,{side[r.session]}" for r in m.clips.itertuples())
    )
    got = apply_split(index(twin, annotations=str(path)))
    assert got.split["name"] == "official" and set(got.clips.split) == {
        "train",
        "validation",
        "test",
    }


def test_same_bytes_whatever_is_there(twin, tmp_path):
    "Some clips, by themselves; test_ravdess renders a whole plan in two processes"
    read = lambda r: {
        p.relative_to(r).as_posix(): p.read_bytes() for p in sorted(r.rglob("*.*")) if p.is_file()
    }
    some = shutil.copytree(twin, tmp_path / "b")
    for path in sorted(p for p in some.rglob("*.*") if p.suffix in MEDIA)[::5]:
        path.unlink()
    assert len(read(some)) < len(read(twin))
    assert read(render(some, n_jobs=1, **SMALL)) == read(twin)
