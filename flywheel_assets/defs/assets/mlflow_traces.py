"""Builds the asset that reads the traces of an MLflow experiment into the landing zone."""

from contextlib import nullcontext
from datetime import UTC, datetime, time, timedelta
from typing import Any

import dagster as dg

from flywheel_assets.application import FlywheelApplication, MlflowTraceSource
from flywheel_assets.capture.log.segments import SegmentLog
from flywheel_assets.capture.log.shipping import open_shipper
from flywheel_assets.capture.polling import Window, poll_traces
from flywheel_assets.defs.failures import RETRY_TRANSIENT, classify_failures
from flywheel_assets.defs.partitions import GROUP
from flywheel_assets.defs.resources import Clock, Stores
from flywheel_assets.formats.catalog import find_format


def build_source_asset(application: FlywheelApplication, source: MlflowTraceSource) -> dg.AssetsDefinition:
    """Build `<application>/<source>`: it lands what is new in the experiment; days take it up like other events."""

    @dg.asset(
        name=source.name,
        key_prefix=application.name,
        group_name=GROUP.format(application.name, "landing"),
        owners=application.owners,
        tags=application.tags,
        retry_policy=RETRY_TRANSIENT,
        kinds={"mlflow"},
        description=f"New and changed traces of the MLflow experiment {source.experiment!r}, as landed events.",
    )
    def read_source(context: dg.AssetExecutionContext, stores: Stores, clock: Clock) -> dg.MaterializeResult[Any]:
        first = datetime.combine(source.since or application.start_date, time(), UTC)
        window = Window(first, timedelta(days=source.reread_days), source.max_traces)
        with (
            classify_failures(context),
            open_shipper(stores.where, stores.shipping(), clock.now) or nullcontext(),
            SegmentLog(stores.landing_folder(), clock=clock.now) as event_log,
        ):
            polled = poll_traces(
                stores.mlflow_traces(source.experiment, source.tracking_uri),
                find_format("mlflow"),
                application.name,
                event_log,
                stores.source_memory(application.name, source.name),
                window,
                clock.now,
            )
        return dg.MaterializeResult(
            metadata={
                "traces_in_window": polled.listed,
                "traces_read": polled.read,
                "predictions": polled.predictions,
                "feedback": polled.feedback,
                "traces_without_events": polled.without_events,
                "traces_incomplete": polled.incomplete,
                "traces_refused": polled.refused_traces,
                "refused_ids": polled.refused,
                "is_complete": polled.is_complete,
            }
        )

    return read_source
