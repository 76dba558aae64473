"""From files on disk to a record, through the functions that the notebooks call; and what bad
input does."""

import json, os, resource, shutil, signal, subprocess, sys, time, zipfile
from pathlib import Path
import matplotlib, numpy as np, pandas as pd, pytest
from matplotlib import pyplot
from avkit.datasets import synth
from avkit.core import AvkitError, repo_root
from avkit.training.learner import fit
from avkit.training.loading import load_data
from avkit.cli import main
from avkit.training.configure import configure
from avkit.store import Store
from helpers import draw_small, forked_process, run_cells

matplotlib.use("agg")


@pytest.fixture(scope="session")
def rendered(tmp_path_factory):
    "Half of the clips of three rendered actors, in a path with spaces and umlauts"
    root = tmp_path_factory.mktemp("Ünï cødé 数据") / "my corpus"
    whole = synth._plan
    with pytest.MonkeyPatch.context() as m:
        m.setattr(synth, "_plan", lambda *of: whole(*of)[::2])
        return synth.render_demo(root, actors=3, repeats=1, n_jobs=1, progress=False)


SPLIT = "speaker,split\n1,train\n2,validation\n3,test\n"


@pytest.fixture
def settings(rendered, tmp_path):
    (tmp_path / "split.csv").write_text(SPLIT)
    return dict(
        dataset="ravdess",
        data_root=str(rendered),
        split=str(tmp_path / "split.csv"),
        epochs=2,
        device="cpu",
        n_jobs=1,  # a worker imports for longer than it works
    )


@pytest.fixture
def few(rendered, tmp_path):
    "Settings for one speaker a subset, with four clips that train and two of each other"
    for actor, n in ((1, 4), (2, 2), (3, 2)):
        (tmp_path / f"few/Actor_{actor:02}").mkdir(parents=True)
        clips = sorted((rendered / f"Actor_{actor:02}").glob("01-*.mp4"))[:n]
        for path in [p for c in clips for p in c.parent.glob(f"0?{c.stem[2:]}.*")]:
            shutil.copy(path, tmp_path / f"few/Actor_{actor:02}" / path.name)
    shutil.copy(rendered / "synth.json", tmp_path / "few/synth.json")
    (tmp_path / "few.csv").write_text(SPLIT)
    return dict(data_root=str(tmp_path / "few"), split=str(tmp_path / "few.csv"))


@pytest.fixture(scope="module")
def one_home(noted, tmp_path_factory):
    home = tmp_path_factory.mktemp("warm")
    (home / "noted").symlink_to(noted, target_is_directory=True)
    return home


@pytest.fixture
def warm(one_home, monkeypatch):
    "A cache that the tests share which are not about preparation"
    monkeypatch.setenv("AVKIT_HOME", str(one_home))


def at_home(home, target, *args):
    "What a process does that is forked from one with another cache"
    os.environ["AVKIT_HOME"] = str(home)
    target(*args)


def run_forked(*what):
    "The process in which `at_home` ran, forked from one that has imported what training needs"
    p = forked_process(target=at_home, args=what)
    p.start()
    p.join()
    return p


def train_without_decoder(flags):
    decoding = "av", "cv2", "facenet_pytorch", "onnxruntime"
    assert not [name for name in decoding if sys.modules.get(name)]
    sys.modules.update(dict.fromkeys(decoding))
    sys.exit(main(["train", *flags]))


def train_on_a_full_disk(flags, out, err):
    with open(out, "w", buffering=1) as sys.stdout, open(err, "w", buffering=1) as sys.stderr:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
        sys.exit(main(["train", *flags]))


def prepare_all(flags):
    sys.stdout = sys.stderr = open(os.devnull, "w")
    sys.exit(main(["prepare", *flags]))


