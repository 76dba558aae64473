"""Each committed table has the rows that its declaration makes: no more, and none is missing."""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest

from avkit.core import resolve
from avkit.models.fusion import FUSIONS
from avkit.reports import index
from avkit.reports.comparison import method_of
from avkit.reports.index import ALL
from avkit.reports.quirk_effects import EXPERIMENTS
from avkit.reports.records import settings_told
from avkit.reports.robustness import corruption_steps, sensible
from avkit.training.inference import conditions


def slim_of(cfg):
    "What `method_of` reads of a record"
    told = settings_told(dict(config=asdict(cfg.settings)))
    return dict(config=told, recipe=dict(fusion=cfg.recipe["fusion"]))


def methods(configs):
    "{method: its runs}"
    out = {}
    for cfg in configs:
        out.setdefault(method_of(slim_of(cfg)), []).append(cfg)
    return out


def declared(monkeypatch, report):
    "What a report would train and tell, without doing it: (configs, what it hands on)"
    configs, handed = [], []

    def grid(asked, *_):
        configs.extend(asked)
        return pd.DataFrame(dict(run_dir=[str(c.run_dir) for c in asked], status="done"))

    monkeypatch.setattr(index, "run_grid", grid)
    monkeypatch.setattr(index, "real_data", lambda *names: Path("/nowhere"))
    monkeypatch.setattr(index, "ready", lambda asked: configs.extend(asked) or True)
    monkeypatch.setattr(index, "ceilings_report", lambda *a: None)
    for name in ("compare_report", "robustness_report", "selection_report"):
        monkeypatch.setattr(index, name, lambda *a, **k: handed.append(a))
    monkeypatch.setattr(index, "runs_report", lambda *a, **k: (handed.append(a), []))
    report.make(report, 1)
    return configs, handed


def expected(report, configs, handed):
    "Counter of the rows that a report's table has to hold"
    by = methods(configs)
    if report.kind == "compare":
        return Counter((m, cs[0]["modality"], len(cs)) for m, cs in by.items())
    if report.kind == "robustness":
        p, _, kinds = handed[0][:3]
        steps = corruption_steps(sensible(p, kinds)[0])
        return Counter((m, s, k, len(cs)) for m, cs in by.items() for s, k in steps)
    if report.kind == "choice":
        return Counter(json.dumps(c, sort_keys=True) for c in handed[0][1])
    rows = [(c, given) for c in configs for given in conditions(c)]
    return Counter((c["dataset"], c["label"] or c["track"] or "", c["modality"], g) for c, g in rows)


COLUMNS = dict(
    compare=["method", "given", "runs"],
    robustness=["method", "stream", "damage", "runs"],
    runs=["dataset", "labels", "modality", "given"],
)


def committed_rows(report, table):
    "The same, of the committed table"
    if report.kind == "choice":
        return Counter(json.dumps(json.loads(c), sort_keys=True) for c in table.candidate)
    if report.kind == "runs":  # on each subset that the data set has
        table = table.drop_duplicates(COLUMNS["runs"])
    return Counter(table[COLUMNS[report.kind]].itertuples(index=False, name=None))


TABLES = [r for r in ALL.values() if r.kind in COLUMNS or r.kind == "choice"]


def in_no_table(method):
    "Is it a fusion that is newer than every committed table?"
    shown = [pd.read_csv(resolve(t.folder) / "table.csv") for t in TABLES if t.kind != "choice"]
    known = {m.split(",")[0] for t in shown if "method" in t for m in t.method}
    return method in FUSIONS and method not in known


@pytest.mark.parametrize("report", TABLES, ids=lambda r: r.name)
def test_a_committed_table_has_the_rows_of_its_declaration(report, monkeypatch):
    table = pd.read_csv(resolve(report.folder) / "table.csv", keep_default_na=False)
    want = expected(report, *declared(monkeypatch, report))
    have = committed_rows(report, table)
    assert want, "the declaration makes no run"
    if report.kind == "compare":
        want = Counter({row: n for row, n in want.items() if not in_no_table(row[0])})
    assert have == want, f"missing: {want - have}; not declared: {have - want}"


def test_the_quirks_table_has_a_row_for_each_experiment_and_seed():
    report = ALL["quirks"]
    table = pd.read_csv(resolve(report.folder) / "table.csv")
    seeds = [int(s) for s in report.settings["seeds"].split(",")]
    assert set(zip(table.experiment, table.seed)) == {
        (e, s) for e in EXPERIMENTS for s in seeds
    }


def test_no_committed_table_tells_how_fast_a_machine_was():
    for path in sorted(resolve("reports").rglob("table.csv")):
        if "runs" not in path.relative_to(resolve("reports")).parts:
            columns = pd.read_csv(path, nrows=0).columns
            assert not {"ms", "seconds", "clips/s"} & set(columns), path
