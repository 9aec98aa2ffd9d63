"""Pi-NAS's comparisons in miniature: does a supernet rank architectures as training each by itself does?

Peng et al., ICCV 2021, sections 4.2 to 4.5: Tables 1, 3, 4 and 7, Figures 3 to 5, in NAS-Bench-201's space. All arms
are compared in one space, which the paper does not do: its Table 7 is of the ResNeSt-like space. Table 7 has no arm
that is without labels and has neither of the two ideas; it is added here, for otherwise their part cannot be told from
that of learning without labels. Where the paper names no positive for "without cross-path learning", it is the
teacher's output along the same path; views, paths and cost are those of the other arms.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from math import nan
from typing import Any

import numpy as np
import pandas as pd
import torch

from sswp_lib.config import Config, InputError, home
from sswp_lib.learn.data import generator
from sswp_lib.learn.ranking import kendall
from sswp_lib.paper import stand_alone, studies
from sswp_lib.paper.output import Output
from sswp_lib.paper.pi_nas_claims import FULL, NEITHER, NO_NEGATIVES, NO_TEACHER, OWN_PATH, SPOS, UNTRAINED
from sswp_lib.paper.studies import Job, Settings
from sswp_lib.presets import SUPERVISED
from sswp_lib.runs import one_shot
from sswp_lib.runs.records import Done
from sswp_lib.space import Choices
from sswp_lib.space.bench201 import BENCH201

ARMS: dict[str, Settings] = {  # what each changes in a one-shot training
    FULL: {},
    NO_TEACHER: {"one_shot.teacher": 0.0},
    OWN_PATH: {"one_shot.cross_path": False},
    NEITHER: {"one_shot.cross_path": False, "one_shot.teacher": 0.0},
    NO_NEGATIVES: {"one_shot.negatives": False},
    SPOS: SUPERVISED,
    UNTRAINED: {"one_shot.epochs": 0},
}
ROWS = {
    FULL: "Pi-NAS", NO_TEACHER: "S-Pi model", OWN_PATH: "without CP", NO_NEGATIVES: "without nontrivial", SPOS: "SPOS",
}  # fmt: skip
"""Arm -> row of the paper's Table 7."""


@dataclass(frozen=True)
class Extent:
    """How much of these comparisons a preset affords; ours.

    Args:
        architectures: that are ranked, drawn once among the 729 without `none` and `skip_connect`.
        trainings: of each of them, on other labelled images each, where their accuracies are not published.
        supernets: of each arm, with a seed each.
        published: architectures that are ranked where their accuracies are, so that none is to be trained.
        small: how many of those are trained here all the same, at the supernet's size (see `alone_here`).
    """

    architectures: int = 16
    trainings: int = 2
    supernets: int = 3
    published: int = 64
    small: int = 0

    def drawn(self, config: Config) -> list[Choices]:
        """Return the architectures that are ranked by supernets of a configuration."""
        return drawn(self.published if is_published(config) else self.architectures)


EXTENTS = {
    "smoke": Extent(5, 2, 2, published=5),
    "night": Extent(36, 3, 5, published=729, small=32),
    "cifar": Extent(48, 2, 3, published=200),
    "paper": Extent(729, 3, 3, published=729),
}


