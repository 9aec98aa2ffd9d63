"""Reported beside measured, from records alone.

Every table carries: paper | measured mean ± sd (n seeds) | preset.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from sswp_lib.paper.claims import Effect
from sswp_lib.paper.output import Output
from sswp_lib.runs.records import Done, Record

INITS = {
    "random": "random",
    "simclr": "SimCLR pre-trained",
    "simclr_matched": "SimCLR, matched steps and images",
    "concomitant": "concomitant",
}

AVERAGED = "test by running averages"  # the column of test accuracies that nothing is judged by (Record.accuracies)

WORDS = {  # of columns whose names are made for programs
    "params_M": "parameters (M)",
    "madds_M": "multiply-adds (M)",
    "gpu_days": "GPU days",
    "cifar10": "CIFAR-10 (%)",
    "cifar10_std": "CIFAR-10, sd",
    "cifar100": "CIFAR-100 (%)",
    "top1": "top-1 (%)",
    "top5": "top-5 (%)",
    "simclr": "SimCLR",
    "s": "signal to noise of an update, s",
}


def words(column: str) -> str:
    """Return a column's name as a reader is shown it: "params_M measured" as "parameters (M), measured"."""
    first, _, rest = column.partition(" ")
    return (WORDS[first] + (f", {rest}" if rest else "")) if first in WORDS else column


def inits(found: Iterable[str]) -> list[str]:
    """Return the initialisations among `found`, in the order of all tables and figures."""
    return [init for init in INITS if init in set(found)]


def save(table: pd.DataFrame, name: str, output: Output, caption: str = "") -> pd.DataFrame:
    """Write a table as csv, markdown and LaTeX beside the figures, the caption above it; returns it."""
    path, title = output.folder / name, f"{caption or name}. Preset {output.label}"
    table.to_csv(path.with_suffix(".csv"), index=False)
    shown = _shown(table)
    shown = shown.astype(object).where(shown.notna(), "")
    path.with_suffix(".md").write_text(f"**{title}**\n\n{shown.to_markdown(index=False)}\n")
    latex = shown.style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis=1)
    path.with_suffix(".tex").write_text(latex.to_latex(caption=escaped(title), hrules=True))
    return table


def escaped(text: str) -> str:
    """Return text as LaTeX takes it."""
    return re.sub(r"([%&_#$])", r"\\\1", text)


