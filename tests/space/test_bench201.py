"""NAS-Bench-201's space: its exact sizes, its operations and cell, its text, what is connected, paths and gates."""

from __future__ import annotations

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sswp_lib.config import InputError
from sswp_lib.learn.measure import multiply_adds, parameters
from sswp_lib.space import Paths, calibrate, sample_two_paths
from sswp_lib.space.bench201 import BENCH201, EDGES, EXAMPLE, OPERATIONS, Bench201Net
from sswp_lib.space.ops import BatchNorm
from sswp_lib.space.spaces import Choices

NONE, SKIP, ONE, THREE, POOL = BENCH201.candidates
MIXED = BENCH201.choices([THREE, SKIP, POOL, NONE, ONE, THREE])


def all_of(name: str) -> Choices:
    return BENCH201.choices([name] * 6)


def supernet(**size) -> Bench201Net:
    torch.manual_seed(0)
    return BENCH201.supernet(**{"init_channels": 4, "num_cells": 1} | size)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(4, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


# Sizes


@pytest.mark.parametrize(("name", "count", "work", "small"), [
    (THREE, 1_531_546, 220.120, 91_986), (ONE, 241_306, 31.376, 27_474), (SKIP, 73_306, 7.783, 18_738),
    (POOL, 73_306, 7.783, 18_738), (NONE, 73_306, 7.783, 18_738),
])  # fmt: skip
def test_sizes_are_the_published_ones(name, count, work, small):
    """10 classes, 32 x 32 pixels, C = 16 and N = 5; parameters at C = 8 and N = 1 as well."""
    with torch.device("meta"):
        network, little = (
            BENCH201.network(all_of(name), **size) for size in ({}, {"init_channels": 8, "num_cells": 1})
        )
    assert (parameters(network), parameters(little)) == (count, small)
    assert round(multiply_adds(network, 32) / 1e6, 3) == work


def test_channels_double_and_maps_halve_between_the_stages():
    network, seen = BENCH201.network(MIXED, init_channels=4, num_cells=2), []
    for cell in network.cells:
        cell.register_forward_hook(lambda cell, inputs, output: seen.append(tuple(output.shape[1:])))
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, 10) and network.num_features == 16
    assert seen == [(4, 32, 32)] * 2 + [(8, 16, 16)] * 2 + [(16, 8, 8)] * 2


@pytest.mark.parametrize("size", [1, 5, 7, 9, 33])
def test_images_of_odd_size_are_halved_upwards(size):
    x, network = torch.randn(3, 3, size, size + 2), BENCH201.network(MIXED, init_channels=4, num_cells=1, num_classes=7)
    last = network.last_map(x, lambda row, edge, operations, through: through(*operations.values()))
    assert last.shape == (3, 16, -(-size // 4), -(-(size + 2) // 4))
    assert network.features(x).shape == (3, 16) and network(x).shape == (3, 7)
    torch.testing.assert_close(network.features(x), last.mean((2, 3)))
    network(x).square().sum().backward()
    assert torch.isfinite(network.stem[0].weight.grad).all() and network.stem[0].weight.grad.any()


def test_a_residual_block_averages_no_padding():
    block = supernet().blocks[0]
    x = torch.ones(1, 4, 5, 5)
    expected = block.shortcut[1].weight.sum((1, 2, 3)).view(1, 8, 1, 1).expand(1, 8, 3, 3)
    torch.testing.assert_close(block.shortcut(x), expected)
    assert [type(m).__name__ for m in block.shortcut] == ["AvgPool2d", "PointwiseConv2d"]
    assert [layer.stride[0] for layer in block.modules() if isinstance(layer, nn.Conv2d)] == [2, 1, 1]


# Operations


def convolved(operation: nn.Module, x: torch.Tensor, padding: int) -> torch.Tensor:
    return F.batch_norm(F.conv2d(x.relu(), operation[1].weight, padding=padding), None, None, training=True)


@pytest.mark.parametrize("size", [4, 7, 12])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_operations_are_those_of_the_benchmark(size, dtype):
    x = torch.randn(3, 4, size, size, generator=torch.Generator().manual_seed(0)).to(dtype)
    before = x.clone()
    built = {name: build(4, True, None).to(dtype) for name, build in OPERATIONS.items()}
    assert built[NONE](x) is None and built[SKIP](x) is x
    for name, padding in ((ONE, 0), (THREE, 1)):
        assert [type(layer) for layer in built[name]][::2] == [nn.ReLU, BatchNorm] and built[name][1].bias is None
        torch.testing.assert_close(built[name](x), convolved(built[name], x, padding))
    summed, counted = (F.avg_pool2d(t, 3, 1, 1, divisor_override=1) for t in (x, torch.ones_like(x)))
    torch.testing.assert_close(built[POOL](x), summed / counted)  # neither padding counted nor BatchNorm
    assert [name for name, operation in built.items() if list(operation.parameters())] == [ONE, THREE]
    assert torch.equal(x, before)  # nothing happens in place


def test_a_node_is_the_sum_of_its_edges(images):
    """The cell written out; node 3 is the output."""
    cell = BENCH201.network(MIXED, init_channels=3).double().cells[0]  # 3x3, skip, pool, none, 1x1, 3x3
    on, x = [next(iter(operations.values())) for operations in cell.edges], images
    first = on[0](x)
    second = x + on[2](first)
    expected = on[4](first) + on[5](second)
    torch.testing.assert_close(cell(x, lambda row, edge, operations, through: through(*operations.values())), expected)
    assert EDGES == ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))


