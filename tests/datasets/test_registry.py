"""Data sets register themselves; `rendered` and its alias; errors that say what a newcomer
forgot; a data set added in a few lines."""

import importlib
import inspect
import re
import shutil
import sys
from pathlib import Path

import pytest

import avkit.datasets
from avkit.core import AvkitError, content_key
from avkit.datasets import manifest, registry
from avkit.datasets.registry import (
    CORPORA,
    ceilings,
    corpus_module,
    dataset_names,
    normal_root,
    open_dataset,
    is_rendered,
    variants,
)
from avkit.datasets.synth import plan_of_classes
from avkit.reports.skeletons import block_of

ROOT = Path(__file__).parents[2]
FACTS = """
name = "toy"
title = "A toy data set"
licence = "CC0"
citation = "Nobody 2026"
how_to_get = "It is made up."
classes = ["happy", "sad"]
default_split = "kfold3"
"""
CODE = block_of("dataset", "toy")
CODE = CODE.replace("speakers: int = 12, takes: int = 2", "speakers=2, takes=1")


@pytest.fixture
def home(tmp_path, monkeypatch):
    "A folder with the facts of all data sets and those of toy, and a place for its module"
    shutil.copytree(manifest.manifests_dir(), tmp_path / "facts")
    (tmp_path / "facts/toy.toml").write_text(FACTS)
    monkeypatch.setattr(manifest, "manifests_dir", lambda: tmp_path / "facts")
    monkeypatch.setattr(avkit.datasets, "__path__", [*avkit.datasets.__path__, str(tmp_path)])
    importlib.invalidate_caches()
    yield tmp_path
    sys.modules.pop("avkit.datasets.toy", None)


def test_every_data_set_is_registered_by_its_two_files():
    shipped = ["ravdess", "crema_d", "msp_improv", "affwild2", "vgaf", "folder"]
    assert [name for name in CORPORA if name in shipped] == shipped
    for name in CORPORA:
        module = corpus_module(name)
        assert callable(module.index) and callable(module.plan), name
        sizes = inspect.signature(getattr(module, "render", module.plan)).parameters
        assert set(getattr(module, "SAMPLE", {})) <= set(sizes), name
    with pytest.raises(AvkitError, match="did you mean 'ravdess'"):
        corpus_module("ravdes")


@pytest.mark.parametrize("page,link", [("README.md", "| `{}` |"), ("nbs/README.md", "_{}.ipynb)")])
def test_pages_name_every_data_set(page, link):
    text = (ROOT / page).read_text(encoding="utf-8")
    lost = [name for name in CORPORA if link.format(name) not in text and name != "folder"]
    assert not lost, f"{page}: a row for {', '.join(lost)} is missing in the table of data sets"


def test_no_list_of_data_sets_is_typed():
    for path in (ROOT / "Makefile", ROOT / "benchmarks/corpora.py"):
        assert not re.search(r"crema_d|msp_improv|affwild2", path.read_text(encoding="utf-8")), path


def test_variants():
    told = [tuple(v.values()) for v in variants()]
    shipped = [
        ("ravdess",),
        ("crema_d", "intended"),
        ("crema_d", "consensus"),
        ("msp_improv",),
        ("affwild2", "va"),
        ("affwild2", "expr"),
        ("vgaf",),
        ("folder",),
    ]
    assert [v for v in told if v in shipped] == shipped
    assert {name for name, *_ in told} == set(CORPORA)


def test_words_for_rendered_data():
    assert [normal_root(r) for r in ("twin", "rendered", "sample", "twins", None)] == [
        "rendered",
        "rendered",
        "sample",
        "twins",
        None,
    ]
    roots = ("twin", "rendered", "sample", "twins", None, Path("twin"))
    assert [is_rendered(r) for r in roots] == [
        True,
        True,
        True,
        False,
        False,
        True,
    ]


@pytest.mark.parametrize("root", ["twin", "rendered", "sample"])
def test_each_word_opens_the_folder_it_means(root, monkeypatch):
    asked = []
    monkeypatch.setattr(
        registry, "rendered_root", lambda name, difficulty, **size: asked.append(size) or "folder"
    )
    monkeypatch.setattr(corpus_module("vgaf"), "index", lambda data_root: data_root)
    assert open_dataset("vgaf", root) == "folder"
    assert asked == [corpus_module("vgaf").SAMPLE if root == "sample" else {}]


def test_a_sample_of_the_demo_data_set_is_small(home, monkeypatch):
    "and lies beside the whole of it, whose key stays"
    asked = []
    monkeypatch.setattr(registry.ravdess, "index", lambda root, corpus: root)
    draw = lambda root, **size: asked.append(size) or root
    monkeypatch.setattr(registry.synth, "render_demo", draw)
    whole, few, same = (open_dataset("synth", root) for root in (None, "sample", "rendered"))
    assert whole == same != few
    key = content_key(dict(difficulty=0.), registry.synth.VERSION)[:8]
    assert whole.name == f"difficulty0-{key}"
    assert asked[0] == dict(difficulty=0.) and asked[1] == dict(difficulty=0., actors=4, repeats=1)
    assert open_dataset("synth", "sample", actors=2) != few


