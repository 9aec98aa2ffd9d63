"""Networks in files that need nothing of this package: what stands in such a file beside the network, and reading one.

A torch program (.pt2) is read by `torch.export.load`, which unpickles and so may run whatever a file says: here only
those are read that were exported here, told by their checksum. An ONNX file (.onnx) is parsed, whoever made it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, StrictInt, ValidationError, model_validator
from torch import Tensor

from sswp_lib.config import InputError, Section, one_line, refuse
from sswp_lib.runs import files, records

FORMATS = {"torch": ".pt2", "onnx": ".onnx"}
DESCRIPTION = "sswp.json"  # the description's name in a torch program; an ONNX file has its parts as properties
NEEDED = ("onnx", "onnxscript", "onnxruntime")
Pixels = Annotated[StrictInt, Field(ge=1, le=1024)]
Colour = tuple[float, float, float]


class Preprocessing(Section):
    """How an image becomes input: its middle square is resized to `resize` pixels a side, of that the middle `crop` is
    taken, values are brought into `range`. By mean and std of red, green and blue the network itself normalises.
    """

    resize: Pixels
    crop: Pixels
    interpolation: Literal["bilinear"] = "bilinear"
    range: tuple[Literal[0], Literal[1]] = (0, 1)
    mean: Colour
    std: Colour

    @model_validator(mode="after")
    def _inside(self) -> Preprocessing:
        refuse((self.crop > self.resize, f"crop {self.crop} is larger than resize {self.resize}"))
        return self


class Description(Section):
    """What stands in a file beside the network."""

    output: Literal["scores", "features"]  # scores: a softmax makes probabilities of them
    classes: tuple[str, ...] | None
    preprocessing: Preprocessing
    architecture: dict[str, Any]
    run: str
    made: dict[str, Any]  # sswp's version and git commit, the run's seed


@dataclass(frozen=True)
class Portable:
    """A network that was read: `compute` takes images (N, 3, S, S) in 0-1 to scores or features (N, ...)."""

    description: Description
    compute: Callable[[Tensor], Tensor]


def read(path: Path) -> Portable:
    """Read an exported file.

    Raises:
        InputError: it is missing, damaged, of another kind, or a torch program that was not exported here.
    """
    kinds = {suffix: kind for kind, suffix in FORMATS.items()}
    if path.suffix not in kinds:
        raise InputError(f"{str(path)!r} is no exported file; expected one that ends in {' or '.join(kinds)}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {str(path)!r}: {error.strerror}") from None
    if kinds[path.suffix] == "torch" and files.checksum(content) not in exported_here():
        raise InputError(
            f"refused {str(path)!r}: it was not exported here, or was changed since, and torch programs are read by "
            "pickle, which may run code; expected one of `sswp export`, or an ONNX file"
        )
    try:
        return opened(content, kinds[path.suffix])
    except InputError as error:
        raise InputError(f"cannot read {str(path)!r}: {error}") from None


def opened(content: bytes, kind: str, threads: int = 0) -> Portable:
    """Return the network of a file's content, which for a torch program must be trusted.

    Args:
        threads: that ONNX Runtime computes with; 0: as many as there are cores. Torch has its own.
    """
    return _opened_torch(content) if kind == "torch" else _opened_onnx(content, threads)


def _opened_torch(content: bytes) -> Portable:
    beside = {DESCRIPTION: ""}
    try:
        program = torch.export.load(io.BytesIO(content), extra_files=beside)
    except files.UNREADABLE as error:
        raise InputError(f"{files.reason(error)} (torch {torch.__version__})") from None
    return Portable(_described({DESCRIPTION: beside[DESCRIPTION]}), program.module())


def _opened_onnx(content: bytes, threads: int) -> Portable:
    runtime = needed("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, threads  # 4: errors are raised, not printed too
    try:
        session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no class of their own in common
        raise InputError(files.reason(error)) from None
    description = _described(session.get_modelmeta().custom_metadata_map)
    crop, (given, *others) = description.preprocessing.crop, session.get_inputs()
    if others or given.shape[1:] != [3, crop, crop] or given.type != "tensor(float)":
        raise InputError(f"its input is not images of {crop} pixels a side; expected a file of `sswp export`")

    def compute(images: Tensor) -> Tensor:
        try:
            return torch.from_numpy(session.run(None, {given.name: images.numpy()})[0])
        except Exception as error:
            raise InputError(f"the network cannot be computed: {files.reason(error)}") from None

    return Portable(description, compute)


def properties(description: Description) -> dict[str, str]:
    """Return a description's parts by name, each as JSON: the metadata properties of an ONNX file."""
    return {name: json.dumps(part) for name, part in description.model_dump(mode="json").items()}


def _described(texts: dict[str, str]) -> Description:
    """Return the description in a file; InputError where there is none, or what it says cannot be."""
    try:
        plain = {name: json.loads(text) for name, text in texts.items()}
        return Description.model_validate(plain.get(DESCRIPTION, plain))
    except ValidationError as error:
        wrong = one_line(error)
    except (ValueError, RecursionError):
        wrong = "not JSON"
    raise InputError(f"no description of its network and images ({wrong}); expected a file of `sswp export`")


def needed(package: str) -> Any:
    """Return one of the packages that ONNX files need; InputError says what to install."""
    try:
        return import_module(package)
    except ImportError:
        raise InputError(
            f"ONNX files need {', '.join(NEEDED)}, and {package} is not installed: pip install 'sswp[export]'"
        ) from None


def exported_here() -> set[str]:
    """Return the checksums of the torch programs that were exported from this store of runs."""
    path = _list()
    return {line.split()[0] for line in path.read_text().splitlines() if line} if path.is_file() else set()


def note_export(path: Path, content: bytes) -> None:
    """Note that a file of this content is trusted: a line as sha256sum writes it."""
    files.append(_list(), f"{files.checksum(content)}  {path.name}")


def _list() -> Path:
    return records.root() / "exported.sha256"
