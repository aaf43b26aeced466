import errno
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flywheel_assets.capture.log.segment_file import recover_segment
from flywheel_assets.capture.log.segments import SegmentLimits, SegmentLog
from flywheel_assets.errors import LogWriteError, QueueFullError
from flywheel_assets.lake.landing.disk import EventKind, LandingZone
from flywheel_assets_tests.capture.log.disk import UNSEALED, WAIT_S, Disk, eventually, numbers, rows
from flywheel_assets_tests.capture.samples import NOON, Clock, landed, open_segments, received_days


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def unsealed(tmp_path: Path, clock: Clock) -> Iterator[SegmentLog]:
    with SegmentLog(tmp_path, UNSEALED, clock) as event_log:
        yield event_log


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def test_nothing_is_acknowledged_before_its_fsync(disk: Disk, unsealed: SegmentLog) -> None:
    disk.may_sync.clear()
    written = unsealed.submit("assistant", rows(1))
    time.sleep(0.05)
    assert not written.done()
    disk.may_sync.set()
    written.result(WAIT_S)
    assert disk.syncs == 1


def test_what_waits_during_one_fsync_shares_the_next(disk: Disk, unsealed: SegmentLog) -> None:
    disk.may_sync.clear()
    futures = [unsealed.submit("assistant", rows(0))]
    eventually(lambda: not unsealed._queue)
    futures += [unsealed.submit("assistant", rows(number)) for number in range(1, 50)]
    disk.may_sync.set()
    for future in futures:
        future.result(WAIT_S)
    assert disk.syncs == 2


def test_a_request_of_both_kinds_waits_for_both_files(disk: Disk, unsealed: SegmentLog, tmp_path: Path) -> None:
    unsealed.submit("assistant", rows(1) + rows(2, kind=EventKind.FEEDBACK)).result(WAIT_S)
    assert disk.syncs == 2
    unsealed.seal()
    assert (numbers(tmp_path), numbers(tmp_path, "feedback")) == ([1], [2])


def test_applications_do_not_share_segments(unsealed: SegmentLog, tmp_path: Path) -> None:
    unsealed.submit("assistant", rows(1)).result(WAIT_S)
    unsealed.submit("copilot", rows(2)).result(WAIT_S)
    unsealed.seal()
    assert numbers(tmp_path) == [1]
    assert [row["n"] for row in landed(tmp_path, "prediction", "copilot")] == [2]


def test_a_full_queue_takes_nothing_more_and_recovers(disk: Disk, tmp_path: Path, clock: Clock) -> None:
    with SegmentLog(tmp_path, SegmentLimits(queue_events=3), clock) as event_log:
        disk.may_sync.clear()
        first = event_log.submit("assistant", rows(0))
        eventually(lambda: not event_log._queue)
        second = event_log.submit("assistant", rows(1, 2))
        with pytest.raises(QueueFullError, match=r"2 events .* the queue holds 3 events"):
            event_log.submit("assistant", rows(3, 4))
        disk.may_sync.set()
        first.result(WAIT_S)
        second.result(WAIT_S)
        event_log.submit("assistant", rows(*range(5, 15))).result(WAIT_S)  # larger than an empty queue: let through
    assert numbers(tmp_path) == [0, 1, 2, *range(5, 15)]


def test_bytes_fill_the_queue_too(disk: Disk, tmp_path: Path, clock: Clock) -> None:
    with SegmentLog(tmp_path, SegmentLimits(queue_bytes=1000), clock) as event_log:
        disk.may_sync.clear()
        event_log.submit("assistant", rows(0))
        eventually(lambda: not event_log._queue)
        event_log.submit("assistant", rows(1, padding="x" * 900))
        with pytest.raises(QueueFullError):
            event_log.submit("assistant", rows(2, padding="x" * 900))
        disk.may_sync.set()


def test_a_segment_is_sealed_at_its_size(tmp_path: Path, clock: Clock) -> None:
    with SegmentLog(tmp_path, SegmentLimits(segment_bytes=500, segment_age_s=3600), clock) as event_log:
        event_log.submit("assistant", rows(1)).result(WAIT_S)
        time.sleep(0.05)
        assert received_days(tmp_path, "prediction") == []
        event_log.submit("assistant", rows(2, padding="x" * 600)).result(WAIT_S)
        eventually(lambda: numbers(tmp_path) == [1, 2])


