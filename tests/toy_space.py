"""A search space of 27 architectures that trains in milliseconds: a chain of three edges between a stem and a head."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sswp_lib.space import Paths, Space
from sswp_lib.space.cell import pool
from sswp_lib.space.ops import BatchNorm
from sswp_lib.space.paths import along, only

CANDIDATES = ("conv_1x1", "conv_3x3", "skip")


def operation(name: str, C: int) -> nn.Module:
    if name == "skip":
        return nn.Identity()
    kernel = 1 if name == "conv_1x1" else 3
    return nn.Sequential(nn.Conv2d(C, C, kernel, padding=kernel // 2, bias=False), BatchNorm(C))


class Chain(nn.Module):
    """Stem, `num_cells` times three edges, each behind a ReLU, BatchNorm, pool: the last and the stem are shared."""

    def __init__(self, operations, init_channels: int = 4, num_cells: int = 1, num_classes: int = 10):
        super().__init__()
        C = init_channels
        self.names = tuple(max(operations, key=len))
        self.stem = nn.Sequential(nn.Conv2d(3, C, 3, padding=1, bias=False), BatchNorm(C))
        edge = lambda names: nn.ModuleDict({name: operation(name, C) for name in names})  # noqa: E731
        self.cells = nn.ModuleList([nn.ModuleList([edge(names) for names in operations]) for _ in range(num_cells)])
        self.last = BatchNorm(C)
        self.num_features = C
        self.head = nn.Linear(C, num_classes)

    def features(self, x: Tensor, paths: Paths | None = None) -> Tensor:
        """Without paths there is one operation on each edge."""
        run, x = only if paths is None else along(paths, self.names), self.stem(x)
        for cell in self.cells:
            for edge, operations in enumerate(cell):
                rectified = F.relu(x)
                x = run(0, edge, operations, lambda operation, x=rectified: operation(x))
        return pool(F.relu(self.last(x)))

    def forward(self, x: Tensor, paths: Paths | None = None) -> Tensor:
        return self.head(self.features(x, paths))


TOY = Space("toy", ("first", "second", "third"), CANDIDATES, Chain)

# 144 training images and 16 held out of the tests' 160: four steps an epoch, and a queue of two batches
SETTINGS = {
    "one_shot.space": "toy", "one_shot.init_channels": 4, "one_shot.num_cells": 1, "one_shot.epochs": 3,
    "one_shot.batch_size": 32, "one_shot.queue": 64, "one_shot.teacher": 0.9, "model.projection_dim": 6,
    "ranking.linear_epochs": 5, "ranking.linear_batch": 40, "ranking.linear_lr": 1.0,
    "ranking.calibration_images": 80, "ranking.calibration_batch": 40,
}  # fmt: skip
# what one-shot training can be: Pi-NAS and the arms of its Table 7, and SPOS
ARMS = {
    "Pi-NAS": {},
    "own path": {"one_shot.cross_path": False},
    "no teacher": {"one_shot.teacher": 0.0},
    "neither": {"one_shot.cross_path": False, "one_shot.teacher": 0.0},
    "no negatives": {"one_shot.negatives": False},
    "SPOS": {"one_shot.objective": "supervised"},
}


def images(count: int, size: int = 4, seed: int = 0, dtype=torch.float64) -> Tensor:
    """Return random images, each of a colour of its own, (count, 3, size, size)."""
    g = torch.Generator().manual_seed(seed)
    colour, noise = torch.randn(count, 3, 1, 1, generator=g), torch.randn(count, 3, size, size, generator=g)
    return (2 * colour + noise).to(dtype)
