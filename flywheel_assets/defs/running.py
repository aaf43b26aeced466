"""Runs the flywheel's jobs in this process, without a daemon.

The command line, the demo and the tests use it. Runs go to the daemon's instance, so that the UI shows them as well.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import dagster as dg

from flywheel_assets.application import FlywheelApplication
from flywheel_assets.defs.event_log import open_gathering_instance
from flywheel_assets.defs.failures import FAILURE_TAG, RETRY_REQUESTED
from flywheel_assets.defs.launcher import name_this_process
from flywheel_assets.defs.partitions import (
    DAILY_JOB,
    PARTITION_TAG,
    RANGE_END_TAG,
    RANGE_START_TAG,
    REASON_TAG,
    SENSOR,
    TURN_JOB,
)
from flywheel_assets.errors import UnknownNameError
from flywheel_assets.stores import prepare_dagster_home

_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass(frozen=True)
class Finished:
    """The end of a run."""

    run_id: str
    succeeded: bool
    error: str | None
    """The message of the first failed step."""


@dataclass(frozen=True)
class Ticked:
    """The training trigger's decision: the version that it requested a run for, or the reason for none."""

    version: str | None
    reason: str
    tags: Mapping[str, str]


def open_instance(dagster_home: Path, template: Path = Path("dagster.yaml")) -> dg.DagsterInstance:
    """Open the persistent instance in `dagster_home`; its first use copies this project's dagster.yaml there."""
    prepare_dagster_home(dagster_home, template)
    return open_gathering_instance(dagster_home)


def request_retry(instance: dg.DagsterInstance, application: str, version: str) -> str:
    """Mark the last run of a gold version, so that the trigger starts it again; return its id.

    Raises:
        UnknownNameError: no run of that version ended.
    """
    records = instance.get_run_records(
        dg.RunsFilter(job_name=TURN_JOB.format(application), tags={PARTITION_TAG: version}), limit=1, ascending=False
    )
    if not records or not records[0].dagster_run.is_finished:
        raise UnknownNameError("ended run of version", version, [], "See the runs in the UI.")
    run_id = records[0].dagster_run.run_id
    instance.add_run_tags(run_id, {FAILURE_TAG: RETRY_REQUESTED})
    return run_id


@dataclass
class Driver:
    """Runs one application's jobs against one Dagster instance."""

    application: FlywheelApplication
    definitions: dg.Definitions
    instance: dg.DagsterInstance
    _cursor: str | None = None

    def materialize(self, first: date, last: date) -> Finished:
        """Materialize the daily assets for `first` … `last`, in one run."""
        job = self.definitions.resolve_job_def(DAILY_JOB.format(self.application.name))
        tags = {RANGE_START_TAG: first.isoformat(), RANGE_END_TAG: last.isoformat(), **name_this_process()}
        return self._finish(job.execute_in_process(self._run_config(), self.instance, tags=tags, raise_on_error=False))

    def tick(self) -> Ticked:
        """Evaluate the training trigger once and add the partition that it requests; start no run."""
        sensor = self.definitions.resolve_sensor_def(SENSOR)
        wanted = {name: (self.definitions.resources or {})[name] for name in sensor.required_resource_keys}
        with dg.build_sensor_context(instance=self.instance, cursor=self._cursor, resources=wanted) as context:
            result = sensor(context)
        if isinstance(result, dg.SkipReason):
            return Ticked(None, str(result.skip_message), {})
        assert isinstance(result, dg.SensorResult)
        self._cursor = result.cursor or self._cursor
        for addition in result.dynamic_partitions_requests or []:
            self.instance.add_dynamic_partitions(addition.partitions_def_name, list(addition.partition_keys))
        if not result.run_requests:
            skipped = result.skip_reason
            return Ticked(None, str(skipped.skip_message if isinstance(skipped, dg.SkipReason) else skipped), {})
        request = result.run_requests[0]
        return Ticked(request.partition_key, request.tags.get(REASON_TAG, "requested"), request.tags)

    def turn(self, version: str, tags: Mapping[str, str]) -> Finished:
        """Cut, train, evaluate and decide one version, in one run."""
        job = self.definitions.resolve_job_def(TURN_JOB.format(self.application.name))
        result = job.execute_in_process(
            self._run_config(),
            self.instance,
            partition_key=version,
            tags={key: value for key, value in tags.items() if not key.startswith("dagster/")} | name_this_process(),
            raise_on_error=False,
        )
        return self._finish(result)

    def run_job(self, name: str) -> dg.ExecuteInProcessResult:
        """Run one of the application's jobs that have no partition, as its schedule would."""
        job = self.definitions.resolve_job_def(name)
        return job.execute_in_process(self._run_config(), self.instance, tags=name_this_process(), raise_on_error=False)

    def _run_config(self) -> dict[str, object]:
        logging.getLogger("dagster").setLevel(logging.CRITICAL)
        return dict(_QUIET)

    @staticmethod
    def _finish(result: dg.ExecuteInProcessResult) -> Finished:
        failures = [event for event in result.all_events if event.is_step_failure]
        error = None
        if failures:
            data = failures[0].step_failure_data
            description = data.user_failure_data.description if data.user_failure_data else None
            root = data.error
            while root is not None and root.cause is not None:
                root = root.cause
            error = description or (root.message.strip() if root else "unknown")
        return Finished(result.run_id, result.success, error)
