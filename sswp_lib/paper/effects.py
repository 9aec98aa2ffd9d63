"""Effects: a mean difference with its 95 % interval, its p, and the unit that was repeated.

The unit of a claim about searches is the search: several fine-tunings of one search say how far fine-tunings scatter,
not what another search would give. They are averaged within their search, and Student's t is taken over the searches.
Where nothing can be tested (one unit, or values without any spread) p is None and the interval nan: no verdict follows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import nan

import numpy as np
import pandas as pd
from scipy import stats

from sswp_lib.config import InputError

ALPHA = 0.05  # two-sided: intervals are of 95 %
RESAMPLES = 10_000  # of a bootstrap
NO_SPREAD = 1e-9  # values nearer than this are equal: what parts them is rounding
ACCURACIES = ("test", "scratch", "fine-tuned")  # columns of accuracies in percent
SEVERAL = "interval and p for {} comparisons"  # a note: the interval is Bonferroni's
CEILING = 98.0  # percent: with fewer errors than this leaves, two arms cannot be told apart; ours


@dataclass(frozen=True)
class Effect:
    """What was measured of a claim.

    Args:
        mean, low, high: the effect and its 95 % interval, in the unit of what was compared.
        n: how many were repeated of what `unit` says: "search", "fine-tuning" or "path".
        p: two-sided, against 0: below 0.05 where the interval excludes 0. None where nothing can be tested.
        searches: how many different searches stand behind each side of it.
        runs: names of the runs that it was computed from.
        note: what a reader must know beside the numbers.
        untestable: why no claim can be tested by it, whatever its interval.
    """

    mean: float
    low: float
    high: float
    n: int
    p: float | None = None
    unit: str = "search"
    searches: int = 0
    runs: frozenset[str] = frozenset()
    note: str = ""
    untestable: str = ""

    @property
    def resolution(self) -> float:
        """Half the interval: an effect at least so far from the bound would have been seen."""
        return (self.high - self.low) / 2

    def p_against(self, value: float) -> float | None:
        """Return p against another value than 0, of an effect with Student's interval."""
        if self.p is None or value == 0:
            return self.p
        error = (self.high - self.mean) / quantile(self.n)
        return _p((self.mean - value) / error, self.n)


def quantile(n: int, comparisons: int = 1) -> float:
    """Return Student's t that bounds 95 % of n values' means; for several comparisons, Bonferroni's."""
    return float(stats.t.ppf(1 - ALPHA / 2 / comparisons, n - 1))


def _p(t: float, n: int) -> float:
    return float(2 * stats.t.sf(abs(t), n - 1))


def student(values: Sequence[float], **about) -> Effect:
    """Return the mean of one value a unit with Student's interval; `about` is what else an Effect says."""
    values = np.asarray(values, dtype=float)
    n, mean = len(values), float(values.mean())
    if n < 2:
        return Effect(mean, nan, nan, n, **about)
    if np.ptp(values) < NO_SPREAD:
        return Effect(mean, nan, nan, n, **{"note": "no spread, nothing to test", **about})
    error = float(values.std(ddof=1)) / np.sqrt(n)
    half = quantile(n) * error
    return Effect(mean, mean - half, mean + half, n, _p(mean / error, n), **about)


def runs_of(rows: pd.DataFrame) -> frozenset[str]:
    """Return the names of runs in the columns "run", "search run" and the like."""
    columns = [name for name in rows if name == "run" or str(name).endswith(" run")]
    return frozenset(name for name in rows[columns].to_numpy().ravel() if isinstance(name, str))


def _pairs(
    frame: pd.DataFrame, by: list[str], better: str, other: str, column: str, key: str
) -> tuple[pd.Series, frozenset[str], str]:
    """Return better - other, paired by the columns `by`, the runs behind it, and why it can test nothing, if so; what
    has no partner does not count.
    """
    rows = frame[frame[key].isin([better, other])]
    twice = rows[rows.duplicated([*by, key])]
    if len(twice):
        where = ", ".join(f"{name} {twice[name].iloc[0]}" for name in by)
        raise InputError(f"{twice[key].iloc[0]!r} has several rows of {where}; expected one to pair")
    wide = rows.pivot(index=by, columns=key, values=column).reindex(columns=[better, other]).dropna()
    if wide.empty:
        found = ", ".join(map(str, frame[key].unique()))
        raise InputError(f"nothing to pair of {better!r} and {other!r} by {', '.join(by)}; there is {found}")
    means = wide.mean()
    at_end = column in ACCURACIES and min(means) >= CEILING
    ceiling = f"a ceiling: {means[better]:.1f} and {means[other]:.1f} % are right" if at_end else ""
    return wide[better] - wide[other], runs_of(rows[rows.set_index(by).index.isin(wide.index)]), ceiling


