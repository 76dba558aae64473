"A command starts itself again with an allocator that keeps memory, once, and its children do not"

import json
import os
import subprocess
import sys

import pytest

from avkit.numerics import allocator, keeping_variables

CODE = """
import json, os, sys
from avkit import cli

@cli.subcommand("Tests")
def train(argv=None):
    maps = open("/proc/self/maps").read()
    names = ["LD_PRELOAD", "MIMALLOC_PURGE_DELAY", "AVKIT_KEEPS"]
    print(json.dumps(dict(kept="mimalloc" in maps, argv=argv, pid=os.getpid(),
                          left=[n for n in names if n in os.environ])))

cli.main()
"""
pytestmark = pytest.mark.skipif(not allocator(), reason="mimalloc is not installed")


def started(folder, name, **environ):
    "What the command says of itself, and its process number"
    script = folder / name
    script.write_text(CODE)
    command = [sys.executable, "-X", "utf8", str(script), "train", "--lr", "1e-3"]
    env = {k: v for k, v in os.environ.items() if k not in ("LD_PRELOAD", "MIMALLOC_PURGE_DELAY")}
    p = subprocess.Popen(command, env=env | environ, stdout=subprocess.PIPE, text=True)
    return json.loads(p.communicate(timeout=60)[0]), p.pid


def test_the_command_keeps_memory_and_what_it_starts_does_not(tmp_path):
    told, pid = started(tmp_path, "avkit")
    assert told == dict(kept=True, argv=["--lr", "1e-3"], pid=pid, left=[])


@pytest.mark.parametrize("name, chosen", [("avkit", dict(MIMALLOC_PURGE_DELAY="")), ("mine", {})])
def test_who_has_chosen_and_other_programs_go_on_as_they_are(tmp_path, name, chosen):
    told, _ = started(tmp_path, name, **chosen)
    assert told["kept"] is False and told["left"] == list(chosen)


STEP = """
import avkit, hashlib, torch
from torch import nn
torch.manual_seed(0)
layers = nn.Conv2d(3, 58, 3, 2, 1), nn.BatchNorm2d(58), nn.ReLU(), nn.Conv2d(58, 58, 3, groups=58)
net = nn.Sequential(*layers)
for _ in range(2):
    net(torch.rand(8, 3, 224, 224)).square().mean().backward()
parts = [p.grad.numpy().tobytes() for p in net.parameters()]
told = hashlib.sha256(b"".join(parts)).hexdigest()
"""


def test_kept_memory_changes_no_bit():
    here = {}
    exec(STEP, here)
    keeps = keeping_variables({}, allocator())
    code = STEP + "print(told, 'mimalloc' in open('/proc/self/maps').read())"
    command = [sys.executable, "-c", code]
    out = subprocess.run(command, env=os.environ | keeps, capture_output=True, text=True).stdout
    assert out.split() == [here["told"], "True"]


def test_a_program_keeps_memory_where_it_is_asked_to():
    code = "print('mimalloc' in open('/proc/self/maps').read())"
    for asked in ["--keep_memory"], []:
        command = [sys.executable, "-m", "avkit", "env", *asked, sys.executable, "-c", code]
        assert subprocess.run(command, capture_output=True, text=True).stdout.split() == [
            str(bool(asked))
        ]


@pytest.mark.parametrize("chosen", [dict(LD_PRELOAD=""), dict(MIMALLOC_PURGE_DELAY="10")])
def test_asking_for_memory_that_cannot_be_kept_is_refused(chosen):
    command = [sys.executable, "-m", "avkit", "env", "--keep_memory", "true"]
    done = subprocess.run(command, env=os.environ | chosen, capture_output=True, text=True)
    assert done.returncode == 2 and next(iter(chosen)) in done.stderr
