"""What a run of each kind is made of: the baseline's pre-training, and which settings a result depends on.

Paper: section 4.4 (the two-stage baseline: architecture search, then SimCLR pre-training of what it found).
"""

from __future__ import annotations

from sswp_lib.config import Config, Search, Train, Views
from sswp_lib.methods import ONE_SHOT, RELAXED, SECTIONS, SIZES, OneShot, Ranking, passed_over

PRETRAINED = ("simclr", "simclr_matched")  # initialisations that begin with a pre-training
LABELLED = ("labels", "labels_per_class", "validation", "evaluate_every")
CROSS_PATH = (
    "cross_path",
    "negatives",
    "temperature",
    "teacher",
    "queue",
    "in_batch",
)  # of one-shot training without labels
SHARED = (
    "epochs", "batch_size", "lr", "min_lr", "schedule", "momentum", "weight_decay", "grad_clip", "temperature",
)  # fmt: skip


def pretraining(config: Config, seed: int) -> Config:
    """Return the configuration of the two-stage baseline: SimCLR by the search's own recipe (paper, section 4.4).

    The paper's sees every image in each epoch; with `train.init` "simclr_matched" it sees the half on which a search
    of that seed learns its weights, and so has as many steps on the same images as those.
    """
    defaults = Train()
    changes = {name: getattr(defaults, name) for name in LABELLED}
    changes |= {name: getattr(config.search, name) for name in SHARED}
    changes |= {
        "init": "random", "objective": "simclr", "freeze": "none", "half": config.train.init == "simclr_matched",
        "shift": 0, "cutout": 0, "drop_path": 0.0, "auxiliary": 0.0, "calibrate": True,
    }  # fmt: skip
    return config.changed(**{f"train.{name}": value for name, value in changes.items()}, seed=seed)


def unused(config: Config, kind: str) -> list[str]:
    """Return the dotted settings of the data, the model and the sections of a run of the `kind` "search" or "train"
    that its result does not depend on: they are no part of its name, and its record does not tell them.

    A setting is left out only where its value cannot matter; in doubt it stays, for a name too many costs a run, one
    too few a wrong result. Values that `config` refuses need no thought.
    """
    if kind == "search" and config.search.method in ONE_SHOT:
        views = [f"data.views.{name}" for name in _unused_by_random_views(config.data.views)]
        own = [f"search.{name}" for name in passed_over(config.search.method, [*Search.model_fields])]
        of_model = ["model.init_channels", "model.num_cells", "model.stem"]
        own += SIZES if config.one_shot.space == "cells" else of_model
        own += unused_by_judging(config.one_shot)
        return ["data.root", *views, *own, *unused_by_one_shot(config.one_shot)]
    own = _unused_by_search(config.search) if kind == "search" else _unused_by_training(config.train)
    labelled = (config.search if kind == "search" else config.train).objective == "supervised"
    relaxed = kind == "search" and config.search.method in RELAXED
    crops = kind == "train" and config.train.augment == "crop"
    moved = labelled and (relaxed or kind == "train")
    views = _unused_by_training_images(crops) if moved else _unused_by_random_views(config.data.views)
    return [
        "data.root", *(f"data.views.{name}" for name in views), *["model.projection_dim"] * labelled,
        *(f"{kind}.{name}" for name in own), *["relaxed.shift"] * (relaxed and not labelled),
    ]  # fmt: skip


def unused_by_one_shot(one_shot: OneShot) -> list[str]:
    """Return the dotted settings that the result of a one-shot training does not depend on."""
    contrast = [*(f"one_shot.{name}" for name in CROSS_PATH), "model.projection_dim"]
    if one_shot.objective == "supervised":
        return contrast
    return [] if one_shot.negatives else ["one_shot.queue", "one_shot.temperature", "one_shot.in_batch"]


def unused_by_judging(one_shot: OneShot) -> list[str]:
    """Return the dotted settings of the section `ranking` that scores by a one-shot network do not depend on: with
    labels it has a classifier already.
    """
    own = [name for name in Ranking.model_fields if name.startswith("linear_")]
    return [f"ranking.{name}" for name in own] if one_shot.objective == "supervised" else []


def sections(config: Config, kind: str) -> list[str]:
    """Return the sections of the configuration that a run of the `kind` "search" or "train" looks at."""
    return ["data", "model", kind, *(SECTIONS.get(config.search.method, ()) if kind == "search" else ())]


def _unused_by_random_views(views: Views) -> list[str]:
    return ["jitter"] * (views.jitter_p == 0) + ["blur_sigma"] * (views.blur_p == 0)


def _unused_by_training_images(crops: bool) -> list[str]:
    """Training images have transforms of their own; of the views' settings these look at `flip` at most."""
    return [name for name in Views.model_fields if name != "flip" or crops]


def _unused_by_search(search: Search) -> list[str]:
    own = passed_over(search.method, [*Search.model_fields])
    return own + ["temperature"] * (search.objective == "supervised") + ["ema"] * (search.objective != "byol")


def _unused_by_training(train: Train) -> list[str]:
    if train.objective == "simclr":
        return ["shift", "cutout", "augment", "label_smoothing", "auxiliary"]
    return ["temperature", *(["drop_path", "auxiliary"] if train.freeze == "backbone" else [])]
