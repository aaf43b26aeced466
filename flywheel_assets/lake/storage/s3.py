"""Makes the S3 client, and sends the few requests that landing, copies of versions and erasures need.

Nothing on S3 can be renamed or locked. An object is created whole, and once (`If-None-Match`). An object is replaced
only if it still is the one that was seen (`If-Match`). AWS knows both since 2024; MinIO and moto know them as well.

Every refusal becomes one of two errors of ours: `S3RefusedError`, which an operator must mend, or a
`StorageUnavailableError`, after which repeating is safe. Both carry S3's code.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from flywheel_assets.errors import S3RefusedError, StorageUnavailableError
from flywheel_assets.extras import require_extra

_Answer = TypeVar("_Answer")

_CONNECT_S, _READ_S, _ATTEMPTS = 5.0, 20.0, 3
_PERMANENT = frozenset(
    {"NoSuchBucket", "AccessDenied", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidBucketName"}
)
_TAKEN = frozenset({"PreconditionFailed", "412"})
_ABSENT = frozenset({"NoSuchKey", "404"})
_AT_ONCE = 1000
"""S3 deletes at most so many versions at one request."""


def make_s3_client(endpoint: str | None, connect_s: float = _CONNECT_S, attempts: int = _ATTEMPTS) -> Any:
    """Make boto3's client from the standard AWS settings, with bounded waits.

    boto3's own 60 s times five attempts would delay a run by five minutes with each request.

    Args:
        endpoint: URL of an S3 server other than AWS.
        connect_s: seconds to wait for a connection.
        attempts: how often a request is sent at most.

    Raises:
        SettingsError: boto3 is not installed.
    """
    require_extra("s3", "S3", ("boto3",))
    import boto3
    from botocore.config import Config

    retries = {"mode": "standard", "total_max_attempts": attempts}
    config = Config(connect_timeout=connect_s, read_timeout=_READ_S, retries=retries)
    return boto3.session.Session().client("s3", endpoint_url=endpoint, config=config)


class ReplacedError(Exception):
    """The object is no longer the one that was seen."""


@dataclass(frozen=True)
class ObjectVersion:
    """One version that a bucket keeps of an object; a deletion marker has no content."""

    key: str
    id: str
    is_latest: bool
    is_marker: bool


@dataclass(frozen=True)
class Bucket:
    """One bucket, with its requests and their errors.

    Every method raises `S3RefusedError` where S3 refuses for good, and `unavailable` where it does not answer.
    """

    client: Any
    """boto3's S3 client."""
    name: str
    place: str
    """The part of the bucket that messages name."""
    check: str
    """Named in the error when S3 refuses for good: the thing that an operator should look at."""
    unavailable: type[StorageUnavailableError] = StorageUnavailableError

    def create(self, key: str, body: Any, metadata: dict[str, str] | None = None) -> bool:
        """Create an object; return False where an object of its name exists already."""
        more = {"Metadata": metadata} if metadata else {}
        try:
            self._ask("put_object", _TAKEN, Key=key, Body=body, IfNoneMatch="*", **more)
        except KeyError:
            return False
        return True

    def replace(self, key: str, body: bytes, seen: str) -> str:
        """Replace the object with the ETag `seen`; return the new one's ETag.

        Raises:
            ReplacedError: the object is not the one that was seen.
        """
        try:
            return str(self._ask("put_object", _TAKEN, Key=key, Body=body, IfMatch=seen)["ETag"])
        except KeyError:
            # The client repeats a request whose answer was lost, and S3 then refuses it because of that first request.
            found = self.read(key)
            if found is not None and found[0] == body:
                return found[1]
            raise ReplacedError(key) from None

    def read(self, key: str, version: str | None = None) -> tuple[bytes, str] | None:
        """Return an object's content and ETag; None where there is none."""
        try:
            answer = self._ask("get_object", _ABSENT, Key=key, **({"VersionId": version} if version else {}))
            return self._translate(answer["Body"].read), str(answer["ETag"])
        except KeyError:
            return None

    @contextmanager
    def stream(self, key: str) -> Iterator["ObjectStream"]:
        """Open an object for reading it in pieces; `FileNotFoundError`: there is none."""
        try:
            body = self._ask("get_object", _ABSENT, Key=key)["Body"]
        except KeyError:
            raise FileNotFoundError(f"s3://{self.name}/{key}") from None
        with closing(body):
            yield ObjectStream(self, body)

    def read_metadata(self, key: str) -> dict[str, str]:
        """Return the metadata that was stored with an object."""
        found: dict[str, str] = self._ask("head_object", Key=key)["Metadata"]
        return found

    def list_pages(self, operation: str, **parameters: Any) -> list[dict[str, Any]]:
        """List every page of an operation such as `list_objects_v2`."""
        return list(self.read_pages(operation, **parameters))

    def read_pages(self, operation: str, **parameters: Any) -> Iterator[dict[str, Any]]:
        """Yield the pages of an operation, each when it is asked for. Of a million objects a thousand are held."""
        pages = self._translate(
            lambda: iter(self.client.get_paginator(operation).paginate(Bucket=self.name, **parameters))
        )
        while (page := self._translate(lambda: next(pages, None))) is not None:
            yield page

    def keeps_versions(self) -> bool:
        """Return whether the bucket keeps versions, or has kept some before it was suspended."""
        return "Status" in self._ask("get_bucket_versioning")

    def list_versions(self, prefix: str) -> list[ObjectVersion]:
        """List the kept versions and deletion markers under a prefix, newest first for each key."""
        return [
            ObjectVersion(each["Key"], each["VersionId"], each["IsLatest"], is_marker)
            for page in self.list_pages("list_object_versions", Prefix=prefix)
            for name, is_marker in (("Versions", False), ("DeleteMarkers", True))
            for each in page.get(name, [])
        ]

    def delete(self, key: str, version: str | None = None) -> None:
        """Delete an object, or one version of it for good."""
        self._ask("delete_object", Key=key, **({"VersionId": version} if version else {}))

    def delete_versions(self, versions: Sequence[ObjectVersion]) -> Iterator[tuple[str, str]]:
        """Delete versions for good, in no certain order; yield key and S3's code for each refusal."""
        for start in range(0, len(versions), _AT_ONCE):
            objects = [{"Key": each.key, "VersionId": each.id} for each in versions[start : start + _AT_ONCE]]
            answer = self._ask("delete_objects", Delete={"Objects": objects, "Quiet": True})
            for error in answer.get("Errors", []):
                yield error["Key"], error["Code"]

    def _ask(self, operation: str, expected: frozenset[str] = frozenset(), /, **parameters: Any) -> Any:
        return self._translate(lambda: getattr(self.client, operation)(Bucket=self.name, **parameters), expected)

    def _translate(self, request: Callable[[], _Answer], expected: frozenset[str] = frozenset()) -> _Answer:
        """Return the answer to a request; raise `KeyError` for the refusals that are expected."""
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

        try:
            return request()
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in expected:
                raise KeyError(code) from None
            if code in _PERMANENT:
                raise S3RefusedError(f"S3 refuses {self.place}: {code}; check {self.check}", code) from None
            raise self.unavailable(f"{self.place}: S3 answered {code}", code) from None
        except NoCredentialsError as error:
            hint = f"{self.place}: {error}; credentials are found as every AWS client finds them"
            raise S3RefusedError(hint, type(error).__name__) from None
        except BotoCoreError as error:
            code = type(error).__name__
            raise self.unavailable(f"{self.place}: S3 does not answer ({code})", code) from None


@dataclass(frozen=True)
class ObjectStream:
    """Reads one object in pieces, with the errors of its bucket."""

    bucket: Bucket
    body: Any
    """botocore's stream."""

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes, none at the end; the bucket's error where S3 stops in the middle."""
        found: bytes = self.bucket._translate(lambda: self.body.read(size))
        return found
