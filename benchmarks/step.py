"""Seconds and memory of the search's steps beside a plain reference, and views a second beside torchvision's.

    python benchmarks/step.py --repeats 9 --sizes 16x8x32 36x20x16 --json benchmarks/step.json [--device cuda]

A size is CxLxV: channels, cells, views in the batch. The sides take turns (A B C A B C ...) after warm-up steps and
medians are reported, so that a busy machine slows all. Before anything is timed, `agreement` checks that they compute
the same. The reference is the method as one would first write it; the lean reference does without the work that the
method does not ask for (see `reference`). Ratios: reference / library for times and memory, library / reference for
rates; above 1 the library does better.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from reference import LeanSteps, ReferenceNet, ReferenceSteps
from torch import Tensor
from torchvision import transforms

from sswp_lib.config import Config, Views
from sswp_lib.learn import nt_xent
from sswp_lib.learn.footprint import step_memory
from sswp_lib.learn.loop import frozen
from sswp_lib.learn.measure import peak_memory
from sswp_lib.learn.views import several_views
from sswp_lib.space import (
    Genotype,
    Network,
    Paths,
    ProjectionHead,
    SuperNet,
    restore_unsampled,
    sample_paths,
    sample_two_paths,
)

WARM_UP = 2
REFERENCES = ("reference", "lean")
IMAGE_SIZE = 32
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


class LibrarySteps:
    """What `Search.weight_step` and `Search.alpha_step` do, on fixed images x (2N, 3, S, S)."""

    def __init__(self, init_channels: int, num_cells: int, x: Tensor):
        self.x = x.contiguous(memory_format=torch.channels_last)
        self.net = SuperNet(init_channels, num_cells).to(x.device, memory_format=torch.channels_last)
        self.weights = list(self.net.weight_parameters())
        self.optimizer = torch.optim.SGD(self.weights, lr=0.025, momentum=0.9, weight_decay=4e-5, foreach=True)
        self.alpha_optimizer = torch.optim.Adam([self.net.alpha], lr=0.001, betas=(0.0, 0.99))
        self.generator = torch.Generator().manual_seed(0)

    def weight_step(self) -> float:
        paths = sample_paths(self.net.alpha, self.net.present, self.generator, skip_dropout=0.2)
        self.optimizer.zero_grad(set_to_none=True)
        loss = nt_xent(self.net(self.x, paths))
        loss.backward()
        ran = [p for p in self.weights if p.grad is not None]
        torch.nn.utils.clip_grad_norm_(ran, 5.0, foreach=True)
        self.optimizer.step()
        return loss.item()

    def alpha_step(self) -> float:
        alpha = self.net.alpha
        paths = sample_two_paths(alpha, self.net.present, self.generator)
        with frozen(self.weights):
            loss = nt_xent(self.net(self.x, paths))
            (alpha.grad,) = torch.autograd.grad(loss, alpha)
        before = alpha.detach().clone()
        self.alpha_optimizer.step()
        restore_unsampled(alpha, before, paths)
        alpha.grad = None
        return loss.item()


class CompactSteps:
    """A compact network's training step with the same loss, optimiser and images."""

    def __init__(self, init_channels: int, num_cells: int, x: Tensor):
        self.x = x.contiguous(memory_format=torch.channels_last)
        net = Network(Genotype.published("DARTS_V2", num_cells), init_channels, affine=False)
        net.head = ProjectionHead(net.num_features)
        self.net = net.to(x.device, memory_format=torch.channels_last)
        self.weights = list(self.net.parameters())
        self.optimizer = torch.optim.SGD(self.weights, lr=0.025, momentum=0.9, weight_decay=4e-5, foreach=True)

    def weight_step(self) -> float:
        self.optimizer.zero_grad(set_to_none=True)
        loss = nt_xent(self.net(self.x))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.weights, 5.0, foreach=True)
        self.optimizer.step()
        return loss.item()


