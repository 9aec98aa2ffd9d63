"""What buys alpha's signal: how much an architecture step says, what it costs, and what searches make of it.

    python benchmarks/alpha_signal.py steps --preset quick --warm-up 60 --steps 500 --into sswp_lib/paper/signal.json
    python benchmarks/alpha_signal.py zero --preset quick --warm-up 60 --steps 1000 --into sswp_lib/paper/signal.json
    python benchmarks/alpha_signal.py searches --preset quick --set search.epochs=40 --seeds 4 --into ...

*steps*: weights are learnt along uniform paths (by other views or another temperature where a variant has them), then
held; alpha stays 0. From many architecture steps at these weights each entry of alpha has the mean and the variance of
its gradient over the steps in which it was sampled. Their ratio, squared, is s^2: after n updates of an entry the part
of alpha that two searches from the same weights share is n s^2 / (1 + n s^2). A step that averages several paths or
images has a larger s^2 and costs more, so variants are compared by s^2 a second, each entry's share of the steps
counted in: of architecture steps alone, and of a search that makes one after every, or after every fifth, weight step.
What two seeds' mean gradients have in common, corrected for what is left of their noise, says how much of alpha is the
weights' own. Run it on one core (taskset) with one thread.

*zero*: the mean gradient of a planted operation that returns zero says on which edges it truly does harm.

*searches*: whole searches by other settings of alpha's steps: how far those of several seeds agree.
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
from sswp_lib.learn.data import epoch_batches, generator, load
from sswp_lib.learn.evidence import sampled
from sswp_lib.paper import learnt
from sswp_lib.presets import load_config, parse_settings
from sswp_lib.runs import runs
from sswp_lib.space import CANDIDATES

# name -> settings that differ from two candidates an edge, sampled paths averaged in a step
VARIANTS: dict[str, tuple[dict[str, Any], int]] = {
    "two candidates an edge": ({}, 1),
    "batch / 4": ({"search.batch_size": 0.25}, 1),
    "batch / 2": ({"search.batch_size": 0.5}, 1),
    "batch x 2": ({"search.batch_size": 2.0}, 1),
    "batch x 4": ({"search.batch_size": 4.0}, 1),
    "2 paths": ({}, 2),
    "4 paths": ({}, 4),
    "batch / 4, 4 paths": ({"search.batch_size": 0.25}, 4),
    "3 candidates an edge": ({"search.evaluated": 3}, 1),
    "4 candidates an edge": ({"search.evaluated": 4}, 1),
    "all 7 candidates": ({"search.evaluated": 7}, 1),
    "views with shifts": ({"data.views.shift": 1}, 1),
    "temperature x 0.4": ({"search.temperature": 0.4}, 1),
    "temperature x 2": ({"search.temperature": 2.0}, 1),
}
PLANTED = ("noise", "zero", "twin")
OF_WEIGHTS = ("data.views.shift", "search.temperature")  # settings that weights are learnt by too, in the warm-up
RELATIVE = ("search.batch_size", "search.temperature")
SEARCHES: dict[str, dict[str, Any]] = {
    "as the preset": {},
    "the paper's two candidates, each weight step": {"search.evaluated": 2, "search.alpha_every": 1},
    "a step on alpha after each weight step": {"search.alpha_every": 1},
    "after every 10th": {"search.alpha_every": 10},
    "alpha_lr / 4": {"search.alpha_lr": 0.005},
    "alpha_lr x 2.5": {"search.alpha_lr": 0.05},
    "views with shifts": {"data.views.shift": 1},
}


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
    order = torch.randperm(len(search.alpha_half), generator=generator(count, "batch"))
    index, shape = search.alpha_half[order[: search.settings.batch_size]], search.supernet.alpha.shape
    total, times = torch.zeros(shape), torch.zeros(shape)
    for k in range(paths_in_a_step):
        paths = search.architecture_paths(generator(count, "paths", k))
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
    return {"s2": float(s2.mean()), "share": share, "seconds": float(np.median(seconds)), "moments": moments}


def weight_seconds(search: Search, steps: int) -> float:
    """Return the median seconds of a weight step; leaves the weights changed."""
    seconds: list[float] = []
    while len(seconds) < steps:
        for batch in epoch_batches(search.weights_half, search.settings.batch_size, 0, "timing", len(seconds)):
            began = time.perf_counter()
            search.weight_step(batch)
            seconds.append(time.perf_counter() - began)
    return float(np.median(seconds))


def harm_of_zero(moments: list[Moments], names: tuple[str, ...]) -> dict[str, Any]:
    """Return on which edges a planted zero truly does harm: an edge's mean gradient of it less the mean of all, in
    standard errors. Above 0, a step lowers its alpha. Over seeds, edges are counted each.
    """
    place, ratios = names.index("zero"), []
    for m in moments:
        centred = m.mean - m.mean.mean(-1, keepdim=True)
        error = (m.variance / m.count)[..., place].sqrt() * (1 - 1 / len(names)) ** 0.5
        ratios.append((centred[..., place] / error).flatten())
    t = torch.cat(ratios)
    return {
        "edges": len(t),
        "harm": int((t > 2).sum()),
        "use": int((t < -2).sum()),
    }


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


def steps(base: Config, asked: argparse.Namespace) -> dict[str, Any]:
    rows, kept = [], {}
    names = [name for name in VARIANTS if not asked.only or name in asked.only]
    for seed in range(asked.seeds):
        search = warmed(base.changed(seed=seed), asked.warm_up)
        state = search.state()
        for name in names:
            changes, paths = VARIANTS[name]
            variant = fitting(base.changed(seed=seed), changes)
            own = any(setting in OF_WEIGHTS for setting in changes)
            other = warmed(variant, asked.warm_up) if own else Search(variant, load(base.data))
            if not own:
                other.restore(state)
            found = measured(other, asked.steps, paths, first=10**6 * (seed + 1))
            kept[name, seed] = found.pop("moments")
            rows.append({"variant": name, "seed": seed, **found})
            print({k: round(v, 5) if isinstance(v, float) else v for k, v in rows[-1].items()}, flush=True)
    pairs = {n: agreement(kept[n, 0], kept[n, 1]) for n in names if (n, 1) in kept}
    return {"weight step": weight_seconds(search, 100), "rows": rows, "agreement": pairs}


def zero(base: Config, asked: argparse.Namespace) -> dict[str, Any]:
    kept = []
    for seed in range(asked.seeds):
        sown = {"search.planted": PLANTED, "search.evaluated": len(CANDIDATES) + len(PLANTED)}
        search = warmed(base.changed(seed=seed, **sown), asked.warm_up)
        kept.append(measured(search, asked.steps, 1, first=10**6 * (seed + 1))["moments"])
    return harm_of_zero(kept, (*CANDIDATES, *PLANTED))


def searches(base: Config, asked: argparse.Namespace) -> dict[str, Any]:
    rows = []
    for name, changes in SEARCHES.items():
        if asked.only and name not in asked.only:
            continue
        found = [runs.search(base.changed(seed=seed, **changes), "cpu") for seed in range(asked.seeds)]
        rows.append({
            "variant": name, "searches": len(found), "entries": learnt.by_entry(found),
            "operations": learnt.by_operation(found),
            "updates": float(learnt.by_cell(found)["updates of an entry"].iloc[-1]),
            "entropy": float(np.mean([r.result["alpha"]["entropy"] for r in found])),
        })  # fmt: skip
        print(rows[-1], flush=True)
    return {"rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("steps", "zero", "searches"))
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--warm-up", type=int, default=60, help="epochs of weight steps along uniform paths")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--only", nargs="*", help="names of variants")
    parser.add_argument("--set", nargs="*", default=[], help="NAME=VALUE")
    parser.add_argument("--into", type=Path, help="JSON file that keeps what was measured, under `what`")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    base = load_config(asked.preset, settings=parse_settings(asked.set))
    if asked.what != "searches":
        base = base.changed(**{"search.ratios": (0.9, 0.05, 0.05), "search.evaluated": 2})
    settings = {name: vars(asked)[name] for name in ("preset", "set", "seeds", "steps", "warm_up")}
    found = {**settings, **{"steps": steps, "zero": zero, "searches": searches}[asked.what](base, asked)}
    print(json.dumps({k: v for k, v in found.items() if k != "rows"}))
    if asked.into:
        before = json.loads(asked.into.read_text()) if asked.into.is_file() else {}
        asked.into.write_text(json.dumps(before | {asked.what: found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
