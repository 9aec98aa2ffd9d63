"""The second-order gradient of the relaxation: alpha is judged one step of the weights ahead.

DARTS (Liu et al. 2019, equations (6) to (8)), in the form of its published code, which adds the momentum and the weight
decay of the weights' optimiser to the step ahead. With xi that optimiser's learning rate, mu its momentum, b its buffer
and d its weight decay,

    w' = w - xi (mu b + grad_w L_train(w, a) + d w)                                       the step ahead
    g  = grad_a L_val(w', a) - xi [grad_a L_train(w + eps v, a) - grad_a L_train(w - eps v, a)] / (2 eps)
    v  = grad_w' L_val(w', a),   eps = 0.01 / ||v||_2, one norm over all weights

Deliberate deviations: the weights are never shifted and shifted back. Each loss is a function of weights that are
handed to it, so that they stay what they were, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Weights = dict[str, Tensor]
Loss = Callable[[Weights, Tensor], Tensor]
"""(weights by name, alpha) -> a scalar. The same images and views at every call."""

SHIFT = 0.01  # length of eps v; DARTS


def unrolled_gradient(
    training_loss: Loss, validation_loss: Loss, weights: Weights, alpha: Tensor, xi: float, momentum: float = 0.0,
    weight_decay: float = 0.0, buffers: Weights | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return the validation loss one step ahead and its gradient to alpha; nothing that is given is changed.

    Four passes forward and backward. Losses need be differentiable once only.

    Args:
        training_loss, validation_loss: see `Loss`.
        weights: of the network as it is. alpha: its architecture parameters, of any shape.
        xi: learning rate of the step ahead; 0 is first order: the gradient at the weights as they are, in one pass.
        momentum, weight_decay: of the weights' optimiser.
        buffers: its momentum buffers by name; a weight without one has taken no step yet.

    Returns:
        (scalar, a tensor like alpha), both detached.
    """
    weights, alpha = {name: w.detach() for name, w in weights.items()}, alpha.detach().requires_grad_()
    if xi == 0:
        loss = validation_loss(weights, alpha)
        return loss.detach(), torch.autograd.grad(loss, alpha)[0]
    ahead = _step_ahead(training_loss, weights, alpha.detach(), xi, momentum, weight_decay, buffers or {})
    loss = validation_loss(ahead, alpha)
    gradient, *v = torch.autograd.grad(loss, [alpha, *ahead.values()], materialize_grads=True)
    eps = SHIFT / torch.stack(torch._foreach_norm(v)).norm().clamp(min=torch.finfo(v[0].dtype).tiny)
    plus, minus = (_alpha_gradient(training_loss, _shifted(weights, v, eps * sign), alpha) for sign in (1, -1))
    return loss.detach(), gradient - xi * (plus - minus) / (2 * eps)


def _step_ahead(
    loss: Loss, weights: Weights, alpha: Tensor, xi: float, momentum: float, weight_decay: float, buffers: Weights
) -> Weights:
    """Return w' as new leaves."""
    leaves, before = {name: w.detach().requires_grad_() for name, w in weights.items()}, list(weights.values())
    steps = torch.autograd.grad(loss(leaves, alpha), list(leaves.values()), materialize_grads=True)
    steps = torch._foreach_add(steps, before, alpha=weight_decay)
    held = [buffers.get(name) for name in weights]
    steps = [step if b is None else step + momentum * b for step, b in zip(steps, held, strict=True)]
    ahead = torch._foreach_add(before, steps, alpha=-xi)
    return {name: w.requires_grad_() for name, w in zip(weights, ahead, strict=True)}


def _shifted(weights: Weights, direction: list[Tensor], by: Tensor) -> Weights:
    """Return w + by * direction, out of reach of gradients."""
    values = torch._foreach_add(list(weights.values()), torch._foreach_mul(direction, by))
    return dict(zip(weights, values, strict=True))


def _alpha_gradient(loss: Loss, weights: Weights, alpha: Tensor) -> Tensor:
    return torch.autograd.grad(loss(weights, alpha), alpha)[0]
