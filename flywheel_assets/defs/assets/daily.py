"""Builds the daily assets that every kind of application has, and reports each day to Dagster.

They are landing → raw tables → joined feedback.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import dagster as dg

from flywheel_assets.application import FlywheelApplication
from flywheel_assets.defs.assets.landed import DATA_VERSION_TAG, name_landed_asset
from flywheel_assets.defs.failures import RETRY_TRANSIENT, classify_failures
from flywheel_assets.defs.partitions import GROUP, ONE_RUN, build_daily_partitions, list_partition_days, map_join_window
from flywheel_assets.defs.presentation import build_column_schema, describe_entry
from flywheel_assets.defs.resources import Clock, Stores
from flywheel_assets.lake.daily.ingest import ingest_days, select_raw_table
from flywheel_assets.lake.daily.join_days import join_days
from flywheel_assets.lake.daily.ledger import LedgerEntry, RunStamp, list_days
from flywheel_assets.lake.daily.quiet_days import ingest_quiet_days
from flywheel_assets.lake.landing.disk import EventKind
from flywheel_assets.lake.tables.specs import GROUND_TRUTH, TableSpec

LATE_AFTER = dg.FreshnessPolicy.cron(deadline_cron="0 6 * * *", lower_bound_delta=timedelta(hours=6), timezone="UTC")
"""At 06:00 UTC the UI marks daily assets as late that were not materialized since midnight."""

# Dagster's names of the tags that its staleness reads (dagster/_core/definitions/data_version.py).
_IS_OURS = "dagster/data_version_is_user_provided"
_CODE_VERSION = "dagster/code_version"
_INPUT_EVENT, _INPUT_VERSION = "dagster/input_event_pointer/{}", "dagster/input_data_version/{}"

_WITHOUT_EVENTS_OF_DAGSTER = {"__source_asset_observation__": True}
"""Output metadata by which Dagster leaves the events to the asset's body.

Dagster gives all partitions of a run one data version. This undocumented way around it exists for observable source
assets, hence the bound on Dagster's version and the test of one event a day (docs/adr/0029).
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

    The asset's body calls `find_seen_inputs` before it reads and returns the result of `report_days`.

    Args:
        application: the owner of the asset.
        spec: the table; its columns are shown in the UI.
        stage: its group in the UI's graph, after the application's name.
        code_version: version of the asset's own code and rules; after a change all its days are out of date.
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
    """Make the stamp of this run, for snapshots and the ledger."""
    return RunStamp(context.run.run_id, code_version, clock.now())


def find_seen_inputs(context: dg.AssetExecutionContext) -> dict[str, int | None]:
    """Find the id of the newest materialization or observation of each input asset; None: it has none.

    Call it before rows are read: a later materialization then counts as not seen, and marks the day as stale.
    """
    newest: dict[str, int | None] = {}
    for dependency in context.assets_def.get_asset_spec(context.asset_key).deps:
        # Landing is observed, everything else is materialized.
        records = [
            *context.instance.fetch_materializations(dependency.asset_key, limit=1).records,
            *context.instance.fetch_observations(dependency.asset_key, limit=1).records,
        ]
        newest[dependency.asset_key.to_user_string()] = max((each.storage_id for each in records), default=None)
    return newest


@dataclass(frozen=True)
class DayReport:
    """The facts about one materialized day that Dagster gets."""

    content_hash: str
    """The day's data version. Later days become stale when it changes, not when equal rows are written again."""
    metadata: Mapping[str, Any]
    input_hashes: Mapping[str, str] = field(default_factory=dict)
    """By input asset, the hash that was read, from the ledger."""


def report_entries(
    context: dg.AssetExecutionContext,
    seen: Mapping[str, int | None],
    entries: Mapping[date, LedgerEntry],
    more: Mapping[date, Mapping[str, Any]] | None = None,
) -> dg.MaterializeResult[None]:
    """Report days by their entries in the ledger, with `more` metadata of each; see `report_days`."""
    reports = {
        day: DayReport(entry.content_hash, {**describe_entry(entry), **(more or {}).get(day, {})}, entry.input_hashes)
        for day, entry in entries.items()
    }
    return report_days(context, seen, reports)


