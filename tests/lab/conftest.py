"""A folder of runs for each test, one finished search that is made once and copied, and the command called in this
process.
"""

import shutil
import sys

import pytest
from tiny_runs import tiny

from sswp_lib import cli
from sswp_lib.lab import runs


@pytest.fixture
def runs_folder(tmp_path, monkeypatch):
    """An empty folder of runs."""
    monkeypatch.setenv("SSWP_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


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
