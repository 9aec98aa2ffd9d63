"""The compact network, drop-path, the auxiliary head, and loading concomitant weights."""

from __future__ import annotations

import copy

import pytest
import torch

from sswp_lib.config import InputError
from sswp_lib.space import Genotype, Network, SuperNet, calibrate, derive, drop_path_masks, load_concomitant
from sswp_lib.space.network import AuxiliaryHead

DARTS = Genotype.published("DARTS_V2", 3)


def count(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_size_of_darts_v2():
    assert count(Network(Genotype.published("DARTS_V2", num_cells=20), init_channels=36, num_classes=10)) == 3_349_342


@pytest.mark.parametrize(
    ("stem", "size"), [*(("cifar", size) for size in (8, 16, 28, 32, 33, 64, 96)), ("imagenet", 64)]
)
def test_auxiliary_head_works_for_every_image_size(stem, size):
    torch.manual_seed(0)
    network = Network(DARTS, 4, 10, auxiliary=True, stem=stem)
    scores, auxiliary = network.forward_train(torch.randn(2, 3, size, size))
    assert scores.shape == auxiliary.shape == (2, 10)
    auxiliary.square().sum().backward()
    assert network.cells[2].preprocess1[1].weight.grad.abs().sum() > 0
    assert network.head.weight.grad is None


@pytest.mark.parametrize("size, stride", [(8, 3), (7, 2)])
def test_auxiliary_head_pools_as_darts(size, stride):
    head = AuxiliaryHead(5, 3)
    maps, seen = torch.randn(2, 5, size, size), []
    head.body[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    head(maps)
    assert torch.equal(seen[0], torch.nn.functional.avg_pool2d(maps.relu(), 5, stride=stride))


def layers_of(part: torch.nn.Module) -> list[str | tuple]:
    """Return a stem's layers: convolutions as (in, out, kernel, stride), others by name."""
    return [
        (m.in_channels, m.out_channels, m.kernel_size[0], m.stride[0])
        if isinstance(m, torch.nn.Conv2d)
        else type(m).__name__
        for m in part
    ]


@pytest.mark.parametrize("build", [lambda stem: SuperNet(4, 3, stem=stem), lambda stem: Network(DARTS, 4, stem=stem)])
def test_stems_are_those_of_darts(build):
    """CIFAR: 3x3 to 3C. ImageNet: three of stride 2, to C/2, C and C, the first two before input 0, all before input 1.
    Their BatchNorms are affine, and keep statistics as the cells' do.
    """
    (cifar,), (first, second) = build("cifar").stem, build("imagenet").stem
    assert layers_of(cifar) == [(3, 12, 3, 1), "BatchNorm"]
    assert layers_of(first) == [(3, 2, 3, 2), "BatchNorm", "ReLU", (2, 4, 3, 2), "BatchNorm"]
    assert layers_of(second) == ["ReLU", (4, 4, 3, 2), "BatchNorm"]
    for stem in ("cifar", "imagenet"):
        model = build(stem)
        norms = [m for m in model.stem.modules() if type(m).__name__ == "BatchNorm"]
        assert all(m.weight is not None and m.momentum == model.cells[0].preprocess1[2].momentum for m in norms)
        assert norms[0].momentum == (None if isinstance(model, SuperNet) else 0.1)
        assert all(m.bias is None for m in model.stem.modules() if isinstance(m, torch.nn.Conv2d))


def test_auxiliary_head_stands_after_the_second_reduction():
    network = Network(Genotype.published("DARTS_V2", 20), 4, auxiliary=True)
    assert network.auxiliary_cell == 13
    assert network.auxiliary_head.body[0].in_channels == 4 * 4 * 4  # four nodes, channels doubled twice
    assert Network(DARTS, 4).forward_train(torch.randn(2, 3, 8, 8))[1] is None


def test_forward_draws_nothing():
    network, x = Network(DARTS, 4, auxiliary=True).eval(), torch.randn(4, 3, 8, 8)
    state = torch.get_rng_state()
    once = network(x)
    assert torch.equal(once, network(x))
    assert torch.equal(once, network.forward_train(x)[0])
    assert torch.equal(torch.get_rng_state(), state)


def all_of(name: str, num_cells: int) -> Genotype:
    return Genotype(cells=[[(name, source) for _ in range(4) for source in (0, 1)]] * num_cells)


def first_map(network: Network, x: torch.Tensor, *arguments) -> torch.Tensor:
    """Return the first cell's output, (N, 4C, H, W), in a training forward; the cell is a normal one."""
    seen = []
    handle = network.cells[0].register_forward_hook(lambda cell, inputs, output: seen.append(output))
    network.forward_train(x, *arguments)
    handle.remove()
    return seen[0]


def test_a_training_forward_compiles_whole(g):
    """Drop-path's masks are values, so nothing in the forward breaks the graph; with the auxiliary head as well."""
    from torch import _dynamo

    if not _dynamo.is_dynamo_supported():
        pytest.skip("this Python has no torch.compile")
    network, x = Network(DARTS, 4, auxiliary=True), torch.randn(4, 3, 8, 8)
    compiled = torch.compile(network.forward_train, fullgraph=True, backend="eager")
    masks = drop_path_masks(3, 4, 0.3, g)
    for found, expected in zip(compiled(x, masks), network.forward_train(x, masks), strict=True):
        torch.testing.assert_close(found, expected)


def test_drop_path_never_falls_on_an_identity(g):
    x = torch.randn(4, 3, 8, 8)
    network = Network(all_of("skip_connect", 3), 4).eval()
    masks = drop_path_masks(3, 4, 0.9, g)
    assert torch.equal(first_map(network, x, masks), first_map(network, x))
    network = Network(all_of("max_pool_3x3", 3), 4).eval()
    assert not torch.equal(first_map(network, x, masks), first_map(network, x))


@pytest.mark.parametrize("rate", [0.3, 0.6])
def test_drop_path_is_per_image_and_unbiased(g, rate):
    """On 4,000 copies of an image, node 2 is m_0 o_0 + m_1 o_1: its mean is the undropped, and each m is 0 or 1/(1 -
    rate).
    """
    torch.manual_seed(0)
    network = Network(all_of("sep_conv_3x3", 3), 4).eval()
    x = torch.randn(1, 3, 8, 8).expand(4000, -1, -1, -1)
    with torch.no_grad():
        plain = first_map(network, x[:2])[0, :4]
        dropped = first_map(network, x, drop_path_masks(3, 4000, rate, g))[:, :4]
    values = dropped.flatten(1)
    assert len(values[:, values.std(0).argmax()].mul(1e4).round().unique()) == 4  # both, one, the other, none
    zero = (values.abs().sum(1) == 0).float().mean()
    assert abs(float(zero) - rate**2) < 0.03
    scale = float(plain.abs().max())
    torch.testing.assert_close(dropped.mean(0), plain, rtol=0, atol=0.1 * scale)


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.6])
def test_masks_of_drop_path_are_drawn_for_each_cell_edge_and_image(rate):
    """0 at the rate, else 1 / (1 - rate), from the generator alone; so every edge of a cell has masks of its own."""
    draw = lambda seed: drop_path_masks(5, 400, rate, torch.Generator().manual_seed(seed))  # noqa: E731
    masks = draw(1)
    assert masks.shape == (5, 14, 400, 1, 1, 1) and torch.equal(masks, draw(1))
    assert set(masks.unique().tolist()) == ({0.0, float(torch.tensor(1) / (1 - rate))} if rate else {1.0})
    assert abs(float((masks == 0).float().mean()) - rate) < 0.01
    assert len(masks.flatten(2).flatten(0, 1).unique(dim=0)) == (5 * 14 if rate else 1)
    assert torch.equal(masks, draw(2)) == (rate == 0)


