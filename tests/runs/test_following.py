"""Where a run stands is read from its files alone: before it begins, while it goes on, at its end, interrupted."""

import json
import multiprocessing
import time
from contextlib import suppress

import pytest
import torch
from tiny_runs import Stop, do_search, name_of, search_in, stop_at, tiny

from sswp_lib.config import InputError
from sswp_lib.learn.search import Search
from sswp_lib.runs import carrying_out, following, records, runs
from sswp_lib.runs.progress import Line
from sswp_lib.space import Genotype


@pytest.fixture
def seen(monkeypatch):
    """Where the run of `tiny()` stood after each step of a run in this process, what is read of files included."""
    found, step = [], following.Trace.step

    def looked(self, progress):
        step(self, progress)
        s = runs.stand(tiny())
        found.append((progress, s, len(s.history), sorted(s.alphas), s.sentence()))

    monkeypatch.setattr(following.Trace, "step", looked)
    return found


def interrupt(monkeypatch, count: int, error: type[BaseException] = Stop) -> None:
    with monkeypatch.context() as patched:
        stop_at(patched, Search, count, error)
        with suppress(error, runs.Stopped):
            do_search()


def test_a_search_is_followed_from_before_its_beginning_to_its_end(runs_folder, seen):
    before = runs.stand(tiny())
    assert (before.state, before.history, before.epoch, before.fixed) == ("not begun", [], 0, [])
    assert before.epochs == 3 and before.config["search"]["ratios"] == [0.0, 0.5, 0.5]  # of what is asked for
    record = do_search()
    assert len(seen) == 12  # nine steps, three epochs
    for progress, s, rows, alphas, sentence in seen:
        done = progress.epoch + (progress.row is not None)
        assert (s.state, rows, alphas, s.epochs) == ("running", done, list(range(done)), 3)
        assert s.epoch == done and s.fixed == [[], [0], [0, 1], [0, 1]][done]
        assert f"{len(s.fixed)} of 2 cells fixed" in sentence
    loss = seen[0][0].loss
    assert seen[0][4].startswith(f"{record.name}: epoch 1 of 3, bi-level, loss {loss:.3f}, 0 of 2 cells fixed")
    assert "all 3 epochs done" in seen[-1][4]
    assert seen[4][1].place["left"] > 0 and "left" in seen[4][4] and seen[-1][1].left == 0
    after = runs.stand(tiny())
    assert (after.state, after.record, after.history, after.fixed) == ("done", record, record.history, [0, 1])
    assert f"loss {record.history[-1]['loss']:.3f}" in after.sentence() and after.left is None


def test_alpha_is_kept_exactly_and_its_genotype_is_the_one_found(finished):
    alphas = runs.stand(finished).alphas
    assert list(alphas) == [0, 1, 2]
    assert torch.equal(torch.tensor(alphas[2]["alpha"]), finished.weights()["alpha"])
    assert Genotype.model_validate(alphas[2]["genotype"]) == finished.genotype
    assert alphas[0]["alpha"] != alphas[1]["alpha"]


def test_a_run_of_another_process(runs_folder, monkeypatch):
    """Followed while it goes on; killed in the middle, it is interrupted."""
    context = multiprocessing.get_context("spawn")
    steps = context.Semaphore(0)
    config = tiny(search__epochs=200)
    process = context.Process(target=search_in, args=(runs_folder, config, steps))
    process.start()
    try:
        for _ in range(5):
            assert steps.acquire(timeout=120)
        s = runs.stand(config)
        assert s.state == "running" and s.place["pid"] == process.pid and s.history and s.alphas
    finally:
        process.kill()
        process.join()
    assert runs.stand(config).state == "running"  # believed, for a moment
    monkeypatch.setattr(following, "BELIEVED", 0.0)
    s = runs.stand(config)
    assert s.state == "interrupted" and s.sentence().startswith(f"{name_of(config)}: interrupted; ")
    assert f"epoch {s.epoch + 1} of 200" in s.sentence() and len(s.history) >= s.epoch > 0


@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt])
def test_an_interrupted_run_says_so_at_once_and_goes_on(runs_folder, monkeypatch, tmp_path, error):
    monkeypatch.setattr(carrying_out, "CHECKPOINT_SECONDS", -1.0)
    interrupt(monkeypatch, 4, error)
    s = runs.stand(tiny())
    assert (s.state, s.epoch, len(s.history), list(s.alphas)) == ("interrupted", 1, 1, [0])
    record = do_search()
    alphas = runs.stand(record).alphas
    assert runs.stand(record).state == "done" and list(alphas) == [0, 1, 2]
    monkeypatch.setenv("SSWP_RUNS", str(tmp_path / "other"))
    assert runs.stand(do_search()).alphas == alphas


def test_what_comes_after_the_checkpoint_is_written_anew(runs_folder, monkeypatch):
    """Left without a checkpoint, a run begins anew, and so does what it leaves for those who look on."""
    monkeypatch.setattr(carrying_out, "EPOCH_SECONDS", 1e9)
    interrupt(monkeypatch, 7)
    assert list(runs.stand(tiny()).alphas) == [0, 1]
    with monkeypatch.context() as patched:
        stop_at(patched, Search, 1)
        with pytest.raises(Stop):
            do_search()
    s = runs.stand(tiny())
    assert (s.state, s.epoch, s.history, s.alphas) == ("interrupted", 0, [], {})


