"""Intervals as annotation programs write them: read as independent libraries read them, written so
that these can read them; what is broken is told with file and line; XML is not trusted."""

import numpy as np
import pandas as pd
import pympi
import pytest
import webvtt
from praatio import textgrid
from praatio.data_classes.interval_tier import IntervalTier
from praatio.data_classes.point_tier import PointTier

from avkit.core import AvkitError
from avkit.datasets.intervals import parse_time, read_intervals, write_intervals

LABELS = ["happy", 'says "no"', "<b>a & b</b>", "Ärger", "喜び", "-->"]
LABELS += ["intervals [1]:", "0.5 <exists>"]
TEXTGRID_ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"]


def rows(seed=0, tiers=("face 1", 'a "b" <c>'), n=8):
    "A random table without overlaps within a tier, in whole milliseconds"
    rng = np.random.default_rng(seed)
    out = []
    for t in tiers:
        at = np.cumsum(rng.integers(1, 4000, 2 * n)) / 1000
        out += [(at[2 * k], at[2 * k + 1], LABELS[k % len(LABELS)], t) for k in range(n)]
    return pd.DataFrame(out, columns=["start", "end", "label", "tier"])


def as_lists(t):
    return [[round(a, 6), round(b, 6), c] for a, b, c in t[["start", "end", "label"]].values]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("suffix", [".eaf", ".TextGrid", ".vtt"])
def test_what_is_written_is_read_again(suffix, seed, tmp_path):
    t = rows(seed)
    path = write_intervals(tmp_path / f"a{suffix}", t)
    with pytest.raises(AvkitError, match=r"2 tiers: .*'face 1' \(8\).* e.g. tier="):
        read_intervals(path)
    for tier, some in t.groupby("tier"):
        got = read_intervals(path, tier)
        assert as_lists(got) == as_lists(some)
        if suffix != ".vtt":  # each line is that of its label, or of the element it is in
            lines = path.read_text(encoding="utf-8").splitlines()
            for label, line in zip(got.label, got.line):
                near = "".join(lines[line - 1 : line + 1]).replace('""', '"')
                assert label in near.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


@pytest.mark.parametrize("suffix", [".srt", ".txt"])
def test_formats_without_tiers(suffix, tmp_path):
    t = rows(tiers=["one"])
    keep = t[~t.label.str.contains("<|-->")]
    back = read_intervals(write_intervals(tmp_path / f"a{suffix}", keep))
    assert as_lists(back) == as_lists(keep)
    two = keep.assign(tier=[*"xyxyx"])
    got = read_intervals(write_intervals(tmp_path / f"b{suffix}", two))
    assert got.label.tolist() == [f"{a}: {b}" for a, b in zip(two.tier, two.label)]


def test_elan_files_are_those_of_pympi(tmp_path):
    t = rows()
    e = pympi.Eaf(str(write_intervals(tmp_path / "a.eaf", t)))
    for tier, some in t.groupby("tier"):
        theirs = sorted(e.get_annotation_data_for_tier(tier))
        assert [[a / 1000, b / 1000, c] for a, b, c, *_ in theirs] == as_lists(some)
    e = pympi.Eaf()
    e.remove_tier("default")
    for tier in t.tier.unique():
        e.add_tier(tier)
    for r in t.to_dict("records"):
        e.add_annotation(r["tier"], round(r["start"] * 1000), round(r["end"] * 1000), r["label"])
    e.add_tier("notes", parent="face 1", ling="default-lt")
    first = t[t.tier == "face 1"].iloc[0]
    e.add_ref_annotation("notes", "face 1", round(first.start * 1000) + 1, value="sure")
    e.to_file(str(tmp_path / "b.eaf"))
    for tier, some in t.groupby("tier"):
        assert as_lists(read_intervals(tmp_path / "b.eaf", tier)) == as_lists(some)
    notes = read_intervals(tmp_path / "b.eaf", "notes")
    assert as_lists(notes) == [[first.start, first.end, "sure"]]


