"""Folders of image files as people have them: which images are there, of which class, and what is passed over.

A folder has train/<class>/ and test/<class>/ (or val/<class>/); or <class>/ alone; or images alone, which then have no
labels. A class's images may lie in folders of any depth. What is hidden, belongs to a system or is no image is passed
over and counted; links are followed, but never in a circle; names are the same in both of Unicode's normal forms.
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from sswp_lib.config import InputError, suggest
from sswp_lib.learn.decode import IMAGE_SUFFIXES, reason
from sswp_lib.learn.found import counted, named

PARTS = {"train": ("train", "training"), "test": ("test", "testing"), "val": ("val", "valid", "validation")}
ANNOTATIONS = "val_annotations.txt"  # where Tiny ImageNet lists its validation labels
SYSTEM_FOLDERS = (
    "__macosx", "__pycache__", "@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "~snapshot",
    "$recycle.bin", "recycler", "system volume information", "lost+found", "found.000", "network trash folder",
    "temporary items",
)  # fmt: skip
"""What systems and network drives put beside one's own folders without a leading dot; in small letters."""
PHOTOGRAPHS = (
    ".heic", ".heif", ".hif", ".jxl", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2",
)  # fmt: skip
"""Photographs that Pillow does not read by itself."""
CLOUD = "images that lie in the cloud only"
DEAD = "links to what is not there"
MANY = 20_000  # in folders of more images a process looks for those that came or went, not for changed ones; ours


class File(NamedTuple):
    """An image file: its path in the folder, its bytes, and the time of its last change in ns."""

    path: str
    size: int
    changed: int


class Part(NamedTuple):
    """The training or the test images, class by class; `labels` are None where there are no classes."""

    files: tuple[File, ...] = ()
    labels: tuple[int, ...] | None = None
    classes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Listing:
    """What lies in a folder, before any image is opened.

    Attributes:
        folder: absolute.
        train, test: each with labels and classes of its own; every test class is one of the training classes.
        passed: how many things were passed over, by their kind.
        warnings: sentences on what is probably not as it was meant.
        directories: every folder that was looked into, and the time of its last change in ns.
    """

    folder: Path
    train: Part
    test: Part
    passed: dict[str, int]
    warnings: tuple[str, ...]
    directories: dict[str, int]

    @property
    def files(self) -> list[File]:
        """The training images, then the test images."""
        return [*self.train.files, *self.test.files]


_listings: dict[Path, Listing] = {}  # the last of each folder, in this process


def listed(folder: Path) -> Listing:
    """Return what lies in a folder; the same object for as long as nothing changes.

    Raises:
        InputError: no images, training and test images that cannot be told apart, test classes of which no image is
            trained on, or a folder that cannot be read.
    """
    known = _listings.get(folder)
    if known and len(known.files) > MANY and all(_changed(p) == t for p, t in known.directories.items()):
        return known
    found = _Walk(folder).listing()
    if known is None or vars(found) != vars(known):
        _listings[folder] = found
    return _listings[folder]


def below(folder: Path) -> tuple[list[Path], list[str]]:
    """Return the images of a folder and of all folders in it, whatever their names mean, and sentences on those that
    are not read; InputError where there are none.
    """
    walk = _Walk(folder)
    found = [folder / file.path for file in walk._below(folder, ())]
    walk._warn()
    if not found:
        passed = f" (passed over: {counted(walk.passed.items())})" if walk.passed else ""
        raise InputError(f"no images in {str(folder)!r}{passed}; expected image files in it")
    return found, walk.warnings


def _changed(path: str) -> int | None:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return None


