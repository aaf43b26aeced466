"""Erases one person's events from landing: a landing folder, or S3 and the way there.

There is one algorithm, `erase_lines`, for every kind of landing; each says in which units its segments are replaced
(`lake.landing.protocol.Rewrite`). With landing on S3 the folder of this machine is a spool: open segments, sealed ones
that are not shipped yet, and messages that a drain could not read. It is searched before the bucket, so that a segment
that is shipped meanwhile is found there. Spools of other machines and brokers cannot be reached: ingest refuses what
comes from them later.
"""

import json
import os
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path

from flywheel_assets.errors import LandingError, OpenSegmentError
from flywheel_assets.lake.landing.disk import (
    UNREADABLE_FOLDER,
    EventKind,
    IsGone,
    LandingZone,
    Removal,
    Spool,
    refuse_while_closing,
)
from flywheel_assets.lake.landing.protocol import Landing, LandingPlace

_LARGEST_INFLATED_BYTES = 64 * 2**20


@dataclass(frozen=True)
class LandedErasure:
    """Counts of what was erased from one kind of event."""

    lines_per_day: dict[date, int]
    segments: int
    removal: Removal = field(default_factory=Removal)

    def __add__(self, other: "LandedErasure") -> "LandedErasure":
        lines = {
            day: self.lines_per_day.get(day, 0) + other.lines_per_day.get(day, 0)
            for day in sorted({*self.lines_per_day, *other.lines_per_day})
        }
        return LandedErasure(lines, self.segments + other.segments, self.removal + other.removal)

    @property
    def object_versions(self) -> int:
        """Kept versions of objects on S3 that were deleted for good."""
        return self.removal.versions

    @property
    def versions_left(self) -> int:
        """Those that S3 did not let us delete."""
        return len(self.removal.refused)


def erase_lines(
    zone: Landing, is_gone: IsGone, erasure: str, clock: Callable[[], datetime], scratch: Path
) -> LandedErasure:
    """Rewrite every sealed segment without the lines to erase; segments without such a line stay as they are.

    Args:
        zone: of one kind of event.
        is_gone: tells a line to erase.
        erasure: id of the erasure, for the closings.
        clock: the time; open days are left alone in the minutes before they close.
        scratch: for local copies.

    Raises:
        OpenSegmentError: an open day with such lines is about to close; it is left as it was.
        ClosedDayError: an object does not hold what its name says.
        LandingUnavailableError: S3 does not answer, or another writer changed a closing.
        SettingsError: we may not read, write or delete there.
    """
    lines_per_day: dict[date, int] = {}
    segments, removal = 0, Removal()
    # Closed at once when it fails: a unit may hold the lock of a spooled segment.
    with closing(zone.open_rewrites(clock, scratch)) as rewrites:
        for rewrite in rewrites:
            kept: dict[str, Path] = {}
            lines = 0
            for name, segment, target in rewrite.list_segments():
                if gone := _write_kept_lines(segment, target, is_gone):
                    kept[name] = target
                    lines += gone
                else:
                    target.unlink()
            if kept and rewrite.is_open:
                refuse_while_closing(rewrite.day, clock())
            removal += rewrite.replace(kept, erasure)
            if kept:
                lines_per_day[rewrite.day] = lines_per_day.get(rewrite.day, 0) + lines
                segments += len(kept)
    return LandedErasure(lines_per_day, segments, removal + zone.delete_old_versions(is_gone))


def _write_kept_lines(segment: Path, target: Path, is_gone: IsGone) -> int:
    """Write the lines of a segment that stay to `target`, durably; return how many do not."""
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


