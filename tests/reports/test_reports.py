"""Committed tables are what the code makes of committed records; the index names every report."""
import json
import re
import subprocess
from dataclasses import fields, replace

import nbformat
import numpy as np
import pandas as pd
import pytest

from avkit.cli import main
from avkit.core import AvkitError, kit_path, read_json, repo_root, write_json
from avkit.evaluation.figures import HEAVY
from avkit.reports.comparison import Comparison, compare_report, comparison
from avkit.reports.index import ALL, LONG, committed, compared, entry, reached, remake
from avkit.reports.papers import STUDIES, Protocol, paper_notebook_text
from avkit.reports.records import read_spec, runs_report, slim_record, write_spec
from avkit.reports.robustness import robustness_report
from avkit.training.grid import run_grid
from avkit.training.settings import DECLARED, PATHS
from helpers import draw_small, few_pixels

ROOT = repo_root()
REPORTS = ROOT / "reports"
KINDS = ("masked", "lost", "noise", "shift")


def name_of(folder): return folder.relative_to(REPORTS).as_posix()


def files():
    "What is committed below reports/"
    skip = ("runs", "predictions")
    found = (p for p in sorted(REPORTS.rglob("*")) if p.is_file() and p.suffix != ".ipynb")
    return [p for p in found if p.relative_to(REPORTS).parts[0] not in skip]


@pytest.mark.parametrize("folder", committed(), ids=name_of)
def test_tables_are_what_the_records_make(folder, tmp_path, monkeypatch):
    "Exact on any machine: counts and a few sums go in, and the draws are seeded"
    draw_small(monkeypatch)
    remake(folder, tmp_path)
    made = [p for p in sorted(tmp_path.iterdir()) if p.suffix in (".md", ".csv", ".tex")]
    assert len(made) >= 3
    for p in made:
        old = folder / p.name
        assert old.read_bytes() == p.read_bytes(), f"{old}: avkit reports {name_of(folder)}"


def test_a_headline_counts_the_runs_that_stand_behind_its_scores():
    row = dict(dataset="ravdess", labels=np.nan, modality="av", given="av", side="test", runs=1,
               accuracy=0.5)  # fmt: skip
    heard = row | dict(modality="audio", given="audio", accuracy=0.2)
    less = row | dict(side="validation", accuracy=0.9)
    said = reached(pd.DataFrame([row, heard, less]))
    assert said == "Both streams given: ravdess accuracy 0.500 (test). One run each: no interval."
    more = row | dict(runs=15, accuracy=0.7)
    assert "0.500 to 0.700 (test). Means of 1 to 15 runs:" in reached(pd.DataFrame([row, more]))
    assert reached(pd.DataFrame([heard | dict(runs=3)])) == (
        "Given what each was trained on: ravdess accuracy 0.200 (test). Means of 3 runs: no "
        "interval.")  # fmt: skip


def test_a_headline_has_variants_of_one_stream_among_the_methods():
    rows = [("ca", "av", 0.5), ("audio alone, flatten", "audio", 0.7), ("ca", "audio", 0.9),
            ("video alone", "video", 0.3), ("video alone, random backbone", "video", 0.1)]  # fmt: skip
    t = pd.DataFrame([dict(method=m, given=g, side="test", runs=1, seeds=1, units=9, accuracy=a,
                           low=np.nan) for m, g, a in rows])  # fmt: skip
    assert compared(t) == ("accuracy, best of 4: `audio alone, flatten` 0.700, then `ca` 0.500; "
                           "last `video alone, random backbone` 0.100.")  # fmt: skip


def test_the_index_names_every_report():
    index = REPORTS / "README.md"
    if not index.is_file():
        pytest.skip("make reports was not run yet")
    text = index.read_text()
    for d in committed():
        assert f"({name_of(d)}/table.md)" in text, f"{d} is not in the index: avkit reports {name_of(d)}"


def test_every_report_is_declared_once_as_it_is():
    for d in committed():
        spec, report = read_spec(d), ALL[name_of(d)]
        assert (spec["kind"], spec["title"]) == (report.kind, report.title)
    assert LONG == dict(twins="make twins", quirks="avkit reports quirks",
                        unpaired="avkit reports unpaired", claims="avkit reports claims",
                        moments="avkit reports moments",
                        crema_d_voices="avkit reports crema_d_voices",
                        ravdess_choice="avkit reports ravdess_choice",
                        epoch_choice="avkit reports epoch_choice",
                        ravdess_whisper="avkit reports ravdess_whisper")
    assert {r.name for r in ALL.values() if r.real} == {
        "ravdess_choice", "ravdess_real", "robustness_real", "audit_ravdess", "corpora/ravdess",
        "ravdess_whisper",
        "corpora/crema_d", "epoch_choice", "real_film", "crema_d_voices"}


