"""What runs the benchmarks, what makes their page, and what compares two commits."""

import importlib.util, json, random, subprocess, sys
import pytest
from avkit.core import repo_root

FOLDER = repo_root() / "benchmarks"
TOY = """
import argparse, json, sys, time
sys.path.insert(0, sys.path[0] + "/..")
from toy import WORK
p = argparse.ArgumentParser()
p.add_argument("--out")
times = []
for _ in range(5):
    t = time.process_time()
    sum(range(WORK))
    times.append(time.process_time() - t)
figures = [dict(name="sum", value=min(times))]
open(p.parse_args().out, "w").write(json.dumps(dict(figures=figures)))
"""


def imported(name):
    "A script as a module; other folders have modules of the same names"
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(FOLDER))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(FOLDER))
        sys.modules.pop("common", None)
    return module


@pytest.fixture(scope="module")
def runner():
    return imported("run")


@pytest.fixture(scope="module")
def comparison():
    return imported("compare")


# The runner


def test_every_script_says_what_it_asks_and_what_it_is_compared_to(runner):
    names = runner.scripts()
    assert {"mfcc", "faces", "memory", "gpu"} <= set(names) and "common" not in names
    assert set(runner.PLANS) <= set(names), "a plan without a script"
    for name in set(names) - {"gpu"}:
        said = runner.described(FOLDER / f"{name}.py")
        assert said["question"], name
        if name in runner.PLANS:
            assert "?" in said["question"] and said["compared_to"] and said["takes"], name


def test_its_own_page_is_what_its_results_say(runner):
    results = json.loads((FOLDER / "results.json").read_text(encoding="utf-8"))
    assert runner.page(results) in (FOLDER / "README.md").read_text(encoding="utf-8")
    assert not [n for n, r in results["scripts"].items() if r["state"] == "failed"]


SCRIPTS = {
    "good": """from common import *
a = arguments("").parse_args()
tell(a, {"Title": [dict(x=1.5)]}, [figure("it", 3.0, "s", "that", 2.0)], "here", ["a note"])""",
    "plain": "print('Plain\\n\\n| a | b |\\n|---|---|\\n| 1 | 2 |')",
    "wrong": "print('| a |\\n|---|\\n| 1 |'); raise ValueError('no such thing')",
    "needs": "import no_such_package",
    "empty": "print('nothing')",
    "endless": "while True: pass",
}


def test_a_script_that_fails_is_told_and_the_others_go_on(runner, tmp_path, monkeypatch, capsys):
    for name, code in SCRIPTS.items():
        where = f"import sys; sys.path.insert(0, {str(FOLDER)!r})\n"
        (tmp_path / f"{name}.py").write_text(f'"Is it {name}?"\n{where}{code}')
    monkeypatch.setattr(runner, "HERE", tmp_path)
    monkeypatch.setattr(runner, "PLANS", {"endless": runner.Plan(limit=0.3)})
    monkeypatch.setattr(runner, "scripts", lambda: list(SCRIPTS))
    assert runner.main(["--to", str(tmp_path / "to")]) == 1
    told = json.loads((tmp_path / "to/results.json").read_text())
    states = {n: (r["state"], r["why"]) for n, r in told["scripts"].items()}
    assert states == {
        "good": ("done", ""),
        "plain": ("done", ""),
        "wrong": ("failed", "exit status 1: ValueError: no such thing"),
        "needs": ("left out", "it needs the package no_such_package"),
        "empty": ("failed", "it printed no table"),
        "endless": ("failed", "it was stopped at its limit, 0.3 s of processor time"),
    }
    plain = dict(title="Plain", rows=[dict(a="1", b="2")])
    assert told["scripts"]["plain"]["tables"] == [plain]
    assert told["scripts"]["good"]["figures"][0]["ratio"] == 2
    text = (tmp_path / "to/README.md").read_text()
    assert text == runner.page(told) + "\n"
    assert told["seconds"] > 0 and told["machine"]["processor"] in text
    printed = capsys.readouterr().out
    for part in "Is it good?", "a note", "| 1.5 |", "no such thing", "Is it endless?":
        assert part in text and part in printed


