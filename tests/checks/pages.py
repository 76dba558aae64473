"""What the registries say stands in pages: tables of fusions, papers, data sets, encoders.

Notebooks of papers are written whole; so are rows and notebooks that a new data set lacks.

`--write` does it, else it checks. A page marks the place: `<!-- papers -->` ... `<!-- /papers -->`.
"""

import inspect
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import nbformat

from avkit.core import AvkitError, unknown
from avkit.datasets.features import AUDIO_FEATURES
from avkit.datasets.manifest import corpus_info
from avkit.markup import markdown_text
from avkit.datasets.registry import as_arguments, corpus_module, corpus_names
from avkit.models.encoders import AUDIO_ENCODERS, VIDEO_ENCODERS
from avkit.models.fusion import FUSIONS, PLACES, Fusion
from avkit.reports.index import real_results
from avkit.reports.papers import STUDIES, paper_notebook_text, study_of
from avkit.reports.skeletons import corpus_notebook_text, left_of_skeleton
from avkit.training.configure import audio_makers, option_defaults
from avkit.training.recipes import RECIPES

ROOT = Path(__file__).parents[2]
FORM = re.compile(r"`(\w+)`, ([^(:]+?)(?: \(([^)]+)\))?: (.+)")
README, MAP, FACTS = "README.md", "nbs/README.md", "nbs/papers/README.md"
KNOWN = "each method, the defects of its code and what avkit does about them, all known numbers"
FUSION_NOTEBOOK = "nbs/3_models/05_fusion.ipynb"
RECIPE_NOTEBOOK = "nbs/4_training/02_recipes.ipynb"
STUDY_NOTEBOOK = "nbs/6_reports/04_papers.ipynb"
ROOM = "nbs/2_datasets"
STEPS = "nbs/papers/steps"


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


def names(makers: Mapping[str, Callable], *, vectors: bool, own: bool = False) -> str:
    "The encoders that read vectors, or pictures; `own`: those that must be told how wide they are"
    found = {k: inspect.signature(f).parameters.get("n_in") for k, f in makers.items()}
    fit = {k: (p is not None) == vectors for k, p in found.items()}
    told = {k: p is not None and p.default is p.empty for k, p in found.items()}
    return ", ".join(f"`{k}`" for k in makers if fit[k] and (told[k] or not own))


def readers() -> Iterator[tuple[str, str, str]]:
    "What a clip is read as, its shape (N clips), and which encoders take that"
    for kind, feature in AUDIO_FEATURES.items():
        what = (feature.__doc__ or "").splitlines()[0]
        axes = what.partition(")")[0].count(",")
        takes = "none: `audio_backbone=` does"
        if axes > 1:
            takes = names(AUDIO_ENCODERS, vectors=axes == 2)
        yield f'`audio="{kind}"`', what, takes
    for kind, makers in (("audio", AUDIO_ENCODERS), ("video", VIDEO_ENCODERS)):
        if kind == "video":
            yield "frames", "(N,T,3,H,W)", names(makers, vectors=False)
        takes = names(makers, vectors=True, own=True)
        yield f"`{kind}_backbone=`, or one's own `{kind}_features=`", "(N,T,F)", takes


def defaults(*makers: Callable) -> str:
    "Options and their defaults, as one writes them; `rate` comes from the preparation"
    known = option_defaults(*makers).items()
    return ", ".join(f"`{k}={v!r}`" for k, v in known if k != "rate") or "none"


def options() -> Iterator[tuple[str, str, str]]:
    "Of each audio feature and encoder: what it does, and its options"
    for kind in AUDIO_FEATURES:
        first, *more = audio_makers(kind)
        maker = first if option_defaults(first) or not more else more[0]
        what = (maker.__doc__ or "").splitlines()[0]
        yield f'`audio="{kind}"`', what, defaults(first, *more)
    both = dict(audio=AUDIO_ENCODERS, video=VIDEO_ENCODERS)
    for name, maker in {**AUDIO_ENCODERS, **VIDEO_ENCODERS}.items():
        what = (maker.__doc__ or "").splitlines()[0]
        yield f"`{name}` ({', '.join(s for s in both if name in both[s])})", what, defaults(maker)


def parts() -> Iterator[tuple[str, str, str]]:
    "What stands between marks: page, mark, text"
    rows = [told(name, block) for name, block in FUSIONS.items()]
    called = (f"{name} ({title.split(' (')[0]})" for name, title, *_ in rows)
    yield README, "fusions", ", ".join(called)
    head = ["name", "what it is called", "where, of the encoders' stages", "what it does"]
    yield FUSION_NOTEBOOK, "fusions", table(head, rows)
    yield README, "datasets", ", ".join(f"`{n}`" for n in corpus_names() if n != "folder")
    head = ["what is read", "its shape", "which encoders read it"]
    yield RECIPE_NOTEBOOK, "readers", table(head, readers())
    head = ["feature or encoder", "what it does", "its options"]
    yield RECIPE_NOTEBOOK, "options", table(head, options())
    head = ["recipe", "method", "data sets of the paper", "its own variants (`--variants`)"]
    yield README, "papers", table(head, ((f"`{k}`", *more) for k, *more in papers()))
    rows = [(f"[{k}](papers/{k}.ipynb)", STUDIES[k].claim) for k in STUDIES]
    rows.append(("[the facts](papers/README.md)", KNOWN))
    yield MAP, "papers", table(["recipe", "which claim the notebook tries"], rows)
    links = ((f"[`{k}`](#{k})", *more[:2], f"[{k}.ipynb]({k}.ipynb)") for k, *more in papers())
    yield FACTS, "papers", table(["recipe", "method", "data sets of the paper", "notebook"], links)
    yield README, "results", results()


