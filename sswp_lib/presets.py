"""What a preset, a data set and a study each change in the defaults, which are the paper's.

Presets other than `paper` and `imagenet` choose hyper-parameters of their own and say so.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from sswp_lib import methods
from sswp_lib.config import Config, InputError, Search, setting_names, suggest
from sswp_lib.methods import SECTIONS, SIZES, passed_over

PLAIN_VIEWS = {"flip": False, "jitter_p": 0.0, "grey_p": 0.0, "blur_p": 0.0}

DATA_DEFAULTS: dict[str, dict[str, Any]] = {
    # a digit is not its mirror image and has no colour; mild crops, or a digit is lost; all ours. At their own 8x8
    # pixels contrast finds far better features in far less time than on digits enlarged to 16x16 (linear probe on two
    # labels a class: 74 % against 66 %). Training's shift of 1 is DARTS's 4 pixels of 32. Views have none beside their
    # crops: with it an architecture step's signal is about half as strong, and two searches agree on less.
    "digits": {
        "data.image_size": 8, "data.views.crop_scale": (0.8, 1.0), "data.views.rotation": 15.0,
        **{f"data.views.{name}": value for name, value in PLAIN_VIEWS.items()}, "train.cutout": 0, "train.shift": 1,
    },
    "tiny-imagenet": {"data.image_size": 64},
    # Table 5, sections 4.1 and 4.2; mixed precision: appendix A. What the paper does not name is inherited from DARTS
    # (section 4.1): random resized crops and label smoothing 0.1.
    "imagenet": {
        "data.image_size": 224, "data.decode_size": 256, "data.kept": "photographs",
        "model.stem": "imagenet", "model.init_channels": 48, "model.num_cells": 14,
        "model.precision": "bfloat16", "search.epochs": 100, "search.batch_size": 256, "train.batch_size": 1024,
        "train.lr": 0.4, "train.epochs": 250, "train.cutout": 0, "train.drop_path": 0.0, "train.augment": "crop",
        "train.shift": 0, "train.label_smoothing": 0.1,
    },
}  # fmt: skip

_SMALL: dict[str, Any] = {  # shared by the presets that are not the paper's; ours throughout
    "search.schedule": "step", "search.edges": "top2", "train.schedule": "step", "train.auxiliary": 0.0,
    "train.drop_path": 0.0,
    # What is judged after tens of steps needs statistics of its own: by BatchNorm's running averages a random start
    # trained for 40 steps on 109 digits is at 62 %, by statistics of training images the same weights are at 84 %.
    "train.calibrate": True,
}  # fmt: skip

_DIGITS: dict[str, Any] = {  # shared by `quick` and `night`
    **_SMALL, "data.name": "digits", "model.init_channels": 8, "model.num_cells": 3, "model.projection_dim": 64,
    "search.batch_size": 64, "search.lr": 0.1, "search.temperature": 0.5,
    # A step that evaluates all seven candidates of an edge says seven times as much of alpha as one that evaluates the
    # paper's two, for 2.2 times its seconds; larger batches and several paths a step cost as much as they bring
    # (benchmarks/alpha_signal.py, notebook 01).
    "search.evaluated": 7, "search.alpha_every": 3, "search.alpha_lr": 0.02,
    # Short, so most steps must see fixed cells. Tried with 5 cells, whose last is fixed when hardly any learning rate
    # is left: linear probe on two labels a class 59 % against 72 %; with a final learning rate of 0.03 besides, 55 to
    # 60 %.
    "search.ratios": (0.1, 0.3, 0.6),
    "train.epochs": 60, "train.batch_size": 20, "train.labels_per_class": 2, "train.validation": 0.2,
}  # fmt: skip

PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {
        **_SMALL, "data.name": "digits", "model.init_channels": 4, "model.num_cells": 3, "model.projection_dim": 32,
        "search.epochs": 6, "search.batch_size": 128, "search.lr": 0.1, "search.alpha_lr": 0.02,
        "search.temperature": 0.5, "search.calibration_batches": 2,
        "train.epochs": 6, "train.batch_size": 20, "train.labels_per_class": 2, "train.validation": 0.2,
    },
    "quick": {**_DIGITS, "search.epochs": 130},
    # long enough for the paper's two candidates; its ablations, which are short, evaluate all
    "night": {**_DIGITS, "search.epochs": 240, "search.evaluated": 2, "search.alpha_every": 1},
    "cifar": {
        **_SMALL, "data.name": "cifar10", "model.init_channels": 16, "model.num_cells": 8,
        "search.epochs": 100, "search.batch_size": 256, "search.lr": 0.1, "search.alpha_lr": 0.005,
        "train.epochs": 100, "train.labels": 0.1, "train.validation": 0.1,
    },
    "paper": {"data.name": "cifar10"},
    # the paper's on ImageNet: Table 2 as it stands (its other row: search.epochs=50); with --data tiny-imagenet Table
    # 3d, whose sizes and epochs are those of CIFAR (its other row: a search on cifar10, search.epochs=600)
    "imagenet": {"data.name": "imagenet"},
}  # fmt: skip


# What the relaxation changes in a preset. DARTS's own 50 epochs are 19,500 steps, in which Adam can carry an entry of
# alpha as far as 6; the smaller presets have fewer epochs than their searches by paths, for an iteration runs every
# candidate twice, and a learning rate of 6 / steps that makes up for it. All but `paper` is ours.
_RELAXED: dict[str, dict[str, Any]] = {
    "smoke": {"search.epochs": 3, "relaxed.alpha_lr": 0.4},
    "quick": {"search.epochs": 40, "relaxed.alpha_lr": 0.015},
    "night": {"search.epochs": 80, "relaxed.alpha_lr": 0.0075},
    "cifar": {"search.epochs": 50, "relaxed.alpha_lr": 0.0012},
    "paper": {
        "search.epochs": 50, "search.batch_size": 64, "search.lr": 0.025, "search.min_lr": 0.001,
        "search.weight_decay": 3e-4, "relaxed.init_channels": 16, "relaxed.num_cells": 8,
    },
}  # fmt: skip
_RELAXED["imagenet"] = _RELAXED["paper"]


def _evolution(population: int, generations: int) -> dict[str, int]:
    """Return the settings of an evolution in SPOS's proportions: a fifth are parents, half are mutations."""
    children = {"mutations": population // 2, "crossovers": population // 2, "parents": max(population // 5, 2)}
    counts = {"population": population, "generations": generations, **children}
    return {f"ranking.{name}": count for name, count in counts.items()}


_AS_PAPER: dict[str, Any] = {"search.ratios": (0.2, 0.4, 0.4), "search.edges": "all"}
_TEN_LABELS: dict[str, Any] = {  # of a class, and how digits' architectures are judged on them: ours
    "train.labels_per_class": 10, "train.epochs": 30, "train.batch_size": 50, "train.lr": 0.03,
}  # fmt: skip

# SSNAS's comparisons: cells are searched for in a small network and trained from scratch in a larger one. The learning
# rate of alpha is again 6 / steps. All but `paper` is ours; there `METHODS` says what is DARTS's, and 10 % of the
# training images to choose on are ours too.
_SSNAS: dict[str, dict[str, Any]] = {
    "smoke": {
        "data.per_class": 32, "model.num_cells": 4, "relaxed.init_channels": 2, "relaxed.num_cells": 3,
        "relaxed.alpha_lr": 1.5, "search.epochs": 2, "search.batch_size": 64, "train.epochs": 3,
    },
    "quick": {
        "model.num_cells": 5, "relaxed.init_channels": 4, "relaxed.num_cells": 3, "relaxed.alpha_lr": 0.3,
        "search.epochs": 2, **_TEN_LABELS,
    },
    "night": {
        "model.num_cells": 8, "relaxed.init_channels": 4, "relaxed.num_cells": 5, "relaxed.alpha_lr": 0.03,
        "search.epochs": 20, **_TEN_LABELS,
    },
    "cifar": {
        "relaxed.init_channels": 8, "relaxed.num_cells": 5, "relaxed.alpha_lr": 0.004, "search.epochs": 15,
        "train.epochs": 15, "train.batch_size": 256, "train.lr": 0.1,
    },
    "paper": {**_RELAXED["paper"], "train.epochs": 650, "train.validation": 0.1},
}  # fmt: skip
_SSNAS["imagenet"] = _SSNAS["paper"]
_SSNAS = {p: {**own, "search.method": "ssnas", "search.temperature": 0.5} for p, own in _SSNAS.items()}

# Training of an architecture of NAS-Bench-201 by itself: its authors' recipe without Nesterov's momentum, with neither
# drop-path nor an auxiliary head nor cutout; what presets other than `paper` change in it is ours.
_STAND_ALONE: dict[str, Any] = {
    "train.drop_path": 0.0, "train.auxiliary": 0.0, "train.cutout": 0, "train.validation": 0.0, "train.lr": 0.1,
    "train.weight_decay": 5e-4, "train.calibrate": False,
}  # fmt: skip
# One-shot training and rankings (Pi-NAS, SPOS), and the training of single architectures that they are held against.
# Ours, but for `paper`. What depends on the run's length is scaled with it: 0.95 averages the teacher over 20 of some
# 300 steps, a queue of 4 batches holds less than half of the images, and a linear classifier of 32 features wants a
# rate of 1, not 30. Tried on digits for 20 epochs, by collapse and by linear accuracy along random paths, never by how
# an arm ranks. Networks so small begin with a cosine of 0.97 between images. With negatives from the queue alone, cross
# paths without a teacher end at 1.00 at rates of 0.01 to 0.3, with a queue of one batch, with a warm-up; with negatives
# from the batch too they do at 0.01 and 0.03, and leave the collapse at 0.003 (0.68; linear accuracy 25 %, with a
# teacher at 0.01 26 %, untrained 21 %). Only so can the comparison of arms with and without a teacher come out either
# way.
_ONE_SHOT: dict[str, Any] = {
    **_STAND_ALONE, "one_shot.init_channels": 8, "one_shot.num_cells": 1, "one_shot.schedule": "step",
    "one_shot.batch_size": 64, "one_shot.queue": 256, "one_shot.teacher": 0.95, "one_shot.in_batch": True,
    "one_shot.lr": 0.003, "one_shot.validation": 0.2, "ranking.linear_batch": 64, "ranking.linear_lr": 1.0,
    "ranking.calibration_images": 512,
    "train.labels": 1.0, "train.labels_per_class": 20, "train.epochs": 40, "train.batch_size": 20,
}  # fmt: skip
ONE_SHOT: dict[str, dict[str, Any]] = {
    "smoke": {
        **_ONE_SHOT, "one_shot.init_channels": 4, "one_shot.epochs": 2, "ranking.linear_epochs": 2,
        "ranking.calibration_images": 128, "train.epochs": 3, "train.calibrate": True,
    },
    "quick": {**_ONE_SHOT, "one_shot.epochs": 20, "ranking.linear_epochs": 10, "train.epochs": 20},
    "night": {**_ONE_SHOT, "one_shot.epochs": 80, "one_shot.teacher": 0.99, "ranking.linear_epochs": 40},
    "cifar": {
        **_STAND_ALONE, "one_shot.schedule": "step", "one_shot.num_cells": 1, "one_shot.teacher": 0.999,
        "one_shot.queue": 12288, "ranking.linear_lr": 3.0, "ranking.linear_epochs": 20,
        "ranking.calibration_images": 5000, "train.labels": 1.0, "train.epochs": 12, "train.batch_size": 256,
    },
    "paper": {**_STAND_ALONE, "train.epochs": 200, "train.batch_size": 256},
}  # fmt: skip
ONE_SHOT["imagenet"] = ONE_SHOT["paper"]

SUPERVISED: dict[str, Any] = {  # at a rate of its own, NAS-Bench-201's: contrast of outputs of length 1 wants a smaller
    "one_shot.objective": "supervised", "one_shot.lr": 0.1,
}  # fmt: skip

# One-shot methods in the paper's own space: the network with every candidate is as wide and deep as the model. What is
# scored, and by how many images, is ours but for `paper`; so are all settings of random search, whose epochs are those
# of each of its draws.
_SCORED: dict[str, tuple[int, int]] = {"smoke": (4, 2), "quick": (20, 5), "night": (20, 5), "cifar": (40, 10)}
_IN_CELLS: dict[str, dict[str, Any]] = {
    preset: {
        **{name: value for name, value in own.items() if name.startswith(("one_shot.", "ranking."))},
        **_evolution(*_SCORED.get(preset, (50, 20))),
        "one_shot.space": "cells",
    }
    for preset, own in ONE_SHOT.items()
}
_BY_LOT: dict[str, dict[str, Any]] = {
    "smoke": {"random.draws": 2, "search.epochs": 2},
    "quick": {"random.draws": 4, "search.epochs": 30},
    "night": {"random.draws": 8, "search.epochs": 30},
    "cifar": {"random.draws": 8, "search.epochs": 12},
    "paper": {"random.draws": 8, "search.epochs": 40},
}
_BY_LOT["imagenet"] = _BY_LOT["paper"]
# What a method of search changes in a preset: {method: {preset: settings}}. SSNAS searches as DARTS does, with batches
# of 32 or 64 images; it names no temperature: 0.5 is ours, and SimCLR's on CIFAR-10.
METHODS: dict[str, dict[str, dict[str, Any]]] = {
    "sswp": {preset: {"search.method": "sswp"} for preset in PRESETS},
    "darts": {
        preset: {**own, "search.method": "darts", "search.objective": "supervised"} for preset, own in _RELAXED.items()
    },
    "ssnas": {
        preset: {**own, "search.method": "ssnas", "search.objective": "simclr", "search.temperature": 0.5}
        for preset, own in _RELAXED.items()
    },
    "spos": {preset: {**own, **SUPERVISED, "search.method": "spos"} for preset, own in _IN_CELLS.items()},
    "pi-nas": {preset: {**own, "search.method": "pi-nas"} for preset, own in _IN_CELLS.items()},
    "random": {preset: {**own, "search.method": "random"} for preset, own in _BY_LOT.items()},
}


# What comparisons change in a preset. Ablations compare many searches: they keep the paper's ratios and edges at a size
# and length that several seeds can bear. Few labels and fractions train what one search found, on a part of the labels
# and at rates chosen on a held-out part; the paper (section 4.4) names neither that part nor the epochs: 200, a third
# of those from scratch, are ours, as is all else but `paper`'s ablations.
STUDIES: dict[str, dict[str, dict[str, Any]]] = {
    "ablations": {
        # the shortest at which half the epochs (Figure 4) and the longest pruning (Table 3b) still have a bi-level one
        "smoke": {**_AS_PAPER, "search.epochs": 8, "train.batch_size": 10},
        "quick": {**_AS_PAPER, **_TEN_LABELS, "search.epochs": 8, "search.alpha_every": 1},
        # as many steps on alpha as it takes for two seeds to agree
        "night": {
            **_AS_PAPER,
            **_TEN_LABELS,
            "search.epochs": 40,
            "search.evaluated": 7,
            "search.alpha_every": 2,
        },
        "cifar": {**_AS_PAPER, "search.epochs": 15, "train.epochs": 15, "train.batch_size": 256, "train.lr": 0.1},
    },
    "few_labels": {"paper": {"train.labels": 0.1, "train.validation": 0.1, "train.epochs": 200}},
    "fractions": {
        "smoke": {"train.epochs": 3},
        "quick": {"train.epochs": 20, "train.batch_size": 50},
        "night": {"train.epochs": 20, "train.batch_size": 50},
        "cifar": {"train.epochs": 15, "train.batch_size": 256},
        "paper": {"train.validation": 0.1, "train.epochs": 200},
    },
    "ssnas": _SSNAS,
    # what pre-trains these cells without labels (the epochs of the search are the pre-training's), and what is trained
    # from it; SSNAS names neither's length: all is ours
    "ssnas_features": {
        "smoke": {**_SSNAS["smoke"], "train.lr": 0.1},
        "quick": {**_SSNAS["quick"], "search.epochs": 4, "train.epochs": 20, "train.lr": 0.1},
        "night": {**_SSNAS["night"], "search.epochs": 60, "train.epochs": 30, "train.lr": 0.1},
        "cifar": {**_SSNAS["cifar"], "search.epochs": 30},
        "paper": {**_SSNAS["paper"], "search.epochs": 300, "train.epochs": 200},
    },
    "one_shot": ONE_SHOT,
}
for _own in STUDIES.values():
    _own.update({"imagenet": _own["paper"]} if "paper" in _own else {})
# all methods on one bench: judged as the ablations are
STUDIES["bench"] = {**STUDIES["ablations"], "quick": {**STUDIES["ablations"]["quick"], "search.epochs": 16}}
# What a preset changes for its second data set, a slice of photographs beside the digits; and in its studies there.
SLICES: dict[str, dict[str, Any]] = {
    "night": {
        "data.name": "cifar10", "data.image_size": 16, "data.per_class": 500, "search.epochs": 30,
        "search.batch_size": 48, "train.labels_per_class": None, "train.labels": 0.1, "train.shift": 2,
        "train.cutout": 8, "train.batch_size": 50,
    },
}  # fmt: skip
SLICE_STUDIES: dict[str, dict[str, dict[str, Any]]] = {
    # architectures are judged on all labels: on few, photographs are hardly told apart by any
    "night": {
        "ablations": {"train.labels": 1.0, "train.validation": 0.0, "train.epochs": 10, "train.lr": 0.05},
        # chosen at another seed by the accuracy of the linear classifier, never by a ranking of these architectures
        "one_shot": {
            "data.per_class": 2500, "data.views.crop_scale": (0.5, 1.0), "one_shot.epochs": 14,
            "one_shot.batch_size": 32, "one_shot.lr": 0.05, "one_shot.queue": 512, "one_shot.validation": 0.08,
            "ranking.linear_epochs": 7, "train.labels": 1.0, "train.cutout": 0, "train.epochs": 4,
        },
    },
}  # fmt: skip
# studies that take each start's learning rate, or one search of several, by validation accuracy
CHOOSING = ("few_labels", "fractions", "ssnas", "ssnas_features")


def load_config(
    preset: str = "quick",
    data: str | None = None,
    seed: int = 0,
    settings: dict[str, Any] | None = None,
    study: str | None = None,
    method: str | None = None,
) -> Config:
    """Return a preset's configuration for a data set, with single settings replaced.

    What the data set asks for (its size, its views) comes first, then the preset, then what a `study`, one of STUDIES,
    changes in it, then what a `method` of search, one of METHODS, does, then, on the preset's second data set, what it
    changes for that (SLICES), then `settings`. The data set is `data`, or that of the settings, or the preset's own; so
    is the method, which is the paper's if neither names one.

    Raises:
        InputError: an unknown preset, data set, study, method or setting (the nearest name is given), a value out of
            range, a setting that the method has no use for, or no validation part where the study chooses by it.
    """
    if preset not in PRESETS:
        raise InputError(f"unknown preset {preset!r}{suggest(preset, PRESETS)}")
    if study is not None and study not in STUDIES:
        raise InputError(f"unknown study {study!r}{suggest(study, STUDIES)}")
    named = (settings or {}).get("data.name", data)
    if data not in (None, named):
        raise InputError(f"data {data!r} and data.name={named!r} are both given; expected one of them")
    name = PRESETS[preset]["data.name"] if named is None else named
    chosen = {
        **DATA_DEFAULTS.get(str(name), {}),
        **PRESETS[preset],
        **(STUDIES[study].get(preset, {}) if study else {}),
        **_of_method(method, preset, settings or {}),
        **_of_slice(preset, name, study),
        "data.name": name,
        "seed": seed,
        **(settings or {}),
    }
    config = Config().changed(**chosen)
    if study in CHOOSING and config.train.validation == 0:
        raise InputError(
            f"train.validation is 0, but {study} chooses by validation accuracy; expected a part of the training "
            "images, e.g. train.validation=0.1"
        )
    return config


def _of_method(method: str | None, preset: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Return what the method of search changes in a preset; InputError where a setting is of no use to it."""
    named = settings.get("search.method", method)
    if method not in (None, named):
        raise InputError(f"method {method!r} and search.method={named!r} are both given; expected one of them")
    if named is None:
        return {}
    if named not in METHODS:
        raise InputError(f"unknown method {named!r}{suggest(str(named), METHODS)}")
    space = settings.get("one_shot.space", "cells")
    for name in settings:
        if name in SIZES and named in methods.ONE_SHOT and space == "cells":
            own = name.replace("one_shot.", "model.")
            raise InputError(f"{name} is of no use in the space 'cells', where the network is the model's; set {own}")
        if not is_used(name, named):
            users = ", ".join(method for method in METHODS if is_used(name, method))
            own = [f"{section}.{name.partition('.')[2]}" for section in SECTIONS.get(named, ())]
            instead = "".join(f", or set {other}" for other in own if other in setting_names())
            raise InputError(
                f"{name} is of no use to method {named!r}; leave it out{instead}, or choose another method: {users}"
            )
    return METHODS[named][preset]


def is_used(setting: str, method: str) -> bool:
    """Tell whether a search by a method has a use for a setting; those of other things than searches count as used."""
    section, _, name = setting.partition(".")
    if section == "search":
        return name not in passed_over(method, [*Search.model_fields])
    return section in SECTIONS.get(method, ()) or all(section not in own for own in SECTIONS.values())


def load_slice(preset: str, settings: dict[str, Any] | None = None, study: str | None = None) -> Config | None:
    """Return the configuration of a preset's second data set, as `load_config` does that of its first; None where it
    has none.
    """
    if preset not in SLICES:
        return None
    return load_config(preset, SLICES[preset]["data.name"], settings=settings, study=study)


def _of_slice(preset: str, name: str, study: str | None) -> dict[str, Any]:
    """Return what a preset, and a study of it, change on the data set `name`: nothing but on its second one."""
    own = SLICES.get(preset, {})
    if own.get("data.name") != name:
        return {}
    return {**own, **SLICE_STUDIES.get(preset, {}).get(study or "", {})}


def parse_settings(pairs: Iterable[str]) -> dict[str, Any]:
    """Turn "search.epochs=40" pairs into a dictionary. Values are JSON or Python's literals where they can be (null and
    None, [0, 1] and (0, 1)), else text.
    """
    if isinstance(pairs, str):
        raise InputError(f'settings {pairs!r} is one text; expected a list of texts, e.g. ["search.epochs=40"]')
    settings = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise InputError(f"setting {pair!r} has no value; expected NAME=VALUE, e.g. search.epochs=40")
        settings[name.strip()] = _value(text.strip())
    return settings


def _value(text: str) -> Any:
    for read in (json.loads, ast.literal_eval):
        with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            return read(text)
    return text
