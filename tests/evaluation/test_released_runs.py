"""An author's checkpoint as a run: scored, marked, asked again, looking at a video; and refused."""

import json
import numpy as np, pytest, torch
from avkit.core import AvkitError
from avkit.evaluation.annotate import predict_to
from avkit.evaluation.evaluate import evaluate
from avkit.evaluation.export import card_text
from avkit.evaluation.released_runs import evaluate_released, released_run
from avkit.evaluation.runs import open_run
from avkit.models import backbones, released
from avkit.preprocessing.writing import write_video
from avkit.reports.records import runs_report
from avkit.reports.tables import runs_table
from avkit.training.loading import load_data
from helpers import draw_small

CLIP = "02-01-{:02d}-01-01-01-{:02d}"


def tone(seconds, pitch=220):
    return 0.3 * np.sin(np.arange(round(seconds * 16000)) / 16000 * 2 * np.pi * pitch)


def pictures(n, size, seed):
    return np.random.default_rng(seed).integers(0, 255, (n, size, size, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    "Six clips of three actors, with RAVDESS's names"
    root = tmp_path_factory.mktemp("ravdess")
    for actor in (1, 2, 3):
        for e in (1, 4):
            path = root / f"Actor_{actor:02d}/{('01' + CLIP[2:]).format(e, actor)}.mp4"
            path.parent.mkdir(exist_ok=True)
            write_video(path, pictures(12, 64, 10 * actor + e), 10, tone(1.2, 100 * e), 16000)
    (root / "split.csv").write_text("speaker,split\n01,train\n02,validation\n03,test\n")
    return root


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    "What chumachenko2022's trainer saves of an `it` model with four heads, its weights drawn"
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("author") / "RAVDESS_best0.pth"
    state = released._chumachenko_model("it", 4).state_dict()
    named = {released._chumachenko_name(k).partition("#")[0]: v for k, v in state.items()}
    torch.save(dict(epoch=7, state_dict={f"module.{k}": v for k, v in named.items()}), path)
    (path.parent / "opts.json").write_text(json.dumps(dict(num_heads=4)))
    return path


@pytest.fixture(scope="module")
def settings(corpus):
    few = {"preparation": {"frames": 2, "window": 1.0}}
    return dict(dataset="ravdess", data_root=str(corpus), split=str(corpus / "split.csv"),
                detector="none", device="cpu", n_jobs=1, options=json.dumps(few))


@pytest.fixture(scope="module")
def scored(checkpoint, settings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scored") / "run"
    evaluate_released(checkpoint, "chumachenko2022", hints=dict(num_heads=4), to=str(folder),
                      verbose=False, mode="as_described", **settings)
    return folder


def test_its_scores_are_those_of_the_authors_model(scored, checkpoint):
    run = open_run(scored)
    assert run.cfg["fusion"] == "it" and run.cfg["heads"] == 4 and run.cfg["size"] == "paper"
    data = load_data(run.cfg, verbose=False).data
    idx = data.indices("test")
    batch = data.batch(idx)
    model = released.load("chumachenko2022", checkpoint, "as_described", num_heads=4)
    with torch.no_grad():
        theirs = model(audio=batch["audio"].transpose(1, 2), video=batch["video"] / 255)
    p = run.predictions.query("split == 'test' and condition == 'av'")
    assert len(p) == 2 and p["clip"].tolist() == [data.clips[i] for i in idx]
    assert np.allclose(p[run.classes].to_numpy(float), theirs.softmax(1).numpy(), atol=1e-5)
    assert set(run.record["metrics"]) == {"validation", "test"}


def test_its_record_says_what_it_is(scored, checkpoint, tmp_path, monkeypatch):
    record = json.loads((scored / "record.json").read_text())
    from avkit.core import file_hash

    mark = record["released"]
    assert mark["sha256"] == file_hash(checkpoint) == record["files"]["init"]
    assert (mark["mode"], mark["hints"]) == ("as_described", dict(num_heads=4))
    assert "not known" in mark["unseen"] and "neutral, calm" in mark["assumed"]
    assert record["epochs"] == 0 and record["history"] == [] and record["best_epoch"] is None
    assert record["recipe"]["init_sha256"] == mark["sha256"]
    draw_small(monkeypatch)
    _, figures = runs_report([scored], tmp_path / "report")
    assert set(runs_table([record]).recipe) == {"chumachenko2022 (released)"} and figures
    told = (tmp_path / "report/table.md").read_text()
    assert "From scratch" not in told
    assert "Released: RAVDESS_best0.pth of chumachenko2022" in told
    assert str(checkpoint.parent) not in (tmp_path / "report/records.json").read_text()


def test_its_card_says_so(scored):
    told = card_text(open_run(scored), {})
    assert "not trained here, avkit" in told and "**Released: RAVDESS_best0.pth of" in told


def test_it_is_a_run_like_others(scored, checkpoint, settings):
    after = evaluate(scored, "audio_zero", sides="test", verbose=False)
    assert set(after["metrics"]["test"]) == {"av", "audio", "video", "audio_zero"}
    other = checkpoint.with_name("other.pth")
    torch.save(torch.load(checkpoint) | dict(epoch=9), other)
    with pytest.raises(AvkitError, match="holds another run"):
        evaluate_released(other, "chumachenko2022", hints=dict(num_heads=4), to=str(scored),
                          verbose=False, **settings)


def test_it_looks_at_a_video(checkpoint, corpus, tmp_path, capsys):
    clip = next(corpus.rglob("*.mp4"))
    asked = dict(recipe="chumachenko2022", hints="num_heads=4", device="cpu", detector="none")
    p, folder = predict_to(str(clip), to=str(tmp_path / "out"), released=str(checkpoint), **asked)
    assert p.classes[:2] == ["neutral", "calm"] and len(p.table)
    assert (folder / "timeline.png").is_file()
    assert json.loads((folder / "settings.json").read_text())["run"] == "released RAVDESS_best0.pth"


@pytest.mark.parametrize("more, match", [
    (dict(recipe=None), "Name the recipe"),
    (dict(dataset=None), "On which data set"),
    (dict(run="somewhere"), "give one"),
    (dict(recipe="jca2023"), "is a checkpoint of chumachenko2022, not of jca2023"),
    (dict(hints="vit_heads=3"), "Unknown hint for chumachenko2022"),
])
def test_what_is_refused(checkpoint, settings, more, match):
    asked = {k: v for k, v in settings.items() if k not in ("detector", "options")}
    asked |= dict(released=str(checkpoint), recipe="chumachenko2022") | more
    with pytest.raises(AvkitError, match=match):
        evaluate(**asked, verbose=False)


def test_other_classes_are_not_taken_for_its_own(checkpoint, settings, tmp_path):
    for i, name in enumerate(("anna", "ben", "carl")):
        for label in ("happy", "sad"):
            (tmp_path / f"data/{label}/{name}").mkdir(parents=True)
            write_video(tmp_path / f"data/{label}/{name}/a.mp4", pictures(12, 32, i), 10, tone(1.2),
                        16000)
    mine = settings | dict(dataset="folder", data_root=str(tmp_path / "data"), split="kfold3")
    with pytest.raises(AvkitError, match="has 8 outputs, neutral, calm, .* has happy, sad"):
        evaluate_released(checkpoint, "chumachenko2022", verbose=False, hints=dict(num_heads=4),
                          to=str(tmp_path / "run"), **mine)


class Tiny(torch.nn.Module):
    "512 numbers of any item"

    def __init__(self):
        super().__init__()
        self.num_features = 512

    def forward(self, x):
        flat = x.flatten(1)[:, :64].float()
        return torch.cat([torch.sin(flat * k) for k in range(1, 9)], 1)


@pytest.fixture
def affwild2(tmp_path):
    "Two videos of 300 frames in Aff-Wild2's layout"
    root, rng = tmp_path / "affwild2", np.random.default_rng(0)
    (root / "videos").mkdir(parents=True)
    for i, subset in enumerate(("Train", "Validation")):
        sound = tone(10, 200 + 50 * i)
        write_video(root / f"videos/v{i}.mp4", pictures(300, 32, i), 30, sound, 16000)
        folder = root / f"annotations/VA_Set/{subset}_Set"
        folder.mkdir(parents=True, exist_ok=True)
        labels = np.cumsum(rng.normal(0, 0.02, (300, 2)), 0).clip(-0.9, 0.9) + 0.05
        lines = [",".join(f"{x:.3f}" for x in row) for row in labels]
        lines[40:60] = ["-5,-5"] * 20
        (folder / f"v{i}.txt").write_text("\n".join(["valence,arousal", *lines]) + "\n")
    return root


def test_numbers_are_on_the_labels_scale(affwild2, tmp_path, monkeypatch, shared_data):
    "jca2023's example: what is written are the released model's own numbers"
    for name in ("mel_resnet18", "i3d"):
        spec = backbones.BACKBONES[name]
        own = backbones.BackboneSpec(Tiny, spec.takes, 512, 32)
        monkeypatch.setitem(backbones.BACKBONES, name, own)
    path = shared_data / "released_example/jca2023-cam_256/checkpoint.pt"
    small = dict(smoothing=None, preparation=dict(size=32), video_size=32)
    asked = dict(dataset="affwild2", track="va", data_root=str(affwild2), detector="none",
                 device="cpu", n_jobs=1, mode="as_described", options=json.dumps(small))
    r = evaluate_released(path, "jca2023", to=str(tmp_path / "run"), verbose=False, **asked)
    assert r["classes"] == ["valence"] and "valence_only" in r["quirks"]
    run = open_run(tmp_path / "run")
    data = load_data(run.cfg, verbose=False).data
    batch = data.batch(data.indices("train"))
    whole = batch["audio_mask"].all(1) & batch["video_mask"].all(1)  # the authors pad with zeros
    a, v, steps = (batch[k][whole] for k in ("audio", "video", "step_mask"))
    assert len(a)
    mean, std = (x[:1] for x in run.stats["target"])
    with torch.no_grad():
        mine = run.model(a, v, step_mask=steps) * std + mean
        theirs = released.load("jca2023", path, "as_described")(audio=a, video=v)
    assert torch.allclose(mine, theirs, atol=1e-4)
    p = run.predictions.query("condition == 'av' and split == 'validation'")
    assert p.prediction_valence.between(-1, 1).all() and len(p) == 280
    looks = released_run(path, "jca2023", "as_described")
    with torch.no_grad():
        assert torch.allclose(looks.model(a, v, step_mask=steps), theirs, atol=1e-5)


def test_vavl_needs_its_training_clips(tmp_path):
    from avkit.evaluation.released_runs import _check_video
    from avkit.training.configure import configure

    with pytest.raises(AvkitError, match="score it on a data set first"):
        _check_video(configure(recipe="vavl2023", size="paper"))
