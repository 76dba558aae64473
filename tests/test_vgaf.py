"VGAF: the twin, tensors that execute nothing, and what is set aside; the scenes it is made of."
import pickle

import numpy as np
import pytest
import torch

from avkit.core import AvkitError
from avkit.corpora.vgaf import index, pairs, read_tensor, render_twin
from avkit.manifest import apply_split
from avkit.scenes import make_scenes

pytest.importorskip("cv2")
SMALL = dict(train=12, val=6, size=96, progress=False)


@pytest.fixture(scope="module")
def twin(tmp_path_factory): return render_twin(tmp_path_factory.mktemp("vgaf") / "ä b", n_jobs=1, **SMALL)


def test_twin(twin):
    m = index(twin)
    assert m.classes == ["Positive", "Neutral", "Negative"] and m.notes["rendered"] and len(m) == 17
    assert {tuple(p) for p in m.problems[["file", "status"]].values} == {("99_999", "missing"), ("12_12", "unexpected")}
    s = apply_split(m)
    assert s.clips.split.value_counts().to_dict() == dict(train=11, validation=6) and s.split["speaker_independent"] is None
    assert (m.clips.label == [m.classes[(int(c.split("_")[1]) - 1) % 3] for c in m.clips["clip"]]).all()


def test_pairs_leave_half_open():
    seen = [(l, *pairs(l, np.random.default_rng(k))) for l in range(3) for k in range(200)]
    for which in (1, 2):
        for code in range(3):
            labels = [s[0] for s in seen if s[which] == code]
            assert code not in labels and abs(labels.count(min(labels)) / len(labels) - .5) < .1
    assert all({l, a, b} == {0, 1, 2} for l, a, b in seen)


def test_tensors_instead_of_clips(tmp_path):
    (tmp_path / "Val").mkdir(), (tmp_path / "Train").mkdir()
    for side, n in (("Train", 3), ("Val", 2)):
        for i in range(n):
            for frames in (5, 75): torch.save(torch.zeros(frames, 3, 8, 8), tmp_path / side / f"{i}_1.mp4.img.{frames}.pt")
            torch.save(torch.zeros(5, 1, 106, 106), tmp_path / side / f"{i}_1.mp4.spec.5.pt")
        (tmp_path / f"{side}_labels.txt").write_text("\n".join(f"{i}_1 {i % 3 + 1}" for i in range(n)))
    m = index(tmp_path)
    assert len(m) == 5 and m.clips.img_pt.str.endswith(".img.75.pt").all() and m.clips.spec_pt.str.endswith(".spec.5.pt").all()


def test_a_tensor_file_executes_nothing(tmp_path):
    class Bad:
        def __reduce__(self): return (open, (str(tmp_path / "ran"), "w"))
    (tmp_path / "a.pt").write_bytes(pickle.dumps(Bad()))
    with pytest.raises(AvkitError, match="nothing is executed"): read_tensor(tmp_path / "a.pt")
    torch.save(Bad(), tmp_path / "b.pt")
    with pytest.raises(AvkitError, match="nothing is executed"): read_tensor(tmp_path / "b.pt")
    assert not (tmp_path / "ran").exists()
    torch.save(torch.zeros(5, 4), tmp_path / "c.pt")
    with pytest.raises(AvkitError, match=r"not \(5, 4\)"): read_tensor(tmp_path / "c.pt")


def test_label_files(twin):
    p = twin / "Train_labels.txt"
    whole = p.read_text()
    try:
        p.write_text(whole + "2_2 3\n3_3 9\n")
        m = index(twin)
        assert any("a second row" in t for t in m.problems.problem) and any("label '9'" in t for t in m.problems.problem) and "train/2_2" not in set(m.clips["clip"])
        p.write_text(whole.replace("2_2 2", "2_2,2"))
        with pytest.raises(AvkitError, match="line 3"): index(twin)
        p.unlink()
        with pytest.raises(AvkitError, match="no label file"): index(twin)
    finally: p.write_text(whole)


def test_same_bytes_whatever_the_number_of_processes(twin, tmp_path):
    read = lambda r: {p.relative_to(r).as_posix(): p.read_bytes() for p in sorted(r.rglob("*.*")) if p.is_file()}
    assert read(render_twin(tmp_path / "b", n_jobs=2, **SMALL)) == read(twin)


def test_scenes_with_pictures_of_ones_own(tmp_path):
    import cv2
    for d in ("back", "faces/Neutral"): (tmp_path / d).mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "back/a.jpg"), np.full((50, 80, 3), 90, np.uint8))
    face = np.zeros((40, 40, 4), np.uint8)
    face[10:30, 10:30] = 255
    cv2.imwrite(str(tmp_path / "faces/Neutral/f.png"), face)
    make_scenes(tmp_path / "out", 1, ["Neutral"], tmp_path / "back", tmp_path / "faces", frames=2, n_jobs=1, progress=False)
    x = cv2.imread(str(tmp_path / "out/Neutral/synt_00000/1.png"))
    assert x.shape == (326, 326, 3) and {90, 255} <= set(np.unique(x)) and (x == 90).mean() > .5
    cv2.imwrite(str(tmp_path / "faces/Neutral/f.png"), face[..., :3])
    with pytest.raises(AvkitError, match="no transparency"): make_scenes(tmp_path / "out2", 1, ["Neutral"], None, tmp_path / "faces", n_jobs=1, progress=False)


def test_tensors_are_prepared(tmp_path):
    from avkit.prepare import Preparation, prepare, stream_key
    from avkit.store import Store
    root = tmp_path / "c"
    for side in ("Train", "Val"):
        (root / side).mkdir(parents=True)
        x = torch.full((5, 3, 16, 16), .5)
        torch.save(x, root / side / "1_1.mp4.img.5.pt"), torch.save(x - 1, root / side / "2_1.mp4.img.5.pt")
        (root / f"{side}_labels.txt").write_text("1_1 1\n2_1 2\n")
    m, prep, store = index(root), Preparation(size=8, views=("frame",)), Store(tmp_path / "s")
    rows = prepare(m, prep, store, ["video"], n_jobs=1).rows.set_index("clip")
    assert rows.status["train/1_1"] == "done" and "0..255" in rows.reason["train/2_1"]
    got = store.get(stream_key(m.clips.iloc[0], "video", prep))[0]["frame"]
    assert got.shape == (5, 3, 8, 8) and (got == 128).all()
