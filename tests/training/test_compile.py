"A compiled model trains as the model itself, and has the same names."

import torch
from avkit.training.configure import configure
from avkit.training.learner import start, train_epoch
from helpers import config, toy


def test_compiled_or_not_the_run_is_the_same(tmp_path, monkeypatch):
    "The recipe averages its weights, too; graphs are run as they are, without a compiler of C++"
    seen, plain, states = [], torch.nn.Module.compile, []

    def compile_module(module):
        seen.append(type(module).__name__)
        return plain(module, backend="eager")

    monkeypatch.setattr(torch.nn.Module, "compile", compile_module)
    for more in {}, dict(compile=True):
        t = start(config("emotiw2023", tmp_path, **more), toy("emotiw2023"))
        train_epoch(t, 0)
        states.append(t.accelerator.unwrap_model(t.model).state_dict())
        states[-1] |= {f"ema.{k}": v for k, v in t.scored.state_dict().items()}
    assert seen == ["AVModel"] and t.ema
    assert list(states[0]) == list(states[1])
    for k, v in states[0].items():
        torch.testing.assert_close(v, states[1][k], rtol=1e-4, atol=1e-5)


def test_it_is_how_a_run_is_computed_not_what():
    assert configure(compile=True).hash == configure().hash
