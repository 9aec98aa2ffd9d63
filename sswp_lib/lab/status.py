"""How far the submitted plans are, from the folder of runs alone: what waits, runs, is done or failed, and when all
will be done. Waits for nobody.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import fmean

from sswp_lib.config import InputError, RunError
from sswp_lib.lab import cluster, estimate
from sswp_lib.lab import plan as plans
from sswp_lib.lab.plan import Plan, Request, Task
from sswp_lib.paper.studies import Job
from sswp_lib.runs import following, holding
from sswp_lib.runs.progress import about

STATES = ("done", "running", "ready", "waiting", "to be chosen", "failed")
WATCH = 10.0  # seconds from one look to the next; ours
NAMED = 20  # runs of a state that are named; ours


@dataclass
class Status:
    """A plan as it was looked at.

    Attributes:
        states: {task: one of STATES}. plan: with the runs of which only the number is known, until others have been
            chosen by ("to be chosen"). said: {task: what there is to say of it}. left: seconds, None where unknown.
        workers: tasks of the cluster that wait or run; None where that cannot be told from here.
    """

    request: Request
    plan: Plan
    states: dict[str, str]
    said: dict[str, str] = field(default_factory=dict)
    left: float | None = None
    workers: int | None = 0

    def table(self) -> str:
        """Return one line a notebook: how many of its runs are in each state."""
        rows: dict[str, Counter] = defaultdict(Counter)
        for name, task in self.plan.tasks.items():
            rows[task.notebook][self.states[name]] += 1
        shown = [state for state in STATES if any(counts[state] for counts in rows.values())]
        width = max(map(len, rows))
        lines = ["  ".join([" " * width, *shown])]
        for notebook, counts in sorted(rows.items()):
            cells = [f"{counts[state] or '':>{len(state)}}" for state in shown]
            lines.append("  ".join([f"{notebook:{width}}", *cells]).rstrip())
        return "\n".join(lines)

    def text(self) -> str:
        """Return all of it in words."""
        counts = Counter(self.states.values())
        said = [f"{counts[state]} {state}" for state in STATES if counts[state]]
        lines = [f"{self.request.name}: {', '.join(said)}; {self._end(counts)}", self.table()]
        for state in ("running", "failed"):
            names = [name for name, found in self.states.items() if found == state]
            lines += [f"{state}: {self.said[name]}" for name in names[:NAMED]]
            lines += [f"{state}: and {len(names) - NAMED} more"] if len(names) > NAMED else []
        return "\n".join(lines)

    def _end(self, counts: Counter) -> str:
        if not set(counts) - {"done", "failed"}:
            return "all is done" if not counts["failed"] else "`sswp submit --again` tries what failed again"
        if not self.workers and not counts["running"]:
            unknown = "nobody is at it, and whether tasks wait cannot be told here"
            return unknown if self.workers is None else "nothing is at it; `sswp submit` goes on"
        if self.left is None:
            return "when all will be done is known when some are"
        return f"all done in about {about(self.left)}"


def look(request: Request) -> Status:
    """Return where a plan stands now."""
    plan = plans.made(request, guess=True)
    known = plans.made(request, done=plan.done).tasks
    states = {name: _state(plan, task, name in known) for name, task in plan.tasks.items()}
    status = Status(request, plan, states)
    try:
        status.workers = cluster.alive(request)
    except RunError:  # on a host without the cluster's commands, or while it does not answer
        status.workers = None
    for name, state in states.items():
        if state == "running":
            status.said[name] = _running(plan.tasks[name])
        elif state == "failed":
            status.said[name] = f"{name} ({plan.tasks[name].notebook}): {plans.failed(plan, plan.tasks[name])}"
    status.left = _left(status)
    return status


def _state(plan: Plan, task: Task, known: bool) -> str:
    if plan.is_done(task):
        return "done"
    if not known:
        return "to be chosen"
    holder = holding.holder(plans.claim_of(task.name))
    if holder is not None and not holding.gone(plans.claim_of(task.name), holder):
        return "running"
    if plans.failed(plan, task):
        return "failed"
    return "ready" if plan.ready(task) else "waiting"


def _running(task: Task) -> str:
    """Say who is at a task, and where its run is."""
    holder, asked = holding.holder(plans.claim_of(task.name)), task.asked()
    standing = following.stand(asked.folder).sentence() if asked else f"{task.name} prepares what it needs"
    return f"{standing} ({holder})" if holder else standing


def _left(status: Status) -> float | None:
    """Return the seconds until all is done, from what like tasks took, shared by those that are at it; at the least
    those of the longest. None where no like task is done, or none at all for one that is to be chosen.
    """
    plan, took = status.plan, defaultdict(list)
    for name, state in status.states.items():
        if state == "done":
            task = plan.tasks[name]
            seconds = task.record().provenance["seconds"]
            took[_like(task)].append(seconds)
            took[task.what].append(seconds)
    waiting = [plan.tasks[name] for name, state in status.states.items() if state not in ("done", "failed")]
    each = [took.get(_like(task)) or took.get(task.what) for task in waiting]
    if not all(each):
        return None
    seconds = [fmean(found) for found in each if found]
    running = sum(state == "running" for state in status.states.values())
    return max(sum(seconds) / max(status.workers or 0, running, 1), max(seconds, default=0.0))


def _like(task: Task) -> str:
    """Return what tasks share that take about as long: all that matters to a step, and how many there are."""
    if isinstance(task.job, Job):
        source = "found" if task.job.search else task.job.source
        return repr((task.what, estimate.plain(task.job), estimate.steps_of(task.job), source))
    return repr((task.what, task.job.config.one_shot, len(task.job.architectures)))


def shown(wanted: Iterable[Request]) -> tuple[str, bool]:
    """Return the text of several plans, and whether anything is still to come that somebody is at."""
    found = [look(request) for request in wanted]
    going = any(s.workers or "running" in s.states.values() for s in found)
    return "\n\n".join(status.text() for status in found), going


def watch(wanted: list[Request], say) -> None:
    """Say how plans stand, again and again while somebody is at them."""
    going = True
    while going:
        text, going = shown(wanted)
        say(f"{time.strftime('%H:%M:%S')}\n{text}\n")
        if going:
            time.sleep(WATCH)


def chosen(preset: str | None, only: list[str] | None) -> list[Request]:
    """Return what was submitted of that preset and those notebooks; of any where none is named.

    Raises:
        InputError: nothing such was submitted.
    """
    found = [r for r in plans.requests() if preset in (None, r.preset) and (not only or tuple(only) == r.only)]
    if not found:
        raise InputError("nothing such was submitted to this folder of runs; expected one of `sswp submit` before")
    return found
