"""Reads landed segments: each line is one event of exactly the expected columns and types, or it is refused.

One decoder decides about every line, so that what is kept and what is refused always add up: a second reader with a
slightly different idea of JSON (lone surrogates, numbers for texts, two objects on a line) would lose lines between.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pyarrow as pa

from flywheel_assets import records
from flywheel_assets.lake.daily.landed_files import LandedFile

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


def read_lines(segments: Sequence[Path], into: LandedFile) -> ReadLines:
    """Write the events of JSON-lines files into the file of their day, in landed order; blank lines are no lines."""
    readers = [(column, attrgetter(column.name)) for column in into.event]
    refused: list[RefusedLine] = []
    for events in _batches(segments, into.event, refused):
        columns = [pa.array(list(map(value_of, events)), column.type) for column, value_of in readers]
        into.write(pa.record_batch(columns, schema=into.event))
    return ReadLines(into.rows, tuple(refused))


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
