"""Every corpus's annotation files, line by line: what is understood, what stands in the verify
table, what is refused with file and line."""

from dataclasses import dataclass

import pytest

from avkit.core import AvkitError
from avkit.datasets import affwild2, crema_d, folder, msp_improv, vgaf
from avkit.datasets.verify import verify


@dataclass
class Case:
    "A small tree of a corpus without real media, its annotation file, and what its lines look like"

    media: list  # files to make
    file: str  # the annotation file
    header: str
    rows: list  # one for each clip, in the order of `clips`
    clips: list  # what the manifest calls them
    gone: str  # a row of a clip that is not there
    wrong: str  # the first row with a label outside its range
    short: str  # the first row with a field too few
    index: object
    headless: bool = False  # the owner's files may come without a header


def cases():
    stems = ["1001_DFA_ANG_XX", "1002_DFA_HAP_XX", "1003_DFA_SAD_XX"]
    vote = lambda n, s, v="8,1,1,0,0,0": f'"{n}",{v},"{s}",10'
    wavs = [f"AudioWAV/{s}.wav" for s in stems]
    yield (
        "crema_d votes",
        Case(
            wavs,
            "processedResults/tabulatedVotes.csv",
            '"","A","D","F","H","N","S","fileName","numResponses"',
            [vote(300001 + i, s) for i, s in enumerate(stems)],
            stems,
            vote(300009, "1004_DFA_ANG_XX"),
            vote(300001, stems[0], "-8,1,1,0,0,0"),
            '"300001",8,1,1,0,0,"1001_DFA_ANG_XX",10',
            lambda d: crema_d.index(d, label="consensus"),
        ),
    )
    one = lambda s, v="1,0,0,0,0,0": f"{s}.wav,{v}"
    yield (
        "crema_d list",
        Case(
            wavs,
            "list.csv",
            "FileName,Anger,Disgust,Fear,Happy,Neutral,Sad",
            [one(s) for s in stems],
            stems,
            one("1004_DFA_ANG_XX"),
            one(stems[0], "x,0,0,0,0,0"),
            one(stems[0], "1,0"),
            lambda d: crema_d.index(d, annotations=d / "list.csv"),
        ),
    )
    turns = [f"MSP-IMPROV-S01A-F0{k}-R-FM01" for k in (1, 2, 3)]
    yield (
        "msp_improv",
        Case(
            [f"Video/{s}.avi" for s in turns],
            "labels/l.csv",
            "FileName,EmoAct,EmoVal,EmoDom",
            [f"{s}.wav,2,3,4" for s in turns],
            turns,
            "MSP-IMPROV-S01A-F04-R-FM01.wav,2,3,4",
            f"{turns[0]}.wav,2,5.1,4",
            f"{turns[0]}.wav,2,3",
            msp_improv.index,
        ),
    )
    yield (
        "vgaf",
        Case(
            ["Train/1_1.mp4", "Train/2_1.mp4", "Train/3_1.mp4"],
            "Train_labels.txt",
            "Vid_name Label",
            ["1_1 1", "2_1 2", "3_1 3"],
            ["train/1_1", "train/2_1", "train/3_1"],
            "9_9 1",
            "1_1 4",
            "1_1",
            vgaf.index,
            True,
        ),
    )
    yield (
        "folder",
        Case(
            ["a.wav", "b.wav", "c.wav"],
            "labels.csv",
            "file,label,speaker",
            ["a.wav,x,ann", "b.wav,y,bob", "c.wav,x,cat"],
            list("abc"),
            "d.wav,x,dan",
            "a.wav,,ann",
            "a.wav,x",
            folder.index,
        ),
    )


@pytest.fixture(params=list(cases()), ids=lambda p: p[0])
def tree(request, tmp_path):
    case = request.param[1]
    for i, p in enumerate([*case.media, case.file]):
        (tmp_path / p).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / p).write_text(f"not media {i}")

    def write(*lines, head=True, end="\n", start="", blank=""):
        (tmp_path / case.file).write_bytes(
            (start + end.join([*([case.header] if head else []), *lines]) + end + blank).encode()
        )
        return lambda: case.index(tmp_path)

    return case, write


def told(m):
    "{status: text} of the verify table"
    t = verify(m, n_jobs=1)
    return {s: " ".join(g.file + " " + g.problem) for s, g in t.groupby("status")}


