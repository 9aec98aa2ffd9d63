"""A run is named by its configuration; cached, locked, resumable, recorded.

`search(config)` returns the finished record if it exists, takes the run up if it was interrupted, else does it; so
notebooks need no order and share what they ask for. A name is the kind and a digest of what changes the result: the
settings that it uses, the bytes of images and weights; not the device, not the number of threads, not where a folder
of images lies. On one machine's CPU an interrupted run ends with the bits of an uninterrupted one: everything in its
record but `provenance`, and its weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sswp_lib import processes
from sswp_lib.config import Config, InputError, OneLine, RunError
from sswp_lib.learn.data import fingerprint, load
from sswp_lib.learn.footprint import step_memory
from sswp_lib.learn.found import Found
from sswp_lib.learn.loop import Loop
from sswp_lib.learn.measure import norms
from sswp_lib.learn.neighbours import MOST, MOVED, NEAREST, compared
from sswp_lib.learn.recipes import PRETRAINED, pretraining, sections, unused
from sswp_lib.learn.searches import SEARCHES
from sswp_lib.learn.train import Training
from sswp_lib.runs import files, following, records
from sswp_lib.runs.carrying_out import Asked, carry_out, write_record
from sswp_lib.runs.following import Standing
from sswp_lib.runs.holding import Hold, held
from sswp_lib.runs.progress import Line
from sswp_lib.runs.records import Record, everything, find, root
from sswp_lib.space import Choices, Genotype

__all__ = [
    "Record",
    "asked",
    "default_device",
    "everything",
    "find",
    "finished",
    "has_weights",
    "memory",
    "neighbours",
    "root",
    "search",
    "stand",
    "start_norms",
    "started_from",
    "train",
]


def default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


class Stopped(OneLine, KeyboardInterrupt):
    """Ctrl-C, or a notebook's stop button, in the middle of a run. The message is one line: where, and how to go on."""


def search(
    config: Config, device: str | None = None, quiet: bool = False, tensorboard: bool = False, fresh: bool = False
) -> Record:
    """Return the record of a search by the method `search.method`, doing or finishing it where needed; where `fresh`,
    doing it in any case. The earlier record stays until the new one is there.
    """
    device, loop = device or default_device(), SEARCHES[config.search.method]
    make = lambda line: loop(config, load(config.data, device, line.working), device)  # noqa: E731
    return carried_out(Asked("search", _identity(config, "search")), make, device, quiet, tensorboard, fresh)


def train(
    config: Config, source: Record | Genotype | Choices, weights: Path | None = None, device: str | None = None,
    quiet: bool = False, tensorboard: bool = False, fresh: bool = False,
) -> Record:  # fmt: skip
    """Return the record of a training.

    Args:
        config: `train.init` says what to start from: "random"; "concomitant", the weights of `source`, a search's
            record, or those of the file `weights`; "simclr", those of a pre-training run, which is done first.
        source: a search's record, a genotype, or choices of a space whose edges all stay.
        fresh: do this training in any case; the earlier record stays until the new one is there. Search and
            pre-training are not done again.

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
    genotype = _architecture(source)
    start, state = None, None
    if weights is None:
        start = _start(config, source, partial(train, device=device, quiet=quiet, tensorboard=tensorboard))
    else:
        state = files.read_weights(weights)

    if config.train.init in PRETRAINED and not has_weights(start) and finished(config, source) is None:
        own = pretraining(config, _seed(config, source))
        start = train(own, genotype, device=device, quiet=quiet, tensorboard=tensorboard, fresh=True)

    def make(line: Line) -> Training:
        loaded = start.weights() if start is not None else state
        return Training(config, load(config.data, device, line.working), genotype, loaded, device)

    origin = start.name if start is not None else weights and weights.name
    sha256 = start.weights_sha256 if start is not None else state and files.checksum(files.weights_bytes(state))
    asked = Asked("train", _identity(config, "train"), _source(genotype, sha256), origin)
    return carried_out(asked, make, device, quiet, tensorboard, fresh)


def has_weights(record: Record) -> bool:
    """Tell whether a run's weights are here: those of records that were restored are not."""
    return (root() / record.name / "weights.safetensors").is_file()


def started_from(config: Config, init: str, device: str | None = None, fresh: bool = False) -> Record:
    """Return the run whose weights a fine-tuning with that `init` starts from: the search, or the pre-training of what
    it found. Where `fresh`, that run is done in any case.
    """
    found = search(config, device, fresh=fresh and init == "concomitant")
    return (
        found
        if init == "concomitant"
        else train(pretraining(config, found.seed), found.genotype, device=device, quiet=True, fresh=fresh)
    )


