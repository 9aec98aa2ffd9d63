"""Data sets as uint8 tensors in memory; splits; batches; and where every random number comes from.

Paper: section 4.1 (data sets), 4.4 (labelled fractions); DARTS (the half/half split of the bi-level search).
Deliberate deviations: images are decoded and resized once, to `image_size`; for ImageNet this replaces the random crop
of the photograph by one of the resized square.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sswp_lib.config import Data, InputError, home, suggest
from sswp_lib.learn import folders
from sswp_lib.learn.folders import IN_MEMORY_BYTES


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """Return a CPU generator for one purpose, e.g. generator(seed, "paths", epoch, step).

    Every draw of a run comes from such a generator, so a run resumed at any step draws what it would have drawn.
    """
    key = hashlib.sha256(repr((seed, *purpose)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(key[:8], "little") >> 1)


@dataclass(frozen=True)
class ImageData:
    """A data set in memory.

    Attributes:
        train, test: uint8 (N, 3, S, S); test may be None.
        train_labels, test_labels: int64 (N,), or None where there are no labels.
        classes: class names in label order. mean, std: of the training images, (3,), in 0-1.
    """

    name: str
    train: Tensor
    test: Tensor | None
    train_labels: Tensor | None
    test_labels: Tensor | None
    classes: tuple[str, ...]
    mean: Tensor
    std: Tensor

    def labels(self, purpose: str) -> Tensor:
        """Return the training labels; InputError where there are none."""
        if self.train_labels is None:
            raise InputError(
                f"{purpose} needs labels, and {self.name} has none; sort the training images into "
                "train/<class>/ folders, or use a label-free objective such as simclr"
            )
        return self.train_labels

    def test_set(self) -> tuple[Tensor, Tensor]:
        """Return test images and labels; InputError where there are none."""
        if self.test is None or self.test_labels is None:
            raise InputError(f"{self.name} has no labelled test images; put them into test/<class>/ folders")
        return self.test, self.test_labels


def load(config: Data, device: str | torch.device = "cpu") -> ImageData:
    """Load a data set onto the device.

    Raises:
        InputError: an unknown data set, a missing or empty folder, an unreadable image (named), no network.
    """
    return _load(config.name, config.root, config.image_size, config.classes, str(device), fingerprint(config))


@lru_cache(maxsize=2)
def _load(
    name: str, root: str, size: int, wanted: tuple[str, ...] | None, device: str, content: str | None
) -> ImageData:
    if name == "digits":
        parts = _digits(size)
    elif name in ("cifar10", "cifar100"):
        parts = _cifar(name, home() / root, size)
    else:
        parts = folders.read(folder_of(name, root), size)
    train, train_labels, test, test_labels, classes = parts if wanted is None else _only(wanted, name, *parts)
    mean, std = _statistics(train)
    on_device = lambda t: t.to(device) if t is not None and t.nbytes < IN_MEMORY_BYTES else t  # noqa: E731
    return ImageData(
        name, *map(on_device, (train, test, train_labels, test_labels)), tuple(classes), mean.to(device), std.to(device)
    )


def _only(
    wanted: tuple[str, ...],
    name: str,
    train: Tensor,
    train_labels: Tensor | None,
    test: Tensor | None,
    test_labels: Tensor | None,
    classes: list[str],
):
    """Keep the images of some classes, labelled anew in the order wanted."""
    strange = [c for c in wanted if c not in classes]
    if strange:
        raise InputError(
            f"{name} has no class {strange[0]!r}{suggest(strange[0], classes) if classes else '; it has no labels'}"
        )
    twice = [c for c in wanted if wanted.count(c) > 1]
    if twice:
        raise InputError(f"data.classes names {twice[0]!r} twice; expected different classes")
    order = torch.tensor([classes.index(c) for c in wanted])
    kept = []
    for images, labels in ((train, train_labels), (test, test_labels)):
        chosen = None if labels is None else torch.isin(labels, order)
        kept += [None, None] if chosen is None else [images[chosen], (labels[chosen, None] == order).int().argmax(1)]
    return *kept, list(wanted)


def _statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of each channel, in 0-1, reading a part of the images at a time."""
    parts = lambda: (chunk.double().div(255).transpose(0, 1).flatten(1) for chunk in images.split(4096))  # noqa: E731
    count = images.numel() // images.shape[1]
    mean = sum(p.sum(1) for p in parts()) / count
    var = sum((p - mean[:, None]).square().sum(1) for p in parts()) / count
    return mean.float(), var.sqrt().clamp(min=1e-3).float()


