"""One test for each trap that published implementations of the method fall into; the careful behaviour is what is
claimed.

Left to `tests/lab`: configuration and weights are read without executing anything, and an interrupted run equals an
uninterrupted one
from its files on.
"""

from __future__ import annotations

import copy
import time
from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sswp_lib.config import InputError, Views
from sswp_lib.config import Search as Settings
from sswp_lib.learn import Search, Training, pruning_epochs
from sswp_lib.learn.measure import peak_memory
from sswp_lib.learn.views import normalise, random_views
from sswp_lib.presets import load_config
from sswp_lib.space import (
    Genotype,
    Network,
    Paths,
    SuperNet,
    calibrate,
    load_concomitant,
    sample_paths,
    sample_two_paths,
)

DARTS = Genotype.published("DARTS_V2", 3)


def run(loop):
    for _ in loop.advance():
        pass
    return loop


def alpha_gradient(supernet: SuperNet, x: torch.Tensor, paths: Paths) -> torch.Tensor:
    return torch.autograd.grad(supernet(x, paths).square().sum(), supernet.alpha)[0]


def flops(call) -> int:
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def test_gradients_of_the_gates_do_not_leak_from_weight_steps(supernet, images, g):
    """An architecture step's gradient is the same with and without weight steps before it; those leave none on
    alpha.
    """
    draw = lambda: sample_two_paths(supernet.alpha, supernet.present, torch.Generator().manual_seed(1))  # noqa: E731
    expected = alpha_gradient(supernet, images, draw())
    for _ in range(3):
        supernet(images, sample_paths(supernet.alpha, supernet.present, g)).square().sum().backward()
    assert supernet.alpha.grad is None
    assert torch.equal(alpha_gradient(supernet, images, draw()), expected)


def test_weight_steps_run_only_the_active_operation(supernet, images):
    """With 3x3 separable convolutions everywhere, the edges of a weight step cost half of what an architecture step's
    two candidates cost.
    """
    every = lambda k: torch.full((3, 14), k)  # noqa: E731
    pools, one, two = (
        Paths(every(1)),
        Paths(every(3)),
        Paths(every(3), every(3), torch.ones(3, 14, dtype=torch.float64)),
    )
    with torch.no_grad():
        base, once, twice = (
            flops(lambda paths=paths: supernet(images, paths)) for paths in (pools, one, two)
        )  # a pool multiplies nothing
    assert 0 < once - base == (twice - base) / 2


def test_a_frozen_edge_runs_only_the_kept_operation():
    """Work, time and memory of an architecture step fall once cells are pruned."""
    torch.manual_seed(0)
    supernet, x = SuperNet(16, 4), torch.randn(32, 3, 16, 16)
    with torch.no_grad():
        supernet.alpha[..., 3] = 0.1  # a 3x3 separable convolution is kept everywhere

    def forward(supernet=supernet):
        paths = sample_two_paths(supernet.alpha, supernet.present, torch.Generator().manual_seed(0))
        searching = paths.inactive >= 0
        return supernet(x, Paths(torch.where(searching, 3, paths.active), torch.where(searching, 4, -1), paths.gates))

    def seconds(supernet: SuperNet) -> float:
        start = time.thread_time()
        forward(supernet)
        return time.thread_time() - start

    step = lambda: forward().square().sum().backward()  # noqa: E731
    step()
    supernet.zero_grad(set_to_none=True)
    work, memory, whole = flops(forward), peak_memory(step), copy.deepcopy(supernet)
    for cell in range(4):
        supernet.prune(cell, "all")
    supernet.zero_grad(set_to_none=True)
    assert flops(forward) < 0.8 * work
    taken = [(seconds(supernet), seconds(whole)) for _ in range(7)]  # in turn: a busy machine slows both alike
    assert min(pruned for pruned, _ in taken) < min(before for _, before in taken)
    assert peak_memory(step) < memory


def test_the_last_cell_is_pruned_and_no_phase_is_negative():
    for prune, epochs, num_cells in product(("forward", "backward"), range(1, 12), (1, 2, 5, 20)):
        settings = Settings.model_construct(epochs=epochs, prune=prune)  # few epochs are refused elsewhere
        when = pruning_epochs(settings, num_cells)
        assert set(when) == set(range(num_cells)) and 0 <= min(when.values()) <= max(when.values()) < epochs
    with pytest.raises(InputError, match="expected 1"):
        load_config("smoke", settings={"search.ratios": (0.6, 0.6, 0.4)})


def test_the_test_set_chooses_nothing(config, data):
    """Weights and history are the same whatever the test images; the result is the last epoch's, and the best goes by
    its own name.
    """
    config = config.changed(**{"train.evaluate_every": 1})
    one, two = (run(Training(config, part, DARTS)) for part in (data, replace(data, test=255 - data.test)))
    assert one.history == two.history
    result = one.finish()[0]
    assert result["validation"] == one.history[-1]["validation"]
    assert [name for name in result if "best" in name] == ["best_validation_top1"]


