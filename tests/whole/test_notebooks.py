"""Run notebooks: parameters that papermill and the guard agree on, at most a dozen cells, no
logic, no outputs."""

import re
import nbformat, pytest
from click.testing import CliRunner
from avkit.core import AvkitError, repo_root
from avkit.training.settings import DEFAULTS, FLAGS, setting_help
from checks import parameters as parameters_check
from helpers import run_cells

NBS = repo_root() / "nbs"
ALL = sorted(p for p in NBS.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)
RUNS = [p for p in ALL if not p.name[0].isdigit()]


def parameters(nb):
    return [c for c in nb.cells if "parameters" in c.metadata.get("tags", [])]


@pytest.mark.parametrize("path", ALL, ids=lambda p: p.stem)
def test_every_notebook(path):
    nb = nbformat.read(path, 4)
    nbformat.validate(nb)
    assert nb.metadata.kernelspec.name == "python3"
    assert re.match(r"# .+\n\n> .+", nb.cells[0].source), "the first cell is a title and one line"
    assert path.stat().st_size < 150_000
    for c in nb.cells:
        if "#| export" in c.source:
            assert c.source.count("\n") < 70, c.source[:80]


@pytest.mark.parametrize("path", RUNS, ids=lambda p: p.stem)
def test_run_notebooks(path):
    nb = nbformat.read(path, 4)
    code = [c for c in nb.cells if c.cell_type == "code"]
    tagged = parameters(nb)
    assert len(tagged) == 1 and len(code) <= 12
    assert not any(c.outputs for c in code), "run notebooks are committed without outputs"
    assert not any(re.search(r"^\s*(def|class|while) |default_exp", c.source, re.M) for c in code)
    assert "guard(" in code[code.index(tagged[0]) + 1].source


def test_parameters_are_the_settings():
    assert not parameters_check.stale()
    scope = {}
    exec(parameters(nbformat.read(NBS / "train.ipynb", 4))[0].source, scope)
    assert {k: v for k, v in scope.items() if not k.startswith("_")} == {
        k: DEFAULTS[k] for k in FLAGS
    }


def papermill_command(*argv):
    "What papermill's command answers"
    from papermill.cli import papermill

    return CliRunner().invoke(papermill, list(map(str, argv)))


def test_papermill_knows_every_parameter():
    out = papermill_command("--help-notebook", NBS / "train.ipynb").output
    for name in FLAGS:
        assert f"{name}:" in out
    assert setting_help("fusion") in out


REFUSED = [
    (dict(fusoin="ca"), "did you mean 'fusion'"),
    (dict(epochs="many"), "should be int"),
    (dict(fusion="cat"), "Unknown fusion"),
    (dict(dataset="ravdes"), "did you mean 'ravdess'"),
    (dict(dataset="ravdess", data_root="/nowhere"), "/nowhere is not a folder"),
]


@pytest.mark.parametrize("given,message", REFUSED, ids=lambda x: x if isinstance(x, str) else "")
def test_what_papermill_injects_is_refused(given, message):
    "As papermill does: the given ones are set after the cell of parameters"
    with pytest.raises(AvkitError, match=re.escape(message)):
        run_cells("train", **given)


def test_papermill_itself_refuses(tmp_path):
    "A run notebook begins so: what is imported, the cell of parameters, the guard"
    nb = nbformat.read(NBS / "train.ipynb", 4)
    guarded = "guard(globals(), dict(fusion=str))"
    code = ["from avkit.core import guard", "fusion: str = 'ca'", guarded]
    nb.cells = [nbformat.v4.new_code_cell(c) for c in code]
    nb.cells[1].metadata["tags"] = ["parameters"]
    nbformat.write(nb, tmp_path / "in.ipynb")
    r = papermill_command(tmp_path / "in.ipynb", tmp_path / "out.ipynb", "-p", "fusoin", "ca")
    assert r.exit_code != 0 and "did you mean 'fusion'" in str(r.exception)
