"""The relaxed search: a step on alpha, then a step on the weights, and all candidates run in both.

DARTS (Liu et al. 2019), by labels, first and second order; SSNAS (Kaplan & Giryes 2020) puts contrast in the place of
the labels in both steps and is otherwise the same. Each iteration does
    1. an alpha step on a batch of the alpha half: Adam on alpha, of the loss at the weights as they are (first order)
       or one step of theirs ahead, on the batch that comes next (second order, see `unrolled`);
    2. a weight step on a batch of the weights' half: SGD on all weights.
Deliberate deviations: the halves are stratified where labels are used; an epoch shows each image of either half once
(DARTS's code draws each alpha batch anew); BatchNorm as in `space.supernet`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from sswp_lib.config import Config, InputError
from sswp_lib.learn.data import ImageData, epoch_batches, generator, halves, take, training_subset
from sswp_lib.learn.halves import Halves, as_shown
from sswp_lib.learn.loop import placed, seeded
from sswp_lib.learn.measure import certainty, entropy, operation_shares
from sswp_lib.learn.objectives import Objective
from sswp_lib.learn.unrolled import Loss, unrolled_gradient
from sswp_lib.learn.views import training_images
from sswp_lib.space import MixedNet, Network, load_concomitant, mixture
from sswp_lib.space.genotype import NONE

PHASE = "relaxed"  # the only one
DIGITS = 5  # of a weight in the mixture, that a record keeps

Batch = tuple[list[Tensor], Tensor | None]
"""The views of some images, and their labels where the objective needs them."""


class RelaxedSearch(Halves):
    """One search by DARTS's relaxation.

    Args:
        config: its data, model, search and relaxed sections are used.
        data: the images. Labels are needed by the supervised objective only.
        device: where to compute.

    Raises:
        InputError: labels are needed and missing, or too few of a class, or a batch is larger than a half.
    """

    supernet: MixedNet

    def __init__(self, config: Config, data: ImageData, device: torch.device | str = "cpu"):
        super().__init__(config, data, device)
        self.relaxed = config.relaxed
        self.num_steps = min(len(self.weights_half), len(self.alpha_half)) // self.settings.batch_size
        self.alpha_batches: list[Tensor] = []
        self._build()

    def _split(self) -> tuple[Tensor, Tensor]:
        r, data, seed = self.config.relaxed, self.data, self.config.seed
        if r.split == "halves" and r.labels_per_class is None:
            return super()._split()
        seen = torch.arange(len(data.train)) if r.labels_per_class is None else _few(data, r.labels_per_class, seed)
        if r.split == "same":
            return seen, seen
        weights, alpha = halves(len(seen), data.train_labels.cpu()[seen], seed)
        return seen[weights], seen[alpha]

    def _build(self) -> None:
        s, r, seed, model = self.settings, self.relaxed, self.config.seed, self.config.model
        with seeded(seed, "supernet"):
            C, L = r.init_channels or model.init_channels, r.num_cells or model.num_cells
            supernet = MixedNet(C, L, generator(seed, "alpha"), stem=model.stem)
        with seeded(seed, "head"):
            supernet.head = self.objective.head(supernet.num_features, len(self.data.classes))
        self.supernet = placed(supernet, self.config, self.device)
        self.objective.to(self.device)
        self.weights = self._named_weights()  # nothing is ever pruned
        self.optimizer = torch.optim.SGD(
            list(self.weights.values()), lr=s.lr, momentum=s.momentum, weight_decay=s.weight_decay, foreach=True
        )
        betas = (r.alpha_beta1, r.alpha_beta2)
        self.alpha_optimizer = torch.optim.Adam(
            [self.supernet.alpha], lr=r.alpha_lr, betas=betas, weight_decay=r.alpha_weight_decay
        )

    def train_step(self) -> None:
        s, seed, when = self.settings, self.config.seed, (self.epoch, self.step)
        self.set_lr(self.optimizer, s.lr, s.min_lr, s.schedule)
        if not self.batches or self.step == 0:
            self.batches = epoch_batches(self.weights_half, s.batch_size, seed, "weights", self.epoch)
            self.alpha_batches = epoch_batches(self.alpha_half, s.batch_size, seed, "alpha", self.epoch)
        training = self.batch(self.batches[self.step], generator(seed, "views", *when))
        validation = self.batch(self.alpha_batches[self.step], generator(seed, "alpha views", *when))
        self.alpha_step(training, validation)
        self.weight_step(training)

    def alpha_step(self, training: Batch, validation: Batch) -> None:
        """Do an Adam step on alpha for the loss of `validation`; nothing else changes."""
        loss, self.supernet.alpha.grad = self.alpha_gradient(training, validation)
        self.alpha_optimizer.step()
        self.supernet.alpha.grad = None
        self.record(alpha_loss=loss)

    def alpha_gradient(self, training: Batch, validation: Batch) -> tuple[Tensor, Tensor]:
        """Return the loss of `validation` and its gradient to alpha, (2, 14, M). Second order looks one step ahead, on
        the views of `training` that the weight step will see.
        """
        s = self.settings
        held = {name: self.optimizer.state.get(p, {}).get("momentum_buffer") for name, p in self.weights.items()}
        return unrolled_gradient(
            self._loss_of(training), self._loss_of(validation), self.weights, self.supernet.alpha,
            self.lr if self.relaxed.order == 2 else 0.0, s.momentum, s.weight_decay,
            {name: buffer for name, buffer in held.items() if buffer is not None},
        )  # fmt: skip

    def _loss_of(self, batch: Batch) -> Loss:
        def loss(weights: dict[str, Tensor], alpha: Tensor) -> Tensor:
            run = partial(torch.func.functional_call, self.supernet, weights, tie_weights=False)
            return self.loss_on(*batch, mixture(alpha), model=lambda *inputs: run(inputs))[0]

        return loss

    def weight_step(self, training: Batch) -> None:
        """Do an SGD step on all weights; alpha is not touched."""
        self.optimizer.zero_grad(set_to_none=True)
        self.descend(*self.loss_on(*training, self._mixture()))

    def _mixture(self) -> Tensor:
        """Return the weights of the candidates as they are, out of reach of gradients: (2, 14, M)."""
        return mixture(self.supernet.alpha.detach())

    def _views(self, index: Tensor, g: torch.Generator, objective: Objective) -> list[Tensor]:
        """Labelled images are shifted and flipped, as DARTS does; contrast has views of its own."""
        if not objective.needs_labels:
            return super()._views(index, g, objective)
        data, config, size = self.data, self.config.data, self.config.data.image_size
        shift = size // 8 if self.relaxed.shift is None else self.relaxed.shift
        images = take(data.train, index, self.device)
        return [training_images(images, shift, config.views.flip, 0, data.mean, data.std, g, size)]

    def end_epoch(self) -> dict[str, Any]:
        """Entropy and best operation of the normal cells come first, then the reductions'; `none` is never the best."""
        alpha = self.supernet.alpha.detach().cpu()
        operations = torch.tensor([name != NONE for name in self.supernet.candidates])
        return {
            "phase": PHASE,
            "entropy": entropy(alpha, torch.ones_like(alpha, dtype=torch.bool)),
            "shares": operation_shares(alpha),
            "best": alpha.masked_fill(~operations, -torch.inf).argmax(-1).tolist(),
        }

    def describe(self) -> dict[str, Any]:
        return {"phase": PHASE}

    def shown(self) -> dict[str, Any]:
        genotype = self.supernet.genotype(self.config.model.num_cells)
        return as_shown(self.supernet.candidates, self.supernet.alpha.detach().cpu(), genotype)

    def finish(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Export and judge, as `Search.finish` does.

        "supernet" is the mixture, "exported" the network of the same size that its genotype leaves of it, with the
        weights that these operations had in the mixture: the gap between them is what discretising costs.

        Returns:
            The result as plain data (genotype, of the model's depth, and the size of the model's network; the mixture's
            weights; the objective before and after export), and the mixed network's weights.
        """
        network, genotype = self.export(), self.supernet.genotype(self.config.model.num_cells)
        judged = {"supernet": self._judge(self.supernet, self._mixture()), "exported": self._judge(network)}
        self._calibrate(network, self._plain_images())
        alpha = self.supernet.alpha.detach().cpu()
        rounded = (mixture(alpha).double() * 10**DIGITS).round().div(10**DIGITS)
        result = {
            "genotype": genotype.model_dump(mode="json"),
            **judged,
            "alpha": certainty(alpha),
            "mixture": {"candidates": list(self.supernet.candidates), "weights": rounded.tolist()},
            "architecture_steps": [self.num_epochs * self.num_steps] * len(alpha),
            "changed_by_caps": 0,
            **self.measures(genotype),
            "pruned_at": {},
            "images": len(torch.cat([self.weights_half, self.alpha_half]).unique()),
        }
        return result, self.kept_weights(network)

    def export(self) -> Network:
        """Return the network that the genotype leaves of the mixed one, of the same size, with its weights and head."""
        genotype, width = self.supernet.genotype(), self.relaxed.init_channels or self.config.model.init_channels
        network = Network(genotype, width, head=self.supernet.head, stem=self.config.model.stem)
        load_concomitant(network, self.supernet.state_dict())
        return placed(network, self.config, self.device)


def _few(data: ImageData, per_class: int, seed: int) -> Tensor:
    """Return the indices of so many training images of each class, those that a training of that seed has labels of."""
    labels = data.labels("a search by labels")
    rarest = int(torch.bincount(labels, minlength=len(data.classes)).argmin())
    count = int((labels == rarest).sum())
    if count < per_class:
        raise InputError(
            f"relaxed.labels_per_class is {per_class}, but class {data.classes[rarest]!r} has {count} training images; "
            f"expected at most {count}, or null for all"
        )
    return training_subset(labels, 0.0, 1.0, per_class, seed, data.classes, section="relaxed")[0]
