"""How exported cells read, in numbers, beside those of notebooks worth imitating.

    python tests/checks/measures.py                          a Markdown table for the whole tree
    python tests/checks/measures.py --by-notebook            the same, a line per notebook
    python tests/checks/measures.py --worst 10               what to work on first
    python tests/checks/measures.py --notebook nbs/3_models  one notebook or folder
    python tests/checks/measures.py --check                  exit status 1 when a limit is missed

The models are fastcore, nbdev, execnb, claudette and miniai. Tokens are those of `tokenize`
without layout and comments; an f-string is one, whatever the Python; a docstring counts in a line,
but not in a function.
"""

import argparse
import ast
import statistics
import sys
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that this file runs on its own
from checks.cells import ROOT, Cell, Definition, counted, files, read_notebook

WIDTH = 100
TESTS = ("test_", "assert_")  # fastcore's `test_eq(...)` asserts, and shows nothing
FunctionDef = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Measure:
    "One line of the table"

    title: str
    kind: str  # "share" or "median"
    models: str  # the models' number
    start: str  # ours when we began to measure
    limit: float | None = None
    at_least: bool = False  # is `limit` a lower one?

    def holds(self, value: float | None) -> bool:
        "Is `value` within the limit? A share stays below an upper one, a median may reach it"
        if self.limit is None or value is None:
            return True
        if self.at_least:
            return value >= self.limit
        return value < self.limit if self.kind == "share" else value <= self.limit

    def show(self, value: float | None) -> str:
        "22.6 % of a share, 89 of a median, - of nothing"
        if value is None:
            return "-"
        return f"{100 * value:.1f} %" if self.kind == "share" else f"{value:g}"

    @property
    def wanted(self) -> str:
        "The limit in words"
        if self.limit is None:
            return ""
        if self.kind == "median":
            return f"at most {self.limit:g}"
        return f"{'at least' if self.at_least else 'under'} {100 * self.limit:.0f} %"


MEASURES = dict(
    long=Measure(f"lines over {WIDTH} columns", "share", "2-8 %", "23 %", 0.02),
    function=Measure("tokens a function", "median", "34-66", "89", 70),
    line=Measure("tokens a line", "median", "6-9", "12"),
    packed=Measure("cells with three definitions or more", "share", "2-11 %", "24 %", 0.1),
    example=Measure("cells followed by a shown example", "share", "57-74 %", "32 %", 0.65, True),
    typed=Measure("public parameters with a type", "share", "4-39 %", "1 %", 0.8, True),
    spread=Measure(
        "public functions of three or more parameters, one commented parameter a line",
        "share",
        "",
        "0 %",
        0.95,
        True,
    ),
)
WORST = dict(  # what `--worst` calls them, where the measure's title is the good side
    example="cells without a shown example",
    typed="public parameters without a type",
    spread="three or more parameters, not one commented parameter a line",
)
SHORT = dict(  # heads of the table by notebook
    long="over 100 columns",
    function="tokens a function",
    line="tokens a line",
    packed="three definitions",
    example="example shown",
    typed="typed",
    spread="one parameter a line",
)


@dataclass(frozen=True)
class Found:
    "One thing that was measured: a line, a function, a cell"

    key: str  # which measure
    where: str
    what: str
    value: float  # of a share how many of `of`, of a median the number itself
    bad: float  # how much it is in the way, for `--worst`
    of: int = 1


def value(found: list[Found], kind: str) -> float | None:
    "The share or the median over what was found; None where there is nothing"
    if kind == "median":
        return statistics.median(f.value for f in found) if found else None
    total = sum(f.of for f in found)
    return sum(f.value for f in found) / total if total else None


# What a cell holds


def is_definition(s: ast.stmt) -> bool:
    "A function, a class, or `f = lambda ...`"
    if isinstance(s, ast.Assign):
        return isinstance(s.value, ast.Lambda)
    return isinstance(s, Definition)


def is_import(s: ast.stmt) -> bool:
    return isinstance(s, (ast.Import, ast.ImportFrom))


def is_assertion(s: ast.stmt) -> bool:
    "`assert ...`, or a call such as `test_eq(...)`"
    if isinstance(s, ast.Assert):
        return True
    call = s.value if isinstance(s, ast.Expr) else None
    name = call.func if isinstance(call, ast.Call) else None
    return (name.id if isinstance(name, ast.Name) else getattr(name, "attr", "")).startswith(TESTS)


def needs_example(cell: Cell) -> bool:
    "Does an exported cell hold more than imports and `if __name__ == ...`?"
    is_start = lambda s: isinstance(s, ast.If) and "__name__" in ast.unparse(s.test)
    return any(not (is_import(s) or is_start(s)) for s in cell.tree.body)


