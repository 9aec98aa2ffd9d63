"""Figures show the numbers of their tables, and carry their captions."""

import math

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from PIL import Image
from scipy import stats

from sswp_lib.config import Search
from sswp_lib.learn import measure
from sswp_lib.paper import output
from sswp_lib.runs.records import Done
from sswp_lib.show import comparisons, drawings, maps, plots
from sswp_lib.space import CANDIDATES, Genotype


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def frame(values: dict[str, list[float]]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"arm": arm, "seed": s, "scratch": v, "fine-tuned": v + 1, "parameters": 1000 * (i + 1)}
            for i, (arm, row) in enumerate(values.items())
            for s, v in enumerate(row)
        ]
    )


def test_half_width_is_students():
    values = pd.Series([1.0, 2.0, 4.0])
    interval = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert comparisons.half_width(values) == pytest.approx((interval.high - interval.low) / 2)
    assert comparisons.half_width(values[:1]) == 0.0


def test_arms_show_every_seed_the_means_and_the_paper():
    figure = comparisons.arms(
        frame({"SL": [90.0, 92.0], "SSL": [93.0, 97.0]}), ["SL", "SSL"], reported={"SL": 2.92, "SSL": 2.65}
    )
    paper, scratch, tuned = figure.axes
    assert paper.lines[0].get_xdata() == pytest.approx([97.08, 97.35])
    points = [line.get_xdata().tolist() for line in scratch.lines if line.get_marker() == "."]
    assert points == [[90.0, 92.0], [93.0, 97.0]]
    assert [line.get_xdata()[0] for line in tuned.lines if line.get_marker() == "o"] == [92.0, 96.0]
    assert [text.get_text() for text in paper.get_yticklabels()] == ["SL", "SSL"]
    assert (
        scratch.get_xlim() == tuned.get_xlim() != paper.get_xlim() and scratch.get_xlim()[1] < 101
    )  # an interval from 69.6 to 120.4 ends there


def test_equal_seeds_are_drawn_beside_each_other():
    assert comparisons.apart(pd.Series([88.0, 90.0, 90.0])).tolist() == pytest.approx([0, 0, 0.09])


def test_by_fraction_draws_means_and_bands():
    rows = [("random", f, s, 50 + 40 * f + s) for f in (0.1, 0.5) for s in (0, 1)]
    axes = comparisons.by_fraction(pd.DataFrame(rows, columns=["init", "fraction", "seed", "test"])).axes[0]
    assert axes.lines[0].get_xdata() == pytest.approx([10, 50]) and axes.lines[0].get_ydata() == pytest.approx(
        [54.5, 70.5]
    )
    assert len(axes.collections) == 1


def test_along_and_sizes_draw_every_arm():
    values = frame({"10 epochs": [1.0, 3.0], "20 epochs": [4.0, 4.0]})
    axes = comparisons.along({"epochs": values}, {"epochs": ["10 epochs", "20 epochs"]}).axes[0]
    assert [line.get_ydata().tolist() for line in axes.lines if line.get_marker() == "o"] == [[2.0, 4.0]]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["10", "20"]
    points = [
        line
        for line in comparisons.against_accuracy(values, ["10 epochs", "20 epochs"]).axes[0].lines
        if len(line.get_xdata()) == 1 and line.get_marker() in "os"
    ]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in points] == [(1.0, 2.0), (2.0, 4.0)]


def test_curves_of_searches_and_norms(finished):
    done = [Done({"arm": name, "what": "search", "seed": 0}, finished) for name in ("SSL", "SSL+FPP")]
    loss, entropy = comparisons.through_phases(done, ["SSL", "SSL+FPP"]).axes
    assert loss.lines[0].get_ydata() == pytest.approx([row["loss"] for row in finished.history])
    ends = {int(cell): epoch for cell, epoch in finished.result["pruned_at"].items()}
    searching = [
        [value for cell, value in enumerate(row["entropy"]) if row["epoch"] < ends[cell]] for row in finished.history
    ]
    assert any(len(values) == 1 for values in searching), "no epoch in which one of the two cells is pruned"
    assert entropy.lines[0].get_ydata() == pytest.approx(
        [np.mean(values) if values else np.nan for values in searching], nan_ok=True
    )
    norms = pd.Series(measure.norms(finished.weights()))
    axes = comparisons.weight_norms({"concomitant": norms}).axes[0]
    assert f"{norms.median():.3f}" in axes.get_legend().get_texts()[0].get_text()


def test_a_search_is_shaded_by_the_phases_that_it_has(finished):
    figure = plots.phases(Search(epochs=6, ratios=(0.0, 0.4, 0.6)), 3)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["bi-level", "pruning", "searching", "pruned"]
    assert "a cell is pruned" in [text.get_text() for text in plots.search_curves(finished).legends[0].get_texts()]


def test_operations_are_told_apart_without_colour():
    assert len(set(plots.OPERATION_DASHES.values())) == len(set(plots.OPERATION_HATCHES.values())) == len(CANDIDATES)


def test_operations_by_depth_add_up_to_eight():
    axes = drawings.operations_by_depth(Genotype.published("DARTS_V2", 5)).axes[0]
    heights = np.array([[bar.get_height() for bar in part] for part in axes.containers])
    assert heights.sum(0).tolist() == [8] * 5
    assert heights[:, 0].tolist() == [
        sum(name == op for name, _ in Genotype.published("DARTS_V2", 5).cells[0]) for op in CANDIDATES
    ]


