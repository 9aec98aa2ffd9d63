"""Warm-up, bi-level, FPP/BPP: pure functions of (epoch, configuration).

Paper: sections 3.4 and 3.5, Figure 3. With E epochs, ratios (r1, r2, r3) and L cells, the i-th cell to go (from the
input for FPP, from the output for BPP) is pruned at the start of epoch E(r1 + r2) + i T, T = E r3 / L, rounded down.
Deliberate deviations: nothing is skipped where T < 1; several cells are then pruned in one epoch. A fourth ratio gives
the network that all this leaves time of its own.
"""

from __future__ import annotations

from fractions import Fraction
from math import floor

from sswp_lib.config import Search

PHASES = ("warm-up", "bi-level", "pruning", "fixed")


def _exact(ratio: float) -> Fraction:
    return Fraction(str(ratio))  # 0.2 + 0.4 is 0.6 here


def phase(epoch: int, config: Search) -> str:
    """Return the phase of an epoch (from 0): "warm-up", "bi-level", "pruning", or "fixed" where the ratios have a part
    for it.
    """
    learning, pruning, fixed = config.boundaries()
    if epoch < learning:
        return PHASES[0]
    if epoch < pruning:
        return PHASES[1]
    return PHASES[2] if epoch < fixed else PHASES[3]


def phase_lengths(config: Search) -> dict[str, int]:
    """Return {phase: its epochs}, in order; a phase that the ratios leave no whole epoch has 0."""
    found = [phase(epoch, config) for epoch in range(config.epochs)]
    return {name: found.count(name) for name in PHASES if name != PHASES[3] or name in found}


def pruning_epochs(config: Search, num_cells: int) -> dict[int, int]:
    """Return {cell: the epoch at whose start it is pruned}; `epochs` itself means: after the last."""
    if config.prune == "none":
        return dict.fromkeys(range(num_cells), config.boundaries()[2])
    start = sum(_exact(r) for r in config.ratios[:2]) * config.epochs
    step = _exact(config.ratios[2]) * config.epochs / num_cells
    epochs = [floor(start + i * step) for i in range(num_cells)]
    cells = range(num_cells) if config.prune == "forward" else reversed(range(num_cells))
    return dict(zip(cells, epochs, strict=True))


def cells_to_prune(epoch: int, config: Search, num_cells: int) -> list[int]:
    """Return the cells that are pruned at the start of this epoch, in order."""
    return [cell for cell, when in pruning_epochs(config, num_cells).items() if when == epoch]


def architecture_steps(config: Search, num_cells: int, steps_an_epoch: int) -> dict[int, int]:
    """Return {cell: how many architecture steps it takes part in before it is pruned}, cells in order.

    One follows every `alpha_every`-th weight step of the whole search; those of the warm-up are left out.
    """
    done = lambda epochs: epochs * steps_an_epoch // config.alpha_every  # noqa: E731
    warm = config.boundaries()[0]
    return {cell: max(done(end) - done(warm), 0) for cell, end in sorted(pruning_epochs(config, num_cells).items())}
