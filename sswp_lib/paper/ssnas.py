"""SSNAS's comparisons (Kaplan & Giryes 2020) in miniature, each as the list of runs that it needs.

Its Tables 1, 3, 4 and 5 and section 4.4; of Table 2 (transfer to ImageNet) the sizes alone. Cells are searched for in a
small network and trained, or pre-trained, in a larger one. What is repeated is the search: all searches of an arm are
compared, and the one that the paper's selection would take stands beside them. Left open by the paper, and ours: random
cells are drawn by normal alpha and derived as a search's are, as many as there are searches, and selected in the same
way; learning rates of fine-tunings are chosen by each start for itself. Torchvision's ResNet-18, its hand-made
reference, is not trained here: the kit's trainer knows networks of cells alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd
import torch

from sswp_lib.config import Config, InputError
from sswp_lib.learn.data import generator, load, number_of_classes
from sswp_lib.learn.measure import skip_share
from sswp_lib.learn.recipes import pretraining
from sswp_lib.paper import tables
from sswp_lib.paper.effects import Effect, between, nested
from sswp_lib.paper.studies import FEW_LABEL_RATES, Job, Settings, from_scratch, iterations
from sswp_lib.runs.records import Done, Record
from sswp_lib.space import EDGES, Genotype, derive
from sswp_lib.space.mixed import DARTS_CANDIDATES, KINDS

# as the paper's tables call them
RANDOM, FIRST, SECOND, SSNAS = "Random sampling", "DARTS (first order)", "DARTS (second order)", "SSNAS (first order)"
ONE_SET = "SSNAS, one set"
TABLE1 = (RANDOM, FIRST, SECOND, SSNAS)
FEATURES = (RANDOM, SSNAS)  # whose features are compared
RESNET = "ResNet-18"
SCARCE = 0.1  # of a class's images have labels in the search with few: CIFAR-100 has a tenth of CIFAR-10's of each
FRACTION = 0.1  # of the labels that features are fine-tuned on: Table 4
PROBE_RATE = 0.1  # of a linear probe, as in `studies.probes`
PROBE_BATCH = 4  # times the batch of fine-tuning: probes have ten times the labels; ours
SHORT = 3  # times shorter than the pre-training is that by which cells are selected; ours
STARTS = ((RANDOM, "simclr"), (SSNAS, "random"), (SSNAS, "simclr"))  # Table 5
RATES = {"smoke": (0.1,), "quick": (0.03, 0.1)}  # of fine-tunings, where there is little time; ours
LABELLED: Settings = {"search.method": "darts", "search.objective": "supervised"}


def rates(preset: str) -> tuple[float, ...]:
    """Return the learning rates that fine-tunings of a preset choose from."""
    return RATES.get(preset, FEW_LABEL_RATES)


def random_cells(num_cells: int, seed: int) -> Genotype:
    """Return a normal and a reduction cell drawn at random, stacked: derived from normal alpha as a search's cells are,
    with `none` among the candidates and without caps.
    """
    shape = (len(KINDS), len(EDGES), len(DARTS_CANDIDATES))
    alpha = torch.randn(shape, generator=generator(seed, "random shared cells"))
    return Genotype.stacked(*derive(alpha, None, None, DARTS_CANDIDATES).cells, num_cells=num_cells)


def few_name(labels: int) -> str:
    """Return what the search with few labels is called."""
    return f"{FIRST}, {labels} labels a class"


def scarce(study: Config) -> int:
    """Return how many labelled images of a class count as few: a tenth of them, an even number, at least 2."""
    data = load(study.data)
    return max(2 * round(SCARCE * len(data.train) / max(len(data.classes), 1) / 2), 2)


def few_labels(study: Config, labels: int) -> Settings:
    """Return the settings of a first-order search with so many labelled images of a class: in batches that a half can
    fill, for as many epochs as it takes for as many steps.
    """
    few = {**LABELLED, "relaxed.labels_per_class": labels}
    half = number_of_classes(study.data) * (labels // 2)
    return _as_many_steps(study, {**few, "search.batch_size": max(min(study.search.batch_size, half), 2)})


def one_set(study: Config) -> Settings:
    """Return the settings of a search that learns weights and alpha from all images, with as many steps (section 4.4;
    at equal epochs it would have twice as many).
    """
    return _as_many_steps(study, {"relaxed.split": "same"})


def _as_many_steps(study: Config, settings: Settings) -> Settings:
    steps = study.search.epochs * iterations(study)
    return {**settings, "search.epochs": max(round(steps / max(iterations(study.changed(**settings)), 1)), 1)}


def arms(study: Config, labels: int | None = None) -> dict[str, Settings | None]:
    """Return every arm with what it changes in the study's search, which is SSNAS; None for random cells."""
    labels = scarce(study) if labels is None else labels
    return {
        RANDOM: None, FIRST: LABELLED, SECOND: {**LABELLED, "relaxed.order": 2}, SSNAS: {},
        few_name(labels): few_labels(study, labels), ONE_SET: one_set(study),
    }  # fmt: skip