def results() -> str:
    "The reports on real data: what each found, and the figure of the first"
    found = real_results()
    rows = ((f"[{e['title']}](reports/{e['name']}/table.md)", e["headline"]) for e in found)
    drawn = [e for e in found if e["figure"]][:1]
    figures = [f"\n![{e['title']}](reports/{e['name']}/{e['figure']})\n" for e in drawn]
    return table(["on real data", "in short"], rows) + "".join(figures)


def step_row(name: str, step: Mapping[str, Any]) -> tuple[str, ...]:
    "A step as a line of the table: its name and quirks, what is said of it, what is left out"
    quirks = ", ".join(map("`{}`".format, step.get("quirks", [])))
    said = [step[k] for k in ("paper", "released", "as_described", "as_released")]
    if left_out := step.get("not_brought_back"):
        said[-1] += f". **Not brought back:** {left_out}"
    if quirks:
        said[-1] += f" ({quirks})"
    return name.replace("_", " "), *(s.replace("|", "\\|") for s in said)


def step_tables(root: Path) -> Iterator[tuple[str, str, str]]:
    "The steps of each paper's data pipeline, by its file in nbs/papers/steps"
    head = ["step", "the paper", "its released code", "`as_described`", "`as_released`"]
    for path in sorted((root / STEPS).glob("*.toml")):
        steps = tomllib.loads(path.read_text(encoding="utf-8"))
        yield FACTS, f"steps {path.stem}", table(head, (step_row(*s) for s in steps.items()))


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


def rows_of(name: str, root: Path) -> Iterator[tuple[str, str, str]]:
    "The rows that tell of a data set, by its facts: page, mark of the table, row"
    info = corpus_info(name)
    choices = info.get("choices", {}).items()
    asks = "; ".join(f"`--{k} {'` or `'.join(v)}`" for k, v in choices)
    labels = ", ".join(info["classes"] or info.get("targets", []))
    title, get, labels = map(markdown_text, (info["title"], info["how_to_get"], labels))
    said = dict(asks=asks, labels=labels, get=get, shows=f"{title}: {labels}")
    said |= dict(question=f"What is in {title}, and what do its labels say?")
    said |= info.get("pages", {})
    if name != "folder":
        yield README, "corpora", f"| `{name}` | {said['asks']} | {said['labels']} | {said['get']} |"
    yield MAP, "corpora", f"| [{name}](corpora/{name}.ipynb) | {said['shows']} |"
    for p in (root / ROOM).glob(f"[0-9][0-9]_{name}.ipynb"):
        link = p.relative_to(root / "nbs").as_posix()
        yield MAP, "2_datasets", f"| [{p.stem}]({link}) | {said['question']} |"


def with_row(text: str, page: str, mark: str, row: str) -> str:
    "A page with this row in its table at the mark: in place of one that begins like it, or last"
    found = re.search(rf"(?<=<!-- {mark} -->)\n.*?(?=<!-- /{mark} -->)", text, re.S)
    if found is None:
        raise AvkitError(f"{page}: <!-- {mark} --> or <!-- /{mark} --> is missing")
    begin = re.escape("|".join(row.split("|")[:2]) + "|")
    new, n = re.subn(rf"(?<=\n){begin}.*", lambda _: row, found[0])
    return text[: found.start()] + (new if n else f"{new}{row}\n") + text[found.end() :]


def pages(root: Path) -> dict[str, str]:
    "Each page as it should be, the notebooks of papers, and what a data set lacks"
    out: dict[str, str] = {}
    for page, mark, new in (*parts(), *step_tables(root)):
        text = out.get(page) or (root / page).read_text(encoding="utf-8")
        if f"<!-- {mark} -->" not in text or f"<!-- /{mark} -->" not in text:
            raise AvkitError(f"{page}: <!-- {mark} --> or <!-- /{mark} --> is missing")
        out[page] = filled_page(text, mark, new, page.endswith(".ipynb"))
    for name in corpus_names():
        for page, mark, row in rows_of(name, root):
            out[page] = with_row(out[page], page, mark, row)
        path = root / (book := f"nbs/corpora/{name}.ipynb")
        there = path.is_file()
        out[book] = path.read_text(encoding="utf-8") if there else corpus_notebook_text(name)
    return out | {f"nbs/papers/{key}.ipynb": paper_notebook_text(key) for key in STUDIES}


def left_over() -> Iterator[str]:
    "Sentences of a skeleton that nobody replaced"
    said = []
    for k, block in FUSIONS.items():
        said.append((f"{FUSION_NOTEBOOK}: the docstring of `{k}`", told(k, block)[3]))
    for k, s in STUDIES.items():
        said.append((f"{RECIPE_NOTEBOOK}: `about` of `{k}`", RECIPES[k]["about"]))
        said.append((f"{STUDY_NOTEBOOK}: `claim` of `{k}`", s.claim))
        said += [(f"{STUDY_NOTEBOOK}: `differs` of `{k}`", d) for d in s.differs]
    for k in corpus_names():
        first = (corpus_module(k).__doc__ or "").strip()
        said.append((f"{ROOM}: the line below the heading of `{k}`", first))
    for where, text in said:
        if left_of_skeleton(text):
            yield f"{where} is still the skeleton's: say what yours is"


def stale(root: Path = ROOT, write: bool = False) -> list[str]:
    "What is not as the registries say, and papers that the page of facts does not tell of"
    out = []
    for name, text in pages(root).items():
        path = root / name
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        if write:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        else:
            out.append(f"{name} is not what the registries say: make export")
    out += left_over()
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
