"""A plan is done by workers that share it: in its order, each run once, whatever becomes of a worker."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from tiny_runs import plain, tiny

import sswp_lib
from sswp_lib.config import RunError
from sswp_lib.lab import cluster, estimate, reproduce, status, worker
from sswp_lib.lab import plan as plans
from sswp_lib.lab.plan import Plan, Request, Task
from sswp_lib.paper.studies import Job
from sswp_lib.presets import load_config
from sswp_lib.runs import carrying_out, following, holding, runs

ONE = Request("smoke", only=("06",))  # one search
PROJECT = Path(sswp_lib.__file__).parents[1]


@dataclass(frozen=True)
class Pretended(Task):
    """A task that is done by appending to a list."""

    did: list = field(default_factory=list)

    def record(self):
        return SimpleNamespace(provenance={"seconds": 10.0}) if self.did else None


def pretended(monkeypatch, needs: dict[str, tuple[str, ...]], later: dict[str, tuple[str, ...]] | None = None):
    """Make a plan of tasks that are done as soon as they are asked for; `later` come when all of `needs` are done."""
    tasks = {name: Pretended(name, "search", Job({}, tiny()), "01", of) for name, of in (needs | (later or {})).items()}
    monkeypatch.setattr(Pretended, "takes_weights", property(lambda self: False))

    def made(request, guess=False, done=()):
        opened = guess or all(tasks[name].did for name in needs)
        return Plan({name: task for name, task in tasks.items() if opened or name in needs})

    monkeypatch.setattr(plans, "made", made)
    monkeypatch.setattr(worker, "POLL", 0.02)
    return tasks


def doing(monkeypatch, do):
    monkeypatch.setattr(worker, "_do", lambda request, processes, task: do(task))


@pytest.mark.parametrize("path", reproduce.notebooks(), ids=lambda path: path.stem)
def test_the_plan_is_of_every_notebook_and_searches_come_first(path, runs_folder):
    request = Request("smoke", only=(path.stem[:2],))
    plan, every = plans.made(request), plans.made(request, guess=True)
    assert set(plan.tasks) <= set(every.tasks)
    order = [plans.ORDER.index(task.what) for task in plan.tasks.values()]
    assert order == sorted(order)
    names = list(plan.tasks)
    for task in plan.tasks.values():
        assert all(names.index(name) < names.index(task.name) for name in task.needs)
        assert plan.ready(task) == (not task.needs)
    jobs = estimate.plan(path, "smoke", None, None, guess=False)
    assert len(jobs) <= sum(len([*plans._expanded(job, "")]) for job in jobs) and jobs


@pytest.mark.parametrize("path", reproduce.notebooks(), ids=lambda path: path.stem)
def test_trainings_from_other_weights_are_other_tasks(path, runs_folder):
    """Notebook 08 pre-trains in two batches and then does the same with both."""
    tasks = [task for job in estimate.plan(path, "smoke", None, None, guess=True) for task in plans._expanded(job, "")]
    assert len({(task.name, task.needs) for task in tasks}) == len({task.name for task in tasks})


def test_what_hangs_on_a_choice_is_no_task_before_it_can_be_made(runs_folder):
    request = Request("smoke", only=("00",))
    known, every = plans.made(request).tasks, plans.made(request, guess=True).tasks
    assert {task.what for task in known.values()} == {"search", "training"}
    assert 0 < len(every) - len(known) < len(known)
    assert status.look(request).states[next(iter(every.keys() - known.keys()))] == "to be chosen"


def test_weights_are_needed_where_a_training_starts_from_them(runs_folder):
    search = load_config("smoke", study="few_labels")
    jobs = [Job({}, search.changed(**{"train.init": init}), search) for init in ("random", "concomitant", "simclr")]
    tasks = {task.name: task for job in jobs for task in plans._expanded(job, "01")}
    weights = {task.job.config.train.init: task.needs[-1] for task in tasks.values() if task.takes_weights}
    assert {init: tasks[name].what for init, name in weights.items()} == {
        "concomitant": "search",
        "simclr": "pre-training",
    }
    assert [task.what for task in tasks.values()] == ["search", "training", "training", "pre-training", "training"]


def test_a_restored_record_without_its_weights_is_not_done_for_who_needs_them(finished, runs_folder):
    task = Task(finished.name, "search", Job({}, None), "01")
    object.__setattr__(task, "record", lambda: finished)
    assert Plan({}, weights={finished.name}).is_done(task)
    (runs_folder / finished.name / "weights.safetensors").unlink()
    assert Plan({}).is_done(task) and not Plan({}, weights={finished.name}).is_done(task)


def test_what_a_search_found_is_not_done_where_the_search_is_done_again(finished, runs_folder, monkeypatch):
    """Done again, on another processor, it may find other cells: what was trained of those was another network."""
    search, start = tiny(), lambda init: tiny(**{"train.init": init})
    assert runs.asked(search).name == finished.name
    jobs = [Job({}, search), Job({}, start("random"), search)]
    monkeypatch.setattr(estimate, "plan", lambda *_: jobs)
    runs.train(start("random"), finished, device="cpu", quiet=True)
    plan = plans.made(ONE)
    assert len(plan.done) == 2
    jobs.append(Job({}, start("concomitant"), search))
    (runs_folder / finished.name / "weights.safetensors").unlink()
    again = plans.made(ONE, done=plan.done)
    assert not again.done and len(again.tasks) == 3
    runs.search(search, device="cpu", quiet=True, fresh=True)
    assert sum(map(again.is_done, again.tasks.values())) == 2, "this time it found the same"


def test_workers_share_a_plan_and_wait_for_what_comes(monkeypatch, runs_folder):
    """Two rounds: the second is known when the first is done. No task is done twice, none before what it needs."""
    first = {"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c")}
    tasks, ended = pretended(monkeypatch, first, {"e": ("d",), "f": ()}), []

    def do(task):
        assert all(tasks[name].did for name in task.needs)
        time.sleep(0.03)
        task.did.append(threading.get_ident())

    doing(monkeypatch, do)
    workers = [threading.Thread(target=lambda: ended.append(worker.work(ONE))) for _ in range(3)]
    for thread in workers:
        thread.start()
    for thread in workers:
        thread.join(timeout=60)
    assert {name: len(task.did) for name, task in tasks.items()} == dict.fromkeys("abcdef", 1)
    assert ended == ["done"] * 3 and not list((runs_folder / "cluster" / "claims").iterdir())


def test_what_fails_is_tried_twice_and_told(monkeypatch, runs_folder):
    tasks, tries = pretended(monkeypatch, {"a": (), "b": ("a",), "c": ()}), []

    def do(task):
        tries.append(task.name)
        if task.name == "a":
            raise RunError("loss became nan in epoch 3\nand more")
        task.did.append(1)

    doing(monkeypatch, do)
    assert worker.work(ONE) == "done"
    assert tries == ["a", "c", "a"] and not tasks["b"].did
    plan = plans.made(ONE)
    assert plans.failed(plan, tasks["a"]) == "loss became nan in epoch 3"
    assert plans.failed(plan, tasks["b"]) == "a, which it needs, failed" and plans.failed(plan, tasks["c"]) is None
    monkeypatch.setattr(cluster, "alive", lambda request: 0)
    found = status.look(ONE)
    assert found.states == {"a": "failed", "b": "failed", "c": "done"}
    assert "failed: a (01): loss became nan in epoch 3" in found.text() and "submit --again" in found.text()
    assert plans.forget_failures(plan) == 1 and plans.failed(plan, tasks["a"]) is None


def test_status_tells_when_all_will_be_done(monkeypatch, runs_folder):
    """As long as like runs took, shared by the tasks of the cluster; not known before one is done."""
    tasks = pretended(monkeypatch, {"a": (), "b": (), "c": ("a",), "d": ("e",), "e": ()})
    monkeypatch.setattr(cluster, "alive", lambda request: 2)
    assert "when all will be done is known when some are" in status.look(ONE).text()
    tasks["a"].did.append(1)
    found = status.look(ONE)
    assert found.states == {"a": "done", "b": "ready", "c": "ready", "d": "waiting", "e": "ready"}
    assert found.left == 4 * 10 / 2
    lines = found.text().splitlines()
    assert lines[0] == "smoke+only=06: 1 done, 3 ready, 1 waiting; all done in about 20 s"
    assert lines[1].split() == ["done", "ready", "waiting"] and lines[2].split() == ["01", "1", "3", "1"]
    for name in "bcd":
        tasks[name].did.append(1)
    assert status.look(ONE).left == 10.0
    monkeypatch.setattr(cluster, "alive", lambda request: 0)
    assert "nothing is at it; `sswp submit` goes on" in status.look(ONE).text()


def test_status_where_the_cluster_does_not_answer(monkeypatch, runs_folder, tmp_path):
    pretended(monkeypatch, {"a": ()})
    ONE.write()
    (ONE.folder / cluster.SUBMISSIONS).write_text(json.dumps({"cluster": "slurm", "jobs": ["7_0"]}) + "\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "nobody is at it, and whether tasks wait cannot be told here" in status.look(ONE).text()


def test_status_names_who_is_at_a_run(monkeypatch, runs_folder):
    """On this machine and on others; one who is dead is at none."""
    pretended(monkeypatch, {"a": (), "b": (), "c": ()})
    monkeypatch.setattr(cluster, "alive", lambda request: 0)
    monkeypatch.setattr(Pretended, "asked", lambda self: SimpleNamespace(folder=runs_folder / f"search-{self.name}"))
    elsewhere = holding.Holder("0" * 32, "node7", "node7/start/pid:[1]", 12)
    plans.claim_of("a").parent.mkdir(parents=True)
    plans.claim_of("a").write_text(json.dumps(asdict(elsewhere)))
    dead = replace(elsewhere, machine=holding.machine(), pid=2**22 + 1)
    plans.claim_of("b").write_text(json.dumps(asdict(dead)))
    with holding.claimed(plans.claim_of("c")):
        found = status.look(ONE)
    assert found.states == {"a": "running", "b": "ready", "c": "running"}
    assert "running: search-a has not begun (process 12 on node7)" in found.text()
    assert f"running: search-c has not begun (process {os.getpid()} on " in found.text()


def test_a_process_that_may_be_damaged_begins_again(monkeypatch, runs_folder):
    """After an error that is no run's own, such as one of the device, which all later runs would meet as well."""
    pretended(monkeypatch, {"a": (), "b": ()})

    def do(task):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    doing(monkeypatch, do)
    assert worker.work(ONE) == "leave" and len(plans.failures("a")) == 1 and plans.failures("b") == []


