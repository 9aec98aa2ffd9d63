"""Path binarisation: which operation runs on which edge in this step.

Paper: section 3.2 (one operation an edge is sampled and active; dropout of non-parameterised operations in
the lower-level steps), after ProxylessNAS for the two-path gradient. Paths are values: a sampler makes them from
alpha and an explicit generator on the CPU, the supernet's `forward` takes them, nothing remembers them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sswp_lib.config import InputError
from sswp_lib.space.genotype import CANDIDATES, NON_PARAMETERISED, POOLS, SKIPS


@dataclass(frozen=True)
class Paths:
    """The operations of one step, for every edge of the network; -1 stands for none.

    Attributes:
        active: (cells, 14) the candidate that makes the edge's output.
        inactive: (cells, 14) the second candidate of an architecture step; only its gradient to alpha counts. Of
            `sample_gates` (cells, 14, m - 1), all that are evaluated beside the active one.
        gates: (cells, 14) the active candidate's gate: 1 in value, p_active in gradient. None in a weight step. Of
            `sample_gates` (cells, 14, m - 1), the inactive ones': 0 in value, p in gradient.
    """

    active: Tensor
    inactive: Tensor | None = None
    gates: Tensor | None = None

    def names(self, cell: int, candidates: tuple[str, ...] = CANDIDATES) -> list[str]:
        """Return the active operation of each of a cell's 14 edges, "-" where the edge is gone."""
        return ["-" if k < 0 else candidates[k] for k in self.active[cell].tolist()]


def sample_paths(
    alpha: Tensor, present: Tensor, generator: torch.Generator, uniform: bool = False,
    skip_dropout: float = 0.0, pool_dropout: float = 0.0, candidates: tuple[str, ...] = CANDIDATES,
) -> Paths:  # fmt: skip
    """Draw the paths of a weight step: on each edge one operation from softmax(alpha).

    Where the drawn operation is a skip, with probability `skip_dropout` (paper: 0.2) it is drawn again among the
    parameterised operations in proportion to their probabilities; pools likewise at `pool_dropout`. alpha itself
    is not touched.

    Args:
        alpha: (cells, 14, M). present: (cells, 14, M) bool, the candidates that pruning has left.
        generator: a CPU generator. uniform: ignore alpha (warm-up).

    Raises:
        InputError: dropout where no candidate is parameterised.
    """
    logits, present = alpha.detach().cpu(), present.cpu()
    if uniform:
        logits = torch.zeros_like(logits)
    drawn = _draw(logits, 1, generator).squeeze(-1)  # (cells, 14)
    rate = torch.tensor(
        [skip_dropout if name in SKIPS else pool_dropout if name in POOLS else 0.0 for name in candidates]
    )
    if skip_dropout or pool_dropout:
        learnable = torch.tensor([name not in NON_PARAMETERISED for name in candidates])
        if not any(name not in NON_PARAMETERISED for name in candidates):
            raise InputError(
                f"none of the candidates {', '.join(candidates)} has parameters; expected one that has, for dropout "
                "to draw, or skip_dropout=0 and pool_dropout=0"
            )
        again = _draw(logits.masked_fill(~learnable, -torch.inf), 1, generator).squeeze(-1)
        dropped = torch.rand(drawn.shape, generator=generator) < rate[drawn]
        drawn = torch.where(dropped, again, drawn)
    return Paths(torch.where(searching_edges(present), drawn, kept_operations(present)))


def sample_two_paths(
    alpha: Tensor, present: Tensor, generator: torch.Generator, on_host: Tensor | None = None
) -> Paths:
    """Draw the paths of an architecture step: two different operations an edge, one of them active.

    a, b ~ softmax(alpha) without replacement; the active one ~ softmax(alpha_a, alpha_b). The gate carries the
    gradient, so that with the edge's `mix`

        dL/dalpha_i = sum over j in {a, b} of dL/dg_j * p_j * (delta_ij - p_i),   dL/dg_j = <dL/dy, o_j(x)>

    Because p_a + p_b = 1, the two gates always add up to 1 and one number an edge says both: g_active.
    Pruned edges run what they kept and have no gate to learn.

    Args:
        alpha: (cells, 14, M), what the gates' gradient goes to. present: (cells, 14, M) bool.
        generator: a CPU generator. on_host: alpha's values on the CPU, where they lie there already; fetching them
            would wait for an accelerator.
    """
    logits, present = (alpha.detach().cpu() if on_host is None else on_host), present.cpu()
    searching = searching_edges(present)
    chosen = _draw_active_first(logits, 2, generator)
    active, inactive = chosen.unbind(-1)
    chosen = chosen.to(alpha.device)
    p_active = torch.softmax(alpha.gather(-1, chosen), dim=-1)[..., 0]  # (cells, 14), differentiable
    gates = 1 + (p_active - p_active.detach())  # straight through; the brackets make its value exactly 1
    none = torch.full_like(active, -1)
    return Paths(
        torch.where(searching, active, kept_operations(present)), torch.where(searching, inactive, none), gates
    )


