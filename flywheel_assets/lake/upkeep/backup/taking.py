"""Takes a backup while everything runs.

1. Under the locks that keep daily steps, erasures, cuts and rollbacks away, for seconds: the tables' metadata files are
   read as one query of the catalog names them, databases are copied, all files are listed, and those that are small or
   may change in place are copied to this machine's scratch folder.
2. Without a lock, for as long as it takes: the contents that the place lacks are copied there. Iceberg's files never
   change and stay for the grace period of the maintenance; large landed and versioned files are replaced by erasures
   only. Where one is gone, or an erasure ended meanwhile, the backup starts over with what is copied already.
3. The manifest is written. Then older ones beyond `keep`, and *all* that were made before an erasure that has ended by
   now, are deleted, and the contents that no manifest names.

A landing zone on S3 is listed in step 1, where its closings are read, too, as far as their ETag or size is new.
Segments have their sha256 in their names: of those that the place has, none is read.

A file is read again only if its size or time differs from the last backup's. So a file that rots on the disk does not
replace its sound copy.
"""

import hashlib
import os
import re
import shutil
import socket
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from flywheel_assets import __version__
from flywheel_assets.errors import BackupError, CommitContentionError
from flywheel_assets.lake.landing.disk import OWNER_FILE
from flywheel_assets.lake.landing.objects import LandedObject, list_objects, read_object, stream_object
from flywheel_assets.lake.landing.s3 import ObjectLanding
from flywheel_assets.lake.storage.commits import hold_lock
from flywheel_assets.lake.storage.failures import translate_disk_full, translate_outages
from flywheel_assets.lake.storage.files import hash_file, replace_file
from flywheel_assets.lake.tables.home import HOME_FILE, RESTORING_FILE
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.upkeep.backup.manifest import LANDED, WAREHOUSE, Manifest, Part, StoredFile, StoredTable
from flywheel_assets.lake.upkeep.backup.place import BackupPlace, copy_hashed
from flywheel_assets.lake.upkeep.garbage import list_snapshot_files

if TYPE_CHECKING:
    from pyiceberg.table import Table

BACKUPS_FILE = "backups.json"
"""File in a home that names the places of its backups, for the receipts of erasures."""
DEFAULT_KEEP = 14
_ATTEMPTS = 4
_AT_ONCE = 8
"""Copies at the same time."""
_LARGE_BYTES = 1 << 20
_CLOCK_NS = 2_000_000_000
"""File systems stamp files to the tick, some to two seconds: a file as young as the last listing is read again."""
_SQLITE = b"SQLite format 3\x00"
_UNFINISHED = re.compile(r"^\..+\.[0-9a-f]{16}$")
"""Names of files and folders under construction, see `storage.files.make_hidden_path`."""
_COMPANION = re.compile(r"-(wal|shm|journal)$")
"""Ending of a file next to a database, of which the database's copy contains what counts."""


class LastBackup(msgspec.Struct, frozen=True):
    """One entry of `backups.json`."""

    number: int
    made_at: datetime


@dataclass(frozen=True)
class Source:
    """The home that is backed up."""

    lakes: Sequence[Lake]
    """One for each application that the catalog or the warehouse knows, at least one."""
    parts: Sequence[Part]
    versions: Path
    """Folder of all applications' versions, where erasures leave their receipts."""
    landing: ObjectLanding | None = None
    """The landing zone, where that is on S3; None: it is one of the parts."""
    left_out: Sequence[str] = ()
    excluded: Sequence[Path] = ()
    """Files and folders that are not backed up, apart from work in progress, the catalog and the ids of this home."""


@dataclass(frozen=True)
class Backup:
    """The result of one backup."""

    manifest: Manifest
    copied_files: int
    """Contents that the place did not have."""
    copied_bytes: int
    seconds: float
    locked_seconds: float
    """Seconds for which daily steps, cuts and erasures had to wait."""
    dropped: tuple[int, ...]
    """Older backups beyond `keep`."""
    dropped_for_erasures: tuple[int, ...]
    """Older backups that still held what an erasure had erased."""
    deleted_contents: int
    problem: str | None
    """A sentence where older backups could not be deleted, or S3 keeps versions of what was deleted."""


