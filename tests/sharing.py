"""Steps of runs that several processes share, and what they come to; each process is one call of

    RANK=k WORLD_SIZE=n MASTER_ADDR=127.0.0.1 MASTER_PORT=p python tests/sharing.py FILE float32,float64 CASE ...

of which the first writes {"case, dtype": {name: tensor}} into FILE. A case may be something to do wrong.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F

from sswp_lib import processes
from sswp_lib.config import Config, flat
from sswp_lib.learn import views
from sswp_lib.learn.data import ImageData, load
from sswp_lib.learn.recipes import pretraining
from sswp_lib.learn.search import Search
from sswp_lib.learn.train import Training
from sswp_lib.presets import load_config
from sswp_lib.space import CANDIDATES, Genotype

STEPS = 30
BASE = {
    "data.image_size": 8, "data.views.flip": True, "data.views.shift": 1, "data.views.jitter_p": 0.5,
    "data.views.grey_p": 0.2, "data.views.blur_p": 0.3, "model.num_cells": 2, "model.init_channels": 4,
    "model.projection_dim": 8, "search.epochs": 6, "search.batch_size": 15, "search.ratios": (0.1, 0.4, 0.5),
    "search.alpha_every": 2, "search.calibration_batches": 2, "search.lr": 0.01, "search.alpha_lr": 0.001,
    "train.epochs": 2, "train.batch_size": 15, "train.shift": 1, "train.cutout": 2, "train.drop_path": 0.2,
    "train.lr": 0.01, "train.auxiliary": 0.4, "train.labels": 0.8, "train.labels_per_class": None,
    "train.calibrate": True,
}  # fmt: skip
"""Six epochs of five steps of 15 images, which neither 2 nor 4 processes share evenly; all cells are pruned on the
way."""
CASES: dict[str, dict[str, Any]] = {
    "simclr": {},
    "supervised": {"search.objective": "supervised"},
    "byol": {"search.objective": "byol"},
    "all candidates evaluated": {"search.evaluated": 7},
    "training": {},
    "training on crops": {"train.augment": "crop", "train.shift": 0, "train.cutout": 0},
    "pre-training": {},
}
OBJECTIVES = ["simclr", "supervised", "byol"]
WRONG = {
    "views drawn by process": (
        "sswp_lib.learn.views.Drawn.rows",
        lambda drawn, start, stop: rows(drawn, 0, stop - start),
    ),
    "nothing gathered": ("sswp_lib.processes.gathered", lambda x: (x, 0)),
    "gathered without gradients": ("sswp_lib.processes._Gathered.backward", lambda ctx, grad: (None, None)),
    "BatchNorm by process": (
        "sswp_lib.processes.batch_norm",
        lambda x, weight, bias, eps: (F.batch_norm(x, None, None, weight, bias, True, eps=eps), *_stats(x)),
    ),
    "gradients averaged": ("sswp_lib.processes.summed", lambda gradients, metrics: _averaged(gradients, metrics)),
}
"""What is easily done wrong, as a replacement of one function."""
rows, summed = views.Drawn.rows, processes.summed


def _stats(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    values = x.detach().transpose(0, 1).flatten(1)
    return values.mean(1), values.var(1)


def _averaged(gradients: Sequence[torch.Tensor], metrics: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    found = summed(gradients, metrics)
    for gradient in gradients:
        gradient /= processes.count()
    return found


def settings(case: str, others: dict[str, Any] | None = None) -> Config:
    return load_config("smoke", settings=BASE | CASES[case] | (others or {}))


def images(config: Config) -> ImageData:
    """160 training and 50 test images of noise, with the labels of digits.

    Black pixels beside one another are all alike but for rounding, so that which one a maximum takes, and where its
    gradient goes, would be a matter of rounding too.
    """
    data, g = load(config.data), torch.Generator().manual_seed(0)
    noise = [torch.randint(0, 256, (n, *data.train.shape[1:]), dtype=torch.uint8, generator=g) for n in (160, 50)]
    return replace(
        data, train=noise[0], train_labels=data.train_labels[:160], test=noise[1], test_labels=data.test_labels[:50]
    )


def loop_of(case: str) -> Search | Training:
    config = settings(case)
    if "training" not in case:
        return Search(config, images(config))
    if case == "pre-training":
        config = pretraining(config, config.seed)
    return Training(config, images(config), Genotype.published("DARTS_V2", 2))


@contextmanager
def computed_in(kind: torch.dtype) -> Iterator[None]:
    """Within this, all that is computed in float32 is computed in `kind`."""
    torch.set_default_dtype(kind)
    with mock.patch.object(torch.Tensor, "float", lambda x: x.to(kind)):
        yield
    torch.set_default_dtype(torch.float32)


def end_of(case: str, steps: int = STEPS) -> dict[str, torch.Tensor]:
    """Return what each step noted, the weights then, and what that is judged to be."""
    loop, noted, record = loop_of(case), {"losses": [], "accuracies": []}, Search.record

    def watched(**metrics):
        for name, value in metrics.items():
            noted["losses" if "loss" in name else "accuracies"].append(value.detach().double())
        record(loop, **metrics)

    loop.record = watched
    for _ in loop.advance():
        if loop.epoch * loop.num_steps + loop.step >= steps:
            break
    model = loop.supernet if isinstance(loop, Search) else loop.network
    weights = {f"weights {name}": t.clone() for name, t in model.state_dict().items()}
    return {name: torch.stack(values) for name, values in noted.items()} | weights | judged(loop)


def judged(loop: Search | Training) -> dict[str, torch.Tensor]:
    """Return what a loop comes to at its end: accuracies, statistics, the genotype."""
    loop.epoch = loop.num_epochs
    result, kept = loop.finish()
    parts = [result[name] for name in ("supernet", "exported", "test", "calibrated") if name in result]
    numbers = [value for part in parts for value in flat(part).values()]
    found = {f"kept {name}": t for name, t in kept.items()} | {"judged": torch.tensor(numbers)}
    if "genotype" in result:
        cells = Genotype.model_validate(result["genotype"]).cells
        found["genotype"] = torch.tensor([[CANDIDATES.index(name), source] for cell in cells for name, source in cell])
    return found


def start(count: int, *words: str, script: Path = Path(__file__)) -> list[subprocess.Popen]:
    """Start `count` processes of a script, as torchrun would."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = os.environ | {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    common |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    return [
        subprocess.Popen([sys.executable, str(script), *words], env=common | {"RANK": str(k), "LOCAL_RANK": str(k)},
                         stderr=subprocess.PIPE, text=True)
        for k in range(count)
    ]  # fmt: skip


def main(file: str, kinds: str, *cases: str) -> None:
    torch.set_num_threads(1)
    images(settings("simclr"))  # loaded once, with mean and deviation in float32
    found = {}
    with processes.together("cpu"):
        for kind in kinds.split(","):
            with computed_in(getattr(torch, kind)):
                for case in cases:
                    found[f"{case}, {kind}"] = wrongly(case) if case in WRONG else end_of(case)
        if processes.first():
            torch.save(found, file)


def wrongly(what: str) -> dict[str, torch.Tensor]:
    with mock.patch(*WRONG[what]):
        return end_of("simclr", steps=5)


if __name__ == "__main__":
    main(*sys.argv[1:])
