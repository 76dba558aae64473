"Features of one's own: who has some is counted and said; names as the table of labels has them."

import numpy as np, pandas as pd, pytest
from avkit.cli import main
from avkit.core import AvkitError
from avkit.datasets.feature_files import (
    match_features,
    own_features,
    read_features,
)


def folder(root, names=("1", "2", "3", "4"), suffix=".wav"):
    "Two classes of clips that are never decoded"
    for label in "xy":
        for n in names:
            path = root / label / n / f"a{suffix}"
            path.parent.mkdir(parents=True)
            path.write_text(f"{label} {n}")
    return root


def table(path, names):
    rng = np.random.default_rng(0)
    rows = [[n, *rng.normal(size=3)] for n in names]
    pd.DataFrame(rows, columns=["clip", "f1", "f2", "f3"]).to_csv(path, index=False)
    return str(path)


def test_clips_without_features_are_counted_before_training(tmp_path, capsys):
    root = folder(tmp_path / "mine")
    file = table(tmp_path / "half.csv", ["x/2/a", "x/4/a", "y/2/a", "y/4/a", "z/9/a"])
    asked = f"train --dataset folder --data_root {root} --audio_features {file} --modality audio"
    more = f"--split random --epochs 1 --device cpu --run_dir {tmp_path / 'run'}"
    assert main([*asked.split(), *more.split()]) == 0
    lines = capsys.readouterr().out.splitlines()
    told = next(i for i, line in enumerate(lines) if "features for 4 of 8 clips" in line)
    assert "x/1/a, x/3/a, y/1/a and 1 more" in lines[told] and "z/9/a" in lines[told]
    assert told < next(i for i, line in enumerate(lines) if line.startswith("epoch"))


@pytest.mark.parametrize("suffix", [".wav", ".3gp", ".MTS", ".opus"])
def test_names_with_and_without_suffix(suffix, tmp_path):
    clips, files = ["x/1/a", "x/2/a", "take.v2"], [[f"x/1/a{suffix}"], [f"x/2/a{suffix}"], []]
    for named in ("x/1/a", f"x/1/a{suffix}", "x/1/a.wav"):
        found, left = match_features("f", "folder", [named, "take.v2"], clips, files)
        assert found == [named, None, "take.v2"] and left == []
    with pytest.raises(AvkitError, match="both name the clip 'x/1/a'"):
        match_features("f", "folder", ["x/1/a", f"x/1/a{suffix}"], clips, files)


def test_a_name_of_two_clips_is_nobodys():
    found, left = match_features(
        "f", "folder", ["take1", "take1.mp4"], ["a", "b"], [["take1.webm"], ["take1.mp4"]]
    )
    assert found == [None, "take1.mp4"] and left == ["take1"]


def test_names_that_look_like_numbers_or_nothing(tmp_path):
    (tmp_path / "f.csv").write_text("clip,f1\n001,1\nNA,2\n")
    named = read_features(tmp_path / "f.csv").named
    assert {k: v.x.tolist() for k, v in named.items()} == {
        "001": [[1]],
        "NA": [[2]],
    }
    own = own_features(tmp_path / "f.csv", "folder", ["001", "NA", "1"])
    assert own.stream.present.tolist() == [True, True, False] and "2 of 3" in own.about["told"]
