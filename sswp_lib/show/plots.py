"""The figures of one search, and the style of all: from records alone, readable at the width of a column, safe for
colour-blind readers.

`comparisons` has the figures of many runs, `drawings` those of genotypes.
"""

from __future__ import annotations

import math
import re
import textwrap

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sswp_lib.config import Search
from sswp_lib.learn.data import ImageData, shown
from sswp_lib.learn.phases import PHASES, phase_lengths, pruning_epochs
from sswp_lib.paper.output import Output
from sswp_lib.runs.records import Record
from sswp_lib.space import CANDIDATES

WIDTH = 6.5  # inches: the text of a page, or both columns of one that has two
SMALL = 8  # points: the smallest letters of a figure
COLOURS = sns.color_palette("colorblind")
OPERATION_COLOURS = dict(zip(CANDIDATES, (*COLOURS[:6], (0.2, 0.2, 0.2)), strict=True))
OPERATION_DASHES = dict(
    zip(CANDIDATES, ("-", "--", "-.", ":", (0, (6, 1)), (0, (4, 1, 1, 1, 1, 1)), (0, (1, 0.6))), strict=True)
)  # told apart in grey as well
OPERATION_HATCHES = dict(zip(CANDIDATES, ("", "//", "\\\\", "..", "xx", "--", "++"), strict=True))
PHASE_COLOURS = dict(zip(PHASES, (COLOURS[7], COLOURS[9], COLOURS[1], COLOURS[2]), strict=True))
SHOWN_CLASSES, CLASS_LETTERS = 12, 14  # rows of a figure of classes; letters of a class's name before its row
CAPTION_FROM = "Caption from"  # a PNG's text: at what share of its height its caption begins
CAPTION_LETTERS = 18.5  # of the caption's size, in an inch


def set_style() -> None:
    """Set the one style of all figures."""
    sns.set_theme(context="paper", style="whitegrid", palette="colorblind", font_scale=1.1)
    plt.rcParams.update(
        {
            "figure.dpi": 110,
            "savefig.dpi": 200,
            "savefig.bbox": "tight",
            "figure.constrained_layout.use": True,
            "svg.hashsalt": "sswp",
        }
    )


def save(figure: Figure, name: str, output: Output, caption: str) -> Figure:
    """Write a figure with its caption as png and svg to the output's folder; returns it.

    The caption stands below the figure, and in the files' "Description" for whoever reads them by program; a PNG also
    says where it begins. It ends with the preset and whatever differs from it.
    """
    caption = f"{caption.rstrip('.')}. Preset {output.label}."
    whole = re.sub(r"(?<=\d) (?=%)|(?<=Preset) ", "\u00a0", caption)  # no line ends there
    lines = textwrap.fill(whole, width=int(figure.get_figwidth() * CAPTION_LETTERS))
    _fix_layout(figure)
    bottom = figure.get_tightbbox().y0 / figure.get_figheight()  # legends may stand below the axes
    below = bottom - 0.05 / figure.get_figheight()
    figure.text(0.01, below, lines, fontsize=SMALL, color="0.25", va="top", ha="left")
    whole = figure.get_tightbbox().padded(plt.rcParams["savefig.pad_inches"])
    share = (whole.y1 - below * figure.get_figheight()) / whole.height
    own = {"png": {CAPTION_FROM: f"{share:.4f}"}, "svg": {"Date": None}}
    for suffix, metadata in own.items():
        path = output.folder / f"{name}.{suffix}"
        figure.savefig(path, metadata={"Description": caption, **metadata}, bbox_inches="tight")
    plt.close(figure)
    return figure


def _fix_layout(figure: Figure) -> None:
    """Lay a figure out once and for all; its legends would otherwise move to the edge of whatever part of it is
    saved.
    """
    figure.draw_without_rendering()
    for legend in figure.legends:
        corner = figure.transFigure.inverted().transform(legend.get_window_extent().p0)
        legend.set_loc("lower left")
        legend.borderaxespad = 0
        legend.set_bbox_to_anchor(corner, transform=figure.transFigure)
    figure.set_layout_engine("none")


