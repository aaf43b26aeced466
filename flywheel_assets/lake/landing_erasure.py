"""Takes lines out of sealed segments; a closed day's `_CLOSED.json` says so and describes the new files.

Per day: the new segments are written beside the old ones under names that no reader looks at, then the closing is
replaced, then each new segment takes its final name. Killed in between, the day is refused by every reader (its closing
describes files that are not there yet) until the next erasure finishes it, which it does before anything else.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import msgspec

from flywheel_assets.lake.files import file_sha256, replace_file, sync_folder
from flywheel_assets.lake.landing import CLOSED_FILE, Closing, LandingZone, Segment, read_closing

_BUILDING = ".erasing"


@dataclass(frozen=True)
class LandedErasure:
    """What was taken out of one kind of event."""

    lines_per_day: dict[date, int]
    segments: int


def erase_lines(zone: LandingZone, is_gone: Callable[[bytes], bool], erasure: str) -> LandedErasure:
    """Rewrite every sealed segment without the lines that are gone; segments without such a line stay as they are."""
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
    listed = {segment.name: segment.sha256 for segment in read_closing(closed).segments} if closed.exists() else None
    for path in building:
        final = path.with_name(path.name.removesuffix(_BUILDING))
        # An open day has no closing to compare with: after a crash its segments are rewritten from the old ones.
        if is_whole if listed is None else listed.get(final.name) == file_sha256(path):
            os.replace(path, final)
        else:
            path.unlink()
    sync_folder(folder)


def _rewrite(path: Path, is_gone: Callable[[bytes], bool]) -> int:
    """Write what stays beside the segment; returns the lines that do not, and leaves no file when there are none."""
    building = path.with_name(path.name + _BUILDING)
    gone = 0
    with open(path, "rb") as lines, open(building, "wb") as kept:
        for line in lines:
            if is_gone(line):
                gone += 1
            else:
                kept.write(line)
        kept.flush()
        os.fsync(kept.fileno())
    if not gone:
        building.unlink()
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