def between(frame: pd.DataFrame, better: str, other: str, column: str = "scratch") -> Effect:
    """Return the effect of one arm against another, paired by seed: each seed is a search of its own.

    Args:
        frame: one row for each arm and seed. column: what is compared.

    Raises:
        InputError: no pair, or a seed with several rows (fine-tunings of searches: see `nested`).
    """
    differences, runs, ceiling = _pairs(frame, ["seed"], better, other, column, "arm")
    return student(differences, searches=len(differences), runs=runs, untestable=ceiling)


def nested(
    frame: pd.DataFrame,
    better: str,
    other: str,
    column: str = "test",
    key: str = "init",
    by: Sequence[str] = ("seed",),
) -> Effect:
    """Return the effect of one start against another: paired by search and seed, averaged within each search.

    Args:
        frame: one row for each start, search and fine-tuning seed; without a column "search" all are of one search.
        by: what is paired within a search; over all but the seed, such as fractions of the labels, the mean is taken.
    """
    frame = frame if "search" in frame else frame.assign(search=0)
    differences, runs, ceiling = _pairs(frame, ["search", *by], better, other, column, key)
    tunings = differences.groupby(level=["search", "seed"]).mean()
    searches = tunings.groupby(level="search").mean()
    effect = student(searches, searches=len(searches), runs=runs, untestable=ceiling)
    if len(searches) > 1:
        return effect
    within = student(tunings)
    note = f"one search; over its {within.n} fine-tunings {within.low:.2f} to {within.high:.2f}"
    return replace(effect, note=note if within.p is not None else "one search")


def best_of(frame: pd.DataFrame, better: str, others: Sequence[str], column: str = "scratch") -> Effect:
    """Return the effect of one arm against the one of several that comes closest to it, or leads it most clearly.

    To be best is to beat each of the others (intersection-union): the greatest p is that of the whole, uncorrected. To
    be beaten by any of them is easier the more they are: where another leads, interval and p are Bonferroni's.
    """
    each = {other: between(frame, better, other, column) for other in others}
    closest = min(each, key=lambda other: (_evidence(each[other]), each[other].mean))
    effect, k = each[closest], len(each)
    runs = frozenset().union(*(e.runs for e in each.values()))
    if effect.p is None or effect.mean > 0:
        untestable = next((e.untestable for e in each.values() if e.untestable), "")
        note = "; ".join(filter(None, [f"against {closest}", effect.note]))
        return replace(effect, runs=runs, note=note, untestable=untestable)
    half = (effect.high - effect.mean) * quantile(effect.n, k) / quantile(effect.n)
    return replace(
        effect,
        low=effect.mean - half,
        high=effect.mean + half,
        p=min(1.0, k * effect.p),
        runs=runs,
        note=f"against {closest}, which leads; {SEVERAL.format(k)}",
    )


def _evidence(effect: Effect) -> float:
    """Return from -1 (surely beaten) by 0 (nothing known) to 1 (surely better)."""
    return 0.0 if effect.p is None else float(np.sign(effect.mean)) * (1 - effect.p)


def bootstrapped(statistic: Callable[[np.ndarray], np.ndarray], n: int, **about) -> Effect:
    """Return the effect of a statistic of n units with its bootstrap's percentile interval.

    A bootstrap of few units knows nothing beyond them (2 that agree would give p = 0), so p is never below the least
    that signs of n differences can give, 2^(1-n): fewer than 6 decide nothing.

    Args:
        statistic: from indices of units, (resamples, n), to one value a resample.
    """
    mean = float(statistic(np.arange(n)[None])[0])
    draws = statistic(np.random.default_rng(0).integers(n, size=(RESAMPLES, n))).round(9)
    low, high = np.percentile(draws, [100 * ALPHA / 2, 100 * (1 - ALPHA / 2)])
    if low == high:  # on a grid it can be: no width is no certainty
        return Effect(mean, nan, nan, n, **about)
    p = max(2 * min((draws <= 0).mean(), (draws >= 0).mean()), 1 / RESAMPLES, 2.0 ** (1 - n))
    return Effect(mean, float(low), float(high), n, min(1.0, float(p)), **about)


def holm(p: Sequence[float]) -> np.ndarray:
    """Return p values adjusted for their number (Holm 1979), in the same order: whatever the dependence between them,
    the chance of any false one below 0.05 is at most 5 %.
    """
    p = np.asarray(p, dtype=float)
    order = np.argsort(p)
    adjusted = np.empty(len(p))
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return adjusted
