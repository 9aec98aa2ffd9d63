"""The supernet: its size, what runs in a step, pruning."""

from __future__ import annotations

import copy
from collections import Counter

import pytest
import torch

from sswp_lib.config import InputError
from sswp_lib.space import CANDIDATES, EDGES, SuperNet, changed_by_caps, derive, sample_paths, sample_two_paths
from sswp_lib.space.genotype import NON_PARAMETERISED
from sswp_lib.space.paths import searching_edges


def test_size_at_the_papers_width_and_depth():
    supernet = SuperNet(init_channels=36, num_cells=20)
    assert sum(p.numel() for p in supernet.weight_parameters()) == 20_332_748
    assert supernet.alpha.shape == (20, 14, 7) and not supernet.alpha.any()
    assert sum(p.numel() for p in supernet.parameters()) == 20_332_748 + 20 * 14 * 7


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_channels_and_maps(stem):
    """Channels double and maps halve at the reductions; the ImageNet stem has brought them to an eighth before."""
    supernet, seen = SuperNet(4, 6, stem=stem), []
    handles = [
        cell.register_forward_hook(lambda cell, inputs, output: seen.append(tuple(output.shape[1:])))
        for cell in supernet.cells
    ]
    paths = sample_paths(supernet.alpha, supernet.present, torch.Generator().manual_seed(0))
    size = 32 if stem == "cifar" else 256
    assert supernet(torch.randn(2, 3, size, size), paths).shape == (2, 128)
    assert seen == [(16, 32, 32)] * 2 + [(32, 16, 16)] * 2 + [(64, 8, 8)] * 2
    assert len(handles) == 6


def test_unknown_stem_is_refused():
    with pytest.raises(InputError, match=r"'tiny'.*cifar, imagenet"):
        SuperNet(4, 3, stem="tiny")


def calls_of(supernet: SuperNet, x: torch.Tensor, paths) -> Counter:
    """Return how often each (cell, edge, operation) ran."""
    ran: Counter = Counter()
    handles = []
    for i, cell in enumerate(supernet.cells):
        for edge, operations in cell.edges.items():
            for name, operation in operations.items():
                key = (i, int(edge), CANDIDATES.index(name))
                handles.append(operation.register_forward_hook(lambda *_, key=key: ran.update([key])))
    supernet(x, paths)
    for handle in handles:
        handle.remove()
    return ran


def once(*choices: torch.Tensor) -> Counter:
    """Return a count of 1 for each (cell, edge, operation) of (cells, 14) choices."""
    return Counter(
        (c, e, k) for chosen in choices for c, row in enumerate(chosen.tolist()) for e, k in enumerate(row) if k >= 0
    )


def test_a_weight_step_runs_the_active_operation_only(supernet, images, g):
    paths = sample_paths(supernet.alpha, supernet.present, g)
    assert calls_of(supernet, images, paths) == once(paths.active)


def test_an_architecture_step_runs_both_sampled_operations_once(supernet, images, g):
    paths = sample_two_paths(supernet.alpha, supernet.present, g)
    assert calls_of(supernet, images, paths) == once(paths.active, paths.inactive)


@pytest.mark.parametrize("edges", ["all", "top2"])
def test_at_pruned_edges_only_the_kept_one_runs(supernet, images, g, edges):
    kept = supernet.prune(0, edges)
    two = sample_two_paths(supernet.alpha, supernet.present, g)
    ran = calls_of(supernet, images, two)
    assert {(e, CANDIDATES[k]): n for (c, e, k), n in ran.items() if c == 0} == dict.fromkeys(kept.items(), 1)
    assert sum(n for (c, _, _), n in ran.items() if c == 1) == 28


def test_an_operation_off_the_path_gets_no_gradient(supernet, images, g):
    paths = sample_paths(supernet.alpha, supernet.present, g)
    supernet(images, paths).square().sum().backward()
    ran = {f"cells.{c}.edges.{e}.{CANDIDATES[k]}." for c, e, k in once(paths.active)}
    for name, parameter in supernet.named_parameters():
        on_path = name != "alpha" and (".edges." not in name or name.startswith(tuple(ran)))
        assert (parameter.grad is not None) == on_path, name


def test_output_is_that_of_the_active_operations(supernet, images, g):
    """What is inactive changes no value: an architecture step's output equals a weight step's on the same active
    paths.
    """
    two = sample_two_paths(supernet.alpha, supernet.present, g)
    one = copy.copy(two)
    object.__setattr__(one, "inactive", None)
    assert torch.equal(supernet(images, two), supernet(images, one))


