"""What a data set says belongs together stays on one side of every split that is drawn."""

import pandas as pd
import pytest

from avkit.core import AvkitError
from avkit.datasets.manifest import Manifest
from avkit.datasets.splits import apply_split, units

LABELS = ["angry", "happy", "neutral", "sad"]


def files(name):
    return dict(audio=name, video=name, audio_sha256=name, video_sha256=name)


def people_in_dialogues():
    "MSP-IMPROV's shape: six sessions of two who talk to each other"
    rows = [
        dict(
            clip=f"{s}{who}{n}",
            speaker=f"{who}{s}",
            session=str(s),
            label=LABELS[n % 4],
            **files(f"{s}{who}{n}"),
        )
        for s in range(6)
        for who in "FM"
        for n in range(8)
    ]
    return Manifest("msp_improv", "nowhere", pd.DataFrame(rows), LABELS)


def pieces_of_videos():
    "VGAF's: clips of unknown people, several cut from a video"
    labels = ["Positive", "Neutral", "Negative"]
    rows = [
        dict(
            clip=f"Train/{v}_{n}",
            speaker="",
            label=labels[(v + n) % 3],
            official=side,
            **files(f"{v}_{n}"),
        )
        for v in range(20)
        for n in range(4)
        for side in [("train", "validation")[n == 3]]
    ]
    return Manifest("vgaf", "nowhere", pd.DataFrame(rows), labels)


def parted(m):
    "How many units have clips in two subsets"
    rows = m.clips.assign(unit=units(m.clips, m.corpus))
    return (rows[rows.split != ""].groupby("unit").split.nunique() > 1).sum()


@pytest.mark.parametrize("split", ["kfold3", "kfold5", "nested3x2"])
@pytest.mark.parametrize("make", [people_in_dialogues, pieces_of_videos])
def test_drawn_blocks_part_no_unit(make, split):
    for fold in range(3):
        m = apply_split(make(), split, fold)
        assert parted(m) == 0 and "more than one subset" not in m.split["note"]


def test_a_random_split_parts_people_but_no_video():
    assert parted(apply_split(pieces_of_videos(), "random")) == 0
    m = apply_split(people_in_dialogues(), "random")
    assert parted(m) == 6 and "6 of 6 dyads have clips in more than one subset" in m.split["note"]


def test_a_split_of_others_that_parts_units_is_said(tmp_path):
    m = pieces_of_videos()
    t = m.clips[["clip"]].assign(split=m.clips.official)
    t.to_csv(tmp_path / "mine.csv", index=False)
    note = apply_split(m, tmp_path / "mine.csv").split["note"]
    assert "20 of 20 source videos have clips in more than one subset" in note


def test_too_many_blocks_for_the_units():
    with pytest.raises(AvkitError, match="7 blocks need .* 6 groups that nothing ties together"):
        apply_split(people_in_dialogues(), "kfold7")
