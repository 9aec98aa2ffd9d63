"""Every setting, once: frozen, validated, JSON in and out.

Each default carries its source: a table of the paper, another paper that it names, or "ours". The `paper` preset is
Table 5 for CIFAR and is what the defaults say; `presets` has the others.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from fractions import Fraction
from html import escape
from typing import Annotated, Any, Literal

from pydantic import Field, StrictBool, StrictFloat, StrictInt, ValidationError, field_validator, model_validator

from sswp_lib.methods import OneShot, Random, Ranking, Relaxed, check_method, check_one_shot, check_relaxed
from sswp_lib.settings import (  # noqa: F401, others ask for them here
    InputError,
    OneLine,
    RunError,
    Section,
    different,
    home,
    one_line,
    refuse,
    rising,
    short,
    suggest,
)

DATASETS = ("digits", "cifar10", "cifar100", "tiny-imagenet", "imagenet", "folder:PATH")
ALIKE = ("digits", "cifar10", "cifar100")  # of these, images of one size
NUM_CANDIDATES = 7  # of the search space (`space.CANDIDATES`)
Share = Annotated[StrictFloat, Field(gt=0, le=1)]  # of an image's area
Turn = Annotated[StrictFloat, Field(ge=0, le=0.5)]  # of the circle of hues
Strength = Annotated[StrictFloat, Field(ge=0)]  # above 1 too, as in torchvision
Sigma = Annotated[StrictFloat, Field(gt=0)]
Text = Annotated[str, Field(min_length=1)]


class Views(Section):
    """The random views of an image; each image of a batch draws parameters of its own (SimCLR, appendix A)."""

    crop_scale: tuple[Share, Share] = (0.2, 1.0)  # area kept by the random resized crop; ours (SimCLR: 0.08 to 1)
    flip: StrictBool = True
    # brightness, contrast, saturation, hue
    jitter: tuple[Strength, Strength, Strength, Turn] = (0.8, 0.8, 0.8, 0.2)
    jitter_p: StrictFloat = Field(0.3, ge=0, le=1)
    grey_p: StrictFloat = Field(0.2, ge=0, le=1)
    blur_p: StrictFloat = Field(0.2, ge=0, le=1)
    blur_sigma: tuple[Sigma, Sigma] = (1.0, 2.0)
    rotation: StrictFloat = Field(0.0, ge=0, le=180)  # degrees either way; ours, for images without a flip
    # pixels by which a view may be moved beside its crop, black coming in as in training; ours
    shift: StrictInt = Field(0, ge=0)

    @field_validator("crop_scale", "blur_sigma")
    @classmethod
    def _in_order(cls, ends: tuple[float, float]) -> tuple[float, float]:
        refuse((ends[0] > ends[1], f"{list(ends)} is reversed; expected the smaller value first"))
        return ends


class Data(Section):
    name: str = "cifar10"  # one of DATASETS
    root: Text = "data"  # where downloaded sets and the folders of tiny-imagenet and imagenet lie
    image_size: StrictInt = Field(32, ge=8, le=512)  # pixels a side of what networks see
    decode_size: StrictInt | None = Field(None, ge=8, le=1024)  # pixels a side of the images kept; None: image_size
    # the middle square of each image of a folder at that size; or the whole photograph, its shorter side at that size
    # at most, of which random crops are then taken (what ImageNet is trained with), in one file that is mapped
    kept: Literal["squares", "photographs"] = "squares"
    classes: tuple[Text, ...] | None = Field(None, min_length=2)  # only these classes of the set; None: all
    # only so many images of each class, in training and test; None: all. A slice of CIFAR is the same from any files
    per_class: StrictInt | None = Field(None, ge=2)
    views: Views = Views()

    @model_validator(mode="after")
    def _known(self) -> Data:
        if self.name not in DATASETS and not (
            self.name.startswith("folder:") and self.name.removeprefix("folder:").strip()
        ):
            raise ValueError(f"unknown data set {self.name!r}{suggest(self.name, DATASETS)}")
        different("classes", self.classes or ())
        if self.decode_size is not None and self.decode_size < self.image_size:
            raise ValueError(
                f"decode_size {self.decode_size} is less than image_size {self.image_size}; expected as much or more"
            )
        whole = self.kept == "photographs"
        refuse(
            (whole and self.name in ALIKE,
             f"kept 'photographs' is for image files of any shape; those of {self.name} are all alike: expected "
             "kept='squares'"),
            (whole and self.views.rotation > 0,
             f"views.rotation {self.views.rotation:g} turns squares, not crops of kept 'photographs'; expected 0, or "
             "kept='squares'"),
        )  # fmt: skip
        return self


class Model(Section):
    init_channels: StrictInt = Field(36, ge=2, multiple_of=2)  # section 4.1
    num_cells: StrictInt = Field(20, ge=1)  # section 4.1
    stem: Literal["cifar", "imagenet"] = "cifar"
    projection_dim: StrictInt = Field(128, ge=2)  # SimCLR
    # autocast, as appendix A has it for ImageNet; float16, for cards without bfloat16, with its loss scaled
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    compiled: StrictBool = False  # each operation by torch.compile; ours, for long runs on CUDA


class Search(Section):
    # the paper's; others have sections of their own (`methods.SECTIONS`)
    method: Literal["sswp", "darts", "ssnas", "spos", "pi-nas", "random"] = "sswp"
    objective: Literal["simclr", "supervised", "byol"] = "simclr"  # section 3.3
    epochs: StrictInt = Field(300, ge=1)  # section 4.1
    batch_size: StrictInt = Field(96, ge=2)  # Table 5; images, so twice as many views
    # section 3.5: warm-up, bi-level, pruning; a fourth part is ours: all cells fixed, weights learn from all images
    ratios: tuple[StrictFloat, ...] = (0.2, 0.4, 0.4)
    prune: Literal["forward", "backward", "none"] = "forward"  # FPP, BPP, or all cells at the end
    edges: Literal["all", "top2"] = "all"  # which edges a pruned cell keeps; the paper: all
    max_skips: StrictInt | None = Field(2, ge=0)  # DARTS
    max_pools: StrictInt | None = Field(2, ge=0)  # published code
    lr: StrictFloat = Field(0.025, gt=0)  # Table 5
    min_lr: StrictFloat = Field(0.0, ge=0)  # Table 5
    schedule: Literal["epoch", "step"] = "epoch"  # the unit in which the cosine advances; DARTS: epoch
    momentum: StrictFloat = Field(0.9, ge=0, lt=1)  # Table 5
    weight_decay: StrictFloat = Field(4e-5, ge=0, le=1)  # Table 5
    grad_clip: StrictFloat = Field(5.0, gt=0)  # DARTS
    alpha_lr: StrictFloat = Field(0.001, gt=0, le=10)  # Table 5
    alpha_beta2: StrictFloat = Field(0.99, ge=0, lt=1)  # Table 5; beta1 is 0, or unsampled entries would move
    alpha_every: StrictInt = Field(5, ge=1)  # weight steps before each architecture step; ProxylessNAS's published code
    # candidates evaluated on an edge in an architecture step, one of them active; section 3.2: two. With more an update
    # says more of alpha, with all it is the gradient that ProxylessNAS begins from, before it samples two
    evaluated: StrictInt = Field(2, ge=2)
    skip_dropout: StrictFloat = Field(0.2, ge=0, le=1)  # section 3.2
    pool_dropout: StrictFloat = Field(0.0, ge=0, le=1)  # ours
    temperature: StrictFloat = Field(0.07, ge=1e-3, le=100)  # published code
    # another stream of what is random in architecture steps, for the same weights: tells noise from seeds; ours
    alpha_stream: StrictInt = Field(0, ge=0)
    # candidates of no use beside the seven, to see whether alpha finds them out (`space.planted`); ours
    planted: tuple[Literal["noise", "zero", "twin"], ...] = ()
    ema: StrictFloat = Field(0.99, ge=0, lt=1)  # BYOL's target; ours (BYOL: 0.996, for far longer runs)
    calibration_batches: StrictInt = Field(20, ge=1)  # training batches for BatchNorm's statistics at export; ours

    def boundaries(self) -> tuple[int, int, int]:
        """Return the first epoch after warm-up, ceil(E r1); that at whose start the first cell is pruned,
        floor(E (r1 + r2)), or when all are where they are pruned at once; and that at which a last part with all cells
        fixed begins, the floor of the parts before it, or E where there is none.
        """
        parts = [Fraction(str(ratio)) * self.epochs for ratio in self.ratios]  # 0.2 + 0.4 is 0.6 here
        searching = 2 if self.prune == "none" else 3
        fixed = math.floor(sum(parts[:searching])) if len(parts) > searching else self.epochs
        return math.ceil(parts[0]), fixed if self.prune == "none" else math.floor(parts[0] + parts[1]), fixed

    @model_validator(mode="after")
    def _phases(self) -> Search:
        different("planted", self.planted)
        check_method(self.method, self.objective, self.planted, self.alpha_stream)
        refuse(rising(self.lr, self.min_lr))
        if self.method == "sswp":
            self._check_ratios()
        return self

    def _check_ratios(self) -> None:
        ratios, few = list(self.ratios), 2 if self.prune == "none" else 3
        candidates = NUM_CANDIDATES + len(self.planted)
        example = [0.2, 0.8] if few == 2 else [0.2, 0.4, 0.4]
        refuse(
            (len(ratios) not in (few, few + 1),
             f"ratios {ratios} has {len(ratios)} parts; prune={self.prune!r} expects {few}, e.g. {example}, or "
             f"{few + 1}, the last with all cells fixed"),
            (self.evaluated > candidates,
             f"evaluated {self.evaluated} is more than the {candidates} candidates; expected 2 to {candidates}"),
            (any(not 0 <= r <= 1 for r in ratios), f"ratios {ratios} must each lie between 0 and 1"),
            (abs(sum(ratios) - 1) > 1e-9, f"ratios {ratios} add up to {sum(ratios):g}; expected 1"),
            (few == 3 and ratios[2:3] == [0],
             f"ratios {ratios} leave no time for pruning; expected a third part above 0, or prune='none'"),
        )  # fmt: skip
        learning, pruning, _ = self.boundaries()
        enough = f", or epochs={math.ceil(2 / ratios[1])}" if ratios[1] > 1e-3 else ""
        refuse(
            (learning >= pruning,
             f"epochs {self.epochs} at ratios {ratios} leave none in which alpha is learnt before the first cell is "
             f"pruned, so that nothing is searched; expected a larger second part{enough}"),
        )  # fmt: skip


class Train(Section):
    init: Literal["random", "simclr", "simclr_matched", "concomitant"] = "random"
    objective: Literal["supervised", "simclr"] = "supervised"  # simclr: the two-stage baseline's pre-training
    half: StrictBool = False  # pre-train on the half of the images on which a search of that seed learns weights; ours
    freeze: Literal["none", "backbone"] = "none"  # backbone: a linear probe, BatchNorm in evaluation mode
    labels: StrictFloat = Field(1.0, gt=0, le=1)  # fraction of the labels; stratified and nested
    labels_per_class: StrictInt | None = Field(None, ge=1)  # so many of each class instead
    # part of the training images that supervised training does not see; searches and pre-training do, without labels
    validation: StrictFloat = Field(0.0, ge=0, lt=1)
    epochs: StrictInt = Field(600, ge=1)  # DARTS
    batch_size: StrictInt = Field(128, ge=1)  # Table 5
    lr: StrictFloat = Field(0.025, gt=0)  # Table 5
    min_lr: StrictFloat = Field(0.0, ge=0)  # Table 5
    schedule: Literal["epoch", "step"] = "epoch"  # DARTS
    momentum: StrictFloat = Field(0.9, ge=0, lt=1)  # Table 5
    weight_decay: StrictFloat = Field(3e-4, ge=0, le=1)  # Table 5
    grad_clip: StrictFloat = Field(5.0, gt=0)  # DARTS
    # shift: `shift`, flip and `cutout`, as DARTS on CIFAR. crop: DARTS's recipe for ImageNet, a random resized crop of
    # 0.08 to 1 of the area, flip and colour jitter (0.4, 0.4, 0.4, 0.2)
    augment: Literal["shift", "crop"] = "shift"
    cutout: StrictInt = Field(16, ge=0)  # Table 5; pixels a side, 0 for none
    shift: StrictInt = Field(4, ge=0)  # DARTS: random crop after padding by so many pixels
    label_smoothing: StrictFloat = Field(0.0, ge=0, lt=1)  # DARTS: 0.1 on ImageNet, none on CIFAR
    drop_path: StrictFloat = Field(0.3, ge=0, lt=1)  # Table 5; reached linearly at the last epoch
    auxiliary: StrictFloat = Field(0.4, ge=0)  # Table 5; weight of the auxiliary head's loss, 0 for no head
    temperature: StrictFloat = Field(0.07, ge=1e-3, le=100)  # as in the search
    calibrate: StrictBool = False  # recompute BatchNorm's statistics before the last evaluation; both are reported
    evaluate_every: StrictInt = Field(0, ge=0)  # epochs between evaluations on the validation part; 0: at the end only

    @model_validator(mode="after")
    def _meant(self) -> Train:
        probe, own = self.freeze == "backbone", self.objective == "simclr"
        ignored = {"labels": 1.0, "labels_per_class": None, "validation": 0.0} if own else {}
        ignored = {name: value for name, value in ignored.items() if getattr(self, name) != value}
        refuse(
            rising(self.lr, self.min_lr),
            (bool(ignored),
             f"objective 'simclr' learns from all images without labels and would ignore {', '.join(ignored)}; "
             f"expected {', '.join(f'{name}={json.dumps(value)}' for name, value in ignored.items())}"),
            (self.labels < 1 and self.labels_per_class is not None,
             f"labels {self.labels:g} and labels_per_class {self.labels_per_class} are both given; expected one: "
             "set labels=1, or labels_per_class=null"),
            (probe and own,
             "freeze 'backbone' with objective 'simclr' leaves only the projection head to learn; expected "
             "objective='supervised', or freeze='none'"),
            (probe and self.init == "random",
             "freeze 'backbone' with init 'random' probes features that nothing has learnt; expected "
             "init='concomitant' or 'simclr'"),
            (own and self.init in ("simclr", "simclr_matched"),
             f"init {self.init!r} with objective 'simclr' pre-trains twice; expected init='random' or 'concomitant'"),
            (self.half and not own,
             "half is for pre-training; expected half=false, or objective='simclr'"),
            (own and self.batch_size == 1,
             "batch_size 1 leaves objective 'simclr' no other image to contrast with; expected 2 or more"),
            (self.batch_size == 1 and self.auxiliary > 0 and not own and not probe,
             "batch_size 1 gives the auxiliary head's BatchNorm one value a channel; expected 2 or more, or "
             "auxiliary=0"),
            (self.evaluate_every > 0 and self.validation == 0,
             f"evaluate_every {self.evaluate_every} has no validation part to evaluate; expected validation above 0, "
             "or evaluate_every=0"),
            (self.evaluate_every > self.epochs,
             f"evaluate_every {self.evaluate_every} is more than epochs {self.epochs}; expected at most so many, or 0"),
            (self.augment == "crop" and self.shift + self.cutout > 0,
             f"augment 'crop' takes the place of shift {self.shift} and cutout {self.cutout}; expected 0 for both, or "
             "augment='shift'"),
        )  # fmt: skip
        return self


class Config(Section):
    """Everything that a run depends on. Whole to the loops; modules get the plain numbers they need."""

    data: Data = Data()
    model: Model = Model()
    search: Search = Search()
    relaxed: Relaxed = Relaxed()
    train: Train = Train()
    one_shot: OneShot = OneShot()
    ranking: Ranking = Ranking()
    random: Random = Random()
    seed: StrictInt = Field(0, ge=0, lt=2**32)  # NumPy's range

    @model_validator(mode="after")
    def _fitting(self) -> Config:
        """Refuse what does not fit the images. A pre-training uses neither shift nor cutout of its own."""
        size, views, train = self.data.image_size, self.data.views, self.train
        used, half = train.objective == "supervised", size // 2
        refuse(
            (self.model.stem == "imagenet" and size < 32,
             f"data.image_size {size} is less than a pixel behind the stem 'imagenet' and two reductions, which divide "
             "it by 32; expected 32 or more, or model.stem=cifar"),
            (views.shift > half,
             f"data.views.shift {views.shift} moves views of {size} pixels by more than half; expected at most {half}"),
            (used and train.shift > half,
             f"train.shift {train.shift} moves images of {size} pixels by more than half; expected at most {half}"),
            (used and train.cutout > size,
             f"train.cutout {train.cutout} is larger than images of {size} pixels; expected e.g. {half} or 0"),
            *check_relaxed(self.relaxed, self.search.method, self.model.num_cells, size, self.model.precision),
            check_one_shot(self.one_shot, self.search.method),
            (self.model.precision == "float16" and self.search.method != "sswp",
             f"model.precision float16 needs losses that are scaled, which method {self.search.method!r} does not do; "
             "expected bfloat16 or float32"),
        )  # fmt: skip
        return self

    def changed(self, **settings: Any) -> Config:
        """Return a copy with dotted settings replaced, e.g. changed(**{"search.epochs": 40, "seed": 1})."""
        values = self.model_dump()
        for dotted, value in settings.items():
            _set(values, dotted, value)
        return validated(values)

    def differences(self) -> dict[str, Any]:
        """Return the dotted settings that are not as in the paper, with their values."""
        paper = flat(Config().model_dump())
        return {name: value for name, value in flat(self.model_dump()).items() if value != paper[name]}

    def __repr_args__(self) -> Iterable[tuple[str, Any]]:  # of which pydantic makes the text
        return self.differences().items()

    def _repr_html_(self) -> str:
        return html_table("What is not as in the paper", self.differences())

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


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested plain data by dotted names, e.g. "search.epochs"."""
    inner = (flat(v, f"{prefix}{k}.") if isinstance(v, dict) else {prefix + k: v} for k, v in values.items())
    return {name: value for part in inner for name, value in part.items()}


