"""Predictions per frame as the ABAW challenges take them: written, checked by file and line."""

import numpy as np, pytest
from avkit.cli import main
from avkit.core import AvkitError
from avkit.datasets.affwild2 import EXPRESSIONS, read_expr, read_va
from avkit.evaluation.runs import open_run
from avkit.evaluation.submission import check_submission, counted_frames, write_submission
from avkit.preprocessing.writing import write_video
from avkit.training.configure import configure
from avkit.training.learner import fit

FRAMES = dict(v0=90, v1=96, v2=70)
SMALL = ('{"preparation": {"size": 16, "every": 2, "rate": 8000}, "video_size": 16, "windows": '
         '{"length": 32, "hop": 32, "stride": 4, "steps": 8}}')


@pytest.fixture(scope="module")
def affwild2(tmp_path_factory):
    "Three videos in Aff-Wild2's layout, of both tracks; some frames without a label"
    root, rng = tmp_path_factory.mktemp("affwild2"), np.random.default_rng(0)
    (root / "videos").mkdir()
    for i, (name, n) in enumerate(FRAMES.items()):
        shown = rng.integers(0, 255, (n, 32, 32, 3), dtype=np.uint8)
        sound = 0.3 * np.sin(np.arange(n * 8000 // 30) / 8000 * 2 * np.pi * (200 + 90 * i))
        write_video(root / f"videos/{name}.mp4", shown, 30, sound, 8000)
        va = [f"{a:.2f},{b:.2f}" for a, b in np.cumsum(rng.normal(0, 0.05, (n, 2)), 0).clip(-1, 1)]
        va[10:20] = ["-5,-5"] * 10
        expr = [*map(str, rng.integers(0, 7, n))]
        expr[10:20] = ["-1"] * 10
        subset = "Validation" if name == "v2" else "Train"
        heads = dict(VA="valence,arousal", EXPR=",".join(EXPRESSIONS))
        for (track, head), lines in zip(heads.items(), (va, expr)):
            folder = root / f"annotations/{track}_Set/{subset}_Set"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{name}.txt").write_text("\n".join([head, *lines]) + "\n")
    return root


def trained(affwild2, track, folder):
    cfg = configure(dataset="affwild2", track=track, data_root=str(affwild2), detector="none",
                    device="cpu", n_jobs=1, epochs=1, options=SMALL, run_dir=str(folder))
    fit(cfg, verbose=False)
    return folder


@pytest.fixture(scope="module")
def run(affwild2, tmp_path_factory):
    return trained(affwild2, "va", tmp_path_factory.mktemp("va") / "run")


def test_a_line_for_each_frame(run, affwild2, tmp_path, capsys):
    assert main(["submission", "--run", str(run), "--to", str(tmp_path / "out")]) == 0
    assert "1 files in" in capsys.readouterr().out
    y = read_va(tmp_path / "out/v2.txt")
    assert len(y) == FRAMES["v2"] and not np.isnan(y).any()
    p = open_run(run).predictions.query("split == 'validation' and condition == 'av'")
    kept = p[["prediction_valence", "prediction_arousal"]].to_numpy().clip(-1, 1)
    assert np.allclose(y[p.frame.to_numpy()], kept, atol=6e-5)
    assert np.allclose(y[12], y[9], atol=1e-6)  # not labelled, so not kept: the nearest
    write_submission(run, tmp_path / "marked", fill="unlabelled")
    lines = (tmp_path / "marked/v2.txt").read_text().splitlines()
    assert lines[0] == "valence,arousal" and lines[13] == "-5,-5" and len(lines) == 71
    check = ["submission", "--check", str(tmp_path / "out"), "--videos", str(affwild2 / "videos")]
    assert main(check) == 0 and "no fault" in capsys.readouterr().out


def test_expressions_are_numbers(affwild2, tmp_path):
    run = trained(affwild2, "expr", tmp_path / "run")
    write_submission(run, tmp_path / "out", "train")
    y, names = read_expr(tmp_path / "out/v1.txt")
    assert names == EXPRESSIONS and len(y) == FRAMES["v1"] and y.min() >= 0
    p = open_run(run).predictions.query("split == 'train' and condition == 'av' and clip == 'v1'")
    assert [EXPRESSIONS[i] for i in y[p.frame.to_numpy()]] == p.prediction.tolist()


def test_videos_without_labels(run, affwild2, tmp_path):
    (tmp_path / "test.txt").write_text("v1\n")
    files = write_submission(run, tmp_path / "out", videos=affwild2 / "videos",
                             names=tmp_path / "test.txt", device="cpu")
    assert [f.name for f in files] == ["v1.txt"] and len(read_va(files[0])) == FRAMES["v1"]
    assert check_submission(tmp_path / "out", counted_frames(affwild2 / "videos"), ["v1"]) == []


@pytest.mark.parametrize("text, fault", [
    ("0.1,0.2\n", "line 1: '0.1,0.2' is no header"),
    ("valence,arousal\n0.1,0.2\n0.1,1.2\n", "line 3: '0.1,1.2' is outside"),
    ("valence,arousal\n0.1\n", "line 2: '0.1' is not two numbers"),
    ("valence,arousal\nnan,0\n", "line 2: 'nan,0' is outside"),
    ("valence,arousal\n\n0,0\n", "line 2: blank"),
    ("valence,arousal\n" + "0,0\n" * 69, "line 71: 69 frames, and the video has 70"),
    ("valence,arousal\n" + "0,0\n" * 71, "line 72: 71 frames, and the video has 70"),
    (",".join(EXPRESSIONS) + "\n" + "7\n" * 70, "line 2: '7'; a number from -1 to 6"),
    ("arousal,valence\n" + "0,0\n" * 70, "line 1: 'arousal,valence'"),
])
def test_faults_name_file_and_line(text, fault, tmp_path, capsys):
    (tmp_path / "v2.txt").write_text(text)
    (found,) = check_submission(tmp_path, FRAMES, ["v2"])
    assert found.startswith(f"{tmp_path / 'v2.txt'}, {fault}")
    (tmp_path / "v9.txt").write_text("valence,arousal\n0,0\n")
    more = check_submission(tmp_path, FRAMES, ["v2", "v3"])
    assert any("v9.txt: there is no video" in f for f in more)
    assert any("v3.txt is missing" in f for f in more) and any("does not name" in f for f in more)
    if "69" not in fault and "71" not in fault:
        assert main(["submission", "--check", str(tmp_path)]) == 1


def test_a_model_of_clips_has_no_frames(toy_corpus, tmp_path):
    fit(configure(**toy_corpus, epochs=1, run_dir=str(tmp_path / "run")), verbose=False)
    with pytest.raises(AvkitError, match="answers once a clip"):
        write_submission(tmp_path / "run", tmp_path / "out")
    assert main(["submission", "--run", str(tmp_path / "run")]) == 2
