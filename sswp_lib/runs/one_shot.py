"""One-shot training, the linear evaluation of what it trained, and rankings by it, as runs: named by what they depend
on, cached, locked, resumable and recorded like those of `runs`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sswp_lib.config import Config
from sswp_lib.learn.data import load
from sswp_lib.learn.oneshot import Architecture, OneShot, build_supernet
from sswp_lib.learn.ranking import LinearEvaluation
from sswp_lib.learn.recipes import unused_by_judging, unused_by_one_shot
from sswp_lib.learn.scoring import Scoring
from sswp_lib.methods import EVOLUTION
from sswp_lib.runs import records, runs
from sswp_lib.runs.carrying_out import Asked
from sswp_lib.runs.records import Record

MODEL = ("projection_dim", "precision")  # all that they use of the section `model`


def train(config: Config, device: str | None = None, quiet: bool = False, fresh: bool = False) -> Record:
    """Return the record of a one-shot training (SPOS, Pi-NAS), doing or finishing it where needed."""
    device = device or runs.default_device()
    make = lambda line: OneShot(config, load(config.data, device, line.working), device)  # noqa: E731
    return runs.carried_out(_training(config), make, device, quiet, fresh=fresh)


def linear_evaluation(config: Config, device: str | None = None, quiet: bool = False, fresh: bool = False) -> Record:
    """Return the record of the linear classifier that all paths of a one-shot network share; that network is trained
    first.
    """
    device = device or runs.default_device()
    trained = train(config, device, quiet)
    if fresh or records.finished(_linear(config, trained).folder) is None:
        trained = _with_weights(train, config, device, quiet)

    def make(line) -> LinearEvaluation:
        data = load(config.data, device, line.working)
        supernet = build_supernet(config, data)
        supernet.load_state_dict(trained.weights())
        return LinearEvaluation(config, data, supernet.to(device), device)

    return runs.carried_out(_linear(config, trained), make, device, quiet, fresh=fresh)


def rank(
    config: Config, architectures: Sequence[Architecture], alike: Sequence[Architecture] = (),
    device: str | None = None, quiet: bool = False,
) -> Record:  # fmt: skip
    """Return the record of the scores of `architectures` by a one-shot network, which is trained first; with labels by
    its own head, without them by a linear classifier. See `learn.scoring`.
    """

    device = device or runs.default_device()
    ask = _with_weights if finished(config, architectures, alike) is None else _as_it_is
    trained, classifier = ask(train, config, device, quiet), None
    if not _labelled(config):
        classifier = ask(linear_evaluation, config, device, quiet)

    def make(line) -> Scoring:
        data, linear = load(config.data, device, line.working), classifier and classifier.weights()
        return Scoring(config, data, trained.weights(), architectures, linear, alike, device)

    return runs.carried_out(_ranking(config, trained, classifier, architectures, alike), make, device, quiet)


def finished(
    config: Config, architectures: Sequence[Architecture] | None = None, alike: Sequence[Architecture] = ()
) -> Record | None:
    """Return the record of a one-shot training, or of a ranking of `architectures` by it, if it is there already;
    nothing is computed.
    """
    wanted = asked(config, architectures, alike)
    return records.finished(wanted.folder) if wanted else None


def asked(
    config: Config, architectures: Sequence[Architecture] | None = None, alike: Sequence[Architecture] = ()
) -> Asked | None:
    """Return the run that a one-shot training, or a ranking of `architectures` by it, is; None where the weights that
    the ranking is by, of which its name is made, are not there.
    """
    if architectures is None:
        return _training(config)
    trained = records.finished(_training(config).folder)
    if trained is None:
        return None
    classifier = None if _labelled(config) else records.finished(_linear(config, trained).folder)
    if classifier is None and not _labelled(config):
        return None
    return _ranking(config, trained, classifier, architectures, alike)


def _labelled(config: Config) -> bool:
    return config.one_shot.objective == "supervised"


def _training(config: Config) -> Asked:
    return Asked("one-shot", identity(config, "one_shot"))


def _linear(config: Config, trained: Record) -> Asked:
    return Asked("linear", _ranking_identity(config), {"weights_sha256": trained.weights_sha256}, trained.name)


def _ranking(
    config: Config, trained: Record, classifier: Record | None, architectures: Sequence[Architecture],
    alike: Sequence[Architecture],
) -> Asked:  # fmt: skip
    plain = lambda several: [json.loads(a.to_json()) for a in several]  # noqa: E731
    source = {
        "weights_sha256": trained.weights_sha256,
        "classifier_sha256": classifier and classifier.weights_sha256,
        "architectures": plain(architectures),
        "alike": plain(alike),
    }
    return Asked("ranking", _ranking_identity(config), source, trained.name)


def _as_it_is(make, config: Config, device: str, quiet: bool) -> Record:
    return make(config, device, quiet)


def _with_weights(make, config: Config, device: str, quiet: bool) -> Record:
    """Return a run whose weights are needed: done again where they were not restored with its record."""
    found = make(config, device, quiet)
    return found if runs.has_weights(found) else make(config, device, quiet, fresh=True)


def identity(config: Config, *sections: str) -> dict[str, Any]:
    """Return the part of a configuration that a one-shot training's result depends on, and of other sections."""
    unused = ["data.root", *unused_by_one_shot(config.one_shot)]
    if "ranking" in sections:
        unused += [*unused_by_judging(config.one_shot), *(f"ranking.{name}" for name in EVOLUTION)]
    plain = runs.plain(config, ["data", "model", *sections], unused)
    used = [*MODEL, *["stem"] * (config.one_shot.space == "cells")]
    plain["model"] = {name: plain["model"][name] for name in used if name in plain["model"]}
    return plain


def _ranking_identity(config: Config) -> dict[str, Any]:
    return identity(config, "one_shot", "ranking")
