"A label per step: every fusion gives one output a step, whatever the padding, the batch mates or a missing modality."
import pytest
import torch

from avkit.models.fusion import FUSIONS
from avkit.models.model import build_model


def model(fusion, modality="av"):
    torch.manual_seed(0)
    return build_model(dict(modality=modality, fusion=fusion, heads=2, n_out=3, audio_encoder="logmel_cnn", video_encoder="vector", audio_dim=12, video_dim=6)).eval()


def clip(n=1, T=32, S=8):
    g = torch.Generator().manual_seed(1)
    yes = lambda k: torch.ones(n, k, dtype=torch.bool)
    return dict(audio=torch.randn(n, T, 12, generator=g), video=torch.randn(n, S, 6, generator=g), audio_mask=yes(T), video_mask=yes(S), step_mask=yes(S))


def padded(b, T=16, S=4):
    junk = lambda x, k: torch.cat([x, 9 + torch.randn(len(x), k, *x.shape[2:])], 1)
    no = lambda m, k: torch.cat([m, torch.zeros(len(m), k, dtype=torch.bool)], 1)
    return dict(audio=junk(b["audio"], T), video=junk(b["video"], S), audio_mask=no(b["audio_mask"], T), video_mask=no(b["video_mask"], S), step_mask=no(b["step_mask"], S))


@pytest.mark.parametrize("fusion", FUSIONS)
@torch.no_grad()
def test_every_fusion_per_step(fusion):
    m, b = model(fusion), clip(3)
    out = m(**b)
    assert out.shape == (3, 8, 3) and out.isfinite().all() and out.std(1).max() > 1e-4
    assert torch.allclose(m(**padded(b))[:, :8], out, atol=1e-4)
    assert torch.allclose(m(**{k: v[1:2] for k, v in b.items()}), out[1:2], atol=1e-5)
    fused, branch = m(**b, return_aux=True)
    assert torch.allclose(fused, out, atol=1e-5) and {k: v.shape for k, v in branch.items()} == dict(audio=out.shape, video=out.shape)


@pytest.mark.parametrize("gone", ["audio", "video"])
@pytest.mark.parametrize("fusion", FUSIONS)
@torch.no_grad()
def test_a_missing_stream_says_nothing(fusion, gone):
    m, b = model(fusion), clip(2)
    without = b | {f"{gone}_mask": torch.zeros_like(b[f"{gone}_mask"])}
    out = m(**without)
    assert out.isfinite().all() and torch.equal(out, m(**without | {gone: torch.full_like(b[gone], torch.nan)}))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_both_streams_learn(fusion):
    m, b = model(fusion).train(), clip(2)
    for k in ("audio", "video"): b[k].requires_grad_()
    m(**b).square().sum().backward()
    assert all(b[k].grad.abs().sum() > 0 for k in ("audio", "video"))


@pytest.mark.parametrize("modality", ["audio", "video"])
@torch.no_grad()
def test_one_stream_per_step(modality):
    m, b = model("concat", modality), clip(2)
    out = m(**b)
    assert out.shape == (2, 8, 3) and torch.allclose(m(**padded(b))[:, :8], out, atol=1e-4)
