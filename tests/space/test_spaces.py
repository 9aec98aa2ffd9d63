"""Spaces as values: architectures as plain data, reading them, drawing them, their networks."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import nn

from sswp_lib.config import InputError
from sswp_lib.space.bench201 import BENCH201
from sswp_lib.space.spaces import Choices, Space


class Built(nn.Module):
    def __init__(self, operations, **size):
        super().__init__()
        self.operations, self.size = operations, size


EDGES, CANDIDATES = ("stem>a", "a>b", "b>c"), ("conv_1", "conv_3", "skip")
TOY = Space("toy", EDGES, CANDIDATES, Built)
PICKY = replace(TOY, connected=lambda choices: choices.operations.count("skip") == 1)
DRAWS = 12_000


def test_json_round_trip():
    for space in (TOY, BENCH201):
        for choices in (space.draw(torch.Generator().manual_seed(seed)) for seed in range(20)):
            assert space.read(choices.to_json()) == choices
            assert json.loads(choices.to_json()) == {"space": space.name, "operations": list(choices.operations)}
    assert TOY.read(f"\n {TOY.choices(CANDIDATES).to_json()} ").operations == CANDIDATES


@pytest.mark.parametrize(("text", "named"), [
    ("", "not an architecture of toy: ''; expected"), ("{", "not an architecture of toy"),
    ("[]", "not an architecture"), ("null", "not an architecture"), ("3", "not an architecture"),
    ("[" * 100_000, "not an architecture"), ("{" * 9000, "not an architecture"),
    ('{"space": "toy"}', "not an architecture"), ('{"operations": []}', "not an architecture"),
    ('{"space": "toy", "operations": "skip"}', "not an architecture"),
    ('{"space": "toy", "operations": null}', "not an architecture"),
    ('{"space": "toy", "operations": {"skip": 1, "conv_1": 2, "conv_3": 3}}', "not an architecture"),
    ('{"space": "toy", "operations": ["skip", "skip", "skip"], "x": 1}', "not an architecture"),
    ('{"space": "other", "operations": ["skip", "skip", "skip"]}', "of the space 'other'; expected one of 'toy'"),
    ('{"space": ["toy"], "operations": ["skip", "skip", "skip"]}', "of the space ['toy']; expected one of 'toy'"),
    ('{"space": "toy", "operations": ["skip"]}', "1 operations; expected 3, one an edge of toy"),
    ('{"space": "toy", "operations": ["skip", "skap", "skip"]}', "edge a>b: unknown operation 'skap'; did you mean"),
    ('{"space": "toy", "operations": ["skip", "skip", "x"]}', "edge b>c: unknown operation 'x'; expected one of "),
    ('{"space": "toy", "operations": [["skip"], true, null]}', "edge stem>a: unknown operation ['skip']"),
    (json.dumps({"space": "toy", "operations": ["x" * 9000] * 3}), "edge stem>a: unknown operation 'xxx"),
])  # fmt: skip
def test_damaged_json_is_refused_in_one_line(text, named):
    with pytest.raises(InputError) as error:
        TOY.read(text)
    line = str(error.value)
    assert named in line and "\n" not in line and len(line) < 250


def test_everything_is_every_architecture_once_the_last_edge_fastest():
    everything = list(TOY.everything())
    assert len(everything) == len(set(everything)) == 3**3
    assert [c.operations for c in everything[:4]] == [
        ("conv_1", "conv_1", last) for last in CANDIDATES
    ] + [("conv_1", "conv_3", "conv_1")]  # fmt: skip
    assert sum(1 for _ in BENCH201.everything()) == 15_625
    assert everything == list(PICKY.everything())  # connected or not


@pytest.mark.parametrize(
    ("space", "count"), [(TOY, 27), (PICKY, 12), (replace(BENCH201, candidates=("none", "skip_connect")), 47)]
)
def test_draws_are_uniform_over_what_is_connected(space, count, g):
    """Each frequency within five standard deviations of its expectation."""
    expected = {c for c in space.everything() if space.is_connected(c)}
    found = Counter(space.draw(g) for _ in range(DRAWS))
    assert set(found) == expected and len(expected) == count
    p = 1 / count
    assert max(abs(n - DRAWS * p) for n in found.values()) < 5 * (DRAWS * p * (1 - p)) ** 0.5


@pytest.mark.parametrize("space", [TOY, PICKY, BENCH201])
def test_two_draws_differ_on_every_edge_and_are_both_connected(space, g):
    for _ in range(500):
        one, two = space.draw_two(g)
        assert all(a != b for a, b in zip(one.operations, two.operations, strict=True))
        assert space.is_connected(one) and space.is_connected(two)


def test_pairs_of_an_edge_are_uniform(g):
    """Where everything is connected, each of the 3 * 2 ordered pairs on each edge, within five standard deviations."""
    found = Counter()
    for _ in range(DRAWS // 4):
        one, two = TOY.draw_two(g)
        found.update(zip(EDGES, one.operations, two.operations, strict=True))
    n, p = DRAWS // 4, 1 / 6
    assert len(found) == 3 * 6
    assert max(abs(count - n * p) for count in found.values()) < 5 * (n * p * (1 - p)) ** 0.5


def test_same_generator_same_draws():
    def draw(seed: int) -> tuple:
        generator = torch.Generator().manual_seed(seed)
        return [BENCH201.draw(generator) for _ in range(5)], [BENCH201.draw_two(generator) for _ in range(5)]

    state = torch.get_rng_state()
    assert draw(1) == draw(1) != draw(2)
    assert torch.equal(torch.get_rng_state(), state)


def test_one_candidate_makes_no_pair():
    with pytest.raises(InputError, match="toy has the candidate skip alone; expected two or more"):
        replace(TOY, candidates=("skip",)).draw_two(torch.Generator())


def test_paths_say_where_among_the_candidates_each_operation_stands():
    assert TOY.paths(TOY.choices(["skip", "conv_1", "conv_3"])).active.tolist() == [[2, 0, 1]]
    with pytest.raises(InputError, match="edge stem>a: unknown operation 'none'"):
        TOY.paths(Choices("bench201", ("none",) * 3))


def test_networks_differ_by_what_stands_on_an_edge():
    choices = TOY.choices(["skip", "conv_1", "conv_3"])
    assert TOY.supernet(width=3).operations == [CANDIDATES] * 3
    network = TOY.network(choices, width=3)
    assert network.operations == [("skip",), ("conv_1",), ("conv_3",)] and network.size == {"width": 3}
