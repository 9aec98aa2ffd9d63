"""The fast depthwise convolution against torch's own, forward and backward."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sswp_lib.space.depthwise import DepthwiseConv2d, average, subsample
from sswp_lib.space.ops import AveragePool


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
def test_output_and_both_gradients_equal_those_of_conv2d(kernel, dilation, stride, layout):
    torch.manual_seed(0)
    layer = DepthwiseConv2d(3, kernel, stride, dilation).double()
    for size in [(1, 1), (4, 4), (7, 7), (8, 8), (9, 9), (16, 16), (9, 12), (11, 8)]:
        x = torch.randn(2, 3, *size, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
        expected = F.conv2d(x, layer.weight, None, stride, dilation * (kernel - 1) // 2, dilation, groups=3)
        assert expected.shape[-2:] == tuple(-(-s // stride) for s in size)
        seed = torch.randn_like(expected)
        wanted = torch.autograd.grad(expected, (x, layer.weight), seed)
        found = torch.autograd.grad(layer(x), (x, layer.weight), seed)
        torch.testing.assert_close(layer(x), expected)
        torch.testing.assert_close(found, wanted)
        with torch.no_grad():
            torch.testing.assert_close(layer(x), expected.detach())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(1, 1), (2, 9), (9, 12), (16, 16)])
def test_average_and_its_gradient(size, layout):
    torch.manual_seed(0)
    x = torch.randn(2, 3, *size, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    expected = F.avg_pool2d(x, 3, 1, padding=1, count_include_pad=False)
    seed = torch.randn_like(expected)
    for found in (average(x), AveragePool(1)(x)):
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(*(torch.autograd.grad(y, x, seed, retain_graph=True) for y in (found, expected)))


def test_averages_under_autocast_are_torchs_own():
    """In bfloat16 a convolution would round what a pool does not."""
    x = torch.randn(2, 3, 9, 9)
    with torch.autocast("cpu", torch.bfloat16):
        found = AveragePool(1)(x)
    assert torch.equal(found, F.avg_pool2d(x, 3, 1, padding=1, count_include_pad=False))


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("size", [4, 7, 8])
def test_subsample_and_its_gradient(size, offset):
    for layout in (torch.contiguous_format, torch.channels_last):
        x = torch.randn(2, 3, size, size, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
        found, expected = subsample(x, offset), x[:, :, offset::2, offset::2]
        assert torch.equal(found, expected)
        seed = torch.randn_like(expected)
        gradient = torch.autograd.grad(found, x, seed)[0]
        assert torch.equal(gradient, torch.autograd.grad(expected, x, seed)[0])
        assert gradient.is_contiguous(memory_format=layout)


@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(3, 1, 1), (5, 1, 2), (3, 2, 1), (5, 2, 2), (5, 2, 1)])
def test_learns_under_bfloat16_autocast(kernel, stride, dilation):
    """Gradients arrive in float32 and agree with float32's to bfloat16's accuracy."""
    torch.manual_seed(0)
    layer = DepthwiseConv2d(4, kernel, stride, dilation)
    x = torch.randn(2, 4, 8, 8, requires_grad=True)
    wanted = torch.autograd.grad(layer(x).sum(), (x, layer.weight))
    with torch.autocast("cpu", torch.bfloat16):
        loss = layer(x).float().sum()
    found = torch.autograd.grad(loss, (x, layer.weight))
    assert [t.dtype for t in found] == [torch.float32] * 2
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0.05, atol=0.05 * float(other.abs().max()))
