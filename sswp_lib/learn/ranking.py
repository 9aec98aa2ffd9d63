"""Which architectures are good, judged by the weights that they have in a one-shot network.

Pi-NAS (Peng et al., ICCV 2021, sections 3.3 and 4.1, Figure 5) and SPOS (Guo et al., ECCV 2020): one linear classifier
on the frozen features of all paths (SPOS has trained its own), then for each architecture BatchNorm's statistics along
its path and the accuracy on training images that were held out. Deliberate deviation: statistics are computed on images
as they are, like those that are classified, where the released code augments them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sswp_lib.config import Config, InputError
from sswp_lib.learn.data import ImageData, epoch_batches, generator, take
from sswp_lib.learn.loop import Loop, optimizer_state, precision, restore_optimizer, seeded
from sswp_lib.learn.measure import accuracy
from sswp_lib.learn.objectives import share_right
from sswp_lib.learn.oneshot import space_of, split
from sswp_lib.learn.views import normalise, random_views
from sswp_lib.space import Choices, calibrate
from sswp_lib.space.ops import batch_norms, by_batch

COLOURLESS = {"jitter_p": 0.0, "grey_p": 0.0, "blur_p": 0.0}  # views that crop and flip, as the paper's evaluation does
BATCH = 500  # images at once where nothing depends on it


class LinearEvaluation(Loop):
    """Trains one linear classifier for all paths on the frozen features of a one-shot network.

    Each step goes along one uniform path on views that crop and flip; BatchNorm normalises by the batch, since no
    stored statistics fit all paths. The supernet, its head aside, is used and not changed.

    Args:
        config: its data, one_shot (the space, the split) and ranking sections are used.
        data: the images, labelled. supernet: as `OneShot` left it; the student's. device: where both are.

    Attributes:
        classifier: Linear(D, classes).
    """

    def __init__(self, config: Config, data: ImageData, supernet: nn.Module, device: torch.device | str = "cpu"):
        super().__init__(config)
        self.settings, self.data, self.device = config.ranking, data, torch.device(device)
        data.labels("a linear evaluation")
        self.space, self.supernet = space_of(config), supernet
        s, self.train_index = self.settings, split(config, data)[0]
        self.num_epochs = s.linear_epochs
        epoch_batches(self.train_index, s.linear_batch, config.seed, "the linear evaluation", 0)
        self.num_steps = len(self.train_index) // s.linear_batch
        self.batches: list[Tensor] = []
        with seeded(config.seed, "classifier"):
            self.classifier = nn.Linear(supernet.num_features, len(data.classes))
            nn.init.normal_(self.classifier.weight, std=0.01)
            nn.init.zeros_(self.classifier.bias)
        self.classifier.to(self.device)
        self.optimizer = torch.optim.SGD(self.classifier.parameters(), lr=s.linear_lr, momentum=s.linear_momentum)

    def train_step(self) -> None:
        s, when = self.settings, (self.epoch, self.step)
        passed = sum(self.epoch >= math.ceil(share * self.num_epochs) for share in s.linear_milestones)
        self.lr = self.optimizer.param_groups[0]["lr"] = s.linear_lr * 0.1**passed
        if not self.batches or self.step == 0:
            self.batches = epoch_batches(self.train_index, s.linear_batch, self.config.seed, "linear", self.epoch)
        choices = self.space.draw(generator(self.config.seed, "linear paths", *when))
        loss, metrics = self.loss(self.batches[self.step], generator(self.config.seed, "linear views", *when), choices)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.record(loss=loss, **metrics)
        self.optimizer.step()

    def loss(self, index: Tensor, g: torch.Generator, choices: Choices) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the classifier's cross-entropy on fresh views of the training images `index` along one path."""
        data, config = self.data, self.config.data
        views = config.views.model_copy(update=COLOURLESS)
        x = random_views(take(data.train, index, self.device), views, data.mean, data.std, g, config.image_size)
        labels = take(data.train_labels, index, self.device)
        with precision(self.config, self.device):
            with torch.no_grad(), by_batch(self.supernet):
                features = self.supernet.features(x, self.space.paths(choices))
            scores = self.classifier(features).float()
        return F.cross_entropy(scores, labels), {"accuracy": share_right(scores, labels)}

    def describe(self) -> dict[str, Any]:
        return {"phase": "linear evaluation"}

    def state(self) -> dict[str, Any]:
        return super().state() | {
            "classifier": self.classifier.state_dict(),
            "optimizer": optimizer_state(self.optimizer, dict(self.classifier.named_parameters())),
        }

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self.classifier.load_state_dict(state["classifier"])
        restore_optimizer(self.optimizer, dict(self.classifier.named_parameters()), state["optimizer"])

    def finish(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return what was done as plain data, and the classifier's weights."""
        result = {"trained_on": len(self.train_index), "steps": self.num_epochs * self.num_steps}
        return result, {name: t.detach().cpu().contiguous() for name, t in self.classifier.state_dict().items()}


class Ranker:
    """Scores architectures by the weights of one trained supernet, each with BatchNorm's statistics of its own path.

    Whatever is scored leaves the supernet's weights, statistics and mode as they were, and so no trace in what is
    scored after it.

    Args:
        config: its data, one_shot (the space, the split) and ranking sections are used.
        data: the images, labelled. supernet: as `OneShot` left it; the student's.
        classifier: what a `LinearEvaluation` has trained; None for the supernet's own head (SPOS).
        device: where all of them are.
    """

    def __init__(
        self, config: Config, data: ImageData, supernet: nn.Module, classifier: nn.Module | None = None,
        device: torch.device | str = "cpu",
    ):  # fmt: skip
        labels = data.labels("a ranking of architectures")
        self.config, self.data, self.device = config, data, torch.device(device)
        self.space, self.supernet = space_of(config), supernet
        self.classifier = classifier if classifier is not None else supernet.head
        train_index, validation_index = split(config, data)
        s, g = config.ranking, generator(config.seed, "calibration")
        order = train_index[torch.randperm(len(train_index), generator=g)[: s.calibration_images]]
        self.calibration = [batch for batch in order.split(s.calibration_batch) if len(batch) > 1]
        self.images, self.labels = (take(t, validation_index, t.device) for t in (data.train, labels))

    def score(self, choices: Choices) -> float:
        """Return an architecture's top-1 accuracy in percent on the held-out training images."""
        data, size = self.data, self.config.data.image_size
        with self.calibrated(choices) as features:
            model = lambda x: self.classifier(features(x))  # noqa: E731
            return accuracy(model, self.images, self.labels, data.mean, data.std, size)["top1"]

    @torch.no_grad()
    def features(self, candidates: Iterable[Choices]) -> Tensor:
        """Return the pooled features of the held-out images along each path, for `similarity`: (P, N, D), on the
        CPU.
        """
        found = []
        for choices in candidates:
            with self.calibrated(choices) as features:
                found.append(torch.cat([features(x).float().cpu() for x in self._plain(self.images.split(BATCH))]))
        return torch.stack(found)

    @contextmanager
    def calibrated(self, choices: Choices):
        """Meanwhile the supernet evaluates with the statistics of one path; yields its features (N, D) of images."""
        paths, was_training = self.space.paths(choices), self.supernet.training
        kept = [(t, t.clone()) for layer in batch_norms(self.supernet) for t in (layer.running_mean, layer.running_var)]
        along = lambda x: self.supernet.features(x, paths)  # noqa: E731
        try:
            with precision(self.config, self.device):
                calibrate(self.supernet, self.training_images(), along)  # always, what paths share included
                self.supernet.eval()
                yield along
        finally:
            for tensor, before in kept:
                tensor.copy_(before)
            self.supernet.train(was_training)

    def training_images(self) -> Iterator[Tensor]:
        """Return the images, as they are, of which BatchNorm's statistics are computed, in batches."""
        return self._plain(take(self.data.train, batch, self.device) for batch in self.calibration)

    def _plain(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        data, size = self.data, self.config.data.image_size
        return (normalise(batch.to(self.device), data.mean, data.std, size) for batch in batches)


def similarity(features: Tensor) -> dict[str, Any]:
    """Return how alike the features of an image are along different paths (Pi-NAS, Figure 5).

    Pooled ReLU features have high cosines whatever they are, and a collapsed network has 1: hence the other two numbers
    beside the paper's.

    Args:
        features: (P, N, D), of the same N images along P paths.

    Returns:
        {"raw": mean cosine between different paths for the same image, "centred": the same after each path's mean over
        images is subtracted, "different": as raw, but for different images, "matrix": (P, P) nested lists, the centred
        ones of each pair of paths}.

    Raises:
        InputError: fewer than two paths or images.
    """
    if features.dim() != 3 or min(features.shape[:2]) < 2:
        raise InputError(
            f"features have shape {tuple(features.shape)}; expected (P, N, D) of two paths and images or more"
        )
    features = features.double()
    same, different = _cosines(features)
    centred, _ = _cosines(features - features.mean(dim=1, keepdim=True))
    off = ~torch.eye(len(features), dtype=torch.bool)
    return {
        "raw": float(same[off].mean()),
        "centred": float(centred[off].mean()),
        "different": float(different[off].mean()),
        "matrix": centred.tolist(),
    }


def _cosines(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return (P, P) mean cosines between two paths, over the same and over different images."""
    u, count = F.normalize(features, dim=2), features.shape[1]
    same, sums = torch.einsum("pnd,qnd->pq", u, u), u.sum(dim=1)
    return same / count, (sums @ sums.T - same) / (count * (count - 1))


def kendall(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Return Kendall's tau-b between two scores of the same architectures: 1 same order, -1 reversed.

    tau-b = (C - D) / sqrt((pairs not tied in one) (pairs not tied in the other)), C and D the pairs that are ordered
    alike and otherwise; None where all of one are tied. The paper does not say which variant it means; ties abound
    where few images are held out.

    Raises:
        InputError: different lengths, or fewer than two.
    """
    if len(one) != len(other) or len(one) < 2:
        raise InputError(f"{len(one)} and {len(other)} scores; expected as many of both, two or more")
    from scipy.stats import kendalltau  # here, because it takes long to import

    tau = float(kendalltau(one, other, variant="b").statistic)
    return tau if math.isfinite(tau) else None
