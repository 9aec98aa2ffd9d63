"""Genotypes drawn: cell by cell (Figure 6, appendix C), their operations by depth, and how they changed over a
search.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import graphviz
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sswp_lib.paper.output import Output
from sswp_lib.runs.records import Record
from sswp_lib.show import plots
from sswp_lib.space import CANDIDATES, Genotype, reduction_cells

DOT_RESOLUTION = 160  # pixels an inch


def title_of(genotype: Genotype, cell: int) -> str:
    return f"cell {cell} ({'reduction' if cell in reduction_cells(genotype.num_cells) else 'normal'})"


def inputs_of(cell: int) -> tuple[str, str]:
    """Return what a cell's inputs 0 and 1 are."""
    return (f"cell {cell - 2}" if cell > 1 else "stem", f"cell {cell - 1}" if cell > 0 else "stem")


def cell_graph(
    genotype: Genotype, cell: int, title: str | None = None, inputs: tuple[str, str] | None = None
) -> graphviz.Digraph:
    """Return one cell as a graphviz graph: inputs left, output right, operations on the edges in their colours."""
    graph = graphviz.Digraph(
        graph_attr={
            "rankdir": "LR",
            "label": title or title_of(genotype, cell),
            "labelloc": "t",
            "fontname": "Helvetica",
            "fontsize": "13",
            "nodesep": "0.12",
            "ranksep": "0.3",
        }
    )
    graph.attr(
        "node",
        fontname="Helvetica",
        fontsize="11",
        shape="box",
        style="rounded,filled",
        height="0.3",
        margin="0.1,0.04",
    )
    graph.attr("edge", fontname="Helvetica", fontsize="10")
    with graph.subgraph(graph_attr={"rank": "same"}) as first:
        for node, name in enumerate(inputs or inputs_of(cell)):
            first.node(str(node), f"{node}: {name}", fillcolor="#dce9f5")
        first.edge("0", "1", style="invis")  # input 0 above input 1
    for node in range(2, 6):
        graph.node(str(node), f"node {node}", fillcolor="#f5f0dc")
    graph.node("out", "output", fillcolor="#dff0df")
    for position, (name, source) in enumerate(genotype.cells[cell]):
        graph.edge(
            str(source),
            str(2 + position // 2),
            label=_on_white(name),
            color=_hex(name),
            fontcolor=_hex(name, 0.7),
            penwidth="1.8",
        )
    for node in range(2, 6):
        graph.edge(str(node), "out", color="#bbbbbb")
    return graph


def _on_white(text: str) -> str:
    return f'<<table border="0" cellborder="0" cellpadding="1" bgcolor="white"><tr><td>{text}</td></tr></table>>'


def _hex(name: str, darker: float = 1.0) -> str:
    return "#" + "".join(f"{round(255 * darker * c):02x}" for c in plots.OPERATION_COLOURS[name])


def cells(
    found: Genotype,
    which: Sequence[int] | None = None,
    titles: Sequence[str] | None = None,
    inputs: tuple[str, str] | None = None,
) -> Figure:
    """Draw cells of a genotype, few below one another, many side by side: by graphviz, or by matplotlib where the
    program `dot` is missing.

    Args:
        which: the cells; all by default. titles: one for each. inputs: what all cells' inputs are called, instead of
            what they are in `found`.
    """
    which = list(range(found.num_cells)) if which is None else list(which)
    titles = titles or [title_of(found, cell) for cell in which]
    named = [(cell, title, inputs or inputs_of(cell)) for cell, title in zip(which, titles, strict=True)]
    if shutil.which("dot") is None:
        return _drawn_plainly(found, named)
    return _one_scale([plt.imread(BytesIO(png(cell_graph(found, *one)))) for one in named])


def png(graph: graphviz.Digraph, resolution: int = DOT_RESOLUTION) -> bytes:
    """Return a graph as PNG of so many pixels an inch, its letters of one size whatever its own."""
    graph.graph_attr["dpi"] = str(resolution)
    return graph.pipe(format="png")


def _columns(cells: int) -> tuple[int, float]:
    """Return in how many columns so many cells stand, and the figure's width in inches."""
    return (1, plots.WIDTH) if cells <= 4 else (2, 1.6 * plots.WIDTH)


def _one_scale(pictures: list[np.ndarray]) -> Figure:
    """Put pictures (height, width, channels) on one scale, each line as high as its highest."""
    columns, across = _columns(len(pictures))
    rows = [pictures[i : i + columns] for i in range(0, len(pictures), columns)]
    heights, width = [max(p.shape[0] for p in row) for row in rows], max(p.shape[1] for p in pictures)
    figure, axes = plt.subplots(
        len(rows),
        columns,
        figsize=(across, across / columns * sum(heights) / width),
        height_ratios=heights,
        squeeze=False,
    )
    for line, row, height in zip(axes, rows, heights, strict=True):
        for a in line:
            a.axis("off")
        for a, picture in zip(line, row, strict=False):
            a.imshow(picture, extent=(0, picture.shape[1], picture.shape[0], 0), interpolation="antialiased")
            a.set(xlim=(0, width), ylim=(height, 0))
    return figure


def _drawn_plainly(found: Genotype, named: list[tuple[int, str, tuple[str, str]]]) -> Figure:
    """Draw cells, each (cell, title, names of its inputs), with matplotlib alone."""
    columns, across = _columns(len(named))
    lines = math.ceil(len(named) / columns)
    figure, axes = plt.subplots(lines, columns, figsize=(across, 2.4 * lines), squeeze=False)
    for a in axes.flat:
        a.axis("off")
    for a, (cell, title, inputs) in zip(axes.flat, named, strict=False):
        _draw_plainly(a, found, cell, title, inputs)
    return figure


def _draw_plainly(axes: Axes, found: Genotype, cell: int, title: str, inputs: tuple[str, str]) -> None:
    place = {0: (0, 0.8), 1: (0, -0.8), 2: (1.5, 1.6), 3: (2.2, -1.6), 4: (3.0, 0.8), 5: (3.9, -0.8)}
    for position, (name, source) in enumerate(found.cells[cell]):
        (x0, y0), (x1, y1) = place[source], place[2 + position // 2]
        axes.annotate(
            "",
            (x1, y1),
            (x0, y0),
            arrowprops={
                "arrowstyle": "-|>",
                "color": plots.OPERATION_COLOURS[name],
                "lw": 1.4,
                "shrinkA": 18,
                "shrinkB": 18,
            },
        )
        share = {0: 0.6, 1: 0.35}.get(source, 0.5)  # or names would lie on one another
        axes.text(
            x0 + share * (x1 - x0),
            y0 + share * (y1 - y0),
            name,
            fontsize=7,
            ha="center",
            va="center",
            bbox={"fc": "white", "ec": "none", "pad": 0.4},
        )
    for node, (x, y) in place.items():
        name, colour = (f"{node}: {inputs[node]}", "#dce9f5") if node < 2 else (f"node {node}", "#f5f0dc")
        axes.text(
            x,
            y,
            name,
            fontsize=plots.SMALL,
            ha="center",
            va="center",
            bbox={"boxstyle": "round", "fc": colour, "ec": "0.4"},
        )
    axes.set(xlim=(-0.4, 4.3), ylim=(-2, 2))
    axes.set_title(title, fontsize=9)


def save_cells(found: Genotype, name: str, output: Output) -> Path:
    """Write the genotype's JSON beside its drawing; returns the path."""
    path = output.folder / f"{name}.json"
    path.write_text(found.to_json() + "\n")
    return path


def published(name: str) -> Figure:
    """Draw a published normal and reduction cell, the same way as cells found here."""
    return cells(
        Genotype.published(name, 3), [0, 1], [f"{name}, normal", f"{name}, reduction"], ("cell k-2", "cell k-1")
    )


def operations_by_depth(found: Genotype) -> Figure:
    """How many of each cell's 8 operations are of each kind, from the input to the output."""
    figure, axes = plt.subplots(figsize=(plots.WIDTH, 2.9))
    counts = np.array([[sum(name == op for op, _ in cell) for cell in found.cells] for name in CANDIDATES])
    bottom = np.zeros(found.num_cells)
    for name, row in zip(CANDIDATES, counts, strict=True):
        axes.bar(
            range(found.num_cells),
            row,
            bottom=bottom,
            color=plots.OPERATION_COLOURS[name],
            hatch=plots.OPERATION_HATCHES[name],
            label=name,
            width=0.8,
            edgecolor="white",
        )
        bottom += row
    for cell in reduction_cells(found.num_cells):
        axes.annotate("reduction", (cell, 8.1), ha="center", fontsize=plots.SMALL)
    axes.set(xlabel="cell, from the input", ylabel="operations of the genotype", ylim=(0, 8.8))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(axis="x", visible=False)
    figure.legend(loc="outside lower center", ncols=4, fontsize=plots.SMALL, frameon=False)
    return figure


def changes(record: Record) -> Figure:
    """How many of each cell's 14 edges had another best operation than the epoch before, over the search."""
    best = np.array([row["best"] for row in record.history])  # (epochs, cells, 14)
    changed = np.vstack([np.zeros((1, best.shape[1])), (best[1:] != best[:-1]).sum(-1)]).T
    figure, axes = plots.cells_over_epochs(changed, "edges with a new best", vmin=0)
    for cell, epoch in record.result["pruned_at"].items():
        if epoch < len(best):
            axes.plot([epoch, epoch], [int(cell) - 0.5, int(cell) + 0.5], color="white", lw=1.5)
            axes.text(epoch + 0.01 * len(best), int(cell), "pruned", va="center", fontsize=plots.SMALL, color="white")
    return figure
