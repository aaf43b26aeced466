"""What does not happen is told once: through ticks of Dagster's own daemon, and of its storage."""

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteInstigatorOrigin, RemoteRepositoryOrigin
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    ScheduleInstigatorData,
    SensorInstigatorData,
    TickData,
    TickStatus,
)
from dagster._core.test_utils import create_test_daemon_workspace_context, freeze_time
from dagster._core.workspace.load_target import PythonFileTarget
from dagster._daemon.sensor import execute_sensor_iteration
from dagster._utils.error import SerializableErrorInfo

from flywheel_assets.application import Retries
from flywheel_assets.applications.assistant import APPLICATION
from flywheel_assets.defs.automation.supervision import (
    REFUSED_TICKS,
    SUPERVISION,
    Memory,
    Trouble,
    choose_news,
    find_late_days,
    find_quiet_automation,
    find_refusals,
)
from flywheel_assets.defs.failures import FAILURE_TAG, PERMANENT, RETRY_REQUESTED
from flywheel_assets.defs.partitions import PARTITION_TAG, SENSOR, TURN_JOB
from flywheel_assets.defs.resources import Stores
from flywheel_assets.defs.running import open_instance
from flywheel_assets.lake.landing.disk import EventKind
from flywheel_assets_tests.builders import day, make_feedback
from flywheel_assets_tests.command_line import ROOT
from flywheel_assets_tests.defs.automation.test_alerts import Webhook, bench_in, listening

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
HERE = "assistant"
LOCATION = """
import sys
sys.path.insert(0, {root!r})
import dagster as dg
from flywheel_assets.application import Retries
from flywheel_assets.applications.assistant import APPLICATION
from flywheel_assets.defs.automation.inspection import build_check_key
from flywheel_assets.defs.automation.supervision import build_supervision_sensor
from flywheel_assets.defs.resources import Clock, Stores

@dg.job
def nightly():
    pass

@dg.sensor(job=nightly, name="broken", minimum_interval_seconds=30, default_status=dg.DefaultSensorStatus.RUNNING)
def broken(context):
    raise ValueError("the user wrote: attack at dawn")

fsck = build_check_key(APPLICATION, "landed_feedback")
supervision = build_supervision_sensor(APPLICATION, Retries(), fsck, {webhook!r})
defs = dg.Definitions(
    jobs=[nightly], sensors=[broken, supervision], resources={{"stores": Stores(home={home!r}), "clock": Clock()}}
)
"""


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with open_instance(tmp_path / "dagster", ROOT / "dagster.yaml") as instance:
        yield instance


@pytest.fixture
def hook() -> Iterator[Webhook]:
    with listening() as hook:
        yield hook


@pytest.mark.long
def test_a_sensor_that_fails_at_every_tick_is_told_once(
    instance: dg.DagsterInstance, hook: Webhook, tmp_path: Path
) -> None:
    """Only its ticks failed, and no run: nothing was told, and the wheel stood."""
    file = tmp_path / "location.py"
    file.write_text(LOCATION.format(root=str(ROOT), webhook=hook.url, home=str(tmp_path / "home")))
    began = datetime.now(UTC)
    target = PythonFileTarget(python_file=str(file), attribute=None, working_directory=None, location_name=HERE)
    with create_test_daemon_workspace_context(target, instance) as workspace:
        for minute in range(6):
            with freeze_time(began + timedelta(minutes=minute)):
                list(execute_sensor_iteration(workspace, logging.getLogger("daemon"), None, None))
    [body] = map(json.loads, hook.bodies)
    assert body["text"] == "assistant: sensor broken failed 3 times in a row: see its ticks on Dagster's page"
    assert "dawn" not in hook.bodies[0]


def declare(
    instance: dg.DagsterInstance, name: str, data: SensorInstigatorData | ScheduleInstigatorData, location: str = HERE
) -> InstigatorState:
    """A sensor or schedule as the daemon stores it."""
    kind = InstigatorType.SENSOR if isinstance(data, SensorInstigatorData) else InstigatorType.SCHEDULE
    place = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin(location), "__repository__")
    origin = RemoteInstigatorOrigin(repository_origin=place, instigator_name=name)
    state = InstigatorState(origin, kind, InstigatorStatus.DECLARED_IN_CODE, data)
    instance.add_instigator_state(state)
    return state


def tick(
    instance: dg.DagsterInstance, state: InstigatorState, status: TickStatus, at: datetime, skip: str | None = None
) -> None:
    instance.create_tick(
        TickData(
            instigator_origin_id=state.instigator_origin_id,
            instigator_name=state.name,
            instigator_type=state.instigator_type,
            status=status,
            timestamp=at.timestamp(),
            selector_id=state.selector_id,
            skip_reason=skip,
            error=SerializableErrorInfo("", [], None) if status is TickStatus.FAILURE else None,
        )
    )


def ticked(minutes_ago: float) -> SensorInstigatorData:
    return SensorInstigatorData(last_tick_timestamp=(NOW - timedelta(minutes=minutes_ago)).timestamp(), min_interval=60)


