"""Erasure of a person whose events were landed on S3: segments, closings, old versions, and the spool on the way."""

import fcntl
import itertools
import json
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flywheel_assets.errors import LandingUnavailableError, OpenSegmentError
from flywheel_assets.lake.daily.ingest import ingest_days
from flywheel_assets.lake.daily.ledger import audit_accounts
from flywheel_assets.lake.erasure.erase import Place, Receipt, erase_person, plan_erasure
from flywheel_assets.lake.erasure.landing import ErasableLanding, LandedErasure, erase_lines
from flywheel_assets.lake.landing.disk import UNREADABLE_FOLDER, EventKind, LandingZone
from flywheel_assets.lake.landing.s3 import ObjectLanding, ObjectLandingZone
from flywheel_assets.lake.storage.files import hash_file
from flywheel_assets.lake.tables.specs import GROUND_TRUTH, PREFERENCE_TABLES
from flywheel_assets.lake.versions.folders import Versions
from flywheel_assets_tests.builders import APPLICATION, DAY, day, make_feedback, make_prediction
from flywheel_assets_tests.lake.kills import FailsAt, Killed
from flywheel_assets_tests.lake.workbench import LONG_AFTER, Workbench, stamp
from flywheel_assets_tests.s3_server import S3Server

MARK = "zzyzx"
PERSON = f"mallory-{MARK}"
NOW = LONG_AFTER
_buckets = (f"versioned-{number}" for number in itertools.count())


@pytest.fixture
def versioned(server: S3Server) -> ObjectLanding:
    bucket = next(_buckets)
    server.client.create_bucket(Bucket=bucket)
    server.client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    return ObjectLanding.from_uri(f"s3://{bucket}/landing", server.client)


def line(person: bool, number: int) -> bytes:
    who = {"user_id": PERSON, "final_text": f"about {MARK}"} if person else {"user_id": f"user-{number}"}
    return json.dumps({"event_id": f"e-{'p' if person else 'o'}{number}", **who}).encode() + b"\n"


def publish(zone: ObjectLandingZone, spool: Path, name: str, persons: str, on: int = 0) -> str:
    """A segment with one line per letter: p of the person, o of somebody else."""
    spool.mkdir(exist_ok=True)
    path = spool / f"{name}.jsonl"
    path.write_bytes(b"".join(line(letter == "p", number) for number, letter in enumerate(persons)))
    return zone.publish(path, day(on))


def is_gone(landed: bytes) -> bool:
    return MARK.encode() in landed


def clock() -> datetime:
    return NOW


def run(zone: ObjectLandingZone, tmp_path: Path, now: Callable[[], datetime] = clock) -> LandedErasure:
    return erase_lines(zone, is_gone, "erasure1", now, tmp_path / "work")


def objects(landing: ObjectLanding) -> dict[str, bytes]:
    """Everything in the bucket under the zone's prefix, every version of it."""
    found = landing.client.list_object_versions(Bucket=landing.bucket, Prefix=landing.prefix)
    return {
        f"{each['Key']}@{each['VersionId']}": landing.client.get_object(
            Bucket=landing.bucket, Key=each["Key"], VersionId=each["VersionId"]
        )["Body"].read()
        for each in found.get("Versions", [])
    }


def quoting(landing: ObjectLanding) -> list[str]:
    return [key for key, content in objects(landing).items() if MARK.encode() in content]


def lines_read(zone: ObjectLandingZone, tmp_path: Path, on: int = 0) -> list[bytes]:
    landed = zone.read(day(on), NOW)
    with zone.fetch(landed, tmp_path / "read") as paths:
        return [each for path in paths for each in path.read_bytes().splitlines()]


