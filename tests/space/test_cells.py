"""The paper's space as one-shot methods see it: genotypes are drawn, changed and run along the supernet."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from sswp_lib.config import InputError
from sswp_lib.space import CANDIDATES, EDGES, CellSpace, Genotype, Network, load_concomitant
from sswp_lib.space.ops import calibrate

SPACE = CellSpace(3)


def test_genotypes_are_drawn_uniformly(g):
    """Of each node two different inputs, each as often as another, and operations likewise."""
    drawn = [SPACE.draw(g) for _ in range(1500)]
    pairs = Counter(
        (position // 2, source) for one in drawn for c in one.cells for position, (_, source) in enumerate(c)
    )
    for (node, _), count in pairs.items():
        assert count / 4500 == pytest.approx(2 / (node + 2), abs=0.04)
    names = Counter(name for one in drawn for c in one.cells for name, _ in c)
    assert len(names) == 7 and max(abs(n / sum(names.values()) - 1 / 7) for n in names.values()) < 0.01
    assert all(cell[i][1] < cell[i + 1][1] for one in drawn[:50] for cell in one.cells for i in range(0, 8, 2))


def test_two_genotypes_share_no_operation_on_an_edge(g):
    for _ in range(100):
        one, two = SPACE.draw_two(g)
        for cell in range(3):
            mine, theirs = one.edges(cell), two.edges(cell)
            assert [edge for edge in mine if theirs.get(edge) == mine[edge]] == []


def test_paths_run_the_genotype_and_nothing_else(g):
    genotype = SPACE.draw(g)
    active = SPACE.paths(genotype).active
    assert active.shape == (3, len(EDGES)) and ((active >= 0).sum(1) == 8).all()
    for cell in range(3):
        taken = {e: CANDIDATES[k] for e, k in enumerate(active[cell].tolist()) if k >= 0}
        assert taken == genotype.edges(cell)


def test_the_supernet_along_a_genotype_is_its_network(g):
    """Behind the same weights and statistics of the same images, the features are the same."""
    torch.manual_seed(0)
    supernet, genotype = SPACE.supernet(init_channels=4, num_cells=3), SPACE.draw(g)
    network = SPACE.network(genotype, init_channels=4)
    assert isinstance(network, Network)
    load_concomitant(network, supernet.state_dict())
    x, paths = torch.randn(8, 3, 8, 8, generator=g), SPACE.paths(genotype)
    calibrate(supernet, [x], lambda images: supernet.features(images, paths))
    calibrate(network, [x])
    with torch.no_grad():
        torch.testing.assert_close(supernet.eval().features(x, paths), network.eval().features(x))


def test_mutation_changes_nodes_and_crossover_takes_them_from_either(g):
    one, two = SPACE.draw(g), SPACE.draw(g)
    assert SPACE.mutation(one, 1e-12, g) == one
    nodes = lambda genotype: [tuple(map(tuple, c[i : i + 2])) for c in genotype.cells for i in range(0, 8, 2)]  # noqa: E731
    children = [SPACE.crossover(one, two, g) for _ in range(200)]
    of_one = sum(a == b for child in children for a, b in zip(nodes(child), nodes(one), strict=True))
    of_two = sum(a == b for child in children for a, b in zip(nodes(child), nodes(two), strict=True))
    assert of_one + of_two >= 200 * 12 and abs(of_one - of_two) < 300
    changed = sum(
        a != b for _ in range(200) for a, b in zip(nodes(SPACE.mutation(one, 0.25, g)), nodes(one), strict=True)
    )
    assert changed / 2400 == pytest.approx(0.25, abs=0.04)


def test_genotypes_are_read_and_told_apart(g):
    genotype = SPACE.draw(g)
    assert SPACE.read(SPACE.write(genotype)) == genotype and hash(SPACE.read(SPACE.write(genotype))) == hash(genotype)
    assert len({genotype, Genotype(cells=genotype.cells), SPACE.draw(g)}) == 2
    with pytest.raises(InputError, match="a genotype of 2 cells; expected 3"):
        SPACE.read(CellSpace(2).draw(g).to_json())
    with pytest.raises(InputError, match="num_cells is 4; expected the space's 3"):
        SPACE.supernet(init_channels=4, num_cells=4)
