"""What the papers claim, and what was measured of it.

A claim is "seen" where the 95 % interval of its effect lies wholly on the claim's side of a bound (above 0, if nothing
else is said), "contradicted" where it lies wholly on the other, else "undecided". That something does *not* help is a
test of non-inferiority: its bound is a margin below 0. A claim is "not testable" where both sides have reached a
ceiling; one about architectures also where no search behind it has learnt its alpha: what is compared there was drawn
by lot. A ledger judges each claim alone; `gathered` all of a report together (Holm), and that verdict counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from sswp_lib.config import InputError
from sswp_lib.paper import learnt
from sswp_lib.paper.bench_claims import BENCH_CLAIMS
from sswp_lib.paper.claim import CONTROL, MARGIN, NOT_TESTABLE, NOT_WORSE, SCRATCH, Claim
from sswp_lib.paper.effects import (
    ALPHA,
    NO_SPREAD,
    Effect,
    best_of,
    between,
    bootstrapped,
    holm,
    nested,
    runs_of,
    student,
)
from sswp_lib.paper.pi_nas_claims import PI_NAS
from sswp_lib.paper.ssnas_claims import SSNAS_CLAIMS

__all__ = ["CLAIMS", "Claim", "Effect", "above_ten_percent", "at", "best_of", "between", "gathered", "ledger"]
__all__ += ["memory", "nested", "preferred_rates", "relative_gain"]  # all that notebooks need to measure claims

_OWN_RECIPE = "each start at its own learning rate and augmentation"
CLAIMS = {  # in the order in which a report tells them
    "found_beats_same_size": Claim(
        "What a search finds beats random architectures of the same size",
        "4.2 (SSNAS, Table 1)",
        CONTROL,
        f"found minus random genotypes with as many parameters within 5 %, {SCRATCH}",
        architectures=True,
    ),
    "found_beats_random": Claim(
        "What a search finds beats random architectures of any size",
        "4.2 (SSNAS, Table 1)",
        "+0.68",
        f"found minus random genotypes, {SCRATCH}",
        architectures=True,
    ),
    "concomitant_beats_random": Claim(
        "Concomitant weights beat a random start at few labels",
        "4.4, Figure 5",
        "a picture",
        f"concomitant minus random, few labels, {_OWN_RECIPE}, test accuracy (points)",
    ),
    **{
        f"concomitant_beats_random_at_{labels}": Claim(
            f"Concomitant weights beat a random start at {labels} label{'s' if labels > 1 else ''} a class",
            "4.4, Figure 5",
            "a picture",
            f"concomitant minus random, {_OWN_RECIPE}, test accuracy (points)",
        )
        for labels in (1, 2, 5, 10, 50)
    },
    "concomitant_beats_unaugmented": Claim(
        "The same without augmentation in training: what a comparison with an unaugmented baseline would claim",
        "4.4, Figure 5",
        CONTROL,
        "concomitant minus random, few labels, neither augmented, test accuracy (points)",
    ),
    "ssl_beats_sl": Claim(
        "Searching without labels (SSL) beats searching with them (SL)",
        "4.3, Table 3a",
        "+0.21",
        f"SSL+FPP minus SL+FPP, {SCRATCH}",
        architectures=True,
    ),
    "fpp_helps_ssl": Claim(
        "FPP helps a search without labels",
        "4.3, Table 3a",
        "+0.09",
        f"SSL+FPP minus SSL, {SCRATCH}",
        architectures=True,
    ),
    "fpp_helps_sl": Claim(
        "FPP helps a search with labels", "4.3, Table 3a", "+0.15", f"SL+FPP minus SL, {SCRATCH}", architectures=True
    ),
    "bpp_does_not_help": Claim(
        "Pruning back to front (BPP) does not help",
        "4.3, Table 3a",
        "+0.08",
        f"SSL minus SSL+BPP, {SCRATCH}; {NOT_WORSE}",
        margin=MARGIN,
        architectures=True,
    ),
    "default_ratio": Claim(
        "The ratios 0.2 : 0.4 : 0.4 are best",
        "4.3, Table 3b",
        "+0.09",
        f"default minus the closest of shorter and longer, {SCRATCH}",
        architectures=True,
    ),
    "fpp_closes_gap": Claim(
        "FPP lessens network inflation, the gap between search and final network",
        "3.4",
        "in words",
        "gap of contrastive accuracy between supernet and exported network, SSL minus SSL+FPP (points)",
    ),
    "dropout": Claim(
        "Skip dropout 0.2 is best",
        "4.3, Table 3c",
        "+0.07",
        f"0.2 minus the closest of 0 and 0.5, {SCRATCH}",
        architectures=True,
    ),
    "proxy_free": Claim(
        "Searching on the data that is trained on beats transfer",
        "4.3, Table 3d",
        "+0.93",
        f"proxy-free minus transfer, {SCRATCH}",
        architectures=True,
    ),
    "longer_search": Claim(
        "A longer search helps",
        "4.3, Figure 4",
        "a picture",
        f"most minus fewest epochs, {SCRATCH}",
        architectures=True,
    ),
    "larger_batch": Claim(
        "A larger batch does not help",
        "4.3, Figure 4",
        "a picture",
        f"preset's batch minus twice of it, {SCRATCH}; {NOT_WORSE}",
        margin=MARGIN,
        architectures=True,
    ),
    "byol_is_worse": Claim(
        "BYOL in the search is worse than SimCLR", "3.3", "+0.49", f"SimCLR minus BYOL, {SCRATCH}", architectures=True
    ),
    "concomitant_beats_simclr": Claim(
        "Concomitant weights beat SimCLR pre-training above 10 % of the labels",
        "4.4, Figure 5",
        "a picture",
        "concomitant minus SimCLR, mean over the fractions above 10 %, test accuracy (points)",
    ),
    "simclr_at_ten": Claim(
        "At 10 % of the labels SimCLR pre-training beats concomitant weights",
        "4.4, Figure 5",
        "a picture",
        "SimCLR minus concomitant at 10 %, test accuracy (points)",
    ),
    "concomitant_beats_matched": Claim(
        "Above 10 % they also beat SimCLR pre-training with the images and steps that the search's weights had",
        "4.4, Figure 5",
        CONTROL,
        "concomitant minus matched SimCLR, mean over the fractions above 10 %, test accuracy (points)",
    ),
    "simclr_matched_at_ten": Claim(
        "At 10 % SimCLR pre-training also wins with the images and steps that the search's weights had",
        "4.4, Figure 5",
        CONTROL,
        "matched SimCLR (as many steps, on the same half of the images) minus concomitant at 10 %, test accuracy "
        "(points)",
    ),
    "whole_search_equals_two_stages": Claim(
        "A search with the time of both stages is as good as a search and a pre-training of what it found",
        "4.4, conclusion",
        CONTROL,
        f"one stage with the whole compute minus two stages, 10 % of the labels, test accuracy (points); {NOT_WORSE}",
        margin=MARGIN,
    ),
    "fixed_search_equals_two_stages": Claim(
        "So is a search whose network goes on, once fixed, for as many steps as the pre-training has",
        "4.4, conclusion",
        CONTROL,
        f"one stage, then fixed, minus two stages, 10 % of the labels, test accuracy (points); {NOT_WORSE}",
        margin=MARGIN,
    ),
    "larger_rates": Claim(
        "Concomitant weights prefer larger learning rates",
        "4.4, Table 4a",
        "+0.90",
        "log10 of the best rate (by validation) of concomitant minus that of SimCLR (decades)",
        scale="decades",
    ),
    "relative_gain": Claim(
        "Skip dropout improves the concomitant weights",
        "4.4, Table 4b",
        "+0.23",
        "relative gain of skip dropout, test accuracy (points)",
    ),
    "ssl_probes_better": Claim(
        "Architectures searched without labels probe better",
        "appendix B, Table 6",
        "+0.60",
        "linear probe after SimCLR pre-training, SSL minus SL, test accuracy (points)",
        architectures=True,
    ),
    "memory": Claim(
        "A search step needs memory of the same magnitude as a compact network's",
        "3.2",
        "in words",
        "ratio of peak memory: the dearer search step over the exported network, 8 edges a cell; less than twice is "
        "the same magnitude (ours)",
        below=2.0,
        scale="ratio",
    ),
    **SSNAS_CLAIMS,
    **PI_NAS,
    **BENCH_CLAIMS,
}


def relative_gain(frame: pd.DataFrame, arm: str, base: str) -> Effect:
    """Table 4b: (fine-tuned - from scratch) with a module such as skip dropout, minus the same without it, paired by
    seed.
    """
    return between(frame.assign(gain=frame["fine-tuned"] - frame["scratch"]), arm, base, column="gain")


def at(frame: pd.DataFrame, fraction: float) -> pd.DataFrame:
    """Return the rows at exactly one fraction of the labels; InputError says which fractions there are."""
    found = frame[np.isclose(frame["fraction"], fraction)]
    if found.empty:
        raise InputError(f"no run at the fraction {fraction:g}; there is {_fractions(frame)}; add it to the fractions")
    return found


def above_ten_percent(frame: pd.DataFrame, other: str = "simclr") -> Effect:
    """Figure 5: concomitant minus another start, mean over the fractions above 10 %, over searches."""
    above = frame[frame["fraction"] > 0.1]
    if above.empty:
        raise InputError(f"no fraction above 0.1; there is {_fractions(frame)}; add one, such as 0.5, to the fractions")
    return nested(above, "concomitant", other, by=("seed", "fraction"))


def _fractions(frame: pd.DataFrame) -> str:
    return ", ".join(f"{fraction:g}" for fraction in sorted(frame["fraction"].unique())) or "none"


def preferred_rates(frame: pd.DataFrame, better: str = "concomitant", other: str = "simclr") -> Effect:
    """Table 4a: by how many decades the best learning rate of one start lies above that of another.

    A start's best rate is that of the highest validation accuracy, averaged over everything that was repeated; rates
    that tie share the place (the mean of their logarithms). The interval is a bootstrap's, over searches, or over
    fine-tunings where there is only one: then it says nothing of other searches, and decides nothing.
    """
    several = "search" in frame and frame["search"].nunique() > 1
    rows = frame[frame["init"].isin([better, other])]
    unit = "search" if several else "seed"
    validation = rows.pivot_table(index=unit, columns=["init", "lr"], values="validation").dropna()
    if not {better, other} <= set(validation.columns.get_level_values("init")) or validation.empty:
        raise InputError(f"no {unit} has every learning rate of both {better!r} and {other!r}; run what is missing")

    def best(init: str, units: np.ndarray) -> np.ndarray:
        """Return log10 of the best rate for each row of units."""
        mean = validation[init].to_numpy()[units].mean(axis=1)
        tied = mean >= mean.max(axis=1, keepdims=True) - NO_SPREAD
        return (tied * np.log10(validation[init].columns.to_numpy())).sum(axis=1) / tied.sum(axis=1)

    effect = bootstrapped(
        lambda units: best(better, units) - best(other, units),
        len(validation),
        unit="search" if several else "fine-tuning",
        searches=len(validation) if several else 1,
        runs=runs_of(rows),
    )
    notes = [_ties(init, validation[init].mean()) for init in (better, other)]
    notes.append("the grid is too coarse for an interval" if np.isnan(effect.low) else "")
    notes.append("" if several else "one search")
    return replace(effect, p=effect.p if several else None, note="; ".join(filter(None, notes)))


def _ties(init: str, validation: pd.Series) -> str:
    rates = [f"{lr:g}" for lr in validation.index[validation >= validation.max() - NO_SPREAD]]
    return f"ties of {init}: {' and '.join(rates)}" if len(rates) > 1 else ""


def memory(measured: Sequence[dict[str, int]]) -> Effect:
    """Section 3.2: the ratio of peak memory of the dearer search step, of two paths, over the exported network.

    Args:
        measured: the bytes of measurements (see `learn.footprint`), one for each sampled path.
    """
    ratios = [max(held["weight step"], held["architecture step"]) / held["compact, 8 edges"] for held in measured]
    return student(ratios, unit="path")


def ledger(effects: dict[str, Effect], label: str) -> pd.DataFrame:
    """Return a table of claims by their keys in CLAIMS, each judged alone. Its column "runs" is for `gathered`; `attrs`
    says that a reader is not shown it.

    Args:
        label: what the column "preset" says, such as "quick" or "quick with train.shift=0".
    """
    rows = []
    for key, effect in effects.items():
        claim = CLAIMS[key]
        if claim.architectures and not effect.untestable:
            effect = replace(effect, untestable=learnt.by_lot(effect.runs))
        p = None if effect.untestable else claim.p(effect)
        rows.append(
            {"key": key, "claim": claim.text, "section": claim.section, "paper": claim.paper, "measure": claim.measure}
            | {name: round(getattr(effect, name), 2) for name in ("mean", "low", "high", "resolution")}
            | {"seen where": claim.bound, "p": None if p is None else _four_digits(p)}
            | {"alone": claim.verdict(effect), "n": effect.n, "unit": effect.unit, "searches": effect.searches}
            | {
                "note": "; ".join(filter(None, [effect.untestable, effect.note])),
                "preset": label,
                "runs": " ".join(sorted(effect.runs)),
            }
        )
    table = pd.DataFrame(rows)
    table.insert(table.columns.get_loc("note"), "shares runs with", _sharing(table))
    table.attrs["not shown"] = ["runs"]
    return table


def joined(ledgers: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return the rows of several ledgers as one."""
    table = pd.concat(ledgers, ignore_index=True)
    table["shares runs with"] = _sharing(table)
    table.attrs["not shown"] = ["runs"]
    return table


