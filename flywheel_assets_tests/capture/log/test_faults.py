"""What disks, clocks and other processes do to the log: nothing acknowledged is lost, nothing else is harmed."""

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from flywheel_assets.capture.endpoints import CaptureLimits
from flywheel_assets.capture.events.texts import Reception, decode_edit
from flywheel_assets.capture.log.segment_file import recover_segment
from flywheel_assets.capture.log.segments import SegmentLimits, SegmentLog
from flywheel_assets.capture.service import running_capture
from flywheel_assets.errors import LogWriteError
from flywheel_assets.lake.daily._landed_files import LandedFile, read_lines
from flywheel_assets.lake.landing.disk import EventKind, LandingZone
from flywheel_assets.lake.tables.specs import GROUND_TRUTH
from flywheel_assets_tests.capture.log.disk import UNSEALED, WAIT_S, Disk, eventually, numbers, rows
from flywheel_assets_tests.capture.samples import (
    NOON,
    Clock,
    edit,
    folder_in_memory,
    landed,
    open_segments,
    received_days,
)
from flywheel_assets_tests.mounted_disk import mount_disk

EDITS = "/v1/assistant/edits"
ZONE_PARTS = ("assistant", EventKind.FEEDBACK)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of four megabytes."""
    with mount_disk(tmp_path / "small", megabytes=4) as mounted:
        yield mounted.folder


@pytest.fixture
def in_memory() -> Iterator[Path]:
    folder = folder_in_memory()
    yield folder
    shutil.rmtree(folder)


def feedback_line(name: str) -> bytes:
    return decode_edit(json.dumps(edit(id=name)).encode(), Reception("assistant", NOON)).rows[1].line


@pytest.mark.parametrize("min_free_bytes", [0, 2**20])
def test_a_full_disk_is_503_and_capture_goes_on_when_there_is_room(small_disk: Path, min_free_bytes: int) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 2**20)
    acknowledged, refused = set(), None
    limits = SegmentLimits(segment_bytes=100_000, min_free_bytes=min_free_bytes)
    with (
        running_capture(small_disk / "landing", ["assistant"], segment_limits=limits) as running,
        httpx.Client(base_url=running.url) as http,
    ):
        for number in range(1_000):
            answer = http.post(EDITS, json=edit(id=str(number), prompt="x" * 7_000))
            if answer.status_code != 202:
                refused = answer
                break
            acknowledged.add(str(number))
        assert refused is not None
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1
        assert "nothing was acknowledged" in refused.json()["error"]
        assert http.get("/readyz").status_code == 503
        assert http.get("/healthz").status_code == 200
        free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
        assert (free > 900_000) is (min_free_bytes > 0), "the reserve is for everything else on that disk"
        ballast.unlink()
        assert http.post(EDITS, json=edit(id="after")).status_code == 202
    assert acknowledged | {"after"} <= {row["prediction_id"] for row in landed(small_disk / "landing", "feedback")}


def test_a_full_disk_at_the_start_does_not_keep_the_service_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a dead writer left stays where it is, until there is room to publish it."""
    leftover = tmp_path / "assistant/prediction/_open/a.jsonl"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b'{"n":1}\n')

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as broken:
        broken.setattr(os, "rename", full)
        event_log = SegmentLog(tmp_path, UNSEALED, Clock())
        event_log.start()
    assert open_segments(tmp_path) == [leftover]
    event_log._sweep_after = 0.0
    event_log.submit("assistant", rows(2)).result(WAIT_S)
    eventually(lambda: numbers(tmp_path) == [1])
    event_log.stop()


def test_a_living_process_takes_over_what_another_left(tmp_path: Path) -> None:
    """A process that is scaled away after a crash never starts again: another must publish what it acknowledged."""
    script = (
        "import sys, os, signal, pathlib\n"
        "from flywheel_assets_tests.capture.log.disk import rows, UNSEALED\n"
        "from flywheel_assets.capture.log.segments import SegmentLog\n"
        "log = SegmentLog(pathlib.Path(sys.argv[1]), UNSEALED)\n"
        "log.start()\n"
        "log.submit('assistant', rows(7)).result(10)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    with SegmentLog(tmp_path, UNSEALED) as survivor:
        survivor.submit("assistant", rows(1)).result(WAIT_S)
        assert subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False).returncode == -9
        assert numbers(tmp_path) == []
        with survivor._work:
            survivor._sweep_after = 0.0
            survivor._work.notify()
        eventually(lambda: numbers(tmp_path) == [7])
        assert len(open_segments(tmp_path)) == 1