def sample_gates(
    alpha: Tensor, present: Tensor, generator: torch.Generator, evaluated: int, on_host: Tensor | None = None
) -> Paths:
    """Draw the paths of an architecture step that evaluates more than two candidates an edge, one of them active.

    As in `sample_two_paths`, of which this is the same gradient over a larger set S; where S is all candidates it is
    the one that ProxylessNAS (section 3.2) begins from, before it samples two to save memory:

        dL/dalpha_i = sum over j in S of dL/dg_j * p_j * (delta_ij - p_i),   p = softmax over S

    An entry is sampled more often and beside the mean of more others, so an update says more of it. What is evaluated
    is held until the gradient comes: a map for each candidate, not all that it was computed by.

    Args:
        alpha, present, generator, on_host: as there. evaluated: m, 2 to M.

    Raises:
        InputError: fewer than two, or more than there are candidates.
    """
    count = alpha.shape[-1]
    if not 2 <= evaluated <= count:
        raise InputError(f"evaluated is {evaluated}; expected 2 to {count}, the number of candidates")
    logits, present = (alpha.detach().cpu() if on_host is None else on_host), present.cpu()
    drawn = _draw_active_first(logits, evaluated, generator)  # (cells, 14, m)
    p = torch.softmax(alpha.gather(-1, drawn.to(alpha.device)), dim=-1)[..., 1:]  # (cells, 14, m - 1), differentiable
    searching = searching_edges(present)
    none = torch.full_like(drawn[..., 1:], -1)
    return Paths(
        torch.where(searching, drawn[..., 0], kept_operations(present)),
        torch.where(searching[..., None], drawn[..., 1:], none),
        p - p.detach(),
    )


def sampled_entries(paths: Paths) -> tuple[Tensor, Tensor]:
    """Return what an architecture step sampled: (cells, 14, m) candidates, -1 set to 0, and (cells, 14) bool, the edges
    that have a choice.
    """
    inactive = paths.inactive if paths.inactive.dim() == 3 else paths.inactive[..., None]
    return torch.cat([paths.active[..., None], inactive], -1).clamp(min=0), inactive[..., 0] >= 0


def along(paths: Paths, candidates: tuple[str, ...]) -> Callable[..., Tensor | None]:
    """Return what runs on an edge, as networks call it: (row, edge, its operations by name, through) -> the edge's
    output, or None where the edge is gone. `through(operation)` applies an operation to the edge's input; None is the
    output of an operation that adds nothing.

    Inactive operations are only evaluated, and the gates get their gradients by `mix` and `mix_many`, to which nothing
    is a map of zeros.
    """
    active = paths.active.tolist()
    inactive = paths.inactive.tolist() if paths.inactive is not None else None
    gates = [row.unbind() for row in paths.gates.unbind()] if paths.gates is not None else None

    def run(
        row: int, edge: int, operations: nn.ModuleDict, through: Callable[[nn.Module], Tensor | None]
    ) -> Tensor | None:
        if active[row][edge] < 0:
            return None
        output = through(operations[candidates[active[row][edge]]])
        beside = -1 if inactive is None else inactive[row][edge]
        many = isinstance(beside, list)
        if (beside[0] if many else beside) < 0:
            return output
        with torch.no_grad():
            others = [through(operations[candidates[k]]) for k in (beside if many else [beside])]
        known = next(map_ for map_ in (output, *others) if map_ is not None)
        output, *others = (torch.zeros_like(known) if map_ is None else map_ for map_ in (output, *others))
        return mix_many(output, others, gates[row][edge]) if many else mix(output, others[0], gates[row][edge])

    return run


def only(
    row: int, edge: int, operations: nn.ModuleDict, through: Callable[[nn.Module], Tensor | None]
) -> Tensor | None:
    """Run the one operation of an edge: what `along` returns of paths, for a network in which there is no choice."""
    (operation,) = operations.values()
    return through(operation)