def start_norms(config: Config, init: str, device: str | None = None) -> Record:
    """Return the record of a measurement: the norms of the weights that a fine-tuning with that `init` starts from (see
    `learn.measure.norms`). Once it is there it needs those weights no more.
    """
    start = started_from(config, init, device)
    if records.finished(_norms_of(start).folder) is None and not has_weights(start):
        start = started_from(config, init, device, fresh=True)
    return _measured(_norms_of(start), lambda: {"norms": norms(start.weights())}, "cpu")


def _norms_of(start: Record) -> Asked:
    return Asked("norms", {"seed": start.seed}, {"weights_sha256": start.weights_sha256}, start.name)


def neighbours(config: Config, device: str | None = None) -> Record:
    """Return the record of a measurement: the nearest neighbours of images by the features of what a search found,
    before and after it, and by their pixels (see `learn.neighbours.compared`). Once it is there it needs no weights.
    """
    device = device or default_device()
    found = search(config, device)
    if records.finished(_neighbours_of(config, found).folder) is None and not has_weights(found):
        found = search(config, device, fresh=True)
    data = load(config.data, device)
    measure = lambda: compared(config, found.genotype, found.weights(), data, device)  # noqa: E731
    return _measured(_neighbours_of(config, found), measure, device)


def _neighbours_of(config: Config, found: Record) -> Asked:
    asked = _identity(config, "search") | {"nearest": NEAREST, "most": MOST, "moved": MOVED}
    return Asked("neighbours", asked, {"weights_sha256": found.weights_sha256}, found.name)


def asked(config: Config, source: Record | Genotype | Choices | None = None) -> Asked | None:
    """Return the run that a search (without `source`) or a training is; None where the weights that it starts from, of
    which its name is made, are not there.
    """
    if source is None:
        return Asked("search", _identity(config, "search"))
    start = _start(config, source, finished)
    if start is None and config.train.init != "random":
        return None
    given = _source(_architecture(source), start.weights_sha256 if start else None)
    return Asked("train", _identity(config, "train"), given)


def finished(config: Config, source: Record | Genotype | Choices | None = None) -> Record | None:
    """Return the record of a search (without `source`) or of a training if it is there already; nothing is computed."""
    wanted = asked(config, source)
    return records.finished(wanted.folder) if wanted else None


def stand(run: str | Record | Config) -> Standing:
    """Return where a run stands, now: it may go on in another process, have ended, or not have begun.

    Args:
        run: its name, or the beginning of one that is there; its record; or the configuration of a search.

    Raises:
        InputError: no such run, or a damaged record.
    """
    if isinstance(run, Config):
        asked = Asked("search", _identity(run, "search"))
        return following.stand(asked.folder, asked.config)
    return following.stand(root() / (run.name if isinstance(run, Record) else following.named(run)))


def _start(
    config: Config, source: Record | Genotype | Choices, pretrained: Callable[[Config, Genotype], Record | None]
) -> Record | None:
    """Return the run whose weights a training starts from: none, the search `source`, or what `pretrained` returns for
    its pre-training.
    """
    if config.train.init in PRETRAINED:
        return pretrained(pretraining(config, _seed(config, source)), _architecture(source))
    if config.train.init == "random":
        return None
    if not isinstance(source, Record) or source.kind != "search":
        raise InputError(
            "init is 'concomitant' but the source is a genotype without weights; give a search run, or a "
            "weights file with --weights"
        )
    return source


def _architecture(source: Record | Genotype | Choices) -> Genotype | Choices:
    return (source.architecture or source.genotype) if isinstance(source, Record) else source


def _source(architecture: Genotype | Choices, weights_sha256: str | None) -> dict[str, Any]:
    """Return what a training starts from, as a part of its name: the content of weights, wherever they come from."""
    if isinstance(architecture, Choices):
        plain = {"choices": {"space": architecture.space, "operations": list(architecture.operations)}}
    else:
        plain = {"genotype": architecture.model_dump(mode="json")}
    return plain | ({"weights_sha256": weights_sha256} if weights_sha256 else {})


def _seed(config: Config, source: Record | Genotype | Choices) -> int:
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
    if config.search.evaluated != 2:
        plain["evaluated"] = config.search.evaluated
    return _measured(Asked("memory", plain), lambda: step_memory(config, batch_size, device), device, quiet)


