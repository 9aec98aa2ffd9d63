"""Sampling paths, and the gradient of the two-path gates."""

from __future__ import annotations

import pytest
import torch

from sswp_lib.config import InputError
from sswp_lib.space import CANDIDATES, Paths, SuperNet, best_paths, restore_unsampled, sample_paths, sample_two_paths
from sswp_lib.space.paths import mix

SKIP = CANDIDATES.index("skip_connect")
DRAWS = 20_000
TOLERANCE = 0.015  # more than four standard deviations of a frequency from 20,000 draws


def many(logits: list[float] | torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return alpha (DRAWS/14, 14, 7) with these logits on every edge, and `present`: one call draws DRAWS times."""
    alpha = torch.as_tensor(logits).expand(DRAWS // 14 + 1, 14, 7).clone()
    return alpha, torch.ones_like(alpha, dtype=torch.bool)


def frequencies(drawn: torch.Tensor) -> torch.Tensor:
    return torch.bincount(drawn.flatten(), minlength=7) / drawn.numel()


LOGITS = torch.tensor([1.0, 0.5, -0.5, 0.0, 1.5, -1.0, 0.2])


def test_paths_are_drawn_from_softmax(g):
    drawn = sample_paths(*many(LOGITS), g)
    assert drawn.inactive is None and drawn.gates is None
    torch.testing.assert_close(frequencies(drawn.active), LOGITS.softmax(0), rtol=0, atol=TOLERANCE)


def test_warm_up_ignores_alpha(g):
    drawn = sample_paths(*many(LOGITS), g, uniform=True)
    torch.testing.assert_close(frequencies(drawn.active), torch.full((7,), 1 / 7), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(("skip", "pool"), [(0.2, 0.0), (0.0, 0.5), (0.4, 0.3), (1.0, 1.0)])
def test_dropout_redraws_among_the_parameterised_in_proportion(g, skip, pool):
    """P(skip) = p_skip (1 - rate); what it loses goes to the parameterised in proportion to their probabilities."""
    p = LOGITS.softmax(0)
    kept = p * torch.tensor([1 - skip, 1 - pool, 1 - pool, 1, 1, 1, 1])
    learnable = torch.tensor([0.0, 0, 0, 1, 1, 1, 1]) * p
    expected = kept + (1 - kept.sum()) * learnable / learnable.sum()
    alpha, present = many(LOGITS)
    before = alpha.clone()
    drawn = sample_paths(alpha, present, g, skip_dropout=skip, pool_dropout=pool)
    torch.testing.assert_close(frequencies(drawn.active), expected, rtol=0, atol=TOLERANCE)
    assert torch.equal(alpha, before)


@pytest.mark.parametrize("lead", [120.0, 1e4, -120.0])
def test_no_lead_of_one_candidate_is_too_large(g, lead):
    """A skip that leads by 120 is drawn at 1 - rate, the parameterised at rate / 4 each; and so on without fail."""
    alpha, present = many([lead, 0, 0, 0, 0, 0, 0])
    found = frequencies(sample_paths(alpha, present, g, skip_dropout=0.2).active)
    expected = [0.8, 0, 0, 0.05, 0.05, 0.05, 0.05] if lead > 0 else [0, *[1 / 6] * 6]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=TOLERANCE)
    two = sample_two_paths(alpha, present, g)
    assert (two.active != two.inactive).all()
    if lead > 0:
        assert (two.active == SKIP).all()
        torch.testing.assert_close(frequencies(two.inactive), torch.tensor([0.0, *[1 / 6] * 6]), rtol=0, atol=TOLERANCE)
    else:
        assert not (two.inactive == SKIP).any() and not (two.active == SKIP).any()


def test_dropout_among_candidates_without_parameters_is_refused(g):
    names = CANDIDATES[:3]
    alpha = torch.zeros(2, 14, 3)
    present = torch.ones_like(alpha, dtype=torch.bool)
    for rates in ({"skip_dropout": 0.2}, {"pool_dropout": 0.2}):
        with pytest.raises(InputError, match=r"none of .*max_pool_3x3.* has parameters.*skip_dropout=0") as error:
            sample_paths(alpha, present, g, candidates=names, **rates)
        assert "\n" not in str(error.value)
    assert sample_paths(alpha, present, g, candidates=names).active.max() == 2


def test_dropout_changes_no_other_draw():
    """Edges that keep their operation keep the one they have without dropout: arms differ by the dropout alone."""
    alpha, present = many(LOGITS)
    draw = lambda **rates: sample_paths(alpha, present, torch.Generator().manual_seed(3), **rates).active  # noqa: E731
    plain, dropped = draw(), draw(skip_dropout=0.5)
    assert torch.equal(plain[plain != SKIP], dropped[plain != SKIP])
    assert abs(float((dropped[plain == SKIP] == SKIP).float().mean()) - 0.5) < 0.05


def test_two_paths_are_drawn_without_replacement(g):
    """The pair {a, b} has probability p_a p_b / (1 - p_a) + p_b p_a / (1 - p_b); a of the two is active with
    softmax(alpha_a, alpha_b).
    """
    drawn = sample_two_paths(*many(LOGITS), g)
    active, inactive = drawn.active.flatten(), drawn.inactive.flatten()
    assert (active != inactive).all()
    p, n = LOGITS.softmax(0), active.numel()
    for a in range(7):
        for b in range(7):
            if a == b:
                continue
            pair = p[a] * p[b] * (1 / (1 - p[a]) + 1 / (1 - p[b]))
            share = ((active == a) & (inactive == b)).sum() / n
            assert abs(share - pair * p[a] / (p[a] + p[b])) < TOLERANCE


def test_gates_are_one_in_value_and_p_active_in_gradient(g):
    alpha = torch.randn(3, 14, 7, dtype=torch.float64, requires_grad=True)
    paths = sample_two_paths(alpha, torch.ones_like(alpha, dtype=torch.bool), g)
    assert torch.equal(paths.gates, torch.ones(3, 14, dtype=torch.float64))
    found = torch.autograd.grad(paths.gates.sum(), alpha)[0]
    chosen = torch.stack([paths.active, paths.inactive], -1)
    p = alpha.detach().gather(-1, chosen).softmax(-1)
    product = p.prod(-1)
    expected = torch.zeros_like(found).scatter_(-1, chosen, torch.stack([product, -product], -1))
    torch.testing.assert_close(found, expected)


def test_same_generator_same_paths():
    alpha = torch.randn(5, 14, 7)
    present = torch.ones_like(alpha, dtype=torch.bool)
    for sample in (sample_paths, sample_two_paths):
        torch.manual_seed(0)
        one = sample(alpha, present, torch.Generator().manual_seed(7))
        torch.manual_seed(1)  # torch's own generator has no say
        state = torch.get_rng_state()
        two = sample(alpha, present, torch.Generator().manual_seed(7))
        other = sample(alpha, present, torch.Generator().manual_seed(8))
        assert torch.equal(one.active, two.active) and not torch.equal(one.active, other.active)
        assert torch.equal(torch.get_rng_state(), state)


def test_a_pruned_cell_takes_no_part_in_sampling():
    supernet = SuperNet(4, 3)
    kept = supernet.prune(1, "top2")
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        one, two = (
            sample_paths(supernet.alpha, supernet.present, generator, skip_dropout=1.0),
            sample_two_paths(supernet.alpha, supernet.present, generator),
        )
        for paths in (one, two):
            assert paths.names(1) == [kept.get(edge, "-") for edge in range(14)]
        assert (two.inactive[1] == -1).all()
        assert (two.inactive[[0, 2]] >= 0).all()


def test_best_paths_run_the_strongest_that_is_left():
    alpha = torch.randn(2, 14, 7)
    present = torch.ones_like(alpha, dtype=torch.bool)
    assert torch.equal(best_paths(alpha, present).active, alpha.argmax(-1))
    present[0] = False
    present[0, 3, 5] = True
    expected = torch.full((14,), -1)
    expected[3] = 5
    assert torch.equal(best_paths(alpha, present).active[0], expected)
    assert best_paths(alpha, present).names(0)[3] == "dil_conv_3x3"


def test_restore_unsampled_leaves_every_other_probability(g):
    alpha = torch.randn(4, 14, 7)
    present = torch.ones_like(alpha, dtype=torch.bool)
    present[2], present[2, :, 1] = False, True  # a pruned cell
    paths, before = sample_two_paths(alpha, present, g), alpha.clone()
    pair = torch.stack([paths.active, paths.inactive.clamp(min=0)], -1)
    stepped = torch.zeros_like(alpha).scatter_(-1, pair, 1.0).bool() & (paths.inactive >= 0).unsqueeze(-1)
    alpha[stepped] += torch.randn(int(stepped.sum()))
    moved = alpha.clone()
    restore_unsampled(alpha, before, paths)
    assert torch.equal(alpha[~stepped], before[~stepped])
    assert torch.equal(alpha[2], before[2])
    torch.testing.assert_close(alpha.softmax(-1)[~stepped], before.softmax(-1)[~stepped], rtol=0, atol=1e-6)
    torch.testing.assert_close(alpha.exp().sum(-1), before.exp().sum(-1), rtol=1e-5, atol=0)
    between = lambda t: t.gather(-1, pair).diff(dim=-1)[[0, 1, 3]]  # noqa: E731
    torch.testing.assert_close(between(alpha), between(moved))  # one common shift: the step itself stays
    assert (alpha[stepped] != before[stepped]).any()


def test_mix_has_the_value_of_the_active_and_the_gradients_of_the_sum():
    a, b = (torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    p = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    gate = 1 + p - p.detach()
    seed = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    found = mix(a, b.detach(), gate)
    assert torch.equal(found, a)
    explicit = gate * a + (1 - gate) * b.detach()
    torch.testing.assert_close(torch.autograd.grad(found, (a, p), seed), torch.autograd.grad(explicit, (a, p), seed))


# The gradient of a whole supernet's architecture step, three ways.


def architecture_gradient(supernet: SuperNet, x: torch.Tensor, paths: Paths, seed: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad((supernet(x, paths) * seed).sum(), supernet.alpha)[0]


def gated_loss(
    supernet: SuperNet, x: torch.Tensor, paths: Paths, gates: torch.Tensor, seed: torch.Tensor
) -> torch.Tensor:
    """Return <seed, output> with y = g_a o_a(x) + g_b o_b(x) written out on every edge; gates (cells, 14, 2)."""

    def run(cell, edge, operations, state):
        a, b = (operations[CANDIDATES[int(p[cell, edge])]](state.x) for p in (paths.active, paths.inactive))
        return gates[cell, edge, 0] * a + gates[cell, edge, 1] * b

    return (supernet.head(supernet.maps(x, run)[-1].mean((2, 3))) * seed).sum()


def chain(alpha: torch.Tensor, paths: Paths, to_gates: torch.Tensor) -> torch.Tensor:
    """Return the formula: dL/dalpha_i = sum over j in {a, b} of dL/dg_j p_j (delta_ij - p_i), 0 where i was not
    sampled.
    """
    alpha, expected = alpha.detach(), torch.zeros_like(alpha)
    for cell, edge in torch.cartesian_prod(torch.arange(alpha.shape[0]), torch.arange(14)).tolist():
        pair = [int(paths.active[cell, edge]), int(paths.inactive[cell, edge])]
        p = alpha[cell, edge, pair].softmax(0)
        for i in range(2):
            expected[cell, edge, pair[i]] = sum(
                to_gates[cell, edge, j] * p[j] * (float(i == j) - p[i]) for j in range(2)
            )
    return expected


@pytest.fixture
def step(supernet, images, g):
    paths = sample_two_paths(supernet.alpha, supernet.present, g)
    return supernet, images, paths, torch.randn(6, 128, dtype=torch.float64)


def test_gradient_equals_the_formula(step):
    """dL/dg_j = <dL/dy, o_j(x)>, the inactive operation included, on all 42 edges."""
    supernet, x, paths, seed = step
    gates = torch.stack([torch.ones(3, 14), torch.zeros(3, 14)], -1).double().requires_grad_()
    to_gates = torch.autograd.grad(gated_loss(supernet, x, paths, gates, seed), gates)[0]
    found = architecture_gradient(*step)
    torch.testing.assert_close(found, chain(supernet.alpha, paths, to_gates))
    assert (found.count_nonzero(-1) == 2).all()


def test_gradient_equals_that_of_straight_through_gates(step):
    supernet, x, paths, seed = step
    p = supernet.alpha.gather(-1, torch.stack([paths.active, paths.inactive], -1)).softmax(-1)
    gates = torch.tensor([1.0, 0.0], dtype=torch.float64) + p - p.detach()
    loss = gated_loss(supernet, x, paths, gates, seed)
    torch.testing.assert_close((supernet(x, paths) * seed).sum(), loss)
    torch.testing.assert_close(architecture_gradient(*step), torch.autograd.grad(loss, supernet.alpha)[0])


def test_gradient_equals_finite_differences_of_the_gates(step):
    """Central differences of the loss in both gates of each edge of the first cell, through the whole network, then the
    softmax's Jacobian.
    """
    supernet, x, paths, seed = step
    to_gates, eps = torch.zeros(3, 14, 2, dtype=torch.float64), 1e-6
    with torch.no_grad():
        for edge in range(14):
            for j in range(2):
                ends = []
                for sign in (1, -1):
                    gates = torch.tensor([1.0, 0.0], dtype=torch.float64).repeat(3, 14, 1)
                    gates[0, edge, j] += sign * eps
                    ends.append(gated_loss(supernet, x, paths, gates, seed))
                to_gates[0, edge, j] = (ends[0] - ends[1]) / (2 * eps)
    expected = chain(supernet.alpha, paths, to_gates)[0]
    torch.testing.assert_close(architecture_gradient(*step)[0], expected, rtol=1e-5, atol=1e-6)
