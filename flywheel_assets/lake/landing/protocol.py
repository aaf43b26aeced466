"""The landing zone as the rest of the lake sees it: on a disk (`disk.py`) or on S3 (`s3.py`).

Both keep days, closings and late segments alike. They differ in how a sealed segment is replaced: a disk renames, S3
announces the new objects in the day's closing, a spool swaps one file under the lock that shippers hold. `Rewrite` is
the unit in which that happens; `lake.erasure.landing` is the one algorithm that uses it.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import date, datetime
from pathlib import Path
from typing import Protocol

from flywheel_assets.lake.landing.disk import EventKind, IsGone, LandedDay, Removal


class Rewrite(Protocol):
    """Some segments of one day, which are replaced together."""

    @property
    def day(self) -> date:
        """Return the received day."""

    @property
    def is_open(self) -> bool:
        """Return whether a reader may still close the day, with whatever lies there then."""

    def list_segments(self) -> Iterator[tuple[str, Path, Path]]:
        """Yield each segment's name, a file with its lines, and where the lines that stay are to be written.

        Both files may be used until the next is asked for; a target that is left there stays for `replace`.
        """

    def replace(self, kept: Mapping[str, Path], erasure: str) -> Removal:
        """Put the targets of the segments `kept` in their place; finish what a killed erasure has begun.

        Killed anywhere, the day is whole or refused by its readers, and the next erasure finishes it.
        """


class Landing(Protocol):
    """The landed events of one application and kind."""

    def list_days(self) -> list[date]:
        """Return every received day that holds something, ascending."""

    def read(self, day: date, now: datetime) -> LandedDay:
        """List one day, closing it first when its time has come.

        Raises:
            ClosedDayError: a listed segment's size changed since the closing.
            LandingRetiredError: listed segments are gone; the day's table partition must be left untouched.
            LandingUnavailableError: S3 does not answer.
        """

    def republish_late(self, now: datetime) -> Sequence[object]:
        """Move every segment that is late for its closed day to today; return what was moved."""

    def fetch(self, landed: LandedDay, scratch: Path) -> AbstractContextManager[Sequence[Path]]:
        """Give verified files of this machine with a day's segments, in order, for as long as the block runs."""

    def read_copies(self, scratch: Path) -> Iterator[Path]:
        """Yield every sealed segment, and kept versions of deleted ones, as a file until the next is asked for."""

    def open_rewrites(self, clock: Callable[[], datetime], scratch: Path) -> Generator[Rewrite, None, None]:
        """Yield the units in which every sealed segment can be replaced."""

    def delete_old_versions(self, is_gone: IsGone) -> Removal:
        """Delete kept versions of deleted segments that hold a line to erase; a disk keeps none."""


class LandingPlace(Protocol):
    """Where the events of all applications are landed."""

    @property
    def name(self) -> str:
        """Return the folder or the bucket, for messages."""

    def open_zone(self, application: str, kind: EventKind) -> Landing:
        """Return the part of one application and kind of event."""

    def find_folder(self, application: str) -> Path | None:
        """Return the folder of this machine that holds an application's events; None: they lie elsewhere."""
