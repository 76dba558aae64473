"""What the repository promises: pins that agree, light imports, no paths of one machine."""

import ast, configparser, functools, re, subprocess, sys, tomllib
import pytest
from avkit.core import repo_root

ROOT = repo_root()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def tracked():
    out = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, text=True)
    if out.returncode:
        pytest.skip("not a git clone")
    return [ROOT / p for p in out.stdout.split("\0") if p]


def names(requirements):
    return {re.match(r"[\w-]+", r)[0].lower() for r in requirements}


def test_versions_and_requirements_agree():
    ini = configparser.ConfigParser()
    ini.read(ROOT / "settings.ini")
    ini, p = ini["DEFAULT"], PROJECT["project"]
    assert (
        ini["version"] == p["version"]
        and f'__version__ = "{p["version"]}"' in (ROOT / "avkit/__init__.py").read_text()
    )
    extras = {
        r for e in p["optional-dependencies"].values() for r in e if not r.startswith("avkit")
    }
    assert set(ini["requirements"].split()) == set(p["dependencies"])
    assert set(ini["dev_requirements"].split()) == extras
    assert (
        ini["allowed_cell_metadata_keys"]
        == "tags"
        == PROJECT["tool"]["nbdev"]["allowed_cell_metadata_keys"]
    )


def test_every_requirement_is_pinned():
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text(), re.M))
    pins = {k.lower().replace("_", "-"): v for k, v in pins.items()}
    extras = [
        r
        for e in PROJECT["project"]["optional-dependencies"].values()
        for r in e
        if not r.startswith("avkit")
    ]
    assert not {
        n
        for n in names(PROJECT["project"]["dependencies"] + extras)
        if n.replace("_", "-") not in pins
    }
    assert (pins["torch"], pins["torchaudio"], pins["torchvision"]) == (
        "2.11.0",
        "2.11.0",
        "0.26.0",
    )


def test_training_imports_no_decoder_and_no_detector():
    code = (
        "import sys, avkit.training.learner, avkit.reports.tables, avkit.reports.browser; bad = [m for m in ('av', 'cv2', 'facenet_pytorch', 'onnxruntime', 'fastcore', "  # noqa: E501
        "'nbdev', 'IPython', 'librosa', 'matplotlib', 'transformers') if m in sys.modules]; print(bad); sys.exit(bool(bad))"  # noqa: E501
    )
    r = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    assert r.returncode == 0, r.stdout + r.stderr


@functools.cache
def modules():
    "{path: syntax tree} of avkit"
    paths = sorted((ROOT / "avkit").rglob("*.py"))
    return {p: ast.parse(p.read_text(encoding="utf-8")) for p in paths}


def test_exported_code_needs_neither_fastcore_nor_nbdev():
    for p, tree in modules().items():
        for n in ast.walk(tree):
            names = [a.name for a in n.names] if isinstance(n, ast.Import) else []
            names += [n.module or ""] if isinstance(n, ast.ImportFrom) else []
            assert not {m.split(".")[0] for m in names} & {"fastcore", "nbdev", "execnb"}, p


def test_a_module_names_each_thing_once():
    for f, tree in modules().items():
        names = [n.name for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef))]
        assert not (twice := sorted({n for n in names if names.count(n) > 1})), (
            f"{f}: {twice}, the later one hides the first"
        )


def test_no_path_of_one_machine():
    pattern = re.compile(r"/(?:home|Users)/\w+/|/root/|/work/|/tmp/\w|\bC:\\Users")
    for p in tracked():
        if (
            p.suffix
            in {".py", ".ipynb", ".md", ".toml", ".txt", ".ini", ".csv", ".json", ".yml", ""}
            and p.is_file()
        ):
            hits = pattern.findall(p.read_text(encoding="utf-8", errors="ignore"))
            assert not hits or p.name == "test_repository.py", f"{p}: {hits[:3]}"


def test_readme_shows_the_tables_that_runs_made():
    readme = (ROOT / "README.md").read_text()
    for name in ("demo", "ravdess_real"):
        table = subprocess.run(
            ["git", "-C", ROOT, "show", f"HEAD:reports/{name}/table.md"],
            capture_output=True,
            text=True,
        )
        if table.returncode:
            pytest.skip("not a git clone")  # `make demo` writes the one in the tree anew
        rows = [l for l in table.stdout.splitlines() if l.startswith("|")]
        assert len(rows) > 3 and "\n".join(rows) in readme, (
            f"README.md does not show reports/{name}/table.md"
        )


def test_a_kernel_is_silent_of_what_nobody_can_change(caplog):
    "`make setup` puts the file where kernels read it; it leaves out one warning, and no other"
    import inspect, logging
    from ipykernel import kernelapp

    config = (ROOT / ".lab/ipython_kernel_config.py").read_text()
    assert ".lab/ipython_kernel_config.py $(VENV)/etc/ipython/" in (ROOT / "Makefile").read_text()
    assert "without encryption" in inspect.getsource(kernelapp), "ipykernel no longer says so"
    log = logging.getLogger("IPKernelApp")
    before = list(log.filters)
    try:
        exec(config, {})
        log.warning("Kernel is running over TCP without encryption. All of it")
        log.warning("something real")
    finally:
        log.filters = before
    assert [r.getMessage() for r in caplog.records] == ["something real"]
