"""A verdict follows from its interval and the claim's bound, and counts where it stands beside all the others."""

import math

import numpy as np
import pandas as pd
import pytest

from sswp_lib.config import InputError
from sswp_lib.paper import learnt, output, reported, tables
from sswp_lib.paper.claims import (
    CLAIMS,
    Effect,
    above_ten_percent,
    at,
    between,
    gathered,
    ledger,
    memory,
    nested,
    preferred_rates,
    relative_gain,
)
from sswp_lib.paper.effects import student
from sswp_lib.paper.pi_nas_claims import PI_NAS
from sswp_lib.runs import records


def verdict(key: str, effect: Effect) -> str:
    return CLAIMS[key].verdict(effect)


def test_verdict_is_where_the_interval_lies():
    above, below, around = student([1.0, 2.0, 1.5]), student([-1.0, -2.0, -1.5]), student([-1.0, 2.0, 1.5])
    assert [verdict("fpp_helps_sl", e) for e in (above, below, around)] == ["seen", "contradicted", "undecided"]
    assert verdict("fpp_helps_sl", student([2.0])) == verdict("fpp_helps_sl", student([2.0, 2.0])) == "undecided"


@pytest.mark.parametrize("key", ["bpp_does_not_help", "larger_batch"])
def test_what_does_not_help_is_seen_where_it_is_no_worse_by_a_margin(key):
    """Arms that are truly equal, measured closely, are seen; a superiority test could not decide them."""
    equal, worse, wide = student([0.2, -0.3, 0.1, -0.1]), student([-2.0, -2.5, -1.8]), student([1.0, -3.0, 2.0])
    assert equal.low < 0 < equal.high and CLAIMS[key].margin == 1.0
    assert [verdict(key, e) for e in (equal, worse, wide)] == ["seen", "contradicted", "undecided"]
    assert verdict(key, student([-0.5, -0.6, -0.4])) == "seen" and CLAIMS[key].bound == "above -1"
    assert "margin of 1 point (ours, fixed before results)" in CLAIMS[key].measure


def test_verdict_and_p_and_interval_agree():
    rng = np.random.default_rng(0)
    for claim, centre in [(CLAIMS["fpp_helps_sl"], 0), (CLAIMS["bpp_does_not_help"], -1), (CLAIMS["memory"], 2)]:
        bound = claim.below or -claim.margin
        for _ in range(100):
            effect = student(centre + rng.normal(0.5 * rng.normal(), 1, size=4))
            decided = claim.verdict(effect) != "undecided"
            assert decided == (claim.p(effect) < 0.05) == (not effect.low <= bound <= effect.high)


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
    ssnas = reported.values("table1", "architecture", "error", "ssnas")
    rates = reported.table("table4a").set_index("lr")
    pi = reported.values("table7", "method", "tau", "pi_nas")
    best = reported.values("table4", "method", "accuracy", "pi_nas")
    expected = {
        "ssl_beats_sl": a["SL+FPP"] - a["SSL+FPP"], "fpp_helps_ssl": a["SSL"] - a["SSL+FPP"],
        "fpp_helps_sl": a["SL"] - a["SL+FPP"],
        "bpp_does_not_help": a["SSL+BPP"] - a["SSL"],
        "default_ratio": min(b["shorter"], b["longer"]) - b["default"], "dropout": min(c[0.0], c[0.5]) - c[0.2],
        "proxy_free": proxy["proxy-free"] - proxy["transfer"], "byol_is_worse": byol["BYOL"] - byol["SimCLR"],
        "ssl_probes_better": probe["SSL"] - probe["SL"],
        "relative_gain": gain.iloc[0],
        "found_beats_random": ssnas["Random sampling"] - ssnas["SSNAS (first order)"],
        "pi_tau": pi["Pi-NAS"] - pi["SPOS"], "pi_cp": pi["Pi-NAS"] - pi["without CP"],
        "pi_mt": pi["Pi-NAS"] - pi["S-Pi model"], "pi_best201": best["Pi-NAS"] - best["SPOS"],
        "larger_rates": math.log10(rates["concomitant"].idxmax() / rates["simclr_pretrain"].idxmax()),
        **ssnas_effects(ssnas),
    }  # fmt: skip
    quoted = {key: float(claim.paper) for key, claim in CLAIMS.items() if claim.paper[0] in "+-"}
    assert quoted.keys() == expected.keys()
    assert {key: abs(quoted[key] - value) <= 0.0051 for key, value in expected.items()} == dict.fromkeys(expected, True)


