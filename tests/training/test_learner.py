"""The rate of each step, clips mixed in pairs, and both in runs that stop and go on."""

import math
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch

from avkit.datasets.batches import draws
from avkit.training import learner
from avkit.training.configure import configure
from avkit.training.learner import (
    fit,
    lr_at,
    mixed_batch,
    mixing,
    batch_of_rank,
    start,
    train_order,
    training_batch,
)
from avkit.training.loading import load_data
from avkit.training.quirks import with_quirks
from helpers import PAPERS, config, toy

FLAT = dict(schedule="constant", lr=1.0)
NEW = dict(epochs=4, batch_size=32, warmup=1.5, per_step=True, mixup=0.4)


def curve(epochs=6, steps=4, **settings):
    "The rate of every step of a run"
    c = configure(epochs=epochs, **settings)
    return [lr_at(c, e, step=i, steps=steps) for e in range(epochs) for i in range(steps)]


def history(settings, run_dir, **more):
    return fit(configure(**settings, run_dir=str(run_dir), **more), verbose=False)["history"]


# The rate


def test_without_warm_up_each_epoch_has_the_rate_it_had():
    cosine = [0.5 * (1 + math.cos(math.pi * e / 6)) for e in range(6) for _ in range(4)]
    assert curve(lr=1.0, schedule="cosine") == cosine
    assert curve(**FLAT) == [1.0] * 24
    stairs = configure(options='{"milestones": [2, 4]}', schedule="steps", lr=1.0, epochs=6)
    assert [lr_at(stairs, e) for e in range(6)] == [0.1 ** (e // 2) for e in range(6)]


def test_warm_up_rises_from_nothing_along_a_line():
    by_epoch = [min(1, (e + 1) / 3) for e in range(6) for _ in range(4)]
    assert curve(**FLAT, warmup=3.0) == pytest.approx(by_epoch)
    rise = curve(**FLAT, warmup=2.0, per_step=True)
    assert rise[:8] == pytest.approx([(i + 1) / 8 for i in range(8)]) and rise[8:] == [1.0] * 16
    assert curve(**FLAT, warmup=0.5, per_step=True)[:3] == pytest.approx([0.5, 1.0, 1.0])
    assert curve(**FLAT, warmup=0.5) == [1.0] * 24  # a rate for an epoch cannot show half of one


def test_cosine_begins_where_the_warm_up_ends_and_falls_with_each_step():
    rates = curve(schedule="cosine", lr=1.0, warmup=2.0, per_step=True)
    assert max(rates) == rates[7] == rates[8] == 1.0
    assert all(a < b for a, b in pairwise(rates[:8])) and all(a > b for a, b in pairwise(rates[8:]))
    want = [0.5 * (1 + math.cos(math.pi * i / 16)) for i in range(16)]
    assert rates[8:] == pytest.approx(want)
    per_epoch = curve(schedule="cosine", lr=1.0, warmup=2.0)
    assert (
        per_epoch[::4] == pytest.approx([0.5, 1.0, *want[::4]]) and len(set(per_epoch[8:12])) == 1
    )


def test_a_warm_up_as_long_as_the_run_or_longer():
    for schedule in ("cosine", "constant"):
        for warmup in (6.0, 9.0):
            rates = curve(schedule=schedule, lr=1.0, warmup=warmup, per_step=True)
            assert rates == pytest.approx([(i + 1) / 4 / warmup for i in range(24)])


def test_stairs_and_plateaus_stay_whole_epochs():
    for schedule in ("steps", "decay", "plateau"):
        stairs = dict(options='{"milestones": [1]}', schedule=schedule)
        c, d = (configure(**stairs, per_step=p) for p in (False, True))
        for e in range(8):
            assert {lr_at(d, e, [0.1] * e, i, 3) for i in range(3)} == {lr_at(c, e, [0.1] * e)}


def test_the_optimizer_gets_the_rate_of_each_step(toy_corpus, tmp_path, monkeypatch):
    seen, step = [], learner.train_step

    def spy(t, batch, part=None):
        seen.append(t.optimizer.param_groups[0]["lr"])
        return step(t, batch, part)

    monkeypatch.setattr(learner, "train_step", spy)
    rows = history(toy_corpus, tmp_path / "run", epochs=3, batch_size=32, warmup=1.0, per_step=True)
    n = len(seen) // 3
    want = configure(**toy_corpus, epochs=3, warmup=1.0, per_step=True)
    assert n > 1 and seen == [lr_at(want, e, step=i, steps=n) for e in range(3) for i in range(n)]
    assert [r["lr"] for r in rows] == seen[n - 1 :: n]  # the row tells the last one


# Off is off


def test_off_changes_no_hash_and_no_bit(toy_corpus, tmp_path):
    off = dict(warmup=0.0, per_step=False, mixup=0.0)
    assert configure(**off).hash == configure().hash and configure(**off).name == configure().name
    plain, said = (history(toy_corpus, tmp_path / str(len(o)), epochs=2, **o) for o in ({}, off))
    assert plain == said
    for k, v in dict(warmup=1.0, per_step=True, mixup=0.2).items():
        assert configure(**{k: v}).hash != configure().hash


def test_a_rate_per_step_that_does_not_change_is_the_same_run(toy_corpus, tmp_path):
    same = dict(epochs=2, schedule="constant")
    rows = [history(toy_corpus, tmp_path / str(p), per_step=p, **same) for p in (False, True)]
    assert rows[0] == rows[1]


def test_without_mixup_a_batch_says_nothing_of_partners(toy_corpus):
    cfg = configure(**toy_corpus)
    assert mixing(cfg, torch.arange(8), 0, 0) is None
    data = load_data(cfg, verbose=False).data
    b = training_batch(cfg, data, torch.arange(3), draws(len(data), 1, 0), 0, "cpu")
    assert not {"other", "weight"} & b.keys()


# Pairs


def test_pairs_and_weight_depend_on_seed_epoch_and_step_alone():
    cfg, idx = configure(mixup=0.4), torch.tensor([5, 3, 8, 1, 9])
    partners, weight = mixing(cfg, idx, 2, 7)
    again, same = mixing(cfg, idx, 2, 7)
    assert torch.equal(partners, again) and weight == same and 0 <= weight <= 1
    assert sorted(partners.tolist()) == sorted(idx.tolist())
    reseeded = configure(mixup=0.4, seed=2)
    for c, epoch, step in ((reseeded, 2, 7), (cfg, 3, 7), (cfg, 2, 8)):
        assert mixing(c, idx, epoch, step)[1] != weight


def test_processes_share_the_pairs_of_the_whole_batch():
    cfg, idx = configure(mixup=0.4), torch.arange(7)
    whole, weight = mixing(cfg, idx, 0, 0)
    for world in (1, 2, 3, 8):
        for rank in range(world):
            partners, w = mixing(cfg, idx, 0, 0, rank, world)
            assert torch.equal(partners, whole[rank::world]) and w == weight


def test_weights_follow_the_beta_distribution():
    for alpha in (0.2, 1.0, 4.0):
        cfg, pair = configure(mixup=alpha), torch.arange(2)
        w = np.array([mixing(cfg, pair, epoch, 0)[1] for epoch in range(2000)])
        assert w.mean() == pytest.approx(0.5, abs=0.03)
        assert w.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


def test_clips_of_different_lengths_mix_without_their_padding():
    "What stands in padding, even nan, never comes in; steps that neither has stay out"

    def clips(value, lengths):
        mask = torch.arange(4)[None] < torch.tensor(lengths)[:, None]
        x = torch.where(mask[..., None], value, torch.nan)
        return dict(audio=x, audio_mask=mask, target=torch.tensor([0, 1]))

    out = mixed_batch(clips(1.0, [3, 0]), clips(10.0, [1, 2]), 0.9)
    assert out["audio_mask"].tolist() == [[True, True, True, False], [True, True, False, False]]
    want = torch.tensor([[1.9, 0.9, 0.9, 0.0], [1.0, 1.0, 0.0, 0.0]])
    assert torch.allclose(out["audio"][..., 0], want)


@pytest.mark.parametrize("mode", ["as_described", "as_released"])
@pytest.mark.parametrize("recipe", PAPERS)
def test_every_recipe_trains_on_mixed_clips(recipe, mode, tmp_path):
    "Classes and numbers, per clip and per step, with each one's augmentation and modality dropout"
    new = dict(mixup=0.4, warmup=0.5, per_step=True)
    corpus, cfg = toy(recipe), config(recipe, tmp_path, mode=mode, **new)
    t = start(cfg, with_quirks(cfg, corpus))
    mixed = learner.train_epoch(t, 0) | learner.validate(t)
    assert all(np.isfinite(v) for v in mixed.values())
    plain = config(recipe, tmp_path / "plain", mode=mode, seed=cfg["seed"])
    row = learner.train_epoch(start(plain, with_quirks(plain, corpus)), 0)
    assert mixed["train_loss"] != row["train_loss"]


def test_the_loss_is_that_of_both_classes(toy_corpus):
    from torch.nn import functional as F
    from avkit.training.inference import forward

    cfg = configure(**toy_corpus, mixup=1.0, aux_loss=0.0, label_smoothing=0.0, batch_size=16)
    corpus = load_data(cfg, verbose=False)
    t, data = start(cfg, corpus), corpus.data
    t.model.eval()
    idx, u = train_order(cfg, data, 0)[0], draws(len(data), cfg["seed"], 0)
    b = batch_of_rank(t, data, idx, u, 0, 0)
    partners, weight = mixing(cfg, idx, 0, 0)
    assert torch.equal(b["target"], data.target[idx])
    assert torch.equal(b["other"], data.target[partners])
    mean = weight * data.audio.x[idx] + (1 - weight) * data.audio.x[partners]
    assert torch.allclose(b["audio"], mean)
    z = forward(t.model, b)
    own, other = (F.cross_entropy(z, data.target[i]) for i in (idx, partners))
    want = weight * own + (1 - weight) * other
    loss, _, n = learner.train_step(t, b)
    assert loss / n == pytest.approx(want.item(), rel=1e-5)


# To the same result


def test_a_stopped_run_goes_on_to_the_same_rates_and_pairs(toy_corpus, tmp_path, monkeypatch):
    whole, keep = history(toy_corpus, tmp_path / "whole", **NEW), learner.keep

    def stop(t, run_dir):
        keep(t, run_dir)
        if len(t.history) == 2:
            raise RuntimeError("out of luck")

    monkeypatch.setattr(learner, "keep", stop)
    with pytest.raises(RuntimeError):
        history(toy_corpus, tmp_path / "cut", **NEW)
    assert len(pd.read_csv(tmp_path / "cut/history.csv")) == 2
    monkeypatch.undo()
    assert history(toy_corpus, tmp_path / "cut", resume=True, **NEW) == whole
