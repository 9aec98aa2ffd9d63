"""Pi-NAS's ResNeSt-like space: its published sizes, split attention, what candidates share, paths and their text."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sswp_lib.config import InputError
from sswp_lib.learn.measure import multiply_adds, parameters, sizes_of
from sswp_lib.space import Paths, ProjectionHead, sample_two_paths
from sswp_lib.space.cell import pool
from sswp_lib.space.ops import BatchNorm, calibrate
from sswp_lib.space.resnest import KINDS, RESNEST, SplitAttention, WeightedSum, build, resnest

CLS = "3 0 1 3 2 3 1 2 0 3 2 1 3 0 3 2"
TRANS = "3 3 3 3 1 1 3 3 3 0 0 1 1 0 2 1"
RESNEST_50 = " ".join("1" * 16)
SHORT = resnest((1, 1, 1, 1))
LONGER = resnest((2, 1))
SMALL = {"num_classes": 5, "planes": 8, "stem_width": 4}
PUBLISHED = [
    (" ".join("0" * 16), 26_217_896, 5.370),
    (RESNEST_50, 27_483_240, 5.371),
    (" ".join("2" * 16), 27_489_492, 5.519),
    (" ".join("3" * 16), 26_943_792, 5.178),
    (CLS, 27_046_278, 5.332),
    (TRANS, 27_039_016, 5.254),
]  # parameters, multiply-adds in 1e9, with 1000 classes at 224 pixels


def weightless(path: str, space=RESNEST, **size) -> nn.Module:
    """Return the network of a path's text, without values."""
    with torch.device("meta"):
        return space.network(space.read(path), **size)


