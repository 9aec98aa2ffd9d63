"""A comparison asks for the runs that its labels say, and for no others."""

from __future__ import annotations

from functools import reduce

import pytest
from tiny_runs import name_of, tiny

from sswp_lib.config import InputError, home, setting_names
from sswp_lib.lab import estimate
from sswp_lib.learn.phases import architecture_steps
from sswp_lib.learn.search import Search
from sswp_lib.learn.train import Training
from sswp_lib.paper import beyond, lots, setups, studies
from sswp_lib.presets import PRESETS, load_config
from sswp_lib.runs import runs
from sswp_lib.runs.holding import file_of, take
from sswp_lib.runs.progress import Line
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


@pytest.mark.parametrize("preset", PRESETS)
def test_figure_4_sets_shorter_and_smaller_beside_the_studys_own(preset):
    """The claims compare the longest with the shortest, and the last two batches."""
    study, affords = load_config(preset, study="ablations"), beyond.extent(preset)
    epochs = [arm["search.epochs"] for arm in studies.epoch_arms(study, affords.epochs).values()]
    batches = [arm["search.batch_size"] for arm in studies.batch_arms(study, affords.batches).values()]
    assert epochs == sorted(set(epochs)) and study.search.epochs in epochs[1:]
    assert batches[-2:] == [study.search.batch_size, 2 * study.search.batch_size]


def test_published_cells_are_trained_where_a_table_shows_them():
    every, without = studies.benchmark(STUDY, STUDY, 2), studies.benchmark(STUDY, STUDY, 2, published=())
    arms = {job.labels["arm"] for job in every} - {job.labels["arm"] for job in without}
    assert arms == set(studies.PUBLISHED) and len(every) - len(without) == 2 * len(arms)


