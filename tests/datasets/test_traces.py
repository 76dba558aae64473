"""Labels over time of one's own films: whatever the table, the rate and the place, each frame has
the label of its own time; or the data are refused with the cure."""

import shutil

import numpy as np
import pandas as pd
import pytest

from avkit.core import AvkitError
from avkit.datasets.folder import index
from avkit.datasets.splits import apply_split
from avkit.datasets.traces import at_times, film_times
from avkit.preprocessing.prepare import Preparation, prepare
from avkit.preprocessing.tracks import Track
from avkit.preprocessing.writing import write_video, write_wav
from avkit.store import Store

PEOPLE = dict(one="anna", two="ben", three="carla")
SUBSETS = dict(one="train", two="val", three="test")
SUFFIX = dict(one="mp4", two="avi", three="mkv")
FPS = dict(one=10, two=12.5, three=8)
SECONDS, DIMS = 4, ("valence", "arousal")
TIMES = np.round(np.arange(0, SECONDS + 0.3, 0.3), 3)


def truth(film, what, at):
    "What is said of a film, on a scale from 1 to 9"
    k = list(PEOPLE).index(film) + 3 * DIMS.index(what)
    return 5 + 3.9 * np.sin(at * (0.5 + 0.2 * k) + k)


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    "Three films of four seconds, of three kinds and rates"
    root = tmp_path_factory.mktemp("films")
    rng = np.random.default_rng(0)
    for film, fps in FPS.items():
        frames = rng.integers(0, 255, (int(SECONDS * fps), 32, 32, 3), dtype=np.uint8)
        sound = 0.1 * rng.normal(size=8000 * SECONDS).astype(np.float32)
        write_video(root / f"{film}.{SUFFIX[film]}", frames, fps, sound, 8000)
    return root


def lay(films, root, folder="{film}"):
    "The films in a new folder; returns {film: path}"
    out = {}
    for film in PEOPLE:
        place = folder.format(film=film, who=PEOPLE[film], split=SUBSETS[film])
        out[film] = root / f"{place}.{SUFFIX[film]}"
        out[film].parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(films / out[film].name.replace(out[film].stem, film), out[film])
    return out


def trace(film, time=TIMES, lag=0.0, **more):
    "A table of labels over time"
    values = {d: truth(film, d, time - lag).round(4) for d in DIMS}
    return pd.DataFrame(dict(time=time, **values, **more))


def check(m, films, lag=0.0, dims=DIMS, atol=2e-4):
    "The label of each frame is the line between samples, at the frame's own time"
    assert m.level == "frame" and m.task == "regression" and m.targets == list(dims)
    assert len(m) == len(films) and not len(m.problems), m.problems.values.tolist()
    for r in m.clips.to_dict("records"):
        film = next(f for f, p in films.items() if p.samefile(m.root / (r["video"] or r["audio"])))
        at, fps = film_times(films[film])
        assert r["fps"] == pytest.approx(fps) and r["n_frames"] == len(at)
        want = [np.interp(at, TIMES - lag, truth(film, d, TIMES - lag).round(4)) for d in dims]
        want = np.stack(want, 1)
        want[(at > TIMES[-1] - lag) | (at < -lag - 1e-9)] = np.nan
        np.testing.assert_allclose(m.frames[r["clip"]], want, atol=atol)
    return m


def clock(t, sep="."):
    return [f"{int(s // 3600)}:{int(s // 60 % 60):02d}:{s % 60:06.3f}".replace(".", sep) for s in t]


def save(t, path, form):
    "A table in one of the forms that people write"
    path.parent.mkdir(parents=True, exist_ok=True)
    if form == "semicolons":
        path.write_text(t.to_csv(index=False, sep=";", decimal=","), encoding="utf-16")
    elif form == "tabs":
        path.with_suffix(".tsv").write_text(t.to_csv(index=False, sep="\t"))
    elif form == "parquet":
        t.to_parquet(path.with_suffix(".parquet"))
    elif form == "json lines":
        path.with_suffix(".jsonl").write_text(t.to_json(orient="records", lines=True))
    elif form == "milliseconds":
        ms = (t.pop("time") * 1000).round().astype(int)
        path.write_text(t.assign(**{"Time [ms]": ms}).to_csv(index=False))
    elif form == "clock":
        path.write_text(t.assign(time=clock(t.time)).rename(columns=str.title).to_csv(index=False))
    elif form == "clock with commas":
        path.write_text(t.assign(time=clock(t.time, ",")).to_csv(index=False, sep=";"))
    elif form == "unsorted":
        path.write_text(t.sample(frac=1, random_state=0).to_csv(index=False))
    else:
        path.write_text(t.rename(columns=dict(time="timestamp")).to_csv(index=False))


