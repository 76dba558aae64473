"Folders that others filled: links, suffixes, names, copies, replaced files, odd tables."

import os
import socket
import shutil
import unicodedata
from dataclasses import replace

import numpy as np
import pytest

from avkit.core import AvkitError, file_hash
from avkit.datasets import affwild2, crema_d, folder, manifest, msp_improv, ravdess, vgaf
from avkit.datasets.manifest import common_streams, describe, hash_files, speaker_key
from avkit.datasets.splits import apply_split, LeakError
from avkit.files import MEDIA_SUFFIXES, walk
from avkit.preprocessing.writing import write_video, write_wav
from avkit.training.configure import configure
from avkit.training.loading import load_data

pytest.importorskip("av")
NFC, NFD = "caf\u00e9", unicodedata.normalize("NFD", "caf\u00e9")


def tone(path, hz=220, seconds=0.4):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_wav(path, 0.3 * np.sin(np.arange(int(8000 * seconds)) * hz / 1273), 8000)
    return path


def film(path, sound=True, grey=90):
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = np.full((10, 32, 48, 3), grey, np.uint8)
    voice = np.sin(np.arange(3200) / 9).astype(np.float32) if sound else None
    write_video(path, frames, 25, voice, 8000)
    return path


def told(m):
    return {file: (status, why) for file, status, why in m.problems.values.tolist()}


@pytest.fixture
def two(tmp_path):
    "Two classes of one clip each"
    tone(tmp_path / "d/happy/s1/a.wav", 200)
    tone(tmp_path / "d/sad/s2/b.wav", 300)
    return tmp_path / "d"


# each data set: a clip's file, what its indexer needs beside it, how it is read
WHERE = dict(
    folder=("happy/s1/x.wav", {"sad/s2/y.wav": b"y"}, folder.index),
    ravdess=("Actor_01/03-01-03-01-01-01-01.wav", {}, ravdess.index),
    crema_d=("AudioWAV/1001_DFA_ANG_XX.wav", {}, lambda d: crema_d.index(d, label="intended")),
    msp_improv=(
        "Audio/MSP-IMPROV-S01A-F02-R-FF01.wav",
        {"labels.csv": b"FileName,EmoAct,EmoVal,EmoDom\nMSP-IMPROV-S01A-F02-R-FF01.wav,3,3,3\n"},
        msp_improv.index,
    ),
    affwild2=(
        "videos/one.mp4",
        {"annotations/VA_Set/Train_Set/one.txt": b"valence,arousal\n.1,.2\n"},
        lambda d: affwild2.index(d, track="va"),
    ),
    vgaf=("Train/1_1.mp4", {"Train_labels.txt": b"Vid_name Label\n1_1 1\n"}, vgaf.index),
)


def lay(root, name, clip):
    "A data set's folder with one clip"
    file, beside, index = WHERE[name]
    for rel, content in ({file: clip} | beside).items():
        (root / rel).parent.mkdir(parents=True, exist_ok=True)
        (root / rel).write_bytes(content)
    return root / file, index


@pytest.mark.parametrize("name", WHERE)
def test_links_are_followed_and_loops_told_in_every_indexer(name, tmp_path):
    file, index = lay(tmp_path / "d", name, b"a clip")
    top = file.parent
    elsewhere = tmp_path / "elsewhere" / top.name
    elsewhere.parent.mkdir()
    top.rename(elsewhere)
    top.symlink_to(elsewhere)
    (elsewhere / "loop").symlink_to(tmp_path / "d")
    (elsewhere / f"gone{file.suffix}").symlink_to("nowhere")
    m = index(tmp_path / "d")
    assert file.relative_to(tmp_path / "d").as_posix() in [*m.clips.audio, *m.clips.video]
    found = {os.path.basename(f): s for f, (s, _) in told(m).items()}
    assert found["loop"] == "invalid" and found[f"gone{file.suffix}"] == "missing"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with a name are of Unix")
