"""The reference results change by one command, and only to what their provenance says."""

from __future__ import annotations

import json
import subprocess

import nbformat
import pytest

from sswp_lib import __version__
from sswp_lib.config import InputError, home
from sswp_lib.lab import publish, reproduce, strip
from sswp_lib.paper import output
from sswp_lib.runs import records
from sswp_lib.runs.records import Record
from sswp_lib.show import report


def git(folder, *words) -> str:
    return subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def project(tmp_path, monkeypatch, runs_folder):
    """A repository with one notebook, executed at quick with one run, and earlier reference results."""
    for module in (publish, reproduce, report, output, records):
        monkeypatch.setattr(module, "home", lambda: tmp_path)
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "sswp_lib").mkdir()
    (tmp_path / "sswp_lib" / "a.py").write_text("1")
    executed(tmp_path / "notebooks" / "01_a.ipynb", {})
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    git(tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "all")
    folder = output.Output("quick").folder
    executed(folder / "01_a.ipynb", {"preset": "quick", "data": None})
    for name in ("01_a.png", "01_a.csv", "01_a.md", "01_a.tex", "01_a.svg", "01_g.json", "index.html", "ledger.csv"):
        (folder / name).write_text(name)
    made(runs_folder, "train-1", version=__version__, commit="abc")
    (folder / "01_runs.txt").write_text("train-1\n")
    reference = tmp_path / "figures" / "quick"
    (reference / "runs" / "old").mkdir(parents=True)
    for name in ("README.md", "gone.png", "runs/old/record.json"):
        (reference / name).write_text("earlier")
    return tmp_path


def executed(path, parameters) -> None:
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")])
    made.metadata["papermill"] = {"parameters": parameters, "end_time": "2026-01-02T03:04:05+00:00", "duration": 1.0}
    nbformat.write(made, path)


def made(runs_folder, name: str, **provenance) -> None:
    record = Record(name=name, kind="train", config={}, seed=0, result={}, provenance=provenance)
    (runs_folder / name).mkdir(parents=True, exist_ok=True)
    records.write(runs_folder / name, record)
    (runs_folder / name / "weights.safetensors").write_text("heavy")


def made_in_format(runs_folder, name: str, number: int) -> None:
    """Let a run be one of before results changed: its name would be another today."""
    record = records.read(runs_folder / name / "record.json")
    records.write(runs_folder / name, record.model_copy(update={"format": number}))


def commit_another_notebook(project) -> None:
    plain = nbformat.read(project / "notebooks" / "01_a.ipynb", 4)
    plain.cells[0].source = "2"
    nbformat.write(plain, project / "notebooks" / "01_a.ipynb")
    git(project, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qam", "another")


def contents(folder) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_reference_becomes_what_a_visitor_looks_at(project):
    assert publish.publish("quick") == project / "figures" / "quick"
    kept = {"01_a.png", "01_a.csv", "01_a.md", "01_g.json", "index.html", "ledger.csv", "README.md"}
    assert contents(project / "figures" / "quick") == kept | {"runs/train-1/record.json"}
    assert (project / "figures" / "quick" / "README.md").read_text() == "earlier"


@pytest.mark.parametrize("wrong, said", [
    (lambda p, f, r: (p / "sswp_lib" / "a.py").write_text("2"), "'sswp_lib/a.py' is not as committed"),
    (lambda p, f, r: executed(f / "01_a.ipynb", {"preset": "quick", "seeds": 5}), "it was given seeds=5"),
    (lambda p, f, r: (f / "01_a.ipynb").unlink(), "has not been executed"),
    (lambda p, f, r: commit_another_notebook(p), "it has changed since it was executed"),
    (lambda p, f, r: made_in_format(r, "train-1", records.FORMAT - 1), "made by another version"),
    (lambda p, f, r: made(r, "train-1", version="0.0", commit="abc"), "made by another version"),
    (lambda p, f, r: made(r, "train-1", version=__version__, commit="abc-dirty"), "by changed code"),
    (lambda p, f, r: (r / "train-1" / "record.json").write_text("{"), "train-1 cannot be read"),
])  # fmt: skip
def test_what_is_not_what_it_says_is_not_published(project, runs_folder, wrong, said):
    wrong(project, output.Output("quick").folder, runs_folder)
    before = contents(project / "figures" / "quick")
    with pytest.raises(InputError, match=said):
        publish.publish("quick")
    assert contents(project / "figures" / "quick") == before


@pytest.fixture
def repository(tmp_path):
    """A repository with the project's notebooks and its filter, as `make setup` switches it on."""
    (tmp_path / "notebooks").mkdir()
    for path in (home() / "notebooks").glob("0*.ipynb"):
        (tmp_path / "notebooks" / path.name).write_bytes(path.read_bytes())
    (tmp_path / ".gitattributes").write_bytes((home() / ".gitattributes").read_bytes())
    git(tmp_path, "init", "-q")
    git(tmp_path, "config", "filter.notebooks.clean", f"python3 {strip.__file__} || cat")
    git(tmp_path, "add", "-A")
    git(tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "all")
    return tmp_path


def run_and_save(path) -> None:
    """Leave a notebook as JupyterLab saves it after a run: outputs, counts, its own metadata."""
    plain = nbformat.read(path, 4)
    for count, cell in enumerate(c for c in plain.cells if c.cell_type == "code"):
        cell.execution_count = count + 1
        cell.outputs = [nbformat.v4.new_output("stream", text="42\n")]
        cell.metadata["execution"] = {"iopub.status.busy": "2026-01-02T03:04:05"}
    plain.metadata["language_info"] = {"name": "python", "version": "3.11.7", "file_extension": ".py"}
    plain.metadata["kernelspec"] = {"display_name": "Python [other]", "language": "python", "name": "other"}
    plain.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {}}
    nbformat.write(plain, path)


def test_notebooks_that_were_run_and_saved_have_not_changed(repository):
    """Nothing to see in `git diff`, nothing to commit."""
    for path in (repository / "notebooks").glob("0*.ipynb"):
        run_and_save(path)
    assert git(repository, "diff") == ""
    git(repository, "add", "-A")
    assert git(repository, "status", "--porcelain") == ""
    changed = repository / "notebooks" / "01_search.ipynb"
    changed.write_text(changed.read_text().replace("smoke, quick, cifar or paper", "mine"))
    assert git(repository, "diff", "--numstat").split() == ["1", "1", "notebooks/01_search.ipynb"]


def test_filter_passes_on_what_it_cannot_read():
    for content in (b"", b"{", b"[]", b'{"cells": 3}', b"\xff\xfe", json.dumps({"cells": [{}]}).encode()):
        assert strip.stripped(content) == content


def test_committed_notebooks_are_as_the_filter_leaves_them():
    for path in (home() / "notebooks").glob("0*.ipynb"):
        assert strip.stripped(path.read_bytes()) == path.read_bytes(), path.name