def test_a_segment_is_sealed_at_its_age_without_new_traffic(tmp_path: Path) -> None:
    with SegmentLog(tmp_path, SegmentLimits(segment_age_s=0.05)) as event_log:
        event_log.submit("assistant", rows(1)).result(WAIT_S)
        eventually(lambda: bool(received_days(tmp_path, "prediction")))


@pytest.mark.parametrize("moved", [timedelta(0), timedelta(days=-3)])
def test_a_clock_that_stands_still_or_is_set_back_does_not_hide_events(
    tmp_path: Path, clock: Clock, moved: timedelta
) -> None:
    with SegmentLog(tmp_path, SegmentLimits(segment_age_s=0.2), clock) as event_log:
        event_log.submit("assistant", rows(1)).result(WAIT_S)
        clock.now = NOON + moved
        eventually(lambda: received_days(tmp_path, "prediction") == [clock.now.date().isoformat()])


def test_the_day_of_publication_is_the_injected_clocks(tmp_path: Path) -> None:
    clock = Clock(datetime(2026, 3, 2, 23, 59, 59, tzinfo=UTC))
    with SegmentLog(tmp_path, SegmentLimits(segment_age_s=3600), clock) as event_log:
        event_log.submit("assistant", rows(1)).result(WAIT_S)
        event_log.seal()
        event_log.submit("assistant", rows(2)).result(WAIT_S)
        clock.now += timedelta(seconds=1)
        event_log.submit("assistant", rows(3)).result(WAIT_S)
        # The segment with row 2 was opened yesterday: it is sealed before row 3 opens another.
        assert received_days(tmp_path, "prediction") == ["2026-03-02", "2026-03-03"]
        assert numbers(tmp_path) == [1, 2]
        assert len(open_segments(tmp_path)) == 1
    assert numbers(tmp_path) == [1, 2, 3]


def test_an_age_passes_on_the_injected_clock_too(tmp_path: Path, clock: Clock) -> None:
    with SegmentLog(tmp_path, UNSEALED, clock) as event_log:
        event_log.submit("assistant", rows(1)).result(WAIT_S)
        clock.now += timedelta(hours=1)
        eventually(lambda: numbers(tmp_path) == [1])


def test_names_sort_by_time_and_tell_no_host(unsealed: SegmentLog, tmp_path: Path, clock: Clock) -> None:
    for number in range(3):
        unsealed.submit("assistant", rows(number)).result(WAIT_S)
        unsealed.seal()
        clock.now += timedelta(seconds=1)
    assert numbers(tmp_path) == [0, 1, 2]
    names = [path.name for path in (tmp_path / "assistant/prediction/received_date=2026-03-02").iterdir()]
    assert len(names) == 3
    assert not any(os.uname().nodename in name for name in names)


def test_closing_drains_and_seals(tmp_path: Path, clock: Clock) -> None:
    event_log = SegmentLog(tmp_path, UNSEALED, clock)
    event_log.start()
    futures = [event_log.submit("assistant", rows(number)) for number in range(100)]
    event_log.stop()
    assert all(future.done() for future in futures)
    assert numbers(tmp_path) == list(range(100))
    assert open_segments(tmp_path) == []
    with pytest.raises(LogWriteError, match="closed"):
        event_log.submit("assistant", rows(1))


def test_a_cancelled_request_does_not_stop_the_writer(disk: Disk, unsealed: SegmentLog) -> None:
    disk.may_sync.clear()
    unsealed.submit("assistant", rows(0))
    eventually(lambda: not unsealed._queue)
    cancelled: Future[None] = unsealed.submit("assistant", rows(1))
    assert cancelled.cancel()
    disk.may_sync.set()
    unsealed.submit("assistant", rows(2)).result(WAIT_S)


def test_a_full_disk_fails_the_group_and_leaves_no_torn_line(disk: Disk, unsealed: SegmentLog, tmp_path: Path) -> None:
    """A full disk first takes a part of the line: without the cut, the next line would be glued to that part."""
    unsealed.submit("assistant", rows(1)).result(WAIT_S)
    disk.free_bytes = 10
    with pytest.raises(LogWriteError, match="No space left"):
        unsealed.submit("assistant", rows(2)).result(WAIT_S)
    disk.free_bytes = None
    unsealed.submit("assistant", rows(3)).result(WAIT_S)
    unsealed.seal()
    assert numbers(tmp_path) == [1, 3]


