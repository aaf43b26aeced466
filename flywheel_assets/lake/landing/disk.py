"""Keeps landed events on disk: append-only JSON-lines segments by application, kind of event and received day.

    <root>/<application>/<kind>/received_date=YYYY-MM-DD/<segment>.jsonl   sealed, never changed
    <root>/<application>/<kind>/received_date=YYYY-MM-DD/_CLOSED.json      the day's final list of segments
    <root>/<application>/<kind>/_open/<segment>.jsonl                      being written by a capture process

A segment becomes visible by one atomic rename. The first reader that comes later than `CLOSING_DELAY` after the day's
end *closes* it: from then on the day is exactly the files that `_CLOSED.json` lists. A later segment is moved to the
day on which it was found, by a reader of the closed day or by the sweep before every ingest. So nothing acknowledged
is lost and no closed day changes.

Only an erasure replaces segments. It writes their new content to `<segment>.jsonl.erasing`, which no reader opens; then
it replaces the closing; then each file takes its final name. If it is killed in between, every reader refuses the day,
since its closing describes files that do not exist yet. The next erasure finishes the day before anything else.
"""

import fcntl
import hashlib
import os
import re
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from pathlib import Path
from time import monotonic
from time import sleep as time_sleep

import msgspec

from flywheel_assets.errors import ClosedDayError, LandingRetiredError, OpenSegmentError
from flywheel_assets.lake.storage.files import hash_file, replace_file, sync_folder, write_once

CLOSING_DELAY = timedelta(minutes=15)
CLOSED_FILE = "_CLOSED.json"
UNREADABLE_FOLDER = "_unreadable"
"""Folder in the landing folder for broker messages that could not be read, unchanged."""
_ABOUT_TO_CLOSE = timedelta(minutes=5)
"""No open day is rewritten so shortly before its closing: clocks differ, and a rewrite takes a while."""
_BUILDING = ".erasing"
_DAY_DIR = re.compile(r"received_date=(\d{4}-\d{2}-\d{2})$")

IsGone = Callable[[bytes], bool]
"""Returns whether a landed line is to be erased."""


class EventKind(StrEnum):
    """The two kinds of event an application lands, each in its own folder."""

    PREDICTION = "prediction"
    FEEDBACK = "feedback"


class Segment(msgspec.Struct, frozen=True):
    """One sealed file as a closing records it."""

    name: str
    bytes: int
    sha256: str


class Closing(msgspec.Struct, frozen=True):
    """`_CLOSED.json`, the list of a closed day's segments."""

    closed_at: datetime
    segments: list[Segment]
    erasures: list[str] = []
    """Ids of the erasures that have removed lines from these segments since."""
    erasing: list[str] = []
    """Objects of an unfinished erasure on S3; they are no part of the day unless `segments` lists them."""


@dataclass(frozen=True)
class LandedDay:
    """One landing day: its segments in name order, and whether they can still change."""

    day: date
    paths: tuple[Path, ...]
    is_closed: bool
    content_hash: str


@dataclass(frozen=True)
class Removal:
    """Number of object versions deleted for good, and key and id of those that S3 refused to delete."""

    versions: int = 0
    refused: frozenset[tuple[str, str]] = frozenset()

    def __add__(self, other: "Removal") -> "Removal":
        return Removal(self.versions + other.versions, self.refused | other.refused)


@dataclass(frozen=True)
class DiskLanding:
    """The landing zone of all applications in one folder."""

    root: Path

    @property
    def name(self) -> str:
        """Return the folder, for messages."""
        return str(self.root)

    def open_zone(self, application: str, kind: EventKind) -> "LandingZone":
        """Return the part of one application and kind of event."""
        return LandingZone(self.root, application, kind)

    def find_folder(self, application: str) -> Path:
        """Find the folder of an application's events."""
        return self.root / application


