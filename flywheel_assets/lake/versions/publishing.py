"""Copies a version for others: JSON lines and Parquet, on disk or on S3, under names used only once.

A name belongs to one version and revision, so that `dpo_gold_v6.jsonl` always has the same content. On disk a file
appears by a link that fails where the name is taken, on S3 by a PUT with `IfNoneMatch`. A repeated export finds its
files there and says so; other content under the name is a conflict. The version's folder remembers the places of the
copies, because an erasure cannot reach them and must name them.
"""

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from flywheel_assets.curation.sql_literals import quote
from flywheel_assets.errors import VersionConflictError
from flywheel_assets.lake.storage.duckdb_engine import connect
from flywheel_assets.lake.storage.failures import translate_disk_full
from flywheel_assets.lake.storage.files import hash_file, make_hidden_path, replace_file, sync_folder
from flywheel_assets.lake.storage.s3 import Bucket
from flywheel_assets.lake.versions.exports import MANIFEST_FILE, ExportedFile, ExportedRow, verify_manifest
from flywheel_assets.lake.versions.folders import VersionFolder

if TYPE_CHECKING:
    from collections.abc import Iterator

_COPIES = "copies.jsonl"
_ROW_TYPES: dict[str, str] = dict.fromkeys(ExportedRow.__struct_fields__, "VARCHAR") | {
    "similarity": "DOUBLE",
    "support_users": "BIGINT",
}


@dataclass(frozen=True)
class Published:
    """Describes one file of a copy."""

    where: str
    bytes: int
    is_new: bool
    """False: it was there already, with this content."""


class Destination(Protocol):
    """Stores copies: each name is given once."""

    def put(self, name: str, path: Path, *, is_derived: bool) -> Published:
        """Store a file under a new name; one that is there with the same content is a success.

        Args:
            name: of the file.
            path: its content.
            is_derived: it was converted, so that another release may write other bytes for the same rows.

        Raises:
            VersionConflictError: the name is taken by other content.
            StorageUnavailableError: S3 does not answer; whether the file is there is not known.
            SettingsError: S3 refuses: there is no such bucket, or no right to write to it.
        """


def publish_export(folder: VersionFolder, to: str, scratch: Path, s3_client: Callable[[], Any]) -> list[Published]:
    """Copy a version's export to a folder or to `s3://bucket/prefix`, as JSON lines and as Parquet.

    Raises:
        ManifestMismatchError: a file differs from its manifest; nothing is copied.
        VersionConflictError: a name at the destination is taken by other content.
        DiskFullError: no space is left; files copied before stay, and the next export finds them there.
        StorageUnavailableError: S3 does not answer; files copied before stay, too.
        SettingsError: S3 refuses: there is no such bucket, or no right to write to it.
    """
    manifest = verify_manifest(folder.export)
    destination: Destination = S3Folder(s3_client(), to) if to.startswith("s3://") else LocalFolder(Path(to))
    published = []
    scratch.mkdir(parents=True, exist_ok=True)
    places = [scratch] if to.startswith("s3://") else [Path(to), scratch]
    # Remembered before the first file is copied: an erasure could not name an unknown copy.
    remember_copy(folder, to)
    with translate_disk_full(*places), tempfile.TemporaryDirectory(dir=scratch) as work:
        for file in manifest.files.values():
            original = folder.export / file.name
            published.append(destination.put(file.name, original, is_derived=False))
            other = _convert_file(original, file, Path(work))
            published.append(destination.put(other.name, other, is_derived=True))
            other.unlink()
        # Last: a reader that finds the manifest finds every file that it lists.
        stem = min((file.name for file in manifest.files.values()), key=len).split(".")[0]
        revision = "" if manifest.revision == 1 else f".r{manifest.revision}"
        published.append(
            destination.put(f"{stem}{revision}.{MANIFEST_FILE}", folder.export / MANIFEST_FILE, is_derived=False)
        )
    return published


def remember_copy(folder: VersionFolder, to: str) -> None:
    """Record the place of a copy, so that an erasure can name it."""
    if to not in list_copies(folder):
        path = folder.path / _COPIES
        before = path.read_bytes() if path.exists() else b""
        replace_file(path, before + msgspec.json.encode({"to": to}) + b"\n")


def list_copies(folder: VersionFolder) -> list[str]:
    """List the places of a version's copies, each once."""
    path = folder.path / _COPIES
    lines = path.read_bytes().splitlines() if path.exists() else []
    return sorted({msgspec.json.decode(line)["to"] for line in lines})


@dataclass(frozen=True)
class LocalFolder:
    """Stores copies in a folder of this machine."""

    path: Path

    def put(self, name: str, path: Path, *, is_derived: bool) -> Published:
        """See `Destination.put`."""
        self.path.mkdir(parents=True, exist_ok=True)
        target = self.path / name
        size = path.stat().st_size
        building = make_hidden_path(target)
        try:
            with open(path, "rb") as source, open(building, "wb") as copy:
                for block in _read_blocks(source):
                    copy.write(block)
                copy.flush()
                os.fsync(copy.fileno())
            os.link(building, target)
        except FileExistsError:
            if not is_derived and hash_file(target) != hash_file(path):
                raise _build_conflict_error(str(target)) from None
            return Published(str(target), size, is_new=False)
        finally:
            building.unlink(missing_ok=True)
        sync_folder(self.path)
        return Published(str(target), size, is_new=True)


@dataclass(frozen=True)
class S3Folder:
    """Stores copies under a prefix of a bucket; `client` is boto3's."""

    client: Any
    uri: str

    def put(self, name: str, path: Path, *, is_derived: bool) -> Published:
        """See `Destination.put`."""
        bucket, _, prefix = self.uri.removeprefix("s3://").partition("/")
        key = f"{prefix.strip('/')}/{name}".lstrip("/")
        where, sha256 = f"s3://{bucket}/{key}", hash_file(path)
        store = Bucket(self.client, bucket, where, "the name of the bucket and the rights")
        size = path.stat().st_size
        with open(path, "rb") as body:
            if store.create(key, body, {"flywheel-sha256": sha256}):
                return Published(where, size, is_new=True)
        # Created by another export, by an earlier one, or by our own request, repeated after its answer was lost.
        if not is_derived and store.read_metadata(key).get("flywheel-sha256") != sha256:
            raise _build_conflict_error(where)
        return Published(where, size, is_new=False)


def _build_conflict_error(where: str) -> VersionConflictError:
    return VersionConflictError(f"{where} exists with other content. Names are never used twice: choose another place.")


def _convert_file(path: Path, file: ExportedFile, work: Path) -> Path:
    """Write the other format of an exported file, rows in the same order."""
    with connect(work / "spill", keeps_order=True) as connection:
        if path.suffix == ".parquet":
            other = work / f"{path.stem}.jsonl"
            query, how = f"FROM read_parquet({quote(str(path))})", "FORMAT json"
        else:
            other = work / f"{path.stem}.parquet"
            columns = ", ".join(f"{name}: '{kind}'" for name, kind in _ROW_TYPES.items())
            source = f"read_ndjson({quote(str(path))}, columns = {{{columns}}}, maximum_object_size = {64 * 2**20})"
            # Exports are sorted by pair_id.
            query, how = f"SELECT * FROM {source} ORDER BY pair_id", "FORMAT parquet, COMPRESSION zstd"
        connection.execute(f"COPY ({query}) TO {quote(str(other))} ({how})")
    return other


def _read_blocks(file: Any) -> "Iterator[bytes]":
    while block := file.read(1 << 20):
        yield block
