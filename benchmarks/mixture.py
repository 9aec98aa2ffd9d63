"""Seconds of the relaxed search's steps, first order, beside a plain reference's.

    OMP_NUM_THREADS=1 python benchmarks/mixture.py --repeats 9 --size 16x8x32 [--device cuda]

A size is CxLxV: channels, cells, views in a batch, two of each random image of 32x32 pixels; the search is SSNAS's, as
`RelaxedSearch` does it. Before anything is timed, `agreement` checks that both compute the same. The sides take turns
(A B C A B C ...); a ratio is reference / library within one turn, and the median over turns is reported, so that a busy
machine slows all. The reference is the method as one would first write it; the lean reference's alpha steps compute no
weight's gradient (see `mixture_reference`).

Measured on one core that had other work too, four turns at 16x8x32: an iteration takes 8.3 s, the reference 3.1 times
as long (weights 2.7, alpha 3.9), the lean reference 2.4 times (2.5, 2.4). Of a weight step a fifth goes into weight
gradients of 5x5 depthwise convolutions, a sixth into BatchNorm.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence

import torch
from mixture_reference import LeanMixtureSteps, MixtureNet, MixtureSteps
from step import WARM_UP, parsed_size, seconds
from torch import Tensor

from sswp_lib.learn import RelaxedSearch
from sswp_lib.learn.data import ImageData
from sswp_lib.learn.found import Found
from sswp_lib.learn.relaxed import Batch
from sswp_lib.presets import load_config
from sswp_lib.space import mixture

STEPS = ("weights", "alpha")
CHECKED_VIEWS = 8  # in float64 they are slow
Steps = dict[str, Callable[[], object]]
# where rounding turns a ReLU or chooses another maximum, gradients in float32 part by more than its last bits
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-2}


def random_images(count: int, size: int) -> ImageData:
    images = torch.randint(
        0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    found = Found("random", False, count, 0, (), ())
    return ImageData("random", images, None, None, None, (), torch.full((3,), 0.5), torch.full((3,), 0.3), found)


def search_at(size: tuple[int, int, int], device: torch.device, image_size: int = 32) -> RelaxedSearch:
    """Return SSNAS's search of a size on random images, alpha away from 0, before its first step."""
    C, L, views = size
    own = {"relaxed.init_channels": C, "relaxed.num_cells": L, "model.num_cells": L, "data.image_size": image_size,
           "search.batch_size": views // 2}  # fmt: skip
    config = load_config("paper", method="ssnas").changed(**own)
    search = RelaxedSearch(config, random_images(views, image_size), device)
    with torch.no_grad():
        search.supernet.alpha.normal_(generator=torch.Generator(device).manual_seed(0))
    return search


def batches_of(search: RelaxedSearch) -> tuple[Batch, Batch]:
    """Return views of the images that the weights learn from, and of those that alpha does."""
    dtype, halves = search.supernet.alpha.dtype, (search.weights_half, search.alpha_half)
    drawn = [search.batch(half, torch.Generator().manual_seed(i)) for i, half in enumerate(halves)]
    training, validation = (([view.to(dtype) for view in views], labels) for views, labels in drawn)
    return training, validation


@torch.no_grad()
def reference_of(
    search: RelaxedSearch, training: Batch, validation: Batch, kind: type[MixtureSteps] = MixtureSteps
) -> MixtureSteps:
    """Return the reference on the same views, with copies of the search's weights and alpha."""
    ours, r = search.supernet, search.relaxed
    net = MixtureNet(r.init_channels, r.num_cells).to(ours.alpha)
    for own, given in zip(net.weight_parameters(), ours.weight_parameters(), strict=True):
        if own.shape != given.shape:
            raise AssertionError(f"the two networks differ in a weight: {tuple(own.shape)} and {tuple(given.shape)}")
        own.copy_(given)
    net.alpha.copy_(ours.alpha)
    return kind(net, torch.cat(training[0]), torch.cat(validation[0]), search.settings.temperature)


def agreement(
    size: tuple[int, int, int], dtype: torch.dtype, device: torch.device, image_size: int = 32
) -> dict[str, float]:
    """Return how far the library is from the reference, relative to it: the loss of both steps, the gradient of alpha
    steps to alpha, and that of weight steps to all weights.
    """
    search = search_at(size, device, image_size)
    search.supernet.to(dtype)
    training, validation = batches_of(search)
    plain = reference_of(search, training, validation)
    alpha_loss, to_alpha = search.alpha_gradient(training, validation)
    loss = search.loss_on(*training, mixture(search.supernet.alpha.detach()))[0]
    to_weights = torch.autograd.grad(loss, list(search.weights.values()))
    plain_alpha_loss, plain_loss = plain.loss(plain.validation), plain.loss(plain.training)
    wanted = torch.autograd.grad(plain_loss, plain.weights)
    return {
        "loss": max(apart([loss], [plain_loss]), apart([alpha_loss], [plain_alpha_loss])),
        "gradient to alpha": apart([to_alpha], torch.autograd.grad(plain_alpha_loss, plain.net.alpha)),
        "gradient to the weights": apart(to_weights, wanted),
    }


def apart(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """Return the norm of the difference of two lists of tensors over the norm of the second."""
    found, wanted = (torch.cat([t.detach().flatten() for t in side]) for side in (found, wanted))
    return ((found - wanted).norm() / wanted.norm()).item()


def sides_at(size: tuple[int, int, int], device: torch.device, image_size: int = 32) -> dict[str, Steps]:
    """Return each side's two steps."""
    search = search_at(size, device, image_size)
    training, validation = batches_of(search)
    sides = {
        "library": {
            "weights": lambda: search.weight_step(training),
            "alpha": lambda: search.alpha_step(training, validation),
        }
    }
    for name, kind in (("reference", MixtureSteps), ("lean", LeanMixtureSteps)):
        side = reference_of(search, training, validation, kind)
        sides[name] = {"weights": side.weight_step, "alpha": side.alpha_step}
    return sides


def timed(sides: dict[str, Steps], repeats: int, device: torch.device) -> dict[str, dict[str, list[float]]]:
    """Return the seconds of every turn, {side: {step: seconds}}; an iteration is an alpha step and a weight step."""
    times: dict[str, dict[str, list[float]]] = {side: {step: [] for step in STEPS} for side in sides}
    for turn in range(WARM_UP + repeats):
        for step in STEPS:
            for side, steps in sides.items():
                taken = seconds(steps[step], device)
                times[side][step] += [taken] if turn >= WARM_UP else []
    for own in times.values():
        own["iteration"] = [sum(both) for both in zip(*own.values(), strict=True)]
    return times


def ratio(times: list[float], to: list[float]) -> float:
    """Return the median over turns of times / to."""
    return statistics.median(a / b for a, b in zip(times, to, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--size", type=parsed_size, default=(16, 8, 32), metavar="CxLxV")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    given = parser.parse_args()
    for dtype, tolerance in TOLERANCE.items():
        found = agreement((*given.size[:2], CHECKED_VIEWS), dtype, given.device)
        print(f"{dtype}: apart by " + ", ".join(f"{what} {value:.1e}" for what, value in found.items()), flush=True)
        if max(found.values()) > tolerance:
            raise SystemExit("library and reference do not compute the same; their speeds say nothing")
    times = timed(sides_at(given.size, given.device), given.repeats, given.device)
    for step in (*STEPS, "iteration"):
        seconds_of = {side: own[step] for side, own in times.items()}
        said = [f"{side} {statistics.median(own):.3f} s" for side, own in seconds_of.items()]
        said += [f"{side} x{ratio(seconds_of[side], seconds_of['library']):.2f}" for side in ("reference", "lean")]
        print(f"{step:10} {', '.join(said)}")


if __name__ == "__main__":
    main()
