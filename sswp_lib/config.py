"""Every setting, once: frozen, validated, JSON in and out.

Each default carries its source: a table of the paper, another paper that it names, or "ours". The `paper` preset is
Table 5 for CIFAR and is what the defaults say; `presets` has the others.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, ValidationError, model_validator


class OneLine:
    """An error whose message says everything: notebooks show it alone, without the calls that led to it."""

    def _render_traceback_(self) -> list[str]:  # IPython asks for it
        return [f"{type(self).__name__}: {self}"]


class InputError(OneLine, ValueError):
    """Something the user gave is wrong. The message is one line: the value, what was expected, what to do."""


class RunError(OneLine, RuntimeError):
    """A run cannot go on. The message is one line: what happened, where, and what to try."""


def home() -> Path:
    """Return the folder in which runs/, figures/ and data/ lie: the project's, or the current one where the package is
    installed elsewhere.
    """
    project = Path(__file__).resolve().parents[1]
    return project if (project / "pyproject.toml").is_file() else Path.cwd()


def suggest(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" or "; expected one of ..." for a name that is not among `known`."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    more = ", ..." if len(known) > 12 else ""
    return f"; did you mean {near[0]!r}?" if near else f"; expected one of {', '.join(known[:12])}{more}"


def one_line(error: ValidationError) -> str:
    """Return pydantic's findings as one line: where, what, and the value."""
    found = []
    for entry in error.errors(include_url=False):
        where = ".".join(str(part) for part in entry["loc"])
        message = entry["msg"].removeprefix("Value error, ")
        value = entry.get("input")
        given = f" (got {value!r})" if entry["type"] != "value_error" and not isinstance(value, dict | list) else ""
        found.append(f"{where}: {message}{given}" if where else f"{message}{given}")
    return "; ".join(found)


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


DATASETS = ("digits", "cifar10", "cifar100", "tiny-imagenet", "imagenet", "folder:PATH")
Share, Turn = (
    Annotated[float, Field(gt=0, le=1)],
    Annotated[float, Field(ge=0, le=0.5)],
)  # of an image's area; of the circle of hues


class Views(Section):
    """The random views of an image; each image of a batch draws parameters of its own (SimCLR, appendix A)."""

    crop_scale: tuple[Share, Share] = (0.2, 1.0)  # area kept by the random resized crop; ours (SimCLR: 0.08 to 1)
    flip: bool = True
    jitter: tuple[NonNegativeFloat, NonNegativeFloat, NonNegativeFloat, Turn] = (
        0.8,
        0.8,
        0.8,
        0.2,
    )  # brightness, contrast, saturation, hue
    jitter_p: float = Field(0.3, ge=0, le=1)
    grey_p: float = Field(0.2, ge=0, le=1)
    blur_p: float = Field(0.2, ge=0, le=1)
    blur_sigma: tuple[PositiveFloat, PositiveFloat] = (1.0, 2.0)
    rotation: float = Field(0.0, ge=0, le=180)  # degrees either way; ours, for images without a flip


class Data(Section):
    name: str = "cifar10"  # one of DATASETS
    root: str = "data"  # where downloaded sets and the folders of tiny-imagenet and imagenet lie
    image_size: int = Field(32, ge=8, le=512)  # pixels a side of what networks see
    decode_size: int | None = Field(None, ge=8, le=1024)  # pixels a side of the images kept; None: image_size
    classes: tuple[str, ...] | None = Field(None, min_length=2)  # only these classes of the set; None: all
    views: Views = Views()

    @model_validator(mode="after")
    def _known(self) -> Data:
        if self.name not in DATASETS and not (self.name.startswith("folder:") and len(self.name) > len("folder:")):
            raise ValueError(f"unknown data set {self.name!r}{suggest(self.name, DATASETS)}")
        if self.decode_size is not None and self.decode_size < self.image_size:
            raise ValueError(
                f"decode_size {self.decode_size} is less than image_size {self.image_size}; expected as much or more"
            )
        return self


class Model(Section):
    init_channels: int = Field(36, ge=2, multiple_of=2)  # section 4.1
    num_cells: int = Field(20, ge=1)  # section 4.1
    stem: Literal["cifar", "imagenet"] = "cifar"
    projection_dim: int = Field(128, ge=2)  # SimCLR
    precision: Literal["float32", "bfloat16"] = "float32"  # bfloat16: autocast; appendix A uses it for ImageNet


