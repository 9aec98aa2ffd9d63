"""All methods on one bench: one space, one data set, as much compute for each, one recipe to judge by. Ours throughout:
no paper compares them.

**Compute** is counted in weight steps of the search by paths: forward and backward, along one path, of two views of a
batch. With the forward pass as a third of it, the gradient to what flows through as another and that to weights as the
last, and as many candidates as an edge runs, a step's cost follows from what it does (`a_step`). What has no candidate
at all (`none`) costs nothing; that operations differ, and that some evaluate faster than others, is left out, so
seconds stand beside it. Each method is given the epochs that bring it nearest to the budget, that of SSWP-NAS.

**Random search** has the same compute, once with labels and once without. So a method is set against what chance finds
with the same kind of images.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from sswp_lib.config import Config
from sswp_lib.learn.data import load
from sswp_lib.learn.oneshot import split
from sswp_lib.learn.phases import architecture_steps, phase_lengths
from sswp_lib.methods import ONE_SHOT, RANDOM, RELAXED, SIZES
from sswp_lib.paper import studies, tables
from sswp_lib.paper.bench_claims import (
    DRAWN,
    FIRST,
    PI_NAS,
    RANDOM_LABELS,
    RANDOM_SEARCH,
    SECOND,
    SPOS,
    SSNAS,
    SSWP,
    ours,
    rival,
)  # fmt: skip
from sswp_lib.paper.effects import Effect, between
from sswp_lib.paper.lots import random_genotype
from sswp_lib.paper.studies import Job, Settings, fine_tuned, from_scratch
from sswp_lib.presets import is_used, load_config, parse_settings
from sswp_lib.runs.records import Done
from sswp_lib.space import CANDIDATES

_WHOLE: Settings = {"relaxed.init_channels": None, "relaxed.num_cells": None}  # searched in at the model's size
ARMS: dict[str, tuple[str, Settings]] = {  # method, and what is changed in it
    SSWP: ("sswp", {}),
    SSNAS: ("ssnas", _WHOLE),
    PI_NAS: ("pi-nas", {}),
    RANDOM_SEARCH: (RANDOM, {"search.objective": "simclr"}),
    FIRST: ("darts", _WHOLE),
    SECOND: ("darts", {**_WHOLE, "relaxed.order": 2}),
    SPOS: ("spos", {}),
    RANDOM_LABELS: (RANDOM, {"search.objective": "supervised"}),
}
ORDER = (*ARMS, DRAWN)
REACH = 6.0  # how far Adam can carry an entry of the relaxation's alpha in a whole search, as with DARTS's own settings
FORWARD = THROUGH = WEIGHTS = 1 / 3  # of a weight step


def labels_seen(arm: str) -> str:
    """Return what an arm's search uses labels for."""
    return {PI_NAS: "to score", **dict.fromkeys((FIRST, SECOND, SPOS, RANDOM_LABELS), "to learn")}.get(arm, "none")


def a_step(config: Config, unit: int) -> dict[str, float]:
    """Return what a search's steps cost, by kind, in weight steps of a search by paths in batches of `unit` images."""
    s, o, method = config.search, config.one_shot, config.search.method
    if method in ONE_SHOT:
        teacher = FORWARD if o.objective == "crosspath" else 0.0
        linear = {"linear": FORWARD / 2 * config.ranking.linear_batch / unit} if teacher else {}
        return {"weights": (1 + teacher) * o.batch_size / unit, **linear}
    one = (0.5 if s.objective == "supervised" else 1.0) * s.batch_size / unit  # along one path
    if method == RANDOM:
        return {"weights": one}
    if method not in RELAXED:
        return {"weights": one, "alpha": one * (s.evaluated * FORWARD + THROUGH)}
    every = len(CANDIDATES) * one
    of_alpha = every * (FORWARD + THROUGH)
    ahead = 2 * every + 2 * of_alpha  # the step ahead, the loss there, and two differences
    return {"weights": every, "alpha": of_alpha if config.relaxed.order == 1 else ahead}


