"Voices over time: mean and deviation, the Gaussian fusion, n other clips of a speaker, Whisper."

import json
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from avkit.core import AvkitError
from avkit.evaluation.predict import check_video
from avkit.models.hub import hub_backbone, hub_note, save_small_whisper
from avkit.models.masks import grouped
from avkit.store import Store
from avkit.training import learner
from avkit.training.checkpoint import load_model
from avkit.training.configure import configure
from avkit.training.grid import data_of, identity
from avkit.training.learner import fit
from avkit.training.loading import load_data


@pytest.fixture
def toy(toy_corpus):
    return toy_corpus | dict(recipe="ravdess_whisper", epochs=3)


def test_nothing_below_the_heads_learns_and_the_common_head_is_solved(toy, tmp_path):
    cfg = configure(**toy, run_dir=str(tmp_path / "run"))
    record = fit(cfg, verbose=False)
    assert record["metrics"]["test"]["av"]["accuracy"] > 0.9
    model = load_model(tmp_path / "run")[0]
    frozen = {n for n, p in model.named_parameters() if n.startswith("classifier_1")}
    assert frozen and model.audio.settles and not list(model.audio.one.parameters())
    longer = fit(configure(**toy | dict(epochs=4), run_dir=str(tmp_path / "longer")), verbose=False)
    assert longer["parameters"] == record["parameters"]
    other = load_model(tmp_path / "longer")[0]
    for name in frozen:
        torch.testing.assert_close(model.get_parameter(name), other.get_parameter(name))


@pytest.mark.parametrize("fusion", ["gauss", "late"])
def test_training_on_averages_is_training_on_sequences(fusion, toy, tmp_path, monkeypatch):
    quick = fit(configure(**toy, fusion=fusion, run_dir=str(tmp_path / "quick")), verbose=False)
    monkeypatch.setattr(learner, "reads_averages", lambda model: False)
    slow = fit(configure(**toy, fusion=fusion, run_dir=str(tmp_path / "slow")), verbose=False)
    for subset in ("validation", "test"):
        for condition, scores in slow["metrics"][subset].items():
            assert quick["metrics"][subset][condition] == pytest.approx(scores, abs=1e-3)


def test_a_sequence_that_is_attended_to_is_not_averaged(toy, tmp_path):
    cfg = configure(**toy, fusion="ia", run_dir=str(tmp_path / "run"))
    corpus = load_data(cfg, verbose=False)
    assert learner.averaged(cfg, corpus, learner.make_model(cfg, corpus.data)) is corpus
    flat = configure(**toy)
    model = learner.make_model(flat, corpus.data)
    assert learner.averaged(flat, corpus, model).data.audio.x.shape[1] == 1


def test_none_known_is_the_scale_of_the_training_speakers(toy):
    none = load_data(configure(**toy, enrolment=0), verbose=False).data
    plain = load_data(configure(**toy, options='{"by_speaker": []}'), verbose=False).data
    assert torch.equal(none.audio.x, plain.audio.x)
    assert configure(**toy).hash == configure(**toy, options='{"by_speaker": []}').hash


def test_what_is_known_changes_the_data_and_is_kept_with_the_run(toy, tmp_path):
    cfg = configure(**toy, enrolment=2, run_dir=str(tmp_path / "run"))
    two, every = (load_data(configure(**toy, enrolment=n), verbose=False) for n in (2, "all"))
    assert not torch.equal(two.data.audio.x, every.data.audio.x)
    assert set(two.stats) == {"audio", "video", "audio_speakers", "video_speakers"}
    fit(cfg, verbose=False)
    assert "audio_speakers" in load_model(tmp_path / "run")[1]["stats"]


def test_a_draw_of_other_clips_is_of_a_seed(toy):
    "The grid keeps data between runs: not between draws"
    def data(**more):
        cfg = configure(**toy, **more)
        return data_of(cfg, identity(cfg)).data.audio.x
    drawn = [data(enrolment=2, seed=s) for s in (1, 2)]
    assert not torch.equal(*drawn)
    first = data(enrolment="all", seed=1)
    assert data(enrolment="all", seed=2) is first