def test_nobody_else_takes_a_segment_whose_fsync_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only its writer knows how much of it is durable; another process would publish what was never acknowledged."""
    disk = Disk(monkeypatch)
    clock = Clock()
    with SegmentLog(tmp_path, UNSEALED, clock) as writer:
        writer.submit("assistant", rows(1)).result(WAIT_S)
        writer._retry_after = time.monotonic() + 3600
        disk.failing_syncs = 1
        with pytest.raises(LogWriteError):
            writer.submit("assistant", rows(2)).result(WAIT_S)
        assert writer.unpublished_segments == 1
        with SegmentLog(tmp_path, UNSEALED, clock):
            assert numbers(tmp_path) == []
        writer.seal()
        assert numbers(tmp_path) == [1]
        assert writer.unpublished_segments == 0


def test_a_failure_makes_the_log_unready_for_a_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch)
    event_log = SegmentLog(tmp_path, UNSEALED)
    assert event_log.find_problem() == "the event log is closed"
    with event_log:
        assert event_log.find_problem() is None
        disk.failing_syncs = 1
        with pytest.raises(LogWriteError):
            event_log.submit("assistant", rows(1)).result(WAIT_S)
        assert event_log.find_problem() == "the disk refused events a moment ago"
        event_log.submit("assistant", rows(2)).result(WAIT_S)
        assert event_log.find_problem() is None


def test_too_little_room_is_said_before_the_disk_is_full(tmp_path: Path) -> None:
    with SegmentLog(tmp_path, SegmentLimits(min_free_bytes=2**60)) as event_log:
        assert "bytes are free" in str(event_log.find_problem())
        with pytest.raises(LogWriteError, match=f"at least {2**60} must be; nothing was acknowledged"):
            event_log.submit("assistant", rows(1)).result(WAIT_S)
    assert open_segments(tmp_path) == []


def test_a_flipped_bit_in_the_last_record_harms_no_other_record(in_memory: Path) -> None:
    """The record itself is landed, or quarantined as malformed by the reader; without its newline it is a torn tail."""
    lines = [feedback_line(name) for name in ("first", "second", "last")]
    start = len(lines[0]) + len(lines[1])
    whole = b"".join(lines)
    published = []
    for position in range(start, len(whole)):
        bits = range(8) if position == len(whole) - 1 else [position % 8]
        for bit in bits:
            zone = LandingZone(in_memory / f"{position}-{bit}", *ZONE_PARTS)
            zone.open_folder.mkdir(parents=True)
            damaged = whole[:position] + bytes([whole[position] ^ (1 << bit)]) + whole[position + 1 :]
            (zone.open_folder / f"{position}-{bit}.jsonl").write_bytes(damaged)
            assert recover_segment(zone, zone.open_folder / f"{position}-{bit}.jsonl", NOON.date())
            (path,) = zone.find_day_folder(NOON.date()).iterdir()
            published.append(path)
            assert path.read_bytes() == (damaged if damaged.endswith(b"\n") else whole[:start])
    with LandedFile(in_memory / "read.parquet", GROUND_TRUTH, NOON.date()) as file:
        read = read_lines(published, file)
    line_count = sum(path.read_bytes().count(b"\n") for path in published)
    # A flip can make a newline of a byte: two lines, both refused.
    assert read.events + len(read.refused) == line_count
    assert read.events >= 2 * len(published)
    assert {line.number for line in read.refused} <= {3, 4}


def test_a_tail_torn_at_any_byte_costs_only_itself(in_memory: Path) -> None:
    lines = [feedback_line(name) for name in ("first", "last")]
    whole = b"".join(lines)
    for length in range(len(lines[0]), len(whole) + 1):
        zone = LandingZone(in_memory / str(length), *ZONE_PARTS)
        zone.open_folder.mkdir(parents=True)
        (zone.open_folder / "a.jsonl").write_bytes(whole[:length])
        assert recover_segment(zone, zone.open_folder / "a.jsonl", NOON.date())
        (path,) = zone.find_day_folder(NOON.date()).iterdir()
        assert path.read_bytes() == (whole if length == len(whole) else lines[0])


def test_a_clock_that_jumps_back_over_midnight_lands_in_no_closed_day(tmp_path: Path) -> None:
    """What is published under a day that was closed is moved to the reader's day, and the closed day stays."""
    before, after = datetime(2026, 3, 2, 23, 50, tzinfo=UTC), datetime(2026, 3, 3, 0, 30, tzinfo=UTC)
    zone = LandingZone(tmp_path, "assistant", EventKind.PREDICTION)
    clock = Clock(before)
    with SegmentLog(tmp_path, UNSEALED, clock) as event_log:
        event_log.submit("assistant", rows(1)).result(WAIT_S)
        event_log.seal()
        clock.now = after
        event_log.submit("assistant", rows(2)).result(WAIT_S)
        closed = zone.read(before.date(), after)
        assert closed.is_closed
        clock.now = before
        event_log.submit("assistant", rows(3)).result(WAIT_S)
        event_log.seal()
        assert received_days(tmp_path, "prediction") == ["2026-03-02"]
        moved = zone.republish_late(after + timedelta(minutes=1))
        assert len(moved) == 2
        assert zone.read(before.date(), after + timedelta(minutes=1)) == closed
        assert zone.read(before.date(), before).is_closed, "a closing holds, whatever the reader's clock says"
    assert sorted(numbers(tmp_path)) == [1, 2, 3]
    assert received_days(tmp_path, "prediction") == ["2026-03-02", "2026-03-03"]


def test_memory_of_requests_in_progress_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bodies that wait for a slow disk fill the budget; then 503, until the disk has caught up."""
    disk = Disk(monkeypatch)
    limits = CaptureLimits(in_progress_bytes=300_000)
    with running_capture(tmp_path, ["assistant"], limits=limits) as running:
        answers: list[int] = []
        disk.may_sync.clear()

        def send(number: int) -> None:
            answers.append(httpx.post(running.url + EDITS, json=edit(prompt="x" * 100_000), timeout=30).status_code)

        threads = [threading.Thread(target=send, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        eventually(lambda: answers.count(503) == 4)
        disk.may_sync.set()
        for thread in threads:
            thread.join()
        assert sorted(answers) == [202, 202, 503, 503, 503, 503]
        assert httpx.post(running.url + EDITS, json=edit()).status_code == 202
