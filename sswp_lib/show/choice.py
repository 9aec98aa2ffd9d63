"""Figure of how a search chose: which candidate led on each edge of a cell from epoch to epoch, and what alpha said of
one edge in the end.
"""

from __future__ import annotations

from itertools import groupby

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from scipy.special import softmax

from sswp_lib.learn.phases import PHASES
from sswp_lib.runs.records import Record
from sswp_lib.show.plots import OPERATION_COLOURS, OPERATION_HATCHES, SMALL, WIDTH
from sswp_lib.space import CANDIDATES, EDGES


def probabilities(record: Record) -> np.ndarray:
    """Return with which probability alpha would draw each candidate in the end: (cells, 14, 7)."""
    return softmax(np.array(record.result["evidence"]["alpha"])[..., : len(CANDIDATES)], -1)


def most_decided(record: Record) -> tuple[int, int]:
    """Return the (cell, edge) of the genotype whose choice alpha is surest of."""
    found = probabilities(record).max(-1)
    kept = [(cell, edge) for cell in range(len(found)) for edge in record.genotype.edges(cell)]
    return max(kept, key=lambda place: found[place])


def led_at_first(record: Record) -> tuple[int, int]:
    """Return on how many of the genotype's edges the candidate that led when alpha had first learnt was taken in the
    end, and how many edges there are.
    """
    first = next(row["best"] for row in record.history if row["phase"] != PHASES[0])
    taken = [
        (first[cell][edge], CANDIDATES.index(name))
        for cell in range(record.genotype.num_cells)
        for edge, name in record.genotype.edges(cell).items()
    ]
    return sum(one == other for one, other in taken), len(taken)


def choice(record: Record, cell: int, edge: int) -> Figure:
    """Left: the candidate that leads on each edge of a cell, epoch by epoch, in its colour and hatch; white where none
    does, for alpha has not learnt yet or the edge is gone. Right: what alpha says of the candidates of one edge.
    """
    figure, (leaders, end) = plt.subplots(1, 2, figsize=(WIDTH, 4.2), width_ratios=(5, 3))
    for place in range(len(EDGES)):
        _draw_leaders(leaders, place, [_best(row)[cell][place] for row in record.history])
    pruned = record.result["pruned_at"][str(cell)]
    leaders.axvline(pruned, color="0.1", lw=1.2, ls="--")
    leaders.annotate("pruned", (pruned, -0.75), ha="center", va="bottom", fontsize=SMALL, annotation_clip=False)
    names = [f"{source} → {node}" for source, node in EDGES]
    leaders.set_yticks(range(len(EDGES)), names, fontsize=SMALL)
    leaders.get_yticklabels()[edge].set_weight("bold")
    leaders.set(xlim=(0, len(record.history)), ylim=(len(EDGES) - 0.4, -0.6), xlabel="epoch", ylabel="edge")
    leaders.grid(False)
    _draw_end(end, probabilities(record)[cell, edge], names[edge])
    handles = [
        Patch(facecolor=OPERATION_COLOURS[name], hatch=OPERATION_HATCHES[name], edgecolor="white", label=name)
        for name in CANDIDATES
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=SMALL)
    return figure


def _best(row: dict) -> np.ndarray:
    """Return the leading candidate of each edge (cells, 14) after an epoch; -1 where there is none."""
    return np.array(row["best"]) if row["phase"] != PHASES[0] else np.full_like(row["best"], -1)


def _draw_leaders(axes: Axes, place: int, best: list[int]) -> None:
    """Draw one bar for each stretch of epochs in which one candidate led; candidates are -1 where none did."""
    start = 0
    for leader, stretch in groupby(best):
        length = len(list(stretch))
        if 0 <= leader < len(CANDIDATES):
            name = CANDIDATES[leader]
            axes.barh(
                place, length, left=start, height=0.8, color=OPERATION_COLOURS[name], hatch=OPERATION_HATCHES[name],
                edgecolor="white", lw=0.3,
            )  # fmt: skip
        start += length


def _draw_end(axes: Axes, values: np.ndarray, name: str) -> None:
    bars = axes.barh(
        CANDIDATES, 100 * values, color=[OPERATION_COLOURS[name] for name in CANDIDATES],
        hatch=[OPERATION_HATCHES[name] for name in CANDIDATES], edgecolor="white",
    )  # fmt: skip
    axes.bar_label(bars, [f"{100 * value:.0f}" for value in values], padding=2, fontsize=SMALL)
    axes.axvline(100 / len(CANDIDATES), color="0.3", lw=1, ls="--")
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.grid(axis="y", visible=False)
    axes.set_title(f"edge {name} in the end", fontsize=9)
    axes.set_xlabel("probability (%); dashed: at the start")
