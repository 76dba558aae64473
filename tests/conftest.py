import os
from pathlib import Path
import avkit  # noqa: F401 before NumPy: it chooses their kernels
import numpy as np, pandas as pd, pytest
from avkit.core import repo_root

os.environ["AVKIT_PROGRESS"] = "0"
os.fsync = lambda fd: None  # no test cuts the power; failing disks are tried in other processes

LONG = [  # the files that take longest, longest first
    "training/test_numerics.py",
    "whole/test_end_to_end.py",
    "evaluation/test_predict.py",
    "preprocessing/test_bounds.py",
    "training/test_resume.py",
    "training/test_processes.py",
    "training/test_grid.py",
    "whole/test_dask.py",
    "evaluation/test_released_runs.py",
    "evaluation/test_audit.py",
    "reports/test_reports.py",
    "datasets/test_vgaf.py",
]


def pytest_collection_modifyitems(items):
    """What `make check` runs, then long files: one that came last would run while the other cores
    wait"""
    here = Path(__file__).parent
    place = {here / name: i for i, name in enumerate(LONG)}

    def order(item):
        fast = item.path.relative_to(here).parts[0] in ("checks", "core", "models")
        return -1 if fast else place.get(item.path, len(LONG))

    items.sort(key=order)


@pytest.fixture(scope="session")
def noted(tmp_path_factory):
    "What a process noted of avkit's code, which no other needs to parse again"
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "noted"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(autouse=True)
def own_cache(noted, tmp_path_factory, monkeypatch):
    """No test reads or fills the user's cache, unless it sets AVKIT_HOME itself; only what is noted
    of the code is shared"""
    home = tmp_path_factory.mktemp("home")
    (home / "noted").symlink_to(noted, target_is_directory=True)
    monkeypatch.setenv("AVKIT_HOME", str(home))


@pytest.fixture(scope="session")
def shared_data():
    "Real data, where it is at hand: $AVKIT_DATA, or shared/data beside the clone"
    d = Path(os.environ.get("AVKIT_DATA") or repo_root().parent / "shared/data")
    if not d.is_dir():
        pytest.skip(
            "real data not at hand: set AVKIT_DATA to a folder with ravdess_speech/, grid_clips/, ..."  # noqa: E501
        )
    return d


@pytest.fixture(scope="session")
def toy_corpus(tmp_path_factory):
    """RAVDESS names of 24 actors without media, and features that tell the emotion: sound the
    first bit, face the others"""
    rng, tmp_path = np.random.default_rng(0), tmp_path_factory.mktemp("toy")
    root = tmp_path / "ravdess"
    rows = []
    for actor in range(1, 25):
        for e in range(1, 9):
            name = f"03-01-{e:02d}-01-01-01-{actor:02d}"
            (root / f"Actor_{actor:02d}").mkdir(parents=True, exist_ok=True)
            (root / f"Actor_{actor:02d}/{name}.wav").write_text(name)
            bits = [(e - 1) >> i & 1 for i in range(3)]
            for t in range(3):
                rows.append([name, *(np.array(bits) + rng.normal(0, 0.3, 3))])
    t = pd.DataFrame(rows, columns=["name", "b0", "b1", "b2"])
    t[["name", "b0"]].to_csv(tmp_path / "sound.csv", index=False)
    t[["name", "b1", "b2"]].to_csv(tmp_path / "face.csv", index=False)
    return dict(
        dataset="ravdess",
        data_root=str(root),
        audio_features=str(tmp_path / "sound.csv"),
        video_features=str(tmp_path / "face.csv"),
        recipe="demo",
        device="cpu",
    )
