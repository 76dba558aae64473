"Once the epoch is chosen: a second training, on validation clips too."

import json, shutil
from dataclasses import replace
import pandas as pd, pytest, torch
from avkit.core import AvkitError, repo_root
from avkit.datasets.splits import LeakError
from avkit.evaluation.evaluate import evaluate
from avkit.evaluation.runs import open_run
from avkit.training.checkpoint import CHOSEN, load_model, read_checkpoint, split_tensors
from avkit.training.configure import configure
from avkit.training.learner import fit, start, with_validation
from avkit.training.loading import load_data
from avkit.training.record import read_record, refit_lines, SCORED_ANEW
from avkit.reports.endings import run_ending
from avkit.reports.records import runs_report

PLAIN = dict(epochs=6, batch_size=32, options=json.dumps(dict(schedule="constant")))


def tensors(run, name, part="model"):
    return split_tensors(read_checkpoint(run / f"checkpoints/{name}.safetensors")[0], part)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture(scope="module")
def both(toy_corpus, tmp_path_factory):
    "A run without, and one with it: (folder, record) of each"
    d = tmp_path_factory.mktemp("refit")
    made = {}
    for name, asked in (("without", {}), ("with", dict(refit=True))):
        cfg = configure(**toy_corpus, **PLAIN, **asked, run_dir=str(d / name))
        made[name] = d / name, fit(cfg, verbose=False)
    return made


def test_what_chooses_never_learned_validation(both):
    (plain, without), (run, record) = both["without"], both["with"]
    assert without["config_hash"] != record["config_hash"] and "refit" not in without
    for k in ("history", "best_epoch", "counts"):
        assert record[k] == without[k]
    assert record["metrics"]["validation"] == without["metrics"]["validation"]
    assert same(tensors(run, "chosen"), tensors(plain, "best"))
    assert record["metrics"]["test"] != without["metrics"]["test"]
    rows = [pd.read_csv(d / "predictions.csv") for d in (run, plain)]
    pd.testing.assert_frame_equal(*(r.query("split == 'validation'") for r in rows))


def test_the_model_is_that_of_all_the_clips(both, toy_corpus, tmp_path):
    """Against a run whose split has the validation clips among its training clips, on features in
    the scale of the first"""
    run, record = both["with"]
    data = load_data(configure(**toy_corpus, **PLAIN), verbose=False).data
    told = pd.DataFrame(dict(clip=data.clips, split=data.split))
    told["split"] = told["split"].map(dict(train="train", validation="train", test="validation"))
    told.to_csv(tmp_path / "split.csv", index=False)
    epochs = record["best_epoch"] + 1
    settings = PLAIN | dict(epochs=epochs, split=str(tmp_path / "split.csv"))
    cfg = configure(**toy_corpus, **settings, run_dir=str(tmp_path / "all"))
    corpus = load_data(cfg, verbose=False)
    scaled = replace(corpus.data, audio=data.audio, video=data.video)
    fit(cfg, replace(corpus, data=scaled), verbose=False)
    ema = tensors(tmp_path / "all", "last", "ema")
    assert same(tensors(run, "best"), split_tensors(ema, "module"))
    assert record["refit"]["epochs"] == epochs == len(record["refit"]["losses"])
    assert record["refit"]["clips"] == record["counts"]["train"] + record["counts"]["validation"]


def test_who_opens_the_run_has_that_model(both):
    run, record = both["with"]
    model, _ = load_model(run)
    assert same(model.state_dict(), tensors(run, "best"))
    rows = open_run(run).predictions.query("split == 'test' and condition == 'av'")
    right = (rows.target == rows.prediction).mean()
    assert right == pytest.approx(record["metrics"]["test"]["av"]["accuracy"])


def test_nothing_is_learned_of_the_only_clips_that_are_scored(toy_corpus, tmp_path, capsys):
    data = load_data(configure(**toy_corpus), verbose=False).data
    told = pd.DataFrame(dict(clip=data.clips, split=data.split)).query("split != 'test'")
    told.to_csv(tmp_path / "split.csv", index=False)
    settings = dict(split=str(tmp_path / "split.csv"), epochs=1, run_dir=str(tmp_path / "run"))
    record = fit(configure(**toy_corpus, **settings, refit=True))
    assert "refit is left out" in capsys.readouterr().out and "refit" not in record
    assert [p.name for p in (tmp_path / "run/checkpoints").iterdir()] != []
    assert not (tmp_path / "run/checkpoints/chosen.safetensors").exists()
    assert open_run(tmp_path / "run").model is not None


