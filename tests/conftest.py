"""Tiny configurations, data and networks that the tests share; everything runs on the CPU in seconds."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sswp_lib.config import Config, load_config
from sswp_lib.learn.data import ImageData, load
from sswp_lib.space import SuperNet


@pytest.fixture(autouse=True)
def threads():
    """No call may leave torch with another number of threads: bits on the CPU are the same only with the same
    number.
    """
    before = torch.get_num_threads()
    yield
    assert torch.get_num_threads() == before


@pytest.fixture(scope="session")
def config() -> Config:
    """Three cells of 4 channels on 8x8 digits; five epochs of five weight steps, an architecture step after every
    second.
    """
    tiny = {
        "data.image_size": 8, "search.epochs": 5, "search.batch_size": 16, "search.alpha_every": 2,
        "train.epochs": 3, "train.batch_size": 10,
    }  # fmt: skip
    return load_config("smoke", settings=tiny)


@pytest.fixture(scope="session")
def digits(config) -> ImageData:
    """All digits at 8x8: 1,347 training and 450 test images."""
    return load(config.data)


@pytest.fixture(scope="session")
def data(digits) -> ImageData:
    """The first 160 training and 50 test images of the digits."""
    return replace(
        digits,
        train=digits.train[:160],
        train_labels=digits.train_labels[:160],
        test=digits.test[:50],
        test_labels=digits.test_labels[:50],
    )


@pytest.fixture
def supernet() -> SuperNet:
    """A supernet of three cells (the last two reductions) in double precision, alpha away from 0."""
    torch.manual_seed(0)
    supernet = SuperNet(4, 3).double()
    with torch.no_grad():
        supernet.alpha.normal_()
    return supernet


@pytest.fixture
def g() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def images() -> torch.Tensor:
    """Six random images in double precision, (6, 3, 8, 8)."""
    return torch.randn(6, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
