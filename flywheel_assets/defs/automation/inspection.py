"""Inspects a home for damage: for `flywheel fsck`, and as a daily check.

The check reads new files and a sample of the old ones every day, and everything on Sundays.
"""

import socket
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import dagster as dg

from flywheel_assets.application import FlywheelApplication
from flywheel_assets.defs.presentation import build_numbers_table
from flywheel_assets.defs.resources import Clock, Stores
from flywheel_assets.errors import SourceUnavailableError
from flywheel_assets.lake.fsck.findings import Report, Sample
from flywheel_assets.lake.fsck.inspecting import Place, inspect_application, inspect_shared
from flywheel_assets.lake.fsck.models import StoredModel
from flywheel_assets.models.model_folder import hash_listing, hash_weights
from flywheel_assets.stores import Stores as AnyStores

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

FSCK_JOB = "{}_fsck"
SHARE_TAG = "flywheel/fsck_share"
FINDINGS = "findings"
"""Metadata of the check: the number of its findings."""
DAILY_SHARE = 0.05
"""Of the files that were read before: in twenty days each is read once. New files are read at once."""
_CHECK = "stored_files_are_whole"
_SUNDAY = 6
_PORTS = {"http": 80, "https": 443}
_CONNECT_S = 5.0


def inspect_home(stores: AnyStores, applications: Sequence[FlywheelApplication], share: float, now: datetime) -> Report:
    """Inspect applications and what they share.

    Args:
        stores: the places of the data.
        applications: those whose tables, landing, versions and models are inspected.
        share: of the files that were read before, those whose content is read again.
        now: the time.
    """
    where, report, sample = stores.where, Report(), Sample(share, now.date())
    places = [open_place(stores, application) for application in applications]
    unreadable = inspect_shared(
        where.resolve_home(), where.resolve_catalog_uri(), where.resolve_mlflow_uri(), places, report
    )
    for place in places:
        report.merge(inspect_application(place, sample, now, unreadable))
    report.not_looked_at.append("base models, copies of exports elsewhere, backups")
    return report


def open_place(stores: AnyStores, application: FlywheelApplication) -> Place:
    """Open everything of one application that an inspection looks at."""
    return Place(
        lake=stores.lake(application.name),
        tables=application.tables,
        versions=stores.versions(application.name),
        landing=stores.landing(),
        is_retired=application.maintenance.landing_kept_days is not None,
        list_models=_build_model_list(stores, application.name),
        hash_weights=hash_weights,
        hash_folder=hash_listing,
    )


def _build_model_list(stores: AnyStores, application: str) -> Callable[[], list[StoredModel]]:
    uri = stores.where.resolve_mlflow_uri()

    def list_models() -> list[StoredModel]:
        if uri.startswith("sqlite:///"):
            return stores.registry(application).list_stored_models()
        try:
            _try_connection(uri)
            return stores.registry(application).list_stored_models()
        except Exception as error:
            raise SourceUnavailableError(f"its server does not answer ({type(error).__name__})") from error

    return list_models


def _try_connection(uri: str) -> None:
    """Connect to a server once: MLflow's own client tries for more than four minutes."""
    address = urlsplit(uri)
    if address.scheme in _PORTS and address.hostname:
        with socket.create_connection((address.hostname, address.port or _PORTS[address.scheme]), _CONNECT_S):
            pass


def build_check_key(application: FlywheelApplication, asset: str) -> dg.AssetCheckKey:
    """Build the key of the check that hangs on an application's asset."""
    return dg.AssetCheckKey(dg.AssetKey([application.name, asset]), _CHECK)


def build_fsck_check(application: FlywheelApplication, asset: str) -> dg.AssetChecksDefinition:
    """Build the check of everything that the application has stored.

    It hangs on an asset of landing, where all begins and which no daily job makes: it has a job of its own.
    """

    @dg.asset_check(
        asset=[application.name, asset],
        name=_CHECK,
        description="Tables, ledger, landing, versions, models and databases are what they were, as `flywheel fsck` "
        "checks: a sample of old files and all new ones every day, everything on Sundays.",
    )
    def stored_files_are_whole(
        context: dg.AssetCheckExecutionContext, stores: Stores, clock: Clock
    ) -> dg.AssetCheckResult:
        share = float(context.run.tags.get(SHARE_TAG, DAILY_SHARE))
        began = time.process_time()
        report = inspect_home(stores, [application], share, clock.now())
        findings = report.findings
        shown = "; ".join(map(str, findings[:3]))
        return dg.AssetCheckResult(
            passed=not findings,
            description=f"{len(findings)} findings: {shown}" if findings else "everything is whole",
            metadata={
                FINDINGS: len(findings),
                "share": share,
                "bytes_read": report.bytes_read,
                "cpu_seconds": time.process_time() - began,
                "looked_at": build_numbers_table(["what", "number"], [[*each] for each in report.looked_at.items()]),
                "all_findings": dg.MetadataValue.md("\n".join(f"- {finding}" for finding in findings) or "none"),
                "not_looked_at": dg.MetadataValue.md("\n".join(f"- {each}" for each in report.not_looked_at)),
            },
        )

    return stored_files_are_whole


def build_fsck_job(application: FlywheelApplication, asset: str) -> "UnresolvedAssetJobDefinition":
    """Build `<application>_fsck`, which runs this check alone."""
    return dg.define_asset_job(
        FSCK_JOB.format(application.name),
        dg.AssetSelection.checks(build_check_key(application, asset)),
        description="Looks for damaged files; the check's metadata names each with cause and repair.",
    )


def build_fsck_schedule(application: FlywheelApplication) -> dg.ScheduleDefinition:
    """Build the schedule at 05:00 UTC, after the day's materialization and Sunday's maintenance."""

    @dg.schedule(
        name=f"{application.name}_daily_fsck",
        cron_schedule="0 5 * * *",
        execution_timezone="UTC",
        job_name=FSCK_JOB.format(application.name),
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Looks for damaged files: in a sample every day, in everything on Sundays.",
    )
    def daily_fsck(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        day = context.scheduled_execution_time.astimezone(UTC).date()
        share = 1.0 if day.weekday() == _SUNDAY else DAILY_SHARE
        return dg.RunRequest(run_key=f"{application.name}:fsck:{day}", tags={SHARE_TAG: str(share)})

    return daily_fsck
