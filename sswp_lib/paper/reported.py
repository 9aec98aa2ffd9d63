"""What the papers report: Li et al. 2022 (SSWP-NAS), Kaplan and Giryes 2020 (SSNAS), Peng et al. 2021 (Pi-NAS).

The numbers lie in reported.json, table by table, with captions and notes; figures that were published as pictures only
have findings in words. Errors are in percent unless a caption says accuracy.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

import pandas as pd

from sswp_lib.config import InputError, suggest


@cache
def papers() -> dict[str, dict[str, Any]]:
    """Return everything reported: {paper: {table: {"caption", "columns", "rows", ...}}}."""
    return json.loads(resources.files("sswp_lib.paper").joinpath("reported.json").read_text())


def entry(table: str, paper: str = "sswp_nas") -> dict[str, Any]:
    """Return one table as it lies in the file; InputError names what there is."""
    if paper not in papers():
        raise InputError(f"no paper {paper!r}{suggest(paper, papers())}")
    tables = papers()[paper]
    if table not in tables or not isinstance(tables[table], dict):
        raise InputError(
            f"{paper} has no table "
            f"{table!r}{suggest(table, [name for name, value in tables.items() if isinstance(value, dict)])}"
        )
    return tables[table]


def table(name: str, paper: str = "sswp_nas") -> pd.DataFrame:
    """Return a reported table; its caption and note are in `attrs`.

    Raises:
        InputError: no such table, or a figure that was published as a picture only.
    """
    found = entry(name, paper)
    if "rows" not in found:
        raise InputError(f"{name} of {paper} has no values: {found.get('note') or 'it is text'}")
    frame = pd.DataFrame(found["rows"], columns=found["columns"])
    frame.attrs = {"caption": found["caption"], "note": found.get("note", "")}
    return frame


def values(name: str, key: str, column: str, paper: str = "sswp_nas") -> dict[Any, float]:
    """Return {key: value} of two columns of a reported table."""
    frame = table(name, paper)
    return dict(zip(frame[key], frame[column], strict=True))
