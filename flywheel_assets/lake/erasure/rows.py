"""A person's rows in one table, counted and taken out of their partitions; what others wrote stays as it was.

One thing of others changes: the hashes of all who said the same, which gold keeps beside a row, lose the person's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pyarrow as pa

from flywheel_assets.curation.sql_literals import quote
from flywheel_assets.errors import PartitionChangedError
from flywheel_assets.lake.daily.ledger import RunStamp
from flywheel_assets.lake.erasure.person_keys import Traces
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import TableSpec

Partition = tuple[date, str | None]
"""A day, and a stage where the table has stages."""
_ATTEMPTS = 3


@dataclass(frozen=True)
class Found:
    """What one partition holds of a person."""

    rows: int
    mentions: int
    """Rows of others that count the person among their supporters."""


def find_rows(lake: Lake, spec: TableSpec, traces: Traces, snapshot_id: int | None = None) -> dict[Partition, Found]:
    """The partitions that hold something of the person, in the head or in another snapshot."""
    if not lake.has_table(spec):
        return {}
    own, mention = traces.condition(spec), traces.mention(spec)
    with lake.connect() as connection:
        traces.register(connection)
        lake.register(connection, spec, None, view="whole", snapshot_id=snapshot_id)
        found = connection.execute(
            f"SELECT {spec.day_column}, {spec.stage_column or 'NULL'}, count(*) FILTER ({own}), "
            f"count(*) FILTER (NOT {own} AND {mention}) FROM whole WHERE {own} OR {mention} GROUP BY 1, 2"
        ).fetchall()
    return {(day, stage): Found(rows, mentions) for day, stage, rows, mentions in found}


def read_rows(lake: Lake, spec: TableSpec, traces: Traces) -> pa.Table:
    """The person's rows in the head."""
    with lake.connect() as connection:
        traces.register(connection)
        lake.register(connection, spec, None, view="whole")
        return connection.sql(f"SELECT * FROM whole WHERE {traces.condition(spec)}").to_arrow_table()


def total(found: dict[Partition, Found]) -> int:
    """The person's rows in all partitions."""
    return sum(each.rows for each in found.values())


def kept_file(
    lake: Lake, spec: TableSpec, traces: Traces, partition: Partition, snapshot_id: int | None = None
) -> Path | None:
    """One partition without the person, as a local file; None where nothing stays."""
    day, stage = partition
    with lake.connect() as connection:
        traces.register(connection)
        lake.register(connection, spec, [day], view="whole", snapshot_id=snapshot_id)
        of_stage = f"{spec.stage_column} = {quote(stage)} AND " if stage is not None else ""
        query = f"SELECT {traces.kept_columns(spec)} FROM whole WHERE {of_stage}NOT {traces.condition(spec)}"
        return lake.write_day(connection, spec, day, query)


def erase_head(
    lake: Lake,
    spec: TableSpec,
    traces: Traces,
    stamp: RunStamp,
    on_touched: Callable[[TableSpec, dict[Partition, int]], None],
) -> int:
    """Rewrite the head's partitions that hold something of the person; returns how many rows went.

    Args:
        lake: the application's tables.
        spec: the table.
        traces: of the person.
        stamp: who writes.
        on_touched: is told of partitions, and how many rows each is about to lose, before they change, so that a run
            that was killed is finished by the next.

    Raises:
        PartitionChangedError: others wrote the person's rows again each time.
    """
    removed = 0
    # Daily steps wait. What somebody writes all the same between our read and our commit stays, and is looked at again.
    for _ in range(_ATTEMPTS):
        found = find_rows(lake, spec, traces)
        if not found:
            break
        on_touched(spec, {partition: each.rows for partition, each in found.items()})
        for stage in sorted({stage for _, stage in found}, key=str):
            days = sorted(day for day, of in found if of == stage)
            seen = lake.files_of(spec, days, stage)
            files = {day: kept_file(lake, spec, traces, (day, stage)) for day in days}
            kept = {day: file for day, file in files.items() if file is not None}
            try:
                lake.replace_days(spec, days, kept, stamp.properties(), stage, seen)
            except PartitionChangedError:
                for file in kept.values():
                    file.unlink()
                continue
            removed += sum(found[day, stage].rows for day in days)
    else:
        if find_rows(lake, spec, traces):
            raise PartitionChangedError(f"{spec.name}: a run keeps writing rows to erase; let it end, then repeat")
    return removed
