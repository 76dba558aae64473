"""What people do on their first day: trials beside finished runs, weights in the wrong place,
tiny corpora, numbers out of range."""

import os
import pandas as pd, pytest
from avkit.datasets import registry
from avkit.core import AvkitError, atomic_path
from avkit.datasets.splits import blocks
from avkit.models.model import build_model
from avkit.evaluation.predict import predict
from avkit.training.configure import configure


def test_a_trial_has_a_folder_of_its_own():
    usual, trial = configure(), configure(epochs=1)
    assert usual.run_dir.name == usual.name == trial.name != trial.run_dir.name
    assert trial.run_dir == configure(epochs=1).run_dir != configure(epochs=1, lr=0.1).run_dir
    assert configure(epochs=1, run_dir="reports/runs/mine").run_dir.name == "mine"


def test_files_are_for_colleagues_too(tmp_path):
    with atomic_path(tmp_path / "x") as tmp:
        tmp.write_text("1")
        tmp.chmod(0o600)  # as safetensors leaves its files
    mask = os.umask(0o077)
    os.umask(mask)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize("stream", ["audio", "video"])
def test_weights_that_nothing_takes(stream):
    s = configure().recipe | dict(modality="av", n_out=8, audio_dim=64)
    build_model(s)
    with pytest.raises(AvkitError, match=f"{stream}_weights=nofile.pt.*no backbone"):
        build_model(s | {f"{stream}_weights": "nofile.pt"})


def test_too_few_clips_for_the_blocks():
    t = pd.DataFrame(
        dict(
            clip=list("abcdef"),
            speaker=list("abcdef"),
            label=["happy", "sad"] * 3,
            recording=list("abcdef"),
        )
    )
    with pytest.raises(AvkitError, match="most frequent has 3.*--split kfold3"):
        blocks(t, 5)
    with pytest.raises(AvkitError, match="there are 6.*take fewer"):
        blocks(t, 7)


def test_the_demo_corpus_renders_itself_only_in_the_cache(monkeypatch):
    monkeypatch.setattr(registry, "_synth", lambda data_root, *_, **__: data_root)
    assert (
        registry.open_dataset("synth", "sample") is None
        and registry.open_dataset("synth", "/my/folder") == "/my/folder"
    )


@pytest.mark.parametrize(
    "wrong,message",
    [
        (dict(hop=0), "more than 0 s"),
        (dict(hop=-1.0), "more than 0 s"),
        (dict(faces=0), "1 or more"),
    ],
)
def test_numbers_out_of_range(wrong, message):
    with pytest.raises(AvkitError, match=message):
        predict("clip.mp4", **wrong)
    with pytest.raises(AvkitError, match="lr should be 0 or more"):
        configure(lr=-1.0)
