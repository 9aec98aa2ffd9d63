"""Runs the notebooks by papermill, each in a process of its own, and leaves them with their figures and a report in
figures/own/<preset>/, which git does not track.

Some run at once, the longest first. One that fails or hangs does not keep the others from running: a process whose
heartbeat file (see `progress.Line`) and executed notebook no longer change is stopped, with its kernel.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from sswp_lib.config import InputError, home, suggest
from sswp_lib.lab import estimate
from sswp_lib.learn.data import folder_of
from sswp_lib.paper.output import Output
from sswp_lib.presets import load_config
from sswp_lib.runs import files
from sswp_lib.runs.progress import duration
from sswp_lib.runs.records import root
from sswp_lib.show import report

KERNEL = "python3"  # the name under which notebooks find this interpreter
HANG_AFTER = 20.0  # minutes without a sign of life
OVERHEAD = 10.0  # seconds that a notebook takes beside its runs: starts of papermill and kernel, imports, figures
POLL = 0.5  # seconds from one look at the processes to the next
GRACE = 5.0  # seconds that a process has to end by itself


def notebooks() -> list[Path]:
    """Return the project's notebooks in order."""
    return sorted((home() / "notebooks").glob("[0-9]*.ipynb"))


def chosen(only: list[str] | None = None, start: str | None = None) -> list[Path]:
    """Return the notebooks whose names begin with one of `only`, all if there is none; from the one that begins with
    `start` on.
    """
    everything = notebooks()
    if not everything:
        raise InputError(f"no notebooks in {str(home() / 'notebooks')!r}; run the command in the project's folder")
    names = [path.stem for path in everything]
    for word in [*(only or []), *([start] if start else [])]:
        if not any(name.startswith(word) for name in names):
            raise InputError(f"no notebook begins with {word!r}{suggest(word, names)}")
    first = min((name for name in names if name.startswith(start)), default="") if start else ""
    found = [path for path in everything if path.stem >= first and (not only or path.stem.startswith(tuple(only)))]
    if not found:
        raise InputError(
            f"none of the notebooks {', '.join(only or [])} stands at or after {start!r}; give --only or "
            "--from, not both"
        )
    return found


def reproduce(
    preset: str, data: str | None = None, only: list[str] | None = None, seeds: int | None = None,
    start: str | None = None, jobs: int | None = None, hang_after: float = HANG_AFTER, budget: float | None = None,
) -> list[str]:  # fmt: skip
    """Run the notebooks and build the report; returns the names of those that failed. Finished runs are not done again.
    Where a budget ends before them, those that were stopped did not fail: what is missing is said.

    Args:
        only, start: which notebooks (see `chosen`).
        jobs: notebooks at once; None: as `default_jobs` says.
        hang_after: minutes without a sign of life after which a notebook is stopped.
        budget: seconds after which whatever runs is stopped; None for no end.
    """
    began = time.monotonic()
    root = load_config(preset, data).data.root  # refuses an unknown preset or data set before anything starts
    if data is not None and data.startswith("folder:"):
        data = f"folder:{folder_of(data, root)}"  # notebooks run elsewhere
    paths, output = chosen(only, start), Output.of(preset, data, seeds)
    with torch_threads(threads(jobs or default_jobs())):  # steps are measured as they will run
        seconds = estimate.seconds(preset, data, seeds, paths)
    # with nothing to compute, starts wait for files and each other
    jobs = min(jobs or default_jobs() + (not any(seconds.values())), len(paths))
    print(f"about {duration(expected(seconds, jobs))} on {jobs} process{'es' if jobs > 1 else ''}", flush=True)
    order = sorted(paths, key=lambda path: -seconds.get(path.stem, 0.0))
    end_at = math.inf if budget is None else began + budget
    failed, stopped = run(order, output, parameters(preset, data, seeds), jobs, 60 * hang_after, end_at)
    if stopped:
        with torch_threads(threads(jobs)):
            left = estimate.seconds(preset, data, seeds, [path for path in paths if path.stem in stopped])
        print(f"the budget of {duration(budget)} is spent; what is missing, and what it takes:")
        for name in sorted(stopped):
            print(f"  {name}: about {duration(left[name])} on one process")
        print("the same command goes on from there")
    if failed:
        print(f"{len(failed)} of {len(paths)} notebooks failed:")
        for name in sorted(failed):
            print(f"  {name}: {failed[name]} (log: {log_of(name)})")
    print(f"figures and executed notebooks: {output.folder}")
    if report.executed(output):
        print(f"report: {report.build(output)}", flush=True)
    return sorted(failed)