def test_what_stands_outside_the_marks_stays(runner, tmp_path):
    results = dict(machine=runner.machine(), asked=["slow", "slower"], scripts={})
    (tmp_path / "README.md").write_text(f"Before\n{runner.BEGIN}\nold\n{runner.END}\nAfter\n")
    runner.write(results, tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert text == f"Before\n{runner.page(results)}\nAfter\n" and "old" not in text
    assert "stopped before: slow, slower." in text


# The comparison of two commits


def test_the_interval_holds_the_median_as_often_as_it_says(comparison):
    rng = random.Random(0)
    for n in 8, 12, 30:
        drawn = [comparison.interval([rng.lognormvariate(0, 1) for _ in range(n)])
                 for _ in range(4000)]  # fmt: skip
        held = sum(low <= 1 <= high for low, high in drawn) / len(drawn)
        assert held > 0.985, (n, held)
    low, high = comparison.interval([float(i) for i in range(30)])
    assert 0 < low and high < 29, "of many, not all are in the interval"


@pytest.mark.parametrize(
    "ratios,least,told",
    [
        ([1.2, 1.1, 1.3, 1.2, 1.1, 1.2, 1.3, 1.1], 0.05, "slower"),
        ([0.8, 0.9, 0.7, 0.8, 0.9, 0.8, 0.7, 0.9], 0.05, "faster"),
        ([1.2, 1.1, 1.3, 1.2, 0.9, 1.2, 1.3, 1.1], 0.05, "no change"),  # one pair says otherwise
        ([1.02] * 8, 0.05, "no change"),  # less than what counts
        ([1.02] * 8, 0.01, "slower"),
        ([1.5] * 4, 0.05, "no change"),  # too few to be sure
    ],
)
def test_verdict(comparison, ratios, least, told):
    assert comparison.verdict(ratios, least) == told


def test_a_part_that_one_commit_lacks(comparison):
    pairs = [(dict(a=1.0, b=1.0), dict(a=1.0, c=1.0))] * 8
    rows = comparison.compared(pairs, 0.05)
    assert [r["is"] for r in rows] == ["no change", "HEAD cannot", "BASE cannot"]


@pytest.fixture
def toy(tmp_path):
    "A repository of two commits, the second twice as slow, and a script that measures it"
    repository, scripts = tmp_path / "repository", tmp_path / "scripts"
    scripts.mkdir()
    (scripts / "toy_bench.py").write_text(TOY)
    git = lambda *what: subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *what],
        cwd=repository, check=True, capture_output=True)  # fmt: skip
    repository.mkdir()
    git("init", "-q")
    for work in 200_000, 400_000:
        (repository / "toy.py").write_text(f"WORK = {work}\n")
        git("add", ".")
        git("commit", "-q", "-m", str(work))
    return repository, scripts / "toy_bench.py"


@pytest.mark.parametrize(
    "base,head,status,told",
    [("HEAD", "HEAD", 0, "no change"), ("HEAD~1", "HEAD", 1, "slower")],
)
def test_two_commits(comparison, toy, tmp_path, capsys, base, head, status, told):
    repository, script = toy
    out = tmp_path / "rows.json"
    flags = ["--repository", str(repository), "--script", str(script), "--out", str(out)]
    assert comparison.main([base, head, *flags]) == status
    rows = json.loads(out.read_text())["rows"]
    assert [(r["benchmark"], r["is"]) for r in rows] == [("sum", told)]
    assert set(rows[0]) == {"benchmark", "HEAD / BASE", "interval", "is"}, "no time is told"
    trees = subprocess.run(["git", "worktree", "list"], cwd=repository, capture_output=True)
    assert len(trees.stdout.splitlines()) == 1, "a checkout was left behind"
    with pytest.raises(SystemExit) as e:
        comparison.main(["no-such-commit", *flags])
    assert e.value.code == 2 and "no-such-commit" in capsys.readouterr().err


def test_what_measures_another_avkit_is_refused(comparison, tmp_path, capsys):
    (tmp_path / "benchmarks").mkdir()
    code = """import json, sys
open(sys.argv[2], "w").write(json.dumps(dict(root="/elsewhere", figures=[])))"""
    (tmp_path / "benchmarks/lost.py").write_text(code)
    with pytest.raises(SystemExit) as e:
        comparison.measured(tmp_path, "lost.py", [])
    assert e.value.code == 2 and "/elsewhere" in capsys.readouterr().err


def test_a_whole_run_keeps_what_was_measured_alone_on_this_machine(runner, tmp_path):
    here = dict(processor="one", cores=2, torch="2.11.0")
    long = next(n for n, p in runner.PLANS.items() if p.alone and n != "gpu")
    short = next(n for n, p in runner.PLANS.items() if not p.alone)
    again, left = dict(state="done", again="then"), dict(state="left out")
    for scripts, kept in [({long: again, short: again}, {long: again}), ({long: left}, {})]:
        told = json.dumps(dict(machine=here, scripts=scripts))
        (tmp_path / "results.json").write_text(told)
        assert runner.kept_results(tmp_path, here) == kept
        assert runner.kept_results(tmp_path, here | dict(cores=4)) == {}
    assert runner.kept_results(tmp_path / "nothing", here) == {}
