"""The genotype as data, and deriving one from alpha."""

from __future__ import annotations

import json

import pytest
import torch

from sswp_lib.config import InputError
from sswp_lib.space import CANDIDATES, EDGES, Genotype, changed_by_caps, derive, published_cells, reduction_cells
from sswp_lib.space.genotype import NON_PARAMETERISED, POOLS, SKIPS

SKIP, MAX, AVG, SEP3, SEP5, DIL3, DIL5 = range(7)


def names_of(genotype: Genotype, kinds: tuple[str, ...]) -> list[int]:
    return [sum(name in kinds for name, _ in cell) for cell in genotype.cells]


def test_candidates_and_edges_stand_in_the_order_of_the_method():
    expected = "skip_connect max_pool_3x3 avg_pool_3x3 sep_conv_3x3 sep_conv_5x5 dil_conv_3x3 dil_conv_5x5"
    assert tuple(expected.split()) == CANDIDATES
    assert EDGES == (
        (0, 2),
        (1, 2),
        (0, 3),
        (1, 3),
        (2, 3),
        (0, 4),
        (1, 4),
        (2, 4),
        (3, 4),
        (0, 5),
        (1, 5),
        (2, 5),
        (3, 5),
        (4, 5),
    )


@pytest.mark.parametrize(
    ("num_cells", "expected"), [(20, (6, 13)), (14, (4, 9)), (8, (2, 5)), (3, (1, 2)), (2, (0, 1)), (1, (0,))]
)
def test_reductions_stand_at_thirds(num_cells, expected):
    assert reduction_cells(num_cells) == expected


def test_each_node_keeps_its_two_edges_of_highest_probability():
    """Against a direct reading of the rule, over random alpha without caps."""
    alpha = torch.randn(30, 14, 7, generator=torch.Generator().manual_seed(0))
    genotype = derive(alpha, None, None)
    for cell, found in zip(torch.softmax(alpha, -1), genotype.cells, strict=True):
        expected = []
        for node in range(2, 6):
            edges = [e for e, (_, to) in enumerate(EDGES) if to == node]
            two = sorted(sorted(edges, key=lambda e: -float(cell[e].max()))[:2])
            expected += [(CANDIDATES[int(cell[e].argmax())], EDGES[e][0]) for e in two]
        assert found == expected


def test_probability_decides_not_alpha():
    """A high alpha beside another high alpha is a low probability."""
    alpha = torch.zeros(1, 14, 7)
    alpha[0, 2, SEP3], alpha[0, 2, SEP5] = 5.0, 4.9  # p about 0.52
    alpha[0, 3, DIL3], alpha[0, 4, DIL5] = 3.0, 3.1  # p about 0.77
    assert derive(alpha, None, None).cells[0][2:4] == [("dil_conv_3x3", 1), ("dil_conv_5x5", 2)]


def test_surplus_skips_give_way_weakest_first():
    """Skips win on every edge, more and more from edge 0 to 13; the two strongest stay, the others' places go to the
    best free edges.
    """
    alpha = torch.zeros(1, 14, 7)
    alpha[0, :, SKIP] = 1 + 0.1 * torch.arange(14)
    alpha[0, :, DIL5] = 0.5  # its probability falls from edge 0 to 13
    free, capped = derive(alpha, None, None), derive(alpha, max_skips=2)
    assert free.cells[0] == [("skip_connect", source) for source in (0, 1, 1, 2, 2, 3, 3, 4)]
    dilated = [("dil_conv_5x5", source) for source in (0, 1, 0, 1, 0, 1)]
    assert capped.cells[0] == [*dilated, ("skip_connect", 3), ("skip_connect", 4)]
    assert changed_by_caps(alpha, None, None) == 0
    assert changed_by_caps(alpha, 2, None) == 6


def test_surplus_pools_are_counted_together():
    alpha = torch.zeros(1, 14, 7)
    alpha[0, ::2, MAX], alpha[0, 1::2, AVG] = 2.0, 2.0
    alpha[0, [9, 13], MAX], alpha[0, [9, 13], AVG] = 3.0, 0.0  # the two strongest pools enter node 5
    alpha[0, :, SEP3] = 1.0
    cell = derive(alpha, max_pools=2).cells[0]
    assert cell[6:] == [("max_pool_3x3", 0), ("max_pool_3x3", 4)]
    assert {name for name, _ in cell[:6]} == {"sep_conv_3x3"}


