"""A task of a cluster's array: a worker, which takes from the plan (see `lab.plan`) whatever is not done, not held by
another and has what it needs, until nothing is left.

So a task that is cancelled, preempted or lost, and one that is submitted twice, cost nothing but their own time: what
they held others take, and what is there nobody does again. A signal before the end of a task's time, or SIGTERM, lets
the run at hand write a checkpoint; then the task goes back into the queue. After SIGTERM it does so only if the
controller does not say that it was cancelled.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from sswp_lib import processes as group
from sswp_lib.config import InputError, RunError
from sswp_lib.lab import plan as plans
from sswp_lib.lab.plan import Request, Task
from sswp_lib.runs import carrying_out, files, holding, runs
from sswp_lib.runs.progress import duration

POLL = 5.0  # seconds from one look at the plan to the next, of a worker that finds nothing to do; ours
WATCHED = holding.SILENT + holding.COUNTED  # seconds by which a dead holder elsewhere has been taken over
AGAIN = (5, 10, 20, 40)  # seconds from one try to be queued again to the next; ours
SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)
LEFT = 75  # exit status of a process that has left its run with a checkpoint
REASON = "SSWP_REASON"  # names the file in which a process of several says why its run failed


def submitit() -> Any:
    """Return submitit, told which signal comes before the end of a task's time: it reads that when it is imported."""
    os.environ.setdefault("SUBMITIT_PREEMPT_SIGNAL", "USR1")
    import submitit as found

    return found


def preemption() -> signal.Signals:
    return submitit().JobEnvironment._usr_sig()


