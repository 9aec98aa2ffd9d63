"""Reference results change by one command, to what the commit at hand gives; running a notebook changes nothing."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest
from tiny_runs import tiny

import sswp_lib
from sswp_lib.config import InputError, home
from sswp_lib.lab import publish, reproduce, strip
from sswp_lib.paper import output
from sswp_lib.paper.output import Output
from sswp_lib.runs import archive, records, runs
from sswp_lib.show import report

QUICK = Output("quick")


def git(folder: Path, *words: str) -> str:
    own = ["-c", "user.name=a", "-c", "user.email=a@b.example", "-c", "commit.gpgsign=false"]
    return subprocess.run(
        ["git", *own, *words], cwd=folder, check=True, capture_output=True, text=True, timeout=60
    ).stdout.strip()


def write(path: Path, source: str, **metadata) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = [nbformat.v4.new_markdown_cell("# 1 · First"), nbformat.v4.new_code_cell(source)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), path)


def executed(
    source: str = "x = 1", parameters: dict | None = None, end: str | None = "2026-01-02T03:04:05",
    where: Output = QUICK,
) -> None:  # fmt: skip
    given = {"preset": "quick"} if parameters is None else parameters
    write(where.folder / "01_a.ipynb", source, papermill={"parameters": given, "end_time": end})


def made(**changes) -> records.Record:
    """Write a record into the run store."""
    provenance = {"version": sswp_lib.__version__, "seconds": 1.0, "device": "cpu"} | changes.pop("provenance", {})
    plain = {"name": "search-1", "kind": "search", "config": {}, "seed": 0, "result": {}, "provenance": provenance}
    record = records.Record.model_validate(plain | changes)
    records.write(records.root() / record.name, record)
    return record


@pytest.fixture
def project(tmp_path, monkeypatch, runs_folder):
    """A repository with one notebook, executed, and reference results of earlier."""
    for module in (publish, reproduce, report, output, records):
        monkeypatch.setattr(module, "home", lambda: tmp_path)
    write(tmp_path / "notebooks" / "01_a.ipynb", "x = 1")
    (tmp_path / "sswp_lib").mkdir()
    (tmp_path / "sswp_lib" / "a.py").write_text("1")
    target = tmp_path / "figures" / "quick"
    for name in ("README.md", "09_old.svg", "01_a.ipynb", "runs/train-9/record.json"):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_text("earlier")
    (tmp_path / ".gitignore").write_text("/runs/\n/figures/own/\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    executed()
    for name in ("01_t.csv", "01_t.md", "01_t.tex", "01_f.png", "01_f.svg", "01_g.json"):
        (Output("quick").folder / name).write_text("a,b\n1,2\n")
    (Output("quick").folder / "01_runs.txt").write_text("search-1\n")
    made()
    return tmp_path


def test_publishes_what_was_reproduced_and_removes_the_rest(project, call):
    record = (records.root() / "search-1" / "record.json").read_bytes()
    status, out, _ = call("publish", "--preset", "quick")
    target = project / "figures" / "quick"
    assert status == 0 and out == f"published: {target}\n"
    found = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
    own = {"01_t.csv", "01_t.md", "01_f.png", "01_g.json", "index.html", "records.zip"}
    assert found == own | {"README.md"}
    assert not (target / "runs" / "train-9").exists() and (target / "README.md").read_text() == "earlier"
    with zipfile.ZipFile(target / "records.zip") as archive:
        assert archive.namelist() == ["search-1/record.json"] and archive.read("search-1/record.json") == record
    assert f"<dd>{git(project, 'rev-parse', 'HEAD')}</dd>" in (target / "index.html").read_text()


def test_published_records_are_restored_and_packed_to_the_same_bytes(project, call):
    record = (records.root() / "search-1" / "record.json").read_bytes()
    made(name="train-2", kind="train")
    (Output("quick").folder / "01_runs.txt").write_text("search-1\ntrain-2\n")
    publish.publish("quick")
    archived = (project / "figures" / "quick" / "records.zip").read_bytes()
    shutil.rmtree(records.root() / "search-1")
    status, out, _ = call("restore", "--preset", "quick")
    assert status == 0 and out == "1 records restored\n"  # the other is there
    assert (records.root() / "search-1" / "record.json").read_bytes() == record
    assert archive.packed(records.everything()) == archived
    assert call("restore", "--preset", "quick")[1] == "0 records restored\n"
    status, _, err = call("restore", "--preset", "smoke")
    assert status != 0 and "no published records of the preset 'smoke'" in err


@pytest.mark.parametrize(
    "name, content, said",
    [
        ("../search-1/record.json", b"{}", "expected nothing but NAME/record.json"),
        ("search-1/weights.safetensors", b"", "expected nothing but NAME/record.json"),
        ("search-1/record.json", b"{}", "is not a record"),
        (None, b"no zip", r"cannot read '.*records\.zip'"),
    ],
)
def test_an_archive_of_anything_else_is_refused(name, content, said, tmp_path, runs_folder):
    path = tmp_path / "records.zip"
    if name is None:
        path.write_bytes(content)
    else:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr(name, content)
    with pytest.raises(InputError, match=said):
        archive.unpack(path)
    assert records.everything() == [] and not (tmp_path / "search-1").exists()


def test_records_of_another_format_are_left(tmp_path, runs_folder):
    made(format=records.FORMAT - 1)
    path = tmp_path / "records.zip"
    path.write_bytes(archive.packed([records.read(records.root() / "search-1" / "record.json")]))
    shutil.rmtree(records.root() / "search-1")
    assert archive.unpack(path) == (0, 1) and not (records.root() / "search-1").exists()


def test_further_fine_tunings_start_from_published_weights(project, call, monkeypatch):
    """The search is not done again, on whatever processor: its record, and all that hangs on it, stays as it is."""
    monkeypatch.setattr(publish, "load_config", lambda preset, data=None: tiny(seed=0))
    own, other = runs.search(tiny(), device="cpu", quiet=True), runs.search(tiny(seed=99), device="cpu", quiet=True)
    trained = runs.train(tiny().changed(**{"train.init": "concomitant"}), own, device="cpu", quiet=True)
    names = "".join(f"{record.name}\n" for record in (own, other, trained))
    (Output("quick").folder / "01_runs.txt").write_text(names)
    publish.publish("quick")
    packed = (project / "figures" / "quick" / "weights.zip").read_bytes()
    shutil.rmtree(records.root())
    assert call("restore", "--preset", "quick")[1] == "3 records restored, weights of 1\n"
    assert runs.has_weights(own) and not runs.has_weights(other)
    asked = tiny().changed(**{"train.init": "concomitant", "train.lr": 0.003})
    monkeypatch.setattr(runs, "search", None)
    further = runs.train(asked, runs.finished(tiny()), device="cpu", quiet=True)
    assert further.source["weights_sha256"] == trained.source["weights_sha256"] == own.weights_sha256
    assert archive.packed_weights([own]) == packed


def test_weights_that_are_no_record_s_are_left(tmp_path, runs_folder):
    own = runs.search(tiny(), device="cpu", quiet=True)
    path, file = tmp_path / "weights.zip", records.root() / own.name / "weights.safetensors"
    path.write_bytes(archive.packed_weights([own]))
    assert archive.unpack_weights(path) == 0  # they are there
    file.unlink()
    assert archive.unpack_weights(path) == 1 and own.weights()
    file.unlink()
    records.write(records.root() / own.name, own.model_copy(update={"weights_sha256": "0" * 64}))
    assert archive.unpack_weights(path) == 0 and not file.exists()
    shutil.rmtree(records.root() / own.name)
    assert archive.unpack_weights(path) == 0 and not (records.root() / own.name).exists()
    with pytest.raises(InputError, match=r"expected nothing but NAME/weights\.safetensors"):
        archive.unpack_weights(packed_otherwise(tmp_path))


def packed_otherwise(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "other.zip", "w") as file:
        file.writestr("search-1/record.json", b"{}")
    return folder / "other.zip"


def test_some_of_the_notebooks_are_published_and_of_the_rest_is_said_that_it_is_not_there(project, call):
    write(project / "notebooks" / "02_b.ipynb", "y = 1")
    git(project, "add", ".")
    git(project, "commit", "-qm", "second")
    refused = "02_b: This notebook has not been executed"
    status, _, err = call("publish")
    assert status != 0 and refused in err and ".;" not in err
    status, _, err = call("publish", "--only", "02")
    assert status != 0 and refused in err and ".;" not in err
    assert call("publish", "--only", "01")[0] == 0
    target = project / "figures" / "quick"
    assert (target / "01_t.csv").is_file() and "has not been executed" in (target / "index.html").read_text()
    write(Output("quick").folder / "02_b.ipynb", "y = 2", papermill={"parameters": {"preset": "quick"}})
    status, _, err = call("publish", "--only", "01")  # another that is there must be whole and of today, too
    assert status != 0 and "02_b: This notebook was stopped before its end" in err


def test_results_on_other_data_have_a_folder_of_their_own(project, call):
    """They never replace the preset's, and are what was asked for."""
    where = Output("night", ("data=cifar10",))
    shutil.copytree(Output("quick").folder, where.folder, dirs_exist_ok=True)
    asked = ("publish", "--preset", "night", "--data", "cifar10")
    status, _, err = call(*asked)
    assert status != 0 and "night with data=cifar10 are not the preset's own; name their folder" in err
    for name in ("own", "../quick", ""):
        status, _, err = call(*asked, "--folder", name)
        assert status != 0 and "is no name for results" in err
    status, _, err = call(*asked, "--folder", "cifar")
    assert status != 0 and "preset=quick given; expected preset=night, data=cifar10 alone" in err
    executed(parameters={"preset": "night", "data": "cifar10"}, where=where)
    assert call(*asked, "--folder", "cifar")[0] == 0 and (project / "figures" / "cifar" / "01_t.csv").is_file()
    assert (project / "figures" / "quick" / "09_old.svg").is_file() and not (project / "figures" / "night").exists()
    assert "night with data=cifar10" in (project / "figures" / "cifar" / "index.html").read_text()