@pytest.mark.parametrize("cap", [0, 1, 2, 5, 8, None])
def test_caps_hold_in_every_cell(cap):
    alpha = torch.randn(40, 14, 7, generator=torch.Generator().manual_seed(2))
    alpha[..., :3] += 1.5  # skips and pools win often
    genotype = derive(alpha, cap, cap)
    skips, pools = names_of(genotype, SKIPS), names_of(genotype, POOLS)
    if cap is None:
        assert max(skips) > 2 and max(pools) > 5
    else:
        assert max(skips) <= cap and max(pools) <= cap
    assert (cap == 0) == (sum(names_of(genotype, NON_PARAMETERISED)) == 0)


def test_ties_fall_to_the_first():
    cell = derive(torch.zeros(1, 14, 7), None, None).cells[0]
    assert cell == [("skip_connect", source) for _ in range(4) for source in (0, 1)]


def test_alpha_of_another_shape_is_refused():
    with pytest.raises(InputError, match=r"\(3, 14, 8\).*\(cells, 14, 7\)"):
        derive(torch.zeros(3, 14, 8))


def test_json_round_trip():
    genotype = derive(torch.randn(5, 14, 7, generator=torch.Generator().manual_seed(3)))
    assert Genotype.from_json(genotype.to_json()) == genotype
    assert json.loads(genotype.to_json())["cells"][0][0] == list(genotype.cells[0][0])


def test_edges_of_a_cell():
    genotype = Genotype.published("DARTS_V2", 3)
    assert genotype.edges(0) == {
        0: "sep_conv_3x3", 1: "sep_conv_3x3", 2: "sep_conv_3x3", 3: "sep_conv_3x3", 5: "skip_connect",
        6: "sep_conv_3x3", 9: "skip_connect", 11: "dil_conv_3x3",
    }  # fmt: skip


def test_published_cells_are_stacked_with_reductions_in_place():
    genotype = Genotype.published("DARTS_V2", 20)
    reduce = [
        ("max_pool_3x3", 0), ("max_pool_3x3", 1), ("skip_connect", 2), ("max_pool_3x3", 1),
        ("max_pool_3x3", 0), ("skip_connect", 2), ("skip_connect", 2), ("max_pool_3x3", 1),
    ]  # fmt: skip
    assert [i for i, cell in enumerate(genotype.cells) if sorted(cell) == sorted(reduce)] == [6, 13]
    assert {"DARTS_V1", "DARTS_V2", "PDARTS", "PC_DARTS_CIFAR", "PC_DARTS_IMAGENET"} <= set(published_cells())
    assert all(Genotype.published(name, 8).num_cells == 8 for name in published_cells())


def test_unknown_published_name_gets_a_suggestion():
    with pytest.raises(InputError, match=r"DARTS_V3.*did you mean 'DARTS_V"):
        Genotype.published("DARTS_V3")


GOOD = [["skip_connect", source] for _ in range(4) for source in (0, 1)]


def changed(position: int, pair: list) -> list:
    return [pair if i == position else p for i, p in enumerate(GOOD)]


@pytest.mark.parametrize(
    ("second_cell", "named"),
    [
        (changed(3, ["sep_conv_7x7", 1]), ["cell 1", "pair 3", "sep_conv_7x7", "did you mean"]),
        (changed(0, ["skip_connect", 2]), ["cell 1", "pair 0", "input 2", "0 to 1"]),
        (changed(7, ["skip_connect", 5]), ["cell 1", "pair 7", "input 5", "0 to 4"]),
        (changed(7, ["skip_connect", -1]), ["cell 1", "pair 7", "input -1"]),
        (changed(5, ["max_pool_3x3", 0]), ["cell 1", "pairs 4 and 5", "input 0", "different"]),
        (GOOD[:7], ["cell 1", "7 pairs", "expected 8"]),
        (changed(2, ["skip_connect", "x"]), ["cells.1.2", "'x'"]),
        (changed(2, ["skip_connect"]), ["cells.1.2"]),
    ],
)  # fmt: skip
def test_errors_name_cell_and_value_in_one_line(second_cell, named):
    with pytest.raises(InputError) as error:
        Genotype.from_json(json.dumps({"cells": [GOOD, second_cell]}))
    message = str(error.value)
    assert "\n" not in message
    assert [part for part in named if part not in message] == []


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('{"cells": []}', "at least one cell"),
        ("{", "not a genotype"),
        ("[]", "not a genotype"),
        ("{}", "cells"),
        (json.dumps({"cells": [GOOD], "x": 1}), "x"),
    ],
)
def test_text_that_is_no_genotype_is_refused(text, named):
    with pytest.raises(InputError, match=named) as error:
        Genotype.from_json(text)
    assert "\n" not in str(error.value)
