"""One run on several processes: who computes which rows of a batch, and how they agree.

Paper: section 4.1 and appendix A (distributed data parallelism, synchronised BatchNorm). `torchrun` starts the
processes; `together` makes them one group. Every process holds all weights and draws every random number, of the whole
batch, and computes its own rows of it; so what is computed does not depend on their number but for the order of
summation. A loss is a process's own part of the batch's mean, so that the parts add up to it and gradients are added up
over the processes: through BatchNorm (`batch_norm`), through whatever compares the rows of a batch with one another
(`gathered`), and last of all those of the weights (`summed`).

Alone, in a process without a group, each of these is the identity and costs nothing.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.modules._functions import SyncBatchNorm  # nn.SyncBatchNorm is a layer with statistics of its own

from sswp_lib.settings import InputError, RunError

T = TypeVar("T")
LONG = timedelta(days=30)  # for which processes wait while the first one decodes images or waits for a run's lock; ours


def asked_for() -> int:
    """Return how many processes `torchrun` has started for what runs here; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", 1))


@contextmanager
def together(device: str | None = None) -> Iterator[str | None]:
    """Within this, the processes that `torchrun` has started are one group. Gives this one's device; alone, the device
    that was given.

    Raises:
        InputError: a number of a CUDA device, where there are several processes, or fewer devices than processes.
    """
    if asked_for() == 1:
        yield device
        return
    cuda = torch.cuda.is_available() if device is None else device.startswith("cuda")
    if cuda:
        device = _own_card(device)
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")
    signal.signal(signal.SIGTERM, _told_to_end)  # what torchrun sends where another process has ended
    yield device or "cpu"
    _control.cache_clear()  # not after an error: then `says` has yet to ask
    dist.destroy_process_group()


def _own_card(device: str | None) -> str:
    place, there = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
    if device not in (None, "cuda"):
        raise InputError(
            f"device {device!r} with {asked_for()} processes; expected 'cuda', of which each takes its own, or 'cpu'"
        )
    if place >= there:
        raise InputError(
            f"process {place + 1} of this machine has no CUDA device of its own, for there are {there}; start at most "
            f"so many (--nproc-per-node {there}), or give --device cpu"
        )
    return f"cuda:{place}"


def count() -> int:
    """Return the number of processes; 1 without a group, and `by_itself`."""
    return dist.get_world_size() if dist.is_initialized() and not _by_itself.get() else 1


def rank() -> int:
    """Return this process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() and not _by_itself.get() else 0


_by_itself: ContextVar[bool] = ContextVar("by_itself", default=False)


def by_itself(do: Callable[[], T]) -> T:
    """Return what `do` gives where this process computes it all, as if there were no others."""
    token = _by_itself.set(True)
    try:
        return do()
    finally:
        _by_itself.reset(token)


def first() -> bool:
    """Return whether this is the process that writes and speaks."""
    return rank() == 0


@dataclass(frozen=True)
class Rows:
    """Which rows of a batch this process computes: from `start` to before `stop`, of `whole`."""

    start: int
    stop: int
    whole: int

    def __len__(self) -> int:
        return self.stop - self.start

    def of(self, batch: Tensor) -> Tensor:
        """Return these rows of a batch (whole, ...)."""
        return batch[self.start : self.stop]

    def parts(self, loss: Tensor, metrics: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return of means over these rows their parts of the means over the batch, which the processes' add up to."""
        if len(self) == self.whole:
            return loss, metrics
        share = len(self) / self.whole
        return loss * share, {name: value * share for name, value in metrics.items()}