def parameters(preset: str, data: str | None, seeds: int | None) -> dict[str, str]:
    """Return what the notebooks' parameter cells are given; the rest keeps the notebooks' own values."""
    given = {"preset": preset, "data": data, "seeds": seeds}
    return {name: str(value) for name, value in given.items() if value is not None}


def default_jobs() -> int:
    """Return how many notebooks run at once: one where a GPU does the work, else two if there are two processors."""
    return 1 if torch.cuda.is_available() else min(2, processors())


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads(jobs: int) -> int:
    """Return how many threads each of `jobs` processes may use."""
    return max(1, processors() // jobs)


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch use `count` threads in the block: the same bits on the CPU need the same number, so the caller's own is
    put back.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def expected(seconds: dict[str, float], jobs: int) -> float:
    """Return the seconds that notebooks will take: those of the longest, or those of all, shared by `jobs`
    processes.
    """
    return max(*seconds.values(), sum(seconds.values()) / jobs, 0.0) + OVERHEAD * len(seconds) / jobs


@dataclass
class Execution:
    """A notebook that runs, in a process of its own."""

    name: str
    target: Path
    heartbeat: Path
    process: subprocess.Popen
    started: float
    # when heartbeat or executed notebook was last seen to have changed; by the clock that `started` is read from
    changed: float
    signs: tuple[int, ...] = ()

    def silence(self) -> float:
        """Return the seconds without a sign of life. Files' own times are only compared with each other: clocks may be
        set, machines sleep.
        """
        now, signs = time.monotonic(), tuple(_modified(path) for path in (self.heartbeat, self.target))
        if signs != self.signs:
            self.signs, self.changed = signs, now
        return now - self.changed

    def failure(self) -> str:
        """Return why the notebook failed, in one line: its last error, else the last line that papermill wrote."""
        lines = []
        with suppress(OSError):  # whoever removed the log wants no more of it
            lines = log_of(self.name).read_text(errors="replace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        return report.last_error(report.read_notebook(self.target)) or (
            said[-1][:200] if said else f"exit status {self.process.returncode}"
        )

    def line(self, width: int) -> str:
        """Return name, time so far and the heartbeat's text, in at most `width` characters."""
        text = ""
        with suppress(OSError):
            text = self.heartbeat.read_text(errors="replace").strip()
        line = f"{self.name} {duration(time.monotonic() - self.started)} {text}".strip()
        return line if len(line) <= width else f"{line[: max(width - 1, 0)]}…"


def _modified(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def log_of(name: str) -> Path:
    """Return the file to which papermill's own output of a notebook goes."""
    return root() / "logs" / f"{name}.log"


def command(source: Path, target: Path, given: dict[str, str]) -> list[str]:
    """Return the words that execute a notebook; with relative paths, which the executed notebook keeps."""
    options = [word for name, value in given.items() for word in ("-p", name, value)]
    names = [str(path.relative_to(home())) for path in (source, target)]
    return [sys.executable, "-m", "papermill", *names, *options, "--kernel", KERNEL, "--no-progress-bar"]


def own_kernel(folder: Path) -> dict[str, str]:
    """Make this interpreter the kernel of that name, whatever kernels are installed; returns the environment in which
    it is found first.
    """
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": argv, "display_name": "Python 3 (ipykernel)", "language": "python"}
    files.write_json(folder / "kernels" / KERNEL / "kernel.json", spec)
    return {"JUPYTER_PATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("JUPYTER_PATH")])])}


def execute(source: Path, target: Path, given: dict[str, str], environment: dict[str, str]) -> Execution:
    """Start one notebook in a process of its own; the executed copy is written as it goes on. What an earlier execution
    left is removed, or its errors and figures could be taken for this one's.
    """
    for earlier in target.parent.glob(f"{source.stem.partition('_')[0]}_*"):
        earlier.unlink()
    environment = environment | {"SSWP_USED": str(report.runs_file(target))}
    log = log_of(source.stem)
    files.write(log, b"", durable=False)
    with open(log, "ab") as output:
        process = subprocess.Popen(
            command(source, target, given), cwd=home(), env=os.environ | environment, stdin=subprocess.DEVNULL,
            stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    now = time.monotonic()
    return Execution(source.stem, target, Path(environment["SSWP_HEARTBEAT"]), process, now, now)


def run(
    order: list[Path], output: Output, given: dict[str, str], jobs: int, hang_after: float, end_at: float = math.inf
) -> tuple[dict[str, str], list[str]]:
    """Execute notebooks, `jobs` at once; returns {name: why} of those that failed, and the names of those that were not
    done in time. However it ends, no process is left behind.

    Args:
        hang_after: seconds. end_at: of the monotonic clock, when whatever runs is stopped.
    """
    waiting, running, failed = list(order), [], {}
    with tempfile.TemporaryDirectory(prefix="sswp-") as beats, stopped_by_signals():
        shared = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(threads(jobs))}
        shared |= own_kernel(Path(beats) / "jupyter")
        try:
            while (waiting or running) and time.monotonic() < end_at:
                while waiting and len(running) < jobs:
                    source = waiting.pop(0)
                    say(f"{source.stem}: started (preset {output.label})")
                    environment = shared | {"SSWP_HEARTBEAT": str(Path(beats) / source.stem)}
                    running.append(execute(source, output.folder / source.name, given, environment))
                time.sleep(POLL)
                for execution in list(running):
                    if ended(execution, hang_after, failed):
                        running.remove(execution)
                show(running)
        finally:
            end(running)
    return failed, [execution.name for execution in running] + [source.stem for source in waiting]


def duration_of(text: str) -> float:
    """Return the seconds of a text such as "3h", "90m", "1h30m" or "45s"."""
    found = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?", text.strip())
    seconds = sum(float(n) * unit for n, unit in zip(found.groups(), (3600, 60, 1), strict=True) if n) if found else 0
    if seconds <= 0:
        raise InputError(f"budget {text!r} is no time; expected hours, minutes or seconds, e.g. 3h, 90m or 1h30m")
    return seconds


def ended(execution: Execution, hang_after: float, failed: dict[str, str]) -> bool:
    """Tell whether a notebook has ended, and say so; one that hangs is stopped. Enters it in `failed` if it failed."""
    name, status = execution.name, execution.process.poll()
    if status is None and execution.silence() < hang_after:
        return False
    if status is None:
        end([execution])
        failed[name] = f"stopped: no sign of life for {hang_after / 60:g} minutes"
    elif status != 0:
        failed[name] = execution.failure()
    say(
        f"{name}: {f'FAILED ({failed[name]})' if name in failed else 'done'} in "
        f"{duration(time.monotonic() - execution.started)}"
    )
    return True


def end(executions: list[Execution]) -> None:
    """End processes with all that they started. A kernel has a session of its own: a signal to its parent's group does
    not reach it.
    """
    family = []
    for execution in executions:
        with suppress(psutil.NoSuchProcess):
            parent = psutil.Process(execution.process.pid)
            family += [*parent.children(recursive=True), parent]
    _signal(family, psutil.Process.terminate)
    try:
        _, family = psutil.wait_procs(family, timeout=GRACE)
    finally:  # also at a second, impatient Ctrl-C
        _signal(family, psutil.Process.kill)
    for execution in executions:
        execution.process.poll()


def _signal(family: list[psutil.Process], send: Callable[[psutil.Process], None]) -> None:
    for process in family:
        with suppress(psutil.NoSuchProcess):
            send(process)


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Let a closed terminal and `kill` end what runs, as Ctrl-C does; a signal that is ignored (`nohup`) stays so."""
    signals = (
        [s for s in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(s) is signal.SIG_DFL]
        if threading.current_thread() is threading.main_thread()
        else []
    )
    try:
        for number in signals:
            signal.signal(number, signal.default_int_handler)
        yield
    finally:
        for number in signals:
            signal.signal(number, signal.SIG_DFL)


def say(text: str) -> None:
    """Print a line that stays."""
    if sys.stderr.isatty():
        print("\r\x1b[2K", end="", file=sys.stderr, flush=True)
    print(text, flush=True)


def show(running: list[Execution]) -> None:
    """Show in a terminal what runs, in one line that is rewritten in place; in a log nothing."""
    if running and sys.stderr.isatty():
        width = (shutil.get_terminal_size().columns - 1) // len(running) - 2
        print(
            f"\r\x1b[2K{'  '.join(e.line(width) for e in sorted(running, key=lambda e: e.name))}",
            end="",
            file=sys.stderr,
            flush=True,
        )