@dataclass(frozen=True)
class LandingZone:
    """The landing folder of one application and kind of event."""

    root: Path
    application: str
    kind: EventKind

    @property
    def folder(self) -> Path:
        """Return the folder of the day folders and the open segments."""
        return self.root / self.application / self.kind

    @property
    def open_folder(self) -> Path:
        """Return the folder of unsealed segments; it is on the same file system, so that a rename is atomic."""
        return self.folder / "_open"

    def find_day_folder(self, day: date) -> Path:
        """Find the folder of the sealed segments of one received day."""
        return self.folder / f"received_date={day.isoformat()}"

    def publish(self, open_segment: Path, day: date) -> Path:
        """Publish a complete, fsynced segment under `day` by one atomic rename; return its final path."""
        folder = self.find_day_folder(day)
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            sync_folder(folder.parent)
        final = folder / open_segment.name
        os.rename(open_segment, final)
        sync_folder(folder)
        return final

    def list_days(self) -> list[date]:
        """List every received day that has a folder, ascending."""
        if not self.folder.is_dir():
            return []
        matches = (_DAY_DIR.search(entry.name) for entry in self.folder.iterdir())
        return sorted(date.fromisoformat(match[1]) for match in matches if match)

    def read(self, day: date, now: datetime) -> LandedDay:
        """Read the list of one day's segments; close the day first when its time has come.

        Raises:
            ClosedDayError: a listed segment's size changed since the closing.
            LandingRetiredError: listed segments are missing; the day's table partition must be left untouched.
        """
        folder = self.find_day_folder(day)
        is_over = now >= compute_closing_time(day)
        # A closing counts also where this reader's clock is behind the clock of the reader that closed the day.
        if is_over or (folder / CLOSED_FILE).exists():
            closing = self._close(day, now)
            return LandedDay(
                day=day,
                paths=tuple(folder / segment.name for segment in closing.segments),
                is_closed=True,
                content_hash=digest_content([(segment.name, segment.sha256) for segment in closing.segments]),
            )
        paths = tuple(sorted(folder.glob("*.jsonl")))
        return LandedDay(day, paths, False, digest_content([(path.name, path.stat().st_size) for path in paths]))

    def republish_late(self, now: datetime) -> list[Path]:
        """Move every segment that is late for its closed day to today; return the new paths.

        A capture process that stalled during the closing renames its segment into a day that no run has a reason to
        read again. The call costs one listing per day folder.
        """
        moved: list[Path] = []
        for day in self.list_days():
            folder = self.find_day_folder(day)
            closed_file = folder / CLOSED_FILE
            if closed_file.exists():
                moved += self._republish_late_segments(folder, read_closing(closed_file), now)
        return moved

    @contextmanager
    def fetch(self, landed: LandedDay, scratch: Path) -> Iterator[Sequence[Path]]:
        """Yield the day's segments, which are files of this machine already."""
        yield landed.paths

    def read_copies(self, scratch: Path) -> Iterator[Path]:
        """Read every sealed segment, oldest day first."""
        for day in self.list_days():
            yield from sorted(self.find_day_folder(day).glob("*.jsonl"))

    def open_rewrites(self, clock: Callable[[], datetime], scratch: Path) -> Generator["_DayRewrite", None, None]:
        """Yield every day as one unit to replace, after finishing the work of a killed erasure there."""
        for day in self.list_days():
            _finish_rewrite(self.find_day_folder(day), is_whole=False)
            yield _DayRewrite(day, self.find_day_folder(day))

    def delete_old_versions(self, is_gone: IsGone) -> Removal:
        """Delete nothing: a disk keeps no versions."""
        return Removal()

    def _close(self, day: date, now: datetime) -> Closing:
        folder = self.find_day_folder(day)
        folder.mkdir(parents=True, exist_ok=True)
        closed_file = folder / CLOSED_FILE
        if closed_file.exists():
            closing = read_closing(closed_file)
            self._verify(folder, closing, day)
        else:
            write_once(closed_file, msgspec.json.encode(Closing(closed_at=now, segments=_list_segments(folder))))
            # Another reader may have closed the day at the same moment: then its list counts.
            closing = read_closing(closed_file)
        self._republish_late_segments(folder, closing, now)
        return closing

    def _verify(self, folder: Path, closing: Closing, day: date) -> None:
        missing = [segment.name for segment in closing.segments if not (folder / segment.name).exists()]
        if missing:
            raise LandingRetiredError(
                f"{folder}: {len(missing)} of {len(closing.segments)} segments of the closed day {day} are missing "
                f"(first: {missing[0]}). The table keeps its rows; restore the files to read the day again."
            )
        for segment in closing.segments:
            size = (folder / segment.name).stat().st_size
            if size != segment.bytes:
                raise ClosedDayError(
                    f"{folder / segment.name} has {size} bytes, its closing recorded {segment.bytes}. "
                    "A closed day never changes: restore the file."
                )

    def _republish_late_segments(self, folder: Path, closing: Closing, now: datetime) -> list[Path]:
        listed = {segment.name for segment in closing.segments}
        moved = []
        for late in sorted(folder.glob("*.jsonl")):
            if late.name not in listed:
                with suppress(FileNotFoundError):  # another reader of the closed day moved it first
                    moved.append(self.publish(late, now.date()))
        return moved


class Spool(LandingZone):
    """The folder of segments that wait for their shipment to S3; no run reads days from it.

    A shipper may take a segment at any moment. Each segment is replaced alone, under the lock that a shipper takes
    while it reads the segment.
    """

    def open_rewrites(self, clock: Callable[[], datetime], scratch: Path) -> Generator["_SpooledRewrite", None, None]:
        """Yield every segment as a unit of its own, locked until the caller asks for the next."""
        for day in self.list_days():
            folder = self.find_day_folder(day)
            for path in sorted(folder.glob("*.jsonl")):
                try:
                    descriptor = os.open(path, os.O_RDONLY)
                except FileNotFoundError:
                    continue  # it was shipped since it was listed
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX)
                    if path.exists():
                        yield _SpooledRewrite(day, folder, path)
                finally:
                    os.close(descriptor)
            for building in folder.glob(f"*{_BUILDING}"):
                building.unlink()  # a killed run has left it


