"""SSNAS's comparisons: arms differ in what they should and in nothing else; selection, effects and tables by hand."""

from __future__ import annotations

from functools import reduce
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from sswp_lib.config import InputError, setting_names
from sswp_lib.learn.recipes import pretraining
from sswp_lib.methods import RELAXED
from sswp_lib.paper import setups, ssnas, ssnas_tables, studies, tables
from sswp_lib.paper.claims import CLAIMS
from sswp_lib.paper.ssnas import FIRST, ONE_SET, RANDOM, SECOND, SSNAS
from sswp_lib.presets import PRESETS, load_config
from sswp_lib.show import mixtures
from sswp_lib.space import Genotype, reduction_cells
from sswp_lib.space.mixed import DARTS_CANDIDATES

STUDY = load_config("smoke", study="ssnas")
FEATURES = load_config("smoke", study="ssnas_features")
DARTS = Genotype.published("DARTS_V2", 4)
ALL = (RANDOM, FIRST, SECOND, SSNAS, "few", ONE_SET)


def changed(config, base=STUDY) -> dict:
    """Return the settings in which a configuration differs from another, dotted."""
    values = {name: [reduce(getattr, name.split("."), c) for c in (config, base)] for name in setting_names()}
    return {name: ours for name, (ours, theirs) in values.items() if ours != theirs}


def test_arms_differ_in_exactly_what_they_should():
    arms = ssnas.arms(STUDY, 14)
    few, labelled = ssnas.few_name(14), {"search.method": "darts", "search.objective": "supervised"}
    assert list(arms) == [*ssnas.TABLE1, few, ONE_SET] and arms[RANDOM] is None
    found = {name: changed(STUDY.changed(**settings)) for name, settings in arms.items() if settings is not None}
    assert found[SSNAS] == {} and found[FIRST] == labelled and found[SECOND] == {**labelled, "relaxed.order": 2}
    # 70 labelled images a half are one batch of 64, so that four iterations are four epochs
    assert found[few] == {**labelled, "relaxed.labels_per_class": 14, "search.epochs": 4}
    fewest = ssnas.few_labels(STUDY, 4)
    assert fewest == {**labelled, "relaxed.labels_per_class": 4, "search.batch_size": 20, "search.epochs": 4}
    assert found[ONE_SET] == {"relaxed.split": "same", "search.epochs": 1}


@pytest.mark.parametrize("preset", PRESETS)
def test_every_arm_is_valid_and_takes_as_many_steps(preset):
    """At every preset, to within the length of an epoch; so few labels and one set are compared at equal steps."""
    study = load_config(preset, "digits", study="ssnas").changed(**{"data.per_class": None})
    steps, longest = {}, 0
    for name, settings in ssnas.arms(study).items():
        if settings is None:
            continue
        search = study.changed(**settings)
        assert search.search.method in RELAXED
        steps[name] = search.search.epochs * studies.iterations(search)
        longest = max(longest, studies.iterations(search))
    assert max(steps.values()) - min(steps.values()) <= longest, steps
    features = load_config(preset, "digits", study="ssnas_features")
    assert features.model == study.model and features.search.temperature == study.search.temperature == 0.5
    assert ssnas.rates(preset)


def test_one_set_has_half_the_epochs():
    study = STUDY.changed(**{"search.epochs": 10})
    assert ssnas.one_set(study) == {"relaxed.split": "same", "search.epochs": 4}  # of five iterations, for two


def test_few_labels_are_a_tenth_of_each_class():
    assert ssnas.scarce(STUDY.changed(**{"data.per_class": None})) == 14  # of 134.7 digits; even, for the halves
    assert ssnas.scarce(STUDY.changed(**{"data.per_class": 8})) == 2


def test_all_arms_are_trained_by_one_recipe_and_as_many_of_each():
    jobs = ssnas.compared(STUDY, ssnas.arms(STUDY, 14), 2, trainings=2)
    trained = [job for job in jobs if job.labels["what"] == "scratch"]
    counts = pd.Series([job.labels["arm"] for job in trained]).value_counts()
    assert set(counts) == {4} and len(counts) == 6
    for seed in (0, 1):
        for repeat in (0, 1):
            same = [j for j in trained if (j.labels["seed"], j.labels.get("repeat", 0)) == (seed, repeat)]
            assert len({job.config.model_dump_json() for job in same}) == 1
            assert changed(same[0].config) == ({"seed": seed + 100 * repeat} if seed + repeat else {})
    searched = [job for job in jobs if job.labels["what"] == "search"]
    assert len(searched) == 10 and RANDOM not in {job.labels["arm"] for job in searched}
    for job in trained:
        own = [j.config for j in searched if all(j.labels[k] == job.labels[k] for k in ("arm", "seed"))]
        assert own == ([] if job.labels["arm"] == RANDOM else [job.source])