def ssnas_effects(error: dict[str, float]) -> dict[str, float]:
    """Return what SSNAS reports, from the errors of its Table 1 and from its other tables."""
    first, second, random, own = (
        "DARTS (first order)", "DARTS (second order)", "Random sampling", "SSNAS (first order)",
    )  # fmt: skip
    cifar100 = reported.values("table3", "architecture", "accuracy", "ssnas")
    table4 = reported.table("table4", "ssnas").set_index(["architecture", "batch"])
    found, drawn = table4.loc[own], table4.loc[random]
    table5 = reported.table("table5", "ssnas").set_index(["architecture", "fine_tune"])["accuracy"]
    return {
        "ss_beats_random": error[random] - error[own], "ss_beats_first": error[first] - error[own],
        "ss_matches_second": error[second] - error[own], "ss_few_labels": cifar100[own] - cifar100[first],
        "ss_probe": (found["linear"] - drawn["linear"]).mean(),
        "ss_semi": (found["semi_supervised"] - drawn["semi_supervised"]).mean(),
        "ss_batch": found.loc[64, "linear"] - found.loc[32, "linear"],
        "ss_pretrain": table5[own, "pretrained"] - table5[own, "random weights"],
        "ss_split": float(reported.entry("split", "ssnas")["finding"].split()[0]),
    }  # fmt: skip


def frame_of(**arms) -> pd.DataFrame:
    """Return one row for each arm and seed, with a column "scratch"."""
    return pd.DataFrame(
        [
            {"arm": arm, "seed": seed, "scratch": value}
            for arm, values in arms.items()
            for seed, value in enumerate(values)
        ]
    )


def fractions(gaps: dict[float, float], searches: int = 3) -> pd.DataFrame:
    """Return fine-tunings of two starts: concomitant is better by the gap of the fraction, more in later searches."""
    rows = [
        (fraction, search, seed, init, value)
        for fraction, gap in gaps.items()
        for search in range(searches)
        for seed in (0, 1)
        for init, value in (("simclr", 50.0 + seed), ("concomitant", 50.0 + gap + search + seed))
    ]
    return pd.DataFrame(rows, columns=["fraction", "search", "seed", "init", "test"])


def test_fractions_above_ten_percent_only():
    effect = above_ten_percent(fractions({0.1: 90.0, 0.3: 1.0, 0.5: 3.0}))
    assert effect.mean == pytest.approx(3.0) and (effect.n, effect.searches) == (3, 3)
    renamed = fractions({0.3: 1.0}).replace({"simclr": "matched"})
    assert above_ten_percent(renamed, "matched").mean == pytest.approx(2.0)


def test_a_fraction_that_one_start_lacks_does_not_count():
    frame = fractions({0.3: 1.0, 0.9: 3.0})
    frame = frame[(frame.fraction < 0.9) | (frame.init == "simclr")]
    assert above_ten_percent(frame).mean == pytest.approx(2.0)


def test_ten_percent_are_ten_percent():
    frame = fractions({0.1: -4.0, 0.3: 1.0})
    assert nested(at(frame, 0.1), "simclr", "concomitant").mean == pytest.approx(3.0)
    with pytest.raises(InputError, match=r"no run at the fraction 0.1; there is 0.3, 0.5; add it"):
        at(fractions({0.3: 1.0, 0.5: 1.0}), 0.1)
    with pytest.raises(InputError, match=r"no fraction above 0.1; there is 0.05, 0.1; add one"):
        above_ten_percent(fractions({0.05: 1.0, 0.1: 1.0}))


GRID = (0.01, 0.1, 0.2, 1.0)


def validations(**best: list[list[float]]) -> pd.DataFrame:
    """Return validation accuracy by start, search, seed and rate: 90 at the best rates of each search, else 50."""
    rows = [
        (init, search, seed, lr, 90.0 if lr in rates else 50.0, f"{init}-{search}-{seed}-{lr}")
        for init, searches in best.items()
        for search, rates in enumerate(searches)
        for seed in (0, 1)
        for lr in GRID
    ]
    return pd.DataFrame(rows, columns=["init", "search", "seed", "lr", "validation", "run"])


