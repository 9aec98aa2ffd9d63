"""Where a run stands, from its own files alone: for whoever looks on, from any process, at any time.

While it goes on a run writes its history and, of a search by alpha, alpha and its genotype after each epoch; and every
two seconds where it is (`progress.json`, removed at its end). None of this is part of its record. Who looks on holds no
lock and waits for nothing, and finds what was there a moment ago: a line that is half written is left out, a file that
has vanished is one that is not there.
"""

from __future__ import annotations

import json
import math
import re
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from sswp_lib.config import InputError, RunError, suggest
from sswp_lib.config import Search as Settings
from sswp_lib.learn.loop import Loop, Progress
from sswp_lib.learn.phases import phase, pruning_epochs
from sswp_lib.runs import files, records
from sswp_lib.runs.holding import Hold, Lost, lives, machine
from sswp_lib.runs.progress import BEAT, Pace, about, duration
from sswp_lib.runs.records import Record

HISTORY, ALPHA, PROGRESS, FRESH = "history.jsonl", "alpha.jsonl", "progress.json", "fresh"
BELIEVED = 10.0  # seconds for which a sign of life is believed, for processes of another container cannot be seen; ours
SILENT = 60.0  # seconds without a sign of life after which it is said; ours
WHOLE = re.compile(r"[a-z_-]+-[0-9a-f]{12}")  # a name that no other begins with
STATES = ("not begun", "running", "silent", "interrupted", "done")


class Trace:
    """What a run writes for whoever looks on. Within it, however it ends, that is written down too.

    Args:
        folder: the run's. loop: as it is taken up. spent: seconds before that. hold: of the run, by this process.
    """

    def __init__(self, folder: Path, loop: Loop, spent: float, hold: Hold):
        self.folder, self.loop, self.spent, self.pace = folder, loop, spent, Pace()
        self.who = {name: getattr(hold.holder, name) for name in ("pid", "born", "host", "machine")}
        self.place: dict[str, Any] = {"epoch": loop.epoch, "epochs": loop.num_epochs}
        self.written = -math.inf

    def __enter__(self) -> Trace:
        _write_rows(self.folder / HISTORY, self.loop.history)
        if (self.folder / ALPHA).exists():
            earlier = [row for row in read_rows(self.folder / ALPHA) if row["epoch"] < len(self.loop.history)]
            _write_rows(self.folder / ALPHA, earlier)
        self._say("running")
        self.written = -math.inf  # the first step is said at once
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is not None and not issubclass(kind, Lost):  # whoever has the run by then says where it is
            self._say("interrupted")

    def step(self, p: Progress) -> None:
        """Note where the loop is, after an epoch and else if enough time has passed; and what an epoch came to."""
        if p.row is not None:
            files.append(self.folder / HISTORY, json.dumps(p.row))
            if shown := self.loop.shown():
                files.append(self.folder / ALPHA, json.dumps({"epoch": p.row["epoch"], **shown}))
        left = self.pace.left(p)
        if p.row is None and time.monotonic() - self.written < BEAT:
            return
        number = lambda x: x if math.isfinite(x) else None  # noqa: E731
        self.place = {
            "epoch": p.epoch + (p.row is not None), "epochs": p.epochs, "step": p.step, "steps": p.steps,
            "phase": p.phase, "loss": number(p.loss), "accuracy": number(p.accuracy), "left": left,
        }  # fmt: skip
        self._say("running")

    def finishing(self) -> None:
        """Note that all epochs are done, and that what they came to is judged."""
        self.place = {"epoch": self.loop.num_epochs, "epochs": self.loop.num_epochs, "phase": "judging the result"}
        self._say("running")

    def _say(self, state: str) -> None:
        self.written = time.monotonic()
        plain = self.place | self.who | {"state": state, "at": time.time()}
        plain["seconds"] = self.spent + self.written - self.pace.started
        with suppress(RunError):  # that nobody can look on is no reason to end a run
            files.write(self.folder / PROGRESS, json.dumps(plain).encode(), durable=False)


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    files.write(path, "".join(json.dumps(row) + "\n" for row in rows).encode())


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return a file's rows, one JSON a line, up to one that is not whole; none where there is no file."""
    rows = []
    with suppress(ValueError):
        for line in (_read(path) or "").split("\n")[:-1]:
            rows.append(json.loads(line))
    return rows


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except (FileNotFoundError, NotADirectoryError):
        return None


