"""Takes lines out of sealed segments on a disk; a closed day's `_CLOSED.json` says so and describes the new files.

Per day: the new segments are written beside the old ones under names that no reader looks at, then the closing is
replaced, then each new segment takes its final name. Killed in between, the day is refused by every reader (its closing
describes files that are not there yet) until the next erasure finishes it, which it does before anything else.

Where landing is on S3 the folder is only the way there: nobody reads days from it, and a shipper may take a segment at
any moment. There each segment is replaced by itself, under the lock that shippers hold while they read one.
"""

import fcntl
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

import msgspec

from flywheel_assets.lake.landing.disk import (
    CLOSED_FILE,
    Closing,
    LandingZone,
    Segment,
    read_closing,
    refuse_while_closing,
)
from flywheel_assets.lake.storage.files import file_sha256, replace_file, sync_folder

_BUILDING = ".erasing"

IsGone = Callable[[bytes], bool]
"""Whether a landed line goes."""


@dataclass(frozen=True)
class LandedErasure:
    """What was taken out of one kind of event."""

    lines_per_day: dict[date, int]
    segments: int
    object_versions: int = 0
    """Kept versions of objects on S3 that were deleted for good."""
    versions_left: int = 0
    """Those that S3 did not let us delete."""

    def __add__(self, other: "LandedErasure") -> "LandedErasure":
        lines = {
            day: self.lines_per_day.get(day, 0) + other.lines_per_day.get(day, 0)
            for day in sorted({*self.lines_per_day, *other.lines_per_day})
        }
        return LandedErasure(
            lines,
            self.segments + other.segments,
            self.object_versions + other.object_versions,
            self.versions_left + other.versions_left,
        )


def erase_lines(zone: LandingZone, is_gone: IsGone, erasure: str, clock: Callable[[], datetime]) -> LandedErasure:
    """Rewrite every sealed segment without the lines that are gone; segments without such a line stay as they are.

    Raises:
        OpenSegmentError: an open day with such lines is about to close; it is left as it was.
    """
    per_day: dict[date, int] = {}
    segments = 0
    for day in zone.days():
        folder = zone.day_folder(day)
        _finish(folder, is_whole=False)
        rewritten = {}
        for path in sorted(folder.glob("*.jsonl")):
            if lines := _rewrite(path, is_gone):
                rewritten[path.name] = lines
        if rewritten:
            if not (folder / CLOSED_FILE).exists():
                refuse_while_closing(day, clock())
            _seal(folder, list(rewritten), erasure)
            _finish(folder, is_whole=True)
            per_day[day] = sum(rewritten.values())
            segments += len(rewritten)
    return LandedErasure(per_day, segments)


def _finish(folder: Path, *, is_whole: bool) -> None:
    """Bring rewritten segments of a day under their final names; half a one, or one nobody describes, is removed."""
    building = sorted(folder.glob(f"*{_BUILDING}"))
    if not building:
        return
    closed = folder / CLOSED_FILE
    listed = {segment.name: segment.sha256 for segment in read_closing(closed).segments} if closed.exists() else {}
    for path in building:
        final = path.with_name(path.name.removesuffix(_BUILDING))
        expected = listed.get(final.name)
        # Of an open day, or late for a closed one, nothing says what it should hold: after a crash such a segment is
        # rewritten from the old one.
        if is_whole if expected is None else expected == file_sha256(path):
            os.replace(path, final)
        else:
            path.unlink()
    sync_folder(folder)


def erase_spooled(zone: LandingZone, is_gone: IsGone) -> LandedErasure:
    """The same for segments that wait here for their shipment to S3; one without a line left goes as a whole."""
    per_day: dict[date, int] = {}
    segments = 0
    for day in zone.days():
        for path in sorted(zone.day_folder(day).glob("*.jsonl")):
            if lines := _rewrite_spooled(path, is_gone):
                per_day[day] = per_day.get(day, 0) + lines
                segments += 1
        for building in zone.day_folder(day).glob(f"*{_BUILDING}"):
            building.unlink()  # of a run that was killed
    return LandedErasure(per_day, segments)


def _rewrite_spooled(path: Path, is_gone: IsGone) -> int:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return 0  # shipped since it was listed
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if not path.exists():
            return 0
        lines = _rewrite(path, is_gone)
        if lines:
            building = path.with_name(path.name + _BUILDING)
            os.replace(building, path)
            if not path.stat().st_size:
                path.unlink()
            sync_folder(path.parent)
        return lines
    finally:
        os.close(descriptor)


def _rewrite(path: Path, is_gone: IsGone) -> int:
    """Write what stays beside the segment; returns the lines that do not, and leaves no file when there are none."""
    building = path.with_name(path.name + _BUILDING)
    gone = write_kept(path, building, is_gone)
    if not gone:
        building.unlink()
    return gone


def write_kept(segment: Path, target: Path, is_gone: IsGone) -> int:
    """Write the lines of a segment that stay to `target`, durably; returns how many do not."""
    gone = 0
    with open(segment, "rb") as lines, open(target, "wb") as kept:
        for line in lines:
            if is_gone(line):
                gone += 1
            else:
                kept.write(line)
        kept.flush()
        os.fsync(kept.fileno())
    return gone


def _seal(folder: Path, names: list[str], erasure: str) -> None:
    closed = folder / CLOSED_FILE
    if not closed.exists():
        return
    closing = read_closing(closed)
    segments = [_described(folder, segment) if segment.name in names else segment for segment in closing.segments]
    updated = Closing(closing.closed_at, segments, [*closing.erasures, erasure])
    replace_file(closed, msgspec.json.encode(updated))


def _described(folder: Path, segment: Segment) -> Segment:
    path = folder / f"{segment.name}{_BUILDING}"
    return Segment(segment.name, path.stat().st_size, file_sha256(path))
