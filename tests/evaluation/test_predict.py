"A video of your own: as in training; several faces, odd files, any length in the same memory."

import json
import shutil
from pathlib import Path
import numpy as np, pandas as pd, pytest
import avkit, torch
from avkit.datasets import synth
from avkit.core import AvkitError, read_json
from avkit.training.learner import fit
from avkit.preprocessing.media import decode, stream
from avkit.preprocessing.writing import write_video
from avkit.datasets.intervals import read_intervals, write_intervals
from avkit.evaluation.annotate import time_line, timeline
from avkit.evaluation.predict import (
    at_temperatures,
    Looker,
    Prediction,
    listen,
    plan_windows,
    windows,
)
from avkit.evaluation.runs import Run, Trained, open_run
from avkit.cli import main
from avkit.preprocessing.prepare import Preparation
from avkit.training.calibration import at_temperature, nll
from avkit.training.configure import configure
from avkit.store import Store
from helpers import draw_small, rendered_actors, run_cells

pytest.importorskip("cv2")
SIZE = (160, 120)  # enough for a face to be found


def fresh(model, cfg, classes, stats=None, task="class", level="clip"):
    "A run without a folder"
    run = Run(Path("mine"), dict(classes=classes, task=task, level=level), cfg)
    run.trained = Trained(model, classes, stats or {})
    return run


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    "A run of one epoch on three actors, whose audio is in their videos: data set, run's folder"
    with pytest.MonkeyPatch.context() as mp:
        d = tmp_path_factory.mktemp("tiny")
        mp.setenv("AVKIT_HOME", str(d / "home"))
        root = d / "corpus"
        split = rendered_actors(root, size=SIZE)
        fit(
            configure(
                dataset="ravdess",
                data_root=str(root),
                split=str(split),
                epochs=1,
                device="cpu",
                n_jobs=1,
                run_dir=str(d / "run"),
            ),
            verbose=False,
        )
    return root, d / "run"


@pytest.fixture(scope="session")
def card(tiny, tmp_path_factory):
    "The run of `tiny` as a card"
    to = tmp_path_factory.mktemp("out") / "card"
    assert main(["export", "--run", str(tiny[1]), "--to", str(to), "--no-onnx"]) == 0
    return to


def test_a_clip_gets_the_prediction_it_had_in_training(tiny):
    root, run = tiny
    p, theirs = open_run(run), pd.read_csv(run / "predictions.csv", index_col="clip")
    for video in sorted(root.rglob("01-*-03.mp4")):
        mine = avkit.predict(video, p)
        rows = theirs.loc[[k for k in theirs.index if video.stem.endswith(k[3:])]]
        want = rows[rows.condition == "av"].iloc[0]
        assert (
            len(mine.table) == 1
            and mine.table.prediction[0] == want.prediction
            and mine.table.given[0] == "av"
        )
        assert np.allclose(
            mine.table[p.classes].iloc[0].astype(float), want[p.classes].astype(float), atol=2e-5
        )


def test_the_command_and_the_notebook(tiny, tmp_path, capsys):
    root, run = tiny
    video = sorted(root.rglob("*.mp4"))[0]
    assert (
        main(["predict", str(video), "--run", str(run), "--to", str(tmp_path / "a"), "--annotate"])
        == 0
    )
    made = {p.name for p in (tmp_path / "a").iterdir()}
    assert (
        made
        == {"predictions.csv", "settings.json", "timeline.png", "timeline.svg", "annotated.mp4"}
        | {"timeline.eaf", "timeline.TextGrid", "timeline.vtt"}
        and "face 1: 1 rows" in capsys.readouterr().out
    )
    assert abs(decode(tmp_path / "a/annotated.mp4").duration - decode(video).duration) < 0.1
    for bad, message in (
        ([tmp_path / "none.mp4"], "none.mp4: missing"),
        ([root.parent / "split.csv"], "not a media file"),
        ([video, "--detector", "mtcn"], "did you mean 'mtcnn'"),
        ([video, "--run", "nowhere"], "There is no run"),
        ([video, "--run", root], "no finished run"),
    ):
        assert (
            main(["predict", "--run", str(run), *map(str, bad)]) == 2
            and message in capsys.readouterr().err
        )
    run_cells("predict", video=str(video), run=str(run), to=str(tmp_path / "b"))
    assert (tmp_path / "b/predictions.csv").read_text() == (
        tmp_path / "a/predictions.csv"
    ).read_text()


