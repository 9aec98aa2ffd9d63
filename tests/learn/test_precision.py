"""Mixed precision: what a step computes in float16 or bfloat16 is a step, and its scale is a part of the run."""

from __future__ import annotations

import pytest
import torch
from resuming import left_anywhere

from sswp_lib.config import InputError
from sswp_lib.learn.loop import loss_scale, precision
from sswp_lib.learn.search import Search
from sswp_lib.learn.train import Training
from sswp_lib.space import Genotype


def in_precision(config, name: str):
    return config.changed(**{"model.precision": name, "search.epochs": 2, "search.ratios": (0.0, 0.5, 0.5)})


def test_a_step_is_nearly_that_of_float32(config, data):
    moved = {}
    for name in ("float32", "bfloat16", "float16"):
        search = Search(in_precision(config, name), data)
        before = torch.cat([p.detach().flatten() for p in search.supernet.weight_parameters()])
        search.set_lr(search.optimizer, 0.01, 0.0, "epoch")
        search.weight_step(search.weights_half[:16])
        moved[name] = torch.cat([p.detach().flatten() for p in search.supernet.weight_parameters()]) - before
    for name in ("bfloat16", "float16"):
        assert 0.95 < torch.cosine_similarity(moved["float32"], moved[name], dim=0) < 1


def test_float16_scales_its_losses_and_no_other_precision_does(config, data):
    scales = {}
    for name in ("float32", "bfloat16", "float16"):
        search = Search(in_precision(config, name), data)
        index, g = search.weights_half[:16], torch.Generator().manual_seed(0)
        search.set_lr(search.optimizer, 0.01, 0.0, "epoch")
        search.weight_step(index)
        scales[name] = search.scale.get_scale()
        paths = search.architecture_paths(torch.Generator().manual_seed(1))
        _, gradient = search.alpha_gradient(search.alpha_half[:16], g, paths)
        assert gradient.isfinite().all() and 0 < gradient.abs().max() < 1, "it is not scaled any more"
    assert scales["float32"] == scales["bfloat16"] == 1 and scales["float16"] > 100


def test_a_step_whose_gradient_overflows_is_left_out_and_the_scale_halved(config, data):
    search = Search(in_precision(config, "float16"), data)
    search.scale = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    before = {name: t.clone() for name, t in search.supernet.state_dict().items()}
    search.set_lr(search.optimizer, 0.01, 0.0, "epoch")
    search.weight_step(search.weights_half[:16])
    assert all(torch.equal(before[name], t) for name, t in search.supernet.state_dict().items())
    assert search.scale.get_scale() == 2.0**39
    index, paths = search.alpha_half[:16], search.architecture_paths(torch.Generator().manual_seed(1))
    _, gradient = search.alpha_gradient(index, torch.Generator().manual_seed(0), paths)
    assert gradient.isfinite().all()


def test_a_card_without_bfloat16_is_told_of_float16(config, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *given: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "an old card")
    with pytest.raises(InputError, match="bfloat16 is more than an old card can; expected float16 there, or float32"):
        loss_scale(in_precision(config, "bfloat16"), torch.device("cuda"))
    loss_scale(in_precision(config, "float32"), torch.device("cuda"))


@pytest.mark.parametrize(("name", "kind"), [("float16", torch.float16), ("bfloat16", torch.bfloat16)])
def test_everything_is_computed_in_the_precision_that_is_set(config, name, kind):
    with precision(in_precision(config, name), torch.device("cpu")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == kind


def test_methods_without_a_scale_refuse_float16(config):
    with pytest.raises(InputError, match="float16 needs losses that are scaled, which method 'ssnas' does not do"):
        config.changed(**{"model.precision": "float16", "search.method": "ssnas"})


def test_runs_in_float16_are_taken_up_with_their_scale(config, data, tmp_path):
    short = in_precision(config, "float16").changed(**{"search.batch_size": 40, "train.epochs": 1})
    assert left_anywhere(lambda: Search(short, data), tmp_path) == 6
    few = short.changed(**{"train.batch_size": 20})
    assert left_anywhere(lambda: Training(few, data, Genotype.published("DARTS_V2", 3)), tmp_path) == 2
