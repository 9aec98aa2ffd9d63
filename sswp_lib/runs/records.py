"""The record of a finished run: plain JSON, read back as data.

Figures, tables and claims are made from records alone. A record's file bears the checksum of its own content, so that
no number in it can be changed without its being seen.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from sswp_lib import __version__
from sswp_lib.config import InputError, home, html_table, one_line, suggest
from sswp_lib.runs import files
from sswp_lib.space import Choices, Genotype
from sswp_lib.space.texts import read as read_architecture

FORMAT = 3  # part of every name; raised when the code comes to other results than before (tests/golden.py)
CHECKSUM = "record_sha256"  # of everything else in a record's file
KEPT = 32  # records, of those read last; ours


class Record(BaseModel):
    """A finished run, as plain data. `provenance` says where, when and with what; the rest is the same wherever it is
    redone.
    """

    model_config = ConfigDict(frozen=True)
    name: str
    format: int = FORMAT
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

    @property
    def architecture(self) -> Genotype | Choices | None:
        """What the run found or trained, in whatever space; None where it is about none."""
        found, given = self.result, self.source
        plain = found.get("genotype") or given.get("genotype") or given.get("choices") or found.get("best")
        return read_architecture(json.dumps(plain)) if plain else None

    @property
    def accuracies(self) -> dict[str, dict[str, float]]:
        """What a training is judged by: {"test" and, where images were held out, "validation": {"top1": percent, ...}};
        empty of other runs.

        They are those with BatchNorm's statistics computed anew, where the run did that (`train.calibrate`): running
        averages begin at mean 0 and variance 1, and after some tens of steps they still show it, in a random start more
        than in weights that bring their statistics. A frozen backbone keeps those that its classifier was learnt on.
        """
        frozen = self.config.get("train", {}).get("freeze") == "backbone"
        found = self.result if frozen else self.result.get("calibrated", self.result)
        return {part: found[part] for part in ("test", "validation") if part in found}

    def outcome(self) -> dict[str, str]:
        """Return the few numbers that say how it went: of a search its loss and what it found, of a training its test
        accuracy, else its loss.
        """
        result, last = self.result, self.history[-1] if self.history else {}
        if "test" in self.accuracies:
            return {"test accuracy": f"{self.accuracies['test']['top1']:.2f} %"}
        said = {"loss": f"{last['loss']:.3f}"} if "loss" in last else {}
        if self.kind == "search" and "parameters" in result:
            said |= {
                "parameters": f"{result['parameters'] / 1e6:.3f} M",
                "skips": f"{100 * result['skip_share']:.0f} %",
            }
        return said

    def __repr__(self) -> str:
        said = [f"{name} {value}" for name, value in self.outcome().items()]
        return f"<{', '.join([f'{self.name}: seed {self.seed}', *said])}>"

    def _repr_html_(self) -> str:
        made = {name: self.provenance[name] for name in ("seconds", "device", "finished") if name in self.provenance}
        made |= {"seconds": f"{made['seconds']:.1f}"} if "seconds" in made else {}
        data = self.config.get("data", {}).get("name")
        return html_table(self.name, ({"data": data} if data else {}) | {"seed": self.seed} | self.outcome() | made)

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

    def __repr__(self) -> str:
        return f"<{', '.join(f'{name} {value}' for name, value in self.labels.items())}: {self.record!r}>"

    def _repr_html_(self) -> str:
        return html_table(self.record.name, self.labels | self.record.outcome())


def root() -> Path:
    """Return the folder of all runs: $SSWP_RUNS, or runs/ in the project."""
    return Path(os.environ.get("SSWP_RUNS") or home() / "runs")


def write(folder: Path, record: Record) -> None:
    """Write a finished run's record into its folder."""
    plain = record.model_dump(mode="json")
    files.write_json(folder / "record.json", plain | {CHECKSUM: _checksum(plain)})


def read(path: Path) -> Record:
    """Return a finished run's record; InputError names the file and what is wrong in it. Whoever reads it shares it."""
    try:
        there = path.stat()
    except OSError:
        return _read(path)  # which says what is wrong
    return _kept(path, there.st_mtime_ns, there.st_size, there.st_ino)


@lru_cache(maxsize=KEPT)
def _kept(path: Path, *stamp: int) -> Record:
    """Return a record that has not changed since it was read: dozens of trainings ask for one search's."""
    return _read(path)