def test_a_video_that_lies_on_its_side(tmp_path):
    import av

    frames, _ = synth.render_clip(4, actor=4)
    with av.open(str(tmp_path / "phone.mp4"), "w") as c:
        s = c.add_stream("libx264", rate=25)
        s.width, s.height, s.pix_fmt = 192, 256, "yuv420p"
        s.set_display_rotation(-90)
        for f in list(frames)[:10]:
            for p in s.encode(
                av.VideoFrame.from_ndarray(np.ascontiguousarray(np.rot90(f)), format="rgb24")
            ):
                c.mux(p)
        for p in s.encode():
            c.mux(p)
    look = Looker(Preparation())
    for kind, _, times, x in (
        s for s in stream(tmp_path / "phone.mp4", audio=False) if s[0] == "video"
    ):
        assert x.shape[1:3] == (192, 256) and all(look(times, x))


def test_memory_does_not_grow_with_the_video(tmp_path):
    "Twice the length: no more is held"
    import tracemalloc

    rng, peak = np.random.default_rng(0), {}
    for seconds in (75, 150):
        frames = (np.full((96, 128, 3), i % 256, np.uint8) for i in range(5 * seconds))
        video = write_video(
            tmp_path / f"{seconds}.mp4",
            frames,
            5,
            rng.normal(0, 0.1, 8000 * seconds).astype(np.float32),
            8000,
        )
        prep = Preparation(detector="none", size=40)
        tracemalloc.start()
        heard = listen(video, 8000, Store(tmp_path / str(seconds)))
        scheme = plan_windows(heard.duration, prep)
        assert (
            sum(len(x) == 15 for _, x, _ in windows(video, scheme, Looker(prep)))
            == scheme.n
            > seconds / 2
        )
        peak[seconds] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak[150] < 1.1 * peak[75] + 5e5, peak


@pytest.mark.parametrize(
    "settings,message",
    [
        (
            dict(recipe="ntua2021", dataset="affwild2", track="va"),
            r"looks at body and context.*Train one .*--variants face",
        ),
        (
            dict(recipe="demo", video_features="/somewhere/face.csv"),
            r"your own features \(video_features=face.csv\).*without --video_features",
        ),
        (
            dict(recipe="demo", options={"by_speaker": ["audio"]}),
            r"by speaker.*--enrolment 0",
        ),
        (
            dict(
                recipe="ntua2021", dataset="affwild2", track="va", variants="face", detector="given"
            ),
            "e.g. detector=mtcnn",
        ),
    ],
)
def test_runs_that_cannot_look_at_a_video_say_what_to_do(settings, message):
    cfg = configure(**settings)
    p = fresh(torch.nn.Identity(), cfg, ["a"], level="frame" if "track" in settings else "clip")
    with pytest.raises(AvkitError, match=message):
        avkit.predict(__file__, p)


def test_numbers_per_frame_stay_where_the_corpus_has_them(tmp_path):
    "Valence and arousal of every frame, cut off at -1 and 1 as in evaluation"
    from avkit.models.model import build_model

    frames, sound = synth.render_clip(4, actor=4)
    video = write_video(
        tmp_path / "a.mp4", list(frames)[:40], 25, sound[: round(1.6 * synth.RATE)], synth.RATE
    )
    cfg = configure(
        recipe="ntua2021",
        dataset="affwild2",
        track="va",
        size="small",
        options={"video_views": ["face"]},
    )
    torch.manual_seed(0)
    model = build_model(cfg.recipe | dict(modality="av", n_out=2)).eval()
    wide = fresh(
        model,
        cfg,
        ["valence", "arousal"],
        dict(target=(torch.tensor([0.1, 0.2]), torch.full((2,), 100.0))),
        "regression",
        "frame",
    )
    t = avkit.predict(video, wide, detector="none").table
    assert t.frame.tolist() == list(range(0, 40)) and set(t.given) == {"av"}
    x = t[["valence", "arousal"]].to_numpy()
    assert np.abs(x).max() < 1 + 1e-5 and (np.abs(x) > 0.999).any()


