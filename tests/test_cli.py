"""The command: what is wrong is one line, never a traceback, and earlier results stay whole."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from PIL import Image
from tiny_runs import ON_FOLDER, TINY_RUN, genotype_file, images, plain, stop_at

from sswp_lib.config import setting_names
from sswp_lib.lab import forecast
from sswp_lib.learn.search import Search
from sswp_lib.presets import METHODS, PRESETS
from sswp_lib.runs import runs
from sswp_lib.space import Genotype, published_cells

COMMANDS = ("search", "train", "runs", "show", "settings", "reproduce", "compare", "publish", "export", "predict")


def test_module_runs_as_a_command(tmp_path):
    arguments = [sys.executable, "-m", "sswp_lib", "search", "--preset", "smok"]
    done = subprocess.run(
        arguments, capture_output=True, text=True, env=os.environ | {"SSWP_RUNS": str(tmp_path)}, check=False
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "sswp: unknown preset 'smok'; did you mean 'smoke'?\n"


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)])
def test_help_of_every_command(call, command):
    status, out, _ = call(*command, "--help")
    assert status == 0 and "Usage" in out and all(name in out for name in (command or COMMANDS))


def test_settings_lists_every_setting(call):
    status, out, _ = call("settings")
    assert status == 0 and [line.split(" = ")[0] for line in out.splitlines()] == setting_names()
    assert "search.batch_size = 96" in out.splitlines()


def test_search_then_train_then_runs_and_show(call, runs_folder):
    status, out, err = call("search", *TINY_RUN)
    name = out.splitlines()[0]
    assert status == 0 and err == "" and (runs_folder / name / "record.json").is_file()
    status, out, _ = call("train", name[:10], "--init", "concomitant", *TINY_RUN)
    trained = out.splitlines()[0]
    assert status == 0 and runs.find(trained).source["weights_sha256"] == runs.find(name).weights_sha256
    assert runs.find(trained).provenance["started_from"] == name
    status, out, _ = call("runs")
    assert status == 0 and name in out and trained in out and "test" in out
    status, out, _ = call("show", name[:9])
    assert status == 0 and json.loads(out)["result"] == runs.find(name).result and "history" not in json.loads(out)


def test_search_by_another_method(call, refused, monkeypatch):
    """The method's defaults come with it; what it has no use for is refused."""
    few = {"search.epochs": 1, "search.batch_size": 600, "model.init_channels": 2, "search.calibration_batches": 1}
    arguments = [
        "--preset", "smoke", "--device", "cpu", "--quiet", *(w for k, v in few.items() for w in ("--set", f"{k}={v}"))
    ]  # fmt: skip
    status, out, err = call("search", "--method", "darts", *arguments)
    record = runs.find(out.splitlines()[0])
    assert status == 0, err
    assert (record.config["search"]["method"], record.config["search"]["objective"]) == ("darts", "supervised")
    assert record.config["relaxed"]["alpha_lr"] == METHODS["darts"]["smoke"]["relaxed.alpha_lr"]
    assert "  skip_share: " in out and "mixture" not in out and "genotype" not in out
    status, out, err = call("search", *arguments, "--set", "search.method=darts")
    assert status == 0 and runs.find(out.splitlines()[0]) == record, err
    status, out, err = call("train", record.name, *arguments[:5], "--set", "train.epochs=1")
    assert status == 0 and runs.find(out.splitlines()[0]).genotype == record.genotype, err
    assert "unknown method 'dart'" in refused("search", "--method", "dart", *arguments)
    line = refused("search", "--method", "ssnas", *arguments, "--set", "search.method=darts")
    assert "--method ssnas and --set search.method='darts' are both given" in line
    assert "set relaxed.alpha_lr" in refused("search", "--method", "ssnas", *arguments, "--set", "search.alpha_lr=0.1")
    assert "of no use to method 'sswp'" in refused("search", *arguments, "--set", "relaxed.order=2")


def test_runs_without_any_says_how_to_start(call):
    assert call("runs") == (0, "no finished runs yet; start with: sswp search\n", "")


