"""What searches share, whatever network they search in: an objective, the two halves of the images, judging the result.

Paper: section 3.3; DARTS (Liu et al. 2019) for the halves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sswp_lib import processes
from sswp_lib.config import Config
from sswp_lib.learn.data import ImageData, epoch_batches, generator, halves, take
from sswp_lib.learn.loop import Loop, loss_scale, optimizer_state, precision, restore_optimizer, seeded
from sswp_lib.learn.measure import measures
from sswp_lib.learn.objectives import JUDGED_ON, Objective, build, mean_of
from sswp_lib.learn.views import normalise, several_views
from sswp_lib.space import Genotype, Network, Paths, calibrate

DIGITS = 9  # significant ones, that tell all float32 apart


def as_shown(candidates: Sequence[str], alpha: Tensor, genotype: Genotype) -> dict[str, Any]:
    """Return what `Loop.shown` says of a search by alpha, (cells, 14, M) or (2, 14, M), on the CPU."""
    plain = [[[float(f"{value:.{DIGITS}g}") for value in edge] for edge in cell] for cell in alpha.tolist()]
    return {"candidates": list(candidates), "alpha": plain, "genotype": genotype.model_dump(mode="json")}


class Halves(Loop):
    """A search whose weights learn from one half of the images and alpha from the other, on which it is also judged.

    Subclasses build `supernet`, `optimizer` and `alpha_optimizer`. `extra` is what the supernet takes beside images:
    paths, or the weights of a mixture.

    Attributes:
        weights_half, alpha_half: indices of training images; stratified where labels are used.

    Raises:
        InputError: labels are needed and missing, or a batch is larger than a half.
    """

    supernet: nn.Module
    optimizer: torch.optim.Optimizer
    alpha_optimizer: torch.optim.Optimizer

    def __init__(self, config: Config, data: ImageData, device: torch.device | str = "cpu"):
        super().__init__(config)
        self.settings, self.data, self.device = config.search, data, torch.device(device)
        self.scale = loss_scale(config, self.device)
        with seeded(config.seed, "objective"):
            self.objective = build(self.settings.objective, config, self.settings.temperature)
        if self.objective.needs_labels:
            data.labels(f"a search with the {self.settings.objective} objective")
        self.weights_half, self.alpha_half = self._split()
        self.num_epochs = self.settings.epochs
        smaller = min(self.weights_half, self.alpha_half, key=len)
        part = "each half of the training set" if len(smaller) < len(data.train) else "the training set"
        epoch_batches(smaller, self.settings.batch_size, config.seed, part, 0)
        self.batches: list[Tensor] = []

    def _split(self) -> tuple[Tensor, Tensor]:
        labels = self.data.train_labels if self.objective.needs_labels else None
        return halves(len(self.data.train), labels, self.config.seed)

    def _named_weights(self) -> dict[str, nn.Parameter]:
        """Return every parameter that weight steps learn, by name; the objective's own under "objective."."""
        own = {name: p for name, p in self.supernet.named_parameters() if name != "alpha"}
        return own | {f"objective.{name}": p for name, p in self.objective.named_parameters() if p.requires_grad}

    def loss(
        self, index: Tensor, g: torch.Generator, *extra: Paths | Tensor, model: Callable[..., Tensor] | None = None,
        objective: Objective | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
        """Return the objective on fresh random views of the training images `index`, and its metrics: of a shared run,
        this process's parts of them.
        """
        views, labels = self.batch(index, g, objective)
        loss, metrics = self.loss_on(views, labels, *extra, model=model, objective=objective)
        return processes.rows(len(index)).parts(loss, metrics)

    def batch(
        self, index: Tensor, g: torch.Generator, objective: Objective | None = None
    ) -> tuple[list[Tensor], Tensor | None]:
        """Return fresh random views of the training images `index`, and their labels where the objective needs them:
        of a shared run, those of this process's rows.
        """
        objective, own = objective or self.objective, processes.rows(len(index)).of(index)
        labels = take(self.data.train_labels, own, self.device) if objective.needs_labels else None
        return self._views(index, g, objective), labels

    def loss_on(
        self, views: list[Tensor], labels: Tensor | None, *extra: Paths | Tensor,
        model: Callable[..., Tensor] | None = None, objective: Objective | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
        """Return the objective on views that are there, and its metrics."""
        with precision(self.config, self.device):
            return (objective or self.objective)(model or self.supernet, views, labels, *extra)

    def _views(self, index: Tensor, g: torch.Generator, objective: Objective) -> list[Tensor]:
        data, config, rows = self.data, self.config.data, processes.rows(len(index))
        images = take(data.train, rows.of(index), self.device)
        return several_views(objective.num_views, images, config.views, data.mean, data.std, g, config.image_size, rows)

    def descend(self, loss: Tensor, metrics: dict[str, Tensor]) -> None:
        """Do an SGD step as `Loop` does, and let the objective follow."""
        super().descend(loss, metrics)
        self.objective.follow(self.supernet)

    def state(self) -> dict[str, Any]:
        return super().state() | {
            "supernet": self.supernet.state_dict(),
            "objective": self.objective.state_dict(),
            "optimizer": optimizer_state(self.optimizer, self._named_weights()),
            "alpha_optimizer": optimizer_state(self.alpha_optimizer, {"alpha": self.supernet.alpha}),
            "scale": self.scale.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self.supernet.load_state_dict(state["supernet"])
        self.objective.load_state_dict(state["objective"])
        restore_optimizer(self.optimizer, self._named_weights(), state["optimizer"])
        restore_optimizer(self.alpha_optimizer, {"alpha": self.supernet.alpha}, state["alpha_optimizer"])
        self.scale.load_state_dict(state.get("scale", {}))

    def measures(self, genotype: Genotype) -> dict[str, Any]:
        """Return what a genotype holds, and the size of its network with a classifier for the data's classes."""
        return measures(genotype, self.config, len(self.data.classes))

    def kept_weights(self, network: Network) -> dict[str, Tensor]:
        """Return the supernet's weights, on the CPU, with the statistics of the network that was exported from it."""
        weights = self.supernet.state_dict()
        weights |= {name: t for name, t in network.state_dict().items() if name in weights}
        return {name: t.detach().cpu().contiguous() for name, t in weights.items()}

    def _judge(self, model: nn.Module, *extra: Paths | Tensor) -> dict[str, float]:
        """Return the objective's mean loss and accuracy in evaluation, on fixed views of images of the alpha half."""
        self._calibrate(model, self._viewed_images(), *extra)
        return self._evaluate(model, *extra)

    def _fixed_batches(self, purpose: str, count: int) -> list[Tensor]:
        order = self.alpha_half[torch.randperm(len(self.alpha_half), generator=generator(self.config.seed, purpose))]
        return [b for b in order.split(self.settings.batch_size)[:count] if len(b) > 1]

    def _plain_images(self) -> Iterator[Tensor]:
        data, size = self.data, self.config.data.image_size
        for index in self._fixed_batches("calibration", self.settings.calibration_batches):
            own = processes.rows(len(index)).of(index)
            yield normalise(take(data.train, own, self.device), data.mean, data.std, size)

    def _viewed_images(self) -> Iterator[Tensor]:
        for i, index in enumerate(self._fixed_batches("calibration", self.settings.calibration_batches)):
            yield torch.cat(self._views(index, generator(self.config.seed, "calibration", i), self.objective))

    def _calibrate(self, model: nn.Module, images: Iterator[Tensor], *extra: Paths | Tensor) -> None:
        with precision(self.config, self.device):
            calibrate(model, images, lambda x: model(x, *extra))

    @torch.no_grad()
    def _evaluate(self, model: nn.Module, *extra: Paths | Tensor) -> dict[str, float]:
        judge = self.objective
        if self.settings.objective == "byol":  # compares with a target that has no exported counterpart
            judge = build("simclr", self.config, self.settings.temperature)
        was_training = model.training
        model.eval()
        batches = [b for b in self._fixed_batches("evaluation", JUDGED_ON) if len(b) == self.settings.batch_size]
        seen = [
            self.loss(index, generator(self.config.seed, "evaluation", i), *extra, model=model, objective=judge)
            for i, index in enumerate(batches)
        ]
        model.train(was_training)
        return mean_of(seen)