@dataclass(frozen=True)
class Standing:
    """Where a run stood when it was looked at.

    Attributes:
        state: one of STATES; "silent": of another machine, or its process is there but has written nothing for long.
        place: what `Trace` wrote last; empty where it wrote nothing. record: of a run that is done.
        history, alphas: read when they are asked for, so perhaps an epoch younger.
    """

    folder: Path
    state: str
    place: dict[str, Any] = field(default_factory=dict)
    record: Record | None = None
    given: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.folder.name

    @cached_property
    def config(self) -> dict[str, Any]:
        """The configuration, as far as the run's result depends on it; that asked for, where it has not begun."""
        if self.record is not None:
            return self.record.config
        found = [text for folder in self._folders if (text := _read(folder / "config.json"))]
        return json.loads(found[0])["config"] if found else self.given

    @cached_property
    def history(self) -> list[dict[str, Any]]:
        """One row for each finished epoch."""
        if self.record is not None:
            return self.record.history
        return next((rows for folder in self._folders if (rows := read_rows(folder / HISTORY))), [])

    @cached_property
    def alphas(self) -> dict[int, dict[str, Any]]:
        """{epoch: {"candidates", "alpha", "genotype"}} (see `Loop.shown`); without epochs of which it was not kept."""
        rows = next((rows for folder in self._folders if (rows := read_rows(folder / ALPHA))), [])
        return {row["epoch"]: row for row in rows}

    @property
    def _folders(self) -> tuple[Path, ...]:
        """Where files may be: of a run that is done again, beside those of the earlier one; one that has just ended has
        moved them.
        """
        fresh = self.folder / FRESH
        if self.state == "done":
            return (fresh, self.folder) if (fresh / "record.json").exists() else (self.folder,)
        return (fresh,) if (fresh / PROGRESS).exists() else (self.folder,)

    @property
    def epochs(self) -> int | None:
        section = self.config.get(self.name.partition("-")[0], {})
        return len(self.history) if self.state == "done" else self.place.get("epochs", section.get("epochs"))

    @property
    def epoch(self) -> int:
        """How many epochs are done."""
        return len(self.history) if self.state == "done" or not self.place else self.place["epoch"]

    @property
    def phase(self) -> str:
        """What the run is doing; empty where it has not said."""
        if self.settings is not None and self.epoch < self.epochs:
            return phase(self.epoch, self.settings)
        return self.place.get("phase", "")

    @property
    def left(self) -> float | None:
        """The seconds that are left, if the run goes on as it did when it last wrote where it is."""
        left = self.place.get("left") if self.state == "running" else None
        return None if left is None else max(left - (time.time() - self.place["at"]), 0.0)

    @cached_property
    def settings(self) -> Settings | None:
        """The settings of a search with phases; None of any other run."""
        plain = self.config.get("search", {})
        phased = plain.get("method", "sswp") == "sswp" and "ratios" in plain and self.name.startswith("search-")
        return Settings.model_validate(plain) if phased else None

    @property
    def fixed(self) -> list[int]:
        """The cells that are pruned, as far as a search prunes any."""
        if self.settings is None:
            return []
        ends = pruning_epochs(self.settings, self.config["model"]["num_cells"])
        return sorted(cell for cell, end in ends.items() if self.state == "done" or end <= self.epoch)

    def sentence(self) -> str:
        """Say it in words."""
        if self.state == "not begun":
            return f"{self.name} has not begun"
        if self.record is not None:
            took, outcome = self.record.provenance.get("seconds"), self.record.outcome()
            said = [f"{name} {value}" for name, value in outcome.items()]
            return ", ".join([f"{self.name} is done" + (f" in {duration(took)}" if took else ""), *said])
        return f"{self.name}: {', '.join([*self._how(), *self._where()])}"

    def _how(self) -> list[str]:
        since = f"{about(time.time() - self.place['at'])}" if self.place else ""
        return {
            "silent": [f"no sign of life for {since}"],
            "interrupted": ["interrupted; whoever asks for it again goes on from its last checkpoint"],
        }.get(self.state, [])

    def _where(self) -> list[str]:
        loss = self.place.get("loss")
        of = f" of {self.epochs}" if self.epochs else ""
        where = f"all {self.epoch} epochs done" if self.epoch == self.epochs else f"epoch {self.epoch + 1}{of}"
        said = [where, *filter(None, [self.phase])]
        said += [f"loss {loss:.3f}"] if loss is not None else []
        said += [f"{len(self.fixed)} of {self.config['model']['num_cells']} cells fixed"] if self.settings else []
        return said + ([f"about {about(self.left)} left"] if self.left is not None else [])


def named(text: str) -> str:
    """Return the name of the run that `text` names, or whose name begins so; a whole name may be of one to come."""
    if WHOLE.fullmatch(text):
        return text
    names = sorted(path.name for path in records.root().glob("*-*") if path.is_dir())
    matches = [name for name in names if text and name.startswith(text)]
    if len(matches) != 1:
        problem = f"{len(matches)} runs begin with" if matches else "no run begins with"
        raise InputError(f"{problem} {text!r}{'' if matches else suggest(text, names)}; expected one")
    return matches[0]


def stand(folder: Path, given: dict[str, Any] | None = None) -> Standing:
    """Return where the run of a folder stands, now.

    Args:
        given: the configuration asked for, of a run that may not have begun.

    Raises:
        InputError: there is a record, but it is damaged.
    """
    for _ in range(2):  # what ends between two looks is found at the second
        again = _place(folder / FRESH)
        if _state(again) == "running":
            return Standing(folder, "running", again)
        record = _record(folder / FRESH) or _record(folder)
        if record is not None:
            return Standing(folder, "done", record=record)
        if place := _place(folder):
            return Standing(folder, _state(place), place)
    begun = any((folder / name).exists() for name in ("config.json", HISTORY, "checkpoints"))
    return Standing(folder, "interrupted" if begun else "not begun", given=given or {})


def _place(folder: Path) -> dict[str, Any]:
    text = _read(folder / PROGRESS)
    return json.loads(text) if text else {}


def _state(place: dict[str, Any]) -> str:
    """Return "running", "silent" or "interrupted", by what the run said of itself and by whether its process lives."""
    if place.get("state", "interrupted") == "interrupted":
        return "interrupted"
    age = time.time() - place["at"]
    if age < BELIEVED:
        return "running"
    if place.get("machine") == machine() and not lives(place["pid"], place["born"]):
        return "interrupted"
    return "running" if age < SILENT else "silent"


def _record(folder: Path) -> Record | None:
    path = folder / "record.json"
    try:
        return records.finished(folder)
    except InputError:
        if path.exists():
            raise
        return None  # it has moved meanwhile


def changed(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Return what tells whether anything was written since: names, times and sizes of the run's files."""
    found = []
    for path in (folder / sub / name for sub in ("", FRESH) for name in (HISTORY, ALPHA, "record.json")):
        with suppress(OSError):
            seen = path.stat()
            found.append((str(path), seen.st_mtime_ns, seen.st_size))
    return tuple(found)
