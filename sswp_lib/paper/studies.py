"""What the notebooks compare: each comparison as the list of runs that it needs, so that they can be shared, counted
and timed.

Paper: section 4 and appendix B. A comparison's searches and trainings differ from the study's configuration only in
what their labels say. Every architecture is judged as the paper does, by training it from scratch, and beside that by
fine-tuning it from its concomitant weights; both on the same labels, by the same recipe, paired by seed. What is
repeated is the search: fine-tunings of section 4.4 are of several searches too, and their labels name which.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TypeVar

from sswp_lib.config import Config, InputError
from sswp_lib.learn.data import load
from sswp_lib.learn.recipes import PRETRAINED, pretraining, sections
from sswp_lib.methods import RELAXED
from sswp_lib.paper.lots import Lot, random_genotype
from sswp_lib.paper.tables import INITS
from sswp_lib.presets import DATA_DEFAULTS
from sswp_lib.runs import holding, runs
from sswp_lib.runs.progress import counted
from sswp_lib.runs.records import Done, Record
from sswp_lib.space import Choices, Genotype

Settings = dict[str, Any]
T = TypeVar("T")
STARTS = tuple(INITS)
FRACTIONS = (0.1, 0.3, 0.5, 0.9)  # of Figure 5, whose 70 % is left out: the curves have met by then
LEARNING_RATES = (0.01, 0.025, 0.1, 0.2, 0.5)  # Table 4a
FEW_LABEL_RATES = (0.01, 0.03, 0.1, 0.3)  # ours; wide enough for starts that want very different ones
TIMES = (1 / 2, 1, 2)  # Figure 4 in miniature: the epochs and the batch, as multiples of the study's; ours
REPEATS = 2  # fine-tunings of each search at few labels, each on other labelled images; ours
PUBLISHED = {
    "DARTS_V1": "DARTS (1st order)",
    "DARTS_V2": "DARTS (2nd order)",
    "PDARTS": "P-DARTS",
    "PC_DARTS_CIFAR": "PC-DARTS",
}  # name here: row of Table 1
FOUND, SAME_SIZE, ANY_SIZE = "SSWP-NAS (here)", "random, same size", "random, any size"
SEEDS_APART = 100  # between the seeds of trainings of one architecture; more than a comparison has searches
AUGMENTED = {"as the preset says": {}, "none": {"train.shift": 0, "train.cutout": 0, "data.views.flip": False}}


@dataclass(frozen=True)
class Job:
    """A run that a comparison needs. `source` is None for a search, else what is trained: what a search of that
    configuration finds, a genotype, one by lot, or choices of a space whose edges all stay.
    """

    labels: Settings
    config: Config
    source: Config | Genotype | Lot | Choices | None = None

    @property
    def search(self) -> Config | None:
        """The search that must be done before this run."""
        return self.source.search if isinstance(self.source, Lot) else _config_of(self.source)

    @property
    def before(self) -> Job | None:
        """The pre-training whose weights this run starts from, if it does from any such."""
        if self.source is None or self.config.train.init not in PRETRAINED:
            return None
        seed = self.search.seed if self.search else self.config.seed
        return Job({}, pretraining(self.config, seed), self.source)

    @property
    def identity(self) -> list[Any]:
        """What its run has in common with no other, known before anything is done: its own settings, what is trained
        and the pre-training before it.
        """
        own, before = sections(self.config, "search" if self.source is None else "train"), self.before
        return [self.config.part(*own), repr(self.source), before and before.identity]

    def trained(self, found: Record | None) -> Record | Genotype | Choices:
        """Return what is trained, of which `found` is the search's record, where it needs one."""
        if isinstance(self.source, Lot):
            return self.source.genotype(found.genotype)
        return self.source if found is None else found


def _config_of(source: Any) -> Config | None:
    return source if isinstance(source, Config) else None


def carry_out(jobs: Iterable[Job], device: str | None = None) -> list[Done]:
    """Return the jobs' records in their order, doing those that are not there; a line says which is under way.

    Runs that another process is at are left for later, so that notebooks that share runs share the work.
    """
    search = cache(lambda config: runs.search(config, device))  # many trainings share one
    return shared(jobs, lambda job: _carried_out(job, search, device))


