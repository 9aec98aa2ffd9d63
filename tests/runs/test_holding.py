"""Who holds a run keeps it as long as he lives, and loses it when he does not; one of many takes it over."""

import json
import os
import signal
import subprocess
import threading
import time
from dataclasses import asdict, replace

import psutil
import pytest
import tiny_runs
from tiny_runs import do_search, name_of, plain, tiny

from sswp_lib.learn.search import Search
from sswp_lib.runs import carrying_out, files, following, holding, runs
from sswp_lib.runs.holding import Hold, Holder, Lost, take

ELSEWHERE = Holder("0" * 32, "node7", "node7/another start/pid:[1]", 123, 1.0, 1.0, "0000000001")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "search-1.held"


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves, of this process as it watches others."""

    class Clock:
        now = 1000.0

        def monotonic(self):
            return self.now

        def __getattr__(self, name):
            return getattr(time, name)

    monkeypatch.setattr(holding, "time", Clock())
    return holding.time


def write(path, holder: Holder, **changes) -> None:
    path.write_text(json.dumps(asdict(replace(holder, **changes))))


def gone_process(context) -> Holder:
    """Return a holder of this machine whose process is no more."""
    process = context.Process(target=int)
    process.start()
    born = psutil.Process(process.pid).create_time()
    process.join()
    return Holder("d" * 32, "here", holding.machine(), process.pid, born)


def others(path) -> list[str]:
    return sorted(p.name for p in path.parent.iterdir() if p != path)


def test_eight_processes_ask_for_the_same_runs_and_each_is_computed_once(context, runs_folder):
    configs, told = [tiny(seed=0), tiny(seed=1)], context.Queue()
    each = [configs, configs[::-1]] * 4
    processes = [context.Process(target=tiny_runs.ask_for_all, args=(runs_folder, c, told)) for c in each]
    for process in processes:
        process.start()
    answers = [told.get(timeout=300) for _ in processes]
    for process in processes:
        process.join(timeout=60)
    assert sorted(item for steps, _ in answers for item in steps.items()) == [(0, 9), (1, 9)]
    assert all(records == answers[0][1] for _, records in answers)
    assert not list(runs_folder.glob("*.held*"))


def test_a_stopped_holder_keeps_its_run_and_a_killed_one_loses_it(context, runs_folder, monkeypatch):
    """Stopped it says nothing, but its process lives."""
    monkeypatch.setattr(holding, "SILENT", 0.0)
    config, steps = tiny(search__epochs=500), context.Semaphore(0)
    process = context.Process(target=tiny_runs.search_in, args=(runs_folder, config, steps))
    process.start()
    try:
        assert all(steps.acquire(timeout=120) for _ in range(3))
        file = holding.file_of(runs_folder / name_of(config))
        os.kill(process.pid, signal.SIGSTOP)
        for _ in range(20):
            found = take(file)
            assert isinstance(found, Holder) and found.pid == process.pid
        with pytest.raises(holding.Busy), holding.without_waiting():
            runs.search(config, device="cpu", quiet=True)
    finally:
        process.kill()
    process.join()
    hold = take(file)
    assert isinstance(hold, Hold) and hold.after.pid == process.pid
    hold.release()


def test_a_killed_process_does_not_live_because_nobody_has_reaped_it():
    process = subprocess.Popen(["sleep", "600"])
    born = psutil.Process(process.pid).create_time()
    assert holding.lives(process.pid, born) and not holding.lives(process.pid, born - 100)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE
    assert not holding.lives(process.pid, born)
    process.wait()
    assert not holding.lives(process.pid, born)


def test_of_a_holder_elsewhere_the_heartbeat_tells(path, clock):
    """As seen by this process over time; the other host's clock does not matter."""
    write(path, ELSEWHERE)
    for beat in range(2, 100):
        assert take(path).host == "node7"
        clock.now += 0.9 * holding.COUNTED
        write(path, ELSEWHERE, beat=f"{beat:010d}", since=1e12)
    silent = 0.0
    while isinstance(take(path), Holder):
        clock.now += 1.0
        silent += 1.0
        assert silent <= holding.SILENT + 1, "not taken over within a minute"
    assert silent >= holding.SILENT < 60 and holding.holder(path).pid == os.getpid()


def test_who_was_stopped_himself_accuses_nobody(path, clock):
    write(path, ELSEWHERE)
    assert isinstance(take(path), Holder)
    clock.now += 1e6
    assert isinstance(take(path), Holder)
    write(path, ELSEWHERE, beat="0000000002")
    clock.now += 1e6
    assert isinstance(take(path), Holder)


def test_processes_of_another_container_are_not_believed_to_be_those_here(path, clock):
    """Same host name, same number, another namespace: the number is nobody's here, or somebody else's."""
    elsewhere = holding.machine().rpartition("/")[0] + "/pid:[2]"
    write(path, ELSEWHERE, machine=elsewhere, pid=2**22 + 1)
    assert isinstance(take(path), Holder)
    write(path, ELSEWHERE, machine=holding.machine(), pid=2**22 + 1)
    assert isinstance(take(path), Hold)


def test_of_another_process_of_the_same_number(path):
    write(path, ELSEWHERE, machine=holding.machine(), pid=os.getpid(), born=psutil.Process().create_time() - 100)
    assert isinstance(take(path), Hold)


def test_a_file_without_a_name_is_nobody_s_only_after_a_while(path, clock):
    """One who is about to write it, or who died between."""
    path.touch()
    for _ in range(3):
        assert str(take(path)) == "an unknown host"
        clock.now += holding.COUNTED
    assert isinstance(take(path), Hold) and others(path) == []