def _shown(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table as readers see it: without the columns that are for other tables to be made from (see
    `claims.ledger`), the others named in words.
    """
    return table.drop(columns=table.attrs.get("not shown", [])).rename(columns=words)


def styled(table: pd.DataFrame, caption: str = ""):
    """Return the table as a notebook shows it: without index, numbers to two places, the caption above."""
    return (
        _shown(table)
        .style.hide(axis="index")
        .format({"p": "{:.3g}"}, precision=2, na_rep="")
        .set_caption(caption or table.attrs.get("caption", ""))
    )


def runs(records: Sequence[Record]) -> str:
    """Return one line a run: name, data, seed, outcome, time."""
    if not records:
        return "no finished runs yet; start with: sswp search"
    rows = []
    for r in records:
        test = r.accuracies.get("test", {}).get("top1")
        outcome = f"test {test:.2f} %" if test is not None else f"loss {r.history[-1]['loss']:.3f}" if r.history else ""
        init = r.config.get("train", {}).get("init", "")
        rows.append(
            {
                "run": r.name,
                "data": r.config["data"].get("name", ""),
                "init": init,
                "seed": r.seed,
                "outcome": outcome,
                "seconds": round(r.provenance["seconds"]),
            }
        )
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
        "contrastive accuracy of supernet and "
        "of exported network (%)": f"{100 * result['supernet']['accuracy']:.1f} and "
        f"{100 * result['exported']['accuracy']:.1f}",
        "operations changed by the caps": result["changed_by_caps"],
        "share of skips (%)": round(100 * result["skip_share"], 1),
        "parameters of the network (M)": round(result["parameters"] / 1e6, 3),
        "multiply-adds (M)": round(result["multiply_adds"] / 1e6, 2),
        "seconds": round(record.provenance["seconds"]),
    }
    return pd.DataFrame({"measured": list(rows), "value": [str(v) for v in rows.values()]})


def memory(measured: Record) -> pd.DataFrame:
    """Return the peak memory of search steps against compact networks, and of seven candidates against three."""
    held, steps = measured.result["bytes"], ["weight step", "architecture step"]
    more = [name for name in held if name.endswith(" evaluated")]  # by a step that evaluates more than two
    ratios = {
        f"against the compact network, {edges} edges": [held[s] / held[f"compact, {edges} edges"] for s in steps + more]
        for edges in (8, 14)
    }
    candidates = [held[f"{s}, 7 candidates"] / held[f"{s}, 3 candidates"] for s in steps] + [math.nan] * len(more)
    return pd.DataFrame({"step": steps + more, **ratios, "7 candidates against 3": candidates}).round(3)


def trainings(done: Iterable[Done]) -> pd.DataFrame:
    """Return one row a training: its labels, validation and test accuracy in percent, how many labels it had, and how
    many held-out ones its learning rate may have been chosen on.
    """
    rows = []
    for job in done:
        result = job.record.result
        row = {**job.labels, "labels": result["trained_on"], "validation labels": result["validated_on"]}
        judged = {part: found["top1"] for part, found in job.record.accuracies.items()}
        rows.append({**row, **judged, AVERAGED: result["test"]["top1"], "run": job.record.name})
    return pd.DataFrame(rows)


def by_arm(done: Iterable[Done]) -> pd.DataFrame:
    """Return one row for each arm and seed of an ablation: what its search found, how far alpha had come, and test
    accuracy from scratch and fine-tuned, in percent, the mean over trainings that were repeated.
    """
    rows: dict[tuple, dict[str, Any]] = {}
    accuracies: dict[tuple, list[float]] = {}
    for job in done:
        arm, seed, what = (job.labels[name] for name in ("arm", "seed", "what"))
        row, record = rows.setdefault((arm, seed), {"arm": arm, "seed": seed}), job.record
        repeat = f" {job.labels['repeat']}" if "repeat" in job.labels else ""
        row[f"{what}{repeat} run"] = record.name
        if "search run" in job.labels:
            row["search run"] = job.labels["search run"]
        if what == "search":
            row |= _searched(record)
        else:
            result = record.result
            accuracies.setdefault((arm, seed, what), []).append(record.accuracies["test"]["top1"])
            row |= {"parameters": result["parameters"], "labels": result["trained_on"]}
    for (arm, seed, what), values in accuracies.items():
        rows[arm, seed][what] = sum(values) / len(values)
    return pd.DataFrame(rows.values())


def _searched(record: Record) -> dict[str, Any]:
    result, labelled = record.result, record.config["search"]["objective"] == "supervised"
    supernet, exported = (100 * result[name]["accuracy"] for name in ("supernet", "exported"))
    return {
        "supernet": supernet,
        "exported": exported,
        "gap": supernet - exported,
        "skips": 100 * result["skip_share"],
        "changed by caps": result["changed_by_caps"],
        "largest": result["alpha"]["largest"],
        "entropy": result["alpha"]["entropy"],
        "searched labels": result["images"] if labelled else 0,
    }


def arms(
    frame: pd.DataFrame,
    order: Sequence[str],
    preset: str,
    reported: dict[str, float] | None = None,
    columns: Sequence[str] = ("scratch", "fine-tuned"),
) -> pd.DataFrame:
    """Return one row an arm: the paper's test error beside those measured, mean ± sd (n seeds), in percent.

    Where the arms are searches, how far alpha had come stands beside them (entropy as a share of the greatest: at 1 an
    architecture is drawn by lot), and how many labels the search had seen: the weights that fine-tuning starts from
    have seen them too.
    """
    rows = []
    for arm in order:
        found = frame[frame["arm"] == arm]
        row: dict[str, Any] = {"arm": arm}
        if reported is not None:
            row["paper, test error (%)"] = reported.get(arm)
        row |= {f"here, test error, {column} (%)": spread(100 - found[column].dropna()) for column in columns}
        if "skips" in found and found["skips"].notna().any():  # where the arm is a search
            row |= {
                "skips (%)": spread(found["skips"]),
                "largest probability of alpha": round(found["largest"].max(), 3),
                "entropy of alpha": round(found["entropy"].mean(), 3),
                "labels that the search saw": int(found["searched labels"].iloc[0]),
            }
        rows.append({**row, "parameters (k)": round(found["parameters"].mean() / 1e3, 1), "preset": preset})
    return pd.DataFrame(rows)


def probes(frame: pd.DataFrame, reported: dict[str, float], preset: str) -> pd.DataFrame:
    """Return accuracy of linear probes by what was searched with, the paper's beside those measured."""
    rows = [
        {
            "search": arm,
            "paper, accuracy (%)": value,
            "here, accuracy (%)": spread(frame[frame["arm"] == arm]["test"]),
            "preset": preset,
        }
        for arm, value in reported.items()
    ]
    return pd.DataFrame(rows)


def relative_gains(gains: dict[str, Effect], reported: dict[str, float], preset: str) -> pd.DataFrame:
    """Return relative gains with their 95 % intervals, the paper's beside them, in points."""
    rows = [
        {
            "arm": a,
            "paper": reported.get(a),
            "here": round(e.mean, 2),
            "low": round(e.low, 2),
            "high": round(e.high, 2),
            "n": e.n,
            "preset": preset,
        }
        for a, e in gains.items()
    ]
    return pd.DataFrame(rows)


def gaps(frame: pd.DataFrame, order: Sequence[str], preset: str) -> pd.DataFrame:
    """Return, for each arm, the contrastive accuracy of supernet and exported network, and the gap between them."""
    columns = ["supernet", "exported", "changed by caps"]
    means = frame.groupby("arm")[columns].mean().round(2).loc[list(order)].reset_index()
    return means.assign(
        **{"gap (points)": [spread(frame[frame["arm"] == arm]["gap"]) for arm in order], "preset": preset}
    )


def curve(
    frame: pd.DataFrame, by: str, preset: str, rename: dict[str, str] | None = None, column: str = "test"
) -> pd.DataFrame:
    """Return test accuracy (`column`) by initialisation (columns) and another label (rows), mean ± sd (n seeds)."""
    wide = frame.groupby([by, "init"])[column].apply(spread).unstack()
    wide = wide[inits(wide)].rename(columns={k: f"{v}, test accuracy (%)" for k, v in INITS.items()})
    return wide.reset_index().rename(columns=rename or {}).assign(preset=preset)


def weight_norms(measured: Record) -> pd.Series:
    """Return the root mean square of each weight tensor of a start's convolutions, by name, from `runs.start_norms`."""
    return pd.Series(measured.result["norms"], name="root mean square")


def norms_by_part(norms: dict[str, pd.Series]) -> pd.DataFrame:
    """Return the median of `weight_norms` of a pre-trained and of a concomitant start, and their ratio, by part of the
    network.
    """
    both = pd.DataFrame(norms).dropna()
    parts = {
        name: both[both.index.str.contains(part)]
        for name, part in {"stem": "stem", "preprocessing": "preprocess", "operations": "edges"}.items()
    }
    rows = [
        {"weights": name, "tensors": len(part), **part.median().round(4).to_dict()}
        for name, part in parts.items()
        if len(part)
    ]
    return pd.DataFrame(rows).assign(ratio=lambda t: (t["concomitant"] / t["simclr"]).round(2))


def with_sizes(reported: pd.DataFrame, measured: dict[str, dict[str, int]], columns: dict[str, str]) -> pd.DataFrame:
    """Put measured sizes, in millions, beside a reported table's; `columns` is {size: the reported column}, rows go by
    architecture.
    """
    table = reported.copy()
    for size, column in columns.items():
        here = (
            table["architecture"]
            .map({name: sizes[size] / 1e6 for name, sizes in measured.items()})
            .astype(float)
            .round(2)
        )
        table.insert(table.columns.get_loc(column) + 1, f"{column} measured", here)
    return table


def multiply_adds(measured: dict[str, dict[str, int]], reported: dict[str, float]) -> pd.DataFrame:
    """Return multiply-adds by what is counted, in millions, beside the reported ones, and the ratios of these to
    ours.
    """
    rows = [
        {
            "architecture": name,
            "convolutions and linear (M)": s["multiply_adds"] / 1e6,
            "elementwise (M)": s["elementwise"] / 1e6,
            "reported (M)": reported[name],
        }
        for name, s in measured.items()
    ]
    table, ours = pd.DataFrame(rows), "convolutions and linear (M)"
    ratios = {
        "reported / ours": table["reported (M)"] / table[ours],
        "reported / (ours and elementwise)": table["reported (M)"] / (table[ours] + table["elementwise (M)"]),
    }
    return table.assign(**ratios).round(3)


def cost(records: Sequence[Record]) -> pd.DataFrame:
    """Return device-hours by kind of run, from the records."""
    rows = [
        {"kind": r.kind, "device": r.provenance["device"], "hours": r.provenance["seconds"] / 3600} for r in records
    ]
    table = pd.DataFrame(rows).groupby(["kind", "device"])["hours"].agg(["count", "sum", "mean"]).reset_index()
    return table.rename(columns={"count": "runs", "sum": "device-hours", "mean": "device-hours a run"}).round(3)


def best(runs: pd.DataFrame, start: Sequence[str] = ("init",), choice: Sequence[str] = ("lr",)) -> pd.DataFrame:
    """Return what each start trains best with: a row for each of the columns `start`, with the `choice` of the highest
    mean validation accuracy, the first of equal ones.
    """
    mean = runs.groupby([*start, *choice])["validation"].mean().reset_index()
    ranked = mean.sort_values("validation", ascending=False, kind="stable").drop_duplicates([*start])
    return ranked.sort_values([*start])[[*start, *choice]]


def at_best(runs: pd.DataFrame, start: Sequence[str] = ("init",), choice: Sequence[str] = ("lr",)) -> pd.DataFrame:
    """Keep each start's runs by its `best` choice, in their order."""
    return runs.merge(best(runs, start, choice), on=[*start, *choice])


def best_lr(runs: pd.DataFrame) -> dict[str, float]:
    """Return the `best` learning rate of each initialisation."""
    return dict(best(runs).itertuples(index=False, name=None))


def spread(values: pd.Series) -> str:
    """Return "mean ± sd (n)"."""
    return (
        f"{values.mean():.2f} ± {values.std(ddof=1):.2f} ({len(values)})"
        if len(values) > 1
        else f"{values.mean():.2f} (1)"
    )


def by_start(best: dict[str, pd.DataFrame], preset: str) -> pd.DataFrame:
    """Return test accuracy by augmentation of the training and by initialisation, beside what the paper says of it (it
    gives Figure 5 as a picture, without numbers).

    Args:
        best: {augmentation: runs at each initialisation's best learning rate}.
    """
    rows = []
    for augmentation, runs in best.items():
        for init, group in runs.groupby("init", sort=False):
            row = {
                "augmentation": augmentation,
                "initialisation": INITS[init],
                "learning rate": group["lr"].iloc[0],
                "labels": group["labels"].iloc[0],
                "paper": {"concomitant": "higher (Fig. 5)", "random": "lower (Fig. 5)"}.get(init, "between (Fig. 5)"),
                "test accuracy (%), mean ± sd (n fine-tunings)": spread(group["test"]),
                "searches": group["search"].nunique(),
                "preset": preset,
            }
            rows.append(row)
    return pd.DataFrame(rows)
