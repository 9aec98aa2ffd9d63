"""Figures of rankings by one-shot networks: what they predict against what is true, by arm, and what goes with it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sswp_lib.paper.pi_nas import ARMS
from sswp_lib.show.comparisons import apart, half_width
from sswp_lib.show.plots import COLOURS, SMALL, WIDTH

COLUMNS = 4  # panels beside one another
DASHES = ("--", ":", "-.", (0, (1, 3)))


def predicted(truth: Sequence[float], scores: Mapping[str, Sequence[float]], taus: Mapping[str, float]) -> Figure:
    """Figures 3 and 4: accuracy of an architecture's own training against that predicted, a panel an arm.

    Args:
        truth: of each architecture, in percent. scores: {arm: of the same architectures}. taus: {arm: tau-b}, nan
            where an arm predicts the same of all.
    """
    figure, panels = _panels(len(scores), height=1.9)
    for axes, arm in zip(panels, scores, strict=True):
        axes.plot(scores[arm], truth, ls="", ms=4, alpha=0.8, **_style(arm))
        said = "undefined" if math.isnan(taus[arm]) else f"{taus[arm]:.2f}"
        axes.set_title(f"{arm}\ntau {said}", fontsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(3))
        axes.margins(x=0.1)
    figure.supxlabel("predicted accuracy, in the supernet (%)", fontsize=9)
    figure.supylabel("accuracy of its own training (%)", fontsize=9)
    return figure


def taus(frame: pd.DataFrame, order: Sequence[str], beside: Mapping[str, float]) -> Figure:
    """Table 7: tau by arm, a dot a supernet, means with 95 % intervals; lines for what trains no supernet.

    Args:
        frame: with the columns "arm" and "tau". beside: {name of a control: its tau}, nan for none.
    """
    figure, axes = plt.subplots(figsize=(WIDTH, 1.5 + 0.36 * len(order)))
    for place, arm in enumerate(order):
        values = frame[frame["arm"] == arm]["tau"].dropna()
        if values.empty:
            axes.text(0, place, "undefined: the same of all", fontsize=SMALL, va="center")
            continue
        axes.plot(values, place + 0.16 + apart(values), ".", color="0.5", ms=5)
        bar = {"color": COLOURS[0], "marker": "o", "ms": 5, "capsize": 3, "lw": 1.5}
        axes.errorbar(values.mean(), place - 0.08, xerr=half_width(values), **bar)
    for i, (name, value) in enumerate(beside.items()):
        if not math.isnan(value):
            style = {"color": COLOURS[1 + i], "ls": DASHES[i % len(DASHES)], "lw": 1.5}
            axes.axvline(value, label=f"{name} {value:.2f}", **style)
    axes.axvline(0, color="0.3", lw=0.8)
    axes.set_yticks(range(len(order)), order)
    low, high = axes.get_xlim()
    axes.set(xlim=(max(low, -1.02), min(high, 1.02)), ylim=(len(order) - 0.5, -0.5), xlabel="Kendall's tau-b")
    figure.legend(loc="outside lower center", ncols=3 if len(beside) < 4 else 2, frameon=False, fontsize=SMALL)
    return figure


def similarities(matrices: Mapping[str, Sequence[Sequence[float]]], names: Sequence[str]) -> Figure:
    """Figure 5: cosine between the features of an image along two paths, centred; a panel an arm, its mean off the
    diagonal above it.

    Args:
        matrices: {arm: (P, P)}, in -1 to 1. names: of the paths.
    """
    figure, panels = _panels(len(matrices), height=2.0)
    for axes, (arm, matrix) in zip(panels, matrices.items(), strict=True):
        values = np.asarray(matrix, dtype=float)
        off = values[~np.eye(len(values), dtype=bool)].mean()
        image = axes.imshow(values, vmin=-1, vmax=1, cmap="PuOr")
        for (row, column), value in np.ndenumerate(values):
            dark = abs(value) > 0.65
            letters = {"color": "white" if dark else "black", "fontsize": 6, "ha": "center", "va": "center"}
            axes.text(column, row, f"{value:.2f}", **letters)
        axes.set_title(f"{arm}\n{off:.2f}", fontsize=9)
        axes.set_xticks(range(len(values)), names, rotation=90, fontsize=6)
        axes.set_yticks(range(len(values)), names, fontsize=6)
        axes.grid(False)
    figure.colorbar(image, ax=panels, shrink=0.6, label="centred cosine")
    return figure


def collapse(histories: Mapping[str, Sequence[Sequence[float]]]) -> Figure:
    """Mean |cosine| between the outputs for different images over the epochs, a line a supernet; 1 is collapse.

    Args:
        histories: {arm: for each supernet the values of its epochs}.
    """
    figure, axes = plt.subplots(figsize=(WIDTH, 2.8))
    for i, (arm, lines) in enumerate(histories.items()):
        style = _style(arm) | {"ls": ("-", "--", "-.", ":")[i % 4], "lw": 1.4, "ms": 4}
        for k, values in enumerate(lines):
            axes.plot(range(1, len(values) + 1), values, label=arm if k == 0 else None, markevery=0.25, **style)
    axes.set(xlabel="epoch", ylabel="|cosine| between images", ylim=(-0.02, 1.03))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize=SMALL, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def against(frame: pd.DataFrame, order: Sequence[str], x: str, y: str, labels: tuple[str, str]) -> Figure:
    """One column of a table of supernets against another, a point a supernet, a colour and mark an arm."""
    figure, axes = plt.subplots(figsize=(WIDTH, 3.0))
    for arm in order:
        rows = frame[frame["arm"] == arm]
        axes.plot(rows[x], rows[y], ls="", ms=6, label=arm, **_style(arm))
    axes.set(xlabel=labels[0], ylabel=labels[1])
    figure.legend(loc="outside right center", frameon=False, fontsize=SMALL)
    return figure


def _style(arm: str) -> dict:
    """Return an arm's colour and mark, the same in all figures."""
    place = list(ARMS).index(arm) if arm in ARMS else len(ARMS)
    return {"color": COLOURS[(0, 1, 2, 3, 4, 7, 9, 5)[place]], "marker": "os^Dv*PX"[place]}


def _panels(count: int, height: float) -> tuple[Figure, list]:
    """Return a figure with so many panels, all of one scale, in rows of at most four."""
    columns = min(count, COLUMNS)
    rows = -(-count // columns)
    size = (WIDTH, 0.5 + height * rows)
    figure, grid = plt.subplots(rows, columns, figsize=size, sharey=True, squeeze=False)
    for axes in grid.ravel()[count:]:
        axes.set_axis_off()
    return figure, list(grid.ravel()[:count])
