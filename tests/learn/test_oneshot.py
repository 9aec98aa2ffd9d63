"""One-shot training: what a step changes, which images it sees, an interruption anywhere, what a run ends with."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from toy_space import ARMS, CANDIDATES

import sswp_lib.learn.oneshot as module
from sswp_lib.config import InputError
from sswp_lib.learn import OneShot
from sswp_lib.learn.data import generator, take
from sswp_lib.learn.oneshot import SinglePath, build_supernet, own_negatives, split
from sswp_lib.learn.views import normalise, random_views
from sswp_lib.space.ops import batch_norms

arms = pytest.mark.parametrize("arm", ARMS.values(), ids=ARMS)
both = pytest.mark.parametrize("arm", [ARMS["Pi-NAS"], ARMS["SPOS"]], ids=["Pi-NAS", "SPOS"])


def run(loop):
    for _ in loop.advance():
        pass
    return loop


def snapshot(loop: OneShot) -> dict[str, torch.Tensor]:
    """Return copies of every tensor of the supernet and the objective."""
    own = {f"objective.{name}": t for name, t in loop.objective.state_dict().items()}
    return {name: t.clone() for name, t in (loop.supernet.state_dict() | own).items()}


def differing(one: dict, two: dict) -> set[str]:
    assert set(one) == set(two)
    return {name for name in one if not torch.equal(one[name], two[name])}


@pytest.fixture
def drawn(monkeypatch) -> list:
    """The pair of architectures of every step, in order."""
    seen, draw = [], OneShot.draw
    monkeypatch.setattr(OneShot, "draw", lambda self, g: seen.append(draw(self, g)) or seen[-1])
    return seen


def own_weights(pair) -> tuple[str, ...]:
    """Return the beginnings of the names of what a step's two paths have on their edges."""
    return tuple(f"cells.0.{e}.{c.operations[e]}." for c in pair for e in range(3))


@both
def test_a_step_changes_only_what_ran(toy, data, drawn, arm):
    """Momentum and weight decay included: what did not run has no gradient and is bitwise what it was."""
    loop = OneShot(toy.changed(**arm, **{"one_shot.epochs": 9}), data)
    names = {name for name, _ in loop.supernet.named_parameters()}
    of_all = lambda: {name: t for name, t in snapshot(loop).items() if name in names}  # noqa: E731
    before, moved, idle, with_momentum = of_all(), set(), 0, 0
    for progress in loop.advance():
        if progress.row is not None:
            continue
        ran = {name for name in names if not name.startswith("cells") or name.startswith(own_weights(drawn[-1]))}
        assert {name for name, p in loop.supernet.named_parameters() if p.grad is not None} == ran
        assert differing(before, of_all()) == ran
        before, moved = of_all(), moved | ran
        idle, with_momentum = idle + len(names - ran), with_momentum + len(moved - ran)
    assert idle > 20 and with_momentum > 10


def test_paths_of_pi_nas_share_no_operation_and_those_of_spos_may(toy, data, drawn):
    """Uniform on each edge in both, from the seed, the epoch and the step."""
    for arm, fewest, most in ((ARMS["Pi-NAS"], 0, 0), (ARMS["SPOS"], 0.2, 0.5)):
        drawn.clear()
        loop = OneShot(toy.changed(**arm, **{"one_shot.epochs": 2}), data)
        for when in range(400):
            loop.draw(generator(0, "paths", 0, when))
        shared = [a == b for one, two in drawn for a, b in zip(one.operations, two.operations, strict=True)]
        assert fewest <= sum(shared) / len(shared) <= most
        for k in range(2):
            for edge in range(3):
                counts = [sum(pair[k].operations[edge] == name for pair in drawn) for name in CANDIDATES]
                assert max(abs(count / 400 - 1 / 3) for count in counts) < 0.1
        first = drawn[5]
        drawn.clear()
        run(loop)
        assert drawn[5] == loop.draw(generator(0, "paths", 1, 1)) != first and len(drawn) == 2 * 4 + 1
        assert len(set(drawn)) > 3


