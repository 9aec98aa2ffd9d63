"""Augmentation of whole batches on the device; every image of a batch has parameters of its own.

Paper: section 3.3 (two views of each image); the transforms and their order are SimCLR's (appendix A), the training
transforms DARTS's (shift, flip, cutout). Given the same parameters, each equals torchvision's for a single image.
Deliberate deviations: the parameters come from an explicit generator; the order of the four colour changes is drawn
per image, as torchvision does. Full augmentation modules (kornia's, say) solve a linear system for each crop and
were several times slower on small images, so crops go through one `grid_sample`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from kornia.color import rgb_to_grayscale
    from kornia.enhance import (
        adjust_brightness_accumulative,
        adjust_contrast_with_mean_subtraction,
        adjust_hue,
        adjust_saturation_with_gray_subtraction,
    )
    from kornia.filters import filter2d_separable, get_gaussian_kernel1d

from sswp_lib.config import Views
from sswp_lib.processes import Rows

ASPECT = (3 / 4, 4 / 3)  # of random crops; torchvision's default


def normalise(images: Tensor, mean: Tensor, std: Tensor, size: int | None = None) -> Tensor:
    """Turn uint8 (N, 3, S, S) into float, zero mean and unit deviation a channel, channels last in memory.

    Args:
        size: pixels a side of the result: the centre of images that are kept larger. None: as they are.
    """
    edge = (images.shape[-1] - (size or images.shape[-1])) // 2
    size = size or images.shape[-1]
    return _standardise(images[:, :, edge : edge + size, edge : edge + size].float().div_(255), mean, std)


def _standardise(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    x = (x - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    return x.contiguous(memory_format=torch.channels_last)


def random_views(
    images: Tensor, config: Views, mean: Tensor, std: Tensor, g: torch.Generator, size: int | None = None,
    rows: Rows | None = None,
) -> Tensor:  # fmt: skip
    """Return one random view of each image of a uint8 batch (N, 3, S, S): normalised float (N, 3, size, size).

    Args:
        g: a generator on the CPU. size: pixels a side of the views; None: as the images.
        rows: which rows of the batch the images are, where they are not all. What is drawn is drawn for the whole
            batch, so that a view follows from its place in it.
    """
    rows, x = rows or Rows(0, len(images), len(images)), images.float().div_(255)
    if not len(rows):  # of a batch of fewer images than processes
        return x[:, :, : size or x.shape[-1], : size or x.shape[-1]]
    x = crop(x, *map(rows.of, _draw_crops(rows.whole, x.shape[-1], config, g)), size)
    if config.shift:
        x = move(x, *map(rows.of, _draw_moves(rows.whole, config.shift, False, g)))
    chosen = _chosen(rows.whole, config.jitter_p, g)
    if len(chosen):
        factors, order = _draw_jitter(len(chosen), config.jitter, g)
        _replace(x, rows, chosen, jitter, factors, order)
    chosen = _chosen(rows.whole, config.grey_p, g)
    if len(chosen):
        _replace(x, rows, chosen, lambda part: rgb_to_grayscale(part).expand(-1, 3, -1, -1))
    chosen = _chosen(rows.whole, config.blur_p, g)
    if len(chosen):
        _replace(x, rows, chosen, blur, _uniform((len(chosen),), *config.blur_sigma, g))
    return _standardise(x, mean, std)


def _replace(x: Tensor, rows: Rows, chosen: Tensor, change: Callable[..., Tensor], *drawn: Tensor) -> None:
    """Change those of x that are chosen of the batch, (K,), in place; `drawn` are K values each."""
    places, which = rows.among(chosen)
    if len(places):
        places = places.to(x.device)
        x[places] = change(x[places], *(values[which] for values in drawn))


def training_images(
    images: Tensor, shift: int, flip: bool, cutout: int, mean: Tensor, std: Tensor, g: torch.Generator,
    size: int | None = None, rows: Rows | None = None,
) -> Tensor:  # fmt: skip
    """Return a supervised training batch (DARTS): zero-padded and shifted by up to `shift` pixels, flipped, normalised,
    a square cut out. `rows` as in `random_views`.
    """
    rows = rows or Rows(0, len(images), len(images))
    edge = (images.shape[-1] - (size or images.shape[-1])) // 2
    size = size or images.shape[-1]
    x = images[:, :, edge : edge + size, edge : edge + size].float().div_(255)
    top, left, flipped = map(rows.of, _draw_moves(rows.whole, shift, flip, g))
    row, column = map(rows.of, torch.randint(0, size, (2, rows.whole), generator=g))
    if shift or flip:
        x = move(x, top, left, flipped)
    x = _standardise(x, mean, std)
    if cutout:
        line = torch.arange(size, device=x.device)
        down, across = (line - centre.to(x.device)[:, None] + cutout // 2 for centre in (row, column))
        near = [(distance >= 0) & (distance < cutout) for distance in (down, across)]
        hole = near[0][:, None, :, None] & near[1][:, None, None, :]  # (N, 1, S, S); cut short at the border
        x = x.masked_fill(hole, 0.0)
    return x.contiguous(memory_format=torch.channels_last)


def move(x: Tensor, top: Tensor, left: Tensor, flipped: Tensor) -> Tensor:
    """Move each image up by `top` and to the left by `left` pixels (either may be negative), black coming in; flip it.

    Args:
        x: (N, 3, S, S) in 0-1. top, left: (N,) whole pixels. flipped: (N,) bool.
    """
    size = x.shape[-1]
    reach = max(int(top.abs().max()), int(left.abs().max()))  # on the CPU, where they were drawn
    top, left, flipped = (t.to(x.device) for t in (top, left, flipped))
    line = torch.arange(size, device=x.device)
    columns = torch.where(flipped[:, None], line.flip(0), line) + left[:, None] + reach  # (N, S)
    rows = line + top[:, None] + reach
    padded = F.pad(x, (reach,) * 4).permute(0, 2, 3, 1)
    batch = torch.arange(len(x), device=x.device)[:, None, None]
    return padded[batch, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def blur(x: Tensor, sigma: Tensor) -> Tensor:
    """Blur each image with a 3x3 Gaussian of its own deviation, reflected at the border.

    Args:
        x: (N, 3, S, S). sigma: (N,) pixels; on the CPU, or the kernel's maker would wait for the device to check it.
    """
    kernel = get_gaussian_kernel1d(3, sigma[:, None]).to(x.device, x.dtype)  # (N, 3)
    return filter2d_separable(x, kernel, kernel, border_type="reflect")


def crop(x: Tensor, box: Tensor, flipped: Tensor, angle: Tensor, size: int | None = None) -> Tensor:
    """Rotate each image about its centre, cut a box out of that, resize it to `size` (bilinear), and flip it.

    Args:
        x: (N, 3, S, S). box: (N, 4) left, top, width, height in whole pixels. flipped: (N,) bool. angle: (N,) radians.
        size: pixels a side of the result, S if left out.
    """
    whole, size, turned = x.shape[-1], size or x.shape[-1], bool(angle.any())  # asked on the CPU
    box, flipped, angle = (t.to(x.device) for t in (box, flipped, angle))  # small; the grid is made where it is used
    position = (torch.arange(size, device=x.device) + 0.5) / size
    left, top, width, height = box.float().unbind(1)
    inside = lambda side: (position * side[:, None] - 0.5).clamp(min=0).minimum(side[:, None] - 1)  # noqa: E731
    columns, rows = inside(width), inside(height)  # of the rotated image
    columns = torch.where(flipped[:, None], columns.flip(1), columns) + left[:, None]  # (N, size) in pixels
    rows = rows + top[:, None]
    grid = torch.stack([columns[:, None, :].expand(-1, size, -1), rows[:, :, None].expand(-1, -1, size)], dim=-1)
    if turned:
        centre = (whole - 1) / 2
        c, s = angle.cos(), angle.sin()
        turn = torch.stack([torch.stack([c, s], -1), torch.stack([-s, c], -1)], -2)  # (N, 2, 2)
        grid = (grid - centre) @ turn[:, None] + centre
    grid = (2 * grid + 1) / whole - 1  # pixels to grid_sample's -1..1
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def jitter(x: Tensor, factors: Tensor, order: Tensor) -> Tensor:
    """Change brightness, contrast, saturation and hue of each image, each image in its own order.

    Args:
        x: (N, 3, S, S) in 0-1. factors: (N, 4); the first three multiply, hue turns by the fourth (-0.5 to 0.5).
        order: (N, 4) permutations of 0-3.
    """
    x, factors = x.clone(), factors.to(x.device)  # order stays on the CPU, which looks into it
    for place in order.T:
        for kind, change in enumerate(_COLOUR_CHANGES):
            chosen = (place == kind).nonzero().squeeze(1).to(x.device)
            if len(chosen):
                x[chosen] = change(x[chosen], factors[chosen, kind])
    return x


_COLOUR_CHANGES = (
    adjust_brightness_accumulative,
    adjust_contrast_with_mean_subtraction,
    adjust_saturation_with_gray_subtraction,
    lambda x, turn: adjust_hue(x, turn * 2 * math.pi).clamp(0, 1),
)


def _draw_crops(n: int, size: int, config: Views, g: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Draw boxes as torchvision's RandomResizedCrop does, without its rejections: too long a side is cut to the
    image.
    """
    area = size * size * _uniform((n,), *config.crop_scale, g)
    aspect = _uniform((n,), math.log(ASPECT[0]), math.log(ASPECT[1]), g).exp()
    width, height = ((area * a).sqrt().round().clamp(1, size) for a in (aspect, 1 / aspect))
    left, top = ((torch.rand(n, generator=g) * (size - side + 1)).floor() for side in (width, height))
    flipped = torch.rand(n, generator=g) < 0.5 * config.flip
    angle = _uniform((n,), -config.rotation, config.rotation, g) * (math.pi / 180)
    return torch.stack([left, top, width, height], dim=1), flipped, angle


def _draw_jitter(n: int, strength: tuple[float, ...], g: torch.Generator) -> tuple[Tensor, Tensor]:
    strengths = torch.tensor(strength)
    low, high = (1 - strengths).clamp(min=0), 1 + strengths
    low[3], high[3] = -strengths[3], strengths[3]
    factors = low + (high - low) * torch.rand(n, 4, generator=g)
    return factors, torch.rand(n, 4, generator=g).argsort(dim=1)


def _draw_moves(n: int, shift: int, flip: bool, g: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    top, left = torch.randint(-shift, shift + 1, (2, n), generator=g)
    return top, left, torch.rand(n, generator=g) < 0.5 * flip


def _chosen(n: int, p: float, g: torch.Generator) -> Tensor:
    return (torch.rand(n, generator=g) < p).nonzero().squeeze(1)


def _uniform(shape: tuple[int, ...], low: float, high: float, g: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=g)
