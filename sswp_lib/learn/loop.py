"""What search and training share: epochs and steps that can be left and taken up again at any step.

A loop writes no file. It yields after every step, hands out its whole state as tensors and plain data, and goes on from
one; whoever drives it decides when to keep it. Random numbers come from (seed, purpose, epoch, step), so the state
holds none.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from sswp_lib import processes
from sswp_lib.config import Config, InputError, RunError
from sswp_lib.learn.data import generator

# noted numbers (two a step, mostly) between looks at the loss on an accelerator, where each look waits for it; ours
CHECK_EVERY = 25
MOST_COMPILED = 512  # variants of one operation's code: kinds, widths, sizes of maps, with gradients and without; ours


@dataclass(frozen=True)
class Progress:
    """Where a loop is. `row` is the epoch's line of history, after its last step; else None."""

    epoch: int
    epochs: int
    step: int
    steps: int
    phase: str
    loss: float
    accuracy: float
    pruned: int | None = None
    cells: int | None = None
    row: dict[str, Any] | None = None


class Loop:
    """Runs `num_epochs` epochs of `num_steps` steps; subclasses say what a step is.

    Attributes:
        epoch, step: what comes next. lr: of the last step. history: one row for each finished epoch.
        shared: whether several processes can share it; then each must be given a row of every batch at least.
    """

    shared = False
    num_epochs: int
    num_steps: int

    def __init__(self, config: Config):
        self.config = config
        self.epoch = self.step = 0
        self.lr = math.nan
        self.history: list[dict[str, Any]] = []
        self._sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0])  # metric -> sum, count
        self._unread: list[tuple[str, Tensor]] = []

    def begin_epoch(self) -> None:
        """Called before the first step of an epoch."""

    def train_step(self) -> None:
        """Do step (self.epoch, self.step); `record` its metrics."""
        raise NotImplementedError

    def end_epoch(self) -> dict[str, Any]:
        """Return what the epoch's row says beside its metrics."""
        return {}

    def describe(self) -> dict[str, Any]:
        """Return the fields of Progress that only this loop knows."""
        return {"phase": ""}

    def shown(self) -> dict[str, Any]:
        """Return what is shown of the loop as it stands to whoever looks on, as plain data: what its history lacks.

        A search by alpha gives "candidates", the M names; "alpha", (cells, 14, M), or (2, 14, M) where cells share it;
        and "genotype", the cells that it stands for. Others give nothing.
        """
        return {}

    def advance(self) -> Iterator[Progress]:
        """Go on to the end; yields after every step, and once more after each epoch with its row."""
        while self.epoch < self.num_epochs:
            if self.step == 0:
                self.begin_epoch()
            while self.step < self.num_steps:
                self.train_step()
                self.step += 1
                yield self._progress()
            self.read_metrics()
            row = {
                "epoch": self.epoch,
                **{k: s / n for k, (s, n) in self._sums.items()},
                "lr": self.lr,
                **self.end_epoch(),
            }
            self.history.append(row)
            self._sums.clear()
            progress = self._progress(row)
            self.epoch, self.step = self.epoch + 1, 0
            yield progress

    def _progress(self, row: dict[str, Any] | None = None) -> Progress:
        seen = row or {k: s / n for k, (s, n) in self._sums.items()}
        return Progress(
            self.epoch, self.num_epochs, self.step, self.num_steps, loss=seen.get("loss", math.nan),
            accuracy=seen.get("accuracy", math.nan), row=row, **self.describe()
        )  # fmt: skip

    def record(self, **metrics: Tensor) -> None:
        """Note a step's metrics for the epoch's means; a loss that is not finite ends the run."""
        self._unread += [(name, value.detach()) for name, value in metrics.items()]
        first = next(iter(metrics.values()))
        if first.device.type == "cpu" or len(self._unread) >= CHECK_EVERY:
            self.read_metrics()

    def read_metrics(self) -> None:
        """Bring the noted metrics from the device; raises RunError at a loss that is not finite."""
        if not self._unread:
            return
        values = torch.stack([value.double() for _, value in self._unread]).tolist()
        for (name, _), value in zip(self._unread, values, strict=True):
            if not math.isfinite(value):
                raise RunError(
                    f"{name} became {value} in epoch {self.epoch} at or shortly before step {self.step}; try "
                    "a lower lr or grad_clip (the last checkpoint is from before)"
                )
            self._sums[name][0] += value
            self._sums[name][1] += 1
        self._unread.clear()

    def descend(self, loss: Tensor, metrics: dict[str, Tensor]) -> None:
        """Do an SGD step on the weights that the loss reaches, their gradient clipped; the caller has set all gradients
        to None. For loops that have an `optimizer`, a `scale` (`loss_scale`) and settings with `grad_clip`.
        """
        self.scale.scale(loss).backward()
        reached = [p for p in self.optimizer.param_groups[0]["params"] if p.grad is not None]
        noted = processes.summed([p.grad for p in reached], {"loss": loss, **metrics})
        self.scale.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(reached, self.settings.grad_clip, foreach=True)
        self.record(**noted)
        self.scale.step(self.optimizer)
        self.scale.update()

    def state(self) -> dict[str, Any]:
        """Return everything that going on needs, as tensors and plain data."""
        self.read_metrics()
        return {
            "epoch": self.epoch,
            "step": self.step,
            "lr": self.lr,
            "history": self.history,
            "sums": dict(self._sums),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a state that `state` gave."""
        self.epoch, self.step, self.lr, self.history = state["epoch"], state["step"], state["lr"], state["history"]
        self._sums.clear()
        self._sums.update(state["sums"])

    def set_lr(
        self, optimizer: torch.optim.Optimizer, lr: float, min_lr: float, schedule: str, epochs: int | None = None
    ) -> None:
        """Cosine from lr to min_lr over the run, or again over so many `epochs` each, advancing by epoch or by step."""
        whole = epochs or self.num_epochs
        done = self.epoch % whole + (0 if schedule == "epoch" else self.step / self.num_steps)
        self.lr = min_lr + (lr - min_lr) * (1 + math.cos(math.pi * done / whole)) / 2
        for group in optimizer.param_groups:
            group["lr"] = self.lr


def optimizer_state(optimizer: torch.optim.Optimizer, names: dict[str, nn.Parameter]) -> dict[str, dict[str, Tensor]]:
    """Return the optimiser's state by parameter name, so that it survives pruning."""
    return {name: dict(optimizer.state[p]) for name, p in names.items() if optimizer.state.get(p)}


def restore_optimizer(
    optimizer: torch.optim.Optimizer, names: dict[str, nn.Parameter], state: dict[str, dict[str, Tensor]]
) -> None:
    for name, entries in state.items():
        optimizer.state[names[name]] = {k: v.to(names[name].device) if v.dim() else v for k, v in entries.items()}


@contextmanager
def frozen(parameters: Iterable[nn.Parameter]):
    """Nothing flows into these parameters meanwhile."""
    parameters = list(parameters)
    try:
        for p in parameters:
            p.requires_grad_(False)
        yield
    finally:
        for p in parameters:
            p.requires_grad_(True)


@contextmanager
def seeded(seed: int, *purpose: str | int):
    """Torch's own generator seeded for one purpose (initial weights), and put back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(seed, *purpose).initial_seed())
        yield


M = TypeVar("M", bound=nn.Module)


def placed(model: M, config: Config, device: torch.device | str) -> M:
    """Return the model on its device, in the layout that convolutions are fastest in; where `model.compiled`, each of
    its operations is compiled when it first runs, once for each size of its maps.

    Raises:
        InputError: torch.compile finds no compiler here.
    """
    model = model.to(device, memory_format=torch.channels_last)
    if config.model.compiled:
        _check_compiler(str(device))
        processes.keep_from_compiler()
        torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit = MOST_COMPILED
        for operations in model.modules():
            if isinstance(operations, nn.ModuleDict):
                for operation in operations.children():
                    operation.compile(dynamic=False)
    return model


@lru_cache
def _check_compiler(device: str) -> None:
    try:
        torch.compile(torch.sin)(torch.ones(1, device=device))
    except Exception as error:  # whatever its parts raise
        said = str(error).strip().splitlines()[0][:120]
        raise InputError(
            f"model.compiled is set, but torch.compile does not work on {device} ({type(error).__name__}: {said}); "
            "expected a C++ compiler on a CPU, Triton on CUDA, or model.compiled=false"
        ) from None


def precision(config: Config, device: torch.device) -> torch.autocast:
    """Return the context of everything that a model computes: steps, calibration and evaluation alike."""
    kind = torch.float16 if config.model.precision == "float16" else torch.bfloat16
    return torch.autocast(device.type, kind, enabled=config.model.precision != "float32")


def loss_scale(config: Config, device: torch.device) -> torch.amp.GradScaler:
    """Return what scales losses, so that gradients in float16 do not vanish; with another precision it does nothing.

    A step in which a gradient is not finite is left out, and the scale halved.

    Raises:
        InputError: bfloat16 on a card that has none.
    """
    if config.model.precision == "bfloat16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(False):
        raise InputError(
            f"model.precision bfloat16 is more than {torch.cuda.get_device_name(device)} can; expected float16 there, "
            "or float32"
        )
    return torch.amp.GradScaler(device.type, enabled=config.model.precision == "float16")
