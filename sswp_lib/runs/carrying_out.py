"""A run is carried out: step after step, with checkpoints and history on the way, weights and record at its end."""

from __future__ import annotations

import os
import shutil
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from sswp_lib import processes
from sswp_lib.config import InputError, RunError, digest, without_defaults
from sswp_lib.learn.loop import Loop, Progress
from sswp_lib.runs import files, records
from sswp_lib.runs.following import FRESH, PROGRESS, Trace
from sswp_lib.runs.holding import Hold
from sswp_lib.runs.progress import Line, duration
from sswp_lib.runs.records import FORMAT, Record, environment, root
from sswp_lib.space import Genotype

CHECKPOINT_SECONDS = 60.0  # between checkpoints within an epoch; each epoch's end has one anyway
EPOCH_SECONDS = 1.0  # epochs shorter than this share one

leaving = threading.Event()
"""Set, by a signal's handler say, that whatever run this process is at is left after its next step, with a
checkpoint."""


class Left(RunError):
    """A run was left because `leaving` is set; whoever asks for it again goes on from its checkpoint."""


@dataclass(frozen=True)
class Asked:
    """A run that is asked for: what its name is made of, and the name of the run or file whose weights it starts from,
    which is not.
    """

    kind: str
    config: dict[str, Any]
    source: dict[str, Any] = field(default_factory=dict)
    origin: str | None = None

    @property
    def name(self) -> str:
        plain = {"format": FORMAT, "config": without_defaults(self.config), "source": self.source}
        return f"{self.kind}-{digest(plain)}"

    @property
    def folder(self) -> Path:
        return root() / self.name


def carry_out(asked: Asked, loop: Loop, line: Line, tensorboard: bool, hold: Hold | None) -> Record:
    """Do a run that this process holds, or what is left of it; without `hold`, this one's part of a run that the first
    process holds. Where there is a record already, beside it, to take its place at the end.

    Raises:
        Left: `leaving` is set. Lost: another process has taken the run over.
    """
    if hold is None:
        return _take_part(asked, loop, line)
    again = (asked.folder / "record.json").is_file()
    folder = asked.folder / FRESH if again else asked.folder
    checkpoints = folder / "checkpoints"
    files.clear_partial(folder)
    spent, resumed = _take_up(loop, checkpoints, line)
    files.write_json(folder / "config.json", {"config": asked.config, "source": asked.source})
    board = _tensorboard(folder) if tensorboard else None
    kept = _Checkpoints(checkpoints, asked.name, loop, hold, spent, resumed)
    with Trace(folder, loop, spent, hold) as trace:
        for progress in loop.advance():
            hold.confirm(now=progress.row is not None)
            line.update(progress)
            trace.step(progress)
            if board and progress.row is not None:
                _to_tensorboard(board, progress.row)
            kept.write_if_due(progress)
            if leaving.is_set():
                raise Left(f"{asked.name} is left {line.where()}, with a checkpoint")
        trace.finishing()
        record = _judged(folder, asked, loop, kept.started - spent, resumed, hold)
    for path in (*files.checkpoints(checkpoints), folder / PROGRESS):
        path.unlink(missing_ok=True)
    if again:
        _say_other_weights(asked.folder, record, line)
        _put_in_place(folder, asked.folder)
    outcome = [f"{name} {value}" for name, value in record.outcome().items()]
    line.close(", ".join([f"done in {duration(record.provenance['seconds'])}", *outcome]))
    return processes.agreed(lambda: record)


def _take_part(asked: Asked, loop: Loop, line: Line) -> Record:
    """Do this process's part of a run that another one keeps, and return its record."""
    _take_up(loop, asked.folder, line)
    for _ in loop.advance():
        pass
    loop.finish()
    return processes.agreed(lambda: None)  # what the first says


