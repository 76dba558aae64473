"""The store: keys, what is damaged, what two processes make at once."""

import multiprocessing
import os

import numpy as np
import pytest
import torch

from avkit.core import AvkitError, cache_dir, content_key
from avkit.store import Store, is_packed, pack


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def test_the_default_is_in_the_cache():
    assert Store().root == cache_dir("store") and Store().sweep() == 0


def test_a_result_stands_under_its_key(store):
    key = content_key("clip")
    path = store.put(key, dict(x=np.arange(6).reshape(2, 3), y=torch.zeros(0, 4)))
    assert path == store.root / key[:2] / f"{key}.safetensors" and path.is_file()
    tensors, meta = store.get(key)
    assert tensors["x"].tolist() == [[0, 1, 2], [3, 4, 5]] and meta == {}
    assert tensors["y"].shape == (0, 4) and store.shape(key, "y") == [0, 4]
    assert store.length(key, "x") == 2 and store.length("00" * 32, "x") is None


def test_only_some_tensors(store):
    store.put("ab" * 32, dict(x=torch.ones(1), y=torch.ones(2)), dict(note="ä"))
    assert list(store.get("ab" * 32, ["y"])[0]) == ["y"]
    assert store.get("ab" * 32, []) == ({}, dict(note="ä"))


def test_a_slice_is_written_as_it_reads(store):
    x = torch.arange(12).reshape(3, 4)
    store.put("cd" * 32, dict(x=x.T, y=x[:, 1]))  # not contiguous
    tensors, _ = store.get("cd" * 32)
    assert torch.equal(tensors["x"], x.T) and torch.equal(tensors["y"], x[:, 1])


def test_a_put_that_fails_leaves_nothing(store):
    with pytest.raises(TypeError):
        store.put("ef" * 32, dict(x=torch.ones(1)), dict(bad=object()))
    assert not store.has("ef" * 32) and not list(store.root.rglob("*.safetensors"))


def numbered(i, j):
    return dict(x=torch.arange(i, j), y=torch.arange(i, j).repeat(3, 1).T.float())


def pack_it(root):
    pack(Store(root), "same", 10, numbered, None)


def test_another_process_makes_the_same_pack_meanwhile(store):
    fork = multiprocessing.get_context("fork")

    def slowly(i, j):
        other = fork.Process(target=pack_it, args=(store.root,))
        other.start()
        other.join()
        return numbered(i, j)

    assert pack(store, "same", 10, slowly, None)["x"].tolist() == list(range(10))
    assert os.listdir(store.root / "packed") == ["same"]


def test_a_pack_is_mapped_and_not_written_to(store):
    first = pack(store, "k", 4, numbered, None)
    assert first["y"].shape == (4, 3) and is_packed(store, "k")
    first["x"][0] = 99  # in memory alone
    assert pack(store, "k", 4, numbered, None)["x"].tolist() == [0, 1, 2, 3]


def test_a_full_disk_leaves_no_pack(store, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("avkit.store._fill", full)
    with pytest.raises(AvkitError, match="Disk full"):
        pack(store, "k", 4, numbered, None)
    assert not is_packed(store, "k") and os.listdir(store.root / "packed") == []
