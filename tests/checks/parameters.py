"""The parameters cells of run notebooks are written from declared settings and from functions.

`--write` does it, else it checks.
"""

import inspect
import sys
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nbformat

from avkit.cli import PREPARE_SETTINGS
from avkit.evaluation.annotate import PREDICT_HELP, predict_to
from avkit.evaluation.evaluate import EVALUATE_HELP, evaluate
from avkit.training import recipes  # noqa: F401 its names are choices
from avkit.training.settings import FLAGS, json_like, parameters_cell

ROOT = Path(__file__).parents[2]
WIDTH = 100


def cell_of(f: Callable, helps: Mapping[str, str], **defaults: Any) -> str:
    "Parameters of a function that have a line of help; some with another default in the notebook"
    heads = {}
    for name, p in inspect.signature(f).parameters.items():
        if name not in helps:
            continue
        kind = (typing.get_args(p.annotation) or (p.annotation,))[0]
        value = defaults.get(name, p.default)
        heads[name] = f"{name}: {kind.__name__} = {json_like(value)}"
    longest = max(map(len, helps.values()))
    align = max(len(h) for h in heads.values() if len(h) + len("  # ") + longest <= WIDTH)
    return "\n".join(f"{h:<{align}}  # {helps[name]}" for name, h in heads.items())


CELLS = {
    "train": parameters_cell(FLAGS),
    "prepare": parameters_cell([n for n in FLAGS if n in PREPARE_SETTINGS]),
    "evaluate": cell_of(
        evaluate, EVALUATE_HELP, conditions="av,audio,video,audio_snr_10dB,video_lost_50"
    ),
    "predict": cell_of(predict_to, PREDICT_HELP),
}


def stale(root: Path = ROOT, write: bool = False) -> list[str]:
    "Notebooks whose parameters are not the declared ones"
    out = []
    for name, source in CELLS.items():
        path = root / f"nbs/{name}.ipynb"
        nb = nbformat.read(path, 4)
        cell = next(c for c in nb.cells if "parameters" in c.metadata.get("tags", []))
        if cell.source != source:
            out.append(f"nbs/{name}.ipynb: its parameters are not the declared ones: make export")
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
