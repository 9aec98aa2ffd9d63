"""Names of curves stand apart; what a history lacks is left out."""

from itertools import pairwise

import pytest

from sswp_lib.show.standings import apart, curves, series


@pytest.mark.parametrize("wanted", [[0.5, 0.5, 0.5], [0.0, 0.99, 1.0], [0.2, 0.21, 0.9], [1.0, 1.0, 1.0], [0.4], []])
def test_names_stand_apart_in_their_order_and_none_above_the_axes(wanted):
    places = apart(wanted, 0.1)
    assert len(places) == len(wanted) and all(place <= 1.0 for place in places)
    assert all(b - a >= 0.1 - 1e-9 for a, b in pairwise(places))


def test_names_that_are_apart_stay_where_they_belong():
    assert apart([0.1, 0.4, 0.9], 0.1) == [0.1, 0.4, 0.9]


def test_a_series_holds_the_epochs_that_have_it():
    history = [{"epoch": 0, "loss": 2.0}, {"epoch": 1, "loss": 1.0, "alpha_loss": 3.0, "accuracy": 0.25}]
    assert series(history, "loss") == ([1, 2], [2.0, 1.0])
    assert series(history, "loss of architecture steps") == ([2], [3.0])
    assert series(history, "accuracy (%)") == ([2], [25.0]) and series(history, "learning rate") == ([], [])


def test_curves_differ_in_their_dashes():
    history = [{"epoch": epoch, "loss": 2.0 - epoch} for epoch in range(3)]
    (axes,) = curves(dict.fromkeys("abc", history), "loss").axes
    drawn = [line for line in axes.get_lines() if len(line.get_xdata()) == 3]
    assert len({line.get_linestyle() for line in drawn}) == len({line.get_color() for line in drawn}) == 3
    assert [text.get_text() for text in axes.texts] == ["a: 0", "b: 0", "c: 0"]
