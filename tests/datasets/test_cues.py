"""Rendered feature sequences hold what their world says: read back by somebody who knows it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from avkit.core import AvkitError
from avkit.datasets.cues import World, best_codes, drawn, draw_clip, kept_steps, patterns
from avkit.datasets.synth import meeting_codes

MANY = (0, 0, 480)
CLEAR = dict(strength=12., distractors=0, speaker=0., clips=MANY)  # for a reader, not for a model


def along(x, seed, name, n):
    "(N,T,n) how strong each pattern is"
    return x @ torch.from_numpy(patterns(seed, name, 8 if n > 4 else n)).float().T


def test_a_draw_depends_on_world_and_seed_alone():
    w = World(clips=(24, 12, 12))
    (m, a), (n, b), (o, c) = drawn(w, 1), drawn(w, 1), drawn(w, 2)
    assert torch.equal(a.audio.x, b.audio.x) and torch.equal(a.video.x, b.video.x)
    assert m.data_hash == n.data_hash != o.data_hash
    assert not torch.equal(a.audio.x, c.audio.x)
    who = {s: set(m.clips.speaker[m.clips["split"] == s]) for s in ("train", "validation", "test")}
    assert not who["train"] & who["validation"] | who["train"] & who["test"] | (
        who["validation"] & who["test"])
    assert a.target[:24].bincount().tolist() == [6] * 4


def test_either_stream_of_the_rule_both_leaves_two_classes():
    w = World("both", **CLEAR)
    data = drawn(w, 3)[1]
    voice, face = (best_codes(data, 3, s, 2) for s in ("audio", "face"))
    want = {c: (f, v) for c, f, v in meeting_codes(4)}
    y = data.target.tolist()
    assert [want[c] for c in y] == list(zip(face.tolist(), voice.tolist()))
    for code in (0, 1):
        assert len({c for c, v in zip(y, voice) if v == code}) == 2
        assert len({c for c, f in zip(y, face) if f == code}) == 2


def test_cues_come_at_moments_of_their_own():
    "Every start is drawn evenly, and the two streams do not know of each other"
    w = World("both", **CLEAR)
    data = drawn(w, 4)[1]
    codes = [best_codes(data, 4, s, 2) for s in ("audio", "face")]
    starts = []
    for x, s, own in zip((data.audio.x, data.video.x), ("audio", "face"), codes):
        seen = along(x, 4, s, 8)[np.arange(len(x)), :, own] > 6
        assert (seen.sum(1) == 4).float().mean() > .95
        starts.append(seen.int().argmax(1).numpy())
    for found in starts:
        counts = np.bincount(found, minlength=9)
        assert len(counts) == 9 and counts.min() > 25  # of 53 each
    assert abs(np.corrcoef(*starts)[0, 1]) < .12


def test_who_is_heard_decides():
    "The voice alone says nothing of the class; the face of the one who is heard says it"
    w = World("person", **CLEAR)
    data = drawn(w, 5)[1]
    y = data.target.numpy()
    voice = along(data.audio.x, 5, "voices", 4).amax(1).argmax(1).numpy()
    looks = along(data.video.x, 5, "looks", 4)
    shown = along(data.video.x, 5, "face", 8)[..., :4]
    halves = [slice(0, 6), slice(6, 12)]
    look = np.stack([looks[:, h].mean(1).argmax(1).numpy() for h in halves], 1)
    code = np.stack([shown[:, h].amax(1).argmax(1).numpy() for h in halves], 1)
    heard = (look == voice[:, None]).argmax(1)
    found = code[np.arange(len(y)), heard]
    other = code[np.arange(len(y)), 1 - heard]
    assert (found == y).mean() > .97 and abs((other == y).mean() - .25) < .08
    table = np.array([np.bincount(y[voice == v], minlength=4) for v in range(4)])
    assert (table / table.sum(1, keepdims=True)).max() < .36


@pytest.mark.parametrize("share", [0., .6, 1.])
def test_a_source_shows_the_class_as_often_as_is_said(share):
    w = World("each", shown=dict(face=share), **CLEAR)
    data = drawn(w, 6)[1]
    right = (best_codes(data, 6, "face", 4) == data.target.numpy()).mean()
    assert abs(right - (share + (1 - share) / 4)) < .07
    assert (best_codes(data, 6, "audio", 4) == data.target.numpy()).mean() > .97


@pytest.mark.parametrize("lag", [0, 2])
def test_the_face_of_a_trace_is_late(lag):
    "The numbers are read off audio at once, and off video `lag` steps later"
    w = replace(World("trace", 8, 8, 3, 3, lag=lag, **CLEAR), strength=30.)
    data = drawn(w, 7)[1]
    y = data.target
    for x, name, late in ((data.audio.x, "audio", 0), (data.video.x, "face", lag)):
        basis = torch.from_numpy(patterns(7, f"trace {name}", 2)).float()
        read = x @ torch.linalg.pinv(basis) / 30
        error = (read[:, late:] - y[:, :8 - late]).abs().mean()
        assert error < .06, name
    assert abs(np.corrcoef(y[:, 1:].ravel(), y[:, :-1].ravel())[0, 1] - np.exp(-1 / 3)) < .1


def test_in_the_trace_of_two_the_one_who_is_heard_counts():
    w = replace(World("person_trace", 8, 8, 3, 3, **CLEAR), strength=30.)
    data = drawn(w, 8)[1]
    basis = np.concatenate([patterns(8, f"trace face {k}", 2) for k in range(2)])
    both = data.video.x @ torch.linalg.pinv(torch.from_numpy(basis)).float() / 30
    both = both.unflatten(-1, (2, 2))
    heard = along(data.audio.x, 8, "voices", 4)[..., :2].argmax(-1)
    read = both.gather(2, heard[..., None, None].expand(-1, -1, 1, 2))[:, :, 0]
    assert (read - data.target).abs().mean() < .06
    assert ((heard[:, 1:] != heard[:, :-1]).sum(1) == 1).all()


def test_five_frames_are_those_in_the_middle_of_equal_parts():
    w = World(video=75, video_cue=25, clips=(8, 4, 4))
    few, every = drawn(replace(w, frames=5), 1)[1], drawn(w, 1)[1]
    assert kept_steps(replace(w, frames=5)).tolist() == [7, 22, 37, 52, 67]
    assert torch.equal(few.video.x, every.video.x[:, [7, 22, 37, 52, 67]])


def test_a_world_that_makes_no_sense_is_refused():
    with pytest.raises(AvkitError, match="did you mean"): World("eich")
    with pytest.raises(AvkitError, match="longer than its stream"): World(video=3)
    audio, video, y = draw_clip(World(views=("face", "body")), 0, np.random.default_rng(0), 1, "a")
    assert audio.shape == (12, 64) and video.shape == (12, 128) and y == 1
