"""Every figure, from records alone: readable at the width of a column, safe for colour-blind readers, units on every axis."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import graphviz
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from scipy import stats

from sswp_lib.config import Search
from sswp_lib.lab.records import Record
from sswp_lib.lab.tables import INITS, figures_folder
from sswp_lib.learn.phases import PHASES, phase, pruning_epochs
from sswp_lib.space import CANDIDATES, Genotype, reduction_cells

WIDTH = 6.5  # inches: a column's width
COLOURS = sns.color_palette("colorblind")
OPERATION_COLOURS = {name: COLOURS[i] for i, name in enumerate(CANDIDATES)}
OPERATION_DASHES = dict(zip(CANDIDATES, ("-", "--", "--", "-.", "-.", ":", ":"), strict=True))  # told apart in grey as well
PHASE_COLOURS = dict(zip(PHASES, (COLOURS[7], COLOURS[9], COLOURS[1]), strict=True))
DOT_PIXELS = (440, 1300)  # height and width that dot's drawing of a cell rarely exceeds
INIT_COLOURS = {"random": COLOURS[7], "simclr": COLOURS[1], "concomitant": COLOURS[0]}


def set_style() -> None:
    """Set the one style of all figures."""
    sns.set_theme(context="paper", style="whitegrid", palette="colorblind")
    plt.rcParams.update({"figure.dpi": 110, "savefig.dpi": 200, "savefig.bbox": "tight", "figure.constrained_layout.use": True, "svg.hashsalt": "sswp"})


def save(figure: Figure, name: str, preset: str) -> Figure:
    """Write a figure as png and svg to figures/<preset>/; returns it."""
    for suffix in ("png", "svg"):
        figure.savefig(figures_folder(preset) / f"{name}.{suffix}", metadata={"Date": None} if suffix == "svg" else None)
    plt.close(figure)
    return figure


def phases(config: Search, num_cells: int) -> Figure:
    """Figure 3: the phases of a search, and how long each cell goes on searching."""
    figure, axes = plt.subplots(figsize=(WIDTH, 1.2 + 0.16 * num_cells))
    ends = pruning_epochs(config, num_cells)
    for name, (start, end) in _spans(config).items():
        axes.axvspan(start, end, color=PHASE_COLOURS[name], alpha=0.25, lw=0)
        axes.text((start + end) / 2, -1.1, name, ha="center", va="center")
    for cell, end in ends.items():
        axes.barh(cell, end, color=COLOURS[0], height=0.6, label="searching" if cell == 0 else None)
        axes.barh(cell, config.epochs - end, left=end, color=COLOURS[2], height=0.6, hatch="///", edgecolor="white", label="pruned" if cell == 0 else None)
    axes.set(xlim=(0, config.epochs), ylim=(num_cells - 0.4, -1.7), xlabel="epoch", ylabel="cell")
    axes.set_yticks(range(0, num_cells, max(num_cells // 10, 1)))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22 - 0.5 / num_cells), ncols=2, frameon=False)
    axes.grid(False)
    return figure


def _spans(config: Search) -> dict[str, tuple[int, int]]:
    """Return {phase: (its first epoch, the one after its last)} of the phases that occur."""
    epochs = {name: [e for e in range(config.epochs) if phase(e, config) == name] for name in PHASES}
    return {name: (found[0], found[-1] + 1) for name, found in epochs.items() if found}


def search_curves(record: Record) -> Figure:
    """Loss and contrastive accuracy over the epochs of a search, with the phases shaded and each pruning marked."""
    history, config = record.history, Search.model_validate(record.config["search"])
    figure, (loss, accuracy) = plt.subplots(1, 2, figsize=(WIDTH, 2.6), sharex=True)
    epochs = [row["epoch"] + 1 for row in history]
    loss.plot(epochs, [row["loss"] for row in history], color=COLOURS[0], label="weight steps")
    alpha_rows = [row for row in history if "alpha_loss" in row]
    if alpha_rows:
        loss.plot([r["epoch"] + 1 for r in alpha_rows], [r["alpha_loss"] for r in alpha_rows], color=COLOURS[3], ls=":", label="architecture steps")
    if config.objective == "simclr":
        views = 2 * config.batch_size
        loss.axhline(math.log(views - 1), color="0.3", ls="--", lw=1, label=f"chance, log({views - 1})")
    accuracy.plot(epochs, [100 * row["accuracy"] for row in history], color=COLOURS[0])
    for axes in (loss, accuracy):
        _shade(axes, config, record.config["model"]["num_cells"])
        axes.set_xlabel("epoch")
    loss.set_ylabel("loss (nats)")
    accuracy.set_ylabel("contrastive accuracy (%)" if config.objective != "supervised" else "accuracy (%)")
    loss.legend(loc="upper right", bbox_to_anchor=(1, 0.93), fontsize=7)
    return figure


def _shade(axes, config: Search, num_cells: int) -> None:
    for name, (start, end) in _spans(config).items():
        axes.axvspan(start, end, color=PHASE_COLOURS[name], alpha=0.15, lw=0)
    for epoch in pruning_epochs(config, num_cells).values():
        axes.plot([epoch], [0.97], marker="v", ms=5, color="0.2", transform=axes.get_xaxis_transform(), clip_on=False)
    axes.set_xlim(0, config.epochs)


def entropy_map(record: Record) -> Figure:
    """Entropy of alpha for each cell over the epochs: 1 all candidates alike, 0 fixed. Grey: pruned."""
    history, num_cells = record.history, record.config["model"]["num_cells"]
    values = np.array([row["entropy"] for row in history]).T  # (cells, epochs)
    figure, axes = plt.subplots(figsize=(WIDTH, 1.3 + 0.18 * num_cells))
    pruned = Search.model_validate(record.config["search"])
    ends = pruning_epochs(pruned, num_cells)
    searching = np.array([[epoch < ends[cell] for epoch in range(values.shape[1])] for cell in range(num_cells)])
    shown = np.where(searching, values, np.nan)
    axes.set_facecolor("0.85")
    image = axes.imshow(shown, aspect="auto", cmap="viridis", vmax=1, extent=(0, len(history), num_cells - 0.5, -0.5), interpolation="nearest")
    for cell, end in ends.items():
        if end < len(history):
            axes.text(end + 0.4, cell, "pruned", va="center", fontsize=6, color="0.3")
    axes.set(xlabel="epoch", ylabel="cell")
    axes.set_yticks(range(0, num_cells, max(num_cells // 10, 1)))
    axes.grid(False)
    figure.colorbar(image, label="entropy of alpha / log M", format="%.4g")
    return figure


def operation_shares(record: Record) -> Figure:
    """Mean probability of each candidate over all edges, and how often each stands in the genotype found."""
    figure, (over_time, found) = plt.subplots(1, 2, figsize=(WIDTH, 3.1), width_ratios=(3, 2))
    epochs = [row["epoch"] + 1 for row in record.history]
    for i, name in enumerate(CANDIDATES):
        over_time.plot(epochs, [100 * row["shares"][i] for row in record.history], color=OPERATION_COLOURS[name], ls=OPERATION_DASHES[name], label=name)
    over_time.set(xlabel="epoch", ylabel="mean probability (%)", xlim=(0, epochs[-1]))
    counts = record.result["operation_counts"]
    found.barh(list(counts), list(counts.values()), color=[OPERATION_COLOURS[name] for name in counts])
    found.invert_yaxis()
    found.set(xlabel="edges of the genotype")
    found.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(*over_time.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=7, frameon=False)
    return figure


def memory(record: Record) -> Figure:
    """Peak memory of search steps beside compact networks' training steps."""
    found, views = record.result["bytes"], record.result["views"]
    rows = {
        "compact network, 8 edges a cell": found["compact, 8 edges"], "compact network, 14 edges a cell": found["compact, 14 edges"],
        "search: weight step": found["weight step"], "search: architecture step": found["architecture step"],
    }  # fmt: skip
    figure, axes = plt.subplots(figsize=(WIDTH, 1.9))
    bars = axes.barh(list(rows), [value / 2**20 for value in rows.values()], color=[COLOURS[7], COLOURS[7], COLOURS[0], COLOURS[0]])
    axes.bar_label(bars, [f"{value / found['compact, 14 edges']:.2f}x" for value in rows.values()], padding=3, fontsize=7)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel(f"peak memory of a step of {views} views (MiB)")
    return figure