def gathered(claims: pd.DataFrame) -> pd.DataFrame:
    """Return all claims of a report, judged together: with Holm's p over all rows that have one, and the verdict that
    counts.

    Args:
        claims: rows of ledgers, as text or numbers; what is missing in them is taken as empty, and decides nothing.
    """
    missing = [name for name in ("key", "p", "alone", "runs") if name not in claims]
    claims = claims.astype(object).assign(**dict.fromkeys(missing, "")).fillna("")
    known = list(CLAIMS)
    place = claims["key"].map(lambda key: known.index(key) if key in known else len(known))
    claims = claims.iloc[place.argsort(kind="stable")].reset_index(drop=True)
    p = pd.to_numeric(claims["p"], errors="coerce")
    tested, together = p.notna(), p.copy()
    together[tested] = holm(p[tested])
    counts = (together < ALPHA) | (claims["alone"] == NOT_TESTABLE)
    return claims.assign(
        **{"p, Holm": together.map(_four_digits), "verdict": claims["alone"].where(counts, "undecided")},
        **{"shares runs with": _sharing(claims)},
    )


def _four_digits(p: float) -> float:
    return float(f"{p:.4g}")


def _sharing(claims: pd.DataFrame) -> list[str]:
    """Return for each row the keys of the others that were computed from at least one of its runs."""
    keys, runs = list(claims["key"]), [set(text.split()) for text in claims["runs"]]
    places = range(len(keys))
    return [", ".join(keys[j] for j in places if j != i and runs[i] & runs[j]) for i in places]