def test_reports_are_light():
    "3 MB in all, and an SVG only of lines and dots"
    assert sum(p.stat().st_size for p in files()) < 3_000_000
    for p in files():
        if p.suffix == ".svg":
            assert p.stat().st_size <= HEAVY and "<image" not in p.read_text(), p


def test_records_say_once_what_they_have_in_common(tmp_path):
    for d in committed():
        spec = read_spec(d)
        write_spec(tmp_path, spec)
        assert (tmp_path / "records.json").read_bytes() == (d / "records.json").read_bytes(), d
        assert read_spec(tmp_path) == spec


def test_a_hash_that_is_not_in_the_list_is_refused(tmp_path):
    spec = read_spec(kit_path("reports/ravdess_real"))
    write_spec(tmp_path, spec)
    told = read_json(tmp_path / "records.json")
    assert all(isinstance(r["split_hash"], int) for r in told["records"])
    for odd in (99, -1):
        told["records"][3]["split_hash"] = odd
        write_json(tmp_path / "records.json", told)
        with pytest.raises(AvkitError, match=f"no split_hash number {odd}"):
            read_spec(tmp_path)


@pytest.fixture(scope="module")
def toy_runs(toy_corpus, tmp_path_factory):
    "Two runs on the toy corpus: sound and face, with and without modality dropout"
    folder = tmp_path_factory.mktemp("toys")
    p = Comparison(**toy_corpus, fusions="concat", dropouts="nodropout,softhard", split="kfold5",
                   epochs=4, runs=str(folder / "runs"), report=str(folder / "compare"), n_jobs=1)
    done = run_grid(comparison(p), 1)
    assert not done.reason.any(), done.reason.tolist()
    return p, done, folder


def bytes_of(folder): return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def test_what_was_measured_for_the_curves_stays_out_of_the_comparison(toy_runs, monkeypatch):
    "A share of 100 % is the condition itself; asking again asks no model, and changes no report"
    p, done, folder = toy_runs
    few_pixels(monkeypatch)
    compare_report(p, done)
    before, q = bytes_of(folder / "compare"), replace(p, report=str(folder / "curves"))
    robustness_report(q, done, KINDS)
    text, c = (folder / "curves/table.md").read_text(), pd.read_csv(folder / "curves/curves.csv")
    assert "Left out: shift" in text and "shift" not in set(c.damage) and len(c) == 2 * 2 * 3 * 5
    for d, name in zip(done.run_dir, ("concat", "concat, modality dropout softhard")):
        m = read_json(f"{d}/record.json")["metrics"]["test"]
        mine = c[(c.method == name) & (c.stream == "audio") & (c.damage == "masked")]
        end = mine.set_index("step").score
        assert end[4] == pytest.approx(m["audio_mask"]["accuracy"])
        assert end[4] == pytest.approx(m["video"]["accuracy"])
        assert end[0] == pytest.approx(m["av"]["accuracy"])
        assert "audio_masked_25" not in m  # put together from the others, not measured
    curves = bytes_of(folder / "curves")
    monkeypatch.setattr("avkit.reports.robustness._ask",
                        lambda *a: pytest.fail("a model was asked again"))
    robustness_report(q, done, KINDS)
    compare_report(p, done)
    assert bytes_of(folder / "curves") == curves and bytes_of(folder / "compare") == before
    path = f"{done.run_dir[0]}/record.json"
    record = read_json(path)  # as if it had been trained again:
    write_json(path, record | dict(timings=record["timings"] | dict(total=1.5)))
    compare_report(p, done)
    assert {r["seconds"] for r in read_spec(folder / "compare")["records"]} > {1.5}


def test_a_report_of_runs_is_made_again_from_its_records(toy_runs, tmp_path, capsys):
    p, done, folder = toy_runs
    mine = folder / "mine"
    assert main(["report", *done.run_dir, "--to", str(mine), "--title", "Mine"]) == 0
    remake(mine, tmp_path)
    for f in sorted(tmp_path.iterdir()):
        assert f.read_bytes() == (mine / f.name).read_bytes(), f
    e = entry(mine, folder)
    assert e["title"] == "Mine" and "accuracy" in e["headline"]
    assert "2 runs of recipe demo on ravdess; split kfold5, 1 fold, 1 seed" in e["what"]


