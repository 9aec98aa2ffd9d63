"""What a command is told of: the name of a run, the file or text of an architecture, a data set or the path of one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from sswp_lib.config import DATASETS, InputError, flat, short
from sswp_lib.learn.data import places
from sswp_lib.runs import runs
from sswp_lib.space import Genotype, published_cells, texts


def resolve(source: str, depth: Callable[[], int]):
    """Return the search record, the genotype of a file or text, or the published genotype that `source` names; `depth`
    says of how many cells, where `source` is a pair of cells.
    """
    if "Genotype(" in source:
        return Genotype.from_text(source, depth())
    if os.path.isfile(source):  # Path.is_file raises where a name is too long
        return Genotype.from_file(Path(source), depth())
    if source in published_cells():
        return Genotype.published(source, depth())
    path, is_folder = Path(source), os.path.isdir(source)
    if len(path.parts) < 2 and not path.suffix:
        try:
            return runs.find(source)
        except InputError:
            if not is_folder:
                raise
    what = f"{short(source)} is a folder" if is_folder else f"no file {short(source)}"
    raise InputError(f"{what}; expected a genotype file or a run's name")


def shown(source: str):
    """Return the record of a run, or the architecture of a text, a file or a publication."""
    if source.lstrip().startswith(("|", "{")):
        return texts.read(source)
    return texts.read_file(Path(source)) if os.path.isfile(source) else resolve(source, lambda: 20)


def data_name(source: str) -> str:
    """Return the data set's name of what may be the bare path of a folder."""
    is_path = "/" in source or any(place.is_dir() for place in places(source))
    return f"folder:{source}" if is_path and source not in DATASETS and not source.startswith("folder:") else source


def taken_over(source, data: str | None) -> dict[str, object]:
    """Return the settings that a source fixes: a genotype's depth, or a search's own, its model and its image size; and
    its classes and views, unless `data` names another data set than the search's.
    """
    if hasattr(source, "num_cells"):
        return {"model.num_cells": source.num_cells}
    found = source.config["data"]
    name, kept = found.get("name"), {"image_size": found["image_size"]}
    if data in (None, name) or (name == "folder" and str(data).startswith("folder:")):
        kept = {"classes": None} | {key: value for key, value in found.items() if key not in ("name", "content")}
    searched = {name: source.config[name] for name in ("search", "relaxed") if name in source.config}
    return flat({"data": kept, "model": source.config["model"], **searched})


def data_of(source) -> str | None:
    """Return the data set that a search was made on; None for a genotype or a folder, whose path a record does not
    keep.
    """
    name = source.config["data"].get("name") if hasattr(source, "config") else None
    if name == "folder":
        raise InputError("that search was made on a folder of images; say which with --data folder:PATH")
    return name
