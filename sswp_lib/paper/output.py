"""Where a notebook's figures and tables go, and what all of them say of how they came about.

What is made here lies in figures/own/<name>/, never among the tracked files: `figures/<preset>/` holds the reference
results and changes by `sswp publish` alone. A name is the preset, and behind it whatever differs from it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sswp_lib.config import home
from sswp_lib.presets import PRESETS

LONGEST = 80  # letters of a folder's name; ours


@dataclass(frozen=True)
class Output:
    """A preset, and what differs from it: "train.shift=0", "seeds=3", "data=cifar10"."""

    preset: str
    changes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, preset: str, data: str | None = None, seeds: int | None = None, settings: Sequence[str] = (), **own: Any
    ) -> Output:
        """Return where the results of a notebook with these parameters go; None stands for the preset's own.

        Seeds that are asked for are said even where they are the preset's number: that differs by notebook, and all
        results of one command belong into one folder.
        """
        given = {"data": None if data == PRESETS[preset]["data.name"] else data, "seeds": seeds, **own}
        said = [f"{name}={value}" for name, value in given.items() if value is not None]
        return cls(preset, (*said, *map(str, settings)))

    @property
    def name(self) -> str:
        """The folder's name: "quick", or "quick+train.shift=0"."""
        parts = [re.sub(r"[^\w.,=-]+", "-", part).strip("-") for part in (self.preset, *self.changes)]
        name = "+".join(parts)
        if len(name) <= LONGEST:
            return name
        return f"{name[: LONGEST - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"

    @property
    def label(self) -> str:
        """What captions, tables and ledger say: "quick", or "quick with train.shift=0, seeds=3"."""
        return f"{self.preset} with {', '.join(self.changes)}" if self.changes else self.preset

    @property
    def folder(self) -> Path:
        """The folder, made if it is not there."""
        folder = home() / "figures" / "own" / self.name
        folder.mkdir(parents=True, exist_ok=True)
        return folder
