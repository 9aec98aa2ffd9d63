"""The record of a finished run: plain JSON, read back as data.

Figures, tables and claims are made from records alone.
"""

from __future__ import annotations

import os
import platform
import subprocess
import time
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from sswp_lib.config import InputError, home, one_line, suggest
from sswp_lib.runs import files
from sswp_lib.space import Genotype


class Record(BaseModel):
    """A finished run, as plain data. `provenance` says where, when and with what; the rest is the same wherever it is
    redone.
    """

    model_config = ConfigDict(frozen=True)
    name: str
    kind: str
    config: dict[str, Any]
    seed: int
    source: dict[str, Any] = {}
    history: list[dict[str, Any]] = []
    result: dict[str, Any]
    weights_sha256: str | None = None
    provenance: dict[str, Any]

    @cached_property
    def genotype(self) -> Genotype:
        """The genotype found, or trained."""
        plain = self.result.get("genotype") or self.source.get("genotype")
        if plain is None:
            raise InputError(
                f"run {self.name} is a {self.kind} measurement without a genotype; give a search or a training"
            )
        return Genotype.model_validate(plain)

    def weights(self) -> dict[str, Tensor]:
        """The run's weights: concomitant ones of a search, trained ones of a training."""
        return files.read_weights(root() / self.name / "weights.safetensors", self.weights_sha256)


@dataclass(frozen=True)
class Done:
    """A finished run of a comparison: its labels, such as {"arm": "SSL+FPP", "what": "scratch", "seed": 0}, and its
    record.
    """

    labels: dict[str, Any]
    record: Record


def root() -> Path:
    """Return the folder of all runs: $SSWP_RUNS, or runs/ in the project."""
    return Path(os.environ.get("SSWP_RUNS") or home() / "runs")


def read(path: Path) -> Record:
    """Return a finished run's record; InputError names the file and what is wrong in it."""
    try:
        return Record.model_validate(files.read_json(path))
    except ValidationError as error:
        raise InputError(f"{str(path)!r} is not a record: {one_line(error)}; remove it to have it made anew") from None


def everything() -> list[Record]:
    """Return all finished runs, by name."""
    return [read(path) for path in sorted(root().glob("*/record.json"))]


def find(name: str) -> Record:
    """Return the finished run of that name, or the one whose name begins so."""
    names = [path.parent.name for path in sorted(root().glob("*/record.json"))]
    matches = [n for n in names if n == name] or [n for n in names if n.startswith(name)]
    if len(matches) != 1:
        problem = (
            f"{len(matches)} runs begin with {name!r}: {', '.join(matches)}"
            if matches
            else f"no finished run {name!r}{suggest(name, names) if names else '; none is finished yet'}"
        )
        raise InputError(problem)
    return read(root() / matches[0] / "record.json")


def environment(device: str) -> dict[str, Any]:
    """Return versions, device, machine and git commit: what a record says of where it was made."""
    packages = {name: version(name) for name in ("torch", "torchvision", "kornia", "numpy")}
    hardware = (
        torch.cuda.get_device_name(device)
        if device.startswith("cuda")
        else f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    )
    try:
        commit = (
            subprocess.run(
                ["git", "rev-parse", "HEAD"], cwd=home(), capture_output=True, text=True, timeout=10
            ).stdout.strip()
            or None
        )
    except OSError:
        commit = None
    return {
        "python": platform.python_version(),
        **packages,
        "device": device,
        "hardware": hardware,
        "commit": commit,
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
