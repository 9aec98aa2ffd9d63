"""Accuracy, parameters, multiply-adds, memory, entropy of alpha.

Multiply-adds are those of convolutions and linear layers, one multiplication with its addition counted once (the
papers' convention), as `torch.utils.flop_counter` finds them while the network runs.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sswp_lib import processes
from sswp_lib.config import Config
from sswp_lib.learn.data import take
from sswp_lib.learn.views import normalise
from sswp_lib.space import CANDIDATES, Genotype, Network
from sswp_lib.space.ops import BatchNorm, ReLUFirst
from sswp_lib.space.resnest import WeightedSum


@torch.no_grad()
def accuracy(
    model: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, mean: Tensor, std: Tensor,
    size: int | None = None, batch_size: int = 500,
) -> dict[str, float]:  # fmt: skip
    """Return accuracies in percent, on uint8 images (N, 3, S, S), or on their centres of `size` pixels a side; `model`
    is in evaluation mode already.

    Returns:
        {"top1"}; with "top5" where there are more than five classes; with "balanced", the mean of the classes' own
        top-1 accuracies, where the images are more of one class than of another.
    """
    batches = torch.arange(len(labels)).split(batch_size)
    right = torch.zeros(len(labels), 5, dtype=torch.float64)  # of each image, which of the five best guesses is right
    for index in batches[processes.rank() :: processes.count()]:
        scores = model(normalise(take(images, index, mean.device), mean, std, size))
        guesses = scores.topk(min(5, scores.shape[1]), dim=1).indices
        hits = guesses == take(labels, index, mean.device)[:, None]
        right[index, : guesses.shape[1]] = hits.cpu().double()
    right, labels = processes.added(right), labels.cpu()
    found = {"top1": 100 * float(right[:, 0].sum()) / len(labels)}
    if processes.agreed(lambda: scores.shape[1]) > 5:  # the first process has had the first batch
        found["top5"] = 100 * float(right.sum()) / len(labels)
    counts = torch.bincount(labels)
    present = counts > 0
    if counts[present].unique().numel() > 1:
        of_class = torch.bincount(labels, right[:, 0])[present] / counts[present]
        found["balanced"] = 100 * float(of_class.mean())
    return found


def parameters(model: nn.Module) -> int:
    """Return the number of weights that training changes, alpha not counted."""
    return sum(p.numel() for name, p in model.named_parameters() if name != "alpha")


@torch.no_grad()
def multiply_adds(model: nn.Module, image_size: int) -> int:
    """Return the multiply-adds of one image of image_size x image_size in evaluation, by convolutions as such."""
    from torch.utils.flop_counter import (
        FlopCounterMode,
    )  # here, because it imports triton: half a second at every start of a notebook

    was_training = model.training
    shapes = {
        name: torch.empty_like(t, device="meta") for name, t in [*model.named_parameters(), *model.named_buffers()]
    }
    with FlopCounterMode(display=False) as counter:  # without values, so no convolution is computed in another way
        torch.func.functional_call(model.eval(), shapes, torch.zeros(1, 3, image_size, image_size, device="meta"))
    model.train(was_training)
    return counter.get_total_flops() // 2


def norms(weights: dict[str, Tensor]) -> dict[str, float]:
    """Return the root mean square of each convolution's weights, by name."""
    return {name: float(t.float().square().mean().sqrt()) for name, t in weights.items() if t.dim() == 4}


def sizes(
    genotype: Genotype, init_channels: int, num_classes: int, image_size: int, stem: str = "cifar"
) -> dict[str, int]:
    """Return the size of a genotype's network without building its weights: see `sizes_of`."""
    with torch.device("meta"):
        network = Network(genotype, init_channels, num_classes, stem=stem)
    return sizes_of(network, image_size)


def measures(genotype: Genotype, config: Config, num_classes: int) -> dict[str, Any]:
    """Return what a genotype holds, and the size of its network with a classifier for so many classes, or for two."""
    model = config.model
    size = sizes(genotype, model.init_channels, max(num_classes, 2), config.data.image_size, model.stem)
    return {
        "operation_counts": operation_counts(genotype),
        "skip_share": skip_share(genotype),
        "parameters": size["parameters"],
        "multiply_adds": size["multiply_adds"],
    }


def sizes_of(network: nn.Module, image_size: int) -> dict[str, int]:
    """Return the size of a network whose `forward` takes images alone, for one image of image_size x image_size.

    The network may be one without weights, made under `torch.device("meta")`.

    Returns:
        {"parameters", "multiply_adds" (convolutions and linear layers), "elementwise"}. The last is what some tools
        count beside them: two operations an output of BatchNorm, one of each operation's ReLU, one an output of
        pooling, one a product of attention and split.
    """
    elementwise = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal elementwise
        if isinstance(module, ReLUFirst):  # its ReLU, though a cell computes that for several edges at once
            elementwise += inputs[0].numel()
        elif isinstance(module, WeightedSum):
            elementwise += inputs[1].numel()
        else:
            elementwise += output.numel() * (2 if isinstance(module, BatchNorm) else 1)

    counted = BatchNorm | ReLUFirst | nn.ReLU | nn.MaxPool2d | nn.AvgPool2d | WeightedSum
    handles = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, counted)]
    try:
        found = {"parameters": parameters(network), "multiply_adds": multiply_adds(network, image_size)}
    finally:
        for handle in handles:
            handle.remove()
    return found | {"elementwise": elementwise}


def peak_memory(step: Callable[[], object], device: torch.device | str = "cpu") -> int:
    """Return the bytes of tensors that `step` holds at its peak, beyond what was there before it.

    On CUDA the allocator says so; on the CPU every allocation and release that torch makes is added up.
    """
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler announces itself on every use
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def entropy(alpha: Tensor, present: Tensor) -> list[float]:
    """Return, for each cell, the mean entropy of its edges' choice as a share of the greatest, log M: 1 uniform, 0
    fixed.
    """
    log_p = torch.log_softmax(alpha.detach().double(), dim=-1)
    edges = -(log_p.exp() * log_p).sum(-1) / math.log(alpha.shape[-1])  # (cells, 14)
    fixed = present.sum(-1) <= 1
    return edges.masked_fill(fixed, 0.0).mean(-1).tolist()


def certainty(alpha: Tensor) -> dict[str, float]:
    """Return how far alpha (cells, 14, M) has come from a draw by lot, over all edges, pruned or not.

    Returns:
        {"entropy": mean entropy as a share of log M, "best": mean probability of an edge's best candidate, "largest":
        the greatest probability anywhere, "uniform": 1 / M, what all are at the start}.
    """
    p, size = torch.softmax(alpha.detach().double(), dim=-1), alpha.shape[-1]
    edges, best = -torch.special.xlogy(p, p).sum(-1) / math.log(size), p.amax(-1)
    return {
        "entropy": float(edges.mean()),
        "best": float(best.mean()),
        "largest": float(best.max()),
        "uniform": 1 / size,
    }


def operation_shares(alpha: Tensor) -> list[float]:
    """Return the mean probability of each of the M candidates over all edges."""
    return torch.softmax(alpha.detach().double(), dim=-1).mean(dim=(0, 1)).tolist()


def operation_counts(genotype: Genotype) -> dict[str, int]:
    """Return how often each candidate stands in a genotype."""
    found = Counter(name for cell in genotype.cells for name, _ in cell)
    return {name: found[name] for name in CANDIDATES}


def skip_share(genotype: Genotype) -> float:
    """Return the share of a genotype's operations that are skips: near 1 where a search has collapsed."""
    counts = operation_counts(genotype)
    return counts["skip_connect"] / sum(counts.values())
