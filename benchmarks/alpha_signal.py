"""What buys alpha's signal: how much an architecture step says, what it costs, and what searches make of it.

    python benchmarks/alpha_signal.py steps --preset quick --warm-up 60 --steps 1000 --into sswp_lib/paper/signal.json
    python benchmarks/alpha_signal.py zero --preset quick --warm-up 60 --steps 4000 --into sswp_lib/paper/signal.json
    python benchmarks/alpha_signal.py searches --preset night --set search.epochs=120 --into sswp_lib/paper/signal.json

*steps*: weights are learnt along uniform paths (by other views or another temperature where a variant has them), then
held; alpha stays 0. From many architecture steps at these weights each entry of alpha has the mean and the variance of
its gradient over the steps in which it was sampled. Their ratio, squared, is s^2: after n updates of an entry the part
of alpha that two searches from the same weights share is n s^2 / (1 + n s^2). A step that averages several paths or
images has a larger s^2 and costs more, so variants are compared by s^2 a second, each entry's share of the steps
counted in: of architecture steps alone, and of a search that makes one after every, or after every fifth, weight step.
What two seeds' mean gradients have in common, corrected for what is left of their noise, says how much of alpha is the
weights' own. Run it on one core (taskset) with one thread.

*zero*: the mean gradient of a planted operation that returns zero says on which edges it truly does harm.

*searches*: whole searches by other settings of alpha's steps: how far those of several seeds agree, and their seconds.
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
from sswp_lib.learn.search import frozen
from sswp_lib.paper import learnt
from sswp_lib.presets import load_config, parse_settings
from sswp_lib.runs import runs
from sswp_lib.space import CANDIDATES, sample_two_paths
from sswp_lib.space.network import pool

# name -> settings that differ, sampled paths averaged in a step, candidates evaluated on an edge
VARIANTS: dict[str, tuple[dict[str, Any], int, int]] = {
    "as the preset": ({}, 1, 2),
    "batch / 4": ({"search.batch_size": 0.25}, 1, 2),
    "batch / 2": ({"search.batch_size": 0.5}, 1, 2),
    "batch x 2": ({"search.batch_size": 2.0}, 1, 2),
    "batch x 4": ({"search.batch_size": 4.0}, 1, 2),
    "2 paths": ({}, 2, 2),
    "4 paths": ({}, 4, 2),
    "batch / 4, 4 paths": ({"search.batch_size": 0.25}, 4, 2),
    "3 candidates an edge": ({}, 1, 3),
    "4 candidates an edge": ({}, 1, 4),
    "all 7 candidates": ({}, 1, 7),
    "views with shifts": ({"data.views.shift": 1}, 1, 2),
    "temperature x 0.4": ({"search.temperature": 0.4}, 1, 2),
    "temperature x 2": ({"search.temperature": 2.0}, 1, 2),
}
PLANTED = ("noise", "zero", "twin")
OF_WEIGHTS = ("data.views.shift", "search.temperature")  # settings that weights are learnt by too, in the warm-up
RELATIVE = ("search.batch_size", "search.temperature")
SEARCHES: dict[str, dict[str, Any]] = {
    "as the preset": {},
    "alpha_lr / 4": {"search.alpha_lr": 0.005},
    "alpha_lr x 2.5": {"search.alpha_lr": 0.05},
    "views with shifts": {"data.views.shift": 1},
    "a step on alpha after every 2nd": {"search.alpha_every": 2},
    "a step on alpha after every 5th": {"search.alpha_every": 5},
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


def gradient(search: Search, count: int, paths_in_a_step: int, candidates: int) -> tuple[Tensor, Tensor]:
    """Return the mean gradient of one step over its paths, entry by entry, and which entries were sampled."""
    alpha, order = search.supernet.alpha, torch.randperm(len(search.alpha_half), generator=generator(count, "batch"))
    index, shape = search.alpha_half[order[: search.settings.batch_size]], alpha.shape
    total, times = torch.zeros(shape), torch.zeros(shape)
    for k in range(paths_in_a_step):
        g = generator(count, "views", k)
        if candidates > 2:
            one, seen = gradient_of_many(search, index, g, count, candidates)
        else:
            paths = sample_two_paths(alpha, search.supernet.present, generator(count, "paths", k))
            one, seen = search.alpha_gradient(index, g, paths)[1], sampled(paths, shape)
        total += one
        times += seen
    return total / times.clamp(min=1), times > 0


class Along(torch.nn.Module):
    """A supernet that runs the first of `chosen` (cells, 14, m) on each edge, and evaluates the others beside it."""

    def __init__(self, supernet: torch.nn.Module, chosen: Tensor):
        super().__init__()
        self.supernet, self.chosen = supernet, chosen.tolist()
        self.outputs: dict[tuple[int, int], Tensor] = {}
        self.others: dict[tuple[int, int], list[Tensor]] = {}

    def forward(self, x: Tensor) -> Tensor:
        return self.supernet.head(pool(self.supernet.maps(x, self._run)[-1]))

    def _run(self, cell: int, edge: int, operations: torch.nn.ModuleDict, state: Any) -> Tensor:
        names = [self.supernet.candidates[k] for k in self.chosen[cell][edge]]
        output = state.through(operations[names[0]])
        # a tensor of the edge's own: a skip's output is the node that other edges leave
        output = output.view_as(output) if output.requires_grad else output.detach().requires_grad_()
        with torch.no_grad():
            self.others[cell, edge] = [state.through(operations[name]) for name in names[1:]]
        self.outputs[cell, edge] = output
        return output


def gradient_of_many(
    search: Search, index: Tensor, g: torch.Generator, count: int, candidates: int
) -> tuple[Tensor, Tensor]:
    """Return the gradient to alpha, and what was sampled, of a step that evaluates more than two candidates an edge:
    dL/dalpha_i = sum_j dL/dg_j p_j (delta_ij - p_i) over those sampled, one of them active.
    """
    alpha = search.supernet.alpha.detach()
    noise = torch.rand(alpha.shape, generator=generator(count, "paths"))
    chosen = (alpha - (-noise.log()).log()).topk(candidates, -1).indices
    model = Along(search.supernet, chosen)
    with frozen(search._named_weights().values()):
        loss, _ = search.loss(index, g, model=model)
        back = torch.autograd.grad(loss, list(model.outputs.values()))
    total = torch.zeros(alpha.shape)
    with torch.no_grad():
        for (place, output), grad in zip(model.outputs.items(), back, strict=True):
            gates = torch.stack([(grad * o).sum() for o in [output, *model.others[place]]])
            p = alpha[place][chosen[place]].softmax(0)
            total[place][chosen[place]] = p * (gates - (p * gates).sum())
    return total, torch.zeros(alpha.shape, dtype=torch.bool).scatter_(-1, chosen, True)


def measured(search: Search, steps: int, paths_in_a_step: int, candidates: int, first: int) -> dict[str, Any]:
    moments, seconds = Moments(search.supernet.alpha.shape), []
    for step in range(steps):
        began = time.perf_counter()
        moments.add(*gradient(search, first + step, paths_in_a_step, candidates))
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
            changes, paths, candidates = VARIANTS[name]
            variant = fitting(base.changed(seed=seed), changes)
            own = any(setting in OF_WEIGHTS for setting in changes)
            other = warmed(variant, asked.warm_up) if own else Search(variant, load(base.data))
            if not own:
                other.restore(state)
            found = measured(other, asked.steps, paths, candidates, first=10**6 * (seed + 1))
            kept[name, seed] = found.pop("moments")
            rows.append({"variant": name, "seed": seed, **found})
            print({k: round(v, 5) if isinstance(v, float) else v for k, v in rows[-1].items()}, flush=True)
    pairs = {n: agreement(kept[n, 0], kept[n, 1]) for n in names if (n, 1) in kept}
    return {"weight step": weight_seconds(search, 100), "rows": rows, "agreement": pairs}


def zero(base: Config, asked: argparse.Namespace) -> dict[str, Any]:
    kept = []
    for seed in range(asked.seeds):
        search = warmed(base.changed(seed=seed, **{"search.planted": PLANTED}), asked.warm_up)
        kept.append(measured(search, asked.steps, 1, 2, first=10**6 * (seed + 1))["moments"])
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
            "seconds": float(np.median([r.provenance["seconds"] for r in found])),
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
        base = base.changed(**{"search.ratios": (0.9, 0.05, 0.05)})
    settings = {name: vars(asked)[name] for name in ("preset", "set", "seeds", "steps", "warm_up")}
    found = {**settings, **{"steps": steps, "zero": zero, "searches": searches}[asked.what](base, asked)}
    print(json.dumps({k: v for k, v in found.items() if k != "rows"}))
    if asked.into:
        before = json.loads(asked.into.read_text()) if asked.into.is_file() else {}
        asked.into.write_text(json.dumps(before | {asked.what: found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
