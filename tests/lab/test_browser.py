"""What a reader sees in a browser: notebooks in JupyterLab, their controls, one line where something is wrong or was
interrupted; and the report's page on a wide screen and on a telephone, light and dark.
"""

from __future__ import annotations

import json
import re
import shutil
import zipfile

import browsing
import pytest
from browsing import Notebook, output_of, pictures_beside, screenshot, until

from sswp_lib.config import home
from sswp_lib.paper import output
from sswp_lib.paper.output import Output
from sswp_lib.runs import archive, records
from sswp_lib.show import report

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
pytestmark = [
    pytest.mark.skipif(browsing.CHROMIUM is None, reason="no Chromium: make chromium says how to install it"),
    pytest.mark.skipif(shutil.which("make") is None, reason="no make"),
]

# A search of a few seconds: long enough to be interrupted, with a checkpoint on the way.
LONG = ["search.batch_size=200", "model.num_cells=2", "model.init_channels=2"]
FEW_CELLS = ("preset = ", "import inspect", "setups.configured", "runs.search(config")
SEARCH = FEW_CELLS[-1]
BESIDE = "e => e.getBoundingClientRect().right > innerWidth"


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=browsing.CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory, smoke_runs):
    project = browsing.copy_of_project(tmp_path_factory.mktemp("project"))
    with browsing.jupyterlab(project, smoke_runs, tmp_path_factory.mktemp("settings")) as started:
        yield started


@pytest.fixture(scope="module")
def few_cells(lab):
    """The cells of notebook 01 that lead to its search, as a notebook of their own."""
    whole = json.loads((home() / "notebooks" / "01_search.ipynb").read_text())
    cells = [next(c for c in whole["cells"] if text in "".join(c["source"])) for text in FEW_CELLS]
    (lab.notebooks / "few_cells.ipynb").write_text(json.dumps(whole | {"cells": cells}))
    return "few_cells.ipynb"


@pytest.fixture
def search(browser, lab, few_cells):
    """That notebook, open, at the preset `smoke`; its kernel stays from test to test."""
    opened = Notebook(browser, lab, few_cells)
    opened.set("preset", "smoke")
    yield opened
    opened.page.close()


def move(slider, name: str):
    """Move a slider by the arrow keys until another picture is there, for a step may be too small to be seen; and back
    again.
    """
    place = lambda: slider.evaluate("handle => handle.parentElement.style.transform")  # noqa: E731
    before, at, keys = pictures_beside(slider), place(), ["ArrowRight", "ArrowLeft"]
    if slider.get_attribute("aria-valuenow") == slider.get_attribute("aria-valuemax"):
        keys.reverse()

    def pressed() -> bool:
        slider.press(keys[0])
        return pictures_beside(slider) not in (before, None)

    until(pressed, "another picture")
    screenshot(slider.page, name)
    assert before and place() != at
    while place() != at:
        slider.press(keys[1])
    until(lambda: pictures_beside(slider) == before, "the first picture")


@pytest.mark.parametrize("path", sorted((home() / "notebooks").glob("0[01]_*.ipynb")), ids=lambda path: path.stem)
def test_notebook_runs_and_its_controls_follow_the_keyboard(path, browser, lab):
    notebook = Notebook(browser, lab, path.name)
    notebook.set("preset", "smoke")
    notebook.run_all()
    code = [cell for cell in notebook.save()["cells"] if cell["cell_type"] == "code"]
    assert [o for cell in code for o in cell["outputs"] if o["output_type"] == "error"] == []
    assert all(cell["execution_count"] for cell in code)
    assert list((lab.figures / "smoke").glob(f"{path.name[:2]}_*.png"))
    sliders = notebook.page.get_by_role("slider")
    assert sliders.count() >= sum("".join(cell["source"]).count("widgets.") for cell in code)
    for number, slider in enumerate(sliders.all()):
        move(slider, f"{path.stem}_{number}")
    notebook.page.close()


def test_misspelt_parameter_is_said_in_one_line(search):
    search.set("preset", "quik")
    search.run_all()
    said = output_of(search.cell("setups.configured"))
    screenshot(search.page, "misspelt")
    assert re.fullmatch(r"InputError: .*'quik'.*did you mean 'quick'\?", said), said
    assert output_of(search.cell(SEARCH)) == ""