def changed_code(project):
    (project / "sswp_lib" / "a.py").write_text("2")


def changed_notebook(project):
    write(project / "notebooks" / "01_a.ipynb", "x = 2")
    git(project, "commit", "-qam", "second")


def failed(project):
    executed(parameters={"preset": "quick"})
    path = Output("quick").folder / "01_a.ipynb"
    plain = json.loads(path.read_text())
    plain["cells"][1]["outputs"] = [{"output_type": "error", "ename": "E", "evalue": "no", "traceback": []}]
    path.write_text(json.dumps(plain))


@pytest.mark.parametrize(
    "spoil, said",
    [
        (changed_code, r"changed files: sswp_lib/a.py; commit them"),
        (changed_notebook, r"01_a has changed since it was executed; run sswp reproduce --preset quick first"),
        (failed, r"01_a: This notebook failed: E: no"),
        (lambda p: (Output("quick").folder / "01_a.ipynb").unlink(), r"01_a: This notebook has not been executed"),
        (lambda p: executed(end=None), r"01_a: This notebook was stopped before its end"),
        (lambda p: executed(parameters={"preset": "quick", "seeds": 3}), r"with preset=quick, seeds=3 given"),
        (lambda p: executed(parameters={}), r"with nothing given; expected preset=quick alone"),
        (lambda p: made(provenance={"version": "0.0.0"}), r"search-1 was made by sswp 0\.0\.0"),
        (lambda p: made(format=1), r"format 1; expected .*, format \d+"),
        (lambda p: shutil.rmtree(records.root() / "search-1"), r"records of search-1 are not in the run store"),
        (lambda p: shutil.rmtree(p / ".git"), r"is no git repository"),
    ],
)
def test_refuses_what_the_commit_would_not_give(project, spoil, said):
    spoil(project)
    target = project / "figures" / "quick"
    before = {path: path.read_bytes() for path in target.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=said) as caught:
        publish.publish("quick")
    assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in target.rglob("*") if path.is_file()} == before