FORMS = ["commas", "semicolons", "tabs", "parquet", "json lines", "milliseconds", "clock"]
FORMS += ["clock with commas", "unsorted"]
PLACES = {  # where films lie: where their tables do
    "{film}": "{film}.csv",
    "{who}/{film}": "{who}/{film}.csv",
    "{split}/{film}": "annotations/{split}/{film}.csv",
    "films/{film}": "Annotations/{film}_labels.csv",
    "{film}/video": "{film}/annotations.csv",
    "video/x_{film}": "traces/x_{film}.csv",
}


CASES = [(p, f) for p in PLACES for f in FORMS if f == "commas" or p in ("{film}", "{film}/video")]


@pytest.mark.parametrize("place, form", CASES)
def test_a_table_for_each_film(place, form, films, tmp_path):
    there = lay(films, tmp_path, place)
    for film in PEOPLE:
        named = PLACES[place].format(film=film, who=PEOPLE[film], split=SUBSETS[film])
        save(trace(film), tmp_path / named, form)
    m = check(index(tmp_path), there)
    official = {r["official"] for r in m.clips.to_dict("records")}
    assert official == ({"train", "validation", "test"} if "{split}" in place else {""})
    assert (m.clips.speaker == "").all()  # what is called `anna` may be a session: it is not used
    if place == "{who}/{film}":
        told = index(tmp_path, layout="speaker").clips
        assert dict(zip(told["clip"], told.speaker)) == {f"{w}/{f}": w for f, w in PEOPLE.items()}


def test_one_long_table(films, tmp_path):
    there = lay(films, tmp_path, "films/{film}")
    rows = [
        trace(f, file=f"{f}.{SUFFIX[f].upper()}", subject=PEOPLE[f], set=SUBSETS[f]) for f in PEOPLE
    ]
    pd.concat(rows).sort_values("time").to_csv(tmp_path / "labels.csv", index=False)
    m = check(index(tmp_path), there)
    speakers = dict(zip(m.clips["clip"], m.clips.speaker))
    assert speakers == {f"films/{f}": p for f, p in PEOPLE.items()}
    assert apply_split(m).split["name"] == "official"
    assert "subject" in " ".join(m.notes["understood"])
    rows[0].loc[3, "set"] = "test"
    pd.concat(rows).to_csv(tmp_path / "labels.csv", index=False)
    with pytest.raises(AvkitError, match="has several set: test, train"):
        index(tmp_path)


@pytest.mark.parametrize("column", ["labels", "trace", "", "other name"])
def test_a_table_of_films_and_one_for_each(column, films, tmp_path):
    there = lay(films, tmp_path, "films/{film}")
    for film in PEOPLE:
        save(trace(film), tmp_path / f"moving/{film}.csv", "commas")
    t = pd.DataFrame(dict(file=[f"{f}.{SUFFIX[f]}" for f in PEOPLE], speaker=PEOPLE.values()))
    t["split"] = list(SUBSETS.values())
    if column in ("labels", "trace"):
        t[column] = [f"moving/{f}.csv" for f in PEOPLE]
    t.to_csv(tmp_path / ("who.csv" if column == "other name" else "labels.csv"), index=False)
    m = check(index(tmp_path), there)
    assert sorted(m.clips.speaker) == sorted(PEOPLE.values())
    assert apply_split(m).split["name"] == "official"


def test_clips_with_labels_that_stay_are_read_as_ever(films, tmp_path):
    lay(films, tmp_path)
    for film in PEOPLE:
        save(trace(film), tmp_path / f"{film}.csv", "commas")
    t = pd.DataFrame(dict(file=[f"{f}.{SUFFIX[f]}" for f in PEOPLE], label=["sad", "sad", "happy"]))
    t.to_csv(tmp_path / "labels.csv", index=False)
    m = index(tmp_path)
    assert m.level == "clip" and m.classes == ["happy", "sad"]
    with pytest.raises(AvkitError, match="lag, gap and raters are for labels over time"):
        index(tmp_path, lag="2.0")


