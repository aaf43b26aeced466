"""Alerts when what should happen by itself does not: sensors, schedules, days, the training trigger, `flywheel fsck`.

A failed run alerts by itself (`alerts`). Nothing failed where a sensor raises at every tick, a schedule has no tick, a
day is not in gold, or the trigger refuses the same version for ever: it only stays quiet. A check that finds damaged
files fails without failing its run. One sensor per code location looks for that, through the ticks and check results
that Dagster keeps. Each cause is posted once, until it has been away for an hour.

Of other code locations it looks only at this sensor: one that cannot be loaded ticks nowhere. A daemon that is down
alerts of nothing; that is seen from outside, for instance by a probe of the webserver's `/server_info`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg
import msgspec
from dagster._core.scheduler.instigation import (
    InstigatorState,
    ScheduleInstigatorData,
    SensorInstigatorData,
    TickStatus,
)
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._utils.schedules import reverse_cron_string_iterator

from flywheel_assets.application import FlywheelApplication, Retries
from flywheel_assets.defs.automation.alerts import UNSET, post_alert
from flywheel_assets.defs.automation.inspection import FINDINGS, FSCK_JOB
from flywheel_assets.defs.automation.triggers import (
    PendingVersion,
    explain_retry_refusal,
    find_first_day_to_do,
    find_last_closed_day,
    find_pending_version,
)
from flywheel_assets.defs.failures import EMPTY, PERMANENT, RETRY_REQUESTED
from flywheel_assets.defs.partitions import SENSOR, TURN_JOB, build_version_partitions
from flywheel_assets.defs.resources import Clock, Stores

SUPERVISION = "supervision_alert"
FAILED_TICKS = 3
"""Of a sensor, in a row; one alone is often a database that was busy. A schedule has no second try for a day."""
REFUSED_TICKS = 20
"""Of the training trigger in a row, about ten minutes: people who are at work on a version are left alone."""
SILENT_SENSOR = timedelta(minutes=15)
SILENT_SCHEDULE = timedelta(hours=1)
LATE_DAY = timedelta(hours=6)
"""After midnight UTC: the daily schedule begins at 00:30."""
LATE_LOOK = timedelta(hours=30)
"""Since the last look for damaged files: they are looked for every day at 05:00 UTC."""
_PERSISTS_S = 600.0
_FORGET_S = 3600.0


@dataclass(frozen=True)
class Trouble:
    """Names one thing that does not happen, and says it for people."""

    cause: str
    """The same as long as the trouble is the same."""
    sentence: str
    persists_s: float = 0.0
    """It is posted when it was seen at all ticks of this time: a daemon that has just started has caught up by then."""


class Memory(msgspec.Struct):
    """Keeps what the sensor knows of each cause, in seconds since 1970; it is the cursor."""

    first_seen: dict[str, float] = {}
    last_seen: dict[str, float] = {}
    posted: list[str] = []


def build_supervision_sensor(
    application: FlywheelApplication, retries: Retries, fsck: dg.AssetCheckKey, webhook: str | None
) -> dg.SensorDefinition:
    """Build the sensor that posts what does not happen; without a webhook it does nothing.

    Args:
        application: whose code location it is.
        retries: of the training trigger.
        fsck: the check that looks for damaged files.
        webhook: the address; None: alerts go nowhere.
    """

    @dg.sensor(
        name=SUPERVISION,
        default_status=dg.DefaultSensorStatus.RUNNING if webhook else dg.DefaultSensorStatus.STOPPED,
        minimum_interval_seconds=60,
        description="Posts failing and silent automation, late days, refusals of the trigger and damaged files.",
    )
    def supervision_alert(
        context: dg.SensorEvaluationContext, stores: Stores, clock: Clock
    ) -> dg.SensorResult | dg.SkipReason:
        if webhook is None:
            return dg.SkipReason(UNSET)
        now = clock.now()
        place, instance = context.code_location_origin, context.instance
        location = place.location_name if place else ""
        troubles = [
            *find_quiet_automation(instance, location, now, context.repository_def),
            *find_late_days(application, stores, now),
            *find_refusals(application, stores, instance, retries, location, now),
            *find_damage(application, stores, instance, fsck, now),
        ]
        memory = msgspec.json.decode(context.cursor, type=Memory) if context.cursor else Memory()
        news = choose_news(memory, troubles, now.timestamp())
        if news:
            post_alert(webhook, build_alert(application.name, news))
        return dg.SensorResult(
            skip_reason=f"{len(troubles)} troubles, {len(news)} of them new",
            cursor=msgspec.json.encode(memory).decode(),
        )

    return supervision_alert


def find_quiet_automation(
    instance: dg.DagsterInstance, location: str, now: datetime, defined: dg.RepositoryDefinition | None
) -> list[Trouble]:
    """Find the sensors and schedules of this code location that fail or are silent, and other locations' silence."""
    troubles: list[Trouble] = []
    for state in instance.all_instigator_state():
        if not state.is_running:
            continue
        if state.origin.location_name != location:
            if state.name == SUPERVISION and _is_silent(state, now):
                where = state.origin.location_name
                sentence = f"nothing ticks in the code location {where}: see on Dagster's page whether it loads"
                troubles.append(Trouble(f"location {where}", sentence, _PERSISTS_S))
        elif state.name != SUPERVISION and (defined is None or _is_defined(state, defined)):
            troubles += _judge(instance, state, now, defined)
    return troubles


