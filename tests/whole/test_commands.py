"""What a user of the shell sees: paths that count from where a command is started, and endings that
say where the result is, who was in which subset, what was set aside, and what comes next."""

import os, re, shlex
from pathlib import Path
import pytest
from avkit.cli import main
from avkit.core import kit_path, read_json


@pytest.fixture(scope="module")
def here(toy_corpus, tmp_path_factory):
    "A folder of a user's, with data beside it; the toy data set has no media that could be decoded"
    home = tmp_path_factory.mktemp("user")
    (home / "work").mkdir()
    (home / "data").symlink_to(Path(toy_corpus["data_root"]).parent)
    return home / "work"


SPLIT = ["--split", "kfold4"]
DATA = ["--dataset", "ravdess", "--data_root", "../data/ravdess"]
OWN = ["--audio_features", "../data/sound.csv", "--video_features", "../data/face.csv"]


def said(capsys, *argv):
    assert main([str(a) for a in argv]) == 0
    return capsys.readouterr().out


def next_of(out):
    "The words of the command in the last line"
    line = out.strip().splitlines()[-1]
    assert line.startswith("next: avkit "), line
    return shlex.split(line)[2:]


def test_a_study_from_a_folder_of_ones_own(here, capsys, monkeypatch):
    monkeypatch.chdir(here)
    before = set(kit_path("reports/runs").glob("*"))
    out = said(capsys, "index", *DATA, "--to", "index.csv")
    assert "clips: train" in out and "set aside: " in out and "manifest: index.csv" in out
    assert next_of(out)[:5] == ["verify", *DATA]
    small = ["--epochs", "1", "--device", "cpu"]
    out = said(capsys, "train", *DATA, *OWN, *SPLIT, *small, "--run_dir", "runs/a")
    assert re.search(r"clips: train 96, validation 48, test 48 \(split kfold4, fold 0\)", out)
    assert "set aside: none" in out and "run: runs/a" in out
    assert next_of(out) == ["report", "runs/a", "--to", "runs/a/report"]
    out = said(capsys, *next_of(out))
    assert "runs/a/report/table.md" in out and (here / "runs/a/report/table.md").is_file()
    assert next_of(out)[:3] == ["export", "--run", "runs/a"]
    out = said(
        capsys,
        "grid",
        *DATA,
        *OWN,
        *SPLIT,
        *small,
        "--fusion",
        "concat,late",
        "--n_jobs",
        "1",
        "--to",
        "runs/grid",
    )
    header = out.splitlines()[0].split()
    assert {"run_dir", "status", "side", "given", "accuracy", "UAR"} <= set(header)
    assert "runs: runs/grid" in out and len(next_of(out)) == 5
    monkeypatch.chdir(here.parent)  # the run knows where its files are
    out = said(capsys, "evaluate", "--run", "work/runs/a", "--conditions", "av,audio_noise_10dB")
    assert "run: work/runs/a" in out and "audio_noise_10dB" in out
    assert read_json(here / "runs/a/record.json")["config"]["data_root"].startswith("/")
    assert set(kit_path("reports/runs").glob("*")) == before, "nothing of it is in the clone"