def test_unknown_preset_is_refused(project):
    with pytest.raises(InputError, match="did you mean 'quick'"):
        publish.publish("quik")


def ran(path: Path, change: str = "") -> None:
    """Run a notebook and save it as JupyterLab does, with the configuration that `make setup` has written."""
    from jupyter_server.services.contents.largefilemanager import LargeFileManager
    from traitlets.config import Config

    project = path.parents[1]
    (settings,) = (project / ".venv" / "etc" / "jupyter").rglob("*.json")
    made = nbformat.read(path, 4)
    for i, cell in enumerate(c for c in made.cells if c.cell_type == "code"):
        cell.execution_count, cell.outputs = i + 1, [nbformat.v4.new_output("stream", text="said")]
        cell.metadata |= {"execution": {"iopub.status.busy": "2026-01-02"}, "collapsed": True}
    made.metadata["language_info"] = {"name": "python", "version": "3.12.1", "file_extension": ".py"}
    made.metadata["kernelspec"]["display_name"] = "own"
    made.metadata["widgets"] = {"state": {}}
    made.cells[0].source += change
    manager = LargeFileManager(root_dir=str(project), config=Config(json.loads(settings.read_text())))
    model = {"type": "notebook", "format": "json", "content": made}
    manager.save(model, path.relative_to(project).as_posix())


