"""What a claim is: where it stands, what the paper found, what is measured here, and when that is a verdict.

Apart from the claims themselves, so that those of each paper can lie in a file of their own; `claims` has all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from sswp_lib.paper.effects import ALPHA, Effect

MARGIN = 1.0  # points of test accuracy; ours, fixed before any result: what a few hundred test images can tell apart
NOT_TESTABLE = "not testable"
CONTROL = "control, ours"  # what the paper does not compare
SCRATCH = "test accuracy from scratch (points)"
NOT_WORSE = f"no worse by more than a margin of {MARGIN:g} point (ours, fixed before results)"


@dataclass(frozen=True)
class Claim:
    """A claim of the paper: where it stands, its effect there, and what is measured here.

    Args:
        margin: of non-inferiority, in points; the claim is seen where the effect lies above -margin.
        below: where given, the claim is seen where the effect lies below it.
        architectures: whether it says something of the architectures that searches find.
        scale: what the effect is measured in; only effects of one scale can stand on one axis.
    """

    text: str
    section: str
    paper: str
    measure: str
    margin: float = 0.0
    below: float | None = None
    architectures: bool = False
    scale: str = "points"

    @property
    def bound(self) -> str:
        """What the whole interval must be for the claim to be seen."""
        return f"below {self.below:g}" if self.below is not None else f"above {-self.margin or 0:g}"

    def p(self, effect: Effect) -> float | None:
        """Return the two-sided p of an effect against the claim's bound."""
        return effect.p_against(-self.margin if self.below is None else self.below)

    def verdict(self, effect: Effect) -> str:
        """Return the verdict by the effect's own interval, as if no other claim were tested."""
        if effect.untestable:
            return NOT_TESTABLE
        p = self.p(effect)
        if p is None or p >= ALPHA:
            return "undecided"
        holds = effect.mean > -self.margin if self.below is None else effect.mean < self.below
        return "seen" if holds else "contradicted"