def shared(jobs: Iterable[T], do: Callable[[T], Done]) -> list[Done]:
    """Return what `do` makes of each job, in their order; those that another process is at are left for later."""
    left, done = dict(enumerate(jobs)), {}
    while left:
        before = len(left)
        for place, job in counted(list(left.items()), "runs"):
            with suppress(holding.Busy), holding.without_waiting():
                done[place] = do(job)
                del left[place]
        if len(left) == before:  # others are at all of them
            place = next(iter(left))
            done[place] = do(left.pop(place))
    return [done[place] for place in sorted(done)]


def _carried_out(job: Job, search: Callable[[Config], Record], device: str | None) -> Done:
    if job.source is None:
        return Done(job.labels, search(job.config))
    found = search(job.search) if job.search else None
    if found and job.config.train.init == "concomitant" and not runs.has_weights(found) and not _is_done(job, found):
        runs.search(job.search, device, fresh=True)  # its record was restored without them
        search.cache_clear()
        found = search(job.search)
    labels = job.labels | ({"search run": found.name} if found else {})
    return Done(labels, runs.train(job.config, job.trained(found), device=device, quiet=True))


def _is_done(job: Job, found: Record) -> bool:
    return runs.finished(job.config, found) is not None


def fine_tuning(config: Config, study: Config, search: int, repeat: int, count: int, **labels: Any) -> Job:
    """Fine-tune what the search `config` with seed `search` found, by the study's recipe, on other labelled images in
    each repeat.

    Args:
        count: how many searches there are; seeds of fine-tunings go on from theirs.
        labels: what else the job is called; "init", "lr" and "fraction" are settings as well.
    """
    seed = search + repeat * count
    changes = {"train.init": labels["init"], "train.lr": labels["lr"], "seed": seed}
    if "fraction" in labels:
        changes |= {"train.labels": labels["fraction"], "train.labels_per_class": None}
    return Job({**labels, "search": search, "seed": seed}, study.changed(**changes), config.changed(seed=search))