def phases(config: Search, num_cells: int) -> Figure:
    """Figure 3: the phases of a search, and how long each cell goes on searching."""
    figure, axes = plt.subplots(figsize=(WIDTH, 1.2 + 0.16 * num_cells))
    ends = pruning_epochs(config, num_cells)
    _shade_phases(axes, config)
    for cell, end in ends.items():
        axes.barh(cell, end, color=COLOURS[0], height=0.6, label="searching" if cell == 0 else None)
        axes.barh(
            cell,
            config.epochs - end,
            left=end,
            color=COLOURS[2],
            height=0.6,
            hatch="///",
            edgecolor="white",
            label="pruned" if cell == 0 else None,
        )
    axes.set(xlim=(0, config.epochs), ylim=(num_cells - 0.3, -0.7), xlabel="epoch", ylabel="cell")
    axes.set_yticks(range(0, num_cells, max(num_cells // 10, 1)))
    axes.grid(False)
    figure.legend(loc="outside lower center", ncols=5, frameon=False)
    return figure


def _shade_phases(axes: Axes, config: Search) -> None:
    """Shade the phases that occur behind an axis of epochs, labelled for a legend."""
    start = 0
    for name, length in phase_lengths(config).items():
        if length:
            axes.axvspan(start, start + length, color=PHASE_COLOURS[name], alpha=0.25, lw=0, label=name)
        start += length


def search_curves(record: Record) -> Figure:
    """Loss and contrastive accuracy over the epochs of a search, with the phases shaded and each pruning marked."""
    history, config = record.history, Search.model_validate(record.config["search"])
    figure, (loss, accuracy) = plt.subplots(1, 2, figsize=(WIDTH, 3.0), sharex=True)
    epochs = [row["epoch"] + 1 for row in history]
    loss.plot(epochs, [row["loss"] for row in history], color=COLOURS[0], label="weight steps")
    alpha_rows = [row for row in history if "alpha_loss" in row]
    if alpha_rows:
        loss.plot(
            [r["epoch"] + 1 for r in alpha_rows],
            [r["alpha_loss"] for r in alpha_rows],
            color=COLOURS[3],
            ls=":",
            label="architecture steps",
        )
    if config.objective == "simclr":
        views = 2 * config.batch_size
        loss.axhline(math.log(views - 1), color="0.3", ls="--", lw=1, label=f"chance, log({views - 1})")
    accuracy.plot(epochs, [100 * row["accuracy"] for row in history], color=COLOURS[0])
    for axes in (loss, accuracy):
        shade(axes, config, record.config["model"]["num_cells"])
        axes.set_xlabel("epoch")
    loss.set_ylabel("loss (nats)")
    accuracy.set_ylabel("contrastive accuracy (%)" if config.objective != "supervised" else "accuracy (%)")
    figure.legend(*loss.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=SMALL)
    return figure


def shade(axes: Axes, config: Search, num_cells: int) -> None:
    """Shade the phases of a search behind curves over its epochs, and mark each pruning."""
    _shade_phases(axes, config)
    ends = list(pruning_epochs(config, num_cells).values())
    axes.plot(
        ends,
        [0.97] * num_cells,
        "v",
        ms=5,
        color="0.2",
        transform=axes.get_xaxis_transform(),
        clip_on=False,
        label="a cell is pruned",
    )
    axes.set_xlim(0, config.epochs)
    axes.xaxis.get_major_locator().set_params(integer=True)


def entropy_map(record: Record) -> Figure:
    """Entropy of alpha for each cell over the epochs: 1 all candidates alike, 0 fixed. Grey: pruned."""
    values = np.array([row["entropy"] for row in record.history]).T  # (cells, epochs)
    num_cells, num_epochs = values.shape
    ends = pruning_epochs(Search.model_validate(record.config["search"]), num_cells)
    searching = np.arange(num_epochs) < np.array([[ends[cell]] for cell in range(num_cells)])
    figure, axes = cells_over_epochs(
        np.where(searching, values, np.nan), "entropy of alpha / log M\n(0: decided)", vmin=0, vmax=1
    )
    axes.set_facecolor("0.85")
    for cell, end in ends.items():
        if end < num_epochs:
            axes.text(end + 0.4, cell, "pruned", va="center", fontsize=SMALL, color="0.3")
    return figure


def cells_over_epochs(values: np.ndarray, label: str, **scale: float) -> tuple[Figure, Axes]:
    """Heat map of what each cell was at each epoch.

    Args:
        values: (cells, epochs); nothing is drawn where NaN.
        label: of the colour bar, with its unit.
        scale: vmin and vmax, the values at the ends of the colours.
    """
    num_cells, num_epochs = values.shape
    figure, axes = plt.subplots(figsize=(WIDTH, 1.4 + 0.2 * num_cells))
    image = axes.imshow(
        values,
        aspect="auto",
        cmap="viridis",
        extent=(0, num_epochs, num_cells - 0.5, -0.5),
        interpolation="nearest",
        **scale,
    )
    axes.set(xlabel="epoch", ylabel="cell")
    axes.set_yticks(range(0, num_cells, max(num_cells // 10, 1)))
    axes.grid(False)
    figure.colorbar(image, label=label, format="%.4g")
    return figure, axes


def operation_shares(record: Record) -> Figure:
    """Mean probability of each candidate over all edges, and how often each stands in the genotype found."""
    figure, (over_time, found) = plt.subplots(1, 2, figsize=(WIDTH, 3.1), width_ratios=(3, 2))
    epochs = [row["epoch"] + 1 for row in record.history]
    for i, name in enumerate(CANDIDATES):
        over_time.plot(
            epochs,
            [100 * row["shares"][i] for row in record.history],
            color=OPERATION_COLOURS[name],
            ls=OPERATION_DASHES[name],
            label=name,
        )
    over_time.axhline(100 / len(CANDIDATES), color="0.4", lw=0.8, zorder=1, label="all alike")
    over_time.set(xlabel="epoch", ylabel="mean probability (%)", xlim=(0, epochs[-1]))
    counts = record.result["operation_counts"]
    found.barh(
        list(counts),
        list(counts.values()),
        color=[OPERATION_COLOURS[name] for name in counts],
        hatch=[OPERATION_HATCHES[name] for name in counts],
        edgecolor="white",
    )
    found.invert_yaxis()
    found.set(xlabel="edges of the genotype")
    found.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(
        *over_time.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=SMALL, frameon=False
    )
    return figure


def memory(record: Record) -> Figure:
    """Peak memory of search steps beside compact networks' training steps."""
    found, views = record.result["bytes"], record.result["views"]
    rows = {
        "compact network, 8 edges a cell": found["compact, 8 edges"],
        "compact network, 14 edges a cell": found["compact, 14 edges"],
        "search: weight step": found["weight step"], "search: architecture step": found["architecture step"],
    }  # fmt: skip
    rows |= {f"search: {name}": value for name, value in found.items() if name.endswith(" evaluated")}
    figure, axes = plt.subplots(figsize=(WIDTH, 1.9))
    colours = [COLOURS[7] if name.startswith("compact") else COLOURS[0] for name in rows]
    bars = axes.barh(list(rows), [value / 2**20 for value in rows.values()], color=colours)
    axes.bar_label(
        bars, [f"{value / found['compact, 14 edges']:.2f}x" for value in rows.values()], padding=3, fontsize=SMALL
    )
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.margins(x=0.14)
    axes.set_xlabel(f"peak memory of a step of {views} views (MiB, and against 14 edges)")
    return figure


def class_images(data: ImageData, per_class: int = 8) -> Figure:
    """A few training images of each class, spread over it, with how many it has; images without classes in one row."""
    labels = np.zeros(len(data.train)) if data.train_labels is None else data.train_labels.cpu().numpy()
    rows = {}
    for label, name in enumerate((data.classes or ("images",))[:SHOWN_CLASSES]):
        of_class = np.flatnonzero(labels == label)
        chosen = of_class[np.linspace(0, len(of_class) - 1, min(len(of_class), per_class)).round().astype(int)]
        title = name if len(name) <= CLASS_LETTERS else f"{name[: CLASS_LETTERS - 1]}…"
        rows[f"{title}\n{len(of_class)}"] = shown(data.train, chosen).permute(0, 2, 3, 1).numpy() / 255
    figure = image_rows(rows)
    if len(data.classes) > SHOWN_CLASSES:
        figure.supxlabel(f"and {len(data.classes) - SHOWN_CLASSES} more classes", fontsize=SMALL)
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
        line[0].set_ylabel(label, fontsize=SMALL)
    return figure
