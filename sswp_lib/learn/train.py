"""Training an architecture: from scratch, SimCLR pre-training, fine-tuning, linear probe. One trainer, four uses.

Paper: sections 4.2 and 4.4, appendix A (Table 5) and B (linear probe). The uses differ in initialisation, objective
and what is frozen, all of it configuration. Selection never looks at the test set: it is evaluated once, at the end.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sswp_lib import processes
from sswp_lib.config import Config, InputError, Model, Views, suggest
from sswp_lib.learn.data import ImageData, epoch_batches, facts, generator, halves, take, training_subset, without_test
from sswp_lib.learn.loop import Loop, loss_scale, optimizer_state, placed, precision, restore_optimizer, seeded
from sswp_lib.learn.measure import accuracy, multiply_adds, parameters
from sswp_lib.learn.objectives import JUDGED_ON, build, mean_of
from sswp_lib.learn.views import normalise, several_views, training_images
from sswp_lib.processes import Rows, full
from sswp_lib.space import (
    SPACES,
    Choices,
    Genotype,
    LoadReport,
    Network,
    calibrate,
    drop_path_masks,
    load_concomitant,
)

# DARTS's recipe for ImageNet
TRAINING_CROPS = Views(crop_scale=(0.08, 1.0), jitter=(0.4, 0.4, 0.4, 0.2), jitter_p=1.0, grey_p=0.0, blur_p=0.0)


class Training(Loop):
    """One training run. Several processes can share it.

    Args:
        config: its data, model and train sections are used.
        data: the images; the supervised objective needs labels.
        architecture: what to train: a genotype, or choices of a space whose edges all stay. Of these model.num_cells
            are the cells of a stage, and there is neither drop-path, nor an auxiliary head, nor a start but random.
        weights: where to start from (a state_dict with the supernet's or a network's names); None for random.
        device: where to compute.

    Attributes:
        report: what was taken over from `weights`; None where there were none.
    """

    shared = True

    def __init__(
        self, config: Config, data: ImageData, architecture: Genotype | Choices,
        weights: dict[str, Tensor] | None = None, device: torch.device | str = "cpu",
    ):  # fmt: skip
        super().__init__(config)
        self.settings, self.data, self.device = config.train, data, torch.device(device)
        self.scale = loss_scale(config, self.device)
        _check(config, architecture)
        if (weights is None) != (self.settings.init == "random"):
            raise InputError(
                f"init is {self.settings.init!r} and weights are {'missing' if weights is None else 'given'}; "
                "only init='random' goes without"
            )
        s = self.settings
        self.objective = build(s.objective, config, s.temperature, s.label_smoothing)
        self.train_index, self.validation_index = self._split()
        self.num_epochs = self.settings.epochs
        epoch_batches(self.train_index, self.settings.batch_size, config.seed, "this training", 0)
        self.num_steps = len(self.train_index) // self.settings.batch_size
        self.batches: list[Tensor] = []
        self._build(architecture, weights)

    def _split(self) -> tuple[Tensor, Tensor]:
        s, data = self.settings, self.data
        if not self.objective.needs_labels:
            everything = torch.arange(len(data.train))
            return (halves(len(everything), None, self.config.seed)[0] if s.half else everything), torch.arange(0)
        labels = data.labels("training on the supervised objective")
        data.test_set()
        return training_subset(labels, s.validation, s.labels, s.labels_per_class, self.config.seed, data.classes)

    def _build(self, architecture: Genotype | Choices, weights: dict[str, Tensor] | None) -> None:
        s, num_classes = self.settings, max(len(self.data.classes), 1)
        with seeded(self.config.seed, "network"):
            auxiliary = s.auxiliary > 0 and self.objective.needs_labels and s.freeze == "none"
            network = self.new_network(architecture, num_classes, auxiliary)
        with seeded(self.config.seed, "head"):  # of its own: with and without an auxiliary head it is the same
            network.head = self.objective.head(network.num_features, num_classes)
        self.report: LoadReport | None = load_concomitant(network, weights) if weights is not None else None
        self.network = placed(network, self.config, self.device)
        if s.freeze == "backbone":
            self.network.requires_grad_(False)
            self.network.head.requires_grad_(True)
        learnt = [p for p in self.network.parameters() if p.requires_grad]
        self.optimizer = torch.optim.SGD(
            learnt, lr=s.lr, momentum=s.momentum, weight_decay=s.weight_decay, foreach=True
        )

    def new_network(self, architecture: Genotype | Choices, num_classes: int, auxiliary: bool) -> nn.Module:
        """Return what is trained, with a `head` on `num_features`."""
        return network_of(architecture, self.config.model, num_classes, auxiliary)

    def train_step(self) -> None:
        s = self.settings
        self.set_lr(self.optimizer, s.lr, s.min_lr, s.schedule)
        if not self.batches or self.step == 0:
            self.batches = epoch_batches(self.train_index, s.batch_size, self.config.seed, "training", self.epoch)
        if self.network.training != (s.freeze == "none"):  # a probe's BatchNorm stays in evaluation
            self.network.train(s.freeze == "none")
        loss, metrics = self.loss(self.batches[self.step], self.epoch, self.step)
        self.optimizer.zero_grad(set_to_none=True)
        self.descend(loss, metrics)

    def loss(self, index: Tensor, *when: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the objective, and the auxiliary head's cross-entropy at its weight, on the training images `index`:
        of a shared run, this process's part of them.

        What is random follows from the seed and `when`; augmentation and drop-path have generators of their own.
        """
        s, data, draw = self.settings, self.data, lambda what: generator(self.config.seed, what, *when)
        rows = processes.rows(len(index))
        own, g, count = rows.of(index), draw("training views"), self.objective.num_views
        images = take(data.train, own, self.device)
        views = self._views(count, images, g, rows)
        labels = take(data.train_labels, own, self.device) if self.objective.needs_labels else None
        rate, masks = s.drop_path * self.epoch / max(self.num_epochs - 1, 1), None
        if rate > 0 and s.freeze == "none":  # a probe sees whole features
            masks = drop_path_masks(len(self.network.cells), len(index) * count, rate, draw("drop-path"))
            masks = torch.cat([rows.of(view) for view in masks.movedim(2, 0).split(len(index))]).movedim(0, 2)
            masks = masks.to(self.device)
        auxiliary: list[Tensor | None] = []

        def forward(x: Tensor) -> Tensor:
            if not isinstance(self.network, Network):
                auxiliary.append(None)
                return self.network(x)
            output, beside = self.network.forward_train(x, masks)
            auxiliary.append(beside)
            return output

        with precision(self.config, self.device):
            loss, metrics = self.objective(forward, views, labels)
        if auxiliary[0] is not None:
            smoothed = F.cross_entropy(full(auxiliary[0]), labels, label_smoothing=s.label_smoothing)
            loss = loss + s.auxiliary * smoothed
        return rows.parts(loss, metrics)

    def _views(self, count: int, images: Tensor, g: torch.Generator, rows: Rows) -> list[Tensor]:
        """Return the images, those rows of a batch, so many times as a step sees them: random views for an objective
        without labels, else augmented.
        """
        s, mean, std, config = self.settings, self.data.mean, self.data.std, self.config.data
        if self.objective.needs_labels and s.augment != "crop":
            flip, size = config.views.flip, config.image_size
            return [training_images(images, s.shift, flip, s.cutout, mean, std, g, size, rows) for _ in range(count)]
        views = TRAINING_CROPS if self.objective.needs_labels else config.views
        return several_views(count, images, views, mean, std, g, config.image_size, rows)

    def describe(self) -> dict[str, Any]:
        return {"phase": self.settings.init if self.objective.needs_labels else "pre-training"}

    def end_epoch(self) -> dict[str, Any]:
        row: dict[str, Any] = {}
        every = self.settings.evaluate_every
        if every and (self.epoch + 1) % every == 0 and len(self.validation_index):
            row["validation"] = self.evaluate("validation")
        return row

    def evaluate(self, part: str) -> dict[str, float]:
        """Return top-1 and top-5 accuracy in percent on "validation" or "test"."""
        data = self.data
        if part == "test":
            images, labels = data.test_set()
        else:
            images, labels = (
                take(data.train, self.validation_index, data.train.device),
                take(data.train_labels, self.validation_index, data.train.device),
            )
        self.network.eval()
        with precision(self.config, self.device):
            return accuracy(self.network, images, labels, data.mean, data.std, self.config.data.image_size)

    def state(self) -> dict[str, Any]:
        names = dict(self.network.named_parameters())
        return super().state() | {
            "network": self.network.state_dict(),
            "optimizer": optimizer_state(self.optimizer, names),
            "scale": self.scale.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self.network.load_state_dict(state["network"])
        restore_optimizer(self.optimizer, dict(self.network.named_parameters()), state["optimizer"])
        self.scale.load_state_dict(state.get("scale", {}))

    def finish(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Evaluate the last epoch's network; return the result as plain data, and the weights."""
        s, result, beside = self.settings, {}, getattr(self.network, "auxiliary_head", None)
        if self.report is not None:
            result["taken_over"] = {
                "matched": len(self.report.matched),
                "new": len(self.report.new),
                "left_over": len(self.report.left_over),
            }
        if self.objective.needs_labels:
            result |= self._accuracies()
        if s.calibrate:
            self._calibrate()
            if self.objective.needs_labels:
                result["calibrated"] = self._accuracies()
        if self.objective.needs_labels and without_test(self.data):
            result["classes_without_test"] = without_test(self.data)
        if s.half:
            result["held_out"] = self._held_out()
        result |= {
            "trained_on": len(self.train_index),
            "validated_on": len(self.validation_index),
            "steps": self.num_epochs * self.num_steps,
            "parameters": parameters(self.network) - (parameters(beside) if beside else 0),
            "multiply_adds": multiply_adds(self.network, self.config.data.image_size),
            "data": facts(self.data),
        }
        return result, {name: t.detach().cpu().contiguous() for name, t in self.network.state_dict().items()}

    @torch.no_grad()
    def _held_out(self) -> dict[str, float]:
        """Return the mean loss and accuracy of a pre-training's objective on fixed views of the half that it did not
        see: what models are selected by where there are no labels.
        """
        s, seed, seen = self.settings, self.config.seed, []
        other = halves(len(self.data.train), None, seed)[1]
        other = other[torch.randperm(len(other), generator=generator(seed, "held out"))]
        batches = other.split(s.batch_size)[:JUDGED_ON]
        self.network.eval()
        for i, index in enumerate(b for b in batches if len(b) == len(batches[0])):
            rows, g = processes.rows(len(index)), generator(seed, "held out", i)
            images = take(self.data.train, rows.of(index), self.device)
            views = self._views(self.objective.num_views, images, g, rows)
            with precision(self.config, self.device):
                seen.append(rows.parts(*self.objective(self.network, views, None)))
        return mean_of(seen)

    def _accuracies(self) -> dict[str, Any]:
        """Return accuracies on the test set and, where one is held out, on the validation part; and the best validation
        epoch.
        """
        found: dict[str, Any] = {"test": self.evaluate("test")}
        if len(self.validation_index):
            found["validation"] = self.evaluate("validation")
        seen = [row["validation"]["top1"] for row in self.history if "validation" in row]
        return found | ({"best_validation_top1": max(seen)} if seen else {})

    def _calibrate(self) -> None:
        """Recompute BatchNorm's statistics from up to 20 batches of training images, labelled or not; never of test
        images.
        """
        data, batch_size = self.data, max(self.settings.batch_size, 100)
        held_out = torch.ones(len(data.train), dtype=torch.bool)
        held_out[self.validation_index] = False
        order = held_out.nonzero().squeeze(1)
        order = order[torch.randperm(len(order), generator=generator(self.config.seed, "calibration"))]
        batches = [b for b in order.split(batch_size)[:20] if len(b) > 1]
        size = self.config.data.image_size
        with precision(self.config, self.device):
            own = (processes.rows(len(b)).of(b) for b in batches)
            images = (normalise(take(data.train, b, self.device), data.mean, data.std, size) for b in own)
            calibrate(self.network, images)


def network_of(architecture: Genotype | Choices, model: Model, num_classes: int, auxiliary: bool = False) -> nn.Module:
    """Return a new network of an architecture, as a training makes it; its `head` is one for labels."""
    if isinstance(architecture, Choices):
        size = {"init_channels": model.init_channels, "num_cells": model.num_cells, "num_classes": num_classes}
        return SPACES[architecture.space].network(architecture, **size)
    return Network(architecture, model.init_channels, num_classes, auxiliary, stem=model.stem)


def _check(config: Config, architecture: Genotype | Choices) -> None:
    """Refuse settings that do not fit what is trained."""
    if isinstance(architecture, Genotype):
        if architecture.num_cells != config.model.num_cells:
            raise InputError(
                f"the genotype has {architecture.num_cells} cells, model.num_cells is {config.model.num_cells}; "
                "expected the same"
            )
        return
    if architecture.space not in SPACES:
        raise InputError(f"unknown space {architecture.space!r}{suggest(architecture.space, SPACES)}")
    s, plain = config.train, {"drop_path": 0.0, "auxiliary": 0.0, "init": "random"}
    found = {f"train.{name}": (getattr(s, name), value) for name, value in plain.items()}
    for name, (value, expected) in (found | {"model.stem": (config.model.stem, "cifar")}).items():
        if value != expected:
            raise InputError(f"{name} is {value!r}; expected {expected!r}, for {architecture.space} knows no other")
