"""Small maps on a CPU: matrix products in place of convolutions.

On maps of at most 8x8 pixels a convolution's call costs more than its arithmetic, and some of torch's gradients fall
back to slow loops. There a depthwise convolution is, for each channel, one matrix from the pixels before to the pixels
after, whatever its kernel, dilation and stride; a 1x1 convolution is one matrix for all pixels; and BatchNorm is
LayerNorm over a row, if memory holds the channels outermost: (C, N, H, W), seen as (N, C, H, W) from outside. The
functions here take any layout and return that one, and compute what torch's layers compute, but for the order of
summation. Larger maps, other devices, autocast and the compiler take torch's own layers.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

# numbers in the matrices of a depthwise convolution, channels * pixels^2; with more they cost more than they save
MATRICES = 2**16
PIXELS = 64  # of maps that, once they lie so, stay so


def is_small(x: Tensor) -> bool:
    """Return whether x (N, C, H, W) is computed here: it is small, or lies here already and is not large."""
    channels, pixels = x.shape[1], x.shape[2] * x.shape[3]
    return (
        pixels <= PIXELS
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and (channels * pixels**2 <= MATRICES or x.transpose(0, 1).is_contiguous())
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()  # which makes larger kernels of its own
    )


def has_small_matrices(x: Tensor) -> bool:
    """Return whether a depthwise convolution of x (N, C, H, W) is computed here."""
    return is_small(x) and x.shape[1] * (x.shape[2] * x.shape[3]) ** 2 <= MATRICES


def rows(x: Tensor) -> Tensor:
    """Return x (N, C, H, W) with its channels outermost, (C, N * H * W): a view where it lies so already."""
    return x.transpose(0, 1).contiguous().view(x.shape[1], -1)


def maps(values: Tensor, height: int, width: int) -> Tensor:
    """Return `rows` as maps again: (N, C, H, W)."""
    return values.view(values.shape[0], -1, height, width).transpose(0, 1)


def after(side: int, stride: int) -> int:
    """Return the side of a map of that side behind a "same" convolution."""
    return -(-side // stride)


@lru_cache(maxsize=256)
def _taps(height: int, width: int, kernel: int, stride: int, dilation: int) -> Tensor:
    """Return which of a kernel's weights joins which pixel before a "same" convolution to which after it: 0 or 1, as
    (kernel * kernel, H * W * H' * W').
    """
    tap = (torch.arange(max(height, width))[:, None] - torch.arange(0, max(height, width), stride)) / dilation
    tap = tap + kernel // 2
    down, across = tap[:height, : after(height, stride)], tap[:width, : after(width, stride)]
    steps = torch.arange(kernel)[:, None, None]
    down, across = (down == steps).float(), (across == steps).float()  # (kernel, side before, side after)
    return torch.einsum("khi,lwj->klhwij", down, across).reshape(kernel * kernel, -1)


def depthwise(values: Tensor, weight: Tensor, height: int, width: int, stride: int, dilation: int) -> Tensor:
    """Return the rows (C, N * H' * W') of the "same" depthwise convolution of rows (C, N * H * W) with weight
    (C, 1, k, k), k odd.
    """
    channels, pixels = len(weight), height * width
    taps = _taps(height, width, weight.shape[-1], stride, dilation)
    matrices = torch.mm(weight.flatten(1), taps).view(channels, pixels, -1)
    return torch.bmm(values.view(channels, -1, pixels), matrices).view(channels, -1)


def pointwise(values: Tensor, weight: Tensor) -> Tensor:
    """Return the rows (C', M) of the 1x1 convolution of rows (C, M) with weight (C', C, 1, 1)."""
    return torch.mm(weight.flatten(1), values)


@lru_cache(maxsize=64)
def _means(height: int, width: int, stride: int) -> Tensor:
    """Return the matrix of a 3x3 average without padding in it: (H * W, H' * W')."""
    joined = _taps(height, width, 3, stride, 1).sum(0).view(height * width, -1)
    return joined / joined.sum(0)


def average_pool(x: Tensor, stride: int) -> Tensor:
    """Return the 3x3 average of x (N, C, H, W), padding not counted."""
    height, width = x.shape[2:]
    averages = torch.mm(rows(x).view(-1, height * width), _means(height, width, stride))
    return maps(averages.view(x.shape[1], -1), after(height, stride), after(width, stride))


def subsample(x: Tensor, offset: int) -> Tensor:
    """Return x[:, :, offset::2, offset::2]."""
    return x.transpose(0, 1)[:, :, offset::2, offset::2].contiguous().transpose(0, 1)


def concatenated(parts: list[Tensor]) -> Tensor:
    """Return maps (N, C, H, W) one after the other in their channels."""
    return torch.cat([x.transpose(0, 1) for x in parts]).transpose(0, 1)
