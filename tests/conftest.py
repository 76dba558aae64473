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
    "Long files first: one that came last would run while the other cores wait"
    place = {str(Path(__file__).parent / name): i for i, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(str(item.path), len(LONG)))


@pytest.fixture(scope="session")
def noted(tmp_path_factory):
    "What processes note of avkit's code, two seconds' work: one folder for all caches"
    return tmp_path_factory.mktemp("noted")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch, noted):
    "No test reads or fills the user's cache, unless it sets AVKIT_HOME itself"
    home = tmp_path_factory.mktemp("home")
    (home / "noted").symlink_to(noted)
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
