"""The space of NAS-Bench-201: one small cell, repeated; 5^6 = 15,625 architectures, each of which has been trained.

Dong & Yang 2020, section 2: skeleton, cell and operations. Pi-NAS ranks this space by its supernet.
Deliberate deviations: convolutions have no bias, with affine or without (theirs gain one where BatchNorm has none); a
residual block halves a map of odd size upwards in both of its branches, where theirs would not add up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from sswp_lib.config import InputError, short, suggest
from sswp_lib.space.cell import pool
from sswp_lib.space.ops import AveragePool, BatchNorm, PointwiseConv2d, relu_conv_bn
from sswp_lib.space.paths import Paths, along, only
from sswp_lib.space.spaces import Choices, Space

NODES = 4  # node 0 is a cell's input, node 3 its output
EDGES = tuple((source, node) for node in range(1, NODES) for source in range(node))  # 6, node by node
EDGE_NAMES = tuple(f"{source}>{node}" for source, node in EDGES)

Run = Callable[[int, int, nn.ModuleDict, Callable[[nn.Module], Tensor | None]], Tensor | None]
"""(0, edge, the edge's operations by name, what applies one to the edge's input) -> the edge's output, or None: see
`paths.along`. All cells have the same choice, row 0.
"""


class Nothing(nn.Module):
    """No operation: returns None, which adds nothing to a node and costs nothing."""

    def forward(self, x: Tensor) -> None:
        return None


def _relu_conv3x3_bn(C_in: int, C_out: int, affine: bool, momentum: float | None, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(C_in, C_out, 3, stride, padding=1, bias=False)
    return nn.Sequential(nn.ReLU(), convolution, BatchNorm(C_out, affine, momentum))  # not in place: others read x


OPERATIONS: dict[str, Callable[[int, bool, float | None], nn.Module]] = {
    "none": lambda C, affine, momentum: Nothing(),
    "skip_connect": lambda C, affine, momentum: nn.Identity(),
    "nor_conv_1x1": lambda C, affine, momentum: relu_conv_bn(C, C, affine, momentum),
    "nor_conv_3x3": lambda C, affine, momentum: _relu_conv3x3_bn(C, C, affine, momentum),
    "avg_pool_3x3": lambda C, affine, momentum: AveragePool(1),  # no BatchNorm behind it, unlike DARTS's
}
"""Name -> builder(C, affine, momentum of BatchNorm): (N, C, H, W) -> (N, C, H, W), or None."""


class Cell(nn.Module):
    """Four nodes, an edge between any two of them; a node is the sum of its edges, the last node the output."""

    def __init__(self, C: int, operations: Sequence[Sequence[str]], affine: bool, momentum: float | None):
        super().__init__()
        self.edges = nn.ModuleList(
            nn.ModuleDict({name: OPERATIONS[name](C, affine, momentum) for name in names}) for names in operations
        )

    def forward(self, x: Tensor, run: Run) -> Tensor:
        """Return the last node, (N, C, H, W) as x; zeros where nothing flows into it."""
        nodes: list[Tensor | None] = [x, *[None] * (NODES - 1)]
        for edge, (source, node) in enumerate(EDGES):
            if nodes[source] is None:  # all edges into it have been run
                nodes[source] = torch.zeros_like(x)
            output = run(0, edge, self.edges[edge], lambda operation, x=nodes[source]: operation(x))
            if output is not None:
                nodes[node] = output if nodes[node] is None else nodes[node] + output  # not in place: may be a skip's
        return torch.zeros_like(x) if nodes[-1] is None else nodes[-1]


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, the first of stride 2, beside a 2x2 average and a 1x1 convolution without BatchNorm:
    (N, C_in, H, W) -> (N, C_out, ceil(H / 2), ceil(W / 2)).
    """

    def __init__(self, C_in: int, C_out: int, momentum: float | None):
        super().__init__()
        self.convolutions = nn.Sequential(
            _relu_conv3x3_bn(C_in, C_out, True, momentum, stride=2), _relu_conv3x3_bn(C_out, C_out, True, momentum)
        )
        average = nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False)
        self.shortcut = nn.Sequential(average, PointwiseConv2d(C_in, C_out))

    def forward(self, x: Tensor) -> Tensor:
        return self.convolutions(x) + self.shortcut(x)


