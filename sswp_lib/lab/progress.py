"""One line a run: rewritten in place in a terminal and in a notebook, now and then printed anew in a log."""

from __future__ import annotations

import sys
import time

from sswp_lib.learn.loop import Progress

REFRESH = {"terminal": 0.2, "notebook": 1.0, "log": 30.0}  # seconds


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


class Line:
    """A run's line. Leaves plain text behind, in a saved notebook as in a terminal."""

    def __init__(self, label: str, quiet: bool = False):
        self.label, self.quiet, self.place = label, quiet, place()
        self.started = self.shown = time.monotonic()
        self.done_before: float | None = None
        self.handle = None

    def update(self, p: Progress) -> None:
        """Show where the loop is, if enough time has passed."""
        done = (p.epoch + p.step / p.steps) / p.epochs
        if self.done_before is None:
            self.done_before = done
        now = time.monotonic()
        if self.quiet or now - self.shown < REFRESH[self.place]:
            return
        self.shown = now
        progress = done - self.done_before
        left = f", {duration((now - self.started) * (1 - done) / progress)} left" if progress > 0 else ""
        pruned = f", {p.pruned}/{p.cells} cells pruned" if p.cells else ""
        self._show(f"epoch {p.epoch + 1}/{p.epochs} {p.phase}, loss {p.loss:.3f}, accuracy {100 * p.accuracy:.1f} %{pruned}{left}")

    def note(self, text: str) -> None:
        """Say something that stays."""
        print(f"{self.label}: {text}", file=sys.stderr, flush=True)

    def close(self, text: str) -> None:
        """Replace the line by its last word."""
        if not self.quiet:
            self._show(text)
            if self.place == "terminal":
                print(file=sys.stderr)

    def _show(self, text: str) -> None:
        text = f"{self.label}: {text}"
        if self.place == "terminal":
            print(f"\r\x1b[2K{text}", end="", file=sys.stderr, flush=True)
        elif self.place == "log":
            print(text, file=sys.stderr, flush=True)
        else:
            from IPython.display import TextDisplayObject, display

            shown = type("Text", (TextDisplayObject,), {"_repr_mimebundle_": lambda *a, **k: {"text/plain": text}})(text)
            if self.handle is None:
                self.handle = display(shown, display_id=True)
            else:
                self.handle.update(shown)