def test_real_faces_are_found(shared_data):
    "In nearly every frame of real talking faces"
    clips = sorted((shared_data / "grid_clips").glob("*.mpg")) or pytest.skip(
        "no grid_clips/ in the real data"
    )
    for video in clips[::3]:
        look = Looker(Preparation())
        for kind, at, times, x in (
            s for s in stream(video, audio=False, every=5) if s[0] == "video"
        ):
            look(times, x)
        assert look.gallery.found >= 0.95 * look.gallery.looked and len(look.gallery.seen) == 1


def test_a_card_says_the_same(tiny, card, tmp_path):
    "Out to a folder and in again: the same table to the last bit; graphs that agree"
    from avkit.evaluation.export import AGREES

    root, run = tiny
    shutil.copytree(card, tmp_path / "card")
    video = sorted(root.rglob("*.mp4"))[0]
    a, b = avkit.predict(video, run), avkit.predict(video, tmp_path / "card")
    assert a.table.equals(b.table)
    found = read_json(tmp_path / "card/config.json")["graphs"]["torch_export"]
    assert found["difference"] < AGREES and found["time"] == "open"
    text = (tmp_path / "card/README.md").read_text()
    assert (
        "CC BY-NC-SA 4.0" in text
        and "| test | av |" in text
        and "drawn people" in text
        and str(card.parent) not in text
    )
    with open(tmp_path / "card/model.safetensors", "r+b") as f:
        f.seek(-1, 2)
        f.write(b"x")
    with pytest.raises(AvkitError, match="SHA-256 differs"):
        open_run(tmp_path / "card")


FEATURES = dict(audio_encoder="features", video_encoder="features", video_dim=8)


@pytest.mark.parametrize("fusion", ["jca", "rnn"])
def test_fusions_as_graphs(fusion, tmp_path):
    """With masks, any number of clips, shorter ones; `ca` is the card's above, with the encoders of
    media, and in `08_export` another one goes on to ONNX"""
    from avkit.evaluation.export import to_program
    from avkit.models.model import build_model

    torch.manual_seed(0)
    cfg = configure(fusion=fusion)
    model = build_model(
        cfg.recipe
        | dict(modality="av", n_out=3, audio_dim=12)
        | FEATURES
    ).eval()
    x = dict(
        audio=torch.randn(2, 8, 12),  # of a recurrent part each step is in the graph
        video=torch.rand(2, 6, 8),
        audio_mask=torch.ones(2, 8, dtype=torch.bool),
        video_mask=torch.ones(2, 6, dtype=torch.bool),
    )
    p = fresh(model, cfg, ["a", "b", "c"])
    found, _ = to_program(p, tmp_path / "model.pt2", x)
    assert (
        found["time"] == dict(rnn="open for video, as in the example for audio").get(fusion, "open")
        and found["difference"] < 1e-4
    )  # a packed sequence has a length of its own


def film(path, *clips, fps=25):
    "A film of several people's clips, one after another"
    frames = [f for clip in clips for f in clip[0]]
    sound = np.concatenate([clip[1] for clip in clips]).astype(np.float32)
    return write_video(path, frames, fps, sound, synth.RATE)


