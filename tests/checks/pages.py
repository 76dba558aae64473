"""Tables of fusions and papers are written from the registries; so are the notebooks of papers.

`--write` does it, else it checks. A page marks the place: `<!-- papers -->` ... `<!-- /papers -->`.
"""

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import nbformat

from avkit.core import AvkitError, unknown
from avkit.datasets.registry import as_arguments
from avkit.models.fusion import FUSIONS, PLACES, Fusion
from avkit.reports.papers import STUDIES, paper_notebook_text, study_of
from avkit.training.recipes import RECIPES

ROOT = Path(__file__).parents[2]
FORM = re.compile(r"`(\w+)`, ([^(:]+?)(?: \(([^)]+)\))?: (.+)")
README, MAP, FACTS = "README.md", "nbs/README.md", "nbs/papers/README.md"
KNOWN = "each method, the defects of its code and what avkit does about them, all known numbers"
FUSION_NOTEBOOK = "nbs/3_models/05_fusion.ipynb"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    "A Markdown table"
    head = list(head)
    lines = [head, ["---"] * len(head), *map(list, rows)]
    return "".join(f"\n| {' | '.join(line)} |" for line in lines).replace("| --- ", "|---") + "\n"


def told(name: str, block: type[Fusion]) -> tuple[str, str, str, str]:
    "Name, what a fusion is called and by whom, where it acts, what it does: by its docstring"
    first = (block.__doc__ or "").strip().splitlines()[:1]
    found = FORM.fullmatch(first[0]) if first else None
    if found is None or found[1] != name:
        raise AvkitError(
            f"{FUSION_NOTEBOOK}: the first line of {block.__name__}'s docstring should be "
            f'"`{name}`, what it is called (its source): what it does"; it is {first}'
        )
    called = f"{found[2]} ({found[3]})" if found[3] else found[2]
    where = " and ".join(PLACES[p] for p in block.places()) or "the head alone"
    return f"`{name}`", called, where, found[4]


def data_of(key: str) -> Iterator[str]:
    "The data sets of a paper, as a command line names them"
    for name in (None, *STUDIES[key].also):
        settings = as_arguments(study_of(key, name).data)
        yield f"`{settings.removeprefix('--dataset ')}`"


def papers() -> Iterator[tuple[str, str, str, str]]:
    "Of each paper: name, method, data sets, variants"
    for key in STUDIES:
        if key not in RECIPES:
            raise unknown("recipe", key, RECIPES)
        r = RECIPES[key]
        variants = ", ".join(map("`{}`".format, r.get("variants", {})))
        yield key, r["about"], ", ".join(data_of(key)), variants


def parts() -> Iterator[tuple[str, str, str]]:
    "What stands between marks: page, mark, text"
    rows = [told(name, block) for name, block in FUSIONS.items()]
    names = (f"{name} ({called.split(' (')[0]})" for name, called, *_ in rows)
    yield README, "fusions", ", ".join(names)
    head = ["name", "what it is called", "where, of the encoders' stages", "what it does"]
    yield FUSION_NOTEBOOK, "fusions", table(head, rows)
    head = ["recipe", "method", "data sets of the paper", "its own variants (`--variants`)"]
    yield README, "papers", table(head, ((f"`{k}`", *more) for k, *more in papers()))
    rows = [(f"[{k}](papers/{k}.ipynb)", STUDIES[k].claim) for k in STUDIES]
    rows.append(("[the facts](papers/README.md)", KNOWN))
    yield MAP, "papers", table(["recipe", "which claim the notebook tries"], rows)
    links = ((f"[`{k}`](#{k})", *more[:2], f"[{k}.ipynb]({k}.ipynb)") for k, *more in papers())
    yield FACTS, "papers", table(["recipe", "method", "data sets of the paper", "notebook"], links)


def filled(text: str, mark: str, new: str) -> str:
    "A text with this between its marks"
    between = re.compile(rf"(?<=<!-- {mark} -->).*?(?=<!-- /{mark} -->)", re.S)
    return between.sub(lambda _: new, text)


def filled_page(text: str, mark: str, new: str, notebook: bool) -> str:
    "A page, or the Markdown cells of a notebook, with this between marks"
    if not notebook:
        return filled(text, mark, new)
    nb = nbformat.reads(text, 4)
    cells = [c for c in nb.cells if c.cell_type == "markdown"]
    found = [filled(c.source, mark, new) for c in cells]
    if found == [c.source for c in cells]:
        return text
    for cell, source in zip(cells, found):
        cell.source = source
    return nbformat.writes(nb) + "\n"


def pages(root: Path) -> dict[str, str]:
    "Each page as it should be, and the notebooks of papers"
    out: dict[str, str] = {}
    for page, mark, new in parts():
        text = out.get(page) or (root / page).read_text(encoding="utf-8")
        if f"<!-- {mark} -->" not in text or f"<!-- /{mark} -->" not in text:
            raise AvkitError(f"{page}: <!-- {mark} --> or <!-- /{mark} --> is missing")
        out[page] = filled_page(text, mark, new, page.endswith(".ipynb"))
    return out | {f"nbs/papers/{key}.ipynb": paper_notebook_text(key) for key in STUDIES}


def stale(root: Path = ROOT, write: bool = False) -> list[str]:
    "What is not as the registries say, and papers that the page of facts does not tell of"
    out = []
    for name, text in pages(root).items():
        path = root / name
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        if write:
            path.write_text(text, encoding="utf-8")
        else:
            out.append(f"{name} is not what the registries say: make export")
    headings = re.findall(r"^## (\w+)$", (root / FACTS).read_text(encoding="utf-8"), re.M)
    return out + [f"{FACTS}: no section ## {k}" for k in STUDIES if k not in headings]


def main() -> int:
    "Print what is stale, or mend it"
    write = "--write" in sys.argv[1:]
    try:
        found = stale(write=write)
    except AvkitError as e:
        print(e)
        return 1
    print(*found, sep="\n", end="\n" if found else "")
    return int(bool(found) and not write)


if __name__ == "__main__":
    sys.exit(main())
