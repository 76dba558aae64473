"""Every fusion with every pair of encoders keeps the invariants of papers on audio-visual emotion recognition."""
import json, os
from itertools import product
from pathlib import Path
import pytest, torch
from avkit.encoders import AUDIO_ENCODERS, VIDEO_ENCODERS
from avkit.fusion import FUSIONS
from avkit.models import build_model, count_parameters

AUDIO = dict(audio_cnn=(20, 10), logmel_cnn=(20, 64), vector=(1, 7))  # steps, features
VIDEO = dict(efficientface=(2, 3, 224, 224), light=(5, 3, 56, 56), vector=(3, 9))
PAIRS = [("audio_cnn", "light"), ("logmel_cnn", "vector"), ("vector", "vector"), ("vector", "light"), ("audio_cnn", "efficientface")]


def inputs(audio, video, n=3):
    g = torch.Generator().manual_seed(0)
    return torch.randn(n, *AUDIO[audio], generator=g), torch.rand(n, *VIDEO[video], generator=g)


def model(audio, video, fusion, heads=2, **kw):
    torch.manual_seed(0)
    s = dict(modality="av", n_out=8, fusion=fusion, heads=heads, audio_encoder=audio, video_encoder=video)
    return build_model(s | dict(audio_dim=AUDIO[audio][1], video_dim=VIDEO[video][1]) | kw).eval()


def wider(x, extra):
    "Padded by garbage, with the mask that says so"
    mask = torch.ones(len(x), x.shape[1] + extra, dtype=torch.bool)
    mask[:, x.shape[1]:] = False
    return torch.cat([x, torch.full_like(x[:, :1], float("nan")).expand(-1, extra, *x.shape[2:])], 1), mask


def test_the_table_is_complete():
    assert set(AUDIO) == set(AUDIO_ENCODERS) and set(VIDEO) == set(VIDEO_ENCODERS)


@pytest.mark.parametrize("fusion,pair", list(product(FUSIONS, PAIRS)), ids=str)
@torch.no_grad()
def test_invariants(fusion, pair):
    m, (a, v) = model(*pair, fusion), inputs(*pair)
    out = m(a, v)
    assert out.shape == (3, 8) and torch.equal(out, model(*pair, fusion)(a, v)), "the same seed gives the same model"
    assert torch.allclose(m(a[1:2], v[1:2])[0], out[1], atol=1e-5), "batch mates"
    (wa, am), (wv, vm) = wider(a, 6), wider(v, 2)
    assert torch.allclose(m(wa, wv, am, vm), out, atol=1e-5), "padding"
    no_a, no_v = torch.zeros(a.shape[:2], dtype=torch.bool), torch.zeros(v.shape[:2], dtype=torch.bool)
    for one, other in ((m(a, v, no_a), m(a * float("nan"), v, no_a)), (m(a, v, None, no_v), m(a, v * float("nan"), None, no_v))):
        assert torch.equal(one, other) and one.isfinite().all() and not torch.allclose(one, out), "a missing modality"


@pytest.mark.parametrize("fusion,pair", list(product(FUSIONS, PAIRS[:3])), ids=str)
def test_gradients_reach_what_is_used(fusion, pair):
    m, (a, v) = model(*pair, fusion), inputs(*pair)
    m.train()
    fused, aux = m(a, v, return_aux=True)
    (fused.square().sum() + sum(z.square().sum() for z in aux.values())).backward()
    unused = {n for n, p in m.named_parameters() if p.grad is None}
    assert all(fusion == "ia" and ".proj." in n for n in unused), unused


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_heads(heads):
    for f in ("ca", "ia", "it", "lt"):
        assert model("vector", "vector", f, heads)(*inputs("vector", "vector")).shape == (3, 8)


def test_released_layouts():
    "Every weight of the released checkpoints has its place here, with the same shape"
    folder = Path(os.environ.get("AVKIT_DATA") or Path(__file__).parents[2] / "shared/data") / "released_layouts"
    if not folder.is_dir(): pytest.skip("the released files' layouts are not at hand")
    for f in ("ia", "it", "lt"):
        theirs = {k.removeprefix("module."): v for k, v in json.loads((folder / f"chumachenko2022-{f}_h1.json").read_text())["state_dict"].items()}
        mine = {k: "x".join(map(str, v.shape)) or "scalar" for k, v in model("audio_cnn", "efficientface", f, 1).state_dict().items()}
        name = lambda k: k.replace("audio.", "audio_model.", 1).replace("video.trunk.", "visual_model.").replace("video.", "visual_model.", 1).replace("fusion.", "")
        assert {name(k): v for k, v in mine.items()} == theirs