def drawn(actor, n=50):
    "2 s of a drawn person: frames and audio"
    frames, sound = synth.render_clip(actor % 6, actor=actor, size=SIZE)
    return list(frames)[:n], sound[: n * synth.RATE // 25]


@pytest.mark.parametrize("level", ["clip", "frame"])
def test_a_cut_starts_new_faces(level, tmp_path):
    "Three people at the same place of the picture, one after another, are three; with their crops"
    from avkit.evaluation.runs import untrained_run

    video = film(tmp_path / "film.mp4", drawn(1), drawn(9), drawn(4))
    task = dict(classes=("valence", "arousal"), task="regression") if level == "frame" else {}
    p = avkit.predict(video, untrained_run(level=level, device="cpu", **task))
    spans = {name: (at.min(), at.max()) for name, (at, _) in p.seen.items()}
    assert sorted(round(a) for a, _ in spans.values()) == [0, 2, 4]
    assert all(b - a < 2.1 for a, b in spans.values()) and p.settings["cuts"] == [2.0, 4.0]
    assert p.table.face.nunique() == 3
    one = avkit.predict(film(tmp_path / "one.mp4", drawn(1)), untrained_run(device="cpu"))
    assert one.table.face.nunique() == 1 and one.settings["cuts"] == []


def test_a_window_over_a_cut_shows_each_face_its_own_shot():
    from avkit.evaluation.predict import Seen, cut_face

    frames = np.stack([np.full((64, 64, 3), v, np.uint8) for v in (10, 20, 200, 210)])
    boxes = []
    for shot in (0, 0, 1, 1):
        seen = Seen({shot: np.array([8.0, 8, 40, 40])})
        seen.shot = shot
        boxes.append(seen)
    prep = Preparation(frames=4, size=16)
    crops = [cut_face(frames, boxes, face, prep)["face"] for face in (0, 1)]
    means = [x.mean((1, 2, 3)).tolist() for x in crops]
    assert means == [[10, 20, 20, 20], [200, 200, 200, 210]]


def test_real_people_joined_to_one_film(shared_data, tmp_path):
    "As many faces as people; the cuts where the clips were joined"
    from avkit.preprocessing.tracks import cuts_of

    clips = sorted((shared_data / "grid_clips").glob("*.mpg")) or pytest.skip(
        "no grid_clips/ in the real data"
    )
    frames = np.concatenate([decode(p, audio=False).frames for p in clips[:3]])
    video = write_video(tmp_path / "film.mp4", list(frames), 25)
    assert np.allclose(cuts_of(video), [3, 6], atol=1e-3)
    from avkit.evaluation.runs import untrained_run

    p = avkit.predict(video, untrained_run(modality="video", device="cpu"))
    assert sorted(round(at.min() / 3) for at, _ in p.seen.values()) == [0, 1, 2]


def test_a_folder_holds_one_prediction(tmp_path, monkeypatch, capsys):
    "Another model, input or setting is refused, gets its own folder, or replaces all of it"
    from avkit.evaluation import annotate
    from avkit.evaluation.runs import untrained_run

    one, two = untrained_run(device="cpu"), untrained_run(device="cpu")
    with torch.no_grad():
        next(two.model.parameters()).add_(1)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    video = film(tmp_path / "a/clip.mp4", drawn(1))
    other = film(tmp_path / "b/clip.mp4", drawn(9))
    to = tmp_path / "out"
    draw_small(monkeypatch)
    plain = dict(detector="none")  # no face is asked for
    annotate.predict_to(str(video), one, str(to), annotate=True, **plain)
    before = {p.name: p.read_bytes() for p in to.iterdir()}
    for what, message in (
        (dict(run=two), "another model"),
        (dict(video=str(other)), "another input"),
        (dict(hop=0.3), "another settings"),
        (dict(detector="mtcnn"), "another settings"),
    ):
        asked = dict(video=str(video), run=one, to=str(to)) | plain | what
        with pytest.raises(AvkitError, match=f"{message}.*--again"):
            annotate.predict_to(**asked)
        assert {p.name: p.read_bytes() for p in to.iterdir()} == before
    annotate.predict_to(str(video), one, str(to), **plain)
    assert {p.name for p in to.iterdir()} == set(before)
    annotate.predict_to(str(video), two, str(to), again=True, **plain)
    left = {p.name: p.read_bytes() for p in to.iterdir()}
    assert set(left) == set(before) - {"annotated.mp4"}
    assert left["predictions.csv"] != before["predictions.csv"]
    monkeypatch.setattr(annotate, "resolve", lambda path: tmp_path / path)
    asked = (video, one), (other, one), (video, two)
    places = [annotate.predict_to(str(v), r, **plain)[1] for v, r in asked]
    again = annotate.predict_to(str(video), one, **plain)[1]
    assert len(set(places)) == 3 and places[0] == again


def test_a_model_of_drawn_people_says_so_of_real_ones(tiny, card, tmp_path, capsys, monkeypatch):
    "In the table, the settings, the figure, on the screen; not of what avkit rendered; a card too"
    from avkit.evaluation.annotate import timeline

    draw_small(monkeypatch)
    root, run = tiny
    rendered = sorted(root.rglob("*.mp4"))[0]
    real = tmp_path / "real.mp4"
    real.write_bytes(rendered.read_bytes())
    for who in (run, card):
        for video in (real, rendered):
            to = tmp_path / f"{who.name}-{video.stem}"
            asked = ["predict", str(video), "--run", str(who), "--to", str(to)]
            assert main([*asked, "--detector", "none"]) == 0
            screen = capsys.readouterr().out
            assert ("drawn people" in screen) == (video == real)
            s = read_json(to / "settings.json")
            assert ("drawn people" in s["warning"]) == (video == real)
            table = pd.read_csv(to / "predictions.csv")
            assert set(table.trained_on) == {"ravdess, rendered"}
    p = avkit.predict(real, run)
    assert "drawn people" in timeline(p).get_supxlabel()
    p = avkit.predict(rendered, run)
    assert timeline(p).get_supxlabel() == ""


def test_auto_takes_whatever_gpu_there_is(monkeypatch):
    from avkit.training.distributed import device_name

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for there in (True, False):
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda there=there: there)
        assert device_name("auto") == ("mps" if there else "cpu")
    with pytest.raises(AvkitError, match="sees no GPU"):
        device_name("cuda")


