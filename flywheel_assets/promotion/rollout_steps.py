"""Decides the next step of a model that is rolled out by share, from the watch's verdict; it changes nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from flywheel_assets.measures.live_arms import ArmVerdict

ROLLOUT_SHARES = (0.1, 0.5, 1.0)
"""Shares of people whom a new model serves, one after the other; 1: all but the share that is held back."""


class Move(StrEnum):
    """The kind of a step."""

    GO_ON = "go_on"
    HOLD = "hold"
    TAKE_BACK = "take_back"


@dataclass(frozen=True)
class Step:
    """The next step of one rollout: the share from now on, and the reason in one sentence."""

    move: Move
    share: float
    sentence: str


def decide_rollout(verdict: ArmVerdict, share: float, shares: Sequence[float] = ROLLOUT_SHARES) -> Step:
    """Decide the share that follows from a verdict on the people who are served now.

    A worse model is taken back from any share, also from all. One that is not worse within the margin goes on to the
    next larger share. After either the comparison begins with the days of the new share, and looks count on.

    Args:
        verdict: of `measures.live_arms` about the days since the share was last changed.
        share: of people whom the new model serves, of those who are not held back; 0: taken back before.
        shares: of the rollout, ascending.

    Raises:
        ValueError: the share is outside of [0, 1], or the shares do not ascend to 1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"received share {share!r}; a share is from 0 to 1: pass the one that the router uses now")
    if not shares or list(shares) != sorted(set(shares)) or shares[0] <= 0 or shares[-1] != 1:
        raise ValueError(f"received shares {list(shares)!r}; they ascend and end with 1, as [0.1, 0.5, 1.0] do")
    if share == 0:
        return Step(Move.HOLD, 0.0, "The model was taken back; only a new rollout serves it again.")
    if verdict == ArmVerdict.WORSE:
        return Step(Move.TAKE_BACK, 0.0, f"Taken back from {share:.0%}: worse than its predecessor in production.")
    larger = [each for each in shares if each > share]
    if verdict == ArmVerdict.NOT_WORSE and larger:
        return Step(Move.GO_ON, larger[0], f"Goes on from {share:.0%} to {larger[0]:.0%}: not worse within the margin.")
    why = "not worse within the margin" if verdict == ArmVerdict.NOT_WORSE else "not decided yet"
    return Step(Move.HOLD, share, f"Stays at {share:.0%}: {why}.")
