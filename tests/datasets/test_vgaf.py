"VGAF: the twin, tensors that execute nothing, and what is set aside; the scenes it is made of."

import pickle
import shutil

import numpy as np
import pytest
import torch

from avkit.core import AvkitError
from avkit.datasets.vgaf import _plan, index, render
from avkit.preprocessing.media import read_tensor
from avkit.datasets.splits import apply_split
from avkit.cli import main
from avkit.datasets.scenes import make_scenes

pytest.importorskip("cv2")
SMALL = dict(train=12, val=6, size=96, progress=False)


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    return render(tmp_path_factory.mktemp("vgaf") / "ä b", n_jobs=1, **SMALL)


def test_twin(twin):
    m = index(twin)
    assert m.classes == ["Positive", "Neutral", "Negative"] and m.notes["rendered"] and len(m) == 17
    assert {tuple(p) for p in m.problems[["file", "status"]].values} == {
        ("99_999", "missing"),
        ("12_12", "unexpected"),
    }
    s = apply_split(m)
    assert (
        s.clips.split.value_counts().to_dict() == dict(train=11, validation=6)
        and s.split["speaker_independent"] is None
    )
    truth = {
        f"{dict(Train='train', Val='validation')[s]}/{n}": m.classes[l]
        for s, n, l, *_ in _plan(12, 6)
    }
    assert (m.clips.label == m.clips["clip"].map(truth)).all()


def test_six_validation_clips_are_three_films_and_three_sounds(twin):
    from avkit.preprocessing.media import decode

    clips = [decode(twin / f"Val/{n}.mp4") for s, n, *_ in _plan(12, 6) if s == "Val"]
    codes = [(s, h) for side, _, _, s, h, _ in _plan(12, 6) if side == "Val"]
    for i, a in enumerate(clips):
        for j, b in enumerate(clips):
            assert np.array_equal(a.frames, b.frames) == (codes[i][0] == codes[j][0]), (i, j)
            assert np.array_equal(a.sound, b.sound) == (codes[i][1] == codes[j][1]), (i, j)


def test_tensors_instead_of_clips(tmp_path):
    (tmp_path / "Val").mkdir()
    (tmp_path / "Train").mkdir()
    for side, n in (("Train", 3), ("Val", 2)):
        for i in range(n):
            for frames in (5, 75):
                torch.save(
                    torch.zeros(frames, 3, 8, 8), tmp_path / side / f"{i}_1.mp4.img.{frames}.pt"
                )
            torch.save(torch.zeros(5, 1, 106, 106), tmp_path / side / f"{i}_1.mp4.spec.5.pt")
        (tmp_path / f"{side}_labels.txt").write_text(
            "\n".join(f"{i}_1 {i % 3 + 1}" for i in range(n))
        )
    m = index(tmp_path)
    assert (
        len(m) == 5
        and m.clips.img_pt.str.endswith(".img.75.pt").all()
        and m.clips.spec_pt.str.endswith(".spec.5.pt").all()
    )


def test_a_tensor_file_executes_nothing(tmp_path):
    class Bad:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    (tmp_path / "a.pt").write_bytes(pickle.dumps(Bad()))
    with pytest.raises(AvkitError, match="nothing is executed"):
        read_tensor(tmp_path / "a.pt")
    torch.save(Bad(), tmp_path / "b.pt")
    with pytest.raises(AvkitError, match="nothing is executed"):
        read_tensor(tmp_path / "b.pt")
    assert not (tmp_path / "ran").exists()
    torch.save(torch.zeros(5, 4), tmp_path / "c.pt")
    with pytest.raises(AvkitError, match=r"not \(5, 4\)"):
        read_tensor(tmp_path / "c.pt")


def test_label_files(twin):
    p = twin / "Train_labels.txt"
    whole = p.read_text()
    try:
        p.write_text(whole + "2_2 3\n3_3 9\n")
        m = index(twin)
        assert (
            any("a second row" in t for t in m.problems.problem)
            and any("label '9'" in t for t in m.problems.problem)
            and "train/2_2" not in set(m.clips["clip"])
        )
        p.write_text(whole.replace("2_2 2", "2_2,2"))
        with pytest.raises(AvkitError, match="line 3"):
            index(twin)
        p.unlink()
        with pytest.raises(AvkitError, match="no label file"):
            index(twin)
    finally:
        p.write_text(whole)


def test_same_bytes_whatever_is_there(twin, tmp_path):
    "Some clips, by themselves; test_synth renders a whole plan in two processes"
    read = lambda r: {
        p.relative_to(r).as_posix(): p.read_bytes() for p in sorted(r.rglob("*.*")) if p.is_file()
    }
    some = shutil.copytree(twin, tmp_path / "b")
    for path in sorted(some.rglob("*.mp4"))[::3]:
        path.unlink()
    assert len(read(some)) < len(read(twin))
    assert read(render(some, n_jobs=1, **SMALL)) == read(twin)


