"""A home's parts know each other: a copied, moved, mixed or half-lost home refuses changes, and destroys nothing."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flywheel_assets.errors import HomeMismatchError
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import CURATED_DPO_PAIRS, EXCLUSIONS
from flywheel_assets.lake.upkeep.garbage import expire_snapshots, sweep_table
from flywheel_assets_tests.builders import APPLICATION, DAY, day, make_gold
from flywheel_assets_tests.lake.workbench import Workbench

GOLD = CURATED_DPO_PAIRS
NOW = datetime(2100, 1, 1, tzinfo=UTC)


def list_files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def sweep(bench: Workbench) -> None:
    sweep_table(bench.lake, GOLD, timedelta(0), NOW)


def commit(bench: Workbench) -> None:
    bench.write(GOLD, day(5), [make_gold(completed_date=day(5), chosen="too much")])


def expire(bench: Workbench) -> None:
    expire_snapshots(bench.lake, GOLD, NOW)


def create(bench: Workbench) -> None:
    bench.lake.load_table(EXCLUSIONS)


CHANGES = pytest.mark.parametrize("change", [sweep, commit, expire, create])


@pytest.fixture
def home(tmp_path: Path) -> Workbench:
    bench = Workbench(tmp_path / "a")
    bench.write(GOLD, DAY, [make_gold(chosen="first")])
    bench.write(GOLD, DAY, [make_gold(chosen="second")])
    return bench


def copy(home: Workbench, name: str = "b") -> Workbench:
    shutil.copytree(home.root, home.root.with_name(name))
    return Workbench(home.root.with_name(name))


def forget_id(bench: Workbench) -> None:
    """Make it a home of a release before: no part of it has an id."""
    (bench.root / "home.json").unlink()
    (bench.root / "warehouse" / "_HOME.json").unlink()
    bench.lake.catalog.update_namespace_properties(APPLICATION, removals={"flywheel.home-id"})
    bench.lake = bench.open_lake()


@CHANGES
@pytest.mark.parametrize("is_old", [False, True], ids=["with id", "of an older release"])
def test_a_copied_home_deletes_nothing_of_the_original(
    home: Workbench, change: Callable[[Workbench], None], is_old: bool
) -> None:
    """`cp -a` of a home, a day more in the original, and the copy's Sunday maintenance deleted 50 files of it."""
    if is_old:
        forget_id(home)
    other = copy(home)
    home.write(GOLD, day(1), [make_gold(completed_date=day(1), chosen="third")])
    before = list_files(home.root)
    with pytest.raises(HomeMismatchError, match=r"copied or moved.*`flywheel move`"):
        change(other)
    assert list_files(home.root) == before
    assert [row["chosen"] for row in home.rows(GOLD)] == ["second", "third"]


def test_a_moved_home_says_so_at_the_first_read(home: Workbench) -> None:
    """Reading ended in pyarrow's FileNotFoundError for a folder of the old place."""
    home.root.rename(home.root.with_name("c"))
    moved = Workbench(home.root.with_name("c"))
    with pytest.raises(HomeMismatchError, match="`flywheel move`"):
        moved.rows(GOLD)


@CHANGES
@pytest.mark.parametrize("lost", [("catalog.db",), ("catalog.db", "home.json")], ids=" and ".join)
def test_a_lost_catalog_does_not_begin_from_nothing(
    home: Workbench, change: Callable[[Workbench], None], lost: tuple[str, ...]
) -> None:
    """A removed `catalog.db` was made again, empty, and maintenance deleted what could still be registered."""
    for name in lost:
        (home.root / name).unlink()
    home.lake = home.open_lake()
    before = list_files(home.root / "warehouse")
    if change in (commit, create):
        with pytest.raises(HomeMismatchError, match=r"curated_dpo_pairs.*`flywheel adopt`"):
            change(home)
    else:
        change(home)  # a table that does not exist: nothing to expire or sweep
    assert list_files(home.root / "warehouse") == before