class Search(Section):
    objective: Literal["simclr", "supervised", "byol"] = "simclr"  # section 3.3
    epochs: int = Field(300, ge=1)  # section 4.1
    batch_size: int = Field(96, ge=2)  # Table 5; images, so twice as many views
    ratios: tuple[float, ...] = (0.2, 0.4, 0.4)  # section 3.5: warm-up, bi-level, pruning
    prune: Literal["forward", "backward", "none"] = "forward"  # FPP, BPP, or all cells at the end
    edges: Literal["all", "top2"] = "all"  # which edges a pruned cell keeps; the paper: all
    max_skips: int | None = Field(2, ge=0)  # DARTS
    max_pools: int | None = Field(2, ge=0)  # published code
    lr: float = Field(0.025, gt=0)  # Table 5
    min_lr: float = Field(0.0, ge=0)  # Table 5
    schedule: Literal["epoch", "step"] = "epoch"  # the unit in which the cosine advances; DARTS: epoch
    momentum: float = Field(0.9, ge=0, lt=1)  # Table 5
    weight_decay: float = Field(4e-5, ge=0)  # Table 5
    grad_clip: float = Field(5.0, gt=0)  # DARTS
    alpha_lr: float = Field(0.001, gt=0)  # Table 5
    alpha_beta2: float = Field(0.99, ge=0, lt=1)  # Table 5; beta1 is 0, or unsampled entries would move
    alpha_every: int = Field(5, ge=1)  # weight steps before each architecture step; ProxylessNAS's published code
    skip_dropout: float = Field(0.2, ge=0, le=1)  # section 3.2
    pool_dropout: float = Field(0.0, ge=0, le=1)  # ours
    temperature: float = Field(0.07, gt=0)  # published code
    ema: float = Field(0.99, ge=0, lt=1)  # BYOL's target; ours (BYOL: 0.996, for far longer runs)
    calibration_batches: int = Field(20, ge=1)  # training batches for BatchNorm's statistics at export; ours

    @model_validator(mode="after")
    def _phases(self) -> Search:
        parts = 2 if self.prune == "none" else 3
        if len(self.ratios) != parts:
            raise ValueError(
                f"ratios {list(self.ratios)} has {len(self.ratios)} parts; prune={self.prune!r} expects "
                f"{parts}, e.g. {[0.2, 0.8] if parts == 2 else [0.2, 0.4, 0.4]}"
            )
        if any(not 0 <= r <= 1 for r in self.ratios):
            raise ValueError(f"ratios {list(self.ratios)} must each lie between 0 and 1")
        if abs(sum(self.ratios) - 1) > 1e-9:
            raise ValueError(f"ratios {list(self.ratios)} add up to {sum(self.ratios):g}; expected 1")
        if self.prune != "none" and self.ratios[2] == 0:
            raise ValueError(
                f"ratios {list(self.ratios)} leave no time for pruning; expected a third part above 0, or prune='none'"
            )
        return self


class Train(Section):
    init: Literal["random", "simclr", "concomitant"] = "random"
    objective: Literal["supervised", "simclr"] = "supervised"  # simclr: the two-stage baseline's pre-training
    freeze: Literal["none", "backbone"] = "none"  # backbone: a linear probe, BatchNorm in evaluation mode
    labels: float = Field(1.0, gt=0, le=1)  # fraction of the labels; stratified and nested
    labels_per_class: int | None = Field(None, ge=1)  # so many of each class instead
    validation: float = Field(
        0.0,
        ge=0,
        lt=1,
        # part of the training images held out of supervised training; searches and pre-training see them, without
        # labels if
        # SSL
    )
    epochs: int = Field(600, ge=1)  # DARTS
    batch_size: int = Field(128, ge=1)  # Table 5
    lr: float = Field(0.025, gt=0)  # Table 5
    min_lr: float = Field(0.0, ge=0)  # Table 5
    schedule: Literal["epoch", "step"] = "epoch"  # DARTS
    momentum: float = Field(0.9, ge=0, lt=1)  # Table 5
    weight_decay: float = Field(3e-4, ge=0)  # Table 5
    grad_clip: float = Field(5.0, gt=0)  # DARTS
    cutout: int = Field(16, ge=0)  # Table 5; pixels a side, 0 for none
    shift: int = Field(4, ge=0)  # DARTS: random crop after padding by so many pixels
    drop_path: float = Field(0.3, ge=0, lt=1)  # Table 5; reached linearly at the last epoch
    auxiliary: float = Field(0.4, ge=0)  # Table 5; weight of the auxiliary head's loss, 0 for no head
    temperature: float = Field(0.07, gt=0)  # as in the search
    calibrate: bool = False  # recompute BatchNorm's statistics before the last evaluation; both are reported
    evaluate_every: int = Field(0, ge=0)  # epochs between evaluations on the validation part; 0: at the end only


class Config(Section):
    """Everything that a run depends on. Whole to the loops; modules get the plain numbers they need."""

    data: Data = Data()
    model: Model = Model()
    search: Search = Search()
    train: Train = Train()
    seed: int = Field(0, ge=0)

    def changed(self, **settings: Any) -> Config:
        """Return a copy with dotted settings replaced, e.g. changed(**{"search.epochs": 40, "seed": 1})."""
        values = self.model_dump()
        for dotted, value in settings.items():
            _set(values, dotted, value)
        return validated(values)

    def part(self, *sections: str) -> dict[str, Any]:
        """Return the named sections as plain data: what a run's name is made of."""
        everything = self.model_dump(mode="json")
        return {name: everything[name] for name in (*sections, "seed")}


def validated(values: dict[str, Any]) -> Config:
    """Return the Config of plain data; InputError names the setting, its value and what was expected."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise InputError(one_line(error)) from None


def digest(plain: Any) -> str:
    """Return the first 12 hex digits of the SHA-256 of plain data in canonical JSON."""
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def setting_names(values: dict[str, Any] | None = None, prefix: str = "") -> list[str]:
    """Return every dotted setting, e.g. "search.epochs"."""
    values = Config().model_dump() if values is None else values
    return [
        n
        for k, v in values.items()
        for n in (setting_names(v, f"{prefix}{k}.") if isinstance(v, dict) else [prefix + k])
    ]


def _set(values: dict[str, Any], dotted: str, value: Any) -> None:
    *sections, last = dotted.split(".")
    inner: Any = values
    for section in sections:
        inner = inner.get(section) if isinstance(inner, dict) else None
    if not isinstance(inner, dict) or last not in inner or isinstance(inner[last], dict):
        raise InputError(f"unknown setting {dotted!r}{suggest(dotted, setting_names())}")
    inner[last] = value


def parse_settings(pairs: Iterable[str]) -> dict[str, Any]:
    """Turn "search.epochs=40" pairs into a dictionary; values are JSON where they can be, else text."""
    settings = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise InputError(f"setting {pair!r} has no value; expected NAME=VALUE, e.g. search.epochs=40")
        try:
            settings[name.strip()] = json.loads(text)
        except json.JSONDecodeError:
            settings[name.strip()] = text
    return settings
