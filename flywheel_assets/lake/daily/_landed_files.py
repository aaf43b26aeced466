"""Decodes landed segments and writes the file of a raw partition meanwhile, in landed order.

Each line is one event of exactly the expected columns and types, or it is refused. One decoder decides about every
line, so that kept and refused lines always add up: a second reader with a slightly different idea of JSON (lone
surrogates, numbers for texts, two objects on a line) would lose lines between.

Nothing needs whole rows sorted, and to sort them was half of the time of ingestion (docs/adr/0023). A reader of a few
rows finds their numbers by the key columns and reads only the row groups that hold them.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Self

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from flywheel_assets import records
from flywheel_assets.lake.storage.failures import remember_file
from flywheel_assets.lake.tables.specs import TableSpec

_SELDOM_REPEATED = {"event_id", "prediction_id", "features"}
_TEXTS = {
    *("prompt", "output", "original_output", "final_text", "comment"),
    *("tools", "output_message", "original_message", "final_message"),
}
"""Their bounds would be beginnings of users' texts, and no query asks for them."""
_ROWS_AT_ONCE = 8192
_BYTES_AT_ONCE = 32 * 2**20
_TYPES: dict[pa.DataType, Any] = {
    pa.string(): str,
    pa.float64(): float,
    pa.int64(): int,
    pa.bool_(): bool,
    records.TIMESTAMP: Annotated[datetime, msgspec.Meta(tz=True)],
}
# Columns that are never null in a table but may be left out of a line.
_DEFAULTS: dict[str, object] = {"do_not_train": False, "sampling_probability": 1.0}


class LandedFile:
    """Writes a Parquet file of one day's events; one batch is compressed while the caller makes the next."""

    def __init__(self, path: Path, spec: TableSpec, day: date) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        remember_file(path)
        self.path = path
        self.rows = 0
        self.event = pa.schema([column for column in spec.schema if column.name != spec.day_column])
        """The columns of the batches that are written, without the partition's day."""
        self._spec, self._day = spec, day
        self._compressor = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None
        columns = spec.schema.names
        self._writer = pq.ParquetWriter(
            path,
            spec.schema,
            compression="zstd",
            # In a row group of some hundred rows a dictionary of texts would hold each of them once, plus its index.
            use_dictionary=[  # type: ignore[arg-type]
                name
                for name in columns
                if name not in _SELDOM_REPEATED | _TEXTS and spec.schema.field(name).type in (pa.string(), pa.date32())
            ],
            write_statistics=[name for name in columns if name not in _TEXTS],
        )

    def write(self, events: pa.RecordBatch) -> None:
        """Add events, in columns `event`."""
        day = pa.repeat(pa.scalar(self._day, pa.date32()), events.num_rows)
        arrays = [day if name == self._spec.day_column else events.column(name) for name in self._spec.schema.names]
        self.rows += events.num_rows
        # No more than two batches are in memory.
        self._wait()
        self._writing = self._compressor.submit(
            self._writer.write_batch, pa.record_batch(arrays, schema=self._spec.schema), self._spec.row_group_rows
        )

    def _wait(self) -> None:
        if self._writing is not None:
            self._writing.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, failed: type[BaseException] | None, _error: BaseException | None, _: TracebackType | None
    ) -> None:
        try:
            if failed is None:
                self._wait()
        finally:
            self._compressor.shutdown()
            self._writer.close()


def remove_rows(source: Path, numbers: npt.NDArray[np.int64], spec: TableSpec, day: date, target: Path) -> Path:
    """Write the day without the rows of these numbers, and return its file.

    Without numbers `source` is returned as it is. Otherwise `source`, which only the caller knows, is deleted.

    Args:
        source: a file that `LandedFile` wrote.
        numbers: of rows, from 0.
        spec: the table.
        day: the partition.
        target: the file to write if a row is left out.
    """
    if not len(numbers):
        return source
    first = 0
    # Buffering ahead would hold as much of the file as there is memory for.
    with pq.ParquetFile(source, pre_buffer=False) as landed, LandedFile(target, spec, day) as file:
        stays = np.ones(landed.metadata.num_rows, bool)
        stays[numbers] = False
        for batch in landed.iter_batches(_ROWS_AT_ONCE, columns=file.event.names):
            file.write(batch.filter(pa.array(stays[first : first + batch.num_rows])))
            first += batch.num_rows
    source.unlink()
    return target


@dataclass(frozen=True)
class RefusedLine:
    """Describes a line that is no event."""

    segment: str
    number: int
    event_id: str | None
    """None unless the line is an object that has one."""
    problem: str
    """The decoding error, without text of the line."""
    line: str
    """The line itself; bytes that are no UTF-8 replaced."""


@dataclass(frozen=True)
class ReadLines:
    """Holds the result of `read_lines`."""

    events: int
    refused: tuple[RefusedLine, ...]


def read_lines(segments: Sequence[Path], into: LandedFile) -> ReadLines:
    """Write the events of JSON-lines files into the file of their day, in landed order; skip blank lines."""
    readers = [(column, attrgetter(column.name)) for column in into.event]
    refused: list[RefusedLine] = []
    for events in _read_batches(segments, into.event, refused):
        columns = [pa.array(list(map(value_of, events)), column.type) for column, value_of in readers]
        into.write(pa.record_batch(columns, schema=into.event))
    return ReadLines(into.rows, tuple(refused))


def _read_batches(
    segments: Sequence[Path], event: pa.Schema, refused: list[RefusedLine]
) -> Iterator[list[msgspec.Struct]]:
    decoder = _build_decoder(event)
    batch: list[msgspec.Struct] = []
    size = 0
    for segment in segments:
        with open(segment, "rb") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    batch.append(decoder.decode(line))
                except (msgspec.DecodeError, UnicodeDecodeError) as error:
                    if line.strip():
                        refused.append(_describe_refused_line(segment.name, number, line, error))
                    continue
                size += len(line)
                if len(batch) >= _ROWS_AT_ONCE or size >= _BYTES_AT_ONCE:
                    yield batch
                    batch, size = [], 0
    if batch:
        yield batch


def _describe_refused_line(segment: str, number: int, line: bytes, error: Exception) -> RefusedLine:
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
def _build_decoder(event: pa.Schema) -> msgspec.json.Decoder[msgspec.Struct]:
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
