"""Features as tools write them: the same numbers, times and missing steps whatever the form; two
streams meet in time; what cannot be read says how it could."""

import json, math, re
from itertools import pairwise
import numpy as np, pandas as pd, pytest, torch
from safetensors.torch import save_file
from avkit.cli import main
from avkit.core import AvkitError
from avkit.datasets.feature_files import (
    features_hash,
    match_features,
    meet,
    own_features,
    read_features,
)
from avkit.models.masks import align_steps

CLIPS = ["happy/anna/1", "happy/ben/1", "sad/anna/2"]
RATE = 25.0


def sequences(vectors=False):
    "Each clip's steps (T,2), of different lengths"
    rng = np.random.default_rng(0)
    lengths = (1, 1, 1) if vectors else (4, 6, 3)
    return {c: rng.normal(size=(n, 2)).astype(np.float32) for c, n in zip(CLIPS, lengths)}


def long_table(x):
    "A row for each step: clip, time, a, b"
    rows = [(c, t / RATE, *map(float, v)) for c, s in x.items() for t, v in enumerate(s)]
    return pd.DataFrame(rows, columns=["clip", "time", "a", "b"])


def arrays(x):
    "{<clip>/time, <clip>/features: array}"
    times = {f"{c}/time": np.arange(len(s)) / RATE for c, s in x.items()}
    return times | {f"{c}/features": s for c, s in x.items()}


def lines(t):
    return "\n".join(t.to_json(orient="records", lines=True, double_precision=15).splitlines())


def text(sep, suffix, header=lambda s: s):
    def write(folder, x):
        path = folder / f"mine.{suffix}"
        path.write_text(header(long_table(x).to_csv(index=False, sep=sep)), encoding="utf-8")
        return path

    return write


def with_index(folder, x):
    "As audinterface writes it: file, start, end as an index, with paths of another machine"
    t = long_table(x)
    t["file"] = "/data/clips/" + t["clip"] + ".wav"
    t["start"] = pd.to_timedelta(t["time"], "s")
    t["end"] = t["start"] + pd.to_timedelta(2 / RATE, "s")
    t = t.set_index(["file", "start", "end"])[["a", "b"]]
    t.to_csv(folder / "opensmile.csv")
    return folder / "opensmile.csv"


def with_index_in_parquet(folder, x):
    t = pd.read_csv(with_index(folder, x))
    t[["start", "end"]] = t[["start", "end"]].apply(pd.to_timedelta)
    t.set_index(["file", "start", "end"]).to_parquet(folder / "opensmile.parquet")
    return folder / "opensmile.parquet"


def opensmile_rows(x):
    t = long_table(x)
    return zip(t["clip"], t["time"], t["a"], t["b"], strict=True)


def opensmile_text(folder, x):
    rows = [f"'{c}.wav';{t:.6f};{a!r};{b!r}" for c, t, a, b in opensmile_rows(x)]
    (folder / "lld.csv").write_text("\n".join(["name;frameTime;a;b", *rows]))
    return folder / "lld.csv"


def opensmile_arff(folder, x):
    head = ["@relation x", "", "@attribute name string", "@attribute frameTime numeric"]
    head += ["@attribute a numeric", "@attribute b numeric", "@attribute emotion unknown"]
    rows = [f"'{c}.wav',{t:.6f},{a!r},{b!r},unassigned" for c, t, a, b in opensmile_rows(x)]
    (folder / "lld.arff").write_text("\n".join([*head, "", "@data", "", *rows]))
    return folder / "lld.arff"


def parquet(folder, x):
    long_table(x).to_parquet(folder / "long.parquet")
    return folder / "long.parquet"


def json_lines(folder, x):
    (folder / "mine.jsonl").write_text(lines(long_table(x)))
    return folder / "mine.jsonl"


def npz(folder, x):
    np.savez(folder / "mine.npz", names=np.array(["a", "b"]), **arrays(x))
    return folder / "mine.npz"