def test_damaged_records_do_not_hide_the_others(call, finished, runs_folder):
    shutil.copytree(runs_folder / finished.name, runs_folder / "search-0")
    (runs_folder / "search-0" / "record.json").write_text('{"name": "sea')
    for i in range(10):
        (runs_folder / f"train-{i}").mkdir()
        (runs_folder / f"train-{i}" / "record.json").write_text("{}")
    status, out, err = call("runs")
    assert status == 0 and err == "" and f"\n{finished.name} " in out.split("not listed")[0]
    lines = out.split("11 not listed:\n")[1].splitlines()
    assert lines[0].startswith("  search-0: cannot read ") and lines[0].endswith("remove it to have it made anew")
    assert len(lines) == 11 and lines[-1] == "  and 1 more: train-9"


def test_fresh_does_a_finished_run_anew(call, finished, runs_folder, monkeypatch):
    stop_at(monkeypatch, Search, 100)
    status, out, _ = call("search", *TINY_RUN, "--fresh")
    again = runs.find(finished.name)
    assert status == 0 and out.splitlines()[0] == finished.name and plain(again) == plain(finished)
    assert again.provenance["seconds"] != finished.provenance["seconds"]
    assert call("train", finished.name, "--fresh", *TINY_RUN)[0] == 0


def test_asking_again_shows_the_finished_run(call, finished, monkeypatch):
    stop_at(monkeypatch, Search, 0)
    status, out, _ = call("search", *TINY_RUN)
    assert status == 0 and out.splitlines()[0] == finished.name


def test_labels_option_replaces_the_presets_number(call, finished):
    status, out, _ = call("train", finished.name, *TINY_RUN, "--labels", "0.1", "--set", "train.epochs=1")
    train = runs.find(out.splitlines()[0]).config["train"]
    assert status == 0 and train["labels"] == 0.1 and train["labels_per_class"] is None


@pytest.mark.parametrize("given", ["file", "published"])
def test_train_from_a_genotype(call, tmp_path, given):
    source = genotype_file(tmp_path) if given == "file" else "DARTS_V2"
    status, out, _ = call("train", source, *TINY_RUN, "--set", "train.epochs=1")
    assert status == 0 and runs.find(out.splitlines()[0]).genotype == Genotype.published("DARTS_V2", 2)


def test_train_from_a_genotype_as_darts_prints_it(call, tmp_path):
    cells = {kind: [tuple(pair) for pair in pairs] for kind, pairs in published_cells()["DARTS_V2"].items()}
    text = (
        f"Genotype(normal={cells['normal']}, normal_concat=range(2, 6), reduce={cells['reduce']}, "
        "reduce_concat=range(2, 6))"
    )
    (tmp_path / "log.txt").write_text(f"11/14 10:21:33 PM genotype = {text}\n")
    names = set()
    for source in (tmp_path / "log.txt", text, "DARTS_V2"):
        status, out, err = call("train", source, *TINY_RUN, "--set", "train.epochs=1")
        assert status == 0, err
        names.add(out.splitlines()[0])
    assert len(names) == 1


def test_published_cells_make_a_network_of_the_configurations_depth(call, monkeypatch):
    seen = []
    monkeypatch.setattr(runs, "finished", lambda *given: None)  # which would look for the images
    monkeypatch.setattr(forecast, "say", lambda *given: None)
    monkeypatch.setattr(
        runs, "train", lambda config, source, *a: seen.append((source.num_cells, config.model.num_cells)) or exit(0)
    )
    for arguments in (
        ["--preset", "paper"],
        ["--preset", "paper", "--data", "imagenet"],
        ["--preset", "smoke", "--set", "model.num_cells=5"],
    ):
        call("train", "DARTS_V2", *arguments, "--device", "cpu")
    assert seen == [(20, 20), (14, 14), (5, 5)]


