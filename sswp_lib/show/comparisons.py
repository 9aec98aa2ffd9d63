"""Figures of many runs side by side, from tables of records: one dot a seed, means with 95 % intervals (Student's
t).
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator
from scipy import stats

from sswp_lib.config import Search
from sswp_lib.learn.phases import pruning_epochs
from sswp_lib.paper import learnt
from sswp_lib.paper.tables import INITS, inits
from sswp_lib.runs.records import Done, Record
from sswp_lib.show.plots import COLOURS, OPERATION_COLOURS, SMALL, WIDTH, shade
from sswp_lib.space import CANDIDATES

INIT_COLOURS = {"random": COLOURS[7], "simclr": COLOURS[1], "simclr_matched": COLOURS[2], "concomitant": COLOURS[0]}
INIT_MARKERS = {"random": "s", "simclr": "^", "simclr_matched": "v", "concomitant": "o"}


def half_width(values: pd.Series) -> float:
    """Return half the 95 % interval of a mean; 0 for a single value."""
    n = len(values)
    return float(stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / math.sqrt(n)) if n > 1 else 0.0


def apart(values: pd.Series) -> pd.Series:
    """Return how far from their line to draw the dots of `values`, so that equal ones stand beside each other."""
    return 0.09 * values.groupby(values).cumcount()


def arms(
    frame: pd.DataFrame,
    order: Sequence[str],
    columns: dict[str, str] | None = None,
    reported: dict[str, float] | None = None,
    arm: str = "",
) -> Figure:
    """One line an arm, best read downwards; one panel a column, all measured ones on one scale of test accuracy.

    Args:
        columns: {column: title of its panel}; what was trained from scratch and what was fine-tuned by default.
        reported: the paper's test errors (%), in a panel and on a scale of their own. arm: what the arms are, where
            their names do not say.
    """
    columns = columns or {"scratch": "from scratch", "fine-tuned": "fine-tuned"}
    titles = ["paper, its own scale"] * bool(reported) + list(columns.values())
    figure, axes = plt.subplots(1, len(titles), figsize=(WIDTH, 1.1 + 0.36 * len(order)), sharey=True, squeeze=False)
    measured = axes[0][-len(columns) :]
    for a, title in zip(axes[0], titles, strict=True):
        a.set_title(title, fontsize=9)
        a.set_xlabel("test accuracy (%)")
        a.margins(x=0.12)
    if reported:
        known = [(100 - reported[name], place) for place, name in enumerate(order) if reported.get(name) is not None]
        axes[0][0].plot(*zip(*known, strict=True), "D", color="0.4", ms=5)
    for column, a in zip(columns, measured, strict=True):
        if a is not measured[0]:
            a.sharex(measured[0])
        arm_by_line(a, frame, order, column)
    _end_at_100(measured[0])
    for a in axes[0]:
        a.xaxis.set_major_locator(MaxNLocator(3))
    name_lines(axes[0][0], order)
    axes[0][0].set_ylabel(arm)
    return figure


def arm_by_line(axes: Axes, frame: pd.DataFrame, order: Sequence[str], column: str) -> None:
    """Draw one line an arm: its values of a column as dots, and their mean with its 95 % interval."""
    for place, name in enumerate(order):
        values = frame[frame["arm"] == name][column].dropna()
        axes.plot(values, place + 0.16 + apart(values), ".", color="0.5", ms=5)
        bar = {"color": COLOURS[0], "marker": "o", "ms": 5, "capsize": 3, "lw": 1.5}
        axes.errorbar(values.mean(), place - 0.08, xerr=half_width(values), **bar)


def name_lines(axes: Axes, order: Sequence[str]) -> None:
    """Write each line's arm beside it, the first at the top."""
    axes.set_yticks(range(len(order)), order)
    axes.set_ylim(len(order) - 0.5, -0.5)


def by_data(frames: dict[str, pd.DataFrame], order: Sequence[str], column: str) -> Figure:
    """One line an arm, best read downwards; a panel and a scale for each data set. Dots are searches, or what a search
    is set against, at the mean of their trainings; means with 95 % intervals.

    Args:
        frames: {title: of `tables.by_arm`}. column: of test accuracies in percent.
    """
    figure, axes = plt.subplots(1, len(frames), figsize=(WIDTH, 1.3 + 0.36 * len(order)), sharey=True, squeeze=False)
    for a, (title, frame) in zip(axes[0], frames.items(), strict=True):
        arm_by_line(a, frame, order, column)
        a.set_title(textwrap.fill(title, 36), fontsize=9)
        a.set_xlabel("test accuracy (%)")
        a.margins(x=0.12)
        a.xaxis.set_major_locator(MaxNLocator(4))
        _end_at_100(a)
    name_lines(axes[0][0], order)
    return figure


def _end_at_100(axes: Axes) -> None:
    """End a scale of percentages at 100, where Student's intervals know no end."""
    low, high = axes.get_xlim()
    axes.set_xlim(right=min(high, 100 + 0.02 * (100 - min(low, 99))))


