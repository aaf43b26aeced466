"""What a versioned bucket keeps of a table's files that were deleted: on S3 deleting only puts a marker on top.

An erasure, and from the first erasure on the weekly upkeep, deletes these versions for good, table by table: of every
key in the table's folder whose newest version is such a marker and that no snapshot needs. Files in their grace period
have no marker yet, so they are left alone; nothing reads a file by a version's id, so for the others there is nothing
to wait for. The bucket itself says what is left to do: killed anywhere, the next one goes on, also with what others
have deleted before.

The versions go first, the marker last: without it the newest of them would be the file again. What S3 refuses (no
right to delete versions, Object Lock) stays below its marker, and the receipt says so.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from flywheel_assets.lake.storage.outages import outages_told
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import TableSpec
from flywheel_assets.lake.upkeep.garbage import folder_of, needed_paths

S3Client = Callable[[], Any]
"""Makes boto3's client for S3; asked only where the warehouse lies there."""
_AT_ONCE = 1000
"""Versions that S3 deletes at one request."""


@dataclass(frozen=True)
class Forgotten:
    """What was done about the kept versions of deleted files."""

    deleted: int = 0
    refused: int = 0
    """Versions that S3 did not let us delete."""
    problems: frozenset[str] = frozenset()
    """S3's words for why not, or for why nobody could look."""

    def __add__(self, other: "Forgotten") -> "Forgotten":
        return Forgotten(self.deleted + other.deleted, self.refused + other.refused, self.problems | other.problems)


@outages_told()
def forget_versions(lake: Lake, specs: Iterable[TableSpec], s3_client: S3Client) -> Forgotten:
    """Delete for good what a bucket keeps of deleted files of these tables; what its S3 says against it is returned.

    Args:
        lake: the application's tables; on a disk there is nothing to do.
        specs: which of them.
        s3_client: whose account needs `s3:GetBucketVersioning`, `s3:ListBucketVersions`, `s3:DeleteObjectVersion`.

    Raises:
        CatalogUnavailableError: the catalog does not answer.
        StorageUnavailableError: manifests, which tell what is needed, cannot be read for now.
    """
    if not lake.warehouse.startswith("s3://"):
        return Forgotten()
    from botocore.exceptions import BotoCoreError, ClientError

    done = Forgotten()
    try:
        bucket = _Bucket(s3_client(), lake.warehouse.removeprefix("s3://").partition("/")[0])
        if bucket.keeps_versions():
            for spec in specs:
                if lake.has_table(spec):
                    done += _forget(lake, spec, bucket)
    except (BotoCoreError, ClientError) as error:
        done += Forgotten(problems=frozenset({_told(error)}))
    return done


def warehouse_versions_left(warehouse: str, forgotten: Forgotten) -> list[str]:
    """A sentence for a receipt where versions are left, or where nobody could look for them; else nothing."""
    if not forgotten.problems:
        return []
    what = (
        f"S3 did not let us delete {forgotten.refused} old versions of deleted files"
        if forgotten.refused
        else "whether old versions of deleted files are left is not known"
    )
    return [
        f"{what} under {warehouse} ({', '.join(sorted(forgotten.problems))}): give the command again with an account "
        "that may, or let a lifecycle rule for noncurrent versions delete them"
    ]


@dataclass
class _Key:
    """Everything that a bucket keeps under one name."""

    versions: list[str] = field(default_factory=list)
    markers: list[str] = field(default_factory=list)
    is_deleted: bool = False


@dataclass(frozen=True)
class _Bucket:
    client: Any
    name: str

    def keeps_versions(self) -> bool:
        """Whether it does or, "Suspended", has done so once; else the answer says nothing."""
        return "Status" in self.client.get_bucket_versioning(Bucket=self.name)

    def deleted_under(self, prefix: str) -> dict[str, _Key]:
        """The names under a prefix that no longer show a file."""
        found: dict[str, _Key] = {}
        pages = self.client.get_paginator("list_object_versions").paginate(Bucket=self.name, Prefix=prefix)
        for page in pages:
            for each in page.get("Versions", []):
                found.setdefault(each["Key"], _Key()).versions.append(each["VersionId"])
            for each in page.get("DeleteMarkers", []):
                key = found.setdefault(each["Key"], _Key())
                key.markers.append(each["VersionId"])
                key.is_deleted = key.is_deleted or each["IsLatest"]
        return {name: key for name, key in found.items() if key.is_deleted}

    def delete(self, versions: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
        """Delete versions, given as names and ids; yields name and S3's word for each that it refuses."""
        for start in range(0, len(versions), _AT_ONCE):
            some = versions[start : start + _AT_ONCE]
            objects = [{"Key": key, "VersionId": version} for key, version in some]
            answer = self.client.delete_objects(Bucket=self.name, Delete={"Objects": objects, "Quiet": True})
            for error in answer.get("Errors", []):
                yield error["Key"], error["Code"]


def _forget(lake: Lake, spec: TableSpec, bucket: _Bucket) -> Forgotten:
    table = lake.table(spec)
    deleted = bucket.deleted_under(f"{folder_of(table).removeprefix(f'{bucket.name}/')}/")
    if not deleted:
        return Forgotten()
    # Deleted by mistake, by somebody else, a needed file can still be brought back.
    needed = needed_paths(table)
    deleted = {name: key for name, key in deleted.items() if f"{bucket.name}/{name}" not in needed}
    versions = [(name, version) for name, key in deleted.items() for version in key.versions]
    refused = list(bucket.delete(versions))
    kept = {name for name, _ in refused}
    markers = [(name, marker) for name, key in deleted.items() if name not in kept for marker in key.markers]
    problems = frozenset(code for _, code in [*refused, *bucket.delete(markers)])
    return Forgotten(len(versions) - len(refused), len(refused), problems)


def _told(error: Exception) -> str:
    answer: dict[str, Any] = getattr(error, "response", {})
    return str(answer.get("Error", {}).get("Code") or type(error).__name__)