def test_a_task_whose_processes_vanish_is_given_up(monkeypatch, runs_folder):
    """A node that fails now and then does not fail a run; one that ends every process does."""
    pretended(monkeypatch, {"a": ()})
    dead = asdict(holding.Holder("d" * 32, "node7", holding.machine(), 2**22 + 1))
    doing(monkeypatch, lambda task: (_ for _ in ()).throw(holding.Busy))
    outcomes = []
    for _ in range(plans.VANISHED):
        path = plans.claim_of("a")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(dead))
        plan = plans.made(ONE)
        outcomes.append(worker.attempt(plan, plan.tasks["a"], lambda task: worker._do(ONE, 1, task)))
    assert outcomes == ["held elsewhere"] * (plans.VANISHED - 1) + ["failed"]
    assert plans.failures("a")[0]["reason"] == f"process {2**22 + 1} on node7 ended without a word"


def test_what_a_dead_host_holds_is_taken_over_before_a_worker_ends(monkeypatch, runs_folder):
    """One that lives elsewhere is left alone, and not waited for longer than it takes to tell; nor one here."""
    monkeypatch.setattr(holding, "SILENT", 0.3)
    monkeypatch.setattr(worker, "WATCHED", 1.0)
    elsewhere = asdict(holding.Holder("0" * 32, "node7", "node7/start/pid:[1]", 12, beat="0"))
    for beats in (False, True):
        tasks, ended = pretended(monkeypatch, {"a": ()}), threading.Event()
        doing(monkeypatch, lambda task: task.did.append(1))
        path = plans.claim_of("a")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(elsewhere))

        def beat(ended=ended, path=path):
            count = 0
            while not ended.wait(0.05):
                count += 1
                path.with_suffix(".new").write_text(json.dumps(elsewhere | {"beat": str(count)}))
                path.with_suffix(".new").replace(path)

        beating = threading.Thread(target=beat if beats else int)
        beating.start()
        started = time.monotonic()
        assert worker.work(ONE) == "done"
        ended.set()
        beating.join()
        assert len(tasks["a"].did) == (0 if beats else 1)
        assert not beats or time.monotonic() - started >= 1.0
    with holding.claimed(plans.claim_of("b")):
        pretended(monkeypatch, {"b": ()})
        monkeypatch.setattr(worker, "WATCHED", 1e9)
        assert worker.work(ONE) == "done"


