"""Carries out a preset's whole plan on a SLURM of this machine, disturbs it meanwhile, and compares every record with
those of `sswp reproduce`, bit for bit.

python benchmarks/cluster.py [--preset smoke] [--only 03] [--folder FOLDER] [--every SECONDS]

Every so many seconds one of its tasks is told to leave its run, is preempted by another job or is cancelled, or the
controller is stopped and started again; what was cancelled is submitted once more. At the end: was each run done once,
are the records those that the notebooks make by themselves, and does `sswp reproduce` find them all? Needs what
`benchmarks/slurm.sh` needs. At `smoke` it takes two idle cores about a quarter of an hour.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from sswp_lib.lab import plan as plans
from sswp_lib.lab.plan import Request
from sswp_lib.runs.records import Record, everything

PROJECT = Path(__file__).resolve().parents[1]
SCRIPT = PROJECT / "benchmarks" / "slurm.sh"
MEASURED = ("memory", "norms", "neighbours")  # kinds of runs that notebooks measure on the spot
TASKS = 2


def sswp(*words: str) -> str:
    """Return what the command says."""
    done = subprocess.run([sys.executable, "-m", "sswp_lib", *words], cwd=PROJECT, text=True, stdout=subprocess.PIPE)
    if done.returncode:
        sys.exit(f"sswp {' '.join(words)} ended with status {done.returncode}")
    return done.stdout


def slurm(*words: str) -> list[str]:
    """Return the lines that a command of SLURM prints; none where it fails, as on a job that has just ended."""
    return subprocess.run(words, text=True, capture_output=True).stdout.splitlines()


def disturb(how: str, folder: Path, rng: random.Random) -> str:
    """Do something to the tasks that run; return what."""
    tasks = slurm("squeue", "-h", "-r", "-t", "R", "-n", f"sswp-{os.environ['PLAN']}", "-o", "%i")
    if not tasks:
        return "nothing runs"
    task = rng.choice(tasks)
    if how == "told to leave":
        slurm("scancel", "--signal=USR1", task)
    elif how == "preempted":
        slurm("sbatch", "--partition=urgent", f"--cpus-per-task={TASKS}", "--output=/dev/null", "--wrap", "sleep 2")
    elif how == "cancelled":
        slurm("scancel", task)
    else:
        subprocess.run([SCRIPT, "controller", folder], check=True)
    return f"{task} {how}"


def carried_out(request: Request, options: list[str], folder: Path, every: float) -> float:
    """Submit the plan and disturb it until all of it is done; return the seconds."""
    started, rng = time.monotonic(), random.Random(0)
    print(sswp("submit", *options, "--array-limit", str(TASKS)), end="", flush=True)
    for how in itertools.cycle(["told to leave", "preempted", "cancelled", "without its controller for a while"]):
        time.sleep(every)
        print(f"{time.monotonic() - started:.0f} s: {disturb(how, folder, rng)}", flush=True)
        print(sswp("status", *options), end="", flush=True)
        print(sswp("submit", *options, "--array-limit", str(TASKS)), end="", flush=True)
        plan = plans.made(request, guess=True)
        if all(map(plan.is_done, plan.tasks.values())) and not slurm("squeue", "-h"):
            return time.monotonic() - started


def done_once(request: Request) -> None:
    logs = "\n".join(path.read_text() for path in (request.folder / "logs").glob("*_log.out"))
    times = Counter(re.findall(r"^(\S+): done in ", logs, re.MULTILINE))
    more = {name: count for name, count in times.items() if count > 1}
    print(f"{len(times)} tasks done, {len(more)} of them more than once {more or ''}")
    print(f"left with a checkpoint or taken over: {sum(r.provenance['resumed'] for r in computed().values())} times")


def computed() -> dict[str, Record]:
    return {record.name: record for record in everything() if record.kind not in MEASURED}


def plain(record: Record) -> dict:
    return record.model_dump(mode="json", exclude={"provenance"})


def compared(options: list[str], folder: Path) -> bool:
    """Let the notebooks make the records by themselves, compare, and let them draw from the cluster's."""
    ours = computed()
    os.environ["SSWP_RUNS"] = str(folder / "alone")
    sswp("reproduce", *options)
    theirs = computed()
    different = [name for name in theirs if name in ours and plain(ours[name]) != plain(theirs[name])]
    print(f"records: {len(ours)} of the cluster, {len(theirs)} of the notebooks; {len(different)} differ {different}")
    print(f"missing: {sorted(theirs.keys() - ours.keys())}; too many: {sorted(ours.keys() - theirs.keys())}")
    os.environ["SSWP_RUNS"] = str(folder / "runs")
    sswp("reproduce", *options)
    again = computed()
    print(f"`sswp reproduce` then computed {len(again) - len(ours)} of {len(again)} runs")
    same = all(again[name].provenance == record.provenance for name, record in ours.items())
    return same and not different and theirs.keys() == ours.keys() == again.keys()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--preset", default="smoke")
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--every", type=float, default=30.0)
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="sswp-cluster-"))
    request = Request.of(given.preset, None, given.only, None)
    options = ["--preset", given.preset, *(word for name in given.only for word in ("--only", name))]
    conf = subprocess.run([SCRIPT, "start", folder / "slurm"], text=True, stdout=subprocess.PIPE, check=True).stdout
    os.environ |= {"SLURM_CONF": conf.strip(), "SSWP_RUNS": str(folder / "runs"), "OMP_NUM_THREADS": "1"}
    os.environ |= {"PYTHONPATH": str(PROJECT), "PLAN": request.name}
    try:
        print(f"all done after {carried_out(request, options, folder / 'slurm', given.every):.0f} s")
    finally:
        subprocess.run([SCRIPT, "stop", folder / "slurm"], check=True)
    done_once(request)
    sys.exit(not compared(options, folder))


if __name__ == "__main__":
    main()
