"""The plan of a reproduction carried out on a cluster, by submitit: SLURM, or processes of this machine.

What is submitted is an array of at most so many tasks at once; what each does is told in `lab.worker`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import psutil

from sswp_lib.config import InputError, RunError
from sswp_lib.lab import plan as plans
from sswp_lib.lab.plan import Request
from sswp_lib.lab.worker import Worker, preemption, submitit
from sswp_lib.runs import files, following, holding

WARNED = 120  # seconds before the end of its time at which a task is told to leave its run; ours
REQUEUES = 10_000  # submitit ends a task after so many; a run that goes on from its checkpoint has no such end
SUBMISSIONS = "submissions.jsonl"
CLUSTERS = ("slurm", "local")


@dataclass(frozen=True)
class Resources:
    """What a task asks for. Its processes share the `cpus` as threads; bits on the CPU are the same only with the same
    number of them.
    """

    minutes: int = 240
    gpus: int = 0
    cpus: int = 1
    processes: int = 1
    partition: str | None = None
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def threads(self) -> int:
        return max(1, self.cpus // self.processes)


def options(texts: Iterable[str]) -> dict[str, str]:
    """Return what is given for sbatch, as "name=value".

    Raises:
        InputError: a text that is none such.
    """
    wrong = next((text for text in texts if not re.fullmatch(r"[a-z][a-z-]*=.+", text)), None)
    if wrong is not None:
        raise InputError(f"--extra {wrong!r} is no option of sbatch; expected NAME=VALUE, e.g. mem=16G")
    return dict(text.split("=", 1) for text in texts)


def submit(request: Request, cluster: str, limit: int, resources: Resources, again: bool = False) -> str:
    """Submit a plan's tasks, so many that at most `limit` are at it at once, and say how many; none where all is there.

    Args:
        again: try what failed again.

    Raises:
        InputError: no such cluster, or none here.
    """
    if cluster not in CLUSTERS:
        raise InputError(f"cluster is {cluster!r}; expected one of {', '.join(CLUSTERS)}")
    request.write()
    plan = plans.made(request)
    tried_again = plans.forget_failures(plan) if again else 0
    left = [task for task in plan.tasks.values() if not plan.is_done(task) and plans.failed(plan, task) is None]
    if not left:
        return f"nothing to submit: {plans.counts(request)}"
    there = alive(request)
    count = min(limit, len(left)) - there
    if count <= 0:
        return f"nothing submitted, for {there} task(s) of this plan wait or run already; {plans.counts(request)}"
    names = _launched(request, cluster, count, limit, resources)
    said = f", {tried_again} that failed among them" if tried_again else ""
    return f"{count} task(s) submitted for {len(left)} runs that are known{said}: {', '.join(names)}"


def _launched(request: Request, cluster: str, count: int, limit: int, resources: Resources) -> list[str]:
    """Start so many workers, and note them; return the names that the cluster gives them."""
    variables = {
        "OMP_NUM_THREADS": str(resources.threads), "SSWP_RUNS": str(plans.root().resolve()),
        "SUBMITIT_PREEMPT_SIGNAL": preemption().name.removeprefix("SIG"),
    }  # fmt: skip
    executor = _executor(request, cluster, limit, resources, variables)
    with submitit().helpers.environment_variables(**variables), _detached():
        with executor.batch():
            jobs = [executor.submit(Worker(request, resources.processes)) for _ in range(count)]
    names = [job.job_id for job in jobs]
    born = {name: psutil.Process(int(name)).create_time() for name in names} if cluster == "local" else {}
    row = {"cluster": cluster, "jobs": names, "born": born, "machine": holding.machine(), "at": time.time()}
    files.append(request.folder / SUBMISSIONS, json.dumps(row))
    return names


def _executor(request: Request, cluster: str, limit: int, resources: Resources, variables: dict[str, str]) -> Any:
    lead = min(WARNED, 15 * resources.minutes)  # seconds
    given: dict[str, Any] = {
        "timeout_min": resources.minutes, "tasks_per_node": 1, "cpus_per_task": resources.cpus,
        "name": f"sswp-{request.name}",
    }  # fmt: skip
    if resources.gpus:
        given["gpus_per_node"] = resources.gpus
    if cluster == "slurm":
        exports = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
        given |= {
            "slurm_array_parallelism": limit, "slurm_signal_delay_s": lead, "slurm_setup": exports,
            "slurm_additional_parameters": {"requeue": True, **resources.extra},
        }  # fmt: skip
        given |= {"slurm_partition": resources.partition} if resources.partition else {}
    try:
        own = {f"{cluster}_max_num_timeout": REQUEUES, f"{cluster}_python": _deaf_at_first(sys.executable)}
        executor = submitit().AutoExecutor(folder=request.folder / "logs", cluster=cluster, **own)
    except RuntimeError as error:
        raise InputError(f"cannot submit to {cluster!r}: {files.reason(error)}; expected its commands here") from None
    executor.update_parameters(**given)
    return executor


def _deaf_at_first(python: str) -> str:
    """Return the command of a Python that the preemption's signal does not end before it has learnt to hear it."""
    script = f'trap "" {preemption().name.removeprefix("SIG")}; exec "$0" "$@"'
    return shlex.join(["sh", "-c", script, python])


@contextlib.contextmanager
def _detached() -> Iterator[None]:
    """Let processes that are started outlive this one's terminal: without its streams, deaf to its end."""
    sys.stdout.flush()
    kept, nowhere = [os.dup(number) for number in range(3)], os.open(os.devnull, os.O_RDWR)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        for number in range(3):
            os.dup2(nowhere, number)
        yield
    finally:
        signal.signal(signal.SIGHUP, before)
        for number, file in enumerate(kept):
            os.dup2(file, number)
            os.close(file)
        os.close(nowhere)


def alive(request: Request) -> int:
    """Return how many tasks of a plan wait or run, as far as it can be told from here."""
    rows, count = following.read_rows(request.folder / SUBMISSIONS), 0
    queued = {name for row in rows if row["cluster"] == "slurm" for name in row["jobs"]}
    if queued:
        count += len(queued & set(_squeue()))
    for row in rows:
        if row["cluster"] == "local" and row["machine"] == holding.machine():
            count += sum(holding.lives(int(name), row["born"][name]) for name in row["jobs"])
    return count


def _squeue() -> list[str]:
    """Return the names of this user's tasks that wait or run."""
    words = ["squeue", "-h", "-r", "-u", str(os.getuid()), "-o", "%i"]
    try:
        shown = subprocess.run(words, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RunError(f"cannot ask for the queue: {files.reason(error)}; try again where squeue answers") from None
    if shown.returncode != 0:
        raise RunError(f"cannot ask for the queue: {shown.stderr.strip()}; try again when the controller answers")
    return shown.stdout.split()