@pytest.mark.parametrize("form", ["short_textgrid", "long_textgrid"])
@pytest.mark.parametrize("encoding", TEXTGRID_ENCODINGS)
def test_textgrids_are_those_of_praatio(form, encoding, tmp_path):
    t = rows(tiers=["mood", "other"])
    t = t[~t.label.str.contains("\\[")]  # which praatio takes for its own words
    tg = textgrid.Textgrid()
    for tier, some in t.groupby("tier"):
        tg.addTier(IntervalTier(tier, [tuple(r) for r in as_lists(some)], 0, 60))
    tg.addTier(PointTier("clicks", [(1.5, "click"), (2.0, "clack")], 0, 60))
    tg.save(str(tmp_path / "a.TextGrid"), form, includeBlankSpaces=True)
    text = (tmp_path / "a.TextGrid").read_text(encoding="utf-8")
    (tmp_path / "a.TextGrid").write_bytes(text.encode(encoding))
    for tier, some in t.groupby("tier"):
        got = read_intervals(tmp_path / "a.TextGrid", tier)
        assert as_lists(got) == as_lists(some) and got.attrs["empty"] > 0
    points = read_intervals(tmp_path / "a.TextGrid", "clicks")
    assert as_lists(points) == [[1.5, 1.5, "click"], [2.0, 2.0, "clack"]]
    path = str(write_intervals(tmp_path / "b.TextGrid", t))
    theirs = textgrid.openTextgrid(path, includeEmptyIntervals=False)
    for tier, some in t.groupby("tier"):
        assert [[e.start, e.end, e.label] for e in theirs.getTier(tier).entries] == as_lists(some)


def test_a_textgrid_of_a_code_page(tmp_path):
    text = '"ooTextFile"\n"TextGrid"\n0 1 <exists> 1 "IntervalTier" "mood" 0 1 1 0 1 "Ärger"'
    (tmp_path / "a.txt").write_bytes(text.encode("cp1252"))
    assert read_intervals(tmp_path / "a.txt").label.tolist() == ["Ärger"]


def test_subtitles_are_those_of_webvtt_py(tmp_path):
    t = rows(tiers=["anna"])
    path = write_intervals(tmp_path / "a.vtt", t)
    theirs = webvtt.read(str(path))
    assert [c.voice for c in theirs] == ["anna"] * len(t)
    ms = [(c.start_in_seconds, c.end_in_seconds) for c in theirs]
    assert ms == [(int(a), int(b)) for a, b in t[["start", "end"]].values]
    v = webvtt.WebVTT()
    v.captions += [
        webvtt.Caption("00:00:01.000", "00:00:02.500", "happy\nand more"),
        webvtt.Caption("01:00:01.000", "01:00:02.500", ""),
        webvtt.Caption("01:00:03.000", "01:00:04.500", "sad"),
    ]
    v.save(str(tmp_path / "b.vtt"))
    v.save_as_srt(str(tmp_path / "b.srt"))
    for suffix in ("vtt", "srt"):
        got = read_intervals(tmp_path / f"b.{suffix}")
        assert as_lists(got) == [[1, 2.5, "happy and more"], [3603, 3604.5, "sad"]]
        assert got.attrs["empty"] == 1


VTT = """WEBVTT - mood

NOTE made by hand

STYLE
::cue { color: red }

first
00:01.000 --> 00:02.500 align:left
<v anna>so <i>happy</i> &amp; glad</v>

00:03.000 --> 00:04.000
<v.loud ben>angry
"""


def test_cues_with_settings_styles_and_voices(tmp_path):
    (tmp_path / "a.vtt").write_text(VTT.replace("\n", "\r\n"))
    got = read_intervals(tmp_path / "a.vtt", "anna")
    assert got.values.tolist() == [[1.0, 2.5, "so happy & glad", "anna", 9]]
    assert read_intervals(tmp_path / "a.vtt", "ben").label.tolist() == ["angry"]


