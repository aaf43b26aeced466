"""Two capture processes, their crashes, a jumping clock and a reader that closes days, in every order Hypothesis finds.

Whatever happens: what was acknowledged is landed exactly once, nothing is torn, and no closed day changes.
"""

import errno
import json
import os
import shutil
from datetime import date, timedelta
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from flywheel_assets.capture.events.texts import LandedRow
from flywheel_assets.capture.log.segments import SegmentLimits, SegmentLog
from flywheel_assets.errors import LogWriteError
from flywheel_assets.lake.landing.disk import CLOSED_FILE, EventKind, LandingZone
from flywheel_assets_tests.capture.samples import Clock, folder_in_memory, landed, open_segments

WAIT_S = 20.0
LIMITS = SegmentLimits(segment_bytes=300, segment_age_s=1800)
processes = st.integers(0, 1)
kinds = st.sampled_from(list(EventKind))


class Process:
    """A segment log that can die as a killed process does: no seal, no publication, its locks gone."""

    def __init__(self, root: Path, clock: Clock) -> None:
        self.log = SegmentLog(root, LIMITS, clock)
        self.log.start()

    def die(self, torn: bytes) -> None:
        """Leave `torn` behind the last durable byte of every open segment."""
        self.log._seal_due = lambda *, everything: None  # type: ignore[method-assign]
        self.log.stop()
        for tracked in self.log._tracked.values():
            os.write(tracked.segment.descriptor, torn)
            tracked.segment.close()


class Capture(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.root = folder_in_memory()
        self.clock = Clock()
        self.processes = [Process(self.root, self.clock) for _ in range(2)]
        self.acknowledged: dict[int, EventKind] = {}
        self.attempted = 0
        self.latest = self.clock.now
        self.closed: dict[Path, bytes] = {}

    def line(self) -> bytes:
        self.attempted += 1
        return b'{"n":%d}\n' % self.attempted

    @rule(which=processes, kind=kinds, rows=st.integers(1, 20))
    def append(self, which: int, kind: EventKind, rows: int) -> None:
        first = self.attempted + 1
        lines = [LandedRow(kind, self.line()) for _ in range(rows)]
        self.processes[which].log.submit("assistant", lines).result(WAIT_S)
        self.acknowledged |= dict.fromkeys(range(first, first + rows), kind)

    @rule(which=processes, kind=kinds)
    def append_to_a_failing_disk(self, which: int, kind: EventKind) -> None:
        sync = os.fdatasync

        def fail(_: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        os.fdatasync = fail
        try:
            self.processes[which].log.submit("assistant", [LandedRow(kind, self.line())]).result(WAIT_S)
        except LogWriteError:
            return
        finally:
            os.fdatasync = sync
        raise AssertionError("acknowledged without an fsync")

    @rule(which=processes)
    def rotate(self, which: int) -> None:
        self.processes[which].log.seal()

    @rule(which=processes, kind=kinds, rows=st.integers(0, 3), torn_bytes=st.integers(0, 40))
    def crash_while_writing_and_start_again(self, which: int, kind: EventKind, rows: int, torn_bytes: int) -> None:
        if rows:
            self.append(which, kind, rows)
        torn = (self.line() + self.line())[:torn_bytes]
        self.processes[which].die(torn)
        self.processes[which] = Process(self.root, self.clock)

    @rule(which=processes)
    def stop_and_start_again(self, which: int) -> None:
        self.processes[which].log.stop()
        self.processes[which] = Process(self.root, self.clock)

    @rule(which=processes)
    def look_for_dead_writers(self, which: int) -> None:
        log = self.processes[which].log
        with log._work:
            log._sweep_after = 0.0
            log._work.notify()

    @rule(hours=st.sampled_from([-24, -3, 1, 3, 24]))
    def move_the_clock(self, hours: int) -> None:
        self.clock.now += timedelta(hours=hours)
        self.latest = max(self.latest, self.clock.now)

    @rule(kind=kinds)
    def read_every_day(self, kind: EventKind) -> None:
        zone = LandingZone(self.root, "assistant", kind)
        zone.republish_late(self.clock.now)
        for day in zone.list_days():
            self._note_closing(zone, day)

    def _note_closing(self, zone: LandingZone, day: date) -> None:
        if zone.read(day, self.clock.now).is_closed:
            file = zone.find_day_folder(day) / CLOSED_FILE
            self.closed.setdefault(file, file.read_bytes())

    @invariant()
    def no_closed_day_changes(self) -> None:
        for file, closing in self.closed.items():
            assert file.read_bytes() == closing
            for segment in json.loads(closing)["segments"]:
                assert (file.parent / segment["name"]).stat().st_size == segment["bytes"]

    def teardown(self) -> None:
        try:
            for process in self.processes:
                process.log.stop()
            Process(self.root, self.clock).log.stop()
            assert open_segments(self.root) == []
            # A reader whose clock is behind finds today closed and leaves late files for one whose clock is right.
            now = self.latest + timedelta(days=1)
            for kind in EventKind:
                LandingZone(self.root, "assistant", kind).republish_late(now)
                found = [row["n"] for row in landed(self.root, kind)]
                assert len(found) == len(set(found)), "landed twice"
                assert {n for n, of in self.acknowledged.items() if of is kind} <= set(found), "lost"
                assert set(found) <= set(range(1, self.attempted + 1))
            for file, closing in self.closed.items():
                listed = {segment["name"] for segment in json.loads(closing)["segments"]}
                assert {path.name for path in file.parent.glob("*.jsonl")} == listed
        finally:
            shutil.rmtree(self.root)


TestCapture = Capture.TestCase
TestCapture.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
