"""Damaged files of every container go through prepare: no crash, no hang, nothing short is stored
(by two
pictures or .05 s of sound: AVI and MPEG have no checksums), each failure one row."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from avkit.preprocessing.writing import CODECS

MUTANTS, HANG = 500, 600  # seconds after which a child is taken for hung; it needs some twenty


@pytest.mark.parametrize("suffix", [*CODECS, ".wav", ".flac"])
def test_mutants(suffix, tmp_path):
    child = subprocess.run(
        [
            sys.executable,
            str(Path(__file__).with_name("fuzz_child.py")),
            suffix,
            str(MUTANTS),
            str(tmp_path),
        ],
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    lines = [json.loads(l) for l in child.stdout.splitlines() if l.startswith("{")]
    assert child.returncode == 0, f"crashed at mutant {len(lines)}: {child.stderr[-2000:]}"
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
