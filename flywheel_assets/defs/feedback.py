"""The daily assets that every kind of application shares: landing → raw tables → joined feedback."""

from collections.abc import Sequence
from datetime import date

import dagster as dg

from flywheel_assets.defs.failures import RETRY_TRANSIENT, failures_are_classified
from flywheel_assets.defs.partitions import ONE_RUN, daily_partitions, join_window_mapping, partition_days
from flywheel_assets.defs.presentation import column_schema, report_days
from flywheel_assets.defs.resources import Clock, Stores
from flywheel_assets.joining import JoinWindow
from flywheel_assets.lake.ingest import TABLE_OF, ingest_days
from flywheel_assets.lake.join_days import join_days
from flywheel_assets.lake.landing import EventKind
from flywheel_assets.lake.ledger import RunStamp
from flywheel_assets.lake.tables import GROUND_TRUTH, JOINED_FEEDBACK, RAW_PREDICTIONS

INGEST_CODE_VERSION = "1"
JOIN_CODE_VERSION = "1"


def stamp_of(context: dg.AssetExecutionContext, clock: Clock, code_version: str) -> RunStamp:
    """Who writes, for snapshots and the ledger."""
    return RunStamp(context.run.run_id, code_version, clock.now())


def feedback_assets(application: str, start: date, window: JoinWindow) -> Sequence[dg.AssetsDefinition]:
    """`raw_predictions`, `ground_truth` and `joined_feedback` of one application."""
    return [
        _raw_asset(application, start, EventKind.PREDICTION, "Every prediction event received on day D, as landed."),
        _raw_asset(application, start, EventKind.FEEDBACK, "Every feedback event received on day D, as landed."),
        _joined_asset(application, start, window),
    ]


def _raw_asset(application: str, start: date, kind: EventKind, description: str) -> dg.AssetsDefinition:
    spec = TABLE_OF[kind]

    @dg.asset(
        name=spec.name,
        key_prefix=application,
        description=f"{description} Partition D is a pure function of landing day D; once closed it never changes.",
        group_name="landing",
        partitions_def=daily_partitions(start),
        backfill_policy=ONE_RUN,
        retry_policy=RETRY_TRANSIENT,
        code_version=INGEST_CODE_VERSION,
        kinds={"duckdb", "iceberg"},
        metadata={"dagster/column_schema": column_schema(spec.schema)},
    )
    def raw_table(context: dg.AssetExecutionContext, stores: Stores, clock: Clock) -> None:
        with failures_are_classified(context):
            lake = stores.lake(application)
            stamp = stamp_of(context, clock, INGEST_CODE_VERSION)
            report_days(context, ingest_days(lake, stores.landing_root, kind, partition_days(context), stamp))

    return raw_table


def _joined_asset(application: str, start: date, window: JoinWindow) -> dg.AssetsDefinition:
    read_over_window = join_window_mapping(window)

    @dg.asset(
        name=JOINED_FEEDBACK.name,
        key_prefix=application,
        group_name="join",
        partitions_def=daily_partitions(start),
        backfill_policy=ONE_RUN,
        retry_policy=RETRY_TRANSIENT,
        code_version=JOIN_CODE_VERSION,
        kinds={"duckdb", "iceberg"},
        metadata={"dagster/column_schema": column_schema(JOINED_FEEDBACK.schema)},
        deps=[
            dg.AssetDep([application, spec.name], partition_mapping=read_over_window)
            for spec in (RAW_PREDICTIONS, GROUND_TRUTH)
        ],
    )
    def joined_feedback(context: dg.AssetExecutionContext, stores: Stores, clock: Clock) -> None:
        """Every match of feedback with its prediction that became complete on day D, by first receipt of both."""
        with failures_are_classified(context):
            stamp = stamp_of(context, clock, JOIN_CODE_VERSION)
            report_days(context, join_days(stores.lake(application), partition_days(context), start, window, stamp))

    return joined_feedback