def test_an_unknown_report_is_told(capsys, monkeypatch):
    monkeypatch.setattr("avkit.reports.index.write_index", lambda: None)
    assert main(["reports", "robustness_rael"]) == 1
    assert "did you mean 'robustness_real'" in capsys.readouterr().err


SECRET = "/secret/of mine"
SAYS = ("secret", "of mine")


def with_secrets(record):
    "A record in which each setting that may be a path is one, and some where nobody expects any"
    views = f"face={SECRET}/face.pt,body=torchvision:resnet50,context={SECRET}/odd:name.pt"
    light = dict(weights=f"{SECRET}/a.pt", table=f"{SECRET}/b.csv")
    nested = dict(encoder_options=dict(light=light),
                  backbone_options=dict(vit=dict(file=f"~{SECRET}/c.pt", more=[f"{SECRET}/d.pt"])))
    paths = {k: f"{SECRET}/{k}.csv" for k in sorted(PATHS)}
    assert {k for k, d in DECLARED.items() if d.path} <= set(paths)
    config = record["config"] | paths | dict(video_weights=views, options=json.dumps(nested))
    reason = f"MediaError: {SECRET}/clip.mp4: cut short"
    return record | dict(
        config=config, recipe=record["recipe"] | nested | dict(weights=dict(face=f"{SECRET}/f.pt")),
        set_aside=[dict(clip="a", reason=reason)], notes=dict(annotations=f"{SECRET}/list.csv"))


def test_no_report_tells_a_path_of_the_machine(toy_runs, tmp_path):
    record = with_secrets(read_json(f"{toy_runs[1].run_dir[0]}/record.json"))
    for seed in (1, 2):  # two runs: what they have in common is written elsewhere
        write_json(tmp_path / f"runs/{seed}/record.json", record | dict(seed=seed))
    runs_report([tmp_path / "runs"], tmp_path / "report", "Mine")
    write_spec(tmp_path / "one", dict(kind="runs", title="One", records=[slim_record(record)]))
    made = [p for d in ("report", "one") for p in (tmp_path / d).iterdir()]
    assert {"params.json", "records.json", "table.md", "table.csv"} <= {p.name for p in made}
    for p in made:
        text = p.read_text()
        assert not [s for s in SAYS if s in text], p
    kept = (tmp_path / "report/params.json").read_text()
    assert all(name in kept for name in ("face.pt", "torchvision:resnet50", "odd:name.pt", "d.pt"))


def test_committed_reports_tell_no_path():
    for p in files():
        if p.suffix != ".png":
            found = re.search(r"/(home|Users|root|work|tmp|mnt|secret)/\w+", p.read_text())
            assert not found, f"{p}: {found}"


@pytest.mark.parametrize("key", STUDIES)
def test_a_papers_notebook_is_what_its_study_makes(key):
    path = ROOT / "nbs/papers" / f"{key}.ipynb"
    assert path.read_text(encoding="utf-8") == paper_notebook_text(key), \
        f"python -c \"from avkit.reports.papers import paper_notebook; paper_notebook('{key}')\""


def parameters(path):
    "The parameters of a run notebook, with their defaults"
    book = nbformat.read(ROOT / "nbs" / path, 4)
    cell = next(c for c in book.cells if "parameters" in c.metadata.get("tags", []))
    scope = {}
    exec(cell.source, scope)
    return {k: v for k, v in scope.items() if not k.startswith("_")}


def test_parameters_of_a_comparison_are_those_of_its_notebooks():
    own = {f.name: f.default for f in fields(Comparison)}
    assert parameters("compare.ipynb") == own
    more = dict(dropouts="nodropout,softhard", kinds="masked,lost,noise,snr")
    assert parameters("robustness.ipynb") == own | more


def test_notebooks_write_where_git_does_not_look():
    "With nothing changed; `avkit reports` names the committed folders"
    if subprocess.run(["git", "-C", ROOT, "rev-parse"], capture_output=True).returncode:
        pytest.skip("not a git clone")
    assert parameters("robustness.ipynb")["report"] is None
    assert parameters("quirks.ipynb")["to"] is None
    usual = [f"reports/runs/{name}-report" for name in ("robustness", "quirks")]
    to = [Comparison().report_folder, Comparison().run_folder, *usual, *(Protocol().folder(key) for key in STUDIES), "reports/runs/demo"]
    for path in to:
        ignored = subprocess.run(["git", "-C", ROOT, "check-ignore", "-q", f"{path}/table.md"])
        assert ignored.returncode == 0, f"git sees {path}"
    assert "--to reports/runs/demo" in (ROOT / "Makefile").read_text()
