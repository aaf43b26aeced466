"""Keeps landed events on disk: append-only JSON-lines segments by application, kind of event and received day.

    <root>/<application>/<kind>/received_date=YYYY-MM-DD/<segment>.jsonl   sealed, never changed
    <root>/<application>/<kind>/received_date=YYYY-MM-DD/_CLOSED.json      the day's final list of segments
    <root>/<application>/<kind>/_open/<segment>.jsonl                      being written by a capture process

A segment becomes visible by one atomic rename. The first reader that comes later than `CLOSING_DELAY` after the day's
end *closes* it: from then on the day is exactly the files that `_CLOSED.json` lists. A later segment is moved to the
day on which it was found, by a reader of the closed day or by the sweep before every ingest. So nothing acknowledged
is lost and no closed day changes.

History joins the day on which it happened, also a closed one (`LandingZone.add_history`). A segment of it is complete
as `<segment>.jsonl.adding`, which no reader opens, before the closing lists it; then it takes its final name. If it is
killed before the closing is replaced, the day is what it was; if after, every reader gives the listed segments their
names first. So a day is the old one or the new one, and what a closing lists is never late.

Only an erasure replaces segments. It writes their new content to `<segment>.jsonl.erasing`, which no reader opens; then
it replaces the closing; then each file takes its final name. If it is killed in between, every reader refuses the day,
since its closing describes files that do not exist yet. The next erasure finishes the day before anything else.
"""

import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from pathlib import Path
from time import monotonic
from time import sleep as time_sleep

import msgspec

from flywheel_assets.errors import (
    ClosedDayError,
    DamagedFileError,
    HomeMismatchError,
    LandingError,
    LandingRetiredError,
    OpenSegmentError,
)
from flywheel_assets.lake.storage.files import decode_file, hash_file, replace_file, sync_folder, write_once
from flywheel_assets.lake.storage.schema_versions import decode_versioned

CLOSING_DELAY = timedelta(minutes=15)
CLOSED_FILE = "_CLOSED.json"
UNREADABLE_FOLDER = "_unreadable"
"""Folder in the landing folder for broker messages that could not be read, unchanged."""
_ABOUT_TO_CLOSE = timedelta(minutes=5)
"""No open day is rewritten so shortly before its closing: clocks differ, and a rewrite takes a while."""
_BUILDING = ".erasing"
_ADDING = ".adding"
_DAY_DIR = re.compile(r"received_date=(\d{4}-\d{2}-\d{2})$")

FIRST_DAY_FILE = "_HISTORY.json"
"""File next to the folders of both kinds; it says where imported history begins."""

OWNER_FILE = "_HOME.json"
"""File in the root of a landing zone; it names the home that closes its days."""

IsGone = Callable[[bytes], bool]
"""Returns whether a landed line is to be erased."""


class EventKind(StrEnum):
    """The two kinds of event an application lands, each in its own folder."""

    PREDICTION = "prediction"
    FEEDBACK = "feedback"


class FirstDay(msgspec.Struct, frozen=True):
    """`_HISTORY.json`, the first day of an application's imported history."""

    first_day: date


class Owner(msgspec.Struct, frozen=True):
    """`_HOME.json`, the id of the home that a landing zone belongs to."""

    id: str
    schema_version: int = 1

    @classmethod
    def decode(cls, content: bytes, where: str) -> "Owner":
        """Decode the file at `where`.

        Raises:
            HomeMismatchError: it is damaged.
        """
        try:
            return decode_versioned(content, cls, where)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise HomeMismatchError(
                f"{where} is damaged ({type(error).__name__}), and it names the home that these events belong to. "
                "Nothing was changed. Delete it: the next ingest writes it again."
            ) from error

    def refuse_other(self, home_id: str, where: str) -> None:
        """Refuse where it names another home.

        Raises:
            HomeMismatchError: it does.
        """
        if self.id != home_id:
            raise HomeMismatchError(
                f"the landing zone {where} belongs to the home {self.id}, and this home is {home_id}: two homes would "
                "close its days and move its late segments. Nothing was changed. Set FLYWHEEL_HOME, "
                "FLYWHEEL_LANDING_DIR or FLYWHEEL_LANDING_S3 to parts of one home; where this home shall have the zone "
                "from now on, run `flywheel move`."
            )


