"""Figure of what features find alike: images with their nearest neighbours, from the record of a measurement."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from sswp_lib.learn.data import ImageData, shown
from sswp_lib.runs.records import Record
from sswp_lib.show.plots import CLASS_LETTERS, COLOURS, SMALL, WIDTH

TITLES = {"before": "features,\nbefore the search", "after": "features,\nafter the search", "pixels": "pixels"}
ROWS, SHOWN = 10, 4  # images, the first of each class; neighbours of each
PITCH, GAP = 1.1, 0.5  # from one image to the next; before those that are told by something else; in images
WRONG = COLOURS[3]


def neighbours(measured: Record, data: ImageData) -> Figure:
    """A row an image: itself, then its nearest neighbours by features before and after a search, and by pixels. One of
    another class has a frame and a cross.

    Args:
        measured: of `runs.neighbours`. data: the images that it is of.
    """
    found = measured.result
    images = shown(data.test if found["part"] == "test" else data.train, found["images"]).permute(0, 2, 3, 1).numpy()
    queries, k = _queries(found), min(SHOWN, found["k"])
    wide, high = _left(len(TITLES), k) - GAP, len(queries) * PITCH
    figure, axes = plt.subplots(figsize=(WIDTH, WIDTH * (high + 0.9) / (wide + 0.5)))  # on one axes: many are slow
    for row, query in enumerate(queries):
        top = row * PITCH
        _show(axes, images[query], 0, top, False)
        axes.text(-0.15, top + 0.5, _class(found, data, query), fontsize=SMALL, ha="right", va="center")
        for block, name in enumerate(TITLES):
            for place, other in enumerate(found["neighbours"][name][query][:k]):
                wrong = "labels" in found and found["labels"][query] != found["labels"][other]
                _show(axes, images[other], _left(block, k) + place * PITCH, top, wrong)
    _write_titles(axes, found, k)
    axes.set(xlim=(-0.1, wide), ylim=(high, -0.1), aspect="equal")
    axes.set_axis_off()
    return figure


def _left(block: int, k: int) -> float:
    """Return where a block of `k` neighbours begins."""
    return PITCH + GAP + block * (k * PITCH + GAP)


def _queries(found: dict) -> list[int]:
    """Return which images are shown: the first of each class; some that are spread over all where there are none."""
    if "labels" in found:
        return [found["labels"].index(label) for label in sorted(set(found["labels"]))][:ROWS]
    return np.linspace(0, len(found["images"]) - 1, min(ROWS, len(found["images"]))).astype(int).tolist()


def _class(found: dict, data: ImageData, image: int) -> str:
    name = data.classes[found["labels"][image]] if "labels" in found else ""
    return name if len(name) <= CLASS_LETTERS else f"{name[: CLASS_LETTERS - 1]}…"


def _show(axes: Axes, image: np.ndarray, left: float, top: float, wrong: bool) -> None:
    axes.imshow(image, extent=(left, left + 1, top + 1, top), interpolation="nearest")
    if wrong:
        axes.add_patch(Rectangle((left, top), 1, 1, fill=False, ec=WRONG, lw=2))
        axes.plot(left + 0.83, top + 0.83, "X", ms=6, mfc=WRONG, mec="white", mew=0.7)


def _write_titles(axes: Axes, found: dict, k: int) -> None:
    """Write above each block what its neighbours are told by, and how many of all of them are of their own class."""
    axes.text(0.5, -0.2, "image", fontsize=SMALL, ha="center", va="bottom")
    for block, (name, title) in enumerate(TITLES.items()):
        share = f": {found['same class'][name]:.1f} %" if "same class" in found else ""
        middle = _left(block, k) + (k * PITCH - (PITCH - 1)) / 2
        axes.text(middle, -0.2, title + share, fontsize=SMALL, ha="center", va="bottom")
