"""Hundreds of tiny files of all kinds: avkit sees in each what FFmpeg's own command line sees, and
its own functions agree. `python tests/preprocessing/media_files.py` prints the table."""

import pytest

pytest.importorskip("imageio_ffmpeg")
from media_files import GROUPS, compare, report


@pytest.mark.parametrize("group", GROUPS)
def test_avkit_sees_what_ffmpeg_sees(group, tmp_path, capsys):
    found = compare(group, tmp_path)
    with capsys.disabled():
        print("\n" + report(group, found))
    assert not any(found.values()), report(group, found)


def test_there_are_hundreds():
    files = [c.file for g in GROUPS for c in GROUPS[g]()]
    assert len(files) >= 300