@pytest.mark.parametrize("left", [False, True], ids=["whole", "by one who was killed as well"])
def test_one_of_many_takes_over(path, context, left):
    """Also where whoever began to take over before has died with the right to."""
    dead, count = gone_process(context), 12
    for _ in range(20):
        write(path, dead)
        if left:
            write(path.with_name(f"{path.name}.{dead.token}"), dead, token="e" * 32)
        start, found = threading.Barrier(count), []

        def contend(start=start, found=found):
            start.wait()
            found.append(take(path))

        threads = [threading.Thread(target=contend) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        holds = [hold for hold in found if isinstance(hold, Hold)]
        # where all have met who was about to, nobody may have it yet; the next look tells
        holds = holds or [take(path)]
        assert len(holds) == 1 and holding.holder(path).token == holds[0].holder.token
        holds[0].release()
        assert not path.exists() and others(path) == []


def test_a_late_riser_notices_and_leaves_its_successor_alone(path, monkeypatch):
    hold = take(path)
    hold.confirm()
    with monkeypatch.context() as patch:  # what another host sees
        patch.setattr(holding, "machine", lambda: "node8/start/pid:[3]")
        patch.setattr(holding, "SILENT", 0.0)
        assert isinstance(take(path), Holder)  # at the first look
        other = take(path)
    assert isinstance(other, Hold) and other.after.pid == os.getpid()
    with pytest.raises(Lost, match=r"search-1 is held by process \d+ on .* by now") as caught:
        hold.confirm()
    assert "\n" not in str(caught.value)
    before = path.read_bytes()
    hold.beat()
    hold.release()
    assert path.read_bytes() == before and others(path) == []
    other.release()
    assert not path.exists()


def test_a_run_that_was_taken_over_writes_nothing_more(runs_folder, monkeypatch):
    """It ends in one line; its successor finds the checkpoint, and its place stays as that one says."""
    monkeypatch.setattr(carrying_out, "CHECKPOINT_SECONDS", -1.0)
    monkeypatch.setattr(holding, "LOOK", 0.0)
    file, train_step, seen = holding.file_of(runs_folder / name_of(tiny())), Search.train_step, {}

    def step(self):
        train_step(self)
        if self.epoch == 1 and not seen:
            write(file, ELSEWHERE)
            (file.with_suffix("") / following.PROGRESS).write_text("{}")
            seen.update({p: p.read_bytes() for p in file.with_suffix("").rglob("*") if p.is_file()})

    with monkeypatch.context() as patch:
        patch.setattr(Search, "train_step", step)
        with pytest.raises(Lost, match="process 123 on node7"):
            do_search()
    assert {p: p.read_bytes() for p in file.with_suffix("").rglob("*") if p.is_file()} == seen
    assert files.checkpoints(file.with_suffix("") / "checkpoints") and holding.holder(file) == ELSEWHERE
    file.unlink()
    assert do_search().provenance["resumed"] == 1


@pytest.mark.parametrize("end", ["judging", "measuring"])
def test_no_record_is_written_over_a_successor_s(runs_folder, monkeypatch, end):
    """Taken over after the last step, or in a measurement."""

    def overtaken(found):
        (file,) = runs_folder.glob("*.held")
        write(file, ELSEWHERE)
        return found

    finish, step_memory = Search.finish, runs.step_memory
    monkeypatch.setattr(Search, "finish", lambda self: overtaken(finish(self)))
    monkeypatch.setattr(runs, "step_memory", lambda *given: overtaken(step_memory(*given)))
    with pytest.raises(Lost):
        do_search() if end == "judging" else runs.memory(tiny(), device="cpu", quiet=True)
    assert runs.everything() == []


def test_the_heart_beats_however_long_a_step_takes(path, monkeypatch):
    monkeypatch.setattr(holding, "BEAT", 0.02)
    monkeypatch.setattr(holding, "_heart", holding._Heart())
    with holding.claimed(path) as hold:
        beats = set()
        until = time.monotonic() + 60
        while len(beats) < 4 and time.monotonic() < until:
            beats.add(holding.holder(path).beat)
        assert len(beats) == 4 and holding.holder(path).token == hold.holder.token
    assert not path.exists() and holding._heart.holds == set()


def test_on_a_full_disk_one_lets_go_all_the_same(path, monkeypatch):
    hold, opened = take(path), os.open

    def full(name, flags, *more):
        if flags & os.O_CREAT:
            raise OSError(28, "No space left on device")
        return opened(name, flags, *more)

    monkeypatch.setattr(os, "open", full)
    hold.release()
    assert not path.exists()


def test_readers_never_wait(finished, runs_folder):
    """Another is at the run again, and has fallen silent; whoever reads is served at once."""
    write(holding.file_of(runs_folder / finished.name), ELSEWHERE)
    assert plain(do_search()) == plain(finished) and runs.everything() == [finished]
    assert runs.stand(finished).state == "done"


def test_a_run_is_left_with_a_checkpoint_when_it_is_asked_to(runs_folder, monkeypatch):
    """And ends as one that was not: after the last step too."""
    whole = plain(do_search(seed=3))
    (runs_folder / name_of(tiny(seed=3))).rename(runs_folder / "elsewhere")
    train_step, lefts = Search.train_step, 0
    try:
        for place in (4, 9):

            def step(self, place=place):
                train_step(self)
                if 3 * self.epoch + self.step + 1 == place:
                    carrying_out.leaving.set()

            monkeypatch.setattr(Search, "train_step", step)
            with pytest.raises(carrying_out.Left, match=r"is left at epoch . of 3, with a checkpoint"):
                do_search(seed=3)
            carrying_out.leaving.clear()
            lefts += 1
    finally:
        carrying_out.leaving.clear()
    monkeypatch.setattr(Search, "train_step", train_step)
    record = do_search(seed=3)
    assert plain(record) == whole and record.provenance["resumed"] == lefts
