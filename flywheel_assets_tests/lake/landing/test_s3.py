"""The landing zone on S3 keeps what the one on a disk keeps: closings, late segments, the same rows in the table."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pytest

from flywheel_assets.errors import (
    ClosedDayError,
    LandingError,
    LandingRetiredError,
    LandingUnavailableError,
    SettingsError,
)
from flywheel_assets.lake.daily.ingest import ingest_days
from flywheel_assets.lake.landing.disk import CLOSED_FILE, EventKind, LandedDay
from flywheel_assets.lake.landing.s3 import ObjectLanding, ObjectLandingZone
from flywheel_assets.lake.tables.specs import GROUND_TRUTH
from flywheel_assets_tests.builders import APPLICATION, DAY, day, make_feedback
from flywheel_assets_tests.lake.workbench import Workbench, stamp
from flywheel_assets_tests.s3_server import S3Server

END = datetime.combine(DAY + timedelta(days=1), time(), UTC)
CLOSED = END + timedelta(hours=1)


@pytest.fixture
def zone(landing: ObjectLanding) -> ObjectLandingZone:
    return landing.open_zone(APPLICATION, EventKind.FEEDBACK)


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def publish(zone: ObjectLandingZone, spool: Path, name: str, content: bytes = b"{}\n", on: int = 0) -> str:
    spool.mkdir(exist_ok=True)
    path = spool / f"{name}.jsonl"
    path.write_bytes(content)
    return zone.publish(path, day(on))


def names(landed: LandedDay) -> list[str]:
    return [path.name.partition(".")[0] for path in landed.paths]


def _keys(zone: ObjectLandingZone) -> list[str]:
    found = zone.landing.client.list_objects_v2(Bucket=zone.landing.bucket, Prefix=f"{zone.folder}/").get(
        "Contents", []
    )
    return [each["Key"].removeprefix(f"{zone.folder}/") for each in found]


@pytest.mark.parametrize(("after_end", "is_closed"), [(timedelta(minutes=14), False), (timedelta(minutes=15), True)])
def test_a_day_closes_fifteen_minutes_after_its_end(
    zone: ObjectLandingZone, spool: Path, after_end: timedelta, is_closed: bool
) -> None:
    publish(zone, spool, "b")
    publish(zone, spool, "a")
    landed = zone.read(DAY, END + after_end)
    assert (landed.is_closed, names(landed)) == (is_closed, ["a", "b"])
    assert any(key.endswith(CLOSED_FILE) for key in _keys(zone)) is is_closed
    assert zone.list_days() == [DAY]


def test_an_open_day_takes_segments_and_a_closed_one_never_changes(zone: ObjectLandingZone, spool: Path) -> None:
    publish(zone, spool, "a")
    opened = zone.read(DAY, END)
    publish(zone, spool, "b")
    assert zone.read(DAY, END).content_hash != opened.content_hash
    closed = zone.read(DAY, CLOSED)
    publish(zone, spool, "late")
    assert zone.read(DAY, CLOSED + timedelta(days=3)) == closed
    # A clock that is behind does not open it again.
    assert zone.read(DAY, END).is_closed


def test_a_late_segment_moves_to_the_day_on_which_it_was_found(zone: ObjectLandingZone, spool: Path) -> None:
    publish(zone, spool, "a")
    zone.read(DAY, CLOSED)
    publish(zone, spool, "late", b'{"late":1}\n')
    now = CLOSED + timedelta(days=2)
    [moved] = zone.republish_late(now)
    assert moved.startswith("late.")
    assert zone.republish_late(now) == []
    landed = zone.read(now.date(), now)
    assert names(landed) == ["late"]
    with zone.fetch(landed, spool) as [path]:
        assert path.read_bytes() == b'{"late":1}\n'
    assert not path.exists()


def test_a_reader_whose_clock_is_behind_leaves_late_segments_where_they_are(
    zone: ObjectLandingZone, spool: Path
) -> None:
    """It copied a segment to what it took for today, the very same place, and then deleted it."""
    publish(zone, spool, "a")
    zone.read(DAY, CLOSED)
    publish(zone, spool, "late")
    behind = END - timedelta(hours=3)
    assert names(zone.read(DAY, behind)) == ["a"]
    assert zone.republish_late(behind) == []
    assert len(zone.republish_late(CLOSED)) == 1
    assert names(zone.read(CLOSED.date(), CLOSED)) == ["late"]


def test_a_segment_that_comes_while_its_day_is_being_closed_is_late_and_not_lost(
    zone: ObjectLandingZone, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(zone, spool, "a")
    create = ObjectLandingZone._create

    def arrive_first(self: ObjectLandingZone, key: str, body: Any) -> bool:
        if key.endswith(CLOSED_FILE):
            monkeypatch.undo()
            publish(zone, spool, "late")
        return create(self, key, body)

    monkeypatch.setattr(ObjectLandingZone, "_create", arrive_first)
    assert names(zone.read(DAY, CLOSED)) == ["a"]
    assert names(zone.read(CLOSED.date(), CLOSED)) == ["late"]


def test_readers_that_close_a_day_at_the_same_moment_agree(zone: ObjectLandingZone, spool: Path) -> None:
    for number in range(3):
        publish(zone, spool, f"s{number}")
    with ThreadPoolExecutor(6) as threads:
        landed = list(threads.map(lambda number: zone.read(DAY, CLOSED + timedelta(seconds=number)), range(6)))
    assert len({each.content_hash for each in landed}) == 1
    assert all(names(each) == ["s0", "s1", "s2"] for each in landed)


def test_a_closing_by_another_reader_with_more_segments_holds(
    zone: ObjectLandingZone, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list that a reader had made before the other closed the day once looked as if segments were gone."""
    publish(zone, spool, "a")
    segments = ObjectLandingZone.list_segments

    def list_too_early(self: ObjectLandingZone, of: Any) -> Any:
        found = segments(self, of)
        monkeypatch.undo()
        publish(zone, spool, "b")
        assert names(zone.read(DAY, CLOSED)) == ["a", "b"]
        return found

    monkeypatch.setattr(ObjectLandingZone, "list_segments", list_too_early)
    assert names(zone.read(DAY, CLOSED)) == ["a", "b"]


