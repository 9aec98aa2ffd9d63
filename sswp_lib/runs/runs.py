"""A run is named by its configuration; cached, locked, resumable, recorded.

`search(config)` returns the finished record if it exists, takes the run up if it was interrupted, else does it; so
notebooks need no order and share what they ask for. A name is the kind and a digest of what changes the result: not the
device,
not the number of threads, not where a folder of images lies. On one machine's CPU an interrupted run ends with the bits
of an
uninterrupted one: everything in its record but `provenance`, and its weights.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from sswp_lib.config import Config, InputError, RunError, digest
from sswp_lib.learn.data import fingerprint, load
from sswp_lib.learn.footprint import step_memory
from sswp_lib.learn.found import Found
from sswp_lib.learn.loop import Loop
from sswp_lib.learn.search import Search
from sswp_lib.learn.train import Training
from sswp_lib.runs import files, records
from sswp_lib.runs.progress import Line, duration
from sswp_lib.runs.records import Record, environment, everything, find, root
from sswp_lib.space import Genotype

PRETRAINED = ("simclr", "simclr_matched")  # initialisations that begin with a pre-training
FORMAT = 1  # of records; part of every name
CHECKPOINT_SECONDS = 60.0  # between checkpoints within an epoch; each epoch's end has one anyway
EPOCH_SECONDS = 1.0  # epochs shorter than this share one

__all__ = [
    "Record",
    "default_device",
    "everything",
    "find",
    "finished",
    "memory",
    "pretraining",
    "root",
    "search",
    "started_from",
    "train",
]


def default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def search(config: Config, device: str | None = None, quiet: bool = False, tensorboard: bool = False) -> Record:
    """Return the record of a search, doing or finishing it where needed."""
    device = device or default_device()
    make = lambda line: Search(config, load(config.data, device, line.working), device)  # noqa: E731
    return _run("search", _identity(config, "search"), {}, make, quiet, tensorboard)


def train(
    config: Config, source: Record | Genotype, weights: Path | None = None, device: str | None = None,
    quiet: bool = False, tensorboard: bool = False,
) -> Record:  # fmt: skip
    """Return the record of a training.

    Args:
        config: `train.init` says what to start from: "random"; "concomitant", the weights of `source`, a search's
            record, or those of the file `weights`; "simclr", those of a pre-training run, which is done first.
        source: a search's record or a genotype.

    Raises:
        InputError: `weights` given where they would not be used; or whatever is wrong with them, the data or the
            settings.
    """
    if weights is not None and config.train.init != "concomitant":
        raise InputError(
            f"weights {str(weights)!r} are given, but init is {config.train.init!r}, which does not use them; "
            "expected init='concomitant'"
        )
    device = device or default_device()
    genotype = source.genotype if isinstance(source, Record) else source
    start, state = None, None
    if weights is None:
        start = _start(config, source, partial(train, device=device, quiet=quiet, tensorboard=tensorboard))
    else:
        state = files.read_weights(weights)
    given = _source(
        genotype, start.name if start is not None else state and files.checksum(files.weights_bytes(state))[:12]
    )

    def make(line: Line) -> Training:
        loaded = start.weights() if start is not None else state
        return Training(config, load(config.data, device, line.working), genotype, loaded, device)

    return _run("train", _identity(config, "train"), given, make, quiet, tensorboard)


def started_from(config: Config, init: str, device: str | None = None) -> Record:
    """Return the run whose weights a fine-tuning with that `init` starts from: the search, or the pre-training of what
    it found.
    """
    found = search(config, device)
    return (
        found
        if init == "concomitant"
        else train(pretraining(config, found.seed), found.genotype, device=device, quiet=True)
    )


def finished(config: Config, source: Record | Genotype | None = None) -> Record | None:
    """Return the record of a search (without `source`) or of a training if it is there already; nothing is computed."""
    if source is None:
        return _finished(root() / _name("search", _identity(config, "search"), {}))
    start = _start(config, source, finished)
    if start is None and config.train.init != "random":
        return None
    given = _source(source.genotype if isinstance(source, Record) else source, start.name if start else None)
    return _finished(root() / _name("train", _identity(config, "train"), given))


def _start(
    config: Config, source: Record | Genotype, pretrained: Callable[[Config, Genotype], Record | None]
) -> Record | None:
    """Return the run whose weights a training starts from: none, the search `source`, or what `pretrained` returns for
    its pre-training.
    """
    if config.train.init in PRETRAINED:
        genotype = source.genotype if isinstance(source, Record) else source
        return pretrained(pretraining(config, _seed(config, source)), genotype)
    if config.train.init == "random":
        return None
    if not isinstance(source, Record) or source.kind != "search":
        raise InputError(
            "init is 'concomitant' but the source is a genotype without weights; give a search run, or a "
            "weights file with --weights"
        )
    return source


def _source(genotype: Genotype, weights: str | None) -> dict[str, Any]:
    """Return what a training starts from, as a part of its name."""
    return {"genotype": genotype.model_dump(mode="json")} | ({"weights": weights} if weights else {})


def pretraining(config: Config, seed: int) -> Config:
    """Return the configuration of the two-stage baseline: SimCLR with the search's epochs, batch and learning rate
    (paper, section 4.4).

    The paper's sees every image in each epoch; with `train.init` "simclr_matched" it sees the half on which a search
    of that seed learns its weights, and so has as many steps on the same images as those.
    """
    s = config.search
    changes = {
        "init": "random", "objective": "simclr", "freeze": "none", "labels": 1.0, "labels_per_class": None,
        "validation": 0.0, "epochs": s.epochs,
        "batch_size": s.batch_size, "lr": s.lr, "min_lr": s.min_lr, "schedule": s.schedule,
        "weight_decay": s.weight_decay, "momentum": s.momentum,
        "temperature": s.temperature, "drop_path": 0.0, "auxiliary": 0.0, "calibrate": True, "evaluate_every": 0,
        "shift": 0, "cutout": 0, "grad_clip": s.grad_clip, "half": config.train.init == "simclr_matched",
    }  # fmt: skip
    return config.changed(**{f"train.{name}": value for name, value in changes.items()}, seed=seed)


def _seed(config: Config, source: Record | Genotype) -> int:
    """Return the seed of a pre-training: what a search found has one, so that the fine-tunings from it differ in seed
    as those from the search's own weights do.
    """
    return source.seed if isinstance(source, Record) else config.seed


def memory(config: Config, batch_size: int = 16, device: str | None = None, quiet: bool = False) -> Record:
    """Return the record of a measurement: peak memory of search steps beside those of compact networks."""
    device = device or default_device()
    plain = {
        "data": {"image_size": config.data.image_size},
        "model": config.part("model")["model"],
        "batch_size": batch_size,
        "seed": config.seed,
        "device": device,
    }
    folder, line = root() / _name("memory", plain, {}), Line("memory", quiet)
    with _locked(folder, line):
        found = _finished(folder)
        if found is None:
            started = time.monotonic()
            result = step_memory(config, batch_size, device)
            found = _write_record(
                folder, "memory", plain, {}, [], result, None, device, {"seconds": time.monotonic() - started}
            )
        return found


def _identity(config: Config, kind: str) -> dict[str, Any]:
    """Return the part of a configuration that a run's result depends on."""
    plain = config.part("data", "model", kind)
    del plain["data"]["root"]
    if plain["data"]["classes"] is None:
        del plain["data"]["classes"]  # all, as before there was a choice: earlier runs keep their names
    content = fingerprint(config.data)
    if content is not None:
        plain["data"] |= {"name": config.data.name.split(":")[0], "content": content}
    return plain


