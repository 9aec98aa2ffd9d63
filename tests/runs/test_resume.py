"""An interrupted run ends as an uninterrupted one: killed, stopped, out of luck with a checkpoint, or asked for twice
at once.
"""

import math
import random
import shutil
import time
from queue import Empty

import pytest
import tiny_runs
from tiny_runs import Stop, do_search, interrupted, name_of, plain, stop_at, tiny

from sswp_lib.config import RunError
from sswp_lib.learn.search import Search
from sswp_lib.learn.train import Training
from sswp_lib.runs import carrying_out, files, records, runs
from sswp_lib.runs.holding import held
from sswp_lib.runs.progress import Line
from sswp_lib.space import Genotype


def test_two_processes_one_computes_the_other_waits(context, runs_folder):
    config, waiting, told = tiny(), context.Semaphore(0), context.Queue()
    runs_folder.mkdir()
    with held(runs_folder / name_of(config), Line("test")):  # until both are there
        both = [
            context.Process(target=tiny_runs.search_and_tell, args=(runs_folder, config, waiting, told))
            for _ in range(2)
        ]
        for process in both:
            process.start()
        assert waiting.acquire(timeout=60) and waiting.acquire(timeout=60)
    try:
        answers = [told.get(timeout=60) for _ in both]
    except Empty:
        pytest.fail("a process did not answer")
    for process in both:
        process.join(timeout=60)
    assert sorted(steps for steps, _ in answers) == [0, 9]
    assert answers[0][1] == answers[1][1]


def start(context, folder, config, steps=1):
    """Start a search in a process of its own; return it once so many steps are done, or the search is."""
    done = context.Semaphore(0)
    process = context.Process(target=tiny_runs.search_in, args=(folder, config, done))
    process.start()
    assert all(done.acquire(timeout=60) for _ in range(steps))
    return process


def test_killed_search_ends_as_an_unkilled_one(context, tmp_path, monkeypatch):
    """Killed four times, each at another place within a step: a busy machine moves the places, and nothing else."""
    config, whole, killed = tiny(search__epochs=12), tmp_path / "whole", tmp_path / "killed"
    start(context, whole, config).join(timeout=60)
    monkeypatch.setenv("SSWP_RUNS", str(whole))
    expected = runs.find("search")
    rng, kills = random.Random(0), 0
    for _ in range(4):
        process = start(context, killed, config, rng.randint(1, 4))
        time.sleep(rng.uniform(0, 0.05))
        kills += process.is_alive()
        process.kill()
        process.join()
    start(context, killed, config).join(timeout=60)
    monkeypatch.setenv("SSWP_RUNS", str(killed))
    found = runs.find("search")
    assert kills >= 2 and 1 <= found.provenance["resumed"] <= kills
    assert plain(found) == plain(expected)
    for name in ("weights.safetensors", "genotype.json", "history.jsonl", "config.json"):
        assert (killed / found.name / name).read_bytes() == (whole / found.name / name).read_bytes()
    assert not list(killed.rglob("*.part"))


@pytest.mark.parametrize("kind", ["search", "train"])
def test_checkpoint_between_an_epochs_last_step_and_its_row(finished, monkeypatch, tmp_path, kind):
    def ask():
        return (
            do_search()
            if kind == "search"
            else runs.train(tiny(), Genotype.published("DARTS_V2", 2), device="cpu", quiet=True)
        )

    expected = ask()
    steps = 3 if kind == "search" else expected.result["steps"] // 3
    monkeypatch.setenv("SSWP_RUNS", str(tmp_path / "other"))
    monkeypatch.setattr(carrying_out, "CHECKPOINT_SECONDS", -1.0)
    with monkeypatch.context() as patch:
        stop_at(patch, Search if kind == "search" else Training, steps)
        with pytest.raises(Stop):
            ask()
    (folder,) = runs.root().glob("*/checkpoints")
    files.checkpoints(folder)[0].unlink()  # that of the next epoch's beginning
    assert plain(ask()) == plain(expected)


