"""The ledger at one look: where each effect and its 95 % interval stand, on one scale for all claims of a unit.

Places are percents of a plot's width, so that the page draws it at any; whatever leaves a scale is cut at its end, and
marked there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.ticker import MaxNLocator

from sswp_lib.paper.claims import CLAIMS

TICKS = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10])
SCALES = {  # what an axis says of the scale of claims
    "points": "Points: differences in percent, most of test accuracy",
    "decades": "Decades of the learning rate",
    "ratio": "Ratio of peak memory",
    "tau": "Differences of Kendall's tau-b",
    "cosine": "Differences of cosines",
    "correlation": "Spearman's correlation",
}
MOST = 0.9  # of the intervals' ends that a scale holds on either side; a few long ones would flatten the others


def forest(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the ledger's rows by the scale of their effects, each with what a plot needs of it; the order is the
    ledger's.

    Args:
        rows: of the ledger, as text: "claim", "key", "measure", "mean", "low", "high", "seen where" and "verdict".
    """
    if not rows:
        return []
    table = pd.DataFrame(rows)
    numbers = table[["mean", "low", "high"]].apply(pd.to_numeric, errors="coerce")
    where = table["seen where"].str.extract(r"(above|below) (\S+)")
    numbers = numbers.assign(bound=pd.to_numeric(where[1], errors="coerce"), side=where[0])
    scales = [
        CLAIMS[key].scale if key in CLAIMS else measure for key, measure in zip(table.key, table.measure, strict=True)
    ]
    return [
        {"scale": SCALES.get(scale, scale or "what is not said"), **_group(part, [rows[i] for i in part.index])}
        for scale, part in numbers.groupby(scales, sort=False)
    ]


def _group(numbers: pd.DataFrame, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the ticks of one scale, and its claims' rows with their places on it."""
    ticks = _ticks(numbers)
    start, length = ticks[0], ticks[-1] - ticks[0]

    def place(value: float) -> float | None:
        """Return where a number stands, in percent; at the nearest end where it leaves the scale."""
        return None if pd.isna(value) else round(min(max(100 * (value - start) / length, 0), 100), 2)

    drawn = [
        {
            **row,
            "place": {name: place(n[name]) for name in ("mean", "low", "high", "bound")},
            "cut": [side for side, off in (("low", n["low"] < start), ("high", n["high"] > ticks[-1])) if off],
            "seen": _seen_side(place(n["bound"]), n["side"]),
            "says": _says(row),
        }
        for row, (_, n) in zip(rows, numbers.iterrows(), strict=True)
    ]
    return {"ticks": [{"text": _plain(tick), "place": place(tick)} for tick in ticks], "rows": drawn}


def _ticks(numbers: pd.DataFrame) -> list[float]:
    """Return the ticks of a scale from end to end: it holds every mean and bound, and most ends of intervals."""
    low, high = numbers["low"].quantile(1 - MOST, "lower"), numbers["high"].quantile(MOST, "higher")
    held = pd.concat([numbers["mean"], numbers["bound"], pd.Series([low, high])]).dropna()
    return [float(tick) for tick in TICKS.tick_values(*((held.min(), held.max()) if len(held) else (0, 1)))]


def _seen_side(bound: float | None, side: str) -> tuple[float, float] | None:
    """Return from where to where a claim's interval must lie for the claim to be seen."""
    if bound is None:
        return None
    return (bound, 100) if side == "above" else (0, bound)


def _says(row: dict[str, Any]) -> str:
    """Return a row's numbers in words, for whoever does not see the plot."""
    interval = f"95 % interval {row['low']} to {row['high']}" if row["low"] != "" else "no interval"
    return f"effect {row['mean']}, {interval}, seen where {row['seen where'] or 'not said'}: {row['verdict']}"


def _plain(number: float) -> str:
    return f"{number:g}".replace("-", "\u2212")