def test_what_raters_of_clips_said_at_some_time_does_not_move(films, tmp_path):
    lay(films, tmp_path)
    rows = [dict(file=f"{f}.{SUFFIX[f]}", rater=r, time=9, valence=1) for f in PEOPLE for r in "ab"]
    pd.DataFrame(rows).to_csv(tmp_path / "labels.csv", index=False)
    assert index(tmp_path).level == "clip"


def by_columns(root, film, said):
    t = pd.DataFrame({f"{d}_{who}": y for (d, who), y in said.items()})
    save(t.assign(time=TIMES), root / f"{film}.csv", "commas")


def by_rows(root, film, said):
    parts = [
        pd.DataFrame({"time": TIMES, "annotator": w, **{d: said[d, w] for d in DIMS}})
        for w in WEIGHT
    ]
    save(pd.concat(parts), root / f"{film}.csv", "commas")


def by_files(root, film, said):
    for w in WEIGHT:
        t = pd.DataFrame(dict(time=TIMES, **{d: said[d, w] for d in DIMS}))
        save(t, root / f"{film}_{w}.csv", "commas")


def by_folders(root, film, said):
    for w in WEIGHT:
        t = pd.DataFrame(dict(time=TIMES, **{d: said[d, w] for d in DIMS}))
        save(t, root / f"annotations/{w}/{film}.csv", "commas")


def by_dimension(root, film, said):
    "A file for each thing that is rated, a column for each annotator, as RECOLA has it"
    for d in DIMS:
        t = pd.DataFrame({"time": TIMES, **{w: said[d, w] for w in WEIGHT}})
        save(t, root / f"ratings_individual/{d}/{film}.csv", "semicolons")


WEIGHT = dict(fm1=0.0, fm2=0.4, fm3=3.0)  # how noisy annotators are


@pytest.mark.parametrize("write", [by_columns, by_rows, by_files, by_folders, by_dimension])
def test_several_annotators(write, films, tmp_path):
    lay(films, tmp_path)
    rng = np.random.default_rng(0)
    noise = {f: {(d, w): s * rng.normal(size=len(TIMES)) for d in DIMS for w, s in WEIGHT.items()}
             for f in PEOPLE}  # fmt: skip
    said = {f: {k: (truth(f, k[0], TIMES) + n).round(4) for k, n in noise[f].items()}
            for f in PEOPLE}  # fmt: skip
    for film in PEOPLE:
        write(tmp_path, film, said[film])
    for raters in (None, "ewe"):
        m = index(tmp_path, raters=raters)
        at = {f: film_times(tmp_path / f"{f}.{SUFFIX[f]}")[0] for f in PEOPLE}
        order, clips = {d: m.targets.index(d) for d in DIMS}, m.clips.set_index("clip")
        for d in DIMS:
            x = {f: np.stack([np.interp(at[f], TIMES, said[f][d, w]) for w in WEIGHT]) for f in at}
            every = np.concatenate([*x.values()], 1)
            r = [np.corrcoef(row, every.mean(0))[0, 1] for row in every] if raters else [1, 1, 1]
            for f in PEOPLE:
                y = (np.array(r) @ x[f]) / sum(r)
                np.testing.assert_allclose(m.frames[f][:, order[d]], y, atol=1e-4)
                off = np.sqrt(((x[f] - y) ** 2).mean(0)).mean()
                assert clips[f"deviation_{d}"][f] == pytest.approx(off, abs=1e-4)
        told = " ".join(m.notes["understood"])
        assert "annotators of valence: 3" in told and "fm3" in told
        assert ("weighted by agreement" in told) == (raters == "ewe")


def test_an_annotator_who_missed_a_film(films, tmp_path):
    "The others' labels stand there; nobody is labelled by somebody else's absence"
    lay(films, tmp_path)
    for film in PEOPLE:
        save(trace(film), tmp_path / f"{film}_a.csv", "commas")
    save(trace("one"), tmp_path / "one_b.csv", "commas")
    for raters in ("mean", "ewe"):
        check(index(tmp_path, raters=raters), {f: tmp_path / f"{f}.{SUFFIX[f]}" for f in PEOPLE})