def started(search, runs, epochs: int):
    """Start a search of so many epochs and wait for its first checkpoint; return its folder."""
    before = set(runs.glob("search-*"))
    search.set("settings", [*LONG, f"search.epochs={epochs}"])
    search.start_all()
    made = lambda: [p.parent for p in runs.glob("search-*/checkpoints/*") if p.parent.parent not in before]  # noqa: E731
    folder = until(made, "a checkpoint")[0].parent
    until(lambda: "epoch" in output_of(search.cell(SEARCH)), "a line of progress")
    assert not (folder / "record.json").exists()
    return folder


def test_interrupted_search_says_how_to_go_on_and_goes_on(search, smoke_runs):
    folder, cell = started(search, smoke_runs, epochs=40), search.cell(SEARCH)
    search.page.get_by_role("button", name="Interrupt the kernel").click()
    search.wait()
    said = output_of(cell).splitlines()
    screenshot(search.page, "interrupted")
    assert re.fullmatch(rf"Stopped: {folder.name} at epoch \d+ of 40; run the cell again to go on", said[-1].strip()), (
        said
    )
    assert "Traceback" not in "".join(said) and not (folder / "record.json").exists()
    search.run(cell)
    screenshot(search.page, "taken_up")
    assert "taken up at epoch" in output_of(cell) and "done in" in output_of(cell)
    assert records.read(folder / "record.json").provenance["resumed"] == 1


def test_search_ends_with_its_tab_closed_and_is_found_again(search, browser, lab, few_cells, smoke_runs):
    folder = started(search, smoke_runs, epochs=120)  # it must outlast the tab
    search.save()
    search.page.close()
    assert not (folder / "record.json").exists()
    again = Notebook(browser, lab, few_cells)
    record = until(lambda: (folder / "record.json").is_file() and records.read(folder / "record.json"), "the record")
    again.run(again.cell(SEARCH))
    screenshot(again.page, "found_again")
    said = output_of(again.cell(SEARCH))
    assert "multiply-adds" in said and "taken up" not in said
    assert records.read(folder / "record.json") == record and record.provenance["resumed"] == 0
    again.page.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    """The report of all tables of the reference, every third of its figures (to pack one takes a while) and a few of
    its records, by the templates as they are.
    """
    project, reference = tmp_path_factory.mktemp("report"), home() / "figures" / "quick"
    left_out = {path.name for i, path in enumerate(sorted(reference.glob("*.png"))) if i % 3}
    folder = project / "figures" / "own" / "quick"
    shutil.copytree(reference, folder, ignore=lambda *_: left_out)
    with zipfile.ZipFile(reference / archive.NAME) as published:
        published.extractall(project / "runs", published.namelist()[::40])
    names = "".join(f"{path.name}\n" for path in (project / "runs").iterdir())
    for path in (home() / "notebooks").glob("[0-9]*.ipynb"):
        executed = json.loads(path.read_text())
        executed["metadata"]["papermill"] = {"end_time": "2026-01-02T03:04:05", "duration": 61.0}
        (folder / path.name).write_text(json.dumps(executed))
        report.runs_file(folder / path.name).write_text(names)
    with pytest.MonkeyPatch.context() as patch:
        for module in (report, output, records):
            patch.setattr(module, "home", lambda: project)
        patch.setenv("SSWP_RUNS", str(project / "runs"))
        return report.build(Output("quick"))


@pytest.fixture(scope="module")
def page(browser, page_file):
    """That page, open, and what the browser has complained of."""
    page, complaints = browser.new_page(), []
    page.on("console", lambda message: complaints.append(message.text) if message.type != "log" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(page_file.as_uri())
    yield page, complaints
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 400])
def test_report_fits_its_screen_and_can_be_read(width, scheme, page, page_file):
    (page, complaints), figures = page, len(list(page_file.parent.glob("[0-9]*.png")))
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    broken = "[...document.images].filter(i => !(i.complete && i.naturalWidth && i.alt.trim())).map(i => i.outerHTML)"
    assert page.evaluate("document.images.length") == figures and page.evaluate(broken) == []
    beside = f"[...document.querySelectorAll('caption, .ledger td')].filter({BESIDE}).map(e => e.textContent)"
    assert page.evaluate(beside) == []
    faint = page.evaluate(browsing.CONTRASTS)
    assert len(faint) > 5 and {said: at for said, at in faint.items() if at < 4.5} == {}  # WCAG 2, level AA
    assert complaints == []
    screenshot(page, f"report_{width}_{scheme}", full_page=True)
