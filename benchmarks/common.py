"""What the benchmark scripts share: their arguments, how they time, how they tell what they found
(a Markdown table, and JSON for `run.py`), the machine's name, and real data when it is at hand."""

import argparse, importlib.metadata, json, os, platform, subprocess, sys, time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
import avkit


def arguments(doc):  # the script's docstring
    "A parser that knows `--out FILE`"
    p = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    p.add_argument("--out", type=Path, help="write what is found to this file too, as JSON")
    return p


def figure(
    name,  # what was measured
    value,
    unit,
    compared_to="",  # what else was measured in the same run
    ratio=None,  # how many times as good as that: above 1 is better
):
    "One figure of a run"
    return dict(name=name, value=value, unit=unit, compared_to=compared_to, ratio=ratio)


def tell(
    a,  # the arguments, with `out`
    tables,  # {title: [{column: value}]}
    figures,  # of `figure`
    environment,  # of `environment`
    notes=(),  # sentences: what was left out, and why
):
    "Print a script's tables; where `--out` names a file, write them and its figures"
    for note in notes:
        print(note, end="\n\n")
    for title, rows in tables.items():
        print(f"{title}\n\n{table(rows)}", end="\n\n")
    print(environment)
    if a.out:
        told = dict(tables=[dict(title=t, rows=rows) for t, rows in tables.items()])
        told |= dict(figures=figures, environment=environment, notes=list(notes))
        told["root"] = str(Path(avkit.__file__).resolve().parents[1])
        a.out.write_text(json.dumps(told, indent=1, default=float) + "\n", encoding="utf-8")


def table(rows, columns=None):  # [{column: value}]
    "A markdown table"
    columns = columns or list(dict.fromkeys(k for r in rows for k in r))
    cells = [columns] + [[_text(r.get(c, "")) for c in columns] for r in rows]
    width = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    line = lambda row: "| " + " | ".join(x.ljust(w) for x, w in zip(row, width)) + " |"
    return "\n".join(
        [line(cells[0]), "|" + "|".join("-" * (w + 2) for w in width) + "|", *map(line, cells[1:])]
    )


def _text(x):
    if x is None:
        return ""
    if isinstance(x, float):
        return f"{x:.3g}" if abs(x) < 100 else f"{x:.0f}"
    return str(x)


def cpu():
    "The processor's name"
    try:
        return next(
            l.split(":", 1)[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def environment(*packages, threads):
    "One line: processor, threads, versions"
    got = [f"{p} {importlib.metadata.version(p)}" for p in packages]
    versions = ", ".join([f"Python {platform.python_version()}", *got])
    return f"{cpu()}, {os.cpu_count()} cores, {threads} thread(s); {versions}"


def machine():
    "What a run's numbers belong to: processor, cores, memory, versions, date, commit, load"
    git = lambda *what: subprocess.run(
        ["git", *what], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return dict(
        processor=cpu(),
        cores=os.cpu_count(),
        memory_GB=round(memory),
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        torch=importlib.metadata.version("torch"),
        date=time.strftime("%Y-%m-%d %H:%M", time.gmtime()) + " UTC",
        commit=git("rev-parse", "--short=12", "HEAD") or "unknown",
        changed=bool(git("status", "--porcelain", "--", "avkit", "benchmarks/*.py")),
        load=round(os.getloadavg()[0], 1),
    )


def best(f, repeats, clock=time.process_time):  # a function, how often; on a GPU: perf_counter
    """The shortest of some times in seconds, of the processor's time: what it takes when nobody
    else needs the processor"""
    times = []
    for _ in range(repeats):
        t = clock()
        f()
        times.append(clock() - t)
    return min(times)


def real_data(name):  # e.g. "grid_clips"
    "A folder of real data ($AVKIT_DATA, or shared/data beside the clone), or None"
    root = Path(os.environ.get("AVKIT_DATA") or ROOT.parent / "shared/data")
    return root / name if (root / name).is_dir() else None
