"""SimCLR, supervised, BYOL: one interface. A batch and a model in, a scalar loss and metrics out.

Paper: section 3.3, equations (4) and (5). Deliberate deviations: the loss is the mean over the 2N views, not the sum of
equation (4), as in SimCLR's Algorithm 1 and as Table 5's learning rates assume.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sswp_lib import processes
from sswp_lib.config import Config, InputError
from sswp_lib.processes import full
from sswp_lib.space import ProjectionHead

JUDGED_ON = 10  # batches, of a model that is judged by an objective; ours


def nt_xent(z: Tensor, temperature: float = 0.07) -> Tensor:
    """Normalised temperature-scaled cross-entropy, equation (5), averaged over the 2N views.

        L_i = -log( exp(sim(z_i, z_j(i)) / t) / sum over k != i of exp(sim(z_i, z_k) / t) ),  sim = cosine

    Args:
        z: (2N, D); rows i and i + N are the two views of image i.
        temperature: t, above 0.

    Returns:
        A scalar; log(2N - 1) where all rows are equal. Computed in float32 (or float64) whatever the autocast.
    """
    logits, target = _similarities(z, temperature)
    return F.cross_entropy(logits, target)


def _similarities(z: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return (2N, 2N) scaled cosines with -inf for self, and each row's positive, (2N,).

    Where a run is shared, the rows are this process's own and the columns those of all: memory stays linear in the
    batch for as many processes.
    """
    if z.dim() != 2 or len(z) < 2 or len(z) % 2:
        raise InputError(f"z has shape {tuple(z.shape)}; expected (2N, D), rows i and i + N the two views of image i")
    with torch.autocast(z.device.type, enabled=False):
        z = F.normalize(full(z), dim=1)
        everyone, start = processes.gathered(z)
        logits = (z @ everyone.T) / temperature  # (2N, 2N)
    own = start + torch.arange(len(z), device=z.device)
    logits = logits.masked_fill(own[:, None] == torch.arange(len(everyone), device=z.device), -torch.inf)
    return logits, own.roll(len(z) // 2)


class BatchNorm1d(nn.BatchNorm1d):
    """Normalises features (N, D) by the batch, in training and evaluation alike; a batch is that of all processes."""

    def __init__(self, num_features: int):
        super().__init__(num_features, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        if processes.count() > 1:
            return processes.batch_norm(x, self.weight, self.bias, self.eps)[0]
        return super().forward(x)


class Objective(nn.Module):
    """What is learnt from: `objective(model, views, labels, *extra)` -> (scalar loss, {"accuracy": tensor}), both means
    over the rows that are given, which of a run on several processes are this one's.

    `model(x, *extra)` is called with all views in one batch; `extra` is a supernet's paths. Objectives of several paths
    call it once for each.

    Attributes:
        num_views: random views of each image that a step needs.
        needs_labels: whether labels are used.
    """

    num_views = 1
    needs_labels = False

    def head(self, num_features: int, num_classes: int) -> nn.Module:
        """Return a new head for a model of so many features."""
        raise NotImplementedError

    def attach(self, model: nn.Module) -> None:
        """Take note of the model once it is built and in place."""

    def follow(self, model: nn.Module) -> None:
        """Called after each weight step."""

    def prune_as(self, model: nn.Module) -> None:
        """Called after cells of the model were pruned."""

    def forward(self, model, views: list[Tensor], labels: Tensor | None, *extra) -> tuple[Tensor, dict[str, Tensor]]:
        raise NotImplementedError


class SimCLR(Objective):
    """Contrast each image's second view with all others of the batch (paper, section 3.3)."""

    num_views = 2

    def __init__(self, temperature: float, projection_dim: int):
        super().__init__()
        self.temperature, self.projection_dim = temperature, projection_dim

    def head(self, num_features: int, num_classes: int) -> nn.Module:
        return ProjectionHead(num_features, self.projection_dim)

    def forward(self, model, views, labels, *extra):
        """`accuracy` is the share of views whose nearest other view is of the same image."""
        logits, target = _similarities(model(torch.cat(views), *extra), self.temperature)
        return F.cross_entropy(logits, target), {"accuracy": share_right(logits, target)}


class Supervised(Objective):
    """Cross-entropy on labels: the paper's SL."""

    needs_labels = True

    def __init__(self, label_smoothing: float = 0.0):
        super().__init__()
        self.label_smoothing = label_smoothing

    def head(self, num_features: int, num_classes: int) -> nn.Module:
        return nn.Linear(num_features, num_classes)

    def forward(self, model, views, labels, *extra):
        scores = full(model(views[0], *extra))
        loss = F.cross_entropy(scores, labels, label_smoothing=self.label_smoothing)
        return loss, {"accuracy": share_right(scores, labels)}


class BYOL(Objective):
    """Predict one view's target projection from the other's, without negatives.

    The target is a moving average of the model; in a search it runs the same paths (the paper reports that averaging
    weights of changing paths fails: 3.05 % error against SimCLR's 2.56 %).
    """

    num_views = 2

    def __init__(self, projection_dim: int, ema: float):
        super().__init__()
        self.ema = ema
        self.projection_dim = projection_dim
        width = 2 * projection_dim
        self.predictor = nn.Sequential(
            nn.Linear(projection_dim, width),
            BatchNorm1d(width),
            nn.ReLU(),
            nn.Linear(width, projection_dim),
        )
        self.target: nn.Module | None = None

    def head(self, num_features: int, num_classes: int) -> nn.Module:
        return ProjectionHead(num_features, self.projection_dim)

    def attach(self, model: nn.Module) -> None:
        self.target = copy.deepcopy(model).requires_grad_(False)

    def follow(self, model: nn.Module) -> None:
        approach(self.target, model, self.ema)

    def prune_as(self, model: nn.Module) -> None:
        self.target.prune_as(model.present)

    def forward(self, model, views, labels, *extra):
        """`accuracy` is that of a contrast between predictions and targets: the share of right nearest neighbours."""
        predicted = F.normalize(full(self.predictor(model(torch.cat(views), *extra))), dim=1)
        with torch.no_grad():
            wanted = F.normalize(full(self.target(torch.cat(views[::-1]), *extra)), dim=1)
        loss = 2 - 2 * (predicted * wanted).sum(dim=1).mean()
        half = len(views[0])
        everyone, start = processes.gathered(wanted[:half])
        nearest = predicted[:half].detach() @ everyone.T
        return loss, {"accuracy": share_right(nearest, start + torch.arange(half, device=nearest.device))}


@torch.no_grad()
def approach(own: nn.Module, model: nn.Module, ema: float) -> None:
    """Move the parameters of `own`, a copy of `model` or of a part of it, to ema * own + (1 - ema) * model's. Buffers
    stay.
    """
    mine, new = dict(own.named_parameters()), dict(model.named_parameters())
    torch._foreach_lerp_(list(mine.values()), [new[name] for name in mine], 1 - ema)


def mean_of(seen: Sequence[tuple[Tensor, dict[str, Tensor]]]) -> dict[str, float]:
    """Return the mean "loss" and "accuracy" over batches, of what an objective gave of this process's part of each."""
    found = processes.added(torch.stack([torch.stack([full(loss), full(m["accuracy"])]) for loss, m in seen])).tolist()
    return {
        name: sum(values) / len(seen)
        for name, values in zip(("loss", "accuracy"), zip(*found, strict=True), strict=True)
    }


def share_right(scores: Tensor, target: Tensor) -> Tensor:
    """Return the share of rows whose greatest score is that of their target: scores (N, M), target (N,), a scalar."""
    return (scores.detach().argmax(dim=1) == target).float().mean()


def build(name: str, config: Config, temperature: float, label_smoothing: float = 0.0) -> Objective:
    """Return the objective `name` ("simclr", "supervised", "byol") with the configuration's settings."""
    builders = {
        "simclr": lambda: SimCLR(temperature, config.model.projection_dim),
        "supervised": lambda: Supervised(label_smoothing),
        "byol": lambda: BYOL(config.model.projection_dim, config.search.ema),
    }
    return builders[name]()
