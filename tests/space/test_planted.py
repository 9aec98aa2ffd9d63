"""Planted operations: what they return, and that a search's network never holds one."""

import pytest
import torch

from sswp_lib.config import InputError
from sswp_lib.learn.data import generator
from sswp_lib.space import CANDIDATES, SuperNet, sample_paths, sample_two_paths
from sswp_lib.space.planted import PLANTED, TWIN_OF, Noise, Zero

ALL = (*CANDIDATES, *PLANTED)


@pytest.mark.parametrize("stride, side", [(1, 8), (2, 4)])
def test_noise_is_of_the_batch_and_zero_is_nothing(stride, side):
    x, y = torch.randn(2, 16, 4, 8, 8, generator=generator(0, "x")).unbind()
    noise = Noise(stride)
    assert noise(x).shape == Zero(stride)(x).shape == (16, 4, side, side)
    assert torch.equal(noise(x), noise(x)) and not torch.equal(noise(x), noise(y))
    assert abs(float(noise(x).std()) - 1) < 0.1 and abs(float(noise(x).mean())) < 0.1
    assert float(Zero(stride)(x).abs().max()) == 0
    correlation = torch.corrcoef(torch.stack([noise(x).flatten(), x[..., ::stride, ::stride].flatten()]))[0, 1]
    assert abs(float(correlation)) < 0.1


def test_twins_are_alike_but_in_their_weights():
    net = SuperNet(4, 1, candidates=ALL)
    one, other = (net.cells[0].edges["0"][name] for name in (TWIN_OF, "twin"))
    assert [p.shape for p in one.parameters()] == [p.shape for p in other.parameters()]
    assert not any(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("edges", ["all", "top2"])
def test_a_pruned_cell_keeps_none_of_them(edges):
    net = SuperNet(4, 2, candidates=ALL)
    with torch.no_grad():
        net.alpha.normal_(generator=generator(0, "alpha"))
        net.alpha[..., len(CANDIDATES) :] += 10
    kept = net.prune(0, edges)
    assert set(kept.values()) <= set(CANDIDATES) and len(kept) == (14 if edges == "all" else 8)
    for edge, name in kept.items():
        if edges == "all" and name not in ("skip_connect", "max_pool_3x3", "avg_pool_3x3"):
            assert list(net.cells[0].edges[str(edge)]) == [name]
    assert {name for cell in net.genotype().cells for name, _ in cell} <= set(CANDIDATES)


def test_dropped_skips_are_not_drawn_again_as_planted():
    alpha = torch.zeros(200, 14, len(ALL))
    alpha[..., 0] = 30
    drawn = sample_paths(
        alpha, torch.ones_like(alpha, dtype=torch.bool), generator(0, "x"), skip_dropout=1.0, candidates=ALL
    )
    names = {ALL[k] for k in drawn.active.unique().tolist()}
    assert names == {"sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5", "twin"}


def test_their_alpha_has_a_gradient():
    net = SuperNet(4, 2, candidates=ALL)
    paths = sample_two_paths(net.alpha, net.present, generator(0, "paths"))
    x = torch.randn(6, 3, 8, 8, generator=generator(0, "x"))
    (gradient,) = torch.autograd.grad(net(x, paths).square().mean(), net.alpha)
    assert bool((gradient[..., len(CANDIDATES) :] != 0).any())


def test_an_unknown_operation_is_refused():
    with pytest.raises(InputError, match="unknown operation 'noize'; did you mean 'noise'"):
        SuperNet(4, 1, candidates=("noize", "skip_connect"))
