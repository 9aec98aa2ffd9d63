"""What is seen of a run while it goes on, of a search at any of its epochs, and of several runs together.

From records and from what `runs.following` reads. Drawn without pyplot, which keeps a list of figures that the cells of
a notebook show: so a thread may draw. Beside each figure stand its words, for who does not see it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.special import softmax

from sswp_lib.learn.phases import phase_lengths
from sswp_lib.runs.following import Standing
from sswp_lib.show.drawings import title_of
from sswp_lib.show.plots import COLOURS, OPERATION_COLOURS, OPERATION_DASHES, SMALL, shade
from sswp_lib.space import CANDIDATES, Genotype

Row = dict[str, Any]
End = tuple[tuple[float, float], str, Any]
"""Where a curve ends, its name and its colour."""
WIDTH = 8.8  # inches: half as wide again as a figure of a page, for a screen
DPI = 100
DASHES = ("-", "--", "-.", ":", (0, (6, 1)), (0, (4, 1, 1, 1, 1, 1)), (0, (1, 0.6)), (0, (8, 3)))
OTHER_COLOURS = ("0.35", "0.5", "0.65")  # of candidates that no genotype holds
QUANTITIES: dict[str, Callable[[Row], float | None]] = {
    "loss": lambda row: row.get("loss"),
    "loss of architecture steps": lambda row: row.get("alpha_loss"),
    "accuracy (%)": lambda row: 100 * row["accuracy"] if "accuracy" in row else None,
    "validation accuracy (%)": lambda row: row["validation"]["top1"] if "validation" in row else None,
    "entropy of alpha / log M": lambda row: float(np.mean(row["entropy"])) if "entropy" in row else None,
    "learning rate": lambda row: row.get("lr"),
}
"""What a history may hold, by the words for it."""
SHORT = {
    "loss": "weight steps", "loss of architecture steps": "architecture steps", "accuracy": "training",
    "validation accuracy": "validation",
}  # fmt: skip


def series(history: Sequence[Row], quantity: str) -> tuple[list[int], list[float]]:
    """Return after how many epochs a history holds a quantity, and its values."""
    pairs = [(row["epoch"] + 1, value) for row in history if (value := QUANTITIES[quantity](row)) is not None]
    return [epoch for epoch, _ in pairs], [value for _, value in pairs]


def standing(s: Standing, cell: int = 0, edge: int | None = None) -> Figure:
    """Loss so far, beside it alpha of one cell, or accuracy where there is no alpha, and which cells are fixed.

    Args:
        cell: a row of alpha. edge: one of its 14 edges; the mean of them where it is None.
    """
    phased = s.settings is not None
    figure, height = _figure(3.9 if phased else 3.1)
    grid = figure.add_gridspec(
        1 + phased, 2, height_ratios=(5, 0.9)[: 1 + phased], left=0.07, right=0.87, top=0.93, bottom=0.5 / height,
        wspace=0.62, hspace=0.55,
    )  # fmt: skip
    loss, beside = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[0, 1])
    _curves(loss, {name: series(s.history, name) for name in list(QUANTITIES)[:2]}, s)
    loss.set_ylabel("loss")
    names, shares = probabilities(s, cell, edge)
    if shares:
        _operations(beside, names, shares, s)
    else:
        accuracies = {name: series(s.history, name) for name in list(QUANTITIES)[2:4]}
        _curves(beside, accuracies, s)
        beside.set_ylabel("accuracy (%)")
    if phased:
        _cells(figure.add_subplot(grid[1, :]), s.config["model"]["num_cells"], s.fixed)
    return figure


def probabilities(s: Standing, cell: int, edge: int | None) -> tuple[list[str], dict[int, np.ndarray]]:
    """Return the candidates of a search, and {epochs done: (M,), their mean probabilities} on one edge of a cell or on
    all of them; on those of all cells where alpha was not kept; nothing of a run that has neither.
    """
    if s.alphas:
        names = next(iter(s.alphas.values()))["candidates"]
        chosen = {epoch + 1: np.array(row["alpha"][cell]) for epoch, row in sorted(s.alphas.items())}
        picked = {epoch: alpha if edge is None else alpha[[edge]] for epoch, alpha in chosen.items()}
        return names, {epoch: softmax(alpha, -1).mean(0) for epoch, alpha in picked.items()}
    found = {row["epoch"] + 1: np.array(row["shares"]) for row in s.history if "shares" in row}
    mixed = s.record.result.get("mixture", {}) if s.record else {}
    known = mixed.get("candidates") or [*CANDIDATES, *s.config.get("search", {}).get("planted", [])]
    return known, {epoch: shares for epoch, shares in found.items() if len(shares) == len(known)}


def _figure(height: float) -> tuple[Figure, float]:
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="none")
    FigureCanvasAgg(figure)
    return figure, height


def _curves(axes: Axes, curves: dict[str, tuple[list[int], list[float]]], s: Standing) -> None:
    """Draw curves over the epochs of a run, each named at its end, the phases of a search behind them."""
    ends = []
    for i, (name, (epochs, values)) in enumerate(curves.items()):
        if epochs:
            axes.plot(epochs, values, color=COLOURS[3 * i], ls=DASHES[3 * i], marker="." if len(epochs) < 3 else None)
            plain = name == "loss" and not s.name.startswith("search-")
            short = SHORT["accuracy" if plain else name.partition(" (")[0]]
            ends.append(((epochs[-1], values[-1]), short, COLOURS[3 * i]))
    if not ends:
        axes.text(0.5, 0.5, "no epoch is done yet", transform=axes.transAxes, ha="center", color="0.3")
        axes.set_yticks([])
    _over_epochs(axes, s.epochs or 1)
    if s.settings is not None:
        shade(axes, s.settings, s.config["model"]["num_cells"])
        _name_phases(axes, s)
    name_ends(axes, ends)


def _over_epochs(axes: Axes, epochs: int) -> None:
    axes.set_xlabel("epoch")
    axes.set_xlim(0, epochs)
    axes.xaxis.get_major_locator().set_params(integer=True)


def _name_phases(axes: Axes, s: Standing) -> None:
    start = 0
    for name, length in phase_lengths(s.settings).items():
        if length:
            axes.text(
                start + length / 2, 1.02, name, transform=axes.get_xaxis_transform(), ha="center", va="bottom",
                fontsize=SMALL - (length < 0.15 * s.settings.epochs),
            )  # fmt: skip
        start += length


def _operations(axes: Axes, names: Sequence[str], shares: dict[int, np.ndarray], s: Standing) -> None:
    values, ends = 100 * np.array(list(shares.values())), []
    others = iter(OTHER_COLOURS)
    for i, name in enumerate(names):
        colour = OPERATION_COLOURS.get(name) or next(others)
        style = {"color": colour, "ls": OPERATION_DASHES.get(name, ":"), "marker": "." if len(shares) < 3 else None}
        axes.plot(list(shares), values[:, i], **style)
        ends.append(((max(shares), values[-1, i]), name, colour))
    axes.axhline(100 / len(names), color="0.5", lw=0.8, zorder=1)
    _over_epochs(axes, s.epochs or 1)
    axes.set_ylabel("probability (%)" if s.alphas else "probability, all cells (%)")
    name_ends(axes, ends)


def name_ends(axes: Axes, ends: Sequence[End]) -> None:
    """Name curves right of the axes, each at about the height of its end, from which a thin line leads there."""
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)
    ends = sorted(ends, key=lambda end: end[0][1])
    wanted = [(y - low) / (high - low) for (_, y), *_ in ends]
    line = 1.3 * SMALL / 72 / (axes.get_position().height * axes.figure.get_figheight())
    for place, ((x, y), name, colour) in zip(apart(wanted, line), ends, strict=True):
        at = low + place * (high - low)
        axes.plot([x, axes.get_xlim()[1]], [y, at], color=colour, lw=0.6, alpha=0.8, clip_on=False)
        axes.text(1.02, place, name, transform=axes.transAxes, fontsize=SMALL, va="center")


def apart(wanted: Sequence[float], least: float) -> list[float]:
    """Return places at least so far apart, near those wanted (rising) and if there is room for all not above 1."""
    places: list[float] = []
    for place in wanted:
        places.append(max(place, places[-1] + least) if places else place)
    top = 1.0
    for i in reversed(range(len(places))):
        places[i] = min(places[i], top)
        top = places[i] - least
    return places


def _cells(axes: Axes, num_cells: int, fixed: Sequence[int]) -> None:
    """One box a cell, from the input on; those that are fixed are hatched, and named."""
    for cell in range(num_cells):
        is_fixed = cell in fixed
        axes.bar(
            cell, 1, width=0.9, color="0.88" if is_fixed else "white", hatch="////" if is_fixed else "",
            edgecolor="0.45", lw=0.8,
        )  # fmt: skip
        word = ("\nfixed" if is_fixed else "\nsearches") if num_cells <= 10 else ""
        axes.text(
            cell, 0.5, f"{cell}{word}", ha="center", va="center", fontsize=SMALL,
            bbox={"fc": "white", "ec": "none", "pad": 1, "alpha": 0.85},
        )  # fmt: skip
    axes.set(xlim=(-0.55, num_cells - 0.45), ylim=(0, 1), xticks=[], yticks=[])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xlabel("cells, from the input to the output; hatched: fixed", fontsize=SMALL)


def standing_words(s: Standing, cell: int = 0, edge: int | None = None) -> str:
    """Say what `standing` shows."""
    epochs, losses = series(s.history, "loss")
    said = [f"No epoch of {s.name} is done yet."]
    if epochs:
        said = [f"Loss of {s.name} over {epochs[-1]} epochs: from {losses[0]:.3f} to {losses[-1]:.3f}."]
    names, shares = probabilities(s, cell, edge)
    if shares:
        last = list(shares.values())[-1]
        order = np.argsort(-last, kind="stable")
        where = (
            f"{title(s, cell)}, {'mean of its edges' if edge is None else f'edge {edge}'}" if s.alphas else "all cells"
        )
        said.append(f"Probabilities, {where}: {', '.join(f'{names[i]} {100 * last[i]:.1f} %' for i in order)}.")
    if s.settings is not None:
        said.append(f"Fixed cells: {', '.join(map(str, s.fixed)) or 'none'} of {s.config['model']['num_cells']}.")
    return " ".join(said)


def title(s: Standing, row: int) -> str:
    """Return what a row of alpha is of."""
    return f"cell {row}" if s.settings is not None else ("normal cells", "reduction cells")[row]


def until(history: Sequence[Row], epochs: int) -> Figure:
    """Loss of a search until an epoch, what came later dotted, beside it the entropy of alpha of each cell then.

    Args:
        epochs: how many are done.
    """
    figure, height = _figure(3.0)
    grid = figure.add_gridspec(1, 2, left=0.075, right=0.97, top=0.93, bottom=0.5 / height, wspace=0.25)
    loss, beside = figure.add_subplot(grid[0]), figure.add_subplot(grid[1])
    when, values = series(history, "loss")
    done = sum(epoch <= epochs for epoch in when)
    loss.plot(when[:done], values[:done], color=COLOURS[0], lw=2)
    loss.plot(when[max(done - 1, 0) :], values[max(done - 1, 0) :], color="0.6", ls=":", lw=1)
    loss.plot(when[done - 1], values[done - 1], "o", color=COLOURS[0])
    said = f"after epoch {when[done - 1]}: {values[done - 1]:.3f}"
    loss.text(0.98, 0.95, said, transform=loss.transAxes, ha="right", va="top")  # a loss that falls leaves room there
    loss.set_ylabel("loss")
    _over_epochs(loss, when[-1])
    loss.set_xlabel("epoch (dotted: what came later)")
    _entropies(beside, history[epochs - 1].get("entropy", []))
    return figure


def _entropies(axes: Axes, entropy: Sequence[float]) -> None:
    if not entropy:
        axes.text(0.5, 0.5, "this search has no alpha", transform=axes.transAxes, ha="center", color="0.3")
        axes.set(xticks=[], yticks=[])
        return
    axes.barh(range(len(entropy)), entropy, color=COLOURS[0], height=0.7)
    for cell, value in enumerate(entropy):
        axes.text(value + 0.01, cell, f"{value:.3f}" if value else "fixed", va="center", fontsize=SMALL)
    axes.set(xlim=(0, 1.15), xlabel="entropy of alpha / log M (0: decided)", ylabel="cell")
    axes.set_ylim(len(entropy) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.yaxis.get_major_locator().set_params(integer=True)


def until_words(history: Sequence[Row], epochs: int) -> str:
    """Say what `until` shows."""
    row = history[epochs - 1]
    said = f"After epoch {epochs} of {len(history)}: loss {row['loss']:.3f}"
    if "entropy" in row:
        said += "; entropy of alpha by cell: " + ", ".join(f"{value:.3f}" for value in row["entropy"])
    return said


def genotype_words(genotype: Genotype, cell: int) -> str:
    """Say which operations a cell holds, node by node."""
    pairs = genotype.cells[cell]
    nodes = []
    for node in range(2, 6):
        own = pairs[2 * (node - 2) : 2 * (node - 1)]
        nodes.append(f"node {node}: " + " and ".join(f"{name} of {_input(source)}" for name, source in own))
    return f"{title_of(genotype, cell)}; {'; '.join(nodes)}"


def _input(source: int) -> str:
    return f"input {source}" if source < 2 else f"node {source}"


def curves(histories: dict[str, Sequence[Row]], quantity: str) -> Figure:
    """One quantity of several runs over their epochs; each curve is named at its end and has dashes of its own."""
    figure, height = _figure(3.6)
    axes = figure.add_axes((0.08, 0.5 / height, 0.62, 0.9 - 0.5 / height))
    ends, longest = [], 1
    for i, (name, history) in enumerate(histories.items()):
        epochs, values = series(history, quantity)
        if epochs:
            colour, dashes = COLOURS[i % len(COLOURS)], DASHES[i % len(DASHES)]
            axes.plot(epochs, values, color=colour, ls=dashes, marker="." if len(epochs) < 3 else None)
            ends.append(((epochs[-1], values[-1]), f"{name}: {values[-1]:.4g}", colour))
            longest = max(longest, epochs[-1])
    axes.set_ylabel(quantity)
    _over_epochs(axes, longest)
    name_ends(axes, ends)
    return figure


def curves_words(histories: dict[str, Sequence[Row]], quantity: str) -> str:
    """Say what `curves` shows."""
    said = []
    for name, history in histories.items():
        epochs, values = series(history, quantity)
        said.append(
            f"{name}: from {values[0]:.4g} to {values[-1]:.4g} over {epochs[-1]} epochs"
            if epochs
            else f"{name}: not kept"
        )
    return f"{quantity}. {'; '.join(said)}."
