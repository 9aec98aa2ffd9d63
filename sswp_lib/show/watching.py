"""A run that one can watch: the picture follows the run's files, in whatever process it goes on.

One thread looks after all pictures of a kernel. It looks every two seconds, says in words what has changed, and draws
for a hundredth of the time at most, or two of a run in another process: who is watched must not be slowed down. It
ends when no picture is left to follow: their runs are done, or they are closed or told not to.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from pathlib import Path
from typing import Any

import ipywidgets

from sswp_lib.config import InputError
from sswp_lib.runs import following
from sswp_lib.show import standings
from sswp_lib.show.controls import Picture, Pictured
from sswp_lib.space import EDGES

LOOK = 2.0  # seconds from one look to the next
SHARE, SHARE_BESIDE = 0.01, 0.02  # of the time is spent on drawing, of a run in this process and beside others; ours
EDGE_NAMES = [("mean of all", None), *((f"{source} to {node}", i) for i, (source, node) in enumerate(EDGES))]


class Watched(Pictured):
    """The picture of a run, with the choice of a cell and an edge of a search by alpha.

    Args:
        folder: the run's. given: the configuration asked for, of a run that may not have begun.
    """

    share: float  # of the time that drawing may take
    done: bool  # when it was last looked at

    def __init__(self, folder: Path, given: dict[str, Any]):
        self._folder, self._given, self._lock = folder, given, threading.RLock()
        self._drawn: object = None
        self._ended = self._closed = False
        self.cell = ipywidgets.Dropdown(options=[("cell 0", 0)], description="alpha of")
        self.edge = ipywidgets.Dropdown(options=EDGE_NAMES, description="edge")
        self.live = ipywidgets.Checkbox(True, description="follow the run", indent=False)
        super().__init__(self._draw_now, self.cell, self.edge, self.live, still=True)
        self.live.observe(lambda change: ROUNDS.add(self), "value")
        ROUNDS.add(self)

    @property
    def follows(self) -> bool:
        """Tell whether there is something to follow, and someone who wants it."""
        return self.live.value and not self._closed and not self._ended

    def close(self) -> None:
        self._closed = True
        for child in (*self.controls, *self.children):
            child.close()
        super().close()

    def look(self) -> bool:
        """Say where the run stands; tell whether the picture is older than that."""
        with self._lock:
            s = following.stand(self._folder, self._given)
            self.say(s.sentence())
            outdated = following.changed(self._folder) != self._drawn
            self.done = s.state == "done"
            self._ended = self.done and not outdated
            return outdated

    def redraw(self) -> None:
        with self._lock:
            super().redraw()
            self._ended = self.done

    def _draw_now(self, cell: int, edge: int | None, live: bool) -> tuple[str, list[Picture]]:
        self._drawn = following.changed(self._folder)
        s = following.stand(self._folder, self._given)
        self.done = s.state == "done"
        self.share = SHARE if s.place.get("pid") == os.getpid() or os.cpu_count() == 1 else SHARE_BESIDE
        self._offer(s)
        figure, words = standings.standing(s, cell, edge), standings.standing_words(s, cell, edge)
        return s.sentence(), [Picture.of(figure, words)]

    def _offer(self, s: following.Standing) -> None:
        """Offer the cells that the run has; where alpha of single cells is not kept, no choice."""
        last = next(reversed(s.alphas.values()), None)
        kept = len(last["alpha"]) if last else s.config["model"]["num_cells"] if s.settings else 0
        names = [(standings.title(s, row), row) for row in range(kept)] or [("cell 0", 0)]
        if tuple(names) != tuple(self.cell.options):
            self.cell.options = names
        there = bool(last) or (s.state != "done" and kept > 0)
        for control in (self.cell, self.edge):
            control.layout.display = None if there else "none"


class Rounds:
    """Goes round the pictures that follow a run, in one thread, while there is one."""

    def __init__(self):
        self._pictures: list[Watched] = []
        self._lock, self._thread = threading.Lock(), None
        self._free_at = 0.0  # of the monotonic clock, when drawing has its share again
        self._leaving = threading.Event()
        atexit.register(self.leave)

    def add(self, picture: Watched) -> None:
        """Follow this picture's run, if it wants that."""
        with self._lock:
            if not picture.follows or picture in self._pictures:
                return
            self._pictures.append(picture)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._go_round, name="sswp-watch", daemon=True)
                self._thread.start()

    def leave(self) -> None:
        """End the thread before its process ends, or that would be aborted in the middle of a picture."""
        self._leaving.set()
        thread = self._thread
        if thread is not None:
            thread.join()

    def _go_round(self) -> None:
        while not self._leaving.wait(LOOK):
            with self._lock:
                self._pictures = [picture for picture in self._pictures if picture.follows]
                if not self._pictures:
                    self._thread = None
                    return
                pictures = list(self._pictures)
            for picture in pictures:
                self._visit(picture)

    def _visit(self, picture: Watched) -> None:
        try:
            if picture.look() and (picture.done or time.monotonic() >= self._free_at):
                before = time.thread_time()
                picture.redraw()
                self._free_at = time.monotonic() + (time.thread_time() - before) / picture.share
                with self._lock:  # the others come first at the next round
                    self._pictures.sort(key=lambda other: other is picture)
        except (InputError, OSError) as error:  # a damaged record, a store that is out of reach: said, and looked again
            picture.say(str(error))


ROUNDS = Rounds()
