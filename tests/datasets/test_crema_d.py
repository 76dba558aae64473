"CREMA-D: the owners' own tables, the twin, and what is refused."

import shutil

import numpy as np
import pytest

from avkit.core import AvkitError
from avkit.datasets.crema_d import (
    CREMA_D_EMOTIONS,
    rater_face_code,
    index,
    read_votes,
    render,
    rater_voice_code,
)
from avkit.datasets.splits import apply_split
from avkit.preprocessing.media import decode

pytest.importorskip("cv2")
MEDIA = {".avi", ".flv", ".mp4", ".wav"}
SMALL = dict(actors=3, takes=1, size=(96, 80), progress=False)


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    return render(tmp_path_factory.mktemp("crema") / "ä b", n_jobs=1, **SMALL)


def test_real_tables(shared_data):
    root = shared_data / "crema_d"
    intended, consensus = index(root, label="intended"), index(root, label="consensus")
    assert (
        len(intended) == 7442
        and len(consensus) == 5913
        and not len(intended.problems)
        and not len(consensus.problems)
    )
    votes = read_votes(root)
    asked = intended.clips.set_index("clip").intended
    names = np.array(list(CREMA_D_EMOTIONS.values()))
    agree = {
        k: (names[v[list(names)].to_numpy().argmax(1)] == asked[v["clip"]].to_numpy()).mean()
        for k, v in votes.groupby("raters")
    }
    assert {k: round(v, 3) for k, v in agree.items()} == {
        "voice": 0.455,
        "face": 0.690,
        "audio-visual": 0.748,
    }
    for split, folds in (("blocks5", 5), ("draws5", 5)):
        tested = [
            set(apply_split(intended, split, k).clips.query("split == 'test'").speaker)
            for k in range(folds)
        ]
        assert all(tested) and (
            split == "draws5" or len(set.union(*tested)) == sum(map(len, tested)) == 91
        )
    draw = apply_split(intended, "draws5", 0).clips.groupby("split").speaker.nunique()
    assert draw.to_dict() == dict(train=63, validation=14, test=14)


def test_twin_is_the_owners_layout(twin):
    names = sorted(p.relative_to(twin).as_posix() for p in twin.rglob("*.*") if p.is_file())
    assert {n.split("/")[0] for n in names} == {
        "AudioWAV",
        "VideoFlash",
        "SentenceFilenames.csv",
        "VideoDemographics.csv",
        "processedResults",
        "synth.json",
    }
    m = index(twin, label="intended")
    assert len(m) == 18 and m.notes["rendered"] and not len(m.problems)
    assert m.clips.label.value_counts().nunique() == 1 and (m.clips.label == m.clips.intended).all()
    sound = decode(twin / m.clips.audio[0], video=False)
    assert 3 < sound.duration < 4.1


def test_consensus_is_what_was_rendered(twin):
    m = index(twin, label="consensus")
    assert (
        0 < len(m) < 18
        and (m.clips.label == m.clips.intended).all()
        and m.notes["no_majority"] == 18 - len(m)
    )
    assert (m.clips[[f"votes_{e}" for e in CREMA_D_EMOTIONS.values()]].sum(axis=1) == 10).all()


def test_ceilings_by_construction():
    codes = [(rater_face_code(e), rater_voice_code(e)) for e in range(6)]
    assert len(set(codes)) == 6
    for k in (0, 1):
        assert all([c[k] for c in codes].count(v) == 2 for v in range(3))


def test_same_bytes_whatever_is_there(twin, tmp_path):
    "Some clips, by themselves; test_synth renders a whole plan in two processes"
    read = lambda r: {
        p.relative_to(r).as_posix(): p.read_bytes() for p in sorted(r.rglob("*.*")) if p.is_file()
    }
    some = shutil.copytree(twin, tmp_path / "b")
    for path in sorted(p for p in some.rglob("*.*") if p.suffix in MEDIA)[::5]:
        path.unlink()
    assert len(read(some)) < len(read(twin))
    assert read(render(some, n_jobs=1, **SMALL)) == read(twin)


def test_odd_media_are_there(twin):
    stereo = sorted(twin.rglob("*.wav"), key=lambda p: p.stat().st_size)[-1]
    from avkit.preprocessing.media import probe

    assert probe(stereo).audio["channels"] == 2