def test_a_figure_of_many_faces_stays_small(tmp_path):
    "A film of many shots: the faces that are seen longest, and how many there are"
    from dataclasses import replace
    from avkit.evaluation.annotate import MOST_STRIPS, timeline
    from avkit.evaluation.runs import untrained_run

    p = avkit.predict(film(tmp_path / "one.mp4", drawn(1)), untrained_run(device="cpu"))
    names = [f"face {i}" for i in range(1, 61)]
    many = replace(
        p,
        table=pd.concat([p.table.assign(face=n) for n in names]),
        seen=dict.fromkeys(names, p.seen["face 1"]),
        pictures=dict.fromkeys(names, p.pictures["face 1"]),
    )
    fig = timeline(many)
    assert len(fig.axes) == 2 * MOST_STRIPS and "20 of 60 faces" in fig.get_suptitle()


@pytest.mark.parametrize("fixed", ["video", ""])
def test_open_time_is_tried_however_few_steps_there_are(fixed):
    "A graph that takes six steps and no other number of them does not count as open"
    from avkit.evaluation.export import _checked

    class Model(torch.nn.Module):
        def forward(self, audio, audio_mask, video, video_mask):
            return audio.mean((1, 2)) + video.mean((1, 2))

    p = fresh(Model(), configure(), ["a", "b"])
    x = {}
    for s, steps in (("audio", 4), ("video", 6)):
        x |= {s: torch.randn(2, steps, 3), f"{s}_mask": torch.ones(2, steps, dtype=torch.bool)}

    def graph(batch):
        if fixed and batch[fixed].shape[1] != x[fixed].shape[1]:
            raise RuntimeError("another number of steps")
        return p.model(**batch)

    want = "open for audio, as in the example for video" if fixed else "open"
    assert _checked(p, x, graph, "The graph")["time"] == want


def told(rows, classes, task="class"):
    "A prediction of a table (start, end, face, prediction, numbers)"
    t = pd.DataFrame(rows, columns=["start", "end", "face", "prediction", *classes])
    return Prediction(t, Path("v.mp4"), list(classes), task, {}, {}, {})


def test_the_time_line_has_one_answer_at_a_time():
    nan = float("nan")
    rows = [
        (0.0, 2.0, "face 1", "sad", 0.9, 0.1),
        (1.0, 3.0, "face 1", "sad", 0.8, 0.2),
        (2.0, 4.0, "face 1", "calm", 0.3, 0.7),
        (6.0, 8.0, "face 1", "calm", 0.3, 0.7),
        (0.0, 2.0, "", "calm", 0.1, 0.9),
        (1.0, 3.0, "", "", nan, nan),
    ]
    got = time_line(told(rows, ["sad", "calm"]))
    assert got.values.tolist() == [
        [0.0, 2.5, "sad", "face 1"],
        [2.5, 4.0, "calm", "face 1"],
        [6.0, 8.0, "calm", "face 1"],
        [0.0, 2.0, "calm", "audio"],
    ]
    numbers = told([(0.0, 0.04, "face 1", "", -0.26, 0.51)], ["valence", "arousal"], "regression")
    assert time_line(numbers).label.tolist() == ["valence -0.3, arousal 0.5"]
    assert time_line(told(rows[5:], ["sad", "calm"])).empty


