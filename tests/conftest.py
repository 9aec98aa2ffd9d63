"""Tiny configurations, data and networks that the tests share; everything runs on the CPU in seconds."""

from __future__ import annotations

import multiprocessing
import shutil
import sys
from dataclasses import replace

import pytest
import torch
import toy_space
from tiny_runs import tiny

from sswp_lib import cli
from sswp_lib.config import Config
from sswp_lib.learn.data import ImageData, load
from sswp_lib.presets import load_config
from sswp_lib.runs import runs
from sswp_lib.space import SPACES, SuperNet


@pytest.fixture(autouse=True)
def threads():
    """No call may leave torch with another number of threads: bits on the CPU are the same only with the same
    number.
    """
    before = torch.get_num_threads()
    yield
    assert torch.get_num_threads() == before


@pytest.fixture(scope="session")
def config() -> Config:
    """Three cells of 4 channels on 8x8 digits; five epochs of five weight steps, an architecture step after every
    second.
    """
    tiny = {
        "data.image_size": 8, "search.epochs": 5, "search.batch_size": 16, "search.alpha_every": 2,
        "train.epochs": 3, "train.batch_size": 10,
    }  # fmt: skip
    return load_config("smoke", settings=tiny)


@pytest.fixture(scope="session")
def digits(config) -> ImageData:
    """All digits at 8x8: 1,347 training and 450 test images."""
    return load(config.data)


@pytest.fixture(scope="session")
def data(digits) -> ImageData:
    """The first 160 training and 50 test images of the digits."""
    return replace(
        digits,
        train=digits.train[:160],
        train_labels=digits.train_labels[:160],
        test=digits.test[:50],
        test_labels=digits.test_labels[:50],
    )


@pytest.fixture
def toy(config, monkeypatch) -> Config:
    """A few steps of one-shot training in the toy space, and a ranking in it."""
    monkeypatch.setitem(SPACES, "toy", toy_space.TOY)
    return config.changed(**toy_space.SETTINGS)


@pytest.fixture
def supernet() -> SuperNet:
    """A supernet of three cells (the last two reductions) in double precision, alpha away from 0."""
    torch.manual_seed(0)
    supernet = SuperNet(4, 3).double()
    with torch.no_grad():
        supernet.alpha.normal_()
    return supernet


@pytest.fixture
def g() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def images() -> torch.Tensor:
    """Six random images in double precision, (6, 3, 8, 8)."""
    return torch.randn(6, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def runs_folder(tmp_path, monkeypatch):
    """An empty folder of runs."""
    monkeypatch.setenv("SSWP_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture(scope="session")
def smoke_runs(tmp_path_factory, request):
    """The folder of the notebooks' runs at the preset `smoke`, for all processes of the tests: what one has done the
    others are served, and wait for what it is at.
    """
    base = tmp_path_factory.getbasetemp()
    return (base.parent if hasattr(request.config, "workerinput") else base) / "smoke-runs"


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "runs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSWP_RUNS", str(folder))
        runs.search(tiny(), device="cpu", quiet=True)
    return folder


@pytest.fixture
def finished(runs_folder, made_once):
    """The record of a finished search, in a folder of runs of this test's own."""
    shutil.copytree(made_once, runs_folder)
    (record,) = runs.everything()
    return record


@pytest.fixture(scope="session")
def context():
    """Processes that start quickly: each is forked from one that has imported the library and done nothing else."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["sswp_lib.runs.runs", "sklearn.datasets", "sklearn.model_selection", "torch._dynamo"]
    )
    return context


@pytest.fixture
def call(monkeypatch, capsys, runs_folder):
    """Run the command in this process; return (exit status, standard output, standard error)."""

    def run(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sswp", *map(str, arguments)])
        capsys.readouterr()
        try:
            cli.main()
            status = 0
        except SystemExit as end:
            status = end.code or 0
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def refused(call, runs_folder):
    """Run the command, which must refuse in one line and leave every earlier file as it was; return the line."""

    def run(*arguments, status: int = 2, notes: int = 0) -> str:
        before = contents(runs_folder)
        code, out, err = call(*arguments)
        lines = err.splitlines()
        assert code == status, err
        assert len(lines) == 1 + notes and lines[-1].startswith("sswp: "), err
        assert "Traceback" not in out + err
        after = contents(runs_folder)
        assert {path: after.get(path) for path in before} == before
        assert not [path for path in after if path.endswith(".part")]
        return lines[-1]

    return run


def contents(folder) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
