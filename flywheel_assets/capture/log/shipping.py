"""Ships sealed segments from this machine's disk to the landing zone on S3.

Capture and the drain seal segments on the local disk; there they are durable. This thread uploads each under
the UTC day of the upload and removes the file only when S3 has it. Killed in between it uploads again: under the same
name on the same day that changes nothing, on the next day the lake keeps the first receipt of every event.
"""

import fcntl
import logging
import os
import random
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from flywheel_assets.capture.clock import Clock, read_clock
from flywheel_assets.capture.events.texts import LandedRow
from flywheel_assets.capture.log.segments import SegmentLog
from flywheel_assets.errors import LandingUnavailableError, SettingsError
from flywheel_assets.lake.landing.disk import CLOSED_FILE, EventKind
from flywheel_assets.lake.landing.s3 import ObjectLanding
from flywheel_assets.settings import Settings

log = logging.getLogger(__name__)

_LOOK_S = 1.0
_LONGEST_PAUSE_S = 30.0


def open_shipper(settings: Settings, ship_to: ObjectLanding | None, clock: Clock = read_clock) -> "Shipper | None":
    """Open a shipper where `FLYWHEEL_LANDING_S3` is set; None where segments are sealed where Dagster reads them.

    Args:
        settings: name the folder that segments are sealed in.
        ship_to: the landing zone that `Stores(settings).shipping()` opens.
        clock: returns the time, UTC.

    Raises:
        SettingsError: Dagster has read from the folder already, or `ship_to` is missing. Segments would stay here
            unseen.
    """
    if ship_to is not None:
        return Shipper(settings.resolve_landing_dir(), ship_to, clock)
    if settings.landing_s3 is not None:
        raise SettingsError("FLYWHEEL_LANDING_S3 is set, but nothing ships: pass ship_to=Stores(settings).shipping()")
    return None


def wait_until_shipped(settings: Settings, application: str, timeout_s: float) -> bool:
    """Wait until this machine holds no sealed segment of `application` that must go to S3; False after the timeout."""
    deadline = time.monotonic() + timeout_s
    folder = settings.resolve_landing_dir() / application
    while settings.landing_s3 is not None and any(folder.glob("*/received_date=*/*.jsonl")):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


class Shipper:
    """Ships the present and future segments of `root` until stopped; several processes may share a folder."""

    def __init__(self, root: Path, landing: ObjectLanding, clock: Clock = read_clock, look_s: float = _LOOK_S) -> None:
        """Prepare the shipper without connecting.

        Raises:
            SettingsError: the folder has been a landing zone of its own: its days were read from there already.
        """
        closed = next(root.glob(f"*/*/received_date=*/{CLOSED_FILE}"), None)
        if closed is not None:
            raise SettingsError(
                f"{closed} shows that {root} has been the landing zone itself: brought to S3, its events would be "
                "received a second time. Set FLYWHEEL_LANDING_DIR to another folder"
            )
        self._root = root
        self._landing = landing
        self._clock = clock
        self._look_s = look_s
        self._stop = threading.Event()
        self._problem: str | None = None
        self._thread = threading.Thread(target=self._run, name="shipper", daemon=True)

    def __enter__(self) -> "Shipper":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Look for segments from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Ship once more, then end; segments that S3 does not take stay for the next start."""
        self._stop.set()
        self._thread.join()

    @property
    def problem(self) -> str | None:
        """Return why segments stay here right now; events are taken as long as the disk has room."""
        return self._problem

    def list_unshipped(self) -> list[Path]:
        """List sealed segments that S3 does not have yet, oldest names first."""
        return sorted(self._root.glob("*/*/received_date=*/*.jsonl"), key=lambda path: path.name)

    def ship(self) -> int:
        """Upload every sealed segment; return their number.

        Raises:
            LandingUnavailableError: S3 does not answer; the segments stay.
            SettingsError: there is no such bucket, or we may not write to it; the segments stay.
        """
        return sum(self._ship(path) for path in self.list_unshipped())

    def _ship(self, path: Path) -> bool:
        application, kind = path.parts[-4], path.parts[-3]
        if kind not in set(EventKind):
            return False
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False  # another process ships it
            if not path.exists():
                return False  # another process has shipped it
            self._landing.open_zone(application, EventKind(kind)).publish(path, self._clock().date())
            path.unlink()
        finally:
            os.close(descriptor)
        return True

    def _run(self) -> None:
        failures = 0
        while True:
            is_last = self._stop.is_set()
            try:
                self.ship()
                self._problem, failures = None, 0
            except (LandingUnavailableError, SettingsError, OSError) as error:
                # A wrong setting can be corrected without a restart, for instance a bucket's policy: segments wait.
                self._problem = str(error)
                log.warning("sealed segments stay on this disk: %s", error)
                failures = min(failures + 1, 10)
            except Exception:
                log.exception("shipping failed")
                failures = min(failures + 1, 10)
            if is_last:
                return
            self._stop.wait(random.uniform(0.0, min(_LONGEST_PAUSE_S, 2.0**failures)) if failures else self._look_s)


class ShippedLog:
    """Combines a segment log and its shipper to one event log: stopping also ships the last segments."""

    def __init__(self, segment_log: SegmentLog, shipper: Shipper) -> None:
        self._segment_log = segment_log
        self._shipper = shipper

    def start(self) -> None:
        """Recover the segments of dead writers, then take and ship events."""
        self._segment_log.start()
        self._shipper.start()

    def stop(self) -> None:
        """Write, seal and ship everything that waits."""
        self._segment_log.stop()
        self._shipper.stop()

    async def append(self, application: str, rows: Sequence[LandedRow]) -> None:
        """Return when the rows are on this machine's disk; S3 has them later.

        Raises:
            EventLogError: as the segment log does.
        """
        await self._segment_log.append(application, rows)

    def find_problem(self) -> str | None:
        """Return why nothing can be made durable. S3 is no reason: the disk takes events until it is full."""
        return self._segment_log.find_problem()
