"""Walks every file that a table needs, and finds those that are gone or cannot be read.

Libraries report a damaged file in many ways, and often without its name: a truncated manifest list even reads as one
with fewer manifests. So no error's text is interpreted. Where a table's method fails, the table is walked, and the
error names what the walk finds. `lake.fsck` walks all tables, and reads contents, too.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from enum import StrEnum
from functools import wraps
from traceback import walk_tb
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar

from flywheel_assets.errors import DamagedFileError, FlywheelError
from flywheel_assets.lake.storage.failures import find_outage, is_disk_full
from flywheel_assets.lake.storage.files import hash_file
from flywheel_assets.lake.tables.home import Home, find_local_path
from flywheel_assets.lake.tables.specs import (
    CLASSIFICATION_TABLES,
    FEEDBACK_SUMMARY,
    GROUND_TRUTH,
    PREFERENCE_TABLES,
    QUARANTINE,
)

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem
    from pyiceberg.io import FileIO
    from pyiceberg.manifest import ManifestFile
    from pyiceberg.table.metadata import TableMetadata
    from pyiceberg.table.snapshots import Snapshot

_EPOCH = date(1970, 1, 1)
_SYNC_BYTES = 16
"""Of Avro: a marker that the header names and each block ends with."""
_MADE_FROM_LANDING = {
    each.name
    for tables in (PREFERENCE_TABLES, CLASSIFICATION_TABLES)
    for each in (tables.predictions, GROUND_TRUTH, tables.joined, tables.gold, QUARANTINE, FEEDBACK_SUMMARY)
}
"""Tables whose days `flywheel backfill` makes."""
_READERS = {"duckdb", "_duckdb", "pyarrow", "pyiceberg"}
_Lake = TypeVar("_Lake", bound="HasHome")
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
HEAD = "main"
"""Iceberg's name of the branch that a table's readers see."""


class FileKind(StrEnum):
    """The kinds of files that a table consists of."""

    METADATA = "metadata file"
    LIST = "manifest list"
    MANIFEST = "manifest"
    DATA = "data file"


@dataclass(frozen=True)
class TableFile:
    """One file that a table's catalog entry leads to."""

    uri: str
    kind: FileKind
    bytes: int | None = None
    """As the file above it says; None: it says nothing."""
    rows: int | None = None
    day: date | None = None
    """The partition of a data file; None: the table has no days."""
    needed_by: frozenset[str] = frozenset()
    """Tags and branches whose snapshots need it; empty: only snapshots that will expire do."""

    @property
    def path(self) -> str:
        """Return the path on this machine, or the URI."""
        return str(find_local_path(self.uri) or self.uri)


@dataclass(frozen=True)
class Damage:
    """One file that is not what the table needs."""

    file: TableFile
    problem: str

    def __str__(self) -> str:
        return f"the {self.file.kind} {self.file.path} {self.problem}"


