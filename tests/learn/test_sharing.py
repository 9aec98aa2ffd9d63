"""What is computed does not depend on how many processes share a run."""

from __future__ import annotations

import os

import pytest
import sharing
import torch

from sswp_lib import processes

WITHIN = {"float32": 1e-4, "float64": 1e-9}
THOROUGH = "SSWP_THOROUGH" in os.environ  # everything on four processes, too, which takes minutes
ROUNDED = 1e-6  # accuracies, which are counted in float32


def ends(folder, count: int, kinds: str, *cases: str) -> dict[str, dict[str, torch.Tensor]]:
    """Return what so many processes come to."""
    file = folder / f"{count}.pt"
    started = sharing.start(count, str(file), kinds, *cases)
    said = [process.communicate(timeout=500)[1] for process in started]
    assert [process.returncode for process in started] == [0] * count, "\n".join(said)
    return torch.load(file, weights_only=True)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder, cases = tmp_path_factory.mktemp("alone"), sharing.CASES
    few = sharing.OBJECTIVES if THOROUGH else ["simclr"]
    return ends(folder, 1, "float64", *cases) | ends(folder, 1, "float32", *few, "training")


def furthest(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], *names: str) -> float:
    """Return the greatest difference of what is named so."""
    chosen = [name for name in one if name.split()[0] in names]
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in chosen)


def check(alone, together) -> None:
    for case, found in together.items():
        expected, within = alone[case], WITHIN[case.split(", ")[1]]
        assert found.keys() == expected.keys(), case
        assert furthest(found, expected, "losses", "weights") <= within, case
        assert furthest(found, expected, "accuracies") <= ROUNDED, case
        for name, value in found.items():
            if name.split()[0] in ("kept", "judged", "genotype"):
                torch.testing.assert_close(value, expected[name], rtol=10 * within, atol=within, msg=f"{case}: {name}")


@pytest.mark.parametrize("count", [2, 4])
def test_steps_weights_and_result_are_those_of_one_process(alone, tmp_path, count):
    """30 steps of each objective, on the weights and on alpha, while every cell is pruned; 15 images a step, which
    neither 2 nor 4 processes share evenly.
    """
    whole = THOROUGH or count == 2
    together = ends(tmp_path, count, "float64", *(sharing.OBJECTIVES if whole else ["simclr"]))
    assert len(together["simclr, float64"]["losses"]) > sharing.STEPS  # steps on alpha are among them
    check(alone, together)
    check(alone, ends(tmp_path, count, "float32", *sharing.OBJECTIVES) if THOROUGH else {})


def test_whatever_else_is_shared_is_that_of_one_process(alone, tmp_path):
    others = [case for case in sharing.CASES if case not in sharing.OBJECTIVES]
    check(alone, ends(tmp_path, 2, "float64", *others))


def test_in_float32_too(alone, tmp_path):
    check(alone, ends(tmp_path, 2, "float32", "simclr", "training"))


def test_what_is_easily_done_wrong_is_seen(alone, tmp_path):
    expected = alone["simclr, float64"]["losses"]
    for wrong, found in ends(tmp_path, 2, "float64", *sharing.WRONG).items():
        losses = found["losses"]
        assert float((losses - expected[: len(losses)]).abs().max()) > 1e3 * WITHIN["float64"], wrong


@pytest.mark.parametrize(("whole", "count"), [(15, 4), (96, 4), (7, 3), (2, 4), (5, 1)])
def test_rows_are_shared_out_evenly_and_each_once(monkeypatch, whole, count):
    monkeypatch.setattr(processes, "count", lambda: count)
    shares = []
    for k in range(count):
        monkeypatch.setattr(processes, "rank", lambda k=k: k)
        shares.append(processes.rows(whole))
    batch = torch.arange(whole)
    assert torch.equal(torch.cat([rows.of(batch) for rows in shares]), batch)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_alone_nothing_is_changed_or_copied():
    x = torch.randn(4, 3, requires_grad=True)
    assert processes.gathered(x) == (x, 0) and processes.added(x) is x and processes.first()
    assert processes.summed([x], {"loss": x}) == {"loss": x}
    assert processes.agreed(lambda: x) is x
