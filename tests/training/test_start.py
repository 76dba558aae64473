"""What a process loads: a run before its first step, and a browser of runs without a front end."""

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
from avkit.reports.browser import browse, live
assert not live()
print(len(browse(sys.argv[1])), "ipywidgets" in sys.modules)
"""


def test_a_step_loads_neither_the_compiler_nor_figures_nor_scores(tmp_path):
    "Nor does a browser of runs load widgets where no front end shows them"
    said = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path)], capture_output=True, text=True, check=True
    ).stdout.split()
    done, runs = said[:12], said[-2:]
    assert dict(zip(done[::2], done[1::2])) == dict.fromkeys(done[::2], "False"), done
    assert runs == ["0", "False"]
