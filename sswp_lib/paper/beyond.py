"""Comparisons that the paper does not make, each as the list of runs that it needs: whether alpha has learnt what it
could, and what weights are worth, by labels and by the length of the search, and against two stages of equal compute.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sswp_lib.config import Config
from sswp_lib.learn.data import number_of_classes
from sswp_lib.paper import tables
from sswp_lib.paper.claims import CLAIMS
from sswp_lib.paper.effects import Effect, nested
from sswp_lib.paper.studies import (
    AUGMENTED,
    FEW_LABEL_RATES,
    FRACTIONS,
    LEARNING_RATES,
    TIMES,
    Job,
    fine_tuning,
    searches,
)
from sswp_lib.runs import records
from sswp_lib.runs.runs import started_from
from sswp_lib.space import CANDIDATES

SMALLEST, LARGEST = 10, 50  # batches of a fine-tuning on the map; ours
PLANTED = ("noise", "zero", "twin")
STARTS = ("random", "concomitant")
RECIPE = ("augmentation", "lr")  # what each start chooses
AT_LABELS = "concomitant_beats_random_at_"  # keys of claims, before the number


@dataclass(frozen=True)
class Extent:
    """How much of these comparisons a preset affords; ours.

    Args:
        rates, few_rates: learning rates that a start chooses from: on a fraction of the labels, and on a few.
        fractions: of Figure 5. footprints: searches whose memory is measured.
        labels: of the map, of a class. lengths: of its searches, as shares of the preset's.
        choosing: searches whose fine-tunings choose a start's recipe there; the others follow.
        planted, again: searches with planted operations; searches whose alpha is learnt once more.
        epochs, batches: of Figure 4, as multiples of the study's.
        stages: length of the search whose one stage is set against two of equal compute, as a share of the preset's; 0
            for none.
    """

    rates: tuple[float, ...] = LEARNING_RATES
    few_rates: tuple[float, ...] = FEW_LABEL_RATES
    fractions: tuple[float, ...] = FRACTIONS
    footprints: int = 12
    labels: tuple[int, ...] = (1, 2, 5, 10, 50)
    lengths: tuple[float, ...] = (1 / 4, 1)
    choosing: int = 2
    planted: int = 1
    again: int = 2
    epochs: tuple[float, ...] = TIMES
    batches: tuple[float, ...] = TIMES
    stages: float = 1.0


EXTENTS = {
    "smoke": Extent(
        rates=(0.025, 0.1),
        few_rates=(0.03, 0.1),
        fractions=(0.1, 0.5),
        footprints=4,
        labels=(2,),
        lengths=(1,),
        choosing=1,
        again=1,
        epochs=(1 / 2, 1),
        batches=(1, 2),
    ),
    "quick": Extent(labels=(1, 10), stages=0.0),
    "night": Extent(
        lengths=(1 / 8, 1 / 4, 1 / 2, 1),
        choosing=4,
        planted=6,
        again=6,
        epochs=(1 / 2, 1),
        batches=(1, 2),
        stages=1 / 4,
    ),
}


def extent(preset: str) -> Extent:
    """Return how much of these comparisons a preset affords."""
    return EXTENTS.get(preset, Extent())


def planted(config: Config, count: int) -> list[Job]:
    """Search with noise, nothing and a twin among the candidates; where steps evaluate all, all of these too."""
    everything = config.search.evaluated == len(CANDIDATES)
    evaluated = len(CANDIDATES) + len(PLANTED) if everything else config.search.evaluated
    return searches(config.changed(**{"search.planted": PLANTED, "search.evaluated": evaluated}), count)


def again(config: Config, count: int) -> list[Job]:
    """Learn alpha once more from the same weights: searches that differ from those of the same seed in nothing but what
    is random in their architecture steps.
    """
    return searches(config.changed(**{"search.alpha_stream": 1}), count)


def recipe(few: Config, labels: int, augmentation: str) -> Config:
    """Return how networks are trained on so many labels of a class: by the recipe for few labels, in batches of half of
    the labelled images, 10 to 50.
    """
    images = labels * number_of_classes(few.data)
    batch = min(images, max(SMALLEST, min(images // 2, LARGEST)))
    settings = {"train.labels": 1.0, "train.labels_per_class": labels, "train.batch_size": batch}
    return few.changed(**settings, **AUGMENTED[augmentation])


def lengths(config: Config, shares: Sequence[float]) -> list[int]:
    """Return the epochs of the map's searches, none that cannot search."""
    wanted = {max(round(share * config.search.epochs), 1) for share in shares} | {config.search.epochs}
    return sorted(epochs for epochs in wanted if epochs >= _least(config))


