"""Registers tables from the files of a warehouse, and rewrites their metadata where the files lie elsewhere now.

Iceberg's files name each other by absolute paths: the metadata file names manifest lists, these name manifests, these
name data files. For a table whose folder has moved, each of the three is written again under a new name, with only the
paths (and the sizes of manifests) changed; snapshots, tags, and data files stay what they are. The catalog is changed
last, all tables in one transaction: a kill before it leaves unreachable files and nothing else.
"""

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flywheel_assets.errors import HomeMismatchError
from flywheel_assets.lake.storage.failures import translate_outages
from flywheel_assets.lake.tables.home import Home, read_number
from flywheel_assets.lake.tables.lake import Lake

if TYPE_CHECKING:
    from pyiceberg.io import FileIO

_MANIFEST_PATH, _MANIFEST_LENGTH, _DATA_FILE, _FILE_PATH, _REFERENCED = 500, 501, 2, 100, 143
"""Field ids of the Iceberg specification, in manifest lists and manifests."""


@dataclass(frozen=True)
class Registration:
    """One table that is to be registered from a metadata file."""

    name: str
    metadata: str
    """URI of the metadata file where it lies now."""
    location: str
    """URI of the table's folder now."""
    written_at: str
    """URI of the folder that the metadata file names."""
    rows: int
    snapshots: int
    replaces: str | None
    """The metadata file that the catalog has; None: it does not know the table."""


def plan_adoption(lake: Lake) -> list[Registration]:
    """Find the tables that the catalog lacks, or has in an older state than the warehouse.

    Each is to be registered from its newest metadata file. Of two with one number, which a killed commit leaves, the
    later one is the newest.

    Raises:
        HomeMismatchError: the newest metadata file of a table cannot be read.
    """
    home = lake.home
    known, _ = home.read_catalog()
    found = []
    for name in home.list_folders():
        newest = find_newest_metadata(home, name)
        if newest is None or (name not in known and not home.was_changed(name)):
            continue
        current = known.get(name)
        ahead = (read_number(newest) or 0) - (read_number(current or "") or 0)
        folder = f"{home.root}/{home.application}/{name}"
        if current is None or ahead > 1 or not current.startswith(f"{folder}/"):
            found.append(plan_registration(home, name, newest, current))
    return found


def plan_move(lake: Lake) -> list[Registration]:
    """Find the tables whose metadata the catalog has at another place than this home's warehouse.

    Raises:
        HomeMismatchError: a table's metadata file is not in the warehouse.
    """
    home = lake.home
    known, _ = home.read_catalog()
    moved = []
    for name, current in sorted(known.items()):
        here = f"{home.root}/{home.application}/{name}/metadata/{current.rsplit('/', 1)[-1]}"
        if here != current:
            moved.append(plan_registration(home, name, here, current))
    return moved


def find_newest_metadata(home: Home, name: str) -> str | None:
    """Find the URI of a table's newest metadata file; None where it has none."""
    folder = f"{home.application}/{name}/metadata"
    numbered = [(read_number(each.path), each.mtime_ns or 0, each.base_name) for each in home.list_files(folder)]
    files = [(number, time, base) for number, time, base in numbered if number is not None]
    return f"{home.root}/{folder}/{max(files)[2]}" if files else None


def list_namespaces(lake: Lake) -> list[str]:
    """List the applications that the catalog of a lake or its warehouse knows."""
    from pyarrow.fs import FileType

    folders = {each.base_name for each in lake.home.list_files("") if each.type == FileType.Directory}
    return sorted(folders | {str(each[0]) for each in lake.catalog.list_namespaces()})


