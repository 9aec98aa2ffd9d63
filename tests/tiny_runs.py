"""Runs that take a second or two, and processes that do one; shared by the tests of the run store and of the
command.
"""

import json
import os
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image

from sswp_lib.config import Config
from sswp_lib.learn.search import Search
from sswp_lib.presets import load_config
from sswp_lib.runs import carrying_out, files, runs
from sswp_lib.runs.progress import Line
from sswp_lib.space import Genotype

TINY = {
    "search.epochs": 3, "search.batch_size": 200, "search.ratios": (0.0, 0.5, 0.5), "search.alpha_every": 1,
    "search.calibration_batches": 1, "model.num_cells": 2, "model.init_channels": 2, "model.projection_dim": 8,
    "data.image_size": 8, "train.epochs": 3, "train.batch_size": 8, "train.cutout": 0,
}  # fmt: skip
SMALL = [word for name, value in TINY.items() for word in ("--set", f"{name}={json.dumps(value)}")]
TINY_RUN = ["--preset", "smoke", "--device", "cpu", "--quiet", *SMALL]
ON_FOLDER = [
    *TINY_RUN,
    "--set",
    "search.batch_size=4",
    "--set",
    "search.epochs=2",
    "--set",
    "train.batch_size=2",
    "--set",
    "train.epochs=1",
]


class Dangerous:
    """Its pickle creates a file when it is run."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def tiny(**settings) -> Config:
    """Return a configuration of 9 weight steps; dots of setting names are given as two underscores."""
    return load_config("smoke", settings=TINY | {name.replace("__", "."): value for name, value in settings.items()})


def plain(record: runs.Record) -> dict:
    """Return everything of a record but where, when and with what it was made."""
    return record.model_dump(mode="json", exclude={"provenance"})


def images(folder: Path, parts: dict[str, int], size: int = 12, suffix: str = ".png", seed: int = 0) -> Path:
    """Write random images: {"train/a": 20} makes 20 of them in folder/train/a."""
    rng = np.random.default_rng(seed)
    for part, count in parts.items():
        (folder / part).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(
                folder / part / f"{i:03d}{suffix}"
            )
    return folder


def genotype_file(tmp_path, change=None):
    """Write a genotype of two cells, after `change` has been at its plain data."""
    plain = Genotype.published("DARTS_V2", 2).model_dump(mode="json")
    if change:
        change(plain["cells"])
    (tmp_path / "genotype.json").write_text(json.dumps(plain))
    return tmp_path / "genotype.json"


def do_search(**settings) -> runs.Record:
    return runs.search(tiny(**settings), device="cpu", quiet=True)


def name_of(config: Config, kind: str = "search") -> str:
    return carrying_out.Asked(kind, runs._identity(config, kind)).name


def search_in(folder: Path, config: Config, steps) -> None:
    """Do a search in another folder of runs, with a checkpoint after every step; release `steps` at each, and often at
    its end.

    For a process of its own, to be killed.
    """
    os.environ["SSWP_RUNS"] = str(folder)
    carrying_out.CHECKPOINT_SECONDS = -1.0
    Line.update = lambda *args: steps.release()
    runs.search(config, device="cpu", quiet=True)
    for _ in range(100):
        steps.release()


def search_and_tell(folder: Path, config: Config, waiting, told) -> None:
    """Do a search and tell how many steps this process itself did, and the record."""
    os.environ["SSWP_RUNS"] = str(folder)
    steps, train_step, note = [], Search.train_step, Line.note

    def counted(self):
        steps.append(self.step)
        train_step(self)

    def heard(self, text):
        if "waiting" in text:
            waiting.release()
        note(self, text)

    Search.train_step, Line.note = counted, heard
    record = runs.search(config, device="cpu", quiet=True)
    told.put((len(steps), record.model_dump(mode="json")))


def ask_for_all(folder: Path, configs: list[Config], told) -> None:
    """Ask for several runs, and tell {seed: how many of its steps this process did} and the records."""
    os.environ["SSWP_RUNS"] = str(folder)
    steps, train_step = Counter(), Search.train_step

    def counted(self):
        steps[self.config.seed] += 1
        train_step(self)

    Search.train_step = counted
    records = [runs.search(config, device="cpu", quiet=True) for config in configs]
    told.put((dict(steps), {record.seed: record.model_dump(mode="json") for record in records}))


class Stop(Exception):
    """Stands for whatever ends a process in the middle of a run."""


def stop_at(monkeypatch, loop: type, count: int, error: type[BaseException] = Stop) -> None:
    """Make the loop stop before its `count`-th step from now."""
    done, train_step = [], loop.train_step

    def step(self):
        if len(done) == count:
            raise error
        done.append(self.step)
        train_step(self)

    monkeypatch.setattr(loop, "train_step", step)


def interrupted(monkeypatch, config: Config, count: int) -> Path:
    """Leave a search after `count` steps, a checkpoint after each; return its folder of checkpoints."""
    monkeypatch.setattr(carrying_out, "CHECKPOINT_SECONDS", -1.0)
    with monkeypatch.context() as patched:
        stop_at(patched, Search, count)
        with suppress(Stop):
            runs.search(config, device="cpu", quiet=True)
    (folder,) = [path for path in runs.root().glob("*/checkpoints") if files.checkpoints(path)]
    return folder