def _judge(
    instance: dg.DagsterInstance, state: InstigatorState, now: datetime, defined: dg.RepositoryDefinition | None
) -> Iterator[Trouble]:
    is_sensor = isinstance(state.instigator_data, SensorInstigatorData)
    kind, most = ("sensor", FAILED_TICKS) if is_sensor else ("schedule", 1)
    ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=most)
    ended = [tick for tick in ticks if tick.status is not TickStatus.STARTED]
    if len(ended) == most and all(tick.status is TickStatus.FAILURE for tick in ended):
        times = f"{most} times in a row" if most > 1 else "at its last tick"
        yield Trouble(f"failing {state.name}", f"{kind} {state.name} failed {times}: see its ticks on Dagster's page")
    if is_sensor and _is_silent(state, now):
        yield Trouble(f"silent {state.name}", f"sensor {state.name} does not tick any more", _PERSISTS_S)
    if isinstance(state.instigator_data, ScheduleInstigatorData):
        due = _find_due(state, now, defined)
        began = state.instigator_data.start_timestamp or 0.0
        if due is not None and began < due.timestamp() and not (ticks and ticks[0].timestamp >= due.timestamp()):
            sentence = f"schedule {state.name} had no tick at {due:%Y-%m-%d %H:%M} UTC"
            yield Trouble(f"silent {state.name}", sentence, _PERSISTS_S)


def _is_silent(state: InstigatorState, now: datetime) -> bool:
    data = state.instigator_data
    if not isinstance(data, SensorInstigatorData) or data.last_tick_timestamp is None:
        return False
    longest_s = max(SILENT_SENSOR.total_seconds(), 5 * (data.min_interval or 0))
    return now.timestamp() - data.last_tick_timestamp > longest_s


def _find_due(state: InstigatorState, now: datetime, defined: dg.RepositoryDefinition | None) -> datetime | None:
    """Find the last time for which the schedule's tick should be there."""
    assert isinstance(state.instigator_data, ScheduleInstigatorData)
    zone = None
    if defined is not None:
        zone = defined.get_schedule_def(state.name).execution_timezone
    crons = state.instigator_data.cron_schedule
    latest = (now - SILENT_SCHEDULE).timestamp()
    times = [
        next(reverse_cron_string_iterator(latest, cron, zone))
        for cron in ([crons] if isinstance(crons, str) else crons)
    ]
    return max(times).astimezone(UTC) if times else None


def _is_defined(state: InstigatorState, defined: dg.RepositoryDefinition) -> bool:
    return defined.has_sensor_def(state.name) or defined.has_schedule_def(state.name)


def find_late_days(application: FlywheelApplication, stores: Stores, now: datetime) -> list[Trouble]:
    """Find closed days that gold still lacks at six in the morning."""
    lake = stores.lake(application.name)
    if not (lake.is_begun and lake.has_table(application.tables.gold)):
        return []
    last = find_last_closed_day(now - LATE_DAY)
    start = stores.find_first_day(application.name, application.start_date)
    first = find_first_day_to_do(lake, stores.landing(), application, start, last)
    if first is None:
        return []
    days = f"{first} is" if first == last else f"{first} and perhaps later days up to {last} are"
    sentence = (
        f"{days} not in gold: see the runs of {application.name}_daily, or `flywheel turn --application "
        f"{application.name}`"
    )
    return [Trouble(f"late {first}", sentence, _PERSISTS_S)]


