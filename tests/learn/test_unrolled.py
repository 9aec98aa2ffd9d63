"""The second-order gradient of alpha: against the exact mixed derivative, against a plain loop, and what it touches."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from sswp_lib.learn.unrolled import unrolled_gradient
from sswp_lib.space import MixedNet, mixture

SETTINGS = {"xi": 0.3, "momentum": 0.9, "weight_decay": 0.05}


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Toy:
    """A regression on features that alpha (2, 3) mixes; the training loss is quadratic in the weights, so that central
    differences of its gradient are exact.
    """

    def __init__(self):
        self.candidates, self.answers = draw(3, 2, 20, 4, seed=1), draw(2, 20, 5, seed=2)  # of training and validation
        self.weights = {"slope": draw(4, 5, seed=3), "offset": draw(5, seed=4), "unused": draw(2, seed=5)}
        self.alpha = draw(2, 3, seed=6)
        self.buffers = {"slope": draw(4, 5, seed=7), "unused": draw(2, seed=8)}

    def _errors(self, part: int, weights, alpha):
        mixed = torch.einsum("k,knf->nf", alpha.softmax(-1).sum(0), self.candidates[:, part])
        return mixed @ weights["slope"] + weights["offset"] - self.answers[part]

    def training_loss(self, weights, alpha):
        return self._errors(0, weights, alpha).square().mean()

    def validation_loss(self, weights, alpha):
        return self._errors(1, weights, alpha).cosh().log().mean() + 0.1 * alpha.sin().sum()

    def unrolled(self, **settings):
        return unrolled_gradient(self.training_loss, self.validation_loss, self.weights, self.alpha, **settings)


def exact(toy: Toy, xi: float, momentum: float, weight_decay: float, buffers: dict) -> tuple:
    """Return the validation loss after a step of the weights, differentiated through that step."""
    alpha = toy.alpha.clone().requires_grad_()
    weights = {name: w.clone().requires_grad_() for name, w in toy.weights.items()}
    loss = toy.training_loss(weights, alpha)
    gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True, materialize_grads=True)
    ahead = {
        name: w - xi * (momentum * buffers.get(name, torch.zeros_like(w)) + g + weight_decay * w)
        for (name, w), g in zip(weights.items(), gradients, strict=True)
    }
    loss = toy.validation_loss(ahead, alpha)
    return loss.detach(), torch.autograd.grad(loss, alpha)[0]


@pytest.mark.parametrize("settings", [SETTINGS, SETTINGS | {"momentum": 0.0}, {**SETTINGS, "weight_decay": 0.0}])
@pytest.mark.parametrize("started", [True, False])
def test_gradient_is_the_exact_one(settings, started):
    """That of a second backward pass through the step, momentum and weight decay included."""
    toy = Toy()
    buffers = toy.buffers if started else {}
    loss, gradient = toy.unrolled(**settings, buffers=buffers)
    expected_loss, expected = exact(toy, **settings, buffers=buffers)
    torch.testing.assert_close(loss, expected_loss)
    torch.testing.assert_close(gradient, expected, rtol=1e-8, atol=1e-12)
    first = toy.unrolled(xi=0.0)[1]
    assert float((gradient - first).norm() / first.norm()) > 0.01  # the step ahead counts for something


def test_without_a_step_ahead_it_is_first_order():
    """To the bit, and in one pass: the training loss is not asked."""
    toy, alpha = Toy(), Toy().alpha.requires_grad_()
    loss = toy.validation_loss(toy.weights, alpha)
    toy.training_loss = None
    found, gradient = toy.unrolled(xi=0.0, momentum=0.9, weight_decay=0.1, buffers=toy.buffers)
    assert torch.equal(found, loss.detach()) and torch.equal(gradient, torch.autograd.grad(loss, alpha)[0])


def test_a_validation_loss_without_weights_has_no_second_part():
    """The direction of the difference has length 0 then, and nothing is divided by it."""
    toy = Toy()
    toy.validation_loss = lambda weights, alpha: alpha.square().sum()
    torch.testing.assert_close(toy.unrolled(**SETTINGS)[1], 2 * toy.alpha)


@pytest.fixture(scope="module")
def net() -> MixedNet:
    torch.manual_seed(0)
    few = ("none", "max_pool_3x3", "skip_connect", "sep_conv_3x3")
    net = MixedNet(2, 3, torch.Generator().manual_seed(0), candidates=few).double()
    net.head = torch.nn.Linear(net.num_features, 5).double()
    with torch.no_grad():
        net.alpha.normal_(generator=torch.Generator().manual_seed(1))
    return net


BATCHES = [(draw(4, 3, 4, 4, seed=9 + i), torch.tensor([0, 1, 2, 3]).roll(i)) for i in range(2)]


def losses(net: MixedNet, seen: list | None = None) -> list:
    """Return training and validation loss of a network as functions of its weights and of alpha; `seen` hears of each
    call.
    """

    def loss_on(part: int):
        def loss(weights, alpha):
            if seen is not None:
                seen.append((part, {w.requires_grad for w in weights.values()}, alpha.requires_grad))
            x, labels = BATCHES[part]
            scores = torch.func.functional_call(net, weights, (x.to(alpha.dtype), mixture(alpha)))
            return F.cross_entropy(scores, labels)

        return loss

    return [loss_on(part) for part in range(2)]


def named_weights(net: MixedNet) -> dict:
    return {name: p for name, p in net.named_parameters() if name != "alpha"}


def plain_loop(net: MixedNet, buffers: dict, xi: float, momentum: float, weight_decay: float) -> torch.Tensor:
    """Return the gradient as DARTS's code goes about it: copies of the network whose weights are moved in place."""

    def gradients(net, part, wanted):
        x, labels = BATCHES[part]
        return torch.autograd.grad(F.cross_entropy(net(x, mixture(net.alpha)), labels), wanted)

    ahead, own = copy.deepcopy(net), list(net.weight_parameters())
    step = gradients(net, 0, own)
    with torch.no_grad():
        for (name, p), w, g in zip(named_weights(ahead).items(), own, step, strict=True):
            p.sub_(xi * (momentum * buffers[name] + g + weight_decay * w))
    of_alpha, *v = gradients(ahead, 1, [ahead.alpha, *ahead.weight_parameters()])
    eps = 0.01 / torch.cat([g.flatten() for g in v]).norm()
    sides = []
    for sign in (1, -1):
        beside = copy.deepcopy(net)
        with torch.no_grad():
            for p, g in zip(beside.weight_parameters(), v, strict=True):
                p.add_(sign * eps * g)
        sides.append(gradients(beside, 0, [beside.alpha])[0])
    return of_alpha - xi * (sides[0] - sides[1]) / (2 * eps)


