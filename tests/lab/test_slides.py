"""Slides begin at headings, show what can be seen, and hold their figures themselves."""

from __future__ import annotations

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from sswp_lib.config import InputError
from sswp_lib.lab import slides
from sswp_lib.paper import output

PICTURE = new_output("display_data", data={"image/png": "iVBORw0KGgo="})


@pytest.mark.parametrize(
    "cell, expected",
    [
        (new_markdown_cell("# Title"), "slide"),
        (new_markdown_cell("## Part\n\nText"), "slide"),
        (new_markdown_cell("### Smaller"), "subslide"),
        (new_markdown_cell("Text alone"), "subslide"),
        (new_code_cell("import torch", execution_count=1), "skip"),
        (new_code_cell("plot()", execution_count=2, outputs=[PICTURE]), "subslide"),
        (new_code_cell("plot()"), "subslide"),
    ],
)
def test_what_a_cell_is(cell, expected):
    assert slides.kind(cell) == expected


def test_the_executed_copy_is_shown_where_there_is_one(tmp_path, monkeypatch):
    monkeypatch.setattr(slides, "home", lambda: tmp_path)
    monkeypatch.setattr(output, "home", lambda: tmp_path)
    for folder, text in (("notebooks", "as it is"), ("figures/own/quick", "as it ran")):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        cells = [new_markdown_cell(f"# Notebook {text}"), new_code_cell("f", execution_count=1, outputs=[PICTURE])]
        nbformat.write(new_notebook(cells=cells), tmp_path / folder / "01_a.ipynb")
    monkeypatch.setattr(slides, "chosen", lambda only, start: [tmp_path / "notebooks" / "01_a.ipynb"])
    (path,) = slides.slides("quick", ["01"])
    assert path == tmp_path / "figures" / "own" / "slides" / "01_a.html"
    page = path.read_text()
    assert "Notebook as it ran" in page and "data:image/png;base64,iVBORw0KGgo=" in page
    (path,) = slides.slides("smoke", ["01"])
    assert "Notebook as it is" in path.read_text()


def test_a_wrong_preset_is_refused():
    with pytest.raises(InputError, match="did you mean 'quick'"):
        slides.slides("quik")
