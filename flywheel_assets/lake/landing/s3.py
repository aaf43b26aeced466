"""The landing zone on S3: the same days and closings as on a disk, where nothing can be renamed or locked.

    s3://<bucket>/<prefix>/<application>/<kind>/received_date=YYYY-MM-DD/<segment>.<sha256>.jsonl
    s3://<bucket>/<prefix>/<application>/<kind>/received_date=YYYY-MM-DD/_CLOSED.json

Every object is created by a PUT with `IfNoneMatch`, whole or not at all. The hash in a segment's name lets a day be
closed from its listing alone, and shows a reader that it has what was published. A closing is the one object of its
name: of two readers who close a day at the same moment one is refused and reads the other's list.

S3 must know conditional writes (AWS does since 2024, MinIO and moto as well).
"""

import logging
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import msgspec

from flywheel_assets.errors import ClosedDayError, LandingRetiredError, LandingUnavailableError, SettingsError
from flywheel_assets.lake.landing.disk import (
    CLOSED_FILE,
    Closing,
    EventKind,
    LandedDay,
    Segment,
    closing_time,
    content_digest,
)
from flywheel_assets.lake.storage.files import file_sha256
from flywheel_assets.lake.storage.outages import s3_answer

log = logging.getLogger(__name__)

T = TypeVar("T")

_DOWNLOADS = 8
_MOST_CLOSINGS = 10
_SEGMENT = re.compile(r"([^/]+)\.([0-9a-f]{64})\.jsonl")
_DAY = re.compile(r"received_date=(\d{4}-\d{2}-\d{2})/$")
_TAKEN = frozenset({"PreconditionFailed", "412"})
_ABSENT = frozenset({"NoSuchKey", "404"})


def stem_of(name: str) -> str | None:
    """What a segment was called on the disk that it came from, by its name or key here; None: it is no segment."""
    match = _SEGMENT.fullmatch(name.rpartition("/")[2])
    return match[1] if match else None


@dataclass(frozen=True)
class ObjectLanding:
    """The landing zone of all applications under one prefix of a bucket; `client` is boto3's S3 client."""

    client: Any
    bucket: str
    prefix: str

    @classmethod
    def at(cls, uri: str, client: Any) -> "ObjectLanding":
        """The landing zone at `s3://bucket/prefix`.

        Raises:
            SettingsError: it is no such URI.
        """
        match = re.fullmatch(r"s3://([^/?#]+)(?:/([^?#]*))?", uri)
        if match is None:
            raise SettingsError(f"FLYWHEEL_LANDING_S3 is {uri!r}; valid: s3://BUCKET or s3://BUCKET/PREFIX")
        return cls(client, match[1], (match[2] or "").strip("/"))

    def zone(self, application: str, kind: EventKind) -> "ObjectLandingZone":
        """The part of one application and kind of event."""
        return ObjectLandingZone(self, "/".join(filter(None, (self.prefix, application, kind))))


@dataclass(frozen=True)
class SealedDay:
    """A day's closing, and which of its contents it is: whoever replaces it must have seen this one."""

    closing: Closing
    etag: str


