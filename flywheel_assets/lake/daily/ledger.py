"""Keeps the ledger, each asset's account of each day, and audits it: kept + dropped = input for every partition.

The ledger answers questions that Dagster cannot. A day with zero rows leaves no Iceberg partition, and an erasure, a
rollback or a trim changes days without a run, so that Dagster's data versions are the content hashes of each day's
last run only. The ledger's row is written after the partition's commit: a crash in between leaves the older row, whose
inputs then differ, and the next run replaces both.

The audit compares the ledger with the rows that Iceberg holds, by metadata alone, so that the check of all partitions
costs about as much as the check of one.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime, timedelta

import duckdb
import pyarrow as pa

from flywheel_assets import records
from flywheel_assets.curation.arrow import values_of
from flywheel_assets.curation.sql_literals import quote
from flywheel_assets.errors import MissingInputError
from flywheel_assets.lake.storage.duckdb_engine import connect
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import (
    CURATED_DPO_PAIRS,
    GROUND_TRUTH,
    HARD_EXAMPLES,
    JOINED_FEEDBACK,
    LEDGER,
    QUARANTINE,
    RAW_PREDICTIONS,
    TableSpec,
)
from flywheel_assets.records import CURATION_STAGE, Reason

_DIGEST = """md5(replace(replace(to_json(hashed)::VARCHAR, ',"scores":null', ''), ',"label_class":null', ''))"""
"""Of one row of the view `hashed`: both hashes of a day are made of it. The columns of several classes came later: left
out where they are null, they change no hash of two classes."""
_OF_NO_ROWS = hashlib.md5(b"", usedforsecurity=False).hexdigest()
"""The hash of no rows by the statement of `hash_content`: most days of a range are empty."""
# Counted in the ledger only: a duplicate's first receipt is kept, a row without its prediction is still in the raw
# table, rows that were rolled back are under the tag of the old head.
NOT_QUARANTINED = {
    Reason.DUPLICATE_EVENT.value,
    Reason.ERASED.value,
    Reason.TRIMMED.value,
    Reason.WAITING_FOR_PREDICTION.value,
    Reason.ROLLED_BACK.value,
    Reason.LABELLED.value,
    Reason.BLOCKED.value,
    Reason.SILENCE_UNKNOWN.value,
    Reason.NOT_SAMPLED.value,
}
STAGE_OF = {
    RAW_PREDICTIONS.name: RAW_PREDICTIONS.name,
    GROUND_TRUTH.name: GROUND_TRUTH.name,
    JOINED_FEEDBACK.name: JOINED_FEEDBACK.name,
    CURATED_DPO_PAIRS.name: CURATION_STAGE,
    HARD_EXAMPLES.name: HARD_EXAMPLES.name,
}


@dataclass(frozen=True)
class RunStamp:
    """Names the run that writes: recorded in snapshots' summaries and in the ledger."""

    run_id: str
    code_version: str
    now: datetime

    @property
    def properties(self) -> dict[str, str]:
        """Properties for an Iceberg snapshot's summary."""
        return {"flywheel.run-id": self.run_id, "flywheel.code-version": self.code_version}


@dataclass(frozen=True)
class LedgerEntry:
    """Holds one asset's account of one day: `rows_in == rows_kept + sum(rows_by_reason)`."""

    asset: str
    day: date
    is_closed: bool
    content_hash: str
    input_hashes: Mapping[str, str]
    rows_in: int
    rows_kept: int
    rows_by_reason: Mapping[str, int]
    rows_held: int = 0
    """Waiting rows: not kept, but in the partition, until other users support them."""
    rows_stated: int = 0
    """Statements: rows that are neither kept nor wait, and lie in the partition for what they say."""

    @property
    def rows_in_partition(self) -> int:
        """Return the number of rows that the partition holds."""
        return self.rows_kept + self.rows_held + self.rows_stated

    @property
    def balance(self) -> int:
        """Rows that vanished (positive) or appeared (negative); anything but zero is a defect."""
        return self.rows_in - self.rows_kept - sum(self.rows_by_reason.values())


@dataclass(frozen=True)
class ClosedDay:
    """Holds the facts of a closed day's entry that the trigger and a version's pin read."""

    content_hash: str
    rows_kept: int
    rows_held: int


