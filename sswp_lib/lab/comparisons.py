"""Figures of many runs side by side, from tables of records: one dot a seed, means with 95 % intervals (Student's t)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from sswp_lib.config import Search
from sswp_lib.lab.plots import COLOURS, WIDTH, shade
from sswp_lib.lab.records import Done
from sswp_lib.lab.tables import INITS, inits

INIT_COLOURS = {"random": COLOURS[7], "simclr": COLOURS[1], "concomitant": COLOURS[0]}
INIT_MARKERS = {"random": "s", "simclr": "^", "concomitant": "o"}


def half_width(values: pd.Series) -> float:
    """Return half the 95 % interval of a mean; 0 for a single value."""
    n = len(values)
    return float(stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / math.sqrt(n)) if n > 1 else 0.0


def arms(
    frame: pd.DataFrame, order: Sequence[str], columns: Sequence[str] = ("scratch", "fine-tuned"), unit: str = "test accuracy (%)", reported: dict[str, float] | None = None
) -> Figure:
    """One line an arm, best read downwards; one panel a column. `reported`: the paper's test errors, in a panel of their own."""
    panels = ([] if not reported else ["paper"]) + list(columns)
    figure, axes = plt.subplots(1, len(panels), figsize=(WIDTH, 0.9 + 0.32 * len(order)), sharey=True, squeeze=False)
    places = range(len(order))
    for panel, a in zip(panels, axes[0], strict=True):
        if panel == "paper":
            known = [(place, 100 - reported[arm]) for place, arm in enumerate(order) if reported.get(arm) is not None]
            a.plot([value for _, value in known], [place for place, _ in known], "D", color="0.4", ms=5)
            a.set(xlabel="test accuracy (%)", title="paper")
        else:
            for place, arm in enumerate(order):
                values = frame[frame["arm"] == arm][panel].dropna()
                a.plot(values, [place + 0.16] * len(values), ".", color="0.6", ms=4)
                a.errorbar(values.mean(), place - 0.08, xerr=half_width(values), color=COLOURS[0], marker="o", ms=5, capsize=3, lw=1.5)
            a.set(xlabel=unit, title=panel)
        a.title.set_fontsize(8)
        a.margins(x=0.12)
    axes[0][0].set_yticks(places, order)
    axes[0][0].set_ylim(len(order) - 0.5, -0.5)
    return figure


def fine_tuning(best: pd.DataFrame) -> Figure:
    """Test accuracy by initialisation, one line a seed, with means and 95 % intervals."""
    order = inits(best.init)
    figure, axes = plt.subplots(figsize=(WIDTH * 0.75, 2.8))
    wide = best.pivot(index="seed", columns="init", values="test")[order]
    for _, row in wide.iterrows():
        axes.plot(range(len(order)), row, color="0.7", lw=0.8, marker=".", zorder=1)
    for place, init in enumerate(order):
        axes.errorbar(place, wide[init].mean(), yerr=half_width(wide[init]), color=INIT_COLOURS[init], marker=INIT_MARKERS[init], ms=7, capsize=4, lw=2, zorder=2)
        axes.annotate(f"{wide[init].mean():.1f}", (place, wide[init].mean()), xytext=(9, 0), textcoords="offset points", va="center", color=INIT_COLOURS[init], weight="bold")
    axes.set_xticks(range(len(order)), [INITS[init] for init in order])
    axes.set(xlim=(-0.4, len(order) - 0.5), ylabel="test accuracy (%)", xlabel="initialisation")
    return figure


