"""Genotypes by lot are of the size that is asked for, and equally probable among all that are."""

from collections import Counter

import pytest
import torch

from sswp_lib.config import InputError
from sswp_lib.learn.measure import sizes
from sswp_lib.paper import lots
from sswp_lib.presets import load_config
from sswp_lib.space import CANDIDATES, EDGES, Genotype
from sswp_lib.space.genotype import EDGES_OF_NODE, POOLS, SKIPS


def parameters(genotype: Genotype, channels: int = 4) -> int:
    return sizes(genotype, channels, 10, 8)["parameters"]


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_parameters_of_operations_add_up(stem):
    costs = lots.operation_parameters(4, 3, stem)
    rest = {
        sizes(g, 4, 10, 32, stem)["parameters"] - lots._sum(costs, lots._places(g))
        for g in (lots.random_genotype(3, seed) for seed in range(4))
    }
    assert len(rest) == 1


def extreme(names: tuple[str, ...]) -> Genotype:
    return Genotype(cells=[[(name, source) for name, source in zip(names, (0, 1) * 4, strict=True)]] * 3)


@pytest.mark.parametrize(
    "found",
    [
        lots.random_genotype(3, 0),
        extreme(("sep_conv_5x5",) * 6 + ("sep_conv_3x3",) * 2),
        extreme(("dil_conv_3x3",) * 6 + ("skip_connect", "max_pool_3x3")),
    ],
    ids=["any", "large", "small"],
)
def test_size_is_within_five_percent_and_caps_hold(found):
    drawn = [lots.random_genotype_like(found, 4, seed) for seed in range(2)]
    assert len({g.to_json() for g in drawn}) == 2 and drawn[0] == lots.random_genotype_like(found, 4, 0)
    for genotype in drawn:
        assert abs(parameters(genotype) / parameters(found) - 1) <= 0.05
        for cell in genotype.cells:
            names = [name for name, _ in cell]
            assert all(sum(name in kind for name in names) <= 2 for kind in (SKIPS, POOLS))
            assert all(len({source for _, source in cell[2 * node : 2 * node + 2]}) == 2 for node in range(4))


def test_every_genotype_of_the_size_is_equally_probable(monkeypatch):
    """In a space small enough to count them: one cell with only one edge's operation to be chosen."""
    monkeypatch.setattr(lots, "TOLERANCE", 0.2)
    full = lots.operation_parameters(4, 1, "cifar")
    allowed = torch.zeros(full.shape, dtype=torch.bool)
    allowed[..., CANDIDATES.index("sep_conv_3x3")] = True
    edge = EDGES_OF_NODE[2][0]  # both edges of the first node are always there
    allowed[0, edge] = True

    def drawn(costs, rate, g):
        weights = torch.where(allowed, (rate * (costs - costs.amax())).exp(), 0.0)
        places = []
        for edges in EDGES_OF_NODE.values():
            for e in edges[:2]:
                places.append((0, e, int(torch.multinomial(weights[0, e], 1, generator=g))))
        return places

    monkeypatch.setattr(lots, "_drawn", drawn)
    found = Genotype(cells=[[("sep_conv_3x3", EDGES[e][0]) for edges in EDGES_OF_NODE.values() for e in edges[:2]]])
    counts = Counter(dict(lots.random_genotype_like(found, 4, seed).edges(0))[edge] for seed in range(100))
    target = parameters(found)
    fits = {
        name
        for k, name in enumerate(CANDIDATES)
        if abs(float(full[0, edge, k] - full[0, edge, CANDIDATES.index("sep_conv_3x3")])) <= 0.2 * target
    }
    assert set(counts) == fits and len(fits) >= 3
    assert all(abs(count - 100 / len(fits)) < 5 * (100 / len(fits)) ** 0.5 for count in counts.values())


def test_a_size_that_none_has_is_refused(monkeypatch):
    monkeypatch.setattr(lots, "TRIES", 20)
    with pytest.raises(InputError, match=r"no genotype of .* within 5 % in 20 draws"):
        lots.random_genotype_like(extreme(("skip_connect",) * 8), 4, 0)


def test_a_lot_goes_by_the_search():
    config = load_config("smoke", seed=3)
    found = lots.random_genotype(3, 0)
    assert lots.Lot(config).genotype(found) == lots.random_genotype_like(found, 4, 3)