def test_a_data_set_without_a_sample(home):
    "`sample` is then as much as `rendered`"
    pytest.importorskip("cv2")
    (home / "toy.py").write_text(CODE)
    assert open_dataset("toy", "sample").root == open_dataset("toy", "rendered").root


def test_names_that_cannot_be_read_are_problems(home, tmp_path):
    (home / "toy.py").write_text(CODE)
    clips = tmp_path / "clips"
    clips.mkdir()
    for name in ("1_happy_1.mp4", "1_sad.mp4", "x.mp4", "1_sad_1_2.mp4", "notes.txt"):
        (clips / name).write_bytes(b"no video")
    m = open_dataset("toy", clips)
    assert m.clips["clip"].tolist() == ["1_happy_1"]
    assert m.problems.file.tolist() == ["1_sad.mp4", "1_sad_1_2.mp4", "x.mp4"]
    assert set(m.problems.status) == {"invalid"}
    (clips / "1_happy_1.mp4").unlink()
    with pytest.raises(AvkitError, match="1_sad.mp4 is invalid, the path .*ValueError.*and 2 more"):
        open_dataset("toy", clips)


@pytest.mark.parametrize(
    "error", [KeyError("x"), IndexError(1), ValueError("x"), AttributeError("x"), AvkitError("x")]
)
def test_whatever_reading_a_name_raises(error, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/1.mp4").touch()

    def read(path):
        assert path == Path("a/1.mp4")
        raise error

    rows, problems = manifest.named_clips(tmp_path, "**/*.mp4", read)
    assert not rows and [p[:2] for p in problems] == [("a/1.mp4", "invalid")]


def test_a_code_that_is_not_known_is_told_in_words(tmp_path):
    (tmp_path / "1_XYZ.mp4").touch()
    codes = dict(HAP="happy")
    _, [(*_, why)] = manifest.named_clips(
        tmp_path, "*.mp4", lambda path: dict(label=codes[path.stem[2:]], speaker="1"))
    assert why == "the path '1_XYZ.mp4' holds 'XYZ', a code that is not known"


def test_speakers_of_a_plan_may_have_names():
    named = plan_of_classes(["a", "b"], "{speaker}{number}_{label}.mp4", ["DC", "JE"], 1)
    counted = plan_of_classes(["a", "b"], "{speaker}{number}_{label}.mp4", 2, 1)
    assert [sorted(f) for f in named.files][:2] == [["DC1_a.mp4"], ["DC1_b.mp4"]]
    back = lambda path: path.replace("DC", "1").replace("JE", "2")
    assert [[*map(back, f)] for f in named.files] == [[*f] for f in counted.files]
    assert named.drop(columns="files").equals(counted.drop(columns="files"))


def test_a_data_set_of_a_dozen_lines(home):
    pytest.importorskip("cv2")
    (home / "toy.py").write_text(CODE)
    assert "toy" in dataset_names()
    m = open_dataset("toy", "rendered")
    assert m.clips["clip"].tolist() == [
        f"{s}_{c}_{n}" for s in (1, 2) for c in ("happy", "sad") for n in (1, 2)
    ]
    assert m.notes["rendered"] and open_dataset("toy", "twin").data_hash == m.data_hash
    assert ceilings("toy").ceiling.tolist() == [0.5, 0.5, 1.0]
    (home / "toy.py").write_text(CODE.replace("speakers=2", "speakers=3"))
    sys.modules.pop("avkit.datasets.toy")
    importlib.invalidate_caches()
    assert open_dataset("toy", "rendered").root != m.root  # another plan, another folder


@pytest.mark.parametrize(
    "code,facts,message",
    [
        (None, FACTS, "data_manifests/toy.toml has no module avkit.datasets.toy"),
        ("x = 1", FACTS, "lacks the function `index`"),
        (
            "def index(data_root): pass",
            FACTS,
            "lacks the function `plan`, which data_root=rendered needs",
        ),
        (CODE, FACTS.replace("classes", "klasses"), "lacks `classes` .the labels' names"),
        (CODE, "name = toy", "Cannot read .*toy.toml"),
        (CODE, None, "avkit.datasets.toy has no facts: write data_manifests/toy.toml"),
        (CODE.replace("label=label", "clip=None, label=label"), FACTS, "no `clip`"),
        (
            CODE.replace("label=label", "label=label.upper()"),
            FACTS,
            "The clip '1_happy_1': Unknown label 'HAPPY'",
        ),
    ],
)
def test_what_a_newcomer_forgets(home, code, facts, message):
    pytest.importorskip("cv2")
    if code:
        (home / "toy.py").write_text(code)
    if facts is None:
        (home / "facts/toy.toml").unlink()
    else:
        (home / "facts/toy.toml").write_text(facts)
    with pytest.raises(AvkitError, match=message):
        open_dataset("toy", "rendered")


def test_rows_without_a_file(home, tmp_path):
    m = manifest.make_manifest(
        "toy",
        tmp_path,
        [dict(clip="a", label="happy"), dict(clip="b", label="sad", video=None)],
        ["happy", "sad"],
    )
    assert (m.clips[["audio", "video", "audio_sha256", "video_sha256"]] == "").all(axis=None)
    with pytest.raises(AvkitError, match="'a': `audio` should be text"):
        manifest.make_manifest(
            "toy", tmp_path, [dict(clip="a", label="happy", audio=float("nan"))], ["happy"]
        )