class Segment(msgspec.Struct, frozen=True):
    """One sealed file as a closing records it."""

    name: str
    bytes: int
    sha256: str


class Revision(msgspec.Struct, frozen=True):
    """One decision by which segments of history joined a day."""

    decision: str
    """Its id in the table `history_imports`."""
    decided_at: datetime
    decided_by: str
    reason: str
    segments: list[str] = []
    """Names of the segments that joined this day; an erasure on S3 may have renamed them since."""


class Closing(msgspec.Struct, frozen=True):
    """`_CLOSED.json`, the list of a closed day's segments."""

    closed_at: datetime
    segments: list[Segment]
    erasures: list[str] = []
    """Ids of the erasures that have removed lines from these segments since."""
    erasing: list[str] = []
    """Objects of unfinished work on S3; they are no part of the day unless `segments` lists them."""
    revisions: list[Revision] = []
    """The decisions that added history, oldest first."""
    schema_version: int = 1


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

    def verify_owner(self, home_id: str) -> None:
        """Check that the folder belongs to a home; one without an owner gets this home.

        Raises:
            HomeMismatchError: it belongs to another home; nothing was changed.
        """
        owner = self.read_owner()
        if owner is not None:
            owner.refuse_other(home_id, self.name)
        elif self.root.is_dir():
            self.claim(home_id)

    def read_owner(self) -> "Owner | None":
        """Read whose the folder is; None: it has no owner yet.

        Raises:
            HomeMismatchError: the file that says so is damaged.
        """
        path = self.root / OWNER_FILE
        try:
            return Owner.decode(path.read_bytes(), str(path))
        except FileNotFoundError:
            return None

    def claim(self, home_id: str) -> None:
        """Make the folder a home's own, whatever home had it before."""
        replace_file(self.root / OWNER_FILE, msgspec.json.encode(Owner(home_id)))

    def read_first_day(self, application: str) -> date | None:
        """Read the first day of an application's history; None: none was imported.

        Raises:
            LandingError: the file that says so is damaged.
        """
        path = self.find_folder(application) / FIRST_DAY_FILE
        way_back = (
            "it says where imported history begins. Restore it from a backup, or write "
            '{"first_day": "YYYY-MM-DD"}: `flywheel history` lists the days.'
        )
        try:
            return decode_file(path, FirstDay, way_back).first_day
        except FileNotFoundError:
            return None
        except DamagedFileError as error:
            raise LandingError(str(error)) from None

    def note_first_day(self, application: str, day: date) -> None:
        """Note that history begins on `day` at the latest."""
        known = self.read_first_day(application)
        if known is None or day < known:
            replace_file(self.find_folder(application) / FIRST_DAY_FILE, msgspec.json.encode(FirstDay(day)))


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
            return _build_closed_day(day, folder, self._close(day, now))
        return _build_open_day(day, folder)

    def look(self, day: date) -> LandedDay:
        """List one day's segments as they are, without closing the day or looking for late ones."""
        folder = self.find_day_folder(day)
        closed_file = folder / CLOSED_FILE
        if closed_file.exists():
            closing = read_closing(closed_file)
            _finish_adding(folder, closing)
            return _build_closed_day(day, folder, closing)
        return _build_open_day(day, folder)

    def add_history(self, day: date, segments: Sequence[Path], revision: Revision, now: datetime) -> bool:
        """Add segments of history to a day; return whether the day had been closed before.

        A day whose time is over is closed with them, or its closing gains a revision. The caller keeps erasures and
        other imports away (`Lake.pause_daily_steps`). After a kill at any point the day is what it was, or complete.

        Args:
            day: the day that the events belong to.
            segments: complete files, each with the name that it shall have.
            revision: the decision; this adds the names.
            now: the time.

        Raises:
            OpenSegmentError: the day is open and about to close; repeat after its closing.
            LandingRetiredError: listed segments are gone, so that the day can no longer be read.
            ClosedDayError: a listed segment was altered.
        """
        folder = self.find_day_folder(day)
        closed_file = folder / CLOSED_FILE
        was_closed = closed_file.exists()
        is_open = not was_closed and now < compute_closing_time(day)
        if is_open:
            refuse_while_closing(day, now)
        folder.mkdir(parents=True, exist_ok=True)
        sync_folder(folder.parent)
        _finish_rewrite(folder, is_whole=False)
        _clear_unfinished_history(folder)
        added = [_copy_hidden(segment, folder) for segment in segments]
        sync_folder(folder)
        if not is_open:
            revision = msgspec.structs.replace(revision, segments=[each.name for each in added])
            if not was_closed:
                first = Closing(now, _sort_segments([*_list_segments(folder), *added]), revisions=[revision])
                # Another reader may have closed the day at the same moment: then it is a closed day like any other.
                was_closed = not write_once(closed_file, msgspec.json.encode(first))
            if was_closed:
                closing = read_closing(closed_file)
                self._verify(folder, closing, day)
                revised = msgspec.structs.replace(
                    closing,
                    segments=_sort_segments([*closing.segments, *added]),
                    revisions=[*closing.revisions, revision],
                )
                replace_file(closed_file, msgspec.json.encode(revised))
        _take_final_names(folder, added)
        return was_closed

    def clear_unfinished(self, days: Iterable[date]) -> None:
        """Delete what a killed import or erasure left hidden in the given days; what a closing lists stays.

        The caller keeps imports and erasures away (`Lake.pause_daily_steps`).
        """
        for day in days:
            folder = self.find_day_folder(day)
            if folder.is_dir():
                _finish_rewrite(folder, is_whole=False)
                _clear_unfinished_history(folder)

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
                # Without a readable closing it is unknown what is late: the day's own readers refuse it, the other days
                # must not wait for it.
                with suppress(ClosedDayError):
                    moved += self._republish_late_segments(folder, now)
        return moved

    @contextmanager
    def fetch(self, landed: LandedDay, scratch: Path) -> Iterator[Sequence[Path]]:
        """Yield the day's segments, which are files of this machine already.

        Of a closed day their sha256 is compared. A segment that was altered at equal size was once read without a word.
        Hashing costs a tenth of decoding.

        Raises:
            ClosedDayError: a segment's content is not what the day's closing recorded.
            LandingRetiredError: a segment is gone.
        """
        gone = next((path for path in landed.paths if not path.exists()), None)
        if gone is not None:
            raise LandingRetiredError(f"{gone} was removed from landing: restore it, or leave out the day {landed.day}")
        if landed.is_closed:
            self.verify_content(landed)
        yield landed.paths

    def verify_content(self, landed: LandedDay) -> None:
        """Compare each segment of a closed day with the sha256 that `_CLOSED.json` records.

        Raises:
            ClosedDayError: one differs.
        """
        closing = read_closing(self.find_day_folder(landed.day) / CLOSED_FILE)
        recorded = {segment.name: segment.sha256 for segment in closing.segments}
        for path in landed.paths:
            if (found := hash_file(path)) != recorded.get(path.name, found):
                raise ClosedDayError(
                    f"{path} of the closed day {landed.day} has sha256 {found}, its closing recorded "
                    f"{recorded[path.name]}: the file was altered since. The table keeps the rows that it had. Restore "
                    f"the file from a backup, then run `flywheel backfill {landed.day} {landed.day} --application "
                    f"{self.application}`; `flywheel fsck` looks at every other file."
                )

    def read_copies(self, scratch: Path) -> Iterator[Path]:
        """Read every sealed segment, oldest day first."""
        for day in self.list_days():
            self.look(day)  # history that a killed import has listed takes its names
            yield from sorted(self.find_day_folder(day).glob("*.jsonl"))

    def open_rewrites(self, clock: Callable[[], datetime], scratch: Path) -> Generator["_DayRewrite", None, None]:
        """Yield every day as one unit to replace, after finishing the work of a killed erasure there."""
        for day in self.list_days():
            _finish_rewrite(self.find_day_folder(day), is_whole=False)
            _clear_unfinished_history(self.find_day_folder(day))
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
            _finish_adding(folder, closing)
            self._verify(folder, closing, day)
        else:
            write_once(closed_file, msgspec.json.encode(Closing(closed_at=now, segments=_list_segments(folder))))
            # Another reader may have closed the day at the same moment: then its list counts.
            closing = read_closing(closed_file)
            _finish_adding(folder, closing)
        self._republish_late_segments(folder, now)
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
                    "A closed day never changes: restore the file from a backup. The table keeps the rows that it had."
                )

    def _republish_late_segments(self, folder: Path, now: datetime) -> list[Path]:
        found = sorted(folder.glob("*.jsonl"))
        # The closing is read after the listing: history is listed in it before it takes a name that is found.
        listed = {segment.name for segment in read_closing(folder / CLOSED_FILE).segments}
        moved = []
        for late in found:
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