@pytest.mark.parametrize("name", WHERE)
def test_pipes_and_sockets_are_told_and_never_opened_in_every_indexer(name, tmp_path, monkeypatch):
    file, index = lay(tmp_path / "d", name, b"a clip")
    os.mkfifo(file.with_stem("pipe"))
    monkeypatch.chdir(file.parent)  # a socket's name is short
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(f"socket{file.suffix}")
        m = index(tmp_path / "d")
    found = {os.path.basename(f): x for f, x in told(m).items()}
    for odd in (f"pipe{file.suffix}", f"socket{file.suffix}"):
        assert found[odd] == ("invalid", "no file: a pipe, a socket or a device")
    assert file.relative_to(tmp_path / "d").as_posix() in [*m.clips.audio, *m.clips.video]


@pytest.mark.parametrize("name", WHERE)
def test_hidden_and_system_files_are_passed_over_in_every_indexer(name, tmp_path):
    file, index = lay(tmp_path / "d", name, b"a clip")
    for odd in (f"._{file.name}", ".DS_Store", "Thumbs.db", f"__MACOSX/{file.name}"):
        (file.parent / odd).parent.mkdir(exist_ok=True)
        (file.parent / odd).write_bytes(b"\x00\x05\x16\x07")
    for table in (tmp_path / "d").glob("*.csv"):
        table.with_name(f"._{table.name}").write_bytes(b"\xff\xfe")
    assert not told(index(tmp_path / "d"))


@pytest.mark.parametrize("name", WHERE)
def test_a_name_that_is_no_text_is_told_and_nothing_else_is_lost(name, tmp_path):
    file, index = lay(tmp_path / "d", name, b"a clip")
    odd = os.fsencode(file.parent) + b"/caf\xe9" + os.fsencode(file.suffix)
    with open(odd, "wb") as f:
        f.write(b"x")
    m = index(tmp_path / "d")
    problem = [why for f, why in told(m).items() if f.endswith(f"caf\\xe9{file.suffix}")]
    assert len(problem) == 1 and "UTF-8" in problem[0][1]
    describe(m).encode()
    m.problems.to_string().encode()


@pytest.mark.parametrize("name", WHERE)
@pytest.mark.parametrize("suffix", [".MTS", ".webm", ".3gp"])
def test_other_suffixes_and_equal_stems_in_every_indexer(name, suffix, tmp_path):
    file, index = lay(tmp_path / "d", name, b"a clip")
    other = file.with_suffix(suffix)
    other.write_bytes(b"another clip")
    m, rel = index(tmp_path / "d"), other.relative_to(tmp_path / "d").as_posix()
    used = rel in [*m.clips.audio, *m.clips.video]
    assert used != (rel in told(m)), "used, or told: never neither"
    file.unlink()
    if name != "folder":
        m = index(tmp_path / "d")
        assert rel in [*m.clips.audio, *m.clips.video]


@pytest.mark.parametrize("suffix", sorted(MEDIA_SUFFIXES))
def test_every_suffix_of_media_is_a_clip_or_told(suffix, two):
    odd = two / f"happy/s3/c{suffix.upper()}"
    odd.parent.mkdir()
    odd.write_bytes(b"no media at all")
    m = folder.index(two)
    rel = odd.relative_to(two).as_posix()
    assert rel in [*m.clips.audio, *m.clips.video] or rel in told(m)


def test_a_folder_in_two_unicode_forms_is_one_class_and_one_clip(two):
    tone(two / NFC / "s1/a.wav", 400)
    tone(two / NFD / "s1/a.wav", 500)
    tone(two / NFD / "s1/c.wav", 600)
    m = folder.index(two)
    assert m.classes == [NFC, "happy", "sad"] and (m.clips.label == NFC).sum() == 2
    assert (
        m.clips["clip"].is_unique and f"{NFC}/s1/a.wav" in told(m) or f"{NFD}/s1/a.wav" in told(m)
    )


def test_a_table_in_another_unicode_form_finds_its_files(two):
    tone(two / NFD / "s1/a.wav", 400)
    (two / "labels.csv").write_text(
        f"file,label,speaker\n{NFC}/s1/a.wav,{NFC},{NFC}\nhappy\\s1\\a.wav,{NFD},{NFD}\nsad/s2/b.wav,x,y\n"
    )
    m = folder.index(two)
    assert len(m) == 3 and m.classes == [NFC, "x"] and m.clips.speaker.nunique() == 2
    assert not told(m) and all((two / p).is_file() for p in m.clips.audio)


