import multiprocessing
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from flywheel_assets.lake.storage import duckdb_engine as engine


def test_a_connection_sees_nothing_that_another_made(tmp_path: Path) -> None:
    with engine.connect(tmp_path) as first, engine.connect(tmp_path) as second:
        first.register("given", pa.table({"a": [1]}))
        first.execute("CREATE TEMP TABLE made AS FROM given")
        first.execute("CREATE TEMP VIEW seen AS FROM made")
        for name in ("given", "made", "seen"):
            assert first.sql(f"FROM {name}").fetchall() == [(1,)]
            with pytest.raises(duckdb.CatalogException):
                second.sql(f"FROM {name}").fetchall()


def test_what_keeps_order_changes_nobody_elses_settings(tmp_path: Path) -> None:
    def setting(connection: duckdb.DuckDBPyConnection, name: str) -> object:
        return connection.execute(f"SELECT current_setting('{name}')").fetchall()[0][0]

    with engine.connect(tmp_path) as free, engine.connect(tmp_path, keeps_order=True) as ordered:
        assert setting(free, "preserve_insertion_order") is False
        assert setting(ordered, "preserve_insertion_order") is True
        for connection in (free, ordered):
            assert setting(connection, "TimeZone") == "UTC"
            assert setting(connection, "memory_limit") == "1.8 GiB"
            assert setting(connection, "temp_directory") == str(tmp_path)


def test_what_one_connection_leaves_is_gone_with_it(tmp_path: Path) -> None:
    with engine.connect(tmp_path) as connection:
        connection.execute("CREATE TEMP TABLE texts AS SELECT repeat('x', 1000) AS text FROM range(10_000)")
    with engine.connect(tmp_path) as connection:
        assert connection.execute("SELECT sum(memory_usage_bytes) FROM duckdb_memory()").fetchall() == [(0,)]


def test_a_database_that_died_is_replaced(tmp_path: Path) -> None:
    with engine.connect(tmp_path) as connection:
        connection.sql("SELECT 1").fetchall()
    engine._open_database(*engine._build_key(tmp_path)).close()
    with engine.connect(tmp_path) as connection:
        assert connection.sql("SELECT 1").fetchall() == [(1,)]


def _counted(folder: Path, answer: "multiprocessing.SimpleQueue[int]") -> None:
    with engine.connect(folder) as connection:
        answer.put(connection.sql("SELECT count(*) FROM range(1_000_000)").fetchall()[0][0])


@pytest.mark.filterwarnings("ignore:.*fork")  # this process has threads; that is the point
def test_a_forked_process_opens_its_own(tmp_path: Path) -> None:
    """The threads of a database do not come along: a child that used its parent's would wait forever."""
    with engine.connect(tmp_path) as connection:
        connection.sql("SELECT count(*) FROM range(1_000_000)").fetchall()
    fork = multiprocessing.get_context("fork")
    answer = fork.SimpleQueue()
    child = fork.Process(target=_counted, args=(tmp_path, answer))
    child.start()
    child.join(30)
    assert child.exitcode == 0
    assert answer.get() == 1_000_000