@torch.no_grad()
def same_weights(ours: SuperNet, reference: ReferenceNet, paths: Paths) -> None:
    """Give the reference the library's weights, alpha and paths."""
    for own, given in zip(reference.weight_parameters(), ours.weight_parameters(), strict=True):
        if own.shape != given.shape:
            raise AssertionError(f"the two supernets differ in a weight: {tuple(own.shape)} and {tuple(given.shape)}")
        own.copy_(given)
    rows = (ours.alpha.flatten(0, 1), paths.active.flatten().tolist(), paths.inactive.flatten().tolist())
    for edge, alpha, active, inactive in zip(reference.edges(), *rows, strict=True):
        edge.alpha.copy_(alpha)
        edge.set(active, inactive)


def agreement(
    init_channels: int, num_cells: int, num_views: int = 4, image_size: int = IMAGE_SIZE
) -> tuple[float, float]:
    """Return the largest difference of the outputs, and the relative difference of alpha's gradients, in float64 on the
    CPU.

    Same weights, same alpha (not uniform), same two sampled paths, training mode.
    """
    torch.manual_seed(0)
    ours = SuperNet(init_channels, num_cells).double().to(memory_format=torch.channels_last)
    reference = ReferenceNet(init_channels, num_cells).double()
    with torch.no_grad():
        ours.alpha.normal_()
    paths = sample_two_paths(ours.alpha, ours.present, torch.Generator().manual_seed(0))
    same_weights(ours, reference, paths)
    x = torch.randn(num_views, 3, image_size, image_size, dtype=torch.float64)
    output, expected = ours(x.contiguous(memory_format=torch.channels_last), paths), reference(x)
    (grad,) = torch.autograd.grad(nt_xent(output), ours.alpha)
    nt_xent(expected).backward()
    for edge in reference.edges():
        edge.gates_to_alpha()
    wanted = torch.stack([edge.alpha.grad for edge in reference.edges()]).view_as(grad)
    return (output - expected).abs().max().item(), ((grad - wanted).norm() / wanted.norm()).item()


