"""Clips with one stream: any fusion trains with them, nothing absent is read, scores say of whom.

What stands in the place of an absent stream (noise, NaN, huge numbers) must not matter anywhere:
not in batch norm, losses, standardisation, missing-modality training, nor in scores.
"""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from avkit.cli import main
from avkit.core import AvkitError
from avkit.datasets.features import Stream
from avkit.models.fusion import FUSIONS
from avkit.preprocessing.writing import write_video, write_wav
from avkit.training import learner, loading
from avkit.training.checkpoint import BEST, CHOSEN, load_model, make_model
from avkit.training.configure import configure
from avkit.training.inference import clips_scored, forward
from avkit.training.record import score_lines
from helpers import draw_small, toy

BOTH, AUDIO, VIDEO = "av", "audio", "video"
WHO = [BOTH, AUDIO, VIDEO, BOTH, BOTH, AUDIO, VIDEO, BOTH]  # train
WHO += [BOTH, AUDIO, BOTH, VIDEO] + [AUDIO, BOTH]  # validation, test
STEPS = 40  # as many as the convolutions of audio need, and some more
STAGE2 = ("conv1d_2", "conv1d_3")
RULES = dict(patience=None, device="cpu", unpaired=True)


def corpus_of(*fill):
    """Short toy clips of which some lack a stream; at its steps stand, in turn, the numbers of
    `fill`"""
    c = toy("chumachenko2022")
    streams = {}
    for name, s in c.data.streams.items():
        gone = torch.tensor([w not in (BOTH, name) for w in WHO])
        x, mask = s.x[:, :STEPS], s.mask[:, :STEPS].clone()
        x = x[..., ::2, ::2] / 255 if name == VIDEO else x.clone()
        mask[gone] = False
        for k, number in enumerate(fill):
            x[gone, k :: len(fill)] = number
        streams[name] = Stream(x, mask, f"toy {fill}")
    return replace(c, data=replace(c.data, **streams))


def setting(fusion, **more):
    own = dict(vavl=dict(dim=64, layers=1, kernel=3), jca=dict(length=4))
    return configure(
        dataset="ravdess", data_root="rendered", recipe="chumachenko2022", fusion=fusion,
        options=dict(fusion_options=own, heads=4, aux_loss=1.0, **more.pop("options", {})),
        **{**RULES, "epochs": 1, "batch_size": 4, **more},
    )  # fmt: skip


def without_dropout(model):
    for m in model.modules():
        if isinstance(m, nn.Dropout):
            m.p = 0.0
    return model


@pytest.mark.parametrize("dropout", ["nodropout", "softhard"])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_fusion_trains_and_nothing_absent_is_read(fusion, dropout, tmp_path):
    weights, answers = [], []
    for fill in ([0.0], [1e6, torch.nan]):
        run = tmp_path / str(len(fill))
        cfg = setting(fusion, modality_dropout=dropout, run_dir=str(run))
        record = learner.fit(cfg, corpus_of(*fill), verbose=False)
        weights.append(load_model(run)[0].state_dict())
        answers.append((run / "predictions.csv").read_text())
    assert record["given"] == dict(
        train=dict(av=4, audio=6, video=6),
        validation=dict(av=2, audio=3, video=3),
        test=dict(av=1, audio=2, video=1),
    )
    zeros, others = weights
    assert all(torch.equal(v, others[k]) for k, v in zeros.items())
    assert all(v.isfinite().all() for v in others.values())
    assert answers[0] == answers[1]


@pytest.mark.parametrize("fusion", ["ca", "vavl"])
def test_trained_anew_clips_with_one_stream_take_part_too(fusion, tmp_path):
    weights, answers = [], []
    for fill in ([0.0], [1e6, torch.nan]):
        run = tmp_path / str(len(fill))
        record = learner.fit(setting(fusion, refit=True, run_dir=str(run)), corpus_of(*fill),
                             verbose=False)  # fmt: skip
        weights.append([load_model(run, name)[0].state_dict() for name in (BEST, CHOSEN)])
        answers.append((run / "predictions.csv").read_text())
    assert record["refit"]["clips"] == 12 and record["given"]["validation"] == dict(
        av=2, audio=3, video=3)  # fmt: skip
    (zeros, first), (others, _) = weights
    assert all(torch.equal(v, others[k]) and v.isfinite().all() for k, v in zeros.items())
    assert any(not torch.equal(v, first[k]) for k, v in zeros.items())
    assert answers[0] == answers[1]


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("stream", [AUDIO, VIDEO])
def test_batch_norm_counts_the_clips_that_have_the_stream(fusion, stream):
    c, cfg = corpus_of(5.0), setting(fusion)
    every = c.data.indices("train")
    some = every[c.data.streams[stream].present[every]]
    moved = []
    for idx in (every, some):
        model = without_dropout(make_model(cfg, c.data)).train()
        forward(model, c.data.batch(idx), True)
        named = getattr(model, stream).named_buffers()  # stage 2 may read the other stream
        own = {k: v for k, v in named if "running" in k and not k.startswith(STAGE2)}
        moved.append(own)
    assert moved[0]
    for k, v in moved[0].items():
        torch.testing.assert_close(v, moved[1][k], rtol=1e-4, atol=1e-5, msg=k)


