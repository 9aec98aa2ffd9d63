"""What rankings by one-shot networks are worth: beside what architectures reach by themselves, and beside what simply
counting parameters says of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import nan
from typing import Any

import numpy as np
import pandas as pd
import torch

from sswp_lib.config import Config
from sswp_lib.learn.measure import parameters, sizes_of
from sswp_lib.paper import reported, tables
from sswp_lib.paper.pi_nas import ROWS, Truth, tau
from sswp_lib.paper.pi_nas_claims import FULL, NO_TEACHER, OWN_PATH, SPOS
from sswp_lib.runs import records
from sswp_lib.runs.records import Done, Record
from sswp_lib.space import Choices
from sswp_lib.space.bench201 import BENCH201
from sswp_lib.space.resnest import RESNEST

RESAMPLES = 500  # of a bootstrap over architectures
SPREAD = "spread (points)"  # how a table calls the standard deviation of predictions over architectures
PATHS = {  # of Pi-NAS's space; the searched ones are from the code released with the paper
    "ResNeSt-50": " ".join("1" * 16),
    "Pi-NAS-cls": "3 0 1 3 2 3 1 2 0 3 2 1 3 0 3 2",
    "Pi-NAS-gamma": "3 3 3 3 1 1 3 3 3 0 0 1 1 0 2 1",
}
PAIRS = {"pi_tau": (FULL, SPOS), "pi_cp": (FULL, OWN_PATH), "pi_mt": (FULL, NO_TEACHER)}  # whose taus are compared


def supernet_of(ranking: Record) -> Record:
    """Return the one-shot training that a ranking is by."""
    return records.find(ranking.provenance["started_from"])


def by_supernet(done: Iterable[Done], truth: Truth) -> pd.DataFrame:
    """Return a row for each arm and seed: tau, mean predicted accuracy, how alike features are along different paths
    (see `learn.ranking.similarity`), collapse (of arms without labels), and what the highest by it reach.

    Columns "top 3" and "best" are of the three and of the one with the highest prediction, "all" of all; where a
    prediction is tied, the mean over all ways to break the tie.
    """
    rows = []
    for job in done:
        result, supernet = job.record.result, supernet_of(job.record)
        scores, similar = result["scores"], result["similarity"]
        collapsed = supernet.result.get("collapse", {"cosine": nan, "spread": nan})
        rows.append(
            {**job.labels, "tau": tau(scores, truth.accuracy), "linear": float(np.mean(scores)), **collapsed}
            | {name: similar[name] for name in ("raw", "centred", "different")}
            | {"top 3": of_highest(scores, truth.accuracy, 3), "best": of_highest(scores, truth.accuracy, 1)}
            | {"all": float(truth.accuracy.mean()), "run": job.record.name, "supernet run": supernet.name}
        )
    return pd.DataFrame(rows)


def histories(done: Iterable[Done], metric: str = "cosine") -> dict[str, list[list[float]]]:
    """Return {arm: of each of its supernets a metric of its epochs}, of arms that have it."""
    found: dict[str, list[list[float]]] = {}
    for job in done:
        rows = supernet_of(job.record).history
        if rows and metric in rows[0]:
            found.setdefault(job.labels["arm"], []).append([row[metric] for row in rows])
    return found


def results(done: Iterable[Done], what: str, seed: int = 0) -> dict[str, Any]:
    """Return {arm: what its ranking with that supernet seed found}: "scores" or "similarity"."""
    return {job.labels["arm"]: job.record.result[what] for job in done if job.labels["seed"] == seed}


def of_highest(scores: Sequence[float], accuracy: np.ndarray, count: int) -> float:
    """Return the mean accuracy of the `count` with the highest scores, over all ways to break a tie at the last."""
    scores = np.asarray(scores, dtype=float)
    last = np.sort(scores)[::-1][min(count, len(scores)) - 1]
    above, at = scores > last, scores == last
    places = min(count, len(scores)) - above.sum()
    return float((accuracy[above].sum() + places * accuracy[at].mean()) / min(count, len(scores)))


def counts(config: Config, architectures: Sequence[Choices]) -> pd.DataFrame:
    """Return for each architecture the parameters of its network and its 3x3 convolutions."""
    size = {"init_channels": config.one_shot.init_channels, "num_cells": config.one_shot.num_cells}
    with torch.device("meta"):
        networks = [BENCH201.network(choices, **size) for choices in architectures]
    return pd.DataFrame(
        {
            "parameters": [parameters(network) for network in networks],
            "3x3 convolutions": [choices.operations.count("nor_conv_3x3") for choices in architectures],
        }
    )


def controls(config: Config, truth: Truth) -> dict[str, float]:
    """Return the tau of what trains no supernet: of counting parameters or 3x3 convolutions; and the ceiling."""
    counted = counts(config, truth.architectures)
    return {name: tau(counted[name], truth.accuracy) for name in counted} | {"ceiling": truth.ceiling}


def follows(done: Sequence[Done], truth: Truth, config: Config, preset: str) -> pd.DataFrame:
    """Return what predictions follow: for each arm how far apart they lie (standard deviation over architectures) and
    their tau with what can be counted of an architecture, its parameters and each operation, mean ± sd (n supernets).
    The last row is of the accuracies that the architectures reach by themselves.
    """
    operations = [architecture.operations for architecture in truth.architectures]
    taken = [name for name in BENCH201.candidates if any(name in names for names in operations)]
    counted = counts(config, truth.architectures)[["parameters"]]
    counted = counted.assign(**{name: [names.count(name) for names in operations] for name in taken})
    taus = lambda values: {name: tau(values, counted[name]) for name in counted}  # noqa: E731
    of = lambda values: {SPREAD: float(np.std(values)), **taus(values)}  # noqa: E731
    found = pd.DataFrame({"arm": job.labels["arm"], **of(job.record.result["scores"])} for job in done)
    rows = [
        {"arm": arm} | {name: _spread(group[name]) for name in (SPREAD, *counted)}
        for arm, group in found.groupby("arm", sort=False)
    ]
    rows.append({"arm": "their own training"} | {name: f"{value:.2f}" for name, value in of(truth.accuracy).items()})
    titles = {name: f"tau with {name}" for name in counted}
    return pd.DataFrame(rows).rename(columns=titles).assign(preset=preset)


def over_architectures(done: Sequence[Done], truth: Truth, better: str, other: str) -> tuple[float, float]:
    """Return the 95 % interval of the mean difference in tau between two arms when the architectures, not the
    supernets, are drawn anew (bootstrap); nan where nothing can be paired.
    """
    scores = {(job.labels["arm"], job.labels["seed"]): job.record.result["scores"] for job in done}
    seeds = [seed for arm, seed in scores if arm == better and (other, seed) in scores]
    draws = np.random.default_rng(0).integers(len(truth.architectures), size=(RESAMPLES, len(truth.architectures)))
    of = lambda arm, seed: _taus(np.asarray(scores[arm, seed]), truth.accuracy, draws)  # noqa: E731
    differences = [of(better, seed) - of(other, seed) for seed in seeds]
    if not differences or np.isnan(differences).all():
        return nan, nan
    low, high = np.nanpercentile(np.mean(differences, axis=0), [2.5, 97.5])
    return float(low), float(high)


def _taus(one: np.ndarray, other: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Return tau-b of each draw of indices, (resamples, n) -> (resamples,)."""
    signs = [np.sign(values[:, None] - values[None, :]) for values in (one, other)]
    found = []
    for index in draws:
        a, b = (sign[np.ix_(index, index)] for sign in signs)
        scale = np.sqrt(float(np.abs(a).sum()) * float(np.abs(b).sum()))
        found.append(float((a * b).sum()) / scale if scale else nan)
    return np.array(found)


