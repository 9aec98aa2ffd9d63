"""The two-stage baseline's pre-training, field by field."""

from __future__ import annotations

import pytest

from sswp_lib.config import Config, Train
from sswp_lib.learn.recipes import pretraining

ODD = {  # no value is a default, and none of the search's is the training's
    "search.epochs": 17, "search.batch_size": 24, "search.lr": 0.31, "search.min_lr": 0.02, "search.schedule": "step",
    "search.momentum": 0.7, "search.weight_decay": 3e-3, "search.grad_clip": 2.5, "search.temperature": 0.21,
    "train.init": "simclr", "train.labels": 0.4, "train.validation": 0.3, "train.epochs": 11, "train.batch_size": 12,
    "train.lr": 0.11, "train.min_lr": 0.01, "train.momentum": 0.5, "train.weight_decay": 2e-2, "train.grad_clip": 1.5,
    "train.label_smoothing": 0.2, "train.cutout": 3, "train.shift": 1, "train.drop_path": 0.2, "train.auxiliary": 0.7,
    "train.temperature": 0.9, "train.evaluate_every": 2,
}  # fmt: skip
EXPECTED = {
    "init": "random", "objective": "simclr", "freeze": "none", "half": False, "labels": 1.0, "labels_per_class": None,
    "validation": 0.0, "epochs": 17, "batch_size": 24, "lr": 0.31, "min_lr": 0.02, "schedule": "step", "momentum": 0.7,
    "weight_decay": 3e-3, "grad_clip": 2.5, "temperature": 0.21, "augment": "shift", "label_smoothing": 0.2,
    "cutout": 0, "shift": 0, "drop_path": 0.0, "auxiliary": 0.0, "calibrate": True, "evaluate_every": 0,
}  # fmt: skip


@pytest.mark.parametrize("field", Train.model_fields)
def test_pre_training_is_the_searchs_recipe_without_labels(field):
    config = Config().changed(**ODD, seed=3)
    assert getattr(pretraining(config, 8).train, field) == EXPECTED[field]


def test_pre_training_has_the_seed_it_is_given_and_all_else_of_the_configuration():
    config = Config().changed(**ODD, seed=3)
    found = pretraining(config, 8)
    assert found.seed == 8 and config.seed == 3
    assert (found.data, found.model, found.search) == (config.data, config.model, config.search)


def test_a_matched_pre_training_sees_the_half_of_the_images_that_a_searchs_weights_see():
    config = Config().changed(**ODD | {"train.init": "simclr_matched"})
    assert pretraining(config, 0).train == Train(**EXPECTED | {"half": True})
