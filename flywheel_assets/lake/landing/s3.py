"""Keeps landed events on S3, with the same days and closings as a disk but without renames or locks.

    s3://<bucket>/<prefix>/<application>/<kind>/received_date=YYYY-MM-DD/<segment>.<sha256>.jsonl
    s3://<bucket>/<prefix>/<application>/<kind>/received_date=YYYY-MM-DD/_CLOSED.json

Every object is created by a PUT with `IfNoneMatch`, whole or not at all. With the hash in a segment's name a day can be
closed from its listing alone, and a reader can verify that it has the published content. A closing is the only object
of its name: of two readers that close a day at the same moment S3 refuses one, which then reads the other's list.

Only an erasure replaces segments. A rewritten one is a new object. Of a closed day:

1. `_CLOSED.json` names old and new objects as `erasing`: such an object is part of the day only if it is listed as a
   segment, too, and no reader takes it for late;
2. the new objects are created;
3. `_CLOSED.json` lists the new ones instead of the old ones, and names the erasure;
4. the old ones are deleted, and `erasing` is emptied.

A `_CLOSED.json` is replaced only if it still is the one that was seen. After a kill at any point the day can be read,
and the next erasure continues from the current list. Of an open day the new object is created, then the old one is
deleted; a day that closes in between lists both, and the lake keeps the first receipt of every event.

History joins a closed day in the same way: `_CLOSED.json` announces the new objects under `erasing`, they are created,
and `_CLOSED.json` lists them as segments of a new revision. What a killed import announced and did not list is no part
of the day; the next erasure deletes it.

A bucket with versioning keeps deleted content. There objects are deleted version by version, and versions of objects
that were deleted before (late segments, retention) are searched as well. Versions that S3 refuses to delete are
counted.
"""

import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from flywheel_assets.errors import (
    ClosedDayError,
    LandingError,
    LandingRetiredError,
    LandingUnavailableError,
    SettingsError,
)
from flywheel_assets.lake.landing.disk import (
    CLOSED_FILE,
    FIRST_DAY_FILE,
    OWNER_FILE,
    Closing,
    EventKind,
    FirstDay,
    IsGone,
    LandedDay,
    Owner,
    Removal,
    Revision,
    Segment,
    compute_closing_time,
    digest_content,
    refuse_while_closing,
)
from flywheel_assets.lake.storage.files import hash_file
from flywheel_assets.lake.storage.s3 import Bucket, ObjectVersion, ReplacedError
from flywheel_assets.lake.storage.schema_versions import decode_versioned

_AT_ONCE = 8
"""Downloads at the same time."""
_MOST_CLOSINGS = 10
SEGMENT_NAME = re.compile(r"([^/]+)\.([0-9a-f]{64})\.jsonl")
"""Of an object: the segment's name on disk, and its sha256."""
_DAY = re.compile(r"received_date=(\d{4}-\d{2}-\d{2})/$")


def read_stem(name: str) -> str | None:
    """Read a segment's original name on disk from its key; return None where the key is no segment's."""
    match = SEGMENT_NAME.fullmatch(name.rpartition("/")[2])
    return match[1] if match else None