def images(*size: int, count: int = 4, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(count, 3, *size, dtype=dtype, generator=torch.Generator().manual_seed(1))


def supernet(space=SHORT, **size) -> nn.Module:
    """Return a small supernet in double precision whose blocks do something: no gamma is 0."""
    torch.manual_seed(0)
    net = space.supernet(**SMALL, **({"zero_gamma": False} | size)).double()
    for layer in net.modules():
        if isinstance(layer, BatchNorm):
            nn.init.uniform_(layer.weight, 0.5, 1.5), nn.init.normal_(layer.bias, 0, 0.1)
    return net


@pytest.mark.parametrize("path, count, giga", PUBLISHED, ids=[path for path, *_ in PUBLISHED])
def test_sizes_are_the_published_ones(path, count, giga):
    network = weightless(path)
    assert parameters(network) == count
    assert round(multiply_adds(network, 224) / 1e9, 3) == giga


@pytest.mark.parametrize("path, paper, exact", [(RESNEST_50, 5.42, 5.419), (CLS, 5.38, 5.381), (TRANS, 5.30, 5.305)])
def test_with_elementwise_operations_they_are_the_papers_flops(path, paper, exact):
    """Two an output of BatchNorm, one of ReLU, one a product of attention and split, and of each pool one a pixel that
    it reads; pools by what they put out, as `sizes_of` counts them, give the paper's two decimals as well.
    """
    network, extra = weightless(path), Counter()
    kinds = {BatchNorm: 2, nn.ReLU: 1, nn.MaxPool2d: 1, nn.AvgPool2d: 1, WeightedSum: 1}

    def count(module, inputs, output):
        (each,) = (each for kind, each in kinds.items() if isinstance(module, kind))
        extra.update({"operations": each * max(x.numel() for x in inputs)})  # not of the attention, but of the splits

    found = sizes_of(network, 224)
    for module in network.modules():
        if isinstance(module, tuple(kinds)):
            module.register_forward_hook(count)
    added = multiply_adds(network, 224)
    assert round((added + extra["operations"]) / 1e9, 3) == exact
    assert added == found["multiply_adds"]
    assert round((added + found["elementwise"]) / 1e9, 2) == paper


@pytest.mark.parametrize("shared, count", [(True, 91_522_388), (False, 99_852_116)])
def test_size_of_the_supernet(shared, count):
    """Without its head; Pi-NAS's head, two layers, is 4,458,624 more."""
    with torch.device("meta"):
        net = RESNEST.supernet(shared_downsample=shared, head=ProjectionHead(2048))
    assert parameters(net) == count + 4_458_624
    assert parameters(net.head) == 4_458_624 and net.num_features == 2048
    assert net.candidates == ("B0", "B1", "B2", "B3") == RESNEST.candidates


def test_channels_and_attention_of_the_candidates():
    """At the paper's width the formulas as they stand; below it, multiples of what they are divided by."""
    stages = [64, 128, 256, 512]
    found = {n: [(k.channels(p), k.attention(p, 32)) for p in stages] for n, k in KINDS.items()}
    assert found == {
        "B0": [(64, 32), (128, 32), (256, 64), (512, 128)],
        "B1": [(64, 32), (128, 64), (256, 128), (512, 256)],
        "B2": [(84, 32), (168, 42), (336, 84), (672, 168)],
        "B3": [(80, 40), (160, 80), (320, 160), (640, 320)],
    }
    narrow = {name: (kind.channels(8), kind.attention(8, 4)) for name, kind in KINDS.items()}
    assert narrow == {"B0": (8, 4), "B1": (8, 4), "B2": (10, 4), "B3": (12, 6)}
    for planes, expected in ((8, [4, 4, 4, 6]), (64, [32, 32, 32, 40])):
        with torch.device("meta"):
            (layer,) = build([KINDS], depths=(1,), planes=planes).layers
        attentions = [block.body[3].attention for block in layer.operations.values()]
        assert [attention[0].out_channels for attention in attentions] == expected
    for planes in range(2, 200):
        for kind in KINDS.values():
            C = kind.channels(planes)
            plain = int(planes * kind.width / 64) * kind.cardinality
            assert plain <= C < plain + kind.radix * kind.cardinality and C % (kind.radix * kind.cardinality) == 0
            assert kind.attention(planes, 4) % kind.cardinality == 0


@pytest.mark.parametrize("planes", [8, 16, 32])
@pytest.mark.parametrize("space", [SHORT, RESNEST], ids=["4 layers", "16 layers"])
def test_narrow_candidates_stay_alike_in_size(space, planes):
    """At the paper's width the largest has 5 % more parameters and 7 % more multiply-adds than the smallest."""
    size = {"planes": planes, "stem_width": planes // 2, "num_classes": 10}
    everywhere = [weightless(" ".join(k * len(space.edges)), space, **size) for k in "0123"]
    for measure, spread in ((parameters, 1.06), (lambda network: multiply_adds(network, 32), 1.08)):
        found = [measure(network) for network in everywhere]
        assert max(found) < spread * min(found)


def test_every_narrow_width_can_be_built_and_run():
    for planes in (2, 3, 5, 6, 7, 12):
        net = SHORT.supernet(planes=planes, stem_width=1, num_classes=3).double()
        for k in range(4):
            assert net(images(16, 16), Paths(torch.full((1, 4), k))).shape == (4, 3)


def one_by_one(attention: SplitAttention, x: torch.Tensor) -> torch.Tensor:
    """Return split attention image by image, group by group, split by split, in training mode."""
    r, c, (N, C) = attention.radix, attention.cardinality, x.shape[:2]
    first, norm, _, second = attention.attention
    group_in, group_out, inner = C // (c * r), C // c, len(first.weight) // c

    def normalised(values: torch.Tensor, layer: BatchNorm) -> torch.Tensor:
        channels = [(v - v.mean()) / (v.var(unbiased=False) + layer.eps).sqrt() for v in values.unbind(1)]
        scaled = [v * w + b for v, w, b in zip(channels, layer.weight, layer.bias, strict=True)]
        return torch.stack(scaled, 1).clamp(min=0)

    maps = torch.empty(N, C * r, *x.shape[2:], dtype=x.dtype)
    for n in range(N):
        for g in range(c * r):
            own, weight = slice(g * group_out, (g + 1) * group_out), attention.conv.weight
            maps[n, own] = F.conv2d(x[n, g * group_in : (g + 1) * group_in], weight[own], padding=1)
    maps = normalised(maps, attention.bn)
    splits = [maps[:, s * C : (s + 1) * C] for s in range(r)]  # radix-major
    hidden = torch.empty(N, inner * c, dtype=x.dtype)
    for n in range(N):
        for g in range(c):
            pooled = sum(split[n, g * group_out : (g + 1) * group_out].mean((1, 2)) for split in splits)
            own = slice(g * inner, (g + 1) * inner)
            hidden[n, own] = first.weight[own, :, 0, 0] @ pooled + first.bias[own]
    hidden, out = normalised(hidden, norm), torch.zeros_like(x)
    for n in range(N):
        for g in range(c):
            own = slice(g * group_out * r, (g + 1) * group_out * r)  # a group's logits, split after split
            logits = second.weight[own, :, 0, 0] @ hidden[n, g * inner : (g + 1) * inner] + second.bias[own]
            for k in range(group_out):
                pair = torch.stack([logits[s * group_out + k] for s in range(r)])
                shares = pair.softmax(0) if r > 1 else pair.sigmoid()
                for s in range(r):
                    out[n, g * group_out + k] += shares[s] * splits[s][n, g * group_out + k]
    return out


@pytest.mark.parametrize("name", KINDS)
def test_split_attention_is_what_loops_over_images_groups_and_splits_give(name):
    torch.manual_seed(0)
    attention = SplitAttention(KINDS[name], 8, 6, None).double()
    for layer in (attention.bn, attention.attention[1]):
        nn.init.normal_(layer.weight), nn.init.normal_(layer.bias)
    x = torch.randn(3, 8, 5, 4, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(attention(x), one_by_one(attention, x))


def test_a_fresh_supernets_blocks_are_their_shortcuts():
    """Zero gamma: a layer gives out what it got, a stage's first one its downsample; not so in a network alone."""
    torch.manual_seed(0)
    net, seen = LONGER.supernet(**SMALL), []
    net.layers[1].register_forward_hook(lambda layer, inputs, output: seen.append((inputs[0], output)))
    net.layers[2].register_forward_hook(
        lambda layer, inputs, output: seen.append((layer.downsample(inputs[0]).relu(), output))
    )
    for k in range(4):
        net(images(32, 32, dtype=torch.float32), Paths(torch.full((1, 3), k)))
        (before, after), (downsampled, reduced) = seen[-2:]
        assert torch.equal(before, after) and torch.equal(downsampled, reduced)
    alone, own = LONGER.network(LONGER.read("0 1 2"), **SMALL), build([("B0",)] * 3, depths=(2, 1), zero_gamma=True)
    last = lambda net: [block.body[-1].weight for layer in net.layers for block in layer.operations.values()]  # noqa: E731
    assert all((weight == 1).all() for weight in last(alone))
    assert not any(weight.any() for weight in last(own) + last(net))


def test_running_statistics_only_where_there_is_no_choice():
    momenta = lambda net: {layer.momentum for layer in net.modules() if isinstance(layer, BatchNorm)}  # noqa: E731
    choices = SHORT.read("0 1 2 3")
    assert momenta(SHORT.supernet(**SMALL)) == momenta(SHORT.supernet(**SMALL, momentum=0.3)) == {None}
    assert momenta(SHORT.network(choices, **SMALL)) == {0.1}
    assert momenta(SHORT.network(choices, **SMALL, momentum=0.3)) == {0.3}
    net = supernet()
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    net(images(32, 32), SHORT.paths(choices))
    assert all(torch.equal(buffer, before[name]) for name, buffer in net.named_buffers())


@pytest.mark.parametrize("size", [(1, 1), (17, 17), (32, 32), (33, 33), (37, 50), (65, 31)])
def test_sides_are_halved_and_rounded_up(size):
    net, seen = supernet(), []
    for layer in net.layers:
        layer.register_forward_hook(lambda layer, inputs, output: seen.append(tuple(output.shape[1:])))
    half = lambda side, times: -(-side // 2**times)  # noqa: E731
    for k in range(4):
        seen.clear()
        assert net(images(*size), Paths(torch.full((1, 4), k))).shape == (4, 5)
        assert seen == [(32 * 2**i, *(half(side, i + 2) for side in size)) for i in range(4)]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_single_precision_and_other_layouts_give_the_same(layout):
    """Small maps, which in single precision are computed by matrices, and larger ones; the gradient to the image."""
    net, paths = supernet(), SHORT.paths(SHORT.read("1 3 0 2"))
    for size in ((16, 16), (64, 48)):
        x, single = images(*size).requires_grad_(), images(*size).float().contiguous(memory_format=layout)
        single.requires_grad_()
        wanted, found = net(x, paths), deepcopy(net).float()(single, paths)
        torch.testing.assert_close(found.double(), wanted, rtol=1e-3, atol=1e-3)
        (one,), (other,) = (torch.autograd.grad(y.square().sum(), i) for y, i in ((wanted, x), (found, single)))
        torch.testing.assert_close(other.double(), one, rtol=1e-2, atol=1e-2 * float(one.abs().max()))


def test_average_of_the_shortcut_leaves_padding_out_and_the_blocks_counts_it():
    net = supernet()
    x = torch.ones(1, 1, 3, 3, dtype=torch.float64)
    (shortcut,) = (m for m in net.layers[1].downsample.modules() if isinstance(m, nn.AvgPool2d))
    (inside,) = (m for m in net.layers[1].operations["B1"].modules() if isinstance(m, nn.AvgPool2d))
    assert torch.equal(shortcut(x), torch.ones(1, 1, 2, 2, dtype=torch.float64))
    torch.testing.assert_close(inside(x), torch.full((1, 1, 2, 2), 4 / 9, dtype=torch.float64))
    assert not any(isinstance(m, nn.AvgPool2d) for m in net.layers[0].modules())


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_a_networks_outputs_are_the_supernets_along_its_path(shared, training):
    net = supernet(LONGER, shared_downsample=shared)
    for path in ("0 1 2", "3 3 1", "2 0 3"):
        choices = LONGER.read(path)
        calibrate(net, [images(32, 32)], lambda x, choices=choices: net(x, LONGER.paths(choices)))
        alone, weights = LONGER.network(choices, **SMALL, shared_downsample=shared).double(), net.state_dict()
        alone.load_state_dict({name: weights[name] for name in alone.state_dict()})
        net.train(training), alone.train(training)
        x, paths = images(33, 32), LONGER.paths(choices)
        assert torch.equal(alone(x), net(x, paths))
        assert torch.equal(alone.features(x), net.features(x, paths))
        assert alone.features(x).shape == (4, alone.num_features) == (4, 64)


def calls_of(net: nn.Module, paths: Paths) -> Counter:
    """Return how often each block and each downsample ran."""
    ran: Counter = Counter()
    for name, module in net.named_modules():
        if name.endswith("downsample") or name.split(".")[-1] in KINDS:
            module.register_forward_hook(lambda *_, name=name: ran.update([name]))
    net(images(32, 32), paths)
    return ran


@pytest.mark.parametrize("shared", [True, False])
def test_what_runs_and_what_is_shared(shared):
    paths = Paths(torch.tensor([[0, 3, 1]]), torch.tensor([[2, -1, 3]]), torch.ones(1, 3, dtype=torch.float64))
    blocks = {f"layers.{i}.operations.B{k}": 1 for i, k in [(0, 0), (0, 2), (1, 3), (2, 1), (2, 3)]}
    downsamples = (
        {f"layers.{i}.downsample": 1 for i in (0, 2)}
        if shared
        else {f"{name}.downsample": 1 for name in blocks if name[7] != "1"}
    )
    assert calls_of(supernet(LONGER, shared_downsample=shared), paths) == blocks | downsamples


def test_gradient_reaches_the_path_and_what_is_shared_alone():
    net = supernet()
    net(images(32, 32), SHORT.paths(SHORT.read("0 3 1 2"))).square().sum().backward()
    ran = tuple(f"layers.{i}.operations.B{k}." for i, k in enumerate((0, 3, 1, 2)))
    for name, parameter in net.named_parameters():
        assert (parameter.grad is not None) == (".operations." not in name or name.startswith(ran)), name


@pytest.mark.parametrize("shared", [True, False])
def test_gradient_of_two_paths_equals_finite_differences_of_the_gates(g, shared):
    """Central differences of the loss in each layer's gate, y = g o_a + (1 - g) o_b written out, through the whole
    network.
    """
    net, x = supernet(shared_downsample=shared), images(32, 32)
    alpha = torch.randn(1, 4, 4, dtype=torch.float64, generator=g, requires_grad=True)
    paths = sample_two_paths(alpha, torch.ones_like(alpha, dtype=torch.bool), g)
    seed = torch.randn(4, 5, dtype=torch.float64, generator=g)

    def loss(gates: torch.Tensor) -> torch.Tensor:
        def run(row, edge, operations, through):
            a, b = (through(operations[net.candidates[int(p[row, edge])]]) for p in (paths.active, paths.inactive))
            return gates[edge] * a + (1 - gates[edge]) * b

        return (net.head(pool(net.last_map(x, run))) * seed).sum()

    gates = paths.gates.detach().clone().requires_grad_()
    output = net(x, replace(paths, gates=gates))
    assert torch.equal(output, net(x, Paths(paths.active)))
    found = torch.autograd.grad((output * seed).sum(), gates)[0][0]
    eps, expected = 1e-6, torch.zeros(4, dtype=torch.float64)
    with torch.no_grad():
        for layer in range(4):
            step = eps * torch.eye(4, dtype=torch.float64)[layer]
            expected[layer] = (loss(1 + step) - loss(1 - step)) / (2 * eps)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert found.abs().min() > 1e-4
    to_alpha = torch.autograd.grad((net(x, paths) * seed).sum(), alpha)[0]
    assert (to_alpha.count_nonzero(-1) == 2).all()


@pytest.mark.parametrize("paths, message", [
    (None, r"paths is None, but layer 1 of 4 has 4 candidates; expected Paths with active of shape \(1, 4\)"),
    (Paths(torch.zeros(4, dtype=torch.long)), r"shape \(4,\); expected \(1, 4\)"),
    (Paths(torch.zeros(1, 3, dtype=torch.long)), r"shape \(1, 3\); expected \(1, 4\)"),
    (Paths(torch.tensor([[0, 1, -1, 0]])), r"layer 3 of 4 is -1; expected 0 \(B0\) or 1 \(B1\) or 2 \(B2\)"),
    (Paths(torch.tensor([[0, 1, 0, 4]])), r"layer 4 of 4 is 4; expected 0"),
    (Paths(torch.zeros(1, 4, dtype=torch.long), torch.tensor([[1, 9, 1, 1]])), r"layer 2 of 4 is 9; expected 0"),
])  # fmt: skip
def test_paths_that_do_not_fit_are_refused(paths, message):
    with pytest.raises(InputError, match=message):
        supernet()(images(32, 32), paths)


def test_a_network_alone_takes_its_own_path_and_no_other():
    net, x = SHORT.network(SHORT.read("0 1 2 3"), **SMALL).double(), images(32, 32)
    assert torch.equal(net(x), net(x, Paths(torch.tensor([[0, 1, 2, 3]]))))
    with pytest.raises(InputError, match=r"layer 2 of 4 is 0; expected 1 \(B1\)"):
        net(x, Paths(torch.tensor([[0, 0, 2, 3]])))


def test_texts_are_read_back():
    for path in (CLS, TRANS):
        choices = RESNEST.read(path)
        assert choices.operations == tuple(f"B{k}" for k in path.split())
        assert RESNEST.write(choices) == path
        assert RESNEST.read(choices.to_json()) == choices
    assert RESNEST.edges[:4] == ("1.1", "1.2", "1.3", "2.1") and len(RESNEST.edges) == 16
    assert [RESNEST.name, SHORT.name, resnest([3, 4, 6, 3]).name] == ["resnest", "resnest-1-1-1-1", "resnest"]
    with pytest.raises(InputError, match="space 'resnest-2-1'; expected one of 'resnest-1-2'"):
        resnest((1, 2)).read(LONGER.read("0 1 2").to_json())


@pytest.mark.parametrize("text, message", [
    ("", "digit 1 of a path is ''; expected 4 of 0, 1, 2, 3, one a layer, with one space between two"),
    ("0 1 2", "a path of 3 digits, '0 1 2'; expected 4 of"),
    ("0 1 2 3 0", "a path of 5 digits"),
    ("0 1 4 3", "digit 3 of a path is '4'"),
    ("0 1 02 3", "digit 3 of a path is '02'"),
    ("0  1 2 3", "digit 2 of a path is ''"),
    (" 0 1 2 3", "digit 1 of a path is ''"),
    ("0 1 2 3\n", r"digit 4 of a path is '3\\n'"),
    ("0\t1 2 3", r"digit 1 of a path is '0\\t1'"),
    ("0 1 ² 3", "digit 3 of a path is '²'"),
    ("0 1 ٣ 3", "digit 3 of a path is '٣'"),
    ("0123", "digit 1 of a path is '0123'"),
    ("0 1 __import__('os') 3", "digit 3 of a path is "),
    ('{"space": "resnest-1-1-1-1", "operations": ["B0", "B1", "B2", "B9"]}', "edge 4.1: unknown operation 'B9'"),
    ('{"space": "resnest", "operations": ["B0", "B1", "B2", "B3"]}', "an architecture of the space 'resnest'"),
])  # fmt: skip
def test_wrong_texts_are_refused_in_one_line(text, message):
    with pytest.raises(InputError, match=message) as error:
        SHORT.read(text)
    assert "\n" not in str(error.value) and len(str(error.value)) < 200


def test_sizes_that_cannot_be_are_refused():
    fitting = [("B0",)] * 4
    for arguments, message in [
        ({"operations": fitting}, r"operations for 4 layers; expected 16, as depths \(3, 4, 6, 3\) add up"),
        ({"operations": [*fitting[:3], ("B5",)]}, "layer 4 of 4: unknown operation 'B5'"),
        ({"operations": [*fitting[:3], ()]}, "layer 4 of 4 has no operation; expected one of B0, B1, B2, B3"),
        ({"planes": 1}, "planes is 1; expected 2 or more"),
        ({"stem_width": 0}, "stem_width is 0; expected 1 or more"),
        ({"depths": (4, 0)}, r"depths are \(4, 0\); expected one stage or more, of one layer or more each"),
    ]:
        depths = {} if "16" in message else {"depths": (1, 1, 1, 1)}
        with pytest.raises(InputError, match=message):
            build(**({"operations": fitting} | depths | arguments))
    with pytest.raises(InputError, match=r"depths are \(\)"):
        resnest(())
