"""Architecture steps that evaluate more than two candidates an edge."""

from __future__ import annotations

import pytest
import torch

from sswp_lib.config import InputError
from sswp_lib.learn import Search, load
from sswp_lib.learn.evidence import sampled
from sswp_lib.presets import load_config
from sswp_lib.space import (
    CANDIDATES,
    Paths,
    SuperNet,
    best_paths,
    restore_unsampled,
    sample_gates,
    sample_two_paths,
)
from sswp_lib.space.supernet import pool

EVERYTHING = len(CANDIDATES)


@pytest.fixture
def seed() -> torch.Tensor:
    return torch.randn(6, 128, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def mixed_loss(net: SuperNet, x: torch.Tensor, gates: torch.Tensor, seed: torch.Tensor) -> torch.Tensor:
    """The loss with every edge's output the sum over all candidates of gate times output: gates (cells, 14, M)."""

    def run(cell, edge, operations, state):
        return sum(gates[cell, edge, k] * state.through(operations[name]) for k, name in enumerate(CANDIDATES))

    return (net.head(pool(net.maps(x, run)[-1])) * seed).sum()


@pytest.mark.parametrize("evaluated", [2, 3, EVERYTHING])
def test_gradient_is_that_of_straight_through_gates_over_what_was_drawn(supernet, images, seed, evaluated, g):
    """dL/dalpha_i = sum over j in S of dL/dg_j p_j (delta_ij - p_i), with gates that are one-hot in value."""
    paths = sample_gates(supernet.alpha, supernet.present, g, evaluated)
    drawn = torch.cat([paths.active[..., None], paths.inactive], -1)
    assert all(len(set(edge)) == evaluated for cell in drawn.tolist() for edge in cell)
    inside = torch.zeros_like(supernet.alpha, dtype=torch.bool).scatter_(-1, drawn, True)
    p = supernet.alpha.masked_fill(~inside, -torch.inf).softmax(-1)
    gates = torch.nn.functional.one_hot(paths.active, EVERYTHING) + p - p.detach()
    wanted = torch.autograd.grad(mixed_loss(supernet, images, gates, seed), supernet.alpha)[0]
    loss = (supernet(images, paths) * seed).sum()
    torch.testing.assert_close(torch.autograd.grad(loss, supernet.alpha)[0], wanted)
    assert torch.equal((wanted != 0), inside)
    assert torch.equal(loss, (supernet(images, Paths(paths.active)) * seed).sum())  # evaluating changes no value


def test_gradient_equals_finite_differences_of_a_gate(supernet, images, seed, g):
    paths = sample_gates(supernet.alpha, supernet.present, g, EVERYTHING)
    gates = torch.nn.functional.one_hot(paths.active, EVERYTHING).double()
    (to_gates,) = torch.autograd.grad(mixed_loss(supernet, images, gates.requires_grad_(), seed), gates)
    found = torch.autograd.grad((supernet(images, paths) * seed).sum(), supernet.alpha)[0]
    eps = 1e-6
    for cell, edge, k in ((0, 3, 1), (1, 6, 4), (2, 13, 0)):
        ends = []
        for sign in (1, -1):
            moved = gates.detach().clone()
            moved[cell, edge, k] += sign * eps
            ends.append(mixed_loss(supernet, images, moved, seed).item())
        assert (ends[0] - ends[1]) / (2 * eps) == pytest.approx(float(to_gates[cell, edge, k]), rel=1e-5, abs=1e-7)
    p = supernet.alpha.detach().softmax(-1)
    torch.testing.assert_close(found, p * (to_gates - (p * to_gates).sum(-1, keepdim=True)))


def test_two_evaluated_are_two_paths(supernet, images, seed):
    """The same draws and, but for rounding, the same gradient."""
    draw = lambda: torch.Generator().manual_seed(3)  # noqa: E731
    one = sample_two_paths(supernet.alpha, supernet.present, draw())
    other = sample_gates(supernet.alpha, supernet.present, draw(), 2)
    assert torch.equal(one.active, other.active) and torch.equal(one.inactive, other.inactive[..., 0])
    found = [torch.autograd.grad((supernet(images, p) * seed).sum(), supernet.alpha)[0] for p in (one, other)]
    torch.testing.assert_close(*found)


def test_the_active_one_is_drawn_from_softmax_over_all(g):
    """Where all are evaluated, each is active as often as its probability says."""
    logits = torch.tensor([1.0, 0.5, -0.5, 0.0, 1.5, -1.0, 0.2])
    alpha = logits.expand(1500, 14, 7).clone()
    paths = sample_gates(alpha, torch.ones_like(alpha, dtype=torch.bool), g, EVERYTHING)
    found = torch.bincount(paths.active.flatten(), minlength=7) / paths.active.numel()
    torch.testing.assert_close(found, logits.softmax(0), rtol=0, atol=0.015)


def test_a_pruned_cell_takes_no_part(supernet, images, g):
    supernet.prune(1, "top2")
    paths = sample_gates(supernet.alpha, supernet.present, g, 3)
    assert torch.equal(paths.active[1], best_paths(supernet.alpha, supernet.present).active[1])
    assert (paths.inactive[1] == -1).all() and (paths.inactive[[0, 2]] >= 0).all()
    (gradient,) = torch.autograd.grad(supernet(images, paths).square().sum(), supernet.alpha)
    assert (gradient[1] == 0).all() and (gradient[0] != 0).any()
    assert not sampled(paths, supernet.alpha.shape)[1].any()


def test_unsampled_probabilities_stay_as_they_were(g):
    alpha = torch.randn(3, 14, 7, dtype=torch.float64)
    paths, before = sample_gates(alpha, torch.ones_like(alpha, dtype=torch.bool), g, 4), alpha.clone()
    inside = sampled(paths, alpha.shape)
    assert (inside.sum(-1) == 4).all()
    alpha += torch.where(inside, torch.randn(alpha.shape, dtype=torch.float64), 0.0)
    restore_unsampled(alpha, before, paths)
    torch.testing.assert_close(alpha.softmax(-1)[~inside], before.softmax(-1)[~inside])
    assert torch.equal(alpha[~inside], before[~inside])


def test_an_architecture_step_takes_as_many_as_the_setting_says_and_leaves_the_weights():
    config = load_config("smoke", settings={"search.evaluated": 5})
    search = Search(config, load(config.data))
    before = {name: p.detach().clone() for name, p in search.supernet.named_parameters()}
    search.alpha_step(1)
    moved = search.supernet.alpha.detach() != before.pop("alpha")
    assert (search.evidence.updates.sum(-1) == 5).all() and (moved.sum(-1) == 5).all()
    assert all(torch.equal(dict(search.supernet.named_parameters())[name], p) for name, p in before.items())


@pytest.mark.parametrize("evaluated", [1, 8])
def test_other_numbers_are_refused(supernet, g, evaluated):
    with pytest.raises(InputError, match=f"evaluated is {evaluated}; expected 2 to 7"):
        sample_gates(supernet.alpha, supernet.present, g, evaluated)
    if evaluated > 2:
        with pytest.raises(InputError, match="evaluated 8 is more than the 7 candidates; expected 2 to 7"):
            load_config("smoke", settings={"search.evaluated": evaluated})
        load_config("smoke", settings={"search.evaluated": evaluated, "search.planted": ("zero",)})
