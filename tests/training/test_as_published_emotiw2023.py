"""emotiw2023 as published: the authors' own tensors, their scenes and their schedule, told again in
a few plain lines and compared with what `as_described` and `as_released` do."""

import pickle
import random
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from avkit.cli import main
from avkit.core import AvkitError, read_json
from avkit.datasets.scenes import Scene, make_scenes, scene_frames
from avkit.models.backbones import IMAGENET, build_backbone
from avkit.models.encoders import ViewEncoder
from avkit.training.configure import configure
from avkit.training.learner import lr_at, make_optimizer, Training, train_order
from avkit.training.loading import colours_of, load_data

cv2 = pytest.importorskip("cv2")
Image = pytest.importorskip("PIL.Image")

MODES = "as_described", "as_released"
LABELS = dict(Positive=0, Neutral=1, Negative=2)
SCENES = 5  # of each label


def save(path, *shape):
    told = f"{path.parent.name}/{path.name}".encode()
    g = torch.Generator().manual_seed(zlib.crc32(told))
    torch.save(torch.randn(*shape, generator=g), path)


@pytest.fixture(scope="module")
def authors(tmp_path_factory):
    "Their folders: tensors of 5 frames, tensors of 75, scenes, label files"
    root = tmp_path_factory.mktemp("VGAF")
    for n in (5, 75):
        for side, clips in (("Train", 10), ("Val", 4)):
            d = root / f"VGAF_Tensors_all_{n}" / side
            d.mkdir(parents=True)
            for i in range(clips):
                save(d / f"{i}_1.mp4.img.{n}.pt", n, 3, 8, 8)
                save(d / f"{i}_1.mp4.spec.5.pt", 5, 1, 107, 110)
            rows = [f"{i}_1 {(i * 7) % 3 + 1}" for i in range(clips)]
            (root / f"{side}_labels.txt").write_text("\n".join(["Vid_name Label", *rows]) + "\n")
    s = root / "Synthetic_all_5"
    for label, code in LABELS.items():
        (s / label).mkdir(parents=True)
        names = [f"kitchen_Video_{i}" for i in range(SCENES)]
        for name in names:
            save(s / label / f"{name}.synt.img.5.pt", 5, 3, 8, 8)
            save(s / label / f"{name}.synt.spec.5.pt", 5, 1, 107, 110)
        rows = [f"{name} {code}" for name in names]
        (s / f"{label}_labels.txt").write_text("\n".join(["Vid_name Label", *rows]) + "\n")
    return root


def their_set(root, side, n=5):
    "The released reader: {clip: (frames, segments, label)}, in the order of the label file"
    rows = [r.split() for r in (root / f"{side}_labels.txt").read_text().splitlines()[1:]]
    d = root / f"VGAF_Tensors_all_{n}" / side
    return {name: (torch.load(d / f"{name}.mp4.img.{n}.pt"),
                   torch.load(d / f"{name}.mp4.spec.5.pt"), int(label) - 1)
            for name, label in rows}  # fmt: skip


def their_scenes(root, n_real, rate, seed=2023):
    "The released builder: all labels one after the other, of which some are drawn"
    d = root / "Synthetic_all_5"
    together = [(label, row.split()[0], int(row.split()[1])) for label in LABELS
                for row in (d / f"{label}_labels.txt").read_text().splitlines()[1:]]  # fmt: skip
    if rate >= 1:
        return together
    random.seed(seed)
    size = round(((n_real * rate) / (1 - rate)) / 3) * 3
    return [together[i] for i in random.sample(range(len(together)), size)]


def config(root, **more):
    return configure(recipe="emotiw2023", dataset="vgaf", data_root=str(root), **more)


def seen(cfg, data, i):
    "What arrives at the first layer of the ViT: frames, normalised as its encoder does it"
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in colours_of(cfg))
    return (data.video.x[i] - mean) / std


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("modality", ["audio", "video", "av"])
def test_the_model_is_fed_what_the_files_hold(authors, mode, modality):
    cfg = config(authors, mode=mode, modality=modality)
    d = load_data(cfg, verbose=False).data
    for side, subset in (("Train", "train"), ("Val", "validation")):
        theirs = their_set(authors, side)
        ours = {d.clips[i].split("/")[1]: i for i in d.indices(subset).tolist()}
        assert set(ours) == set(theirs)
        for name, (frames, segments, label) in theirs.items():
            i = ours[name]
            assert d.target[i] == label
            if modality != "video":
                assert torch.equal(d.audio.x[i], segments)
            if modality != "audio":
                torch.testing.assert_close(seen(cfg, d, i), frames, atol=2e-6, rtol=1e-5)


