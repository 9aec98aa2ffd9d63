"""What the code comes to, in a few numbers of tiny runs, kept in golden.json beside the FORMAT under which it does.

    python tests/golden.py

makes that file anew after FORMAT (in sswp_lib/runs/records.py) was raised. A run is named by its settings and FORMAT:
code that comes to other results under the same FORMAT would be served the records of before.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sswp_lib.config import Config, flat
from sswp_lib.learn.data import load
from sswp_lib.learn.loop import seeded
from sswp_lib.learn.recipes import pretraining
from sswp_lib.learn.search import Search
from sswp_lib.learn.train import Training
from sswp_lib.runs.records import FORMAT
from sswp_lib.space import Genotype, Network

FILE = Path(__file__).with_name("golden.json")
# relative; convolutions of another library differ by a fifth of it, other code by far more. How far alpha has moved
# varies most: along a gradient that is nothing but rounding Adam takes as long a step as along any other
TOLERANCE, OF_ALPHA = 4e-3, 0.1
DIGITS = 4  # that are kept of a number

# Coloured views of digits, two or three steps of each phase; every cell is pruned on the way. Steps are few, short and
# of large batches, and the temperature is high: with others, what processors round differently grows to per cents.
BASE = {
    "data.name": "digits", "data.image_size": 8, "data.views.flip": True, "data.views.shift": 1,
    "data.views.rotation": 10.0, "data.views.jitter_p": 0.5, "model.init_channels": 4, "model.num_cells": 2,
    "model.projection_dim": 8, "search.epochs": 4, "search.batch_size": 40, "search.ratios": (0.25, 0.25, 0.5),
    "search.alpha_every": 1, "search.alpha_lr": 0.001, "search.pool_dropout": 0.1, "search.calibration_batches": 2,
    "search.temperature": 0.5, "search.lr": 0.01, "train.epochs": 2, "train.batch_size": 20, "train.lr": 0.01,
    "train.labels_per_class": 5, "train.validation": 0.2, "train.shift": 1, "train.cutout": 2, "train.drop_path": 0.2,
    "train.calibrate": True,
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "search, all edges": {"search.edges": "all"},
    "search, top 2 edges, backward": {"search.edges": "top2", "search.prune": "backward"},
    "search, unpruned until the end": {"search.prune": "none", "search.ratios": (0.25, 0.75)},
    "search, BYOL": {"search.objective": "byol"},
    "search, supervised": {"search.objective": "supervised"},
    "training from scratch": {},
    "training on crops": {
        "train.augment": "crop", "train.shift": 0, "train.cutout": 0, "train.label_smoothing": 0.4,
    },
    "fine-tuning": {"train.init": "concomitant", "train.auxiliary": 0.0, "train.schedule": "step"},
    "linear probe": {"train.init": "concomitant", "train.freeze": "backbone", "train.lr": 0.1},
    "pre-training": {"train.init": "simclr"},
    "pre-training on half": {"train.init": "simclr_matched"},
}  # fmt: skip


def numbers(case: str) -> dict[str, list[float]]:
    """Return a tiny run's losses by epoch, the size of its weights at the end, and what its result says."""
    loop = _loop(case)
    before = loop.supernet.alpha.detach().clone() if isinstance(loop, Search) else None
    for _ in loop.advance():
        pass
    result, weights = loop.finish()
    statistics = {name for name in weights if name.endswith(("running_mean", "running_var"))}
    return {
        "loss": [row["loss"] for row in loop.history],
        "weights": [_norm(t for name, t in weights.items() if name not in statistics)],
        "statistics": [_norm(weights[name] for name in statistics)],
        "result": [result[part]["loss"] for part in ("supernet", "exported") if part in result],
        "alpha": [] if before is None else [_norm([weights["alpha"] - before])],
        "parameters": [result["parameters"]],
    }


def _norm(tensors) -> float:
    return sum(float(t.double().square().sum()) for t in tensors if t.is_floating_point()) ** 0.5


def _loop(case: str) -> Search | Training:
    config = Config().changed(**BASE | CASES[case])
    whole = load(config.data)
    data = replace(whole, train=whole.train[:160], train_labels=whole.train_labels[:160])
    if case.startswith("search"):
        loop = Search(config, data)
        state = loop.state()  # away from 0, where the last bit would decide which operation is the best
        state["supernet"]["alpha"] = torch.randn(state["supernet"]["alpha"].shape, generator=_generator())
        loop.restore(state)
        return loop
    genotype = Genotype.published("DARTS_V2", config.model.num_cells)
    if case.startswith("pre-training"):
        return Training(pretraining(config, 0), data, genotype)
    return Training(config, data, genotype, _weights(genotype, config) if config.train.init != "random" else None)


def _weights(genotype: Genotype, config: Config) -> dict[str, torch.Tensor]:
    with seeded(0, "golden"):
        return Network(genotype, config.model.init_channels, 10).state_dict()


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def rounded(found: dict[str, list[float]]) -> dict[str, list[float]]:
    return {name: [float(f"{value:.{DIGITS}g}") for value in values] for name, values in found.items()}


def differences(found: dict[str, list[float]], kept: dict[str, list[float]]) -> list[str]:
    """Return what differs by more than other processors do: "loss: 2.31 here, 2.29 kept"."""
    pairs = [(name, *pair) for name in kept for pair in zip(found.get(name, []), kept[name], strict=False)]
    allowed = lambda name: OF_ALPHA if name == "alpha" else TOLERANCE  # noqa: E731
    said = [f"{name}: {a:.5g} here, {b:.5g} kept" for name, a, b in pairs if abs(a - b) > allowed(name) * abs(b)]
    return said + [f"{name}: another number of values" for name in kept if len(found.get(name, [])) != len(kept[name])]


def defaults() -> dict[str, Any]:
    return flat(Config().model_dump(mode="json"))


def other_defaults(kept: dict[str, Any]) -> list[str]:
    """Return the settings whose default is another than the one kept. A run's name leaves out what is as by default, so
    a new setting may come with the default that leaves things as they were, but an old one's must stay.
    """
    now = defaults()
    return [name for name, value in kept.items() if now.get(name, ...) != value]


def main() -> int:
    """Write the file; refused where its numbers would change under the FORMAT that it has."""
    found = {case: numbers(case) for case in CASES}
    kept = json.loads(FILE.read_text()) if FILE.is_file() else {"format": None, "cases": {}}
    changed = [f"default of {name}" for name in other_defaults(kept.get("defaults", {}))]
    changed += [case for case, values in kept["cases"].items() if case in found and differences(found[case], values)]
    if changed and kept["format"] == FORMAT:
        print(
            f"results changed ({', '.join(changed)}), but FORMAT is still {FORMAT}: raise it in "
            "sswp_lib/runs/records.py, or old records are served for new runs",
            file=sys.stderr,
        )
        return 1
    cases = {case: rounded(values) for case, values in found.items()}
    FILE.write_text(json.dumps({"format": FORMAT, "defaults": defaults(), "cases": cases}, indent=1) + "\n")
    print(f"{FILE}: {len(cases)} tiny runs at FORMAT {FORMAT}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