def test_changes_count_edges_with_another_best(finished):
    image = drawings.changes(finished).axes[0].images[0].get_array()
    best = [row["best"] for row in finished.history]
    expected = [
        [0, *(sum(a != b for a, b in zip(best[e][c], best[e - 1][c], strict=True)) for e in range(1, len(best)))]
        for c in range(2)
    ]
    assert image.tolist() == expected


@pytest.mark.parametrize("dot", ["/usr/bin/dot", None])
def test_published_cells_are_drawn_with_and_without_dot(monkeypatch, dot):
    if dot and drawings.shutil.which("dot") is None:
        pytest.skip("the program dot is not installed")
    monkeypatch.setattr(drawings.shutil, "which", lambda name: dot)
    figure = drawings.published("PDARTS")
    assert (
        [len(a.images) for a in figure.axes] == [1, 1]
        if dot
        else [a.get_title() for a in figure.axes] == ["PDARTS, normal", "PDARTS, reduction"]
    )


def test_a_graph_names_its_inputs_and_puts_operations_on_the_edges():
    genotype = Genotype.published("PDARTS", 3)
    source = drawings.cell_graph(genotype, 0).source
    assert '"0: stem"' in source and '"1: stem"' in source
    assert (
        '"0: cell 0"' in drawings.cell_graph(genotype, 2).source
        and '"1: cell 1"' in drawings.cell_graph(genotype, 2).source
    )
    assert source.count("conv") + source.count("pool") + source.count("skip") == 8


def test_pictures_of_cells_stand_on_one_scale():
    figure = drawings._one_scale([np.ones((100, 400, 4)), np.ones((150, 200, 4))])
    figure.canvas.draw()
    scales = [
        (a.get_window_extent().width / 400, a.get_window_extent().height / h)
        for a, h in zip(figure.axes, (100, 150), strict=True)
    ]
    assert scales[0] == pytest.approx(scales[1], rel=0.01)


@pytest.fixture
def out(tmp_path, monkeypatch):
    monkeypatch.setattr(output, "home", lambda: tmp_path)
    return output.Output("smoke", ("data=folder:x", "a=1"))


def test_a_saved_figure_carries_its_caption_and_what_is_not_as_in_the_preset(out, tmp_path):
    figure = comparisons.arms(frame({"a": [1.0, 2.0]}), ["a"])
    plots.save(figure, "f", out, "One arm, 2 seeds")
    said, folder = "One arm, 2 seeds. Preset smoke with data=folder:x, a=1.", tmp_path / "figures" / "own"
    with Image.open(folder / "smoke+data=folder-x+a=1" / "f.png") as image:
        assert image.info["Description"] == said
    assert said in (folder / "smoke+data=folder-x+a=1" / "f.svg").read_text()
    caption = next(text for text in figure.texts if "One arm" in text.get_text())
    assert caption.get_text().replace("\u00a0", " ").replace("\n", " ") == said
    below = min(a.get_tightbbox().y0 for a in figure.axes)
    assert caption.get_window_extent().y1 < below and math.isfinite(below)


def test_long_names_of_folders_are_cut_and_stay_apart(out):
    many = [output.Output("smoke", (f"data=folder:{'x' * 100}{i}",)).name for i in range(2)]
    assert many[0] != many[1] and max(map(len, many)) <= output.LONGEST


def grid(values: dict[tuple[int, int], tuple[float, float]]) -> pd.DataFrame:
    return pd.DataFrame(
        {"labels of a class": k, "search epochs": e, "difference": d, "low": d - half, "high": d + half}
        for (k, e), (d, half) in values.items()
    )


def test_the_map_writes_every_difference_and_frames_those_that_are_decided():
    values = {(1, 30): (2.0, 3.0), (1, 240): (7.3, 4.4), (50, 30): (-0.6, 0.4), (50, 240): (0.1, 0.6)}
    figure = maps.weights_map({"digits": grid(values), "others": grid({(2, 8): (1.0, math.nan)})})
    left, right = figure.axes[:2]
    assert [t.get_text() for t in left.texts] == ["+2.0\n± 3.0", "-0.6\n± 0.4", "+7.3\n± 4.4", "+0.1\n± 0.6"]
    assert [t.get_weight() for t in left.texts] == ["normal", "bold", "bold", "normal"] and len(left.patches) == 2
    assert [t.get_text() for t in left.get_xticklabels()] == ["1", "50"]
    assert [t.get_text() for t in left.get_yticklabels()] == ["30", "240"]
    assert [t.get_text() for t in right.texts] == ["+1.0"] and not right.patches
    assert left.images[0].norm.vmax == right.images[0].norm.vmax == 7.3  # one scale of colours


def test_a_panel_for_each_data_set_has_a_dot_for_each_search():
    one, other = frame({"a": [80.0, 82.0], "b": [70.0, 71.0]}), frame({"a": [40.0, 44.0], "b": [30.0, 35.0]})
    figure = comparisons.by_data({"digits": one, "photographs": other}, ["a", "b"], "scratch")
    assert [a.get_title() for a in figure.axes] == ["digits", "photographs"]
    for a, values in zip(figure.axes, (one, other), strict=True):
        dots = [x for line in a.lines if line.get_marker() == "." for x in line.get_xdata()]
        assert dots == values["scratch"].tolist()
