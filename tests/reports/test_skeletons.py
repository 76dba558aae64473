"Skeletons: what a newcomer starts from runs, is listed, and stands where it belongs."
import importlib.util
import json
import re
import shutil
import tomllib

import pytest

from avkit.cli import main
from avkit.core import AvkitError, repo_root
from avkit.datasets import manifest
from avkit.reports import skeletons
from avkit.training import recipes
from avkit.training.configure import configure
from avkit.training.settings import COMMON

NOTEBOOKS = ("3_models/05_fusion", "4_training/02_recipes", "6_reports/04_papers")


@pytest.fixture
def clone(tmp_path):
    "The clone's notebooks and facts, to write into"
    here, there = repo_root(), tmp_path / "clone"
    for folder in ("nbs/2_datasets", "data_manifests"):
        shutil.copytree(here / folder, there / folder)
    for name in NOTEBOOKS:
        to = there / f"nbs/{name}.ipynb"
        to.parent.mkdir(parents=True)
        shutil.copy(here / f"nbs/{name}.ipynb", to)
    shutil.copy(here / "settings.ini", there)
    return there


def cells(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def sources(path):
    return ["".join(c["source"]) for c in cells(path)]


def test_a_new_data_set_is_listed_exported_and_runs(clone, tmp_path, monkeypatch):
    said = skeletons.new("dataset", "dance", clone)
    notebook, = (clone / "nbs/2_datasets").glob("*_dance.ipynb")
    numbers = sorted(int(p.name[:2]) for p in notebook.parent.glob("[0-9][0-9]_*.ipynb"))
    assert numbers == list(range(len(numbers))) and notebook.name in said and "make export" in said
    monkeypatch.setattr(manifest, "manifests_dir", lambda: clone / "data_manifests")
    assert manifest.corpus_info("dance")["classes"] == ["happy", "sad"]
    from nbdev.export import nb_export
    nb_export(str(notebook), lib_path=str(tmp_path / "avkit"))
    spec = importlib.util.spec_from_file_location("dance", tmp_path / "avkit/datasets/dance.py")
    text = (tmp_path / "avkit/datasets/dance.py").read_text().replace("from ..", "from avkit.")
    text = text.replace("from .", "from avkit.datasets.")
    (tmp_path / "avkit/datasets/dance.py").write_text(text)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.raises(AvkitError, match="write `plan` in .*_dance.ipynb"): module.plan()
    with pytest.raises(AvkitError, match="is not a folder. Ask its owners"):
        module.index("/no/such/folder")
    (tmp_path / "clips").mkdir()
    with pytest.raises(AvkitError, match="no clip"): module.index(tmp_path / "clips")
    (tmp_path / "clips/01_happy_1.mp4").write_bytes(b"x")
    with pytest.raises(AvkitError, match="write `parse`"): module.index(tmp_path / "clips")
    monkeypatch.setattr(module, "parse", lambda stem: dict(label="happy", speaker="01"))
    assert len(module.index(tmp_path / "clips")) == 1


def test_its_notebook_runs_as_it_is(clone, monkeypatch):
    skeletons.new("dataset", "dance", clone)
    monkeypatch.setattr(manifest, "manifests_dir", lambda: clone / "data_manifests")
    notebook, = (clone / "nbs/2_datasets").glob("*_dance.ipynb")
    scope = {}
    for c in cells(notebook):
        source = "".join(c["source"])
        if c["cell_type"] == "code" and "default_exp" not in source: exec(source, scope)
    assert scope["SAMPLE"]


def test_every_key_of_the_facts_is_told(clone):
    skeletons.new("dataset", "dance", clone)
    text = (clone / "data_manifests/dance.toml").read_text()
    for path in (repo_root() / "data_manifests").glob("*.toml"):
        for key, value in tomllib.loads(path.read_text(encoding="utf-8")).items():
            table = isinstance(value, dict) or key == "download"
            assert re.search(rf"^(# )?\[+{key}\b" if table else rf"^(# )?{key} = ", text, re.M), key


@pytest.mark.parametrize("kind", skeletons.MAKERS)
def test_names_that_cannot_be(kind, clone):
    before = {p: p.read_bytes() for p in clone.rglob("*") if p.is_file()}
    for bad in ("", "My", "a-b", "class", "../a", "2x"):
        with pytest.raises(AvkitError, match="cannot be a name"): skeletons.new(kind, bad, clone)
    taken = dict(dataset="ravdess", fusion="gate", paper="jca2023")[kind]
    if kind == "fusion":
        skeletons.new(kind, taken, clone)
        before = {p: p.read_bytes() for p in clone.rglob("*") if p.is_file()}
    with pytest.raises(AvkitError, match="overwrite data_manifests/ravdess.toml|exists already"):
        skeletons.new(kind, taken, clone)
    assert before == {p: p.read_bytes() for p in clone.rglob("*") if p.is_file()}


def test_cells_stand_behind_their_like(clone):
    skeletons.new("fusion", "gate", clone)
    skeletons.new("paper", "someone2030", clone)
    entries, studies = (sources(clone / f"nbs/{n}.ipynb") for n in NOTEBOOKS[1:])
    at = next(i for i, s in enumerate(entries) if 'RECIPES["someone2030"] =' in s)
    assert not any(re.search(r'^RECIPES\["\w+"\] =', s, re.M) for s in entries[at + 1:])
    assert any(re.search(r'^RECIPES\["\w+"\] =', s, re.M) for s in entries[:at])
    at = next(i for i, s in enumerate(studies) if 'STUDIES["someone2030"] =' in s)
    assert not any(re.search(r'^STUDIES\["\w+"\] =', s, re.M) for s in studies[at + 1:])
    assert sum('@fusion("gate")' in s for s in sources(clone / f"nbs/{NOTEBOOKS[0]}.ipynb")) == 1
    for name in NOTEBOOKS:
        ids = [c["id"] for c in cells(clone / f"nbs/{name}.ipynb")]
        assert len(ids) == len(set(ids))


def test_a_new_recipe_is_a_config(clone):
    skeletons.new("paper", "someone2030", clone)
    cells = sources(clone / f"nbs/{NOTEBOOKS[1]}.ipynb")
    code = next(s for s in cells if 'RECIPES["someone2030"] =' in s)
    exec(code, dict(RECIPES=recipes.RECIPES, COMMON=COMMON))
    try: assert configure(recipe="someone2030")["fusion"] == "concat"
    finally: del recipes.RECIPES["someone2030"]


def test_the_header_of_what_was_reported_is_as_it_is_told(clone):
    header = (repo_root() / "data_manifests/reported.csv").read_text().splitlines()[0]
    assert header == skeletons.REPORTED and header in skeletons.new("paper", "someone2030", clone)


def test_outside_a_clone(monkeypatch, capsys):
    monkeypatch.setattr(skeletons, "repo_root", lambda: None)
    assert main(["new", "dataset", "dance"]) == 2
    error = capsys.readouterr().err
    assert "avkit new needs the clone" in error and error.count("\n") == 1