def extent(preset: str, architectures: int | None = None, trainings: int | None = None) -> Extent:
    """Return how much a preset affords; numbers that are given take the place of its own.

    Raises:
        InputError: fewer than two architectures, which nothing can rank, or no training.
    """
    own = EXTENTS.get(preset, Extent())
    for name, value, least in (("architectures", architectures, 2), ("trainings", trainings, 1)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise InputError(f"{name} is {value!r}; expected a whole number of {least} or more, or None")
    return replace(
        own, architectures=architectures or own.architectures, trainings=trainings or own.trainings,
        published=architectures or own.published,
    )  # fmt: skip


def drawn(count: int) -> list[Choices]:
    """Return so many of the 729 architectures without `none` and `skip_connect`, drawn once for all configurations, in
    the order of the space; all of them where there are no more.
    """
    everything = stand_alone.without_none_and_skip()
    order = torch.randperm(len(everything), generator=generator(0, "architectures to rank"))
    return [everything[k] for k in sorted(order[:count].tolist())]


def paths_compared() -> list[Choices]:
    """Return the four paths of Figure 5: drawn at random but for the last edge, which has each operation but none."""
    g, found = generator(0, "paths of Figure 5"), []
    for name in BENCH201.candidates[1:]:
        *before, _ = BENCH201.draw(g).operations
        found.append(BENCH201.choices([*before, name]))
    return found


@dataclass(frozen=True)
class Truth:
    """What architectures reach when they are trained by themselves.

    Args:
        accuracies: top-1 on the test set in percent, (seeds, architectures).
        short: of a shorter training, where known. published: whether they were.
        runs: names of the runs that they are of.
    """

    architectures: tuple[Choices, ...]
    accuracies: np.ndarray
    short: np.ndarray | None = None
    published: bool = False
    runs: frozenset[str] = field(default=frozenset(), repr=False)

    @property
    def accuracy(self) -> np.ndarray:
        """The mean over seeds: (architectures,)."""
        return self.accuracies.mean(axis=0)

    @property
    def ceiling(self) -> float:
        """The tau that one training of each architecture reaches against another: its mean over pairs of seeds; of
        published accuracies that of the short training against the long. nan where there is one seed.
        """
        if self.short is not None:
            return tau(self.short, self.accuracy)
        pairs = [tau(one, other) for one, other in combinations(self.accuracies, 2)]
        return float(np.mean(pairs)) if pairs else nan

    @property
    def words(self) -> str:
        """How a caption calls them."""
        if self.published:
            how = "CIFAR-10 at 32 pixels, C=16, N=5, 200 epochs"
            return f"{len(self.architectures)} architectures, accuracies as published ({how})"
        trainings = len(self.accuracies)
        return f"{len(self.architectures)} architectures, {trainings} training{'s' * (trainings > 1)} each"


def tau(one: Sequence[float], other: Sequence[float]) -> float:
    """Return Kendall's tau-b; nan where all of one are tied."""
    found = kendall([float(x) for x in one], [float(x) for x in other])
    return nan if found is None else found


def alone(config: Config) -> Config:
    """Return the configuration of an architecture's own training: of the supernet's width and depth."""
    size = {"model.init_channels": config.one_shot.init_channels, "model.num_cells": config.one_shot.num_cells}
    return config.changed(**size, **{"model.stem": "cifar"})


def alone_jobs(config: Config, architectures: Sequence[Choices], trainings: int) -> list[Job]:
    """Train each architecture by itself with each seed, which stands for the same labelled images and the same order
    of batches for all of them.
    """
    own = alone(config)
    return [
        Job({"what": "alone", "architecture": place, "seed": seed}, own.changed(seed=seed), choices)
        for seed in range(trainings)
        for place, choices in enumerate(architectures)
    ]


def is_published(config: Config) -> bool:
    """Tell whether the accuracies of a configuration's data set are published, and the user has them."""
    return config.data.name == "cifar10" and (home() / config.data.root / stand_alone.FILE).is_file()


def truth(config: Config, affords: Extent, device: str | None = None) -> Truth:
    """Return what architectures reach by themselves: as published, where the user has that, else trained here."""
    architectures = affords.drawn(config)
    if is_published(config):
        return published(stand_alone.published(home() / config.data.root), architectures)
    return trained(studies.carry_out(alone_jobs(config, architectures, affords.trainings), device), architectures)


def small_jobs(config: Config, affords: Extent) -> list[Job]:
    """Train some of the architectures whose accuracies are published by themselves, once each; none of others."""
    count = min(affords.small, affords.published) if is_published(config) else 0
    return alone_jobs(config, drawn(count), 1)


def alone_here(config: Config, affords: Extent, known: Truth, device: str | None = None) -> dict[str, float]:
    """Return {what it is: the tau of these trainings with published accuracies}, {} where there are none: networks of
    the benchmark are larger than a preset's supernet, and what a training at its size cannot tell is not to be expected
    of it.
    """
    jobs = small_jobs(config, affords)
    if not jobs:
        return {}
    few = [job.source for job in jobs]
    accuracy = dict(zip(known.architectures, known.accuracy, strict=True))
    reached = trained(studies.carry_out(jobs, device), few).accuracy
    return {f"{len(few)} trained alone at this size": tau(reached, [accuracy[choices] for choices in few])}


def published(table: pd.DataFrame, architectures: Sequence[Choices]) -> Truth:
    """Return what is published of these architectures."""
    values = np.array([stand_alone.of(table, list(architectures))])
    short = None
    if stand_alone.SHORT in table:
        short = np.array(stand_alone.of(table, list(architectures), stand_alone.SHORT))
    return Truth(tuple(architectures), values, short, published=True)


def trained(done: Iterable[Done], architectures: Sequence[Choices]) -> Truth:
    """Return what the runs of `alone_jobs` reached."""
    rows = [(job.labels["seed"], job.labels["architecture"], job.record.accuracies["test"]["top1"]) for job in done]
    wide = pd.DataFrame(rows, columns=["seed", "architecture", "test"]).pivot(
        index="seed", columns="architecture", values="test"
    )
    return Truth(tuple(architectures), wide.to_numpy(), runs=frozenset(job.record.name for job in done))


@dataclass(frozen=True)
class Ranking:
    """A ranking that a comparison needs: of `architectures` by a one-shot network, with its features along the paths
    `alike`.
    """

    labels: dict[str, Any]
    config: Config
    architectures: tuple[Choices, ...]
    alike: tuple[Choices, ...] = ()


def rankings(config: Config, architectures: Sequence[Choices], seeds: int, arms: Iterable[str] = ARMS) -> list[Ranking]:
    """Rank the architectures by a supernet of each arm and seed; all arms of a seed before the next.

    Raises:
        InputError: one_shot.space is another space than NAS-Bench-201's.
    """
    if config.one_shot.space != BENCH201.name:
        raise InputError(
            f"one_shot.space is {config.one_shot.space!r}, but architectures of {BENCH201.name!r} are compared here; "
            "expected that, or rank those of another space by runs.one_shot.rank"
        )
    what, alike = tuple(architectures), tuple(paths_compared())
    return [
        Ranking({"arm": arm, "seed": seed}, config.changed(**ARMS[arm], seed=seed), what, alike)
        for seed in range(seeds)
        for arm in arms
    ]


def carry_out(jobs: Iterable[Ranking], device: str | None = None) -> list[Done]:
    """Return the rankings' records in their order, doing those that are not there, and the supernets that they need;
    those that another process is at are left for later.
    """
    rank = lambda job: one_shot.rank(job.config, job.architectures, job.alike, device, quiet=True)  # noqa: E731
    return studies.shared(jobs, lambda job: Done(job.labels, rank(job)))


def described(config: Config, supernets: int, affords: Extent, output: Output, device: str) -> pd.DataFrame:
    """Return one line that says what is about to be done, where, and where its results go."""
    s = config.one_shot
    row = {
        "data": config.data.name, "pixels": config.data.image_size, "C": s.init_channels, "N": s.num_cells,
        "supernet epochs": s.epochs, "arms": len(ARMS), "supernets of each": supernets,
        "architectures": len(affords.drawn(config)), "published": is_published(config), "preset": output.label,
        "device": device, "results in": f"figures/own/{output.name}",
    }  # fmt: skip
    return pd.DataFrame([row])
