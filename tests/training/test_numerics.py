"""The same bits on other processors: with and without AVX-512, and on an emulated one."""

import ast
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import PAPERS

from avkit.numerics import cpuinfo, obstacle, portable_variables

CHILD = Path(__file__).parent / "numerics_child.py"
EMULATOR = "qemu-x86_64"
portable_here = pytest.mark.skipif(bool(obstacle()), reason=f"not portable here: {obstacle()}")


def run(command, **environ):
    "What a process prints that was not started by this one's numerics"
    ours = {*portable_variables(), "AVKIT_NUMERICS"}
    env = {k: v for k, v in os.environ.items() if k not in ours}
    r = subprocess.run(command, env=env | environ, capture_output=True, text=True)
    return r.stdout, r.stderr


def trained(*prefix):
    "{recipe: hashes of weights and answers}; where a process crashes, the rest gets a new one"
    told = {}
    while todo := [recipe for recipe in (*PAPERS, "wide") if recipe not in told]:
        out, err = run([*prefix, sys.executable, str(CHILD), "1", *todo])
        lines = [w for w in map(str.split, out.splitlines()) if len(w) == 3 and w[0] in todo]
        assert lines, f"{todo[0]}: {err[-2000:]}"
        told |= {recipe: hashes for recipe, *hashes in lines}
    return told


BITS = (
    "import avkit, hashlib, numpy as np, torch;"
    "a = np.random.default_rng(0).normal(size=(90, 90));"
    "x = torch.from_numpy(a).float();"
    "parts = [a @ a, np.exp(a), np.sin(a), np.linalg.svd(a)[1], (x @ x).numpy(),"
    " x.exp().numpy(), x.softmax(1).numpy(), torch.fft.rfft(x).numpy(),"
    " torch.nn.functional.conv1d(x[None], x[:, :, None]).numpy()];"
    "print(*[hashlib.sha256(p.tobytes()).hexdigest()[:9] for p in parts])"
)
SAY = "import json; from avkit.training.record import environment as e; print(json.dumps(e()))"


@pytest.fixture(scope="module")
def usual():
    "What a process prints that imports avkit first: its bits, then what it says of itself"
    out, err = run([sys.executable, "-c", f"{BITS}; {SAY}"])
    bits, said = out.splitlines()
    return bits, said, err


@portable_here
def test_capping_a_processor_further_changes_no_bit(usual):
    "What a user exported does not get through, and the caps change something"
    bits, *_ = usual
    zen, _ = run([sys.executable, "-c", BITS], OPENBLAS_CORETYPE="Zen", MKL_CBWR="AVX2")
    assert bits and bits == zen.strip()  # what a user exported does not get through
    fast, _ = run([sys.executable, "-c", BITS], AVKIT_NUMERICS="fast")
    if "avx512f" in cpuinfo("flags").split():
        assert fast.strip() != bits  # the caps do something here


@portable_here
@pytest.mark.parametrize("start", ["import avkit", "import numpy; import avkit"])
def test_what_a_record_says_of_numerics_is_true(start, usual):
    _, out, err = usual
    if "numpy" in start:
        out, err = run([sys.executable, "-c", f"{start}; {SAY}"])
    e = json.loads(out)
    late = "numpy" in start
    assert e["numerics"] == ("fast" if late else "portable")
    assert ("numpy came before avkit" in err) == late
    assert e["processor"] and e["kernels"]["torch"]
    if not late:
        assert (e["kernels"]["torch"], e["kernels"]["openblas"]) == ("AVX2", "Haswell")
        assert e["threads"] == 1


@portable_here
@pytest.mark.parametrize("how", [["-m", "avkit"], [str(Path(sys.executable).parent / "avkit")]])
def test_the_command_line_decides_before_torch_loads(how, tmp_path):
    hook = tmp_path / "sitecustomize.py"  # says what holds as NumPy or torch load, and ends there
    hook.write_text(
        "import os, sys\n"
        "class Loads:\n"
        "    def find_spec(self, name, *more):\n"
        "        if name in ('numpy', 'torch'):\n"
        "            holds = [os.environ.get(k) for k in ('AVKIT_NUMERICS', 'MKL_CBWR')]\n"
        "            print('->', *holds, flush=True)\n"
        "            os._exit(0)\n"
        "sys.meta_path.insert(0, Loads())\n"
    )
    where = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    usual, fast = ([], "-> portable COMPATIBLE"), (["--numerics", "fast"], "-> fast None")
    for flags, said in (usual, fast) if how[0] == "-m" else (fast,):  # both call one function
        out, err = run([sys.executable, *how, "train", *flags, "--help"], PYTHONPATH=where)
        assert said in out, out[-300:] + err


@portable_here
def test_an_emulated_processor_of_the_other_vendor_learns_the_same_weights():
    emulator = shutil.which(EMULATOR)
    if emulator is None:
        pytest.skip(f"no {EMULATOR} here: apt-get install qemu-user")
    other = "Haswell" if "AMD" in cpuinfo("vendor_id") else "EPYC-Rome"
    here, there = trained(), trained(emulator, "-cpu", other)
    assert here == there, f"{platform.processor()} and {other}"


ROOT = Path(__file__).parents[2]
RUNS = [p for folder in (".", "papers", "corpora") for p in (ROOT / "nbs" / folder).glob("*.ipynb")]
LOADS_NUMPY = {"numpy", "torch", "pandas", "matplotlib", "matplotlib_inline", "cv2", "seaborn"}


def imported(path):
    "The packages that a notebook's cells import, in their order"
    for c in json.loads(path.read_text())["cells"]:
        source = "".join(line for line in c["source"] if line.lstrip()[:1] not in ("%", "!"))
        for node in ast.walk(ast.parse(source)) if c["cell_type"] == "code" else ():
            if isinstance(node, ast.Import):
                yield from (a.name.split(".")[0] for a in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield (node.module or "").split(".")[0]


@pytest.mark.parametrize("path", sorted(RUNS), ids=lambda p: p.stem)
def test_a_notebook_that_is_run_imports_avkit_first(path):
    order = [p for p in imported(path) if p == "avkit" or p in LOADS_NUMPY]
    assert not order or order[0] == "avkit", order
