"""One statement a line, and no statement in disguise: in notebooks, avkit/, tests and benchmarks.

    python tests/checks/style.py [ROOT]

A tuple, list, conditional expression, boolean operation or comprehension that stands alone as a
statement does its work in passing: `a.append(1), b.append(2)`, `ok or complain()`,
`[f(x) for x in y]`. The last statement of a cell that is not exported is what the cell shows, and
free.

What a notebook sets in a module that it imports, it also sets back: nbdev_test runs many notebooks
in one process.

A formula's commands begin with one backslash: two are a line break and a word.
"""

import ast
import json
import re
import sys
import tokenize
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that this file runs on its own
from checks.cells import ROOT, Cell, files, read_notebook, read_python

DISGUISES = {
    ast.Tuple: ("a tuple", "write its parts as statements, one a line"),
    ast.List: ("a list", "write its parts as statements, one a line"),
    ast.Set: ("a set", "write its parts as statements, one a line"),
    ast.Dict: ("a dictionary", "write its parts as statements, one a line"),
    ast.IfExp: ("a conditional expression", "write `if ...: ...` and `else: ...`"),
    ast.BoolOp: ("a boolean operation", "write `if ...: ...`"),
    ast.ListComp: ("a list comprehension", "write a `for` loop"),
    ast.SetComp: ("a set comprehension", "write a `for` loop"),
    ast.DictComp: ("a dictionary comprehension", "write a `for` loop"),
    ast.GeneratorExp: ("a generator that nothing runs", "write a `for` loop"),
    ast.NamedExpr: ("an assignment expression", "write `name = value`"),
}


def disguised(cell: Cell) -> list[str]:
    "Expressions that are used as statements"
    shows = not cell.exported and cell.number  # a notebook shows the last expression of a cell
    free = cell.tree.body[-1:] if shows else []
    out = []
    for s in ast.walk(cell.tree):
        if isinstance(s, ast.Expr) and s not in free and type(s.value) in DISGUISES:
            what, cure = DISGUISES[type(s.value)]
            out.append(f"{cell.at(s.lineno)}: {what} as a statement: {cure}.")
    return out


def semicolons(cell: Cell) -> list[str]:
    "`;` between statements; at a line's end too, unless it silences the last line of a cell"
    if ";" not in cell.source:
        return []
    out = []
    tokens = [t for t in cell.tokens if t.type != tokenize.COMMENT]
    last = max((t.start[0] for t in tokens if t.string.strip()), default=0)
    for t, after in pairwise(tokens):
        if t.type != tokenize.OP or t.string != ";":
            continue
        if after.type not in (tokenize.NEWLINE, tokenize.NL, tokenize.ENDMARKER):
            out.append(f"{cell.at(t.start[0])}: two statements on one line: write one a line.")
        elif cell.exported or not cell.number or t.start[0] != last:
            out.append(f"{cell.at(t.start[0])}: `;` at the end of a line: remove it.")
    return out


def left_patched(notebook: list[Cell]) -> list[str]:
    """`module.name = ...`, or `module.name[...] = ...`, in a notebook that never sets it back: the
    next notebooks would see it"""
    statements = [(c, s) for c in notebook for s in c.tree.body]
    froms = (ast.Import, ast.ImportFrom)
    imports = [a for _, s in statements if isinstance(s, froms) for a in s.names]
    known = {a.asname or a.name.split(".")[0] for a in imports}
    sets: dict[str, list[str]] = {}
    for c, s in statements:
        for t in s.targets if isinstance(s, ast.Assign) else []:
            of = t.value if isinstance(t, ast.Subscript) else t
            if isinstance(of, ast.Attribute) and ast.unparse(of).split(".")[0] in known:
                sets.setdefault(ast.unparse(t), []).append(c.at(s.lineno))
    once = {name: at[0] for name, at in sets.items() if len(at) == 1}
    return [
        f"{at}: {name} is never set back: set it back, or use `patch`." for name, at in once.items()
    ]


FORMULA = re.compile(r"\$\$.+?\$\$|\$[^$\n]+\$", re.S)
DOUBLED = re.compile(r"\\\\[a-zA-Z]+")


def doubled(path: Path, root: Path = ROOT) -> list[str]:
    r"`\\mu` in a formula of a notebook's text"
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    prose = [(i, c) for i, c in enumerate(cells, 1) if c["cell_type"] == "markdown"]
    return [
        f"{path.relative_to(root).as_posix()}:cell {i}: {found} in a formula: write one backslash "
        "(after a line break, a blank)."
        for i, c in prose
        for formula in FORMULA.findall("".join(c["source"]))
        for found in DOUBLED.findall(formula)[:1]
    ]


def check(root: Path = ROOT) -> list[str]:
    "Every message about the notebooks and Python files below `root`"
    notebooks = [read_notebook(p, root) for p in files(root / "nbs", ".ipynb")]
    cells = [c for notebook in notebooks for c in notebook]
    for top in ("avkit", "tests", "benchmarks"):
        cells += [read_python(p, root) for p in files(root / top, ".py") if p.name != "_modidx.py"]
    out = [m for p in files(root / "nbs", ".ipynb") for m in doubled(p, root)]
    for cell in cells:
        try:
            out += disguised(cell) + semicolons(cell)
        except (SyntaxError, tokenize.TokenError) as e:
            out.append(f"{cell.at(getattr(e, 'lineno', None) or 1)}: not Python: {e.args[0]}.")
    if not out:
        out = [m for notebook in notebooks for m in left_patched(notebook)]
    return out


def main(argv: list[str]) -> int:
    "Print what is wrong; the exit status is 1 when something is"
    messages = check(Path(argv[0]).resolve() if argv else ROOT)
    print(*messages, sep="\n", end="\n" if messages else "")
    if messages:
        print(f"style: {len(messages)} found", file=sys.stderr)
    return int(bool(messages))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
