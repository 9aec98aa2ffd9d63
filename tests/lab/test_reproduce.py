"""The notebooks run headlessly at the preset `smoke`, leave their figures, and refuse wrong parameters at once.

How they are run is shown with small notebooks, and where no kernel is needed with plain scripts in their place.
"""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import signal
import sys
import threading
import time
import types

import nbformat
import pandas as pd
import psutil
import pytest
from PIL import Image

from sswp_lib.config import InputError
from sswp_lib.lab import reproduce
from sswp_lib.paper import beyond, claims, output, studies, tables
from sswp_lib.paper.output import Output
from sswp_lib.presets import load_config
from sswp_lib.runs import records
from sswp_lib.show import report

FIGURES = {
    "00": ("views", "search_curves", "neighbours", "choice", "genotype", "fine_tuning"),
    "01": (
        "images",
        "views",
        "phases",
        "search_curves",
        "entropy",
        "evidence",
        "operation_shares",
        "genotype",
        "memory",
        "learning_rates",
        "fine_tuning",
        "unaugmented",
        "planted",
    ),
    "02": ("accuracy", "found_against_random"),
    "03": ("table3a", "inflation", "edges", "table3b"),
    "04": ("learning_rates", "figure5", "few_labels", "map", "stages"),
    "05": ("table4a", "weight_norms"),
    "06": (
        "genotype",
        "operations_by_depth",
        "changes",
        "darts_v1",
        "darts_v2",
        "pdarts",
        "pc_darts_cifar",
        "pc_darts_imagenet",
    ),
    "07": ("objective", "figure4", "table3d", "table6", "table3c"),
    "08": ("table1", "mixture", "table3", "table4", "table5"),
    "09": ("table7", "predicted", "collapse", "figure5", "link"),
    "10": ("bench", "improvement", "cost"),
}
TABLES = {
    "00": ("neighbours", "fine_tuning"),
    "01": (
        "search", "evidence", "noise_or_seeds", "planted", "memory", "fine_tuning", "fine_tuning_runs", "claims",
    ),
    "02": ("table1", "table2", "multiply_adds", "measured", "cost", "claims"),
    "03": ("table3a", "gap", "edges", "table3b", "claims"),
    "04": ("figure5", "figure5_runs", "map", "stages", "claims"),
    "05": ("table4a", "weight_norms", "claims"),
    "06": ("operations",),
    "07": ("objective", "figure4_epochs", "figure4_size", "table3c", "table3d", "table4b", "table6", "claims"),
    "08": ("table1", "table2", "table3", "split", "agreement", "selection", "table4", "table5", "claims"),
    "09": ("table1", "table2", "table3", "table4", "table7", "table7_runs", "claims"),
    "10": ("compute", "bench", "claims"),
}  # fmt: skip