def find_refusals(
    application: FlywheelApplication,
    stores: Stores,
    instance: dg.DagsterInstance,
    retries: Retries,
    location: str,
    now: datetime,
) -> list[Trouble]:
    """Find a gold version that the training trigger refuses to run again until a person has decided."""
    job = TURN_JOB.format(application.name)
    partitions = instance.get_dynamic_partitions(str(build_version_partitions(application.name).name))
    pending = find_pending_version(instance, stores.versions(application.name), partitions, job)
    if pending is None or not _needs_person(pending, retries.max_transient_attempts):
        return []
    states = [each for each in instance.all_instigator_state() if each.name == SENSOR]
    refused = 0
    for state in states:
        if state.origin.location_name == location:
            ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=REFUSED_TICKS)
            refused = sum(pending.version in (tick.tick_data.skip_reason or "") for tick in ticks)
    if refused < REFUSED_TICKS:
        return []
    sentence = f"the training trigger refused {refused} times: {explain_retry_refusal(pending, retries, now)}"
    return [Trouble(f"refused {pending.version} {pending.last_run_id}", sentence)]


def _needs_person(pending: PendingVersion, most_attempts: int) -> bool:
    if pending.is_running or pending.is_empty or pending.failure == RETRY_REQUESTED:
        return False
    return pending.is_canceled or pending.failure in (PERMANENT, EMPTY) or pending.failed_in_a_row >= most_attempts


def find_damage(
    application: FlywheelApplication,
    stores: Stores,
    instance: dg.DagsterInstance,
    fsck: dg.AssetCheckKey,
    now: datetime,
) -> list[Trouble]:
    """Find damaged files by the last look for them, and a look that has not been taken.

    The number of findings is part of the cause: further damage is posted, the same one is not posted every day.
    """
    ended = {AssetCheckExecutionRecordStatus.SUCCEEDED, AssetCheckExecutionRecordStatus.FAILED}
    last = next(iter(instance.event_log_storage.get_asset_check_execution_history(fsck, limit=1, status=ended)), None)
    where = f"see the runs of {FSCK_JOB.format(application.name)}"
    if last is None:
        if not stores.lake(application.name).is_begun:
            return []
        sentence = f"nothing has looked for damaged files yet: {where}"
        return [Trouble("no look for damage", sentence, LATE_LOOK.total_seconds())]
    troubles = []
    at = datetime.fromtimestamp(last.event.timestamp if last.event else last.create_timestamp, UTC)
    if now - at > LATE_LOOK:
        sentence = f"nothing has looked for damaged files since {at:%Y-%m-%d %H:%M} UTC: {where}"
        troubles.append(Trouble(f"no look for damage since {at:%Y-%m-%d %H:%M}", sentence, _PERSISTS_S))
    if last.status is AssetCheckExecutionRecordStatus.FAILED:
        number = last.evaluation.metadata[FINDINGS].value if last.evaluation else "some"
        sentence = (
            f"{number} files or parts of this home are damaged or missing: `flywheel fsck --application "
            f"{application.name}` names each with its repair"
        )
        troubles.append(Trouble(f"damage {number}", sentence))
    return troubles


def choose_news(memory: Memory, troubles: Sequence[Trouble], now_s: float) -> list[Trouble]:
    """Choose what is to be posted now, and bring the memory up to date."""
    gone = {cause for cause, seen_s in memory.last_seen.items() if now_s - seen_s > _FORGET_S}
    present = {trouble.cause for trouble in troubles}
    memory.posted = [cause for cause in memory.posted if cause not in gone]
    memory.first_seen = {trouble.cause: memory.first_seen.get(trouble.cause, now_s) for trouble in troubles}
    kept = {cause: seen_s for cause, seen_s in memory.last_seen.items() if cause not in gone}
    memory.last_seen = kept | dict.fromkeys(present, now_s)
    news = [
        trouble
        for trouble in troubles
        if trouble.cause not in memory.posted and now_s - memory.first_seen[trouble.cause] >= trouble.persists_s
    ]
    memory.posted += [trouble.cause for trouble in news]
    return news


def build_alert(application: str, troubles: Sequence[Trouble]) -> dict[str, object]:
    """Build the alert about what does not happen; it quotes no error's message, which may hold a user's text."""
    return {
        "text": f"{application}: {'; '.join(trouble.sentence for trouble in troubles)}",
        "event": "supervision",
        "application": application,
        "troubles": {trouble.cause: trouble.sentence for trouble in troubles},
    }