def test_random_cells_are_shared_and_uncapped():
    drawn = [ssnas.random_cells(5, seed) for seed in range(60)]
    for genotype in drawn:
        kinds = {str(genotype.cells[i]) for i in reduction_cells(5)}, {str(genotype.cells[i]) for i in (0, 2, 4)}
        assert [len(kind) for kind in kinds] == [1, 1] and kinds[0] != kinds[1]
    assert len({genotype.to_json() for genotype in drawn}) == 60 and drawn[3] == ssnas.random_cells(5, 3)
    skips = [sum(name == "skip_connect" for name, _ in genotype.cells[0]) for genotype in drawn]
    assert max(skips) > 2
    assert np.mean(skips) == pytest.approx(8 / 7, abs=0.4)  # all seven alike


def test_features_of_both_arms_are_learnt_and_judged_alike():
    jobs = ssnas.representations(FEATURES, STUDY, 2)
    assert len(jobs) == 16 and ssnas.batches(FEATURES) == (32, 64)
    for job in jobs:
        seed, batch = job.labels["seed"], job.labels["batch"]
        before = pretraining(job.config, seed)
        assert (before.train.batch_size, before.train.epochs) == (batch, FEATURES.search.epochs)
        assert job.config.train.init == "simclr" and not before.train.half
        if job.labels["arm"] == SSNAS:
            assert job.source == STUDY.changed(seed=seed)
        else:
            assert job.source == ssnas.random_cells(STUDY.model.num_cells, seed)
        train = job.config.train
        probe = job.labels["what"] == "probe"
        assert (train.freeze, train.labels, train.labels_per_class) == (
            ("backbone", 1.0, None) if probe else ("none", 0.1, None)
        )
    one, two = ([j.config for j in jobs if j.labels["arm"] == arm] for arm in ssnas.FEATURES)
    assert one == two


def test_starts_choose_their_own_rates_and_share_the_runs_of_table_4():
    jobs = ssnas.starts(FEATURES, STUDY, 1, (0.03, FEATURES.train.lr))
    assert [(j.labels["arm"], j.labels["init"], j.labels["lr"]) for j in jobs] == [
        (arm, init, lr) for arm, init in ssnas.STARTS for lr in (0.03, FEATURES.train.lr)
    ]
    tuned = [j for j in ssnas.representations(FEATURES, STUDY, 1) if j.labels["what"] == "fine-tuned"]
    shared = [j for j in jobs if j.labels["init"] == "simclr" and j.labels["lr"] == FEATURES.train.lr]
    assert [(j.config, j.source) for j in shared] == [
        (j.config, j.source) for j in tuned if j.labels["batch"] == ssnas.batches(FEATURES)[1]
    ]


def test_cells_are_selected_without_labels_by_short_pre_trainings_on_one_half():
    jobs = ssnas.selection(FEATURES.changed(**{"search.epochs": 7}), STUDY, 2)
    assert [(j.labels["arm"], j.labels["seed"]) for j in jobs] == [(a, s) for a in ssnas.FEATURES for s in (0, 1)]
    for job in jobs:
        t = job.config.train
        assert (t.objective, t.half, t.init, t.epochs) == ("simclr", True, "random", 2)
        assert job.config.seed == job.labels["seed"]
    found = [SimpleNamespace(labels=j.labels, record=SimpleNamespace(name="r", result={"held_out": {"loss": loss}}))
             for j, loss in zip(jobs, (3.0, 2.0, 4.0, 5.0), strict=True)]  # fmt: skip
    chosen = ssnas.selected(ssnas.contrastive_losses(found), "loss", lowest=True)
    assert dict(zip(chosen["arm"], chosen["seed"], strict=True)) == {RANDOM: 1, SSNAS: 0}


def test_selection_takes_the_best_and_of_equal_ones_the_first():
    frame = pd.DataFrame(
        {"arm": list("bbbaaa"), "seed": [2, 0, 1] * 2, "validation": [5, 5, 1, 1, 2, 3], "test": [9, 1, 2, 3, 4, 5]}
    )
    best = ssnas.selected(frame, "validation")
    assert best[["arm", "seed", "test"]].to_numpy().tolist() == [["b", 0, 1], ["a", 1, 5]]
    worst = ssnas.selected(frame, "validation", lowest=True)
    assert worst[["arm", "seed"]].to_numpy().tolist() == [["b", 1], ["a", 2]]


