"""Accuracies that were published of every architecture of NAS-Bench-201 (Dong & Yang 2020), where a user has them.

A user's copy is read from `nasbench201.csv` in the folder of the data: a row an architecture, with its string in the
column "arch" and top-1 accuracies in percent in the others, such as "cifar10_test_200" after 200 epochs. It is no part
of this package.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from sswp_lib.config import InputError, short
from sswp_lib.space.bench201 import BENCH201
from sswp_lib.space.spaces import Choices

FILE = "nasbench201.csv"
LONG, SHORT = "cifar10_test_200", "cifar10_test_12"  # epochs of their training
COLUMNS = ("arch", LONG)


def published(folder: Path) -> pd.DataFrame | None:
    """Return the published accuracies, indexed by the architectures' strings; None where the user has no copy.

    Raises:
        InputError: a file that cannot be read, lacks a column, or holds what is no architecture or no accuracy of one;
            the line is named.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        found = pd.read_csv(path)
    except (OSError, ValueError) as error:  # pandas' own are ValueErrors
        raise InputError(f"{str(path)!r} cannot be read as a table: {short(str(error))}") from None
    missing = [name for name in COLUMNS if name not in found]
    if missing:
        raise InputError(f"{str(path)!r} has no column {missing[0]!r}; expected {', '.join(COLUMNS)}")
    _check(path, found)
    return found.set_index("arch")


def _check(path: Path, found: pd.DataFrame) -> None:
    for line, text in enumerate(found["arch"], start=2):  # the header is line 1
        try:
            BENCH201.read(str(text))
        except InputError as error:
            raise InputError(f"{str(path)!r}, line {line}: {error}") from None
    twice = found["arch"].duplicated()
    if twice.any():
        line = int(twice.to_numpy().argmax()) + 2
        raise InputError(f"{str(path)!r}, line {line}: {found['arch'][line - 2]} stands there twice; expected once")
    values = pd.to_numeric(found[LONG], errors="coerce")
    wrong = ~values.between(0, 100)
    if wrong.any():
        line = int(wrong.to_numpy().argmax()) + 2
        raise InputError(
            f"{str(path)!r}, line {line}: {LONG} is {short(found[LONG][line - 2])}; expected an accuracy in percent"
        )


def of(table: pd.DataFrame, architectures: list[Choices], column: str = LONG) -> list[float]:
    """Return the published accuracy of each architecture; InputError names one that the table lacks."""
    texts = [BENCH201.write(choices) for choices in architectures]
    lacking = [text for text in texts if text not in table.index]
    if lacking:
        raise InputError(f"{FILE} has no architecture {lacking[0]} (and lacks {len(lacking)}); expected all of them")
    return [float(value) for value in table.loc[texts, column]]


def without_none_and_skip() -> list[Choices]:
    """Return the 729 architectures of convolutions and pools alone, in the order of the space."""
    return [c for c in BENCH201.everything() if not {"none", "skip_connect"} & set(c.operations)]
