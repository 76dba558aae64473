"""ntua2021 as published: windows of annotated frames, the ten seconds around each, masks, losses,
rates and the epoch that is kept, told again in a few plain lines and compared with what
`as_described` and `as_released` do."""

import math
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch

from avkit.core import AvkitError
from avkit.datasets.augment import spec_augment
from avkit.models.fusion import FUSIONS
from avkit.models.model import build_model
from avkit.preprocessing.media import decode
from avkit.preprocessing.writing import write_video
from avkit.training.configure import configure
from avkit.training.inference import evaluation_batch, video_outputs
from avkit.training.learner import (lr_at, make_optimizer, output_loss, Training, train_order,
    _stop_early)  # fmt: skip
from avkit.training.loading import load_data, preparation_of

cv2 = pytest.importorskip("cv2")
torchaudio = pytest.importorskip("torchaudio")

MODES = "as_described", "as_released"
FPS, RATE, FRAMES = 4, 44100, 56  # a film of 14 s
VIEWS = '{"video_views": ["face"]}'  # body and context ask for OpenPose


def sound():
    t = np.arange(RATE * FRAMES // FPS) / RATE
    return 0.4 * np.sin(2 * np.pi * (300 + 120 * t) * t) * (1 + np.sin(t)) / 2


def labels(track):
    "Lines of an annotation; frames 10 to 12 and 40 are not annotated"
    k = np.arange(FRAMES)
    gone = np.isin(k, (10, 11, 12, 40))
    if track == "expr":
        return [str(-1 if g else i % 7) for i, g in zip(k, gone)]
    va = np.stack([np.sin(k / 9), np.cos(k / 7)], 1).round(3)
    return [f"{-5},{-5}" if g else f"{v},{a}" for (v, a), g in zip(va, gone)]


@pytest.fixture(scope="module")
def owners(tmp_path_factory):
    "Aff-Wild2's folders: two films, their aligned crops (one frame without), both tracks' labels"
    root = tmp_path_factory.mktemp("affwild2")
    (root / "videos").mkdir()
    for n, name in enumerate(("a", "b")):
        pictures = (np.full((48, 64, 3), 4 * i + n, np.uint8) for i in range(FRAMES))
        write_video(root / f"videos/{name}.avi", pictures, FPS, sound() * (1 - n / 3), RATE)
        d = root / "cropped_aligned" / name
        d.mkdir(parents=True)
        for i in range(FRAMES):
            if i != 5:  # not detected
                face = np.full((112, 112, 3), (4 * i, 250 - 4 * i, 100), np.uint8)
                cv2.imwrite(str(d / f"{i + 1:05d}.jpg"), face[..., ::-1])
        for track, head in (("va", "valence,arousal"), ("expr", "Neutral,Anger,Disgust,Fear,"
                                                        "Happiness,Sadness,Surprise")):  # fmt: skip
            side = ("Train_Set", "Validation_Set")[n]
            d = root / f"annotations/{track.upper()}_Set/{side}"
            d.mkdir(parents=True, exist_ok=True)
            (d / f"{name}.txt").write_text("\n".join([head, *labels(track)]) + "\n")
    return root


def config(root, track="va", **more):
    more = dict(options=VIEWS, detector="given") | more
    return configure(recipe="ntua2021", dataset="affwild2", track=track, data_root=str(root),
                     n_jobs=1, **more)  # fmt: skip


@pytest.fixture(scope="module")
def data(owners):
    "{(track, mode): what a run reads}"
    return {(t, m): load_data(config(owners, t, mode=m), verbose=False)
            for t in ("va", "expr") for m in MODES}  # fmt: skip


def their_windows():
    "16 annotated frames in a row; a short one repeats its last, which is not valid"
    annotated = [i for i in range(FRAMES) if i not in (10, 11, 12, 40)]
    out = []
    for i in range(0, len(annotated), 16):
        some = annotated[i : i + 16]
        out.append(([some[min(k, len(some) - 1)] for k in range(16)],
                    [k < len(some) for k in range(16)]))  # fmt: skip
    return out


def their_label(track, frame):
    line = labels(track)[frame]
    return int(line) if track == "expr" else [float(v) for v in line.split(",")]


@pytest.mark.parametrize("track", ["va", "expr"])
@pytest.mark.parametrize("mode", MODES)
def test_windows_and_labels(data, track, mode):
    "As released the repeated frames have labels that count; as described they are padding"
    corpus = data[track, mode]
    d = corpus.data
    mean, std = corpus.stats.get("target", (0.0, 1.0))
    theirs = their_windows()
    assert len(theirs) == 4 and d.clips == ["a"] * 4 + ["b"] * 4
    for r, (frames, valid) in enumerate(theirs * 2):
        told = [their_label(track, f) for f in frames]
        ours = d.target[r] * std + mean if track == "va" else d.target[r]
        if mode == "as_released":
            assert d.numbers[r].tolist() == frames and d.steps[r].all()
            torch.testing.assert_close(ours, torch.tensor(told), atol=1e-5, rtol=0)
            continue
        assert d.numbers[r].tolist() == [f if v else -1 for f, v in zip(frames, valid)]
        assert d.steps[r].tolist() == valid
        known = torch.tensor(valid)
        torch.testing.assert_close(ours[known], torch.tensor(told)[known], atol=1e-5, rtol=0)
        rest = ours[~known]
        assert (rest == -1).all() if track == "expr" else rest.isnan().all()


@pytest.mark.parametrize("mode", MODES)
def test_the_owners_crops_are_taken_unasked(owners, mode):
    "For the face; body and context are cut out of the video as ever"
    cfg = configure(recipe="ntua2021", dataset="affwild2", track="va", data_root=str(owners),
                    mode=mode)  # fmt: skip
    clips = pd.DataFrame(dict(clip=["x"], crops=["cropped_aligned/x"], openpose=["openpose/x"]))
    for crops, expected in (("cropped_aligned/x", "given"), ("", "mtcnn")):
        m = SimpleNamespace(clips=clips.assign(crops=crops), level="frame", corpus="own")
        prep = preparation_of(cfg, m)
        assert prep.detector == expected and len(prep.views) == 3


@pytest.mark.parametrize("mode", MODES)
def test_faces(data, mode):
    "Aligned crops of 112 pixels; one that was not detected is black, and counts as released"
    d = data["va", mode].data
    for r, (frames, valid) in enumerate(their_windows()):
        for s, f in enumerate(frames):
            if mode == "as_described" and not valid[s]:
                assert not d.video.mask[r, s]
                continue
            told = (0, 0, 0) if f == 5 else (4 * f, 250 - 4 * f, 100)
            assert abs(d.video.x[r, s].float().mean((1, 2)) - torch.tensor(told)).max() < 3


def whole_mel(samples):
    "(64,T) dB of a whole film, a column every 512 samples, the first around 0 s"
    mel = torchaudio.transforms.MelSpectrogram(
        RATE, 2048, hop_length=512, n_mels=64, pad_mode="constant", mel_scale="htk"
    )
    return 10 * mel(torch.as_tensor(samples, dtype=torch.float32)).clamp(min=1e-10).log10()


def scaled(x):
    "A floor 80 dB below the loudest point, the constants: both ours"
    return (x.clamp(min=float(x.max()) - 80) + 14.8) / 19.895


def their_audio(mel, frame):
    "The released reader: never from before 0 s, 861 columns, zeros behind the end"
    stride = 512 / 44100
    begin = max(frame / FPS - 5, 0)
    first, n = int(begin / stride), int(10 / stride)
    x = scaled(mel[:, first : first + n])
    return torch.nn.functional.pad(x, [0, n - x.shape[1]])


def described_audio(mel, frame):
    "Ten seconds around the middle of the frame; silence before the beginning and after the end"
    first = round(((frame + 0.5) / FPS - 5) * RATE / 512)
    at = torch.arange(first, first + 1 + 10 * RATE // 512)
    x = mel[:, at.clamp(0, mel.shape[1] - 1)]
    outside = (at < 0) | (at >= mel.shape[1])
    return scaled(x.masked_fill(outside, -100.0)), outside


@pytest.mark.parametrize("mode", MODES)
def test_what_a_frame_hears(data, owners, mode):
    d = data["va", mode].data
    mel = whole_mel(decode(owners / "videos/a.avi", video=False, rate=RATE).sound)
    for r, (frames, valid) in enumerate(their_windows()):
        for s, f in enumerate(frames):
            if mode == "as_released":
                torch.testing.assert_close(d.audio.x[r][s], their_audio(mel, f), atol=2e-3, rtol=0)
            elif valid[s]:
                x, outside = described_audio(mel, f)
                inside = ~outside
                inside[:-3] &= ~outside[3:]  # windows of the FFT that reach over the end
                inside[3:] &= ~outside[:-3]
                torch.testing.assert_close(
                    d.audio.x[r][s][:, inside], x[:, inside], atol=2e-3, rtol=0
                )
                assert (d.audio.x[r][s][:, outside] <= x[:, outside] + 4).all()
    if mode == "as_released":  # the first five seconds hear the same, the last ones zeros
        assert torch.equal(d.audio.x[0][0], d.audio.x[0][15])
        assert not d.audio.x[3][15][:, -80:].any()


@pytest.mark.parametrize("track, mode, trained, scored", [
    ("va", "as_described", True, False), ("va", "as_released", True, True),
    ("expr", "as_described", True, False), ("expr", "as_released", False, False),
])  # fmt: skip
def test_which_audio_is_masked(data, owners, track, mode, trained, scored):
    cfg, d = config(owners, track, mode=mode), data[track, mode].data
    assert bool(cfg["spec_augment"]) == trained
    idx = d.indices("validation")[:1]
    plain = d.batch(idx)["audio"]
    b = evaluation_batch(cfg, d, idx, "av", "cpu")["audio"]
    assert torch.equal(b, plain) != scored


def their_masks(x, u):
    "torchaudio's masks of 100 columns and 10 bands, from given uniform numbers"
    drawn = iter([u[0], u[1], u[2], u[3]])
    with mock.patch.object(torch, "rand", lambda *a, **k: torch.tensor([next(drawn)])):
        y = torchaudio.functional.mask_along_axis(x[None], 100, 0.0, 2)
        return torchaudio.functional.mask_along_axis(y, 10, 0.0, 1)[0]


def test_masks_are_torchaudios(owners):
    "As wide as theirs, at the same place but for a column, zeros; for each frame another one"
    cfg = config(owners)
    g = torch.Generator().manual_seed(0)
    x = torch.rand(40, 1, 64, 861, generator=g) + 1
    u = torch.rand(40, 6, generator=g)
    ours = spec_augment(x, u, **cfg["spec_augment"] | dict(apart=False))
    for y, one, draw in zip(ours, x, u):
        theirs = their_masks(one[0], draw[:4].tolist())
        for gone in (lambda z: (z == 0).all(0), lambda z: (z == 0).all(1)):
            a, b = (gone(z).nonzero().flatten() for z in (y[0], theirs))
            assert len(a) == len(b) and (not len(a) or abs(int(a[0] - b[0])) <= 1)
        assert ((y == 0) | (y == one)).all()
    steps = spec_augment(x[:4, 0][None], u[:1], **cfg["spec_augment"])[0]
    assert len({tuple((s == 0).all(0).tolist()) for s in steps}) > 1
    with mock.patch.object(torch, "rand", lambda *a, **k: torch.tensor([0.999999])):
        widest = torchaudio.functional.mask_along_axis(x[0], 100, 0.0, 2)
    assert (widest == 0).all((0, 1)).sum() == cfg["spec_augment"]["time"] == 99


def test_rates_follow_the_plateau_and_batches_are_shuffled(data, owners):
    scores = [0.1, 0.2, 0.3] + [0.3] * 7 + [0.31] * 8 + [0.5, 0.4] + [0.1] * 9
    for mode in MODES:
        cfg = config(owners, mode=mode)
        w = torch.nn.Linear(2, 2)
        theirs = torch.optim.SGD(w.parameters(), 1e-3, momentum=0.9, weight_decay=5e-4)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, mode="max", patience=5)
        for e in range(len(scores)):
            now = theirs.param_groups[0]["lr"]
            assert math.isclose(lr_at(cfg, e, scores[:e]), now, rel_tol=1e-9)
            plateau.step(scores[e])
        ours = make_optimizer(cfg, w).defaults
        keys = "lr", "momentum", "dampening", "weight_decay", "nesterov"
        assert [ours[k] for k in keys] == [1e-3, 0.9, 0, 5e-4, False]
        assert (cfg["batch_size"], cfg["epochs"], cfg["seed"]) == (16, 300, 123)
        d = data["va", mode].data
        d2 = SimpleNamespace(indices=lambda s: torch.arange(37), clips=d.clips)
        order = [train_order(cfg, d2, e) for e in (0, 1)]
        assert [len(b) for b in order[0]] == [16, 16, 5]
        assert not torch.equal(torch.cat(order[0]), torch.cat(order[1]))


def their_trainer(scores, patience=10):
    "The released loop: ties are progress; it stops after more than ten epochs without any"
    best, waited, kept = -math.inf, 0, None
    for epoch, s in enumerate(scores):
        if s >= best:
            best, waited, kept = s, 0, epoch
        else:
            waited += 1
        if waited > patience:
            return kept, epoch + 1
    return kept, len(scores)


@pytest.mark.parametrize("scores", [
    [0.1, 0.3, 0.3, 0.2] + [0.1] * 30,
    [0.2] + [0.1] * 10 + [0.3] + [0.1] * 30,
    [0.2] + [0.1] * 30,
    [0.4, 0.1, 0.4, 0.1, 0.4] + [0.2] * 30,
])  # fmt: skip
def test_which_epoch_is_kept_and_when_it_stops(owners, scores):
    kept, ran = their_trainer(scores)
    corpus = SimpleNamespace(data=SimpleNamespace(task="regression"))
    got = {}
    for mode in MODES:
        t = Training(config(owners, mode=mode), corpus, *[None] * 3)
        for epoch, s in enumerate(scores):
            if _stop_early(t):
                break
            loss = 1 - s + 0.001 * epoch  # of equals the first has the lowest loss
            t.history.append(dict(epoch=epoch, validation_score=s, validation_loss=loss))
        got[mode] = t.best["epoch"], len(t.history)
    assert got["as_released"] == (kept, ran)
    first = scores.index(max(scores[:ran]))
    assert got["as_described"] == (first, min(first + 12, len(scores)))


def their_ccc_loss(out, target):
    "Unbiased variances, a biased covariance, over all frames of a batch"
    mt, mo = target.mean(0), out.mean(0)
    cov = ((out - mo) * (target - mt)).mean(0)
    r = 2 * cov / (target.var(0) + out.var(0) + (mt - mo) ** 2)
    return 1 - sum(r) / 2


def test_losses(owners):
    g = torch.Generator().manual_seed(1)
    out, target = (torch.randn(4, 16, 2, generator=g) for _ in range(2))
    target[0, 3] = math.nan  # a frame that is not annotated
    known = ~target.isnan().any(-1)
    released, described = (output_loss(config(owners, mode=m), out, target, "regression")
                           for m in MODES[::-1])  # fmt: skip
    torch.testing.assert_close(released, their_ccc_loss(out[known], target[known]))
    o, t = out[known].double(), target[known].double()
    whole = 2 * ((o - o.mean(0)) * (t - t.mean(0))).mean(0)
    whole = whole / (o.var(0, correction=0) + t.var(0, correction=0) + (o.mean(0) - t.mean(0)) ** 2)
    torch.testing.assert_close(described.double(), 1 - whole.mean(), atol=1e-6, rtol=0)
    classes, wrong = torch.randn(4, 16, 7, generator=g), torch.randint(0, 7, (4, 16), generator=g)
    loss = output_loss(config(owners, "expr"), classes, wrong)
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(
        classes.flatten(0, 1), wrong.flatten()))  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_each_annotated_frame_is_scored_once(data, owners, mode):
    "Of a frame that is repeated the first output counts"
    d, cfg = data["expr", mode].data, config(owners, "expr", mode=mode)
    idx = d.indices("validation")
    logits = torch.arange(4 * 16 * 7.0).view(4, 16, 7)
    _, frame, y, p = video_outputs(cfg, d, idx, logits)
    theirs = [(f, logits[w, k].tolist()) for w, (frames, valid) in enumerate(their_windows())
              for k, (f, v) in enumerate(zip(frames, valid)) if v]  # fmt: skip
    assert list(frame) == [f for f, _ in theirs]
    assert y.tolist() == [their_label("expr", f) for f, _ in theirs]
    assert np.allclose(p, [o for _, o in theirs])


