"""Two numbers share a column only where they were measured alike; odd records are told, not trusted."""
import copy
import random
from html.parser import HTMLParser
from types import SimpleNamespace

import pandas as pd
import pytest

from avkit.cli import main
from avkit.core import AvkitError, kit_path, read_json, write_json
from avkit.evaluation.statistics import interval
from avkit.reports import leaderboard
from avkit.reports.comparison import pooled
from avkit.reports.leaderboard import (
    BOARD_FILES, FEWEST, board_frame, board_html, board_markdown, board_of, files_of, joins,
    published, shown, write_board,
)
from avkit.reports.records import read_spec, write_spec
from avkit.training.configure import configure

REAL = read_spec(kit_path("reports/ravdess_real"))["records"]
LATE = [r for r in REAL if r["recipe"]["fusion"] == "late" and r["config"]["modality"] == "av"]
CA = [r for r in REAL if r["recipe"]["fusion"] == "ca" and r["config"]["modality"] == "av"]


@pytest.fixture(scope="module")
def everything():
    "The board of all committed records, to read"
    return board_of()


def board(folder, *reports, **more):
    "The board of reports with these records"
    for i, records in enumerate(reports):
        write_spec(folder / f"report{i}", dict(kind="compare", title="", records=records))
    return board_of([folder], **more)


def changed(records, **changes):
    "Records with other values; dotted names as `config__label`"
    out = copy.deepcopy(records)
    for r in out:
        for name, value in changes.items():
            *inside, last = name.split("__")
            at = r
            for k in inside: at = at[k]
            at[last] = value
        r["config_hash"] = r["experiment"] = "another"
    return out


def test_alike_measured_numbers_share_a_table(tmp_path):
    b = board(tmp_path, LATE, CA)
    assert len(b.tables) == 1 and [r["method"] for r in b.tables[0].rows] == ["late", "ca"]
    assert b.runs == 30 and not b.aside
    assert b.tables[0].clips == 1200


@pytest.mark.parametrize("change", [
    dict(data_hash="f" * 64), dict(split_hash="f" * 64), dict(split__name="kfold10"),
    dict(side="validation"), dict(config__label="consensus"), dict(dataset="crema_d"),
    dict(rendered=True), dict(classes=["a", "b", "c", "d", "e", "f", "g", "h"]),
    dict(counts=dict(train=720, validation=240, test=239)), dict(set_aside=2),
    dict(split__speaker_independent=False), dict(level="frame"),
    dict(config__votes="distribution"), dict(refit=dict(epochs=3, clips=960))], ids=str)
def test_another_protocol_is_another_table(tmp_path, change):
    "Each part of a protocol on its own"
    other = changed(CA, **change)
    if change.get("side"):
        for r in other: r["metrics"] = dict(validation=r["metrics"]["test"])
    b = board(tmp_path, LATE, other)
    assert not b.aside and len(b.tables) == 2
    assert {len(t.rows) for t in b.tables} == {1}


def test_a_run_of_older_code_is_told(tmp_path):
    "It was dropped without a word"
    older = changed(LATE[:1], code_hash="e" * 64)
    for r, was in zip(older, LATE):
        r.update({k: was[k] for k in ("config_hash", "experiment")})
    b = board(tmp_path, older, LATE)
    assert b.runs == len(LATE) and [r["runs"] for r in b.tables[0].rows] == [len(LATE)]
    assert [a.why for a in b.aside] == ["the same run with other code: the one in report1 counts"]


def test_a_second_training_is_told_above_its_table(tmp_path):
    b = board(tmp_path, LATE, changed(CA, refit=dict(epochs=3, clips=960)))
    assert [t.ground.refit for t in b.tables] == [t.rows[0]["method"] == "ca" for t in b.tables]
    assert board_markdown(b).count("once these had chosen the epoch") == 1


def test_a_subset_of_the_folds_is_another_table(tmp_path):
    b = board(tmp_path, LATE, [r for r in CA if r["split"]["fold"] < 4])
    assert len(b.tables) == 2