def command(request: Path, task: str, processes: int) -> list[str]:
    """Return the words that carry out one task of a plan by several processes."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [sys.executable, *(torchrun if processes > 1 else []), "-m", "sswp_lib.lab.worker", str(request), task]


class Worker:
    """A task of the array, as submitit calls and requeues it."""

    def __init__(self, request: Request, processes: int):
        self.request, self.processes = request, processes

    def __call__(self) -> str:
        requeue, told = signal.getsignal(preemption()), []
        with _told_by_signals(told):
            ended = work(self.request, self.processes)
        for pause in AGAIN if ended == "leave" and _goes_on(told) else ():
            with contextlib.suppress(subprocess.CalledProcessError):  # without its controller for a while
                requeue(preemption(), None)  # which ends this process
            time.sleep(pause)
        print(f"{ended}: {plans.counts(self.request)}", flush=True)
        return ended

    def checkpoint(self) -> Any:
        """Return what the requeued task does: the same, for what was done stands in the folder of runs."""
        return submitit().helpers.DelayedSubmission(self)


@contextlib.contextmanager
def _told_by_signals(told: list[int]) -> Iterator[None]:
    """Let signals ask the run at hand to be left."""

    def leave(number: int, frame: Any) -> None:
        told.append(number)
        carrying_out.leaving.set()

    before = {number: signal.signal(number, leave) for number in SIGNALS}
    try:
        yield
    finally:
        carrying_out.leaving.clear()
        for number, handler in before.items():
            signal.signal(number, handler)


def _goes_on(told: list[int]) -> bool:
    """Tell whether a task that was told to leave by these signals is to go on later: not one that its controller knows
    as cancelled, nor one that it queues again itself.
    """
    own = os.environ.get("SLURM_JOB_ID")
    if set(told) != {signal.SIGTERM} or own is None:
        return True
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        shown = subprocess.run(["scontrol", "show", "job", "-o", own], capture_output=True, text=True, timeout=30)
        state = shown.stdout.partition("JobState=")[2].partition(" ")[0]
        return state in ("RUNNING", "PREEMPTED", "SUSPENDED")
    return False


def work(request: Request, processes: int = 1) -> str:
    """Do what is to be done in a plan; return "done" where nothing is left, "leave" where a signal, or a process that
    may be damaged, asks to begin again.
    """
    do, done, idle = partial(_do, request, processes), set(), None
    while True:
        plan = plans.made(request, done=done)
        left = [task for task in plan.tasks.values() if not plan.is_done(task)]
        outcomes = []
        for task in left:
            if carrying_out.leaving.is_set():
                return "leave"
            outcomes.append(attempt(plan, task, do))
            if outcomes[-1] in ("left", "damaged"):
                return "leave"
        done = plan.done
        if "tried" in outcomes or "done" in outcomes:
            idle = None
            continue
        idle = idle or time.monotonic()
        if not _worth_waiting(request, plan, outcomes, time.monotonic() - idle):
            return "done"
        if carrying_out.leaving.wait(POLL):
            return "leave"


def _worth_waiting(request: Request, plan: plans.Plan, outcomes: list[str], seconds: float) -> bool:
    """Tell whether there may be something to do later, for who has found nothing for so long: what others hold they
    finish, but something may come of it, and of those on other hosts it must be seen that they live.
    """
    held = [outcome for outcome in outcomes if outcome.startswith("held")]
    if not held or "waiting" in outcomes:
        return bool(held)
    if "held elsewhere" in outcomes and seconds < WATCHED:
        return True
    return len(plans.made(request, guess=True, done=plan.done).tasks) > len(plan.tasks)


def attempt(plan: plans.Plan, task: Task, do: Callable[[Task], None]) -> str:
    """Do a task if it can be done; return "done", "failed", "waiting" (for what it needs), "held" (by a process of this
    machine that lives), "held elsewhere" (maybe), "left" (with a checkpoint), "damaged" (this process may be) or
    "tried".
    """
    if plan.is_done(task):
        return "done"
    if plans.failed(plan, task):
        return "failed"
    if not plan.ready(task):
        return "waiting"
    with holding.claimed(plans.claim_of(task.name)) as claim:
        if isinstance(claim, holding.Holder):
            return "held" if claim.alive() else "held elsewhere"
        if claim.after is not None:
            plans.note_failure(task.name, f"{claim.after} ended without a word", vanished=True)
            if plans.given_up(task.name):
                return "failed"
        return "done" if plan.is_done(task) else _tried(task, do)


def _tried(task: Task, do: Callable[[Task], None]) -> str:
    started = time.monotonic()
    try:
        do(task)
    except (holding.Busy, holding.Lost):
        return "held elsewhere"
    except carrying_out.Left:
        return "left"
    except Exception as error:
        plans.note_failure(task.name, _reason(error))
        traceback.print_exc()  # into the task's log
        return "tried" if isinstance(error, InputError | RunError) else "damaged"
    print(f"{task.name}: done in {duration(time.monotonic() - started)}", flush=True)
    return "tried"


def _reason(error: Exception) -> str:
    said = files.reason(error)
    return said if isinstance(error, InputError | RunError) else f"{type(error).__name__}: {said}"


def _do(request: Request, processes: int, task: Task) -> None:
    print(f"{task.name} ({task.what}, {task.notebook}): {json.dumps(getattr(task.job, 'labels', {}))}", flush=True)
    if processes > 1:
        _do_by_several(request, processes, task)
    else:
        with holding.without_waiting():
            task.do(runs.default_device(), again=task.record() is not None)


def _do_by_several(request: Request, processes: int, task: Task) -> None:
    """Do a task by several processes; a signal goes on to each of them, but not to torchrun, which it would end."""
    reason = request.folder / f"{task.name}.{os.getpid()}.reason"
    words, told = command(request.file, task.name, processes), False
    process = subprocess.Popen(words, env=os.environ | {REASON: str(reason)}, start_new_session=True)
    try:
        while process.poll() is None:
            if carrying_out.leaving.wait(0.5) and not told:
                told = True
                for child in psutil.Process(process.pid).children(recursive=True):
                    with contextlib.suppress(psutil.Error):
                        child.send_signal(signal.SIGUSR1)
            elif told:
                time.sleep(0.5)
        if process.returncode != 0:
            if told:
                raise carrying_out.Left(f"{task.name} is left, with a checkpoint")
            said = reason.read_text() if reason.is_file() else f"its processes ended with status {process.returncode}"
            raise RunError(said)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        reason.unlink(missing_ok=True)


def one(request: Path, name: str) -> int:
    """Do one task, as one of several processes; return the exit status."""
    with _told_by_signals([]):
        try:
            with group.together() as device:
                task = group.agreed(lambda: plans.made(Request.read(request)).tasks[name])
                task.do(device or runs.default_device(), again=task.record() is not None)
        except carrying_out.Left:
            return LEFT
        except Exception as error:
            if REASON in os.environ and group.says(error):
                Path(os.environ[REASON]).write_text(_reason(error))
            raise
    return 0


if __name__ == "__main__":
    sys.exit(one(Path(sys.argv[1]), sys.argv[2]))
