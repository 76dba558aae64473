"""Checkpoints of random weights as the papers' authors save them: names, shapes, and what else is
in their files."""

import json
import math
import pathlib
from collections import OrderedDict

import numpy as np
import torch

from avkit.models.conformer import sinusoids


def shapes(shared_data, name, key):
    "{name: shape} of a released layout"
    d = json.loads((shared_data / f"released_layouts/{name}.json").read_text())
    d = d[key] if key else d
    return {k: () if v == "scalar" else tuple(int(n) for n in v.split("x")) for k, v in d.items()}


def random_state(shapes, seed=0):
    "Random weights of these shapes, scaled so that what goes in keeps its size; variances positive"
    g = torch.Generator().manual_seed(seed)
    out = {}
    for k, s in shapes.items():
        x = torch.randn(s, generator=g) * (1 / math.sqrt(math.prod(s[1:])) if len(s) > 1 else 0.1)
        out[k] = (
            torch.zeros((), dtype=torch.int64)
            if k.endswith("num_batches_tracked")
            else x.abs() + 0.5
            if k.endswith("running_var")
            else x + (len(s) == 1 and k.endswith("weight"))
        )
    return out


class ConfigParser:
    "What the ntua2021 trainer leaves in its files"

    def __init__(self):
        self.folder, self.ran = pathlib.PosixPath("/somewhere"), False

    def __setstate__(self, state):
        raise RuntimeError("executed")


def vavl_folder(shared_data, folder, n_out=6):
    "Random files of the released layout; {part: state dict}"
    layout, out = (
        json.loads((shared_data / "released_layouts/vavl2023-as_released.json").read_text()),
        {},
    )
    for i, (f, s) in enumerate((f, s) for f, s in layout.items() if f.endswith(".pt")):
        sizes = {
            k: (1, 16, 512)
            if k.endswith(".pe")
            else ()
            if v == "scalar"
            else tuple(map(int, v.split("x")))
            for k, v in s.items()
        }
        if "rec" not in f:
            sizes |= {k: (n_out, *v[1:]) for k, v in sizes.items() if k.startswith("out_layer")}
        state = random_state(sizes, i)
        state |= {k: sinusoids(torch.arange(16), 512)[None] for k in state if k.endswith(".pe")}
        torch.save(state, folder / f)
        out[f.removeprefix("final_").removesuffix("_head.pt")] = state
    return out


def save_emotiw(path, state):
    "What emotiw2023's trainer saves"
    more = dict(epoch=1, best_metric=0.7, optimizer_state_dict={})
    torch.save(dict(model_state_dict=state, **more), path)


def save_ntua(path, state):
    "What ntua2021's trainer saves: scores are NumPy's, and there is a config object"
    more = dict(arch="resnet50_rnn", epoch=2, optimizer={}, monitor_best=np.float64(0.4))
    torch.save(dict(state_dict=OrderedDict(state), config=ConfigParser(), **more), path)
