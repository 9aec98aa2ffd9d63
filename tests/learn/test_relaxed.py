"""The relaxed search: what each step changes, halves and views, order, an interruption anywhere, the result."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F

import sswp_lib.learn.halves as halves_module
import sswp_lib.learn.relaxed as module
from sswp_lib.config import InputError, RunError
from sswp_lib.learn import RelaxedSearch, nt_xent
from sswp_lib.learn.data import generator, training_subset
from sswp_lib.learn.measure import sizes
from sswp_lib.learn.unrolled import unrolled_gradient
from sswp_lib.learn.views import random_views, training_images
from sswp_lib.space import Genotype, MixedNet, Network, load_concomitant, mixture

FEW = ("none", "skip_connect", "sep_conv_3x3")  # of the eight, or every test would take long
RELAXED = {
    "search.epochs": 2, "search.batch_size": 20, "relaxed.alpha_lr": 0.1, "relaxed.alpha_weight_decay": 0.01,
    "search.calibration_batches": 2,
}  # fmt: skip
METHODS = {
    "ssnas": {"search.method": "ssnas", "search.objective": "simclr"},
    "darts": {"search.method": "darts", "search.objective": "supervised"},
}
BOTH = pytest.mark.parametrize("method", METHODS)
ORDERS = pytest.mark.parametrize("order", [1, 2])


@pytest.fixture(autouse=True)
def few_candidates(monkeypatch):
    monkeypatch.setattr(module, "MixedNet", partial(MixedNet, candidates=FEW))


@pytest.fixture
def few(data):
    """24 of the digits, four of each of six classes: two iterations an epoch at six images a batch."""
    return replace(data, train=data.train[:24], train_labels=torch.arange(24) % 6)


@pytest.fixture
def made(config, data):
    """Make a search with settings replaced: three cells of 4 channels on 160 digits, four iterations an epoch."""

    def make(method: str = "ssnas", order: int = 1, images=data, **settings) -> RelaxedSearch:
        changes = {name.replace("__", "."): value for name, value in settings.items()}
        return RelaxedSearch(config.changed(**RELAXED | METHODS[method] | {"relaxed.order": order} | changes), images)

    return make


def run(search: RelaxedSearch) -> RelaxedSearch:
    for _ in search.advance():
        pass
    return search


def snapshot(search: RelaxedSearch) -> dict[str, torch.Tensor]:
    return {name: t.clone() for name, t in search.supernet.state_dict().items()}


def differing(one: dict, two: dict) -> set[str]:
    assert set(one) == set(two)
    return {name for name in one if not torch.equal(one[name], two[name])}


def begun(search: RelaxedSearch) -> tuple:
    """Do one iteration, so that both optimisers have a state; return the batches of the next one."""
    next(search.advance())
    batches = search.batches[1], search.alpha_batches[1]
    return tuple(search.batch(index, torch.Generator().manual_seed(i)) for i, index in enumerate(batches))


@BOTH
@ORDERS
def test_an_alpha_step_leaves_no_trace_but_in_alpha(made, method, order):
    """Weights bit for bit, their momentum and their gradients too; every entry of alpha moves, `none`'s among them."""
    search = made(method, order)
    training, validation = begun(search)
    before, momentum = (
        snapshot(search),
        {k: v["momentum_buffer"].clone() for k, v in search.state()["optimizer"].items()},
    )
    gradients = {name: p.grad.clone() for name, p in search.weights.items()}
    search.alpha_step(training, validation)
    after = snapshot(search)
    assert differing(before, after) == {"alpha"} and (after["alpha"] != before["alpha"]).all()
    assert all(torch.equal(v["momentum_buffer"], momentum[k]) for k, v in search.state()["optimizer"].items())
    assert all(torch.equal(p.grad, gradients[name]) and p.requires_grad for name, p in search.weights.items())
    assert len(momentum) == len(search.weights)


@BOTH
def test_a_weight_step_leaves_alpha_alone(made, method):
    search = made(method)
    training, _ = begun(search)
    before, held = snapshot(search), {k: t.clone() for k, t in search.state()["alpha_optimizer"]["alpha"].items()}
    search.weight_step(training)
    changed = differing(before, snapshot(search))
    assert changed == set(search.weights) and "alpha" not in changed
    assert search.supernet.alpha.grad is None
    assert all(torch.equal(t, held[k]) for k, t in search.state()["alpha_optimizer"]["alpha"].items())


