"""The `sswp` command: parses, calls lab. Exit status 0: done; 1: a run or notebook failed; 2: something given is
wrong.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from sswp_lib.config import DATASETS, InputError, RunError, setting_names
from sswp_lib.options import (
    Board,
    DataName,
    Device,
    Fresh,
    Method,
    Only,
    Preset,
    Quiet,
    Seed,
    Seeds,
    Settings,
    checked_device,
    parsed,
)  # fmt: skip
from sswp_lib.presets import load_config, parse_settings

STOPPED = 130  # what typer makes of Ctrl-C
SHOWN = (
    "A run's name; its beginning is enough. Or a genotype's file, DARTS's text or the name of a published one, or "
    "NAS-Bench-201's string."
)
NAMED = 10  # damaged records that are named with their reason

app = typer.Typer(
    no_args_is_help=True, add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False,
    help="""Self-supervised and weight-preserving neural architecture search (SSWP-NAS).

    A run is named by its configuration: asking for a finished one shows it, asking for an interrupted one goes on with
    it.

    Start with `sswp search`, then `sswp train RUN --init concomitant`; `sswp reproduce` runs the notebooks.""",
)  # fmt: skip


@app.command()
def search(
    preset: Preset = "quick", data: DataName = None, method: Method = "sswp", seed: Seed = 0,
    settings: Settings = None, device: Device = None, quiet: Quiet = False, tensorboard: Board = False,
    fresh: Fresh = False,
) -> None:  # fmt: skip
    """Search an architecture and its concomitant weights: by the paper's method (sswp); by the relaxation that runs all
    candidates at once, from labels (darts) or by contrast (ssnas); by an evolution in a network that was trained along
    random paths, from labels (spos) or by contrast across paths (pi-nas); or by lot, the best of several (random).

    Example: `sswp search --data folder:my_images --set search.epochs=40`. Leaves runs/NAME/ with record.json,
    genotype.json, weights.safetensors and history.jsonl, and prints NAME and a summary. Of a large run it first says
    what time and memory it will take here.
    """
    from sswp_lib import processes
    from sswp_lib.lab import forecast
    from sswp_lib.runs import runs

    named = None if method == "sswp" else method
    given = parsed(settings, {"seed": ("--seed", seed or None), "search.method": ("--method", named)})
    config = load_config(preset, data, seed, given, method=given.get("search.method", method))
    with processes.together(checked_device(device)) as device:
        if not quiet and (fresh or runs.finished(config) is None):
            forecast.say(config, None, device or runs.default_device())
        print_record(runs.search(config, device, quiet, tensorboard, fresh))


@app.command()
def train(
    source: Annotated[str, typer.Argument(metavar="RUN|GENOTYPE.json", help=
        "A search run's name (its beginning is enough), a "
        "genotype file (JSON, or `Genotype(...)` as DARTS prints it), or a published genotype's name.")],
    init: Annotated[str, typer.Option(help=
        "random, simclr (pre-train first) or "
        "concomitant (the search's weights).")] = "random",
    labels: Annotated[float | None, typer.Option(help="Fraction of the labels to train on, e.g. 0.1.")] = None,
    weights: Annotated[Path | None, typer.Option(help=
        "A weights file for --init concomitant "
        "with a genotype file.")] = None,
    preset: Preset = "quick", data: DataName = None, seed: Seed = 0, settings: Settings = None, device: Device = None,
    quiet: Quiet = False, tensorboard: Board = False, fresh: Fresh = False,
) -> None:  # fmt: skip
    """Train a found or published architecture, and print its test accuracy.

    Example: `sswp train search-1a2b --init concomitant --labels 0.1`. The data, the model and the settings of a search,
    which `--init simclr` pre-trains with, are taken from it unless --data or --set say otherwise.
    """
    from sswp_lib import processes
    from sswp_lib.lab import forecast, sources
    from sswp_lib.runs import runs

    options = {
        "seed": ("--seed", seed or None), "train.init": ("--init", None if init == "random" else init),
        "train.labels": ("--labels", labels), "train.labels_per_class": ("--labels", labels),
    }  # fmt: skip
    given = parsed(settings, options)
    few = {"train.labels": labels, "train.labels_per_class": None} if labels is not None else {}
    own = {"train.init": init, **few, **given}
    start = sources.resolve(source, lambda: load_config(preset, data, seed, own).model.num_cells)
    named = given.get("data.name", data)
    config = load_config(
        preset, data if named is not None else sources.data_of(start), seed,
        {**sources.taken_over(start, named), **own},
    )  # fmt: skip
    with processes.together(checked_device(device)) as device:
        if not quiet and (fresh or weights is not None or runs.finished(config, start) is None):
            forecast.say(config, getattr(start, "genotype", start), device or runs.default_device())
        print_record(runs.train(config, start, weights, device, quiet, tensorboard, fresh))


@app.command("data")
def describe_data(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help=f"{', '.join(DATASETS)}, or the path of a folder of images.")
    ],
    settings: Settings = None,
) -> None:
    """Show what is in a data set: images of each class, what is passed over, and what is probably wrong.

    Example: `sswp data ~/my_images --set data.image_size=64`.
    """
    from sswp_lib.lab import sources
    from sswp_lib.learn.data import load
    from sswp_lib.runs.progress import Line

    config = load_config("paper", sources.data_name(source), settings=parse_settings(settings or []))
    line = Line("data")
    found = load(config.data, progress=line.working).found
    line.close(f"{found.images + found.test_images} images read")
    typer.echo(found.table())


@app.command("runs")
def list_runs() -> None:
    """List finished runs; those whose record cannot be read are named at the end."""
    from sswp_lib.paper import tables
    from sswp_lib.runs import records

    found, damaged = records.survey()
    typer.echo(tables.runs(found))
    if damaged:
        typer.echo(f"\n{len(damaged)} not listed:")
    for name, why in list(damaged.items())[:NAMED]:
        typer.echo(f"  {name}: {why}")
    if len(damaged) > NAMED:
        typer.echo(f"  and {len(damaged) - NAMED} more: {', '.join(list(damaged)[NAMED:])}")


@app.command()
def show(source: Annotated[str, typer.Argument(metavar="RUN|ARCHITECTURE", help=SHOWN)]) -> None:
    """Show a finished run's record, without its history, or an architecture in all forms that can say it, as JSON."""
    from sswp_lib.lab import sources
    from sswp_lib.runs.records import Record
    from sswp_lib.space.texts import texts

    found, plain = sources.shown(source), {}
    if isinstance(found, Record):
        plain, found = found.model_dump(mode="json", exclude={"history"}), found.architecture
    typer.echo(json.dumps(plain | ({"texts": texts(found)} if found is not None else {}), indent=1))


