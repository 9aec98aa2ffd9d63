"""The graph of a cell, and the stack of cells that supernet and network share.

Paper: section 3.1 (7 nodes: 2 inputs, 4 intermediate, 1 output; 14 edges) and section 3.2 (search and final
network have the same width and depth; every cell its own structure). Supernet and network differ only in
which operations stand on an edge and in who chooses among them, so parameter names are the same in both:
concomitant weights move from one to the other by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from sswp_lib.config import InputError, suggest
from sswp_lib.space import small
from sswp_lib.space.genotype import EDGES, NUM_NODES, reduction_cells
from sswp_lib.space.ops import OPERATIONS, BatchNorm, Builder, FactorizedReduce, ReLUFirst, concatenated, relu_conv_bn
from sswp_lib.space.planted import PLANTED


class State(NamedTuple):
    """A node's map x (N, C, H, W), and its ReLU, with which most operations on the edges that leave the node begin."""

    x: Tensor
    rectified: Tensor

    def through(self, operation: nn.Module) -> Tensor:
        """Return operation(x)."""
        return operation(self.x, self.rectified) if isinstance(operation, ReLUFirst) else operation(self.x)


Run = Callable[[int, int, nn.ModuleDict, State], Tensor | None]
"""(cell, edge, the edge's operations by name, the node it leaves) -> the edge's output, or None where the edge is gone.
"""


def _builder(name: str) -> Builder:
    builders = OPERATIONS | PLANTED
    if name not in builders:
        raise InputError(f"unknown operation {name!r}{suggest(name, builders)}")
    return builders[name]


class Cell(nn.Module):
    """One cell: two preprocessed inputs, four intermediate nodes, their concatenation as output.

    Args:
        C_before_last, C_last: channels of the two cells before this one.
        C: channels of every node; the output has 4C.
        reduction: edges that leave the two inputs have stride 2.
        after_reduction: the cell before was a reduction, so input 0 is twice as large as input 1.
        operations: for every edge that exists the names of the operations on it.
        affine, momentum: of the BatchNorms (see `ops.BatchNorm`).
    """

    def __init__(
        self, C_before_last: int, C_last: int, C: int, reduction: bool, after_reduction: bool,
        operations: dict[int, Sequence[str]], affine: bool, momentum: float | None,
    ):  # fmt: skip
        super().__init__()
        bring = FactorizedReduce if after_reduction else relu_conv_bn
        self.preprocess0 = bring(C_before_last, C, affine, momentum)
        self.preprocess1 = relu_conv_bn(C_last, C, affine, momentum)
        self.edges = nn.ModuleDict()
        for edge, names in operations.items():
            stride = 2 if reduction and EDGES[edge][0] < 2 else 1
            built = {name: _builder(name)(C, stride, affine, momentum) for name in names}
            self.edges[str(edge)] = nn.ModuleDict(built)

    def forward(
        self, before_last: Tensor, last: Tensor, run: Callable[[int, nn.ModuleDict, State], Tensor | None]
    ) -> Tensor:
        """Sum the edges into each node; return the four nodes concatenated, (N, 4C, H', W')."""
        nodes = [self.preprocess0(before_last), self.preprocess1(last)]
        states = [State(x, F.relu(x)) for x in nodes]  # never in place: the map belongs to other edges too
        node_input: Tensor | None = None
        for edge, (source, node) in enumerate(EDGES):
            operations = self.edges[str(edge)] if str(edge) in self.edges else None
            output = run(edge, operations, states[source]) if operations else None
            if output is not None:
                node_input = (
                    output if node_input is None else node_input + output
                )  # not in place: a skip returns its input
            if source == node - 1:
                nodes.append(node_input)
                if node < NUM_NODES + 1:  # no edge leaves the last
                    states.append(State(node_input, F.relu(node_input)))
                node_input = None
        return concatenated(nodes[-NUM_NODES:])


def _cifar_stem(C: int) -> nn.ModuleList:
    C_stem = 3 * C
    return nn.ModuleList([nn.Sequential(nn.Conv2d(3, C_stem, 3, padding=1, bias=False), BatchNorm(C_stem))])


def _imagenet_stem(C: int) -> nn.ModuleList:
    first = nn.Sequential(
        nn.Conv2d(3, C // 2, 3, stride=2, padding=1, bias=False), BatchNorm(C // 2), nn.ReLU(),
        nn.Conv2d(C // 2, C, 3, stride=2, padding=1, bias=False), BatchNorm(C),
    )  # fmt: skip
    second = nn.Sequential(nn.ReLU(), nn.Conv2d(C, C, 3, stride=2, padding=1, bias=False), BatchNorm(C))
    return nn.ModuleList([first, second])


STEMS = {"cifar": _cifar_stem, "imagenet": _imagenet_stem}
"""Stem name -> builder(C). The first part makes the first cell's input 0, all parts together its input 1."""


class CellStack(nn.Module):
    """Stem, cells, and global average pool: everything before the head.

    Args:
        init_channels: C of the first cell; doubled at each reduction cell.
        operations: for each cell, {edge: operation names}.
        stem: "cifar" (3x3 convolution to 3C) or "imagenet" (three stride-2 convolutions).
    """

    def __init__(
        self,
        init_channels: int,
        operations: Sequence[dict[int, Sequence[str]]],
        stem: str,
        affine: bool,
        momentum: float | None,
    ):
        super().__init__()
        if stem not in STEMS:
            raise InputError(f"stem is {stem!r}; expected one of {', '.join(STEMS)}")
        self.reductions = reduction_cells(len(operations))
        self.stem = STEMS[stem](init_channels)
        for module in self.stem.modules():
            if isinstance(module, BatchNorm):
                module.momentum = momentum
        C = init_channels
        C_before_last = C_last = 3 * C if stem == "cifar" else C
        after_reduction = stem == "imagenet"
        self.cells = nn.ModuleList()
        for i, edges in enumerate(operations):
            reduction = i in self.reductions
            C = 2 * C if reduction else C
            self.cells.append(Cell(C_before_last, C_last, C, reduction, after_reduction, edges, affine, momentum))
            C_before_last, C_last, after_reduction = C_last, NUM_NODES * C, reduction
        self.num_features = C_last

    def maps(self, x: Tensor, run: Run) -> list[Tensor]:
        """Return every cell's output map, (N, 4C_i, H_i, W_i), for images x (N, 3, H, W)."""
        before_last = last = self.stem[0](x)
        for part in self.stem[1:]:
            last = part(last)
        outputs = []
        for i, cell in enumerate(self.cells):
            before_last, last = last, cell(before_last, last, partial(run, i))
            outputs.append(last)
        return outputs


def pool(feature_map: Tensor) -> Tensor:
    """Global average pool: (N, D, H, W) -> (N, D)."""
    if small.is_small(feature_map):
        return feature_map.transpose(0, 1).flatten(2).mean(-1).t()
    return F.avg_pool2d(feature_map, feature_map.shape[2:]).flatten(
        1
    )  # mean(dim=(2, 3)) would lose channels_last in its gradient


class ProjectionHead(nn.Sequential):
    """Linear(D, D)-ReLU-Linear(D, 128): from features to the space of the contrastive loss (paper, section 3.3, P)."""

    def __init__(self, num_features: int, num_outputs: int = 128):
        super().__init__(nn.Linear(num_features, num_features), nn.ReLU(), nn.Linear(num_features, num_outputs))