def test_alpha_steps_are_adams_with_decay_in_the_gradient(made):
    """By hand, over two iterations: betas, learning rate and L2 of the settings."""
    search = made(relaxed__alpha_lr=0.03, relaxed__alpha_beta1=0.4, relaxed__alpha_beta2=0.9)
    gradients, original = [], search.alpha_gradient
    search.alpha_gradient = lambda *batches: gradients.append(original(*batches)) or gradients[-1]
    alpha, m, v = search.supernet.alpha.detach().clone(), 0.0, 0.0
    for count, _ in zip((1, 2), search.advance(), strict=False):
        g = gradients[-1][1] + 0.01 * alpha
        m, v = 0.4 * m + 0.6 * g, 0.9 * v + 0.1 * g**2
        alpha = alpha - 0.03 * (m / (1 - 0.4**count)) / ((v / (1 - 0.9**count)).sqrt() + 1e-8)
        torch.testing.assert_close(search.supernet.alpha.detach(), alpha, rtol=1e-4, atol=1e-5)


def test_weight_steps_have_the_settings_of_the_search(made):
    changes = {"search__lr": 0.31, "search__momentum": 0.7, "search__weight_decay": 0.03, "search__min_lr": 0.01}
    search = made(**changes, search__schedule="epoch", search__grad_clip=1e-3)
    (group,) = search.optimizer.param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.31, 0.7, 0.03)
    assert {id(p) for p in group["params"]} == {id(p) for p in search.supernet.weight_parameters()}
    run(search)
    assert [row["lr"] for row in search.history] == pytest.approx([0.31, 0.16])  # cosine from 0.31 to 0.01, by epoch
    norm = torch.cat([p.grad.flatten() for p in search.weights.values()]).norm()
    assert float(norm) == pytest.approx(1e-3, rel=1e-2)


def losses_by_hand(search: RelaxedSearch, views: list, labels) -> torch.Tensor:
    """Return the objective written out, with the mixture's gradient to alpha."""
    scores = search.supernet(torch.cat(views), mixture(search.supernet.alpha))
    return nt_xent(scores, search.settings.temperature) if labels is None else F.cross_entropy(scores, labels)


@BOTH
def test_first_order_is_the_gradient_at_the_weights_as_they_are(made, method):
    search = made(method)
    training, validation = begun(search)
    loss, gradient = search.alpha_gradient(training, validation)
    expected = losses_by_hand(search, *validation)
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, search.supernet.alpha)[0])


@BOTH
def test_second_order_looks_ahead_by_the_optimisers_own_step(made, method, monkeypatch):
    """At its learning rate, momentum, buffers and weight decay; without a learning rate it is first order."""
    search, calls = made(method, 2, search__weight_decay=0.01), []
    training, validation = begun(search)
    spy = lambda *a: calls.append(a) or unrolled_gradient(*a)  # noqa: E731
    monkeypatch.setattr(module, "unrolled_gradient", spy)
    _, second = search.alpha_gradient(training, validation)
    ((_, _, weights, alpha, xi, momentum, decay, buffers),) = calls
    assert len(weights) == len(list(search.supernet.weight_parameters()))
    assert all(weights[name] is p for name, p in search.supernet.named_parameters() if name != "alpha")
    assert alpha is search.supernet.alpha and xi == search.lr == search.optimizer.param_groups[0]["lr"] > 0
    assert (momentum, decay) == (0.9, 0.01) and set(buffers) == set(weights)
    assert all(buffers[name] is search.optimizer.state[p]["momentum_buffer"] for name, p in weights.items())
    first = made(method, 1)
    first.restore(search.state())
    _, expected = first.alpha_gradient(training, validation)
    assert float((second - expected).norm() / expected.norm()) > 0.01
    search.lr = 0.0
    assert torch.equal(search.alpha_gradient(training, validation)[1], expected)


