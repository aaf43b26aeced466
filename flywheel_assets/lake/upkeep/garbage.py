"""Expires snapshots and deletes files that no snapshot reaches any more; pyiceberg 0.12 deletes none.

Reachable is what any retained snapshot needs: its manifest list, manifests and data files, the table's metadata file
with the log of its predecessors, and statistics files. Everything else in the table's folder is garbage: of expired
snapshots, of lost commits, of crashed writers. It is deleted once it was found unreachable a *grace period* ago, so
that a reader that planned its scan before the expiry still finds its files.

On S3 a delete only adds a marker; a bucket with versioning keeps the content. `delete_bucket_versions` deletes these
versions for good, table by table. An erasure calls it, and so does the weekly upkeep from the first erasure on. It
takes every key in the table's folder whose newest version is a marker and that no snapshot needs. Files in their grace
period have no marker yet, so they stay; nothing reads a file by the id of a version, so the others need no wait. The
bucket itself shows the remaining work: after a kill at any point the next call continues, also with keys that others
deleted.

The versions are deleted first and the marker last: without the marker the newest version would be the file again.
Versions that S3 refuses to delete (no right to delete versions, Object Lock) stay below their marker, and the receipt
says so.
"""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from flywheel_assets.lake.storage.commits import verify_locks
from flywheel_assets.lake.storage.failures import translate_outages
from flywheel_assets.lake.storage.files import replace_file
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import TableSpec
from flywheel_assets.lake.versions.folders import Versions

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, FileSystem
    from pyiceberg.table import Table

from collections.abc import Callable
from typing import Any

from flywheel_assets.errors import S3RefusedError, StorageUnavailableError
from flywheel_assets.lake.storage.s3 import Bucket

_SCRATCH = ("building", "spill", "landing", "publishing")
"""Below the scratch folder; others hold no rows, or belong to a version's training."""


@dataclass(frozen=True)
class Stored:
    """Files and their bytes."""

    files: int
    bytes: int

    def __add__(self, other: "Stored") -> "Stored":
        return Stored(self.files + other.files, self.bytes + other.bytes)


@dataclass(frozen=True)
class Swept:
    """The result of one sweep of a table's folder."""

    deleted: Stored
    waiting: Stored
    """Unreachable, but not for as long as the grace period yet."""
    kept: Stored


def expire_snapshots(lake: Lake, spec: TableSpec, older_than: datetime) -> int:
    """Expire the snapshots from before a moment, except the head and tagged ones; return how many.

    Under the commit lock, as tagging is: an expiry that had read the table before a tag appeared took the tag with it.
    """
    expired = 0

    def expire(table: "Table") -> None:
        nonlocal expired
        before = len(table.metadata.snapshots)
        # By age, never by ids: 927 ids took 66 s.
        table.maintenance.expire_snapshots().older_than(older_than).commit()
        expired = before - len(table.metadata.snapshots)

    if lake.has_table(spec):
        lake.commit(spec, expire)
    return expired


def sweep_table(lake: Lake, spec: TableSpec, grace: timedelta, now: datetime) -> Swept:
    """Delete what has been unreachable for `grace`; what is found unreachable for the first time waits for that long.

    Under the commit lock, which a writer holds from its first file in the table's folder to its commit: without a grace
    the sweep once took a file between the two, and the commit then referred to nothing.

    Raises:
        HomeMismatchError: the files are another home's, or the catalog is older than they; nothing was deleted.
        LockLostError: the lock was lost before it was clear what is garbage; nothing was deleted.
        CatalogUnavailableError: the catalog's Postgres does not answer.
        StorageUnavailableError: the warehouse's S3 does not answer; what is deleted is deleted, the next sweep goes on.
    """
    if not lake.has_table(spec):
        return Swept(Stored(0, 0), Stored(0, 0), Stored(0, 0))
    lake.verify_home(sweeps=True)
    with lake.lock_table(spec), translate_outages():
        return _sweep_locked_table(lake, spec, grace, now)


def _sweep_locked_table(lake: Lake, spec: TableSpec, grace: timedelta, now: datetime) -> Swept:
    listed = {info.path: info for info in _list_files(lake.load_table(spec))}
    table = lake.load_table(spec)
    lake.home.refuse_newer(spec.name, table.metadata_location, listed)
    needed = list_needed_paths(table)
    journal = lake.scratch / "garbage" / f"{lake.application}.{spec.name}.json"
    known = msgspec.json.decode(journal.read_bytes(), type=dict[str, datetime]) if journal.exists() else {}
    since = {path: known.get(path, now) for path in listed if path not in needed}
    due = [path for path, first_seen in since.items() if first_seen + grace <= now]
    waiting = since.keys() - set(due)
    filesystem, _ = _find_file_system(table)
    # What was unreachable while no writer was at work stays so. Of a lock that was lost before, that is not known.
    verify_locks()
    for path in due:
        with suppress(FileNotFoundError):  # a sweep whose lock was lost has gone on at the same time
            filesystem.delete_file(path)
    replace_file(journal, msgspec.json.encode({path: since[path] for path in sorted(waiting)}))
    return Swept(
        deleted=_sum_sizes(listed[path] for path in due),
        waiting=_sum_sizes(listed[path] for path in waiting),
        kept=_sum_sizes(info for path, info in listed.items() if path in needed),
    )


