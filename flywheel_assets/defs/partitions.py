"""Defines partitions by day and by gold version, their mappings, and the names that several definitions share."""

from datetime import date

import dagster as dg

from flywheel_assets.curation.joining import JoinWindow

PARTITION_TAG = "dagster/partition"
REASON_TAG = "flywheel/reason"
DAILY_JOB = "{}_daily"
TURN_JOB = "{}_turn"
REPORTS_JOB = "{}_reports"
GROUP = "{}_{}"
"""Application and stage: the UI merges groups of equal name across code locations."""
SENSOR = "training_threshold_sensor"


# Range tags of a single run, as the UI's backfills set them.
RANGE_START_TAG = "dagster/asset_partition_range_start"
RANGE_END_TAG = "dagster/asset_partition_range_end"

# One run for a whole range: a run per day would cost about two CPU seconds each in Dagster alone.
ONE_RUN = dg.BackfillPolicy.single_run()


def build_daily_partitions(start: date) -> dg.DailyPartitionsDefinition:
    """Build the UTC days from `start` to today: an open day may be materialized, its rows are provisional."""
    return dg.DailyPartitionsDefinition(start_date=start.isoformat(), timezone="UTC", end_offset=1)


def build_version_partitions(application: str) -> dg.DynamicPartitionsDefinition:
    """Build one partition per gold version.

    The name carries the application because the whole instance shares it.
    """
    return dg.DynamicPartitionsDefinition(name=f"{application}_gold_versions")


def map_join_window(window: JoinWindow) -> dg.TimeWindowPartitionMapping:
    """Let day D of the join read days D − w − k … D.

    Redoing a raw day in the UI therefore redoes the days after it.
    """
    return map_lookback(window.match_lookback_days)


def map_lookback(days: int) -> dg.TimeWindowPartitionMapping:
    """Let day D read days D − `days` … D."""
    return dg.TimeWindowPartitionMapping(start_offset=-days, allow_nonexistent_upstream_partitions=True)


def map_no_days() -> dg.SpecificPartitionsPartitionMapping:
    """Let a version depend on no day: it pins its days itself.

    With any wider mapping one re-materialized day would retrain every version.
    """
    return dg.SpecificPartitionsPartitionMapping([])


def list_partition_days(context: dg.AssetExecutionContext) -> list[date]:
    """Return the days of this run, ascending; one day or a range."""
    return sorted(date.fromisoformat(key) for key in context.partition_keys)
