"""The daily assets that every kind of application shares: landing → raw tables → joined feedback."""

from collections.abc import Sequence

import dagster as dg

from flywheel_assets.application import FlywheelApplication
from flywheel_assets.defs.assets.daily import daily_asset, inputs_seen, report_entries, stamp_of
from flywheel_assets.defs.failures import failures_are_classified
from flywheel_assets.defs.partitions import join_window_mapping, partition_days
from flywheel_assets.defs.resources import Clock, Stores
from flywheel_assets.lake.daily.ingest import ingest_days, select_raw_table
from flywheel_assets.lake.daily.join_days import join_days
from flywheel_assets.lake.landing.disk import EventKind
from flywheel_assets.lake.tables.specs import GROUND_TRUTH

INGEST_CODE_VERSION = "1"
JOIN_CODE_VERSION = "1"


def feedback_assets(application: FlywheelApplication) -> Sequence[dg.AssetsDefinition]:
    """Build `raw_predictions`, `ground_truth` and `joined_feedback` of one application."""
    return [
        _raw_asset(application, EventKind.PREDICTION, "Every prediction event received on day D, as landed."),
        _raw_asset(application, EventKind.FEEDBACK, "Every feedback event received on day D, as landed."),
        _joined_asset(application),
    ]


def _raw_asset(application: FlywheelApplication, kind: EventKind, description: str) -> dg.AssetsDefinition:
    tables = application.tables
    spec = select_raw_table(kind, tables)

    @daily_asset(
        application,
        spec,
        "landing",
        INGEST_CODE_VERSION,
        name=spec.name,
        description=f"{description} Partition D is a pure function of landing day D; once closed it never changes.",
    )
    def raw_events(context: dg.AssetExecutionContext, stores: Stores, clock: Clock) -> dg.MaterializeResult[None]:
        with failures_are_classified(context):
            lake = stores.lake(application.name)
            stamp = stamp_of(context, clock, INGEST_CODE_VERSION)
            days = partition_days(context)
            entries = ingest_days(lake, stores.landing(), kind, days, stamp, tables)
            return report_entries(context, {}, entries)

    return raw_events


def _joined_asset(application: FlywheelApplication) -> dg.AssetsDefinition:
    tables, window = application.tables, join_window_mapping(application.window)

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
        with failures_are_classified(context):
            seen, stamp = inputs_seen(context), stamp_of(context, clock, JOIN_CODE_VERSION)
            lake = stores.lake(application.name)
            days = partition_days(context)
            entries = join_days(lake, days, application.start_date, application.window, stamp, tables)
            return report_entries(context, seen, entries)

    return joined_feedback
