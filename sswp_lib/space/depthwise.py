"""Depthwise convolution with a backward pass that is fast on the CPU as well.

The candidates spend most of their time here. On a CPU torch's own gradients of dilated and 5x5 depthwise convolutions
fall back to slow loops; two identities avoid them, exactly but for the order of summation: the gradient to the input of
a stride-1 convolution is the convolution of the gradient with the kernel turned by 180 degrees, and a convolution with
dilation 2 is an undilated one on each of the four grids of every second pixel (with stride 2 too, on one of them).
Measured on two cores at (32, 36, 32, 32): gradient to the input, 5x5 dilated, 6.7 -> 0.6 ms; to the 3x3 dilated
weights, 3.3 -> 1.6 ms. On an accelerator torch's own convolution runs. Tried without gain: 5x5 weight gradients from
3x3 blocks (the copies cost more).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sswp_lib.space import small

SMALL_MAP = 8  # pixels; below it torch's 5x5 dilated weight gradient reads mostly padding, slowly


class DepthwiseConv2d(nn.Conv2d):
    """One k x k filter a channel, no bias, "same" padding: (N, C, H, W) -> (N, C, ceil(H / stride), ceil(W /
    stride)).
    """

    def __init__(self, C: int, kernel: int, stride: int = 1, dilation: int = 1):
        super().__init__(C, C, kernel, stride, dilation * (kernel - 1) // 2, dilation, groups=C, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        stride, dilation = self.stride[0], self.dilation[0]
        if small.has_small_matrices(x):
            height, width = x.shape[2:]
            values = self.rows(small.rows(x), height, width)
            return small.maps(values, small.after(height, stride), small.after(width, stride))
        if not (is_fast(x) and torch.is_grad_enabled()):
            return super().forward(x)
        if stride == 1:
            return _Depthwise.apply(x, self.weight, dilation)
        if stride == dilation:  # reads every second pixel only
            return _Depthwise.apply(subsample(x), self.weight, 1)
        if self.kernel_size[0] == 5:  # four times the work, and still faster than torch's strided gradients
            return subsample(_Depthwise.apply(x, self.weight, dilation))
        return super().forward(x)

    def rows(self, values: Tensor, height: int, width: int) -> Tensor:
        """Return rows (C, N * H' * W') of rows (C, N * H * W) of maps as high and wide as said: see `small`."""
        return small.depthwise(values, self.weight, height, width, self.stride[0], self.dilation[0])


def is_fast(x: Tensor) -> bool:
    """Return whether what stands here is faster than torch's own on x."""
    return x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")


def average(x: Tensor) -> Tensor:
    """Return the 3x3 average of x (N, C, H, W), padding not counted, as a convolution: torch's own pool is slow where
    there are few channels. Measured on one core at (32, 16, 32, 32), with its gradient: 2.1 -> 1.0 ms.
    """
    ones = x.new_ones(x.shape[1], 1, 3, 3)
    counted = F.conv2d(x.new_ones(1, 1, *x.shape[2:]), ones[:1], padding=1)  # pixels of each average
    return _Depthwise.apply(x, ones, 1) / counted


def subsample(x: Tensor, offset: int = 0) -> Tensor:
    """Return x[:, :, offset::2, offset::2]; its gradient keeps x's memory layout, where torch's own would lose
    channels_last.
    """
    return small.subsample(x, offset) if small.is_small(x) else _Subsample.apply(x, offset)


class _Subsample(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, offset: int) -> Tensor:
        ctx.offset, ctx.shape, ctx.layout = offset, x.shape, _layout(x)
        return x[:, :, offset::2, offset::2].contiguous(memory_format=ctx.layout)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        to_x = torch.empty(ctx.shape, dtype=grad.dtype, device=grad.device, memory_format=ctx.layout).zero_()
        to_x[:, :, ctx.offset :: 2, ctx.offset :: 2] = grad
        return to_x, None


def _layout(x: Tensor) -> torch.memory_format:
    return (
        torch.channels_last
        if x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
        else torch.contiguous_format
    )


class _Depthwise(torch.autograd.Function):
    """Stride-1 depthwise convolution with odd kernels and "same" padding."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.dilation = dilation
        return F.conv2d(x, weight, None, 1, _same(weight, dilation), dilation, len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, weight = ctx.saved_tensors
        to_x = to_weight = None
        if ctx.needs_input_grad[0]:
            to_x = F.conv2d(grad, weight.flip(2, 3), None, 1, _same(weight, ctx.dilation), ctx.dilation, len(weight))
        if ctx.needs_input_grad[1]:
            to_weight = _weight_gradient(grad, x, weight, ctx.dilation)
        return to_x, to_weight, None


def _same(weight: Tensor, dilation: int) -> int:
    return dilation * (weight.shape[-1] - 1) // 2


def _weight_gradient(grad: Tensor, x: Tensor, weight: Tensor, dilation: int) -> Tensor:
    if dilation == 2 and (weight.shape[-1] == 3 or x.shape[-1] <= SMALL_MAP):
        grad, x, dilation = _every_second(grad), _every_second(x), 1
    arguments = [1, 1], [_same(weight, dilation)] * 2, [dilation] * 2, False, [0, 0], len(weight), [False, True, False]
    return torch.ops.aten.convolution_backward(grad, x, weight, None, *arguments)[1]


def _every_second(x: Tensor) -> Tensor:
    """Sort the pixels into the four grids of every second pixel: (N, C, H, W) -> (4N, C, ceil(H/2), ceil(W/2))."""
    x = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
    n, c, h, w = x.shape
    grids = x.permute(0, 2, 3, 1).reshape(n, h // 2, 2, w // 2, 2, c).permute(2, 4, 0, 1, 3, 5)
    return grids.reshape(4 * n, h // 2, w // 2, c).permute(0, 3, 1, 2)
