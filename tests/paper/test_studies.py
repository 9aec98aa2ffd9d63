"""A comparison asks for the runs that its labels say, and for no others."""

from __future__ import annotations

from functools import reduce

import pytest
from tiny_runs import tiny

from sswp_lib.config import InputError, setting_names
from sswp_lib.lab import estimate
from sswp_lib.learn.search import Search
from sswp_lib.learn.train import Training
from sswp_lib.paper import studies
from sswp_lib.presets import PRESETS, load_config
from sswp_lib.runs import runs
from sswp_lib.space import Genotype

STUDY = load_config("smoke", study="ablations")


def changed(config, base) -> dict:
    """Return the settings in which a configuration differs from another, dotted."""
    values = {name: [reduce(getattr, name.split("."), c) for c in (config, base)] for name in setting_names()}
    return {name: ours for name, (ours, theirs) in values.items() if ours != theirs}


def test_an_ablation_searches_each_arm_with_each_seed_and_judges_it_twice():
    jobs = studies.ablation(STUDY, {"a": {}, "b": {"search.skip_dropout": 0.5}}, 2)
    assert [(j.labels["arm"], j.labels["seed"], j.labels["what"]) for j in jobs] == [
        (a, s, w) for a in "ab" for s in (0, 1) for w in ("search", "scratch", "fine-tuned")
    ]
    search, scratch, tuned = jobs[9:]
    assert changed(search.config, STUDY) == {"search.skip_dropout": 0.5, "seed": 1} and search.source is None
    assert changed(scratch.config, STUDY) == {"seed": 1} and scratch.source == search.config
    assert changed(tuned.config, STUDY) == {"seed": 1, "train.init": "concomitant"} and tuned.source == search.config


def test_pruning_arms_are_table_3a():
    arms = {name: STUDY.changed(**settings).search for name, settings in studies.pruning_arms(STUDY).items()}
    assert {name: (s.objective, s.prune, s.ratios) for name, s in arms.items()} == {
        "SL": ("supervised", "none", (0.2, 0.8)), "SL+BPP": ("supervised", "backward", (0.2, 0.4, 0.4)),
        "SL+FPP": ("supervised", "forward", (0.2, 0.4, 0.4)),
        "SSL": ("simclr", "none", (0.2, 0.8)), "SSL+BPP": ("simclr", "backward", (0.2, 0.4, 0.4)),
        "SSL+FPP": ("simclr", "forward", (0.2, 0.4, 0.4)),
    }  # fmt: skip
    assert all(s.edges == "all" for s in arms.values())


def test_comparisons_share_the_default_arm():
    """The paper's own setting is one search in all of them, and run once."""
    default = STUDY.search
    shared = [
        studies.RATIOS["default"],
        studies.EDGES["all 14 until the end"],
        studies.DROPOUT["0.2"],
        studies.OBJECTIVES["SimCLR"],
        studies.pruning_arms(STUDY)["SSL+FPP"],
    ]
    shared += [
        list(studies.epoch_arms(STUDY).values())[1],
        list(studies.batch_arms(STUDY).values())[1],
        studies.gain_arms(STUDY)["FPP and dropout"],
    ]
    assert [STUDY.changed(**settings).search for settings in shared] == [default] * len(shared)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_arm_is_a_valid_search_at_every_preset(preset):
    study = load_config(preset, study="ablations")
    many = (
        studies.pruning_arms(study)
        | studies.RATIOS
        | studies.EDGES
        | studies.DROPOUT
        | studies.OBJECTIVES
        | studies.epoch_arms(study)
        | studies.batch_arms(study)
        | studies.gain_arms(study)
    )
    assert (
        len({study.changed(**settings).search.model_dump_json() for settings in many.values()}) == 17
    )  # those that are the same are meant to be


def test_benchmark_trains_what_was_found_published_and_random_cells():
    jobs = studies.benchmark(STUDY, 2)
    assert [j.labels["arm"] for j in jobs if j.labels["seed"] == 1] == [
        "SSWP-NAS (here)",
        "random genotypes",
        *studies.PUBLISHED,
    ]
    assert all(j.config.train.init == "random" for j in jobs)
    drawn = [j.source for j in jobs if j.labels["arm"] == "random genotypes"]
    assert drawn[0] != drawn[1] and studies.random_genotype(3, 1) == drawn[1]
    assert next(j.source for j in jobs if j.labels["arm"] == "PDARTS") == Genotype.published("PDARTS", 3)


def test_fractions_are_of_the_same_search_and_recipe():
    config = load_config("smoke")
    jobs = studies.fractions_at(config, STUDY, {"random": 0.1, "simclr": 0.2}, [0.1, 0.5], 2)
    assert [(j.labels["init"], j.labels["fraction"], j.labels["lr"], j.labels["seed"]) for j in jobs] == [
        (i, f, lr, s) for i, lr in (("random", 0.1), ("simclr", 0.2)) for f in (0.1, 0.5) for s in (0, 1)
    ]
    for job in jobs:
        t = job.config.train
        assert job.source == config and (t.init, t.labels, t.lr, t.labels_per_class, t.epochs) == (
            job.labels["init"],
            job.labels["fraction"],
            job.labels["lr"],
            None,
            STUDY.train.epochs,
        )
    shared = studies.rates_at(config, STUDY, 0.5, 2, [0.2], ["simclr"])
    assert [j.config for j in shared] == [
        j.config for j in jobs if j.labels["init"] == "simclr" and j.labels["fraction"] == 0.5
    ]