def test_problems_and_refusals(twin, tmp_path):
    root = shutil.copytree(twin, tmp_path / "c")
    (root / "AudioWAV/1001_XXX_ANG_XX.wav").write_bytes(b"")
    lost = next((root / "AudioWAV").glob("1006_*"))
    lost.unlink()
    (root / f"VideoFlash/{lost.stem}.flv").unlink()
    p = index(root, label="intended").problems
    assert set(zip(p.file, p.status)) == {
        ("AudioWAV/1001_XXX_ANG_XX.wav", "invalid"),
        (lost.stem, "missing"),
    }
    with pytest.raises(AvkitError, match="no default"):
        index(root)
    votes = root / "processedResults/tabulatedVotes.csv"
    lines = votes.read_text().splitlines()
    for bad, word in (
        (lines[:3] + [lines[3].replace(",10", "")] + lines[4:], "line 4"),
        (lines + [lines[-1]], f"line {len(lines) + 1}: a second row"),
        ([lines[0], lines[1].replace('"1', '"9', 1)], "line 2"),
        (lines[1:], "line 1"),
    ):
        votes.write_text("\n".join(bad))
        with pytest.raises(AvkitError, match=word):
            index(root, label="consensus")
    votes.write_text("\n".join(lines[:-1]))
    assert (
        index(root, label="consensus").problems.problem
        == "no audio-visual votes in tabulatedVotes.csv"
    ).sum() == 1


def test_published_list(twin, tmp_path):
    m = index(twin, label="intended").clips
    classes = dict(
        anger="Anger", disgust="Disgust", fear="Fear", happy="Happy", neutral="Neutral", sad="Sad"
    )
    rows = [
        [
            r["clip"] + ".wav",
            *[int(r["label"] == c) for c in classes],
            r["speaker"],
            ["Train", "Development", "Test"][int(r["speaker"]) % 3],
        ]
        for r in m.head(15).to_dict("records")
    ]
    path = tmp_path / "list.csv"
    path.write_text(
        "\r\n".join(
            [
                ",".join(["FileName", *classes.values(), "SpkrID", "Split_Set"]),
                *[",".join(map(str, r)) for r in rows],
            ]
        ),
        encoding="utf-8-sig",
    )
    got = index(twin, annotations=str(path))
    assert (
        len(got) == 15
        and got.notes["not_on_the_list"] == 3
        and (got.clips.label == got.clips.intended).all()
    )
    assert set(apply_split(got, str(path)).clips.split) == {"train", "validation", "test"}




PEOPLE = list(CREMA_D_EMOTIONS.values())


@pytest.mark.parametrize("panel", [None, "voice", "face", "audio-visual"])
def test_the_shares_of_a_panel_are_learned_of_all_clips(twin, panel):
    "With the intended label every clip takes part, whether or not its raters agree"
    m = index(twin, label="intended", votes="distribution", panel=panel)
    votes = read_votes(twin)
    own = votes.loc[votes.raters == (panel or "audio-visual")].set_index("clip")
    own = own.loc[m.clips["clip"]]
    shares = m.clips[[f"share_{e}" for e in PEOPLE]].to_numpy(float)
    np.testing.assert_allclose(shares, own[PEOPLE] / 10)
    assert len(m) == 18 and (m.clips.label == m.clips.intended).all()
    assert m.notes["votes"] == "distribution" and (panel or "audio-visual") in m.notes["learned"]
    plain = index(twin, label="intended")
    assert plain.data_hash != m.data_hash and "share_anger" not in plain.clips


def test_a_consensus_is_that_of_the_panel_that_is_asked(twin):
    votes = read_votes(twin)
    for panel in ("voice", "face"):
        own = votes.loc[votes.raters == panel].set_index("clip")[PEOPLE]
        sure = own[own.max(axis=1) * 2 > own.sum(axis=1)]
        m = index(twin, label="consensus", panel=panel)
        assert dict(zip(m.clips["clip"], m.clips.label)) == sure.idxmax(axis=1).to_dict()


def test_a_panel_that_nobody_asks_for_is_refused(twin):
    with pytest.raises(AvkitError, match="asks no raters"):
        index(twin, label="intended", panel="voice")
    with pytest.raises(AvkitError, match="'ears'"):
        index(twin, label="consensus", panel="ears")
    with pytest.raises(AvkitError, match="'mean'"):
        index(twin, label="consensus", votes="mean")


def test_a_clip_without_votes_is_set_aside_where_votes_are_learned(twin, tmp_path):
    root = shutil.copytree(twin, tmp_path / "c")
    path = root / "processedResults/tabulatedVotes.csv"
    path.write_text("\n".join(s for s in path.read_text().splitlines() if '"100001"' not in s))
    m = index(root, label="intended", votes="distribution", panel="voice")
    assert len(m) == 17
    assert m.problems.problem.tolist() == ["no voice votes in tabulatedVotes.csv"]
    assert len(index(root, label="intended")) == 18
