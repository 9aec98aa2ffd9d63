"""What an exported network says of image files: a table, as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sswp_lib.config import InputError
from sswp_lib.lab.portable import Description, Preprocessing, read
from sswp_lib.learn.decode import DAMAGE, pixels, reason
from sswp_lib.learn.folders import below
from sswp_lib.runs.progress import Line

BATCH = 64  # images at once; ours


def table(exported: Path, images: Sequence[Path]) -> tuple[str, list[str]]:
    """Return CSV with a row for each image, and a sentence on each that cannot be read.

    Args:
        exported: a file of `sswp export`. images: files, or folders of them.

    Returns:
        Columns file, class, probability; or file and the features, where there are no classes.
    """
    network, (found, unread) = read(exported), _files(images)
    described, line = network.description, Line("predict")
    rows: list[tuple[object, ...]] = []
    for batch in _batches(_decoded(found, described.preprocessing, unread)):
        outputs = network.compute(torch.stack([image for _, image in batch]))
        rows += _rows([path for path, _ in batch], outputs, described)
        line.working(f"image {len(rows)} of {len(found)}")
    line.close(f"{len(rows)} of {len(found)} images")
    width = len(rows[0]) - 1 if rows else 0
    said = ("class", "probability") if described.classes else [f"feature_{i}" for i in range(width)]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("file", *said), *rows])
    return text.getvalue(), unread


def _files(images: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Return the files that are meant, and sentences on those in folders that are not read."""
    found, unread = [], []
    for path in images:
        inside, warnings = below(path) if path.is_dir() else ([path], [])
        found += inside
        unread += warnings
    return found, unread


def _decoded(paths: Sequence[Path], wanted: Preprocessing, unread: list[str]) -> Iterator[tuple[Path, Tensor]]:
    """Yield each image that can be read, float (3, S, S) in 0-1; put a sentence on the others into `unread`."""
    edge = (wanted.resize - wanted.crop) // 2
    for path in paths:
        try:
            image = pixels(path, wanted.resize)[0]
        except DAMAGE as error:
            unread.append(f"cannot read image {str(path)!r} ({reason(error)})")
            continue
        middle = np.ascontiguousarray(image[:, edge : edge + wanted.crop, edge : edge + wanted.crop])
        yield path, torch.from_numpy(middle).float().div_(255)


def _batches(images: Iterator[tuple[Path, Tensor]]) -> Iterator[list[tuple[Path, Tensor]]]:
    while batch := list(islice(images, BATCH)):
        yield batch


def _rows(paths: Sequence[Path], outputs: Tensor, described: Description) -> Iterator[tuple[object, ...]]:
    width = outputs.shape[-1] if described.classes is None else len(described.classes)
    if outputs.shape != (len(paths), width):
        raise InputError(
            f"the exported network makes {tuple(outputs.shape)} numbers of {len(paths)} images; expected "
            f"({len(paths)}, {width})"
        )
    if described.classes is None:
        for path, features in zip(paths, outputs.tolist(), strict=True):
            yield path, *map("{:.6g}".format, features)
        return
    probabilities, best = outputs.softmax(dim=1).max(dim=1)
    for path, probability, label in zip(paths, probabilities.tolist(), best.tolist(), strict=True):
        yield path, described.classes[label], f"{probability:.4f}"
