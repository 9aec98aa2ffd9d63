"""The search: weight steps along sampled paths, architecture steps along two, cells pruned on the way.

Paper: section 3.5 and Table 5. A run at epoch e does, for each batch of the weights' half of the images,
    1. a weight step: one sampled path, SGD on the weights that ran;
    2. after every `alpha_every`-th of them, from the bi-level phase on, an architecture step on the other half: two
       sampled paths, Adam (beta1 = 0) on alpha, and the shift that leaves unsampled probabilities alone;
and at the start of an epoch prunes the cells whose time has come. Deliberate deviations: see `space.supernet`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sswp_lib import processes
from sswp_lib.config import Config, InputError
from sswp_lib.config import Search as Settings
from sswp_lib.learn.data import ImageData, epoch_batches, generator
from sswp_lib.learn.evidence import Evidence
from sswp_lib.learn.halves import Halves, as_shown
from sswp_lib.learn.loop import frozen, placed, seeded
from sswp_lib.learn.measure import certainty, entropy, operation_shares
from sswp_lib.learn.phases import PHASES, architecture_steps, cells_to_prune, phase, pruning_epochs
from sswp_lib.space import (
    CANDIDATES,
    Network,
    Paths,
    SuperNet,
    changed_by_caps,
    load_concomitant,
    restore_unsampled,
    sample_gates,
    sample_paths,
    sample_two_paths,
)


class Search(Halves):
    """One search run. Several processes can share it.

    Args:
        config: its data, model and search sections are used.
        data: the images. Labels are needed by the supervised objective only.
        device: where to compute.

    Raises:
        InputError: labels are needed and missing, a batch is larger than a half, or a cell would be pruned before alpha
            has taken a step.
    """

    supernet: SuperNet
    shared = True

    def __init__(self, config: Config, data: ImageData, device: torch.device | str = "cpu"):
        super().__init__(config, data, device)
        self.num_steps = len(self.weights_half) // self.settings.batch_size
        self._check_that_alpha_learns()
        self._build()

    def _check_that_alpha_learns(self) -> None:
        s, cells = self.settings, self.config.model.num_cells
        starved = [cell for cell, count in architecture_steps(s, cells, self.num_steps).items() if count == 0]
        if starved:
            enough = next((e for e in range(s.epochs, 50 * s.epochs) if _all_learn(s, e, cells, self.num_steps)), None)
            longer = f"search.epochs={enough} (the next number that will do), " if enough else ""
            raise InputError(
                f"cell {starved[0]} would be pruned at epoch {pruning_epochs(s, cells)[starved[0]]}, before alpha has "
                f"taken a step ({self.num_steps} weight steps an epoch, an architecture step after every "
                f"{s.alpha_every} of them, none in warm-up); expected {longer}a lower search.alpha_every or "
                "search.batch_size, or other search.ratios"
            )

    def _build(self) -> None:
        with seeded(self.config.seed, "supernet"):
            model = self.config.model
            candidates = CANDIDATES + self.settings.planted
            supernet = SuperNet(model.init_channels, model.num_cells, stem=model.stem, candidates=candidates)
        with seeded(self.config.seed, "head"):  # of its own: objectives share the other weights
            supernet.head = self.objective.head(supernet.num_features, len(self.data.classes))
        self.supernet = placed(supernet, self.config, self.device)
        self.objective.to(self.device).attach(self.supernet)
        s = self.settings
        learnt = list(self._named_weights().values())
        self.optimizer = torch.optim.SGD(
            learnt, lr=s.lr, momentum=s.momentum, weight_decay=s.weight_decay, foreach=True
        )
        self.alpha_optimizer = torch.optim.Adam([self.supernet.alpha], lr=s.alpha_lr, betas=(0.0, s.alpha_beta2))
        self.evidence = Evidence(self.supernet.alpha.shape)
        self._fetch_alpha()

    def _fetch_alpha(self) -> None:
        """Copy alpha to the CPU, where paths are drawn: once for each change, not for each draw. All processes draw
        from the first one's, lest one's rounding be another path than the others'.
        """
        processes.same(self.supernet.alpha)
        self.alpha_on_host = self.supernet.alpha.detach().to("cpu", copy=True)  # as stale on a CPU as on a GPU

    @property
    def phase(self) -> str:
        return phase(min(self.epoch, self.num_epochs - 1), self.settings)

    def begin_epoch(self) -> None:
        for cell in cells_to_prune(self.epoch, self.settings, self.supernet.num_cells):
            self.prune(cell)

    def prune(self, cell: int) -> None:
        """Prune one cell and make the optimiser forget what was dropped: weights, gradients, momentum."""
        s = self.settings
        self.supernet.prune(cell, s.edges, s.max_skips, s.max_pools)
        self.objective.prune_as(self.supernet)
        self._forget_dropped()

    def _forget_dropped(self) -> None:
        left = list(self._named_weights().values())
        alive = set(left)
        self.optimizer.param_groups[0]["params"] = left
        for parameter in [p for p in self.optimizer.state if p not in alive]:
            del self.optimizer.state[parameter]

    def train_step(self) -> None:
        self.set_lr(self.optimizer, self.settings.lr, self.settings.min_lr, self.settings.schedule)
        if not self.batches or self.step == 0:
            self.batches = epoch_batches(
                self._images_of_weights(), self.settings.batch_size, self.config.seed, "weights", self.epoch
            )
        self.weight_step(self.batches[self.step])
        steps_done = self.epoch * self.num_steps + self.step + 1
        if self.phase != PHASES[0] and steps_done % self.settings.alpha_every == 0 and self.supernet.num_searching:
            self.alpha_step(steps_done // self.settings.alpha_every)

    def _images_of_weights(self) -> Tensor:
        """Return the weights' half of the images; all of them in the phase in which alpha needs none any more."""
        return torch.arange(len(self.data.train)) if self.phase == PHASES[3] else self.weights_half

    def weight_step(self, index: Tensor) -> None:
        """Sample one path and do an SGD step on the weights that ran; the others are not touched."""
        warm, s, when = self.phase == PHASES[0], self.settings, (self.epoch, self.step)
        dropout = {} if warm else {"skip_dropout": s.skip_dropout, "pool_dropout": s.pool_dropout}
        g = generator(self.config.seed, "paths", *when)
        names = self.supernet.candidates
        paths = sample_paths(self.alpha_on_host, self.supernet.present, g, uniform=warm, candidates=names, **dropout)
        self.optimizer.zero_grad(set_to_none=True)  # None, not 0: momentum must not move weights that did not run
        self.descend(*self.loss(index, generator(self.config.seed, "views", *when), paths))

    def alpha_step(self, count: int) -> None:
        """Sample two paths and do an Adam step on alpha; nothing else changes."""
        stream = (self.settings.alpha_stream,) if self.settings.alpha_stream else ()
        draw = lambda what: generator(self.config.seed, f"architecture {what}", count, *stream)  # noqa: E731
        alpha = self.supernet.alpha
        paths = self.architecture_paths(draw("paths"))
        order = torch.randperm(len(self.alpha_half), generator=draw("batch"))
        index = self.alpha_half[order[: self.settings.batch_size]]
        loss, alpha.grad = self.alpha_gradient(index, draw("views"), paths)
        before, on_host = alpha.detach().clone(), self.alpha_on_host
        self.alpha_optimizer.step()
        restore_unsampled(alpha, before, paths)
        alpha.grad = None
        self._fetch_alpha()
        self.evidence.follow(on_host, self.alpha_on_host, paths)
        self.record(alpha_loss=loss)

    def architecture_paths(self, g: torch.Generator) -> Paths:
        """Draw the paths of an architecture step: of as many candidates an edge as the settings evaluate."""
        given = self.supernet.alpha, self.supernet.present, g
        if self.settings.evaluated == 2:
            return sample_two_paths(*given, self.alpha_on_host)
        return sample_gates(*given, self.settings.evaluated, self.alpha_on_host)

    def alpha_gradient(self, index: Tensor, g: torch.Generator, paths: Paths) -> tuple[Tensor, Tensor]:
        """Return the loss along two paths and its gradient to alpha; no weight's gradient is even computed."""
        with frozen(self._named_weights().values()):
            loss, _ = self.loss(index, g, paths)
            (gradient,) = torch.autograd.grad(self.scale.scale(loss), self.supernet.alpha)
        noted = processes.summed([gradient], {"loss": loss})
        if self.scale.is_enabled():  # where it has overflowed, of the weights' next step too: that halves the scale
            gradient = (gradient / self.scale.get_scale()).nan_to_num(0.0, 0.0, 0.0)
        return noted["loss"], gradient

    def end_epoch(self) -> dict[str, Any]:
        alpha, present = self.alpha_on_host, self.supernet.present
        when = pruning_epochs(self.settings, self.supernet.num_cells)
        return {
            "phase": self.phase,
            "entropy": entropy(alpha, present),
            "shares": operation_shares(alpha),
            "best": self.supernet.kept_paths().active.tolist(),
            "pruned": [cell for cell, epoch in when.items() if epoch == self.epoch],
        }

    def describe(self) -> dict[str, Any]:
        cells = self.supernet.num_cells
        return {"phase": self.phase, "pruned": cells - self.supernet.num_searching, "cells": cells}

    def shown(self) -> dict[str, Any]:
        s = self.settings
        return as_shown(self.supernet.candidates, self.alpha_on_host, self.supernet.genotype(s.max_skips, s.max_pools))

    def state(self) -> dict[str, Any]:
        return super().state() | {"present": self.supernet.present.clone(), "evidence": self.evidence.state()}

    def restore(self, state: dict[str, Any]) -> None:
        self.supernet.prune_as(state["present"])
        self.objective.prune_as(self.supernet)
        self._forget_dropped()
        super().restore(state)
        self._fetch_alpha()
        self.evidence.restore(state["evidence"])

    def finish(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Prune what is left, export, judge.

        Supernet and exported network are compared on views, each with BatchNorm's statistics of views, as the search
        itself normalises. What is kept are the statistics of the exported network on plain images, for whoever uses it.

        Returns:
            The result as plain data (genotype, its size, what the caps changed, the objective before and after export),
            and the supernet's remaining weights: the concomitant ones.
        """
        s, cells = self.settings, self.supernet.num_cells
        for cell in cells_to_prune(self.num_epochs, s, cells):
            self.prune(cell)
        paths, network = self.supernet.kept_paths(), self.export()
        judged = {"supernet": self._judge(self.supernet, paths), "exported": self._judge(network)}
        self._calibrate(network, self._plain_images())
        result = {
            "genotype": network.genotype.model_dump(mode="json"),
            **judged,
            "alpha": certainty(self.alpha_on_host),
            "evidence": self.evidence.describe(self.alpha_on_host),
            "architecture_steps": list(architecture_steps(s, cells, self.num_steps).values()),
            "changed_by_caps": changed_by_caps(
                self.supernet.of_candidates(self.alpha_on_host)[0], s.max_skips, s.max_pools
            ),
            **self.measures(network.genotype),
            "pruned_at": {str(cell): epoch for cell, epoch in pruning_epochs(s, cells).items()},
            "images": len(self.data.train),
        }
        return result, self.kept_weights(network)

    def export(self) -> Network:
        """Return the compact network with the concomitant weights and the supernet's head.

        With `edges="top2"` its outputs equal the supernet's exactly. With "all" a node that loses edges has other sums,
        so BatchNorm's statistics are to be computed anew.
        """
        s, model = self.settings, self.config.model
        genotype = self.supernet.genotype(s.max_skips, s.max_pools)
        network = Network(genotype, model.init_channels, head=self.supernet.head, stem=model.stem)
        load_concomitant(network, self.supernet.state_dict())
        return placed(network, self.config, self.device)


def _all_learn(settings: Settings, epochs: int, num_cells: int, num_steps: int) -> bool:
    longer = settings.model_copy(update={"epochs": epochs})
    return min(architecture_steps(longer, num_cells, num_steps).values()) > 0
