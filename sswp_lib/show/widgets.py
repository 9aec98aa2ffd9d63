"""The same figures, with controls: step through cells, move phases, watch a run, go back through a search, compare.

Nothing needs them: what they show is drawn by functions that notebooks call too.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path

import ipywidgets

from sswp_lib.config import Config, InputError
from sswp_lib.runs import runs
from sswp_lib.runs.following import Standing
from sswp_lib.runs.records import Done, Record
from sswp_lib.show import drawings, plots, standings
from sswp_lib.show.controls import Ends, Number, Picture, Pictured, side_by_side
from sswp_lib.show.watching import Watched
from sswp_lib.space import Genotype, published_cells

Run = str | Record | Config
SIDE_BY_SIDE = 100  # pixels an inch of cells that stand side by side
Drawable = Genotype | Record | str | PathLike


def cells(genotype: Genotype) -> Pictured:
    """Step through the cells of a genotype."""

    def draw(cell: int) -> tuple[str, list[Picture]]:
        return "", [Picture.of(drawings.cells(genotype, [cell]), standings.genotype_words(genotype, cell))]

    return Pictured(draw, Number(0, 0, genotype.num_cells - 1, "cell"))


def phases(config: Config) -> Pictured:
    """Move the ends of warm-up and bi-level phase, and see when each cell is pruned. They start where the configuration
    has them; a last part with all cells fixed keeps its length.
    """
    own, s = config.search.ratios, config.search
    fixed = own[3] if len(own) > 3 else own[2] if s.prune == "none" and len(own) > 2 else 0.0
    end = round(1 - fixed, 6)

    def draw(ends: tuple[float, float]) -> tuple[str, list[Picture]]:
        ratios = tuple(round(part, 6) for part in (ends[0], ends[1] - ends[0], end - ends[1], fixed))
        # not validated: the picture also shows what a search refuses, such as no bi-level phase
        prune = "forward" if s.prune == "none" else s.prune
        search = s.model_copy(update={"ratios": ratios if fixed else ratios[:3], "prune": prune})
        names = ("warm-up", "bi-level", "pruning", "fixed")[: len(search.ratios)]
        said = ", ".join(f"{name} {part:g}" for name, part in zip(names, search.ratios, strict=True))
        return said, [Picture.of(plots.phases(search, config.model.num_cells), f"Phases of a search: {said}")]

    return Pictured(draw, Ends(("warm-up", "bi-level"), own[:2], end))


def watch(run: Run) -> Watched:
    """Watch a run, wherever it goes on: in this notebook, another one or a terminal; before it begins, while it goes on
    and when it is done.

    Args:
        run: its name, or how one that is there begins; its record; or the configuration of a search.
    """
    found = runs.stand(run)
    return Watched(found.folder, found.given)


def scrub(search: Run) -> Pictured:
    """Go through the epochs of a search: the genotype that alpha stood for, its entropy, and the loss until then."""
    found = runs.stand(search)
    epochs = len(found.history)
    if not epochs or not found.name.startswith("search-"):
        raise InputError(f"{found.sentence()}; expected a search with an epoch that is done")
    last = _genotype_after(found, epochs)

    def draw(epochs: int, cell: int = 0) -> tuple[str, list[Picture]]:
        words = standings.until_words(found.history, epochs)
        pictures = [Picture.of(standings.until(found.history, epochs), words)]
        genotype = _genotype_after(found, epochs)
        if genotype is None:
            why = "alpha of that epoch was not kept" if "entropy" in found.history[0] else "this search has no alpha"
            return f"{words}; the genotype of then is not known: {why}", pictures
        drawn = Picture.of(drawings.cells(genotype, [cell]), standings.genotype_words(genotype, cell))
        return words, [*pictures, drawn]

    cell = [Number(0, 0, last.num_cells - 1, "cell")] if last else []
    return Pictured(draw, Number(epochs, 1, epochs, "after epoch"), *cell, still=True)


def _genotype_after(found: Standing, epochs: int) -> Genotype | None:
    """Return the genotype that alpha stood for after so many epochs; None where that is not known. After the last it is
    the one that was found.
    """
    if epochs - 1 in found.alphas:
        return Genotype.model_validate(found.alphas[epochs - 1]["genotype"])
    plain = found.record.result.get("genotype") if found.record and epochs == len(found.history) else None
    return Genotype.model_validate(plain) if plain else None


def compare(given: Sequence[Run | Done] | Mapping[str, Run | Done]) -> Pictured:
    """Lay curves of several runs over one another, and choose what is drawn, and of which runs.

    Args:
        given: runs as `watch` takes them, or runs of a comparison; or a dictionary of them by the names to show.
    """
    named = given if isinstance(given, Mapping) else {_name(one): one for one in given}
    histories = {name: runs.stand(getattr(one, "record", one)).history for name, one in named.items()}
    present = [q for q in standings.QUANTITIES if any(standings.series(rows, q)[0] for rows in histories.values())]
    if not present:
        raise InputError(f"no epoch of {', '.join(histories) or 'no run'} is done; expected runs with a history")

    def draw(quantity: str, chosen: tuple[str, ...]) -> tuple[str, list[Picture]]:
        shown = {name: histories[name] for name in chosen}
        return "" if shown else "no run is chosen", [
            Picture.of(standings.curves(shown, quantity), standings.curves_words(shown, quantity))
        ]

    return Pictured(
        draw, ipywidgets.Dropdown(options=present, description="drawn"),
        ipywidgets.SelectMultiple(
            options=list(histories), value=list(histories), description="runs", rows=min(len(histories), 6)
        ),
        still=True,
    )  # fmt: skip


def _name(run: Run | Done) -> str:
    if isinstance(run, Done):
        return ", ".join(f"{name} {value}" for name, value in run.labels.items())
    return runs.stand(run).name


def genotypes(*given: Drawable | Mapping[str, Drawable]) -> Pictured:
    """Set genotypes side by side, cell by cell: what was found, what is published, one's own.

    Args:
        given: genotypes, records, names of published genotypes or of finished runs, paths of files (JSON, or DARTS's
            own text); or dictionaries of them by the names to show. Pairs of cells are stacked as deep as the first
            that has a depth of its own, to 20 where none has one.
    """
    named: dict[str, Drawable] = {}
    for i, one in enumerate(given):
        named |= one if isinstance(one, Mapping) else {_title(one, i): one}
    if not named:
        raise InputError("no genotype is given; expected one or more")
    depths = [_found(one, 20).num_cells for one in named.values() if isinstance(one, Genotype | Record)]
    read = {name: _found(one, depths[0] if depths else 20) for name, one in named.items()}

    def draw(cell: int) -> tuple[str, list[Picture]]:
        having = {name: genotype for name, genotype in read.items() if cell < genotype.num_cells}
        lacking = [f"{name} has {read[name].num_cells} cells" for name in read if name not in having]
        pictures = [_titled(name, genotype, cell) for name, genotype in having.items()]
        return "; ".join(lacking), side_by_side(pictures)

    deepest = max(genotype.num_cells for genotype in read.values())
    return Pictured(draw, Number(0, 0, deepest - 1, "cell"), still=True)


def _titled(name: str, genotype: Genotype, cell: int) -> Picture:
    title = f"{name}, {drawings.title_of(genotype, cell)}"
    words = f"{name}, {standings.genotype_words(genotype, cell)}."
    if shutil.which("dot") is None:
        return Picture.of(drawings.cells(genotype, [cell], [title]), words)
    return Picture(drawings.png(drawings.cell_graph(genotype, cell, title), SIDE_BY_SIDE), words)


def _title(one: Drawable, place: int) -> str:
    if isinstance(one, Genotype):
        return f"genotype {place + 1}"
    return one.name if isinstance(one, Record) else Path(one).name


def _found(one: Drawable, num_cells: int) -> Genotype:
    """Return a genotype as it is, or as it is named."""
    if isinstance(one, Genotype | Record):
        return one if isinstance(one, Genotype) else one.genotype
    if isinstance(one, str) and one in published_cells():
        return Genotype.published(one, num_cells)
    if Path(one).is_file():
        return Genotype.from_file(Path(one), num_cells)
    return runs.find(str(one)).genotype
