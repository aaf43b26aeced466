"""Defines the landing zone for the rest of the lake: on a disk (`disk.py`) or on S3 (`s3.py`).

Both treat days, closings and late segments alike. They replace a sealed segment in different ways: a disk renames, S3
announces the new objects in the day's closing, a spool swaps one file under the lock that shippers take. `Rewrite` is
the unit of a replacement; `lake.erasure.landing` has the one algorithm that uses it.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import date, datetime
from pathlib import Path
from typing import Protocol

from flywheel_assets.lake.landing.disk import EventKind, IsGone, LandedDay, Removal, Revision


class Rewrite(Protocol):
    """Some segments of one day, which are replaced together."""

    @property
    def day(self) -> date:
        """Return the received day."""

    @property
    def is_open(self) -> bool:
        """Return whether a reader may still close the day, with the segments that lie there then."""

    def list_segments(self) -> Iterator[tuple[str, Path, Path]]:
        """Yield each segment's name, a file with its lines, and a target path for the lines that stay.

        Both files may be used until the caller asks for the next; a target that is not deleted is kept for `replace`.
        """

    def replace(self, kept: Mapping[str, Path], erasure: str) -> Removal:
        """Put the targets of the segments `kept` in their place; finish the work of a killed erasure.

        After a kill at any point the day is whole, or its readers refuse it and the next erasure finishes it.
        """


class Landing(Protocol):
    """The landed events of one application and kind."""

    def list_days(self) -> list[date]:
        """List every received day that has events, ascending."""

    def read(self, day: date, now: datetime) -> LandedDay:
        """Read the list of one day's segments; close the day first when its time has come.

        Raises:
            ClosedDayError: a listed segment's size changed since the closing.
            LandingRetiredError: listed segments are missing; the day's table partition must be left untouched.
            LandingUnavailableError: S3 does not answer.
        """

    def look(self, day: date) -> LandedDay:
        """List one day's segments as they are, without closing the day or looking for late ones."""

    def add_history(self, day: date, segments: Sequence[Path], revision: Revision, now: datetime) -> bool:
        """Add segments of history to a day; return whether the day had been closed before.

        A day whose time is over is closed with them, or its closing gains a revision. After a kill at any point readers
        see the day as it was, or with all of them.

        Raises:
            OpenSegmentError: the day is open and about to close; repeat after its closing.
            LandingRetiredError: listed segments are gone, so that the day can no longer be read.
        """

    def clear_unfinished(self, days: Iterable[date]) -> None:
        """Delete what a killed import or erasure left hidden in the given days; what a closing lists stays.

        The caller keeps imports and erasures away (`Lake.pause_daily_steps`).
        """

    def republish_late(self, now: datetime) -> Sequence[object]:
        """Move every segment that is late for its closed day to today; return the moved segments."""

    def fetch(self, landed: LandedDay, scratch: Path) -> AbstractContextManager[Sequence[Path]]:
        """Fetch a day's segments as verified local files, in order; they exist while the block runs."""

    def read_copies(self, scratch: Path) -> Iterator[Path]:
        """Read every sealed segment and kept version as a file, which exists until the next is asked for."""

    def open_rewrites(self, clock: Callable[[], datetime], scratch: Path) -> Generator[Rewrite, None, None]:
        """Yield units that together cover every sealed segment and can be replaced."""

    def delete_old_versions(self, is_gone: IsGone) -> Removal:
        """Delete kept versions of deleted segments that contain a line to erase; a disk keeps none."""


class LandingPlace(Protocol):
    """The place of all applications' landed events."""

    @property
    def name(self) -> str:
        """Return the folder or the bucket, for messages."""

    def open_zone(self, application: str, kind: EventKind) -> Landing:
        """Open the part of one application and kind of event."""

    def find_folder(self, application: str) -> Path | None:
        """Find the local folder of an application's events; None: they are not on this machine."""

    def verify_owner(self, home_id: str) -> None:
        """Check that the place belongs to a home; one without an owner gets this home.

        Raises:
            HomeMismatchError: it belongs to another home; nothing was changed.
        """

    def claim(self, home_id: str) -> None:
        """Make the place a home's own, whatever home had it before."""

    def read_first_day(self, application: str) -> date | None:
        """Read the first day of an application's history; None: none was imported."""

    def note_first_day(self, application: str, day: date) -> None:
        """Note that history begins on `day` at the latest."""
