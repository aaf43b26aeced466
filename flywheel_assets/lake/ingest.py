"""Landing → `raw_predictions` and `ground_truth`: partition D is a pure function of landing day D.

Capture refused malformed events, so an unreadable line here means a damaged file or one that capture did not write:
the line goes to `quarantine` as it is, the others beside it are kept. Within a day the first receipt of an event id
is kept; across days the join decides.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from flywheel_assets import records
from flywheel_assets.curation.sql_literals import quoted
from flywheel_assets.lake import ledger
from flywheel_assets.lake.erased_people import ErasedPeople, erased_people
from flywheel_assets.lake.failed_steps import full_disk_told, removes_unfinished
from flywheel_assets.lake.landed_lines import POSITION, RefusedLine, read_lines
from flywheel_assets.lake.landing import EventKind, LandedDay, LandingZone
from flywheel_assets.lake.ledger import LedgerEntry, RunStamp
from flywheel_assets.lake.object_landing import ObjectLanding, ObjectLandingZone
from flywheel_assets.lake.tables import GROUND_TRUTH, PREFERENCE_TABLES, QUARANTINE, ApplicationTables, Lake, TableSpec
from flywheel_assets.records import Reason


@dataclass(frozen=True)
class _Ingested:
    entry: LedgerEntry
    file: Path | None
    quarantine_file: Path | None


def raw_table(kind: EventKind, tables: ApplicationTables) -> TableSpec:
    """The table that landed events of a kind go to."""
    return tables.predictions if kind is EventKind.PREDICTION else GROUND_TRUTH


@removes_unfinished
def ingest_days(
    lake: Lake,
    landing: Path | ObjectLanding,
    kind: EventKind,
    days: Sequence[date],
    stamp: RunStamp,
    tables: ApplicationTables = PREFERENCE_TABLES,
) -> dict[date, LedgerEntry]:
    """Replace partitions `days` of the raw table of `kind` by what landing holds; returns the ledger's new entries.

    Raises:
        LandingRetiredError: a closed day's segments are gone; nothing is changed.
        ClosedDayError: a closed day's segment was altered; nothing is changed.
        LandingUnavailableError: the landing zone on S3 does not answer; nothing is changed.
        DiskFullError: no space is left; run again, it replaces what was written.
    """
    spec = raw_table(kind, tables)
    zone = _zone(landing, lake.application, kind)
    with full_disk_told(*([landing] if isinstance(landing, Path) else []), *lake.places):
        # Before today is listed, and for all days: the schedule reads a closed and curated day never again.
        zone.republish_late(stamp.now)
        # Oldest first: a segment that is late for a day that only now closes moves to today, too.
        landed = [zone.read(day, stamp.now) for day in sorted(days)]
    erased = erased_people(lake)
    with lake.connect() as connection:
        ingested = [_ingest_day(lake, connection, spec, zone, day, erased) for day in landed]
    properties = stamp.properties()
    stage = spec.name
    files = {result.entry.day: result.file for result in ingested if result.file}
    refused = {result.entry.day: result.quarantine_file for result in ingested if result.quarantine_file}
    lake.replace_days(spec, days, files, properties)
    lake.replace_days(QUARANTINE, days, refused, properties, stage=stage)
    entries = [result.entry for result in ingested]
    ledger.record(lake, entries, stamp)
    return {entry.day: entry for entry in entries}


def _zone(landing: Path | ObjectLanding, application: str, kind: EventKind) -> LandingZone | ObjectLandingZone:
    return LandingZone(landing, application, kind) if isinstance(landing, Path) else landing.zone(application, kind)


def _ingest_day(
    lake: Lake,
    connection: duckdb.DuckDBPyConnection,
    spec: TableSpec,
    zone: LandingZone | ObjectLandingZone,
    landed: LandedDay,
    erased: ErasedPeople | None,
) -> _Ingested:
    if not landed.paths:
        entry = LedgerEntry(spec.name, landed.day, landed.is_closed, landed.content_hash, {}, 0, 0, {})
        return _Ingested(entry, None, None)

    event = pa.schema([column for column in spec.schema if column.name != spec.day_column])
    readable = lake.new_file(spec, landed.day)
    try:
        with zone.fetched(landed, lake.scratch / "landing") as segments:
            lines = read_lines(segments, event, readable)
        refused = lines.refused
        gone = 0
        connection.execute(f"CREATE OR REPLACE TEMP VIEW landed AS SELECT * FROM read_parquet({quoted(str(readable))})")
        if erased is not None:
            # A replay of old segments or of a broker's topic must not bring back who was erased.
            refused = tuple(line for line in refused if not erased.covers_event(line.event_id))
            gone = erased.leave_out(connection, "landed", POSITION) + len(lines.refused) - len(refused)
        file, distinct = _first_receipts(lake, connection, spec, landed.day)
    finally:
        readable.unlink(missing_ok=True)
    read = lines.events + len(lines.refused)
    reasons = {
        Reason.DUPLICATE_EVENT: read - gone - len(refused) - distinct,
        Reason.MALFORMED_EVENT: len(refused),
        Reason.ERASED: gone,
    }
    entry = LedgerEntry(
        asset=spec.name,
        day=landed.day,
        is_closed=landed.is_closed,
        content_hash=landed.content_hash,
        input_hashes={},
        rows_in=read,
        rows_kept=distinct,
        rows_by_reason={reason.value: count for reason, count in reasons.items() if count},
    )
    connection.register("refused", _quarantined(refused, spec, landed.day))
    return _Ingested(entry, file, lake.write_day(connection, QUARANTINE, landed.day, "SELECT * FROM refused"))


def _first_receipts(
    lake: Lake, connection: duckdb.DuckDBPyConnection, spec: TableSpec, day: date
) -> tuple[Path | None, int]:
    """Write the first receipt of every event id in the view `landed`; returns the file and its rows."""
    # Whole rows are never sorted to find duplicates: at 1 M × 2 KB that took 73 s. Only repeated ids are looked at.
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE repeated AS SELECT event_id FROM landed GROUP BY event_id HAVING count(*) > 1"
    )
    file = lake.write_day(
        connection,
        spec,
        day,
        f"SELECT *, DATE {quoted(day.isoformat())} AS {spec.day_column} FROM ("
        "SELECT * FROM landed ANTI JOIN repeated USING (event_id) UNION ALL "
        "SELECT * FROM landed SEMI JOIN repeated USING (event_id) "
        f"QUALIFY row_number() OVER (PARTITION BY event_id ORDER BY received_at, {POSITION}) = 1)",
    )
    return file, pq.read_metadata(file).num_rows if file else 0


def _quarantined(refused: Sequence[RefusedLine], spec: TableSpec, day: date) -> pa.Table:
    """The refused lines as they are: no other table holds them."""
    return pa.Table.from_pylist(
        [
            {
                "day": day,
                "stage": spec.name,
                "row_id": line.event_id or records.stable_id("line", line.segment, line.number),
                "reason": Reason.MALFORMED_EVENT.value,
                "detail": f"{line.segment} line {line.number}: {line.problem}",
                "payload": line.line,
            }
            for line in refused
        ],
        schema=records.QUARANTINE,
    )
