"""Counts and erases a person's rows, table by table; the rows of other users stay as they are.

Other users' rows change in one way: the person's hash is removed from the `supporters` column.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa

from flywheel_assets.curation.sql_literals import quote
from flywheel_assets.errors import PartitionChangedError
from flywheel_assets.lake.daily.ledger import RunStamp
from flywheel_assets.lake.erasure.person_keys import PersonKeys
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import BREAKER_DAYS, BREAKER_RESETS, ERASURES, EXCLUSIONS, ROLLBACKS, TableSpec

Partition = tuple[date, str | None]
"""A day, and a stage where the table has stages."""
_ATTEMPTS = 3


@dataclass(frozen=True)
class Found:
    """What one partition holds of a person."""

    rows: int
    mentions: int
    """Rows of others that count the person among their supporters."""


def find_rows(
    lake: Lake, spec: TableSpec, person: PersonKeys, snapshot_id: int | None = None
) -> dict[Partition, Found]:
    """Find the partitions that hold rows of the person, in the head or in another snapshot."""
    if not lake.has_table(spec):
        return {}
    own, mention = person.condition(spec), person.mention(spec)
    with lake.connect() as connection:
        person.register(connection)
        lake.register(connection, spec, None, view="whole", snapshot_id=snapshot_id)
        found = connection.execute(
            f"SELECT {spec.day_column}, {spec.stage_column or 'NULL'}, count(*) FILTER ({own}), "
            f"count(*) FILTER (NOT {own} AND {mention}) FROM whole WHERE {own} OR {mention} GROUP BY 1, 2"
        ).fetchall()
    return {(day, stage): Found(rows, mentions) for day, stage, rows, mentions in found}


def read_rows(lake: Lake, spec: TableSpec, person: PersonKeys) -> pa.Table:
    """Read the person's rows in the head."""
    with lake.connect() as connection:
        person.register(connection)
        lake.register(connection, spec, None, view="whole")
        return connection.sql(f"SELECT * FROM whole WHERE {person.condition(spec)}").to_arrow_table()  # type: ignore[no-any-return]


def count_rows(found: dict[Partition, Found]) -> int:
    """Count the person's rows in all partitions."""
    return sum(each.rows for each in found.values())


def write_kept_rows(
    lake: Lake, spec: TableSpec, person: PersonKeys, partition: Partition, snapshot_id: int | None = None
) -> Path | None:
    """Write one partition without the person to a local file; return None where nothing stays."""
    day, stage = partition
    with lake.connect() as connection:
        person.register(connection)
        lake.register(connection, spec, [day], view="whole", snapshot_id=snapshot_id)
        of_stage = f"{spec.stage_column} = {quote(stage)} AND " if stage is not None else ""
        query = f"SELECT {person.kept_columns(spec)} FROM whole WHERE {of_stage}NOT {person.condition(spec)}"
        return lake.write_day(connection, spec, day, query)


def erase_head(
    lake: Lake,
    spec: TableSpec,
    person: PersonKeys,
    stamp: RunStamp,
    on_touched: Callable[[TableSpec, dict[Partition, int]], None],
) -> int:
    """Rewrite the head's partitions that hold something of the person; returns how many rows went.

    Args:
        lake: the application's tables.
        spec: the table.
        person: keys of what the person left.
        stamp: who writes.
        on_touched: gets the partitions, and how many rows each is about to lose, before they change, so that the
            next run finishes a killed one.

    Raises:
        PartitionChangedError: other writers wrote the person's rows again each time.
    """
    removed = 0
    # Daily steps wait. Rows that a writer without our lock adds meanwhile stay, and are looked at again.
    for _ in range(_ATTEMPTS):
        found = find_rows(lake, spec, person)
        if not found:
            break
        on_touched(spec, {partition: each.rows for partition, each in found.items()})
        for stage in sorted({stage for _, stage in found}, key=str):
            days = sorted(day for day, of in found if of == stage)
            seen = lake.files_of(spec, days, stage)
            files = {day: write_kept_rows(lake, spec, person, (day, stage)) for day in days}
            kept = {day: file for day, file in files.items() if file is not None}
            try:
                lake.replace_days(spec, days, kept, stamp.properties, stage, seen)
            except PartitionChangedError:
                for file in kept.values():
                    file.unlink()
                continue
            removed += sum(found[day, stage].rows for day in days)
    else:
        if find_rows(lake, spec, person):
            raise PartitionChangedError(f"{spec.name}: a run keeps writing rows to erase; let it end, then repeat")
    return removed


def forget_in_decisions(lake: Lake, person: PersonKeys, erasure: str, stamp: RunStamp) -> int:
    """Rewrite the decisions that name the person; return how many rows did.

    A rule about this user gets an alias instead of the user id, and covers no row: all are gone. Reasons stay,
    without the user id. The breaker's examples of rows that are gone are dropped.
    """
    alias = f"erased:{erasure}"
    # Not within a longer word: the user "a" is in every reason.
    named = re.compile(rf"(?<!\w){re.escape(person.user_id)}(?!\w)")

    def reworded(reason: str | None) -> str | None:
        return reason if reason is None else named.sub(alias, reason)

    def renamed(user: str | None) -> str | None:
        return alias if user == person.user_id else user

    def without_examples(trips: str) -> str:
        found = json.loads(trips)
        for trip in found:
            trip["examples"] = [event for event in trip["examples"] if event not in person.event_ids]
        return json.dumps(found)

    changes: tuple[tuple[TableSpec, str, Callable[[Any], Any]], ...] = (
        (EXCLUSIONS, "user_id", renamed),
        (EXCLUSIONS, "reason", reworded),
        (ROLLBACKS, "reason", reworded),
        (BREAKER_RESETS, "reason", reworded),
        (ERASURES, "reason", reworded),
        (BREAKER_DAYS, "trips", without_examples),
    )
    return sum(_changed(lake, spec, column, change, stamp) for spec, column, change in changes)


def _changed(lake: Lake, spec: TableSpec, column: str, change: Callable[[Any], Any], stamp: RunStamp) -> int:
    if not lake.has_table(spec):
        return 0

    def rewrite(rows: pa.Table) -> pa.Table:
        position = rows.schema.get_field_index(column)
        values = pa.array([change(value) for value in rows[column].to_pylist()], pa.string())
        return rows.set_column(position, rows.schema.field(position), values)

    before = lake.read(spec)
    pairs = zip(before[column].to_pylist(), rewrite(before)[column].to_pylist(), strict=True)
    differing = sum(bool(old != new) for old, new in pairs)
    if differing:
        lake.replace_all(spec, rewrite, stamp.properties)
    return differing