@dataclass(frozen=True)
class ObjectLanding:
    """The landing zone of all applications under one prefix of a bucket; `client` is boto3's S3 client."""

    client: Any
    bucket: str
    prefix: str

    @classmethod
    def from_uri(cls, uri: str, client: Any) -> "ObjectLanding":
        """Make the landing zone at `s3://bucket/prefix`.

        Raises:
            SettingsError: `uri` has another form.
        """
        match = re.fullmatch(r"s3://([^/?#]+)(?:/([^?#]*))?", uri)
        if match is None:
            raise SettingsError(f"FLYWHEEL_LANDING_S3 is {uri!r}; valid: s3://BUCKET or s3://BUCKET/PREFIX")
        return cls(client, match[1], (match[2] or "").strip("/"))

    @property
    def name(self) -> str:
        """Return the bucket, for messages."""
        return f"s3://{self.bucket}"

    @property
    def place(self) -> str:
        """Return the URI of the prefix."""
        return "/".join(filter(None, (self.name, self.prefix)))

    def find_folder(self, application: str) -> None:
        """Return None: the events are not on this machine."""

    def verify_owner(self, home_id: str) -> None:
        """Check that the prefix belongs to a home; one without an owner gets this home.

        Raises:
            HomeMismatchError: it belongs to another home; nothing was changed.
            LandingUnavailableError: S3 does not answer.
            SettingsError: we may not write there.
        """
        store, key = self._find_owner()
        found = store.read(key)
        if found is None:
            if store.create(key, msgspec.json.encode(Owner(home_id))):
                return
            found = store.read(key)
            assert found is not None
        Owner.decode(found[0], f"{self.place}/{OWNER_FILE}").refuse_other(home_id, self.place)

    def read_owner(self) -> Owner | None:
        """Read whose the prefix is; None: it has no owner yet.

        Raises:
            HomeMismatchError: the object that says so is damaged.
            LandingUnavailableError: S3 does not answer.
        """
        store, key = self._find_owner()
        found = store.read(key)
        return None if found is None else Owner.decode(found[0], f"{self.place}/{OWNER_FILE}")

    def claim(self, home_id: str) -> None:
        """Make the prefix a home's own, whatever home had it before.

        Raises:
            LandingUnavailableError: S3 does not answer, or another home claimed it at the same moment.
        """
        store, key = self._find_owner()
        found, content = store.read(key), msgspec.json.encode(Owner(home_id))
        try:
            is_ours = store.create(key, content) if found is None else bool(store.replace(key, content, found[1]))
        except ReplacedError:
            is_ours = False
        if not is_ours:
            raise LandingUnavailableError(f"{key} was changed meanwhile; repeat the command")

    def _find_owner(self) -> tuple[Bucket, str]:
        key = "/".join(filter(None, (self.prefix, OWNER_FILE)))
        check = "FLYWHEEL_LANDING_S3 and the rights"
        return Bucket(self.client, self.bucket, f"s3://{self.bucket}/{key}", check, LandingUnavailableError), key

    def read_first_day(self, application: str) -> date | None:
        """Read the first day of an application's history; None: none was imported.

        Raises:
            LandingError: the object that says so is damaged.
            LandingUnavailableError: S3 does not answer.
        """
        store, key = self._find_first_day(application)
        found = store.read(key)
        try:
            return None if found is None else msgspec.json.decode(found[0], type=FirstDay).first_day
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise LandingError(
                f"{self.name}/{key} is damaged ({type(error).__name__}): it says where imported history begins. "
                'Restore it, or write {"first_day": "YYYY-MM-DD"}: `flywheel history` lists the days.'
            ) from None

    def note_first_day(self, application: str, day: date) -> None:
        """Note that history begins on `day` at the latest.

        Raises:
            LandingUnavailableError: S3 does not answer, or another import came in between.
        """
        store, key = self._find_first_day(application)
        content = msgspec.json.encode(FirstDay(day))
        found = store.read(key)
        if found is None:
            if store.create(key, content):
                return
            found = store.read(key)
        assert found is not None
        if day < msgspec.json.decode(found[0], type=FirstDay).first_day:
            try:
                store.replace(key, content, found[1])
            except ReplacedError:
                raise LandingUnavailableError(f"{key} was changed meanwhile; repeat the command") from None

    def _find_first_day(self, application: str) -> tuple[Bucket, str]:
        key = "/".join(filter(None, (self.prefix, application, FIRST_DAY_FILE)))
        return self.open_zone(application, EventKind.PREDICTION).store, key

    def open_zone(self, application: str, kind: EventKind) -> "ObjectLandingZone":
        """Open the part of one application and kind of event."""
        return ObjectLandingZone(self, "/".join(filter(None, (self.prefix, application, kind))))


@dataclass(frozen=True)
class SealedDay:
    """A day's closing and its ETag, which a writer that replaces it must have seen."""

    closing: Closing
    etag: str


