"""The daily assets that every kind of application shares: landing → raw tables → joined feedback."""

from collections.abc import Sequence

import dagster as dg

from flywheel_assets.application import FlywheelApplication
from flywheel_assets.defs.assets.daily import daily_asset, find_seen_inputs, report_entries, make_stamp
from flywheel_assets.defs.failures import classify_failures
from flywheel_assets.defs.partitions import map_join_window, list_partition_days
from flywheel_assets.defs.resources import Clock, Stores
from flywheel_assets.lake.daily.ingest import ingest_days, raw_table
from flywheel_assets.lake.daily.join_days import join_days
from flywheel_assets.lake.landing.disk import EventKind
from flywheel_assets.lake.tables.specs import GROUND_TRUTH

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
    spec = raw_table(kind, tables)

    @daily_asset(
        application,
        spec,
        "landing",
        INGEST_CODE_VERSION,
        name=spec.name,
        description=f"{description} Partition D is a pure function of landing day D; once closed it never changes.",
    )
    def raw_events(context: dg.AssetExecutionContext, stores: Stores, clock: Clock) -> dg.MaterializeResult[None]:
        with classify_failures(context):
            lake = stores.lake(application.name)
            stamp = make_stamp(context, clock, INGEST_CODE_VERSION)
            days = list_partition_days(context)
            entries = ingest_days(lake, stores.landing(), kind, days, stamp, tables)
            return report_entries(context, {}, entries)

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
            days = list_partition_days(context)
            entries = join_days(lake, days, application.start_date, application.window, stamp, tables)
            return report_entries(context, seen, entries)

    return joined_feedback