def test_each_edge_has_the_mask_that_is_its_own():
    """With one edge's outputs dropped, the cell is the one without that edge's operation."""
    torch.manual_seed(0)
    network, x = Network(DARTS, 4).eval(), torch.randn(2, 3, 8, 8)
    whole = network.maps(x, lambda cell, edge, operations, state: state.through(*operations.values()))
    for cell, edge in ((0, 0), (1, 3), (2, 1)):
        masks = drop_path_masks(3, 2, 0.0, torch.Generator())
        masks[cell, edge] = 0.0
        without = lambda c, e, operations, state, at=(cell, edge): (  # noqa: E731
            0 * state.through(*operations.values()) if (c, e) == at else state.through(*operations.values())
        )
        expected = network.head(network.maps(x, without)[-1].mean((2, 3)))
        torch.testing.assert_close(network.forward_train(x, masks)[0], expected)
        assert not torch.allclose(expected, network.head(whole[-1].mean((2, 3))))


def pruned(affine: bool = False, width: int = 4) -> SuperNet:
    """A supernet whose three cells have become their final 8 edges, its BatchNorms calibrated."""
    torch.manual_seed(0)
    supernet = SuperNet(width, 3, affine=affine)
    with torch.no_grad():
        supernet.alpha.normal_()
    for cell in range(3):
        supernet.prune(cell, "top2")
    calibrate(supernet, torch.randn(2, 8, 3, 8, 8), lambda x: supernet(x, supernet.kept_paths()))
    return supernet.eval()


def test_a_supernet_pruned_with_top2_is_the_exported_network():
    supernet = pruned()
    network = Network(supernet.genotype(), 4, head=supernet.head).eval()
    load_concomitant(network, supernet.state_dict())
    x = torch.randn(20, 3, 8, 8)
    assert torch.equal(network(x), supernet(x, supernet.kept_paths()))