def test_a_signal_is_heard_between_runs_and_within_them(monkeypatch, runs_folder):
    told = []
    with worker._told_by_signals(told):
        os.kill(os.getpid(), signal.SIGUSR1)
        assert carrying_out.leaving.wait(10) and told == [signal.SIGUSR1]
        pretended(monkeypatch, {"a": ()})
        assert worker.work(ONE) == "leave"
    assert not carrying_out.leaving.is_set()
    doing(monkeypatch, lambda task: (_ for _ in ()).throw(carrying_out.Left("a is left")))
    assert worker.work(ONE) == "leave" and plans.failures("a") == []


@pytest.mark.parametrize("state, goes_on", [("RUNNING", True), ("PREEMPTED", True), ("CANCELLED", False)])
def test_a_cancelled_task_does_not_come_back(monkeypatch, tmp_path, state, goes_on):
    (tmp_path / "scontrol").write_text(f"#!/bin/sh\necho JobId=7 JobState={state} Reason=None\n")
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert worker._goes_on([signal.SIGTERM]) is goes_on
    assert worker._goes_on([signal.SIGTERM, signal.SIGUSR1]) and worker._goes_on([])


def test_the_command_of_a_task_of_several_processes():
    words = worker.command(Path("r.json"), "search-1", 3)
    assert words[:2] == [sys.executable, "-m"] and words[-4:] == ["-m", "sswp_lib.lab.worker", "r.json", "search-1"]
    assert "--nproc-per-node 3" in " ".join(words) and "torch" not in " ".join(worker.command(Path("r"), "s", 1))


