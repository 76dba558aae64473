"Skeletons: what a newcomer starts from runs, is listed, and stands where it belongs."
import ast
import importlib
import json
import re
import shutil
import sys
import tomllib
from dataclasses import asdict, replace

import pytest

import avkit.datasets
from avkit.cli import main
from avkit.core import AvkitError, repo_root
from avkit.datasets import manifest
from avkit.datasets import registry
from avkit.datasets.registry import open_dataset
from avkit.reports import claims, papers, skeletons
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


def code_lines(source):
    "How many lines of code a text has: without blank lines, comments and docstrings"
    prose = set()
    for n in ast.walk(ast.parse(source)):
        if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant):
            prose |= set(range(n.lineno, n.end_lineno + 1))
    lines = enumerate(source.splitlines(), 1)
    return sum(i not in prose and bool(s.strip()) and s.strip()[0] != "#" for i, s in lines)


def test_code_lines():
    source = '"of no use"\n\n# nor this\ndef f():\n    """two\n    lines"""\n    return 1  # one\n'
    assert code_lines(source) == 2


@pytest.mark.parametrize("kind,name", [("dataset", "mine"), ("fusion", "sum"),
                                       ("recipe", "mine2025"), ("study", "mine2025"),
                                       ("claim", "mine2025")])
def test_contributing_shows_what_a_skeleton_writes(kind, name):
    page = (repo_root() / "CONTRIBUTING.md").read_text(encoding="utf-8")
    fences = re.findall(r"^```python\n(.*?)\n```$", page, re.M | re.S)
    assert skeletons.block_of(kind, name) in fences


def test_each_takes_fifteen_lines_of_code():
    lines = {k: code_lines(skeletons.block_of(k, "mine")) for k in skeletons.BLOCKS}
    assert lines["dataset"] <= 15 and lines["fusion"] <= 15
    assert lines["recipe"] + lines["study"] <= 15 and lines["claim"] <= 6


@pytest.mark.parametrize("notebook,kind,name", [("2_datasets/19_registry", "dataset", "toy"),
                                                ("3_models/05_fusion", "fusion", "sum")])
def test_the_notebook_shows_the_same_block(notebook, kind, name):
    plain = lambda text: [l for l in text.splitlines() if l.strip()]
    block = plain(skeletons.block_of(kind, name))
    for source in sources(repo_root() / f"nbs/{notebook}.ipynb"):
        lines = plain(source)
        at = lines.index(block[0]) if block[0] in lines else 0
        if lines[at:at + len(block)] == block: return
    pytest.fail(f"no cell of {notebook} shows the block of {kind}")


def test_a_new_data_set_is_listed_exported_and_runs(clone, tmp_path, monkeypatch):
    pytest.importorskip("cv2")
    said = skeletons.new("dataset", "dance", clone)
    notebook, = (clone / "nbs/2_datasets").glob("*_dance.ipynb")
    numbers = sorted(int(p.name[:2]) for p in notebook.parent.glob("[0-9][0-9]_*.ipynb"))
    assert numbers[-1] == int(notebook.name[:2]) and len(set(numbers)) == len(numbers)
    assert notebook.name in said and "make export" in said
    monkeypatch.setattr(manifest, "manifests_dir", lambda: clone / "data_manifests")
    assert manifest.corpus_info("dance")["classes"] == ["happy", "sad"]
    from nbdev.export import nb_export
    nb_export(str(notebook), lib_path=str(tmp_path / "avkit"))
    path = tmp_path / "avkit/datasets/dance.py"
    text = path.read_text().replace("from ..", "from avkit.").replace("from .", "from avkit.datasets.")
    path.write_text(text)
    body = re.sub(r"^# %%.*$", "", text, flags=re.M)
    lines = lambda t: [l for l in t.splitlines() if l.strip()]
    assert lines(body)[-len(lines(skeletons.block_of("dataset", "dance"))):] == lines(
        skeletons.block_of("dataset", "dance"))
    monkeypatch.setattr(avkit.datasets, "__path__", [*avkit.datasets.__path__, str(path.parent)])
    importlib.invalidate_caches()
    try:
        registry.corpus_module("dance").SAMPLE = dict(speakers=2, takes=1)
        m = open_dataset("dance", "sample")
        assert len(m) == 8 and not len(m.problems) and m.notes["rendered"]
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine/anna_sad_x.mp4").write_bytes(b"no video")
        (tmp_path / "mine/anna.mp4").write_bytes(b"no video")
        own = open_dataset("dance", tmp_path / "mine")
        assert own.clips[["label", "speaker"]].values.tolist() == [["sad", "anna"]]
        assert own.problems.file.tolist() == ["anna.mp4"]
        with pytest.raises(AvkitError, match="is not a folder. Ask its owners"):
            open_dataset("dance", "/no/such/folder")
    finally: sys.modules.pop("avkit.datasets.dance", None)