def _name(kind: str, plain: dict[str, Any], source: dict[str, Any]) -> str:
    return f"{kind}-{digest({'format': FORMAT, 'config': plain, 'source': source})}"


def _run(
    kind: str, plain: dict[str, Any], source: dict[str, Any], make: Callable[[Line], Loop], quiet: bool,
    tensorboard: bool,
) -> Record:  # fmt: skip
    folder = root() / _name(kind, plain, source)
    line = Line(folder.name, quiet)
    found = _finished(folder)
    if found is not None:
        return found
    with _locked(folder, line):
        found = _finished(folder)
        try:
            if found is None:
                loop = make(line)
                _describe(loop.data.found, line)
                found = _carry_out(folder, kind, plain, source, loop, line, tensorboard)
            return found
        except torch.OutOfMemoryError:
            raise RunError(
                f"{folder.name} ran out of the device's memory; lower {kind}.batch_size, or choose another --device"
            ) from None


_described: set[Found] = set()  # of the folders that this process has run on


def _describe(found: Found, line: Line) -> None:
    """Say once what was found in a folder of images; where the line is quiet, only what is probably wrong."""
    if found.folder and found not in _described:
        _described.add(found)
        for text in [] if line.quiet else found.lines():
            line.note(text)
        for text in found.warnings():
            line.note(f"warning: {text}")