def test_one_set_of_views_serves_the_step_ahead_its_differences_and_the_weight_step(made, monkeypatch):
    """The views of both batches are drawn once; three passes and the weight step see the same of the training batch."""
    search, seen, drawn = made(order=2), [], []
    original, draw = search.loss_on, search._views
    watched = lambda views, *a, **k: seen.append(torch.cat(views)) or original(views, *a, **k)  # noqa: E731
    monkeypatch.setattr(search, "loss_on", watched)
    monkeypatch.setattr(search, "_views", lambda index, *a: drawn.append(index) or draw(index, *a))
    next(search.advance())
    training, validation = (search.data.train[index] for index in (search.batches[0], search.alpha_batches[0]))
    assert [index.tolist() for index in drawn] == [search.batches[0].tolist(), search.alpha_batches[0].tolist()]
    assert [torch.equal(x, seen[0]) for x in seen] == [True, False, True, True, True]
    g, config = generator(0, "views", 0, 0), search.config.data
    expected = [random_views(training, config.views, search.data.mean, search.data.std, g) for _ in range(2)]
    assert torch.equal(seen[0], torch.cat(expected))
    g = generator(0, "alpha views", 0, 0)
    expected = [random_views(validation, config.views, search.data.mean, search.data.std, g) for _ in range(2)]
    assert torch.equal(seen[1], torch.cat(expected))


@pytest.mark.parametrize(("flip", "shift", "moved"), [(False, None, 1), (True, 2, 2), (True, 0, 0)])
def test_labelled_images_are_shifted_and_flipped_as_dartss(made, data, flip, shift, moved):
    search = made("darts", data__views__flip=flip, relaxed__shift=shift)
    index = torch.arange(20)
    (views,), labels = search.batch(index, torch.Generator().manual_seed(3))
    g = torch.Generator().manual_seed(3)
    assert torch.equal(views, training_images(data.train[:20], moved, flip, 0, data.mean, data.std, g))
    assert torch.equal(labels, data.train_labels[:20])


def indices_of(search: RelaxedSearch, monkeypatch) -> tuple[list, list]:
    """Run a search; return the image indices of its weight steps and of its alpha steps, epoch by epoch."""
    seen: tuple[list, list] = ([], [])
    step = search.train_step

    def train_step():
        step()
        for found, batches in zip(seen, (search.batches, search.alpha_batches), strict=True):
            if search.step == 0:
                found.append([])
            found[-1] += batches[search.step].tolist()

    monkeypatch.setattr(search, "train_step", train_step)
    run(search)
    return seen


@BOTH
def test_the_halves_do_not_overlap(made, method, monkeypatch):
    """Each epoch shows each image of a half once at most, in another order; labelled halves have each class alike."""
    search = made(method)
    weights, alpha = indices_of(search, monkeypatch)
    halves = [set(half.tolist()) for half in (search.weights_half, search.alpha_half)]
    assert not halves[0] & halves[1] and halves[0] | halves[1] == set(range(160))
    for epochs, half in zip((weights, alpha), halves, strict=True):
        assert len(epochs) == 2 and epochs[0] != epochs[1]
        for indices in epochs:
            assert len(indices) == len(set(indices)) == 20 * search.num_steps and set(indices) <= half
    if method == "darts":
        counts = [torch.bincount(search.data.train_labels[half]) for half in (search.weights_half, search.alpha_half)]
        assert int((counts[0] - counts[1]).abs().max()) <= 1


def test_the_same_set_serves_both_where_it_is_not_split(made, few, monkeypatch):
    search = made(images=few, search__batch_size=6, relaxed__split="same")
    assert search.num_steps == 4
    weights, alpha = indices_of(search, monkeypatch)
    for epochs in (weights, alpha):
        assert all(sorted(indices) == list(range(24)) for indices in epochs)
    assert weights != alpha


