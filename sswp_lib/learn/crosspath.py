"""Cross-path learning with a nontrivial mean teacher: the objective of Pi-NAS.

Peng et al., "Pi-NAS: Improving Neural Architecture Search by Reducing Supernet Training Consistency Shift", ICCV 2021,
section 3.2. What the paper does not say is as in the code its authors released: four views, normalised outputs, the
temperature, and the average of the teacher's two outputs, itself not normalised, as a later negative. Deliberate
deviation: as in equation (2) the teacher follows in all its weights, once a step; the released code's follows only in
those that run, and twice a step in those that all paths share.
"""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sswp_lib.config import InputError
from sswp_lib.learn.objectives import Objective, approach, share_right
from sswp_lib.processes import full
from sswp_lib.space import Paths, ProjectionHead


class CrossPath(Objective):
    """One step's loss of two paths i and j, each agreeing with what a teacher f' makes of the image along the other.

    With four views q0, k0, q1, k1 of each image and all outputs normalised,

        z_i = f(q0; i),  z_j = f(q1; j),  z'_i = f'(k0; i),  z'_j = f'(k1; j)       (no gradient to z')
        L = CE(z_i: positive z'_j, negatives Q) + CE(z_j: positive z'_i, negatives Q)                 (4)

    with logits = dot products / temperature, each cross-entropy averaged over the batch. The queue Q begins as random
    unit vectors; after each step the N averages (z'_i + z'_j) / 2 enter it and the N oldest rows leave. Arms of the
    paper's Table 7: `cross_path` off, the positive is the teacher's of the same path; `ema` 0, the teacher is the
    student itself; `negatives` off, L = -mean(z_i . z'_j + z_j . z'_i), with no queue.

    Args:
        projection_dim: D, of the outputs. g: a CPU generator, of the queue's first rows.
        temperature: above 0. ema: lambda of equation (2), W' <- ema W' + (1 - ema) W, in 0-1. queue: K, rows of Q.
        in_batch: the positives of the step's other images are negatives too, so that each term has N - 1 + K. Ours: a
            student that is its own teacher can leave all rows of Q behind by moving its outputs for all images alike,
            and learns nothing else; from the outputs of the same step it cannot move away.

    Attributes:
        queue: (K, D), the newest rows first; None without negatives.
        teacher: a copy of the model from `attach` on; None where `ema` is 0.
    """

    num_views = 4

    def __init__(
        self, projection_dim: int, g: torch.Generator, temperature: float = 0.2, ema: float = 0.999,
        queue: int = 49152, cross_path: bool = True, negatives: bool = True, in_batch: bool = False,
    ):  # fmt: skip
        super().__init__()
        self.projection_dim, self.temperature, self.ema, self.cross_path = projection_dim, temperature, ema, cross_path
        self.in_batch = in_batch
        rows = unit(torch.randn(queue, projection_dim, generator=g)) if negatives else None
        self.register_buffer("queue", rows)
        self.teacher: nn.Module | None = None
        self._entering: Tensor | None = None  # (N, D), between a step's loss and `follow`

    def head(self, num_features: int, num_classes: int) -> nn.Module:
        return ProjectionHead(num_features, self.projection_dim)

    def attach(self, model: nn.Module) -> None:
        if self.ema:
            self.teacher = copy.deepcopy(model).requires_grad_(False)

    def follow(self, model: nn.Module) -> None:
        """Let the last loss's averages into the queue, and the teacher follow in all its parameters.

        Its BatchNorm's stored statistics stay: it normalises by the batch, as the student does.
        """
        if self.queue is not None:
            self.queue.copy_(torch.cat([self._entering, self.queue])[: len(self.queue)])
        if self.teacher is not None:
            approach(self.teacher, model, self.ema)
        self._entering = None

    def forward(self, model, views, labels, one: Paths, two: Paths):
        """Return the loss along the paths `one` and `two`, i and j.

        Metrics: `accuracy`, the share of images whose nearest positive of the batch is their own; `cosine`, the mean
        |cosine| of z_i between different images, which collapse brings to 1.
        """
        q0, k0, q1, k1 = views
        teacher = model if self.teacher is None else self.teacher
        z = unit(model(q0, one)), unit(model(q1, two))
        with torch.no_grad():
            positives = unit(teacher(k0, one)), unit(teacher(k1, two))
            self._entering = (positives[0] + positives[1]) / 2
        if self.cross_path:
            positives = positives[::-1]
        with torch.autocast(z[0].device.type, enabled=False):
            loss = self._cost(z[0], positives[0]) + self._cost(z[1], positives[1])
            nearest = z[0].detach() @ positives[0].T  # (N, N)
            cosine = between_images(z[0].detach())
        own = torch.arange(len(nearest), device=nearest.device)
        return loss, {"accuracy": share_right(nearest, own), "cosine": cosine}

    def _cost(self, z: Tensor, positive: Tensor) -> Tensor:
        """Return one term of the loss for z, positive (N, D), both of length 1."""
        agreement = (z * positive).sum(dim=1)  # (N,)
        if self.queue is None:
            return -agreement.mean()
        if self.in_batch:
            logits = torch.cat([z @ positive.T, z @ self.queue.T], dim=1) / self.temperature  # (N, N + K)
            return F.cross_entropy(logits, torch.arange(len(z), device=z.device))
        logits = torch.cat([agreement[:, None], z @ self.queue.T], dim=1) / self.temperature  # (N, 1 + K)
        return F.cross_entropy(logits, torch.zeros(len(z), dtype=torch.long, device=z.device))


def unit(z: Tensor) -> Tensor:
    """Return the rows of z (N, D) at length 1; computed in float32 (or float64) whatever the autocast."""
    return F.normalize(full(z), dim=1)


def between_images(z: Tensor) -> Tensor:
    """Return the mean |cosine| between different rows of z (N, D), which have length 1: a scalar."""
    cosines = (z @ z.T).abs()
    return (cosines.sum() - cosines.diagonal().sum()) / (len(z) * (len(z) - 1))


def collapse(z: Tensor) -> dict[str, float]:
    """Return how far the outputs z (N, D) of N different images, normalised here, have collapsed to one direction.

    Returns:
        {"cosine": mean |cosine| between different images, 1 where all are alike; "spread": sqrt(D) times the mean
        deviation of a dimension, 0 where all are alike and about 1 where they are spread over the whole sphere}.

    Raises:
        InputError: fewer than two images.
    """
    if z.dim() != 2 or len(z) < 2:
        raise InputError(f"z has shape {tuple(z.shape)}; expected (N, D) of two different images or more")
    z = unit(z.double())
    return {"cosine": float(between_images(z)), "spread": float(math.sqrt(z.shape[1]) * z.std(dim=0).mean())}
