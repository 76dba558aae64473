"Aff-Wild2: the twin, line i is frame i, two people, crops, poses, and tracks in the store."

import shutil
from dataclasses import replace

import numpy as np
import pytest

from avkit.core import AvkitError
from avkit.datasets.affwild2 import _plan, expression_of, index, labels_of, render
from avkit.datasets.splits import apply_split
from avkit.preprocessing.prepare import Preparation, prepare, prepare_clip, stream_key
from avkit.store import Store
from avkit.preprocessing.tracks import Track

pytest.importorskip("cv2")
SMALL = dict(videos=4, takes=0, size=(96, 72), progress=False)


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    return render(tmp_path_factory.mktemp("aff") / "ä b", n_jobs=1, **SMALL)


@pytest.fixture(scope="module")
def untouched(twin):
    "The manifest of valence and arousal"
    return index(twin, track="va")


def test_labels_are_what_was_rendered(untouched):
    m = untouched
    assert (
        m.level == "frame"
        and m.task == "regression"
        and len(m) == 6
        and not len(m.problems)
        and m.notes["rendered"]
    )
    for r in m.clips.itertuples():
        y, truth = (
            m.frames[r.clip],
            labels_of({v.name: v for v in _plan(4, 0)}[r.recording], r.person),
        )
        known = ~np.isnan(y).any(1)
        assert len(y) == r.n_frames and np.abs(y - truth)[known].max() < 6e-4
        assert (~known).sum() == (60 if r.clip == "video3" else 0)
    assert sorted(m.clips.fps.round().astype(int).unique()) == [15, 24, 25, 30]


def test_expressions(twin, untouched):
    m = index(twin, track="expr")
    assert (
        m.classes[4] == "Happiness"
        and len(m.classes) == 7
        and (m.frames["video3"][200:260] == -1).all()
    )
    va = untouched.frames["video1"]
    assert (m.frames["video1"] == expression_of(va)).mean() > 0.99


def test_two_people_stay_on_one_side(untouched):
    m = untouched
    two = m.clips[m.clips.person != ""]
    assert (
        two.recording.nunique() == 1
        and set(two.person) == {"left", "right"}
        and set(two.crops) == {f"cropped_aligned/{c}" for c in two["clip"]}
    )
    clips = m.clips.assign(
        official=np.where(m.clips.person == "left", "validation", m.clips.official)
    )
    with pytest.raises(AvkitError, match="more than one of train"):
        apply_split(replace(m, clips=clips))


@pytest.mark.parametrize(
    "change,word",
    [
        (lambda t: t.replace("\n", "\n\n", 3), "line 2: blank"),
        (lambda t: t + "\n\n", None),
        (lambda t: "\ufeff" + t.replace("\n", "\r\n"), None),
        (lambda t: t.split("\n", 1)[1], None),
        (lambda t: t + "0,0\n", None),
        (lambda t: t.rsplit("\n", 2)[0] + "\n", None),
        (lambda t: t + "0,0\n0,0\n", "labels for"),
        (lambda t: t + "2,0\n", "outside"),
        (lambda t: t + "a,b\n", "not two numbers"),
        (lambda t: t.replace("valence,arousal", "arousal,valence"), "line 1"),
    ],
)
def test_annotation_files(twin, untouched, change, word):
    p = twin / "annotations/VA_Set/Train_Set/video2.txt"
    whole = p.read_bytes()
    good = untouched.frames["video2"]
    try:
        p.write_bytes(change(whole.decode()).encode())
        m = index(twin, track="va")
        if word:
            assert word in m.problems.problem.iloc[0] and "video2" not in m.frames
        else:
            assert (
                not len(m.problems)
                and (np.isnan(m.frames["video2"]) | (m.frames["video2"] == good)).all()
            )
    finally:
        p.write_bytes(whole)


def test_trees_that_are_not_whole(twin, tmp_path):
    root = shutil.copytree(twin, tmp_path / "c")
    shutil.rmtree(root / "videos")
    m = index(root, track="va")  # crops alone will do
    assert set(m.clips["clip"]) == {
        "video1",
        "video2",
        "video4",
        "10-60-1280x720_left",
        "10-60-1280x720_right",
    } and "missing" in set(m.problems.status)
    shutil.rmtree(root / "cropped_aligned")
    with pytest.raises(AvkitError, match="neither videos/ nor cropped_aligned/"):
        index(root, track="va")
    shutil.rmtree(root / "annotations")
    with pytest.raises(AvkitError, match="No annotations of track va"):
        index(root, track="va")
    with pytest.raises(AvkitError, match="track=va"):
        index(twin)


def test_tracks(twin, untouched, tmp_path):
    some = untouched.clips["clip"].isin(["video1", "video2"])
    m, store = replace(untouched, clips=untouched.clips[some]), Store(tmp_path)
    prep = Preparation(
        long=True, size=48, every=5, rate=8000, detector="none", views=("frame", "context", "body")
    )
    s = prepare(m, prep, store, n_jobs=1).rows.set_index("clip")
    assert s.status["video1"] == "done" and "OpenPose" in s.reason["video2"]  # it has no poses
    t = Track(
        store, stream_key(m.clips[m.clips["clip"] == "video1"].iloc[0], "video", prep, m.root)
    )
    frame, context, body = (t.picture(v, 3).astype(int) for v in prep.views)
    assert (
        context[20, 24].max() < 20 < frame[20, 24].max()
        and body.shape == (48, 48, 3)
        and np.abs(context[0, 0] - frame[0, 0]).max() < 20
    )
    given = Preparation(long=True, size=112, every=1, rate=8000, detector="given")
    crops = prepare(m, given, store, ["video"], n_jobs=1).rows.set_index("clip")
    assert crops.status["video2"] == "done" and crops.faces["video2"] < len(m.frames["video2"])
    t = Track(
        store, stream_key(m.clips[m.clips["clip"] == "video2"].iloc[0], "video", given, m.root)
    )
    assert (
        not t.found[38] and not t.found[39] and t.found[:38].all() and t.picture("face", 38) is None
    )
    assert (
        t.picture("face", 0)
        == __import__("cv2").imread(str(twin / "cropped_aligned/video2/00001.jpg"))[..., ::-1]
    ).all()


def test_the_owners_crops_beside_other_views(twin, untouched, tmp_path):
    m, store = untouched, Store(tmp_path)
    one = m.clips[m.clips["clip"] == "video1"].iloc[0]
    prep = Preparation(
        long=True, size=112, every=5, rate=8000, detector="given", views=("face", "body", "context")
    )
    assert prepare_clip(m.root, one.to_dict(), prep, store, ["video"])["status"] == "done"
    t = Track(store, stream_key(one, "video", prep, m.root))
    face, body, context = (t.picture(v, 3) for v in prep.views)
    assert (
        face == __import__("cv2").imread(str(twin / "cropped_aligned/video1/00016.jpg"))[..., ::-1]
    ).all()
    assert body.shape == context.shape == face.shape and context[50, 56].max() < 20