def best_paths(alpha: Tensor, present: Tensor) -> Paths:
    """Return the paths that run each edge's strongest remaining operation: the network as it stands."""
    alpha, present = alpha.detach().cpu(), present.cpu()
    best = alpha.masked_fill(~present, -torch.inf).argmax(dim=-1)
    return Paths(torch.where(present.any(-1), best, torch.full_like(best, -1)))


@torch.no_grad()
def restore_unsampled(alpha: Tensor, before: Tensor, paths: Paths) -> None:
    """Shift the sampled entries of each edge by one amount, so that no unsampled probability has changed.

    Called after the optimiser's step on alpha; `before` is alpha before it. The shift makes the sum of the sampled
    exponentials what it was (ProxylessNAS, section 3.2.1). Changes alpha in place.
    """
    chosen, searching = (t.to(alpha.device) for t in sampled_entries(paths))
    shift = before.gather(-1, chosen).logsumexp(-1) - alpha.gather(-1, chosen).logsumexp(-1)  # (cells, 14)
    shift = torch.where(searching, shift, torch.zeros_like(shift)).unsqueeze(-1).expand(chosen.shape)
    alpha.scatter_add_(-1, chosen, shift)


def searching_edges(present: Tensor) -> Tensor:
    """Return (cells, 14) bool: edges that still have a choice."""
    return present.sum(-1) > 1


def kept_operations(present: Tensor) -> Tensor:
    """Return (cells, 14): the one operation of a pruned edge, -1 where none is left."""
    return torch.where(
        present.any(-1), present.int().argmax(-1), torch.full(present.shape[:-1], -1, device=present.device)
    )


def _draw(logits: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw `count` different entries of each row from its softmax, without replacement: (..., M) -> (..., count).

    The largest of logits with independent Gumbel noise are distributed so (Kool et al. 2019). Nothing is exponentiated,
    so no lead of one entry over the others is too large; and rows of other logits share the noise of one generator.
    """
    uniform = torch.rand(logits.shape, dtype=torch.float64, generator=generator)
    return (logits - (-uniform.log()).log()).topk(count, dim=-1).indices


def _draw_active_first(logits: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw what an architecture step samples: `count` entries of each row as `_draw` does, then from the softmax of
    these the one that is active; it comes first: (..., M) -> (..., count).
    """
    drawn = _draw(logits, count, generator)
    first = _draw(logits.gather(-1, drawn), 1, generator)
    return drawn.gather(-1, (first + torch.arange(count)) % count)


class _TwoPaths(torch.autograd.Function):
    """y = g_a o_a(x) + (1 - g_a) o_b(x) at g_a = 1: the value of o_a, the gradient of the sum.

    Only o_a - o_b is kept for the backward pass: one map an edge, whatever the number of candidates.
    """

    @staticmethod
    def forward(ctx, active: Tensor, inactive: Tensor, gate: Tensor) -> Tensor:
        ctx.save_for_backward(active - inactive)
        return active.view_as(active)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        (difference,) = ctx.saved_tensors
        return grad, None, (grad * difference).sum()


def mix(active: Tensor, inactive: Tensor, gate: Tensor) -> Tensor:
    """Return the edge's output: exactly `active`, with the gate's gradient <dL/dy, active - inactive>.

    The same gradient as y = g_a o_a(x) + g_b o_b(x) with straight-through gates (method: see `sample_two_paths`),
    without its two products and with one stored map in place of two.
    """
    return _TwoPaths.apply(active, inactive, gate)


class _ManyPaths(torch.autograd.Function):
    """y = o_a(x) + sum over j of g_j (o_j(x) - o_a(x)) at g = 0."""

    @staticmethod
    def forward(ctx, active: Tensor, gates: Tensor, *others: Tensor) -> Tensor:
        ctx.save_for_backward(active, *others)
        return active.view_as(active)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        products = torch.stack([(grad * output).sum() for output in ctx.saved_tensors])
        return grad, products[1:] - products[0], *[None] * (len(products) - 1)


def mix_many(active: Tensor, others: list[Tensor], gates: Tensor) -> Tensor:
    """Return the edge's output: exactly `active`, with the gates' gradients <dL/dy, o_j - active> for each of `others`.

    Args:
        gates: (len(others),), of `sample_gates`.
    """
    return _ManyPaths.apply(active, gates, *others)