def record_entries(lake: Lake, entries: Sequence[LedgerEntry], stamp: RunStamp) -> None:
    """Write entries in place of those of the same asset and day."""
    rows = pa.Table.from_pylist(
        [
            {
                "asset": entry.asset,
                "day": entry.day,
                "is_closed": entry.is_closed,
                "content_hash": entry.content_hash,
                "input_hashes": json.dumps(dict(entry.input_hashes), sort_keys=True),
                "rows_in": entry.rows_in,
                "rows_kept": entry.rows_kept,
                "rows_by_reason": json.dumps(dict(entry.rows_by_reason), sort_keys=True),
                "rows_held": entry.rows_held,
                "run_id": stamp.run_id,
                "code_version": stamp.code_version,
                "recorded_at": stamp.now,
                "rows_stated": entry.rows_stated,
            }
            for entry in entries
        ],
        schema=records.LEDGER,
    )

    def merge(existing: pa.Table) -> pa.Table:
        with lake.connect() as connection:
            connection.register("existing", existing)
            connection.register("fresh", rows)
            return connection.sql(  # type: ignore[no-any-return]
                "SELECT * FROM existing ANTI JOIN fresh USING (asset, day) UNION ALL SELECT * FROM fresh "
                "ORDER BY asset, day"
            ).to_arrow_table()

    lake.replace_all(LEDGER, merge, stamp.properties)


def read_entries(lake: Lake, asset: str, days: Iterable[date] | None = None) -> dict[date, LedgerEntry]:
    """Read one asset's entries by day, ascending; `days=None` gives all of them."""
    wanted = None if days is None else set(days)
    rows = lake.read(LEDGER, where=f"asset = {quote(asset)}")
    entries = {
        row["day"]: LedgerEntry(
            asset=row["asset"],
            day=row["day"],
            is_closed=row["is_closed"],
            content_hash=row["content_hash"],
            input_hashes=json.loads(row["input_hashes"]),
            rows_in=row["rows_in"],
            rows_kept=row["rows_kept"],
            rows_by_reason=json.loads(row["rows_by_reason"]),
            rows_held=row["rows_held"],
            rows_stated=row["rows_stated"] or 0,
        )
        for row in rows.to_pylist()
        if wanted is None or row["day"] in wanted
    }
    return dict(sorted(entries.items()))


def sum_by_reason(entries: Iterable[LedgerEntry]) -> dict[str, int]:
    """Return the rows not kept, by reason, over several days."""
    total: Counter[str] = Counter()
    for entry in entries:
        total.update(entry.rows_by_reason)
    return dict(total)


def read_closed_days(lake: Lake, asset: str) -> dict[date, str]:
    """Read every closed day of an asset with its content hash, ascending."""
    return {day: each.content_hash for day, each in read_closed_accounts(lake, asset).items()}


def read_closed_accounts(lake: Lake, asset: str) -> dict[date, ClosedDay]:
    """Read every closed day of an asset, ascending; ten years take some 20 ms, since no JSON is read."""
    columns = ["asset", "day", "is_closed", *(each.name for each in fields(ClosedDay))]
    rows = lake.read(LEDGER, columns=columns, where=f"asset = {quote(asset)} AND is_closed").sort_by("day")
    values = (rows[each.name].to_pylist() for each in fields(ClosedDay))
    return dict(zip(values_of(rows["day"]), map(ClosedDay, *values), strict=True))


def hash_closed_days(lake: Lake, asset: str) -> str:
    """Return one hash of all closed days of an asset and of their contents."""
    with lake.connect() as connection:
        lake.register(connection, LEDGER, columns=["asset", "day", "is_closed", "content_hash"])
        found = connection.execute(
            "SELECT md5(coalesce(string_agg(day || ' ' || content_hash, ',' ORDER BY day), '')) FROM ledger "
            f"WHERE asset = {quote(asset)} AND is_closed"
        ).fetchone()
    assert found is not None
    return str(found[0])


def require_entries(lake: Lake, asset: str, days: Sequence[date]) -> dict[date, LedgerEntry]:
    """Read the entries of `days`, all of them.

    Raises:
        MissingInputError: a day was never materialized; the message names the first and the command that makes it.
    """
    entries = read_entries(lake, asset, days)
    missing = [day for day in days if day not in entries]
    if missing:
        raise MissingInputError(
            f"{lake.application}/{asset} was never materialized for {len(missing)} of {len(days)} days, first "
            f"{missing[0]}. Materialize them, for instance with `flywheel backfill {missing[0]} {missing[-1]} "
            f"--application {lake.application}`."
        )
    return entries


def hash_window(entries: Mapping[date, LedgerEntry], days: Iterable[date]) -> str:
    """Return one hash of an input's contents over a window of days.

    A day that was never materialized is a content of its own, unlike an empty day.
    """
    contents = [(day.isoformat(), entries[day].content_hash if day in entries else None) for day in sorted(days)]
    return records.make_stable_id("window", contents)


