"""Replaces tracked results, figures/<preset>/ or a folder beside it, by what `reproduce` has left in figures/own/.

Nothing else writes there. What is published can be made again from the commit that its page names: it is refused where
a notebook or a record does not belong to that commit's release.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sswp_lib import __version__
from sswp_lib.config import InputError, home
from sswp_lib.lab.reproduce import chosen, notebooks, parameters
from sswp_lib.paper import setups, studies
from sswp_lib.paper.output import Output
from sswp_lib.paper.studies import Job
from sswp_lib.presets import load_config
from sswp_lib.runs import archive, files, records, runs
from sswp_lib.runs.records import FORMAT, Record
from sswp_lib.show import report

SHOWN = (".png", ".csv", ".md", ".json")  # of what notebooks write; SVG and LaTeX are made anew by whoever wants them
PAGE = ("index.html", "ledger.csv", "ledger.md", "ledger.png")
KEPT = "README.md"  # written by hand
CODE = ("sswp_lib", "notebooks")  # what results depend on


def publish(preset: str, only: list[str] | None = None, data: str | None = None, folder: str | None = None) -> Path:
    """Replace figures/<preset>/, all but its README; returns the folder.

    Args:
        data: as `reproduce` was given it; None for the preset's own. folder: of figures/, where not the preset's name;
            needed with other data than the preset's, whose results it would replace.
        only: beginnings of the names of the notebooks that must have been executed; all if there is none. Others are
            published too where they were, and told of as not executed where not.

    Raises:
        InputError: notebooks that are missing, failed or were not executed as they are at the preset's own parameters;
            records that are missing or of another release; changed files of the library or of notebooks.
    """
    config, output = load_config(preset, data), Output.of(preset, data)
    target, commit = folder_for(output, folder), committed()
    asked = parameters(preset, data if output.changes else None, None)
    needed = chosen(only)
    for path in notebooks():
        if path in needed or (output.folder / path.name).exists():
            check(path, output.folder / path.name, asked)
    found, missing = report.used_runs(output)
    if missing:
        raise InputError(
            f"the records of {', '.join(missing)} are not in the run store or cannot be read; {_again(asked)}"
        )
    for record in found:
        check_record(record, asked)
    report.build(output, commit)
    content = contents(output.folder, found, studies.searches(config, setups.number_of_seeds(preset)))
    for name, written in content.items():
        files.write(target / name, written)
    remove_others(target, {target / name for name in (*content, KEPT)})
    return target


def folder_for(output: Output, name: str | None) -> Path:
    """Return the folder that results are published in; InputError where the preset's own would be replaced by others,
    or the name is none.
    """
    name = output.preset if name is None and not output.changes else name
    if name is None:
        raise InputError(f"results of {output.label} are not the preset's own; name their folder, e.g. --folder cifar")
    if not re.fullmatch(r"[a-z0-9][\w-]*", name) or name == "own":
        raise InputError(f"folder {name!r} is no name for results; expected small letters, digits and -, e.g. cifar")
    return home() / "figures" / name


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


def _again(asked: dict[str, str]) -> str:
    return f"run sswp reproduce {' '.join(f'--{name} {value}' for name, value in asked.items())} first"


def committed() -> str:
    """Return the commit; InputError where there is none, or files that results depend on differ from it."""
    commit, changed = records.git("rev-parse", "HEAD"), records.git("status", "--porcelain", "--", *CODE)
    if commit is None:
        raise InputError(f"{str(home())!r} is no git repository with a commit; results are published from one")
    if changed:
        names = ", ".join(line.split(maxsplit=1)[1] for line in changed.splitlines()[:3])
        raise InputError(f"changed files: {names}; commit them (and reproduce with them) before publishing results")
    return commit


def check(source: Path, target: Path, asked: dict[str, str]) -> None:
    """Refuse a notebook that was not executed, whole, as it is now, with the parameters `asked` and no others."""
    done, again = report.read_notebook(target), _again(asked)
    problem = report.problem(done)
    if problem:
        raise InputError(f"{source.stem}: {problem.partition('. ')[0].rstrip('.')}; {again}")
    given = done["metadata"].get("papermill", {}).get("parameters", {})
    if given != asked:
        got, wanted = (", ".join(f"{name}={value}" for name, value in own.items()) for own in (given, asked))
        raise InputError(f"{source.stem} was executed with {got or 'nothing'} given; expected {wanted} alone")
    if code(done) != code(report.read_notebook(source)):
        raise InputError(f"{source.stem} has changed since it was executed; {again}")


def code(notebook: dict[str, Any]) -> list[str]:
    """Return the source of a notebook's code cells, without the parameters that papermill puts in."""
    return [
        "".join(cell["source"])
        for cell in notebook["cells"]
        if cell["cell_type"] == "code" and "injected-parameters" not in cell["metadata"].get("tags", [])
    ]


def check_record(record: Record, asked: dict[str, str]) -> None:
    """Refuse a record that this release would not make, or not under this name."""
    made = (record.provenance.get("version"), record.format)
    if made != (__version__, FORMAT):
        raise InputError(
            f"{record.name} was made by sswp {made[0]}, format {made[1]}; expected {__version__}, format {FORMAT}: "
            f"remove its folder in the run store, and {_again(asked)}"
        )


def contents(folder: Path, found: list[Record], searches: list[Job]) -> dict[str, bytes]:
    """Return all files that are published, by their names in the target's folder: with the records the weights of the
    `searches`, the preset's own, so that other fine-tunings can start from what is published. A search that is done
    again on another processor has other weights, and nothing of what is published belongs to those. No commit holds
    weights: Git is told to pass them over, and they are handed on beside a release.
    """
    own = [path for path in folder.glob("[0-9]*") if path.suffix in SHOWN]
    own += [folder / name for name in PAGE if (folder / name).is_file()]
    names = {runs.asked(job.config).name for job in searches}
    kept = [record for record in found if record.name in names and runs.has_weights(record)]
    packed = {archive.NAME: archive.packed(found)} | ({archive.WEIGHTS: archive.packed_weights(kept)} if kept else {})
    return {path.name: path.read_bytes() for path in own} | packed


def remove_others(folder: Path, wanted: set[Path]) -> None:
    """Remove all other files, and folders that are empty then."""
    for path in sorted(folder.rglob("*"), reverse=True):  # what a folder holds comes before it
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
        elif not path.is_dir() and path not in wanted:
            path.unlink()
