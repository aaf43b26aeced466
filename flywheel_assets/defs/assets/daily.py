"""Build the assets of one day, and report each day that they materialize: what they all share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import dagster as dg

from flywheel_assets.application import FlywheelApplication
from flywheel_assets.defs.failures import RETRY_TRANSIENT
from flywheel_assets.defs.partitions import ONE_RUN, build_daily_partitions
from flywheel_assets.defs.presentation import build_column_schema, describe_entry
from flywheel_assets.defs.resources import Clock
from flywheel_assets.defs.tags import GROUP
from flywheel_assets.lake.daily.ledger import LedgerEntry, RunStamp
from flywheel_assets.lake.tables.specs import TableSpec

LATE_AFTER = dg.FreshnessPolicy.cron(deadline_cron="0 6 * * *", lower_bound_delta=timedelta(hours=6), timezone="UTC")
"""The UI marks a daily asset that nothing has materialized since midnight as late at 06:00 UTC."""

# Dagster's names of the tags that its staleness reads (dagster/_core/definitions/data_version.py).
_DATA_VERSION, _IS_OURS = "dagster/data_version", "dagster/data_version_is_user_provided"
_CODE_VERSION = "dagster/code_version"
_INPUT_EVENT, _INPUT_VERSION = "dagster/input_event_pointer/{}", "dagster/input_data_version/{}"

_WITHOUT_EVENTS_OF_DAGSTER = {"__source_asset_observation__": True}
"""Output metadata by which Dagster leaves the events to the asset's body.

Dagster gives all partitions of a run one data version. It has this way out for its own observable source assets alone,
undocumented, hence the bound on its version and the test of one event a day (docs/adr/0029).
"""


def daily_asset(
    application: FlywheelApplication,
    spec: TableSpec,
    stage: str,
    code_version: str,
    reads: Mapping[str, dg.PartitionMapping | None] | None = None,
    **more: Any,
) -> Callable[..., dg.AssetsDefinition]:
    """Make a decorator for an asset that replaces days of one table.

    The asset's body calls `find_seen_inputs` before it reads and returns what `report_days` gives.

    Args:
        application: whose.
        spec: the table; its columns are shown in the UI.
        stage: its group in the UI's graph, after the application's name.
        code_version: what of the asset's own makes its rows; changed, days count as out of date.
        reads: the application's assets that day D reads, with the days that it reads of each; None: day D.
        **more: passed on to `dg.asset`.
    """
    decorator: Callable[..., dg.AssetsDefinition] = dg.asset(
        key_prefix=application.name,
        group_name=GROUP.format(application.name, stage),
        owners=application.owners,
        tags=application.tags,
        partitions_def=build_daily_partitions(application.start_date),
        backfill_policy=ONE_RUN,
        retry_policy=RETRY_TRANSIENT,
        freshness_policy=LATE_AFTER,
        code_version=code_version,
        kinds={"duckdb", "iceberg"},
        metadata={"dagster/column_schema": build_column_schema(spec.schema)},
        deps=[dg.AssetDep([application.name, name], partition_mapping=days) for name, days in (reads or {}).items()],
        **more,
    )
    return decorator


def make_stamp(context: dg.AssetExecutionContext, clock: Clock, code_version: str) -> RunStamp:
    """Return who writes, for snapshots and the ledger."""
    return RunStamp(context.run.run_id, code_version, clock.now())


def find_seen_inputs(context: dg.AssetExecutionContext) -> dict[str, int | None]:
    """Return the id of the newest materialization of each input asset; None: it has none.

    To be called before rows are read: what is materialized later counts as not seen, and marks the day as stale.
    """
    newest: dict[str, int | None] = {}
    for dependency in context.assets_def.get_asset_spec(context.asset_key).deps:
        records = context.instance.fetch_materializations(dependency.asset_key, limit=1).records
        newest[dependency.asset_key.to_user_string()] = records[0].storage_id if records else None
    return newest


@dataclass(frozen=True)
class DayReport:
    """What Dagster is to know about one materialized day."""

    content_hash: str
    """Its data version: days after it are stale when this has changed, not when equal rows were written again."""
    metadata: Mapping[str, Any]
    input_hashes: Mapping[str, str] = field(default_factory=dict)
    """By input asset, what the ledger says was read."""


def report_entries(
    context: dg.AssetExecutionContext, seen: Mapping[str, int | None], entries: Mapping[date, LedgerEntry]
) -> dg.MaterializeResult[None]:
    """Report days by their entries in the ledger; see `report_days`."""
    reports = {
        day: DayReport(entry.content_hash, describe_entry(entry), entry.input_hashes) for day, entry in entries.items()
    }
    return report_days(context, seen, reports)


def report_days(
    context: dg.AssetExecutionContext, seen: Mapping[str, int | None], reports: Mapping[date, DayReport]
) -> dg.MaterializeResult[None]:
    """Log one materialization per day, each with its own data version and metadata.

    Args:
        context: of the asset.
        seen: what `find_seen_inputs` gave before rows were read.
        reports: the days of this run.

    Returns:
        What the asset's body returns, so that Dagster adds no events of its own.
    """
    code_version = context.assets_def.get_asset_spec(context.asset_key).code_version
    for day, report in reports.items():
        tags = {_DATA_VERSION: report.content_hash, _IS_OURS: "true", _CODE_VERSION: code_version or context.run.run_id}
        for asset, storage_id in seen.items():
            tags[_INPUT_EVENT.format(asset)] = str(storage_id) if storage_id is not None else "NULL"
            tags[_INPUT_VERSION.format(asset)] = report.input_hashes.get(asset.split("/")[-1], "UNKNOWN")
        context.log_event(
            dg.AssetMaterialization(context.asset_key, partition=day.isoformat(), metadata=report.metadata, tags=tags)
        )
    return dg.MaterializeResult(metadata=_WITHOUT_EVENTS_OF_DAGSTER)