def _resize(images: Tensor, size: int) -> Tensor:
    if images.shape[-1] == size:
        return images
    chunks = [F.interpolate(c.float(), (size, size), mode="bilinear", antialias=True) for c in images.split(4096)]
    return torch.cat([c.round().clamp(0, 255).byte() for c in chunks])


def _digits(size: int):
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = torch.from_numpy(digits.images * (255 / 16)).round().byte()[:, None].expand(-1, 3, -1, -1)
    images, labels = _resize(images, size), torch.from_numpy(digits.target).long()
    train, test = train_test_split(np.arange(len(labels)), test_size=0.25, random_state=0, stratify=digits.target)
    return images[train], labels[train], images[test], labels[test], [str(i) for i in range(10)]


def _cifar(name: str, root: Path, size: int):
    from torchvision.datasets import CIFAR10, CIFAR100

    dataset = {"cifar10": CIFAR10, "cifar100": CIFAR100}[name]
    try:
        train, test = (dataset(root, train=t, download=True) for t in (True, False))
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"{name} could not be downloaded ({str(error).splitlines()[0]}); put {dataset.filename} into "
            f"{root.resolve()}, or use --data folder:PATH"
        ) from None
    tensors = []
    for part in (train, test):
        tensors += [
            _resize(torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(), size),
            torch.tensor(part.targets),
        ]
    return *tensors, train.classes


def folder_of(name: str, root: str) -> Path:
    """Return the folder of a data set of image files."""
    path = Path(name.removeprefix("folder:")) if name.startswith("folder:") else home() / root / name
    if not path.is_dir():
        raise InputError(f"no folder {str(path)!r}; expected train/<class>/* (and test/<class>/*) with images in it")
    return path


def fingerprint(config: Data) -> str | None:
    """Return a digest of a folder's images, see `folders.fingerprint`; None for sets of fixed content.

    It stands for the path in a run's name: moving the folder keeps the run, changing an image makes another.
    """
    return (
        None
        if config.name in ("digits", "cifar10", "cifar100")
        else folders.fingerprint(folder_of(config.name, config.root))
    )


def _ranks(labels: Tensor, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return each image's random rank within its class, and the size of its class; both (N,)."""
    labels = labels.cpu()
    ranks, sizes = torch.empty_like(labels), torch.empty_like(labels)
    for c in labels.unique():
        members = (labels == c).nonzero().squeeze(1)
        ranks[members] = torch.randperm(len(members), generator=g)
        sizes[members] = len(members)
    return ranks, sizes


def halves(count: int, labels: Tensor | None, seed: int) -> tuple[Tensor, Tensor]:
    """Split the training set 50/50, stratified where there are labels: one half trains weights, the other alpha
    (DARTS).
    """
    ranks, sizes = _ranks(torch.zeros(count, dtype=torch.long) if labels is None else labels, generator(seed, "halves"))
    first = 2 * ranks < sizes
    return first.nonzero().squeeze(1), (~first).nonzero().squeeze(1)


def training_subset(
    labels: Tensor, validation: float, fraction: float, per_class: int | None, seed: int
) -> tuple[Tensor, Tensor]:
    """Return indices of the labelled training images and of the validation images; both stratified, disjoint.

    The labelled images are nested: those of a smaller fraction are among those of a larger one, for one seed.
    Every class keeps at least one image.
    """
    ranks, sizes = _ranks(labels, generator(seed, "labels"))
    held_out = (validation * sizes).round().long().clamp(min=1 if validation > 0 else 0)
    available = sizes - held_out
    wanted = (
        torch.full_like(sizes, per_class)
        if per_class is not None
        else (fraction * available).round().long().clamp(min=1)
    )
    short = wanted > available
    if short.any():
        worst = int(available[short].min())
        raise InputError(
            f"{int(wanted[short].max())} labels per class asked for, but a class has {worst} training images "
            "left; lower train.labels_per_class or train.validation"
        )
    return (ranks < wanted).nonzero().squeeze(1), (ranks >= available).nonzero().squeeze(1)


def epoch_batches(indices: Tensor, batch_size: int, seed: int, purpose: str, epoch: int) -> list[Tensor]:
    """Return an epoch's batches of indices in random order, all of `batch_size`; the rest waits for another epoch."""
    if batch_size > len(indices):
        raise InputError(
            f"batch_size {batch_size} is larger than the {len(indices)} images that {purpose} has; choose at "
            f"most {len(indices)}"
        )
    order = indices[torch.randperm(len(indices), generator=generator(seed, purpose, epoch))]
    return list(order[: len(order) // batch_size * batch_size].split(batch_size))


def take(images: Tensor, index: Tensor, device: torch.device | str) -> Tensor:
    """Return images[index] on the device, wherever the images lie."""
    return images[index.to(images.device)].to(device)
