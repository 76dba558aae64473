"""Two hosts write into one store at once, on a disk that both see. Processes stand in: each says
that it is another machine and has the number of the other, or has a space of numbers of its own."""

import ctypes
import multiprocessing
import os
import socket
import time

import pytest
import torch

from avkit import core
from avkit.core import atomic_path, content_key, staging_path, sweep_tmp
from avkit.store import Store, pack

FORK = multiprocessing.get_context("fork")
NEW_USER, NEW_NUMBERS = 0x10000000, 0x20000000
N = 40


def as_host(name, boot, began):
    "Let this process be one of a machine, with a number that the other machine has too"
    socket.gethostname = lambda: name
    core._boot = lambda: boot
    os.getpid = lambda: 4242
    core._began = lambda pid: began if pid == 4242 else None


def in_own_numbers(*_):
    "Let this process be number 1 of a space of its own; False where the system forbids it"
    unshare = ctypes.CDLL(None, use_errno=True).unshare
    if unshare(NEW_NUMBERS) and unshare(NEW_USER | NEW_NUMBERS):
        return False
    if child := os.fork():
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    return os.getpid() == 1


def when(path):
    "Wait for a file of the other host"
    for _ in range(3000):
        if path.exists():
            return
        time.sleep(0.02)
    raise RuntimeError(f"{path} does not come")


def numbered(i, j):
    return dict(x=torch.arange(i, j))


def host(become, mine, other, root, *who):
    "Write what the other writes too, and own results; sweep while the other has one in the making"
    if become(*who) is False:
        os._exit(77)
    store, met = Store(root / "store"), lambda what, name: root / f"{what}-{name}"
    met("ready", mine).touch()
    when(met("ready", other))
    for i in range(N):
        for key in (content_key("both", i), content_key(mine, i)):
            store.put(key, dict(x=torch.full((64,), i)))
        store.sweep()
    pack(store, "same", 10, numbered, None)
    with atomic_path(store.root / mine) as tmp:
        tmp.write_text(mine)
        met("making", mine).touch()
        when(met("making", other))
        store.sweep()
        met("swept", mine).touch()
        when(met("swept", other))
    os._exit(0)


@pytest.mark.parametrize(
    "become, a, b",
    [
        (as_host, ("red", "b00t", 1000), ("blue", "b00t", 2000)),
        (as_host, ("localhost", "b00t", 1000), ("localhost", "b001", 2000)),
        (in_own_numbers, (), ()),
    ],
    ids=["two names", "one name", "spaces of numbers"],
)
def test_two_hosts_write_into_one_store(tmp_path, become, a, b):
    hosts = [
        FORK.Process(target=host, args=(become, "a", "b", tmp_path, *a)),
        FORK.Process(target=host, args=(become, "b", "a", tmp_path, *b)),
    ]
    for p in hosts:
        p.start()
    while any(p.is_alive() for p in hosts):
        if any(p.exitcode for p in hosts):
            for p in hosts:
                p.terminate()  # it would wait for the other one
        time.sleep(0.02)
    codes = [p.exitcode for p in hosts]
    if 77 in codes:
        pytest.skip("this system gives no process a space of numbers of its own")
    assert codes == [0, 0]
    store = Store(tmp_path / "store")
    for i in range(N):
        for name in ("both", "a", "b"):
            assert store.get(content_key(name, i))[0]["x"].eq(i).all()
    assert [(store.root / name).read_text() for name in ("a", "b")] == ["a", "b"]
    assert pack(store, "same", 10, numbered, None)["x"].tolist() == list(range(10))
    assert not list(store.root.rglob(".tmp-*"))


def test_what_a_host_writes_for_days_is_not_swept_by_another(tmp_path, monkeypatch):
    made = staging_path(tmp_path / "pack")
    monkeypatch.setattr(socket, "gethostname", lambda: "another")
    made.mkdir()
    (made / "x.npy").write_text("row after row")
    long_ago = time.time() - 3 * 86400
    os.utime(made, (long_ago, long_ago))
    assert sweep_tmp(tmp_path) == 0  # its file was written to just now
    os.utime(made / "x.npy", (long_ago, long_ago))
    assert sweep_tmp(tmp_path) == 1
