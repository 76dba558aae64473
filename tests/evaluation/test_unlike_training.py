"""What a run was trained on and other clips cannot have (an owner's crops, tensors, a frame rate)
is said where the run is asked about them: on the screen, and in what is written."""

from pathlib import Path
from types import SimpleNamespace
import numpy as np, pytest
import avkit
from avkit.cli import main
from avkit.core import AvkitError, read_json
from avkit.datasets import synth
from avkit.evaluation.evaluate import evaluate
from avkit.evaluation.predict import Heard, Looker, unlike_of_video
from avkit.evaluation.runs import RunFacts, unlike_training, untrained_run
from avkit.preprocessing import faces
from avkit.preprocessing.prepare import Preparation
from avkit.preprocessing.writing import write_video
from avkit.store import Store
from avkit.training.configure import configure
from avkit.training.learner import fit
from avkit.training.loading import came_as

cv2 = pytest.importorskip("cv2")
CROPS = "trained on face crops that came with affwild2: here mtcnn finds the face"


def films(root, names, crops, fps=25, frames=32):
    "Aff-Wild2's folders with drawn people; their crops, or none; valence and arousal"
    for k, name in enumerate(names):
        shown = list(synth.render_clip(k, actor=k + 1)[0])[:frames]
        write_video(root / f"videos/{name}.avi", shown, fps)
        for i, frame in enumerate(shown if crops else ()):
            path = root / f"cropped_aligned/{name}/{i + 1:05d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), cv2.resize(frame[20:150, 60:190], (112, 112))[..., ::-1])
        d = root / "annotations/VA_Set" / ("Train_Set", "Validation_Set")[k % 2]
        d.mkdir(parents=True, exist_ok=True)
        lines = [f"{v:.2f},{-v:.2f}" for v in np.sin(np.arange(frames) / 5 + k)]
        (d / f"{name}.txt").write_text("\n".join(["valence,arousal", *lines]) + "\n")
    return root


def settings(root, **more):
    return dict(
        recipe="ntua2021",
        dataset="affwild2",
        track="va",
        size="small",
        modality="video",
        data_root=str(root),
        options={"video_views": ["face"], "windows": {"length": 16, "hop": 16, "stride": 4}},
        epochs=1,
        device="cpu",
        n_jobs=1,
        **more,
    )


@pytest.fixture(scope="module")
def on_crops(tmp_path_factory):
    "The folder of a run on its data set's own crops, which nobody named"
    with pytest.MonkeyPatch.context() as mp:
        d = tmp_path_factory.mktemp("crops")
        mp.setenv("AVKIT_HOME", str(d / "home"))
        root = films(d / "affwild2", "ab", crops=True)
        fit(configure(**settings(root), run_dir=str(d / "run")), verbose=False)
    return d / "run"


def test_a_video_has_no_crops_of_an_owner(on_crops, tmp_path, capsys):
    "Said on the screen, in settings.json and under the figure; refused where `given` was asked for"
    record = read_json(on_crops / "record.json")
    assert record["detector"] == "given" and record["frame_rate"] == [25, 25]
    frames, sound = synth.render_clip(4, actor=4)
    shown = list(frames)[:24]
    same = write_video(tmp_path / "same.mp4", shown, 25)
    fast = write_video(tmp_path / "fast.mp4", shown, 50)
    to = tmp_path / "out"
    assert main(["predict", str(same), "--run", str(on_crops), "--to", str(to)]) == 0
    assert f"Note: run was {CROPS}" in capsys.readouterr().out
    assert read_json(to / "settings.json")["unlike_training"] == [CROPS]
    assert "owner" not in (to / "timeline.svg").read_text()
    assert "face crops that came with affwild2" in (to / "timeline.svg").read_text()
    told = avkit.predict(fast, on_crops, detector="none").settings["unlike_training"]
    assert "the whole frame is the face" in told[0] and "25 frames a second" in told[1]
    asked = avkit.open_run(on_crops)
    asked.cfg.recipe["preparation"]["detector"] = "given"
    with pytest.raises(AvkitError, match="name a detector"):
        avkit.predict(same, asked)


def test_nor_has_another_data_set(on_crops, tmp_path, capsys):
    "In the record of the run; with another detector that is named, too"
    other = films(tmp_path / "other", "cd", crops=False, frames=20)
    asked = dict(dataset="affwild2", track="va", data_root=str(other), device="cpu", n_jobs=1)
    (told,) = evaluate(str(on_crops), "video", **asked)["cross"].values()
    assert told["unlike_training"] == [CROPS] and f"the run was {CROPS}" in capsys.readouterr().out
    (told,) = evaluate(str(on_crops), "video", detector="none", **asked)["cross"].values()
    assert told["unlike_training"] == [CROPS.replace("mtcnn finds", "the whole frame is")]
    with pytest.raises(AvkitError, match="another data set"):
        evaluate(str(on_crops), detector="none")
    theirs = films(tmp_path / "theirs", "ef", crops=True, frames=24)
    asked["data_root"] = str(theirs)
    record = evaluate(str(on_crops), "video", **asked)
    assert [*record["cross"].values()][-1]["unlike_training"] == []


