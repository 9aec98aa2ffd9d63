"""A reader in Chromium: opens notebooks in JupyterLab, as `make lab` starts it, and pages.

Chromium is the system's own. Where $SSWP_SCREENSHOTS names a folder, pictures of what was seen are left there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from sswp_lib.config import home

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE = 1800.0  # seconds that anything may take; a whole notebook on a busy core is the longest
IDLE = "() => ![...document.querySelectorAll('.jp-Notebook .jp-InputPrompt')].some(p => p.textContent.includes('*'))"
DIGESTS = """output => Promise.all([...output.querySelectorAll("img")].map(async image => {
    const digest = await crypto.subtle.digest("SHA-256", await (await fetch(image.src)).arrayBuffer());
    return [...new Uint8Array(digest)].join();
}))"""

# The contrast (WCAG 2) of every text that can be seen to what lies behind it.
CONTRASTS = """() => {
    const parts = colour => colour.match(/[\\d.]+/g).map(Number);
    const light = colour => parts(colour).slice(0, 3).map(v => v / 255)
        .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const clear = colour => parts(colour)[3] === 0;
    const behind = e => e && clear(getComputedStyle(e).backgroundColor) ? behind(e.parentElement)
        : e ? getComputedStyle(e).backgroundColor : "rgb(255, 255, 255)";
    const found = {};
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
        const text = texts.currentNode, holder = text.parentElement;
        if (!text.data.trim() || !holder.checkVisibility() || holder.closest("title, style")) continue;
        const style = getComputedStyle(holder);
        const pair = [holder instanceof SVGElement ? style.fill : style.color, behind(holder)];
        const [a, b] = pair.map(light).sort((x, y) => y - x);
        found[pair.join(" on ") + ": " + text.data.trim().slice(0, 40)] = (a + 0.05) / (b + 0.05);
    }
    return found;
}"""


def until(condition: Callable[[], Any], what: str) -> Any:
    """Wait until a condition holds; return what it returned."""
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < end, f"waited {PATIENCE:.0f} s: {what}"
        time.sleep(0.1)
    return found


def screenshot(page, name: str, **options: Any) -> None:
    if folder := os.environ.get("SSWP_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", **options)


def copy_of_project(folder: Path) -> Path:
    """Copy what `make lab` needs, so that whatever is run and saved there leaves the project as it is."""
    own = shutil.ignore_patterns("own", "__pycache__", ".ipynb_checkpoints")
    for name in ("sswp_lib", "notebooks"):
        shutil.copytree(home() / name, folder / name, ignore=own)
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(home() / name, folder)
    return folder


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab."""

    url: str
    token: str
    notebooks: Path
    figures: Path