@dataclass
class Walked:
    """The result of walking one table."""

    files: list[TableFile] = field(default_factory=list)
    """Each file that is there."""
    damages: list[Damage] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Return whether nothing is damaged."""
        return not self.damages


def walk_table(home: Home, location: str) -> Walked:
    """Walk a table from its metadata file to the footers of its data files; read no rows.

    Args:
        home: the application's view of its home.
        location: URI of the metadata file, as the catalog has it.

    Raises:
        StorageUnavailableError: the warehouse's S3 does not answer.
    """
    return _Walk(home.open_storage(location)).run(location)


def find_damage(home: Home, names: Iterable[str] | None = None) -> DamagedFileError | None:
    """Find the damaged files of tables after one could not be read; None: all of them can be read.

    Where the structure of these tables is whole, the rows of their heads are decoded.

    Args:
        home: the application's view of its home.
        names: tables; None: all of the application.
    """
    locations = home.read_catalog()[0]
    walked = {name: walk_table(home, locations[name]) for name in names or locations if name in locations}
    found = [(name, each) for name, table in walked.items() for each in table.damages]
    if not found:
        found = [(name, each) for name, table in walked.items() for each in find_undecodable(home, table.files)]
    if not found:
        return None
    # What the head needs is what failed; a file of an old snapshot comes after it.
    name, damage = min(found, key=lambda each: HEAD not in each[1].file.needed_by)
    more = f" ({len(found) - 1} more are damaged)" if len(found) > 1 else ""
    return DamagedFileError(
        f"{home.application}.{name}: {damage}{more}. {name_way_back(home.application, name, damage.file)}; "
        f"`flywheel fsck --application {home.application}` lists every damaged file."
    )


class HasHome(Protocol):
    """The part of a lake that names damaged files."""

    @property
    def home(self) -> Home:
        """Return the home by its parts."""


def name_damaged_tables(
    step: Callable[Concatenate[_Lake, _Arguments], _Result],
) -> Callable[Concatenate[_Lake, _Arguments], _Result]:
    """Decorate a step that reads tables by statements of its own, as `Lake` names what its methods cannot read.

    Raises:
        DamagedFileError: instead of a library's error, where files of the application's tables are damaged.
    """

    @wraps(step)
    def wrapper(lake: _Lake, /, *arguments: _Arguments.args, **keywords: _Arguments.kwargs) -> _Result:
        try:
            return step(lake, *arguments, **keywords)
        except Exception as error:
            damage = find_damage(lake.home) if may_be_damage(error) else None
            if damage is None:
                raise
            raise damage from error

    return wrapper


def may_be_damage(error: BaseException) -> bool:
    """Return whether a library that reads a table's files may have failed over one of them."""
    if isinstance(error, FlywheelError) or is_disk_full(error) or find_outage(error) is not None:
        return False
    # pyiceberg's readers fail over garbage with whatever they stumble on, even a `SystemError`.
    frames = {str(frame.f_globals.get("__name__")).split(".")[0] for frame, _ in walk_tb(error.__traceback__)}
    return isinstance(error, OSError) or not _READERS.isdisjoint({*frames, type(error).__module__.split(".")[0]})


def find_undecodable(home: Home, files: Iterable[TableFile]) -> Iterator[Damage]:
    """Decode every row group of data files, and yield those that fail."""
    for file in files:
        if file.kind is FileKind.DATA:
            try:
                for _ in _decode_rows(home, file):
                    pass
            except Exception as error:
                problem = explain_unreadable(error)
                if problem is None:
                    raise
                yield Damage(file, problem)


def name_way_back(application: str, name: str, file: TableFile) -> str:
    """Say how a damaged file of a table comes back, or how the table does without it."""
    tags = sorted(each for each in file.needed_by if each != HEAD)
    if not file.needed_by and file.kind is not FileKind.METADATA:
        return (
            f"Only snapshots that will expire need it: `flywheel maintain --application {application} --yes` forgets "
            "it once they are older than `snapshots_kept_days`"
        )
    if file.kind is FileKind.METADATA and not file.needed_by:
        return "Nothing reads it, and the table forgets it after ten commits; `flywheel fsck --repair` sets it aside"
    if file.kind is FileKind.DATA and file.day is not None and HEAD in file.needed_by and is_made_from_landing(name):
        kept = f"; {', '.join(tags)} need it, too: restore it from a backup for them" if tags else ""
        return f"`flywheel backfill {file.day} {file.day} --application {application}` writes the day again{kept}"
    for_what = f", for {', '.join(tags)}" if HEAD not in file.needed_by else ""
    return f"Restore this file from a backup{for_what} (docs/disaster_recovery.md)"


