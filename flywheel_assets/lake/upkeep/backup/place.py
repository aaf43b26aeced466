"""Keeps the files of backups, each under the hash of its content, in a folder or a bucket.

    objects/ab/abcdef…          one content, for all files and backups that have it
    manifests/000012.json.gz    one complete backup
    unfinished/…                files being written, on a disk

A file gets its name when it is complete, and never changes. So an interrupted backup leaves contents that no manifest
names; the next one finds them by their names, and does not copy them again.
"""

import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flywheel_assets.errors import BackupError, S3RefusedError, StorageUnavailableError
from flywheel_assets.lake.storage.files import replace_file, sync_folder
from flywheel_assets.lake.storage.s3 import Bucket
from flywheel_assets.lake.tables.home import find_local_path
from flywheel_assets.lake.upkeep.backup.manifest import Manifest, StoredFile, decode_manifest, encode_manifest

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

_CHUNK_BYTES = 1 << 20
_ENDING = ".json.gz"
_FOLDERS = frozenset({"objects", "manifests", "unfinished"})


@dataclass(frozen=True)
class BackupPlace:
    """One place with the backups of one home."""

    uri: str
    filesystem: "FileSystem"
    root: str
    """Within the file system."""

    @classmethod
    def open(cls, uri: str, storage: Mapping[str, str]) -> "BackupPlace":
        """Open the place at a path or an `s3://` URI.

        Args:
            uri: the place; a folder need not exist.
            storage: settings of the storage by pyiceberg's names, for instance `s3.endpoint`.
        """
        from pyiceberg.io import load_file_io
        from pyiceberg.io.pyarrow import PyArrowFileIO

        local = find_local_path(uri)
        where = uri.rstrip("/") if local is None else str(local.expanduser().absolute())
        scheme, host, path = PyArrowFileIO.parse_location(where)
        storage_of = load_file_io(dict(storage), where)
        assert isinstance(storage_of, PyArrowFileIO)
        return cls(where, storage_of.fs_by_scheme(scheme, host), path)

    @property
    def folder(self) -> Path | None:
        """Return the folder on this machine; None: the place is on S3."""
        return find_local_path(self.uri)

    def refuse_foreign_files(self) -> None:
        """Refuse a folder that holds other things than backups.

        Raises:
            BackupError: it does.
        """
        from pyarrow.fs import FileSelector

        found = {each.base_name for each in self._list(FileSelector(self.root, allow_not_found=True))} - _FOLDERS
        if found:
            raise BackupError(
                f"{self.uri} holds other things than backups, for instance {sorted(found)[0]}: give an empty place, or "
                "one that `flywheel backup` has made"
            )

    def clear_unfinished(self) -> None:
        """Prepare the folder, readable by its owner only, and delete what a killed backup was writing."""
        if self.folder is not None:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            shutil.rmtree(self.folder / "unfinished", ignore_errors=True)

    def list_contents(self) -> dict[str, int]:
        """List the bytes of every content by its hash."""
        from pyarrow.fs import FileSelector, FileType

        found = self._list(FileSelector(f"{self.root}/objects", recursive=True, allow_not_found=True))
        return {each.base_name: each.size for each in found if each.type == FileType.File}

    def list_numbers(self) -> list[int]:
        """List the numbers of the complete backups, oldest first."""
        from pyarrow.fs import FileSelector

        found = self._list(FileSelector(f"{self.root}/manifests", allow_not_found=True))
        names = [each.base_name.removesuffix(_ENDING) for each in found if each.base_name.endswith(_ENDING)]
        return sorted(int(name) for name in names if name.isdecimal())

    def read_manifest(self, number: int) -> Manifest:
        """Read the list of one backup.

        Raises:
            BackupError: it is not there, damaged, or of a newer release.
        """
        path = self._name_manifest(number)
        try:
            with self.filesystem.open_input_stream(path, compression=None) as file:
                content = file.read()
        except FileNotFoundError:
            known = ", ".join(map(str, self.list_numbers())) or "none"
            raise BackupError(f"{self.uri} has no complete backup {number}; it has {known}") from None
        return decode_manifest(content, path)

    def write_manifest(self, manifest: Manifest) -> None:
        """Make a backup complete, once all contents are durable."""
        path, content = self._name_manifest(manifest.number), encode_manifest(manifest)
        if self.folder is not None:
            for each in (self.folder / "objects").glob("*"):
                sync_folder(each)
            replace_file(Path(path), content)
            return
        with self.filesystem.open_output_stream(path, compression=None) as file:
            file.write(content)

    def delete_manifest(self, number: int) -> None:
        """Delete the list of a backup, which then is none."""
        self.filesystem.delete_file(self._name_manifest(number))

    def put(self, sha256: str, open_source: Callable[[], Any]) -> int:
        """Store a content under its hash; return its bytes.

        Raises:
            BackupError: the source has another content by now; nothing is stored.
        """
        target = self._name_content(sha256)
        if self.folder is None:
            with open_source() as source, self.filesystem.open_output_stream(target) as sink:
                found, size = copy_hashed(source, sink)
            if found != sha256:
                self.filesystem.delete_file(target)
        else:
            # Under a name of its own: two threads may copy files of one content.
            building = self.folder / "unfinished" / f"{sha256}.{secrets.token_hex(4)}"
            building.parent.mkdir(exist_ok=True)
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            with open_source() as source, open(building, "wb") as file:
                found, size = copy_hashed(source, file)
                file.flush()
                os.fsync(file.fileno())
            if found == sha256:
                os.replace(building, target)
        if found != sha256:
            raise BackupError(f"a file changed while it was copied to {self.uri}: give the command again")
        return size

    def fetch(self, file: StoredFile, sink: Any) -> None:
        """Write a file's content to `sink`, and verify it.

        Raises:
            BackupError: the content is missing, or is not what its name says.
        """
        name = self._name_content(file.sha256)
        try:
            with self.filesystem.open_input_stream(name, compression=None) as source:
                found, _ = copy_hashed(source, sink)
        except FileNotFoundError:
            found = "nothing"
        if found != file.sha256:
            raise BackupError(
                f"{name} holds {found}, and should hold the file {file.part}/{file.path}: the backup is damaged there. "
                "Choose another one with --at, or restore this one content from a copy of the place. Where the home "
                "still has the file, delete the damaged content: the next `flywheel backup` copies it again."
            )

    def delete_contents(self, hashes: Iterable[str]) -> None:
        """Delete contents that no backup names."""
        for each in hashes:
            self.filesystem.delete_file(self._name_content(each))

    def delete_versions(self, s3_client: Callable[[], Any]) -> str | None:
        """Delete for good what a bucket with versions keeps of deleted files; return a sentence where it refuses."""
        if self.folder is not None:
            return None
        name, _, prefix = self.root.partition("/")
        try:
            bucket = Bucket(s3_client(), name, self.uri, "the rights to delete versions")
            if not bucket.keeps_versions():
                return None
            found = bucket.list_versions(f"{prefix}/" if prefix else "")
            deleted = {each.key for each in found if each.is_marker and each.is_latest}
            # The marker goes last: without it the newest version would be the file again.
            versions = [each for each in found if each.key in deleted and not each.is_marker]
            refused = dict(bucket.delete_versions(versions))
            markers = [each for each in found if each.key in deleted - set(refused) and each.is_marker]
            refused |= dict(bucket.delete_versions(markers))
        except (S3RefusedError, StorageUnavailableError) as error:
            refused = {"": str(error.code)}
        if not refused:
            return None
        return (
            f"{self.uri} keeps versions of deleted files, and S3 did not let us delete them "
            f"({', '.join(sorted(set(refused.values())))}): let a lifecycle rule for noncurrent versions delete them"
        )

    def _name_manifest(self, number: int) -> str:
        return f"{self.root}/manifests/{number:06d}{_ENDING}"

    def _name_content(self, sha256: str) -> str:
        return f"{self.root}/objects/{sha256[:2]}/{sha256}"

    def _list(self, selector: Any) -> Any:
        return self.filesystem.get_file_info(selector)


def copy_hashed(source: Any, sink: Any) -> tuple[str, int]:
    """Copy a stream; return the sha256 and the number of its bytes."""
    digest, size = hashlib.sha256(), 0
    while chunk := source.read(_CHUNK_BYTES):
        digest.update(chunk)
        sink.write(chunk)
        size += len(chunk)
    return digest.hexdigest(), size