def test_test_clips_stay_apart(toy_corpus):
    cfg = configure(**toy_corpus)
    corpus = load_data(cfg, verbose=False)
    joined = with_validation(start(cfg, corpus), corpus).data
    assert not len(joined.indices("validation"))
    assert torch.equal(joined.indices("test"), corpus.data.indices("test"))
    assert not set(joined.indices("train").tolist()) & set(joined.indices("test").tolist())


def test_a_card_and_a_lean_record_say_so(both):
    from avkit.evaluation.export import card_text
    from avkit.reports.records import slim_record

    for name, told in (("without", False), ("with", True)):
        run, record = both[name]
        text = card_text(open_run(run), {})
        assert ("Trained anew (refit) on " in text) == told
        lean = slim_record(record)
        assert refit_lines([lean]) == refit_lines([record]) and bool(refit_lines([lean])) == told
        assert all(line in text for line in refit_lines([record]))
        assert lean.get("refit") == ({k: record["refit"][k] for k in ("epochs", "clips")} if told
                                     else None)


def test_evaluated_again_validation_is_still_that_of_who_never_learned_it(both, tmp_path):
    run, record = both["with"]
    copied = shutil.copytree(run, tmp_path / "run")
    again = evaluate(str(copied), "av,audio_zero", device="cpu", verbose=False)["metrics"]
    for subset in ("validation", "test"):
        assert again[subset]["av"] == record["metrics"][subset]["av"]
    rows = [pd.read_csv(d / "predictions.csv").query("condition == 'av'") for d in (run, copied)]
    pd.testing.assert_frame_equal(*(r.reset_index(drop=True) for r in rows))
    chosen = load_model(copied, CHOSEN)[0].state_dict()
    assert same(chosen, tensors(run, "chosen"))
    (copied / CHOSEN).unlink()
    evaluate(str(copied), "audio", "train,test", device="cpu", verbose=False)
    with pytest.raises(AvkitError, match="chosen.safetensors.*--sides test.*--again"):
        evaluate(str(copied), "audio", "validation", device="cpu", verbose=False)


def test_no_run_begins_with_weights_that_learned_its_validation_clips(both, toy_corpus, tmp_path):
    run, _ = both["with"]
    begin = lambda name, **init: fit(configure(
        **toy_corpus, epochs=1, run_dir=str(tmp_path / name), **init), verbose=False)  # fmt: skip
    for place in (run, run / "checkpoints/best.safetensors"):
        for name in ("init", "resume_from"):
            with pytest.raises(LeakError, match="files of validation.*chosen.safetensors"):
                begin("refused", **{name: str(place)})
    told = begin("chosen", init=str(run / CHOSEN))["began"]
    assert told["unseen"].startswith("none of test or validation") and not told["drawn"]
    plain, _ = both["without"]
    assert begin("plain", init=str(plain))["began"]["unseen"] == told["unseen"].replace(
        run.name, plain.name)  # fmt: skip
    lost = shutil.copytree(run, tmp_path / "lost")
    (lost / CHOSEN).unlink()  # the record still tells it
    with pytest.raises(LeakError, match="files of validation"):
        begin("refused", init=str(lost))


def test_the_same_sentence_is_read_everywhere(both, tmp_path):
    run, record = both["with"]
    (said,) = refit_lines([record])
    r = record["refit"]
    assert f"on {r['clips']} clips of" in said and f"for the {r['epochs']} epochs that" in said
    assert said in run_ending(record, run) and "anew" not in run_ending(*both["without"][::-1])
    runs_report([run, both["without"][0]], tmp_path / "both")
    text = (tmp_path / "both/table.md").read_text()
    assert said.replace("(refit)", "(refit; 1 of 2 runs)") in text
    assert SCORED_ANEW in said and SCORED_ANEW in (repo_root() / "README.md").read_text()
    (one,) = refit_lines([record | dict(level="frame", refit=dict(epochs=1, clips=1))])
    assert "on 1 window of" in one and "for the 1 epoch that" in one


def test_a_record_with_another_thing_in_its_place_is_refused(both, tmp_path):
    path = tmp_path / "record.json"
    for odd in (True, "yes", dict(epochs=3), dict(epochs="many", clips=3)):
        path.write_text(json.dumps(both["with"][1] | dict(refit=odd)))
        with pytest.raises(AvkitError, match="refit"):
            read_record(path)