def say(troubles: list[Trouble]) -> list[str]:
    return [trouble.sentence for trouble in troubles]


def test_a_sensor_that_ticks_no_more_is_told(instance: dg.DagsterInstance) -> None:
    declare(instance, "silent", ticked(20))
    declare(instance, "busy", ticked(2))
    declare(instance, "new", SensorInstigatorData())
    declare(instance, "of the other application", ticked(20), "fraud")
    [trouble] = find_quiet_automation(instance, HERE, NOW, None)
    assert trouble.sentence == "sensor silent does not tick any more"


def test_a_location_whose_watch_ticks_no_more_is_told_by_the_others(instance: dg.DagsterInstance) -> None:
    declare(instance, SUPERVISION, ticked(20), "fraud")
    declare(instance, SUPERVISION, ticked(20), HERE)
    assert say(find_quiet_automation(instance, HERE, NOW, None)) == [
        "nothing ticks in the code location fraud: see on Dagster's page whether it loads"
    ]


def test_a_schedule_that_failed_or_had_no_tick_is_told(instance: dg.DagsterInstance) -> None:
    week_ago = (NOW - timedelta(days=7)).timestamp()
    due = NOW.replace(hour=0, minute=30)
    daily = declare(instance, "daily", ScheduleInstigatorData("30 0 * * *", week_ago))
    tick(instance, daily, TickStatus.SKIPPED, due - timedelta(days=1))
    assert say(find_quiet_automation(instance, HERE, NOW, None)) == [
        "schedule daily had no tick at 2026-11-29 00:30 UTC"
    ]
    tick(instance, daily, TickStatus.SKIPPED, due)
    assert find_quiet_automation(instance, HERE, NOW, None) == []
    declare(instance, "declared after its time", ScheduleInstigatorData("30 0 * * *", NOW.timestamp() - 60))
    assert find_quiet_automation(instance, HERE, NOW, None) == []
    tick(instance, daily, TickStatus.FAILURE, due + timedelta(days=1))
    assert say(find_quiet_automation(instance, HERE, NOW, None)) == [
        "schedule daily failed at its last tick: see its ticks on Dagster's page"
    ]


def test_a_day_that_is_not_in_gold_at_six_is_told(tmp_path: Path) -> None:
    bench = bench_in(tmp_path)
    for offset in range(4):
        bench.land(EventKind.FEEDBACK, day(offset), [make_feedback()])
    application, stores = replace(APPLICATION, start_date=day(0)), Stores(home=str(tmp_path))
    morning = datetime.combine(day(4), datetime.min.time(), UTC)
    assert find_late_days(application, stores, morning) == [], "nothing was ever made here"
    days = [day(offset) for offset in range(3)]
    bench.ingest_both(days)
    bench.join(days)
    bench.curate(days)
    assert find_late_days(application, stores, morning + timedelta(hours=5)) == []
    [late] = find_late_days(application, stores, morning + timedelta(hours=7))
    assert late.sentence == (
        f"{day(3)} is not in gold: see the runs of assistant_daily, or `flywheel turn --application assistant`"
    )


def test_a_trigger_that_refuses_for_ever_is_told_until_a_person_asks_for_a_retry(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    @dg.job(name=TURN_JOB.format("assistant"))
    def turn() -> None:
        pass

    version, stores = "dpo_gold_v1", Stores(home=str(tmp_path / "home"))
    instance.add_dynamic_partitions("assistant_gold_versions", [version])
    tags = {PARTITION_TAG: version, FAILURE_TAG: PERMANENT}
    run = instance.create_run_for_job(turn, status=dg.DagsterRunStatus.FAILURE, tags=tags)
    trigger = declare(instance, SENSOR, ticked(0))

    def find() -> list[str]:
        return say(find_refusals(APPLICATION, stores, instance, Retries(), HERE, NOW))

    for number in range(REFUSED_TICKS):
        assert find() == []
        at = NOW + timedelta(seconds=30 * number)
        tick(instance, trigger, TickStatus.SKIPPED, at, f"{version} failed permanently; mend the cause, then …")
    [sentence] = find()
    assert sentence.startswith("the training trigger refused 20 times: dpo_gold_v1 failed permanently; mend the cause")
    instance.add_run_tags(run.run_id, {FAILURE_TAG: RETRY_REQUESTED})
    assert find() == []


def test_each_cause_is_news_once() -> None:
    failing, silent = Trouble("failing x", "x failed"), Trouble("silent y", "y is silent", persists_s=600)
    memory = Memory()
    assert choose_news(memory, [failing, silent], 0) == [failing]
    assert choose_news(memory, [failing, silent], 300) == []
    assert choose_news(memory, [failing], 500) == [], "y ticks again: the daemon had only just begun"
    assert choose_news(memory, [failing, silent], 600) == []
    assert choose_news(memory, [silent], 1200) == [silent]
    assert choose_news(memory, [failing], 1300) == [], "it comes and goes"
    assert choose_news(memory, [], 1400) == []
    assert choose_news(memory, [failing], 6000) == [failing], "away for more than an hour"
