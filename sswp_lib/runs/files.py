"""Files that are never half: written beside and renamed, checked when read, refused by name.

Weights are safetensors, records JSON, checkpoints torch files that are read with `weights_only=True` and only when
their content has the checksum that their name bears.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import pickle
import struct
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from sswp_lib.config import InputError, RunError

UNREADABLE = (
    OSError, RuntimeError, ValueError, LookupError, EOFError, TypeError, AttributeError, AssertionError, struct.error,
    pickle.UnpicklingError, SafetensorError,
)  # fmt: skip
"""What readers raise at damaged content; torch's unpickler nearly anything."""


def write(path: Path, content: bytes, durable: bool = True) -> None:
    """Write a file beside its place and rename it there; on a full disk nothing is left behind and nothing is lost."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(beside, "wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        raise _unwritable(path, error) from None
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)  # nothing, once renamed


def clear_partial(folder: Path) -> None:
    """Remove what a killed process left half written; only for who holds the run's lock."""
    for part in folder.rglob(".*.part"):
        part.unlink(missing_ok=True)


def append(path: Path, line: str) -> None:
    """Append a line to a text file."""
    try:
        with open(path, "a") as file:
            file.write(line + "\n")
    except OSError as error:
        raise _unwritable(path, error) from None


def _unwritable(path: Path, error: OSError) -> RunError:
    todo = (
        "free some space and run the same command again, it goes on from the last checkpoint"
        if error.errno in (errno.ENOSPC, errno.EDQUOT)
        else "check the folder and its permissions"
    )
    return RunError(f"cannot write {str(path)!r}: {error.strerror}; {todo}")


def write_json(path: Path, plain: Any) -> None:
    write(path, (json.dumps(plain, indent=1) + "\n").encode())


def read_json(path: Path) -> Any:
    """Return a JSON file's content; InputError names the file and the reason."""
    try:
        return json.loads(path.read_text())
    except UNREADABLE as error:
        raise InputError(f"cannot read {str(path)!r}: {reason(error)}; remove it to have it made anew") from None


def reason(error: BaseException) -> str:
    """Return the first line of an error's text."""
    text = str(error).strip().splitlines()
    return text[0][:200] if text else type(error).__name__


def weights_bytes(weights: dict[str, Tensor]) -> bytes:
    """Return weights as safetensors; equal weights give equal bytes."""
    return save_safetensors(weights)


def checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def read_weights(path: Path, expected: str | None = None) -> dict[str, Tensor]:
    """Return the tensors of a .safetensors file, or of a torch file that holds tensors only.

    Raises:
        InputError: missing, damaged, not the expected content, or a pickle that holds more than tensors (it is not
            run).
    """
    try:
        content = path.read_bytes()
        if expected is not None and checksum(content) != expected:
            raise ValueError("its content is not what the record says (checksum)")
        if path.suffix == ".safetensors":
            return load_safetensors(content)
        weights = _load_tensors(content)
        if not isinstance(weights, dict) or not all(isinstance(t, Tensor) for t in weights.values()):
            raise ValueError("expected a dictionary of tensors")
        return weights
    except pickle.UnpicklingError:
        raise InputError(
            f"refused {str(path)!r}: it holds more than tensors and could run code; expected a .safetensors "
            "file or a state_dict of tensors"
        ) from None
    except UNREADABLE as error:
        raise InputError(f"cannot read weights {str(path)!r}: {reason(error)}") from None


def _load_tensors(content: bytes) -> Any:
    """Return what a torch file holds: tensors and plain data, never code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of strange content it warns before it refuses
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def write_checkpoint(folder: Path, run: str, epoch: int, step: int, state: dict[str, Any], keep: int = 2) -> None:
    """Write a checkpoint, named by its place in the run and its content; of the older ones `keep - 1` stay."""
    buffer = io.BytesIO()
    torch.save({"run": run, "state": state}, buffer)
    content = buffer.getvalue()
    write(folder / f"{epoch:05d}-{step:07d}-{checksum(content)[:16]}.pt", content, durable=False)
    for old in checkpoints(folder)[keep:]:
        old.unlink(missing_ok=True)


def checkpoints(folder: Path) -> list[Path]:
    """Return the folder's checkpoint files, newest first."""
    return sorted(folder.glob("*.pt"), reverse=True) if folder.is_dir() else []


def read_checkpoint(folder: Path, run: str, warn) -> dict[str, Any] | None:
    """Return the newest whole checkpoint's state, None where there is no checkpoint; `warn` hears of each refused file.

    Raises:
        RunError: there are checkpoints, but none is whole.
    """
    files = checkpoints(folder)
    for path in files:
        try:
            content = path.read_bytes()
            if path.stem.rpartition("-")[2] != checksum(content)[:16]:
                raise ValueError("truncated or changed: its content does not have the checksum that its name bears")
            loaded = _load_tensors(content)
            if not isinstance(loaded, dict) or loaded["run"] != run:
                raise ValueError(
                    f"it belongs to run {loaded['run']}" if isinstance(loaded, dict) else "it holds no run's state"
                )
            return loaded["state"]
        except UNREADABLE as error:
            warn(f"refused checkpoint {str(path)!r}: {reason(error)}")
    if files:
        raise RunError(
            f"none of the {len(files)} checkpoints in {str(folder)!r} is whole; remove that folder to start "
            "the run anew"
        )
    return None