def learning_rates(runs: pd.DataFrame, column: str = "validation") -> Figure:
    """Accuracy by learning rate and initialisation, means and standard deviations over seeds; validation is what a rate is chosen on."""
    figure, axes = plt.subplots(figsize=(WIDTH * 0.75, 2.6))
    for init in inits(runs.init):
        mean = runs[runs.init == init].groupby("lr")[column].agg(["mean", "std"])
        axes.errorbar(mean.index, mean["mean"], yerr=mean["std"].fillna(0), color=INIT_COLOURS[init], marker=INIT_MARKERS[init], capsize=3, label=INITS[init])
    axes.set(xscale="log", xlabel="learning rate", ylabel=f"{column} accuracy (%)")
    rates = sorted(runs["lr"].unique())
    axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
    axes.minorticks_off()
    figure.legend(title="mean and sd over seeds", loc="outside right center", frameon=False)
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
            a.plot([place + 0.1] * len(values), values, ".", color="0.6", ms=4)
        a.errorbar(range(len(groups)), [g.mean() for g in groups], yerr=[half_width(g) for g in groups], color=COLOURS[0], marker="o", capsize=3)
        a.set_xticks(range(len(groups)), ["".join(c for c in arm if c.isdigit()) for arm in order[name]])
        a.set(xlabel=name)
        a.margins(x=0.2)
    axes[0][0].set_ylabel("test accuracy (%)")
    return figure


def through_phases(done: Iterable[Done], names: Sequence[str]) -> Figure:
    """Loss and mean entropy of alpha over the epochs, one colour an arm (seed 0); the last arm's phases are shaded."""
    found = {job.labels["arm"]: job.record for job in done if job.labels["what"] == "search" and job.labels["seed"] == 0}
    figure, (loss, entropy) = plt.subplots(1, 2, figsize=(WIDTH, 2.8), sharex=True)
    for i, name in enumerate(names):
        rows = found[name].history
        style = {"color": COLOURS[(7, 1, 0, 2)[i]], "ls": ("--", "-.", "-", ":")[i], "label": name}
        loss.plot([row["epoch"] + 1 for row in rows], [row["loss"] for row in rows], **style)
        entropy.plot([row["epoch"] + 1 for row in rows], [np.mean(row["entropy"]) for row in rows], **style)
    last = found[names[-1]]
    for axes in (loss, entropy):
        shade(axes, Search.model_validate(last.config["search"]), last.config["model"]["num_cells"])
        axes.set_xlabel("epoch")
    loss.set_ylabel("loss (nats)")
    entropy.set_ylabel("entropy of alpha / log M")
    figure.legend(*loss.get_legend_handles_labels(), loc="outside lower center", ncols=len(names), frameon=False)
    return figure


def weight_norms(norms: dict[str, pd.Series]) -> Figure:
    """Distribution of the root mean square of each weight tensor, by where the weights come from."""
    figure, axes = plt.subplots(figsize=(WIDTH * 0.75, 2.6))
    everything = np.log10(pd.concat(norms.values()))
    bins = 10 ** np.linspace(everything.min(), everything.max(), 25)
    for init, values in norms.items():
        axes.hist(values, bins=bins, histtype="step", lw=1.8, color=INIT_COLOURS[init], ls={"simclr": "--"}.get(init, "-"), label=f"{INITS[init]}, median {values.median():.3f}")
        axes.axvline(values.median(), color=INIT_COLOURS[init], lw=1, ls=":")
    axes.set(xscale="log", xlabel="root mean square of a weight tensor", ylabel="tensors")
    axes.legend(frameon=False, fontsize=7)
    return figure


def size_against_accuracy(frame: pd.DataFrame, order: Sequence[str]) -> Figure:
    """Test accuracy from scratch against parameters, one point an architecture with its 95 % interval."""
    figure, axes = plt.subplots(figsize=(WIDTH, 3.0))
    for i, arm in enumerate(order):
        found = frame[frame["arm"] == arm]
        axes.errorbar(
            found["parameters"].mean() / 1e3, found["scratch"].mean(), yerr=half_width(found["scratch"]), marker="osD^vP"[i % 6], color=COLOURS[i], ms=7, capsize=3, label=arm
        )
    axes.set(xlabel="parameters (thousands)", ylabel="test accuracy from scratch (%)")
    figure.legend(loc="outside right center", frameon=False, fontsize=7)
    return figure
