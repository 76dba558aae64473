"""Who imports whom in avkit/: no circle, arrows down, imports at the top, each name public once.

    python tests/checks/imports.py [ROOT]

Every import counts, also one inside a function or under `if TYPE_CHECKING`. What a string names
draws an arrow where the string is whole, `import_module("avkit.core")`, not where it is put
together, `import_module(f"avkit.{x}")`.
"""

import ast
import io
import sys
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[2]
ORDER = "core preprocessing datasets training evaluation reports cli".split()
# the modules that make up the room "core"
CORE = {
    "avkit.numerics",
    "avkit.core",
    "avkit.store",
    "avkit.files",
    "avkit.markup",
    "avkit.devices",
    "avkit.fields",
    "avkit.products",
}
DOORS = {"avkit", "avkit.__main__"}  # they open every room; no room imports them
LAZY = DOORS | {"avkit.cli"}  # may import avkit's modules inside functions
BY_NAME = {"avkit.datasets.registry"}  # may import a module whose name is made of a string
INTERFACE = {
    "index",
    "render",
    "RENDER_VERSION",
    "SAMPLE",
    "plan",
    "tables",
    "expected",
}  # of data sets' modules
BELOW = {room: set(ORDER[:i]) for i, room in enumerate(ORDER)}  # room -> the rooms it may import
for upper in ORDER[ORDER.index("training") :]:
    BELOW[upper].add("models")
BELOW["models"] = {"core"}
REASONS = ("optional", "heavy")  # `# heavy: ...` beside or above a lazy import
PICTURE = " < ".join(ORDER) + "; models above core alone, below training"
Function = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


@dataclass
class Import:
    "One name that an import statement (or a call of `import_module`) brings"

    line: int
    last: int  # the statement's last line
    target: str  # the module: "avkit.core"; of an f-string what stands before its first hole
    name: str = ""  # what is taken from it; empty for the module itself
    bound: str = ""  # the name it has here
    lazy: bool = False  # inside a function
    by_string: bool = False

    @property
    def internal(self) -> bool:
        return self.target.split(".")[0] == "avkit" or self.by_string and not self.target


@dataclass
class Module:
    "A Python file of avkit/, read but not run"

    name: str  # "avkit.datasets.windows"
    path: str  # below the root
    tree: ast.Module
    text: str
    imports: list[Import]

    def at(self, line: int) -> str:
        return f"{self.path}:{line}"

    @property
    def package(self) -> str:
        "Where its relative imports count from"
        return self.name if self.path.endswith("__init__.py") else self.name.rpartition(".")[0]


def read(root: Path) -> dict[str, Module]:
    "Every module below `root`/avkit by its dotted name"
    modules = {}
    for path in sorted((root / "avkit").rglob("*.py")):
        if path.name == "_modidx.py":
            continue
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text = path.read_text(encoding="utf-8")
        where = path.relative_to(root).as_posix()
        modules[name] = Module(name, where, ast.parse(text, where), text, [])
    for m in modules.values():
        m.imports = [i for node, lazy in statements(m.tree) for i in names(node, lazy, m, modules)]
    return modules


def statements(node: ast.AST, lazy: bool = False) -> Iterator[tuple[ast.stmt | ast.expr, bool]]:
    "Import statements and calls below `node`, each with whether it stands inside a function"
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.Import, ast.ImportFrom, ast.Call)):
            yield child, lazy
        yield from statements(child, lazy or isinstance(child, Function))


def names(
    node: ast.stmt | ast.expr,  # an import statement or a call
    lazy: bool,  # does it stand inside a function?
    module: Module,  # where it stands
    modules: dict[str, Module],  # all of avkit: in `from avkit import x`, is x a module?
) -> Iterator[Import]:
    "What a statement imports, in absolute names"
    span = node.lineno, node.end_lineno or node.lineno
    if isinstance(node, ast.Import):
        for a in node.names:
            yield Import(*span, a.name, "", a.asname or a.name.split(".")[0], lazy)
    elif isinstance(node, ast.ImportFrom):
        base = module.package.rsplit(".", node.level - 1)[0] if node.level else ""
        base = ".".join(filter(None, [base, node.module]))
        for a in node.names:
            whole = f"{base}.{a.name}"
            target, name = (whole, "") if whole in modules else (base, a.name)
            yield Import(*span, target, name, a.asname or a.name, lazy)
    elif isinstance(node, ast.Call) and imports_by_string(node.func) and node.args:
        text = beginning(node.args[0])
        target = module.package + text if text.startswith(".") else text
        yield Import(*span, target, lazy=True, by_string=True)


def imports_by_string(f: ast.expr) -> bool:
    "Is `f` import_module, importlib.import_module or __import__?"
    name = f.id if isinstance(f, ast.Name) else getattr(f, "attr", "")
    return name in ("import_module", "__import__")


def beginning(e: ast.expr) -> str:
    "The text of a string; of an f-string what stands before its first hole; else nothing"
    if isinstance(e, ast.JoinedStr) and e.values:
        return beginning(e.values[0])
    return e.value if isinstance(e, ast.Constant) and isinstance(e.value, str) else ""


