"""What the benchmark scripts share: a markdown table, the environment below it, and real data
when it is at hand."""

import importlib.metadata, os, platform, sys, time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


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
    return (
        f"{x:.3g}"
        if isinstance(x, float) and abs(x) < 100
        else f"{x:.0f}"
        if isinstance(x, float)
        else str(x)
    )


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
    return f"{cpu()}, {os.cpu_count()} cores, {threads} thread(s); Python {platform.python_version()}, {', '.join(got)}"  # noqa: E501


def best(f, repeats):  # a function, how often
    """The shortest of some wall clock times in seconds: what it takes when nobody else needs the
    processor"""
    times = []
    for _ in range(repeats):
        t = time.perf_counter()
        f()
        times.append(time.perf_counter() - t)
    return min(times)


def real_data(name):  # e.g. "grid_clips"
    "A folder of real data ($AVKIT_DATA, or shared/data beside the clone), or None"
    root = Path(os.environ.get("AVKIT_DATA") or Path(__file__).resolve().parents[2] / "shared/data")
    return root / name if (root / name).is_dir() else None
