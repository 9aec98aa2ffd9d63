"""What a folder's images are, by their bytes: the fingerprint that names them, and images that lie there twice."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from sswp_lib.config import digest
from sswp_lib.learn.decode import reason, refuse
from sswp_lib.learn.folders import Listing, composed

READ_BYTES = 4 * 2**30  # folders up to this size are told apart by content, larger ones by paths and sizes; ours
NOTE_BYTES = 64 * 2**20  # what was found in folders of so many bytes is noted down for other processes; ours
SETTLED = 2.0  # seconds; a file changed later than that may change again without its time showing it


class Contents(NamedTuple):
    """Attributes:
    fingerprint: of the images, their paths in the folder and their classes.
    shared: test images that are training images as well; None where the bytes were not compared.
    repeated: training images that are there already.
    contrary: different images that are in several classes.
    """

    fingerprint: str
    shared: int | None = None
    repeated: int = 0
    contrary: int = 0

    def warnings(self) -> list[str]:
        found = {
            "test images that are training images as well, so that the test accuracy is too good": self.shared,
            "training images that are copies of others": self.repeated,
            "images that lie in several classes": self.contrary,
        }
        return [f"{kind}: {count}" for kind, count in found.items() if count]


@lru_cache(maxsize=8)
def contents(listing: Listing, notes: Path) -> Contents:
    """Return what a folder's images are. It is read once and then taken from a small file in `notes`, until the size
    or the time of a file changes.

    Raises:
        InputError: an image that cannot be read.
    """
    total = sum(file.size for file in listing.files)
    if not NOTE_BYTES <= total <= READ_BYTES:
        return _contents(listing, total)
    note = notes / f"{digest([str(listing.folder), listing.train, listing.test])}.json"
    with suppress(OSError, ValueError, TypeError):  # none, or a damaged one: it is written anew
        return Contents(**json.loads(note.read_text()))
    found = _contents(listing, total)
    if max(file.changed for file in listing.files) / 1e9 < time.time() - SETTLED:
        _write(note, json.dumps(found._asdict()))
    return found


def _write(note: Path, text: str) -> None:
    beside = note.with_suffix(f".{os.getpid()}.part")
    with suppress(OSError):  # where nothing can be written, the images are read again
        note.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text)
        os.replace(beside, note)


def _contents(listing: Listing, total: int) -> Contents:
    hashes = _hashes([listing.folder / file.path for file in listing.files]) if total <= READ_BYTES else None
    names = [
        (composed(file.path), part.labels and part.classes[part.labels[i]], file.size)
        for part in (listing.train, listing.test)
        for i, file in enumerate(part.files)
    ]
    fingerprint = digest([len(listing.train.files), names, hashes])
    if hashes is None:
        return Contents(fingerprint)
    train, test = hashes[: len(listing.train.files)], hashes[len(listing.train.files) :]
    classes = defaultdict(set)
    for content, (_, name, _) in zip(hashes, names, strict=True):
        classes[content].add(name)
    known = set(train)
    return Contents(
        fingerprint,
        shared=sum(content in known for content in test),
        repeated=len(train) - len(known),
        contrary=sum(len(found) > 1 for found in classes.values()),
    )


def _hashes(paths: list[Path]) -> list[str]:
    broken: list[str] = []

    def read(path: Path) -> str:
        try:
            with open(path, "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            broken.append(f"{str(path)!r} ({reason(error)})")
            return ""

    with ThreadPoolExecutor() as pool:
        hashes = list(pool.map(read, paths))
    refuse(broken)
    return hashes
