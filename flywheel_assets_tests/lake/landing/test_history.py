"""History joins days on a disk and on S3: killed at any point a day is the old or the new one, and erasures work."""

import os
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pytest

from flywheel_assets.errors import HomeMismatchError, LandingRetiredError, OpenSegmentError
from flywheel_assets.lake.erasure.landing import erase_lines
from flywheel_assets.lake.landing import disk
from flywheel_assets.lake.landing.disk import CLOSED_FILE, DiskLanding, EventKind, LandingZone, Revision, read_closing
from flywheel_assets.lake.landing.protocol import Landing, LandingPlace
from flywheel_assets.lake.landing.s3 import ObjectLanding
from flywheel_assets_tests.builders import APPLICATION, DAY, day
from flywheel_assets_tests.lake.kills import FailsAt, Killed

LATER = datetime.combine(DAY + timedelta(days=40), time(12), UTC)
REVISION = Revision("decision", LATER, "ada", "moved here")


@pytest.fixture(params=["disk", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> LandingPlace:
    if request.param == "disk":
        return DiskLanding(tmp_path / "landing")
    found: ObjectLanding = request.getfixturevalue("landing")
    return found


def write(folder: Path, name: str, *lines: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def land(zone: Any, folder: Path, name: str, *lines: str, on: int = 0) -> None:
    path = write(zone.open_folder if isinstance(zone, LandingZone) else folder, name, *lines)
    zone.publish(path, day(on))


def read(zone: Landing, tmp_path: Path, on: int = 0, now: datetime = LATER) -> list[str]:
    landed = zone.read(day(on), now)
    with zone.fetch(landed, tmp_path / "fetched") as paths:
        return [line for path in paths for line in path.read_text().splitlines()]


def open_zone(place: LandingPlace) -> Any:
    return place.open_zone(APPLICATION, EventKind.FEEDBACK)


def test_a_day_that_was_never_closed_receives_history_and_is_closed_with_it(
    place: LandingPlace, tmp_path: Path
) -> None:
    zone = open_zone(place)
    land(zone, tmp_path, "a", "live")
    assert zone.add_history(DAY, [write(tmp_path / "h", "h", "old")], REVISION, LATER) is False
    assert zone.add_history(day(1), [write(tmp_path / "h", "i", "older")], REVISION, LATER) is False
    assert read(zone, tmp_path) == ["live", "old"]
    assert read(zone, tmp_path, 1) == ["older"]
    assert zone.republish_late(LATER) == []


def test_a_closed_day_is_reopened_and_says_by_whom(place: LandingPlace, tmp_path: Path) -> None:
    zone = open_zone(place)
    land(zone, tmp_path, "a", "live")
    before = zone.read(DAY, LATER)
    assert zone.add_history(DAY, [write(tmp_path / "h", "h", "old")], REVISION, LATER) is True
    after = zone.read(DAY, LATER)
    assert after.is_closed
    assert after.content_hash != before.content_hash
    assert zone.look(DAY) == after
    assert read(zone, tmp_path) == ["live", "old"]
    closing = (
        read_closing(zone.find_day_folder(DAY) / CLOSED_FILE)
        if isinstance(zone, LandingZone)
        else zone.find_closing(DAY).closing
    )
    assert [(each.decision, each.decided_by, each.reason) for each in closing.revisions] == [
        ("decision", "ada", "moved here")
    ]
    assert closing.revisions[0].segments == [path.name for path in after.paths if path.name.startswith("h")]
    assert zone.republish_late(LATER) == []
    assert read(zone, tmp_path, 40) == []


def test_an_open_day_receives_history_like_any_segment_but_not_minutes_before_it_closes(
    place: LandingPlace, tmp_path: Path
) -> None:
    zone = open_zone(place)
    noon = datetime.combine(DAY, time(12), UTC)
    assert zone.add_history(DAY, [write(tmp_path / "h", "h", "today")], REVISION, noon) is False
    assert not zone.read(DAY, noon).is_closed
    assert read(zone, tmp_path, now=noon) == ["today"]
    with pytest.raises(OpenSegmentError, match="repeat after 00:15"):
        zone.add_history(
            DAY, [write(tmp_path / "h", "i", "more")], REVISION, datetime.combine(day(1), time(0, 12), UTC)
        )
    assert read(zone, tmp_path) == ["today"]


def test_a_day_whose_segments_retention_removed_is_left_alone(tmp_path: Path) -> None:
    zone = LandingZone(tmp_path / "landing", APPLICATION, EventKind.FEEDBACK)
    land(zone, tmp_path, "a", "live")
    zone.read(DAY, LATER)
    (zone.find_day_folder(DAY) / "a.jsonl").unlink()
    closing = (zone.find_day_folder(DAY) / CLOSED_FILE).read_bytes()
    with pytest.raises(LandingRetiredError):
        zone.add_history(DAY, [write(tmp_path / "h", "h", "old")], REVISION, LATER)
    assert (zone.find_day_folder(DAY) / CLOSED_FILE).read_bytes() == closing


def test_a_closing_of_before_is_read(tmp_path: Path) -> None:
    old = b'{"closed_at":"2026-03-03T00:30:00Z","segments":[{"name":"a.jsonl","bytes":3,"sha256":"x"}]}'
    (tmp_path / CLOSED_FILE).write_bytes(old)
    assert read_closing(tmp_path / CLOSED_FILE).revisions == []


CALLS: list[tuple[Any, str]] = [
    (os, "fsync"),
    (os, "rename"),
    (os, "replace"),
    (os, "link"),
]


def kill_at(monkeypatch: pytest.MonkeyPatch, left: int, after: bool) -> Callable[[], int]:
    """Kill before or after the call of this number that changes the disk; 0: count them."""
    made = 0

    def watch(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            nonlocal made
            made += 1
            if made == left and not after:
                raise Killed
            result = real(*arguments, **keywords)
            if made == left:
                raise Killed
            return result

        return call

    for owner, name in CALLS:
        monkeypatch.setattr(owner, name, watch(getattr(owner, name)))
    return lambda: made


@pytest.mark.parametrize("closed", [True, False], ids=["a closed day", "a day that was never closed"])
@pytest.mark.parametrize("after", [True, False], ids=["after the call", "before the call"])
def test_killed_at_any_call_the_day_is_the_old_or_the_new_one_and_a_repetition_completes_it(
    tmp_path: Path, closed: bool, after: bool
) -> None:
    outcomes = set()
    at, calls = 0, 1
    while at <= calls:
        zone = LandingZone(tmp_path / f"landing {at}", APPLICATION, EventKind.FEEDBACK)
        land(zone, tmp_path, "a", "live")
        if closed:
            zone.read(DAY, LATER)
        segments = [write(tmp_path / "h", "h1", "old 1"), write(tmp_path / "h", "h2", "old 2")]
        with pytest.MonkeyPatch.context() as patch:
            count = kill_at(patch, at, after)
            if at == 0:
                zone.add_history(DAY, segments, REVISION, LATER)
                calls = count()
            else:
                with pytest.raises(Killed):
                    zone.add_history(DAY, segments, REVISION, LATER)
        now = LATER + timedelta(hours=1)
        found = read(zone, tmp_path, now=now)
        assert found in (["live"], ["live", "old 1", "old 2"]), at
        outcomes.add(len(found))
        assert zone.republish_late(now) == [], at
        if len(found) == 1:
            zone.add_history(DAY, segments, REVISION, now)
        assert read(zone, tmp_path, now=now) == ["live", "old 1", "old 2"], at
        assert not list(zone.find_day_folder(DAY).glob("*.adding"))
        at += 1
    assert calls >= 8
    assert outcomes == {1, 3}


@pytest.mark.long
def test_killed_before_any_request_to_s3_the_day_is_the_old_or_the_new_one(
    landing: ObjectLanding, tmp_path: Path
) -> None:
    zone = open_zone(landing)
    segments = [write(tmp_path / "h", "h1", "old 1"), write(tmp_path / "h", "h2", "old 2")]
    for closed in (True, False):
        at, calls = 0, 1
        while at <= calls:
            on = at + 20 * closed
            land(zone, tmp_path, "a", "live", on=on)
            now = LATER + timedelta(days=40)
            if closed:
                zone.read(day(on), now)
            counting = FailsAt(landing.client, at)
            dying = open_zone(ObjectLanding(counting, landing.bucket, landing.prefix))
            if at == 0:
                dying.add_history(day(on), segments, REVISION, now)
                calls = counting.changes
            else:
                with pytest.raises(Killed):
                    dying.add_history(day(on), segments, REVISION, now)
            found = read(zone, tmp_path, on, now)
            assert found == (["live", "old 1", "old 2"] if at == 0 else ["live"]), at
            assert zone.republish_late(now) == [], at
            if at:
                zone.add_history(day(on), segments, REVISION, now)
            assert read(zone, tmp_path, on, now) == ["live", "old 1", "old 2"], at
            at += 1
        assert calls >= 4


def test_what_a_killed_import_left_on_a_disk_can_be_cleared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zone = LandingZone(tmp_path / "landing", APPLICATION, EventKind.FEEDBACK)
    land(zone, tmp_path, "a", "live")
    zone.read(DAY, LATER)

    def die(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(disk, "replace_file", die)
    with pytest.raises(Killed):
        zone.add_history(DAY, [write(tmp_path / "h", "h1", "a person's text")], REVISION, LATER)
    assert list(zone.find_day_folder(DAY).glob("*.adding"))
    zone.clear_unfinished([DAY, day(3)])
    assert not list(zone.find_day_folder(DAY).glob("*.adding"))
    assert read(zone, tmp_path) == ["live"]


def test_what_a_killed_import_left_on_s3_can_be_cleared(landing: ObjectLanding, tmp_path: Path) -> None:
    zone = open_zone(landing)
    land(zone, tmp_path, "a", "live")
    zone.read(DAY, LATER)
    dying = open_zone(ObjectLanding(FailsAt(landing.client, 3), landing.bucket, landing.prefix))
    with pytest.raises(Killed):
        dying.add_history(DAY, [write(tmp_path / "h", "h1", "a person's text")], REVISION, LATER)
    assert len(zone.list_segments(DAY)) == 2
    zone.clear_unfinished([DAY, day(3)])
    assert len(zone.list_segments(DAY)) == 1
    assert zone.find_closing(DAY).closing.erasing == []
    assert read(zone, tmp_path) == ["live"]


def erase(zone: Any, tmp_path: Path) -> None:
    erase_lines(zone, lambda line: b"mallory" in line, "erasure1", lambda: LATER, tmp_path / "scratch")


def test_an_erasure_works_on_a_reopened_day_and_history_on_a_day_after_an_erasure(
    place: LandingPlace, tmp_path: Path
) -> None:
    zone = open_zone(place)
    land(zone, tmp_path, "a", "live", "mallory 1")
    zone.read(DAY, LATER)
    zone.add_history(DAY, [write(tmp_path / "h", "h", "old", "mallory 2")], REVISION, LATER)
    erase(zone, tmp_path)
    assert read(zone, tmp_path) == ["live", "old"]
    zone.add_history(DAY, [write(tmp_path / "h", "i", "older")], REVISION, LATER)
    assert read(zone, tmp_path) == ["live", "old", "older"]
    closing = (
        read_closing(zone.find_day_folder(DAY) / CLOSED_FILE)
        if isinstance(zone, LandingZone)
        else zone.find_closing(DAY).closing
    )
    assert (closing.erasures, len(closing.revisions)) == (["erasure1"], 2)
    assert zone.republish_late(LATER) == []


@pytest.mark.parametrize("at", range(1, 13))
def test_an_erasure_after_a_killed_import_leaves_nothing_of_the_person(tmp_path: Path, at: int) -> None:
    zone = LandingZone(tmp_path / "landing", APPLICATION, EventKind.FEEDBACK)
    land(zone, tmp_path, "a", "live", "mallory 1")
    zone.read(DAY, LATER)
    segments = [write(tmp_path / "h", "h", "old", "mallory 2")]
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, at, after=True)
        with suppress(Killed):
            zone.add_history(DAY, segments, REVISION, LATER)
    erase(zone, tmp_path)
    assert read(zone, tmp_path) in (["live"], ["live", "old"])
    left = [path for path in (tmp_path / "landing").rglob("*") if path.is_file() and b"mallory" in path.read_bytes()]
    assert left == []


@pytest.mark.parametrize("at", range(1, 9))
def test_history_after_a_killed_erasure_finishes_or_forgets_its_files(tmp_path: Path, at: int) -> None:
    zone = LandingZone(tmp_path / "landing", APPLICATION, EventKind.FEEDBACK)
    land(zone, tmp_path, "a", "live", "mallory 1")
    zone.read(DAY, LATER)
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, at, after=True)
        with suppress(Killed):
            erase(zone, tmp_path)
    zone.add_history(DAY, [write(tmp_path / "h", "h", "old")], REVISION, LATER)
    assert read(zone, tmp_path) in (["live", "mallory 1", "old"], ["live", "old"])
    erase(zone, tmp_path)
    assert read(zone, tmp_path) == ["live", "old"]


def test_a_reader_that_listed_before_the_closing_was_revised_does_not_move_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The listing of a day and its closing are two reads: history that comes in between is not late."""
    zone = LandingZone(tmp_path / "landing", APPLICATION, EventKind.FEEDBACK)
    land(zone, tmp_path, "a", "live")
    zone.read(DAY, LATER)
    real: Callable[[Path], Any] = disk.read_closing

    def in_between(closed_file: Path) -> Any:
        seen = real(closed_file)
        monkeypatch.setattr(disk, "read_closing", real)
        zone.add_history(DAY, [write(tmp_path / "h", "h", "old")], REVISION, LATER)
        return seen

    monkeypatch.setattr(disk, "read_closing", in_between)
    zone.read(DAY, LATER)
    assert read(zone, tmp_path) == ["live", "old"]
    assert read(zone, tmp_path, 40) == []


def test_the_first_day_only_moves_back(place: LandingPlace) -> None:
    assert place.read_first_day(APPLICATION) is None
    for on, first in ((3, 3), (5, 3), (1, 1)):
        place.note_first_day(APPLICATION, day(on))
        assert place.read_first_day(APPLICATION) == day(first)


def test_a_landing_zone_belongs_to_one_home(place: LandingPlace, tmp_path: Path) -> None:
    """A landing zone on S3 had no id: a restored copy of a home moved the late segments of the original."""
    (tmp_path / "landing").mkdir()
    place.verify_owner("one")
    place.verify_owner("one")
    with pytest.raises(HomeMismatchError, match=r"belongs to the home one, and this home is other.*`flywheel move`"):
        place.verify_owner("other")
    for _ in range(2):
        place.claim("other")
    place.verify_owner("other")


def test_a_damaged_owner_of_a_landing_zone_is_named(place: LandingPlace, tmp_path: Path) -> None:
    if isinstance(place, ObjectLanding):
        place.client.put_object(Bucket=place.bucket, Key=f"{place.prefix}/_HOME.json", Body=b"{")
    else:
        (tmp_path / "landing").mkdir()
        (tmp_path / "landing" / "_HOME.json").write_text("{")
    with pytest.raises(HomeMismatchError, match=r"_HOME\.json is damaged.*Delete it"):
        place.verify_owner("one")
