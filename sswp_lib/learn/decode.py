"""Image files as pixels: decoded once, and kept on disk where that takes long.

Of every image the middle square, turned as its EXIF orientation says; transparent parts on white; of several frames the
first; 16 bits a channel brought to 8. Colour profiles are not applied.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from filelock import FileLock, Timeout
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

from sswp_lib.config import InputError

# Pillow knows many more, but some need other programs, some are documents, icons or videos, and some are only stubs.
PHOTOGRAPHIC = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "QOI", "TGA", "TIFF", "WEBP")
IMAGE_SUFFIXES = frozenset(s for s, f in Image.registered_extensions().items() if f in PHOTOGRAPHIC and f in Image.OPEN)
FORMATS = [f for f in PHOTOGRAPHIC if f in Image.OPEN]  # an older Pillow has fewer
KEEP_BYTES = 256 * 2**20  # sets of so many bytes, as files or decoded, are kept decoded on disk; ours
VERSION = 1  # of what this module makes of a file; part of the names of kept files
CHUNK = 2000  # images between two signs of life at most
DAMAGE = (
    OSError, SyntaxError, ValueError, LookupError, TypeError, EOFError, struct.error, zlib.error,
    Image.DecompressionBombError,
)  # fmt: skip
"""What Pillow raises at damaged files."""
T = Image.Transpose
TURNS = {
    2: T.FLIP_LEFT_RIGHT, 3: T.ROTATE_180, 4: T.FLIP_TOP_BOTTOM, 5: T.TRANSPOSE, 6: T.ROTATE_270, 7: T.TRANSVERSE,
    8: T.ROTATE_90,
}  # fmt: skip
"""How an image is brought upright, by its EXIF orientation."""

Progress = Callable[[str], None]


class Decoded(NamedTuple):
    images: Tensor  # uint8 (N, 3, S, S)
    small: int  # images whose shorter side has fewer than S pixels
    long: int  # images more than twice as long as wide


def decode(files: Sequence[Path], size: int, kept: Path | None, progress: Progress) -> Decoded:
    """Decode image files of any mode and size into one tensor.

    Args:
        size: pixels a side.
        kept: where the pixels are kept as a .npy file for other processes, which then only map it; None: nowhere.
        progress: told now and then what is done.

    Raises:
        InputError: images that cannot be read (named), or no room for the kept file.
    """
    if kept is None:
        images = np.empty((len(files), 3, size, size), dtype=np.uint8)
        return Decoded(torch.from_numpy(images), *_fill(images, files, size, progress))
    if not kept.is_file():
        with locked(kept, progress):
            if not kept.is_file():
                _keep(files, size, kept, progress)
    try:
        shapes = json.loads(kept.with_suffix(".json").read_text())
        return Decoded(torch.from_numpy(np.load(kept, mmap_mode="c")), **shapes)  # "c": never written back
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"cannot read the decoded images {str(kept)!r} ({str(error).splitlines()[0]}); remove that file, it is "
            "made anew"
        ) from None


@contextmanager
def locked(kept: Path, progress: Progress) -> Iterator[None]:
    """Hold the kept file's lock; where another process decodes the same images, wait for it."""
    lock = FileLock(kept.with_suffix(".lock"))
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        while not lock.is_locked:
            try:
                lock.acquire(timeout=1.0)
            except Timeout:
                progress("waiting for another process that decodes these images")
        yield
    except OSError as error:
        raise InputError(
            f"cannot keep decoded images in {str(kept.parent)!r} ({reason(error)}); set data.root to a folder that can "
            "be written and has room"
        ) from None
    finally:
        lock.release()


def _keep(files: Sequence[Path], size: int, kept: Path, progress: Progress) -> None:
    """Decode into a file beside and rename it."""
    shape, part = (len(files), 3, size, size), kept.with_suffix(".part")
    needed, free = len(files) * 3 * size * size, shutil.disk_usage(kept.parent).free
    if needed > free:  # a full disk would kill a process that writes to a mapped file
        raise InputError(
            f"no room in {str(kept.parent)!r} for {needed / 2**30:.1f} GiB of decoded images ({free / 2**30:.1f} GiB "
            "are free); free some, set data.root to a folder with room, or lower data.image_size"
        )
    try:
        images = np.lib.format.open_memmap(part, "w+", np.uint8, shape)
        small, long = _fill(images, files, size, progress)
        images.flush()
        kept.with_suffix(".json").write_text(json.dumps({"small": small, "long": long}))
        os.replace(part, kept)
    finally:
        part.unlink(missing_ok=True)  # nothing, once renamed


def _fill(images: np.ndarray, files: Sequence[Path], size: int, progress: Progress) -> tuple[int, int]:
    """Decode the files into the rows of `images`; return how many are small, and how many long."""
    small = long = 0
    broken: list[str] = []

    def read(i: int) -> tuple[bool, bool]:
        try:
            images[i], shape = pixels(files[i], size)
            return min(shape) < size, max(shape) > 2 * min(shape)
        except DAMAGE as error:
            broken.append(f"{str(files[i])!r} ({reason(error)})")
            return False, False

    with ThreadPoolExecutor() as pool:
        for start in range(0, len(files), CHUNK):
            for i, seen in enumerate(pool.map(read, range(start, min(start + CHUNK, len(files)))), start):
                small, long = small + seen[0], long + seen[1]
                progress(f"decoding image {i + 1} of {len(files)}")
    refuse(broken)
    return small, long


def refuse(broken: list[str]) -> None:
    """Raise InputError where there are images that cannot be read."""
    if broken:
        broken = sorted(broken)
        more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        raise InputError(f"cannot read image {broken[0]}{more}; replace or remove it")


def reason(error: Exception) -> str:
    """Return in one line why a file cannot be read."""
    if isinstance(error, UnidentifiedImageError):
        return "empty, or of no image format that is read"
    return getattr(error, "strerror", None) or next(iter(str(error).splitlines()), type(error).__name__)


def pixels(file: Path, size: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Return a file's image as uint8 (3, size, size), and how wide and high it was."""
    with Image.open(file, formats=FORMATS) as image:
        shape = image.size
        image.draft(None, (2 * size, 2 * size))  # a large JPEG is decoded at a half, a quarter or an eighth
        turn = loaded(image)
        image = rgb(_square(image))
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    if turn is not None:
        image = image.transpose(turn)
    return np.asarray(image).transpose(2, 0, 1), shape


def loaded(image: Image.Image) -> Image.Transpose | None:
    """Decode an image that was opened; return how it is brought upright, None where it is so already."""
    image.load()  # Pillow turns some formats here by itself, and then forgets their orientation
    return TURNS.get(image.getexif().get(ExifTags.Base.Orientation))


def rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("its pixels are fractions of unknown range; expected whole numbers of 8 or 16 bits")
    if image.mode.startswith("I"):  # 16 bits a pixel, which Pillow's own conversion would cut off at 255
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _square(image: Image.Image) -> Image.Image:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))
