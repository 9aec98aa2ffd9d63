"""Random search: genotypes by lot, each trained for as long, the best kept. What every search has to beat.

After Li & Talwalkar 2019. Ours: each is trained on one half of the images and judged on the other, by the objective
that it has learnt, so it can do without labels like the searches that it stands beside; and its weights are kept.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sswp_lib.config import Config
from sswp_lib.learn.data import ImageData, epoch_batches, generator
from sswp_lib.learn.halves import Halves
from sswp_lib.learn.loop import Loop, optimizer_state, placed, restore_optimizer, seeded
from sswp_lib.learn.objectives import build
from sswp_lib.space import CANDIDATES, EDGES, Genotype, Network, derive

PHASE = "random search"  # the only one


class RandomSearch(Halves):
    """One random search: `random.draws` genotypes, `search.epochs` of training for each.

    Attributes:
        draw: the one that is trained. tried: of those that were, the objective on the other half, as `_judge` gives it.
        kept: the weights of the best so far.

    Raises:
        InputError: labels are needed and missing, or a batch is larger than a half.
    """

    supernet: Network

    def __init__(self, config: Config, data: ImageData, device: torch.device | str = "cpu"):
        super().__init__(config, data, device)
        self.epochs_each, self.num_epochs = self.num_epochs, self.num_epochs * config.random.draws
        self.num_steps = len(self.weights_half) // self.settings.batch_size
        self.tried: list[dict[str, float]] = []
        self.kept: dict[str, Tensor] = {}
        self._begin(0)

    def genotype(self, draw: int) -> Genotype:
        """Return a draw's genotype: derived, with the search's caps, from alpha drawn at random."""
        s, shape = self.settings, (self.config.model.num_cells, len(EDGES), len(CANDIDATES))
        alpha = torch.randn(shape, generator=generator(self.config.seed, "random search", draw))
        return derive(alpha, s.max_skips, s.max_pools)

    def _begin(self, draw: int) -> None:
        s, seed, model = self.settings, self.config.seed, self.config.model
        self.draw = draw
        with seeded(seed, "network", draw):
            self.objective = build(s.objective, self.config, s.temperature)
            network = Network(self.genotype(draw), model.init_channels, len(self.data.classes), stem=model.stem)
            network.head = self.objective.head(network.num_features, len(self.data.classes))
        self.supernet = placed(network, self.config, self.device)
        self.objective.to(self.device).attach(self.supernet)
        self.optimizer = torch.optim.SGD(
            list(self._named_weights().values()),
            lr=s.lr,
            momentum=s.momentum,
            weight_decay=s.weight_decay,
            foreach=True,
        )

    def begin_epoch(self) -> None:
        draw = self.epoch // self.epochs_each
        if draw != self.draw:
            self._begin(draw)

    def train_step(self) -> None:
        s, seed, when = self.settings, self.config.seed, (self.epoch, self.step)
        self.set_lr(self.optimizer, s.lr, s.min_lr, s.schedule, self.epochs_each)
        if not self.batches or self.step == 0:
            self.batches = epoch_batches(self.weights_half, s.batch_size, seed, "weights", self.epoch)
        self.optimizer.zero_grad(set_to_none=True)
        self.descend(*self.loss(self.batches[self.step], generator(seed, "views", *when)))

    def end_epoch(self) -> dict[str, Any]:
        if (self.epoch + 1) % self.epochs_each == 0:
            self._judge_draw()
        return {"phase": PHASE, "draw": self.draw}

    def _judge_draw(self) -> None:
        self.tried.append(self._judge(self.supernet))
        if self.best == self.draw:
            self._calibrate(self.supernet, self._plain_images())
            self.kept = {name: t.detach().cpu().clone() for name, t in self.supernet.state_dict().items()}

    @property
    def best(self) -> int:
        """The draw with the least loss on the other half; of equal ones the first."""
        return min(range(len(self.tried)), key=lambda draw: self.tried[draw]["loss"])

    def describe(self) -> dict[str, Any]:
        return {"phase": f"{PHASE}, draw {self.draw + 1} of {self.config.random.draws}"}

    def state(self) -> dict[str, Any]:
        return Loop.state(self) | {
            "draw": self.draw,
            "tried": self.tried,
            "kept": self.kept,
            "network": self.supernet.state_dict(),
            "objective": self.objective.state_dict(),
            "optimizer": optimizer_state(self.optimizer, self._named_weights()),
        }

    def restore(self, state: dict[str, Any]) -> None:
        Loop.restore(self, state)
        self.tried, self.kept = state["tried"], state["kept"]
        self._begin(state["draw"])
        self.supernet.load_state_dict(state["network"])
        self.objective.load_state_dict(state["objective"])
        restore_optimizer(self.optimizer, self._named_weights(), state["optimizer"])

    def finish(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return the result as plain data (the best genotype and its size; "exported", the objective on the other half;
        "tried", that of each draw), and the weights of the best, with BatchNorm's statistics of images as they are.
        """
        genotype = self.genotype(self.best)
        result = {
            "genotype": genotype.model_dump(mode="json"),
            "exported": self.tried[self.best],
            "tried": self.tried,
            **self.measures(genotype),
            "pruned_at": {},
            "images": len(self.data.train),
        }
        return result, {name: t.contiguous() for name, t in self.kept.items()}
