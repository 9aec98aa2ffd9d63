"""A run is its configuration: cached, locked, resumable, recorded, and the same however often it was interrupted."""

import json
import math
import time

import pytest
import torch
from filelock import FileLock
from tiny_runs import do_search, images, name_of, plain, stop_at, tiny

from sswp_lib.config import Config, InputError, setting_names
from sswp_lib.learn.search import Search
from sswp_lib.runs import files, runs
from sswp_lib.space import Genotype

NAMED = {  # settings that are no plain number, and another value for each
    "data.name": "cifar10", "data.root": "elsewhere", "data.decode_size": 64,
    "data.classes": ("0", "1"), "data.views.crop_scale": (0.3, 1.0),
    "data.views.jitter": (0.1, 0.1, 0.1, 0.1),
    "data.views.blur_sigma": (1.0, 1.5), "model.stem": "imagenet", "model.precision": "bfloat16",
    "search.objective": "byol",
    "search.ratios": (0.1, 0.6, 0.3), "search.prune": "backward", "search.edges": "all", "search.schedule": "epoch",
    "train.labels_per_class": 3, "train.augment": "crop",
    "train.init": "simclr", "train.objective": "simclr", "train.freeze": "backbone", "train.schedule": "epoch",
}  # fmt: skip


def another(config: Config, setting: str):
    """Return the configuration with that one setting changed to another valid value."""
    value = config
    for part in setting.split("."):
        value = getattr(value, part)
    if setting in NAMED:
        new = NAMED[setting]
    elif isinstance(value, bool):
        new = not value
    else:
        new = value + 2 if isinstance(value, int) else value * 0.5 + 0.0123
    along = {"train.validation": 0.0} if setting == "train.objective" else {}  # pre-training has none
    return config.changed(**{setting: new, **along})


def test_finished_search_is_not_done_again(finished, monkeypatch):
    stop_at(monkeypatch, Search, 0)
    assert do_search() == finished


def test_record_is_plain_and_says_what_was_done(finished, runs_folder):
    folder = runs_folder / finished.name
    text = (folder / "record.json").read_text()

    def refuse(constant):
        raise AssertionError(f"{constant} in a record")

    assert json.loads(text, parse_constant=refuse) == finished.model_dump(mode="json")
    assert finished.config == runs._identity(tiny(), "search")
    assert finished.seed == 0 and finished.kind == "search"
    assert {
        "torch",
        "python",
        "device",
        "hardware",
        "commit",
        "finished",
        "seconds",
        "resumed",
    } <= finished.provenance.keys()
    assert finished.genotype == Genotype.from_json((folder / "genotype.json").read_text())


def test_history_has_a_line_an_epoch(finished, runs_folder):
    lines = (runs_folder / finished.name / "history.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == finished.history
    assert [row["epoch"] for row in finished.history] == [0, 1, 2]
    assert all(math.isfinite(row["loss"]) for row in finished.history)


def test_finished_run_keeps_no_checkpoint_and_no_lock(finished, runs_folder):
    left = {p.name for p in (runs_folder / finished.name).rglob("*") if p.is_file()}
    assert left == {"record.json", "config.json", "genotype.json", "history.jsonl", "weights.safetensors"}
    do_search()
    FileLock(runs_folder / f"{finished.name}.lock").acquire(timeout=0)


def test_weights_are_those_the_record_means(finished, runs_folder):
    weights = finished.weights()
    assert all(torch.isfinite(t.float()).all() for t in weights.values()) and "alpha" in weights
    path = runs_folder / finished.name / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="checksum"):
        finished.weights()


def test_same_seed_same_result_another_seed_another(finished, monkeypatch, tmp_path):
    monkeypatch.setenv("SSWP_RUNS", str(tmp_path / "again"))
    again = do_search()
    assert plain(again) == plain(finished)
    other = do_search(seed=1)
    assert other.name != finished.name and other.history != finished.history


@pytest.mark.parametrize("content", ["", '{"name": "x"', "{}", '{"name": 1}', "[1]", "null"])
def test_damaged_record_is_refused_by_name(finished, runs_folder, content):
    path = runs_folder / finished.name / "record.json"
    path.write_text(content)
    for ask in (do_search, runs.everything, lambda: runs.find(finished.name)):
        with pytest.raises(InputError) as caught:
            ask()
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("kind, other", [("search", "train"), ("train", "search")])
def test_name_depends_on_each_setting_that_changes_the_result(kind, other):
    config = tiny(
        model__init_channels=4, data__image_size=32, train__init="concomitant", train__labels_per_class=None,
        train__shift=0,
    )  # fmt: skip
    for setting in setting_names():
        same = setting == "data.root" or setting.startswith(f"{other}.")
        changed = another(config, setting)
        assert changed != config
        assert (name_of(changed, kind) == name_of(config, kind)) == same, setting


