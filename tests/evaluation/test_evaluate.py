"""A finished run is asked again: under corruptions, on another data set; its record holds it all.

Asking twice changes nothing.
"""

import json, shutil
from pathlib import Path
import numpy as np, pandas as pd, pytest
from avkit.core import AvkitError
from avkit.evaluation import export
from avkit.evaluation.evaluate import evaluate
from avkit.evaluation.runs import open_run
from avkit.cli import main
from avkit.training.learner import fit
from avkit.training.loading import load_data
from avkit.training.inference import predict_logits
from avkit.training.configure import configure

SOME = ["av", "audio_zero", "video_noise_10dB", "audio_missing_50+video_lost_30"]


@pytest.fixture(scope="module")
def trained(toy_corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    fit(configure(**toy_corpus, epochs=8, lr=0.02, run_dir=str(folder)), verbose=False)
    return folder


@pytest.fixture
def run(trained, tmp_path):
    "A finished run on the toy corpus"
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def other(tmp_path, toy_corpus):
    "The same feelings by other names, a folder per class; one is new, and there is no disgust"
    rows, rng, feelings = (
        [],
        np.random.default_rng(1),
        dict(Anger=5, Happiness=3, sad=4, neutral=1, bored=8),
    )
    for label, e in feelings.items():
        for k in range(6):
            name = f"{label}/{'abc'[k % 3]}/{k}"
            (tmp_path / "other" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / f"other/{name}.wav").write_text(name)
            rows += [
                [name, *(np.array([(e - 1) >> i & 1 for i in range(3)]) + rng.normal(0, 0.3, 3))]
                for _ in range(3)
            ]
    t = pd.DataFrame(rows, columns=["name", "b0", "b1", "b2"])
    for k, cols in dict(sound=["b0"], face=["b1", "b2"]).items():
        t[["name", *cols]].to_csv(tmp_path / f"other-{k}.csv", index=False)
    return dict(
        dataset="folder",
        data_root=str(tmp_path / "other"),
        audio_features=str(tmp_path / "other-sound.csv"),
        video_features=str(tmp_path / "other-face.csv"),
    )


def files(run):
    return {p.name: p.read_bytes() for p in run.iterdir() if p.is_file()}


def test_the_record_holds_every_condition(run, capsys):
    before, rows = (
        json.loads((run / "record.json").read_text()),
        (run / "predictions.csv").read_text().splitlines(),
    )
    assert all({"av", "audio", "video"} <= set(c) for c in before["metrics"].values())
    after = evaluate(run, SOME, verbose=False)
    assert after["metrics"]["train"] == before["metrics"].pop("train")
    for side, cs in before["metrics"].items():
        assert set(after["metrics"][side]) == {"audio", "video", *SOME} and all(
            after["metrics"][side][c] == s for c, s in cs.items()
        )
        assert after["metrics"][side]["audio_zero"] != cs["av"]
    assert {k: v for k, v in after.items() if k != "metrics"} == {
        k: v for k, v in before.items() if k != "metrics"
    }
    p = pd.read_csv(run / "predictions.csv")
    assert set(rows) <= set((run / "predictions.csv").read_text().splitlines())
    for side, cs in after["metrics"].items():
        for c, s in cs.items():
            mine = p[(p.split == side) & (p.condition == c)]
            assert (
                len(mine) == before["counts"][side]
                and abs((mine.target == mine.prediction).mean() - s["accuracy"]) < 1e-9
            )
    once = files(run)
    assert (
        main(["evaluate", "--run", str(run), "--conditions", ",".join(SOME)]) == 0
        and files(run) == once
    )
    assert "audio_missing_50+video_lost_30" in capsys.readouterr().out


def test_a_clip_does_not_see_its_batch(run, toy_corpus):
    r = open_run(run)
    data = load_data(r.cfg, verbose=False).data
    idx = data.indices("test")
    for c in SOME:
        whole = predict_logits(r.cfg, r.model, data, idx, c)
        for size in (1, 7):
            assert np.allclose(
                whole, predict_logits(r.cfg, r.model, data, idx, c, size=size), atol=1e-5
            )
        assert np.allclose(
            whole.flip(0), predict_logits(r.cfg, r.model, data, idx.flip(0), c), atol=1e-5
        )


def test_another_corpus(run, other):
    before = json.loads((run / "record.json").read_text())
    after = evaluate(run, **other, verbose=False)
    facts, scores = after["cross"]["cross:folder"], after["metrics"]["cross:folder"]
    assert {k: v for k, v in after["metrics"].items() if k != "cross:folder"} == before[
        "metrics"
    ] and set(scores) == {"av", "audio", "video"}
    assert {t["meaning"]: (t["model"], t["corpus"]) for t in facts["labels"]} == dict(
        neutral=(["neutral", "calm"], ["neutral"]),
        happiness=(["happy"], ["Happiness"]),
        sadness=(["sad"], ["sad"]),
        anger=(["angry"], ["Anger"]),
    )
    assert (
        facts["not_answered"] == ["fearful", "disgust", "surprised"]
        and facts["left_out"] == dict(bored=6)
        and (facts["scored"], facts["of"]) == (24, "clips")
    )
    p = pd.read_csv(run / "predictions-cross-folder.csv")
    mine = p[p.condition == "av"]
    assert (
        len(mine) == 24
        and set(mine.target) == {"neutral", "happiness", "sadness", "anger"}
        and list(p.columns[6:]) == ["neutral", "happiness", "sadness", "anger"]
    )
    assert (
        abs((mine.target == mine.prediction).mean() - scores["av"]["accuracy"]) < 1e-9
        and scores["av"]["accuracy"] > 0.6 > scores["audio"]["accuracy"]
    )
    once = files(run)
    evaluate(run, **other, verbose=False)
    assert files(run) == once


@pytest.mark.parametrize(
    "asked,message",
    [
        (dict(conditions="audio_nois_10dB"), "Unknown condition"),
        (dict(conditions="audio_shift_.5"), "Unknown condition"),
        (dict(conditions="audio_shift_0.5"), "not known"),
        (dict(conditions="audio_snr_10dB"), "a file of one.s own"),
        (dict(dataset="folder"), "audio_features of folder"),
        (dict(sides="tset"), "did you mean 'test'"),
    ],
)
def test_clear_errors(run, asked, message):
    with pytest.raises(AvkitError, match=message):
        evaluate(run, **asked, verbose=False)


def test_what_is_not_there(run, toy_corpus, tmp_path):
    with pytest.raises(AvkitError, match="There is no run in"):
        evaluate(tmp_path / "nothing", verbose=False)
    with pytest.raises(AvkitError, match="was trained on"):
        evaluate(
            run,
            **{k: v for k, v in toy_corpus.items() if k not in ("recipe", "device")},
            verbose=False,
        )


def test_outputs_per_frame():
    "Averaged where windows overlap, cut off at what a label can be, smoothed where asked for"
    import torch
    from dataclasses import replace
    from avkit.datasets.batches import AVData
    from avkit.datasets.features import Stream
    from avkit.training.inference import outputs

    x = torch.tensor([[-4.0, 0.1, 0.2, 0.3], [0.3, 0.5, 9.0, 9.0]])[..., None]
    frames = dict(v=np.array([[0.0], [1.0], [2.0], [np.nan], [4.0], [5.0], [6.0]], np.float32))
    data = AVData(
        Stream(x, torch.ones(2, 4, dtype=torch.bool), ""),
        None,
        torch.zeros(2, 4, 1),
        ["v", "v"],
        np.array(["test"] * 2),
        ["valence"],
        "regression",
        torch.ones(2, 4, dtype=torch.bool),
        np.array([[0, 1, 2, 3], [2, 4, 5, -1]]),
        frames,
        (np.array([-1.0], np.float32), np.array([1.0], np.float32)),
    )

    class Echo(torch.nn.Module):
        def forward(self, audio, audio_mask, step_mask):
            return audio

    cfg = configure(modality="audio")
    got = outputs(cfg, Echo(), data, "test", "audio")
    assert got["frame"].tolist() == [0, 1, 2, 4, 5] and got["target"][:, 0].tolist() == [
        0,
        1,
        2,
        4,
        5,
    ]
    assert np.allclose(got["out"][:, 0], [-1, 0.1, 0.25, 0.5, 1])
    got = outputs(
        replace(cfg, recipe=cfg.recipe | dict(smoothing=3)), Echo(), data, "test", "audio"
    )
    assert np.allclose(
        got["out"][1:4, 0], [(-1 + 0.1 + 0.25) / 3, (0.1 + 0.25 + 0.3) / 3, (0.3 + 0.5 + 1) / 3]
    )


def numbers(folder, targets, n=30, seed=0):
    "A folder with numbers for labels, and features that tell them"
    rng, rows, feats = np.random.default_rng(seed), [], []
    folder.mkdir()
    for k in range(n):
        (folder / f"c{k}.wav").write_text(f"{seed} {k}")
        y = rng.uniform(-1, 1, 2)
        rows.append(
            [
                f"c{k}.wav",
                *y[: len(targets)],
                f"s{k % 6}",
                ("train", "train", "train", "train", "validation", "test")[k % 6],
            ]
        )
        feats.append([f"c{k}", *(y + rng.normal(0, 0.05, 2))])
    pd.DataFrame(rows, columns=["file", *targets, "speaker", "split"]).to_csv(
        folder / "labels.csv", index=False
    )
    pd.DataFrame(feats, columns=["name", "f0", "f1"]).to_csv(folder / "features.csv", index=False)
    return dict(
        dataset="folder", data_root=str(folder), audio_features=str(folder / "features.csv")
    )


def test_another_corpus_of_numbers(tmp_path, toy_corpus):
    own, other = (
        numbers(tmp_path / "own", ["valence", "arousal"], 60),
        numbers(tmp_path / "other", ["valence"], seed=1),
    )
    fit(
        configure(
            **own,
            recipe="demo",
            modality="audio",
            epochs=20,
            lr=0.02,
            device="cpu",
            run_dir=str(tmp_path / "run"),
        ),
        verbose=False,
    )
    r = evaluate(tmp_path / "run", **other, verbose=False)
    assert (
        set(r["metrics"]["cross:folder"]["audio"]) == {"loss", "ccc_valence", "ccc"}
        and r["metrics"]["cross:folder"]["audio"]["ccc"] > 0.7
    )
    p = pd.read_csv(tmp_path / "run/predictions-cross-folder.csv")
    assert list(p.columns[4:]) == ["target_valence", "prediction_valence"] and len(p) == 30
    assert np.allclose(
        p.target_valence,
        pd.read_csv(tmp_path / "other/labels.csv")
        .set_index("file")
        .valence[[f"{c}.wav" for c in p["clip"]]],
        atol=1e-5,
    )
    with pytest.raises(AvkitError, match="does not fit"):
        evaluate(
            tmp_path / "run",
            **{k: v for k, v in toy_corpus.items() if k not in ("recipe", "device")},
            verbose=False,
        )


def test_the_notebook_and_the_flags_agree():
    import inspect, nbformat
    from avkit.core import repo_root
    from avkit.evaluation.evaluate import EVALUATE_HELP

    cell = next(
        c
        for c in nbformat.read(repo_root() / "nbs/evaluate.ipynb", 4).cells
        if "parameters" in c.metadata.get("tags", [])
    )
    exec(cell.source, scope := {})
    assert (
        [k for k in scope if not k.startswith("_")]
        == [k for k in inspect.signature(evaluate).parameters if k != "verbose"]
        == list(EVALUATE_HELP)
    )
    for line in cell.source.splitlines():
        assert line.endswith("# " + EVALUATE_HELP[line.split(":")[0]])


def test_another_corpus_with_a_label_per_frame():
    import torch
    from avkit.datasets.batches import AVData
    from avkit.evaluation.cross_corpus import join_classes, join_labels
    from avkit.datasets.features import Stream
    from avkit.training.inference import score_conditions
    from avkit.training.loading import RunData
    from avkit.datasets.manifest import corpus_info

    theirs, ours = corpus_info("affwild2")["classes"], corpus_info("crema_d")["classes"]
    labels = np.array(
        [
            theirs.index("Anger"),
            theirs.index("Surprise"),
            -1,
            theirs.index("Sadness"),
            theirs.index("Anger"),
        ]
    )
    x = torch.zeros(2, 3, 6)
    x[0, :, ours.index("anger")] = x[1, :, ours.index("sad")] = 5
    data = AVData(
        Stream(x, torch.ones(2, 3, dtype=torch.bool), ""),
        None,
        torch.tensor([[*labels[:3]], [*labels[3:], -1]]),
        ["v", "v"],
        np.array(["test"] * 2),
        theirs,
        steps=torch.ones(2, 3, dtype=torch.bool),
        numbers=np.array([[0, 1, 2], [3, 4, -1]]),
        frames=dict(v=labels),
    )

    class Echo(torch.nn.Module):
        def forward(self, audio, audio_mask, step_mask):
            return audio

    table = join_labels(("crema_d", ours), ("affwild2", theirs))
    corpus, through, left = join_classes(table, ours, RunData(data, None, None))
    rows, metrics = score_conditions(
        configure(modality="audio"),
        corpus,
        Echo(),
        ["audio"],
        sides={"test": "cross:affwild2"},
        through=through,
    )
    assert (
        left == dict(Surprise=1)
        and rows.frame.tolist() == [0, 3, 4]
        and rows.target.tolist() == ["anger", "sadness", "anger"]
    )
    assert rows.prediction.tolist() == ["anger", "sadness", "sadness"] and metrics[
        "cross:affwild2"
    ]["audio"]["accuracy"] == pytest.approx(2 / 3)


def family(folder, speakers, same=(), seed=0):
    "Two classes, and features; clips in `same` hold what those of seed 0 do"
    rng, rows, feats = np.random.default_rng(seed), [], []
    folder.mkdir()
    for s in speakers:
        for k, label in enumerate(["happy", "sad"] * 2):
            name = f"{s}_{k}"
            text = name if name in same or seed == 0 else f"{seed} {name}"
            (folder / f"{name}.wav").write_text(text)
            rows.append([f"{name}.wav", label, s])
            feats.append([f"{name}.wav", *(rng.normal(0, 0.3, 2) + k % 2)])
    pd.DataFrame(rows, columns=["file", "label", "speaker"]).to_csv(
        folder / "labels.csv", index=False
    )
    pd.DataFrame(feats, columns=["clip", "f0", "f1"]).to_csv(folder / "f.csv", index=False)
    return dict(dataset="folder", data_root=str(folder), audio_features=str(folder / "f.csv"))


@pytest.fixture(scope="module")
def of_folder(tmp_path_factory):
    "A run on a folder of four speakers: 01 and 02 are learned, 03 validates, 04 is tested"
    d = tmp_path_factory.mktemp("family")
    own = family(d / "own", ["01", "02", "03", "04"])
    (d / "split.csv").write_text("speaker,split\n01,train\n02,train\n03,validation\n04,test\n")
    cfg = configure(
        **own,
        recipe="demo",
        modality="audio",
        epochs=1,
        device="cpu",
        split=str(d / "split.csv"),
        run_dir=str(d / "run"),
    )
    fit(cfg, verbose=False)
    return d / "run"


def test_no_clip_by_content_that_was_trained_on(of_folder, tmp_path):
    "Under another name, in another folder; those of the run's own test subset may be asked again"
    other = family(tmp_path / "o", ["7", "01"], same={"01_0"}, seed=1)
    before = files(of_folder)
    for listed in (True, False):
        if not listed:  # a run of before: its data are indexed again
            (of_folder / "clips.csv").rename(tmp_path / "clips.csv")
        with pytest.raises(AvkitError, match=r"1 of 8 clips .* content .*: 01_0. .*--split"):
            evaluate(of_folder, **other, verbose=False)
    shutil.move(tmp_path / "clips.csv", of_folder / "clips.csv")
    assert files(of_folder) == before
    fine = family(tmp_path / "fine", ["7", "04"], same={"04_0"}, seed=2)
    r = evaluate(of_folder, **fine, verbose=False)
    assert r["cross"]["cross:folder"]["unseen"]["clips"].startswith("none of 8")


def test_no_speaker_of_the_same_family(of_folder, tmp_path, capsys):
    "Names are compared where a shared file says that they are the same people, and nowhere else"
    stranger = family(tmp_path / "stranger", ["1", "2"], seed=3)
    r = evaluate(of_folder, **stranger, verbose=True)
    assert "not compared" in r["cross"]["cross:folder"]["unseen"]["speakers"]
    screen = capsys.readouterr().out
    for told in ("8 clips scored", "joined: happy, sad", "not compared", "none of 8"):
        assert told in screen
    kin = family(tmp_path / "kin", ["1", "04", "9"], same={"04_0"}, seed=4)
    with pytest.raises(AvkitError, match=r"speaker\(s\) 1 of .*same people.*--split"):
        evaluate(of_folder, **kin, verbose=False)
    (tmp_path / "only.csv").write_text("speaker,split\n04,test\n9,test\n")
    r = evaluate(of_folder, **kin, split=str(tmp_path / "only.csv"), verbose=False)
    facts = r["cross"]["cross:folder-only"]
    assert facts["scored"] == 8 and facts["unseen"]["speakers"].startswith("none of 2")


def test_what_cannot_be_checked_is_said(of_folder, tmp_path, capsys):
    run = Path(shutil.copytree(of_folder, tmp_path / "run"))
    (run / "clips.csv").unlink()
    record = json.loads((run / "record.json").read_text())
    record["config"]["data_root"] = str(tmp_path / "gone")
    (run / "record.json").write_text(json.dumps(record))
    r = evaluate(run, **family(tmp_path / "o", ["7", "8"], seed=5))
    assert "not checked" in r["cross"]["cross:folder"]["unseen"]["clips"]
    assert "not checked" in capsys.readouterr().out


def test_a_card_is_refused_with_a_sentence(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(export, "to_graphs", lambda *a: dict())  # nobody asks for them
    assert main(["export", "--run", str(run), "--to", str(tmp_path / "card"), "--no-onnx"]) == 0
    assert main(["evaluate", "--run", str(tmp_path / "card")]) == 2
    assert "is a card" in capsys.readouterr().err


def test_the_example_of_other_epochs_is_another_run(monkeypatch, tmp_path):
    from avkit.evaluation import runs

    asked = []
    monkeypatch.setenv("AVKIT_HOME", str(tmp_path))
    monkeypatch.setattr(runs, "render_demo", lambda root, **how: None)
    monkeypatch.setattr(runs, "fit", lambda cfg, verbose: asked.append(cfg["epochs"]))
    assert len({runs.example_folder(n, n_jobs=1) for n in (12, 1, 2)}) == 3 and asked == [12, 1, 2]
