"""Has alpha learnt? Counts and walks of a search, and what both come to where signs are drawn by lot."""

from __future__ import annotations

import pytest
import torch

from sswp_lib.learn import Search
from sswp_lib.learn.evidence import Evidence, lead_by_chance
from sswp_lib.space import Paths, restore_unsampled, sample_two_paths

CELLS, EDGES, M = 2, 14, 7


def walked(steps: int, signal: float, seed: int = 0) -> tuple[Evidence, torch.Tensor]:
    """Return alpha after steps of Adam's length along noise, plus `signal` times a direction of each entry's own."""
    g = torch.Generator().manual_seed(seed)
    alpha, present = torch.zeros(CELLS, EDGES, M), torch.ones(CELLS, EDGES, M, dtype=torch.bool)
    direction, evidence = torch.randn(alpha.shape, generator=g), Evidence(alpha.shape)
    for _ in range(steps):
        paths = sample_two_paths(alpha, present, g, alpha)
        pair = torch.stack([paths.active, paths.inactive], -1)
        way = direction.gather(-1, pair)
        push = torch.randn(CELLS, EDGES, generator=g) + signal * (way[..., 0] - way[..., 1])
        before = alpha.clone()
        alpha.scatter_add_(-1, pair, 0.003 * torch.stack([push, -push], -1))
        restore_unsampled(alpha, before, paths)
        evidence.follow(before, alpha, paths)
    return evidence, alpha


def test_by_lot_drift_and_margin_are_one():
    found = [evidence.describe(alpha) for evidence, alpha in (walked(300, 0.0, seed) for seed in range(6))]
    for name in ("drift", "margin"):
        values = torch.tensor([found[seed][name] for seed in range(6)])
        assert values.shape == (6, CELLS) and abs(float(values.mean()) - 1) < 0.08, name


def test_drift_rises_with_the_updates_of_a_signal():
    short, long = (evidence.describe(alpha) for evidence, alpha in (walked(150, 0.2), walked(600, 0.2)))
    assert min(short["drift"]) > 1.2 and 2 * max(short["drift"]) < min(long["drift"]) and min(long["margin"]) > 1.5


def test_updates_and_walks_by_hand():
    evidence, alpha = Evidence((1, 2, 3)), torch.zeros(1, 2, 3)
    moved = torch.tensor([[[0.3, -0.4, 0.0], [0.0, 0.0, 0.0]]])
    paths = Paths(torch.tensor([[1, 2]]), torch.tensor([[0, -1]]), torch.ones(1, 2))  # the second edge is fixed
    evidence.follow(alpha, moved, paths)
    evidence.follow(moved, 2 * moved, paths)
    found = evidence.describe(2 * moved)
    assert found["updates"] == [[[2, 2, 0], [0, 0, 0]]]
    assert found["walk"] == [[pytest.approx([0.3 * 2**0.5, 0.4 * 2**0.5, 0], abs=1e-5), [0, 0, 0]]]
    assert found["drift"] == [pytest.approx(2.0)]  # both moved entries are sqrt(2) walks from 0
    chance = ((2 * (0.09 + 0.16) / 3) ** 0.5 + 0) / 2 * lead_by_chance(3)
    assert found["margin"] == [pytest.approx((0.6 + 0) / 2 / chance, rel=1e-4)]


def test_a_cell_without_an_update_says_nothing():
    found = Evidence((1, 14, 7)).describe(torch.zeros(1, 14, 7))
    assert found["drift"] == [None] and found["margin"] == [None]


@pytest.mark.parametrize("candidates", [2, 3, 7])
def test_lead_by_chance(candidates):
    drawn = torch.randn(200_000, candidates, generator=torch.Generator().manual_seed(0))
    drawn = (drawn - drawn.mean(1, keepdim=True)) * (candidates / (candidates - 1)) ** 0.5
    best = drawn.topk(2, dim=1).values
    assert lead_by_chance(candidates) == pytest.approx(float((best[:, 0] - best[:, 1]).mean()), rel=0.01)


def test_a_search_notes_every_update_and_alpha_at_pruning(config, data):
    search, steps, at_pruning = Search(config, data), [], {}
    original = search.alpha_step
    search.alpha_step = lambda count: (steps.append(search.supernet.num_searching), original(count))
    prune = search.prune
    search.prune = lambda cell: (at_pruning.update({cell: search.supernet.alpha[cell].detach().clone()}), prune(cell))
    for _ in search.advance():
        pass
    found = search.finish()[0]["evidence"]
    updates, alpha = torch.tensor(found["updates"]), torch.tensor(found["alpha"])
    assert int(updates.sum()) == sum(steps) * 14 * 2  # two entries of each edge that still searches
    assert (torch.tensor(found["walk"]) > 0).logical_and(updates == 0).sum() == 0
    assert len(at_pruning) == config.model.num_cells
    for cell, values in at_pruning.items():
        torch.testing.assert_close(alpha[cell], values, atol=2e-5, rtol=0)
