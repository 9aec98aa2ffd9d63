"""Has alpha learnt? The way that each entry went in a search, set beside a random walk of the same steps.

Adam makes an update of alpha about as long as `alpha_lr` whether its gradient is signal or noise, so alpha leaves 0 in
any case. Were the updates' signs drawn by lot, an entry would come as far as its `walk`, the root of the sum of their
squares: alpha / walk has a mean square of 1 then, and of about 1 + n s^2 after n updates whose signal is s times their
noise. Likewise the best candidate of an edge leads the second by chance; the margin is given in units of that lead.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from sswp_lib.space import Paths
from sswp_lib.space.paths import sampled_entries

DIGITS = 5  # that a record keeps


class Evidence:
    """Follows alpha (cells, 14, M) through a search, on the CPU.

    Attributes:
        updates: (cells, 14, M) how often each entry was sampled in an architecture step. squares: the sum of the
            squares of what these steps added to it.
    """

    def __init__(self, shape: tuple[int, ...]):
        self.updates = torch.zeros(shape, dtype=torch.long)
        self.squares = torch.zeros(shape, dtype=torch.double)

    def follow(self, before: Tensor, after: Tensor, paths: Paths) -> None:
        """Note an architecture step that moved alpha from `before` to `after` along `paths`."""
        self.updates += sampled(paths, self.updates.shape)
        self.squares += (after - before).double().square()

    def state(self) -> dict[str, Tensor]:
        return {"updates": self.updates.clone(), "squares": self.squares.clone()}

    def restore(self, state: dict[str, Tensor]) -> None:
        self.updates, self.squares = state["updates"].clone(), state["squares"].clone()

    def describe(self, alpha: Tensor) -> dict[str, Any]:
        """Return what is known of `alpha` (cells, 14, M) as plain data; a pruned cell's has not moved since.

        Returns:
            {"updates", "alpha", "walk": (cells, 14, M) each, "drift", "margin": a number a cell}. `drift` is the mean
            square of alpha / walk, and `margin` the mean lead of an edge's best candidate over its second, as a
            multiple of the lead that a random walk would give; both are about 1 where alpha has learnt nothing, and
            None where a cell had no update.
        """
        alpha, walk = alpha.detach().cpu().double(), self.squares.sqrt()
        moved = walk > 0
        drifts = torch.where(moved, alpha / walk.clamp(min=1e-300), 0.0).square().sum((1, 2)) / moved.sum((1, 2))
        top = alpha.topk(min(2, alpha.shape[-1]), dim=-1).values
        chance = self.squares.mean(-1).sqrt() * lead_by_chance(alpha.shape[-1])  # (cells, 14)
        margins = (top[..., 0] - top[..., -1]).mean(-1) / chance.mean(-1)
        return {
            "updates": self.updates.tolist(),
            "alpha": _rounded(alpha),
            "walk": _rounded(walk),
            "drift": [_number(value) for value in drifts.tolist()],
            "margin": [_number(value) for value in margins.tolist()],
        }


def sampled(paths: Paths, shape: tuple[int, ...]) -> Tensor:
    """Return which entries of alpha, of that shape, an architecture step along `paths` can move: bool."""
    chosen, searching = sampled_entries(paths)
    return torch.zeros(shape, dtype=torch.bool).scatter_(-1, chosen, searching[..., None].expand(chosen.shape))


def lead_by_chance(candidates: int) -> float:
    """Return the expected lead of the greatest of so many walks over the second, in units of one walk's spread.

    A step moves two candidates against each other, so the walks add up to 0: each is a normal number less their mean,
    enlarged to keep its spread, which enlarges leads alike. Of M independent normal numbers the lead is the integral
    of M Phi^(M-1) (1 - Phi).
    """
    if candidates < 2:
        return 0.0
    line = torch.linspace(-9, 9, 18_001, dtype=torch.double)
    below = torch.special.ndtr(line)
    lead = torch.trapezoid(candidates * below ** (candidates - 1) * (1 - below), line)
    return float(lead) * math.sqrt(candidates / (candidates - 1))


def _rounded(values: Tensor) -> list:
    """Return nested lists of numbers of DIGITS digits behind the point."""
    return (values * 10**DIGITS).round().div(10**DIGITS).tolist()


def _number(value: float) -> float | None:
    return round(value, DIGITS) if math.isfinite(value) else None
