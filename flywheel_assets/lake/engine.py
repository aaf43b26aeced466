"""DuckDB connections as the lake uses them: UTC, bounded memory, spilling beside the warehouse."""

from pathlib import Path

import duckdb

from flywheel_assets.curation.sql_literals import quoted

MEMORY_LIMIT = "2GB"


def connect(spill_folder: Path | None = None, threads: int | None = None) -> duckdb.DuckDBPyConnection:
    """An in-memory connection; sorts larger than `MEMORY_LIMIT` spill to `spill_folder`.

    Row order of a query without ORDER BY is not preserved: every statement that writes a file orders it.
    """
    connection = duckdb.connect()
    connection.execute("SET timezone = 'UTC'")
    connection.execute(f"SET memory_limit = '{MEMORY_LIMIT}'")
    connection.execute("SET preserve_insertion_order = false")
    if threads is not None:
        connection.execute(f"SET threads = {threads:d}")
    if spill_folder is not None:
        connection.execute(f"SET temp_directory = {quoted(str(spill_folder))}")
    return connection


def write_parquet(connection: duckdb.DuckDBPyConnection, query: str, path: Path, row_group_rows: int) -> int:
    """Run `query` into one zstd Parquet file and return its row count; no file is left behind for zero rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = connection.execute(
        f"COPY ({query}) TO {quoted(str(path))} (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {row_group_rows:d})"
    ).fetchone()
    rows = int(written[0]) if written else 0
    if rows == 0:
        path.unlink(missing_ok=True)
    return rows