def run_of(cfg=None, **record):
    return RunFacts(Path("mine"), dict(name="mine", dataset="vgaf") | record, cfg or configure())


@pytest.mark.parametrize(
    "record,now,came,said",
    [
        (dict(detector="given"), "mtcnn", {}, "crops that came with vgaf: here mtcnn finds"),
        (dict(detector="given"), "given", {}, ""),
        (dict(detector="mtcnn"), "mtcnn", {}, ""),
        (dict(detector="mtcnn"), "yunet", {}, "faces that mtcnn found: here yunet finds"),
        (dict(recipe=dict(preparation=dict(detector="yunet"))), "mtcnn", {}, "that yunet found"),
        (dict(recipe=dict(preparation=dict(detector="none"))), "mtcnn", {}, "whole frames for"),
        (dict(), "mtcnn", {}, ""),
        (dict(came_as=dict(video="tensors")), "mtcnn", {}, "video that came as tensors"),
        (dict(came_as=dict(audio="tensors")), "mtcnn", dict(audio="tensors"), ""),
        (dict(came_as=dict(video="pictures")), "mtcnn", {}, "pictures without a rate"),
    ],
)
def test_what_differs_is_said_and_nothing_else(record, now, came, said):
    lines = unlike_training(run_of(**record), Preparation(detector=now), came)
    assert len(lines) == bool(said) and said in " ".join(lines)


def test_views_and_streams_that_a_run_does_not_read():
    sounds = run_of(configure(modality="audio"), came_as=dict(video="pictures"))
    assert unlike_training(sounds, Preparation()) == []
    frames = Preparation(views=("frame",), detector="none")
    assert unlike_training(run_of(detector="given"), frames) == []


@pytest.mark.parametrize("recipe,crops", [("jca2023", True), ("ntua2021", True), ("demo", False)])
def test_a_file_of_the_authors(recipe, crops):
    "Where a recipe takes the organisers' crops, its authors had them"
    views = {"video_views": ["face"]}
    cfg = configure(recipe=recipe, options=views, dataset="affwild2", track="va")
    lines = unlike_training(run_of(cfg, released=dict(told="theirs")), Preparation())
    assert len(lines) == crops and all("its authors' data" in line for line in lines)


def test_how_clips_came(tmp_path):
    (tmp_path / "pictures").mkdir()

    def came(video, audio="a.wav", **more):
        clips = {"video": [video], "audio": [audio]}
        return came_as(configure(**more), SimpleNamespace(root=tmp_path, clips=clips))

    assert came("a.mp4") == {} and came("") == {}
    assert came("pictures") == dict(video="pictures") == came("a.png")
    assert came("pictures", picture_rate=25.0) == {}
    assert came("a.img.5.pt", "a.spec.5.pt") == dict(video="tensors", audio="tensors")
    assert came("pictures", "a.spec.5.pt", modality="audio") == dict(audio="tensors")
    assert came("pictures", modality="video", video_features="f.csv") == {}


def test_lengths_and_rates(tmp_path):
    "A long video of a model of whole clips; a frame rate that a tenth makes another"
    whole = untrained_run(recipe="vavl2023", size="small", dataset="synth")
    store = Store(tmp_path)
    long, short = (Heard(store, "", 16000, duration=s, fps=25.0) for s in (60.0, 11.0))
    assert "windows of 6 s" in unlike_of_video(whole, long, dict(window=6.0))[0]
    assert unlike_of_video(whole, short, dict(window=11.0)) == []
    for fps, said in ((30.0, 0), (27.5, 0), (20.0, 1), (60.0, 1), (None, 0)):
        whole.record["frame_rate"] = [25, 30]
        heard = Heard(store, "", 16000, duration=5.0, fps=fps)
        assert len(unlike_of_video(whole, heard, dict(window=5.0))) == said


@pytest.mark.parametrize("modality,n", [("av", 2), ("video", 1), ("audio", 1)])
def test_quirks_of_the_cut(modality, n, tmp_path):
    cut = {"preparation": {"by_number": True, "own_middle": True}}
    run = untrained_run(modality=modality, options=cut)
    heard = Heard(Store(tmp_path), "", 16000, duration=3.6, fps=30.0)
    assert len(unlike_of_video(run, heard, dict(window=3.6))) == n


def test_a_face_is_as_sure_as_in_training(monkeypatch):
    "The released rule of vavl2023 asks for a score of .96"
    asked = []
    monkeypatch.setattr(faces, "detector", lambda *how: asked.append(how))
    Looker(Preparation(sure=0.96))
    assert asked == [("mtcnn", None, 0.96)]
