"""Deletes the versions that a bucket keeps of a table's deleted files: on S3 a delete only adds a marker.

An erasure, and from the first erasure on the weekly upkeep, deletes these versions for good, table by table: of every
key in the table's folder whose newest version is such a marker and that no snapshot needs. Files in their grace period
have no marker yet, so they are left alone; nothing reads a file by a version's id, so for the others there is nothing
to wait for. The bucket itself says what is left to do: killed anywhere, the next one goes on, also with what others
have deleted before.

The versions go first, the marker last: without it the newest of them would be the file again. What S3 refuses (no
right to delete versions, Object Lock) stays below its marker, and the receipt says so.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from flywheel_assets.errors import S3RefusedError, StorageUnavailableError
from flywheel_assets.lake.storage.outages import translate_outages
from flywheel_assets.lake.storage.s3 import Bucket
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import TableSpec
from flywheel_assets.lake.upkeep.garbage import folder_of, list_needed_paths

S3Client = Callable[[], Any]
"""Makes boto3's client for S3; asked only where the warehouse lies there."""


@dataclass(frozen=True)
class DeletedVersions:
    """What was done about the kept versions of deleted files."""

    deleted: int = 0
    refused: int = 0
    """Versions that S3 did not let us delete."""
    problems: frozenset[str] = frozenset()
    """S3's codes for why not, or for why the versions could not be listed."""

    def __add__(self, other: "DeletedVersions") -> "DeletedVersions":
        return DeletedVersions(
            self.deleted + other.deleted, self.refused + other.refused, self.problems | other.problems
        )


@translate_outages()
def delete_bucket_versions(lake: Lake, specs: Iterable[TableSpec], s3_client: S3Client) -> DeletedVersions:
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
        return DeletedVersions()
    name = lake.warehouse.removeprefix("s3://").partition("/")[0]
    done = DeletedVersions()
    try:
        bucket = Bucket(s3_client(), name, lake.warehouse, "the rights to delete versions")
        if bucket.keeps_versions():
            for spec in specs:
                if lake.has_table(spec):
                    done += _forget(lake, spec, bucket)
    except (S3RefusedError, StorageUnavailableError) as error:
        # Without a code the tables themselves could not be read.
        if error.code is None:
            raise
        done += DeletedVersions(problems=frozenset({error.code}))
    return done


def explain_versions_left(warehouse: str, forgotten: DeletedVersions) -> list[str]:
    """Return a sentence for a receipt where versions are left, or could not be listed; else nothing."""
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


def _forget(lake: Lake, spec: TableSpec, bucket: Bucket) -> DeletedVersions:
    table = lake.table(spec)
    found = bucket.versions(f"{folder_of(table).removeprefix(f'{bucket.name}/')}/")
    deleted = {each.key for each in found if each.is_marker and each.is_latest}
    if not deleted:
        return DeletedVersions()
    # Deleted by mistake, by another account, a needed file can still be brought back.
    needed = list_needed_paths(table)
    found = [each for each in found if each.key in deleted and f"{bucket.name}/{each.key}" not in needed]
    versions = [each for each in found if not each.is_marker]
    refused = list(bucket.delete_versions(versions))
    kept = {key for key, _ in refused}
    markers = [each for each in found if each.is_marker and each.key not in kept]
    problems = frozenset(code for _, code in [*refused, *bucket.delete_versions(markers)])
    return DeletedVersions(len(versions) - len(refused), len(refused), problems)