@dataclass(frozen=True)
class ObjectLandingZone:
    """The landing prefix of one application and kind of event, as `LandingZone` on a disk."""

    landing: ObjectLanding
    folder: str

    @cached_property
    def store(self) -> Bucket:
        """Return the bucket, with the errors of the landing zone."""
        check = "FLYWHEEL_LANDING_S3 and the rights"
        landing = self.landing
        return Bucket(landing.client, landing.bucket, self.build_uri(self.folder), check, LandingUnavailableError)

    def publish(self, segment: Path, day: date) -> str:
        """Publish a complete local segment under `day`; return its name there. A repetition is harmless.

        Raises:
            LandingUnavailableError: S3 does not answer; it is unknown whether the segment is there.
            SettingsError: there is no such bucket, or we may not write to it.
        """
        name = f"{segment.name.removesuffix('.jsonl')}.{hash_file(segment)}.jsonl"
        with open(segment, "rb") as body:
            # If the name is taken, an earlier attempt has arrived and its answer was lost: the hash is in the name.
            self._create(self.build_key(day, name), body)
        return name

    def list_days(self) -> list[date]:
        """List every received day that has a segment or a closing, ascending."""
        pages = self.store.list_pages("list_objects_v2", Prefix=f"{self.folder}/", Delimiter="/")
        prefixes = [found["Prefix"] for page in pages for found in page.get("CommonPrefixes", [])]
        matches = (_DAY.search(prefix) for prefix in prefixes)
        return sorted(date.fromisoformat(match[1]) for match in matches if match)

    def read(self, day: date, now: datetime) -> LandedDay:
        """Read the list of one day's segments; close the day first when its time has come.

        `fetch` reads the content.

        Raises:
            ClosedDayError: a listed segment's size changed since the closing.
            LandingRetiredError: listed segments are missing; the day's table partition must be left untouched.
            LandingUnavailableError: S3 does not answer.
        """
        closing, segments = self._list_day(day)
        if closing is None and now < compute_closing_time(day):
            return _build_open_day(day, segments)
        if closing is None:
            self._create(
                self.build_key(day, CLOSED_FILE), msgspec.json.encode(Closing(closed_at=now, segments=segments))
            )
            # Another reader may have closed the day at the same moment: then its list counts.
            closing, segments = self._list_day(day)
            assert closing is not None
        self._verify(day, closing, segments)
        self._republish_late_segments(day, closing, segments, now)
        return _build_closed_day(day, closing)

    def look(self, day: date) -> LandedDay:
        """List one day's segments as they are, without closing the day or looking for late ones.

        Raises:
            LandingUnavailableError: S3 does not answer.
        """
        closing = self._read_closing(day)
        return _build_open_day(day, self.list_segments(day)) if closing is None else _build_closed_day(day, closing)

    def add_history(self, day: date, segments: Sequence[Path], revision: Revision, now: datetime) -> bool:
        """Add segments of history to a day; return whether the day had been closed before.

        See `disk.LandingZone.add_history`, and the order of writes at the top of this module.

        Raises:
            OpenSegmentError: the day is open and about to close; repeat after its closing.
            LandingRetiredError: listed segments are gone, so that the day can no longer be read.
            LandingUnavailableError: S3 does not answer, or another writer changed the closing.
            SettingsError: we may not write there.
        """
        sealed = self.find_closing(day)
        was_closed = sealed is not None
        if sealed is None and now < compute_closing_time(day):
            refuse_while_closing(day, now)
            for segment in segments:
                self.publish(segment, day)
            return False
        if sealed is None:
            self.read(day, now)
            sealed = self.find_closing(day)
            assert sealed is not None
        closing = sealed.closing
        self._verify(day, closing, self.list_segments(day))
        added = [_describe_segment(segment) for segment in segments]
        names = [each.name for each in added]
        announced = msgspec.structs.replace(closing, erasing=sorted({*closing.erasing, *names}))
        etag = self.replace_closing(day, announced, sealed.etag)
        for segment in segments:
            self.publish(segment, day)
        revised = msgspec.structs.replace(
            closing,
            segments=sorted([*closing.segments, *added], key=lambda segment: segment.name),
            revisions=[*closing.revisions, msgspec.structs.replace(revision, segments=names)],
        )
        self.replace_closing(day, revised, etag)
        return was_closed

    def clear_unfinished(self, days: Iterable[date]) -> None:
        """Delete objects that a killed import or erasure announced in the given days and that no closing lists.

        The caller keeps imports and erasures away (`Lake.pause_daily_steps`). One request a day, several at once.

        Raises:
            LandingUnavailableError: S3 does not answer, or another writer changed a closing.
            SettingsError: we may not delete there.
        """
        asked = list(days)
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            found = dict(zip(asked, threads.map(self.find_closing, asked), strict=True))
        unfinished = {day: sealed for day, sealed in found.items() if sealed and sealed.closing.erasing}
        keeps_versions = self.store.keeps_versions() if unfinished else False
        for day, sealed in unfinished.items():
            _DayRewrite(self, day, sealed, Path(), keeps_versions).replace({}, "")

    def republish_late(self, now: datetime) -> list[str]:
        """Move every segment that is late for its closed day to today; return the names.

        Lists each day once.
        """
        moved: list[str] = []
        for day in self.list_days():
            segments = self.list_segments(day)
            # Without a readable closing it is unknown what is late: that day's own readers refuse it.
            with suppress(ClosedDayError):
                closing = self._read_closing(day) if segments else None
                if closing is not None:
                    moved += self._republish_late_segments(day, closing, segments, now)
        return moved

    @contextmanager
    def fetch(self, landed: LandedDay, scratch: Path) -> Iterator[list[Path]]:
        """Fetch verified local copies of a day's segments, in order; they exist while the block runs.

        Raises:
            ClosedDayError: an object's content does not match its name.
            LandingRetiredError: an object is missing.
            LandingUnavailableError: S3 does not answer, or an erasure has replaced an object since the day was listed.
        """

        def fetch(name: str) -> Path:
            try:
                return self.download(landed.day, name, Path(folder) / name)
            except LandingRetiredError:
                closing = self._read_closing(landed.day)
                if landed.is_closed and closing is not None and name in {each.name for each in closing.segments}:
                    raise
                where = self.build_uri(self.build_key(landed.day, name))
                raise LandingUnavailableError(f"{where} was rewritten since the day was listed; run it again") from None

        scratch.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=scratch, prefix="landing-") as folder, ThreadPoolExecutor(_AT_ONCE) as threads:
            names = [path.name for path in landed.paths]
            yield list(threads.map(fetch, names))

    def download(self, day: date, name: str, target: Path) -> Path:
        """Download one segment to `target` and verify it.

        Raises:
            ClosedDayError: the object's content does not match its name.
            LandingRetiredError: the object is missing.
            LandingUnavailableError: S3 does not answer.
        """
        key = self.build_key(day, name)
        content = self._read_content(key)
        if content is None:
            raise LandingRetiredError(f"{self.build_uri(key)} was deleted since the day was listed; restore it")
        target.write_bytes(content)
        match = SEGMENT_NAME.fullmatch(name)
        if match is None or hash_file(target) != match[2]:
            raise ClosedDayError(f"{self.build_uri(key)} does not match the hash in its name: restore the object")
        return target

    def read_copies(self, scratch: Path) -> Iterator[Path]:
        """Read every segment, oldest day first, then versions of deleted ones.

        Each file exists until the caller asks for the next.

        Raises:
            ClosedDayError: an object's content does not match its name.
            LandingUnavailableError: S3 does not answer.
        """
        with _make_work_folder(scratch) as work:
            for day in self.list_days():
                names = [segment.name for segment in self.list_segments(day)]
                for _, path in self._download_segments(day, names, work):
                    yield path
            for version in self._list_old_versions():
                path = work / "version.jsonl"
                path.write_bytes(self._read_version(version))
                yield path

    def open_rewrites(self, clock: Callable[[], datetime], scratch: Path) -> Generator["_DayRewrite", None, None]:
        """Yield every day as one unit to replace; close the day first when its time has come.

        Raises:
            ClosedDayError: an object's content does not match its name.
            LandingUnavailableError: S3 does not answer, or another writer changed a closing.
            SettingsError: we may not read, write or delete there.
        """
        keeps_versions = self.store.keeps_versions()
        # Today comes last, also if it had no folder: readers move late segments of other days to it.
        for day in sorted({*self.list_days(), clock().date()}):
            sealed = self.find_closing(day)
            if sealed is None and clock() >= compute_closing_time(day):
                self.read(day, clock())
                sealed = self.find_closing(day)
            with _make_work_folder(scratch) as work:
                yield _DayRewrite(self, day, sealed, work, keeps_versions)

    def delete_old_versions(self, is_gone: IsGone) -> Removal:
        """Delete kept versions of deleted segments that contain a line to erase."""
        done = Removal()
        for version in self._list_old_versions():
            if any(map(is_gone, BytesIO(self._read_version(version)))):
                done += self._delete_version(version)
        return done

    def remove(self, day: date, name: str, *, keeps_versions: bool) -> Removal:
        """Delete an object, and all its versions where the bucket keeps versions."""
        key, done = self.build_key(day, name), Removal()
        if keeps_versions:
            # The oldest is deleted first: deleting the newest would bring back the one before it.
            for version in reversed(self.store.list_versions(key)):
                if version.key == key and not version.is_marker:
                    done += self._delete_version(version)
            if not done.refused:
                return done
        self.store.delete(key)
        return done

    def _delete_version(self, version: ObjectVersion) -> Removal:
        try:
            self.store.delete(version.key, version.id)
        except SettingsError:
            # We lack the right to delete versions, or they are locked; the receipt says who can delete them.
            return Removal(refused=frozenset({(version.key, version.id)}))
        return Removal(1)

    def _list_old_versions(self) -> Iterator[ObjectVersion]:
        """Yield versions of segments that are no longer their objects' current content."""
        if self.store.keeps_versions():
            for version in self.store.list_versions(f"{self.folder}/"):
                if not version.is_latest and not version.is_marker and read_stem(version.key):
                    yield version

    def _read_version(self, version: ObjectVersion) -> bytes:
        found = self.store.read(version.key, version.id)
        if found is None:
            raise LandingUnavailableError(
                f"a version of {self.build_uri(version.key)} was deleted meanwhile; repeat the command"
            )
        return found[0]

    def _download_segments(self, day: date, names: list[str], work: Path) -> Iterator[tuple[str, Path]]:
        """Yield name and local copy of segments; leave out those that others moved to today or replaced."""

        def fetch(name: str) -> Path | None:
            try:
                return self.download(day, name, work / name)
            except LandingRetiredError:
                return None

        for start in range(0, len(names), _AT_ONCE):
            some = names[start : start + _AT_ONCE]
            with ThreadPoolExecutor(_AT_ONCE) as threads:
                found = list(threads.map(fetch, some))
            for name, path in zip(some, found, strict=True):
                if path is not None:
                    yield name, path
                    # Without this, a copy of the whole bucket would lie on this disk.
                    path.unlink()

    def _list_day(self, day: date) -> tuple[Closing | None, list[Segment]]:
        """List the day's closing together with the segments that existed while it was valid.

        Raises:
            LandingUnavailableError: others replaced the closing again and again.
        """
        for _ in range(_MOST_CLOSINGS):
            closing, segments = self._read_closing(day), self.list_segments(day)
            there, listed = (
                {each.name for each in segments},
                {each.name for each in closing.segments} if closing else set(),
            )
            if closing is None or there == listed or self._read_closing(day) == closing:
                return closing, segments
            # An erasure came in between: by the older list its new objects would be late and its old ones missing.
        raise LandingUnavailableError(
            f"{self.build_uri(self.build_key(day, ''))} is being rewritten; repeat the command"
        )

    def _read_closing(self, day: date) -> Closing | None:
        sealed = self.find_closing(day)
        return None if sealed is None else sealed.closing

    def find_closing(self, day: date) -> "SealedDay | None":
        """Find the day's closing with its ETag; return None while the day is open.

        Raises:
            ClosedDayError: the closing is damaged.
            LandingUnavailableError: S3 does not answer.
        """
        key = self.build_key(day, CLOSED_FILE)
        found = self.store.read(key)
        if found is None:
            return None
        where = self.build_uri(key)
        try:
            return SealedDay(decode_versioned(found[0], Closing, where), found[1])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ClosedDayError(
                f"{where} is damaged ({type(error).__name__}): it lists the segments of a closed day. The table keeps "
                "the rows that it had. Restore an older version of the object, or the one of a backup."
            ) from None

    def replace_closing(self, day: date, closing: Closing, seen: str) -> str:
        """Replace the closing with the ETag `seen`; return the new one's ETag.

        Raises:
            LandingUnavailableError: the closing is no longer the one that was seen.
        """
        key = self.build_key(day, CLOSED_FILE)
        try:
            return self.store.replace(key, msgspec.json.encode(closing), seen)
        except ReplacedError:
            raise LandingUnavailableError(f"{self.build_uri(key)} was changed meanwhile; repeat the command") from None

    def list_segments(self, day: date) -> list[Segment]:
        """List the current segments of a day in name order, whether its closing lists them or not."""
        found = []
        for page in self.store.list_pages("list_objects_v2", Prefix=self.build_key(day, "")):
            for each in page.get("Contents", []):
                name = each["Key"].rpartition("/")[2]
                match = SEGMENT_NAME.fullmatch(name)
                if match:
                    found.append(Segment(name, each["Size"], match[2]))
        return sorted(found, key=lambda segment: segment.name)

    def _verify(self, day: date, closing: Closing, segments: list[Segment]) -> None:
        there = {segment.name: segment for segment in segments}
        where = self.build_uri(self.build_key(day, ""))
        missing = [segment.name for segment in closing.segments if segment.name not in there]
        if missing:
            raise LandingRetiredError(
                f"{where}: {len(missing)} of {len(closing.segments)} segments of the closed day {day} are missing "
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
            # This reader's clock is behind the clock of the reader that closed the day. It would copy a segment onto
            # itself and then delete it; a reader with the right time moves the segment.
            return []
        listed = {segment.name for segment in closing.segments} | set(closing.erasing)
        late = [segment.name for segment in segments if segment.name not in listed]
        for name in late:
            # The copy comes first: a reader that dies in between leaves the segment in both places, and the lake keeps
            # one receipt.
            content = self._read_content(self.build_key(day, name))
            if content is not None:
                self._create(self.build_key(now.date(), name), content)
                self.store.delete(self.build_key(day, name))
        return late

    def _create(self, key: str, body: Any) -> bool:
        return self.store.create(key, body)

    def _read_content(self, key: str) -> bytes | None:
        found = self.store.read(key)
        return None if found is None else found[0]

    def build_key(self, day: date, name: str) -> str:
        """Build an object's key in the bucket."""
        return f"{self.folder}/received_date={day.isoformat()}/{name}"

    def build_uri(self, key: str) -> str:
        """Build the `s3://` URI of a key, for messages."""
        return f"s3://{self.landing.bucket}/{key}"


@dataclass(frozen=True)
class _DayRewrite:
    """The segments of one day; see `protocol.Rewrite` and the order of writes at the top of this module."""

    zone: ObjectLandingZone
    day: date
    sealed: SealedDay | None
    work: Path
    keeps_versions: bool

    @property
    def is_open(self) -> bool:
        return self.sealed is None

    @property
    def _closed_names(self) -> set[str]:
        return {segment.name for segment in self.sealed.closing.segments} if self.sealed else set()

    @property
    def _unfinished(self) -> set[str]:
        return set(self.sealed.closing.erasing) - self._closed_names if self.sealed else set()

    def list_segments(self) -> Iterator[tuple[str, Path, Path]]:
        unfinished = self._unfinished
        names = [segment.name for segment in self.zone.list_segments(self.day) if segment.name not in unfinished]
        for name, copy in self.zone._download_segments(self.day, names, self.work):
            # The target has the segment's original name: the new object's name is made from it.
            folder = self.work / f"{name}.kept"
            folder.mkdir()
            yield name, copy, folder / f"{read_stem(name)}.jsonl"

    def replace(self, kept: Mapping[str, Path], erasure: str) -> Removal:
        rewritten = {name: path if path.stat().st_size else None for name, path in kept.items()}
        listed = self._closed_names
        done = self._replace_closed({name: path for name, path in rewritten.items() if name in listed}, erasure)
        for name, path in rewritten.items():
            if name not in listed:
                if path is not None:
                    self.zone.publish(path, self.day)
                done += self._remove(name)
        return done

    def _replace_closed(self, rewritten: Mapping[str, Path | None], erasure: str) -> Removal:
        unfinished = self._unfinished
        if self.sealed is None or not (rewritten or unfinished):
            return Removal()
        zone, day, closing, etag = self.zone, self.day, self.sealed.closing, self.sealed.etag
        described = {name: _describe_segment(path) if path else None for name, path in rewritten.items()}
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
                announced, segments=segments, erasures=list(dict.fromkeys([*closing.erasures, erasure]))
            )
            etag = zone.replace_closing(day, closing, etag)
        done = sum((self._remove(name) for name in retired if name not in kept), Removal())
        zone.replace_closing(day, msgspec.structs.replace(closing, erasing=[]), etag)
        return done

    def _remove(self, name: str) -> Removal:
        return self.zone.remove(self.day, name, keeps_versions=self.keeps_versions)


def _build_closed_day(day: date, closing: Closing) -> LandedDay:
    return LandedDay(
        day=day,
        paths=tuple(Path(segment.name) for segment in closing.segments),
        is_closed=True,
        content_hash=digest_content([(segment.name, segment.sha256) for segment in closing.segments]),
    )


def _build_open_day(day: date, segments: Sequence[Segment]) -> LandedDay:
    names = tuple(Path(segment.name) for segment in segments)
    return LandedDay(day, names, False, digest_content([(each.name, each.bytes) for each in segments]))


@contextmanager
def _make_work_folder(scratch: Path) -> Iterator[Path]:
    scratch.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=scratch, prefix="erasing-") as folder:
        yield Path(folder)


def _describe_segment(path: Path) -> Segment:
    sha256 = hash_file(path)
    return Segment(f"{path.stem}.{sha256}.jsonl", path.stat().st_size, sha256)
