"""A moved, copied or half-lost home is made whole: every table, snapshot and tag is what it was."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flywheel_assets.errors import HomeMismatchError
from flywheel_assets.lake.tables.specs import CURATED_DPO_PAIRS, EXCLUSIONS, TableSpec
from flywheel_assets.lake.tables.tags import create_tag, list_tags
from flywheel_assets.lake.upkeep.garbage import expire_snapshots, sweep_table
from flywheel_assets.lake.upkeep.relocation import list_namespaces, plan_adoption, plan_move, register_tables
from flywheel_assets_tests.builders import APPLICATION, DAY, day, make_gold
from flywheel_assets_tests.command_line import flywheel
from flywheel_assets_tests.lake.gold import gold
from flywheel_assets_tests.lake.workbench import Workbench, head

GOLD = CURATED_DPO_PAIRS
NOW = datetime(2100, 1, 1, tzinfo=UTC)
TAG = "dpo_gold_v1"


@pytest.fixture
def home(tmp_path: Path) -> Workbench:
    """Gold of ten days with a tagged version and replaced days, and an audit table."""
    bench = Workbench(tmp_path / "a")
    for number in range(10):
        bench.write(GOLD, day(number), gold(day(number)))
    create_tag(bench.lake, GOLD, TAG, head(bench.lake))
    bench.write(GOLD, DAY, [make_gold(chosen="second")])
    bench.lake.append(EXCLUSIONS, EXCLUSIONS.schema.empty_table(), "key", {})
    return bench


def read_everything(bench: Workbench) -> list[Any]:
    lake, found = bench.open_lake(), []
    for spec in (GOLD, EXCLUSIONS):
        found += [_read(bench, spec, each.snapshot_id) for each in lake.load_table(spec).metadata.snapshots]
    return [*found, list_tags(lake, GOLD), lake.count_rows_per_day(GOLD)]


def _read(bench: Workbench, spec: TableSpec, snapshot_id: int) -> list[str]:
    return sorted(map(str, bench.open_lake().read(spec, snapshot_id=snapshot_id).to_pylist()))


def list_files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def upkeep(bench: Workbench) -> None:
    """Everything that the weekly maintenance deletes, without a grace."""
    bench.lake = bench.open_lake()
    for spec in (GOLD, EXCLUSIONS):
        expire_snapshots(bench.lake, spec, NOW)
        sweep_table(bench.lake, spec, timedelta(0), NOW)


@pytest.mark.long
def test_a_copied_home_becomes_one_of_its_own(home: Workbench) -> None:
    """Its maintenance had deleted the original's files."""
    before, files = read_everything(home), list_files(home.root)
    shutil.copytree(home.root, home.root.with_name("b"))
    other = Workbench(home.root.with_name("b"))
    planned = plan_move(other.lake)
    assert {each.name: each.rows for each in planned} == {GOLD.name: head_rows(home), EXCLUSIONS.name: 0}
    register_tables(other.lake, planned, home_id="new")
    assert read_everything(other) == before
    assert other.open_lake().verify_home() == "new" != home.lake.home_id
    upkeep(other)
    other.write(GOLD, day(3), [])
    assert list_files(home.root) == files
    shutil.rmtree(home.root)
    assert list_tags(other.lake, GOLD) == before[-2]
    assert sum(other.lake.count_rows_per_day(GOLD).values()) > 0
    assert other.lake.read(GOLD, snapshot_id=before[-2][TAG]).num_rows == 10 * len(gold(DAY))


def head_rows(bench: Workbench) -> int:
    return sum(bench.lake.count_rows_per_day(GOLD).values())


@pytest.mark.long
def test_a_lost_catalog_is_made_again_from_the_warehouse(home: Workbench) -> None:
    before, home_id = read_everything(home), home.lake.home_id
    (home.root / "catalog.db").unlink()
    home.lake = home.open_lake()
    assert list_namespaces(home.lake) == [APPLICATION]
    register_tables(home.lake, plan_adoption(home.lake), home_id=str(home.lake.home.find_id()))
    assert read_everything(home) == before
    assert home.open_lake().verify_home(sweeps=True) == home_id
    upkeep(home)
    assert list_tags(home.lake, GOLD) == before[-2]


@pytest.mark.long
def test_a_lost_catalog_of_a_moved_home_is_made_again(home: Workbench) -> None:
    before = read_everything(home)
    (home.root / "catalog.db").unlink()
    home.root.rename(home.root.with_name("c"))
    moved = Workbench(home.root.with_name("c"))
    register_tables(moved.lake, plan_adoption(moved.lake), home_id="new")
    assert read_everything(moved) == before
    upkeep(moved)


@pytest.mark.long
def test_an_older_catalog_is_brought_to_the_newest_state(home: Workbench) -> None:
    kept = (home.root / "catalog.db").read_bytes()
    for number in (11, 12):
        home.write(GOLD, day(number), gold(day(number)))
    before = read_everything(home)
    (home.root / "catalog.db").write_bytes(kept)
    home.lake = home.open_lake()
    register_tables(home.lake, plan_adoption(home.lake), home_id=home.lake.home_id)
    assert read_everything(home) == before
    assert plan_adoption(home.lake) == []


@pytest.mark.long
def test_a_backup_with_an_older_catalog_is_restored_at_another_path(home: Workbench) -> None:
    """The catalog is copied first; on a busy table its metadata file is gone when the warehouse is copied."""
    kept = (home.root / "catalog.db").read_bytes()
    for number in range(15):
        home.write(GOLD, day(number), gold(day(number)))
    before = read_everything(home)
    home.root.rename(home.root.with_name("c"))
    restored = Workbench(home.root.with_name("c"))
    (restored.root / "catalog.db").write_bytes(kept)
    register_tables(restored.lake, plan_adoption(restored.lake), home_id=str(restored.lake.home.find_id()))
    assert read_everything(restored) == before
    upkeep(restored)


def test_a_copy_without_a_data_file_is_refused_whole(home: Workbench) -> None:
    shutil.copytree(home.root, home.root.with_name("b"))
    other = Workbench(home.root.with_name("b"))
    next(iter((other.root / "warehouse").rglob("data/*.parquet"))).unlink()
    catalog = (other.root / "catalog.db").read_bytes()
    with pytest.raises(HomeMismatchError, match=r"1 of 11 data files are missing"):
        register_tables(other.lake, plan_move(other.lake), home_id="new")
    assert (other.root / "catalog.db").read_bytes() == catalog


@pytest.mark.long
def test_the_commands_show_what_they_would_do_and_do_it(home: Workbench) -> None:
    home.root.rename(home.root.with_name("c"))
    place = home.root.with_name("c")
    refused = flywheel(place, "maintain", "--application", APPLICATION, "--yes")
    assert (refused.returncode, "flywheel move" in refused.stderr) == (1, True)
    assert "--yes" in flywheel(place, "move").stdout
    assert "2 tables registered" in flywheel(place, "move", "--yes").stdout
    assert flywheel(place, "maintain", "--application", APPLICATION, "--yes").returncode == 0
    (place / "catalog.db").unlink()
    assert "adopt" in flywheel(place, "maintain", "--application", APPLICATION, "--yes").stderr
    adopted = flywheel(place, "adopt", "--yes")
    assert adopted.returncode == 0, adopted.stderr
    assert flywheel(place, "maintain", "--application", APPLICATION, "--yes").returncode == 0
