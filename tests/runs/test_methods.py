"""Searches by other methods than the paper's are runs like any other: named, kept, taken up, trained from."""

import pytest
from tiny_runs import TINY, Stop, name_of, plain, stop_at, tiny

from sswp_lib.config import InputError
from sswp_lib.learn import RelaxedSearch
from sswp_lib.learn.searches import SEARCHES
from sswp_lib.methods import NOT_RELAXED
from sswp_lib.presets import load_config
from sswp_lib.runs import carrying_out, runs

USED = {name: value for name, value in TINY.items() if name.removeprefix("search.") not in NOT_RELAXED}


def relaxed(method: str, **settings):
    """Return a configuration of two iterations, on 80 images; dots of setting names are given as two underscores."""
    few = {"data.per_class": 8, "search.epochs": 2, "search.batch_size": 40, "relaxed.num_cells": 3}
    given = {name.replace("__", "."): value for name, value in settings.items()}
    return load_config("smoke", settings=USED | few | given, method=method)


@pytest.mark.parametrize(("method", "order"), [("ssnas", 1), ("darts", 2)])
def test_a_relaxed_search_is_a_run(runs_folder, monkeypatch, method, order):
    config = relaxed(method, relaxed__order=order)
    record = runs.search(config, device="cpu", quiet=True)
    assert record.kind == "search" and record.genotype.num_cells == config.model.num_cells == 2
    assert record.config["search"]["method"] == method and record.config["relaxed"]["order"] == order
    assert set(record.config["search"]) & set(NOT_RELAXED) == set()
    assert len(record.history) == 2 and record.history[0]["phase"] == "relaxed"
    files = {"record.json", "genotype.json", "weights.safetensors", "history.jsonl", "alpha.jsonl", "config.json"}
    assert {path.name for path in (runs_folder / record.name).iterdir() if path.is_file()} == files
    stop_at(monkeypatch, RelaxedSearch, 0)
    assert runs.search(config, device="cpu", quiet=True) == record  # nothing is computed again


def test_an_interrupted_relaxed_search_is_taken_up(runs_folder, monkeypatch, tmp_path):
    """Stopped after its first step, and once more before its second."""
    config = relaxed("ssnas")
    monkeypatch.setattr(carrying_out, "CHECKPOINT_SECONDS", -1.0)
    expected = runs.search(config, device="cpu", quiet=True)
    monkeypatch.setenv("SSWP_RUNS", str(tmp_path / "other"))
    for count in (1, 0):
        with monkeypatch.context() as patch:
            stop_at(patch, RelaxedSearch, count)
            with pytest.raises(Stop):
                runs.search(config, device="cpu", quiet=True)
    found = runs.search(config, device="cpu", quiet=True)
    assert plain(found) == plain(expected) and found.provenance["resumed"] > 0


def test_what_a_relaxed_search_found_is_trained_from(runs_folder):
    """From its own weights too, where it was searched at the model's size."""
    same = relaxed("darts", search__epochs=1, model__num_cells=3, relaxed__num_cells=None)
    init = {"train.epochs": 1, "train.init": "concomitant"}
    record = runs.search(same, device="cpu", quiet=True)
    trained = runs.train(same.changed(**init), record, device="cpu", quiet=True)
    assert trained.result["taken_over"]["matched"] > 0 and trained.genotype == record.genotype
    larger = same.changed(**init, **{"model.init_channels": 4})
    with pytest.raises(InputError, match="these weights do not fit the network"):
        runs.train(larger, record, device="cpu", quiet=True)
    scratch = larger.changed(**{"train.init": "random"})
    assert runs.train(scratch, record, device="cpu", quiet=True).genotype == record.genotype


def test_other_methods_name_no_run_of_the_papers():
    """Whatever the section of another method says."""
    changes = {"relaxed__order": 2, "relaxed__alpha_lr": 0.5, "relaxed__num_cells": 5, "relaxed__split": "same"}
    own = tiny().changed(**{name.replace("__", "."): value for name, value in changes.items()})
    assert name_of(own) == name_of(tiny()) and "relaxed" not in runs._identity(own, "search")
    names = [name_of(relaxed(method, **changes)) for method in ("ssnas", "darts")]
    names += [name_of(relaxed(method)) for method in ("ssnas", "darts")]
    assert len({*names, name_of(tiny())}) == 5
    assert name_of(own, "train") == name_of(tiny(), "train")


ONE_SHOT = {
    "one_shot.epochs": 1, "one_shot.batch_size": 24,
    "one_shot.queue": 24, "ranking.linear_epochs": 1, "ranking.linear_batch": 24, "ranking.population": 2,
    "ranking.parents": 2, "ranking.mutations": 1, "ranking.crossovers": 0, "ranking.generations": 1,
}  # fmt: skip


def by(method: str, **settings):
    """Return a configuration of a few steps of a method that relaxes nothing, on 80 images."""
    given = {"data.per_class": 8, **{name.replace("__", "."): value for name, value in settings.items()}}
    own = ONE_SHOT if method != "random" else {"search.epochs": 1, "search.batch_size": 40, "random.draws": 2}
    sizes = {name: value for name, value in TINY.items() if not name.startswith("search.")}
    return load_config("smoke", settings={**sizes, **own, **given}, method=method)


@pytest.mark.parametrize("method", ["random", "spos", "pi-nas"])
def test_searches_that_relax_nothing_are_runs_to_go_on_from(runs_folder, monkeypatch, method):
    config = by(method)
    record = runs.search(config, device="cpu", quiet=True)
    assert record.kind == "search" and record.genotype.num_cells == config.model.num_cells == 2
    assert record.config["search"]["method"] == method and (runs_folder / record.name / "genotype.json").is_file()
    loop = SEARCHES[method]
    monkeypatch.setattr(loop, "advance", lambda self: pytest.fail("computed again"))
    assert runs.search(config, device="cpu", quiet=True) == record == runs.finished(config)
    start = config.changed(**{"train.epochs": 1, "train.init": "concomitant"})
    trained = runs.train(start, record, device="cpu", quiet=True)
    assert trained.result["taken_over"]["matched"] > 0 and trained.genotype == record.genotype


def test_what_one_shot_methods_find_in_another_space_is_trained_too(runs_folder):
    config = by("spos", one_shot__space="nasbench201", one_shot__init_channels=2, one_shot__num_cells=1)
    record = runs.search(config, device="cpu", quiet=True)
    assert record.architecture.space == "nasbench201" and "genotype" not in record.result
    trained = runs.train(config.changed(**{"train.epochs": 1}), record, device="cpu", quiet=True)
    assert trained.source["choices"]["operations"] == list(record.architecture.operations)
