"""How the assets are partitioned, and how partitions of one depend on partitions of another."""

from datetime import date

import dagster as dg

from flywheel_assets.curation.joining import JoinWindow

# Range tags of a single run, as the UI's backfills set them.
RANGE_START_TAG = "dagster/asset_partition_range_start"
RANGE_END_TAG = "dagster/asset_partition_range_end"

# One run for a whole range: a run per day would cost about two CPU seconds each in Dagster alone.
ONE_RUN = dg.BackfillPolicy.single_run()


def daily_partitions(start: date) -> dg.DailyPartitionsDefinition:
    """UTC days from `start` to today included: an open day may be materialized, its rows are provisional."""
    return dg.DailyPartitionsDefinition(start_date=start.isoformat(), timezone="UTC", end_offset=1)


def version_partitions(application: str) -> dg.DynamicPartitionsDefinition:
    """One partition per gold version; the name carries the application because it is shared by the whole instance."""
    return dg.DynamicPartitionsDefinition(name=f"{application}_gold_versions")


def join_window_mapping(window: JoinWindow) -> dg.TimeWindowPartitionMapping:
    """Day D of the join reads days D − w − k … D; redoing a raw day in the UI therefore redoes the days after it."""
    return lookback_mapping(window.match_lookback_days)


def lookback_mapping(days: int) -> dg.TimeWindowPartitionMapping:
    """Day D reads days D − `days` … D."""
    return dg.TimeWindowPartitionMapping(start_offset=-days, allow_nonexistent_upstream_partitions=True)


def pinned_by_version() -> dg.SpecificPartitionsPartitionMapping:
    """A version pins its days itself: with any wider mapping one re-materialized day would retrain every version."""
    return dg.SpecificPartitionsPartitionMapping([])


def partition_days(context: dg.AssetExecutionContext) -> list[date]:
    """The days of this run, ascending; one day or a range."""
    return sorted(date.fromisoformat(key) for key in context.partition_keys)