def by_hand(model, b, lr, present, y):
    "vavl2023's three steps on a batch with plain SGD, over the clips that have what they are about"
    ce = nn.functional.cross_entropy
    for part in (VIDEO, AUDIO, "fusion"):
        rows = (
            present[AUDIO] & present[VIDEO] if part == "fusion" else present[part]
        ).nonzero()[:, 0]
        z, aux = forward(model, {k: v[rows] for k, v in b.items()}, True, only=part)
        loss = ce(z, y[rows])
        if part != "fusion":
            made, real = aux[f"{part}_reconstruction"], aux[f"{part}_mean"]
            loss = loss + 2 * ((made - real.detach()) ** 2).mean()
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for p in model.parameters():
                if p.grad is not None:
                    p -= lr * p.grad


def alternating(**more):
    return configure(
        recipe="vavl2023", dataset="crema_d", label="consensus", data_root="rendered", epochs=1,
        **RULES, **more,
        options=dict(optimizer="sgd", lr=0.1, momentum=0.0, weight_decay=0.0, ema=0.0, aux_loss=0.0,
                     schedule="constant", video_encoder="vector", audio_encoder="conformer"),
    )  # fmt: skip


def features(c):
    "The clips with vectors of both streams, as backbones leave them"
    g = torch.Generator().manual_seed(1)
    streams = {
        k: Stream(torch.randn(len(WHO), 6, n, generator=g), s.mask[:, :1].expand(-1, 6).clone(), k)
        for (k, s), n in zip(c.data.streams.items(), (5, 7))
    }
    return replace(c, data=replace(c.data, **streams))


def test_the_three_steps_are_about_the_clips_that_have_their_stream():
    cfg, c = alternating(), features(corpus_of(0.0))
    t = learner.start(cfg, c, without_dropout(make_model(cfg, c.data)))
    idx = c.data.indices("train")
    u = torch.zeros(len(WHO), 8)
    batch = learner.training_batch(cfg, c.data, idx, u, 0, "cpu")
    t.model.train()
    for part in learner.parts_of(cfg):
        learner.train_step(t, batch, part)
    plain = without_dropout(make_model(cfg, c.data)).train()
    present = {k: s.present[idx] for k, s in c.data.streams.items()}
    by_hand(plain, c.data.batch(idx), 0.1, present, c.data.target[idx])
    for k, v in plain.state_dict().items():
        torch.testing.assert_close(t.model.state_dict()[k], v, rtol=1e-4, atol=1e-6, msg=k)


def test_a_batch_without_a_clip_for_a_step_teaches_nothing_in_it():
    cfg, c = alternating(), features(corpus_of(0.0))
    t = learner.start(cfg, c)
    t.optimizer = torch.optim.Adam(t.model.parameters(), lr=0.1)  # its momentum must not move
    heard = torch.tensor([i for i, w in enumerate(WHO[:8]) if w == AUDIO])
    whole = learner.training_batch(
        cfg, c.data, c.data.indices("train"), torch.zeros(14, 8), 0, "cpu"
    )
    t.model.train()
    learner.train_step(t, whole, VIDEO)
    before = {k: v.clone() for k, v in t.model.state_dict().items()}
    batch = learner.training_batch(cfg, c.data, heard, torch.zeros(14, 8), 0, "cpu")
    for part in (VIDEO, "fusion"):
        assert learner.train_step(t, batch, part).tolist() == [0, 0, 0]
    assert all(torch.equal(v, before[k]) for k, v in t.model.state_dict().items())
    assert learner.train_step(t, batch, AUDIO)[2] == len(heard)


@pytest.mark.parametrize("alternate", [False, True])
def test_it_goes_on_where_it_was_stopped(alternate, tmp_path):
    make = alternating if alternate else (lambda **k: setting("ca", **k))
    c = features(corpus_of(0.0)) if alternate else corpus_of(0.0)
    make_at = lambda name, n, **k: replace_epochs(make(run_dir=str(tmp_path / name), **k), n)
    learner.fit(make_at("whole", 3), c, verbose=False)
    learner.fit(make_at("parts", 2), c, verbose=False)
    learner.fit(make_at("parts", 3, resume=True), c, verbose=False)
    whole, parts = ((tmp_path / n / "history.csv").read_text() for n in ("whole", "parts"))
    assert whole == parts


def replace_epochs(cfg, n):
    return replace(cfg, recipe=cfg.recipe | dict(epochs=n, schedule="constant"))


def test_paired_clips_are_what_they_were(tmp_path):
    "With `unpaired` and without, where all clips have both"
    c, told = toy("chumachenko2022"), []
    for u in (True, False):
        cfg = setting("ca", unpaired=u, run_dir=str(tmp_path / str(u)), modality_dropout="softhard")
        record = learner.fit(cfg, c, verbose=False)
        told.append([record["metrics"], (tmp_path / str(u) / "predictions.csv").read_text()])
    assert told[0] == told[1]