@translate_outages()
def weigh_table(lake: Lake, spec: TableSpec) -> Stored:
    """Weigh everything that lies in a table's folder, reachable or not."""
    return _sum_sizes(_list_files(lake.load_table(spec))) if lake.has_table(spec) else Stored(0, 0)


def weigh_folder(folder: Path) -> Stored:
    """Weigh everything that lies in a local folder; files that vanish meanwhile do not count."""
    sizes = []
    for path in folder.rglob("*") if folder.is_dir() else ():
        try:
            if path.is_file():
                sizes.append(path.stat().st_size)
        except FileNotFoundError:
            continue
    return Stored(len(sizes), sum(sizes))


def list_needed_paths(table: "Table") -> set[str]:
    """Return the files that a retained snapshot or the table itself needs, as paths of its file system."""
    return {_parse_path(uri) for uri in _list_reachable_files(table)}


def find_table_folder(table: "Table") -> str:
    """Return the folder of a table's files, within its file system."""
    return _parse_path(table.location())


def _list_reachable_files(table: "Table") -> Iterator[str]:
    yield table.metadata_location
    yield from (entry.metadata_file for entry in table.metadata.metadata_log)
    yield from list_snapshot_files(table)


def list_snapshot_files(table: "Table") -> Iterator[str]:
    """Yield the URIs of the files that a table's snapshots need; its metadata files are not among them."""
    metadata = table.metadata
    yield from (statistics.statistics_path for statistics in metadata.statistics)
    yield from (statistics.statistics_path for statistics in metadata.partition_statistics)
    manifests = {}
    for snapshot in metadata.snapshots:
        yield snapshot.manifest_list
        manifests.update({each.manifest_path: each for each in snapshot.manifests(table.io)})
    for path, manifest in manifests.items():
        yield path
        yield from (entry.data_file.file_path for entry in manifest.fetch_manifest_entry(table.io))


def _list_files(table: "Table") -> "list[FileInfo]":
    from pyarrow.fs import FileSelector, FileType

    filesystem, root = _find_file_system(table)
    found = filesystem.get_file_info(FileSelector(root, recursive=True, allow_not_found=True))
    return [info for info in found if info.type == FileType.File]


def _find_file_system(table: "Table") -> "tuple[FileSystem, str]":
    """Return the pyarrow file system of a table's files, and the table's folder there."""
    from pyiceberg.io.pyarrow import PyArrowFileIO

    assert isinstance(table.io, PyArrowFileIO)
    scheme, host, path = PyArrowFileIO.parse_location(table.location())
    return table.io.fs_by_scheme(scheme, host), path


def _parse_path(uri: str) -> str:
    from pyiceberg.io.pyarrow import PyArrowFileIO

    return str(PyArrowFileIO.parse_location(uri)[2])


def _sum_sizes(infos: "Iterable[FileInfo]") -> Stored:
    sizes = [info.size for info in infos]
    return Stored(len(sizes), sum(sizes))


def find_unfinished_work(scratch: Path, versions: Versions) -> list[Path]:
    """Find what killed processes leave behind: entries of scratch folders, hidden folders of versions.

    They may contain user text. They are recognised by age: no write for the grace period.
    """
    found: list[Path] = []
    for name in _SCRATCH:
        found.extend(_list_entries(scratch / name))
    for folder in versions:
        found.extend(path for path in _list_entries(folder.path) if path.name.startswith(".") and path.is_dir())
    return sorted(found)


def remove_unfinished(paths: Iterable[Path], before: datetime) -> int:
    """Remove paths without a write since `before`; return how many files that were."""
    removed = 0
    for path in paths:
        files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
        if find_last_write(path) >= before.timestamp():
            continue
        removed += len(files)
        if path.is_file():
            path.unlink(missing_ok=True)
        else:
            shutil.rmtree(path, ignore_errors=True)
    return removed


def _list_entries(folder: Path) -> Iterator[Path]:
    return folder.iterdir() if folder.is_dir() else iter(())


def find_last_write(path: Path) -> float:
    """Find the time of the last write to a file or into a folder, as seconds of the epoch."""
    times = [0.0]
    for each in [path, *(path.rglob("*") if path.is_dir() else ())]:
        try:
            times.append(each.stat().st_mtime)
        except FileNotFoundError:
            continue
    return max(times)


S3Client = Callable[[], Any]
"""Makes boto3's client for S3; asked only where the warehouse lies there."""


@dataclass(frozen=True)
class DeletedVersions:
    """The result for the object versions that a bucket keeps of deleted files."""

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
    """Delete for good the object versions that a bucket keeps of deleted files of these tables.

    The result says what S3 refused.

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
                    done += _delete_table_versions(lake, spec, bucket)
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


def _delete_table_versions(lake: Lake, spec: TableSpec, bucket: Bucket) -> DeletedVersions:
    table = lake.load_table(spec)
    found = bucket.list_versions(f"{find_table_folder(table).removeprefix(f'{bucket.name}/')}/")
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
