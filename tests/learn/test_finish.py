"""What a search leaves: which operations, trained how, judged how, and with which statistics of BatchNorm."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import sswp_lib.learn.search as module
from sswp_lib.learn import Search, Training
from sswp_lib.learn.data import generator
from sswp_lib.learn.objectives import build
from sswp_lib.learn.views import normalise, random_views
from sswp_lib.space import CANDIDATES, Genotype, Network, SuperNet, calibrate, derive, load_concomitant

ALL = {"search.edges": "all", "search.alpha_lr": 1e-8}


def run(loop):
    for _ in loop.advance():
        pass
    return loop


def preferring(kind: int, search: Search) -> Search:
    """The search with an alpha that prefers one candidate everywhere, so that the caps have work."""
    with torch.no_grad():
        search.supernet.alpha[..., kind] = 1 + torch.rand(3, 14, generator=torch.Generator().manual_seed(0))
    search._fetch_alpha()
    return search


@pytest.fixture(scope="module")
def whole(config, data):
    """A finished search that keeps 14 edges to the end, its result, its weights."""
    search = run(preferring(0, Search(config.changed(**ALL), data)))
    return search, *search.finish()


def exported(result: dict, weights: dict, head: torch.nn.Module | None = None) -> Network:
    """Return the exported network as whoever has result and weights makes it."""
    network = Network(Genotype.model_validate(result["genotype"]), 4, head=head)
    load_concomitant(network, weights)
    return network.eval()


def statistics(network: Network) -> dict[str, torch.Tensor]:
    return {name: t.clone() for name, t in network.state_dict().items() if "running_" in name}


def close(one: dict, two: dict) -> bool:
    assert set(one) == set(two)
    return all(torch.allclose(one[name], two[name], rtol=1e-4, atol=1e-5) for name in one)


def fixed_batches(search: Search, purpose: str, count: int) -> list[torch.Tensor]:
    """Return the batches that a search is judged on: of the half that alpha has learnt from, in a fixed order."""
    g = generator(search.config.seed, purpose)
    order = search.alpha_half[torch.randperm(len(search.alpha_half), generator=g)]
    return [batch for batch in order.split(search.settings.batch_size) if len(batch) == 16][:count]


def two_views(search: Search, index: torch.Tensor, g: torch.Generator) -> list[torch.Tensor]:
    data = search.data
    return [random_views(data.train[index], search.config.data.views, data.mean, data.std, g) for _ in range(2)]


def test_kept_weights_have_the_exported_networks_statistics_of_plain_images(whole):
    search, result, weights = whole
    network = exported(result, weights)
    kept = statistics(network)
    batches = fixed_batches(search, "calibration", search.settings.calibration_batches)
    assert len(batches) == 2
    calibrate(network, [normalise(search.data.train[index], search.data.mean, search.data.std) for index in batches])
    assert close(kept, statistics(network))
    calibrate(network, [torch.cat(two_views(search, b, generator(0, "calibration", i))) for i, b in enumerate(batches)])
    assert not close(kept, statistics(network))


def test_a_probe_from_the_weights_is_a_probe_from_the_export(whole, config, data):
    """Features of the 14-edge supernet's statistics are not those of the network that is probed."""
    search, result, weights = whole
    probe = config.changed(**{"train.init": "concomitant", "train.freeze": "backbone", "train.lr": 0.1})
    network = exported(result, weights)
    calibrate(network, search._plain_images())
    genotype = Genotype.model_validate(result["genotype"])
    one, two = (run(Training(probe, data, genotype, start)) for start in (weights, network.state_dict()))
    torch.testing.assert_close(one.network.head.weight, two.network.head.weight, rtol=1e-3, atol=1e-5)
    assert one.finish()[0]["test"] == two.finish()[0]["test"]


