"""Keeps events on local disk in group-committed segments, sealed by size, age and day.

Requests put their lines into a bounded queue. One writer thread takes everything that waits, appends it to one open
segment per application and kind of event, syncs every file it touched, and only then resolves the requests' futures:
an answer means that the bytes are on disk. One fsync serves many requests, so throughput grows with load.

A sealed segment is published in the landing zone under the UTC day of the injected clock. The age of a segment is
counted on that clock *and* on the machine's monotonic one, and the larger age counts: a clock that stands still or was
set back cannot keep acknowledged events out of sight.

Any number of processes may write into one landing root of one machine: each segment belongs to the process that holds
its lock, and every process looks once a minute for segments whose writer died.
"""

import asyncio
import logging
import secrets
import shutil
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import chain
from pathlib import Path
from typing import Protocol

from flywheel_assets.capture.clock import Clock, read_clock
from flywheel_assets.capture.events.texts import LandedRow
from flywheel_assets.capture.log.backlog import Backlog
from flywheel_assets.capture.log.segment_file import OpenSegment, find_open_segments, recover_segment
from flywheel_assets.errors import EventLogError, LogWriteError
from flywheel_assets.lake.landing.disk import EventKind, LandingZone

log = logging.getLogger(__name__)

_GROUP_BYTES = 32 * 2**20  # bounds how far a segment can grow past its limit in one group
_RETRY_S = 5.0
_SWEEP_S = 60.0


@dataclass(frozen=True)
class SegmentLimits:
    """Sets when segments are sealed, and how much may wait for the disk."""

    segment_bytes: int = 64 * 2**20
    segment_age_s: float = 10.0
    queue_events: int = 20_000
    queue_bytes: int = 256 * 2**20
    min_free_bytes: int = 0
    """Nothing is taken while less is free: a disk that capture fills to the last byte stops everything else on it."""


class LogObserver(Protocol):
    """Learns what happens to the disk; called from the writer thread, must not raise."""

    def note_sync(self, seconds: float, size_bytes: int) -> None:
        """Note that one file's part of a group is on disk."""

    def note_write_failure(self, step: str) -> None:
        """Note that a file refused its part of a group."""

    def note_seal(self) -> None:
        """Note that a segment was published."""


class _Unobserved:
    def note_sync(self, seconds: float, size_bytes: int) -> None:
        pass

    def note_write_failure(self, step: str) -> None:
        pass

    def note_seal(self) -> None:
        pass


@dataclass(frozen=True)
class _Waiting:
    """Holds the rows of one request on their way to the disk, by the segment that they belong to."""

    lines: dict["_Key", list[bytes]]
    events: int
    size_bytes: int
    written: "Future[None] | _LoopFuture"


