"""The audit finds what is planted in files, a kind at a time, and stays quiet where nothing is."""

from functools import cache
import numpy as np, pandas as pd, pytest
from types import SimpleNamespace
from avkit.core import AvkitError, read_json, write_json
from avkit.datasets.manifest import make_manifest
from avkit.datasets.synth import perform, RATE, rng_of
from avkit.evaluation import audit as audits
from avkit.evaluation.audit import (
    answers,
    audit,
    audit_line,
    brief,
    EVERYTHING,
    keep_audit,
    Labels,
    LEVEL,
    ORDER,
    question,
    SPEAKER,
    STRICT,
)
from avkit.preprocessing.circumstances import GROUPS, WORDS
from avkit.preprocessing.writing import write_video
from avkit.store import Store
from avkit.training.record import found_audit

SPEAKERS, TAKES, FPS, SIZE = 8, 2, 5, (160, 120)
PERMUTATIONS = 599  # the smallest p, corrected for some fifteen groups, is below .05


@cache  # many tests change the same take
def clip(speaker, number):
    "Frames and audio of a take; its label has no part in it"
    key = ("audit", speaker, number)
    seconds = rng_of(*key, "length").uniform(1.2, 1.6)
    look, voice = rng_of(*key, "looks").normal(0, 0.3, (2, 6))
    frames, audio = perform(look, voice, speaker, key, seconds=seconds, size=SIZE)
    return list(frames)[:: 25 // FPS], audio


def longer(frames, audio):
    return frames + frames[-3:], np.concatenate([audio, audio[-RATE * 3 // 5 :]])


def later(frames, audio):
    wait = int(0.4 * RATE)
    return frames[:2] + frames, np.concatenate([np.resize(audio[:2000], wait), audio])


def hum(frames, audio):
    "A mains hum that nobody hears: 60 dB below full scale"
    t = np.arange(len(audio)) / RATE
    return frames, audio + np.float32(2e-3) * np.sin(2 * np.pi * 300 * t).astype(np.float32)


def wall(frames, audio):
    "The left and right edge of the picture a little bluer"
    out = [f.copy() for f in frames]
    for f in out:
        for edge in (f[:, :16], f[:, -16:]):
            edge[..., 2] = np.minimum(edge[..., 2].astype(int) + 40, 255)
    return out, audio


def smaller(frames, audio):
    return [f[4:-4, 4:-4] for f in frames], audio


def louder(frames, audio):
    return frames, np.clip(3 * audio, -1, 1)


def brighter(frames, audio):
    return [np.minimum(f.astype(int) + 30, 255).astype(np.uint8) for f in frames], audio


def same(frames, audio):
    return frames, audio


def write(path, change, speaker, number, fps=FPS, rate=RATE):
    frames, audio = change(*clip(speaker, number))
    write_video(path, frames, fps, audio.astype(np.float32), rate)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    "Measures of clips that several tests share"
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    "Two classes by speaker and take, in clips that know nothing of them"
    root = tmp_path_factory.mktemp("clean")
    rows = []
    for s in range(SPEAKERS):
        labels = rng_of("labels", s).permutation(["calm", "happy"] * TAKES)
        for k, label in enumerate(labels):
            name = f"{s}{k}.mp4"
            write(root / name, same, s, k)
            rows.append(dict(clip=name[:-4], label=label, speaker=f"s{s}", audio=name, video=name))
    return root, rows


def planted(clean, folder, change=same, suffix=".mp4", **how):
    "The same clips, those of one class changed"
    root, rows = clean
    folder.mkdir(exist_ok=True)
    out = []
    for row in rows:
        name = row["video"]
        if row["label"] == "happy":
            name = row["clip"] + suffix
            write(folder / name, change, int(row["clip"][0]), int(row["clip"][1:]), **how)
        elif not (folder / name).exists():
            (folder / name).symlink_to(root / name)
        out.append(row | dict(audio=name, video=name))
    return make_manifest("folder", folder, out, ["calm", "happy"])


def findings(m, store, detector="none"):
    "The groups that predict by themselves, after correction"
    found = audit(m, detector=detector, permutations=PERMUTATIONS, store=store, n_jobs=1)
    return [r["group"] for r in found["groups"] if r.get("p_holm", 1) < LEVEL], found


def test_quiet_on_clean_files(clean, store, tmp_path):
    got, found = findings(planted(clean, tmp_path / "clean"), store)
    assert got == []
    rows = {r["group"]: r for r in found["groups"]}
    assert rows["codec"]["measures"] == 0 and "p" not in rows["codec"]
    assert 0.2 < rows[STRICT]["score"] < 0.8
    assert audit_line(dict(dataset="mine", data_hash="?", audit=brief(found))).startswith(
        "Audit: nothing that was measured predicts beyond chance"
    )


KINDS = {
    "duration": dict(change=longer),
    "silences": dict(change=later),
    "sound without speech": dict(change=hum),
    "resolution": dict(change=smaller),
    "loudness": dict(change=louder),
    "brightness": dict(change=brighter),
    "codec": dict(suffix=".mkv"),
    "frame rate": dict(fps=6),
    "sample rate": dict(rate=RATE * 2),
}


@pytest.mark.parametrize("group", KINDS)
def test_finds_what_is_planted(group, clean, store, tmp_path):
    got, found = findings(planted(clean, tmp_path / "planted", **KINDS[group]), store)
    assert group in got and STRICT in got or group == "loudness", (group, got)
    assert group in brief(found)["found"]
    rows = {r["group"]: r for r in found["groups"]}
    assert rows[group]["score"] > 0.7 and rows[group]["p_holm"] < 0.05


def test_finds_the_background(clean, store, tmp_path):
    root, rows = clean
    few = root, rows[: 6 * 2 * TAKES]  # the detector takes its time
    before, _ = findings(planted(few, tmp_path / "clean"), store, "mtcnn")
    after, _ = findings(planted(few, tmp_path / "wall", wall), store, "mtcnn")
    assert "background" not in before and "background" in after
    assert "faces" not in after and "duration" not in after


def drawn(rng, N):
    "A table of measures in which nothing is to be found"
    names = [c for some in GROUPS.values() for c in some]
    t = pd.DataFrame(rng.standard_normal((N, len(names))), columns=names)
    return t.assign(**{w: rng.choice(["a", "b"], N) for w in WORDS})


def test_level_on_drawn_measures():
    "Of 12 audits of nothing hardly one finds something (200 of them: benchmarks/audit.py)"
    who, labels = np.repeat(np.arange(6), 8), Labels(np.tile(np.arange(2), 24), ["a", "b"])
    wrong = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        own = drawn(rng, 6).iloc[who].reset_index(drop=True)
        table = drawn(rng, 48)
        numbers = [c for c in table if c not in WORDS]
        table[numbers] += own[numbers]
        q = question(labels, who.astype(str), permutations=399, seed=seed)
        rows = answers(table, q, desc=None, beside=False)
        wrong += any(r.get("p_holm", 1) < LEVEL for r in rows)
    assert wrong <= 3  # more happen in 2 of 1,000 such tests at a level of .05


def test_speakers_of_one_label_cannot_prove_much():
    "Four speakers, two classes: what tells the speakers apart tells the classes apart by chance"
    who = np.repeat(np.arange(4), 12)
    labels = Labels(np.array([0, 1, 0, 1])[who], ["a", "b"])
    X = np.array([0.0, 1.0, 0.1, 0.9])[who][:, None]
    found = audits.ask(question(labels, who.astype(str), permutations=199), X)
    assert found["score"] == 1 and found["p"] > 0.1


def test_few_measured_and_unlabelled_clips_are_counted(clean, store, tmp_path):
    m = planted(clean, tmp_path / "clean")
    (tmp_path / "clean" / "broken.mp4").write_bytes(b"no film")
    rows = m.clips.to_dict("records")
    rows[0]["label"] = "happy"
    broken = dict(clip="broken", label="calm", speaker="s9", audio="broken.mp4", video="broken.mp4")
    m = make_manifest("folder", tmp_path / "clean", [*rows, broken], ["calm", "happy"])
    _, found = findings(m, store)
    assert found["clips"] == len(rows) and sum(found["set_aside"].values()) == 1
    alone = make_manifest("folder", tmp_path / "clean", [broken], ["calm", "happy"])
    with pytest.raises(AvkitError, match="No clip of .* can be measured"):
        findings(alone, store)
    one = make_manifest("folder", tmp_path / "clean", rows[: 2 * TAKES], ["calm", "happy"])
    with pytest.raises(AvkitError, match="two speakers or more"):
        findings(one, store)


def test_asked_again_it_is_looked_up(clean, store, tmp_path, monkeypatch):
    m = planted(clean, tmp_path / "clean")
    first = findings(m, store)[1]

    def refuse(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr(audits, "circumstances", refuse)
    assert findings(m, store)[1] == first
    assert found_audit(m.data_hash, store) == brief(first)
    with pytest.raises(AssertionError, match="measured again"):
        audit(m, detector="none", permutations=9, store=store)


def test_a_split_gives_the_folds(clean, store, tmp_path):
    m = planted(clean, tmp_path / "clean")
    found = audit(m, "kfold4", "none", 99, store, n_jobs=1)
    assert (found["folds"], found["split"]) == (4, "kfold4")
    assert {r["group"] for r in found["groups"]} == {*GROUPS, ORDER, SPEAKER, STRICT, EVERYTHING}


FOUND = dict(
    data_hash="abc",
    rendered=False,
    metric="uar",
    names=["a", "b"],
    chance=0.5,
    groups=[
        dict(group="duration", measures=1, score=0.8, chance=0.5, p_holm=0.01),
        dict(group=STRICT, measures=1, score=0.75, chance=0.5, p_holm=0.02),
        dict(group=EVERYTHING, measures=2, score=0.9, chance=0.5, p_holm=0.01),
    ],
)


def test_a_line_for_every_report(tmp_path):
    kept = brief(FOUND)
    line = audit_line(dict(dataset="mine", data_hash="abc", audit=kept))
    assert "UAR .750 of 2 classes (chance .500, p = .020; with loudness .900)" in line
    assert line.endswith("by themselves: duration .800.")
    store = Store(tmp_path / "store")
    nothing = audit_line(dict(dataset="mine", data_hash="abc"), store)
    assert nothing.startswith("No audit was made") and "avkit audit --dataset mine" in nothing
    store.put(audits.audit_key("abc"), dict(none=np.zeros(0)), kept)
    assert audit_line(dict(dataset="mine", data_hash="abc"), store) == line


RECORD = dict(
    data_hash="abc", seed=1, config={}, recipe={}, dataset="folder", classes=["a", "b"],
    split=dict(name="kfold5"), metrics=dict(test=dict(audio=dict(uar=0.5))))  # fmt: skip


def test_keep_audit_writes_into_the_record_of_the_same_data(tmp_path, monkeypatch):
    write_json(tmp_path / "record.json", RECORD)
    monkeypatch.setattr(audits, "open_run", lambda run: SimpleNamespace(folder=tmp_path))
    with pytest.raises(AvkitError, match="The data have changed"):
        keep_audit(tmp_path, dict(data_hash="other"))
    keep_audit(tmp_path, FOUND)
    assert read_json(tmp_path / "record.json") == RECORD | dict(audit=brief(FOUND))
    write_json(tmp_path / "record.json", RECORD)
    keep_audit(tmp_path, FOUND | dict(rendered=True))
    assert read_json(tmp_path / "record.json") == RECORD
