"""A landing zone on S3 is backed up with its home: by content, without reading again, to S3 or a disk."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flywheel_assets.cli.homes import build_backup_source, build_restore_target
from flywheel_assets.errors import BackupError, HomeMismatchError, LandingUnavailableError
from flywheel_assets.lake.daily.ingest import ingest_days
from flywheel_assets.lake.daily.ledger import read_entries
from flywheel_assets.lake.landing.disk import Closing, EventKind
from flywheel_assets.lake.landing.objects import list_objects
from flywheel_assets.lake.landing.s3 import ObjectLanding
from flywheel_assets.lake.tables.home import RESTORING_FILE
from flywheel_assets.lake.tables.specs import PREFERENCE_TABLES
from flywheel_assets.lake.upkeep.backup.manifest import LANDED
from flywheel_assets.lake.upkeep.backup.place import BackupPlace
from flywheel_assets.lake.upkeep.backup.restoring import Restored, choose_backup, restore_backup
from flywheel_assets.lake.upkeep.backup.taking import Backup, take_backup
from flywheel_assets.settings import Settings, isolate_settings
from flywheel_assets.stores import Stores
from flywheel_assets_tests.builders import APPLICATION, DAY, day, make_prediction
from flywheel_assets_tests.lake.upkeep.backup.homes import NOW
from flywheel_assets_tests.lake.workbench import LONG_AFTER, Workbench, stamp
from flywheel_assets_tests.s3_server import S3Server, s3_server

OPEN = day(250)
"""A day that is not over at `LONG_AFTER`."""


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as running:
        yield running


def open_stores(root: Path, server: S3Server, prefix: str | None) -> Stores:
    uri = f"s3://{server.bucket}/{prefix}" if prefix is not None else None
    where = isolate_settings(root).model_copy(update={"s3_endpoint": server.endpoint, "landing_s3": uri})
    assert isinstance(where, Settings)
    return Stores(where)


def open_landing(server: S3Server, prefix: str) -> ObjectLanding:
    return ObjectLanding.from_uri(f"s3://{server.bucket}/{prefix}", server.client)


def land(root: Path, server: S3Server, prefix: str, on: Any, name: str) -> str:
    """Ship one segment, as capture does."""
    row = make_prediction(event_id=f"{name} {on}", prediction_id=f"{name} {on}")
    path = Workbench(root).land(EventKind.PREDICTION, on, [row], name)
    zone = open_landing(server, prefix).open_zone(APPLICATION, EventKind.PREDICTION)
    shipped = zone.publish(path, on)
    path.unlink()
    return shipped


def ingest(root: Path, server: S3Server, prefix: str, days: list[Any]) -> None:
    ingest_days(
        Workbench(root).lake,
        open_landing(server, prefix),
        EventKind.PREDICTION,
        days,
        stamp(LONG_AFTER),
        PREFERENCE_TABLES,
    )


@pytest.fixture
def prefix(tmp_path: Path, server: S3Server) -> str:
    """A home in `tmp_path/a` with two closed days and an open one on S3, under this prefix."""
    name = f"{tmp_path.name}/landing"
    for on in (day(0), day(1), OPEN):
        land(tmp_path / "a", server, name, on, "first")
    ingest(tmp_path / "a", server, name, [day(0), day(1)])
    landing = open_landing(server, name)
    landing.note_first_day(APPLICATION, DAY)
    landing.verify_owner(Workbench(tmp_path / "a").lake.home_id)
    return name


class CountingClient:
    """boto3's client, which notes the objects that it reads."""

    def __init__(self, client: Any) -> None:
        self._client, self.read = client, list[str]()

    def get_object(self, **parameters: Any) -> Any:
        self.read.append(parameters["Key"])
        return self._client.get_object(**parameters)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


def back_up(root: Path, server: S3Server, prefix: str, place: BackupPlace) -> tuple[Backup, list[str]]:
    """Back up; return the keys of the landing zone that were read, too."""
    client = CountingClient(server.client)
    source = build_backup_source(open_stores(root, server, prefix))
    landing = ObjectLanding.from_uri(f"s3://{server.bucket}/{prefix}", client)
    made = take_backup(replace(source, landing=landing), place, now=NOW)
    return made, [key.rpartition("/")[2] for key in client.read]


def put_back(stores: Stores, place: BackupPlace) -> Restored:
    target = replace(build_restore_target(stores, dagster_home=None), tables={})
    return restore_backup(place, choose_backup(place, None), target)


def read_objects(server: S3Server, prefix: str) -> dict[str, bytes]:
    landing = open_landing(server, prefix)
    return {
        each.path: server.client.get_object(Bucket=server.bucket, Key=f"{prefix}/{each.path}")["Body"].read()
        for each in list_objects(landing)
    }


def delete_objects(server: S3Server, prefix: str) -> None:
    for each in server.client.list_objects_v2(Bucket=server.bucket, Prefix=prefix).get("Contents", []):
        server.client.delete_object(Bucket=server.bucket, Key=each["Key"])