def test_a_cell_of_skips_returns_four_times_its_input(images):
    network = BENCH201.network(all_of(SKIP), init_channels=3).double()
    cell, run = network.cells[0], network._run(None)
    torch.testing.assert_close(cell(images, run), 4 * images)  # 0>3, 0>1>3, 0>2>3, 0>1>2>3
    alone = BENCH201.network(BENCH201.choices([NONE, NONE, NONE, SKIP, NONE, NONE]), init_channels=3).double()
    assert torch.equal(alone.cells[0](images, run), images)


@pytest.mark.parametrize(
    "operations", [[NONE] * 6, [NONE, NONE, THREE, NONE, NONE, NONE], [SKIP, ONE, POOL, NONE, NONE, NONE]]
)
def test_a_cell_without_a_way_through_returns_zeros(operations, images):
    choices = BENCH201.choices(operations)
    assert not BENCH201.is_connected(choices)
    network = BENCH201.network(choices, init_channels=3, num_cells=1).double()
    found = network.cells[0](images, network._run(None))
    assert torch.equal(found, torch.zeros_like(images))
    F.cross_entropy(network(images), torch.arange(4)).backward()
    assert network.stem[0].weight.grad is None and network.head.bias.grad.any()


def test_a_node_that_nothing_enters_is_a_map_of_zeros(images):
    """Node 1 is not connected, and a convolution leaves it: its output is that of zeros."""
    choices = BENCH201.choices([NONE, NONE, THREE, SKIP, ONE, SKIP])
    network = BENCH201.network(choices, init_channels=3).double()
    cell = network.cells[0]
    for edge, name in ((2, THREE), (4, ONE)):
        nn.init.constant_(cell.edges[edge][name][2].bias, 0.5)  # a BatchNorm's shift, all that zeros leave of it
    torch.testing.assert_close(cell(images, network._run(None)), images + 1)


# Text


def test_every_string_is_read_and_written_unchanged():
    """All 15,625, made here from the benchmark's form; and what is read has its operations in the order of the
    edges.
    """
    seen = set()
    for a, b, c, d, e, f in product(BENCH201.candidates, repeat=6):
        text = f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|"
        choices = BENCH201.read(text)
        assert choices.operations == (a, b, c, d, e, f) and BENCH201.write(choices) == text
        seen.add(choices)
    assert len(seen) == 5**6 and seen == set(BENCH201.everything())
    assert BENCH201.read(f"\n{EXAMPLE}\n").operations == (THREE, THREE, THREE, SKIP, THREE, THREE)
    assert BENCH201.read(MIXED.to_json()) == MIXED


