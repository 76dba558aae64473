"""Faults of every kind, in one table.

    make faults                                    all, in about an hour; tests/faults/table.md
    python tests/faults/run.py --quick --to t.md   a few of each, in some minutes
    python tests/faults/run.py --only races        one kind again: the page keeps the others

Each kind is a script of this folder; what did not hold is told below the table. The page's numbers
stand in a JSON file beside it, with the day on which each kind was tried.
"""

import argparse, datetime, json, os, shutil, subprocess, sys, tempfile
from pathlib import Path

HERE = Path(__file__).parent
MEANS = {  # kind: what is tried, and what has to be true afterwards
    "kills": "SIGKILL at any moment of prepare, train, resume, evaluate, grid, report, export, "
    "predict: the repeat equals a run without it, nothing is left over",
    "operations": "a write, flush, rename or new file fails, once or from then on (disk full, "
    "input/output error), or is the last moment: a sentence, and a repeat as above",
    "races": "the same commands at once in one folder: nothing is lost, none crashes",
    "mutants": "media files that are damaged, and such whose heads do not say the truth: refused "
    "with a sentence, or read with no more than a frame or .05 s gone without a word; no swelling",
    "odd": "records, cards, checkpoints, tables, lists, archives, settings and names with "
    "something wrong in them: a sentence, or no harm; no traceback, crash, hang or swelling",
    "hours": "sound of many hours becomes a clip and a track: memory does not grow with it",
}
MOST = dict(kills=(13, 2), operations=(7, 1), races=(5, 1))  # a scenario: all, quick
SCRIPTS = dict(
    mutants=("--mutants 2000 --lies 100", "--mutants 100 --lies 20"),
    odd=("--inputs 500", "--inputs 60"),
    hours=("--hours 0.1 1 12", "--hours 0.1"),
)
KINDS = [*MOST, *SCRIPTS]


def child(kind: str, most: int, folder: Path) -> list[dict]:
    "The trials of `child.py`, each with `held`"
    env = os.environ | dict(AVKIT_PROGRESS="0", OMP_NUM_THREADS="1")
    if kind == "operations":
        env["LD_PRELOAD"] = str(shim(folder))
    command = [sys.executable, HERE / "child.py", folder, kind, str(most)]
    r = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
    trials = [json.loads(line) for line in r.stdout.splitlines()]
    return [t | dict(held=has_held(t)) for t in trials]


def has_held(t: dict) -> bool:
    "Is the repeat of a trial what it should be, and was its end no traceback?"
    told = t["end"] in ("ok", "error", "killed") and "Traceback" not in t["said"]
    return told and not t.get("repeat") and not t.get("left")


def shim(folder: Path) -> Path:
    "`failing.c`, compiled"
    lib = folder / "failing.so"
    cc = shutil.which("gcc") or shutil.which("cc")
    if not cc:
        sys.exit("operations need a C compiler")
    subprocess.run([cc, "-shared", "-fPIC", "-O1", HERE / "failing.c", "-o", lib], check=True)
    return lib


def script(name: str, quick: bool, folder: Path) -> tuple[list[dict], list[str]]:
    "What another script of this folder found: rows, and what did not hold"
    to = folder / f"{name}.json"
    flags = [*SCRIPTS[name][quick].split(), "--out", to]
    subprocess.run([sys.executable, HERE / f"{name}.py", *flags], stdout=sys.stderr)
    found = json.loads(to.read_text())
    return found["rows"], [json.dumps(x) for x in found["did_not_hold"]]


def rows_of(kind: str, quick: bool, folder: Path) -> tuple[list[dict], list[str]]:
    "The rows of a kind, {fault, tried, held}, and what did not hold"
    if kind in SCRIPTS:
        return script(kind, quick, folder)
    trials = child(kind, MOST[kind][quick], folder)
    names = list(dict.fromkeys(t["scenario"] for t in trials))
    rows = []
    for name in names:
        mine = [t["held"] for t in trials if t["scenario"] == name]
        rows.append(dict(fault=name.removeprefix("race-"), tried=len(mine), held=sum(mine)))
    return rows, [json.dumps(t) for t in trials if not t["held"]]


def table(kinds: dict[str, dict]) -> str:
    "The page of {kind: {day, rows, bad}}; a `note`, by hand, goes when the kind is tried again"
    lines = ["# Faults that were tried", "", "Made by `make faults`.", ""]
    lines += ["| kind | of | tried | held | on |", "|---|---|--:|--:|---|"]
    for kind, found in kinds.items():
        total = {c: sum(r[c] for r in found["rows"]) for c in ("tried", "held")}
        lines.append(f"| {kind} | **all** | {total['tried']} | {total['held']} | {found['day']} |")
        lines += [f"| | {r['fault']} | {r['tried']} | {r['held']} | |" for r in found["rows"]]
    lines += ["", *(f"- **{k}**: {MEANS[k]}." for k in kinds)]
    notes = [f"- {k}: {found['note']}" for k, found in kinds.items() if "note" in found]
    lines += ["", *notes] if notes else []
    bad = [line for found in kinds.values() for line in found["bad"]]
    if bad:
        lines += ["", "## What did not hold", "", *(f"- `{line[:600]}`" for line in bad)]
    return "\n".join(lines) + "\n"


def write(kinds: dict[str, dict], page: Path) -> None:
    "The page, and its numbers beside it"
    page.with_suffix(".json").write_text(json.dumps(kinds, indent=1) + "\n")
    page.write_text(table(kinds))


def main(argv: list[str]) -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--quick", action="store_true", help="a few of each")
    p.add_argument("--only", nargs="+", choices=list(KINDS), default=list(KINDS), metavar="KIND",
                   help=", ".join(KINDS))  # fmt: skip
    p.add_argument("--to", type=Path, default=HERE / "table.md", help="the page to write")
    asked = p.parse_args(argv)
    numbers = asked.to.with_suffix(".json")
    kinds = json.loads(numbers.read_text()) if numbers.exists() else {}
    for kind in asked.only:
        print(f"== {kind}", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as folder:
            rows, bad = rows_of(kind, asked.quick, Path(folder))
        kinds[kind] = dict(day=datetime.date.today().isoformat(), rows=rows, bad=bad)
        kinds = {k: kinds[k] for k in KINDS if k in kinds}
        write(kinds, asked.to)  # an hour may be cut short
    print(table(kinds))
    return 1 if any(kinds[k]["bad"] for k in asked.only) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
