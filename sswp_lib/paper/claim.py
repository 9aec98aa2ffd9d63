"""A claim of a paper, and the verdict on what was measured of it; `claims` has them all."""

from __future__ import annotations

from dataclasses import dataclass

from sswp_lib.paper.effects import ALPHA, Effect

NOT_TESTABLE = "not testable"


@dataclass(frozen=True)
class Claim:
    """A claim of the paper: where it stands, its effect there, and what is measured here.

    Args:
        margin: of non-inferiority, in points; the claim is seen where the effect lies above -margin.
        below: where given, the claim is seen where the effect lies below it.
        architectures: whether it says something of the architectures that searches find.
    """

    text: str
    section: str
    paper: str
    measure: str
    margin: float = 0.0
    below: float | None = None
    architectures: bool = False

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
