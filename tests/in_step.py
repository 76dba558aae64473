"""Notebooks are clean, and avkit/ is what they export and no more.

    python tests/in_step.py [ROOT]
    python tests/in_step.py --widgets    # drop what nbdev_clean keeps: the state of progress bars

nbdev works on a copy, in which avkit/ holds no module yet; then the two trees are compared.
"""

import filecmp
import json
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from checks.cells import files, read_notebook

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
BY_HAND = {"__init__.py", "__main__.py"}  # no notebook exports these


def check(root: Path = ROOT) -> list[str]:
    "A message for each file that is not what nbdev makes, and for each module with two notebooks"
    with tempfile.TemporaryDirectory() as d:
        copy = Path(d) / "avkit"
        copy_sources(root, copy)
        export(copy)
        return twice(root) + changed(root, copy) + stale(root, copy)


def export(root: Path) -> None:
    "What `make export` does"
    for command in ("nbdev_clean", "nbdev_export"):
        subprocess.run([BIN / command], cwd=root, check=True, stdout=subprocess.DEVNULL)
    drop_widgets(root)


def drop_widgets(root: Path) -> None:
    "Take the state of widgets out of notebooks: hundreds of kilobytes that nothing shows"
    for path in files(root / "nbs", ".ipynb"):
        text = path.read_text(encoding="utf-8")
        if '"widgets"' not in text:
            continue
        notebook = json.loads(text)
        if notebook["metadata"].pop("widgets", None) is None:
            continue
        text = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True)
        path.write_text(text + "\n", encoding="utf-8")


def copy_sources(root: Path, copy: Path) -> None:
    "The notebooks, what of avkit/ is written by hand, and the files at the top"
    skip = shutil.ignore_patterns(".*", "__pycache__")
    shutil.copytree(root / "nbs", copy / "nbs", ignore=skip)
    for p in [*root.iterdir(), *files(root / "avkit", ".py")]:
        if p.is_dir() or p.parent != root and p.name not in BY_HAND:
            continue
        to = copy / p.relative_to(root)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(p, to)


def twice(root: Path) -> list[str]:
    "Modules that two notebooks export: the later one overwrites the other"
    sources = defaultdict(list)
    for path in files(root / "nbs", ".ipynb"):
        named = {c.directives.get("default_exp") for c in read_notebook(path, root)} - {None}
        for module in named:
            sources[module].append(path.relative_to(root).as_posix())
    return [
        f"avkit.{module} is exported by {' and by '.join(paths)}: "
        "change `#| default_exp` in all but one."
        for module, paths in sorted(sources.items())
        if len(paths) > 1
    ]


def changed(root: Path, copy: Path) -> list[str]:
    "Notebooks that are not clean, modules that are not what their notebook exports"
    out = []
    for made in [*files(copy / "nbs", ".ipynb"), *files(copy / "avkit", ".py")]:
        path = made.relative_to(copy)
        if same(made, root / path):
            continue
        fault = "not clean" if path.suffix == ".ipynb" else "not what its notebook exports"
        out.append(f"{path}: {fault}: edit notebooks only, then run `make export`.")
    return out


def stale(root: Path, copy: Path) -> list[str]:
    "Modules that no notebook exports"
    paths = [p.relative_to(root) for p in files(root / "avkit", ".py")]
    return [
        f"{p}: no notebook exports it: `git rm {p}`, or write the notebook."
        for p in paths
        if not (copy / p).exists()
    ]


def same(made: Path, ours: Path) -> bool:
    "Are two files alike? Notebooks by what they say, not by how their JSON is indented"
    if not ours.exists():
        return False
    if made.suffix == ".py":
        return filecmp.cmp(made, ours, shallow=False)
    a, b = (json.loads(p.read_text(encoding="utf-8")) for p in (made, ours))
    return a == b


def main(argv: list[str]) -> int:
    "Print what is out of step; the exit status is 1 when something is"
    if argv == ["--widgets"]:
        drop_widgets(ROOT)
        return 0
    messages = check(Path(argv[0]).resolve() if argv else ROOT)
    print(*messages, sep="\n", end="\n" if messages else "", file=sys.stderr)
    return int(bool(messages))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