def iterations(config: Config) -> int:
    """Return how many weight steps an epoch of a search has."""
    data, relaxed = load(config.data), config.search.method in RELAXED
    few = config.relaxed.labels_per_class if relaxed else None
    whole = relaxed and config.relaxed.split == "same"
    if few is not None:
        count = len(data.classes) * (few if whole else few // 2)
    else:
        count = len(data.train) // (1 if whole else 2)
    return count // config.search.batch_size


def searches(config: Config, count: int) -> list[Job]:
    """Search with each of so many seeds."""
    return [Job({"search": seed}, config.changed(seed=seed)) for seed in range(count)]


def few_labels(
    config: Config,
    study: Config,
    searches: int,
    rates: Sequence[float] = FEW_LABEL_RATES,
    inits: Sequence[str] = ("random", "concomitant"),
    repeats: int = REPEATS,
) -> list[Job]:
    """Section 4.4: fine-tune what several searches found, by initialisation and learning rate."""
    each = [(init, lr, s, r) for init in inits for lr in rates for s in range(searches) for r in range(repeats)]
    return [fine_tuning(config, study, s, r, searches, init=init, lr=lr) for init, lr, s, r in each]


def recipes(
    config: Config,
    study: Config,
    searches: int,
    rates: Sequence[float] = FEW_LABEL_RATES,
    inits: Sequence[str] = ("random", "concomitant"),
) -> list[Job]:
    """`few_labels` by each augmentation, which is a label then: each start chooses its learning rate and its
    augmentation, for learnt weights may want another than random ones.
    """
    return [
        replace(job, labels={**job.labels, "augmentation": name})
        for name, changes in AUGMENTED.items()
        for job in few_labels(config, study.changed(**changes), searches, rates, inits)
    ]


def rates_at(
    config: Config,
    study: Config,
    fraction: float,
    searches: int,
    rates: Sequence[float] = LEARNING_RATES,
    inits: Sequence[str] = ("simclr", "concomitant"),
) -> list[Job]:
    """Table 4a: learning rates of fine-tuning at one labelled fraction."""
    last_first = range(searches - 1, -1, -1)  # another notebook, which may run beside this, begins with the first
    each = [(init, lr, s) for init in inits for lr in rates for s in last_first]
    return [fine_tuning(config, study, s, 0, searches, init=i, lr=lr, fraction=fraction) for i, lr, s in each]


def fractions_at(
    config: Config, study: Config, best: dict[str, float], fractions: Sequence[float], searches: int
) -> list[Job]:
    """Figure 5: labelled fractions, each initialisation at its own learning rate `best`."""
    each = [(init, lr, f, s) for init, lr in best.items() for f in fractions for s in range(searches)]
    return [fine_tuning(config, study, s, 0, searches, init=init, lr=lr, fraction=f) for init, lr, f, s in each]


def from_scratch(
    study: Config, arm: str, source: Config | Genotype | Lot, seed: int, repeats: Sequence[int] = (0,)
) -> list[Job]:
    """Train what a search found, or a genotype, from random weights: once for each of `repeats`, with other weights and
    on other labelled images each time.
    """
    return _judged(study, arm, source, seed, repeats, "scratch", "random")


def fine_tuned(study: Config, arm: str, source: Config, seed: int, repeats: Sequence[int] = (0,)) -> list[Job]:
    """Train what a search found from its concomitant weights: the same labels and recipe as from scratch."""
    return _judged(study, arm, source, seed, repeats, "fine-tuned", "concomitant")


def _judged(study: Config, arm: str, source: Any, seed: int, repeats: Sequence[int], what: str, init: str) -> list[Job]:
    return [
        Job(
            {"arm": arm, "what": what, "seed": seed} | ({"repeat": r} if r else {}),
            study.changed(**{"train.init": init, "seed": seed + r * SEEDS_APART}),
            source,
        )
        for r in repeats
    ]


def ablation(study: Config, arms: dict[str, Settings], seeds: int, trainings: int = 1) -> list[Job]:
    """Search each arm with each seed, and judge what it found by so many trainings from each start."""
    jobs = []
    for arm, settings in arms.items():
        for seed in range(seeds):
            searched = study.changed(**settings, seed=seed)
            jobs += [
                Job({"arm": arm, "what": "search", "seed": seed}, searched),
                *from_scratch(study, arm, searched, seed, range(trainings)),
                *fine_tuned(study, arm, searched, seed, range(trainings)),
            ]
    return jobs


def benchmark(
    config: Config, study: Config, seeds: int, trainings: int = 1, published: Iterable[str] = PUBLISHED
) -> list[Job]:
    """Table 1: what searches found here, genotypes by lot of the same size and of any, and published cells, each
    trained from scratch with each seed, by the recipe of `study`.
    """
    jobs, cells = [], study.model.num_cells
    for seed in range(seeds):
        searched, repeats = config.changed(seed=seed), range(trainings)
        jobs.append(Job({"arm": FOUND, "what": "search", "seed": seed}, searched))
        jobs += from_scratch(study, FOUND, searched, seed, repeats)
        jobs += from_scratch(study, SAME_SIZE, Lot(searched), seed, repeats)
        jobs += from_scratch(study, ANY_SIZE, random_genotype(cells, seed), seed, repeats)
        for name in published:
            jobs += from_scratch(study, name, Genotype.published(name, cells), seed)
    return jobs


def without_pruning(study: Config) -> Settings:
    """The settings of a search whose cells are all fixed at its end: the warm-up stays, the rest is bi-level."""
    warm_up = study.search.ratios[0]
    return {"search.prune": "none", "search.ratios": (warm_up, 1 - warm_up)}


def pruning_arms(study: Config) -> dict[str, Settings]:
    """Table 3a: objective and progressive pruning."""
    ways = {"": without_pruning(study), "+BPP": {"search.prune": "backward"}, "+FPP": {}}
    return {
        name + way: {**objective, **settings}
        for name, objective in (("SL", {"search.objective": "supervised"}), ("SSL", {}))
        for way, settings in ways.items()
    }


RATIOS = {
    "shorter": {"search.ratios": (0.2, 0.6, 0.2)},
    "longer": {"search.ratios": (0.2, 0.2, 0.6)},
    "default": {"search.ratios": (0.2, 0.4, 0.4)},
}  # Table 3b
EDGES = {"all 14 until the end": {"search.edges": "all"}, "top 2 a node at once": {"search.edges": "top2"}}
DROPOUT = {f"{p:g}": {"search.skip_dropout": p} for p in (0.0, 0.2, 0.5)}  # Table 3c
OBJECTIVES = {"BYOL": {"search.objective": "byol"}, "SimCLR": {}}  # section 3.3


def epoch_arms(study: Config, times: Sequence[float] = TIMES) -> dict[str, Settings]:
    """Figure 4: half, once and twice the epochs."""
    every = [max(int(t * study.search.epochs), 3) for t in times]
    return {f"{epochs} epochs": {"search.epochs": epochs} for epochs in every}


def batch_arms(study: Config, times: Sequence[float] = TIMES) -> dict[str, Settings]:
    """Figure 4: half, once and twice the batch."""
    every = [int(t * study.search.batch_size) for t in times]
    return {f"batch {size}": {"search.batch_size": size} for size in every}


def gain_arms(study: Config) -> dict[str, Settings]:
    """Table 4b: FPP and skip dropout, with and without."""
    off, no_dropout = without_pruning(study), {"search.skip_dropout": 0.0}
    return {"neither": {**off, **no_dropout}, "dropout": off, "FPP": no_dropout, "FPP and dropout": {}}


def transfer(study: Config, seeds: int, search_on: Settings, train_on: Settings, trainings: int = 1) -> list[Job]:
    """Table 3d: search on data set A or on B, train from scratch on B.

    The search on A has as many epochs more or fewer as it takes for equally many steps (the paper: 600 epochs on
    CIFAR-10 against 300 on ImageNet-tiny, which is twice as large).
    """
    jobs, epochs = [], study.search.epochs
    larger = len(load(study.changed(**train_on).data).train) / len(load(study.changed(**search_on).data).train)
    search_on = {**search_on, "search.epochs": max(round(epochs * larger), 1)}
    for arm, data in (("transfer", search_on), ("proxy-free", train_on)):
        for seed in range(seeds):
            searched = study.changed(**data, seed=seed)
            jobs += [
                Job({"arm": arm, "what": "search", "seed": seed}, searched),
                *from_scratch(study.changed(**train_on), arm, searched, seed, range(trainings)),
            ]
    return jobs


def data_sets(config: Config, other: str | None) -> tuple[Settings, Settings]:
    """Return what the transfer changes to search on A and to train on B: B is `other`, or A and B are the halves of the
    data set's classes.
    """
    if other is not None:
        return {}, {
            **{k: v for k, v in DATA_DEFAULTS.get(other, {}).items() if k.startswith("data.")},
            "data.name": other,
        }
    classes = load(config.data).classes
    if len(classes) < 4:
        raise InputError(
            f"{config.data.name} has {len(classes)} classes; expected 4 or more to search on half of them, or "
            "another data set to train on"
        )
    half = len(classes) // 2
    return {"data.classes": classes[:half]}, {"data.classes": classes[half:]}


def probes(study: Config, seeds: int, lr: float = 0.1) -> list[Job]:
    """Table 6: pre-train what a supervised and a self-supervised search found with SimCLR, then learn the classifier
    alone.
    """
    arms = {
        name.removesuffix("+FPP"): settings for name, settings in pruning_arms(study).items() if name.endswith("+FPP")
    }
    probe = {"train.init": "simclr", "train.freeze": "backbone", "train.lr": lr}
    return [
        Job({"arm": arm, "what": "probe", "seed": s}, study.changed(**probe, seed=s), study.changed(**settings, seed=s))
        for arm, settings in arms.items()
        for s in range(seeds)
    ]