@pytest.mark.parametrize("edges", ["all", "top2"])
def test_pruning_leaves_what_stays_bitwise_as_it_was(supernet, edges):
    before = {name: t.clone() for name, t in supernet.state_dict().items()}
    tensors = dict(supernet.named_parameters())
    count = sum(p.numel() for p in supernet.weight_parameters())
    kept = supernet.prune(1, edges)
    after = supernet.state_dict()
    assert set(after) < set(before)
    assert all(torch.equal(t, before[name]) for name, t in after.items() if name != "present")
    assert all(tensors[name] is p for name, p in supernet.named_parameters())
    dropped = sum(before[name].numel() for name in tensors if name not in after)
    assert 0 < dropped == count - sum(p.numel() for p in supernet.weight_parameters())
    prefixes = tuple(f"cells.1.edges.{edge}.{name}." for edge, name in kept.items())
    assert all(name.startswith(prefixes) for name in after if name.startswith("cells.1.edges."))
    others = {name for name in before if not name.startswith("cells.1.edges.")}
    assert others <= set(after)


@pytest.mark.parametrize("caps", [(2, 2), (0, 0), (None, None)])
def test_all_keeps_the_best_of_every_edge_and_what_the_export_takes(supernet, caps):
    """Without caps the best of each edge (the paper); with caps the 8 edges of the export hold what it asks for."""
    with torch.no_grad():
        supernet.alpha[..., :3] += 2  # caps have something to do
    for cell in range(3):
        best = {edge: CANDIDATES[int(k)] for edge, k in enumerate(supernet.alpha[cell].argmax(-1))}
        exported = derive(supernet.alpha, *caps).edges(cell)
        kept = supernet.prune(cell, "all", *caps)
        assert kept == best | exported
        assert (kept == best) == (caps == (None, None))
        assert len(supernet.cells[cell].edges) == 14
        assert torch.equal(supernet.present[cell].sum(-1), torch.ones(14, dtype=torch.long))
        assert supernet.kept_paths().names(cell) == [kept[edge] for edge in range(14)]


@pytest.mark.parametrize("caps", [(2, 2), (0, 0), (None, None)])
def test_top2_keeps_what_derive_takes(supernet, caps):
    """After pruning as before: the genotype of alpha is what the cells have become, caps included."""
    with torch.no_grad():
        supernet.alpha[..., :3] += 2  # caps have something to do
    before = derive(supernet.alpha, *caps)
    assert (changed_by_caps(supernet.alpha, *caps) > 0) == (caps != (None, None))
    for cell in range(3):
        kept = supernet.prune(cell, "top2", *caps)
        assert dict(sorted(kept.items())) == before.edges(cell)
    after = supernet.genotype(*caps)
    assert after == before
    for i, cell in enumerate(supernet.cells):
        assert {int(edge): [*operations] for edge, operations in cell.edges.items()} == {
            e: [name] for e, name in after.edges(i).items()
        }
    assert supernet.kept_paths().names(0) == [before.edges(0).get(edge, "-") for edge in range(14)]
    if caps == (0, 0):
        assert not {name for cell in after.cells for name, _ in cell} & set(NON_PARAMETERISED)


def test_two_skips_and_two_pools_are_the_caps_unless_said_otherwise(supernet):
    with torch.no_grad():
        supernet.alpha[..., :3] += 2  # without caps there would be more
    expected = [derive(supernet.alpha, 2, 2).edges(cell) for cell in range(3)]
    assert derive(supernet.alpha) == supernet.genotype() == supernet.genotype(2, 2)
    assert supernet.genotype() not in (supernet.genotype(3, 2), supernet.genotype(2, 3))
    assert dict(sorted(supernet.prune(0, "top2").items())) == expected[0]
    kept = supernet.prune(1)
    assert len(kept) == 14 and kept == kept | expected[1]


def test_a_cell_is_pruned_once(supernet):
    assert supernet.num_searching == 3
    supernet.prune(2)
    assert supernet.num_searching == 2
    assert searching_edges(supernet.present).any(-1).tolist() == [True, True, False]
    with pytest.raises(InputError, match="cell 2 is pruned already"):
        supernet.prune(2)
    with pytest.raises(InputError, match=r"'both'.*all, top2"):
        supernet.prune(0, "both")


def test_prune_as_makes_a_new_supernet_fit(supernet, images):
    supernet.prune(0, "top2")
    supernet.prune(1, "all")
    other = SuperNet(4, 3).double()
    other.prune_as(supernet.present)
    assert torch.equal(other.present, supernet.present)
    other.load_state_dict(supernet.state_dict())
    paths = supernet.kept_paths()
    assert torch.equal(other(images, paths), supernet(images, paths))


def test_gradient_reaches_the_image_through_pruned_cells(supernet, images):
    for cell in range(3):
        supernet.prune(cell, "top2")
    images.requires_grad_()
    gradient = torch.autograd.grad(supernet(images, supernet.kept_paths()).square().sum(), images)[0]
    assert torch.isfinite(gradient).all() and gradient.abs().sum() > 0
    assert len(EDGES) == 14
