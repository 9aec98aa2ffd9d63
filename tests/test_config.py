"""Settings that make no sense are refused, each in one line: the value, what was expected, what to do."""

from __future__ import annotations

from itertools import product

import pytest

from sswp_lib.config import DATASETS, Config, InputError, setting_names, validated
from sswp_lib.methods import ONE_SHOT, RELAXED
from sswp_lib.presets import CHOOSING, DATA_DEFAULTS, METHODS, PRESETS, STUDIES, load_config, parse_settings

LABELLED = {"search.method": "darts", "search.objective": "supervised"}
NO_LABELS = {"train.objective": "simclr", "train.init": "concomitant"}
PROBE = {"train.freeze": "backbone", "train.init": "concomitant"}

REFUSED = [
    # alone
    ({"seed": -1}, "seed", "got -1"),
    ({"seed": 2**32}, "seed", "less than 4294967296"),
    ({"data.name": ""}, "unknown data set ''"),
    ({"data.name": "folder:"}, "unknown data set 'folder:'"),
    ({"data.name": "folder:  "}, "unknown data set 'folder:  '"),
    ({"data.root": ""}, "data.root", "at least 1 character"),
    ({"data.image_size": 4}, "data.image_size", "got 4"),
    ({"data.image_size": 4096}, "data.image_size", "got 4096"),
    ({"data.classes": ("a", "b", "a")}, "classes names 'a' twice"),
    ({"data.classes": ("a",)}, "data.classes", "at least 2 items"),
    ({"data.classes": ("a", "")}, "data.classes.1", "at least 1 character"),
    ({"data.classes": (1, 2)}, "data.classes.0", "valid string"),
    ({"data.views.crop_scale": (1.0, 0.2)}, "[1.0, 0.2] is reversed; expected the smaller value first"),
    ({"data.views.crop_scale": (0.2, 1.5)}, "data.views.crop_scale.1", "got 1.5"),
    ({"data.views.crop_scale": (0.5,)}, "data.views.crop_scale"),
    ({"data.views.blur_sigma": (2.0, 1.0)}, "[2.0, 1.0] is reversed"),
    ({"data.views.jitter": (0.4, 0.4, 0.4, 0.6)}, "data.views.jitter.3", "got 0.6"),
    ({"data.views.jitter": (-0.4, 0.4, 0.4, 0.1)}, "data.views.jitter.0", "got -0.4"),
    ({"data.views.jitter_p": 1.1}, "data.views.jitter_p"),
    ({"data.views.rotation": 200.0}, "data.views.rotation"),
    ({"data.views.shift": -1}, "data.views.shift"),
    ({"model.init_channels": 3}, "model.init_channels", "multiple of 2"),
    ({"model.num_cells": 0}, "model.num_cells"),
    ({"search.objective": "moco"}, "search.objective", "got 'moco'"),
    ({"search.prune": None}, "search.prune", "'forward', 'backward' or 'none'"),
    ({"search.batch_size": 1}, "search.batch_size"),
    ({"search.alpha_lr": 0.0}, "search.alpha_lr"),
    ({"search.alpha_lr": 100.0}, "search.alpha_lr"),
    ({"search.temperature": 0.0}, "search.temperature"),
    ({"search.temperature": 1000.0}, "search.temperature"),
    ({"train.temperature": 1e-9}, "train.temperature"),
    ({"search.weight_decay": 2.0}, "search.weight_decay"),
    ({"train.weight_decay": -1e-4}, "train.weight_decay"),
    ({"train.momentum": 1.0}, "train.momentum"),
    ({"train.grad_clip": 0.0}, "train.grad_clip"),
    ({"train.lr": float("nan")}, "train.lr", "finite"),
    ({"train.labels": 0.0}, "train.labels"),
    ({"train.validation": 1.0}, "train.validation"),
    ({"train.label_smoothing": 1.0}, "train.label_smoothing"),
    ({"train.drop_path": 1.0}, "train.drop_path"),
    ({"train.augment": "mixup"}, "train.augment", "got 'mixup'"),
    # numbers that are none
    ({"search.epochs": True}, "search.epochs", "valid integer (got True)"),
    ({"search.epochs": 40.0}, "search.epochs", "valid integer (got 40.0)"),
    ({"search.epochs": "40"}, "search.epochs", "valid integer (got '40')"),
    ({"search.max_skips": False}, "search.max_skips", "got False"),
    ({"train.lr": True}, "train.lr", "valid number (got True)"),
    ({"train.lr": "0.1"}, "train.lr", "valid number (got '0.1')"),
    ({"search.ratios": (True, False, False)}, "search.ratios.0", "got True"),
    ({"train.calibrate": 1}, "train.calibrate", "valid boolean (got 1)"),
    ({"data.views.flip": "yes"}, "data.views.flip", "valid boolean"),
    ({"seed": True}, "seed", "got True"),
    # learning rates
    ({"search.min_lr": 0.1}, "min_lr 0.1 is above lr 0.025"),
    ({"train.lr": 0.01, "train.min_lr": 1.0}, "min_lr 1 is above lr 0.01"),
    # phases without an epoch in which alpha is learnt
    ({"search.epochs": 1}, "epochs 1 at ratios [0.2, 0.4, 0.4]", "nothing is searched", "epochs=5"),
    ({"search.epochs": 3}, "epochs 3 at ratios"),
    ({"search.epochs": 6, "search.ratios": (0.2, 0.2, 0.6)}, "epochs 6 at ratios", "epochs=10"),
    ({"search.ratios": (0.0, 0.0, 1.0)}, "[0.0, 0.0, 1.0] leave none", "a larger second part"),
    ({"search.ratios": (0.6, 0.0, 0.4)}, "leave none in which alpha is learnt"),
    ({"search.prune": "backward", "search.ratios": (0.6, 0.001, 0.399)}, "leave none in which alpha is learnt"),
    ({"search.prune": "none", "search.ratios": (1.0, 0.0)}, "leave none in which alpha is learnt"),
    ({"search.prune": "none", "search.ratios": (0.9, 0.1), "search.epochs": 5}, "epochs 5 at ratios [0.9, 0.1]"),
    # what does not fit a method
    ({"search.method": "pdarts"}, "search.method", "'ssnas', 'spos', 'pi-nas' or 'random'"),
    ({"search.method": "ssnas", "search.objective": "supervised"}, "learns by the objective 'simclr', not 'supervised'",
     "method='darts'"),
    ({"search.method": "darts"}, "learns by the objective 'supervised', not 'simclr'", "method='ssnas'"),
    ({"search.method": "ssnas", "search.objective": "byol"}, "not 'byol'", "method='sswp'"),
    ({"search.method": "ssnas", "search.planted": ("zero",)}, "planted ['zero']", "method 'ssnas' expects none"),
    ({"search.method": "ssnas", "search.alpha_stream": 1}, "alpha_stream 1", "expected 0, or method='sswp'"),
    ({"search.method": "ssnas", "model.num_cells": 2}, "2 cells to search in", "relaxed.num_cells=3 or more"),
    ({"relaxed.num_cells": 2}, "relaxed.num_cells", "got 2"),
    ({"relaxed.order": 3}, "relaxed.order", "got 3"), ({"relaxed.order": True}, "relaxed.order", "got True"),
    ({"relaxed.init_channels": 3}, "relaxed.init_channels", "multiple of 2"),
    ({"search.method": "ssnas", "relaxed.order": 2, "model.precision": "bfloat16"}, "bfloat16 rounds away",
     "relaxed.order=1"),
    ({"search.method": "spos"}, "by the objective 'supervised', not 'crosspath'", "one_shot.objective=supervised"),
    ({"search.method": "random", "search.planted": ("zero",)}, "planted ['zero']", "method 'random' expects none"),
    ({"search.method": "ssnas", "relaxed.labels_per_class": 5}, "labels_per_class 5 is of no use",
     "search.method=darts"),
    ({"relaxed.labels_per_class": 1}, "relaxed.labels_per_class", "got 1"),
    ({**LABELLED, "relaxed.shift": 17}, "relaxed.shift 17 moves images of 32 pixels", "expected at most 16"),
    # labels, validation and what is learnt
    ({"train.labels": 0.1, "train.labels_per_class": 2}, "labels 0.1 and labels_per_class 2 are both given"),
    ({"train.freeze": "backbone"}, "init 'random' probes features that nothing has learnt"),
    ({**PROBE, "train.objective": "simclr"}, "only the projection head"),
    ({**NO_LABELS, "train.init": "simclr"}, "pre-trains twice"),
    ({**NO_LABELS, "train.labels": 0.1}, "would ignore labels; expected labels=1.0"),
    (
        {**NO_LABELS, "train.labels_per_class": 2, "train.validation": 0.2},
        "would ignore labels_per_class, validation; expected labels_per_class=null, validation=0.0",
    ),
    ({**NO_LABELS, "train.batch_size": 1}, "no other image to contrast with"),
    ({"train.batch_size": 1}, "auxiliary head's BatchNorm"),
    ({"train.evaluate_every": 5}, "evaluate_every 5 has no validation part"),
    ({"train.evaluate_every": 700, "train.validation": 0.1}, "evaluate_every 700 is more than epochs 600"),
    ({"train.augment": "crop"}, "takes the place of shift 4 and cutout 16"),
    # one-shot training and ranking
    ({"one_shot.space": ""}, "one_shot.space", "at least 1 character"),
    ({"one_shot.objective": "moco"}, "one_shot.objective", "got 'moco'"),
    ({"one_shot.batch_size": 1}, "one_shot.batch_size"),
    ({"one_shot.teacher": 1.1}, "one_shot.teacher", "got 1.1"),
    ({"one_shot.validation": 0.0}, "one_shot.validation", "greater than 0"),
    ({"one_shot.objective": "supervised", "one_shot.negatives": False}, "would ignore negatives=false; expected true"),
    (
        {"one_shot.objective": "supervised", "one_shot.negatives": False, "one_shot.cross_path": False},
        "would ignore cross_path=false, negatives=false", "objective='crosspath'",
    ),
    ({"one_shot.queue": 191}, "queue 191 is less than the batch_size 192", "e.g. 768"),
    ({"ranking.linear_milestones": (0.8, 0.6)}, "[0.8, 0.6] do not rise"),
    ({"ranking.linear_milestones": (0.6, 0.6)}, "[0.6, 0.6] do not rise"),
    ({"ranking.linear_milestones": (0.6, 1.0)}, "ranking.linear_milestones.1", "got 1.0"),
    ({"ranking.calibration_images": 100}, "calibration_batch 128 is more than calibration_images 100"),
    ({"ranking.parents": 51}, "parents 51 are more than the population 50"),
    ({"ranking.mutations": 26}, "mutations 26 and crossovers 25 are more than the population 50"),
    ({"ranking.parents": 1}, "crossovers of 1 parent", "crossovers=0"),
    ({"ranking.mutation_p": 0.0}, "ranking.mutation_p"),
    # what does not fit the images
    ({"data.image_size": 31, "model.stem": "imagenet"}, "data.image_size 31", "expected 32 or more"),
    ({"train.cutout": 33}, "train.cutout 33 is larger than images of 32 pixels"),
    ({"data.image_size": 8}, "train.cutout 16 is larger than images of 8 pixels"),
    ({"train.shift": 17}, "train.shift 17 moves images of 32 pixels by more than half; expected at most 16"),
    ({"data.views.shift": 17}, "data.views.shift 17 moves views of 32 pixels"),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "words"), [(row[0], row[1:]) for row in REFUSED], ids=lambda value: str(value))
