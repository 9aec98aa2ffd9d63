"""A loop that is left anywhere and taken up by a new one ends as one that was never left."""

from collections.abc import Callable
from pathlib import Path

import torch

from sswp_lib.learn.loop import Loop


def run(loop: Loop) -> Loop:
    for _ in loop.advance():
        pass
    return loop


def left_anywhere(make: Callable[[], Loop], folder: Path) -> int:
    """Leave a loop after each step, before an epoch's row and after it, by way of a file each time; check that history,
    result and weights are bitwise those of the whole. Returns at how many places.
    """
    places, whole = [], make()
    for progress in whole.advance():
        places.append(folder / f"{progress.epoch}-{progress.step}-{progress.row is None}")
        torch.save(whole.state(), places[-1])
    result, weights = whole.finish()
    for place in places:
        resumed = make()
        resumed.restore(torch.load(place, weights_only=True))
        again, others = run(resumed).finish()
        assert (resumed.history, again) == (whole.history, result), place
        assert weights.keys() == others.keys() and all(torch.equal(t, others[name]) for name, t in weights.items())
    return len(places)
