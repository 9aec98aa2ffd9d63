"""The one command that changes the reference results: figures/<preset>/ becomes what was reproduced at that preset.

Only for maintainers, and only where what is published is what its provenance says: every notebook executed to its end,
nothing but the preset, no file of the library or of a notebook other than as committed, and every record made by this
version.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from sswp_lib import __version__
from sswp_lib.config import InputError, home
from sswp_lib.lab.reproduce import notebooks
from sswp_lib.paper.output import Output
from sswp_lib.presets import load_config
from sswp_lib.runs import records
from sswp_lib.show import report

KEPT = (".png", ".csv", ".md", ".json", ".html")  # what a visitor looks at; svg, LaTeX and notebooks are made anew
STAYS = ("README.md",)


def publish(preset: str) -> Path:
    """Replace figures/<preset>/; returns it.

    Raises:
        InputError: what was reproduced is not whole, not the preset's own, or not made by what is committed.
    """
    load_config(preset)
    output, target = Output(preset), home() / "figures" / preset
    _check_code()
    for path in notebooks():
        _check_notebook(path.stem, output)
    found, broken = report.used_runs(output)
    if broken:
        raise InputError(f"the record of {broken[0]} cannot be read; run: sswp reproduce --preset {preset}")
    strange = [r.name for r in found if _made_otherwise(r)]
    if strange:
        raise InputError(
            f"{len(strange)} records, such as {strange[0]}, were made by another version or by changed code; remove "
            f"them from {str(records.root())!r} and run: sswp reproduce --preset {preset}"
        )
    written = [path for path in sorted(output.folder.iterdir()) if path.suffix in KEPT]
    _clear(target)
    for path in written:
        shutil.copyfile(path, target / path.name)
    for record in found:
        folder = target / "runs" / record.name
        folder.mkdir(parents=True)
        shutil.copyfile(records.root() / record.name / "record.json", folder / "record.json")
    return target


def _check_code() -> None:
    if records.git("rev-parse", "HEAD") is None:
        raise InputError(f"{str(home())!r} is no git repository; published results name the commit that made them")
    changed = records.git("status", "--porcelain", "--", "sswp_lib", "notebooks")
    if changed:
        raise InputError(f"{changed.split()[-1]!r} is not as committed; commit it, and reproduce again")


def _check_notebook(stem: str, output: Output) -> None:
    done = report.read_notebook(output.folder / f"{stem}.ipynb")
    wrong = report.problem(done)
    if wrong is None:
        given = done.get("metadata", {}).get("papermill", {}).get("parameters", {})
        others = [name for name, value in given.items() if name != "preset" and value not in (None, [])]
        wrong = f"it was given {others[0]}={given[others[0]]!r}." if others else None
    if wrong is None and _code(done) != _code(report.read_notebook(home() / "notebooks" / f"{stem}.ipynb")):
        wrong = "it has changed since it was executed."
    if wrong:
        raise InputError(f"notebook {stem}: {wrong} Run: sswp reproduce --preset {output.preset}")


def _code(notebook: dict[str, Any]) -> list[str]:
    """Return the source of a notebook's code cells, without the parameters that papermill puts in."""
    cells = [cell for cell in notebook.get("cells", []) if cell["cell_type"] == "code"]
    return ["".join(c["source"]) for c in cells if "injected-parameters" not in c["metadata"].get("tags", [])]


def _made_otherwise(record: records.Record) -> bool:
    commit, made = str(record.provenance.get("commit")), (record.provenance.get("version"), record.format)
    return made != (__version__, records.FORMAT) or commit == "None" or commit.endswith("-dirty")


def _clear(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in STAYS:
            path.unlink()
