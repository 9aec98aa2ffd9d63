"""Photographs of any shape in one mapped file, and crops straight from them.

A random crop then shows a part of the photograph, not of a square that was cut from it and made small: of 0.2 of its
area a photograph that is kept at 256 pixels still has more than a hundred, and what lies beside its middle is seen too.
Crops are resampled as Pillow does it (a triangle as wide as a pixel of the result, torch's `antialias`). They come from
where the pixels lie, and one image at a time: no copy of the set, no batch of one shape.

The file: all pixels, row by row, in the order of the images; the index, a row of INDEX an image; facts as JSON; a
trailer with the lengths of all three and the checksum of index and facts. A file that was cut short has no trailer.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import struct
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

MAGIC = b"sswppack"
TRAILER = struct.Struct("<8sQQQ32s")  # magic; bytes of pixels, index and facts; SHA-256 of index and facts
INDEX = np.dtype([
    ("offset", "<i8"), ("height", "<i4"), ("width", "<i4"),
    # of a grid of pixels: how many, and a channel's sum of values and of squares
    ("seen", "<i8"), ("sum", "<i8", 3), ("squares", "<i8", 3),
])  # fmt: skip
Index = Tensor | np.ndarray | Sequence[int] | slice


class Damaged(ValueError):
    """A file that is not whole, or not of the images that are asked for. The message is the reason."""


class Opened(NamedTuple):
    pixels: Tensor  # uint8, flat; mapped from the file, never to be written
    mapped: mmap.mmap  # all of the file
    index: np.ndarray  # INDEX, a row an image
    facts: dict[str, Any]


def write_end(file: Any, pixels: int, index: np.ndarray, facts: dict[str, Any]) -> None:
    """Write what comes after the pixels, of which `pixels` bytes were written."""
    rows, text = index.tobytes(), json.dumps(facts).encode()
    checksum = hashlib.sha256(rows + text).digest()
    file.write(rows + text + TRAILER.pack(MAGIC, pixels, len(rows), len(text), checksum))


def open_file(path: Path, expected: dict[str, Any]) -> Opened:
    """Map a file, read-only; other processes that do so share its pages.

    Args:
        expected: facts that the file must have.

    Raises:
        Damaged: cut short, index or facts changed, or of other images. OSError: it cannot be read.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        if size < TRAILER.size:
            raise Damaged(f"it has {size} bytes")
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    magic, pixels, rows, text, checksum = TRAILER.unpack_from(mapped, size - TRAILER.size)
    if magic != MAGIC or pixels + rows + text + TRAILER.size != size or not pixels:
        raise Damaged("it was cut short")
    end = mapped[pixels : pixels + rows + text]
    if hashlib.sha256(end).digest() != checksum:
        raise Damaged("its index was changed")
    facts = json.loads(end[rows:])
    if {name: facts.get(name) for name in expected} != expected:
        raise Damaged("it is of other images")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given buffer is not writable")  # nor does anything write there
        flat = torch.frombuffer(mapped, dtype=torch.uint8, count=pixels)
    return Opened(flat, mapped, np.frombuffer(end, INDEX, count=rows // INDEX.itemsize), facts)


class Packed:
    """Photographs, as far as loops need to know: how many, some of them, and crops of these.

    Args:
        pixels: uint8, flat. index: where in it each image begins, and its shape: INDEX.
        side: pixels of the shorter side, which no image exceeds.
        device: where crops are wanted; None: where the pixels lie. mapped: the file that they are mapped from.
    """

    def __init__(
        self, pixels: Tensor, index: np.ndarray, side: int, device: torch.device | str | None = None,
        mapped: mmap.mmap | None = None,
    ):  # fmt: skip
        self.pixels, self.index, self.side, self.mapped = pixels, index, side, mapped
        self.device = torch.device(device if device is not None else pixels.device)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: Index) -> Packed:
        """Return some of the images, in that order; no pixel is read."""
        chosen = index.cpu().numpy() if isinstance(index, Tensor) else index
        return Packed(self.pixels, self.index[chosen], self.side, self.device, self.mapped)

    def split(self, count: int) -> list[Packed]:
        return [self[start : start + count] for start in range(0, len(self), count)]

    def to(self, device: torch.device | str) -> Packed:
        """Return the same images, of which crops are wanted on that device. The pixels stay where they lie."""
        return Packed(self.pixels, self.index, self.side, device, self.mapped)

    def cpu(self) -> Packed:
        return self.to("cpu")

    def onto(self, device: torch.device | str) -> Packed:
        """Return these images with their pixels, in the order of the images, on an accelerator; the same on the CPU."""
        if torch.device(device).type == self.pixels.device.type:
            return self
        index = self.index.copy()
        index["offset"] = np.cumsum(self._bytes()) - self._bytes()
        moved = torch.empty(self.nbytes, dtype=torch.uint8, device=device)
        for here, there, count in zip(self.index["offset"], index["offset"], self._bytes(), strict=True):
            moved[there : there + count] = self.pixels[here : here + count]
        return Packed(moved, index, self.side)

    def _bytes(self) -> np.ndarray:
        return 3 * self.index["height"].astype(np.int64) * self.index["width"]

    def read_ahead(self) -> None:
        """Let the disk begin to read all these images, which are about to be cropped one after another."""
        if self.mapped is None or not hasattr(mmap, "MADV_WILLNEED"):
            return
        for start, count in zip(self.index["offset"].tolist(), self._bytes().tolist(), strict=True):
            page = start // mmap.PAGESIZE * mmap.PAGESIZE
            self.mapped.madvise(mmap.MADV_WILLNEED, page, start + count - page)

    @property
    def nbytes(self) -> int:
        return int(self._bytes().sum())

    @property
    def shapes(self) -> tuple[Tensor, Tensor]:
        """Height and width of each image, float (N,)."""
        return tuple(torch.from_numpy(self.index[name].astype(np.float32)) for name in ("height", "width"))

    def described(self) -> str:
        """Return in words how large the images are: "photographs of 80 to 256 pixels on their shorter side"."""
        shorter = np.minimum(self.index["height"], self.index["width"])
        least, most = int(shorter.min()), int(shorter.max())
        return f"photographs of {least if least == most else f'{least} to {most}'} pixels on their shorter side"

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Return mean and deviation of each channel, in 0-1: of a grid of each image's pixels, all images alike."""
        seen = self.index["seen"][:, None].astype(np.float64)
        mean, squares = (np.mean(self.index[name] / seen, axis=0) / 255**k for k, name in ((1, "sum"), (2, "squares")))
        deviation = np.sqrt(np.maximum(squares - mean**2, 0)).clip(min=1e-3)
        return torch.tensor(mean, dtype=torch.float32), torch.tensor(deviation, dtype=torch.float32)

    def squares(self, size: int | None = None) -> Tensor:
        """Return the middle of each image, uint8 (N, 3, size, size): `size` of the `side` pixels that its shorter side
        would have (None: all of them). Of an image that has so many this is torchvision's CenterCrop.
        """
        size = size or self.side
        height, width = self.shapes
        edge = (torch.minimum(height, width) * (size / self.side)).round().clamp(min=1)
        left, top = (((whole - edge) / 2).round() for whole in (width, height))
        self.read_ahead()
        return self.crops(torch.stack([left, top, edge, edge], dim=1), size)

    def crops(
        self, box: Tensor, size: int, flipped: Tensor | None = None,
        then: Callable[[int, np.ndarray], None] | None = None,
    ) -> Tensor:  # fmt: skip
        """Return a crop of each image, resized to (size, size): uint8 (N, 3, size, size), channels last in memory.

        Args:
            box: (N, 4) left, top, width, height in whole pixels of the image. flipped: (N,) bool. Both on the CPU.
            then: on the CPU called with the place and the pixels (size, size, 3) of each, by the thread that made them.
                It must leave torch's own threads alone, which would go on waiting for more where others compute.
        """
        near, far = self.pixels.device, self.device
        out = torch.empty(
            len(self),
            size,
            size,
            3,
            dtype=torch.uint8,
            device=near,
            pin_memory=near.type == "cpu" and far.type == "cuda",
        ).permute(0, 3, 1, 2)
        mirrored = [False] * len(self) if flipped is None else flipped.tolist()
        rows = (self.index[name].tolist() for name in ("offset", "height", "width"))
        asked = [*zip(*rows, box.long().tolist(), mirrored, strict=True)]
        threads = torch.get_num_threads() if near.type == "cpu" else 1
        made, next_ones = out.permute(0, 2, 3, 1).numpy() if then else None, iter(range(len(self)))

        def work(_: int) -> None:
            for i in next_ones:  # whoever is done takes the next: crops are of very different sizes
                self._crop(*asked[i], out[i : i + 1])
                if then:
                    then(i, made[i])

        if threads > 1 < len(self):
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(work, range(threads)))
        else:
            work(0)
        return out.to(far, non_blocking=True)

    def _crop(self, start: int, height: int, width: int, box: list[int], mirrored: bool, out: Tensor) -> None:
        """Write the resized crop of the image that begins at `start` to `out`, (1, 3, S, S)."""
        left, top, across, down = box
        image = self.pixels[start : start + 3 * height * width].view(height, width, 3)
        resample(image[top : top + down, left : left + across].permute(2, 0, 1)[None], out)
        if mirrored and out.device.type == "cpu":
            pixels = out[0].permute(1, 2, 0).numpy().view("V3")  # whole pixels, and none of torch's threads
            pixels[:] = pixels[:, ::-1].copy()
        elif mirrored:
            out.copy_(out.flip(3))


def resample(image: Tensor, out: Tensor) -> None:
    """Resize uint8 (1, 3, H, W) into `out`, of another size; with antialias, as Pillow does."""
    size = list(out.shape[-2:])
    if (
        image.device.type == "cpu"
    ):  # what `interpolate` calls; but that has no `out`, and half its time is for a new one
        torch.ops.aten._upsample_bilinear2d_aa.out(image, size, False, None, None, out=out)
    else:  # knows no bytes
        resized = F.interpolate(image.float(), size, mode="bilinear", antialias=True)
        out.copy_(resized.round_().clamp_(0, 255))
