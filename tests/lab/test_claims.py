"""A claim is seen or contradicted only where its interval excludes zero."""

import math

import pandas as pd
import pytest
from scipy import stats

from sswp_lib.lab.claims import Effect, concomitant_beats_random, ledger, paired


def test_paired_interval_is_students():
    with_it, without = [3.0, 5.0, 4.0, 6.5], [1.0, 4.0, 3.5, 3.0]
    effect = paired(with_it, without)
    differences = [a - b for a, b in zip(with_it, without, strict=True)]
    expected = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert effect.n == 4 and effect.mean == pytest.approx(1.75)
    assert (effect.low, effect.high) == pytest.approx((expected.low, expected.high))
    reverse = paired(without, with_it)
    assert (reverse.mean, reverse.low, reverse.high) == pytest.approx((-effect.mean, -effect.high, -effect.low))


@pytest.mark.parametrize(
    "effect, verdict",
    [
        (Effect(1.0, 0.1, 1.9, 5), "seen"),
        (Effect(-1.0, -1.9, -0.1, 5), "contradicted"),
        (Effect(1.0, -0.1, 2.1, 5), "undecided"),
        (Effect(0.0, 0.0, 0.0, 5), "undecided"),
        (Effect(1.0, math.nan, math.nan, 1), "undecided"),
    ],
)
def test_verdict(effect, verdict):
    assert effect.verdict == verdict


def test_one_pair_decides_nothing():
    effect = paired([2.0], [1.0])
    assert effect.mean == 1.0 and math.isnan(effect.low) and effect.verdict == "undecided"


def test_concomitant_is_paired_with_random_by_seed():
    rows = [("random", 0, 50.0), ("random", 1, 60.0), ("random", 2, 55.0), ("concomitant", 2, 57.5), ("concomitant", 0, 53.0), ("concomitant", 1, 62.0), ("simclr", 0, 99.0)]
    best = pd.DataFrame(rows, columns=["init", "seed", "test"])
    effect = concomitant_beats_random(best)
    assert effect == paired([53.0, 62.0, 57.5], [50.0, 60.0, 55.0])
    assert effect.verdict == "seen"


def test_a_seed_without_its_partner_does_not_count():
    rows = [("random", 0, 50.0), ("random", 1, 60.0), ("random", 2, 0.0), ("concomitant", 0, 53.0), ("concomitant", 1, 62.0)]
    effect = concomitant_beats_random(pd.DataFrame(rows, columns=["init", "seed", "test"]))
    assert effect.n == 2 and effect.mean == pytest.approx(2.5)


def test_ledger_says_preset_and_verdict():
    table = ledger({"a": Effect(1.234, 0.1, 1.9, 5), "b": Effect(1.0, -1.0, 3.0, 5)}, "4.4", "smoke")
    assert table.verdict.tolist() == ["seen", "undecided"]
    assert table.preset.tolist() == ["smoke"] * 2 and table.section.tolist() == ["4.4"] * 2
    assert table["mean"].tolist() == [1.23, 1.0] and table.n.tolist() == [5, 5]