def test_training_takes_classes_and_views_from_its_search(call, runs_folder, tmp_path):
    own = [
        *TINY_RUN,
        "--set",
        'data.classes=["3","5"]',
        "--set",
        "data.views.flip=true",
        "--set",
        "search.batch_size=50",
    ]
    name = call("search", *own)[1].splitlines()[0]
    short = [*TINY_RUN, "--set", "train.epochs=1", "--set", "train.batch_size=2"]
    data = runs.find(call("train", name, *short)[1].splitlines()[0]).config["data"]
    assert data["classes"] == ["3", "5"] and data["views"] == {"flip": True}
    folder = images(tmp_path / "own", {"train/a": 20, "train/b": 20, "test/a": 4, "test/b": 4})
    own[own.index("data.views.flip=true")] = "data.views.flip=false"
    name = call("search", *own)[1].splitlines()[0]
    other = runs.find(call("train", name, *short, "--data", f"folder:{folder}")[1].splitlines()[0]).config["data"]
    assert other["classes"] is None and other["views"] == {"flip": True}


def test_two_stage_baseline_of_a_search_pre_trains_as_long_and_by_the_same_recipe(call, monkeypatch):
    """Paper, section 4.4: the search's epochs, batch and learning rate; they are the record's, not the preset's."""
    own = {
        "search.epochs": 3, "search.batch_size": 200, "search.lr": 0.05, "search.min_lr": 0.01,
        "search.temperature": 0.2, "search.momentum": 0.8, "search.weight_decay": 1e-3, "search.schedule": "epoch",
    }  # fmt: skip
    settings = [word for name, value in own.items() for word in ("--set", f"{name}={json.dumps(value)}")]
    found = runs.find(call("search", *TINY_RUN, *settings)[1].splitlines()[0])
    training = ["--preset", "smoke", "--device", "cpu", "--quiet", "--init", "simclr", "--set", "train.batch_size=8"]
    assert call("train", found.name, *training, "--set", "train.epochs=1")[0] == 0
    (start,) = [record for record in runs.everything() if record.config.get("train", {}).get("objective") == "simclr"]
    searched, learnt = found.config["search"], start.config["train"]
    assert {f"search.{name}": learnt[name] for name in (n.split(".")[1] for n in own)} == own
    assert [name for name in own if searched[name.split(".")[1]] != own[name]] == []
    assert start.config["data"] == found.config["data"] and start.config["model"] == found.config["model"]
    seen = []
    monkeypatch.setattr(runs, "train", lambda config, *a: seen.append(config.search) or sys.exit(0))
    call("train", found.name, *training, "--set", "search.temperature=0.3")
    assert (seen[0].temperature, seen[0].epochs) == (0.3, 3)  # what is said counts


