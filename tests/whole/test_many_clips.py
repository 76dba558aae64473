"""What is done for each clip is done once, and does not grow with the others: counted, no clock."""

import sys
from collections import Counter
from pathlib import Path

import numpy as np, pandas as pd, pytest, torch
from avkit import files, store as stores
from avkit.datasets.corruptions import corrupt
from avkit.datasets.feature_files import match_features
from avkit.datasets.folder import index
from avkit.evaluation.statistics import tallies
from avkit.preprocessing import prepare as preparing
from avkit.preprocessing.prepare import Preparation, stream_key
from avkit.store import Store
from avkit.training.configure import configure
from avkit.training.loading import preparation_of, read_clips, split_manifest


class Name(str):
    "A name that counts how often it is compared"

    compared = 0

    def __eq__(self, other: object) -> bool:
        Name.compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


@pytest.mark.parametrize("there", [True, False])
def test_names_of_features_are_looked_up(there: bool) -> None:
    "Each name is compared with few others, also where none is found as it is"
    n, folder = 400, "" if there else "elsewhere/"
    clips = [Name(f"anna/c{i}") for i in range(n)]
    named = [Name(f"{folder}c{i}") for i in range(n // 2, n + n // 2)]
    Name.compared = 0
    found, left = match_features("own.csv", "folder", named, clips, [()] * n)
    assert sum(k is not None for k in found) == len(left) == n // 2
    assert Name.compared < 20 * n


def test_answers_are_counted_without_a_table_for_each_speaker(monkeypatch) -> None:
    n, calls = 300, []
    real = pd.Series.map
    monkeypatch.setattr(pd.Series, "map", lambda s, *a, **k: calls.append(1) or real(s, *a, **k))
    names = np.resize(["a", "b", "b"], n)
    p = pd.DataFrame(dict(clip=[f"c{i}" for i in range(n)], target=names, prediction=names[::-1]))
    for speakers in (1, 100):
        calls.clear()
        of = {c: f"s{i % speakers}" for i, c in enumerate(p["clip"])}
        found = tallies(p, ["a", "b"], of)
        assert len(found) == speakers and sum(t.sum() for t in found.values()) == n
        assert len(calls) == 3  # clips to speakers, truths and answers to numbers


@pytest.mark.parametrize("condition, drawn", [("audio", 0), ("video_shift_1", 0),
                                              ("audio_lost_30", 8), ("audio_noise_3dB", 8)])
def test_a_clip_has_a_generator_where_something_is_drawn(condition, drawn, monkeypatch) -> None:
    made, real = [], torch.Generator
    monkeypatch.setattr(torch, "Generator", lambda: made.append(real()) or made[-1])
    x, mask = torch.rand(8, 5, 3), torch.ones(8, 5, dtype=torch.bool)
    batch = dict(audio=x, audio_mask=mask, video=x, video_mask=mask)
    corrupt(batch, condition, [f"c{i}" for i in range(8)], seconds=[5.0] * 8)
    assert len(made) == drawn


def test_settings_of_a_preparation_are_spelled_once(tmp_path) -> None:
    prep, hashes = Preparation(), dict(audio_sha256="1", video_sha256="1")
    stream_key(dict(video="a.mp4", audio="a.mp4") | hashes, "video", prep)
    assert prep.video is prep.video and prep.audio is prep.audio


def test_frames_of_the_asked_size_need_no_torchvision(tmp_path, monkeypatch) -> None:
    from avkit.datasets.features import video_stream

    monkeypatch.setitem(sys.modules, "torchvision.transforms.v2.functional", None)
    store, frames = Store(tmp_path), np.zeros((2, 3, 8, 8), np.uint8)
    store.put("ab", dict(face=frames), {})
    assert video_stream(store, ["ab"], 8).x.shape == (1, 2, 3, 8, 8)
    with pytest.raises(ImportError):
        video_stream(store, ["ab"], 4)


def counted(monkeypatch, module, name: str) -> Counter:
    "How often a function is called, by its first argument, from now on"
    calls, real = Counter(), getattr(module, name)
    monkeypatch.setattr(module, name, lambda *a, **k: calls.update([str(a[0])]) or real(*a, **k))
    return calls


def full_store(root: Path, n: int, window: float | None = 0.2):
    "Settings, manifest and store of `n` clips in folders of two, all of them prepared"
    lines = ["audio,video,label,speaker"]
    for i in range(n):
        who = f"p{i // 2}"
        (root / who).mkdir(parents=True, exist_ok=True)
        for suffix in ("wav", "png"): (root / who / f"{i}.{suffix}").write_text(f"{suffix} {i}")
        lines.append(f"{who}/{i}.wav,{who}/{i}.png,{('happy', 'sad')[i % 2]},{who}")
    (root / "labels.csv").write_text("\n".join(lines))
    cfg = configure(dataset="folder", data_root=str(root), split="kfold3", n_jobs=1, options=dict(
        preparation=dict(window=window, rate=8000, frames=2, size=8), video_size=8,
        audio_settings=dict(n_mfcc=4, n_fft=256, hop=128)))  # fmt: skip
    m, store = split_manifest(cfg), Store(root.parent / "store")
    for r in m.clips.to_dict("records"):
        audio, video = (str(stream_key(r, s, preparation_of(cfg, m))) for s in ("audio", "video"))
        store.put(audio, dict(sound=np.linspace(-1, 1, 1600, dtype=np.float32)), {})
        store.put(video, dict(face=np.zeros((2, 3, 8, 8), np.uint8)), dict(faces=2))
    return cfg, m, store


@pytest.mark.parametrize("window", [0.2, None])
def test_a_start_lists_folders_opens_entries_and_makes_keys_once(
    window, tmp_path, monkeypatch
) -> None:
    cfg, m, store = full_store(tmp_path / "data", 12, window)
    read_clips(cfg, m, store, verbose=False)  # packs
    listed = counted(monkeypatch, files, "_entries")
    opened = counted(monkeypatch, stores, "safe_open")
    keys = counted(monkeypatch, preparing, "content_key")
    corpus = read_clips(cfg, split_manifest(cfg), store, verbose=False)
    assert [set(calls.values()) for calls in (listed, opened)] == [{1}, {1}]
    assert len(corpus.data) == 12 and len(opened) == sum(keys.values()) == 24


def test_folders_of_classes_are_listed_for_files_and_for_clips(tmp_path, monkeypatch) -> None:
    for k in range(4):
        for name in ("happy", "sad"):
            (tmp_path / name / f"p{k}").mkdir(parents=True)
            (tmp_path / name / f"p{k}/{name}.wav").write_text(f"{name} {k}")
    listed = counted(monkeypatch, files, "_entries")
    assert len(index(tmp_path)) == 8 and set(listed.values()) == {2}


@pytest.mark.parametrize("stream", ["audio", "video"])
def test_a_start_sees_what_became_of_the_store(stream, tmp_path) -> None:
    "What an earlier start found there counts for that one alone"
    cfg, m, store = full_store(tmp_path / "data", 12)
    key = str(stream_key(dict(m.clips.iloc[5]), stream, preparation_of(cfg, m)))
    path, read = store.path(key), lambda: read_clips(cfg, m, store, verbose=False)
    whole = path.read_bytes()
    for bad in (path.unlink, lambda: path.write_bytes(whole[:20])):
        assert len(read().data) == 12
        bad()
        less = read()
        assert list(less.set_aside["clip"]) == [m.clips["clip"][5]] and len(less.data) == 11
        path.write_bytes(whole)
