"""A warehouse in a bucket that keeps what is deleted: an erasure reaches that, too, and nothing that is needed."""

import itertools
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flywheel_assets.curation.texts.resolution import ResolutionRules
from flywheel_assets.lake.daily.ledger import RunStamp
from flywheel_assets.lake.erasure.erase import Place, Receipt, erase_person, plan_erasure
from flywheel_assets.lake.erasure.landing import ErasableLanding
from flywheel_assets.lake.landing.disk import DiskLanding, EventKind
from flywheel_assets.lake.storage import s3
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import CURATED_DPO_PAIRS, PREFERENCE_TABLES, RAW_PREDICTIONS
from flywheel_assets.lake.upkeep.garbage import (
    DeletedVersions,
    delete_bucket_versions,
    explain_versions_left,
    find_table_folder,
    list_needed_paths,
    sweep_table,
)
from flywheel_assets.lake.upkeep.maintenance import MaintenanceRules, Upkeep, maintain_tables
from flywheel_assets.lake.versions.folders import Versions
from flywheel_assets.lake.versions.pair_versions import cut_pair_version
from flywheel_assets.lake.versions.verification import verify_versions
from flywheel_assets_tests import everywhere
from flywheel_assets_tests.builders import APPLICATION, DAY, make_feedback, make_prediction
from flywheel_assets_tests.lake.workbench import LONG_AFTER, Workbench
from flywheel_assets_tests.s3_server import S3Server

MARK = "zzyzx"
PERSON = f"mallory-{MARK}"
NOW = LONG_AFTER + timedelta(days=1)
FAR = datetime(2100, 1, 1, tzinfo=UTC)
_buckets = (f"warehouse-{number}" for number in itertools.count())


class Warehouse:
    """A bucket of its own that keeps versions, and a lake in it."""

    def __init__(self, root: Path, server: S3Server) -> None:
        self.bucket, self.client = next(_buckets), server.client
        self.client.create_bucket(Bucket=self.bucket, ObjectLockEnabledForBucket=True)  # locks need versions
        self.bench = Workbench(root)
        self.bench.lake = self.lake = Lake(
            APPLICATION,
            f"sqlite:///{root}/catalog.db",
            f"s3://{self.bucket}/warehouse",
            root / "scratch",
            storage={"s3.endpoint": server.endpoint},
        )
        self.versions = Versions(root / "versions", APPLICATION)

    def forget(self, client: Any = None) -> DeletedVersions:
        return delete_bucket_versions(self.lake, [RAW_PREDICTIONS], lambda: client or self.client)

    def maintain(self) -> Upkeep:
        return maintain_tables(
            self.lake,
            PREFERENCE_TABLES,
            self.versions,
            DiskLanding(self.bench.landing),
            self.bench.window,
            MaintenanceRules(grace_hours=0),
            RunStamp("maintain", "1", FAR),
            lambda: self.client,
        )

    def kept(self) -> list[tuple[str, str]]:
        """Name and id of every version of deleted files."""
        found = self.client.list_object_versions(Bucket=self.bucket)
        deleted = {each["Key"] for each in found.get("DeleteMarkers", []) if each["IsLatest"]}
        return [(each["Key"], each["VersionId"]) for each in found.get("Versions", []) if each["Key"] in deleted]

    def names(self) -> set[str]:
        """What a listing of the bucket shows."""
        return {each["Key"] for each in self.client.list_objects_v2(Bucket=self.bucket)["Contents"]}

    def markers(self) -> int:
        """How many markers of deletion there are."""
        return len(self.client.list_object_versions(Bucket=self.bucket).get("DeleteMarkers", []))

    def quoting(self, folder: Path) -> list[str]:
        """Versions of objects, deleted or not, that quote the mark when they are decoded."""
        folder.mkdir()
        for each in self.client.list_object_versions(Bucket=self.bucket).get("Versions", []):
            name = f"{each['VersionId']}-{each['Key'].replace('/', '_')}"
            answer = self.client.get_object(Bucket=self.bucket, Key=each["Key"], VersionId=each["VersionId"])
            (folder / name).write_bytes(answer["Body"].read())
        found = everywhere.quoting(folder, MARK)
        shutil.rmtree(folder)
        return found


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, server: S3Server) -> Iterator[Warehouse]:
    """With a table of one day; writing one takes two dozen requests."""
    warehouse = Warehouse(tmp_path_factory.mktemp("shared"), server)
    warehouse.bench.write(RAW_PREDICTIONS, DAY, [{**make_prediction(prompt="needed"), "received_date": DAY}])
    yield warehouse
    warehouse.lake.catalog.engine.dispose()


