"""Defines the list of a backup's files, and the parts of a home that it is made of.

The catalog is not copied as a file: its tables are named with their metadata files, read by one query. A SQLite and a
Postgres catalog are backed up in the same way, and a restore may go from one to the other.
"""

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec

from flywheel_assets.errors import BackupError

FORMAT = 1
WAREHOUSE = "warehouse"
"""Name of the part whose files are named by the tables' metadata; all others are listed."""
LANDED = "landed_objects"
"""Name of the part that is a landing zone on S3."""


@dataclass(frozen=True)
class Part:
    """One folder of a home, or one file."""

    name: str
    path: Path
    is_settled: bool = False
    """Its large files are complete when they appear, and only an erasure replaces them."""


class StoredFile(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One file of a backup."""

    part: str
    path: str
    """Relative to the part; empty where the part is one file."""
    bytes: int
    sha256: str
    mtime_ns: int = 0
    """When the original was written; 0 in the warehouse, whose files never change."""
    mode: int = 0o644
    original_bytes: int | None = None
    """Size of the original where that is a database, of which a compact copy was taken."""
    etag: str | None = None
    """Of an object on S3 that may be replaced under its name."""

    @property
    def key(self) -> tuple[str, str]:
        """Identify it within one backup."""
        return self.part, self.path


class StoredTable(msgspec.Struct, frozen=True, kw_only=True):
    """One table of the catalog."""

    application: str
    name: str
    metadata: str
    """Path of its metadata file in the warehouse."""
    rows: int
    snapshots: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The complete list of one backup; it is written last."""

    format: int = FORMAT
    number: int
    made_at: datetime
    began_ns: int
    """When the files were listed, by the clock that stamps files; one written at that moment is read again."""
    release: str
    home_id: str
    home: str
    host: str
    catalog: str
    """The catalog's kind and database, without host and password."""
    warehouse: str
    applications: list[str]
    tables: list[StoredTable]
    erasures: dict[str, list[str]]
    """By application the ids of the erasures that were complete."""
    files: list[StoredFile]
    left_out: list[str]
    """Sentences about what belongs to the home and is not in the backup."""

    def list_missing_erasures(self, known: Mapping[str, list[str]]) -> list[str]:
        """List erasures that came after this backup, so that it still holds what they erased."""
        return sorted(each for name, ids in known.items() for each in set(ids) - set(self.erasures.get(name, [])))


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the bytes of a manifest's file; 100,000 files take 6 MB."""
    return gzip.compress(msgspec.json.encode(manifest), compresslevel=6, mtime=0)


def decode_manifest(content: bytes, where: str) -> Manifest:
    """Decode a manifest's file.

    Raises:
        BackupError: it is damaged, or a newer release has written it.
    """
    try:
        text = gzip.decompress(content)
        found = msgspec.json.decode(text, type=_Format).format
        if found > FORMAT:
            raise BackupError(
                f"{where} has format {found}, and this release reads up to {FORMAT}: restore it with the release that "
                "made it, or a newer one"
            )
        return msgspec.json.decode(text, type=Manifest)
    except (OSError, EOFError, ValueError) as error:
        raise BackupError(
            f"{where} is damaged ({type(error).__name__}: {error}). Choose an earlier backup with --at, or bring "
            "the file back from a copy of the place; where it is lost, delete it."
        ) from error


class _Format(msgspec.Struct):
    format: int
