"""A table that an earlier release made gets the columns of this one, and its old rows stay readable."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from flywheel_assets import records
from flywheel_assets.curation.texts.resolution import ResolutionRules, resolve
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import CURATED_DPO_PAIRS, LEDGER, TableSpec
from flywheel_assets_tests.builders import day, make_gold
from flywheel_assets_tests.lake.workbench import Workbench

NEW = {"stance", "statement_id", "revision", "sibling_id", "retracts", "thread_id", "refused_reason", "admitted_by"}
SUPPORTERS = pa.field("supporters", pa.string())
OLD_GOLD = replace(
    CURATED_DPO_PAIRS,
    schema=pa.schema([SUPPORTERS, *(field for field in CURATED_DPO_PAIRS.schema if field.name not in NEW)]),
)


def write(lake: Lake, spec: TableSpec, offset: int, *rows: dict[str, object]) -> None:
    with lake.connect() as connection:
        given = pa.Table.from_pylist([{**row, "supporters": "ab"} for row in rows], schema=spec.schema)
        connection.register("given", given)
        file = lake.write_day(connection, spec, day(offset), "SELECT * FROM given")
    assert file is not None
    lake.replace_days(spec, [day(offset)], {day(offset): file}, {})


def make_old_table(bench: Workbench) -> Lake:
    """Two days of gold in a table that has a dropped column in front and none of the new ones."""
    for offset in (0, 1):
        kinds = ({}, {"example_kind": "accepted_output"})
        write(bench.lake, OLD_GOLD, offset, *(make_gold(completed_date=day(offset), **kind) for kind in kinds))
    return bench.open_lake()


def test_a_table_grows_once_when_it_is_opened_and_old_rows_have_nulls(tmp_path: Path) -> None:
    lake = make_old_table(Workbench(tmp_path))
    before = lake.catalog.load_table((lake.application, CURATED_DPO_PAIRS.name))
    grown = lake.load_table(CURATED_DPO_PAIRS)
    ids = {field.name: field.field_id for field in before.schema().fields}
    after = {field.name: field.field_id for field in grown.schema().fields}
    assert ids.items() <= after.items()
    assert set(after) - set(ids) == NEW
    assert min(after[name] for name in NEW) > max(ids.values())
    assert grown.spec() == before.spec()
    assert lake.load_table(CURATED_DPO_PAIRS).metadata_location == grown.metadata_location
    rows = lake.read(CURATED_DPO_PAIRS)
    assert rows.schema.names == CURATED_DPO_PAIRS.schema.names
    assert (rows.num_rows, rows["stance"].null_count, rows["pair_id"].null_count) == (4, 4, 0)


def test_old_and_new_days_are_read_together_and_replaced(tmp_path: Path) -> None:
    lake = make_old_table(Workbench(tmp_path))
    write(lake, CURATED_DPO_PAIRS, 2, make_gold(completed_date=day(2)))
    days = [day(offset) for offset in range(3)]
    for rows in (
        lake.read(CURATED_DPO_PAIRS, days),
        lake.read(CURATED_DPO_PAIRS, days[::-1], planned=lake.plan_days(CURATED_DPO_PAIRS, days)),
        lake.load_table(CURATED_DPO_PAIRS).scan().to_arrow(),
    ):
        assert sorted(rows["stance"].to_pylist(), key=str) == [None] * 4 + ["changes"]
    columns = ["pair_id", "stance", "completed_date"]
    assert lake.read(CURATED_DPO_PAIRS, [day(0)], columns)["stance"].to_pylist() == [None, None]
    write(lake, CURATED_DPO_PAIRS, 1, make_gold(completed_date=day(1)))
    assert lake.read(CURATED_DPO_PAIRS, [day(1)])["stance"].to_pylist() == ["changes"]
    assert all(file.is_complete for file in lake.plan_days(CURATED_DPO_PAIRS, days)[day(2)])
    assert not any(file.is_complete for file in lake.plan_days(CURATED_DPO_PAIRS, days)[day(0)])


def test_an_old_snapshot_is_read_with_the_new_columns(tmp_path: Path) -> None:
    """A version that was pinned before the upgrade is still cut and verified after it."""
    lake = make_old_table(Workbench(tmp_path))
    snapshot = lake.load_table(CURATED_DPO_PAIRS).current_snapshot()
    assert snapshot is not None
    write(lake, CURATED_DPO_PAIRS, 2, make_gold(completed_date=day(2)))
    rows = lake.read(CURATED_DPO_PAIRS, [day(0), day(1)], snapshot_id=snapshot.snapshot_id)
    assert rows.num_rows == 4
    resolution = resolve(rows, ResolutionRules(holdout_share=0.0, accepted_share=1.0))
    assert (resolution.train.num_rows, resolution.accepted.num_rows, resolution.dropped) == (2, 2, {})


def test_two_processes_that_open_an_old_table_add_the_columns_once(tmp_path: Path) -> None:
    bench = Workbench(tmp_path)
    make_old_table(bench)
    first, second = bench.open_lake(), bench.open_lake()
    # The second has read the old metadata before the first adds the columns.
    stale = second.catalog.load_table((second.application, CURATED_DPO_PAIRS.name))
    first.load_table(CURATED_DPO_PAIRS)
    names = second.load_table(CURATED_DPO_PAIRS).schema().column_names
    assert len(names) == len(set(names)) == len(stale.schema().column_names) + len(NEW)


@pytest.mark.parametrize("spec", [LEDGER])
def test_a_table_that_is_rewritten_whole_grows_too(tmp_path: Path, spec: TableSpec) -> None:
    bench = Workbench(tmp_path)
    old = replace(spec, schema=pa.schema([field for field in records.LEDGER if field.name != "rows_stated"]))
    bench.lake.replace_all(old, lambda rows: rows, {})
    lake = bench.open_lake()
    lake.replace_all(spec, lambda rows: rows, {})
    assert lake.read(spec).schema.names == spec.schema.names