class Bench201Net(nn.Module):
    """Stem, three stages of cells with a residual block before the second and third, BN-ReLU, global pool, head.

    All cells have the same choice of operations; weights are each cell's own. The network of one architecture and the
    one with every candidate in it differ by `operations` alone, so parameters have the same names in both.

    BatchNorm follows from what may be chosen: where an edge has several operations there are no running statistics
    (`ops.calibrate` computes them for the path that is evaluated); a network of one architecture keeps them, at
    torch's momentum of 0.1.

    Args:
        operations: for each of the 6 edges (0>1, 0>2, 1>2, 0>3, 1>3, 2>3) the names of the operations on it.
        init_channels: C of the first stage; 2C and 4C of the others (benchmark: 16).
        num_cells: N, cells of each stage (benchmark: 5).
        num_classes: outputs of the classifier. head: a module from (N, num_features) in its place.
        affine: learnable scale and shift in the BatchNorms of the cells' operations; all others always have them.

    Attributes:
        candidates: every name in `operations`, in order of first mention: what the numbers in paths stand for.
        num_features: 4C.

    Raises:
        InputError: not 6 edges, an edge without operations or with one of them twice, an unknown operation, sizes < 1.
    """

    def __init__(
        self, operations: Sequence[Sequence[str]], init_channels: int = 16, num_cells: int = 5, num_classes: int = 10,
        head: nn.Module | None = None, affine: bool = True,
    ):  # fmt: skip
        super().__init__()
        _check(operations, init_channels, num_cells)
        self.candidates = tuple(dict.fromkeys(name for names in operations for name in names))
        self.num_cells, self.num_features = num_cells, 4 * init_channels
        momentum = None if any(len(names) > 1 for names in operations) else 0.1
        widths = (init_channels, 2 * init_channels, 4 * init_channels)
        self.stem = nn.Sequential(
            nn.Conv2d(3, init_channels, 3, padding=1, bias=False), BatchNorm(init_channels, True, momentum)
        )
        self.cells = nn.ModuleList(Cell(C, operations, affine, momentum) for C in widths for _ in range(num_cells))
        self.blocks = nn.ModuleList(ResidualBlock(C, 2 * C, momentum) for C in widths[:-1])
        self.last = nn.Sequential(BatchNorm(self.num_features, True, momentum), nn.ReLU())
        self.head = head if head is not None else nn.Linear(self.num_features, num_classes)

    def last_map(self, x: Tensor, run: Run = only) -> Tensor:
        """Return the map before the pool for images x (N, 3, H, W): (N, 4C, H', W'), sides halved twice, upwards.

        Args:
            run: see `paths.along`; left out where each edge has one operation.
        """
        x = self.stem(x)
        for i, cell in enumerate(self.cells):
            if i in (self.num_cells, 2 * self.num_cells):
                x = self.blocks[i // self.num_cells - 1](x)
            x = cell(x, run)
        return self.last(x)

    def features(self, x: Tensor, paths: Paths | None = None) -> Tensor:
        """Return the pooled features of images x (N, 3, H, W): (N, num_features).

        Args:
            paths: active (1, 6), places in `candidates` or -1 for no edge; as well `inactive` and `gates` (1, 6) of two
                paths. None where each edge has one operation.

        Raises:
            InputError: no paths and a choice on some edge; paths of another shape, or an operation that is not there.
        """
        return pool(self.last_map(x, self._run(paths)))

    def forward(self, x: Tensor, paths: Paths | None = None) -> Tensor:
        """Return the head's output for images x (N, 3, H, W): class scores (N, num_classes); as `features`."""
        return self.head(self.features(x, paths))

    def _run(self, paths: Paths | None) -> Run:
        edges = list(zip(EDGE_NAMES, self.cells[0].edges, strict=True))
        if paths is None:
            for edge, operations in edges:
                if len(operations) > 1:
                    raise InputError(
                        f"paths is None, and edge {edge} has {len(operations)} operations; expected paths that choose "
                        "among them, e.g. BENCH201.paths(choices), or a network of one architecture"
                    )
            return only
        for picks in (paths.active, paths.inactive):
            if picks is None:
                continue
            if picks.shape != (1, len(EDGES)):
                raise InputError(
                    f"paths have shape {tuple(picks.shape)}; expected (1, {len(EDGES)}): all cells share one row"
                )
            for (edge, operations), k in zip(edges, picks[0].tolist(), strict=True):
                if k >= 0 and not set(self.candidates[k : k + 1]) & set(operations):
                    raise InputError(
                        f"paths take candidate {k} on edge {edge}; expected the place in {short(self.candidates)} of "
                        f"one of {', '.join(operations)}, or -1 for none"
                    )
        return along(paths, self.candidates)


def _check(operations: Sequence[Sequence[str]], init_channels: int, num_cells: int) -> None:
    for name, size in (("init_channels", init_channels), ("num_cells", num_cells)):
        if size < 1:
            raise InputError(f"{name} is {size}; expected 1 or more")
    if len(operations) != len(EDGES):
        raise InputError(f"operations for {len(operations)} edges; expected 6: {', '.join(EDGE_NAMES)}")
    for edge, names in zip(EDGE_NAMES, operations, strict=True):
        for name in names:
            if name not in OPERATIONS:
                raise InputError(f"edge {edge}: unknown operation {short(name)}{suggest(str(name), OPERATIONS)}")
        if not names or len(set(names)) < len(names):
            raise InputError(f"edge {edge} has the operations {short(list(names))}; expected one or more, each once")


def connected(choices: Choices) -> bool:
    """Return whether anything flows from the cell's input to its output; so it is in 15,284 of the 15,625."""
    reached = {0}
    for (source, node), name in zip(EDGES, choices.operations, strict=True):
        if name != "none" and source in reached:
            reached.add(node)
    return NODES - 1 in reached


EXAMPLE = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"


def parse(text: str) -> list[str]:
    """Return the 6 operations, edge by edge, of the benchmark's own text, which lists them node by node: EXAMPLE.

    The names themselves are checked by `Space.choices`.

    Raises:
        InputError: anything else than that form; names the node and what stands there.
    """
    nodes = text.strip().split("+")
    if len(nodes) != NODES - 1:
        raise InputError(
            f"not an architecture: {short(text)} has {len(nodes)} parts; expected 3 joined by +: {EXAMPLE}"
        )
    operations = []
    for node, part in enumerate(nodes, start=1):
        entries = part.split("|")[1:-1]
        if not part.startswith("|") or not part.endswith("|") or len(entries) != node:
            form = "".join(f"|operation~{source}" for source in range(node))
            raise InputError(f"node {node} is {short(part)}; expected {form}|, an operation for each node before it")
        for source, entry in enumerate(entries):
            name, mark, found = entry.partition("~")
            if not mark or found != str(source):
                raise InputError(f"node {node}, edge {source}>{node}: {short(entry)}; expected operation~{source}")
            operations.append(name)
    return operations


def write(choices: Choices) -> str:
    """Return an architecture as the benchmark writes it: what `parse` reads."""
    on = dict(zip(EDGES, choices.operations, strict=True))
    nodes = ("".join(f"{on[source, node]}~{source}|" for source in range(node)) for node in range(1, NODES))
    return "+".join(f"|{node}" for node in nodes)


BENCH201 = Space(
    name="nasbench201",
    edges=EDGE_NAMES,
    candidates=tuple(OPERATIONS),
    build=Bench201Net,
    connected=connected,
    parse=parse,
    write=write,
)
