"""Runs that several processes share are left and taken up by any number of them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from tiny_runs import do_search, images, tiny

from sswp_lib import processes
from sswp_lib.config import InputError, RunError
from sswp_lib.learn.search import Search
from sswp_lib.runs import files, records, runs
from sswp_lib.space import Genotype

KILLS = int(os.environ.get("SSWP_KILLS", 2))  # twenty take minutes
COUNTS = (2, 1, 4, 2, 3)  # processes that take the run up, one after the other
SCRIPT = """
import sys
import torch
from sharing import computed_in, settings
from sswp_lib import processes
from sswp_lib.cli import _say
from sswp_lib.config import InputError, RunError
from sswp_lib.runs import carrying_out, runs

carrying_out.CHECKPOINT_SECONDS = carrying_out.EPOCH_SECONDS = -1.0
try:
    with processes.together("cpu") as device, computed_in(torch.float64):
        runs.search(settings("simclr", {"data.name": "folder:NOISE", "search.epochs": EPOCHS}), device, quiet=True)
except (InputError, RunError) as error:
    _say(error)
    sys.exit(1)
"""


@pytest.fixture
def noise(tmp_path) -> Path:
    """160 images, of which an epoch is 5 steps."""
    return images(tmp_path / "noise", {"train": 160}, size=8)


@pytest.fixture
def script(tmp_path, noise) -> Path:
    path = tmp_path / "search.py"
    path.write_text(SCRIPT.replace("NOISE", str(noise)).replace("EPOCHS", str(max(6, KILLS))))
    return path


def torchrun(count: int, script: Path, store: Path) -> subprocess.Popen:
    tests = Path(__file__).parents[1]
    environment = os.environ | {"SSWP_RUNS": str(store), "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = f"{tests.parent}{os.pathsep}{tests}"
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(count),
        str(script),
    ]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def newest(store: Path) -> str:
    return max((path.name for path in store.glob("*/checkpoints/*.pt")), default="")


def workers(launcher: subprocess.Popen, script: Path) -> list[psutil.Process]:
    return [child for child in psutil.Process(launcher.pid).children() if str(script) in child.cmdline()]


def kill_at_the_next_checkpoint(launcher: subprocess.Popen, script: Path, store: Path, every: bool) -> bool:
    """Kill the last of the processes, or all; return whether there was still something to kill."""
    before, patience = newest(store), time.monotonic() + 200
    while newest(store) == before and launcher.poll() is None:
        assert time.monotonic() < patience
        time.sleep(0.01)
    found = workers(launcher, script) if launcher.poll() is None else []
    for worker in found if every else found[-1:]:
        worker.kill()
    return bool(found)


def test_a_run_is_taken_up_by_another_number_of_processes_after_kills(script, tmp_path):
    """In float64, in which it is not left to chance whether a value that is 0 but for rounding is above it."""
    undisturbed, store, killed = tmp_path / "undisturbed", tmp_path / "shared", 0
    assert torchrun(1, script, undisturbed).wait(timeout=300) == 0
    while killed < KILLS:
        count, every = COUNTS[killed % len(COUNTS)], killed % 2 == 1
        launcher = torchrun(count, script, store)
        assert kill_at_the_next_checkpoint(launcher, script, store, every), "it has ended before"
        at, killed = time.monotonic(), killed + 1
        said = launcher.communicate(timeout=60)[1]
        assert time.monotonic() - at < 60 and launcher.returncode != 0
        if count > 1 and not every:
            assert said.count("the same command goes on from the last checkpoint") == 1, said
    assert torchrun(COUNTS[killed % len(COUNTS)], script, store).wait(timeout=300) == 0
    record, expected = (records.finished(next(folder.glob("search-*/"))) for folder in (store, undisturbed))
    assert record.provenance["resumed"] == KILLS
    assert record.result["genotype"] == expected.result["genotype"]
    for row, other in zip(record.history, expected.history, strict=True):
        assert abs(row["loss"] - other["loss"]) < 1e-9 and abs(row["accuracy"] - other["accuracy"]) < 1e-6
    weights, others = (
        files.read_weights(folder / r.name / "weights.safetensors", r.weights_sha256)
        for folder, r in ((store, record), (undisturbed, expected))
    )
    for name, tensor in others.items():
        torch.testing.assert_close(weights[name], tensor, rtol=1e-8, atol=1e-9, msg=name)


@pytest.mark.parametrize("why", ["kind", "batch"])
def test_what_cannot_be_shared_the_first_does_by_itself(monkeypatch, runs_folder, capsys, why):
    """A group of two of which the other only waits."""
    monkeypatch.setattr(processes.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(processes.dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(processes.dist, "get_rank", lambda: 0)
    monkeypatch.setattr(processes, "agreed", lambda decide: decide())
    monkeypatch.setattr(processes, "same", lambda x: None)
    if why == "kind":
        monkeypatch.setattr(Search, "shared", False)
        assert "processes" not in do_search().provenance
        assert (
            "a run of this kind cannot be shared by 2 processes; the first does it by itself" in capsys.readouterr().err
        )
    else:
        one = tiny(train__batch_size=1, train__auxiliary=0.0)
        assert runs.train(one, Genotype.published("DARTS_V2", 2), device="cpu", quiet=True).kind == "train"
        assert "batch_size 1 leaves some of 2 processes without an image; the first" in capsys.readouterr().err


@pytest.mark.parametrize(("device", "cards", "said"), [
    ("cuda:1", 2, "expected 'cuda', of which each takes its own, or 'cpu'"),
    ("cuda", 1, "process 2 of this machine has no CUDA device of its own"),
])  # fmt: skip
def test_cards_are_one_a_process(monkeypatch, device, cards, said):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
    with pytest.raises(InputError, match=said), processes.together(device):
        pass


def test_what_several_end_with_is_said_once(monkeypatch):
    assert processes.says(RunError("alone"))
    for rank, speaks in (("0", True), ("1", False)):  # before they are a group
        monkeypatch.setenv("RANK", rank)
        assert processes.says(InputError("the same everywhere")) is speaks
