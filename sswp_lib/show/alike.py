"""Figure of what features find alike: images with their nearest neighbours, from the record of a measurement."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sswp_lib.learn.data import ImageData
from sswp_lib.runs.records import Record
from sswp_lib.show.plots import CLASS_LETTERS, COLOURS, SMALL, WIDTH

TITLES = {"before": "features,\nbefore the search", "after": "features,\nafter the search", "pixels": "pixels"}
GAP = 0.6  # between what neighbours are told by, as a share of an image
ROWS, SHOWN = 10, 4  # images, the first of each class; neighbours of each
WRONG = COLOURS[3]


def neighbours(measured: Record, data: ImageData) -> Figure:
    """A row an image: itself, then its nearest neighbours by features before and after a search, and by pixels. One of
    another class has a frame and a cross.

    Args:
        measured: of `runs.neighbours`. data: the images that it is of.
    """
    found = measured.result
    images = (data.test if found["part"] == "test" else data.train)[found["images"]].cpu().permute(0, 2, 3, 1).numpy()
    queries, k = _queries(found), min(SHOWN, found["k"])
    widths = [1, *[GAP, *[1] * k] * len(TITLES)]
    figure, panels = plt.subplots(
        len(queries), len(widths), figsize=(WIDTH, 0.5 + len(queries) * WIDTH / (sum(widths) + 0.5)),
        width_ratios=widths, squeeze=False, layout="constrained",
    )  # fmt: skip
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    for line, query in zip(panels, queries, strict=True):
        _show(line[0], images[query], False)
        line[0].set_ylabel(_class(found, data, query), fontsize=SMALL, rotation=0, ha="right", va="center")
        for block, name in enumerate(TITLES):
            first = 1 + block * (k + 1)
            line[first].set_axis_off()
            for axes, other in zip(line[first + 1 :], found["neighbours"][name][query][:k], strict=False):
                _show(axes, images[other], _differ(found, query, other))
    _write(figure, panels, found, k)
    return figure


def _queries(found: dict) -> list[int]:
    """Return which images are shown: the first of each class; some that are spread over all where there are none."""
    if "labels" in found:
        return [found["labels"].index(label) for label in sorted(set(found["labels"]))][:ROWS]
    return np.linspace(0, len(found["images"]) - 1, min(ROWS, len(found["images"]))).astype(int).tolist()


def _differ(found: dict, one: int, other: int) -> bool:
    return "labels" in found and found["labels"][one] != found["labels"][other]


def _class(found: dict, data: ImageData, image: int) -> str:
    name = data.classes[found["labels"][image]] if "labels" in found else ""
    return name if len(name) <= CLASS_LETTERS else f"{name[: CLASS_LETTERS - 1]}…"


def _show(axes: Axes, image: np.ndarray, wrong: bool) -> None:
    axes.imshow(image, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set(visible=wrong, color=WRONG, linewidth=1.8)
    if wrong:
        axes.plot(0.84, 0.16, "X", transform=axes.transAxes, ms=6, mfc=WRONG, mec="white", mew=0.7, clip_on=False)


def _write(figure: Figure, panels: np.ndarray, found: dict, k: int) -> None:
    """Write above each block what its neighbours are told by, and how many of all of them are of their own class."""
    panels[0][0].set_title("image", fontsize=SMALL)
    for block, (name, title) in enumerate(TITLES.items()):
        share = f": {found['same class'][name]:.1f} %" if "same class" in found else ""
        axes = panels[0][2 + block * (k + 1) + (k - 1) // 2]
        axes.set_title(title + share, fontsize=SMALL, x=0.5 if k % 2 else 1.1)
