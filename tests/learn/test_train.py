"""The training loop: schedule, probe, what it may look at, interruption."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

import sswp_lib.learn.train as module
from sswp_lib.config import InputError, RunError
from sswp_lib.learn import Training
from sswp_lib.learn.data import generator
from sswp_lib.space import Choices, Genotype, Network, SuperNet, derive
from sswp_lib.space.bench201 import BENCH201

DARTS = Genotype.published("DARTS_V2", 3)


def run(training: Training) -> Training:
    for _ in training.advance():
        pass
    return training


def tensors(training: Training) -> dict[str, torch.Tensor]:
    return {name: t.clone() for name, t in training.network.state_dict().items()}


PRE_TRAINING = {"train.objective": "simclr", "train.labels_per_class": None, "train.validation": 0.0}


def differing(one: dict, two: dict) -> set[str]:
    assert set(one) == set(two)
    return {name for name in one if not torch.equal(one[name], two[name])}


def probe(config) -> object:
    return config.changed(**{"train.init": "concomitant", "train.freeze": "backbone"})


def test_a_linear_probe_changes_the_head_only(config, data):
    """Not even BatchNorm's statistics."""
    training = Training(probe(config), data, DARTS, Network(DARTS, 4).state_dict())
    before = tensors(training)
    run(training)
    assert differing(before, tensors(training)) == {"head.weight", "head.bias"}
    assert all(p.grad is None for name, p in training.network.named_parameters() if not name.startswith("head."))


def test_a_linear_probe_sees_whole_features_and_has_no_auxiliary_head(config, data):
    settings = {"train.drop_path": 0.3, "train.auxiliary": 0.4}
    training = Training(probe(config).changed(**settings), data, DARTS, Network(DARTS, 4).state_dict())
    assert training.network.auxiliary_head is None
    seen, original = [], training.network.forward_train
    training.network.forward_train = lambda x, masks: seen.append(masks) or original(x, masks)
    run(training)
    assert seen == [None] * 6


def test_fine_tuning_changes_everything_else_too(config, data):
    training = Training(config.changed(**{"train.init": "concomitant"}), data, DARTS, Network(DARTS, 4).state_dict())
    before = tensors(training)
    run(training)
    learnt = {name for name, _ in training.network.named_parameters()}
    assert learnt <= differing(before, tensors(training))


@pytest.mark.parametrize("settings", [{}, PRE_TRAINING, {"train.auxiliary": 0.4, "train.drop_path": 0.3}])
def test_same_seed_same_result(config, data, settings):
    one, two, other = (Training(config.changed(**settings, seed=seed), data, DARTS) for seed in (0, 0, 1))
    assert differing(tensors(one), tensors(two)) == set() != differing(tensors(one), tensors(other))
    for seed, training in enumerate((one, two)):
        torch.manual_seed(seed)  # torch's own generator has no say
        run(training)
    assert differing(tensors(one), tensors(two)) == set() and one.history == two.history


@pytest.mark.parametrize("settings", [{}, {"train.auxiliary": 0.4, "train.drop_path": 0.3, "train.evaluate_every": 1}])
def test_interrupted_equals_uninterrupted(config, data, settings, tmp_path):
    config = config.changed(**settings)
    whole, left = Training(config, data, DARTS), []
    for _ in whole.advance():
        left.append((whole.epoch, whole.step))
        torch.save(whole.state(), tmp_path / str(len(left)))
    assert left == [(0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2), (3, 0)]
    last, (result, weights) = tensors(whole), whole.finish()
    for number in (3, 4, 9):
        resumed = Training(config, data, DARTS)
        resumed.restore(torch.load(tmp_path / str(number), weights_only=True))
        run(resumed)
        assert differing(last, tensors(resumed)) == set()
        assert resumed.history == whole.history
        found, kept = resumed.finish()
        assert found == result and differing(weights, kept) == set()


def test_interrupted_between_an_epochs_last_step_and_its_row(config, data):
    """The epoch's row, its learning rate included, is the uninterrupted training's."""
    whole, resumed = Training(config, data, DARTS), Training(config, data, DARTS)
    for progress in whole.advance():
        if (progress.epoch, progress.step, progress.row) == (1, 2, None):
            resumed.restore(copy.deepcopy(whole.state()))
    run(resumed)
    assert differing(tensors(whole), tensors(resumed)) == set()
    assert resumed.history == whole.history


