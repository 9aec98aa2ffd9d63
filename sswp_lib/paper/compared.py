"""Two reports beside one another: which verdicts differ, and whether their effects differ by more than chance.

Reports that rest on different runs are independent: of two effects a and b with standard errors s_a and s_b, from n_a
and n_b units, b - a has the standard error sqrt(s_a² + s_b²) and Welch's degrees of freedom. All claims that can be
compared are judged together (Holm). A standard error is Student's interval taken back, and as exact as the two decimals
of the reports. Where that may not be done a row says why, and no difference is given.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import hypot
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from sswp_lib.config import InputError
from sswp_lib.paper.claim import NOT_TESTABLE
from sswp_lib.paper.claims import gathered
from sswp_lib.paper.effects import ALPHA, SEVERAL, holm, quantile
from sswp_lib.runs import files

PATTERN = "[0-9]*_claims.csv"  # what notebooks write of their claims
NEEDED = ("key", "claim", "measure", "mean", "low", "high", "n", "p", "alone", "note", "runs")
SHOWN = ("mean", "low", "high", "n")  # of each side
EACH = tuple(f"{name}, " for name in SHOWN)  # how the columns of each side begin
ROUNDED = 0.0201  # how far two ends of two decimals may be from lying evenly about the mean between them
NARROWEST = 0.1  # of an interval, of which two decimals still tell a tenth
DIFFERS, CHANCE = "more than chance", "within chance"


@dataclass(frozen=True)
class Side:
    """One effect as a report has it: n units, and the standard error of its mean."""

    mean: float
    error: float
    n: int


def read(folder: Path) -> pd.DataFrame:
    """Return the claims of a folder of results, judged together, by key; of a key that stands there twice, such as of
    two data sets, the rows in order.

    Raises:
        InputError: no such folder, no claims in it, or files that are no ledgers of this release.
    """
    if not folder.is_dir():
        raise InputError(f"no folder {str(folder)!r}; expected one of results, such as figures/quick")
    parts = [_ledger(path) for path in sorted(folder.glob(PATTERN))]
    claims = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    if claims.empty:
        raise InputError(f"no claims in {str(folder)!r}; expected files such as 01_claims.csv, as notebooks write them")
    claims = gathered(claims)
    return claims.set_index([claims["key"], claims.groupby("key").cumcount()])


def _ledger(path: Path) -> pd.DataFrame:
    try:
        found = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{str(path)!r} cannot be read ({files.reason(error)}); expected a ledger") from None
    lacking = [name for name in NEEDED if name not in found]
    if lacking:
        raise InputError(f"{str(path)!r} has no column {lacking[0]!r}; execute the notebook again")
    return found


def compare(first: Path, second: Path) -> pd.DataFrame:
    """Return a row for each claim that both folders have: verdicts, effects, and the second's effect minus the first's
    with its 95 % interval, or why there is none. `attrs` has the folders' names and the claims that only one has.

    Raises:
        InputError: as `read`, the same folder twice, or no claim that both have.
    """
    if first.resolve() == second.resolve():
        raise InputError(f"{str(first)!r} and {str(second)!r} are the same folder; expected two")
    a, b = read(first), read(second)
    both = [place for place in a.index if place in b.index]
    if not both:
        raise InputError(f"{str(first)!r} and {str(second)!r} have no claim in common")
    names = (first.name, second.name) if first.name != second.name else (str(first), str(second))
    table = pd.DataFrame([_row(dict(zip(names, (a.loc[place], b.loc[place]), strict=True))) for place in both])
    tested = table["p"].notna()
    together = table["p"].copy()
    together[tested] = holm(table["p"][tested])
    table["effects differ"] = table["effects differ"].where(~tested, np.where(together < ALPHA, DIFFERS, CHANCE))
    table.insert(table.columns.get_loc("p") + 1, "p, Holm", together)
    only = ([key for key in own["key"] if key not in set(other["key"])] for own, other in ((a, b), (b, a)))
    table.attrs["only in"] = dict(zip(names, only, strict=True))
    table[["p", "p, Holm"]] = table[["p", "p, Holm"]].map(lambda p: float(f"{p:.3g}"))
    return table.round({"difference": 2, "low": 2, "high": 2, "df": 1})


def _row(sides: dict[str, pd.Series]) -> dict[str, object]:
    """Return a claim's row; where its effects cannot be compared the numbers are missing, and the last column says
    why.

    Args:
        sides: {a folder's name: the claim's row there}, the first and the second.
    """
    a, b = sides.values()
    why = _not_comparable(a, b)
    found = dict.fromkeys(("difference", "low", "high", "df", "p"), np.nan) if why else difference(side(a), side(b))
    return {
        **{"key": a["key"], "claim": a["claim"], "verdicts differ": "yes" if a["verdict"] != b["verdict"] else "no"},
        **{f"verdict, {name}": row["verdict"] for name, row in sides.items()},
        **{f"{column}, {name}": row[column] for name, row in sides.items() for column in SHOWN},
        **found,
        "effects differ": why,
    }


def _not_comparable(a: pd.Series, b: pd.Series) -> str:
    """Return why two rows of a claim cannot be compared; empty where they can."""
    runs, others = set(a["runs"].split()), set(b["runs"].split())
    against = [re.findall(r"\bagainst ([^;,]+)", row["note"]) for row in (a, b)]
    if runs and runs == others:
        return "not compared: the same runs"
    if runs & others:
        return f"not compared: {len(runs & others)} of the runs are the same"
    if not runs or not others:
        return "not compared: the runs are not named"
    if a["measure"] != b["measure"] or against[0] != against[1]:
        return "not compared: not the same was measured"
    if NOT_TESTABLE in (a["alone"], b["alone"]):
        return f"not compared: {NOT_TESTABLE}"
    if side(a) is None or side(b) is None:
        return "not compared: no interval of Student's, or one too narrow for two decimals"
    return ""


def side(row: pd.Series) -> Side | None:
    """Return an effect with its standard error; None where its interval does not tell it: there is none, it is a
    bootstrap's, or too narrow.
    """
    mean, low, high, n = (pd.to_numeric(row[name], errors="coerce") for name in SHOWN)
    several = re.search(SEVERAL.format(r"(\d+)"), row["note"])
    if not n >= 2 or not high - low >= NARROWEST or abs(low + high - 2 * mean) > ROUNDED:
        return None
    return Side(mean, (high - low) / 2 / quantile(int(n), int(several[1]) if several else 1), int(n))


def difference(a: Side, b: Side) -> dict[str, float]:
    """Return b - a with its 95 % interval, Welch's degrees of freedom and the two-sided p against 0."""
    error, change = hypot(a.error, b.error), b.mean - a.mean
    df = error**4 / (a.error**4 / (a.n - 1) + b.error**4 / (b.n - 1))
    half = float(stats.t.ppf(1 - ALPHA / 2, df)) * error
    p = float(2 * stats.t.sf(abs(change) / error, df))
    return {"difference": change, "low": change - half, "high": change + half, "df": df, "p": p}


