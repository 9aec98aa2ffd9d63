"""Reported beside measured, from records alone.

Every table carries: paper | measured mean ± sd (n seeds) | preset.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from sswp_lib.config import home
from sswp_lib.lab.records import Record

INITS = {"random": "random", "simclr": "SimCLR pre-trained", "concomitant": "concomitant"}


def figures_folder(preset: str) -> Path:
    """Return (and make) the folder of a preset's figures and tables."""
    folder = home() / "figures" / preset
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def save(table: pd.DataFrame, name: str, preset: str) -> pd.DataFrame:
    """Write a table as csv beside the figures; returns it."""
    table.to_csv(figures_folder(preset) / f"{name}.csv", index=False)
    return table


def runs(records: Sequence[Record]) -> str:
    """Return one line a run: name, data, seed, outcome, time."""
    if not records:
        return "no finished runs yet; start with: sswp search"
    rows = []
    for r in records:
        test = r.result.get("test", {}).get("top1")
        outcome = f"test {test:.2f} %" if test is not None else f"loss {r.history[-1]['loss']:.3f}" if r.history else ""
        init = r.config.get("train", {}).get("init", "")
        rows.append({"run": r.name, "data": r.config["data"].get("name", ""), "init": init, "seed": r.seed, "outcome": outcome, "seconds": round(r.provenance["seconds"])})
    return pd.DataFrame(rows).to_string(index=False)


def summary(record: Record) -> pd.DataFrame:
    """Return a search's result in a few rows."""
    result, last = record.result, record.history[-1]
    views = 2 * record.config["search"]["batch_size"]
    rows = {
        "images, unlabelled": result["images"],
        f"contrastive loss at chance, log({views} - 1)": round(math.log(views - 1), 3),
        "contrastive loss, last epoch": round(last["loss"], 3),
        "contrastive accuracy, last epoch (%)": round(100 * last["accuracy"], 1),
        "contrastive accuracy of supernet and of exported network (%)": f"{100 * result['supernet']['accuracy']:.1f} and {100 * result['exported']['accuracy']:.1f}",
        "operations changed by the caps": result["changed_by_caps"],
        "share of skips (%)": round(100 * result["skip_share"], 1),
        "parameters of the network (M)": round(result["parameters"] / 1e6, 3),
        "multiply-adds (M)": round(result["multiply_adds"] / 1e6, 2),
        "seconds": round(record.provenance["seconds"]),
    }
    return pd.DataFrame({"measured": list(rows), "value": [str(v) for v in rows.values()]})


def fine_tuning(records: Sequence[Record]) -> pd.DataFrame:
    """Return one row a training: initialisation, learning rate, seed, validation and test accuracy in percent."""
    rows: list[dict[str, Any]] = []
    for r in records:
        t = r.config["train"]
        rows.append({
            "init": t["init"], "lr": t["lr"], "seed": r.seed, "labels": r.result["trained_on"],
            "validation": r.result["validation"]["top1"], "test": r.result["test"]["top1"],
        })  # fmt: skip
    return pd.DataFrame(rows)


def at_best_lr(runs: pd.DataFrame) -> pd.DataFrame:
    """Keep, for each initialisation, the runs at the learning rate of the highest mean validation accuracy."""
    mean = runs.groupby(["init", "lr"])["validation"].mean()
    best = mean.groupby("init").idxmax()
    return pd.concat([runs[(runs.init == init) & (runs.lr == lr)] for init, lr in best]).sort_values(["init", "seed"])


def spread(values: pd.Series) -> str:
    """Return "mean ± sd (n)"."""
    return f"{values.mean():.2f} ± {values.std(ddof=1):.2f} ({len(values)})" if len(values) > 1 else f"{values.mean():.2f} (1)"


def by_init(best: pd.DataFrame, preset: str) -> pd.DataFrame:
    """Return test accuracy by initialisation, beside what the paper says of it (it gives Figure 5 as a picture, without numbers)."""
    rows = []
    for init, group in best.groupby("init", sort=False):
        rows.append({
            "initialisation": INITS[init], "learning rate": group.lr.iloc[0], "labels": group.labels.iloc[0],
            "paper": "higher (Fig. 5)" if init == "concomitant" else "lower (Fig. 5)" if init == "random" else "between (Fig. 5)",
            "test accuracy (%), mean ± sd (n seeds)": spread(group.test), "preset": preset,
        })  # fmt: skip
    return pd.DataFrame(rows)
