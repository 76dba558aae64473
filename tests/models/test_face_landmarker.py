"""MediaPipe's Face Landmarker as a backbone: equal to what MediaPipe gives, near what was published
of the same clips; frames without a face are missing steps; from a shell to a prediction. Where
neither package nor file is at hand, something stands in that finds what is not black."""

import contextlib, functools, os
from pathlib import Path
import numpy as np, pytest, torch
import avkit
from avkit.cli import main
from avkit.core import AvkitError, read_json
from avkit.datasets import synth
from avkit.datasets.features import Source
from avkit.models import hub
from avkit.models.face_landmarker import FaceLandmarks, head_pose, landmarker, NUMBERS
from avkit.preprocessing.media import decode
from avkit.preprocessing.writing import write_video
from avkit.store import Store
from avkit.training.configure import configure
from avkit.training.frozen import backbone_note, backbone_stream
from avkit.training.loading import load_data
from helpers import rendered_actors

LOOKED = []  # how many frames each opening of the stand-in looked at


@contextlib.contextmanager
def stand_in(file):
    "Finds a face where a frame is not black, and says which colours it has"
    LOOKED.append(0)

    def look(frame):
        LOOKED[-1] += 1
        if frame.max() < 40:
            return None
        mean = frame.mean((0, 1)) / 255
        return np.concatenate([np.resize(mean, 52), head_pose(np.eye(4))]).astype(np.float32)

    yield look


@pytest.fixture
def file(tmp_path, monkeypatch):
    "A file, and what stands in for the package that reads it"
    path = tmp_path / "models/face_landmarker.task"
    path.parent.mkdir()
    path.write_bytes(b"coefficients")
    monkeypatch.setattr(hub, "FaceLandmarks", functools.partial(FaceLandmarks, look=stand_in))
    LOOKED.clear()
    return path


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("clips") / "corpus"
    return root, rendered_actors(root)


def rows_of(frames):
    "A source of clips (T,3,S,S) uint8"
    T = max(map(len, frames))
    whole = torch.zeros(len(frames), T, *frames[0].shape[1:], dtype=torch.uint8)
    for row, f in zip(whole, frames):
        row[: len(f)] = f
    real = torch.tensor([len(f) for f in frames])
    keys = [f"clip {i} {float(f.float().mean())}" for i, f in enumerate(frames)]

    def make(i, j):
        return dict(x=whole[i:j], real=real[i:j])

    return Source(keys, f"{keys}", make, "frames")


def shown(*bright):
    "Frames of one brightness each"
    return torch.stack([torch.full((3, 16, 16), b, dtype=torch.uint8) for b in bright])


def test_a_frame_without_a_face_is_missing_and_padding_stays_padding(file, tmp_path):
    store = Store(tmp_path / "store")
    source = rows_of([shown(200, 0, 100), shown(0, 0), shown(50)])
    s, note = backbone_stream(store, source, f"face_landmarker:{file}")
    assert s.x.shape == (3, 3, NUMBERS) and not s.x.isnan().any()
    assert s.mask.tolist() == [[True, False, True], [False] * 3, [True, False, False]]
    assert s.present.tolist() == [True, False, True] and (s.x[~s.mask] == 0).all()
    assert torch.allclose(s.x[0, [0, 2], 0] * 255, torch.tensor([200.0, 100.0]), atol=1e-4)
    assert sorted(LOOKED[-3:]) == [1, 2, 3], "opened for each clip, and no frame looked at twice"
    looked = len(LOOKED)
    backbone_stream(store, source, f"face_landmarker:{file}")
    assert len(LOOKED) == looked, "once for each clip"
    assert note["dim"] == NUMBERS and note["licence"] == "Apache-2.0"


def test_known_by_content_not_by_place(file, tmp_path):
    store = Store(tmp_path / "store")
    other = tmp_path / "elsewhere.task"
    other.write_bytes(file.read_bytes())
    one = backbone_note(store, f"face_landmarker:{file}")
    two = backbone_note(store, "face_landmarker:mine", other)
    assert one["network"] == two["network"] and str(tmp_path) not in f"{one}{two}"
    assert one["name"] == "face_landmarker:face_landmarker.task" and two["source"] == other.name
    other.write_bytes(b"other coefficients")
    assert backbone_note(store, "face_landmarker:mine", other)["network"] != one["network"]


def test_what_is_refused(file, corpus, tmp_path, monkeypatch):
    store, source = Store(tmp_path / "store"), rows_of([shown(90)])
    with pytest.raises(AvkitError, match="nowhere.task is no file: get face_landmarker.task"):
        backbone_stream(store, source, "face_landmarker:nowhere.task")
    with pytest.raises(AvkitError, match="does not show its layers"):
        backbone_stream(store, source, f"face_landmarker:{file}", layer=1)
    with pytest.raises(AvkitError, match="pad"):
        configure(
            video_backbone=f"face_landmarker:{file}",
            options={"backbone_options": {f"face_landmarker:{file}": {"pad": True}}},
        )
    whole = dict(recipe="emotiw2023", dataset="ravdess", data_root=str(corpus[0]), size="paper")
    with pytest.raises(AvkitError, match="looks at faces"):
        load_data(configure(**whole, n_jobs=1, video_backbone=f"face_landmarker:{file}"))
    monkeypatch.setitem(__import__("sys").modules, "mediapipe", None)
    with pytest.raises(AvkitError, match="pip install --no-deps mediapipe=="), landmarker(file):
        pass


