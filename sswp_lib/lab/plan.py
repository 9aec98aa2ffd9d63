"""What a reproduction computes, as tasks that any process may take: searches and one-shot trainings first, then
pre-trainings, then trainings and rankings of what those have found.

The plan grows: where a notebook chooses a learning rate by the trainings that are there, what follows is known only
when they are. Whoever looks again then finds it.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sswp_lib.config import digest
from sswp_lib.lab import estimate, reproduce
from sswp_lib.learn.data import folder_of
from sswp_lib.paper.output import Output
from sswp_lib.paper.pi_nas import Ranking
from sswp_lib.paper.studies import Job
from sswp_lib.presets import load_config
from sswp_lib.runs import files, one_shot, runs
from sswp_lib.runs.carrying_out import Asked
from sswp_lib.runs.records import Record, root

ORDER = ("search", "one-shot", "pre-training", "training", "ranking")
TRIES, VANISHED = 2, 3  # errors, and processes that ended without a word, after which a task is given up; ours


@dataclass(frozen=True)
class Request:
    """Which notebooks' runs are asked for: the options of `sswp reproduce`."""

    preset: str
    data: str | None = None
    only: tuple[str, ...] = ()
    seeds: int | None = None

    @classmethod
    def of(cls, preset: str, data: str | None, only: Iterable[str] | None, seeds: int | None) -> Request:
        """Return a request that was checked; a folder of images by its whole path, for tasks run elsewhere."""
        place = load_config(preset, data).data.root
        if data is not None and data.startswith("folder:"):
            data = f"folder:{folder_of(data, place)}"
        request = cls(preset, data, tuple(only or ()), seeds)
        request.notebooks()
        return request

    def notebooks(self) -> list[Path]:
        return reproduce.chosen(list(self.only) or None)

    @property
    def name(self) -> str:
        return Output.of(self.preset, self.data, self.seeds, [f"only={word}" for word in self.only]).name

    @property
    def folder(self) -> Path:
        """Where what was submitted is noted, and where its logs go."""
        return root() / "cluster" / self.name

    @property
    def file(self) -> Path:
        return self.folder / "request.json"

    def write(self) -> None:
        files.write_json(self.file, asdict(self))

    @classmethod
    def read(cls, path: Path) -> Request:
        plain = files.read_json(path)
        return cls(**plain | {"only": tuple(plain["only"])})


def requests() -> list[Request]:
    """Return what was submitted, by name."""
    return [Request.read(path) for path in sorted((root() / "cluster").glob("*/request.json"))]


@dataclass(frozen=True)
class Task:
    """A run of a plan. Its name is the same whether the weights that it starts from are there or not.

    Attributes:
        what: one of ORDER. notebook: the first that asks for it. needs: names of the tasks that must be done before;
            the last of them is the one whose weights it starts from, if it does from any.
    """

    name: str
    what: str
    job: Job | Ranking
    notebook: str
    needs: tuple[str, ...] = ()

    @property
    def takes_weights(self) -> bool:
        return bool(self.needs) and (self.what == "ranking" or self.job.config.train.init != "random")

    def asked(self) -> Asked | None:
        """Return the run that it is; None where that is not known yet."""
        if isinstance(self.job, Ranking):
            given = () if self.what == "one-shot" else (self.job.architectures, self.job.alike)
            return one_shot.asked(self.job.config, *given)
        if self.job.source is None:
            return runs.asked(self.job.config)
        found = runs.finished(self.job.search) if self.job.search else None
        return None if self.job.search and found is None else runs.asked(self.job.config, self.job.trained(found))

    def record(self) -> Record | None:
        asked = self.asked()
        return runs.records.finished(asked.folder) if asked else None

    def do(self, device: str, again: bool) -> None:
        """Do it; `again` where its record is there, but not its weights, which others need."""
        job = self.job
        if self.what == "one-shot":
            one_shot.train(job.config, device, quiet=True, fresh=again)
        elif isinstance(job, Ranking):
            one_shot.rank(job.config, job.architectures, job.alike, device, quiet=True)
        elif job.source is None:
            runs.search(job.config, device, quiet=True, fresh=again)
        else:
            source = job.trained(runs.finished(job.search) if job.search else None)
            runs.train(job.config, source, device=device, quiet=True, fresh=again)