def test_scenes_with_pictures_of_ones_own(tmp_path):
    import cv2

    for d in ("back", "faces/Neutral"):
        (tmp_path / d).mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "back/a.jpg"), np.full((50, 80, 3), 90, np.uint8))
    face = np.zeros((40, 40, 4), np.uint8)
    face[10:30, 10:30] = 255
    cv2.imwrite(str(tmp_path / "faces/Neutral/f.png"), face)
    make_scenes(
        tmp_path / "out",
        1,
        ["Neutral"],
        tmp_path / "back",
        tmp_path / "faces",
        frames=2,
        n_jobs=1,
        progress=False,
    )
    x = cv2.imread(str(tmp_path / "out/Neutral/synt_00000/1.png"))
    assert x.shape == (326, 326, 3) and {90, 255} <= set(np.unique(x)) and (x == 90).mean() > 0.5
    cv2.imwrite(str(tmp_path / "faces/Neutral/f.png"), face[..., :3])
    with pytest.raises(AvkitError, match="no transparency"):
        make_scenes(
            tmp_path / "out2", 1, ["Neutral"], None, tmp_path / "faces", n_jobs=1, progress=False
        )


def test_tensors_are_prepared(tmp_path):
    from avkit.preprocessing.prepare import Preparation, prepare, stream_key
    from avkit.store import Store

    root = tmp_path / "c"
    for side in ("Train", "Val"):
        (root / side).mkdir(parents=True)
        x = torch.full((5, 3, 16, 16), 0.5)
        torch.save(x, root / side / "1_1.mp4.img.5.pt")
        torch.save(x - 1, root / side / "2_1.mp4.img.5.pt")
        (root / f"{side}_labels.txt").write_text("1_1 1\n2_1 2\n")
    m, prep, store = index(root), Preparation(size=8, views=("frame",)), Store(tmp_path / "s")
    rows = prepare(m, prep, store, ["video"], n_jobs=1).rows.set_index("clip")
    assert rows.status["train/1_1"] == "done" and "0..255" in rows.reason["train/2_1"]
    got = store.get(stream_key(m.clips.iloc[0], "video", prep))[0]["frame"]
    assert got.shape == (5, 3, 8, 8) and (got == 128).all()


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    "Six clips to train on, three to validate, that nobody decodes; two scenes a label"
    d = tmp_path_factory.mktemp("mix")
    for side, n in (("Train", 6), ("Val", 3)):
        (d / side).mkdir()
        for i in range(n):
            (d / side / f"{i}_1.mp4").write_bytes(f"{side}{i}".encode())
        (d / f"{side}_labels.txt").write_text("\n".join(f"{i}_1 {i % 3 + 1}" for i in range(n)))
    assert (
        main(
            [
                "scenes",
                "--to",
                str(d / "scenes"),
                "--n",
                "2",
                "--every",
                "25",
                "--faces",
                "3",
                "4",
                "--n_jobs",
                "1",
            ]
        )
        == 0
    )
    return d


@pytest.mark.parametrize(
    "rate,scenes,train", [(0.0, 0, 6), (0.1, 0, 6), (0.3, 3, 9), (0.5, 6, 12), (1.0, 6, 6)]
)
def test_synthetic_scenes_are_trained_on_and_nothing_else(bare, rate, scenes, train):
    m = index(bare, synt_rate=rate, synthetic=bare / "scenes" if rate else None)
    assert (
        m.clips.synthetic.sum() == scenes
        and m.notes.get("synthetic", 0) == scenes
        and not len(m.problems)
    )
    assert (
        m.clips[m.clips.synthetic].groupby("label").size().nunique() <= 1
        and (m.clips.audio[m.clips.synthetic] == "").all()
    )
    for split in (None, "random", "kfold3"):
        if rate == 1 and split:
            continue  # three clips are too few to split
        s = apply_split(m, split).clips
        assert (s.split[s.synthetic] == "train").all()
        if split is None:
            assert s.split.value_counts().to_dict() == dict(train=train, validation=3)


def test_scenes_are_prepared_and_what_is_wrong_with_them_is_told(bare, tmp_path):
    from avkit.preprocessing.prepare import Preparation, prepare, stream_key
    from avkit.store import Store

    m, prep, store = (
        index(bare, synt_rate=0.5, synthetic=bare / "scenes"),
        Preparation(size=16, frames=2, views=("frame",)),
        Store(tmp_path / "s"),
    )
    one = m.clips[m.clips.synthetic].iloc[:1]
    from dataclasses import replace

    assert prepare(
        replace(m, clips=one), prep, store, ["video"], n_jobs=1
    ).rows.status.tolist() == ["done"]
    assert store.get(stream_key(one.iloc[0], "video", prep))[0]["frame"].shape == (2, 3, 16, 16)
    path = bare / "scenes/Neutral_labels.txt"
    whole = path.read_text()
    try:
        path.write_bytes(
            (
                "\ufeff" + whole.replace("\n", "\r\n") + "\r\nsynt_00000 1\nsynt_00001 2\ngone 1\n"
            ).encode()
        )
        p = index(bare, synt_rate=0.3, synthetic=bare / "scenes").problems
        assert sorted(p.status) == ["invalid", "invalid", "missing"] and all(
            "Neutral_labels.txt, line" in t for t in p.problem
        )
        path.write_text(whole.replace("synt_00000 1\n", ""))
        assert index(bare, synt_rate=0.3, synthetic=bare / "scenes").problems.status.tolist() == [
            "unexpected"
        ]
        with pytest.raises(AvkitError, match="1 of Neutral"):
            index(bare, synt_rate=0.5, synthetic=bare / "scenes")
        path.unlink()
        with pytest.raises(AvkitError, match="no Neutral_labels.txt"):
            index(bare, synt_rate=0.3, synthetic=bare / "scenes")
    finally:
        path.write_text(whole)
    with pytest.raises(AvkitError, match="0 to 1"):
        index(bare, synt_rate=1.5)
    with pytest.raises(AvkitError, match="synt_rate"):
        index(bare, synthetic=bare / "scenes")
