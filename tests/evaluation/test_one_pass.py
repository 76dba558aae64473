"""All conditions in one pass over the clips: the bits of one condition after the other, and what is
the same is made once."""

from collections import Counter

import pytest
import torch
from helpers import OWN, config, toy

from avkit.models.fusion import FUSIONS
from avkit.models.model import Memory, remembering
from avkit.training.checkpoint import make_model
from avkit.training.inference import (
    INPUTS,
    evaluation_batch,
    logits_under,
    predict_logits,
    score_conditions,
)

CONDITIONS = ["av", "audio", "video", "video_noise", "audio_lost_50+video_missing_50"]


def with_gaps(corpus):
    "Clips of different lengths; one has no audio, one no video, so that masks matter"
    for s in ("audio", "video"):
        mask = getattr(corpus.data, s).mask
        for i in range(1, len(mask), 3):
            mask[i, mask.shape[1] // 2 + 1 :] = False
    return corpus


def plainly(cfg, model, data, idx, condition, size, monkeypatch):
    "Logits as they were made before: each condition by itself, nothing left out"
    with monkeypatch.context() as m, torch.no_grad():
        m.setattr("avkit.models.model._of_nobody", lambda f, x, mask: f(x, mask))
        out = []
        for i in idx.split(size):
            b = evaluation_batch(cfg, data, i, condition, "cpu")
            out.append(model(**{k: b[k] for k in INPUTS if k in b}).float())
    return torch.cat(out)


CASES = [(r, None) for r in OWN] + [("jca2023", f) for f in FUSIONS if f != "vavl"]


@pytest.mark.parametrize("recipe, fusion", CASES)
def test_the_same_bits(recipe, fusion, tmp_path, monkeypatch):
    more = {} if fusion is None else dict(fusion=fusion)
    cfg, corpus = config(recipe, tmp_path, **more), with_gaps(toy(recipe))
    model = make_model(cfg, corpus.data).eval()
    data, idx = corpus.data, torch.arange(5)
    asked = CONDITIONS if cfg["modality"] == "av" else [cfg["modality"]]
    together = logits_under(cfg, model, {c: (data, c) for c in asked}, idx, size=3)
    for c in asked:
        alone = plainly(cfg, model, data, idx, c, 3, monkeypatch)
        assert torch.equal(together[c], alone), c
        assert torch.equal(predict_logits(cfg, model, data, idx, c, size=3), alone), c
    distinct = {tuple(x.flatten().tolist()) for x in together.values()}
    assert len(distinct) > len(asked) // 2, (
        "the conditions differ, so that equal bits say something"
    )


def test_encoders_see_a_stream_once(tmp_path, monkeypatch):
    "Of the usual three conditions each encoder reads all clips once, and one clip of those without"
    cfg, corpus = config("jca2023", tmp_path), toy("jca2023")
    model, read = make_model(cfg, corpus.data).eval(), Counter()
    for k in ("audio", "video"):
        stage1 = getattr(model, k).stage1

        def counted(x, mask, k=k, stage1=stage1):
            read[k] += len(x)
            return stage1(x, mask)

        monkeypatch.setattr(getattr(model, k), "stage1", counted)
    score_conditions(cfg, corpus, model, ["av", "audio", "video"], sides=dict(train="train"))
    assert read == dict(audio=8 + 1, video=8 + 1)


def test_batches_are_read_once(tmp_path, monkeypatch):
    cfg, corpus = config("jca2023", tmp_path), toy("jca2023")
    model, read, batch = make_model(cfg, corpus.data), [], type(corpus.data).batch
    monkeypatch.setattr(
        type(corpus.data), "batch", lambda d, i, *a: read.append(i) or batch(d, i, *a)
    )
    score_conditions(cfg, corpus, model, CONDITIONS, sides=dict(train="train"))
    assert [len(i) for i in read] == [8]


def test_nothing_is_remembered_afterwards(tmp_path):
    "Neither the tensors nor what was made of them outlive the block, nor an error in it"
    cfg, corpus = config("jca2023", tmp_path), toy("jca2023")
    model = make_model(cfg, corpus.data)
    with pytest.raises(KeyError), remembering(model, []):
        assert isinstance(model.memory, Memory)
        raise KeyError
    assert model.memory is None


def test_a_memory_tells_tensors_apart():
    "By which tensor it is, never by its values; and one that nobody announced is made anew"
    x, mask = torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool)
    made, memory = [], Memory([x, mask])

    def f(a, m):
        made.append(1)
        return a + 1, m

    first, again = memory("f", f, x, mask), memory("f", f, x, mask)
    assert first[0] is again[0] and len(made) == 1
    memory("f", f, x.clone(), mask)
    memory("f", f, x, mask.clone())
    memory("g", f, x, mask)
    assert len(made) == 4
    assert memory("f", f, first[0], mask)[0] is memory("f", f, first[0], mask)[0]


@pytest.mark.parametrize("threads", [1, 2])
def test_it_is_scored_with_the_threads_it_was_trained_with(threads, tmp_path):
    "However many this process has: their number changes bits, and a busy neighbour stops two"
    cfg, corpus = config("jca2023", tmp_path, threads=threads), toy("jca2023")
    model, seen, before = make_model(cfg, corpus.data), [], torch.get_num_threads()
    model.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
    torch.set_num_threads(3)
    try:
        predict_logits(cfg, model, corpus.data, torch.arange(3), "av", size=2)
        assert seen == [threads, threads] and torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