@pytest.mark.parametrize("seed", range(5))
def test_time_lines_are_read_back_by_each_format(seed, tmp_path):
    rng, classes = np.random.default_rng(seed), ["a & b", "<c>", 'd "e"']
    rows = [
        (k * 0.3, k * 0.3 + rng.uniform(0.2, 2), f"face {f}", classes[rng.integers(3)], 1, 0, 0)
        for f in (1, 2)
        for k in range(20)
    ]
    line = time_line(told(rows, classes))
    for suffix in ("eaf", "TextGrid", "vtt"):
        path = write_intervals(tmp_path / f"a.{suffix}", line)
        for tier, some in line.groupby("tier"):
            got = read_intervals(path, tier)
            assert got.label.tolist() == some.label.tolist()
            np.testing.assert_allclose(got.start, some.start, atol=6e-4)
            np.testing.assert_allclose(got.end, some.end, atol=6e-4)


def test_the_time_line_of_a_face_stays_in_its_shot(tmp_path):
    "A window over a cut is about faces of both shots; neither is in the picture of the other"
    from avkit.evaluation.runs import untrained_run

    video = film(tmp_path / "film.mp4", drawn(1, 75), drawn(9, 75), drawn(4, 50))
    p = avkit.predict(video, untrained_run(device="cpu"), hop=0.6)
    edges, lines = [0.0, *p.settings["cuts"], p.settings["duration"]], time_line(p)
    assert len(edges) == 4 and lines.tier.nunique() == 3
    assert ((p.table.start < edges[1] - 0.5) & (p.table.end > edges[1] + 0.5)).any(), "over a cut"
    for tier, rows in lines.groupby("tier"):
        shot = int(np.searchsorted(edges, p.seen[tier][0][0], side="right")) - 1
        assert rows.start.min() >= edges[shot] - 1e-6 and rows.end.max() <= edges[shot + 1] + 1e-6
    said = sum((lines.end - lines.start))
    assert said > 0.8 * p.settings["duration"]


def calibratable(**temperature):
    "A run of frames without a folder, whose record has temperatures"
    from avkit.evaluation.runs import untrained_run

    run = untrained_run(device="cpu", level="frame")
    run.record["calibration"] = {c: dict(temperature=t) for c, t in temperature.items()}
    return run


def both(video, run):
    "A prediction as it is and calibrated, and the probabilities of both"
    one, two = (avkit.predict(video, run, calibrate=c) for c in (False, True))
    return one, two, *(p.table[p.columns].to_numpy(float) for p in (one, two))


def test_calibrated_probabilities_are_those_of_validation(tiny, card):
    "At the temperature that the record and its card keep; NLL no higher, and the same labels"
    root, run = tiny
    known = read_json(run / "record.json")["calibration"]
    theirs = pd.read_csv(run / "predictions.csv", dtype=dict(clip=str))
    rows = theirs[(theirs.split == "validation") & (theirs.condition == "av")]
    truth, plain, told = [], [], []
    for clip, target in zip(rows["clip"], rows.target):
        video = next(p for p in root.rglob("01-*.mp4") if p.stem.endswith(clip[3:]))
        one, two, p, q = both(video, run)
        T = known["av"]["temperature"]
        assert np.abs(q - at_temperature(p, T)).max() < 1e-6
        assert one.table.drop(columns=one.columns).equals(two.table.drop(columns=two.columns))
        assert "temperatures" not in one.settings and two.settings["temperatures"] == dict(av=T)
        truth.append(one.classes.index(target))
        plain, told = [*plain, *p], [*told, *q]
    assert len(truth) > 1 and nll(truth, told) <= nll(truth, plain)
    assert avkit.predict(video, card, calibrate=True).table.equals(two.table)
    assert f"av {T:g}" in (card / "README.md").read_text()


