"""The candidate operations: one table, name -> builder(C, stride, affine, momentum of BatchNorm).

Paper: section 3.1, the operations of DARTS's search space. Every operation maps (N, C, H, W) to
(N, C, ceil(H / stride), ceil(W / stride)).

Deliberate deviations: BatchNorm here keeps running statistics only where it is told to (see `BatchNorm`),
and the factorised reduction pads maps of odd size, where DARTS's fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sswp_lib import processes
from sswp_lib.space import small
from sswp_lib.space.depthwise import DepthwiseConv2d, average, is_fast, subsample


class BatchNorm(nn.Module):
    """Batch normalisation that in training normalises by the batch, and in evaluation by stored statistics.

    With `momentum=None` training leaves the stored statistics alone: then no step, least of all an architecture
    step, can leave a trace in them, and `calibrate` computes them from training images before an evaluation or
    an export. With a momentum they follow the batches as in torch's own BatchNorm2d. A batch is that of all processes
    which share the run.
    """

    def __init__(self, C: int, affine: bool = True, momentum: float | None = 0.1, eps: float = 1e-5):
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.weight = nn.Parameter(torch.ones(C)) if affine else None
        self.bias = nn.Parameter(torch.zeros(C)) if affine else None
        self.register_buffer("running_mean", torch.zeros(C))
        self.register_buffer("running_var", torch.ones(C))

    def forward(self, x: Tensor) -> Tensor:
        """Return x (N, C, H, W), or the rows (C, M) of small maps, normalised."""
        if x.dim() == 2:
            return self._rows(x)
        return small.maps(self(small.rows(x)), *x.shape[2:]) if small.is_small(x) else self._normalised(x)

    def _rows(self, values: Tensor) -> Tensor:
        if not (self.training and self.momentum is None) or processes.count() > 1:
            return self._normalised(values[None])[0]
        values = F.layer_norm(values, values.shape[1:], eps=self.eps)  # the same over rows, and faster
        return values if self.weight is None else values * self.weight[:, None] + self.bias[:, None]

    def _normalised(self, x: Tensor) -> Tensor:
        if self.training and processes.count() > 1:
            return self._together(x)
        if self.training and self.momentum is None:
            return F.batch_norm(x, None, None, self.weight, self.bias, training=True, eps=self.eps)
        return F.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training,
            self.momentum or 0.0,
            self.eps,
        )

    def _together(self, x: Tensor) -> Tensor:
        x, mean, var = processes.batch_norm(x, self.weight, self.bias, self.eps)
        if self.momentum is not None:
            with torch.no_grad():
                self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
                self.running_var.lerp_(var.to(self.running_var.dtype), self.momentum)
        return x


class PointwiseConv2d(nn.Conv2d):
    """A 1x1 convolution without bias: (N, C_in, H, W) -> (N, C_out, H, W), or rows (C_in, M) -> (C_out, M)."""

    def __init__(self, C_in: int, C_out: int):
        super().__init__(C_in, C_out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 2:
            return small.pointwise(x, self.weight)
        return small.maps(self(small.rows(x)), *x.shape[2:]) if small.is_small(x) else super().forward(x)


class MaxPool(nn.MaxPool2d):
    """The greatest of 3x3."""

    def __init__(self, stride: int):
        super().__init__(3, stride, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        # torch's own is five times as fast on this layout
        return super().forward(x.contiguous(memory_format=torch.channels_last) if small.is_small(x) else x)


class AveragePool(nn.AvgPool2d):
    """The average of 3x3, padding not counted."""

    def __init__(self, stride: int):
        super().__init__(3, stride, padding=1, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        if small.is_small(x):
            return small.average_pool(x, self.stride)
        return average(x) if self.stride == 1 and is_fast(x) else super().forward(x)


def batch_norms(model: nn.Module) -> list[BatchNorm]:
    """Return every BatchNorm of a model."""
    return [module for module in model.modules() if isinstance(module, BatchNorm)]


@contextmanager
def by_batch(model: nn.Module):
    """Meanwhile every BatchNorm normalises by the batch and stores nothing; then the model is in its mode again."""
    layers, was_training = batch_norms(model), model.training
    momenta = [layer.momentum for layer in layers]
    try:
        model.train()
        for layer in layers:
            layer.momentum = None
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        model.train(was_training)


@torch.no_grad()
def calibrate(model: nn.Module, batches: Iterable[Tensor], forward: Callable[[Tensor], object] | None = None) -> None:
    """Recompute every BatchNorm's stored statistics as the mean over the batches' own; `model` is left in its mode.

    Args:
        batches: images (N, C, H, W), normalised, N >= 2; each is run once in training mode.
        forward: what to run, e.g. `lambda x: supernet(x, paths)`; the model itself if left out. It reaches the same
            layers with every batch; those that it does not reach keep their statistics.
    """
    forward, layers = forward or model, batch_norms(model)
    with by_batch(model):
        for count, images in enumerate(batches, start=1):
            for layer in layers:
                layer.momentum = 1 / count  # of a running mean, this makes the mean of all so far
            forward(images)


def concatenated(maps: list[Tensor]) -> Tensor:
    """Return maps (N, C, H, W) one after the other in their channels."""
    return small.concatenated(maps) if small.is_small(maps[0]) else torch.cat(maps, dim=1)


class FactorizedReduce(nn.Module):
    """ReLU, two 1x1 convolutions on the grids of every second pixel, shifted by one, concatenated, BN (DARTS)."""

    def __init__(self, C_in: int, C_out: int, affine: bool = True, momentum: float | None = 0.1):
        super().__init__()
        self.conv_even = PointwiseConv2d(C_in, C_out // 2)
        self.conv_odd = PointwiseConv2d(C_in, C_out - C_out // 2)
        self.bn = BatchNorm(C_out, affine, momentum)

    def forward(self, x: Tensor) -> Tensor:
        even, odd = subsample(x), subsample(x, 1)  # first: a strided 1x1 convolution is slow on a CPU
        odd = F.pad(odd, (0, x.shape[3] % 2, 0, x.shape[2] % 2))  # a map of odd size lacks its last odd row
        return self.bn(concatenated([self.conv_even(F.relu(even)), self.conv_odd(F.relu(odd))]))


def relu_conv_bn(C_in: int, C_out: int, affine: bool = True, momentum: float | None = 0.1) -> nn.Sequential:
    """ReLU, 1x1 convolution, BN: brings a cell's input to the cell's channels."""
    return nn.Sequential(nn.ReLU(), PointwiseConv2d(C_in, C_out), BatchNorm(C_out, affine, momentum))


class ReLUFirst(nn.Sequential):
    """Layers of which the first is a ReLU. A cell computes that ReLU once for all edges that leave a node, and hands it
    in.
    """

    def forward(self, x: Tensor, rectified: Tensor | None = None) -> Tensor:
        first, *others = self
        x = first(x) if rectified is None else rectified
        if small.has_small_matrices(x):
            return self._small(x, others)
        for layer in others:
            x = layer(x)
        return x

    @staticmethod
    def _small(x: Tensor, layers: list[nn.Module]) -> Tensor:
        values, (height, width) = small.rows(x), x.shape[2:]
        for layer in layers:
            if isinstance(layer, DepthwiseConv2d):
                values = layer.rows(values, height, width)
                height, width = (small.after(side, layer.stride[0]) for side in (height, width))
            else:
                values = layer(values)
        return small.maps(values, height, width)


def _depthwise_separable(
    C: int, kernel: int, stride: int, dilation: int, affine: bool, momentum: float | None
) -> list[nn.Module]:
    return [
        nn.ReLU(),  # never in place: the input belongs to other edges too
        DepthwiseConv2d(C, kernel, stride, dilation),
        PointwiseConv2d(C, C),
        BatchNorm(C, affine, momentum),
    ]


def _skip(C: int, stride: int, affine: bool, momentum: float | None) -> nn.Module:
    return nn.Identity() if stride == 1 else FactorizedReduce(C, C, affine, momentum)


def _max_pool(C: int, stride: int, affine: bool, momentum: float | None) -> nn.Module:
    return nn.Sequential(MaxPool(stride), BatchNorm(C, False, momentum))


def _avg_pool(C: int, stride: int, affine: bool, momentum: float | None) -> nn.Module:
    return nn.Sequential(AveragePool(stride), BatchNorm(C, False, momentum))


def _separable(kernel: int) -> Callable[..., nn.Module]:
    def build(C: int, stride: int, affine: bool, momentum: float | None) -> nn.Module:
        first = _depthwise_separable(C, kernel, stride, 1, affine, momentum)
        return ReLUFirst(*first, *_depthwise_separable(C, kernel, 1, 1, affine, momentum))

    return build


def _dilated(kernel: int) -> Callable[..., nn.Module]:
    def build(C: int, stride: int, affine: bool, momentum: float | None) -> nn.Module:
        return ReLUFirst(*_depthwise_separable(C, kernel, stride, 2, affine, momentum))

    return build


Builder = Callable[[int, int, bool, float | None], nn.Module]
OPERATIONS: dict[str, Builder] = {
    "skip_connect": _skip,
    "max_pool_3x3": _max_pool,
    "avg_pool_3x3": _avg_pool,
    "sep_conv_3x3": _separable(3),
    "sep_conv_5x5": _separable(5),
    "dil_conv_3x3": _dilated(3),
    "dil_conv_5x5": _dilated(5),
}
