"""A cluster that loses a worker in the middle: every run and every clip once, and whole; jobs
that kill whoever takes them end in words."""

import faulthandler, os, signal, threading, time
import dask, numpy as np, pytest
from joblib import parallel_config
from avkit.training import grid as g
from avkit.core import AvkitError, parallel, read_json
from avkit.datasets.manifest import make_manifest
from avkit.preprocessing.writing import write_video
from avkit.preprocessing.prepare import Preparation, prepare, stream_key
from avkit.store import Store
from helpers import FORKS, READ


@pytest.fixture(autouse=True)
def hard_stop(seconds=150):
    "A test that hangs shows where and fails, once more where its cluster cannot be closed either"

    def stop(*_):
        faulthandler.dump_traceback()
        raise TimeoutError(f"no end in {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, 20)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def forks():
    "Workers are forked from a process that has read the package, not only Dask's"
    from distributed.utils import get_mp_context

    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        get_mp_context()  # the first time it says what is to be read
        FORKS.set_forkserver_preload([*READ, "distributed", "av"])
        yield


@pytest.fixture
def cluster(own_cache, forks):
    "Two workers with one thread each"
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as c,
        Client(c),
        parallel_config(backend="dask"),
    ):
        yield c


def kill_one(cluster, when):
    "Kill a worker without warning as soon as there is a file like this: (folder, pattern)"
    pid = cluster.workers[0].process.pid

    def wait():
        while not any(when[0].glob(when[1])):
            time.sleep(0.01)
        os.kill(pid, signal.SIGKILL)

    t = threading.Thread(target=wait, daemon=True)
    t.start()
    return t


def test_every_run_once(cluster, toy_corpus, tmp_path):
    runs = g.combine(to=tmp_path, **toy_corpus, epochs=4, fusion="concat", seed=[1, 2, 3, 4])
    killer = kill_one(cluster, (tmp_path, "*/checkpoints/*"))
    t = g.run_grid(runs)
    assert t.status.tolist() == ["done"] * 4, t.reason.tolist()
    assert not killer.is_alive() and len(cluster.scheduler.workers) > 0
    for c in runs:
        assert [h["epoch"] for h in read_json(c.run_dir / "record.json")["history"]] == list(
            range(4)
        )
    assert g.run_grid(runs).status.tolist() == ["cached"] * 4


def test_every_clip_once(cluster, tmp_path):
    rng, sound, names = (
        np.random.default_rng(0),
        np.sin(np.arange(8000) / 20).astype(np.float32),
        [f"{i:02d}.mp4" for i in range(16)],
    )
    (tmp_path / "clips").mkdir()
    for n in names:
        write_video(
            tmp_path / "clips" / n, rng.integers(0, 255, (25, 64, 64, 3), np.uint8), 25, sound, 8000
        )
    m = make_manifest(
        "mine", tmp_path / "clips", [dict(clip=n, audio=n, video=n) for n in names], ["a"]
    )
    prep, stores = (
        Preparation(window=0.5, rate=8000, frames=3, size=32, detector="none"),
        [Store(tmp_path / s) for s in ("there", "here")],
    )
    killer = kill_one(cluster, (tmp_path / "there", "*/*.safetensors"))
    s = prepare(m, prep, stores[0])
    assert s.rows["clip"].tolist() == names and set(s.rows.status) <= {
        "done",
        "cached",
    }  # cached: stored before its worker died
    assert not killer.is_alive()
    with parallel_config(backend="loky"):
        prepare(m, prep, stores[1], n_jobs=1)
    for row in m.clips.to_dict("records"):
        for stream in ("audio", "video"):
            a, b = (x.get(stream_key(row, stream, prep))[0] for x in stores)
            assert a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


DIE = "__import__('os')._exit(9)"


def test_a_job_that_kills_each_worker(cluster):
    cluster.scheduler.allowed_failures, done = 0, []
    with pytest.raises(AvkitError, match="1 of 3 jobs .* killed again and again"):
        for x in parallel(eval, [("1",), (DIE,), ("3",)]):
            done.append(x)
    assert sorted(done) == [1, 3]
    with pytest.raises(ModuleNotFoundError):
        list(parallel(eval, [("__import__('no_such')",)]))


def test_a_process_that_dies_once_here(tmp_path):
    once = f"1 if __import__('os').path.exists({str(tmp_path / 'x')!r}) else (open({str(tmp_path / 'x')!r}, 'w'), {DIE})"  # noqa: E501
    assert list(parallel(eval, [("0",), (once,), ("2",)], n_jobs=2, ordered=True)) == [0, 1, 2]