@pytest.fixture(scope="module")
def smoke(smoke_runs):
    """Run all notebooks, in a run store of the tests' own and with no results left from before."""
    shutil.rmtree(Output("smoke").folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSWP_RUNS", str(smoke_runs))
        failed = reproduce.reproduce("smoke")
        yield failed, records.everything()


def test_notebooks_run_and_leave_figures_and_tables(smoke):
    failed, _ = smoke
    assert failed == []
    folder = Output("smoke").folder
    for number, names in FIGURES.items():
        for name in names:
            with Image.open(folder / f"{number}_{name}.png") as image:
                assert "Preset smoke." in image.info["Description"] and image.width > 600, name
            assert (folder / f"{number}_{name}.svg").read_text().lstrip().startswith("<?xml"), name
    for number, names in TABLES.items():
        for name in names:
            assert len(pd.read_csv(folder / f"{number}_{name}.csv")), name
            assert (folder / f"{number}_{name}.md").read_text().startswith("**") and r"\caption" in (
                folder / f"{number}_{name}.tex"
            ).read_text(), name
    for path in reproduce.notebooks():
        executed = json.loads((folder / path.name).read_text())
        assert not [
            c for c in executed["cells"] if any(o.get("output_type") == "error" for o in c.get("outputs", []))
        ], path.name


def test_report_holds_every_claim_and_figure(smoke):
    page = (Output("smoke").folder / "index.html").read_text()
    shown = re.sub(r"\s+", " ", html.unescape(page))
    others = {f"{beyond.AT_LABELS}{k}" for k in beyond.Extent().labels if k not in beyond.extent("smoke").labels}
    assert [key for key, claim in claims.CLAIMS.items() if claim.text not in shown and key not in others] == []
    assert page.count("data:image/png;base64,") == sum(map(len, FIGURES.values()))


def test_every_row_of_an_ablation_is_a_record(smoke):
    """Table 3a's accuracies can be computed from the records alone."""
    _, found = smoke
    study = load_config("smoke", study="ablations")
    by_name = {record.name: record for record in found}
    table = pd.read_csv(Output("smoke").folder / "03_table3a.csv").set_index("arm")
    for arm, settings in studies.pruning_arms(study).items():
        tests = []
        for seed in range(2):
            search = study.changed(**settings, seed=seed)
            mine = [
                r
                for r in found
                if r.kind == "search"
                and r.config["search"].items() <= search.model_dump(mode="json")["search"].items()
                and r.seed == seed
                and r.config["data"]["classes"] is None
            ]
            assert len(mine) == 1, arm
            trained = [
                r
                for r in by_name.values()
                if r.kind == "train"
                and r.source.get("weights_sha256") == mine[0].weights_sha256
                and r.config["train"]["labels_per_class"]
                and r.config["train"]["batch_size"] == study.train.batch_size
            ]
            tests += [r.accuracies["test"]["top1"] for r in trained]
        assert table.loc[arm, "here, test error, fine-tuned (%)"] == tables.spread(100 - pd.Series(tests)), arm


def test_tables_are_made_from_the_records(smoke):
    _, found = smoke
    by_name = {record.name: record for record in found}
    table = pd.read_csv(Output("smoke").folder / "01_fine_tuning_runs.csv")
    assert len(table) == 8 and table["search"].nunique() == 2  # two kinds of start, two searches, two fine-tunings each
    for row in table.itertuples():
        record = by_name[row.run]
        made = record.config["train"]
        assert (made["init"], made["lr"], record.seed) == (row.init, row.lr, row.seed)
        assert record.accuracies["test"]["top1"] == pytest.approx(row.test)
        if row.init == "concomitant":
            assert record.source["weights_sha256"] == by_name[table["search run"][row.Index]].weights_sha256


def test_notebooks_are_committed_without_outputs_and_their_cells_are_short():
    for path in reproduce.notebooks():
        cells = json.loads(path.read_text())["cells"]
        code = [c for c in cells if c["cell_type"] == "code"]
        assert all(not c["outputs"] and c["execution_count"] is None for c in code), path.name
        assert max("".join(c["source"]).count("\n") + 1 for c in code) <= 15, path.name
        assert [c for c in code if "parameters" in c["metadata"].get("tags", [])], path.name


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"preset": "smok"}, "did you mean 'smoke'"),
        ({"data": "digit"}, "did you mean 'digits'"),
        ({"seeds": -1}, "seeds is -1"),
    ],
)
@pytest.mark.parametrize("path", reproduce.notebooks(), ids=lambda path: path.stem)
def test_wrong_parameters_end_a_notebook_at_its_first_cells(path, wrong, said):
    code = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
    ends = [c["metadata"].get("tags") for c in code].index(["parameters"]) + 1  # papermill puts its own after these
    names: dict = {}
    for cell in code[:ends]:
        exec("".join(cell["source"]), names)
    names |= {"preset": "smoke"} | wrong
    with pytest.raises(InputError, match=said):
        for cell in code[ends : ends + 2]:
            exec("".join(cell["source"]), names)