def test_a_data_set_named_by_a_setting_has_its_own_views(call, monkeypatch):
    seen = []
    monkeypatch.setattr(forecast, "say", lambda *given: None)
    monkeypatch.setattr(runs, "search", lambda config, *a: seen.append(config.data) or sys.exit(0))
    for given in (["--data", "cifar10"], ["--set", "data.name=cifar10"], ["--set", "data.name='cifar10'"]):
        call("search", "--preset", "smoke", *given)
    assert len(seen) == 3 and {(data.name, data.image_size, data.views.flip) for data in seen} == {
        ("cifar10", 32, True)
    }


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["search", "--preset", "quik"], "unknown preset 'quik'; did you mean 'quick'?"),
        (["search", "--data", "digit"], "unknown data set 'digit'; did you mean 'digits'?"),
        (["search", "--set", "search.epoch=3"], "unknown setting 'search.epoch'; did you mean 'search.epochs'?"),
        (["search", "--set", "search.epochs"], "expected NAME=VALUE"),
        (["search", "--set", "search.epochs=many"], "search.epochs"),
        (["search", "--set", "search.epochs=0"], "search.epochs"),
        (["search", "--set", "search=3"], "unknown setting 'search'"),
        (["search", "--set", "search.ratios=[0.2,0.4,0.5]"], "add up to 1.1; expected 1"),
        (["search", "--set", "search.ratios=[0.5,0.5]"], "has 2 parts"),
        (["search", "--set", "search.ratios=[0.5,0.5,0]"], "no time for pruning"),
        (["search", "--set", "search.ratios=[0.9,0.4,-0.3]"], "between 0 and 1"),
        (["search", "--set", "search.batch_size=100000"], "batch_size 100000 is larger than the"),
        (
            ["search", "--set", "data.views.crop_scale=[-1,1]"],
            "data.views.crop_scale.0: Input should be greater than 0 (got -1",
        ),
        (["search", "--set", "data.views.blur_sigma=[0,1]"], "data.views.blur_sigma.0"),
        (["search", "--set", "data.views.jitter=[1,1,1,0.9]"], "data.views.jitter.3"),
        (["search", "--set", 'data.classes=["1","1"]'], "names '1' twice"),
        (["search", "--set", "search.lr=Infinity"], "search.lr"),
        (["search", "--set", "search.epochs=1"], "leave none in which alpha is learnt"),
        (["search", "--set", "search.epochs=True"], "valid integer (got True)"),
        (["search", "--set", "search.lr=0.1", "--set", "search.min_lr=0.2"], "min_lr 0.2 is above lr 0.1"),
        (["search", "--seed", "99999999999"], "seed: Input should be less than 4294967296 (got 99999999999)"),
        (["search", "--seed", "3", "--set", "seed=4"], "--seed 3 and --set seed=4 are both given"),
        (["search", "--data", ""], "unknown data set ''"),
        (
            ["search", "--data", "digits", "--set", "data.name=cifar10"],
            "data 'digits' and data.name='cifar10' are both",
        ),
        (["search", "--device", "meta"], "device 'meta' cannot be used here"),
        (["search", "--device", ""], "device '' cannot be used here"),
        (["search", "--device", "quantum"], "device 'quantum' cannot be used here"),
        (["search", "--data", "folder:/no/such/folder"], "no folder '/no/such/folder'"),
        (["train", "absent.json"], "no file 'absent.json'"),
        (["train", "search-0000"], "no finished run 'search-0000'"),
        (["train", "DARTS_V2", "--init", "randm"], "init"),
        (["train", "DARTS_V2", "--init", "concomitant"], "without weights"),
        (
            ["train", "DARTS_V2", "--init", "simclr", "--set", "train.init=random"],
            "--init simclr and --set train.init=",
        ),
        (["train", "DARTS_V2", "--labels", "2"], "train.labels: Input should be less than or equal to 1 (got 2"),
        (["train", "DARTS_V2", "--labels", "0"], "train.labels: Input should be greater than 0 (got 0"),
        (["train", "DARTS_V2", "--labels", "nan"], "train.labels: Input should be a finite number"),
        (
            ["train", "DARTS_V2", "--labels", "0.1", "--set", "train.labels_per_class=2"],
            "--labels 0.1 and --set train.labels_per_class=2 are both given",
        ),
        (["train", "DARTS_V2", "--labels", "1", "--set", "train.labels_per_class=2"], "are both given"),
        (["train", "DARTS_V2", "--labels", "0.1", "--set", "train.labels=0.3"], "are both given; expected one of them"),
        (["train", "DARTS_V2", "--set", "train.labels=0.1"], "labels 0.1 and labels_per_class 2 are both given"),
        (["train", "DARTS_V2", "--set", "train.freeze=backbone"], "probes features that nothing has learnt"),
        (["train", "/no/such/genotype"], "no file '/no/such/genotype'"),
        (["train", "absent.txt"], "no file 'absent.txt'; expected a genotype file or a run's name"),
        (["train", "/"], "'/' is a folder; expected a genotype file or a run's name"),
        (["train", "x" * 5000], "no finished run 'xxx"),
        (["train", "Genotype(normal=[])"], "not a genotype: 'Genotype(normal=[])'; expected Genotype(normal=[...]"),
        (["train", "DARTS_V2", "--set", "model.num_cells=abc"], "model.num_cells"),
        (
            ["train", "DARTS_V2", "--init", "simclr", "--weights", "w.safetensors"],
            "weights 'w.safetensors' are given, but init is 'simclr'",
        ),
        (["train", "DARTS_V2", "--set", "train.batch_size=5000"], "batch_size 5000 is larger than the"),
        (["train", "DARTS_V2", "--set", "train.labels_per_class=5000"], "5000 labels per class"),
        (["show", "search-0000"], "no finished run 'search-0000'"),
        (["reproduce", "--preset", "smokey"], "did you mean 'smoke'?"),
    ],
)
def test_wrong_input_is_one_line(refused, arguments, expected):
    own = [word for word in TINY_RUN if "--preset" not in arguments or word not in ("--preset", "smoke")]
    own = own[own.index("--device") + 2 :] if "--device" in arguments else own
    more = own if arguments[0] in ("search", "train") else []
    assert expected in refused(arguments[0], *more, *arguments[1:])


