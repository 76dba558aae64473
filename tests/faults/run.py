"""Faults of every kind, in one table.

    make faults                                    all, in about an hour; tests/faults/table.md
    python tests/faults/run.py --quick --to t.md   a few of each, in some minutes
    python tests/faults/run.py --only races

Each kind is a script of this folder; what did not hold is told below the table.
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
    "hours": "sound of many hours becomes a clip and a track: memory does not grow with it",
}
MOST = dict(kills=(16, 2), operations=(7, 1), races=(5, 1))  # a scenario: all, quick
SCRIPTS = dict(
    mutants=("--mutants 2000 --lies 100", "--mutants 100 --lies 20"),
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
    if kind == "kills":  # others had ended before
        trials = [t for t in trials if t["end"] == "killed"]
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


def table(rows: list[tuple[str, dict]], bad: list[str]) -> str:
    "The page"
    day = datetime.date.today().isoformat()
    lines = ["# Faults that were tried", "", f"Made by `make faults`, {day}.", ""]
    lines += ["| kind | of | tried | held |", "|---|---|--:|--:|"]
    for kind in dict.fromkeys(k for k, _ in rows):
        mine = [r for k, r in rows if k == kind]
        total = dict(fault="**all**", **{c: sum(r[c] for r in mine) for c in ("tried", "held")})
        for r in [total, *mine]:
            name = kind if r is total else ""
            lines.append(f"| {name} | {r['fault']} | {r['tried']} | {r['held']} |")
    lines += ["", *(f"- **{k}**: {MEANS[k]}." for k in dict.fromkeys(k for k, _ in rows))]
    if bad:
        lines += ["", "## What did not hold", "", *(f"- `{line[:600]}`" for line in bad)]
    return "\n".join(lines) + "\n"


def main(argv: list[str]) -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--quick", action="store_true", help="a few of each")
    p.add_argument("--only", nargs="+", choices=list(KINDS), default=list(KINDS), metavar="KIND",
                   help=", ".join(KINDS))  # fmt: skip
    p.add_argument("--to", type=Path, default=HERE / "table.md", help="the page to write")
    asked = p.parse_args(argv)
    rows, bad = [], []
    for kind in asked.only:
        print(f"== {kind}", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as folder:
            found, failed = rows_of(kind, asked.quick, Path(folder))
        rows += [(kind, r) for r in found]
        bad += failed
        asked.to.write_text(table(rows, bad))  # an hour may be cut short
    print(table(rows, bad))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
