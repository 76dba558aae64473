"""Names that somebody else chose, from files to a report: a small data set whose classes, people and
files are called what tables, figures and pages call something else, or what does something there."""

import csv
import html.parser
import io
import json
import re

import numpy as np
import pandas as pd
import pytest

from avkit.cli import main
from avkit.markup import answer_columns
from helpers import few_pixels

NAMES = [
    "$x_{$",
    "prediction",
    "target",
    "condition",
    "split",
    "<img src=x onerror=alert(1)>",
    "=cmd|' C calc'!A0",
    "+1",
    "@SUM(1)",
    "a\nb",
    "\\frac{",
    "50%",
    "R&D",
    "`c`",
    "\u202egnp",
    "e" * 120,
    "\U0001f600",
    "clip",
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    "The folder of a run on such data, reported, evaluated and exported"
    from avkit.preprocessing.writing import write_wav

    top, rng = tmp_path_factory.mktemp("odd"), np.random.default_rng(0)
    people = ["=1+1", "speaker", "<b>P</b>"]
    rows = []
    for i, label in enumerate(NAMES * 3):
        folder = top / "data"
        name = f"{['=x', '<i>', 'a|b', '$y$'][i % 4]} {i}.wav"
        folder.mkdir(exist_ok=True)
        write_wav(folder / name, (rng.standard_normal(4000) * 0.1).astype(np.float32), 8000)
        rows.append((name, label, people[i // len(NAMES)]))
    pd.DataFrame(rows, columns=["file", "label", "speaker"]).to_csv(top / "labels.csv", index=False)
    flags = ["--dataset=folder", f"--data_root={top}/data", f"--annotations={top}/labels.csv"]
    run = f"{top}/run"
    page = [f"--html={top}/page.html", f"--to={top}/manifest.csv"]
    assert main(["index", *flags, *page]) == 0
    train = ["train", *flags, "--recipe=demo", "--modality=audio", "--split=kfold3", "--epochs=1"]
    assert main([*train, "--n_jobs=1", "--device=cpu", f"--run_dir={run}"]) == 0
    title = "<script>alert(1)</script> | =1+1 $x$"
    with pytest.MonkeyPatch.context() as monkeypatch:
        few_pixels(monkeypatch)
        assert main(["report", run, f"--to={top}/report", f"--title={title}"]) == 0
    assert main(["evaluate", f"--run={run}", "--conditions=audio_noise", "--device=cpu"]) == 0
    assert main(["leaderboard", str(top), f"--to={top}/board", f"--title={title}"]) == 0
    return top


def test_predictions_have_a_column_for_each_class(made):
    from avkit.evaluation.runs import open_run

    run = open_run(made / "run")
    t, columns = run.predictions, answer_columns(run.classes)
    assert sorted(run.classes) == sorted(NAMES) and list(t.columns[6:]) == columns
    assert len(set(t.columns)) == len(t.columns)
    changed = {n for n, c in zip(run.classes, columns) if n != c}
    assert changed == {"prediction", "target", "condition", "split", "clip"}
    p = t[columns].to_numpy(float)
    assert np.allclose(p.sum(1), 1, atol=1e-4)
    assert [run.classes[i] for i in p.argmax(1)] == t.prediction.tolist()
    truth = pd.read_csv(made / "labels.csv", keep_default_na=False, dtype=str)
    label = dict(zip(truth.file.str.removesuffix(".wav"), truth.label))
    assert [label[c] for c in t["clip"]] == t.target.tolist()
    assert set(t["split"]) == {"train", "validation", "test"}
    assert set(t["condition"]) == {"audio", "audio_noise"}


def test_scores_are_those_of_the_predictions(made):
    from avkit.evaluation.runs import open_run

    run = open_run(made / "run")
    t = run.predictions
    for (subset, condition), rows in t.groupby(["split", "condition"]):
        told = run.record["metrics"][subset][condition]["accuracy"]
        assert np.isclose((rows.target == rows.prediction).mean(), told)


class Tags(html.parser.HTMLParser):
    "What a page does: its elements, and the attributes that run something"

    def __init__(self):
        super().__init__()
        self.tags, self.runs, self.text = [], [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.runs += [k for k, _ in attrs if k.startswith("on") and k != "on"]

    def handle_data(self, data):
        self.text += data


def test_pages_run_nothing(made):
    pages = [made / "page.html", made / "board/leaderboard.html"]
    for page in pages:
        tags = Tags()
        tags.feed(page.read_text(encoding="utf-8"))
        tags.close()
        assert "onerror" not in tags.runs and "alert(1)" not in "".join(scripts(page))
        assert "b" not in tags.tags or "<b>P</b>" not in page.read_text(encoding="utf-8")
    assert "<script>alert(1)</script>" in tags.text  # the title, as it was written


def scripts(page):
    "What stands in script elements of a page"
    return re.findall(r"<script[^>]*>(.*?)</script>", page.read_text(encoding="utf-8"), re.DOTALL)


def test_tables_compute_nothing(made):
    "In no table for people a cell begins like a formula"
    for path in [made / "report/table.csv", made / "board/table.csv"]:
        for row in csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline="")):
            for cell in row:
                formula = cell.startswith(("=", "+", "-", "@", "\t", "\r")) and len(cell) > 1
                assert not formula or re.fullmatch(r"[+-]?[\d.]+(e[+-]?\d+)?", cell), (path, cell)


def test_markdown_keeps_its_cells(made):
    for path in [made / "report/table.md", made / "board/table.md"]:
        for block in re.findall(r"(?:^\|.*\n?)+", path.read_text(encoding="utf-8"), re.MULTILINE):
            cells = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
            assert len(cells) == 1
        assert "<script" not in path.read_text(encoding="utf-8").replace("\\<", "")


def test_latex_has_no_sign_of_its_own_left(made):
    text = (made / "report/table.tex").read_text(encoding="utf-8")
    assert "<script>" not in text and "$x$" not in text


def test_figures_are_drawn(made):
    drawn = {p.name for p in (made / "report").glob("*.png")}
    assert {"confusion_audio.png", "learning_curves.png"} <= drawn


def test_a_prediction_names_its_classes(made):
    wav = next((made / "data").glob("*.wav"))
    flags = ["predict", str(wav), f"--run={made}/run", f"--to={made}/said"]
    assert main(flags) == 0
    t = pd.read_csv(made / "said/predictions.csv", keep_default_na=False)
    assert len(set(t.columns)) == len(t.columns) and set(t.prediction) <= set(NAMES)
    record = json.loads((made / "run/record.json").read_text())
    assert set(answer_columns(record["classes"])) <= set(t.columns)
