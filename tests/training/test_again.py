"""A finished run is never overwritten: not by other data, other settings, nor by itself."""

import json
import pandas as pd, pytest
from avkit.cli import main
from avkit.core import AvkitError, read_json
from avkit.evaluation.evaluate import evaluate
from avkit.evaluation.runs import open_run, record_paths, unfinished_runs
from avkit.training import record as rec
from avkit.training.configure import configure
from avkit.training.grid import combine, run_grid
from avkit.training.learner import fit


@pytest.fixture
def toy(toy_corpus, monkeypatch, tmp_path):
    "The toy data set, for two epochs, and default folders below a temporary folder"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("avkit.training.configure.kit_path", lambda p: tmp_path / p)
    return toy_corpus | dict(epochs=2, batch_size=64)


def flags(settings):
    return ["train", *(f"--{k}={v}" for k, v in settings.items())]


def fewer_classes(toy, folder):
    "The same data set with half of its classes, in another folder of the same layout"
    root = folder / "half/ravdess"
    for p in sorted(open_root(toy).rglob("*.wav")):
        if int(p.stem.split("-")[2]) <= 4:
            to = root / p.relative_to(open_root(toy))
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(p.read_bytes())
    return toy | dict(data_root=str(root))


def open_root(toy):
    from pathlib import Path

    return Path(toy["data_root"])


def test_other_data_have_a_folder_of_their_own(toy, tmp_path, capsys):
    assert main(flags(toy)) == 0
    (first,) = record_paths(tmp_path / "reports")
    before = first.read_bytes()
    assert main(flags(fewer_classes(toy, tmp_path))) == 0
    both = record_paths(tmp_path / "reports")
    assert len(both) == 2 and first.read_bytes() == before
    assert len({r.parent.name for r in both}) == 2
    names = [r.parent.name.rpartition("-")[0] for r in both]
    assert names[0] == names[1]  # they differ in their key alone


def test_a_finished_run_is_not_repeated_and_keeps_its_evaluations(toy, tmp_path, capsys):
    assert main(flags(toy)) == 0
    first, (path,) = capsys.readouterr().out, record_paths(tmp_path / "reports")
    evaluate(str(path.parent), "av,audio_noise_10dB", verbose=False)
    before = {p: p.read_bytes() for p in path.parent.rglob("*") if p.is_file()}
    assert main(flags(toy)) == 0
    said = capsys.readouterr().out
    assert "is not trained again" in said and "--again" in said and "epoch " not in said
    assert first.split("\n")[-4:-1][0].split()[:2] == ["test", "av"] or "test" in said
    assert {p: p.read_bytes() for p in path.parent.rglob("*") if p.is_file()} == before
    assert "audio_noise_10dB" in said

    assert main([*flags(toy), "--again"]) == 0
    assert "epoch " in capsys.readouterr().out
    aside = path.parent / "earlier/1/record.json"
    assert aside.read_bytes() == before[path]
    assert record_paths(tmp_path / "reports") == [path]
    assert "audio_noise_10dB" not in read_json(path)["metrics"]["test"]
    assert "audio_noise_10dB" in open_run(aside.parent).record["metrics"]["test"]


def test_other_code_is_told(toy, tmp_path, capsys, monkeypatch):
    assert main(flags(toy)) == 0
    (path,) = record_paths(tmp_path / "reports")
    before = path.read_bytes()
    monkeypatch.setattr(rec, "code_hash", lambda corpus=None: "other")
    capsys.readouterr()
    assert main(flags(toy)) == 0
    said = capsys.readouterr().out
    assert "with other code" in said and "--again" in said and path.read_bytes() == before


def test_a_named_folder_of_another_run_is_refused(toy, tmp_path, capsys):
    named = toy | dict(run_dir=str(tmp_path / "mine"))
    assert main(flags(named)) == 0
    before = (tmp_path / "mine/record.json").read_bytes()
    capsys.readouterr()
    assert main(flags(named | dict(lr=0.5))) == 2
    said = capsys.readouterr().err
    assert "holds another run" in said and "lr: 0.003 then, 0.5 now" in said
    assert main(flags(fewer_classes(named, tmp_path))) == 2
    assert "the data are other clips" in capsys.readouterr().err
    own = tmp_path / "sound.csv"
    t = pd.read_csv(toy["audio_features"])
    t.assign(b0=t.b0 * 2).to_csv(own, index=False)
    assert main(flags(named | dict(audio_features=str(own)))) == 2
    assert "has another content" in capsys.readouterr().err
    assert (tmp_path / "mine/record.json").read_bytes() == before