@pytest.mark.parametrize("split", ["halves", "same"])
def test_a_search_with_few_labels_sees_these_images_alone(made, data, monkeypatch, split):
    """Four of each class, shared fairly by the halves, the same that a training of that seed has labels of; nothing
    else is looked at, in the end neither.
    """
    search = made("darts", search__batch_size=20, relaxed__labels_per_class=4, relaxed__split=split)
    seen, take = set(), halves_module.take
    watched = lambda images, index, device: seen.update(index.tolist()) or take(images, index, device)  # noqa: E731
    for place in (module, halves_module):
        monkeypatch.setattr(place, "take", watched)
    result, _ = run(search).finish()
    expected = training_subset(data.train_labels, 0.2, 1.0, 4, 0)[0].tolist()
    assert seen <= set(expected) and len(expected) == 40 == result["images"]
    halves = (search.weights_half, search.alpha_half)
    assert sorted(torch.cat(halves).unique().tolist()) == expected
    for half in halves:
        assert set(torch.bincount(data.train_labels[half]).tolist()) == {2 if split == "halves" else 4}
    assert search.num_steps == (1 if split == "halves" else 2)
    other = made("darts", search__batch_size=20, relaxed__labels_per_class=4, seed=1)
    assert set(torch.cat([other.weights_half, other.alpha_half]).tolist()) != set(expected)


def test_more_labels_of_a_class_than_there_are_are_refused(made):
    with pytest.raises(InputError, match=r"labels_per_class is 99, but class '\d' has \d+ training images"):
        made("darts", relaxed__labels_per_class=99)


def test_a_batch_larger_than_a_half_is_refused(made):
    with pytest.raises(InputError, match=r"batch_size 90 is larger than the 80 images that each half"):
        made(search__batch_size=90)
    assert made(search__batch_size=90, relaxed__split="same").num_steps == 1
    with pytest.raises(InputError, match=r"batch_size 161 is larger than the 160 images that the training set"):
        made(search__batch_size=161, relaxed__split="same")


def test_labels_are_asked_for_where_they_are_needed(made, data):
    unlabelled = replace(data, train_labels=None, classes=(), test=None, test_labels=None)
    with pytest.raises(InputError, match="supervised objective needs labels"):
        made("darts", images=unlabelled)
    assert made("ssnas", images=unlabelled).num_steps == 4


@pytest.mark.parametrize("setting", [{}, {"relaxed.init_channels": 2, "relaxed.num_cells": 4}])
def test_the_network_has_the_models_size_or_its_own(made, setting):
    search = made(**{name.replace(".", "__"): value for name, value in setting.items()})
    channels, cells = setting.get("relaxed.init_channels", 4), setting.get("relaxed.num_cells", 3)
    assert search.supernet.num_cells == cells and search.supernet.stem[0][0].out_channels == 3 * channels
    assert search.supernet.alpha.shape == (2, 14, len(FEW))
    assert 0 < float(search.supernet.alpha.detach().abs().max()) < 5e-3


@BOTH
@ORDERS
def test_interrupted_equals_uninterrupted(made, few, method, order, tmp_path):
    """Killed after every step and every epoch's row, and each time taken up by a new search from what a file kept: the
    last one ends bitwise where a search without a kill does.
    """
    small, places = {"search__batch_size": 6, "search__schedule": "step"}, []
    whole = run(made(method, order, few, **small))
    while len(places) < 6:
        torch.manual_seed(len(places))  # which has no say in it
        resumed = made(method, order, few, **small)
        if places:
            resumed.restore(torch.load(tmp_path / "state", weights_only=True))
        progress = next(resumed.advance())
        places.append((progress.epoch, progress.step, progress.row is None))
        torch.save(resumed.state(), tmp_path / "state")
    assert places == [(0, 1, True), (0, 2, True), (0, 2, False), (1, 1, True), (1, 2, True), (1, 2, False)]
    assert next(resumed.advance(), None) is None and resumed.history == whole.history
    assert differing(snapshot(whole), snapshot(resumed)) == set()
    if order == 1:
        (result, weights), (again, other) = whole.finish(), resumed.finish()
        assert again == result and differing(weights, other) == set()


def test_another_seed_is_another_search(made, few):
    one, two, other = (run(made(images=few, search__batch_size=6, seed=seed)) for seed in (0, 0, 1))
    assert differing(snapshot(one), snapshot(two)) == set() and one.history == two.history
    assert {"alpha", "stem.0.0.weight"} <= differing(snapshot(one), snapshot(other))