class _ChangedError(Exception):
    """A file is gone or another one since it was listed; a table may need it."""

    def __init__(self, name: str, *, is_needed: bool) -> None:
        super().__init__(name)
        self.name, self._is_needed = name, is_needed

    def explain(self, before: "_ChangedError") -> NoReturn:
        """Raise what the operator gets when repeating did not help.

        Each attempt reads the catalog again: a file that was missing in the attempt before, too, is no swept one.
        """
        if self._is_needed and before.name == self.name:
            raise BackupError(
                f"{self.name} is missing, and a table needs it: the home is damaged, and no backup was made. Restore "
                "the last backup elsewhere with `flywheel restore FROM --to PATH`, and copy the file from there."
            )
        raise CommitContentionError(
            f"{self.name} changed or was swept in the last of {_ATTEMPTS} attempts, as by erasures or a maintenance "
            "without a grace period. What is copied stays: run it again"
        )


@dataclass
class _Found:
    """The home as it was listed under the locks."""

    began_ns: int
    erasures: dict[str, list[str]]
    tables: list[StoredTable] = field(default_factory=list)
    loaded: list[tuple[Lake, "Table"]] = field(default_factory=list)
    known: list[StoredFile] = field(default_factory=list)
    """Files whose content the place has."""
    staged: list[tuple[StoredFile, Path]] = field(default_factory=list)
    waiting: list[tuple[StoredFile, Path]] = field(default_factory=list)
    """Large files, to be read without a lock; their hash is not known yet."""
    landed: list[StoredFile] = field(default_factory=list)
    """Segments on S3, whose names have their hashes."""
    locked_s: float = 0.0


def take_backup(
    source: Source,
    place: BackupPlace,
    *,
    now: datetime,
    keep: int = DEFAULT_KEEP,
    s3_client: Callable[[], Any] | None = None,
) -> Backup:
    """Back up a home; a repetition after a kill goes on with what is there.

    Args:
        source: the home.
        place: the place of its backups.
        now: the time, for the manifest.
        keep: how many backups stay, this one included.
        s3_client: deletes old versions where the place is a bucket that keeps them.

    Raises:
        BackupError: the place is another home's, lies in the home, or holds other things.
        HomeMismatchError: the home's parts contradict each other: a half-lost home is no backup.
        CommitContentionError: another backup runs; a daily step, cut or erasure took longer than ten minutes; or files
            kept changing. It is safe to run again.
        DiskFullError: no space is left; run again, it goes on.
        StorageUnavailableError: S3 does not answer.
    """
    first = source.lakes[0]
    began = time.monotonic()
    with (
        translate_disk_full(*([place.folder] if place.folder else []), *first.places),
        translate_outages(),
        hold_lock(first.catalog_uri, first.scratch / "locks", "backup", 1.0),
    ):
        home_id = _verify_home(source)
        _refuse_place(source, place)
        numbers = place.list_numbers()
        last = place.read_manifest(numbers[-1]) if numbers else None
        if last is not None and last.home_id != home_id:
            raise BackupError(
                f"{place.uri} holds the backups of the home {last.home_id} ({last.host}:{last.home}), and this home is "
                f"{home_id}: each home needs a place of its own"
            )
        place.clear_unfinished()
        found, files, copied = _copy_home(source, place, last)
        manifest = Manifest(
            number=numbers[-1] + 1 if numbers else 1,
            made_at=now,
            began_ns=found.began_ns,
            release=__version__,
            home_id=home_id,
            home=str(first.home.folder),
            host=socket.gethostname(),
            catalog=first.home.catalog_name,
            warehouse=first.home.root,
            applications=[lake.application for lake in source.lakes],
            tables=found.tables,
            erasures=found.erasures,
            files=files,
            left_out=list(source.left_out),
        )
        place.write_manifest(manifest)
        _note_backup(first, place, manifest)
        dropped, erased, deleted, problem = _prune(place, manifest, numbers, keep)
        if s3_client is not None and deleted:
            problem = problem or place.delete_versions(s3_client)
    seconds = time.monotonic() - began
    return Backup(manifest, *copied, seconds, found.locked_s, dropped, erased, deleted, problem)


