"""A run that is watched: the picture follows, at little cost, and stops where there is nothing to follow."""

import base64
import json
import subprocess
import sys
import threading
import time

import nbformat
import pytest
from nbclient import NotebookClient
from tiny_runs import Stop, do_search, name_of, stop_at, tiny

from sswp_lib.config import home
from sswp_lib.lab import reproduce
from sswp_lib.learn.search import Search
from sswp_lib.presets import load_config
from sswp_lib.runs import following, runs
from sswp_lib.show import watching, widgets
from sswp_lib.space import EDGES, Genotype


@pytest.fixture
def at_once(monkeypatch):
    """Looks follow one another at once, and each may draw."""
    monkeypatch.setattr(watching, "LOOK", 0.02)
    monkeypatch.setattr(watching, "SHARE", 1e6)
    monkeypatch.setattr(watching, "SHARE_BESIDE", 1e6)
    monkeypatch.setattr(watching, "ROUNDS", watching.Rounds())


@pytest.fixture
def by_hand(monkeypatch):
    """Nobody looks but the test."""
    monkeypatch.setattr(watching.Rounds, "add", lambda self, picture: None)


def until(claim, seconds: float = 60.0) -> None:
    """Wait until a claim holds."""
    end = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < end
        time.sleep(0.02)


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "sswp-watch"]


def test_the_picture_follows_a_run(runs_folder, by_hand, monkeypatch):
    widget, seen, step = widgets.watch(tiny()), [], following.Trace.step
    assert "has not begun" in widget.said.value and "No epoch of" in widget.words and widget.follows
    seen.append(widget.pictures[0].png)

    def looked(self, progress):
        step(self, progress)
        outdated = widget.look()
        if progress.row is not None:
            assert outdated and widget.follows
            widget.redraw()
            assert f"over {progress.epoch + 1} epochs" in widget.words and not widget.look()
            assert f"to {progress.row['loss']:.3f}" in widget.words
            seen.append(widget.pictures[0].png)

    monkeypatch.setattr(following.Trace, "step", looked)
    record = do_search()
    assert len(set(seen)) == 4
    assert widget.look() and "is done in" in widget.said.value
    widget.redraw()
    assert not widget.follows and not widget.look()
    assert f"Fixed cells: 0, 1 of {record.genotype.num_cells}" in widget.words


def test_alpha_of_the_cell_and_edge_that_are_chosen(finished, by_hand):
    widget = widgets.watch(finished)
    alpha = following.stand(runs.root() / finished.name).alphas[2]
    assert [number for _, number in widget.cell.options] == [0, 1]
    seen = {widget.pictures[0].png}
    for cell, edge in ((1, None), (1, 5)):
        widget.cell.value, widget.edge.value = cell, edge
        seen.add(widget.pictures[0].png)
    assert len(seen) == 3 and len(widget.edge.options) == 1 + len(EDGES)
    powers = [2.718281828459045**value for value in alpha["alpha"][1][5]]
    for name, power in zip(alpha["candidates"], powers, strict=True):
        assert f"{name} {100 * power / sum(powers):.1f} %" in widget.words


def test_planted_candidates_are_drawn_too(runs_folder, by_hand):
    record = do_search(search__planted=("noise", "zero", "twin"), search__epochs=2)
    assert all(f" {name} " in widgets.watch(record).words for name in ("noise", "zero", "twin", "sep_conv_3x3"))


def test_a_relaxed_search_has_two_kinds_of_cells(runs_folder, by_hand):
    config = load_config("smoke", method="ssnas", settings={
        "data.image_size": 8, "data.per_class": 24, "search.epochs": 1, "search.batch_size": 48,
        "search.calibration_batches": 1, "relaxed.init_channels": 2, "relaxed.num_cells": 3, "model.num_cells": 3,
        "model.init_channels": 2, "model.projection_dim": 8,
    })  # fmt: skip
    record = runs.search(config, device="cpu", quiet=True)
    widget = widgets.watch(record)
    assert [name for name, _ in widget.cell.options] == ["normal cells", "reduction cells"]
    widget.cell.value = 1
    assert "reduction cells, mean of its edges: " in widget.words and " none " in widget.words
    kept = following.stand(runs.root() / record.name).alphas[0]["genotype"]
    assert Genotype.model_validate(kept) == record.genotype


