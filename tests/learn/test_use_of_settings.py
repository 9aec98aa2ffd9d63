"""Each setting of a loop reaches what it is a setting of, at its own value and not at a neighbour's."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

import sswp_lib.learn.halves as halves_module
import sswp_lib.learn.search as search_module
import sswp_lib.learn.train as train_module
from sswp_lib.learn import Search, Training
from sswp_lib.learn.data import generator, halves
from sswp_lib.learn.measure import sizes
from sswp_lib.space import CANDIDATES, Genotype, Network

DARTS = Genotype.published("DARTS_V2", 3)
SEARCH = {
    "search.lr": 0.31, "search.momentum": 0.7, "search.weight_decay": 0.03, "search.alpha_lr": 0.05,
    "search.alpha_beta2": 0.9, "search.min_lr": 0.01, "search.temperature": 0.4,
}  # fmt: skip
TRAIN = {"train.lr": 0.21, "train.momentum": 0.6, "train.weight_decay": 0.02, "train.min_lr": 0.03}
PRE_TRAINING = {"train.objective": "simclr", "train.labels_per_class": None, "train.validation": 0.0}


def test_optimisers_have_the_settings(config, data):
    config = config.changed(**SEARCH, **TRAIN)
    search, training = Search(config, data), Training(config, data, DARTS)
    (weights,), (alpha,) = search.optimizer.param_groups, search.alpha_optimizer.param_groups
    assert (weights["lr"], weights["momentum"], weights["weight_decay"]) == (0.31, 0.7, 0.03)
    assert (alpha["lr"], alpha["betas"], alpha["weight_decay"]) == (0.05, (0.0, 0.9), 0)
    (learnt,) = training.optimizer.param_groups
    assert (learnt["lr"], learnt["momentum"], learnt["weight_decay"]) == (0.21, 0.6, 0.02)
    assert all(not group["nesterov"] and group["dampening"] == 0 for group in (weights, learnt))
    assert [p is search.supernet.alpha for p in alpha["params"]] == [True]
    assert set(weights["params"]) == set(search.supernet.weight_parameters())


@pytest.mark.parametrize("schedule", ["epoch", "step"])
def test_the_searchs_learning_rate_is_a_cosine_in_its_unit(config, data, schedule):
    search = Search(config.changed(**SEARCH, **{"search.schedule": schedule}), data)
    seen = [search.optimizer.param_groups[0]["lr"] for progress in search.advance() if progress.row is None]
    unit = lambda i: i // 5 / 5 if schedule == "epoch" else i / 25  # noqa: E731
    assert seen == pytest.approx([0.01 + 0.3 * (1 + math.cos(math.pi * unit(i))) / 2 for i in range(25)])
    assert {row["lr"] for row in search.history} <= set(seen) and len(search.history) == 5


@pytest.mark.parametrize("objective", ["simclr", "byol"])
def test_weights_decay_where_no_gradient_is(config, data, objective):
    """With zero gradients a weight step multiplies what ran by 1 - lr * weight_decay, and nothing else."""
    settings = {"search.lr": 0.5, "search.weight_decay": 0.1, "search.momentum": 0.0, "search.objective": objective}
    search = Search(config.changed(**settings, **{"search.schedule": "epoch"}), data)
    original = search.loss
    search.loss = lambda *a: (original(*a)[0] * 0, {})
    before = {name: p.detach().clone() for name, p in search._named_weights().items()}
    search.train_step()
    ran = [name for name, p in search._named_weights().items() if p.grad is not None]
    assert len(ran) > 40 and (objective == "simclr") == (not any(name.startswith("objective.") for name in ran))
    for name, p in search._named_weights().items():
        torch.testing.assert_close(p.detach(), before[name] * (1 - 0.05 * (name in ran)))


def test_a_searchs_gradient_is_clipped_over_what_ran(config, data):
    settings = {"search.grad_clip": 1e-3, "search.lr": 1.0, "search.weight_decay": 0.0, "search.momentum": 0.0}
    search = Search(config.changed(**settings), data)
    before = [p.detach().clone() for p in search.supernet.weight_parameters()]
    search.train_step()
    after = search.supernet.weight_parameters()
    moved = torch.cat([(p - q).flatten() for p, q in zip(after, before, strict=True)])
    assert float(moved.detach().norm()) == pytest.approx(1e-3, rel=1e-2)


def test_momentum_carries_a_weight_on(config, data):
    """Where the same path runs twice: the second move is momentum times the first, once the gradients are zero."""
    settings = {"search.momentum": 0.7, "search.lr": 0.1, "search.weight_decay": 0.0, "search.schedule": "epoch"}
    search = Search(config.changed(**settings), data)
    weight, original = search.supernet.stem[0][0].weight, search.loss
    places = [weight.detach().clone()]
    for factor in (1, 0):
        search.loss = lambda *a, factor=factor: (original(*a)[0] * factor, {})
        search.train_step()
        places.append(weight.detach().clone())
    torch.testing.assert_close(places[2] - places[1], 0.7 * (places[1] - places[0]))


@pytest.mark.parametrize("settings", [{}, {"search.objective": "byol"}])
def test_a_searchs_objective_has_its_temperature_and_its_ema(config, data, settings):
    config = config.changed(**{"search.temperature": 0.4, "search.ema": 0.8, "train.temperature": 0.9}, **settings)
    search = Search(config, data)
    if settings:
        assert (search.objective.ema, search.objective.projection_dim) == (0.8, config.model.projection_dim)
        target = {name: p.clone() for name, p in search.objective.target.named_parameters()}
        search.train_step()
        own = dict(search.supernet.named_parameters())
        for name, p in search.objective.target.named_parameters():
            torch.testing.assert_close(p, 0.8 * target[name] + 0.2 * own[name])
    else:
        assert search.objective.temperature == 0.4
        assert Training(config.changed(**PRE_TRAINING), data, DARTS).objective.temperature == 0.9


def test_the_search_passes_its_dropout_rates_and_its_caps(config, data, monkeypatch):
    settings = {"search.skip_dropout": 0.3, "search.pool_dropout": 0.1, "search.max_skips": 0, "search.max_pools": 1}
    search, calls = Search(config.changed(**settings, **{"search.edges": "all"}), data), []
    draw = search_module.sample_paths
    monkeypatch.setattr(search_module, "sample_paths", lambda *a, **k: calls.append(k) or draw(*a, **k))
    with torch.no_grad():
        search.supernet.alpha[..., :3] += torch.rand(3, 14, 3, generator=torch.Generator().manual_seed(0)) + 1
    search._fetch_alpha()
    for _ in search.advance():
        pass
    assert calls[-1] == {"uniform": False, "candidates": CANDIDATES, "skip_dropout": 0.3, "pool_dropout": 0.1}
    genotype = search.finish()[0]["genotype"]
    for cell in genotype["cells"]:
        names = [name for name, _ in cell]
        assert "skip_connect" not in names and sum(name.endswith("pool_3x3") for name in names) == 1


VIEWS = {
    "data.views.crop_scale": (0.5, 0.9), "data.views.flip": True, "data.views.shift": 1, "data.views.jitter_p": 0.5,
    "data.views.grey_p": 0.2, "data.views.blur_p": 0.3, "train.shift": 2, "train.cutout": 3,
}  # fmt: skip


def calls_of(monkeypatch, module, name: str) -> list:
    """Return the list into which each call's arguments go from now on."""
    calls, original = [], getattr(module, name)
    monkeypatch.setattr(module, name, lambda *a: calls.append(a) or original(*a))
    return calls


