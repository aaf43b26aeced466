"""Reads Parquet by batches of rows, nested columns too."""

import math
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, BinaryIO

from flywheel_assets.formats.reading.entries import Entry

if TYPE_CHECKING:
    import pyarrow as pa

MAGIC = b"PAR1"


def read_parquet(stream: BinaryIO, rows_at_once: int) -> Iterator[Entry]:
    """Read the rows; numbers are those of the rows. A stream without positions is copied to a nameless file first.

    Memory is bounded by the pages of one row group: columns are read through small buffers.

    Raises:
        OSError: the file is torn.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with ExitStack() as copies:
        if not stream.seekable():
            copy = copies.enter_context(tempfile.TemporaryFile())
            shutil.copyfileobj(stream, copy)
            copy.seek(0)
            stream = copy
        try:
            yield from _read_batches(pq.ParquetFile(stream, pre_buffer=False, buffer_size=2**20), rows_at_once, pa)
        except pa.ArrowException as error:
            raise OSError(str(error)) from None


def _read_batches(file: Any, rows_at_once: int, pa: Any) -> Iterator[Entry]:
    number = 0
    names = [each.name for each in file.schema_arrow if not each.name.startswith("__index_level_")]
    odd = {each.name for each in file.schema_arrow if _needs_cleaning(each.type, pa)}
    for batch in file.iter_batches(batch_size=rows_at_once, columns=names, use_threads=False):
        for row in batch.to_pylist(maps_as_pydicts="lossy"):
            number += 1
            for name in odd:
                row[name] = _clean(row[name])
            yield Entry(number, row)


def _needs_cleaning(kind: "pa.DataType", pa: Any) -> bool:
    is_right = pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind)
    return not (is_right or pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _clean(value: Any) -> Any:
    """Return a value as JSON has it: NaN becomes null; times stay."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _clean(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_clean(each) for each in value]
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, datetime):  # of nanoseconds: the one of pandas, which JSON does not know
        return value.to_pydatetime(warn=False) if hasattr(value, "to_pydatetime") else value
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    return value
