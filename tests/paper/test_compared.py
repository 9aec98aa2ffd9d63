"""Two reports beside one another: differences as Welch's test of the same values gives them, and what may not be
compared.
"""

from __future__ import annotations

import pandas as pd
import pytest
from scipy import stats

from sswp_lib.config import InputError
from sswp_lib.paper import compared
from sswp_lib.paper.claims import ledger
from sswp_lib.paper.effects import Effect, best_of, student

LONG, SHORT = [3.0, 4.5, 2.0, 5.1], [-2.0, 0.5, 1.0]


def effect(values, runs: str, **about) -> Effect:
    return student(values, runs=frozenset(runs.split()), **about)


def folder(path, **effects: Effect):
    path.mkdir(parents=True)
    ledger(effects, path.name).to_csv(path / "01_claims.csv", index=False)
    return path


def rows(*folders) -> pd.DataFrame:
    return compared.compare(*folders).set_index("key")


@pytest.fixture
def two(tmp_path):
    """Folders of two sizes: a claim that differs, one on shared runs, one on the same runs, one of either alone."""
    shared, same = effect(SHORT, "run-1 run-2"), effect(SHORT, "run-3")
    a = folder(
        tmp_path / "small", fpp_helps_ssl=effect(SHORT, "s-1"), fpp_helps_sl=shared, dropout=same,
        memory=effect([1.1, 1.5], "s-2"),
    )  # fmt: skip
    b = folder(
        tmp_path / "large", fpp_helps_ssl=effect([v + 40 for v in LONG], "l-1"), dropout=same,
        fpp_helps_sl=effect([0.1, *SHORT], "run-2 l-2"), proxy_free=effect(LONG, "l-3"),
    )  # fmt: skip
    return a, b


def test_difference_is_that_of_welchs_test(two):
    row = rows(*two).loc["fpp_helps_ssl"]
    other = stats.ttest_ind([v + 40 for v in LONG], SHORT, equal_var=False)
    assert row["difference"] == pytest.approx(43.82, abs=0.01)
    interval = other.confidence_interval(0.95)
    assert [row["low"], row["high"]] == pytest.approx([interval.low, interval.high], abs=0.05)
    assert row["df"] == pytest.approx(other.df, abs=0.05) and row["p"] == pytest.approx(other.pvalue, rel=0.02)
    assert row["effects differ"] == "more than chance" and row["verdicts differ"] == "yes"
    assert rows(*reversed(two)).loc["fpp_helps_ssl", "difference"] == -row["difference"]


def test_same_runs_are_said_and_not_compared(two):
    table = rows(*two)
    assert table.loc["dropout", "effects differ"] == "not compared: the same runs"
    assert table.loc["fpp_helps_sl", "effects differ"] == "not compared: 1 of the runs are the same"
    assert table.loc[["dropout", "fpp_helps_sl"], ["difference", "p", "p, Holm"]].isna().all(axis=None)


def test_words_name_what_differs_and_what_only_one_has(two):
    lines = compared.in_words(compared.compare(*two))
    assert lines[0] == "3 claims in both; the verdicts of 1 (fpp_helps_ssl) differ"
    assert lines[1] == "1 effects compared; those of 1 (fpp_helps_ssl) differ by more than chance (Holm's p < 0.05)"
    assert "only in small: memory" in lines and "only in large: proxy_free" in lines


def test_all_that_are_compared_are_judged_together(tmp_path):
    keys = ("fpp_helps_ssl", "fpp_helps_sl", "dropout", "proxy_free")
    a = folder(tmp_path / "a", **{key: effect(SHORT, f"a-{key}") for key in keys})
    b = folder(tmp_path / "b", **{key: effect([v + 0.8 for v in LONG], f"b-{key}") for key in keys})
    table = rows(a, b)
    assert (table["p"] < 0.05).all() and (table["p, Holm"] > 0.05).all()
    assert set(table["effects differ"]) == {"within chance"}


