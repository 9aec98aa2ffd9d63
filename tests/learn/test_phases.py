"""When each phase begins and when each cell goes."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import pytest

from sswp_lib.config import InputError, Search
from sswp_lib.learn import cells_to_prune, phase, phase_lengths, pruning_epochs
from sswp_lib.presets import load_config


def unchecked(**settings) -> Search:
    """Phases are total functions: also what a search would refuse, such as a single epoch, is laid out in order."""
    return Search.model_construct(**settings)


RATIOS = [(0.2, 0.4, 0.4), (0.0, 0.0, 1.0), (0.5, 0.49, 0.01), (0.1, 0.2, 0.7)]


@pytest.mark.parametrize("ratios", RATIOS)
@pytest.mark.parametrize("prune", ["forward", "backward"])
def test_every_cell_is_pruned_once_before_the_end(prune, ratios):
    """Whatever E in 1..40 and L in 1..20: each cell once, in order, within the pruning phase."""
    r1, r2, r3 = (Fraction(str(r)) for r in ratios)
    for epochs, num_cells in product(range(1, 41), range(1, 21)):
        config = unchecked(epochs=epochs, ratios=ratios, prune=prune)
        when = pruning_epochs(config, num_cells)
        order = list(range(num_cells)) if prune == "forward" else list(range(num_cells))[::-1]
        assert [when[cell] for cell in order] == [
            int(epochs * (r1 + r2 + i * r3 / num_cells)) for i in range(num_cells)
        ]
        assert max(when.values()) < epochs
        assert list(when) == order


@pytest.mark.parametrize("ratios", RATIOS)
def test_phase_and_pruning_agree(ratios):
    """Phases come in order; cells go, each in one epoch, at or after the first epoch of the pruning phase, or as soon
    as warm-up lets them.
    """
    for epochs, num_cells in product((1, 2, 3, 7, 10, 33), (1, 3, 8, 20)):
        config = unchecked(epochs=epochs, ratios=ratios)
        phases = [phase(epoch, config) for epoch in range(epochs)]
        assert phases == sorted(phases, key=["warm-up", "bi-level", "pruning"].index)
        going = [(epoch, cell) for epoch in range(epochs) for cell in cells_to_prune(epoch, config, num_cells)]
        assert [cell for _, cell in going] == list(range(num_cells))
        assert {cell: epoch for epoch, cell in going} == pruning_epochs(config, num_cells)
        assert {phases[epoch] for epoch, _ in going} <= {"warm-up", "pruning"}


def test_at_the_papers_size():
    """E = 300, L = 20: cell i goes at 180 + 6 i; BPP the same from the last cell."""
    when = pruning_epochs(Search(), 20)
    assert when == {cell: 180 + 6 * cell for cell in range(20)}
    backward = pruning_epochs(Search(prune="backward"), 20)
    assert backward == {19 - cell: epoch for cell, epoch in when.items()}
    assert [phase(e, Search()) for e in (0, 59, 60, 179, 180, 299)] == [
        "warm-up",
        "warm-up",
        "bi-level",
        "bi-level",
        "pruning",
        "pruning",
    ]


def test_without_pruning_all_cells_go_at_the_end():
    config = Search(prune="none", ratios=(0.2, 0.8), epochs=10)
    assert pruning_epochs(config, 5) == dict.fromkeys(range(5), 10)
    assert all(cells_to_prune(epoch, config, 5) == [] for epoch in range(10))
    assert cells_to_prune(10, config, 5) == [0, 1, 2, 3, 4]
    assert [phase(e, config) for e in (1, 2, 9)] == ["warm-up", "bi-level", "bi-level"]


def test_fewer_epochs_than_cells_prunes_several_at_once():
    config = Search(epochs=5)
    assert [cells_to_prune(epoch, config, 20) for epoch in range(5)] == [
        [],
        [],
        [],
        list(range(10)),
        list(range(10, 20)),
    ]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"search.ratios": (0.2, 0.8)}, "2 parts; prune='forward' expects 3"),
        ({"search.ratios": (0.2, 0.4, 0.4), "search.prune": "none"}, "3 parts; prune='none' expects 2"),
        ({"search.ratios": (0.2, 0.4, 0.5)}, "add up to 1.1; expected 1"),
        ({"search.ratios": (0.6, 0.8, -0.4)}, "between 0 and 1"),
        ({"search.ratios": (0.2, 0.8, 0.0)}, "no time for pruning"),
        ({"search.epochs": 0}, "search.epochs"),
    ],
)
def test_ratios_that_cannot_be_are_refused(settings, named):
    with pytest.raises(InputError, match=named) as error:
        load_config("smoke", settings=settings)
    assert "\n" not in str(error.value)


def test_phase_lengths_are_whole_epochs():
    assert list(phase_lengths(Search(epochs=15, ratios=(0.2, 0.6, 0.2))).items()) == [
        ("warm-up", 3),
        ("bi-level", 9),
        ("pruning", 3),
    ]
    assert list(phase_lengths(unchecked(epochs=6, ratios=(0.2, 0.2, 0.6))).values()) == [2, 0, 4]
    assert list(phase_lengths(Search(epochs=10, ratios=(0.2, 0.8), prune="none")).values()) == [2, 8, 0]
