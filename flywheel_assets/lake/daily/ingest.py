"""Ingests landing into `raw_predictions` and `ground_truth`: partition D is a pure function of landing day D.

Capture refused malformed events, so an unreadable line here means a damaged file or one that capture did not write.
Such a line is written to `quarantine` as it is; the other lines of its file are kept. Within a day the first receipt
of an event id is kept; across days the join decides. A score that comes again under its id with other content is no
retry: it is written to `quarantine`, too.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flywheel_assets import records
from flywheel_assets.curation.arrow import values_of
from flywheel_assets.curation.labels.score_contract import write_score_content_sql
from flywheel_assets.curation.sql_literals import quote
from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.daily._landed_files import LandedFile, RefusedLine, read_lines, remove_rows
from flywheel_assets.lake.daily.daily_steps import run_as_daily_step
from flywheel_assets.lake.daily.erased_people import ErasedPeople, read_erased_people
from flywheel_assets.lake.daily.ledger import LedgerEntry, RunStamp
from flywheel_assets.lake.landing.disk import EventKind, LandedDay
from flywheel_assets.lake.landing.protocol import Landing, LandingPlace
from flywheel_assets.lake.storage.failures import translate_disk_full
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import GROUND_TRUTH, PREFERENCE_TABLES, QUARANTINE, ApplicationTables, TableSpec
from flywheel_assets.records import Reason

_FEW_ROWS = 8192
"""Ids of so many rows are looked at in memory."""


@dataclass(frozen=True)
class _Ingested:
    entry: LedgerEntry
    file: Path | None
    quarantine_file: Path | None


def select_raw_table(kind: EventKind, tables: ApplicationTables) -> TableSpec:
    """Return the raw table of landed events of a kind."""
    return tables.predictions if kind is EventKind.PREDICTION else GROUND_TRUTH


@run_as_daily_step
def ingest_days(
    lake: Lake,
    landing: LandingPlace,
    kind: EventKind,
    days: Sequence[date],
    stamp: RunStamp,
    tables: ApplicationTables = PREFERENCE_TABLES,
) -> dict[date, LedgerEntry]:
    """Replace partitions `days` of the raw table of `kind` by the landed events; return the ledger's new entries.

    Raises:
        HomeMismatchError: tables or landing folder are another home's; nothing is changed.
        LandingRetiredError: a closed day's segments are gone; nothing is changed.
        ClosedDayError: a closed day's segment was altered; nothing is changed.
        LandingUnavailableError: the landing zone on S3 does not answer; nothing is changed.
        DiskFullError: no space is left; run again, it replaces what was written.
    """
    spec = select_raw_table(kind, tables)
    zone, folder = landing.open_zone(lake.application, kind), landing.find_folder(lake.application)
    with translate_disk_full(*([folder] if folder else []), *lake.places):
        landing.verify_owner(lake.home_id)
        # Before today is listed, and for all days: the schedule never reads a closed and curated day again.
        zone.republish_late(stamp.now)
        # Oldest first: a segment that is late for a day that only now closes moves to today, too.
        landed = [zone.read(day, stamp.now) for day in sorted(days)]
    erased = read_erased_people(lake)
    with lake.connect() as connection:
        ingested = [_ingest_day(lake, connection, spec, zone, day, erased) for day in landed]
    properties = stamp.properties
    stage = spec.name
    files = {result.entry.day: result.file for result in ingested if result.file}
    refused = {result.entry.day: result.quarantine_file for result in ingested if result.quarantine_file}
    lake.replace_days(spec, days, files, properties)
    lake.replace_days(QUARANTINE, days, refused, properties, stage=stage)
    entries = [result.entry for result in ingested]
    ledger.record_entries(lake, entries, stamp)
    return {entry.day: entry for entry in entries}


def _ingest_day(
    lake: Lake,
    connection: duckdb.DuckDBPyConnection,
    spec: TableSpec,
    zone: Landing,
    landed: LandedDay,
    erased: ErasedPeople | None,
) -> _Ingested:
    if not landed.paths:
        entry = LedgerEntry(spec.name, landed.day, landed.is_closed, landed.content_hash, {}, 0, 0, {})
        return _Ingested(entry, None, None)

    path = lake.make_file_path(spec, landed.day)
    with zone.fetch(landed, lake.scratch / "landing") as segments, LandedFile(path, spec, landed.day) as file:
        lines = read_lines(segments, file)
    # History counts as received when its day ended: what a person did before their erasure stays refused, however much
    # later it is imported.
    ended = datetime.combine(landed.day + timedelta(days=1), time(), UTC)
    connection.execute(
        "CREATE OR REPLACE TEMP VIEW landed AS SELECT event_id, user_id, "
        f"least(received_at, TIMESTAMPTZ {quote(ended.isoformat())}) AS received_at, file_row_number AS number, "
        f"{_write_content_sql(spec)} AS content "
        f"FROM read_parquet({quote(str(path))}, file_row_number = true)"
    )
    refused, erased_rows = lines.refused, set[int]()
    if erased is not None:
        # A replay of old segments or of a broker's topic must not bring back an erased person.
        refused = tuple(line for line in refused if not erased.has_event(line.event_id))
        erased_rows = erased.find_numbers(connection, "landed", "number")
    repeated = [] if _is_small_and_distinct(path, lines.events) else _find_repeated_rows(connection, erased_rows)
    reused = _find_reused_ids(connection, repeated)
    left_out = np.array([*erased_rows, *repeated], np.int64)
    kept = remove_rows(path, left_out, spec, landed.day, lake.make_file_path(spec, landed.day))
    rows_kept = pq.read_metadata(kept).num_rows
    if not rows_kept:
        kept.unlink()
    reasons = {
        Reason.DUPLICATE_EVENT: len(repeated) - len(reused),
        Reason.PREDICTION_ID_REUSED: len(reused),
        Reason.MALFORMED_EVENT: len(refused),
        Reason.ERASED: len(erased_rows) + len(lines.refused) - len(refused),
    }
    entry = LedgerEntry(
        asset=spec.name,
        day=landed.day,
        is_closed=landed.is_closed,
        content_hash=landed.content_hash,
        input_hashes={},
        rows_in=lines.events + len(lines.refused),
        rows_kept=rows_kept,
        rows_by_reason={reason.value: count for reason, count in reasons.items() if count},
    )
    quarantine_rows = _build_quarantine_rows(refused, reused, spec, landed.day)
    quarantined = lake.write_rows(connection, QUARANTINE, landed.day, quarantine_rows)
    return _Ingested(entry, kept if rows_kept else None, quarantined)


def _is_small_and_distinct(path: Path, rows: int) -> bool:
    """Return whether a file has few rows and no event id twice.

    A query that asks costs 8 ms however few they are.
    """
    if rows > _FEW_ROWS:
        return False
    ids = pq.read_table(path, columns=["event_id"], use_threads=False)["event_id"]
    return len(set(values_of(ids))) == rows


def _find_repeated_rows(connection: duckdb.DuckDBPyConnection, erased_rows: Set[int]) -> list[int]:
    """Find the numbers of all but the first receipt of every event id in the view `landed`.

    Erased rows are no receipts.
    """
    connection.register("erased_numbers", pa.table({"number": pa.array(sorted(erased_rows), pa.int64())}))
    rows = connection.execute("""
        WITH receipts AS (SELECT * FROM landed ANTI JOIN erased_numbers USING (number)),
        repeated AS (SELECT event_id FROM receipts GROUP BY event_id HAVING count(*) > 1)
        SELECT number FROM receipts SEMI JOIN repeated USING (event_id)
        QUALIFY row_number() OVER (PARTITION BY event_id ORDER BY received_at, number) > 1
        """).fetchall()
    return [row[0] for row in rows]


def _write_content_sql(spec: TableSpec) -> str:
    return write_score_content_sql() if "features" in spec.schema.names else "NULL::VARCHAR"


def _find_reused_ids(connection: duckdb.DuckDBPyConnection, repeated: Sequence[int]) -> list[Mapping[str, str | None]]:
    """Find the repeated scores in the view `landed` whose content is not that of the first receipt."""
    if not repeated:
        return []
    connection.register("repeated_numbers", pa.table({"number": pa.array(repeated, pa.int64())}))
    found = connection.sql("""
        WITH repeats AS (SELECT * FROM landed SEMI JOIN repeated_numbers USING (number)),
        firsts AS (
            SELECT event_id, content FROM landed SEMI JOIN repeats USING (event_id)
            ANTI JOIN repeated_numbers USING (number) ANTI JOIN erased_numbers USING (number)
        )
        SELECT r.event_id, r.user_id, r.content FROM repeats r JOIN firsts f USING (event_id)
        WHERE r.content <> f.content
        ORDER BY r.number
        """).to_arrow_table()
    rows: list[Mapping[str, str | None]] = found.to_pylist()
    return rows


def _build_quarantine_rows(
    refused: Sequence[RefusedLine], reused: Sequence[Mapping[str, str | None]], spec: TableSpec, day: date
) -> pa.Table:
    """Build quarantine rows that hold the refused lines and contents as they are: no other table holds them."""
    return pa.Table.from_pylist(
        [
            {
                "day": day,
                "stage": spec.name,
                "row_id": row["event_id"],
                "reason": Reason.PREDICTION_ID_REUSED.value,
                "detail": "received again with other content; the first receipt counts",
                "subject": row["user_id"],
                "payload": row["content"],
            }
            for row in reused
        ]
        + [
            {
                "day": day,
                "stage": spec.name,
                "row_id": line.event_id or records.make_stable_id("line", line.segment, line.number),
                "reason": Reason.MALFORMED_EVENT.value,
                "detail": f"{line.segment} line {line.number}: {line.problem}",
                "payload": line.line,
            }
            for line in refused
        ],
        schema=records.QUARANTINE,
    )