@both
def test_the_loss_is_the_objectives_on_views_of_its_own(toy, data, arm):
    """On four views (SPOS: two) along the paths of both architectures, in order."""
    loop = OneShot(toy.changed(**arm), data)
    index, g = loop.train_index[:32], generator(0, "views", 0, 0)
    one, two = loop.draw(generator(0, "paths", 0, 0))
    loss, _ = loop.loss(index, generator(0, "views", 0, 0), one, two)
    view = lambda: random_views(data.train[index], loop.config.data.views, data.mean, data.std, g)  # noqa: E731
    views, labels = [view() for _ in range(2 if arm else 4)], data.train_labels[index]
    paths = [loop.space.paths(choices) for choices in (one, two)]
    assert torch.equal(loss, loop.objective(loop.supernet, views, labels if arm else None, *paths)[0])


def test_gradients_of_both_paths_of_spos_are_added(toy, data):
    """Each path has a view of its own; what it learns from is the sum of two cross-entropies."""
    supernet, objective = build_supernet(toy.changed(**ARMS["SPOS"]), data), SinglePath()
    assert objective.needs_labels and objective.num_views == 2
    space = module.space_of(toy)
    views = [normalise(data.train[k : k + 32], data.mean, data.std) for k in (0, 40)]
    paths = [space.paths(choices) for choices in space.draw_two(generator(0, "any"))]
    loss, metrics = objective(supernet, views, data.train_labels[:32], *paths)
    scores = [supernet(view, path) for view, path in zip(views, paths, strict=True)]
    torch.testing.assert_close(loss, sum(F.cross_entropy(each, data.train_labels[:32]) for each in scores))
    right = [float((each.argmax(1) == data.train_labels[:32]).float().mean()) for each in scores]
    assert float(metrics["accuracy"]) == pytest.approx(sum(right) / 2)


@arms
def test_same_seed_same_result(toy, data, arm):
    one, two, other = (OneShot(toy.changed(**arm, seed=seed), data) for seed in (0, 0, 1))
    assert differing(snapshot(one), snapshot(two)) == set() != differing(snapshot(one), snapshot(other))
    for seed, loop in enumerate((one, two)):
        torch.manual_seed(seed)  # torch's own generator has no say
        run(loop)
    assert differing(snapshot(one), snapshot(two)) == set()
    assert one.history == two.history and one.finish()[0] == two.finish()[0]


@arms
def test_interrupted_equals_uninterrupted(toy, data, arm, tmp_path):
    """Left after any number of steps, before an epoch's row and after it: taken up by a new one, it ends bitwise where
    the uninterrupted one ends.
    """
    config = toy.changed(**arm, **{"one_shot.schedule": "step"})
    whole, places = OneShot(config, data), []
    for progress in whole.advance():
        places.append(tmp_path / f"{progress.epoch}-{progress.step}-{progress.row is None}")
        torch.save(whole.state(), places[-1])
    result, weights = whole.finish()
    assert len(places) == 3 * 5
    for place in places[:-1]:
        resumed = OneShot(config, data)
        resumed.restore(torch.load(place, weights_only=True))
        again, others = run(resumed).finish()
        assert differing(snapshot(whole), snapshot(resumed)) == set(), place
        assert (resumed.history, again) == (whole.history, result), place
        assert differing(weights, others) == set()


@pytest.fixture
def seen(monkeypatch) -> list[torch.Tensor]:
    """The indices of every image or label that is fetched."""
    fetched = []

    def spy(images, index, device):
        fetched.append(index)
        return take(images, index, device)

    monkeypatch.setattr(module, "take", spy)
    return fetched


@both
def test_images_that_are_held_out_are_never_seen(toy, data, seen, arm):
    """From the first step to what `finish` measures: their pixels and labels have no say in any weight or number."""
    loop = run(OneShot(toy.changed(**arm), data))
    result, weights = loop.finish()
    held_out = loop.validation_index
    assert set(torch.cat(seen).tolist()) == set(loop.train_index.tolist())  # all of the others
    assert not set(torch.cat(seen).tolist()) & set(held_out.tolist()) and len(held_out) == 16
    changed, labels = data.train.clone(), data.train_labels
    changed[held_out] = 255 - changed[held_out]
    other = run(OneShot(toy.changed(**arm), replace(data, train=changed, train_labels=labels)))
    assert other.finish()[0] == result and differing(weights, other.finish()[1]) == set()
    changed = data.train.clone()
    changed[loop.train_index[:20]] = 255 - changed[loop.train_index[:20]]
    assert differing(weights, run(OneShot(toy.changed(**arm), replace(data, train=changed))).finish()[1])