def setting_names() -> list[str]:
    """Return every dotted setting, e.g. "search.epochs"."""
    return list(flat(Config().model_dump()))


def without_defaults(plain: dict[str, Any], defaults: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return a configuration's plain data without the settings that are as in the paper, so that one which comes to be
    later, and leaves things as they were by default, changes nothing in it.
    """
    defaults = Config().model_dump(mode="json") if defaults is None else defaults
    inner = {k: without_defaults(v, defaults[k]) if isinstance(defaults.get(k), dict) else v for k, v in plain.items()}
    return {k: v for k, v in inner.items() if v != (defaults.get(k, ...) if not isinstance(v, dict) else {})}


def html_table(title: str, rows: dict[str, Any]) -> str:
    """Return a small table of two columns, as notebooks show an object."""
    cells = (f"<tr><th>{escape(str(k))}</th><td>{escape(str(v))}</td></tr>" for k, v in rows.items())
    return f"<table><caption>{escape(title)}</caption>{''.join(cells)}</table>"


def _set(values: dict[str, Any], dotted: str, value: Any) -> None:
    *sections, last = dotted.split(".")
    inner: Any = values
    for section in sections:
        inner = inner.get(section) if isinstance(inner, dict) else None
    if not isinstance(inner, dict) or last not in inner or isinstance(inner[last], dict):
        raise InputError(f"unknown setting {dotted!r}{suggest(dotted, setting_names())}")
    inner[last] = value
