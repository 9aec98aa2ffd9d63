"""Tables are made from records alone and say paper, measured mean ± sd (n seeds), preset."""

import math

import pandas as pd
import pytest

from sswp_lib.paper import output, tables
from sswp_lib.runs.records import Done, Record


def training(init: str, lr: float, seed: int, validation: float, test: float) -> Record:
    result = {"trained_on": 20, "validated_on": 270, "validation": {"top1": validation}, "test": {"top1": test}}
    config = {"data": {"name": "digits"}, "train": {"init": init, "lr": lr}, "seed": seed}
    return Record(
        name=f"train-{init}-{lr}-{seed}",
        kind="train",
        config=config,
        seed=seed,
        result=result,
        provenance={"seconds": 1.6},
    )


def done(records) -> list[Done]:
    return [
        Done({"init": r.config["train"]["init"], "lr": r.config["train"]["lr"], "search": 0, "seed": r.seed}, r)
        for r in records
    ]


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
    best = tables.at_best(tables.trainings(done(trainings)))
    assert dict(best.groupby("init").lr.first()) == {"random": 0.1, "concomitant": 0.01}
    assert best.test.max() < 99
    assert sorted(zip(best.init, best.seed, strict=True)) == [(i, s) for i in ("concomitant", "random") for s in (0, 1)]


def with_statistics(record: Record, validation: float, test: float, freeze: str = "none") -> Record:
    """The record of a run that computed BatchNorm's statistics anew at its end, and was at these accuracies by them."""
    found = {"validation": {"top1": validation}, "test": {"top1": test}}
    own = record.config["train"] | {"freeze": freeze}
    return record.model_copy(
        update={"result": record.result | {"calibrated": found}, "config": record.config | {"train": own}}
    )


def test_trainings_are_chosen_and_judged_by_statistics_computed_anew_never_by_running_averages():
    """After a few steps running averages may turn both around."""
    short = [
        with_statistics(training("random", 0.1, 0, 30.0, 31.0), 80.0, 81.0),
        with_statistics(training("random", 0.01, 0, 40.0, 41.0), 70.0, 71.0),
        with_statistics(training("concomitant", 0.1, 0, 75.0, 76.0), 76.0, 77.0),
        with_statistics(training("concomitant", 0.01, 0, 60.0, 61.0), 62.0, 63.0),
    ]
    best = tables.at_best(tables.trainings(done(short))).set_index("init")
    assert best["lr"].to_dict() == {"random": 0.1, "concomitant": 0.1}
    assert best["test"].to_dict() == {"random": 81.0, "concomitant": 77.0}
    assert best[tables.AVERAGED].to_dict() == {"random": 31.0, "concomitant": 76.0}  # beside it
    assert "81.00 %" in tables.runs(short) and short[0].outcome() == {"test accuracy": "81.00 %"}
    table = tables.curve(best.reset_index(), "lr", "smoke", column=tables.AVERAGED)
    assert table["random, test accuracy (%)"].tolist() == ["31.00 (1)"]
    jobs = [Done({"arm": "A", "seed": 0, "what": "scratch"}, with_size(short[0]))]
    assert tables.by_arm(jobs)["scratch"].tolist() == [81.0]


def with_size(record: Record) -> Record:
    return record.model_copy(update={"result": record.result | {"parameters": 2500}})


def test_a_frozen_backbone_is_judged_by_the_statistics_that_its_classifier_was_learnt_on():
    probe = with_statistics(training("simclr", 0.1, 0, 80.0, 81.0), 43.0, 44.0, freeze="backbone")
    assert tables.trainings(done([probe]))["test"].tolist() == [81.0]
    assert training("random", 0.1, 0, 80.0, 81.0).accuracies == {"validation": {"top1": 80.0}, "test": {"top1": 81.0}}