@contextmanager
def _locked(folder: Path, line: Line) -> Iterator[None]:
    """Hold the run's lock; where another process has it, wait for that one."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_suffix(".lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            line.note("another process is at this run; waiting for it")
            while not lock.is_locked:
                line.beat("waiting for another process")
                with suppress(Timeout):
                    lock.acquire(timeout=1.0)
    except OSError as error:
        raise InputError(
            f"cannot keep runs in {str(folder.parent)!r}: {error.strerror}; set SSWP_RUNS to a folder that "
            "can be written"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _finished(folder: Path) -> Record | None:
    path = folder / "record.json"
    return records.read(path) if path.is_file() else None


def _carry_out(
    folder: Path, kind: str, plain: dict[str, Any], source: dict[str, Any], loop: Loop, line: Line, tensorboard: bool
) -> Record:
    checkpoints, history = folder / "checkpoints", folder / "history.jsonl"
    spent, resumed = 0.0, 0
    files.clear_partial(folder)
    kept = files.read_checkpoint(checkpoints, folder.name, line.note)
    if kept is not None:
        loop.restore(kept["loop"])
        spent, resumed = kept["seconds"], kept["resumed"] + 1
        line.note(f"taken up at epoch {loop.epoch + 1}, step {loop.step + 1}")
    files.write_json(folder / "config.json", {"config": plain, "source": source})
    files.write(history, "".join(json.dumps(row) + "\n" for row in loop.history).encode())
    board = _tensorboard(folder) if tensorboard else None
    started = last = time.monotonic()
    for progress in loop.advance():
        line.update(progress)
        if progress.row is not None:
            files.append(history, json.dumps(progress.row))
            if board:
                _to_tensorboard(board, progress.row)
        now = time.monotonic()
        if now - last > (EPOCH_SECONDS if progress.row is not None else CHECKPOINT_SECONDS):
            state = {"loop": loop.state(), "seconds": spent + now - started, "resumed": resumed}
            files.write_checkpoint(checkpoints, folder.name, loop.epoch, loop.step, state)
            last = now
    result, weights = loop.finish()
    content = files.weights_bytes(weights)
    files.write(folder / "weights.safetensors", content)
    if "genotype" in result:
        files.write(folder / "genotype.json", (Genotype.model_validate(result["genotype"]).to_json() + "\n").encode())
    seconds = spent + time.monotonic() - started
    times = {"seconds": seconds, "resumed": resumed}
    record = _write_record(
        folder, kind, plain, source, loop.history, result, files.checksum(content), str(loop.device), times
    )
    for path in files.checkpoints(checkpoints):
        path.unlink()
    line.close(f"done in {duration(seconds)}{_summary(record)}")
    return record


def _summary(record: Record) -> str:
    result = record.result
    if record.kind == "search":
        return (
            f", loss {record.history[-1]['loss']:.3f}, {result['parameters'] / 1e6:.3f} M parameters, "
            f"{100 * result['skip_share']:.0f} % skips"
        )
    return (
        f", test accuracy {result['test']['top1']:.2f} %"
        if "test" in result
        else f", loss {record.history[-1]['loss']:.3f}"
    )


def _write_record(folder, kind, plain, source, history, result, weights, device, times) -> Record:
    record = Record(
        name=folder.name, kind=kind, config=plain, seed=plain["seed"], source=source, history=history, result=result,
        weights_sha256=weights,
        provenance=times | environment(device),
    )  # fmt: skip
    files.write_json(folder / "record.json", record.model_dump(mode="json"))
    return record


def _tensorboard(folder: Path):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError("TensorBoard is not installed; install the extra: pip install 'sswp[tensorboard]'") from None
    return SummaryWriter(str(folder / "tensorboard"))


def _to_tensorboard(board, row: dict[str, Any]) -> None:
    for name, value in row.items():
        if isinstance(value, int | float) and name != "epoch":
            board.add_scalar(name, value, row["epoch"])
    board.flush()
