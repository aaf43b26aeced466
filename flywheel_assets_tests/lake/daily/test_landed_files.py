"""The file of a raw partition: one decoder, landed order, small row groups, rows left out without changing others."""

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flywheel_assets.lake.daily._landed_files import LandedFile, ReadLines, read_lines, remove_rows
from flywheel_assets.lake.tables.specs import RAW_PREDICTIONS
from flywheel_assets_tests.builders import DAY, make_prediction
from flywheel_assets_tests.lake.landed import BLANK, MALFORMED, encoded, without

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
    assert known == set(SPEC.schema.names) - {"prompt", "output", "tools", "output_message"}


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


def read_segments(folder: Path, *segments: bytes) -> tuple[ReadLines, list[str]]:
    """The result, and the ids of the events in the order in which they were written."""
    paths = []
    for number, content in enumerate(segments):
        paths.append(folder / f"segment-{number}.jsonl")
        paths[-1].write_bytes(content)
    with LandedFile(folder / "landed.parquet", RAW_PREDICTIONS, DAY) as file:
        found = read_lines(paths, file)
    rows = pq.read_table(folder / "landed.parquet")
    assert rows.schema == RAW_PREDICTIONS.schema
    assert rows["received_date"].to_pylist() == [DAY] * found.events
    return found, rows["event_id"].to_pylist()


@pytest.mark.parametrize("line", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_line_is_refused_with_what_is_wrong(tmp_path: Path, line: bytes) -> None:
    found, ids = read_segments(tmp_path, b"\n".join([encoded(event_id="1"), line, encoded(event_id="2"), b""]), line)
    assert ids == ["1", "2"]
    assert [(each.segment, each.number) for each in found.refused] == [("segment-0.jsonl", 2), ("segment-1.jsonl", 1)]
    assert all(each.problem for each in found.refused)
    assert found.refused[0].line == line.decode("utf-8", "replace")


@pytest.mark.parametrize("blank", BLANK.values(), ids=BLANK.keys())
def test_blank_lines_are_no_lines(tmp_path: Path, blank: bytes) -> None:
    found, ids = read_segments(
        tmp_path, b"\n".join([blank, encoded(event_id="1"), blank, blank, encoded(event_id="2"), blank])
    )
    assert (found, ids) == (ReadLines(2, ()), ["1", "2"])


def test_a_problem_never_quotes_user_text(tmp_path: Path) -> None:
    texts = make_prediction(prompt="SECRET", output="SECRET", user_id="SECRET", thread_id="SECRET", source="SECRET")
    line = encoded(**texts)
    broken = [line[:position] for position in range(1, len(line))] + [line.replace(b"SECRET", b"SECRET\xff")]
    found, _ = read_segments(tmp_path, b"\n".join(broken))
    assert len(found.refused) == len(broken)
    assert not any("SECRET" in each.problem for each in found.refused)


def test_a_refused_object_keeps_its_event_id(tmp_path: Path) -> None:
    found, _ = read_segments(tmp_path, without(encoded(event_id="7"), "prompt") + b"\n{}\n[]\n")
    assert [each.event_id for each in found.refused] == ["7", None, None]


def test_unknown_columns_are_ignored(tmp_path: Path) -> None:
    """A newer capture may add one; the lake must not lose its events for that."""
    found, ids = read_segments(tmp_path, encoded(event_id="7")[:-1] + b', "later": {"a": 1}}\n')
    assert (found, ids) == (ReadLines(1, ()), ["7"])


def test_more_events_than_one_batch_keep_their_order(tmp_path: Path) -> None:
    line = encoded(event_id="%d")
    segments = [b"\n".join(line % number for number in range(first, first + 9000)) for first in (0, 9000)]
    found, ids = read_segments(tmp_path, *segments)
    assert found == ReadLines(18_000, ())
    assert ids == [str(number) for number in range(18_000)]


def test_no_events_give_an_empty_file(tmp_path: Path) -> None:
    assert read_segments(tmp_path, b"", b"\n") == (ReadLines(0, ()), [])
