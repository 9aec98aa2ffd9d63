"""A search by a one-shot network: its training, a linear classifier where it learns without labels, an evolution.

SPOS (Guo et al., ECCV 2020) and Pi-NAS (Peng et al., ICCV 2021), as one run. The parts are loops of their own, one
after another; what the first leaves, the later ones judge by. The weights are kept as a search by paths keeps its own,
and can be gone on from in the same way. Ours: neither paper does so; SPOS trains what it finds from scratch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sswp_lib.config import Config
from sswp_lib.learn.data import ImageData
from sswp_lib.learn.loop import Loop, Progress, placed, precision
from sswp_lib.learn.measure import measures
from sswp_lib.learn.oneshot import OneShot, build_supernet
from sswp_lib.learn.ranking import LinearEvaluation
from sswp_lib.learn.scoring import Evolution
from sswp_lib.space import CellSpace, Genotype, Network, calibrate, load_concomitant

TRAINING, LINEAR, EVOLUTION = "one-shot", "linear", "evolution"


class OneShotSearch(Loop):
    """One search by SPOS or Pi-NAS.

    Args:
        config: its data, one_shot and ranking sections are used, and the model's sizes.
        data: the images, with labels: Pi-NAS needs them for its classifier alone.
        device: where to compute.

    Attributes:
        part: the loop that is under way. left: what finished parts gave, by their names: (result, weights).

    Raises:
        InputError: no labels, or whatever the parts raise.
    """

    def __init__(self, config: Config, data: ImageData, device: torch.device | str = "cpu"):
        super().__init__(in_cells(config) if config.one_shot.space == CellSpace.name else config)
        data.labels(f"a search by {config.search.method}")
        self.data, self.device = data, torch.device(device)
        config, labelled = self.config, config.one_shot.objective == "supervised"
        self.parts = (TRAINING, EVOLUTION) if labelled else (TRAINING, LINEAR, EVOLUTION)
        self.left: dict[str, tuple[dict[str, Any], dict[str, Tensor]]] = {}
        self.part: Loop = OneShot(config, data, device)
        lengths = {TRAINING: config.one_shot.epochs, LINEAR: config.ranking.linear_epochs}
        self.num_epochs = sum(lengths.get(name, config.ranking.generations) for name in self.parts)

    @property
    def num_steps(self) -> int:
        return self.part.num_steps

    def advance(self) -> Iterator[Progress]:
        while True:
            for progress in self.part.advance():
                yield self._placed(progress)
            name = self.parts[len(self.left)]
            if name == EVOLUTION:
                return
            self.left[name] = self.part.finish()
            self.part = self._next()

    def _placed(self, progress: Progress) -> Progress:
        """Return a part's progress as that of the whole, its epoch's row kept."""
        row = progress.row
        if row is not None:
            row = row | {"epoch": len(self.history), "phase": progress.phase}
            self.history.append(row)
        self.epoch, self.step, self.lr = len(self.history), 0 if row else progress.step, self.part.lr
        return replace(progress, epoch=self.epoch - (row is not None), epochs=self.num_epochs, row=row)

    def _next(self) -> Loop:
        """Return the loop that comes after those that have finished."""
        name, weights = self.parts[len(self.left)], self.left[TRAINING][1]
        if name == LINEAR:
            supernet = build_supernet(self.config, self.data)
            supernet.load_state_dict(weights)
            return LinearEvaluation(self.config, self.data, supernet.to(self.device), self.device)
        classifier = self.left[LINEAR][1] if LINEAR in self.left else None
        return Evolution(self.config, self.data, weights, classifier, self.device)

    def describe(self) -> dict[str, Any]:
        return self.part.describe()

    def state(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "step": self.step, "history": self.history, "left": self.left,
                "part": self.part.state()}  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        self.epoch, self.step, self.history = state["epoch"], state["step"], state["history"]
        self.left = {name: tuple(given) for name, given in state["left"].items()}
        if self.left:
            self.part = self._next()
        self.part.restore(state["part"])
        self.lr = self.part.lr

    def finish(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return the result as plain data, and the one-shot network's weights.

        In the paper's own space the result has "genotype" and its sizes, and the weights have BatchNorm's statistics of
        its network on images as they are; in another space it has "best" instead. Beside: "best_score", top-1 in
        percent on held-out training images; "scored", how many architectures; and what `OneShot.finish` says.
        """
        (trained, weights), (found, _) = self.left[TRAINING], self.part.finish()
        best = self.part.best
        result = {"best_score": found["best_score"], "scored": len(found["scored"]), "one_shot": trained}
        result |= {"held_out": found["held_out"], "images": trained["trained_on"]}
        if not isinstance(best, Genotype):
            return {"best": found["best"], **result}, weights
        size = measures(best, self.config, len(self.data.classes))
        return {"genotype": found["best"], **result, **size, "pruned_at": {}}, self._with_statistics(best, weights)

    def _with_statistics(self, genotype: Genotype, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        model = self.config.model
        network = Network(genotype, model.init_channels, num_classes=len(self.data.classes), stem=model.stem)
        load_concomitant(network, weights)
        placed(network, self.config, self.device)
        with precision(self.config, self.device):
            calibrate(network, self.part.ranker.training_images())
        return weights | {name: t.detach().cpu().contiguous() for name, t in network.state_dict().items()
                          if name in weights and not name.startswith("head.")}  # fmt: skip


def in_cells(config: Config) -> Config:
    """Return the configuration with a one-shot network as wide and deep as the model."""
    size = {f"one_shot.{name}": getattr(config.model, name) for name in ("init_channels", "num_cells")}
    return config.changed(**size)