@pytest.fixture
def swept(shared: Warehouse) -> Warehouse:
    """A data file and a manifest that nothing reached were swept."""
    shared.forget()
    folder = find_table_folder(shared.lake.load_table(RAW_PREDICTIONS)).removeprefix(f"{shared.bucket}/")
    for name in ("data/one.parquet", "metadata/two.avro"):
        shared.client.put_object(Bucket=shared.bucket, Key=f"{folder}/{name}", Body=MARK.encode())
    assert sweep_table(shared.lake, RAW_PREDICTIONS, timedelta(0), FAR).deleted.files == 2
    assert len(shared.kept()) == 2
    return shared


def test_versions_of_swept_files_go_with_their_markers_and_the_table_stays(swept: Warehouse) -> None:
    assert swept.forget() == DeletedVersions(deleted=2)
    assert (swept.kept(), swept.markers()) == ([], 0)
    assert swept.lake.read(RAW_PREDICTIONS)["prompt"].to_pylist() == ["needed"]
    assert swept.forget() == DeletedVersions()


class Dies:
    """A client that is killed at its nth deletion of versions."""

    def __init__(self, client: Any, at: int) -> None:
        self._client, self._left = client, at

    def __getattr__(self, name: str) -> Any:
        if name == "delete_objects":
            self._left -= 1
            if not self._left:
                raise KeyboardInterrupt
        return getattr(self._client, name)


