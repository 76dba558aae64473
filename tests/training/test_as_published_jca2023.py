"""jca2023's data pipeline as it is published: one small corpus goes through a plain re-statement of
the released reader, and of the paper's, and through avkit; what comes out agrees, by number."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import torchaudio
from scipy.signal import medfilt
from torch import nn
from torch.nn import functional as F

from avkit.datasets.batches import draws
from avkit.datasets.manifest import Manifest
from avkit.models.backbones import BACKBONES, build_backbone, HALVES, load_weights
from avkit.models.backbones import BackboneSpec
from avkit.preprocessing.prepare import stream_key
from avkit.preprocessing.tracks import to_jpeg, Writer
from avkit.store import Store
from avkit.training import loading
from avkit.training.configure import configure
from avkit.training.distributed import accelerator
from avkit.training.inference import evaluation_batch, outputs
from avkit.training.learner import lr_at, train_order, training_batch, with_validation
from avkit.training.loading import frame_size, preparation_of, read_clips
from avkit.training.quirks import with_quirks

FPS, RATE = 25, 44100
LENGTHS = dict(a=600, b=600, c=800, d=300, e=300, f=40)
SUBSETS = ["train", "train", "validation", "validation", "test", "test"]


class Seen(nn.Module):
    "(n,3,T,H,W) -> (n,T): the brightness of each picture's left half, as the network gets it"

    num_features = 8

    def forward(self, x):
        return x[..., : x.shape[-1] // 2].mean((1, 3, 4))


class Heard(nn.Module):
    "(n,1,F,W) -> (n,F W/8): every eighth band, as the network gets it"

    num_features = 8 * 107

    def forward(self, x):
        return x[:, 0, ::8].flatten(1)


def level(frame):
    "The brightness of a frame, unlike that of its neighbours"
    return frame * 7 % 251


def picture(frame):
    "(16,16,3): as bright as its level on the left, as dark on the right"
    x = np.full((16, 16, 3), level(frame), np.uint8)
    x[:, 8:] = 255 - level(frame)
    return x


def labels(name):
    "(T,2): noise, so that no two frames are alike; a stretch of `e` is not annotated (-5)"
    y = np.random.default_rng(len(name) + ord(name)).uniform(-1, 1, (LENGTHS[name], 2))
    if name == "e":
        y[50:120] = np.nan
    return y.astype(np.float32)


def sound(name):
    rng = np.random.default_rng(ord(name))
    return rng.uniform(-0.3, 0.3, LENGTHS[name] * RATE // FPS).astype(np.float32)


def write(store, row, prep):
    "A video's two tracks, as `prepare` leaves them"
    name = row["clip"]
    n = LENGTHS[name]
    times = np.arange(n) / FPS
    heard = Writer(store, stream_key(row, "audio", prep), name)
    whole, part = sound(name), 30 * RATE
    for i in range(0, len(whole), part):
        heard.part(dict(sound=whole[i : i + part]))
    about = dict(rate=RATE, seconds=30, samples=len(whole))
    heard.done(tensors=dict(frame_times=times), **about)
    seen = Writer(store, stream_key(row, "video", prep), name)
    grey = [to_jpeg(picture(i)) for i in range(n)]
    seen.pictures(np.arange(n), times, np.ones(n, bool), dict(face=grey))
    seen.done(faces=n, tensors=dict(frame_times=times))


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    "mode -> settings and what a run reads"
    made, store = {}, Store(tmp_path_factory.mktemp("store"))
    BACKBONES["seen"] = BackboneSpec(Seen, "clips", 8, 16, **HALVES)
    BACKBONES["heard"] = BackboneSpec(Heard, "mel", 8 * 107)
    files = [f"{c}.mp4" for c in LENGTHS]
    clips = pd.DataFrame(dict(
        clip=list(LENGTHS), label="", speaker="", audio=files, video=files, audio_sha256=files,
        video_sha256=files, split=SUBSETS, fps=float(FPS)))  # fmt: skip
    root = tmp_path_factory.mktemp("videos")
    frames = {c: labels(c) for c in LENGTHS}
    m = Manifest("affwild2", root, clips, [], task="regression", level="frame",
                 targets=["valence", "arousal"], frames=frames)  # fmt: skip
    m.split = dict(name="official", fold=0, speaker_independent=True, note="")
    small = dict(video_backbone="seen", audio_backbone="heard", video_size=16,
                 preparation=dict(size=16))  # fmt: skip

    def of(mode):
        if mode not in made:
            cfg = configure(recipe="jca2023", dataset="affwild2", track="va", data_root=str(root),
                            size="paper", mode=mode, options=small)  # fmt: skip
            for row in clips.to_dict("records") if not made else ():
                write(store, row, preparation_of(cfg, m))
            corpus = read_clips(cfg, m, store, verbose=False)
            made[mode] = cfg, with_quirks(cfg, corpus)
        return made[mode]

    of.data = m, store
    yield of
    del BACKBONES["seen"], BACKBONES["heard"]


def released_reader(n):
    "Windows -> sub-sequences -> the frames that are seen, from 1 on, by the released loop"
    out, end, count = [], 225, 0
    while end < n + 225:
        steps = []
        for i in range(8):
            last = end - 32 * (7 - i)
            if last > n:
                continue
            there = [f for f in range(last - 31, last + 1) if f >= 1]
            every = 4 if len(there) == 32 else max(1, len(there) // 8)
            steps.append(there[::-1][::every][::-1][:8])
        if len(steps) == 8:
            out.append(steps)
        count += 1
        end += 1
        if count == 32:
            end, count = end + 224, 0
    return out


def paper_windows(n):
    "The same where the paper is followed to the last frame: every frame ends one sub-sequence"
    starts = list(range(0, n, 256))
    starts[-1] = max(min(starts[-1], n - 256), 0)
    out = {}
    for start in starts:
        for j in range(32):
            ends = [start + j + 32 * i for i in range(8)]
            if min(ends) < n:
                out[ends[0]] = [e if e < n else None for e in ends]
    return [out[k] for k in sorted(out)]


def shown(frames):
    "What a network gets of up to eight frames (None: padding), scaled to [-1,1]; padded with zeros"
    x = [0 if f is None else level(f) / 127.5 - 1 for f in frames]
    return np.array(x + [0] * (8 - len(x)))


def spectrogram(name, end):
    "(64,107): of the audio of a sub-sequence alone, as released"
    each = RATE // FPS
    first = max(end - 31, 0)
    wave = torch.from_numpy(sound(name)[first * each : (end + 1) * each])
    make = torchaudio.transforms.MelSpectrogram(
        sample_rate=RATE, n_fft=1024, win_length=882, hop_length=441, n_mels=64)  # fmt: skip
    mel = make(wave)[..., -107:]
    mel = F.pad(mel, (107 - mel.shape[-1], 0))
    return (torchaudio.transforms.AmplitudeToDB("power", 80)(mel) + 14.8) / 19.895


def windows_of(data, name):
    return [i for i, c in enumerate(data.clips) if c == name]


def back(corpus, y):
    mean, std = (v.numpy() for v in corpus.stats["target"])
    return y * std + mean


def test_as_released_windows_pictures_and_labels_are_those_of_the_reader(read):
    cfg, corpus = read("as_released")
    data = corpus.data
    assert data.classes == ["valence"] and corpus.notes["detector"] == "mtcnn"
    order = [c for c in LENGTHS for _ in released_reader(LENGTHS[c])]
    assert data.clips == order  # of `f` nothing: it is shorter than 225 frames
    for name in "abcd":
        expected = released_reader(LENGTHS[name])
        idx = windows_of(data, name)
        seen = data.video.x[torch.tensor(idx)].numpy()
        pictures = [[shown([f - 1 for f in step]) for step in w] for w in expected]
        assert np.abs(seen - np.array(pictures)).max() < 0.013  # a JPEG's rounding
        y = labels(name)[:, :1]  # not filtered, of the last frame that is seen
        told = np.array([[y[step[-1] - 1] for step in w] for w in expected])
        np.testing.assert_allclose(back(corpus, data.target[idx].numpy()), told, atol=1e-5)
        ends = [[w[0][-1] + 32 * i for i in range(8)] for w in expected[31:]]
        assert data.numbers[idx[31:], 0].tolist() == [e[0] - 1 for e in ends]


def test_as_described_each_frame_ends_one_sub_sequence(read):
    cfg, corpus = read("as_described")
    data = corpus.data
    assert data.classes == ["valence", "arousal"]
    for name in "abcdf":
        expected = paper_windows(LENGTHS[name])
        idx = windows_of(data, name)
        assert len(idx) == len(expected)
        mine = data.numbers[idx]
        assert mine.tolist() == [[-1 if e is None else e for e in w] for w in expected]
        every = [f for w in expected for f in w if f is not None]
        assert set(every) == set(range(LENGTHS[name]))
        y = np.stack([medfilt(labels(name)[:, k], 3) for k in range(2)], 1)
        inner = [[e is not None and 0 < e < LENGTHS[name] - 1 for e in w] for w in expected]
        told = np.array([[y[e or 0] for e in w] for w in expected])
        mine = back(corpus, data.target[idx].numpy())
        np.testing.assert_allclose(mine[inner], told[inner], atol=1e-5)
        none = [[e is None for e in w] for w in expected]
        assert np.isnan(mine[none]).all()
        seen = data.video.x[torch.tensor(idx)].numpy()
        frames = [[[f if f >= 0 else None for f in range((e or 0) - 28, (e or 0) + 1, 4)]
                   for e in w] for w in expected]  # fmt: skip
        pictures = np.array([[shown(step) for step in w] for w in frames])
        pictures[none] = 0  # no sub-sequence: nothing of it is used
        assert np.abs(seen - pictures).max() < 0.013
        assert (data.steps[idx].numpy() == ~np.array(none)).all()


@pytest.mark.parametrize("mode", ["as_described", "as_released"])
def test_spectrograms_are_those_of_the_sub_sequences(mode, read):
    "But for the last column: released, a sub-sequence's audio is mirrored at its end"
    data = read(mode)[1].data
    some = windows_of(data, "a")[40], windows_of(data, "c")[90], windows_of(data, "a")[3]
    for i in some:
        heard = data.audio.x[torch.tensor([i])][0].unflatten(-1, (8, 107))
        for step, end in zip(heard, data.numbers[i]):
            if end < 31 + 32 * (step is heard[0]):
                continue  # what lies before the file: below
            alone = spectrogram(data.clips[i], end)[::8]
            assert (step - alone)[:, 1:-1].abs().max() < 2e-3
    early = data.audio.x[torch.tensor(windows_of(data, "a")[:1])][0, 0].unflatten(-1, (8, 107))
    alone = spectrogram("a", 0)[::8]  # one frame: four hops of audio, silence before it
    assert (early - alone)[:, :100].abs().max() < 0.1


class Perfect(nn.Module):
    "Answers each step with the label of its frame"

    def __init__(self, data):
        super().__init__()
        self.data, self.at = data, iter(())

    def of(self, subset):
        self.at = iter(self.data.indices(subset).split(64))
        return self

    def forward(self, **batch):
        idx = next(self.at)
        out = []
        for i in idx.tolist():
            y = self.data.frames[self.data.clips[i]]
            out.append(np.nan_to_num(y[self.data.numbers[i]]))
        return torch.from_numpy(np.stack(out))


def test_each_annotated_frame_has_its_own_prediction_and_no_other_is_scored(read):
    "Labels here are noise: a staircase of means would have next to no CCC"
    cfg, corpus = read("as_described")
    for subset, names in dict(validation="cd", test="ef").items():
        got = outputs(cfg, Perfect(corpus.data).of(subset), corpus.data, subset, "av")
        known = [(c, f) for c in names for f in np.flatnonzero(~np.isnan(labels(c)).any(1))]
        assert list(zip(got["clip"], got["frame"].tolist())) == known
        limits = corpus.data.limits
        held = got["target"].clamp(*map(torch.as_tensor, limits))
        assert torch.allclose(got["out"], held, atol=1e-5)


def test_as_released_the_last_frames_of_a_video_are_not_scored(read):
    cfg, corpus = read("as_released")
    got = outputs(cfg, Perfect(corpus.data).of("validation"), corpus.data, "validation", "av")
    of = [f for c, f in zip(got["clip"], got["frame"].tolist()) if c == "c"]
    assert of == list(range(768))  # of 800
    assert "d" not in got["clip"]  # its windows do not fill a batch


def test_batches_and_rates_of_all_epochs(read):
    for mode in ("as_described", "as_released"):
        cfg, corpus = read(mode)
        n, size = len(corpus.data.indices("train")), 96
        whole = n // size * size if mode == "as_released" else n
        for epoch in (0, 1):
            order = torch.cat(train_order(cfg, corpus.data, epoch)).tolist()
            assert len(set(order)) == len(order) == whole and order != sorted(order)
        rates = [1e-3 * 0.8 ** ((e - 5) // 2) if e > 5 else 1e-3 for e in range(30)]
        assert [lr_at(cfg, e) for e in range(cfg["epochs"])] == pytest.approx(rates)
    assert len(corpus.data.indices("validation")) == 96  # of 128: the last batch is dropped


@pytest.mark.parametrize("mode", ["as_described", "as_released"])
def test_each_sub_sequence_is_trained_on_mirrored_half_of_the_time(mode, read):
    cfg, corpus = read(mode)
    data, seen = corpus.data, []
    idx = torch.tensor(windows_of(data, "a")[31:60])
    shape = (len(idx), 8, 8)
    for epoch in range(6):
        u = draws(len(data), cfg["seed"], epoch)
        got = training_batch(cfg, data, idx, u, epoch, "cpu")["video"]
        plain = data.video.x[idx]
        flipped = (got - plain).abs().amax(-1) > 1e-3
        expected = torch.where(flipped[..., None], -plain, plain)  # the other half of a picture
        assert got.shape == shape and torch.allclose(got, expected, atol=0.03)
        seen.append(flipped)
    share = torch.stack(seen).double().mean((0, 1))
    assert share.min() > 0.35 and share.max() < 0.65  # 174 coins for each of eight
    alike = [(a == b).double().mean() for a, b in zip(seen[0].T, seen[0].T[1:])]
    assert max(alike) < 0.9  # not the whole window at once
    scored = evaluation_batch(cfg, data, idx, "av", "cpu")["video"]
    assert torch.equal(scored, plain)


def test_training_may_move_by_more_frames_than_scoring():
    spec = configure(recipe="jca2023", dataset="affwild2", track="va", data_root="x", size="paper",
                     options=dict(windows=dict(hop=8, scored_hop=1)))["windows"]  # fmt: skip
    assert (spec["hop"], spec["scored_hop"], spec["each_frame"]) == (8, 1, True)


@pytest.mark.parametrize("mode", ["as_described", "as_released"])
def test_trained_anew_validation_videos_are_seen_mirrored_too(mode, read, monkeypatch):
    cfg, corpus = read(mode)
    m, store = read.data
    raw = read_clips(cfg, m, store, verbose=False)
    t = SimpleNamespace(cfg=cfg, corpus=corpus, accelerator=accelerator(cfg))
    monkeypatch.setattr(loading, "Store", lambda: store)
    joined = with_validation(t, raw)
    data = joined.data
    assert joined.manifest is m and not len(data.indices("validation"))
    for name in sorted(set(data.clips)):
        idx, was = (torch.tensor(windows_of(d, name)) for d in (data, corpus.data))
        assert (data.split[idx] == ("test" if name in "ef" else "train")).all()
        torch.testing.assert_close(data.target[idx], corpus.data.target[was], equal_nan=True)
        for s in ("audio", "video"):
            assert torch.equal(data.streams[s].x[idx], corpus.data.streams[s].x[was])
        if name in "ef":
            continue
        there = data.video.mask[idx][..., None]
        mirror, plain = data.video.mirrored[idx] * there, data.video.x[idx] * there
        assert plain.any() and torch.allclose(mirror, -plain, atol=0.03)


def test_trained_anew_validation_videos_are_cut_as_those_that_train(read, monkeypatch):
    cfg, _ = read("as_described")
    m, store = read.data
    told = cfg.recipe["windows"] | dict(hop=8, scored_hop=1, mirrored=False)
    cfg = replace(cfg, recipe=cfg.recipe | dict(windows=told))
    raw = read_clips(cfg, m, store, verbose=False)
    t = SimpleNamespace(cfg=cfg, corpus=raw, accelerator=accelerator(cfg))
    monkeypatch.setattr(loading, "Store", lambda: store)
    data = with_validation(t, raw).data
    counts = {c: len(windows_of(data, c)) for c in LENGTHS}
    scored = {c: len(windows_of(raw.data, c)) for c in LENGTHS}
    assert all(counts[c] == scored[c] for c in "abef")
    assert [counts[c] * 8 for c in "cd"] == [scored[c] for c in "cd"]
    assert data.target.nanmean().abs() < 1 and (data.limits[0] == raw.data.limits[0]).all()


def test_the_later_codes_backbone_is_a_variant():
    made = configure(recipe="jca2023", dataset="affwild2", track="va", data_root="x", size="paper",
                     variants="tsav")  # fmt: skip
    assert (made["video_backbone"], frame_size(made)) == ("r2plus1d_18", 112)


def test_the_owners_crops_are_taken_where_all_videos_have_them():
    cfg = configure(recipe="jca2023", dataset="affwild2", track="va", data_root="x", size="paper")
    have = {"x": "cropped_aligned/x", "y": "cropped_aligned/y"}
    for crops, expected in ((have, "given"), (have | dict(y=""), "mtcnn"), ({}, "mtcnn")):
        clips = pd.DataFrame(dict(clip=list(crops), crops=list(crops.values())))
        m = SimpleNamespace(clips=clips if crops else clips[["clip"]], level="frame", corpus="own")
        assert preparation_of(cfg, m).detector == expected
    own = configure(recipe="jca2023", dataset="affwild2", track="va", data_root="x", size="paper",
                    detector="centerface")  # fmt: skip
    m = SimpleNamespace(clips=clips.assign(crops="there"), level="frame", corpus="own")
    assert preparation_of(own, m).detector == "centerface"


# The visual backbone


def released_level(n_in, dilation):
    "The layers of a level of the released temporal network, as it registers them: twice"
    block = nn.Module()
    for k, a in (("conv1", n_in), ("conv2", 512)):
        conv = nn.Conv1d(a, 512, 5, padding=4 * dilation, dilation=dilation)
        setattr(block, k, nn.utils.weight_norm(conv))
    cut = [nn.Identity()] * 3
    block.net = nn.Sequential(block.conv1, *cut, block.conv2, *cut)
    block.downsample = nn.Conv1d(n_in, 512, 1) if n_in != 512 else None
    return block


def through(block, x):
    h = x
    for conv in (block.conv1, block.conv2):
        h = F.leaky_relu(conv(h)[..., : -conv.padding[0]])
    return F.leaky_relu(h + (x if block.downsample is None else block.downsample(x)))


@pytest.mark.filterwarnings("ignore:.*weight_norm.*")
def test_the_authors_file_of_i3d_and_its_temporal_network_loads(tmp_path):
    torch.manual_seed(0)
    mine = build_backbone("i3d", say=False)
    theirs = copy.deepcopy(mine).eval()
    for p in mine.parameters():
        p.data.zero_()
    levels = nn.Sequential(*[released_level(1024 if i == 0 else 512, 2**i) for i in range(4)])
    trunk = {k: v for k, v in theirs.net.state_dict().items() if not k.startswith("temporal.")}
    state = {f"module.i3d_WSDDA.{k}": v for k, v in trunk.items()}
    state["module.i3d_WSDDA.logits.conv3d.weight"] = torch.ones(400, 1024, 1, 1, 1)
    state |= {f"module.temporal.network.{k}": v for k, v in levels.state_dict().items()}
    state |= {"module.regressor.0.weight": torch.ones(128, 512)}
    state |= {"module.predictions.0.conv3d.weight": torch.ones(512, 1024, 1, 1, 1)}
    torch.save(dict(net=state, best_Val_acc=0.6), tmp_path / "visual.t7")
    assert load_weights(mine, tmp_path / "visual.t7") == []  # nothing is left as it was drawn
    mine.eval()
    steps, x = [], torch.rand(1, 8, 3, 64, 64)
    hook = theirs.net.temporal.register_forward_pre_hook(lambda _, given: steps.append(given[0]))
    with torch.no_grad():
        theirs(x)
        h = steps[0]
        for block in levels:
            h = through(block, h)
        out = mine(x)
    hook.remove()
    assert steps[0].shape == (1, 1024, 7)  # of eight pictures, time never strided
    assert torch.allclose(out, h.amax(2), atol=1e-5) and out.shape == (1, 512)


def test_tsavs_stem_of_four_channels_loads(tmp_path):
    "As if the mask, which is not known, were 0 after scaling"
    torch.manual_seed(0)
    mine = build_backbone("r2plus1d_18", say=False)
    four = copy.deepcopy(mine.net)
    for p in mine.parameters():
        p.data.zero_()
    four.stem[0] = nn.Conv3d(4, 45, (1, 7, 7), (1, 2, 2), (0, 3, 3), bias=False)
    state = {f"video_model.r2plus1d.{k}": v for k, v in four.state_dict().items()}
    state |= {"audio_model.resnet.conv1.weight": torch.ones(64, 1, 7, 7)}
    state |= {"fc.1.weight": torch.ones(17, 1024)}
    torch.save(dict(state_dict=state), tmp_path / "tsav.pth.tar")
    load_weights(mine, tmp_path / "tsav.pth.tar")
    mine.eval()
    four.eval()
    x = torch.rand(1, 8, 3, 32, 32)
    scaled = mine.images(x)
    with torch.no_grad():
        masked = four(F.pad(scaled, (0, 0, 0, 0, 0, 0, 0, 1)))
        assert torch.allclose(mine(x), masked, atol=1e-4)