def test_preferred_rate_is_the_best_of_the_mean():
    frame = validations(simclr=[[0.01]] * 5 + [[0.1]] * 3, concomitant=[[0.1]] * 6 + [[1.0]] * 2)
    effect = preferred_rates(frame)
    assert effect.mean == pytest.approx(1.0) and (effect.n, effect.searches, effect.unit) == (8, 8, "search")
    assert effect.low < 1.0 <= effect.high and len(effect.runs) == len(frame)


def test_rates_that_all_agree_decide_nothing():
    """Two seeds, each one step of the grid apart: an interval without width is no evidence."""
    frame = validations(simclr=[[0.1]], concomitant=[[0.2]])
    for measured in (preferred_rates(frame), preferred_rates(frame.drop(columns="search"))):
        assert measured.mean == pytest.approx(math.log10(2)) and math.isnan(measured.low)
        assert verdict("larger_rates", measured) == "undecided" and measured.unit == "fine-tuning"
        assert "the grid is too coarse" in measured.note and "one search" in measured.note
    several = preferred_rates(validations(simclr=[[0.1]] * 8, concomitant=[[0.2]] * 8))
    assert several.p is None and several.note == "the grid is too coarse for an interval"


def test_fine_tunings_of_one_search_decide_no_rate():
    frame = validations(simclr=[[0.01]] * 7 + [[0.1]], concomitant=[[0.2]] * 5 + [[1.0]] * 3)
    seeds = frame[frame.seed == 0].drop(columns="seed").rename(columns={"search": "seed"})
    effect = preferred_rates(seeds)
    assert (effect.n, effect.searches, effect.unit, effect.p) == (8, 1, "fine-tuning", None) and effect.low > 0


def test_rates_that_tie_are_said_and_none_of_them_wins():
    effect = preferred_rates(validations(simclr=[[0.1, 0.2]] * 2, concomitant=[[0.2, 0.1]] * 2))
    assert effect.mean == 0 and "ties of concomitant: 0.1 and 0.2; ties of simclr: 0.1 and 0.2" in effect.note
    with pytest.raises(InputError, match="both 'concomitant' and 'simclr'"):
        preferred_rates(validations(simclr=[[0.1]]))


def test_preferred_rates_of_equal_starts_are_rarely_told_apart():
    """All validation accuracies are noise: of 200 comparisons 5 in each direction would be fair."""
    rng, decided = np.random.default_rng(0), 0
    index = pd.MultiIndex.from_product([["simclr", "concomitant"], range(6), [0], GRID])
    empty = index.to_frame(index=False, name=["init", "search", "seed", "lr"])
    for _ in range(200):
        effect = preferred_rates(empty.assign(validation=rng.normal(size=len(empty))))
        decided += effect.p is not None and effect.p < 0.05
    assert decided <= 10


def test_relative_gain_is_a_difference_of_gains():
    frame = frame_of(neither=[80.0, 81.0], both=[82.0, 80.0])
    frame["fine-tuned"] = [85.0, 87.0, 90.0, 89.0]  # gains 5 and 6, then 8 and 9
    assert relative_gain(frame, "both", "neither").mean == pytest.approx(3.0)


def test_memory_is_its_ratio_and_twice_the_compact_network_is_not_the_same_magnitude():
    def measured(*steps: int) -> Effect:
        return memory([{"compact, 8 edges": 100, "weight step": 90, "architecture step": step} for step in steps])

    assert measured(110, 120, 115).mean == pytest.approx(1.15) and measured(1, 1, 1).mean == pytest.approx(0.9)
    assert verdict("memory", measured(110, 120, 115)) == "seen" and CLAIMS["memory"].bound == "below 2"
    assert verdict("memory", measured(290, 310, 300)) == "contradicted"
    assert verdict("memory", measured(150, 310, 200)) == "undecided"