@pytest.mark.parametrize(("text", "named"), [
    ("", "'' has 1 parts; expected 3 joined by +"),
    (EXAMPLE + "+", "4 parts"), (EXAMPLE.replace("+", ""), "1 parts"), ("x" * 10_000, "1 parts"), ("[]", "1 parts"),
    (EXAMPLE[1:], "node 1 is 'nor_conv_3x3~0|'; expected |operation~0|"),
    (EXAMPLE[:-1], "node 3 is "), ("|none~0|+|+|none~0|none~1|none~2|", "node 2 is '|'"),
    ("+".join(["|none~0|"] * 3), "node 2 is '|none~0|'; expected |operation~0|operation~1|"),
    ("|none~0|none~1|+|none~0|none~1|+|none~0|none~1|none~2|", "node 1 is '|none~0|none~1|'"),
    (EXAMPLE.replace("|+|", "|+||"), "node 2 is "), (EXAMPLE.replace("|+|", "| + |"), "node 1 is "),
    (EXAMPLE.replace("~2", "~1"), "node 3, edge 2>3: 'nor_conv_3x3~1'; expected operation~2"),
    (EXAMPLE.replace("~2", "~02"), "'nor_conv_3x3~02'"), (EXAMPLE.replace("~2", ""), "edge 2>3: 'nor_conv_3x3'"),
    (EXAMPLE.replace("~0|n", "~0~0|n"), "node 2, edge 0>2: 'nor_conv_3x3~0~0'"),
    (EXAMPLE.replace("skip_connect", "skip"), "edge 0>3: unknown operation 'skip'; expected one of none, skip_connect"),
    (EXAMPLE.replace("skip_connect", "nor_conv_5x5"), "edge 0>3: unknown operation 'nor_conv_5x5'; did you mean 'nor_"),
    (EXAMPLE.replace("skip_connect", ""), "edge 0>3: unknown operation ''"),
    (EXAMPLE.replace("skip_connect", "__import__('os')"), "edge 0>3: unknown operation \"__import__('os')\""),
    ('{"space": "nasbench201"}', "not an architecture of nasbench201"),
])  # fmt: skip
def test_wrong_strings_are_refused_in_one_line(text, named):
    with pytest.raises(InputError) as error:
        BENCH201.read(text)
    line = str(error.value)
    assert named in line and "\n" not in line and len(line) < 300


# What is connected


def reaches(operations: tuple[str, ...]) -> bool:
    """Return whether one of the four ways from node 0 to node 3 is open, as they are listed."""
    ways = ((3,), (0, 4), (1, 5), (0, 2, 5))
    return any(all(operations[edge] != NONE for edge in way) for way in ways)


def test_15_284_architectures_are_connected():
    everything = list(BENCH201.everything())
    assert [BENCH201.is_connected(c) for c in everything] == [reaches(c.operations) for c in everything]
    assert sum(map(BENCH201.is_connected, everything)) == 15_284
    assert sum(NONE not in c.operations and SKIP not in c.operations for c in everything) == 729


def test_nearly_all_pairs_of_paths_are_connected_on_both_sides():
    """On each edge one of the two, the other, or neither takes `none`, with 1, 1 and 3 fifths: counted exactly. Of
    pairs that are drawn independently it would be (15,284 / 15,625)^2 = 0.9568.
    """
    good = 0
    for sides in product((0, 1, 2), repeat=6):
        one, two = (
            Choices("nasbench201", tuple(NONE if side == which else SKIP for side in sides)) for which in (0, 1)
        )
        good += (BENCH201.is_connected(one) and BENCH201.is_connected(two)) * 3 ** sides.count(2)
    assert good == 14_943
    assert round(100 * good / 5**6, 2) == 95.64


# Paths