def frame_of(arms: dict[str, tuple[list[float], float]]) -> pd.DataFrame:
    """Return what `judged` gives: test accuracy by seed, and the share of skips, of each arm."""
    return pd.DataFrame(
        {"arm": arm, "seed": seed, "scratch": value, "validation": value + seed % 2, "skip share": skips}
        | {"parameters": 1e4, "labels": 20, "scratch run": f"train-{arm}{seed}"}
        | ({} if arm == RANDOM else searched(arm, seed, skips))
        for arm, (values, skips) in arms.items()
        for seed, value in enumerate(values)
    )


def searched(arm: str, seed: int, skips: float) -> dict:
    told = {"skips": skips, "largest": 0.5, "entropy": 0.9, "searched labels": 0}
    return told | {"search run": f"search-{arm}{seed}"}


def test_effects_speak_for_the_paper_where_they_are_above_0():
    few = ssnas.few_name(14)
    arms = {RANDOM: ([80, 81, 79], 10), FIRST: ([82, 83, 81], 20), SECOND: ([84, 85, 83], 10), SSNAS: ([84, 86, 83], 5),
            few: ([60, 65, 61], 70), ONE_SET: ([83, 85, 83], 5)}  # fmt: skip
    arms = {arm: ([value + 0.01 * seed for seed, value in enumerate(v)], s) for arm, (v, s) in arms.items()}
    effects = ssnas.architecture_effects(frame_of(arms), 14)
    assert {key: round(effect.mean, 2) for key, effect in effects.items()} == {
        "ss_beats_random": 4.33, "ss_beats_first": 2.33, "ss_matches_second": 0.33, "ss_few_labels": 22.33,
        "ss_split": 0.67, "ss_no_collapse": 65.0,
    }  # fmt: skip
    assert all(effect.n == 3 and effect.unit == "search" for effect in effects.values())
    assert "search-SSNAS (first order)0" in effects["ss_beats_random"].runs  # by which its alpha is judged
    assert CLAIMS["ss_matches_second"].bound == "above -1"


def features(shift: float = 0.0) -> pd.DataFrame:
    """Return the trainings of Table 4: SSNAS is 2 points better at a batch of 8, 4 at 16; the larger one gives it 3."""
    values = {(RANDOM, 8): 50.0, (SSNAS, 8): 52.0, (RANDOM, 16): 51.0, (SSNAS, 16): 55.0}
    return pd.DataFrame(
        {"arm": arm, "batch": batch, "what": what, "init": "simclr", "lr": 0.1, "search": seed, "seed": seed}
        | {"test": value + 20 * (what != "probe") + 0.1 * seed * (arm == SSNAS) + shift, "labels": 100}
        | {"validation": value, "run": f"train-{arm}{batch}{what}{seed}"}
        for (arm, batch), value in values.items()
        for what in ("probe", "fine-tuned")
        for seed in range(3)
    )


def test_effects_of_features_are_means_over_batches_paired_by_search():
    frame = features()
    best = frame[(frame["what"] == "fine-tuned") & (frame["batch"] == 16)]
    drawn = best[best["arm"] == SSNAS].assign(init="random", test=lambda t: t["test"] - [10, 11, 12])
    effects = ssnas.feature_effects(frame, pd.concat([best, drawn]))
    assert {key: round(effect.mean, 6) for key, effect in effects.items()} == {
        "ss_probe": 3.1, "ss_semi": 3.1, "ss_batch": 3.0, "ss_pretrain": 11.0
    }  # fmt: skip
    assert all(effect.n == effect.searches == 3 for effect in effects.values())


def test_tables_set_all_searches_and_the_selected_one_beside_the_paper():
    table = ssnas_tables.architectures(
        frame_of({RANDOM: ([80, 81], 10), SSNAS: ([85, 84.5], 0)}), [RANDOM, SSNAS], "smoke",
        ssnas_tables.errors("table1"),
    ).set_index("arm")  # fmt: skip
    assert table["paper, test error (%)"].tolist() == [3.29, 2.61]
    assert table["here, test error (%)"].tolist() == ["19.50 ± 0.71 (2)", "15.25 ± 0.35 (2)"]
    assert table["selected, test error (%)"].tolist() == [19.0, 15.5] and table["selected seed"].tolist() == [1, 1]
    assert table["share of skips (%)"].tolist() == ["10.00 ± 0.00 (2)", "0.00 ± 0.00 (2)"]
    assert ssnas_tables.errors("table3")[FIRST] == pytest.approx(35.54)


