"""The network with every candidate in it: full width, full depth, alpha, and pruning a cell.

Paper: sections 3.2 (path binarisation instead of a proxy; structures differ from cell to cell) and 3.4 (pruning).
Deliberate deviations: BatchNorm keeps no running statistics while searching (`ops.calibrate` computes them for
the paths that are evaluated), so nothing that a step samples can leave a trace in another's statistics.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from sswp_lib.config import InputError
from sswp_lib.space.cell import CellStack, ProjectionHead, State, pool
from sswp_lib.space.genotype import CANDIDATES, EDGES, Genotype, derive, derive_cell
from sswp_lib.space.paths import Paths, along, best_paths, searching_edges

EDGE_CHOICES = ("all", "top2")


class SuperNet(CellStack):
    """Every candidate on every edge; a step runs only what its paths say.

    Args:
        init_channels: C of the first cell (paper: 36 on CIFAR, 48 on ImageNet).
        num_cells: L (paper: 20 on CIFAR, 14 on ImageNet).
        head: module from (N, num_features) to the output; SimCLR's projection head if left out.
        candidates: the M operation names; those that are no candidates of a genotype (see `planted`) are never kept.
        stem: "cifar" or "imagenet". affine: learnable scale and shift in BatchNorm (off while searching).

    Attributes:
        alpha: (cells, 14, M) architecture parameters, zero at the start.
        present: (cells, 14, M) bool, the candidates that are still there; always on the CPU, where paths are drawn.
    """

    def __init__(
        self, init_channels: int = 36, num_cells: int = 20, head: nn.Module | None = None,
        candidates: tuple[str, ...] = CANDIDATES, stem: str = "cifar", affine: bool = False,
    ):  # fmt: skip
        everything = dict.fromkeys(range(len(EDGES)), tuple(candidates))
        super().__init__(init_channels, [everything] * num_cells, stem, affine, momentum=None)
        self.candidates = tuple(candidates)
        self.head = head if head is not None else ProjectionHead(self.num_features)
        shape = (num_cells, len(EDGES), len(self.candidates))
        self.alpha = nn.Parameter(torch.zeros(shape))
        self.present = torch.ones(shape, dtype=torch.bool)  # no buffer: it would move, and every draw wait for it

    @property
    def num_cells(self) -> int:
        return len(self.cells)

    @property
    def num_searching(self) -> int:
        """Return how many cells are not yet pruned."""
        return int(searching_edges(self.present).any(-1).sum())

    def weight_parameters(self) -> Iterator[nn.Parameter]:
        """Yield every parameter but alpha."""
        return (p for name, p in self.named_parameters() if name != "alpha")

    def features(self, x: Tensor, paths: Paths) -> Tensor:
        """Return the pooled features of images x (N, 3, H, W) along `paths`: (N, num_features)."""
        chosen = along(paths, self.candidates)

        def run(cell: int, edge: int, operations: nn.ModuleDict, state: State) -> Tensor | None:
            return chosen(cell, edge, operations, state.through)

        return pool(self.maps(x, run)[-1])

    def forward(self, x: Tensor, paths: Paths) -> Tensor:
        """Return the head's output for images x (N, 3, H, W) along `paths`."""
        return self.head(self.features(x, paths))

    def prune(
        self, cell: int, edges: str = "all", max_skips: int | None = 2, max_pools: int | None = 2
    ) -> dict[int, str]:
        """Fix one cell: drop all but the chosen operations, and return {edge: operation} that stay.

        `edges="top2"` keeps the 8 edges that `derive` with the same caps would take, so that the pruned cell *is* the
        exported one. `edges="all"` keeps on each of the 14 edges the operation with the highest alpha (the paper); on
        those 8, what `derive` would take, which differs only where the caps act: so the exported network never holds
        an operation that has not been trained. What stays is bitwise what it was. The optimiser must forget the
        dropped weights: see `learn.search`.
        """
        if edges not in EDGE_CHOICES:
            raise InputError(f"edges is {edges!r}; expected one of {', '.join(EDGE_CHOICES)}")
        if not searching_edges(self.present[cell]).any():
            raise InputError(
                f"cell {cell} is pruned already; expected one of the {self.num_searching} that still search"
            )
        alpha, names = self.of_candidates(self.alpha[cell].detach().cpu())
        keep = Genotype(cells=[derive_cell(alpha, max_skips, max_pools, names)]).edges(0)
        if edges == "all":
            keep = {edge: names[k] for edge, k in enumerate(alpha.argmax(-1).tolist())} | keep
        self._keep(cell, keep)
        return keep

    def _keep(self, cell: int, keep: dict[int, str]) -> None:
        self.present[cell] = False
        for edge in range(len(EDGES)):
            if edge not in keep:
                del self.cells[cell].edges[str(edge)]
                continue
            operations = self.cells[cell].edges[str(edge)]
            for name in [name for name in operations if name != keep[edge]]:
                del operations[name]
            self.present[cell, edge, self.candidates.index(keep[edge])] = True

    def prune_as(self, present: Tensor) -> None:
        """Drop what `present` (cells, 14, M) lacks: makes a new supernet fit a half-searched one's weights."""
        for cell in range(self.num_cells):
            if searching_edges(self.present[cell]).any() and not searching_edges(present[cell]).any():
                rows, columns = present[cell].nonzero(as_tuple=True)
                self._keep(cell, {int(e): self.candidates[int(k)] for e, k in zip(rows, columns, strict=True)})

    def kept_paths(self) -> Paths:
        """Return the paths of the network as it stands: each edge's strongest remaining operation."""
        return best_paths(self.alpha, self.present)

    def genotype(self, max_skips: int | None = 2, max_pools: int | None = 2) -> Genotype:
        """Return the genotype that alpha stands for."""
        alpha, names = self.of_candidates(self.alpha)
        return derive(alpha, max_skips, max_pools, names)

    def of_candidates(self, alpha: Tensor) -> tuple[Tensor, tuple[str, ...]]:
        """Return what `alpha` (..., M) says of a genotype's own candidates, and their names: not of what is planted."""
        places = [k for k, name in enumerate(self.candidates) if name in CANDIDATES]
        return alpha[..., places], tuple(self.candidates[k] for k in places)