def test_raw_clips_to_record(settings, tmp_path, warm, capsys):
    "The first to use the cache that the others find filled"
    before = {p: p.stat().st_mtime_ns for p in Path(settings["data_root"]).rglob("*")}
    run = tmp_path / "run"
    assert main(["train", *(f"--{k}={v}" for k, v in (settings | dict(run_dir=run)).items())]) == 0
    assert {p: p.stat().st_mtime_ns for p in Path(settings["data_root"]).rglob("*")} == before, (
        "data_root was written into"
    )
    r = json.loads((run / "record.json").read_text())
    assert set(r["metrics"]) == {"train", "validation", "test"} and set(r["metrics"]["test"]) == {
        "av",
        "audio",
        "video",
    }
    assert {"accuracy", "uar", "f1_macro", "f1_micro", "f1_weighted"} <= set(
        r["metrics"]["test"]["av"]
    )
    assert (
        r["speakers"]["test"] == ["03"] and r["split"]["speaker_independent"] and not r["set_aside"]
    )
    p = pd.read_csv(run / "predictions.csv")
    assert (
        list(p.columns[:6]) == ["clip", "split", "condition", "fold", "target", "prediction"]
        and list(p.columns[6:]) == r["classes"]
    )
    assert np.allclose(p[r["classes"]].sum(axis=1), 1, atol=1e-4)
    for side in r["metrics"]:
        rows = p[(p.split == side) & (p.condition == "av")]
        assert (
            len(rows) == r["counts"][side]
            and abs((rows.target == rows.prediction).mean() - r["metrics"][side]["av"]["accuracy"])
            < 1e-9
        )
    assert (
        len(pd.read_csv(run / "history.csv")) == 2
        and (run / "checkpoints/best.safetensors").exists()
        and any((run / "tensorboard").iterdir())
    )
    # a second run, without decoder and detector, reads the filled store and comes to the same predictions  # noqa: E501
    flags = [f"--{k}={v}" for k, v in (settings | dict(run_dir=tmp_path / "again")).items()]
    assert run_forked(os.environ["AVKIT_HOME"], train_without_decoder, flags).exitcode == 0
    assert (tmp_path / "again/predictions.csv").read_bytes() == (
        run / "predictions.csv"
    ).read_bytes()


@pytest.mark.parametrize("modality", ["audio", "video"])
def test_one_modality(settings, tmp_path, modality, warm):
    r = fit(
        configure(**settings, modality=modality, run_dir=str(tmp_path / modality)), verbose=False
    )
    assert set(r["metrics"]["test"]) == {modality}


def test_noise_in_the_sound(settings, tmp_path, warm):
    """As good as none changes nothing, as loud as the voice does; asked twice it is the same
    noise; a model of pictures hears none"""
    from avkit.evaluation.evaluate import evaluate

    run = (
        fit(configure(**settings, modality="audio", run_dir=str(tmp_path / "run")), verbose=False)
        and tmp_path / "run"
    )
    evaluate(run, "audio,audio_snr_120dB,audio_snr_0dB", verbose=False)
    once = (run / "predictions.csv").read_bytes()
    p = pd.read_csv(run / "predictions.csv").query("split == 'test'").set_index("condition")
    clean, faint, loud = (
        p.loc[c, json.loads((run / "record.json").read_text())["classes"]].to_numpy()
        for c in ("audio", "audio_snr_120dB", "audio_snr_0dB")
    )
    assert abs(clean - faint).max() < 1e-3 < abs(clean - loud).max()
    evaluate(run, "audio_snr_0dB", verbose=False)
    assert (run / "predictions.csv").read_bytes() == once
    fit(configure(**settings, modality="video", run_dir=str(tmp_path / "seen")), verbose=False)
    with pytest.raises(AvkitError, match="does not take audio"):
        evaluate(tmp_path / "seen", "audio_snr_10dB", verbose=False)


