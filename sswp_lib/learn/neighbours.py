"""Which images are alike: their nearest neighbours by what a network makes of them, before and after a search, and by
their pixels.

Labels are asked for nothing but the share of neighbours that are of an image's own class; the network is given none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sswp_lib.config import Config, InputError
from sswp_lib.learn.data import ImageData, take
from sswp_lib.learn.search import Search
from sswp_lib.learn.views import normalise
from sswp_lib.space import Genotype, Network, calibrate, load_concomitant

NEAREST = 5  # neighbours of an image; ours
MOST = 500  # images that are compared with one another, spread over all; ours
BATCH, BATCHES = 100, 20  # images at once; batches from which BatchNorm's statistics are computed
BY = ("before", "after", "pixels")  # what neighbours are told by


def nearest(features: Tensor, k: int, among: Tensor | None = None) -> Tensor:
    """Return the `k` nearest of each row by cosine similarity, the nearest first, of equal ones the earlier: (N, k).

    Args:
        features: (N, D). among: (M, D), whose rows may be neighbours; None: those of `features`, of which none is its
            own neighbour.

    Raises:
        InputError: fewer than `k` rows may be neighbours.
    """
    others = features if among is None else among
    count = len(others) - (among is None)
    if not 1 <= k <= count:
        raise InputError(f"k is {k}, expected 1 to {count}: so many images may be neighbours")
    similarity = F.normalize(features.double()) @ F.normalize(others.double()).T
    similarity = similarity.mul(1e12).round()  # or the last bits would decide between equal ones
    if among is None:
        similarity.fill_diagonal_(-torch.inf)
    return similarity.argsort(dim=1, descending=True, stable=True)[:, :k]


def same_class(neighbours: Tensor, labels: Tensor, among: Tensor | None = None) -> float:
    """Return the share of neighbours (N, k), in percent, that are of the class of their image.

    Args:
        labels: (N,) of the images. among: (M,) of those that the neighbours were taken from; None: the images.
    """
    own = labels if among is None else among
    return 100 * float((own[neighbours] == labels[:, None]).double().mean())


@torch.no_grad()
def features(model: Callable[[Tensor], Tensor], images: Tensor, data: ImageData, size: int) -> Tensor:
    """Return what `model` makes of uint8 images (N, 3, S, S): (N, num_features), on the CPU.

    Args:
        model: a network's `features`, or `lambda x: supernet.features(x, paths)`; in evaluation mode already.
    """
    parts = [normalise(part.to(data.mean.device), data.mean, data.std, size) for part in images.split(BATCH)]
    return torch.cat([model(part).float().cpu() for part in parts])


def pixels(images: Tensor, size: int) -> Tensor:
    """Return the pixels of uint8 images (N, 3, S, S), or of their centres, in 0-1: (N, 3 size^2), on the CPU."""
    images = images.cpu()
    return normalise(images, torch.zeros(3), torch.ones(3), size).flatten(1)


def network_with(
    weights: dict[str, Tensor], config: Config, genotype: Genotype, data: ImageData, device: torch.device | str = "cpu"
) -> Network:
    """Return the network of a genotype with weights of a supernet in evaluation mode, BatchNorm's statistics computed
    from training images.
    """
    network = Network(genotype, config.model.init_channels, stem=config.model.stem)
    load_concomitant(network, weights)
    network = network.to(device, memory_format=torch.channels_last)
    index = _spread(len(data.train), BATCH * BATCHES).split(BATCH)
    size = config.data.image_size
    calibrate(network, (normalise(take(data.train, i, device), data.mean, data.std, size) for i in index if len(i) > 1))
    return network.eval()


def compared(
    config: Config, genotype: Genotype, weights: dict[str, Tensor], data: ImageData, device: torch.device | str = "cpu"
) -> dict[str, Any]:
    """Return the nearest neighbours of images by the features of the network that a search found, with the weights that
    it had before its first step and with those that the search left, and by their pixels.

    The images are test images, which the search has not seen, or training images where there are none.

    Returns:
        {"part": "test" or "train"; "images": their places there; "k"; "neighbours": {"before", "after", "pixels":
        places in "images", k for each}; and where the images have labels "labels", and "same class": {the same: percent
        of neighbours that are of their image's class}}.
    """
    if config.search.method != "sswp":
        raise InputError(f"neighbours are of a search by sswp; search.method is {config.search.method!r}")
    part, every, labels = _asked(data)
    index, size = _spread(len(every), MOST), config.data.image_size
    images = take(every, index, "cpu")
    start = Search(config, data, device).supernet.state_dict()
    seen = {"pixels": pixels(images, size)}
    for name, state in {"before": start, "after": weights}.items():
        seen[name] = features(network_with(state, config, genotype, data, device).features, images, data, size)
    k = min(NEAREST, len(index) - 1)
    found = {name: nearest(seen[name], k) for name in BY}
    result = {"part": part, "images": index.tolist(), "k": k}
    result["neighbours"] = {name: rows.tolist() for name, rows in found.items()}
    if labels is None:
        return result
    own = labels.cpu()[index]
    shares = {name: same_class(rows, own) for name, rows in found.items()}
    return result | {"labels": own.tolist(), "same class": shares}


def _asked(data: ImageData) -> tuple[str, Tensor, Tensor | None]:
    """Return the part of a data set whose images are compared, these and their labels."""
    if data.test is not None and len(data.test) > NEAREST:
        return "test", data.test, data.test_labels
    return "train", data.train, data.train_labels


def _spread(count: int, most: int) -> Tensor:
    """Return up to `most` places of `count`, evenly spread."""
    many = min(count, most)
    return torch.arange(many) * count // many