class _Walk:
    def __init__(self, storage: "FileIO") -> None:
        self._storage = storage
        self._found = Walked()
        self._manifests: dict[str, tuple[ManifestFile, set[str]]] = {}
        self._data: dict[str, tuple[Any, bool, set[str]]] = {}

    def run(self, location: str) -> Walked:
        metadata = self._read_metadata(location)
        if metadata is None:
            return self._found
        names: dict[int, set[str]] = {}
        for name, reference in metadata.refs.items():
            names.setdefault(reference.snapshot_id, set()).add(name)
        for snapshot in metadata.snapshots:
            self._read_list(snapshot, names.get(snapshot.snapshot_id, set()))
        for manifest, needed in self._manifests.values():
            self._read_manifest(manifest, needed, is_by_day=bool(metadata.specs()[manifest.partition_spec_id].fields))
        self._look_at_data()
        return self._found

    def _read_metadata(self, location: str) -> "TableMetadata | None":
        from pyiceberg.serializers import FromInputFile

        file = TableFile(location, FileKind.METADATA, needed_by=frozenset({HEAD}))
        with _Reading(self._found, file):
            metadata = FromInputFile.table_metadata(self._storage.new_input(location))
            for entry in metadata.metadata_log:
                before = TableFile(entry.metadata_file, FileKind.METADATA)
                # pyiceberg deletes old ones; nothing needs them, and one that is there may be restored from.
                if self._storage.new_input(entry.metadata_file).exists():
                    with _Reading(self._found, before):
                        FromInputFile.table_metadata(self._storage.new_input(entry.metadata_file))
            return metadata
        return None

    def _read_list(self, snapshot: "Snapshot", needed: set[str]) -> None:
        from pyiceberg.manifest import MANIFEST_LIST_FILE_SCHEMAS, ManifestContent, ManifestFile, PartitionFieldSummary

        file = TableFile(snapshot.manifest_list, FileKind.LIST, needed_by=frozenset(needed))
        with _Reading(self._found, file):
            schema = MANIFEST_LIST_FILE_SCHEMAS[2]
            types = {-1: ManifestFile, 508: PartitionFieldSummary}
            rows = self._read_avro(file, schema, types, {517: ManifestContent})
            for manifest in rows:
                self._manifests.setdefault(manifest.manifest_path, (manifest, set()))[1].update(needed)

    def _read_manifest(self, manifest: "ManifestFile", needed: set[str], *, is_by_day: bool) -> None:
        file = TableFile(
            manifest.manifest_path, FileKind.MANIFEST, manifest.manifest_length, needed_by=frozenset(needed)
        )
        with _Reading(self._found, file):
            from pyiceberg.manifest import (
                MANIFEST_ENTRY_SCHEMAS,
                DataFile,
                DataFileContent,
                FileFormat,
                ManifestEntry,
                ManifestEntryStatus,
            )

            types = {-1: ManifestEntry, 2: DataFile}
            enums = {0: ManifestEntryStatus, 101: FileFormat, 134: DataFileContent}
            entries = self._read_avro(file, MANIFEST_ENTRY_SCHEMAS[2], types, enums)
            live = [entry for entry in entries if entry.status != ManifestEntryStatus.DELETED]
            counted = (manifest.added_files_count or 0) + (manifest.existing_files_count or 0)
            if len(live) != counted:
                raise _NotWholeError(f"names {len(live)} data files, its manifest list says {counted}")
            for entry in live:
                uri = entry.data_file.file_path
                self._data.setdefault(uri, (entry.data_file, is_by_day, set()))[2].update(needed)

    def _read_avro(self, file: TableFile, schema: Any, types: Mapping[int, Any], enums: Mapping[int, Any]) -> list[Any]:
        from pyiceberg.avro.file import AvroFile

        source = self._storage.new_input(file.uri)
        size = len(source)
        if file.bytes is not None and size != file.bytes:
            raise _NotWholeError(f"has {size:,} bytes, its manifest list says {file.bytes:,}")
        opened: AvroFile[Any] = AvroFile(source, schema, dict(types), dict(enums))
        with opened as rows:
            found = list(rows)
        with source.open() as stream:
            # A reader takes the end of a truncated file for the end of its rows.
            if stream.read()[-_SYNC_BYTES:] != opened.header.sync:
                raise _NotWholeError("ends in the middle")
        return found

    def _look_at_data(self) -> None:
        from pyarrow.fs import FileType
        from pyiceberg.io.pyarrow import PyArrowFileIO

        if not self._data:
            return
        assert isinstance(self._storage, PyArrowFileIO)
        places = {uri: PyArrowFileIO.parse_location(uri) for uri in self._data}
        scheme, host, _ = next(iter(places.values()))
        filesystem = self._storage.fs_by_scheme(scheme, host)
        infos = filesystem.get_file_info([path for _, _, path in places.values()])
        for (uri, (entry, is_by_day, needed)), info in zip(self._data.items(), infos, strict=True):
            day = _EPOCH + timedelta(days=int(entry.partition[0])) if is_by_day else None
            file = TableFile(uri, FileKind.DATA, entry.file_size_in_bytes, entry.record_count, day, frozenset(needed))
            with _Reading(self._found, file):
                if info.type != FileType.File:
                    raise FileNotFoundError(uri)
                if info.size != file.bytes:
                    raise _NotWholeError(f"has {info.size:,} bytes, its manifest says {file.bytes:,}")
                rows = _read_footer(filesystem, info.path)
                if rows != file.rows:
                    raise _NotWholeError(f"has {rows:,} rows, its manifest says {file.rows:,}")