def disk(folder: Path) -> BackupPlace:
    return BackupPlace.open(str(folder), {})


def bucket(server: S3Server, prefix: str) -> BackupPlace:
    return BackupPlace.open(f"s3://{server.bucket}/{prefix}", {"s3.endpoint": server.endpoint})


@pytest.mark.long
def test_only_what_is_new_is_read(server: S3Server, prefix: str, tmp_path: Path) -> None:
    """A listing says the content of every segment: reading 400 GB each night would cost more than storing them."""
    first, read = back_up(tmp_path / "a", server, prefix, disk(tmp_path / "to"))
    landed = [file for file in first.manifest.files if file.part == LANDED]
    assert len(landed) == 3 + 2 + 1  # segments, closings, first day
    assert len(read) == len(landed)
    assert not any("landing zone s3" in each for each in first.manifest.left_out)
    again, read = back_up(tmp_path / "a", server, prefix, disk(tmp_path / "to"))
    assert (read, again.copied_files) == ([], 0)
    new = land(tmp_path / "a", server, prefix, OPEN, "second")
    third, read = back_up(tmp_path / "a", server, prefix, disk(tmp_path / "to"))
    assert (read, third.copied_files) == ([new], 1)
    ingest(tmp_path / "a", server, prefix, [day(2)])
    land(tmp_path / "a", server, prefix, day(2), "third")
    ingest(tmp_path / "a", server, prefix, [day(2)])
    _, read = back_up(tmp_path / "a", server, prefix, disk(tmp_path / "to"))
    assert "_CLOSED.json" in read


@pytest.mark.long
@pytest.mark.parametrize("kind", ["disk", "bucket"])
def test_lost_with_its_home_it_comes_back_to_s3(server: S3Server, prefix: str, tmp_path: Path, kind: str) -> None:
    place = disk(tmp_path / "to") if kind == "disk" else bucket(server, f"{tmp_path.name}/backups")
    back_up(tmp_path / "a", server, prefix, place)
    before, home_id = read_objects(server, prefix), Workbench(tmp_path / "a").lake.home_id
    shutil.move(tmp_path / "a", tmp_path / "lost")
    delete_objects(server, prefix)
    done = put_back(open_stores(tmp_path / "a", server, prefix), place)
    assert (done.home_id, done.kept_landing) == (home_id, None)
    assert read_objects(server, prefix) == before
    # The days are the ones that the ledger knows: nothing is stale.
    ingest(tmp_path / "a", server, prefix, [day(0), day(1)])
    assert open_landing(server, prefix).read_owner().id == home_id  # type: ignore[union-attr]


def test_restored_to_a_disk_its_days_are_the_ones_that_the_ledger_knows(
    server: S3Server, prefix: str, tmp_path: Path
) -> None:
    """On S3 a segment's name has its hash; the ledger's hash of a day is made of these names, so they stay."""
    back_up(tmp_path / "a", server, prefix, disk(tmp_path / "to"))
    put_back(open_stores(tmp_path / "b", server, None), disk(tmp_path / "to"))
    bench = Workbench(tmp_path / "b")
    zone = bench.zone(EventKind.PREDICTION)
    assert zone.list_days() == [day(0), day(1), OPEN]
    entries = read_entries(bench.lake, PREFERENCE_TABLES.predictions.name)
    assert zone.read(DAY, LONG_AFTER).content_hash == entries[DAY].content_hash
    bench.ingest(EventKind.PREDICTION, [DAY, OPEN])
    assert [row["event_id"] for row in bench.rows(PREFERENCE_TABLES.predictions, [OPEN])] == [f"first {OPEN}"]
    assert {path.stat().st_mode & 0o077 for path in zone.find_day_folder(DAY).iterdir()} == {0}


@pytest.mark.long
def test_a_zone_that_survived_is_left_as_it_is(server: S3Server, prefix: str, tmp_path: Path) -> None:
    """It is newer than the backup: what an erasure has taken out of it since must not come back."""
    back_up(tmp_path / "a", server, prefix, disk(tmp_path / "to"))
    erased = next(path for path in read_objects(server, prefix) if str(OPEN) in path)
    server.client.delete_object(Bucket=server.bucket, Key=f"{prefix}/{erased}")
    land(tmp_path / "a", server, prefix, OPEN, "since")
    before = read_objects(server, prefix)
    shutil.move(tmp_path / "a", tmp_path / "lost")
    done = put_back(open_stores(tmp_path / "a", server, prefix), disk(tmp_path / "to"))
    assert done.kept_landing == f"s3://{server.bucket}/{prefix}"
    assert read_objects(server, prefix) == before


