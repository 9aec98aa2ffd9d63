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
from typing import NamedTuple

import numpy as np
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
from sswp_lib.learn.packed import Packed
from sswp_lib.processes import Rows

ASPECT = (3 / 4, 4 / 3)  # of random crops; torchvision's default
TRIES = 10  # of a crop's area and shape, until one fits into a photograph; torchvision's
PART = 8  # photographs a thread at once on a CPU, 5 MB of views of 224 pixels; ours


def normalise(images: Tensor | Packed, mean: Tensor, std: Tensor, size: int | None = None) -> Tensor:
    """Turn uint8 (N, 3, S, S) into float, zero mean and unit deviation a channel, channels last in memory.

    Args:
        size: pixels a side of the result: the centre of images that are kept larger. None: as they are.
    """
    return _standardise(_centre(images, size).float().div_(255), mean, std)


def _centre(images: Tensor | Packed, size: int | None) -> Tensor:
    if isinstance(images, Packed):
        return images.squares(size)
    edge = (images.shape[-1] - (size or images.shape[-1])) // 2
    size = size or images.shape[-1]
    return images[:, :, edge : edge + size, edge : edge + size]


def _standardise(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    x = (x - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    return x.contiguous(memory_format=torch.channels_last)


class Drawn(NamedTuple):
    """What is drawn for a batch of views, on the CPU, before any of them is computed: a view follows from its place in
    the batch, whichever of them are computed where.

    Attributes:
        crops: share of the area, width / height, place across and down, flipped, angle; (N,) each.
        moves: `move`'s arguments, or none. jitter, grey, blur: which images, (K,), and K values each.
    """

    crops: tuple[Tensor, ...]
    moves: tuple[Tensor, ...]
    jitter: tuple[Tensor, ...]
    grey: tuple[Tensor, ...]
    blur: tuple[Tensor, ...]

    def rows(self, start: int, stop: int) -> Drawn:
        """Return what was drawn for some rows of the batch."""
        every = [tuple(values[start:stop] for values in own) for own in (self.crops, self.moves)]
        return Drawn(*every, *(_among(own, start, stop) for own in (self.jitter, self.grey, self.blur)))

    @classmethod
    def of_all(cls, drawn: list[Drawn], each: int) -> Drawn:
        """Return what was drawn for several batches of `each` views, as for one batch."""
        together = lambda own: tuple(map(torch.cat, zip(*own, strict=True)))  # noqa: E731
        joined = [together(own) for own in zip(*((one.crops, one.moves) for one in drawn), strict=True)]
        for own in zip(*((one.jitter, one.grey, one.blur) for one in drawn), strict=True):
            moved = [(chosen + k * each, *values) for k, (chosen, *values) in enumerate(own) if len(chosen)]
            joined.append(together(moved) or own[0])
        return cls(*joined)


def _among(drawn: tuple[Tensor, ...], start: int, stop: int) -> tuple[Tensor, ...]:
    here = (drawn[0] >= start) & (drawn[0] < stop)
    return drawn[0][here] - start, *(values[here] for values in drawn[1:])


def draw(n: int, config: Views, g: torch.Generator, tries: int = 1) -> Drawn:
    """Draw the parameters of n random views; of each crop's area and shape so many `tries`, (N, tries), where more than
    one.
    """
    crops = _draw_shares(n, config, g, tries)
    moves = _draw_moves(n, config.shift, False, g) if config.shift else ()
    jittered = _chosen(n, config.jitter_p, g)
    factors = _draw_jitter(len(jittered), config.jitter, g) if len(jittered) else ()
    grey = _chosen(n, config.grey_p, g)
    blurred = _chosen(n, config.blur_p, g)
    sigma = (_uniform((len(blurred),), *config.blur_sigma, g),) if len(blurred) else ()
    return Drawn(crops, moves, (jittered, *factors), (grey,), (blurred, *sigma))


def random_views(
    images: Tensor | Packed, config: Views, mean: Tensor, std: Tensor, g: torch.Generator, size: int | None = None,
    rows: Rows | None = None,
) -> Tensor:  # fmt: skip
    """Return one random view of each image of a uint8 batch (N, 3, S, S), or of photographs: normalised float
    (N, 3, size, size).

    Args:
        g: a generator on the CPU. size: pixels a side of the views; None: as the images.
        rows: which rows of a batch the images are, where they are not all of it.
    """
    return several_views(1, images, config, mean, std, g, size, rows)[0]


def several_views(
    count: int, images: Tensor | Packed, config: Views, mean: Tensor, std: Tensor, g: torch.Generator,
    size: int | None = None, rows: Rows | None = None,
) -> list[Tensor]:  # fmt: skip
    """Return so many views of each image: what as many calls of `random_views` return, to the bit. They are computed
    together, for on small images an operation takes hardly longer for all than for one of them.
    """
    rows, packed = rows or Rows(0, len(images), len(images)), isinstance(images, Packed)
    if not len(rows):  # of a batch of fewer images than processes
        side = size or (images.side if packed else images.shape[-1])
        return [torch.empty(0, 3, side, side, device=images.device)] * count
    tries = TRIES if packed else 1
    drawn = [draw(rows.whole, config, g, tries).rows(rows.start, rows.stop) for _ in range(count)]
    if packed:
        return [_of_photographs(images, one, mean, std, size or images.side) for one in drawn]
    together = Drawn.of_all(drawn, len(rows))
    *shares, flipped, angle = together.crops
    whole = torch.tensor(float(images.shape[-1]))
    x = images.repeat(count, 1, 1, 1).float().div_(255)
    x = crop(x, boxes(*shares, whole, whole), flipped, angle, size)
    return list(_standardise(changed(x, together), mean, std).split(len(rows)))


def _of_photographs(images: Packed, drawn: Drawn, mean: Tensor, std: Tensor, size: int) -> Tensor:
    """Return the views of photographs, each cropped by the shape of its own. On the CPU colours are changed of so few
    at once that they stay in its cache, which is several times as fast; where none are, whoever crops does it all.
    """
    images.read_ahead()
    on_cpu = images.device.type == "cpu"
    plain = not drawn.moves and not any(len(chosen) for chosen, *_ in (drawn.jitter, drawn.grey, drawn.blur))
    out = _empty((len(images), size, size, 3), images.device).permute(0, 3, 1, 2)
    few = PART * torch.get_num_threads() if on_cpu and not plain else len(images)
    row = mean.repeat(size), 1 / std.repeat(size)  # whole rows: three values each would be slow
    for start in range(0, len(images), few):
        some, own, x = images[start : start + few], drawn.rows(start, start + few), out[start : start + few]
        *shares, flipped, _ = own.crops
        rows, box = x.permute(0, 2, 3, 1).flatten(2), fitting_boxes(*shares, *some.shapes)
        if on_cpu:
            some.crops(box, size, flipped, _to_floats(rows, row if plain else None))
        else:
            x.copy_(some.crops(box, size, flipped)).mul_(1 / 255)
        if not (on_cpu and plain):
            x.copy_(changed(x, own))
            rows.sub_(row[0]).mul_(row[1])
    return out


def _to_floats(rows: Tensor, standard: tuple[Tensor, Tensor] | None) -> Callable[[int, np.ndarray], None]:
    """Return what makes floats in `rows` (N, S, 3 S) of the pixels of an image, by NumPy, which has no threads: in 0-1;
    standardised, where mean and inverse deviation of a row are given.
    """
    into, values = rows.numpy(), [value.numpy() for value in standard or ()]

    def converted(i: int, pixels: np.ndarray) -> None:
        floats = np.multiply(pixels.reshape(into[i].shape), np.float32(1 / 255), out=into[i])
        if values:
            np.subtract(floats, values[0], out=floats)
            np.multiply(floats, values[1], out=floats)

    return converted


def _empty(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Return a new float tensor. On the CPU by NumPy, which asks the system for large pages: to get hundreds of MB in
    small ones takes as long as to crop the images.
    """
    return torch.from_numpy(np.empty(shape, np.float32)) if device.type == "cpu" else torch.empty(shape, device=device)


def changed(x: Tensor, drawn: Drawn) -> Tensor:
    """Move crops and change their colours as was drawn; in place, where they are not moved."""
    if drawn.moves:
        x = move(x, *drawn.moves)
    for change, (chosen, *values) in ((jitter, drawn.jitter), (_greyed, drawn.grey), (blur, drawn.blur)):
        if len(chosen):
            chosen = chosen.to(x.device)
            x[chosen] = change(x[chosen], *values)
    return x


def training_images(
    images: Tensor | Packed, shift: int, flip: bool, cutout: int, mean: Tensor, std: Tensor, g: torch.Generator,
    size: int | None = None, rows: Rows | None = None,
) -> Tensor:  # fmt: skip
    """Return a supervised training batch (DARTS): zero-padded and shifted by up to `shift` pixels, flipped, normalised,
    a square cut out. `rows` as in `random_views`.
    """
    rows = rows or Rows(0, len(images), len(images))
    x = _centre(images, size).float().div_(255)
    size = x.shape[-1]
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


def _greyed(x: Tensor) -> Tensor:
    return rgb_to_grayscale(x).expand(-1, 3, -1, -1)


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


def _draw_shares(n: int, config: Views, g: torch.Generator, tries: int = 1) -> tuple[Tensor, ...]:
    shape = (n, tries) if tries > 1 else (n,)
    share = _uniform(shape, *config.crop_scale, g)
    aspect = _uniform(shape, math.log(ASPECT[0]), math.log(ASPECT[1]), g).exp()
    across, down = (torch.rand(n, generator=g) for _ in range(2))
    flipped = torch.rand(n, generator=g) < 0.5 * config.flip
    angle = _uniform((n,), -config.rotation, config.rotation, g) * (math.pi / 180)
    return share, aspect, across, down, flipped, angle


def boxes(share: Tensor, aspect: Tensor, across: Tensor, down: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """Return the boxes (N, 4) of crops: left, top, width, height in whole pixels, as torchvision's RandomResizedCrop
    has them, without its rejections: too long a side is cut to the image.

    Args:
        share: of the area, (N,). aspect: width / height. across, down: where the box lies in the room that it has, 0-1.
        height, width: of each image, or of all of them.
    """
    area = height * width * share
    wide, high = (
        (area * a).sqrt().round().clamp(min=1).minimum(most) for a, most in ((aspect, width), (1 / aspect, height))
    )
    left, top = (
        (place * (most - side + 1)).floor() for place, most, side in ((across, width, wide), (down, height, high))
    )
    return torch.stack([left, top, wide, high], dim=1)


def fitting_boxes(share: Tensor, aspect: Tensor, across: Tensor, down: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """Return the boxes (N, 4) of crops of photographs, distributed as torchvision's RandomResizedCrop has them: the
    first try that fits, or the middle, as far as its shape may be.

    Args:
        share, aspect: (N, tries). The others are those of `boxes`.
    """
    area = (height * width)[:, None] * share
    wide, high = ((area * a).sqrt().round().clamp(min=1) for a in (aspect, 1 / aspect))
    fits = (wide <= width[:, None]) & (high <= height[:, None])
    first = fits.int().argmax(1, keepdim=True)
    middle = [torch.minimum(one, (other * most).round()) for one, other, most in (
        (width, height, ASPECT[1]), (height, width, 1 / ASPECT[0]))]  # fmt: skip
    found = []
    for sides, most, other, place in ((wide, width, middle[0], across), (high, height, middle[1], down)):
        side = torch.where(fits.any(1), sides.gather(1, first).squeeze(1), other)
        found.append((torch.where(fits.any(1), (place * (most - side + 1)).floor(), ((most - side) / 2).floor()), side))
    (left, wide), (top, high) = found
    return torch.stack([left, top, wide, high], dim=1)


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