def test_from_a_file_to_a_prediction_in_a_shell(file, corpus, tmp_path, monkeypatch):
    "Trained, recorded without the file's place; a window without a face is answered by the audio"
    monkeypatch.setenv("AVKIT_HOME", str(tmp_path / "cache"))
    root, split = corpus
    views = '{"preparation": {"frames": 4, "size": 48, "window": 1.0, "detector": "none"}}'
    words = f"train --recipe demo --dataset ravdess --data_root {root} --split {split} --epochs 1"
    words += f" --video_backbone face_landmarker:{file} --device cpu --n_jobs 1"
    assert main([*f"{words} --run_dir {tmp_path / 'run'}".split(), "--options", views]) == 0
    record = read_json(tmp_path / "run/record.json")
    note = record["backbones"]["video"]
    assert note["name"] == "face_landmarker:face_landmarker.task" and note["dim"] == NUMBERS
    assert record["files"]["video_weights"] == note["weights"]
    recipe = record["recipe"]
    assert recipe["video_encoder"] == "vector" and "video" in recipe["standardise"]
    black = [np.zeros((96, 96, 3), np.uint8)] * 30
    sound = synth.render_clip(1, actor=2)[1][: synth.RATE]
    film = write_video(tmp_path / "black.mp4", black, 30, sound, synth.RATE)
    dark = avkit.predict(film, tmp_path / "run", device="cpu").table
    assert set(dark.given) == {"audio"} and dark.prediction.ne("").all()
    clip = next(root.rglob("*.mp4"))
    seen = avkit.predict(clip, tmp_path / "run", device="cpu").table
    assert set(seen.given) == {"av"}


@pytest.fixture(scope="session")
def task(shared_data):
    "The real file, with the package that reads it"
    pytest.importorskip("mediapipe", reason="mediapipe is an extra: make landmarks")
    path = shared_data / "models/face_landmarker.task"
    if not path.is_file():
        pytest.skip(f"{path.name} is not at hand")
    return path


def threads():
    return len(os.listdir("/proc/self/task"))


def test_the_real_one_gives_what_mediapipe_gives(task, shared_data, tmp_path):
    import mediapipe as mp
    from mediapipe.tasks import python as tasks

    clip = decode(shared_data / "grid_clips/bbaf2n.mpg", True, False)
    frames = clip.frames[:40:8, 30:254, 60:284]
    vision = tasks.vision
    asked = vision.FaceLandmarkerOptions(
        tasks.BaseOptions(model_asset_path=str(task)),
        output_face_blendshapes=True,
        output_facial_transformation_matrixes=True,
    )
    with vision.FaceLandmarker.create_from_options(asked) as net:
        images = [mp.Image(mp.ImageFormat.SRGB, np.ascontiguousarray(f)) for f in frames]
        own = [net.detect(i) for i in images]
    x = torch.from_numpy(frames.transpose(0, 3, 1, 2).copy())
    x = torch.cat([x, torch.zeros_like(x[:1])])
    before = threads()
    s, note = backbone_stream(Store(tmp_path), rows_of([x]), f"face_landmarker:{task}")
    assert s.mask[0].tolist() == [True] * 5 + [False]
    for k, r in enumerate(own):
        assert np.allclose(s.x[0, k, :52], [c.score for c in r.face_blendshapes[0]], atol=1e-6)
        pose = head_pose(r.facial_transformation_matrixes[0])
        assert np.allclose(s.x[0, k, 52:], pose, atol=1e-6)
    for _ in range(5):
        with landmarker(task) as look:
            assert look(np.zeros((64, 64, 3), np.uint8)) is None
    assert threads() <= before + 2, "closed each time"


@pytest.mark.parametrize(
    "name", ["av_clips/ravdess/01-01-05", "av_clips/cremad/1001_DFA_HAP", "grid_clips/lbax"]
)
def test_the_real_one_is_near_what_was_made_of_the_same_clips(task, shared_data, name):
    "Made by following the face through the film; here each frame by itself, whole, and as a crop"
    from avkit.preprocessing import faces
    from avkit.preprocessing.prepare import Preparation

    pytest.importorskip("facenet_pytorch")
    folder, stem = Path(name).parent, Path(name).name
    path = next(p for p in sorted((shared_data / folder).iterdir()) if p.stem.startswith(stem))
    with np.load(shared_data / "av_clips/face_sequences_17_clips.npz") as z:
        key = next(k for k in z.files if k.startswith(path.stem)).split("/")[0]
        times, theirs = z[f"{key}/time"][::6], z[f"{key}/blendshapes"][::6].astype(float)
        turned = np.array([head_pose(m) for m in z[f"{key}/matrix"][::6]])
    clip = decode(path, True, False)
    frames = clip.frames[::6]
    assert np.allclose(clip.times[::6], times, atol=1e-3)
    crops = faces.face_crops(frames, faces.detector("mtcnn").detect(frames), Preparation())[0]
    for seen in (frames, crops):
        x = torch.from_numpy(seen.transpose(0, 3, 1, 2).copy()) / 255
        y = FaceLandmarks(task)(x, deep=False)[0].numpy()
        assert not np.isnan(y).any(), "the face is found in every frame"
        assert np.abs(y[:, :52] - theirs).mean() < 0.035
        lively = theirs.std(0) > 0.05
        r = [np.corrcoef(a, b)[0, 1] for a, b in zip(y[:, :52].T[lively], theirs.T[lively])]
        assert np.median(r) > 0.8
    whole = torch.from_numpy(frames.transpose(0, 3, 1, 2).copy()) / 255
    assert np.abs(FaceLandmarks(task)(whole, deep=False)[0].numpy()[:, 52:] - turned).max() < 0.15
