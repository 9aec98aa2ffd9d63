"""Ranking by a one-shot network: the shared classifier, scores without a trace, likeness of features, Kendall's tau."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from toy_space import ARMS, CANDIDATES, TOY

import sswp_lib.learn.ranking as module
from sswp_lib.config import InputError
from sswp_lib.learn.data import generator, take
from sswp_lib.learn.measure import accuracy
from sswp_lib.learn.oneshot import build_supernet, split
from sswp_lib.learn.ranking import LinearEvaluation, Ranker, kendall, similarity
from sswp_lib.learn.views import normalise
from sswp_lib.space import calibrate
from sswp_lib.space.ops import batch_norms, by_batch

EVERYTHING = list(TOY.everything())


def run(loop):
    for _ in loop.advance():
        pass
    return loop


@pytest.fixture
def supernet(toy, data) -> nn.Module:
    """Weights far enough apart that no two paths say the same; statistics and momentum of BatchNorm as torch's."""
    torch.manual_seed(0)
    supernet = TOY.supernet(init_channels=6)
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in supernet.parameters():
            p.add_(0.5 * torch.randn(p.shape, generator=g))
        for layer in batch_norms(supernet):
            layer.running_mean.normal_(generator=g)
            layer.running_var.uniform_(0.5, 2, generator=g)
    return supernet


@pytest.fixture
def ranker(toy, digits, supernet) -> Ranker:
    """On the held-out part of all digits, with a classifier that has learnt something."""
    return Ranker(toy, digits, supernet, run(LinearEvaluation(toy, digits, supernet)).classifier)


def everything_of(model: nn.Module) -> dict:
    """Return copies of weights, statistics, momenta and modes."""
    tensors = {name: t.clone() for name, t in model.state_dict().items()}
    return tensors, [layer.momentum for layer in batch_norms(model)], [m.training for m in model.modules()]


def same(one: tuple, two: tuple) -> bool:
    return all(torch.equal(t, two[0][name]) for name, t in one[0].items()) and one[1:] == two[1:]


# the shared classifier


@pytest.mark.parametrize("training", [True, False])
def test_a_linear_evaluation_changes_the_classifier_alone(toy, data, supernet, training):
    supernet.train(training)
    before = everything_of(supernet)
    evaluation = LinearEvaluation(toy, data, supernet)
    weight = evaluation.classifier.weight.detach().clone()
    run(evaluation)
    assert same(before, everything_of(supernet))
    assert all(p.grad is None for p in supernet.parameters())
    assert not torch.equal(weight, evaluation.classifier.weight)
    assert evaluation.history[-1]["loss"] < evaluation.history[0]["loss"]
    assert evaluation.finish()[0] == {"trained_on": 144, "steps": 5 * 3}


def test_a_steps_features_are_of_one_path_by_the_batchs_statistics(toy, data, supernet, monkeypatch):
    """Cross-entropy of the classifier on views that crop and flip and have their colours."""
    views, draw = [], module.random_views
    monkeypatch.setattr(module, "random_views", lambda *a: views.append((a[1], draw(*a))) or views[-1][1])
    colours = {"data.views.flip": True, "data.views.jitter_p": 1.0, "data.views.grey_p": 1.0, "data.views.blur_p": 1.0}
    evaluation = LinearEvaluation(toy.changed(**colours), data, supernet.eval())
    index = evaluation.train_index[:40]
    loss, metrics = evaluation.loss(index, generator(0, "any"), EVERYTHING[5])
    ((config, x),) = views
    assert (config.jitter_p, config.grey_p, config.blur_p, config.flip) == (0, 0, 0, True)
    assert config.crop_scale == evaluation.config.data.views.crop_scale
    supernet.train()
    with by_batch(supernet):
        scores = evaluation.classifier(supernet.features(x, TOY.paths(EVERYTHING[5])))
    torch.testing.assert_close(loss, F.cross_entropy(scores, data.train_labels[index]))
    assert float(metrics["accuracy"]) == float((scores.argmax(1) == data.train_labels[index]).float().mean())


def test_every_step_of_it_draws_one_uniform_path(toy, data, supernet, monkeypatch):
    seen, original = [], LinearEvaluation.loss
    monkeypatch.setattr(LinearEvaluation, "loss", lambda self, *a: seen.append(a) or original(self, *a))
    evaluation = run(LinearEvaluation(toy.changed(**{"ranking.linear_epochs": 60}), data, supernet))
    drawn = [choices for _, _, choices in seen]
    assert len(drawn) == 180 and len(set(drawn)) > 24
    for edge in range(3):
        counts = [sum(choices.operations[edge] == name for choices in drawn) for name in CANDIDATES]
        assert max(abs(count / 180 - 1 / 3) for count in counts) < 0.15
    assert {tuple(index.shape) for index, *_ in seen} == {(40,)}
    for epoch in (0, 59):  # each image once at the most
        images = torch.cat([index for index, *_ in seen[3 * epoch : 3 * epoch + 3]])
        assert len(images.unique()) == 120 and set(images.tolist()) <= set(evaluation.train_index.tolist())