def test_interval_of_several_comparisons_gives_the_error_of_one(tmp_path):
    """The best of three, beaten by one of them: its interval is Bonferroni's, its standard error is not."""
    arms = {"default": [1.0, 2.0, 4.0], "shorter": [3.0, 3.5, 7.0], "longer": [0.0, 1.0, 2.0]}
    frame = pd.DataFrame(
        [{"arm": a, "seed": s, "scratch": v, "run": f"{a}-{s}"} for a, vs in arms.items() for s, v in enumerate(vs)]
    )
    widened = best_of(frame, "default", ["shorter", "longer"])
    plain = student([-2.0, -1.5, -3.0])
    assert widened.high - widened.low > 1.3 * (plain.high - plain.low)
    row = pd.read_csv(folder(tmp_path / "a", default_ratio=widened) / "01_claims.csv", dtype=str, keep_default_na=False)
    expected = (plain.high - plain.low) / 2 / stats.t.ppf(0.975, 2)
    assert compared.side(row.iloc[0]).error == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (Effect(1.0, 0.0, 5.0, 3, 0.2, runs=frozenset({"b"})), "no interval of Student's"),  # as a bootstrap's
        (Effect(1.0, 0.98, 1.02, 3, 0.001, runs=frozenset({"b"})), "too narrow for two decimals"),
        (Effect(1.0, float("nan"), float("nan"), 1, runs=frozenset({"b"})), "no interval of Student's"),
        (effect(LONG, ""), "the runs are not named"),
        (effect(LONG, "b", untestable="a ceiling"), "not testable"),
        (effect(LONG, "b", note="against 0.5"), "not the same was measured"),
    ],
)
def test_what_cannot_be_compared_says_why(tmp_path, other, why):
    a = folder(tmp_path / "a", dropout=effect(SHORT, "a", note="against 0"))
    if "against" not in other.note:
        a = folder(tmp_path / "plain" / "a", dropout=effect(SHORT, "a"))
    assert why in rows(a, folder(tmp_path / "b", dropout=other)).loc["dropout", "effects differ"]


def test_folders_of_the_same_name_are_told_apart(tmp_path):
    found = [folder(tmp_path / side / "quick", dropout=effect(LONG, side)) for side in ("a", "b")]
    assert {f"verdict, {path}" for path in found} <= set(compared.compare(*found))


def test_command_prints_and_writes_the_table(call, two, tmp_path):
    status, out, _ = call("compare", *two, "--output", tmp_path / "t.csv")
    assert status == 0 and "3 claims in both" in out and "the same runs" in out
    assert pd.read_csv(tmp_path / "t.csv")["key"].tolist() == ["fpp_helps_ssl", "fpp_helps_sl", "dropout"]
    call("compare", *two, "--output", tmp_path / "t.md")
    text = (tmp_path / "t.md").read_text()
    assert text.startswith("- 3 claims in both") and "| dropout" in text


def test_bad_input_is_one_line(refused, two, tmp_path):
    small, large = two
    assert f"no folder '{tmp_path / 'larg'}'" in refused("compare", small, tmp_path / "larg")
    assert "are the same folder" in refused("compare", small, small / ".." / "small")
    (tmp_path / "empty").mkdir()
    assert "no claims in" in refused("compare", small, tmp_path / "empty")
    assert "unknown ending '.pdf'" in refused("compare", small, large, "--output", tmp_path / "t.pdf")
    (large / "01_claims.csv").write_text("claim,verdict\nold,seen\n")
    assert "has no column 'key'; execute the notebook again" in refused("compare", small, large)
    (large / "01_claims.csv").write_bytes(b"")
    assert "01_claims.csv' cannot be read" in refused("compare", small, large)


def test_nothing_in_common_is_refused(tmp_path):
    a, b = folder(tmp_path / "a", dropout=effect(LONG, "a")), folder(tmp_path / "b", memory=effect(LONG, "b"))
    with pytest.raises(InputError, match="have no claim in common"):
        compared.compare(a, b)