@pytest.mark.parametrize("last_closing", [1, 3], ids=["killed when the new objects are there", "finished"])
def test_a_reader_between_closing_and_listing_neither_moves_nor_misses_what_is_rewritten(
    landing: ObjectLanding, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last_closing: int
) -> None:
    zone = landing.open_zone(APPLICATION, EventKind.FEEDBACK)
    name = publish(zone, tmp_path / "spool", "a", "op")
    zone.read(DAY, NOW)
    list_now, replace_now = ObjectLandingZone.list_segments, ObjectLandingZone.replace_closing
    closings = itertools.count()

    def replace_or_die(self: ObjectLandingZone, *arguments: Any) -> str:
        if next(closings) == last_closing:
            raise KeyboardInterrupt
        return replace_now(self, *arguments)

    def list_later(self: ObjectLandingZone, of: Any) -> Any:
        monkeypatch.setattr(ObjectLandingZone, "list_segments", list_now)
        with suppress(KeyboardInterrupt):
            run(zone, tmp_path)
        return list_now(self, of)

    monkeypatch.setattr(ObjectLandingZone, "replace_closing", replace_or_die)
    monkeypatch.setattr(ObjectLandingZone, "list_segments", list_later)
    landed = zone.read(DAY, NOW)
    assert zone.list_days() == [DAY]
    assert [path.name == name for path in landed.paths] == [last_closing == 1]


def test_a_day_that_is_rewritten_between_listing_and_download_is_read_by_the_next_run(
    landing: ObjectLanding, tmp_path: Path
) -> None:
    zone = landing.open_zone(APPLICATION, EventKind.FEEDBACK)
    publish(zone, tmp_path / "spool", "a", "op")
    landed = zone.read(DAY, NOW)
    run(zone, tmp_path)
    with pytest.raises(LandingUnavailableError, match="rewritten since the day was listed"):
        zone.fetch(landed, tmp_path / "read").__enter__()
    assert lines_read(zone, tmp_path) == [line(False, 0).rstrip()]


def test_of_segments_that_stay_as_they_are_no_copy_is_kept(landing: ObjectLanding, tmp_path: Path) -> None:
    zone = landing.open_zone(APPLICATION, EventKind.FEEDBACK)
    for number in range(20):
        publish(zone, tmp_path / "spool", f"s{number}", "oo")
    most = 0

    def look(_: bytes) -> bool:
        nonlocal most
        most = max(most, len(list((tmp_path / "work").rglob("*.jsonl"))))
        return False

    erase_lines(zone, look, "erasure1", clock, tmp_path / "work")
    assert 1 < most <= 9


def test_a_segment_that_lies_in_two_days_is_rewritten_in_both(landing: ObjectLanding, tmp_path: Path) -> None:
    zone = landing.open_zone(APPLICATION, EventKind.FEEDBACK)
    for on in (0, 1):
        publish(zone, tmp_path / "spool", "a", "op", on)
    assert run(zone, tmp_path).lines_per_day == {day(0): 1, day(1): 1}
    assert quoting(landing) == []


def test_a_closed_days_segments_are_replaced_and_its_closing_says_so(landing: ObjectLanding, tmp_path: Path) -> None:
    zone = landing.open_zone(APPLICATION, EventKind.FEEDBACK)
    for name, persons in (("a", "opo"), ("b", "oo"), ("c", "pp")):
        publish(zone, tmp_path / "spool", name, persons)
    before = zone.read(DAY, NOW)
    done = run(zone, tmp_path)
    assert (done.lines_per_day, done.segments) == ({DAY: 3}, 2)
    assert quoting(landing) == []
    after = zone.read(DAY, NOW)
    assert after.is_closed
    assert after.content_hash != before.content_hash
    # The segment without a line of the person is the very same, the one with nothing else is gone.
    assert [path.name.partition(".")[0] for path in after.paths] == ["a", "b"]
    assert set(before.paths) & set(after.paths) == {path for path in before.paths if path.name.startswith("b.")}
    assert len(lines_read(zone, tmp_path)) == 4
    sealed = zone.find_closing(DAY)
    assert sealed is not None
    assert (sealed.closing.erasures, sealed.closing.erasing) == (["erasure1"], [])
    assert run(zone, tmp_path) == LandedErasure({}, 0)
    assert zone.read(DAY, NOW) == after


