"""Each check finds a planted fault, and finds nothing in a tree that has none."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
import pytest
from checks import cells, imports, measures, pages, style
import in_step
from avkit.core import AvkitError
from avkit.datasets import manifest

ROOT = Path(__file__).parents[2]


def tree(root: Path, **files: str) -> Path:
    "Write modules below `root`/avkit; `datasets__windows` is datasets/windows.py"
    for name, text in {"__init__": "", **files}.items():
        path = root / "avkit" / name
        if "__" in name.strip("_"):
            path = root / "avkit" / Path(*name.split("__", 1))
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.parent.name != "avkit":
            (path.parent / "__init__.py").touch()
        path.with_suffix(".py").write_text(text)
    return root


def notebook(path: Path, *sources: str | tuple[str, str]) -> Path:
    "Write a notebook; a pair is source and output, a source that begins with `# ` is text"
    made = []
    for i, s in enumerate(sources):
        source, output = s if isinstance(s, tuple) else (s, "")
        kind = "markdown" if source.startswith("# ") else "code"
        lines = source.splitlines(keepends=True)
        cell = dict(cell_type=kind, id=f"c{i}", metadata={}, source=lines)
        shown = dict(output_type="stream", name="stdout", text=[output])
        if kind == "code":
            cell |= dict(execution_count=None, outputs=[shown] if output else [])
        made.append(cell)
    kernel = dict(display_name="python3", language="python", name="python3")
    nb = dict(cells=made, metadata=dict(kernelspec=kernel), nbformat=4, nbformat_minor=5)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(nb, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


# Imports

CLEAN = dict(
    __init__="""
def __getattr__(name):
    from avkit.training import learner
    return learner
""",
    core="""
__all__ = ["seed"]
import numpy
def seed(): pass
""",
    store="""
__all__ = ["put"]
from .core import seed
def put(): return seed()
""",
    cli="""
from avkit import core
def train():
    from avkit.training.learner import fit
    fit(core)
""",
    preprocessing__media="""
def probe():
    import av  # optional: PyAV, to read media
    return av
""",
    datasets__ravdess="""
__all__ = ["index"]
from ..preprocessing.media import probe
def index(): probe()
""",
    datasets__vgaf="""
__all__ = ["index"]
def index(): pass
""",
    datasets__registry="""
import importlib
def module(name): return importlib.import_module(f"avkit.datasets.{name}")
""",
    models__masks="""
from avkit import core
import avkit.store as store
store.put(core.seed)
""",
    training__learner="""
from avkit import __version__
from ..models.masks import core
import avkit.core

def fit(core):
    # heavy: TensorBoard takes a second
    import tensorboard
    from tensorboard import (
        x,
    )
    return core._own, avkit.core.seed

def read():
    from av import (
        open,
    )  # optional: PyAV