def several(monkeypatch, script: str):
    """Let the processes of a task be one that runs a script, started by another as torchrun does."""
    inner = f"import os, signal, sys, time; {script}"
    outer = f"import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', {inner!r}]))"
    monkeypatch.setattr(worker, "command", lambda *given: [sys.executable, "-c", outer])
    return Task("training-of-1", "training", Job({}, None), "01")


def test_of_several_processes_one_says_why_they_failed(monkeypatch, runs_folder):
    ONE.write()
    task = several(monkeypatch, "open(os.environ['SSWP_REASON'], 'w').write('loss became nan'); sys.exit(1)")
    with pytest.raises(RunError, match=r"^loss became nan$"):
        worker._do(ONE, 2, task)
    task = several(monkeypatch, "sys.exit(3)")
    with pytest.raises(RunError, match="its processes ended with status 3"):
        worker._do(ONE, 2, task)
    worker._do(ONE, 2, several(monkeypatch, "sys.exit(0)"))
    assert [path.name for path in ONE.folder.iterdir()] == ["request.json"]


def test_several_processes_are_told_to_leave(monkeypatch, runs_folder, tmp_path):
    ONE.write()
    told = f"open({str(tmp_path / 'told')!r}, 'w').close()"
    script = f"signal.signal(signal.SIGUSR1, lambda *_: sys.exit({worker.LEFT})); {told}; time.sleep(600)"
    task = several(monkeypatch, script)

    def tell():
        wait_until((tmp_path / "told").exists)
        carrying_out.leaving.set()

    teller = threading.Thread(target=tell)
    teller.start()
    try:
        with pytest.raises(carrying_out.Left):
            worker._do(ONE, 2, task)
    finally:
        teller.join()
        carrying_out.leaving.clear()


