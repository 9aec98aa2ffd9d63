"""A run is its configuration: cached, locked, resumable, recorded, and the same however often it was interrupted."""

import json
import math
import shutil
import subprocess
import time

import pytest
import torch
from tiny_runs import do_search, images, name_of, plain, stop_at, tiny

import sswp_lib
from sswp_lib.config import InputError
from sswp_lib.learn.data import load
from sswp_lib.learn.neighbours import compared
from sswp_lib.learn.search import Search
from sswp_lib.runs import files, records, runs
from sswp_lib.runs.carrying_out import Asked
from sswp_lib.space import Genotype


def test_finished_search_is_not_done_again(finished, monkeypatch):
    stop_at(monkeypatch, Search, 0)
    assert do_search() == finished


def test_record_is_plain_and_says_what_was_done(finished, runs_folder):
    folder = runs_folder / finished.name
    text = (folder / "record.json").read_text()

    def refuse(constant):
        raise AssertionError(f"{constant} in a record")

    written = json.loads(text, parse_constant=refuse)
    assert len(written.pop("record_sha256")) == 64
    assert written == finished.model_dump(mode="json")
    assert finished.config == runs._identity(tiny(), "search")
    assert finished.seed == 0 and finished.kind == "search"
    assert {
        "torch",
        "python",
        "version",
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
    assert left == {
        "record.json", "config.json", "genotype.json", "history.jsonl", "alpha.jsonl", "weights.safetensors",
    }  # fmt: skip
    do_search()
    assert not list(runs_folder.glob("*.held*"))


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
    for ask in (do_search, lambda: runs.find(finished.name)):
        with pytest.raises(InputError) as caught:
            ask()
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_damaged_record_does_not_hide_the_others(finished, runs_folder):
    shutil.copytree(runs_folder / finished.name, runs_folder / "search-0")
    (runs_folder / "search-0" / "record.json").write_text("{")
    assert runs.everything() == [finished]
    found, damaged = records.survey()
    assert found == [finished] and list(damaged) == ["search-0"] and "remove it" in damaged["search-0"]


def test_record_changed_by_hand_is_refused(finished, runs_folder):
    path = runs_folder / finished.name / "record.json"
    written = json.loads(path.read_text())
    assert records.read(path) == finished
    path.write_text(json.dumps(written))  # other spaces, the same content
    assert records.read(path) == finished
    written["result"]["exported"]["loss"] += 1e-9
    path.write_text(json.dumps(written))
    with pytest.raises(InputError, match=r"record.json' was changed after it was made; remove it"):
        records.read(path)
    del written["record_sha256"]
    path.write_text(json.dumps(written))
    with pytest.raises(InputError, match="has no checksum"):
        records.read(path)


def test_a_record_is_read_once_until_it_changes(finished, runs_folder, monkeypatch):
    """Dozens of trainings ask for one search's; what another process writes there is seen at once."""
    path, read = runs_folder / finished.name / "record.json", []
    read_json = files.read_json
    monkeypatch.setattr(files, "read_json", lambda path: read.append(path) or read_json(path))
    assert records.read(path) == records.read(path) == finished and len(read) <= 1
    records.write(path.parent, finished.model_copy(update={"seed": 5}))
    assert records.read(path).seed == 5
    path.unlink()
    with pytest.raises(InputError):
        records.read(path)


def test_name_depends_on_neither_threads_nor_device(finished, monkeypatch):
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        assert name_of(tiny()) == finished.name
    finally:
        torch.set_num_threads(threads)
    stop_at(monkeypatch, Search, 0)
    assert runs.search(tiny(), device="meta", quiet=True) == finished  # found before any device is touched


def test_training_name_depends_on_the_genotype(runs_folder):
    config, genotypes = runs._identity(tiny(), "train"), [Genotype.published(n, 2) for n in ("DARTS_V1", "DARTS_V2")]
    assert len({Asked("train", config, runs._source(g, None)).name for g in genotypes}) == 2


def test_training_is_named_by_the_weights_it_starts_from(finished, runs_folder, tmp_path):
    """The same genotype with other weights is another start; the same weights are the same start, in whatever file."""
    config = tiny(train__init="concomitant", train__epochs=1)
    first = runs.train(config, finished, device="cpu", quiet=True)
    path = tmp_path / "w.safetensors"
    path.write_bytes((runs_folder / finished.name / "weights.safetensors").read_bytes())
    assert runs.train(config, finished.genotype, path, device="cpu", quiet=True) == first
    weights = finished.weights()
    weights["stem.0.0.weight"] = weights["stem.0.0.weight"] + 1
    content = files.weights_bytes(weights)
    (runs_folder / finished.name / "weights.safetensors").write_bytes(content)
    records.write(runs_folder / finished.name, finished.model_copy(update={"weights_sha256": files.checksum(content)}))
    again = runs.find(finished.name)
    assert runs.finished(config, again) is None
    second = runs.train(config, again, device="cpu", quiet=True)
    assert second.name != first.name and second.weights_sha256 != first.weights_sha256
    assert second.provenance["started_from"] == finished.name


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
    start = runs.find(found.provenance["started_from"])
    assert start.weights_sha256 == found.source["weights_sha256"]
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


@pytest.mark.parametrize(
    "made, said",
    [
        ({"version": "0.0.1"}, f"sswp 0.0.1 (here {sswp_lib.__version__})"),
        ({"torch": "1.2.3+cpu"}, f"torch 1.2 (here {'.'.join(torch.__version__.split('.')[:2])})"),
        ({"device": "cuda:1"}, "cuda (here cpu)"),
        ({"torch": ".".join(torch.__version__.split(".")[:2]) + ".99"}, None),
        ({"commit": "another"}, None),
    ],
)
def test_served_record_says_where_it_was_made_otherwise(finished, runs_folder, monkeypatch, capsys, made, said):
    monkeypatch.setattr(runs, "_said", set())
    for seed in (0, 1):
        record = do_search(seed=seed)
        changed = record.model_copy(update={"provenance": record.provenance | made})
        records.write(runs_folder / record.name, changed)
    capsys.readouterr()
    do_search()
    err = capsys.readouterr().err
    assert (err == "") if said is None else (err.startswith(f"{finished.name}: served as it was made, with {said}; "))
    assert said is None or ("--fresh" in err and err.count("\n") == 1)
    do_search(seed=1)
    assert capsys.readouterr().err == ""  # of hundreds of records it is said once


def test_commit_says_where_the_library_was_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "home", lambda: tmp_path)
    assert records.commit() is None
    git = lambda *words: subprocess.run(  # noqa: E731
        ["git", "-c", "user.name=a", "-c", "user.email=a@b.example", *words], cwd=tmp_path, check=True, text=True,
        capture_output=True,
    ).stdout.strip()  # fmt: skip
    git("init")
    (tmp_path / "sswp_lib").mkdir()
    (tmp_path / "sswp_lib" / "a.py").write_text("1")
    (tmp_path / "README.md").write_text("1")
    git("add", ".")
    git("commit", "-m", "first")
    head = git("rev-parse", "HEAD")
    (tmp_path / "README.md").write_text("2")
    assert records.commit() == head
    (tmp_path / "sswp_lib" / "a.py").write_text("2")
    assert records.commit() == f"{head}-dirty"


