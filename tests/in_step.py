"""Notebooks are clean and avkit/ is what they export: compare the tree with what nbdev makes of it, in a copy.

Run by `make test`; `make export` mends what it finds.
"""
import filecmp, json, shutil, subprocess, sys, tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent


def main():
    with tempfile.TemporaryDirectory() as d:
        copy = Path(d) / "avkit"
        skip = shutil.ignore_patterns(".venv", ".avkit", ".git", "runs", "__pycache__", "*.egg-info")
        shutil.copytree(ROOT, copy, ignore=skip)
        shutil.rmtree(copy / "avkit")
        shutil.copytree(ROOT / "avkit", copy / "avkit", ignore=shutil.ignore_patterns("__pycache__"))
        for command in ("nbdev_clean", "nbdev_export"):
            subprocess.run([BIN / command], cwd=copy, check=True, stdout=subprocess.DEVNULL)
        off = [p.relative_to(copy) for top in ("nbs", "avkit") for p in sorted((copy / top).rglob("*"))
               if p.suffix in (".ipynb", ".py") and not same(p, ROOT / p.relative_to(copy))]
        lost = [p.relative_to(ROOT) for p in sorted((ROOT / "avkit").rglob("*.py")) if not (copy / p.relative_to(ROOT)).exists()]
    for p in off + lost: print(f"{p}: not what `make export` makes", file=sys.stderr)
    return bool(off + lost)


def same(a, b):
    if not b.exists(): return False
    return json.loads(a.read_text()) == json.loads(b.read_text()) if a.suffix == ".ipynb" else filecmp.cmp(a, b, shallow=False)


if __name__ == "__main__":
    sys.exit(main())
