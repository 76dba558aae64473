"""What many clips cost: work a clip does not grow with the number of clips. Calls are counted, and
where one call does the work of all clips, its processor time is compared with that of fewer."""

import cProfile
import pstats
import sys
from collections import Counter

import numpy as np
import pytest

from avkit.core import repo_root
from avkit.datasets.features import members_of
from avkit.store import Store
from avkit.training import frozen

FIRST, FEW, MANY = 40, 50, 200
STAGES = ("index", "index_again", "split", "fill", "look_up", "prepare", "pack", "pack_again")
OPENED = dict(look_up=4, prepare=2, pack_again=6)  # heads read a clip, of two streams


def calls(stage, home):
    "{function: how often it was called} in a stage"
    p = cProfile.Profile()
    p.runcall(stage, home)
    found = Counter()
    for (_, _, name), (_, n, *_) in pstats.Stats(p).stats.items():
        found[name] += n
    return found


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    "{clips: {stage: calls}} of stages of benchmarks/scale.py"
    sys.path.insert(0, str(repo_root() / "benchmarks"))
    import scale

    out = {}
    with pytest.MonkeyPatch.context() as patch:
        for n in (FIRST, FEW, MANY):  # the first one imports what is imported late
            home = tmp_path_factory.mktemp(f"clips{n}")
            patch.setenv("AVKIT_HOME", str(home / "home"))
            patch.setattr(scale, "A_SPEAKER", 5)
            scale.make(home, n)
            out[n] = {s: calls(scale.STAGES[s], home) for s in STAGES}
    sys.path.remove(str(repo_root() / "benchmarks"))
    return out


@pytest.mark.parametrize("stage", STAGES)
def test_calls_grow_with_clips_and_no_faster(counted, stage):
    few, many = (sum(counted[n][stage].values()) for n in (FEW, MANY))
    assert many / few < 1.05 * MANY / FEW


@pytest.mark.parametrize("stage", OPENED)
def test_an_entry_of_the_store_is_opened_so_often_a_clip(counted, stage):
    few, many = (counted[n][stage]["_opened"] for n in (FEW, MANY))
    assert many - few <= OPENED[stage] * (MANY - FEW)


def backbone_rows(n):
    "Rows of a frozen backbone, 8 at a time"
    make = frozen._rows(Store("nowhere"), [f"k{i}" for i in range(n)], 2)
    return [make(i, i + 8) for i in range(0, n, 8)]


def test_rows_of_a_backbone_look_at_each_entry_once(monkeypatch):
    "Where each block looked through all keys again, 2,000 would be looked at 250 times"
    seen = dict(get=0, shape=0)

    def looked(name, answer):
        def look(*_):
            seen[name] += 1
            return answer

        monkeypatch.setattr(Store, name, look)

    looked("get", None)
    looked("shape", [1, 2])
    assert len(backbone_rows(2000)) == 250
    assert seen["get"] == 2000 and 0 < seen["shape"] <= 2 * 2000


def test_members_are_found_as_by_search():
    x = np.random.default_rng(0).integers(0, 5, 50)
    assert {k: v.tolist() for k, v in members_of(x).items()} == {
        int(k): np.flatnonzero(x == k).tolist() for k in np.unique(x)
    }
