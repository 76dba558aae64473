"""Every operation on a disk may fail, and every moment may be the last: a sentence, and a repeat
that ends like a run without faults."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

HERE = Path(__file__).parents[1] / "faults"
LONG = pytest.mark.skipif(not os.environ.get("AVKIT_FAULTS"), reason="minutes: AVKIT_FAULTS=1")


@pytest.fixture(scope="session")
def failing(tmp_path_factory):
    "A library that is loaded first, and lets operations fail"
    cc, lib = shutil.which("gcc") or shutil.which("cc"), tmp_path_factory.mktemp("c") / "failing.so"
    if not cc or sys.platform != "linux":
        pytest.skip("needs Linux and a C compiler")
    subprocess.run([cc, "-shared", "-fPIC", "-O1", HERE / "failing.c", "-o", lib], check=True)
    return lib


def trials(failing, folder, most, *scenarios):
    "What became of each operation that failed: lines of `faults/child.py`"
    env = os.environ | dict(LD_PRELOAD=str(failing), AVKIT_PROGRESS="0")
    flags = [sys.executable, HERE / "child.py", folder, "operations", str(most), *scenarios]
    r = subprocess.run(flags, env=env, capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    return [json.loads(line) for line in r.stdout.splitlines()]


@pytest.mark.parametrize(
    "most,scenarios",
    [
        (2, ["json_file", "store_put", "packed"]),
        pytest.param(1, ["train", "evaluate", "export"], marks=LONG),
    ],
)
def test_any_operation_may_fail(failing, tmp_path, most, scenarios):
    found = trials(failing, tmp_path, most, *scenarios)
    assert {t["scenario"] for t in found} == set(scenarios) and len(found) >= 3
    ends = {t["end"] for t in found}
    assert {"error", "killed"} <= ends <= {"error", "killed", "ok"}, found
    assert not [t for t in found if t["repeat"] or t["left"]]
    assert not [t for t in found if t["end"] == "error" and "Traceback" in t["said"]]


NAPS = """
import signal, sys, time
from avkit.core import command, parallel

def nap(folder, i):
    open(f"{folder}/{i}", "w").close()
    time.sleep(600)

@command
def main(argv):
    list(parallel(nap, [(argv[0], i) for i in range(4)], "naps", n_jobs=2))
    return 0

if __name__ == "__main__":  # what runs in the background may be told to ignore it
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    "number,status,group",
    [
        (signal.SIGINT, 130, True),
        (signal.SIGTERM, 143, False),
        (signal.SIGKILL, -9, False),
    ],
)
def test_workers_end_with_their_command(tmp_path, number, status, group):
    "However that is stopped; and it says so in one line"
    (tmp_path / "naps.py").write_text(NAPS)
    work = tmp_path / "work"
    work.mkdir()
    p = subprocess.Popen(
        [sys.executable, tmp_path / "naps.py", work],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | dict(AVKIT_PROGRESS="0"),
    )
    while len(list(work.iterdir())) < 2:
        assert p.poll() is None
        time.sleep(0.05)
    workers = psutil.Process(p.pid).children(recursive=True)
    (os.killpg if group else os.kill)(p.pid, number)
    said = p.communicate()[1]
    assert p.returncode == status and len(workers) >= 2
    assert status < 0 or said.strip().splitlines() == [
        "avkit: stopped. What was finished is kept: the same command goes on from there "
        "(training with --resume)."
    ]
    assert psutil.wait_procs(workers, timeout=60)[1] == []