def test_a_search_sees_random_views_of_its_images(config, data, monkeypatch):
    """Two of each image, by the configuration's settings and a generator of the seed and the step."""
    config = config.changed(**VIEWS)
    search, calls = Search(config, data), calls_of(monkeypatch, halves_module, "several_views")
    states, found = [], []
    draw = halves_module.several_views

    def spy(*a):
        states.append(a[5].get_state())
        found.extend(draw(*a))
        return found

    monkeypatch.setattr(halves_module, "several_views", spy)
    search.train_step()
    ((count, images, views, mean, std, _, size, rows),) = calls
    assert torch.equal(images, data.train[search.batches[0]]) and (rows.start, rows.stop) == (0, len(images))
    assert count == 2 and views == config.data.views and size == 8
    assert torch.equal(mean, data.mean) and torch.equal(std, data.std)
    assert torch.equal(states[0], generator(0, "views", 0, 0).get_state()) and not torch.equal(*found)


@pytest.mark.parametrize("flip", [True, False])
def test_supervised_training_augments_its_images(config, data, monkeypatch, flip):
    """Shift, flip and cutout by the settings; what the network sees is what they give."""
    config = config.changed(**VIEWS | {"data.views.flip": flip})
    training, calls = Training(config, data, DARTS), calls_of(monkeypatch, train_module, "training_images")
    seen, original = [], training.network.forward_train
    training.network.forward_train = lambda x, masks: seen.append(x) or original(x, masks)
    training.train_step()
    ((images, *arguments, mean, std, _, size, rows),) = calls
    assert torch.equal(images, data.train[training.batches[0]]) and size == 8 and len(rows) == len(images)
    assert arguments == [2, flip, 3] and torch.equal(mean, data.mean) and torch.equal(std, data.std)
    g = generator(0, "training views", 0, 0)
    expected = train_module.training_images(images, 2, flip, 3, mean, std, g, 8)
    assert torch.equal(seen[0], expected)
    assert not torch.equal(seen[0], train_module.normalise(images, mean, std))