def test_choices_are_trained_by_the_same_recipe(config, data):
    """On the images, in the order and by the rates of a genotype's training; they are interrupted like it, too."""
    choices = BENCH201.choices(["nor_conv_3x3", "avg_pool_3x3", "skip_connect", "none", "nor_conv_1x1", "nor_conv_3x3"])
    config = config.changed(**{"model.num_cells": 1, "train.calibrate": True})
    whole, resumed = Training(config, data, choices), Training(config, data, choices)
    genotype = Training(config.changed(**{"model.num_cells": 3}), data, DARTS)
    assert torch.equal(whole.train_index, genotype.train_index)
    assert len(whole.network.cells) == 3 and whole.network.num_features == 16  # a cell in each of three stages
    for progress in whole.advance():
        if (progress.epoch, progress.step, progress.row) == (1, 1, None):
            resumed.restore(copy.deepcopy(whole.state()))
    run(resumed), run(genotype)
    assert differing(tensors(whole), tensors(resumed)) == set() and resumed.history == whole.history
    assert [row["lr"] for row in whole.history] == [row["lr"] for row in genotype.history]
    result, weights = whole.finish()
    assert result["parameters"] == sum(p.numel() for p in whole.network.parameters())
    assert {"test", "calibrated", "multiply_adds"} <= set(result)
    network = BENCH201.network(choices, init_channels=4, num_cells=1, num_classes=10)
    network.load_state_dict(weights)


@pytest.mark.parametrize(
    "setting, value", [("train.drop_path", 0.1), ("train.auxiliary", 0.4), ("train.init", "concomitant")]
)
def test_what_no_network_of_choices_has_is_refused(config, data, setting, value):
    choices = BENCH201.choices(["nor_conv_1x1"] * 6)
    with pytest.raises(InputError, match=f"{setting} is .*nasbench201 knows no other"):
        Training(config.changed(**{setting: value}), data, choices)
    with pytest.raises(InputError, match="unknown space 'nasbench'; did you mean 'nasbench201'"):
        Training(config, data, Choices("nasbench", choices.operations))


def test_nothing_before_finish_depends_on_the_test_set(config, data, monkeypatch):
    """Another test set, the same history and weights; and accuracy is asked on validation images alone."""
    config = config.changed(**{"train.evaluate_every": 1, "train.calibrate": True})
    asked = []
    original = module.accuracy
    monkeypatch.setattr(
        module, "accuracy", lambda net, images, *rest: asked.append(images) or original(net, images, *rest)
    )
    strange = replace(data, test=255 - data.test, test_labels=data.test_labels.roll(1))
    one, two = run(Training(config, data, DARTS)), run(Training(config, strange, DARTS))
    assert len(asked) == 6
    assert all(torch.equal(images, data.train[one.validation_index]) for images in asked)
    assert differing(tensors(one), tensors(two)) == set() and one.history == two.history
    result, other = one.finish()[0], two.finish()[0]
    assert result["test"] != other["test"] and result["validation"] == other["validation"]
    assert result["calibrated"]["validation"] == other["calibrated"]["validation"]


def test_the_result_is_the_last_epochs(config, data):
    training = run(Training(config.changed(**{"train.evaluate_every": 1}), data, DARTS))
    result, weights = training.finish()
    assert result["validation"] == training.history[-1]["validation"]
    assert result["best_validation_top1"] == max(row["validation"]["top1"] for row in training.history)
    assert not any("test" in key for row in training.history for key in row)
    assert result["steps"] == 6 and result["trained_on"] == 20
    assert differing(weights, tensors(training)) == set()


def test_validation_images_are_never_trained_on(config, data):
    training, seen = Training(config.changed(**{"train.labels_per_class": None}), data, DARTS), set()
    original = training.loss
    training.loss = lambda index, *when: seen.update(index.tolist()) or original(index, *when)
    run(training)
    assert seen <= set(training.train_index.tolist()) and not seen & set(training.validation_index.tolist())
    assert len(training.validation_index) == pytest.approx(32, abs=5)


def rates(config, data, schedule: str) -> list[float]:
    training = Training(
        config.changed(**{"train.schedule": schedule, "train.lr": 0.1, "train.min_lr": 0.01}), data, DARTS
    )
    return [training.optimizer.param_groups[0]["lr"] for progress in training.advance() if progress.row is None]