def test_runs_that_a_process_is_given_are_noted_where_asked(finished, runs_folder, tmp_path, monkeypatch):
    used = tmp_path / "01_runs.txt"
    config = tiny(train__init="simclr", search__epochs=2, train__epochs=1)
    runs.train(config, finished, device="cpu", quiet=True)
    assert records.used(used) == []
    monkeypatch.setenv("SSWP_USED", str(used))
    for _ in range(2):
        trained = runs.train(config, finished, device="cpu", quiet=True)
    memory = runs.memory(tiny(), batch_size=4, device="cpu", quiet=True)
    expected = {trained.name, trained.provenance["started_from"], memory.name}
    assert set(records.used(used)) == expected and len(records.used(used)) == 3
    do_search()
    assert set(records.used(used)) == expected | {finished.name}


def test_a_record_shows_itself_in_a_line_and_in_a_small_table(finished):
    text = repr(finished)
    assert text.startswith(f"<{finished.name}: seed 0, loss ") and "skips" in text and len(text) < 120
    assert (
        finished.outcome()["loss"] in finished._repr_html_() and finished.provenance["device"] in finished._repr_html_()
    )
    assert finished._repr_html_().count("<tr>") < 10
    trained = runs.train(tiny(train__epochs=1), finished, device="cpu", quiet=True)
    assert f"test accuracy {trained.accuracies['test']['top1']:.2f} %" in repr(trained)
    done = records.Done({"arm": "<b>", "seed": 3}, trained)
    assert repr(done) == f"<arm <b>, seed 3: {trained!r}>"
    assert "<td>&lt;b&gt;</td>" in done._repr_html_()
    assert repr([finished, trained]) == f"[{finished!r}, {trained!r}]"
    memory = runs.memory(tiny(), batch_size=4, device="cpu", quiet=True)
    assert repr(memory) == f"<{memory.name}: seed 0>" and "seconds" in memory._repr_html_()


@pytest.mark.parametrize("init", ["concomitant", "simclr"])
def test_norms_of_a_start_need_its_weights_once(runs_folder, init):
    """Root mean squares of convolutions; drawn again from the record alone, and done anew where neither is there."""
    config = tiny(train__init=init)
    measured = runs.start_norms(config, init, "cpu")
    weights, norms = runs.started_from(config, init, "cpu").weights(), measured.result["norms"]
    name = "stem.0.0.weight"
    assert norms[name] == pytest.approx(float((weights[name] ** 2).mean().sqrt()))
    assert set(norms) == {name for name, t in weights.items() if t.dim() == 4} and "head.0.weight" not in norms
    for path in runs_folder.glob("*/weights.safetensors"):
        path.unlink()
    assert runs.start_norms(config, init, "cpu") == measured and not list(runs_folder.glob("*/weights.safetensors"))
    (runs_folder / measured.name / "record.json").unlink()
    assert runs.start_norms(config, init, "cpu").result == measured.result


def test_neighbours_need_weights_once(runs_folder):
    """What is drawn of them comes from the record alone; the search is done anew only where neither is there."""
    config = tiny()
    measured = runs.neighbours(config, "cpu")
    found = runs.search(config, device="cpu")
    assert measured.kind == "neighbours" and measured.provenance["started_from"] == found.name
    data = load(config.data)
    assert measured.result == compared(config, found.genotype, found.weights(), data)
    (runs_folder / found.name / "weights.safetensors").unlink()
    assert runs.neighbours(config, "cpu") == measured and not runs.has_weights(found)
    (runs_folder / measured.name / "record.json").unlink()
    assert runs.neighbours(config, "cpu").result == measured.result and runs.has_weights(found)


def test_neighbours_after_another_search_are_another_record(runs_folder):
    names = {runs.neighbours(tiny(seed=seed), "cpu").name for seed in (0, 1)}
    assert len(names) == 2
