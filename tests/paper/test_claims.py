"""A claim is seen or contradicted only where its interval excludes zero."""

import math

import pandas as pd
import pytest
from scipy import stats

from sswp_lib.paper import reported
from sswp_lib.paper.claims import (
    CLAIMS,
    Effect,
    above_ten_percent,
    between,
    concomitant_beats_random,
    ledger,
    memory,
    paired,
    preferred_rates,
    relative_gain,
)


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
    rows = [
        ("random", 0, 50.0),
        ("random", 1, 60.0),
        ("random", 2, 55.0),
        ("concomitant", 2, 57.5),
        ("concomitant", 0, 53.0),
        ("concomitant", 1, 62.0),
        ("simclr", 0, 99.0),
    ]
    best = pd.DataFrame(rows, columns=["init", "seed", "test"])
    effect = concomitant_beats_random(best)
    assert effect == paired([53.0, 62.0, 57.5], [50.0, 60.0, 55.0])
    assert effect.verdict == "seen"


def test_a_seed_without_its_partner_does_not_count():
    rows = [
        ("random", 0, 50.0),
        ("random", 1, 60.0),
        ("random", 2, 0.0),
        ("concomitant", 0, 53.0),
        ("concomitant", 1, 62.0),
    ]
    effect = concomitant_beats_random(pd.DataFrame(rows, columns=["init", "seed", "test"]))
    assert effect.n == 2 and effect.mean == pytest.approx(2.5)


def test_ledger_says_preset_and_verdict():
    table = ledger({"ssl_beats_sl": Effect(1.234, 0.1, 1.9, 5), "byol_is_worse": Effect(1.0, -1.0, 3.0, 5)}, "smoke")
    assert table.verdict.tolist() == ["seen", "undecided"]
    assert table.preset.tolist() == ["smoke"] * 2 and table.section.tolist() == ["4.3, Table 3a", "3.3"]
    assert table["mean"].tolist() == [1.23, 1.0] and table.n.tolist() == [5, 5]


def test_paper_effects_are_those_of_its_tables():
    """Each effect that the ledger quotes follows from the reported numbers; above 0 it speaks for the claim."""
    a, b, c = (
        reported.values(f"table3{x}", key, "error") for x, key in (("a", "name"), ("b", "name"), ("c", "dropout"))
    )
    byol, proxy = reported.values("byol", "objective", "error"), reported.values("table3d", "name", "top1")
    probe, gain = (
        reported.values("table6", "search_objective", "accuracy"),
        reported.table("table4b")["relative_gain"].dropna(),
    )
    rates = reported.table("table4a").set_index("lr")
    expected = {
        "ssl_beats_sl": a["SL+FPP"] - a["SSL+FPP"], "fpp_helps_ssl": a["SSL"] - a["SSL+FPP"],
        "fpp_helps_sl": a["SL"] - a["SL+FPP"],
        "bpp_does_not_help": a["SSL+BPP"] - a["SSL"],
        "default_ratio": (b["shorter"] + b["longer"]) / 2 - b["default"], "dropout": (c[0.0] + c[0.5]) / 2 - c[0.2],
        "proxy_free": proxy["proxy-free"] - proxy["transfer"], "byol_is_worse": byol["BYOL"] - byol["SimCLR"],
        "ssl_probes_better": probe["SSL"] - probe["SL"],
        "relative_gain": gain.iloc[0],
        "larger_rates": math.log10(rates["concomitant"].idxmax() / rates["simclr_pretrain"].idxmax()),
    }  # fmt: skip
    quoted = {key: float(claim.paper) for key, claim in CLAIMS.items() if claim.paper[0] in "+-"}
    assert quoted.keys() == expected.keys()
    assert {key: abs(quoted[key] - value) <= 0.0051 for key, value in expected.items()} == dict.fromkeys(expected, True)
    assert len(CLAIMS) >= 12


def frame_of(**arms) -> pd.DataFrame:
    """Return one row for each arm and seed, with a column "scratch"."""
    return pd.DataFrame(
        [
            {"arm": arm, "seed": seed, "scratch": value}
            for arm, values in arms.items()
            for seed, value in enumerate(values)
        ]
    )


def test_an_arm_against_the_mean_of_others_is_paired_by_seed():
    frame = frame_of(default=[5.0, 7.0, 6.0], shorter=[4.0, 4.0, 5.0], longer=[2.0, 6.0, 3.0]).sample(
        frac=1, random_state=0
    )
    assert between(frame, "default", ["shorter", "longer"]) == paired([5.0, 7.0, 6.0], [3.0, 5.0, 4.0])


def test_fractions_above_ten_percent_only():
    rows = [
        (f, seed, init, value)
        for f, gap in ((0.1, 90.0), (0.3, 1.0), (0.5, 3.0))
        for seed in (0, 1)
        for init, value in (("simclr", 50.0), ("concomitant", 50.0 + gap + seed))
    ]
    effect = above_ten_percent(pd.DataFrame(rows, columns=["fraction", "seed", "init", "test"]))
    assert effect.mean == pytest.approx(2.5) and effect.n == 2


def test_preferred_rates_are_chosen_by_validation_in_each_seed():
    best = {("simclr", 0): 0.01, ("simclr", 1): 0.1, ("concomitant", 0): 0.1, ("concomitant", 1): 1.0}
    rows = [
        (init, seed, lr, 90.0 if lr == rate else 50.0, 99.0 if lr == 0.01 else 1.0)
        for (init, seed), rate in best.items()
        for lr in (0.01, 0.1, 1.0)
    ]
    effect = preferred_rates(pd.DataFrame(rows, columns=["init", "seed", "lr", "validation", "test"]))
    assert effect.mean == pytest.approx(1.0) and effect.n == 2


def test_relative_gain_is_a_difference_of_gains():
    frame = frame_of(neither=[80.0, 81.0], both=[82.0, 80.0])
    frame["fine-tuned"] = [85.0, 87.0, 90.0, 89.0]  # gains 5 and 6, then 8 and 9
    assert relative_gain(frame, "both", "neither").mean == pytest.approx(3.0)


def test_memory_of_twice_the_compact_network_is_not_the_same_magnitude():
    def held(*steps: int) -> list[dict[str, int]]:
        return [{"compact, 8 edges": 100, "weight step": 90, "architecture step": step} for step in steps]

    assert memory(held(110, 120, 115)).mean == pytest.approx(0.85) and memory(held(110, 120, 115)).verdict == "seen"
    assert memory(held(290, 310, 300)).verdict == "contradicted"
