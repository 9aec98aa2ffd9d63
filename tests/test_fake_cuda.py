"""The loops on a graphics card, without one: on a `fake_card` operands on two devices and needless waits show."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest
import torch
from fake_card import fake_card
from toy_space import ARMS

import sswp_lib.learn.footprint as footprint
import sswp_lib.learn.relaxed as relaxed
from sswp_lib.learn import OneShot, RelaxedSearch, Search, Training, loop
from sswp_lib.learn.ranking import LinearEvaluation, Ranker
from sswp_lib.methods import RELAXED
from sswp_lib.space import Genotype, MixedNet, SuperNet

DARTS = Genotype.published("DARTS_V2", 2)
SETTINGS = {  # few operations: each costs a fake card a hundred times what it costs a CPU
    "model.num_cells": 2, "model.init_channels": 2, "model.projection_dim": 4,
    "data.views.flip": True, "data.views.jitter_p": 0.5, "data.views.grey_p": 0.5, "data.views.blur_p": 0.5,
    "data.views.shift": 1, "train.shift": 1, "train.cutout": 2, "search.batch_size": 70, "search.epochs": 3,
    "search.ratios": (0.3, 0.4, 0.3), "search.alpha_every": 1, "train.epochs": 2, "train.batch_size": 100,
    "train.labels_per_class": None,
}  # fmt: skip
READ = "aten._to_copy.default"


@pytest.fixture
def card():
    try:
        with fake_card():
            probe = torch.ones(2, 3, 4, 4, device="cuda", requires_grad=True)
            torch.nn.functional.conv2d(probe, torch.ones(5, 3, 3, 3, device="cuda")).sum().backward()
            assert probe.grad.device.type == "cuda"
    except (RuntimeError, AttributeError, TypeError) as error:
        pytest.skip(f"this torch, {torch.__version__}, has no fake tensors of a card without one: {error}")
    with fake_card() as card:
        yield card


def on_card(data, labels: bool = True):
    """The data on the card; images and labels stay in main memory where `labels` is false, as those of a large set."""
    names = ("train", "train_labels", "test", "test_labels", "mean", "std") if labels else ("mean", "std")
    return replace(data, **{name: getattr(data, name).to("cuda") for name in names})


def run(training):
    for _ in training.advance():
        pass
    return training.finish()


def on_cpu(weights: dict[str, torch.Tensor]) -> bool:
    return all(t.device.type == "cpu" and not hasattr(t, "fake_mode") for t in weights.values())


@pytest.mark.parametrize(
    ("objective", "precision"),
    [("simclr", "float32"), ("simclr", "bfloat16"), ("supervised", "bfloat16"), ("byol", "float32")],
)
def test_a_whole_search(config, data, card, objective, precision):
    """Steps, pruning, an interruption in between, calibration and evaluation."""
    settings = {"search.objective": objective, "model.precision": precision, "search.edges": "all"}
    search = Search(config.changed(**SETTINGS, **settings), on_card(data), "cuda")
    steps_of(search, 3)
    search.restore(search.state())
    result, weights = run(search)
    assert {p.device.type for p in search.supernet.parameters()} == {"cuda"}
    assert {p.dtype for p in search.supernet.parameters()} == {torch.float32}
    assert {t.device.type for s in search.optimizer.state.values() for t in s.values()} == {"cuda"}
    assert {k: t.device.type for k, t in search.alpha_optimizer.state[search.supernet.alpha].items()} == {
        "step": "cpu", "exp_avg": "cuda", "exp_avg_sq": "cuda",
    }  # fmt: skip
    assert search.supernet.present.device.type == search.alpha_on_host.device.type == "cpu"
    assert on_cpu(weights) and result["architecture_steps"] == [1, 1]


def relaxed_search(config, data, monkeypatch, method: str, **settings) -> RelaxedSearch:
    """A search in three cells with two candidates; on a fake card eight would take long."""
    few = functools.partial(MixedNet, candidates=("none", "sep_conv_3x3"))
    monkeypatch.setattr(relaxed, "MixedNet", few)
    own = {"search.method": method, "search.objective": RELAXED[method], "relaxed.num_cells": 3, "search.epochs": 2}
    return RelaxedSearch(config.changed(**SETTINGS | own | settings), on_card(data), "cuda")


@pytest.mark.parametrize(
    ("method", "settings"), [("ssnas", {"model.precision": "bfloat16"}), ("darts", {"relaxed.order": 2})]
)
def test_a_whole_relaxed_search(config, data, card, monkeypatch, method, settings):
    search = relaxed_search(config, data, monkeypatch, method, **settings)
    steps_of(search, 1)
    search.restore(search.state())
    result, weights = run(search)
    assert {p.device.type for p in search.supernet.parameters()} == {"cuda"}
    assert {t.device.type for s in search.optimizer.state.values() for t in s.values()} == {"cuda"}
    assert on_cpu(weights) and len(result["genotype"]["cells"]) == 2


def test_a_relaxed_search_waits_for_nothing(config, data, card, monkeypatch):
    """Alpha never leaves the card within an epoch; losses are looked at now and then."""
    monkeypatch.setattr(loop, "CHECK_EVERY", 6)
    search = relaxed_search(config, data, monkeypatch, "ssnas", **{"relaxed.order": 2, "search.batch_size": 20})
    for expected in (0, 1):  # three numbers an iteration
        card.waits.clear()
        steps_of(search, 1)
        assert card.waits == [READ] * expected


@pytest.mark.parametrize(
    ("settings", "precision"),
    [
        ({"train.auxiliary": 0.4, "train.drop_path": 0.3, "train.calibrate": True}, "float32"),
        ({"train.auxiliary": 0.4, "train.drop_path": 0.3, "train.evaluate_every": 1}, "bfloat16"),
        ({"train.objective": "simclr", "train.validation": 0.0, "train.calibrate": True}, "bfloat16"),
        ({"train.init": "concomitant", "train.freeze": "backbone"}, "float32"),
    ],
    ids=["supervised", "supervised-bfloat16", "pre-training", "probe"],
)
def test_a_whole_training(config, data, card, settings, precision):
    start = SuperNet(2, 2).state_dict() if "train.init" in settings else None
    config = config.changed(**SETTINGS, **settings, **{"model.precision": precision})
    training = Training(config, on_card(data), DARTS, start, "cuda")
    steps_of(training, 1)
    training.restore(training.state())
    result, weights = run(training)
    assert on_cpu(weights) and result["steps"] == 2
    assert {p.device.type for p in training.network.parameters()} == {"cuda"}


@pytest.mark.parametrize(
    ("arm", "precision"),
    [("Pi-NAS", "bfloat16"), ("no teacher", "float32"), ("no negatives", "float32"), ("SPOS", "bfloat16")],
)
def test_one_shot_training_and_a_ranking_by_it(toy, data, card, arm, precision):
    """Steps, an interruption in between, what it ends with; then the shared classifier, scores, and likeness. Images in
    main memory too.
    """
    settings = {"model.precision": precision, "one_shot.epochs": 1, "ranking.linear_epochs": 1}
    config = toy.changed(**settings | ARMS[arm])
    for images in (on_card(data), on_card(data, labels=False)):
        loop = OneShot(config, images, "cuda")
        steps_of(loop, 2)
        loop.restore(loop.state())
        assert on_cpu(run(loop)[1])
        everything = [*loop.supernet.parameters(), *loop.objective.parameters(), *loop.objective.buffers()]
        assert {(t.device.type, t.dtype) for t in everything} == {("cuda", torch.float32)}
        evaluation = LinearEvaluation(config, images, loop.supernet, "cuda")
        steps_of(evaluation, 1)
        evaluation.restore(evaluation.state())
        assert on_cpu(run(evaluation)[1])
        ranker = Ranker(config, images, loop.supernet, evaluation.classifier, "cuda")
        choices = loop.space.draw_two(torch.Generator())
        assert ranker.score(choices[0]) >= 0
        assert ranker.features(choices).device.type == "cpu"


def test_images_in_main_memory(config, data, card):
    """A set too large for the card: its batches go there, one after another."""
    images = on_card(data, labels=False)
    config = config.changed(**SETTINGS, **{"search.objective": "supervised", "train.calibrate": True})
    assert on_cpu(run(Search(config, images, "cuda"))[1])
    assert on_cpu(run(Training(config, images, DARTS, device="cuda"))[1])


def test_memory_of_steps(config, card, monkeypatch):
    monkeypatch.setattr(footprint, "peak_memory", lambda step, device: step() or 1)
    found = footprint.step_memory(config.changed(**SETTINGS), batch_size=2, device="cuda", draws=1)["bytes"]
    assert set(found.values()) == {1}


def steps_of(loop, count: int) -> list:
    """Do some steps of the loop, as it does them."""
    going = loop.advance()
    return [next(going) for _ in range(count)]


def test_a_search_waits_for_alpha_alone(config, data, card, monkeypatch):
    """A weight step asks for no value of the card; an architecture step for alpha, once. Losses are looked at now and
    then.
    """
    monkeypatch.setattr(loop, "CHECK_EVERY", 5)
    settings = {"search.batch_size": 16, "search.epochs": 8, "search.ratios": (0.0, 0.5, 0.5), "search.alpha_every": 2}
    search = Search(config.changed(**SETTINGS | settings), on_card(data), "cuda")
    for expected in (0, 1 + 1, 0, 1 + 1):  # the second and fourth have an architecture step, and a fifth number noted
        card.waits.clear()
        steps_of(search, 1)
        assert card.waits == [READ] * expected


def test_a_training_waits_for_losses_alone(config, data, card, monkeypatch):
    monkeypatch.setattr(loop, "CHECK_EVERY", 4)
    settings = {"train.auxiliary": 0.4, "train.drop_path": 0.3, "train.batch_size": 8}
    training = Training(config.changed(**SETTINGS | settings), on_card(data), DARTS, device="cuda")
    training.epoch = 1  # drop-path is at its rate
    for expected in (0, 1, 0, 1):
        card.waits.clear()
        steps_of(training, 1)
        assert card.waits == [READ] * expected


@pytest.mark.parametrize("arm", ARMS.values(), ids=ARMS)
def test_one_shot_training_waits_for_losses_alone(toy, data, card, monkeypatch, arm):
    """Three numbers a step are noted, two of SPOS; they are looked at every third step."""
    noted = 2 if "one_shot.objective" in arm else 3
    monkeypatch.setattr(loop, "CHECK_EVERY", 3 * noted)
    training = OneShot(toy.changed(**arm), on_card(data), "cuda")
    for expected in (0, 0, 1):
        card.waits.clear()
        steps_of(training, 1)
        assert card.waits == [READ] * expected


def test_little_is_sent_to_the_card(config, data, card):
    """Parameters of views and of paths, not grids or images: at the most 20 numbers for an image and view."""
    search = Search(config.changed(**SETTINGS), on_card(data), "cuda")
    card.sent = 0
    steps_of(search, 1)
    assert 0 < card.sent < 20 * 2 * 80
