"""The one decoder that says what is an event and what is not."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from flywheel_assets.lake.daily.landed_files import LandedFile, ReadLines, read_lines
from flywheel_assets.lake.tables.specs import RAW_PREDICTIONS
from flywheel_assets_tests.builders import DAY, make_prediction
from flywheel_assets_tests.lake.landed import BLANK, MALFORMED, encoded, without


def read(folder: Path, *segments: bytes) -> tuple[ReadLines, list[str]]:
    """What was found, and the ids of the events in the order in which they were written."""
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
    found, ids = read(tmp_path, b"\n".join([encoded(event_id="1"), line, encoded(event_id="2"), b""]), line)
    assert ids == ["1", "2"]
    assert [(each.segment, each.number) for each in found.refused] == [("segment-0.jsonl", 2), ("segment-1.jsonl", 1)]
    assert all(each.problem for each in found.refused)
    assert found.refused[0].line == line.decode("utf-8", "replace")


@pytest.mark.parametrize("blank", BLANK.values(), ids=BLANK.keys())
def test_blank_lines_are_no_lines(tmp_path: Path, blank: bytes) -> None:
    found, ids = read(tmp_path, b"\n".join([blank, encoded(event_id="1"), blank, blank, encoded(event_id="2"), blank]))
    assert (found, ids) == (ReadLines(2, ()), ["1", "2"])


def test_a_problem_never_quotes_user_text(tmp_path: Path) -> None:
    texts = make_prediction(prompt="SECRET", output="SECRET", user_id="SECRET", thread_id="SECRET", source="SECRET")
    line = encoded(**texts)
    broken = [line[:position] for position in range(1, len(line))] + [line.replace(b"SECRET", b"SECRET\xff")]
    found, _ = read(tmp_path, b"\n".join(broken))
    assert len(found.refused) == len(broken)
    assert not any("SECRET" in each.problem for each in found.refused)


def test_a_refused_object_keeps_its_event_id(tmp_path: Path) -> None:
    found, _ = read(tmp_path, without(encoded(event_id="7"), "prompt") + b"\n{}\n[]\n")
    assert [each.event_id for each in found.refused] == ["7", None, None]


def test_unknown_columns_are_ignored(tmp_path: Path) -> None:
    """A newer capture may add one; the lake must not lose its events for that."""
    found, ids = read(tmp_path, encoded(event_id="7")[:-1] + b', "later": {"a": 1}}\n')
    assert (found, ids) == (ReadLines(1, ()), ["7"])


def test_more_events_than_one_batch_keep_their_order(tmp_path: Path) -> None:
    line = encoded(event_id="%d")
    segments = [b"\n".join(line % number for number in range(first, first + 9000)) for first in (0, 9000)]
    found, ids = read(tmp_path, *segments)
    assert found == ReadLines(18_000, ())
    assert ids == [str(number) for number in range(18_000)]


def test_no_events_give_an_empty_file(tmp_path: Path) -> None:
    assert read(tmp_path, b"", b"\n") == (ReadLines(0, ()), [])
