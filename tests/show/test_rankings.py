"""Figures of rankings show every arm, and do not stumble over what is missing."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from sswp_lib.show import rankings


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def letters(figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(plt.Text))


def test_a_panel_an_arm_with_its_tau():
    scores = {"Pi-NAS": [1, 2, 3], "SPOS": [2, 2, 2], "neither": [3, 1, 2], "a": [1, 2, 3], "b": [1, 2, 3]}
    taus = dict.fromkeys(scores, 0.5) | {"SPOS": np.nan}
    figure = rankings.predicted([50, 60, 70], scores, taus)
    shown = [axes for axes in figure.axes if axes.lines]
    assert [axes.get_title() for axes in shown][:2] == ["Pi-NAS\ntau 0.50", "SPOS\ntau undefined"]
    assert shown[0].lines[0].get_xydata().tolist() == [[1, 50], [2, 60], [3, 70]] and len(shown) == 5


def test_taus_stand_beside_their_controls():
    frame = pd.DataFrame({"arm": ["Pi-NAS", "Pi-NAS", "SPOS"], "tau": [0.5, 0.7, np.nan]})
    figure = rankings.taus(frame, ["Pi-NAS", "SPOS"], {"parameters": 0.6, "ceiling": np.nan})
    said = letters(figure)
    assert "parameters 0.60" in said and "ceiling" not in said and "undefined" in said
    low, high = figure.axes[0].get_xlim()
    assert low >= -1.02 and high <= 1.02


def test_matrices_have_their_mean_off_the_diagonal_above_them():
    figure = rankings.similarities({"Pi-NAS": [[1, 0.5], [0.1, 1]], "SPOS": [[1, -1], [-1, 1]]}, ["a", "b"])
    assert [axes.get_title() for axes in figure.axes[:2]] == ["Pi-NAS\n0.30", "SPOS\n-1.00"]


def test_every_supernet_has_a_line():
    figure = rankings.collapse({"Pi-NAS": [[0.9, 0.3], [0.8, 0.2]], "no negatives": [[0.99, 1.0]]})
    assert len(figure.axes[0].lines) == 3
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["Pi-NAS", "no negatives"]


def test_one_column_against_another():
    frame = pd.DataFrame({"arm": ["Pi-NAS", "SPOS"], "centred": [0.5, 0.1], "tau": [0.6, 0.2]})
    figure = rankings.against(frame, ["Pi-NAS", "SPOS"], "centred", "tau", ("cosine", "tau"))
    assert [line.get_xydata().tolist() for line in figure.axes[0].lines] == [[[0.5, 0.6]], [[0.1, 0.2]]]
