"""The `imagenet` preset: what the paper says of its runs on ImageNet, and the first steps at full width and depth.

Its entries of Table 5 are checked in paper/test_reported.py.
"""

from __future__ import annotations

import math

import pytest
import torch
from tiny_runs import images

from sswp_lib.config import Views
from sswp_lib.learn.data import load
from sswp_lib.learn.measure import sizes
from sswp_lib.learn.packed import Packed
from sswp_lib.learn.search import Search
from sswp_lib.learn.train import TRAINING_CROPS, Training
from sswp_lib.paper import reported
from sswp_lib.presets import METHODS, STUDIES, load_config
from sswp_lib.space import Genotype

SAID = {  # section 4.1, 4.2 and appendix A; what is DARTS's says so
    "data.name": "imagenet", "data.image_size": 224, "data.decode_size": 256, "data.kept": "photographs",
    "model.stem": "imagenet", "model.init_channels": 48, "model.num_cells": 14, "model.precision": "bfloat16",
    "search.method": "sswp", "search.objective": "simclr", "search.epochs": 100, "search.batch_size": 256,
    "search.ratios": (0.2, 0.4, 0.4), "search.prune": "forward", "search.skip_dropout": 0.2, "search.evaluated": 2,
    "train.epochs": 250, "train.batch_size": 1024, "train.lr": 0.4, "train.auxiliary": 0.4,
    "train.augment": "crop", "train.label_smoothing": 0.1, "train.cutout": 0, "train.drop_path": 0.0, "train.shift": 0,
}  # fmt: skip


def value(config, dotted: str):
    section, name = dotted.split(".")
    return getattr(getattr(config, section), name)


def test_every_entry_is_the_papers():
    config = load_config("imagenet")
    assert {name: value(config, name) for name in SAID} == SAID
    assert config == load_config("paper", "imagenet")
    assert config.data.views == Views() and TRAINING_CROPS.crop_scale == (0.08, 1.0)


def test_both_rows_of_table_2_and_of_table_3d_are_settings_of_it():
    assert {"SSWP-NAS (e=50)", "SSWP-NAS (e=100)"} <= set(reported.table("table2")["architecture"])
    assert load_config("imagenet", settings={"search.epochs": 50}).search.epochs == 50
    proxy_free, transfer = load_config("imagenet", "tiny-imagenet"), load_config("imagenet", "cifar10")
    reported_epochs = reported.table("table3d").set_index("name")["search_epochs"]
    assert proxy_free.search.epochs == reported_epochs["proxy-free"] == reported_epochs["transfer"] / 2
    assert (proxy_free.data.image_size, proxy_free.data.kept, proxy_free.model.stem) == (64, "squares", "cifar")
    assert (proxy_free.model, proxy_free.search, proxy_free.train) == (transfer.model, transfer.search, transfer.train)


@pytest.mark.parametrize("method", METHODS)
def test_what_the_paper_does_not_say_is_as_at_the_preset_paper(method):
    assert load_config("imagenet", method=method) == load_config("paper", "imagenet", method=method)
    for study in STUDIES:
        assert load_config("imagenet", study=study) == load_config("paper", "imagenet", study=study), study


def test_networks_are_of_the_size_of_table_2s():
    """DARTS's cells at this width and depth: 4.7 million parameters."""
    model = load_config("imagenet").model
    found = sizes(Genotype.published("DARTS_V2", model.num_cells), model.init_channels, 1000, 224, model.stem)
    assert round(found["parameters"] / 1e6, 1) == 4.7


def test_first_steps_at_full_width_and_depth(tmp_path):
    """Only the images, at 64 pixels, their number and the batch are smaller than the paper's: a weight step, one with
    an architecture step, and one of training.
    """
    folder = images(tmp_path / "D", {"train/a": 9, "train/b": 9, "test/a": 2, "test/b": 2}, size=90)
    few = {
        "search.batch_size": 4, "search.alpha_every": 1, "train.batch_size": 4, "data.image_size": 64,
        "data.decode_size": 72, "data.name": "imagenet", "data.root": str(tmp_path),
    }  # fmt: skip
    folder.rename(tmp_path / "imagenet")
    config = load_config("imagenet", settings=few)
    data = load(config.data)
    assert isinstance(data.train, Packed) and "of 72 pixels" in data.train.described()
    search = Search(config, data)
    assert search.supernet.alpha.shape == (14, 14, 7)
    first = next(search.advance())
    assert first.phase == "warm-up" and math.isfinite(first.loss) and not search.supernet.alpha.any()
    search.epoch, search.step = 40, 0
    search.train_step()
    assert search.phase == "bi-level" and ((search.supernet.alpha != 0).sum(-1) == 2).all()
    training = Training(config, data, Genotype.published("DARTS_V2", 14))
    before = training.network.head.weight.detach().clone()
    assert math.isfinite(next(training.advance()).loss) and not torch.equal(before, training.network.head.weight)