def of_length(config: Config, share: float) -> Config:
    """Return a configuration whose search has such a share of the epochs, or as many as it takes to search."""
    return config.changed(**{"search.epochs": max(round(share * config.search.epochs), _least(config))})


def _least(config: Config) -> int:
    """Return with how many epochs a search has each of its phases; its own where these are fewer."""
    return min(math.ceil(3 / min(filter(None, config.search.ratios))), config.search.epochs)


def choices(
    config: Config,
    few: Config,
    count: int,
    labels: Sequence[int],
    choosing: int,
    rates: Sequence[float] = FEW_LABEL_RATES,
) -> list[Job]:
    """Train from concomitant and from random weights by each recipe, at each number of labels, what the first searches
    found: so each start chooses its own rate and augmentation.
    """
    chosen = range(min(count, choosing))
    each = [
        (k, i, a, lr, s) for k in labels for i in STARTS for a in AUGMENTED for lr in rates
        for s in chosen
    ]  # fmt: skip
    epochs = config.search.epochs
    return [_cell(config, few, count, k, epochs, s, init=i, augmentation=a, lr=lr) for k, i, a, lr, s in each]


def best_recipes(done: pd.DataFrame) -> dict[tuple[int, str], tuple[str, float]]:
    """Return {(labels of a class, start): (augmentation, rate)} of the highest mean validation accuracy."""
    rows = tables.best(done, ("per class", "init"), RECIPE).itertuples(index=False, name=None)
    return {(labels, init): (augmentation, lr) for labels, init, augmentation, lr in rows}


def by_length(
    config: Config, few: Config, count: int, best: dict[tuple[int, str], tuple[str, float]], epochs: Sequence[int]
) -> list[Job]:
    """Fine-tune what each search of each length found, from both starts, each by its own recipe."""
    return [
        _cell(config, few, count, labels, length, s, init=init, augmentation=augmentation, lr=lr)
        for length in epochs
        for s in range(count)
        for (labels, init), (augmentation, lr) in best.items()
    ]


def _cell(config: Config, few: Config, count: int, labels: int, epochs: int, search: int, **what: Any) -> Job:
    searched = config.changed(**{"search.epochs": epochs})
    about = {"per class": labels, "epochs": epochs, **what}
    return fine_tuning(searched, recipe(few, labels, what["augmentation"]), search, 0, count, **about)


def weights_map(frame: pd.DataFrame, best: dict[tuple[int, str], tuple[str, float]], preset: str) -> pd.DataFrame:
    """Return a row for each number of labels and length of search: test accuracy from both starts, each by its own
    recipe, and what concomitant weights add, in points with its 95 % interval over searches.
    """
    rows = []
    for (labels, epochs), runs in frame.groupby(["per class", "epochs"]):
        effect = nested(runs, "concomitant", "random")
        mean = runs.groupby("init")["test"].mean()
        rows.append(
            {"labels of a class": labels, "search epochs": epochs}
            | {f"{init}, test accuracy (%)": round(mean[init], 2) for init in STARTS}
            | {f"recipe of {init}": _words(*best[labels, init]) for init in STARTS}
            | {"difference": round(effect.mean, 2), "low": round(effect.low, 2), "high": round(effect.high, 2)}
            | {"n searches": effect.n, "preset": preset}
        )
    return pd.DataFrame(rows)


def _words(augmentation: str, lr: float) -> str:
    return f"learning rate {lr:g}, {'no augmentation' if augmentation == 'none' else 'augmented'}"


