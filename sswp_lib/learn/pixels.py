"""Images of one size, uint8 (N, 3, S, S): their mean and deviation, and the same at another size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

PART_BYTES = 32 * 2**20  # of images that are worked on at once; ours


def statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of each channel, in 0-1: exact, from how often each of the 256 values occurs."""
    channels = images.shape[1]
    seen = torch.zeros(channels, 256, dtype=torch.long)
    for part in images.split(_rows(images[0].numel())):
        seen += torch.stack([torch.bincount(part[:, c].flatten(), minlength=256) for c in range(channels)])
    means, deviations = [], []
    for counts in seen.tolist():  # Python's integers have no largest
        count = sum(counts)
        total, squares = (sum(n * value**power for value, n in enumerate(counts)) for power in (1, 2))
        means.append(total / count / 255)
        deviations.append(max((squares * count - total**2) ** 0.5 / count / 255, 1e-3))
    return torch.tensor(means), torch.tensor(deviations)


def _rows(bytes_each: int) -> int:
    return max(PART_BYTES // bytes_each, 1)


def resized(images: Tensor, size: int) -> Tensor:
    if images.shape[-1] == size:
        return images
    made = torch.empty(len(images), 3, size, size, dtype=torch.uint8)
    rows = _rows(3 * size * size)
    for part, place in zip(images.split(rows), made.split(rows), strict=True):
        shown = F.interpolate(part.float(), (size, size), mode="bilinear", antialias=True)
        place.copy_(shown.round().clamp(0, 255))
    return made