def fine_tuning(best: pd.DataFrame, preset: str) -> Figure:
    """Test accuracy by initialisation, one line a seed, with means and 95 % intervals."""
    inits = [init for init in INITS if init in set(best.init)]
    figure, axes = plt.subplots(figsize=(WIDTH * 0.75, 2.8))
    wide = best.pivot(index="seed", columns="init", values="test")[inits]
    for _, row in wide.iterrows():
        axes.plot(range(len(inits)), row, color="0.7", lw=0.8, marker=".", zorder=1)
    for place, init in enumerate(inits):
        values = wide[init]
        half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else 0
        axes.errorbar(place, values.mean(), yerr=half, color=INIT_COLOURS[init], marker="o", ms=7, capsize=4, lw=2, zorder=2)
        axes.annotate(f"{values.mean():.1f}", (place, values.mean()), xytext=(9, 0), textcoords="offset points", va="center", color=INIT_COLOURS[init], weight="bold")
    axes.set_xticks(range(len(inits)), [INITS[init] for init in inits])
    axes.set(xlim=(-0.4, len(inits) - 0.5), ylabel="test accuracy (%)", xlabel="initialisation")
    axes.set_title(f"{int(best.labels.iloc[0])} labels, {len(wide)} seeds, preset {preset}", fontsize=8)
    return figure


