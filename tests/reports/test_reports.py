"""Committed tables are what the code makes of committed records; the index names every report."""
import pandas as pd, pytest
from avkit.reports.comparison import Comparison, compare_report, comparison
from avkit.core import read_json, repo_root, write_json
from avkit.training.grid import run_grid
from avkit.reports.index import committed, entry, remake
from avkit.reports.records import read_spec
from avkit.cli import main
from avkit.reports.robustness import robustness_report

ROOT = repo_root()


@pytest.mark.parametrize("folder", committed(), ids=lambda p: p.relative_to(ROOT / "reports").as_posix())
def test_tables_are_what_the_records_make(folder, tmp_path):
    "Exact on any machine: counts and a few sums go in, and the draws are seeded"
    remake(folder, tmp_path)
    made = [p for p in sorted(tmp_path.iterdir()) if p.suffix in (".md", ".csv", ".tex")]
    assert len(made) >= 3
    for p in made: assert (folder / p.name).read_bytes() == p.read_bytes(), f"{folder / p.name}: run make reports"


def test_the_index_names_every_report():
    index = ROOT / "reports/README.md"
    if not index.is_file(): pytest.skip("make reports was not run yet")
    text = index.read_text()
    for d in committed(): assert f"({d.relative_to(ROOT / 'reports').as_posix()}/table.md)" in text, f"{d} is not in reports/README.md: run make reports"


@pytest.fixture(scope="module")
def toy_runs(toy_corpus, tmp_path_factory):
    "Two runs on the toy corpus: sound and face, with and without modality dropout"
    folder = tmp_path_factory.mktemp("toys")
    p = Comparison(**toy_corpus, fusions="concat", dropouts="nodropout,softhard", split="kfold5", epochs=4, runs=str(folder / "runs"), report=str(folder / "compare"), n_jobs=1)
    done = run_grid(comparison(p), 1)
    assert not done.reason.any(), done.reason.tolist()
    return p, done, folder


def bytes_of(folder): return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def test_what_was_measured_for_the_curves_stays_out_of_the_comparison(toy_runs, monkeypatch):
    "A share of 100 % is the condition itself; asking again asks no model, and changes no byte of either report"
    from dataclasses import replace
    p, done, folder = toy_runs
    compare_report(p, done)
    before, q = bytes_of(folder / "compare"), replace(p, report=str(folder / "curves"))
    robustness_report(q, done, ("masked", "lost", "noise", "shift"))
    text, c = (folder / "curves/table.md").read_text(), pd.read_csv(folder / "curves/curves.csv")
    assert "Left out: shift" in text and "shift" not in set(c.damage) and len(c) == 2 * 2 * 3 * 5
    for d, name in zip(done.run_dir, ("concat", "concat, modality dropout softhard")):
        m = read_json(f"{d}/record.json")["metrics"]["test"]
        end = c[(c.method == name) & (c.stream == "audio") & (c.damage == "masked")].set_index("step").score
        assert end[4] == pytest.approx(m["audio_mask"]["accuracy"]) == pytest.approx(m["video"]["accuracy"]) and end[0] == pytest.approx(m["av"]["accuracy"])
        assert "audio_masked_25" not in m  # put together from the others, not measured
    curves = bytes_of(folder / "curves")
    monkeypatch.setattr("avkit.reports.robustness._ask", lambda *a: pytest.fail("a model was asked again"))
    robustness_report(q, done, ("masked", "lost", "noise", "shift"))
    compare_report(p, done)
    assert bytes_of(folder / "curves") == curves and bytes_of(folder / "compare") == before
    record = read_json(f"{done.run_dir[0]}/record.json")
    write_json(f"{done.run_dir[0]}/record.json", record | dict(timings=record["timings"] | dict(total=1.5)))  # as if it had been trained again
    compare_report(p, done)
    assert {r["seconds"] for r in read_spec(folder / "compare")["records"]} > {1.5}


def test_a_report_of_runs_is_made_again_from_its_records(toy_runs, tmp_path, capsys):
    p, done, folder = toy_runs
    assert main(["report", *done.run_dir, "--to", str(folder / "mine"), "--title", "Mine"]) == 0
    remake(folder / "mine", tmp_path)
    for f in sorted(tmp_path.iterdir()): assert f.read_bytes() == (folder / "mine" / f.name).read_bytes(), f
    e = entry(folder / "mine", folder)
    assert e["title"] == "Mine" and "2 runs of recipe demo on ravdess; split kfold5, 1 fold, 1 seed" in e["what"] and "accuracy" in e["headline"]


def test_an_unknown_report_is_told(capsys, monkeypatch):
    monkeypatch.setattr("avkit.reports.index.write_index", lambda: None)
    assert main(["reports", "robustnes"]) == 1 and "did you mean 'robustness'" in capsys.readouterr().err