def test_the_reader_takes_the_number_that_is_asked_for(authors):
    cfg = config(authors, modality="video", variants="frames75")
    d = load_data(cfg, verbose=False).data
    frames = their_set(authors, "Train", 75)["3_1"][0]
    assert d.video.x.shape[1:] == (75, 3, 8, 8)
    torch.testing.assert_close(
        seen(cfg, d, d.clips.index("train/3_1")), frames, atol=2e-6, rtol=1e-5
    )
    for more, kind in (
        (dict(modality="video", options="preparation.frames=15"), r"img.15.pt.*N = 5, 75"),
        (dict(modality="audio", options="audio_settings.segments=75"), r"spec.75.pt.*N = 5:"),
    ):
        with pytest.raises(AvkitError, match=kind):
            load_data(config(authors, **more), verbose=False)


@pytest.mark.parametrize("rate", [0.2, 0.4, 1.0])
def test_scenes_are_mixed_in(authors, rate):
    "As released the builder's own draw; as described a third of each label"
    more = dict(synt_rate=rate, synthetic=str(authors / "Synthetic_all_5"))
    made = {m: load_data(config(authors, mode=m, **more), verbose=False) for m in MODES}
    for mode, corpus in made.items():
        d = corpus.data
        drawn = [i for i in d.indices("train").tolist() if d.clips[i].startswith("synthetic/")]
        names = [tuple(d.clips[i].split("/")[1:]) for i in drawn]
        theirs = their_scenes(authors, 10, rate)
        assert len(drawn) == len(theirs)
        assert all(d.target[i] == LABELS[label] for i, (label, _) in zip(drawn, names))
        assert not any(d.clips[i].startswith("synth") for i in d.indices("validation").tolist())
        if mode == "as_released":
            assert sorted(names) == sorted((label, name) for label, name, _ in theirs)
        else:
            assert {sum(n[0] == x for n in names) for x in LABELS} == {len(theirs) // 3}
        file = authors / "Synthetic_all_5" / names[0][0] / f"{names[0][1]}.synt.spec.5.pt"
        assert torch.equal(d.audio.x[drawn[0]], torch.load(file))
        real = sum(d.clips[i].startswith("train/") for i in d.indices("train").tolist())
        assert real == (10 if rate < 1 else 0)


def test_scenes_of_frames_alone_do_not_train_an_audio_model(authors, tmp_path):
    make_scenes(tmp_path, 1, frames=1, faces=(3, 3), n_jobs=1, progress=False)
    more = dict(synt_rate=0.2, synthetic=str(tmp_path), modality="audio")
    d = load_data(config(authors, **more), verbose=False).data
    assert not any(c.startswith("synthetic/") for c in d.clips)


@pytest.mark.parametrize("mode", MODES)
def test_rate_batches_and_order(authors, mode):
    cfg = config(authors, mode=mode, modality="audio")
    d = load_data(cfg, verbose=False).data
    assert {lr_at(cfg, e, [0.5] * e) for e in range(cfg["epochs"])} == {1e-5}
    assert cfg["epochs"] == 100
    orders = [train_order(cfg, d, e) for e in range(3)]
    for order in orders:
        assert [len(b) for b in order] == [4, 4, 2]  # the last one is not dropped
        assert sorted(torch.cat(order).tolist()) == d.indices("train").tolist()
    assert len({tuple(torch.cat(o).tolist()) for o in orders}) == 3  # shuffled anew
    w = torch.nn.Linear(2, 1)
    opt, theirs = make_optimizer(cfg, w), torch.optim.SGD(w.parameters(), 1e-5, momentum=0.9)
    keys = "lr", "momentum", "dampening", "weight_decay", "nesterov"
    assert [opt.defaults[k] for k in keys] == [theirs.defaults[k] for k in keys]


def test_which_epoch_is_kept(authors):
    "As released the first of equals (`>`); as described the one of them with the lowest loss"
    told = [0.3, 0.5, 0.5, 0.4, 0.5]
    losses = [1.0, 0.9, 0.7, 0.8, 0.95]
    rows = [dict(epoch=i, validation_accuracy=a, validation_loss=l)
            for i, (a, l) in enumerate(zip(told, losses))]  # fmt: skip
    best, theirs = 0.0, None
    for r in rows:
        if r["validation_accuracy"] > best:
            best, theirs = r["validation_accuracy"], r["epoch"]
    corpus = SimpleNamespace(data=SimpleNamespace(task="class"))
    kept = {m: Training(config(authors, mode=m), corpus, *[None] * 3, history=rows).best["epoch"]
            for m in MODES}  # fmt: skip
    assert kept == dict(as_described=2, as_released=theirs)


def test_a_variant_changes_one_thing():
    "75 frames in groups of 15 train the same ViT as 5 frames do"
    c = {v: configure(recipe="emotiw2023", dataset="vgaf", data_root="x", variants=v).learned
         for v in ("", "frames75", "frozen")}  # fmt: skip
    assert not any("video_backbone" in c[v] for v in ("", "frames75"))
    a, b = c[""], c["frames75"]
    differ = {k for k in a.keys() | b.keys() if a.get(k) != b.get(k)}
    assert differ == {"preparation", "encoder_options"}
    encoder = ViewEncoder(None, trunk="light", views=("frame",), steps=5).eval()
    x, mask = torch.rand(2, 75, 3, 16, 16), torch.ones(2, 75, dtype=torch.bool)
    with torch.no_grad():
        five = encoder.stage1(x, mask)[0]
        each = encoder.trunks["frame"](x.flatten(0, 1)).view(2 * 5, 15, -1).mean(1).view(2, 5, -1)
    torch.testing.assert_close(five, each, atol=1e-5, rtol=1e-4)


def test_what_of_the_vit_trains():
    described, released = (configure(recipe="emotiw2023", dataset="vgaf", data_root="x", mode=m)
                           for m in MODES)  # fmt: skip
    options = [c["encoder_options"]["pictures"].get("trunk_options", {})
               for c in (described, released)]  # fmt: skip
    assert options == [{}, dict(freeze="blocks")]
    for own in options:
        net = build_backbone("test_vit", say=False, **own)
        frozen = {n for n, p in net.named_parameters() if not p.requires_grad}
        assert all(".blocks." in f".{n}" for n in frozen)
        assert bool(frozen) == bool(own)


class TheirDraws:
    "Python's random numbers, as the released script draws them, under NumPy's names"

    def __init__(self, seed):
        self.r = random.Random(seed)

    def uniform(self, a, b):
        return self.r.uniform(a, b)

    def random(self):
        return self.r.random()

    def integers(self, a, b):
        return self.r.randint(a, b - 1)


def their_frame(background, faces, i, draw, overlap=0.001):
    "One frame of the released script"
    bg, taken, size = Image.fromarray(background), np.zeros((326, 326), bool), 326
    for face in faces:
        f = Image.fromarray(face).resize((350, 350), Image.BILINEAR)
        k = draw.uniform(0.10, 0.15)
        f = f.resize((max(1, int(350 * k)),) * 2, Image.BILINEAR)
        if draw.random() < 0.5:
            f = f.rotate(draw.randint(-45, 45), Image.BILINEAR, expand=True)
        mask, (w, h), margin = np.array(f)[..., 3] > 10, f.size, 30 + i
        for _ in range(80):
            right, low = size - margin - w, size - margin - h
            if right <= margin or low <= margin:
                x, y = margin, margin
            else:
                x, y = draw.randint(margin, right), draw.randint(margin, low)
            part = taken[y : y + h, x : x + w]
            if (part & mask).sum() / mask.sum() <= overlap:
                bg.paste(f.convert("RGB"), (x, y), f)
                part |= mask
                break
    return np.asarray(bg)


def cut_outs(n):
    "Faces with a round alpha, each of its own colour"
    y, x = np.mgrid[:90, :70]
    seen = np.where(np.hypot((y - 45) / 45, (x - 35) / 35) < 1, 255, 0).astype(np.uint8)
    colours = np.random.default_rng(0).integers(60, 255, (n, 3))
    return [np.dstack([np.full((90, 70, 3), c, np.uint8), seen]) for c in colours]


def test_scenes_as_released():
    "Sizes, angles, places and overlaps of every frame, from the same draws"
    faces, background = cut_outs(9), np.full((326, 326, 3), 40, np.uint8)
    frames = range(12)  # the margin grows by a pixel in each
    ours = scene_frames(background, faces, Scene(redrawn=True), TheirDraws(2023), frames)
    draw = random.Random(2023)
    for i, image in zip(frames, ours, strict=True):
        theirs = their_frame(background, faces, i, draw)
        assert abs(image.astype(int) - theirs).max() <= 1  # rounding of a blend


def moves(spec):
    "Pixels that a face moves from one frame to the next, on average"
    face, out, black = cut_outs(1), [], np.zeros((326, 326, 3), np.uint8)
    for seed in range(4):
        film = scene_frames(black, face, spec, np.random.default_rng(seed), range(8))
        at = np.array([np.argwhere((f == face[0][0, 0, :3]).all(-1)).mean(0) for f in film])
        out.append(np.hypot(*np.diff(at, axis=0).T).mean())
    return np.mean(out)


def test_faces_drift_as_described_and_jump_as_released():
    drift, jump = moves(Scene()), moves(Scene(redrawn=True))
    assert drift < 1 and 60 < jump / drift, (drift, jump)


def test_the_quirk_reaches_the_scenes_that_are_drawn():
    from avkit.datasets import vgaf

    made, keep = [], vgaf.make_scenes
    try:
        vgaf.make_scenes = lambda to, n, **more: made.append(more["redrawn"])
        for mode in MODES:
            quirks = config("x", mode=mode)["quirks"]
            vgaf._drawn_scenes(1, "redrawn_faces" in quirks)
    finally:
        vgaf.make_scenes = keep
    assert made == [False, True]


def test_backgrounds_by_category(tmp_path):
    "`videos_per_bg` images of each sub-folder, none twice; the label file as released"
    for kind, n in (("church", 4), ("kitchen", 2)):
        (tmp_path / f"bg/{kind}").mkdir(parents=True)
        for i in range(n):
            picture = np.full((20, 20, 3), 20 + 50 * i, np.uint8)
            cv2.imwrite(str(tmp_path / f"bg/{kind}/{i}.png"), picture)
    code = main(["scenes", "--to", str(tmp_path / "out"), "--videos_per_bg", "3", "--backgrounds",
                 str(tmp_path / "bg"), "--frames", "1", "--labels", "Neutral", "--redrawn",
                 "--n_jobs", "1"])  # fmt: skip
    rows = (tmp_path / "out/Neutral_labels.txt").read_text().splitlines()
    assert code == 0 and rows == [
        "Vid_name Label",
        *(f"church_Video_{i} 1" for i in range(3)),
        *(f"kitchen_Video_{i} 1" for i in range(2)),
    ]
    shown = [cv2.imread(str(p))[0, 0, 0] for p in (tmp_path / "out/Neutral").glob("church*/0.png")]
    assert len(set(shown)) == 3


class Runs:
    def __reduce__(self):
        return (open, ("ran-by-a-pickle", "w"))


def broken(shape=None):
    return lambda path: torch.save(torch.randn(*shape), path) if shape else path.write_bytes(
        pickle.dumps(Runs())
    )  # fmt: skip


@pytest.mark.parametrize("kind, write, why", [
    ("img", broken(), "nothing is executed"),
    ("img", broken((4, 3, 8, 8)), "its name says 5 steps"),
    ("img", broken((5, 1, 8, 8)), "3 is expected"),
    ("img", broken((5, 3, 9, 8)), "other clips are"),
    ("img", broken((3, 8, 8)), "is expected, not"),
    ("spec", broken((5, 3, 107, 110)), "1 is expected"),
    ("spec", broken((5, 1, 80, 110)), "106 points or more"),
])  # fmt: skip
def test_a_wrong_file_is_named_before_anything_is_trained(authors, kind, write, why, monkeypatch,
                                                          tmp_path):  # fmt: skip
    monkeypatch.chdir(tmp_path)
    path = authors / f"VGAF_Tensors_all_5/Val/2_1.mp4.{kind}.5.pt"
    if kind == "spec":  # the copy beside the 75 frames is read where both are there
        path = next(p for p in authors.rglob(path.name) if "all_5/" in p.as_posix())
    whole = path.read_bytes()
    try:
        write(path)
        with pytest.raises(AvkitError, match=why) as e:
            load_data(config(authors, options="preparation.frames=5"), verbose=False)
        assert path.name in str(e.value)
    finally:
        path.write_bytes(whole)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("modality", ["audio", "video", "av"])
def test_the_command_of_the_readme(authors, modality, tmp_path):
    "From the authors' folder to a record, with light backbones"
    light = ('{"video_size": 8, "encoder_options": {"pictures": {"trunk": "light"}, '
             '"segment_cnn": {"small": true}}}')  # fmt: skip
    code = main(["train", "--recipe", "emotiw2023", "--dataset", "vgaf", "--data_root",
                 str(authors), "--modality", modality, "--epochs", "2", "--options", light,
                 "--synthetic", str(authors / "Synthetic_all_5"), "--synt_rate", ".2",
                 "--device", "cpu", "--run_dir", str(tmp_path / "run")])  # fmt: skip
    record = read_json(tmp_path / "run/record.json")
    assert code == 0 and set(record["metrics"]) == {"train", "validation"}
    assert record["metrics"]["validation"][modality]["accuracy"] >= 0


def test_a_vit_sees_the_same_through_any_constants():
    "Frames that somebody normalised in another way still arrive as they are"
    cfg = configure(recipe="emotiw2023", dataset="vgaf", data_root="x",
                    options='{"encoder_options": {"pictures": {"trunk": "resnet18"}}}')  # fmt: skip
    assert colours_of(cfg) == (IMAGENET["mean"], IMAGENET["std"])
