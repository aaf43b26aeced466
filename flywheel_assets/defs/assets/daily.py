"""What the assets of one day share, whatever they make of it: partitions, retries, kinds, and who writes."""

from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg

from flywheel_assets.application import FlywheelApplication
from flywheel_assets.defs.failures import RETRY_TRANSIENT
from flywheel_assets.defs.partitions import ONE_RUN, daily_partitions
from flywheel_assets.defs.presentation import column_schema
from flywheel_assets.defs.resources import Clock
from flywheel_assets.lake.daily.ledger import RunStamp
from flywheel_assets.lake.tables.specs import TableSpec


def daily_asset(
    application: FlywheelApplication,
    spec: TableSpec,
    group: str,
    code_version: str,
    reads: Mapping[str, dg.PartitionMapping | None] | None = None,
    **more: Any,
) -> Callable[..., dg.AssetsDefinition]:
    """A decorator for an asset that replaces days of one table: what `dg.asset` needs to know about all of them.

    Args:
        application: whose.
        spec: the table; its columns are shown in the UI.
        group: of the UI's graph.
        code_version: what of the asset's own makes its rows; changed, days count as out of date.
        reads: the application's assets that day D reads, with the days that it reads of each; None: day D.
        **more: passed on to `dg.asset`.
    """
    decorator: Callable[..., dg.AssetsDefinition] = dg.asset(
        key_prefix=application.name,
        group_name=group,
        partitions_def=daily_partitions(application.start_date),
        backfill_policy=ONE_RUN,
        retry_policy=RETRY_TRANSIENT,
        code_version=code_version,
        kinds={"duckdb", "iceberg"},
        metadata={"dagster/column_schema": column_schema(spec.schema)},
        deps=[dg.AssetDep([application.name, name], partition_mapping=days) for name, days in (reads or {}).items()],
        **more,
    )
    return decorator


def stamp_of(context: dg.AssetExecutionContext, clock: Clock, code_version: str) -> RunStamp:
    """Who writes, for snapshots and the ledger."""
    return RunStamp(context.run.run_id, code_version, clock.now())
