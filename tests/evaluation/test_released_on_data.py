"""The papers' checkpoints on their own data sets: what a run of avkit writes is what the released
model gives on the same files, read here in a few plain lines."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from author_files import random_state, save_emotiw, save_ntua, shapes, vavl_folder
from avkit.core import AvkitError
from avkit.evaluation.evaluate import evaluate
from avkit.evaluation.predict import predict
from avkit.evaluation.released_runs import evaluate_released, released_run
from avkit.evaluation.runs import open_run
from avkit.models import backbones, released
from avkit.preprocessing.writing import write_video, write_wav
from avkit.training.loading import load_data

cv2 = pytest.importorskip("cv2")

MODES = "as_described", "as_released"
VIT = "vit_large_patch14_clip_224"
HERE = dict(device="cpu", n_jobs=1, verbose=False)


def tone(seconds, pitch):
    return 0.3 * np.sin(np.arange(round(seconds * 16000)) / 16000 * 2 * np.pi * pitch)


def pictures(n, size, seed):
    return np.random.default_rng(seed).integers(0, 255, (n, size, size, 3), dtype=np.uint8)


def stub(width):
    "A network that makes so many numbers of any item"

    class Stub(torch.nn.Module):
        num_features = width

        def forward(self, x):
            flat = x.flatten(1)[:, :64].float()
            return torch.cat([torch.sin(flat * k + k) for k in range(1, width // 64 + 1)], 1)

    return Stub


def stand_in(monkeypatch, **widths):
    "Put stubs in the places of backbones"
    for name, width in widths.items():
        spec = backbones.BACKBONES[name]
        own = replace(spec, make=stub(width), dim=width, channels_last=False)
        monkeypatch.setitem(backbones.BACKBONES, name, own)


def close(table, names, theirs, atol=1e-5):
    "Numbers of predictions.csv, of the rows as they come, are these; and rows differ"
    mine = table[names].to_numpy(float)
    theirs = np.asarray(theirs, float)
    assert mine.shape == theirs.shape and len(mine) > 1
    assert np.ptp(theirs, 0).max() > 1e-3
    np.testing.assert_allclose(mine, theirs, atol=atol, rtol=0)


@pytest.fixture(scope="module")
def vgaf(tmp_path_factory):
    "Tensors of VGAF as emotiw2023's authors keep them, with both label files"
    root = tmp_path_factory.mktemp("vgaf")
    for side, codes in (("Train", (2,)), ("Val", (3, 1))):
        (root / side).mkdir()
        for i, _ in enumerate(codes):
            g = torch.Generator().manual_seed(10 * len(side) + i)
            for kind, shape in (("img", (5, 3, 224, 224)), ("spec", (5, 1, 107, 110))):
                x = torch.randn(shape, generator=g) * (i + 1)
                torch.save(x, root / side / f"{i}_1.mp4.{kind}.5.pt")
        rows = [f"{i}_1 {c}" for i, c in enumerate(codes)]
        (root / f"{side}_labels.txt").write_text("\n".join(["Vid_name Label", *rows]) + "\n")
    return root


def their_clips(vgaf, *kinds):
    "[(2,5,...)]: the validation clips in the order of the label file"
    files = [[torch.load(vgaf / f"Val/{i}_1.mp4.{k}.5.pt") for i in range(2)] for k in kinds]
    return [torch.stack(x) for x in files]


def test_emotiw_audio(vgaf, shared_data, tmp_path):
    path = tmp_path / "audio.pt"
    state = random_state(shapes(shared_data, "emotiw2023-audio_flatten", "model_state_dict"))
    save_emotiw(path, state)
    hints = dict(num_heads=4)
    r = evaluate(released=str(path), recipe="emotiw2023", hints=hints, dataset="vgaf",
                 data_root=str(vgaf), to=str(tmp_path / "run"), **HERE)  # fmt: skip
    with torch.no_grad():
        (audio,) = their_clips(vgaf, "spec")
        z = released.load("emotiw2023", path, **hints)(audio=audio)
    p = open_run(tmp_path / "run").predictions
    assert r["classes"] == ["Positive", "Neutral", "Negative"]  # 1, 2, 3 in the label file
    assert p.target.tolist() == ["Negative", "Positive"]
    assert p.prediction.tolist() == [r["classes"][i] for i in z.argmax(1)]
    close(p, r["classes"], z.softmax(1))


def test_emotiw_fusion_with_features(vgaf, shared_data, tmp_path, monkeypatch):
    "A file without a ViT: the frozen one makes the features"
    stand_in(monkeypatch, **{VIT: 1024})
    path = tmp_path / "fusion.pt"
    full = shapes(shared_data, "emotiw2023-fusion_avg_5", "model_state_dict")
    save_emotiw(path, random_state({k: v for k, v in full.items() if "video_backbone" not in k}))
    hints = dict(num_heads_audio=2, num_heads_crossatt=8)
    r = evaluate_released(path, "emotiw2023", hints=hints, dataset="vgaf", mode="as_described",
                          data_root=str(vgaf), to=str(tmp_path / "run"), **HERE)  # fmt: skip
    audio, frames = their_clips(vgaf, "spec", "img")
    features = stub(1024)()(frames.flatten(0, 1)).unflatten(0, (2, 5))
    with torch.no_grad():
        z = released.load("emotiw2023", path, **hints)(audio=audio, video=features)
    p = open_run(tmp_path / "run").predictions.query("condition == 'av'")
    close(p, r["classes"], z.softmax(1))


def test_emotiw_fusion_with_a_vit(vgaf, shared_data, tmp_path):
    "A file with a ViT of its own, whose frames are of its size"
    pytest.importorskip("timm")
    root = tmp_path / "small"
    for file in vgaf.rglob("*.*"):
        (root / file.relative_to(vgaf)).parent.mkdir(parents=True, exist_ok=True)
        if ".img." in file.name:
            torch.save(torch.load(file)[..., :28, :28].clone(), root / file.relative_to(vgaf))
        elif file.is_file():
            (root / file.relative_to(vgaf)).write_bytes(file.read_bytes())
    path = tmp_path / "fusion.pt"
    layout = shapes(shared_data, "emotiw2023-fusion_avg_5_tinyvit", "model_state_dict")
    save_emotiw(path, random_state(layout))
    r = evaluate_released(path, "emotiw2023", hints=dict(vit_heads=8), dataset="vgaf",
                          data_root=str(root), to=str(tmp_path / "run"), **HERE)  # fmt: skip
    audio, frames = their_clips(root, "spec", "img")
    with torch.no_grad():
        model = released.load("emotiw2023", path, vit_heads=8)
        z = model(audio=audio, video=frames)
    p = open_run(tmp_path / "run").predictions.query("condition == 'av'")
    close(p, r["classes"], z.softmax(1))


FPS, FRAMES, GONE = 4, 28, (3, 4, 20)


@pytest.fixture(scope="module")
def affwild2(tmp_path_factory):
    "Two videos in the owners' layout, with aligned crops (one is missing) and both tracks"
    root = tmp_path_factory.mktemp("affwild2")
    (root / "videos").mkdir()
    for n, (name, side) in enumerate((("a", "Train_Set"), ("b", "Validation_Set"))):
        write_video(root / f"videos/{name}.mp4", pictures(FRAMES, 64, n), FPS,
                    tone(FRAMES / FPS, 200), 16000)  # fmt: skip
        (root / f"cropped_aligned/{name}").mkdir(parents=True)
        for i, x in enumerate(pictures(FRAMES, 112, 10 + n)):
            if i != 7:
                face = cv2.GaussianBlur(x, (0, 0), 3) // 2 + 4 * i
                cv2.imwrite(str(root / f"cropped_aligned/{name}/{i + 1:05d}.jpg"), face)
        va = [f"{np.sin(k / 9):.3f},{np.cos(k / 7):.3f}" for k in range(FRAMES)]
        for track, head, lines, none in (
            ("VA", "valence,arousal", va, "-5,-5"),
            ("EXPR", "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise",
             [str(k % 7) for k in range(FRAMES)], "-1"),
        ):  # fmt: skip
            lines = [none if k in GONE else x for k, x in enumerate(lines)]
            folder = root / f"annotations/{track}_Set/{side}"
            folder.mkdir(parents=True)
            (folder / f"{name}.txt").write_text("\n".join([head, *lines]) + "\n")
    return root


def their_face(root, n):
    "(3,112,112) as ntua2021's reader gives it; black where no face was found"
    path = root / f"cropped_aligned/b/{n + 1:05d}.jpg"
    x = cv2.imread(str(path))[..., ::-1] if path.is_file() else np.zeros((112, 112, 3))
    x = (x / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    return torch.from_numpy(x.transpose(2, 0, 1)).float()


def their_answers(model, root, mode):
    "({frame: outputs}) of the annotated frames of video b, in windows of 16"
    known, out = [i for i in range(FRAMES) if i not in GONE], {}
    for k in range(0, len(known), 16):
        some = known[k : k + 16]
        more = [some[-1]] * (16 - len(some)) if mode == "as_released" else []
        x = torch.stack([their_face(root, n) for n in some + more])
        with torch.no_grad():
            out |= dict(zip(some, model(face=x[None])[0]))
    return out


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("track", ["va", "expr"])
def test_ntua_face(affwild2, shared_data, tmp_path, track, mode):
    "The organisers' crops are taken unasked; a short window repeats its end as released alone"
    path = tmp_path / "face.pth"
    save_ntua(path, random_state(shapes(shared_data, f"ntua2021-face_{track}", "state_dict")))
    r = evaluate(released=str(path), recipe="ntua2021", mode=mode, dataset="affwild2", track=track,
                 data_root=str(affwild2), to=str(tmp_path / "run"), **HERE)  # fmt: skip
    theirs = their_answers(released.load("ntua2021", path, mode), affwild2, mode)
    p = open_run(tmp_path / "run").predictions
    assert p["clip"].unique().tolist() == ["b"] and p.frame.tolist() == list(theirs)
    z = torch.stack(list(theirs.values()))
    if track == "va":
        assert r["classes"] == ["valence", "arousal"]
        close(p, ["prediction_valence", "prediction_arousal"], z.clip(-1, 1))
    else:
        assert p.prediction.tolist() == [r["classes"][i] for i in z.argmax(1)]
        close(p, r["classes"], z.softmax(1))