@pytest.mark.parametrize("kind,name", [("dataset", "dance"), ("fusion", "gate")])
def test_its_notebook_runs_as_it_is(kind, name, clone, monkeypatch):
    pytest.importorskip("cv2")
    skeletons.new(kind, name, clone)
    monkeypatch.setattr(manifest, "manifests_dir", lambda: clone / "data_manifests")
    folder, number = ("2_datasets", "*_dance") if kind == "dataset" else ("3_models", "05_fusion")
    notebook, = (clone / f"nbs/{folder}").glob(f"{number}.ipynb")
    scope = {}
    for c in cells(notebook):
        source = "".join(c["source"])
        if c["cell_type"] == "code" and "default_exp" not in source: exec(source, scope)
    if kind == "fusion":
        assert scope["FUSIONS"]["gate"].__name__ == "Gate" and "gate" in scope["acts"]


@pytest.mark.parametrize("name,made", [("tensor", "TensorFusion"), ("exception", "ExceptionFusion"),
                                       ("bottleneck", "BottleneckFusion"), ("gate", "Gate")])
def test_the_class_of_a_fusion_takes_no_name_that_is_taken(name, made, clone):
    notebook = clone / "nbs/3_models/05_fusion.ipynb"
    assert {"Any", "nn", "Tensor", "AvkitError", "zero_padding"} <= skeletons._taken(notebook)
    skeletons.new("fusion", name, clone)
    added = [s for s in sources(notebook) if f'@fusion("{name}")\n' in s]
    assert [re.findall(r"^class (\w+)", s, re.M) for s in added] == [[made]]


@pytest.mark.parametrize("name", ["ravdess", "folder", "vgaf"])
def test_the_notebook_of_a_data_set_is_as_those_there_are(name):
    "The same code, but for what a data set's own notebook does otherwise"
    codes = lambda book: ["".join(c["source"]) for c in book["cells"] if c["cell_type"] == "code"]
    made = json.loads(skeletons.corpus_notebook_text(name))
    there = json.loads((repo_root() / f"nbs/corpora/{name}.ipynb").read_text(encoding="utf-8"))
    other = [(a, b) for a, b in zip(codes(made), codes(there), strict=True) if a != b]
    assert all("detector: str" in a or "views=" in b for a, b in other) and len(other) <= 2
    assert [c for c in made["cells"] if c["metadata"]] == [
        c | dict(id=c["id"]) for c in made["cells"] if "data_root: str" in "".join(c["source"])]


def test_choices_are_parameters_of_the_notebook():
    text = skeletons.corpus_notebook_text("crema_d")
    assert 'label: str = \\"intended\\"     # intended, consensus' in text
    assert "data_root, label=label, annotations=annotations)" in text


def test_the_facts_list_what_classes_may_mean(clone):
    skeletons.new("dataset", "dance", clone)
    text = (clone / "data_manifests/dance.toml").read_text()
    assert "# anger, disgust, fear, happiness, negative, neutral, positive, sadness, surprise" in text


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
    for name in ("product", "gate"): skeletons.new("fusion", name, clone)
    for name in ("first2030", "someone2030"): skeletons.new("paper", name, clone)
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


