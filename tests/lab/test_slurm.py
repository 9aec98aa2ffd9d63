"""A real SLURM carries out a plan as an array; whatever happens to its tasks, nothing is lost and nothing done twice.

Of one node with two processors, set up by `benchmarks/slurm.sh`; left out, with its reason, where that cannot be.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
from tiny_runs import plain

import sswp_lib
from sswp_lib.lab import cluster, estimate, status
from sswp_lib.lab import plan as plans
from sswp_lib.lab.plan import Request
from sswp_lib.paper import studies
from sswp_lib.runs import following, runs

PROJECT = Path(sswp_lib.__file__).parents[1]
SCRIPT = PROJECT / "benchmarks" / "slurm.sh"
REQUEST = Request("smoke", only=("00",))
PATIENCE = 900  # seconds; on an idle machine all of it takes less than one minute


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """The folder of a SLURM that runs."""
    folder = tmp_path_factory.mktemp("slurm")
    started = subprocess.run([SCRIPT, "start", folder], capture_output=True, text=True)
    if started.returncode == 3:
        pytest.skip(started.stderr.strip())
    try:
        assert started.returncode == 0, started.stderr
        yield folder
    finally:
        subprocess.run([SCRIPT, "stop", folder], check=True)


@pytest.fixture
def submitted(slurm, monkeypatch, tmp_path):
    """Submits the plan; returns what is said."""
    monkeypatch.setenv("SLURM_CONF", str(slurm / "slurm.conf"))
    monkeypatch.setenv("SSWP_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    return lambda: cluster.submit(REQUEST, "slurm", 2, cluster.Resources(minutes=60))


def said(*words: str) -> str:
    return subprocess.run([*words], check=True, capture_output=True, text=True).stdout


def until(holds, what: str):
    """Wait until that holds; return it."""
    end = time.monotonic() + PATIENCE
    while not (found := holds()):
        assert time.monotonic() < end, f"{what}; {logs()}"
        time.sleep(0.3)  # each look takes time that the tasks lack
    return found


def logs() -> str:
    return "\n".join(path.read_text() for path in sorted((REQUEST.folder / "logs").glob("*_log.*")))


def done() -> dict[str, runs.Record]:
    return {record.name: record for record in runs.everything()}


def queue() -> list[str]:
    return said("squeue", "-h", "-r", "-o", "%i %T").splitlines()


def test_a_plan_on_slurm_whatever_happens_to_its_tasks(slurm, submitted, smoke_runs, monkeypatch):
    first = submitted()
    array = re.search(r"(\d+)_0, \1_1$", first).group(1)
    assert submitted().startswith("nothing submitted, for 2 task(s) of this plan wait or run already")

    # told to leave in the middle of the search, from which all else starts
    search = next(task for task in plans.made(REQUEST).tasks.values() if task.what == "search")
    until(lambda: following.stand(runs.root() / search.name).state == "running", "no search began")
    text = status.look(REQUEST).text()
    assert f"running: {search.name}: epoch " in text and "1 running" in text, text
    said("scancel", "--signal=USR1", array)
    until(lambda: "Requeued job" in logs(), "no task was requeued")

    # preempted by others, cancelled, without a controller for a while, and submitted again
    until(lambda: len(done()) >= 3, "no training was done after the search")
    said("sbatch", "--partition=urgent", "--cpus-per-task=2", "--output=/dev/null", "--wrap", "sleep 1")
    until(lambda: len(done()) >= 6, "no training was done after others went before")
    said("scancel", f"{array}_0")
    subprocess.run([SCRIPT, "controller", slurm], check=True)
    before = {name: record.provenance for name, record in done().items()}
    until(lambda: f"{array}_0" not in " ".join(queue()), "a cancelled task stays")
    assert submitted().startswith("1 task(s) submitted") or len(done()) == len(plans.made(REQUEST, guess=True).tasks)
    until(lambda: not queue(), "tasks do not end")

    found = status.look(REQUEST)
    assert set(found.states.values()) == {"done"} and "all is done" in found.text(), found.text() + logs()
    assert done()[search.name].provenance["resumed"] >= 1
    assert {name: done()[name].provenance for name in before} == before
    finished = Counter(re.findall(r"^(\S+): done in ", logs(), re.MULTILINE))
    assert finished == dict.fromkeys(found.plan.tasks, 1)
    assert submitted() == f"nothing to submit: {len(found.plan.tasks)} of {len(found.plan.tasks)} runs done"

    records = done()
    monkeypatch.setenv("SSWP_RUNS", str(smoke_runs))  # what the notebooks themselves make
    notebook = REQUEST.notebooks()[0]
    for _ in range(2):  # what is chosen first, then by it
        studies.carry_out(estimate.plan(notebook, "smoke", None, None, guess=False), "cpu")
    expected = {task.record().name: task.record() for task in plans.made(REQUEST).tasks.values()}
    assert {name: plain(record) for name, record in records.items()} == {n: plain(r) for n, r in expected.items()}