def test_cosine_by_epoch_and_by_step(config, data):
    """lr(t) = min + (lr - min) (1 + cos(pi t / T)) / 2; the unit of t is the setting `schedule`. Three epochs of two
    steps.
    """
    cosine = lambda t: 0.01 + 0.09 * (1 + math.cos(math.pi * t)) / 2  # noqa: E731
    assert rates(config, data, "epoch") == pytest.approx([cosine(t / 3) for t in (0, 0, 1, 1, 2, 2)])
    assert rates(config, data, "step") == pytest.approx([cosine(t / 6) for t in range(6)])


def test_drop_path_rises_linearly_to_its_rate(config, data):
    """The masks' kept values are 1 / (1 - rate); every step has its own masks, of the seed, the epoch and the step."""
    training = Training(config.changed(**{"train.drop_path": 0.3, "train.epochs": 4}), data, DARTS)
    seen, original = [], training.network.forward_train
    training.network.forward_train = lambda x, masks: seen.append(masks) or original(x, masks)
    run(training)
    assert seen[:2] == [None, None]
    assert all(masks.shape == (3, 14, 10, 1, 1, 1) for masks in seen[2:])
    assert [1 - 1 / float(masks.max()) for masks in seen[2:]] == pytest.approx([0.1, 0.1, 0.2, 0.2, 0.3, 0.3])
    assert [float((m == 0).float().mean()) for m in seen[2:]] == pytest.approx([0.1, 0.1, 0.2, 0.2, 0.3, 0.3], abs=0.06)
    kept = torch.stack([masks.flatten() > 0 for masks in seen[2:]])
    assert len(kept.unique(dim=0)) == 6


def test_the_auxiliary_heads_loss_counts_at_its_weight(config, data):
    """At weight w the loss is the objective's plus w times the auxiliary head's cross-entropy."""
    seen = []
    for weight in (0.2, 0.4):
        training = Training(config.changed(**{"train.auxiliary": weight}), data, DARTS)
        outputs = []
        original = training.network.forward_train
        training.network.forward_train = lambda *a, original=original, outputs=outputs: (
            outputs.append(original(*a)) or outputs[-1]
        )
        index = training.train_index[:10]
        loss, _ = training.loss(index, 0, 0)
        scores, auxiliary = outputs[0]
        labels = data.train_labels[index]
        torch.testing.assert_close(loss, F.cross_entropy(scores, labels) + weight * F.cross_entropy(auxiliary, labels))
        seen.append(float(loss.detach()))
    assert seen[0] < seen[1]
    assert (
        Training(config.changed(**PRE_TRAINING, **{"train.auxiliary": 0.4}), data, DARTS).network.auxiliary_head is None
    )


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_run_and_names_the_step(config, data, value):
    training = Training(config, data, DARTS)
    original = training.loss

    def loss(index, *when):
        found, metrics = original(index, *when)
        return (found * value if (training.epoch, training.step) == (1, 1) else found), metrics

    training.loss = loss
    with pytest.raises(RunError, match=f"loss became {value} in epoch 1 at or shortly before step 1.*lower lr"):
        run(training)


def test_the_gradient_is_clipped(config, data):
    training = Training(
        config.changed(**{"train.grad_clip": 1e-3, "train.momentum": 0.0, "train.weight_decay": 0.0, "train.lr": 1.0}),
        data,
        DARTS,
    )
    before = [p.detach().clone() for p in training.network.parameters()]
    training.train_step()
    moved = torch.cat([(p - q).flatten() for p, q in zip(training.network.parameters(), before, strict=True)])
    assert float(moved.detach().norm()) == pytest.approx(1e-3, rel=1e-2)


def test_pre_training_with_simclr_reads_no_labels(config, data):
    unlabelled = replace(data, train_labels=None, test=None, test_labels=None, classes=())
    result, weights = run(Training(config.changed(**PRE_TRAINING), unlabelled, DARTS)).finish()
    assert result["trained_on"] == 160 and "test" not in result
    tuned = Training(config.changed(**{"train.init": "simclr"}), data, DARTS, weights)
    own = tuned.network.state_dict()
    assert all(torch.equal(own[name], weights[name]) for name in tuned.report.matched)
    assert {name for name in tuned.report.new if not name.startswith("head.")} == set()
    with pytest.raises(InputError, match="needs labels"):
        Training(config, unlabelled, DARTS)