def test_ledger_says_how_each_claim_was_judged():
    frame = frame_of(
        **{"SSL+FPP": [5.0, 7.0, 6.0], "SSL": [4.0, 5.5, 5.2], "BPP": [4.3, 5.5, 5.0], "SL": [9.0, 1.0, 5]}
    )
    frame["search run"] = [f"search-{i}" for i in range(len(frame))]
    effects = {
        "fpp_helps_ssl": between(frame, "SSL+FPP", "SSL"),
        "bpp_does_not_help": between(frame, "SSL", "BPP"),
        "ssl_beats_sl": between(frame, "SSL+FPP", "SL"),
        "memory": memory([{"compact, 8 edges": 2, "weight step": s, "architecture step": 1} for s in (2, 3)]),
    }
    table = ledger(effects, "quick with train.shift=0").set_index("key")
    assert table["seen where"].tolist() == ["above 0", "above -1", "above 0", "below 2"]
    assert table["alone"].tolist() == ["seen", "seen", "undecided", "undecided"]
    assert table["shares runs with"].tolist() == [
        "bpp_does_not_help, ssl_beats_sl",
        "fpp_helps_ssl",
        "fpp_helps_ssl",
        "",
    ]
    assert table["unit"].tolist() == ["search"] * 3 + ["path"] and table["searches"].tolist() == [3, 3, 3, 0]
    assert set(table["preset"]) == {"quick with train.shift=0"} and table.loc["fpp_helps_ssl", "mean"] == 1.1
    assert table.loc["bpp_does_not_help", "p"] == pytest.approx(effects["bpp_does_not_help"].p_against(-1), rel=1e-3)
    assert table.loc["ssl_beats_sl", "runs"].split() == sorted(f"search-{i}" for i in (0, 1, 2, 9, 10, 11))


def test_names_of_runs_are_kept_and_not_shown(monkeypatch, tmp_path):
    monkeypatch.setattr(output, "home", lambda: tmp_path)
    where, folder = output.Output("smoke"), tmp_path / "figures" / "own" / "smoke"
    table = ledger({"dropout": Effect(1.0, 0.1, 1.9, 3, 0.03, runs=frozenset({"search-1"}))}, "smoke")
    tables.save(table, "01_claims", where, "Claims")
    assert pd.read_csv(folder / "01_claims.csv")["runs"].tolist() == ["search-1"]
    shown = (
        tables.styled(table).to_html(),
        (folder / "01_claims.md").read_text(),
        (folder / "01_claims.tex").read_text(),
    )
    assert [("Skip dropout" in text, "search-1" in text, "0.03" in text) for text in shown] == [(True, False, True)] * 3


def test_verdicts_that_count_are_those_after_holm():
    """Of three claims that are decided alone the weakest is not, beside the others; what has no p is no test."""
    p = {"fpp_helps_ssl": 0.001, "dropout": 0.04, "ssl_beats_sl": 0.02, "longer_search": 0.9, "memory": None}
    effects = {key: Effect(1.0, 0.1, 1.9, 3, value) for key, value in p.items()}
    table = ledger(effects, "quick")
    for given in (table, pd.DataFrame(table.astype(object).where(table.notna(), "").astype(str))):
        found = gathered(given).set_index("key")
        assert list(found.index) == [key for key in CLAIMS if key in p]  # as a report tells them
        found = found.loc[list(p)]
        assert found["alone"].tolist() == ["seen"] * 3 + ["undecided"] * 2
        assert found["verdict"].tolist() == ["seen"] + ["undecided"] * 4
        assert found["p, Holm"].tolist()[:4] == [0.004, 0.08, 0.06, 0.9] and math.isnan(found["p, Holm"].iloc[4])


def searched(root, name: str, alpha: np.ndarray | None, seed: int, mixture: dict | None = None, **search) -> None:
    """Write the record of a search that came to `alpha`, or of a relaxed one to a mixture."""
    told = {"mixture": mixture}
    if alpha is not None:
        told = {"evidence": {"alpha": alpha.tolist(), "updates": [], "walk": [], "drift": [], "margin": []}}
    records.write(
        root / name,
        records.Record(
            name=name, kind="search", config={"search": search, "seed": seed}, seed=seed, history=[],
            result=told, provenance={},
        ),
    )  # fmt: skip


