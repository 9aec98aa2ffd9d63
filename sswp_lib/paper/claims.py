"""What the paper claims, and what was measured of it.

A claim is "seen" only where the 95 % interval of its effect excludes zero in the right direction, "contradicted" where
it excludes
zero in the other, else "undecided". Effects are differences paired by seed; n is the number of pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats


@dataclass(frozen=True)
class Claim:
    """A claim of the paper: where it stands, its effect there, and what is measured here. An effect above 0 speaks for
    the claim.
    """

    text: str
    section: str
    paper: str
    measure: str


_SCRATCH = "test accuracy from scratch (points)"
CLAIMS = {
    "ssl_beats_sl": Claim(
        "Searching without labels (SSL) beats searching with them (SL)",
        "4.3, Table 3a",
        "+0.21",
        f"SSL+FPP minus SL+FPP, {_SCRATCH}",
    ),
    "fpp_helps_ssl": Claim(
        "FPP helps a search without labels", "4.3, Table 3a", "+0.09", f"SSL+FPP minus SSL, {_SCRATCH}"
    ),
    "fpp_helps_sl": Claim("FPP helps a search with labels", "4.3, Table 3a", "+0.15", f"SL+FPP minus SL, {_SCRATCH}"),
    "bpp_does_not_help": Claim(
        "Pruning back to front (BPP) does not help", "4.3, Table 3a", "+0.08", f"SSL minus SSL+BPP, {_SCRATCH}"
    ),
    "default_ratio": Claim(
        "The ratios 0.2 : 0.4 : 0.4 are best",
        "4.3, Table 3b",
        "+0.10",
        f"default minus mean of shorter and longer, {_SCRATCH}",
    ),
    "fpp_closes_gap": Claim(
        "FPP lessens network inflation, the gap between search and final network",
        "3.4",
        "in words",
        "gap of contrastive accuracy between supernet and exported network, SSL minus SSL+FPP (points)",
    ),
    "dropout": Claim("Skip dropout 0.2 is best", "4.3, Table 3c", "+0.09", f"0.2 minus mean of 0 and 0.5, {_SCRATCH}"),
    "proxy_free": Claim(
        "Searching on the data that is trained on beats transfer",
        "4.3, Table 3d",
        "+0.93",
        f"proxy-free minus transfer, {_SCRATCH}",
    ),
    "longer_search": Claim(
        "A longer search helps", "4.3, Figure 4", "a picture", f"most minus fewest epochs, {_SCRATCH}"
    ),
    "larger_batch": Claim(
        "A larger batch does not help", "4.3, Figure 4", "a picture", f"preset's batch minus twice of it, {_SCRATCH}"
    ),
    "byol_is_worse": Claim("BYOL in the search is worse than SimCLR", "3.3", "+0.49", f"SimCLR minus BYOL, {_SCRATCH}"),
    "concomitant_beats_random": Claim(
        "Concomitant weights beat a random start at few labels",
        "4.4, Figure 5",
        "a picture",
        "concomitant minus random, few labels, test accuracy (points)",
    ),
    "concomitant_beats_simclr": Claim(
        "Concomitant weights beat SimCLR pre-training above 10 % of the labels",
        "4.4, Figure 5",
        "a picture",
        "concomitant minus SimCLR, mean over the fractions above 10 %, test accuracy (points)",
    ),
    "simclr_at_ten": Claim(
        "At 10 % of the labels SimCLR pre-training beats concomitant weights",
        "4.4, Figure 5",
        "a picture",
        "SimCLR minus concomitant at 10 %, test accuracy (points)",
    ),
    "larger_rates": Claim(
        "Concomitant weights prefer larger learning rates",
        "4.4, Table 4a",
        "+0.90",
        "log10 of the best rate (by validation) of concomitant minus that of SimCLR (decades)",
    ),
    "relative_gain": Claim(
        "Skip dropout improves the concomitant weights",
        "4.4, Table 4b",
        "+0.23",
        "relative gain of skip dropout, test accuracy (points)",
    ),
    "ssl_probes_better": Claim(
        "Architectures searched without labels probe better",
        "appendix B, Table 6",
        "+0.60",
        "linear probe after SimCLR pre-training, SSL minus SL, test accuracy (points)",
    ),
    "memory": Claim(
        "A search step needs memory of the same magnitude as a compact network's",
        "3.2",
        "in words",
        "2 minus the ratio of peak memory: the dearer search step over the exported network, 8 edges a cell",
    ),
}


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


def of_differences(difference: Sequence[float]) -> Effect:
    """Return the mean of differences, in their unit, with its interval."""
    difference = np.asarray(difference, dtype=float)
    n, mean = len(difference), float(difference.mean())
    half = float(stats.t.ppf(0.975, n - 1) * difference.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
    return Effect(mean, mean - half, mean + half, n)


def paired(with_it: Sequence[float], without: Sequence[float]) -> Effect:
    """Return the effect of pairs, with_it[i] - without[i], in their unit."""
    return of_differences(np.asarray(with_it, dtype=float) - np.asarray(without, dtype=float))


def between(
    frame: pd.DataFrame, better: str, others: str | Sequence[str], column: str = "scratch", key: str = "arm"
) -> Effect:
    """Return the effect of one arm against another, or against the mean of several, paired by seed.

    Args:
        frame: one row for each arm and seed. column: what is compared.
    """
    others = [others] if isinstance(others, str) else list(others)
    wide = frame.pivot_table(index="seed", columns=key, values=column)[[better, *others]].dropna()
    return paired(wide[better], wide[others].mean(axis=1))


def concomitant_beats_random(best: pd.DataFrame) -> Effect:
    """Section 4.4, Figure 5: concomitant minus random start, points of test accuracy, paired by seed."""
    return between(best, "concomitant", "random", column="test", key="init")


def above_ten_percent(frame: pd.DataFrame) -> Effect:
    """Figure 5: concomitant minus SimCLR pre-training, mean over the fractions above 10 %, paired by seed."""
    above = frame[frame["fraction"] > 0.1].groupby(["seed", "init"], as_index=False)["test"].mean()
    return between(above, "concomitant", "simclr", column="test", key="init")


def preferred_rates(frame: pd.DataFrame) -> Effect:
    """Table 4a: by how many decades the best learning rate of concomitant weights lies above that of SimCLR's, paired
    by seed.
    """
    best = frame.loc[frame.groupby(["init", "seed"])["validation"].idxmax()]
    return between(best.assign(decades=np.log10(best["lr"])), "concomitant", "simclr", column="decades", key="init")


def relative_gain(frame: pd.DataFrame, arm: str, base: str) -> Effect:
    """Table 4b: (fine-tuned - from scratch) with a module such as skip dropout, minus the same without it, paired by
    seed.
    """
    return between(frame.assign(gain=frame["fine-tuned"] - frame["scratch"]), arm, base, column="gain")


def memory(measured: Sequence[dict[str, int]]) -> Effect:
    """Section 3.2: "the same magnitude" is taken to mean less than twice, so the effect is 2 minus the dearer search
    step over the exported network.

    Args:
        measured: the bytes of measurements (see `learn.footprint`), one for each sampled path.
    """
    return of_differences(
        [2 - max(held["weight step"], held["architecture step"]) / held["compact, 8 edges"] for held in measured]
    )


def ledger(effects: dict[str, Effect], preset: str) -> pd.DataFrame:
    """Return a table of claims by their keys in CLAIMS: effect in the paper and here, interval, n, preset, verdict."""
    rows = []
    for key, e in effects.items():
        claim = CLAIMS[key]
        numbers = {name: round(getattr(e, name), 2) for name in ("mean", "low", "high")}
        rows.append(
            {
                "claim": claim.text,
                "section": claim.section,
                "paper": claim.paper,
                "measure": claim.measure,
                **numbers,
                "n": e.n,
                "preset": preset,
                "verdict": e.verdict,
            }
        )
    return pd.DataFrame(rows)
