"RAVDESS: songs, single streams, counts, the twin and its odd clips."

import shutil

import numpy as np
import pytest

from avkit.core import AvkitError
from avkit.datasets.ravdess import ODD, _paths, _plan, expected, index, parse_ravdess, render
from avkit.datasets.splits import LeakError, check_split
from avkit.preprocessing.media import MediaError, decode, probe
from avkit.datasets.synth import face_code, voice_code

pytest.importorskip("cv2")
SMALL = dict(actors=5, repeats=1, size=(96, 80), progress=False)


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    return render(tmp_path_factory.mktemp("ravdess") / "ä b", n_jobs=1, **SMALL)


def test_labels_are_what_was_rendered(twin):
    m = index(twin)
    assert (
        len(m) == 39
        and m.notes["rendered"]
        and m.notes["songs_left_out"] == 1
        and not len(m.problems)
    )
    truth = {
        f"01-{e + 1:02}-{i:02}-{s:02}-{r:02}-{a:02}": m.classes[e]
        for e, i, s, r, a in _plan(5, 0, 1)
    }
    assert all(
        truth[r.recording] == r.label and int(r.speaker) == parse_ravdess(r.clip)["actor"]
        for r in m.clips.itertuples()
    )
    assert (
        all(len({g(e) for e in range(8)}) == 4 for g in (face_code, voice_code))
        and len({(face_code(e), voice_code(e)) for e in range(8)}) == 8
    )


def test_odd_clips(twin):
    odd = {what: _paths(twin, _plan(5, 0, 1)[n], what) for n, what in ODD.items()}
    assert (
        probe(odd["apart"][3]).audio["channels"] == 2
        and probe(odd["apart"][2]).audio is None
        and set(odd["picture alone"]) == {2}
    )
    with pytest.raises(MediaError, match="truncated"):
        decode(odd["truncated"][1])
    frames = decode(odd["no face"][1]).frames.astype(int)
    assert np.abs(frames - frames[0]).mean() < 3  # nobody moves, for nobody is there
    rows = index(twin).clips.set_index("recording")
    apart, alone = (
        rows.loc[next(iter(odd[k].values())).stem[3:]] for k in ("apart", "picture alone")
    )
    assert apart["clip"][:2] == "01" and apart.video.split("/")[1][:2] == "02"
    assert apart.audio.split("/")[1][:2] == "03" and alone.audio == "" and alone["clip"][:2] == "02"
    assert (
        len(index(twin, vocal="song")) == 1
        and index(twin, vocal="song").classes == index(twin).classes[:6]
    )


def test_one_stream_trees(twin, tmp_path):
    for kind, stream in (("02", "video"), ("03", "audio")):
        root = tmp_path / kind
        for p in twin.rglob(f"{kind}-*"):
            (root / p.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(p, root / p.parent.name / p.name)
        m = index(root)
        assert (m.clips[stream] != "").all() and (
            m.clips[{"video": "audio", "audio": "video"}[stream]] == ""
        ).all()
        assert list(m.notes["streams"]) == [
            {"video": "picture alone", "audio": "sound alone"}[stream]
        ]


def test_copies_of_one_recording_stay_on_one_side(twin):
    """The three files of a recording are one clip; if a table names them one by one, the split is
    refused"""
    m = index(twin)
    assert m.clips.recording.is_unique
    two = m.clips.iloc[[0, 0]].assign(
        clip=["01-x", "03-x"],
        split=["train", "test"],
        audio_sha256=["a", "b"],
        video_sha256=["c", ""],
        speaker="",
    )
    with pytest.raises(LeakError, match="same recording"):
        check_split(two)


def test_counts(twin, shared_data):
    assert len(set(expected())) == 1440 and len(set(expected("song"))) == 1012
    m = index(shared_data / "ravdess_speech")
    assert (m.notes["found"], m.notes["missing_actors"], m.notes["incomplete_actors"]) == (
        "1200 of 1440",
        [5, 10, 16, 19],
        {},
    )
    assert m.notes["streams"] == {"sound alone": 1200}
    [copy] = m.problems.itertuples()  # as it was published
    assert copy.file == "Actor_07/03-01-03-01-02-02-07.flac"
    assert copy.problem == "the same bytes as Actor_07/03-01-03-01-02-01-07.flac; both are used"


def test_another_tree_is_refused(tmp_path):
    (tmp_path / "1001_DFA_ANG_XX.wav").write_bytes(b"x")
    with pytest.raises(AvkitError, match="No RAVDESS speech file"):
        index(tmp_path)


def test_splits_of_the_twin():
    "The default twin has someone to train, to validate and to test on"
    actors = [f"{a:02d}" for a in range(1, 21)]
    import pandas as pd
    from avkit.datasets.splits import assign_fold, split_folds
    from avkit.datasets.manifest import corpus_info

    side = assign_fold(
        pd.DataFrame(dict(speaker=actors)), split_folds(corpus_info("ravdess"), "released")[0]
    ).value_counts()
    assert side.to_dict() == {"train": 13, "test": 4, "validation": 3}


def test_rendered_again_it_is_the_same_and_nothing_is_written_twice(twin, tmp_path):
    "All odd clips and a quarter of the others; test_synth renders a whole plan in two processes"
    read = lambda r: {
        p.relative_to(r).as_posix(): p.read_bytes() for p in sorted(r.rglob("*.*")) if p.is_file()
    }
    some = shutil.copytree(twin, tmp_path / "b")
    odd = [p for n, what in ODD.items() for p in _paths(some, _plan(5, 0, 1)[n], what).values()]
    for path in {*odd, *sorted(some.rglob("0*.*"))[::4]}:
        path.unlink()
    assert len(read(some)) < len(read(twin)) * 3 / 4
    assert read(render(some, n_jobs=1, **SMALL)) == read(twin)
    stamps = {p: p.stat().st_mtime_ns for p in twin.rglob("*.*")}
    render(twin, n_jobs=1, **SMALL)
    assert {p: p.stat().st_mtime_ns for p in twin.rglob("*.*")} == stamps


@pytest.mark.parametrize("rate", [16000, 44100])
def test_sound_is_prepared_at_the_rate_asked_for(twin, tmp_path, rate):
    from dataclasses import replace
    from avkit.preprocessing.prepare import Preparation, prepare, stream_key
    from avkit.store import Store

    m, prep, store = (
        index(twin),
        Preparation(window=1.0, rate=rate, detector="none", frames=2, size=16),
        Store(tmp_path),
    )
    apart = m.clips[m.clips.audio.str.endswith(".wav")]  # stereo at 24 kHz
    assert len(apart) == 1 and prepare(
        replace(m, clips=apart), prep, store, n_jobs=1
    ).rows.status.tolist() == ["done"]
    sound = store.get(stream_key(apart.iloc[0], "audio", prep))[0]["sound"]
    assert sound.shape == (rate,) and 0.005 < np.abs(np.asarray(sound)).mean() < 0.5  # mono