def report_days(
    context: dg.AssetExecutionContext, seen: Mapping[str, int | None], reports: Mapping[date, DayReport]
) -> dg.MaterializeResult[None]:
    """Log one materialization per day, each with its own data version and metadata.

    Args:
        context: of the asset.
        seen: the result of `find_seen_inputs` from before rows were read.
        reports: the days of this run.

    Returns:
        The result that the asset's body returns, so that Dagster adds no events of its own.
    """
    code_version = context.assets_def.get_asset_spec(context.asset_key).code_version
    for day, report in reports.items():
        tags = {
            DATA_VERSION_TAG: report.content_hash,
            _IS_OURS: "true",
            _CODE_VERSION: code_version or context.run.run_id,
        }
        for asset, storage_id in seen.items():
            tags[_INPUT_EVENT.format(asset)] = str(storage_id) if storage_id is not None else "NULL"
            tags[_INPUT_VERSION.format(asset)] = report.input_hashes.get(asset.split("/")[-1], "UNKNOWN")
        context.log_event(
            dg.AssetMaterialization(context.asset_key, partition=day.isoformat(), metadata=report.metadata, tags=tags)
        )
    return dg.MaterializeResult(metadata=_WITHOUT_EVENTS_OF_DAGSTER)


_BEFORE_EVERY_OBSERVATION = 1
"""Stands for "landing was never observed": without a number Dagster compares the newest observation with itself.

The run's own first event is older than any observation that comes after it.
"""

INGEST_CODE_VERSION = "1"
JOIN_CODE_VERSION = "1"


def build_feedback_assets(application: FlywheelApplication) -> Sequence[dg.AssetsDefinition]:
    """Build `raw_predictions`, `ground_truth` and `joined_feedback` of one application."""
    return [
        _build_raw_asset(application, EventKind.PREDICTION, "Every prediction event received on day D, as landed."),
        _build_raw_asset(application, EventKind.FEEDBACK, "Every feedback event received on day D, as landed."),
        _build_joined_asset(application),
    ]


def _build_raw_asset(application: FlywheelApplication, kind: EventKind, description: str) -> dg.AssetsDefinition:
    tables = application.tables
    spec = select_raw_table(kind, tables)

    @daily_asset(
        application,
        spec,
        "landing",
        INGEST_CODE_VERSION,
        reads={name_landed_asset(kind): None},
        name=spec.name,
        description=f"{description} Partition D is a pure function of landing day D; once closed it never changes.",
    )
    def raw_events(context: dg.AssetExecutionContext, stores: Stores, clock: Clock) -> dg.MaterializeResult[None]:
        with classify_failures(context):
            seen = {name: number or _BEFORE_EVERY_OBSERVATION for name, number in find_seen_inputs(context).items()}
            stamp = make_stamp(context, clock, INGEST_CODE_VERSION)
            lake = stores.lake(application.name)
            days = list_partition_days(context)
            entries = ingest_days(lake, stores.landing(), kind, days, stamp, tables)
            return report_entries(context, seen, entries)

    return raw_events


def _build_joined_asset(application: FlywheelApplication) -> dg.AssetsDefinition:
    tables, window = application.tables, map_join_window(application.window)

    @daily_asset(
        application,
        tables.joined,
        "join",
        JOIN_CODE_VERSION,
        reads={tables.predictions.name: window, GROUND_TRUTH.name: window},
        name=tables.joined.name,
    )
    def joined_feedback(context: dg.AssetExecutionContext, stores: Stores, clock: Clock) -> dg.MaterializeResult[None]:
        """Every match of feedback with its prediction that became complete on day D, by first receipt of both."""
        with classify_failures(context):
            seen, stamp = find_seen_inputs(context), make_stamp(context, clock, JOIN_CODE_VERSION)
            lake = stores.lake(application.name)
            days, start = list_partition_days(context), application.start_date
            reach = timedelta(days=max(application.window.account_lookback_days, application.join_lookback_days))
            read = list_days(max(start, days[0] - reach), days[-1])
            ingest_quiet_days(lake, stores.landing(), tables, read, stamp)
            entries = join_days(lake, days, start, application.window, stamp, tables)
            return report_entries(context, seen, entries)

    return joined_feedback
