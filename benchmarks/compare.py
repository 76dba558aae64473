"""Is one commit slower than another? Ratios of processor time, in turns, in one run; never times.

    python benchmarks/compare.py BASE            HEAD beside BASE
    python benchmarks/compare.py BASE OTHER      OTHER beside BASE
    make compare BASE=v0.1.0

Both commits are checked out into a temporary folder, and small.py of this checkout measures both:
BASE, HEAD, HEAD, BASE and so on. Each pair gives a ratio, HEAD / BASE, for each benchmark; the
table has the median of the pairs' ratios and an interval that holds the true median 99 times of
100 (from the order of the ratios alone). Slower is what lies above 1 with its whole interval and
is more than `--least` slower; then the exit status is 1. It is 2 where nothing can be compared.
"""

import argparse, json, math, os, shutil, signal, subprocess, sys, tempfile
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from common import cpu, ROOT, table

HERE = Path(__file__).resolve().parent
SURE = 0.99


def git(repository: Path, *what: str) -> str:
    "What git says, or a sentence that ends the program"
    r = subprocess.run(["git", *what], cwd=repository, capture_output=True, text=True)
    if r.returncode:
        print(f"compare: git {' '.join(what)}: {r.stderr.strip()}", file=sys.stderr)
        raise SystemExit(2)
    return r.stdout.strip()


@contextmanager
def checkouts(
    repository: Path,
    commits: list[str],
    scripts: Path,  # a folder, copied into both as benchmarks/
):
    "A folder for each commit, gone afterwards"
    with tempfile.TemporaryDirectory(prefix="compare-") as tmp:
        folders = [Path(tmp) / name for name in ("base", "head")]
        made = []
        try:
            for folder, commit in zip(folders, commits):
                git(repository, "worktree", "add", "--detach", "--force", str(folder), commit)
                made.append(folder)
                shutil.rmtree(folder / "benchmarks", ignore_errors=True)
                leave = shutil.ignore_patterns("__pycache__")
                shutil.copytree(scripts, folder / "benchmarks", ignore=leave)
            yield folders
        finally:
            for folder in made:
                git(repository, "worktree", "remove", "--force", str(folder))


def measured(folder: Path, script: str, only: list[str]) -> dict[str, float]:
    "{benchmark: its value} of a fresh process that imports what lies in a folder"
    out = folder / "benchmarks/out.json"
    out.unlink(missing_ok=True)
    flags = ["--only", *only] if only else []
    env = os.environ | dict(PYTHONPATH=str(folder), OMP_NUM_THREADS="1", AVKIT_PROGRESS="0")
    r = subprocess.run(
        [sys.executable, folder / "benchmarks" / script, "--out", out, *flags],
        cwd=folder, env=env, capture_output=True, text=True)  # fmt: skip
    if r.returncode:
        print(f"compare: {script} failed on {folder.name}:\n{r.stderr[-2000:]}", file=sys.stderr)
        raise SystemExit(2)
    told = json.loads(out.read_text())
    if told.get("root", str(folder.resolve())) != str(folder.resolve()):
        print(f"compare: {script} measured what lies in {told['root']}", file=sys.stderr)
        raise SystemExit(2)
    for note in told.get("notes", []):
        print(f"{folder.name}: {note}", file=sys.stderr)
    return {f["name"]: f["value"] for f in told["figures"]}


def in_turns(
    folders: list[Path],  # base, head
    script: str,
    pairs: int,
    only: list[str],
) -> list[tuple[dict, dict]]:
    "Pairs of (base, head), measured one beside the other: A B B A A B B A"
    out = []
    for i in range(pairs):
        order = folders if i % 2 == 0 else folders[::-1]
        got = {f: measured(f, script, only) for f in order}
        out.append((got[folders[0]], got[folders[1]]))
        print(f"pair {i + 1} of {pairs}", file=sys.stderr, flush=True)
    return out


def interval(ratios: list[float]) -> tuple[float, float]:
    """From which to which of the sorted ratios: the narrowest such interval around the median that
    holds the true one in at least 99 of 100 cases, or else all of them"""
    n, k = len(ratios), 0
    below = lambda k: sum(math.comb(n, i) for i in range(k + 1)) / 2**n
    while k + 1 < n / 2 and 1 - 2 * below(k + 1) >= SURE:
        k += 1
    s = sorted(ratios)
    return s[k], s[n - 1 - k]


def verdict(ratios: list[float], least: float) -> str:
    "slower, faster, or no change that stands out of the noise"
    low, high = interval(ratios)
    enough = 1 - 2 * 0.5 ** len(ratios) >= SURE
    if enough and low > 1 and median(ratios) > 1 + least:
        return "slower"
    if enough and high < 1 and median(ratios) < 1 / (1 + least):
        return "faster"
    return "no change"


def compared(pairs: list[tuple[dict, dict]], least: float) -> list[dict]:
    "A row for each benchmark that either commit has"
    rows = []
    for name in dict.fromkeys(k for pair in pairs for side in pair for k in side):
        both = [(b[name], h[name]) for b, h in pairs if name in b and name in h]
        if len(both) < len(pairs):
            old = all(name in b for b, _ in pairs)
            rows.append({"benchmark": name, "is": "HEAD cannot" if old else "BASE cannot"})
            continue
        ratios = [h / b for b, h in both]
        low, high = interval(ratios)
        rows.append({
            "benchmark": name, "HEAD / BASE": round(median(ratios), 3),
            "interval": f"{low:.3f} to {high:.3f}", "is": verdict(ratios, least)})  # fmt: skip
    return rows


def main(argv: list[str] | None = None) -> int:
    "Print the table; 1 when something became slower, or no longer runs"
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("base", help="a commit")
    p.add_argument("head", nargs="?", default="HEAD", help="a commit (default: HEAD)")
    p.add_argument("--pairs", type=int, default=8, help="eight at least can tell (default: 8)")
    p.add_argument("--least", type=float, default=0.05, help="what counts (default: .05, 5 %%)")
    p.add_argument("--only", nargs="+", default=[], metavar="NAME", help="some of small.py's")
    p.add_argument("--script", type=Path, default=HERE / "small.py", help="what measures")
    p.add_argument("--repository", type=Path, default=ROOT, help="where the commits are")
    p.add_argument("--out", type=Path, help="write the rows to this file too, as JSON")
    a = p.parse_args(argv)
    stop = lambda *_: sys.exit(143)
    before = signal.signal(signal.SIGTERM, stop)  # else a checkout would be left behind
    try:
        return between(a)
    finally:
        signal.signal(signal.SIGTERM, before)


def between(a: argparse.Namespace) -> int:
    "The same with parsed arguments"
    commits = [git(a.repository, "rev-parse", f"{c}^{{commit}}") for c in (a.base, a.head)]
    if a.head == "HEAD" and git(a.repository, "status", "--porcelain", "-uno"):
        print("compare: what is not committed is not compared", file=sys.stderr)
    with checkouts(a.repository, commits, a.script.resolve().parent) as folders:
        rows = compared(in_turns(folders, a.script.name, a.pairs, a.only), a.least)
    base, head = (c[:12] for c in commits)
    print(f"HEAD {head} beside BASE {base}, {a.pairs} pairs, {cpu()}\n\n{table(rows)}")
    if a.out:
        told = dict(base=commits[0], head=commits[1], pairs=a.pairs, rows=rows)
        a.out.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    if not rows:
        return 2
    return int(any(r["is"] in ("slower", "HEAD cannot") for r in rows))


if __name__ == "__main__":
    sys.exit(main())
