"""What buys alpha's signal: what was measured once, on one core, by benchmarks/alpha_signal.py, which says how.

The measurements lie in signal.json beside this file, each with the preset and the settings that it was made at.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

import pandas as pd

from sswp_lib.config import InputError, suggest
from sswp_lib.paper.learnt import interval

BASE = "two candidates an edge"  # the paper's


@cache
def measured(what: str) -> dict[str, Any]:
    """Return the measurement "steps", "zero" or "searches" as it lies in the file; InputError names what there is."""
    every = json.loads(resources.files("sswp_lib.paper").joinpath("signal.json").read_text())
    if what not in every:
        raise InputError(f"nothing measured of {what!r}{suggest(what, every)}")
    return every[what]


def steps() -> pd.DataFrame:
    """Return a row a kind of architecture step: the squared signal-to-noise ratio s^2 of what it says of an entry, how
    many of the entries it says something of, its time, and s^2 a second, shares counted in, as multiples of those of
    the paper's two candidates: of architecture steps alone, and of a search with one after every, or every fifth,
    weight step.
    """
    found = measured("steps")
    mean = pd.DataFrame(found["rows"]).groupby("variant", sort=False)[["s2", "share", "seconds"]].mean()
    rates = {
        weight_steps: mean["s2"] * mean["share"] / (mean["seconds"] + weight_steps * found["weight step"])
        for weight_steps in (0, 1, 5)  # to each architecture step
    }
    relative = {n: (rate / rate[BASE]).round(2) for n, rate in rates.items()}
    return pd.DataFrame(
        {"s^2 of a step": mean["s2"].round(4), "entries sampled (%)": (100 * mean["share"]).round(1)}
        | {"ms": (1000 * mean["seconds"]).round(1), "a second of such steps": relative[0]}
        | {"a second of search, each weight step": relative[1], "each fifth": relative[5]}
    ).reset_index(names="architecture step")


def searches() -> pd.DataFrame:
    """Return a row a setting of alpha's steps: how far whole searches of several seeds agree by it."""
    rows = measured("searches")["rows"]
    return pd.DataFrame(
        {"searches by": r["variant"], "n": r["searches"], "updates of an entry": round(r["updates"])}
        | {"entries correlate": interval(tuple(r["entries"])), "operations' means": interval(tuple(r["operations"]))}
        | {"entropy of alpha": round(r["entropy"], 3)}
        for r in rows
    )


def conditions(what: str) -> str:
    """Return in words at what a measurement was made."""
    found = measured(what)
    made = [f"preset {found['preset']}", *found["set"], f"{found['seeds']} seeds"]
    if what != "searches":
        made += [f"{found['steps']} steps of each kind at weights of {found['warm_up']} epochs"]
    return ", ".join(made)


def harm() -> str:
    """Return in words on how many edges an operation that returns zero truly does harm."""
    found = measured("zero")
    return (
        f"At weights that are held ({conditions('zero')}), zero's mean gradient lowers its alpha beyond two standard "
        f"errors on {found['harm']} of {found['edges']} edges, raises it on {found['use']}, and does neither on the "
        "others."
    )