def _measured(asked: Asked, measure: Callable[[], dict[str, Any]], device: str, quiet: bool = True) -> Record:
    """Return the record of a measurement, made where it is not there: a run of one step, without history or weights."""

    def made() -> Record:
        with held(asked.folder, Line(asked.kind, quiet)) as hold:
            found = records.finished(asked.folder)
            if found is None:
                started, result = time.monotonic(), measure()
                times = {"seconds": time.monotonic() - started}
                hold.confirm()
                found = write_record(asked.folder, asked, [], result, None, device, times)
        records.note_use(found)
        return found

    return processes.agreed(lambda: processes.by_itself(made))


def _identity(config: Config, kind: str) -> dict[str, Any]:
    """Return the part of a configuration that a run's result depends on."""
    return plain(config, sections(config, kind), unused(config, kind))


def plain(config: Config, parts: Sequence[str], without: Iterable[str]) -> dict[str, Any]:
    """Return sections of a configuration without the dotted settings that a result does not depend on; a folder of
    images by its content.
    """
    found = config.part(*parts)
    for setting in without:
        *outer, last = setting.split(".")
        inner = found
        for section in outer:
            inner = inner[section]
        del inner[last]
    content = fingerprint(config.data)
    if content is not None:
        found["data"] |= {"name": config.data.name.split(":")[0], "content": content}
    return found


def carried_out(
    asked: Asked, make: Callable[[Line], Loop], device: str, quiet: bool, tensorboard: bool = False,
    fresh: bool = False,
) -> Record:  # fmt: skip
    """Return the record of a run that is asked for: as it is there, taken up, or done; where `fresh`, done in any case.
    `make` is called for its loop where there is something to do.
    """
    folder, line = asked.folder, Line(asked.name, quiet)
    earlier = lambda: None if fresh else records.finished(folder)  # noqa: E731
    try:
        found = processes.agreed(earlier)
        if found is not None:
            _say_differences(found, device, line)
        else:
            with ExitStack() as ours:
                hold: list[Hold] = []  # of the first process; others share what it holds
                look = lambda: hold.append(ours.enter_context(held(folder, line))) or earlier()  # noqa: E731
                found = processes.agreed(look) or _done(asked, make(line), line, tensorboard, *hold)
    except torch.OutOfMemoryError:
        raise RunError(
            f"{asked.name} ran out of the device's memory; lower {asked.kind}.batch_size, or choose another --device"
        ) from None
    except KeyboardInterrupt:
        raise Stopped(f"{asked.name} {line.where()}; run the cell again to go on") from None
    if processes.first():
        records.note_use(found)
    return found


_said: set[str] = set()  # in this process


def _say_differences(found: Record, device: str, line: Line) -> None:
    """Say how the making of a record that is served differs from what a run would be here and now; each difference is
    said of the first such record only, for notebooks ask for hundreds.
    """
    differs = records.differences(found, device)
    if differs and differs not in _said:
        _said.add(differs)
        line.note(
            f"served as it was made, with {differs}; so are others without a word. To do one again: --fresh on the "
            f"command line, fresh=True in a notebook, or remove {str(root() / found.name)!r}"
        )


def _done(asked: Asked, loop: Loop, line: Line, tensorboard: bool, hold: Hold | None = None) -> Record:
    _describe(loop.data.found, line)
    alone = _why_alone(loop)
    if alone is None:
        return carry_out(asked, loop, line, tensorboard, hold)
    line.note(f"{alone}; the first does it by itself")
    return processes.agreed(lambda: processes.by_itself(lambda: carry_out(asked, loop, line, tensorboard, hold)))


def _why_alone(loop: Loop) -> str | None:
    """Return why the processes that were started cannot share a run; None where they can, or there is one."""
    count = processes.count()
    if count > 1 and not loop.shared:
        return f"a run of this kind cannot be shared by {count} processes"
    if count > 1 and loop.settings.batch_size < count:
        return f"batch_size {loop.settings.batch_size} leaves some of {count} processes without an image"
    return None


_described: set[Found] = set()  # of the folders that this process has run on


def _describe(found: Found, line: Line) -> None:
    """Say once what was found in a folder of images; where the line is quiet, only what is probably wrong."""
    if found.folder and found not in _described:
        _described.add(found)
        for text in [] if line.quiet else found.lines():
            line.note(text)
        for text in found.warnings():
            line.note(f"warning: {text}")