def _build_closed_day(day: date, folder: Path, closing: Closing) -> LandedDay:
    return LandedDay(
        day=day,
        paths=tuple(folder / segment.name for segment in closing.segments),
        is_closed=True,
        content_hash=digest_content([(segment.name, segment.sha256) for segment in closing.segments]),
    )


def _build_open_day(day: date, folder: Path) -> LandedDay:
    paths = tuple(sorted(folder.glob("*.jsonl")))
    return LandedDay(day, paths, False, digest_content([(path.name, path.stat().st_size) for path in paths]))


def _sort_segments(segments: Sequence[Segment]) -> list[Segment]:
    return sorted(segments, key=lambda segment: segment.name)


def _copy_hidden(segment: Path, folder: Path) -> Segment:
    """Copy a complete file into a day under a name that no reader opens; return its description."""
    target = folder / f"{segment.name}{_ADDING}"
    with open(segment, "rb") as source, open(target, "wb") as copy:
        shutil.copyfileobj(source, copy)
        copy.flush()
        os.fsync(copy.fileno())
    return Segment(segment.name, target.stat().st_size, hash_file(target))


def _take_final_names(folder: Path, segments: Sequence[Segment]) -> None:
    for segment in segments:
        with suppress(FileNotFoundError):  # a reader of the revised closing has renamed it
            os.rename(folder / f"{segment.name}{_ADDING}", folder / segment.name)
    sync_folder(folder)