def test_what_is_used_of_the_people_tested_tells_tables_apart(tmp_path):
    "The recipe centres each speaker's features; without it the same recipe is about strangers"
    cfg = configure(recipe="ravdess_folds", dataset="ravdess", fusion="ca", split="kfold5",
                    video_features="clip_average_aus.csv", options='{"by_speaker": []}')
    other = copy.deepcopy([r for r in CA if r["seed"] == 1])
    for r in other:
        r["config"]["options"] = '{"by_speaker": []}'
        r["config_hash"] = cfg.changed(fold=r["split"]["fold"]).hash
        r["experiment"] = cfg.experiment
    b = board(tmp_path, [r for r in LATE if r["seed"] == 1], other)
    assert sorted(t.ground.speakers for t in b.tables) == [
        "all their clips, unlabelled (audio and video)", "nothing"]


@pytest.mark.parametrize("n,says", [
    (None, "all their clips, unlabelled (audio and video)"), (8, "8 of their other clips, "),
    ("all", "all their other clips, ")], ids=str)
def test_how_many_clips_of_a_speaker_are_known_is_part_of_the_protocol(n, says, monkeypatch):
    cfg = SimpleNamespace(effective=dict(by_speaker=("audio", "video"), enrolment=n))
    monkeypatch.setattr(leaderboard, "known_config", lambda record: (cfg, True))
    assert leaderboard.used_of_speakers(LATE[0], "av").startswith(says)
    cfg.effective["by_speaker"] = ()
    assert leaderboard.used_of_speakers(LATE[0], "av") == "nothing"


def test_a_recipe_that_is_no_longer_the_same_is_not_believed(tmp_path):
    b = board(tmp_path, LATE, changed(CA, config__seed=1))
    assert len(b.tables) == 2
    assert any(t.ground.speakers.endswith("if the recipe was as it is today") for t in b.tables)


def test_intervals_resample_speakers_and_few_stand_for_themselves(tmp_path):
    row = board(tmp_path / "many", LATE).tables[0].rows[0]
    _, low, high = interval(pooled(LATE, "av")[0], "accuracy")
    assert (row["low"], row["high"], row["clusters"]) == (low, high, 20)
    one = [r for r in LATE if r["split"]["fold"] == 0]
    few = board(tmp_path / "few", one).tables[0]
    assert few.rows[0]["clusters"] == 4 < FEWEST and "low" not in few.rows[0]
    assert len(few.rows[0]["each"]) == 4
    assert shown(few)["95 % interval"][0].startswith("each: ")


def test_a_run_in_two_reports_counts_once(tmp_path):
    b = board(tmp_path, LATE, LATE[:3])
    assert b.runs == 15 and b.tables[0].rows[0]["runs"] == 15
    assert b.tables[0].rows[0]["found"] == "report0, report1"
    other = copy.deepcopy(LATE[:1])
    for s in ("metrics", "speakers"): other[0].pop(s)
    other[0]["metrics"] = dict(test=dict(av=dict(accuracy=.1)))
    b = board(tmp_path, LATE, other)
    assert b.runs == 15 and "the same run scored otherwise" in b.aside[0].why


ROW = dict(paper="mine2025", corpus="ravdess", method="best", given="av", side="test",
           metric="accuracy", value=".9", spread="", source="table 1", split="kfold5",
           speakers="all their clips, unlabelled (audio and video)", clips="1200")


def listed(path, *rows):
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def test_a_published_number_joins_where_its_protocol_is_the_tables(tmp_path):
    b = board(tmp_path / "r", LATE, numbers=listed(tmp_path / "own.csv", ROW))
    assert len(b.others) == 0
    first = b.tables[0].rows[0]
    assert first["published"] and first["accuracy"] == .9 and "table 1" in first["found"]
    assert "mine2025, best (published)" in board_markdown(b)


@pytest.mark.parametrize("change", [
    dict(split="kfold10"), dict(split=""), dict(speakers="nothing"), dict(speakers=""),
    dict(clips="1440"), dict(clips=""), dict(side="validation"), dict(given="video"),
    dict(corpus="ravdess intended"), dict(metric="ccc")], ids=str)