def test_interrupted_training_ends_as_an_uninterrupted_one(finished, runs_folder, tmp_path, monkeypatch):
    config = tiny(train__init="concomitant", train__evaluate_every=1, train__drop_path=0.2, train__calibrate=True)
    monkeypatch.setattr(carrying_out, "CHECKPOINT_SECONDS", -1.0)
    expected = runs.train(config, finished, device="cpu", quiet=True)
    content = (runs_folder / expected.name / "weights.safetensors").read_bytes()
    (runs_folder / expected.name).rename(tmp_path / "put away")
    for count in random.Random(1).sample(range(1, expected.result["steps"] // 2 + 1), 2):
        with monkeypatch.context() as patch:
            stop_at(patch, Training, count)
            with pytest.raises(Stop):
                runs.train(config, finished, device="cpu", quiet=True)
    found = runs.train(config, finished, device="cpu", quiet=True)
    assert found.provenance["resumed"] == 2
    assert plain(found) == plain(expected)
    assert (runs_folder / found.name / "weights.safetensors").read_bytes() == content


def test_loss_that_is_not_finite_leaves_the_last_good_checkpoint(finished, monkeypatch, tmp_path):
    monkeypatch.setattr(carrying_out, "EPOCH_SECONDS", -1.0)
    monkeypatch.setenv("SSWP_RUNS", str(tmp_path / "other"))
    loss = Search.loss

    def broken(self, *args):
        value, metrics = loss(self, *args)
        return value * (math.nan if (self.epoch, self.step) == (1, 1) else 1.0), metrics

    with monkeypatch.context() as patch:
        patch.setattr(Search, "loss", broken)
        with pytest.raises(RunError, match=r"epoch 1.*step 1") as caught:
            do_search()
    assert "\n" not in str(caught.value) and "lr" in str(caught.value)
    assert not list(runs.root().glob("*/record.json"))
    assert plain(do_search()) == plain(finished)  # goes on from the end of epoch 0
    assert runs.find("search").provenance["resumed"] == 1


def test_damaged_checkpoint_is_reported_and_the_run_goes_on_from_the_older(finished, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("SSWP_RUNS", str(tmp_path / "other"))
    newest, older = files.checkpoints(interrupted(monkeypatch, tiny(), 5))
    newest.write_bytes(newest.read_bytes()[:-30])
    found = do_search()
    err = capsys.readouterr().err
    assert repr(str(newest)) in err and repr(str(older)) not in err and "taken up" in err
    assert plain(found) == plain(finished)


def test_no_whole_checkpoint_is_an_error_not_a_new_start(runs_folder, monkeypatch):
    folder = interrupted(monkeypatch, tiny(), 3)
    for path in files.checkpoints(folder):
        path.write_bytes(b"")
    with pytest.raises(RunError, match="none of the 2 checkpoints"):
        do_search()
    assert len(files.checkpoints(folder)) == 2


def test_foreign_checkpoint_is_refused(finished, runs_folder, monkeypatch, capsys):
    folder = interrupted(monkeypatch, tiny(seed=1), 3)
    other = runs_folder / name_of(tiny(seed=2)) / "checkpoints"
    other.mkdir(parents=True)
    for path in files.checkpoints(folder):
        (other / path.name).write_bytes(path.read_bytes())
    with pytest.raises(RunError, match="none of"):
        do_search(seed=2)
    assert f"it belongs to run {name_of(tiny(seed=1))}" in capsys.readouterr().err


def test_checkpoint_of_other_code_is_refused_in_one_line(finished, runs_folder, monkeypatch):
    """Its content is whole, but the code that reads it has other parameters; no other run is touched."""
    config = tiny(seed=1)
    folder = interrupted(monkeypatch, config, 4)
    state = files.read_checkpoint(folder, folder.parent.name, print)
    state["loop"]["supernet"]["of.an.older.release"] = state["loop"]["supernet"].pop("alpha")
    for path in files.checkpoints(folder):
        path.unlink()
    files.write_checkpoint(folder, folder.parent.name, 9, 0, state)
    with pytest.raises(RunError, match="not of this release of the code") as caught:
        do_search(seed=1)
    assert "\n" not in str(caught.value) and f"remove the folder {str(folder)!r}" in str(caught.value)
    assert do_search() == finished
    shutil.rmtree(folder)
    assert do_search(seed=1).provenance["resumed"] == 0


def test_interrupt_in_a_notebook_is_one_line_that_says_how_to_go_on(runs_folder, monkeypatch, capsys):
    InteractiveShell = pytest.importorskip("IPython.core.interactiveshell").InteractiveShell
    shell = InteractiveShell()
    shell.user_ns["ask"] = do_search
    with monkeypatch.context() as patch:
        stop_at(patch, Search, 5, KeyboardInterrupt)
        result = shell.run_cell("ask()")
    assert isinstance(result.error_in_exec, KeyboardInterrupt)
    shown = [line for line in capsys.readouterr().out.splitlines() if line.strip()]
    name = name_of(tiny())
    assert shown == [f"Stopped: {name} at epoch 2 of 3; run the cell again to go on"]
    with monkeypatch.context() as patch:
        stop_at(patch, Search, 0, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt, match="before its first epoch"):
            do_search(seed=1)


def test_fresh_keeps_the_earlier_record_until_the_new_one_is_there(finished, runs_folder, monkeypatch):
    monkeypatch.setattr(carrying_out, "CHECKPOINT_SECONDS", -1.0)
    folder = runs_folder / finished.name
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with monkeypatch.context() as patch:
        stop_at(patch, Search, 5)
        with pytest.raises(Stop):
            runs.search(tiny(), device="cpu", quiet=True, fresh=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    assert do_search() == finished and runs.everything() == [finished]
    again = runs.search(tiny(), device="cpu", quiet=True, fresh=True)
    assert again.provenance["resumed"] == 1 and plain(again) == plain(finished)
    assert do_search() == again and {path.name for path in folder.rglob("*") if path.is_file()} == set(before)


def test_fresh_replaces_a_damaged_record_and_does_what_is_not_there(finished, runs_folder):
    (runs_folder / finished.name / "record.json").write_text("{")
    assert plain(runs.search(tiny(), device="cpu", quiet=True, fresh=True)) == plain(finished)
    other = runs.search(tiny(seed=1), device="cpu", quiet=True, fresh=True)
    assert not (runs_folder / other.name / "fresh").exists() and do_search(seed=1) == other


def test_a_run_done_again_says_where_its_weights_are_not_those_of_its_record(finished, runs_folder, capsys):
    """As after a restored record, on a processor whose rounding differs: what started from its own is done again."""
    runs.search(tiny(), device="cpu", quiet=True, fresh=True)
    assert "other weights" not in capsys.readouterr().err
    records.write(runs_folder / finished.name, finished.model_copy(update={"weights_sha256": "0" * 64}))
    runs.search(tiny(), device="cpu", quiet=True, fresh=True)
    said = capsys.readouterr().err
    assert said.startswith(f"{finished.name}: has other weights than its record told of") and said.count("\n") == 1
