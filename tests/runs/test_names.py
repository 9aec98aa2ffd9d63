"""A run is named by exactly the settings that its result depends on: each is changed, and name and bits compared."""

from functools import cache, partial
from typing import Any

import pytest
import torch
from tiny_runs import name_of
from toy_space import TOY

import sswp_lib.learn.loop as learn_loop
import sswp_lib.learn.relaxed as relaxed
from sswp_lib.config import Config, InputError, setting_names
from sswp_lib.learn.data import ImageData
from sswp_lib.learn.found import Found
from sswp_lib.learn.halves import Halves
from sswp_lib.learn.loop import Loop
from sswp_lib.learn.one_shot_search import OneShotSearch
from sswp_lib.learn.recipes import pretraining, unused
from sswp_lib.learn.scoring import Evolution
from sswp_lib.learn.searches import SEARCHES
from sswp_lib.learn.train import Training
from sswp_lib.space import SPACES, Genotype, MixedNet, Network

# All that can be used is, and small changes of it show: colours, four images a step, gradients that are clipped.
BASE = {
    "data.name": "digits", "data.image_size": 8, "data.views.jitter_p": 0.5, "data.views.grey_p": 0.5,
    "data.views.blur_p": 0.5, "data.views.rotation": 10.0, "data.views.shift": 1, "model.init_channels": 2,
    "model.num_cells": 2, "model.projection_dim": 8, "search.epochs": 4, "search.batch_size": 4,
    "search.ratios": (0.25, 0.25, 0.5), "search.alpha_every": 1, "search.alpha_lr": 1.0, "search.grad_clip": 0.1,
    "search.max_skips": 0, "search.max_pools": 0, "search.pool_dropout": 0.5, "search.skip_dropout": 0.5,
    "search.calibration_batches": 1, "train.epochs": 3, "train.batch_size": 4, "train.labels": 0.5,
    "train.validation": 0.25, "train.evaluate_every": 1, "train.shift": 1, "train.cutout": 2, "train.grad_clip": 0.1,
}  # fmt: skip
RELAXED = {
    "relaxed.num_cells": 3, "relaxed.alpha_lr": 0.5, "relaxed.alpha_weight_decay": 0.1, "search.epochs": 2,
    "search.batch_size": 6,
}  # fmt: skip
ONE_SHOT = {
    "one_shot.space": "toy", "one_shot.init_channels": 4, "one_shot.num_cells": 1, "one_shot.epochs": 2,
    "one_shot.batch_size": 6, "one_shot.queue": 12, "one_shot.teacher": 0.5, "one_shot.validation": 0.25,
    "one_shot.in_batch": False, "ranking.linear_epochs": 4, "ranking.linear_batch": 6,
    "ranking.linear_milestones": (0.3, 0.6), "ranking.calibration_images": 8, "ranking.calibration_batch": 4,
    "ranking.population": 8, "ranking.parents": 3, "ranking.mutations": 3, "ranking.mutation_p": 0.6,
    "ranking.crossovers": 2, "ranking.generations": 2,
}  # fmt: skip
KINDS = {
    "search": {"search.objective": "simclr"},
    "byol search": {"search.objective": "byol"},
    "supervised search": {"search.objective": "supervised"},
    "unpruned search": {"search.prune": "none", "search.ratios": (0.25, 0.75)},
    "grey search": {"data.views.jitter_p": 0.0, "data.views.blur_p": 0.0},
    "relaxed search": {**RELAXED, "search.method": "ssnas"},
    "supervised relaxed search": {**RELAXED, "search.method": "darts", "search.objective": "supervised"},
    "random search": {"search.method": "random", "random.draws": 2, "search.epochs": 2},
    "Pi-NAS search": {**ONE_SHOT, "search.method": "pi-nas"},
    "SPOS search": {**ONE_SHOT, "search.method": "spos", "one_shot.objective": "supervised"},
    "training": {},
    "training on few labels": {"train.labels": 1.0, "train.labels_per_class": 3},
    "training on crops": {"train.augment": "crop", "train.shift": 0, "train.cutout": 0},
    "probe": {"train.freeze": "backbone", "train.init": "concomitant"},
    "pre-training": {"pretraining": True},
}
ANOTHER = {  # of what is no plain number
    "data.root": "elsewhere", "data.name": "cifar10", "data.classes": ("0", "1"),
    "data.views.crop_scale": (0.3, 1.0), "data.views.jitter": (0.1, 0.1, 0.1, 0.1),
    "data.views.blur_sigma": (1.0, 1.5), "model.stem": "imagenet", "model.precision": "bfloat16",
    "search.ratios": (0.25, 0.5, 0.25), "search.prune": "backward", "search.edges": "top2", "search.schedule": "step",
    "search.max_skips": None, "search.max_pools": None, "search.planted": ("noise",), "train.schedule": "step",
    "train.init": "simclr",
    "train.labels_per_class": 2, "train.augment": "crop",
    "relaxed.split": "same", "relaxed.init_channels": 4, "relaxed.num_cells": 4, "relaxed.shift": 2,
    "relaxed.labels_per_class": 6,
    "one_shot.space": "cells", "one_shot.schedule": "step", "ranking.linear_milestones": (0.2,),
}  # fmt: skip
OF_ANOTHER_KIND = (
    "search.method", "search.objective", "search.prune", "train.objective", "train.freeze", "one_shot.objective",
)  # fmt: skip
REFUSED = {  # cannot be changed alone: with another value the configuration is refused
    "model.stem", "train.half", "train.labels", "train.labels_per_class", "train.validation", "train.evaluate_every",
    "train.augment", "search.planted", "search.alpha_stream", "relaxed.labels_per_class",
    "one_shot.space", "one_shot.cross_path", "one_shot.negatives",
}  # fmt: skip
LABELS = ("train.init",)  # says where weights come from, which stand in the name themselves
PARTS = {  # where the rest is another kind's business
    "relaxed search": ("search.", "relaxed."), "supervised relaxed search": ("data.views", "model.", "relaxed."),
    "random search": ("data.views.", "search.", "random."),
    "Pi-NAS search": ("model.", "search.", "one_shot.", "ranking."),
    "SPOS search": ("data.views.", "model.", "search.", "one_shot.", "ranking."),
    "unpruned search": "search.", "grey search": "data.views.", "training on few labels": "train.",
    "training on crops": "data.views.",
}  # fmt: skip