@pytest.mark.parametrize("cell, kind", [("lstm", torch.nn.LSTM), ("gru", torch.nn.GRU)])
@pytest.mark.parametrize("fusion", ["rnn", "late"])
def test_cell_layers_and_dropout(cell, kind, fusion):
    "For the joint model as for each modality alone"
    own = dict(cell=cell, layers=2, dropout=0.1)
    light = dict(trunk="light", rnn=6, **own)
    s = dict(modality="av", fusion=fusion, n_out=7, audio_encoder="mel_pictures",
             video_encoder="pictures", video_views=("face",),
             encoder_options=dict(pictures=light, mel_pictures=light),
             fusion_options=dict(rnn=dict(hidden=5, **own)))  # fmt: skip
    model = build_model(s)
    layers = [m for m in model.modules() if isinstance(m, (torch.nn.LSTM, torch.nn.GRU))]
    assert len(layers) == (1 if fusion == "rnn" else 2)
    for m in layers:
        assert type(m) is kind and (m.num_layers, m.dropout, m.bidirectional) == (2, 0.1, True)
    audio, video = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 3, 32, 32)
    steps = torch.ones(2, 3, dtype=torch.bool)
    assert model(audio, video, step_mask=steps).shape == (2, 3, 7)


def test_dropout_without_a_second_layer_is_refused():
    "The released configuration has dropout 0.1 and one layer, where it does nothing"
    widths = SimpleNamespace(dim=4, mid_dim=4)
    with pytest.raises(AvkitError, match="layers=2"):
        FUSIONS["rnn"](widths, widths, dropout=0.1)
