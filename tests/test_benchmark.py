"""The benchmark's reference computes what the library computes, or comparing their speed would mean nothing."""

import functools
import sys
from pathlib import Path

import pytest
import torch

import sswp_lib.learn.relaxed
from sswp_lib.learn.data import load
from sswp_lib.learn.measure import parameters
from sswp_lib.learn.train import Training
from sswp_lib.presets import load_config
from sswp_lib.space import Genotype, MixedNet

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import latency
import messages
import mixture
import ranking
import relaxed
from mixture_reference import LeanMixtureSteps, MixtureSteps, Nothing
from reference import LeanSteps, ReferenceNet, ReferenceSteps
from step import CompactSteps, LibrarySteps, agreement, table, with_ratio


@pytest.mark.parametrize("num_cells", [2, 3])
def test_reference_computes_the_same(num_cells):
    output, gradient = agreement(4, num_cells, num_views=6, image_size=16)
    assert output < 1e-4
    assert gradient < 1e-3


@pytest.mark.parametrize("steps", [LibrarySteps, ReferenceSteps, LeanSteps])
def test_steps_change_what_they_should(steps):
    torch.manual_seed(0)
    side = steps(2, 2, torch.randn(8, 3, 16, 16))
    alphas = getattr(side, "alphas", None) or [side.net.alpha]
    weights_before, alphas_before = [w.detach().clone() for w in side.weights], [a.detach().clone() for a in alphas]
    side.weight_step()
    assert any(not torch.equal(w, old) for w, old in zip(side.weights, weights_before, strict=True))
    assert all(torch.equal(a, old) for a, old in zip(alphas, alphas_before, strict=True))
    weights_before = [w.detach().clone() for w in side.weights]
    side.alpha_step()
    assert all(torch.equal(w, old) for w, old in zip(side.weights, weights_before, strict=True))
    assert any(not torch.equal(a, old) for a, old in zip(alphas, alphas_before, strict=True))


def ran_and_learnt(side, step) -> tuple[int, int]:
    """Return how many operations of edges ran in a step, and in how many weights a gradient arrived."""
    ran, given = [], []
    handles = [
        operation.register_forward_hook(lambda *_: ran.append(1))
        for edge in side.net.edges()
        for operation in edge.operations
    ]
    hooks = [weight.register_post_accumulate_grad_hook(lambda *_: given.append(1)) for weight in side.weights]
    step(side)
    for handle in [*handles, *hooks]:
        handle.remove()
    return len(ran), len(given)


def test_lean_reference_does_only_what_the_method_asks_for():
    torch.manual_seed(0)
    x = torch.randn(8, 3, 16, 16)
    plain, lean = ReferenceSteps(2, 2, x), LeanSteps(2, 2, x)
    steps = {"weights": lambda side: side.weight_step(), "alpha": lambda side: side.alpha_step()}
    found = {(side, name): ran_and_learnt(side, step) for side in (plain, lean) for name, step in steps.items()}
    assert [found[plain, name][0] for name in steps] == [2 * 28, 2 * 28]
    assert [found[lean, name][0] for name in steps] == [28, 2 * 28]
    assert found[plain, "alpha"][1] > 0 == found[lean, "alpha"][1]
    assert found[lean, "weights"][1] > 0 and all(weight.requires_grad for weight in lean.weights)


def test_lean_reference_computes_the_same():
    """The output without the inactive operation, and the gates' gradients without those of the weights."""
    torch.manual_seed(0)
    net, x = ReferenceNet(2, 2).double(), torch.randn(4, 3, 16, 16, dtype=torch.float64)
    for edge in net.edges():
        edge.draw()
    expected = net(x)
    gates = [edge.gates for edge in net.edges()]
    wanted = torch.autograd.grad(expected.square().sum(), gates, retain_graph=True)
    for weight in net.weight_parameters():
        weight.requires_grad_(False)
    torch.testing.assert_close(torch.autograd.grad(net(x).square().sum(), gates), wanted)
    for edge in net.edges():
        edge.both_run = False
    assert torch.equal(net(x), expected)


