"""Scores of many architectures by one one-shot network, as loops: a step is one architecture, so that a ranking of
hundreds, or a search by evolution, is left and taken up like any run.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sswp_lib.config import Config, InputError
from sswp_lib.learn.data import ImageData, generator
from sswp_lib.learn.evolution import best_first, next_generation
from sswp_lib.learn.loop import Loop, placed
from sswp_lib.learn.oneshot import Architecture, build_supernet
from sswp_lib.learn.ranking import Ranker, similarity


class Ranked(Loop):
    """A loop whose steps score architectures by the weights that they have in one trained supernet.

    Args:
        config: as of the one-shot training whose `weights` these are.
        weights: a supernet's, as `OneShot.finish` gives them. classifier: as `LinearEvaluation.finish` gives it; None
            for the supernet's own head (SPOS).
    """

    def __init__(
        self, config: Config, data: ImageData, weights: dict[str, Tensor],
        classifier: dict[str, Tensor] | None = None, device: torch.device | str = "cpu",
    ):  # fmt: skip
        super().__init__(config)
        self.data, self.device, self.lr = data, torch.device(device), 0.0  # nothing is trained
        supernet = build_supernet(config, data)
        supernet.load_state_dict(weights)
        linear = None
        if classifier is not None:
            linear = nn.Linear(supernet.num_features, len(data.classes))
            linear.load_state_dict(classifier)
            linear.to(self.device)
        placed(supernet, config, self.device)
        self.ranker = Ranker(config, data, supernet, linear, device)

    def scored(self, architecture: Architecture) -> float:
        """Return an architecture's top-1 in percent, and note it: "loss" is the share of images that it gets wrong."""
        score = self.ranker.score(architecture)
        right = torch.tensor(score / 100)
        self.record(loss=1 - right, accuracy=right)
        return score


class Scoring(Ranked):
    """Scores `architectures` in their order, and measures how alike features are along the paths `alike`.

    Args:
        alike: two or more, or none. The others: see `Ranked`.

    Raises:
        InputError: no architecture to score.
    """

    def __init__(
        self, config: Config, data: ImageData, weights: dict[str, Tensor], architectures: Sequence[Architecture],
        classifier: dict[str, Tensor] | None = None, alike: Sequence[Architecture] = (),
        device: torch.device | str = "cpu",
    ):  # fmt: skip
        if not architectures:
            raise InputError("no architecture to score; expected one or more")
        super().__init__(config, data, weights, classifier, device)
        self.architectures, self.alike = list(architectures), list(alike)
        self.num_epochs, self.num_steps = 1, len(self.architectures)
        self.scores: list[float] = []

    def train_step(self) -> None:
        self.scores.append(self.scored(self.architectures[self.step]))

    def describe(self) -> dict[str, Any]:
        return {"phase": "scoring"}

    def state(self) -> dict[str, Any]:
        return super().state() | {"scores": list(self.scores)}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self.scores = list(state["scores"])

    def finish(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return {"scores": top-1 in percent on held-out training images, in order; "held_out": how many; "similarity":
        see `ranking.similarity`, where asked for}, and no weights.
        """
        result: dict[str, Any] = {"scores": self.scores, "held_out": len(self.ranker.images)}
        if self.alike:
            result["similarity"] = similarity(self.ranker.features(self.alike))
        return result, {}


class Evolution(Ranked):
    """Search by evolution (SPOS): an epoch is a generation, a step scores one of its architectures.

    What a generation consists of follows from the scores before it and a generator of its own, so a search that is
    taken up draws it again. Where a space has nothing new to give, generations are smaller, and their steps pass.
    """

    def __init__(
        self, config: Config, data: ImageData, weights: dict[str, Tensor],
        classifier: dict[str, Tensor] | None = None, device: torch.device | str = "cpu",
    ):  # fmt: skip
        super().__init__(config, data, weights, classifier, device)
        self.num_epochs, self.num_steps = config.ranking.generations, config.ranking.population
        self.scores: dict[Architecture, float] = {}
        self.generation: list[Architecture] = []

    @property
    def best(self) -> Architecture:
        """The best architecture that was scored; of equal ones the first."""
        return best_first(self.scores)[0][0]

    def begin_epoch(self) -> None:
        g = generator(self.config.seed, "evolution", self.epoch)
        self.generation = next_generation(self.ranker.space, self.scores, self.config.ranking, g)

    def train_step(self) -> None:
        if self.step < len(self.generation):
            architecture = self.generation[self.step]
            self.scores[architecture] = self.scored(architecture)

    def describe(self) -> dict[str, Any]:
        return {"phase": "evolution"}

    def end_epoch(self) -> dict[str, Any]:
        best = best_first(self.scores)
        return {"phase": "evolution", "scored": len(self.scores), "best": best[0][1] if best else None}

    def state(self) -> dict[str, Any]:
        scores = [[a.to_json(), score] for a, score in self.scores.items()]
        return super().state() | {"scores": scores, "generation": [a.to_json() for a in self.generation]}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        read = self.ranker.space.read
        self.scores = {read(text): score for text, score in state["scores"]}
        self.generation = [read(text) for text in state["generation"]]

    def finish(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return {"best": the best architecture as plain data, "best_score": its top-1 in percent on held-out training
        images, "scored": [architecture, score] in the order in which they were scored, "held_out": images}, and no
        weights.
        """
        scored = [[json.loads(a.to_json()), score] for a, score in self.scores.items()]
        result = {"best": json.loads(self.best.to_json()), "best_score": self.scores[self.best], "scored": scored}
        return result | {"held_out": len(self.ranker.images)}, {}
