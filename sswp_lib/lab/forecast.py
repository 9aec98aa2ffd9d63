"""What one large run will take on this machine, said before it starts: measured in a few steps of a small batch."""

from __future__ import annotations

from dataclasses import dataclass

import psutil
import torch

from sswp_lib import processes
from sswp_lib.config import Config
from sswp_lib.lab.estimate import plain, seconds_a_step, steps_of
from sswp_lib.learn.data import ImageData, load
from sswp_lib.learn.loop import Loop
from sswp_lib.learn.measure import parameters, peak_memory, sizes
from sswp_lib.learn.searches import SEARCHES
from sswp_lib.learn.train import Training
from sswp_lib.methods import ONE_SHOT
from sswp_lib.paper.studies import Job
from sswp_lib.runs.progress import Line, about
from sswp_lib.space import Choices, Genotype

LARGE = 1e14  # multiply-adds of a run that is told of beforehand: half an hour of one processor, or more; ours
DAY = 24 * 3600.0
FEW = (2, 4)  # images of the steps that are measured; ours
SHARE = 0.8  # of a device's free memory that a measured step may take
PASSES = 3  # forward, and twice as much backward


@dataclass(frozen=True)
class Forecast:
    """What a run will take: steps, seconds of each, the step's peak of memory in bytes, and how much is free."""

    steps: int
    seconds_a_step: float
    memory: int
    free: int
    batch_size: int
    device: str

    def lines(self, section: str) -> list[str]:
        """Return it in words; `section` is that of the batch size."""
        seconds, held = self.steps * self.seconds_a_step, self.memory / 2**30
        whole = f"{seconds / DAY:.1f} days" if seconds > 2 * DAY else about(seconds)
        said = [
            f"about {whole} on this {self.device}: {self.steps:,} steps of {self.seconds_a_step:.2f} s, with up to "
            f"{held:.1f} GiB of memory ({self.free / 2**30:.1f} GiB are free)"
        ]
        if self.memory > self.free:
            each = self.memory / self.batch_size
            fits = max(int(SHARE * self.free / each), 1)
            said.append(f"warning: a step does not fit into memory; set {section}.batch_size={fits} or less")
        return said


def multiply_adds(config: Config, source: Genotype | None, data: ImageData) -> float:
    """Return about how many multiply-adds a run takes: those of a network of that size, DARTS's where it is yet to be
    found.
    """
    model, section = config.model, config.search if source is None else config.train
    network = source or Genotype.published("DARTS_V2", model.num_cells)
    each = sizes(network, model.init_channels, max(len(data.classes), 2), config.data.image_size, model.stem)
    views = 2 if section.objective == "simclr" else 1
    steps = steps_of(Job({}, config, source))
    return PASSES * views * section.batch_size * steps * each["multiply_adds"]


def forecast(config: Config, source: Genotype | None, device: str) -> Forecast:
    """Return what a run will take on the device, from a few steps of small batches and of the largest that fits.

    Args:
        source: what is trained; None for a search.
    """
    data, section = load(config.data, device), "search" if source is None else "train"
    batch, job = getattr(config, section).batch_size, Job({}, config, source)
    small = plain(job).changed(**{"train.evaluate_every": 0})

    def loop(size: int) -> Loop:
        own = small.changed(**{f"{section}.batch_size": size})
        if source is not None:
            return Training(own, data, source, device=device)
        return SEARCHES[own.search.method](own, data, device)

    few = [min(size, batch) for size in FEW]
    peaks = [_peak(loop(size), device) for size in few]
    slope = max(peaks[1] - peaks[0], 0) / max(few[1] - few[0], 1)
    memory, free = int(peaks[0] + slope * (batch - few[0])), _free(device)
    size = few[1] if torch.device(device).type == "cpu" else batch  # an accelerator does many images faster, each
    while size > few[1] and peaks[0] + slope * size > SHARE * free:
        size //= 2
    return Forecast(steps_of(job), seconds_a_step(loop(size), device) * batch / size, memory, free, batch, device)


def _peak(loop: Loop, device: str) -> int:
    """Return the bytes that a step holds, with weights, their gradients and momentum."""
    steps, model = loop.advance(), loop.supernet if hasattr(loop, "supernet") else loop.network
    next(steps)  # momentum lies there afterwards
    for p in model.parameters():
        p.grad = None  # what is let go within a step counts as less than nothing
    return peak_memory(lambda: next(steps), device) + 8 * parameters(model)


def _free(device: str) -> int:
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def say(config: Config, source: Genotype | Choices | None, device: str) -> None:
    """Say what a run will take, where it is large; nothing of methods whose runs have several parts. Of processes that
    share it the first one says it, as if it were by itself.
    """
    if processes.first():
        processes.by_itself(lambda: _say(config, source, device))


def _say(config: Config, source: Genotype | Choices | None, device: str) -> None:
    if isinstance(source, Choices) or (source is None and config.search.method in ONE_SHOT):
        return
    line = Line("search" if source is None else "train")
    data = load(config.data, device, line.working)
    if multiply_adds(config, source, data) >= LARGE:
        line.working("measuring a few steps")
        for text in forecast(config, source, device).lines(line.label):
            line.note(text)