def _finish_adding(folder: Path, closing: Closing) -> None:
    """Give segments of history their final names where an import was killed after the closing listed them."""
    waiting = [each for each in closing.segments if not (folder / each.name).exists()]
    if any((folder / f"{each.name}{_ADDING}").exists() for each in waiting):
        _take_final_names(folder, waiting)


def _clear_unfinished_history(folder: Path) -> None:
    """Finish the history of a killed import that the day's closing lists, and delete what it does not list.

    Only for callers that keep imports away: the file of a living one is not listed yet.
    """
    closed_file = folder / CLOSED_FILE
    if closed_file.exists():
        _finish_adding(folder, read_closing(closed_file))
    for path in folder.glob(f"*{_ADDING}"):
        path.unlink()


def _describe_in_closing(folder: Path, names: set[str], erasure: str) -> None:
    """Describe the rewritten segments in the closing of a closed day."""
    closed = folder / CLOSED_FILE
    if not closed.exists():
        return
    closing = read_closing(closed)
    segments = [
        _describe_segment(folder, segment) if segment.name in names else segment for segment in closing.segments
    ]
    updated = msgspec.structs.replace(closing, segments=segments, erasures=[*closing.erasures, erasure])
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
    """Read a day's `_CLOSED.json`.

    Raises:
        ClosedDayError: it is damaged.
    """
    way_back = (
        "it lists the segments of a closed day. The table keeps the rows that it had. Restore it from a backup; "
        "without one the day cannot be read again."
    )
    try:
        return decode_file(closed_file, Closing, way_back)
    except DamagedFileError as error:
        raise ClosedDayError(str(error)) from None


def list_unfinished(folder: Path) -> list[Path]:
    """List a day's files that an erasure or an import of history has not finished; living ones have some, too."""
    return sorted(path for ending in (_BUILDING, _ADDING) for path in folder.glob(f"*{ending}"))


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
