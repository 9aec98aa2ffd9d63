"""How long the notebooks will take: the runs that are not there yet, at the seconds that a step takes on this
machine.
"""

from __future__ import annotations

import ast
import json
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import torch

from sswp_lib.config import Config
from sswp_lib.learn.data import load
from sswp_lib.learn.loop import Loop
from sswp_lib.learn.one_shot_search import in_cells
from sswp_lib.learn.oneshot import OneShot, split
from sswp_lib.learn.ranking import LinearEvaluation
from sswp_lib.learn.searches import SEARCHES
from sswp_lib.learn.train import Training
from sswp_lib.methods import ONE_SHOT, RANDOM
from sswp_lib.paper import bench, beyond, pi_nas, setups, ssnas, studies, tables, tour
from sswp_lib.paper.pi_nas import Ranking
from sswp_lib.paper.setups import Setup
from sswp_lib.paper.studies import Job
from sswp_lib.runs import one_shot, runs
from sswp_lib.runs.records import Done, Record
from sswp_lib.space import Choices, Genotype

T = TypeVar("T")
STEPS = 4  # measured after one that is not
# seconds that a run takes beside its steps: loading, evaluations, files; as found with the small networks of `quick`
RUN = 1.5


def plan(notebook: Path, preset: str, data: str | None, seeds: int | None, guess: bool = True) -> list[Job | Ranking]:
    """Return the runs that a notebook asks for, with its own parameters but for those that are given; none where they
    cannot be told beforehand.

    Args:
        guess: whether runs that hang on what others come to, which are not there yet, stand in it as some of their
            kind, so that they can be counted; else they are left out.
    """
    jobs = JOBS.get(notebook.stem[:2])
    own = parameters(notebook) | {"preset": preset, "data": data, "seeds": seeds, "guess": guess}
    return jobs(own) if jobs else []