def test_publishing_again_changes_nothing(zone: ObjectLandingZone, spool: Path) -> None:
    assert publish(zone, spool, "a") == publish(zone, spool, "a")
    assert names(zone.read(DAY, END)) == ["a"]


def test_what_happened_to_a_closed_days_objects_is_told(zone: ObjectLandingZone, spool: Path) -> None:
    first, second = (publish(zone, spool, name, b'{"n":1}\n') for name in "ab")
    landed = zone.read(DAY, CLOSED)

    def key(name: str) -> str:
        return f"{zone.folder}/received_date={DAY}/{name}"

    client = zone.landing.client
    client.put_object(Bucket=zone.landing.bucket, Key=key(first), Body=b'{"n":2}\n')  # of the same size
    with pytest.raises(ClosedDayError, match="does not match the hash in its name"), zone.fetch(landed, spool):
        pass
    client.put_object(Bucket=zone.landing.bucket, Key=key(first), Body=b"{}\n")
    with pytest.raises(ClosedDayError, match="has 3 bytes, its closing recorded 8"):
        zone.read(DAY, CLOSED)
    client.delete_object(Bucket=zone.landing.bucket, Key=key(second))
    with pytest.raises(LandingRetiredError, match="1 of 2 segments"):
        zone.read(DAY, CLOSED)


def test_other_objects_beside_the_segments_are_left_alone(zone: ObjectLandingZone, spool: Path) -> None:
    publish(zone, spool, "a")
    for name in ("notes.txt", "no-hash.jsonl"):
        zone.landing.client.put_object(
            Bucket=zone.landing.bucket, Key=f"{zone.folder}/received_date={DAY}/{name}", Body=b"x"
        )
    assert names(zone.read(DAY, CLOSED)) == ["a"]