def test_the_result_says_what_was_taken_over(config, data):
    supernet = SuperNet(4, 3)
    genotype = derive(torch.randn(3, 14, 7, generator=torch.Generator().manual_seed(0)))
    training = Training(
        config.changed(**{"train.init": "concomitant", "train.epochs": 1}), data, genotype, supernet.state_dict()
    )
    taken = run(training).finish()[0]["taken_over"]
    assert taken == {
        "matched": len(training.report.matched),
        "new": len(training.report.new),
        "left_over": len(training.report.left_over),
    }
    assert min(taken.values()) > 0


def test_recalibration_is_reported_beside_the_plain_accuracy(config, data):
    training = run(Training(config.changed(**{"train.calibrate": True}), data, DARTS))
    before = tensors(training)
    result = training.finish()[0]
    assert set(result["calibrated"]) == {"test", "validation"} and set(result["test"]) == {"top1", "top5", "balanced"}
    changed = differing(before, tensors(training))
    assert changed and all("running_" in name for name in changed)
    assert "classes_without_test" not in result


@pytest.mark.parametrize("seed", [0, 3])
def test_recalibration_draws_its_images_by_the_seed(config, data, seed, monkeypatch):
    training, taken = Training(config.changed(**{"train.calibrate": True, "seed": seed}), data, DARTS), []
    monkeypatch.setattr(module, "calibrate", lambda model, batches: taken.extend(batches))
    monkeypatch.setattr(module, "normalise", lambda images, *_: images)
    training.finish()
    others = torch.ones(len(data.train), dtype=torch.bool)
    others[training.validation_index] = False
    others = others.nonzero().squeeze(1)
    order = others[torch.randperm(len(others), generator=generator(seed, "calibration"))]
    assert torch.equal(torch.cat(taken), data.train[order])


def test_pre_training_leaves_the_statistics_of_plain_images(config, data):
    training = run(Training(config.changed(**PRE_TRAINING, **{"train.calibrate": True}), data, DARTS))
    before, (result, weights) = tensors(training), training.finish()
    changed = differing(before, weights)
    assert changed and all("running_" in name for name in changed) and "calibrated" not in result


def test_a_pre_training_on_half_is_judged_on_the_other_half(config, data, monkeypatch):
    """By its objective, on fixed views, without labels; the network's weights are what they were."""
    unlabelled = replace(data, train_labels=None, test=None, test_labels=None, classes=())
    half = config.changed(**PRE_TRAINING, **{"train.half": True, "train.batch_size": 16, "train.calibrate": False})
    training, seen, take = run(Training(half, unlabelled, DARTS)), [], module.take
    monkeypatch.setattr(module, "take", lambda images, index, device: seen.append(index) or take(images, index, device))
    before, (result, weights) = tensors(training), training.finish()
    assert differing(before, weights) == set()
    looked_at = torch.cat(seen).tolist()
    assert len(looked_at) == len(set(looked_at)) == 80 and not set(looked_at) & set(training.train_index.tolist())
    assert 0 < result["held_out"]["loss"] < 20 and 0 <= result["held_out"]["accuracy"] <= 1
    assert training.finish()[0] == result
    assert "held_out" not in run(Training(config.changed(**PRE_TRAINING), unlabelled, DARTS)).finish()[0]


@pytest.mark.parametrize(
    ("settings", "weights", "named"),
    [
        ({"model.num_cells": 4}, None, "genotype has 3 cells, model.num_cells is 4"),
        ({"train.init": "simclr"}, None, "'simclr' and weights are missing"),
        ({}, {}, "'random' and weights are given"),
        ({"train.batch_size": 21}, None, "batch_size 21 is larger than the 20 images"),
    ],
)
def test_what_does_not_fit_is_refused(config, data, settings, weights, named):
    with pytest.raises(InputError, match=named):
        Training(config.changed(**settings), data, DARTS, weights)


def test_training_in_bfloat16(config, data):
    training = run(Training(config.changed(**{"model.precision": "bfloat16"}), data, DARTS))
    assert all(p.dtype == torch.float32 for p in training.network.parameters())
    assert math.isfinite(training.history[-1]["loss"])
