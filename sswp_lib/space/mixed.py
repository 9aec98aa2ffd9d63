"""The relaxed network: every candidate runs on every edge, weighted by a softmax over alpha.

DARTS (Liu et al. 2019, section 2.2), which SSNAS (Kaplan & Giryes 2020) searches with as well. All normal cells share
one row of alpha, both reduction cells the other. Weights are values: `mixture` makes them from alpha, `forward` takes
them, nothing remembers them. Deliberate deviations: BatchNorm keeps no running statistics while searching (see
`space.supernet`), so that an alpha step leaves no trace in them.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from sswp_lib.config import InputError
from sswp_lib.space.cell import CellStack, ProjectionHead, State, pool
from sswp_lib.space.genotype import EDGES, NONE, Genotype, derive

DARTS_CANDIDATES = (
    NONE, "max_pool_3x3", "avg_pool_3x3", "skip_connect",
    "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5",
)  # fmt: skip
KINDS = ("normal", "reduce")  # of cells: the rows of alpha
SPREAD = 1e-3  # of alpha at the start; DARTS


def mixture(alpha: Tensor) -> Tensor:
    """Return the weights of an edge's candidates, softmax(alpha) over the last dimension: (..., M) -> (..., M)."""
    return torch.softmax(alpha, dim=-1)


class MixedNet(CellStack):
    """Every candidate on every edge, and all of them run: the edge's output is sum_k w_k o_k(x).

    Args:
        init_channels: C of the first cell (DARTS: 16). num_cells: L (DARTS: 8).
        generator: a CPU generator, from which alpha is drawn; weights come from torch's own.
        head: module from (N, num_features) to the output; SimCLR's projection head if left out.
        candidates: the M operation names. "none" needs no module and costs nothing: it takes its share of the softmax.
        stem: "cifar" or "imagenet". affine: learnable scale and shift in BatchNorm (off while searching).

    Attributes:
        alpha: (2, 14, M) architecture parameters, 1e-3 * N(0, 1) at the start (DARTS); 0: all normal cells, 1: both
            reduction cells.
    """

    def __init__(
        self, init_channels: int, num_cells: int, generator: torch.Generator, head: nn.Module | None = None,
        candidates: tuple[str, ...] = DARTS_CANDIDATES, stem: str = "cifar", affine: bool = False,
    ):  # fmt: skip
        names = [name for name in candidates if name != NONE]
        everything = dict.fromkeys(range(len(EDGES)), names)
        super().__init__(init_channels, [everything] * num_cells, stem, affine, momentum=None)
        self.candidates = tuple(candidates)
        self.head = head if head is not None else ProjectionHead(self.num_features)
        self.alpha = nn.Parameter(SPREAD * torch.randn(len(KINDS), len(EDGES), len(candidates), generator=generator))

    @property
    def num_cells(self) -> int:
        return len(self.cells)

    def weight_parameters(self) -> Iterator[nn.Parameter]:
        """Yield every parameter but alpha."""
        return (p for name, p in self.named_parameters() if name != "alpha")

    def features(self, x: Tensor, weights: Tensor) -> Tensor:
        """Return the pooled features of images x (N, 3, H, W), candidates weighted by `weights` (2, 14, M):
        (N, num_features).
        """
        if weights.shape != self.alpha.shape:
            raise InputError(
                f"weights have shape {tuple(weights.shape)}; expected that of mixture(alpha), {tuple(self.alpha.shape)}"
            )
        shares = [[edge.unbind() for edge in kind.unbind()] for kind in weights.unbind()]

        def run(cell: int, edge: int, operations: nn.ModuleDict, state: State) -> Tensor:
            own = dict(zip(self.candidates, shares[cell in self.reductions][edge], strict=True))
            outputs = [own[name] * state.through(operation) for name, operation in operations.items()]
            return sum(outputs[1:], outputs[0])

        return pool(self.maps(x, run)[-1])

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """Return the head's output for images x (N, 3, H, W), candidates weighted by `weights` (2, 14, M)."""
        return self.head(self.features(x, weights))

    def genotype(self, num_cells: int | None = None) -> Genotype:
        """Return the genotype that alpha stands for, stacked to `num_cells`, this network's own depth if left out."""
        normal, reduce = derive(self.alpha, None, None, self.candidates).cells
        return Genotype.stacked(normal, reduce, self.num_cells if num_cells is None else num_cells)