def test_bad_files_are_set_aside(few, settings):
    settings, root = settings | few, Path(few["data_root"])
    a, b, c = sorted((root / "Actor_01").glob("01-*.mp4"))[:3]
    a.write_bytes(b"")
    b.write_bytes(b.read_bytes()[: b.stat().st_size // 2])
    c.write_text("not a video")
    corpus = load_data(configure(**settings), verbose=False)
    assert sorted(corpus.set_aside["clip"]) == sorted(p.stem for p in (a, b, c))
    assert all(
        str(p) in r
        for p, r in zip(sorted(map(str, (a, b, c))), corpus.set_aside.sort_values("clip").reason)
    )
    assert len(corpus.data) == len(corpus.manifest) - 3
    again = load_data(configure(**settings), verbose=False)
    assert (again.summary.rows.status == "cached").sum() == len(corpus.data) and len(
        again.summary.failures
    ) == 3


def test_odd_clips_are_rows_of_the_summary(rendered, tmp_path):
    "No sound, no face, shorter than the window, no picture: each says what it is, the rest goes on"
    import av
    from avkit.datasets.ravdess import index
    from avkit.preprocessing.media import decode
    from avkit.preprocessing.writing import write_video
    from avkit.preprocessing.prepare import prepare

    root = tmp_path / "odd"
    shutil.copytree(rendered / "Actor_01", root / "Actor_01")
    for p in root.rglob("03-*.wav"):
        p.unlink()
    silent, faceless, short, dark = sorted(root.rglob("01-*.mp4"))[:4]
    c = decode(silent)
    write_video(silent, c.frames, 25)
    write_video(faceless, np.full_like(c.frames, 128), 25, c.sound, c.rate)
    write_video(short, c.frames[:25], 25, c.sound[: c.rate], c.rate)
    with av.open(str(dark), "w") as out:
        s = out.add_stream("aac", rate=24000, layout="mono")
        f = av.AudioFrame.from_ndarray(c.sound[None].astype("f4"), format="fltp", layout="mono")
        f.rate = 24000
        for p in [*s.encode(f), *s.encode()]:
            out.mux(p)
    store = Store(tmp_path / "store")
    s = prepare(index(root), store=store, n_jobs=1)
    why = s.rows.set_index("clip")[["status", "reason"]].agg(" ".join, axis=1)
    assert "no sound" in why[silent.stem] and str(silent) in why[silent.stem]
    assert "no face in any of 15 frames" in why[faceless.stem] and "no picture" in why[dark.stem]
    assert why[short.stem] == "done " and (s.rows.status == "done").sum() == len(s.rows) - 3
    again = prepare(index(root), store=store, n_jobs=1).rows
    assert again.status.value_counts().to_dict() == {
        "cached": len(s.rows) - 3,
        "failed": 2,
        "no face": 1,
    }


def test_a_full_disk(settings, tmp_path):
    """Writes fail from 20 kB on (as on a full disk): one line that names the file, and no part of
    a file is left"""
    flags = [f"--{k}={v}" for k, v in (settings | dict(run_dir=tmp_path / "run", n_jobs=1)).items()]
    home, told = tmp_path / "home", [tmp_path / "out.txt", tmp_path / "err.txt"]
    done = run_forked(home, train_on_a_full_disk, flags, *told)
    out, err = (p.read_text() for p in told)
    assert done.exitcode == 2 and "avkit: " in err and "Traceback" not in err, out + err
    assert "Disk full" in out + err
    left = [p for p in (tmp_path / "home").rglob("*") if p.is_file() and p.stat().st_size >= 20000]
    assert not left and not (tmp_path / "run/record.json").exists()


def test_a_killed_preparation_goes_on(few, tmp_path, monkeypatch):
    monkeypatch.setenv("AVKIT_HOME", str(tmp_path / "cache"))
    rendered = few["data_root"]
    from avkit.preprocessing.prepare import Preparation, prepare
    from avkit.datasets.ravdess import index

    flags = ["--dataset=ravdess", f"--data_root={rendered}", "--n_jobs=1"]
    p = forked_process(target=at_home, args=(tmp_path / "cache", prepare_all, flags))
    p.start()
    while p.is_alive() and len(list((tmp_path / "cache").rglob("*.safetensors"))) < 6:
        time.sleep(0.01)
    p.kill()
    p.join()
    rows = prepare(index(rendered), Preparation(), Store(), n_jobs=1).rows
    assert set(rows.status) == {"done", "cached"} and not list(
        (tmp_path / "cache/store").rglob(".tmp-*.mp4")
    )


@pytest.mark.parametrize(
    "change,message",
    [
        (dict(data_root="/nowhere/at all"), "/nowhere/at all is not a folder"),
        (dict(data_root=None), "needs data_root"),
        (dict(split="random.csv"), "Cannot read the split"),
        (dict(split="relased"), "did you mean 'released'"),
        (dict(fold=7, split="paper5"), "folds 0 to 4"),
        (dict(audio_features="/nowhere.csv"), "/nowhere.csv does not exist"),
        (dict(device="cuda"), "sees no GPU"),
    ],
)
def test_clear_errors(settings, change, message, capsys, warm):
    import torch

    if change.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    settings = {k: v for k, v in (settings | change).items() if v is not None}
    assert main(["train", *(f"--{k}={v}" for k, v in settings.items())]) == 2
    assert message in capsys.readouterr().err


def test_a_leaking_split_is_refused(settings, tmp_path, capsys):
    own = tmp_path / "leak.csv"
    from avkit.datasets.ravdess import index

    clips = index(settings["data_root"]).clips["clip"]
    own.write_text(
        "clip,split\n"
        + "\n".join(f"{c},{('train', 'validation')[i % 2]}" for i, c in enumerate(clips))
    )
    assert main(["train", *(f"--{k}={v}" for k, v in (settings | dict(split=own)).items())]) == 2
    assert "Speaker(s) 01, 02" in capsys.readouterr().err


def test_the_notebook_trains_and_a_random_split_says_so(settings, tmp_path, warm, monkeypatch):
    "nbs/train.ipynb, from clips to figures"
    draw_small(monkeypatch)
    own = settings | dict(split="random", epochs=1, run_dir=str(tmp_path / "r"))
    r = run_cells("train", **own)["record"]
    assert r["split"]["note"] == "not speaker-independent"
    drawn = {p.stem for p in (tmp_path / "r/figures").glob("*.png")}
    assert {"glance", "attention", "learning_curves"} < drawn


def test_the_notebook_prepares_and_shows_the_faces(settings, warm, monkeypatch):
    "nbs/prepare.ipynb, on three actors: with nothing changed it takes `make demo`'s sixteen"
    draw_small(monkeypatch)
    pyplot.close("all")
    own = {k: settings[k] for k in ("dataset", "data_root", "split", "n_jobs")}
    rows = run_cells("prepare", **own)["summary"].rows
    assert set(rows.status) <= {"done", "cached"} and len(rows) == 12
    assert any(ax.images for ax in pyplot.gcf().axes)


def test_notebooks_of_many_runs(settings, tmp_path, warm, monkeypatch):
    "nbs/compare.ipynb, then nbs/robustness.ipynb over the same runs"
    draw_small(monkeypatch)
    runs = str(tmp_path / "runs")
    own = settings | dict(epochs=1, fusions="concat", dropouts="nodropout,softhard", runs=runs)
    done = run_cells("compare", **own, report=str(tmp_path / "compare"))["done"]
    assert done.status.tolist() == ["done", "done"]
    done = run_cells("robustness", **own, report=str(tmp_path / "robustness"))["done"]
    assert done.status.tolist() == ["cached", "cached"]
    table = (tmp_path / "robustness/table.md").read_text()
    assert all(kind in table for kind in ("masked", "lost", "noise", "snr"))


def test_installed_wheel(few, tmp_path):
    "A wheel built from the clone works in an empty folder, from a ten-line script"
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-c", build, tmp_path],
        cwd=repo_root(),
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")  # all that installing one does
    (tmp_path / "empty").mkdir()
    script = f"""
import avkit.core, avkit.datasets.manifest
from avkit.training.learner import fit
from avkit.training.loading import load_data
from avkit.training.record import score_lines
from avkit.training.configure import configure
assert avkit.core.repo_root() is None and {str(tmp_path / "site")!r} in avkit.core.__file__
cfg = configure(dataset="ravdess", data_root={few["data_root"]!r}, split={few["split"]!r}, n_jobs=1, epochs=1, run_dir="run", device="cpu")
corpus = load_data(cfg)
record = fit(cfg, corpus)
print(score_lines(record))
"""  # noqa: E501
    env = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    r = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path / "empty",
        env=env,
        capture_output=True,
        text=True,
    )
    assert r.returncode == 0, r.stderr[-3000:]
    assert (tmp_path / "empty/run/record.json").exists()