def test_failures_are_ours_and_say_whether_to_try_again(server: S3Server, spool: Path) -> None:
    import boto3
    from botocore.config import Config

    nowhere = ObjectLanding.from_uri("s3://no-such-bucket/x", server.client).open_zone(APPLICATION, EventKind.FEEDBACK)
    with pytest.raises(SettingsError, match="NoSuchBucket"):
        nowhere.read(DAY, END)
    config = Config(retries={"total_max_attempts": 1})
    silent = boto3.session.Session().client("s3", endpoint_url="http://127.0.0.1:1", config=config)
    unreachable = ObjectLanding.from_uri(f"s3://{server.bucket}", silent)
    with pytest.raises(LandingUnavailableError, match="does not answer"):
        publish(unreachable.open_zone(APPLICATION, EventKind.FEEDBACK), spool, "a")


@pytest.mark.parametrize("uri", ["", "bucket/prefix", "s3://", "gs://bucket", "s3://bucket?x=1"])
def test_an_unusable_uri_is_refused(uri: str) -> None:
    with pytest.raises(SettingsError, match="FLYWHEEL_LANDING_S3"):
        ObjectLanding.from_uri(uri, None)


def test_the_table_is_the_same_as_from_a_disk(landing: ObjectLanding, tmp_path: Path, spool: Path) -> None:
    rows = [make_feedback(event_id=f"e-{number}") for number in range(5)]
    contents = [rows[:3], [rows[2], *rows[3:], b"not an event"]]
    disk, s3 = Workbench(tmp_path / "disk"), Workbench(tmp_path / "s3")
    for number, content in enumerate(contents):
        path = disk.land(EventKind.FEEDBACK, DAY, content, f"segment-{number}")
        publish(landing.open_zone(APPLICATION, EventKind.FEEDBACK), spool, f"segment-{number}", path.read_bytes())
    from_disk = disk.ingest(EventKind.FEEDBACK, [DAY])
    from_s3 = ingest_days(s3.lake, landing, EventKind.FEEDBACK, [DAY], stamp())
    assert s3.rows(GROUND_TRUTH) == disk.rows(GROUND_TRUTH) != []
    assert from_s3[DAY].rows_by_reason == from_disk[DAY].rows_by_reason == {"duplicate_event": 1, "malformed_event": 1}
    assert from_s3[DAY].is_closed
    assert list((s3.lake.scratch / "landing").iterdir()) == []


def test_a_damaged_closing_is_refused_and_the_other_days_go_on(zone: ObjectLandingZone, spool: Path) -> None:
    """It ended every ingest of every day in a traceback of the decoder."""
    publish(zone, spool, "a")
    zone.read(DAY, CLOSED)
    publish(zone, spool, "b", on=1)
    zone.read(day(1), CLOSED + timedelta(days=1))
    key = zone.build_key(DAY, CLOSED_FILE)
    zone.landing.client.put_object(Bucket=zone.landing.bucket, Key=key, Body=b"\xff{")
    for read in (zone.look, lambda on: zone.read(on, CLOSED)):
        with pytest.raises(ClosedDayError, match=r"_CLOSED\.json is damaged .*Restore an older version"):
            read(DAY)
    publish(zone, spool, "late", on=1)
    assert len(zone.republish_late(CLOSED + timedelta(days=3))) == 1
    assert names(zone.look(day(1))) == ["b"]


def test_a_damaged_first_day_is_named(landing: ObjectLanding) -> None:
    landing.note_first_day(APPLICATION, DAY)
    key = "/".join(filter(None, (landing.prefix, APPLICATION, "_HISTORY.json")))
    landing.client.put_object(Bucket=landing.bucket, Key=key, Body=b"{")
    with pytest.raises(LandingError, match=r"_HISTORY\.json is damaged .*flywheel history"):
        landing.read_first_day(APPLICATION)
