"""Memory: search steps beside compact networks', along the same operations."""

from __future__ import annotations

import pytest
import torch

import sswp_lib.learn.footprint as module
from sswp_lib.learn.data import generator
from sswp_lib.learn.footprint import FEW, step_memory
from sswp_lib.presets import load_config
from sswp_lib.space import CANDIDATES, Network, SuperNet, sample_paths


def test_a_search_step_needs_the_memory_of_the_compact_network_whatever_the_number_of_candidates():
    config = load_config("smoke", settings={"data.image_size": 16})
    found = step_memory(config, batch_size=8, draws=2)["bytes"]
    compact = found["compact, 14 edges"]
    assert 0 < found["compact, 8 edges"] < compact
    assert found["weight step"] <= 1.05 * compact
    assert found["architecture step"] <= 1.3 * found["compact of the architecture step"]
    for step in ("weight step", "architecture step"):
        assert found[f"{step}, 7 candidates"] <= 1.1 * found[f"{step}, 3 candidates"]


def test_what_is_set_side_by_side_runs_the_same_operations(monkeypatch):
    """Nine measurements a draw, the mean over the draws; each draw has paths of its own."""
    calls = []
    monkeypatch.setattr(module, "_peak", lambda model, x, paths, device: calls.append((model, x, paths)) or len(calls))
    config = load_config("smoke", settings={"data.image_size": 16})
    found = step_memory(config, batch_size=8, draws=2)
    assert list(found["bytes"].values()) == [i + 9 / 2 for i in range(1, 10)]
    assert found["views"] == 16 and all(x.shape == (16, 3, 16, 16) for _, x, _ in calls)
    names = [[paths and [paths.names(cell, model.candidates) for cell in range(3)] for model, _, paths in half]
             for half in (calls[:9], calls[9:])]  # fmt: skip
    assert names[0][0] != names[1][0] and names[0][1] != names[1][1]
    for half, named in zip((calls[:9], calls[9:]), names, strict=True):
        models, paths = [model for model, _, _ in half], [paths for _, _, paths in half]
        assert [p is not None and p.gates is not None for p in paths] == [i in (1, 6, 8) for i in range(9)]
        assert [p is not None and p.inactive is not None for p in paths] == [i in (1, 6, 8) for i in range(9)]
        for compact, beside in ((2, 0), (3, 1)):
            assert named[compact] == named[beside]
            assert torch.equal(models[compact].present, torch.nn.functional.one_hot(paths[beside].active, 7).bool())
        assert isinstance(models[4], Network) and paths[4] is None
        assert models[4].num_features == models[0].num_features and len(models[4].cells) == 3
        assert models[4].head.out_features == 128 and models[4].cells[0].preprocess1[2].weight is None
        assert [m.candidates for m in (models[0], models[1], *models[5:])] == [CANDIDATES] * 2 + [FEW] * 2 + [
            CANDIDATES
        ] * 2
        assert named[5] == named[6] == named[7] == named[8]
        few = [FEW[k] for k in paths[6].inactive.flatten()]
        assert few == [CANDIDATES[k] for k in paths[8].inactive.flatten()]
        assert torch.equal(paths[6].gates, paths[8].gates) and paths[8].gates.requires_grad
    sizes = {
        len(c): sum(p.numel() for p in SuperNet(4, 3, candidates=c).weight_parameters()) for c in (FEW, CANDIDATES)
    }
    assert found["weights"] == {f"{count} candidates": 4 * size for count, size in sizes.items()}


@pytest.mark.parametrize("seed", [0, 5])
def test_paths_are_drawn_by_the_seed(monkeypatch, seed):
    seen = []
    monkeypatch.setattr(module, "_peak", lambda model, x, paths, device: seen.append(paths) or 1)
    step_memory(load_config("smoke", seed=seed), batch_size=8, draws=2)
    present = torch.ones(3, 14, 7, dtype=torch.bool)
    for draw, paths in enumerate(seen[::9]):
        drawn = sample_paths(torch.zeros(3, 14, 7), present, generator(seed, "memory", draw))
        assert torch.equal(paths.active, drawn.active)


def test_a_peak_is_that_of_one_whole_step(monkeypatch):
    """Momentum lies there before; at rate 0 a weight step changes no weight, and alpha is never changed."""
    steps, seen = [], []
    monkeypatch.setattr(module, "peak_memory", lambda step, device: steps.append(step) or step() or 7)
    supernet, x = SuperNet(4, 3), torch.randn(4, 3, 8, 8)
    before = [p.detach().clone() for p in supernet.parameters()]
    g = torch.Generator().manual_seed(0)
    original = torch.optim.SGD.step
    monkeypatch.setattr(torch.optim.SGD, "step", lambda self, *a: seen.append(len(self.state)) or original(self, *a))
    assert module._peak(supernet, x, module.sample_paths(supernet.alpha, supernet.present, g), "cpu") == 7
    assert len(steps) == 1 and len(seen) == 2 and 0 == seen[0] < seen[1]
    assert any(p.grad is not None for p in supernet.weight_parameters()) and supernet.alpha.grad is None
    supernet.zero_grad(set_to_none=True)
    assert module._peak(supernet, x, module.sample_two_paths(supernet.alpha, supernet.present, g), "cpu") == 7
    assert len(seen) == 2 and all(p.grad is None for p in supernet.parameters())
    assert all(torch.equal(p, q) for p, q in zip(supernet.parameters(), before, strict=True))
