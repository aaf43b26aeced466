"""The weekly maintenance job: scheduled, and its figures and plot are in the output's metadata."""

from pathlib import Path

import dagster as dg

from flywheel_assets.applications.assistant import APPLICATION, defs
from flywheel_assets.defs.automation.maintenance import MAINTENANCE_JOB
from flywheel_assets.defs.flywheels import preference_flywheel
from flywheel_assets.defs.resources import Stores
from flywheel_assets_tests.builders import day
from flywheel_assets_tests.lake.gold import write_gold_days


def test_the_job_shows_figures_by_stage_and_a_plot(tmp_path: Path) -> None:
    stores = Stores(home=str(tmp_path))
    write_gold_days(stores.lake("assistant"), {day(0): 3})
    job = preference_flywheel(APPLICATION, stores).resolve_job_def(MAINTENANCE_JOB.format("assistant"))
    done = job.execute_in_process()
    assert done.success
    (output,) = [event for event in done.all_events if event.is_successful_output]
    metadata = output.step_output_data.metadata
    table = {record.data["stage"]: record.data for record in metadata["storage"].records}
    assert int(table["curated_dpo_pairs"]["bytes after"]) > 0
    assert metadata["storage_over_time"].value.startswith("![storage by stage](data:image/png;base64,")


def test_it_runs_weekly_by_default() -> None:
    schedule = defs.resolve_schedule_def("assistant_weekly_maintenance")
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    assert schedule.cron_schedule == "0 3 * * 0"