@translate_outages()
def register_tables(lake: Lake, planned: Sequence[Registration], *, home_id: str) -> None:
    """Register planned tables, and make the parts of this home its own by `home_id`.

    Run it while nothing else works on the home. Before the catalog changes, every data file is looked for.

    Args:
        lake: whose catalog.
        planned: what `plan_adoption` or `plan_move` found.
        home_id: is written to home, catalog and warehouse.

    Raises:
        HomeMismatchError: files are missing, or the catalog has changed since; the catalog is what it was.
    """
    home = lake.home
    with lake.lock_home():
        placed = {each.name: _rewrite_table(home, each) for each in planned}
        _change_catalog(home, planned, placed)
        home.write_id(home_id, {})


def plan_registration(home: Home, name: str, metadata: str, current: str | None) -> Registration:
    """Plan to register a table from a metadata file, whose URI `metadata` is where it lies now.

    Raises:
        HomeMismatchError: the file is not there or damaged.
    """
    found = _read_metadata(home, metadata)
    snapshots = {each["snapshot-id"]: each for each in found.get("snapshots", [])}
    head = snapshots.get(found.get("current-snapshot-id"), {})
    return Registration(
        name=name,
        metadata=metadata,
        location=f"{home.root}/{home.application}/{name}",
        written_at=str(found["location"]).rstrip("/"),
        rows=int(head.get("summary", {}).get("total-records", 0)),
        snapshots=len(snapshots),
        replaces=current,
    )


def _read_metadata(home: Home, uri: str) -> dict[str, Any]:
    try:
        with home.open_storage(uri).new_input(uri).open() as file:
            found: dict[str, Any] = json.loads(file.read())
    except (FileNotFoundError, ValueError) as error:
        raise HomeMismatchError(
            f"{uri} is not there or damaged ({type(error).__name__}). Nothing was changed. Copy the whole warehouse "
            "again; where this file alone is lost, delete the table from the catalog and run `flywheel adopt`."
        ) from error
    return found


def _rewrite_table(home: Home, planned: Registration) -> str:
    """Write a table's metadata, manifest lists and manifests for its place; return the metadata file's URI."""
    metadata = _read_metadata(home, planned.metadata)
    move = _Move(home.open_storage(planned.location), planned.written_at, planned.location)
    for snapshot in metadata.get("snapshots", []):
        snapshot["manifest-list"] = move.rewrite_list(snapshot["manifest-list"])
    move.refuse_missing_files()
    if planned.written_at == planned.location:
        return planned.metadata
    metadata["location"] = planned.location
    # The log names files of the old place, which the next commit would delete.
    metadata["metadata-log"] = []
    for name in ("statistics", "partition-statistics"):
        for each in metadata.get(name, []):
            each["statistics-path"] = move.translate(each["statistics-path"])
    number = (read_number(planned.metadata) or 0) + 1
    target = f"{planned.location}/metadata/{number:05d}-{uuid.uuid4()}.metadata.json"
    with move.storage.new_output(target).create() as file:
        file.write(json.dumps(metadata).encode())
    return target