def test_an_audacity_track(tmp_path):
    text = "1,5\t2,5\thappy\n\\\t100\t8000\n3.0\t3.0\tpoint\n4\t5\t\n"
    (tmp_path / "a.txt").write_text(text)
    got = read_intervals(tmp_path / "a.txt")
    assert as_lists(got) == [[1.5, 2.5, "happy"], [3, 3, "point"]]
    assert got.line.tolist() == [1, 3] and got.attrs["empty"] == 1


EAF = """<?xml version="1.0"?>
{dtd}<ANNOTATION_DOCUMENT>
<HEADER TIME_UNITS="{unit}"><MEDIA_DESCRIPTOR MEDIA_URL="f.mp4" TIME_ORIGIN="{origin}"/></HEADER>
<TIME_ORDER><TIME_SLOT TIME_SLOT_ID="a" TIME_VALUE="{first}"/><TIME_SLOT TIME_SLOT_ID="b"/>
<TIME_SLOT TIME_SLOT_ID="c"/><TIME_SLOT TIME_SLOT_ID="d" TIME_VALUE="4000"/></TIME_ORDER>
<TIER TIER_ID="mood"><ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="1" TIME_SLOT_REF1="a"
 TIME_SLOT_REF2="b"><ANNOTATION_VALUE>{value}</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
<ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="2" TIME_SLOT_REF1="b" TIME_SLOT_REF2="{slot}">
<ANNOTATION_VALUE>y</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION></TIER>
<TIER TIER_ID="parts"><ANNOTATION><REF_ANNOTATION ANNOTATION_ID="3" ANNOTATION_REF="{ref}">
<ANNOTATION_VALUE>p</ANNOTATION_VALUE></REF_ANNOTATION></ANNOTATION>
<ANNOTATION><REF_ANNOTATION ANNOTATION_ID="4" ANNOTATION_REF="{ref}">
<ANNOTATION_VALUE>q</ANNOTATION_VALUE></REF_ANNOTATION></ANNOTATION></TIER>
</ANNOTATION_DOCUMENT>"""
USUAL = dict(dtd="", unit="milliseconds", origin="0", first="1000", value="x", slot="d", ref="1")


def elan(path, **more):
    path.write_text(EAF.format(**USUAL | more))
    return path


def test_elan_slots_without_a_time_and_annotations_that_refer(tmp_path):
    path = elan(tmp_path / "a.eaf")
    got = read_intervals(path, "mood")
    assert as_lists(got) == [[1, 2.5, "x"], [2.5, 4, "y"]]
    parts = read_intervals(path, "parts")
    x = got.iloc[0]
    middle = (x.start + x.end) / 2
    assert as_lists(parts) == [[x.start, middle, "p"], [middle, x.end, "q"]]
    late = read_intervals(elan(tmp_path / "b.eaf", origin="500"), "mood")
    np.testing.assert_allclose(late.start, got.start + 0.5)


BOMB = '<!DOCTYPE a [<!ENTITY b "boom"><!ENTITY c "&b;&b;&b;&b;">]>\n'
FILE = '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>\n'


@pytest.mark.parametrize(
    "more, cause",
    [
        (dict(dtd=BOMB, value="&c;"), "entities"),
        (dict(dtd=FILE, value="&b;"), "entities"),
        (dict(dtd='<!DOCTYPE a SYSTEM "http://localhost/a.dtd">\n'), "document types"),
        (dict(unit="PAL-frames"), "line 3: its times are PAL-frames"),
        (dict(first="soon"), "line 4: TIME_VALUE='soon'"),
        (dict(slot="z"), "line 8: there is no time slot 'z'"),
        (dict(ref="9"), "line 10: it refers to the annotation '9'"),
        (dict(value="</TIER>"), "line 7: no XML"),
        (dict(first="5000"), "it goes from 5 to"),
        (dict(slot="c"), "line 6: its time slot has no time"),
    ],
)
def test_elan_files_that_cannot_be_meant_are_told(more, cause, tmp_path):
    path = elan(tmp_path / "a.eaf", **more)
    with pytest.raises(AvkitError, match=cause) as e:
        read_intervals(path, "mood")
    assert str(path) in str(e.value) and "root:" not in str(e.value)


