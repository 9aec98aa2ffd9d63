"""The plot of the ledger: every claim's mark stands where its numbers say, on the scale of its unit."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import matplotlib.pyplot as plt
import pytest

from sswp_lib.paper.claims import CLAIMS
from sswp_lib.show import report
from sswp_lib.show.forest import SCALES, forest, picture


def row(key: str, mean: str, low: str = "", high: str = "", where: str = "above 0", verdict: str = "undecided") -> dict:
    plain = {"key": key, "claim": f"claim of {key}", "measure": "", "id": f"claim-{key}", "alone": verdict}
    plain |= {"preset": "night"}
    return plain | {"mean": mean, "low": low, "high": high, "seen where": where, "verdict": verdict}


ROWS = [
    row("ssl_beats_sl", "-1.5", "-2.0", "-1.0", verdict="contradicted"),
    row("memory", "1.36", "1.28", "1.43", "below 2", "seen"),
    row("bpp_does_not_help", "3.0", "-4.0", "10.0", "above -1"),
    row("pi_tau", "0.1", "-0.2", "0.4", verdict="not testable"),
    row("fpp_helps_sl", "2.5"),
]


def value(place: float, group: dict) -> float:
    """Return the number that stands at a place of a group's scale, read from its ticks."""
    first, last = group["ticks"][0], group["ticks"][-1]
    start, end = (float(tick["text"].replace("\u2212", "-")) for tick in (first, last))
    assert (first["place"], last["place"]) == (0, 100)
    return start + place / 100 * (end - start)


def test_each_scale_has_its_claims_in_the_ledgers_order():
    groups = forest(ROWS)
    assert [[r["key"] for r in group["rows"]] for group in groups] == [
        ["ssl_beats_sl", "bpp_does_not_help", "fpp_helps_sl"], ["memory"], ["pi_tau"],
    ]  # fmt: skip
    assert [group["scale"] for group in groups] == [SCALES[name] for name in ("points", "ratio", "tau")]


def test_marks_intervals_and_bounds_stand_where_the_numbers_say():
    for group in forest(ROWS):
        for r in group["rows"]:
            for name in ("mean", "low", "high"):
                place = r["place"][name]
                assert (place is None) == (r[name] == "") and r["cut"] == []
                assert place is None or value(place, group) == pytest.approx(float(r[name]), abs=0.01)
            assert value(r["place"]["bound"], group) == pytest.approx(float(r["seen where"].split()[1]), abs=0.01)
            below = r["seen where"].startswith("below")
            assert r["seen"] == ((0, r["place"]["bound"]) if below else (r["place"]["bound"], 100))


def test_ticks_stand_at_their_numbers():
    for group in forest(ROWS):
        for tick in group["ticks"]:
            assert value(tick["place"], group) == pytest.approx(float(tick["text"].replace("\u2212", "-")), abs=0.01)


def test_a_long_interval_is_cut_and_marked_and_flattens_no_other():
    usual = [row("ssl_beats_sl", "1", "-1", "3") for _ in range(20)]
    (group,) = forest([*usual, row("proxy_free", "14", "-130", "400")])
    last = group["rows"][-1]
    assert last["cut"] == ["low", "high"] and (last["place"]["low"], last["place"]["high"]) == (0, 100)
    assert value(last["place"]["mean"], group) == pytest.approx(14, abs=0.01)
    assert value(100, group) < 30 and group["rows"][0]["cut"] == []


@pytest.mark.parametrize("mean", ["0.0", ""])
def test_a_claim_without_interval_or_number_has_no_marks_of_them(mean):
    (group,) = forest([row("ssl_beats_sl", mean, where="")])
    (only,) = group["rows"]
    assert [only["place"][name] is None for name in ("mean", "low", "high", "bound")] == [mean == "", True, True, True]
    assert only["seen"] is None and "no interval" in only["says"]


def test_claims_that_are_not_known_stand_by_what_they_measure():
    rows = [row("old", "1") | {"measure": "seconds"}, row("older", "2") | {"measure": "metres"}]
    assert [group["scale"] for group in forest(rows)] == ["seconds", "metres"]
    assert forest([]) == []


