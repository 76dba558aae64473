"""Every recipe at its small size, as described and as released, through the real loop on streams of its own shapes."""
import json
from dataclasses import replace
import numpy as np, pandas as pd, pytest, torch
from avkit.core import AvkitError
from avkit.data import AVData, draws
from avkit.features import Rows, Stream
from avkit.fusion import FUSIONS
from avkit.learner import fit, load_model, loss_of, make_model, parts_of, start, train_step, training_batch
from avkit.loading import Corpus
from avkit.manifest import Manifest
from avkit.metrics import ccc
from avkit.quirks import quirk_corpus
from avkit.recipes import QUIRKS, RECIPES, configure

SIZES = dict(chumachenko2022=((20, 10), (4, 3, 40, 40)), emotiw2023=((5, 1, 128, 108), (5, 3, 40, 40)), jca2023=((8, 64, 32), (16, 3, 40, 40)),
             vavl2023=((12, 64), (4, 3, 40, 40)), ntua2021=((16, 32, 20), (16, 9, 40, 40)))
OWN = dict(chumachenko2022=dict(dataset="ravdess"), emotiw2023=dict(dataset="vgaf"), jca2023=dict(dataset="affwild2", track="va"),
           vavl2023=dict(dataset="msp_improv"), ntua2021=dict(dataset="affwild2", track="expr"))


