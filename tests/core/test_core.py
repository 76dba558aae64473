"""Core: paths, files and parameters under many processes, kills, and odd places."""

import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import time

import numpy as np
import pytest

from avkit import core
from avkit.core import AvkitError, atomic_path, cache_dir, child_seed, command, content_key, guard
from avkit.core import (
    kit_path,
    parallel,
    read_json,
    repo_root,
    resolve,
    sweep_tmp,
    write_json,
    write_text,
)


def write_often(path, text):
    for _ in range(50):
        write_text(path, text)


def test_readers_see_one_whole_file_while_others_write(tmp_path):
    path, texts = tmp_path / "a.txt", ["a" * 50_000, "b" * 80_000]
    write_text(path, texts[0])
    fork = multiprocessing.get_context("fork")
    writers = [fork.Process(target=write_often, args=(path, t)) for t in texts]
    for w in writers:
        w.start()
    while any(w.is_alive() for w in writers):
        assert path.read_text() in texts
    for w in writers:
        w.join()
    assert [w.exitcode for w in writers] == [0, 0]
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_killed_writer_leaves_the_old_file_and_what_sweep_removes(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    code = (
        "import os, signal\nfrom avkit.core import atomic_path\n"
        f"with atomic_path({str(tmp_path / 'a.txt')!r}) as tmp:\n"
        "    tmp.write_text('ne')\n    os.kill(os.getpid(), signal.SIGKILL)"
    )
    child = subprocess.run([sys.executable, "-c", code])
    assert child.returncode == -signal.SIGKILL and (tmp_path / "a.txt").read_text() == "old"
    left = [n for n in os.listdir(tmp_path) if n.startswith(".tmp-")]
    assert len(left) == 1
    elsewhere = tmp_path / left[0].replace(".tmp-", ".tmp-another")
    elsewhere.mkdir()
    assert sweep_tmp(tmp_path) == 1  # its process is gone; the other machine's may still write
    assert sorted(os.listdir(tmp_path)) == [elsewhere.name, "a.txt"]
    long_ago = time.time() - 2 * 86400
    os.utime(elsewhere, (long_ago, long_ago))
    assert sweep_tmp(tmp_path) == 1 and os.listdir(tmp_path) == ["a.txt"]


def test_a_file_has_the_rights_of_a_plain_one(tmp_path):
    (tmp_path / "plain").touch()
    with atomic_path(tmp_path / "ours") as tmp:
        tmp.touch()
        tmp.chmod(0o600)  # as safetensors does
    mode = lambda name: stat.S_IMODE((tmp_path / name).stat().st_mode)
    assert mode("ours") == mode("plain")


@pytest.mark.parametrize("path", ["/dev/null/a.txt", "/proc/nowhere/a.txt"])
def test_where_nothing_can_be_written_the_error_names_the_file(path):
    with pytest.raises(AvkitError, match=f"Cannot write {path}.*writable"):
        write_text(path, "x")


def test_json_takes_numpy_and_names_a_damaged_file(tmp_path):
    p = tmp_path / "ä b.json"
    write_json(p, dict(a=np.arange(2), b=np.float32(0.5), c=p, d={"ü"}))
    assert read_json(p) == dict(a=[0, 1], b=0.5, c=str(p), d=["ü"])
    with pytest.raises(TypeError, match="object has no JSON form"):
        write_json(p, object())
    assert read_json(p)["b"] == 0.5  # what was there stays
    p.write_text("{")
    with pytest.raises(AvkitError, match="ä b.json as JSON"):
        read_json(p)


def test_keys_do_not_change():
    "Stores are filled under these: another hash means that everybody prepares again"
    key = content_key("clip", dict(size=224, views=("face",)))
    assert key == "8092a94e7fbd550836c9a00a859bfb09eed6a2a39775da69d2c94921c2ce4ccd"
    assert content_key([1.0]) != content_key([1]) and content_key(None) != content_key("null")
    assert child_seed(1, "shuffle", 7) == 7023092453836891134


def test_relative_paths_count_from_where_a_command_was_started(tmp_path, monkeypatch):
    root = repo_root()
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    monkeypatch.chdir(tmp_path)
    assert resolve("reports/mine") == tmp_path / "reports/mine"
    assert kit_path("reports/demo") == root / "reports/demo"  # avkit's own, from anywhere
    assert str(resolve("~/data")) == os.path.expanduser("~/data")
    assert repo_root() == root and repo_root(tmp_path) is None  # found from where avkit's code is


def test_in_jupyter_they_count_from_the_notebook_or_else_from_the_clone(tmp_path, monkeypatch):
    root = repo_root()
    monkeypatch.setenv("JPY_SESSION_NAME", "nbs/train.ipynb")
    monkeypatch.chdir(root / "nbs")
    assert resolve("papers") == root / "nbs/papers"
    assert resolve("reports/demo") == root / "reports/demo"
    monkeypatch.chdir(tmp_path)  # a notebook of one's own, elsewhere
    assert resolve("mine") == tmp_path / "mine"


def test_the_cache_without_a_clone(tmp_path, monkeypatch):
    monkeypatch.setattr(core, "repo_root", lambda: None)
    monkeypatch.delenv("AVKIT_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir("store") == tmp_path / "avkit/store"


def train(fusion: str = "ca", epochs: int | None = None, lr: float = 0.1) -> dict:
    return {}


@pytest.mark.parametrize(
    "given,message",
    [
        (dict(fusoin="ca"), "Unknown parameter 'fusoin', did you mean 'fusion'"),
        (dict(epochs="3"), r"Parameter 'epochs' should be int \| None, got '3' \(str\).*YAML"),
        (dict(epochs=2.0), r"should be int \| None, got 2.0 \(float\)"),
        (dict(lr="1e-3"), "'lr' should be float.*write 1e-3 as 0.001"),
        (dict(lr=True), "'lr' should be float, got True"),
        (dict(fusion=None), "'fusion' should be str, got None"),
    ],
)
def test_guard_says_what_is_wrong(given, message):
    with pytest.raises(AvkitError, match=message):
        guard(given, train)


def test_guard_again_in_the_same_kernel():
    "Variables of later cells are no parameters, but a parameter that was changed is checked again"
    scope = dict(fusion="ca", epochs=None)
    assert guard(scope, train) == dict(fusion="ca", epochs=None)
    scope["corpus"] = [1, 2]
    assert guard(scope, train) == dict(fusion="ca", epochs=None)
    scope["epochs"] = "many"
    with pytest.raises(AvkitError, match="'epochs'"):
        guard(scope, train)


def test_parallel_in_order_and_with_errors():
    squares = parallel(pow, [(k, 2) for k in range(6)], None, n_jobs=2, ordered=True)
    assert list(squares) == [0, 1, 4, 9, 16, 25]
    assert list(parallel(pow, [], None)) == []
    with pytest.raises(ZeroDivisionError):
        list(parallel(divmod, [(1, 1), (1, 0)], None, n_jobs=1))


def test_command_ends_with_a_line_and_a_status(capsys):
    @command
    def main(argv):
        "Do it"
        if argv:
            raise AvkitError("No such thing: look elsewhere.")
        return 0

    assert main() == 0 and main(["x"]) == 2 and main.__doc__ == "Do it"
    assert capsys.readouterr().err == "avkit: No such thing: look elsewhere.\n"
    with pytest.raises(KeyError):
        command(lambda argv: {}["a"])()  # a bug keeps its traceback


def test_a_reader_that_leaves_is_no_error():
    code = (
        "from avkit.core import command\n@command\n"
        "def main(argv): print('x' * 10_000_000)\nraise SystemExit(main())"
    )
    pipe = subprocess.PIPE
    child = subprocess.Popen([sys.executable, "-c", code], stdout=pipe, stderr=pipe)
    child.stdout.read(10)
    child.stdout.close()
    assert child.stderr.read() == b"" and child.wait() == 141