def test_line_ends_marks_and_blank_lines_change_nothing(tree):
    case, write = tree
    plain = write(*case.rows)()
    assert plain.clips["clip"].tolist() == case.clips and not told(plain)
    for how in (
        dict(end="\r\n"),
        dict(start="\ufeff"),
        dict(start="\ufeff", end="\r\n", blank="\r\n\r\n"),
        dict(end="\n\n"),
        dict(blank="  \n"),
    ):
        assert write(*case.rows, **how)().clips.equals(plain.clips), how


def test_short_and_long_by_a_line(tree):
    case, write = tree
    m = write(*case.rows[:-1])()
    assert m.clips["clip"].tolist() == case.clips[:-1]
    assert len(told(m)) == 1 and case.clips[-1].split("/")[-1] in next(iter(told(m).values()))
    m = write(*case.rows, case.gone)()
    assert (
        m.clips["clip"].tolist() == case.clips
        and list(told(m)) == ["missing"]
        and "there is no such" in told(m)["missing"]
    )


def test_with_and_without_a_header(tree):
    case, write = tree
    if case.headless:
        assert write(*case.rows, head=False)().clips["clip"].tolist() == case.clips
    else:
        with pytest.raises(AvkitError, match="line 1|No label list"):
            write(*case.rows, head=False)()


def test_a_label_outside_its_range(tree):
    case, write = tree
    try:
        m = write(case.wrong, *case.rows[1:])()
    except AvkitError as e:
        assert "line 2" in str(e)
    else:
        assert m.clips["clip"].tolist() == case.clips[1:] and "line 2" in told(m)["invalid"]


def test_two_rows_for_a_clip(tree):
    case, write = tree
    try:
        m = write(*case.rows, case.rows[0])()
    except AvkitError as e:
        assert "line 5" in str(e)
    else:
        assert "line 5" in told(m)["invalid"] and m.clips["clip"].is_unique


def test_a_field_too_few(tree):
    case, write = tree
    with pytest.raises(AvkitError, match="line 2"):
        write(case.short, *case.rows[1:])()


def test_an_empty_file(tree):
    case, write = tree
    with pytest.raises(AvkitError):
        write(head=False)()
    with pytest.raises(AvkitError):
        write()()


# -- Aff-Wild2: a file for each video, a line for each frame

HEAD = ",".join(affwild2.EXPRESSIONS)


@pytest.fixture
def faces(tmp_path):
    "Crops of three frames for each annotation that is put there"

    def put(name, text, folder="annotations/EXPR_Set/Train_Set", frames=3):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / f"{name}.txt").write_bytes(text.encode())
        (tmp_path / f"cropped_aligned/{name}").mkdir(parents=True, exist_ok=True)
        for i in range(frames):
            (tmp_path / f"cropped_aligned/{name}/{i + 1:05d}.jpg").touch()
        return tmp_path

    put("good", f"{HEAD}\n0\n6\n-1\n")
    return put


@pytest.mark.parametrize(
    "text,labels",
    [
        ("{H}\n1\n2\n3\n", [1, 2, 3]),
        ("1\n2\n3", [1, 2, 3]),
        ("\ufeff{H}\r\n1\r\n2\r\n3\r\n\r\n", [1, 2, 3]),
        ("{H}\n1\n2\n", [1, 2, -1]),
        ("{H}\n1\n2\n3\n4\n", [1, 2, 3, 4]),
    ],
)
def test_expressions_are_understood(faces, text, labels):
    m = affwild2.index(faces("a", text.replace("{H}", HEAD)), track="expr")
    assert m.frames["a"].tolist() == labels and not len(m.problems)


@pytest.mark.parametrize(
    "text,why",
    [
        ("hello\n1\n2\n3\n", "line 1: 'hello'"),
        ("Neutral,Anger\n0\n1\n0\n", "line 1"),
        ("{H}\n1\n7\n3\n", "line 3: '7'"),
        ("{H}\n1\n-2\n3\n", "line 3"),
        ("{H}\n1\n1.5\n3\n", "line 3"),
        ("{H}\n1\n\n3\n", "line 3: blank"),
        ("{H}\n1\n2,3\n3\n", "line 3"),
        ("{H}\n", "no label"),
        ("", "no label"),
        ("{H}\n1\n", "1 labels for 3 frames"),
    ],
)
def test_expressions_that_are_set_aside(faces, text, why):
    m = affwild2.index(faces("a", text.replace("{H}", HEAD)), track="expr")
    assert (
        list(m.frames) == ["good"] and why in told(m)["invalid"] and "a.txt" in told(m)["invalid"]
    )


