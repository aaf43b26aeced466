"""The job that looks for damage: a sample every day, everything on Sundays, findings in the check's metadata."""

from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from flywheel_assets.applications.assistant import APPLICATION, defs
from flywheel_assets.defs.automation.inspection import DAILY_SHARE, FSCK_JOB, SHARE_TAG
from flywheel_assets.defs.flywheels import preference_flywheel
from flywheel_assets.defs.resources import Stores
from flywheel_assets.lake.tables.specs import CURATED_DPO_PAIRS
from flywheel_assets_tests.builders import day
from flywheel_assets_tests.lake.gold import write_gold_days


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