def test_wrong_words_are_refused_before_anything_runs():
    with pytest.raises(InputError, match="did you mean 'smoke'"):
        reproduce.reproduce("smok")
    with pytest.raises(InputError, match="no notebook begins with '99'"):
        reproduce.reproduce("smoke", only=["99"])
    with pytest.raises(InputError, match="no notebook begins with '98'"):
        reproduce.reproduce("smoke", start="98")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of its own, with an empty folder of notebooks and runs that are estimated at no time at all; returns
    the folder of notebooks.
    """
    for module in (reproduce, report, output, records):
        monkeypatch.setattr(module, "home", lambda: tmp_path)
    monkeypatch.setenv("SSWP_RUNS", str(tmp_path / "runs"))
    estimated(monkeypatch, {})
    (tmp_path / "notebooks").mkdir()
    return tmp_path / "notebooks"


def estimated(monkeypatch, seconds: dict[str, float]) -> list[tuple]:
    """Let the runs of the notebooks be estimated at these seconds, others at 0; returns what the estimate is asked
    for.
    """
    asked = []

    def estimate(preset, data, seeds, paths):
        asked.append((preset, data, seeds, [path.stem for path in paths]))
        return {path.stem: seconds.get(path.stem, 0.0) for path in paths}

    monkeypatch.setattr(reproduce, "estimate", types.SimpleNamespace(seconds=estimate))
    return asked


@pytest.fixture
def scripts(project, monkeypatch):
    """Let notebooks be plain Python scripts, executed without papermill; returns what makes them."""
    monkeypatch.setattr(reproduce, "command", lambda source, target, given: [sys.executable, str(source)])
    monkeypatch.setattr(reproduce, "POLL", 0.05)

    def make(**sources: str) -> None:
        for name, source in sources.items():
            (project / f"{name.lstrip('n')}.ipynb").write_text(source)

    return make


def notebook(path, *cells: str) -> None:
    made = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_markdown_cell(f"# {path.stem}"), *map(nbformat.v4.new_code_cell, cells)]
    )
    made.cells[1].metadata["tags"] = ["parameters"]
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(made, path)


def gone(pid: int) -> bool:
    """Tell whether a process has ended, whoever is to take note of it."""
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_failing_and_hanging_notebooks_do_not_keep_the_others_from_running(project, monkeypatch, capsys):
    parameters = 'preset = "?"'
    notebook(
        project / "01_hangs.ipynb",
        parameters,
        f"import os, pathlib; pathlib.Path({str(project / 'kernel')!r}).write_text(str(os.getpid()))",
        "import ctypes; ctypes.PyDLL(None).sleep(600)",
    )  # and keeps all of its threads waiting
    notebook(project / "02_fails.ipynb", parameters, 'raise ValueError("too small\\nsecond line")')
    notebook(project / "03_fine.ipynb", parameters, "import os; print(preset, os.environ['OMP_NUM_THREADS'])")
    estimated(monkeypatch, {"01_hangs": 90.0})  # so it is not the last to start
    monkeypatch.setenv("OMP_NUM_THREADS", "")  # as good as none
    monkeypatch.setattr(reproduce, "processors", lambda: 6)
    assert reproduce.reproduce("quick", jobs=2, hang_after=15 / 60) == ["01_hangs", "02_fails"]

    out = capsys.readouterr().out
    assert "2 of 3 notebooks failed:\n  01_hangs: stopped: no sign of life for 0.25 minutes (log: " in out
    assert "  02_fails: ValueError: too small (log: " in out and "second line" not in out
    assert re.search(r"^03_fine: done in 0:\d\d$", out, re.MULTILINE)
    assert gone(int((project / "kernel").read_text()))
    assert "ValueError" in reproduce.log_of("02_fails").read_text()
    figures = project.parent / "figures" / "own" / "quick"
    fine = nbformat.read(figures / "03_fine.ipynb", 4)
    assert [o["text"] for c in fine.cells if c.cell_type == "code" for o in c.outputs] == ["quick 3\n"]
    assert fine.metadata["papermill"]["output_path"] == "figures/own/quick/03_fine.ipynb"
    page = (figures / "index.html").read_text()
    assert "This notebook was stopped before its end" in page and "This notebook failed: ValueError: too small" in page


def test_notebooks_run_in_the_interpreter_that_runs_the_command(project, tmp_path, monkeypatch, capsys):
    """Whatever kernel of that name, or of the notebook's own, is installed."""
    foreign = tmp_path / "jupyter" / "kernels" / "python3"
    foreign.mkdir(parents=True)
    spec = {"argv": [sys.executable, "-c", "raise SystemExit(3)"], "display_name": "foreign", "language": "python"}
    (foreign / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    notebook(project / "01_where.ipynb", 'preset = "?"', "import sys; print(sys.executable)")
    made = nbformat.read(project / "01_where.ipynb", 4)
    made.metadata["kernelspec"]["name"] = "of-another-machine"
    nbformat.write(made, project / "01_where.ipynb")
    assert reproduce.reproduce("quick") == []
    executed = nbformat.read(Output("quick").folder / "01_where.ipynb", 4)
    assert executed.cells[-1].outputs[0]["text"] == f"{sys.executable}\n"


def test_results_of_given_data_and_seeds_go_to_a_folder_of_their_own(scripts, project):
    """And each notebook's process has a file to note its runs in; an earlier execution's results are gone."""
    note = "import os, pathlib; pathlib.Path(os.environ['SSWP_USED']).write_text('train-1')"
    scripts(n01_a=note)
    own = Output("cifar", ("data=digits", "seeds=3")).folder
    for name in ("01_old.png", "01_a.ipynb", "02_other.png"):
        (own / name).write_text("of an earlier execution")
    assert reproduce.reproduce("cifar", data="digits", seeds=3) == []
    assert {path.name for path in own.iterdir()} == {"01_runs.txt", "02_other.png"}
    assert (own / "01_runs.txt").read_text() == "train-1"
    assert [path.name for path in (project.parent / "figures" / "own").iterdir()] == [own.name]


def test_sign_of_life_keeps_a_notebook_running(scripts, capsys):
    beating = (
        "import os, pathlib, time\nfor i in range(8):\n    time.sleep(0.5)\n    "
        "pathlib.Path(os.environ['SSWP_HEARTBEAT']).write_text(f'search: epoch {i}')"
    )
    scripts(n01_beats=beating, n02_silent="import time; time.sleep(60)")
    assert reproduce.reproduce("quick", jobs=2, hang_after=2 / 60) == ["02_silent"]
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("01_beats: done")]
    assert not any(line.startswith("report: ") for line in lines)  # no notebook was left to report of


