"""What sharing one search among several processes brings, and what their messages cost.

    python benchmarks/messages.py --processes 1 2 --channels 16 --cells 8 --batch 64 --steps 10

Times steps on weights and on alpha of one search, by 1 and by several processes of one thread each, in turns. Beside
the milliseconds of a step stand those that the first process spends on each kind of message, its waiting for the slower
one included: the sums of gradients, which alone could overlap with the backward pass, and all others, on whose results
the next operation waits.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict

import torch.distributed as dist

from sswp_lib import processes
from sswp_lib.learn.data import load
from sswp_lib.learn.search import Search
from sswp_lib.presets import load_config

MESSAGES = ("all_reduce", "all_gather", "broadcast")
ROUNDS = 3
SIZES = {"channels": 16, "cells": 8, "batch": 64, "pixels": 32, "steps": 10}


class Clock:
    """Seconds that messages take, by whether they belong to the sum of gradients."""

    def __init__(self):
        self.spent: dict[str, float] = defaultdict(float)
        self.kind = "others"
        for name in MESSAGES:
            setattr(dist, name, self._timed(getattr(dist, name)))
        processes.summed = self._of_gradients(processes.summed)

    def _timed(self, message):
        def timed(*given, **named):
            started = time.perf_counter()
            try:
                return message(*given, **named)
            finally:
                self.spent[self.kind] += time.perf_counter() - started

        return timed

    def _of_gradients(self, summed):
        def timed(*given):
            self.kind = "gradients"
            try:
                return summed(*given)
            finally:
                self.kind = "others"

        return timed


def part(given: argparse.Namespace) -> None:
    """Do the steps as one of the processes; the first prints what they took."""
    sizes = {"model.init_channels": given.channels, "model.num_cells": given.cells, "search.batch_size": given.batch}
    config, clock, found = load_config("quick", settings=sizes | {"data.image_size": given.pixels}), Clock(), {}
    with processes.together("cpu"):
        search = Search(config, load(config.data))
        batch = search.weights_half[: given.batch]
        steps = {"weights": lambda _: search.weight_step(batch), "alpha": search.alpha_step}
        for name, step in steps.items():
            step(0)
            clock.spent.clear()
            started = time.perf_counter()
            for search.step in range(1, given.steps + 1):  # each draws paths of its own
                step(search.step)
            found[name] = {"step": time.perf_counter() - started, **clock.spent}
        if processes.first():
            print(json.dumps({k: {n: 1000 * s / given.steps for n, s in v.items()} for k, v in found.items()}))


def run(count: int, words: list[str]) -> dict[str, dict[str, float]]:
    """Return what so many processes take."""
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)] if count > 1 else []
    command = [sys.executable, *start, __file__, *words, "--part"]
    done = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=(1, 2))
    for name, usual in SIZES.items():
        parser.add_argument(f"--{name}", type=int, default=usual)
    parser.add_argument("--part", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        part(given)
        return
    words = [word for name in SIZES for word in (f"--{name}", str(getattr(given, name)))]
    found = [(count, run(count, words)) for _ in range(ROUNDS) for count in given.processes]
    print(f"{'processes':>9} {'step on':>8} {'ms':>9} {'sum of gradients':>17} {'other messages':>15}")
    for count in given.processes:
        for name in ("weights", "alpha"):
            rows = [own[name] for n, own in found if n == count]
            ms, sums, others = (
                statistics.median(row.get(kind, 0.0) for row in rows) for kind in ("step", "gradients", "others")
            )
            print(f"{count:9} {name:>8} {ms:9.1f} {sums:17.1f} {others:15.1f}")


if __name__ == "__main__":
    main()
