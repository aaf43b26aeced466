"""Backups to a bucket, of a warehouse in a bucket, and between kinds of catalogs."""

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from flywheel_assets.cli.homes import build_backup_source, build_restore_target
from flywheel_assets.errors import BackupError
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import CURATED_DPO_PAIRS
from flywheel_assets.lake.upkeep.backup.place import BackupPlace
from flywheel_assets.lake.upkeep.backup.restoring import choose_backup, restore_backup
from flywheel_assets.lake.upkeep.backup.taking import Backup, take_backup
from flywheel_assets.settings import Settings, isolate_settings
from flywheel_assets.stores import Stores
from flywheel_assets_tests.builders import APPLICATION, day
from flywheel_assets_tests.lake.closable_stores import ClosableStores
from flywheel_assets_tests.lake.gold import write_gold_days
from flywheel_assets_tests.lake.upkeep.backup.homes import NOW, back_up, read_everything, restore
from flywheel_assets_tests.postgres_server import postgres_server
from flywheel_assets_tests.s3_server import S3Server, s3_server

GOLD = CURATED_DPO_PAIRS


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as running:
        yield running


def open_bucket(server: S3Server, prefix: str) -> BackupPlace:
    return BackupPlace.open(f"s3://{server.bucket}/{prefix}", {"s3.endpoint": server.endpoint})


def list_keys(server: S3Server, prefix: str) -> list[str]:
    found = server.client.list_objects_v2(Bucket=server.bucket, Prefix=prefix).get("Contents", [])
    return [each["Key"] for each in found if each["Size"]]


@pytest.mark.slow
def test_a_home_is_backed_up_to_a_bucket_and_restored(server: S3Server, home: Path, tmp_path: Path) -> None:
    place = open_bucket(server, "homes/one")
    first = back_up(home, place)
    assert first.copied_files > 0
    assert back_up(home, open_bucket(server, "homes/one")).copied_files == 0
    restore(open_bucket(server, "homes/one"), tmp_path / "b")
    assert read_everything(tmp_path / "b") == read_everything(home)


@pytest.mark.long
def test_what_a_bucket_with_versions_keeps_of_deleted_contents_is_deleted(
    server: S3Server, home: Path, tmp_path: Path
) -> None:
    """A deleted object of such a bucket is a marker above the content, and an erased person could come back."""
    server.client.put_bucket_versioning(Bucket=server.bucket, VersioningConfiguration={"Status": "Enabled"})
    only = home / "review" / "only_today.jsonl"
    only.write_bytes(b"only today\n")
    source = build_backup_source(Stores(isolate_settings(home)))
    take_backup(source, open_bucket(server, "kept"), now=NOW)
    only.unlink()
    made = take_backup(source, open_bucket(server, "kept"), now=NOW, keep=1, s3_client=lambda: server.client)
    assert (made.deleted_contents, made.problem) == (1, None)
    found = server.client.list_object_versions(Bucket=server.bucket, Prefix="kept/")
    assert {each["Key"] for each in found["Versions"] if each["Size"]} == set(list_keys(server, "kept/"))
    assert not [each for each in found.get("DeleteMarkers", []) if not each["Key"].endswith("/")]


def make_stores(root: Path, server: S3Server, catalog: str | None, name: str) -> ClosableStores:
    where = isolate_settings(root).model_copy(
        update={
            "catalog_uri": catalog,
            "warehouse": f"s3://{server.bucket}/{name}",
            "s3_endpoint": server.endpoint,
            "landing_s3": f"s3://{server.bucket}/landing-{name}",
        }
    )
    assert isinstance(where, Settings)
    return ClosableStores(where)


def read_gold(lake: Lake) -> list[str]:
    return sorted(map(str, lake.read(GOLD).to_pylist()))


def take(stores: Stores, place: BackupPlace) -> Backup:
    return take_backup(build_backup_source(stores), place, now=NOW)


def put_back(stores: Stores, place: BackupPlace) -> str:
    target = build_restore_target(stores, dagster_home=None)
    return restore_backup(place, choose_backup(place, None), target).home_id


@pytest.mark.slow
def test_postgres_and_s3_to_a_disk_and_back(server: S3Server, tmp_path: Path) -> None:
    """The catalog is a list of tables, so that it may come back as another kind."""
    with postgres_server() as postgres:
        original = make_stores(tmp_path / "a", server, postgres.uri, "original")
        lake = original.lake(APPLICATION)
        write_gold_days(lake, {day(0): 3, day(1): 2})
        original.landing().verify_owner(lake.home_id)
        place = BackupPlace.open(str(tmp_path / "to"), {})
        made = take(original, place)
        assert not any(f"landing zone s3://{server.bucket}" in each for each in made.manifest.left_out)
        write_gold_days(lake, {day(1): 4})
        assert take(original, place).copied_bytes < made.copied_bytes

        # The original is there: neither its catalog nor its warehouse nor its landing zone is taken over.
        for name in ("original", "other"):
            second = make_stores(tmp_path / "b", server, postgres.uri, name)
            with pytest.raises(BackupError, match="empty place only"), closing(second):
                put_back(second, place)
        before = read_gold(lake)
        copied = Stores(isolate_settings(tmp_path / "c"))
        assert put_back(copied, place) != lake.home_id
        assert read_gold(copied.lake(APPLICATION)) == before
        copied.lake(APPLICATION).verify_home(sweeps=True)

        # Lost as a whole, it comes back to the same places with its id, and finds its landing zone.
        home_id = lake.home_id
        for identifier in lake.catalog.list_tables(APPLICATION):
            lake.catalog.drop_table(identifier)
        for key in list_keys(server, "original/"):
            server.client.delete_object(Bucket=server.bucket, Key=key)
        shutil.rmtree(tmp_path / "a")
        again = make_stores(tmp_path / "a", server, postgres.uri, "original")
        assert put_back(again, place) == home_id
        assert read_gold(again.lake(APPLICATION)) == before
        assert again.lake(APPLICATION).verify_home(sweeps=True) == home_id
        write_gold_days(again.lake(APPLICATION), {day(2): 1})
        for each in (original, again):
            each.close()
