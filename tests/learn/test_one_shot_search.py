"""Searches by a one-shot network: their parts in order, an interruption anywhere, what they find and leave."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from resuming import left_anywhere, run
from toy_space import TOY

from sswp_lib.config import InputError
from sswp_lib.learn import OneShot
from sswp_lib.learn.one_shot_search import OneShotSearch
from sswp_lib.learn.ranking import LinearEvaluation
from sswp_lib.learn.scoring import Scoring
from sswp_lib.learn.views import normalise
from sswp_lib.space import Genotype, Network, load_concomitant

METHODS = {
    "pi-nas": {"search.method": "pi-nas"},
    "spos": {"search.method": "spos", "one_shot.objective": "supervised"},
}
FEW = {"ranking.population": 4, "ranking.parents": 2, "ranking.mutations": 2, "ranking.crossovers": 2,
       "ranking.generations": 2, "ranking.linear_epochs": 2, "one_shot.epochs": 2}  # fmt: skip
CELLS = {"one_shot.space": "cells", "model.init_channels": 4, "model.num_cells": 3, "one_shot.epochs": 1,
         "ranking.linear_epochs": 1}  # fmt: skip
both = pytest.mark.parametrize("method", METHODS)


@pytest.fixture
def configured(toy):
    return lambda method, **settings: toy.changed(**{**FEW, **METHODS[method], **settings})


@both
def test_its_parts_come_one_after_another_as_one_run(configured, data, method):
    search, places = OneShotSearch(configured(method), data), []
    for progress in search.advance():
        places.append((progress.epoch, progress.phase, progress.row is not None))
    phases = [row["phase"] for row in search.history]
    training = ["crosspath", "crosspath", *["linear evaluation"] * 2] if method == "pi-nas" else ["supervised"] * 2
    assert phases == [*training, "evolution", "evolution"]
    assert [row["epoch"] for row in search.history] == list(range(search.num_epochs)) == list(range(len(phases)))
    assert [epoch for epoch, *_ in places] == sorted(epoch for epoch, *_ in places)
    assert [(epoch, phase) for epoch, phase, row in places if row] == list(enumerate(phases))


@both
def test_each_part_is_what_it_is_by_itself(configured, data, method):
    """The weights are those of the one-shot training, the score of the best is what a scoring by them gives."""
    config = configured(method)
    result, weights = run(OneShotSearch(config, data)).finish()
    trained, own = run(OneShot(config, data)).finish()
    assert result["one_shot"] == trained and all(torch.equal(weights[name], t) for name, t in own.items())
    classifier = None
    if method == "pi-nas":
        alone = OneShot(config, data)
        alone.supernet.load_state_dict(own)
        classifier = run(LinearEvaluation(config, data, alone.supernet)).finish()[1]
    best = TOY.choices(result["best"]["operations"])
    scored = run(Scoring(config, data, own, [best], classifier)).finish()[0]
    assert scored["scores"] == [result["best_score"]] and result["scored"] == 8 and result["held_out"] == 16


@both
def test_interrupted_equals_uninterrupted(configured, data, method, tmp_path):
    """Left after any step of any part, before an epoch's row and after it, it ends bitwise where a whole one ends."""
    config = configured(method, **{"one_shot.batch_size": 64, "ranking.linear_batch": 72})
    assert left_anywhere(lambda: OneShotSearch(config, data), tmp_path) >= 16


@both
def test_what_it_finds_in_cells_has_its_weights(configured, data, method):
    """The network of the genotype with the weights that were kept does what the supernet does along its paths."""
    search = run(OneShotSearch(configured(method, **CELLS), data))
    result, weights = search.finish()
    genotype = Genotype.model_validate(result["genotype"])
    assert genotype == search.part.best and result["parameters"] > 0 and len(result["operation_counts"]) == 7
    network = Network(genotype, 4, 10)
    new = [name for name in load_concomitant(network, weights).new if not name.startswith("head.")]
    assert {name.rpartition(".")[2] for name in new} == {"weight", "bias"}  # BatchNorm's scale and shift: 1 and 0
    ranker = search.part.ranker
    x = normalise(data.test[:20], data.mean, data.std)
    with ranker.calibrated(genotype) as along, torch.no_grad():
        expected = along(x)
    with torch.no_grad():
        torch.testing.assert_close(network.eval().features(x), expected, rtol=1e-4, atol=1e-5)


def test_labels_are_asked_for(configured, data):
    unlabelled = replace(data, train_labels=None, classes=(), test=None, test_labels=None)
    with pytest.raises(InputError, match="a search by pi-nas needs labels"):
        OneShotSearch(configured("pi-nas"), unlabelled)