@contextmanager
def jupyterlab(project: Path, runs: Path, settings: Path) -> Iterator[Lab]:
    """Start JupyterLab in a copy of the project by `make lab`, without the set-up, for that is done.

    Args:
        settings: an empty folder that takes the place of the user's own settings.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "MAKE", "MFL"))}
    environment |= {f"JUPYTER_{kind}_DIR": str(settings / kind) for kind in ("CONFIG", "DATA", "RUNTIME")}
    environment |= {"IPYTHONDIR": str(settings / "ipython"), "JUPYTER_PORT": "0", "JUPYTER_TOKEN": "a-token"}
    environment |= {"SSWP_RUNS": str(runs), "PYTHONPATH": str(project), "OMP_NUM_THREADS": "1"}
    _configure(settings / "CONFIG")
    command = ["make", "-o", "setup", "lab", f"BIN={Path(sys.executable).parent}"]
    with (settings / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=project, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield until(lambda: _started(settings, project, process), "JupyterLab's start")
    finally:
        _stop(process)


def _configure(folder: Path) -> None:
    """Let no browser be opened, and answer beforehand what JupyterLab asks at its first start."""
    quiet = {"open_browser": False}
    answers = folder / "lab" / "user-settings" / "@jupyterlab" / "apputils-extension"
    answers.mkdir(parents=True)
    (folder / "jupyter_server_config.json").write_text(json.dumps({"ServerApp": quiet, "ExtensionApp": quiet}))
    (answers / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')


def _started(settings: Path, project: Path, process: subprocess.Popen) -> Lab | None:
    assert process.poll() is None, (settings / "log").read_text()
    for path in (settings / "RUNTIME").glob("jpserver-*.json"):
        try:
            said = json.loads(path.read_text())
        except ValueError:  # half written
            return None
        return Lab(said["url"], said["token"], Path(said["root_dir"]), project / "figures" / "own")
    return None


def _stop(process: subprocess.Popen) -> None:
    family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    for child in family:
        if "jupyter-lab" in " ".join(child.cmdline()):
            child.send_signal(signal.SIGTERM)  # it ends its kernels
    for left in psutil.wait_procs(family, timeout=30)[1]:
        left.kill()
    process.wait()


class Notebook:
    """A notebook that is open in a page."""

    def __init__(self, browser, lab: Lab, name: str):
        self.path, self.page = lab.notebooks / name, browser.new_page(viewport={"width": 1400, "height": 900})
        self.page.set_default_timeout(1000 * PATIENCE)
        self.page.goto(f"{lab.url}lab/workspaces/{self.path.stem}/tree/{name}?token={lab.token}")
        self.code = [cell for cell in self.read()["cells"] if cell["cell_type"] == "code"]
        self.cells = self.page.locator(".jp-CodeCell")
        self.cells.nth(len(self.code) - 1).wait_for(state="attached")
        self.page.locator('.jp-Notebook-ExecutionIndicator:not([data-status="unknown"])').wait_for()

    def read(self) -> dict[str, Any]:
        """Return the notebook as it lies on the disk."""
        return json.loads(self.path.read_text())

    def cell(self, text: str):
        """Return the code cell that holds a text."""
        return self.cells.nth(next(i for i, cell in enumerate(self.code) if text in "".join(cell["source"])))

    def set(self, name: str, value: Any) -> None:
        """Type another value of a parameter."""
        self.page.locator(".cm-line", has_text=re.compile(rf"^{name} = ")).first.click()
        self.page.keyboard.press("Home")
        self.page.keyboard.press("Shift+End")
        self.page.keyboard.insert_text(f"{name} = {json.dumps(value)}")

    def start_all(self) -> None:
        """Choose "Run All Cells" in the menu; the first cell has run when this returns."""
        before = self.prompt(0)
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        until(lambda: self.prompt(0) not in (before, "[*]:"), "the first cell")

    def run_all(self) -> None:
        self.start_all()
        self.wait()

    def run(self, cell) -> None:
        """Run one cell by the keyboard."""
        cell.locator(".cm-content").click()
        self.page.keyboard.press("Control+Enter")
        cell.locator(".jp-InputPrompt", has_text="*").wait_for(state="attached")
        self.wait()

    def wait(self) -> None:
        """Wait until nothing runs any more."""
        self.page.wait_for_function(IDLE)

    def prompt(self, index: int) -> str:
        return self.cells.nth(index).locator(".jp-InputPrompt").text_content().strip()

    def save(self) -> dict[str, Any]:
        """Save by the keyboard; return the notebook as it was written."""
        self.page.keyboard.press("Control+s")
        self.page.locator(".lm-TabBar-tab.jp-mod-dirty").wait_for(state="detached")
        return self.read()


def output_of(cell) -> str:
    """Return what is written below a cell."""
    return "\n".join(text.strip() for text in cell.locator(".jp-OutputArea-output").all_text_contents())


def pictures_beside(control) -> list[str] | None:
    """Return the pictures in the same output as a control, as digests; None while one is being replaced."""
    from playwright.sync_api import Error

    output = control.locator("xpath=ancestor::div[contains(concat(' ', @class, ' '), ' jp-OutputArea-output ')]")
    try:
        return output.evaluate(DIGESTS)
    except Error:
        return None
