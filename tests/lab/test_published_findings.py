"""What notebooks say of the reference results is what these say."""

import json

import pandas as pd
import pytest

from sswp_lib.config import home
from sswp_lib.paper.pi_nas import ARMS
from sswp_lib.paper.pi_nas_claims import SPOS, UNTRAINED


def first_lines(number: str) -> str:
    (path,) = (home() / "notebooks").glob(f"{number}_*.ipynb")
    return "".join(json.loads(path.read_text())["cells"][0]["source"])


def found_in(folder: str) -> str:
    """What notebook 09's first lines say of results in figures/<folder>/."""
    (said,) = [
        line for line in first_lines("09").splitlines() if line.startswith("- ") and f"figures/{folder}/" in line
    ]
    return said


def published_taus(folder: str) -> dict[str, float]:
    table = pd.read_csv(home() / "figures" / folder / "09_table7.csv").set_index("arm")["tau"].astype(str)
    return {arm.removesuffix(", no supernet"): float(text.split()[0]) for arm, text in table.items()}


@pytest.mark.parametrize("folder", ["quick", "cifar"])
def test_which_supernets_rank_better_than_the_number_of_parameters(folder):
    """Notebook 09 says so in its first lines; where new results have it otherwise, they are to be changed."""
    taus, lines = published_taus(folder), found_in(folder)
    parameters, convolutions = taus["parameters"], taus["3x3 convolutions"]
    better = [arm for arm in ARMS if taus[arm] > parameters]
    said = f"only {' and '.join(better)} ranked better than the *number of parameters* does"
    none = "no arm's supernets rank as well as the *number of parameters* does"
    assert (said if better else none) in lines
    assert ("no better than the number of 3x3 convolutions" in lines) == (
        bool(better) and max(taus[arm] for arm in better) <= convolutions
    )
    assert ("agree less with one another than these two do" in lines) == (
        taus["ceiling"] < min(parameters, convolutions)
    )


def test_what_is_said_of_photographs_is_what_was_measured():
    taus, lines = published_taus("cifar"), found_in("cifar")
    best = max(ARMS, key=taus.get)
    (alone,) = [name for name in taus if "trained alone at this size" in name]
    for name in ("parameters", best, UNTRAINED, alone):
        assert f"{taus[name]:.2f}" in lines, name
    assert best in lines and alone.split()[0] in lines
    without = [taus[arm] for arm in ARMS if arm not in (SPOS, UNTRAINED)]
    assert (f"{min(without):.2f} to {max(without):.2f}" in lines) and max(without) < 0
    frame = pd.read_csv(home() / "figures" / "cifar" / "09_table7_runs.csv")
    assert (frame.groupby("arm")["seed"].nunique() == 5).all() and "five supernets of each arm" in lines
    claims = pd.read_csv(home() / "figures" / "cifar" / "ledger.csv").set_index("key")["verdict"]
    assert claims[["pi_collapse", "pi_consistency"]].tolist() == ["seen", "seen"]


def test_what_the_readme_says_of_night_is_what_its_ledger_says():
    said, table = (home() / "README.md").read_text(), pd.read_csv(home() / "figures" / "night" / "ledger.csv")
    decided, tested = table["verdict"].isin(["seen", "contradicted"]), table["p, Holm"].notna()
    assert f"decides {decided.sum()} of the {tested.sum()} claims" in said
    assert (table.loc[decided, "n"] >= 12).all(), "searches a comparison"
    found = table[table["key"] == "found_beats_same_size"].set_index("preset")
    digits, (slice_,) = found.loc["night"], [row for preset, row in found.iterrows() if preset != "night"]
    for row in (digits, slice_):
        assert f"{row['mean']:+.1f}" in said and f"[{row['low']:.1f}, {row['high']:.1f}]" in said
    assert (digits["verdict"], slice_["verdict"]) == ("seen", "undecided")
