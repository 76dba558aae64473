"""From the file to the time line: what is measured on the way finds what was done to rendered clips,
and holds on real ones, where they are at hand. No accuracy is measured."""

from pathlib import Path
import numpy as np, pytest
from avkit.cli import main
from avkit.core import AvkitError, read_json
from avkit.datasets import synth
from avkit.evaluation.annotate import predict_to
from avkit.evaluation.runs import untrained_run
from avkit.preprocessing.faces import detector
from avkit.preprocessing.media import decode
from avkit.preprocessing.writing import write_video
from avkit.reports import real_film
from avkit.reports.index import entry, remake
from avkit.reports.real_film import (
    copy_measured, faces_measured, film_clips, film_report, FILMS, lag, Landmarks, landmarks_of,
    LANDMARKS)  # fmt: skip
from helpers import few_pixels

pytest.importorskip("cv2")
pytest.importorskip("facenet_pytorch")


@pytest.fixture
def rendered(tmp_path, monkeypatch):
    "Two films of drawn people, and landmarks at the corners and edges of where their faces are"
    monkeypatch.setattr(real_film, "example_run", lambda: untrained_run(device="cpu"))
    points, root = {}, tmp_path / "data"
    for k, name in enumerate(("a/one", "a/two")):
        frames, sound = synth.render_clip(k, actor=k + 1)
        shown = list(frames)[:50]
        path = write_video(root / f"{name}.mp4", shown, 25, sound[: 2 * synth.RATE], synth.RATE)
        found = detector("mtcnn").detect(np.stack(shown))
        boxes = np.stack([b[0] for b, _ in found])
        ends = [boxes[:, [x, y]] for x in (0, 2) for y in (1, 3)]
        shape = shown[0].shape[1::-1]
        points[f"{path.stem}/landmarks"] = np.stack([*ends, *ends], 1) / shape
        points[f"{path.stem}/time"] = np.arange(50) / 25
    (root / LANDMARKS).parent.mkdir(parents=True)
    np.savez(root / LANDMARKS, **points)
    return root


def test_the_report_on_rendered_film(rendered, tmp_path, monkeypatch):
    "All that was put in is found; it is made again from its records, and goes on where it was"
    few_pixels(monkeypatch)
    to, runs = tmp_path / "real_film", tmp_path / "runs"
    films = dict(A="a")
    film_report(to, "Drawn film", rendered, films, runs)
    spec = read_json(to / "records.json")
    records = [spec.get("common", {}) | r for r in spec["records"]]
    clips = [r for r in records if not r.get("joined")]
    assert len(clips) == 2 and len(records) == 3
    for r in clips:
        assert r["prepare"]["found"] == r["predict"]["found"] == 15
        assert r["prepare"]["iou"] > 0.8 and r["predict"]["iou"] > 0.8
        assert (r["copy"]["more"], r["copy"]["late_ms"]) == (0, 0) and r["copy"]["alike"] > 0.95
        assert r["time"]["covered"] == 1 and r["time"]["line"][1] <= 2.01
    whole = next(r for r in records if r.get("joined") == 2)
    assert whole["cuts"] == dict(joins=[2.0], found=1, extra=0) and whole["predict"]["people"] == 2
    assert sum("drawing" in r for r in records) == 1, "one for each data set"
    assert str(tmp_path) not in (to / "records.json").read_text()
    remake(to, tmp_path / "again")
    for name in ("table.md", "table.csv", "table.tex"):
        assert (tmp_path / "again" / name).read_bytes() == (to / name).read_bytes()
    assert "A face in 30 of 30 frames" in entry(to, tmp_path)["headline"]
    monkeypatch.setattr(real_film, "predict", None)
    film_report(to, "Drawn film", rendered, films, runs)
    with pytest.raises(AvkitError, match="has no clips in c"):
        (rendered / "c").mkdir()
        film_clips(rendered, dict(C="c"))


def test_what_is_wrong_is_measured(rendered):
    "Sound that is late, frames that are lost, boxes beside the face"
    clip = decode(rendered / "a/one.mp4", rate=48000)
    sound = np.asarray(clip.sound)
    late = np.r_[np.zeros(1920, np.float32), sound]
    assert lag(late, sound, 48000)[0] == 40 and lag(sound, late, 48000)[0] == -40
    write_video(rendered / "cut.mp4", list(np.asarray(clip.frames)[:45]), 25, late, 48000)
    wrong = copy_measured(clip, decode(rendered / "cut.mp4", rate=48000))
    assert wrong["more"] == -5 and abs(wrong["late_ms"] - 40) < 1
    with np.load(rendered / LANDMARKS) as z:
        points = Landmarks(z["one/time"], z["one/landmarks"] * [256, 192])
    boxes = np.concatenate([points.points[:5].min(1), points.points[:5].max(1)], 1)
    at = points.at(points.times[:5])
    assert faces_measured(boxes, at, (192, 256))["iou_least"] > 0.999
    beside = faces_measured(boxes + [200, 0, 200, 0], at, (192, 256))
    assert beside["iou"] == 0 and beside["inside"] < 0.6
    with pytest.raises(AvkitError, match="has no clip none"):
        landmarks_of(rendered / LANDMARKS, "none", (192, 256))


@pytest.fixture(scope="session")
def clips(shared_data):
    "A clip of each data set, and where its face is"
    if not all((shared_data / d).is_dir() for d in FILMS.values()):
        pytest.skip("the real clips are not at hand")
    found = film_clips(shared_data).clips.groupby("film", sort=False).first()
    return {film: (shared_data / r["video"], r["clip"]) for film, r in found.iterrows()}


def test_real_film_keeps_its_own_time(clips, shared_data):
    "RAVDESS's sound is a thirtieth of a second later in these copies than where it is alone"
    path, name = clips["RAVDESS"]
    alone = shared_data / f"ravdess_speech/Actor_{name[-2:]}/03{name[2:]}.flac"
    if not alone.is_file():
        pytest.skip(f"{alone.name} is not at hand")
    film, sound = (decode(p, video=p == path, rate=48000).sound for p in (path, alone))
    late, alike = lag(film, sound, 48000)
    assert late == pytest.approx(1000 / 30, abs=0.5) and alike > 0.99


@pytest.mark.parametrize("film", FILMS)
def test_real_film_goes_the_whole_way(clips, shared_data, tmp_path, film, monkeypatch):
    "Its face is found where another reader sees it; copy and time line are its own"
    few_pixels(monkeypatch)
    path, name = clips[film]
    p, folder = predict_to(str(path), untrained_run(device="cpu"), str(tmp_path / "out"), True)
    (face,) = p.seen
    times, boxes = p.seen[face]
    own = decode(path, rate=48000)
    shape = own.frames.shape[1:3]
    ref = landmarks_of(shared_data / LANDMARKS, name, shape)
    found = faces_measured(boxes, ref.at(times), shape)
    assert found["iou"] > 0.7 and found["inside"] > 0.95
    assert p.settings["pictures_with_a_face"] == p.settings["pictures_searched"] == 15
    copy = copy_measured(own, decode(folder / "annotated.mp4", rate=48000))
    assert copy["more"] == 0 and abs(copy["late_ms"]) < 1 and copy["apart_ms"] < 1


def test_the_commands_take_real_clips_as_they_lie(clips, shared_data, capsys):
    root = Path(clips["RAVDESS"][0]).parent
    asked = ["--dataset", "ravdess", "--data_root", str(root)]
    assert main(["index", *asked]) == 0
    assert main(["prepare", *asked, "--n_jobs", "1"]) == 0
    assert "5 clips" in capsys.readouterr().out