def _read(path: Path) -> Record:
    plain = files.read_json(path)
    stated = plain.pop(CHECKSUM, None) if isinstance(plain, dict) else None
    try:
        record = Record.model_validate(plain)
    except ValidationError as error:
        raise InputError(f"{str(path)!r} is not a record: {one_line(error)}; remove it to have it made anew") from None
    if stated != _checksum(plain):
        wrong = "has no checksum: an earlier release made it" if stated is None else "was changed after it was made"
        raise InputError(f"{str(path)!r} {wrong}; remove it to have it made anew")
    return record


def finished(folder: Path) -> Record | None:
    """Return the record in a run's folder; None where the run has not finished."""
    path = folder / "record.json"
    return read(path) if path.is_file() else None


def _checksum(plain: dict[str, Any]) -> str:
    """Return the SHA-256 of a record's plain data in canonical JSON."""
    return files.checksum(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode())


def everything() -> list[Record]:
    """Return all finished runs whose records can be read, by name."""
    return survey()[0]


def survey() -> tuple[list[Record], dict[str, str]]:
    """Return the finished runs, by name; and of those whose record cannot be read, {name: why, and what to do}."""
    found, damaged = [], {}
    for path in sorted(root().glob("*/record.json")):
        try:
            found.append(read(path))
        except InputError as error:
            damaged[path.parent.name] = str(error)
    return found, damaged


def find(name: str) -> Record:
    """Return the finished run of that name, or the one whose name begins so."""
    # without listing a store of thousands; Path.is_file raises where a name is too long
    if name and Path(name).name == name and os.path.isfile(root() / name / "record.json"):
        return read(root() / name / "record.json")
    names = [path.parent.name for path in sorted(root().glob("*/record.json"))]
    matches = [n for n in names if n.startswith(name)]
    if len(matches) != 1:
        problem = (
            f"{len(matches)} runs begin with {name!r}: {', '.join(matches)}"
            if matches
            else f"no finished run {name!r}{suggest(name, names) if names else '; none is finished yet'}"
        )
        raise InputError(problem)
    return read(root() / matches[0] / "record.json")


def note_use(record: Record) -> None:
    """Note that this process was given a record: a line in the file that $SSWP_USED names, if it names one."""
    if os.environ.get("SSWP_USED"):
        files.append(Path(os.environ["SSWP_USED"]), record.name)


def used(path: Path) -> list[str]:
    """Return the names of the runs in such a file, each once, in order; none where there is no file."""
    return sorted(set(path.read_text().split())) if path.is_file() else []


def differences(record: Record, device: str) -> str:
    """Return how the making of a record differs from what a run here would be: "sswp 0.9 (here 1.0), cuda (here cpu)";
    empty where release, torch's minor version and kind of device are the same.
    """
    made = record.provenance
    pairs = (
        ("sswp ", str(made.get("version")), __version__),
        ("torch ", _minor(made.get("torch")), _minor(version("torch"))),
        ("", str(made.get("device")).partition(":")[0], device.partition(":")[0]),
    )
    return ", ".join(f"{what}{then} (here {now})" for what, then, now in pairs if then != now)


def _minor(text: Any) -> str:
    return ".".join(str(text).split(".")[:2])


def environment(device: str) -> dict[str, Any]:
    """Return versions, device, machine and git commit: what a record says of where it was made."""
    packages = {name: version(name) for name in ("torch", "torchvision", "kornia", "numpy")}
    hardware = (
        torch.cuda.get_device_name(device)
        if device.startswith("cuda")
        else f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    )
    return {
        "version": __version__,
        "python": platform.python_version(),
        **packages,
        "device": device,
        "hardware": hardware,
        "allow_tf32": {"matmul": torch.backends.cuda.matmul.allow_tf32, "cudnn": torch.backends.cudnn.allow_tf32},
        "commit": commit(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def commit() -> str | None:
    """Return the git commit of the project, with "-dirty" behind it where files of the library differ from it; None
    where there is no repository.
    """
    found, changed = git("rev-parse", "HEAD"), git("status", "--porcelain", "--", "sswp_lib")
    return f"{found}-dirty" if found and changed else found


def git(*words: str) -> str | None:
    """Return what git says in the project's folder; None where it is missing or refuses."""
    try:
        said = subprocess.run(["git", *words], cwd=home(), capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return said.stdout.strip() if said.returncode == 0 else None