def compute(config: Config, unit: int) -> tuple[float, float]:
    """Return what a search costs in weight steps: for each of its epochs (of training, with one-shot methods), on
    average; and beside them.
    """
    cost, method, epochs = a_step(config, unit), config.search.method, config.search.epochs
    if method in ONE_SHOT:
        return _one_shot(config, cost, unit)
    steps = studies.iterations(config)
    if method == RANDOM:
        return config.random.draws * steps * cost["weights"], 0.0
    if method in RELAXED:
        return steps * (cost["weights"] + cost["alpha"]), 0.0
    fixed = phase_lengths(config.search).get("fixed", 0)  # which sees all images
    return (cost["weights"] * steps * (epochs + fixed) + _on_alpha(config, cost, steps)) / epochs, 0.0


def _on_alpha(config: Config, cost: dict[str, float], steps: int) -> float:
    """Return what a search by paths spends on alpha: a cell that is pruned runs what it has kept."""
    taken = architecture_steps(config.search, config.model.num_cells, steps).values()
    pruned = cost["weights"] * (FORWARD + THROUGH)
    return sum(cost["alpha"] * own + pruned * (max(taken) - own) for own in taken) / len(taken)


def _one_shot(config: Config, cost: dict[str, float], unit: int) -> tuple[float, float]:
    o, r = config.one_shot, config.ranking
    learnt, held = map(len, split(config, load(config.data)))
    scored = r.population * r.generations * (min(r.calibration_images, learnt) + held)
    linear = r.linear_epochs * (learnt // r.linear_batch) * cost.get("linear", 0.0)
    return learnt // o.batch_size * cost["weights"], scored / (2 * unit) * FORWARD + linear


def total(config: Config, unit: int) -> float:
    """Return what a whole search costs in weight steps."""
    each, beside = compute(config, unit)
    return each * _epochs(config) + beside


def _epochs(config: Config) -> int:
    return config.one_shot.epochs if config.search.method in ONE_SHOT else config.search.epochs


def configurations(preset: str, data: str | None = None, settings: Iterable[str] = ()) -> dict[str, Config]:
    """Return the search of each arm: a method's own settings at that preset, those of the given `settings` that it has
    a use for, and as many epochs as come nearest to the compute of SSWP-NAS, one at the least.
    """
    given = parse_settings(settings)
    of = lambda arm: _configuration(preset, data, given, arm)  # noqa: E731
    found = {SSWP: of(SSWP)}
    unit = found[SSWP].search.batch_size
    budget = total(found[SSWP], unit)
    return found | {arm: _within(budget, of(arm), unit) for arm in ARMS if arm != SSWP}


def _configuration(preset: str, data: str | None, given: Settings, arm: str) -> Config:
    method, changes = ARMS[arm]
    own = {k: value for k, value in given.items() if is_used(k, method) and k not in ("search.method", *SIZES)}
    return load_config(preset, data, settings={**own, **changes}, study="bench", method=method)


def _within(budget: float, config: Config, unit: int) -> Config:
    """Return the configuration with the epochs that the budget allows. The relaxation's rate of alpha goes with the
    number of steps, as in the presets.
    """
    each, beside = compute(config, unit)
    epochs = max(round((budget - beside) / each), 1)
    if config.search.method in ONE_SHOT:
        return config.changed(**{"one_shot.epochs": epochs})
    changes: Settings = {"search.epochs": epochs}
    if config.search.method in RELAXED:
        changes["relaxed.alpha_lr"] = float(f"{min(REACH / (epochs * studies.iterations(config)), 10):.2g}")
    return config.changed(**changes)


def plan(configs: dict[str, Config], study: Config, seeds: int, trainings: int = 1) -> list[Job]:
    """Search with each arm and seed; train what it found from scratch, and from the weights that it left, so many
    times by the study's recipe; beside them what is drawn by lot without any search.
    """
    jobs, cells = [], study.model.num_cells
    for seed in range(seeds):
        for arm, config in configs.items():
            searched = config.changed(seed=seed)
            jobs += [
                Job({"arm": arm, "what": "search", "seed": seed}, searched),
                *from_scratch(study, arm, searched, seed, range(trainings)),
                *fine_tuned(study, arm, searched, seed, range(trainings)),
            ]
        jobs += from_scratch(study, DRAWN, random_genotype(cells, seed), seed, range(trainings))
    return jobs


def judged(done: Iterable[Done]) -> pd.DataFrame:
    """Return one row for each arm and seed: test accuracies, see `tables.by_arm`, and the seconds of the search."""
    done = list(done)
    seconds = [
        {**{name: job.labels[name] for name in ("arm", "seed")}, "seconds": job.record.provenance["seconds"]}
        for job in done
        if job.labels["what"] == "search"
    ]
    trained = tables.by_arm(job for job in done if job.labels["what"] != "search")
    return trained.merge(pd.DataFrame(seconds), on=["arm", "seed"], how="left")


def costs(configs: dict[str, Config]) -> pd.DataFrame:
    """Return one row an arm: what its steps and the whole search cost, in weight steps, and how many epochs it has."""
    rows, unit = [], unit_of(configs)
    for arm, config in configs.items():
        step = {f"a step: {what}": f"{cost:.2f}" for what, cost in a_step(config, unit).items()}
        whole = {"epochs": _epochs(config), "whole search": round(total(config, unit))}
        rows.append({"arm": arm, "labels": labels_seen(arm), **whole, **step})
    return pd.DataFrame(rows).astype(object).fillna("")


def unit_of(configs: dict[str, Config]) -> int:
    """Return the images of a weight step in which compute is counted."""
    return configs[SSWP].search.batch_size


def table(frame: pd.DataFrame, configs: dict[str, Config], preset: str) -> pd.DataFrame:
    """Return one row an arm: accuracy beside cost, and the improvement over random search in points with its 95 %
    interval over seeds.
    """
    rows, unit = [], unit_of(configs)
    for arm in ORDER:
        found = frame[frame["arm"] == arm]
        row: dict[str, Any] = {"arm": arm, "labels": labels_seen(arm)}
        row |= {"weight steps": round(total(configs[arm], unit)) if arm in configs else 0}
        seconds = found["seconds"].dropna()
        row |= {"seconds": round(float(np.median(seconds))) if len(seconds) else 0}
        row |= {"parameters (k)": round(found["parameters"].mean() / 1e3, 1)}
        row |= {"from scratch (%)": tables.spread(found["scratch"].dropna())}
        row |= {"from its own weights (%)": tables.spread(found["fine-tuned"].dropna()) if arm in configs else ""}
        other = rival(arm)
        row |= {"minus random search (points)": _words(between(frame, arm, other)) if other else ""}
        rows.append({**row, "preset": preset})
    return pd.DataFrame(rows)


def _words(effect: Effect) -> str:
    return f"{effect.mean:+.2f} [{effect.low:.2f}, {effect.high:.2f}]" if effect.n > 1 else f"{effect.mean:+.2f}"


def improvements(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each searched arm and seed: its accuracy minus that of random search with the same seed and kind
    of images, in points: "scratch", "fine-tuned".
    """
    wide = frame.pivot(index="seed", columns="arm", values=["scratch", "fine-tuned"])
    rows = []
    for arm in ARMS:
        other = rival(arm)
        if other:
            gains = {what: wide[what][arm] - wide[what][other] for what in ("scratch", "fine-tuned")}
            rows.append(pd.DataFrame(gains).assign(arm=arm).reset_index())
    return pd.concat(rows, ignore_index=True)


def effects(frame: pd.DataFrame) -> dict[str, Effect]:
    """Return the claims' effects, paired by seed."""
    found = {ours(arm): between(frame, arm, rival(arm)) for arm in ARMS if rival(arm)}
    return found | {"bench_random_beats_draw": between(frame, RANDOM_LABELS, DRAWN)}