def is_example(cell: Cell) -> bool:
    "Does a cell show something: an output, a value at its end, an error?"
    body = cell.tree.body
    if cell.exported or "hide" in cell.directives:
        return False
    if all(is_import(s) or is_assertion(s) for s in body):
        return False
    if cell.has_outputs or isinstance(body[-1], (ast.Raise, ast.Try)):
        return True
    return isinstance(body[-1], ast.Expr) and not is_assertion(body[-1])


def functions(cell: Cell) -> Iterator[FunctionDef]:
    "Functions, methods and inner functions"
    return (n for n in ast.walk(cell.tree) if isinstance(n, FunctionDef))


def is_public(name: str) -> bool:
    return not name.startswith("_") or name in ("__init__", "__call__")


def public_functions(cell: Cell) -> Iterator[tuple[str, FunctionDef, int]]:
    "Public functions and methods: name, function, how many parameters to skip (self)"
    for s in cell.tree.body:
        if isinstance(s, FunctionDef) and is_public(s.name):
            yield s.name, s, 0
        if not isinstance(s, ast.ClassDef) or not is_public(s.name):
            continue
        for f in s.body:
            if not isinstance(f, FunctionDef) or not is_public(f.name):
                continue
            static = "staticmethod" in map(ast.unparse, f.decorator_list)
            yield f"{s.name}.{f.name}", f, int(not static)


def parameters(f: FunctionDef, skip: int) -> list[ast.arg]:
    "Parameters but for self, `*args` and `**kwargs`"
    return [*f.args.posonlyargs, *f.args.args][skip:] + f.args.kwonlyargs


def one_a_line(f: FunctionDef, args: list[ast.arg], comments: set[int]) -> bool:
    "Does each of `args` have a line (or lines) of its own that holds a comment?"
    starts = [a.lineno for a in args]
    ends = [*starts[1:], max(f.body[0].lineno, starts[-1] + 1)]
    if starts[0] == f.lineno or len(set(starts)) < len(starts):
        return False
    return all(comments & set(range(a, b)) for a, b in zip(starts, ends, strict=True))


# What is measured


def docstrings(tree: ast.Module) -> set[tuple[int, int]]:
    "Where docstrings begin"
    return {
        (n.body[0].lineno, n.body[0].col_offset)
        for n in ast.walk(tree)
        if isinstance(n, Definition) and ast.get_docstring(n, clean=False) is not None
    }


def lines(cell: Cell) -> Iterator[Found]:
    "How wide each line is, and how many tokens it holds"
    for i, line in enumerate(cell.source.splitlines(), 1):
        if not line.strip() or line.startswith("#|"):
            continue
        over = max(0, len(line) - WIDTH)
        yield Found("long", cell.at(i), f"{len(line)} columns", over > 0, over)
    for i, count in Counter(t.start[0] for t in counted(cell.tokens)).items():
        yield Found("line", cell.at(i), f"{count} tokens", count, count)


def weights(cell: Cell) -> Iterator[Found]:
    "How many tokens each function holds, its decorators and inner functions included"
    skip = docstrings(cell.tree)
    at = [t.start[0] for t in counted(cell.tokens) if t.start not in skip]
    for f in functions(cell):
        first = min([f.lineno, *(d.lineno for d in f.decorator_list)])
        count = sum(first <= n <= (f.end_lineno or n) for n in at)
        yield Found("function", cell.at(first), f"{f.name}, {count} tokens", count, count)


def definitions(cell: Cell) -> Iterator[Found]:
    "How many functions and classes a cell defines; a cell of imports does not count"
    if all(map(is_import, cell.tree.body)):
        return
    names = [getattr(s, "name", "a lambda") for s in cell.tree.body if is_definition(s)]
    over = max(0, len(names) - 2)
    yield Found("packed", cell.at(1), ", ".join(names), over > 0, over)


def signatures(cell: Cell) -> Iterator[Found]:
    "How many parameters of a public function have a type; are they written one a line?"
    comments = {t.start[0] for t in cell.tokens if t.type == tokenize.COMMENT}
    for name, f, own in public_functions(cell):
        args, where = parameters(f, own), cell.at(f.lineno)
        bare = [a.arg for a in args if a.annotation is None]
        typed = len(args) - len(bare)
        yield Found("typed", where, f"{name}({', '.join(bare)})", typed, len(bare), len(args))
        if len(args) < 3:
            continue
        good = one_a_line(f, args, comments)
        bad = 0 if good else len(args)
        yield Found("spread", where, f"{name}, {len(args)} parameters", good, bad)


