"""What the tour asks for is shared with notebook 01, and what it says follows from the numbers."""

from __future__ import annotations

import pandas as pd
import pytest

from sswp_lib.config import InputError
from sswp_lib.paper import setups, studies, tour
from sswp_lib.runs.records import Record
from sswp_lib.runs.runs import _identity


def measured(**neighbours: list[list[int]]) -> Record:
    moved = {"before": 10.0, "after": 20.0, "pixels": 30.04}
    result = {"k": 2, "labels": [0, 0, 0, 1, 1, 1], "neighbours": neighbours, "moved": moved, "moved by": 1}
    return Record(name="neighbours-1", kind="neighbours", config={}, seed=0, result=result, provenance={})


RIGHT = [[1, 2], [0, 2], [0, 1], [4, 5], [3, 5], [3, 4]]
HALF = [[1, 3], [0, 4], [5, 1], [4, 0], [1, 5], [3, 2]]
NONE = [[3, 4], [4, 5], [3, 5], [0, 1], [1, 2], [0, 2]]


def names(jobs) -> list[tuple]:
    return [(repr(_identity(job.config, "train")), repr(job.search)) for job in jobs]


def test_what_recipes_are_chosen_from_are_runs_of_notebook_01():
    """Those of its first search, all of them."""
    config, few, n, _ = setups.configured("quick", None, None, [], "few_labels")
    theirs = [job for job in studies.recipes(config, few, n) if job.labels["search"] == 0]
    assert sorted(names(tour.choosing(config, few, n))) == sorted(names(theirs))
    assert studies.searches(config, 1) == studies.searches(config, n)[:1]


def test_fine_tunings_are_repeated_by_each_starts_recipe_with_the_seeds_of_notebook_01():
    config, few, n, _ = setups.configured("quick", None, None, [], "few_labels")
    best = {"random": ("none", 0.03), "concomitant": ("as the preset says", 0.1)}
    jobs = tour.repeated(config, few, n, best, 6)
    found = [(j.config.train.init, j.config.train.lr, j.config.train.shift, j.config.seed) for j in jobs]
    assert found[:6] == [("random", 0.03, 0, 3 * r) for r in range(6)]
    assert found[6:] == [("concomitant", 0.1, few.train.shift, 3 * r) for r in range(6)]
    assert few.train.shift != 0 and {job.search for job in jobs} == {config.changed(seed=0)}
    shared = set(names(tour.choosing(config, few, n)))
    assert [name in shared for name in names(jobs)] == [True, True, *[False] * 4] * 2


def test_each_start_takes_the_recipe_that_is_best_on_held_out_images():
    rows = [("random", "none", 0.1, 50, 90), ("random", "as the preset says", 0.3, 60, 10)]
    rows += [("concomitant", "none", 0.01, 70, 0), ("concomitant", "none", 0.3, 69, 99)]
    frame = pd.DataFrame(rows, columns=["init", "augmentation", "lr", "validation", "test"])
    assert tour.recipes(frame) == {"random": ("as the preset says", 0.3), "concomitant": ("none", 0.01)}


def test_shares_of_the_same_class_and_what_lot_would_give():
    table = tour.alike(measured(before=NONE, after=HALF, pixels=RIGHT), "tiny").set_index("neighbours by")
    assert table["of 2 nearest (%)"].tolist() == [0, 50, 100, 40]
    assert table["the nearest (%)"].tolist() == [0, 66.7, 100, 40]
    assert table["of 2 nearest, image moved by 1 pixel (%)"].tolist() == [10, 20, 30, 40]
    assert set(table["images"]) == {6} and set(table["preset"]) == {"tiny"}


@pytest.mark.parametrize(
    "before, after, pixels, expected",
    [
        (NONE, HALF, RIGHT, ("**more** are", "**worse than** pixels")),
        (RIGHT, HALF, NONE, ("**fewer** are", "**better than** pixels")),
        (HALF, HALF, HALF, ("**as many, as far as so many images tell,** are", "**as well as** pixels")),
    ],
)
def test_the_sentence_follows_from_the_neighbours(before, after, pixels, expected):
    said = tour.alike_sentence(measured(before=before, after=after, pixels=pixels))
    assert all(words in said for words in expected) and "2 nearest neighbours of 6 images" in said
    assert "50.0 % against" in said
    assert "moved by 1 pixel: 10.0 % by features before the search, 20.0 % by features after the search, 30.0 %" in said


def test_images_without_labels_have_no_share():
    found = measured(before=NONE, after=HALF, pixels=RIGHT)
    del found.result["labels"]
    with pytest.raises(InputError, match="needs labels"):
        tour.alike(found, "tiny")


def test_the_scatter_is_told_by_pairs():
    tests = {"random": [50.0, 60.0, 70.0], "concomitant": [55.0, 59.0, 80.0]}
    rows = [{"init": i, "seed": s, "test": v} for i, values in tests.items() for s, v in enumerate(values)]
    said = tour.spread_sentence(pd.DataFrame(rows))
    assert "3 fine-tunings from each start: random 60.0 ± 10.0 %, concomitant 64.7 ± 13.4 %" in said
    assert "**2 of 3**" in said and "+4.7 points on average and ranges from -1.0 to +10.0" in said