def test_editions_are_not_mixed(faces):
    eight = f"{HEAD},Other\n7\n1\n1\n"
    root = faces("b", eight)
    with pytest.raises(
        AvkitError,
        match="editions are mixed: .*good.txt names 7.*b.txt 8|editions are mixed: .*b.txt names 8.*good.txt 7",  # noqa: E501
    ):
        affwild2.index(root, track="expr")
    faces("b", "7\n1\n1\n")
    with pytest.raises(AvkitError, match="b has the label 7"):
        affwild2.index(root, track="expr")
    (root / "annotations/EXPR_Set/Train_Set/b.txt").unlink()
    faces("b", eight, "later/EXPR_Classification_Challenge/Train_Set")
    with pytest.raises(AvkitError, match="2 editions, EXPR_Classification_Challenge and EXPR_Set"):
        affwild2.index(root, track="expr")
    m = affwild2.index(root, track="expr", annotations=root / "later")
    assert (
        m.classes[-1] == "Other"
        and m.notes["edition"] == "EXPR_Classification_Challenge, 8 expressions"
        and list(m.frames) == ["b"]
    )


def test_a_video_on_two_sides_and_a_video_without_annotation(faces):
    root = faces("a", f"{HEAD}\n1\n1\n1\n")
    faces("a", f"{HEAD}\n2\n2\n2\n", "annotations/EXPR_Set/Validation_Set")
    (root / "videos").mkdir()
    (root / "videos/alone.mp4").write_bytes(b"x")
    (root / "annotations/EXPR_Set/Train_Set/nobody.txt").write_text("1\n")
    m = affwild2.index(root, track="expr")
    assert list(m.frames) == ["good"] and told(m)["invalid"].count("two annotations") == 2
    assert "alone.mp4" in told(m)["unexpected"] and "nobody.txt" in told(m)["missing"]


def test_tracks_are_told_by_the_nearest_folder(faces):
    root = faces("a", "valence,arousal\n.1,.2\n.1,.2\n-5,.2\n", "annotations/VA_Set/valid")
    faces("u", "1\n1\n1\n", "annotations/AU_Set/Train_Set")
    va = affwild2.index(root, track="va")
    assert (
        va.clips.official.tolist() == ["validation"]
        and list(va.frames) == ["a"]
        and list(affwild2.index(root, track="expr").frames) == ["good"]
    )


# -- one's own numbers


def test_numbers_of_ones_own(tmp_path):
    for n in "abc":
        (tmp_path / f"{n}.wav").write_text(n)
    table = lambda text: (tmp_path / "labels.csv").write_text(text) and folder.index(tmp_path)
    assert table("file,valence\na.wav,.5\nb.wav,1\nc.wav,2\n").targets == ["valence"]
    for bad in ("x", "inf", "nan"):
        with pytest.raises(AvkitError, match=f"line 3: valence={bad!r}"):
            table(f"file,valence\na.wav,.5\nb.wav,{bad}\nc.wav,2\n")
    with pytest.raises(AvkitError, match="capitals"):
        table("file,label\na.wav,Happy\nb.wav,happy\n")
    m = table("file,label,split\na.wav,x,train\nb.wav,y,\nc.wav,y,test\n")
    assert "line 3: no split" in told(m)["invalid"] and m.notes["default_split"] == "official"


@pytest.mark.parametrize(
    "text,got",
    [
        ("clip,split\na,train\nb.wav,dev\nc,Test\n", ["train", "validation", "test"]),
        ("\ufeffFileName,Split_Set\r\na.wav,Train\r\nb,dev\r\n\r\n", ["train", "validation", ""]),
        ("speaker,split\n1,train\n2,test\n03,val", ["train", "test", "validation"]),
        ("clip,split\na,train\na,test", r"'a' on two sides \(line 3\)"),
        ("clip,split\na,tst", "line 2, names 'tst'"),
        ("clip,split\na", "line 2: 1 fields"),
        ("clip\na", "needs the columns"),
        ("clip,split\nx,train", "none of the 3 clips"),
        ("clip,split\n", "no row"),
        ("", "empty"),
    ],
)
def test_a_split_of_ones_own(tmp_path, text, got):
    import pandas as pd
    from avkit.datasets.splits import assign_file

    clips = pd.DataFrame(dict(clip=list("abc"), speaker=["01", "02", "03"]))
    (tmp_path / "s.csv").write_bytes(text.encode())
    if isinstance(got, list):
        assert assign_file(clips, tmp_path / "s.csv").tolist() == got
    else:
        with pytest.raises(AvkitError, match=got):
            assign_file(clips, tmp_path / "s.csv")