@pytest.mark.parametrize("preset", ["smoke", "quick"])
def test_alpha_takes_a_step_in_every_arm(preset):
    """On the digits, and on half of their classes: else a notebook would be refused at its tenth search."""
    study = load_config(preset, study="ablations")
    arms = studies.pruning_arms(study) | studies.RATIOS | studies.EDGES | studies.DROPOUT | studies.OBJECTIVES
    arms |= studies.epoch_arms(study) | studies.batch_arms(study) | studies.gain_arms(study)
    for images, settings in [(1347, s) for s in arms.values()] + [(660, {})]:
        search = study.changed(**settings).search
        steps = architecture_steps(search, study.model.num_cells, images // 2 // search.batch_size)
        assert min(steps.values()) >= 1, settings


def test_benchmark_trains_what_was_found_published_and_random_cells():
    searched = STUDY.changed(**{"search.epochs": 9})
    jobs = studies.benchmark(searched, STUDY, 2)
    trained = [j for j in jobs if j.labels["what"] == "scratch"]
    assert [j.labels["arm"] for j in trained if j.labels["seed"] == 1] == [
        studies.FOUND,
        studies.SAME_SIZE,
        studies.ANY_SIZE,
        *studies.PUBLISHED,
    ]
    assert [(j.labels["arm"], j.source) for j in jobs if j not in trained] == [(studies.FOUND, None)] * 2
    assert all(j.config.train.init == "random" and j.config.search == STUDY.search for j in trained)
    drawn = [j.source for j in jobs if j.labels["arm"] == studies.ANY_SIZE]
    assert drawn[0] != drawn[1] and lots.random_genotype(3, 1) == drawn[1]
    assert [j.search for j in jobs if j.labels["arm"] == studies.SAME_SIZE] == [
        searched.changed(seed=seed) for seed in (0, 1)
    ]
    assert next(j.source for j in jobs if j.labels["arm"] == "PDARTS") == Genotype.published("PDARTS", 3)


def test_fine_tunings_are_of_several_searches_and_of_the_studys_recipe():
    """Each search has its own fine-tunings, of seeds that no other has; pairs of starts share search and seed."""
    config, few = load_config("smoke"), load_config("smoke", settings={"train.epochs": 9})
    jobs = studies.few_labels(config, few, 2, [0.1], ["random", "concomitant"], repeats=2)
    pairs = {init: [(j.labels["search"], j.labels["seed"]) for j in jobs if j.labels["init"] == init] for init in
             ("random", "concomitant")}  # fmt: skip
    assert pairs["random"] == pairs["concomitant"] == [(0, 0), (0, 2), (1, 1), (1, 3)]
    for job in jobs:
        assert job.source == config.changed(seed=job.labels["search"])
        assert changed(job.config, few) == {
            name: value
            for name, value in (("train.init", job.labels["init"]), ("train.lr", 0.1), ("seed", job.labels["seed"]))
            if value not in ("random", 0) or name == "train.lr"
        }


def test_each_start_of_few_labels_chooses_its_augmentation_too():
    """Pre-trained weights as well, as those of the search do: with shifts alone they are held back."""
    config, few = load_config("quick"), load_config("quick", study="few_labels")
    jobs = studies.recipes(config, few, 2, [0.1, 0.3], ("random", "simclr", "concomitant"))
    found = {(j.labels["init"], j.labels["augmentation"], j.labels["lr"], j.config.train.shift) for j in jobs}
    shifts = {"as the preset says": few.train.shift, "none": 0}
    starts = ("random", "simclr", "concomitant")
    assert few.train.shift and found == {(i, a, lr, shifts[a]) for i in starts for a in shifts for lr in (0.1, 0.3)}
    (notebook,) = (home() / "notebooks").glob("04_*.ipynb")
    asked = {(repr(job.config), repr(job.source)) for job in estimate.plan(notebook, "quick", None, None)}
    own = studies.recipes(config, few, setups.number_of_seeds("quick"), inits=starts)
    assert {(repr(job.config), repr(job.source)) for job in own} <= asked


def test_fractions_are_of_the_studys_recipe_at_each_starts_rate():
    config = load_config("smoke")
    jobs = studies.fractions_at(config, STUDY, {"random": 0.1, "simclr_matched": 0.2}, [0.1, 0.5], 2)
    assert [(j.labels["init"], j.labels["fraction"], j.labels["lr"], j.labels["search"]) for j in jobs] == [
        (i, f, lr, s) for i, lr in (("random", 0.1), ("simclr_matched", 0.2)) for f in (0.1, 0.5) for s in (0, 1)
    ]
    for job in jobs:
        t, labels = job.config.train, job.labels
        assert job.source == config.changed(seed=labels["search"])
        assert (t.init, t.labels, t.lr) == (labels["init"], labels["fraction"], labels["lr"])
        assert t.labels_per_class is None and t.epochs == STUDY.train.epochs
    shared = studies.rates_at(config, STUDY, 0.5, 2, [0.2], ["simclr_matched"])
    assert [j.config for j in reversed(shared)] == [
        j.config for j in jobs if (j.labels["lr"], j.labels["fraction"]) == (0.2, 0.5)
    ]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("data", [None, "digits"])
def test_notebooks_that_choose_rates_have_images_to_choose_on_and_few_labels(preset, data):
    """Every preset: a validation part, and few labels are few."""
    for study in ("few_labels", "fractions"):
        assert load_config(preset, data, study=study).train.validation > 0
    train = load_config(preset, data, study="few_labels").train
    assert train.labels_per_class is not None or train.labels <= 0.1


def test_transfer_searches_on_a_or_b_and_trains_on_b():
    on_a, on_b = studies.data_sets(STUDY, None)
    assert on_a["data.classes"] == tuple("01234") and on_b["data.classes"] == tuple("56789")
    jobs = studies.transfer(STUDY, 1, on_a, on_b)
    assert [(j.labels["arm"], j.labels["what"], j.config.data.classes) for j in jobs] == [
        ("transfer", "search", tuple("01234")), ("transfer", "scratch", tuple("56789")),
        ("proxy-free", "search", tuple("56789")), ("proxy-free", "scratch", tuple("56789")),
    ]  # fmt: skip
    assert [j.source.data.classes for j in jobs if j.source] == [tuple("01234"), tuple("56789")]
    assert [j.source.search.epochs for j in jobs if j.source] == [STUDY.search.epochs] * 2  # halves of one set
    assert studies.data_sets(STUDY, "tiny-imagenet") == ({}, {"data.image_size": 64, "data.name": "tiny-imagenet"})


def test_a_transfer_takes_as_many_steps_as_the_proxy_free_search():
    """Where A has half of B's images its search has twice the epochs."""
    on_a, on_b = {"data.classes": ("0", "1", "2")}, {"data.classes": ("3", "4", "5", "6", "7", "8")}
    transfer, proxy_free = (j.source.search for j in studies.transfer(STUDY, 1, on_a, on_b) if j.source)
    assert (transfer.epochs, proxy_free.epochs) == (2 * STUDY.search.epochs, STUDY.search.epochs)


def test_captions_say_what_was_searched():
    config = STUDY.changed(**{"data.name": "folder:/some/where/cats", "data.classes": ("a", "b"), "search.epochs": 9})
    assert setups.data_words(config) == "the classes a, b of the folder cats"
    assert setups.size(STUDY).startswith("digits, 8 pixels, C=") and setups.size(config).endswith("9 search epochs")
    assert (
        setups.phase_words(STUDY, {"longer": {"search.epochs": 10, **studies.RATIOS["longer"]}}) == "longer 2 + 2 + 6"
    )


def test_results_of_changed_parameters_go_to_a_folder_of_their_own():
    plain = setups.configured("smoke", None, None)
    assert (plain.output.label, plain.output.name, plain.seeds) == ("smoke", "smoke", 2)
    assert setups.configured("smoke", "digits", None).output == plain.output  # the preset's own data
    counts = [setups.configured("quick", None, 3, study=study).output.label for study in ("ablations", "few_labels")]
    assert counts == ["quick with seeds=3"] * 2  # 3 and 4 are their own numbers; one command, one folder
    own = setups.configured("cifar", "digits", 3, ["train.shift=0"], "few_labels", learning_rates=[0.1], fractions=None)
    assert own.output.label == "cifar with data=digits, seeds=3, learning_rates=[0.1], train.shift=0"
    assert own.output.name == "cifar+data=digits+seeds=3+learning_rates=-0.1+train.shift=0"
    assert own.seeds == 3 and own.study.train.shift == 0


def test_a_setup_that_cannot_choose_rates_is_refused_before_anything_is_computed():
    with pytest.raises(InputError, match=r"train\.validation is 0"):
        setups.configured("smoke", None, None, ["train.validation=0"], "few_labels")
    assert setups.configured("smoke", None, None, ["train.validation=0"]).study.train.validation == 0


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
    assert [d.record.kind for d in done] == ["search", "train", "train"]
    found = done[0].record
    assert [d.labels for d in done] == [jobs[0].labels] + [j.labels | {"search run": found.name} for j in jobs[1:]]
    assert found.weights_sha256 == done[2].record.source["weights_sha256"]
    assert done[1].record.result["test"]["top1"] > 0
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
        setups.configured("smoke", None, seeds)


@pytest.mark.parametrize("preset, data, settings, said", [
    ("smok", None, [], "did you mean 'smoke'"), ("smoke", "digit", [], "did you mean 'digits'"),
    ("smoke", "folder:/no/such", [], "no folder"),
    ("smoke", None, ["search.epoch=3"], "did you mean 'search.epochs'"),
])  # fmt: skip
def test_wrong_parameters_of_a_notebook_are_refused(preset, data, settings, said):
    with pytest.raises(InputError, match=said) as caught:
        setups.configured(preset, data, 2, settings)
    assert caught.value._render_traceback_() == [f"InputError: {caught.value}"]


def test_a_run_that_another_process_is_at_is_left_for_later(runs_folder, monkeypatch):
    """The others are done meanwhile; results stand in the jobs' order; at the end it is waited for."""
    jobs = [studies.Job({"place": i}, tiny(seed=i)) for i in range(3)]
    runs_folder.mkdir()
    lock, order = take(file_of(runs_folder / name_of(tiny(seed=0)))), []
    noted = Line.note

    def note(self, text):
        if "waiting" in text:
            order.append("waited")
            lock.release()
        noted(self, text)

    search = runs.search
    monkeypatch.setattr(Line, "note", note)
    monkeypatch.setattr(runs, "search", lambda c, d: (order.append(c.seed), search(c, d, quiet=True))[1])
    done = studies.carry_out(jobs, "cpu")
    assert [(d.labels["place"], d.record.seed) for d in done] == [(0, 0), (1, 1), (2, 2)]
    assert order == [0, 1, 2, 0, 0, "waited"]  # tried, tried again when nothing else was left, then waited for