def test_a_run_of_another_machine_that_has_fallen_silent(runs_folder, monkeypatch):
    interrupt(monkeypatch, 4)
    path = runs_folder / name_of(tiny()) / following.PROGRESS
    place = json.loads(path.read_text()) | {"state": "running", "machine": "another"}
    for age, expected in ((2.0, "running"), (30.0, "running"), (300.0, "silent")):
        path.write_text(json.dumps(place | {"at": time.time() - age}))
        assert runs.stand(tiny()).state == expected
    assert ": no sign of life for 5 min, epoch 2 of 3" in runs.stand(tiny()).sentence()


def test_of_another_process_of_the_same_number(runs_folder, monkeypatch):
    """It is this one's own number, but the run's process was born earlier."""
    interrupt(monkeypatch, 4)
    path = runs_folder / name_of(tiny()) / following.PROGRESS
    place = json.loads(path.read_text()) | {"state": "running", "at": time.time() - 30}
    path.write_text(json.dumps(place))
    assert runs.stand(tiny()).state == "running"
    path.write_text(json.dumps(place | {"born": place["born"] - 1000}))
    assert runs.stand(tiny()).state == "interrupted"


def test_a_line_that_is_being_written_is_left_out(runs_folder, monkeypatch):
    interrupt(monkeypatch, 7)
    folder = runs_folder / name_of(tiny())
    for name in (following.HISTORY, following.ALPHA):
        with open(folder / name, "a") as file:
            file.write('{"epoch": 2, "lo')
    s = runs.stand(tiny())
    assert len(s.history) == 2 and list(s.alphas) == [0, 1]
    assert len(do_search().history) == 3 and list(runs.stand(tiny()).alphas) == [0, 1, 2]


def test_a_record_that_vanishes_is_not_there(finished, monkeypatch):
    read = records.read

    def gone(path):
        path.unlink()
        return read(path)

    monkeypatch.setattr(records, "read", gone)
    assert runs.stand(finished.name).state == "interrupted"


def test_every_file_may_vanish(runs_folder, monkeypatch):
    """One after another, and in the end the folder."""
    interrupt(monkeypatch, 7)
    folder = runs_folder / name_of(tiny())
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        s = runs.stand(tiny())
        path.unlink()
        assert len(s.history) in (0, 2) and len(s.alphas) in (0, 2) and s.epochs == 3 and s.sentence()
    assert runs.stand(tiny()).state in ("interrupted", "not begun")


def test_a_run_that_ends_between_two_looks_is_found(finished, monkeypatch):
    """The record came after it was looked for, and before the sign of life was."""
    looks, record = [], following._record

    def late(folder):
        looks.append(folder)
        return record(folder) if len(looks) > 2 else None

    monkeypatch.setattr(following, "_record", late)
    assert runs.stand(finished).state == "done"


def test_a_damaged_record_is_said(finished, runs_folder):
    path = runs_folder / finished.name / "record.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(InputError, match="was changed after it was made"):
        runs.stand(finished)


def test_a_run_that_is_done_again(finished, seen):
    alphas = runs.stand(finished).alphas
    again = runs.search(tiny(), device="cpu", quiet=True, fresh=True)
    assert [(s.state, rows, found) for _, s, rows, found, _ in seen] == [
        ("running", done, list(range(done))) for done in (0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3)
    ]
    after = runs.stand(again)
    assert after.record == again != finished and after.alphas == alphas


def test_interrupted_when_done_again_the_earlier_record_counts(finished, monkeypatch):
    stop_at(monkeypatch, Search, 4)
    with pytest.raises(Stop):
        runs.search(tiny(), device="cpu", quiet=True, fresh=True)
    s = runs.stand(finished)
    assert s.state == "done" and s.record == finished and len(s.alphas) == 3


def test_a_training(finished, monkeypatch):
    config, told, update = tiny(train__epochs=2), [], Line.update

    def looked(self, progress):
        update(self, progress)
        s = runs.stand(self.label)
        told.append((s.state, s.epoch, s.settings, s.alphas))

    monkeypatch.setattr(Line, "update", looked)
    record = runs.train(config, finished, device="cpu", quiet=True)
    assert {state for state, *_ in told} == {"running"} and {epoch for _, epoch, *_ in told} == {0, 1}
    assert all(settings is None and not alphas for *_, settings, alphas in told)
    assert "test accuracy" in runs.stand(record.name).sentence() and runs.stand(record).fixed == []
    assert not (runs.root() / record.name / following.ALPHA).exists()


def test_runs_are_found_by_how_their_names_begin(finished):
    assert runs.stand(finished.name[:8]).record == runs.stand(finished.name).record == finished
    assert runs.stand("search-0123456789ab").state == "not begun"
    for wrong in ("serch-01", ""):
        with pytest.raises(InputError, match="expected one"):
            runs.stand(wrong)


def test_a_full_disk_does_not_end_a_run_for_who_looks_on(runs_folder, monkeypatch):
    """The sign of life cannot be written; the run goes on."""
    write = following.files.write

    def full(path, content, durable=True):
        if path.name == following.PROGRESS:
            raise following.RunError("no space")
        write(path, content, durable)

    monkeypatch.setattr(following.files, "write", full)
    assert len(do_search().history) == 3
