"""One-shot training: the weights of a network with every candidate in it, along uniform paths; there is no alpha.

Pi-NAS (Peng et al., ICCV 2021, section 3.2) by the objective "crosspath", SPOS (Guo et al., ECCV 2020) by "supervised".
A step of either is two forward and backward passes of the network with gradients, so that one epoch costs and shows the
weights the same; Pi-NAS's teacher comes on top. Deliberate deviations: BatchNorm keeps no running statistics (what is
ranked is calibrated anyway), and weights that a step does not run have no gradient at all, rather than one of 0 by
which they are told apart.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sswp_lib.config import Config, InputError, suggest
from sswp_lib.learn.crosspath import CrossPath, collapse
from sswp_lib.learn.data import ImageData, epoch_batches, generator, take, training_subset
from sswp_lib.learn.loop import Loop, optimizer_state, placed, precision, restore_optimizer, seeded
from sswp_lib.learn.measure import parameters
from sswp_lib.learn.objectives import Objective, Supervised
from sswp_lib.learn.views import normalise, several_views
from sswp_lib.space import SPACES, CellSpace, Choices, Genotype, Space
from sswp_lib.space.ops import batch_norms

Architecture = Choices | Genotype
COLLAPSE_PATHS = 4  # along which the collapse of a finished network is measured; ours


class SinglePath(Supervised):
    """Cross-entropy on labels along each of two paths, each with a view of its own, added: two steps of SPOS in one.

    Added and not averaged, as the two terms of Pi-NAS are: a candidate that one of the two paths runs has the gradient
    of a step of its own, and a learning rate means the same to it under either objective.
    """

    num_views = 2

    def forward(self, model, views, labels, *paths):
        found = [Supervised.forward(self, model, [view], labels, path) for view, path in zip(views, paths, strict=True)]
        accuracy = torch.stack([metrics["accuracy"] for _, metrics in found]).mean()
        return sum(loss for loss, _ in found), {"accuracy": accuracy}


class OneShot(Loop):
    """One run of one-shot training.

    Args:
        config: its data and one_shot sections are used, and the model's projection_dim and precision.
        data: the images. Labels are needed by the supervised objective only, but where there are labels, every class
            has its part among the held-out images.
        device: where to compute.

    Attributes:
        space: what is trained. supernet: the weights; BatchNorm's stored statistics are those of no path.
        train_index, validation_index: of the training images, those that are learnt from, and those held out.

    Raises:
        InputError: an unknown space, labels that are needed and missing, a batch larger than what there is, or a queue
            of as many rows as there are images to learn from.
    """

    def __init__(self, config: Config, data: ImageData, device: torch.device | str = "cpu"):
        super().__init__(config)
        self.settings, self.data, self.device = config.one_shot, data, torch.device(device)
        self.space = space_of(config)
        self.objective = _objective(config)
        if self.objective.needs_labels:
            data.labels("one-shot training with the supervised objective")
        self.train_index, self.validation_index = split(config, data)
        self.num_epochs = self.settings.epochs
        epoch_batches(self.train_index, self.settings.batch_size, config.seed, "one-shot training", 0)
        self.num_steps = len(self.train_index) // self.settings.batch_size
        self._check_queue()
        self.batches: list[Tensor] = []
        self._build()

    def _check_queue(self) -> None:
        s, images = self.settings, len(self.train_index)
        if s.objective == "crosspath" and s.negatives and s.queue >= images:
            fitting = max(images // 2 // s.batch_size, 1) * s.batch_size
            raise InputError(
                f"one_shot.queue {s.queue} holds as much as the {images} images that are learnt from or more, so that "
                f"an image's own earlier output would mostly be among its negatives; expected at most half as many, "
                f"e.g. one_shot.queue={fitting}"
            )

    def _build(self) -> None:
        s = self.settings
        self.supernet = placed(build_supernet(self.config, self.data, self.objective), self.config, self.device)
        self.objective.to(self.device).attach(self.supernet)
        self.optimizer = torch.optim.SGD(
            self.supernet.parameters(), lr=s.lr, momentum=s.momentum, weight_decay=s.weight_decay, foreach=True
        )

    def train_step(self) -> None:
        """Draw two paths and do an SGD step on the weights that ran; the others are not touched."""
        s, when = self.settings, (self.epoch, self.step)
        self.set_lr(self.optimizer, s.lr, 0.0, s.schedule)
        if not self.batches or self.step == 0:
            self.batches = epoch_batches(self.train_index, s.batch_size, self.config.seed, "one-shot", self.epoch)
        one, two = self.draw(generator(self.config.seed, "paths", *when))
        self.optimizer.zero_grad(set_to_none=True)  # None, not 0: momentum must not move weights that did not run
        loss, metrics = self.loss(self.batches[self.step], generator(self.config.seed, "views", *when), one, two)
        loss.backward()
        self.record(loss=loss, **metrics)
        self.optimizer.step()
        self.objective.follow(self.supernet)

    def draw(self, g: torch.Generator) -> tuple[Architecture, Architecture]:
        """Draw a step's two architectures: for Pi-NAS two that share no operation, for SPOS independent ones."""
        if self.settings.objective == "crosspath":
            return self.space.draw_two(g)
        return self.space.draw(g), self.space.draw(g)

    def loss(
        self, index: Tensor, g: torch.Generator, one: Architecture, two: Architecture
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the objective on fresh random views of the training images `index`, along two architectures."""
        data, config = self.data, self.config.data
        images = take(data.train, index, self.device)
        views = several_views(self.objective.num_views, images, config.views, data.mean, data.std, g, config.image_size)
        labels = take(data.train_labels, index, self.device) if self.objective.needs_labels else None
        with precision(self.config, self.device):
            return self.objective(self.supernet, views, labels, self.space.paths(one), self.space.paths(two))

    def describe(self) -> dict[str, Any]:
        return {"phase": self.settings.objective}

    def state(self) -> dict[str, Any]:
        names = dict(self.supernet.named_parameters())
        return super().state() | {
            "supernet": self.supernet.state_dict(),
            "objective": self.objective.state_dict(),
            "optimizer": optimizer_state(self.optimizer, names),
        }

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self.supernet.load_state_dict(state["supernet"])
        self.objective.load_state_dict(state["objective"])
        restore_optimizer(self.optimizer, dict(self.supernet.named_parameters()), state["optimizer"])

    def finish(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return the result as plain data, and the weights: of the student, its head among them.

        The result has "collapse" (see `crosspath.collapse`), the mean of a few paths' on training images as they are;
        and with a queue "own_negatives", the share of a later epoch's images with an earlier output of their own in it.
        Both are of the objective "crosspath" alone.
        """
        s, result = self.settings, {}
        if s.objective == "crosspath":
            result["collapse"] = self._collapse()
            if s.negatives:
                result["own_negatives"] = own_negatives(s.queue // s.batch_size, self.num_steps)
        result |= {
            "space": self.space.name,
            "trained_on": len(self.train_index),
            "held_out": len(self.validation_index),
            "steps": self.num_epochs * self.num_steps,
            "parameters": parameters(self.supernet),
        }
        return result, {name: t.detach().cpu().contiguous() for name, t in self.supernet.state_dict().items()}

    @torch.no_grad()
    def _collapse(self) -> dict[str, float]:
        data, g = self.data, generator(self.config.seed, "collapse")
        index = self.train_index[torch.randperm(len(self.train_index), generator=g)[: self.settings.batch_size]]
        images = normalise(take(data.train, index, self.device), data.mean, data.std, self.config.data.image_size)
        drawn = [self.space.draw(g) for _ in range(COLLAPSE_PATHS)]
        with precision(self.config, self.device):
            found = [collapse(self.supernet(images, self.space.paths(choices))) for choices in drawn]
        return {name: sum(each[name] for each in found) / len(found) for name in found[0]}


def space_of(config: Config) -> Space | CellSpace:
    """Return the space that the configuration names; InputError where there is none of that name."""
    name = config.one_shot.space
    if name == CellSpace.name:
        return CellSpace(config.one_shot.num_cells)
    if name not in SPACES:
        raise InputError(f"one_shot.space: unknown space {name!r}{suggest(name, [*SPACES, CellSpace.name])}")
    return SPACES[name]


def split(config: Config, data: ImageData) -> tuple[Tensor, Tensor]:
    """Return indices of the training images that one-shot training learns from, and of those that it never sees.

    The same for both objectives, labels used or not: every class is split so where there are labels.
    """
    labels = torch.zeros(len(data.train), dtype=torch.long) if data.train_labels is None else data.train_labels
    share, classes = config.one_shot.validation, data.classes if data.train_labels is not None else ()
    return training_subset(labels, share, 1.0, None, config.seed, classes, section="one_shot")


def build_supernet(config: Config, data: ImageData, objective: Objective | None = None) -> nn.Module:
    """Return the one-shot network of a configuration with the initial weights of its seed, on the CPU, in training.

    Its head is that of the `objective`, the configuration's own if left out, so that `load_state_dict` takes what
    `OneShot.finish` gave. Both objectives begin with the same weights but the head's.
    """
    s, objective, space = config.one_shot, objective or _objective(config), space_of(config)
    size = {"stem": config.model.stem} if isinstance(space, CellSpace) else {}
    with seeded(config.seed, "supernet"):
        supernet = space.supernet(init_channels=s.init_channels, num_cells=s.num_cells, **size)
    with seeded(config.seed, "head"):
        supernet.head = objective.head(supernet.num_features, max(len(data.classes), 1))
    for layer in batch_norms(supernet):
        layer.momentum = None  # statistics of one path are of no use to another
    return supernet


def own_negatives(queue: int, steps: int) -> float:
    """Return the share of images, from the second epoch on, in whose queue of so many batches there is an output of
    their own: of s and s' from 0 to steps - 1, independent, that of pairs with steps - s' + s <= queue.

    `queue` is at most `steps`. Images that an epoch leaves out are left out here.
    """
    return queue * (queue + 1) / 2 / steps**2


def _objective(config: Config) -> Objective:
    s = config.one_shot
    if s.objective == "supervised":
        return SinglePath()
    return CrossPath(
        config.model.projection_dim, generator(config.seed, "queue"), s.temperature, s.teacher, s.queue,
        s.cross_path, s.negatives, s.in_batch,
    )  # fmt: skip
