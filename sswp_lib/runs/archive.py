"""Records in one file, as they are published: all that tables and figures are drawn from; and, in another, weights that
further trainings may start from.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable
from pathlib import Path

from sswp_lib.config import InputError
from sswp_lib.runs import files, records
from sswp_lib.runs.records import FORMAT, Record

NAME, WEIGHTS = "records.zip", "weights.zip"
RECORD, WEIGHTS_FILE = "record.json", "weights.safetensors"  # of a run
LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the same bytes whenever it is packed


def packed(found: Iterable[Record]) -> bytes:
    """Return the records' files as a zip, the same bytes for the same records."""
    return _zipped(found, RECORD)


def packed_weights(found: Iterable[Record]) -> bytes:
    """Return the weights of runs as a zip; all must be here."""
    return _zipped(found, WEIGHTS_FILE)


def _zipped(found: Iterable[Record], file: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for record in sorted(found, key=lambda record: record.name):
            member = zipfile.ZipInfo(f"{record.name}/{file}", LONG_AGO)
            member.compress_type = zipfile.ZIP_DEFLATED
            member.external_attr = 0o644 << 16
            archive.writestr(member, (records.root() / record.name / file).read_bytes())
    return content.getvalue()


def unpack(path: Path) -> tuple[int, int]:
    """Put an archive's records into the run store, all but those that are there; return how many are new, and how many
    are not of this release's format and were left.

    Raises:
        InputError: no such archive, a damaged one, or one that holds anything else.
    """
    new = other = 0
    for folder, content in _contents(path, RECORD):
        target = records.root() / folder / RECORD
        if target.is_file():
            continue
        files.write(target, content)
        try:
            fits = records.read(target).format == FORMAT
        except InputError:
            target.unlink()
            raise
        if not fits:
            target.unlink()
            target.parent.rmdir()
        new, other = new + fits, other + (not fits)
    return new, other


def unpack_weights(path: Path) -> int:
    """Put an archive's weights beside the records that say they are theirs, where none are; return how many are new.

    Raises:
        InputError: a damaged archive, or one that holds anything else.
    """
    new = 0
    for folder, content in _contents(path, WEIGHTS_FILE):
        target, record = records.root() / folder / WEIGHTS_FILE, records.finished(records.root() / folder)
        if record is not None and not target.is_file() and record.weights_sha256 == files.checksum(content):
            files.write(target, content)
            new += 1
    return new


def _contents(path: Path, file: str) -> list[tuple[str, bytes]]:
    """Return (run, content) of an archive that holds one such file of each run; InputError where it does not."""
    try:
        with zipfile.ZipFile(path) as archive:
            contents = {name: archive.read(name) for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile, EOFError, RuntimeError) as error:
        raise InputError(f"cannot read {str(path)!r}: {files.reason(error)}") from None
    found = []
    for name, content in contents.items():
        folder, _, last = name.partition("/")
        if last != file or not folder.replace("-", "").isalnum():
            raise InputError(f"{str(path)!r} holds {name!r}; expected nothing but NAME/{file}")
        found.append((folder, content))
    return found