def judged_by_hand(search: Search, model: torch.nn.Module, *extra) -> dict[str, float]:
    """Return loss and accuracy in evaluation mode on views, with statistics of views; all written out."""
    batches = fixed_batches(search, "calibration", search.settings.calibration_batches)
    views = [torch.cat(two_views(search, b, generator(0, "calibration", i))) for i, b in enumerate(batches)]
    calibrate(model, views, lambda x: model(x, *extra))
    objective = build("simclr", search.config, search.settings.temperature)
    model.eval()
    seen = []
    with torch.no_grad():
        for i, index in enumerate(fixed_batches(search, "evaluation", 10)):
            views = two_views(search, index, generator(0, "evaluation", i))
            loss, metrics = objective(lambda x: model(x, *extra), views, None)
            seen.append((float(loss), float(metrics["accuracy"])))
    assert len(seen) == 5
    return {"loss": sum(loss for loss, _ in seen) / 5, "accuracy": sum(right for _, right in seen) / 5}


def test_the_gap_is_measured_on_views_with_statistics_of_views(whole):
    """Supernet and exported network alike, in evaluation mode, on the half of the images that alpha has learnt from."""
    search, result, weights = whole
    network = exported(result, weights, copy.deepcopy(search.supernet.head))
    found = judged_by_hand(search, network)
    assert result["exported"] == pytest.approx(found, rel=1e-4)
    supernet = copy.deepcopy(search.supernet)
    assert result["supernet"] == pytest.approx(judged_by_hand(search, supernet, supernet.kept_paths()), rel=1e-4)
    assert result["supernet"] != result["exported"]


def test_byol_is_judged_as_simclr_is(config, data):
    """Its own loss needs a target, which the exported network has not."""
    search = run(preferring(0, Search(config.changed(**ALL, **{"search.objective": "byol"}), data)))
    result, weights = search.finish()
    network = exported(result, weights, copy.deepcopy(search.supernet.head))
    assert result["exported"] == pytest.approx(judged_by_hand(search, network), rel=1e-4)


def test_a_supervised_search_is_judged_on_labelled_views(config, data):
    search = run(Search(config.changed(**{"search.objective": "supervised"}), data))
    result, _ = search.finish()
    network, right, losses = search.export(), [], []
    view = lambda index, *purpose: random_views(  # noqa: E731
        data.train[index], search.config.data.views, data.mean, data.std, generator(0, *purpose)
    )
    batches = fixed_batches(search, "calibration", 2)
    calibrate(network, [view(index, "calibration", i) for i, index in enumerate(batches)])
    with torch.no_grad():
        for i, index in enumerate(fixed_batches(search, "evaluation", 10)):
            scores, labels = network.eval()(view(index, "evaluation", i)), data.train_labels[index]
            losses.append(torch.nn.functional.cross_entropy(scores, labels))
            right.append((scores.argmax(1) == labels).float().mean())
    expected = {"loss": float(torch.stack(losses).mean()), "accuracy": float(torch.stack(right).mean())}
    assert result["exported"] == result["supernet"] == pytest.approx(expected, rel=1e-4)


def test_judging_leaves_the_mode_of_the_supernet(whole):
    search, _, _ = whole
    assert search.supernet.training


@pytest.mark.parametrize(("kind", "caps"), [(0, (2, 2)), (1, (0, 0)), (0, (None, None))])
def test_no_exported_operation_is_untrained(config, data, monkeypatch, kind, caps):
    """Whatever the caps do: each exported convolution has learnt before its cell was pruned or since, up to the end.

    Without caps what is exported is the paper's: each kept edge has its best operation.
    """
    settings = {**ALL, "search.max_skips": caps[0], "search.max_pools": caps[1]}
    search, pruned = preferring(kind, Search(config.changed(**settings), data)), {}
    prune = search.prune
    monkeypatch.setattr(search, "prune", lambda cell: (prune(cell), pruned.update(copy.deepcopy(own(search, cell)))))
    result, weights = run(search).finish()
    genotype = Genotype.model_validate(result["genotype"])
    alpha = search.supernet.alpha.detach()
    assert genotype == derive(alpha, *caps)
    operations = {name: t for name, t in Network(genotype, 4).state_dict().items() if ".edges." in name}
    convolutions = [name for name, t in operations.items() if t.dim() == 4]
    assert len(convolutions) > (0 if caps == (None, None) else 20)
    assert [name for name in convolutions if torch.equal(weights[name], pruned[name])] == []
    if caps == (None, None):
        best = alpha.argmax(-1)
        assert all(
            name == CANDIDATES[int(best[cell, edge])]
            for cell in range(3)
            for edge, name in genotype.edges(cell).items()
        )
    assert result["changed_by_caps"] == {(2, 2): 18, (0, 0): 24, (None, None): 0}[caps]


