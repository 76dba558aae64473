"Looking inside: every fusion, hidden parts, names of experiments."
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from avkit.evaluation.runs import Run, open_run
from avkit.reports import attention, errors
from avkit.reports.stored_clips import StoredClip
from avkit.training.configure import configure
from avkit.core import AvkitError
from avkit.datasets.batches import AVData
from avkit.datasets.features import Stream
from avkit.models.fusion import FUSIONS
from avkit.models.model import build_model


def opened(fusion, monkeypatch, task="class", steps=False, modality="av"):
    "A run without files: a fresh model, random streams"
    g = torch.Generator().manual_seed(0)
    a = torch.randn(2, 60, 10, generator=g)
    v = torch.randint(0, 255, (2, 6, 3, 40, 40), generator=g, dtype=torch.uint8)
    streams = dict(audio=Stream(a, torch.ones(2, 60, dtype=torch.bool), "a"),
                   video=Stream(v, torch.ones(2, 6, dtype=torch.bool), "v"))
    given = {s: x if modality in ("av", s) else None for s, x in streams.items()}
    more = {}
    if steps:
        numbers = np.arange(12).reshape(2, 6)
        more = dict(steps=torch.ones(2, 3, dtype=torch.bool), numbers=numbers, frames={})
    data = AVData(target=torch.zeros((2, 3) if steps else 2, dtype=torch.long), clips=["x", "y"],
                  split=np.array(["test", "validation"]), classes=["p", "q"], task=task, **given,
                  **more)
    torch.manual_seed(0)
    s = dict(modality=modality, fusion=fusion, n_out=2, audio_encoder="audio_cnn",
             video_encoder="light", audio_dim=10)
    record = dict(classes=["p", "q"], task=task, metrics=dict(test=dict(av={})))
    r = Run("x", record, configure(modality=modality))
    row = dict(clip="x", split="test", condition="av", target="p", prediction="q", p=.2, q=.8)
    p = pd.DataFrame([row])
    r.__dict__.update(corpus=SimpleNamespace(data=data), model=build_model(s).eval(), predictions=p)
    sound = np.sin(np.arange(22050) / 20).astype(np.float32)
    frames, times = np.zeros((6, 8, 8, 3), np.uint8), (np.arange(6) + .5) / 6
    clip = StoredClip(frames, times, sound, 22050, 1.)
    monkeypatch.setattr(attention, "stored_clip", lambda *_: clip)
    return r


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("steps", [False, True])
def test_every_fusion_can_be_asked(fusion, steps, monkeypatch):
    r = opened(fusion, monkeypatch, steps=steps)
    maps, lost = attention.attention(r, 0), attention.hiding(r, 0, parts=4)
    for name, w in maps.items():
        assert w.ndim == 2 and np.isfinite(w).all() and " -> " in name
    for b, e, v in lost.values():
        assert len(v) == 4 and b[0] == 0 and abs(e[-1] - 1) < 1e-6
        assert np.isfinite(v).all() and np.abs(v).max() <= 1
    assert set(lost) == {"audio", "video"} and any(np.abs(v).max() > 0 for _, _, v in lost.values())


@pytest.mark.parametrize("modality", ["audio", "video"])
def test_one_modality_has_a_figure_too(modality, monkeypatch):
    import matplotlib.pyplot as plt
    r = opened("ca", monkeypatch, modality=modality)
    assert attention.attention(r, 0) == {} and set(attention.hiding(r, 0)) == {modality}
    attention.attention_over_time(r, "x")
    plt.close("all")


# maps between features, maps over time, none
@pytest.mark.parametrize("fusion", ["jca", "ca", "late"])
def test_every_kind_of_map_is_drawn(fusion, monkeypatch):
    import matplotlib.pyplot as plt
    r = opened(fusion, monkeypatch, task="regression")
    titles = [a.get_title(loc="left") for a in attention.attention_over_time(r, "x").axes]
    for name in attention.attention(r, 0): assert any(t.startswith(name) for t in titles)
    plt.close("all")


def test_the_clip_that_is_drawn_is_left_as_it_was(monkeypatch):
    r = opened("ia", monkeypatch)
    before = {k: v.clone() for k, v in attention.batch_of(r, 0).items()}
    attention.hiding(r, 0)
    attention.attention(r, 0)
    assert all(torch.equal(before[k], v) for k, v in attention.batch_of(r, 0).items())


def test_markup_in_names_is_text(monkeypatch):
    r = opened("ca", monkeypatch)
    nothing = StoredClip(None, None, None, 22050, 1.)
    monkeypatch.setattr(errors, "moment", lambda *_: nothing)
    row = dict(clip="<script>", target="p", prediction="<b>", sure=.8, truth=.1)
    page = errors.Errors(r, pd.DataFrame([row]), "a & b")._repr_html_()
    assert "<script>" not in page and "<b>" not in page and "a &amp; b" in page


def test_without_pyav_the_audio_is_wav(monkeypatch):
    x = np.zeros(2205, np.float32)
    assert errors.audio_uri(x, 22050).startswith("data:audio/mpeg")
    monkeypatch.setitem(sys.modules, "av", None)
    assert errors.audio_uri(x, 22050).startswith("data:audio/wav")


def test_a_run_that_is_not_there(tmp_path):
    with pytest.raises(AvkitError, match="finished run"): open_run(tmp_path)
