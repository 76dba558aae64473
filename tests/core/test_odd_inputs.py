"""A small part of `faults/odd.py`: odd files and settings end in a sentence, or do no harm."""

import pytest

from faults import odd

ONLY = ["joints", "facts", "answers", "own_labels", "manifest_table", "split_list", "over_time",
        "submission", "parameters", "notes", "archives"]  # fmt: skip


def test_odd_inputs_are_a_sentence_or_harmless(tmp_path, monkeypatch):
    for name in ("AVKIT_HOME", "AVKIT_PROGRESS", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, "1")  # so that what it was comes back
    makers = (odd.make_tables, odd.make_others, odd.make_films)
    found = odd.run(4, 7, tmp_path, ONLY, lambda _: None, makers=makers)
    assert len(found) == 4 * len(ONLY) and odd.row(found)["not_held"] == []
    assert {f["end"] for f in found} == {"sentence", "harmless"}


def refuse():
    raise ValueError("not for people")


def slow():
    while True:
        pass


@pytest.mark.parametrize(
    "use,end",
    [
        (lambda w: refuse(), "traceback"),
        (lambda w: 0, "harmless"),
        (lambda w: odd.main(["no-such-command"]), "sentence"),
    ],
)
def test_what_is_a_traceback_is_called_one(tmp_path, use, end):
    assert odd.judged(use, tmp_path)[0] == end


def test_a_crash_and_a_hang_are_found(monkeypatch):
    monkeypatch.setattr(odd, "SECONDS", 1)
    assert odd.in_fork(slow)[0] == "hang"
    assert odd.in_fork(lambda: odd.os.kill(odd.os.getpid(), 9))[0] == "crash"
