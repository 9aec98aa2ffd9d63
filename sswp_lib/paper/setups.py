"""What a notebook starts with: its configuration, where its results go, the words of its captions."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from sswp_lib.config import Config, InputError, home
from sswp_lib.learn.data import load
from sswp_lib.learn.known import is_there
from sswp_lib.learn.phases import phase_lengths
from sswp_lib.methods import RELAXED
from sswp_lib.paper.output import Output
from sswp_lib.presets import load_config, load_slice, parse_settings
from sswp_lib.runs import runs
from sswp_lib.runs.progress import Line

Settings = dict[str, Any]
SEEDS = {"smoke": 2, "cifar": 2, "night": 12}  # searches of each comparison, by preset, fixed beforehand; ours
USUAL_SEEDS = 3
TRAININGS = {"night": 3}  # of each architecture that is judged from scratch; ours


class Setup(NamedTuple):
    """A notebook's configuration, that of its comparisons, how many searches each compares, and where results go."""

    config: Config
    study: Config
    seeds: int
    output: Output


def number_of_seeds(preset: str) -> int:
    """Return how many searches, each with a seed of its own, a comparison has where nothing else is asked for."""
    return SEEDS.get(preset, USUAL_SEEDS)


def number_of_trainings(preset: str) -> int:
    """Return how many trainings, on other labelled images each, judge an architecture."""
    return TRAININGS.get(preset, 1)


def configured(
    preset: str, data: str | None, seeds: int | None, settings: Sequence[str] = (), study: str = "ablations", **own: Any
) -> Setup:
    """Return what a notebook's parameters stand for.

    Args:
        data, seeds: None for the preset's own. study: what it compares, see `presets.STUDIES`; where that searches by
            another method than the paper's, it is the configuration too.
        own: the notebook's further parameters; None for the defaults.

    Raises:
        InputError: whatever is wrong with them, before anything is computed.
    """
    if seeds is not None and (isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 1):
        raise InputError(
            f"seeds is {seeds!r}; expected a whole number above 0 (2 or more give an interval), or None for the "
            "preset's"
        )
    given = parse_settings(settings)
    compared = load_config(preset, data, settings=given, study=study)
    config = compared if compared.search.method in RELAXED else load_config(preset, data, settings=given)
    load(config.data, progress=Line("data").working)  # a missing folder is said here
    usual = number_of_seeds(preset)
    return Setup(config, compared, seeds or usual, Output.of(preset, data, seeds, settings, **own))


def sliced(
    preset: str, data: str | None, seeds: int | None, settings: Sequence[str] = (), study: str = "ablations", **own: Any
) -> Setup | None:
    """Return the same for the preset's second data set; None where it has none, where another data set is asked for, or
    where neither its images are here nor runs on them.
    """
    given = parse_settings(settings)
    config, compared = load_slice(preset, given), load_slice(preset, given, study)
    if config is None or data is not None:
        return None
    if not is_there(config.data.name, home() / config.data.root) and runs.finished(config) is None:
        return None
    return Setup(config, compared, seeds or number_of_seeds(preset), Output.of(preset, data, seeds, settings, **own))


def described(config: Config, seeds: int, output: Output, device: str) -> pd.DataFrame:
    """Return one line that says what a notebook is about to do, where, and where its results go; warn where the code is
    not that beside which the notebook lies.
    """
    if (beside := _kit_around(Path.cwd())) not in (None, home()):
        warnings.warn(f"the kernel runs the kit of {home()}, not of {beside}: choose its own kernel", stacklevel=2)
    model, search = config.model, config.search
    row = {
        "data": config.data.name,
        "pixels": config.data.image_size,
        "C": model.init_channels,
        "L": model.num_cells,
        "search epochs": search.epochs,
        "searches": seeds,
        "preset": output.label,
        "device": device,
        "results in": f"figures/own/{output.name}",
    }
    return pd.DataFrame([row])


def _kit_around(folder: Path) -> Path | None:
    """Return the nearest folder around one that has the kit's code; None where there is none."""
    around = (parent for parent in (folder, *folder.parents) if (parent / "sswp_lib" / "__init__.py").is_file())
    return next(around, None)


def data_words(config: Config) -> str:
    """Return how a caption calls a configuration's data set."""
    name = config.data.name.removeprefix("folder:")
    whole = name if name == config.data.name else f"the folder {Path(name).name}"
    some = whole if config.data.classes is None else f"the classes {', '.join(config.data.classes)} of {whole}"
    return some if config.data.per_class is None else f"{config.data.per_class} images a class of {some}"


def size(config: Config) -> str:
    """Return the words of a caption that say what was searched, and for how long."""
    model = config.model
    return (
        f"{data_words(config)}, {config.data.image_size} pixels, C={model.init_channels}, L={model.num_cells}, "
        f"{config.search.epochs} search epochs"
    )


def recipe(study: Config, frame: pd.DataFrame, searched: Config | None = None) -> str:
    """Return the words of a caption that say what was searched, what networks were trained on, and how long; `searched`
    is how, where it is not by the study.
    """
    return (
        f"{size(searched or study)}; {int(frame['labels'].median())} labels, {study.train.epochs} epochs, "
        f"learning rate {study.train.lr:g}"
    )


def phase_words(study: Config, arms: dict[str, Settings]) -> str:
    """Return the words of a caption that say how many epochs each arm's phases have."""
    lengths = {name: phase_lengths(study.changed(**settings).search).values() for name, settings in arms.items()}
    return ", ".join(f"{name} {' + '.join(str(n) for n in epochs)}" for name, epochs in lengths.items())
