"""A setting that has no effect is not part of a run: with it changed, every bit stays."""

import inspect, json
import pytest, torch
from helpers import OWN, toy
from avkit.core import AvkitError
from avkit.datasets.manifest import corpus_info, known_datasets
from avkit.datasets.registry import corpus_module
from avkit.training.configure import COMMON, configure, DEFAULTS, effective, IDLE
from avkit.training.distributed import accelerator
from avkit.training.learner import start, train_epoch, validate

ANOTHER = dict(
    audio_encoder="logmel_cnn",
    audio="statistics",
    video_encoder="pictures",
    video_backbone="resnet18",
    audio_backbone="wav2vec2_tiny",
    video_size=64,
    fusion="ia",
    heads=2,
    residual=False,
    aux_loss=0.3,
    fused_loss=0.3,
    branch_heads=False,
    modality_dropout="softhard",
    missing="noise",
    focal=dict(alpha=0.5, gamma=1.0),
    momentum=0.5,
    dampening=0.5,
    betas=[0.5, 0.5],
    milestones=[1],
    gamma=0.9,
    per_step=True,
    flip_rotate=5.0,
    spec_augment=dict(time=1),
    difficulty=0.5,
    fusion_options=dict(ia=dict()),
    windows=dict(length=32),
    smoothing=5,
)


def trained(cfg):
    "All weights after an epoch on toy data, its row of the history, the scores"
    torch.manual_seed(0)
    corpus = toy("chumachenko2022")
    if cfg["modality"] != "av":
        setattr(corpus.data, "video" if cfg["modality"] == "audio" else "audio", None)
    t = start(cfg, corpus, acc=accelerator(cfg))
    row = train_epoch(t, 0) | validate(t)
    return row, {k: v.clone() for k, v in t.model.state_dict().items()}


def options(**more):
    flags = {k: v for k, v in more.items() if k in ("modality", "fusion", "heads", "detector")}
    rest = {k: v for k, v in more.items() if k not in flags}
    same = dict(recipe="demo", dataset="ravdess", data_root="rendered", device="cpu")
    if "difficulty" in rest:
        flags["difficulty"] = rest.pop("difficulty")
    return configure(**same, **flags, options=json.dumps(dict(epochs=1, batch_size=4) | rest))


CASES = [
    dict(modality="audio"),
    dict(modality="video"),
    dict(optimizer="sgd"),
    dict(optimizer="adamw", schedule="constant"),
    dict(fusion="late"),
    dict(fusion="gmu", aux_loss=0.0),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_is_idle_changes_no_bit(case):
    plain = options(**case)
    values = {n: plain[n] for n in DEFAULTS}
    idle = sorted({n for rule in IDLE for n in rule(values)} & set(ANOTHER) - set(case))
    assert len(idle) >= 3
    row, weights = trained(plain)
    changed = options(**case, **{n: ANOTHER[n] for n in idle})
    assert changed.recipe != plain.recipe and changed.hash == plain.hash
    other_row, others = trained(changed)
    assert row == other_row and weights.keys() == others.keys()
    assert all(torch.equal(weights[k], others[k]) for k in weights)


def test_what_is_not_idle_changes_the_hash():
    plain = options()
    values = {n: plain[n] for n in DEFAULTS}
    idle = {n for rule in IDLE for n in rule(values)}
    for n in set(ANOTHER) - idle - {"fusion_options"}:
        assert options(**{n: ANOTHER[n]}).hash != plain.hash, n
    assert effective(values | dict(fusion="ia", modality="audio"))["fusion"] == COMMON["fusion"]


def test_windows_are_part_of_a_run_where_frames_have_labels():
    usual = dict(recipe="jca2023", data_root="rendered")
    frames = dict(dataset="affwild2", track="va")
    for data, idle in ((dict(dataset="ravdess"), True), (frames, False)):
        one = configure(**usual, **data)
        for more in ("windows.hop=8", "smoothing=9"):
            assert (configure(**usual, **data, options=more).hash == one.hash) == idle, more


@pytest.mark.parametrize("name", known_datasets())
def test_the_facts_say_whether_frames_have_labels(name):
    kind = corpus_info(name).get("kind", "")
    module = inspect.getsource(corpus_module(name)) if name != "synth" else ""
    assert ("per frame" in kind) == ('level="frame"' in module)


def test_a_file_that_is_not_read_is_not_part_of_a_run(toy_corpus):
    from avkit.training.record import own_files

    assert list(own_files(configure(**toy_corpus))) == ["audio_features", "video_features"]
    assert list(own_files(configure(**toy_corpus, modality="audio"))) == ["audio_features"]


@pytest.mark.parametrize(
    "wrong, named",
    [
        ({"head": {"droput": 0.5}}, "did you mean 'dropout'"),
        ({"head": {"dropout": "half"}}, "head.dropout"),
        ({"fusion_options": {"ca": {"width": 3}}}, "option of fusion_options.ca 'width'"),
        ({"preparation": {"sise": 112}}, "did you mean 'size'"),
        ({"windows": {"lenght": 3}}, "did you mean 'length'"),
        ({"audio_settings": {"n_mfc": 20}}, "did you mean 'n_mfcc'"),
        ({"spec_augment": {"tame": 3}}, "did you mean 'time'"),
        ({"encoder_options": {"logmel_cnn": {"width": "wide"}}}, "logmel_cnn.width"),
        ({"epochs": "ten"}, "epochs"),
        ({"focal": {"beta": 1}}, "Known: alpha, gamma"),
        ("head.droput=0.5", "did you mean 'dropout'"),
        ("lr", "has no value"),
    ],
)
def test_options_that_nobody_reads_are_refused_by_name(wrong, named):
    given = wrong if isinstance(wrong, str) else json.dumps(wrong)
    with pytest.raises(AvkitError, match=named.replace("(", r"\(")):
        configure(options=given)


def test_nested_options_may_be_written_with_dots():
    a = configure(options="preparation.size=112, head.dropout=.5, loss=focal")
    b = configure(
        options='{"preparation": {"size": 112}, "head": {"dropout": 0.5}, "loss": "focal"}'
    )
    assert a.hash == b.hash and a.preparation.size == 112 and a["head"]["dropout"] == 0.5


def test_every_recipe_passes_its_own_checks():
    for recipe, more in OWN.items():
        assert configure(recipe=recipe, data_root="rendered", **more).hash


LATE = [("refit", True), ("epochs", 3), ("fusion", "ia"), ("size", "small"), ("seed", 2)]
LATE += [("quirks", "sorted_loading"), ("variants", "flatten"), ("options", "lr=.5"), ("lr", 0.5)]
LATE += [("mode", "as_released"), ("detector", "none"), ("init", "run"), ("dataset", "ravdess")]


@pytest.mark.parametrize("name, value", LATE)
def test_what_a_recipe_is_made_of_is_not_changed_without_a_word(name, value):
    cfg = configure(fusion="ca", data_root="rendered")
    with pytest.raises(AvkitError, match=rf"{name}=.*comes too late.*configure\(\.\.\., {name}="):
        cfg.changed(**{name: value})
    assert cfg.changed(**{name: cfg[name]})[name] == cfg[name]


def test_where_a_run_is_and_what_it_reads_can_be_changed():
    cfg = configure(fusion="ca").changed(device="cpu", fold=1, data_root="x", init=None, n_jobs=2)
    assert [cfg[k] for k in ("device", "fold", "data_root", "n_jobs")] == ["cpu", 1, "x", 2]
    with pytest.raises(AvkitError, match="devise"):
        cfg.changed(devise="cpu")
