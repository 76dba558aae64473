"What is scarce, missing or uneven is said once, and nothing is said where nothing is wrong."

from pathlib import Path

import pandas as pd
import pytest

from avkit.datasets import crema_d
from avkit.datasets.manifest import corpus_info, Manifest
from avkit.datasets.registry import open_dataset
from avkit.datasets.splits import apply_split, class_counts, few_data, SUBSETS
from avkit.training.metrics import scores

CLASSES = ["angry", "happy", "sad"]


def table(counts, speakers=8, notes=None):
    "{(subset, class): clips}, spoken in turn by `speakers` people, none in two subsets"
    rows = []
    for (subset, label), n in counts.items():
        mine = [s for s in range(speakers) if s % 3 == SUBSETS.index(subset)] or [0]
        for i in range(n):
            rows.append(
                dict(
                    clip=f"{subset}{label}{i}",
                    label=label,
                    split=subset,
                    speaker=f"s{mine[i % len(mine)]}",
                )
            )
    return Manifest("folder", Path("."), pd.DataFrame(rows), CLASSES, notes=notes or {})


def even(n=8, **other):
    "`n` clips of every class in every subset, but for `train_sad=2`"
    told = {tuple(k.split("_")): v for k, v in other.items()}
    return {(s, c): n for s in SUBSETS for c in CLASSES} | told


def said(m, **more):
    return " | ".join(few_data(m, **more))


def test_nothing_is_said_of_enough():
    assert few_data(table(even())) == []
    assert few_data(table(even(), speakers=6)) == []


def test_a_class_that_no_training_clip_has():
    m = table(even(train_sad=0))
    got = few_data(m)
    assert len(got) == 1
    assert got[0].startswith("No training clip is sad: the model can never answer it. Its 16 clips")
    t = [0, 0, 1, 2]  # what the sentence says of the scores is what the scores do
    s = scores(t, [0, 0, 1, 1], 3)
    assert s["uar"] == pytest.approx((1 + 1 + 0) / 3)
    assert said(table(even(train_sad=0, validation_sad=0, test_sad=0))) == (
        "No clip is sad: no score asks for it."
    )


@pytest.mark.parametrize("subset", SUBSETS[1:])
def test_a_class_that_a_subset_lacks(subset):
    got = few_data(table(even(**{f"{subset}_sad": 0})))
    assert got == [
        f"No {subset} clip is sad: UAR of {subset} is a mean over the 2 other classes, and macro "
        "F1 too unless a model answers so, which counts as 0."
    ]
    assert scores([0, 0, 1], [0, 0, 1], 3)["f1_macro"] == 1
    assert scores([0, 0, 1], [0, 2, 1], 3)["f1_macro"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert scores([0, 0, 1], [0, 2, 1], 3)["uar"] == pytest.approx((1 / 2 + 1) / 2)


@pytest.mark.parametrize("n", [1, 3, 4, 5])
def test_few_clips_in_all_and_in_the_test(n):
    m = table(even(train_sad=n, validation_sad=0, test_sad=0))
    assert (f"Fewer than 5 clips in all: sad {n}." in said(m)) == (n < 5)
    m = table(even(test_sad=n))
    assert (f"Fewer than 5 test clips: sad {n}." in said(m)) == (n < 5)
    assert "in all" not in said(m)


@pytest.mark.parametrize("speakers, told", [(1, True), (5, True), (6, False), (9, False)])
def test_few_speakers(speakers, told):
    m = table(even(), speakers)
    assert ("no interval over speakers can be trusted" in said(m)) == told
    unknown = Manifest("folder", Path("."), m.clips.assign(speaker=""), CLASSES)
    assert few_data(unknown) == []


def test_a_class_of_one_speaker_and_a_test_of_one():
    m = table(even())
    m.clips.loc[m.clips["label"] == "sad", "speaker"] = "s0"
    assert "All clips of sad are of one speaker, s0" in said(m)
    m = table(even())
    m.clips.loc[m.clips["split"] == "test", "speaker"] = "s2"
    assert "All test clips are of one speaker" in said(m)


@pytest.mark.parametrize("large, told", [(39, False), (40, True)])
def test_uneven_classes_name_the_options(large, told):
    m = table(even(train_happy=large))
    got = said(m)
    assert ("class_weights=balanced or sampling=balanced" in got) == told
    assert said(m, balanced=True) == ""
    assert not told or f"{large} training clips are happy, 8 are" in got


def test_only_the_clips_that_are_used_count():
    m = table(even())
    used = [c for c in m.clips["clip"] if "trainsad" not in c]
    assert "No training clip is sad" in said(m, clips=used)
    assert class_counts(m, used).loc["train"].tolist() == [8, 8, 0]


def test_of_rendered_clips_only_what_a_subset_lacks():
    m = table(even(2, train_happy=40), speakers=2, notes=dict(rendered=True))
    assert few_data(m) == []
    lacks = table(even(2, test_happy=0), speakers=2, notes=dict(rendered=True))
    assert len(few_data(lacks)) == 1


def test_no_nagging_over_published_data(shared_data, monkeypatch):
    "Every published split of the real RAVDESS voices and of CREMA-D's consensus"
    monkeypatch.setattr(crema_d, "agreement_notes", lambda *of: {})  # test_crema_d asks for them
    quiet = 0
    asked = [("ravdess", "ravdess_speech", {})]
    asked += [("crema_d", "crema_d", dict(label="consensus"))]
    for name, folder, more in asked:
        if not (shared_data / folder).is_dir():
            continue
        m = open_dataset(name, shared_data / folder, **more)
        for split, told in corpus_info(name).get("splits", {}).items():
            for fold in range(len(told.get("folds", [1]))):
                assert few_data(apply_split(m, split, fold)) == [], (name, split, fold)
                quiet += 1
    if not quiet:
        pytest.skip("neither RAVDESS's voices nor CREMA-D's tables are at hand")
