"""Has alpha learnt? What several searches of one configuration say of it, each by itself and all beside one another.

Each search's record has the way of its alpha beside a random walk (see `learn.evidence`). Between searches, alpha is
centred by edge, for only differences between candidates mean anything, and correlated: of all entries, and of the
operations' means over all edges. What two seeds have in common is what a third would find too; the rest is noise, or
what each seed's own weights want.

Relaxed searches have no walk to be set beside: an update of theirs moves every entry along a gradient that all share.
What their seeds have in common is measured in the same way, of the logarithm of the mixture's weights. Entries of one
search may depend on one another there, so that the probability by lot is about right and no more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from math import nan
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from sswp_lib.config import InputError, digest
from sswp_lib.paper.effects import ALPHA, student
from sswp_lib.runs import records
from sswp_lib.runs.records import Record
from sswp_lib.space import CANDIDATES, EDGES

WHOLE = "all cells"
FROM_INPUTS = np.array([source < 2 for source, _ in EDGES])  # (14,): edges from a cell's two inputs, not from its nodes
INPUTS_OF = [sum(node == to for _, to in EDGES) for node in range(2, 6)]  # how many edges may enter each node
INNER_BY_LOT = sum(2 * (n - 2) / n for n in INPUTS_OF) / 8  # share of a genotype's edges, two a node, from inner nodes
LEAST = 0.5e-5  # of a weight in a mixture, which records keep to five digits


def alphas(searches: Sequence[Record]) -> np.ndarray:
    """Return alpha at the end of each search, centred by edge: (searches, cells, 14, M); of relaxed searches, whose
    cells share it, (searches, 2, 14, M).

    Raises:
        InputError: searches of different shapes, or one whose record does not tell its alpha.
    """
    told = [_alpha(record) for record in searches]
    if any(value is None for value in told):
        silent = next(record.name for record, value in zip(searches, told, strict=True) if value is None)
        raise InputError(f"the record of {silent} does not tell its alpha; remove it to have it made anew")
    values = [value for value in told if value is not None]
    shapes = {value.shape for value in values}
    if len(shapes) != 1:
        raise InputError(f"alpha has the shapes {sorted(shapes)}; expected searches of one configuration")
    return np.stack([value - value.mean(-1, keepdims=True) for value in values])


def _alpha(record: Record) -> np.ndarray | None:
    """Return a search's alpha but for what is common to an edge's candidates; None where its record has none.

    A relaxed search keeps no walk of its alpha, but the mixture's weights: their logarithm is alpha less a constant of
    the edge, which centring takes away. A weight that was rounded to 0 counts as half of the last digit.
    """
    if "evidence" in record.result:
        return np.array(record.result["evidence"]["alpha"])
    if "mixture" in record.result:
        return np.log(np.clip(np.array(record.result["mixture"]["weights"]), LEAST, None))
    return None


def correlations(values: np.ndarray) -> list[float]:
    """Return the correlation of every pair of searches' values, (searches, ...); nan where all of one are equal."""
    flat = values.reshape(len(values), -1)
    sizes = np.linalg.norm(flat, axis=1)
    return [float(flat[i] @ flat[j] / (sizes[i] * sizes[j])) if sizes[i] * sizes[j] else nan for i, j in _pairs(flat)]


def _pairs(values: np.ndarray) -> list[tuple[int, int]]:
    return list(combinations(range(len(values)), 2))


def agreement(values: np.ndarray) -> tuple[float, float, float]:
    """Return the mean correlation between two searches with its 95 % interval.

    Pairs share searches, so the interval is a jackknife's over the searches: nan where there are fewer than three.
    """
    n, every = len(values), correlations(values)
    if not every:
        return nan, nan, nan
    mean = float(np.mean(every))
    if n < 3:
        return mean, nan, nan
    left_out = [np.mean([r for r, pair in zip(every, _pairs(values), strict=True) if k not in pair]) for k in range(n)]
    error = np.sqrt((n - 1) / n * np.square(left_out - np.mean(left_out)).sum())
    half = float(stats.t.ppf(1 - ALPHA / 2, n - 1) * error)
    return mean, max(mean - half, -1.0), min(mean + half, 1.0)


