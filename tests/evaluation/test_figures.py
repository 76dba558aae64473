"""Figures say what lines, dots and shades are, and set side by side what is comparable."""
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from avkit.core import kit_path
from avkit.evaluation import figures
from avkit.reports.audits import audit_figure
from avkit.reports.quirk_effects import effect_figure
from avkit.reports.records import read_spec
from avkit.reports.robustness import curves_figure
from avkit.reports.unpaired import unpaired_figure
from avkit.training.configure import configure


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def texts(fig):
    "All that is written in a figure"
    return "\n".join(t.get_text() for t in fig.findobj(plt.Text))


HISTORY = [dict(epoch=i, train_loss=5 - i, validation_loss=2 - i / 2, train_accuracy=.3 * i,
                validation_accuracy=.25 * i) for i in range(3)]


def test_what_is_minimised_and_what_is_measured_do_not_share_a_panel():
    "The training clips' loss beside validation's is the one that was measured in the same way"
    told = figures.minimised(configure(recipe="demo"))
    fig = figures.learning_curves(HISTORY, 2, 1 / 8, dict(loss=.08, accuracy=1.), told)
    first, middle, last = fig.axes
    lines = lambda ax: {l.get_label(): l.get_ydata() for l in ax.get_lines()}
    assert "training batches, while it learns" not in lines(middle)
    assert "validation clips, after each epoch" not in lines(first)
    assert list(lines(middle)["training clips, by the kept model"]) == [.08]
    assert list(lines(last)["training clips, by the kept model"]) == [1.]
    said = " ".join(texts(fig).split())
    for word in ("labels smoothed by 0.1", "+ 1 x the loss of each stream's own head",
                 "training batches, while it learns", "guessing", "epoch that is kept"):
        assert word in said, word
    assert "smoothed" not in figures.minimised(
        configure(recipe="emotiw2023", size="paper"))


def test_a_history_without_training_scores_is_drawn():
    fig = figures.learning_curves([dict(epoch=0, train_loss=1., validation_loss=1.,
                                        validation_ccc=-.2)])
    assert fig.axes[2].get_ylim()[0] <= -.2


def test_shades_and_dots_have_keys():
    quirks = pd.read_csv(kit_path("reports/quirks/table.csv"))
    assert "each seed" in texts(effect_figure(quirks))
    assert "each seed" in texts(unpaired_figure(read_spec(kit_path("reports/unpaired"))["records"]))
    spec = read_spec(kit_path("reports/audit_ravdess"))
    found = spec["about"] | dict(groups=spec["records"])
    fig = audit_figure(found)
    said = texts(fig)
    for word in ("more than chance", "not told from chance", "95 % interval", "begins at its own"):
        assert word in said, word
    shades = {h.get_label(): h.get_facecolor() for h in fig.axes[0].get_legend().get_patches()}
    assert len(set(shades.values())) == 2 == len(fig.axes[0].get_legend().get_patches())
    curves = pd.read_csv(kit_path("reports/robustness_real/curves.csv"))
    assert "95 % interval over speakers" in texts(curves_figure(curves, .125))


def test_the_contact_sheet_can_be_read(monkeypatch):
    "Long names are cut in their middle, no title runs into the next, images are large"
    image, long = np.zeros((40, 40, 3), np.uint8), "a_very_long_name_of_a_speaker_0017"
    titles = [f"{figures._short(long)}\nhappy"] * 8
    monkeypatch.setattr(figures, "_sheet_images", lambda *a: [(t, image) for t in titles])
    fig = figures.contact_sheet([0] * 30, None, None, columns=4)
    fig.draw_without_rendering()
    shown = [ax for ax in fig.axes if ax.get_title()]
    boxes = [ax.title.get_window_extent() for ax in shown[:4]]
    assert all(a.x1 < b.x0 for a, b in zip(boxes, boxes[1:]))
    assert all(ax.get_window_extent().width > 100 for ax in shown)
    cut = figures._short(long)
    assert len(cut) == 18 and cut.startswith("a_very_lo") and cut.endswith("0017")
    assert figures._short("anna") == "anna" and "8 of 30 clips" in texts(fig)
