"""What people do to notebooks with the tools of the Jupyter ecosystem leaves them whole."""

from __future__ import annotations

import copy
import subprocess
import sys
import warnings
from pathlib import Path

import jupytext
import nbconvert
import nbdime
import nbformat
import papermill
import pytest

from sswp_lib.config import home
from sswp_lib.lab import estimate
from sswp_lib.lab.strip import stripped
from sswp_lib.paper import setups
from sswp_lib.paper.output import Output
from sswp_lib.presets import load_config

NOTEBOOKS = sorted((home() / "notebooks").glob("[0-9]*.ipynb"))
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def parts(made: nbformat.NotebookNode) -> list[tuple[str, str, list[str]]]:
    return [(cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in made.cells]


def as_used(made: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return a notebook as JupyterLab or VS Code leave it: with outputs, counts, widgets and metadata of their own."""
    used = copy.deepcopy(made)
    used.metadata |= {"kernelspec": {"name": "own", "display_name": ".venv (3.12)"}, "vscode": {"interpreter": {}}}
    used.metadata |= {"widgets": {"application/vnd.jupyter.widget-state+json": {"state": {}}}}
    for count, cell in enumerate(used.cells):
        cell.metadata |= {"collapsed": True, "vscode": {"languageId": "python"}}
        if cell.cell_type == "code":
            cell.execution_count = count + 1
            cell.outputs = [nbformat.v4.new_output("stream", text="done\n")]
    return used


@each
@pytest.mark.parametrize("kind", ["py:percent", "md"])
def test_pairs_of_jupytext_keep_cells_tags_and_kernel(path, kind):
    made = read(path)
    back = jupytext.reads(jupytext.writes(made, kind), kind)
    assert parts(back) == parts(made) and back.metadata.kernelspec == made.metadata.kernelspec


@each
def test_papermill_finds_the_parameters_in_a_pair(path, tmp_path):
    pair = tmp_path / "pair.ipynb"
    nbformat.write(jupytext.reads(jupytext.writes(read(path), "py:percent"), "py:percent"), pair)
    assert set(papermill.inspect_notebook(pair)) == set(estimate.parameters(path))


@each
def test_using_a_notebook_is_no_change_and_a_change_is_one(path):
    """By nbdime and by git's filter: what others see of a notebook that was run is what was written in it."""
    made = read(path)
    used = nbformat.reads(stripped(nbformat.writes(as_used(made))), as_version=4)
    assert not nbdime.diff_notebooks(made, used)
    place = next(i for i, cell in enumerate(used.cells) if "parameters" in cell.metadata.get("tags", []))
    used.cells[place].source = used.cells[place].source.replace('"quick"', '"smoke"')
    (found,) = nbdime.diff_notebooks(made, used)
    assert (found.key, [change.key for change in found.diff]) == ("cells", [place])


@each
def test_a_notebook_is_of_the_format_that_all_read(path):
    made = read(path)
    nbformat.validate(made)
    assert (made.nbformat, made.nbformat_minor) == (4, 5) and len({cell.id for cell in made.cells}) == len(made.cells)


@each
@pytest.mark.parametrize("exporter", [nbconvert.HTMLExporter, nbconvert.SlidesExporter])
def test_pages_show_every_cell(path, exporter):
    made = read(path)
    page, _ = exporter().from_notebook_node(made)
    code = [cell for cell in made.cells if cell.cell_type == "code"]
    assert page.count("jp-InputArea-editor") >= len(code)


@each
def test_another_python_is_told_in_the_first_cell(path, tmp_path):
    first = next(cell.source for cell in read(path).cells if cell.cell_type == "code")
    (tmp_path / "cell.py").write_text(first)
    done = subprocess.run([sys.executable, "-I", "-S", "cell.py"], cwd=tmp_path, capture_output=True, text=True)
    assert "No module named 'sswp_lib'" in done.stderr and "make setup, make lab" in done.stderr


def test_the_kit_of_another_folder_is_told(tmp_path, monkeypatch):
    """A kernel may run the code of another clone than that in which the notebook lies."""
    told = lambda: setups.described(load_config("smoke"), 2, Output("smoke"), "cpu")  # noqa: E731
    monkeypatch.chdir(home() / "notebooks")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        told()
    (tmp_path / "sswp_lib").mkdir()
    (tmp_path / "sswp_lib" / "__init__.py").touch()
    (tmp_path / "notebooks" / "own").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "notebooks" / "own")
    with pytest.warns(UserWarning, match=rf"the kit of {home()}, not of {tmp_path}"):
        told()