def test_transfer_searches_on_a_or_b_and_trains_on_b():
    on_a, on_b = studies.data_sets(STUDY, None)
    assert on_a["data.classes"] == tuple("01234") and on_b["data.classes"] == tuple("56789")
    jobs = studies.transfer(STUDY, 1, on_a, on_b)
    assert [(j.labels["arm"], j.labels["what"], j.config.data.classes) for j in jobs] == [
        ("transfer", "search", tuple("01234")), ("transfer", "scratch", tuple("56789")),
        ("proxy-free", "search", tuple("56789")), ("proxy-free", "scratch", tuple("56789")),
    ]  # fmt: skip
    assert [j.source.data.classes for j in jobs if j.source] == [tuple("01234"), tuple("56789")]
    assert studies.data_sets(STUDY, "tiny-imagenet") == ({}, {"data.image_size": 64, "data.name": "tiny-imagenet"})


def test_captions_say_what_was_searched():
    config = STUDY.changed(**{"data.name": "folder:/some/where/cats", "data.classes": ("a", "b"), "search.epochs": 4})
    assert studies.data_words(config) == "the classes a, b of the folder cats"
    assert studies.size(STUDY).startswith("digits, 8 pixels, C=") and studies.size(config).endswith("4 search epochs")
    assert (
        studies.phase_words(STUDY, {"longer": {"search.epochs": 10, **studies.RATIOS["longer"]}}) == "longer 2 + 2 + 6"
    )


def test_probes_learn_the_classifier_alone():
    for job in studies.probes(STUDY, 1):
        assert job.config.train.freeze == "backbone" and job.config.train.init == "simclr"
        assert (
            job.source.search.objective == {"SL": "supervised", "SSL": "simclr"}[job.labels["arm"]]
            and job.source.search.prune == "forward"
        )


def test_jobs_are_carried_out_and_found_again(runs_folder, monkeypatch):
    config = tiny()
    jobs = studies.ablation(config, {"a": {}}, 1)
    assert [
        runs.finished(j.config, None if j.source is None else Genotype.published("DARTS_V1", 2)) for j in jobs[:2]
    ] == [None, None]
    done = studies.carry_out(jobs, "cpu")
    assert [d.record.kind for d in done] == ["search", "train", "train"] and [d.labels for d in done] == [
        j.labels for j in jobs
    ]
    assert done[2].record.source["weights"] == done[0].record.name and done[1].record.result["test"]["top1"] > 0
    monkeypatch.setattr(Search, "train_step", None)
    monkeypatch.setattr(Training, "train_step", None)
    assert studies.carry_out(jobs, "cpu") == done
    assert [runs.finished(jobs[0].config), *(runs.finished(j.config, done[0].record) for j in jobs[1:])] == [
        d.record for d in done
    ]
    assert sum(estimate._cost(j, set()) for j in jobs) == 0.0


def test_a_pre_trained_start_is_found_again(runs_folder):
    config = tiny(train__init="simclr")
    genotype = Genotype.published("DARTS_V2", 2)
    assert runs.finished(config, genotype) is None
    record = runs.train(config, genotype, device="cpu", quiet=True)
    assert runs.finished(config, genotype) == record


@pytest.mark.parametrize("seeds", [0, -3, 1.5, "two"])
def test_wrong_seeds_are_refused(seeds):
    with pytest.raises(InputError, match=r"seeds is .*; expected a whole number above 0"):
        studies.configured("smoke", None, seeds)


@pytest.mark.parametrize("preset, data, settings, said", [
    ("smok", None, [], "did you mean 'smoke'"), ("smoke", "digit", [], "did you mean 'digits'"),
    ("smoke", "folder:/no/such", [], "no folder"),
    ("smoke", None, ["search.epoch=3"], "did you mean 'search.epochs'"),
])  # fmt: skip
def test_wrong_parameters_of_a_notebook_are_refused(preset, data, settings, said):
    with pytest.raises(InputError, match=said) as caught:
        studies.configured(preset, data, 2, settings)
    assert caught.value._render_traceback_() == [f"InputError: {caught.value}"]


def test_estimate_counts_steps_of_unfinished_runs_once(runs_folder, monkeypatch):
    monkeypatch.setattr(estimate, "_step_seconds", lambda config, training: 1.0)
    config = load_config("smoke")
    alone = estimate.seconds("smoke", None, 2, ["06_genotypes"])
    steps = config.search.epochs * (1347 // 2 // config.search.batch_size)
    assert alone == {"06_genotypes": steps + estimate.RUN}
    both = estimate.seconds("smoke", None, 2, ["01_search", "06_genotypes"])
    trainings = 2 * 3 * 2  # two starts, three rates, two seeds; 20 labels are one step an epoch
    assert both == {
        "01_search": pytest.approx(steps + estimate.RUN + trainings * (config.train.epochs + estimate.RUN)),
        "06_genotypes": 0.0,
    }