def test_streams_stand_in_the_header_and_a_clip_without_any_is_told(two):
    film(two / "happy/s1/seen.mp4", sound=False)
    film(two / "happy/s1/both.mkv")
    shutil.copyfile(tone(two.parent / "x.wav"), two / "happy/s1/heard.mkv")
    (two / "notes.txt").write_text("x")
    rows = ["notes.txt", "happy/s1/seen.mp4", "happy/s1/both.mkv", "happy/s1/heard.mkv"]
    (two / "labels.csv").write_text(
        "file,label\n" + "".join(f"{f},{'xy'[i % 2]}\n" for i, f in enumerate(rows))
    )
    m = folder.index(two)
    has = {c: (a != "", v != "") for c, a, v in m.clips[["clip", "audio", "video"]].values}
    assert has == {
        "happy/s1/seen": (False, True),
        "happy/s1/both": (True, True),
        "happy/s1/heard": (True, False),
    }
    assert "neither picture nor sound" in told(m)["notes.txt"][1]


def test_equal_stems_of_a_table_are_two_clips(two):
    for name in ("t.wav", "t.flac", "t.WAV"):
        (two / name).write_bytes(name.encode())
    (two / "labels.csv").write_text("file,label\nt.wav,a\nt.flac,b\nt.WAV,a\nsad/s2/b.wav,a\n")
    m = folder.index(two)
    assert sorted(m.clips["clip"]) == ["sad/s2/b", "t.WAV", "t.flac", "t.wav"]