def test_gradient_of_a_network_is_that_of_a_plain_loop(net):
    """A network whose training loss is not quadratic: the shift's length, one norm over all weights, shows too."""
    buffers = {name: 0.1 * draw(*p.shape, seed=i) for i, (name, p) in enumerate(named_weights(net).items())}
    found = unrolled_gradient(*losses(net), named_weights(net), net.alpha, **SETTINGS, buffers=buffers)[1]
    expected = plain_loop(net, buffers, **SETTINGS)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-10)


def test_the_step_ahead_is_the_optimisers(net):
    """After two steps of torch's SGD with momentum and weight decay, the third is the one that is looked at."""
    own, looked_at = copy.deepcopy(net), []
    optimizer = torch.optim.SGD(own.weight_parameters(), lr=0.3, momentum=0.9, weight_decay=0.05)
    training_loss, _ = losses(own)

    def step():
        optimizer.zero_grad()
        training_loss(named_weights(own), own.alpha.detach()).backward()
        optimizer.step()

    step(), step()
    buffers = {name: optimizer.state[p]["momentum_buffer"] for name, p in named_weights(own).items()}
    watched = lambda weights, alpha: looked_at.append(weights) or (alpha.sum() + sum(w.sum() for w in weights.values()))  # noqa: E731
    unrolled_gradient(training_loss, watched, named_weights(own), own.alpha, **SETTINGS, buffers=buffers)
    step()
    for name, p in named_weights(own).items():
        torch.testing.assert_close(looked_at[0][name].detach(), p.detach(), rtol=1e-9, atol=1e-12)


def test_nothing_that_is_given_is_changed(net):
    """Weights, alpha and momentum bit for bit, in single precision too; no gradient is left behind."""
    net = copy.deepcopy(net).float()
    buffers = {name: torch.ones_like(p) for name, p in named_weights(net).items()}
    before, seen = {name: t.clone() for name, t in net.state_dict().items()}, []
    gradient = unrolled_gradient(*losses(net, seen), named_weights(net), net.alpha, **SETTINGS, buffers=buffers)[1]
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())
    assert all(torch.equal(b, torch.ones_like(b)) for b in buffers.values())
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    assert gradient.isfinite().all() and not gradient.requires_grad
    # four passes: training, validation, training twice; weights need no gradient in the last two, nor alpha at first
    assert seen == [(0, {True}, False), (1, {True}, True), (0, {False}, True), (0, {False}, True)]