def _expanded(job: Job | Ranking, notebook: str) -> Iterator[Task]:
    """Yield what a job needs, as tasks, and the job itself."""
    if isinstance(job, Ranking):
        trained = Task(one_shot.asked(job.config).name, "one-shot", job, notebook)
        yield trained
        plain = [repr(job.config), repr(job.architectures), repr(job.alike)]
        yield Task(f"ranking-of-{digest(plain)}", "ranking", job, notebook, (trained.name,))
        return
    if job.source is None:
        yield Task(runs.asked(job.config).name, "search", job, notebook)
        return
    needs = []
    if job.search:
        search = Job({}, job.search)
        needs.append(runs.asked(job.search).name)
        yield Task(needs[0], "search", search, notebook)
    if before := job.before:
        task = Task(_train_name(before), "pre-training", before, notebook, tuple(needs))
        yield task
        needs.append(task.name)
    yield Task(_train_name(job), "training", job, notebook, tuple(needs))


def _train_name(job: Job) -> str:
    return f"training-of-{digest(job.identity)}"


@dataclass
class Plan:
    """The tasks of a request as they are known now, in the order in which they are done.

    Attributes:
        done: names of those that are. weights: names of those whose weights others, which are not done, start from.
    """

    tasks: dict[str, Task]
    done: set[str] = field(default_factory=set)
    weights: set[str] = field(default_factory=set)

    def is_done(self, task: Task) -> bool:
        """Look whether a task is done by now: its record is there and, if others need them, its weights; and all that
        it needs is done, for a search that is done again may find something else.
        """
        if task.name not in self.done and self.ready(task):
            record = task.record()
            if record is not None and (task.name not in self.weights or runs.has_weights(record)):
                self.done.add(task.name)
        return task.name in self.done

    def ready(self, task: Task) -> bool:
        """Look whether all is done that a task needs."""
        return all(self.is_done(self.tasks[name]) for name in task.needs)


def made(request: Request, guess: bool = False, done: Iterable[str] = ()) -> Plan:
    """Return the plan as it is known now.

    Args:
        guess: whether tasks that hang on a choice which is open stand in it as some of their kind, to be counted.
        done: names of those that were found done, which are not looked up again.
    """
    tasks: dict[str, Task] = {}
    for path in request.notebooks():
        for job in estimate.plan(path, request.preset, request.data, request.seeds, guess):
            for task in _expanded(job, path.stem):
                tasks.setdefault(task.name, task)
    plan = Plan(dict(sorted(tasks.items(), key=lambda item: ORDER.index(item[1].what))), set(done))
    for task in reversed(plan.tasks.values()):  # what others need stands before them
        if not plan.is_done(task) and task.takes_weights:
            plan.weights.add(task.needs[-1])
    plan.done -= plan.weights  # their weights must be there, too
    for task in plan.tasks.values():
        if not plan.ready(task):
            plan.done.discard(task.name)
    return plan


def claim_of(name: str) -> Path:
    """Return the file that says who is at a task (see `runs.holding`)."""
    return root() / "cluster" / "claims" / f"{name}.held"


def _failures_file(name: str) -> Path:
    return root() / "cluster" / "failed" / f"{name}.json"


def failures(name: str) -> list[dict[str, Any]]:
    """Return a task's failures: "reason", whether its process "vanished", "host", "at" and "log"."""
    path = _failures_file(name)
    return files.read_json(path) if path.is_file() else []


def note_failure(name: str, reason: str, vanished: bool = False) -> None:
    """Note a failure; for who holds the task's claim."""
    entry = {"reason": reason, "vanished": vanished, "host": platform.node(), "at": time.time()}
    files.write_json(_failures_file(name), [*failures(name), entry])


def forget_failures(plan: Plan) -> int:
    """Let what was given up be tried again; return how many tasks that are."""
    paths = [path for name in plan.tasks if (path := _failures_file(name)).is_file()]
    for path in paths:
        path.unlink(missing_ok=True)
    return len(paths)


def given_up(name: str) -> bool:
    noted = [entry["vanished"] for entry in failures(name)]
    return noted.count(False) >= TRIES or noted.count(True) >= VANISHED


def failed(plan: Plan, task: Task) -> str | None:
    """Return why a task is given up, or one that it needs; None where it is not."""
    for name in (task.name, *task.needs):
        if name not in plan.done and given_up(name):
            reason = failures(name)[-1]["reason"]
            return reason if name == task.name else f"{name}, which it needs, failed"
    return None


def counts(request: Request) -> str:
    """Say how much of a plan is done, as it is known now."""
    plan = made(request, guess=True)
    done = sum(map(plan.is_done, plan.tasks.values()))
    lost = sum(failed(plan, task) is not None for task in plan.tasks.values() if task.name not in plan.done)
    return f"{done} of {len(plan.tasks)} runs done" + (f", {lost} failed" if lost else "")