def test_an_open_day_is_rewritten_and_goes_on(landing: ObjectLanding, tmp_path: Path) -> None:
    zone = landing.open_zone(APPLICATION, EventKind.FEEDBACK)
    publish(zone, tmp_path / "spool", "a", "op")
    at_noon = datetime.combine(DAY, time(12), UTC)
    run(zone, tmp_path, lambda: at_noon)
    assert quoting(landing) == []
    publish(zone, tmp_path / "spool", "b", "oo")
    landed = zone.read(DAY, at_noon)
    assert not landed.is_closed
    assert len(lines_read(zone, tmp_path)) == 3


def test_nothing_is_rewritten_while_its_day_closes(landing: ObjectLanding, tmp_path: Path) -> None:
    """A reader that lists old and new and then closes would list an object that is gone a moment later."""
    zone = landing.open_zone(APPLICATION, EventKind.FEEDBACK)
    publish(zone, tmp_path / "spool", "a", "op")
    before = objects(landing)
    closing = datetime.combine(DAY + timedelta(days=1), time(0, 14), UTC)
    with pytest.raises(OpenSegmentError, match="repeat after 00:15 UTC"):
        run(zone, tmp_path, lambda: closing)
    assert objects(landing) == before


def test_a_late_segment_is_rewritten_where_it_lies(landing: ObjectLanding, tmp_path: Path) -> None:
    zone = landing.open_zone(APPLICATION, EventKind.FEEDBACK)
    publish(zone, tmp_path / "spool", "a", "op")
    zone.read(DAY, NOW)
    publish(zone, tmp_path / "spool", "late", "opp")
    run(zone, tmp_path)
    assert quoting(landing) == []
    assert [name.partition(".")[0] for name in zone.republish_late(NOW)] == ["late"]
    with zone.fetch(zone.read(NOW.date(), NOW), tmp_path / "read") as [path]:
        assert path.read_bytes() == line(False, 0)


@pytest.mark.slow
def test_killed_before_any_request_the_day_is_whole_and_the_next_run_finishes(
    versioned: ObjectLanding, tmp_path: Path
) -> None:
    """Between any two requests readers find each line of others once, no reader moves what is being replaced."""
    plain = versioned.open_zone(APPLICATION, EventKind.FEEDBACK)

    def prepared(on: int) -> None:
        for name, persons in (("a", "opo"), ("b", "oo"), ("c", "pp")):
            publish(plain, tmp_path / "spool", f"{name}{on}", persons, on)
        plain.read(day(on), NOW)
        publish(plain, tmp_path / "spool", f"late{on}", "op", on)

    prepared(0)
    counting = FailsAt(versioned.client, 0)
    run(
        ObjectLanding(counting, versioned.bucket, versioned.prefix).open_zone(APPLICATION, EventKind.FEEDBACK), tmp_path
    )
    assert counting.changes >= 8
    for at in range(1, counting.changes + 1):
        prepared(at)
        dying = ObjectLanding(FailsAt(versioned.client, at), versioned.bucket, versioned.prefix)
        with pytest.raises(Killed):
            run(dying.open_zone(APPLICATION, EventKind.FEEDBACK), tmp_path)
        landed = plain.read(day(at), NOW + timedelta(days=at))
        with plain.fetch(landed, tmp_path / "read") as paths:
            content = b"".join(path.read_bytes() for path in paths)
        assert [content.count(line(False, number)) for number in (0, 1, 2)] == [2, 1, 1], at
        run(plain, tmp_path, lambda at=at: NOW + timedelta(days=at))
        assert quoting(versioned) == [], at
        assert len(lines_read(plain, tmp_path, at)) == 4
        sealed = plain.find_closing(day(at))
        assert sealed is not None
        assert (sealed.closing.erasures, sealed.closing.erasing) == (["erasure1"], []), at