def compared(study: Config, chosen: dict[str, Settings | None], count: int, trainings: int = 1) -> list[Job]:
    """Search each arm with each seed in the small network, or draw cells; train what comes of it in the large one from
    scratch, so many times, by one recipe.
    """
    jobs = []
    for seed in range(count):
        for arm, settings in chosen.items():
            source = random_cells(study.model.num_cells, seed)
            if settings is not None:
                source = study.changed(**settings, seed=seed)
                jobs.append(Job({"arm": arm, "what": "search", "seed": seed}, source))
            jobs += from_scratch(study, arm, source, seed, range(trainings))
    return jobs


def judged(done: Iterable[Done]) -> pd.DataFrame:
    """Return one row for each arm and seed: that of `tables.by_arm`, the mean validation accuracy of the trainings, and
    the share of skips among the genotype's operations, in percent.
    """
    done = list(done)
    trained = [job for job in done if job.labels["what"] != "search"]
    rows = tables.trainings(trained)
    if "validation" not in rows:
        raise InputError("no training has a validation part to select by; set train.validation, e.g. to 0.1")
    rows["skip share"] = [100 * skip_share(job.record.genotype) for job in trained]
    means = rows.groupby(["arm", "seed"])[["validation", "skip share"]].mean().reset_index()
    return tables.by_arm(done).merge(means, on=["arm", "seed"])


def selected(frame: pd.DataFrame, column: str, lowest: bool = False) -> pd.DataFrame:
    """Return each arm's row of the highest, or lowest, value of a column; of equal ones that of the first seed.

    The paper's selection of one search of several: the highest accuracy on validation images after a training with
    labels (Tables 1 to 3), or the lowest contrastive loss on images that a pre-training has not seen (Table 4).
    """
    ranked = frame.sort_values([column, "seed"], ascending=[lowest, True], kind="stable")
    return ranked.drop_duplicates("arm").sort_index()


