"""Slides of the notebooks, by nbconvert: of the executed copies in figures/own/PRESET/ where they are there, else of
the notebooks as they are.

Committed notebooks keep no metadata that would say what begins a slide, so headings and pictures do. Figures are in the
file itself; reveal.js, which turns its pages, what that needs, and MathJax are fetched when the file is opened, for
nbconvert cannot embed them. Without a network the slides stand below one another, formulas as they are typed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
from nbconvert import SlidesExporter
from nbformat import NotebookNode

from sswp_lib.config import InputError, home
from sswp_lib.lab.reproduce import chosen
from sswp_lib.paper.output import Output
from sswp_lib.presets import load_config

BEGINS = {"# ": "slide", "## ": "slide", "### ": "subslide"}
SHOWN = ("image/png", "text/html", "text/markdown")


def kind(cell: NotebookNode) -> str:
    """Return what a cell is in slides: headings begin one, text and what can be seen goes below it, the rest (imports,
    parameters) is left out.
    """
    if cell.cell_type == "markdown":
        return next((kind for mark, kind in BEGINS.items() if cell.source.startswith(mark)), "subslide")
    seen = any(name in output.get("data", {}) for output in cell.get("outputs", []) for name in SHOWN)
    executed = cell.get("execution_count") is not None
    return "subslide" if seen or not executed else "skip"


def html(notebook: NotebookNode, title: str) -> str:
    """Return a notebook as one page of slides."""
    for cell in notebook.cells:
        cell.metadata["slideshow"] = {"slide_type": kind(cell)}
    return SlidesExporter(embed_images=True).from_notebook_node(notebook, {"metadata": {"name": title}})[0]


def slides(preset: str, only: list[str] | None = None) -> list[Path]:
    """Write the slides of notebooks to figures/own/slides/; returns the files.

    Args:
        only: the notebooks whose names begin so; None: all.
    """
    load_config(preset)
    target, written = home() / "figures" / "own" / "slides", []
    target.mkdir(parents=True, exist_ok=True)
    for path in chosen(only, None):
        executed = Output(preset).folder / path.name
        notebook = nbformat.read(executed if executed.is_file() else path, 4)
        written.append(target / f"{path.stem}.html")
        written[-1].write_text(html(notebook, path.stem), encoding="utf-8")
    return written


if __name__ == "__main__":
    preset, number = sys.argv[1:]
    try:
        print(*slides(preset, [number] if number else None), sep="\n")
    except InputError as error:
        sys.exit(f"sswp: {error}")
