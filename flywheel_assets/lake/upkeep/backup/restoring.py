"""Restores a backup to an empty place: the same one, another path, another machine, another kind of catalog.

1. A marker says that the home is being restored: until it is gone, commits and sweeps are refused.
2. Every file is copied and compared with its hash. What a killed restore has copied already is compared, not copied.
3. The tables are registered from their metadata files, rewritten for the warehouse's place (`lake.upkeep.relocation`);
   that looks for every data file, too. With them the home gets its id.
   A landing zone on S3 is written where it has no events, and left as it is where it survived with the home's id: it is
   newer than the backup. A backup of one may be restored to a disk, whose readers take the objects' names as they are.
4. The marker is deleted; then the versions are verified and the ledgers audited, as `flywheel verify` does.

A home that comes back to the places that it had, keeps its id: they were empty, so the original is gone. Everywhere
else it gets a new one, so that it never owns what the original owns.
"""

import hashlib
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import msgspec

from flywheel_assets.errors import BackupError
from flywheel_assets.lake.daily.ledger import audit_accounts
from flywheel_assets.lake.landing.disk import CLOSED_FILE, read_closing
from flywheel_assets.lake.landing.objects import create_object, list_objects, read_object
from flywheel_assets.lake.landing.protocol import LandingPlace
from flywheel_assets.lake.landing.s3 import ObjectLanding
from flywheel_assets.lake.storage.failures import translate_disk_full, translate_outages
from flywheel_assets.lake.storage.files import hash_file, replace_file
from flywheel_assets.lake.tables.home import RESTORING_FILE, find_local_path
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import GROUND_TRUTH, ApplicationTables
from flywheel_assets.lake.upkeep.backup.manifest import LANDED, WAREHOUSE, Manifest, Part, StoredFile
from flywheel_assets.lake.upkeep.backup.place import BackupPlace
from flywheel_assets.lake.upkeep.relocation import plan_registration, register_tables
from flywheel_assets.lake.versions.folders import Versions
from flywheel_assets.lake.versions.verification import verify_versions

_AT_ONCE = 8
_MAY_BE_THERE = frozenset({"erasure.key", "scratch"})
"""In an empty home: the key is brought back from where keys are kept, perhaps before the rest; scratch holds locks."""


@dataclass(frozen=True)
class Target:
    """The empty place that a backup is restored to."""

    home: Path
    parts: Sequence[Part]
    open_lake: Callable[[str], Lake]
    open_versions: Callable[[str], Versions]
    tables: Mapping[str, ApplicationTables]
    """By application; those that are not installed here are restored, and not verified row by row."""
    landing: LandingPlace


@dataclass(frozen=True)
class Restored:
    """The result of one restore."""

    manifest: Manifest
    home_id: str
    is_new_id: bool
    copied_files: int
    copied_bytes: int
    kept_landing: str | None
    """The landing zone on S3 that survived, and was left as it is."""
    differences: tuple[str, ...]
    """What the versions' verification and the ledgers' audit found; the files are those of the backup in any case."""


class _Marker(msgspec.Struct, frozen=True):
    """`restoring.json`, what is being restored to a home."""

    place: str
    number: int
    home_id: str
    warehouse: str
    catalog: str
    keeps_landing: bool = False
    """The landing zone on S3 had events of this home, and is left as it is."""


def choose_backup(place: BackupPlace, number: int | None) -> Manifest:
    """Read the newest backup, or the one of this number.

    Raises:
        BackupError: there is none; or it was made before an erasure, and would bring the person back.
    """
    numbers = place.list_numbers()
    if not numbers:
        raise BackupError(
            f"{place.uri} has no complete backup. Check the address; an interrupted backup is completed by `flywheel "
            "backup` of the home that began it."
        )
    chosen = place.read_manifest(numbers[-1] if number is None else number)
    for each in (each for each in numbers if each > chosen.number):
        newer = place.read_manifest(each)
        if missing := chosen.list_missing_erasures(newer.erasures):
            raise BackupError(
                f"backup {chosen.number} was made before {len(missing)} erasures that backup {each} knows, and would "
                f"bring erased people back: restore backup {numbers[-1]}. The next `flywheel backup` deletes it."
            )
    return chosen


