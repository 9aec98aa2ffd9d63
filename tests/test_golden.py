"""The code comes to the results that FORMAT stands for; see golden.py."""

import copy
import json

import golden
import pytest

from sswp_lib.runs.records import FORMAT

CHANGED = (
    "results changed ({said}): raise FORMAT in sswp_lib/runs/records.py, or old records are served for new runs; then "
    "make tests/golden.json anew by: python tests/golden.py"
)


@pytest.fixture(scope="module")
def kept() -> dict:
    return json.loads(golden.FILE.read_text())


def test_file_is_of_this_format_and_has_every_case(kept):
    assert kept["format"] == FORMAT, "make tests/golden.json anew by: python tests/golden.py"
    assert list(kept["cases"]) == list(golden.CASES), "make tests/golden.json anew by: python tests/golden.py"


def test_defaults_are_those_of_this_format(kept):
    said = ", ".join(golden.other_defaults(kept["defaults"]))
    assert said == "", CHANGED.format(said=f"the default of {said}")
    assert golden.other_defaults({"search.epochs": 1, "search.gone": 2, "seed": 0}) == ["search.epochs", "search.gone"]


@pytest.mark.parametrize("case", golden.CASES)
def test_results_are_those_of_this_format(case, kept):
    said = golden.differences(golden.numbers(case), kept["cases"][case])
    assert said == [], CHANGED.format(said="; ".join(said))


def test_numbers_of_an_unchanged_format_are_not_replaced(kept, tmp_path, monkeypatch, capsys):
    case = "training from scratch"
    other = copy.deepcopy(kept)
    other["cases"] = {case: other["cases"][case]}
    monkeypatch.setattr(golden, "CASES", {case: golden.CASES[case]})
    monkeypatch.setattr(golden, "FILE", tmp_path / "golden.json")
    other["cases"][case]["loss"][0] *= 1.01
    golden.FILE.write_text(json.dumps(other))
    before = golden.FILE.read_text()
    assert golden.main() == 1 and golden.FILE.read_text() == before
    assert f"results changed ({case}), but FORMAT is still {FORMAT}" in capsys.readouterr().err
    golden.FILE.write_text(json.dumps(other | {"format": FORMAT - 1}))
    assert golden.main() == 0
    assert json.loads(golden.FILE.read_text())["format"] == FORMAT
    assert golden.differences(json.loads(golden.FILE.read_text())["cases"][case], kept["cases"][case]) == []
    assert golden.main() == 0  # and nothing changes


@pytest.mark.parametrize("factor, same", [(1 + golden.TOLERANCE / 2, True), (1 + 2 * golden.TOLERANCE, False)])
def test_differences_are_relative(factor, same):
    assert (golden.differences({"loss": [3.0 * factor]}, {"loss": [3.0]}) == []) == same
    assert golden.differences({"alpha": [3.0 * factor]}, {"alpha": [3.0]}) == []
    assert golden.differences({"loss": [3.0]}, {"loss": [3.0, 2.0]}) == ["loss: another number of values"]


@pytest.mark.parametrize(
    "case, changes",
    [
        ("search, supervised", {"search.alpha_lr": 0.0005}),
        ("search, all edges", {"search.weight_decay": 0.3}),
        ("search, BYOL", {"search.ema": 0.5}),
        ("search, top 2 edges, backward", {"search.prune": "forward"}),
        ("training from scratch", {"train.cutout": 3}),
        ("training on crops", {"train.label_smoothing": 0.2}),
        ("fine-tuning", {"train.drop_path": 0.4}),
        ("linear probe", {"train.lr": 0.05}),
        ("pre-training", {"data.views.rotation": 20.0}),
    ],
)
def test_other_results_are_seen(case, changes, kept, monkeypatch):
    """What stands for changed code here is a changed setting; each case would notice."""
    monkeypatch.setitem(golden.CASES, case, golden.CASES[case] | changes)
    assert golden.differences(golden.numbers(case), kept["cases"][case])
