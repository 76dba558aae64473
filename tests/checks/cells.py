"""What the checks read: notebooks and Python files as code cells, and the tokens in them."""

import ast
import io
import json
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXPORTS = {"export", "exporti", "exports"}
LAYOUT = {
    tokenize.NEWLINE,
    tokenize.NL,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.COMMENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}
DIRECTIVE = re.compile(r"^#\s*\|\s*(\S+)(?:\s+(\S+))?", re.M)
Definition = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclass(frozen=True)
class Cell:
    "A code cell of a notebook, or a whole Python file"

    path: str  # below the root
    number: int  # its place among all cells, from 1, as ruff counts; 0 for a Python file
    source: str  # without magics
    has_outputs: bool

    @cached_property
    def directives(self) -> dict[str, str]:
        "`#| default_exp core` -> {'default_exp': 'core'}"
        return {name: value for name, value in DIRECTIVE.findall(self.source)}

    @property
    def exported(self) -> bool:
        return bool(EXPORTS & set(self.directives))

    @cached_property
    def tree(self) -> ast.Module:
        flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        return compile(self.source, self.at(1), "exec", flags)

    @cached_property
    def tokens(self) -> list[tokenize.TokenInfo]:
        return list(tokenize.generate_tokens(io.StringIO(self.source).readline))

    def at(self, line: int) -> str:
        "Where a line is, as ruff writes it"
        return f"{self.path}:cell {self.number}:{line}" if self.number else f"{self.path}:{line}"


def read_notebook(path: Path, root: Path = ROOT) -> list[Cell]:
    "The code cells of a notebook"
    where = (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [
        Cell(where, i, without_magics("".join(c["source"])), bool(c.get("outputs")))
        for i, c in enumerate(cells, 1)
        if c["cell_type"] == "code"
    ]


def read_python(path: Path, root: Path = ROOT) -> Cell:
    "A Python file as one cell"
    return Cell(path.relative_to(root).as_posix(), 0, path.read_text(encoding="utf-8"), False)


def without_magics(source: str) -> str:
    "`%matplotlib inline` and `!ls` are no Python; what follows `%%` may be any language"
    if source.startswith("%%"):
        return ""
    return re.sub(r"^[%!].*$", "#", source, flags=re.M)


def files(top: Path, suffix: str) -> list[Path]:
    "Files below `top` (or `top` itself), but not below hidden folders and caches"
    if top.is_file():
        return [top]
    return [
        p
        for p in sorted(top.rglob(f"*{suffix}"))
        if not any(part.startswith((".", "__pycache__")) for part in p.relative_to(top).parts)
    ]


def counted(tokens: list[tokenize.TokenInfo]) -> Iterator[tokenize.TokenInfo]:
    "Tokens without layout and comments; an f-string is one, though Python 3.12 splits it"
    starts = {getattr(tokenize, name, -1) for name in ("FSTRING_START", "TSTRING_START")}
    ends = {getattr(tokenize, name, -1) for name in ("FSTRING_END", "TSTRING_END")}
    depth = 0
    for t in tokens:
        if depth == 0 and t.type not in LAYOUT:
            yield t
        depth += (t.type in starts) - (t.type in ends)
