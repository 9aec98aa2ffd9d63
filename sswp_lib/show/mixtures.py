"""Figures of relaxed searches: the mixture that they learnt, and how many skips their cells have beside what these are
worth.
"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sswp_lib.runs.records import Record
from sswp_lib.show.comparisons import arm_by_line, name_lines
from sswp_lib.show.plots import SMALL, WIDTH
from sswp_lib.space import EDGES, reduction_cells
from sswp_lib.space.mixed import KINDS


def mixture(record: Record) -> Figure:
    """The weights of the candidates on each edge, of the normal and of the reduction cells; a dot on the edges that the
    genotype keeps, at its operation.
    """
    found, genotype = record.result["mixture"], record.genotype
    names, weights = found["candidates"], np.array(found["weights"])  # (2, 14, M)
    figure, panels = plt.subplots(1, 2, figsize=(WIDTH, 3.6), sharey=True)
    reductions = reduction_cells(genotype.num_cells)
    for axes, kind, values in zip(panels, KINDS, weights, strict=True):
        image = axes.imshow(values, aspect="auto", cmap="viridis", vmin=0, vmax=weights.max(), interpolation="nearest")
        axes.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=SMALL)
        axes.set(title=kind)
        axes.grid(False)
        own = [cell for cell in range(genotype.num_cells) if (cell in reductions) == (kind == "reduce")]
        for edge, name in genotype.edges(own[0]).items() if own else ():
            axes.plot(names.index(name), edge, "o", ms=5, mfc="white", mec="black")
    panels[0].set_yticks(range(len(EDGES)), [f"{source} → {node}" for source, node in EDGES], fontsize=SMALL)
    panels[0].set_ylabel("edge")
    figure.colorbar(image, ax=panels, label="weight in the mixture", format="%.3g")
    return figure


def skips_beside_accuracy(frame: pd.DataFrame, order: Sequence[str]) -> Figure:
    """One line an arm, best read downwards: test accuracy from scratch, and the share of skips among the operations of
    its genotypes; dots are searches, means with 95 % intervals.
    """
    columns = {"scratch": ("from scratch", "test accuracy (%)"), "skip share": ("collapse", "share of skips (%)")}
    figure, panels = plt.subplots(1, 2, figsize=(WIDTH, 1.1 + 0.4 * len(order)), sharey=True)
    for axes, (column, (title, label)) in zip(panels, columns.items(), strict=True):
        arm_by_line(axes, frame, order, column)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel(label)
        axes.margins(x=0.12)
        low, high = axes.get_xlim()
        axes.set_xlim(max(low, -2), min(high, 102))  # Student's intervals know no ends
        axes.xaxis.set_major_locator(MaxNLocator(4))
    name_lines(panels[0], order)
    return figure
