"""One's own data as it lies on people's disks: understood as meant, or refused with a question.

Twenty-four clips of six people in two classes, laid out in the ways that people have, times tables
in the forms that they write, times names of subsets, times kinds of labels.
"""

import functools
import itertools
import json
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from avkit.core import AvkitError
from avkit.datasets.columns import MEANINGS, Question
from avkit.datasets.folder import index
from avkit.datasets.intervals import write_intervals
from avkit.datasets.splits import apply_split
from avkit.preprocessing.prepare import prepare, Preparation, stream_key
from avkit.preprocessing.writing import write_video, write_wav
from avkit.store import Store

pytest.importorskip("av")

PEOPLE = ["anna", "ben", "carla", "dan", "eva", "finn"]
CLASSES = ["happy", "sad"]
SUBSETS = dict(zip(PEOPLE, ["train"] * 3 + ["val", "test", "test"]))
CLIPS = [
    dict(
        speaker=p,
        label=c,
        take=str(t),
        split=SUBSETS[p],
        valence=round(0.1 * i + 0.05, 2),
        arousal=round(-0.1 * i, 2),
    )
    for i, (p, c, t) in enumerate(itertools.product(PEOPLE, CLASSES, (1, 2)))
]
OFFICIAL = dict(train="train", val="validation", test="test")


def lay(root, name_of):
    "A file for each clip, where `name_of` says; returns {file: clip}"
    out = {}
    for clip in CLIPS:
        name = name_of(clip)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
        out[name] = clip
    return out


def check(m, files, *what):
    "Each clip has the values that were meant"
    assert len(m) == len(files), m.problems.values.tolist()
    for r in m.clips.to_dict("records"):
        clip = files[r["video"] or r["audio"]]
        for k in what:
            want = OFFICIAL[clip["split"]] if k == "official" else clip[k]
            assert r[k] == want, (r["clip"], k, r[k], want)


# -- folders

