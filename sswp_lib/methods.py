"""Settings of the methods beside SSWP's own: one-shot training, and ranking by what it has trained.

Each default carries its source: "paper" is Pi-NAS (Peng et al., ICCV 2021; section 4.1 unless said), "code" what its
authors released, where the paper is silent or says something else; "SPOS" Guo et al. 2020; or "ours".
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StrictBool, StrictFloat, StrictInt, model_validator

from sswp_lib.settings import Section, refuse

Share = Annotated[StrictFloat, Field(gt=0, lt=1)]


class OneShot(Section):
    """A network with every candidate in it, trained along two uniform paths a step (`learn.oneshot`)."""

    space: str = Field("bench201", min_length=1)  # one of `space.SPACES`
    init_channels: StrictInt = Field(16, ge=1)  # of the one-shot network; NAS-Bench-201
    num_cells: StrictInt = Field(5, ge=1)  # of the one-shot network, a stage; NAS-Bench-201
    objective: Literal["crosspath", "supervised"] = "crosspath"  # Pi-NAS; supervised: SPOS
    # "supervised" takes neither: the positive is of the other path (false: of its own); earlier images are negatives
    cross_path: StrictBool = True  # paper, Table 7
    negatives: StrictBool = True  # paper, Table 7
    epochs: StrictInt = Field(100, ge=1)  # paper
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
