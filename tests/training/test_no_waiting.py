"""No epoch asks the device for a number.

Every recipe trains on PyTorch's device `meta`, which holds shapes alone: whoever reads a number
there gets an error. Each copy to it says that nobody waits, as a GPU's must.
"""

import pytest, torch
from torch.utils._python_dispatch import TorchDispatchMode
from avkit.datasets import batches
from avkit.devices import known
from avkit.training import learner
from avkit.training.checkpoint import make_model
from avkit.training.distributed import accelerator
from helpers import PAPERS, config, toy

META = torch.device("meta")


class NobodyWaits(TorchDispatchMode):
    "Notes every copy between devices for which the processor would wait"

    def __init__(self):
        super().__init__()
        self.waited, self.copies = [], 0

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        to = kwargs.get("device")
        given = [a for a in args if torch.is_tensor(a)]
        if to is not None and given and given[0].device.type != torch.device(to).type:
            self.copies += 1
            if not kwargs.get("non_blocking"):
                self.waited.append(f"{op} {tuple(given[0].shape)} to {to}")
        return op(*args, **kwargs)


@pytest.fixture
def on_meta(monkeypatch):
    "Starts a run whose device is meta"

    def begin(cfg, corpus):
        acc = accelerator(cfg)
        monkeypatch.setattr(type(acc), "device", property(lambda self: META))
        return learner.start(cfg, corpus, make_model(cfg, corpus.data).to(META), acc)

    return begin


def steps_of_an_epoch(t, monkeypatch):
    "Runs an epoch up to its last line, the only one that may ask; returns what it waited for"
    done = []
    step = learner.train_step

    def counted(*args):
        sums = step(*args)
        done.append(sums)
        return sums

    monkeypatch.setattr(learner, "train_step", counted)
    with NobodyWaits() as mode, pytest.raises((RuntimeError, NotImplementedError)) as e:
        learner.train_epoch(t, 0)
    last = e.traceback[-1] if "avkit" in str(e.traceback[-1].path) else e.traceback[1]
    assert "total.tolist()" in str(last.statement), str(e.getrepr(style="short"))
    order = learner.train_order(t.cfg, t.reads.data, 0)
    assert len(done) == len(order) * len(learner.parts_of(t.cfg))
    assert mode.copies > 1 and mode.waited.pop() == "aten._to_copy.default (3,) to cpu"  # tolist
    return mode.waited


CASES = {name: (name, {}) for name in PAPERS} | dict(
    unpaired=("vavl2023", dict(unpaired=True)),
    noise=("chumachenko2022", dict(modality_dropout="noise")),
    softhard=("chumachenko2022", dict(modality_dropout="softhard")),
    mixup=("emotiw2023", dict(options={"mixup": 0.4})),
    mixed_numbers=("jca2023", dict(options={"mixup": 0.4})),
)


def padded(case):
    "A recipe's random clips, of different lengths where its networks leave padding out"
    corpus = toy(CASES[case][0])
    for s in corpus.data.streams.values():
        if case in ("vavl2023", "ntua2021", "jca2023", "unpaired") or s.mask.shape[1] > 14:
            s.mask[1::2, -1:] = False
    if case == "unpaired":
        corpus.data.audio.mask[2] = False
        corpus.data.video.mask[3] = False
    return corpus


@pytest.mark.parametrize("case", CASES)
def test_an_epoch_asks_for_nothing(case, tmp_path, on_meta, monkeypatch):
    recipe, more = CASES[case]
    t = on_meta(config(recipe, tmp_path, **more), padded(case))
    if case == "noise":  # is drawn on the device, and meta has no generators
        monkeypatch.setattr(learner, "generators", lambda *args: None)
    assert steps_of_an_epoch(t, monkeypatch) == []


@pytest.mark.parametrize("case", ["vavl2023", "ntua2021", "unpaired", "softhard"])
def test_what_is_known_of_a_batch_changes_no_bit(case, tmp_path, monkeypatch):
    "On a CPU with copies of all masks, as a GPU has them, and without"
    recipe, more = CASES[case]
    weights = []
    for copies in (False, True):
        if copies:
            for module in (batches, learner):
                monkeypatch.setattr(module, "known", lambda x, host: known(x, host.clone()))
        t = learner.start(config(recipe, tmp_path, **more), padded(case))
        learner.train_epoch(t, 0)
        weights.append(t.model.state_dict())
    assert all(torch.equal(v, weights[1][k]) for k, v in weights[0].items())


def test_whoever_waits_is_seen(tmp_path, on_meta, monkeypatch):
    "The tests above can fail: of a mask, of a copy"
    t = on_meta(config("vavl2023", tmp_path), toy("vavl2023"))
    rows = learner.to_device
    monkeypatch.setattr(learner, "to_device", lambda x, device: x.to(device))
    assert steps_of_an_epoch(t, monkeypatch)
    monkeypatch.setattr(learner, "to_device", rows)
    monkeypatch.setattr(learner, "known", lambda x, host: x)
    with pytest.raises(AssertionError, match="total.tolist"):
        steps_of_an_epoch(t, monkeypatch)
