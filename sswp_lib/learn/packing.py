"""Photographs are decoded once, on all processors, into a file that every process then maps: see `packed`.

JPEG files are decoded by torchvision, as fast as libjpeg-turbo does it; all others by Pillow, as `decode` does it, and
very large ones too, which Pillow decodes at a half, a quarter or an eighth. Both give the same pixels.
"""

from __future__ import annotations

import io
import math
import os
import shutil
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sswp_lib.config import InputError
from sswp_lib.learn.decode import DAMAGE, FORMATS, Progress, loaded, locked, reason, refuse, rgb
from sswp_lib.learn.folders import Listing
from sswp_lib.learn.known import Images
from sswp_lib.learn.packed import INDEX, Damaged, Opened, Packed, open_file, resample, write_end

VERSION = 1  # of what this module makes of an image; part of the names of its files
SIGN = 100  # images between two signs of life at most
TASK = 8  # images that a thread decodes at a time; ours
FLUSHED = 2**26  # bytes, at least, that are given to the disk at a time; ours
GRID = 64  # squared: pixels, at most about, of the grid that mean and deviation are computed from; ours
BROKEN = 0.01  # share of the images that are left out where they cannot be read; with more the set is refused; ours
NAMED = 5  # files that are named with their reason
JPEG = b"\xff\xd8\xff"


def prepared(
    folder: Path, files: Sequence[str], side: int, path: Path, fingerprint: str, progress: Progress
) -> tuple[Opened, list[str]]:  # fmt: skip
    """Return the photographs of a folder's files, mapped from `path`, which is made where it is missing or damaged; and
    what is to be said of that.

    Of files that cannot be read there is no image: facts["skipped"] has [place in `files`, reason] of each.

    Args:
        side: pixels that the shorter side has at most; smaller images stay as they are.
        fingerprint: of the files' content. progress: told now and then what is done.

    Raises:
        InputError: too many files cannot be read; no room, or no permission, for the file.
    """
    expected = {"fingerprint": fingerprint, "side": side, "version": VERSION, "files": len(files)}
    said: list[str] = []
    found = _opened(path, expected, said)
    if found is None:
        with locked(path, progress):
            found = _opened(path, expected, [])  # another process may have made it meanwhile
            if found is None:
                _make(folder, files, path, expected, progress)
                found = open_file(path, expected)
    return found, said


def parted(
    opened: Opened, listing: Listing, labels: Tensor | None, test_labels: Tensor | None
) -> tuple[Images, list[str]]:
    """Return the photographs of a folder with the labels of its files, and sentences on those that were left out.

    Raises:
        InputError: of a class none is left.
    """
    files, count, skipped = listing.files, len(listing.train.files), opened.facts["skipped"]
    there = np.ones(len(files), bool)
    there[[i for i, _ in skipped]] = False
    images = Packed(opened.pixels, opened.index, opened.facts["side"], mapped=opened.mapped)
    classes = list(listing.train.classes)
    train, test = images[: int(there[:count].sum())], images[int(there[:count].sum()) :]
    labels, test_labels = (
        None if own is None else own[torch.from_numpy(part)]
        for own, part in ((labels, there[:count]), (test_labels, there[count:]))
    )
    left_out = [f"{files[i].path!r} ({why})" for i, why in skipped]
    lost = set(range(len(classes))) - set([] if labels is None else labels.tolist())
    if not len(train) or lost:
        what = f"of class {classes[min(lost)]!r}" if lost else "that can be read"
        raise InputError(f"no training image {what} is left in {str(listing.folder)!r}; left out: {left_out[0]}")
    more = f" and {len(left_out) - NAMED} more" if len(left_out) > NAMED else ""
    said = f"images that cannot be read and are left out: {len(left_out)}, {', '.join(left_out[:NAMED])}{more}"
    parts = Images(train, labels, test if test_labels is not None else None, test_labels, classes)
    return parts, [said] * bool(left_out)


def _opened(path: Path, expected: dict[str, Any], said: list[str]) -> Opened | None:
    try:
        return open_file(path, expected)
    except FileNotFoundError:
        return None
    except Damaged as error:
        said.append(f"{str(path)!r} could not be used, for {error}; it was made anew")
        return None
    except OSError as error:
        raise InputError(f"cannot read {str(path)!r} ({reason(error)}); check its permissions, or remove it") from None