@pytest.mark.parametrize("affine", [False, True])
def test_report_says_what_was_taken_over_is_new_and_left_over(affine):
    supernet = pruned(affine)
    weights = supernet.state_dict()
    network = Network(supernet.genotype(), 4, auxiliary=True)
    report = load_concomitant(network, weights)
    own = network.state_dict()
    assert sorted(report.matched + report.new) == sorted(own)
    assert all(torch.equal(own[name], weights[name]) for name in report.matched)
    norms = [name for name in report.new if not name.startswith(("head.", "auxiliary_head."))]
    assert {"head.weight", "head.bias", "auxiliary_head.classifier.weight"} <= set(report.new)
    assert all(torch.equal(own[name], torch.full_like(own[name], float(name.endswith("weight")))) for name in norms)
    stem = ["stem.0.1.weight", "stem.0.1.bias"]
    if affine:
        assert norms == []
    else:
        assert set(norms) >= {"cells.0.preprocess0.2.weight", "cells.0.preprocess0.2.bias"} and not set(norms) & set(
            stem
        )
    assert "stem.0.0.weight" in report.matched
    assert set(report.left_over) == {"alpha", *(name for name in weights if name.startswith("head."))}
    assert (
        str(report)
        == f"{len(report.matched)} tensors taken over, {len(report.new)} new, {len(report.left_over)} left over"
    )


def test_edges_that_the_genotype_does_not_keep_are_left_over():
    supernet = SuperNet(4, 3)
    genotype = derive(torch.randn(3, 14, 7))
    report = load_concomitant(Network(genotype, 4), supernet.state_dict())
    kept = tuple(f"cells.{c}.edges.{e}.{name}." for c in range(3) for e, name in genotype.edges(c).items())
    edges = [name for name in supernet.state_dict() if ".edges." in name]
    assert {name for name in report.left_over if ".edges." in name} == {
        name for name in edges if not name.startswith(kept)
    }


def broken(weights: dict, how: str) -> dict:
    weights = dict(weights)
    if how == "missing":
        del weights["cells.2.preprocess1.1.weight"]
    if how == "missing statistics":
        del weights["cells.2.preprocess1.2.running_mean"]
    if how == "stray":
        weights["cells.2.extra.weight"] = torch.zeros(3)
    if how == "stray cell":
        weights["cells.3.edges.0.sep_conv_3x3.1.weight"] = torch.zeros(3)
    return weights


@pytest.mark.parametrize(
    ("how", "named"),
    [
        ("missing", "cells.2.preprocess1.1.weight is missing"),
        ("missing statistics", "cells.2.preprocess1.2.running_mean is missing"),
        ("stray", "cells.2.extra.weight has no place"),
        ("stray cell", "cells.3.edges.0.sep_conv_3x3.1.weight has no place"),
        ("width", r"stem.0.0.weight is \(18, 3, 3, 3\), expected \(12, 3, 3, 3\)"),
        ("operation", "cells.0.edges.0.*is missing"),
    ],
)
def test_a_mismatch_fails_and_leaves_the_network_alone(how, named):
    supernet = pruned(width=6 if how == "width" else 4)
    genotype = supernet.genotype()
    if how == "operation":
        other = "sep_conv_5x5" if genotype.cells[0][0][0] != "sep_conv_5x5" else "sep_conv_3x3"
        genotype = Genotype(cells=[[(other, 0), *genotype.cells[0][1:]], *genotype.cells[1:]])
    network = Network(genotype, 4)
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(InputError, match=named) as error:
        load_concomitant(network, broken(supernet.state_dict(), how))
    assert "\n" not in str(error.value)
    assert ("more)" in str(error.value)) == (how in ("width", "operation"))  # all others have one fault
    assert all(torch.equal(t, before[name]) for name, t in network.state_dict().items())


def test_an_operation_that_was_pruned_away_is_never_new():
    """Pruned without caps, a skip on every edge, and then asked for with caps: refused, not made up."""
    supernet = SuperNet(4, 3)
    for cell in range(3):
        supernet.prune(cell, "all", None, None)  # alpha is 0
    load_concomitant(Network(supernet.genotype(None, None), 4), supernet.state_dict())
    with pytest.raises(InputError, match=r"cells.0.edges.*sep_conv_3x3.*is missing"):
        load_concomitant(Network(supernet.genotype(max_skips=0), 4), supernet.state_dict())


def test_weights_move_from_network_to_network():
    one, two = Network(DARTS, 4, num_classes=10), Network(DARTS, 4, num_classes=3)
    report = load_concomitant(two, one.state_dict())
    assert [name for name in report.new if not name.startswith("head.")] == []
    assert report.left_over == ["head.weight", "head.bias"]
    assert two.head.out_features == 3