@pytest.fixture
def repository(tmp_path):
    """A repository with the project's notebooks, set up as `make setup` does."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    for name in ("notebooks", "sswp_lib/lab/strip.py", ".gitattributes", ".gitignore", "Makefile"):
        source, target = home() / name, tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(sys.executable)
    git(tmp_path, "init", "-q")
    subprocess.run(["make", "filter"], cwd=tmp_path, check=True, timeout=60, env=os.environ | {"MAKEFLAGS": ""})
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    return tmp_path


def test_notebooks_that_ran_do_not_show_as_changed(repository):
    paths = list((repository / "notebooks").glob("*.ipynb"))
    for path in paths:
        ran(path)
        assert '"said"' in path.read_text()
    assert git(repository, "status", "--porcelain") == "" and git(repository, "diff", "HEAD") == ""
    ran(paths[0], change="changed")
    new = paths[0].with_name("99_new.ipynb")
    shutil.copy(paths[1], new)
    ran(new)
    said = git(repository, "status", "--porcelain").splitlines()
    assert [line.split() for line in said] == [["M", f"notebooks/{paths[0].name}"], ["??", "notebooks/99_new.ipynb"]]
    assert git(repository, "diff", "--cached") == ""  # nothing is staged unasked
    assert "said" not in git(repository, "diff")


def test_without_an_environment_notebooks_are_as_they_are(repository):
    (path, *_) = (repository / "notebooks").glob("*.ipynb")
    (repository / ".venv" / "bin" / "python").unlink()
    ran(path)
    assert git(repository, "status", "--porcelain") == f"M notebooks/{path.name}"
    assert '"said"' in git(repository, "diff")
    git(repository, "commit", "-qam", "as it is")


def test_saving_outside_of_a_repository_does_no_harm(tmp_path):
    write(tmp_path / "a.ipynb", "x = 1")
    before = (tmp_path / "a.ipynb").read_bytes()
    strip.saved(os_path=str(tmp_path / "a.ipynb"), model={}, contents_manager=None)
    assert (tmp_path / "a.ipynb").read_bytes() == before


@pytest.mark.parametrize("path", reproduce.notebooks(), ids=lambda path: path.stem)
def test_notebooks_are_committed_as_the_filter_leaves_them(path):
    text = path.read_text()
    assert strip.stripped(text) == text


@pytest.mark.parametrize("text", ["", "{", '{"cells": [}\n<<<<<<< HEAD', "[1]", '{"cells": [{}]}', '{"cells": 3}'])
def test_what_is_no_notebook_is_left_as_it_is(text):
    assert strip.stripped(text) == text