def test_every_class_is_held_out_and_both_objectives_hold_out_the_same(toy, digits):
    parts = [split(toy.changed(**ARMS[name]), digits) for name in ("Pi-NAS", "SPOS")]
    assert all(map(torch.equal, *parts))
    train, held_out = parts[0]
    assert set(train.tolist()) | set(held_out.tolist()) == set(range(len(digits.train)))
    assert len(train) + len(held_out) == len(digits.train)
    shares = torch.bincount(digits.train_labels[held_out]) / torch.bincount(digits.train_labels)
    assert float((shares - 0.1).abs().max()) < 0.01
    assert not torch.equal(held_out, split(toy.changed(seed=1), digits)[1])


def test_images_without_labels(toy, data):
    unlabelled = replace(data, train_labels=None, test_labels=None, classes=())
    result, _ = run(OneShot(toy, unlabelled)).finish()
    assert (result["trained_on"], result["held_out"]) == (144, 16)
    with pytest.raises(InputError, match="supervised objective needs labels"):
        OneShot(toy.changed(**ARMS["SPOS"]), unlabelled)


def test_batchnorm_keeps_no_statistics(toy, data):
    """Though those that the space builds would: a path leaves no trace in them."""
    loop = run(OneShot(toy, data))
    loop.finish()
    for layer in batch_norms(loop.supernet) + batch_norms(loop.objective.teacher):
        assert not layer.running_mean.any() and (layer.running_var == 1).all()


@both
def test_settings_reach_what_they_are_settings_of(toy, data, arm):
    settings = {
        "one_shot.lr": 0.31, "one_shot.momentum": 0.7, "one_shot.weight_decay": 0.03, "one_shot.temperature": 0.4,
        "one_shot.init_channels": 6, "one_shot.num_cells": 2, "one_shot.batch_size": 20, "one_shot.queue": 70,
        "one_shot.validation": 0.25, "one_shot.teacher": 0.8, "one_shot.schedule": "step",
    }  # fmt: skip
    loop = OneShot(toy.changed(**settings, **arm), data)
    (group,) = loop.optimizer.param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"], group["nesterov"]) == (0.31, 0.7, 0.03, False)
    assert set(group["params"]) == set(loop.supernet.parameters())
    assert (loop.supernet.num_features, len(loop.supernet.cells), loop.num_steps) == (6, 2, 5)
    assert len(loop.validation_index) == len(split(loop.config, data)[1]) in range(36, 45)
    rates = [loop.optimizer.param_groups[0]["lr"] for progress in loop.advance() if progress.row is None]
    assert rates == pytest.approx([0.31 * (1 + math.cos(math.pi * i / 15)) / 2 for i in range(15)])
    if not arm:
        o = loop.objective
        assert (o.temperature, o.ema, o.queue.shape) == (0.4, 0.8, (70, 6)) and o.cross_path
        assert OneShot(toy.changed(**ARMS["own path"]), data).objective.cross_path is False
        assert OneShot(toy.changed(**ARMS["no negatives"]), data).objective.queue is None


def test_the_learning_rate_falls_by_epochs_where_the_settings_say_so(toy, data):
    rates = [row["lr"] for row in run(OneShot(toy, data)).history]
    assert rates == pytest.approx([0.03 * (1 + math.cos(math.pi * e / 3)) / 2 for e in range(3)])


def test_views_are_drawn_by_the_settings_each_anew(toy, data, monkeypatch):
    calls, draw = [], module.several_views
    monkeypatch.setattr(module, "several_views", lambda *a: calls.append((*a, draw(*a))) or calls[-1][-1])
    config = toy.changed(**{"data.views.crop_scale": (0.5, 0.9), "data.views.flip": True})
    loop = OneShot(config, data)
    next(loop.advance())
    ((count, images, views, *_, size, found),) = calls
    assert count == len(found) == 4 and not any(torch.equal(one, other) for one, other in pairwise(found))
    assert torch.equal(images, data.train[loop.batches[0]]) and views == config.data.views and size == 8


def test_every_step_has_views_of_its_own(toy, data, monkeypatch):
    seeds, original = [], OneShot.loss
    spy = lambda self, index, g, *pair: seeds.append(g.initial_seed()) or original(self, index, g, *pair)  # noqa: E731
    monkeypatch.setattr(OneShot, "loss", spy)
    run(OneShot(toy, data))
    assert seeds == [generator(0, "views", epoch, step).initial_seed() for epoch in range(3) for step in range(4)]
    assert len(set(seeds)) == 12