LAYOUTS = {
    "class": ("{label}/{speaker}{take}.wav", ["label"]),
    "class/speaker": ("{label}/{speaker}/{take}.wav", ["label", "speaker"]),
    "speaker/class": ("{speaker}/{label}/{take}.wav", ["label", "speaker"]),
    "split/class": ("{split}/{label}/{speaker}{take}.wav", ["label", "official"]),
    "class/split": ("{label}/{split}/{speaker}{take}.wav", ["label", "official"]),
    "split/class/speaker": ("{split}/{label}/{speaker}/{take}.wav", None),
    "split/speaker/class": ("{split}/{speaker}/{label}/{take}.wav", None),
    "speaker/take/class": ("{speaker}/take{take}/{label}/x.wav", ["label", "speaker"]),
    "all/class": ("data/all/{label}/{speaker}{take}.wav", ["label"]),
    "number class": ("{label}/s{number}/{take}.wav", ["label"]),
}
SPELLINGS = {
    "plain": lambda s: s,
    "capitals": str.upper,
    "title": str.title,
    "numbered": lambda s: {"happy": "03_happy", "sad": "04-sad"}.get(s, s),
    "other words": lambda s: dict(
        happy="joy", sad="sorrow", train="Training", val="dev", test="testing"
    ).get(s, s),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_folders_are_understood_as_meant(layout, spelling, tmp_path):
    pattern, what = LAYOUTS[layout]
    spell = SPELLINGS[spelling]

    def name_of(clip):
        shown = {k: spell(str(v)) for k, v in clip.items()}
        return pattern.format(**shown, number=PEOPLE.index(clip["speaker"]) + 1)

    files = lay(tmp_path, name_of)
    what = ["label", "speaker", "official"] if what is None else what
    meant = {f: c | {k: spell(c[k]) for k in ("label", "speaker")} for f, c in files.items()}
    m = index(tmp_path)
    check(m, meant, *what)
    assert not len(m.problems) and len(m.classes) == 2
    if "official" in what:
        assert apply_split(m).split["name"] == "official"


@pytest.mark.parametrize("first, second", [("speaker", "label"), ("label", "speaker")])
def test_folders_that_could_be_read_two_ways_are_asked_about(first, second, tmp_path):
    plain = dict(happy="yes", sad="no")
    files = lay(
        tmp_path,
        lambda c: "{0}/{1}/{take}.wav".format(
            plain.get(c[first], c[first]), plain.get(c[second], c[second]), take=c["take"]
        ),
    )
    with pytest.raises(Question) as e:
        index(tmp_path)
    assert "--layout speaker/class" in str(e.value) and "--layout class/speaker" in str(e.value)
    layout = f"{first}/{second}".replace("label", "class")
    m = index(tmp_path, layout=layout)
    check(m, {f: c | dict(label=plain[c["label"]]) for f, c in files.items()}, "label", "speaker")


def test_folders_that_tell_no_label_are_asked_about(tmp_path):
    lay(
        tmp_path / "people",
        lambda c: "p{0}/{1}_{2}.wav".format(PEOPLE.index(c["speaker"]), c["label"], c["take"]),
    )
    with pytest.raises(Question, match=r"tell no label.*--pattern '\{label\}_"):
        index(tmp_path / "people")
    lay(tmp_path / "flat", lambda c: "{speaker}_{label}_{take}.wav".format(**c))
    with pytest.raises(Question, match=r"--pattern '\{speaker\}_\{label\}"):
        index(tmp_path / "flat")


@pytest.mark.parametrize(
    "name, pattern",
    [
        ("{speaker}_{label}_{take}.wav", "{speaker}_{label}_{take}"),
        ("{label}-{speaker}-{take}.wav", "{label}-{speaker}-{take}"),
        ("sub/{speaker}.{label}.{take}.wav", "{speaker}.{label}.{take}"),
        ("{speaker}/{label}_{take}.wav", "{speaker}/{label}_{take}"),
    ],
)
def test_names_are_read_by_a_pattern(name, pattern, tmp_path):
    files = lay(tmp_path, lambda c: name.format(**c))
    check(index(tmp_path, pattern=pattern), files, "label", "speaker")


def test_a_name_that_does_not_fit_is_told(tmp_path):
    lay(tmp_path, lambda c: "{speaker}_{label}_{take}.wav".format(**c))
    (tmp_path / "odd.wav").write_bytes(b"odd")
    m = index(tmp_path, pattern="{speaker}_{label}_{take}")
    assert len(m) == 24 and m.problems.values.tolist() == [
        ["odd.wav", "unexpected", "not named like the pattern, like the others"]
    ]


@pytest.mark.parametrize(
    "name, said",
    [
        ("speech/03-01-05-01-02-01-{0:02d}.wav", "RAVDESS.*--dataset ravdess"),
        ("x/10{0:02d}_DFA_ANG_XX.wav", "CREMA-D.*--dataset crema_d"),
        ("wav/{0:02d}a01Fa.wav", "EmoDB.*--pattern"),
        ("y/OAF_w{0}_happy.wav", "TESS.*--pattern"),
    ],
)
def test_a_published_corpus_under_another_name_is_recognised(name, said, tmp_path):
    for i in range(6):
        (tmp_path / name.format(i)).parent.mkdir(exist_ok=True)
        (tmp_path / name.format(i)).write_bytes(b"%d" % i)
    with pytest.raises(Question, match=said):
        index(tmp_path)


def test_emodb_is_read_with_the_pattern_that_the_question_names(tmp_path):
    for speaker, code in itertools.product(("03", "08"), "WF"):
        (tmp_path / f"{speaker}a01{code}a.wav").write_bytes((speaker + code).encode())
    m = index(tmp_path, pattern="{speaker:2}{text:3}{label:1}{take}")
    assert m.classes == ["anger", "happiness"] and sorted(set(m.clips.speaker)) == ["03", "08"]


# -- tables

FORMS = {
    "comma": (".csv", lambda t: t.to_csv(index=False).encode()),
    "semicolon": (".csv", lambda t: t.to_csv(index=False, sep=";").encode()),
    "decimal comma": (".csv", lambda t: t.to_csv(index=False, sep=";", decimal=",").encode()),
    "tab": (".tsv", lambda t: t.to_csv(index=False, sep="\t").encode()),
    "bom": (".csv", lambda t: t.to_csv(index=False).encode("utf-8-sig")),
    "utf-16": (".csv", lambda t: t.to_csv(index=False, sep="\t").encode("utf-16")),
    "cp1252": (".csv", lambda t: t.to_csv(index=False, sep=";").encode("cp1252")),
    "excel": (".csv", lambda t: b"sep=;\r\n" + t.to_csv(index=False, sep=";").encode()),
    "json lines": (".jsonl", lambda t: t.to_json(orient="records", lines=True).encode()),
    "json": (".json", lambda t: t.to_json(orient="records").encode()),
    "parquet": (".parquet", lambda t: t.to_parquet(index=False)),
    "quotes": (".csv", lambda t: t.to_csv(index=False, quoting=1).encode()),
}
NAMED = {  # how people write the names of files
    "as it is": lambda f: f,
    "backslashes": lambda f: f.replace("/", "\\"),
    "no suffix": lambda f: f.rsplit(".", 1)[0],
    "./": lambda f: f"./{f}",
    "capitals": str.upper,
    "another disk": lambda f: f"C:\\Users\\me\\{f}".replace("/", "\\"),
    "home": lambda f: f"/mnt/disk/data/{f}",
    "no folder": lambda f: f.rsplit("/", 1)[-1],
}
HEADS = [
    dict(file="file", label="label", speaker="speaker", split="split"),
    dict(file="file_name", label="emotion", speaker="subject", split="set"),
    dict(file="Path", label="Emotion", speaker="Participant ID", split="Partition"),
    dict(file="filename", label="class", speaker="actor", split="subset"),
    dict(file="clip path", label="category", speaker="person", split="usage"),
]


def write(root, files, form, rename=lambda f: f, **head):
    "A table of clips, with the columns of `head`: {meaning: name}"
    rows = [dict(clip, file=rename(f)) for f, clip in files.items()]
    t = pd.DataFrame([{name: r[k] for k, name in head.items()} for r in rows])
    suffix, as_bytes = FORMS[form]
    (root / f"labels{suffix}").write_bytes(as_bytes(t))


def clips_below(root):
    return lay(root, lambda c: "clips/{speaker}_{label}_{take}.wav".format(**c))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("head", HEADS, ids=lambda h: h["file"])
def test_tables_are_understood_as_meant(form, head, tmp_path):
    files = clips_below(tmp_path)
    write(tmp_path, files, form, **head)
    m = index(tmp_path)
    check(m, files, "label", "speaker", "official")
    assert not len(m.problems) and apply_split(m).split["name"] == "official"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("how", NAMED)
def test_files_are_found_however_they_are_named(how, form, tmp_path):
    files = clips_below(tmp_path)
    write(tmp_path, files, form, NAMED[how], **HEADS[0])
    m = index(tmp_path)
    check(m, files, "label", "speaker", "official")
    assert not len(m.problems)


def test_absolute_paths_are_read(tmp_path):
    files = clips_below(tmp_path)
    write(tmp_path, files, "comma", lambda f: str(tmp_path / f), **HEADS[0])
    m = index(tmp_path)
    check(m, files, "label")
    assert not len(m.problems) and not m.clips.audio.str.startswith("/").any()


@pytest.mark.parametrize("form", FORMS)
def test_numbers_are_learned_where_no_label_is_there(form, tmp_path):
    files = clips_below(tmp_path)
    write(
        tmp_path, files, form, file="file", speaker="subject", valence="Valence", arousal="arousal"
    )
    m = index(tmp_path)
    assert m.targets == ["Valence", "arousal"]
    said = "decimal commas in Valence, arousal" in " ".join(m.notes["understood"])
    assert said == (form == "decimal comma")
    for r in m.clips.to_dict("records"):
        assert (r["Valence"], r["arousal"]) == tuple(
            files[r["audio"]][k] for k in ("valence", "arousal")
        )


def test_label_beside_numbers(tmp_path):
    files = clips_below(tmp_path)
    write(
        tmp_path, files, "comma", file="file", label="label", valence="valence", arousal="arousal"
    )
    m = index(tmp_path)
    assert m.classes == CLASSES
    assert "--label valence,arousal" in " ".join(m.notes["understood"])
    assert index(tmp_path, label="valence,arousal").targets == ["valence", "arousal"]
    assert index(tmp_path, label="valence").targets == ["valence"]


def test_numbers_that_nobody_rates_are_asked_about(tmp_path):
    files = clips_below(tmp_path)
    write(
        tmp_path, files, "comma", file="file", speaker="speaker", valence="age", arousal="take no"
    )
    with pytest.raises(Question, match="--label age:number"):
        index(tmp_path)
    assert index(tmp_path, label="age:number").targets == ["age"]


@pytest.mark.parametrize(
    "meaning, name", [(m, n) for m in ("label", "speaker", "split") for n in MEANINGS[m].split()]
)
def test_every_declared_name_is_used_and_said(meaning, name, tmp_path):
    files = clips_below(tmp_path)
    head = dict(file="file", label="label", speaker="speaker", split="split") | {meaning: name}
    write(tmp_path, files, "comma", **head)
    m = index(tmp_path)
    check(m, files, "label", "speaker", "official")
    assert f"{meaning}={name}" in " ".join(m.notes["understood"])


@pytest.mark.parametrize(
    "meaning, name", [("label", "lable"), ("speaker", "speeker"), ("split", "splitt")]
)
def test_a_near_miss_is_asked_about(meaning, name, tmp_path):
    files = clips_below(tmp_path)
    head = dict(file="file", label="label", speaker="speaker", split="split") | {meaning: name}
    write(tmp_path, files, "comma", **head)
    with pytest.raises(Question, match=f"--map {meaning}={name}"):
        index(tmp_path)
    check(
        index(tmp_path, map=f"{meaning}={name}"),
        files,
        meaning if meaning != "split" else "official",
    )


def test_columns_of_ones_own_names_by_map_and_columns_not_used_are_said(tmp_path):
    files = clips_below(tmp_path)
    write(tmp_path, files, "comma", file="file", label="gefuehl", speaker="wer", take="raum")
    m = index(tmp_path, map="label=gefuehl,speaker=wer")
    check(m, files, "label", "speaker")
    assert "columns not used: raum" in m.notes["understood"]


def test_two_labels_for_one_file(tmp_path):
    files = clips_below(tmp_path)
    rows = [f"{f},{c['label']}" for f, c in files.items()]
    first = next(iter(files))
    (tmp_path / "labels.csv").write_text("\n".join(["file,label", *rows, f"{first},sad"]))
    with pytest.raises(
        Question, match=r"line 2, and labels.csv, line 26: .*'happy' and 'sad'.*--votes majority"
    ):
        index(tmp_path)


def test_subsets_of_other_names_are_asked_about(tmp_path):
    files = clips_below(tmp_path)
    odd = {
        f: c | dict(split=dict(train="A", val="B", test="C")[c["split"]]) for f, c in files.items()
    }
    write(tmp_path, odd, "comma", **HEADS[1])
    with pytest.raises(Question, match="names the subsets A, B, C"):
        index(tmp_path)
    assert index(tmp_path, map="ignore=set").notes.get("default_split") is None


def test_folds_of_ones_own(tmp_path):
    files = clips_below(tmp_path)
    numbered = {f: c | dict(fold=PEOPLE.index(c["speaker"]) // 2) for f, c in files.items()}
    write(tmp_path, numbered, "comma", file="file", label="label", speaker="speaker", fold="fold")
    m = index(tmp_path)
    s = apply_split(m, fold=1)
    assert s.split["name"] == "folds"
    by = {k: set(g["fold"]) for k, g in s.clips.groupby("split")}
    assert by == dict(test={"1"}, validation={"2"}, train={"0"})
    write(tmp_path, files, "comma", file="file", label="label", split="fold")
    check(index(tmp_path), files, "label", "official")


@pytest.mark.parametrize("form", [".csv", ".jsonl", ".parquet"])
def test_metadata_as_on_the_hugging_face_hub(form, tmp_path):
    files = lay(tmp_path, lambda c: "{split}/{speaker}_{label}_{take}.wav".format(**c))
    for split in ("train", "val", "test"):
        mine = [
            dict(file_name=f.split("/")[1], label=c["label"])
            for f, c in files.items()
            if c["split"] == split
        ]
        t, path = pd.DataFrame(mine), tmp_path / split / f"metadata{form}"
        if form == ".csv":
            t.to_csv(path, index=False)
        elif form == ".jsonl":
            path.write_text("\n".join(map(json.dumps, mine)))
        else:
            t.to_parquet(path)
    m = index(tmp_path)
    check(m, files, "label", "official")
    assert not len(m.problems)


def test_a_table_for_each_subset(tmp_path):
    files = clips_below(tmp_path)
    for split in ("train", "val", "test"):
        rows = [f"{f},{c['label']}" for f, c in files.items() if c["split"] == split]
        (tmp_path / f"{split}.csv").write_text("\n".join(["file,label", *rows]))
    check(index(tmp_path), files, "label", "official")


def test_train_and_test_alone_leave_a_validation_set_of_training_speakers(tmp_path):
    files = lay(
        tmp_path,
        lambda c: "{0}/{label}/{speaker}_{take}.wav".format(
            "test" if c["split"] == "test" else "train", **c
        ),
    )
    m = apply_split(index(tmp_path))
    assert set(m.clips.split) == {"train", "validation", "test"}
    assert all(
        (c["split"] == "test") == (s == "test")
        for c, s in zip((files[a] for a in m.clips.audio), m.clips.split)
    )
    assert "no validation subset is named" in " ".join(m.notes["understood"])


def test_two_tables_are_asked_about(tmp_path):
    files = clips_below(tmp_path)
    write(tmp_path, files, "comma", **HEADS[0])
    write(tmp_path, files, "json lines", **HEADS[0])
    with pytest.raises(Question, match="--annotations labels.csv or --annotations labels.jsonl"):
        index(tmp_path)


def test_a_scale_that_numbers_leave(tmp_path):
    files = clips_below(tmp_path)
    write(tmp_path, files, "comma", file="file", valence="valence")
    assert len(index(tmp_path, scale="valence=-1:3")) == 24
    with pytest.raises(AvkitError, match="outside its scale 0 to 1"):
        index(tmp_path, scale="valence=0:1")


def test_streams_in_two_folders_are_one_clip(tmp_path):
    for c in CLIPS:
        for kind, suffix in (("audio", "wav"), ("video", "mp4")):
            p = tmp_path / "{0}/{label}/{speaker}_{take}.{1}".format(kind, suffix, **c)
            p.parent.mkdir(parents=True, exist_ok=True)
            p.write_bytes(str(p).encode())
    m = index(tmp_path)
    assert len(m) == 24 and m.classes == CLASSES
    assert all(
        a.startswith("audio/") and v.startswith("video/")
        for a, v in m.clips[["audio", "video"]].values
    )


def test_frames_in_folders_and_single_pictures(tmp_path):
    for c in CLIPS:
        for i in range(3):
            p = tmp_path / "frames/{label}/{speaker}_{take}/{0:04d}.jpg".format(i, **c)
            p.parent.mkdir(parents=True, exist_ok=True)
            p.write_bytes(str(p).encode())
        wav = tmp_path / "frames/{label}/{speaker}_{take}.wav".format(**c)
        wav.write_bytes(str(wav).encode())
        single = tmp_path / "single/{label}/{0:03d}.png".format(CLIPS.index(c), **c)
        single.parent.mkdir(parents=True, exist_ok=True)
        single.write_bytes(str(single).encode())
    m = index(tmp_path / "frames")
    assert len(m) == 24 and (m.clips.audio != "").all() and m.classes == CLASSES
    m = index(tmp_path / "single")
    assert len(m) == 24 and m.classes == CLASSES and m.clips.video.str.endswith(".png").all()


# -- what once was read as something else


@pytest.mark.parametrize("words", [("fröhlich", "müde"), ("gaîté", "colère"), ("alegría", "enojo")])
@pytest.mark.parametrize("page", ["cp1252", "latin-1", "utf-8", "utf-16"])
def test_accents_of_western_languages_are_never_chinese(words, page, tmp_path):
    named = dict(zip(CLASSES, words))
    files = lay(tmp_path, lambda c: "{0}/übung_{speaker}_{take}.wav".format(c["label"], **c))
    rows = [f"{f};{named[c['label']]};{c['speaker']}" for f, c in files.items()]
    (tmp_path / "labels.csv").write_bytes("\n".join(["file;label;speaker", *rows]).encode(page))
    meant = {f: c | dict(label=named[c["label"]]) for f, c in files.items()}
    check(index(tmp_path), meant, "label", "speaker")


def test_a_quote_that_nobody_closed_is_told(tmp_path):
    rows = [f"{f},{c['label']}" for f, c in clips_below(tmp_path).items()]
    rows[4] = rows[4].replace(",", ',"')
    (tmp_path / "labels.csv").write_text("\n".join(["file,label", *rows]))
    with pytest.raises(AvkitError, match=r"labels.csv, line 6: a quote .* never closed"):
        index(tmp_path)
    (tmp_path / "labels.csv").write_text("\n".join(["file,label", *rows, "x" * 200_000]))
    with pytest.raises(AvkitError, match="labels.csv: line 6: field larger than"):
        index(tmp_path)


def test_a_column_called_line_is_one_like_any_other(tmp_path):
    files = clips_below(tmp_path)
    write(tmp_path, files, "comma", file="file", label="label", speaker="speaker", take="line")
    m = index(tmp_path)
    check(m, files, "label", "speaker")
    assert "columns not used: line_" in m.notes["understood"]


def test_cells_of_parquet_without_a_value_are_empty(tmp_path):
    files = clips_below(tmp_path)
    t = pd.DataFrame(
        dict(
            file=list(files),
            label=[c["label"] for c in files.values()],
            fold=pd.array([None, *range(1, 24)], dtype="Int64"),
            weight=[float("inf"), *[1.0] * 23],
        )
    )
    t.to_parquet(tmp_path / "labels.parquet")
    m = index(tmp_path)
    check(m, files, "label")
    assert "<NA>" not in m.clips.astype(str).values


def test_a_stray_file_beside_folders_of_streams_is_told(tmp_path):
    for c, (kind, suffix) in itertools.product(CLIPS, (("audio", "wav"), ("video", "mp4"))):
        p = tmp_path / "{label}/{0}/{speaker}_{take}.{1}".format(kind, suffix, **c)
        p.parent.mkdir(parents=True, exist_ok=True)
        p.write_bytes(str(p).encode())
    (tmp_path / "stray.wav").write_bytes(b"stray")
    m = index(tmp_path)
    assert len(m) == 24 and m.classes == CLASSES
    assert m.problems.file.tolist() == ["stray.wav"]


def test_a_level_that_is_neither_class_nor_speaker_is_asked_about_with_an_answer(tmp_path):
    pets = dict(zip(PEOPLE, ["dog", "cat", "cow", "owl", "bee", "ant"]))
    files = lay(
        tmp_path,
        lambda c: "{label}/p{0}/{1}/{take}.wav".format(
            PEOPLE.index(c["speaker"]), pets[c["speaker"]], **c
        ),
    )
    with pytest.raises(Question, match="--layout class/speaker/-"):
        index(tmp_path)
    check(index(tmp_path, layout="class/speaker/-"), files, "label")


@pytest.mark.parametrize("name", ["take", "room", "notes", "age"])
def test_columns_of_other_things_are_not_asked_about(name, tmp_path):
    files = clips_below(tmp_path)
    write(tmp_path, files, "comma", file="file", label="label", take=name)
    check(index(tmp_path), files, "label")


def test_a_column_to_ignore_that_is_not_there_is_told(tmp_path):
    files = clips_below(tmp_path)
    write(tmp_path, files, "comma", file="file", label="label", speaker="who", split="set")
    with pytest.raises(AvkitError, match="did you mean 'set'"):
        index(tmp_path, map="ignore=sett")
    assert index(tmp_path, map="ignore=SET").notes.get("default_split") is None


# -- pieces, raters, annotation tools, databases


@functools.cache
def film_bytes(first, seconds):
    "An MP4 of a grey that rises with time, and a tone"
    grey = np.linspace(first, 220, seconds * 10).astype(np.uint8)
    frames = np.broadcast_to(grey[:, None, None, None], (len(grey), 48, 64, 3)).copy()
    tone = np.sin(np.arange(seconds * 8000) / 9).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        return write_video(Path(folder) / "film.mp4", frames, 10, tone, 8000).read_bytes()


def film(path, seconds=6):
    "A film, of which each name has one of its own"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(film_bytes(20 + sum(path.name.encode()) % 7, seconds))
    return path


@pytest.mark.parametrize("form", ["{0:g}", "0:00:0{0:.3f}", "0:0{0:.1f}"])
@pytest.mark.parametrize(
    "start, end", [("start", "end"), ("onset", "offset"), ("begin_time", "End Time")]
)
def test_each_row_is_a_piece_of_its_film(start, end, form, tmp_path):
    rows = [f"file,{start},{end},label,subject"]
    for n, name in enumerate(("a.mp4", "b.mp4", "c.mp4")):
        film(tmp_path / name)
        rows += [
            f"{name},{form.format(t)},{form.format(t + 2)},{CLASSES[t // 2 % 2]},p{n}"
            for t in (0, 2, 4)
        ]
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    m = index(tmp_path)
    assert len(m) == 9 and sorted(set(m.clips.recording)) == ["a", "b", "c"]
    assert m.clips[["start", "end"]].drop_duplicates().values.tolist() == [[0, 2], [2, 4], [4, 6]]
    split = apply_split(m, "kfold3")
    assert (split.clips.groupby("recording").split.nunique() == 1).all()


def test_pieces_are_seen_and_heard_where_they_are(tmp_path):
    film(tmp_path / "a.mp4")
    film(tmp_path / "b.mp4", 7)
    (tmp_path / "labels.csv").write_text(
        "file,start,end,label\na.mp4,0,2,x\na.mp4,4,6,y\nb.mp4,0,2,x\nb.mp4,4,6,y\n"
    )
    prep = Preparation(window=2.0, rate=8000, frames=4, size=32, views=("frame",), detector="none")
    store = Store(tmp_path / "store")
    m = index(tmp_path)
    assert (prepare(m, prep, store, n_jobs=1).rows.status == "done").all()
    keys = [stream_key(r, "video", prep) for r in m.clips.to_dict("records")]
    grey = [store.get(k)[0]["frame"].float().mean() for k in keys]
    assert grey[0] < grey[1] - 80 and grey[2] < grey[3] - 60


def test_pieces_that_overlap_and_end_before_they_start(tmp_path):
    film(tmp_path / "a.mp4")
    film(tmp_path / "b.mp4")
    head = "file,start,end,label\n"
    (tmp_path / "labels.csv").write_text(f"{head}a.mp4,0,3,x\na.mp4,2,4,y\nb.mp4,0,1,x\n")
    assert "overlap" in " ".join(index(tmp_path).problems.problem)
    (tmp_path / "labels.csv").write_text(f"{head}a.mp4,3,2,x\nb.mp4,0,1,y\n")
    with pytest.raises(AvkitError, match="line 2: the end, 2, is not after the start"):
        index(tmp_path)


@pytest.mark.parametrize("rater", ["rater", "Annotator", "worker_id"])
def test_several_raters_a_clip(rater, tmp_path):
    files = clips_below(tmp_path)
    other = dict(happy="sad", sad="happy")
    rows = [f"file,{rater},label,speaker"]
    for i, (f, c) in enumerate(files.items()):
        said = [c["label"], c["label"], other[c["label"]] if i % 3 == 0 else c["label"]]
        rows += [f"{f},r{k},{x},{c['speaker']}" for k, x in enumerate(said)]
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    m = index(tmp_path)
    check(m, files, "label", "speaker")
    assert m.notes["votes"] == "majority" and "alpha" in m.notes["agreement"]
    shares = index(tmp_path, votes="distribution").clips[["share_happy", "share_sad"]]
    assert np.allclose(shares.sum(axis=1), 1) and shares.min().min() == 0
    assert shares.round(2).isin([0, 0.33, 0.67, 1]).all().all()


def test_a_vote_settles_rows_that_contradict_each_other(tmp_path):
    files = clips_below(tmp_path)
    rows = [f"{f},{c['label']}" for f, c in files.items()]
    first = next(iter(files))
    (tmp_path / "labels.csv").write_text("\n".join(["file,label", *rows, *[f"{first},sad"] * 2]))
    m = index(tmp_path, votes="majority")
    assert m.clips.set_index("audio").label[first] == "sad" and len(m) == 24


def test_numbers_of_several_raters_are_averaged(tmp_path):
    files = clips_below(tmp_path)
    rows = ["file,annotator,valence"]
    rows += [f"{f},r{k},{c['valence'] + k / 10}" for f, c in files.items() for k in (-1, 1)]
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    m = index(tmp_path)
    got = {r["audio"]: r["valence"] for r in m.clips.to_dict("records")}
    assert got == pytest.approx({f: c["valence"] for f, c in files.items()})


@pytest.mark.parametrize("suffix", [".eaf", ".TextGrid", ".vtt", ".srt", ".txt"])
def test_labels_from_when_to_when_beside_a_film(suffix, tmp_path):
    said = pd.DataFrame(
        dict(start=[0.0, 2.5], end=[2.0, 4.0], label=CLASSES, tier="emotion", line=0)
    )
    for name in ("a", "b", "c"):
        film(tmp_path / f"clips/{name}.mp4", 5)
        write_intervals(tmp_path / f"clips/{name}{suffix}", said)
    m = index(tmp_path)
    assert len(m) == 6 and m.clips.label.tolist() == CLASSES * 3
    assert m.clips[["start", "end"]].values[:2].tolist() == [[0, 2], [2.5, 4]]


def test_subtitles_beside_films_in_folders_of_classes_are_no_labels(tmp_path):
    files = lay(tmp_path, lambda c: "{label}/{speaker}_{take}.mp4".format(**c))
    for f in files:
        (tmp_path / f).with_suffix(".srt").write_text("1\n00:00:00,0 --> 00:00:01,0\nHello\n")
    m = index(tmp_path)
    check(m, files, "label")
    assert "24 files with intervals beside the clips are not read" in " ".join(
        m.notes["understood"]
    )


def test_folders_or_intervals_is_asked(tmp_path):
    files = lay(tmp_path, lambda c: "{speaker}/{label}_{take}.mp4".format(**c))
    for f in files:
        (tmp_path / f).with_suffix(".txt").write_text("0.0\t1.0\thappy\n1.5\t2.0\tsad\n")
    with pytest.raises(Question, match="--layout class, or --tier any"):
        index(tmp_path)
    m = index(tmp_path, tier="any")
    assert len(m) == 48 and m.classes == CLASSES


def test_an_audformat_database(tmp_path):
    audformat = pytest.importorskip("audformat")
    files = lay(tmp_path, lambda c: "audio/{speaker}_{label}_{take}.wav".format(**c))
    db = audformat.Database("mine")
    db.schemes["emotion"] = audformat.Scheme(labels=CLASSES)
    people = {p: dict(gender="female") for p in PEOPLE}
    db.schemes["speaker"] = audformat.Scheme(labels=people)
    types = dict(train="train", val="dev", test="test")
    for split, kind in types.items():
        mine = [f for f, c in files.items() if c["split"] == split]
        db.splits[kind] = audformat.Split(type=kind)
        t = db[f"emotion.{kind}"] = audformat.Table(audformat.filewise_index(mine), split_id=kind)
        for name, key in (("emotion", "label"), ("speaker", "speaker")):
            t[name] = audformat.Column(scheme_id=name)
            t[name].set([files[f][key] for f in mine])
    db.save(tmp_path)
    m = index(tmp_path)
    check(m, files, "label", "speaker", "official")
    assert set(m.clips.sex) == {"female"}
    for p in tmp_path.glob("db.*.parquet"):
        p.rename(p.with_suffix(".pkl"))
    with pytest.raises(AvkitError, match="can run code"):
        index(tmp_path)


@pytest.mark.parametrize("names", [("cremad", "ravdess"), ("a", "b")])
def test_a_folder_of_two_published_corpora_is_recognised(names, tmp_path):
    for i in range(6):
        for folder, name in zip(
            names, (f"10{i:02d}_DFA_ANG_XX.wav", f"03-01-05-01-02-01-{i:02d}.wav")
        ):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / name).write_bytes(name.encode())
    with pytest.raises(Question, match="RAVDESS.*CREMA-D"):
        index(tmp_path)


# -- audio in a file of its own


def spoken(path, late, seed):
    "A film with noise as its audio, and the same noise `late` seconds later in a file beside it"
    rng = np.random.default_rng(seed)
    sound = (rng.normal(size=4 * 16000) * 0.1).astype(np.float32)
    frames = np.full((40, 48, 64, 3), 90, np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, frames, 10, sound, 16000)
    mic = path.with_suffix(".wav")
    write_wav(mic, np.concatenate([np.zeros(round(late * 16000)), sound]), 16000)
    return path.name, mic.name


@pytest.mark.parametrize("late, said", [(0.48, "+0.48 s later"), (0.0, "fit")])
def test_the_cameras_own_sound_tells_the_offset(late, said, tmp_path):
    rows = ["video,audio,label"]
    for i in range(4):
        rows.append(",".join([*spoken(tmp_path / f"{i}.mp4", late, i), CLASSES[i % 2]]))
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    told = " ".join(index(tmp_path).notes["understood"])
    assert said in told
    if late:
        rows = [rows[0] + ",offset", *(f"{r},{late}" for r in rows[1:])]
        (tmp_path / "labels.csv").write_text("\n".join(rows))
        m = index(tmp_path)
        assert "fit" in " ".join(m.notes["understood"]) and set(m.clips.offset) == {late}


def test_a_microphone_for_each_speaker_of_a_film(tmp_path):
    rows = ["file,audio,label,speaker"]
    for i in range(2):
        film(tmp_path / f"{i}.mp4")
        for k, name in enumerate(("anna", "ben")):
            (tmp_path / f"{name}{i}.wav").write_bytes(f"{name}{i}".encode())
            rows.append(f"{i}.mp4,{name}{i}.wav,{CLASSES[k]},{name}{i}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    m = index(tmp_path)
    assert sorted(m.clips["clip"]) == ["0+anna0", "0+ben0", "1+anna1", "1+ben1"]
    assert m.clips.audio.tolist() == ["anna0.wav", "ben0.wav", "anna1.wav", "ben1.wav"]


@pytest.mark.parametrize(
    "names, pattern, classes",
    [
        (
            [f"10{p:02d}_DFA_{e}_XX.flv" for p in (1, 2) for e in ("ANG", "HAP")],
            "{speaker}_{text}_{label}_{strength}",
            ["anger", "happy"],
        ),
        (
            [f"03-01-{e}-01-01-01-{p:02d}.wav" for p in (1, 2) for e in ("03", "04")],
            "{form}-{voice}-{label}-{strength}-{text}-{take}-{speaker}",
            ["happy", "sad"],
        ),
    ],
)
def test_a_published_corpus_as_it_lies_is_read_with_the_pattern_that_is_offered(
    names, pattern, classes, tmp_path
):
    for n in names:
        (tmp_path / n).write_bytes(n.encode())
    with pytest.raises(Question) as e:
        index(tmp_path)
    assert f"--pattern '{pattern}'" in str(e.value)
    m = index(tmp_path, pattern=pattern)
    assert m.classes == classes and m.clips.speaker.nunique() == 2


# -- tables that nobody would find


def test_a_table_whose_cells_name_files_is_asked_about(tmp_path):
    files = clips_below(tmp_path)
    rows = [f"{f},{c['label']},{c['speaker']}" for f, c in files.items()]
    (tmp_path / "study.csv").write_text("\n".join(["reiz,urteil,person", *rows]))
    with pytest.raises(Question, match=r"study.csv \(24 rows.*--map file=reiz"):
        index(tmp_path)
    check(index(tmp_path, map="file:reiz,label:urteil"), files, "label", "speaker")
    check(index(tmp_path, map="file=reiz", label="urteil"), files, "label", "speaker")


def test_options_about_a_table_where_none_is_read_are_refused(tmp_path):
    lay(tmp_path, lambda c: "{label}/{speaker}_{take}.wav".format(**c))
    for options in (dict(map="speaker=foo"), dict(label="bar"), dict(votes="majority")):
        with pytest.raises(AvkitError, match="are about a table, and none is read"):
            index(tmp_path, **options)
    (tmp_path / "people.csv").write_text("speaker,age\nanna,30\n")
    m = index(tmp_path)
    assert "tables not read: people.csv" in " ".join(m.notes["understood"])
