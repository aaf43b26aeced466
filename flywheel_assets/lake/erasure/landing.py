"""Everywhere that one application's landed events lie, for an erasure: a landing folder, or S3 and the way there.

With landing on S3 the folder of this machine is a spool: open segments, sealed ones that are not shipped yet, and
messages that a drain could not read. It is searched before the bucket, so that a segment that is shipped meanwhile is
found there. Spools of other machines and brokers cannot be reached: what comes from them later is refused by ingest.
"""

import json
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

from flywheel_assets.errors import LandingError, OpenSegmentError
from flywheel_assets.lake.erasure._landing_s3 import erase_objects, local_copies
from flywheel_assets.lake.erasure.landing_disk import IsGone, LandedErasure, erase_lines, erase_spooled
from flywheel_assets.lake.landing.disk import UNREADABLE_FOLDER, EventKind, LandingZone
from flywheel_assets.lake.landing.s3 import ObjectLanding

_LARGEST_INFLATED_BYTES = 64 * 2**20


@dataclass(frozen=True)
class ErasableLanding:
    """Where one application's events are landed."""

    application: str
    folder: Path
    """The landing zone on disk, or capture's spool on this machine where there are `objects`."""
    scratch: Path
    """For local copies of what lies on S3."""
    objects: ObjectLanding | None = None

    def segments(self, kind: EventKind) -> Iterator[Path]:
        """Every sealed segment as a file of this machine, for as long as the next one is not asked for."""
        zone = self._on_disk(kind)
        for day in zone.days():
            yield from sorted(zone.day_folder(day).glob("*.jsonl"))
        if self.objects is not None:
            yield from local_copies(self.objects.zone(self.application, kind), self.scratch)

    def lines(self, kind: EventKind) -> Iterator[bytes]:
        """Every sealed line of a kind."""
        for path in self.segments(kind):
            try:
                with open(path, "rb") as lines:
                    yield from lines
            except FileNotFoundError:
                continue  # shipped since it was listed: it is read from S3

    def refuse_open_segments(self, is_gone: IsGone) -> None:
        """Make sure that no capture process of this machine writes a segment that holds lines to erase.

        Raises:
            OpenSegmentError: one does.
        """
        for kind in EventKind:
            for path in self._on_disk(kind).open_folder.glob("*.jsonl"):
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
        """Take the lines that are gone out of every sealed segment.

        Raises:
            OpenSegmentError: an open day is about to close.
            LandingError: S3 does not answer, or holds something else than it should.
        """
        if self.objects is None:
            return erase_lines(self._on_disk(kind), is_gone, erasure, clock)
        spooled = erase_spooled(self._on_disk(kind), is_gone)
        there = erase_objects(self.objects.zone(self.application, kind), is_gone, erasure, clock, self.scratch)
        return spooled + there

    def hashes(self, kind: EventKind, now: datetime) -> dict[date, str]:
        """Content hash of every landed day; days whose segments retention removed have none."""
        zone = self._on_disk(kind) if self.objects is None else self.objects.zone(self.application, kind)
        found = {}
        for day in zone.days():
            try:
                found[day] = zone.read(day, now).content_hash
            except LandingError:
                continue
        return found

    def erase_unreadable(self, user_id: str) -> int:
        """Delete messages that quote the user id, as they are or inflated; returns how many."""
        removed = 0
        for path in self._unreadable():
            body = path.read_bytes()
            if any(form.encode() in text for form in written_forms(user_id) for text in (body, _inflated(body))):
                path.unlink()
                removed += 1
        return removed

    def out_of_reach(self, versions_left: int) -> list[str]:
        """Sentences for the receipt about what may still hold the person's events, without naming anybody."""
        said = []
        if self.objects is not None:
            said.append(
                "what waits on other capture machines (segments to be shipped, indexes of reviews) and messages in a "
                "broker: ingest refuses the person's events, but they lie in landing until the command is given again"
            )
        if versions_left and self.objects is not None:
            said.append(
                f"{versions_left} old versions of objects in s3://{self.objects.bucket} that S3 did not let us delete: "
                "delete them with an account that may, or let a lifecycle rule for noncurrent versions do it"
            )
        if unreadable := len(self._unreadable()):
            said.append(
                f"{unreadable} messages in {self.folder / UNREADABLE_FOLDER} that nobody can read, and that do not "
                "show the user id: look at them, and delete what is not needed"
            )
        return said

    def _on_disk(self, kind: EventKind) -> LandingZone:
        return LandingZone(self.folder, self.application, kind)

    def _unreadable(self) -> list[Path]:
        return sorted((self.folder / UNREADABLE_FOLDER).glob("*.message"))


def written_forms(user_id: str) -> set[str]:
    """How the id may stand in what cannot be read: as it is, or escaped for JSON, with digits of either case."""
    escaped = json.dumps(user_id)[1:-1]
    raised = re.sub(r"(?<=\\u)[0-9a-f]{4}", lambda digits: digits[0].upper(), escaped)
    return {user_id, json.dumps(user_id, ensure_ascii=False)[1:-1], escaped, raised}


def _inflated(body: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(body, _LARGEST_INFLATED_BYTES)
    except zlib.error:
        return b""