def test_a_new_paper_runs_as_it_is(clone, monkeypatch):
    "Each cell behind those it needs: the small size after `_FAST`; its rows are told apart"
    skeletons.new("paper", "someone2030", clone)
    monkeypatch.setattr(manifest, "manifests_dir", lambda: clone / "data_manifests")
    monkeypatch.setattr(papers, "manifests_dir", lambda: clone / "data_manifests")
    texts = sources(clone / f"nbs/{NOTEBOOKS[1]}.ipynb")
    place = lambda pattern: [i for i, s in enumerate(texts) if re.search(pattern, s, re.M)]
    small, = place(r'^RECIPES\["someone2030"\]\["small"\] =')
    assert place("^_FAST =")[0] < small and place(r'^RECIPES\["someone2030"\] =')[0] < small
    scope = dict(RECIPES=recipes.RECIPES, COMMON=COMMON, _FAST=recipes._FAST)
    studies = dict(STUDIES=papers.STUDIES, Study=papers.Study, CLASSES=papers.CLASSES)
    try:
        exec(skeletons.block_of("recipe", "someone2030"), scope)
        exec(skeletons.block_of("study", "someone2030"), studies)
        assert configure(recipe="someone2030")["fusion"] == "gmu"
        runs = papers.study("someone2030", papers.Protocol())
        assert len(runs) == 2 and {c["size"] for c in runs} == {"small"}
        shown = papers.reported("someone2030", papers.dataset_of(papers.study_of("someone2030")))
        assert shown.value.isna().all() and shown.source.ne("").all()
        rows = {papers.method_of(dict(config=asdict(c.settings), recipe=c.recipe)) for c in runs}
        assert set(shown.method) <= rows and shown.given.tolist() == ["av"]
        assert papers.study_of("someone2030").title == "What it does (authors, where, year)"
        rows, = re.findall(r"^\*\*Rows\.\*\* (.*)$", papers.paper_prose("someone2030"), re.M)
        assert rows == "`gmu`, `concat`."
    finally:
        del recipes.RECIPES["someone2030"]
        papers.STUDIES.pop("someone2030", None)


def test_the_claim_is_trained_in_its_worlds(monkeypatch, tmp_path):
    "The worlds of CONTRIBUTING.md's claim are of shapes that the recipe reads"
    scope = dict(RECIPES=recipes.RECIPES, COMMON=COMMON, _FAST=recipes._FAST)
    mine: dict = vars(claims) | dict(WORLDS={}, CLAIMS=[])
    try:
        exec(skeletons.block_of("recipe", "mine2025"), scope)
        exec(skeletons.block_of("claim", "mine2025"), mine)
        assert set(mine["WORLDS"]) == {"mine2025_moments", "mine2025_everywhere"}
        for name, world in mine["WORLDS"].items(): monkeypatch.setitem(claims.WORLDS, name, world)
        claim, = mine["CLAIMS"]
        assert {t.control for t in claim.trials} == {True, False}
        runs = list(claims.runs_of([claim]).values())
        assert len(runs) == 4
        r = claims.claim_run(runs[0], 0, tmp_path, clips=(16, 8, 8), epochs=1)
        assert r["recipe_name"] == "mine2025" and set(r["test"]) == {"av", "audio", "video"}
    finally: del recipes.RECIPES["mine2025"]


@pytest.mark.parametrize("data,said", [
    (dict(dataset="crema_d"), 'no default for `label`, .*: label="intended" or label="consensus"'),
    (dict(dataset="affwild2", track="vaa"), 'no default for `track`, .*: track="va" or track="expr"'),
    (dict(dataset="crema"), "did you mean 'crema_d'"),
])
def test_a_study_that_leaves_a_choice_open_is_told_at_once(data, said, monkeypatch):
    mine = replace(papers.STUDIES["emotiw2023"], data=data)
    monkeypatch.setitem(papers.STUDIES, "mine2025", mine)
    with pytest.raises(AvkitError, match=said): papers.study_of("mine2025")
    with pytest.raises(AvkitError, match=said): papers.paper_notebook_text("mine2025")


def test_the_header_of_what_was_reported_is_as_it_is_told(clone):
    header = (repo_root() / "data_manifests/reported.csv").read_text().splitlines()[0]
    assert header == skeletons.REPORTED and header in skeletons.new("paper", "someone2030", clone)


def test_outside_a_clone(monkeypatch, capsys):
    monkeypatch.setattr(skeletons, "repo_root", lambda: None)
    assert main(["new", "dataset", "dance"]) == 2
    error = capsys.readouterr().err
    assert "avkit new needs the clone" in error and error.count("\n") == 1
