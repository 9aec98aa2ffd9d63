"""Seconds in which a one-shot network scores one architecture of NAS-Bench-201's space.

    OMP_NUM_THREADS=1 python benchmarks/ranking.py --paths 21 [--device cuda]

What `Ranker.score` does for each of the 729 architectures that Pi-NAS ranks: BatchNorm's statistics along the path from
512 training images, then the accuracy on 1,000 held-out ones; C = 8, N = 1, 16x16 pixels. Images are random and weights
as they are drawn, which costs the same. Seconds of the processor stand beside those of the clock, which other programs
on the machine stretch. Measured on one core that had other work too: median 0.21 s of the processor, 0.32 s of the
clock; the slowest of 41 architectures 0.32 s and 0.5 s.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace

import torch
from mixture import random_images

from sswp_lib.config import Config
from sswp_lib.learn.oneshot import build_supernet
from sswp_lib.learn.ranking import Ranker
from sswp_lib.paper.pi_nas import drawn
from sswp_lib.presets import load_config

WARM_UP = 2
IMAGES, CLASSES = 5000, 10  # a fifth is held out


def ranker_of(config: Config, images: int, device: torch.device) -> Ranker:
    """Return a ranker on so many random images, its network untrained."""
    data = random_images(images, config.data.image_size)
    data = replace(data, train_labels=torch.arange(images) % CLASSES, classes=tuple(map(str, range(CLASSES))))
    supernet = build_supernet(config, data).to(device, memory_format=torch.channels_last)
    classifier = torch.nn.Linear(supernet.num_features, CLASSES).to(device)
    return Ranker(config, data, supernet, classifier, device)


def timed(ranker: Ranker, paths: int) -> list[tuple[float, float]]:
    """Return seconds of the clock and of the processor of as many scores, each of another architecture."""
    architectures, times = drawn(paths), []
    for choices in [*architectures[:WARM_UP], *architectures]:
        before = time.perf_counter(), time.process_time()
        ranker.score(choices)
        times.append((time.perf_counter() - before[0], time.process_time() - before[1]))
    return times[WARM_UP:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--paths", type=int, default=21)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    given = parser.parse_args()
    config = load_config("quick", study="one_shot").changed(**{"data.image_size": 16})
    ranker = ranker_of(config, IMAGES, given.device)
    print(f"{sum(map(len, ranker.calibration))} images for statistics, {len(ranker.labels)} to be classified")
    for what, times in zip(("clock", "processor"), zip(*timed(ranker, given.paths), strict=True), strict=True):
        print(f"{what:10} median {statistics.median(times):.3f} s, most {max(times):.3f} s")


if __name__ == "__main__":
    main()