def own(search: Search, cell: int) -> dict[str, torch.Tensor]:
    return {name: t for name, t in search.supernet.state_dict().items() if name.startswith(f"cells.{cell}.")}


def test_sizes_are_those_of_the_classifiers_network(whole, data):
    """Parameters and multiply-adds of one network: the genotype's, with a classifier for the data's classes."""
    _, result, _ = whole
    network = Network(Genotype.model_validate(result["genotype"]), 4, len(data.classes)).eval().to("meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 3, 8, 8, device="meta"))  # where maps are never computed as matrices
    assert result["multiply_adds"] == counter.get_total_flops() // 2
    assert result["parameters"] == sum(p.numel() for p in network.parameters())


def test_without_classes_sizes_are_those_of_two(config, data):
    unlabelled = replace(data, train_labels=None, classes=(), test=None, test_labels=None)
    search = Search(config, unlabelled)
    result, _ = search.finish()
    expected = Network(search.export().genotype, 4, 2)
    assert result["parameters"] == sum(p.numel() for p in expected.parameters())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_steps_calibration_and_evaluation_share_one_precision(config, data, monkeypatch, precision):
    """Statistics of one precision do not fit activations of another."""
    seen: dict[str, set] = {}

    def spy(kind, name):
        original = getattr(kind, name)

        def forward(self, *arguments):
            when = "step" if torch.is_grad_enabled() else "training" if self.training else "evaluation"
            context = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
            if len(arguments[0]) > 1:  # one image: its multiply-adds are counted
                seen.setdefault(f"{kind.__name__} {name} {when}", set()).add(context)
            return original(self, *arguments)

        monkeypatch.setattr(kind, name, forward)

    for kind, name in ((SuperNet, "forward"), (Network, "forward"), (Network, "forward_train")):
        spy(kind, name)
    config = config.changed(**{"model.precision": precision, "train.calibrate": True})
    run(Search(config, data)).finish()
    run(Training(config, data, Genotype.published("DARTS_V2", 3))).finish()
    kinds = {"SuperNet forward": ("step", "training", "evaluation"), "Network forward": ("training", "evaluation")}
    names = {f"{model} {when}" for model, times in kinds.items() for when in times} | {"Network forward_train step"}
    assert set(seen) == names
    assert set().union(*seen.values()) == {getattr(torch, precision)}


def test_the_result_says_how_often_alpha_was_stepped(config, data, monkeypatch):
    """For each cell: the architecture steps before it was pruned, counted as they are taken."""
    for settings in ({}, {"search.prune": "backward", "search.alpha_every": 3}):
        search, counts = Search(config.changed(**settings), data), [0, 0, 0]
        draw = module.sample_two_paths

        def sample(*arguments, draw=draw, counts=counts):
            paths = draw(*arguments)
            for cell, row in enumerate(paths.inactive.tolist()):
                counts[cell] += row[0] >= 0
            return paths

        with monkeypatch.context() as patched:
            patched.setattr(module, "sample_two_paths", sample)
            result, _ = run(search).finish()
        assert result["architecture_steps"] == counts and min(counts) > 0
        assert result["alpha"]["uniform"] == pytest.approx(1 / 7)
        p = search.supernet.alpha.detach().softmax(-1)
        assert result["alpha"]["largest"] == pytest.approx(float(p.max()), rel=1e-5)
        assert result["alpha"]["best"] == pytest.approx(float(p.amax(-1).mean()), rel=1e-5)
        entropy = -(p * p.log()).sum(-1).mean() / torch.tensor(7.0).log()
        assert result["alpha"]["entropy"] == pytest.approx(float(entropy), rel=1e-4)