def notes(done: Sequence[Done], truth: Truth) -> dict[str, str]:
    """Return for each claim about tau the difference's interval over architectures, as a note."""
    found = {key: over_architectures(done, truth, *pair) for key, pair in PAIRS.items()}
    of = lambda low, high: f"difference over architectures {low:.2f} to {high:.2f}"  # noqa: E731
    return {key: of(low, high) for key, (low, high) in found.items() if low == low}


def table7(frame: pd.DataFrame, beside: dict[str, float], preset: str) -> pd.DataFrame:
    """Return a row an arm, the paper's tau beside what was measured; and the tau of what trains no supernet."""
    paper = reported.values("table7", "method", "tau", "pi_nas")
    rows: list[dict[str, Any]] = []
    for arm, found in frame.groupby("arm", sort=False):
        rows.append(
            {"arm": arm, "paper, tau": paper.get(ROWS.get(arm, ""), "")}
            | {title: _spread(found[name]) for name, title in COLUMNS.items()}
            | {"preset": preset}
        )
    rows += [{"arm": f"{name}, no supernet", "tau": f"{value:.2f}", "preset": preset} for name, value in beside.items()]
    return pd.DataFrame(rows).fillna("")


def _spread(values: pd.Series) -> str:
    """Return "mean ± sd (n)" of the values that are there; "" where there are none."""
    return tables.spread(values.dropna()) if values.notna().any() else ""