def test_a_lag_moves_labels_and_is_estimated(films, tmp_path):
    there = lay(films, tmp_path)
    for film in PEOPLE:
        save(trace(film, lag=0.0).assign(time=TIMES + 0.8), tmp_path / f"{film}.csv", "commas")
    check(index(tmp_path, lag="0.8"), there)
    late = index(tmp_path)
    assert all(np.isnan(late.frames[f][0]).all() for f in PEOPLE)  # nobody said anything yet
    before = {f: y.copy() for f, y in late.frames.items()}
    asked = index(tmp_path, lag="estimate")
    assert all(np.array_equal(asked.frames[f], before[f], equal_nan=True) for f in PEOPLE)
    assert "an estimate that is not applied" in " ".join(asked.notes["understood"])


def test_the_loudness_finds_a_planted_lag(tmp_path):
    rng = np.random.default_rng(3)
    for film in ("a", "b"):
        level = np.convolve(rng.normal(size=440), np.hanning(15), "same")[20:420]
        level = (level - level.min()) / np.ptp(level)
        sound = np.repeat(0.02 + 0.4 * level, 800) * rng.normal(size=320000)
        write_wav(tmp_path / f"{film}.wav", sound.astype(np.float32), 8000)
        time = np.arange(400) / 10 + 0.05
        t = pd.DataFrame(dict(time=time + 2.3, arousal=level))
        save(t, tmp_path / f"{film}.csv", "commas")
    told = " ".join(index(tmp_path, lag="estimate").notes["understood"])
    assert "arousal follows the loudness of the sound by 2." in told
    found = float(told.split("loudness of the sound by ")[1].split(" s")[0])
    assert abs(found - 2.3) <= 0.2


def test_gaps_are_not_bridged(films, tmp_path):
    there = lay(films, tmp_path)
    for film in PEOPLE:
        t = trace(film)
        t.loc[t.time.between(0.8, 2.6), list(DIMS)] = np.nan
        save(t, tmp_path / f"{film}.csv", "commas")
    m, wide = index(tmp_path), index(tmp_path, gap="3")
    assert "longer than 3 s" in " ".join(wide.notes["understood"])
    for film in PEOPLE:
        at, _ = film_times(there[film])
        hole = (at > 0.6 + 0.002) & (at < 2.7 - 0.002)
        assert hole.sum() > 10
        assert np.array_equal(np.isnan(m.frames[film]).all(1), hole)
        assert not np.isnan(wide.frames[film]).any()


def test_words_for_nothing_are_nothing(films, tmp_path):
    lay(films, tmp_path)
    for film in PEOPLE:
        text = trace(film).to_csv(index=False).split("\n")
        text[3] = f"{TIMES[2]},NaN,n/a"
        (tmp_path / f"{film}.csv").write_text("\n".join(text))
    m = index(tmp_path)
    assert not len(m.problems) and not any(np.isnan(y).any() for y in m.frames.values())


def test_scales_are_checked_and_noted(films, tmp_path):
    there = lay(films, tmp_path)
    for film in PEOPLE:
        save(trace(film), tmp_path / f"{film}.csv", "commas")
    m = check(index(tmp_path, scale="valence=1:9,arousal=1:9"), there)
    assert m.notes["scale"] == dict(valence=[1, 9], arousal=[1, 9])
    with pytest.raises(AvkitError, match=r"valence is .*, outside its scale 1 to 7 \(\d+ of"):
        index(tmp_path, scale="valence=1:7")
    with pytest.raises(AvkitError, match="'mood' is not learned; valence, arousal are"):
        index(tmp_path, scale="mood=1:7")


def test_the_label_chooses(films, tmp_path):
    there = lay(films, tmp_path)
    for film in PEOPLE:
        save(trace(film, mood=1.5), tmp_path / f"{film}.csv", "commas")
    check(index(tmp_path, label="arousal"), there, dims=["arousal"])
    m = index(tmp_path, label="mood:number")
    assert m.targets == ["mood"] and set(m.frames["one"].ravel()) == {np.float32(1.5)}


def test_classes_over_time(films, tmp_path):
    lay(films, tmp_path)
    for film in PEOPLE:
        t = pd.DataFrame(dict(time=[0.5, 1.0, 1.5, 2.0], emotion=["sad", "happy", "", "sad"]))
        save(t, tmp_path / f"{film}.csv", "commas")
    m = index(tmp_path)
    assert m.task == "class" and m.classes == ["happy", "sad"] and m.level == "frame"
    for film in PEOPLE:
        at, _ = film_times(tmp_path / f"{film}.{SUFFIX[film]}")
        want = np.select([at < 0.499, at < 0.999, at < 1.499, at < 1.999, at < 2.502],
                         [-1, 1, 0, -1, 1], -1)  # fmt: skip
        assert np.array_equal(m.frames[film], want)