def test_pre_training_sees_two_random_views(config, data, monkeypatch):
    training = Training(config.changed(**VIEWS, **PRE_TRAINING), data, DARTS)
    calls, seen = calls_of(monkeypatch, train_module, "several_views"), []
    original = training.network.forward_train
    training.network.forward_train = lambda x, masks: seen.append(x) or original(x, masks)
    training.train_step()
    assert [(call[0], call[2]) for call in calls] == [(2, training.config.data.views)]
    assert len(seen[0]) == 20 and not torch.equal(seen[0][:10], seen[0][10:])


def test_crops_of_training_are_darts_own(config, data, monkeypatch):
    """Scale 0.08 to 1, flip, and each image's colours by (0.4, 0.4, 0.4, 0.2); whatever the views of a search are."""
    settings = {**VIEWS, "train.augment": "crop", "train.shift": 0, "train.cutout": 0}
    training = Training(config.changed(**settings), data, DARTS)
    calls = calls_of(monkeypatch, train_module, "several_views")
    training.train_step()
    ((count, _, views, *_),) = calls
    assert count == 1
    assert (views.crop_scale, views.flip, views.jitter, views.jitter_p) == ((0.08, 1.0), True, (0.4, 0.4, 0.4, 0.2), 1)
    assert (views.grey_p, views.blur_p, views.shift, views.rotation) == (0, 0, 0, 0)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_labels_are_smoothed_in_both_losses(config, data, smoothing):
    training = Training(config.changed(**{"train.label_smoothing": smoothing, "train.auxiliary": 0.4}), data, DARTS)
    outputs, original = [], training.network.forward_train
    training.network.forward_train = lambda x, masks: outputs.append(original(x, masks)) or outputs[-1]
    loss, _ = training.loss(training.train_index[:10], 0, 0)
    labels, expected = data.train_labels[training.train_index[:10]], 0
    for scores, weight in zip(outputs[0], (1, 0.4), strict=True):
        log_p = scores.log_softmax(1)
        right = log_p.gather(1, labels[:, None]).squeeze(1)
        expected = expected - weight * ((1 - smoothing) * right + smoothing * log_p.mean(1)).mean()
    torch.testing.assert_close(loss, expected)


def test_a_matched_pre_training_sees_the_half_of_the_weights(config, data):
    search = Search(config, data)
    matched = Training(config.changed(**PRE_TRAINING, **{"train.half": True}), data, DARTS)
    whole = Training(config.changed(**PRE_TRAINING), data, DARTS)
    assert torch.equal(matched.train_index, search.weights_half) and torch.equal(
        matched.train_index, halves(160, None, 0)[0]
    )
    assert torch.equal(whole.train_index, torch.arange(160))
    assert len(matched.validation_index) == len(whole.validation_index) == 0


@pytest.mark.parametrize("batch_size", [10, 70])
def test_training_calibrates_on_all_images_but_the_validation_part(config, data, monkeypatch, batch_size):
    """In batches of at least 100, 20 of them at the most; labelled or not; never on one image alone."""
    settings = {"train.calibrate": True, "train.labels_per_class": None, "train.batch_size": batch_size}
    training, seen = Training(config.changed(**settings), data, DARTS), []
    original = train_module.calibrate
    monkeypatch.setattr(
        train_module, "calibrate", lambda net, images: original(net, seen.append(list(images)) or seen[-1])
    )
    result = training.finish()[0]
    ((*batches,),) = seen
    rest = torch.ones(160, dtype=torch.bool)
    rest[training.validation_index] = False
    assert [len(batch) for batch in batches] == [100, int(rest.sum()) - 100]
    plain = train_module.normalise(data.train[rest], data.mean, data.std)
    rows = lambda images: sorted(map(tuple, images.flatten(1).tolist()))  # noqa: E731
    assert rows(torch.cat(batches)) == rows(plain)
    assert not torch.equal(torch.cat(batches), plain)  # in an order of the seed's
    assert (result["trained_on"], result["validated_on"]) == (len(training.train_index), int((~rest).sum()))


