"""Materializes days on which nothing landed, where a later step needs them and no person asked for them.

A join reads the days before its own. In a new home with two imported days of history, a person who starts a backfill of
those two in the UI asks for nothing else, and the days around them were never materialized. An empty day is known to be
empty from landing alone; a day with landed events is left to the person, who may not want it yet.
"""

from collections.abc import Collection, Sequence
from datetime import date, timedelta

from flywheel_assets.curation.joining import JoinWindow
from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.daily.ingest import ingest_days, select_raw_table
from flywheel_assets.lake.daily.join_days import join_days
from flywheel_assets.lake.daily.ledger import RunStamp
from flywheel_assets.lake.landing.disk import EventKind
from flywheel_assets.lake.landing.protocol import LandingPlace
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import ApplicationTables


def ingest_quiet_days(
    lake: Lake, landing: LandingPlace, tables: ApplicationTables, days: Sequence[date], stamp: RunStamp
) -> None:
    """Ingest those of `days` on which nothing landed and that were never ingested.

    Raises:
        LandingUnavailableError: the landing zone on S3 does not answer; nothing is changed.
    """
    for kind in EventKind:
        missing = _find_missing(lake, select_raw_table(kind, tables).name, days)
        if missing:
            landed = set(landing.open_zone(lake.application, kind).list_days())
            quiet = [day for day in missing if day not in landed]
            if quiet:
                ingest_days(lake, landing, kind, quiet, stamp, tables)


def join_quiet_days(
    lake: Lake,
    landing: LandingPlace,
    tables: ApplicationTables,
    days: Sequence[date],
    start: date,
    window: JoinWindow,
    stamp: RunStamp,
) -> None:
    """Join those of `days` on which nothing landed and that were never joined, with the days that this reads.

    Raises:
        MissingInputError: a day with landed events before them was never ingested.
        LandingUnavailableError: the landing zone on S3 does not answer.
    """
    missing = _find_missing(lake, tables.joined.name, days)
    if not missing:
        return
    reach = window.compute_reading_days(is_text=tables.is_text)
    read = ledger.list_days(max(start, missing[0] - timedelta(days=reach)), missing[-1])
    ingest_quiet_days(lake, landing, tables, read, stamp)
    raw = [ledger.read_entries(lake, select_raw_table(kind, tables).name, missing) for kind in EventKind]
    quiet = [day for day in missing if all(day in entries and not entries[day].rows_in for entries in raw)]
    if quiet:
        join_days(lake, quiet, start, window, stamp, tables)


def _find_missing(lake: Lake, asset: str, days: Collection[date]) -> list[date]:
    known = ledger.read_entries(lake, asset, days)
    return sorted(day for day in days if day not in known)
