"""Tables are made from records alone and say paper, measured mean ± sd (n seeds), preset."""

import math

import pandas as pd
import pytest

from sswp_lib.lab import tables
from sswp_lib.lab.runs import Record


def training(init: str, lr: float, seed: int, validation: float, test: float) -> Record:
    result = {"trained_on": 20, "validation": {"top1": validation}, "test": {"top1": test}}
    config = {"data": {"name": "digits"}, "train": {"init": init, "lr": lr}, "seed": seed}
    return Record(name=f"train-{init}-{lr}-{seed}", kind="train", config=config, seed=seed, result=result, provenance={"seconds": 1.6})


@pytest.fixture
def trainings():
    """Two rates, two seeds, two starts: by validation the higher rate is best for random, the lower for concomitant."""
    return [
        training("random", 0.1, 0, 60.0, 51.0), training("random", 0.1, 1, 62.0, 53.0),
        training("random", 0.01, 1, 40.0, 99.0), training("random", 0.01, 0, 42.0, 99.0),
        training("concomitant", 0.1, 0, 10.0, 99.0), training("concomitant", 0.1, 1, 12.0, 99.0),
        training("concomitant", 0.01, 1, 71.0, 66.0), training("concomitant", 0.01, 0, 70.0, 62.0),
    ]  # fmt: skip


def test_no_runs_says_what_to_do():
    assert "sswp search" in tables.runs([])


def test_runs_are_one_line_each(finished, trainings):
    lines = tables.runs([finished, trainings[0]]).splitlines()
    assert len(lines) == 3
    assert finished.name in lines[1] and f"loss {finished.history[-1]['loss']:.3f}" in lines[1]
    assert "train-random-0.1-0" in lines[2] and "test 51.00 %" in lines[2]


def test_learning_rate_is_chosen_by_validation_never_by_test(trainings):
    best = tables.at_best_lr(tables.fine_tuning(trainings))
    assert dict(best.groupby("init").lr.first()) == {"random": 0.1, "concomitant": 0.01}
    assert best.test.max() < 99
    assert best.seed.tolist() == [0, 1, 0, 1]


def test_by_init_says_mean_sd_seeds_and_preset(trainings):
    table = tables.by_init(tables.at_best_lr(tables.fine_tuning(trainings)), "smoke").set_index("initialisation")
    measured = table["test accuracy (%), mean ± sd (n seeds)"]
    assert measured["concomitant"] == f"64.00 ± {math.sqrt(8):.2f} (2)"
    assert measured["random"] == f"52.00 ± {math.sqrt(2):.2f} (2)"
    assert set(table.preset) == {"smoke"} and set(table.labels) == {20}
    assert table.paper["concomitant"].startswith("higher")


def test_spread_of_one_seed_has_no_deviation():
    assert tables.spread(pd.Series([3.0])) == "3.00 (1)"
    assert tables.spread(pd.Series([1.0, 3.0])) == "2.00 ± 1.41 (2)"


def test_summary_of_a_search(finished):
    table = tables.summary(finished).set_index("measured").value
    views = 2 * finished.config["search"]["batch_size"]
    assert table[f"contrastive loss at chance, log({views} - 1)"] == str(round(math.log(views - 1), 3))
    assert table["contrastive loss, last epoch"] == str(round(finished.history[-1]["loss"], 3))
    assert table["images, unlabelled"] == "1347"


def test_saved_beside_the_figures(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "home", lambda: tmp_path)
    table = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})
    assert tables.save(table, "t", "smoke") is table
    assert pd.read_csv(tmp_path / "figures" / "smoke" / "t.csv").equals(table)