def test_by_start_says_mean_sd_searches_and_preset(trainings):
    best = tables.at_best(tables.trainings(done(trainings)))
    table = tables.by_start({"as in the preset": best, "none": best}, "smoke").set_index("initialisation")
    measured = table["test accuracy (%), mean ± sd (n fine-tunings)"]
    assert measured["concomitant"].tolist() == [f"64.00 ± {math.sqrt(8):.2f} (2)"] * 2
    assert measured["random"].tolist() == [f"52.00 ± {math.sqrt(2):.2f} (2)"] * 2
    assert table["augmentation"].tolist() == ["as in the preset"] * 2 + ["none"] * 2
    assert set(table.preset) == {"smoke"} and set(table.labels) == {20} and set(table.searches) == {1}
    assert table.paper["concomitant"].iloc[0].startswith("higher")


def test_spread_of_one_seed_has_no_deviation():
    assert tables.spread(pd.Series([3.0])) == "3.00 (1)"
    assert tables.spread(pd.Series([1.0, 3.0])) == "2.00 ± 1.41 (2)"


def test_summary_of_a_search(finished):
    table = tables.summary(finished).set_index("measured").value
    views = 2 * finished.config["search"]["batch_size"]
    assert table[f"contrastive loss at chance, log({views} - 1)"] == str(round(math.log(views - 1), 3))
    assert table["contrastive loss, last epoch"] == str(round(finished.history[-1]["loss"], 3))
    assert table["images, unlabelled"] == "1347"


def test_saved_beside_the_figures_with_its_caption(tmp_path, monkeypatch):
    monkeypatch.setattr(output, "home", lambda: tmp_path)
    table = pd.DataFrame({"a (%)": [1, 2], "b_c": ["x & y", "± 50 %"]})
    where = output.Output("smoke", ("train.shift=0",))
    assert tables.save(table, "t", where, "What it shows, in %") is table
    folder = tmp_path / "figures" / "own" / "smoke+train.shift=0"
    assert pd.read_csv(folder / "t.csv").equals(table)
    written = (folder / "t.md").read_text()
    assert (
        written.splitlines()[0] == "**What it shows, in %. Preset smoke with train.shift=0**" and "| x & y" in written
    )
    latex = (folder / "t.tex").read_text()
    assert (
        r"\caption{What it shows, in \%. Preset smoke with train.shift=0}" in latex
        and r"a (\%)" in latex
        and r"b\_c" in latex
        and r"x \& y" in latex
    )


def judged(arm: str, seed: int, scratch: float, tuned: float, gap: float) -> list[Done]:
    """Return a search and the two trainings of what it found."""
    search = {
        "supernet": {"accuracy": 0.5 + gap / 100}, "exported": {"accuracy": 0.5}, "skip_share": 0.25,
        "changed_by_caps": 1, "alpha": {"largest": 0.2 + seed / 10, "entropy": 0.9}, "images": 1347,
    }  # fmt: skip
    objective = "supervised" if arm == "SL" else "simclr"
    trained = lambda top1: {"test": {"top1": top1}, "parameters": 2500, "trained_on": 100}  # noqa: E731
    results = {"search": search, "scratch": trained(scratch), "fine-tuned": trained(tuned)}
    return [
        Done(
            {"arm": arm, "what": what, "seed": seed},
            Record(
                name=f"{arm}-{what}-{seed}",
                kind="x",
                config={"search": {"objective": objective}},
                seed=seed,
                result=r,
                provenance={"seconds": 1800.0},
            ),
        )
        for what, r in results.items()
    ]


