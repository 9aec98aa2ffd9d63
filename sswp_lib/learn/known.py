"""Data sets of fixed content: digits and CIFAR.

Deliberate deviation: CIFAR's images stand in an order of their own, by the SHA-256 of their pixels, so that
torchvision's files and a folder of the same images are one data set, and its first images of a class the same slice.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sswp_lib.config import InputError
from sswp_lib.learn import folders
from sswp_lib.learn.decode import Progress, decode

CIFAR = {"cifar10": ((50_000, 10_000), 10), "cifar100": ((50_000, 10_000), 100)}  # images of train and test, classes
CLASSES = {"digits": 10} | {name: classes for name, (_, classes) in CIFAR.items()}  # known without an image
PIXELS = 32


class Images(NamedTuple):
    """Images, uint8 (N, 3, S, S), and labels, int64 (N,), of both parts; and the classes in label order."""

    train: Tensor
    train_labels: Tensor | None
    test: Tensor | None
    test_labels: Tensor | None
    classes: list[str]


def digits() -> Images:
    """Return scikit-learn's digits, 8 pixels a side, a quarter of each class for testing."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    found = load_digits()
    images = torch.from_numpy(found.images * (255 / 16)).round().byte()[:, None].expand(-1, 3, -1, -1)
    labels = torch.from_numpy(found.target).long()
    train, test = train_test_split(np.arange(len(labels)), test_size=0.25, random_state=0, stratify=found.target)
    return Images(images[train], labels[train], images[test], labels[test], [str(i) for i in range(CLASSES["digits"])])


def cifar(name: str, root: Path, progress: Progress) -> Images:
    """Return CIFAR-10 or CIFAR-100, 32 pixels a side: from the folder root/name where there is one, with
    train/<class>/* and test/<class>/*, else from torchvision's files, downloaded where they are missing.

    Raises:
        InputError: neither is there; or the folder does not hold that data set.
    """
    folder = root / name
    parts = _of_folder(name, folder, root, progress) if (folder / "train").is_dir() else _of_torchvision(name, root)
    return Images(*_in_order(*parts[:2]), *_in_order(*parts[2:4]), parts.classes)


def is_there(name: str, root: Path) -> bool:
    """Tell whether a data set can be loaded without a download."""
    return name == "digits" or (root / name / "train").is_dir() or any(root.glob(f"{name.replace('r1', 'r-1')}-*"))


def _in_order(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    hashes = [hashlib.sha256(image.tobytes()).digest() for image in np.ascontiguousarray(images.numpy())]
    order = torch.tensor(sorted(range(len(hashes)), key=hashes.__getitem__))
    return images[order], labels[order]


def _of_folder(name: str, folder: Path, root: Path, progress: Progress) -> Images:
    listing = folders.listed(folder.resolve())
    sizes, classes = CIFAR[name]
    found = tuple(len(part.files) for part in (listing.train, listing.test)), len(listing.train.classes)
    if found != (sizes, classes) or listing.train.classes != listing.test.classes:
        raise InputError(
            f"{str(folder)!r} has {found[0][0]} training and {found[0][1]} test images of {found[1]} classes; {name} "
            f"has {sizes[0]} and {sizes[1]} of {classes}; complete the folder, or take it as folder:{folder}"
        )
    kept = root / "decoded" / f"{name}-{PIXELS}.npy"
    images = decode([listing.folder / file.path for file in listing.files], PIXELS, kept, progress).images
    train, test = images[: sizes[0]], images[sizes[0] :]
    labels = [torch.tensor(part.labels) for part in (listing.train, listing.test)]
    return Images(train, labels[0], test, labels[1], list(listing.train.classes))


def _of_torchvision(name: str, root: Path) -> Images:
    from torchvision import datasets

    dataset = getattr(datasets, {"cifar10": "CIFAR10", "cifar100": "CIFAR100"}[name])
    try:
        parts = [dataset(root, train=train, download=True) for train in (True, False)]
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"{name} could not be downloaded ({str(error).splitlines()[0]}); put {dataset.filename} into "
            f"{root.resolve()}, or take images of your own, folder:PATH"
        ) from None
    images = [torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous() for part in parts]
    labels = [torch.tensor(part.targets) for part in parts]
    return Images(images[0], labels[0], images[1], labels[1], list(parts[0].classes))