class _LoopFuture:
    """Wraps an event loop's future that the writer thread settles.

    A `concurrent.futures.Future` that is wrapped for the loop does the same with two locks and four callbacks, a
    tenth of what a single event costs.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[None] = self._loop.create_future()

    def set_running_or_notify_cancel(self) -> bool:
        """Return whether a caller still waits."""
        return not self.future.cancelled()

    def set_result(self, _: None) -> None:
        """Report that the rows are on disk."""
        self._settle(None)

    def set_exception(self, failure: BaseException) -> None:
        """Report that the rows are not on disk."""
        self._settle(failure)

    def _settle(self, failure: BaseException | None) -> None:
        with suppress(RuntimeError):  # the loop was closed: no caller waits any more
            self._loop.call_soon_threadsafe(self._settle_in_loop, failure)

    def _settle_in_loop(self, failure: BaseException | None) -> None:
        if self.future.done():
            return
        if failure is None:
            self.future.set_result(None)
        else:
            self.future.set_exception(failure)


@dataclass
class _Tracked:
    """Holds an open segment and the times when it was opened, on both clocks."""

    segment: OpenSegment
    opened_at: datetime
    opened_monotonic: float


_Key = tuple[str, EventKind]


class SegmentLog:
    """Appends events durably. Use one instance per process and landing root, from any thread or event loop."""

    def __init__(
        self,
        root: Path,
        limits: SegmentLimits | None = None,
        clock: Clock = read_clock,
        observer: LogObserver | None = None,
    ) -> None:
        self._root = root
        self._limits = limits or SegmentLimits()
        self._clock = clock
        self._observer = observer or _Unobserved()
        self._writer_name = secrets.token_hex(4)  # random: names stay unique without naming host or process
        self._segments_made = 0
        self._tracked: dict[_Key, _Tracked] = {}
        # Segments that could not be written or published any more, to be recovered up to what was durable. They stay
        # open for their locks alone: another process does not know how much of them is durable, and would publish
        # events that were never acknowledged.
        self._set_aside: list[OpenSegment] = []
        self._retry_after = 0.0
        self._sweep_after = 0.0
        self._failed_at: float | None = None
        self._work = threading.Condition()
        self._queue = Backlog[_Waiting]("disk", self._limits.queue_events, self._limits.queue_bytes)
        self._seal_requests: list[Future[None]] = []
        self._is_open = False
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "SegmentLog":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Recover the segments of dead writers, then take events."""
        self._root.mkdir(parents=True, exist_ok=True)
        self._recover_leftovers()
        self._is_open = True
        self._thread = threading.Thread(target=self._run, name="segment-writer", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write the waiting events, seal and publish every segment, and take nothing more."""
        with self._work:
            self._is_open = False
            self._work.notify()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        for segment in self._set_aside:
            segment.close()  # the next process that starts recovers it
        self._set_aside.clear()

    async def append(self, application: str, rows: Sequence[LandedRow]) -> None:
        """Return when the rows are on disk.

        Raises:
            QueueFullError: too much waits already; nothing was taken.
            LogWriteError: the disk refused; nothing may be acknowledged.
        """
        written = _LoopFuture()
        self._enqueue(application, rows, written)
        await written.future

    def submit(self, application: str, rows: Sequence[LandedRow]) -> "Future[None]":
        """Queue the rows; the future resolves when they are on disk, or fails with `LogWriteError`.

        Raises:
            QueueFullError: too much waits already. A request larger than the whole queue passes when nothing waits.
            LogWriteError: the log is closed.
        """
        written: Future[None] = Future()
        self._enqueue(application, rows, written)
        return written

    def _enqueue(self, application: str, rows: Sequence[LandedRow], written: "Future[None] | _LoopFuture") -> None:
        lines: dict[_Key, list[bytes]] = {}
        for kind in EventKind:
            of_kind = [row.line for row in rows if row.kind is kind]
            if of_kind:
                lines[application, kind] = of_kind
        waiting = _Waiting(lines, len(rows), sum(map(len, chain.from_iterable(lines.values()))), written)
        with self._work:
            if not self._is_open:
                raise LogWriteError("the event log is closed: the service is shutting down")
            self._queue.put(waiting)
            self._work.notify()

    @property
    def queued_events(self) -> int:
        """Return the number of events that wait for the disk."""
        return self._queue.events

    @property
    def unpublished_segments(self) -> int:
        """Return the number of segments that could not be published yet; the log tries again every few seconds."""
        return len(self._set_aside)

    def find_problem(self) -> str | None:
        """Return why nothing can be made durable right now; None when all is well.

        A failure counts for some seconds only: a load balancer that stops sending here because of it would otherwise
        never learn that the disk works again.
        """
        if not self._is_open or self._thread is None or not self._thread.is_alive():
            return "the event log is closed"
        if self._failed_at is not None and time.monotonic() - self._failed_at < _RETRY_S:
            return "the disk refused events a moment ago"
        return self._find_lack_of_space()

    def seal(self) -> None:
        """Publish all acknowledged events; return when readers can see them."""
        request: Future[None] = Future()
        with self._work:
            if not self._is_open:
                return
            self._seal_requests.append(request)
            self._work.notify()
        request.result()

    # The writer thread -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            group, seal_requests, is_last = self._take_work()
            if group:
                self._commit(group)
            self._seal_due(everything=is_last or bool(seal_requests))
            if not is_last and time.monotonic() >= self._sweep_after:
                self._sweep()
            for request in seal_requests:
                request.set_result(None)
            if is_last:
                return

    def _take_work(self) -> tuple[list[_Waiting], list["Future[None]"], bool]:
        with self._work:
            if not self._queue and not self._seal_requests and self._is_open:
                has_timers = bool(self._tracked or self._set_aside)
                self._work.wait(self._compute_tick_s() if has_timers else _SWEEP_S)
            group = self._queue.take(_GROUP_BYTES)
            seal_requests, self._seal_requests = self._seal_requests, []
            return group, seal_requests, not self._is_open and not self._queue

    def _compute_tick_s(self) -> float:
        return min(1.0, max(0.02, self._limits.segment_age_s / 4))

    def _commit(self, group: list[_Waiting]) -> None:
        try:
            failures = self._write_and_sync(group)
        except Exception as error:
            # The thread must survive unexpected errors (a clock that raises): its requests fail, they do not wait.
            log.exception("group commit failed")
            self._note_failure("writer")
            surprise = LogWriteError(f"{type(error).__name__} in the writer")
            failures = {key: surprise for waiting in group for key in waiting.lines}
        if not failures:
            self._failed_at = None
        for waiting in group:
            failure = next((failures[key] for key in waiting.lines if key in failures), None)
            if failure is None:
                waiting.written.set_result(None)
            else:
                waiting.written.set_exception(failure)

    def _write_and_sync(self, group: list[_Waiting]) -> dict[_Key, EventLogError]:
        lines: dict[_Key, list[bytes]] = {}
        for waiting in group:
            for key, chunk in waiting.lines.items():
                lines.setdefault(key, []).extend(chunk)
        lack = self._find_lack_of_space()
        if lack is not None:
            self._note_failure("space")
            return dict.fromkeys(lines, LogWriteError(f"{lack}; nothing was acknowledged"))
        failures: dict[_Key, EventLogError] = {}
        for key, chunk in lines.items():
            try:
                self._open_segment_for(key).append(chunk)
            except OSError as error:
                failures[key] = self._handle_failure(key, error, "write")
        for key in lines:
            if key in failures:
                continue
            began = time.monotonic()
            try:
                size_bytes = self._tracked[key].segment.sync()
            except OSError as error:
                failures[key] = self._handle_failure(key, error, "fsync")
            else:
                self._observer.note_sync(time.monotonic() - began, size_bytes)
        return failures

    def _find_lack_of_space(self) -> str | None:
        least = self._limits.min_free_bytes
        try:
            free = shutil.disk_usage(self._root).free if least else 0
        except OSError as error:
            return f"the landing zone cannot be reached: {error.strerror}"
        return f"{free} bytes are free on the landing zone's disk; at least {least} must be" if free < least else None

    def _note_failure(self, step: str) -> None:
        self._failed_at = time.monotonic()
        self._observer.note_write_failure(step)

    def _open_segment_for(self, key: _Key) -> OpenSegment:
        now = self._clock()
        tracked = self._tracked.get(key)
        if tracked is not None and _find_utc_day(tracked.opened_at) != _find_utc_day(now):
            self._seal(key)
            tracked = self._tracked.get(key)
        if tracked is None:
            application, kind = key
            zone = LandingZone(self._root, application, kind)
            self._segments_made += 1
            segment = OpenSegment.create(zone, self._writer_name, self._segments_made, now)
            tracked = self._tracked[key] = _Tracked(segment, now, time.monotonic())
        return tracked.segment

    def _handle_failure(self, key: _Key, error: OSError, step: str) -> EventLogError:
        """Continue the segment at its durable end after a failed write; never after a failed fsync.

        The kernel marks the pages of a failed fsync clean: a second fsync on that descriptor would report success for
        bytes that never reached the disk. The durable bytes before it are published through a new descriptor.
        """
        log.error("%s failed for %s/%s: %s", step, *key, error.strerror)
        self._note_failure(step)
        if key in self._tracked and (step == "fsync" or not self._is_whole(key)):
            self._put_aside(key)
        return LogWriteError(f"the disk refused the events ({step}: {error.strerror}); nothing was acknowledged")

    def _is_whole(self, key: _Key) -> bool:
        segment = self._tracked[key].segment
        try:
            return segment.path.stat().st_size == segment.durable_bytes
        except OSError:
            return False

    def _put_aside(self, key: _Key) -> None:
        self._set_aside.append(self._tracked.pop(key).segment)

    def _seal_due(self, *, everything: bool) -> None:
        try:
            for key in list(self._tracked):
                if everything or self._is_due(self._tracked[key]):
                    self._seal(key)
            if self._set_aside and (everything or time.monotonic() >= self._retry_after):
                self._recover_set_aside()
        except Exception:
            # Nothing acknowledged is at risk: the segments stay in the open folder and are sealed at the next tick.
            log.exception("sealing failed")

    def _is_due(self, tracked: _Tracked) -> bool:
        now = self._clock()
        age_s = max((now - tracked.opened_at).total_seconds(), time.monotonic() - tracked.opened_monotonic)
        return (
            tracked.segment.durable_bytes >= self._limits.segment_bytes
            or age_s >= self._limits.segment_age_s
            or _find_utc_day(now) != _find_utc_day(tracked.opened_at)
        )

    def _seal(self, key: _Key) -> None:
        segment = self._tracked[key].segment
        try:
            segment.publish(self._read_day())
        except OSError as error:
            log.error("could not publish segment %s, will retry: %s", segment.path.name, error.strerror)
            self._put_aside(key)
        else:
            del self._tracked[key]
            self._observer.note_seal()

    def _recover_set_aside(self) -> None:
        waiting, self._set_aside = self._set_aside, []
        for segment in waiting:
            try:
                recover_segment(segment.zone, segment.path, self._read_day(), segment)
            except OSError as error:
                log.error("could not publish segment %s, will retry: %s", segment.path.name, error.strerror)
                self._set_aside.append(segment)
            else:
                segment.close()
                self._observer.note_seal()
        self._retry_after = time.monotonic() + _RETRY_S

    def _sweep(self) -> None:
        try:
            self._recover_leftovers()
        except Exception:
            log.exception("looking for segments of dead writers failed")

    def _recover_leftovers(self) -> None:
        """Publish the segments of dead writers: earlier runs of this process, or other processes on this machine."""
        self._sweep_after = time.monotonic() + _SWEEP_S
        for zone, path in find_open_segments(self._root):
            try:
                if recover_segment(zone, path, self._read_day()):
                    self._observer.note_seal()
            except OSError as error:
                # One unreadable file, or a disk that is full now, must not keep the service from taking events.
                log.error("could not recover segment %s, will retry: %s", path.name, error.strerror)

    def _read_day(self) -> date:
        return _find_utc_day(self._clock())


def _find_utc_day(moment: datetime) -> date:
    return moment.astimezone(UTC).date()