def fine_tuning(best: pd.DataFrame) -> Figure:
    """Test accuracy by initialisation, one line a seed, with means and 95 % intervals."""
    order = inits(best.init)
    figure, axes = plt.subplots(figsize=(WIDTH * 0.75, 2.8))
    wide = best.pivot(index="seed", columns="init", values="test")[order]
    for _, row in wide.iterrows():
        axes.plot(range(len(order)), row, color="0.7", lw=0.8, marker=".", zorder=1)
    for place, init in enumerate(order):
        axes.errorbar(
            place,
            wide[init].mean(),
            yerr=half_width(wide[init]),
            color=INIT_COLOURS[init],
            marker=INIT_MARKERS[init],
            ms=7,
            capsize=4,
            lw=2,
            zorder=2,
        )
        side = (
            {"xytext": (-9, 0), "ha": "right"} if place == 0 else {"xytext": (9, 0), "ha": "left"}
        )  # away from the lines
        axes.annotate(
            f"{wide[init].mean():.1f}",
            (place, wide[init].mean()),
            **side,
            textcoords="offset points",
            va="center",
            color=INIT_COLOURS[init],
            weight="bold",
        )
    axes.set_xticks(range(len(order)), [INITS[init] for init in order])
    axes.set(xlim=(-0.5, len(order) - 0.5), ylabel="test accuracy (%)", xlabel="initialisation")
    return figure


def learning_rates(runs: pd.DataFrame, column: str = "validation") -> Figure:
    """Accuracy by learning rate and initialisation, means and standard deviations over seeds; validation is what a rate
    is chosen on.
    """
    figure, axes = plt.subplots(figsize=(WIDTH * 0.75, 3.0))
    for i, init in enumerate(inits(runs.init)):
        mean = runs[runs.init == init].groupby("lr")[column].agg(["mean", "std"])
        beside = 1.03 ** (i - 1)  # or equal bars would hide one another
        axes.errorbar(
            mean.index * beside,
            mean["mean"],
            yerr=mean["std"].fillna(0),
            color=INIT_COLOURS[init],
            marker=INIT_MARKERS[init],
            capsize=3,
            label=INITS[init],
        )
    axes.set(xscale="log", xlabel="learning rate", ylabel=f"{column} accuracy (%)")
    rates = sorted(runs["lr"].unique())
    axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
    axes.minorticks_off()
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


def by_fraction(frame: pd.DataFrame) -> Figure:
    """Figure 5: test accuracy against the labelled fraction, a band of the 95 % interval for each initialisation."""
    figure, axes = plt.subplots(figsize=(WIDTH, 3.2))
    for init in inits(frame.init):
        groups = frame[frame.init == init].groupby("fraction")["test"]
        mean, half = groups.mean(), groups.apply(half_width)
        axes.plot(100 * mean.index, mean, color=INIT_COLOURS[init], marker=INIT_MARKERS[init], ms=5, label=INITS[init])
        axes.fill_between(100 * mean.index, mean - half, mean + half, color=INIT_COLOURS[init], alpha=0.15, lw=0)
    axes.set(xlabel="labelled images (% of those for training)", ylabel="test accuracy (%)")
    axes.set_ylim(top=min(axes.get_ylim()[1], 100.5))
    axes.legend(loc="lower right", frameon=False)
    return figure


def along(frames: dict[str, pd.DataFrame], order: dict[str, Sequence[str]], column: str = "scratch") -> Figure:
    """Figure 4: test accuracy along arms that are steps of one setting, such as "20 epochs"; one panel a setting."""
    figure, axes = plt.subplots(1, len(frames), figsize=(WIDTH, 2.6), sharey=True, squeeze=False)
    for (name, frame), a in zip(frames.items(), axes[0], strict=True):
        groups = [frame[frame["arm"] == arm][column].dropna() for arm in order[name]]
        for place, values in enumerate(groups):
            a.plot(place + 0.1 + apart(values), values, ".", color="0.5", ms=5)
        a.errorbar(
            range(len(groups)),
            [g.mean() for g in groups],
            yerr=[half_width(g) for g in groups],
            color=COLOURS[0],
            marker="o",
            capsize=3,
        )
        a.set_xticks(range(len(groups)), ["".join(c for c in arm if c.isdigit()) for arm in order[name]])
        a.set(xlabel=name)
        a.margins(x=0.2)
    axes[0][0].set_ylabel("test accuracy (%)")
    return figure


