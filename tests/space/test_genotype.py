"""The genotype as data, and deriving one from alpha."""

from __future__ import annotations

import json

import pytest
import torch

from sswp_lib.config import InputError
from sswp_lib.space import CANDIDATES, EDGES, Genotype, changed_by_caps, derive, published_cells, reduction_cells
from sswp_lib.space.genotype import MAX_BYTES, NON_PARAMETERISED, POOLS, SKIPS

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


WITH_NONE = ("none", "skip_connect", "sep_conv_3x3")


def test_none_is_passed_over_after_the_softmax():
    """Its share lowers an edge's rank: edges 3 and 4 are the surest of an operation, given that it is one, and rank
    below edge 2, where `none` has little.
    """
    p = torch.full((14, 3), 1 / 3)
    p[2] = torch.tensor([0.1, 0.4, 0.5])  # 0.5 of its operation; without `none` 0.56
    p[3] = torch.tensor([0.6, 0.04, 0.36])  # 0.36; without `none` 0.9
    p[4] = torch.tensor([0.55, 0.02, 0.43])  # 0.43; without `none` 0.96
    alpha = p.log()[None]
    assert derive(alpha, None, None, WITH_NONE).cells[0][2:4] == [("sep_conv_3x3", 0), ("sep_conv_3x3", 2)]
    renormalised = derive(alpha[..., 1:], None, None, WITH_NONE[1:])
    assert renormalised.cells[0][2:4] == [("sep_conv_3x3", 1), ("sep_conv_3x3", 2)]


def test_none_is_in_no_genotype():
    alpha = torch.randn(20, 14, 3, generator=torch.Generator().manual_seed(0))
    alpha[..., 0] += 5
    cells = derive(alpha, None, None, WITH_NONE).cells
    assert {name for cell in cells for name, _ in cell} == {"skip_connect", "sep_conv_3x3"}


def test_two_cells_are_stacked_to_any_depth():
    normal, reduce = Genotype(cells=[GOOD, changed(0, ["sep_conv_3x3", 0])]).cells
    for depth in (1, 2, 3, 8, 20):
        genotype = Genotype.stacked(normal, reduce, depth)
        assert [i for i, cell in enumerate(genotype.cells) if cell == reduce] == list(reduction_cells(depth))
        assert sum(cell == normal for cell in genotype.cells) == depth - len(reduction_cells(depth))
    with pytest.raises(InputError, match="num_cells is 0; expected 1 or more"):
        Genotype.stacked(normal, reduce, 0)


def test_ties_fall_to_the_first():
    cell = derive(torch.zeros(1, 14, 7), None, None).cells[0]
    assert cell == [("skip_connect", source) for _ in range(4) for source in (0, 1)]


def test_alpha_of_another_shape_is_refused():
    with pytest.raises(InputError, match=r"\(3, 14, 8\).*\(cells, 14, 7\)"):
        derive(torch.zeros(3, 14, 8))


@pytest.mark.parametrize(("candidates", "capped"), [
    (("skip_connect", "max_pool_3x3"), "8 of skip_connect too many for a cap of 0"),
    (("avg_pool_3x3", "max_pool_3x3"), "8 of max_pool_3x3/avg_pool_3x3 too many for a cap of 0"),
])  # fmt: skip
def test_caps_without_anything_to_replace_a_skip_or_pool_are_refused(candidates, capped):
    alpha = torch.zeros(1, 14, 2)
    with pytest.raises(InputError, match=f"{capped}, and no candidate with weights"):
        derive(alpha, 0, 0, candidates)
    assert {name for name, _ in derive(alpha, None, None, candidates).cells[0]} == {candidates[0]}


def test_alpha_and_candidates_without_sense_are_refused():
    with pytest.raises(InputError, match="unknown candidate 'nothing'"):
        derive(torch.zeros(1, 14, 2), candidates=("nothing", "sep_conv_3x3"))
    with pytest.raises(InputError, match=r"candidates are \('none',\); expected an operation"):
        derive(torch.zeros(1, 14, 1), candidates=("none",))
    with pytest.raises(InputError, match="alpha holds NaN"):
        derive(torch.full((1, 14, 7), float("nan")))
    with pytest.raises(InputError, match=r"\(0, 14, 7\).*a cell or more"):
        derive(torch.zeros(0, 14, 7))
    with pytest.raises(InputError, match="num_cells is 0; expected 1 or more"):
        Genotype.published("DARTS_V2", 0)


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
        (changed(2, ["skip_connect", True]), ["cells.1.2", "True"]),
        (changed(2, ["x" * 10_000, 0]), ["cell 1", "pair 2", "unknown operation 'xxx"]),
        (changed(2, ["skip_connect"]), ["cells.1.2"]),
    ],
)  # fmt: skip
def test_errors_name_cell_and_value_in_one_line(second_cell, named):
    with pytest.raises(InputError) as error:
        Genotype.from_json(json.dumps({"cells": [GOOD, second_cell]}))
    message = str(error.value)
    assert "\n" not in message and len(message) < 400
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