def find_stale_days(lake: Lake, asset: str, lookback_days: Mapping[str, int], start: date) -> dict[date, list[str]]:
    """Find the days of `asset` whose inputs have changed since, with the names of those inputs.

    Args:
        lake: the application's tables.
        asset: the asset whose days are checked.
        lookback_days: per input asset how many days before D partition D reads (0: only D).
        start: the application's first day; no window reaches behind it.
    """
    current = {name: read_entries(lake, name) for name in lookback_days}
    stale: dict[date, list[str]] = {}
    for day, entry in read_entries(lake, asset).items():
        changed = [
            name
            for name, lookback in lookback_days.items()
            if entry.input_hashes.get(name)
            != hash_window(current[name], list_days(max(start, day - timedelta(days=lookback)), day))
        ]
        if changed:
            stale[day] = changed
    return stale


def hash_content(rows: pa.Table, connection: duckdb.DuckDBPyConnection | None = None) -> str:
    """Return a hash of a partition's rows that does not depend on their order.

    Without `connection` it opens one, which costs 15 ms.
    """
    if not rows.num_rows:
        return _OF_NO_ROWS
    if connection is None:
        with connect() as own:
            return hash_content(rows, own)
    connection.register("hashed", rows)
    # `fetchall`, though there is one row: a result that is still open blocks the connection.
    ((found,),) = connection.execute(
        "SELECT md5(coalesce(string_agg(digest, '' ORDER BY digest), '')) "
        f"FROM (SELECT {_DIGEST} AS digest FROM hashed)"
    ).fetchall()
    return str(found)


def hash_days(rows: Mapping[date, pa.Table], day_column: str, connection: duckdb.DuckDBPyConnection) -> dict[date, str]:
    """Return the `hash_content` of each of several days, by one statement.

    Args:
        rows: the days' partitions, in the columns of one table.
        day_column: holds the day of each row.
        connection: to compute with.
    """
    filled = [each for each in rows.values() if each.num_rows]
    hashes = dict.fromkeys(rows, _OF_NO_ROWS)
    if filled:
        connection.register("hashed", pa.concat_tables(filled))
        found = connection.execute(
            f"SELECT {day_column}, md5(string_agg(digest, '' ORDER BY digest)) "
            f"FROM (SELECT {day_column}, {_DIGEST} AS digest FROM hashed) GROUP BY {day_column}"
        ).fetchall()
        hashes |= dict(found)
    return hashes


def list_days(first: date, last: date) -> list[date]:
    """List every day from `first` to `last`, both included; empty when `last` is earlier."""
    return [first + timedelta(days=i) for i in range((last - first).days + 1)]


@dataclass(frozen=True)
class Discrepancy:
    """Names one partition whose rows do not add up."""

    day: date
    what: str


@dataclass(frozen=True)
class Accounts:
    """Sums the accounts of one asset over all its days."""

    days: int
    rows_in: int
    rows_kept: int
    discrepancies: tuple[Discrepancy, ...]


def audit_accounts(lake: Lake, spec: TableSpec) -> Accounts:
    """Compare each day's ledger entry with the rows in its partition and in quarantine, and with itself."""
    entries = read_entries(lake, spec.name)
    kept = lake.count_rows_per_day(spec)
    refused = lake.count_rows_per_day(QUARANTINE, STAGE_OF[spec.name])
    found: list[Discrepancy] = []
    for day, entry in entries.items():
        quarantined = sum(rows for reason, rows in entry.rows_by_reason.items() if reason not in NOT_QUARANTINED)
        in_table, in_quarantine = kept.get(day, 0), refused.get(day, 0)
        if entry.balance:
            not_kept = sum(entry.rows_by_reason.values())
            found.append(Discrepancy(day, f"{entry.rows_in} in, {entry.rows_kept} kept, {not_kept} not kept"))
        if in_table != entry.rows_in_partition:
            others = ((entry.rows_held, "waiting"), (entry.rows_stated, "stated"))
            more = "".join(f" and {rows} {what}" for rows, what in others if rows)
            found.append(Discrepancy(day, f"the ledger says {entry.rows_kept} kept{more}, the table holds {in_table}"))
        if in_quarantine != quarantined:
            found.append(Discrepancy(day, f"the ledger says {quarantined} refused, quarantine holds {in_quarantine}"))
    unknown = sorted(set(kept) - set(entries))
    found.extend(Discrepancy(day, f"{kept[day]} rows without a ledger entry") for day in unknown)
    return Accounts(
        days=len(entries),
        rows_in=sum(entry.rows_in for entry in entries.values()),
        rows_kept=sum(entry.rows_kept for entry in entries.values()),
        discrepancies=tuple(found),
    )


def describe_discrepancies(discrepancies: Sequence[Discrepancy], limit: int = 5) -> str:
    """Return the first few discrepancies in one sentence."""
    shown = "; ".join(f"{each.day}: {each.what}" for each in discrepancies[:limit])
    more = len(discrepancies) - limit
    return shown + (f"; and {more} more" if more > 0 else "")
