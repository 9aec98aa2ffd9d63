"""One line a run: in place in a terminal, now and then in a log, plain text in a notebook, and a sign of life in a
file.
"""

import sys
import threading
import time
import types

import pytest

from sswp_lib.learn.loop import Progress
from sswp_lib.runs import progress
from sswp_lib.runs.holding import held
from sswp_lib.runs.progress import Line, duration


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves."""
    now = types.SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: now.seconds)
    return now


def line_in(monkeypatch, place: str, quiet: bool = False) -> Line:
    monkeypatch.setattr(progress, "place", lambda: place)
    return Line("search-1", quiet)


def at(epoch: int, step: int, **more) -> Progress:
    return Progress(epoch, 10, step, 4, phase="bi-level", loss=1.5, accuracy=0.25, **more)


@pytest.mark.parametrize(
    "seconds, text",
    [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3599, "59:59"), (3600, "1:00:00"), (90061, "25:01:01")],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_log_is_refreshed_now_and_then(monkeypatch, clock, capsys):
    line = line_in(monkeypatch, "log")
    for step in range(1, 5):
        clock.seconds += 10
        line.update(at(0, step))
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1
    assert (
        err == "search-1: epoch 1/10 bi-level, loss 1.500, accuracy 25.0 %, 9:15 left\n"
    )  # 2 of 40 steps in 30 s, the first not counted


def test_terminal_line_is_rewritten_in_place(monkeypatch, clock, capsys):
    line = line_in(monkeypatch, "terminal")
    for step in (1, 2):
        clock.seconds += 1
        line.update(at(0, step, pruned=1, cells=3))
    line.close("done")
    err = capsys.readouterr().err
    assert err.count("\r\x1b[2K") == 3 and err.endswith("search-1: done\n") and err.count("\n") == 1
    assert "1/3 cells pruned" in err


def test_quiet_line_shows_only_notes(monkeypatch, clock, capsys):
    line = line_in(monkeypatch, "log", quiet=True)
    clock.seconds += 100
    line.update(at(0, 1))
    line.close("done")
    assert capsys.readouterr() == ("", "")
    line.note("refused checkpoint")
    assert capsys.readouterr().err == "search-1: refused checkpoint\n"


def test_notebook_shows_plain_text_and_updates_it(monkeypatch, clock):
    IPython = pytest.importorskip("IPython")
    shown = []

    class Handle:
        def update(self, what):
            shown.append(what._repr_mimebundle_())

    def display(what, display_id):
        shown.append(what._repr_mimebundle_())
        return Handle()

    monkeypatch.setattr(IPython.display, "display", display)
    line = line_in(monkeypatch, "notebook")
    clock.seconds += 2
    line.update(at(0, 1))
    line.close("done in 0:02")
    assert [list(bundle) for bundle in shown] == [["text/plain"]] * 2
    assert shown[-1]["text/plain"] == "search-1: done in 0:02"


def test_place_without_a_terminal_is_a_log(monkeypatch):
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    assert progress.place() == "log"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert progress.place() == "terminal"


@pytest.fixture
def heartbeat(tmp_path, monkeypatch):
    """The file for signs of life."""
    monkeypatch.setenv("SSWP_HEARTBEAT", str(tmp_path / "heartbeat"))
    return tmp_path / "heartbeat"


def test_quiet_line_gives_signs_of_life_but_not_at_every_step(monkeypatch, clock, heartbeat, capsys):
    line = line_in(monkeypatch, "log", quiet=True)
    seen = []
    for step in range(1, 5):
        clock.seconds += 0.9
        line.update(at(0, step))
        seen.append(heartbeat.read_text())
    assert seen[0] == "search: epoch 1/10 bi-level, loss 1.500, accuracy 25.0 %\n"
    assert seen[0] == seen[1] == seen[2] != seen[3] and "left" in seen[3]
    assert capsys.readouterr() == ("", "")


def test_file_for_signs_of_life_may_vanish(monkeypatch, clock, tmp_path):
    monkeypatch.setenv("SSWP_HEARTBEAT", str(tmp_path / "gone" / "heartbeat"))
    line = line_in(monkeypatch, "log", quiet=True)
    line.update(at(0, 1))
    assert line.beaten == clock.seconds and not (tmp_path / "gone").exists()


def test_waiting_for_another_process_is_not_silence(monkeypatch, heartbeat, tmp_path):
    monkeypatch.setattr(progress, "BEAT", 0.1)
    entered, times, said = [], set(), set()

    def wait():
        with held(tmp_path / "search-1", line_in(monkeypatch, "log")):
            entered.append(time.monotonic())

    waiting = threading.Thread(target=wait)
    with held(tmp_path / "search-1", line_in(monkeypatch, "log")):
        waiting.start()
        until = time.monotonic() + 30
        while len(times) < 3 and time.monotonic() < until:
            time.sleep(0.05)
            times |= {heartbeat.stat().st_mtime_ns} if heartbeat.exists() else set()
            said |= {heartbeat.read_text()} if heartbeat.exists() else set()
        assert len(times) == 3 and entered == []
        assert said - {""} == {"search: waiting for another process\n"}  # empty while it is written
    waiting.join(timeout=30)
    assert len(entered) == 1


def test_work_before_the_first_step_is_shown_and_gives_a_sign_of_life(monkeypatch, clock, capsys, tmp_path):
    monkeypatch.setenv("SSWP_HEARTBEAT", str(tmp_path / "beat"))
    line, quiet = line_in(monkeypatch, "log"), line_in(monkeypatch, "log", quiet=True)
    for i in range(1, 5):
        clock.seconds += 10
        line.working(f"decoding image {i}")
        quiet.working(f"decoding image {i}")
        assert (tmp_path / "beat").read_text() == f"search: decoding image {i}\n"
    assert capsys.readouterr().err == "search-1: decoding image 3\n"


@pytest.mark.parametrize(
    "seconds, text", [(0.2, "1 s"), (40, "40 s"), (89, "89 s"), (90, "2 min"), (5399, "90 min"), (10800, "3 h")]
)
def test_about(seconds, text):
    assert progress.about(seconds) == text


def test_counted_says_which_item_is_under_way_and_what_is_left(monkeypatch, clock, capsys):
    """Those that were served from their records at once do not make the others look short."""
    monkeypatch.setattr(progress, "place", lambda: "log")
    seen = []
    for i in progress.counted(range(48), "training"):
        seen.append(i)
        clock.seconds += 0.01 if i < 15 else 40
    lines = capsys.readouterr().err.splitlines()
    assert seen == list(range(48))
    assert lines[0] == "training: 17 of 48, about 21 min left" and lines[-2] == "training: 48 of 48, about 40 s left"
    assert lines[-1] == "training: 48 of 48 in 22:00"


def test_counted_says_nothing_of_what_is_there(monkeypatch, clock, capsys):
    for where in ("log", "terminal"):
        monkeypatch.setattr(progress, "place", lambda where=where: where)
        for _ in progress.counted(range(100), "training"):
            clock.seconds += 0.001
    assert capsys.readouterr() == ("", "")
