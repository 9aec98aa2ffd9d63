"""Runs the notebooks by papermill, one process each, and leaves them with their figures in figures/<preset>/."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from sswp_lib.config import InputError, home, load_config, suggest
from sswp_lib.lab.progress import duration
from sswp_lib.lab.tables import figures_folder

SEEDS = {"smoke": 2}  # of each comparison; other presets: the notebooks' own default


def notebooks() -> list[Path]:
    """Return the project's notebooks in order."""
    return sorted((home() / "notebooks").glob("[0-9]*.ipynb"))


def chosen(only: list[str] | None) -> list[Path]:
    """Return the notebooks whose names begin with one of `only`; all if there is none."""
    everything = notebooks()
    names = [path.stem for path in everything]
    for start in only or []:
        if not any(name.startswith(start) for name in names):
            raise InputError(f"no notebook begins with {start!r}{suggest(start, names)}")
    return [path for path in everything if not only or path.stem.startswith(tuple(only))]


def reproduce(preset: str, data: str | None = None, only: list[str] | None = None, seeds: int | None = None) -> list[str]:
    """Run the notebooks; returns the names of those that failed. Finished runs are not done again."""
    load_config(preset, data)  # refuses an unknown preset or data set before anything starts
    failed = []
    for path in chosen(only):
        started = time.monotonic()
        print(f"{path.stem}: started (preset {preset})", flush=True)
        done = execute(path, figures_folder(preset) / path.name, parameters(preset, data, seeds))
        print(f"{path.stem}: {'done' if done else 'FAILED'} in {duration(time.monotonic() - started)}", flush=True)
        failed += [] if done else [path.stem]
    print(f"figures and executed notebooks: {figures_folder(preset)}")
    return failed


def parameters(preset: str, data: str | None, seeds: int | None) -> dict[str, str]:
    """Return what the notebooks' parameter cells are given; the rest keeps the notebooks' own values."""
    seeds = seeds or SEEDS.get(preset)
    given = {"preset": preset, "data": data, "seeds": seeds}
    return {name: str(value) for name, value in given.items() if value is not None}


def execute(source: Path, target: Path, given: dict[str, str]) -> bool:
    """Run one notebook in a process of its own; the executed copy is written as it goes on. Returns whether it ended well."""
    options = [word for name, value in given.items() for word in ("-p", name, value)]
    bar = "--progress-bar" if sys.stderr.isatty() else "--no-progress-bar"
    command = [sys.executable, "-m", "papermill", str(source.relative_to(home())), str(target.relative_to(home())), *options, bar]
    return subprocess.run(command, cwd=home(), check=False).returncode == 0
