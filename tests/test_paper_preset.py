"""The `paper` preset at its full width and depth: its first steps."""

from __future__ import annotations

import math

import torch

from sswp_lib.learn.data import load
from sswp_lib.learn.measure import parameters
from sswp_lib.learn.search import Search
from sswp_lib.presets import load_config


def test_first_steps_at_full_width_and_depth():
    """Only the images (digits at 32x32) and the batch are smaller than the paper's; a weight step in warm-up, then one
    with an architecture step.
    """
    few = {"search.batch_size": 4, "search.alpha_every": 1}
    config = load_config("paper", settings=few).changed(**{"data.name": "digits"})
    assert (config.model.init_channels, config.model.num_cells) == (36, 20)
    search = Search(config, load(config.data))
    assert parameters(search.supernet) == 20_332_748 and search.supernet.alpha.shape == (20, 14, 7)
    steps = search.advance()
    first = next(steps)
    assert first.phase == "warm-up" and math.isfinite(first.loss) and not search.supernet.alpha.any()
    search.epoch, search.step = 100, 0
    before = search.supernet.stem[0][0].weight.detach().clone()
    search.train_step()
    assert search.phase == "bi-level" and not torch.equal(search.supernet.stem[0][0].weight, before)
    assert ((search.supernet.alpha != 0).sum(-1) == 2).all()  # two sampled entries on each of the 280 edges have moved
