"""Reads landed segments: each line is one event of exactly the expected columns and types, or it is refused.

One decoder decides about every line, so that what is kept and what is refused always add up: a second reader with a
slightly different idea of JSON (lone surrogates, numbers for texts, two objects on a line) would lose lines between.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from flywheel_assets import records

POSITION = "landed_position"
"""Counts the events of a day in the order of their segments and lines."""
_ROWS_AT_ONCE = 8192
_BYTES_AT_ONCE = 32 * 2**20
_TYPES: dict[pa.DataType, Any] = {
    pa.string(): str,
    pa.float64(): float,
    pa.bool_(): bool,
    records.TIMESTAMP: Annotated[datetime, msgspec.Meta(tz=True)],
}
# Columns that are never null in a table but may be left out of a line.
_DEFAULTS: dict[str, object] = {"do_not_train": False, "sampling_probability": 1.0}


@dataclass(frozen=True)
class RefusedLine:
    """A line that is no event."""

    segment: str
    number: int
    event_id: str | None
    """Where the line is an object that has one."""
    problem: str
    """What is wrong with it, without its text."""
    line: str
    """The line itself; bytes that are no UTF-8 replaced."""


@dataclass(frozen=True)
class ReadLines:
    """What `read_lines` found."""

    events: int
    refused: tuple[RefusedLine, ...]


def read_lines(segments: Sequence[Path], event: pa.Schema, readable: Path) -> ReadLines:
    """Write the events of `segments` into the Parquet file `readable`, in landed order; blank lines are no lines.

    Args:
        segments: JSON-lines files.
        event: `records.PREDICTION_EVENT` or `records.FEEDBACK_EVENT`; `readable` has these columns and `POSITION`.
        readable: is created, also when there is no event.
    """
    schema = event.append(pa.field(POSITION, pa.int64(), nullable=False))
    readable.parent.mkdir(parents=True, exist_ok=True)
    readers = [(column, attrgetter(column.name)) for column in event]
    refused: list[RefusedLine] = []
    written = 0
    # Only the next step reads this file: cheap compression, no statistics, no dictionary.
    with (
        pq.ParquetWriter(readable, schema, compression="lz4", use_dictionary=False, write_statistics=False) as writer,
        ThreadPoolExecutor(1) as beside,
    ):
        writing: Future[None] | None = None
        for events in _batches(segments, event, refused):
            columns = [pa.array(list(map(value_of, events)), column.type) for column, value_of in readers]
            positions = pa.array(range(written, written + len(events)), pa.int64())
            written += len(events)
            # One batch is compressed while the next is decoded, and no more than these two are in memory.
            if writing is not None:
                writing.result()
            writing = beside.submit(writer.write_batch, pa.record_batch([*columns, positions], schema=schema))
        if writing is not None:
            writing.result()
    return ReadLines(written, tuple(refused))


def _batches(segments: Sequence[Path], event: pa.Schema, refused: list[RefusedLine]) -> Iterator[list[msgspec.Struct]]:
    decoder = _decoder(event)
    batch: list[msgspec.Struct] = []
    size = 0
    for segment in segments:
        with open(segment, "rb") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    batch.append(decoder.decode(line))
                except (msgspec.DecodeError, UnicodeDecodeError) as error:
                    if line.strip():
                        refused.append(_refused(segment.name, number, line, error))
                    continue
                size += len(line)
                if len(batch) >= _ROWS_AT_ONCE or size >= _BYTES_AT_ONCE:
                    yield batch
                    batch, size = [], 0
    if batch:
        yield batch


def _refused(segment: str, number: int, line: bytes, error: Exception) -> RefusedLine:
    try:
        found = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        found = None
    event_id = found.get("event_id") if isinstance(found, dict) else None
    return RefusedLine(
        segment=segment,
        number=number,
        event_id=event_id if isinstance(event_id, str) else None,
        # A decoding error of Unicode quotes the bytes, which are user text.
        problem="not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error),
        line=line.rstrip(b"\n").decode("utf-8", "replace"),
    )


@cache
def _decoder(event: pa.Schema) -> msgspec.json.Decoder[msgspec.Struct]:
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    for column in event:
        kind = _TYPES[column.type]
        if column.nullable:
            fields.append((column.name, kind | None, None))
        elif column.name in _DEFAULTS:
            fields.append((column.name, kind, _DEFAULTS[column.name]))
        else:
            fields.append((column.name, kind))
    return msgspec.json.Decoder(msgspec.defstruct("LandedEvent", fields, kw_only=True, gc=False))
