"""Memory that the C library keeps: the same bits, and fewer pages asked for."""

import subprocess, sys

CODE = """
import hashlib, resource, sys, torch
from avkit.devices import keep_memory
kept = sys.argv[1] == "kept" and keep_memory()
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Conv2d(3, 32, 3), torch.nn.BatchNorm2d(32), torch.nn.ReLU())
x = torch.rand(8, 3, 200, 200)

def step():
    net(x).square().mean().backward()

step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    step()
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
bits = b"".join(p.grad.numpy().tobytes() for p in net.parameters())
print(kept, faults, hashlib.sha256(bits).hexdigest())
"""


def trained(how: str) -> list[str]:
    "Was memory kept; pages asked for after the first step; the gradients' hash"
    command = [sys.executable, "-c", CODE, how]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def test_kept_memory_gives_the_same_bits_with_fewer_pages_asked_for():
    (_, usual, bits), (kept, fewer, same) = trained("usual"), trained("kept")
    assert bits == same
    assert kept == "False" or int(fewer) < int(usual) / 2, (usual, fewer)
