"""The notebooks run headlessly at the preset `smoke`, leave their figures, and refuse wrong parameters at once."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from sswp_lib.config import InputError, home
from sswp_lib.lab import records, reproduce

FIGURES = ("views", "phases", "search_curves", "entropy", "operation_shares", "genotype", "memory", "learning_rates", "fine_tuning")


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """Run notebook 01 in a run store of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSWP_RUNS", str(tmp_path_factory.mktemp("runs")))
        failed = reproduce.reproduce("smoke", only=["01"])
        yield failed, records.everything()


def test_notebook_runs_and_leaves_figures_and_tables(smoke):
    failed, _ = smoke
    assert failed == []
    folder = home() / "figures" / "smoke"
    for name in FIGURES:
        assert (folder / f"01_{name}.png").stat().st_size > 5000, name
        assert (folder / f"01_{name}.svg").read_text().lstrip().startswith("<?xml"), name
    executed = json.loads((folder / "01_search.ipynb").read_text())
    assert not [c for c in executed["cells"] if any(o.get("output_type") == "error" for o in c.get("outputs", []))]


def test_tables_are_made_from_the_records(smoke):
    _, found = smoke
    table = pd.read_csv(home() / "figures" / "smoke" / "01_fine_tuning_runs.csv")
    measured = {(r.config["train"]["init"], r.config["train"]["lr"], r.seed): r.result["test"]["top1"] for r in found if r.kind == "train"}
    assert len(table) == 4  # two kinds of start, two seeds
    for row in table.itertuples():
        assert measured[row.init, row.lr, row.seed] == pytest.approx(row.test)


def test_notebooks_are_committed_without_outputs_and_their_cells_are_short():
    for path in reproduce.notebooks():
        cells = json.loads(path.read_text())["cells"]
        code = [c for c in cells if c["cell_type"] == "code"]
        assert all(not c["outputs"] and c["execution_count"] is None for c in code), path.name
        assert max("".join(c["source"]).count("\n") + 1 for c in code) <= 15, path.name
        assert [c for c in code if "parameters" in c["metadata"].get("tags", [])], path.name


def test_wrong_words_are_refused_before_anything_runs():
    with pytest.raises(InputError, match="did you mean 'smoke'"):
        reproduce.reproduce("smok")
    with pytest.raises(InputError, match="no notebook begins with '99'"):
        reproduce.reproduce("smoke", only=["99"])