def restore_backup(place: BackupPlace, manifest: Manifest, target: Target, *, is_copy: bool = False) -> Restored:
    """Restore a backup; a repetition after a kill goes on with what is there.

    Args:
        place: the place of the backups.
        manifest: the backup, as `choose_backup` found it.
        target: the empty place.
        is_copy: give it a new id even at the original's places, for instance on another machine.

    Raises:
        BackupError: the target is not empty, or a content of the backup is damaged or missing.
        HomeMismatchError: the landing zone on S3 is another home's.
        LandingUnavailableError: S3 does not answer; run again, it goes on.
        DiskFullError: no space is left; run again, it goes on.
        StorageUnavailableError: S3 does not answer.
    """
    local = [path for part in target.parts if (path := part.path)]
    with translate_disk_full(target.home, *local), translate_outages():
        lakes = {name: target.open_lake(name) for name in manifest.applications}
        first = lakes[manifest.applications[0]]
        marker = _begin(place, manifest, target, first, is_copy=is_copy)
        if not any(target.landing.find_folder(name) for name in lakes):
            target.landing.verify_owner(marker.home_id)
        copied = _copy_files(place, manifest, target, first, marker)
        for name, lake in lakes.items():
            known, _ = lake.home.read_catalog()
            planned = [
                plan_registration(lake.home, each.name, f"{lake.home.root}/{each.metadata}", known.get(each.name))
                for each in manifest.tables
                if each.application == name
            ]
            register_tables(lake, planned, home_id=marker.home_id)
        target.landing.verify_owner(marker.home_id)
        os.sync()
        # Now nothing is missing. What verifies may create a table that the original had not needed yet.
        (target.home / RESTORING_FILE).unlink()
        differences = [each for name, lake in lakes.items() for each in _find_differences(target, name, lake)]
    kept = target.landing.place if marker.keeps_landing and isinstance(target.landing, ObjectLanding) else None
    return Restored(manifest, marker.home_id, marker.home_id != manifest.home_id, *copied, kept, tuple(differences))


def _begin(place: BackupPlace, manifest: Manifest, target: Target, lake: Lake, *, is_copy: bool) -> _Marker:
    """Refuse a target that is in use, and mark it; return the mark of the interrupted restore that goes on."""
    path = target.home / RESTORING_FILE
    name = _name_catalog(lake)
    if path.exists():
        marker = msgspec.json.decode(path.read_bytes(), type=_Marker)
        asked = (place.uri, manifest.number, lake.warehouse, name)
        if (marker.place, marker.number, marker.warehouse, marker.catalog) != asked:
            raise BackupError(
                f"{target.home} holds an interrupted restore of backup {marker.number} from {marker.place}: give that "
                f"command again, with --at {marker.number}, or delete what it has restored"
            )
        return marker
    _refuse_used(target, lake)
    is_back = (manifest.catalog, manifest.warehouse) == (name, lake.warehouse.rstrip("/"))
    home_id = manifest.home_id if is_back and not is_copy else secrets.token_hex(8)
    keeps_landing = _survived(target.landing, home_id, is_back=home_id == manifest.home_id)
    marker = _Marker(place.uri, manifest.number, home_id, lake.warehouse, name, keeps_landing)
    target.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    replace_file(path, msgspec.json.encode(marker))
    return marker


def _survived(landing: LandingPlace, home_id: str, *, is_back: bool) -> bool:
    """Return whether a landing zone on S3 has this home's events; refuse one that has others'."""
    if not isinstance(landing, ObjectLanding):
        return False
    owner = landing.read_owner()
    if owner is not None:
        owner.refuse_other(home_id, landing.place)
    first = next(list_objects(landing), None)
    if first is not None and not is_back:
        raise BackupError(
            f"a home is restored to an empty place only, and {landing.place} holds events, for instance {first.path}. "
            "Nothing was changed. Set FLYWHEEL_LANDING_S3 to an empty prefix, or unset it."
        )
    return first is not None


def _name_catalog(lake: Lake) -> str:
    """Name the catalog as `Home.catalog_name` does, without opening it: that would create one."""
    from sqlalchemy.engine import make_url

    url = make_url(lake.catalog_uri)
    return f"{url.get_backend_name()}:{url.database}"


def _refuse_used(target: Target, lake: Lake) -> None:
    from pyarrow.fs import FileSelector, FileType
    from pyiceberg.io import load_file_io
    from pyiceberg.io.pyarrow import PyArrowFileIO

    used: list[str] = []
    for path in (target.home, *(part.path for part in target.parts)):
        if path.is_dir():
            used += [str(each) for each in path.iterdir() if each.name not in _MAY_BE_THERE]
        elif path.exists() and path.name not in _MAY_BE_THERE:
            used.append(str(path))
    root = lake.warehouse.rstrip("/")
    scheme, host, path_there = PyArrowFileIO.parse_location(root)
    storage = load_file_io(dict(lake.storage), root)
    assert isinstance(storage, PyArrowFileIO)
    selector = FileSelector(path_there, recursive=True, allow_not_found=True)
    # Deleting the last object of a folder may leave the folder's own, an empty one.
    found = storage.fs_by_scheme(scheme, host).get_file_info(selector)
    used += [each.path for each in found if each.type == FileType.File and each.size]
    if not used and lake.is_begun and (tables := lake.catalog.list_namespaces()):
        names = [".".join(each) for name in tables for each in lake.catalog.list_tables(name)]
        used += [f"the table {each} of the catalog {_name_catalog(lake)}" for each in names]
    if used:
        raise BackupError(
            f"a home is restored to an empty place only, and {len(used)} things are there, for instance {used[0]}. "
            "Nothing was changed. Restore to another folder with --to, or move away what is left of the home first."
        )


