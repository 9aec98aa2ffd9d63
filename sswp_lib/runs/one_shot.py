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
from sswp_lib.learn.recipes import unused_by_one_shot
from sswp_lib.learn.scoring import Evolution, Scoring
from sswp_lib.runs import runs
from sswp_lib.runs.carrying_out import Asked
from sswp_lib.runs.records import Record

MODEL = ("projection_dim", "precision")  # all that they use of the section `model`


def train(config: Config, device: str | None = None, quiet: bool = False, fresh: bool = False) -> Record:
    """Return the record of a one-shot training (SPOS, Pi-NAS), doing or finishing it where needed."""
    device = device or runs.default_device()
    make = lambda line: OneShot(config, load(config.data, device, line.working), device)  # noqa: E731
    return runs.carried_out(Asked("one-shot", identity(config, "one_shot")), make, device, quiet, fresh=fresh)


def linear_evaluation(config: Config, device: str | None = None, quiet: bool = False, fresh: bool = False) -> Record:
    """Return the record of the linear classifier that all paths of a one-shot network share; that network is trained
    first.
    """
    device = device or runs.default_device()
    trained = _with_weights(train, config, device, quiet)

    def make(line) -> LinearEvaluation:
        data = load(config.data, device, line.working)
        supernet = build_supernet(config, data)
        supernet.load_state_dict(trained.weights())
        return LinearEvaluation(config, data, supernet.to(device), device)

    asked = Asked("linear", _ranking_identity(config), {"weights_sha256": trained.weights_sha256}, trained.name)
    return runs.carried_out(asked, make, device, quiet, fresh=fresh)


def rank(
    config: Config, architectures: Sequence[Architecture], alike: Sequence[Architecture] = (),
    device: str | None = None, quiet: bool = False,
) -> Record:  # fmt: skip
    """Return the record of the scores of `architectures` by a one-shot network, which is trained first; with labels by
    its own head, without them by a linear classifier. See `learn.scoring`.
    """
    device = device or runs.default_device()
    trained, classifier = _judges(config, device, quiet)

    def make(line) -> Scoring:
        data, linear = load(config.data, device, line.working), classifier and classifier.weights()
        return Scoring(config, data, trained.weights(), architectures, linear, alike, device)

    source = _source(trained, classifier) | {
        "architectures": [json.loads(a.to_json()) for a in architectures],
        "alike": [json.loads(a.to_json()) for a in alike],
    }
    asked = Asked("ranking", _ranking_identity(config), source, trained.name)
    return runs.carried_out(asked, make, device, quiet)


def search(config: Config, device: str | None = None, quiet: bool = False, fresh: bool = False) -> Record:
    """Return the record of a search by evolution among the architectures of a one-shot network's space, scored by that
    network, which is trained first. See `learn.scoring.Evolution`.
    """
    device = device or runs.default_device()
    trained, classifier = _judges(config, device, quiet)

    def make(line) -> Evolution:
        data, linear = load(config.data, device, line.working), classifier and classifier.weights()
        return Evolution(config, data, trained.weights(), linear, device)

    asked = Asked("evolution", _ranking_identity(config), _source(trained, classifier), trained.name)
    return runs.carried_out(asked, make, device, quiet, fresh=fresh)


def _judges(config: Config, device: str, quiet: bool) -> tuple[Record, Record | None]:
    """Return the one-shot training, and the linear evaluation of what has learnt without labels."""
    trained = _with_weights(train, config, device, quiet)
    labelled = config.one_shot.objective == "supervised"
    return trained, None if labelled else _with_weights(linear_evaluation, config, device, quiet)


def _source(trained: Record, classifier: Record | None) -> dict[str, Any]:
    return {
        "weights_sha256": trained.weights_sha256,
        "classifier_sha256": classifier and classifier.weights_sha256,
    }


def _with_weights(make, config: Config, device: str, quiet: bool) -> Record:
    """Return a run whose weights are needed: done again where they were not restored with its record."""
    found = make(config, device, quiet)
    return found if runs.has_weights(found) else make(config, device, quiet, fresh=True)


def identity(config: Config, *sections: str) -> dict[str, Any]:
    """Return the part of a configuration that a one-shot training's result depends on, and of other sections."""
    plain = runs.plain(config, ["data", "model", *sections], ["data.root", *unused_by_one_shot(config.one_shot)])
    plain["model"] = {name: plain["model"][name] for name in MODEL if name in plain["model"]}
    return plain


def _ranking_identity(config: Config) -> dict[str, Any]:
    return identity(config, "one_shot", "ranking")