def test_a_torn_tail_that_cannot_be_cut_is_left_behind(
    disk: Disk, unsealed: SegmentLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unsealed.submit("assistant", rows(1)).result(WAIT_S)
    truncate = os.ftruncate
    refusals = iter([OSError(errno.EIO, "I/O error")])

    def refuse_once(descriptor: int, length: int) -> None:
        for refusal in refusals:
            raise refusal
        truncate(descriptor, length)

    monkeypatch.setattr(os, "ftruncate", refuse_once)
    disk.free_bytes = 10
    with pytest.raises(LogWriteError):
        unsealed.submit("assistant", rows(2)).result(WAIT_S)
    disk.free_bytes = None
    unsealed.submit("assistant", rows(3)).result(WAIT_S)
    unsealed.seal()
    assert sorted(numbers(tmp_path)) == [1, 3]


def test_short_writes_are_completed(disk: Disk, unsealed: SegmentLog, tmp_path: Path) -> None:
    write = disk.real_write
    disk.real_write = lambda descriptor, content: write(descriptor, content[:7])
    disk.free_bytes = 10_000
    unsealed.submit("assistant", rows(1, 2, 3)).result(WAIT_S)
    unsealed.seal()
    assert numbers(tmp_path) == [1, 2, 3]


def test_after_a_failed_fsync_the_descriptor_is_never_used_again(
    disk: Disk, unsealed: SegmentLog, tmp_path: Path
) -> None:
    """A second fsync would report success for pages that the kernel threw away: the row must not come back."""
    unsealed.submit("assistant", rows(1)).result(WAIT_S)
    (before,) = open_segments(tmp_path)
    disk.failing_syncs = 1
    with pytest.raises(LogWriteError, match="nothing was acknowledged"):
        unsealed.submit("assistant", rows(2)).result(WAIT_S)
    unsealed.submit("assistant", rows(3)).result(WAIT_S)
    assert before not in [path for path in open_segments(tmp_path) if path.stat().st_size > 100]
    unsealed.seal()
    assert numbers(tmp_path) == [1, 3]
    assert open_segments(tmp_path) == []


def test_one_failing_file_does_not_fail_the_others_requests(disk: Disk, unsealed: SegmentLog, tmp_path: Path) -> None:
    disk.may_sync.clear()
    unsealed.submit("copilot", rows(0))
    eventually(lambda: not unsealed._queue)
    failing = unsealed.submit("assistant", rows(1))
    passing = unsealed.submit("copilot", rows(2))
    eventually(lambda: len(unsealed._queue) == 2)
    sync = disk.real_fdatasync

    def fail_for_assistant(descriptor: int) -> None:
        if "assistant" in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.EIO, "I/O error")
        sync(descriptor)

    disk.real_fdatasync = fail_for_assistant
    disk.may_sync.set()
    passing.result(WAIT_S)
    with pytest.raises(LogWriteError):
        failing.result(WAIT_S)


def test_a_publication_that_fails_is_tried_again(unsealed: SegmentLog, tmp_path: Path) -> None:
    unsealed.submit("assistant", rows(1)).result(WAIT_S)
    blocked = tmp_path / "assistant/prediction/received_date=2026-03-02"
    blocked.write_text("a file where the day's folder should be")
    unsealed.seal()
    assert len(open_segments(tmp_path)) == 1
    blocked.unlink()
    unsealed.seal()
    assert numbers(tmp_path) == [1]