@dataclass(frozen=True)
class ObjectLandingZone:
    """The landing prefix of one application and kind of event; what `LandingZone` is on a disk."""

    landing: ObjectLanding
    folder: str

    def publish(self, segment: Path, day: date) -> str:
        """Make a complete local segment visible under `day`; returns its name there. Again is harmless.

        Raises:
            LandingUnavailableError: S3 does not answer; whether the segment is there is not known.
            SettingsError: there is no such bucket, or we may not write to it.
        """
        name = f"{segment.name.removesuffix('.jsonl')}.{file_sha256(segment)}.jsonl"
        with open(segment, "rb") as body:
            # Taken means that an earlier attempt arrived whose answer was lost: the hash is in the name.
            self._create(self.key(day, name), body)
        return name

    def days(self) -> list[date]:
        """Every received day that has a segment or a closing, ascending."""
        pages = self._pages(Prefix=f"{self.folder}/", Delimiter="/")
        prefixes = [found["Prefix"] for page in pages for found in page.get("CommonPrefixes", [])]
        matches = (_DAY.search(prefix) for prefix in prefixes)
        return sorted(date.fromisoformat(match[1]) for match in matches if match)

    def read(self, day: date, now: datetime) -> LandedDay:
        """List one day, closing it first when its time has come; see `fetched` for its content.

        Raises:
            ClosedDayError: a listed segment's size changed since the closing.
            LandingRetiredError: listed segments are gone; the day's table partition must be left untouched.
            LandingUnavailableError: S3 does not answer.
        """
        closing, segments = self._listed(day)
        if closing is None and now < closing_time(day):
            names = tuple(Path(segment.name) for segment in segments)
            return LandedDay(day, names, False, content_digest([(each.name, each.bytes) for each in segments]))
        if closing is None:
            self._create(self.key(day, CLOSED_FILE), msgspec.json.encode(Closing(closed_at=now, segments=segments)))
            # Another reader may have closed the day at the same moment: its list is the one that holds.
            closing, segments = self._listed(day)
            assert closing is not None
        self._verify(day, closing, segments)
        self._republish_late_segments(day, closing, segments, now)
        return LandedDay(
            day=day,
            paths=tuple(Path(segment.name) for segment in closing.segments),
            is_closed=True,
            content_hash=content_digest([(segment.name, segment.sha256) for segment in closing.segments]),
        )

    def republish_late(self, now: datetime) -> list[str]:
        """Move every segment that is late for its closed day to today; returns their names. One listing per day."""
        moved: list[str] = []
        for day in self.days():
            segments = self.segments(day)
            closing = self._closing(day) if segments else None
            if closing is not None:
                moved += self._republish_late_segments(day, closing, segments, now)
        return moved

    @contextmanager
    def fetched(self, landed: LandedDay, scratch: Path) -> Iterator[list[Path]]:
        """Verified local copies of a day's segments, in order, for as long as the block runs.

        Raises:
            ClosedDayError: an object does not hold what its name says.
            LandingRetiredError: an object is gone.
            LandingUnavailableError: S3 does not answer, or an erasure has replaced an object since the day was listed.
        """

        def fetch(name: str) -> Path:
            try:
                return self.download(landed.day, name, Path(folder) / name)
            except LandingRetiredError:
                closing = self._closing(landed.day)
                if landed.is_closed and closing is not None and name in {each.name for each in closing.segments}:
                    raise
                where = self.shown(self.key(landed.day, name))
                raise LandingUnavailableError(f"{where} was rewritten since the day was listed; run it again") from None

        scratch.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=scratch, prefix="landing-") as folder, ThreadPoolExecutor(_DOWNLOADS) as threads:
            names = [path.name for path in landed.paths]
            yield list(threads.map(fetch, names))

    def download(self, day: date, name: str, target: Path) -> Path:
        """Write one segment to `target`, verified.

        Raises:
            ClosedDayError: the object does not hold what its name says.
            LandingRetiredError: the object is gone.
            LandingUnavailableError: S3 does not answer.
        """
        key = self.key(day, name)
        content = self._content(key)
        if content is None:
            raise LandingRetiredError(f"{self.shown(key)} is gone since the day was listed; restore it")
        target.write_bytes(content)
        match = _SEGMENT.fullmatch(name)
        if match is None or file_sha256(target) != match[2]:
            raise ClosedDayError(f"{self.shown(key)} does not hold what its name says: restore the object")
        return target

    def _listed(self, day: date) -> tuple[Closing | None, list[Segment]]:
        """The day's closing and the segments that lay there while it was this one.

        Raises:
            LandingUnavailableError: others replaced it again and again.
        """
        for _ in range(_MOST_CLOSINGS):
            closing, segments = self._closing(day), self.segments(day)
            there, listed = (
                {each.name for each in segments},
                {each.name for each in closing.segments} if closing else set(),
            )
            if closing is None or there == listed or self._closing(day) == closing:
                return closing, segments
            # An erasure came between the two: by the older list its new objects are late, and its old ones missing.
        raise LandingUnavailableError(f"{self.shown(self.key(day, ''))} is being rewritten; repeat the command")

    def _closing(self, day: date) -> Closing | None:
        sealed = self.sealed(day)
        return None if sealed is None else sealed.closing

    def sealed(self, day: date) -> "SealedDay | None":
        """The day's closing and which one it is; None while the day is open."""
        found = self._object(self.key(day, CLOSED_FILE))
        return None if found is None else SealedDay(msgspec.json.decode(found[0], type=Closing), found[1])

    def replace_closing(self, day: date, closing: Closing, seen: str) -> str:
        """Put another closing in the place of the one with the ETag `seen`; returns the new one's.

        Raises:
            LandingUnavailableError: it is not the one that was seen.
        """
        landing, key, body = self.landing, self.key(day, CLOSED_FILE), msgspec.json.encode(closing)
        try:
            answer = self.call(
                lambda: landing.client.put_object(Bucket=landing.bucket, Key=key, Body=body, IfMatch=seen), _TAKEN
            )
        except KeyError:
            # The client asks again where an answer was lost, and is then refused because of its own first request.
            found = self._object(key)
            if found is not None and found[0] == body:
                return found[1]
            raise LandingUnavailableError(f"{self.shown(key)} was changed meanwhile; repeat the command") from None
        return str(answer["ETag"])

    def segments(self, day: date) -> list[Segment]:
        """The segments that lie under a day now, in name order, listed in its closing or not."""
        found = []
        for page in self._pages(Prefix=self.key(day, "")):
            for each in page.get("Contents", []):
                name = each["Key"].rpartition("/")[2]
                match = _SEGMENT.fullmatch(name)
                if match:
                    found.append(Segment(name, each["Size"], match[2]))
        return sorted(found, key=lambda segment: segment.name)

    def _verify(self, day: date, closing: Closing, segments: list[Segment]) -> None:
        there = {segment.name: segment for segment in segments}
        where = self.shown(self.key(day, ""))
        missing = [segment.name for segment in closing.segments if segment.name not in there]
        if missing:
            raise LandingRetiredError(
                f"{where}: {len(missing)} of {len(closing.segments)} segments of the closed day {day} are gone "
                f"(first: {missing[0]}). The table keeps its rows; restore the objects to read the day again."
            )
        for segment in closing.segments:
            if there[segment.name].bytes != segment.bytes:
                raise ClosedDayError(
                    f"{where}{segment.name} has {there[segment.name].bytes} bytes, its closing recorded "
                    f"{segment.bytes}. A closed day never changes: restore the object."
                )

    def _republish_late_segments(
        self, day: date, closing: Closing, segments: list[Segment], now: datetime
    ) -> list[str]:
        if now.date() <= day:
            # A reader whose clock is behind the one that closed the day would copy a segment onto itself and then
            # delete it: whoever knows the time moves it.
            return []
        listed = {segment.name for segment in closing.segments} | set(closing.erasing)
        late = [segment.name for segment in segments if segment.name not in listed]
        for name in late:
            # Copied first: a reader that dies in between leaves it in both places, and the lake keeps one receipt.
            content = self._content(self.key(day, name))
            if content is not None:
                self._create(self.key(now.date(), name), content)
                self.call(
                    partial(self.landing.client.delete_object, Bucket=self.landing.bucket, Key=self.key(day, name))
                )
        return late

    def _create(self, key: str, body: Any) -> bool:
        """Create the object; False where one of its name is there already."""
        landing = self.landing
        try:
            self.call(
                lambda: landing.client.put_object(Bucket=landing.bucket, Key=key, Body=body, IfNoneMatch="*"), _TAKEN
            )
        except KeyError:
            return False
        return True

    def _content(self, key: str) -> bytes | None:
        found = self._object(key)
        return None if found is None else found[0]

    def _object(self, key: str) -> tuple[bytes, str] | None:
        """An object's content and ETag."""
        landing = self.landing
        try:
            answer = self.call(lambda: landing.client.get_object(Bucket=landing.bucket, Key=key), _ABSENT)
            return self.call(lambda: answer["Body"].read()), str(answer["ETag"])
        except KeyError:
            return None

    def _pages(self, **parameters: Any) -> list[dict[str, Any]]:
        paginator = self.landing.client.get_paginator("list_objects_v2")
        return self.call(lambda: list(paginator.paginate(Bucket=self.landing.bucket, **parameters)))

    def call(self, request: Callable[[], T], expected: frozenset[str] = frozenset()) -> T:
        """The answer to a request; `KeyError` for one of the expected refusals, our errors for all other failures."""
        check = "FLYWHEEL_LANDING_S3 and the rights"
        return s3_answer(request, self.shown(self.folder), check, expected, LandingUnavailableError)

    def key(self, day: date, name: str) -> str:
        """An object's key in the bucket."""
        return f"{self.folder}/received_date={day.isoformat()}/{name}"

    def shown(self, key: str) -> str:
        """A key as people know it."""
        return f"s3://{self.landing.bucket}/{key}"
