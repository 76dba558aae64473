"""Every recipe at its small size, as described and as released.

Through the loop that everyone uses, on streams of the recipe's own shapes.
"""

import json
from dataclasses import replace
import numpy as np, pytest, torch
from avkit.core import AvkitError
from avkit.datasets.batches import draws
from avkit.datasets.features import Rows
from avkit.models.fusion import FUSIONS
from avkit.training.checkpoint import load_model, make_model
from avkit.training.configure import configure
from avkit.training.learner import fit, loss_of, parts_of, start, train_step, training_batch
from avkit.training.metrics import ccc
from avkit.training.quirks import with_quirks, QUIRKS
from helpers import OWN, PAPERS, config, toy


@pytest.mark.parametrize("mode", ["as_described", "as_released"])
@pytest.mark.parametrize("recipe", PAPERS)
def test_a_recipe_trains(recipe, mode, tmp_path):
    cfg = config(recipe, tmp_path, mode=mode)
    r = fit(cfg, toy(recipe), verbose=False)
    assert r["size"] == "small" and r["mode"] == mode
    assert set(r["metrics"]) == {"train", "validation", "test"}
    defects = {k for k, q in QUIRKS.items() if q.of(recipe) and not q.paper}
    assert set(r["quirks"]) == (defects if mode == "as_released" else set())
    both_only = "both_only" in r["quirks"]
    assert set(r["metrics"]["test"]) == ({"av"} if both_only else {"av", "audio", "video"})
    for scores in r["metrics"]["test"].values():
        assert all(np.isfinite(v) for v in scores.values())
    targets = 1 if "valence_only" in r["quirks"] else len(toy(recipe).data.classes)
    assert len(r["classes"]) == targets
    assert sum(p.numel() for p in load_model(tmp_path)[0].parameters()) == r["parameters"]


@pytest.mark.parametrize("recipe", ["jca2023", "vavl2023"])
def test_the_same_seed_gives_the_same_weights(recipe, tmp_path):
    for d in "ab":
        fit(config(recipe, tmp_path / d), toy(recipe), verbose=False)
    a, b = (load_model(tmp_path / d)[0].state_dict() for d in "ab")
    assert all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("modality", ["audio", "video"])
def test_one_modality_of_vavl_is_its_part_of_the_model(modality, tmp_path):
    "Branch, shared layers, norm, head, and where features come in the reconstruction: all train"
    corpus, cfg = toy("vavl2023"), config("vavl2023", tmp_path, modality=modality)
    setattr(corpus.data, "video" if modality == "audio" else "audio", None)
    alone, both = (make_model(c, toy("vavl2023").data) for c in (cfg, config("vavl2023", tmp_path)))
    own = (
        f"{modality}.",
        "fusion.shared",
        "fusion.norm",
        f"fusion.to_shared.{modality}",
        f"reconstruct.{modality}",
    )
    part = {k: v.shape for k, v in both.state_dict().items() if k.startswith(own)}
    assert {k: v.shape for k, v in alone.state_dict().items()} == part
    assert any(k.startswith("fusion.shared") for k in part)
    assert any(k.startswith("reconstruct") for k in part) == (modality == "audio")
    r = fit(cfg, corpus, alone, verbose=False)
    fresh, trained = make_model(cfg, corpus.data), load_model(tmp_path)[0]
    assert set(r["metrics"]["test"]) == {modality}
    assert r["parameters"] == sum(p.numel() for p in alone.parameters())
    pairs = zip(fresh.named_parameters(), trained.parameters())
    still = [k for (k, a), b in pairs if torch.equal(a, b)]
    assert not still, still