def test_one_choice_less_where_alpha_was_not_kept(finished, by_hand):
    (runs.root() / finished.name / following.ALPHA).unlink()
    widget = widgets.watch(finished)
    assert widget.cell.layout.display == widget.edge.layout.display == "none" and "all cells" in widget.words


def test_a_training_is_watched(finished, by_hand):
    record = runs.train(tiny(train__epochs=2), finished, device="cpu", quiet=True)
    widget = widgets.watch(record.name)
    assert widget.cell.layout.display == "none" and "over 2 epochs" in widget.words
    assert "Fixed" not in widget.words and "Probabilities" not in widget.words


def test_the_thread_follows_to_the_end_and_ends(runs_folder, at_once):
    first, second = widgets.watch(tiny()), widgets.watch(tiny())
    assert len(threads()) == 1
    record = do_search()
    until(lambda: not threads())
    for widget in (first, second):
        assert "is done in" in widget.said.value and f"to {record.history[-1]['loss']:.3f}" in widget.words
    assert widgets.watch(record).words == first.words and not threads()  # there is nothing to follow


def test_the_thread_ends_when_pictures_are_closed_or_told_not_to_follow(runs_folder, at_once):
    closed, told = widgets.watch(tiny()), widgets.watch(tiny())
    closed.close()
    told.live.value = False
    until(lambda: not threads())
    told.live.value = True
    assert len(threads()) == 1
    do_search()
    until(lambda: not threads())
    assert "is done in" in told.said.value and "has not begun" in closed.said.value


def test_drawing_has_its_share_of_the_time_and_no_more(runs_folder, by_hand, monkeypatch):
    """Whatever has changed, the next picture comes after many times the time that the last one took; but the words come
    at once, and so does the last picture of all.
    """
    rounds, widget = watching.Rounds(), widgets.watch(tiny())
    with monkeypatch.context() as patched:
        stop_at(patched, Search, 4)
        with pytest.raises(Stop):
            do_search()
    rounds._visit(widget)
    assert "over 1 epochs" in widget.words and "interrupted" in widget.said.value
    assert widget.share == watching.SHARE  # it was a run of this process
    assert rounds._free_at > time.monotonic()
    history = runs_folder / name_of(tiny()) / following.HISTORY
    history.write_text(history.read_text() + json.dumps({"epoch": 1, "loss": 1.0}) + "\n")
    rounds._visit(widget)
    assert "over 1 epochs" in widget.words
    rounds._free_at = 0.0
    rounds._visit(widget)
    assert "over 2 epochs" in widget.words and rounds._free_at > time.monotonic()
    do_search()
    rounds._visit(widget)
    assert "over 3 epochs" in widget.words and "is done in" in widget.said.value


def test_a_damaged_record_is_said(finished, runs_folder, by_hand):
    widget = widgets.watch(finished)
    (runs_folder / finished.name / "record.json").write_text("{")
    watching.Rounds()._visit(widget)
    assert "cannot read" in widget.said.value


def test_a_process_ends_well_in_the_middle_of_a_picture(runs_folder):
    program = (
        "import time; from sswp_lib.presets import load_config; from sswp_lib.show import watching, widgets; "
        "watching.LOOK = 0; watching.Watched.look = lambda self: True; watching.SHARE = watching.SHARE_BESIDE = 1e9; "
        "widgets.watch(load_config('smoke')); time.sleep(1)"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=home(), capture_output=True, text=True, timeout=300)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_notebook_without_a_viewer_goes_on_at_once_and_keeps_a_still_picture(runs_folder, tmp_path, monkeypatch):
    """The run that is watched never begins."""
    for name, value in reproduce.own_kernel(tmp_path / "jupyter").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(home()))
    notebook = nbformat.v4.new_notebook()
    sources = [
        "import time\nfrom sswp_lib.presets import load_config\nfrom sswp_lib.show import widgets",
        'began = time.monotonic()\nwidgets.watch(load_config("smoke"))',
        "print(time.monotonic() - began)",
    ]
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in sources]
    NotebookClient(notebook, timeout=300, kernel_name=reproduce.KERNEL).execute()
    (shown,) = notebook.cells[1].outputs
    assert base64.b64decode(shown["data"]["image/png"]).startswith(b"\x89PNG")
    assert "No epoch of" in shown["data"]["text/plain"] and shown["metadata"]["image/png"]["alt"]
    assert float(notebook.cells[2].outputs[0]["text"]) < 30