@app.command()
def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A finished training's name; its beginning is enough.")],
    kind: Annotated[str, typer.Option("--format", help="torch (.pt2, for `torch.export.load`) or onnx.")] = "torch",
    output: Annotated[Path | None, typer.Option(help="The file; in the run's folder if left out.")] = None,
) -> None:
    """Write a trained network into a file that needs nothing of this package, and its model card beside it.

    Example: `sswp export train-1a2b --output flowers.pt2`. Takes images in 0-1, normalises them itself; classes and
    preprocessing are in the file. Of a pre-training without labels the network gives features.
    """
    from sswp_lib.lab.export import export as written
    from sswp_lib.runs.records import find

    typer.echo(written(find(run), kind, output))


@app.command()
def predict(
    exported: Annotated[Path, typer.Argument(metavar="EXPORTED", help="A file that `sswp export` has written.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGES...", help="Image files, or folders of them.")],
    output: Annotated[Path | None, typer.Option(help="A CSV file; standard output if left out.")] = None,
) -> None:
    """Name the class of each image and its probability, as CSV; the features where there are no classes.

    Example: `sswp predict flowers.pt2 holiday/ --output flowers.csv`. Images that cannot be read are named and passed
    over; the exit status is then 1.
    """
    from sswp_lib.lab import predict as predicted
    from sswp_lib.runs import files

    table, unread = predicted.table(exported, images)
    for line in unread:
        print(f"sswp: {line}", file=sys.stderr)
    if output is None:
        typer.echo(table, nl=False)
    else:
        files.write(output, table.encode())
    if unread:
        raise RunError("not all images could be read; the table has the others")


@app.command()
def settings() -> None:
    """List every setting with its default (those of the `paper` preset)."""
    values = load_config("paper").model_dump(mode="json")
    for name in setting_names():
        value = values
        for part in name.split("."):
            value = value[part]
        typer.echo(f"{name} = {json.dumps(value)}")


@app.command()
def reproduce(
    preset: Preset = "quick",
    data: DataName = None,
    only: Only = None,
    start: Annotated[
        str | None, typer.Option("--from", help="Only that notebook and those after it, e.g. `04`.")
    ] = None,
    seeds: Seeds = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Notebooks at once; if left out, 1 on a GPU, else 2 where there are two processors."),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Stop after so long, e.g. `3h`, `90m`, and say what is missing."),
    ] = None,
    hang_after: Annotated[
        float, typer.Option(min=0.1, metavar="MINUTES", help="Stop a notebook that gives no sign of life for so long.")
    ] = 20.0,
) -> None:
    """Run the notebooks, write every table and figure to figures/own/PRESET/, and gather them in its index.html. Given
    --data or --seeds, the folder's name says so.

    Example: `sswp reproduce --preset smoke --from 04 --jobs 1`. What papermill says goes to runs/logs/. What a budget
    leaves is done by the next call.
    """
    from sswp_lib.lab import reproduce as notebooks

    seconds = None if budget is None else notebooks.duration_of(budget)
    failed = notebooks.reproduce(preset, data, only, seeds, start, jobs, hang_after, seconds)
    if failed:
        raise RunError(f"{len(failed)} of the notebooks failed: {', '.join(failed)}")


