"""Replaces the tracked results of a preset, figures/<preset>/, by what `reproduce` has left in figures/own/<preset>/.

Nothing else writes there. What is published can be made again from the commit that its page names: it is refused where
a notebook or a record does not belong to that commit's release.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sswp_lib import __version__
from sswp_lib.config import InputError, home
from sswp_lib.lab.reproduce import chosen, notebooks
from sswp_lib.paper import setups, studies
from sswp_lib.paper.output import Output
from sswp_lib.presets import load_config
from sswp_lib.runs import archive, files, records, runs
from sswp_lib.runs.records import FORMAT, Record
from sswp_lib.show import report

SHOWN = (".png", ".csv", ".md", ".json")  # of what notebooks write; SVG and LaTeX are made anew by whoever wants them
PAGE = ("index.html", "ledger.csv", "ledger.md", "ledger.png")
KEPT = "README.md"  # written by hand
CODE = ("sswp_lib", "notebooks")  # what results depend on


def publish(preset: str, only: list[str] | None = None) -> Path:
    """Replace figures/<preset>/, all but its README; returns the folder.

    Args:
        only: beginnings of the names of the notebooks that must have been executed; all if there is none. Others are
            published too where they were, and told of as not executed where not.

    Raises:
        InputError: notebooks that are missing, failed or were not executed as they are at the preset's own parameters;
            records that are missing or of another release; changed files of the library or of notebooks.
    """
    load_config(preset)
    output = Output(preset)
    commit = committed()
    needed = chosen(only)
    for path in notebooks():
        if path in needed or (output.folder / path.name).exists():
            check(path, output.folder / path.name)
    found, missing = report.used_runs(output)
    if missing:
        raise InputError(
            f"the records of {', '.join(missing)} are not in the run store or cannot be read; {_again(preset)}"
        )
    for record in found:
        check_record(record, preset)
    report.build(output, commit)
    target = home() / "figures" / preset
    content = contents(output.folder, found, preset)
    for name, data in content.items():
        files.write(target / name, data)
    remove_others(target, {target / name for name in (*content, KEPT)})
    return target


def restore(preset: str) -> tuple[int, int, int]:
    """Put the published records of a preset into the run store, so that `reproduce` draws from them and does what is
    missing, and the published weights; return how many records are new, how many are of another release and were left,
    and how many weights are new.
    """
    load_config(preset)
    folder = home() / "figures" / preset
    path, weights = folder / archive.NAME, folder / archive.WEIGHTS
    if not path.is_file():
        raise InputError(f"no published records of the preset {preset!r}: {str(path)!r} is not there")
    return *archive.unpack(path), archive.unpack_weights(weights) if weights.is_file() else 0


def _again(preset: str) -> str:
    return f"run sswp reproduce --preset {preset} first"


def committed() -> str:
    """Return the commit; InputError where there is none, or files that results depend on differ from it."""
    commit, changed = records.git("rev-parse", "HEAD"), records.git("status", "--porcelain", "--", *CODE)
    if commit is None:
        raise InputError(f"{str(home())!r} is no git repository with a commit; results are published from one")
    if changed:
        names = ", ".join(line.split(maxsplit=1)[1] for line in changed.splitlines()[:3])
        raise InputError(f"changed files: {names}; commit them (and reproduce with them) before publishing results")
    return commit


def check(source: Path, target: Path) -> None:
    """Refuse a notebook that was not executed, whole, as it is now, at the preset's own parameters."""
    done, again = report.read_notebook(target), _again(target.parent.name)
    problem = report.problem(done)
    if problem:
        raise InputError(f"{source.stem}: {problem.partition('. ')[0]}; {again}")
    given = done["metadata"].get("papermill", {}).get("parameters", {})
    if given != {"preset": target.parent.name}:
        said = ", ".join(f"{name}={value}" for name, value in given.items()) or "nothing"
        raise InputError(f"{source.stem} was executed with {said} given; expected preset={target.parent.name} alone")
    if code(done) != code(report.read_notebook(source)):
        raise InputError(f"{source.stem} has changed since it was executed; {again}")


def code(notebook: dict[str, Any]) -> list[str]:
    """Return the source of a notebook's code cells, without the parameters that papermill puts in."""
    return [
        "".join(cell["source"])
        for cell in notebook["cells"]
        if cell["cell_type"] == "code" and "injected-parameters" not in cell["metadata"].get("tags", [])
    ]


def check_record(record: Record, preset: str) -> None:
    """Refuse a record that this release would not make, or not under this name."""
    made = (record.provenance.get("version"), record.format)
    if made != (__version__, FORMAT):
        raise InputError(
            f"{record.name} was made by sswp {made[0]}, format {made[1]}; expected {__version__}, format {FORMAT}: "
            f"remove its folder in the run store, and {_again(preset)}"
        )


def contents(folder: Path, found: list[Record], preset: str) -> dict[str, bytes]:
    """Return all files that are published, by their names in the target's folder: with the records the weights of the
    preset's own searches, so that other fine-tunings can start from what is published. A search that is done again on
    another processor has other weights, and nothing of what is published belongs to those. No commit holds weights:
    Git is told to pass them over, and they are handed on beside a release.
    """
    own = [path for path in folder.glob("[0-9]*") if path.suffix in SHOWN]
    own += [folder / name for name in PAGE if (folder / name).is_file()]
    asked = studies.searches(load_config(preset), setups.number_of_seeds(preset))
    searches = {runs.asked(job.config).name for job in asked}
    kept = [record for record in found if record.name in searches and runs.has_weights(record)]
    packed = {archive.NAME: archive.packed(found)} | ({archive.WEIGHTS: archive.packed_weights(kept)} if kept else {})
    return {path.name: path.read_bytes() for path in own} | packed


def remove_others(folder: Path, wanted: set[Path]) -> None:
    """Remove all other files, and folders that are empty then."""
    for path in sorted(folder.rglob("*"), reverse=True):  # what a folder holds comes before it
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
        elif not path.is_dir() and path not in wanted:
            path.unlink()
