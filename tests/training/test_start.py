"""What a run loads before its first step."""

import subprocess, sys

CODE = """
import sys, torch
from avkit.training.configure import configure
from avkit.training.distributed import accelerator, prepared, unwrapped
from avkit.training.learner import make_optimizer
for optimizer in ("sgd", "adam", "adamw"):
    cfg = configure(device="cpu", optimizer=optimizer)
    acc, net = accelerator(cfg), torch.nn.Linear(2, 2)
    model, steps = prepared(acc, net, make_optimizer(cfg, net))
    model(torch.ones(1, 2)).sum().backward()
    steps.step()
    steps.zero_grad()
    steps.load_state_dict(steps.state_dict())
    unwrapped(acc, model)
for heavy in ("torch._dynamo", "sympy", "torchvision", "sklearn", "seaborn", "matplotlib"):
    print(heavy, heavy in sys.modules)
"""


def test_a_step_loads_neither_the_compiler_nor_figures_nor_scores():
    done = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, check=True
    ).stdout.split()
    assert dict(zip(done[::2], done[1::2])) == dict.fromkeys(done[::2], "False"), done
