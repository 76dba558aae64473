"""benchmarks/gpu.sh in an environment with nothing but what it asks for.

It is written for a machine with a GPU that nobody can look into, so here it runs at a tiny size.
"""

import importlib.metadata as metadata, importlib.util, json, os, re, subprocess, sys, time, types
import pytest
from avkit.core import repo_root

ASKED = (
    "torch torchvision timm transformers accelerate safetensors pandas scikit-learn seaborn"
    " tensorboard numpy"
).split()
BARE = """
import sys
ABSENT = set({absent!r})
class Bare:
    def __init__(self, finder): self.finder = finder
    def __getattr__(self, name): return getattr(self.finder, name)
    def find_spec(self, name, *more):
        return None if name.partition(".")[0] in ABSENT else self.finder.find_spec(name, *more)
sys.meta_path[:] = [Bare(f) for f in sys.meta_path]
"""


def plain(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def needed(names):
    "The distributions of these names, and what they need"
    todo, done = [plain(n) for n in names], set()
    while todo:
        name = todo.pop()
        if name in done:
            continue
        try:
            requires = metadata.distribution(name).requires or ()
        except metadata.PackageNotFoundError:
            continue
        done.add(name)
        plainly = [r for r in requires if "extra ==" not in r]
        todo += [plain(re.match(r"[\w.-]+", r)[0]) for r in plainly]
    return done


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    "The environment of a process that has these packages alone"
    keep, folder = needed(ASKED), tmp_path_factory.mktemp("bare")
    own = {m: set(map(plain, ds)) for m, ds in metadata.packages_distributions().items()}
    absent = sorted(m for m, ds in own.items() if not ds & keep and m != "avkit")
    assert {"av", "pooch", "papermill", "nbdev", "fastcore", "torchaudio"} <= set(absent)
    (folder / "sitecustomize.py").write_text(BARE.format(absent=absent))
    return os.environ | dict(PYTHONPATH=str(folder), PYTHON=sys.executable, OMP_NUM_THREADS="1")


@pytest.fixture(scope="module")
def gpu():
    "The script as a module"
    folder = repo_root() / "benchmarks"
    sys.path.insert(0, str(folder))
    try:
        spec = importlib.util.spec_from_file_location("gpu", folder / "gpu.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(folder))
        for name in "common", "frozen", "joint_attention", "training":
            sys.modules.pop(name, None)


def test_it_runs_with_nothing_but_what_it_asks_for(bare, tmp_path):
    some = ["ceilings", "waiting", "ratios", "scores"]
    ask = [repo_root() / "benchmarks/gpu.sh", "--device", "cpu", "--tiny", "--only", *some]
    ran = subprocess.run(ask, env=bare | dict(OUT=str(tmp_path)), capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    told = json.loads((tmp_path / "gpu.json").read_text())
    assert not told["failures"] and not told["left_out"]
    assert list(told["sections"]) == some
    tables = (tmp_path / "gpu.md").read_text()
    for section in told["sections"].values():
        assert section["rows"] and section["title"] in ran.stdout and section["title"] in tables
    assert ran.stdout.count(told["where"]) == len(some) and "torch 2." in told["where"]
    assert len(ran.stdout) < 12_000


def test_a_row_that_fails_is_told_and_the_next_goes_on(gpu, tmp_path, monkeypatch):
    monkeypatch.setenv("OUT", str(tmp_path))
    a = types.SimpleNamespace(device="cpu", tiny=True, seconds=60.0)
    report = gpu.Report(a)

    def wrong():
        raise ValueError("no such thing")

    def swallows():
        try:
            time.sleep(30)
        except Exception:
            pass

    rows = [("good", lambda: {"x": 1}), ("wrong", wrong), ("off", lambda: {"x": 2, "ok": "no"})]
    report.run("some", "Some", [*rows, ("next", lambda: [{"x": 3}, {"x": 4}])], 60)
    report.run("slow", "Slow", [("slow", swallows), ("after", lambda: {"x": 5})], 0.2)
    told = json.loads((tmp_path / "gpu.json").read_text())
    assert [r["x"] for r in told["sections"]["some"]["rows"]] == [1, 2, 3, 4]
    assert [f["row"] for f in told["failures"]] == ["wrong", "off"]
    assert "raise ValueError" in told["failures"][0]["traceback"]
    assert [x.partition(" (")[0] for x in told["left_out"]] == ["slow: slow", "slow: after"]
    assert not told["sections"]["slow"]["rows"]
    assert "no such thing" in (tmp_path / "gpu.md").read_text()
