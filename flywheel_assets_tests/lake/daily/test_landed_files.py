"""A raw partition's file: landed order, small row groups, and rows left out without the others changing."""

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flywheel_assets.lake.daily.landed_files import LandedFile, remove_rows
from flywheel_assets.lake.tables.specs import RAW_PREDICTIONS
from flywheel_assets_tests.builders import DAY, make_prediction

SPEC = RAW_PREDICTIONS


def landed(path: Path, batches: list[list[dict[str, Any]]]) -> Path:
    with LandedFile(path, SPEC, DAY) as file:
        for rows in batches:
            file.write(pa.RecordBatch.from_pylist(rows, schema=file.event))
    assert file.rows == sum(map(len, batches))
    return path


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    return [make_prediction(prompt=f"prompt {number}") for number in range(1300)]


def test_rows_lie_as_they_landed_in_row_groups_of_the_table(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    path = landed(tmp_path / "a.parquet", [rows[:1100], rows[1100:]])
    assert pq.read_table(path).to_pylist() == [{"received_date": DAY, **row} for row in rows]
    groups = [pq.read_metadata(path).row_group(each) for each in range(3)]
    assert [group.num_rows for group in groups] == [1024, 76, 200]


def test_beginnings_of_users_texts_are_not_in_the_statistics(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    """Iceberg copies a file's bounds into its manifests, which outlive the rows."""
    group = pq.read_metadata(landed(tmp_path / "a.parquet", [rows])).row_group(0)
    known = {column.path_in_schema for column in map(group.column, range(group.num_columns)) if column.statistics}
    assert known == set(SPEC.schema.names) - {"prompt", "output"}


@pytest.mark.parametrize("numbers", [[0], [1299], [1023, 1024, 1200], range(1024), range(1299)])
def test_rows_are_left_out_by_number(tmp_path: Path, rows: list[dict[str, Any]], numbers: list[int]) -> None:
    path = landed(tmp_path / "a.parquet", [rows])
    kept = remove_rows(path, np.array(numbers), SPEC, DAY, tmp_path / "b.parquet")
    left = [row["event_id"] for number, row in enumerate(rows) if number not in numbers]
    assert pq.read_table(kept)["event_id"].to_pylist() == left
    assert list(tmp_path.iterdir()) == [kept]


def test_a_file_from_which_nothing_is_left_out_stays(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    path = landed(tmp_path / "a.parquet", [rows])
    assert remove_rows(path, np.array([], np.int64), SPEC, DAY, tmp_path / "b.parquet") == path


def test_a_failure_beside_reaches_the_writer(
    tmp_path: Path, rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = LandedFile(tmp_path / "a.parquet", SPEC, DAY)

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(file._writer, "write_batch", fail)
    with pytest.raises(OSError, match="No space left"), file:
        file.write(pa.RecordBatch.from_pylist(rows, schema=file.event))