@pytest.mark.parametrize(
    ("epochs", "milestones", "passed"),
    [(10, (0.6, 0.8), [6, 8]), (5, (0.5,), [3]), (4, (), []), (100, (0.6, 0.8), [60, 80])],
)
def test_its_rate_falls_to_a_tenth_at_each_milestone(toy, data, supernet, monkeypatch, epochs, milestones, passed):
    settings = {"ranking.linear_epochs": epochs, "ranking.linear_milestones": milestones, "ranking.linear_lr": 0.3}
    evaluation = LinearEvaluation(toy.changed(**settings), data, supernet)
    fixed = torch.zeros((), requires_grad=True)
    monkeypatch.setattr(evaluation, "loss", lambda *a: (fixed * 1, {}))
    rates = [evaluation.optimizer.param_groups[0]["lr"] for p in evaluation.advance() if p.row is not None]
    assert rates == pytest.approx([0.3 * 0.1 ** sum(e >= at for at in passed) for e in range(epochs)])
    assert [row["lr"] for row in evaluation.history] == rates


def test_its_classifier_and_optimiser(toy, digits, supernet):
    evaluation = LinearEvaluation(toy.changed(**{"ranking.linear_momentum": 0.6}), digits, supernet)
    weight = evaluation.classifier.weight
    assert weight.shape == (10, 6) and not evaluation.classifier.bias.any()
    assert float(weight.detach().std()) == pytest.approx(0.01, rel=0.3)
    (group,) = evaluation.optimizer.param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (1.0, 0.6, 0)
    assert group["params"] == list(evaluation.classifier.parameters())


def test_a_linear_evaluation_that_was_interrupted(toy, data, supernet, tmp_path):
    whole, places = LinearEvaluation(toy, data, supernet), []
    for progress in whole.advance():
        places.append(tmp_path / f"{progress.epoch}-{progress.step}-{progress.row is None}")
        torch.save(whole.state(), places[-1])
    for place in places[:-1]:
        resumed = LinearEvaluation(toy, data, supernet)
        resumed.restore(torch.load(place, weights_only=True))
        run(resumed)
        assert torch.equal(resumed.classifier.weight, whole.classifier.weight)
        assert torch.equal(resumed.classifier.bias, whole.classifier.bias) and resumed.history == whole.history
    once = run(LinearEvaluation(toy, data, supernet)).classifier
    assert torch.equal(once.weight, whole.classifier.weight)
    again = nn.Linear(6, 10)
    again.load_state_dict(whole.finish()[1])
    assert torch.equal(again.weight, once.weight)


# scores


def alone(supernet: nn.Module, choices) -> nn.Module:
    """Return the stand-alone network of an architecture with the supernet's weights and fresh statistics."""
    network = TOY.network(choices, init_channels=6)
    own = dict(supernet.named_parameters())
    with torch.no_grad():
        for name, p in network.named_parameters():
            p.copy_(own[name])
    return network


def test_scores_are_those_of_the_networks_alone(toy, digits, supernet, ranker):
    """Each calibrated on the same training images and evaluated on those held out; scored one after another."""
    train_index, held_out = split(toy, digits)
    images = [normalise(take(digits.train, b, "cpu"), digits.mean, digits.std) for b in ranker.calibration]
    assert [len(batch) for batch in images] == [40, 40]
    assert set(torch.cat(ranker.calibration).tolist()) <= set(train_index.tolist())
    found, expected = [ranker.score(choices) for choices in EVERYTHING], []
    judged = digits.train[held_out], digits.train_labels[held_out], digits.mean, digits.std
    for choices in EVERYTHING:
        network = alone(supernet, choices)
        network.head = ranker.classifier
        calibrate(network, images)
        expected.append(accuracy(network.eval(), *judged)["top1"])
    assert found == pytest.approx(expected, abs=1e-9)
    assert len(set(found)) > 10


@pytest.mark.parametrize("training", [True, False])
def test_a_score_leaves_everything_as_it_was(digits, supernet, ranker, training):
    supernet.train(training)
    before = everything_of(supernet)
    for choices in EVERYTHING[:4]:
        ranker.score(choices)
        assert same(before, everything_of(supernet))
    ranker.features(EVERYTHING[:2])
    assert same(before, everything_of(supernet))
    ranker.classifier = lambda x: 1 / 0  # even where it fails
    with pytest.raises(ZeroDivisionError):
        ranker.score(EVERYTHING[0])
    assert same(before, everything_of(supernet))
    assert all(p.grad is None for p in supernet.parameters())