def by_entry(searches: Sequence[Record]) -> tuple[float, float, float]:
    """Return how far two searches agree on every entry of alpha: see `agreement`."""
    return agreement(alphas(searches))


def by_operation(searches: Sequence[Record]) -> tuple[float, float, float]:
    """Return how far two searches agree on the operations' means over all edges of all cells."""
    return agreement(alphas(searches).mean(axis=(1, 2)))


def chance(values: np.ndarray) -> float:
    """Return the probability of a mean correlation as great or greater between searches whose alpha went by lot.

    Each edge of the centred values has one degree of freedom less than candidates, and all of them are independent
    then; so is every pair of searches.
    """
    freedom = values[0].size * (1 - 1 / values.shape[-1])
    every = correlations(values)
    return float(stats.norm.sf(np.mean(every) * np.sqrt(freedom * len(every))))


def by_lot(runs: Iterable[str]) -> str:
    """Return why nothing can be said of the architectures that these runs' searches found: because between searches of
    one configuration alpha agrees no better than by chance, whatever the configuration. Empty where it does for one of
    them, or where no configuration has two searches to compare.
    """
    groups: dict[str, list[Record]] = {}
    for name in sorted(runs):
        if name.startswith("search-") and (records.root() / name / "record.json").is_file():
            record = records.read(records.root() / name / "record.json")
            if _alpha(record) is not None:
                groups.setdefault(digest(record.config | {"seed": None}), []).append(record)
    values = [alphas(group) for group in groups.values() if len(group) > 1]
    if not values or min(map(chance, values)) < ALPHA / len(values):
        return ""
    greatest = max(float(np.mean(correlations(value))) for value in values)
    return f"alpha at chance: it correlates with {greatest:.2f} at most between searches that differ in their seed"


def same_weights(searches: Sequence[Record], again: Sequence[Record]) -> dict[str, tuple[float, float, float]]:
    """Return how far alpha agrees between two searches of one seed that differ in what is random in their architecture
    steps alone, of entries and of operations' means: {"entries", "operations": mean, low, high}, Student's interval
    over seeds. Two searches of different seeds agree on less by as much as their weights want other cells.
    """
    pairs = [(one, next(r for r in searches if r.seed == one.seed)) for one in again]
    values = [alphas(pair) for pair in pairs]
    found = {
        "entries": [correlations(value)[0] for value in values],
        "operations": [correlations(value.mean(axis=(1, 2)))[0] for value in values],
    }
    return {name: _with_interval(each) for name, each in found.items()}


def _with_interval(values: list[float]) -> tuple[float, float, float]:
    effect = student(values)
    return effect.mean, max(effect.low, -1.0), min(effect.high, 1.0)


def agreements(searches: Sequence[Record], again: Sequence[Record], preset: str) -> pd.DataFrame:
    """Return a row for each pair of searches' kinds: how far they agree on entries and on operations' means."""
    same = same_weights(searches, again)
    rows = {
        f"other seeds ({len(searches)} searches)": {
            "entries": by_entry(searches),
            "operations": by_operation(searches),
        },
        f"same seed, alpha learnt twice ({len(again)} pairs)": same,
    }
    return pd.DataFrame(
        {"two searches of": name, "entries of alpha correlate": interval(r["entries"])}
        | {"operations' means correlate": interval(r["operations"]), "preset": preset}
        for name, r in rows.items()
    )


def judged_planted(searches: Sequence[Record], preset: str) -> pd.DataFrame:
    """Return a row a candidate of searches with planted ones: its alpha, centred by edge, on how many of the edges it
    lies below the mean of all, the same of the edges from a cell's inputs and of those from its inner nodes, and on how
    many it is the best; shares in percent, over all edges of all searches.
    """
    values, names = alphas(searches), [*CANDIDATES, *searches[0].config["search"]["planted"]]
    best = values.argmax(-1)
    percent = lambda chosen: round(100 * float(chosen.mean()), 1)  # noqa: E731
    rows = []
    for place, name in enumerate(names):
        own = values[..., place]
        rows.append(
            {"candidate": name, "alpha, mean": round(float(own.mean()), 3), "sd": round(float(own.std(ddof=1)), 3)}
            | {"below the edge's mean (%)": percent(own < 0)}
            | {"of edges from the cell's inputs (%)": percent(own[..., FROM_INPUTS] < 0)}
            | {"of edges from inner nodes (%)": percent(own[..., ~FROM_INPUTS] < 0)}
            | {"best of its edge (%)": percent(best == place)}
            | {"edges": own.size, "searches": len(searches), "preset": preset}
        )
    return pd.DataFrame(rows)