@BOTH
def test_alpha_steps_lower_the_loss(made, method):
    """Ten steps on one batch, the weights held: its loss falls."""
    search = made(method, relaxed__alpha_lr=0.05, relaxed__alpha_weight_decay=0.0)
    training, validation = begun(search)
    losses = [float(search.alpha_gradient(training, validation)[0])]
    for _ in range(10):
        search.alpha_step(training, validation)
        losses.append(float(search.alpha_gradient(training, validation)[0]))
    assert losses[-1] < losses[0] - 0.01


def test_history_has_a_row_for_each_epoch(made):
    search = run(made())
    assert [row["epoch"] for row in search.history] == [0, 1]
    assert {row["phase"] for row in search.history} == {"relaxed"} and search.describe() == {"phase": "relaxed"}
    last, alpha = search.history[-1], search.supernet.alpha.detach()
    p = alpha.softmax(-1)
    entropies = -(p * p.log()).sum(-1).mean(-1) / math.log(len(FEW))
    assert last["entropy"] == pytest.approx(entropies.tolist(), rel=1e-5)
    assert last["shares"] == pytest.approx(p.mean((0, 1)).tolist(), rel=1e-5)
    assert last["best"] == (alpha[..., 1:].argmax(-1) + 1).tolist()
    assert 0 < last["alpha_loss"] != last["loss"] > 0 and 0 <= last["accuracy"] <= 1


@BOTH
def test_the_result_is_a_genotype_of_the_models_depth(made, method):
    """Searched at three cells, stacked to five; sizes are the final network's."""
    search = run(made(method, relaxed__num_cells=3, relaxed__init_channels=2, model__num_cells=5))
    result, weights = search.finish()
    genotype = Genotype.model_validate(result["genotype"])
    assert genotype == search.supernet.genotype(5) and genotype.num_cells == 5
    assert set(map(str, genotype.cells)) == set(map(str, search.supernet.genotype(3).cells))
    expected = sizes(genotype, 4, 10, 8)
    assert {name: result[name] for name in ("parameters", "multiply_adds")} == {
        name: expected[name] for name in ("parameters", "multiply_adds")
    }
    p = search.supernet.alpha.detach().softmax(-1)
    assert result["mixture"]["candidates"] == list(FEW)
    torch.testing.assert_close(torch.tensor(result["mixture"]["weights"]), p, rtol=0, atol=1e-5)
    assert result["alpha"]["uniform"] == 1 / len(FEW) and result["alpha"]["largest"] == pytest.approx(float(p.max()))
    assert result["architecture_steps"] == [2 * search.num_steps] * 2 and result["images"] == 160
    assert sum(result["operation_counts"].values()) == 40
    assert result["skip_share"] == result["operation_counts"]["skip_connect"] / 40
    assert all(torch.equal(weights[name], t) for name, t in snapshot(search).items() if "running_" not in name)


def test_what_is_kept_makes_the_exported_network(made):
    """Of a search at the model's own size: weights and statistics fit the genotype, as those of a search by paths."""
    search = run(made())
    result, weights = search.finish()
    network = Network(Genotype.model_validate(result["genotype"]), 4, head=search.supernet.head)
    load_concomitant(network, weights)
    kept = {name: t.clone() for name, t in network.state_dict().items() if "running_" in name}
    search._calibrate(network, search._plain_images())
    for name, t in network.state_dict().items():
        if name in kept:
            torch.testing.assert_close(kept[name], t, rtol=1e-4, atol=1e-5)
    judged = search._judge(network)
    assert result["exported"] == pytest.approx(judged, rel=1e-4) and result["supernet"] != result["exported"]
    mixed = search._judge(search.supernet, mixture(search.supernet.alpha.detach()))
    assert result["supernet"] == pytest.approx(mixed, rel=1e-4) and search.supernet.training


def test_a_loss_that_is_not_finite_ends_the_search(made):
    search = made()
    original = search.loss_on
    search.loss_on = lambda *a, **k: (original(*a, **k)[0] * math.nan, {})
    with pytest.raises(RunError, match="alpha_loss became nan in epoch 0 at or shortly before step 0"):
        run(search)


def test_a_search_in_bfloat16(made, few):
    search = run(made(images=few, search__batch_size=6, model__precision="bfloat16"))
    assert all(p.dtype == torch.float32 for p in search.supernet.parameters())
    assert math.isfinite(search.finish()[0]["supernet"]["loss"])
