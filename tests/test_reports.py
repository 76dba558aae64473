"""Committed tables are what the code makes of committed records; the index names every report."""
import pytest
from avkit.core import repo_root
from avkit.reports import committed, remake

ROOT = repo_root()


@pytest.mark.parametrize("folder", committed(), ids=lambda p: p.relative_to(ROOT / "reports").as_posix())
def test_tables_are_what_the_records_make(folder, tmp_path):
    "Exact on any machine: counts and a few sums go in, and the draws are seeded"
    remake(folder, tmp_path)
    made = [p for p in sorted(tmp_path.iterdir()) if p.suffix in (".md", ".csv", ".tex")]
    assert len(made) >= 3
    for p in made: assert (folder / p.name).read_bytes() == p.read_bytes(), f"{folder / p.name}: run make reports"


def test_the_index_names_every_report():
    index = ROOT / "reports/README.md"
    if not index.is_file(): pytest.skip("make reports was not run yet")
    text = index.read_text()
    for d in committed(): assert f"({d.relative_to(ROOT / 'reports').as_posix()}/table.md)" in text, f"{d} is not in reports/README.md: run make reports"
