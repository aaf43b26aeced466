"""The job that looks for damage: a sample every day, everything on Sundays, findings in the check's metadata."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from flywheel_assets.applications.assistant import APPLICATION, defs
from flywheel_assets.defs.automation.inspection import DAILY_SHARE, FSCK_JOB, SHARE_TAG, build_check_key
from flywheel_assets.defs.automation.supervision import LATE_LOOK, find_damage
from flywheel_assets.defs.flywheels import preference_flywheel
from flywheel_assets.defs.resources import Stores
from flywheel_assets.lake.tables.specs import CURATED_DPO_PAIRS
from flywheel_assets_tests.builders import day
from flywheel_assets_tests.lake.gold import write_gold_days

LANDED = "landed_feedback"


def look(home: Path) -> dg.AssetCheckEvaluation:
    job = preference_flywheel(APPLICATION, Stores(home=str(home))).resolve_job_def(FSCK_JOB.format("assistant"))
    (found,) = job.execute_in_process(tags={SHARE_TAG: "1"}).get_asset_check_evaluations()
    return found


def test_the_check_names_a_damaged_file(tmp_path: Path) -> None:
    lake = Stores(home=str(tmp_path)).lake("assistant")
    write_gold_days(lake, {day(0): 3})
    whole = look(tmp_path)
    assert whole.passed, whole.description
    assert whole.metadata["bytes_read"].value

    ((file,),) = lake.plan_days(CURATED_DPO_PAIRS, [day(0)]).values()
    path = Path(file.uri.removeprefix("file://"))
    path.write_bytes(path.read_bytes()[:100])
    damaged = look(tmp_path)
    assert not damaged.passed
    assert str(path) in str(damaged.description)
    assert damaged.metadata["findings"].value == 1
    assert f"flywheel backfill {day(0)}" in str(damaged.metadata["all_findings"].value)


@pytest.mark.parametrize(("on", "share"), [(28, DAILY_SHARE), (29, 1.0)])
def test_everything_is_read_on_sundays(on: int, share: float) -> None:
    schedule = defs.resolve_schedule_def("assistant_daily_fsck")
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    at = datetime(2026, 11, on, 5, tzinfo=UTC)
    evaluated = schedule.evaluate_tick(dg.build_schedule_context(scheduled_execution_time=at))
    assert evaluated.run_requests
    assert evaluated.run_requests[0].tags[SHARE_TAG] == str(share)


def say(home: Path, instance: dg.DagsterInstance, now: datetime) -> list[str]:
    found = find_damage(APPLICATION, Stores(home=str(home)), instance, build_check_key(APPLICATION, LANDED), now)
    return [trouble.sentence for trouble in found if trouble.persists_s < LATE_LOOK.total_seconds()]


@pytest.mark.long
def test_damage_and_a_look_that_is_not_taken_are_troubles(tmp_path: Path) -> None:
    """The check failed on Dagster's page for weeks, where nobody was looking: its run succeeds."""
    home = tmp_path / "home"
    key = build_check_key(APPLICATION, LANDED)
    with dg.DagsterInstance.ephemeral() as instance:
        assert find_damage(APPLICATION, Stores(home=str(home)), instance, key, datetime.now(UTC)) == []
        lake = Stores(home=str(home)).lake("assistant")
        write_gold_days(lake, {day(0): 3})
        # A home that has just begun had no night yet.
        [trouble] = find_damage(APPLICATION, Stores(home=str(home)), instance, key, datetime.now(UTC))
        assert trouble.persists_s == LATE_LOOK.total_seconds()
        job = preference_flywheel(APPLICATION, Stores(home=str(home))).resolve_job_def(FSCK_JOB.format("assistant"))
        assert job.execute_in_process(tags={SHARE_TAG: "1"}, instance=instance).success
        now = datetime.now(UTC)
        assert say(home, instance, now) == []
        [late] = say(home, instance, now + LATE_LOOK + timedelta(minutes=1))
        assert "nothing has looked for damaged files since" in late
        assert "assistant_fsck" in late

        ((file,),) = lake.plan_days(CURATED_DPO_PAIRS, [day(0)]).values()
        Path(file.uri.removeprefix("file://")).write_bytes(b"damaged")
        assert job.execute_in_process(tags={SHARE_TAG: "1"}, instance=instance).success
        [damaged] = say(home, instance, datetime.now(UTC))
        assert damaged.startswith("1 files or parts of this home are damaged or missing: `flywheel fsck")


def test_the_sensor_of_the_code_location_watches_the_check_that_exists() -> None:
    checks = defs.resolve_asset_graph().asset_check_keys
    assert build_check_key(APPLICATION, LANDED) in checks