@dataclass(frozen=True)
class _DayRewrite:
    """The sealed segments of one day; see `protocol.Rewrite`."""

    day: date
    folder: Path

    @property
    def is_open(self) -> bool:
        return not (self.folder / CLOSED_FILE).exists()

    def list_segments(self) -> Iterator[tuple[str, Path, Path]]:
        for path in sorted(self.folder.glob("*.jsonl")):
            yield path.name, path, path.with_name(path.name + _BUILDING)

    def replace(self, kept: Mapping[str, Path], erasure: str) -> Removal:
        if kept:
            _describe_in_closing(self.folder, set(kept), erasure)
            _finish_rewrite(self.folder, is_whole=True)
        return Removal()


@dataclass(frozen=True)
class _SpooledRewrite(_DayRewrite):
    """One segment that waits for its shipment; without a line left it is deleted."""

    path: Path

    @property
    def is_open(self) -> bool:
        return False

    def list_segments(self) -> Iterator[tuple[str, Path, Path]]:
        yield self.path.name, self.path, self.path.with_name(self.path.name + _BUILDING)

    def replace(self, kept: Mapping[str, Path], erasure: str) -> Removal:
        for building in kept.values():
            os.replace(building, self.path)
            if not self.path.stat().st_size:
                self.path.unlink()
            sync_folder(self.folder)
        return Removal()


def _finish_rewrite(folder: Path, *, is_whole: bool) -> None:
    """Give rewritten segments of a day their final names; delete incomplete and undescribed ones."""
    building = sorted(folder.glob(f"*{_BUILDING}"))
    if not building:
        return
    closed = folder / CLOSED_FILE
    listed = {segment.name: segment.sha256 for segment in read_closing(closed).segments} if closed.exists() else {}
    for path in building:
        final = path.with_name(path.name.removesuffix(_BUILDING))
        expected = listed.get(final.name)
        # No closing describes a segment of an open day, or one that is late for a closed day: after a crash it is
        # rewritten from the old segment.
        if is_whole if expected is None else expected == hash_file(path):
            os.replace(path, final)
        else:
            path.unlink()
    sync_folder(folder)


def _describe_in_closing(folder: Path, names: set[str], erasure: str) -> None:
    """Describe the rewritten segments in the closing of a closed day."""
    closed = folder / CLOSED_FILE
    if not closed.exists():
        return
    closing = read_closing(closed)
    segments = [
        _describe_segment(folder, segment) if segment.name in names else segment for segment in closing.segments
    ]
    updated = Closing(closing.closed_at, segments, [*closing.erasures, erasure])
    replace_file(closed, msgspec.json.encode(updated))


def _describe_segment(folder: Path, segment: Segment) -> Segment:
    path = folder / f"{segment.name}{_BUILDING}"
    return Segment(segment.name, path.stat().st_size, hash_file(path))


def wait_until_sealed(
    root: Path, application: str, timeout_s: float, sleep: Callable[[float], None] = time_sleep
) -> bool:
    """Wait until no capture process writes a segment of `application`; return False after `timeout_s`."""
    deadline = monotonic() + timeout_s
    folders = [LandingZone(root, application, kind).open_folder for kind in EventKind]
    while any(path.stat().st_size for folder in folders for path in folder.glob("*.jsonl")):
        if monotonic() > deadline:
            return False
        sleep(0.2)
    return True


def read_closing(closed_file: Path) -> Closing:
    """Read a day's `_CLOSED.json`."""
    return msgspec.json.decode(closed_file.read_bytes(), type=Closing)


def _list_segments(folder: Path) -> list[Segment]:
    """List the sealed files of an open day.

    A file that vanishes meanwhile was moved by a reader who closed the day.
    """
    segments = []
    for path in sorted(folder.glob("*.jsonl")):
        with suppress(FileNotFoundError):
            segments.append(Segment(path.name, path.stat().st_size, hash_file(path)))
    return segments


def compute_closing_time(day: date) -> datetime:
    """Compute the time from which on the first reader closes the day."""
    return datetime.combine(day + timedelta(days=1), time(), UTC) + CLOSING_DELAY


def refuse_while_closing(day: date, now: datetime) -> None:
    """Refuse to rewrite an open day in the minutes in which a reader may list and close it.

    Raises:
        OpenSegmentError: a closing is near; the message says when it is over.
    """
    closes = compute_closing_time(day)
    if closes - _ABOUT_TO_CLOSE <= now < closes:
        raise OpenSegmentError(f"landing day {day} is about to close: repeat after {closes:%H:%M} UTC")


def digest_content(parts: list[tuple[str, object]]) -> str:
    """Compute the content hash of a day from its segments' names and their sizes or hashes."""
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()
