"""One line a run: rewritten in place in a terminal and in a notebook, now and then printed anew in a log.

Where $SSWP_HEARTBEAT names a file, the line is also written there, as a sign of life: `sswp reproduce` watches it.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from sswp_lib import processes
from sswp_lib.learn.loop import Progress

T = TypeVar("T")
REFRESH = {"terminal": 0.2, "notebook": 1.0, "log": 30.0}  # seconds
BEAT = 2.0  # seconds from one sign of life to the next


def place() -> str:
    """Return where output goes: "terminal", "notebook" or "log"."""
    if "ipykernel" in sys.modules:
        from IPython import get_ipython

        if get_ipython() is not None and "IPKernelApp" in get_ipython().config:
            return "notebook"
    return "terminal" if sys.stderr.isatty() else "log"


def duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def about(seconds: float) -> str:
    """Return a time as one says it: "40 s", "2 min", "3 h"."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"{round(seconds / size)} {unit}"
    return f"{max(round(seconds), 1)} s"


class Pace:
    """How fast a loop is, since this process has been at it."""

    def __init__(self):
        self.started = time.monotonic()
        self.before: float | None = None

    def left(self, p: Progress) -> float | None:
        """Return the seconds that are left if the rest goes as fast; None before a step is done."""
        done = (p.epoch + p.step / p.steps) / p.epochs
        if self.before is None:
            self.before = done
        since = done - self.before
        return (time.monotonic() - self.started) * (1 - done) / since if since > 0 else None


class Line:
    """A run's line. Leaves plain text behind, in a saved notebook as in a terminal."""

    def __init__(self, label: str, quiet: bool = False):
        self.label, self.quiet, self.place = label, quiet or not processes.first(), place()
        self.started = self.shown = time.monotonic()
        self.pace = Pace()
        self.last: Progress | None = None
        self.handle = None
        self.heartbeat, self.beaten = os.environ.get("SSWP_HEARTBEAT"), -math.inf

    def update(self, p: Progress) -> None:
        """Show where the loop is, and give a sign of life, each if enough time has passed."""
        self.last, seconds, now = p, self.pace.left(p), time.monotonic()
        due = not self.quiet and now - self.shown >= REFRESH[self.place]
        if not due and not self._beat_due():
            return
        left = f", {duration(seconds)} left" if seconds is not None else ""
        pruned = f", {p.pruned}/{p.cells} cells pruned" if p.cells else ""
        text = (
            f"epoch {p.epoch + 1}/{p.epochs} {p.phase}, loss {p.loss:.3f}, accuracy {100 * p.accuracy:.1f} "
            f"%{pruned}{left}"
        )
        self.beat(text)
        if due:
            self.shown = now
            self.show(text)

    def working(self, text: str) -> None:
        """Show what is done before the first step, and give a sign of life, each if enough time has passed."""
        self.beat(text)
        if not self.quiet and time.monotonic() - self.shown >= REFRESH[self.place]:
            self.shown = time.monotonic()
            self.show(text)

    def where(self) -> str:
        """Return how far the run has come: "at epoch 3 of 10"."""
        return f"at epoch {self.last.epoch + 1} of {self.last.epochs}" if self.last else "before its first epoch"

    def beat(self, text: str) -> None:
        """Give a sign of life, if enough time has passed; also where the line is quiet."""
        if self._beat_due():
            self.beaten = time.monotonic()
            with suppress(OSError):  # whoever watched may be gone; that is no reason to end a run
                Path(self.heartbeat).write_text(f"{self.label.partition('-')[0]}: {text}\n")

    def note(self, text: str) -> None:
        """Say something that stays. Of processes that share a run the first one speaks."""
        if not processes.first():
            return
        over = "\r\x1b[2K" if self.place == "terminal" else ""  # over what was shown in place
        print(f"{over}{self.label}: {text}", file=sys.stderr, flush=True)

    def close(self, text: str) -> None:
        """Replace the line by its last word."""
        if not self.quiet:
            self.show(text)
            if self.place == "terminal":
                print(file=sys.stderr)

    def _beat_due(self) -> bool:
        return bool(self.heartbeat) and time.monotonic() - self.beaten >= BEAT

    def show(self, text: str) -> None:
        """Show this now, in place of what was shown."""
        text = f"{self.label}: {text}"
        if self.place == "terminal":
            print(f"\r\x1b[2K{text}", end="", file=sys.stderr, flush=True)
        elif self.place == "log":
            print(text, file=sys.stderr, flush=True)
        else:
            from IPython.display import TextDisplayObject, display

            shown = type("Text", (TextDisplayObject,), {"_repr_mimebundle_": lambda *a, **k: {"text/plain": text}})(
                text
            )
            if self.handle is None:
                self.handle = display(shown, display_id=True)
            else:
                self.handle.update(shown)


SERVED = 0.5  # seconds; what took less was served from its record and says nothing of how long others take; ours


def counted(items: Sequence[T], what: str) -> Iterator[T]:
    """Yield the items, and say meanwhile which of them is under way: "training 17 of 48, about 2 min left".

    One line, as a run's. Nothing is said of items that are all there already.
    """
    line, took, shown = Line(what), [], False
    for i, item in enumerate(items):
        now = time.monotonic()
        left = f", about {about(sum(took) / len(took) * (len(items) - i))} left" if took else ""
        if now - line.shown >= REFRESH[line.place]:
            line.shown, shown = now, True
            line.show(f"{i + 1} of {len(items)}{left}")
        yield item
        spent = time.monotonic() - now
        took += [spent] if spent >= SERVED else []
    if shown:
        line.close(f"{len(items)} of {len(items)} in {duration(time.monotonic() - line.started)}")