def composed(name: str) -> str:
    """Return a name in the one of Unicode's normal forms in which most systems write it; macOS has the other."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


class _Walk:
    """One walk through a folder, and what is passed over on it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.passed: Counter[str] = Counter()
        self.warnings: list[str] = []
        self.directories: dict[str, int] = {}

    def listing(self) -> Listing:
        folders, loose = self._inside(self.folder)
        parts = self._parts(folders)
        if "train" in parts:
            train = self._part(parts.pop("train"))
            self._pass("images beside 'train'", len(loose))
            for other in folders:
                if _part_of(other) is None:
                    self._pass(f"folder {other.name!r} beside 'train'", 1)
        else:
            self._refuse_untold(parts, folders)
            train = self._by_class(self.folder, folders, loose)
        if not train.files:
            passed = f" (passed over: {counted(self.passed.items())})" if self.passed else ""
            raise InputError(
                f"no images in {str(self.folder)!r}{passed}; expected train/<class>/* with image files in it"
            )
        test = self._test(train, parts)
        self._warn()
        return Listing(self.folder, train, test, dict(self.passed), tuple(self.warnings), self.directories)

    def _parts(self, folders: list[Path]) -> dict[str, Path]:
        """Return the folders of the training, test and validation images, as far as there are."""
        found: dict[str, Path] = {}
        for folder in folders:
            part = _part_of(folder)
            if part in found:
                raise InputError(
                    f"{str(self.folder)!r} has folders {found[part].name!r} and {folder.name!r}, which mean the same; "
                    "keep one"
                )
            if part:
                found[part] = folder
        return found

    def _refuse_untold(self, parts: dict[str, Path], folders: list[Path]) -> None:
        """Refuse a folder without 'train' in which test images may lie."""
        for part in parts.values():
            raise InputError(
                f"{str(self.folder)!r} has a folder {part.name!r} but none named 'train'; put the training images into "
                "train/, or they could not be told apart"
            )
        for folder in folders:
            if (folder / "train").is_dir():
                raise InputError(
                    f"{str(self.folder)!r} has no folder 'train', but {str(folder)!r} has; take that one if it is the "
                    "data set, else arrange the images as train/<class>/ and test/<class>/"
                )

    def _test(self, train: Part, parts: dict[str, Path]) -> Part:
        """Return the test images: those of 'test' or 'val', whichever has classes that are trained on."""
        found = {part.name: self._part(part) for part in (parts.get("test"), parts.get("val")) if part}
        chosen = next((name for name, part in found.items() if set(part.classes) & set(train.classes)), None)
        if chosen is None and train.classes:
            chosen = next((name for name, part in found.items() if part.classes), None)
        without = "they have no classes" if train.classes else "the training images have no classes"
        for name, part in found.items():
            if name != chosen:
                why = without if chosen is None else f"{chosen!r} is taken"
                self._pass(f"images in {name!r}, as {why}", len(part.files))
        test = found.get(chosen, Part())
        strange = [name for name in test.classes if name not in train.classes]
        if strange:
            raise InputError(
                f"class {strange[0]!r} is in {chosen!r} of {str(self.folder)!r} but not among the training images"
                f"{suggest(strange[0], train.classes)}; expected the same class folders"
            )
        return test

    def _part(self, folder: Path) -> Part:
        if (folder / ANNOTATIONS).is_file():
            return self._annotated(folder)
        return self._by_class(folder, *self._inside(folder))

    def _annotated(self, folder: Path) -> Part:
        """Return the images that lie together and have their classes in a table."""
        self._inside(folder / "images")  # for what is passed over there
        lines = (folder / ANNOTATIONS).read_text("utf-8", errors="replace").splitlines()
        rows = [line.split("\t")[:2] for line in lines if "\t" in line]
        classes = tuple(sorted({name for _, name in rows}))
        paths = [folder / "images" / file for file, _ in rows]
        files = tuple(_file(self._name(path), str(path)) for path in paths)
        return Part(files, tuple(classes.index(name) for _, name in rows), classes)

    def _by_class(self, place: Path, folders: list[Path], loose: list[File]) -> Part:
        """Return the images of class folders; where no folder holds any, those without a class."""
        above = tuple(_identity(path) for path in (place, self.folder, *self.folder.parents))
        by_class: dict[str, list[File]] = {}
        for folder in folders:
            by_class.setdefault(composed(folder.name), []).extend(self._below(folder, above))
        empty = [name for name, files in by_class.items() if not files]
        full = {name: files for name, files in by_class.items() if files}
        if not full:
            return Part(tuple(loose))
        where = repr(place.name) if place != self.folder else "the folder"
        if empty and (place == self.folder or _part_of(place) == "train"):
            self.warnings.append(f"no images in the class folders {named(empty)} of {where}; they are no classes")
        if loose:
            self._pass(f"images in {where} itself, of no class", len(loose))
            self.warnings.append(f"images in {where} itself, which have no class and are not used: {len(loose)}")
        labels = chain.from_iterable([i] * len(files) for i, files in enumerate(full.values()))
        return Part(tuple(chain.from_iterable(full.values())), tuple(labels), tuple(full))

    def _below(self, folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[File]:
        """Yield the images of a folder and of all folders in it."""
        here = _identity(folder)
        if here in above:
            self._pass("links that lead back", 1)
            return
        folders, images = self._inside(folder)
        yield from images
        for inner in folders:
            yield from self._below(inner, (*above, here))

    def _inside(self, folder: Path) -> tuple[list[Path], list[File]]:
        """Return the folders and the images right in a folder, in the order of their names; count what is neither."""
        folders, images, inside = [], [], self._name(folder / "_")[:-1]
        try:
            self.directories[str(folder)] = os.stat(folder).st_mtime_ns
            with os.scandir(folder) as entries:
                for entry in sorted(entries, key=lambda e: composed(e.name)):
                    kind = _kind(entry)
                    if kind == "folder":
                        folders.append(folder / entry.name)
                    elif kind == "image":
                        images.append(_file(inside + entry.name, entry.path))
                    else:
                        self.passed[kind] += 1
        except OSError as error:
            raise InputError(
                f"cannot read the folder {str(folder)!r} ({reason(error)}); check its permissions"
            ) from None
        return folders, images

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _pass(self, kind: str, count: int) -> None:
        if count:
            self.passed[kind] += count

    def _warn(self) -> None:
        unread = [kind for kind in self.passed if kind in PHOTOGRAPHS]
        if unread:
            count = sum(self.passed[kind] for kind in unread)
            self.warnings.append(
                f"photographs in formats that are not read ({', '.join(unread)}): {count}; convert them to JPEG or PNG "
                "where none lies beside them"
            )
        for kind in (CLOUD, DEAD):
            if self.passed[kind]:
                self.warnings.append(f"{kind}: {self.passed[kind]}")


def _file(name: str, path: str) -> File:
    try:
        found = os.stat(path)
    except OSError:  # a dead link, or a row of a table; said when it is opened
        return File(name, 0, 0)
    return File(name, found.st_size, found.st_mtime_ns)


def _kind(entry: os.DirEntry) -> str:
    """Return "folder", "image", or what kind of thing that is passed over."""
    suffix = os.path.splitext(entry.name)[1].lower()
    if suffix == ".icloud":
        return CLOUD
    if entry.name.startswith("."):
        return "hidden"
    linked = entry.is_symlink()
    if os.path.isdir(entry.path) if linked else entry.is_dir():  # a link in a circle is no folder, and no error
        return "system folders" if entry.name.casefold() in SYSTEM_FOLDERS else "folder"
    if suffix in IMAGE_SUFFIXES:
        return "image" if linked or entry.is_file() else "pipes and devices"
    return DEAD if linked and not os.path.exists(entry.path) else suffix or "files without a suffix"


def _part_of(folder: Path) -> str | None:
    """Return which part of a data set a folder's name says it has."""
    return next((part for part, names in PARTS.items() if folder.name.casefold() in names), None)


def _identity(folder: Path) -> tuple[int, int]:
    found = os.stat(folder)
    return found.st_dev, found.st_ino