def config_of(kind: str) -> Config:
    changes = dict(KINDS[kind])
    before = changes.pop("pretraining", False)
    config = Config().changed(**BASE | changes)
    return pretraining(config, config.seed) if before else config


def section(kind: str) -> str:
    return "search" if "search" in kind else "train"


@cache
def images() -> ImageData:
    g = torch.Generator().manual_seed(0)
    draw = lambda n: torch.randint(0, 256, (n, 3, 8, 8), dtype=torch.uint8, generator=g)  # noqa: E731
    labels = torch.arange(24) % 3
    return ImageData(
        "random", draw(24), draw(9), labels, labels[:9], ("a", "b", "c"), torch.full((3,), 0.5), torch.full((3,), 0.3),
        Found("random", False, 24, 9, (("a", 8, 3), ("b", 8, 3), ("c", 8, 3)), ()),
    )  # fmt: skip


def loop_of(kind: str, config: Config) -> Loop:
    if section(kind) == "search":
        return SEARCHES[config.search.method](config, images())
    genotype, weights = Genotype.published("DARTS_V2", config.model.num_cells), None
    if config.train.init != "random":
        torch.manual_seed(0)
        weights = Network(genotype, config.model.init_channels, 3, stem=config.model.stem).state_dict()
    return Training(config, images(), genotype, weights)


def stages(kind: str, config: Config):
    """Yield a tiny run's history and state at the start and after each epoch, then its result and weights."""
    loop = loop_of(kind, config)
    yield bits(loop)
    for progress in loop.advance():
        if progress.row is not None:
            yield loop.history[-1], bits(loop)
    done, weights = loop.finish()
    yield done, [t.numpy().tobytes() for t in weights.values()]


def bits(loop: Loop) -> list[Any]:
    """Return what the loop has learnt, statistics of BatchNorm among it."""
    if isinstance(loop, OneShotSearch):
        return [*plain(loop.left), *plain(loop.part.state()), *judging(loop.part)]
    model = loop.supernet if isinstance(loop, Halves) else loop.network
    return [t.detach().numpy().tobytes() for t in model.state_dict().values()]


