"""Folders of image files: which images are there, and all of them as one tensor.

Any format, mode and size that Pillow reads; decoded and resized once.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from sswp_lib.config import InputError

IMAGE_SUFFIXES = {s for s, f in Image.registered_extensions().items() if f in Image.OPEN}
ANNOTATIONS = "val_annotations.txt"  # where Tiny ImageNet lists its validation labels
FINGERPRINT_BYTES = 4 * 2**30  # folders up to this size are told apart by content; ours
IN_MEMORY_BYTES = 8 * 2**30  # larger sets lie in a memory-mapped file on the host; ours


def fingerprint(folder: Path) -> str:
    """Return a digest of a folder's images, by their paths in it and their bytes; of folders above FINGERPRINT_BYTES,
    by paths and sizes.
    """
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES or p.name == ANNOTATIONS)
    return _fingerprint(
        folder, tuple((p.relative_to(folder).as_posix(), (s := p.stat()).st_size, s.st_mtime_ns) for p in found)
    )


@lru_cache(maxsize=8)
def _fingerprint(folder: Path, listed: tuple[tuple[str, int, int], ...]) -> str:
    whole = sum(size for _, size, _ in listed) <= FINGERPRINT_BYTES
    total = hashlib.sha256()
    for name, size, _ in listed:
        total.update(repr((name, size)).encode())
        if whole:
            total.update((folder / name).read_bytes())
    return total.hexdigest()[:12]


def read(folder: Path, size: int) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None, list[str]]:
    """Return a folder's training images and labels, test images and labels, each None where there are none, and its
    classes.

    Images are uint8 (N, 3, size, size), labels int64 (N,).

    Raises:
        InputError: no images, training and test images that cannot be told apart, test classes of which no image is
            trained on, or images that cannot be read (named).
    """
    train_folder = folder / "train" if (folder / "train").is_dir() else folder
    apart = next((part for part in ("test", "val") if (folder / part).is_dir()), None)
    if train_folder is folder and apart:
        raise InputError(
            f"{str(folder)!r} has a folder {apart!r} but none named 'train'; put the training images into "
            "train/, or they could not be told apart"
        )
    parts = (
        ("val", "test") if (folder / "val" / ANNOTATIONS).is_file() else ("test", "val")
    )  # Tiny ImageNet's test images have no labels
    test_folder = next((folder / part for part in parts if (folder / part).is_dir()), None)
    files, labels, classes = _listed(train_folder)
    if not files:
        raise InputError(f"no images in {str(train_folder)!r}; expected train/<class>/* with files that Pillow reads")
    train = _decode(files, size)
    if test_folder is None or labels is None:
        return train, labels, None, None, classes
    test_files, test_labels, test_classes = _listed(test_folder)
    strange = sorted(set(test_classes) - set(classes))
    if strange:
        raise InputError(
            f"class {strange[0]!r} is in {str(test_folder)!r} but not in {str(train_folder)!r}; expected the "
            "same class folders"
        )
    if test_labels is not None:
        to_train = torch.tensor([classes.index(c) for c in test_classes], dtype=torch.long)
        test_labels = to_train[test_labels]
    return train, labels, _decode(test_files, size) if test_files else None, test_labels, classes


def _listed(folder: Path) -> tuple[list[Path], Tensor | None, list[str]]:
    """Return image files, labels and class names; labels are None where no class folders are."""
    table = folder / ANNOTATIONS
    if table.is_file():
        rows = [line.split("\t")[:2] for line in table.read_text().splitlines() if "\t" in line]
        classes = sorted({name for _, name in rows})
        return [folder / "images" / f for f, _ in rows], torch.tensor([classes.index(c) for _, c in rows]), classes
    by_class = {d.name: _images(d.rglob("*")) for d in sorted(folder.iterdir()) if d.is_dir()}
    by_class = {name: files for name, files in by_class.items() if files}
    if not by_class:
        return _images(folder.iterdir()), None, []
    counts = [len(files) for files in by_class.values()]
    return (
        [f for files in by_class.values() for f in files],
        torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)),
        list(by_class),
    )


def _images(paths: Iterable[Path]) -> list[Path]:
    return sorted(p for p in paths if p.suffix.lower() in IMAGE_SUFFIXES)


def _decode(files: list[Path], size: int) -> Tensor:
    """Decode image files of any mode and size into one uint8 (N, 3, S, S) tensor; a large one lies in a temporary file
    that ends with the process.
    """
    shape = (len(files), 3, size, size)
    if math.prod(shape) < IN_MEMORY_BYTES:
        images = torch.empty(shape, dtype=torch.uint8)
    else:
        images = _mapped(shape)

    def read(i: int) -> str | None:
        try:
            with Image.open(files[i]) as image:
                image = _rgb(image)
                if image.size != (size, size):
                    image = _square(image).resize((size, size), Image.Resampling.BILINEAR)
                images[i] = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)
        except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            return f"{str(files[i])!r} ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
        return None

    with ThreadPoolExecutor() as pool:
        broken = [name for name in pool.map(read, range(len(files))) if name]
    if broken:
        more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        raise InputError(f"cannot read image {broken[0]}{more}; replace or remove it")
    return images


def _mapped(shape: tuple[int, ...]) -> Tensor:
    """Return a uint8 tensor that lies in a temporary file without a name, so that no other process can meet it."""
    try:
        with tempfile.NamedTemporaryFile(prefix="sswp-") as file:
            file.truncate(math.prod(shape))
            return torch.from_file(file.name, shared=True, size=math.prod(shape), dtype=torch.uint8).view(shape)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"no room for {math.prod(shape) / 2**30:.0f} GiB of images in {tempfile.gettempdir()!r} "
            f"({str(error).splitlines()[0]}); set TMPDIR to a folder with room"
        ) from None


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits a pixel, which Pillow's own conversion would cut off at 255
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    return image.convert("RGB")


def _square(image: Image.Image) -> Image.Image:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))
