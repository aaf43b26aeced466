"""Comparing versions: what counts as another content of the same row."""

from pathlib import Path

import duckdb

from flywheel_assets.lake.versions.summaries import write_keyed_rows_sql


def test_a_row_is_unchanged_where_only_the_calendar_moved(tmp_path: Path) -> None:
    """`gold diff` called all 27,299 common evaluation rows changed: a week later each one's week index is smaller."""
    rows = {}
    for name, values in {
        "old": "1 AS week, .8 AS known_share, true AS is_positive",
        "later": "0 AS week, .9 AS known_share, true AS is_positive",
        "corrected": "1 AS week, .8 AS known_share, false AS is_positive",
        "training": "true AS is_positive",
    }.items():
        path = tmp_path / f"{name}.parquet"
        duckdb.sql(f"COPY (SELECT 'p' AS prediction_id, {values}) TO '{path}' (FORMAT parquet)")
        rows[name] = duckdb.sql(write_keyed_rows_sql(path)).fetchall()
    assert rows["old"] == rows["later"] == rows["training"]
    assert rows["old"] != rows["corrected"]