def explain_backups(home: Path) -> list[str]:
    """Return sentences for an erasure's receipt: which backups still hold what was erased."""
    return [
        f"the backups in {uri}, made until {last.made_at:%Y-%m-%d %H:%M} UTC: the next `flywheel backup {uri}` deletes "
        "them"
        for uri, last in sorted(_read_backups(home).items())
    ]


def _read_backups(home: Path) -> dict[str, LastBackup]:
    path = home / BACKUPS_FILE
    return msgspec.json.decode(path.read_bytes(), type=dict[str, LastBackup]) if path.exists() else {}


def _note_backup(lake: Lake, place: BackupPlace, manifest: Manifest) -> None:
    folder = lake.home.folder
    noted = {**_read_backups(folder), place.uri: LastBackup(manifest.number, manifest.made_at)}
    replace_file(folder / BACKUPS_FILE, msgspec.json.encode(noted))


def _verify_home(source: Source) -> str:
    ids = [lake.verify_home(sweeps=True) for lake in source.lakes]
    return ids[0]


def _refuse_place(source: Source, place: BackupPlace) -> None:
    if place.folder is not None:
        where = place.folder.resolve()
        for part in source.parts:
            if where == part.path.resolve() or part.path.resolve() in where.parents:
                raise BackupError(f"{place.uri} lies in {part.path}, which is to be backed up: give another place")
    zone = source.landing
    # In a zone that is a whole bucket, a folder of its own is none of the zone's.
    if zone is not None and zone.prefix and f"{place.uri}/".startswith(f"{zone.place}/"):
        raise BackupError(f"{place.uri} lies in {zone.place}, which is to be backed up: give another place")
    place.refuse_foreign_files()


def _copy_home(
    source: Source, place: BackupPlace, last: Manifest | None
) -> tuple[_Found, list[StoredFile], tuple[int, int]]:
    """List the home and copy what the place lacks, until nothing has changed meanwhile."""
    stage = source.lakes[0].scratch / "backup"
    there = last.files if last else []
    changed: list[_ChangedError] = []
    try:
        for _ in range(_ATTEMPTS):
            contents = place.list_contents()
            known = {each.key: each for each in there if contents.get(each.sha256) == each.bytes}
            try:
                found = _list_home(source, known, last.began_ns if last else 0, stage)
                files, copied = _copy_contents(found, known, contents, place, source.landing)
            except _ChangedError as error:
                changed.append(error)
                continue
            if _list_erasures(source) == found.erasures:
                return found, files, copied
            changed.append(_ChangedError("an erasure's receipt", is_needed=False))
        changed[-1].explain(changed[-2])
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _list_home(source: Source, known: Mapping[tuple[str, str], StoredFile], last_ns: int, stage: Path) -> _Found:
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir(parents=True)
    with ExitStack() as locks:
        for lake in source.lakes:
            locks.enter_context(lake.pause_daily_steps())
            locks.enter_context(lake.lock_versions())
        locked = time.monotonic()
        found = _Found(time.time_ns(), _list_erasures(source))
        for lake in source.lakes:
            _list_tables(lake, found, stage)
        # Databases first: what they name was there when they were copied.
        listed = sorted(_list_files(source), key=lambda each: not _is_database(each[1]))
        for file, path in listed:
            before = known.get(file.key)
            if before is not None and _is_unchanged(before, file, path, last_ns):
                found.known.append(before)
            elif _is_large(source, file):
                found.waiting.append((file, path))
            else:
                with suppress(FileNotFoundError):  # it was at work, or it was sealed since and is listed there, too
                    found.staged.append(_stage(file, path, stage))
        if source.landing is not None:
            _list_landed(source.landing, found, known, stage)
        found.locked_s = time.monotonic() - locked
    return found


def _list_erasures(source: Source) -> dict[str, list[str]]:
    """List the erasures that are complete: those that have left a receipt."""
    return {
        lake.application: sorted(
            path.stem
            for path in (source.versions / lake.application / "erasures").glob("*.json")
            if not path.name.startswith("unfinished-")
        )
        for lake in source.lakes
    }


