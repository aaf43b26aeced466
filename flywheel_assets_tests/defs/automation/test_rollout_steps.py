"""A rollout that nobody watches by hand: a worse model is taken back, an equal one gets more users."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from datetime import time as datetime_time
from pathlib import Path

import dagster as dg
import msgspec
import pytest

from flywheel_assets.applications.assistant import APPLICATION
from flywheel_assets.config import RolloutPlan
from flywheel_assets.defs.automation.rollout_steps import is_automatic, take_step
from flywheel_assets.defs.flywheels import preference_flywheel
from flywheel_assets.defs.resources import Clock, Stores
from flywheel_assets.lake.tables.specs import ROLLBACKS
from flywheel_assets.measures.live_arms import WatchLimits
from flywheel_assets_tests.builders import DAY, day
from flywheel_assets_tests.defs.assets.test_production_watch import serve_day
from flywheel_assets_tests.defs.promoted import V1, V2, promote_two_versions

ROLLED_OUT = replace(APPLICATION, rollout=RolloutPlan(steps=(0.5, 1.0), keep_on_predecessor=0.05))
LIMITS = WatchLimits(margin=0.6)
NOW = datetime.combine(day(5), datetime_time(2), UTC)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    """The second version has half of the users since the day before the first one that is compared."""
    stores = Stores(home=str(tmp_path))
    promote_two_versions(stores, share=0.5)
    registry = stores.registry("assistant")
    state = registry.find_rollout()
    begin = datetime.combine(DAY - timedelta(days=1), datetime_time(12), UTC)
    registry.replace_rollout(state, msgspec.structs.replace(state, started_at=begin, is_announced=True))
    serve_day(stores.lake("assistant"), day(-8), {V1: 0.2})
    return stores


def serve(stores: Stores, edited_by: dict[str, float]) -> None:
    for number in range(4):
        serve_day(stores.lake("assistant"), day(number), edited_by)


def test_a_model_that_people_correct_more_often_is_taken_back_without_a_person(
    stores: Stores, instance: dg.DagsterInstance
) -> None:
    serve(stores, {V1: 0.2, V2: 0.8})
    definitions = preference_flywheel(ROLLED_OUT, stores, Clock(fixed=NOW.isoformat()))
    assert definitions.resolve_job_def("assistant_rollout").execute_in_process(instance=instance).success
    state = stores.registry("assistant").find_rollout()
    assert (state.champion, state.share, state.has_predecessor) == (V1, 1.0, False)
    (row,) = stores.lake("assistant").read(ROLLBACKS).to_pylist()
    assert (row["to_version"], row["decided_by"]) == (V1, "flywheel")
    assert "edited: worse: +0.600" in row["reason"]
    assert take_step(ROLLED_OUT, stores, LIMITS, NOW) == ["one model serves all users: there is nothing to compare"]


def test_an_equal_model_gets_all_but_the_share_that_is_kept_back(stores: Stores) -> None:
    serve(stores, {V1: 0.2, V2: 0.2})
    done = take_step(ROLLED_OUT, stores, LIMITS, NOW)
    assert done[1] == f"{V2} goes from 50.0% of the users to 95.0%"
    assert stores.registry("assistant").find_rollout().share == 0.95
    (row,) = stores.lake("assistant").read(ROLLBACKS).to_pylist()
    assert (row["what"], row["share_after"]) == ("share", 0.95)
    # The next comparison begins with the day after: the same days decide nothing twice.
    assert "no closed day since the share was changed" in take_step(ROLLED_OUT, stores, LIMITS, NOW)[0]


def test_an_undecided_comparison_changes_nothing(stores: Stores) -> None:
    serve_day(stores.lake("assistant"), DAY, {V1: 0.2, V2: 0.3})
    done = take_step(ROLLED_OUT, stores, WatchLimits(margin=0.01), NOW)
    assert done[1] == f"{V2} stays at 50.0% of the users"
    assert stores.lake("assistant").read(ROLLBACKS).num_rows == 0


def test_predictions_under_other_names_are_said_to_be_of_no_rollout(stores: Stores) -> None:
    """A product that keeps its own model names would else be judged by models that no step can change."""
    serve(stores, {V1: 0.2, "my-model": 0.9})
    assert "send `model_version` as the event has it" in take_step(ROLLED_OUT, stores, LIMITS, NOW)[0]
    assert stores.registry("assistant").find_rollout().champion == V2


def test_every_automatism_can_be_switched_off() -> None:
    assert is_automatic(ROLLED_OUT)
    assert not is_automatic(APPLICATION)
    assert not is_automatic(replace(ROLLED_OUT, watch=None))
    by_hand = replace(ROLLED_OUT, rollout=RolloutPlan(steps=(0.1, 1.0), automatic=False))
    assert not is_automatic(by_hand)
    names = [job.name for job in preference_flywheel(by_hand).get_repository_def().get_all_jobs()]
    assert "assistant_rollout" not in names