def test_queue_and_teacher_follow_every_step(toy, data):
    """The teacher follows the weights as the step has left them."""
    loop = OneShot(toy, data)
    copied = lambda model: [p.detach().clone() for p in model.parameters()]  # noqa: E731
    queue, teacher = loop.objective.queue.clone(), copied(loop.objective.teacher)
    for progress in loop.advance():
        if progress.row is not None:
            continue
        assert torch.equal(loop.objective.queue[32:], queue[:32])
        assert not torch.isclose(loop.objective.queue[:32], queue[:32]).all(1).any()
        expected = [0.9 * old + 0.1 * new for old, new in zip(teacher, loop.supernet.parameters(), strict=True)]
        queue, teacher = loop.objective.queue.clone(), copied(loop.objective.teacher)
        for one, other in zip(teacher, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


@arms
def test_what_a_run_ends_with(toy, data, arm):
    loop = run(OneShot(toy.changed(**arm), data))
    result, weights = loop.finish()
    assert (result["space"], result["trained_on"], result["held_out"], result["steps"]) == ("toy", 144, 16, 12)
    assert result["parameters"] == sum(p.numel() for p in loop.supernet.parameters())
    own = loop.settings.objective == "crosspath"
    assert ("collapse" in result) == own and ("own_negatives" in result) == (own and loop.settings.negatives)
    assert [set(row) >= {"epoch", "loss", "accuracy", "lr"} and ("cosine" in row) == own for row in loop.history] == (
        [True] * 3
    )
    assert {p.phase for p in OneShot(toy.changed(**arm), data).advance()} == {loop.settings.objective}
    again = build_supernet(loop.config, data)
    again.load_state_dict(weights)
    assert all(map(torch.equal, again.parameters(), loop.supernet.parameters()))
    if own:
        assert 0 <= result["collapse"]["cosine"] <= 1 and result["collapse"]["spread"] >= 0
        with torch.no_grad():
            for p in loop.supernet.head[2].parameters():
                p.fill_(0.5)
        assert loop.finish()[0]["collapse"] == pytest.approx({"cosine": 1, "spread": 0}, abs=1e-6)


def test_both_objectives_start_with_the_same_weights_but_the_heads(toy, data):
    one, two = (OneShot(toy.changed(**ARMS[name]), data).supernet.state_dict() for name in ("Pi-NAS", "SPOS"))
    shared = [name for name in one if not name.startswith("head")]
    assert all(torch.equal(one[name], two[name]) for name in shared) and len(shared) > 10


def test_own_negatives_are_counted_right():
    """Of an image at step s' of an epoch and s of the next, its output is in the queue if so few steps lie between."""
    for queue, steps in ((1, 1), (1, 4), (3, 5), (5, 5)):
        near = [steps - before + after <= queue for before in range(steps) for after in range(steps)]
        assert own_negatives(queue, steps) == pytest.approx(sum(near) / steps**2)


def test_what_cannot_be_meant_is_refused(toy, data):
    with pytest.raises(InputError, match=r"one_shot\.queue 144 holds as much as the 144 .*e\.g\. one_shot\.queue=64"):
        OneShot(toy.changed(**{"one_shot.queue": 144}), data)
    OneShot(toy.changed(**{"one_shot.queue": 143}), data)
    OneShot(toy.changed(**{"one_shot.queue": 144, "one_shot.negatives": False}), data)
    OneShot(toy.changed(**{"one_shot.queue": 144, **ARMS["SPOS"]}), data)
    with pytest.raises(InputError, match="unknown space 'tye'; did you mean 'toy'"):
        OneShot(toy.changed(**{"one_shot.space": "tye"}), data)
    with pytest.raises(InputError, match="batch_size 145 is larger than the 144 images that one-shot training has"):
        OneShot(toy.changed(**{"one_shot.batch_size": 145, "one_shot.queue": 145}), data)
    with pytest.raises(InputError, match=r"one_shot\.validation=0\.99 holds out"):
        OneShot(toy.changed(**{"one_shot.validation": 0.99}), data)


def test_in_bfloat16(toy, data):
    for arm in (ARMS["Pi-NAS"], ARMS["SPOS"]):
        loop = run(OneShot(toy.changed(**arm, **{"model.precision": "bfloat16"}), data))
        assert all(p.dtype == torch.float32 for p in loop.supernet.parameters())
        assert all(math.isfinite(row["loss"]) for row in loop.history)
        loop.finish()
