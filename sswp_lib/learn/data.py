"""Data sets as uint8 tensors; splits; batches; and where every random number comes from.

Paper: section 4.1 (data sets), 4.4 (labelled fractions); DARTS (the half/half split of the bi-level search).
Deliberate deviations: images are decoded and resized once, to `decode_size`, or to `image_size` where there is none;
squares that are cut from their middle, or whole photographs in a mapped file (`packed`).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sswp_lib.config import Data, InputError, home, suggest
from sswp_lib.learn import folders, packing, pixels
from sswp_lib.learn.contents import contents
from sswp_lib.learn.decode import KEEP_BYTES, VERSION, Progress, decode
from sswp_lib.learn.folders import Listing
from sswp_lib.learn.found import Found
from sswp_lib.learn.known import CIFAR, CLASSES, Images, cifar, digits
from sswp_lib.learn.packed import Packed

IN_MEMORY_BYTES = 8 * 2**30  # larger sets stay on the host, most of them in a mapped file; ours


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """Return a CPU generator for one purpose, e.g. generator(seed, "paths", epoch, step).

    Every draw of a run comes from such a generator, so a run resumed at any step draws what it would have drawn.
    """
    key = hashlib.sha256(repr((seed, *purpose)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(key[:8], "little") >> 1)


@dataclass(frozen=True)
class ImageData:
    """A data set in memory, or mapped there from a file.

    Attributes:
        train, test: uint8 (N, 3, S, S), or photographs of any shape; test may be None.
        train_labels, test_labels: int64 (N,), or None where there are no labels.
        classes: class names in label order. mean, std: of the training images, (3,), in 0-1.
        found: what there is, in numbers and words.
    """

    name: str
    train: Tensor | Packed
    test: Tensor | Packed | None
    train_labels: Tensor | None
    test_labels: Tensor | None
    classes: tuple[str, ...]
    mean: Tensor
    std: Tensor
    found: Found

    def labels(self, purpose: str) -> Tensor:
        """Return the training labels; InputError where there are none, or only one class."""
        if self.train_labels is None:
            raise InputError(
                f"{purpose} needs labels, and {self.name} has none; sort the training images into "
                "train/<class>/ folders, or use a label-free objective such as simclr"
            )
        if len(self.classes) < 2:
            raise InputError(
                f"{purpose} needs two classes or more, and {self.name} has one: {self.classes[0]!r}, "
                f"{len(self.train)} images; sort the training images into a folder train/<class>/ for each class, or "
                "use a label-free objective such as simclr"
            )
        return self.train_labels

    def test_set(self) -> tuple[Tensor | Packed, Tensor]:
        """Return test images and labels; InputError where there are none."""
        if self.test is None or self.test_labels is None or not len(self.test):
            raise InputError(f"{self.name} has no labelled test images; put them into test/<class>/ folders")
        return self.test, self.test_labels


def without_test(data: ImageData) -> list[str]:
    """Return the classes that have no test images, of which a test accuracy says nothing; none where nothing is
    tested.
    """
    return data.found.without_test() if data.found.test_images else []


def facts(data: ImageData) -> dict[str, Any]:
    """Return what a network that was trained on these images has to be told of others, and how many there were: plain
    data, of which the numbers are exact.
    """
    return {
        "classes": list(data.classes), "mean": data.mean.tolist(), "std": data.std.tolist(),
        "images": len(data.train), "test_images": 0 if data.test is None else len(data.test),
    }  # fmt: skip


@dataclass(frozen=True)
class _Wanted:
    """What `load` is asked for; equal where the images are the same."""

    name: str
    root: str
    size: int
    kept: str
    classes: tuple[str, ...] | None
    per_class: int | None
    device: str
    fingerprint: str | None
    listing: Listing | None = field(compare=False)
    progress: Progress = field(compare=False)


def load(config: Data, device: str | torch.device = "cpu", progress: Progress = lambda text: None) -> ImageData:
    """Load a data set onto the device.

    Args:
        progress: told now and then what is done, where that takes long.

    Raises:
        InputError: an unknown data set, a missing or empty folder, an unreadable image (named), no network.
    """
    listing, size = _listing(config), config.decode_size or config.image_size
    name = f"folder:{listing.folder}" if config.name.startswith("folder:") else config.name
    classes = config.classes and tuple(map(folders.composed, config.classes))
    content = fingerprint(config)
    return _load(
        _Wanted(
            name, config.root, size, config.kept, classes, config.per_class, str(device), content, listing, progress
        )
    )  # fmt: skip


def number_of_classes(config: Data) -> int:
    """Return how many classes a data set has: one of fixed content need not be here for it."""
    if config.classes is not None:
        return len(config.classes)
    return CLASSES[config.name] if config.name in CLASSES else len(load(config).classes)


@lru_cache(maxsize=2)
def _load(wanted: _Wanted) -> ImageData:
    name, listing, noted = wanted.name, wanted.listing, []
    if name == "digits":
        parts = digits()
    elif listing is None:
        parts = cifar(name, _root(wanted.root), wanted.progress)
    else:
        parts, noted = (_photographs if wanted.kept == "photographs" else _decoded)(wanted)
    parts = parts if wanted.classes is None else _only(wanted.classes, name, *parts)
    parts = parts if wanted.per_class is None else _first(wanted.per_class, name, parts)
    train, train_labels, test, test_labels, classes = parts
    train, test = (images if images is None else _of_size(images, wanted.size) for images in (train, test))
    mean, std = train.statistics() if isinstance(train, Packed) else pixels.statistics(train)
    found = Found(
        str(listing.folder) if listing else name, listing is not None, len(train), 0 if test is None else len(test),
        tuple(zip(classes, _counts(train_labels, classes), _counts(test_labels, classes), strict=True)),
        () if listing is None else tuple(listing.passed.items()), tuple(noted),
        (_lies(train, test), f"mean {_rounded(mean)}, deviation {_rounded(std)} of red, green and blue, of 1"),
    )  # fmt: skip
    images = (_on_device(t, wanted.device) for t in (train, test, train_labels, test_labels))
    return ImageData(name, *images, tuple(classes), mean.to(wanted.device), std.to(wanted.device), found)


def _lies(*parts: Tensor | Packed | None) -> str:
    """Return in words how large the images are, and all of them."""
    images, size = parts[0], sum(part.nbytes for part in parts if part is not None)
    square = f"images of {images.shape[-1]} x {images.shape[-1]} pixels" if isinstance(images, Tensor) else ""
    return f"{square or images.described()}, {size / 2**20:,.1f} MiB in all"


def _rounded(values: Tensor) -> str:
    return " ".join(f"{value:.3f}" for value in values.tolist())


def _of_size(images: Tensor | Packed, size: int) -> Tensor | Packed:
    return images if isinstance(images, Packed) else pixels.resized(images, size)


def _on_device(images: Tensor | Packed | None, device: str) -> Tensor | Packed | None:
    """Return images or labels on the device where they fit beside a network, else where they are."""
    if images is None or images.nbytes >= IN_MEMORY_BYTES:
        return images
    return images.onto(device) if isinstance(images, Packed) else images.to(device)


def _first(count: int, name: str, parts: Images) -> Images:
    """Keep the first images of each class, of the training as of the test images."""
    if parts.train_labels is None:
        raise InputError(
            f"{name} has no labels, of which data.per_class={count} takes so many images each; leave it out"
        )
    kept: list[Tensor | None] = []
    for images, labels in (parts[:2], parts[2:4]):
        if labels is None:
            kept += [None, None]
            continue
        places = [(labels == c).nonzero().squeeze(1)[:count] for c in range(len(parts.classes))]
        index = torch.cat(places).sort().values
        kept += [images[index], labels[index]]
    return Images(*kept, parts.classes)


def _decoded(wanted: _Wanted) -> tuple[Images, list[str]]:
    """Return the images and labels of a folder, and what is to be said of them."""
    listing, size, kept = wanted.listing, wanted.size, None
    files = listing.files
    if max(sum(file.size for file in files), len(files) * 3 * size * size) >= KEEP_BYTES:
        kept = _root(wanted.root) / "decoded" / f"{wanted.fingerprint}-{size}-v{VERSION}.npy"
    images, small, long = decode([listing.folder / file.path for file in files], size, kept, wanted.progress)
    count, (labels, test_labels) = len(listing.train.files), _labels(listing)
    test = images[count:] if test_labels is not None else None
    parts = Images(images[:count], labels, test, test_labels, list(listing.train.classes))
    noted = [*listing.warnings, *contents(listing, _notes(wanted.root)).warnings()]
    noted += [f"images of less than {size} pixels, which are enlarged: {small}"] * bool(small)
    noted += [f"images more than twice as long as wide, of which the middle is taken: {long}"] * bool(long)
    return parts, noted


def _photographs(wanted: _Wanted) -> tuple[Images, list[str]]:
    """Return the photographs and labels of a folder, mapped from a file, and what is to be said of them."""
    listing, side = wanted.listing, wanted.size
    path = _root(wanted.root) / "cache" / f"{wanted.fingerprint}-{side}-v{packing.VERSION}.pack"
    files = [file.path for file in listing.files]
    opened, said = packing.prepared(listing.folder, files, side, path, wanted.fingerprint, wanted.progress)
    parts, noted = packing.parted(opened, listing, *_labels(listing))
    return parts, [*listing.warnings, *contents(listing, _notes(wanted.root)).warnings(), *noted, *said]


def _labels(listing: Listing) -> tuple[Tensor | None, Tensor | None]:
    """Return the labels of the training and of the test images, as far as there are."""
    classes, test = listing.train.classes, listing.test
    place = torch.tensor([classes.index(name) for name in test.classes], dtype=torch.long)
    labels = torch.tensor(listing.train.labels) if classes else None
    return labels, place[torch.tensor(test.labels)] if test.files else None


def _counts(labels: Tensor | None, classes: list[str]) -> list[int]:
    """Return how many images each class has."""
    return [0] * len(classes) if labels is None else torch.bincount(labels, minlength=len(classes)).tolist()


def _only(
    wanted: tuple[str, ...],
    name: str,
    train: Tensor,
    train_labels: Tensor | None,
    test: Tensor | None,
    test_labels: Tensor | None,
    classes: list[str],
) -> Images:
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
    return Images(*kept, list(wanted))


def _root(root: str) -> Path:
    return home() / _expanded(root)


def _notes(root: str) -> Path:
    return _root(root) / "decoded" / "contents"


def _expanded(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError as error:  # ~somebody
        raise InputError(f"no folder {path!r} ({error}); write the path in full") from None


def places(path: str) -> list[Path]:
    """Return where a folder of images is sought: a relative one in the current folder, then in the project's, so that a
    notebook finds what a terminal does.
    """
    given = _expanded(path)
    return list(dict.fromkeys(Path(os.path.abspath(base / given)) for base in (Path.cwd(), home())))


def folder_of(name: str, root: str) -> Path:
    """Return the folder of a data set of image files, absolute and without links."""
    given = name.removeprefix("folder:")
    sought = places(given) if name.startswith("folder:") else [Path(os.path.abspath(_root(root) / name))]
    for path in sought:
        if path.is_dir():
            return path.resolve()
    tried = "" if sought == [Path(given)] else f": sought {' and '.join(repr(str(path)) for path in sought)}"
    if any(path.is_file() for path in sought):
        tried += ", where a file is; an archive must be unpacked first"
    raise InputError(f"no folder {given!r}{tried}; expected train/<class>/* (and test/<class>/*) with images in it")


def _listing(config: Data) -> Listing | None:
    """Return what lies in the folder of a data set; None for sets of fixed content."""
    if config.name == "digits" or config.name in CIFAR:
        return None
    return folders.listed(folder_of(config.name, config.root))


def fingerprint(config: Data) -> str | None:
    """Return a digest of a folder's images, see `contents`; None for sets of fixed content.

    It stands for the path in a run's name: moving the folder keeps the run, changing an image makes another.
    """
    listing = _listing(config)
    return None if listing is None else contents(listing, _notes(config.root)).fingerprint


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
    """Split the training set 50/50: one half trains weights, the other alpha (DARTS).

    Every class is split so where `labels` are given; a search that uses no labels gives None.
    """
    ranks, sizes = _ranks(torch.zeros(count, dtype=torch.long) if labels is None else labels, generator(seed, "halves"))
    first = 2 * ranks < sizes
    return first.nonzero().squeeze(1), (~first).nonzero().squeeze(1)


def training_subset(
    labels: Tensor, validation: float, fraction: float, per_class: int | None, seed: int,
    classes: tuple[str, ...] = (), section: str = "train",
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return indices of the labelled training images and of the validation images; both stratified, disjoint.

    The labelled images are nested: those of a smaller fraction are among those of a larger one, for one seed.
    Every class keeps at least one image; InputError, in terms of the configuration's `section`, where one of the
    `classes` has too few.
    """
    ranks, sizes = _ranks(labels, generator(seed, "labels"))
    held_out = (validation * sizes).round().long().clamp(min=1 if validation > 0 else 0)
    available = sizes - held_out
    wanted = (
        torch.full_like(sizes, per_class)
        if per_class is not None
        else (fraction * available).round().long().clamp(min=1)
    )
    if (wanted > available).any():
        worst = int(available.argmin())
        label, left, size = int(labels[worst]), int(available[worst]), int(sizes[worst])
        name = repr(classes[label]) if classes else f"number {label}"
        asked = "one training image of each class is needed" if per_class is None else f"{per_class} labels per class"
        raise InputError(
            f"{asked}{'' if per_class is None else ' asked for'}, but class {name} has {left} training images left "
            f"({size}, of which {section}.validation={validation:g} holds out {size - left}); lower "
            f"{'' if per_class is None else f'{section}.labels_per_class or '}{section}.validation, add images of it, "
            "or leave it out with data.classes"
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


def take(images: Tensor | Packed, index: Tensor, device: torch.device | str) -> Tensor | Packed:
    """Return images[index] on the device, wherever the images lie."""
    return images[index if isinstance(images, Packed) else index.to(images.device)].to(device)


def shown(images: Tensor | Packed, index: Tensor | Sequence[int]) -> Tensor:
    """Return images[index] as uint8 (N, 3, S, S) on the CPU; of photographs their middle squares."""
    some = images[index].cpu()
    return some.squares() if isinstance(some, Packed) else some