def parameters(notebook: Path) -> dict[str, Any]:
    """Return the plain values of a notebook's cell of parameters."""
    cells = json.loads(notebook.read_text())["cells"]
    source = ["".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    statements = ast.parse("\n".join(source)).body
    return {s.targets[0].id: ast.literal_eval(s.value) for s in statements if isinstance(s, ast.Assign)}


def _setup(own: dict[str, Any], study: str = "ablations") -> Setup:
    return setups.configured(own["preset"], own["data"], own["seeds"], own["settings"], study)


def _tour(own: dict[str, Any]) -> list[Job]:
    config, few, n, _ = _setup(own, "few_labels")
    first = tour.choosing(config, few, n)
    best = _chosen(own, first, tour.recipes, dict.fromkeys(beyond.STARTS, (next(iter(studies.AUGMENTED)), 0.03)))
    return [*studies.searches(config, 1), *first, *(tour.repeated(config, few, n, best, 2 * n) if best else [])]


def _few_labels(own: dict[str, Any]) -> list[Job]:
    config, few, n, _ = _setup(own, "few_labels")
    affords = beyond.extent(own["preset"])
    rates = own["learning_rates"] or affords.few_rates
    return [
        *studies.searches(config, n), *beyond.again(config, min(affords.again, n)),
        *beyond.planted(config, min(affords.planted, n)),
        *studies.recipes(config, few, n, rates),
    ]  # fmt: skip


def _both(own: dict[str, Any], study: str) -> list[Setup]:
    second = setups.sliced(own["preset"], own["data"], own["seeds"], own["settings"], study)
    return [_setup(own, study), *([second] if second else [])]


def _benchmark(own: dict[str, Any]) -> list[Job]:
    trainings = setups.number_of_trainings(own["preset"])
    jobs: list[Job] = []
    for place, (config, study, n, _) in enumerate(_both(own, "ablations")):
        jobs += studies.benchmark(config, study, n, trainings, () if place else studies.PUBLISHED)
    return jobs


def _pruning(own: dict[str, Any]) -> list[Job]:
    _, study, n, _ = _setup(own)
    arms = studies.pruning_arms(study) | studies.RATIOS | studies.EDGES
    return studies.ablation(study, arms, n, setups.number_of_trainings(own["preset"]))


def _fractions(own: dict[str, Any]) -> list[Job]:
    config, study, n, _ = _setup(own, "fractions")
    few = _setup(own, "few_labels").study
    affords = beyond.extent(own["preset"])
    rates, shares = own["learning_rates"] or affords.rates, own["fractions"] or affords.fractions
    few_rates = own["learning_rates"] or affords.few_rates
    at_ten = studies.rates_at(config, study, 0.1, n, rates, studies.STARTS)
    best = _chosen(own, at_ten, tables.best_lr, dict.fromkeys(studies.STARTS, 0.1))
    return [
        *at_ten, *(studies.fractions_at(config, study, best, shares, n) if best else []),
        *studies.recipes(config, few, n, few_rates, ("random", "simclr", "concomitant")), *_map(own),
        *(beyond.stages(beyond.of_length(config, affords.stages), study, n, 0.1, rates) if affords.stages else []),
    ]  # fmt: skip


def _map(own: dict[str, Any]) -> list[Job]:
    jobs: list[Job] = []
    for place, (config, few, n, _) in enumerate(_both(own, "few_labels")):
        affords = beyond.Extent() if place else beyond.extent(own["preset"])
        rates = own["learning_rates"] or affords.few_rates
        first = beyond.choices(config, few, n, affords.labels, affords.choosing, rates)
        epochs = beyond.lengths(config, affords.lengths)
        anything = {(k, i): (next(iter(studies.AUGMENTED)), 0.05) for k in affords.labels for i in beyond.STARTS}
        best = _chosen(own, first, beyond.best_recipes, anything)
        jobs += [*first, *(beyond.by_length(config, few, n, best, epochs) if best else [])]
    return jobs


def _rates(own: dict[str, Any]) -> list[Job]:
    config, study, n, _ = _setup(own, "fractions")
    rates = own["learning_rates"] or beyond.extent(own["preset"]).rates
    return studies.rates_at(config, study, own["fraction"] or 0.5, n, rates)


def _further(own: dict[str, Any]) -> list[Job]:
    _, study, n, _ = _setup(own)
    affords = beyond.extent(own["preset"])
    arms = studies.epoch_arms(study, affords.epochs) | studies.batch_arms(study, affords.batches)
    arms |= studies.OBJECTIVES | studies.DROPOUT
    trainings = setups.number_of_trainings(own["preset"])
    moved = studies.transfer(study, n, *studies.data_sets(study, own["transfer_to"]), trainings)
    return [*studies.ablation(study, arms | studies.gain_arms(study), n, trainings), *moved, *studies.probes(study, n)]


def _ssnas(own: dict[str, Any]) -> list[Job]:
    _, study, n, _ = _setup(own, "ssnas")
    features, rates = _setup(own, "ssnas_features").study, ssnas.rates(own["preset"])
    arms = ssnas.arms(study, own["labels_per_class"])
    return [
        *ssnas.compared(study, arms, n, setups.number_of_trainings(own["preset"])),
        *ssnas.selection(features, study, n), *ssnas.representations(features, study, n),
        *ssnas.starts(features, study, n, rates),
    ]  # fmt: skip


def _rankings(own: dict[str, Any]) -> list[Job | Ranking]:
    affords, jobs = pi_nas.extent(own["preset"], own["architectures"], own["trainings"]), []
    for _, study, _, _ in _both(own, "one_shot"):
        architectures = affords.drawn(study)
        if not pi_nas.is_published(study):
            jobs += pi_nas.alone_jobs(study, architectures, affords.trainings)
        jobs += pi_nas.small_jobs(study, affords)
        jobs += pi_nas.rankings(study, architectures, own["seeds"] or affords.supernets)
    return jobs


def _bench(own: dict[str, Any]) -> list[Job]:
    _, study, n, _ = _setup(own, "bench")
    configs = bench.configurations(own["preset"], own["data"], own["settings"])
    return bench.plan(configs, study, n, setups.number_of_trainings(own["preset"]))


JOBS: dict[str, Callable[[dict[str, Any]], list[Job | Ranking]]] = {  # by the notebook's number
    "00": _tour, "01": _few_labels, "02": _benchmark, "03": _pruning, "04": _fractions, "05": _rates,
    "06": lambda own: [Job({}, _setup(own).config)], "07": _further, "08": _ssnas, "09": _rankings,
    "10": _bench,
}  # fmt: skip


def _chosen(own: dict[str, Any], jobs: list[Job], choose: Callable[[pd.DataFrame], T], anything: T) -> T | None:
    """Return what a notebook chooses by these trainings; where they are not all there `anything`, if only the number
    of runs that follow counts, else None.
    """
    done = _done(jobs)
    if len(done) == len(jobs):
        return choose(tables.trainings(done))
    return anything if own["guess"] else None


def _done(jobs: list[Job]) -> list[Done]:
    return [Done(job.labels, record) for job in jobs if (record := _there(job)) is not None]


def _there(job: Job) -> Record | None:
    """Return the record of a job if it and the search that it needs are there already."""
    if job.source is None:
        return runs.finished(job.config)
    found = runs.finished(job.search) if job.search else None
    return None if job.search and found is None else runs.finished(job.config, job.trained(found))


def seconds(preset: str, data: str | None, seeds: int | None, notebooks: list[Path]) -> dict[str, float]:
    """Return, for each notebook's name, the seconds of its runs that are not there yet; a run that two share counts
    once.
    """
    counted: set = set()
    return {path.stem: sum(_cost(job, counted) for job in plan(path, preset, data, seeds)) for path in notebooks}


def _cost(job: Job | Ranking, counted: set) -> float:
    """Return the seconds of a job, of the search that it needs and of its pre-training."""
    if isinstance(job, Ranking):
        return _cost_of_ranking(job)
    total = 0.0
    if job.search and runs.finished(job.search) is None:
        total += _cost(Job({}, job.search), counted)
    key = repr(job.identity)
    if key in counted:
        return total
    counted.add(key)
    if _there(job) is not None:
        return total
    if before := job.before:
        total += _cost(before, counted)
    if job.source is None and job.config.search.method in ONE_SHOT:
        r = job.config.ranking
        return total + RUN + sum(_one_shot_seconds(in_cells(job.config), r.population * r.generations))
    training = job.source if isinstance(job.source, Choices) else job.source is not None
    return total + RUN + steps_of(job) * _step_seconds(plain(job), training)


def _cost_of_ranking(job: Ranking) -> float:
    """Return the seconds of a ranking, of its supernet and of its linear classifier."""
    if one_shot.finished(job.config, job.architectures, job.alike) is not None:
        return 0.0
    training, linear, scoring = _one_shot_seconds(job.config, len(job.architectures))
    total = RUN + scoring + (RUN + linear) * (job.config.one_shot.objective == "crosspath")
    return total + (RUN + training) * (one_shot.finished(job.config) is None)


def _one_shot_seconds(config: Config, architectures: int) -> tuple[float, float, float]:
    """Return the seconds of one-shot training, of its linear evaluation, and of scoring so many architectures."""
    s, r, count = config.one_shot, config.ranking, len(load(config.data).train)
    images = len(split(config, load(config.data))[0])
    each = _ranking_seconds(config.changed(**{"one_shot.epochs": 5, "ranking.linear_epochs": 5}, seed=0))
    linear = r.linear_epochs * (images // r.linear_batch) * each["linear"] * (s.objective == "crosspath")
    seen = min(r.calibration_images, images) + count - images
    scoring = architectures * each["linear"] * seen / r.linear_batch
    return s.epochs * (images // s.batch_size) * each["step"], linear, scoring


def plain(job: Job) -> Config:
    """Return the configuration without what hardly changes a step's time, so that few are measured."""
    same = {
        "train.init": "random",
        "train.lr": 0.1,
        "train.labels": 1.0,
        "train.labels_per_class": None,
        "train.freeze": "none",
        "train.validation": 0.0,
        "train.evaluate_every": 0,
        "train.half": False,
        "search.epochs": 30,
        "search.skip_dropout": 0.0,
        "data.classes": None,
    }
    return job.config.changed(**same, **{"search.prune": "none", "search.ratios": (0.0, 1.0)}, seed=0)


def steps_of(job: Job) -> int:
    config, count = job.config, len(load(job.config.data).train)
    if job.source is None:
        draws = config.random.draws if config.search.method == RANDOM else 1
        return draws * config.search.epochs * studies.iterations(config)
    t, classes = config.train, len(load(config.data).classes)
    count = count // 2 if t.half else count
    labelled = t.labels_per_class * classes if t.labels_per_class else count * (1 - t.validation) * t.labels
    return t.epochs * max(int(labelled) // t.batch_size, 1)


@cache
def _step_seconds(config: Config, training: bool | Choices) -> float:
    """Return the seconds of a step of a search, or of a training: of these choices, or of a published genotype."""
    data, device = load(config.data, runs.default_device()), runs.default_device()
    if training:
        what = training if isinstance(training, Choices) else Genotype.published("DARTS_V2", config.model.num_cells)
        return seconds_a_step(Training(config, data, what, device=device), device)
    return seconds_a_step(SEARCHES[config.search.method](config, data, device), device)


@cache
def _ranking_seconds(config: Config) -> dict[str, float]:
    """Return the seconds of a step of one-shot training and of one of its linear evaluation."""
    data, device = load(config.data, runs.default_device()), runs.default_device()
    loop = OneShot(config, data, device)
    evaluation = LinearEvaluation(config, data, loop.supernet, device)
    return {"step": seconds_a_step(loop, device), "linear": seconds_a_step(evaluation, device)}


def seconds_a_step(loop: Loop, device: str) -> float:
    steps = loop.advance()
    next(steps)
    started = _now(device)
    for _ in range(STEPS):
        next(steps)
    return (_now(device) - started) / STEPS


def _now(device: str) -> float:
    """Return the time when the device has done all that it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.monotonic()
