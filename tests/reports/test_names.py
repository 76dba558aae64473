"""Names that somebody else chose, in every language that avkit writes: they look as they were written
and do nothing."""

import csv, html.parser, io, re
from types import SimpleNamespace
import matplotlib.pyplot as plt
import numpy as np, pandas as pd, pytest
from avkit.evaluation import annotate
from avkit.evaluation.figures import confusion
from avkit.markup import csv_text, html_text, latex_text, markdown_text, sheet_text
from avkit.reports import curves, overview
from avkit.reports.errors import _bar
from avkit.reports.side_by_side import to_html
from avkit.reports.tables import write_frame

SIGNS = "abc|`*_<>[]{}&%$#~^\\\"'=+-@,;\n\t é±"
ODD = ["a|b", "=1+1", "@SUM(1)", "<script>x</script>", "R&D_1", "50%", "$x$", "\\frac{", "`c`", "a\nb"]


def names(n=300, seed=0):
    rng = np.random.default_rng(seed)
    return ODD + ["".join(rng.choice(list(SIGNS), rng.integers(1, 9))) for _ in range(n)]


class Text(html.parser.HTMLParser):
    "The text of a page, and its tags"

    def __init__(self):
        super().__init__()
        self.text, self.tags = "", []

    def handle_data(self, data):
        self.text += data

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)


def test_html_shows_what_was_written():
    for name in names():
        page = Text()
        page.feed(f"<b title='{html_text(name)}'>{html_text(name)}</b>")
        page.close()
        assert page.text == name and page.tags == ["b"]
    table = to_html(pd.DataFrame({"<i>": ODD}))
    assert "<script" not in table and "<i>" not in table and "<script" not in _bar(ODD[3], 1, "red")


def test_a_markdown_row_keeps_its_cells():
    for name in names():
        cell = markdown_text(name)
        assert "\n" not in cell and not re.search(r"(?<!\\)(\\\\)*\|", cell)
        assert not re.search(r"(?<!\\)(\\\\)*<", cell)
        assert re.sub(r"\\([^a-z\s])", r"\1", cell) == " ".join(name.splitlines())


def test_latex_has_no_sign_of_its_own_left():
    for name in names():
        bare = re.sub(r"\\text\w+\{\}|\$\\pm\$|\\[&%$#_{}]", "", latex_text(name))
        assert not set(bare) & set("\\&%$#_{}~^"), (name, bare)


def test_data_read_back_and_reports_compute_nothing():
    t = pd.DataFrame({"class": names(), "n": -1.5})
    back = list(csv.reader(io.StringIO(csv_text(t), newline="")))[1:]
    assert [row[0] for row in back] == t["class"].tolist()
    shown = list(csv.reader(io.StringIO(sheet_text(t), newline="")))[1:]
    formulas = [r[0] for r in shown if r[0][:1] in tuple("=+-@\t\r") and len(r[0]) > 1]
    assert not [f for f in formulas if not re.fullmatch(r"[+-]?\d+(\.\d+)?", f)]
    assert {r[1] for r in shown} == {"-1.5"}


def test_a_report_on_odd_classes(tmp_path):
    t = pd.DataFrame({"class": ODD, "a|b": 0.5})
    write_frame(t, tmp_path, "Odd")
    lines = (tmp_path / "table.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == len(ODD) + 2
    assert all(len(re.findall(r"(?<!\\)\|", r)) == 3 for r in rows)
    assert "'=1+1" in (tmp_path / "table.csv").read_text()
    assert r"R\&D\_1" in (tmp_path / "table.tex").read_text()


@pytest.mark.parametrize("name", ["$x$", r"$\frac$", "a$b$"])
def test_a_figure_shows_a_dollar(name, tmp_path):
    p = pd.DataFrame(dict(target=[name, "b"], prediction=["b", name]))
    confusion(p, [name, "b"], name).savefig(tmp_path / "c.png")


def shown(ax):
    "The texts of a legend, as they look"
    return [t.get_text().replace("\u200b", "") for t in ax.get_legend().get_texts()]


def test_a_legend_shows_names_that_begin_with_an_underscore(recwarn):
    t = pd.DataFrame(dict(time=[0.0, 1], _calm=[0.5, 0.5], angry=[0.5, 0.5]))
    bands = t.assign(**{f"{n} {k}": t[n] for n in ("_calm", "angry") for k in ("low", "high")})
    ax = overview._stack(t, ["_calm", "angry"]).axes[0]
    assert shown(ax) == ["_calm", "angry"]
    _, ax = plt.subplots()
    overview._draw_bands(ax, bands, ["_calm", "angry"])
    assert shown(ax) == ["_calm", "angry"]
    h = pd.DataFrame(dict(name=["_mine", "b"], run=["_mine", "b"], epoch=0, train_loss=[1.0, 2.0]))
    fig = curves._overlay(h, ["_mine", "b"], ["train_loss"])
    assert shown(fig.axes[0]) == ["_mine (1)", "b (1)"]
    _, ax = plt.subplots()
    rows = t.assign(start=[0, 1], end=[1, 2])
    names = ["_calm", "angry"]
    p = SimpleNamespace(classes=names, columns=names, table=rows, settings={})
    annotate._curves(ax, rows, p)
    annotate._number_axes(ax, p)
    assert shown(ax) == ["_calm", "angry"]
    ax.figure.canvas.draw()
    assert not [w for w in recwarn if "lyph" in str(w.message)]
