"""Arms that are compared at one seed share all that their difference does not touch: images, views, weights, heads."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import sswp_lib.learn.halves as halves_module
import sswp_lib.learn.search as search_module
import sswp_lib.learn.train as train_module
from sswp_lib.learn import Search, Training
from sswp_lib.space import Genotype

DARTS = Genotype.published("DARTS_V2", 3)
SHORT = {"search.epochs": 3, "search.batch_size": 20, "search.ratios": (0.3, 0.4, 0.3), "search.alpha_every": 2}


@pytest.fixture
def seen(monkeypatch) -> dict[str, list]:
    """The views and the paths that searches and trainings draw, in order."""
    drawn: dict[str, list] = {"views": [], "paths": [], "pairs": []}

    def spy(module, name, kind, what):
        original = getattr(module, name)

        def draw(*arguments, **named):
            found = original(*arguments, **named)
            drawn[kind].extend(what(found))
            return found

        monkeypatch.setattr(module, name, draw)

    kept = lambda views: [view.clone() for view in views]  # noqa: E731
    spy(halves_module, "several_views", "views", kept)
    spy(train_module, "several_views", "views", kept)
    spy(train_module, "training_images", "views", lambda view: [view.clone()])
    spy(search_module, "sample_paths", "paths", lambda paths: [paths.active])
    spy(search_module, "sample_two_paths", "pairs", lambda paths: [paths.active])
    return drawn


def steps_of(loop, seen: dict[str, list]) -> dict[str, list]:
    """Run the loop to its end; return what it drew."""
    for drawn in seen.values():
        drawn.clear()
    for _ in loop.advance():
        pass
    return {kind: list(drawn) for kind, drawn in seen.items()}


def equal(one: list, two: list) -> bool:
    return len(one) == len(two) > 0 and all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def backbone(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {n: t for n, t in model.state_dict().items() if not n.startswith(("head.", "auxiliary_head."))}


def same(one: dict, two: dict) -> bool:
    return set(one) == set(two) and all(torch.equal(t, two[name]) for name, t in one.items())


@pytest.mark.parametrize(
    "settings",
    [
        {"search.skip_dropout": 0.0},
        {"search.pool_dropout": 0.5},
        {"search.edges": "all"},
        {"search.prune": "backward"},
        {"search.alpha_lr": 0.1},
        {"search.max_skips": None, "search.max_pools": None},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_searches_share_views_batches_and_initial_weights(config, data, seen, settings):
    config = config.changed(**SHORT, **{"search.skip_dropout": 0.2})
    one, two = Search(config, data), Search(config.changed(**settings), data)
    assert same(one.supernet.state_dict(), two.supernet.state_dict())
    first, second = steps_of(one, seen), steps_of(two, seen)
    assert equal(first["views"], second["views"])
    assert equal(first["paths"][:4], second["paths"][:4])  # those of warm-up
    if "dropout" in next(iter(settings)):
        assert not equal(first["paths"], second["paths"])
        assert equal(first["pairs"][:1], second["pairs"][:1])


def test_every_step_draws_views_and_paths_of_its_own(config, data, seen):
    unpruned = {**SHORT, "search.prune": "none", "search.ratios": (0.3, 0.7)}
    drawn = steps_of(Search(config.changed(**unpruned), data), seen)
    for kind, shared in (("views", 2), ("paths", 1), ("pairs", 1)):
        flat = [t.flatten().double() for t in drawn[kind]]
        assert len(flat) >= 3 * shared and len(torch.stack(flat).unique(dim=0)) == len(flat), kind


def test_the_two_views_of_a_step_are_two(config, data, monkeypatch):
    """In the search's weight and architecture steps and in pre-training: of equal views nothing is learnt."""
    views = []
    for loop in (Search(config.changed(**SHORT), data), Training(config.changed(**SIMCLR), data, DARTS)):
        original = loop.objective.forward
        loop.objective.forward = lambda model, given, *rest, original=original: (
            views.append(given) or original(model, given, *rest)
        )
        for _ in loop.advance():
            pass
    assert len(views) > 20 and {len(pair) for pair in views} == {2}
    for one, two in views:
        assert one.shape == two.shape and (one != two).flatten(1).any(1).all()


SIMCLR = {"train.objective": "simclr", "train.labels_per_class": None, "train.validation": 0.0}


def test_objectives_share_the_backbones_initial_weights(config, data):
    searches = {name: Search(config.changed(**{"search.objective": name}), data) for name in ("simclr", "supervised")}
    searches["byol"] = Search(config.changed(**{"search.objective": "byol"}), data)
    one, *others = (backbone(search.supernet) for search in searches.values())
    assert all(same(one, other) for other in others)
    assert same(searches["simclr"].supernet.head.state_dict(), searches["byol"].supernet.head.state_dict())
    trainings = [Training(config.changed(**settings), data, DARTS) for settings in ({}, SIMCLR)]
    assert same(*(backbone(training.network) for training in trainings))


@pytest.mark.parametrize("settings", [{"train.auxiliary": 0.4}, {"train.drop_path": 0.3}, {"train.lr": 0.1}])
def test_trainings_share_views_batches_and_the_whole_network(config, data, seen, settings):
    config = config.changed(**{"train.shift": 1, "train.cutout": 2})
    one, two = Training(config, data, DARTS), Training(config.changed(**settings), data, DARTS)
    assert same(one.network.head.state_dict(), two.network.head.state_dict())
    assert same(backbone(one.network), backbone(two.network))
    assert equal(steps_of(one, seen)["views"], steps_of(two, seen)["views"])


def test_starts_share_the_new_head(config, data):
    """From random weights and from others, of one seed, the classifier begins the same; of another seed, another."""
    start = Training(config.changed(seed=5), data, DARTS)
    one = Training(config, data, DARTS)
    two = Training(config.changed(**{"train.init": "concomitant"}), data, DARTS, start.network.state_dict())
    assert same(one.network.head.state_dict(), two.network.head.state_dict())
    assert same(backbone(two.network), backbone(start.network))
    assert not same(one.network.head.state_dict(), start.network.head.state_dict())


def test_a_search_without_labels_does_not_look_at_them(config, data):
    """Its halves are the same whatever the labels, or without any; a supervised search's halves are stratified."""
    shuffled = replace(data, train_labels=data.train_labels[torch.randperm(160, generator=torch.Generator())])
    unlabelled = replace(data, train_labels=None, test=None, test_labels=None, classes=())
    for objective in ("simclr", "byol"):
        changed = config.changed(**{"search.objective": objective})
        one, *others = (Search(changed, images) for images in (data, shuffled, unlabelled))
        for other in others:
            assert torch.equal(one.weights_half, other.weights_half) and torch.equal(one.alpha_half, other.alpha_half)
    supervised = [Search(config.changed(**{"search.objective": "supervised"}), d) for d in (data, shuffled)]
    for search, labels in zip(supervised, (data.train_labels, shuffled.train_labels), strict=True):
        counts = [torch.bincount(labels[half], minlength=10) for half in (search.weights_half, search.alpha_half)]
        assert ((counts[0] - counts[1]).abs() <= 1).all()
    assert not torch.equal(supervised[0].weights_half, supervised[1].weights_half)