def through_phases(done: Iterable[Done], names: Sequence[str]) -> Figure:
    """Loss, and entropy of alpha averaged over the cells that still search, one line an arm (seed 0); the last arm's
    phases are shaded.
    """
    found = {
        job.labels["arm"]: job.record for job in done if job.labels["what"] == "search" and job.labels["seed"] == 0
    }
    figure, (loss, entropy) = plt.subplots(1, 2, figsize=(WIDTH, 3.2), sharex=True)
    for i, name in enumerate(names):
        rows, config = found[name].history, found[name].config
        ends = pruning_epochs(Search.model_validate(config["search"]), config["model"]["num_cells"])
        searching = [[value for cell, value in enumerate(row["entropy"]) if row["epoch"] < ends[cell]] for row in rows]
        style = {"color": COLOURS[(7, 1, 0, 2)[i]], "ls": ("--", "-.", "-", ":")[i], "label": name}
        loss.plot([row["epoch"] + 1 for row in rows], [row["loss"] for row in rows], **style)
        entropy.plot(
            [row["epoch"] + 1 for row in rows], [np.mean(values) if values else np.nan for values in searching], **style
        )
    last = found[names[-1]]
    for axes in (loss, entropy):
        shade(axes, Search.model_validate(last.config["search"]), last.config["model"]["num_cells"])
        axes.set_xlabel("epoch")
    loss.set_ylabel("loss (nats)")
    entropy.set_ylabel("entropy of alpha / log M,\ncells still searching")
    figure.legend(*loss.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return figure


def weight_norms(norms: dict[str, pd.Series]) -> Figure:
    """Distribution of the root mean square of each weight tensor, by where the weights come from."""
    figure, axes = plt.subplots(figsize=(WIDTH * 0.75, 2.6))
    everything = np.log10(pd.concat(norms.values()))
    bins = 10 ** np.linspace(everything.min(), everything.max(), 25)
    for init, values in norms.items():
        axes.hist(
            values,
            bins=bins,
            histtype="step",
            lw=1.8,
            color=INIT_COLOURS[init],
            ls={"simclr": "--"}.get(init, "-"),
            label=f"{INITS[init]}, median {values.median():.3f}",
        )
        axes.axvline(values.median(), color=INIT_COLOURS[init], lw=1, ls=":")
    axes.set(xscale="log", xlabel="root mean square of a weight tensor", ylabel="weight tensors")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.legend(frameon=False, fontsize=SMALL)
    return figure


def against_accuracy(
    frame: pd.DataFrame, order: Sequence[str], x: str = "parameters", label: str = "parameters (thousands)",
    scale: float = 1e-3,
) -> Figure:  # fmt: skip
    """Test accuracy from scratch against another column, times `scale`; one point an arm with its 95 % interval."""
    figure, axes = plt.subplots(figsize=(WIDTH, 3.0))
    for i, arm in enumerate(order):
        found = frame[frame["arm"] == arm]
        axes.errorbar(
            found[x].mean() * scale,
            found["scratch"].mean(),
            yerr=half_width(found["scratch"]),
            marker="osD^vPX*<>"[i % 10],
            color=COLOURS[i],
            ms=7,
            capsize=3,
            label=arm,
        )
    axes.set(xlabel=label, ylabel="test accuracy from scratch (%)")
    figure.legend(loc="outside right center", frameon=False, fontsize=SMALL)
    return figure


def differences(frame: pd.DataFrame, order: Sequence[str], columns: dict[str, str]) -> Figure:
    """One line an arm, one panel a column: differences in points as dots, their mean with its 95 % interval, and a line
    where there is none.
    """
    size = (WIDTH, 1.1 + 0.36 * len(order))
    figure, axes = plt.subplots(1, len(columns), figsize=size, sharey=True, sharex=True, squeeze=False)
    for a, (column, title) in zip(axes[0], columns.items(), strict=True):
        a.axvline(0, color="0.4", lw=0.8, ls="--")
        arm_by_line(a, frame, order, column)
        a.set_title(title, fontsize=9)
        a.set_xlabel("difference (points)")
    name_lines(axes[0][0], order)
    return figure


def evidence(searches: Sequence[Record]) -> Figure:
    """Has alpha learnt? Left: how far alpha came beside a random walk, a dot for each search and cell. Right: alpha of
    two searches against each other, centred by edge, an entry a dot.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.4))
    found = learnt.dots(searches)
    for cell, rows in found.groupby("cell"):
        colour, marker = COLOURS[cell % len(COLOURS)], "os^Dv*PX<>"[cell % 10]
        left.plot(rows["updates"], rows["drift"], marker, color=colour, ms=5, label=f"cell {cell}")
    left.axhline(1, color="0.3", ls="--", lw=1, label="by lot")
    ends = {axis: (0, 1.1 * max(found[name].max(), 1)) for axis, name in (("xlim", "updates"), ("ylim", "drift"))}
    left.set(xlabel="updates of an entry", ylabel="mean square of alpha / walk", **ends)
    left.legend(fontsize=SMALL, ncols=1 + (found["cell"].nunique() > 6), loc="best")
    if len(searches) < 2:
        right.text(0.5, 0.5, "one search", ha="center", transform=right.transAxes, fontsize=SMALL)
        right.set_axis_off()
        return figure
    values = learnt.alphas(searches)
    for place, name in enumerate(CANDIDATES):
        one, two = values[0, ..., place], values[1, ..., place]
        colour, marker = OPERATION_COLOURS[name], "os^Dv*P"[place]
        right.plot(one.ravel(), two.ravel(), marker, color=colour, ms=3, alpha=0.7, label=name)
    right.set_title(f"mean correlation {learnt.interval(learnt.by_entry(searches))}", fontsize=9)
    right.set(xlabel=f"alpha of search {searches[0].seed}", ylabel=f"alpha of search {searches[1].seed}")
    figure.legend(
        *right.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=SMALL
    )
    return figure
