"""Records in one file, as they are published: all that tables and figures are drawn from, without weights."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable
from pathlib import Path

from sswp_lib.config import InputError
from sswp_lib.runs import files, records
from sswp_lib.runs.records import FORMAT, Record

NAME = "records.zip"
LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the same bytes whenever it is packed


def packed(found: Iterable[Record]) -> bytes:
    """Return the records' files as a zip, the same bytes for the same records."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for record in sorted(found, key=lambda record: record.name):
            member = zipfile.ZipInfo(f"{record.name}/record.json", LONG_AGO)
            member.compress_type = zipfile.ZIP_DEFLATED
            member.external_attr = 0o644 << 16
            archive.writestr(member, (records.root() / record.name / "record.json").read_bytes())
    return content.getvalue()


def unpack(path: Path) -> tuple[int, int]:
    """Put an archive's records into the run store, all but those that are there; return how many are new, and how many
    are not of this release's format and were left.

    Raises:
        InputError: no such archive, a damaged one, or one that holds anything else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            contents = {name: archive.read(name) for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile, EOFError, RuntimeError) as error:
        raise InputError(f"cannot read the records {str(path)!r}: {files.reason(error)}") from None
    new = other = 0
    for name, content in contents.items():
        folder, _, file = name.partition("/")
        if file != "record.json" or not folder.replace("-", "").isalnum():
            raise InputError(f"{str(path)!r} holds {name!r}; expected records alone, NAME/record.json")
        target = records.root() / folder / file
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
