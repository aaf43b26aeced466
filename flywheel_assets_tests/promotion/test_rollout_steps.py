"""Every verdict at every share has one next step."""

import pytest

from flywheel_assets.measures.live_arms import ArmVerdict
from flywheel_assets.promotion.rollout_steps import Move, decide_rollout

WORSE, NOT_WORSE, UNDECIDED = ArmVerdict.WORSE, ArmVerdict.NOT_WORSE, ArmVerdict.UNDECIDED


@pytest.mark.parametrize(
    ("verdict", "share", "move", "following"),
    [
        (NOT_WORSE, 0.1, Move.GO_ON, 0.5),
        (NOT_WORSE, 0.5, Move.GO_ON, 1.0),
        (NOT_WORSE, 1.0, Move.HOLD, 1.0),
        (NOT_WORSE, 0.25, Move.GO_ON, 0.5),  # a share that a person chose
        (UNDECIDED, 0.1, Move.HOLD, 0.1),
        (UNDECIDED, 1.0, Move.HOLD, 1.0),
        (WORSE, 0.1, Move.TAKE_BACK, 0.0),
        (WORSE, 0.5, Move.TAKE_BACK, 0.0),
        (WORSE, 1.0, Move.TAKE_BACK, 0.0),
        (WORSE, 0.0, Move.HOLD, 0.0),
        (NOT_WORSE, 0.0, Move.HOLD, 0.0),
    ],
)
def test_a_verdict_at_a_share_has_one_next_step(
    verdict: ArmVerdict, share: float, move: Move, following: float
) -> None:
    step = decide_rollout(verdict, share)
    assert (step.move, step.share) == (move, following)
    assert step.sentence.endswith(".")


def test_a_team_has_shares_of_its_own() -> None:
    assert decide_rollout(NOT_WORSE, 0.02, (0.02, 0.2, 1.0)).share == 0.2


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="a share is from 0 to 1"):
        decide_rollout(UNDECIDED, share)


@pytest.mark.parametrize("shares", [(), (0.5, 0.1, 1.0), (0.1, 0.5), (0.0, 1.0), (0.5, 0.5, 1.0)])
def test_shares_that_lead_nowhere_are_refused(shares: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="ascend and end with 1"):
        decide_rollout(UNDECIDED, 0.1, shares)
