"""Groups small days, so that a step pays once for many of them what it pays whatever the rows.

A query costs 5 to 20 ms of CPU and a pass of the gate's policy 40 ms, however few rows it has. Five years of twenty
rows a day spent most of their backfill on that. A large day is a group of its own: it alone bounds memory.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date

import pyarrow as pa

from flywheel_assets.lake.tables.specs import PlannedFile, TableSpec

MOST_ROWS = 16_384
"""Rows of a group of several days: the gate judges so many in one batch (`gate.FEWEST_ROWS_AT_ONCE`)."""
MOST_BYTES = 8 * 2**20
"""Compressed bytes that a group of several days reads."""


def group_days(days: Sequence[date], rows: Mapping[date, int], read: Mapping[date, int]) -> Iterator[list[date]]:
    """Group days in their order, up to `MOST_ROWS` and `MOST_BYTES`.

    Args:
        days: to group.
        rows: of each day.
        read: bytes of the files that each day reads.
    """
    group: list[date] = []
    total_rows, total_bytes = 0, 0
    for day in days:
        total_rows, total_bytes = total_rows + rows[day], total_bytes + read[day]
        if group and (total_rows > MOST_ROWS or total_bytes > MOST_BYTES):
            yield group
            group, total_rows, total_bytes = [], rows[day], read[day]
        group.append(day)
    if group:
        yield group


def count_bytes(planned: Mapping[date, Sequence[PlannedFile]], days: Sequence[date]) -> int:
    """Count the bytes of the planned files of some days."""
    return sum(file.bytes for day in days for file in planned.get(day, ()))


def part_by_day(rows: pa.Table, spec: TableSpec, days: Sequence[date]) -> dict[date, pa.Table]:
    """Part a group's rows of `spec` by day, each in the table's order.

    A group of one day keeps the order that it has.
    """
    if len(days) == 1:
        return {days[0]: rows}
    assert spec.day_column is not None
    ordered = rows.sort_by([(name, "ascending") for name in (spec.day_column, *spec.order_by)])
    counted = ordered.group_by(spec.day_column).aggregate([([], "count_all")]).to_pylist()
    counts = {each[spec.day_column]: each["count_all"] for each in counted}
    parts: dict[date, pa.Table] = {}
    start = 0
    for day in sorted(days):
        parts[day] = ordered.slice(start, counts.get(day, 0))
        start += counts.get(day, 0)
    assert start == rows.num_rows
    return parts
