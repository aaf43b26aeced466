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
import msgspec
import pyarrow as pa

from flywheel_assets import records
from flywheel_assets.lake import ledger
from flywheel_assets.lake.engine import quoted
from flywheel_assets.lake.landing import EventKind, LandedDay, LandingZone
from flywheel_assets.lake.ledger import LedgerEntry, RunStamp
from flywheel_assets.lake.tables import GROUND_TRUTH, QUARANTINE, RAW_PREDICTIONS, Lake, TableSpec
from flywheel_assets.records import Reason

TABLE_OF = {EventKind.PREDICTION: RAW_PREDICTIONS, EventKind.FEEDBACK: GROUND_TRUTH}
_DEFAULTS = {"do_not_train": "false", "sampling_probability": "1.0"}
_MAX_LINE_BYTES = 64 * 2**20


@dataclass(frozen=True)
class _Ingested:
    entry: LedgerEntry
    file: Path | None
    quarantine_file: Path | None


def ingest_days(
    lake: Lake, landing_root: Path, kind: EventKind, days: Sequence[date], stamp: RunStamp
) -> dict[date, LedgerEntry]:
    """Replace partitions `days` of the raw table of `kind` by what landing holds; returns the ledger's new entries.

    Raises:
        LandingRetiredError: a closed day's segments are gone; nothing is changed.
        ClosedDayError: a closed day's segment was altered; nothing is changed.
    """
    spec = TABLE_OF[kind]
    zone = LandingZone(landing_root, lake.application, kind)
    # Oldest first: a segment that is late for a closed day moves to today before today is listed.
    landed = [zone.read(day, stamp.now) for day in sorted(days)]
    with lake.connect() as connection:
        ingested = [_ingest_day(lake, connection, spec, day) for day in landed]
    properties = stamp.properties()
    stage = spec.name
    files = {result.entry.day: result.file for result in ingested if result.file}
    refused = {result.entry.day: result.quarantine_file for result in ingested if result.quarantine_file}
    lake.replace_days(spec, days, files, properties)
    lake.replace_days(QUARANTINE, days, refused, properties, stage=stage)
    entries = [result.entry for result in ingested]
    ledger.record(lake, entries, stamp)
    return {entry.day: entry for entry in entries}


def _ingest_day(lake: Lake, connection: duckdb.DuckDBPyConnection, spec: TableSpec, landed: LandedDay) -> _Ingested:
    if not landed.paths:
        entry = LedgerEntry(spec.name, landed.day, landed.is_closed, landed.content_hash, {}, 0, 0, {})
        return _Ingested(entry, None, None)

    event = pa.schema([column for column in spec.schema if column.name != spec.day_column])
    connection.execute(f"CREATE OR REPLACE TEMP VIEW landed AS {_landed_lines(event, landed.paths)}")
    problems = _problems(event)
    connection.execute(
        f"CREATE OR REPLACE TEMP VIEW readable AS SELECT {_typed_columns(event)} FROM landed WHERE {problems} = ''"
    )
    # Whole rows are never sorted to find duplicates: at 1 M × 2 KB that took 73 s. Only repeated ids are looked at.
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE repeated AS SELECT event_id FROM readable GROUP BY event_id HAVING count(*) > 1"
    )
    names = ", ".join(event.names)
    day_literal = f"DATE {quoted(landed.day.isoformat())} AS {spec.day_column}"
    file = lake.write_day(
        connection,
        spec,
        landed.day,
        f"SELECT {day_literal}, {names} FROM readable ANTI JOIN repeated USING (event_id) UNION ALL "
        f"SELECT {day_literal}, {names} FROM readable SEMI JOIN repeated USING (event_id) "
        "QUALIFY row_number() OVER (PARTITION BY event_id ORDER BY received_at, occurred_at, prediction_id) = 1",
    )
    lines, readable, distinct = _one_row(
        connection,
        "SELECT (SELECT count(*) FROM landed), count(*), count(DISTINCT event_id) FROM readable",
    )
    reasons = {Reason.DUPLICATE_EVENT: readable - distinct, Reason.MALFORMED_EVENT: lines - readable}
    quarantine_file = _quarantine(lake, connection, spec, event, landed) if lines > readable else None
    entry = LedgerEntry(
        asset=spec.name,
        day=landed.day,
        is_closed=landed.is_closed,
        content_hash=landed.content_hash,
        input_hashes={},
        rows_in=lines,
        rows_kept=distinct,
        rows_by_reason={reason.value: count for reason, count in reasons.items() if count},
    )
    return _Ingested(entry, file, quarantine_file)