def test_by_arm_joins_a_search_with_its_trainings():
    frame = tables.by_arm(
        [*judged("SSL", 0, 90.0, 92.0, 3.0), *judged("SSL", 1, 88.0, 93.0, 5.0), *judged("SL", 0, 80.0, 81.0, 0.0)]
    )
    assert frame[["arm", "seed", "scratch", "fine-tuned"]].values.tolist() == [
        ["SSL", 0, 90.0, 92.0],
        ["SSL", 1, 88.0, 93.0],
        ["SL", 0, 80.0, 81.0],
    ]
    assert frame["gap"].tolist() == pytest.approx([3.0, 5.0, 0.0])
    assert frame["search run"].tolist() == ["SSL-search-0", "SSL-search-1", "SL-search-0"]
    assert frame["fine-tuned run"].iloc[1] == "SSL-fine-tuned-1"
    table = tables.arms(frame, ["SL", "SSL"], "smoke", {"SSL": 2.65}).set_index("arm")
    assert (
        table.loc["SSL", "here, test error, scratch (%)"] == f"11.00 ± {math.sqrt(2):.2f} (2)"
        and table.loc["SL", "here, test error, scratch (%)"] == "20.00 (1)"
    )
    assert table.loc["SSL", "paper, test error (%)"] == 2.65 and math.isnan(table.loc["SL", "paper, test error (%)"])
    assert set(table.preset) == {"smoke"} and table.loc["SSL", "parameters (k)"] == 2.5
    assert table["labels that the search saw"].to_dict() == {"SL": 1347, "SSL": 0}  # its weights have seen them too
    assert table.loc["SSL", "largest probability of alpha"] == 0.3 and table.loc["SSL", "entropy of alpha"] == 0.9
    assert tables.gaps(frame, ["SSL"], "smoke")["gap (points)"].tolist() == [f"4.00 ± {math.sqrt(2):.2f} (2)"]


def test_curve_has_a_column_for_each_start():
    rows = [
        ("random", 0.1, 0, 60.0),
        ("random", 0.1, 1, 62.0),
        ("concomitant", 0.1, 0, 70.0),
        ("concomitant", 0.1, 1, 70.0),
        ("random", 0.5, 0, 90.0),
        ("concomitant", 0.5, 0, 91.0),
    ]
    table = tables.curve(pd.DataFrame(rows, columns=["init", "fraction", "seed", "test"]), "fraction", "smoke")
    assert table["random, test accuracy (%)"].tolist() == [f"61.00 ± {math.sqrt(2):.2f} (2)", "90.00 (1)"]
    assert table["concomitant, test accuracy (%)"].tolist() == ["70.00 ± 0.00 (2)", "91.00 (1)"]


def test_measured_sizes_stand_beside_the_reported_ones():
    reported = pd.DataFrame({"architecture": ["A", "B"], "params_M": [3.3, 9.0], "note": ["", ""]})
    table = tables.with_sizes(reported, {"A": {"parameters": 3349342}}, {"parameters": "params_M"})
    assert list(table.columns) == ["architecture", "params_M", "params_M measured", "note"]
    assert table["params_M measured"][0] == 3.35 and math.isnan(table["params_M measured"][1])


def test_cost_is_summed_by_kind(trainings):
    table = tables.cost([r.model_copy(update={"provenance": {"seconds": 1800.0, "device": "cpu"}}) for r in trainings])
    assert table.loc[0, ["kind", "runs", "device-hours"]].tolist() == ["train", 8, 4.0]


def test_columns_made_for_programs_are_shown_in_words(tmp_path, monkeypatch):
    """In Markdown, LaTeX and notebooks; the CSV keeps the names that programs know."""
    monkeypatch.setattr(output, "home", lambda: tmp_path)
    table = pd.DataFrame({"architecture": ["A"], "params_M": [3.3], "params_M measured": [3.35], "top1": [25.0]})
    tables.save(table, "t", output.Output("quick"))
    texts = {suffix: (output.Output("quick").folder / f"t.{suffix}").read_text() for suffix in ("csv", "md", "tex")}
    assert texts["csv"].startswith("architecture,params_M,params_M measured,top1\n")
    shown = "architecture", "parameters (M)", "parameters (M), measured", "top-1 (%)"
    for text in (texts["md"], texts["tex"], tables.styled(table).to_html()):
        assert all(name in text or name.replace("%", "\\%") in text for name in shown) and "params" not in text