def test_training_calibrates_on_twenty_batches_at_the_most(config, digits, monkeypatch):
    settings = {"train.calibrate": True, "train.batch_size": 100, **PRE_TRAINING}
    many = replace(
        digits, train=digits.train.repeat(2, 1, 1, 1)[:2101], train_labels=digits.train_labels.repeat(2)[:2101]
    )
    seen = []
    monkeypatch.setattr(train_module, "calibrate", lambda net, images: seen.extend(len(batch) for batch in images))
    for images, expected in ((many, [100] * 20), (replace(many, train=many.train[:201]), [100, 100])):
        seen.clear()
        Training(config.changed(**settings), images, DARTS)._calibrate()
        assert seen == expected  # one image alone has no variance


def test_sizes_of_a_training_leave_the_auxiliary_head_out(config, data):
    result = Training(config.changed(**{"train.auxiliary": 0.4}), data, DARTS).finish()[0]
    network = Network(DARTS, 4, 10)
    assert result["parameters"] == sum(p.numel() for p in network.parameters())
    assert result["multiply_adds"] == sizes(DARTS, 4, 10, 8)["multiply_adds"]
    assert result["steps"] == 3 * 2


def test_fixed_batches_of_a_search(config, data, monkeypatch):
    """Calibration takes so many batches as the setting says, the last may be short, one image is none; evaluation ten
    whole ones; all of alpha's half.
    """
    batches = lambda size, count, purpose="calibration": Search(  # noqa: E731
        config.changed(**{"search.batch_size": size, "search.alpha_every": 1}), data
    )._fixed_batches(purpose, count)
    assert [len(batch) for batch in batches(30, 2)] == [30, 30]
    assert [len(batch) for batch in batches(30, 9)] == [30, 30, 20]
    assert [len(batch) for batch in batches(79, 9)] == [79]
    assert not torch.equal(batches(30, 2)[0], batches(30, 2, "evaluation")[0])
    search = Search(config.changed(**{"search.batch_size": 7}), data)
    assert set(torch.cat(search._fixed_batches("calibration", 99)).tolist()) == set(search.alpha_half.tolist())
    seen, original = [], search.loss
    search.loss = lambda index, *a, **k: seen.append(index) or original(index, *a, **k)
    search._evaluate(search.supernet, search.supernet.kept_paths())
    assert [len(index) for index in seen] == [7] * 10 and search.supernet.training
    search.supernet.eval()
    search._evaluate(search.supernet, search.supernet.kept_paths())
    assert not search.supernet.training


@pytest.mark.parametrize(("every", "expected"), [(0, []), (1, [0, 1, 2]), (2, [1]), (3, [2])])
def test_validation_follows_every_kth_epoch(config, data, every, expected):
    training = Training(config.changed(**{"train.evaluate_every": every}), data, DARTS)
    for _ in training.advance():
        pass
    assert [row["epoch"] for row in training.history if "validation" in row] == expected
    assert ("best_validation_top1" in training.finish()[0]) == bool(expected)


def test_progress_names_the_phase_and_counts_pruned_cells(config, data):
    search = Search(config.changed(**{"search.prune": "backward"}), data)
    seen = {(p.epoch, p.phase, p.pruned, p.cells) for p in search.advance() if p.row is None}
    assert seen == {
        (0, "warm-up", 0, 3), (1, "bi-level", 0, 3), (2, "bi-level", 0, 3), (3, "pruning", 2, 3), (4, "pruning", 3, 3),
    }  # fmt: skip
    assert search.phase == "pruning"  # after the last epoch too
    for settings, name in (({}, "random"), (PRE_TRAINING, "pre-training")):
        assert {p.phase for p in Training(config.changed(**settings), data, DARTS).advance()} == {name}
