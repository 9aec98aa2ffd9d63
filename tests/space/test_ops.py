"""The candidate operations, the reduction, BatchNorm and its calibration."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sswp_lib.space import CANDIDATES, OPERATIONS, calibrate
from sswp_lib.space.ops import BatchNorm, FactorizedReduce


def test_the_table_lists_the_candidates_in_order():
    assert tuple(OPERATIONS) == CANDIDATES


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", CANDIDATES)
def test_output_shape_and_gradient(name, stride):
    torch.manual_seed(0)
    operation = OPERATIONS[name](4, stride, True, 0.1)
    for size in (4, 7, 8):
        x = torch.randn(2, 4, size, size, requires_grad=True)
        before, y = x.detach().clone(), operation(x)
        assert y.shape == (2, 4, -(-size // stride), -(-size // stride))
        gradient = torch.autograd.grad((y * torch.randn_like(y)).sum(), x)[0]
        assert torch.isfinite(gradient).all() and gradient.abs().sum() > 0
        assert torch.equal(x.detach(), before)  # nothing happens in place


def layers_of(operation: nn.Module) -> list[str]:
    return [type(layer).__name__ for layer in operation]


def test_operations_are_those_of_darts():
    block = ["ReLU", "DepthwiseConv2d", "PointwiseConv2d", "BatchNorm"]
    for name, kernel, dilation, blocks in [
        ("sep_conv_3x3", 3, 1, 2),
        ("sep_conv_5x5", 5, 1, 2),
        ("dil_conv_3x3", 3, 2, 1),
        ("dil_conv_5x5", 5, 2, 1),
    ]:
        operation = OPERATIONS[name](4, 2, True, 0.1)
        assert layers_of(operation) == block * blocks
        depthwise = [layer for layer in operation if type(layer).__name__ == "DepthwiseConv2d"]
        assert [layer.kernel_size[0] for layer in depthwise] == [kernel] * blocks
        assert [layer.dilation[0] for layer in depthwise] == [dilation] * blocks
        assert [layer.stride[0] for layer in depthwise] == [2, 1][:blocks]
    assert isinstance(OPERATIONS["skip_connect"](4, 1, True, 0.1), nn.Identity)
    assert isinstance(OPERATIONS["skip_connect"](4, 2, True, 0.1), FactorizedReduce)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", ["max_pool_3x3", "avg_pool_3x3"])
def test_pools_are_normalised_without_affine(name, stride):
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    operation = OPERATIONS[name](3, stride, True, 0.1).double()
    pooled = (
        F.max_pool2d(x, 3, stride, 1)
        if name.startswith("max")
        else F.avg_pool2d(x, 3, stride, 1, count_include_pad=False)
    )
    torch.testing.assert_close(operation(x), F.batch_norm(pooled, None, None, training=True))
    assert list(operation.parameters()) == []


def test_factorized_reduce_equals_strided_convolutions_on_shifted_grids():
    """DARTS: two 1x1 convolutions of stride 2, the second on the map shifted by one pixel."""
    torch.manual_seed(0)
    layer = FactorizedReduce(4, 6).double()
    x = torch.randn(2, 4, 8, 8, dtype=torch.float64, requires_grad=True)
    y = F.relu(x)
    both = torch.cat(
        [F.conv2d(y, layer.conv_even.weight, stride=2), F.conv2d(y[:, :, 1:, 1:], layer.conv_odd.weight, stride=2)], 1
    )
    expected = F.batch_norm(both, None, None, training=True)
    torch.testing.assert_close(layer(x), expected)
    seed = torch.randn_like(expected)
    torch.testing.assert_close(torch.autograd.grad(layer(x), x, seed), torch.autograd.grad(expected, x, seed))


@pytest.mark.parametrize("size", [1, 5, 7, 9])
def test_factorized_reduce_pads_maps_of_odd_size(size):
    """The even grid is whole; the odd grid lacks its last row and column, which count as zero before BatchNorm."""
    layer = FactorizedReduce(2, 4).eval()
    x = torch.rand(2, 2, size, size)
    y, half = layer(x), size // 2 + 1
    assert y.shape == (2, 4, half, half)
    assert torch.equal(y[:, 2:, -1], torch.zeros(2, 2, half)) and torch.equal(y[:, 2:, :, -1], torch.zeros(2, 2, half))
    torch.testing.assert_close(
        y[:, :2], layer.bn(F.pad(F.conv2d(x, layer.conv_even.weight, stride=2), (0, 0, 0, 0, 0, 2)))[:, :2]
    )


def test_batchnorm_equals_torchs_own_in_both_modes():
    torch.manual_seed(0)
    own, torchs = BatchNorm(3), nn.BatchNorm2d(3)
    for _ in range(3):
        x = 2 * torch.randn(4, 3, 5, 5) + 1
        torch.testing.assert_close(own(x), torchs(x))
    torch.testing.assert_close(own.running_mean, torchs.running_mean)
    torch.testing.assert_close(own.running_var, torchs.running_var)
    torch.testing.assert_close(own.eval()(x), torchs.eval()(x))


def test_batchnorm_without_momentum_keeps_no_trace():
    layer = BatchNorm(3, affine=False, momentum=None)
    layer(5 + torch.randn(4, 3, 5, 5))
    assert torch.equal(layer.running_mean, torch.zeros(3)) and torch.equal(layer.running_var, torch.ones(3))
    assert list(layer.parameters()) == []


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_calibrate_stores_the_mean_of_the_batches_own_statistics(momentum, training):
    torch.manual_seed(0)
    first, second = BatchNorm(3, momentum=momentum), BatchNorm(3, momentum=momentum)
    model = nn.Sequential(nn.Conv2d(3, 3, 1), first, nn.ReLU(), second).train(training)
    batches = [torch.randn(4, 3, 5, 5) * scale for scale in (1, 2, 3)]
    calibrate(model, batches)
    seen = [[], []]
    with torch.no_grad():
        for x in batches:
            x = model[0](x)
            seen[0].append(x)
            seen[1].append(F.batch_norm(x, None, None, first.weight, first.bias, training=True).relu())
    for layer, inputs in zip((first, second), seen, strict=True):
        torch.testing.assert_close(layer.running_mean, torch.stack([x.mean((0, 2, 3)) for x in inputs]).mean(0))
        torch.testing.assert_close(
            layer.running_var, torch.stack([x.transpose(0, 1).flatten(1).var(1) for x in inputs]).mean(0)
        )
        assert layer.momentum == momentum
        assert not layer._forward_pre_hooks
    assert model.training is training and first.training is training


def test_calibrate_leaves_layers_alone_that_it_does_not_reach():
    reached, other = BatchNorm(3), BatchNorm(3)
    model = nn.ModuleList([reached, other])
    calibrate(model, [torch.randn(4, 3, 5, 5) + 1], lambda x: reached(x))
    assert reached.running_mean.abs().min() > 0.1
    assert torch.equal(other.running_mean, torch.zeros(3)) and torch.equal(other.running_var, torch.ones(3))


def test_calibrate_restores_the_model_after_an_error():
    model = nn.Sequential(BatchNorm(3)).eval()
    with pytest.raises(RuntimeError):
        calibrate(model, [torch.randn(4, 7, 5, 5)])
    assert not model.training and model[0].momentum == 0.1 and not model[0]._forward_pre_hooks