def test_two_jobs_run_side_by_side(scripts, project):
    meet = (
        "import pathlib, time\nfolder, until = pathlib.Path('notebooks'), time.monotonic() + 30\n(folder / "
        "'{own}').touch()\n"
        "while not (folder / '{other}').exists():\n    assert time.monotonic() < until\n    time.sleep(0.05)"
    )
    scripts(n01_one=meet.format(own="a", other="b"), n02_two=meet.format(own="b", other="a"))
    assert reproduce.reproduce("quick", jobs=2) == []


def test_one_job_runs_them_one_after_the_other_and_the_longest_first(scripts, project, monkeypatch, capsys):
    lone = "import pathlib\nbusy = pathlib.Path('busy')\nbusy.touch(exist_ok=False)\nbusy.unlink()"
    scripts(n01_short=lone, n02_long=lone, n03_middle=lone)
    asked = estimated(monkeypatch, {"01_short": 10.0, "02_long": 3000.0, "03_middle": 590.0})
    assert reproduce.reproduce("smoke", jobs=1) == []
    assert asked == [("smoke", None, None, ["01_short", "02_long", "03_middle"])]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "about 1:00:30 on 1 process"  # and 10 s for each
    assert [line.split(":")[0] for line in lines if "started" in line] == ["02_long", "03_middle", "01_short"]


def test_expected_time_is_that_of_the_longest_or_of_all_together():
    assert reproduce.expected({"01": 100.0, "02": 20.0}, 2) == 110
    assert reproduce.expected({"01": 100.0, "02": 90.0, "03": 90.0}, 2) == 155
    assert reproduce.expected({"01": 0.0}, 1) == 10


def test_failure_without_a_notebook_is_told_by_its_log(scripts, capsys):
    scripts(n01_broken="import sys; print('first'); sys.exit('no kernel of that name')")
    earlier = nbformat.v4.new_code_cell(
        "pass", outputs=[nbformat.v4.new_output("error", ename="ValueError", evalue="of an earlier run", traceback=[])]
    )
    nbformat.write(nbformat.v4.new_notebook(cells=[earlier]), Output("quick").folder / "01_broken.ipynb")
    assert reproduce.reproduce("quick") == ["01_broken"]
    assert f"01_broken: no kernel of that name (log: {reproduce.log_of('01_broken')})" in capsys.readouterr().out


