"""Knows which home a catalog and a warehouse belong to, and refuses changes where they contradict each other.

Iceberg's files name each other by absolute paths. So a copied home (`cp -a`) had a catalog that pointed into the
original's warehouse: its weekly maintenance deleted 50 files of the original. A new catalog over an old warehouse began
from nothing, and the maintenance then deleted what could still have been registered. See docs/adr/0047.

A home has an id in four places: `home.json` in the home, a property of each namespace in the catalog, `_HOME.json` in
the warehouse and in the landing zone (`lake.landing`). The first change of a home without an id makes it, unless
something contradicts. A part that was lost gets the id of the others again.

One check takes two queries, two small files and no lock. A `Lake` makes it before its first change, and every sweep
makes it again.
"""

import re
import secrets
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from flywheel_assets import __version__
from flywheel_assets.errors import HomeMismatchError
from flywheel_assets.lake.storage.files import replace_file
from flywheel_assets.lake.storage.schema_versions import decode_versioned

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo
    from pyiceberg.catalog.sql import SqlCatalog

HOME_FILE = "home.json"
MARKER_FILE = "_HOME.json"
"""File in the root of the warehouse."""
RESTORING_FILE = "restoring.json"
"""File in a home that is being restored; `lake.upkeep.backup` writes it first and deletes it last."""
ID_PROPERTY = "flywheel.home-id"
_FILE_URI = re.compile(r"^file:(//)?(?=/)")
_METADATA_FILE = re.compile(r"(?:^|/)(\d+)-[^/]+\.metadata\.json$")


class Marker(msgspec.Struct, frozen=True, kw_only=True):
    """The content of `home.json` and of a warehouse's `_HOME.json`."""

    id: str
    catalog: str | None = None
    """Of a warehouse: the catalog that owns it, without host and password."""
    server: str | None = None
    """Of a warehouse: the cluster and the number of the database, where the catalog is a Postgres that shows them."""
    release: str | None = None
    """Of this package, that wrote it or upgraded the home; None: before 0.1.0."""
    schema_version: int = 1
    """Of the home as a whole: what lies where, and what its parts must have. See `lake.storage.schema_versions`."""


