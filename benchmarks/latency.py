"""Milliseconds of an image and accuracy: what a search found beside torchvision's MobileNetV3-small and ResNet-18.

    OMP_NUM_THREADS=1 python benchmarks/latency.py RUN [--rates 0.025 0.1] [--epochs 60]

RUN is a finished training. Its architecture and both networks made by hand are trained from random weights on that
run's images and labels, for as many steps, each by the learning rate that is best for it on held-out training images
(`train.validation`; a fifth where the run has none), and tested once. On images of 32 pixels and less both have a first
convolution of stride 1, and ResNet-18 no pool after it, as is usual there. Timed as `sswp export` times them: as torch
programs and in ONNX Runtime, one image at a time, on one core, the median; by turns, after all training.
"""

from __future__ import annotations

import argparse
import functools
import sys
from dataclasses import dataclass
from statistics import median

from torch import Tensor, nn
from torchvision.models import mobilenet_v3_small, resnet18

from sswp_lib.config import Config
from sswp_lib.lab.export import content_of, milliseconds, traced
from sswp_lib.lab.portable import FORMATS, Description, Portable, Preprocessing, opened
from sswp_lib.learn.data import ImageData, load
from sswp_lib.learn.measure import multiply_adds, parameters
from sswp_lib.learn.train import Training
from sswp_lib.runs import records
from sswp_lib.space import Choices, Genotype

SMALL = 32  # pixels a side up to which a first convolution of stride 1 is usual
RATES = (0.01, 0.03, 0.1)
ROUNDS = 3
FOUND = "found by search"


class Known(nn.Module):
    """A network of torchvision's with the parts that a training asks for: features, then `head`."""

    def __init__(self, body: nn.Module, num_features: int, num_classes: int):
        super().__init__()
        self.body, self.num_features, self.head = body, num_features, nn.Linear(num_features, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return class scores (N, num_classes) of images (N, 3, S, S)."""
        return self.head(self.body(x))


def resnet(num_classes: int, image_size: int) -> Known:
    """Return a new ResNet-18."""
    body = resnet18(weights=None)
    body.fc = nn.Identity()
    if image_size <= SMALL:
        body.conv1, body.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    return Known(body, 512, num_classes)


def mobilenet(num_classes: int, image_size: int) -> Known:
    """Return a new MobileNetV3-small."""
    body = mobilenet_v3_small(weights=None)
    num_features = body.classifier[3].in_features
    body.classifier[3] = nn.Identity()
    if image_size <= SMALL:
        body.features[0][0].stride = (1, 1)
    return Known(body, num_features, num_classes)


BY_HAND = {"MobileNetV3-small": mobilenet, "ResNet-18": resnet}


class TrainingOf(Training):
    """A training of a network that `make` returns, by number of classes and size of the images."""

    def __init__(self, make, config: Config, data: ImageData):
        self.make = make
        super().__init__(config, data, Genotype.published("DARTS_V2", config.model.num_cells))

    def new_network(self, architecture: Genotype | Choices, num_classes: int, auxiliary: bool) -> nn.Module:
        return self.make(num_classes, self.config.data.image_size)


@dataclass(frozen=True)
class Row:
    """One network: its size, milliseconds by both engines, the rate that was best for it, accuracies in percent."""

    network: str
    parameters: int
    multiply_adds: int
    torch_ms: float
    onnx_ms: float
    lr: float
    validation: float
    test: float


@dataclass(frozen=True)
class Best:
    """A network as it was trained at the rate that is best for it on held-out images, and what became of it."""

    name: str
    network: nn.Module
    image_size: int
    lr: float
    result: dict


def best(name: str, trainings: dict[float, Training]) -> Best:
    """Train at each rate, and keep what is best on held-out images."""
    found = {}
    for lr, training in trainings.items():
        for _ in training.advance():
            pass
        found[lr] = training.finish()[0]
        print(f"{name}, rate {lr:g}: {accuracy(found[lr], 'validation'):.2f} % of held-out images", file=sys.stderr)
    lr = max(found, key=lambda lr: accuracy(found[lr], "validation"))
    network = trainings[lr].network.cpu().eval().requires_grad_(False)
    return Best(name, network, trainings[lr].config.data.image_size, lr, found[lr])


def measured(trained: list[Best]) -> list[Row]:
    """Time what was trained, by turns, and return a row for each."""
    ready = {one.name: programs(one) for one in trained}
    times: dict[str, list[list[float]]] = {name: [] for name in ready}
    for name, own in [*ready.items()] * ROUNDS:
        times[name].append([milliseconds(each) for each in own])
    return [
        Row(
            one.name, parameters(one.network), multiply_adds(one.network, one.image_size),
            *(median(each) for each in zip(*times[one.name], strict=True)),
            one.lr, accuracy(one.result, "validation"), accuracy(one.result, "test"),
        )
        for one in trained
    ]  # fmt: skip


def programs(one: Best) -> list[Portable]:
    """Return a network as `sswp export` writes it, opened as each kind of file."""
    program, size = traced(one.network, one.image_size), one.image_size
    images = Preprocessing(resize=size, crop=size, mean=(0, 0, 0), std=(1, 1, 1))
    about = Description(output="scores", classes=None, preprocessing=images, architecture={}, run=one.name, made={})
    return [opened(content_of(program, about, kind), kind, threads=1) for kind in FORMATS]


def accuracy(result: dict, part: str) -> float:
    """Return the top-1 accuracy of the weights that are kept."""
    return result.get("calibrated", result)[part]["top1"]


def configuration(config: Config, epochs: int | None) -> Config:
    """Return a run's training with random weights and a part of the training images held out."""
    settings = {"train.init": "random", "train.freeze": "none", "train.validation": config.train.validation or 0.2}
    return config.changed(**settings, **({"train.epochs": epochs} if epochs else {}))


def rows(config: Config, architecture: Genotype | Choices, rates: tuple[float, ...]) -> list[Row]:
    """Return a row for the found architecture and for each network made by hand."""
    data = load(config.data)
    sides = {FOUND: lambda own: Training(own, data, architecture)}
    for name, make in BY_HAND.items():
        sides[name] = functools.partial(lambda make, own: TrainingOf(make, own, data), make)
    trained = [
        best(name, {lr: side(config.changed(**{"train.lr": lr})) for lr in rates}) for name, side in sides.items()
    ]
    print("trained; now they are timed", file=sys.stderr, flush=True)
    return measured(trained)


def table(found: list[Row]) -> str:
    """Return the rows as text."""
    lines = [
        f"{'':18} {'parameters':>11} {'mult-adds':>12} {'torch':>9} {'onnx':>9} {'rate':>6} {'valid.':>7} {'test':>6}"
    ]
    for r in found:
        size = f"{r.network:18} {r.parameters:11,} {r.multiply_adds:12,} "
        lines.append(size + f"{r.torch_ms:6.2f} ms {r.onnx_ms:6.2f} ms {r.lr:6g} {r.validation:7.2f} {r.test:6.2f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    parser.add_argument("--epochs", type=int)
    given = parser.parse_args()
    record = records.find(given.run)
    config = configuration(Config(**record.config | {"seed": record.seed}), given.epochs)
    print(table(rows(config, record.architecture, tuple(given.rates))))


if __name__ == "__main__":
    main()