COLUMNS = {  # of `by_supernet`, and what a table calls them
    "tau": "tau",
    "linear": "predicted accuracy (%)",
    "centred": "cosine between paths, centred",
    "raw": "cosine between paths",
    "different": "cosine between paths, different images",
    "cosine": "absolute cosine between images' outputs",
}


def table1(frame: pd.DataFrame, preset: str) -> pd.DataFrame:
    """Return what the architectures reach that each arm ranks highest, and all of them, mean ± sd (n supernets)."""
    return pd.DataFrame(
        {"arm": arm, "its three highest (%)": tables.spread(found["top 3"])}
        | {"all architectures (%)": round(found["all"].iloc[0], 2)}
        | {"highest minus all (points)": tables.spread(found["top 3"] - found["all"]), "preset": preset}
        for arm, found in frame.groupby("arm", sort=False)
    )


def table4(frame: pd.DataFrame, truth: Truth, preset: str) -> pd.DataFrame:
    """Return the accuracy of the best architecture by each arm beside the paper's, and the best there is."""
    paper = reported.values("table4", "method", "accuracy", "pi_nas")
    rows = [
        {"chosen by": arm, "paper, CIFAR-10 (%)": paper.get(arm, ""), "here (%)": tables.spread(found["best"])}
        for arm, found in frame.groupby("arm", sort=False)
    ]
    rows.append({"chosen by": "its own training", "here (%)": f"{truth.accuracy.max():.2f}"})
    return pd.DataFrame(rows).fillna("").assign(preset=preset)


def resnest_sizes(preset: str) -> pd.DataFrame:
    """Return sizes of networks of the paper's space at 224 pixels, made without weights, beside the reported ones: its
    FLOPs are multiply-adds and elementwise operations, added.
    """
    found = pd.concat([reported.table(name, "pi_nas") for name in ("table2", "table1")])
    known, rows = found.drop_duplicates("architecture").set_index("architecture"), []
    for name, path in PATHS.items():
        with torch.device("meta"):
            size = sizes_of(RESNEST.network(RESNEST.read(path)), 224)
        rows.append(
            {"architecture": name, "path": path.replace(" ", ""), "parameters, paper (M)": known["params"][name]}
            | {"parameters (M)": round(size["parameters"] / 1e6, 3), "FLOPs, paper (G)": known["flops"][name]}
            | {"multiply-adds (G)": round(size["multiply_adds"] / 1e9, 3)}
            | {"with elementwise (G)": round((size["multiply_adds"] + size["elementwise"]) / 1e9, 2)}
        )
    return pd.DataFrame(rows).assign(preset=preset)
