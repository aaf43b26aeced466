"""The file of a raw partition: written while its segments are decoded, in the order in which they landed.

Nothing needs whole rows sorted, and sorting them was half of what ingestion took (docs/adr/0023). Whoever looks for a
few rows finds their numbers by the key columns and reads only the row groups that hold them.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from datetime import date
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from flywheel_assets.lake.storage.failures import remember_file
from flywheel_assets.lake.tables.specs import TableSpec

_SELDOM_REPEATED = {"event_id", "prediction_id", "features"}
_TEXTS = {"prompt", "output", "original_output", "final_text", "comment"}
"""Their bounds would be beginnings of users' texts, and no query asks for them."""
_ROWS_AT_ONCE = 8192


class LandedFile:
    """A Parquet file of one day's events; one batch is compressed while the caller makes the next."""

    def __init__(self, path: Path, spec: TableSpec, day: date) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        remember_file(path)
        self.path = path
        self.rows = 0
        self.event = pa.schema([column for column in spec.schema if column.name != spec.day_column])
        """The columns of the batches that are written, without the partition's day."""
        self._spec, self._day = spec, day
        self._beside = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None
        columns = spec.schema.names
        self._writer = pq.ParquetWriter(
            path,
            spec.schema,
            compression="zstd",
            # In a row group of some hundred rows a dictionary of texts would hold each of them once, beside its index.
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
        self._writing = self._beside.submit(
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
            self._beside.shutdown()
            self._writer.close()


def without_rows(source: Path, numbers: npt.NDArray[np.int64], spec: TableSpec, day: date, target: Path) -> Path:
    """The day without the rows of these numbers; `source`, which nobody else knows, is gone unless it stays as it is.

    Args:
        source: a file that `LandedFile` wrote.
        numbers: of rows, from 0.
        spec: the table.
        day: the partition.
        target: where to write if anything is left out.
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
