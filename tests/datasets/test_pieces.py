"""Pieces of films in a manifest: on one side of every split, told where they contradict each other,
part of the hash; and nothing changes for clips that are whole files."""

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import StratifiedGroupKFold

from avkit.core import AvkitError
from avkit.datasets.manifest import Manifest, describe, make_manifest, one_spelling
from avkit.datasets.registry import open_dataset
from avkit.datasets.splits import LeakError, apply_split, blocks, check_split, leaks
from avkit.datasets.verify import verify
from avkit.preprocessing.writing import write_wav


def clips(rows):
    "A table as a manifest has it: (clip, label, speaker, film, start, end)"
    t = pd.DataFrame(rows, columns=["clip", "label", "speaker", "video", "start", "end"])
    return t.assign(audio=t.video, audio_sha256=t.video, video_sha256=t.video)


def pieces(n_films, speakers_of, each=6, seed=0):
    "Pieces of films, each spoken by one of the film's speakers"
    rng = np.random.default_rng(seed)
    return clips(
        [
            (f"{f}-{k}", "ab"[k % 2], rng.choice(speakers_of(f)), f"{f}.mp4", 2.0 * k, 2.0 * k + 2)
            for f in range(n_films)
            for k in range(each)
        ]
    )


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(
    "speakers_of",
    [
        lambda f: [f"s{f}"],
        lambda f: [""],
        lambda f: [f"s{f}", f"s{f}b"],  # two people in each film
        lambda f: [f"s{f}", f"s{f // 2}x"],  # some in two films
        lambda f: ["", f"s{f}"],
    ],
)
def test_no_fold_has_a_film_or_a_speaker_on_two_sides(speakers_of, named, seed):
    t = pieces(12, speakers_of, seed=seed)
    if named:  # two files are one recording
        t["recording"] = [f"r{int(c.split('-')[0]) // 2}" for c in t["clip"]]
        t.loc[t.index % 5 == 0, "recording"] = ""
    block = blocks(t, 3)
    for k in range(3):
        at = t.assign(split=np.where(block == k, "test", "train"))
        assert not any(leaks(at).values())
    assert set(block) == {0, 1, 2}


def test_random_splits_keep_films_together(tmp_path):
    rows = film_rows(tmp_path, films=12)
    m = apply_split(make_manifest("folder", tmp_path, rows, ["a", "b"]), "random")
    assert m.clips.groupby("audio").split.nunique().max() == 1


@pytest.mark.parametrize("named", [True, False])
def test_a_film_on_both_sides_is_a_leak(named):
    t = pieces(4, lambda f: [""]).assign(split=["train", "test"] * 12)
    if named:
        t = t.assign(recording=t.video, audio_sha256="", video_sha256="")
    with pytest.raises(LeakError, match="pieces of one film"):
        check_split(t)


def as_before(t, n):
    "Blocks as they were made before films tied anybody"
    alone = t["recording"] if "recording" in t else t["clip"]
    speaker = pd.Series(one_spelling(t.speaker), t.index)
    group = speaker.where(t.speaker != "", "recording " + alone.astype(str))
    out, labels = np.zeros(len(t), int), t.label.astype("category").cat.codes
    cut = StratifiedGroupKFold(n, shuffle=True, random_state=0)
    for k, (_, i) in enumerate(cut.split(t, labels, group)):
        out[i] = k
    return out


def whole(rng, speakers, n=60):
    t = pieces(n, lambda f: [rng.choice(speakers)], each=1)
    return t.drop(columns=["start", "end"])


@pytest.mark.parametrize("n", [3, 5])
@pytest.mark.parametrize("seed", range(5))
def test_folds_of_whole_clips_stay(n, seed):
    rng = np.random.default_rng(seed)
    kinds = [
        whole(rng, [f"{i:02d}" for i in range(1, 25)]),
        whole(rng, [""]),
        whole(rng, ["", "anna", "Ben", "01", "1"]),
        whole(rng, [f"{i:02d}" for i in range(1, 25)]).assign(recording=lambda t: t["clip"]),
        whole(rng, [""]).assign(recording=lambda t: [c.split("-")[0] for c in t["clip"]]),
    ]
    two = whole(rng, [""]).assign(recording=lambda t: t["clip"])  # left and right of one video
    kinds.append(pd.concat([two, two.assign(clip=two["clip"] + "_left")], ignore_index=True))
    for t in kinds:
        np.testing.assert_array_equal(blocks(t, n), as_before(t, n))


