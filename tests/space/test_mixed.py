"""The relaxed network: the mixture on every edge, its gradient, what it becomes, and what `none` does in it."""

from __future__ import annotations

import pytest
import torch

from sswp_lib.config import InputError
from sswp_lib.space import EDGES, Genotype, MixedNet, Network, mixture
from sswp_lib.space.mixed import DARTS_CANDIDATES

NONE, SKIP, SEP3 = (DARTS_CANDIDATES.index(name) for name in ("none", "skip_connect", "sep_conv_3x3"))


@pytest.fixture
def net() -> MixedNet:
    """Four cells (the second and third are reductions) in double precision, alpha away from 0."""
    torch.manual_seed(0)
    net = MixedNet(2, 4, torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        net.alpha.normal_(generator=torch.Generator().manual_seed(1))
    return net


def test_candidates_stand_in_dartss_order(net):
    expected = "none max_pool_3x3 avg_pool_3x3 skip_connect sep_conv_3x3 sep_conv_5x5 dil_conv_3x3 dil_conv_5x5"
    assert net.candidates == DARTS_CANDIDATES == tuple(expected.split())
    for cell in net.cells:
        assert [list(operations) for operations in cell.edges.values()] == [expected.split()[1:]] * 14


def test_gradient_of_the_mixture_is_that_of_finite_differences(net, images):
    """Of single entries, `none`'s among them, and of all of alpha along random directions."""
    g = torch.Generator().manual_seed(2)
    towards = torch.randn(3, 128, dtype=torch.float64, generator=g)
    value = lambda alpha: (net(images[:3], mixture(alpha)) * towards).sum()  # noqa: E731
    (gradient,) = torch.autograd.grad(value(net.alpha), net.alpha)
    single = torch.zeros(3, *net.alpha.shape, dtype=torch.float64)
    single[0, 0, 3, NONE] = single[1, 1, 0, SKIP] = single[2, 1, 13, SEP3] = 1
    steps = [*single, *torch.randn(1, *net.alpha.shape, dtype=torch.float64, generator=g)]
    with torch.no_grad():
        for step in steps:
            slope = (value(net.alpha + 1e-5 * step) - value(net.alpha - 1e-5 * step)) / 2e-5
            assert abs(float(slope)) > 1e-4
            torch.testing.assert_close((gradient * step).sum(), slope, rtol=1e-5, atol=1e-7)


def one_hot(genotype: Genotype) -> torch.Tensor:
    """Return the weights (2, 14, 8) that choose the cells 0 (normal) and 1 (reduction) of a genotype: `none` on the
    edges that it does not keep.
    """
    chosen = torch.full((2, len(EDGES)), NONE)
    for kind in (0, 1):
        for edge, name in genotype.edges(kind).items():
            chosen[kind, edge] = DARTS_CANDIDATES.index(name)
    return torch.nn.functional.one_hot(chosen, len(DARTS_CANDIDATES)).double()


@pytest.mark.parametrize("name", ["DARTS_V2", "PC_DARTS_CIFAR"])
def test_one_hot_weights_give_the_compact_network(net, images, name):
    """To the bit: of every weighted sum one term is left, and `none` adds nothing."""
    genotype = Genotype.published(name, 4)
    network = Network(genotype, 2, affine=False, head=net.head).double()
    names = set(network.state_dict())
    network.load_state_dict({key: t for key, t in net.state_dict().items() if key in names})
    for cell in network.modules():
        cell.momentum = None if hasattr(cell, "running_mean") else 0  # statistics stay: both are net's own
    assert torch.equal(net(images, one_hot(genotype)), network(images))


def test_weighted_outputs_are_summed(net, images):
    """One edge, by hand: its candidates' outputs, each times its weight."""
    cell, seen = net.cells[0], []
    for name in DARTS_CANDIDATES[1:]:
        cell.edges["1"][name].register_forward_hook(lambda module, inputs, output: seen.append(output))
    nodes = []  # what node 2 is: the sum of edges 0 and 1
    cell.edges["4"]["skip_connect"].register_forward_pre_hook(lambda module, inputs: nodes.append(inputs[0]))
    weights = torch.zeros_like(net.alpha)
    weights[0, 0, NONE], weights[0, 1] = 1, torch.tensor([0.3, 0.1, 0.05, 0.2, 0.15, 0.1, 0.06, 0.04])
    weights[:, 2:, SKIP], weights[1, :2, SKIP] = 1, 1
    net(images, weights)
    expected = sum(float(w) * output for w, output in zip(weights[0, 1, 1:], seen, strict=True))
    torch.testing.assert_close(nodes[0], expected)


def test_normal_cells_share_one_row_and_reductions_the_other(net, images):
    outputs = []
    for cell in net.cells:
        cell.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    weights = mixture(net.alpha.detach())
    net(images, weights)
    for kind, first in ((0, 0), (1, 1)):
        other = weights.clone()
        other[kind] = weights[kind].flip(-1)
        outputs[4:] = []
        net(images, other)
        same = [torch.equal(a, b) for a, b in zip(outputs[:4], outputs[4:], strict=True)]
        assert same == [i < first for i in range(4)]  # all before the first cell of that kind; the rest is behind it
    gradients = torch.autograd.grad(net(images, mixture(net.alpha)).sum(), net.alpha)[0]
    assert (gradients.abs().sum(-1) > 0).all()


def test_none_has_a_gradient_and_no_module(net, images):
    """It takes weight from the others; alone on all edges it leaves nothing of the images."""
    (gradient,) = torch.autograd.grad(net(images, mixture(net.alpha)).square().sum(), net.alpha)
    assert (gradient[..., NONE] != 0).all()
    torch.testing.assert_close(gradient.sum(-1), torch.zeros(2, 14, dtype=torch.float64), rtol=0, atol=1e-9)
    assert not [name for name, _ in net.named_modules() if "none" in name]
    nothing = torch.zeros_like(net.alpha)
    nothing[..., NONE] = 1
    assert not net.features(images, nothing).any()


def test_alpha_is_drawn_from_the_generator_given():
    nets = []
    for seed, own in ((0, 5), (1, 5), (0, 6)):
        torch.manual_seed(seed)
        nets.append(MixedNet(2, 3, torch.Generator().manual_seed(own)))
    one, two, three = (net.alpha.detach() for net in nets)
    assert torch.equal(one, two) and not torch.equal(one, three)
    assert torch.equal(one, 1e-3 * torch.randn(2, 14, 8, generator=torch.Generator().manual_seed(5)))
    weights = [next(net.weight_parameters()) for net in nets]
    assert torch.equal(weights[0], weights[2]) and not torch.equal(weights[0], weights[1])
    assert len(list(nets[0].weight_parameters())) == len(list(nets[0].parameters())) - 1


def test_a_pass_leaves_no_trace_in_the_statistics(net, images):
    before = {name: t.clone() for name, t in net.state_dict().items()}
    net(images, mixture(net.alpha)).sum().backward()
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())
    assert not [name for name, _ in net.named_parameters() if "bn" in name]