@dataclass(frozen=True)
class Home:
    """One application's view of its home: the folder, the catalog's namespace and the warehouse."""

    folder: Path
    catalog: "SqlCatalog"
    application: str
    catalog_uri: str
    warehouse: str

    @property
    def root(self) -> str:
        """Return the warehouse's URI without a slash at its end."""
        return self.warehouse.rstrip("/")

    @property
    def catalog_name(self) -> str:
        """Name the catalog by what stays when a host or a password changes."""
        from sqlalchemy.engine import make_url

        url = make_url(self.catalog_uri)
        return f"{url.get_backend_name()}:{url.database}"

    @cached_property
    def server(self) -> str | None:
        """Number a Postgres cluster and the database in it, which a restored dump does not share.

        None: the catalog is no Postgres, or this account may not ask. A standby that takes over keeps both numbers.
        """
        from sqlalchemy import text
        from sqlalchemy.exc import DBAPIError

        if self.catalog.engine.dialect.name != "postgresql":
            return None
        query = "SELECT system_identifier, oid FROM pg_control_system(), pg_database WHERE datname = current_database()"
        try:
            with self.catalog.engine.connect() as connection:
                row = connection.execute(text(query)).one()
        except DBAPIError as error:
            if "permission denied" in str(error):
                return None
            raise
        return f"{row[0]}/{row[1]}"

    def verify(self, lock: AbstractContextManager[None], *, sweeps: bool = False) -> str:
        """Check that home, catalog and warehouse belong together, and write the id where it is missing; return it.

        Args:
            lock: is held while a missing id is written.
            sweeps: look for unknown tables, too, although the catalog has an id.

        Raises:
            HomeMismatchError: they contradict each other; nothing was changed.
        """
        found = self.read_ids(sweeps=sweeps)
        if len(found) == 3:
            if sweeps:
                self._note_server(lock)
            return found["the home"]
        with lock:
            found = self.read_ids(sweeps=sweeps)
            return self.write_id(next(iter(found.values()), None) or secrets.token_hex(8), found)

    def read_ids(self, *, sweeps: bool) -> dict[str, str]:
        """Read the ids by place, and write none.

        Raises:
            HomeMismatchError: parts contradict each other, or one cannot be read.
        """
        if (self.folder / RESTORING_FILE).exists():
            raise HomeMismatchError(
                f"{self.folder} is being restored, or its restore was interrupted: parts of it may be missing. Nothing "
                "was changed. Give the same `flywheel restore` again; it goes on where it stopped."
            )
        locations, in_catalog = self.read_catalog()
        foreign = [name for name, uri in locations.items() if not _is_below(uri, self.root)]
        if foreign:
            name = foreign[0]
            raise HomeMismatchError(
                f"the catalog {self.catalog_name} has the table {self.application}.{name} at {locations[name]}, and "
                f"this home's warehouse is {self.warehouse}: the home was copied or moved. Nothing was changed. To "
                "make this place a home of its own, run `flywheel move`; to work on the other one, set FLYWHEEL_HOME "
                "to it (or FLYWHEEL_WAREHOUSE, if that alone differs)."
            )
        marker = self.read_marker()
        if marker is not None and marker.catalog != self.catalog_name:
            raise HomeMismatchError(
                f"the warehouse {self.warehouse} belongs to the catalog {marker.catalog}, and this home's catalog is "
                f"{self.catalog_name}: two catalogs over one warehouse delete each other's files. Nothing was changed. "
                "Set FLYWHEEL_HOME or FLYWHEEL_CATALOG_URI to that catalog; where this one shall own the warehouse "
                "from now on, run `flywheel move`, or `flywheel adopt` if its tables are not in it."
            )
        if marker is not None and marker.server is not None and self.server not in (None, marker.server):
            raise HomeMismatchError(
                f"the warehouse {self.warehouse} belongs to the database {marker.catalog} with the number "
                f"{marker.server}, and this one of the same name has {self.server}: it is a copy, for instance a "
                "restored dump, and two catalogs over one warehouse delete each other's files. Nothing was changed. "
                "Use the other one; where it is gone for ever, run `flywheel move` to make this one the owner."
            )
        if marker is None and locations and not self._exists(next(iter(locations.values()))):
            raise HomeMismatchError(
                f"the catalog {self.catalog_name} has {len(locations)} tables in {self.warehouse}, and their files are "
                "not there. Nothing was changed. Mount or restore the warehouse, then repeat."
            )
        kept = read_home_file(self.folder)
        found = {
            "the home": kept.id if kept else None,
            "the catalog": in_catalog,
            "the warehouse": marker.id if marker else None,
        }
        ids = {place: each for place, each in found.items() if each is not None}
        if len(set(ids.values())) > 1:
            listed = ", ".join(f"{place} {each}" for place, each in ids.items())
            raise HomeMismatchError(
                f"parts of different homes: {listed} (home {self.folder}, catalog {self.catalog_name}, warehouse "
                f"{self.warehouse}). Nothing was changed. Set FLYWHEEL_HOME, FLYWHEEL_CATALOG_URI and "
                "FLYWHEEL_WAREHOUSE to parts of one home; where these shall be one from now on, run `flywheel move`."
            )
        if in_catalog is None or sweeps:
            self.refuse_unknown(set(locations))
        return ids

    def refuse_unknown(self, known: set[str]) -> None:
        """Refuse where the warehouse has tables of this application that the catalog does not know.

        Raises:
            HomeMismatchError: it has some.
        """
        unknown = [name for name in self.list_folders() if name not in known and self.was_changed(name)]
        if unknown:
            raise HomeMismatchError(
                f"the warehouse {self.warehouse} has tables that the catalog {self.catalog_name} does not know: "
                f"{', '.join(f'{self.application}.{name}' for name in unknown)}. The catalog was lost or is older. "
                "Nothing was changed. Put the catalog back where you have it; else register them with `flywheel adopt`."
            )

    def refuse_newer(self, name: str, location: str, listed: "Mapping[str, object]") -> None:
        """Refuse where a table's folder has metadata that the catalog must have reached after its own.

        A killed commit leaves one file with the next number. The number after that exists only if the catalog had it.

        Args:
            name: the table.
            location: its metadata file, by the catalog.
            listed: the paths of all files in its folder.

        Raises:
            HomeMismatchError: the catalog is older than the warehouse.
        """
        newest = max((number for path in listed if (number := read_number(path)) is not None), default=0)
        if newest > (read_number(location) or 0) + 1:
            raise HomeMismatchError(
                f"the catalog {self.catalog_name} has the table {self.application}.{name} at its change "
                f"{read_number(location)}, and the warehouse has change {newest}: the catalog is an older copy, and "
                "the newer files would be deleted. Nothing was changed. Put the newest catalog back; else run "
                "`flywheel adopt`."
            )

    def read_catalog(self) -> tuple[dict[str, str], str | None]:
        """Read the location of every table's metadata by name, and the home id of the namespace."""
        from pyiceberg.catalog.sql import IcebergNamespaceProperties as Properties
        from pyiceberg.catalog.sql import IcebergTables as Tables
        from sqlalchemy import select
        from sqlalchemy.orm import Session

        name = self.catalog.name
        tables = select(Tables.table_name, Tables.metadata_location).where(
            Tables.catalog_name == name, Tables.table_namespace == self.application
        )
        ids = select(Properties.property_value).where(
            Properties.catalog_name == name,
            Properties.namespace == self.application,
            Properties.property_key == ID_PROPERTY,
        )
        with Session(self.catalog.engine) as session:
            locations = {str(row[0]): str(row[1]) for row in session.execute(tables)}
            found = session.execute(ids).first()
        return locations, None if found is None else str(found[0])

    def write_id(self, home_id: str, there: Mapping[str, str]) -> str:
        """Write the id to every place that is not among `there`; return it."""
        if "the warehouse" not in there:
            marker = Marker(id=home_id, catalog=self.catalog_name, server=self.server, release=__version__)
            self._write(f"{self.root}/{MARKER_FILE}", msgspec.json.encode(marker))
        if "the home" not in there:
            replace_file(self.folder / HOME_FILE, msgspec.json.encode(Marker(id=home_id, release=__version__)))
        if "the catalog" not in there:
            self.catalog.update_namespace_properties(self.application, updates={ID_PROPERTY: home_id})
        return home_id

    def mark_release(self, home_id: str, lock: AbstractContextManager[None]) -> None:
        """Name this release in the markers of home and warehouse, under the lock of the home's id."""
        with lock:
            self.write_id(home_id, {"the catalog": home_id})

    def _note_server(self, lock: AbstractContextManager[None]) -> None:
        """Add the Postgres' number to a marker of a release that did not note it."""
        marker = self.read_marker() if self.server is not None else None
        if marker is not None and marker.server is None:
            with lock:
                self.write_id(marker.id, {"the home": marker.id, "the catalog": marker.id})

    def find_id(self) -> str | None:
        """Find the id by the home's own file, else by the warehouse; None: it has none yet."""
        marker = read_home_file(self.folder) or self.read_marker()
        return marker.id if marker else None

    def read_marker(self) -> Marker | None:
        """Read the warehouse's marker; None where it has none."""
        uri = f"{self.root}/{MARKER_FILE}"
        try:
            # One request where the file exists: asking for its existence first would be another one on S3.
            with self.open_storage(uri).new_input(uri).open() as file:
                content = file.read()
        except FileNotFoundError:
            return None
        return _decode(content, str(find_local_path(uri) or uri))

    def list_folders(self) -> list[str]:
        """List the folders of this application's tables in the warehouse."""
        from pyarrow.fs import FileType

        return sorted(each.base_name for each in self.list_files(self.application) if each.type == FileType.Directory)

    def was_changed(self, name: str) -> bool:
        """Return whether a table's folder has metadata of a change; a killed creation leaves only number 0."""
        return any(read_number(each.path) for each in self.list_files(f"{self.application}/{name}/metadata"))

    def list_files(self, below: str) -> "list[FileInfo]":
        """List a folder of the warehouse; nothing where it does not exist."""
        from pyarrow.fs import FileSelector
        from pyiceberg.io.pyarrow import PyArrowFileIO

        uri = f"{self.root}/{below}".rstrip("/")
        storage = self.open_storage(uri)
        scheme, host, path = PyArrowFileIO.parse_location(uri)
        found: list[FileInfo] = storage.fs_by_scheme(scheme, host).get_file_info(
            FileSelector(path, recursive=False, allow_not_found=True)
        )
        return found

    def _exists(self, uri: str) -> bool:
        return bool(self.open_storage(uri).new_input(uri).exists())

    def _write(self, uri: str, content: bytes) -> None:
        local = find_local_path(uri)
        if local is not None:
            replace_file(local, content)
            return
        with self.open_storage(uri).new_output(uri).create(overwrite=True) as file:
            file.write(content)

    def open_storage(self, uri: str) -> Any:
        """Open pyiceberg's access to the files at a URI."""
        from pyiceberg.io import load_file_io

        return load_file_io(self.catalog.properties, uri)


