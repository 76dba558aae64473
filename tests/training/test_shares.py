"Raters' shares as a target, classes drawn or weighted evenly; and runs without either as before."

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from avkit.core import AvkitError
from avkit.datasets.batches import evenly_drawn
from avkit.evaluation.export import card_text
from avkit.evaluation.runs import open_run
from avkit.reports.endings import run_ending, usual_subsets
from avkit.reports.records import runs_report
from avkit.training.configure import configure
from avkit.training.learner import balanced_weights, batch_of_rank, fit, loss_of, start, train_order
from avkit.training.loading import load_data, read_clips, split_manifest
from avkit.training.metrics import class_loss, class_weights, js_distance
from avkit.training.record import data_lines, score_lines
from helpers import draw_small

NOTES = dict(
    votes="distribution",
    learned="the shares of the raters; scores are against what more than half of them said",
    agreement="alpha .50",
    ceiling="accuracy at most .97",
)


def rated(cfg, sure=0.7, notes=None):
    "The toy corpus, of each clip `sure` of the raters for its class, the others for the next one"
    m = split_manifest(cfg)
    number = np.array([m.classes.index(c) for c in m.clips["label"]])
    shares = np.zeros((len(m), len(m.classes)))
    shares[np.arange(len(m)), number] += sure
    shares[np.arange(len(m)), (number + 1) % len(m.classes)] += 1 - sure
    columns = {f"share_{c}": shares[:, i] for i, c in enumerate(m.classes)}
    return replace(m, clips=m.clips.assign(**columns), notes=m.notes | (notes or NOTES))


def config(toy_corpus, tmp_path, **more):
    return configure(**toy_corpus, run_dir=str(tmp_path / "run"), epochs=2, batch_size=32, **more)


# The loss


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_of_shares_is_torchs_formula(smoothing, weighted):
    g = torch.Generator().manual_seed(0)
    z, s = torch.randn(20, 5, generator=g), torch.rand(20, 5, generator=g).softmax(1)
    w = torch.rand(5, generator=g) + 0.5 if weighted else None
    got = class_loss(z, s, w, smoothing)
    each = F.cross_entropy(z, s, w, reduction="none", label_smoothing=smoothing)
    counted = 20.0 if w is None else (s * w).sum().item()
    assert got.item() == pytest.approx(each.sum().item() / counted, rel=1e-6)
    by_hand = -((s * (1 - smoothing) + smoothing / 5) * (1 if w is None else w) * z.log_softmax(1))
    assert got.item() == pytest.approx(by_hand.sum().item() / counted, rel=1e-6)
    t = torch.randint(0, 5, (20,), generator=g)
    one = class_loss(z, F.one_hot(t, 5).float(), w, smoothing)
    assert one.item() == pytest.approx(class_loss(z, t, w, smoothing).item(), rel=1e-6)


def test_balanced_weights_of_shares_count_what_raters_said():
    s = torch.tensor([[0.5, 0.5, 0], [1, 0, 0], [1, 0, 0]])
    w = class_weights(s, 3)
    assert w.tolist() == pytest.approx([3 / (2 * 2.5), 3 / (2 * 0.5), 0])
    assert (s @ w).mean().item() == pytest.approx(1)


def test_clips_mixed_in_pairs_mix_their_shares(toy_corpus, tmp_path):
    cfg = config(toy_corpus, tmp_path, mixup=0.4, label_smoothing=0.1)
    corpus = read_clips(cfg, rated(cfg), verbose=False)
    t, data = start(cfg, corpus), corpus.data
    idx = data.indices("train")[:6]
    b = batch_of_rank(t, data, idx, torch.rand(len(data), 8), 0, 0)
    assert torch.equal(b["shares"], data.shares[idx]) and b["other"].shape == (6, 8)
    w, z = b["weight"][0].item(), torch.randn(6, 8)
    mixed = w * b["shares"] + (1 - w) * b["other"]
    parts = [loss_of(cfg, z, b[k]).item() for k in ("shares", "other")]
    assert w * parts[0] + (1 - w) * parts[1] == pytest.approx(loss_of(cfg, z, mixed).item())


# Runs


