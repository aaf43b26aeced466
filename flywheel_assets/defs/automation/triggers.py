"""Starts runs: the daily schedule and the training trigger."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import dagster as dg

from flywheel_assets.application import FlywheelApplication, MlflowTraceSource, Retries
from flywheel_assets.defs.automation.training_rules import Assessment, Level, TrainingRule
from flywheel_assets.defs.failures import EMPTY, FAILURE_TAG, PERMANENT, RETRY_REQUESTED
from flywheel_assets.defs.partitions import (
    PARTITION_TAG,
    RANGE_END_TAG,
    RANGE_START_TAG,
    REASON_TAG,
    SENSOR,
    build_version_partitions,
)
from flywheel_assets.defs.resources import Clock, Stores
from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.daily.history import find_changed_days, find_first_changed_day
from flywheel_assets.lake.landing.disk import CLOSING_DELAY
from flywheel_assets.lake.landing.protocol import LandingPlace
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import TableSpec
from flywheel_assets.lake.versions.folders import Versions, parse_version_number
from flywheel_assets.lake.versions.pins import list_tagged_versions

_UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.MANAGED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def find_last_closed_day(now: datetime) -> date:
    """Return the newest day that a materialization at `now` closes."""
    return (now - CLOSING_DELAY).date() - timedelta(days=1)


def find_first_unfinished_day(lake: Lake, gold: TableSpec, start: date, last: date) -> date | None:
    """Return the first day from `start` to `last` that is not closed in gold; None when there is none.

    The search begins at the application's first day: every joined day reads the days before it, and an empty day of a
    range costs milliseconds.
    """
    closed = ledger.read_closed_days(lake, gold.name)
    return next((day for day in ledger.list_days(start, last) if day not in closed), None)


def build_source_schedule(application: FlywheelApplication, source: MlflowTraceSource) -> dg.ScheduleDefinition:
    """Build the schedule that reads a source every few minutes. Two runs at once do no harm: one of them waits."""
    name = f"{application.name}_{source.name}"
    key = dg.AssetKey([application.name, source.name])
    return dg.ScheduleDefinition(
        name=f"{name}_schedule",
        job=dg.define_asset_job(name, dg.AssetSelection.assets(key), description=f"Reads {source.experiment}."),
        cron_schedule="0 * * * *" if source.every_minutes == 60 else f"*/{source.every_minutes} * * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )


def find_first_day_to_do(
    lake: Lake, landing: LandingPlace, application: FlywheelApplication, start: date, last: date
) -> date | None:
    """Return the first day up to `last` that gold lacks or that has changed; None: there is none.

    Gold lacks a day that is not closed in it. Only an import of history changes a closed day.
    """
    changed = find_first_changed_day(find_changed_days(lake, landing, application.tables), last)
    unfinished = find_first_unfinished_day(lake, application.tables.gold, start, last)
    return min((day for day in (changed, unfinished) if day is not None), default=None)


def build_daily_schedule(application: FlywheelApplication, job_name: str) -> dg.ScheduleDefinition:
    """Build the schedule that materializes closed days at 00:30 UTC, a quarter of an hour after they could close.

    Mostly that is one day, after an outage every missed one, on a new installation all since the start date.
    """

    @dg.schedule(
        name="daily_feedback_schedule",
        cron_schedule="30 0 * * *",
        execution_timezone="UTC",
        job_name=job_name,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Materializes the last closed day, and any earlier day that was missed, in one run.",
    )
    def daily_feedback_schedule(context: dg.ScheduleEvaluationContext, stores: Stores) -> dg.RunRequest | dg.SkipReason:
        now = context.scheduled_execution_time.astimezone(UTC)
        last = find_last_closed_day(now)
        lake = stores.lake(application.name)
        # Asked at every tick: history may have been imported since this code location was loaded.
        start = stores.find_first_day(application.name, application.start_date)
        first = find_first_day_to_do(lake, stores.landing(), application, start, last)
        if first is None:
            return dg.SkipReason(f"every day up to {last} is closed in gold")
        if first < application.start_date:
            return dg.SkipReason(
                f"imported history begins on {start}, and {first} is not in gold yet: reload this code location, so "
                f"that it knows the partitions before {application.start_date}, or run `flywheel backfill {first} "
                f"{last} --application {application.name}`"
            )
        return dg.RunRequest(
            run_key=f"{application.name}:{first}:{last}",
            tags={RANGE_START_TAG: first.isoformat(), RANGE_END_TAG: last.isoformat()},
        )

    return daily_feedback_schedule


def build_report_schedule(application: FlywheelApplication, job_name: str) -> dg.ScheduleDefinition:
    """Build the schedule that makes the reports at 01:30 UTC, an hour after the day's materialization."""
    return dg.ScheduleDefinition(
        name=f"{application.name}_daily_reports",
        job_name=job_name,
        cron_schedule="30 1 * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )


@dataclass(frozen=True)
class PendingVersion:
    """A requested gold version that is not finished, and the end of its runs."""

    version: str
    application: str
    is_running: bool
    attempts: int
    failed_in_a_row: int
    failure: str | None
    """The last run's failure tag; None: it was killed, or never ran."""
    ended_at: float | None
    is_canceled: bool
    """A person stopped the last run: only a person starts it again."""
    last_run_id: str | None = None
    is_empty: bool = False
    """Its cut found nothing to train on and withdrew its pin: nothing of it exists, and it waits for rows."""


def name_next_version(
    lake: Lake, versions: Versions, partitions: Sequence[str], application: FlywheelApplication
) -> str:
    """Return the next free name: one more than the highest N in the lake, on disk or requested."""
    known = [
        *list_tagged_versions(lake, application.tables.gold),
        *(folder.version for folder in versions),
        *partitions,
    ]
    return f"{application.version_prefix}{max(map(parse_version_number, known), default=0) + 1}"


def find_pending_version(
    instance: dg.DagsterInstance, versions: Versions, partitions: Sequence[str], job_name: str
) -> PendingVersion | None:
    """Return the newest requested gold version that is not finished; None when every one is."""
    unfinished = [name for name in partitions if parse_version_number(name) and not versions.folder(name).is_finished]
    if not unfinished:
        return None
    version = max(unfinished, key=parse_version_number)
    records = instance.get_run_records(
        dg.RunsFilter(job_name=job_name, tags={PARTITION_TAG: version}), limit=50, ascending=False
    )
    failed_in_a_row = 0
    for record in records:
        if (
            record.dagster_run.status is not dg.DagsterRunStatus.FAILURE
            or record.dagster_run.tags.get(FAILURE_TAG) == RETRY_REQUESTED
        ):
            break
        failed_in_a_row += 1
    is_running = any(record.dagster_run.status in _UNFINISHED for record in records)
    newest = records[0] if records else None
    failure = newest.dagster_run.tags.get(FAILURE_TAG) if newest else None
    return PendingVersion(
        version=version,
        application=versions.application,
        is_running=is_running,
        attempts=len(records),
        failed_in_a_row=failed_in_a_row,
        failure=failure,
        ended_at=newest.end_time if newest else None,
        is_canceled=newest is not None and newest.dagster_run.status is dg.DagsterRunStatus.CANCELED,
        last_run_id=newest.dagster_run.run_id if newest else None,
        # A version without anything to score fails likewise, later: it has a pin, and rows that may be mended.
        is_empty=failure == EMPTY and not is_running and not versions.folder(version).pin.exists(),
    )


def explain_retry_refusal(pending: PendingVersion, trigger: Retries, now: datetime) -> str | None:
    """Return the reason why a pending gold version is not run again now; None: run it."""
    if pending.is_running:
        return f"{pending.version} is queued or running"
    retry = f"`flywheel retry {pending.version} -a {pending.application}`"
    if pending.is_canceled and pending.failure != RETRY_REQUESTED:
        return f"{pending.version} was canceled; start it again with {retry}"
    if pending.is_empty:
        return f"{pending.version} found nothing to train on; it is cut again when the thresholds are reached"
    if pending.failure in (PERMANENT, EMPTY):
        return (
            f"{pending.version} failed permanently; mend the cause, then {retry}, or leave it: "
            f"`flywheel abandon {pending.version} -a {pending.application} --reason … --yes`"
        )
    if pending.failed_in_a_row >= trigger.max_transient_attempts:
        return f"{pending.version} failed {pending.failed_in_a_row} times in a row; see its runs, then {retry}"
    if pending.failed_in_a_row and pending.ended_at is not None:
        pause_s = trigger.retry_backoff_s * 2 ** (pending.failed_in_a_row - 1)
        left_s = pending.ended_at + pause_s - now.timestamp()
        if left_s > 0:
            return f"{pending.version} is run again in {left_s:.0f} s (attempt {pending.attempts + 1})"
    return None


def build_training_sensor(application: FlywheelApplication, rule: TrainingRule, job_name: str) -> dg.SensorDefinition:
    """Build the sensor that requests a gold version when enough is new.

    It compares with the lake at every tick, so that a lost tick loses nothing.
    """
    partitions_def = build_version_partitions(application.name)

    @dg.sensor(
        name=SENSOR,
        job_name=job_name,
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
        description=rule.description,
    )
    def training_threshold_sensor(
        context: dg.SensorEvaluationContext, stores: Stores, clock: Clock
    ) -> dg.SensorResult | dg.SkipReason:
        lake, versions = stores.lake(application.name), stores.versions(application.name)
        partitions = context.instance.get_dynamic_partitions(str(partitions_def.name))
        pending = find_pending_version(context.instance, versions, partitions, job_name)
        if pending is not None and not pending.is_empty:
            if refusal := explain_retry_refusal(pending, rule.retries, clock.now()):
                return dg.SkipReason(refusal)
            return _build_request(application.name, pending.version, pending.last_run_id, {"retry": "retry"})

        assessment, cursor = _assess_once_per_state(context.cursor, rule, stores, lake, versions, clock.now())
        if not assessment.reasons:
            waits = "" if pending is None else f"{explain_retry_refusal(pending, rule.retries, clock.now())}: "
            return dg.SensorResult(skip_reason=waits + assessment.sentence, cursor=cursor)
        if pending is not None:
            # Once per content: rows that only the tokenizer refuses would start a run at every tick.
            attempt = f"empty:{rule.fingerprint(Level.CONTENT, stores, lake, versions)}"
            request = _build_request(application.name, pending.version, attempt, assessment.reasons)
            return dg.SensorResult(run_requests=request.run_requests, cursor=cursor)
        version = name_next_version(lake, versions, partitions, application)
        request = _build_request(application.name, version, None, assessment.reasons)
        return dg.SensorResult(
            run_requests=request.run_requests,
            dynamic_partitions_requests=[partitions_def.build_add_request([version])],
            cursor=cursor,
        )

    return training_threshold_sensor


def _build_request(application: str, version: str, attempt: str | None, reasons: dict[str, str]) -> dg.SensorResult:
    # Dagster skips a run key that a failed run has used, so each attempt needs its own. The key names the previous run.
    # A count of runs would repeat once old runs are deleted, and the request would be lost.
    request = dg.RunRequest(
        run_key=f"{application}:{version}:{attempt or 'first'}",
        partition_key=version,
        tags={REASON_TAG: "; ".join(reasons.values()), **{f"{REASON_TAG}.{name}": "yes" for name in reasons}},
    )
    return dg.SensorResult(run_requests=[request])


def _assess_once_per_state(
    cursor: str | None, rule: TrainingRule, stores: Stores, lake: Lake, versions: Versions, now: datetime
) -> tuple[Assessment, str]:
    """Assess, unless the lake is as it was at the assessment in the cursor.

    While the snapshots are the same, a tick reads nothing else. When they have changed, the content of the closed days
    decides: only other content can give another count, and only then rows are read.
    """
    known = json.loads(cursor) if cursor else {}
    snapshots = rule.fingerprint(Level.SNAPSHOTS, stores, lake, versions)
    if known.get(Level.SNAPSHOTS.value) == snapshots:
        return Assessment(**known["assessment"]), str(cursor)
    content = rule.fingerprint(Level.CONTENT, stores, lake, versions)
    is_known = known.get(Level.CONTENT.value) == content
    assessment = Assessment(**known["assessment"]) if is_known else rule.assess(stores, lake, versions, now)
    found = {Level.SNAPSHOTS.value: snapshots, Level.CONTENT.value: content, "assessment": vars(assessment)}
    return assessment, json.dumps(found)