def test_splits_and_features_have_folders_of_their_own(toy, tmp_path):
    t = pd.read_csv(toy["audio_features"])
    t.assign(b0=t.b0 * 2).to_csv(tmp_path / "sound.csv", index=False)
    for more in ({}, dict(split="kfold3"), dict(audio_features=str(tmp_path / "sound.csv"))):
        fit(configure(**toy | more), verbose=False)
    for speakers in (("01", "02"), ("03", "04")):
        rows = [dict(speaker=f"{i:02d}", split="train") for i in range(5, 25)]
        rows += [dict(speaker=s, split=x) for s, x in zip(speakers, ("validation", "test"))]
        pd.DataFrame(rows).to_csv(tmp_path / "mine.csv", index=False)
        fit(configure(**toy, split=str(tmp_path / "mine.csv")), verbose=False)
    assert len(record_paths(tmp_path / "reports")) == 5


def test_a_grid_runs_what_is_the_same_once(toy, tmp_path, capsys):
    grid = ["grid", *flags(toy)[1:], "--modality=audio,video", "--fusion=ca,ia"]
    grid += [f"--to={tmp_path / 'grid'}", "--n_jobs=1"]
    assert main(grid) == 0
    assert "2 of 4 are the same run" in capsys.readouterr().out
    assert len(record_paths(tmp_path / "grid")) == 2
    assert main(grid) == 0 and capsys.readouterr().out.count("cached") == 2
    assert main([*grid, "--again"]) == 0 and capsys.readouterr().out.count("done") == 2
    assert len(record_paths(tmp_path / "grid")) == 2


def test_a_grid_over_data_sets(toy, tmp_path):
    half = fewer_classes(toy, tmp_path)
    settings = toy | dict(data_root=[toy["data_root"], half["data_root"]])
    t = run_grid(combine(to=tmp_path / "grid", **settings), n_jobs=1)
    assert t.status.tolist() == ["done", "done"] and t.run_dir.nunique() == 2
    again = run_grid(combine(to=tmp_path / "grid", **half), n_jobs=1)
    assert again.status.tolist() == ["cached"] and again.run_dir[0] == t.run_dir[1]


def test_what_was_begun_is_known(toy, tmp_path, monkeypatch):
    from avkit.training import learner

    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(learner, "finish", stop)
    with pytest.raises(KeyboardInterrupt):
        fit(configure(**toy, run_dir=str(tmp_path / "begun")), verbose=False)
    assert unfinished_runs(tmp_path) == [tmp_path / "begun"]
    monkeypatch.undo()
    with pytest.raises(AvkitError, match="holds another run"):
        fit(configure(**toy, run_dir=str(tmp_path / "begun"), lr=0.5), verbose=False)
    fit(configure(**toy, run_dir=str(tmp_path / "begun"), resume=True), verbose=False)
    assert unfinished_runs(tmp_path) == []


def test_more_epochs(toy, tmp_path, capsys):
    run = tmp_path / "run"
    same = toy | dict(options="schedule=constant")
    straight = fit(configure(**same | dict(epochs=4, run_dir=str(tmp_path / "s"))), verbose=False)
    fit(configure(**same | dict(run_dir=str(run))), verbose=False)
    longer = fit(configure(**same | dict(epochs=4, run_dir=str(run), resume=True)), verbose=False)
    assert longer["history"] == straight["history"] and longer["metrics"] == straight["metrics"]
    assert len(read_json(run / "earlier/1/record.json")["history"]) == 2
    wrong = dict(epochs=3, run_dir=str(run), resume=True)
    with pytest.raises(AvkitError, match="4 epochs are trained already"):
        fit(configure(**same | wrong), verbose=False)
    fit(configure(**toy | dict(run_dir=str(tmp_path / "cosine"))), verbose=False)
    wrong = dict(epochs=4, run_dir=str(tmp_path / "cosine"), resume=True)
    with pytest.raises(AvkitError, match="schedule=cosine"):
        fit(configure(**toy | wrong), verbose=False)


def test_resume_names_what_differs(toy, tmp_path, capsys):
    named = toy | dict(run_dir=str(tmp_path / "run"))
    assert main(flags(named)) == 0
    other = named | dict(lr=0.5, options=json.dumps(dict(head=dict(dropout=0.5))))
    assert main([*flags(other), "--resume"]) == 2
    said = capsys.readouterr().err
    assert "lr: 0.003 then, 0.5 now" in said and "head.dropout: not set then, 0.5 now" in said
    assert main([*flags(named), "--resume"]) == 0
    assert "is not trained again" in capsys.readouterr().out