def test_a_run_learns_the_shares_and_is_scored_against_the_consensus(
    toy_corpus, tmp_path, monkeypatch
):
    draw_small(monkeypatch)
    cfg = config(toy_corpus, tmp_path)
    m = rated(cfg)
    record = fit(cfg, read_clips(cfg, m, verbose=False), verbose=False)
    score = record["metrics"]["test"]["av"]
    assert 0 < score["js_distance"] < 1 and "JS distance" in score_lines(record)
    told = open_run(cfg.run_dir)
    p = told.predictions.query("split == 'test' and condition == 'av'").reset_index(drop=True)
    shares = m.clips.set_index("clip").loc[p["clip"], [f"share_{c}" for c in m.classes]]
    assert score["js_distance"] == pytest.approx(js_distance(shares, p[m.classes]), abs=1e-4)
    assert score["accuracy"] == pytest.approx((p["target"] == p["prediction"]).mean())
    assert all(NOTES[k] in run_ending(record, cfg.run_dir) for k in ("learned", "agreement"))
    assert "accuracy at most .97" in card_text(told, {})
    runs_report([cfg.run_dir], tmp_path / "report")
    assert "accuracy at most .97" in (tmp_path / "report/table.md").read_text()


def test_shares_of_one_class_train_as_the_class_does(toy_corpus, tmp_path):
    for smoothing in (0.0, 0.1):
        cfg = config(toy_corpus, tmp_path, again=True, label_smoothing=smoothing)
        plain = fit(cfg, load_data(cfg, verbose=False), verbose=False)
        sure = fit(cfg, read_clips(cfg, rated(cfg, sure=1.0), verbose=False), verbose=False)
        for a, b in zip(plain["history"], sure["history"], strict=True):
            more = {"validation_share_loss", "validation_js_distance"}
            assert b.keys() - a.keys() == more and a.keys() < b.keys()
            assert all(a[k] == pytest.approx(b[k], abs=1e-4) for k in a)
        assert plain["data_hash"] != sure["data_hash"]
        assert plain["config_hash"] == sure["config_hash"]


def test_shares_count_in_the_hash_of_data_only_where_they_are_learned(toy_corpus, tmp_path):
    cfg = config(toy_corpus, tmp_path)
    plain = split_manifest(cfg).data_hash
    some, other = rated(cfg), rated(cfg, 0.8)
    assert len({plain, some.data_hash, other.data_hash}) == 3
    off = rated(cfg, notes=dict(votes="majority"))
    assert off.data_hash == plain
    assert read_clips(cfg, off, verbose=False).data.shares is None


def test_what_does_not_go_together_is_refused(toy_corpus, tmp_path):
    cfg = config(toy_corpus, tmp_path, options='{"loss": "focal"}')
    with pytest.raises(AvkitError, match="loss=focal takes one class a clip"):
        start(cfg, read_clips(cfg, rated(cfg), verbose=False))
    cfg = config(toy_corpus, tmp_path)
    m = rated(cfg)
    for bad in (m.clips.drop(columns="share_sad"), m.clips.assign(share_sad=0.5)):
        with pytest.raises(AvkitError, match="share"):
            read_clips(cfg, replace(m, clips=bad), verbose=False)
    numbers = load_data(cfg, verbose=False)
    numbers.data.task, numbers.data.classes = "regression", ["valence"]
    for name in ("class_weights", "sampling"):
        asked = config(toy_corpus, tmp_path, **{name: "balanced"})
        with pytest.raises(AvkitError, match=f"{name}=balanced is for classes"):
            start(asked, numbers)


# Sampling


def uneven(cfg):
    "The toy corpus with few training clips of the last three classes"
    corpus = load_data(cfg, verbose=False)
    d = corpus.data
    rare = np.flatnonzero((d.split == "train") & (d.target.numpy() >= 5))
    d.split[rare[np.arange(len(rare)) % 4 > 0]] = ""
    return corpus


def test_an_epoch_draws_every_class_equally_often(toy_corpus, tmp_path):
    cfg = config(toy_corpus, tmp_path, sampling="balanced")
    data = uneven(cfg).data
    train = data.indices("train")
    counts = data.target[train].bincount(minlength=8)
    assert counts.max() >= 3 * counts.min() > 0
    seen = torch.zeros(len(data))
    for epoch in range(30):
        idx = torch.cat(train_order(cfg, data, epoch))
        assert len(idx) == len(train) and set(idx.tolist()) <= set(train.tolist())
        drawn = data.target[idx].bincount(minlength=8)
        assert drawn.max() - drawn.min() <= 1
        seen += idx.bincount(minlength=len(data))
    assert (seen[train] > 0).all()
    by_class = torch.stack([seen[data.target == c].sum() for c in range(8)])
    assert by_class / by_class.mean() == pytest.approx(torch.ones(8), abs=0.02)
    off = config(toy_corpus, tmp_path)
    assert sorted(torch.cat(train_order(off, data, 0)).tolist()) == train.tolist()