def test_a_closing_that_somebody_else_replaced_is_left_alone(
    landing: ObjectLanding, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zone = landing.open_zone(APPLICATION, EventKind.FEEDBACK)
    publish(zone, tmp_path / "spool", "a", "op")
    zone.read(DAY, NOW)
    replace_closing = ObjectLandingZone.replace_closing

    def too_late(self: ObjectLandingZone, of: Any, closing: Any, seen: str) -> str:
        monkeypatch.undo()
        replace_closing(self, of, msgspec.structs.replace(closing, erasures=["another"]), seen)
        return replace_closing(self, of, closing, seen)

    monkeypatch.setattr(ObjectLandingZone, "replace_closing", too_late)
    with pytest.raises(LandingUnavailableError, match="changed meanwhile"):
        run(zone, tmp_path)
    run(zone, tmp_path)
    assert quoting(landing) == []


def test_versions_of_objects_that_others_deleted_go_too(versioned: ObjectLanding, tmp_path: Path) -> None:
    zone = versioned.open_zone(APPLICATION, EventKind.FEEDBACK)
    publish(zone, tmp_path / "spool", "a", "oo")
    zone.read(DAY, NOW)
    publish(zone, tmp_path / "spool", "late", "op")
    publish(zone, tmp_path / "spool", "harmless", "o")
    zone.republish_late(NOW)  # copied to today and deleted here: the bucket keeps what was deleted
    assert len(quoting(versioned)) == 2
    copies = list(map(Path.read_bytes, zone.read_copies(tmp_path / "work")))
    assert sum(MARK.encode() in copy for copy in copies) == 2, "the keys of deleted versions are searched as well"
    done = run(zone, tmp_path)
    assert quoting(versioned) == []
    assert (done.object_versions, done.versions_left) == (2, 0)
    kept = [key for key in objects(versioned) if "harmless" in key]
    assert len(kept) == 2, "versions without the person are not ours to delete"


def test_versions_that_s3_does_not_let_us_delete_are_told(versioned: ObjectLanding, tmp_path: Path) -> None:
    from botocore.exceptions import ClientError

    class NoRight(FailsAt):
        def __getattr__(self, name: str) -> Any:
            real = getattr(self._client, name)

            def refuse(**arguments: Any) -> Any:
                if "VersionId" in arguments:
                    raise ClientError({"Error": {"Code": "AccessDenied"}}, "DeleteObject")
                return real(**arguments)

            return refuse if name == "delete_object" else real

    publish(versioned.open_zone(APPLICATION, EventKind.FEEDBACK), tmp_path / "spool", "a", "op")
    guarded = ObjectLanding(NoRight(versioned.client, 0), versioned.bucket, versioned.prefix)
    zone = guarded.open_zone(APPLICATION, EventKind.FEEDBACK)
    done = run(zone, tmp_path)
    assert (done.object_versions, done.versions_left) == (0, 1)
    assert len(lines_read(zone, tmp_path)) == 1
    said = ErasableLanding(APPLICATION, tmp_path / "spool", tmp_path / "work", guarded).explain_out_of_reach(1)
    assert any("1 old versions" in sentence and versioned.bucket in sentence for sentence in said)


# The whole command on S3 ------------------------------------------------------------------------------------------


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    return Workbench(tmp_path)


def place_of(bench: Workbench, landing: ObjectLanding) -> Place:
    erasable = ErasableLanding(APPLICATION, bench.landing, bench.root / "scratch" / "landing", landing)
    return Place(
        bench.lake, PREFERENCE_TABLES, Versions(bench.root / "versions", APPLICATION), erasable, bench.start, {}
    )


def forget(place: Place) -> Receipt:
    return erase_person(place, plan_erasure(place, PERSON), who="ada", reason="asked", now=NOW, grace=timedelta(0))


def ship(bench: Workbench, landing: ObjectLanding, kind: EventKind, rows: list[dict[str, Any]], name: str) -> None:
    path = bench.land(kind, DAY, rows, name)
    landing.open_zone(APPLICATION, kind).publish(path, DAY)
    path.unlink()


def person_and_others() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The edit says whose the anonymous prediction is."""
    predictions = [make_prediction(prediction_id=f"p-{MARK}", user_id=None, prompt=f"about {MARK}"), make_prediction()]
    feedback = [make_feedback(prediction_id=f"p-{MARK}", user_id=PERSON, final_text=f"{MARK} works"), make_feedback()]
    return predictions, feedback


def texts_under(root: Path) -> str:
    return "".join(path.read_bytes().decode("latin-1") for path in root.rglob("*") if path.is_file())


@pytest.mark.long
def test_a_person_goes_from_s3_spool_and_tables_and_a_replay_is_refused(
    versioned: ObjectLanding, bench: Workbench
) -> None:
    predictions, feedback = person_and_others()
    ship(bench, versioned, EventKind.PREDICTION, predictions, "p")
    ship(bench, versioned, EventKind.FEEDBACK, feedback, "f")
    for kind in EventKind:
        ingest_days(bench.lake, versioned, kind, [DAY], stamp(NOW))
    waiting = bench.land(
        EventKind.PREDICTION, day(1), [{**predictions[0], "event_id": "waits"}, make_prediction()], "w"
    )
    alone = bench.land(EventKind.PREDICTION, day(1), [{**predictions[0], "event_id": "alone"}], "alone")
    unreadable = bench.landing / UNREADABLE_FOLDER
    unreadable.mkdir()
    (unreadable / "quotes.message").write_text(f"version 99 {PERSON}")
    (unreadable / "other.message").write_text("version 99")

    place = place_of(bench, versioned)
    receipt = forget(place)
    assert quoting(versioned) == []
    assert MARK not in texts_under(bench.root)
    assert waiting.read_bytes().count(b"\n") == 1
    assert not alone.exists()
    assert receipt.landed_lines == {"prediction": 3, "feedback": 1}
    assert receipt.object_versions == 2
    assert receipt.outside["unreadable messages"] == 1
    assert [sentence.partition(":")[0] for sentence in receipt.out_of_reach][:1] == [
        "what waits on other capture machines (segments to be shipped, indexes of reviews) and messages in a broker"
    ]
    assert any("1 messages in" in sentence for sentence in receipt.out_of_reach)
    for spec in (PREFERENCE_TABLES.predictions, GROUND_TRUTH):
        assert audit_accounts(bench.lake, spec).discrepancies == ()
        assert bench.lake.read(spec).num_rows == 1

    # From another machine's disk, a day later: under its own name, as a shipper repeats it.
    later = NOW + timedelta(days=1)
    path = bench.land(EventKind.PREDICTION, later.date(), predictions, "replay")
    versioned.open_zone(APPLICATION, EventKind.PREDICTION).publish(path, later.date())
    path.unlink()
    [entry] = ingest_days(bench.lake, versioned, EventKind.PREDICTION, [later.date()], stamp(later)).values()
    assert entry.rows_by_reason["erased"] == 1
    assert MARK not in str(bench.lake.read(PREFERENCE_TABLES.predictions).to_pylist())
    # It lies in landing until the command is given again, which finds it by the keyed hash of its id.
    assert quoting(versioned)
    place = place_of(bench, versioned)
    again = plan_erasure(place, PERSON)
    assert again.landed_lines == 1
    erase_person(place, again, who="ada", reason="asked", now=later + timedelta(hours=1), grace=timedelta(0))
    assert quoting(versioned) == []


def test_a_segment_is_not_rewritten_while_it_is_being_shipped(landing: ObjectLanding, bench: Workbench) -> None:
    """A shipper reads a segment twice, for its hash and for its content: replaced in between, the two differ."""
    _, feedback = person_and_others()
    path = bench.land(EventKind.FEEDBACK, DAY, feedback, "f")
    place = place_of(bench, landing)
    plan = plan_erasure(place, PERSON)
    descriptor = os.open(path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    before = hash_file(path)
    erasing = threading.Thread(
        target=lambda: place.landing.erase(EventKind.FEEDBACK, plan.person.covers_line, "erasure1", clock)
    )
    erasing.start()
    erasing.join(0.5)
    assert erasing.is_alive()
    assert hash_file(path) == before
    landing.open_zone(APPLICATION, EventKind.FEEDBACK).publish(path, DAY)
    path.unlink()
    os.close(descriptor)
    erasing.join(60)
    assert not erasing.is_alive()
    assert not list(LandingZone(bench.landing, APPLICATION, EventKind.FEEDBACK).find_day_folder(DAY).iterdir())
    # Shipped meanwhile, it is found on S3, which is searched after the disk.
    assert quoting(landing) == []