@pytest.mark.parametrize(
    "arguments", [["search", "--epochs", "3"], ["serch"], ["train"], ["search", "--seed", "-1"], ["show"]]
)
def test_wrong_usage_is_explained(call, arguments):
    status, out, err = call(*arguments)
    assert status == 2 and "Usage" in err and "Traceback" not in out + err


@pytest.mark.parametrize("name, seen", [("search.lr", PRESETS["smoke"]["search.lr"])])
def test_last_of_two_settings_counts(call, name, seen):
    status, out, _ = call("search", *TINY_RUN, "--set", f"{name}=9", "--set", f"{name}={seen}")
    assert status == 0 and runs.find(out.splitlines()[0]).config["search"]["lr"] == seen


def test_broken_image_is_named(refused, tmp_path):
    folder = images(tmp_path / "data", {"train/a": 10, "train/b": 10})
    (folder / "train" / "b" / "bad.png").write_bytes(b"not an image")
    line = refused("search", *ON_FOLDER, "--data", f"folder:{folder}")
    assert "bad.png" in line and "replace or remove it" in line


def test_truncated_image_is_named(refused, tmp_path):
    folder = images(tmp_path / "data", {"": 20})
    content = (folder / "007.png").read_bytes()
    (folder / "007.png").write_bytes(content[: len(content) // 2])
    assert "007.png" in refused("search", *ON_FOLDER, "--data", f"folder:{folder}")


def test_empty_folder_is_named(refused, tmp_path):
    assert "no images in" in refused("search", *ON_FOLDER, "--data", f"folder:{tmp_path}")


def test_search_needs_no_labels_and_training_says_that_it_does(call, refused, tmp_path):
    folder = images(tmp_path / "data", {"": 20})
    status, out, _ = call("search", *ON_FOLDER, "--data", f"folder:{folder}")
    name = out.splitlines()[0]
    assert status == 0 and runs.find(name).result["images"] == 20
    assert "needs labels" in refused("train", name, *ON_FOLDER, "--data", f"folder:{folder}")
    assert "--data folder:PATH" in refused("train", name, *ON_FOLDER)
    assert "needs labels" in refused(
        "search", *ON_FOLDER, "--data", f"folder:{folder}", "--set", "search.objective=supervised"
    )


def test_training_without_test_images_says_so(refused, tmp_path):
    folder = images(tmp_path / "data", {"train/a": 10, "train/b": 10})
    assert "test/<class>" in refused("train", "DARTS_V2", *ON_FOLDER, "--data", f"folder:{folder}")


def test_images_of_other_sizes_and_modes_are_taken(call, tmp_path):
    folder = images(tmp_path / "data", {"train/a": 10, "train/b": 10, "test/a": 3, "test/b": 3})
    whole = Image.open(folder / "train/a/000.png")
    whole.resize((31, 17)).save(folder / "train/a/wide.png")
    for mode, suffix in (("L", "png"), ("RGBA", "png"), ("P", "gif"), ("1", "png"), ("CMYK", "jpg"), ("I;16", "png")):
        converted = whole.convert("I").convert("I;16") if mode == "I;16" else whole.convert(mode)
        converted.save(folder / f"train/b/{mode.replace(';', '')}.{suffix}")
    status, out, err = call("search", *ON_FOLDER, "--data", f"folder:{folder}")
    assert status == 0, err
    assert runs.find(out.splitlines()[0]).result["images"] == 27
    status, out, err = call(
        "train", out.splitlines()[0], *ON_FOLDER, "--data", f"folder:{folder}", "--init", "concomitant"
    )
    assert status == 0, err