@pytest.fixture
def by_lot(tmp_path, monkeypatch):
    """Three searches of each of two arms: of a and b by lot, of c from one and the same alpha."""
    monkeypatch.setenv("SSWP_RUNS", str(tmp_path))
    rng = np.random.default_rng(0)
    for arm in "abc":
        shared = rng.normal(size=(2, 14, 7)) * (arm == "c")
        for seed in range(3):
            searched(tmp_path, f"search-{arm}{seed}", shared + rng.normal(size=(2, 14, 7)), seed, epochs=ord(arm))
    return tmp_path


def effect_of(arms: str, mean: float = 1.0) -> Effect:
    names = frozenset(f"search-{arm}{seed}" for arm in arms for seed in range(3))
    return Effect(mean, mean - 0.5, mean + 0.5, 3, 0.001, runs=names | {"train-x"})


def test_what_was_drawn_by_lot_tests_no_claim_about_architectures(by_lot):
    """One arm whose alpha has learnt is enough: then the arms can differ in what was found."""
    effects = {"fpp_helps_ssl": effect_of("ab"), "dropout": effect_of("ac"), "relative_gain": effect_of("ab")}
    table = ledger(effects, "quick")
    assert table["alone"].tolist() == ["not testable", "seen", "seen"]
    assert table["note"].iloc[0].startswith("alpha at chance: it correlates with ") and table["p"].isna().iloc[0]
    for given in (table, pd.DataFrame(table.astype(object).where(table.notna(), "").astype(str))):
        found = gathered(given)
        assert found["verdict"].tolist() == ["not testable", "seen", "seen"]
        assert found["p, Holm"].tolist()[1:] == [0.002, 0.002]  # of two, not of three


def test_relaxed_searches_are_judged_by_their_mixtures(tmp_path, monkeypatch):
    """Two arms of three seeds: mixtures drawn by lot test nothing, one that all seeds share does."""
    monkeypatch.setenv("SSWP_RUNS", str(tmp_path))
    rng = np.random.default_rng(1)
    for arm, shared in (("a", 0.0), ("b", 1.0)):
        common = shared * rng.normal(size=(2, 14, 8))
        for seed in range(3):
            weights = np.exp(common + rng.normal(size=common.shape))
            mixture = {"weights": (weights / weights.sum(-1, keepdims=True)).round(5).tolist()}
            searched(tmp_path, f"search-{arm}{seed}", None, seed, mixture=mixture, epochs=ord(arm))
    table = ledger({"ss_beats_random": effect_of("a"), "ss_beats_first": effect_of("ab")}, "quick")
    assert table["alone"].tolist() == ["not testable", "seen"]
    assert table["note"].iloc[0].startswith("alpha at chance")


def test_single_searches_and_older_records_are_taken_as_they_are(by_lot):
    for runs in ({"search-a0"}, {"search-a0", "search-b0"}, {"search-gone", "train-x"}, set()):
        effect = Effect(1.0, 0.5, 1.5, 3, 0.001, runs=frozenset(runs))
        assert ledger({"fpp_helps_ssl": effect}, "quick")["alone"].tolist() == ["seen"]
    assert learnt.by_lot([]) == ""


def test_claims_about_architectures_are_marked():
    weights = {key for key, claim in CLAIMS.items() if not claim.architectures}
    assert weights == {f"concomitant_beats_random_at_{labels}" for labels in (1, 2, 5, 10, 50)} | {
        "whole_search_equals_two_stages", "fixed_search_equals_two_stages", "fpp_closes_gap",
        "concomitant_beats_random", "concomitant_beats_unaugmented", "concomitant_beats_simclr",
        "simclr_at_ten", "concomitant_beats_matched", "simclr_matched_at_ten", "larger_rates", "relative_gain",
        "memory", "ss_batch", "ss_pretrain", "bench_random_beats_draw", *PI_NAS,
    }  # fmt: skip


def test_the_resolution_is_half_the_interval():
    assert ledger({"memory": Effect(1.0, 0.25, 1.75, 3, 0.1)}, "quick")["resolution"].tolist() == [0.75]


def test_controls_are_marked_as_ours():
    ours = {key for key, claim in CLAIMS.items() if claim.paper == "control, ours"}
    assert ours == {
        "concomitant_beats_unaugmented", "concomitant_beats_matched", "simclr_matched_at_ten", "found_beats_same_size",
        "whole_search_equals_two_stages", "fixed_search_equals_two_stages",
    }  # fmt: skip
