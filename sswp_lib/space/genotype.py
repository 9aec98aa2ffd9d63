"""The discrete architecture as plain data, the published cells, and deriving one from alpha.

Paper: section 3.1 (a cell has 14 edges) and section 3.4 (each pruned edge keeps its best operation).
Deliberate deviations: the caps on skips and pools are ours to switch off (DARTS and P-DARTS use 2 skips).
"""

from __future__ import annotations

import json
from importlib import resources

import torch
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator
from torch import Tensor

from sswp_lib.config import InputError, one_line, suggest

CANDIDATES = (
    "skip_connect", "max_pool_3x3", "avg_pool_3x3",
    "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5",
)  # fmt: skip
SKIPS = ("skip_connect",)
POOLS = ("max_pool_3x3", "avg_pool_3x3")
NON_PARAMETERISED = SKIPS + POOLS

NUM_NODES = 4  # intermediate nodes of a cell; nodes 0 and 1 are its inputs
EDGES = tuple((source, node) for node in range(2, 2 + NUM_NODES) for source in range(node))  # 14, node by node
EDGE_INDEX = {edge: index for index, edge in enumerate(EDGES)}
EDGES_OF_NODE = {node: [EDGE_INDEX[source, node] for source in range(node)] for node in range(2, 2 + NUM_NODES)}


