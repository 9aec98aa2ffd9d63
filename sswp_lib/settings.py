"""What settings are made of: strict sections, errors of one line, checks that name value, expectation and remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError


class OneLine:
    """An error whose message says everything: notebooks show it alone, without the calls that led to it."""

    def _render_traceback_(self) -> list[str]:  # IPython asks for it
        return [f"{type(self).__name__}: {self}"]


class InputError(OneLine, ValueError):
    """Something the user gave is wrong. The message is one line: the value, what was expected, what to do."""


class RunError(OneLine, RuntimeError):
    """A run cannot go on. The message is one line: what happened, where, and what to try."""


def home() -> Path:
    """Return the folder in which runs/, figures/ and data/ lie: the project's, or the current one where the package is
    installed elsewhere.
    """
    project = Path(__file__).resolve().parents[1]
    return project if (project / "pyproject.toml").is_file() else Path.cwd()


def suggest(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" or "; expected one of ..." for a name that is not among `known`."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    more = ", ..." if len(known) > 12 else ""
    return f"; did you mean {near[0]!r}?" if near else f"; expected one of {', '.join(known[:12])}{more}"


def short(value: Any) -> str:
    """Return a value as Python writes it, cut to 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def one_line(error: ValidationError) -> str:
    """Return pydantic's first three findings as one line: where, what, and the value."""
    entries = error.errors(include_url=False)
    found = []
    for entry in entries[:3]:
        where = ".".join(str(part) for part in entry["loc"])
        message = entry["msg"].removeprefix("Value error, ")
        value = entry.get("input")
        plain = entry["type"] != "value_error" and not isinstance(value, dict | list)
        given = f" (got {short(value)})" if plain else ""
        found.append(f"{where}: {message}{given}" if where else f"{message}{given}")
    return "; ".join(found) + (f"; and {len(entries) - 3} more" if len(entries) > 3 else "")


class Section(BaseModel):
    """Settings that belong together. Numbers are strict: neither True nor "3" nor 3.0 is the whole number 3."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def refuse(*checks: tuple[bool, str]) -> None:
    """Raise the first message whose condition holds: the values, what was expected, what to do."""
    for wrong, message in checks:
        if wrong:
            raise ValueError(message)


def rising(lr: float, min_lr: float) -> tuple[bool, str]:
    """Return the check that a learning rate does not rise."""
    return min_lr > lr, f"min_lr {min_lr:g} is above lr {lr:g}; expected at most lr (equal: a constant rate)"


def different(setting: str, names: Sequence[str]) -> None:
    """Refuse a name that is given more than once."""
    twice = next((name for name in names if names.count(name) > 1), None)
    refuse((twice is not None, f"{setting} names {twice!r} twice; expected different ones"))