class _Checkpoints:
    """Writes a run's checkpoints: after its epochs, now and then within one, and where it is left."""

    def __init__(self, folder: Path, run: str, loop: Loop, hold: Hold, spent: float, resumed: int):
        self.folder, self.run, self.loop, self.hold, self.spent, self.resumed = folder, run, loop, hold, spent, resumed
        self.started = self.last = time.monotonic()

    def write_if_due(self, progress: Progress) -> None:
        now = time.monotonic()
        pause = EPOCH_SECONDS if progress.row is not None else CHECKPOINT_SECONDS
        if now - self.last > pause or leaving.is_set():
            seconds = self.spent + now - self.started
            state = {"loop": self.loop.state(), "seconds": seconds, "resumed": self.resumed}
            self.hold.confirm()
            files.write_checkpoint(self.folder, self.run, self.loop.epoch, self.loop.step, state)
            self.last = now


def _judged(folder: Path, asked: Asked, loop: Loop, began: float, resumed: int, hold: Hold) -> Record:
    """Write what all epochs came to: weights, genotype and the record. `began` is of the monotonic clock."""
    result, weights = loop.finish()
    content = files.weights_bytes(weights)
    hold.confirm()
    files.write(folder / "weights.safetensors", content)
    if "genotype" in result:
        files.write(folder / "genotype.json", (Genotype.model_validate(result["genotype"]).to_json() + "\n").encode())
    times = {"seconds": time.monotonic() - began, "resumed": resumed}
    times |= {"processes": processes.count()} if processes.count() > 1 else {}
    return write_record(folder, asked, loop.history, result, files.checksum(content), str(loop.device), times)


def _take_up(loop: Loop, checkpoints: Path, line: Line) -> tuple[float, int]:
    """Restore the loop from its newest checkpoint, if there is one; return the seconds spent before, and how often the
    run has been taken up. Processes that share it are given what the first one reads.
    """
    kept = processes.agreed(lambda: files.read_checkpoint(checkpoints, line.label, line.note))
    if kept is None:
        return 0.0, 0
    try:
        loop.restore(kept["loop"])
    except torch.OutOfMemoryError:
        raise
    except files.UNREADABLE as error:
        raise RunError(
            f"{line.label}: its checkpoints are not of this release of the code ({files.reason(error)}); remove the "
            f"folder {str(checkpoints)!r} to start the run anew"
        ) from None
    line.note(f"taken up at epoch {loop.epoch + 1}, step {loop.step + 1}")
    return kept["seconds"], kept["resumed"] + 1


def _say_other_weights(folder: Path, record: Record, line: Line) -> None:
    """Say it where a run that was done again has other weights than the record that is there tells of."""
    with suppress(InputError):  # a damaged record
        if records.read(folder / "record.json").weights_sha256 != record.weights_sha256:
            line.note(
                "has other weights than its record told of, as on another processor, whose rounding differs; what "
                "started from those will be done again"
            )


def _put_in_place(new: Path, old: Path) -> None:
    """Move a run's files over those of an earlier one, the record last."""
    for path in sorted(new.iterdir(), key=lambda path: path.name == "record.json"):
        if (old / path.name).is_dir():
            shutil.rmtree(old / path.name)
        os.replace(path, old / path.name)
    new.rmdir()


def write_record(
    folder: Path, asked: Asked, history: list, result: dict, weights_sha256: str | None, device: str, times: dict
) -> Record:
    """Write and return the record of a run that is done."""
    origin = {"started_from": asked.origin} if asked.origin else {}
    record = Record(
        name=asked.name, kind=asked.kind, config=asked.config, seed=asked.config["seed"], source=asked.source,
        history=history, result=result, weights_sha256=weights_sha256,
        provenance=times | origin | environment(device),
    )  # fmt: skip
    records.write(folder, record)
    return record


def _tensorboard(folder: Path):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError("TensorBoard is not installed; install the extra: pip install 'sswp[tensorboard]'") from None
    return SummaryWriter(str(folder / "tensorboard"))


def _to_tensorboard(board, row: dict[str, Any]) -> None:
    for name, value in row.items():
        if isinstance(value, int | float) and name != "epoch":
            board.add_scalar(name, value, row["epoch"])
    board.flush()