def test_scale_of_every_claim_is_what_its_measure_says():
    said = {"points": "(points)", "decades": "(decades)", "tau": "Kendall's tau-b", "cosine": "cosine",
            "correlation": "Spearman's correlation", "ratio": "ratio of peak memory"}  # fmt: skip
    assert set(said) == set(SCALES)
    assert [key for key, claim in CLAIMS.items() if said[claim.scale] not in claim.measure] == []


def drawn(rows: list[dict]) -> list[ElementTree.Element]:
    """Return the plots that the page draws, one a row."""
    environment = report.environment()
    template = environment.get_template("forest.html")
    page = template.render(
        ledger={"groups": forest(rows), "counts": {"seen": 1}}, shapes=report.SHAPES, marks=report.MARKS
    )
    return [ElementTree.fromstring(found) for found in re.findall(r'<svg class="plot.*?\n</svg>', page, re.DOTALL)]


def test_page_draws_every_row_with_its_verdict_in_shape_colour_and_words():
    plots, rows = drawn(ROWS), [r for group in forest(ROWS) for r in group["rows"]]
    assert len(plots) == len(ROWS)
    for plot, r in zip(plots, rows, strict=True):
        (mark,) = [inner for inner in plot.iter("svg") if inner.get("class", "").startswith("mark")]
        assert mark.get("x") == f"{r['place']['mean']}%" and mark.get("class") == f"mark {r['verdict']}"
        assert mark.find("path").get("d") == report.SHAPES[r["verdict"]]
        bound = next(line for line in plot.iter("line") if line.get("class") == "bound")
        assert bound.get("x1") == bound.get("x2") == f"{r['place']['bound']}%"
        interval = [(line.get("x1"), line.get("x2")) for line in plot.iter("line") if line.get("class") == "interval"]
        ends = tuple(f"{r['place'][name]}%" for name in ("low", "high"))
        assert interval == ([] if r["low"] == "" else [ends])
        assert plot.get("role") == "img" and plot.find("title").text == plot.get("aria-label") == r["says"]
        assert r["mean"] in r["says"] and r["verdict"] in r["says"]
    assert len(set(report.SHAPES.values())) == len(report.SHAPES) == len(report.MARKS)


def test_page_marks_where_an_interval_is_cut():
    usual = [row("ssl_beats_sl", "1", "-1", "3") for _ in range(20)]
    plots = drawn([*usual, row("proxy_free", "2", "-1", "400")])
    classes = [[inner.get("class") for inner in plot.iter("svg")][1:3] for plot in plots]
    assert classes == [["end", "end"]] * 20 + [["end", "off"]]


def test_what_was_measured_on_other_data_is_told_apart():
    """Two rows of one claim, on the preset's data and on a slice."""
    rows = [row("memory", "1.3"), row("memory", "1.4") | {"preset": "night, 500 images a class of cifar10"}]
    (group,) = forest(rows)
    assert [r["on"] for r in group["rows"]] == ["", "500 images a class of cifar10"]
    labels = [label.get_text() for label in picture([group]).axes[0].get_yticklabels()]
    assert labels == ["claim of memory", "claim of memory (500 images a class of cifar10)"]


def test_a_picture_has_every_effect_where_its_number_says():
    groups = forest(ROWS)
    figure = picture(groups)
    assert len(figure.axes) == len(groups)
    for axes, group in zip(figure.axes, groups, strict=True):
        assert [text.get_text() for text in axes.get_xticklabels()] == [tick["text"] for tick in group["ticks"]]
        drawn = [line for line in axes.lines if line.get_marker() in ("o", "D", "s")]
        for y, (line, r) in enumerate(zip(drawn, group["rows"], strict=True)):
            assert (line.get_xdata(), line.get_ydata()) == ([r["place"]["mean"]], [y])
        for text, r in zip(axes.texts, group["rows"], strict=True):
            assert text.get_text().startswith(r["verdict"]) and f"{float(r['mean']):g}".lstrip("-") in text.get_text()
    plt.close(figure)