def test_single_precision_takes_the_fast_layers_to_the_same_result(net, images):
    with torch.no_grad():
        exact = net(images, mixture(net.alpha))
        fast = net.float()(images.float(), mixture(net.alpha))
    torch.testing.assert_close(fast.double(), exact, rtol=1e-3, atol=1e-4)


def test_cells_are_derived_without_renormalising_and_stacked(net):
    """Node 3 keeps the edges 2 and 4: edge 3 is the surest of its operation once `none` is left out, and has little
    probability with it. Skips are not capped.
    """
    p = torch.full((2, 14, 8), 0.05)
    p[..., NONE], p[..., SKIP] = 0.3, 0.4
    p[:, 2:5, SKIP], p[:, 3] = 0.05, 0.02 / 6
    p[:, 2:5, NONE] = torch.tensor([0.1, 0.6, 0.15])
    p[:, 2:5, SEP3] = torch.tensor([0.6, 0.38, 0.55])
    p[1, 13], p[1, 13, -1] = 0.2 / 7, 0.8  # tells the two rows apart
    torch.testing.assert_close(p.sum(-1), torch.ones(2, 14))
    with torch.no_grad():
        net.alpha.copy_(p.log())
    genotype = net.genotype(8)
    normal, reduce = genotype.cells[0], genotype.cells[2]
    assert genotype == Genotype.stacked(normal, reduce, 8) and net.genotype() == Genotype.stacked(normal, reduce, 4)
    assert normal[2:4] == [("sep_conv_3x3", 0), ("sep_conv_3x3", 2)]
    assert [name for name, _ in normal].count("skip_connect") == 6
    assert reduce[-1] == ("dil_conv_5x5", 4) and normal[-1][0] == "skip_connect"


def test_weights_of_another_shape_are_refused(net, images):
    with pytest.raises(InputError, match=r"\(4, 14, 8\); expected that of mixture\(alpha\), \(2, 14, 8\)"):
        net(images, torch.zeros(4, 14, 8))