def _list_tables(lake: Lake, found: _Found, stage: Path) -> None:
    """Load each table as the catalog names it now, and keep its metadata file, which later commits delete."""
    from pyiceberg.table import StaticTable

    home = lake.home
    for name, uri in sorted(home.read_catalog()[0].items()):
        try:
            with home.open_storage(uri).new_input(uri).open() as metadata:
                content = metadata.read()
            table = StaticTable.from_metadata(uri, lake.catalog.properties)
        except FileNotFoundError as error:
            raise _ChangedError(uri, is_needed=True) from error
        path = _find_path(home.root, uri)
        copy = stage / str(len(found.staged))
        copy.write_bytes(content)
        file = StoredFile(part=WAREHOUSE, path=path, bytes=len(content), sha256=hash_file(copy))
        found.staged.append((file, copy))
        found.loaded.append((lake, table))
        head = table.metadata.current_snapshot()
        rows = int(head.summary["total-records"] or 0) if head is not None and head.summary is not None else 0
        found.tables.append(
            StoredTable(
                application=lake.application,
                name=name,
                metadata=path,
                rows=rows,
                snapshots=len(table.metadata.snapshots),
            )
        )


def _list_files(source: Source) -> Iterator[tuple[StoredFile, Path]]:
    """List the files of all parts with the sizes and times that they have now."""
    first = source.lakes[0]
    ids = [each.path / name for each in source.parts for name in (HOME_FILE, OWNER_FILE, RESTORING_FILE, BACKUPS_FILE)]
    paths = [part.path for part in source.parts]
    others = {each.resolve() for each in (*paths, *source.excluded, *first.places, *ids)}
    for part in source.parts:
        if part.path.is_file():
            yield _describe(part, "", part.path.stat()), part.path
        elif part.path.is_dir():
            own = others - {part.path.resolve()}
            for path in _walk(part.path.resolve(), own):
                with suppress(FileNotFoundError):
                    yield _describe(part, str(path.relative_to(part.path.resolve())), path.stat()), path


def _list_landed(
    landing: ObjectLanding, found: _Found, known: Mapping[tuple[str, str], StoredFile], stage: Path
) -> None:
    """List the landed objects, and keep those that may be replaced as they are now.

    The lock keeps their writers away, so that a closing and the listed segments belong together.
    """

    def keep(each: LandedObject) -> tuple[StoredFile, Path]:
        read = read_object(landing, each.path)
        if read is None:
            raise _ChangedError(each.path, is_needed=False)
        content, etag = read
        copy = stage / f"{LANDED}-{hashlib.sha256(each.path.encode()).hexdigest()}"
        copy.write_bytes(content)
        return _describe_object(each.path, len(content), hash_file(copy), etag), copy

    replaced = []
    for each in list_objects(landing):
        before = known.get((LANDED, each.path))
        if each.sha256 is not None:
            found.landed.append(_describe_object(each.path, each.bytes, each.sha256, None))
        elif before is not None and (before.etag, before.bytes) == (each.etag, each.bytes):
            found.known.append(before)
        else:
            replaced.append(each)
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        found.staged += threads.map(keep, replaced)


def _describe_object(path: str, size: int, sha256: str, etag: str | None) -> StoredFile:
    # Where it is restored to a disk, users' texts are readable by their owner only.
    return StoredFile(part=LANDED, path=path, bytes=size, sha256=sha256, etag=etag, mode=0o600)


def _describe(part: Part, path: str, status: os.stat_result) -> StoredFile:
    mode = stat.S_IMODE(status.st_mode)
    return StoredFile(
        part=part.name, path=path, bytes=status.st_size, sha256="", mtime_ns=status.st_mtime_ns, mode=mode
    )


