"""The page of a data set's clips: all of it, nothing from elsewhere, no text taken for HTML."""

import itertools
import re
from html.parser import HTMLParser
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from avkit.cli import main
from avkit.datasets.folder import index
from avkit.datasets.synth import FACES, RATE, VOICES, perform
from avkit.preprocessing.prepare import Preparation, prepare
from avkit.preprocessing.writing import write_video, write_wav
from avkit.reports import contact_sheet
from avkit.reports.contact_sheet import clip_looks, ContactSheet, contact_page, histogram_svg

ODD = [
    "<script>alert(1)<",
    'a"b onload=x',
    "c'd",
    "e&lt;f",
    "g #1?x=2%41",
    "ünï €",
    "<details>",
]


class Page(HTMLParser):
    "The tags of a page, their attributes, and its text"

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text, self.open = set(), [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += [(tag, *a) for a in attrs]
        if tag not in ("meta", "img", "path", "rect"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


TAGS = set(
    "html head meta title style body h1 h2 h3 p pre small nav a div section figure figcaption svg "
    "path rect span table tr th td details summary img i em b video audio".split()
)


def tone(path, hz=220, seconds=0.5):
    path.parent.mkdir(parents=True, exist_ok=True)
    t = np.arange(round(8000 * seconds)) / 8000
    write_wav(path, (0.1 * np.sin(2 * np.pi * hz * t)).astype(np.float32), 8000)


def checked(text):
    "A page in which each tag is one of ours, closed, and none runs anything"
    page = Page(text)
    assert not page.open and page.tags <= TAGS, page.tags - TAGS
    assert not [a for a in page.attributes if a[1].startswith("on")]
    links = [(t, v) for t, k, v in page.attributes if k in ("src", "href")]
    assert not [v for _, v in links if re.match(r"(?!data:image/jpeg)[a-z]+:", v)]
    return page, links


def test_no_text_is_taken_for_html_and_every_link_is_found(tmp_path):
    root = tmp_path / "data #1"
    for i, (label, who) in enumerate(itertools.product(ODD[:3], ODD)):
        tone(root / label / who / f"{ODD[i % 7]}.wav", 200 + i)
    (root / "notes.<b>").write_text("x")
    m = index(root, layout="class/speaker")
    m.problems.loc[0] = ['<img src="x">', "invalid", "<script>"]
    where = tmp_path / "pages" / "page.html"
    page, links = checked(contact_page(m, where, n_jobs=1))
    text = "".join(page.text)
    for name in [*m.clips["clip"], *m.classes, *m.clips.speaker]:
        assert name in text, name
    files = [v for t, v in links if t in ("audio", "video")]
    assert len(files) == len(m) == 21
    for v in files:
        assert (where.parent / unquote(v)).resolve().is_file(), v
    anchors = {v for _, k, v in page.attributes if k == "id"}
    assert {v[1:] for _, v in links if v.startswith("#")} <= anchors
    assert ContactSheet(m, n_jobs=1)._repr_html_().count("<") == 2  # all of it in one attribute


def folder_of_all(root):
    "A film, a film and a WAV, a WAV, a picture, frames beside a WAV, a broken film, a faceless one"
    frames, sound = perform(FACES[[1, 2]], VOICES[[0, 1]], 3, key=("page",), seconds=1)
    for name in ("film", "pair", "broken", "wall"):
        (root / f"happy/{name}").mkdir(parents=True)
    frames = list(frames)
    write_video(root / "happy/film/a.mp4", frames, 25, sound, RATE)
    write_video(root / "happy/pair/a.mp4", frames[::-1], 25)
    write_video(root / "happy/wall/a.mp4", np.full((25, 96, 128, 3), 90, np.uint8), 25, sound, RATE)
    whole = (root / "happy/film/a.mp4").read_bytes()
    (root / "happy/broken/a.mp4").write_bytes(whole[:-5000])
    tone(root / "happy/pair/a.wav")
    tone(root / "sad/heard/a.wav", 300)
    write_wav(root / "sad/heard/b.wav", np.zeros(8000, np.float32), 8000)
    (root / "sad/still/take").mkdir(parents=True)
    Image.fromarray(frames[3]).save(root / "sad/still/a.jpg")
    for i in range(5):
        Image.fromarray(frames[i]).save(root / f"sad/still/take/{i}.png")
    tone(root / "sad/still/take.wav", 330)


def test_each_kind_of_clip_is_shown(tmp_path):
    folder_of_all(tmp_path / "data")
    m = index(tmp_path / "data")
    seen = dict(zip(m.clips["clip"], clip_looks(m, n_jobs=1)))
    assert len(seen) == 8
    assert "truncated" in seen["happy/broken/a"].problem
    assert {k for k, s in seen.items() if s.picture} == {
        "happy/film/a", "happy/pair/a", "happy/wall/a", "sad/still/a", "sad/still/take"
    }  # fmt: skip
    assert {k for k, s in seen.items() if s.wave} == {
        "happy/film/a", "happy/pair/a", "happy/wall/a", "sad/heard/a", "sad/heard/b",
        "sad/still/take"
    }  # fmt: skip
    assert seen["sad/still/a"].seconds is None and abs(seen["sad/heard/b"].seconds - 1) < 0.01
    assert seen["sad/heard/a"].loudness == pytest.approx(20 * np.log10(0.1 / np.sqrt(2)), abs=0.1)
    assert seen["happy/wall/a"].boxes == [] and len(seen["happy/film/a"].boxes) == 1
    left, top, right, bottom = seen["happy/film/a"].boxes[0]
    assert 0 <= left < right <= 1 and 0 <= top < bottom <= 1
    page, _ = checked(contact_page(m, tmp_path / "p.html", n_jobs=1))
    text = "".join(page.text)
    assert "No face in 1 of 5 clips" in text and "5 by" in text
    assert "To look at 3 clips" in text  # the wall, the silent one and the broken one
    assert sum(t == "i" for t, *_ in page.attributes) == 4  # a box for each face


def test_faces_are_those_that_were_prepared(tmp_path):
    folder_of_all(tmp_path / "data")
    m = index(tmp_path / "data")
    m.clips = m.clips[m.clips["clip"].isin(["happy/film/a", "happy/wall/a"])].reset_index(drop=True)
    prep = Preparation(window=1.0, frames=5, size=32, detector="mtcnn")
    before = clip_looks(m, prep, n_jobs=1)
    assert [s.faces for s in before] == ["", ""]
    prepare(m, prep, streams=["video"], n_jobs=1)
    film, wall = clip_looks(m, prep, n_jobs=1)
    assert film.faces == "5 of 5 frames" and len(film.boxes) == 1
    assert wall.faces == "0 of 5 frames" and wall.boxes == []
    assert np.abs(np.subtract(film.boxes, before[0].boxes)).max() < 0.1  # of the same face
    assert "No face in 1 of 2 clips (looked for: 2 as prepared)" in contact_page(m, None, prep)


def test_a_clip_is_looked_at_once(tmp_path, monkeypatch):
    for who, label in itertools.product("ab", ["happy", "sad"]):
        tone(tmp_path / f"data/{label}/{who}.wav", 200 + ord(who) + len(label))
    m = index(tmp_path / "data")
    first = clip_looks(m, n_jobs=1)
    monkeypatch.setattr(contact_sheet, "look_at_clip", None)
    assert clip_looks(m, n_jobs=1) == first
    tone(tmp_path / "data/sad/a.wav", 999)  # another file by now
    assert [bool(s.problem) for s in clip_looks(index(tmp_path / "data"), n_jobs=1)].count(
        True
    ) == 1


def test_numbers_are_shown_by_speaker(tmp_path):
    rows = ["file,valence,speaker"]
    for i, who in enumerate(["anna", "ben", "eva"]):
        tone(tmp_path / f"data/{who}.wav", 200 + i)
        rows.append(f"{who}.wav,{i / 4},{who}")
    (tmp_path / "data/labels.csv").write_text("\n".join(rows))
    page, _ = checked(contact_page(index(tmp_path / "data"), tmp_path / "p.html"))
    assert "all clips 3 clips" in "".join(page.text) and "0.25" in "".join(page.text)


def test_a_histogram_of_nothing_and_of_one_value():
    assert histogram_svg([None, float("nan")], "x", "s") == ""
    assert histogram_svg([2.0], "x", "s").count("<rect") == 1


def test_the_command_writes_the_page(tmp_path, capsys):
    for who, label in itertools.product("abc", ["happy", "sad"]):
        tone(tmp_path / f"data/{label}/{who}.wav", 200 + ord(who) + len(label))
    flags = ["--dataset", "folder", "--data_root", str(tmp_path / "data")]
    assert not main(["index", *flags, "--html", str(tmp_path / "page.html")])
    assert "page: " in capsys.readouterr().out
    checked((tmp_path / "page.html").read_text())


def test_a_piece_is_looked_at_and_played_as_a_piece(tmp_path):
    t = np.arange(24000) / 8000
    root = tmp_path / "data"
    root.mkdir()
    write_wav(root / "film.wav", (np.floor(t) / 4 * np.sin(2000 * t)).astype(np.float32), 8000)
    rows = ["clip,file,label,start,end", "a,film.wav,sad,0,1", "b,film.wav,happy,2,3"]
    (root / "labels.csv").write_text("\n".join(rows))
    m = index(root)
    quiet, loud = clip_looks(m, n_jobs=1)
    assert quiet.loudness == -100 and loud.loudness == pytest.approx(-9, abs=0.2)
    assert quiet.seconds == loud.seconds == 1
    page = contact_page(m, root / "page.html", n_jobs=1)
    assert 'src="film.wav#t=0,1"' in page and 'src="film.wav#t=2,3"' in page