def is_free_of_order(ranker: Ranker, forget=lambda: None) -> bool:
    forwards = {choices: ranker.score(choices) for choices in EVERYTHING[::3]}
    forget()
    backwards = {choices: ranker.score(choices) for choices in reversed(EVERYTHING[::3])}
    return forwards == backwards


def test_scores_do_not_depend_on_the_order(ranker):
    assert is_free_of_order(ranker)


def test_statistics_that_leak_into_the_next_score_would_show(ranker, monkeypatch):
    """As they do where only those layers are calibrated that no earlier path has been through."""
    known = {}

    def leaking(model, batches, forward):
        calibrate(model, batches, forward)
        for layer in batch_norms(model):
            here = layer.running_mean.clone(), layer.running_var.clone()
            mean, var = known.setdefault(layer, here)
            layer.running_mean.copy_(mean), layer.running_var.copy_(var)

    monkeypatch.setattr(module, "calibrate", leaking)
    assert not is_free_of_order(ranker, known.clear)


def test_images_that_are_held_out_judge_and_do_nothing_else(toy, digits, supernet, ranker):
    """Their pixels have no say in the classifier or in the statistics; their labels none but in the score."""
    held_out, labels = split(toy, digits)[1], digits.train_labels.clone()
    changed = digits.train.clone()
    changed[held_out] = 255 - changed[held_out]
    poisoned = replace(digits, train=changed)
    short = toy.changed(**{"ranking.linear_epochs": 1})
    assert torch.equal(*(run(LinearEvaluation(short, data, supernet)).classifier.weight for data in (digits, poisoned)))

    def statistics(data) -> list[torch.Tensor]:
        with Ranker(toy, data, supernet).calibrated(EVERYTHING[7]):
            return [t.clone() for layer in batch_norms(supernet) for t in (layer.running_mean, layer.running_var)]

    assert all(map(torch.equal, statistics(digits), statistics(poisoned)))
    seen = [each.features(EVERYTHING[7:8]) for each in (ranker, Ranker(toy, poisoned, supernet))]
    assert not torch.isclose(*seen).all(-1).any()
    with ranker.calibrated(EVERYTHING[7]) as features, torch.no_grad():
        x = normalise(digits.train[held_out], digits.mean, digits.std)
        labels[held_out] = ranker.classifier(features(x)).argmax(1)
    other, told = Ranker(toy, digits, supernet, ranker.classifier), labels[held_out]
    assert not torch.equal(told, other.labels)
    other.labels = told
    assert other.score(EVERYTHING[7]) == 100


def test_whose_classifier_it_is(toy, digits, supernet):
    """Pi-NAS's is the linear evaluation's, SPOS's its own head."""
    linear = run(LinearEvaluation(toy, digits, supernet)).classifier
    given, own = Ranker(toy, digits, supernet, linear), Ranker(toy, digits, supernet)
    assert given.classifier is linear and own.classifier is supernet.head
    scores = [[ranker.score(choices) for choices in EVERYTHING[:5]] for ranker in (given, own)]
    assert scores[0] != scores[1]
    spos = build_supernet(toy.changed(**ARMS["SPOS"]), digits)
    assert Ranker(toy, digits, spos).score(EVERYTHING[0]) <= 100


def test_calibration_takes_so_many_training_images_in_batches_of_more_than_one(toy, data, supernet):
    sizes = lambda images, batch: [  # noqa: E731
        len(b) for b in Ranker(
            toy.changed(**{"ranking.calibration_images": images, "ranking.calibration_batch": batch}), data, supernet
        ).calibration
    ]  # fmt: skip
    assert sizes(50, 20) == [20, 20, 10] and sizes(41, 20) == [20, 20] and sizes(50_000, 100) == [100, 44]


def test_without_labels_nothing_is_ranked(toy, data, supernet):
    unlabelled = replace(data, train_labels=None, classes=())
    for make, words in ((LinearEvaluation, "a linear evaluation"), (Ranker, "a ranking of architectures")):
        with pytest.raises(InputError, match=f"{words} needs labels"):
            make(toy, unlabelled, supernet)


def test_in_bfloat16(toy, digits, supernet):
    config = toy.changed(**{"model.precision": "bfloat16", "ranking.linear_epochs": 1})
    linear = run(LinearEvaluation(config, digits, supernet)).classifier
    assert linear.weight.dtype == torch.float32
    ranker = Ranker(config, digits, supernet, linear)
    assert 0 <= ranker.score(EVERYTHING[0]) <= 100 and ranker.features(EVERYTHING[:2]).dtype == torch.float32


# likeness of features


