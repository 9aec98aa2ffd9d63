"""SSNAS's tables, the paper's numbers beside those measured, from records alone.

Each says of an arm what all of its searches came to, and beside it what the one came to that the paper's selection
takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from sswp_lib.learn.measure import sizes
from sswp_lib.paper import learnt, reported
from sswp_lib.paper.ssnas import RESNET, restacked, searches_of, selected
from sswp_lib.paper.tables import INITS, spread
from sswp_lib.paper.tables import arms as arms_table
from sswp_lib.runs.records import Done
from sswp_lib.space import Genotype

PAPER = "ssnas"
IMAGENET_CHANNELS, IMAGENET_CELLS = 48, 14  # of the networks of Table 2
TUNED = "10 % of the labels (%)"


def errors(table: str) -> dict[str, float]:
    """Return test errors in percent by architecture, of Table 1 or 3."""
    column = "error" if table == "table1" else "accuracy"
    found = reported.values(table, "architecture", column, PAPER)
    return found if column == "error" else {name: round(100 - value, 2) for name, value in found.items()}


def architectures(
    frame: pd.DataFrame, order: Sequence[str], preset: str, paper: dict[str, float] | None = None
) -> pd.DataFrame:
    """Return one row an arm: the paper's test error beside those here of all searches, mean ± sd (n), and of the one
    that validation selects; the share of skips; how far alpha had come.

    Args:
        frame: as `ssnas.judged` gives. paper: its test errors in percent, by arm.
    """
    table = arms_table(frame, order, preset, paper, columns=["scratch"])
    table = table.rename(columns={"here, test error, scratch (%)": "here, test error (%)"})
    chosen = selected(frame, "validation").set_index("arm").loc[list(order)]
    place = table.columns.get_loc("here, test error (%)") + 1
    table.insert(place, "selected, test error (%)", (100 - chosen["scratch"]).round(2).tolist())
    table.insert(place + 1, "selected seed", chosen["seed"].tolist())
    shares = [spread(frame[frame["arm"] == arm]["skip share"]) for arm in order]
    table.insert(place + 2, "share of skips (%)", shares)
    table["preset"] = table.pop("preset")  # the last column
    return table.drop(columns="skips (%)", errors="ignore")


def agreement(done: Sequence[Done], order: Sequence[str], preset: str) -> pd.DataFrame:
    """Return one row for each arm that searches: its steps, how sure the mixture became, and how far its searches
    agree on alpha, which differ in their seed alone: correlations of all entries, and of the operations' means.
    """
    rows = []
    for arm in order:
        found = searches_of(done, arm)
        if not found:
            continue
        several = len(found) > 1
        rows.append(
            {"searches of": arm, "n": len(found), "steps on alpha": found[0].result["architecture_steps"][0]}
            | {"entropy of alpha": round(float(np.mean([r.result["alpha"]["entropy"] for r in found])), 3)}
            | {"largest weight": round(max(r.result["alpha"]["largest"] for r in found), 3)}
            | {"entries correlate": learnt.interval(learnt.by_entry(found)) if several else "one search"}
            | {"operations' means correlate": learnt.interval(learnt.by_operation(found)) if several else "one search"}
            | {"preset": preset}
        )
    return pd.DataFrame(rows)


def transfer(found: dict[str, Genotype], preset: str) -> pd.DataFrame:
    """Return Table 2's errors beside the sizes that the cells found here have in its networks; nothing is trained.

    Args:
        found: by arm, genotypes of any depth, restacked here to 14 cells.
    """
    paper, rows = reported.table("table2", PAPER).set_index("architecture"), []
    for arm, genotype in found.items():
        size = sizes(restacked(genotype, IMAGENET_CELLS), IMAGENET_CHANNELS, 1000, 224, "imagenet")
        rows.append(
            {"architecture": arm, "paper, top-1 error (%)": paper.loc[arm, "top1"]}
            | {"paper, top-5 error (%)": paper.loc[arm, "top5"]}
            | {"here, parameters (M)": round(size["parameters"] / 1e6, 2)}
            | {"here, multiply-adds (M)": round(size["multiply_adds"] / 1e6)}
            | {"preset": preset}
        )
    return pd.DataFrame(rows)


def by_batch(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each arm, batch and seed of `ssnas.representations`, with its test accuracies as columns
    "probe" and "fine-tuned"; "arm" names the batch as well.
    """
    wide = frame.pivot(index=["arm", "batch", "seed"], columns="what", values="test").reset_index()
    named = [batch_name(arm, batch) for arm, batch in zip(wide["arm"], wide["batch"], strict=True)]
    return wide.assign(architecture=wide["arm"], arm=named)


def batch_name(arm: str, batch: int) -> str:
    """Return what an arm at a contrastive batch is called."""
    return f"{arm}, batch {batch}"


def representations(frame: pd.DataFrame, losses: pd.DataFrame, preset: str) -> pd.DataFrame:
    """Return Table 4: accuracies of linear probes and of fine-tunings, by architecture and contrastive batch.

    Args:
        frame: the trainings of `ssnas.representations`. losses: of `ssnas.contrastive_losses`, by which one seed of
            each arm is selected.
    """
    wide, rows = by_batch(frame), []
    chosen = dict(zip(*selected(losses, "loss", lowest=True)[["arm", "seed"]].to_numpy().T, strict=True))
    here = dict(zip((32, 64), sorted(frame["batch"].unique()), strict=True))
    for arm, batch, linear, semi in reported.table("table4", PAPER).itertuples(index=False):
        row: dict[str, Any] = {"architecture": arm, "paper, batch": batch, "paper, probe (%)": linear}
        row |= {f"paper, {TUNED}": semi, "here, batch": here[batch]}
        own = wide[(wide["architecture"] == arm) & (wide["batch"] == here[batch])]
        if arm != RESNET:
            one = own[own["seed"] == chosen[arm]].iloc[0]
            row |= {"here, probe (%)": spread(own["probe"]), f"here, {TUNED}": spread(own["fine-tuned"])}
            row |= {"selected seed": chosen[arm], "selected, probe (%)": one["probe"]}
            row |= {f"selected, {TUNED}": one["fine-tuned"]}
        rows.append(row)
    return pd.DataFrame(rows).round(2).assign(preset=preset)


def start_name(arm: str, init: str) -> str:
    """Return what an arm from a start is called."""
    return f"{arm}, {'random weights' if init == 'random' else INITS[init]}"


def starts(best: pd.DataFrame, preset: str) -> pd.DataFrame:
    """Return Table 5: accuracies on few labels by architecture and start, each at its own learning rate."""
    weights, rows = {"pretrained": "simclr", "random weights": "random"}, []
    for arm, start, accuracy in reported.table("table5", PAPER).itertuples(index=False):
        row: dict[str, Any] = {"architecture": arm, "start": start, "paper, test accuracy (%)": accuracy}
        own = best[(best["arm"] == arm) & (best["init"] == weights[start])]
        if len(own):
            row |= {"here, test accuracy (%)": spread(own["test"]), "learning rate": own["lr"].iloc[0]}
            row |= {"labels": own["labels"].iloc[0]}
        rows.append(row)
    return pd.DataFrame(rows).assign(preset=preset)


def losses_table(losses: pd.DataFrame, preset: str) -> pd.DataFrame:
    """Return the contrastive losses on images that short pre-trainings have not seen, and which seed has the lowest."""
    chosen = selected(losses, "loss", lowest=True)
    return losses[["arm", "seed", "loss", "accuracy"]].assign(
        **{"selected": losses.index.isin(chosen.index)}, preset=preset
    )
