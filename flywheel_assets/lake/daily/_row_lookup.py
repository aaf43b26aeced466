"""Few rows of large data files, found by their ids: the ids are read first, then the row groups that hold one.

A day of a million predictions is 2 GB of text, of which a join asks for some hundred rows. Alike on a disk and on S3.
"""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flywheel_assets.lake.storage.outages import outages_told

if TYPE_CHECKING:
    from pyiceberg.io import FileIO


@outages_told()
def look_up(io: "FileIO", id_column: str, ids_by_uri: Mapping[str, pa.Array]) -> list[pa.Table]:
    """The rows of each data file whose id is one of its ids, with all columns of the file.

    Args:
        io: opens them.
        id_column: which column holds the ids.
        ids_by_uri: data files, and which of their rows to find; an id may be of several rows or none.

    Raises:
        StorageUnavailableError: the warehouse's S3 does not answer.
    """

    def rows_of(uri: str) -> pa.Table:
        # Buffering ahead asks S3 once for a row group, not once for each of its columns; on a disk it only costs.
        is_remote = not uri.startswith(("file:", "/"))
        with io.new_input(uri).open() as stream, pq.ParquetFile(stream, pre_buffer=is_remote) as file:
            return _rows(file, id_column, ids_by_uri[uri])

    # More threads than cores decompress slower: their buffers go back and forth.
    with ThreadPoolExecutor(os.cpu_count()) as beside:
        return list(beside.map(rows_of, ids_by_uri))


def _rows(file: pq.ParquetFile, id_column: str, ids: pa.Array) -> pa.Table:
    all_ids = file.read([id_column], use_threads=False)[id_column]
    numbers = np.flatnonzero(pc.is_in(all_ids, ids).to_numpy())
    ends = np.cumsum([file.metadata.row_group(each).num_rows for each in range(file.num_row_groups)])
    groups = np.searchsorted(ends, numbers, side="right")
    found = [file.schema_arrow.empty_table()]
    for group in np.unique(groups).tolist():
        rows = file.read_row_group(group, use_threads=False)
        found.append(rows.take(numbers[groups == group] - (ends[group] - rows.num_rows)))
    return pa.concat_tables(found)