@pytest.mark.parametrize("fusion", FUSIONS)
def test_some_step_trains_every_weight(fusion, tmp_path):
    "vavl2023's recipe with any fusion: over the steps of one batch each parameter has a gradient"
    cfg, corpus = config("vavl2023", tmp_path, fusion=fusion), toy("vavl2023")
    assert len(parts_of(cfg)) == (3 if fusion == "vavl" else 1)
    t, idx, reached = start(cfg, corpus), corpus.data.indices("train"), set()
    u = draws(len(corpus.data), 0, 0)
    batch = training_batch(cfg, corpus.data, idx, u, 0, t.accelerator.device)
    for part in parts_of(cfg):
        train_step(t, batch, part)
        reached |= {k for k, p in t.model.named_parameters() if p.grad is not None}
    lost = [k for k, p in t.model.named_parameters() if p.requires_grad and k not in reached]
    # `proj` is saved with the published weights, and of no use in `ia`
    assert all(fusion == "ia" and ".proj." in k for k in lost), lost


def test_alternating_steps_that_would_leave_weights_out_are_refused(tmp_path):
    for other in (dict(fusion="ia"), dict(fusion="late"), dict(modality="video")):
        with pytest.raises(AvkitError, match="steps=alternating .* would never be trained"):
            config("vavl2023", tmp_path, options='{"steps": "alternating"}', **other)
    with pytest.raises(AvkitError, match="did you mean 'alternating'"):
        config("vavl2023", tmp_path, options='{"steps": "alternate"}')


def test_vavl_sums_over_the_targets(tmp_path):
    """Eq. 5: the sum of 1 - CCC over arousal, valence, dominance, plus the reconstruction.

    Here all of it by a third.
    """
    cfg = config("vavl2023", tmp_path, variants="joint", options='{"aux_loss": 0.0}')
    g = torch.Generator().manual_seed(0)
    y, z, made, real = (torch.randn(9, n, generator=g) for n in (3, 3, 5, 5))
    want = sum(1 - ccc(z[:, i], y[:, i]) for i in range(3)) + (made - real).square().mean()
    out = z, dict(audio_reconstruction=made, audio_mean=real)
    assert torch.allclose(3 * loss_of(cfg, out, y, "regression"), want, atol=1e-5)


def test_red_and_blue_swap_in_each_view_of_pictures_that_are_read_late(tmp_path):
    "bgr_crops on a stream that is too large for memory, of two views"
    corpus = toy("chumachenko2022")
    cfg = config("chumachenko2022", tmp_path, quirks="bgr_crops")
    x = torch.cat([corpus.data.video.x, corpus.data.video.x + 1], 2)
    corpus.data.video = replace(corpus.data.video, x=Rows(x, torch.arange(len(x))))
    got = with_quirks(cfg, corpus).data.video.x
    assert len(got) == len(x) and got.shape == x.shape
    assert torch.equal(got[torch.tensor([3, 1])], x[[3, 1]][:, :, [2, 1, 0, 5, 4, 3]])


def test_labels_are_the_same_after_training(tmp_path):
    "vavl2023's released code mirrors arousal in place: the quirk must not touch the data set"
    corpus = toy("vavl2023")
    before = corpus.data.target.clone()
    cfg = config("vavl2023", tmp_path, quirks="arousal_flips", options='{"epochs": 2}')
    fit(cfg, corpus, verbose=False)
    assert torch.equal(corpus.data.target, before)


def test_every_quirk_changes_a_run_and_names_its_recipe(tmp_path):
    for k, q in QUIRKS.items():
        cfg = config(q.recipe, tmp_path, quirks=k)
        assert cfg.has(k) and cfg.hash != config(q.recipe, tmp_path).hash and k in cfg.name
    with pytest.raises(AvkitError, match="did you mean 'arousal_flips'"):
        configure(quirks="arousal_flip")


def test_paper_size_is_not_the_small_one():
    for k in PAPERS:
        cfg = configure(recipe=k, dataset=OWN[k]["dataset"], data_root="/data")
        assert cfg.recipe["size"] == "paper"
        json.dumps(configure(recipe=k).recipe)  # the record keeps it


def test_a_rate_of_its_own_for_trunks(tmp_path):
    from avkit.training.learner import make_optimizer

    cfg = config("emotiw2023", tmp_path, backbone_lr=1e-4)
    groups = make_optimizer(cfg, make_model(cfg, toy("emotiw2023").data)).param_groups
    assert [g["share"] for g in groups] == [1.0, pytest.approx(1e-4 / cfg["lr"])]
    assert all(len(g["params"]) for g in groups)
