"""The paper's space as one that one-shot methods can search: a genotype is an architecture, the supernet the network
with every candidate.

Section 3.1: every cell its own, two edges into each node. Which edges stay is a part of the choice here, which is what
`spaces.Space` leaves out; the methods are the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sswp_lib.config import InputError
from sswp_lib.space.genotype import CANDIDATES, EDGES, NUM_NODES, Genotype, Pair
from sswp_lib.space.network import Network
from sswp_lib.space.paths import Paths
from sswp_lib.space.supernet import SuperNet


@dataclass(frozen=True)
class CellSpace:
    """All genotypes of so many cells, each cell its own.

    Attributes:
        num_cells: of every genotype. candidates: names, in order.
    """

    num_cells: int
    name: str = "cells"
    candidates: tuple[str, ...] = CANDIDATES

    def read(self, text: str) -> Genotype:
        """Read a genotype as JSON or as DARTS prints it; InputError where it has another number of cells."""
        found = Genotype.from_text(text, self.num_cells)
        if found.num_cells != self.num_cells:
            raise InputError(f"a genotype of {found.num_cells} cells; expected {self.num_cells}")
        return found

    def write(self, genotype: Genotype) -> str:
        return genotype.to_json()

    def is_connected(self, genotype: Genotype) -> bool:
        """Every node has two inputs, and the output is all nodes: always."""
        return True

    def draw(self, generator: torch.Generator) -> Genotype:
        """Draw a genotype: two different inputs of each node and both operations, uniform and independent."""
        cells = []
        for _ in range(self.num_cells):
            pairs: list[Pair] = []
            for node in range(2, 2 + NUM_NODES):
                operations = torch.randint(len(self.candidates), (2,), generator=generator).tolist()
                inputs = _two_inputs(node, generator)
                pairs += [(self.candidates[k], source) for k, source in zip(operations, inputs, strict=True)]
            cells.append(pairs)
        return Genotype(cells=cells)

    def draw_two(self, generator: torch.Generator) -> tuple[Genotype, Genotype]:
        """Draw two genotypes that share no operation on an edge: where the second has an edge of the first, its
        operation there is drawn from the others.
        """
        one, two = self.draw(generator), self.draw(generator)
        cells = []
        for mine, theirs in zip(one.cells, two.cells, strict=True):
            taken = {(position // 2, source): name for position, (name, source) in enumerate(mine)}
            cells.append([
                self._other(name, source, taken.get((position // 2, source)), generator)
                for position, (name, source) in enumerate(theirs)
            ])  # fmt: skip
        return one, Genotype(cells=cells)

    def mutation(self, parent: Genotype, p: float, generator: torch.Generator) -> Genotype:
        """Return the parent with the two pairs of each node, with probability p a node, drawn anew."""
        drawn = self.draw(generator)
        return _by_node(parent, drawn, 1 - p, generator)

    def crossover(self, one: Genotype, two: Genotype, generator: torch.Generator) -> Genotype:
        """Return a child that has each node's two pairs of either parent, with equal probabilities."""
        return _by_node(one, two, 0.5, generator)

    def paths(self, genotype: Genotype) -> Paths:
        """Return the genotype as the paths of a supernet: active (cells, 14), -1 where an edge is not taken."""
        active = torch.full((genotype.num_cells, len(EDGES)), -1)
        for cell in range(genotype.num_cells):
            for edge, name in genotype.edges(cell).items():
                active[cell, edge] = self.candidates.index(name)
        return Paths(active)

    def supernet(self, init_channels: int, num_cells: int, **size: Any) -> nn.Module:
        """Return the network with every candidate on every edge; `forward(x, paths)`.

        Raises:
            InputError: another number of cells than the space's.
        """
        if num_cells != self.num_cells:
            raise InputError(f"num_cells is {num_cells}; expected the space's {self.num_cells}")
        return SuperNet(init_channels, num_cells, **size)

    def network(self, genotype: Genotype, **size: Any) -> nn.Module:
        """Return the compact network of a genotype."""
        return Network(genotype, **size)

    def _other(self, name: str, source: int, taken: str | None, generator: torch.Generator) -> Pair:
        if name != taken:
            return name, source
        others = [candidate for candidate in self.candidates if candidate != taken]
        return others[int(torch.randint(len(others), (), generator=generator))], source


def _two_inputs(node: int, generator: torch.Generator) -> list[int]:
    """Draw two different inputs of a node, in rising order: as genotypes that are derived have them."""
    return sorted(torch.randperm(node, generator=generator)[:2].tolist())


def _by_node(one: Genotype, two: Genotype, share: float, generator: torch.Generator) -> Genotype:
    """Return a genotype with each node's two pairs of `one` with probability `share`, else of `two`."""
    cells = []
    for mine, theirs in zip(one.cells, two.cells, strict=True):
        kept = (torch.rand(NUM_NODES, generator=generator) < share).tolist()
        cells.append([
            pair for node, own in enumerate(kept) for pair in (mine if own else theirs)[2 * node : 2 * node + 2]
        ])  # fmt: skip
    return Genotype(cells=cells)
