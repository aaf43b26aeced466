"""Opens DuckDB connections for the lake: in UTC, with bounded memory, spilling next to the warehouse."""

import os
from functools import lru_cache
from pathlib import Path

import duckdb

from flywheel_assets.curation.sql_literals import quote
from flywheel_assets.lake.storage.failures import remember_file

MEMORY_LIMIT = "2GB"
"""Memory of all connections of one process to one spill folder together."""


def connect(spill_folder: Path | None = None, keeps_order: bool = False) -> duckdb.DuckDBPyConnection:
    """Open a connection with temporary tables and views of its own; sorts larger than `MEMORY_LIMIT` spill.

    Args:
        spill_folder: folder to spill to; None: no work is that large.
        keeps_order: whether a query without ORDER BY gives rows in the order of its file. By default it does not, and
            every statement that writes a file orders it.
    """
    # A new database takes 15 ms of CPU, a connection to a running one 0.1 ms; the assets of one day open about 55.
    key = _build_key(spill_folder, keeps_order)
    try:
        connection = _open_database(*key).cursor()
        connection.execute("SELECT 1").fetchall()
    except duckdb.Error:
        # An error that DuckDB calls fatal leaves the database unusable; it contained nothing but the failed work.
        _open_database.cache_clear()
        connection = _open_database(*key).cursor()
    return connection


def _build_key(spill_folder: Path | None, keeps_order: bool = False) -> tuple[Path | None, bool, int]:
    # The process id is part of the key: a forked process does not inherit the threads of a database.
    return spill_folder, keeps_order, os.getpid()


@lru_cache(maxsize=8)
def _open_database(spill_folder: Path | None, keeps_order: bool, _process: int) -> duckdb.DuckDBPyConnection:
    database = duckdb.connect()
    # GLOBAL is needed: a plain SET of the time zone applies to this one connection.
    database.execute("SET GLOBAL timezone = 'UTC'")
    database.execute(f"SET GLOBAL memory_limit = '{MEMORY_LIMIT}'")
    database.execute(f"SET GLOBAL preserve_insertion_order = {str(keeps_order).lower()}")
    # Erased rows would live on in this cache, and a file is seldom read twice.
    database.execute("SET GLOBAL enable_external_file_cache = false")
    if spill_folder is not None:
        database.execute(f"SET GLOBAL temp_directory = {quote(str(spill_folder))}")
    return database


def write_parquet(connection: duckdb.DuckDBPyConnection, query: str, path: Path, row_group_rows: int) -> int:
    """Write the rows of `query` to one zstd Parquet file and return their number; zero rows leave no file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    remember_file(path)
    written = connection.execute(
        f"COPY ({query}) TO {quote(str(path))} (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {row_group_rows:d})"
    ).fetchone()
    rows = int(written[0]) if written else 0
    if rows == 0:
        path.unlink(missing_ok=True)
    return rows
