"""What was measured once of alpha's signal is shown as it lies in the file, and compared by the second."""

from __future__ import annotations

import pytest

from sswp_lib.config import InputError
from sswp_lib.paper import signal

KEPT = {
    "steps": {
        "preset": "quick", "set": [], "seeds": 2, "steps": 500, "warm_up": 60, "weight step": 0.02,
        "rows": [
            {"variant": "two candidates an edge", "seed": 0, "s2": 0.02, "share": 0.25, "seconds": 0.02},
            {"variant": "all 7 candidates", "seed": 0, "s2": 0.05, "share": 1.0, "seconds": 0.04},
            {"variant": "two candidates an edge", "seed": 1, "s2": 0.04, "share": 0.25, "seconds": 0.02},
            {"variant": "all 7 candidates", "seed": 1, "s2": 0.07, "share": 1.0, "seconds": 0.04},
        ],
    },
    "zero": {"preset": "quick", "set": [], "seeds": 2, "steps": 9, "warm_up": 6, "edges": 84, "harm": 60, "use": 3},
    "searches": {
        "preset": "quick", "set": ["search.epochs=40"], "seeds": 4,
        "rows": [{
            "variant": "as the preset", "searches": 4, "entries": [0.5, 0.4, 0.6], "operations": [0.9, 0.8, 0.95],
            "updates": 100.4, "entropy": 0.91,
        }],
    },
}  # fmt: skip


@pytest.fixture
def kept(monkeypatch):
    monkeypatch.setattr(signal, "measured", KEPT.__getitem__)


def test_steps_are_compared_by_what_a_second_of_them_says(kept):
    """s^2 0.03 and 0.06, shares 1/4 and 1: eight times as much for 40 ms in place of 20, alone; for 60 in place of 40
    after each weight step of 20 ms; for 140 in place of 120 after each fifth.
    """
    table = signal.steps().set_index("architecture step")
    both = table.loc["all 7 candidates"]
    assert both["s^2 of a step"] == 0.06 and both["entries sampled (%)"] == 100 and both["ms"] == 40
    ratios = both[["a second of such steps", "a second of search, each weight step", "each fifth"]].tolist()
    assert ratios == pytest.approx([4.0, 16 / 3, 48 / 7], abs=0.01)
    assert (table.iloc[0, 3:] == 1).all()


def test_searches_stand_with_their_intervals_and_conditions(kept):
    row = signal.searches().iloc[0]
    assert row["entries correlate"] == "0.50 [0.40, 0.60]" and row["updates of an entry"] == 100 and row["n"] == 4
    assert signal.conditions("searches") == "preset quick, search.epochs=40, 4 seeds"
    assert signal.conditions("steps").endswith("500 steps of each kind at weights of 60 epochs")


def test_harm_of_zero_is_said_with_its_numbers(kept):
    assert "on 60 of 84 edges, raises it on 3" in signal.harm()


def test_what_was_not_measured_is_refused():
    with pytest.raises(InputError, match="nothing measured of 'stepps'; did you mean 'steps'"):
        signal.measured("stepps")


@pytest.mark.parametrize("make", [signal.steps, signal.searches, signal.harm])
def test_the_file_that_is_kept_has_all_of_it(make):
    assert len(make()) > 3
