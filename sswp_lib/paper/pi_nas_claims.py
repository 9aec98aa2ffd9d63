"""What Pi-NAS (Peng et al., ICCV 2021) claims, and what is measured of it here.

Its evidence is one training of each arm and 13 architectures, five of them its own best. Here arms are paired by the
seed of their supernet, and the architectures are drawn by lot. Beside each interval over supernets stands one over
architectures (see `ranked.over_architectures`), for the first takes the architectures as given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import nan

import numpy as np
import pandas as pd
from scipy import stats

from sswp_lib.paper.claim import Claim
from sswp_lib.paper.effects import Effect, between, runs_of, student

FULL, OWN_PATH, NO_TEACHER, NEITHER = "Pi-NAS", "teacher only", "cross-path only", "neither"
NO_NEGATIVES, SPOS, UNTRAINED = "no negatives", "SPOS", "untrained supernet"
LINKED = (FULL, OWN_PATH, NO_TEACHER, NEITHER, SPOS)  # arms that the link of consistency and tau is sought over
_TAU = "Kendall's tau-b between predicted accuracy and that of the architectures' own training"
PI_NAS = {  # in the order in which a report tells them
    "pi_tau": Claim(
        "Pi-NAS ranks architectures better than a supernet that learns from labels (SPOS)",
        "Pi-NAS, Tables 3 and 7",
        "+0.60",
        f"Pi-NAS minus SPOS, {_TAU}",
        scale="tau",
    ),
    "pi_cp": Claim(
        "Cross-path learning raises the rank correlation",
        "Pi-NAS, Table 7",
        "+0.65",
        f"Pi-NAS minus teacher only, {_TAU}",
        scale="tau",
    ),
    "pi_mt": Claim(
        "The mean teacher raises the rank correlation",
        "Pi-NAS, Table 7",
        "+0.31",
        f"Pi-NAS minus cross-path only, {_TAU}",
        scale="tau",
    ),
    "pi_collapse": Claim(
        "Without negatives the supernet collapses",
        "Pi-NAS, Table 7",
        "in words",
        "mean |cosine| between different images' outputs, no negatives minus Pi-NAS",
        scale="cosine",
    ),
    "pi_consistency": Claim(
        "Cross-path learning makes features of different paths alike",
        "Pi-NAS, Figure 5",
        "a picture",
        "centred cosine between paths' features of the same image, Pi-NAS minus teacher only",
        scale="cosine",
    ),
    "pi_link": Claim(
        "Supernets whose paths have alike features rank better",
        "Pi-NAS, Figures 4 and 5",
        "in words",
        "Spearman's correlation over arms of centred cosine and tau, mean over supernet seeds; exploratory",
        scale="correlation",
    ),
    "pi_top": Claim(
        "What Pi-NAS ranks highest is better than the rest",
        "Pi-NAS, Table 1",
        "a single architecture",
        "its three highest minus all, accuracy of their own training (points)",
    ),
    "pi_best201": Claim(
        "The best architecture of NAS-Bench-201 by Pi-NAS beats the best by SPOS",
        "Pi-NAS, Table 4",
        "+0.26",
        "highest by Pi-NAS minus highest by SPOS, accuracy of their own training (points)",
    ),
}


def measured(frame: pd.DataFrame, notes: Mapping[str, str] | None = None) -> dict[str, Effect]:
    """Return the claims' effects, paired by the seed of the supernets.

    Args:
        frame: as `ranked.by_supernet` gives it. notes: what else is to be said, by the claims' keys.
    """
    notes = notes or {}
    pairs = {
        "pi_tau": (FULL, SPOS, "tau"),
        "pi_cp": (FULL, OWN_PATH, "tau"),
        "pi_mt": (FULL, NO_TEACHER, "tau"),
        "pi_collapse": (NO_NEGATIVES, FULL, "cosine"),
        "pi_consistency": (FULL, OWN_PATH, "centred"),
        "pi_best201": (FULL, SPOS, "best"),
    }
    found = {key: _paired(frame, *pair) for key, pair in pairs.items()}
    found |= {"pi_link": link(frame), "pi_top": top(frame)}
    joined = lambda key, effect: "; ".join(filter(None, [effect.note, notes.get(key, "")]))  # noqa: E731
    return {key: replace(found[key], note=joined(key, found[key])) for key in PI_NAS}


def _paired(frame: pd.DataFrame, better: str, other: str, column: str) -> Effect:
    rows = frame[frame["arm"].isin([better, other])]
    both = rows.pivot(index="seed", columns="arm", values=column).reindex(columns=[better, other]).dropna()
    if both.empty:
        reason = f"no supernet seed has a {column} of both {better!r} and {other!r}"
        return Effect(nan, nan, nan, 0, unit="supernet", runs=runs_of(rows), untestable=reason)
    effect = replace(between(frame, better, other, column), unit="supernet")
    if column != "tau":
        return effect
    taus = f"taus {both[better].mean():.2f} and {both[other].mean():.2f}"  # their difference does not tell if one ranks
    return replace(effect, note="; ".join(filter(None, [effect.note, taus])))


def top(frame: pd.DataFrame) -> Effect:
    """Return by how much the three that Pi-NAS ranks highest are better than all, over supernets."""
    rows = frame[frame["arm"] == FULL]
    return student(rows["top 3"] - rows["all"], unit="supernet", searches=len(rows), runs=runs_of(rows))


def link(frame: pd.DataFrame) -> Effect:
    """Return Spearman's correlation over arms of the centred cosine between paths and tau, over supernet seeds."""
    rows = frame[frame["arm"].isin(LINKED)].dropna(subset=["centred", "tau"])
    values = [v for _, group in rows.groupby("seed") if not np.isnan(v := _spearman(group["centred"], group["tau"]))]
    if not values:
        reason = "fewer than three arms have both a cosine and a tau that differ"
        return Effect(nan, nan, nan, 0, unit="supernet", runs=runs_of(rows), untestable=reason)
    return student(values, unit="supernet", searches=len(values), runs=runs_of(rows))


def _spearman(one: pd.Series, other: pd.Series) -> float:
    """Return Spearman's correlation; nan of fewer than three, or where all of one are equal."""
    if len(one) < 3 or one.nunique() < 2 or other.nunique() < 2:
        return nan
    return float(stats.spearmanr(one, other).statistic)
