"""Describes landing to Dagster as external assets, so that a day whose landed events have changed looks stale.

Dagster compares the newest data version of an input with the one that was read. Landing is written by capture, which
knows nothing of Dagster; a closed day changes only when history is imported, so the import reports it here. The ledger
decides what is stale (`flywheel stale`): without these reports only the mark in the UI would be missing.
"""

from collections.abc import Mapping
from datetime import date

import dagster as dg

from flywheel_assets.application import FlywheelApplication
from flywheel_assets.defs.partitions import GROUP, build_daily_partitions
from flywheel_assets.lake.daily.history import find_changed_days
from flywheel_assets.lake.landing.disk import EventKind
from flywheel_assets.stores import Stores

DATA_VERSION_TAG = "dagster/data_version"
"""Dagster's name of the tag that its staleness reads (dagster/_core/definitions/data_version.py)."""


def name_landed_asset(kind: EventKind) -> str:
    """Return the name of the external asset that stands for the landed events of a kind."""
    return {EventKind.PREDICTION: "landed_predictions", EventKind.FEEDBACK: "landed_feedback"}[kind]


def build_landed_assets(application: FlywheelApplication) -> list[dg.AssetSpec]:
    """Build the external assets of an application's landing: one a kind, partitioned by received day."""
    return [
        dg.AssetSpec(
            [application.name, name_landed_asset(kind)],
            group_name=GROUP.format(application.name, "landing"),
            owners=application.owners,
            tags=application.tags,
            partitions_def=build_daily_partitions(application.start_date),
            description=f"The {kind.value} events in the landing zone, as capture or an import of history put them.",
            kinds={"jsonl"},
        )
        for kind in EventKind
    ]


def report_changed_days(
    instance: dg.DagsterInstance, application: FlywheelApplication, stores: Stores
) -> Mapping[str, list[date]]:
    """Report every day whose landing has changed since it was ingested, so that the UI marks it as stale.

    A day that was reported already with the same content is left out: a repetition adds nothing.

    Returns:
        By raw table the days, ascending.
    """
    lake = stores.lake(application.name)
    changed = find_changed_days(lake, stores.landing(), application.tables)
    for kind, days in zip(EventKind, changed.values(), strict=True):
        key = dg.AssetKey([application.name, name_landed_asset(kind)])
        for day, content_hash in days.items():
            newest = instance.get_latest_data_version_record(key, is_source=True, partition_key=day.isoformat())
            observation = newest.asset_observation if newest else None
            if observation is None or (observation.tags or {}).get(DATA_VERSION_TAG) != content_hash:
                tags = {DATA_VERSION_TAG: content_hash}
                instance.report_runless_asset_event(dg.AssetObservation(key, partition=day.isoformat(), tags=tags))
    return {name: list(days) for name, days in changed.items()}
