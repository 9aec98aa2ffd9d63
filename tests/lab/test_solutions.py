"""Every notebook of solutions has the form of the notebooks, answers each exercise, and runs to its end."""

from __future__ import annotations

import ast
import json
import re

import pytest
from test_notebooks import BENCH, ONE_SHOT, REDUCED, RELAXED, execute

from sswp_lib.config import home
from sswp_lib.lab import reproduce, strip
from sswp_lib.paper import output

FOLDER = "notebooks/solutions"
PATHS = sorted((home() / FOLDER).glob("*.ipynb"))
QUESTIONS = {path.name: path for path in reproduce.notebooks()}
SHORT = [*REDUCED, "search.epochs=5"]  # no arm has half of them here, as in notebook 07
OWN: dict[str, dict] = {
    "00": {"labels": [1, 2], "seeds": 1},
    "02": {"draws": 3},
    "03": {"longer": 10, "seeds": 1},
    "04": {"fractions": [0.1, 0.9], "shares": [0.5], "seeds": 1},
    "05": {"rates": [0.1, 1.0], "seeds": 1},
    "06": {"width": 8},
    "07": {"seeds": 1},
    "08": {"factor": 2, "labels": [2, 6], "settings": [*REDUCED, *RELAXED]},
    "09": {"seeds": 1, "architectures": 3, "trainings": 1, "settings": [*REDUCED, *ONE_SHOT]},
    "10": {
        "seeds": 1,
        "factor": 2,
        "arms": ["SSWP-NAS", "random search"],
        "settings": [*REDUCED, *ONE_SHOT, *BENCH],
    },
}  # parameters of a test, where the notebook has others


def cells(path, kind: str) -> list[dict]:
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind]


def text(path) -> str:
    return "\n".join("".join(cell["source"]) for cell in cells(path, "markdown"))


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_every_exercise_has_its_solution(path):
    exercises = text(QUESTIONS[path.name]).partition("## Exercises\n")[2]
    numbers = re.findall(r"^(\d)\. ", exercises, re.MULTILINE)
    assert numbers and re.findall(r"^## Exercise (\d): ", text(path), re.MULTILINE) == numbers
    said = re.split(r"^## Exercise \d: .+$", text(path), flags=re.MULTILINE)[1:]
    assert all(re.search(r"^\*.+\*$", part, re.MULTILINE) for part in said), "the question, in italics"


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_solutions_have_the_form_of_the_notebooks(path):
    assert strip.stripped(path.read_text()) == path.read_text()
    first, *others = cells(path, "code")
    assert first["metadata"] == {"tags": ["parameters"]} and not any(cell["metadata"] for cell in others)
    for cell in others:
        source = "".join(cell["source"])
        assert source.count("\n") < 15 and max(map(len, source.splitlines())) <= 88, cell["id"]
        assert not [node for node in ast.walk(ast.parse(source)) if isinstance(node, (ast.FunctionDef, ast.ClassDef))]


def test_every_notebook_has_its_solutions():
    assert [path.name for path in PATHS] == list(QUESTIONS)


def test_solutions_are_not_taken_for_notebooks():
    assert not {path.parent for path in reproduce.notebooks()} & {path.parent for path in PATHS}
    assert "notebooks/solutions/*.ipynb filter=notebook" in (home() / ".gitattributes").read_text().splitlines()


@pytest.fixture(scope="module")
def shared_runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_solutions_run_to_their_end(path, tmp_path, shared_runs, monkeypatch):
    monkeypatch.setattr(output, "home", lambda: tmp_path)
    monkeypatch.setenv("SSWP_RUNS", str(shared_runs))
    number = path.stem[:2]
    parameters = {"preset": "smoke", "seeds": 2, "settings": SHORT} | OWN.get(number, {})
    execute(number, monkeypatch, FOLDER, **parameters)
    made = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert made and all(file.name.startswith(f"solution_{number}_") for file in made)  # a report takes "01_*"
