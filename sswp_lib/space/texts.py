"""Architectures as people write them: JSON, DARTS's own text, NAS-Bench-201's string. Parsed, never evaluated."""

from __future__ import annotations

import json
from pathlib import Path

from sswp_lib.config import InputError, short, suggest
from sswp_lib.space.bench201 import BENCH201
from sswp_lib.space.genotype import Genotype, of_file
from sswp_lib.space.resnest import RESNEST
from sswp_lib.space.spaces import Choices, Space

# the spaces whose edges all stay, by the names that configurations have for them
SPACES: dict[str, Space] = {space.name: space for space in (BENCH201, RESNEST)}


def read(text: str, num_cells: int = 20) -> Genotype | Choices:
    """Read an architecture in any of its forms; a pair of cells as DARTS prints it is stacked to `num_cells`.

    Raises:
        InputError: none of them; what it seems to be is named, and what is wrong with it.
    """
    if text.lstrip().startswith("|"):
        return BENCH201.read(text.strip())
    try:
        plain = json.loads(text)
    except (ValueError, RecursionError):
        plain = None
    if isinstance(plain, dict) and "space" in plain:
        name = plain["space"]
        if name not in SPACES:
            raise InputError(f"an architecture of the unknown space {short(name)}{suggest(str(name), SPACES)}")
        return SPACES[name].read(text)
    return Genotype.from_text(text, num_cells)


def read_file(path: Path, num_cells: int = 20) -> Genotype | Choices:
    """Read the file of an architecture in any of its forms; InputError names the file."""
    return of_file(path, lambda text: read(text, num_cells))


def texts(architecture: Genotype | Choices) -> dict[str, str]:
    """Return an architecture in all of the forms that can say it, by their names."""
    found = {"json": architecture.to_json()}
    if isinstance(architecture, Choices):
        space = SPACES.get(architecture.space)
        return found | ({space.name: space.write(architecture)} if space and space.write else {})
    pair = architecture.to_text()
    return found | ({"darts": pair} if pair else {})
