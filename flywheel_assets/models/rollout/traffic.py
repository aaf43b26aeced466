"""Holds the plan and the state of a rollout: the part of the users that each of two models serves.

`flywheel_client.assign` maps a user to one of the arms; the product itself routes no request.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated

import msgspec

from flywheel_assets.ranges import Checked, PositiveShare, ShareBelowOne


class StepKind(StrEnum):
    """Names the changes of the serving models, as their events do."""

    PROMOTION = "promotion"
    SHARE_CHANGE = "share_change"
    ROLLBACK = "rollback"
    ROLLBACK_TO_BASE = "rollback_to_base"


@dataclass(frozen=True, kw_only=True)
class RolloutPlan(Checked):
    """Says which part of the users gets a new champion, step by step.

    By default all users get it at once: shares are true only where the product asks a router (see docs/clients.md).
    """

    steps: tuple[PositiveShare, ...] = (1.0,)
    """Shares of the users, ascending: (0.1, 0.5, 1.0). A promotion begins with the first one."""
    keep_on_predecessor: ShareBelowOne = 0.0
    """Part of the users that stays on the predecessor after the last step, so that both can be compared: 0.05."""

    automatic: bool = True
    """Take each step by the watch's verdict, and take back a model that is proven worse. Does nothing where the first
    step is all users. False: `flywheel rollout` and `flywheel rollback` are a person's."""

    def compute_share(self, step: float) -> float:
        """Compute the champion's share at a step: what is kept on the predecessor stays there."""
        return min(step, round(1 - self.keep_on_predecessor, 6))

    def find_next_step(self, share: float) -> float | None:
        """Find the share that follows on `share`; None: the rollout is complete."""
        return next((wanted for step in self.steps if (wanted := self.compute_share(step)) > share), None)

    def _check_together(self) -> None:
        if not self.steps or list(self.steps) != sorted(set(self.steps)):
            raise self.build_range_error("steps", self.steps, "at least one share, each larger than the one before")


class RolloutState(msgspec.Struct, frozen=True, kw_only=True):
    """Records the models that serve now, and the step that made it so."""

    champion: str | None
    """Gold version of the alias `champion`; None: the base model serves."""
    predecessor: str | None = None
    """Gold version of the other arm; None: the base model."""
    share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    """Part of the users that the champion serves; the predecessor serves the others."""
    kind: StepKind = StepKind.PROMOTION
    """The kind of the last step."""
    replaces: str | None = None
    """Gold version of the champion before the last step; None: the base model."""
    started_at: datetime | None = None
    """Begin of the last step; None: it is older than this record."""
    is_announced: bool = True
    """Whether the serving side has taken the last step's event."""

    @property
    def has_predecessor(self) -> bool:
        """Return whether the last steps were a promotion's: a rollback ended the rollout, an older record has none."""
        is_promotion = self.kind in (StepKind.PROMOTION, StepKind.SHARE_CHANGE)
        return self.champion is not None and self.started_at is not None and is_promotion

    def find_opponent(self) -> str | None:
        """Return the gold version that most users have: a next model is rolled out against it.

        At a share of one half it is the predecessor, which was proven before.
        """
        return self.champion if self.share > 0.5 else self.predecessor

    def name_salt(self, application: str) -> str:
        """Name the router's salt: each champion's rollout begins with other users."""
        return f"{application}/{self.champion or 'base'}"

    def list_shares(self) -> list[tuple[str | None, float]]:
        """List the gold versions with their shares, the champion first, as the router takes them."""
        if self.share >= 1:
            return [(self.champion, 1.0)]
        # 1 - 0.95 is 0.050000000000000044; no share is finer than a millionth.
        return [(self.champion, self.share), (self.predecessor, round(1 - self.share, 6))]