def test_any_other_published_number_stands_apart(tmp_path, change):
    b = board(tmp_path / "r", LATE, numbers=listed(tmp_path / "own.csv", ROW | change))
    assert len(b.others) == 1 and len(b.tables[0].rows) == 1
    text = board_markdown(b)
    assert text.index("## Published, other protocols") < text.index("mine2025")


def test_no_published_number_stands_beside_rendered_data(tmp_path, everything):
    drawn = changed(LATE, rendered=True)
    own = listed(tmp_path / "own.csv", ROW, ROW | dict(
        speakers="all their clips, unlabelled (audio and video), if the recipe was as it is today"))
    b = board(tmp_path / "r", drawn, numbers=own)
    assert len(b.others) == 2 and all(t.ground.rendered for t in b.tables)
    rows = [r for t in everything.tables if t.ground.rendered for r in t.rows]
    assert rows and not any(r.get("published") for r in rows)
    row = published().iloc[0].to_dict() | dict(split="x", speakers="x", clips="1")
    assert not any(joins(row, t) for t in everything.tables)


class Tags(HTMLParser):
    "The tags and attributes of a page"
    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes = set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {k for k, _ in attrs}


HOSTILE = '<script>alert(1)</script>"\' onload=x |`=cmd`\n# [x](javascript:y)'


def test_names_are_text_in_every_form(tmp_path):
    bad = changed(LATE, config__variants=HOSTILE, recipe_name=HOSTILE, dataset=HOSTILE,
                  classes=[HOSTILE + str(i) for i in range(8)], config__label=HOSTILE,
                  split__name=HOSTILE, code_hash="=1+1", config__video_features=HOSTILE)
    b = board(tmp_path / HOSTILE.replace("/", "-"), bad)
    assert len(b.tables) == 1 and not b.aside
    clean = Tags(board_html(board(tmp_path / "clean", LATE)))
    page = Tags(board_html(b, HOSTILE))
    assert page.tags == clean.tags and page.attributes == clean.attributes
    assert "script" not in page.tags
    lines = board_markdown(b, HOSTILE).splitlines()
    rows = [l for l in lines if l.startswith("| ")]
    assert rows and not any("<script" in l.replace("\\<", "") for l in lines)
    for p in write_board(b, tmp_path / "out"):
        assert p.is_file()
    t = pd.read_csv(tmp_path / "out/table.csv", dtype=str)
    assert not t.map(lambda x: str(x).startswith("=")).any(axis=None)