def seconds(step: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def in_turn(steps: dict[str, Callable[[], object]], repeats: int, device: torch.device) -> dict[str, float]:
    """Return each side's median seconds; the sides take turns."""
    for step in steps.values():
        for _ in range(WARM_UP):
            step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            times[name].append(seconds(step, device))
    return {name: statistics.median(values) for name, values in times.items()}


def with_momentum(side) -> None:
    """Lay every momentum buffer there beforehand, so that no measured step is charged for it."""
    for weight in side.weights:
        side.optimizer.state[weight].setdefault("momentum_buffer", torch.zeros_like(weight))


def steps_at(size: tuple[int, int, int], repeats: int, device: torch.device) -> list[dict[str, Any]]:
    """Time all sides' steps at one size, then measure their memory: one row a step and quantity."""
    C, L, views = size
    torch.manual_seed(0)
    x = torch.randn(views, 3, IMAGE_SIZE, IMAGE_SIZE, device=device)
    ours, compact = LibrarySteps(C, L, x), CompactSteps(C, L, x)
    sides = {"library": ours, "reference": ReferenceSteps(C, L, x), "lean": LeanSteps(C, L, x)}
    for side in (*sides.values(), compact):
        with_momentum(side)
    where, rows = f"C={C} L={L} {views} views", []
    timed = {
        "weight step": {name: side.weight_step for name, side in sides.items()},
        "architecture step": {name: side.alpha_step for name, side in sides.items()},
        "compact network": {"library": compact.weight_step},
    }
    for name, steps in timed.items():
        rows.append({"what": f"{where}: {name}", "unit": "s", **in_turn(steps, repeats, device)})
        peaks = [
            {side: peak_memory(step, device) / 2**20 for side, step in steps.items()} for _ in range(min(repeats, 3))
        ]  # other paths each time
        rows.append(
            {
                "what": f"{where}: {name}",
                "unit": "MiB",
                **{side: statistics.median(p[side] for p in peaks) for side in steps},
            }
        )
    return rows


def footprint_at(size: tuple[int, int, int], draws: int, device: torch.device) -> list[dict[str, Any]]:
    """Peak memory of search steps beside compact networks', and with 3 beside 7 candidates along the same
    operations.
    """
    C, L, views = size
    settings = {"model.init_channels": C, "model.num_cells": L, "data.image_size": IMAGE_SIZE}
    found = step_memory(Config().changed(**settings), views // 2, device, draws)["bytes"]
    return [
        {"what": f"C={C} L={L} {views} views: {name} (memory alone)", "unit": "MiB", "library": peak / 2**20}
        for name, peak in found.items()
    ]


def torchvision_view(config: Views) -> transforms.Compose:
    """Return torchvision's transforms of the same view, for one PIL image."""
    return transforms.Compose([
        transforms.RandomResizedCrop(IMAGE_SIZE, scale=config.crop_scale),
        transforms.RandomHorizontalFlip(),
        transforms.RandomApply([transforms.ColorJitter(*config.jitter)], p=config.jitter_p),
        transforms.RandomGrayscale(config.grey_p),
        transforms.RandomApply([transforms.GaussianBlur(3, config.blur_sigma)], p=config.blur_p),
        transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
    ])  # fmt: skip


def views_row(repeats: int, device: torch.device, batch: int = 256) -> dict[str, Any]:
    """Views a second: two of each image of a batch. torchvision works on the CPU, one PIL image at a time."""
    config, g = Views(), torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (batch, 3, IMAGE_SIZE, IMAGE_SIZE), dtype=torch.uint8, generator=g)
    pictures = [transforms.functional.to_pil_image(image) for image in images]
    on_device, mean, std = images.to(device), torch.tensor(MEAN, device=device), torch.tensor(STD, device=device)
    one = torchvision_view(config)
    sides = {
        "library": lambda: several_views(2, on_device, config, mean, std, g),
        "reference": lambda: [torch.stack([one(picture) for picture in pictures]) for _ in range(2)],
    }
    rates = {name: 2 * batch / value for name, value in in_turn(sides, repeats, device).items()}
    return {
        "what": f"views of {batch} images, {IMAGE_SIZE}x{IMAGE_SIZE} (reference: torchvision)",
        "unit": "views/s",
        **rates,
    }


def with_ratio(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row with the library's ratio to each reference that it has."""
    ratios = {side: row[side] / row["library"] for side in REFERENCES if side in row}
    rate = row["unit"] == "views/s"
    return row | {f"{side} ratio": 1 / ratio if rate else ratio for side, ratio in ratios.items()}


def table(rows: list[dict[str, Any]]) -> str:
    """Return rows as aligned plain text; behind each reference stands the ratio to it."""
    number = lambda value: "" if value is None else f"{value:.3f}" if value < 100 else f"{value:.0f}"  # noqa: E731
    columns = ["library", *(name for side in REFERENCES for name in (side, f"{side} ratio"))]
    lines = [["what", "unit", "library", "reference", "ratio", "lean reference", "ratio"]]
    lines += [[r["what"], r["unit"], *(number(r.get(column)) for column in columns)] for r in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            text.ljust(w) if i < 2 else text.rjust(w) for i, (text, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def parsed_size(text: str) -> tuple[int, int, int]:
    C, L, views = (int(part) for part in text.split("x"))
    return C, L, views


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--sizes", nargs="+", type=parsed_size, default=[(16, 8, 32), (36, 20, 16)], metavar="CxLxV")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--json", type=Path, default=Path(__file__).with_name("step.json"))
    given = parser.parse_args()
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler that measures memory talks
    rows: list[dict[str, Any]] = []
    for size in given.sizes:
        output, gradient = agreement(*size[:2])
        print(
            f"C={size[0]} L={size[1]}: outputs differ by {output:.1e}, gradients of alpha by {gradient:.1e} (relative)",
            flush=True,
        )
        if output > 1e-4 or gradient > 1e-3:
            raise SystemExit(
                "library and reference do not compute the same; a comparison of their speed would mean nothing"
            )
        rows += steps_at(size, given.repeats, given.device) + footprint_at(size, min(given.repeats, 3), given.device)
    rows = [with_ratio(row) for row in [*rows, views_row(given.repeats, given.device)]]
    print(table(rows))
    hardware = (
        torch.cuda.get_device_name(given.device)
        if given.device.type == "cuda"
        else platform.processor() or platform.machine()
    )
    machine = {
        "device": str(given.device),
        "hardware": hardware,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "repeats": given.repeats,
    }
    given.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
