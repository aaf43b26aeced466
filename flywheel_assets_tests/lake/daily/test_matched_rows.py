"""What matched rows say does not depend on how they are read: whole days, or the row groups that hold them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flywheel_assets.lake.daily import _matched_rows as matched_rows
from flywheel_assets.lake.landing.disk import EventKind
from flywheel_assets.lake.tables.specs import JOINED_FEEDBACK, PREFERENCE_TABLES, RAW_PREDICTIONS
from flywheel_assets_tests.builders import day, make_feedback, make_prediction
from flywheel_assets_tests.lake.workbench import Workbench
from flywheel_assets_tests.s3_server import S3Server

PREDICTION, FEEDBACK = EventKind.PREDICTION, EventKind.FEEDBACK
_ROWS = 1300


def bare_thumb(prediction: dict[str, Any]) -> dict[str, Any]:
    """Feedback whose texts must be looked up."""
    nothing = dict.fromkeys(("model_version", "user_id", "prompt", "prompt_format", "original_output", "final_text"))
    return make_feedback(**nothing, prediction_id=prediction["prediction_id"], signal="thumb", value=1.0)


def land_two_days(bench: Workbench) -> list[dict[str, Any]]:
    """Predictions of two days, of which some of the last row groups are reacted to, half of them with the texts."""
    predictions = [make_prediction(prompt=f"prompt {number}") for number in range(_ROWS)]
    bench.land(PREDICTION, day(0), predictions[: _ROWS - 100])
    bench.land(PREDICTION, day(1), predictions[_ROWS - 100 :])
    asked = [*predictions[1100:1110], *predictions[-10:]]
    bench.land(FEEDBACK, day(1), [bare_thumb(each) for each in asked[::2]], "bare")
    carried = [make_feedback(prediction_id=each["prediction_id"], prompt=each["prompt"]) for each in asked[1::2]]
    bench.land(FEEDBACK, day(1), carried, "carried")
    bench.ingest_both([day(0), day(1)])
    return asked


@pytest.mark.parametrize(("large_bytes", "few_rows"), [(2**30, 2000), (0, 2000), (0, 2)])
def test_every_way_of_reading_gives_the_same_rows(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, large_bytes: int, few_rows: int
) -> None:
    monkeypatch.setattr(matched_rows, "_LARGE_BYTES", large_bytes)
    monkeypatch.setattr(matched_rows, "_FEW_ROWS", few_rows)
    asked = land_two_days(bench)
    assert bench.join([day(1)])[day(1)].rows_kept == len(asked)
    found = {row["prediction_id"]: row for row in bench.rows(JOINED_FEEDBACK)}
    assert {name: row["prompt"] for name, row in found.items()} == {
        each["prediction_id"]: each["prompt"] for each in asked
    }
    assert {row["model_version"] for row in found.values()} == {"base"}


@pytest.mark.parametrize("large_bytes", [0, 2**30])
def test_predictions_that_an_earlier_release_wrote_are_found(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, large_bytes: int
) -> None:
    """The first join after an upgrade failed on large days: their files have no `tools` and no `output_message`."""
    monkeypatch.setattr(matched_rows, "_LARGE_BYTES", large_bytes)
    new = ("tools", "output_message")
    old_schema = pa.schema([field for field in RAW_PREDICTIONS.schema if field.name not in new])
    bench.tables = replace(PREFERENCE_TABLES, predictions=replace(RAW_PREDICTIONS, schema=old_schema))
    asked = land_two_days(bench)
    bench.tables, bench.lake = PREFERENCE_TABLES, bench.open_lake()
    [file] = bench.lake.plan_days(RAW_PREDICTIONS, [day(0)])[day(0)]
    assert not file.is_complete
    assert bench.join([day(1)])[day(1)].rows_kept == len(asked)
    rows = bench.rows(JOINED_FEEDBACK)
    assert sorted(row["prompt"] for row in rows) == sorted(each["prompt"] for each in asked)
    assert {row[name] for row in rows for name in new} == {None}


@pytest.mark.long
def test_rows_are_found_in_a_warehouse_on_s3(
    bench: Workbench, server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matched_rows, "_LARGE_BYTES", 0)
    storage = {"s3.endpoint": server.endpoint, "s3.region": "us-east-1"}
    bench.lake = replace(bench.lake, warehouse=f"s3://{server.bucket}/warehouse", storage=storage)
    asked = land_two_days(bench)
    bench.join([day(1)])
    assert sorted(row["prompt"] for row in bench.rows(JOINED_FEEDBACK)) == sorted(each["prompt"] for each in asked)


def test_of_a_large_day_only_the_row_groups_asked_for_are_read(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matched_rows, "_LARGE_BYTES", 0)
    asked = land_two_days(bench)
    planned = bench.lake.plan_days(RAW_PREDICTIONS, [day(0)])
    [file] = planned[day(0)]
    spoil_texts(Path(file.uri.removeprefix("file://")), row_groups=[0])
    assert bench.join([day(1)])[day(1)].rows_kept == len(asked)


def spoil_texts(file: Path, row_groups: list[int]) -> None:
    """Overwrite prompts and outputs of row groups: whoever reads them fails."""
    metadata = pq.read_metadata(file)
    content = bytearray(file.read_bytes())
    for number in row_groups:
        group = metadata.row_group(number)
        for column in map(group.column, range(group.num_columns)):
            if column.path_in_schema in ("prompt", "output"):
                first = column.data_page_offset
                content[first : first + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    file.write_bytes(content)
    with pytest.raises(OSError, match="page header"):
        pq.read_table(file)