def learning_rates(runs: pd.DataFrame) -> Figure:
    """Validation accuracy by learning rate: what the learning rate of each arm is chosen on."""
    figure, axes = plt.subplots(figsize=(WIDTH * 0.75, 2.6))
    for init, group in runs.groupby("init"):
        mean = group.groupby("lr")["validation"].agg(["mean", "std"])
        axes.errorbar(mean.index, mean["mean"], yerr=mean["std"].fillna(0), color=INIT_COLOURS[init], marker="os"[init == "random"], capsize=3, label=INITS[init])
    axes.set(xscale="log", xlabel="learning rate", ylabel="validation accuracy (%)")
    rates = sorted(runs["lr"].unique())
    axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
    axes.minorticks_off()
    figure.legend(title="mean and sd over seeds", loc="outside right center", frameon=False)
    return figure


def image_rows(rows: dict[str, np.ndarray]) -> Figure:
    """Rows of images, each (n, S, S, 3) in 0-1, with a label before each row."""
    n = max(len(images) for images in rows.values())
    figure, axes = plt.subplots(len(rows), n, figsize=(WIDTH, WIDTH / n * len(rows)), squeeze=False)
    for line, (label, images) in zip(axes, rows.items(), strict=True):
        for a in line:
            a.set(xticks=[], yticks=[])
            a.grid(False)
            sns.despine(ax=a, left=True, bottom=True)
        for a, image in zip(line, images, strict=False):
            a.imshow(np.clip(image, 0, 1), interpolation="nearest")
        line[0].set_ylabel(label, fontsize=7)
    return figure