def test_folds_of_ravdess_stay(toy_corpus):
    t = open_dataset("ravdess", toy_corpus["data_root"]).clips
    np.testing.assert_array_equal(blocks(t, 5), as_before(t, 5))


def test_too_few_films_say_so():
    t = pieces(6, lambda f: ["anna", "ben", f"s{f}"])
    with pytest.raises(AvkitError, match="nothing ties together"):
        blocks(t, 5)


def film_rows(root, films=2, seconds=6.0):
    "Three pieces of each of some films, which are written"
    rows = []
    for f in range(films):
        tone = np.sin(np.arange(int(seconds * 8000)) * (f + 1) / 40)
        write_wav(root / f"{f}.wav", tone.astype(np.float32), 8000)
        for k in range(3):
            at = dict(start=2.0 * k, end=2.0 * k + 2)
            rows.append(dict(clip=f"{f}-{k}", label="ab"[k % 2], audio=f"{f}.wav", **at))
    return rows


def test_pieces_that_meet_are_fine_and_described(tmp_path):
    m = make_manifest("folder", tmp_path, film_rows(tmp_path), ["a", "b"])
    assert m.problems.empty
    assert "pieces: of 2 files, 12 s in all" in describe(m)
    assert verify(m, media=True, n_jobs=1).empty


def test_overlaps_of_other_labels_are_told(tmp_path):
    rows = film_rows(tmp_path)
    rows[1]["start"] = 1.5
    m = make_manifest("folder", tmp_path, rows, ["a", "b"])
    assert m.problems.file.tolist() == ["0.wav"]
    told = m.problems.problem[0]
    assert "0-0 (a, 0 to 2 s)" in told and "0-1 (b, 1.5 to 4 s)" in told
    rows[1]["label"] = "a"
    told = make_manifest("folder", tmp_path, rows, ["a", "b"]).problems.problem
    assert not told.str.contains("0-0").any()


def test_a_whole_film_beside_its_piece_is_told(tmp_path):
    rows = [r | dict(label="a") for r in film_rows(tmp_path)]
    rows[0] |= dict(start=None, end=None, label="b")
    told = make_manifest("folder", tmp_path, rows, ["a", "b"]).problems
    assert len(told) == 2 and told.problem.str.contains("0 to the end").all()


def test_a_piece_that_stands_twice_is_refused(tmp_path):
    rows = film_rows(tmp_path)
    with pytest.raises(AvkitError, match="'0-0' and 'again' are one piece of 0.wav"):
        make_manifest("folder", tmp_path, [*rows, rows[0] | dict(clip="again")], ["a", "b"])


BACKWARDS = [dict(start=3.0, end=3.0), dict(start=4.0, end=2.0), dict(start=-1.0)]


@pytest.mark.parametrize("at", BACKWARDS)
def test_a_piece_that_ends_before_it_begins_is_refused(tmp_path, at):
    rows = film_rows(tmp_path)
    with pytest.raises(AvkitError, match="'0-0'.* begins at 0 or later"):
        make_manifest("folder", tmp_path, [rows[0] | at, *rows[1:]], ["a", "b"])


def test_pieces_beyond_their_film_are_found(tmp_path):
    rows = film_rows(tmp_path)
    rows[2] |= dict(end=9.0)
    rows[5] |= dict(start=7.0, end=8.0)
    m = make_manifest("folder", tmp_path, rows, ["a", "b"])
    told = verify(m, media=True, n_jobs=1)
    assert told.file.tolist() == ["0.wav", "1.wav"] and (told.status == "invalid").all()
    assert "0-2" in told.problem[0] and "6.00 s" in told.problem[0]


def test_the_hash_of_data_holds_pieces_and_stays_for_whole_clips():
    row = dict(clip="a", label="x", speaker="", audio="f.mp4", video="f.mp4")
    t = pd.DataFrame([row | dict(audio_sha256="51f0", video_sha256="51f0")])
    of = lambda **more: Manifest("mine", "", t.assign(**more), ["x", "y"]).data_hash
    plain = "dad955ba5dfee0f968970bef989fea8aa65ae2581a1411641a0e31f6b08cd356"
    assert of() == of(start=np.nan, end="", offset=None, recording="film") == plain
    others = [dict(start=1.0), dict(end=1.0), dict(start=1.0, end=2.0), dict(offset=1.0)]
    assert len({plain, *(of(**o) for o in others)}) == 5
    assert of(start=1.0) == of(start="1")
