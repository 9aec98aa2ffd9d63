"""What a large run will take, said before it starts."""

from __future__ import annotations

import pytest
import torch

from sswp_lib.lab import forecast as module
from sswp_lib.lab.estimate import steps_of
from sswp_lib.lab.forecast import Forecast, forecast, multiply_adds, say
from sswp_lib.learn.data import load
from sswp_lib.paper.studies import Job
from sswp_lib.presets import load_config
from sswp_lib.space import Genotype

GIB = 2**30
WIDE = {"data.image_size": 24, "model.init_channels": 8}  # enough that a step's memory is that of its images


def test_a_search_at_quick_is_small_and_the_papers_are_large():
    """CIFAR-10's and ImageNet's by their numbers of images alone."""
    small = load_config("quick")
    assert multiply_adds(small, None, load(small.data)) < module.LARGE / 10
    digits = load_config("paper", "cifar10").changed(**{"data.name": "digits"})  # 37 times fewer images
    assert multiply_adds(digits, None, load(digits.data)) > module.LARGE


def test_multiply_adds_are_those_of_all_steps():
    config = load_config("smoke")
    once, twice = (
        multiply_adds(config.changed(**{"train.epochs": epochs}), Genotype.published("DARTS_V2", 3), load(config.data))
        for epochs in (6, 12)
    )
    assert twice == pytest.approx(2 * once) and once > 0
    unlabelled = config.changed(
        **{"train.objective": "simclr", "train.labels_per_class": None, "train.validation": 0.0}
    )
    steps = [steps_of(Job({}, c, Genotype.published("DARTS_V2", 3))) for c in (config, unlabelled)]
    found = multiply_adds(unlabelled, Genotype.published("DARTS_V2", 3), load(config.data))
    assert found / steps[1] == pytest.approx(2 * once / steps[0]), "two views of each image"


@pytest.mark.parametrize("source", [None, Genotype.published("DARTS_V2", 3)], ids=["search", "training"])
def test_time_and_memory_grow_with_the_batch(source, monkeypatch):
    taken, seconds = [], module.seconds_a_step

    def timed(loop, device):
        taken.append(loop.settings.batch_size)
        return seconds(loop, device)

    monkeypatch.setattr(module, "seconds_a_step", timed)
    section = "search" if source is None else "train"
    config = load_config("smoke", settings={**WIDE, "train.labels_per_class": None, "train.validation": 0.0})
    found = [forecast(config.changed(**{f"{section}.batch_size": size}), source, "cpu") for size in (64, 256)]
    assert taken == [4, 4], "a few images are measured"
    assert found[1].memory > 2 * found[0].memory > 0 and found[0].steps > 3 * found[1].steps
    assert all(0.001 < each.seconds_a_step < 60 for each in found)


def test_memory_of_a_step_is_as_measured():
    """From steps of two and four images to one of 32."""
    config = load_config("smoke", settings={**WIDE, "search.batch_size": 32})
    small = module.plain(Job({}, config))
    loop = module.SEARCHES["sswp"](small, load(config.data), "cpu")
    whole = module._peak(loop, "cpu")
    assert forecast(config, None, "cpu").memory == pytest.approx(whole, rel=0.1)


def test_words_and_what_does_not_fit():
    found = Forecast(250_200, 14.0, 61 * GIB, 22 * GIB, 256, "cpu")
    first, second = found.lines("search")
    assert "about 40.5 days on this cpu: 250,200 steps of 14.00 s, with up to 61.0 GiB" in first and "22.0 GiB" in first
    assert "does not fit" in second and "set search.batch_size=73 or less" in second
    (only,) = Forecast(100, 1.0, GIB, 2 * GIB, 64, "cuda").lines("train")
    assert "about 2 min on this cuda" in only


def test_only_large_runs_are_told_of(capfd, monkeypatch):
    config = load_config("smoke")
    say(config, None, "cpu")
    assert capfd.readouterr().err == ""
    monkeypatch.setattr(module, "LARGE", 1.0)
    before = torch.get_rng_state()
    say(config, None, "cpu")
    assert "search: about" in capfd.readouterr().err and torch.equal(torch.get_rng_state(), before)
    say(load_config("smoke", method="spos"), None, "cpu")
    assert capfd.readouterr().err == "", "of several parts"


def test_the_command_says_it_before_the_first_step_and_once(call, monkeypatch, tmp_path):
    from tiny_runs import TINY_RUN

    monkeypatch.setattr(module, "LARGE", 1.0)
    loud = [word for word in TINY_RUN if word != "--quiet"]
    status, _, err = call("search", *loud)
    assert status == 0 and err.index("search: about") < err.index("done in")
    assert "search: about" not in call("search", *loud)[2], "served from its record"