def selection(features: Config, study: Config, count: int) -> list[Job]:
    """Pre-train the cells of each seed for a short time on one half of the images, to be selected by the loss on the
    other (Table 4).
    """
    epochs = max(features.search.epochs // SHORT, 1)
    half = features.changed(**{"train.init": "simclr_matched", "search.epochs": epochs})
    each = [(arm, seed) for arm in FEATURES for seed in range(count)]
    return [
        Job({"arm": arm, "what": "selection", "seed": s}, pretraining(half, s), _source(study, arm, s))
        for arm, s in each
    ]


def contrastive_losses(done: Iterable[Done]) -> pd.DataFrame:
    """Return a row for each arm and seed: the contrastive loss ("loss", nats) on images that a pre-training has not
    seen.
    """
    return pd.DataFrame({**job.labels, **job.record.result["held_out"], "run": job.record.name} for job in done)


def _source(study: Config, arm: str, seed: int) -> Config | Genotype:
    return study.changed(seed=seed) if arm == SSNAS else random_cells(study.model.num_cells, seed)


def batches(features: Config) -> tuple[int, int]:
    """Return the two contrastive batches of Table 4, in images: half of the configuration's, and that."""
    return features.search.batch_size // 2, features.search.batch_size


def representations(features: Config, study: Config, count: int) -> list[Job]:
    """Table 4: pre-train random and found cells by SimCLR in batches of two sizes for equally many epochs; then learn a
    classifier alone from all labels, and fine-tune all weights on 10 % of them.
    """
    each = [(arm, batch, s) for arm in FEATURES for batch in batches(features) for s in range(count)]
    return [
        job
        for arm, batch, s in each
        for job in (_probe(features, study, arm, batch, s), _tuned(features, study, arm, "simclr", batch, s))
    ]


def _probe(features: Config, study: Config, arm: str, batch: int, seed: int) -> Job:
    probe = {
        "search.batch_size": batch, "train.init": "simclr", "train.freeze": "backbone", "train.lr": PROBE_RATE,
        "train.labels": 1.0, "train.labels_per_class": None,
        "train.batch_size": PROBE_BATCH * features.train.batch_size,
    }  # fmt: skip
    labels = {"arm": arm, "batch": batch, "what": "probe", "init": "simclr", "search": seed, "seed": seed}
    return Job(labels, features.changed(**probe, seed=seed), _source(study, arm, seed))


def _tuned(features: Config, study: Config, arm: str, init: str, batch: int, seed: int, lr: float | None = None) -> Job:
    lr = features.train.lr if lr is None else lr
    tuned = {
        "search.batch_size": batch, "train.init": init, "train.lr": lr, "train.labels": FRACTION,
        "train.labels_per_class": None,
    }  # fmt: skip
    labels = {"arm": arm, "batch": batch, "what": "fine-tuned", "init": init, "lr": lr, "search": seed, "seed": seed}
    return Job(labels, features.changed(**tuned, seed=seed), _source(study, arm, seed))


def starts(features: Config, study: Config, count: int, rates: Sequence[float]) -> list[Job]:
    """Table 5: found cells from pre-trained and from random weights, and random cells from pre-trained ones, on 10 % of
    the labels, at each learning rate.
    """
    each = [(arm, init, lr, s) for arm, init in STARTS for lr in rates for s in range(count)]
    batch = batches(features)[1]
    return [_tuned(features, study, arm, init, batch, s, lr) for arm, init, lr, s in each]


def at_best_rates(done: Iterable[Done]) -> pd.DataFrame:
    """Return the fine-tunings of each start at its own best learning rate, by validation accuracy."""
    return tables.at_best(tables.trainings(done), ("arm", "init"))


def architecture_effects(frame: pd.DataFrame, labels: int) -> dict[str, Effect]:
    """Return the claims of Tables 1 and 3 and of section 4.4 from what `judged` gives of all arms."""
    few = few_name(labels)
    pairs = {
        "ss_beats_random": (SSNAS, RANDOM), "ss_beats_first": (SSNAS, FIRST), "ss_matches_second": (SSNAS, SECOND),
        "ss_few_labels": (SSNAS, few), "ss_split": (SSNAS, ONE_SET),
    }  # fmt: skip
    effects = {key: between(frame, *pair) for key, pair in pairs.items()}
    return effects | {"ss_no_collapse": between(frame, few, SSNAS, column="skip share")}


def feature_effects(frame: pd.DataFrame, best: pd.DataFrame) -> dict[str, Effect]:
    """Return the claims of Tables 4 and 5.

    Args:
        frame: the trainings of `representations`. best: those of `starts`, each start at its own learning rate.
    """
    kinds, by = dict(iter(frame.groupby("what"))), ("batch", "seed")
    probes, small, large = kinds["probe"], *sorted(frame["batch"].unique())
    return {
        "ss_probe": nested(probes, SSNAS, RANDOM, key="arm", by=by),
        "ss_semi": nested(kinds["fine-tuned"], SSNAS, RANDOM, key="arm", by=by),
        "ss_batch": nested(probes[probes["arm"] == SSNAS], large, small, key="batch"),
        "ss_pretrain": nested(best[best["arm"] == SSNAS], "simclr", "random"),
    }


def restacked(found: Genotype, num_cells: int) -> Genotype:
    """Return the genotype of another depth with the same normal and reduction cell."""
    normal, reduce = found.by_kind()
    if not normal:
        raise InputError(f"a genotype of {found.num_cells} cells has no normal one; expected 3 cells or more")
    return Genotype.stacked(normal[0], reduce[0], num_cells)


def searches_of(done: Iterable[Done], arm: str) -> list[Record]:
    """Return the records of an arm's searches, in the order of their seeds; none of random cells."""
    found = [job.record for job in done if job.labels["arm"] == arm and job.labels["what"] == "search"]
    return sorted(found, key=lambda record: record.seed)