def twins(searches: Sequence[Record], twin_of: str) -> tuple[float, float, float]:
    """Return alpha of the planted twin less that of its original: the mean over all edges and searches, with its 95 %
    interval over the edges.
    """
    names = [*CANDIDATES, *searches[0].config["search"]["planted"]]
    values = alphas(searches)
    difference = values[..., names.index("twin")] - values[..., names.index(twin_of)]
    effect = student(difference.ravel())
    return effect.mean, effect.low, effect.high


def inner_edges(searches: Sequence[Record]) -> tuple[float, float, float]:
    """Return which share of the edges that searches kept comes from inner nodes, with Student's interval over searches;
    INNER_BY_LOT is what it would be by lot.
    """
    sources = np.array([[[source for _, source in cell] for cell in record.genotype.cells] for record in searches])
    return _with_interval((sources >= 2).mean(axis=(1, 2)).tolist())


def by_cell(searches: Sequence[Record]) -> pd.DataFrame:
    """Return a row a cell, and one for all: means over the searches.

    Columns: updates of an entry; drift and margin, about 1 by lot; and the signal-to-noise ratio of an update that the
    drift stands for, (drift - 1) = n s^2, nan where it is below 1.
    """
    rows, each = [], [record.result["evidence"] for record in searches]
    cells = len(each[0]["updates"])
    for cell in [*range(cells), WHOLE]:
        chosen = range(cells) if cell == WHOLE else [cell]
        updates = np.mean([np.mean(e["updates"][c]) for e in each for c in chosen])
        drift, margin = (_mean([e[name][c] for e in each for c in chosen]) for name in ("drift", "margin"))
        s = np.sqrt((drift - 1) / updates) if updates and drift > 1 else nan
        rows.append({"cell": cell, "updates of an entry": updates, "drift": drift, "margin": margin, "s": s})
    return pd.DataFrame(rows).round(3)


def _mean(values: list[float | None]) -> float:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else nan


def dots(searches: Sequence[Record]) -> pd.DataFrame:
    """Return a row for each search and cell: "search" (its seed), "cell", "updates" of an entry, "drift", "margin"."""
    rows: list[dict[str, Any]] = []
    for record in searches:
        evidence = record.result["evidence"]
        for cell, updates in enumerate(evidence["updates"]):
            values = {name: evidence[name][cell] for name in ("drift", "margin")}
            rows.append({"search": record.seed, "cell": cell, "updates": float(np.mean(updates)), **values})
    return pd.DataFrame(rows).astype({"drift": float, "margin": float})


def sentence(searches: Sequence[Record]) -> str:
    """Return in words what alpha has learnt."""
    whole = by_cell(searches).iloc[-1]
    said = [
        f"An entry of alpha had {whole['updates of an entry']:.0f} updates and came {whole['drift']:.2f} times as far "
        "(in mean square) as a random walk of the same steps; the best candidate of an edge leads the second by "
        f"{whole['margin']:.2f} times what chance gives."
    ]
    if len(searches) < 2:
        return said[0] + " One search: whether another would find the same is not known."
    r, operations = by_entry(searches), by_operation(searches)
    said.append(
        f"Between {len(searches)} searches the entries correlate with {interval(r)}, the operations' means with "
        f"{interval(operations)}."
    )
    if np.isnan(r[1]) or r[1] > 0:
        return " ".join(said)
    return " ".join([*said, "That is no more than chance: what such a search finds is close to a draw by lot."])


def interval(r: tuple[float, float, float]) -> str:
    """Return a mean with its interval, where it has one, as text."""
    return f"{r[0]:.2f}" + ("" if np.isnan(r[1]) else f" [{r[1]:.2f}, {r[2]:.2f}]")