def test_killed_anywhere_the_next_one_goes_on(swept: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bucket alone knows what is left, in which order it may go, and that a file must not come back."""
    monkeypatch.setattr(s3, "_AT_ONCE", 1)
    there = swept.names()
    left = []
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            swept.forget(Dies(swept.client, 2))
        assert swept.names() == there
        left.append((len(swept.kept()), swept.markers()))
    assert left == [(1, 2), (0, 2), (0, 1)]
    assert swept.forget() == DeletedVersions()
    assert swept.markers() == 0


def test_a_locked_version_is_told_and_stays_deleted_until_it_can_go(swept: Warehouse) -> None:
    """Without its marker the newest version would be the file again."""
    [(key, version), _] = swept.kept()
    held = {"Bucket": swept.bucket, "Key": key, "VersionId": version}
    swept.client.put_object_legal_hold(**held, LegalHold={"Status": "ON"})
    done = swept.forget()
    assert done == DeletedVersions(deleted=1, refused=1, problems=frozenset({"AccessDenied"}))
    [sentence] = explain_versions_left(swept.lake.warehouse, done)
    assert sentence.startswith(f"S3 did not let us delete 1 old versions of deleted files under s3://{swept.bucket}/")
    assert "(AccessDenied): give the command again with an account that may" in sentence
    assert swept.kept() == [(key, version)]
    with pytest.raises(swept.client.exceptions.NoSuchKey):
        swept.client.get_object(Bucket=swept.bucket, Key=key)
    swept.client.put_object_legal_hold(**held, LegalHold={"Status": "OFF"})
    assert swept.forget() == DeletedVersions(deleted=1)
    assert (swept.kept(), swept.markers()) == ([], 0)


@pytest.mark.parametrize("request_name", ["get_bucket_versioning", "get_paginator"])
def test_a_bucket_that_nobody_lets_us_look_into_is_told(swept: Warehouse, request_name: str) -> None:
    from botocore.exceptions import ClientError

    class Refuses:
        def __getattr__(self, name: str) -> Any:
            if name == request_name:
                raise ClientError({"Error": {"Code": "AccessDenied"}}, name)
            return getattr(swept.client, name)

    done = swept.forget(Refuses())
    assert done == DeletedVersions(problems=frozenset({"AccessDenied"}))
    [sentence] = explain_versions_left(swept.lake.warehouse, done)
    assert sentence.startswith("whether old versions of deleted files are left is not known under s3://")


def test_what_is_needed_and_what_is_not_ours_is_left_alone(swept: Warehouse) -> None:
    """A needed file that somebody deletes by mistake can be brought back; other folders are other people's."""
    needed = next(
        path for path in list_needed_paths(swept.lake.load_table(RAW_PREDICTIONS)) if path.endswith(".parquet")
    )
    key = needed.removeprefix(f"{swept.bucket}/")
    folder = key.partition("/data/")[0]
    sibling = f"{folder}_of_others/data/x.parquet"
    swept.client.put_object(Bucket=swept.bucket, Key=sibling, Body=b"theirs")
    deletions = {each: swept.client.delete_object(Bucket=swept.bucket, Key=each) for each in (key, sibling)}
    assert swept.forget() == DeletedVersions(deleted=2)
    assert {name for name, _ in swept.kept()} == set(deletions)
    for name, deletion in deletions.items():
        swept.client.delete_object(Bucket=swept.bucket, Key=name, VersionId=deletion["VersionId"])
    assert swept.lake.read(RAW_PREDICTIONS)["prompt"].to_pylist() == ["needed"]


@pytest.mark.long
def test_while_nobody_was_erased_the_upkeep_leaves_versions_to_the_bucket(swept: Warehouse) -> None:
    kept = swept.kept()
    assert swept.maintain().versions_deleted == DeletedVersions()
    assert set(kept) <= set(swept.kept())


def test_a_bucket_without_versions_and_a_disk_ask_for_nothing(
    tmp_path: Path, server: S3Server, bench: Workbench
) -> None:
    lake = Lake(APPLICATION, bench.lake.catalog_uri, f"s3://{server.bucket}/plain", tmp_path / "scratch")
    assert delete_bucket_versions(lake, [RAW_PREDICTIONS], lambda: server.client) == DeletedVersions()
    assert delete_bucket_versions(bench.lake, [RAW_PREDICTIONS], lambda: pytest.fail("asked")) == DeletedVersions()
    assert explain_versions_left("s3://b/w", DeletedVersions(deleted=3)) == []


# The whole command -------------------------------------------------------------------------------------------------


class Erased:
    """A day of two people, materialized twice and cut, of whom one is to be erased."""

    def __init__(self, warehouse: Warehouse) -> None:
        self.warehouse, self.bench = warehouse, warehouse.bench
        bench = warehouse.bench
        rows = {PERSON: MARK, "ada": "harmless"}
        predictions = [make_prediction(prediction_id=f"p-{word}", user_id=user) for user, word in rows.items()]
        words = {name: f"Open the {name} valve of {{}}, then wait." for name in ("prompt", "original_output")}
        feedback = [
            make_feedback(
                prediction_id=f"p-{word}",
                user_id=user,
                final_text=f"Close {word} with the key and note the pressure.",
                **{name: text.format(word) for name, text in words.items()},
            )
            for user, word in rows.items()
        ]
        bench.land(EventKind.PREDICTION, DAY, predictions)
        bench.land(EventKind.FEEDBACK, DAY, feedback)
        for _ in range(2):
            bench.ingest_both([DAY])
        bench.join([DAY])
        bench.curate([DAY])
        cut_pair_version(bench.lake, warehouse.versions, "dpo_gold_v1", ResolutionRules(holdout_share=0.0), "1")

    def erase(self, grace: timedelta, client: Any = None) -> Receipt:
        bench = self.bench
        place = Place(
            bench.lake,
            PREFERENCE_TABLES,
            self.warehouse.versions,
            ErasableLanding(APPLICATION, bench.landing, bench.root / "scratch" / "landing"),
            bench.start,
            {},
            s3_client=lambda: client or self.warehouse.client,
        )
        return erase_person(place, plan_erasure(place, PERSON), who="ada", reason="asked", now=NOW, grace=grace)


@pytest.fixture
def world(tmp_path: Path, server: S3Server) -> Iterator[Erased]:
    warehouse = Warehouse(tmp_path, server)
    yield Erased(warehouse)
    warehouse.lake.catalog.engine.dispose()


@pytest.mark.slow
def test_no_version_of_any_object_holds_the_person(world: Erased, tmp_path: Path) -> None:
    """Killed once on its way; the bucket is all that the next one goes by."""
    warehouse = world.warehouse
    assert warehouse.quoting(tmp_path / "all")
    with pytest.raises(KeyboardInterrupt):
        world.erase(timedelta(0), Dies(warehouse.client, 3))
    left = warehouse.kept()
    assert left
    receipt = world.erase(timedelta(0))
    assert warehouse.quoting(tmp_path / "all") == []
    assert warehouse.kept() == []
    assert receipt.file_versions >= len(left)
    assert receipt.out_of_reach == []
    assert world.bench.lake.read(CURATED_DPO_PAIRS)["subject"].to_pylist() == ["ada"]
    assert verify_versions(world.bench.lake, warehouse.versions, CURATED_DPO_PAIRS).differences == ()


@pytest.mark.slow
def test_files_in_their_grace_period_are_forgotten_by_the_upkeep_after_it(world: Erased, tmp_path: Path) -> None:
    warehouse = world.warehouse
    receipt = world.erase(timedelta(hours=24))
    assert receipt.files_waiting
    assert warehouse.kept() == [], "for what was deleted before, for instance old metadata, nothing waits"
    assert warehouse.quoting(tmp_path / "all")
    upkeep = warehouse.maintain()
    assert upkeep.versions_deleted.deleted >= upkeep.files_deleted.files
    assert warehouse.quoting(tmp_path / "all") == []
