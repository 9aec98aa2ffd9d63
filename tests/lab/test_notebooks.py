"""Every notebook runs to its end with every preset's own sections, at sizes and lengths of a test."""

from __future__ import annotations

import json
import warnings

import IPython.display
import matplotlib.pyplot as plt
import pandas as pd
import pytest

from sswp_lib.config import InputError, home
from sswp_lib.paper import output

# Nothing but sizes and lengths: objectives, pruning, edges, schedules, labels, augmentation and heads are the preset's.
REDUCED = [
    "data.per_class=64", "model.init_channels=4", "model.num_cells=3", "model.projection_dim=16", "search.epochs=8",
    "search.batch_size=128", "search.alpha_every=1", "search.calibration_batches=1", "train.epochs=1",
    "train.batch_size=16",
]  # fmt: skip
RELAXED = [
    "data.per_class=24", "search.epochs=1", "search.batch_size=48", "relaxed.init_channels=2", "relaxed.num_cells=3",
]  # fmt: skip
ONE_SHOT = [
    "one_shot.init_channels=4", "one_shot.num_cells=1", "one_shot.epochs=1", "one_shot.batch_size=128",
    "one_shot.queue=256", "ranking.linear_epochs=1", "ranking.linear_batch=128", "ranking.calibration_images=128",
]  # fmt: skip
BENCH = [
    "data.per_class=24", "search.batch_size=48", "one_shot.batch_size=48", "one_shot.queue=48", "ranking.population=2",
    "ranking.parents=2", "ranking.mutations=1", "ranking.crossovers=1", "ranking.generations=1", "random.draws=2",
]  # fmt: skip
ONE_EACH = {
    "01": {"learning_rates": [0.03, 0.1]},
    "04": {"learning_rates": [0.03, 0.1], "fractions": [0.1, 0.5]},
    "05": {"learning_rates": [0.03, 0.1]},
    "08": {"settings": [*REDUCED, *RELAXED]},
    "09": {"architectures": 3, "trainings": 1, "settings": [*REDUCED, *ONE_SHOT]},
    "10": {"settings": [*REDUCED, *ONE_SHOT, *BENCH]},
}


def code_cells(number: str, folder: str = "notebooks") -> list[dict]:
    (path,) = (home() / folder).glob(f"{number}_*.ipynb")
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


def execute(number: str, monkeypatch, folder: str = "notebooks", **parameters) -> dict:
    """Execute a notebook's cells in one namespace, its parameters replaced; return the namespace."""
    monkeypatch.setattr(IPython.display, "display", lambda *shown: None)
    names: dict = {"display": IPython.display.display}
    with warnings.catch_warnings(), pd.option_context("mode.copy_on_write", True):
        warnings.simplefilter("ignore")
        for cell in code_cells(number, folder):
            exec(compile("".join(cell["source"]), f"{folder}/{number}, {cell['id']}", "exec"), names)
            if "parameters" in cell["metadata"].get("tags", []):
                assert set(parameters) <= set(names), "a parameter that the notebook does not have"
                names |= parameters
    plt.close("all")
    return names


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(output, "home", lambda: tmp_path)
    return tmp_path / "figures" / "own"


@pytest.fixture(scope="module")
def shared_runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


NUMBERS = ("00", "01", "02", "03", "04", "05", "06", "07", "08", "09", "10")
WHOLE = [("paper", number) for number in NUMBERS]
CHOOSING = [(preset, number) for preset in ("cifar", "quick") for number in ("01", "04", "05")]


@pytest.mark.parametrize("preset, number", WHOLE + CHOOSING)
def test_notebook_runs_with_every_presets_own_sections(preset, number, own_folder, shared_runs, monkeypatch):
    monkeypatch.setenv("SSWP_RUNS", str(shared_runs))
    data = "digits" if preset != "quick" else None
    parameters = {"preset": preset, "data": data, "seeds": 1, "settings": REDUCED, **ONE_EACH.get(number, {})}
    names = execute(number, monkeypatch, **parameters)
    (folder,) = own_folder.iterdir()
    assert list(folder.glob(f"{number}_*.png")) and list(folder.glob(f"{number}_*.csv"))
    if number not in ("00", "06"):  # no claims there
        table = pd.read_csv(folder / f"{number}_claims.csv")
        assert (
            len(table) >= 1 and set(table["preset"]) == {names["out"].label} and "train.epochs=1" in table["preset"][0]
        )
        assert set(table.loc[table["unit"] == "search", "alone"]) <= {"undecided"}  # one search decides nothing


def test_a_mistake_leaves_nothing_of_an_earlier_configuration(own_folder, monkeypatch):
    """A cell that fails in the notebook's first lines must not let the next ones go on with what stood there before."""
    for number in NUMBERS:
        cells = ["".join(cell["source"]) for cell in code_cells(number)]
        place = next(i for i, source in enumerate(cells) if "configured(" in source)
        names: dict = {"config": "old", "n": 3, "out": "old"}
        for source in cells[:place]:
            exec(source, names)
        names["preset"] = "quik"
        with pytest.raises(InputError, match="did you mean 'quick'"):
            exec(cells[place], names)
        assert names["config"] is None and names["out"] is None and names["n"] is None
        assert not own_folder.exists()


def test_cells_are_narrow():
    for number in NUMBERS:
        for cell in code_cells(number):
            assert max(map(len, "".join(cell["source"]).splitlines())) <= 88, (number, cell["id"])