@pytest.mark.long
def test_a_zone_with_events_is_not_filled_by_another_home(server: S3Server, prefix: str, tmp_path: Path) -> None:
    back_up(tmp_path / "a", server, prefix, disk(tmp_path / "to"))
    other = open_stores(tmp_path / "b", server, prefix)
    with pytest.raises(HomeMismatchError, match="belongs to the home"):
        put_back(other, disk(tmp_path / "to"))
    server.client.delete_object(Bucket=server.bucket, Key=f"{prefix}/_HOME.json")
    with pytest.raises(BackupError, match=r"holds events, for instance .*Nothing was changed"):
        put_back(other, disk(tmp_path / "to"))
    assert not (tmp_path / "b" / RESTORING_FILE).exists()
    put_back(open_stores(tmp_path / "b", server, f"{tmp_path.name}/other"), disk(tmp_path / "to"))
    assert read_objects(server, f"{tmp_path.name}/other") == read_objects(server, prefix)


@pytest.mark.long
def test_an_interrupted_restore_goes_on_and_never_replaces(server: S3Server, prefix: str, tmp_path: Path) -> None:
    place = disk(tmp_path / "to")
    back_up(tmp_path / "a", server, prefix, place)
    before = read_objects(server, prefix)
    content = next(path for path in (tmp_path / "to" / "objects").rglob("*") if path.name in max(before))
    content.rename(tmp_path / "away")
    there = open_stores(tmp_path / "b", server, f"{tmp_path.name}/other")
    with pytest.raises(BackupError, match="the backup is damaged there"):
        put_back(there, place)
    assert (tmp_path / "b" / RESTORING_FILE).exists()
    (tmp_path / "away").rename(content)
    put_back(there, place)
    assert read_objects(server, f"{tmp_path.name}/other") == before


def test_what_a_killed_erasure_left_on_s3_is_not_received_on_a_disk(
    server: S3Server, prefix: str, tmp_path: Path
) -> None:
    """A closing names it as no part of its day; a disk's reader would take it for late, and receive the person."""
    zone = open_landing(server, prefix).open_zone(APPLICATION, EventKind.PREDICTION)
    left = land(tmp_path / "a", server, prefix, DAY, "erased")
    sealed = zone.find_closing(DAY)
    assert sealed is not None
    zone.replace_closing(DAY, Closing(sealed.closing.closed_at, sealed.closing.segments, erasing=[left]), sealed.etag)
    back_up(tmp_path / "a", server, prefix, disk(tmp_path / "to"))
    put_back(open_stores(tmp_path / "b", server, None), disk(tmp_path / "to"))
    restored = Workbench(tmp_path / "b").zone(EventKind.PREDICTION)
    assert restored.republish_late(LONG_AFTER) == []
    assert restored.look(DAY).is_closed


def test_a_damaged_segment_is_named_and_is_no_backup(server: S3Server, prefix: str, tmp_path: Path) -> None:
    damaged = next(path for path in read_objects(server, prefix) if str(OPEN) in path)
    server.client.put_object(Bucket=server.bucket, Key=f"{prefix}/{damaged}", Body=b"rotten")
    with pytest.raises(BackupError, match="does not match the sha256 in its name"):
        back_up(tmp_path / "a", server, prefix, disk(tmp_path / "to"))
    assert disk(tmp_path / "to").list_numbers() == []


def test_what_is_not_landed_is_left_out_and_the_place_lies_outside(
    server: S3Server, prefix: str, tmp_path: Path
) -> None:
    """A bucket may be shared with the warehouse."""
    before = read_objects(server, prefix)
    for name in ("warehouse/table/data.parquet", f"{APPLICATION}/prediction/received_date={DAY}/notes.txt"):
        server.client.put_object(Bucket=server.bucket, Key=f"{prefix}/{name}", Body=b"other")
    made, _ = back_up(tmp_path / "a", server, prefix, disk(tmp_path / "to"))
    assert {file.path for file in made.manifest.files if file.part == LANDED} == set(before)
    with pytest.raises(BackupError, match="lies in"):
        back_up(tmp_path / "a", server, prefix, bucket(server, f"{prefix}/backups"))


def test_s3_that_stops_in_the_middle_is_transient_and_the_next_backup_goes_on(
    server: S3Server, prefix: str, tmp_path: Path
) -> None:
    from botocore.exceptions import ResponseStreamingError

    class Torn:
        """A body that ends with its connection."""

        def read(self, size: int) -> bytes:
            raise ResponseStreamingError(error="cut")

        def close(self) -> None:
            pass

    class Tearing(CountingClient):
        def get_object(self, **parameters: Any) -> Any:
            found = super().get_object(**parameters)
            return found | {"Body": Torn()} if parameters["Key"].endswith(".jsonl") else found

    source = build_backup_source(open_stores(tmp_path / "a", server, prefix))
    torn = ObjectLanding.from_uri(f"s3://{server.bucket}/{prefix}", Tearing(server.client))
    with pytest.raises(LandingUnavailableError, match="does not answer"):
        take_backup(replace(source, landing=torn), disk(tmp_path / "to"), now=datetime.now(UTC) - timedelta(days=1))
    made, _ = back_up(tmp_path / "a", server, prefix, disk(tmp_path / "to"))
    assert made.manifest.number == 1