@pytest.mark.parametrize("operations", [
    MIXED.operations, (THREE,) * 6, (SKIP,) * 6, (NONE,) * 6, (POOL, ONE, NONE, THREE, SKIP, POOL),
])  # fmt: skip
@pytest.mark.parametrize("affine", [True, False])
def test_the_network_of_a_path_gives_the_supernets_outputs(operations, affine):
    choices, x = BENCH201.choices(operations), torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    net, paths = supernet(affine=affine, num_cells=2), BENCH201.paths(choices)
    calibrate(net, [x], lambda x: net(x, paths))
    network = BENCH201.network(choices, init_channels=4, num_cells=2, affine=affine)
    weights = net.state_dict()
    network.load_state_dict({name: weights[name] for name in network.state_dict()})
    assert {name for name in weights if ".edges." not in name} <= set(network.state_dict())
    assert torch.equal(network.eval()(x), net.eval()(x, paths))
    assert torch.equal(network(x, Paths(torch.tensor([[network.candidates.index(name) for name in operations]]))),
                       network(x))  # fmt: skip
    x = x.double()
    torch.testing.assert_close(network.double().train()(x), net.double().train()(x, paths))


def test_only_what_is_on_the_path_gets_a_gradient(images):
    net = supernet(num_cells=2).double()
    net(images, BENCH201.paths(MIXED)).square().sum().backward()
    ran = tuple(f".edges.{edge}.{name}." for edge, name in enumerate(MIXED.operations))
    for name, parameter in net.named_parameters():
        on_path = ".edges." not in name or any(part in name for part in ran)
        assert (parameter.grad is not None) == on_path, name


def test_running_statistics_are_kept_where_nothing_is_to_be_chosen(images):
    some = Bench201Net([(ONE,)] * 5 + [(ONE, THREE)], 4, 1)
    for net, momentum in ((supernet(), None), (some, None), (BENCH201.network(MIXED, init_channels=4), 0.1)):
        assert {m.momentum for m in net.modules() if isinstance(m, BatchNorm)} == {momentum}
    net = supernet().double()
    net(images, BENCH201.paths(MIXED))
    assert not any(m.running_mean.any() for m in net.modules() if isinstance(m, BatchNorm))


def test_a_head_of_ones_own_takes_the_classifiers_place(images):
    net = BENCH201.network(MIXED, init_channels=4, num_cells=1, head=nn.Identity()).double()
    assert torch.equal(net(images), net.features(images)) and net.num_features == 16
    assert BENCH201.network(MIXED, init_channels=4, num_cells=1, num_classes=3).head.out_features == 3


def test_affine_is_of_the_cells_operations():
    names = {name for name, _ in supernet().named_parameters()} - {
        name for name, _ in supernet(affine=False).named_parameters()
    }
    assert len(names) == 3 * 6 * 2 * 2 and all(".edges." in name for name in names)


def test_an_edge_that_is_gone_adds_nothing(images):
    net = supernet().double()
    gone, none = BENCH201.paths(all_of(ONE)), BENCH201.paths(BENCH201.choices([ONE, NONE, ONE, ONE, ONE, ONE]))
    gone.active[0, 1] = -1
    assert torch.equal(net(images, gone), net(images, none))