def _walk(folder: Path, others: set[Path], seen: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """Yield the files below a folder, through links to folders: a base model may be one into a hub's cache."""
    real = folder.resolve()
    if real in seen:
        return
    try:
        # Open segments come before sealed ones: one that is sealed in between is found twice, never not at all.
        entries = sorted(os.scandir(folder), key=lambda entry: (entry.name != "_open", entry.name))
    except FileNotFoundError:
        return
    for entry in entries:
        path = Path(entry.path)
        if path in others or path.resolve() in others or _UNFINISHED.match(entry.name):
            continue
        if entry.is_dir():
            yield from _walk(path, others, seen | {real})
        elif entry.is_file() and not _is_companion(path):
            yield path


def _is_unchanged(before: StoredFile, file: StoredFile, path: Path, last_ns: int) -> bool:
    size = before.bytes if before.original_bytes is None else before.original_bytes
    if (size, before.mtime_ns) != (file.bytes, file.mtime_ns) or file.mtime_ns >= last_ns - _CLOCK_NS:
        return False
    log = path.with_name(f"{path.name}-wal")
    return not log.exists() or not log.stat().st_size


def _is_large(source: Source, file: StoredFile) -> bool:
    settled = {part.name for part in source.parts if part.is_settled}
    return file.part in settled and file.bytes >= _LARGE_BYTES and "/_open/" not in f"/{file.path}"


def _is_database(path: Path) -> bool:
    if path.suffix not in {".db", ".sqlite", ".sqlite3"}:
        return False
    try:
        with open(path, "rb") as file:
            return file.read(len(_SQLITE)) == _SQLITE
    except FileNotFoundError:
        return False


def _is_companion(path: Path) -> bool:
    return bool(_COMPANION.search(path.name)) and _is_database(path.with_name(_COMPANION.sub("", path.name)))


def _stage(file: StoredFile, path: Path, stage: Path) -> tuple[StoredFile, Path]:
    copy = stage / f"{file.part}-{len(os.listdir(stage))}"
    if _is_database(path):
        _copy_database(path, copy)
        content, size = hash_file(copy), copy.stat().st_size
        return msgspec.structs.replace(file, sha256=content, bytes=size, original_bytes=file.bytes), copy
    with open(path, "rb") as source, open(copy, "wb") as sink:
        content, size = copy_hashed(source, sink)
    return msgspec.structs.replace(file, sha256=content, bytes=size), copy


def _copy_database(path: Path, copy: Path) -> None:
    """Copy a database as of one transaction, without the remains of deleted rows that its free pages hold."""
    try:
        with closing(sqlite3.connect(path, timeout=60, isolation_level=None)) as connection:
            connection.execute("VACUUM INTO ?", (str(copy),))
    except sqlite3.DatabaseError as error:
        raise BackupError(
            f"the database {path} cannot be copied ({error}). Repair it, or restore it from an earlier backup; no "
            "backup was made."
        ) from error


def _find_path(root: str, uri: str) -> str:
    from pyiceberg.io.pyarrow import PyArrowFileIO

    below, path = (PyArrowFileIO.parse_location(each)[2] for each in (root, uri))
    if not path.startswith(f"{below}/"):
        raise BackupError(f"{uri} lies outside of the warehouse {root}: this home cannot be backed up as a whole")
    return str(path.removeprefix(f"{below}/"))


def _copy_contents(
    found: _Found,
    known: Mapping[tuple[str, str], StoredFile],
    contents: dict[str, int],
    place: BackupPlace,
    landing: ObjectLanding | None,
) -> tuple[list[StoredFile], tuple[int, int]]:
    """Copy what the place lacks; return all files, and the number of contents and bytes that were copied."""
    copied, counting = [0, 0], threading.Lock()

    def put(file: StoredFile, open_source: Callable[[], Any]) -> StoredFile:
        if contents.get(file.sha256) != file.bytes:
            try:
                size = place.put(file.sha256, open_source)
            except (BackupError, FileNotFoundError) as error:
                raise _ChangedError(file.path, is_needed=False) from error
            with counting:
                contents[file.sha256] = size
                copied[0] += 1
                copied[1] += size
        return file

    def put_waiting(each: tuple[StoredFile, Path]) -> StoredFile:
        file, path = each
        try:
            hashed = msgspec.structs.replace(file, sha256=hash_file(path))
            put(hashed, partial(open, path, "rb"))
            status = path.stat()
        except FileNotFoundError as error:
            raise _ChangedError(file.path, is_needed=False) from error
        if (status.st_size, status.st_mtime_ns) != (file.bytes, file.mtime_ns):
            raise _ChangedError(file.path, is_needed=False)
        return hashed

    def put_table_file(each: tuple[Lake, StoredFile, str]) -> StoredFile:
        lake, file, uri = each
        before = known.get(file.key)
        if before is not None and before.bytes == file.bytes:
            return before
        source = lake.home.open_storage(uri).new_input(uri)
        try:
            with source.open() as stream, open(os.devnull, "wb") as nowhere:
                sha256, _ = copy_hashed(stream, nowhere)
        except FileNotFoundError as error:
            raise _ChangedError(uri, is_needed=True) from error
        return put(msgspec.structs.replace(file, sha256=sha256), source.open)

    def put_landed(file: StoredFile) -> StoredFile:
        assert landing is not None
        try:
            return put(file, partial(stream_object, landing, file.path))
        except _ChangedError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise
            raise BackupError(
                f"{landing.place}/{file.path} does not match the sha256 in its name: the object is damaged, and no "
                "backup was made. Restore an older version of it; where there is none, delete it: the tables keep the "
                "day's rows."
            ) from error

    table_files = [(lake, *each) for lake, table in found.loaded for each in _list_table_files(lake, table)]
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        try:
            files = [
                *found.known,
                *threads.map(lambda each: put(each[0], partial(open, each[1], "rb")), found.staged),
                *threads.map(put_waiting, found.waiting),
                *threads.map(put_landed, found.landed),
                *threads.map(put_table_file, table_files),
            ]
        except BaseException:
            threads.shutdown(cancel_futures=True)
            raise
    return sorted(files, key=lambda file: file.key), (copied[0], copied[1])


def _list_table_files(lake: Lake, table: "Table") -> list[tuple[StoredFile, str]]:
    """List the files that the snapshots of a table need, with their sizes and URIs."""
    from pyarrow.fs import FileSelector
    from pyiceberg.io.pyarrow import PyArrowFileIO

    scheme, host, folder = PyArrowFileIO.parse_location(table.location())
    filesystem = lake.home.open_storage(table.location()).fs_by_scheme(scheme, host)
    listed = filesystem.get_file_info(FileSelector(folder, recursive=True, allow_not_found=True))
    sizes = {each.path: each.size for each in listed}
    try:
        needed = sorted(set(list_snapshot_files(table)))
    except FileNotFoundError as error:
        raise _ChangedError(_name_missing(error, table.location()), is_needed=True) from error
    files = []
    for uri in needed:
        size = sizes.get(PyArrowFileIO.parse_location(uri)[2])
        if size is None:
            raise _ChangedError(uri, is_needed=True)
        files.append((StoredFile(part=WAREHOUSE, path=_find_path(lake.home.root, uri), bytes=size, sha256=""), uri))
    return files


def _name_missing(error: FileNotFoundError, otherwise: str) -> str:
    quoted = re.search(r"'([^']+)'", str(error))
    return quoted[1] if quoted else otherwise


def _prune(
    place: BackupPlace, newest: Manifest, older: Sequence[int], keep: int
) -> tuple[tuple[int, ...], tuple[int, ...], int, str | None]:
    """Delete manifests, then the contents that none of the others names.

    Returns the manifests beyond `keep`, those from before an erasure, the number of contents, and a problem.
    """
    manifests = {}
    for number in older:
        try:
            manifests[number] = place.read_manifest(number)
        except BackupError as error:
            return (), (), 0, f"nothing was deleted: {error}"
    erased = [number for number, each in manifests.items() if each.list_missing_erasures(newest.erasures)]
    left = [number for number in older if number not in erased]
    surplus = left[: max(0, len(left) - (keep - 1))]
    for number in (*erased, *surplus):
        place.delete_manifest(number)
        del manifests[number]
    named = {file.sha256 for each in (newest, *manifests.values()) for file in each.files}
    unnamed = place.list_contents().keys() - named
    place.delete_contents(unnamed)
    return tuple(surplus), tuple(erased), len(unnamed), None