def test_table_4_has_the_papers_rows_and_nothing_here_of_what_is_not_trained():
    losses = pd.DataFrame({"arm": [RANDOM] * 3 + [SSNAS] * 3, "seed": [0, 1, 2] * 2, "loss": [3, 1, 2, 2, 3, 1.0]})
    table = ssnas_tables.representations(features(), losses.assign(accuracy=0.5), "smoke")
    assert len(table) == 6 and table["here, batch"].tolist() == [8] * 3 + [16] * 3
    own = table[(table["architecture"] == SSNAS) & (table["here, batch"] == 16)].iloc[0]
    assert own["paper, probe (%)"] == 90.87 and own["here, probe (%)"].startswith("55.10 ± ")
    assert (own["selected seed"], own["selected, probe (%)"]) == (2, 55.2)
    assert table[table["architecture"] == "ResNet-18"]["here, probe (%)"].isna().all()
    shown = ssnas_tables.losses_table(losses.assign(accuracy=0.5), "smoke")
    assert shown["selected"].tolist() == [False, True, False, False, False, True]


def test_table_5_names_starts_and_rates():
    frame = features()
    best = frame[(frame["what"] == "fine-tuned") & (frame["batch"] == 16)]
    table = ssnas_tables.starts(best, "smoke").set_index(["architecture", "start"])
    assert table.loc[(SSNAS, "pretrained"), "paper, test accuracy (%)"] == 86.7
    assert table.loc[(SSNAS, "pretrained"), "here, test accuracy (%)"].startswith("75.10")
    assert table.loc[[(SSNAS, "random weights"), ("ResNet-18", "pretrained")], "learning rate"].isna().all()


def search_record(seed: int, genotype: Genotype = DARTS) -> SimpleNamespace:
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.ones(8), size=(2, 14)).round(5)
    result = {"mixture": {"candidates": list(DARTS_CANDIDATES), "weights": weights.tolist()},
              "alpha": {"entropy": 0.9, "largest": 0.4}, "architecture_steps": [5, 5]}  # fmt: skip
    return SimpleNamespace(seed=seed, result=result, genotype=genotype, name=f"search-{seed}")


def test_agreement_is_of_searches_alone():
    done = [SimpleNamespace(labels={"arm": SSNAS, "what": "search"}, record=search_record(seed)) for seed in (1, 0)]
    done += [SimpleNamespace(labels={"arm": RANDOM, "what": "scratch"}, record=None)]
    table = ssnas_tables.agreement(done, [RANDOM, SSNAS], "smoke")
    assert table["searches of"].tolist() == [SSNAS] and table["n"].tolist() == [2]
    assert abs(float(table["entries correlate"].iloc[0])) < 0.3
    assert ssnas_tables.agreement(done[:1], [SSNAS], "smoke")["entries correlate"].tolist() == ["one search"]


def test_cells_are_restacked_to_imagenets_depth():
    large = ssnas.restacked(DARTS, 14)
    assert large == Genotype.published("DARTS_V2", 14)
    table = ssnas_tables.transfer({SECOND: DARTS}, "smoke")
    assert table["here, parameters (M)"].tolist() == [4.72] and table["paper, top-1 error (%)"].tolist() == [28.92]
    with pytest.raises(InputError, match="a genotype of 2 cells has no normal one"):
        ssnas.restacked(Genotype.published("DARTS_V2", 2), 14)


def test_without_a_validation_part_there_is_nothing_to_select_by():
    result = {"trained_on": 20, "validated_on": 0, "test": {"top1": 50.0}, "parameters": 10}
    record = SimpleNamespace(name="train-1", result=result, accuracies={"test": result["test"]}, genotype=DARTS)
    done = [SimpleNamespace(labels={"arm": RANDOM, "what": "scratch", "seed": 0}, record=record)]
    with pytest.raises(InputError, match=r"set train\.validation"):
        ssnas.judged(done)
    record.accuracies["validation"] = {"top1": 60.0}
    row = ssnas.judged(done).iloc[0]
    assert (row["scratch"], row["validation"], row["skip share"]) == (50.0, 60.0, 100 * 10 / 32)


def test_figures_of_relaxed_searches_can_be_drawn():
    figure = mixtures.mixture(search_record(0))
    assert [axes.get_title() for axes in figure.axes[:2]] == ["normal", "reduce"]
    assert [len(axes.lines) for axes in figure.axes[:2]] == [8, 8]
    frame = frame_of({RANDOM: ([80, 81], 10), SSNAS: ([85], 0)})
    assert len(mixtures.skips_beside_accuracy(frame, [RANDOM, SSNAS]).axes) == 2
    plt.close("all")


def test_a_studys_own_method_is_the_configuration():
    """A search shorter than the paper's method could bear is asked for without that one's being asked."""
    setup = setups.configured("smoke", None, None, ["search.epochs=1"], "ssnas")
    assert setup.config == setup.study and setup.study.search.method == "ssnas"
    assert tables.INITS["random"] in ssnas_tables.start_name(SSNAS, "random")
