"""Which images are alike: their nearest neighbours by what a network makes of them, before and after a search, and by
their pixels.

Labels are asked for nothing but the share of neighbours that are of an image's own class; the network is given none.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sswp_lib.config import Config, InputError
from sswp_lib.learn.data import ImageData, shown, take
from sswp_lib.learn.search import Search
from sswp_lib.learn.views import move, normalise
from sswp_lib.space import Genotype, Network, calibrate, load_concomitant

NEAREST = 5  # neighbours of an image; ours
MOST = 500  # images that are compared with one another, spread over all; ours
MOVED = 1  # pixels by which images are moved to the left, whose neighbours are then sought among the others; ours
BATCH, BATCHES = 100, 20  # images at once; batches from which BatchNorm's statistics are computed


def nearest(features: Tensor, k: int, among: Tensor | None = None, others: bool = False) -> Tensor:
    """Return the `k` nearest of each row by cosine similarity, the nearest first, of equal ones the earlier: (N, k).

    Args:
        features: (N, D). among: (M, D), whose rows may be neighbours; None: those of `features`, of which none is its
            own neighbour. others: whether the row of `among` in the same place is none either.

    Raises:
        InputError: fewer than `k` rows may be neighbours.
    """
    others = others or among is None
    among = features if among is None else among
    count = len(among) - others
    if not 1 <= k <= count:
        raise InputError(f"k is {k}, expected 1 to {count}: so many images may be neighbours")
    similarity = F.normalize(features.double()) @ F.normalize(among.double()).T
    similarity = similarity.mul(1e12).round()  # or the last bits would decide between equal ones
    if others:
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


def makers(
    config: Config, genotype: Genotype, weights: dict[str, Tensor], data: ImageData, device: torch.device | str = "cpu"
) -> dict[str, Callable[[Tensor], Tensor]]:
    """Return {"before", "after", "pixels": what makes rows (N, D) of uint8 images}: the network that a search found
    with the weights from before its first step, the same with the `weights` that it left, and the images themselves.
    """
    if config.search.method != "sswp":
        raise InputError(f"neighbours are of a search by sswp; search.method is {config.search.method!r}")
    size, made = config.data.image_size, {}
    for name, state in (("before", Search(config, data, device).supernet.state_dict()), ("after", weights)):
        network = network_with(state, config, genotype, data, device)
        made[name] = partial(features, network.features, data=data, size=size)
    return made | {"pixels": partial(pixels, size=size)}


def compared(
    config: Config, genotype: Genotype, weights: dict[str, Tensor], data: ImageData, device: torch.device | str = "cpu"
) -> dict[str, Any]:
    """Return the nearest neighbours of images by the features of the network that a search found, with the weights that
    it had before its first step and with those that the search left, and by their pixels.

    The images are test images, which the search has not seen, or training images where there are none.

    Returns:
        {"part": "test" or "train"; "images": their places there; "k"; "neighbours": {"before", "after", "pixels":
        places in "images", k for each}; and where the images have labels "labels", "same class": {the same: percent of
        neighbours that are of their image's class} and "moved": the same of images that are moved by "moved by"
        pixels, their neighbours being those that are not}.
    """
    part, every, labels = _asked(data)
    index = _spread(len(every), MOST)
    images, k = shown(every, index), min(NEAREST, len(index) - 1)
    made = makers(config, genotype, weights, data, device)
    seen = {name: make(images) for name, make in made.items()}
    found = {name: nearest(rows, k) for name, rows in seen.items()}
    result = {"part": part, "images": index.tolist(), "k": k}
    result["neighbours"] = {name: rows.tolist() for name, rows in found.items()}
    if labels is None:
        return result
    own, moved = labels.cpu()[index], to_the_left(images, MOVED)
    after = {name: nearest(make(moved), k, seen[name], others=True) for name, make in made.items()}
    shares = [{name: same_class(rows, own) for name, rows in each.items()} for each in (found, after)]
    return result | {"labels": own.tolist(), "same class": shares[0], "moved": shares[1], "moved by": MOVED}


def to_the_left(images: Tensor, by: int) -> Tensor:
    """Return uint8 images (N, 3, S, S) moved to the left by so many pixels, black coming in."""
    none = torch.zeros(len(images), dtype=torch.long)
    return move(images.float(), none, none + by, none.bool()).to(torch.uint8)


def _asked(data: ImageData) -> tuple[str, Tensor, Tensor | None]:
    """Return the part of a data set whose images are compared, these and their labels."""
    if data.test is not None and len(data.test) > NEAREST:
        return "test", data.test, data.test_labels
    return "train", data.train, data.train_labels


def _spread(count: int, most: int) -> Tensor:
    """Return up to `most` places of `count`, evenly spread."""
    many = min(count, most)
    return torch.arange(many) * count // many