def test_enrolment_is_refused_where_it_is_none(toy):
    for wrong in ("some", -1, "2.5"):
        with pytest.raises(AvkitError, match="a number of clips from 0 on, or all"):
            configure(**toy, enrolment=wrong)


def test_a_video_of_a_stranger_has_no_other_clips():
    known = dict(audio_features=None, video_features=None, by_speaker=("audio",), enrolment=4)
    with pytest.raises(AvkitError, match="--enrolment 0"):
        check_video(SimpleNamespace(name="run", cfg=known))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return save_small_whisper(tmp_path_factory.mktemp("whisper") / "tiny", layers=3)


def test_parts_are_means_of_states_and_have_a_name_of_their_own(tiny, tmp_path):
    wave = torch.randn(1, 16000)
    one, two = (hub_backbone(f"hf:{tiny}", layer=n)(wave) for n in (1, 2))
    both = hub_backbone(f"hf:{tiny}", layer="all:1-2", parts=4)(wave)
    states = torch.cat([one, two], -1)
    there = torch.ones(states.shape[:2], dtype=torch.bool)
    torch.testing.assert_close(both, grouped(states, there, 4)[0])
    notes = [hub_note(Store(tmp_path), f"hf:{tiny}", parts=n) for n in (None, 4, 8)]
    assert len({n["network"] for n in notes}) == 3 and notes[1]["parts"] == 4


def test_the_whole_recipe_on_sound(tiny, tmp_path):
    "Six actors, one wave each emotion; the face from a table"
    rng, faces = np.random.default_rng(0), {}
    for actor in range(1, 7):
        for e in range(1, 9):
            name = f"03-01-{e:02d}-01-01-01-{actor:02d}"
            path = tmp_path / f"ravdess/Actor_{actor:02d}/{name}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, rng.normal(0, 0.1, 6400 + 320 * e), 16000)
            faces[name] = np.eye(8, dtype=np.float32)[e - 1]
    np.savez(tmp_path / "faces.npz", **faces)
    parts = {"hf:openai/whisper-base": {"parts": 4}}
    weighted = dict(audio_layer="all:1-2", backbone_options=parts)
    cfg = configure(
        recipe="ravdess_whisper", dataset="ravdess", data_root=str(tmp_path / "ravdess"),
        split="kfold3", audio_weights=str(tiny), video_features=str(tmp_path / "faces.npz"),
        options=json.dumps(weighted), epochs=2, device="cpu", n_jobs=1,
        run_dir=str(tmp_path / "run"))
    corpus = load_data(cfg, Store(tmp_path / "store"), verbose=False)
    assert corpus.data.audio.x.shape[1:] == (4, 64) and corpus.data.video.x.shape[1:] == (1, 8)
    record = fit(cfg, corpus, verbose=False)
    assert corpus.notes["backbones"]["audio"]["layer"] == "all:1-2"
    assert record["metrics"]["test"]["av"]["accuracy"] > 0.5


def test_few_actors_train_and_say_that_nothing_is_tested(toy, tmp_path, capsys):
    "The data set's own split tests actors 5, 10, 16 and 19"
    root = tmp_path / "some"
    root.mkdir()
    for n in (1, 2, 3, 4, 11, 13):
        (root / f"Actor_{n:02d}").symlink_to(f"{toy['data_root']}/Actor_{n:02d}")
    cfg = configure(**toy | dict(data_root=str(root)), run_dir=str(tmp_path / "run"))
    assert "test" not in fit(cfg)["metrics"]
    assert "nothing is scored there" in capsys.readouterr().out
    (root / "Actor_11").unlink()
    (root / "Actor_13").unlink()
    with pytest.raises(AvkitError, match="leaves nothing in validation.*--split kfold3"):
        load_data(cfg, verbose=False)
