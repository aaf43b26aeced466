"""Takes lines out of segments on S3, where nothing can be renamed and every name holds the hash of its content.

A rewritten segment is a new object. Of a closed day:

1. `_CLOSED.json` names old and new objects as `erasing`: what is not listed there as a segment is no part of the day,
   and no reader takes it for late;
2. the new objects are created;
3. `_CLOSED.json` lists the new ones instead of the old ones, and names the erasure;
4. the old ones are deleted, and `erasing` is emptied.

Each `_CLOSED.json` replaces the one that was seen, or nothing (`IfMatch`). Killed anywhere, the day can be read, and
the next erasure goes on from the list that holds. Of an open day the new object is created, then the old one deleted; a
day that closes in between lists both, and the lake keeps the first receipt of every event.

A bucket that keeps versions keeps what is deleted. There objects are deleted version by version, and those that were
deleted before by others (late segments, retention) are searched as well. What S3 refuses to delete is counted.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import cached_property, partial
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from flywheel_assets.errors import LandingRetiredError, SettingsError
from flywheel_assets.lake.erasure.landing_disk import IsGone, LandedErasure, write_kept
from flywheel_assets.lake.landing.disk import Segment, closing_time, refuse_while_closing
from flywheel_assets.lake.landing.s3 import ObjectLandingZone, SealedDay, stem_of
from flywheel_assets.lake.storage.files import file_sha256

_AT_ONCE = 8


def local_copies(zone: ObjectLandingZone, scratch: Path) -> Iterator[Path]:
    """Every segment of all days, oldest day first, then versions of deleted ones; a file until the next is asked for.

    Raises:
        ClosedDayError: an object does not hold what its name says.
        LandingUnavailableError: S3 does not answer.
    """
    with _work_folder(scratch) as work:
        for day in zone.days():
            names = [segment.name for segment in zone.segments(day)]
            for start in range(0, len(names), _AT_ONCE):
                for path in _downloaded(zone, day, names[start : start + _AT_ONCE], work).values():
                    yield path
                    path.unlink()
        for version in _deleted_before(zone):
            path = work / "version.jsonl"
            path.write_bytes(version.content())
            yield path


def erase_objects(
    zone: ObjectLandingZone, is_gone: IsGone, erasure: str, clock: Callable[[], datetime], scratch: Path
) -> LandedErasure:
    """Rewrite every segment without the lines that are gone; segments without such a line stay as they are.

    Args:
        zone: of one kind of event.
        is_gone: tells a line that goes.
        erasure: id of the erasure, for the closings.
        clock: the time; open days are left alone in the minutes before they close.
        scratch: for local copies.

    Raises:
        OpenSegmentError: a day is about to close.
        ClosedDayError: an object does not hold what its name says.
        LandingUnavailableError: S3 does not answer, or somebody else changed a closing.
        SettingsError: we may not read, write or delete there.
    """
    erasing = _Erasing(zone, is_gone, erasure, clock)
    # Today comes last, and whether it was there or not: readers move late segments of other days to it.
    for day in sorted({*zone.days(), clock().date()}):
        with _work_folder(scratch) as work:
            erasing.erase_day(day, work)
    for version in _deleted_before(zone):
        if any(map(is_gone, BytesIO(version.content()))):
            erasing.delete(version)
    return LandedErasure(
        erasing.lines_per_day,
        erasing.segments,
        object_versions=erasing.deleted_versions,
        versions_left=len(erasing.left),
    )


@dataclass
class _Erasing:
    """One run over one zone, and what it has done so far."""

    zone: ObjectLandingZone
    is_gone: IsGone
    erasure: str
    clock: Callable[[], datetime]
    lines_per_day: dict[date, int] = field(default_factory=dict)
    segments: int = 0
    deleted_versions: int = 0
    left: set[tuple[str, str]] = field(default_factory=set)
    """Key and id of versions that S3 does not let us delete."""

    @cached_property
    def _keeps_versions(self) -> bool:
        return _keeps_versions(self.zone)

    def erase_day(self, day: date, work: Path) -> None:
        """Rewrite one day."""
        zone = self.zone
        sealed = zone.sealed(day)
        if sealed is None and self.clock() >= closing_time(day):
            zone.read(day, self.clock())
            sealed = zone.sealed(day)
        listed = {segment.name for segment in sealed.closing.segments} if sealed else set()
        unfinished = set(sealed.closing.erasing) - listed if sealed else set()
        names = [segment.name for segment in zone.segments(day) if segment.name not in unfinished]
        rewritten: dict[str, Path | None] = {}
        lines = 0
        for start in range(0, len(names), _AT_ONCE):
            for name, copy in _downloaded(zone, day, names[start : start + _AT_ONCE], work).items():
                # Under its first name, from which its new one is made.
                folder = work / f"{name}.kept"
                folder.mkdir()
                kept = folder / f"{stem_of(name)}.jsonl"
                if gone := write_kept(copy, kept, self.is_gone):
                    lines += gone
                    rewritten[name] = kept if kept.stat().st_size else None
                else:
                    # Most segments are nobody's: kept, they would be a copy of the bucket on this disk.
                    kept.unlink()
                copy.unlink()
        closed = {name: path for name, path in rewritten.items() if name in listed}
        others = {name: path for name, path in rewritten.items() if name not in listed}
        if sealed and (closed or unfinished):
            self._replace_listed(day, sealed, closed, unfinished)
        if others and sealed is None:
            refuse_while_closing(day, self.clock())
        for name, path in others.items():
            if path is not None:
                zone.publish(path, day)
            self.remove(day, name)
        if lines:
            self.lines_per_day[day] = lines
            self.segments += len(rewritten)

    def _replace_listed(
        self, day: date, sealed: SealedDay, rewritten: dict[str, Path | None], unfinished: set[str]
    ) -> None:
        zone, closing, etag = self.zone, sealed.closing, sealed.etag
        described = {name: _described(path) if path else None for name, path in rewritten.items()}
        replacements = [described.get(segment.name, segment) for segment in closing.segments]
        segments = sorted((each for each in replacements if each is not None), key=lambda segment: segment.name)
        kept = {segment.name for segment in segments}
        retired = sorted(unfinished | set(rewritten))
        if rewritten:
            created = {each.name for each in described.values() if each is not None}
            announced = msgspec.structs.replace(closing, erasing=sorted({*retired, *created}))
            etag = zone.replace_closing(day, announced, etag)
            for path in filter(None, rewritten.values()):
                zone.publish(path, day)
            closing = msgspec.structs.replace(
                announced, segments=segments, erasures=list(dict.fromkeys([*closing.erasures, self.erasure]))
            )
            etag = zone.replace_closing(day, closing, etag)
        for name in retired:
            if name not in kept:
                self.remove(day, name)
        zone.replace_closing(day, msgspec.structs.replace(closing, erasing=[]), etag)

    def remove(self, day: date, name: str) -> None:
        """Delete an object, and every version of it where the bucket keeps them."""
        zone = self.zone
        key = zone.key(day, name)
        if self._keeps_versions:
            # The oldest first: deleting the newest would bring the one before it back.
            of_object = [version for version in reversed(_versions(zone, key)) if version.key == key]
            were_deleted = [self.delete(version) for version in of_object]
            if all(were_deleted):
                return
        zone.call(partial(zone.landing.client.delete_object, Bucket=zone.landing.bucket, Key=key))

    def delete(self, version: "_Version") -> bool:
        """Delete one version for good; False where S3 does not let us, which is counted."""
        try:
            version.delete()
        except SettingsError:
            # No right to delete versions, or a lock on them: the receipt tells who can.
            self.left.add((version.key, version.id))
            return False
        self.deleted_versions += 1
        return True


@dataclass(frozen=True)
class _Version:
    """One kept version of an object."""

    zone: ObjectLandingZone
    key: str
    id: str
    is_latest: bool

    def content(self) -> bytes:
        """What it holds."""
        landing = self.zone.landing
        found: bytes = self.zone.call(
            lambda: landing.client.get_object(Bucket=landing.bucket, Key=self.key, VersionId=self.id)["Body"].read()
        )
        return found

    def delete(self) -> None:
        """Remove it for good."""
        landing = self.zone.landing
        self.zone.call(partial(landing.client.delete_object, Bucket=landing.bucket, Key=self.key, VersionId=self.id))


def _keeps_versions(zone: ObjectLandingZone) -> bool:
    landing = zone.landing
    # "Suspended" keeps what was there before; absent: there never were any.
    answer: dict[str, Any] = zone.call(partial(landing.client.get_bucket_versioning, Bucket=landing.bucket))
    return "Status" in answer


def _versions(zone: ObjectLandingZone, prefix: str) -> list[_Version]:
    """The versions under a prefix, newest first of each key; markers of deletion hold nothing and are left out."""
    landing = zone.landing
    paginator = landing.client.get_paginator("list_object_versions")
    pages = zone.call(lambda: list(paginator.paginate(Bucket=landing.bucket, Prefix=prefix)))
    return [
        _Version(zone, each["Key"], each["VersionId"], each["IsLatest"])
        for page in pages
        for each in page.get("Versions", [])
    ]


def _deleted_before(zone: ObjectLandingZone) -> Iterator[_Version]:
    """Versions of segments that no longer are their objects' content."""
    if _keeps_versions(zone):
        for version in _versions(zone, f"{zone.folder}/"):
            if not version.is_latest and stem_of(version.key):
                yield version


def _downloaded(zone: ObjectLandingZone, day: date, names: list[str], work: Path) -> dict[str, Path]:
    """Local copies of some segments; one that vanished was moved to today, or replaced, by somebody else."""

    def fetch(name: str) -> Path | None:
        try:
            return zone.download(day, name, work / name)
        except LandingRetiredError:
            return None

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        found = dict(zip(names, threads.map(fetch, names), strict=True))
    return {name: path for name, path in found.items() if path is not None}


@contextmanager
def _work_folder(scratch: Path) -> Iterator[Path]:
    scratch.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=scratch, prefix="erasing-") as folder:
        yield Path(folder)


def _described(path: Path) -> Segment:
    sha256 = file_sha256(path)
    return Segment(f"{path.stem}.{sha256}.jsonl", path.stat().st_size, sha256)
