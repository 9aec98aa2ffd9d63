"""What search and training share, on a loop of three epochs of four steps that only counts."""

from __future__ import annotations

import math
from copy import deepcopy

import pytest
import torch
from torch import nn

from sswp_lib.config import Config, RunError
from sswp_lib.learn.loop import Loop, frozen, optimizer_state, precision, restore_optimizer, seeded


class Counting(Loop):
    """Step i of epoch e has loss 10 e + i, and an accuracy in every second step."""

    num_epochs, num_steps = 3, 4

    def __init__(self):
        super().__init__(Config())
        self.begun: list[int] = []
        self.bad: tuple[int, int, float] | None = None

    def begin_epoch(self) -> None:
        self.begun.append(self.epoch)

    def train_step(self) -> None:
        loss = 10.0 * self.epoch + self.step
        if self.bad is not None and self.bad[:2] == (self.epoch, self.step):
            loss = self.bad[2]
        self.record(loss=torch.tensor(loss), **({"accuracy": torch.tensor(0.5)} if self.step % 2 else {}))
        self.lr = 1.0 / (1 + self.epoch)

    def end_epoch(self) -> dict:
        return {"note": self.epoch}

    def describe(self) -> dict:
        return {"phase": f"phase {self.epoch}"}


def test_progress_tells_where_the_loop_is_and_the_epochs_means_so_far():
    loop = Counting()
    seen = list(loop.advance())
    assert [p.row is None for p in seen] == [True, True, True, True, False] * 3
    assert [(p.epoch, p.step) for p in seen] == [(e, s) for e in range(3) for s in (1, 2, 3, 4, 4)]
    assert {(p.epochs, p.steps) for p in seen} == {(3, 4)}
    assert [p.phase for p in seen] == [f"phase {e}" for e in range(3) for _ in range(5)]
    assert [p.loss for p in seen] == [10 * e + mean for e in range(3) for mean in (0, 0.5, 1, 1.5, 1.5)]
    assert math.isnan(seen[0].accuracy) and [p.accuracy for p in seen[1:5]] == [0.5] * 4
    assert loop.begun == [0, 1, 2]
    assert (loop.epoch, loop.step) == (3, 0) and list(loop.advance()) == []


def test_history_has_each_epochs_means_and_what_the_loop_adds():
    loop = Counting()
    rows = [p.row for p in loop.advance() if p.row]
    assert rows == loop.history
    assert loop.history == [
        {"epoch": e, "loss": 10 * e + 1.5, "accuracy": 0.5, "lr": 1 / (1 + e), "note": e} for e in range(3)
    ]


@pytest.mark.parametrize("count", range(1, 15))
def test_a_state_taken_anywhere_goes_on_to_the_same_end(count):
    whole, left, resumed = Counting(), Counting(), Counting()
    list(whole.advance())
    going = left.advance()
    for _ in range(count):
        next(going)
    resumed.restore(left.state())
    assert [p.loss for p in resumed.advance()] == [10 * e + m for e in range(3) for m in (0, 0.5, 1, 1.5, 1.5)][count:]
    assert resumed.history == whole.history
    first = count // 5 + (count % 5 > 0)  # an epoch that has begun does not begin again
    assert resumed.begun == list(range(first, 3))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_ends_the_run_and_is_named(value):
    loop = Counting()
    loop.bad = (1, 2, value)
    with pytest.raises(RunError, match=f"^loss became {value} in epoch 1 at or shortly before step 2; try") as error:
        list(loop.advance())
    assert "\n" not in str(error.value) and len(loop.history) == 1


def test_nothing_flows_into_frozen_parameters():
    one, two = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    with pytest.raises(ZeroDivisionError), frozen(p for p in (one,)):
        assert not one.requires_grad and two.requires_grad
        raise ZeroDivisionError
    assert one.requires_grad and two.requires_grad


def test_a_seed_and_a_purpose_give_the_same_draws_and_leave_no_trace():
    def draw(*what):
        with seeded(*what):
            return float(torch.rand(()))

    torch.manual_seed(3)
    before = torch.get_rng_state()
    found = [draw(0, "a"), draw(0, "a"), draw(1, "a"), draw(0, "b"), draw(0, "a", 1)]
    assert found[0] == found[1] and len(set(found)) == 4
    assert torch.equal(torch.get_rng_state(), before)


def test_an_optimisers_state_goes_by_name():
    """What has no state has no entry; and it is taken up by other parameters of the same names, in another order."""
    parameters = {"a": nn.Parameter(torch.ones(2)), "b": nn.Parameter(torch.ones(3)), "c": nn.Parameter(torch.ones(1))}
    optimizer = torch.optim.Adam(parameters.values(), lr=0.1)
    for name in ("a", "b"):
        parameters[name].grad = torch.full_like(parameters[name], 2.0)
    optimizer.step()
    state = optimizer_state(optimizer, parameters)
    assert set(state) == {"a", "b"} and set(state["a"]) == {"step", "exp_avg", "exp_avg_sq"}
    again = {name: nn.Parameter(parameters[name].detach().clone()) for name in ("c", "b", "a")}
    other = torch.optim.Adam(again.values(), lr=0.1)
    restore_optimizer(other, again, deepcopy(state))
    for own, copy in ((parameters, optimizer), (again, other)):
        for name in ("a", "b", "c"):
            own[name].grad = torch.full_like(own[name], 3.0)
        copy.step()
    assert all(torch.equal(parameters[name], again[name]) for name in parameters)


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_precision_is_the_configurations(name):
    config = Config().changed(**{"model.precision": name})
    with precision(config, torch.device("cpu")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == getattr(torch, name)