@pytest.mark.parametrize(
    "text",
    [
        "file;label\n{};x\n{};y",
        "file\tlabel\n{}\tx\n{}\ty",
        "\ufefffile;label;valence\n{};x;0,5\n{};y;1",
        "path,emotion\n{},x\n{},y",
        "File,Label\n{},x\n{},y",
        "sep=;\nFile Name;Emotion (0-6)\n{};x\n{};y",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_a_table_is_read_whatever_its_form(two, text, encoding):
    text = text.removeprefix("\ufeff").format("happy/s1/a.wav", "sad/s2/b.wav")
    (two / "labels.csv").write_bytes(text.encode(encoding))
    assert folder.index(two).clips.label.tolist() == ["x", "y"]


def test_a_column_that_stands_twice_is_told(two):
    (two / "labels.csv").write_text("file,label,label\na.wav,x,y")
    with pytest.raises(AvkitError, match="'label' stands there twice"):
        folder.index(two)


def test_files_that_swap_their_places_are_noticed_without_reading_the_others(two, monkeypatch):
    a, b = two / "happy/s1/a.wav", two / "sad/s2/b.wav"
    tone(two / "sad/s2/c.wav")
    for p in (a, b):
        os.utime(p, ns=(10**18, 10**18))
    assert a.stat().st_size == b.stat().st_size
    before = folder.index(two).clips.set_index("clip").audio_sha256
    read = []
    monkeypatch.setattr(manifest, "file_hash", lambda p: read.append(p.name) or file_hash(p))
    assert folder.index(two).clips.set_index("clip").audio_sha256.equals(before) and not read
    for old, new in ((a, two / "t"), (b, a), (two / "t", b)):
        old.rename(new)
    after = folder.index(two).clips.set_index("clip").audio_sha256
    assert after["happy/s1/a"] == before["sad/s2/b"] and after["sad/s2/b"] == before["happy/s1/a"]
    assert sorted(read) == ["a.wav", "b.wav"]


@pytest.mark.parametrize("how", ["copy", "in place", "folder"])
def test_a_file_of_the_same_size_and_time_is_noticed(tmp_path, how):
    path = tmp_path / "x/1.bin"
    path.parent.mkdir()
    path.write_bytes(b"before")
    what = "x" if how == "folder" else "x/1.bin"
    before, at = hash_files(tmp_path, [what]), path.stat().st_mtime_ns
    if how == "copy":
        path.unlink()
    path.write_bytes(b"after!")
    os.utime(path, ns=(at, at))
    assert hash_files(tmp_path, [what]) != before


def test_a_file_that_cannot_be_read_has_no_hash_and_is_tried_again(tmp_path):
    assert hash_files(tmp_path, ["gone.wav"]) == [""]
    (tmp_path / "gone.wav").write_bytes(b"x")
    assert hash_files(tmp_path, ["gone.wav"]) == [file_hash(tmp_path / "gone.wav")]


def test_copies_are_told_and_refused_on_two_sides(two):
    shutil.copyfile(two / "happy/s1/a.wav", two / "sad/s2/copy.wav")
    m = folder.index(two)
    assert told(m)["sad/s2/copy.wav"][1] == "the same bytes as happy/s1/a.wav, which is " + (
        "labelled happy, not sad; both are used"
    )
    assert len(m) == 3 and "1 files" in m.notes["copies"]
    path = two.parent / "split.csv"
    path.write_text("speaker,split\ns1,train\ns2,validation\n")
    with pytest.raises(LeakError, match="file content"):
        apply_split(m, path)


SPELLINGS = [("01", "1"), ("Anna", "anna"), (NFC, NFD), ("ben ", "ben"), ("s02", "S2"), ("１", "1")]


@pytest.mark.parametrize("a, b", SPELLINGS)
def test_two_spellings_are_one_speaker_for_splits_folds_and_leaks(a, b, tmp_path):
    rows = []
    for k, who in enumerate([a, b, "x", "y", "z", a, b, "x", "y", "z"]):
        tone(tmp_path / f"{k}.wav", 100 + k)
        rows.append(dict(clip=str(k), label="pq"[k % 2], speaker=who, audio=f"{k}.wav"))
    m = manifest.make_manifest("folder", tmp_path, rows, ["p", "q"])
    assert m.clips.speaker.nunique() == 4
    assert a == NFC or " = " in m.notes["speakers_spelt_alike"]
    raw = m.clips.assign(speaker=[r["speaker"] for r in rows])  # as an older table has them
    for fold in range(3):
        s = apply_split(replace(m, clips=raw), "kfold3", fold)
        assert s.clips.groupby(s.clips.speaker.map(speaker_key)).split.nunique().max() == 1
    path = tmp_path / "split.csv"
    path.write_text(f"speaker,split\n{a},train\n{b},test\nx,validation\ny,test\nz,train\n")
    with pytest.raises(AvkitError, match="on two sides"):
        apply_split(m, path)
    sides = ["train", "test", "validation", "train", "train", "train", "test", "validation"]
    path.write_text("clip,split\n" + "".join(f"{k},{side}\n" for k, side in enumerate(sides)))
    m.clips["speaker"] = raw.speaker
    with pytest.raises(LeakError, match="Speaker"):
        apply_split(m, path)


def test_which_streams_are_there_and_what_auto_takes(two, capsys):
    for k in range(6):
        tone(two / f"{'happy' if k % 2 else 'sad'}/p{k}/x.wav", 700 + 10 * k)
    m = folder.index(two)
    assert common_streams(m) == ["audio"] and "--modality audio" in describe(m)
    usual = dict(dataset="folder", data_root=str(two), split="kfold3", device="cpu", n_jobs=1)
    with pytest.raises(AvkitError, match="--modality audio"):
        load_data(configure(**usual))
    auto = configure(**usual, modality="auto")
    assert "modality auto: audio" in capsys.readouterr().out
    same = configure(**usual, modality="audio")
    assert auto == same and auto.hash == same.hash and auto.run_dir == same.run_dir
    film(two / "sad/p9/seen.mp4", sound=False)
    with pytest.raises(AvkitError, match="no stream is in all clips"):
        configure(**usual, modality="auto")


def test_auto_of_films(tmp_path):
    for k in range(2):
        film(tmp_path / f"{'ab'[k]}/s{k}/x.mp4", grey=50 + k)
    usual = dict(dataset="folder", data_root=str(tmp_path))
    assert configure(**usual, modality="auto").settings.modality == "av"
    for k in range(2):
        film(tmp_path / f"{'ab'[k]}/s{k}/x.mp4", sound=False, grey=70 + k)
    assert configure(**usual, modality="auto").settings.modality == "video"


def test_a_walk_ends_whatever_the_links(tmp_path):
    for a in "xyz":
        (tmp_path / a).mkdir()
        (tmp_path / a / "f.wav").write_bytes(b"1")
    for a in "xyz":
        for b in "xyz":
            if a != b:
                (tmp_path / a / b).symlink_to(tmp_path / b)
    problems = []
    files = list(walk(tmp_path, problems))
    assert len(files) == 3 * (1 + 2 * (1 + 1)) and all(p[1] == "invalid" for p in problems)