def cell_graph(genotype: Genotype, cell: int) -> graphviz.Digraph:
    """Return one cell as a graphviz graph: inputs left, output right, operations on the edges."""
    kind = "reduction" if cell in reduction_cells(genotype.num_cells) else "normal"
    graph = graphviz.Digraph(
        graph_attr={"rankdir": "LR", "label": f"cell {cell} ({kind})", "labelloc": "t", "fontname": "Helvetica", "fontsize": "13", "nodesep": "0.12", "ranksep": "0.35"}
    )
    graph.attr("node", fontname="Helvetica", fontsize="11", shape="box", style="rounded,filled", height="0.3", margin="0.1,0.04")
    graph.attr("edge", fontname="Helvetica", fontsize="9")
    names = {0: f"cell {cell - 2}" if cell > 1 else "stem", 1: f"cell {cell - 1}" if cell > 0 else "stem "}
    for node in range(6):
        graph.node(str(node), names.get(node, f"node {node}"), fillcolor="#dce9f5" if node < 2 else "#f5f0dc")
    graph.node("out", "output", fillcolor="#dff0df")
    for position, (name, source) in enumerate(genotype.cells[cell]):
        graph.edge(str(source), str(2 + position // 2), label=name, color=_hex(name), fontcolor="#333333", penwidth="1.6")
    for node in range(2, 6):
        graph.edge(str(node), "out", color="#bbbbbb")
    return graph


def _hex(name: str) -> str:
    return "#" + "".join(f"{round(255 * c):02x}" for c in OPERATION_COLOURS[name])


def genotype(found: Genotype, cells: Sequence[int] | None = None, columns: int = 2) -> Figure:
    """Draw cells of a genotype side by side: by graphviz, or by matplotlib where the program `dot` is missing."""
    cells = list(range(found.num_cells)) if cells is None else list(cells)
    lines = math.ceil(len(cells) / columns)
    figure, axes = plt.subplots(lines, columns, figsize=(WIDTH * 1.6, 1.8 * lines), squeeze=False)
    for a in axes.flat:
        a.axis("off")
    for a, cell in zip(axes.flat, cells, strict=False):
        if shutil.which("dot"):
            _draw_by_dot(a, found, cell)
        else:
            _draw_plainly(a, found, cell)
    return figure


def _draw_by_dot(axes, found: Genotype, cell: int) -> None:
    from io import BytesIO

    graph = cell_graph(found, cell)
    graph.graph_attr["dpi"] = "160"
    picture = plt.imread(BytesIO(graph.pipe(format="png")))
    height, width = DOT_PIXELS
    axes.imshow(picture, extent=(0, picture.shape[1], picture.shape[0], 0), interpolation="antialiased")
    axes.set(xlim=(0, max(width, picture.shape[1])), ylim=(max(height, picture.shape[0]), 0))  # one scale for all cells


def _draw_plainly(axes, found: Genotype, cell: int) -> None:
    place = {0: (0, 1.0), 1: (0, -1.0), 2: (1.2, 1.3), 3: (2.0, -1.3), 4: (2.8, 1.3), 5: (3.6, -1.3)}
    for position, (name, source) in enumerate(found.cells[cell]):
        (x0, y0), (x1, y1) = place[source], place[2 + position // 2]
        axes.annotate("", (x1, y1), (x0, y0), arrowprops={"arrowstyle": "-|>", "color": OPERATION_COLOURS[name], "lw": 1.4, "shrinkA": 9, "shrinkB": 9})
        share = 0.35 + 0.3 * (position % 2)
        axes.text(x0 + share * (x1 - x0), y0 + share * (y1 - y0), name, fontsize=5, ha="center", va="center", bbox={"fc": "white", "ec": "none", "pad": 0.4})
    for node, (x, y) in place.items():
        axes.text(
            x, y, f"in {node}" if node < 2 else str(node), fontsize=7, ha="center", va="center", bbox={"boxstyle": "round", "fc": "#dce9f5" if node < 2 else "#f5f0dc", "ec": "0.4"}
        )
    kind = "reduction" if cell in reduction_cells(found.num_cells) else "normal"
    axes.set(xlim=(-0.4, 4.0), ylim=(-1.8, 1.8))
    axes.set_title(f"cell {cell} ({kind})", fontsize=8)


def save_cells(found: Genotype, name: str, preset: str) -> Path:
    """Write the genotype's JSON beside its drawing; returns the path."""
    path = figures_folder(preset) / f"{name}.json"
    path.write_text(found.to_json() + "\n")
    return path