def test_a_clock_that_raises_fails_the_request_and_not_the_writer(tmp_path: Path) -> None:
    def broken() -> datetime:
        raise RuntimeError("no time")

    event_log = SegmentLog(tmp_path, UNSEALED, broken)
    event_log.start()
    with pytest.raises(LogWriteError, match="RuntimeError"):
        event_log.submit("assistant", rows(1)).result(WAIT_S)
    with pytest.raises(LogWriteError, match="RuntimeError"):
        event_log.submit("assistant", rows(2)).result(WAIT_S)
    event_log.stop()


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        (b"", []),
        (b'{"n":1', []),
        (b'{"n":1}\n', [1]),
        (b'{"n":1}\n{"n":2}\n{"n":3', [1, 2]),
        (b'{"n":1}\n' + b"x" * 200_000, [1]),
    ],
)
def test_recovery_publishes_a_dead_writers_segment_without_its_torn_tail(
    tmp_path: Path, clock: Clock, content: bytes, kept: list[int]
) -> None:
    leftover = tmp_path / "assistant/prediction/_open/20260228T120000000000Z-dead-000001.jsonl"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(content)
    with SegmentLog(tmp_path, UNSEALED, clock):
        assert open_segments(tmp_path) == []
        assert numbers(tmp_path) == kept
        assert received_days(tmp_path, "prediction") == (["2026-03-02"] if kept else [])


def test_recovery_at_every_byte_of_the_last_line(tmp_path: Path, clock: Clock) -> None:
    whole = b'{"n":1}\n{"n":2}\n'
    for length in range(len(whole) + 1):
        root = tmp_path / str(length)
        folder = root / "assistant/prediction/_open"
        folder.mkdir(parents=True)
        (folder / "a.jsonl").write_bytes(whole[:length])
        with SegmentLog(root, UNSEALED, clock):
            assert numbers(root) == [1, 2][: whole[:length].count(b"\n")]


def test_recovery_leaves_a_living_writer_alone(unsealed: SegmentLog, tmp_path: Path, clock: Clock) -> None:
    unsealed.submit("assistant", rows(1)).result(WAIT_S)
    held = open_segments(tmp_path)
    with SegmentLog(tmp_path, UNSEALED, clock) as second:
        assert open_segments(tmp_path) == held
        second.submit("assistant", rows(2)).result(WAIT_S)
    unsealed.submit("assistant", rows(3)).result(WAIT_S)
    unsealed.seal()
    assert sorted(numbers(tmp_path)) == [1, 2, 3]


def test_recovery_lets_go_of_a_segment_that_its_writer_publishes_meanwhile(
    unsealed: SegmentLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening the file and locking it the writer may seal it: the lock is then one on a published file."""
    unsealed.submit("assistant", rows(1)).result(WAIT_S)
    (path,) = open_segments(tmp_path)
    lock = fcntl.flock

    def seal_first(descriptor: int, operation: int) -> None:
        unsealed.seal()
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", seal_first)
    assert recover_segment(LandingZone(tmp_path, "assistant", EventKind.PREDICTION), path, NOON.date()) is False
    assert numbers(tmp_path) == [1]


def test_a_new_segment_that_another_process_removed_before_its_lock_is_not_written_to(
    unsealed: SegmentLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recovery elsewhere may find the file between its creation and its lock, and remove it because it is empty."""
    lock = fcntl.flock
    removals = iter([True])

    def remove_first(descriptor: int, operation: int) -> None:
        for _ in removals:
            (path,) = open_segments(tmp_path)
            path.unlink()
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    unsealed.submit("assistant", rows(1)).result(WAIT_S)
    unsealed.seal()
    assert numbers(tmp_path) == [1]


def test_two_processes_write_side_by_side_while_others_recover(tmp_path: Path) -> None:
    """Each process starts (and so recovers) over and over while the other one writes: no event may be lost or torn."""
    script = (
        "import sys, pathlib\n"
        "from flywheel_assets.capture.log.segments import SegmentLog, SegmentLimits\n"
        "from flywheel_assets.capture.events.texts import LandedRow\n"
        "from flywheel_assets.lake.landing.disk import EventKind\n"
        "root, first = pathlib.Path(sys.argv[1]), int(sys.argv[2])\n"
        "for turn in range(30):\n"
        "    with SegmentLog(root, SegmentLimits(segment_bytes=100)) as log:\n"
        "        for n in range(5):\n"
        "            line = b'{\"n\":%d}\\n' % (first + turn * 5 + n)\n"
        "            log.submit('assistant', [LandedRow(EventKind.PREDICTION, line)]).result(10)\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path), str(first)]) for first in (0, 1000)]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert sorted(numbers(tmp_path)) == [*range(150), *range(1000, 1150)]
    assert open_segments(tmp_path) == []
