"What blocks compute may be let go and computed again: not a bit of a training differs"

import pytest
import torch

from avkit.core import AvkitError
from avkit.models.recompute import stacked_blocks
from avkit.training.configure import configure
from avkit.training.learner import start, train_epoch
from helpers import config, toy

TRUNK = dict(encoder_options=dict(pictures=dict(trunk="resnet18_small")))


def trained(folder, **more):
    "Everything that two epochs leave in a model and in its average, and the blocks that let go"
    t = start(config("ntua2021", folder, options=TRUNK, **more), toy("ntua2021"))
    for epoch in range(2):
        train_epoch(t, epoch)
    model = t.accelerator.unwrap_model(t.model)
    states = dict(model=model.state_dict(), average=t.scored.state_dict())
    found = {f"{k} {n}": x for k, state in states.items() for n, x in state.items()}
    return found, [b for b in model.modules() if "forward" in vars(b)]


def test_blocks_that_compute_twice_give_the_same_bits(tmp_path):
    plain, none = trained(tmp_path)
    again, blocks = trained(tmp_path, recompute=True)
    assert not none and len(blocks) == 12  # four blocks in each of three views
    assert list(plain) == list(again)
    different = [k for k in plain if not torch.equal(plain[k], again[k])]
    assert not different
    assert any(k.endswith("running_mean") for k in plain)


def test_a_step_keeps_less(tmp_path):
    kept = []
    for recompute in False, True:
        cfg = config("ntua2021", tmp_path, options=TRUNK, recompute=recompute)
        t, data = start(cfg, toy("ntua2021")), {}
        net = next(m for m in t.model.modules() if len(stacked_blocks(m)) == 4)

        def hold(x, data=data):
            data[x.data_ptr()] = x.nbytes
            return x

        with torch.autograd.graph.saved_tensors_hooks(hold, lambda x: x):
            net.train()(torch.rand(4, 3, 64, 64))
        kept.append(sum(data.values()))
    assert kept[1] < 0.7 * kept[0]


def test_it_is_how_a_run_is_computed_not_what():
    assert configure(recompute=True).hash == configure().hash
    with pytest.raises(AvkitError, match="Leave one of the two out"):
        configure(recompute=True, compile=True)
