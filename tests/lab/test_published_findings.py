"""What notebooks say of the reference results is what these say."""

import json

import pandas as pd

from sswp_lib.config import home
from sswp_lib.paper.pi_nas import ARMS


def first_lines(number: str) -> str:
    (path,) = (home() / "notebooks").glob(f"{number}_*.ipynb")
    return "".join(json.loads(path.read_text())["cells"][0]["source"])


def test_which_supernets_of_the_reference_rank_better_than_the_number_of_parameters():
    """Notebook 09 says so in its first lines; where a new reference has it otherwise, they are to be changed."""
    table = pd.read_csv(home() / "figures" / "quick" / "09_table7.csv").set_index("arm")["tau"].astype(str)
    taus = {arm: float(text.split()[0]) for arm, text in table.items()}
    parameters = next(tau for arm, tau in taus.items() if arm.startswith("parameters"))
    better = [arm for arm in ARMS if taus[arm] > parameters]
    said = f"only {' and '.join(better)} ranked better than the *number of parameters* does"
    none = "no arm's supernets rank as well as the *number of parameters* does"
    assert (said if better else none) in first_lines("09")
    convolutions = next(tau for arm, tau in taus.items() if arm.startswith("3x3 convolutions"))
    assert ("no better than the number of 3x3 convolutions" in first_lines("09")) == (
        bool(better) and max(taus[arm] for arm in better) <= convolutions
    )
    assert ("agree less with one another than these two do" in first_lines("09")) == (
        taus["ceiling, no supernet"] < min(parameters, convolutions)
    )


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
