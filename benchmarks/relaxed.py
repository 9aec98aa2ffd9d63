"""Seconds and memory of the relaxed search's steps, first and second order, beside those of the search by paths.

    OMP_NUM_THREADS=1 python benchmarks/relaxed.py --repeats 9 --size 8x3x64 [--preset quick] [--device cuda]

A size is CxLxN: channels, cells, images in a batch; images are those of the preset's data set. The steps take turns and
medians are reported, so that a busy machine slows all. Peak memory is of tensors, beyond what lay there before a step.
First order computes no weight's gradient in an alpha step; second order needs them in two of its four passes.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from sswp_lib.config import Config
from sswp_lib.learn.data import ImageData, load
from sswp_lib.learn.measure import peak_memory
from sswp_lib.learn.searches import SEARCHES
from sswp_lib.presets import load_config

WARM_UP = 2
Steps = dict[str, Callable[[], object]]


def steps_of(config: Config, data: ImageData, device: torch.device) -> Steps:
    """Return the weight step and the alpha step of a search, on fixed batches, its optimisers' states in place."""
    search = SEARCHES[config.search.method](config, data, device)
    next(search.advance())
    if config.search.method == "sswp":
        return {"weights": lambda: search.weight_step(search.batches[0]), "alpha": lambda: search.alpha_step(0)}
    pair = (search.batches[0], search.alpha_batches[0])
    training, validation = (search.batch(index, torch.Generator().manual_seed(0)) for index in pair)
    return {"weights": lambda: search.weight_step(training), "alpha": lambda: search.alpha_step(training, validation)}


def seconds(step: Callable[[], object], device: torch.device) -> float:
    started = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def measured(sides: dict[str, Steps], repeats: int, device: torch.device) -> list[dict[str, Any]]:
    """Return a row for each side and step: {"what", "ms", "MiB"}."""
    steps = {f"{side}, {name}": step for side, both in sides.items() for name, step in both.items()}
    times: dict[str, list[float]] = {what: [] for what in steps}
    for turn in range(WARM_UP + repeats):
        for what, step in steps.items():
            taken = seconds(step, device)
            times[what] += [taken] if turn >= WARM_UP else []
    peaks = {what: statistics.median(peak_memory(step, device) for _ in range(3)) for what, step in steps.items()}
    return [{"what": what, "ms": 1e3 * statistics.median(times[what]), "MiB": peaks[what] / 2**20} for what in steps]


def ratios(rows: list[dict[str, Any]], method: str) -> dict[str, float]:
    """Return second order's cost as a multiple of first order's: of an alpha step, and of it and a weight step."""
    value = {row["what"]: row for row in rows}
    first, second = ({s: value[f"{method}, order {i}, {s}"] for s in ("weights", "alpha")} for i in (1, 2))
    both = lambda side: side["weights"]["ms"] + side["alpha"]["ms"]  # noqa: E731
    peak = lambda side: max(side["weights"]["MiB"], side["alpha"]["MiB"])  # noqa: E731
    return {
        "alpha step, time": second["alpha"]["ms"] / first["alpha"]["ms"],
        "alpha step, memory": second["alpha"]["MiB"] / first["alpha"]["MiB"],
        "iteration, time": both(second) / both(first),
        "iteration, memory": peak(second) / peak(first),
    }


def sides_at(size: tuple[int, int, int], preset: str, device: torch.device) -> dict[str, Steps]:
    C, L, images = size
    own = {"model.init_channels": C, "model.num_cells": L, "search.batch_size": images, "relaxed.init_channels": None,
           "relaxed.num_cells": None}  # fmt: skip
    paths = load_config(preset).changed(**own)
    data = load(paths.data, device)
    sides = {"sswp": steps_of(paths.changed(**{"search.alpha_every": 1}), data, device)}
    for method in ("ssnas", "darts"):
        for order in (1, 2):
            config = load_config(preset, method=method).changed(**own, **{"relaxed.order": order})
            sides[f"{method}, order {order}"] = steps_of(config, data, device)
    return sides


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--size", type=lambda text: tuple(map(int, text.split("x"))), default=(8, 3, 64))
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    given = parser.parse_args()
    rows = measured(sides_at(given.size, given.preset, given.device), given.repeats, given.device)
    for row in rows:
        print(f"{row['what']:24} {row['ms']:8.1f} ms {row['MiB']:8.1f} MiB")
    for method in ("ssnas", "darts"):
        said = [f"{what} x{value:.2f}" for what, value in ratios(rows, method).items()]
        print(f"{method}, second order against first: {', '.join(said)}")


if __name__ == "__main__":
    main()