# Circles


def arrows_of(modules: dict[str, Module]) -> dict[str, dict[str, str]]:
    "module -> {what it imports: path:line of the first such import}; `avkit.__version__` is free"
    graph: dict[str, dict[str, str]] = {name: {} for name in modules}
    for m in modules.values():
        for i in m.imports:
            fact = i.name.startswith("__") and i.target in DOORS
            if i.target in modules and not fact:
                graph[m.name].setdefault(i.target, m.at(i.line))
    return graph


def knots(graph: dict[str, dict[str, str]]) -> list[list[str]]:
    "Tarjan's strongly connected components, those that hold a circle"
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(v: str) -> None:
        order[v] = low[v] = len(order)
        stack.append(v)
        for w in graph[v]:
            if w not in order:
                visit(w)
            if w in stack:
                low[v] = min(low[v], low[w])
        if low[v] == order[v]:
            k = stack.index(v)
            found.append(sorted(stack[k:]))
            del stack[k:]

    for v in graph:
        if v not in order:
            visit(v)
    return [c for c in found if len(c) > 1 or c[0] in graph[c[0]]]


def round_trip(graph: dict[str, dict[str, str]], knot: list[str]) -> list[str]:
    "A shortest way from the first of `knot` back to itself: breadth first"
    ways = [[knot[0]]]
    for way in ways:
        for w in graph[way[-1]]:
            if w == knot[0]:
                return [*way, w]
            if w in knot and all(w not in other for other in ways):
                ways.append([*way, w])
    raise AssertionError(f"{knot} is not strongly connected")


def describe(kind: str, graph: dict[str, dict[str, str]]) -> list[str]:
    "A message for each knot: its members, and one circle arrow by arrow"
    out = []
    for knot in knots(graph):
        way = round_trip(graph, knot)
        steps = ", ".join(f"{a} -> {b} ({graph[a][b]})" for a, b in pairwise(way))
        more = f"one of the circles among {', '.join(knot)}; " if len(knot) >= len(way) else ""
        out.append(
            f"circle between {kind}: {steps}: {more}"
            "move what both sides need below them, or hand it in as an argument."
        )
    return out


def module_circles(modules: dict[str, Module]) -> list[str]:
    "Modules that import each other, straight or around corners"
    return describe("modules", arrows_of(modules))


def room_circles(modules: dict[str, Module]) -> list[str]:
    "Packages that import each other"
    graph: dict[str, dict[str, str]] = defaultdict(dict)
    for a, targets in arrows_of(modules).items():
        for b, where in targets.items():
            if room(a) != room(b):
                graph[room(a)].setdefault(room(b), where)
            graph.setdefault(room(b), {})
    return describe("packages", graph)


# Rooms


def room(module: str) -> str:
    "`avkit.datasets.windows` -> datasets, `avkit.store` -> core, `avkit` -> avkit (the door)"
    if module in DOORS:
        return "avkit"
    if module in CORE:
        return "core"
    return module.split(".")[1]


def rooms(modules: dict[str, Module]) -> list[str]:
    "Arrows against the order, and modules that stand in no room"
    out = [
        f"{m.path}: {m.name} stands in none of {', '.join(BELOW)}: move it into one of them."
        for m in modules.values()
        if room(m.name) not in {*BELOW, "avkit"}
    ]
    for a, targets in arrows_of(modules).items():
        for b, where in targets.items():
            here, there = room(a), room(b)
            if here == "avkit" or here == there or here not in BELOW:
                continue
            if there == "avkit":
                out.append(
                    f"{where}: {a} imports {b}, the front door, which opens every room: "
                    "import from the module that has it."
                )
            elif there in BELOW and there not in BELOW[here]:
                out.append(
                    f"{where}: {a} imports {b}, but {here} may not import {there} "
                    f"({PICTURE}): move what is needed down, or hand it in as an argument."
                )
    return out


def missing(modules: dict[str, Module]) -> list[str]:
    "Imports of modules that are not there: a lazy one would only fail when it is run"
    return [
        f"{m.at(i.line)}: there is no module {i.target}: import from where it stands now."
        for m in modules.values()
        for i in m.imports
        if i.internal and not i.by_string and i.target not in modules
    ]


# Lazy imports


def reasons(text: str) -> tuple[set[int], set[int]]:
    "Lines with a comment that gives a reason; those of them that hold nothing else"
    beside, alone = set(), set()
    for t in tokenize.generate_tokens(io.StringIO(text).readline):
        kind, _, reason = t.string.lstrip("# ").partition(":")
        if t.type != tokenize.COMMENT or kind not in REASONS or not reason.strip():
            continue
        beside.add(t.start[0])
        if not t.line[: t.start[1]].strip():
            alone.add(t.start[0])
    return beside, alone


