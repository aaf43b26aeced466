"""Alerts people outside of the UI: a run failed, a day tripped the breaker.

The sensors are off unless FLYWHEEL_ALERT_WEBHOOK is set. An alert holds names, days, figures and ids, never a text of a
user or an error's message, which may quote one. The webhook's address is often a secret itself, so no log has it.
"""

import json
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

import dagster as dg

from flywheel_assets.application import FlywheelApplication
from flywheel_assets.defs.failures import FAILURE_TAG
from flywheel_assets.defs.partitions import PARTITION_TAG, RANGE_END_TAG, RANGE_START_TAG
from flywheel_assets.defs.resources import Stores
from flywheel_assets.errors import AlertError, SettingsError
from flywheel_assets.lake.daily.breaker import JudgedDay, find_tripped_days
from flywheel_assets.models.rollout.announce import post_json

TIMEOUT_S = 10.0
UNSET = "FLYWHEEL_ALERT_WEBHOOK is not set: alerts go nowhere"


def post_alert(url: str, alert: Mapping[str, object]) -> None:
    """POST one alert as JSON.

    Slack reads its `text` and ignores the rest; other receivers find every field by name.

    Raises:
        SettingsError: the address is no http(s) URL.
        AlertError: the webhook did not take it; the address is not named.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise SettingsError("FLYWHEEL_ALERT_WEBHOOK is no http or https URL; give the webhook's whole address")
    posted = post_json(url, alert, TIMEOUT_S)
    if not posted.was_taken:
        answer = posted.error if posted.status is None else f"status {posted.status}"
        raise AlertError(f"the alert webhook did not take an alert ({answer}); the next tick tries again")


def build_alert_sensors(application: FlywheelApplication, webhook: str | None) -> Sequence[dg.SensorDefinition]:
    """Build the sensors that alert about one application; without a webhook they do nothing."""
    status = dg.DefaultSensorStatus.RUNNING if webhook else dg.DefaultSensorStatus.STOPPED

    @dg.run_failure_sensor(
        name="run_failure_alert",
        default_status=status,
        description="Posts every failed run of this code location to FLYWHEEL_ALERT_WEBHOOK.",
    )
    def run_failure_alert(context: dg.RunFailureSensorContext) -> dg.SkipReason | None:
        if webhook is None:
            return dg.SkipReason(UNSET)
        post_alert(webhook, build_failure_alert(application.name, context.dagster_run))
        return None

    @dg.sensor(
        name="breaker_alert",
        default_status=status,
        minimum_interval_seconds=60,
        description="Posts every day that trips the batch breaker to FLYWHEEL_ALERT_WEBHOOK, once.",
    )
    def breaker_alert(context: dg.SensorEvaluationContext, stores: Stores) -> dg.SensorResult | dg.SkipReason:
        if webhook is None:
            return dg.SkipReason(UNSET)
        tripped = {_identify_day(each): each for each in find_tripped_days(stores.lake(application.name))}
        known = set(json.loads(context.cursor or "[]"))
        news = [each for identity, each in tripped.items() if identity not in known]
        if news:
            post_alert(webhook, build_breaker_alert(application.name, news))
        # A day that is no longer tripped leaves the cursor: if it trips again, people are alerted again.
        return dg.SensorResult(skip_reason=f"{len(news)} new tripped days", cursor=json.dumps(sorted(tripped)))

    return [run_failure_alert, breaker_alert]


def build_failure_alert(application: str, run: dg.DagsterRun) -> dict[str, object]:
    """Build the alert about a failed run."""
    first, last = run.tags.get(RANGE_START_TAG), run.tags.get(RANGE_END_TAG)
    partition = run.tags.get(PARTITION_TAG) or (f"{first} … {last}" if first else None)
    kind = run.tags.get(FAILURE_TAG, "unknown")
    text = f"{application}: run {run.run_id[:8]} of {run.job_name} failed ({kind})"
    return {
        "text": text + (f", partition {partition}" if partition else ""),
        "event": "run_failure",
        "application": application,
        "job": run.job_name,
        "run_id": run.run_id,
        "partition": partition,
        "failure": kind,
    }


def build_breaker_alert(application: str, days: Sequence[JudgedDay]) -> dict[str, object]:
    """Build the alert about days that tripped."""
    shown = "; ".join(f"{each.day}: {each.figures.describe()}" for each in days[:5])
    return {
        "text": f"{application}: {len(days)} days kept out of gold. {shown}. "
        f"See `flywheel breaker list --application {application}`.",
        "event": "breaker_tripped",
        "application": application,
        "days": {each.day.isoformat(): [trip.describe() for trip in each.figures.trips] for each in days},
    }


def _identify_day(each: JudgedDay) -> str:
    return f"{each.day.isoformat()}:{each.joined_hash}"