def plain(state: Any) -> list[Any]:
    """Return all that a state holds, tensors as bytes."""
    if isinstance(state, dict | list | tuple):
        return [x for inner in (state.values() if isinstance(state, dict) else state) for x in plain(inner)]
    return [state.numpy().tobytes() if isinstance(state, torch.Tensor) else state]


def judging(part: Loop) -> list[str]:
    """Return the images by whose statistics a few architectures are scored: accuracies of few images hardly differ."""
    return [repr(part.ranker.calibration)] if isinstance(part, Evolution) else []


def another(config: Config, setting: str) -> Config:
    """Return the configuration with that one setting changed to another valid value."""
    value = config
    for part in setting.split("."):
        value = getattr(value, part)
    if setting == "search.ratios" and config.search.prune == "none":
        new = (0.5, 0.5)
    elif setting == "relaxed.order":
        new = 3 - value
    elif setting in ANOTHER:
        new = ANOTHER[setting]
    elif isinstance(value, bool):
        new = not value
    else:
        new = value + 2 if isinstance(value, int) else value * 0.5 + 0.0123
    return config.changed(**{setting: new})


@pytest.fixture
def few_candidates(monkeypatch):
    """The relaxed network with three candidates, or its searches would take long."""
    few = partial(MixedNet, candidates=("none", "avg_pool_3x3", "sep_conv_3x3"))
    monkeypatch.setattr(relaxed, "MixedNet", few)


@pytest.fixture
def toy(monkeypatch):
    """A small space for one-shot networks, or their searches would take long."""
    monkeypatch.setitem(SPACES, "toy", TOY)


@pytest.fixture
def compiler(monkeypatch):
    """One that is done at once; so that it shows, what it makes computes something else."""

    def compile(module, **options):
        module._compiled_call_impl = lambda *given: 1.01 * module._call_impl(*given)

    monkeypatch.setattr(torch.nn.Module, "compile", compile)
    monkeypatch.setattr(learn_loop, "_check_compiler", lambda device: None)


@pytest.mark.parametrize("kind", KINDS)
def test_name_depends_on_exactly_what_changes_the_result(kind, few_candidates, toy, compiler):
    config, wrong, refused = config_of(kind), [], set()
    expected = list(stages(kind, config))
    for setting in setting_names():
        own = setting.startswith(PARTS.get(kind, ("data.views", "model.", f"{section(kind)}.", "seed")))
        if not own or setting in OF_ANOTHER_KIND + LABELS:
            continue
        try:
            changed = another(config, setting)
        except InputError:
            refused.add(setting)
            continue
        assert changed != config, setting
        renamed = name_of(changed, section(kind)) != name_of(config, section(kind))
        if renamed != any(a != b for a, b in zip(expected, stages(kind, changed), strict=False)):
            wrong.append((setting, "in the name alone" if renamed else "in the result alone"))
    assert wrong == [] and refused <= REFUSED


@pytest.mark.parametrize("kind", ["search", "train"])
def test_name_depends_on_the_images_but_not_on_where_they_lie(kind):
    config = config_of("search")
    for setting, same in (
        ("data.root", True),
        ("data.name", False),
        ("data.image_size", False),
        ("data.classes", False),
    ):
        assert (name_of(another(config, setting), kind) == name_of(config, kind)) == same, setting


def test_unused_settings_are_settings():
    for kind in KINDS:
        assert set(unused(config_of(kind), section(kind))) <= set(setting_names())


def test_pretraining_is_shared_by_all_that_it_does_not_depend_on():
    config = config_of("training").changed(**{"train.evaluate_every": 0})
    name = name_of(pretraining(config, 0), "train")
    for setting in ("train.shift", "train.cutout", "train.lr", "train.labels", "train.validation", "train.batch_size"):
        assert name_of(pretraining(another(config, setting), 0), "train") == name, setting
    for setting in ("search.lr", "search.epochs", "search.grad_clip", "search.temperature", "data.views.flip"):
        assert name_of(pretraining(another(config, setting), 0), "train") != name, setting
    assert name_of(pretraining(config.changed(**{"train.init": "simclr_matched"}), 0), "train") != name
