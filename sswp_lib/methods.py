"""The settings of other methods of search than the paper's, and what of the paper's own they have a use for.

Each method's settings are a section of their own, so that no run of another method is renamed by them. Each default
carries its source; of one-shot training and ranking, "paper" is Pi-NAS (Peng et al., ICCV 2021; section 4.1 unless
said), "code" what its authors released, where the paper is silent or says something else; "SPOS" Guo et al. 2020.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, StrictBool, StrictFloat, StrictInt, model_validator

from sswp_lib.settings import Section, refuse

RELAXED = {"darts": "supervised", "ssnas": "simclr"}  # methods that relax the choice on an edge, and what they learn by
ONE_SHOT = {"spos": "supervised", "pi-nas": "crosspath"}  # methods that train one network along random paths, by what
RANDOM = "random"
SIZES = ("one_shot.init_channels", "one_shot.num_cells")  # in the space "cells" these are the model's
# settings of the section `ranking` that say how a one-shot network's space is gone through
EVOLUTION = ("population", "parents", "mutations", "mutation_p", "crossovers", "generations")
# sections of settings of their own, beside or in place of the section `search`
SECTIONS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(RELAXED, ("relaxed",)), **dict.fromkeys(ONE_SHOT, ("one_shot", "ranking")), RANDOM: ("random",),
}  # fmt: skip
# settings of the section `search` that the relaxation has no use for and passes over
NOT_RELAXED = (
    "ratios", "prune", "edges", "max_skips", "max_pools", "alpha_lr", "alpha_beta2", "alpha_every", "evaluated",
    "skip_dropout", "pool_dropout",
)  # fmt: skip
NOT_RANDOM = tuple(name for name in NOT_RELAXED if name not in ("max_skips", "max_pools"))  # nor random search
Share = Annotated[StrictFloat, Field(gt=0, lt=1)]
MIN_CELLS = 3  # fewer are reductions, and the normal cell would learn nothing


class Relaxed(Section):
    """DARTS's relaxation (Liu et al. 2019), by labels or, as SSNAS (Kaplan & Giryes 2020), by contrast; `DARTS` here is
    its published code. What is not said here is said in the section `search`.
    """

    order: StrictInt = Field(1, ge=1, le=2)  # DARTS's default, and SSNAS
    split: Literal["halves", "same"] = "halves"  # DARTS; same: all images for weights and alpha (SSNAS, section 4.4)
    alpha_lr: StrictFloat = Field(3e-4, gt=0, le=10)  # DARTS
    alpha_beta1: StrictFloat = Field(0.5, ge=0, lt=1)  # DARTS
    alpha_beta2: StrictFloat = Field(0.999, ge=0, lt=1)  # DARTS
    alpha_weight_decay: StrictFloat = Field(1e-3, ge=0, le=1)  # DARTS; added to the gradient
    # of the network that is searched in; None: the model's, which the genotype is trained with. DARTS: 16 and 8
    init_channels: StrictInt | None = Field(None, ge=2, multiple_of=2)
    num_cells: StrictInt | None = Field(None, ge=MIN_CELLS)
    # pixels by which labelled images are moved, beside their flip; None: an eighth of their side (DARTS: 4 of 32)
    shift: StrictInt | None = Field(None, ge=0)
    # images of each class that a search by labels has, for weights and alpha together; None: all. Ours: SSNAS's Table 3
    # has few of each because its data set has many classes
    labels_per_class: StrictInt | None = Field(None, ge=2)


def passed_over(method: str, settings: Sequence[str]) -> list[str]:
    """Return those of all `settings` of the section `search` that a method has no use for and passes over."""
    if method in ONE_SHOT:
        return [name for name in settings if name != "method"]
    unused = {**dict.fromkeys(RELAXED, NOT_RELAXED), RANDOM: NOT_RANDOM}.get(method, ())
    return [name for name in settings if name in unused]


def check_method(method: str, objective: str, planted: Sequence[str], alpha_stream: int) -> None:
    """Refuse settings of a search that do not fit its method."""
    if method not in SECTIONS:
        return
    expected = RELAXED.get(method, objective)
    other = next((name for name, learns_by in RELAXED.items() if learns_by == objective), "sswp")
    refuse(
        (objective != expected,
         f"method {method!r} learns by the objective {expected!r}, not {objective!r}; expected "
         f"objective={expected!r}, or method={other!r}"),
        (len(planted) > 0,
         f"planted {list(planted)} stand beside the candidates of method 'sswp'; method {method!r} expects none"),
        (alpha_stream > 0,
         f"alpha_stream {alpha_stream} draws other paths for steps on alpha, and method {method!r} draws none; "
         "expected 0, or method='sswp'"),
    )  # fmt: skip


def check_relaxed(
    relaxed: Relaxed, method: str, num_cells: int, image_size: int, precision: str
) -> list[tuple[bool, str]]:
    """Return the checks that the relaxation fits the model and the images."""
    used, cells = method in RELAXED, relaxed.num_cells or num_cells
    return [
        (used and cells < MIN_CELLS,
         f"{cells} cells to search in are all reductions, so that method {method!r} would learn no normal cell; "
         f"expected relaxed.num_cells={MIN_CELLS} or more"),
        (used and relaxed.order == 2 and precision != "float32",
         f"relaxed.order 2 takes differences of losses, which {precision} rounds away; expected "
         "model.precision=float32, or relaxed.order=1"),
        (method == "darts" and (relaxed.shift or 0) > image_size // 2,
         f"relaxed.shift {relaxed.shift} moves images of {image_size} pixels by more than half; expected at most "
         f"{image_size // 2}"),
        (method == "ssnas" and relaxed.labels_per_class is not None,
         f"relaxed.labels_per_class {relaxed.labels_per_class} is of no use to method 'ssnas', which sees no labels; "
         "expected null, or search.method=darts"),
    ]  # fmt: skip


def check_one_shot(one_shot: OneShot, method: str) -> tuple[bool, str]:
    """Return the check that one-shot training learns by what its method of search does."""
    expected = ONE_SHOT.get(method, one_shot.objective)
    return (one_shot.objective != expected,
            f"method {method!r} learns by the objective {expected!r}, not {one_shot.objective!r}; expected "
            f"one_shot.objective={expected}, or another search.method")  # fmt: skip


class Random(Section):
    """Random search: genotypes by lot, each trained like the others, the best kept (`learn.random_search`); after Li &
    Talwalkar 2019. What is not said here is said in the section `search`, whose epochs are those of each.
    """

    draws: StrictInt = Field(8, ge=1)  # ours


class OneShot(Section):
    """A network with every candidate in it, trained along two uniform paths a step (`learn.oneshot`)."""

    space: str = Field("nasbench201", min_length=1)  # one of `space.SPACES`, or "cells", the paper's own
    init_channels: StrictInt = Field(16, ge=1)  # of the one-shot network; NAS-Bench-201
    num_cells: StrictInt = Field(5, ge=1)  # of the one-shot network, a stage; NAS-Bench-201
    objective: Literal["crosspath", "supervised"] = "crosspath"  # Pi-NAS; supervised: SPOS
    # "supervised" takes neither: the positive is of the other path (false: of its own); earlier images are negatives
    cross_path: StrictBool = True  # paper, Table 7
    negatives: StrictBool = True  # paper, Table 7
    epochs: StrictInt = Field(100, ge=0)  # paper; 0: the network as it is drawn, a control
    batch_size: StrictInt = Field(192, ge=2)  # paper; images, of which four views (SPOS: two) are seen
    lr: StrictFloat = Field(0.03, gt=0)  # paper; by a cosine to 0
    schedule: Literal["epoch", "step"] = "epoch"  # the unit in which the cosine advances; code
    momentum: StrictFloat = Field(0.9, ge=0, lt=1)  # paper
    weight_decay: StrictFloat = Field(1e-4, ge=0, le=1)  # paper
    temperature: StrictFloat = Field(0.2, ge=1e-3, le=100)  # code
    # lambda of equation (2): the share of its weights that the teacher keeps in a step. 0: it is the student; 1: it
    # stays what it was. To be lowered with fewer steps: 0.999 averages over a thousand
    teacher: StrictFloat = Field(0.999, ge=0, le=1)  # paper
    queue: StrictInt = Field(49152, ge=1)  # negatives; code: 256 batches
    # the teacher's outputs for the other images of the step are negatives too. Ours: with earlier ones alone a student
    # that is its own teacher leaves them behind by changing, whatever the image, and stays collapsed
    in_batch: StrictBool = False
    # part of every class's training images that nothing but a ranking sees; ours (paper: 50 images a class, 4 %)
    validation: Share = 0.1

    @model_validator(mode="after")
    def _meant(self) -> OneShot:
        own = self.objective == "crosspath"
        ignored = [name for name in ("cross_path", "negatives") if not own and not getattr(self, name)]
        refuse(
            (bool(ignored),
             f"objective 'supervised' would ignore {', '.join(f'{name}=false' for name in ignored)}; expected true, or "
             "objective='crosspath'"),
            (own and self.negatives and self.queue < self.batch_size,
             f"queue {self.queue} is less than the batch_size {self.batch_size} that enters it in a step; expected as "
             f"much or more, e.g. {4 * self.batch_size}"),
        )  # fmt: skip
        return self


class Ranking(Section):
    """Which architectures are good, by the weights that they have in a one-shot network (`learn.ranking`)."""

    # the one linear classifier on frozen features; SPOS has its own already
    linear_epochs: StrictInt = Field(100, ge=1)  # paper
    linear_batch: StrictInt = Field(256, ge=2)  # paper
    linear_lr: StrictFloat = Field(30.0, gt=0)  # paper; for 2048 features
    linear_momentum: StrictFloat = Field(0.9, ge=0, lt=1)  # paper
    linear_milestones: tuple[Share, ...] = (0.6, 0.8)  # of the epochs, after each a tenth of the rate; paper
    # training images, of which BatchNorm's statistics are computed for each architecture; all where there are fewer
    calibration_images: StrictInt = Field(50_000, ge=2)  # paper
    calibration_batch: StrictInt = Field(128, ge=2)  # code, on each of its eight devices
    # evolution
    population: StrictInt = Field(50, ge=1)  # SPOS
    parents: StrictInt = Field(10, ge=1)  # SPOS
    mutations: StrictInt = Field(25, ge=0)  # SPOS
    mutation_p: StrictFloat = Field(0.1, gt=0, le=1)  # of an edge; SPOS
    crossovers: StrictInt = Field(25, ge=0)  # SPOS
    generations: StrictInt = Field(20, ge=1)  # SPOS; the first is drawn by lot

    @model_validator(mode="after")
    def _meant(self) -> Ranking:
        milestones, children = list(self.linear_milestones), self.mutations + self.crossovers
        refuse(
            (milestones != sorted(set(milestones)),
             f"linear_milestones {milestones} do not rise; expected e.g. [0.6, 0.8]"),
            (self.calibration_batch > self.calibration_images,
             f"calibration_batch {self.calibration_batch} is more than calibration_images {self.calibration_images}; "
             "expected at most as many"),
            (self.parents > self.population,
             f"parents {self.parents} are more than the population {self.population}; expected at most as many"),
            (children > self.population,
             f"mutations {self.mutations} and crossovers {self.crossovers} are more than the population "
             f"{self.population}; expected at most as many together"),
            (self.crossovers > 0 and self.parents < 2,
             "crossovers of 1 parent are that parent; expected parents of 2 or more, or crossovers=0"),
        )  # fmt: skip
        return self