def rows(whole: int) -> Rows:
    """Return this process's rows of a batch of so many: as even a share as there is."""
    return Rows(whole * rank() // count(), whole * (rank() + 1) // count(), whole)


def agreed(decide: Callable[[], T]) -> T:
    """Return on every process what `decide` gives on the first, which alone calls it; or raise what it raises there."""
    if count() == 1:
        return decide()
    told: list[Any] = [None, None]
    if first():
        try:
            told[0] = decide()
        except Exception as error:
            told[1] = error
    with _parting():
        dist.broadcast_object_list(told, src=0, group=_control())
    if told[1] is not None:
        raise told[1]
    return told[0]


@lru_cache(maxsize=1)
def _control() -> dist.ProcessGroup:
    """Return the group in which processes wait for what the first one decides, however long that takes."""
    return dist.new_group(backend="gloo", timeout=LONG)


class Parted(RunError):
    """Another of the processes that share a run is gone, and so is the run."""

    def __init__(self, why: str):
        super().__init__(
            f"one of the {count()} processes that share this run has ended or cannot be reached ({why}); the same "
            "command goes on from the last checkpoint"
        )


def _told_to_end(*_: object) -> None:
    raise Parted("torchrun, or whoever manages this machine, tells the others to end")


@contextmanager
def _parting():
    """A collective that fails does so because another process is gone."""
    try:
        yield
    except RuntimeError as error:
        raise Parted(str(error).strip().splitlines()[0][:120]) from None


def says(error: Exception) -> bool:
    """Return whether this process is the one to say what it ends with: of several that end alike, the first that asks;
    whoever cannot ask speaks.
    """
    if not dist.is_initialized():
        return os.environ.get("RANK", "0") == "0"
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it comes to all where one has ended, and would be said too
    alike = type(error).__name__ if isinstance(error, Parted) else str(error)
    try:
        return dist.distributed_c10d._get_default_store().add(f"said {alike}", 1) == 1
    except (RuntimeError, ValueError):
        return True


def added(x: Tensor) -> Tensor:
    """Return the sum of the processes' x, of equal shape; out of reach of gradients."""
    if count() == 1:
        return x
    x = x.detach().clone(memory_format=torch.contiguous_format)
    with _parting():
        dist.all_reduce(x)
    return x


def same(x: Tensor) -> None:
    """Replace x by the first process's, to the bit."""
    if count() > 1:
        with _parting(), torch.no_grad():
            dist.broadcast(x, src=0)


def summed(gradients: Sequence[Tensor], metrics: dict[str, Tensor]) -> dict[str, Tensor]:
    """Replace each gradient by the sum of the processes' own, and return the sums of their metrics: all in one message.

    Alone, the metrics as they are.
    """
    if count() == 1:
        return metrics
    everything = [*gradients, *metrics.values()]
    kind = max((full(t.new_empty(0)).dtype for t in everything), key=lambda dtype: dtype.itemsize)
    flat = added(torch.cat([t.detach().reshape(-1).to(kind) for t in everything]))
    parts = flat.split([t.numel() for t in everything])
    for gradient, part in zip(gradients, parts, strict=False):
        gradient.copy_(part.view(gradient.shape))
    return {name: part.view(()) for name, part in zip(metrics, parts[len(gradients) :], strict=True)}


def gathered(x: Tensor) -> tuple[Tensor, int]:
    """Return all processes' rows x (n, ...), one process after the other, (N, ...), and where this one's own begin.

    Gradients flow back to every process's rows from all that were computed of them, anywhere.
    """
    if count() == 1:
        return x, 0
    sizes = _all(torch.tensor([len(x)], device=x.device)).flatten().tolist()
    return _Gathered.apply(x, sizes), sum(sizes[: rank()])


def _all(x: Tensor) -> Tensor:
    """Return the processes' x, of equal shape, stacked."""
    x = x.contiguous()
    found = [torch.empty_like(x) for _ in range(count())]
    with _parting():
        dist.all_gather(found, x)
    return torch.stack(found)


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, sizes: list[int]) -> Tensor:
        ctx.sizes = sizes
        padded = x.new_zeros(max(sizes), *x.shape[1:])
        padded[: len(x)] = x
        return torch.cat([part[:size] for part, size in zip(_all(padded), sizes, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        return added(grad).split(ctx.sizes)[rank()], None


def batch_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise x (n, C, ...) by the mean and variance of each channel over all processes' rows: torch's synchronised
    BatchNorm on CUDA; on the CPU, where torch has none, our own.

    Returns:
        The normalised x, scaled and shifted; mean and unbiased variance of each channel, (C,), without gradients.
    """
    if not x.is_cuda:
        return _BatchNorm.apply(x, weight, bias, eps)
    channels = x.shape[1]
    weight = x.new_ones(channels, dtype=torch.float32) if weight is None else weight
    bias = torch.zeros_like(weight) if bias is None else bias
    mean, var = torch.zeros_like(weight), torch.zeros_like(weight)  # a running mean of momentum 1 is the batch's own
    layout = torch.channels_last if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last) else None
    x = x.contiguous(memory_format=layout or torch.contiguous_format)
    y = SyncBatchNorm.apply(x, weight, bias, mean, var, eps, 1.0, dist.group.WORLD, count())
    return y, mean, var


@lru_cache(maxsize=1)
def keep_from_compiler() -> None:
    """Messages between processes are not compiled. Said where something is, for the compiler takes seconds to load."""
    global batch_norm
    batch_norm = torch.compiler.disable(batch_norm)


class _BatchNorm(torch.autograd.Function):
    """One message each way: of the processes' means and variances, and of the two sums that the gradient is made of."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float):
        values, others = full(x), [d for d in range(x.dim()) if d != 1]
        own, channels = values.numel() // x.shape[1], x.shape[1]
        var, mean = torch.var_mean(values, others, correction=0) if own else (values.new_zeros(channels),) * 2
        stats = _all(torch.cat([mean, var, mean.new_tensor([own])])).double()  # (P, 2 C + 1)
        means, variances, counts = stats[:, :channels], stats[:, channels:-1], stats[:, -1:]
        total = counts.sum()
        mean = (means * counts).sum(0) / total
        var = ((variances + (means - mean) ** 2) * counts).sum(0) / total
        ctx.total, ctx.eps, ctx.affine = float(total), eps, weight is not None
        unbiased = (var * total / (total - 1).clamp(min=1)).to(values.dtype)
        mean, var = mean.to(values.dtype), var.to(values.dtype)
        ctx.save_for_backward(x, mean, var, weight)
        y = torch.nn.functional.batch_norm(x, mean, var, weight, bias, False, 0.0, eps)
        ctx.mark_non_differentiable(mean, unbiased)
        return y, mean, unbiased

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor, *_: Any):
        x, mean, var, weight = ctx.saved_tensors
        shape, others = [1, -1] + [1] * (x.dim() - 2), [d for d in range(x.dim()) if d != 1]
        inverse = (var + ctx.eps).rsqrt().view(shape)
        grad, standard = full(grad), (full(x) - mean.view(shape)) * inverse
        to_bias, to_weight = grad.sum(others), (grad * standard).sum(others)
        sums = added(torch.cat([to_bias, to_weight])) / ctx.total
        of_grad, of_product = (part.view(shape) for part in sums.chunk(2))
        scale = inverse if weight is None else inverse * weight.view(shape)
        to_x = ((grad - of_grad - standard * of_product) * scale).to(x.dtype)
        return to_x, *((to_weight, to_bias) if ctx.affine else (None, None)), None


def full(x: Tensor) -> Tensor:
    """Return x in float32, or in float64 where it is that: what losses and statistics are computed in, whatever the
    autocast.
    """
    return x.to(torch.promote_types(x.dtype, torch.float32))