def test_chosen_notebooks(scripts):
    scripts(n01_a="", n02_b="", n03_c="", n04_d="")
    names = lambda **words: [path.stem for path in reproduce.chosen(**words)]  # noqa: E731
    assert names() == ["01_a", "02_b", "03_c", "04_d"]
    assert names(only=["03", "01"]) == ["01_a", "03_c"]
    assert names(start="03") == ["03_c", "04_d"]
    assert names(only=["02", "04"], start="03") == ["04_d"]
    with pytest.raises(InputError, match="none of the notebooks 01 stands at or after '03'"):
        reproduce.chosen(["01"], "03")


def test_command_hands_its_options_on_and_tells_of_failures(call, scripts, monkeypatch, capsys):
    scripts(n01_a="", n02_b="raise SystemExit('no')", n03_c="")
    status, out, err = call("reproduce", "--from", "02", "--jobs", "1", "--hang-after", "0.5")
    assert status == 1 and err == "sswp: 1 of the notebooks failed: 02_b\n"
    assert "01_a" not in out and "03_c: done" in out
    assert call("reproduce", "--jobs", "0")[0] == 2


def test_a_budget_ends_what_runs_and_says_what_is_missing(call, scripts, monkeypatch, project):
    pid = project / "pid"
    sleeps = f"import os, pathlib, time; pathlib.Path({str(pid)!r}).write_text(str(os.getpid())); time.sleep(600)"
    scripts(n01_short="", n02_long=sleeps, n03_waits="")
    asked = estimated(monkeypatch, {"01_short": 90.0, "02_long": 60.0, "03_waits": 30.0})
    status, out, err = call("reproduce", "--jobs", "1", "--budget", "6s")
    assert status == 0 and err == ""
    lines = out.splitlines()
    place = lines.index("the budget of 0:06 is spent; what is missing, and what it takes:")
    assert lines[place + 1 : place + 4] == [
        "  02_long: about 1:00 on one process",
        "  03_waits: about 0:30 on one process",
        "the same command goes on from there",
    ]
    assert asked[-1][-1] == ["02_long", "03_waits"] and gone(int(pid.read_text()))
    assert any(line.startswith("01_short: done") for line in lines)


@pytest.mark.parametrize(
    "text, seconds", [("3h", 10800), ("90m", 5400), ("1h30m", 5400), ("45s", 45), ("1.5h", 5400), (" 2h ", 7200)]
)
def test_budgets_are_read(text, seconds):
    assert reproduce.duration_of(text) == seconds


@pytest.mark.parametrize("text", ["", "3", "h", "-3h", "0h", "3 hours", "30m1h"])
def test_budgets_that_are_no_time_are_refused(text, call, scripts):
    scripts(n01_a="")
    status, out, err = call("reproduce", f"--budget={text}")
    assert status == 2 and f"budget {text!r} is no time; expected hours" in err and "Traceback" not in err and out == ""


@pytest.fixture
def heard():
    """Hear signals as a program does that was started at a terminal: a shell lets what it starts in the background
    ignore Ctrl-C.
    """
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_all_processes_with_what_they_started(scripts, project, heard, number):
    scripts(n01_a=(
        
            "import pathlib, subprocess, sys, time\nchild = subprocess.Popen([sys.executable, '-c', 'import "
            "time; time.sleep(60)'], start_new_session=True)\n"
        "pathlib.Path('pid.part').write_text(str(child.pid))\npathlib.Path('pid.part').rename('pid')\ntime.sleep(60)"
    ))  # fmt: skip
    pid, before = project.parent / "pid", signal.getsignal(number)

    def interrupt():
        until = time.monotonic() + 30
        while not pid.exists() and time.monotonic() < until:
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        reproduce.reproduce("quick")
    assert gone(int(pid.read_text())) and signal.getsignal(number) is before


def test_terminal_shows_what_runs_in_one_line(scripts, monkeypatch, capsys):
    scripts(
        n01_a="import os, pathlib, time\npathlib.Path(os.environ['SSWP_HEARTBEAT']).write_text('search: epoch "
        "3/20' + 200 * '.')\ntime.sleep(1)"
    )
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "60")
    assert reproduce.reproduce("quick", jobs=2) == []
    out, err = capsys.readouterr()
    lines = err.split("\r\x1b[2K")
    assert (
        "01_a 0:01 search: epoch 3/20...................................…"[: 57 - 1] + "…" in lines
        and max(map(len, lines)) == 57
    )
    assert lines[-1] == "" and "epoch" not in out