""",
)


def test_clean_imports(tmp_path: Path) -> None:
    assert imports.check(tree(tmp_path, **CLEAN)) == []


@pytest.mark.parametrize(
    "files,messages",
    [
        (
            dict(core="from . import store", store="import avkit.core"),
            [
                "circle between modules: avkit.core -> avkit.store (avkit/core.py:1), avkit.store -> "  # noqa: E501
                "avkit.core (avkit/store.py:1)"
            ],
        ),
        (
            dict(
                core="def f():\n    from .store import x", store="def f():\n    from .core import x"
            ),
            [
                "circle between modules",
                "avkit/core.py:2: avkit.store is imported inside",
                "avkit/store.py:2: avkit.core is imported inside",
            ],
        ),
        (dict(core="from .core import x"), ["circle between modules: avkit.core -> avkit.core"]),
        (
            dict(
                datasets__a="from ..preprocessing.b import x",
                preprocessing__b="",
                preprocessing__c="from avkit.datasets import d",
                datasets__d="",
            ),
            [
                "circle between packages: datasets -> preprocessing (avkit/datasets/a.py:1), preprocessing",  # noqa: E501
                "avkit/preprocessing/c.py:1: avkit.preprocessing.c imports avkit.datasets.d, but",
            ],
        ),
        (
            dict(models__a="from ..preprocessing import media", preprocessing__media=""),
            ["models may not import preprocessing"],
        ),
        (
            dict(datasets__a="from ..models.b import x", models__b=""),
            ["datasets may not import models"],
        ),
        (dict(core="import avkit.training.a", training__a=""), ["core may not import training"]),
        (dict(reports__a="from ..cli import main", cli=""), ["reports may not import cli"]),
        (
            dict(training__a="import avkit"),
            ["training/a.py:1: avkit.training.a imports avkit, the front door"],
        ),
        (dict(media=""), ["avkit/media.py: avkit.media stands in none of core, "]),
        (dict(core="from .gone import x"), ["avkit/core.py:1: there is no module avkit.gone"]),
        (
            dict(core="from . import (\n    store,\n    gone)", store=""),
            ["avkit.core imports avkit, the front door"],
        ),
        (
            dict(training__a="def f():\n    from ..core import x", core=""),
            ["training/a.py:2: avkit.core is imported inside a function"],
        ),
        (
            dict(core="import importlib\nx = importlib.import_module('avkit.store')", store=""),
            ["core.py:2: avkit.store is imported inside a function or by a string"],
        ),
        (
            dict(core="import importlib as i\ndef f(n): return i.import_module(f'avkit.{n}')"),
            ["core.py:2: a module that a string names is imported"],
        ),
        (
            dict(core="from importlib import import_module\ndef f(n): return import_module(n)"),
            ["core.py:2: a module that a string names is imported"],
        ),
        (
            dict(datasets__registry="def f():\n    from ..core import x", core=""),
            ["registry.py:2: avkit.core is imported inside"],
        ),
        (
            dict(core="def f():\n    import torch"),
            ["core.py:2: torch is imported inside a function"],
        ),
        (
            dict(core="def f():\n    import torch  # heavy:"),
            ["core.py:2: torch is imported inside"],
        ),
        (
            dict(core="def f():\n    import torch  # because"),
            ["core.py:2: torch is imported inside"],
        ),
        (dict(core="def f():\n    x = 1  # heavy: no\n    import torch"), ["core.py:3: torch"]),
        (
            dict(core="from .store import _put", store=""),
            ["core.py:1: avkit.core imports _put of avkit.store"],
        ),
        (
            dict(core="from . import store as s\ndef f(): return s._put", store=""),
            ["core.py:2: avkit.core uses avkit.store._put"],
        ),
        (dict(core="import avkit.store\navkit.store._put()", store=""), ["uses avkit.store._put"]),
        (dict(core="from . import store\ndef f(store): return store._put", store=""), []),
        (
            dict(core="__all__ = ['f']\ndef f(): pass", store="__all__ = ['f']\nf = 1"),
            ["f is public in avkit.core and in avkit.store"],
        ),
        (
            dict(
                core="__all__ = ['f']\ndef f(): pass", store="__all__ = ['f']\nfrom .core import f"
            ),
            [],
        ),
        (
            dict(
                datasets__a="__all__ = ['index']\nindex = 1",
                datasets__b="__all__ = ['index', 'plan']\nindex = plan = 1",
                datasets__verify="__all__ = ['plan']\nplan = 1",
            ),
            ["plan is public in avkit.datasets.b and in avkit.datasets.verify"],
        ),
    ],
)
def test_imports(tmp_path: Path, files: dict[str, str], messages: list[str]) -> None:
    found = imports.check(tree(tmp_path, **files))
    for m in messages:
        assert any(m in f for f in found), found
    circles = [f for f in found if f.startswith("circle between packages")]
    expected = [m for m in messages if not m.startswith("circle between packages")]
    assert len(found) - len(circles) == len(expected), found


def test_three_modules_in_a_knot(tmp_path: Path) -> None:
    "The shortest circle is shown, and who else is in the knot"
    root = tree(
        tmp_path,
        models__a="from . import b",
        models__b="from . import a, c",
        models__c="from . import a",
    )
    [message] = imports.check(root)
    first, second = "avkit.models.a -> avkit.models.b", "avkit.models.b -> avkit.models.a"
    assert f"{first} (avkit/models/a.py:1), {second} (avkit/models/b.py:1)" in message
    assert "among avkit.models.a, avkit.models.b, avkit.models.c;" in message


def test_imports_exit_status(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert imports.main([str(tree(tmp_path / "good", core=""))]) == 0
    assert imports.main([str(tree(tmp_path / "bad", core="from .gone import x"))]) == 1
    assert "there is no module avkit.gone" in capsys.readouterr().out


# Style


@pytest.mark.parametrize(
    "source,message",
    [
        ("a.append(1), b.append(2)", "a tuple as a statement"),
        ("[a]", "a list as a statement"),
        ("f() if x else g()", "a conditional expression as a statement"),
        ("x or f()", "a boolean operation as a statement"),
        ("[f(x) for x in y]", "a list comprehension as a statement"),
        ("(f(x) for x in y)", "a generator that nothing runs as a statement"),
        ("def f():\n    x and g()", "a boolean operation as a statement"),
        ("x = 1; y = 2", "two statements on one line"),
        ("if x: f(); g()", "two statements on one line"),
        ("x = 1;", "`;` at the end of a line"),
    ],
)
def test_style_finds(tmp_path: Path, source: str, message: str) -> None:
    notebook(tmp_path / "nbs/a.ipynb", "# A", f"#| export\n{source}")
    tree(tmp_path, core=source)
    [in_notebook, in_module] = style.check(tmp_path)
    assert in_notebook.startswith("nbs/a.ipynb:cell 2:") and message in in_notebook
    assert in_module.startswith("avkit/core.py:") and message in in_module


@pytest.mark.parametrize(
    "source",
    [
        '"A docstring"',
        "...",
        "f()",
        "x[0]",
        "f = lambda x: x",
        "s = 'a;b'",
        "f'{x:;>3}'",
        "x = 1, 2",
        "# a; b",
        "if x: f()",
        "try: f()\nfinally: g()",
    ],
)
def test_style_lets_pass(tmp_path: Path, source: str) -> None:
    notebook(tmp_path / "nbs/a.ipynb", f"#| export\n{source}")
    tree(tmp_path, core=source)
    assert style.check(tmp_path) == []


def test_style_of_cells_that_show(tmp_path: Path) -> None:
    "The last statement is what a cell shows, and `;` may silence it; the others are statements"
    shows = ["x = 1\nx, x", "plt.plot(x);", "plt.plot(x);  # quiet", "await f()"]
    notebook(tmp_path / "nbs/good.ipynb", *shows, "%timeit f(x); g(x)", "%%bash\na; b")
    assert style.check(tmp_path) == []
    notebook(tmp_path / "nbs/bad.ipynb", "f(), g()\nx", "f();\nx", "x = (")
    assert [m.split(": ")[0] for m in style.check(tmp_path)] == [
        "nbs/bad.ipynb:cell 1:1",
        "nbs/bad.ipynb:cell 2:1",
        "nbs/bad.ipynb:cell 3:1",
    ]


def test_style_finds_a_module_left_patched(tmp_path: Path) -> None:
    first, restored = "import avkit\navkit.a = 1", "avkit.a = None"
    notebook(tmp_path / "nbs/00_a.ipynb", first, "x = 1")
    assert style.check(tmp_path) == [
        "nbs/00_a.ipynb:cell 1:2: avkit.a is never set back: set it back, or use `patch`."
    ]
    notebook(tmp_path / "nbs/00_a.ipynb", first, restored, "y.a = 1")
    assert style.check(tmp_path) == []
    notebook(tmp_path / "nbs/00_a.ipynb", 'import os\nos.environ["A"] = "b"', "x = 1")
    assert "os.environ['A'] is never set back" in style.check(tmp_path)[0]


def test_style_finds_doubled_backslashes_of_formulas(tmp_path: Path) -> None:
    text = "# A\n\n$$ x = \\\\mu $$ and `C:\\\\temp`, $\\\\rho$ too"
    notebook(tmp_path / "nbs/a.ipynb", "x = 1", text)
    found = style.check(tmp_path)
    assert [m.split(" in a formula")[0] for m in found] == [
        "nbs/a.ipynb:cell 2: \\\\mu",
        "nbs/a.ipynb:cell 2: \\\\rho",
    ]
    notebook(tmp_path / "nbs/a.ipynb", "# A\n\n$$ \\mu \\\\ \\rho $$ and `C:\\\\temp`, $\\rho$ too")
    assert style.check(tmp_path) == []


def test_widgets_are_dropped(tmp_path: Path) -> None:
    path = notebook(tmp_path / "nbs/a.ipynb", "# A", 'x = "widgets"')
    clean = json.loads(path.read_text(encoding="utf-8"))
    kept = path.read_text(encoding="utf-8")
    in_step.drop_widgets(tmp_path)
    assert path.read_text(encoding="utf-8") == kept
    metadata = clean["metadata"] | dict(widgets={"state": "x" * 99})
    path.write_text(json.dumps(clean | dict(metadata=metadata)), encoding="utf-8")
    in_step.drop_widgets(tmp_path)
    assert json.loads(path.read_text(encoding="utf-8")) == clean


def test_style_reads_tests_and_benchmarks(tmp_path: Path) -> None:
    for top in ("tests", "benchmarks"):
        (tmp_path / top).mkdir()
        (tmp_path / top / "a.py").write_text("x = 1; y = 2\n")
    assert len(style.check(tmp_path)) == 2
    assert style.main([str(tmp_path)]) == 1


# Measures


def measured(tmp_path: Path, *sources: str | tuple[str, str]) -> dict[str, float | None]:
    "Every measure of a notebook of these cells"
    nb = notebook(tmp_path / "a.ipynb", *sources)
    groups = measures.by_key(measures.measure_notebook(cells.read_notebook(nb, tmp_path)))
    return {key: measures.value(groups[key], m.kind) for key, m in measures.MEASURES.items()}


EXPORTED = "#| export\ndef f(x): return x"


@pytest.mark.parametrize(
    "after,shown",
    [
        (["f(1)"], 1),
        ([("print(f(1))", "1")], 1),
        (["# Text", "f(1)"], 1),
        (["raise ValueError"], 1),
        (["try: f()\nexcept TypeError as e: print(e)"], 1),
        ([], 0),
        (["#| hide\nf(1)"], 0),
        (["import numpy"], 0),
        (["assert f(1) == 1"], 0),
        (["y = f(1)"], 0),
        (["test_eq(f(1), 1)"], 0),
        (["y = f(1)\nassert y"], 0),
        (["#| hide\nf(1)", "f(1)"], 0),
        (["#| export\nimport numpy", "f(1)"], 0),
    ],
)
def test_example(tmp_path: Path, after: list, shown: int) -> None:
    assert measured(tmp_path, EXPORTED, *after)["example"] == shown


def test_what_needs_no_example(tmp_path: Path) -> None:
    start = '#| export\nif __name__ == "__main__": main()'
    assert measured(tmp_path, "#| export\nimport numpy", start, EXPORTED, "f(1)")["example"] == 1


def test_lines_and_tokens(tmp_path: Path) -> None:
    wide = f"#| export\nx = 1\n\ny = '{'a' * 100}'\n"
    now = measured(tmp_path, wide, "z = " + "1 + " * 50 + "1")
    assert now["long"] == 0.5 and now["line"] == 3 and now["function"] is None
    text = '#| export\ndef f(x):  # a number\n    "A docstring"\n    return f"{x} and {x + 1}"'
    assert measured(tmp_path, text)["function"] == 8  # def f ( x ) : return f"..."


def test_definitions(tmp_path: Path) -> None:
    three = "#| export\ndef f(): pass\nclass A: pass\ng = lambda x: x"
    two = "#| export\ndef f(): pass\nclass A:\n    def g(self): pass\n    def h(self): pass"
    assert measured(tmp_path, three, two, "#| export\nimport numpy")["packed"] == 0.5


def test_types(tmp_path: Path) -> None:
    text = (
        "#| export\ndef f(a: int, b, *args, c: int, **kwargs): pass\ndef _g(a): pass\n"
        "class A:\n    def __init__(self, a): pass\n    def _h(self, a): pass\n"
        "    @staticmethod\n    def s(a: int): pass\n"
        "class _B:\n    def h(self, a): pass"
    )
    assert measured(tmp_path, text)["typed"] == 3 / 5


@pytest.mark.parametrize(
    "signature,good",
    [
        ("(\n    a,  # one\n    b=1,  # two\n    *,\n    c=(1,\n       2),  # three\n)", 1),
        ("(\n    a,  # one\n    b,\n    c,  # three\n)", 0),
        ("(a, b, c)", 0),
        ("(a,  # one\n    b,  # two\n    c)", 0),
        ("(\n    a, b,  # both\n    c,  # three\n)", 0),
    ],
)
def test_one_parameter_a_line(tmp_path: Path, signature: str, good: int) -> None:
    text = f"#| export\ndef f{signature}: return a\ndef g(a, b): pass"
    assert measured(tmp_path, text)["spread"] == good


def test_measures_check(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    "`--check` fails with a cure where a limit is missed, and passes where all hold"
    good = notebook(tmp_path / "good.ipynb", "#| export\ndef f(x: int): return x", "f(1)")
    assert measures.main(["--check", "--notebook", str(good)]) == 0
    bad = notebook(tmp_path / "bad.ipynb", EXPORTED)
    assert measures.main(["--check", "--by-notebook", "--worst", "3", "--notebook", str(bad)]) == 1
    out, err = capsys.readouterr()
    assert "cells without a shown example:\n" in out and "bad.ipynb:cell 1:1  f\n" in out
    assert "cells followed by a shown example: 0.0 %, wanted at least 65 %" in err


@pytest.mark.parametrize("values", [[65, 65, 80], [65, 65, 65, 80], [65] * 5 + [80] * 2, [65]])
def test_room_below_a_median(values: list[int]) -> None:
    "So many heavier ones may join, and not one more"
    found = lambda values: [measures.Found("function", "", "", v, v) for v in values]
    n = measures.room(found(values), 70)
    held = [measures.value(found(values + [80] * k), "median") for k in (n, n + 1)]
    assert measures.MEASURES["function"].holds(held[0])
    assert not measures.MEASURES["function"].holds(held[1])


# Notebooks and modules in step


def small_project(root: Path) -> Path:
    "A project of one notebook and its module"
    for name in ("settings.ini", "pyproject.toml"):
        shutil.copy(ROOT / name, root / name)
    start = "#| default_exp core"
    notebook(root / "nbs/0_core/00_core.ipynb", "# Core\n\n> The core.", start, EXPORTED, "f(1)")
    tree(root, core="")
    in_step.export(root)
    return root


def test_in_step(tmp_path: Path) -> None:
    root = small_project(tmp_path)
    assert "def f(x): return x" in (root / "avkit/core.py").read_text()
    assert in_step.check(root) == []
    nb = root / "nbs/0_core/00_core.ipynb"
    shutil.copy(nb, root / "nbs/copy.ipynb")
    shutil.copy(nb, root / "nbs/unclean.ipynb")
    text = (root / "nbs/unclean.ipynb").read_text()
    text = text.replace('"metadata": {},', '"metadata": {"collapsed": true},')
    (root / "nbs/unclean.ipynb").write_text(text.replace("exp core", "exp other"))
    (root / "avkit/__main__.py").write_text("")
    (root / "avkit/old.py").write_text("")
    with (root / "avkit/core.py").open("a") as f:
        f.write("# by hand\n")
    found = "\n".join(in_step.check(root))
    for message in (
        "avkit.core is exported by nbs/0_core/00_core.ipynb and by nbs/copy.ipynb",
        "nbs/unclean.ipynb: not clean",
        "avkit/core.py: not what its notebook exports",
        "avkit/other.py: not what its notebook exports",
        "avkit/old.py: no notebook exports it",
    ):
        assert message in found, found
    assert "__main__" not in found


# This repository


@pytest.mark.parametrize("check", [imports.check, style.check], ids=["imports", "style"])
def test_repository(check) -> None:
    messages = check(ROOT)
    assert not messages, "\n".join(messages)


# Pages


@pytest.fixture
def book(tmp_path):
    "The pages that are written from the registries, to spoil"
    for name in pages.pages(ROOT):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_pages_are_what_the_registries_say():
    assert pages.stale() == []


@pytest.mark.parametrize("page", [pages.README, pages.MAP, pages.FACTS, pages.FUSION_NOTEBOOK])
def test_a_page_that_lacks_a_row_is_stale_and_mended(page, book):
    path, key = book / page, "gmu" if page == pages.FUSION_NOTEBOOK else "jca2023"
    right = path.read_text()
    before, mark, after = right.partition("<!-- fusions" if key == "gmu" else "<!-- papers")
    path.write_text(before + mark + after.replace(key, "x", 1))
    assert pages.stale(book) == [f"{page} is not what the registries say: make export"]
    pages.stale(book, write=True)
    assert path.read_text() == right and pages.stale(book) == []


def test_a_new_fusion_and_a_new_paper_are_listed(book, monkeypatch):
    class Gate(pages.Fusion):
        "`gate`, a gate (First 2025, eq. 1): one of two"

    monkeypatch.setitem(pages.FUSIONS, "gate", Gate)
    monkeypatch.setitem(pages.STUDIES, "mine2025", pages.STUDIES["jca2023"])
    monkeypatch.setitem(pages.RECIPES, "mine2025", pages.RECIPES["jca2023"])
    pages.stale(book, write=True)
    assert "`gate` (a gate)<!--" in (book / "README.md").read_text()
    assert (
        "| `gate` | a gate (First 2025, eq. 1) | the head alone | one of two |"
        in (book / pages.FUSION_NOTEBOOK).read_text()
    )
    assert (book / "nbs/papers/mine2025.ipynb").is_file()
    assert all("mine2025" in (book / p).read_text() for p in (pages.README, pages.MAP, pages.FACTS))
    assert pages.stale(book) == [f"{pages.FACTS}: no section ## mine2025"]


def test_a_new_data_set_gets_its_rows_and_its_notebook(book, monkeypatch):
    "Rows follow the facts each time; a notebook is written once, and then left as it is"
    facts = dict(title="Dance", classes=["happy", "sad"], how_to_get="Ask.")
    info = lambda name: facts if name == "dance" else manifest.corpus_info(name)
    monkeypatch.setattr(pages, "corpus_names", lambda: ["ravdess", "dance"])
    monkeypatch.setattr(pages, "corpus_info", info)
    monkeypatch.setattr(pages, "corpus_notebook_text", lambda name: f"of {name}")
    monkeypatch.setattr(pages, "corpus_module", lambda name: pages)
    path = notebook(book / "nbs/2_datasets/25_dance.ipynb", "# Dance")
    pages.stale(book, write=True)
    look = book / "nbs/corpora/dance.ipynb"
    text = (book / "README.md").read_text()
    assert look.read_text() == "of dance" and "<!-- datasets -->`ravdess`, `dance`<!--" in text
    assert "| `dance` |  | happy, sad | Ask. |\n<!-- /corpora -->" in text
    rooms = (book / pages.MAP).read_text()
    assert "| [dance](corpora/dance.ipynb) | Dance: happy, sad |\n<!-- /corpora -->" in rooms
    assert f"| [{path.stem}](2_datasets/{path.name}) | What is in Dance," in rooms
    look.write_text("mine")
    assert pages.stale(book) == []
    facts |= dict(choices=dict(label=["a", "b"]), pages=dict(question="Who dances?"))
    assert [s.split()[0] for s in pages.stale(book)] == ["README.md", "nbs/README.md"]
    pages.stale(book, write=True)
    text = (book / "README.md").read_text()
    assert text.count("| `dance` |") == 1 and "| `dance` | `--label a` or `b` | happy" in text
    assert "Who dances?" in (book / pages.MAP).read_text() and look.read_text() == "mine"


def test_what_is_left_of_a_skeleton_is_refused_by_the_check_alone(monkeypatch, capsys):
    class Gate(pages.Fusion):
        "`gate`, a gate: both modalities at one width, added at each step"

    monkeypatch.setitem(pages.FUSIONS, "gate", Gate)
    claim = "What it says is better than what, in a sentence."
    left = replace(pages.STUDIES["jca2023"], claim=claim)
    monkeypatch.setitem(pages.STUDIES, "jca2023", left)
    monkeypatch.setattr(pages, "corpus_module", lambda name: pages)
    cure = "is still the skeleton's: say what yours is"
    assert list(pages.left_over()) == [
        f"{pages.FUSION_NOTEBOOK}: the docstring of `gate` {cure}",
        f"{pages.STUDY_NOTEBOOK}: `claim` of `jca2023` {cure}",
    ]
    monkeypatch.setattr(pages, "pages", lambda root: {})
    assert pages.main() == 1 and "still the skeleton's" in capsys.readouterr().out


def test_which_encoders_read_what():
    rows = {what: takes for what, _, takes in pages.readers()}
    assert rows['`audio="wave"`'].startswith("none") and "`pictures`" in rows["frames"]
    for key, r in pages.RECIPES.items():  # what a recipe puts together goes together
        audio = "`audio_backbone=`" if r["audio_backbone"] else f'`audio="{r["audio"]}"`'
        video = "`video_backbone=`" if r["video_backbone"] else "frames"
        for stream, what in dict(audio=audio, video=video).items():
            if key.startswith("ravdess_"):
                continue  # features of one's own
            takes = next(t for k, t in rows.items() if k.startswith(what))
            assert f"`{r[f'{stream}_encoder']}`" in takes, (key, stream)


def test_options_are_told_as_recipes_write_them():
    rows = {name: (what, takes) for name, what, takes in pages.options()}
    assert "`n_mels=64`" in rows['`audio="logmel"`'][1] and "rate" not in rows['`audio="mfcc"`'][1]
    assert rows['`audio="statistics"`'][0].startswith("(N,parts")
    assert all(what for what, _ in rows.values())
    for r in pages.RECIPES.values():
        for name, given in r["encoder_options"].items():
            takes = next(t for k, (_, t) in rows.items() if k.startswith(f"`{name}`"))
            assert all(f"`{option}=" in takes for option in given), (name, given)


def test_a_block_that_does_not_say_what_it_is(monkeypatch):
    class Gate(pages.Fusion):
        "a gate"

    monkeypatch.setitem(pages.FUSIONS, "gate", Gate)
    with pytest.raises(AvkitError, match="the first line of Gate's docstring should be"):
        pages.stale()


def test_what_an_entry_lacks_is_one_line(monkeypatch, capsys):
    monkeypatch.setitem(pages.STUDIES, "mine2025", pages.STUDIES["jca2023"])
    assert pages.main() == 1
    assert capsys.readouterr().out.startswith("Unknown recipe 'mine2025'")