class _Move:
    """Rewrites the Avro files of one table, each once, and collects the data files that they name."""

    def __init__(self, storage: "FileIO", old: str, new: str) -> None:
        self.storage, self._old, self._new = storage, old, new
        self._manifests: dict[str, tuple[str, int]] = {}
        self._data_files: set[str] = set()

    def translate(self, uri: str) -> str:
        """Return a file's URI in the table's new folder."""
        if not uri.startswith(f"{self._old}/"):
            raise HomeMismatchError(
                f"{uri} lies outside its table's folder {self._old}: this table cannot be moved by rewriting its "
                "paths. Nothing was changed. Copy its rows into a new table."
            )
        return f"{self._new}{uri.removeprefix(self._old)}"

    def rewrite_list(self, uri: str) -> str:
        """Rewrite a manifest list and its manifests; return its new URI, the same where nothing has moved."""
        schema, meta, rows = self._read(uri)
        path, length = _find_position(schema, _MANIFEST_PATH), _find_position(schema, _MANIFEST_LENGTH)
        for row in rows:
            if row[path] not in self._manifests:
                self._manifests[row[path]] = self._rewrite_manifest(row[path])
            row[path], row[length] = self._manifests[row[path]]
        return uri if self._old == self._new else self._write(uri, "manifest_file", schema, meta, rows)[0]

    def _rewrite_manifest(self, uri: str) -> tuple[str, int]:
        schema, meta, rows = self._read(uri)
        at = _find_position(schema, _DATA_FILE)
        struct: Any = schema.fields[at].field_type
        path, other = _find_position(struct, _FILE_PATH), _find_position(struct, _REFERENCED)
        for row in rows:
            file = row[at]
            file[path] = self.translate(file[path])
            if other is not None and file[other] is not None:
                file[other] = self.translate(file[other])
            if row[0] != _DELETED:
                self._data_files.add(file[path])
        if self._old == self._new:
            return uri, len(self.storage.new_input(uri))
        return self._write(uri, "manifest_entry", schema, meta, rows)

    def refuse_missing_files(self) -> None:
        """Refuse where a data file that a snapshot needs is not in the new folder.

        Raises:
            HomeMismatchError: files are missing.
        """
        missing = sorted(uri for uri in self._data_files if not self.storage.new_input(uri).exists())
        if missing:
            raise HomeMismatchError(
                f"{len(missing)} of {len(self._data_files)} data files are missing, first {missing[0]}. The catalog "
                "was not changed. Copy the warehouse again, whole; a copy made while commits ran may lack files."
            )

    def _read(self, uri: str) -> tuple[Any, Mapping[str, str], list[Any]]:
        from pyiceberg.avro.file import AvroFile

        here = self.translate(uri)
        try:
            opened: AvroFile[Any] = AvroFile(self.storage.new_input(here))
            with opened as file:
                rows = list(file)
                return file.schema, file.header.meta, rows
        except FileNotFoundError as error:
            raise HomeMismatchError(
                f"{here} is missing, which a snapshot needs. The catalog was not changed. Copy the warehouse again, "
                "whole."
            ) from error

    def _write(self, uri: str, name: str, schema: Any, meta: Mapping[str, str], rows: list[Any]) -> tuple[str, int]:
        from pyiceberg.avro.file import AvroOutputFile

        folder, _, base = self.translate(uri).rpartition("/")
        target = f"{folder}/moved-{uuid.uuid4().hex[:12]}-{base}"
        kept = {key: value for key, value in meta.items() if not key.startswith("avro.")}
        output = self.storage.new_output(target)
        with AvroOutputFile[Any](output, schema, name, metadata=kept) as file:
            file.write_block(rows)
        return target, len(output)


_DELETED = 2
"""Status of a manifest's entry for a file that its snapshot has removed."""


def _find_position(struct: Any, field_id: int) -> Any:
    fields = [field.field_id for field in struct.fields]
    return fields.index(field_id) if field_id in fields else None


def _change_catalog(home: Home, planned: Sequence[Registration], placed: Mapping[str, str]) -> None:
    """Point the catalog at the new metadata files, all of them or none."""
    from pyiceberg.catalog.sql import IcebergTables as Tables
    from sqlalchemy import insert, update
    from sqlalchemy.orm import Session

    with Session(home.catalog.engine) as session:
        for each in planned:
            values = {"metadata_location": placed[each.name], "previous_metadata_location": None}
            where = {"catalog_name": home.catalog.name, "table_namespace": home.application, "table_name": each.name}
            if each.replaces is None:
                # The catalog's own row: it knows whether this catalog, by its age, has a column for the type.
                row = home.catalog._create_table_row(home.application, each.name, placed[each.name])
                session.execute(insert(Tables).values(**row))
                continue
            changed = session.execute(
                update(Tables).filter_by(**where, metadata_location=each.replaces).values(**values)
            )
            if getattr(changed, "rowcount", 1) != 1:
                raise HomeMismatchError(
                    f"{home.application}.{each.name} was changed meanwhile; the catalog is as it was. Stop what works "
                    "on this home, then repeat."
                )
        session.commit()
