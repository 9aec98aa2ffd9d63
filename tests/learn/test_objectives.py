"""NT-Xent against the loops of SimCLR's Algorithm 1; three objectives behind one interface."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sswp_lib.config import InputError
from sswp_lib.learn import nt_xent
from sswp_lib.learn.objectives import BYOL, build


def algorithm_1(z: torch.Tensor, temperature: float) -> float:
    """SimCLR's Algorithm 1, loop by loop, on rows i and i + N."""
    count = len(z)
    sim = [[float(z[i] @ z[j] / (z[i].norm() * z[j].norm())) for j in range(count)] for i in range(count)]

    def loss(i: int, j: int) -> float:
        below = sum(math.exp(sim[i][k] / temperature) for k in range(count) if k != i)
        return -math.log(math.exp(sim[i][j] / temperature) / below)

    half = count // 2
    return sum(loss(k, k + half) + loss(k + half, k) for k in range(half)) / count


@pytest.mark.parametrize("temperature", [0.07, 0.5, 1.0])
@pytest.mark.parametrize("half", [1, 2, 7])
def test_nt_xent_equals_algorithm_1(half, temperature):
    z = torch.randn(2 * half, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(half))
    assert float(nt_xent(z, temperature)) == pytest.approx(algorithm_1(z, temperature), rel=1e-10, abs=1e-12)
    assert float(nt_xent(3 * z, temperature)) == pytest.approx(float(nt_xent(z, temperature)))  # cosines know no length


@pytest.mark.parametrize("half", [1, 4, 32])
def test_nt_xent_of_equal_rows(half):
    assert float(nt_xent(torch.ones(2 * half, 8))) == pytest.approx(math.log(2 * half - 1), abs=1e-5)


def test_nt_xent_is_computed_in_float32_under_autocast():
    z = torch.randn(16, 128)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(nt_xent(z), nt_xent(z))
        inside = nt_xent(z)
        halved = nt_xent(z.bfloat16())
    assert inside.dtype == halved.dtype == torch.float32
    assert torch.equal(inside, nt_xent(z))
    assert torch.equal(halved, nt_xent(z.bfloat16().float()))


@pytest.mark.parametrize("shape", [(3, 4), (0, 4), (4,), (2, 2, 2)])
def test_nt_xent_refuses_other_shapes(shape):
    with pytest.raises(InputError, match="expected \\(2N, D\\)"):
        nt_xent(torch.zeros(shape))


class Tiny(nn.Module):
    """A model with the interface of a network: features, then the objective's head."""

    def __init__(self, objective, classes: int = 3):
        super().__init__()
        self.body, self.head = nn.Linear(12, 6), objective.head(6, classes)
        self.seen: list[tuple] = []

    def forward(self, x, *extra):
        self.seen.append((len(x), extra))
        return self.head(self.body(x.flatten(1)).relu())


def built(name: str, config) -> tuple:
    torch.manual_seed(0)
    objective = build(name, config, 0.1)
    model = Tiny(objective)
    objective.attach(model)
    return objective, model


@pytest.mark.parametrize("name", ["simclr", "supervised", "byol"])
def test_one_interface(config, name):
    """A batch and a model in, a scalar with gradients and an accuracy in 0-1 out; all views in one call, paths passed
    on.
    """
    objective, model = built(name, config)
    views = [torch.rand(4, 3, 2, 2) for _ in range(objective.num_views)]
    labels = torch.tensor([0, 1, 2, 1]) if objective.needs_labels else None
    loss, metrics = objective(model, views, labels, "paths")
    assert objective.num_views == (1 if name == "supervised" else 2)
    assert model.seen == [(4 * objective.num_views, ("paths",))]
    assert loss.shape == () and 0 <= float(metrics["accuracy"]) <= 1
    loss.backward()
    assert all(
        p.grad.abs().sum() > 0
        for p in (model.body.weight, model.head[-1].weight if name != "supervised" else model.head.weight)
    )


def test_simclr_is_nt_xent_of_both_views(config):
    objective, model = built("simclr", config)
    views = [torch.rand(4, 3, 2, 2), torch.rand(4, 3, 2, 2)]
    loss, _ = objective(model, views, None)
    torch.testing.assert_close(loss, nt_xent(model(torch.cat(views)), 0.1))
    assert float(objective(model, [views[0], views[0]], None)[1]["accuracy"]) == 1
    assert [type(layer).__name__ for layer in model.head] == ["Linear", "ReLU", "Linear"]
    assert model.head[2].out_features == config.model.projection_dim


def test_supervised_is_cross_entropy(config):
    objective, model = built("supervised", config)
    x, labels = torch.rand(5, 3, 2, 2), torch.tensor([0, 1, 2, 0, 1])
    loss, metrics = objective(model, [x], labels)
    scores = model(x)
    torch.testing.assert_close(loss, F.cross_entropy(scores, labels))
    assert float(metrics["accuracy"]) == pytest.approx(float((scores.argmax(1) == labels).float().mean()))


def test_byols_target_moves_by_its_moving_average_and_gets_no_gradient(config):
    objective, model = built("byol", config)
    assert all(torch.equal(p, q) for p, q in zip(objective.target.parameters(), model.parameters(), strict=True))
    before = copy.deepcopy(objective.target.state_dict())
    loss, _ = objective(model, [torch.rand(4, 3, 2, 2), torch.rand(4, 3, 2, 2)], None)
    loss.backward()
    assert all(p.grad is None and not p.requires_grad for p in objective.target.parameters())
    assert all(p.grad.abs().sum() > 0 for p in model.parameters())
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p))
    assert all(torch.equal(t, before[name]) for name, t in objective.target.state_dict().items())
    objective.follow(model)
    for name, p in model.state_dict().items():
        expected = config.search.ema * before[name] + (1 - config.search.ema) * p
        torch.testing.assert_close(objective.target.state_dict()[name], expected)


def test_byols_loss(config):
    """2 - 2 cos between each view's prediction and the target's projection of the other view, over both directions."""
    objective, model = built("byol", config)
    with torch.no_grad():
        model.body.weight.mul_(-0.5)  # the target is no longer the model
    one, two = torch.rand(4, 3, 2, 2), torch.rand(4, 3, 2, 2)
    loss, _ = objective(model, [one, two], None)
    predicted, wanted = objective.predictor(model(torch.cat([one, two]))), objective.target(torch.cat([two, one]))
    expected = (2 - 2 * F.cosine_similarity(predicted, wanted)).mean()
    torch.testing.assert_close(loss, expected)
    assert isinstance(objective, BYOL)
