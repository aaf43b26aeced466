"""Shares of two models: the plan's steps, and against whom the next model is rolled out."""

import pytest

from flywheel_assets.errors import SettingsError
from flywheel_assets.models.rollout.traffic import RolloutPlan, RolloutState
from flywheel_client import assign

TEN_PERCENT = RolloutState(champion="v2", predecessor="v1", share=0.1)


def test_by_default_everybody_gets_the_new_model_at_once() -> None:
    plan = RolloutPlan()
    assert plan.compute_share(plan.steps[0]) == 1
    assert plan.find_next_step(1.0) is None


def test_the_steps_end_where_the_predecessors_part_begins() -> None:
    plan = RolloutPlan(steps=(0.1, 0.5, 1.0), keep_on_predecessor=0.05)
    shares = [plan.compute_share(plan.steps[0])]
    while (following := plan.find_next_step(shares[-1])) is not None:
        shares.append(following)
    assert shares == [0.1, 0.5, 0.95]


@pytest.mark.parametrize("steps", [(), (0.5, 0.1), (0.1, 0.1), (0.0, 1.0), (0.5, 1.1)])
def test_steps_that_are_none_are_refused(steps: tuple[float, ...]) -> None:
    with pytest.raises(SettingsError, match=r"RolloutPlan\.steps"):
        RolloutPlan(steps=steps)


def test_the_next_model_is_rolled_out_against_the_one_that_most_users_have() -> None:
    """A model at 10 % that a newer one overtakes never takes the users of the model before it."""
    assert TEN_PERCENT.find_opponent() == "v1"
    assert RolloutState(champion="v2", predecessor="v1", share=0.95).find_opponent() == "v2"
    assert RolloutState(champion="v2").find_opponent() == "v2"


def test_the_shares_are_arms_for_the_router() -> None:
    got = [assign(f"user-{n}", TEN_PERCENT.list_shares(), TEN_PERCENT.name_salt("assistant")) for n in range(2_000)]
    assert set(got) == {"v1", "v2"}
    assert abs(got.count("v2") - 200) <= 54
