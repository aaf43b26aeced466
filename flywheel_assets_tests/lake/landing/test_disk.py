"""The landing zone: when a day closes, and what becomes of everything that comes after."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

import pytest

from flywheel_assets.errors import ClosedDayError, LandingRetiredError
from flywheel_assets.lake.landing import disk as landing
from flywheel_assets.lake.landing.disk import CLOSED_FILE, EventKind, LandedDay, LandingZone, wait_until_sealed
from flywheel_assets.lake.storage import files
from flywheel_assets.lake.storage.files import replace_file, write_once
from flywheel_assets_tests.builders import APPLICATION, DAY, day

END = datetime.combine(DAY + timedelta(days=1), time(), UTC)
CLOSED = END + timedelta(hours=1)


@pytest.fixture
def zone(tmp_path: Path) -> LandingZone:
    return LandingZone(tmp_path, APPLICATION, EventKind.FEEDBACK)


def publish(zone: LandingZone, name: str, content: str = "{}\n", on: int = 0) -> Path:
    zone.open_folder.mkdir(parents=True, exist_ok=True)
    path = zone.open_folder / f"{name}.jsonl"
    path.write_text(content)
    return zone.publish(path, day(on))


def names(landed: LandedDay) -> list[str]:
    return [path.stem for path in landed.paths]


@pytest.mark.parametrize(
    ("after_end", "is_closed"),
    [
        (timedelta(hours=-1), False),
        (timedelta(minutes=14, seconds=59, microseconds=999_999), False),
        (timedelta(minutes=15), True),
        (timedelta(days=400), True),
    ],
)
def test_a_day_closes_fifteen_minutes_after_its_end(zone: LandingZone, after_end: timedelta, is_closed: bool) -> None:
    publish(zone, "a")
    landed = zone.read(DAY, END + after_end)
    assert (landed.is_closed, names(landed)) == (is_closed, ["a"])
    assert (zone.find_day_folder(DAY) / CLOSED_FILE).exists() is is_closed


def test_an_open_day_takes_segments_and_its_hash_changes(zone: LandingZone) -> None:
    publish(zone, "b")
    before = zone.read(DAY, END)
    publish(zone, "a")
    after = zone.read(DAY, END)
    assert (names(before), names(after)) == (["b"], ["a", "b"])
    assert before.content_hash != after.content_hash


def test_a_closed_day_reads_the_same_for_ever(zone: LandingZone) -> None:
    publish(zone, "a")
    assert zone.read(DAY, CLOSED) == zone.read(DAY, CLOSED + timedelta(days=900))


def test_a_late_segment_is_read_on_the_day_it_was_found(zone: LandingZone) -> None:
    publish(zone, "a")
    before = zone.read(DAY, CLOSED)
    late = publish(zone, "late", '{"late": 1}\n')
    found_at = CLOSED + timedelta(days=3)
    assert zone.read(DAY, found_at) == before
    assert not late.exists()
    found_on = zone.read(found_at.date(), found_at)
    assert names(found_on) == ["late"]
    assert found_on.paths[0].read_text() == '{"late": 1}\n'


@pytest.mark.parametrize("on", [0, 5])
def test_empty_days_close_too(zone: LandingZone, on: int) -> None:
    """A day without traffic is closed with nothing in it: what is found there later belongs to another day."""
    landed = zone.read(day(on), CLOSED + timedelta(days=10))
    assert (landed.paths, landed.is_closed) == ((), True)
    publish(zone, "late", on=on)
    assert zone.read(day(on), CLOSED + timedelta(days=10)) == landed


def test_an_altered_segment_of_a_closed_day_is_refused(zone: LandingZone) -> None:
    path = publish(zone, "a")
    zone.read(DAY, CLOSED)
    path.write_text("{}\n{}\n")
    with pytest.raises(ClosedDayError, match=r"a\.jsonl has 6 bytes, its closing recorded 3"):
        zone.read(DAY, CLOSED)


def test_a_retired_day_is_refused_and_says_what_happens_to_the_table(zone: LandingZone) -> None:
    publish(zone, "a")
    path = publish(zone, "b")
    zone.read(DAY, CLOSED)
    path.unlink()
    with pytest.raises(LandingRetiredError, match=r"1 of 2 segments.*The table keeps its rows"):
        zone.read(DAY, CLOSED)


def test_what_is_being_written_is_not_read(zone: LandingZone) -> None:
    zone.open_folder.mkdir(parents=True)
    (zone.open_folder / "open.jsonl").write_text("{}\n")
    publish(zone, "a")
    assert names(zone.read(DAY, CLOSED)) == ["a"]
    assert zone.list_days() == [DAY]


def test_days_are_listed_in_order(zone: LandingZone) -> None:
    assert zone.list_days() == []
    for offset in (3, -40, 0):
        publish(zone, "a", on=offset)
    (zone.folder / "lost+found").mkdir()
    assert zone.list_days() == [day(-40), day(0), day(3)]


def test_closers_at_the_same_moment_agree(zone: LandingZone) -> None:
    """Segments turn up while many readers close the day: all of them read the same list, and nothing is lost."""
    for number in range(5):
        publish(zone, f"early-{number}")
    start = threading.Barrier(9)

    def close() -> LandedDay:
        start.wait()
        return zone.read(DAY, CLOSED)

    def interfere() -> None:
        start.wait()
        for number in range(20):
            publish(zone, f"late-{number}")

    with ThreadPoolExecutor(9) as threads:
        closers = [threads.submit(close) for _ in range(8)]
        threads.submit(interfere).result()
        found = [closer.result() for closer in closers]
    final = zone.read(DAY, CLOSED)
    assert all(landed == final for landed in found)
    moved = names(zone.read(CLOSED.date(), CLOSED))
    assert sorted(names(final) + moved) == sorted(
        [f"early-{number}" for number in range(5)] + [f"late-{number}" for number in range(20)]
    )


def test_a_segment_that_another_reader_moved_does_not_fail_this_one(
    zone: LandingZone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two readers: while one hashes the segments it found, the other closes the day without the last of them."""
    publish(zone, "a")
    last = publish(zone, "b")

    def overtaken(path: Path) -> str:
        monkeypatch.undo()
        content = last.read_text()
        last.unlink()
        zone.read(DAY, CLOSED)
        publish(zone, "b", content)
        zone.read(DAY, CLOSED)
        return files.hash_file(path)

    monkeypatch.setattr(landing, "hash_file", overtaken)
    assert names(zone.read(DAY, CLOSED)) == ["a"]
    assert names(zone.read(CLOSED.date(), CLOSED)) == ["b"]


