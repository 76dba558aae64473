"""Damaged files of every container go through prepare: no crash, no hang, nothing short is stored
(by two
pictures or .05 s of sound: AVI and MPEG have no checksums), each failure one row."""

import json

import fuzz_child
import pytest
from helpers import forked_process

from avkit.preprocessing.writing import CODECS

MUTANTS, HANG = 500, 600  # seconds after which a child is taken for hung; it needs some twenty


@pytest.mark.parametrize("suffix", [*CODECS, ".wav", ".flac"])
def test_mutants(suffix, tmp_path):
    child = forked_process(target=fuzz_child.write, args=(suffix, MUTANTS, tmp_path))
    child.start()
    child.join(HANG)
    child.kill()
    text = (tmp_path / "lines.txt").read_text()
    lines = [json.loads(l) for l in text.splitlines() if l.startswith("{")]
    assert child.exitcode == 0, f"crashed or hung at mutant {len(lines)}: {text[-2000:]}"
    assert len(lines) == MUTANTS and set(l["kind"] for l in lines) == {
        "truncated",
        "flipped",
        "zeroed",
        "swapped",
        "empty",
    }
    for l in lines:
        if l["status"] == "failed":
            assert f"m{l['mutant']}{suffix}" in l["reason"], l
        elif l["status"] == "done":
            assert l["whole"] and (l["same"] or l["kind"] not in ("truncated", "empty")), l
        else:
            assert l["status"] == "cached" and l["same"], l  # a mutant that is the file itself