def toy(recipe, n=14):
    "A corpus of random streams and labels: 8 clips train, 4 validation, 2 test"
    g = torch.Generator().manual_seed(0)
    a, v = SIZES[recipe]
    numbers, frames = recipe in ("jca2023", "vavl2023"), recipe in ("jca2023", "ntua2021")
    names = ["valence", "arousal"] if numbers else list("abcdefgh")[:3 if recipe == "emotiw2023" else 7]
    S = {"jca2023": 8, "ntua2021": 16}.get(recipe)
    target = torch.randn(n, *([S] if S else []), 2, generator=g) if numbers else torch.randint(0, len(names), (n, *([S] if S else [])), generator=g)
    clips, split = [f"c{i:02d}" for i in range(n)], np.array(["train"] * 8 + ["validation"] * 4 + ["test"] * 2)
    more = {}
    if frames:
        target[::3, 0] = np.nan if numbers else -1
        more = dict(steps=torch.ones(n, S, dtype=torch.bool), numbers=np.tile(np.arange(64), (n, 1)),
                    frames={c: np.repeat(t.numpy(), 64 // S, 0) for c, t in zip(clips, target)}, limits=(np.float32([-3, -3]), np.float32([3, 3])) if numbers else None)
    pictures = torch.randint(0, 256, (n, *v), generator=g, dtype=torch.uint8)
    streams = [Stream(x, torch.ones(x.shape[:2], dtype=torch.bool), "toy") for x in (torch.randn(n, *a, generator=g), pictures)]
    d = AVData(*streams, target, clips, split, names, "regression" if numbers else "class", **more)
    table = pd.DataFrame(dict(clip=clips, label="", speaker=clips, audio="", video="", audio_sha256=clips, video_sha256=clips, split=split,
                              **({k: np.zeros(n) for k in names} if numbers else {})))
    m = Manifest(OWN[recipe]["dataset"], "nowhere", table, [] if numbers else names, split=dict(name="toy", fold=0, speaker_independent=True, note=""),
                 task=d.task, level="frame" if frames else "clip", targets=names if numbers else [])
    return Corpus(d, m, pd.DataFrame(columns=["clip", "reason"]), stats={"target": (torch.zeros(2), torch.ones(2))} if numbers else {})


def config(recipe, run_dir, **more):
    return configure(recipe=recipe, data_root="twin", device="cpu", epochs=1, batch_size=4, run_dir=str(run_dir), **OWN[recipe], **more)


@pytest.mark.parametrize("mode", ["as_described", "as_released"])
@pytest.mark.parametrize("recipe", SIZES)
def test_a_recipe_trains(recipe, mode, tmp_path):
    cfg = config(recipe, tmp_path, mode=mode)
    r = fit(cfg, toy(recipe), verbose=False)
    assert r["size"] == "small" and r["mode"] == mode and set(r["metrics"]) == {"train", "validation", "test"}
    assert set(r["quirks"]) == ({k for k, q in QUIRKS.items() if q.recipe == recipe and not q.paper} if mode == "as_released" else set())
    assert set(r["metrics"]["test"]) == ({"av"} if "both_only" in r["quirks"] else {"av", "audio", "video"})
    for scores in r["metrics"]["test"].values(): assert all(np.isfinite(v) for v in scores.values())
    assert len(r["classes"]) == (1 if "valence_only" in r["quirks"] else len(toy(recipe).data.classes))
    assert sum(p.numel() for p in load_model(tmp_path)[0].parameters()) == r["parameters"]


@pytest.mark.parametrize("recipe", ["jca2023", "vavl2023"])
def test_the_same_seed_gives_the_same_weights(recipe, tmp_path):
    for d in "ab": fit(config(recipe, tmp_path / d), toy(recipe), verbose=False)
    a, b = (load_model(tmp_path / d)[0].state_dict() for d in "ab")
    assert all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("modality", ["audio", "video"])
def test_one_modality_of_vavl_is_its_part_of_the_model(modality, tmp_path):
    "Branch, shared layers, norm, head and, where features come in, the reconstruction: all of it trains"
    corpus, cfg = toy("vavl2023"), config("vavl2023", tmp_path, modality=modality)
    setattr(corpus.data, "video" if modality == "audio" else "audio", None)
    alone, both = (make_model(c, toy("vavl2023").data) for c in (cfg, config("vavl2023", tmp_path)))
    part = {k: v.shape for k, v in both.state_dict().items() if k.startswith((f"{modality}.", "fusion.shared", "fusion.norm", f"fusion.to_shared.{modality}", f"reconstruct.{modality}"))}
    assert {k: v.shape for k, v in alone.state_dict().items()} == part and any(k.startswith("fusion.shared") for k in part)
    assert any(k.startswith("reconstruct") for k in part) == (modality == "audio")
    r = fit(cfg, corpus, alone, verbose=False)
    fresh, trained = make_model(cfg, corpus.data), load_model(tmp_path)[0]
    assert set(r["metrics"]["test"]) == {modality} and r["parameters"] == sum(p.numel() for p in alone.parameters())
    still = [k for (k, a), b in zip(fresh.named_parameters(), trained.parameters()) if torch.equal(a, b)]
    assert not still, still


@pytest.mark.parametrize("fusion", FUSIONS)
def test_some_step_trains_every_weight(fusion, tmp_path):
    "vavl2023's recipe with any fusion: over the steps of one batch each parameter has a gradient"
    cfg, corpus = config("vavl2023", tmp_path, fusion=fusion), toy("vavl2023")
    assert len(parts_of(cfg)) == (3 if fusion == "vavl" else 1)
    t, idx, reached = start(cfg, corpus), corpus.data.indices("train"), set()
    batch = training_batch(cfg, corpus.data, idx, draws(len(corpus.data), 0, 0), 0, t.accelerator.device)
    for part in parts_of(cfg):
        train_step(t, batch, part)
        reached |= {k for k, p in t.model.named_parameters() if p.grad is not None}
    lost = [k for k, p in t.model.named_parameters() if p.requires_grad and k not in reached]
    assert all(fusion == "ia" and ".proj." in k for k in lost), lost  # saved with the published weights, of no use in `ia`


def test_alternating_steps_that_would_leave_weights_out_are_refused(tmp_path):
    for other in (dict(fusion="ia"), dict(fusion="late"), dict(modality="video")):
        with pytest.raises(AvkitError, match="steps=alternating .* would never be trained"): config("vavl2023", tmp_path, options='{"steps": "alternating"}', **other)
    with pytest.raises(AvkitError, match="did you mean 'alternating'"): config("vavl2023", tmp_path, options='{"steps": "alternate"}')


def test_vavl_sums_over_the_targets(tmp_path):
    "Regression, eq. 5: the sum of 1 - CCC over arousal, valence, dominance, plus the reconstruction; here all of it by a third"
    cfg, g = config("vavl2023", tmp_path, variants="joint", options='{"aux_loss": 0.0}'), torch.Generator().manual_seed(0)
    y, z, made, real = (torch.randn(9, n, generator=g) for n in (3, 3, 5, 5))
    want = sum(1 - ccc(z[:, i], y[:, i]) for i in range(3)) + (made - real).square().mean()
    assert torch.allclose(3 * loss_of(cfg, (z, dict(audio_reconstruction=made, audio_mean=real)), y, "regression"), want, atol=1e-5)


def test_red_and_blue_swap_in_each_view_of_pictures_that_are_read_late(tmp_path):
    "bgr_crops on a stream that is too large for memory, of two views"
    corpus, cfg = toy("chumachenko2022"), config("chumachenko2022", tmp_path, quirks="bgr_crops")
    x = torch.cat([corpus.data.video.x, corpus.data.video.x + 1], 2)
    corpus.data.video = replace(corpus.data.video, x=Rows(x, torch.arange(len(x))))
    got = quirk_corpus(cfg, corpus).data.video.x
    assert len(got) == len(x) and got.shape == x.shape and torch.equal(got[torch.tensor([3, 1])], x[[3, 1]][:, :, [2, 1, 0, 5, 4, 3]])


def test_labels_are_the_same_after_training(tmp_path):
    "vavl2023's released code mirrors arousal in place: the quirk must not touch the corpus either"
    corpus = toy("vavl2023")
    before = corpus.data.target.clone()
    fit(config("vavl2023", tmp_path, quirks="arousal_flips", options='{"epochs": 2}'), corpus, verbose=False)
    assert torch.equal(corpus.data.target, before)


def test_every_quirk_changes_a_run_and_names_its_recipe(tmp_path):
    for k, q in QUIRKS.items():
        cfg = config(q.recipe, tmp_path, quirks=k)
        assert cfg.has(k) and cfg.hash != config(q.recipe, tmp_path).hash and k in cfg.name
    with pytest.raises(AvkitError, match="did you mean 'arousal_flips'"): configure(quirks="arousal_flip")


def test_paper_size_is_not_the_small_one():
    for k in SIZES:
        assert configure(recipe=k, dataset=OWN[k]["dataset"], data_root="/data").recipe["size"] == "paper"
        json.dumps(configure(recipe=k).recipe)  # the record keeps it


def test_a_rate_of_its_own_for_trunks(tmp_path):
    from avkit.learner import make_optimizer
    cfg = config("emotiw2023", tmp_path, backbone_lr=1e-4)
    groups = make_optimizer(cfg, make_model(cfg, toy("emotiw2023").data)).param_groups
    assert [g["share"] for g in groups] == [1., pytest.approx(1e-4 / cfg["lr"])] and all(len(g["params"]) for g in groups)
