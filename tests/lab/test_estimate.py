"""The runs that a notebook asks for are told beforehand from its own parameters, and timed on this machine."""

import json

import pytest
import torch

from sswp_lib.lab import estimate, reproduce
from sswp_lib.learn.data import load
from sswp_lib.learn.oneshot import split
from sswp_lib.paper import beyond, pi_nas, setups, ssnas, studies
from sswp_lib.runs import runs


def notebook(path, *parameters: str):
    """Write a notebook of that number with these parameters."""
    lines = ['preset = "quick"\n', "data = None  # as it is\n", "seeds = None\n", "settings = []\n", *parameters]
    cells = [
        {"cell_type": "markdown", "metadata": {}, "source": ["# title"]},
        {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": lines},
        {"cell_type": "code", "metadata": {}, "source": ["seeds = 99"]},
    ]
    path.write_text(json.dumps({"cells": cells}))
    return path


def test_parameters_are_those_of_the_tagged_cell(tmp_path):
    found = estimate.parameters(notebook(tmp_path / "01_a.ipynb", "learning_rates = [0.1, 0.3]  # two\n", "x = -1.5"))
    plain = {"preset": "quick", "data": None, "seeds": None, "settings": []}
    assert found == plain | {"learning_rates": [0.1, 0.3], "x": -1.5}


@pytest.mark.parametrize("path", reproduce.notebooks(), ids=lambda path: path.stem)
def test_every_notebook_can_be_told_beforehand(path, runs_folder):
    assert path.stem[:2] in estimate.JOBS
    assert estimate.plan(path, "smoke", None, None)


def test_plan_follows_the_notebooks_parameters(tmp_path, runs_folder):
    few = notebook(tmp_path / "01_a.ipynb", "learning_rates = [0.1]")
    many = notebook(tmp_path / "01_b.ipynb", "learning_rates = [0.1, 0.3, 0.5]")
    count = lambda path, seeds: len(estimate.plan(path, "smoke", None, seeds))  # noqa: E731
    own = lambda seeds: seeds + beyond.extent("smoke").again + beyond.extent("smoke").planted  # noqa: E731
    assert count(few, 2) == own(2) + 2 * 2 * 1 * 2 * studies.REPEATS  # with and without augmentation, two starts
    assert count(many, 2) - own(2) == 3 * (count(few, 2) - own(2))
    assert count(few, 4) - own(4) == 2 * (count(few, 2) - own(2))
    changed = notebook(tmp_path / "06_c.ipynb", 'settings = ["search.epochs=9"]')
    assert [job.config.search.epochs for job in estimate.plan(changed, "smoke", None, None)] == [9]
    assert estimate.plan(notebook(tmp_path / "99_d.ipynb"), "smoke", None, None) == []


def test_steps_of_unfinished_runs_count_once(tmp_path, runs_folder, monkeypatch):
    monkeypatch.setattr(estimate, "_step_seconds", lambda config, training: 1.0)
    search = setups.configured("smoke", None, None).config.search
    paths = [notebook(tmp_path / name) for name in ("06_a.ipynb", "06_b.ipynb")]
    steps = search.epochs * (1347 // 2 // search.batch_size)
    assert estimate.seconds("smoke", None, None, paths) == {"06_a": steps + estimate.RUN, "06_b": 0.0}


def test_trainings_from_other_weights_count_by_themselves(runs_folder, monkeypatch):
    """Notebook 08 pre-trains in two batches, and then does the same with both."""
    monkeypatch.setattr(estimate, "_step_seconds", lambda config, training: 0.0)
    features, study = (setups.configured("smoke", None, None, (), name).study for name in ("ssnas_features", "ssnas"))
    small, large = (
        [job for job in ssnas.representations(features, study, 1) if job.labels["batch"] == batch]
        for batch in ssnas.batches(features)
    )
    cost = lambda jobs, counted: sum(estimate._cost(job, counted) for job in jobs)  # noqa: E731
    counted: set = set()
    first, second = cost(small, counted), cost(large, counted)
    assert cost(small, counted) + cost(large, counted) == 0
    searches = len({repr(job.search) for job in small if job.search}) * estimate.RUN
    assert second == first - searches > 0, "all but the searches"


def test_a_ranking_costs_its_supernet_its_classifier_and_its_scores(runs_folder, monkeypatch):
    monkeypatch.setattr(estimate, "_ranking_seconds", lambda config: {"step": 1.0, "linear": 0.0})
    study = setups.configured("smoke", None, None, study="one_shot").study
    images, s = len(split(study, load(study.data))[0]), study.one_shot
    steps = s.epochs * (images // s.batch_size)
    each = pi_nas.rankings(study, pi_nas.drawn(2), 1, ["Pi-NAS", "SPOS", "untrained supernet"])
    assert [estimate._cost(job, set()) for job in each] == [
        steps + 3 * estimate.RUN,
        steps + 2 * estimate.RUN,
        3 * estimate.RUN,
    ]


def test_the_clock_is_read_when_the_device_has_done_its_work(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    estimate._now("cpu")
    assert waited == []
    estimate._now("cuda:1")
    assert waited == ["cuda:1"]


def test_pre_training_on_half_of_the_images_has_half_of_the_steps():
    config = setups.configured("smoke", None, None).config
    steps = [
        estimate.steps_of(studies.Job({}, config.changed(**{"train.init": init}), config).before)
        for init in ("simclr", "simclr_matched")
    ]
    batch, epochs = config.search.batch_size, config.search.epochs
    assert steps == [epochs * (1347 // batch), epochs * (673 // batch)]


def test_measured_steps_leave_no_run(runs_folder):
    config = estimate.plain(studies.Job({}, setups.configured("smoke", None, None).config))
    assert all(estimate._step_seconds(config, training) > 0 for training in (False, True))
    assert runs.everything() == []
