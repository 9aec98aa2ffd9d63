"""How much an architecture step says about alpha, and what it costs: signal-to-noise squared a second of one core.

    python benchmarks/alpha_signal.py --preset quick --warm-up 60 --seeds 2 --steps 500 --json alpha_signal.json

Weights are learnt along uniform paths, then held; alpha stays 0. From many architecture steps at these weights each
entry of alpha has the mean and the variance of its gradient over the steps in which it was sampled. Their ratio,
squared, is s^2: after n updates of an entry the part of alpha that two searches from the same weights share is
n s^2 / (1 + n s^2). A step that averages several paths or images has a larger s^2 and costs more, so variants are
compared by s^2 a second, each entry's share of the steps counted in. What two seeds' mean gradients have in common,
corrected for what is left of their noise, says how much of alpha is the weights' own. Run it on one core (taskset)
with one thread.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sswp_lib.config import Config, flat
from sswp_lib.learn import Search
from sswp_lib.learn.data import generator, load
from sswp_lib.learn.evidence import sampled
from sswp_lib.presets import load_config, parse_settings
from sswp_lib.space import sample_two_paths

# name -> settings that differ, sampled paths averaged in a step
VARIANTS: dict[str, tuple[dict[str, Any], int]] = {
    "as the preset": ({}, 1),
    "batch / 4": ({"search.batch_size": 0.25}, 1),
    "batch / 2": ({"search.batch_size": 0.5}, 1),
    "batch x 2": ({"search.batch_size": 2.0}, 1),
    "batch x 4": ({"search.batch_size": 4.0}, 1),
    "2 paths": ({}, 2),
    "4 paths": ({}, 4),
    "batch / 4, 4 paths": ({"search.batch_size": 0.25}, 4),
    "views without shifts": ({"data.views.shift": 0}, 1),
    "temperature x 0.4": ({"search.temperature": 0.4}, 1),
    "temperature x 2": ({"search.temperature": 2.0}, 1),
}
RELATIVE = ("search.batch_size", "search.temperature")


class Moments:
    """Mean and variance of each entry's gradient over the steps in which it was sampled."""

    def __init__(self, shape: torch.Size):
        self.count, self.sum, self.squares = (torch.zeros(shape, dtype=torch.float64) for _ in range(3))

    def add(self, gradient: Tensor, sampled: Tensor) -> None:
        gradient = torch.where(sampled, gradient, 0).double()
        self.count += sampled
        self.sum += gradient
        self.squares += gradient.square()

    @property
    def mean(self) -> Tensor:
        return self.sum / self.count

    @property
    def variance(self) -> Tensor:
        return (self.squares - self.count * self.mean.square()) / (self.count - 1)

    def signal(self) -> Tensor:
        """Return s^2 of each entry, without bias; it can be below 0 where there is none."""
        return (self.mean.square() - self.variance / self.count) / self.variance


def gradient(search: Search, count: int, paths_in_a_step: int) -> tuple[Tensor, Tensor]:
    """Return the mean gradient of one step over its paths, entry by entry, and which entries were sampled."""
    alpha, order = search.supernet.alpha, torch.randperm(len(search.alpha_half), generator=generator(count, "batch"))
    index, shape = search.alpha_half[order[: search.settings.batch_size]], alpha.shape
    total, times = torch.zeros(shape), torch.zeros(shape)
    for k in range(paths_in_a_step):
        paths = sample_two_paths(alpha, search.supernet.present, generator(count, "paths", k))
        total += search.alpha_gradient(index, generator(count, "views", k), paths)[1]
        times += sampled(paths, shape)
    return total / times.clamp(min=1), times > 0


def measured(search: Search, steps: int, paths_in_a_step: int, first: int) -> dict[str, Any]:
    moments, seconds = Moments(search.supernet.alpha.shape), []
    for step in range(steps):
        began = time.perf_counter()
        moments.add(*gradient(search, first + step, paths_in_a_step))
        seconds.append(time.perf_counter() - began)
    s2, share = moments.signal(), float((moments.count / steps).mean())
    per_step = float(np.median(seconds))
    error = float(s2.mean((1, 2)).std()) / len(s2) ** 0.5
    return {
        "s2": float(s2.mean()), "s2 of cells": s2.mean((1, 2)).tolist(), "error": error, "share": share,
        "seconds": per_step, "s2 a second": float(s2.mean()) * share / per_step, "moments": moments,
    }  # fmt: skip


def warmed(config: Config, epochs: int) -> Search:
    """Return a search whose weights were learnt along uniform paths for so many epochs."""
    search = Search(config, load(config.data))
    search.num_epochs = epochs
    for _ in search.advance():
        pass
    return search


def fitting(config: Config, changes: dict[str, Any]) -> Config:
    """Return the configuration of a variant, of which RELATIVE settings are multiples of the base's."""
    base = flat(config.model_dump())
    return config.changed(**{n: type(base[n])(base[n] * v) if n in RELATIVE else v for n, v in changes.items()})


def agreement(one: Moments, two: Moments) -> dict[str, float]:
    """Return the correlation of two mean gradients, centred by edge, as it is and corrected for their noise."""
    centred = [m.mean - m.mean.mean(-1, keepdim=True) for m in (one, two)]
    raw = float((centred[0] * centred[1]).sum() / (centred[0].square().sum() * centred[1].square().sum()).sqrt())
    freedom = 1 - 1 / one.mean.shape[-1]  # centring takes one of M
    reliable = [
        float(1 - (m.variance / m.count).sum() * freedom / c.square().sum())
        for m, c in zip((one, two), centred, strict=True)
    ]
    product = reliable[0] * reliable[1]
    return {"raw": raw, "corrected": raw / product**0.5 if min(reliable) > 0 else float("nan"), "reliability": reliable}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--warm-up", type=int, default=60, help="epochs of weight steps along uniform paths")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--only", nargs="*", help="names of variants")
    parser.add_argument("--set", nargs="*", default=[], help="NAME=VALUE")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    base = load_config(asked.preset, settings=parse_settings(asked.set) | {"search.ratios": (0.9, 0.05, 0.05)})
    rows, kept = [], {}
    for seed in range(asked.seeds):
        search = warmed(base.changed(seed=seed), asked.warm_up)
        state = search.state()
        for name, (changes, paths) in VARIANTS.items():
            if asked.only and name not in asked.only:
                continue
            other = Search(fitting(base.changed(seed=seed), changes), load(base.data))
            other.restore(state)
            found = measured(other, asked.steps, paths, first=10**6 * (seed + 1))
            kept[name, seed] = found.pop("moments")
            rows.append({"variant": name, "seed": seed, "warm-up": asked.warm_up, "steps": asked.steps, **found})
            print({k: round(v, 5) if isinstance(v, float) else v for k, v in rows[-1].items()}, flush=True)
    names = {name for name, _ in kept}
    pairs = {n: agreement(kept[n, 0], kept[n, 1]) for n in names if (n, 1) in kept}
    print(pairs)
    if asked.json:
        asked.json.write_text(json.dumps({"rows": rows, "agreement": pairs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
