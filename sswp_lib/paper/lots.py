"""Genotypes drawn by lot: what a search must beat.

Ours: the paper has no random genotypes (SSNAS's Table 1 has). A larger network is often the better one whatever its
structure, and searches may find large ones; so beside lots of any size there are lots of a given one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from sswp_lib.config import Config, InputError
from sswp_lib.learn.data import generator
from sswp_lib.learn.measure import parameters
from sswp_lib.space import CANDIDATES, EDGES, Genotype, Network, derive
from sswp_lib.space.cell import CellStack
from sswp_lib.space.genotype import EDGES_OF_NODE, POOLS, SKIPS

CAP = 2  # skips, and pools, that a cell may have: as searches' default (DARTS)
TOLERANCE = 0.05  # of the number of parameters, within which two networks are of one size; ours
TRIES = 100_000


def random_genotype(num_cells: int, seed: int) -> Genotype:
    """Return a genotype derived, with the usual caps, from architecture parameters drawn at random."""
    return derive(torch.randn(num_cells, len(EDGES), len(CANDIDATES), generator=generator(seed, "random genotype")))


@dataclass(frozen=True)
class Lot:
    """A genotype by lot, of the size of what the search `search` finds and by that search's seed; it is known when that
    search is done.
    """

    search: Config

    def genotype(self, found: Genotype) -> Genotype:
        model = self.search.model
        return random_genotype_like(found, model.init_channels, self.search.seed, model.stem)


def random_genotype_like(found: Genotype, init_channels: int, seed: int, stem: str = "cifar") -> Genotype:
    """Return a genotype drawn by lot among all that have as many cells and, within 5 %, as many parameters.

    All of them are equally probable. Drawing until the size fits would take far too long where searches find networks
    of unusual size; so operations are drawn with a probability that grows (or falls) exponentially with their own
    parameters, and a draw is accepted with the inverse probability.

    Args:
        init_channels, stem: of the networks whose parameters are counted.

    Raises:
        InputError: no such genotype was found in 100,000 draws.
    """
    costs, cells = operation_parameters(init_channels, found.num_cells, stem), found.num_cells
    with torch.device("meta"):
        target = parameters(Network(found, init_channels, 2, stem=stem))
    own = _sum(costs, _places(found))
    low, high = own - TOLERANCE * target, own + TOLERANCE * target
    rate = _rate(costs, own)
    g = generator(seed, "random genotype of a size", *sorted(_places(found)))
    fixed = low if rate >= 0 else high  # the size of the window at which a draw is most surely accepted
    for _ in range(TRIES):
        places = _drawn(costs, rate, g)
        if places is None:
            continue
        size = _sum(costs, places)
        if low <= size <= high and float(torch.rand((), generator=g)) < math.exp(rate * (fixed - size)):
            return Genotype(
                cells=[
                    [(CANDIDATES[op], EDGES[edge][0]) for c, edge, op in sorted(places) if c == cell]
                    for cell in range(cells)
                ]
            )
    raise InputError(
        f"no genotype of {target} parameters within {100 * TOLERANCE:g} % in {TRIES} draws; it may be the "
        "largest or the smallest of all"
    )


@cache
def operation_parameters(init_channels: int, num_cells: int, stem: str) -> Tensor:
    """Return how many parameters each candidate has on each edge: (cells, 14, M)."""
    everything = [dict.fromkeys(range(len(EDGES)), CANDIDATES)] * num_cells
    with torch.device("meta"):
        stack = CellStack(init_channels, everything, stem, affine=True, momentum=0.1)
    counts = [[[parameters(edge[name]) for name in CANDIDATES] for edge in cell.edges.values()] for cell in stack.cells]
    return torch.tensor(counts, dtype=torch.double)


def _places(genotype: Genotype) -> list[tuple[int, int, int]]:
    """Return (cell, edge, operation) of each of a genotype's operations."""
    cells = range(genotype.num_cells)
    return [(c, edge, CANDIDATES.index(name)) for c in cells for edge, name in genotype.edges(c).items()]


def _sum(costs: Tensor, places: list[tuple[int, int, int]]) -> float:
    return sum(float(costs[place]) for place in places)


def _rate(costs: Tensor, wanted: float) -> float:
    """Return the rate of the exponential by which draws have, on average and without caps, the wanted sum."""
    share = torch.tensor([2 / len(EDGES_OF_NODE[node]) for _, node in EDGES], dtype=torch.double)

    def mean(rate: float) -> float:
        p = (rate * (costs - costs.amax())).softmax(-1)
        return float(((p * costs).sum(-1) * share).sum())

    unit = 1 / float(costs.amax())
    low, high = -30 * unit, 30 * unit
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if mean(middle) < wanted else (low, middle)
    return (low + high) / 2


def _drawn(costs: Tensor, rate: float, g: torch.Generator) -> list[tuple[int, int, int]] | None:
    """Draw two edges into each node and an operation on each, with probabilities that go as exp(rate * parameters);
    None where a cell has too many skips or pools.

    A pair of edges is as probable as the operations on it make it, so that the whole has just these probabilities.
    """
    weights = (rate * (costs - costs.amax())).exp()
    of_edge = weights.sum(-1)
    places: list[tuple[int, int, int]] = []
    for cell in range(len(costs)):
        chosen = []
        for edges in EDGES_OF_NODE.values():
            pairs = [(a, b) for i, a in enumerate(edges) for b in edges[i + 1 :]]
            p = torch.stack([of_edge[cell, a] * of_edge[cell, b] for a, b in pairs])
            for edge in pairs[int(torch.multinomial(p, 1, generator=g))]:
                chosen.append((cell, edge, int(torch.multinomial(weights[cell, edge], 1, generator=g))))
        names = [CANDIDATES[op] for _, _, op in chosen]
        if any(sum(name in kind for name in names) > CAP for kind in (SKIPS, POOLS)):
            return None
        places += chosen
    return places