def test_compact_network_learns_the_same_task():
    torch.manual_seed(0)
    side = CompactSteps(2, 3, torch.randn(8, 3, 16, 16))
    losses = [side.weight_step() for _ in range(8)]
    assert min(losses[1:]) < losses[0]


def test_ratio_above_one_means_the_library_does_better():
    time, rate, alone = (
        {"what": "a", "unit": "s", "library": 1.0, "reference": 3.0, "lean": 2.0},
        {"what": "b", "unit": "views/s", "library": 300.0, "reference": 100.0},
        {"what": "c", "unit": "s", "library": 1.0},
    )
    assert (with_ratio(time)["reference ratio"], with_ratio(time)["lean ratio"]) == pytest.approx((3.0, 2.0))
    assert with_ratio(rate)["reference ratio"] == pytest.approx(3.0) and "lean ratio" not in with_ratio(rate)
    assert with_ratio(alone) == alone
    lines = table([with_ratio(time), with_ratio(rate), with_ratio(alone)]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[0].split() == ["what", "unit", "library", "reference", "ratio", "lean", "reference", "ratio"]
    assert lines[1].split() == ["a", "s", "1.000", "3.000", "3.000", "2.000", "2.000"]


def test_relaxed_steps_are_measured_beside_those_by_paths(monkeypatch):
    few = functools.partial(MixedNet, candidates=("none", "sep_conv_3x3"))
    monkeypatch.setattr(sswp_lib.learn.relaxed, "MixedNet", few)
    sides = relaxed.sides_at((2, 3, 8), "smoke", torch.device("cpu"))
    assert list(sides) == ["sswp", "ssnas, order 1", "ssnas, order 2", "darts, order 1", "darts, order 2"]
    both = {side: steps for side, steps in sides.items() if side.startswith("darts")}
    rows = relaxed.measured(both, 1, torch.device("cpu"))
    assert [row["what"] for row in rows] == [
        f"darts, order {i}, {step}" for i in (1, 2) for step in ("weights", "alpha")
    ]
    found = relaxed.ratios(rows, "darts")
    assert found["alpha step, time"] > 2 and found["alpha step, memory"] > 1 and found["iteration, time"] > 1


CPU, SMALL = torch.device("cpu"), (4, 3, 6)


@pytest.mark.parametrize("dtype", mixture.TOLERANCE)
def test_reference_of_the_mixture_computes_the_same(dtype, monkeypatch):
    assert max(mixture.agreement(SMALL, dtype, CPU, image_size=16).values()) < mixture.TOLERANCE[dtype]
    monkeypatch.setattr(Nothing, "forward", lambda self, x: x[:, :, :: self.stride, :: self.stride])
    assert min(mixture.agreement(SMALL, dtype, CPU, image_size=16).values()) > mixture.TOLERANCE[dtype]


def test_steps_on_the_mixture_change_what_they_should():
    search = mixture.search_at(SMALL, CPU, image_size=16)
    batches = mixture.batches_of(search)
    for kind, in_alpha_steps in ((MixtureSteps, True), (LeanMixtureSteps, False)):
        side = mixture.reference_of(search, *batches, kind)
        for step, changed in (("alpha", ["alpha"]), ("weight", ["weights"])):
            before = {"alpha": side.net.alpha.clone(), "weights": side.weights[-1].clone()}
            getattr(side, f"{step}_step")()
            after = {"alpha": side.net.alpha, "weights": side.weights[-1]}
            assert [name for name in before if not torch.equal(before[name], after[name])] == changed
            assert (side.weights[0].grad is not None) == (in_alpha_steps or step == "weight")


def test_sides_of_the_mixture_take_turns():
    """And a ratio is the median of those of single turns."""
    ran = []
    sides = {side: {step: functools.partial(ran.append, (step, side)) for step in mixture.STEPS} for side in "ab"}
    times = mixture.timed(sides, 2, CPU)
    assert ran == [(step, side) for step in mixture.STEPS for side in "ab"] * (2 + mixture.WARM_UP)
    assert all(len(own) == 2 for steps in times.values() for own in steps.values())
    assert times["a"]["iteration"] == [
        sum(both) for both in zip(*(times["a"][step] for step in mixture.STEPS), strict=True)
    ]
    assert mixture.ratio([2.0, 6.0, 4.0], [1.0, 2.0, 8.0]) == 2
    assert mixture.ratio([3.0, 1.0, 2.0], [1.0, 2.0, 3.0]) == pytest.approx(2 / 3)  # 1 of the medians


def test_scores_are_timed_of_different_architectures(monkeypatch):
    config = load_config("smoke", study="one_shot").changed(
        **{"ranking.calibration_images": 20, "ranking.calibration_batch": 10}
    )
    ranker, seen = ranking.ranker_of(config, 100, CPU), []
    assert (sum(map(len, ranker.calibration)), len(ranker.labels)) == (20, 20)
    assert ranker.score(ranking.drawn(1)[0]) in [5 * right for right in range(21)]
    monkeypatch.setattr(ranker, "score", seen.append)
    assert len(ranking.timed(ranker, 5)) == 5
    assert len(set(seen)) == 5 and seen[ranking.WARM_UP :] == ranking.drawn(5)


@pytest.mark.parametrize(("make", "published"), [(latency.resnet, 11_689_512), (latency.mobilenet, 2_542_856)])
def test_networks_made_by_hand_are_torchvisions(make, published):
    assert parameters(make(1000, 224)) == published
    network, images = make(10, 8).eval(), torch.randn(2, 3, 8, 8)
    assert network(images).shape == (2, 10) and network.body(images).shape == (2, network.num_features)


def test_small_images_are_not_made_smaller_at_once():
    """ResNet-18 halves them three times, not five times; MobileNetV3-small four times, not five."""
    last = {make: [] for make in latency.BY_HAND.values()}
    for make, seen in last.items():
        for size in (32, 64):
            network = make(10, size).eval()
            layer = network.body.layer4 if make is latency.resnet else network.body.features
            layer.register_forward_hook(lambda _, __, output, seen=seen: seen.append(output.shape[-1]))
            network(torch.randn(1, 3, size, size))
    assert list(last.values()) == [[2, 2], [4, 2]]


def test_each_network_is_tested_at_the_rate_that_is_best_for_it_on_held_out_images():
    class Given:
        def __init__(self, validation, test):
            self.config, self.network = load_config("smoke"), latency.mobilenet(10, 8)
            self.result = {"calibrated": {"validation": {"top1": validation}, "test": {"top1": test}}}

        def advance(self):
            return iter(())

        def finish(self):
            return self.result, {}

    best = latency.best("a", {0.1: Given(50.0, 90.0), 0.01: Given(60.0, 70.0), 1.0: Given(10.0, 99.0)})
    (row,) = latency.measured([best])
    assert (row.lr, row.validation, row.test) == (0.01, 60.0, 70.0) and min(row.torch_ms, row.onnx_ms) > 0


def test_all_sides_train_on_the_same_images_for_as_many_steps():
    config = latency.configuration(load_config("smoke").changed(**{"train.init": "concomitant"}), 2)
    data, genotype = load(config.data), Genotype.published("DARTS_V2", config.model.num_cells)
    own, given = Training(config, data, genotype), latency.TrainingOf(latency.mobilenet, config, data)
    assert torch.equal(own.train_index, given.train_index) and len(own.validation_index)
    assert (own.num_steps, own.num_epochs) == (given.num_steps, 2) and type(given.network) is latency.Known


def test_messages_are_told_apart_and_are_a_part_of_the_step():
    words = ["--channels", "2", "--cells", "2", "--batch", "8", "--pixels", "8", "--steps", "2"]
    for name, took in messages.run(2, words).items():
        assert took["step"] > took["gradients"] + took["others"] and min(took.values()) > 0, name
    assert all(set(took) == {"step"} for took in messages.run(1, words).values())
