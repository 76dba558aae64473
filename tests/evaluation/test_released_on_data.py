"""The papers' checkpoints on their own data sets: what a run of avkit writes is what the released
model gives on the same files, read here in a few plain lines."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from author_files import random_state, save_emotiw, save_ntua, shapes, vavl_folder
from avkit.evaluation.evaluate import evaluate
from avkit.evaluation.predict import predict
from avkit.evaluation.released_runs import evaluate_released, released_run
from avkit.evaluation.runs import open_run
from avkit.models import backbones, released
from avkit.preprocessing.writing import write_video, write_wav
from avkit.training.loading import load_data

cv2 = pytest.importorskip("cv2")
torchvision = pytest.importorskip("torchvision")

MODES = "as_described", "as_released"
VIT = "vit_large_patch14_clip_224"
HERE = dict(device="cpu", n_jobs=1, verbose=False)


def tone(seconds, pitch):
    return 0.3 * np.sin(np.arange(round(seconds * 16000)) / 16000 * 2 * np.pi * pitch)


def pictures(n, size, seed):
    return np.random.default_rng(seed).integers(0, 255, (n, size, size, 3), dtype=np.uint8)


def stub(width, wave=False):
    "A network that makes so many numbers of any item, of a waveform each 1600 samples"

    class Stub(torch.nn.Module):
        num_features = width

        def forward(self, x):
            if wave:
                return self.made(x.unfold(1, 1600, 1600)), None
            return self.made(x.flatten(1))

        def made(self, x):
            flat = x[..., :64].float()
            return torch.cat([torch.sin(flat * k + k) for k in range(1, width // 64 + 1)], -1)

    return Stub


def stand_in(monkeypatch, **widths):
    "Put stubs in the places of backbones"
    for name, width in widths.items():
        spec = backbones.BACKBONES[name]
        own = replace(spec, make=stub(width, spec.takes == "wave"), dim=width, channels_last=False)
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
    r = evaluate(released=str(path), recipe="emotiw2023", hints=hints, conditions="av",
                 mode="as_described", dataset="vgaf", data_root=str(vgaf),
                 to=str(tmp_path / "run"), **HERE)  # fmt: skip
    audio, frames = their_clips(vgaf, "spec", "img")
    features = stub(1024)()(frames.flatten(0, 1)).unflatten(0, (2, 5))
    with torch.no_grad():
        z = released.load("emotiw2023", path, **hints)(audio=audio, video=features)
    p = open_run(tmp_path / "run").predictions
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
    r = evaluate(released=str(path), recipe="emotiw2023", hints=dict(vit_heads=8), conditions="av",
                 dataset="vgaf", data_root=str(root), to=str(tmp_path / "run"),
                 **HERE)  # fmt: skip
    audio, frames = their_clips(root, "spec", "img")
    with torch.no_grad():
        model = released.load("emotiw2023", path, vit_heads=8)
        z = model(audio=audio, video=frames)
    p = open_run(tmp_path / "run").predictions
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


CASES = [("va", "as_described"), ("va", "as_released"), ("expr", "as_released")]


@pytest.mark.parametrize("track, mode", CASES)
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


def test_ntua_bodies_are_filled(tmp_path):
    "As released a body is the whole frame: its weights go where the recipe looks at that"
    parts = list(torchvision.models.resnet18().children())[:-1]
    sizes = {
        f"{v}_model.{i}.{k}": tuple(w.shape)
        for v in ("face", "body", "context")
        for i, c in enumerate(parts)
        for k, w in c.state_dict().items()
    }
    cell = torch.nn.LSTM(3 * 512, 8, bidirectional=True).state_dict()
    sizes |= {f"rnn.{k}": tuple(w.shape) for k, w in cell.items()}
    path = tmp_path / "three.pth"
    save_ntua(path, random_state(sizes | {"fc.weight": (2, 16), "fc.bias": (2,)}))
    run = released_run(path, "ntua2021")
    assert run.cfg["video_views"] == ["face", "frame", "context"]
    x = {v: torch.rand(2, 3, 3, 64, 64) for v in ("face", "body", "context")}
    mean, std = (torch.tensor(c).view(3, 1, 1) for c in backbones.IMAGENET.values())
    with torch.no_grad():
        theirs = released.load("ntua2021", path)(**{v: (f - mean) / std for v, f in x.items()})
        mine = run.model(video=torch.cat([*x.values()], 2), step_mask=torch.ones(2, 3).bool())
    torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=0)


SPEAKERS = "train", "train", "validation", "validation", "validation"


def clip_of(i):
    "A clip's seconds, pictures and sound; each has another length"
    seconds = 0.8 + 0.3 * i
    return pictures(round(seconds * 10), 32, i), tone(seconds, 150 + 60 * i)


@pytest.fixture(scope="module")
def crema_d(tmp_path_factory):
    "Five clips in CREMA-D's layout, with the raters' votes and a split by actor"
    root = tmp_path_factory.mktemp("crema_d")
    for folder in ("AudioWAV", "VideoFlash", "processedResults"):
        (root / folder).mkdir()
    votes = ['"","A","D","F","H","N","S","fileName","numResponses"']
    for i, code in enumerate(("ANG", "SAD", "HAP", "NEU", "FEA")):
        name = f"{1001 + i}_IEO_{code}_XX"
        frames, sound = clip_of(i)
        write_video(root / f"VideoFlash/{name}.flv", frames, 10, sound, 16000)
        write_wav(root / f"AudioWAV/{name}.wav", sound, 16000)
        place = ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD").index(code)
        row = ",".join(str(8 * (k == place) + (k == 0)) for k in range(6))
        votes += [f'"{kind}{i + 1:05d}",{row},"{name}",10' for kind in (1, 2, 3)]
    (root / "processedResults/tabulatedVotes.csv").write_text("\n".join(votes) + "\n")
    rows = [f"{1001 + i},{s}" for i, s in enumerate(SPEAKERS)]
    (root / "split.csv").write_text("\n".join(["speaker,split", *rows]) + "\n")
    return root


@pytest.fixture(scope="module")
def msp_improv(tmp_path_factory):
    "Five turns in MSP-IMPROV's layout, their labels 1 to 5, with the owners' split"
    root = tmp_path_factory.mktemp("msp_improv")
    rows = ["FileName,EmoAct,EmoVal,EmoDom,Split_Set"]
    for i, s in enumerate(SPEAKERS):
        name = f"MSP-IMPROV-S{i + 1:02d}A-F0{i + 1}-R-FM01"
        frames, sound = clip_of(i)
        write_video(root / f"{name}.avi", frames, 10, sound, 16000)
        rows.append(f"{name}.avi,{1 + i * 0.9:.1f},{5 - i:.1f},{1 + i:.1f},{s.capitalize()}")
    (root / "labels.csv").write_text("\n".join(rows) + "\n")
    return root


def vavl_inputs(run, mode):
    "The validation clips as the run read them; as released without masks, to the longest"
    data = load_data(run.cfg, verbose=False).data
    idx = data.indices("validation")
    b = data.batch(idx)
    names = [data.clips[i] for i in idx]
    if mode == "as_described":
        return names, {k: b[k] for k in ("audio", "video", "audio_mask", "video_mask")}
    return names, {k: b[k][:, : int(b[f"{k}_mask"].sum(1).max())] for k in ("audio", "video")}


@pytest.fixture
def vavl(monkeypatch, shared_data, tmp_path):
    "Runs that score a folder of vavl2023's; big files are gone afterwards"
    stand_in(monkeypatch, wav2vec2_large_robust_12=1024, efficientnet_b2=1408)
    folder = tmp_path / "files"
    folder.mkdir()

    def score(mode, n_out, conditions=("av",), **data):
        vavl_folder(shared_data, folder, n_out)
        evaluate_released(folder, "vavl2023", lambda cfg: conditions, ["validation"], mode,
                          to=str(tmp_path / "run"), detector="none",
                          options="preparation.frames=5", **data, **HERE)  # fmt: skip
        run = open_run(tmp_path / "run")
        names, x = vavl_inputs(run, mode)
        with torch.no_grad():
            return released.load("vavl2023", folder, mode)(**x), run, names

    yield score
    for big in (folder, tmp_path / "run/checkpoints"):
        shutil.rmtree(big, ignore_errors=True)


@pytest.mark.parametrize("mode", MODES)
def test_vavl_classes(crema_d, vavl, mode):
    "Both streams, and each alone by its own head; as released clips of a batch see each other"
    told = dict(dataset="crema_d", data_root=str(crema_d), label="consensus",
                split=str(crema_d / "split.csv"))  # fmt: skip
    theirs, run, names = vavl(mode, 6, ("av", "audio", "video"), **told)
    assert run.classes == ["anger", "disgust", "fear", "happy", "neutral", "sad"]
    for condition in ("av", "audio", "video"):
        p = run.predictions[run.predictions.condition == condition]
        assert p["clip"].tolist() == names
        assert p.target.tolist() == ["happy", "neutral", "fear"]
        close(p, run.classes, theirs[condition].softmax(1))


def test_vavl_numbers(msp_improv, vavl):
    "0 to 1 of the released model are 1 to 5 of the labels, arousal the right way up"
    theirs, run, names = vavl("as_described", 3, dataset="msp_improv", data_root=str(msp_improv))
    assert run.classes == ["arousal", "valence", "dominance"]
    p = run.predictions[run.predictions.condition == "av"]
    assert p["clip"].tolist() == names
    np.testing.assert_allclose(p.target_arousal, [6 - 2.8, 6 - 3.7, 6 - 4.6], atol=1e-5)
    columns = [f"prediction_{c}" for c in run.classes]
    close(p, columns, 1 + 4 * theirs["av"])


def looked_at(run, clip):
    "The table of a video, and what the model was given for it"
    given = []
    keep = lambda model, args, streams: given.append(streams)
    run.model.register_forward_pre_hook(keep, with_kwargs=True)
    table = predict(clip, run, device="cpu", detector="none").table
    assert len(given) == 1
    return table, given[0]


def film(path, seconds, fps, size):
    "A video whose sound is a tone that turns into noise"
    noise = np.random.default_rng(0).normal(0, 0.1, round(seconds * 16000))
    sound = tone(seconds, 300) / 9 + noise * np.linspace(0, 1, len(noise)) ** 4
    return write_video(path, pictures(seconds * fps, size, 1), fps, sound, 16000)


def test_emotiw_looks_at_a_video(shared_data, tmp_path):
    path = tmp_path / "audio.pt"
    layout = shapes(shared_data, "emotiw2023-audio_avg", "model_state_dict")
    save_emotiw(path, random_state(layout))
    table, x = looked_at(released_run(path, "emotiw2023"), film(tmp_path / "v.mp4", 7, 5, 32))
    with torch.no_grad():
        z = released.load("emotiw2023", path)(audio=x["audio"])
    close(table, ["Positive", "Neutral", "Negative"], z.softmax(1))


def test_ntua_looks_at_a_video(shared_data, tmp_path):
    "As released a short window repeats its last frame here as well"
    path = tmp_path / "face.pth"
    save_ntua(path, random_state(shapes(shared_data, "ntua2021-face_va", "state_dict")))
    run = released_run(path, "ntua2021")
    table, x = looked_at(run, film(tmp_path / "v.mp4", 6, 4, 112))
    mean, std = (torch.tensor(c).view(3, 1, 1) for c in backbones.IMAGENET.values())
    with torch.no_grad():
        z = released.load("ntua2021", path)(face=(x["video"] - mean) / std).flatten(0, 1)
    assert torch.equal(x["video"][1, 8:], x["video"][1, 7:8].expand(8, -1, -1, -1))
    close(table, ["valence", "arousal"], z[:24].clip(-1, 1))
