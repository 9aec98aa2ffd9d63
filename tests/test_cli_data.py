"""`sswp data`, and what runs say of a folder of images."""

import numpy as np
import pytest
from PIL import Image
from tiny_runs import ON_FOLDER, images

from sswp_lib.runs import records


@pytest.fixture
def folder(tmp_path):
    """Two classes, one of which has no test images."""
    return images(tmp_path / "D", {"train/a": 10, "train/b": 10, "test/a": 3, "train/.ipynb_checkpoints": 2})


MISSING = "no test images of 'b'"


def test_data_shows_what_is_there(call, folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    shown = set()
    for source in (folder, f"folder:{folder}", "D", "./D/"):
        status, out, _ = call("data", source)
        assert status == 0
        shown.add(out)
    (out,) = shown
    rows = [line.split() for line in out.splitlines()]
    assert ["a", "10", "3"] in rows and ["b", "10", "0"] in rows
    assert "passed over: hidden (1)" in out and f"warning: {MISSING}" in out
    assert f"{folder}: 20 training images of 2 classes (10 each), 3 test images" in out


def test_data_of_a_set_that_comes_with_the_kit(call):
    status, out, _ = call("data", "digits")
    assert status == 0 and "1347 training images of 10 classes (131 to 137 each), 450 test images" in out
    assert "warning" not in out


def test_data_of_very_many_classes_stays_short(call, tmp_path):
    images(tmp_path, {f"train/{i:02d}": 1 for i in range(45)}, size=32)
    out = call("data", tmp_path)[1]
    assert "and 5 more classes" in out and len(out.splitlines()) < 50


@pytest.mark.parametrize(
    "source, said",
    [("digit", "did you mean 'digits'?"), ("/no/such", "no folder '/no/such'"), ("./no", "no folder './no': sought")],
)
def test_data_that_is_not_there(refused, source, said):
    assert said in refused("data", source)


def test_settings_count(call, folder):
    assert "images of less than 64 pixels" in call("data", folder, "--set", "data.image_size=64")[1]


def test_a_run_says_what_it_runs_on(call, folder):
    loud = [word for word in ON_FOLDER if word != "--quiet"]
    data = ("--data", f"folder:{folder}")
    _, out, err = call("search", *loud, *data)
    assert f"{folder}: 20 training images" in err and "passed over: hidden (1)" in err and MISSING in err
    assert "training images" not in call("search", *loud, *data)[2], "served from its record"
    status, _, err = call("train", out.splitlines()[0], *loud, *data)
    assert status == 0 and MISSING not in err, "said once a process"


def test_a_quiet_run_warns(call, folder):
    err = call("search", *ON_FOLDER, "--data", f"folder:{folder}")[2]
    (line,) = err.splitlines()
    assert MISSING in line


def test_training_on_one_class_is_refused(call, refused, tmp_path):
    folder = images(tmp_path / "D", {"train/a": 20, "test/a": 4})
    data = ("--data", f"folder:{folder}")
    status, out, _ = call("search", *ON_FOLDER, *data)
    assert status == 0
    assert "two classes or more" in refused("train", out.splitlines()[0], *ON_FOLDER, *data)
    assert "two classes or more" in refused("search", *ON_FOLDER, *data, "--set", "search.objective=supervised")


def test_data_shows_sizes_and_what_is_prepared(call, tmp_path):
    """Half of each image is white, half black."""
    for part in ("train/a", "train/b", "test/a", "test/b"):
        (tmp_path / "D" / part).mkdir(parents=True)
        for i in range(2):
            pixels = np.zeros((40, 60, 3), dtype=np.uint8)
            pixels[:, 30:] = 255
            Image.fromarray(pixels).save(tmp_path / "D" / part / f"{i}.png")
    out = call("data", tmp_path / "D")[1]
    assert "images of 32 x 32 pixels" in out and "mean 0.500 0.500 0.500" in out
    root = ("--set", f"data.root={tmp_path / 'root'}")
    out = call("data", tmp_path / "D", "--set", "data.kept=photographs", "--set", "data.decode_size=36", *root)[1]
    assert "photographs of 36 pixels on their shorter side, 0.0 MiB" in out and [
        *(tmp_path / "root").glob("cache/*-36-v*.pack")
    ]
    assert "mean 0.500 0.500 0.500, deviation 0.49" in out  # grey where both meet


def test_data_shows_what_was_skipped_and_why(call, tmp_path):
    folder = images(tmp_path / "D", {"train/a": 110, "train/b": 10, "test/a": 3, "test/b": 3}, size=8)
    (folder / "train" / "a" / "007.png").write_bytes(b"no picture")
    out = call("data", folder, "--set", "data.kept=photographs", "--set", f"data.root={tmp_path}")[1]
    rows = [line.split() for line in out.splitlines()]
    assert ["a", "109", "3"] in rows and ["b", "10", "3"] in rows
    said = " ".join(out.split())
    assert "left out: 1, 'train/a/007.png' (empty, or of no image format that is read)" in said


def test_searches_and_trainings_run_on_photographs(call, folder):
    """What a training takes over of its search has the photographs with it; so has the record of each."""
    root = folder.parent / "root"
    whole = ("--set", "data.kept=photographs", "--set", "data.decode_size=10", "--set", f"data.root={root}")
    data = ("--data", f"folder:{folder}")
    status, out, err = call("search", *ON_FOLDER, *data, *whole)
    assert status == 0, err
    crops = ("--set", "train.augment=crop", "--set", "train.shift=0", "--set", "train.cutout=0")
    for more in (("--init", "concomitant"), crops, ("--init", "simclr")):
        status, trained, err = call(
            "train", out.splitlines()[0], *ON_FOLDER, *data, "--set", f"data.root={root}", *more
        )
        assert status == 0, err
        found = records.find(trained.splitlines()[0])
        assert (found.config["data"]["kept"], found.config["data"]["decode_size"]) == ("photographs", 10)
        assert 0 <= found.result["test"]["top1"] <= 100
    assert len([*root.glob("cache/*.pack")]) == 1


def test_a_one_shot_search_runs_on_photographs(call, folder):
    settings = {
        "data.kept": "photographs", "data.image_size": 8, "data.decode_size": 10, "data.root": folder.parent / "root",
        "model.num_cells": 2, "model.init_channels": 2, "train.cutout": 0, "one_shot.epochs": 1,
        "one_shot.batch_size": 4, "ranking.population": 4, "ranking.generations": 1,
    }  # fmt: skip
    words = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    command = ("search", "--preset", "smoke", "--method", "spos", "--device", "cpu", "--quiet", "--data")
    status, out, err = call(*command, f"folder:{folder}", *words)
    assert status == 0, err
    assert records.find(out.splitlines()[0]).config["data"]["kept"] == "photographs"
