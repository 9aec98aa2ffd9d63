"""The ledger at one look: where each effect and its 95 % interval stand, on one scale for all claims of a unit.

Places are percents of a plot's width, so that the page draws it at any; whatever leaves a scale is cut at its end, and
marked there. `picture` draws it once more, for pages that are not the kit's own.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sswp_lib.paper.claims import CLAIMS
from sswp_lib.show.plots import COLOURS, SMALL

TICKS = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10])
SCALES = {  # what an axis says of the scale of claims
    "points": "Points: differences in percent, most of test accuracy",
    "decades": "Decades of the learning rate",
    "ratio": "Ratio of peak memory",
    "tau": "Differences of Kendall's tau-b",
    "cosine": "Differences of cosines",
    "correlation": "Spearman's correlation",
}
DRAWN = {  # a verdict's marker and its colour, in a picture
    "seen": ("o", COLOURS[0]), "contradicted": ("D", COLOURS[3]),
    "undecided": ("o", "0.45"), "not testable": ("s", "0.45"),
}  # fmt: skip
FILLED = ("seen", "contradicted")
PICTURE_WIDTH, ROW, LETTERS = 10.0, 0.3, 66  # inches; inches; letters of a line of a claim
MOST = 0.9  # of the intervals' ends that a scale holds on either side; a few long ones would flatten the others


def forest(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the ledger's rows by the scale of their effects, each with what a plot needs of it; the order is the
    ledger's.

    Args:
        rows: of the ledger, as text: "claim", "key", "measure", "mean", "low", "high", "seen where", "verdict",
            "alone" and "preset", of which "on" becomes what one row's says more than the shortest: other data.
    """
    if not rows:
        return []
    own = min((row["preset"] for row in rows), key=len)
    rows = [row | {"on": row["preset"].removeprefix(own).removeprefix(", ")} for row in rows]
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


def picture(groups: Sequence[dict[str, Any]]) -> Figure:
    """Draw the ledger: a row a claim, a panel a scale, as `forest` has laid them out."""
    heights = [len(group["rows"]) for group in groups]
    figure, panels = plt.subplots(
        len(groups),
        1,
        figsize=(PICTURE_WIDTH, ROW * (sum(heights) + 2.2 * len(groups))),
        height_ratios=heights,
        squeeze=False,
    )
    for axes, group in zip(panels[:, 0], groups, strict=True):
        _draw_group(axes, group)
    return figure


def _draw_group(axes: Axes, group: dict[str, Any]) -> None:
    rows = group["rows"]
    for y, row in enumerate(rows):
        at, (marker, colour) = row["place"], DRAWN.get(row["verdict"], DRAWN["undecided"])
        if row["seen"]:
            axes.fill_betweenx((y - 0.5, y + 0.5), *row["seen"], color="0.94", lw=0, zorder=0)
            axes.plot([at["bound"]] * 2, (y - 0.5, y + 0.5), color="0.35", lw=1)
        if at["low"] is not None and at["high"] is not None:
            axes.plot([at["low"], at["high"]], [y, y], color=colour, lw=1.4)
            for side, arrow in (("low", "<"), ("high", ">")):
                axes.plot(at[side], y, arrow if side in row["cut"] else "|", color=colour, ms=5)
        if at["mean"] is not None:
            axes.plot(at["mean"], y, marker, color=colour, mfc=colour if row["verdict"] in FILLED else "white", ms=5.5)
        alone = f" (alone: {row['alone']})" if row["alone"] not in ("", row["verdict"]) else ""
        said = f"{row['verdict'] or 'without a verdict'}{alone}  {_plain_text(row)}"
        axes.text(1.02, y, said, transform=axes.get_yaxis_transform(), va="center", fontsize=SMALL, color=colour)
    names = [row["claim"] + (f" ({row['on']})" if row["on"] else "") for row in rows]
    axes.set_yticks(
        range(len(rows)), [textwrap.fill(name, LETTERS) for name in names], fontsize=SMALL, linespacing=0.95
    )
    axes.set_xticks(
        [tick["place"] for tick in group["ticks"]], [tick["text"] for tick in group["ticks"]], fontsize=SMALL
    )
    axes.set(xlim=(-1, 101), ylim=(len(rows) - 0.5, -0.5))
    axes.set_xlabel(group["scale"], fontsize=SMALL)
    axes.grid(False, axis="y")


def _plain_text(row: dict[str, Any]) -> str:
    """Return a row's effect and interval: "2.37 [1.22, 3.52]"."""
    numbers = [_plain(float(f"{float(row[name]):.3g}")) for name in ("mean", "low", "high") if row[name] != ""]
    return numbers[0] + (f" [{numbers[1]}, {numbers[2]}]" if len(numbers) == 3 else "") if numbers else ""
