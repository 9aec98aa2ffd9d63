"""The benchmark's reference computes what the library computes, or comparing their speed would mean nothing."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from reference import ReferenceSteps
from step import CompactSteps, LibrarySteps, agreement, table, with_ratio


@pytest.mark.parametrize("num_cells", [2, 3])
def test_reference_computes_the_same(num_cells):
    output, gradient = agreement(4, num_cells, num_views=6, image_size=16)
    assert output < 1e-4
    assert gradient < 1e-3


@pytest.mark.parametrize("steps", [LibrarySteps, ReferenceSteps])
def test_steps_change_what_they_should(steps):
    torch.manual_seed(0)
    side = steps(2, 2, torch.randn(8, 3, 16, 16))
    alphas = getattr(side, "alphas", None) or [side.net.alpha]
    weights_before, alphas_before = [w.detach().clone() for w in side.weights], [a.detach().clone() for a in alphas]
    side.weight_step()
    assert any(not torch.equal(w, old) for w, old in zip(side.weights, weights_before, strict=True))
    assert all(torch.equal(a, old) for a, old in zip(alphas, alphas_before, strict=True))
    weights_before = [w.detach().clone() for w in side.weights]
    side.alpha_step()
    assert all(torch.equal(w, old) for w, old in zip(side.weights, weights_before, strict=True))
    assert any(not torch.equal(a, old) for a, old in zip(alphas, alphas_before, strict=True))


def test_compact_network_learns_the_same_task():
    torch.manual_seed(0)
    side = CompactSteps(2, 3, torch.randn(8, 3, 16, 16))
    losses = [side.weight_step() for _ in range(8)]
    assert min(losses[1:]) < losses[0]


def test_ratio_above_one_means_the_library_does_better():
    time, rate = (
        {"what": "a", "unit": "s", "library": 1.0, "reference": 3.0},
        {"what": "b", "unit": "views/s", "library": 300.0, "reference": 100.0},
    )
    assert with_ratio(time)["ratio"] == pytest.approx(3.0)
    assert with_ratio(rate)["ratio"] == pytest.approx(3.0)
    lines = table([with_ratio(time), with_ratio(rate)]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[0].endswith("ratio")