ONE_TIER = '"ooTextFile"\n"TextGrid"\n0 1 <exists> 1\n"IntervalTier" "m" 0 1'


@pytest.mark.parametrize(
    "name, text, cause",
    [
        ("a.TextGrid", '"ooTextFile"\n"Pitch"\n', "line 2: .*no TextGrid"),
        ("a.TextGrid", '"ooTextFile"\n"TextGrid"\n0 1 <exists> 1\n"Odd" "m" 0 1 1\n', "line 4"),
        ("a.TextGrid", ONE_TIER + ' 2\n0 1 "a"', "line 5"),
        ("a.TextGrid", ONE_TIER + ' 1\n1 0 "a"', "line 5: it goes from 1 to 0"),
        ("a.TextGrid", "ooBinaryFile\x08TextGrid", "binary"),
        ("a.vtt", "WEBVTT\n\n00:01 -> 00:02\nhappy\n", "no label"),
        ("a.vtt", "WEBVTT\n\n00:01 --> \nhappy\n", "line 3: no times"),
        ("a.srt", "1\n00:00:61,0 --> 00:01:02,0\nhappy\n", "line 2: '00:00:61,0' is no time"),
        ("a.srt", "1\n00:00:05,0 --> 00:00:02,0\nhappy\n", "line 2: it goes from 5 to 2"),
        ("a.txt", "hello\n", "line 1: no label track"),
        ("a.txt", "0\tsoon\thappy\n", "line 1: 'soon' is no time"),
        ("a.txt", "0\t\thappy\n", "line 1: a time is missing"),
        ("a.txt", "", "holds no label"),
        ("a.csv", "0,1,happy\n", "intervals are read from .eaf"),
    ],
)  # fmt: skip
def test_what_is_broken_is_told_with_its_line(name, text, cause, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(AvkitError, match=cause) as e:
        read_intervals(tmp_path / name)
    assert name in str(e.value)


def test_a_missing_file_and_an_unknown_tier(tmp_path):
    with pytest.raises(AvkitError, match="Cannot read"):
        read_intervals(tmp_path / "a.eaf")
    with pytest.raises(AvkitError, match="did you mean 'mood'"):
        read_intervals(elan(tmp_path / "a.eaf"), "moood")


@pytest.mark.parametrize("cut", range(0, 900, 23))
def test_half_a_file_is_an_error_or_what_stands_in_it(cut, tmp_path):
    t = rows(tiers=["mood"], n=4)
    for suffix in (".eaf", ".TextGrid", ".vtt", ".srt", ".txt"):
        path = write_intervals(tmp_path / f"a{suffix}", t)
        data = path.read_bytes()
        if cut >= len(data) - 2:
            continue
        path.write_bytes(data[:cut])
        try:
            got = read_intervals(path)
        except AvkitError as e:
            assert path.name in str(e)
        else:
            assert suffix in (".vtt", ".srt", ".txt") and len(got) <= len(t)


@pytest.mark.parametrize("seconds", [0, 0.001, 1.5, 59.999, 60, 3599.25, 3600, 86399.5, 360000.125])
def test_times_in_every_spelling(seconds):
    h, m, s = int(seconds // 3600), int(seconds // 60 % 60), seconds % 60
    texts = [f"{seconds:.3f}", f"{seconds:.3f} s"]
    texts += [f"{h}:{m:02d}:{s:06.3f}", f"{h:02d}:{m:02d}:{s:06.3f}"]
    texts += [str(pd.Timedelta(seconds=seconds)), f"{60 * h + m}:{s:06.3f}", f" {seconds:.3f} "]
    texts += [t.replace(".", ",") for t in texts[:4]]
    for t in [*texts, seconds]:
        assert abs(parse_time(t) - seconds) < 1e-3, t