def test_a_draw_depends_on_seed_and_epoch_alone():
    y = torch.arange(40) % 3 // 2
    draw = lambda seed, epoch: evenly_drawn(torch.arange(40), y, seed, epoch).tolist()
    first = draw(1, 0)
    torch.rand(7)
    assert draw(1, 0) == first and draw(1, 1) != first and draw(2, 0) != first


def test_a_run_that_stops_goes_on_with_the_same_draws(toy_corpus, tmp_path):
    settings = dict(sampling="balanced", batch_size=32, schedule="constant", **toy_corpus)
    whole = configure(**settings, epochs=4, run_dir=str(tmp_path / "whole"))
    half = configure(**settings, epochs=2, run_dir=str(tmp_path / "half"))
    record = fit(whole, uneven(whole), verbose=False)
    fit(half, uneven(half), verbose=False)
    (tmp_path / "half/record.json").unlink()
    rest = whole.changed(run_dir=str(tmp_path / "half"), resume=True)
    assert fit(rest, uneven(rest), verbose=False)["history"] == record["history"]


# What a run says


def test_what_is_scarce_is_said_once_before_training_and_kept(toy_corpus, tmp_path, capsys):
    cfg = config(toy_corpus, tmp_path, split="kfold4")
    m = split_manifest(cfg)
    name = m.classes[2]
    m.clips.loc[(m.clips["split"] == "train") & (m.clips["label"] == name), "split"] = ""
    record = fit(cfg, read_clips(cfg, m, verbose=False))
    out = capsys.readouterr().out
    said = f"note: No training clip is {name}: the model can never answer it."
    assert out.count(said) == 1 and out.index(said) < out.index("epoch ")
    assert any(said[6:] in s for s in record["notes"]["few_data"])
    kept = json.loads((cfg.run_dir / "record.json").read_text())
    assert any(said[6:] in s for s in data_lines(kept))


def test_enough_clips_leave_no_word(toy_corpus, tmp_path, capsys):
    cfg = config(toy_corpus, tmp_path, split="kfold4")
    record = fit(cfg)
    assert "note:" not in capsys.readouterr().out and "few_data" not in record["notes"]
    assert "note: Fewer than 5 test clips" in usual_subsets(split_manifest(cfg))  # of 4 actors


# Runs without any of it are those they were


HASHES = dict(
    chumachenko2022="a026fc2124433d8e435b1dd912ab9c7886c932700ca81fdef00a82e97596a028",
    demo="5a0cc16894860c71454b65872fc12d341ce8da41177a7738e1cdf90a9a9e7f93",
    emotiw2023="aae6c866e8e02140a26decb74a2da65f27b79a9d571ac7798c66c5556268913b",
    jca2023="dee05318632ddd95d7010ed23014c9205ec632e5a569909d9b8aeada143c8a36",
    ntua2021="4475947733802f8aa4a67f509946081cea963be52d3c3cbcaa2d7af1bbf2a75e",
    vavl2023="413346e024d41d3f11c89e8f2a14170f6108301890863657d7ddde5c7dcd9e21",
)
OF = dict(
    chumachenko2022="ravdess",
    demo="ravdess",
    emotiw2023="vgaf",
    jca2023="affwild2",
    ntua2021="affwild2",
    vavl2023="msp_improv",
)


@pytest.mark.parametrize("recipe", OF)
def test_hashes_of_settings_are_those_before_there_was_sampling(recipe):
    usual = dict(recipe=recipe, dataset=OF[recipe], data_root="rendered")
    assert configure(**usual).hash == HASHES[recipe]
    assert configure(**usual, sampling="none", class_weights="none").hash == HASHES[recipe]
    assert configure(**usual, sampling="balanced").hash != HASHES[recipe]


def test_the_flag_of_class_weights_is_the_option_it_was(toy_corpus, tmp_path):
    flag = config(toy_corpus, tmp_path, class_weights="balanced")
    option = config(toy_corpus, tmp_path, options='{"class_weights": "balanced"}')
    assert flag.hash == option.hash
    data = uneven(flag).data
    w = balanced_weights(flag, data)
    assert torch.equal(w, balanced_weights(option, data))
    assert w[data.target[data.indices("train")]].mean().item() == pytest.approx(1, rel=1e-5)
