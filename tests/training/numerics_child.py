"""Train each recipe for a few steps, and print the hashes of its weights and of what it answers.

    python numerics_child.py THREADS RECIPE...   (`wide`: the layers of a large network)

One process for several recipes: an emulated processor imports torch for half a minute. It runs on
any processor, also on an emulated one. Under qemu 7.2 an LSTM and `grid_sample` end in a
segmentation fault: GRUs stand in for LSTMs, and frames are not rotated.
"""

import hashlib
import sys
import tempfile
from pathlib import Path

import avkit  # noqa: F401 before torch

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers import config, toy

from avkit.products import widen
from avkit.training.learner import start, train_epoch
from avkit.training.inference import outputs

torch.nn.LSTM = torch.nn.GRU  # what the emulator cannot run, here and there alike


def digest(tensors):
    "The first digits of a hash of tensors' bytes"
    h = hashlib.sha256()
    for x in tensors:
        h.update(x.detach().contiguous().numpy().tobytes())
    return h.hexdigest()[:16]


def trained(recipe):
    "(hash of the weights, hash of the answers to the test clips) after one epoch"
    corpus = toy(recipe)
    with tempfile.TemporaryDirectory() as d:
        cfg = config(recipe, d, options={"flip_rotate": 0.0})
        t = start(cfg, corpus)
        train_epoch(t, 0)
        t.model.eval()
        answers = outputs(cfg, t.model, corpus.data, "test", "av", "cpu")["out"]
    return digest(t.model.state_dict().values()), digest([answers])


def wide():
    "(hash of the weights, hash of the answers) after two steps of two wide layers, in ragged sizes"
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(1024, 769), nn.GELU(), nn.Linear(769, 800))
    assert widen(net) == 2
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for rows in 257, 33:
        optimizer.zero_grad()
        net(torch.randn(rows, 1024)).square().mean().backward()
        optimizer.step()
    with torch.no_grad():
        answers = net(torch.randn(3, 50, 1024))
    return digest(net.state_dict().values()), digest([answers])


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]))
    for recipe in sys.argv[2:]:
        print(recipe, *(wide() if recipe == "wide" else trained(recipe)), flush=True)