def refuse_newer_home(folder: Path) -> None:
    """Refuse a home that a newer release made or upgraded; a damaged marker is for the next change to refuse.

    Raises:
        NewerReleaseError: one did.
    """
    with suppress(HomeMismatchError):
        read_home_file(folder)


def read_home_file(folder: Path) -> Marker | None:
    """Read the home's own marker; None where there is none yet.

    Raises:
        NewerReleaseError: a newer release made or upgraded this home.
        HomeMismatchError: the file is damaged.
    """
    path = folder / HOME_FILE
    return _decode(path.read_bytes(), str(path)) if path.exists() else None


def read_number(path: str) -> int | None:
    """Read the number of a table's change from the name of its metadata file; None for other files."""
    found = _METADATA_FILE.search(path)
    return int(found[1]) if found else None


def find_local_path(uri: str) -> Path | None:
    """Find the path of a URI on this machine; None where it lies elsewhere."""
    if "://" not in uri or uri.startswith("file:"):
        return Path(_FILE_URI.sub("", uri))
    return None


def _is_below(uri: str, root: str) -> bool:
    return _FILE_URI.sub("", uri).startswith(f"{_FILE_URI.sub('', root)}/")


def _decode(content: bytes, where: str) -> Marker:
    try:
        return decode_versioned(content, Marker, where)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise HomeMismatchError(
            f"{where} is damaged ({type(error).__name__}), and it names the home that these files belong to. Nothing "
            "was changed. Delete it: it is written again from the home's other parts."
        ) from error
