"""Has alpha learnt? What several searches' records say of it together."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from sswp_lib.config import InputError
from sswp_lib.paper import learnt
from sswp_lib.paper.lots import random_genotype
from sswp_lib.show import comparisons, maps
from sswp_lib.space import Genotype


def search(seed: int, alpha: np.ndarray, drift=(1.0, 2.0), updates: int = 100) -> SimpleNamespace:
    evidence = {
        "updates": np.full(alpha.shape, updates).tolist(),
        "alpha": alpha.tolist(),
        "walk": np.ones(alpha.shape).tolist(),
        "drift": list(drift),
        "margin": [1.0, 1.5],
    }
    return SimpleNamespace(seed=seed, result={"evidence": evidence})


def searches(count: int, noise: float) -> list[SimpleNamespace]:
    """Return searches of two cells whose alpha is one and the same, plus noise."""
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(2, 14, 7))
    return [search(k, shared + noise * rng.normal(size=shared.shape)) for k in range(count)]


def test_alpha_is_centred_by_edge_before_it_is_compared():
    """What is added to a whole edge changes no probability, and no correlation."""
    rng = np.random.default_rng(1)
    one, two = rng.normal(size=(2, 2, 14, 7))
    lifted = [search(0, one + 5 * rng.normal(size=(2, 14, 1))), search(1, two - 3)]
    assert learnt.by_entry(lifted)[0] == pytest.approx(learnt.by_entry([search(0, one), search(1, two)])[0])
    assert np.abs(learnt.alphas(lifted).mean(-1)).max() < 1e-12


def test_the_correlation_is_that_of_the_part_that_searches_share():
    """Equal parts of signal and noise: 1/2; without noise: 1."""
    r, low, high = learnt.by_entry(searches(6, 1.0))
    assert r == pytest.approx(0.5, abs=0.05) and low < r < high and high - low < 0.3
    assert learnt.by_entry(searches(3, 0.0))[0] == pytest.approx(1)
    r, low, high = learnt.by_entry([search(k, np.random.default_rng(k).normal(size=(2, 14, 7))) for k in range(6)])
    assert low < 0 < high and abs(r) < 0.1


def test_by_lot_a_chance_of_five_per_cent_comes_in_five_of_a_hundred():
    rng = np.random.default_rng(0)
    values = [rng.normal(size=(3, 2, 14, 7)) for _ in range(400)]
    found = [learnt.chance(v - v.mean(-1, keepdims=True)) for v in values]
    assert 8 <= sum(p < 0.05 for p in found) <= 34
    assert learnt.chance(learnt.alphas(searches(3, 1.0))) < 1e-6


def test_operations_means_agree_where_single_entries_do_not():
    rng = np.random.default_rng(0)
    preferred = np.linspace(-0.5, 0.5, 7)
    found = [search(k, preferred + 2 * rng.normal(size=(2, 14, 7))) for k in range(4)]
    assert learnt.by_operation(found)[0] > learnt.by_entry(found)[0] + 0.2


@pytest.mark.parametrize("count, known", [(1, (False, False)), (2, (True, False)), (3, (True, True))])
def test_an_interval_needs_three_searches(count, known):
    r, low, high = learnt.by_entry(searches(count, 1.0))
    assert (not np.isnan(r), not np.isnan(low) and not np.isnan(high)) == known


def test_the_jackknifes_interval_covers_what_is_true():
    """Of 200 sets of five searches that share half, about 95 % of the intervals have 1/2 in them."""
    rng, hits = np.random.default_rng(0), 0
    for _ in range(200):
        values = rng.normal(size=(2, 14, 7)) + rng.normal(size=(5, 2, 14, 7))
        _, low, high = learnt.agreement(values)
        hits += low < 0.5 < high
    assert hits >= 176


def test_searches_of_other_shapes_are_refused():
    with pytest.raises(InputError, match=r"alpha has the shapes .*; expected searches of one configuration"):
        learnt.alphas([search(0, np.zeros((2, 14, 7))), search(1, np.zeros((3, 14, 7)))])


def test_a_row_a_cell_and_one_for_all():
    table = learnt.by_cell([search(0, np.zeros((2, 14, 7))), search(1, np.zeros((2, 14, 7)), drift=(None, 6.0))])
    assert table["cell"].tolist() == [0, 1, "all cells"] and table["updates of an entry"].tolist() == [100] * 3
    assert table["drift"].tolist() == [1, 4, 3]
    assert table["s"].tolist()[1:] == pytest.approx([(3 / 100) ** 0.5, (2 / 100) ** 0.5], abs=1e-3)
    assert np.isnan(table["s"].iloc[0])  # at a drift of 1 there is no signal to speak of


@pytest.mark.parametrize("noise, count, said", [
    (0.3, 4, False), (1e6, 4, True), (1e6, 1, False),
])  # fmt: skip
def test_chance_is_called_chance(noise, count, said):
    text = learnt.sentence(searches(count, noise))
    assert ("close to a draw by lot" in text) == said
    assert ("One search" in text) == (count == 1)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_figure_has_a_dot_for_each_search_and_cell(count):
    figure = comparisons.evidence(searches(count, 1.0))
    left, right = figure.axes
    dots = [line for line in left.lines if line.get_marker() not in ("", "None")]
    assert sum(len(line.get_xdata()) for line in dots) == 2 * count
    assert (count > 1) == right.axison
    if count > 1:
        assert sum(len(line.get_xdata()) for line in right.lines) == 2 * 14 * 7


def planted_search(seed: int, alpha: np.ndarray) -> SimpleNamespace:
    found = search(seed, alpha)
    found.config = {"search": {"planted": ["noise", "zero", "twin"]}}
    return found


def test_what_same_weights_share_is_told_from_what_seeds_share():
    """A part common to all, a part of each seed, and noise: 1/3 between seeds, 2/3 between searches of one."""
    rng = np.random.default_rng(0)
    shared, own = rng.normal(size=(2, 14, 7)), rng.normal(size=(6, 2, 14, 7))
    draw = lambda k: search(k, shared + own[k] + rng.normal(size=shared.shape))  # noqa: E731
    first, again = [draw(k) for k in range(6)], [draw(k) for k in range(3)]
    assert learnt.by_entry(first)[0] == pytest.approx(1 / 3, abs=0.06)
    mean, low, high = learnt.same_weights(first, again)["entries"]
    assert mean == pytest.approx(2 / 3, abs=0.06) and low < mean < high
    table = learnt.agreements(first, again, "quick")
    assert table["two searches of"].tolist() == ["other seeds (6 searches)", "same seed, alpha learnt twice (3 pairs)"]
    assert table["entries of alpha correlate"][1] == learnt.interval((mean, low, high))


def test_edges_from_inner_nodes_are_counted():
    """Of the two edges into each node, by lot 0, 2/3, 1 and 6/5 come from inner nodes."""
    assert pytest.approx((2 / 3 + 1 + 6 / 5) / 8) == learnt.INNER_BY_LOT
    shallow = Genotype(cells=[[("skip_connect", 0), ("skip_connect", 1)] * 4] * 2)
    deep = Genotype(cells=[[("skip_connect", source) for source in (0, 1, 0, 2, 2, 3, 3, 4)]] * 2)
    found = [SimpleNamespace(genotype=genotype) for genotype in (shallow, deep)]
    assert learnt.inner_edges(found)[0] == pytest.approx(0.5 * 5 / 8)
    lots = [SimpleNamespace(genotype=random_genotype(3, seed)) for seed in range(200)]
    mean, low, high = learnt.inner_edges(lots)
    assert low < learnt.INNER_BY_LOT < high and mean == pytest.approx(learnt.INNER_BY_LOT, abs=0.02)


def test_planted_operations_are_judged_on_every_edge():
    rng = np.random.default_rng(0)
    alpha = 0.1 * rng.normal(size=(2, 2, 14, 10))
    alpha[..., 7] -= 2.0  # noise
    alpha[0, :, :7, 8] -= 5.0  # zero, on 14 of 56 edges; there it is worse than noise
    alpha[..., 9] = alpha[..., 4] + rng.normal(size=alpha.shape[:-1])  # the twin
    found = [planted_search(k, values) for k, values in enumerate(alpha)]
    table = learnt.judged_planted(found, "quick").set_index("candidate")
    assert list(table.index)[-3:] == ["noise", "zero", "twin"] and len(table) == 10
    assert table.loc["noise", "below the edge's mean (%)"] == 100 and table.loc["noise", "best of its edge (%)"] == 0
    assert 25 <= table.loc["zero", "below the edge's mean (%)"] < 60 and (table["edges"] == 56).all()
    inputs, inner = table.loc["zero", ["of edges from the cell's inputs (%)", "of edges from inner nodes (%)"]]
    assert inner < 40 < inputs  # in one search of two: 6 of the 8 edges from inputs, 1 of the 6 others
    assert inputs * 8 + inner * 6 == pytest.approx(14 * table.loc["zero", "below the edge's mean (%)"], abs=1)
    assert table["best of its edge (%)"].sum() == pytest.approx(100, abs=0.5)
    mean, low, high = learnt.twins(found, "sep_conv_5x5")
    assert low < 0 < high and abs(mean) < 0.4
    assert learnt.twins(found, "sep_conv_3x3")[2] - learnt.twins(found, "sep_conv_3x3")[1] > 0
    assert maps.planted(found).axes[0].get_yticklabels()[7].get_text() == "noise"


def relaxed(seed: int, alpha: np.ndarray) -> SimpleNamespace:
    """A relaxed search's record: the mixture's weights, to five digits."""
    weights = np.exp(alpha) / np.exp(alpha).sum(-1, keepdims=True)
    return SimpleNamespace(name=f"search-{seed}", seed=seed, result={"mixture": {"weights": weights.round(5).tolist()}})


def test_alpha_of_a_relaxed_search_is_told_by_its_mixture():
    """But for a constant of each edge, and the digits that a record keeps."""
    alpha = np.random.default_rng(0).normal(size=(3, 2, 14, 8))
    found = learnt.alphas([relaxed(seed, values) for seed, values in enumerate(alpha)])
    assert np.abs(found - (alpha - alpha.mean(-1, keepdims=True))).max() < 1e-2
    one, two = (relaxed(seed, 3 * alpha[0] + values) for seed, values in enumerate(alpha[1:]))
    assert learnt.by_entry([one, two])[0] > 0.8
    sure = np.zeros((2, 14, 8))
    sure[..., 3] = 30.0  # all others are rounded to 0
    assert np.isfinite(learnt.alphas([relaxed(0, sure)])).all()


def test_a_record_that_does_not_tell_its_alpha_is_named():
    with pytest.raises(InputError, match="the record of search-9 does not tell its alpha"):
        learnt.alphas([SimpleNamespace(name="search-9", seed=9, result={})])