def by_labels(frame: pd.DataFrame, epochs: int) -> dict[str, Effect]:
    """Return the claims at each number of labels, of searches of so many epochs."""
    rows = frame[frame["epochs"] == epochs]
    labels = [int(k) for k in sorted(rows["per class"].unique()) if f"{AT_LABELS}{int(k)}" in CLAIMS]
    return {f"{AT_LABELS}{k}": nested(rows[rows["per class"] == k], "concomitant", "random") for k in labels}


WHOLE = 1.75  # times the search's epochs take as long as a search and its pre-training, about; the records say
FIXED = 3.125  # times the search's epochs, the rest of them with all cells fixed, have a pre-training's steps
ONE_STAGE = ("one stage", "one stage, whole compute", "one stage, then fixed")
TWO_STAGES = "two stages"
ONE_STAGE_CLAIMS = ("whole_search_equals_two_stages", "fixed_search_equals_two_stages")  # of the last two of these
ARMS = (*ONE_STAGE, TWO_STAGES)


def stage_searches(config: Config) -> dict[str, Config]:
    """Return the search of each one-stage arm. The last has the search's own three phases, epoch for epoch, and then as
    many steps with all cells fixed, on all images, as the pre-training of the two stages has.
    """
    s = config.search
    whole = {"search.epochs": round(WHOLE * s.epochs)}
    parts = [round(ratio / FIXED, 6) for ratio in s.ratios]
    fixed = {"search.epochs": round(FIXED * s.epochs), "search.ratios": (*parts, round(1 - sum(parts), 6))}
    return dict(zip(ONE_STAGE, (config, config.changed(**whole), config.changed(**fixed)), strict=True))


def stages(
    config: Config, study: Config, count: int, fraction: float = 0.1, rates: Sequence[float] = LEARNING_RATES
) -> list[Job]:
    """Fine-tune from the weights of one-stage searches, and from those of a pre-training after a search, at each
    rate.
    """
    jobs = []
    for arm, searched in stage_searches(config).items():
        jobs += _stage(arm, searched, study, count, fraction, rates, "concomitant")
    return jobs + _stage(TWO_STAGES, config, study, count, fraction, rates, "simclr")


def _stage(
    arm: str, searched: Config, study: Config, count: int, fraction: float, rates: Sequence[float], init: str
) -> list[Job]:
    each = [(lr, s) for lr in rates for s in range(count)]
    return [fine_tuning(searched, study, s, 0, count, init=init, lr=lr, fraction=fraction, arm=arm) for lr, s in each]


def against_two_stages(frame: pd.DataFrame | None) -> dict[str, Effect]:
    """Return the claims on searches with the compute of two stages, each at its best rate; none without runs."""
    arms = dict(zip(ONE_STAGE_CLAIMS, ONE_STAGE[1:], strict=True))
    return {} if frame is None else {key: nested(frame, arm, TWO_STAGES, key="arm") for key, arm in arms.items()}


def compute(config: Config, frame: pd.DataFrame, preset: str) -> pd.DataFrame:
    """Return a row an arm: test accuracy, the chosen rate, and what its weights cost: epochs of the search, steps of a
    pre-training, and seconds of both, the median over searches.

    Args:
        frame: the fine-tunings of each arm at its best rate.
    """
    rows = []
    for arm, runs in frame.groupby("arm", sort=False):
        found = [records.find(name) for name in runs["search run"]]
        seconds = np.array([r.provenance["seconds"] for r in found])
        before = [started_from(config.changed(seed=r.seed), "simclr") for r in found] if arm == TWO_STAGES else []
        if before:
            seconds += [r.provenance["seconds"] for r in before]
        rows.append(
            {"arm": arm, "search epochs": found[0].config["search"]["epochs"]}
            | {"pre-training steps": before[0].result["steps"] if before else 0}
            | {"seconds of both": round(float(np.median(seconds))), "learning rate": runs["lr"].iloc[0]}
            | {"test accuracy (%)": tables.spread(runs["test"]), "preset": preset}
        )
    return pd.DataFrame(rows)