def test_numbers_without_a_flag_are_given_by_name(toy, tmp_path, capsys):
    more = ["--loss", "focal", "--head.dropout=0.5", f"--run_dir={tmp_path / 'run'}"]
    assert main([*flags(toy), *more]) == 0
    recipe = read_json(tmp_path / "run/record.json")["recipe"]
    assert recipe["loss"] == "focal" and recipe["head"]["dropout"] == 0.5
    assert main([*flags(toy), "--hed.dropout", "1"]) == 2
    assert "did you mean 'head'" in capsys.readouterr().err
    assert main([*flags(toy), "--head.dropuot", "0.5"]) == 2
    assert "did you mean 'dropout'" in capsys.readouterr().err


def begun(folder):
    "The folders of runs below a folder, by name"
    return sorted(p.parent.name for p in folder.rglob("started.json"))


def test_train_and_grid_give_one_configuration_one_folder(toy, tmp_path, capsys):
    assert main(flags(toy)) == 0
    before = begun(tmp_path / "reports")
    assert main(["grid", *flags(toy)[1:], "--n_jobs=1"]) == 0
    assert "cached" in capsys.readouterr().out and begun(tmp_path / "reports") == before
    grid = ["grid", *flags(toy)[1:], "--n_jobs=1", "--seed=2,3"]
    assert main(grid) == 0 and len(begun(tmp_path / "reports")) == 3
    capsys.readouterr()
    assert main([*flags(toy), "--seed=3"]) == 0
    assert "is not trained again" in capsys.readouterr().out
    assert len(begun(tmp_path / "reports")) == 3


@pytest.mark.parametrize("first", ["train", "grid"])
def test_one_run_in_other_words_is_not_repeated(toy, tmp_path, capsys, first):
    plain = toy | dict(lr=0.01)
    word = "--n_jobs=1" if first == "grid" else "--device=cpu"
    assert main([first, *flags(plain)[1:], word]) == 0
    one = begun(tmp_path / "reports")
    del plain["lr"]
    for words in (["--options=lr=0.01"], ["--lr", "1e-2", "--size", "paper"], ["--lr=.01"]):
        capsys.readouterr()
        assert main([*flags(plain), *words]) == 0
        assert "is not trained again" in capsys.readouterr().out, words
    assert main([*flags(plain), "--options=lr=0.02"]) == 0
    assert "epoch " in capsys.readouterr().out
    assert len(one) == 1 and len(begun(tmp_path / "reports")) == 2


def test_names_that_others_know():
    assert configure().run_dir.name == "synth-demo-ca-fold0-seed1"
    (one,) = combine(fold=1)
    assert one.run_dir.name == "synth-demo-ca-fold1-seed1"


def test_more_epochs_without_a_folder_go_on_from_the_shorter_run(toy, tmp_path, capsys):
    same = toy | dict(options="schedule=constant")
    straight = fit(configure(**same | dict(epochs=4, run_dir=str(tmp_path / "s"))), verbose=False)
    assert main(flags(same)) == 0
    (path,) = record_paths(tmp_path / "reports")
    before = {p: p.read_bytes() for p in path.parent.rglob("*") if p.is_file()}
    capsys.readouterr()
    assert main([*flags(same | dict(epochs=4)), "--resume"]) == 0
    said = capsys.readouterr().out
    assert f"goes on from {path.parent}" in said and "epoch   3/4" in said
    assert "epoch   2/4" not in said
    assert {p: p.read_bytes() for p in path.parent.rglob("*") if p.is_file()} == before
    (longer,) = (r for r in record_paths(tmp_path / "reports") if r != path)
    record = read_json(longer)
    assert record["history"] == straight["history"]
    assert record["metrics"] == straight["metrics"]


def test_resume_of_nothing_says_so(toy, tmp_path, capsys):
    assert main([*flags(toy | dict(lr=0.5)), "--resume"]) == 0
    said = capsys.readouterr().out
    assert "holds nothing to go on from" in said and "--run_dir" in said
    assert main(flags(toy)) == 0
    assert main([*flags(toy | dict(epochs=4)), "--resume"]) == 2
    assert "schedule=cosine" in capsys.readouterr().err
