"""States how far a judge of pairs agrees with people, before any of its opinions counts.

The pairs are held-out people's own: the text they ended with against the output that they had corrected. A judge is
asked about each pair twice, with the places exchanged, and agrees where it prefers the person's text both times. One
that always names the first place, or always a tie, has an agreement of exactly .5 whatever it is shown.
"""

import math
from dataclasses import dataclass

from flywheel_assets.measures.texts import SubjectMeans

AGREEMENT_LEVEL = 0.05


@dataclass(frozen=True, kw_only=True)
class JudgeAgreement:
    """The agreement of one judge with held-out people, measured on their pairs."""

    model: str
    """The judge's name at its endpoint."""
    means: SubjectMeans | None
    """A mean per person of 1 for a pair whose chosen text is preferred in both orders, 0 for the output in both, .5 for
    everything else; None: no pair was answered."""
    same_in_both_orders: float | None
    """Share of pairs with the same preference, or a tie, in both orders."""
    needed: float
    """Agreement that the lower bound must reach, as the application states it."""
    unanswered: int = 0
    """Pairs that got no answer; they are left out."""

    @property
    def bound(self) -> float:
        """The lower bound at the level .05; NaN without pairs."""
        return math.nan if self.means is None else self.means.bound_below(least=0, alpha=AGREEMENT_LEVEL)

    @property
    def is_enough(self) -> bool:
        """The judge's opinions count: what it agrees on is proven to reach what is needed."""
        return self.bound >= self.needed

    def describe(self) -> str:
        """Write the agreement with its numbers."""
        if self.means is None:
            return f"the judge {self.model} answered none of {self.unanswered} held-out pairs"
        return (
            f"the judge {self.model} prefers what held-out people wrote in {self.means.mean:.3f} of {self.means.rows} "
            f"pairs ({len(self.means.values)} people), at least {self.bound:.3f}, {self.needed:.3f} is needed; it says "
            f"the same in both orders in {self.same_in_both_orders:.3f}"
        )
