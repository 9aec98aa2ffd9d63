"""Random search: equal trainings, the best by the other half kept, an interruption anywhere."""

from __future__ import annotations

import pytest
from resuming import left_anywhere, run

from sswp_lib.learn.random_search import RandomSearch
from sswp_lib.space import Network, load_concomitant

FAST = {
    "search.method": "random", "random.draws": 3, "search.epochs": 2, "search.batch_size": 40, "model.num_cells": 2,
    "search.calibration_batches": 2,
}  # fmt: skip
BOTH = pytest.mark.parametrize("objective", ["simclr", "supervised"])


@BOTH
def test_each_draw_is_trained_alike_and_judged_on_the_other_half(config, data, objective, monkeypatch):
    seen, built = [], []
    loss, begin = RandomSearch.loss, RandomSearch._begin
    monkeypatch.setattr(RandomSearch, "loss", lambda s, index, *a, **k: seen.append(index) or loss(s, index, *a, **k))
    monkeypatch.setattr(RandomSearch, "_begin", lambda s, draw: (built.append(draw), begin(s, draw)))
    search = RandomSearch(config.changed(**FAST, **{"search.objective": objective}), data)
    lrs = [search.lr for progress in search.advance() if progress.row is None]
    each = 2 * search.num_steps
    assert built == [0, 1, 2] and lrs[:each] == lrs[each : 2 * each] == lrs[2 * each :] and lrs[0] > lrs[-1]
    half = set(search.weights_half.tolist())
    trained = [index for index in seen if set(index.tolist()) <= half]
    judged = [index for index in seen if not set(index.tolist()) & half]
    assert len(trained) == 3 * each and len(judged) >= 3 and len(trained) + len(judged) == len(seen)
    genotypes = [search.genotype(draw) for draw in range(3)]
    assert len({genotype.to_json() for genotype in genotypes}) == 3
    counts = [[sum(op == name for op, _ in cell) for cell in g.cells] for g in genotypes for name in ("skip_connect",)]
    assert max(max(c) for c in counts) <= 2  # the search's caps


@BOTH
def test_the_best_is_kept_with_its_weights(config, data, objective):
    search = run(RandomSearch(config.changed(**FAST, **{"search.objective": objective}), data))
    result, weights = search.finish()
    losses = [each["loss"] for each in result["tried"]]
    assert result["exported"]["loss"] == min(losses) and losses.index(min(losses)) == search.best
    assert result["genotype"] == search.genotype(search.best).model_dump(mode="json")
    network = Network(search.genotype(search.best), config.model.init_channels, 10)
    assert load_concomitant(network, weights).left_over == [name for name in weights if name.startswith("head.")]
    network.head = search.objective.head(network.num_features, 10)
    network.head.load_state_dict({n.removeprefix("head."): t for n, t in weights.items() if n.startswith("head.")})
    assert search._judge(network)["loss"] == pytest.approx(min(losses), rel=1e-4)


def test_interrupted_equals_uninterrupted(config, data, tmp_path):
    """Left after any step, before an epoch's row and after it, at the end of a draw too."""
    config = config.changed(**FAST, **{"search.objective": "byol"})
    assert left_anywhere(lambda: RandomSearch(config, data), tmp_path) == 3 * 2 * 3


def test_another_seed_draws_others(config, data):
    one, other = (RandomSearch(config.changed(**FAST, seed=seed), data).genotype(0) for seed in (0, 1))
    assert one != other
