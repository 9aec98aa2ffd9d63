"""Small maps on a CPU: every layer computes what torch's own does."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sswp_lib.space import CANDIDATES, OPERATIONS, Genotype, Network, calibrate, small
from sswp_lib.space.ops import BatchNorm, FactorizedReduce, MaxPool, relu_conv_bn

SIZES = [(1, 1), (2, 2), (3, 5), (4, 4), (7, 7), (8, 8), (4, 16)]


def computed(module: nn.Module, x: Tensor) -> list[Tensor]:
    """Return the output, its gradients to x and to the weights, and the statistics that the module keeps."""
    x = x.detach().clone().requires_grad_()
    y = module(x)
    torch.manual_seed(1)
    grads = torch.autograd.grad((y * torch.randn(y.shape)).sum(), [x, *module.parameters()])
    return [y, *grads, *module.buffers()]


def both(build, x: Tensor, monkeypatch) -> list[tuple[Tensor, Tensor]]:
    """Return what a module computes here, beside what torch's own layers do."""
    found = []
    for limit in (small.PIXELS, 0):
        monkeypatch.setattr(small, "PIXELS", limit)
        torch.manual_seed(0)
        found.append(computed(build(), x))
        monkeypatch.undo()
    return list(zip(*found, strict=True))


def images(size: tuple[int, int], layout: str = "channels outermost") -> Tensor:
    torch.manual_seed(2)
    x = torch.randn(6, 4, *size)
    if layout == "channels last":
        return x.contiguous(memory_format=torch.channels_last)
    return x if layout == "plain" else x.transpose(0, 1).contiguous().transpose(0, 1)


@pytest.mark.parametrize("affine, momentum", [(False, None), (True, 0.1), (True, None)])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", [*CANDIDATES, "factorised", "preprocessing"])
def test_operations_compute_what_torchs_do(name, stride, size, affine, momentum, monkeypatch):
    builders = {
        "factorised": lambda: FactorizedReduce(4, 6, affine, momentum),
        "preprocessing": lambda: relu_conv_bn(4, 6, affine, momentum),
    }
    build = builders.get(name, lambda: OPERATIONS[name](4, stride, affine, momentum))
    for here, there in both(build, images(size), monkeypatch):
        torch.testing.assert_close(here, there, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("layout", ["plain", "channels last", "channels outermost"])
def test_any_layout_is_taken_and_the_channels_are_outermost_after(layout):
    x = images((4, 4), layout)
    for name in CANDIDATES:
        torch.manual_seed(0)
        operation = OPERATIONS[name](4, 1, False, None)
        torch.testing.assert_close(operation(x), operation(images((4, 4))))
        y = operation(images((4, 4)))
        assert y.transpose(0, 1).is_contiguous()


@pytest.mark.parametrize("kernel, stride, dilation", [(3, 1, 1), (5, 2, 1), (3, 1, 2), (5, 2, 2)])
@pytest.mark.parametrize("size", [(2, 2), (3, 7), (8, 8)])
def test_depthwise_and_pointwise_by_hand(kernel, stride, dilation, size):
    x, weight, mixing = images(size), torch.randn(4, 1, kernel, kernel), torch.randn(3, 4, 1, 1)
    padding = dilation * (kernel - 1) // 2
    own = F.conv2d(x, weight, None, stride, padding, dilation, groups=4)
    found = small.depthwise(small.rows(x), weight, *size, stride, dilation)
    torch.testing.assert_close(small.maps(found, *own.shape[2:]), own, rtol=1e-4, atol=1e-5)
    mixed = small.maps(small.pointwise(small.rows(x), mixing), *size)
    torch.testing.assert_close(mixed, F.conv2d(x, mixing), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("offset", [0, 1])
def test_subsampling_concatenation_and_pools(offset):
    x = images((5, 6))
    assert torch.equal(small.subsample(x, offset), x[:, :, offset::2, offset::2])
    assert torch.equal(small.concatenated([x, 2 * x]), torch.cat([x, 2 * x], dim=1))
    for stride in (1, 2):
        own = F.avg_pool2d(x, 3, stride, padding=1, count_include_pad=False)
        torch.testing.assert_close(small.average_pool(x, stride), own)
        assert torch.equal(MaxPool(stride)(x), F.max_pool2d(x.contiguous(), 3, stride, padding=1))


def test_statistics_are_kept_as_torch_keeps_them():
    x, own, layer = images((4, 4)) + 3, nn.BatchNorm2d(4), BatchNorm(4)
    for _ in range(3):
        own(x), layer(x)
    torch.testing.assert_close(layer.running_mean, own.running_mean)
    torch.testing.assert_close(layer.running_var, own.running_var)
    torch.testing.assert_close(layer.eval()(x), own.eval()(x))


def test_calibration_sees_the_same_statistics(monkeypatch):
    found = []
    for limit in (small.PIXELS, 0):
        monkeypatch.setattr(small, "PIXELS", limit)
        torch.manual_seed(0)
        network = Network(Genotype.published("DARTS_V2", 3), 4)
        calibrate(network, [torch.randn(20, 3, 8, 8) for _ in range(2)])
        found.append(network.eval()(torch.randn(5, 3, 8, 8)))
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "x, small_map, small_matrices",
    [
        (torch.zeros(1, 16, 8, 8), True, True),
        (torch.zeros(2, 17, 8, 8), False, False),
        (torch.zeros(17, 2, 8, 8).transpose(0, 1), True, False),  # lies so already
        (torch.zeros(17, 2, 8, 9).transpose(0, 1), False, False),
        (torch.zeros(2, 2, 8, 9), False, False),
        (torch.zeros(2, 256, 4, 4), True, True),
        (torch.zeros(1, 2, 8, 8, dtype=torch.float64), False, False),
        (torch.zeros(1, 2, 8, 8, dtype=torch.bfloat16), False, False),
        (torch.zeros(1, 2, 8, 8, device="meta"), False, False),
    ],
)
def test_which_maps_are_small(x, small_map, small_matrices):
    assert (small.is_small(x), small.has_small_matrices(x)) == (small_map, small_matrices)
    with torch.autocast("cpu", torch.bfloat16):
        assert not small.is_small(x)


def test_wide_maps_that_lie_so_go_through_torchs_depthwise_convolution():
    torch.manual_seed(0)
    x = torch.randn(20, 4, 8, 8).transpose(0, 1)
    for name in CANDIDATES:
        torch.manual_seed(0)
        operation = OPERATIONS[name](20, 1, False, None)
        torch.testing.assert_close(operation(x), operation(x.contiguous()), rtol=1e-3, atol=1e-4)
