"One's own data: folders, tables, and errors that tell a newcomer what to do."

import shutil

import pytest

from avkit.core import AvkitError
from avkit.datasets.folder import drawn_face_code, index, render, drawn_voice_code
from avkit.datasets.splits import apply_split

pytest.importorskip("cv2")


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    return render(
        tmp_path_factory.mktemp("folder") / "ä b",
        speakers=5,
        takes=3,
        size=(96, 80),
        n_jobs=1,
        progress=False,
    )


def test_folders(twin):
    m = index(twin)
    assert (
        len(m) == 60
        and m.classes == ["angry", "calm", "happy", "sad"]
        and not len(m.problems)
        and m.notes["rendered"]
    )
    assert (m.clips.audio != m.clips.video).sum() == 20 and (
        m.clips.audio != ""
    ).all()  # the third take's sound is beside it
    s = apply_split(m)
    assert s.split["name"] == "kfold5" and s.split["speaker_independent"] is True


def test_ceilings_by_construction():
    for f in (drawn_face_code, drawn_voice_code):
        assert sorted(map(f, range(4))) == [0, 0, 1, 1]
    assert len({(drawn_face_code(c), drawn_voice_code(c)) for c in range(4)}) == 4


def test_speakers_not_known(twin, tmp_path):
    for p in twin.rglob("*.mp4"):
        to = tmp_path / "flat" / p.relative_to(twin).parts[0] / f"{p.parent.name}{p.name}"
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(p, to)
    s = apply_split(index(tmp_path / "flat"))
    assert s.split["speaker_independent"] is None and "cannot be checked" in s.split["note"]


def test_table(twin, tmp_path):
    m, path = index(twin).clips, tmp_path / "mine.csv"
    side = dict(zip(sorted(m.speaker.unique()), ["Train", "train", "dev", "test", "test"]))
    lines = [
        "file,audio,label,speaker,split",
        *[
            f"{r.video},{r.audio if r.audio != r.video else ''},{r.label},{r.speaker},{side[r.speaker]}"  # noqa: E501
            for r in m.itertuples()
        ],
    ]
    path.write_bytes(
        (
            "\ufeff"
            + "\r\n".join(
                [
                    *lines[:-1],
                    lines[1],
                    "",
                    "gone.mp4,,happy,anna,train",
                    lines[2].replace("rain", "rian"),
                ]
            )
        ).encode()
    )
    got = index(twin, annotations=str(path))
    assert sorted(got.problems.status) == [
        "invalid",
        "invalid",
        "missing",
        "unexpected",
        "unexpected",
    ]  # the last clip is two files
    assert f"line {len(lines)}: a second row" in " ".join(got.problems.problem)
    assert len(got) == 59 and apply_split(got).split["name"] == "official"
    path.write_text(
        "\n".join(
            [
                "file,valence,arousal,speaker",
                *[f"{r.video},{i % 7},{i % 3},{r.speaker}" for i, r in enumerate(m.itertuples())],
            ]
        )
    )
    got = index(twin, annotations=str(path))
    assert got.task == "regression" and got.targets == ["valence", "arousal"]


@pytest.mark.parametrize(
    "make,word",
    [
        (lambda d: None, "a folder per class"),
        (lambda d: (d / "happy").mkdir(), "a folder per class"),
        (
            lambda d: ((d / "happy").mkdir(), (d / "happy/a.wav").write_bytes(b"x")),
            "one class only",
        ),
        (lambda d: (d / "a.wav").write_bytes(b"x"), "tell no label"),
        (lambda d: (d / "labels.csv").write_text("file,label\na.wav\n"), "line 2"),
        (lambda d: (d / "labels.csv").write_text("path,label\na.wav,b\n"), "no such file"),
        (lambda d: (d / "labels.csv").write_text("what,label\na,b\n"), "--map file=COLUMN"),
    ],
)
def test_refusals(make, word, tmp_path):
    make(tmp_path)
    with pytest.raises(AvkitError, match=word):
        index(tmp_path)