def reduction_cells(num_cells: int) -> tuple[int, ...]:
    """Return the cells that halve the map and double the channels: L//3 and 2L//3 (DARTS)."""
    return tuple(sorted({num_cells // 3, 2 * num_cells // 3}))


class Genotype(BaseModel):
    """A discrete architecture: for every cell 8 pairs (operation, input index), two per intermediate node.

    Input 0 is the output of the cell before the last, 1 that of the last cell, 2-5 are the cell's own nodes.
    Pairs 0-1 enter node 2, 2-3 node 3, 4-5 node 4, 6-7 node 5. Plain data: JSON in and out, validated.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    cells: list[list[tuple[str, int]]]

    @field_validator("cells")
    @classmethod
    def _check(cls, cells: list[list[tuple[str, int]]]) -> list[list[tuple[str, int]]]:
        if not cells:
            raise ValueError("a genotype needs at least one cell; this one has none")
        for i, cell in enumerate(cells):
            if len(cell) != 2 * NUM_NODES:
                raise ValueError(f"cell {i} has {len(cell)} pairs; expected 8 (operation, input), two per node")
            for position, (name, source) in enumerate(cell):
                node = 2 + position // 2
                if name not in CANDIDATES:
                    raise ValueError(
                        f"cell {i}, pair {position}: unknown operation {name!r}{suggest(name, CANDIDATES)}"
                    )
                if not 0 <= source < node:
                    raise ValueError(
                        f"cell {i}, pair {position}: input {source} is out of range; node {node} takes inputs "
                        f"0 to {node - 1}"
                    )
            for pair in range(0, 2 * NUM_NODES, 2):
                if cell[pair][1] == cell[pair + 1][1]:
                    raise ValueError(
                        f"cell {i}, pairs {pair} and {pair + 1}: both enter node {2 + pair // 2} from input "
                        f"{cell[pair][1]}; expected two different inputs"
                    )
        return cells

    @property
    def num_cells(self) -> int:
        return len(self.cells)

    def edges(self, cell: int) -> dict[int, str]:
        """Return {edge index (0-13): operation} of one cell, in edge order."""
        found = {
            EDGE_INDEX[source, 2 + position // 2]: name for position, (name, source) in enumerate(self.cells[cell])
        }
        return dict(sorted(found.items()))

    def to_json(self) -> str:
        return json.dumps({"cells": self.cells})

    @classmethod
    def from_json(cls, text: str) -> Genotype:
        """Read a genotype; InputError names the cell, the pair and what was expected."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise InputError(f"not a genotype: {one_line(error)}") from None

    @classmethod
    def published(cls, name: str, num_cells: int = 20) -> Genotype:
        """Return a published pair of cells (DARTS_V1, DARTS_V2, PDARTS, PC_DARTS_CIFAR, PC_DARTS_IMAGENET), stacked to
        `num_cells`.
        """
        known = published_cells()
        if name not in known:
            raise InputError(f"no published genotype {name!r}{suggest(name, known)}")
        cells = known[name]
        reductions = reduction_cells(num_cells)
        return cls(cells=[cells["reduce" if i in reductions else "normal"] for i in range(num_cells)])


def published_cells() -> dict[str, dict[str, list]]:
    """Return {name: {"normal": 8 pairs, "reduce": 8 pairs}} of the published cells."""
    text = resources.files("sswp_lib.space").joinpath("published.json").read_text()
    return json.loads(text)["genotypes"]


def derive(
    alpha: Tensor, max_skips: int | None = 2, max_pools: int | None = 2, candidates: tuple[str, ...] = CANDIDATES
) -> Genotype:
    """Turn architecture parameters into a genotype (paper, section 3.4; DARTS, section 2.4).

    Each node keeps its two incoming edges whose best operation has the highest softmax probability. Then, cell
    by cell, surplus skips and after them surplus pools are replaced, weakest first, by the strongest parameterised
    operation among the node's edges that are not already taken.

    Args:
        alpha: (cells, 14, M) architecture parameters.
        max_skips, max_pools: most of each that a cell may have; None for no cap.
        candidates: the M operation names of alpha's last dimension.
    """
    if alpha.dim() != 3 or alpha.shape[1:] != (len(EDGES), len(candidates)):
        raise InputError(f"alpha has shape {tuple(alpha.shape)}; expected (cells, {len(EDGES)}, {len(candidates)})")
    return Genotype(cells=[derive_cell(cell, max_skips, max_pools, candidates) for cell in alpha])


def derive_cell(
    alpha: Tensor, max_skips: int | None, max_pools: int | None, candidates: tuple[str, ...] = CANDIDATES
) -> list[tuple[str, int]]:
    """Derive one cell from its (14, M) parameters: 8 pairs (operation, input), by node and then by input."""
    probabilities = torch.softmax(alpha.detach().double(), dim=-1).tolist()  # 14 lists of M; ties fall to the first
    ranking = [
        (p, edge, name) for edge, row in enumerate(probabilities) for p, name in zip(row, candidates, strict=True)
    ]
    ranking.sort(key=lambda entry: -entry[0])  # stable
    kept: dict[int, tuple[float, str]] = {}
    for edges in EDGES_OF_NODE.values():
        best: dict[int, tuple[float, str]] = {}
        for p, edge, name in ranking:
            if edge in edges:
                best.setdefault(edge, (p, name))
        kept.update(list(best.items())[:2])  # best is ordered by probability
    _cap(kept, ranking, SKIPS, max_skips)
    _cap(kept, ranking, POOLS, max_pools)
    return [(kept[edge][1], EDGES[edge][0]) for edge in sorted(kept)]


def _cap(
    kept: dict[int, tuple[float, str]],
    ranking: list[tuple[float, int, str]],
    capped: tuple[str, ...],
    limit: int | None,
) -> None:
    """Replace the weakest operations of the kind `capped` until at most `limit` are left; changes `kept`."""
    held = sorted((p, edge) for edge, (p, name) in kept.items() if name in capped)
    surplus = len(held) - limit if limit is not None else 0
    for _, edge in held[: max(surplus, 0)]:
        del kept[edge]
        free = [e for e in EDGES_OF_NODE[EDGES[edge][1]] if e not in kept]
        p, chosen, name = next(entry for entry in ranking if entry[1] in free and entry[2] not in NON_PARAMETERISED)
        kept[chosen] = (p, name)


def changed_by_caps(
    alpha: Tensor, max_skips: int | None, max_pools: int | None, candidates: tuple[str, ...] = CANDIDATES
) -> int:
    """Count the (operation, input) pairs of the whole network that the caps replaced."""
    free = derive(alpha, None, None, candidates)
    capped = derive(alpha, max_skips, max_pools, candidates)
    return sum(
        len(set(b.items()) - set(a.items()))
        for a, b in zip(map(free.edges, range(free.num_cells)), map(capped.edges, range(capped.num_cells)), strict=True)
    )
