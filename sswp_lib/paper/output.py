"""Where a notebook's figures and tables go, and what all of them say of how they came about.

What is made here lies in figures/own/<name>/, never among the tracked files: `figures/<preset>/` holds the reference
results and changes by `sswp publish` alone. A name is the preset, and behind it whatever differs from it.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from sswp_lib.config import home

LONGEST = 80  # letters of a folder's name; ours


@dataclass(frozen=True)
class Output:
    """A preset, and what differs from it: "train.shift=0", "seeds=3", "data=cifar10"."""

    preset: str
    changes: tuple[str, ...] = ()

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
