"""Figures of what the paper does not compare: the map of where concomitant weights are worth something, planted
operations.
"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from sswp_lib.paper import learnt
from sswp_lib.runs.records import Record
from sswp_lib.show.plots import COLOURS, SMALL, WIDTH
from sswp_lib.space import CANDIDATES


def weights_map(tables: dict[str, pd.DataFrame]) -> Figure:
    """What concomitant weights add to a random start, by labels of a class and by the length of the search; a panel a
    data set. Bold with a frame: the 95 % interval excludes 0.

    Args:
        tables: {title: of `beyond.weights_map`}.
    """
    heights = [table["search epochs"].nunique() for table in tables.values()]
    widths = [table["labels of a class"].nunique() for table in tables.values()]
    figure, axes = plt.subplots(
        1, len(tables), figsize=(WIDTH, 1.5 + 0.45 * max(heights)), width_ratios=widths, squeeze=False
    )
    reach = max(float(table["difference"].abs().max()) for table in tables.values()) or 1.0
    norm = TwoSlopeNorm(0, -reach, reach)
    for a, (title, table) in zip(axes[0], tables.items(), strict=True):
        wide = table.pivot(index="search epochs", columns="labels of a class", values="difference")
        low, high = (table.pivot(index="search epochs", columns="labels of a class", values=n) for n in ("low", "high"))
        image = a.imshow(wide, cmap="PuOr_r", norm=norm, aspect="auto", origin="lower")
        for y, x in np.ndindex(wide.shape):
            decided = low.iloc[y, x] > 0 or high.iloc[y, x] < 0
            value, half = wide.iloc[y, x], (high.iloc[y, x] - low.iloc[y, x]) / 2
            text = f"{value:+.1f}" + ("" if np.isnan(half) else f"\n± {half:.1f}")
            dark = abs(value) > 0.65 * reach
            a.text(
                x, y, text, ha="center", va="center", fontsize=SMALL, weight="bold" if decided else "normal",
                color="white" if dark else "black",
            )  # fmt: skip
            if decided:
                a.add_patch(plt.Rectangle((x - 0.47, y - 0.46), 0.94, 0.92, fill=False, lw=1.4, ec="0.1"))
        a.set_xticks(range(wide.shape[1]), [str(k) for k in wide.columns])
        a.set_yticks(range(wide.shape[0]), [str(k) for k in wide.index])
        a.set_title(title, fontsize=9)
        a.set(xlabel="labelled images of a class", ylabel="epochs of the search" if a is axes[0][0] else "")
        a.grid(False)
    bar = figure.colorbar(image, ax=axes[0], shrink=0.9, pad=0.02)
    bar.set_label("concomitant minus random\n(points of test accuracy)", fontsize=SMALL)
    return figure


def planted(searches: Sequence[Record]) -> Figure:
    """Alpha of every candidate, centred by edge, a dot for each edge of each search: filled where it comes from one
    of the cell's inputs, hollow from an inner node; planted candidates in another colour.
    """
    values = learnt.alphas(searches)
    names = [*CANDIDATES, *searches[0].config["search"]["planted"]]
    figure, axes = plt.subplots(figsize=(WIDTH, 0.9 + 0.27 * len(names)))
    for place, name in enumerate(names):
        own = values[..., place]
        beside = place + 0.28 * np.linspace(-1, 1, own.size).reshape(own.shape)  # edges in their order
        colour, marker = (COLOURS[0], "o") if name in CANDIDATES else (COLOURS[3], "D")
        for edges, fill in ((learnt.FROM_INPUTS, colour), (~learnt.FROM_INPUTS, "none")):
            x, y = own[..., edges].ravel(), beside[..., edges].ravel()
            axes.plot(x, y, marker, color=colour, mfc=fill, ms=2.5, mew=0.5, alpha=0.6)
        axes.plot(own.mean(), place, "|", color="0.1", ms=13, mew=2)
    axes.axvline(0, color="0.3", ls="--", lw=1)
    for fill, source in (("0.4", "the cell's inputs"), ("none", "its inner nodes")):
        axes.plot([], [], "o", color="0.4", mfc=fill, ms=4, label=f"edges from {source}")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)
    axes.set_yticks(range(len(names)), names)
    axes.set(ylim=(len(names) - 0.5, -0.5), xlabel="alpha, centred by edge; bar: the mean")
    return figure