def test_what_the_caps_change_is_counted_measured_and_trained(config, data):
    """Six of a cell's eight pools become another operation, when the cell is pruned: so it is trained to the end."""
    search = Search(config.changed(**{"search.edges": "all", "search.epochs": 4, "search.alpha_lr": 1e-8}), data)
    with torch.no_grad():
        search.supernet.alpha[..., 1] = 1.0  # pools everywhere
    search._fetch_alpha()
    result, weights = run(search).finish()
    assert result["changed_by_caps"] == 3 * 6
    load_concomitant(Network(Genotype.model_validate(result["genotype"]), 4), weights)  # which are all there
    assert result["supernet"].keys() == result["exported"].keys() == {"loss", "accuracy"}
    assert result["supernet"] != result["exported"]


def test_unmatched_weights_are_never_silent():
    supernet, network = SuperNet(4, 3), Network(DARTS, 4)
    weights = supernet.state_dict()
    report = load_concomitant(network, weights)
    assert set(report.matched) | set(report.new) == set(network.state_dict())
    assert set(report.matched) | set(report.left_over) == set(weights)
    del weights[next(name for name in report.matched if ".edges." in name)]
    with pytest.raises(InputError, match="is missing"):
        load_concomitant(network, weights)


@pytest.mark.parametrize(
    "build", [lambda: SuperNet(4, 3), lambda: Network(DARTS, 4, auxiliary=True)], ids=["supernet", "network"]
)
def test_nothing_in_place_follows_an_identity(build):
    """No module works in place, and an identity's output, which is its input, is unchanged once the network has run."""
    model = build()
    assert [name for name, module in model.named_modules() if getattr(module, "inplace", False)] == []
    kept = []
    for module in model.modules():
        if isinstance(module, nn.Identity):
            module.register_forward_hook(lambda module, inputs, output: kept.append((output, output.detach().clone())))
    x = torch.randn(4, 3, 8, 8)
    extra = (Paths(torch.zeros(3, 14, dtype=torch.long)),) if isinstance(model, SuperNet) else ()
    output = model(x, *extra)
    output.square().sum().backward()
    assert kept and all(torch.equal(now, then) for now, then in kept)


@pytest.mark.parametrize("size", [8, 16, 28, 32, 33, 64, 96])
def test_the_auxiliary_head_takes_maps_of_every_size(size):
    network = Network(DARTS, 4, auxiliary=True)
    assert network.forward_train(torch.randn(2, 3, size, size))[1].shape == (2, 10)


def test_the_cosine_has_one_unit_and_the_configuration_names_it(config, data):
    """As many learning rates as epochs, or as steps, in search and training alike."""
    for schedule in ("epoch", "step"):
        changed = config.changed(**{"search.schedule": schedule, "search.epochs": 4, "train.schedule": schedule})
        for loop in (Search(changed, data), Training(changed, data, DARTS)):
            rates = {loop.optimizer.param_groups[0]["lr"] for progress in loop.advance() if progress.row is None}
            assert len(rates) == loop.num_epochs * (1 if schedule == "epoch" else loop.num_steps)
    with pytest.raises(InputError, match=r"search.schedule"):
        config.changed(**{"search.schedule": "batch"})


def test_paths_depend_on_the_seed_and_the_step_alone():
    """Whatever a process has drawn or computed beside, its paths are the same."""
    drawn = []
    for beside in range(2):
        torch.manual_seed(beside)
        torch.rand(beside * 7)
        g = torch.Generator().manual_seed(5)
        alpha = torch.linspace(-1, 1, 3 * 14 * 7).view(3, 14, 7)
        present = torch.ones_like(alpha, dtype=torch.bool)
        drawn.append(
            [
                sample_paths(alpha, present, g, skip_dropout=0.2).active,
                sample_two_paths(alpha, present, g).active,
                sample_two_paths(alpha, present, g).inactive,
            ]
        )
    assert all(torch.equal(one, two) for one, two in zip(*drawn, strict=True))


def test_each_image_has_augmentation_parameters_of_its_own(data):
    same = data.train[:1].expand(16, -1, -1, -1)
    views = random_views(
        same, Views(crop_scale=(0.3, 0.9)), torch.zeros(3), torch.ones(3), torch.Generator().manual_seed(0)
    )
    assert len(views.flatten(1).unique(dim=0)) > 12


def test_batchnorms_statistics_can_be_recomputed_and_both_accuracies_are_reported(config, data):
    """After pruning, statistics stay the old paths' until `calibrate`; training reports its accuracies before and
    after.
    """
    torch.manual_seed(0)
    supernet = SuperNet(4, 3)
    x = normalise(data.train[:64], data.mean, data.std)
    calibrate(supernet, [x], lambda x: supernet(x, sample_paths(supernet.alpha, supernet.present, torch.Generator())))
    for cell in range(3):
        supernet.prune(cell, "top2")
    supernet.train()
    by_batch = supernet(x, supernet.kept_paths())
    stale = supernet.eval()(x, supernet.kept_paths())
    calibrate(supernet, [x], lambda x: supernet(x, supernet.kept_paths()))
    fresh = supernet(x, supernet.kept_paths())
    assert (fresh - by_batch).abs().mean() < 0.1 * (stale - by_batch).abs().mean()
    result = run(Training(config.changed(**{"train.calibrate": True}), data, DARTS)).finish()[0]
    assert {"test", "calibrated"} <= set(result) and set(result["calibrated"]["test"]) == set(result["test"])