def measure_notebook(cells: list[Cell]) -> list[Found]:
    "All that is measured in a notebook"
    out = []
    for cell, after in zip(cells, [*cells[1:], None], strict=True):
        if not cell.exported:
            continue
        for measured in (lines, weights, definitions, signatures):
            out += measured(cell)
        if needs_example(cell):
            shown = after is not None and is_example(after)
            names = [s.name for s in cell.tree.body if isinstance(s, Definition)]
            what = ", ".join(names) or ast.unparse(cell.tree.body[0]).splitlines()[0][:60]
            out.append(Found("example", cell.at(1), what, shown, 0 if shown else 1))
    return out


def room(found: list[Found], limit: float | None) -> int:
    "How many that are above the limit may join before the median is"
    light = sum(f.value <= (limit or 0) for f in found)
    return max(0, 2 * light - len(found) - 1)


def by_key(found: list[Found]) -> dict[str, list[Found]]:
    "What was found for each measure"
    out = defaultdict(list)
    for f in found:
        out[f.key].append(f)
    return out


# What is printed


def table(found: list[Found]) -> str:
    "A Markdown table: ours now, where we began, what the models have, the limit, whether it holds"
    groups = by_key(found)
    rows = ["| measure | now | before | models | limit | |", "|---|--:|--:|--:|--:|---|"]
    for key, m in MEASURES.items():
        now = value(groups[key], m.kind)
        verdict = "" if m.limit is None else "holds" if m.holds(now) else "**missed**"
        if verdict == "holds" and m.kind == "median":
            verdict += f", room for {room(groups[key], m.limit)} heavier ones"
        kind = "median " if m.kind == "median" else ""
        cells = [kind + m.title, m.show(now), m.start, m.models, m.wanted, verdict]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def table_by_notebook(found: dict[str, list[Found]]) -> str:
    "A Markdown table with a line per notebook; what misses its limit is bold"
    heads = " | ".join(SHORT[key] for key in MEASURES)
    rows = [f"| notebook | {heads} |", "|---|" + "--:|" * len(MEASURES)]
    for path, here in found.items():
        groups, cells = by_key(here), []
        for key, m in MEASURES.items():
            now = value(groups[key], m.kind)
            cells.append(m.show(now) if m.holds(now) else f"**{m.show(now)}**")
        rows.append(f"| {path} | {' | '.join(cells)} |")
    return "\n".join(rows)


def worst(found: list[Found], n: int) -> str:
    "The `n` that are most in the way, for each measure"
    groups, out = by_key(found), []
    for key, m in MEASURES.items():
        bad = sorted((f for f in groups[key] if f.bad), key=lambda f: -f.bad)
        if not bad:
            continue
        out += ["", f"{WORST.get(key, m.title)}:"]
        out += [f"  {f.where}  {f.what}" for f in bad[:n]]
    return "\n".join(out[1:])


def misses(found: list[Found]) -> list[str]:
    "A message for each limit that is missed"
    groups, out = by_key(found), []
    for key, m in MEASURES.items():
        now = value(groups[key], m.kind)
        if m.holds(now):
            continue
        mend = "split the heaviest" if m.kind == "median" else "mend some"
        out.append(
            f"{m.title}: {m.show(now)}, wanted {m.wanted} of all notebooks together: "
            f"{mend} that `python tests/checks/measures.py --worst 20` names, or of your own."
        )
    return out


def main(argv: list[str]) -> int:
    p = argparse.ArgumentParser("measures.py", description="How code in notebooks reads.")
    flag = p.add_argument
    flag("--check", action="store_true", help="exit status 1 when a limit is missed")
    flag("--by-notebook", action="store_true", help="a line per notebook")
    flag("--worst", type=int, default=0, metavar="N", help="name the N worst of each measure")
    flag("--notebook", type=Path, default=ROOT / "nbs", help="one notebook or folder")
    a = p.parse_args(argv)
    if not a.notebook.exists():
        p.error(f"no {a.notebook}: name a notebook or a folder of them")
    read = (read_notebook(path) for path in files(a.notebook.resolve(), ".ipynb"))
    measured = {cells[0].path: measure_notebook(cells) for cells in read if cells}
    found = {path: here for path, here in measured.items() if here}
    everything = [f for here in found.values() for f in here]
    print(table_by_notebook(found) if a.by_notebook else table(everything))
    if a.worst:
        print("\n" + worst(everything, a.worst))
    missed = misses(everything)
    if a.check:
        print(*missed, sep="\n", file=sys.stderr)
    return int(a.check and bool(missed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