def as_printed(name: str, concat: str = "range(2, 6)", **changes: object) -> str:
    """Return a published pair of cells as DARTS's code prints it."""
    cells = {kind: [tuple(pair) for pair in pairs] for kind, pairs in published_cells()[name].items()} | changes
    return (
        f"Genotype(normal={cells['normal']}, normal_concat={concat}, reduce={cells['reduce']}, reduce_concat={concat})"
    )


V2 = as_printed("DARTS_V2")


@pytest.mark.parametrize("text", [
    V2, f"DARTS_V2 = {V2}", f"\n{V2}\n", as_printed("DARTS_V2", "[2, 3, 4, 5]"), as_printed("DARTS_V2", "(2, 3, 4, 5)"),
    V2.replace("'", '"'), V2.replace(", ", ",\n  "),
    f"11/14 10:21:33 PM genotype = {V2}\n11/14 10:21:34 PM alphas (normal) = (0.1)", f"genotypes.{V2}  # (ours)",
    V2.replace("normal=", "", 1).replace("normal_concat=", "", 1),  # a tuple's first two fields
    json.dumps(Genotype.published("DARTS_V2", 8).model_dump()),
])  # fmt: skip
def test_a_genotype_is_read_as_darts_prints_it(tmp_path, text):
    assert Genotype.from_text(text, 8) == Genotype.published("DARTS_V2", 8)
    (tmp_path / "g.txt").write_text(text, encoding="utf-8-sig")
    assert Genotype.from_file(tmp_path / "g.txt", 8) == Genotype.published("DARTS_V2", 8)


@pytest.mark.parametrize("name", published_cells())
def test_every_published_pair_of_cells_round_trips_through_darts_text(name):
    assert Genotype.from_text(as_printed(name), 20) == Genotype.published(name, 20)


PAIRS = [tuple(pair) for pair in GOOD]


@pytest.mark.parametrize(("text", "named"), [
    (as_printed("DARTS_V2", normal=[("none", 0), *PAIRS[1:]]), "normal, pair 0: unknown operation 'none'"),
    (as_printed("DARTS_V2", reduce=[*PAIRS[:7], ("sep_conv_7x7", 1)]), "reduce, pair 7: unknown operation 'sep_con"),
    (as_printed("DARTS_V2", normal=PAIRS[:4]), "normal has 4 pairs; expected 8"),
    (as_printed("DARTS_V2", normal=[("skip_connect", 2), *PAIRS[1:]]), "normal, pair 0: input 2 is out of range"),
    (as_printed("DARTS_V2", normal=[("skip_connect", True), *PAIRS[1:]]), "normal.0.1"),
    (as_printed("DARTS_V2", normal="sep_conv_3x3"), "not a genotype"),
    (as_printed("DARTS_V2", "range(1, 6)"), "normal_concat is range(1, 6); expected range(2, 6)"),
    (as_printed("DARTS_V2", "[2, 3, 4]"), "normal_concat is [2, 3, 4]"),
    (as_printed("DARTS_V2", "range(2, 10**9)"), "not a genotype"),
    (as_printed("DARTS_V2", "range(2, 1000000000)"), "normal_concat is range(2, 1000000000)"),
    (as_printed("DARTS_V2", "__import__('os').getcwd()"), "not a genotype"),
    (as_printed("DARTS_V2", "open('x')"), "not a genotype"),
    (V2.replace("reduce_concat", "concat"), "not a genotype"), (V2[:-1] + ", extra=1)", "not a genotype"),
    (f"{V2}\n{V2}", "2 genotypes in one text; expected one"), (V2[:200], "not a genotype: \"Genotype(normal"),
    ("Genotype(" + "(" * 9000, "not a genotype"), ("Genotype(", "not a genotype"), ("Genotype()", "not a genotype"),
    ("import os" * 1000, "not a genotype"), ("[" * 9000, "not a genotype"),
    ('{"cells": "' + "x" * 9000, "Invalid JSON"),
])  # fmt: skip
def test_texts_of_darts_that_cannot_be_built_are_refused_in_a_short_line(text, named):
    with pytest.raises(InputError) as error:
        Genotype.from_text(text, 8)
    line = str(error.value)
    assert named in line and "\n" not in line and len(line) < 400
    assert len(text) <= 60 or text[:61] not in line


@pytest.mark.parametrize(("content", "named"), [
    (b"", "is empty"), (b" \n", "is empty"), (bytes(range(256)), "not a text"), (b"\0" * 10, "not a genotype"),
    (b"x" * (MAX_BYTES + 1), "1.0 MB is no genotype; expected at most 1 MB"), (None, "cannot be read: Is a directory"),
])  # fmt: skip
def test_files_that_hold_no_genotype_are_named(tmp_path, content, named):
    path = tmp_path / "g.json"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(InputError) as error:
        Genotype.from_file(path)
    line = str(error.value)
    assert named in line and "g.json" in line and "\n" not in line and len(line) < 400


def test_one_cell_is_enough():
    assert Genotype.published("DARTS_V2", 1).num_cells == 1