def test_what_cannot_be_read_is_told(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "c").mkdir()
    (tmp_path / "d").mkdir()
    (tmp_path / "a/record.json").write_text('{"half": ')
    (tmp_path / "b/records.json").write_text("[" * 100_000)
    (tmp_path / "c/record.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "d/records.json").write_text('{"records": [1, {"config": 7}, null], "common": 3}')
    b = board(tmp_path, LATE)
    assert b.runs == 15 and {a.where.split(",")[0] for a in b.aside} == {"a", "b", "c", "d"}
    text = board_markdown(b)
    assert "## Set aside" in text and str(tmp_path) not in text
    assert str(tmp_path) not in board_html(b)


def broken(record, rng):
    "A record in which something is missing, or something else"
    out = copy.deepcopy(record)
    odd = [None, 7, -1.5, "x", [], {}, [[1]], {"a": 1}, True, float("nan"), float("inf"), "9" * 400]
    at, path = out, []
    while True:
        key = rng.choice(list(at)) if isinstance(at, dict) else rng.randrange(len(at))
        path.append(str(key))
        inner = at[key]
        deeper = isinstance(inner, (dict, list)) and inner and len(path) < 5
        if deeper and rng.random() < .7:
            at = inner
            continue
        if rng.random() < .3 and isinstance(at, dict): del at[key]
        else: at[key] = rng.choice(odd)
        return out, "/".join(path)


def test_no_odd_record_hides_the_others(tmp_path):
    "150 records, each broken in a place of its own: the page is made, and the whole ones stand"
    rng = random.Random(0)
    want = board_frame(board(tmp_path / "whole", CA)).iloc[0].drop(["found", "table"])
    made = [broken(LATE[i % 15], rng) for i in range(150)]
    folder = tmp_path / "mixed"
    for i, (record, _) in enumerate(made): write_json(folder / f"r{i}/record.json", record)
    b = board(folder, CA)
    t = board_frame(b)
    mine = t.loc[(t.method == "ca") & (t.runs == 15)]
    assert len(mine) == 1
    pd.testing.assert_series_equal(mine.iloc[0][want.index], want, check_names=False)
    assert b.aside and len(board_html(b)) > 1000 and board_markdown(b)


def test_tallies_that_contradict_the_scores_set_a_record_aside(tmp_path):
    odd = changed(LATE[:1], metrics=dict(test=dict(av=dict(accuracy=.99))))
    b = board(tmp_path, odd, CA)
    assert len(b.tables) == 1 and "its tallies say" in b.aside[0].why


def run_folder(folder, record, rows, clips):
    "A run's folder: record, predictions, clips"
    write_json(folder / "record.json", record)
    rows.to_csv(folder / "predictions.csv", index=False)
    clips.to_csv(folder / "clips.csv", index=False)


def test_the_tallies_of_a_run_come_from_its_predictions(tmp_path):
    "Eight speakers, each with a right answer, and the first two with another one"
    names = [f"s{i}c{k}" for i in range(8) for k in range(2)]
    clips = pd.DataFrame(dict(clip=names, split="test", speaker=[n[:2] for n in names],
                              audio_sha256="", video_sha256=""))
    rows = pd.DataFrame(dict(clip=names, split="test", condition="av", fold=0, target="neutral",
                             prediction=["neutral"] * 4 + ["neutral", "calm"] * 6))
    record = copy.deepcopy(LATE[0])
    for k in ("speakers", "side"): record.pop(k)
    record["metrics"] = dict(test=dict(av=dict(accuracy=.625)))
    run_folder(tmp_path / "run", record, rows, clips)
    row = board_of([tmp_path]).tables[0].rows[0]
    assert row["clusters"] == 8 and row["low"] < .625 < row["high"]
    (tmp_path / "run/predictions.csv").write_text("odd\n1\n")
    assert "clusters" not in board_of([tmp_path]).tables[0].rows[0]


def test_the_command_says_what_it_made(tmp_path, capsys):
    with pytest.raises(SystemExit) as e: main(["leaderboard", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert e.value.code == 0 and "measured alike" in text and "--conditions" in text
    write_spec(tmp_path / "r", dict(kind="compare", title="", records=LATE))
    (tmp_path / "r/broken").mkdir()
    (tmp_path / "r/broken/record.json").write_text("{")
    assert main(["leaderboard", str(tmp_path / "r"), "--to", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "set aside: broken: cannot be read" in said and "15 runs" in said
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(BOARD_FILES)
    assert main(["leaderboard", str(tmp_path / "nowhere")]) == 2
    assert "is no folder" in capsys.readouterr().err
    with pytest.raises(AvkitError, match="train a run first"): files_of([tmp_path / "out"])


def test_the_committed_leaderboard_is_what_the_committed_records_make(tmp_path, everything):
    for p in write_board(everything, tmp_path):
        old = kit_path("reports/leaderboard") / p.name
        assert old.read_bytes() == p.read_bytes(), f"{old}: avkit reports leaderboard"
    assert read_json(kit_path("reports/ravdess_real/records.json"))["records"]


def test_lines_are_sorted_whoever_made_them(tmp_path):
    "A published number that is higher stands first, one of another score last"
    own = listed(tmp_path / "own.csv", ROW, ROW | dict(value=".1", method="worst"),
                 ROW | dict(metric="uar", method="other"))
    rows = board(tmp_path / "r", LATE, numbers=own).tables[0].rows
    assert [r["method"].split(" (")[0] for r in rows] == [
        "mine2025, best", "late", "mine2025, worst", "mine2025, other"]
