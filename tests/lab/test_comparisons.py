"""Figures show the numbers of their tables, and carry their captions."""

import math

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from PIL import Image
from scipy import stats

from sswp_lib.lab import comparisons, drawings, plots, tables
from sswp_lib.lab.records import Done
from sswp_lib.space import CANDIDATES, Genotype


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def frame(values: dict[str, list[float]]) -> pd.DataFrame:
    return pd.DataFrame(
        [{"arm": arm, "seed": s, "scratch": v, "fine-tuned": v + 1, "parameters": 1000 * (i + 1)} for i, (arm, row) in enumerate(values.items()) for s, v in enumerate(row)]
    )


def test_half_width_is_students():
    values = pd.Series([1.0, 2.0, 4.0])
    interval = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert comparisons.half_width(values) == pytest.approx((interval.high - interval.low) / 2)
    assert comparisons.half_width(values[:1]) == 0.0


def test_arms_show_every_seed_the_means_and_the_paper():
    figure = comparisons.arms(frame({"SL": [90.0, 92.0], "SSL": [93.0, 97.0]}), ["SL", "SSL"], reported={"SL": 2.92, "SSL": 2.65})
    paper, scratch, tuned = figure.axes
    assert paper.lines[0].get_xdata() == pytest.approx([97.08, 97.35])
    points = [line.get_xdata().tolist() for line in scratch.lines if line.get_marker() == "."]
    assert points == [[90.0, 92.0], [93.0, 97.0]]
    assert [line.get_xdata()[0] for line in tuned.lines if line.get_marker() == "o"] == [92.0, 96.0]
    assert [text.get_text() for text in paper.get_yticklabels()] == ["SL", "SSL"]


def test_by_fraction_draws_means_and_bands():
    rows = [("random", f, s, 50 + 40 * f + s) for f in (0.1, 0.5) for s in (0, 1)]
    axes = comparisons.by_fraction(pd.DataFrame(rows, columns=["init", "fraction", "seed", "test"])).axes[0]
    assert axes.lines[0].get_xdata() == pytest.approx([10, 50]) and axes.lines[0].get_ydata() == pytest.approx([54.5, 70.5])
    assert len(axes.collections) == 1


def test_along_and_sizes_draw_every_arm():
    values = frame({"10 epochs": [1.0, 3.0], "20 epochs": [4.0, 4.0]})
    axes = comparisons.along({"epochs": values}, {"epochs": ["10 epochs", "20 epochs"]}).axes[0]
    assert [line.get_ydata().tolist() for line in axes.lines if line.get_marker() == "o"] == [[2.0, 4.0]]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["10", "20"]
    points = [line for line in comparisons.size_against_accuracy(values, ["10 epochs", "20 epochs"]).axes[0].lines if len(line.get_xdata()) == 1 and line.get_marker() in "os"]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in points] == [(1.0, 2.0), (2.0, 4.0)]


def test_curves_of_searches_and_norms(finished):
    done = [Done({"arm": name, "what": "search", "seed": 0}, finished) for name in ("SSL", "SSL+FPP")]
    loss, entropy = comparisons.through_phases(done, ["SSL", "SSL+FPP"]).axes
    assert loss.lines[0].get_ydata() == pytest.approx([row["loss"] for row in finished.history])
    assert entropy.lines[0].get_ydata() == pytest.approx([np.mean(row["entropy"]) for row in finished.history])
    norms = tables.weight_norms(finished)
    axes = comparisons.weight_norms({"concomitant": norms}).axes[0]
    assert f"{norms.median():.3f}" in axes.get_legend().get_texts()[0].get_text()


def test_operations_by_depth_add_up_to_eight():
    axes = drawings.operations_by_depth(Genotype.published("DARTS_V2", 5)).axes[0]
    heights = np.array([[bar.get_height() for bar in part] for part in axes.containers])
    assert heights.sum(0).tolist() == [8] * 5
    assert heights[:, 0].tolist() == [sum(name == op for name, _ in Genotype.published("DARTS_V2", 5).cells[0]) for op in CANDIDATES]


def test_changes_count_edges_with_another_best(finished):
    image = drawings.changes(finished).axes[0].images[0].get_array()
    best = [row["best"] for row in finished.history]
    expected = [[0, *(sum(a != b for a, b in zip(best[e][c], best[e - 1][c], strict=True)) for e in range(1, len(best)))] for c in range(2)]
    assert image.tolist() == expected


@pytest.mark.parametrize("dot", ["/usr/bin/dot", None])
def test_published_cells_are_drawn_with_and_without_dot(monkeypatch, dot):
    if dot and drawings.shutil.which("dot") is None:
        pytest.skip("the program dot is not installed")
    monkeypatch.setattr(drawings.shutil, "which", lambda name: dot)
    figure = drawings.published("PDARTS")
    assert [len(a.images) for a in figure.axes] == [1, 1] if dot else [a.get_title() for a in figure.axes] == ["PDARTS, normal", "PDARTS, reduction"]


def test_a_saved_figure_carries_its_caption(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "home", lambda: tmp_path)
    figure = comparisons.arms(frame({"a": [1.0, 2.0]}), ["a"])
    plots.save(figure, "f", "smoke", "One arm, 2 seeds")
    with Image.open(tmp_path / "figures" / "smoke" / "f.png") as image:
        assert image.info["Description"] == "One arm, 2 seeds. Preset smoke."
    assert "One arm, 2 seeds. Preset smoke." in (tmp_path / "figures" / "smoke" / "f.svg").read_text()
    caption = next(text for text in figure.texts if "One arm" in text.get_text())
    below = min(a.get_tightbbox().y0 for a in figure.axes)
    assert caption.get_window_extent().y1 < below and math.isfinite(below)
