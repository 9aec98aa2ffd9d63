"""Scores of many architectures by one one-shot network, as a loop: a step is one architecture, so that a ranking of
hundreds is left and taken up like any run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sswp_lib.config import Config, InputError
from sswp_lib.learn.data import ImageData
from sswp_lib.learn.loop import Loop
from sswp_lib.learn.oneshot import build_supernet
from sswp_lib.learn.ranking import Ranker, similarity
from sswp_lib.space import Choices


class Scoring(Loop):
    """Scores `architectures` in their order, and measures how alike features are along the paths `alike`.

    Args:
        config: as of the one-shot training whose `weights` these are.
        weights: a supernet's, as `OneShot.finish` gives them. classifier: as `LinearEvaluation.finish` gives it; None
            for the supernet's own head (SPOS).
        alike: two or more, or none.

    Raises:
        InputError: no architecture to score.
    """

    def __init__(
        self, config: Config, data: ImageData, weights: dict[str, Tensor], architectures: Sequence[Choices],
        classifier: dict[str, Tensor] | None = None, alike: Sequence[Choices] = (), device: torch.device | str = "cpu",
    ):  # fmt: skip
        super().__init__(config)
        if not architectures:
            raise InputError("no architecture to score; expected one or more")
        self.data, self.device = data, torch.device(device)
        self.architectures, self.alike = list(architectures), list(alike)
        self.num_epochs, self.num_steps, self.lr = 1, len(self.architectures), 0.0  # nothing is trained
        self.scores: list[float] = []
        supernet = build_supernet(config, data)
        supernet.load_state_dict(weights)
        linear = None
        if classifier is not None:
            linear = nn.Linear(supernet.num_features, len(data.classes))
            linear.load_state_dict(classifier)
            linear.to(self.device)
        supernet.to(self.device, memory_format=torch.channels_last)
        self.ranker = Ranker(config, data, supernet, linear, device)

    def train_step(self) -> None:
        """Score one architecture. Nothing is trained: "loss" is the share of images that it gets wrong."""
        self.scores.append(self.ranker.score(self.architectures[self.step]))
        right = torch.tensor(self.scores[-1] / 100)
        self.record(loss=1 - right, accuracy=right)

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