@pytest.mark.parametrize("words, said", [
    (["--extra", "mem"], "--extra 'mem' is no option of sbatch; expected NAME=VALUE"),
    (["--cluster", "cloud"], "cluster is 'cloud'; expected one of slurm, local"),
    (["--only", "77"], "no notebook begins with '77'"),
])  # fmt: skip
def test_wrong_submissions_are_refused(refused, words, said):
    assert said in refused("submit", "--preset", "smoke", *words)


def test_without_slurm_it_is_said_what_is_missing(refused, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "cannot submit to 'slurm'" in refused("submit", "--preset", "smoke", "--only", "06")


def test_status_of_nothing_is_refused(refused):
    assert "nothing such was submitted" in refused("status", "--preset", "smoke")


def test_status_is_kept_up_to_date_while_anybody_is_at_it(call, monkeypatch, runs_folder):
    ONE.write()
    looks = iter([("first", True), ("second", True), ("last", False)])
    monkeypatch.setattr(status, "shown", lambda wanted: next(looks))
    monkeypatch.setattr(status, "WATCH", 0.01)
    code, out, _ = call("status", "--watch", "--only", "06")
    assert code == 0 and [line for line in out.splitlines() if line.isalpha()] == ["first", "second", "last"]


def test_plans_by_processes_of_this_machine(runs_folder, smoke_runs, monkeypatch, capfd):
    """Told to leave in the middle, a task goes on from its checkpoint, and ends with the notebook's own record."""
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    text = cluster.submit(ONE, "local", 2, cluster.Resources(minutes=60))
    controller = psutil.Process(int(re.fullmatch(r"1 task\(s\) submitted for 1 runs that are known: (\d+)", text)[1]))
    try:
        (name,) = plans.made(ONE).tasks
        assert cluster.alive(ONE) == 1
        assert "nothing submitted" in cluster.submit(ONE, "local", 2, cluster.Resources())
        wait_until(lambda: any("python" in child.name() for child in controller.children()))
        controller.children()[0].send_signal(signal.SIGUSR1)  # too early to be heard
        wait_until(lambda: following.stand(runs_folder / name).state == "running")
        (task,) = controller.children()
        task.send_signal(signal.SIGUSR1)
        wait_until(lambda: runs.everything())
        wait_until(lambda: not cluster.alive(ONE))
    finally:
        for process in [*controller.children(recursive=True), controller] if controller.is_running() else []:
            process.kill()
    (record,) = runs.everything()
    assert record.provenance["resumed"] == 1
    assert status.look(ONE).text().startswith("smoke+only=06: 1 done; all is done\n")
    assert cluster.submit(ONE, "local", 2, cluster.Resources()) == "nothing to submit: 1 of 1 runs done"
    monkeypatch.setenv("SSWP_RUNS", str(smoke_runs))
    assert plain(runs.search(next(iter(plans.made(ONE).tasks.values())).job.config, "cpu", quiet=True)) == plain(record)


def wait_until(holds) -> None:
    end = time.monotonic() + 600
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)
