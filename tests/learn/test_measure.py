"""Accuracy, parameters, multiply-adds, memory, entropy."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from sswp_lib.learn.measure import (
    accuracy,
    entropy,
    multiply_adds,
    operation_counts,
    operation_shares,
    parameters,
    peak_memory,
    sizes,
    sizes_of,
    skip_share,
)
from sswp_lib.space import CANDIDATES, Genotype, Network, SuperNet
from sswp_lib.space.ops import BatchNorm


def test_accuracy_counts_top_1_and_top_5():
    """The model ranks classes 0, 1, 2, ... for every image; labels 0 (twice), 4, 5 then give 50 % and 75 %, and of the
    three classes one is always right.
    """
    scores = -torch.arange(10.0)
    images, labels = torch.zeros(4, 3, 2, 2, dtype=torch.uint8), torch.tensor([0, 4, 5, 0])
    for batch_size in (1, 3, 500):
        found = accuracy(lambda x: scores.expand(len(x), -1), images, labels, torch.zeros(3), torch.ones(3), batch_size)
        assert found == {"top1": 50.0, "top5": 75.0, "balanced": pytest.approx(100 / 3)}


@pytest.mark.parametrize("classes, top5", [(5, False), (6, True)])
def test_top_5_is_left_out_where_it_says_nothing(classes, top5):
    images, labels = torch.zeros(classes, 3, 2, 2, dtype=torch.uint8), torch.arange(classes)
    found = accuracy(lambda x: torch.zeros(len(x), classes), images, labels, torch.zeros(3), torch.ones(3))
    assert set(found) == ({"top1", "top5"} if top5 else {"top1"})


def test_balanced_accuracy_weighs_classes_alike():
    """All nine images of class 0 are right, none of the one of class 1; class 2 has no images."""
    images, labels = torch.zeros(10, 3, 2, 2, dtype=torch.uint8), torch.tensor([0] * 9 + [1])
    model = lambda x: torch.tensor([1.0, 0.0, 0.0]).expand(len(x), -1)  # noqa: E731
    assert accuracy(model, images, labels, torch.zeros(3), torch.ones(3)) == {"top1": 90.0, "balanced": 50.0}


def test_accuracy_shows_the_model_normalised_images():
    images, labels = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 2, 2), torch.tensor([0, 1])
    model = lambda x: torch.stack([-x[:, 0, 0, 0], x[:, 0, 0, 0]], 1)  # noqa: E731
    assert accuracy(model, images, labels, torch.full((3,), 0.5), torch.ones(3)) == {"top1": 100.0}
    assert accuracy(model, images, labels, torch.full((3,), 1.5), torch.ones(3))["top1"] == 50.0


def test_parameters_leave_alpha_out():
    supernet = SuperNet(4, 3)
    assert (
        parameters(supernet)
        == sum(p.numel() for p in supernet.weight_parameters())
        == sum(p.numel() for p in supernet.parameters()) - 3 * 14 * 7
    )


def test_multiply_adds_by_hand():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 5, stride=2, padding=2, groups=8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    )
    expected = 16 * 16 * 8 * 3 * 9 + 8 * 8 * 8 * 25 + 8 * 10
    model.train()
    assert multiply_adds(model, 16) == expected
    assert model.training


def test_multiply_adds_of_darts_v2():
    """About 0.53 G for 3.3 M parameters at 32x32, as the papers on this space report."""
    assert multiply_adds(Network(Genotype.published("DARTS_V2", 20), 36), 32) == pytest.approx(0.53e9, rel=0.05)


def test_peak_memory_on_the_cpu():
    """Two tensors of 4 MB at once, then one after another."""
    make = lambda: torch.zeros(2**20)  # noqa: E731

    def both():
        one, two = make(), make()
        return one, two

    def in_turn():
        for _ in range(3):
            make()

    both()
    assert peak_memory(both) == pytest.approx(2 * 2**22, rel=0.01)
    assert peak_memory(in_turn) == pytest.approx(2**22, rel=0.01)


def test_entropy_is_one_for_uniform_and_zero_for_fixed():
    alpha = torch.zeros(3, 14, 7)
    present = torch.ones_like(alpha, dtype=torch.bool)
    present[1, :, 1:] = False
    alpha[2, :, 0] = math.log(6)  # p = (1/2, 1/12 six times)
    expected = (math.log(2) / 2 + math.log(12) / 2) / math.log(7)
    assert entropy(alpha, present) == pytest.approx([1.0, 0.0, expected])


def test_shares_and_counts():
    alpha = torch.zeros(2, 14, 7)
    alpha[0, :, 3] = 100.0
    assert operation_shares(alpha) == pytest.approx([1 / 14] * 3 + [0.5 + 1 / 14] + [1 / 14] * 3)
    genotype = Genotype.published("DARTS_V2", 20)
    counts = operation_counts(genotype)
    assert list(counts) == list(CANDIDATES)
    assert counts == {
        "skip_connect": 42,
        "max_pool_3x3": 10,
        "avg_pool_3x3": 0,
        "sep_conv_3x3": 90,
        "sep_conv_5x5": 0,
        "dil_conv_3x3": 18,
        "dil_conv_5x5": 0,
    }
    assert skip_share(genotype) == pytest.approx(42 / 160)


@pytest.mark.parametrize("name, count", [("DARTS_V2", 3_349_342), ("PDARTS", 3_433_798)])
def test_sizes_of_published_networks_are_exact(name, count):
    genotype = Genotype.published(name, 20)
    assert sizes(genotype, 36, 10, 32)["parameters"] == count


def test_sizes_without_weights_are_those_with():
    genotype = Genotype.published("DARTS_V1", 3)
    network, found = Network(genotype, 4, 7, stem="imagenet"), sizes(genotype, 4, 7, 64, stem="imagenet")
    assert found["parameters"] == parameters(network) and found["multiply_adds"] == multiply_adds(network, 64)


def test_sizes_of_a_network_of_any_kind_and_again():
    """Eight channels at 8x8 pixels through a convolution, BatchNorm, ReLU and a pool; nothing is left hanging on it."""
    layers = [nn.Conv2d(3, 8, 3, padding=1, bias=False), BatchNorm(8), nn.ReLU(), nn.MaxPool2d(2)]
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(8 * 16, 2))
    expected = {
        "parameters": 3 * 8 * 9 + 16 + 8 * 16 * 2 + 2,
        "multiply_adds": 64 * 3 * 8 * 9 + 8 * 16 * 2,
        "elementwise": 3 * 8 * 64 + 8 * 16,
    }
    assert sizes_of(network, 8) == sizes_of(network, 8) == expected
    assert not any(module._forward_hooks for module in network.modules())


def test_elementwise_operations_by_hand():
    """One cell at 8x8 pixels, C=2, so 4 channels at 4x4: the stem, two preprocessings, and at every node a skip and a
    pool of stride 2.
    """
    genotype = Genotype(cells=[[("skip_connect", 0), ("max_pool_3x3", 1)] * 4])
    full, half = 8 * 8, 4 * 4
    stem, preprocessing = 2 * 6 * full, (6 + 2 * 4) * full  # BatchNorm; ReLU and BatchNorm
    skip, pool = 2 * 4 * half, (1 + 2) * 4 * half
    assert sizes(genotype, 2, 10, 8)["elementwise"] == stem + 2 * preprocessing + 4 * (skip + pool)


def test_pc_darts_multiply_adds_are_the_reported_ones():
    """597 M at 224 pixels, once elementwise operations are counted as its authors' tool does."""
    found = sizes(Genotype.published("PC_DARTS_IMAGENET", 14), 48, 1000, 224, stem="imagenet")
    assert round((found["multiply_adds"] + found["elementwise"]) / 1e6) == 597


def test_peak_memory_of_a_card_is_what_was_added_to_what_lay_there(monkeypatch):
    done = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: done.append("reset"))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 3)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 10)
    assert peak_memory(lambda: done.append("step"), "cuda") == 7 and done == ["reset", "step"]
