"""Lists, streams and creates the objects of a landing zone on S3, as backups and restores copy them.

A segment has its sha256 in its name, so that a listing alone says its content. Only closings and the first day of
history are replaced under their names; they are known by ETag and size.
"""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import IO

from flywheel_assets.errors import LandingUnavailableError
from flywheel_assets.lake.landing.disk import CLOSED_FILE, FIRST_DAY_FILE, EventKind
from flywheel_assets.lake.landing.s3 import SEGMENT_NAME, ObjectLanding
from flywheel_assets.lake.storage.s3 import Bucket, ObjectStream

_DAY = re.compile(r"received_date=\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True)
class LandedObject:
    """One object of a landing zone."""

    path: str
    """Below the zone's prefix."""
    bytes: int
    etag: str
    sha256: str | None
    """Of a segment, by its name; None: a file that may be replaced."""


def open_bucket(landing: ObjectLanding) -> Bucket:
    """Return the bucket of a landing zone, with the zone's errors."""
    check = "FLYWHEEL_LANDING_S3 and the rights"
    return Bucket(landing.client, landing.bucket, landing.place, check, LandingUnavailableError)


def list_objects(landing: ObjectLanding) -> Iterator[LandedObject]:
    """Yield every segment, closing and first day of all applications; other things in the bucket are left out.

    One page of 1,000 keys is held at a time.

    Raises:
        LandingUnavailableError: S3 does not answer.
        S3RefusedError: it refuses to list.
    """
    bucket, root = open_bucket(landing), f"{landing.prefix}/" if landing.prefix else ""
    pages = bucket.read_pages("list_objects_v2", Prefix=root, Delimiter="/")
    # The bucket may hold the warehouse as well: only what looks like landed events is listed further.
    for folder in [found["Prefix"] for page in pages for found in page.get("CommonPrefixes", [])]:
        first_day = f"{folder}{FIRST_DAY_FILE}"
        for prefix in (first_day, *(f"{folder}{kind}/received_date=" for kind in EventKind)):
            for page in bucket.read_pages("list_objects_v2", Prefix=prefix):
                for found in page.get("Contents", []):
                    _, _, name = found["Key"].rpartition("/")
                    segment = SEGMENT_NAME.fullmatch(name)
                    day = found["Key"].removesuffix(f"/{name}").rpartition("/")[2]
                    is_landed = _DAY.fullmatch(day) and (segment or name == CLOSED_FILE)
                    if is_landed or found["Key"] == first_day:
                        sha256 = segment[2] if segment else None
                        yield LandedObject(found["Key"].removeprefix(root), found["Size"], found["ETag"], sha256)


def read_object(landing: ObjectLanding, path: str) -> tuple[bytes, str] | None:
    """Return the content and ETag of a small object; None where there is none.

    Raises:
        LandingUnavailableError: S3 does not answer.
    """
    return open_bucket(landing).read(_build_key(landing, path))


def stream_object(landing: ObjectLanding, path: str) -> AbstractContextManager[ObjectStream]:
    """Open an object for reading it in pieces.

    Raises:
        FileNotFoundError: there is none.
        LandingUnavailableError: S3 does not answer, or stops in the middle.
    """
    return open_bucket(landing).stream(_build_key(landing, path))


def create_object(landing: ObjectLanding, path: str, body: IO[bytes]) -> bool:
    """Create an object whole from a file; return False where one of its name exists already.

    Raises:
        LandingUnavailableError: S3 does not answer.
        S3RefusedError: we may not write there.
    """
    return open_bucket(landing).create(_build_key(landing, path), body)


def _build_key(landing: ObjectLanding, path: str) -> str:
    return "/".join(filter(None, (landing.prefix, path)))
