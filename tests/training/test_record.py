"""Which changes of the code make a finished run stale: by rule, over every module of avkit."""

import ast
import functools
import os
import shutil
from pathlib import Path

import pytest

from avkit.core import read_json
from avkit.datasets.registry import CORPORA
from avkit.training import grid, record
from avkit.training.record import code_hash, NO_RUN, package_folder, TABLES

RAN_ON = "ravdess"
MODULES = sorted(p.relative_to(package_folder()).as_posix() for p in package_folder().rglob("*.py"))


def makes_runs(module: str) -> bool:
    "The rule, in other words than the code's"
    room, _, rest = module.partition("/")
    if module in (*TABLES, NO_RUN) or module.endswith("__init__.py"):
        return False
    if not rest:
        return room in ("numerics.py", "core.py", "store.py", "files.py")
    if room == "datasets" and Path(rest).stem in CORPORA:
        return Path(rest).stem == RAN_ON
    return room in ("preprocessing", "datasets", "models", "training")


@pytest.fixture(scope="module")
def copied(tmp_path_factory) -> Path:
    "A copy of the package"
    return shutil.copytree(package_folder(), tmp_path_factory.mktemp("copy") / "avkit")


@pytest.fixture(scope="module")
def usual(copied) -> str:
    "The hash of the copy as it is"
    return hash_now(copied)


def hash_now(folder: Path, dataset: str = RAN_ON) -> str:
    "The hash of the code as it is at this moment"
    return code_hash.__wrapped__(dataset, folder)


def while_changed(folder: Path, module: str, change, then):
    "What `then()` gives while a module is changed"
    path = folder / module
    before = path.read_text(encoding="utf-8")
    path.write_text(change(before), encoding="utf-8")
    try:
        return then()
    finally:
        path.write_text(before, encoding="utf-8")


def hash_after(folder: Path, module: str, change) -> str:
    "The code's hash while a module is changed"
    return while_changed(folder, module, change, lambda: hash_now(folder))


def hash_after_all(folder: Path, modules: list[str], change) -> str:
    "The code's hash while modules are changed"
    if not modules:
        return hash_now(folder)
    first, *rest = modules
    return while_changed(folder, first, change, lambda: hash_after_all(folder, rest, change))


def another_line(source: str) -> str:
    return source + "\nCHANGED = 1\n"


@functools.cache
def other_words(source: str) -> str:
    "Other docstrings, comments and layout"
    tree = ast.parse(source)
    for n in ast.walk(tree):
        if not isinstance(n, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            continue
        if ast.get_docstring(n) is not None:
            n.body[0].value.value = "In other words"
    return f"# A comment\n\n{ast.unparse(tree)}\n\n# Another\n"


def test_the_copy_has_the_hash_of_the_package(copied):
    assert hash_now(copied) == code_hash(RAN_ON)


def test_the_code_is_parsed_once_for_all_processes(copied, monkeypatch):
    first = hash_now(copied)
    monkeypatch.setattr(record, "without_docstrings", lambda source: 1 / 0)
    assert hash_now(copied) == first
    with pytest.raises(ZeroDivisionError):
        hash_after(copied, "training/metrics.py", lambda source: f"{source}\nNOT_PARSED = 1\n")


@pytest.mark.parametrize("module", [m for m in MODULES if makes_runs(m)])
def test_a_changed_line_makes_a_run_stale_where_runs_are_made(copied, usual, module):
    assert hash_after(copied, module, another_line) != usual


def test_a_changed_line_elsewhere_does_not(copied, usual):
    "In all other modules at once: if one counted, the hash would be another"
    others = [m for m in MODULES if not makes_runs(m)]
    assert hash_after_all(copied, others, another_line) == usual


def test_the_rule_says_yes_and_no():
    yes = {m for m in MODULES if makes_runs(m)}
    assert {"numerics.py", "core.py", "store.py", "training/learner.py"} <= yes
    assert "training/metrics.py" in yes
    assert {"preprocessing/faces.py", "datasets/ravdess.py", "models/fusion.py"} <= yes
    no = set(MODULES) - yes
    assert {"evaluation/figures.py", "evaluation/evaluate.py", "reports/tables.py", "cli.py"} <= no
    assert {"datasets/crema_d.py", "datasets/folder.py", "training/recipes.py"} <= no


def test_other_words_do_not(copied, usual):
    "In all modules at once"
    for module in MODULES:
        source = (copied / module).read_text(encoding="utf-8")
        assert other_words(source) != source, module
    assert hash_after_all(copied, MODULES, other_words) == usual


def test_a_changed_loss_is_other_code_and_another_docstring_is_not(copied):
    loss, docstring = "return each.sum() / w.sum()", '"The mean loss of the labelled outputs'
    source = (copied / "training/metrics.py").read_text(encoding="utf-8")
    assert loss in source and docstring in source
    twice, told = (
        hash_after(copied, "training/metrics.py", lambda s, old=old, new=new: s.replace(old, new))
        for old, new in ((loss, f"return 2 * {loss[7:]}"), (docstring, '"In other words'))
    )
    assert twice != hash_now(copied) and told == hash_now(copied)


@pytest.mark.parametrize("name", CORPORA)
def test_a_data_set_counts_for_itself_alone(copied, name):
    before = {n: hash_now(copied, n) for n in CORPORA}
    now = while_changed(
        copied,
        f"datasets/{name}.py",
        another_line,
        lambda: {n: hash_now(copied, n) for n in CORPORA},
    )
    assert [n for n in CORPORA if now[n] != before[n]] == [name]


def test_a_finished_run_is_done_again_after_a_changed_loss_alone(
    toy_corpus,
    tmp_path,
    copied,
    monkeypatch,
):
    configs = grid.combine(to=tmp_path / "runs", **toy_corpus, epochs=1)
    monkeypatch.setattr(record, "code_hash", lambda name: hash_now(copied, name))

    def status(module="training/metrics.py", change=lambda source: source) -> str:
        run = lambda: grid.run_grid(configs, n_jobs=1).status[0]
        return while_changed(copied, module, change, run)

    assert status() == "done"
    assert status(change=other_words) == "cached"
    for module in ("evaluation/figures.py", "reports/tables.py", "datasets/crema_d.py"):
        assert status(module, another_line) == "cached"
    assert status(change=another_line) == "done"
    assert read_json(configs[0].run_dir / "record.json")["code_hash"] != code_hash(RAN_ON)


def test_what_a_killed_process_noted_is_swept(tmp_path, monkeypatch):
    from avkit.training.record import noted

    monkeypatch.setenv("AVKIT_HOME", str(tmp_path))
    assert noted("a", lambda: "text") == "text"
    (folder,) = {p.parent for p in tmp_path.rglob("a")}
    (folder / ".tmp-somewhere").mkdir()
    os.utime(folder / ".tmp-somewhere", (0, 0))
    assert noted("a", lambda: "other") == "text"
    assert [p.name for p in folder.iterdir()] == ["a"]