@app.command()
def submit(
    preset: Preset = "quick", data: DataName = None, only: Only = None, seeds: Seeds = None,
    where: Annotated[str, typer.Option("--cluster", help="slurm, or local: processes of this machine.")] = "slurm",
    limit: Annotated[int, typer.Option("--array-limit", min=1, help="Tasks at once, at most.")] = 8,
    minutes: Annotated[int, typer.Option("--time", min=2, help="Of a task, which is then queued again.")] = 240,
    partition: Annotated[str | None, typer.Option(help="Of the cluster.")] = None,
    gpus: Annotated[int, typer.Option(min=0, help="GPUs of a task.")] = 0,
    cpus: Annotated[int, typer.Option(min=1, help="Processors of a task; its threads.")] = 1,
    processes: Annotated[int, typer.Option(min=1, help="Processes of a task, by torchrun if several.")] = 1,
    extra: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="For sbatch, e.g. `mem=16G`.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Try what failed again.")] = False,
) -> None:  # fmt: skip
    """Compute what `sswp reproduce` needs as an array of tasks on a cluster. Each task does what is ready and nobody is
    at, until nothing is left; submitted twice, nothing is done twice.

    Example: `sswp submit --preset cifar --gpus 1 --cpus 8 --array-limit 4`, `sswp status --watch`, then `sswp reproduce
    --preset cifar`. All hosts must share the folder of runs. Logs go to runs/cluster/.
    """
    from sswp_lib.lab import cluster
    from sswp_lib.lab.plan import Request

    resources = cluster.Resources(minutes, gpus, cpus, processes, partition, cluster.options(extra or []))
    typer.echo(cluster.submit(Request.of(preset, data, only, seeds), where, limit, resources, again))


@app.command()
def status(
    preset: Annotated[str | None, typer.Option(help="Only what was submitted of that preset.")] = None,
    only: Only = None,
    watch: Annotated[bool, typer.Option("--watch", help="Keep it up to date while anything is at it.")] = False,
) -> None:
    """Show what of the submitted plans waits, runs, is done or failed, and when all will be done."""
    from sswp_lib.lab import status as standing

    wanted = standing.chosen(preset, only)
    if watch:
        standing.watch(wanted, typer.echo)
    else:
        typer.echo(standing.shown(wanted)[0])


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="A folder of results, such as figures/quick.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another, such as figures/own/night.")],
    output: Annotated[Path | None, typer.Option(help="Write the whole table, as .csv or .md.")] = None,
) -> None:
    """Say which verdicts differ between two folders of results, and which effects differ by more than chance.

    Example: `sswp compare figures/quick figures/own/cifar --output changed.md`. Given is B minus A with its 95 %
    interval (Welch), for claims whose runs are different ones; all of them are judged together (Holm).
    """
    from sswp_lib.paper import compared

    table = compared.compare(first, second)
    if output is not None:
        compared.write(table, output)
    typer.echo(compared.printed(table))


@app.command()
def publish(
    preset: Preset = "quick", data: DataName = None, only: Only = None,
    folder: Annotated[
        str | None, typer.Option(help="Of figures/; the preset's name if left out, needed with --data.")
    ] = None,
) -> None:  # fmt: skip
    """For maintainers: replace the reference results in figures/PRESET/ by what `sswp reproduce` has left.

    Writes tables, figures, the page and the runs' records. Refuses what the commit at hand would not give, and where a
    notebook has not been executed; with --only, where one of those has not. Of others the page then says so.
    """
    from sswp_lib.lab import publish as results

    typer.echo(f"published: {results.publish(preset, only, data, folder)}")


@app.command()
def restore(preset: Preset = "quick") -> None:
    """Put the published records of figures/PRESET/ into the run store: `sswp reproduce` then draws from them, and does
    only what is missing. Where weights.zip lies there too, the weights of the preset's own searches are put with them,
    for further fine-tunings; a run that needs others has what they are of done again.

    Example: `sswp restore --preset night`, then `sswp reproduce --preset night`.
    """
    from sswp_lib.lab import publish as results

    new, other, weights = results.restore(preset)
    left = f"; {other} of another release were left" if other else ""
    typer.echo(f"{new} records restored{f', weights of {weights}' if weights else ''}{left}")


def print_record(record) -> None:
    """Print a run's name and the result's plain numbers; of processes that share it the first one does."""
    from sswp_lib import processes

    if not processes.first():
        return
    typer.echo(record.name)
    for name, value in record.result.items():
        if name == "evidence":  # of which the rest is a number an entry of alpha
            value = {part: value[part] for part in ("drift", "margin")}
        if name not in ("genotype", "pruned_at", "mixture", "data"):
            typer.echo(f"  {name}: {json.dumps(value)}")


def _say(error: InputError | RunError) -> None:
    if "torch" in sys.modules:  # else there are no others, and it takes a second to import
        from sswp_lib import processes

        if not processes.says(error):
            return
    print(f"sswp: {error}", file=sys.stderr)


def main() -> None:
    """Run the command; a wrong input or a failed run is one line on standard error, never a traceback."""
    try:
        app()
    except InputError as error:
        _say(error)
        sys.exit(2)
    except RunError as error:
        _say(error)
        sys.exit(1)
    except SystemExit as end:
        if end.code == STOPPED:
            print("sswp: stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        raise


if __name__ == "__main__":
    main()