def test_a_condition_counts_the_clips_that_have_what_it_gives():
    c, cfg = corpus_of(0.0), setting("ca")
    at = lambda cond: clips_scored(cfg, c.data, "validation", cond).tolist()
    assert at("av") == at("audio_noise_10dB") == [8, 10]
    assert (at("audio"), at("video"), at("video_mask")) == ([8, 9, 10], [8, 10, 11], [8, 9, 10])


def test_what_cannot_be_is_refused():
    with pytest.raises(AvkitError, match="mixup"):
        setting("ca", mixup=0.2)
    c = corpus_of(0.0).data
    lost = replace(c, video=replace(c.video, mask=c.video.mask & False))
    for split, said in ((c.split, "train has video"), (np.full(14, "train"), "train has video")):
        with pytest.raises(AvkitError, match=said):
            loading._check_unpaired(setting("ca"), loading.clips_given(replace(lost, split=split)))
    one = c.split.copy()
    one[[8, 10]] = ""
    with pytest.raises(AvkitError, match="validation has both"):
        loading._check_unpaired(setting("ca"), loading.clips_given(replace(c, split=one)))


# A folder with a table, from the shell

PEOPLE = ["anna", "ben", "carla", "dan", "eva", "finn"]


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    "Four clips of each of six people: two with both streams, one of audio, one of video"
    root, rows = tmp_path_factory.mktemp("films"), []
    for n, who in enumerate(PEOPLE):
        for k, (label, has) in enumerate(
            [("happy", BOTH), ("sad", BOTH), ("happy", AUDIO), ("sad", VIDEO)]
        ):
            happy, name = label == "happy", f"{who}_{k}"
            grey = np.linspace(30, 60, 10) + 5 * n + 120 * happy
            frames = np.broadcast_to(grey[:, None, None, None], (10, 32, 32, 3)).astype(np.uint8)
            tone = 0.3 * np.sin(np.arange(8000) / 8000 * 2 * np.pi * (200 + 10 * n + 400 * happy))
            if has == AUDIO:
                write_wav(root / f"{name}.wav", tone.astype(np.float32), 8000)
            else:
                sound = tone.astype(np.float32) if has == BOTH else None
                write_video(root / f"{name}.mp4", frames, 10, sound, 8000)
            file = f"{name}.wav" if has == AUDIO else f"{name}.mp4"
            split = ["train", "train", "train", "train", "val", "test"][n]
            rows.append(dict(file=file, label=label, speaker=who, split=split))
    pd.DataFrame(rows).to_csv(root / "labels.csv", index=False)
    return root


def shell(*words):
    assert main([str(w) for w in words]) in (0, None)


@pytest.mark.parametrize("recipe", ["demo", "vavl2023"])
def test_from_a_shell(films, recipe, tmp_path, capsys, monkeypatch):
    draw_small(monkeypatch)
    small = dict(preparation=dict(window=1.0, frames=4, size=32), video_size=16)
    asked = [
        "--dataset", "folder", "--data_root", films, "--annotations", films / "labels.csv",
        "--recipe", recipe, "--size", "small", "--detector", "none", "--n_jobs", 1, "--epochs", 2,
        "--options", json.dumps(small), "--device", "cpu",
    ]  # fmt: skip
    run = tmp_path / "run"
    shell("train", *asked, "--run_dir", tmp_path / "paired")
    said = capsys.readouterr().out
    assert "12 clips have one stream alone, and no part in this run; --unpaired" in said
    aside = json.loads((tmp_path / "paired/record.json").read_text())["set_aside"]
    assert len(aside) == 12 and {a["reason"] for a in aside} == {"no audio", "no video"}
    shell("train", *asked, "--unpaired", "--run_dir", run)
    said = capsys.readouterr().out
    assert "train 8 with both, 4 audio alone, 4 video alone" in said
    record = json.loads((run / "record.json").read_text())
    assert record["set_aside"] == [] and record["given"]["test"] == dict(av=2, audio=3, video=3)
    rows = pd.read_csv(run / "predictions.csv").query("split == 'test'").groupby("condition").size()
    assert rows.to_dict() == dict(av=2, audio=3, video=3)
    scores = [line for line in score_lines(record).splitlines() if not line.startswith("(")]
    assert scores[-1].split()[-1] == "3"
    shell("evaluate", "--run", run, "--conditions", "audio,audio_noise_10dB", "--sides", "test")
    again = json.loads((run / "record.json").read_text())["metrics"]["test"]
    assert again["audio"] == record["metrics"]["test"]["audio"] and "audio_noise_10dB" in again
    for clip in ("finn_2.wav", "finn_3.mp4", "finn_0.mp4"):
        shell("predict", films / clip, "--run", run, "--to", tmp_path / clip)
