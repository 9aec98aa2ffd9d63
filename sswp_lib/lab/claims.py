"""What the paper claims, and what was measured of it.

A claim is "seen" only where the 95 % interval of its effect excludes zero in the right direction, "contradicted" where it excludes
zero in the other, else "undecided".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from scipy import stats


@dataclass(frozen=True)
class Effect:
    """A mean paired difference with its 95 % interval (Student's t over the pairs)."""

    mean: float
    low: float
    high: float
    n: int

    @property
    def verdict(self) -> str:
        if self.n < 2 or not np.isfinite(self.low) or self.low <= 0 <= self.high:
            return "undecided"
        return "seen" if self.low > 0 else "contradicted"


def paired(with_it: Sequence[float], without: Sequence[float]) -> Effect:
    """Return the effect of pairs, with_it[i] - without[i], in their unit."""
    difference = np.asarray(with_it, dtype=float) - np.asarray(without, dtype=float)
    n, mean = len(difference), float(difference.mean())
    half = float(stats.t.ppf(0.975, n - 1) * difference.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
    return Effect(mean, mean - half, mean + half, n)


def concomitant_beats_random(best: pd.DataFrame) -> Effect:
    """Section 4.4, Figure 5: concomitant minus random start, points of test accuracy, paired by seed."""
    wide = best.pivot(index="seed", columns="init", values="test")[["concomitant", "random"]].dropna()
    return paired(wide["concomitant"], wide["random"])


def ledger(effects: dict[str, Effect], section: str, preset: str) -> pd.DataFrame:
    """Return a table of claims: effect, interval, n, preset, verdict."""
    rows = [{"claim": claim, "section": section, **asdict(e), "preset": preset, "verdict": e.verdict} for claim, e in effects.items()]
    return pd.DataFrame(rows).round(2)
