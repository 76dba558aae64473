"""Splits that others published: no speaker twice, whose they are, and what chooses the epoch."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from avkit.datasets.manifest import Manifest, corpus_info, known_datasets
from avkit.datasets.splits import apply_split, split_folds

PUBLISHED = [
    (name, split)
    for name in known_datasets()
    for split, about in corpus_info(name).get("splits", {}).items()
    if about.get("by", "speaker") == "speaker"
]
SPEAKERS = dict(ravdess=range(1, 25), crema_d=range(1001, 1092), synth=range(1, 17))


def speakers_only(name: str) -> Manifest:
    "Two clips of each speaker, without files"
    who = np.repeat([f"{s:02d}" for s in SPEAKERS[name]], 2)
    clips = pd.DataFrame(dict(clip=[f"{s}_{i % 2}" for i, s in enumerate(who)], speaker=who))
    clips = clips.assign(label="happy", audio="", video="", audio_sha256="", video_sha256="")
    return Manifest(name, Path("."), clips, corpus_info(name)["classes"])


@pytest.mark.parametrize("name, split", PUBLISHED)
def test_nobody_stands_in_two_subsets(name, split):
    "By code, whatever the page of a split says; `apply_split` refuses a speaker in two subsets"
    known = set(SPEAKERS[name])
    for k, fold in enumerate(split_folds(corpus_info(name), split)):
        test, validation = map(set, (fold["test"], fold["validation"]))
        assert len(test) + len(validation) == len(fold["test"]) + len(fold["validation"])
        assert not test & validation and test | validation < known and validation
        clips = apply_split(speakers_only(name), split, k).clips
        assert clips.groupby("speaker").split.nunique().max() == 1
        assert set(map(int, clips.speaker[clips.split == "validation"])) == validation


@pytest.mark.parametrize("name, split", PUBLISHED)
def test_the_split_of_others_names_its_source(name, split):
    about = corpus_info(name)["splits"][split]
    others = any(s in about["about"] for s in ("HiCMAE", "EmoBox", "Luna", "checkpoints"))
    if others:
        assert about.get("source", "").startswith(("https://github.com/", "as of hicmae5"))
    told = apply_split(speakers_only(name), split).split
    assert told.get("source") == about.get("source")
    if others and split.startswith("hicmae"):
        assert "one file validates and tests" in told["about"]


def scored(name, split):
    "Who is scored in each fold: the test speakers, or those of validation where there is no test"
    return [set(f["test"] or f["validation"]) for f in split_folds(corpus_info(name), split)]


def test_folds_of_others_score_every_speaker_once():
    for name, splits in dict(
        ravdess=("actors6", "hicmae6", "emobox6", "luna5"),
        crema_d=("hicmae5", "actors5", "blocks5"),
    ).items():
        for split in splits:
            each = scored(name, split)
            assert set.union(*each) == set(SPEAKERS[name]), split
            assert sum(map(len, each)) == len(SPEAKERS[name]), split


def test_hicmaes_folds_with_a_validation_set_of_their_own():
    assert scored("ravdess", "hicmae6") == scored("ravdess", "actors6")
    assert scored("crema_d", "hicmae5") == scored("crema_d", "actors5")
    assert [len(s) for s in scored("crema_d", "hicmae5")] == [18, 18, 18, 18, 19]
    blocks = scored("crema_d", "blocks5")
    assert [len(a - b) for a, b in zip(blocks, scored("crema_d", "actors5"))] == [1] * 4 + [0]


def test_as_published_one_file_validates_and_is_scored():
    clips = apply_split(speakers_only("ravdess"), "hicmae6", 2).clips
    assert clips.groupby("split").speaker.nunique().to_dict() == dict(train=20, validation=4)
    assert sorted(clips.speaker[clips.split == "validation"].unique()) == ["09", "10", "11", "12"]


def test_clips_that_the_published_lists_leave_out():
    m = speakers_only("crema_d")
    clips = m.clips.assign(clip=m.clips["clip"].replace("1076_0", "1076_MTI_NEU_XX"))
    m = replace(m, clips=clips)
    lost = clips["clip"] == "1076_MTI_NEU_XX"
    assert apply_split(m, "hicmae5").clips.split[lost].tolist() == [""]
    assert apply_split(m, "actors5").clips.split[lost].tolist() == ["train"]