@pytest.mark.parametrize("existing", [None, b"old"])
def test_write_once_never_overwrites(tmp_path: Path, existing: bytes | None) -> None:
    path = tmp_path / "folder" / "file"
    if existing is not None:
        path.parent.mkdir()
        path.write_bytes(existing)
    assert write_once(path, b"new") is (existing is None)
    assert path.read_bytes() == (existing or b"new")
    assert [each.name for each in path.parent.iterdir()] == ["file"]


def test_write_once_by_many_threads_is_whole(tmp_path: Path) -> None:
    """Threads of one process shared the temporary name: a torn file could become visible, or the link fail."""
    contents = [bytes([number]) * 300_000 for number in range(16)]
    for attempt in range(5):
        path = tmp_path / f"file-{attempt}"
        with ThreadPoolExecutor(16) as threads:
            written = list(threads.map(lambda content, path=path: write_once(path, content), contents))
        assert written.count(True) == 1
        assert path.read_bytes() == contents[written.index(True)]


def test_replace_file_leaves_the_old_one_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    replace_file(path, b"old")

    def full_disk(path: Path, content: bytes) -> None:
        path.write_bytes(content[:1])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_synced", full_disk)
    with pytest.raises(OSError, match="No space left"):
        replace_file(path, b"new")
    assert path.read_bytes() == b"old"


def test_waiting_for_capture_ends_when_nothing_is_open(zone: LandingZone, tmp_path: Path) -> None:
    zone.open_folder.mkdir(parents=True)
    path = zone.open_folder / "a.jsonl"
    path.write_text("")
    assert wait_until_sealed(tmp_path, APPLICATION, 0)
    path.write_text("{}\n")
    naps: list[float] = []

    def seal(seconds: float) -> None:
        naps.append(seconds)
        zone.publish(path, DAY)

    assert wait_until_sealed(tmp_path, APPLICATION, 60, sleep=seal)
    assert len(naps) == 1


def test_waiting_for_capture_gives_up(zone: LandingZone, tmp_path: Path) -> None:
    zone.open_folder.mkdir(parents=True)
    (zone.open_folder / "a.jsonl").write_text("{}\n")
    assert not wait_until_sealed(tmp_path, APPLICATION, -1, sleep=lambda _: None)


def test_the_sweep_moves_what_is_late_and_nothing_else(zone: LandingZone) -> None:
    publish(zone, "listed")
    zone.read(DAY, CLOSED)
    publish(zone, "late")
    publish(zone, "of an open day", on=1)
    now = CLOSED + timedelta(hours=1)  # DAY + 1, still open
    moved = zone.republish_late(now)
    assert [path.stem for path in moved] == ["late"]
    assert names(zone.read(DAY, now)) == ["listed"]
    assert names(zone.read(day(1), now)) == ["late", "of an open day"]
    assert zone.republish_late(now) == []