def test_settings_without_sense_are_refused_in_one_line(settings, words):
    with pytest.raises(InputError) as error:
        Config().changed(**settings)
    line = str(error.value)
    assert "\n" not in line and len(line) < 300
    assert [word for word in words if word not in line] == []


@pytest.mark.parametrize("settings", [
    {"data.views.jitter": (1.5, 2.0, 3, 0.5)},  # above 1, as in torchvision
    {"data.views.crop_scale": (0.5, 0.5), "data.views.blur_sigma": [1, 1]},  # lists and whole numbers
    {"train.min_lr": 0.025},  # a constant rate
    {"train.labels_per_class": 2}, {"train.labels": 0.1},
    {"search.epochs": 4}, {"search.epochs": 1, "search.ratios": (0.0, 1.0), "search.prune": "none"},
    {"search.skip_dropout": 1.0, "search.pool_dropout": 1.0}, {"search.max_skips": None},
    {**PROBE, "train.batch_size": 1},  # no auxiliary head, and drop-path off, whatever they say
    {"train.batch_size": 1, "train.auxiliary": 0.0}, {**NO_LABELS, "data.image_size": 8},  # no cutout of its own
    {"train.augment": "crop", "train.shift": 0, "train.cutout": 0},
    {**LABELLED, "search.epochs": 1},  # ratios are passed over
    {**LABELLED, "model.num_cells": 2, "relaxed.num_cells": 3},
    {"search.method": "ssnas", "relaxed.shift": 17}, {"relaxed.order": 2, "model.precision": "bfloat16"},
    {"relaxed.labels_per_class": 5}, {**LABELLED, "relaxed.labels_per_class": 2},
    {"one_shot.queue": 192}, {"one_shot.queue": 1, "one_shot.negatives": False},
    {"one_shot.queue": 1, "one_shot.objective": "supervised"}, {"one_shot.queue": 1000},  # no multiple of a batch
    {"one_shot.teacher": 0.0}, {"one_shot.teacher": 1},  # the student itself, and a random network
    {"ranking.linear_milestones": ()}, {"ranking.parents": 1, "ranking.crossovers": 0},
    {"ranking.mutations": 0}, {"ranking.generations": 1},
    {"model.num_cells": 1}, {"data.image_size": 33}, {"data.image_size": 32, "model.stem": "imagenet"},
])  # fmt: skip
def test_what_a_researcher_may_mean_is_taken(settings):
    changed = Config().changed(**settings)
    assert changed != Config() and validated(changed.model_dump(mode="json")) == changed


