"""How long the notebooks will take: the runs that are not there yet, at the seconds that a step takes on this
machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache

import torch

from sswp_lib.config import Config
from sswp_lib.learn.data import load
from sswp_lib.learn.loop import Loop
from sswp_lib.learn.recipes import PRETRAINED, pretraining
from sswp_lib.learn.search import Search
from sswp_lib.learn.train import Training
from sswp_lib.paper import setups, studies, tables
from sswp_lib.paper.studies import Job
from sswp_lib.presets import load_config
from sswp_lib.runs import runs
from sswp_lib.runs.records import Done
from sswp_lib.space import Genotype

STEPS = 4  # measured after one that is not
# seconds that a run takes beside its steps: loading, evaluations, files; as found with the small networks of `quick`
RUN = 1.5


def plan(number: str, preset: str, data: str | None, seeds: int | None) -> list[Job]:
    """Return the runs that the notebook of that number asks for with its own parameters, where they can be told
    beforehand.
    """
    config = load_config(preset, data)
    study, few, part = (load_config(preset, data, study=name) for name in ("ablations", "few_labels", "fractions"))
    many = seeds or setups.number_of_seeds(preset, "few_labels")
    n = seeds or setups.number_of_seeds(preset, "ablations")
    bare = few.changed(**studies.AUGMENTED["none"])
    at_ten = studies.rates_at(config, part, 0.1, many, inits=studies.STARTS) if number == "04" else []
    others = studies.DROPOUT | studies.epoch_arms(study) | studies.batch_arms(study) | studies.OBJECTIVES
    others |= studies.gain_arms(study)
    arms: dict[str, Callable[[], list[Job]]] = {
        "01": lambda: [*studies.few_labels(config, few, many), *studies.few_labels(config, bare, many)],
        "02": lambda: studies.benchmark(study, n),
        "03": lambda: studies.ablation(study, studies.pruning_arms(study) | studies.RATIOS | studies.EDGES, n),
        "04": lambda: [
            *studies.few_labels(config, few, many, inits=("random", "simclr", "concomitant")), *at_ten,
            *studies.fractions_at(config, part, _best_rates(at_ten), studies.FRACTIONS, many),
        ],
        "05": lambda: studies.rates_at(config, part, 0.5, many),
        "06": lambda: [Job({}, config)],
        "07": lambda: [
            *studies.ablation(study, others, n),
            *studies.transfer(study, n, *studies.data_sets(study, None)), *studies.probes(study, n),
        ],
    }  # fmt: skip
    return arms[number]() if number in arms else []


def _best_rates(jobs: list[Job]) -> dict[str, float]:
    """Return each start's learning rate as notebook 04 chooses it; any, where its runs are not all there, for only
    their number counts then.
    """
    sources = {job.labels["search"]: runs.finished(job.source) for job in jobs}
    whole = jobs and None not in sources.values()
    found = [runs.finished(job.config, sources[job.labels["search"]]) for job in jobs] if whole else [None]
    if None in found:
        return dict.fromkeys(studies.STARTS, 0.1)
    return tables.best_lr(tables.trainings(Done(job.labels, record) for job, record in zip(jobs, found, strict=True)))


def seconds(preset: str, data: str | None, seeds: int | None, names: list[str]) -> dict[str, float]:
    """Return, for each notebook's name, the seconds of its runs that are not there yet; a run that two share counts
    once.
    """
    counted: set = set()
    return {name: sum(_cost(job, counted) for job in plan(name[:2], preset, data, seeds)) for name in names}


def _cost(job: Job, counted: set) -> float:
    """Return the seconds of a job, of the search that it needs and of its pre-training."""
    total, source = 0.0, job.source
    if isinstance(source, Config):
        source = runs.finished(source) or source
        total += _cost(Job({}, source), counted) if isinstance(source, Config) else 0.0
    key = (repr(job.config.part("data", "model", "search" if source is None else "train")), repr(job.source))
    if key in counted:
        return total
    counted.add(key)
    if not isinstance(source, Config) and runs.finished(job.config, source) is not None:
        return total
    if source is not None and job.config.train.init in PRETRAINED:
        seed = job.source.seed if isinstance(job.source, Config) else job.config.seed
        total += _cost(Job({}, pretraining(job.config, seed), job.source), counted)
    return total + RUN + _steps(job) * _step_seconds(_plain(job), source is not None)


def _plain(job: Job) -> Config:
    """Return the configuration without what hardly changes a step's time, so that few are measured."""
    same = {
        "train.init": "random",
        "train.lr": 0.1,
        "train.labels": 1.0,
        "train.labels_per_class": None,
        "train.freeze": "none",
        "train.validation": 0.0,
        "search.epochs": 30,
        "search.skip_dropout": 0.0,
        "data.classes": None,
    }
    return job.config.changed(**same, **{"search.prune": "none", "search.ratios": (0.0, 1.0)}, seed=0)


def _steps(job: Job) -> int:
    config, count = job.config, len(load(job.config.data).train)
    if job.source is None:
        return config.search.epochs * (count // 2 // config.search.batch_size)
    t, classes = config.train, len(load(config.data).classes)
    labelled = t.labels_per_class * classes if t.labels_per_class else count * (1 - t.validation) * t.labels
    return t.epochs * max(int(labelled) // t.batch_size, 1)


@cache
def _step_seconds(config: Config, training: bool) -> float:
    data, device = load(config.data, runs.default_device()), runs.default_device()
    loop: Loop = (
        Training(config, data, Genotype.published("DARTS_V2", config.model.num_cells), device=device)
        if training
        else Search(config, data, device)
    )
    steps = loop.advance()
    next(steps)
    started = _now(device)
    for _ in range(STEPS):
        next(steps)
    return (_now(device) - started) / STEPS


def _now(device: str) -> float:
    """Return the time when all that was asked of the device is done."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.monotonic()
