"""The parameters cells of the run notebooks are written from the declared settings: `--write` does it, else it checks."""
import sys
from pathlib import Path

import nbformat

from avkit.cli import PREPARE_SETTINGS
from avkit.training import recipes  # noqa: F401 its names are choices
from avkit.training.settings import FLAGS, parameters_cell

ROOT = Path(__file__).parents[2]
CELLS = {
    "train": parameters_cell(FLAGS),
    "prepare": parameters_cell([n for n in FLAGS if n in PREPARE_SETTINGS]),
}


def stale(root: Path = ROOT, write: bool = False) -> list[str]:
    "Notebooks whose parameters are not the declared ones"
    out = []
    for name, source in CELLS.items():
        path = root / f"nbs/{name}.ipynb"
        nb = nbformat.read(path, 4)
        cell = next(c for c in nb.cells if "parameters" in c.metadata.get("tags", []))
        if cell.source != source:
            out.append(f"nbs/{name}.ipynb: its parameters are not the declared settings: make export")
        if write and cell.source != source:
            cell.source = source
            nbformat.write(nb, path)
    return out


def main() -> int:
    "Print what is stale, or mend it"
    write = "--write" in sys.argv[1:]
    found = stale(write=write)
    if found and not write:
        print(*found, sep="\n")
    return int(bool(found) and not write)


if __name__ == "__main__":
    sys.exit(main())
