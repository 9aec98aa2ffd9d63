"""The settings of other methods of search than the paper's, and what of the paper's own they have a use for.

Each method's settings are a section of their own, so that no run of another method is renamed by them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, StrictFloat, StrictInt

from sswp_lib.settings import Section, refuse

RELAXED = {"darts": "supervised", "ssnas": "simclr"}  # methods that relax the choice on an edge, and what they learn by
# settings of the section `search` that the relaxation has no use for and passes over
NOT_RELAXED = (
    "ratios", "prune", "edges", "max_skips", "max_pools", "alpha_lr", "alpha_beta2", "alpha_every", "evaluated",
    "skip_dropout", "pool_dropout",
)  # fmt: skip
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


def check_method(method: str, objective: str, planted: Sequence[str], alpha_stream: int) -> None:
    """Refuse settings of a search that do not fit its method."""
    if method not in RELAXED:
        return
    other = next((name for name, learns_by in RELAXED.items() if learns_by == objective), "sswp")
    refuse(
        (objective != RELAXED[method],
         f"method {method!r} learns by the objective {RELAXED[method]!r}, not {objective!r}; expected "
         f"objective={RELAXED[method]!r}, or method={other!r}"),
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
    ]  # fmt: skip