def test_features_are_those_of_the_networks_alone(toy, digits, supernet, ranker):
    """Un-augmented, in evaluation, each with statistics of its own path."""
    held_out = split(toy, digits)[1]
    x = normalise(digits.train[held_out], digits.mean, digits.std)
    images = [normalise(take(digits.train, b, "cpu"), digits.mean, digits.std) for b in ranker.calibration]
    found = ranker.features(EVERYTHING[8:11])
    assert found.shape == (3, len(held_out), 6) and not found.requires_grad
    for choices, features in zip(EVERYTHING[8:11], found, strict=True):
        network = alone(supernet, choices)
        calibrate(network, images)
        torch.testing.assert_close(features, network.eval().features(x).detach())


def test_likeness_equals_loops_over_paths_and_images():
    P, N, D = 4, 5, 3
    features = torch.randn(P, N, D, generator=torch.Generator().manual_seed(0)) + 1
    cosine = lambda a, b: float(a @ b / (a.norm() * b.norm()))  # noqa: E731
    pairs = [(p, q) for p in range(P) for q in range(P) if p != q]
    mean = lambda values: sum(values) / len(values)  # noqa: E731
    moved = features - features.mean(1, keepdim=True)
    found = similarity(features)
    assert found["raw"] == pytest.approx(
        mean([cosine(features[p, n], features[q, n]) for p, q in pairs for n in range(N)])
    )
    centred = mean([cosine(moved[p, n], moved[q, n]) for p, q in pairs for n in range(N)])
    assert found["centred"] == pytest.approx(centred)
    other = [(n, m) for n in range(N) for m in range(N) if n != m]
    expected = mean([cosine(features[p, n], features[q, m]) for p, q in pairs for n, m in other])
    assert found["different"] == pytest.approx(expected)
    assert found["matrix"][0][2] == pytest.approx(mean([cosine(moved[0, n], moved[2, n]) for n in range(N)]))
    assert [found["matrix"][p][p] for p in range(P)] == pytest.approx([1] * P)


def test_likeness_of_known_features():
    """Paths that agree but for an offset of their own; and a network whose features are all one."""
    base = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    shifted = similarity(torch.stack([base, base + 5]))
    assert shifted["centred"] == pytest.approx(1) and shifted["raw"] < 0.7
    collapsed = similarity(torch.ones(3, 4, 8))
    assert [collapsed[name] for name in ("raw", "different", "centred")] == pytest.approx([1, 1, 0])
    for shape in ((1, 5, 3), (2, 1, 3), (2, 5)):
        with pytest.raises(InputError, match="expected \\(P, N, D\\)"):
            similarity(torch.zeros(shape))


# Kendall's tau


@pytest.mark.parametrize(("one", "other", "tau"), [
    ([1, 2, 3, 4], [10, 20, 30, 40], 1.0),
    ([1, 2, 3, 4], [4, 3, 2, 1], -1.0),
    # six pairs: three ordered alike, one otherwise, and in each score one tied
    ([1, 2, 2, 3], [1, 3, 2, 2], (3 - 1) / math.sqrt(5 * 5)),
    # Table 1 of Pi-NAS: eight of fifteen pairs ordered alike, none otherwise; ten and eleven are not tied
    ([64.6, 65.0, 65.1, 65.0, 65.0, 65.0], [80.7, 81.2, 81.2, 81.1, 81.0, 81.0], None),
    ([1, 1, 1], [1, 2, 3], "undefined"),
])  # fmt: skip
def test_kendalls_tau_b(one, other, tau):
    """By hand, and by its definition; it is neither tau-a nor tau-c where there are ties."""
    found = kendall(one, other)
    if tau == "undefined":
        assert found is None and kendall(other, one) is None
        return
    n = len(one)
    signs = [((a > b) - (a < b)) * ((c > d) - (c < d)) for (a, c), (b, d) in pairs_of(one, other)]
    untied = [sum(a != b for a, b in pairs_of(x)) for x in (one, other)]
    assert found == pytest.approx(sum(signs) / math.sqrt(untied[0] * untied[1]))
    if tau is not None:
        assert found == pytest.approx(tau)
    else:
        assert found == pytest.approx(0.74, abs=0.005) and sum(signs) / (n * (n - 1) / 2) == pytest.approx(
            0.53, abs=0.005
        )


def pairs_of(*scores) -> list:
    rows = list(zip(*scores, strict=True)) if len(scores) > 1 else list(scores[0])
    return [(rows[i], rows[j]) for i in range(len(rows)) for j in range(i)]


@pytest.mark.parametrize(("one", "other"), [([1], [1]), ([], []), ([1, 2], [1, 2, 3])])
def test_kendalls_tau_needs_pairs(one, other):
    with pytest.raises(InputError, match="expected as many of both, two or more"):
        kendall(one, other)