def test_paths_that_choose_nothing_that_is_there_are_refused(images):
    net = supernet().double()
    other = BENCH201.network(all_of(ONE), init_channels=4, num_cells=1).double()
    for network, paths, named in (
        (net, None, "paths is None, and edge 0>1 has 5 operations; expected paths that choose among them"),
        (net, Paths(torch.zeros(3, 6, dtype=torch.long)), r"shape \(3, 6\); expected \(1, 6\)"),
        (net, Paths(torch.zeros(1, 14, dtype=torch.long)), r"shape \(1, 14\)"),
        (net, Paths(torch.tensor([[0, 0, 5, 0, 0, 0]])), "take candidate 5 on edge 1>2; expected the place in"),
        (net, Paths(torch.zeros(1, 6, dtype=torch.long), torch.full((1, 6), 7)), "take candidate 7 on edge 0>1"),
        (other, BENCH201.paths(all_of(ONE)), "take candidate 2 on edge 0>1.*of one of nor_conv_1x1"),
    ):
        with pytest.raises(InputError, match=named) as error:
            network(images, paths)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(("operations", "size", "named"), [
    ([(ONE,)] * 5, {}, "operations for 5 edges; expected 6: 0>1, 0>2"),
    ([(ONE,)] * 5 + [()], {}, r"edge 2>3 has the operations \[\]; expected one or more"),
    ([(ONE, ONE)] * 6, {}, "edge 0>1 has the operations .*each once"),
    ([(ONE,)] * 3 + [("sep_conv_3x3",)] * 3, {}, "edge 0>3: unknown operation 'sep_conv_3x3'; did you mean 'nor_conv"),
    ([(ONE,)] * 6, {"init_channels": 0}, "init_channels is 0; expected 1 or more"),
    ([(ONE,)] * 6, {"num_cells": 0}, "num_cells is 0; expected 1 or more"),
])  # fmt: skip
def test_networks_that_cannot_be_built_are_refused(operations, size, named):
    with pytest.raises(InputError, match=named):
        Bench201Net(operations, **size)


# Two-path gates


def gated_loss(net: Bench201Net, x: torch.Tensor, paths: Paths, gates: torch.Tensor, seed: torch.Tensor):
    """Return <seed, output> with y = g_a o_a(x) + g_b o_b(x) written out on every edge, `none` as 0; gates (6, 2)."""

    def run(row, edge, operations, through):
        total = 0
        for gate, chosen in zip(gates[edge], (paths.active, paths.inactive), strict=True):
            name = BENCH201.candidates[int(chosen[0, edge])]
            total = total + (0 if name == NONE else gate * through(operations[name]))
        return total

    return (net.head(net.last_map(x, run).mean((2, 3))) * seed).sum()


@pytest.mark.parametrize(("active", "inactive"), [(THREE, ONE), (SKIP, POOL), (NONE, THREE), (POOL, NONE)])
def test_two_path_gradient_equals_finite_differences(active, inactive, images, g):
    """On edge 0>2, whose operations are given, and by lot on the others: central differences in its two gates, through
    all three cells that share them, then the softmax's Jacobian.
    """
    net, edge = supernet().double(), 1
    pair = [BENCH201.candidates.index(name) for name in (active, inactive)]
    alpha = torch.randn(1, 6, 5, dtype=torch.float64, generator=g, requires_grad=True)
    certain = alpha.detach().clone()  # what is drawn from: on this edge the first before the second before all others
    certain[0, edge] = -torch.inf
    certain[0, edge, pair] = torch.tensor([1e3, 0.0], dtype=torch.float64)
    paths = sample_two_paths(alpha, torch.ones_like(alpha, dtype=torch.bool), g, on_host=certain)
    assert [int(paths.active[0, edge]), int(paths.inactive[0, edge])] == pair
    seed = torch.randn(4, 10, dtype=torch.float64, generator=g)
    loss = (net(images, paths) * seed).sum()
    torch.testing.assert_close(loss, (net(images, Paths(paths.active)) * seed).sum())
    (found,) = torch.autograd.grad(loss, alpha)

    to_gates, eps = torch.zeros(2, dtype=torch.float64), 1e-6
    for j in range(2):
        ends = []
        for sign in (1, -1):
            gates = torch.tensor([1.0, 0.0], dtype=torch.float64).repeat(6, 1)
            gates[edge, j] += sign * eps
            with torch.no_grad():
                ends.append(gated_loss(net, images, paths, gates, seed))
        to_gates[j] = (ends[0] - ends[1]) / (2 * eps)
    p = alpha.detach()[0, edge, pair].softmax(0)
    expected = torch.zeros(5, dtype=torch.float64)
    expected[pair] = p * (to_gates - (to_gates * p).sum())
    torch.testing.assert_close(found[0, edge], expected, rtol=1e-5, atol=1e-7)
    assert (found[0].count_nonzero(-1) == 2).all()