def lazy(modules: dict[str, Module]) -> list[str]:
    "Imports inside functions: of avkit in the doors alone, of others with the reason beside them"
    out = []
    for m in modules.values():
        found = [i for i in m.imports if i.lazy]
        beside, alone = reasons(m.text) if found else (set(), set())
        inside = {n for i in found for n in range(i.line, i.last + 1)}
        for i in found:
            above = i.line - 1
            while above in inside:
                above -= 1  # a comment speaks for all the imports that follow it
            excused = above in alone or beside & set(range(i.line, i.last + 1))
            unknown = i.by_string and not i.target
            if i.internal and not (unknown and excused):
                if m.name in LAZY or i.by_string and m.name in BY_NAME:
                    continue
                what = i.target if i.target in modules else "a module that a string names"
                out.append(
                    f"{m.at(i.line)}: {what} is imported inside a function or by a string: "
                    "import it at the top; if that makes a circle, "
                    "move what both need below them."
                )
            elif not excused:
                out.append(
                    f"{m.at(i.line)}: {i.target} is imported inside a function: "
                    "import it at the top, or say beside it what that spares, "
                    "`# optional: ...` or `# heavy: ...`."
                )
    return out


# Names


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def private(modules: dict[str, Module]) -> list[str]:
    "Names with a leading underscore that another module of avkit takes"
    cure = "give it a public name, or a public function that does what is needed."
    out = []
    for m in modules.values():
        out += [
            f"{m.at(i.line)}: {m.name} imports {i.name} of {i.target}: {cure}"
            for i in m.imports
            if i.target in modules and is_private(i.name)
        ]
        out += [
            f"{m.at(line)}: {m.name} uses {name}: {cure}"
            for line, name in attributes(m.tree, {}, m, modules)
        ]
    return out


def attributes(
    node: ast.AST,
    bound: dict[str, str],  # name in this scope -> the module of avkit it stands for
    module: Module,
    modules: dict[str, Module],
) -> Iterator[tuple[int, str]]:
    "Private attributes of imported modules below `node`: line, dotted name"
    for child in ast.iter_child_nodes(node):
        inner = bound
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            for i in names(child, False, module, modules):
                plain = isinstance(child, ast.Import) and i.bound == i.target.split(".")[0]
                bound[i.bound] = i.bound if plain else "" if i.name else i.target
        elif isinstance(child, Function):
            own = own_names(child)
            inner = {k: v for k, v in bound.items() if k not in own}
        elif isinstance(child, ast.Attribute) and is_private(child.attr):
            first, _, rest = dotted(child.value).partition(".")
            owner = ".".join(filter(None, [bound.get(first, ""), rest]))
            if owner in modules and owner != module.name:
                yield child.lineno, f"{owner}.{child.attr}"
        yield from attributes(child, inner, module, modules)


def own_names(f: ast.AST) -> set[str]:
    "Parameters of a function, and the names it sets"
    args = {n.arg for n in ast.walk(f) if isinstance(n, ast.arg)}
    names = (n for n in ast.walk(f) if isinstance(n, ast.Name))
    return args | {n.id for n in names if isinstance(n.ctx, ast.Store)}


def dotted(e: ast.expr) -> str:
    "`avkit.core` of the expression avkit.core; nothing of an expression that is no dotted name"
    if isinstance(e, ast.Name):
        return e.id
    if not isinstance(e, ast.Attribute):
        return ""
    left = dotted(e.value)
    return f"{left}.{e.attr}" if left else ""


def public(module: Module) -> set[str]:
    "What `__all__` lists and the module itself defines"
    listed: set[str] = set()
    for s in module.tree.body:
        if not isinstance(s, (ast.Assign, ast.AugAssign)):
            continue
        target = s.target if isinstance(s, ast.AugAssign) else s.targets[0]
        if ast.unparse(target) == "__all__":
            listed |= set(ast.literal_eval(s.value))
    return listed - {i.bound for i in module.imports if not i.lazy}


def is_data_set(m: Module) -> bool:
    "Is `m` one of the modules that the registry opens by name?"
    return m.package == "avkit.datasets" and "index" in public(m)


def twice(modules: dict[str, Module]) -> list[str]:
    "Public names that two modules define; data sets share the names that the registry asks for"
    owners: dict[str, list[Module]] = defaultdict(list)
    for m in modules.values():
        for name in public(m):
            owners[name].append(m)
    return [
        f"{name} is public in {' and in '.join(m.name for m in at)}: "
        "give one of them another name, or let one import the other's."
        for name, at in sorted(owners.items())
        if len(at) > 1 and not (name in INTERFACE and all(map(is_data_set, at)))
    ]


CHECKS = (missing, module_circles, room_circles, rooms, lazy, private, twice)


def check(root: Path = ROOT) -> list[str]:
    "Every message of every check"
    modules = read(root)
    return list(dict.fromkeys(message for f in CHECKS for message in f(modules)))


def main(argv: list[str]) -> int:
    "Print what is wrong; the exit status is 1 when something is"
    messages = check(Path(argv[0]).resolve() if argv else ROOT)
    print(*messages, sep="\n", end="\n" if messages else "")
    if messages:
        print(f"imports: {len(messages)} found", file=sys.stderr)
    return int(bool(messages))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
