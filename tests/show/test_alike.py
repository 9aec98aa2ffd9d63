"""Figures of neighbours and of the choice show what their records say, and nothing else is needed for them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import same_color

from sswp_lib.runs.records import Record
from sswp_lib.show import alike, choice
from sswp_lib.show.plots import OPERATION_COLOURS
from sswp_lib.space import CANDIDATES


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def record(kind: str, result: dict, history: list = ()) -> Record:
    return Record(name=f"{kind}-1", kind=kind, config={}, seed=0, history=list(history), result=result, provenance={})


@pytest.fixture
def measured(data) -> Record:
    """Six images of the classes 0 1 0 1 0 1, two neighbours each."""
    found = {
        "before": [[1, 2], [3, 5], [0, 4], [1, 5], [0, 1], [1, 3]],
        "after": [[2, 4], [3, 5], [0, 4], [1, 5], [0, 2], [1, 3]],
        "pixels": [[1, 3], [0, 2], [0, 4], [1, 5], [0, 2], [1, 3]],
    }
    shares = {"before": 75.0, "after": 100.0, "pixels": 66.7}
    places = [10, 11, 12, 13, 14, 15]
    result = {"part": "test", "images": places, "k": 2, "neighbours": found, "labels": [0, 1] * 3, "same class": shares}
    return record("neighbours", result)


def shown(figure) -> list[list[tuple[np.ndarray, bool, bool]]]:
    """Return, line by line and from the left, each image with whether it has a frame and whether it has a cross."""
    (axes,) = figure.axes
    lines: dict[float, list] = {}
    frames = [patch.get_xy() for patch in axes.patches if same_color(patch.get_edgecolor(), alike.WRONG)]
    crosses = [line.get_xydata()[0] for line in axes.lines if line.get_marker() == "X"]
    for image in axes.images:
        left, right, bottom, top = image.get_extent()
        crossed = any(left < x < right and top < y < bottom for x, y in crosses)
        lines.setdefault(top, []).append((left, image.get_array(), (left, top) in frames, crossed))
    return [[tuple(rest) for _, *rest in sorted(line, key=lambda one: one[0])] for _, line in sorted(lines.items())]


def words(figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_a_line_an_image_of_each_class_with_its_neighbours(measured, data):
    lines = shown(alike.neighbours(measured, data))
    expected = [[0, 1, 2, 2, 4, 1, 3], [1, 3, 5, 3, 5, 0, 2]]  # the image; before, after, pixels
    assert [len(line) for line in lines] == [7, 7]
    for line, places in zip(lines, expected, strict=True):
        for (image, _, _), place in zip(line, places, strict=True):
            assert np.array_equal(image, data.test[measured.result["images"][place]].permute(1, 2, 0).numpy())


def test_another_class_has_a_frame_and_a_cross_and_the_same_neither(measured, data):
    lines = shown(alike.neighbours(measured, data))
    wrong = [[False, True, False, False, False, True, True], [False, False, False, False, False, True, True]]
    assert [[framed for _, framed, _ in line] for line in lines] == wrong
    assert [[crossed for _, _, crossed in line] for line in lines] == wrong


def test_titles_say_how_many_are_of_the_same_class_and_lines_which_it_is(measured, data):
    said = words(alike.neighbours(measured, data))
    assert said[:2] == [data.classes[0], data.classes[1]] and said[2] == "image"
    assert [title.rpartition(": ")[2] for title in said[3:]] == ["75.0 %", "100.0 %", "66.7 %"]


def test_images_without_labels_have_no_mark_and_no_share(measured, data):
    bare = {name: value for name, value in measured.result.items() if name not in ("labels", "same class")}
    figure = alike.neighbours(record("neighbours", bare), replace(data, test_labels=None, classes=()))
    lines = shown(figure)
    assert len(lines) == 6 and not any(framed or crossed for line in lines for _, framed, crossed in line)
    assert not [text for text in words(figure) if "%" in text]


def stretches(axes, line: int) -> list[tuple[float, float, str]]:
    """Return the bars of a line: from, to, and the candidate whose colour they have."""
    bars = [p for p in axes.patches if abs(p.get_y() + p.get_height() / 2 - line) < 0.01]
    names = {tuple(bar.get_facecolor()[:3]): bar for bar in bars}
    of = {colour: next(name for name, own in OPERATION_COLOURS.items() if same_color(own, colour)) for colour in names}
    return [(bar.get_x(), bar.get_x() + bar.get_width(), of[tuple(bar.get_facecolor()[:3])]) for bar in bars]


def test_lines_of_a_choice_are_the_leaders_by_epoch(finished):
    """Drawn anew from a record in which they are known."""
    history = [
        {**finished.history[0], "phase": phase, "best": [[0] * 14, [leader] * 13 + [0]]}
        for phase, leader in (("warm-up", 0), ("bi-level", 3), ("bi-level", 3), ("pruning", 1), ("pruning", -1))
    ]
    known = finished.model_copy(update={"history": history})
    leaders, _ = choice.choice(known, 1, 2).axes
    for edge in range(13):
        assert stretches(leaders, edge) == [(1, 3, CANDIDATES[3]), (3, 4, CANDIDATES[1])]
    assert stretches(leaders, 13) == [(1, 5, CANDIDATES[0])]
    assert leaders.get_yticklabels()[2].get_weight() == "bold"
    (pruned,) = {line.get_xdata()[0] for line in leaders.lines}
    assert pruned == finished.result["pruned_at"]["1"]


def test_bars_of_a_choice_are_the_softmax_of_alpha(finished):
    cell, edge = choice.most_decided(finished)
    alpha = np.array(finished.result["evidence"]["alpha"][cell][edge])
    _, end = choice.choice(finished, cell, edge).axes
    widths = [bar.get_width() for bar in end.patches]
    assert widths == pytest.approx((100 * np.exp(alpha) / np.exp(alpha).sum()).tolist())
    kept = finished.genotype.edges(cell)
    assert edge in kept and max(widths) == pytest.approx(
        100 * max(choice.probabilities(finished)[c, e].max() for c in (0, 1) for e in finished.genotype.edges(c))
    )


def test_how_many_were_led_by_what_was_taken(finished):
    edges = [(c, e, name) for c in (0, 1) for e, name in finished.genotype.edges(c).items()]
    history = [{**finished.history[0], "phase": "warm-up"}]
    best = [[CANDIDATES.index(finished.genotype.edges(c).get(e, CANDIDATES[0])) for e in range(14)] for c in (0, 1)]
    for cell, edge, name in edges[:3]:
        best[cell][edge] = (CANDIDATES.index(name) + 1) % 7
    later = finished.model_copy(
        update={"history": [*history, {**finished.history[0], "phase": "bi-level", "best": best}]}
    )
    assert choice.led_at_first(later) == (13, 16)