@pytest.mark.parametrize(("preset", "data"), product(PRESETS, [*DATASETS[:-1], "folder:somewhere"]))
def test_every_preset_is_valid_on_every_data_set_in_every_study(preset, data):
    configs = {study: load_config(preset, data, study=study) for study in (None, *STUDIES)}
    assert all(config.data.name == data for config in configs.values())
    assert [study for study in CHOOSING if not 0 < configs[study].train.validation <= 0.2] == []
    few = configs["few_labels"].train
    assert few.labels == 0.1 if few.labels_per_class is None else few.labels_per_class <= 10


@pytest.mark.parametrize(("preset", "method"), product(PRESETS, METHODS))
def test_every_method_is_valid_at_every_preset(preset, method):
    for data in DATASETS[:-1]:
        config = load_config(preset, data, method=method)
        assert config.search.method == method and config == load_config(
            preset, data, settings={"search.method": method}
        )
        assert method not in RELAXED or config.search.objective == RELAXED[method]
        assert method not in ONE_SHOT or config.one_shot.objective == ONE_SHOT[method]
    assert load_config(preset, method="sswp") == load_config(preset)


def test_dartss_recipe_is_that_of_the_paper_preset():
    """SSNAS's is the same but for the labels; smaller presets give alpha as long a way in fewer steps."""
    darts, ssnas = (load_config("paper", method=method) for method in ("darts", "ssnas"))
    s, r = darts.search, darts.relaxed
    assert (s.epochs, s.batch_size, s.lr, s.min_lr, s.momentum, s.weight_decay, s.grad_clip, s.schedule) == (
        50, 64, 0.025, 0.001, 0.9, 3e-4, 5.0, "epoch"
    )  # fmt: skip
    assert (r.alpha_lr, r.alpha_beta1, r.alpha_beta2, r.alpha_weight_decay) == (3e-4, 0.5, 0.999, 1e-3)
    assert (r.order, r.split, r.init_channels, r.num_cells) == (1, "halves", 16, 8)
    assert ssnas.relaxed == r and ssnas.search.temperature == 0.5
    same = {"search.method": "darts", "search.objective": "supervised", "search.temperature": s.temperature}
    assert ssnas.changed(**same) == darts
    for preset, images in (("smoke", 1347), ("quick", 1347), ("night", 1347), ("cifar", 50_000), ("paper", 50_000)):
        for config in (load_config(preset, method="ssnas"), load_config(preset, study="ssnas")):
            count = images if config.data.per_class is None else 10 * config.data.per_class
            steps = config.search.epochs * (count // 2 // config.search.batch_size)
            assert config.relaxed.alpha_lr * steps == pytest.approx(6, rel=0.05)


@pytest.mark.parametrize(("method", "settings", "words"), [
    ("dart", {}, ["unknown method 'dart'; did you mean 'darts'?"]),
    ("darts", {"search.method": "ssnas"}, ["method 'darts' and search.method='ssnas' are both given"]),
    ("darts", {"search.alpha_lr": 0.1}, ["no use to method 'darts'", "set relaxed.alpha_lr", "another method: sswp"]),
    (None, {"search.method": "ssnas", "search.ratios": (0.5, 0.5)}, ["search.ratios", "leave it out, or choose"]),
    ("sswp", {"relaxed.order": 2}, ["relaxed.order is of no use to method 'sswp'", "darts, ssnas"]),
    ("darts", {"one_shot.lr": 0.1}, ["of no use to method 'darts'", "or choose another method: spos, pi-nas"]),
    ("spos", {"search.lr": 0.1}, ["of no use to method 'spos'", "or set one_shot.lr", "sswp, darts, ssnas, random"]),
    ("pi-nas", {"one_shot.num_cells": 5}, ["of no use in the space 'cells'", "set model.num_cells"]),
    ("random", {"search.alpha_lr": 0.1}, ["of no use to method 'random'", "another method: sswp"]),
    ("ssnas", {"random.draws": 3}, ["of no use to method 'ssnas'", "another method: random"]),
])  # fmt: skip
def test_settings_of_no_use_to_a_method_are_refused(method, settings, words):
    with pytest.raises(InputError) as error:
        load_config("quick", settings=settings, method=method)
    assert [word for word in words if word not in str(error.value)] == []


def test_studies_that_choose_rates_ask_for_a_validation_part():
    for study in CHOOSING:
        with pytest.raises(InputError, match=f"train.validation is 0, but {study} chooses by") as error:
            load_config("quick", settings={"train.validation": 0.0}, study=study)
        assert "train.validation=0.1" in str(error.value)
    assert load_config("quick", settings={"train.validation": 0.0}, study="ablations").train.validation == 0
    with pytest.raises(InputError, match="unknown study 'fraction'; did you mean 'fractions'"):
        load_config("quick", study="fraction")


@pytest.mark.parametrize("preset", sorted({*PRESETS} - {"paper", "imagenet"}))
@pytest.mark.parametrize("study", [None, *STUDIES])
def test_what_few_steps_train_is_judged_by_statistics_of_its_own(preset, study):
    """Running averages forget a tenth a step: after 100 of them nothing is left of where they began."""
    s = load_config(preset, study=study).train
    labels = 10 * s.labels_per_class if s.labels_per_class else s.labels * 50_000  # of CIFAR-10
    steps = s.epochs * max(int(labels) // s.batch_size, 1)
    assert s.calibrate or steps >= 100


def test_shifts_of_digits_are_those_of_cifar_at_their_size():
    """DARTS shifts 32 pixels by 4; views have their crops and no more."""
    digits, cifar = load_config("quick", "digits"), load_config("paper", "cifar10")
    assert digits.train.shift / digits.data.image_size == cifar.train.shift / cifar.data.image_size
    assert digits.train.shift == 1 and digits.data.views.shift == cifar.data.views.shift == 0


def test_imagenet_is_trained_by_dartss_recipe_where_the_paper_names_none():
    config = load_config("paper", "imagenet")
    t = config.train
    assert (t.augment, t.label_smoothing, t.shift, t.cutout) == ("crop", 0.1, 0, 0)
    assert config.model.precision == "bfloat16"
    assert {k for k in DATA_DEFAULTS["imagenet"] if k not in setting_names()} == set()


@pytest.mark.parametrize(("text", "value"), [
    ("None", None), ("null", None), ("True", True), ("true", True), ("False", False), ("false", False),
    ("none", "none"), ("'a b'", "a b"), ('"a b"', "a b"), ("a=b", "a=b"), ("", ""), ("0.1", 0.1), ("1e-3", 1e-3),
    ("[0.2, 0.8]", [0.2, 0.8]), ("(0.2, 0.8)", (0.2, 0.8)), ("['3', '5']", ["3", "5"]), ("1_000", 1000),
    ("folder:my images", "folder:my images"), ("__import__('os')", "__import__('os')"), ("[" * 9999, "[" * 9999),
])  # fmt: skip
def test_values_may_be_written_as_json_or_as_python_does(text, value):
    assert parse_settings([f" data.root = {text}"]) == {"data.root": value}


def test_a_single_text_is_no_list_of_settings():
    with pytest.raises(InputError, match=r"'search\.epochs=3' is one text; expected a list"):
        parse_settings("search.epochs=3")


def test_long_values_and_many_faults_are_cut_short():
    with pytest.raises(InputError) as error:
        validated({"seed": "x" * 10_000, "a": 1, "b": 2, "c": 3, "d": 4})
    assert len(str(error.value)) < 400 and str(error.value).endswith("; and 2 more")


def test_a_configuration_shows_what_is_not_as_in_the_paper():
    config = Config().changed(**{"search.epochs": 9, "data.views.crop_scale": (0.5, 1.0), "seed": 2})
    assert repr(config) == "Config(data.views.crop_scale=(0.5, 1.0), search.epochs=9, seed=2)"
    assert repr(Config()) == "Config()" and repr(config) != repr(config.changed(seed=3))
    assert "<th>search.epochs</th><td>9</td>" in config._repr_html_() and config._repr_html_().count("<tr>") == 3
    assert Config()._repr_html_() == "<table><caption>What is not as in the paper</caption></table>"
