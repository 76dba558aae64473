"""A paper's numbers stand beside the rows of its study's table, or are refused."""

import shutil
import pytest
from avkit.core import AvkitError, repo_root
from avkit.reports import papers


@pytest.fixture
def written(tmp_path, monkeypatch):
    "A function that adds a line to a copy of reported.csv, which is read from then on"
    shutil.copytree(repo_root() / "data_manifests", tmp_path / "data_manifests")
    monkeypatch.setattr(papers, "manifests_dir", lambda: tmp_path / "data_manifests")

    def write(line):
        with open(tmp_path / "data_manifests/reported.csv", "a") as f:
            f.write(line + ',.5,,"table 1"\n')

    return write


@pytest.mark.parametrize("key", papers.STUDIES)
def test_what_is_reported_has_a_row(key):
    for dataset in (None, *papers.STUDIES[key].also):
        papers.check_reported(key, dataset)


@pytest.mark.parametrize(
    "line, said",
    [
        ("jca2023,affwild2 va,jcca,av,validation,ccc", "Unknown method of jca2023.*'jca'.*smoothed"),
        ("jca2023,affwild2 va,audio alone,av,validation,ccc", "Unknown given.*Known: audio"),
        ("jca2023,affwild2 va,jca,av,testing,ccc", "Unknown side.*did you mean 'test'"),
        ("jca2023,affwild2 va,jca,av,test,cc", "Unknown metric.*did you mean 'ccc'"),
        ("jca2023,affwild2,jca,av,test,ccc", "Unknown corpus.*did you mean 'affwild2 va'"),
    ],
)
def test_a_number_without_a_row_is_refused_before_anything_runs(written, line, said):
    written("jca2023,affwild2 va,audio alone,audio,validation,ccc")
    papers.study("jca2023", papers.Protocol())
    written(line)
    with pytest.raises(AvkitError, match=said):
        papers.study("jca2023", papers.Protocol())