def test_frames_are_calibrated_by_what_they_were_given(tmp_path):
    "Each row at the temperature of its own condition; a moment without an answer stays so"
    run = calibratable(av=0.5, audio=3.0, video=1.7)
    grey = [np.full((96, 128, 3), 120, np.uint8)] * 20
    sound = drawn(1, 20)[1]
    one, two, p, q = both(write_video(tmp_path / "a.mp4", grey, 25, sound, synth.RATE), run)
    assert set(one.table.given) == {"audio"} and two.settings["temperatures"] == dict(audio=3.0)
    assert np.abs(q - at_temperature(p, 3)).max() < 1e-6 and (p != q).all()
    assert one.table.prediction.equals(two.table.prediction)
    mixed = one.table.assign(given=["av", "audio", "video", ""] * (len(p) // 4))
    mixed.loc[mixed.given == "", one.columns] = np.nan
    got = at_temperatures(mixed, one.classes, dict(av=0.5, audio=3.0, video=1.7))
    for (given, rows), T in zip(got.groupby("given", sort=False), (0.5, 3, 1.7, 1)):
        want = at_temperature(mixed.loc[rows.index, one.columns], T)
        np.testing.assert_allclose(rows[one.columns].to_numpy(float), want, atol=1e-6)


def test_what_is_written_says_that_it_is_calibrated(tiny, tmp_path, monkeypatch, capsys):
    "On the screen, in the settings and in the figure; with a folder of its own"
    draw_small(monkeypatch)
    root, run = tiny
    video = sorted(root.rglob("01-*.mp4"))[0]
    asked = ["predict", str(video), "--run", str(run), "--detector", "none"]
    a, b = tmp_path / "a", tmp_path / "b"
    assert main([*asked, "--to", str(a)]) == 0 and "temperature" not in capsys.readouterr().out
    assert "temperature" not in (a / "settings.json").read_text()
    assert main([*asked, "--to", str(b), "--calibrate"]) == 0
    T = read_json(run / "record.json")["calibration"]["av"]["temperature"]
    screen = capsys.readouterr().out
    assert f"calibrated: at temperature av {T:g}" in screen and "--calibrate --run" in screen
    assert read_json(b / "settings.json")["temperatures"] == dict(av=T)
    plain, told = (pd.read_csv(d / "predictions.csv") for d in (a, b))
    classes = read_json(run / "record.json")["classes"]
    assert np.abs(told[classes] - at_temperature(plain[classes], T)).max(axis=None) < 1e-6
    assert "av" in timeline(avkit.predict(video, run, calibrate=True)).get_suptitle()
    assert main([*asked, "--to", str(a), "--calibrate"]) == 2
    assert "another settings" in capsys.readouterr().err


def test_without_a_temperature_there_is_a_reason(tmp_path):
    from avkit.evaluation.runs import untrained_run

    plain = tmp_path / "none.mp4"  # refused before the file is read
    older, numbers = untrained_run(), untrained_run(("valence", "arousal"), "regression")
    author, same, unheard, odd, text, card = (untrained_run() for _ in range(6))
    author.record["released"] = dict(told="somebody's")
    same.record |= dict(calibration=dict(av={}), metrics=dict(validation={}))
    unheard.record |= dict(
        calibration=dict(av=dict(temperature=2.0), audio={}), metrics=dict(validation={}, test={})
    )
    odd.record["calibration"] = dict(av=dict(temperature=0.04))
    text.record["calibration"] = dict(av=dict(temperature="1.5"))
    card.card = True
    for run, message in (
        (numbers, r"says numbers \(valence, arousal\).*leave out calibrate"),
        (older, r"given av, audio, video.*older avkit trained it. Train it again \(--again\)"),
        (author, "an author's file comes without. .*avkit evaluate --released"),
        (same, "those of validation.*a split that also has test clips"),
        (unheard, "no temperature given audio, video.*no clip of validation"),
        (odd, r"record.json: `av` should be a finite number from .05 to 20, and is 0.04"),
        (text, "record.json: `av` should be a valid number, and is '1.5'"),
        (card, "the card carries none. Export it anew"),
    ):
        with pytest.raises(AvkitError, match=message):
            avkit.predict(plain, run, calibrate=True)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 0, -1, 20.5, "2", True, None])
def test_a_card_with_an_odd_temperature_is_refused(number, card, tmp_path):
    "Whoever wrote it: a card went through other hands"
    shutil.copytree(card, tmp_path / "card")
    (tmp_path / "card/hashes.json").unlink()
    config = read_json(card / "config.json")
    assert set(config["temperatures"]) == {"av", "audio", "video"}
    config["temperatures"]["audio"] = number
    (tmp_path / "card/config.json").write_text(json.dumps(config))
    with pytest.raises(AvkitError, match=r"config.json: `temperatures.audio` should be"):
        open_run(tmp_path / "card")
