"""The daily assets that every kind of application shares: landing → raw tables → joined feedback."""

from collections.abc import Sequence

import dagster as dg

from flywheel_assets.application import FlywheelApplication
from flywheel_assets.defs.failures import RETRY_TRANSIENT, failures_are_classified
from flywheel_assets.defs.partitions import ONE_RUN, daily_partitions, join_window_mapping, partition_days
from flywheel_assets.defs.presentation import column_schema, report_days
from flywheel_assets.defs.resources import Clock, Stores
from flywheel_assets.lake.ingest import ingest_days, raw_table
from flywheel_assets.lake.join_days import join_days
from flywheel_assets.lake.landing import EventKind
from flywheel_assets.lake.ledger import RunStamp
from flywheel_assets.lake.tables import GROUND_TRUTH

INGEST_CODE_VERSION = "1"
JOIN_CODE_VERSION = "1"


def stamp_of(context: dg.AssetExecutionContext, clock: Clock, code_version: str) -> RunStamp:
    """Who writes, for snapshots and the ledger."""
    return RunStamp(context.run.run_id, code_version, clock.now())


def feedback_assets(application: FlywheelApplication) -> Sequence[dg.AssetsDefinition]:
    """`raw_predictions`, `ground_truth` and `joined_feedback` of one application."""
    return [
        _raw_asset(application, EventKind.PREDICTION, "Every prediction event received on day D, as landed."),
        _raw_asset(application, EventKind.FEEDBACK, "Every feedback event received on day D, as landed."),
        _joined_asset(application),
    ]


def _raw_asset(application: FlywheelApplication, kind: EventKind, description: str) -> dg.AssetsDefinition:
    tables = application.tables
    spec = raw_table(kind, tables)

    @dg.asset(
        name=spec.name,
        key_prefix=application.name,
        description=f"{description} Partition D is a pure function of landing day D; once closed it never changes.",
        group_name="landing",
        partitions_def=daily_partitions(application.start_date),
        backfill_policy=ONE_RUN,
        retry_policy=RETRY_TRANSIENT,
        code_version=INGEST_CODE_VERSION,
        kinds={"duckdb", "iceberg"},
        metadata={"dagster/column_schema": column_schema(spec.schema)},
    )
    def raw_events(context: dg.AssetExecutionContext, stores: Stores, clock: Clock) -> None:
        with failures_are_classified(context):
            lake = stores.lake(application.name)
            stamp = stamp_of(context, clock, INGEST_CODE_VERSION)
            days = partition_days(context)
            report_days(context, ingest_days(lake, stores.landing(), kind, days, stamp, tables))

    return raw_events


def _joined_asset(application: FlywheelApplication) -> dg.AssetsDefinition:
    spec, read_over_window = application.tables.joined, join_window_mapping(application.window)

    @dg.asset(
        name=spec.name,
        key_prefix=application.name,
        group_name="join",
        partitions_def=daily_partitions(application.start_date),
        backfill_policy=ONE_RUN,
        retry_policy=RETRY_TRANSIENT,
        code_version=JOIN_CODE_VERSION,
        kinds={"duckdb", "iceberg"},
        metadata={"dagster/column_schema": column_schema(spec.schema)},
        deps=[
            dg.AssetDep([application.name, each.name], partition_mapping=read_over_window)
            for each in (application.tables.predictions, GROUND_TRUTH)
        ],
    )
    def joined_feedback(context: dg.AssetExecutionContext, stores: Stores, clock: Clock) -> None:
        """Every match of feedback with its prediction that became complete on day D, by first receipt of both."""
        with failures_are_classified(context):
            stamp = stamp_of(context, clock, JOIN_CODE_VERSION)
            lake = stores.lake(application.name)
            days = partition_days(context)
            start, window = application.start_date, application.window
            report_days(context, join_days(lake, days, start, window, stamp, application.tables))

    return joined_feedback
