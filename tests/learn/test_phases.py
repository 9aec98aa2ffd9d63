"""When each phase begins and when each cell goes."""

from __future__ import annotations

import re
import time
from fractions import Fraction
from itertools import product

import pytest

from sswp_lib.config import InputError, Search
from sswp_lib.learn import Search as Run
from sswp_lib.learn import cells_to_prune, phase, phase_lengths, pruning_epochs
from sswp_lib.learn.phases import architecture_steps
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


@pytest.mark.parametrize("ratios", [*RATIOS, (0.0, 0.5, 0.5)])
@pytest.mark.parametrize("prune", ["forward", "backward"])
def test_architecture_steps_are_those_that_the_loop_takes(prune, ratios):
    """Counted step by step: one after every k-th weight step of the search, none in warm-up, none once a cell is
    pruned.
    """
    for epochs, every, steps, num_cells in product((1, 4, 9, 10), (1, 2, 5), (1, 3, 7), (1, 4)):
        config = unchecked(epochs=epochs, ratios=ratios, prune=prune, alpha_every=every)
        taken = dict.fromkeys(range(num_cells), 0)
        for done in range(1, epochs * steps + 1):
            epoch = (done - 1) // steps
            if phase(epoch, config) != "warm-up" and done % every == 0:
                for cell, end in pruning_epochs(config, num_cells).items():
                    taken[cell] += epoch < end
        assert architecture_steps(config, num_cells, steps) == taken
        assert list(architecture_steps(config, num_cells, steps)) == list(range(num_cells))


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
        ({"search.ratios": (0.1, 0.2, 0.3, 0.4), "search.prune": "none"}, "4 parts; prune='none' expects 2"),
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


@pytest.mark.parametrize(
    "settings",
    [
        {"search.epochs": 5, "search.alpha_every": 16},
        {"search.epochs": 4, "search.alpha_every": 11, "search.ratios": (0.2, 0.3, 0.5)},
        {"search.epochs": 5, "search.alpha_every": 40},
        {"search.epochs": 5, "search.alpha_every": 70, "search.prune": "none", "search.ratios": (0.2, 0.8)},
        {"search.epochs": 5, "search.alpha_every": 16, "search.prune": "backward"},
    ],
)
def test_a_search_in_which_alpha_would_not_learn_is_refused(config, data, settings):
    """The message names the next number of epochs that will do: it does, and one less does not."""
    config = config.changed(**settings)
    with pytest.raises(InputError, match="before alpha has taken a step") as error:
        Run(config, data)
    message = str(error.value)
    enough = int(re.search(r"expected search\.epochs=(\d+) ", message)[1])
    assert enough > config.search.epochs and "\n" not in message and "5 weight steps an epoch" in message
    cell, epoch = map(int, re.match(r"cell (\d) would be pruned at epoch (\d),", message).groups())
    assert pruning_epochs(config.search, 3)[cell] == epoch == min(pruning_epochs(config.search, 3).values())
    assert min(Run(config.changed(**{"search.epochs": enough}), data).finish()[0]["architecture_steps"]) > 0
    with pytest.raises(InputError, match="before alpha has taken a step"):
        Run(config.changed(**{"search.epochs": enough - 1}), data)


def test_a_search_that_no_number_of_epochs_helps_is_refused_at_once(config, data):
    never = config.changed(**{"search.epochs": 300, "search.alpha_every": 10**9})
    start = time.process_time()
    with pytest.raises(InputError, match=r"expected a lower search\.alpha_every"):
        Run(never, data)
    assert time.process_time() - start < 5


@pytest.mark.parametrize("prune, ratios", [("forward", (0.1, 0.3, 0.2, 0.4)), ("none", (0.1, 0.5, 0.4))])
def test_a_last_part_has_all_cells_fixed(prune, ratios):
    config = Search(epochs=20, ratios=ratios, prune=prune)
    assert config.boundaries()[2] == 12
    phases = [phase(epoch, config) for epoch in range(20)]
    assert phases[12:] == ["fixed"] * 8 and "fixed" not in phases[:12]
    assert list(phase_lengths(config).values())[-1] == 8
    ends = pruning_epochs(config, 3)
    assert list(ends.values()) == ([8, 9, 10] if prune == "forward" else [12] * 3)
    without = config.model_copy(update={"epochs": 12, "ratios": tuple(r / 0.6 for r in ratios[:-1])})
    assert {cell: min(end, 12) for cell, end in pruning_epochs(without, 3).items()} == ends  # the same search before it