def _copy_files(place: BackupPlace, manifest: Manifest, target: Target, lake: Lake, marker: _Marker) -> tuple[int, int]:
    """Copy every file that is not there yet; return the number of files and bytes copied."""
    folders = {part.name: part.path for part in target.parts}
    unknown = {file.part for file in manifest.files} - {*folders, LANDED, WAREHOUSE}
    if unknown:
        raise BackupError(f"the backup has parts that this release does not know: {', '.join(sorted(unknown))}")

    has_landed = any(file.part == LANDED for file in manifest.files) and not marker.keeps_landing
    landed: dict[str, int] = {}
    if has_landed and isinstance(target.landing, ObjectLanding):
        landed = {each.path: each.bytes for each in list_objects(target.landing)}

    def copy(file: StoredFile) -> int:
        if file.part == LANDED and marker.keeps_landing:
            return -1
        if file.part == LANDED and isinstance(target.landing, ObjectLanding):
            return _copy_to_landing(place, file, target.landing, landed, lake.scratch)
        if file.part == LANDED:
            return _copy_to_disk(place, file, folders["landing"] / file.path)
        if file.part != WAREHOUSE:
            return _copy_to_disk(place, file, folders[file.part] / file.path if file.path else folders[file.part])
        uri = f"{lake.warehouse.rstrip('/')}/{file.path}"
        local = find_local_path(uri)
        return _copy_to_bucket(place, file, lake, uri) if local is None else _copy_to_disk(place, file, local)

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        try:
            copied = list(threads.map(copy, manifest.files))
        except BaseException:
            threads.shutdown(cancel_futures=True)
            raise
    if not isinstance(target.landing, ObjectLanding):
        _delete_unfinished(manifest, folders["landing"])
    return sum(1 for each in copied if each >= 0), sum(each for each in copied if each > 0)


def _delete_unfinished(manifest: Manifest, landing: Path) -> None:
    """Delete what was no part of its day on S3: on a disk it would be late, and received today.

    A killed erasure leaves a segment that still has the person, see `lake.landing.s3`.
    """
    for file in manifest.files:
        if file.part == LANDED and file.path.endswith(f"/{CLOSED_FILE}"):
            path = landing / file.path
            closing = read_closing(path)
            for name in set(closing.erasing) - {segment.name for segment in closing.segments}:
                path.with_name(name).unlink(missing_ok=True)


def _copy_to_disk(place: BackupPlace, file: StoredFile, path: Path) -> int:
    """Copy a file; return its bytes, or -1 where it was there already."""
    if path.exists() and path.stat().st_size == file.bytes and hash_file(path) == file.sha256:
        return -1
    path.parent.mkdir(parents=True, exist_ok=True)
    # The name is the same in a repetition: what a kill left is overwritten.
    building = path.with_name(f".{path.name}.restoring")
    with open(os.open(building, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as sink:
        place.fetch(file, sink)
    building.chmod(file.mode)
    if file.mtime_ns:
        os.utime(building, ns=(file.mtime_ns, file.mtime_ns))
    os.replace(building, path)
    return file.bytes


def _copy_to_landing(
    place: BackupPlace, file: StoredFile, landing: ObjectLanding, landed: Mapping[str, int], scratch: Path
) -> int:
    """Create an object of the landing zone; return its bytes, or -1 where it was there already."""
    if file.etag is None and landed.get(file.path) == file.bytes:
        return -1  # its name has the hash of its content
    scratch.mkdir(parents=True, exist_ok=True)
    # An object is created whole, from a file that is compared before: no memory holds a segment.
    with TemporaryFile(dir=scratch) as building:
        place.fetch(file, building)
        building.seek(0)
        if create_object(landing, file.path, building):
            return file.bytes
    found = read_object(landing, file.path)
    if found is None or hashlib.sha256(found[0]).hexdigest() != file.sha256:
        raise BackupError(
            f"{landing.place}/{file.path} was written by another program since the restore began: stop what uses this "
            "landing zone, delete the object, and give the command again"
        )
    return -1


def _copy_to_bucket(place: BackupPlace, file: StoredFile, lake: Lake, uri: str) -> int:
    storage = lake.home.open_storage(uri)
    output: Any = storage.new_output(uri)
    # An object is there whole or not at all.
    if output.exists() and len(output) == file.bytes:
        return -1
    try:
        with output.create(overwrite=True) as sink:
            place.fetch(file, sink)
    except BackupError:
        # Leaving the block has made an object of it, which a repetition would take for the file.
        storage.delete(uri)
        raise
    return file.bytes


def _find_differences(target: Target, application: str, lake: Lake) -> list[str]:
    """Verify the versions and audit the ledgers of an application."""
    tables = target.tables.get(application)
    if tables is None or not lake.has_table(tables.gold):
        return []
    found = list(verify_versions(lake, target.open_versions(application), tables.gold).differences)
    for spec in (tables.predictions, GROUND_TRUTH, tables.joined, tables.gold):
        if lake.has_table(spec):
            found += [f"{spec.name} {each.day}: {each.what}" for each in audit_accounts(lake, spec).discrepancies]
    return [f"{application}: {each}" for each in found]