@dataclass(frozen=True)
class ErasableLanding:
    """Every place on which one application's events are landed."""

    application: str
    folder: Path
    """The landing zone on disk, or capture's spool on this machine where the events lie `elsewhere`."""
    scratch: Path
    """For local copies of what lies on S3."""
    elsewhere: LandingPlace | None = None

    def read_lines(self, kind: EventKind) -> Iterator[bytes]:
        """Yield every sealed line of a kind."""
        for zone in self._list_zones(kind):
            for path in zone.read_copies(self.scratch):
                try:
                    with open(path, "rb") as lines:
                        yield from lines
                except FileNotFoundError:
                    continue  # shipped since it was listed: it is read from S3

    def refuse_open_segments(self, is_gone: IsGone) -> None:
        """Refuse while a capture process of this machine writes a segment that holds lines to erase.

        Raises:
            OpenSegmentError: one does.
        """
        for kind in EventKind:
            for path in LandingZone(self.folder, self.application, kind).open_folder.glob("*.jsonl"):
                try:
                    with open(path, "rb") as lines:
                        is_held = any(map(is_gone, lines))
                except FileNotFoundError:
                    continue  # sealed since it was listed: it is rewritten with its day
                if is_held:
                    raise OpenSegmentError(
                        f"capture still writes {path.name}, which holds events to erase. It is sealed when its age "
                        "limit is reached: repeat then."
                    )

    def erase(self, kind: EventKind, is_gone: IsGone, erasure: str, clock: Callable[[], datetime]) -> LandedErasure:
        """Erase lines from every sealed segment.

        Raises:
            OpenSegmentError: an open day is about to close.
            LandingError: S3 does not answer, or holds something else than it should.
        """
        done = [erase_lines(zone, is_gone, erasure, clock, self.scratch) for zone in self._list_zones(kind)]
        return sum(done, LandedErasure({}, 0))

    def hash_days(self, kind: EventKind, now: datetime) -> dict[date, str]:
        """Return the content hash of every landed day; days whose segments retention removed have none."""
        zone = self._list_zones(kind)[-1]
        found = {}
        for day in zone.list_days():
            try:
                found[day] = zone.read(day, now).content_hash
            except LandingError:
                continue
        return found

    def erase_unreadable(self, user_id: str) -> int:
        """Delete messages that quote the user id, as they are or inflated; return how many."""
        removed = 0
        for path in self._list_unreadable():
            body = path.read_bytes()
            if any(form.encode() in text for form in list_written_forms(user_id) for text in (body, _inflate(body))):
                path.unlink()
                removed += 1
        return removed

    def explain_out_of_reach(self, versions_left: int) -> list[str]:
        """Return sentences for the receipt about what may still hold the person's events, without naming them."""
        said = []
        if self.elsewhere is not None:
            said.append(
                "what waits on other capture machines (segments to be shipped, indexes of reviews) and messages in a "
                "broker: ingest refuses the person's events, but they lie in landing until the command is given again"
            )
        if versions_left and self.elsewhere is not None:
            said.append(
                f"{versions_left} old versions of objects in {self.elsewhere.name} that S3 did not let us delete: "
                "delete them with an account that may, or let a lifecycle rule for noncurrent versions do it"
            )
        if unreadable := len(self._list_unreadable()):
            said.append(
                f"{unreadable} messages in {self.folder / UNREADABLE_FOLDER} that cannot be read, and that do not "
                "show the user id: look at them, and delete what is not needed"
            )
        return said

    def _list_zones(self, kind: EventKind) -> list[Landing]:
        """Return where to search, in this order: what is shipped meanwhile is found in the last, which is read from."""
        if self.elsewhere is None:
            return [LandingZone(self.folder, self.application, kind)]
        return [Spool(self.folder, self.application, kind), self.elsewhere.open_zone(self.application, kind)]

    def _list_unreadable(self) -> list[Path]:
        return sorted((self.folder / UNREADABLE_FOLDER).glob("*.message"))


def list_written_forms(user_id: str) -> set[str]:
    """Return every written form of the id: as it is, or escaped for JSON, digits in either case."""
    escaped = json.dumps(user_id)[1:-1]
    raised = re.sub(r"(?<=\\u)[0-9a-f]{4}", lambda digits: digits[0].upper(), escaped)
    return {user_id, json.dumps(user_id, ensure_ascii=False)[1:-1], escaped, raised}


def _inflate(body: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(body, _LARGEST_INFLATED_BYTES)
    except zlib.error:
        return b""