def tensors(folder, x):
    save_file({k: torch.tensor(v) for k, v in arrays(x).items()}, folder / "mine.safetensors")
    return folder / "mine.safetensors"


def hdf5(folder, x):
    h5py = pytest.importorskip("h5py")
    with h5py.File(folder / "mine.h5", "w") as f:
        for k, v in arrays(x).items():
            f["data/" + k] = v
        f["names"] = np.array([b"a", b"b"])
    return folder / "mine.h5"


def folder_of(save):
    "A file for each clip, in the folder of its speaker alone"

    def write(folder, x):
        root = folder / "features"
        for c, s in x.items():
            path = root / c
            path.parent.mkdir(parents=True, exist_ok=True)
            save(path, s, np.arange(len(s)) / RATE)
        (root / ".DS_Store").write_text("not a feature")
        (root / "notes.txt").write_text("not a feature")
        return root

    return write


def clip_csv(path, s, time):
    pd.DataFrame(dict(frame=range(len(s)), time=time, a=s[:, 0], b=s[:, 1])).to_csv(f"{path}.csv")


FORMS = dict(
    csv=text(",", "csv"),
    semicolons=text(";", "csv"),
    tabs=text("\t", "tsv"),
    blanks=text(",", "csv", lambda s: re.sub(",", ", ", s)),
    mark=text(",", "csv", lambda s: "\ufeff" + s),
    milliseconds=lambda folder, x: milliseconds(folder, x),
    index=with_index,
    index_in_parquet=with_index_in_parquet,
    opensmile=opensmile_text,
    arff=opensmile_arff,
    parquet=parquet,
    json_lines=json_lines,
    npz=npz,
    safetensors=tensors,
    hdf5=hdf5,
    folder_npz=folder_of(lambda p, s, t: np.savez(f"{p}.npz", time=t, features=s)),
    folder_csv=folder_of(clip_csv),
    folder_safetensors=folder_of(
        lambda p, s, t: save_file(
            dict(time=torch.tensor(t), x=torch.tensor(s)), f"{p}.safetensors"
        )
    ),
)
NO_TIMES = dict(
    folder_npy=folder_of(lambda p, s, t: np.save(f"{p}.npy", s)),
    npz=lambda folder, x: savez(folder / "plain.npz", x),
    csv=lambda folder, x: without_times(folder, x),
    joined=lambda folder, x: listed(folder, x, np.concatenate(list(x.values()))),
    joined_by_band=lambda folder, x: listed(folder, x, np.concatenate(list(x.values())).T),
    padded=lambda folder, x: listed(folder, x, padded(x)),
    joined_hdf5=lambda folder, x: listed_hdf5(folder, x),
)


def padded(x):
    "(N,T,F), zeros behind the steps of each clip"
    longest = max(map(len, x.values()))
    return np.stack([np.pad(s, ((0, longest - len(s)), (0, 0))) for s in x.values()])


def listed(folder, x, together):
    "All clips in one array, their names and lengths in two others"
    lengths = np.array([len(s) for s in x.values()], np.int16)
    floor = np.zeros(len(x))
    path = folder / "joined.npz"
    np.savez(path, name=np.array(list(x)), frames=lengths, q=together, floor=floor)
    return path


def listed_hdf5(folder, x):
    h5py = pytest.importorskip("h5py")
    with h5py.File(folder / "joined.h5", "w") as f:
        f["clips"] = [c.encode() for c in x]
        f["lengths"] = [len(s) for s in x.values()]
        f["features"] = np.concatenate(list(x.values()))
    return folder / "joined.h5"


def milliseconds(folder, x):
    t = long_table(x)
    t["timestamp_ms"] = t.pop("time") * 1000
    t.to_csv(folder / "ms.csv", index=False)
    return folder / "ms.csv"


def savez(path, x):
    np.savez(path, **x)
    return path