def _read_footer(filesystem: "FileSystem", path: str) -> int:
    import pyarrow.parquet as pq

    with filesystem.open_input_file(path) as source:
        return int(pq.read_metadata(source).num_rows)


class _NotWholeError(Exception):
    """The file can be read and is not what the file above it says."""


class _Reading:
    """Notes a file as there, or as damaged where reading it fails; an outage goes on."""

    def __init__(self, found: Walked, file: TableFile) -> None:
        self._found, self._file = found, file

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: type[BaseException] | None, error: BaseException | None, _: object) -> bool:
        if error is None:
            self._found.files.append(self._file)
            return False
        problem = explain_unreadable(error)
        if problem is None:
            return False
        self._found.damages.append(Damage(self._file, problem))
        return True


def explain_unreadable(error: BaseException) -> str | None:
    """Explain why a file could not be read, without its content; None where the cause lies elsewhere."""
    if not isinstance(error, Exception) or isinstance(error, MemoryError) or find_outage(error) is not None:
        return None
    if isinstance(error, FileNotFoundError):
        return "is missing"
    if isinstance(error, PermissionError):
        return "may not be read by this user"
    # A library's message may quote rows, which are users'.
    return str(error) if isinstance(error, _NotWholeError) else f"cannot be read ({type(error).__name__})"


def is_made_from_landing(name: str) -> bool:
    """Return whether `flywheel backfill` makes the days of a table."""
    return name in _MADE_FROM_LANDING


def hash_table_file(home: Home, file: TableFile) -> str:
    """Return the sha256 of a file of a table."""
    local = find_local_path(file.uri)
    if local is not None:
        return hash_file(local)
    with home.open_storage(file.uri).new_input(file.uri).open() as stream:
        return hashlib.sha256(stream.read()).hexdigest()


def _decode_rows(home: Home, file: TableFile) -> Iterator[int]:
    """Decode a data file row group by row group; yield the rows of each."""
    import pyarrow.parquet as pq

    filesystem, path = open_file_system(home, file)
    with filesystem.open_input_file(path) as source, pq.ParquetFile(source, pre_buffer=False) as rows:
        for number in range(rows.metadata.num_row_groups):
            yield rows.read_row_group(number, use_threads=False).num_rows


def open_file_system(home: Home, file: TableFile) -> "tuple[FileSystem, str]":
    """Open the file system of a table's file; return it with the file's path there."""
    from pyiceberg.io.pyarrow import PyArrowFileIO

    storage = home.open_storage(file.uri)
    scheme, host, path = PyArrowFileIO.parse_location(file.uri)
    return storage.fs_by_scheme(scheme, host), path