def test_name_depends_on_neither_threads_nor_device(finished, monkeypatch):
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        assert name_of(tiny()) == finished.name
    finally:
        torch.set_num_threads(threads)
    stop_at(monkeypatch, Search, 0)
    assert runs.search(tiny(), device="meta", quiet=True) == finished  # found before any device is touched


def test_training_name_depends_on_what_it_starts_from(runs_folder):
    plain_config = runs._identity(tiny(), "train")
    sources = [{"genotype": Genotype.published(n, 2).model_dump(mode="json")} for n in ("DARTS_V1", "DARTS_V2")]
    sources.append({**sources[0], "weights": "search-0"})
    assert len({runs._name("train", plain_config, s) for s in sources}) == 3


def test_a_moved_folder_of_images_keeps_the_name(tmp_path):
    first = images(tmp_path / "one", {"train/a": 4, "train/b": 4})
    before = name_of(tiny(data__name=f"folder:{first}"))
    moved = first.rename(tmp_path / "two")
    assert name_of(tiny(data__name=f"folder:{moved}")) == before


@pytest.mark.parametrize(
    "suffix, size", [(".png", 14), (".bmp", 12)]
)  # a .bmp keeps its size in bytes whatever it shows
def test_a_changed_image_changes_the_name(tmp_path, suffix, size):
    folder = images(tmp_path / "one", {"train/a": 4}, suffix=suffix)
    config = tiny(data__name=f"folder:{folder}")
    before = name_of(config)
    images(folder, {"train/a": 1}, size, suffix, seed=1)
    assert name_of(config) != before


def test_an_added_image_is_seen_in_the_same_process(runs_folder, tmp_path):
    folder = images(tmp_path / "one", {"": 20})
    settings = {"data__name": f"folder:{folder}", "search__batch_size": 5, "search__epochs": 2}
    first = do_search(**settings)
    images(folder, {"more": 0, "": 21})
    second = do_search(**settings)
    assert (first.result["images"], second.result["images"]) == (20, 21)
    assert first.name != second.name


def test_concomitant_needs_a_search(runs_folder):
    with pytest.raises(InputError, match="without weights"):
        runs.train(tiny(train__init="concomitant"), Genotype.published("DARTS_V2", 2), device="cpu", quiet=True)


def test_given_weights_file_is_part_of_the_name(finished, runs_folder, tmp_path):
    genotype, config = finished.genotype, tiny(train__init="concomitant", train__epochs=1)
    path = tmp_path / "w.safetensors"
    weights = finished.weights()
    path.write_bytes(files.weights_bytes(weights))
    first = runs.train(config, genotype, path, device="cpu", quiet=True)
    weights["stem.0.0.weight"] = weights["stem.0.0.weight"] + 1
    path.write_bytes(files.weights_bytes(weights))
    second = runs.train(config, genotype, path, device="cpu", quiet=True)
    assert first.name != second.name and first.weights_sha256 != second.weights_sha256


def test_two_stage_baseline_pre_trains_first(finished, runs_folder):
    config = tiny(train__init="simclr", search__epochs=4)
    found = runs.train(config, finished, device="cpu", quiet=True)
    start = runs.find(found.source["weights"])
    assert start.config["train"]["objective"] == "simclr" and start.config["train"]["epochs"] == 4
    assert found.result["taken_over"]["matched"] > 0
    assert len(runs.everything()) == 3


def test_memory_is_measured_once(runs_folder):
    config = tiny()
    first = runs.memory(config, batch_size=4, device="cpu", quiet=True)
    started = time.monotonic()
    assert runs.memory(config, batch_size=4, device="cpu", quiet=True) == first
    assert time.monotonic() - started < 1
    assert all(value > 0 for value in first.result["bytes"].values())
    with pytest.raises(InputError, match="without a genotype"):
        first.genotype  # noqa: B018


def test_runs_folder_that_cannot_be_made_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SSWP_RUNS", str(tmp_path / "file" / "runs"))
    with pytest.raises(InputError, match="SSWP_RUNS"):
        do_search()


def test_find_by_beginning_and_suggestions(finished):
    assert runs.find(finished.name[:9]) == finished
    with pytest.raises(InputError, match=f"did you mean '{finished.name}'"):
        runs.find(finished.name[:-1] + "x")