WRONG = {
    "seconds that are milliseconds": (
        lambda t: t.assign(time=t.time * 1000), "lie outside the film.*Call the column time_ms"),
    "two rows for a time": (lambda t: pd.concat([t, t[:1]]), "lines 2 and 17: two rows for 0 s"),
    "no number": (lambda t: t.assign(valence="x"), "valence='x' is not a number"),
    "no time": (lambda t: t.assign(time=[""] + [1.0] * (len(t) - 1)), "timestamp is empty"),
    "nothing said": (lambda t: t.assign(valence="", arousal=""), "says nothing at any time"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_makes_no_sense_is_refused(what, films, tmp_path):
    lay(films, tmp_path)
    spoil, message = WRONG[what]
    for film in PEOPLE:
        save(spoil(trace(film)), tmp_path / f"{film}.csv", "commas")
    with pytest.raises(AvkitError, match=message):
        index(tmp_path)


def test_films_without_labels_are_told(films, tmp_path):
    lay(films, tmp_path)
    for film in ("one", "two"):
        save(trace(film), tmp_path / f"{film}.csv", "commas")
    (tmp_path / "three.txt").write_text("What was said in the film.\n")  # a transcript
    m = index(tmp_path)
    assert sorted(m.clips["clip"]) == ["one", "two"]
    told = ["three.mkv", "missing", "no labels over time for this film"]
    assert m.problems.values.tolist() == [told]


def test_other_tables_beside_films_are_not_labels(films, tmp_path):
    "OpenFace's and openSMILE's columns are features"
    lay(films, tmp_path, "{who}/{film}")
    for film, who in PEOPLE.items():
        t = pd.DataFrame(dict(frame=[1, 2], timestamp=[0.0, 0.1], confidence=1, AU01_r=0.1))
        t.to_csv(tmp_path / who / f"{film}.csv", index=False)
    assert index(tmp_path).level == "clip"


def test_sound_alone_is_labelled_on_a_grid(tmp_path):
    for k, film in enumerate(PEOPLE):
        write_wav(tmp_path / f"{film}.wav", np.full(8000 * SECONDS, k / 8, np.float32), 8000)
        save(trace(film), tmp_path / f"{film}.csv", "commas")
    m = check(index(tmp_path), {f: tmp_path / f"{f}.wav" for f in PEOPLE})
    assert set(m.clips.fps) == {25.0} and set(m.clips.n_frames) == {100}


@pytest.mark.parametrize("suffix", ["mp4", "avi", "mkv"])
def test_frames_of_labels_are_frames_of_the_store(suffix, films, tmp_path):
    "What is indexed without decoding has as many frames, at the same times, as what is prepared"
    film = next(f for f in PEOPLE if SUFFIX[f] == suffix)
    for f in PEOPLE:
        shutil.copy(films / f"{f}.{SUFFIX[f]}", tmp_path)
        save(trace(f), tmp_path / f"{f}.csv", "commas")
    m, store = index(tmp_path), Store(tmp_path / "store")
    from avkit.preprocessing.prepare import stream_key

    prep = Preparation(long=True, detector="none", rate=8000)
    prepare(m, prep, store, ["audio"], n_jobs=1)
    row = m.clips.set_index("clip", drop=False).loc[film].to_dict()
    track = Track(store, stream_key(row, "audio", prep, m.root))
    times, _ = film_times(tmp_path / f"{film}.{suffix}")
    np.testing.assert_allclose(track.frame_times, times)
    assert len(times) == len(m.frames[film])


def test_uneven_frames_have_the_label_of_their_time(tmp_path):
    from tests.preprocessing.test_tracks import variable_rate

    times = np.cumsum([0] + [40, 40, 200, 40, 80] * 6) / 1000
    variable_rate(tmp_path / "film.mkv", times)
    at, _ = film_times(tmp_path / "film.mkv")
    np.testing.assert_allclose(at, times, atol=1e-3)
    y = at_times(np.array([0, 2.0]), np.array([0, 2.0]), at, 9)
    np.testing.assert_allclose(y[at <= 2], times[at <= 2], atol=1e-3)