def test_a_card_is_not_evaluated(here, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    argv = [*DATA, *OWN, *SPLIT, "--epochs", "1", "--device", "cpu"]
    argv = [str((here / a).resolve()) if a.startswith("../") else a for a in argv]
    said(capsys, "train", *argv, "--run_dir", "a")
    out = said(capsys, "export", "--run", "a", "--to", "card", "--no-onnx")
    assert next_of(out)[0] == "predict"
    assert main(["evaluate", "--run", "card"]) == 2
    assert "is a card" in capsys.readouterr().err


def test_where_a_command_is_started_does_not_change_what_a_run_is(here, monkeypatch):
    from avkit.training.configure import configure

    own = here / "mine.csv"
    own.write_text("speaker,split\n01,train\n")
    asked = dict(split="mine.csv", data_root="d", video_weights="face=w.pt,body=published")
    monkeypatch.chdir(here)
    one = configure(**asked)
    monkeypatch.chdir(here.parent)
    assert configure(**asked | dict(split="work/mine.csv")).hash == one.hash
    assert one["split"] == str(own) and one["data_root"] == str(here / "d")
    assert one["video_weights"] == f"face={here / 'w.pt'},body=published"
    assert os.path.isabs(configure().run_dir)


def test_a_wrong_flag_is_told_each_name_once(capsys):
    assert main(["train", "--optionz", "3"]) == 2
    said = capsys.readouterr().err
    names = said.partition("Known: ")[2].strip().split(", ")
    assert "did you mean 'options'" in said and len(set(names)) == len(names) > 40


def test_a_subset_without_a_clip_is_told_before_training(here, capsys, monkeypatch):
    monkeypatch.chdir(here)
    rows = [f"{i:02d},{'train' if i < 20 else 'validation'}" for i in range(1, 25)]
    (here / "two.csv").write_text("\n".join(["speaker,split", *rows, ""]))
    small = ["--epochs", "1", "--device", "cpu", "--split", "two.csv", "--run_dir", "two"]
    out = said(capsys, "train", *DATA, *OWN, *small)
    assert "No clip in test (split two.csv has none): nothing is scored there" in out
    assert out.index("No clip in test") < out.index("epoch   1/1")
    assert "clips: train 152, validation 40, test 0" in out
    (here / "none.csv").write_text("speaker,split\n01,validation\n02,test\n")
    assert main(["train", *DATA, *OWN, *small[:-4], "--split", "none.csv"]) == 2
    assert "leaves nothing in train" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, place",
    [
        (
            "video_backbone=resnet18, backbone_options.resnet18.weights=w.pt",
            ("backbone_options", "resnet18", "weights"),
        ),
        (
            '{"video_encoder": "pictures", "encoder_options": {"pictures": {"weights": "w.pt"}}}',
            ("encoder_options", "pictures", "weights"),
        ),
        ("preparation.face_model=w.pt", ("preparation", "face_model")),
    ],
)
def test_a_path_in_options_counts_from_where_a_command_is_started(
    options, place, here, monkeypatch
):
    from avkit.training.configure import configure
    from avkit.training.record import own_files

    (here / "w.pt").write_text("weights")
    (here.parent / "w.pt").write_text("other weights")
    asked = dict(options=options, data_root="rendered", dataset="ravdess", recipe="ravdess_real")
    monkeypatch.chdir(here)
    one = configure(**asked)
    value, files = one.recipe, own_files(one)
    for name in place:
        value = value[name]
    monkeypatch.chdir(here.parent)
    assert value == str(here / "w.pt") and len(files) == 1 and own_files(one) == files
    same = asked | dict(options=asked["options"].replace("w.pt", "work/w.pt"))
    assert configure(**same).hash == one.hash and own_files(configure(**same)) == files


@pytest.mark.parametrize(
    "argv,message",
    [
        (["download", "--dataset", "ravdess", "--data_root", "file/x"], "file"),
        (["train", "--split", "nofile.csv"], "Cannot read the split"),
        (["train", "--options", '{"warmup": -1.0}'], "warmup should be 0 or more"),
        (["train", "--lr", "nan"], "lr should be 0 or more"),
        (["predict"], "avkit train"),
        (["export", "--run", "nowhere", "--to", "x"], "There is no run in"),
    ],
)
def test_wrong_arguments_are_a_sentence_at_once(argv, message, tmp_path, capfd, monkeypatch):
    "Status 2, nothing rendered, no traceback; in a folder without a clone"
    from avkit import core
    from avkit.evaluation import runs
    from avkit.training import configure

    monkeypatch.chdir(tmp_path)
    for module in (core, runs, configure):
        monkeypatch.setattr(module, "kit_path", lambda p: tmp_path / p)
    (tmp_path / "file").write_text("")
    assert main(argv) == 2
    err = capfd.readouterr().err
    assert err.startswith("avkit: ") and message in err
    assert not list(Path(os.environ["AVKIT_HOME"]).rglob("*.mp4")), "nothing was rendered"
