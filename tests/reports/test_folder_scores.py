"""From one's own folder to a score with an interval."""

import itertools
import json
from dataclasses import fields

import matplotlib
import numpy as np
import pandas as pd
import pytest

from avkit.core import repo_root
from avkit.datasets.folder import index
from avkit.preprocessing.writing import write_wav
from avkit.reports.own_data import OwnData, own_config, own_folds, own_runs
from avkit.training.loading import open_manifest

matplotlib.use("agg")
PEOPLE = ["anna", "ben", "carla", "dan", "eva", "finn"]


def code_cells():
    "The notebook's code, and whether it is the parameters"
    cells = json.loads((repo_root() / "nbs/own_data.ipynb").read_text())["cells"]
    code = [c for c in cells if c["cell_type"] == "code"]
    return [("".join(c["source"]), "parameters" in c["metadata"].get("tags", [])) for c in code]


def own_folder(root, people=PEOPLE, name="{label}/{who}/a.wav"):
    "A high tone is happy, a low one sad"
    for i, (who, label) in enumerate(itertools.product(people, ["happy", "sad"])):
        path = root / name.format(who=who, label=label)
        path.parent.mkdir(parents=True, exist_ok=True)
        t = np.arange(8000) / 8000
        hz = dict(happy=1500, sad=200)[label] + i
        write_wav(path, (0.3 * np.sin(2 * np.pi * hz * t)).astype(np.float32), 8000)
    return root


def test_papermill_knows_every_parameter():
    "It passes over a line with = in its comment"
    cell = next(source for source, tagged in code_cells() if tagged)
    assert not [line for line in cell.splitlines() if "=" in line.partition("#")[2]]


def test_parameters_are_those_of_the_notebook():
    scope = {}
    exec(next(source for source, tagged in code_cells() if tagged), scope)
    given = {k: v for k, v in scope.items() if not k.startswith("_")}
    assert given == {f.name: f.default for f in fields(OwnData)}


def table(root, columns, row):
    "Labels of the clips of `own_folder` in a table"
    lines = [f"file,label,speaker,{columns}"]
    for i, (who, label) in enumerate(itertools.product(PEOPLE, ["happy", "sad"])):
        lines.append(f"{label}/{who}/a.wav,{label},{who},{row(i // 2)}")
    (root / "labels.csv").write_text("\n".join(lines))


@pytest.mark.parametrize("people,folds", [(6, 5), (5, 5), (4, 4), (3, 3)])
def test_every_person_is_tested_once(tmp_path, people, folds):
    p = OwnData(str(own_folder(tmp_path / "data", PEOPLE[:people])))
    cfg = own_config(p)
    runs = own_runs(p, cfg, open_manifest(cfg))
    assert [(c["split"], c["fold"]) for c in runs] == [(f"kfold{folds}", i) for i in range(folds)]
    assert {c["modality"] for c in runs} == {"audio"}


def test_the_folders_own_subsets_and_folds_count(tmp_path):
    own_folder(tmp_path)
    table(tmp_path, "split", lambda i: ["train", "train", "train", "val", "test", "test"][i])
    assert own_folds(index(tmp_path)) == ("official", [0])
    table(tmp_path, "fold", lambda i: i // 2)
    assert own_folds(index(tmp_path)) == ("folds", [0, 1, 2])
    assert own_folds(index(tmp_path), "kfold3") == ("kfold3", [0, 1, 2])


def test_the_notebook_ends_with_an_interval(tmp_path):
    data = own_folder(tmp_path / "data")
    one, other = (data / f"{label}/finn/a.wav" for label in ("happy", "sad"))
    swapped = other.read_bytes(), one.read_bytes()  # one who sounds the other way round
    for path, x in zip((one, other), swapped):
        path.write_bytes(x)
    own = dict(data_root=str(data), epochs=1, device="cpu", n_jobs=1)
    own |= dict(runs=str(tmp_path / "runs"), report=str(tmp_path / "report"), split="kfold3")
    scope = {}
    for source, tagged in code_cells():
        exec(source, scope)
        if tagged:
            scope.update(own)
    assert (scope["done"].status == "done").all() and len(scope["done"]) == 3
    row = pd.read_csv(tmp_path / "report/table.csv").iloc[0]
    assert row.units == 6 and 0 <= row.low <= row.pooled <= row.high <= 1
    drawn = {p.name for p in (tmp_path / "report").glob("*.png")}
    assert {"people.png", "answers.png"} <= drawn