def _landed_lines(event: pa.Schema, paths: Sequence[Path]) -> str:
    """Every line as one row of text columns; a line that is no JSON object becomes a row of nulls."""
    columns = ", ".join(f"{quoted(name)}: 'VARCHAR'" for name in event.names)
    files = ", ".join(quoted(str(path)) for path in paths)
    return (
        f"SELECT * FROM read_json([{files}], format = 'newline_delimited', columns = {{{columns}}}, "
        f"ignore_errors = true, maximum_object_size = {_MAX_LINE_BYTES})"
    )


def _typed(column: pa.Field) -> str:
    sql_type = _SQL_TYPES[column.type]
    value = column.name if sql_type == "VARCHAR" else f"TRY_CAST({column.name} AS {sql_type})"
    return f"coalesce({value}, {_DEFAULTS[column.name]})" if column.name in _DEFAULTS else value


def _typed_columns(event: pa.Schema) -> str:
    return ", ".join(f"{_typed(column)} AS {column.name}" for column in event)


def _problems(event: pa.Schema) -> str:
    """SQL for a comma-separated list of what is wrong with a line; empty for a readable one."""
    tests = []
    for column in event:
        if not column.nullable and column.name not in _DEFAULTS:
            tests.append(f"CASE WHEN {column.name} IS NULL THEN '{column.name} is missing' END")
        if (sql_type := _SQL_TYPES[column.type]) != "VARCHAR":
            wrong = f"{column.name} IS NOT NULL AND TRY_CAST({column.name} AS {sql_type}) IS NULL"
            tests.append(f"CASE WHEN {wrong} THEN '{column.name} is no {sql_type.lower()}' END")
    return f"concat_ws(', ', {', '.join(tests)})"


_SQL_TYPES = {
    pa.string(): "VARCHAR",
    pa.float64(): "DOUBLE",
    pa.bool_(): "BOOLEAN",
    records.TIMESTAMP: "TIMESTAMPTZ",
}


def _quarantine(
    lake: Lake, connection: duckdb.DuckDBPyConnection, spec: TableSpec, event: pa.Schema, landed: LandedDay
) -> Path | None:
    """Keep the unreadable lines as they are; the line-by-line search is what only a damaged day has to pay for."""
    required = sorted(column.name for column in event if not column.nullable and column.name not in _DEFAULTS)
    incomplete = [
        {
            "day": landed.day,
            "stage": spec.name,
            "row_id": records.stable_id("line", path.name, number),
            "reason": Reason.MALFORMED_EVENT.value,
            "detail": f"{path.name} line {number}: not a JSON object with {', '.join(required)}",
            "payload": line.rstrip(b"\n").decode("utf-8", "replace"),
        }
        for path in landed.paths
        for number, line in enumerate(path.open("rb"), start=1)
        if line.strip() and not _has_required_fields(line, required)
    ]
    connection.register("incomplete", pa.Table.from_pylist(incomplete, schema=records.QUARANTINE))
    problems = _problems(event)
    mistyped = (
        f"SELECT DATE {quoted(landed.day.isoformat())} AS day, {quoted(spec.name)} AS stage, event_id AS row_id, "
        f"{quoted(Reason.MALFORMED_EVENT)} AS reason, {problems} AS detail, NULL AS evidence, NULL AS subject, "
        "NULL AS policy_version, to_json(landed)::VARCHAR AS payload FROM landed "
        f"WHERE {problems} <> '' AND {' AND '.join(f'{name} IS NOT NULL' for name in required)}"
    )
    return lake.write_day(connection, QUARANTINE, landed.day, f"{mistyped} UNION ALL SELECT * FROM incomplete")


def _has_required_fields(line: bytes, required: Sequence[str]) -> bool:
    try:
        event = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return isinstance(event, dict) and all(event.get(name) is not None for name in required)


def _one_row(connection: duckdb.DuckDBPyConnection, query: str) -> tuple[int, ...]:
    row = connection.execute(query).fetchone()
    assert row is not None
    return tuple(int(value) for value in row)
