"""Options that several commands share, and what is checked of them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sswp_lib.config import DATASETS, InputError, short
from sswp_lib.presets import METHODS, PRESETS, parse_settings

Preset = Annotated[str, typer.Option(help=f"Where settings start from: {', '.join(PRESETS)}.")]
DataName = Annotated[
    str | None, typer.Option("--data", help=f"Images: {', '.join(DATASETS)}. The preset's own if left out.")
]
Method = Annotated[str, typer.Option(help=f"How to search: {', '.join(METHODS)}.")]
Seed = Annotated[int, typer.Option(min=0, help="Every random number of the run follows from it.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Replace a setting, e.g. `search.epochs=40`; repeatable. `sswp settings` lists them.",
    ),
]
Only = Annotated[list[str] | None, typer.Option(help="Only the notebooks whose names begin so, e.g. `01`; repeatable.")]
Seeds = Annotated[int | None, typer.Option(min=2, help="Seeds of each comparison; the preset's number if left out.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 ...; a GPU if there is one.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress line.")]
Board = Annotated[bool, typer.Option("--tensorboard", help="Write TensorBoard events beside the run's history.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Do the run even if it is finished; its record is then replaced.")]


def parsed(settings: list[str] | None, options: dict[str, tuple[str, object]]) -> dict[str, Any]:
    """Return what --set gives; InputError where an option says something else of the same setting.

    Args:
        options: {setting: (its option's name, the option's value or None where it was left out)}.
    """
    given = parse_settings(settings or [])
    for setting, (option, value) in options.items():
        if value is not None and given.get(setting) not in (None, value):
            raise InputError(
                f"{option} {value} and --set {setting}={short(given[setting])} are both given; expected one of them"
            )
    return given


def checked_device(name: str | None) -> str | None:
    """Return the device's name; InputError where this machine has none such, or none that computes."""
    import torch

    try:
        if name is not None:
            torch.zeros(1, device=name).cpu()
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"device {name!r} cannot be used here ({str(error).splitlines()[0]}); leave --device out"
        ) from None
    return name
