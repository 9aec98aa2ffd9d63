"""The compact network of a genotype, and loading concomitant weights into it.

Paper: section 3.2 (concomitant weights), section 4.2 and Table 5 (auxiliary head, drop-path).
Deliberate deviations: the auxiliary head pools to 2x2 whatever the map's size (DARTS's assumes 8x8 or 7x7).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sswp_lib.config import InputError
from sswp_lib.space.cell import CellStack, Run, State, pool
from sswp_lib.space.genotype import EDGES, Genotype
from sswp_lib.space.ops import BatchNorm


class AuxiliaryHead(nn.Module):
    """A classifier on the map after the second reduction (DARTS), for maps of any size."""

    def __init__(self, C: int, num_classes: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(C, 128, 1, bias=False), BatchNorm(128), nn.ReLU(),
            nn.Conv2d(128, 768, 2, bias=False), BatchNorm(768), nn.ReLU(),
        )  # fmt: skip
        self.classifier = nn.Linear(768, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        size = x.shape[-1]
        if x.shape[-2] == size and 6 <= size <= 10:
            x = F.avg_pool2d(x, 5, stride=size - 5)  # DARTS's own at 8 (stride 3) and 7 (stride 2): 2x2
        else:
            x = F.adaptive_avg_pool2d(x, 2)
        return self.classifier(self.body(x).flatten(1))


class Network(CellStack):
    """The compact network of a genotype: one operation on each of the 8 kept edges of every cell.

    Args:
        genotype: its number of cells is the depth.
        init_channels: C of the first cell. num_classes: outputs of the classifier.
        auxiliary: add the auxiliary head after cell 2L//3 (used in training only).
        head: a module from (N, num_features) in place of the linear classifier.
        stem: "cifar" or "imagenet". affine: learnable scale and shift in BatchNorm.
    """

    def __init__(
        self, genotype: Genotype, init_channels: int = 36, num_classes: int = 10, auxiliary: bool = False,
        head: nn.Module | None = None, stem: str = "cifar", affine: bool = True,
    ):  # fmt: skip
        operations = [{edge: (name,) for edge, name in genotype.edges(i).items()} for i in range(genotype.num_cells)]
        super().__init__(init_channels, operations, stem, affine, momentum=0.1)
        self.genotype = genotype
        self.auxiliary_cell = 2 * genotype.num_cells // 3
        C_auxiliary = self.cells[self.auxiliary_cell].preprocess1[1].out_channels * 4
        self.auxiliary_head = AuxiliaryHead(C_auxiliary, num_classes) if auxiliary else None
        self.head = head if head is not None else nn.Linear(self.num_features, num_classes)

    def features(self, x: Tensor) -> Tensor:
        """Return the pooled features of images x (N, 3, H, W): (N, num_features)."""
        return pool(self.last_map(x))

    def last_map(self, x: Tensor) -> Tensor:
        """Return the last cell's map of images x (N, 3, H, W): (N, num_features, H', W')."""
        return self.maps(x, _run)[-1]

    def forward(self, x: Tensor) -> Tensor:
        """Return the head's output: class scores (N, num_classes). No drop-path, no auxiliary head."""
        return self.head(self.features(x))

    def forward_train(self, x: Tensor, drop_path: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Return (output, auxiliary output or None).

        Args:
            x: images (N, 3, H, W).
            drop_path: `drop_path_masks` for N images, on their device: factors of each edge's output, image by image,
                never on an identity. None for no drop-path.
        """
        maps = self.maps(x, _run if drop_path is None else _dropping(drop_path))
        auxiliary = self.auxiliary_head(maps[self.auxiliary_cell]) if self.auxiliary_head is not None else None
        return self.head(pool(maps[-1])), auxiliary


def drop_path_masks(num_cells: int, num_images: int, rate: float, generator: torch.Generator) -> Tensor:
    """Return the factors of one step's drop-path, (cells, 14, N, 1, 1, 1): 0 at the given rate, else 1 / (1 - rate).

    `generator` is one on the CPU. A value, so that the network's forward draws nothing and can be compiled whole.
    """
    kept = torch.rand(num_cells, len(EDGES), num_images, 1, 1, 1, generator=generator) >= rate
    return kept.float() / (1 - rate)


def _run(cell: int, edge: int, operations: nn.ModuleDict, state: State) -> Tensor:
    (operation,) = operations.values()
    return state.through(operation)


def _dropping(masks: Tensor) -> Run:
    """Return a `Run` with drop-path."""

    def run(cell: int, edge: int, operations: nn.ModuleDict, state: State) -> Tensor:
        (operation,) = operations.values()
        output = state.through(operation)
        return output if isinstance(operation, nn.Identity) else output * masks[cell, edge].to(output.dtype)

    return run


@dataclass(frozen=True)
class LoadReport:
    """What `load_concomitant` did, by parameter name: taken over, new, and left over in the source."""

    matched: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{len(self.matched)} tensors taken over, {len(self.new)} new, {len(self.left_over)} left over"


NEW_BY_DESIGN = ("head.", "auxiliary_head.")
LEFT_BY_DESIGN = ("head.", "alpha", "auxiliary_head.")


@torch.no_grad()
def load_concomitant(network: Network, weights: dict[str, Tensor]) -> LoadReport:
    """Copy the weights found on the way into the compact network, strictly.

    Taken over: the stem, the cells' preprocessing, each kept operation of each kept edge. New: the classifier, the
    auxiliary head, and BatchNorm's scale and shift where the source has none (they start at 1 and 0, which changes no
    output). Left over: alpha, the source's head, and the edges that the genotype does not keep.

    Args:
        weights: a supernet's or a network's state_dict.

    Raises:
        InputError: a tensor is missing, or has another shape (another width); nothing has been copied then.
    """
    report, wrong = LoadReport(), []
    affine = {
        f"{name}.{part}"
        for name, module in network.named_modules()
        if isinstance(module, BatchNorm)
        for part in ("weight", "bias")
    }
    own = network.state_dict()
    for name, tensor in own.items():
        if name.startswith(NEW_BY_DESIGN):
            report.new.append(name)
        elif name in weights:
            report.matched.append(name)
            if weights[name].shape != tensor.shape:
                wrong.append(f"{name} is {tuple(weights[name].shape)}, expected {tuple(tensor.shape)}")
        elif name in affine:
            report.new.append(name)
        else:
            wrong.append(f"{name} is missing")
    taken = set(report.matched)
    report.left_over.extend(name for name in weights if name not in taken)
    edges = {f"cells.{cell}.edges.{edge}." for cell in range(len(network.cells)) for edge in range(len(EDGES))}
    strange = [
        name for name in report.left_over if not name.startswith(LEFT_BY_DESIGN) and not name.startswith(tuple(edges))
    ]
    wrong.extend(f"{name} has no place in this network" for name in strange)
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise InputError(
            f"these weights do not fit the network: {wrong[0]}{more}; check init_channels, num_cells, stem "
            "and that genotype and weights come from one run"
        )
    for name in report.matched:
        own[name].copy_(weights[name])
    return report