def in_words(table: pd.DataFrame) -> list[str]:
    """Return what a comparison says, in a few lines."""
    tested, why = table["p"].notna(), table["effects differ"]
    changed, beyond = (list(table["key"][rows]) for rows in (table["verdicts differ"] == "yes", why == DIFFERS))
    return [
        f"{len(table)} claims in both; the verdicts of {_listed(changed)} differ",
        f"{tested.sum()} effects compared; those of {_listed(beyond)} differ by {DIFFERS} (Holm's p < {ALPHA:g})",
        *(f"{count} {reason}" for reason, count in why[~tested].value_counts().items()),
        *(f"only in {name}: {', '.join(keys)}" for name, keys in table.attrs["only in"].items() if keys),
    ]


def _listed(keys: list[str]) -> str:
    return f"{len(keys)} ({', '.join(keys)})" if keys else "none"


def printed(table: pd.DataFrame) -> str:
    """Return a comparison as a terminal shows it: without texts and the effects of each side; what it says, below."""
    short = table.drop(columns=["claim", "verdicts differ", "df", "p", *(c for c in table if c.startswith(EACH))])
    return "\n".join([short.to_string(index=False, na_rep=""), "", *in_words(table)])


def write(table: pd.DataFrame, path: Path) -> None:
    """Write a comparison whole, as CSV or, with its words above, as Markdown, by the file's ending."""
    if path.suffix == ".csv":
        content = table.to_csv(index=False)
    elif path.suffix == ".md":
        lines = "\n".join(f"- {line}" for line in in_words(table))
        content = f"{lines}\n\n{table.astype(object).where(table.notna(), '').to_markdown(index=False)}\n"
    else:
        raise InputError(f"output {str(path)!r}: unknown ending {path.suffix!r}; expected .csv or .md")
    files.write(path, content.encode())
