"""What the tour asks for and says: one search, what its features find alike, and a few fine-tunings of what it found.

Recipe and seeds are those of notebook 01 at few labels, so that the two share what both ask for. There the search is
repeated; here it is one, and what is repeated is the fine-tuning.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from sswp_lib.config import Config, InputError
from sswp_lib.paper import studies, tables
from sswp_lib.paper.beyond import RECIPE, STARTS
from sswp_lib.paper.learnt import interval
from sswp_lib.paper.studies import AUGMENTED, FEW_LABEL_RATES, Job, fine_tuning
from sswp_lib.runs.records import Record

BY = {
    "before": "features before the search",
    "after": "features after the search",
    "pixels": "pixels",
}  # what neighbours are told by; see `learn.neighbours`


def choosing(config: Config, few: Config, count: int, rates: Sequence[float] = FEW_LABEL_RATES) -> list[Job]:
    """Fine-tune what the first of `count` searches found from both starts, by each learning rate, with and without
    augmentation, on the labels that notebook 01 takes: what each start's recipe is chosen from.
    """
    return [job for job in studies.recipes(config, few, count, rates, STARTS) if job.labels["search"] == 0]


def recipes(frame: pd.DataFrame) -> dict[str, tuple[str, float]]:
    """Return {start: (augmentation, learning rate)} of the highest mean accuracy on held-out images."""
    return {row.init: (row.augmentation, row.lr) for row in tables.best(frame, choice=RECIPE).itertuples()}


def repeated(config: Config, few: Config, count: int, best: dict[str, tuple[str, float]], repeats: int) -> list[Job]:
    """Fine-tune from each start by its recipe so often, on other labelled images and with other new layers each time;
    both starts have the same ones.
    """
    each = [(init, a, lr, r) for init, (a, lr) in best.items() for r in range(repeats)]
    return [
        fine_tuning(config, few.changed(**AUGMENTED[a]), 0, r, count, init=init, augmentation=a, lr=lr)
        for init, a, lr, r in each
    ]


def alike(measured: Record, preset: str) -> pd.DataFrame:
    """Return, for each thing that neighbours are told by, how many of them are of their image's own class; last, of an
    image that is moved, among those that are not.

    Args:
        measured: of `runs.neighbours`, of images with labels.
    """
    labels, found, rows = _labels(measured), measured.result, []
    columns = ["the nearest", f"of {found['k']} nearest", f"of {found['k']} nearest, image moved {_pixels(found)}"]
    for name, words in BY.items():
        same = _same(measured, name)
        shares = (100 * same[:, 0].mean(), 100 * same.mean(), found["moved"][name])
        rows.append({"neighbours by": words} | {f"{c} (%)": v for c, v in zip(columns, shares, strict=True)})
    counts = np.bincount(labels)
    by_lot = (counts * (counts - 1)).sum() / (len(labels) * (len(labels) - 1))
    rows.append({"neighbours by": "lot", **dict.fromkeys(list(rows[0])[1:], 100 * by_lot)})
    return pd.DataFrame(rows).round(1).assign(images=len(labels), preset=preset)


def _pixels(found: dict[str, Any]) -> str:
    return f"by {found['moved by']} pixel{'s' * (found['moved by'] > 1)}"


def _same(measured: Record, name: str) -> np.ndarray:
    """Return whether each neighbour (images, k) is of its image's class."""
    labels = _labels(measured)
    return labels[np.array(measured.result["neighbours"][name])] == labels[:, None]


def _labels(measured: Record) -> np.ndarray:
    if "labels" not in measured.result:
        raise InputError("whether neighbours are of the same class needs labels; these images have none")
    return np.array(measured.result["labels"])


def alike_sentence(measured: Record) -> str:
    """Return what the neighbours say, in words: whether the features have become better, and how they stand to
    pixels.
    """
    share = {name: 100 * _same(measured, name).mean(1) for name in BY}
    gain, left = (_difference(share["after"], share[name]) for name in ("before", "pixels"))
    learnt = {1: "more", -1: "fewer", 0: "as many, as far as so many images tell,"}[_sign(gain)]
    ahead = {1: "better than", -1: "worse than", 0: "as well as"}[_sign(left)]
    return (
        f"Of the {measured.result['k']} nearest neighbours of {len(share['after'])} images **{learnt}** are of the "
        f"image's own class after the search than before: {share['after'].mean():.1f} % against "
        f"{share['before'].mean():.1f} %, a difference of {interval(gain)} points. By raw pixels they are "
        f"{share['pixels'].mean():.1f} %: these features find images of a class **{ahead}** pixels do, a "
        f"difference of {interval(left)} points. Of images that are moved {_pixels(measured.result)}: "
        + ", ".join(f"{measured.result['moved'][name]:.1f} % by {words}" for name, words in BY.items())
        + ". In brackets: 95 % over images, of one search."
    )


def _difference(one: np.ndarray, other: np.ndarray) -> tuple[float, float, float]:
    """Return the mean difference of two shares of the same images with its 95 % interval."""
    values = one - other
    half = 1.96 * values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean()), float(values.mean() - half), float(values.mean() + half)


def _sign(found: tuple[float, float, float]) -> int:
    _, low, high = found
    return int(low > 0) - int(high < 0)


def spread_sentence(frame: pd.DataFrame) -> str:
    """Return how the fine-tunings of both starts scatter, and in how many pairs of the same labels which was ahead."""
    wide = frame.pivot(index="seed", columns="init", values="test")
    said = [f"{tables.INITS[i]} {wide[i].mean():.1f} ± {wide[i].std(ddof=1):.1f} %" for i in STARTS]
    difference = wide["concomitant"] - wide["random"]
    return (
        f"Mean ± standard deviation of {len(wide)} fine-tunings from each start: {', '.join(said)}. With the same "
        f"labelled images the search's weights were ahead in **{int((difference > 0).sum())} of {len(wide)}** pairs; "
        f"the difference is {difference.mean():+.1f} points on average and ranges from {difference.min():+.1f} to "
        f"{difference.max():+.1f}."
    )
