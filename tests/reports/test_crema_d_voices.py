"Real voices: what a model and people make of them, on tables that a test can count by hand."

import json

import numpy as np
import pandas as pd
import pytest
import torch

from avkit.datasets.crema_d import CREMA_D_EMOTIONS
from avkit.evaluation.runs import open_run, read_predictions
from avkit.reports.crema_d_voices import (
    LEARNED_FROM,
    clip_facts,
    listener_hits,
    of_run,
    voice_answers,
    raw_voices,
    voice_run,
    voices_report,
)
from avkit.reports.index import KINDS, remake
from avkit.reports.records import read_spec
from helpers import draw_small

ACTORS = [1001, 1002, 1020, 1021, 1040, 1041, 1060, 1061, 1080, 1081]  # of each block two
NAMES = list(CREMA_D_EMOTIONS.values())
LIGHT = dict(
    epochs=1,
    options=dict(encoder_options=dict(logmel_cnn=dict(channels=[2, 2], width=8, pool=2))),
)


@pytest.fixture(scope="module")
def voices(tmp_path_factory):
    "CREMA-D's tables of ten actors without media, and a joined archive of short sequences"
    root, rng = tmp_path_factory.mktemp("voices"), np.random.default_rng(0)
    clips = [f"{a}_{s}_{e}_XX" for a in ACTORS for s in ("DFA", "IEO") for e in CREMA_D_EMOTIONS]
    rows, x = ['"","A","D","F","H","N","S","fileName","numResponses"'], []
    for i, c in enumerate(clips):
        e = list(CREMA_D_EMOTIONS).index(c[9:12])
        for kind in (1, 2, 3):
            votes = rng.multinomial(9, np.eye(6)[e] * 0.4 + np.eye(6)[4] * 0.3 + 0.05)
            rows.append(f'{kind}{i:05d},{",".join(map(str, votes))},"{c}",9')
        x.append(rng.normal(e, 1, (int(rng.integers(20, 30)), 8)))
    (root / "tabulatedVotes.csv").write_text("\n".join(rows))
    (root / "SentenceFilenames.csv").write_text("Filename\n" + "\n".join(clips))
    lengths, q = [len(s) for s in x], np.concatenate(x)
    np.savez(root / "mel.npz", name=np.array(clips), frames=lengths, q=q.astype(np.float32))
    return root


@pytest.fixture(scope="module")
def made(voices, tmp_path_factory):
    "A report of one seed and two folds"
    to = tmp_path_factory.mktemp("report")
    more = LIGHT | dict(seeds=(1,), folds=(0, 1), runs=to / "runs")
    more["options"] = json.dumps(LIGHT["options"])
    with pytest.MonkeyPatch.context() as monkeypatch:
        draw_small(monkeypatch)
        voices_report(voices, voices / "mel.npz", to / "made", "Voices", **more)
    return to


def test_every_method_is_asked_about_all_clips_of_the_test_actors(made):
    t = pd.read_csv(made / "made/table.csv")
    assert t.answers.value_counts().to_dict() == {
        "most frequent": 3,
        "logistic regression": 3,
        "convolutions over time": 3,
        "one listener": 1,
        "most of the listeners": 1,
        "half of the listeners, against the others": 1,
        "knows everybody": 1,
    }
    spec = read_spec(made / "made")
    for r in [*spec["records"], *spec["baselines"]]:
        assert sum(s[0] for s in r["speakers"]["audio"].values()) == 2 * 12  # two actors a block
    for r in spec["records"]:
        assert np.sum(r["confusion"]) == 24 and sum(b[0] for b in r["reliability"]) == 24 * 6
    frequent = t.loc[(t.answers == "most frequent") & (t.learned == "what was intended")]
    assert frequent.intended.item() == pytest.approx(1 / 6, abs=1e-6)
    assert KINDS["voices"].headline(t).startswith("What was intended: ")


def test_it_is_made_again_from_its_records(made, tmp_path, monkeypatch):
    draw_small(monkeypatch)
    remake(made / "made", tmp_path)
    for name in ("table.md", "table.csv", "table.tex", "corrupted.csv"):
        assert (tmp_path / name).read_bytes() == (made / "made" / name).read_bytes()


def test_answers_are_those_of_the_run_itself(made, voices):
    "Read anew from the raw sequences, a run says of its own test clips what it said at its end"
    more = dict(data_root=str(voices), audio_features=str(voices / "mel.npz"))
    for target in LEARNED_FROM:
        cfg = voice_run(target, 1, 1, made / "runs", **more)
        run, raw = open_run(cfg.run_dir), raw_voices(cfg)
        own = read_predictions(run.folder)
        own = own.loc[own.split == "test"]
        p = voice_answers(run, raw, own["clip"].tolist(), ["audio"])["audio"]
        np.testing.assert_allclose(p, own[NAMES].to_numpy(float), atol=2e-6)


def test_the_votes_are_learned_of_all_clips_and_the_consensus_of_those_that_have_one(made):
    counts = {}
    for r in read_spec(made / "made")["records"]:
        counts.setdefault(r["target"], set()).add(sum(r["counts"].values()))
    assert counts["intended"] == counts["votes"] == {120}
    assert max(counts["consensus"]) < 120


def test_clips_are_scaled_as_the_run_scaled_them(voices):
    more = dict(data_root=str(voices), audio_features=str(voices / "mel.npz"))
    raw = raw_voices(voice_run("votes", 0, 1, voices / "runs", **more))
    one = of_run(raw, raw.clips[3:4], (torch.full((8,), 2.0), torch.full((8,), 4.0)))
    real = one.audio.mask[0]
    assert torch.equal(one.audio.x[0][real], (raw.audio.x[3][real] - 2) / 4)


def test_a_listener_is_held_against_the_others(voices):
    v = clip_facts(voices)[NAMES].to_numpy()
    hit, asked = listener_hits(v)
    for row, h, n in zip(v, hit, asked):
        votes = np.repeat(np.arange(6), row)
        rest = [np.bincount(np.delete(votes, i), minlength=6) for i in range(len(votes))]
        known = [(r, c) for r, c in zip(rest, votes) if r.max() * 2 > r.sum()]
        assert n == len(known) and h == sum(r.argmax() == c for r, c in known)