def without_times(folder, x):
    long_table(x).drop(columns="time").to_csv(folder / "plain.csv", index=False)
    return folder / "plain.csv"


def same(own, x):
    "The stream holds these numbers, and nothing else"
    stream = own.stream
    for i, c in enumerate(CLIPS):
        n = len(x[c])
        assert stream.mask[i].tolist() == [True] * n + [False] * (stream.x.shape[1] - n)
        assert np.allclose(stream.x[i, :n].numpy(), x[c], atol=1e-6)


@pytest.mark.parametrize("vectors", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_all_forms_say_the_same(form, vectors, tmp_path):
    x = sequences(vectors)
    own = own_features(FORMS[form](tmp_path, x), "folder", CLIPS)
    same(own, x)
    assert own.about["clips"] == 3 and own.about["size"] == 2
    if vectors:
        assert own.rate is None and not own.sequence
    else:
        assert own.rate == pytest.approx(RATE)


@pytest.mark.parametrize("form", NO_TIMES)
def test_forms_without_times(form, tmp_path):
    x = sequences()
    path = NO_TIMES[form](tmp_path, x)
    own = own_features(path, "folder", CLIPS)
    same(own, x)
    assert own.rate is None
    assert own_features(path, "folder", CLIPS, rate=50.0).rate == 50


def test_a_rate_that_the_times_deny(tmp_path):
    path = FORMS["csv"](tmp_path, sequences())
    with pytest.raises(AvkitError, match="its own times say 25 steps a second, not 100"):
        own_features(path, "folder", CLIPS, rate=100.0)


OPENFACE = "frame, face_id, timestamp, confidence, success, AU01_r, AU12_c\n"


def openface(folder, rows, name="take"):
    folder.mkdir(parents=True, exist_ok=True)
    lines = [", ".join(map(str, r)) + "\n" for r in rows]
    (folder / f"{name}.csv").write_text(OPENFACE + "".join(lines))


def test_openface_masks_what_it_did_not_see(tmp_path):
    seen = [(1, 0.98), (0, 0.98), (1, 0.2), (1, 0.9)]
    rows = [(k + 1, 0, k / 25, c, s, k, 1) for k, (s, c) in enumerate(seen)]
    openface(tmp_path / "out/anna", rows)
    own = own_features(tmp_path / "out", "folder", ["happy/anna/take"])
    assert own.stream.mask.tolist() == [[True, False, False, True]]
    assert own.stream.x[0, :, 0].tolist() == [0, 0, 0, 3]
    assert own.about["tool"] == "OpenFace" and own.about["missing"] == 0.5
    assert own.about["left_out"] == ["frame", "face_id", "timestamp", "confidence", "success"]


def test_of_several_faces_the_longest_and_said(tmp_path):
    rows = [(k + 1, f, k / 25, 0.9, int(f == 1 or k < 2), 10 * f + k, 0)
            for k in range(5) for f in (0, 1)]
    openface(tmp_path / "out", rows)
    own = own_features(tmp_path / "out", "folder", ["take"])
    assert own.stream.x[0, :, 0].tolist() == [10, 11, 12, 13, 14]
    assert "several faces" in own.about["told"] and "take" in own.about["told"]


def test_frames_that_were_left_out_are_missing_steps(tmp_path):
    rows = [(k + 1, 0, round(k * 1001 / 30000, 3), 0.9, 1, k, 0) for k in (0, 1, 2, 6, 7, 8, 9)]
    openface(tmp_path / "out", rows)
    own = own_features(tmp_path / "out", "folder", ["take"])
    assert own.rate == pytest.approx(30000 / 1001, rel=2e-3)
    assert own.stream.x[0, :, 0].tolist() == [0, 1, 2, 0, 0, 0, 6, 7, 8, 9]
    assert own.stream.mask[0].tolist() == [True] * 3 + [False] * 3 + [True] * 4


def pyfeat(path, frames, fps, faces=("Person_0",), lost=()):
    "A CSV of py-feat's: whole seconds, empty values where no face is"
    rows = []
    for k in range(frames):
        for i, face in enumerate(faces if k not in lost else faces[:1]):
            value = "" if k in lost else k + 100 * i
            clock = f"{int(k / fps) // 60:02d}:{int(k / fps) % 60:02d}"
            rows.append(["/v/take.mp4", k, 5, 5, 50, 50, value and 0.99, value, 0.5, face, clock])
    columns = ["input", "frame", "FaceRectX", "FaceRectY", "FaceRectWidth", "FaceRectHeight"]
    columns += ["FaceScore", "AU01", "Identity_1", "Identity", "approx_time"]
    pd.DataFrame(rows, columns=columns).to_csv(path)
    return path


@pytest.mark.parametrize("fps", [24, 25, 30, 60])
def test_pyfeat(fps, tmp_path):
    own = own_features(pyfeat(tmp_path / "fex.csv", 200, fps, lost=(3, 4)), "folder", ["take"])
    assert own.rate == pytest.approx(fps) and own.about["tool"] == "py-feat"
    assert own.about["size"] == 1 and "Identity_1" in own.about["left_out"]
    assert own.stream.mask[0, :6].tolist() == [True] * 3 + [False] * 2 + [True]


def test_pyfeat_of_a_short_clip_and_of_two_people(tmp_path):
    path = pyfeat(tmp_path / "fex.csv", 20, 25, faces=("Person_0", "Person_1"), lost=(0, 1))
    own = own_features(path, "folder", ["take"])
    assert own.rate is None and own.stream.x.shape[1] == 20
    assert own_features(path, "folder", ["take"], rate=25.0).rate == 25


def test_mediapipe_json_lines(tmp_path):
    face = [[dict(categoryName="jawOpen", score=0.25), dict(categoryName="browDownLeft", score=1)]]
    rows = [dict(timestamp_ms=40 * k, face_blendshapes=face if k != 2 else []) for k in range(5)]
    (tmp_path / "mp").mkdir()
    (tmp_path / "mp/take.jsonl").write_text("\n".join(map(json.dumps, rows)))
    own = own_features(tmp_path / "mp", "folder", ["take"])
    assert own.about["tool"] == "MediaPipe" and own.rate == pytest.approx(25)
    assert own.stream.mask[0].tolist() == [True, True, False, True, True]
    assert own.stream.x[0, 0].tolist() == [0.25, 1]


def test_labels_text_and_empty_columns_are_left_out_and_told(tmp_path):
    (tmp_path / "f.csv").write_text(
        "clip,label,emotion_code,emotion,note,f1,f2,nothing\n"
        "a,happy,1,3,x,1,5,\nb,sad,2,4,y,2,5,\n")
    own = own_features(tmp_path / "f.csv", "folder", ["a", "b"])
    assert own.about["left_out"] == ["label", "emotion", "note", "nothing"]
    assert own.stream.x[:, 0].tolist() == [[1, 1, 5], [2, 2, 5]]
    assert "the same in all clips: f2" in own.about["told"]


@pytest.mark.parametrize("cell, why", [
    ("1,2", "both numbers and text"), ("inf", "infinite"), ("", "all values are empty")])
def test_values_that_are_no_numbers(cell, why, tmp_path):
    rows = ["clip;f1", "a;1" if cell else "a;", f"b;{cell}"]
    (tmp_path / "f.csv").write_text("\n".join(rows))
    with pytest.raises(AvkitError, match=f"f.csv: .*{why}"):
        read_features(tmp_path / "f.csv")


def test_an_empty_value_is_a_missing_step(tmp_path):
    (tmp_path / "f.csv").write_text("clip,f1,f2\na,1,1\na,,2\na,3,3\nb,,1\n")
    own = own_features(tmp_path / "f.csv", "folder", ["a", "b"])
    assert own.stream.mask.tolist() == [[True, False, True], [False] * 3]
    assert own.about["clips"] == 1 and "none for b" in own.about["told"]


def test_milliseconds_that_are_called_seconds(tmp_path):
    rows = [f"a,{33 * k},{k}" for k in range(20)]
    (tmp_path / "f.csv").write_text("\n".join(["clip,time,f1", *rows]))
    with pytest.raises(AvkitError, match="call the column time_ms"):
        own_features(tmp_path / "f.csv", "folder", ["a"])


def test_two_files_for_one_clip(tmp_path):
    for name in ("anna/1.npy", "anna/1.npz", "ben/1.npy"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        if name.endswith("y"):
            np.save(tmp_path / name, np.ones(2))
        else:
            savez(tmp_path / name, dict(x=np.ones(2)))
    with pytest.raises(AvkitError, match=r"1\.npy and .*1\.npz both"):
        read_features(tmp_path)
    (tmp_path / "anna/1.npz").unlink()
    with pytest.raises(AvkitError, match="'anna/1' and 'ben/1' both name the clip '1'"):
        own_features(tmp_path, "folder", ["1"])


def test_columns_that_differ_between_files(tmp_path):
    (tmp_path / "a.csv").write_text("time,f1,f2\n0,1,2\n")
    (tmp_path / "b.csv").write_text("time,f2,f1\n0,2,1\n")
    own = own_features(tmp_path, "folder", ["a", "b"])
    assert own.stream.x.tolist() == [[[1, 2]], [[1, 2]]]
    (tmp_path / "b.csv").write_text("time,f2,f3\n0,2,1\n")
    with pytest.raises(AvkitError, match="a.csv and .*b.csv have different columns: f1, f3"):
        read_features(tmp_path)


def dictionary(path):
    np.save(path, np.array(dict(a=np.ones(2))), allow_pickle=True)


PICKLES = {
    "f.pkl": (lambda p: pd.DataFrame(dict(clip=["a"], f=[1.0])).to_pickle(p), "f.parquet"),
    "f.pt": (lambda p: torch.save(dict(a=torch.ones(2)), p), "f.safetensors"),
    "f.npy": (dictionary, "f.npz"),
}


@pytest.mark.parametrize("name", PICKLES)
def test_a_pickle_is_refused_with_a_line_that_converts_it(name, tmp_path):
    write, converted = PICKLES[name]
    write(tmp_path / name)
    for path in (tmp_path / name, tmp_path):
        with pytest.raises(AvkitError, match="pickled objects, which run code") as e:
            read_features(path)
    exec(re.search('python -c "(.*)"', str(e.value))[1], {})
    (tmp_path / name).unlink()
    assert own_features(tmp_path / converted, "folder", ["a"]).about["clips"] == 1


def test_names_meet_by_the_ends_of_paths():
    found = lambda named, clips: match_features("f", "folder", named, clips, [[]] * len(clips))
    assert found(["C:\\data\\happy\\anna\\1.wav"], CLIPS)[0][0] == "C:\\data\\happy\\anna\\1.wav"
    assert found(["anna/1", "ben/1", "anna/2"], CLIPS) == (["anna/1", "ben/1", "anna/2"], [])
    assert found(["1", "2"], CLIPS) == ([None, None, "2"], ["1"])  # 1 means two clips
    assert found(["ben/2"], CLIPS) == ([None, None, None], ["ben/2"])
    assert found(["happy/anna/1", "ben/2"], CLIPS)[0] == ["happy/anna/1", None, None]


def test_a_folder_is_hashed_by_what_is_in_it(tmp_path):
    root = NO_TIMES["folder_npy"](tmp_path, sequences())
    first = features_hash(root)
    (root / "notes.txt").write_text("another word")
    assert features_hash(root) == first
    np.save(root / f"{CLIPS[0]}.npy", np.zeros((2, 2), np.float32))
    assert features_hash(root) != first


def event(folder, rate, lost=0, shift=0.0):
    "A number that jumps at 2.4 s of 4; the last `lost` steps are missing"
    t = np.arange(round(4 * rate)) / rate + shift
    x = (t >= 2.4 - 1e-9).astype(float)
    x[len(x) - lost:] = np.nan
    folder.mkdir(exist_ok=True)
    path = folder / f"{rate}.csv"
    pd.DataFrame(dict(clip="a", time=t, x=x)).to_csv(path, index=False)
    return own_features(path, "folder", ["a"])


@pytest.mark.parametrize("rates", [(100, 25), (25, 100), (100, 29.97), (50, 50), (62.5, 24)])
@pytest.mark.parametrize("lost", [0, 20])
def test_an_event_stands_at_one_index(rates, lost, tmp_path):
    a, v = event(tmp_path / "a", rates[0]), event(tmp_path / "v", rates[1], lost)
    own = meet(dict(audio=a, video=v))
    a, v = own["audio"].stream, own["video"].stream
    jumps = [int((s.x[0, :, 0] > 0.5).float().argmax()) for s in (a, v)]
    assert jumps[0] == jumps[1] == math.ceil(2.4 * min(rates) - 1e-6)
    x, y, steps = align_steps(a.x, a.mask, v.x, v.mask)  # as the models lay them
    laid = [float((z[0, :, 0] > 0.5).float().argmax()) / int(steps.sum()) for z in (x, y)]
    assert laid[0] == pytest.approx(laid[1]) == pytest.approx(0.6, abs=1 / 90)
    assert "clock" in own["audio"].about


def test_a_vector_stays_a_vector(tmp_path):
    (tmp_path / "v.csv").write_text("file,start,end,f\na.wav,0 days,0 days 00:00:04,1.5\n")
    vector = own_features(tmp_path / "v.csv", "folder", ["a"])
    own = meet(dict(audio=vector, video=event(tmp_path / "v", 25)))
    assert own["audio"].stream.x.tolist() == [[[1.5]]] and own["video"].stream.x.shape[1] == 100


def test_pieces_of_a_film(tmp_path):
    rows = [f"film.wav,{k / 10},{k}" for k in range(40)]
    (tmp_path / "f.csv").write_text("\n".join(["file,time,x", *rows]))
    spans = np.array([[0, 1], [1, 2.5], [2.5, np.nan]])
    files = [["film.wav", "film.mp4"]] * 3
    own = own_features(tmp_path / "f.csv", "folder", ["p1", "p2", "p3"], files, pieces=spans)
    got = [own.stream.x[i][own.stream.mask[i]].flatten().tolist() for i in range(3)]
    assert got == [list(range(10)), list(range(10, 25)), list(range(25, 40))]


def test_names_of_pieces_and_of_several_clips(tmp_path):
    spans = np.array([[0, 1], [1, 2], [np.nan] * 2, [np.nan] * 2])
    clips = ["film_1", "film_2", "x/a", "y/a"]
    files = [["film.mp4"], ["film.mp4"], ["x/a.wav"], ["y/a.wav"]]
    rows = [f"{c},{k / 10},{k}" for c in ("film_1", "film_2", "a") for k in range(10)]
    (tmp_path / "f.csv").write_text("\n".join(["file,time,x", *rows]))
    own = own_features(tmp_path / "f.csv", "folder", clips, files, pieces=spans)
    assert own.stream.mask.sum(1).tolist() == [10, 10, 0, 0]  # not cut again; a is nobody's
    assert "of no clip here: a" in own.about["told"]


def test_training_says_what_it_reads_and_the_record_keeps_it(tmp_path, capsys):
    root, rng = tmp_path / "mine", np.random.default_rng(0)
    rows = []
    for label in "xy":
        for k in range(4):
            (root / label / f"s{k}").mkdir(parents=True)
            (root / label / f"s{k}/a.wav").write_text(f"{label}{k}")
            rows += [(f"{label}/s{k}/a", t / 100, *rng.normal(size=3)) for t in range(100)]
            faces = [(t + 1, 0, t / 25, 0.9, int(t % 5 > 0), t, 1) for t in range(25)]
            openface(tmp_path / f"of/{label}/s{k}", faces, "a")
    columns = ["clip", "time", "f1", "f2", "f3"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "lld.csv", index=False)
    asked = f"--dataset folder --data_root {root} --audio_features {tmp_path / 'lld.csv'} "
    asked += f"--video_features {tmp_path / 'of'}"
    run = tmp_path / "run"
    more = f"--split random --epochs 1 --device cpu --run_dir {run} --fusion concat"
    for command in (f"index {asked}", f"train {asked} {more}"):
        assert main(command.split()) == 0
        out = capsys.readouterr().out
        told = out.splitlines()
        audio, video = (next(s for s in told if s.startswith(k)) for k in ("audio ", "video "))
        assert "lld.csv" in audio and "100 a second" in audio and "8 of 8" in audio
        assert "OpenFace" in video and "25 a second" in video and "20.0 %" in video
    assert out.index("OpenFace") < out.index("epoch")
    kept = json.loads((run / "record.json").read_text())
    assert kept["features"]["audio"]["clock"] == kept["features"]["video"]["rate"] == 25
    assert kept["features"]["video"]["size"] == 2 and str(tmp_path) not in str(kept["features"])
    assert set(kept["files"]) == {"audio_features", "video_features"}


def test_real_sequences(shared_data):
    clips = ["01-01-01-01-01-01-01", "1001_DFA_ANG_XX", "bbaf2n"]
    own = own_features(shared_data / "av_clips/face_sequences_17_clips.npz", "folder", clips)
    assert own.about["size"] == 52 and own.about["clips"] == 3
    assert {"landmarks", "matrix", "blendshape_names"} == set(own.about["left_out"])
    for a, b in pairwise(own.steps[0].time):
        assert 0.02 < b - a < 0.05


def test_real_action_units(shared_data):
    path = shared_data / "ravdess_face_aus/clip_average_aus.csv"
    names = pd.read_csv(path)["name"]
    own = own_features(path, "ravdess", ["03" + n[2:] for n in names])
    want = pd.read_csv(path).iloc[:, 1:].to_numpy(np.float32)
    assert torch.equal(own.stream.x[:, 0], torch.from_numpy(want))
    assert own.about["left_out"] == [] and own.stream.mask.all()


def test_whole_numbers_are_worth_what_a_step_says(tmp_path):
    x = sequences()
    q = np.concatenate(list(x.values())) / 0.125
    path = tmp_path / "q.npz"
    names, lengths = np.array(list(x)), [len(s) for s in x.values()]
    np.savez(path, name=names, frames=lengths, step=np.float32(0.125), q=q.round().astype(np.int8))
    got = read_features(path).named
    for c, s in x.items():
        np.testing.assert_array_equal(got[c].x, (s / 0.125).round() * np.float32(0.125))


@pytest.mark.parametrize(
    "change, said",
    [
        (dict(frames=[4, 6, 9]), "add up to 19"),
        (dict(name=np.array(CLIPS[:1] * 3)), "names 'happy/anna/1' twice"),
        (dict(q=np.ones((3, 5, 2))), "lengths up to 6"),
        (dict(q=np.ones((13, 2)) * np.inf), "infinite"),
    ],
)
def test_arrays_of_all_clips_that_contradict_each_other_are_refused(tmp_path, change, said):
    x = sequences()
    whole = dict(name=np.array(CLIPS), frames=[4, 6, 3], q=np.concatenate(list(x.values())))
    np.savez(tmp_path / "q.npz", **(whole | change))
    with pytest.raises(AvkitError, match=said):
        read_features(tmp_path / "q.npz")
