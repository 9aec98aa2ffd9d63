"""The unit that was repeated decides: intervals are Student's over searches, and few false effects are seen."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sswp_lib.config import InputError
from sswp_lib.paper.effects import Effect, best_of, between, bootstrapped, holm, nested, runs_of, student


def by_arm(**arms) -> pd.DataFrame:
    """Return one row for each arm and seed, with a column "scratch"."""
    rows = [(arm, seed, value) for arm, values in arms.items() for seed, value in enumerate(values)]
    return pd.DataFrame(rows, columns=["arm", "seed", "scratch"])


def tunings(**starts) -> pd.DataFrame:
    """Return one row for each start, search and fine-tuning seed, from {start: [[of search 0], [of search 1], ...]}."""
    rows = [
        (start, search, seed, value)
        for start, searches in starts.items()
        for search, values in enumerate(searches)
        for seed, value in enumerate(values)
    ]
    return pd.DataFrame(rows, columns=["init", "search", "seed", "test"])


def seen(effect: Effect) -> bool:
    return effect.p is not None and effect.p < 0.05 and effect.mean > 0


def test_interval_and_p_are_students():
    values = [2.0, 1.0, 0.5, 3.5]
    effect, expected = student(values), stats.ttest_1samp(values, 0)
    interval = expected.confidence_interval(0.95)
    assert effect.n == 4 and effect.mean == pytest.approx(1.75) and effect.p == pytest.approx(expected.pvalue)
    assert (effect.low, effect.high) == pytest.approx((interval.low, interval.high))
    assert effect.p_against(-1.0) == pytest.approx(stats.ttest_1samp(values, -1.0).pvalue)


@pytest.mark.parametrize("values", [[1.0], [0.3, 0.3], [0.1 + 0.2, 0.3, 0.3]], ids=["one", "equal", "but for rounding"])
def test_without_spread_nothing_is_tested(values):
    effect = student(values)
    assert effect.p is None and effect.p_against(-1.0) is None and math.isnan(effect.low) and math.isnan(effect.high)


def test_arms_are_paired_by_seed_and_partners_must_exist():
    frame = by_arm(a=[53.0, 62.0, 57.5, 99.0], b=[50.0, 60.0, 55.0]).sample(frac=1, random_state=0)
    effect = between(frame, "a", "b")
    assert (effect.n, effect.searches, effect.unit) == (3, 3, "search")
    assert (effect.mean, effect.p) == pytest.approx((2.5, stats.ttest_1samp([3.0, 2.0, 2.5], 0).pvalue))
    with pytest.raises(InputError, match="nothing to pair of 'a' and 'c' by seed; there is a, b"):
        between(frame.sort_values("arm"), "a", "c")


def test_several_rows_of_a_seed_are_refused_rather_than_averaged():
    frame = tunings(random=[[1.0, 2.0], [3.0, 4.0]], concomitant=[[2.0, 3.0], [4.0, 6.0]])
    with pytest.raises(InputError, match="has several rows of seed 0"):
        between(frame.rename(columns={"init": "arm"}), "concomitant", "random", column="test")


def test_fine_tunings_are_averaged_within_their_search():
    frame = tunings(random=[[50.0, 52.0], [60.0, 61.0], [55.0, 57.0]], concomitant=[[53, 54], [61, 64], [60, 61.0]])
    effect = nested(frame, "concomitant", "random")
    assert (effect.n, effect.searches) == (3, 3)
    assert effect.mean == pytest.approx(3.0) and effect.p == pytest.approx(stats.ttest_1samp([2.5, 2, 4.5], 0).pvalue)


@pytest.mark.parametrize("named", [True, False], ids=["one named", "no column"])
def test_one_search_decides_nothing_however_many_fine_tunings(named):
    frame = tunings(random=[[50.0, 50.0, 50.0, 50.0]], concomitant=[[60.0, 61.0, 60.5, 61.5]])
    effect = nested(frame if named else frame.drop(columns="search"), "concomitant", "random")
    assert (effect.mean, effect.n, effect.searches, effect.p) == (10.75, 1, 1, None) and math.isnan(effect.low)
    assert effect.note == "one search; over its 4 fine-tunings 9.72 to 11.78"


def test_the_best_must_beat_each_and_not_their_mean():
    """0: 92, 0.2: 91, 0.5: 80: 0.2 lies five points above the mean of the others, and is not best."""
    noise = np.array([0.0, 0.05, -0.05, 0.02, -0.02])
    frame = by_arm(**{"0": 92 - noise, "0.2": 91 + noise, "0.5": 80 + 2 * noise})
    effect = best_of(frame, "0.2", ["0", "0.5"])
    assert effect.mean == pytest.approx(-1.0) and not seen(effect) and effect.p < 0.05 and "against 0," in effect.note
    assert seen(best_of(frame, "0", ["0.2", "0.5"])) and best_of(frame, "0", ["0.2", "0.5"]).note == "against 0.2"


def test_the_best_is_compared_with_its_closest_competitor():
    frame = by_arm(best=[5.0, 7.0, 6.0], near=[4.0, 6.5, 5.4], far=[1.0, 3.0, 2.1], wild=[3.0, 7.5, 0.0])
    effect, against = best_of(frame, "best", ["near", "far", "wild"]), between(frame, "best", "wild")
    assert (effect.mean, effect.low, effect.high, effect.p) == (against.mean, against.low, against.high, against.p)
    assert seen(best_of(frame, "best", ["near", "far"])) and not seen(effect) and effect.note == "against wild"


def test_being_beaten_by_one_of_several_is_corrected_for_their_number():
    frame = by_arm(x=[0.0, 0.0, 0.0, 0.0], y=[1.0, 2.0, 3.0, 2.0], z=[-9.0, -8.0, -7.0, -9.0])
    effect, alone = best_of(frame, "x", ["y", "z"]), between(frame, "x", "y")
    interval = stats.ttest_1samp([-1.0, -2.0, -3.0, -2.0], 0).confidence_interval(0.975)
    assert effect.p == pytest.approx(2 * alone.p) and (effect.low, effect.high) == pytest.approx(tuple(interval))


def test_nothing_is_best_where_one_comparison_cannot_be_tested():
    frame = by_arm(x=[5.0, 7.0, 6.0], same=[5.0, 7.0, 6.0], far=[1.0, 3.1, 2.0])
    assert best_of(frame, "x", ["same", "far"]).p is None


def test_runs_of_what_was_paired_are_kept():
    frame = by_arm(a=[1.0, 2.0, 3.0], b=[0.0, 1.5], c=[9.0, 9.0])
    frame["search run"] = [f"search-{arm}{seed}" for arm, seed in zip(frame.arm, frame.seed, strict=True)]
    frame["scratch run"] = [None, *(f"train-{i}" for i in range(6))]
    expected = {"search-a0", "search-a1", "search-b0", "search-b1", "train-0", "train-2", "train-3"}
    assert between(frame, "a", "b").runs == expected
    assert best_of(frame, "a", ["b", "c"]).runs == expected | {"search-c0", "search-c1", "train-4", "train-5"}
    assert runs_of(pd.DataFrame({"run": ["x", "y"], "runs": ["z", "z"], "rerun": ["u", "v"]})) == {"x", "y"}


def test_bootstrap_of_few_units_decides_nothing():
    """That all of n agree is worth no more than the n signs, as a sign test would have it."""

    def mean_of(values):
        return lambda units: np.asarray(values)[units].mean(axis=1)

    values = [0.3, 0.7, 0.4, 0.6, 0.5, 0.8, 0.45]
    assert bootstrapped(mean_of(values[:2]), 2).p == 0.5 and bootstrapped(mean_of(values[:5]), 5).p == 0.0625
    effect = bootstrapped(mean_of(values), 7)
    assert effect.p == 2**-6 and 0.3 < effect.low < effect.mean < effect.high < 0.8
    assert bootstrapped(mean_of([-1.0, 1.0] * 4), 8).p > 0.5


def test_holm_is_the_textbooks():
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.6]).tolist() == [1.0, 1.0] and holm([]).tolist() == []


DRAWS = 400  # of which 2.5 % are 10; 20 are three standard deviations above


def test_arms_without_effect_are_rarely_seen():
    rng = np.random.default_rng(1)
    frames = [by_arm(a=rng.normal(size=4), b=rng.normal(size=4)) for _ in range(DRAWS)]
    assert 2 <= sum(seen(between(frame, "a", "b")) for frame in frames) <= 20


def test_starts_without_effect_are_rarely_seen_though_searches_differ():
    """With each fine-tuning as a unit of its own, as if searches did not differ, a fifth would be seen."""
    rng, nestedly, flatly = np.random.default_rng(2), 0, 0
    for _ in range(DRAWS):
        gains = rng.normal(size=(4, 1)) + 0.3 * rng.normal(size=(4, 5))
        nestedly += seen(nested(tunings(a=gains, b=np.zeros((4, 5))), "a", "b"))
        flatly += seen(student(gains.ravel()))
    assert 2 <= nestedly <= 20 and flatly > 60


def test_a_best_that_is_none_is_rarely_seen_or_contradicted():
    """At the edge of the claim (one equal, one far behind) 2.5 % are seen; of three equals fewer, and as few are
    contradicted.
    """
    rng, edge, equal, beaten = np.random.default_rng(3), 0, 0, 0
    for _ in range(DRAWS // 2):
        x, y, z = rng.normal(size=(3, 5))
        edge += seen(best_of(by_arm(x=x, y=y, z=z - 9), "x", ["y", "z"]))
        effect = best_of(by_arm(x=x, y=y, z=z), "x", ["y", "z"])
        equal += seen(effect)
        beaten += effect.p < 0.05 and effect.mean < 0
    assert 1 <= edge <= 12 and equal <= edge and beaten <= 12


def test_holm_keeps_the_family():
    """20 claims without effect: alone, some claim is decided in two of three reports; together in one of twenty."""
    rng = np.random.default_rng(4)
    families = np.array([[student(values).p for values in rng.normal(size=(20, 5))] for _ in range(300)])
    alone, together = (families < 0.05).any(axis=1), [(holm(family) < 0.05).any() for family in families]
    assert alone.mean() > 0.5 and 0.02 <= np.mean(together) <= 0.09


def test_two_arms_at_a_ceiling_test_nothing():
    rows = lambda better, other, column="scratch": pd.DataFrame(  # noqa: E731
        [
            {"arm": a, "seed": s, column: v + 0.1 * s * (a == "x")}
            for a, v in (("x", better), ("y", other))
            for s in range(4)
        ]
    )
    assert between(rows(99.0, 98.5), "x", "y").untestable == "a ceiling: 99.2 and 98.5 % are right"
    assert between(rows(99.0, 97.9), "x", "y").untestable == "" == between(rows(80.0, 70.0), "x", "y").untestable
    assert between(rows(99.0, 98.5, "gap"), "x", "y", column="gap").untestable == ""  # no accuracy
    starts = rows(99.0, 98.5).rename(columns={"arm": "init", "scratch": "test"})
    assert nested(starts.assign(search=starts["seed"]), "x", "y").untestable.startswith("a ceiling")


def test_to_be_best_is_not_seen_where_one_other_is_at_the_same_ceiling():
    rows = [
        {"arm": arm, "seed": s, "scratch": value + 0.05 * s * (arm == "x")}
        for arm, value in (("x", 99.0), ("y", 98.5), ("z", 70.0))
        for s in range(4)
    ]
    assert best_of(pd.DataFrame(rows), "x", ["y", "z"]).untestable.startswith("a ceiling")
    assert best_of(pd.DataFrame(rows), "x", ["z"]).untestable == ""