def _make(
    folder: Path, files: Sequence[str], path: Path, expected: dict[str, Any], progress: Progress
) -> None:  # fmt: skip
    """Write the file beside and rename it."""
    part, index, skipped, offset, given = path.with_suffix(".part"), [], [], 0, 0
    try:
        with part.open("wb") as file, ThreadPoolExecutor(1) as disk:
            flushed = disk.submit(lambda: None)
            for i, image in enumerate(_photographs(folder, files, expected["side"])):
                if i % SIGN == 0 or i + 1 == len(files):
                    progress(f"decoding image {i + 1} of {len(files)}")
                    _refuse_without_room(path.parent, offset * (len(files) - i) // max(i, 1))
                if isinstance(image, str):
                    skipped.append([i, image])
                    continue
                file.write(image)
                index.append((offset, *image.shape[:2], *_sums(image)))
                offset += image.nbytes
                if offset - given >= FLUSHED and flushed.done():  # the disk works while the next are decoded
                    flushed.result()  # an error is told once
                    flushed, given = disk.submit(os.fsync, file.fileno()), offset
            if len(skipped) > BROKEN * len(files):
                refuse([f"{str(folder / files[i])!r} ({why})" for i, why in skipped])
            write_end(file, offset, np.array(index, INDEX), {**expected, "skipped": skipped})
            file.flush()
            flushed.result()
            os.fsync(file.fileno())  # before the name says that it is whole
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)  # nothing, once renamed


def _refuse_without_room(folder: Path, needed: int) -> None:
    """Refuse to fill a disk on which others may be writing."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"no room in {str(folder)!r} for about {needed / 2**30:.1f} GiB more of photographs ({free / 2**30:.1f} "
            "GiB are free); free some, set data.root to a folder with room, or lower data.decode_size"
        )


def _sums(image: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
    """Return how many pixels a grid over an image has, and each channel's sum of their values and of the squares."""
    step = -(-math.isqrt(image.shape[0] * image.shape[1]) // GRID)
    grid = image[::step, ::step].transpose(2, 0, 1).reshape(3, -1).astype(np.int64)  # along rows sums are quick
    return grid.shape[1], grid.sum(axis=1), np.square(grid).sum(axis=1)


def _photographs(folder: Path, files: Sequence[str], side: int) -> Iterator[np.ndarray | str]:
    """Yield each file's photograph, or why it cannot be read, in order; decoded ahead by a thread a processor."""
    threads, ahead = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, deque()
    read = lambda part: [_read(os.path.join(folder, file), side) for file in part]  # noqa: E731
    with ThreadPoolExecutor(threads) as pool:
        try:
            for start in range(0, len(files), TASK):
                ahead.append(pool.submit(read, files[start : start + TASK]))
                if len(ahead) > 2 * threads:
                    yield from ahead.popleft().result()
            while ahead:
                yield from ahead.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)  # where whoever asked has no room for more


def _read(file: str, side: int) -> np.ndarray | str:
    try:
        return photograph(file, side)
    except DAMAGE as error:
        return reason(error)


def photograph(file: str | Path, side: int) -> np.ndarray:
    """Return a file's image as uint8 (H, W, 3), upright, its shorter side reduced to `side` pixels where it has more.

    Raises:
        one of DAMAGE: it cannot be read.
    """
    content = np.fromfile(file, np.uint8)
    image = _by_torchvision(content, side) if content[: len(JPEG)].tobytes() == JPEG else None
    image = _by_pillow(content, side) if image is None else image
    height, width = image.shape[:2]
    if min(height, width) <= side:
        return image
    size = [int(side * whole / min(height, width)) for whole in (height, width)]  # torchvision's Resize rounds so
    resized = torch.empty(1, *size, 3, dtype=torch.uint8)
    resample(torch.from_numpy(image).permute(2, 0, 1)[None], resized.permute(0, 3, 1, 2))
    return resized[0].numpy()


def _by_torchvision(content: np.ndarray, side: int) -> np.ndarray | None:
    """Return a JPEG file's pixels; None where Pillow has to say what is wrong with it, or is faster."""
    from torchvision.io import ImageReadMode, decode_jpeg  # here, because it takes long to import

    if len(content) > side * side:  # may have four times as many pixels a side, which Pillow need not decode
        with suppress(*DAMAGE), Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
            if min(image.size) >= 4 * side:
                return None
    try:
        image = decode_jpeg(torch.from_numpy(content), ImageReadMode.RGB, apply_exif_orientation=True)
    except RuntimeError:
        return None
    return image.permute(1, 2, 0).contiguous().numpy()


def _by_pillow(content: np.ndarray, side: int) -> np.ndarray:
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        image.draft(None, (2 * side, 2 * side))
        turn = loaded(image)
        image = rgb(image)
    return np.array(image if turn is None else image.transpose(turn))
