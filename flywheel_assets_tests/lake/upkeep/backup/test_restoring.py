"""A restored home is the backed-up one, wherever it lies now, and never owns what the original owns."""

import shutil
import stat
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from flywheel_assets.capture.log.segment_file import find_open_segments, recover_segment
from flywheel_assets.cli.homes import build_restore_target
from flywheel_assets.errors import BackupError, HomeMismatchError
from flywheel_assets.lake.tables.home import RESTORING_FILE
from flywheel_assets.lake.upkeep.backup.restoring import choose_backup, restore_backup
from flywheel_assets.settings import isolate_settings
from flywheel_assets.stores import Stores
from flywheel_assets_tests.builders import DAY
from flywheel_assets_tests.lake.killable import ASSISTANT, Wheel
from flywheel_assets_tests.lake.upkeep.backup.homes import Everything, back_up, open_place, read_everything, restore
from flywheel_assets_tests.prepared import PreparedFolder

GOLD = "warehouse/assistant/curated_dpo_pairs"


@pytest.fixture(scope="module")
def place(_prepared: PreparedFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One backup of the home for all tests."""
    to = tmp_path_factory.mktemp("place")
    back_up(_prepared.restored(), to)
    return to


@pytest.fixture(scope="module")
def before(_prepared: PreparedFolder) -> Everything:
    """What the home holds."""
    return read_everything(_prepared.restored())


@pytest.mark.long
@pytest.mark.parametrize(
    "lost",
    [
        *("catalog.db", "warehouse", f"{GOLD}/metadata", "warehouse/assistant/ledger", "landing", "versions"),
        *("versions/assistant/dpo_gold_v1/pin.json", "erasure.key", "capture_keys.json", "mlflow.db", "dagster"),
    ],
)
def test_a_home_without_one_of_its_parts_comes_back_whole(
    home: Path, place: Path, before: Everything, lost: str
) -> None:
    """What is left is moved away first: a restore never mixes with it."""
    home_id = msgspec.json.decode((home / "home.json").read_bytes())["id"]
    path = home / lost
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    with pytest.raises(BackupError, match="empty place only"):
        restore(place, home)
    shutil.move(home, home.with_name("left"))
    done = restore(place, home)
    shutil.rmtree(home.with_name("left"))
    assert read_everything(home) == before
    assert (done.home_id, done.is_new_id) == (home_id, False)
    assert Wheel(home).benches[ASSISTANT].lake.verify_home(sweeps=True) == home_id


@pytest.mark.long
def test_a_home_restored_elsewhere_is_one_of_its_own(
    home: Path, place: Path, before: Everything, tmp_path: Path
) -> None:
    """It is verified, it works, and the original notices nothing."""
    files = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    done = restore(place, tmp_path / "b", is_verified=True)
    assert (done.differences, done.is_new_id) == ((), True)
    assert read_everything(tmp_path / "b") == before
    wheel = Wheel(tmp_path / "b")
    wheel.collect(ASSISTANT)
    wheel.benches[ASSISTANT].curate([DAY])
    wheel.collect(ASSISTANT)
    assert read_everything(tmp_path / "b").tables == before.tables
    assert {path: path.read_bytes() for path in home.rglob("*") if path.is_file()} == files
    shutil.rmtree(home)
    assert read_everything(tmp_path / "b").tables == before.tables
    assert not [path for path in (tmp_path / "b").rglob("*") if path.name.endswith(".restoring")]


def test_the_modes_and_times_of_files_come_back(home: Path, tmp_path: Path) -> None:
    """The keys are private, and the next backup must not read every file again."""
    (home / "capture_keys.json").chmod(0o600)
    back_up(home, tmp_path / "to")
    shutil.rmtree(home)
    restore(tmp_path / "to", home)
    assert stat.S_IMODE((home / "capture_keys.json").stat().st_mode) == 0o600
    assert back_up(home, tmp_path / "to").copied_bytes < 100_000


def test_another_layout_of_the_parts(home: Path, place: Path, before: Everything, tmp_path: Path) -> None:
    """Another machine keeps its landing zone, versions and warehouse on other disks."""

    there = isolate_settings(tmp_path / "b").model_copy(
        update={
            "landing_dir": tmp_path / "disk1" / "landing",
            "versions_dir": tmp_path / "disk2" / "versions",
            "warehouse": f"file://{tmp_path}/disk3/lake",
            "catalog_uri": f"sqlite:///{tmp_path}/disk4/tables.db",
        }
    )
    (tmp_path / "disk4").mkdir()
    target = build_restore_target(Stores(there), dagster_home=None)
    found = open_place(place)
    restore_backup(found, choose_backup(found, None), target)
    stores = Stores(there)
    lake = stores.lake(ASSISTANT)
    assert lake.verify_home(sweeps=True)
    original = Wheel(home).benches[ASSISTANT]
    for spec in (original.tables.gold, original.tables.joined, original.tables.predictions):
        assert lake.read(spec).num_rows == len(before.tables[f"{ASSISTANT}.{spec.name}"])
    assert [folder.version for folder in stores.versions(ASSISTANT)] == ["dpo_gold_v1"]
    with pytest.raises(BackupError, match="empty place only"):
        restore_backup(found, choose_backup(found, None), target)


def test_a_warehouse_that_the_original_owns_is_refused(home: Path, place: Path, tmp_path: Path) -> None:

    there = isolate_settings(tmp_path / "b").model_copy(update={"warehouse": f"file://{home}/warehouse"})
    found = open_place(place)
    with pytest.raises(BackupError, match=r"empty place only.*warehouse/"):
        restore_backup(found, choose_backup(found, None), build_restore_target(Stores(there), dagster_home=None))
    assert not (tmp_path / "b").exists()


@pytest.mark.long
def test_an_unfinished_restore_takes_no_changes_and_no_other_backup(
    home: Path, before: Everything, tmp_path: Path
) -> None:
    for _ in range(2):
        back_up(home, tmp_path / "to")
    done = restore(tmp_path / "to", tmp_path / "b")
    marker = tmp_path / "b" / RESTORING_FILE
    found = open_place(tmp_path / "to")
    unfinished = {
        "place": found.uri,
        "number": 2,
        "home_id": done.home_id,
        "warehouse": f"file://{tmp_path}/b/warehouse",
        "catalog": f"sqlite:{tmp_path}/b/catalog.db",
    }
    marker.write_bytes(msgspec.json.encode(unfinished))
    with pytest.raises(HomeMismatchError, match="Give the same `flywheel restore` again"):
        Wheel(tmp_path / "b").benches[ASSISTANT].curate([DAY])
    with pytest.raises(BackupError, match=r"interrupted restore of backup 2 .*--at 2"):
        restore(tmp_path / "to", tmp_path / "b", 1)
    again = restore(tmp_path / "to", tmp_path / "b", 2)
    assert (again.home_id, again.copied_files) == (done.home_id, 0)
    assert read_everything(tmp_path / "b") == before


def test_a_damaged_backup_is_named_and_restores_nothing_as_whole(
    place: Path, before: Everything, tmp_path: Path
) -> None:
    shutil.copytree(place, tmp_path / "to")
    content = max((tmp_path / "to" / "objects").rglob("*"), key=lambda path: path.stat().st_size * path.is_file())
    sound = content.read_bytes()
    for damage in (sound[:-1] + b"?", None):
        if damage is None:
            content.unlink()
        else:
            content.write_bytes(damage)
        with pytest.raises(BackupError, match=r"should hold the file .*the backup is damaged there"):
            restore(tmp_path / "to", tmp_path / "b")
        assert (tmp_path / "b" / RESTORING_FILE).exists()
    content.write_bytes(sound)
    restore(tmp_path / "to", tmp_path / "b")
    assert read_everything(tmp_path / "b") == before
    manifest = tmp_path / "to" / "manifests" / "000001.json.gz"
    manifest.write_bytes(manifest.read_bytes()[:-9])
    with pytest.raises(BackupError, match=r"000001.json.gz is damaged"):
        choose_backup(open_place(tmp_path / "to"), None)


def test_an_interrupted_first_backup_cannot_be_restored(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "objects", tmp_path / "to" / "objects")
    with pytest.raises(BackupError, match="has no complete backup"):
        choose_backup(open_place(tmp_path / "to"), None)


def test_differences_of_the_original_are_shown_and_the_home_is_there(home: Path, tmp_path: Path) -> None:
    export = next((home / "versions" / ASSISTANT / "dpo_gold_v1").glob("export/*.jsonl"))
    export.write_bytes(export.read_bytes() + b"{}\n")
    back_up(home, tmp_path / "to")
    done = restore(tmp_path / "to", tmp_path / "b", is_verified=True)
    assert any("dpo_gold_v1" in each for each in done.differences)
    assert not (tmp_path / "b" / RESTORING_FILE).exists()


def test_events_that_capture_had_acknowledged_are_ingested_after_a_restore(place: Path, tmp_path: Path) -> None:
    """They lie in a segment that capture was writing; its next start publishes it."""

    restore(place, tmp_path / "b")
    [(zone, path)] = find_open_segments(tmp_path / "b" / "landing")
    assert recover_segment(zone, path, datetime(2026, 11, 29, tzinfo=UTC).date())
    assert [each.name for each in zone.find_day_folder(datetime(2026, 11, 29, tzinfo=UTC).date()).iterdir()]
