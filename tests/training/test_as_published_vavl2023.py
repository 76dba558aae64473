"""vavl2023's data pipeline beside a plain re-statement of the paper's and of the released code's.

What is written here says what the authors describe and do, with NumPy and torch alone; what avkit
feeds to its model must be the same numbers, at the paper's settings, with a tiny backbone.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from avkit.datasets import synth
from avkit.datasets.features import Stream
from avkit.datasets.manifest import corpus_info
from avkit.models.backbones import build_backbone
from avkit.preprocessing import faces, media
from avkit.preprocessing.prepare import prepare, Preparation, stream_key
from avkit.store import Store
from avkit.training import learner, loading
from avkit.training.checkpoint import make_model
from avkit.training.configure import configure
from avkit.training.frozen import frozen_backbone
from avkit.training.inference import evaluation_batch
from helpers import toy

TINY = dict(
    audio_backbone="wav2vec2_tiny", video_backbone="resnet18_small", video_size=48,
    preparation=dict(frames=4, size=48, detector="none", views=["frame"]), video_views=["frame"],
    encoder_options=dict(conformer=dict(dim=16, layers=1, heads=2, kernel=3)), heads=2,
    fusion_options=dict(vavl=dict(dim=16, layers=1, kernel=3)),
)  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    "Clips of four emotions by each of three actors, one in each subset"
    d = tmp_path_factory.mktemp("vavl")
    small = dict(actors=3, repeats=1, size=(160, 120))
    root = synth.render_demo(d / "corpus", **small, n_jobs=1, progress=False)
    for p in root.rglob("0?-01-0[5-8]-*"):
        p.unlink()
    (d / "split.csv").write_text("speaker,split\n1,train\n2,validation\n3,test\n")
    return root, d / "split.csv", Store(d / "store")


def config(corpus, **more):
    root, split, _ = corpus
    return configure(
        recipe="vavl2023", size="paper", dataset="ravdess", data_root=str(root), split=str(split),
        options=TINY, device="cpu", n_jobs=1, random_backbone=True, **more,
    )  # fmt: skip


@pytest.fixture(scope="module", params=["as_described", "as_released"])
def run(request, corpus):
    cfg = config(corpus, mode=request.param)
    prep = cfg.recipe["preparation"] | dict(frames=4, margin=0.0, sure=None)
    cfg = replace(cfg, recipe=cfg.recipe | dict(preparation=prep))  # every frame: see below
    return cfg, loading.load_data(cfg, corpus[2], verbose=False)


def waves_of(cfg, c, store):
    "Every clip's samples, at most 12 s"
    keys = loading._keys(cfg, c.manifest, "audio", store)
    return [store.get(k, ["sound"])[0]["sound"].numpy()[: 12 * 16000] for k in keys]


def plain(x):
    "A model without scaling of its own: the samples go into the network as they are"
    net = frozen_backbone("wav2vec2_tiny").net
    with torch.inference_mode():
        return net(torch.from_numpy(x)[None].float())[0][0]


def test_waveforms_are_scaled_by_the_training_set_and_features_left_as_they_are(run, corpus):
    cfg, c = run
    waves, split = waves_of(cfg, c, corpus[2]), c.manifest.clips["split"].tolist()
    every = np.concatenate([w for w, s in zip(waves, split) if s == "train"]).astype(np.float64)
    mean, std = every.mean(), every.std()
    assert c.stats["wave"][0].item() == pytest.approx(mean, abs=1e-7)
    assert c.stats["wave"][1].item() == pytest.approx(std, rel=1e-5)
    for i in (0, len(waves) // 2, len(waves) - 1):
        want = plain(((waves[i] - mean) / std).astype(np.float32))
        got = c.data.audio.x[i][c.data.audio.mask[i]]
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-4)
    assert "audio" not in c.stats  # not centred afterwards


def test_frames_are_scaled_by_the_training_set(run, corpus):
    cfg, c = run
    net, raw = frozen_backbone("resnet18_small"), []
    keys = loading._keys(cfg, c.manifest, "video", corpus[2])
    imagenet = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    colours = [torch.tensor(v).view(3, 1, 1) for v in imagenet]
    for k in keys:
        x = corpus[2].get(k, ["frame"])[0]["frame"].float() / 255
        with torch.inference_mode():
            raw.append(net.net((x - colours[0]) / colours[1]))
    raw = torch.stack(raw)
    train = torch.tensor([s == "train" for s in c.manifest.clips["split"]])
    mean, std = raw[train].flatten(0, 1).mean(0), raw[train].flatten(0, 1).std(0, correction=0)
    std = torch.where(std > 1e-6, std, 1.0)  # numbers that never change stay as they are
    torch.testing.assert_close(c.data.video.x[:], (raw - mean) / std, rtol=1e-3, atol=1e-3)


def test_what_is_reconstructed_is_the_mean_of_what_the_branch_reads(run):
    cfg, c = run
    model = make_model(cfg, c.data).eval()
    b = c.data.batch(torch.arange(3))
    _, aux = model(b["audio"], b["video"], b["audio_mask"], b["video_mask"], return_aux=True)
    for s in ("audio", "video"):
        counted = b[f"{s}_mask"] | cfg.has("unmasked_padding")
        want = (b[s] * counted[..., None]).sum(1) / counted.sum(1, keepdim=True)
        torch.testing.assert_close(aux[f"{s}_mean"], want, rtol=1e-4, atol=1e-5)


def padded(mode):
    "Clips of different lengths, 8 of which train, in the order of their names"
    c, cfg = toy("vavl2023"), configure(recipe="vavl2023", dataset="msp_improv", mode=mode,
                                        data_root="rendered", batch_size=3)  # fmt: skip
    mask = torch.arange(20) < torch.tensor([5, 9, 7, 12, 3, 4, 6, 2, 9, 20, 8, 7, 6, 5])[:, None]
    x = torch.randn(14, 20, 4) * mask[..., None]
    return cfg, replace(c, data=replace(c.data, audio=Stream(x, mask, "long")))


def test_batches_order_and_padding():
    "Released: names in order, 3 at a time, padded to the longest of each batch with zeros"
    cfg, c = padded("as_released")
    d, t = c.data, learner.start(*padded("as_released"))
    want = [list(range(0, 3)), list(range(3, 6)), list(range(6, 8))]
    for epoch in (0, 1):
        order = learner.train_order(cfg, d, epoch)
        assert [i.tolist() for i in order] == want
        for step, idx in enumerate(order):
            b = learner.batch_of_rank(t, d, idx, torch.zeros(14, 8), epoch, step)
            clips = [d.audio.x[i][d.audio.mask[i]] for i in idx]
            assert torch.equal(b["audio"], torch.nn.utils.rnn.pad_sequence(clips, True))
    assert evaluation_batch(cfg, d, torch.tensor([8, 10]), "av", "cpu")["audio"].shape[1] == 9
    cfg, c = padded("as_described")
    one, two = (learner.train_order(cfg, c.data, e) for e in (0, 1))
    one, two = (torch.cat(x).tolist() for x in (one, two))
    assert sorted(one) == list(range(8)) and one != two


@pytest.mark.parametrize("mode", ["as_described", "as_released"])
def test_the_rate_is_constant(mode):
    told = dict(dataset="crema_d", label="consensus", mode=mode, size="paper")
    cfg = configure(recipe="vavl2023", **told)
    assert [learner.lr_at(cfg, e) for e in range(20)] == [5e-5] * 20
    adam = learner.make_optimizer(cfg, torch.nn.Linear(1, 1))
    assert isinstance(adam, torch.optim.Adam) and not isinstance(adam, torch.optim.AdamW)
    assert not adam.defaults["decoupled_weight_decay"] and adam.defaults["betas"] == (0.95, 0.999)
    assert (adam.defaults["weight_decay"], cfg["batch_size"], cfg["epochs"]) == (5e-7, 32, 20)


def released_ccc(p, t):
    "CCC of each column"
    top = 2 * ((p - p.mean(0)) * (t - t.mean(0))).mean(0)
    spread = p.var(0, unbiased=False) + t.var(0, unbiased=False)
    return top / (spread + (p.mean(0) - t.mean(0)) ** 2)


def test_losses():
    "Classes: cross-entropy + 2 MSE. Numbers: the sum of 1 - CCC over three, + MSE; we take a third"
    g = torch.Generator().manual_seed(0)
    z, made, real = (torch.randn(6, n, generator=g) for n in (3, 4, 4))
    aux = dict(audio_reconstruction=made, audio_mean=real)
    sort, numbers = torch.tensor([0, 1, 2, 0, 1, 2]), torch.randn(6, 3, generator=g)
    usual = dict(recipe="vavl2023", size="paper")
    c = configure(dataset="crema_d", label="consensus", **usual)
    m = configure(dataset="msp_improv", **usual)
    mse = F.mse_loss(made, real)
    torch.testing.assert_close(
        learner.loss_of(c, (z, aux), sort), F.cross_entropy(z, sort) + 2 * mse
    )
    want = (1 - released_ccc(z, numbers)).sum() + mse
    torch.testing.assert_close(3 * learner.loss_of(m, (z, aux), numbers, "regression"), want)


def test_arousal_in_each_epoch():
    "Released: 6 - x in place, so 6 - x is learned, then x, then 6 - x; described: always the same"
    c = toy("vavl2023")
    from avkit.training.quirks import quirk_epoch

    i = c.data.classes.index("arousal")
    mean, std = torch.tensor([3.2, 3.0, 2.9]), torch.tensor([0.7, 0.9, 0.8])
    c.stats["target"] = mean, std
    told = lambda cfg, e: (quirk_epoch(cfg, c, e).target * std + mean)[:, i]
    usual = dict(recipe="vavl2023", dataset="msp_improv", data_root="rendered")
    first = told(configure(**usual), 0)
    for e in range(4):
        torch.testing.assert_close(told(configure(**usual), e), first)
        want = first if e % 2 == 0 else 6 - first
        torch.testing.assert_close(told(configure(mode="as_released", **usual), e), want)


def test_every_frame_and_the_released_crop(corpus):
    "As many images as the file has frames; a square a quarter wider around faces of .96 or more"
    root, _, store = corpus
    m = loading.open_manifest(config(corpus))
    row = m.clips.to_dict("records")[0]
    m = replace(m, clips=m.clips.iloc[:1])
    r = configure(recipe="vavl2023", size="paper", mode="as_released", dataset="msp_improv").recipe
    prep = Preparation(**r["preparation"])
    assert (prep.frames, prep.sure, prep.margin, prep.size) == (0, 0.96, 0.25, 224)
    prepare(m, prep, store, n_jobs=1)
    got = store.get(stream_key(row, "video", prep, m.root))[0]
    frames = media.decode(root / row["video"], True, False).frames
    assert len(got["face"]) == len(frames)
    found = [(b[p >= 0.96], p[p >= 0.96]) for b, p in faces.Mtcnn(sure=0.0).detect(frames)]
    boxes, seen = faces.track(found, frames.shape[1:3])
    assert np.array_equal(seen, got["found"].numpy())
    for box, image, frame in zip(boxes[::20], got["face"][::20], frames[::20]):
        x, y, side = faces.squares(box[None], frames.shape[1:3], 0.25)[0]
        longest = (box[2:] - box[:2]).max()
        assert side == min(round(longest * 1.25), *frame.shape[:2])
        again = faces.crop(frame[None], box[None], 224, 0.25)[0]
        assert np.array_equal(again.transpose(2, 0, 1), image.numpy())


def test_the_session_before_validates():
    folds = corpus_info("msp_improv")["splits"]["sessions6"]["folds"]
    told = {f["test"][0]: f["validation"][0] for f in folds}
    published = {5: 4, 3: 2, 2: 1, 1: 6, 6: 5}
    assert {k: told[k] for k in published} == published and told[4] == 3


def test_the_tiny_backbone_scales_each_waveform_only_where_it_is_asked_to():
    x = torch.randn(1, 4000) * 3 + 1
    made = [build_backbone("wav2vec2_tiny", normalise=n, say=False) for n in (True, False)]
    own, plain_ = (b.eval() for b in made)
    plain_.load_state_dict(own.state_dict())
    one = (x - x.mean()) / x.std(correction=0)
    with torch.inference_mode():
        torch.testing.assert_close(own(x), plain_(one), rtol=1e-3, atol=1e-4)
        assert not torch.allclose(own(x), plain_(x), atol=1e-2)