def test_an_older_copy_of_the_catalog_does_not_sweep_newer_files(home: Workbench) -> None:
    """A catalog of last night's backup took everything newer for garbage."""
    kept = (home.root / "catalog.db").read_bytes()
    for number in (1, 2):
        home.write(GOLD, day(number), [make_gold(completed_date=day(number))])
    (home.root / "catalog.db").write_bytes(kept)
    home.lake = home.open_lake()
    before = list_files(home.root / "warehouse")
    with pytest.raises(HomeMismatchError, match=r"older copy.*`flywheel adopt`"):
        sweep(home)
    assert list_files(home.root / "warehouse") == before


def test_a_commit_that_was_killed_before_the_catalog_had_it_is_swept(home: Workbench) -> None:
    location = Path(home.lake.load_table(GOLD).metadata_location.removeprefix("file://"))
    orphan = location.with_name(f"{int(location.name[:5]) + 1:05d}-lost.metadata.json")
    shutil.copy(location, orphan)
    sweep(home)
    assert not orphan.exists()


def test_a_creation_that_was_killed_is_repeated(home: Workbench) -> None:
    folder = home.root / "warehouse" / APPLICATION / EXCLUSIONS.name / "metadata"
    folder.mkdir(parents=True)
    (folder / "00000-lost.metadata.json").write_text("{}")
    create(home)
    home.lake.verify_home(sweeps=True)


def test_a_table_that_an_older_catalog_lacks_is_not_created_over_it(home: Workbench) -> None:
    kept = (home.root / "catalog.db").read_bytes()
    home.lake.append(EXCLUSIONS, EXCLUSIONS.schema.empty_table(), "key", {})
    (home.root / "catalog.db").write_bytes(kept)
    home.lake = home.open_lake()
    for change in (create, sweep):
        with pytest.raises(HomeMismatchError, match=f"{APPLICATION}.exclusions"):
            change(home)
    commit(home)


def test_a_second_catalog_over_one_warehouse_is_refused(home: Workbench) -> None:
    shutil.copy(home.root / "catalog.db", home.root / "other.db")
    lake = Lake(APPLICATION, f"sqlite:///{home.root}/other.db", home.lake.warehouse, home.lake.scratch)
    with pytest.raises(HomeMismatchError, match=r"belongs to the catalog sqlite:.*catalog\.db"):
        expire_snapshots(lake, GOLD, NOW)


def test_parts_of_two_homes_are_refused(home: Workbench) -> None:
    other = Workbench(home.root.with_name("other"))
    commit(other)
    shutil.copy(other.root / "home.json", home.root / "home.json")
    home.lake = home.open_lake()
    with pytest.raises(HomeMismatchError, match=r"parts of different homes: the home .*, the catalog .*the warehouse"):
        commit(home)


def test_a_warehouse_that_is_not_mounted_is_not_begun_again(home: Workbench) -> None:
    shutil.move(home.root / "warehouse", home.root / "unmounted")
    home.lake = home.open_lake()
    for change in (commit, expire, sweep):
        with pytest.raises(HomeMismatchError, match="Mount or restore the warehouse"):
            change(home)
    assert not (home.root / "warehouse").exists()


@pytest.mark.parametrize("lost", ["home.json", "warehouse/_HOME.json", "all"])
def test_a_lost_marker_is_written_again(home: Workbench, lost: str) -> None:
    home_id = home.lake.home_id
    if lost == "all":
        forget_id(home)
    else:
        (home.root / lost).unlink()
        home.lake = home.open_lake()
    commit(home)
    assert (home.lake.home_id == home_id) is (lost != "all")
    assert {home.open_lake().verify_home() for _ in range(2)} == {home.lake.home_id}
    found = [each.read_text() for each in (home.root / "home.json", home.root / "warehouse" / "_HOME.json")]
    assert all(home.lake.home_id in each for each in found)


def test_a_damaged_marker_is_named(home: Workbench) -> None:
    (home.root / "home.json").write_text("{")
    with pytest.raises(HomeMismatchError, match=r"home\.json is damaged"):
        home.open_lake().verify_home()
