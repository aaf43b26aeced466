"""Creates the Iceberg tables of one application, replaces their partitions, and reads them.

Every daily asset *replaces* its partitions, also with zero rows, in one commit: materializing twice gives the same
table. Rows arrive as Parquet files written by DuckDB and are swapped in by `delete` + `add_files` in one transaction:
1 M rows of 2 KB take 13 s and 0.6 GB that way, `overwrite(pa.Table)` took 89 s and 6 GB. See `lake.storage.commits` for
how a commit is serialised and retried.
"""

import logging
import shutil
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cached_property, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from flywheel_assets.curation.sql_literals import quote
from flywheel_assets.errors import (
    CommitContentionError,
    FlywheelError,
    PartitionChangedError,
    PartitionMismatchError,
)
from flywheel_assets.lake.storage.commits import COMMIT_KEY, hold_lock, retry_commit, was_committed
from flywheel_assets.lake.storage.duckdb_engine import connect, write_parquet
from flywheel_assets.lake.storage.failures import translate_disk_full, translate_outages
from flywheel_assets.lake.tables.home import Home, find_local_path, refuse_newer_home
from flywheel_assets.lake.tables.probing import find_damage
from flywheel_assets.lake.tables.specs import PlannedFile, TableSpec, list_columns, make_nullable

if TYPE_CHECKING:
    from pyiceberg.catalog.sql import SqlCatalog
    from pyiceberg.expressions import BooleanExpression
    from pyiceberg.table import Table

_DEADLINE_S = 120.0
_LOCK_TIMEOUT_S = 120.0
_STEPS_TIMEOUT_S = 600.0
"""A daily step takes a minute for a million rows; a range of days or an erasure takes several."""


_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def _name_damaged_files(
    method: Callable[Concatenate["Lake", _Arguments], _Result],
) -> Callable[Concatenate["Lake", _Arguments], _Result]:
    """Decorate a method that reads a table, so that its error names the table's damaged files.

    Raises:
        DamagedFileError: instead of a library's error; the message names table, file and way back.
    """

    @wraps(method)
    def wrapper(lake: "Lake", /, *arguments: _Arguments.args, **keywords: _Arguments.kwargs) -> _Result:
        try:
            return method(lake, *arguments, **keywords)
        except FlywheelError:
            raise
        except Exception as error:
            spec = next(each for each in (*arguments, *keywords.values()) if isinstance(each, TableSpec))
            # A busy catalog is no damaged file, and could not be asked for one.
            damage = None if type(error).__module__.startswith("sqlalchemy") else find_damage(lake.home, [spec.name])
            if damage is None:
                raise
            raise damage from error

    return wrapper


@dataclass(frozen=True)
class Lake:
    """The tables of one application (one Iceberg namespace) and the folders that belong to them."""

    application: str
    catalog_uri: str
    warehouse: str
    scratch: Path = field(repr=False)
    """Local folder for locks, files under construction and DuckDB's spill."""
    erasure_key: str | None = field(default=None, repr=False)
    """Secret of the keyed hashes that erasures leave; None: a file next to `scratch` that the first erasure makes."""

    storage: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Settings of a storage that is not this machine, by pyiceberg's names, for instance `s3.endpoint`."""

    @cached_property
    def catalog(self) -> "SqlCatalog":
        """Open the catalog and create its namespace, at the first use.

        Raises:
            NewerReleaseError: a newer release made or upgraded this home.
        """
        from flywheel_assets.lake.tables.iceberg import open_catalog

        refuse_newer_home(self.scratch.parent)
        self.scratch.mkdir(parents=True, exist_ok=True)
        if self._catalog_file is not None:
            self._catalog_file.parent.mkdir(parents=True, exist_ok=True)
        # pyiceberg logs the retries of every commit; only our own retries matter.
        logging.getLogger("pyiceberg").setLevel(logging.ERROR)
        with self._lock(f"{self.application}.catalog", _LOCK_TIMEOUT_S), translate_outages():
            return open_catalog(self.catalog_uri, self.warehouse, self.application, self.storage)

    @property
    def is_begun(self) -> bool:
        """There is a catalog to ask; opening one that is a file would create it."""
        return self._catalog_file is None or self._catalog_file.exists()

    @_name_damaged_files
    @translate_outages()
    def load_table(self, spec: TableSpec) -> "Table":
        """Load the table with its current metadata; create it on first use.

        A table of an earlier release gets the columns that it lacks. That commit takes no lock: the caller may hold the
        table's, and the catalog refuses a commit on metadata that have changed. Every method that reads or writes a
        table raises these two errors.

        Raises:
            CatalogUnavailableError: the catalog's Postgres does not answer.
            StorageUnavailableError: the warehouse's S3 does not answer.
            DamagedFileError: a file that the table needs is gone or cannot be read.
        """
        from flywheel_assets.lake.tables.iceberg import RETRYABLE, find_missing_columns, load_or_create_table

        with self._explain_missing_files():
            table = load_or_create_table(self.catalog, self.application, spec, lambda: self._verify_new_table(spec))
        if find_missing_columns(table, spec):
            self.home_id  # noqa: B018  # verifies the home before a change
            return retry_commit(lambda: self._grow(spec), RETRYABLE, self._build_full_name(spec), _DEADLINE_S)
        return table

    def _grow(self, spec: TableSpec) -> "Table":
        from flywheel_assets.lake.tables.iceberg import add_missing_columns

        table = self.catalog.load_table((self.application, spec.name))
        add_missing_columns(table, spec)
        return table

    @cached_property
    def home_id(self) -> str:
        """Return the home's id; the first access checks that all parts belong to one home, see `verify_home`."""
        return self.verify_home()

    @cached_property
    def home(self) -> Home:
        """Return the home by its parts, without a check."""
        return Home(self.scratch.parent, self.catalog, self.application, self.catalog_uri, self.warehouse)

    @translate_outages()
    def verify_home(self, *, sweeps: bool = False) -> str:
        """Check that home, catalog and warehouse belong together; return the home's id.

        Every commit has called it once for this object, and every sweep calls it with `sweeps`.

        Raises:
            HomeMismatchError: they contradict each other, or the warehouse has tables unknown to the catalog.
        """
        return self.home.verify(self.lock_home(), sweeps=sweeps)

    def lock_home(self) -> AbstractContextManager[None]:
        """Lock the home's id."""
        return self._lock("home", _LOCK_TIMEOUT_S)

    @contextmanager
    def _explain_missing_files(self) -> Iterator[None]:
        """Check the home where a table's metadata file is missing: of a moved home none is where the catalog says."""
        try:
            yield
        except FileNotFoundError:
            self.verify_home()
            raise

    def _verify_new_table(self, spec: TableSpec) -> None:
        """Check before a table is created that its folder holds no table that the catalog has lost."""
        self.home_id  # noqa: B018  # verifies the home before a change
        if self.home.was_changed(spec.name):
            self.home.refuse_unknown(set(self.home.read_catalog()[0]))

    @_name_damaged_files
    @translate_outages()
    def has_table(self, spec: TableSpec) -> bool:
        """Return whether the table was created already; asking does not create it."""
        with self._explain_missing_files():
            return self.catalog.table_exists((self.application, spec.name))

    @_name_damaged_files
    def commit(self, spec: TableSpec, change: "Callable[[Table], None]", key: str | None = None) -> "Table":
        """Apply `change` to the freshly loaded table under its lock, with retries; return the changed table.

        Args:
            spec: the table.
            change: changes the table as a whole or not at all; it may be called several times.
            key: the `COMMIT_KEY` that `change` stamps into its snapshots; where it is found nothing is repeated.

        Raises:
            CommitContentionError: the lock or the catalog stayed busy past the deadline.
            CatalogUnavailableError: the catalog's Postgres did not answer until the deadline.
            StorageUnavailableError: the warehouse's S3 did not answer until the deadline.
            LockLostError: a lock of the caller is lost, or the table's own was lost until the deadline.
        """
        from flywheel_assets.lake.tables.iceberg import RETRYABLE

        return retry_commit(
            lambda: self._commit_once(spec, change, key), RETRYABLE, self._build_full_name(spec), _DEADLINE_S
        )

    def _commit_once(self, spec: TableSpec, change: "Callable[[Table], None]", key: str | None) -> "Table":
        from flywheel_assets.lake.tables.iceberg import forget_old_snapshots

        # A catalog on a full disk answers like a busy one: retries would hide the cause for two minutes.
        with self.lock_table(spec), translate_disk_full(*self.places), translate_outages():
            self.home_id  # noqa: B018  # verifies the home before a change
            table = self.load_table(spec)
            if key is not None and was_committed(table, key):
                return table
            forget_old_snapshots(table)
            with warnings.catch_warnings():
                # Clearing an empty day is ordinary here.
                warnings.filterwarnings("ignore", message="Delete operation did not match any records")
                # The sweep finds files that stay because S3 stopped answering just then.
                warnings.filterwarnings("ignore", message="Failed to delete old metadata after commit")
                change(table)
            return table

    def lock_table(self, spec: TableSpec) -> AbstractContextManager[None]:
        """Lock the table for a commit; every change of the table happens under this lock."""
        return self._lock(self._build_full_name(spec), _LOCK_TIMEOUT_S)

    def lock_versions(self) -> AbstractContextManager[None]:
        """Lock the versions: one cut, rewrite or rollback at a time for each application."""
        return self._lock(f"{self.application}.versions", _LOCK_TIMEOUT_S)

    @contextmanager
    def share_daily_steps(self) -> Iterator[None]:
        """Share the daily steps' lock with other steps; see `lake.daily.daily_steps`."""
        door, steps = self._build_step_locks(is_shared=True)
        with ExitStack() as stack:
            # A writer that waits to be alone keeps the door locked: otherwise overlapping steps would never let it in.
            with door:
                stack.enter_context(steps)
            yield

    @contextmanager
    def pause_daily_steps(self) -> Iterator[None]:
        """Take the daily steps' lock alone, to rewrite days of daily steps and their accounts."""
        door, steps = self._build_step_locks(is_shared=False)
        with door, steps:
            yield

    def _build_step_locks(
        self, *, is_shared: bool
    ) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        name = f"{self.application}.daily_steps"
        return self._lock(f"{name}.door", _STEPS_TIMEOUT_S), self._lock(name, _STEPS_TIMEOUT_S, is_shared=is_shared)

    @property
    def places(self) -> list[Path]:
        """Return the folders of this machine that steps write to."""
        return [
            self.scratch,
            *(path for path in (find_local_path(self.warehouse), self._catalog_file) if path is not None),
        ]

    @property
    def _catalog_file(self) -> Path | None:
        is_sqlite = self.catalog_uri.startswith("sqlite:///")
        return Path(self.catalog_uri.removeprefix("sqlite:///").split("?")[0]) if is_sqlite else None

    def _build_full_name(self, spec: TableSpec) -> str:
        return f"{self.application}.{spec.name}"

    def _lock(self, name: str, timeout_s: float, *, is_shared: bool = False) -> AbstractContextManager[None]:
        return hold_lock(self.catalog_uri, self.scratch / "locks", name, timeout_s, is_shared=is_shared)

    def replace_days(
        self,
        spec: TableSpec,
        days: Sequence[date],
        files: Mapping[date, Path],
        properties: Mapping[str, str],
        stage: str | None = None,
        seen: frozenset[str] | None = None,
    ) -> None:
        """Replace the partitions `days` (of `stage`, if the table has stages) by `files`, in one commit.

        Args:
            spec: the table.
            days: every partition to replace; a day without a file becomes empty.
            files: local Parquet files, at most one a day; they are moved or uploaded to the table's location.
            properties: recorded in the snapshot's summary.
            stage: which stage's rows to replace.
            seen: the result of `list_files` from before the rows for `files` were read: a rewrite must not undo what
                another writer has written since.

        Raises:
            PartitionMismatchError: a file contains rows of another day than its own.
            PartitionChangedError: the partitions are no longer those that were seen; nothing was changed.
            CommitContentionError: see `commit`.
        """
        for day, path in files.items():
            _assert_rows_belong(path, spec, day, stage)
        where = _filter_partitions(spec, days, stage)

        if not files and self.load_table(spec).current_snapshot() is None:
            return

        from flywheel_assets.lake.tables.iceberg import swap_files

        # Neighbours in time share a manifest: a scan of some days then opens few manifests.
        in_order = [files[day] for day in sorted(files)]
        placed: list[str] = []
        key = uuid.uuid4().hex
        stamped = {**properties, COMMIT_KEY: key}

        def swap(table: "Table") -> None:
            if seen is not None and _list_files(table, where) != seen:
                raise PartitionChangedError(f"{spec.name}: {min(days)} … {max(days)} changed meanwhile")
            placed.extend(self.place(table, path) for path in in_order[len(placed) :])
            with translate_swept_files(spec):
                swap_files(table, where, placed, stamped)

        self.commit(spec, swap, key)

    def replace_all(
        self, spec: TableSpec, merge: Callable[[pa.Table], pa.Table], properties: Mapping[str, str]
    ) -> None:
        """Rewrite a small unpartitioned table as `merge(its rows)`, read and written under one lock."""
        from flywheel_assets.lake.tables.iceberg import TransactionOnce

        key = uuid.uuid4().hex

        def rewrite(table: "Table") -> None:
            names = tuple(spec.schema.names)
            there = table.scan(selected_fields=names).to_arrow().select(list(names))
            rows = merge(there.cast(make_nullable(spec.schema))).cast(make_nullable(spec.schema))
            with TransactionOnce(table) as transaction:
                transaction.overwrite(rows, snapshot_properties={**properties, COMMIT_KEY: key})

        self.commit(spec, rewrite, key)

    def append(self, spec: TableSpec, rows: pa.Table, key: str, properties: Mapping[str, str]) -> None:
        """Append rows to an audit table, once per `key`: a call repeated after a crash finds the rows there."""
        from flywheel_assets.lake.tables.iceberg import TransactionOnce

        def add(table: "Table") -> None:
            with TransactionOnce(table) as transaction:
                transaction.append(rows.cast(make_nullable(spec.schema)), {**properties, COMMIT_KEY: key})

        self.commit(spec, add, key)

    def place(self, table: "Table", path: Path) -> str:
        """Move a finished local file to the table's location under its final, unique name; return its URI."""
        target = f"{table.location()}/data/{path.stem}-{uuid.uuid4().hex}.parquet"
        local = find_local_path(target)
        if local is not None:
            local.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(path, local)
            return target
        with open(path, "rb") as source, table.io.new_output(target).create() as sink:
            shutil.copyfileobj(source, sink)
        path.unlink()
        return target

    @_name_damaged_files
    @translate_outages()
    def list_files(self, spec: TableSpec, days: Sequence[date], stage: str | None = None) -> frozenset[str]:
        """List the current data files of partitions, for `replace_days`."""
        return _list_files(self.load_table(spec), _filter_partitions(spec, days, stage))

    def filter_partitions(self, spec: TableSpec, days: Sequence[date]) -> "BooleanExpression":
        """Build Iceberg's row filter for whole partitions."""
        return _filter_partitions(spec, days)

    def make_file_path(self, spec: TableSpec, day: date) -> Path:
        """Make a new local path for one partition's file under construction."""
        return self.scratch / "building" / f"{spec.name}-{day.isoformat()}-{uuid.uuid4().hex}.parquet"

    def connect(self, keeps_order: bool = False) -> duckdb.DuckDBPyConnection:
        """Open a DuckDB connection that spills into this lake's scratch folder; see `duckdb_engine.connect`."""
        self.scratch.mkdir(parents=True, exist_ok=True)
        return connect(self.scratch / "spill", keeps_order)

    def write_day(self, connection: duckdb.DuckDBPyConnection, spec: TableSpec, day: date, query: str) -> Path | None:
        """Write the rows of `query` (all columns of `spec`, one day) to a new local file; None for no rows."""
        path = self.make_file_path(spec, day)
        ordered = f"SELECT {list_columns(spec.schema)} FROM ({query}) ORDER BY {', '.join(spec.order_by)}"
        rows = write_parquet(connection, ordered, path, spec.row_group_rows)
        return path if rows else None

    def write_rows(
        self, connection: duckdb.DuckDBPyConnection, spec: TableSpec, day: date, rows: pa.Table
    ) -> Path | None:
        """Write rows in memory as `write_day` does; without rows it runs no statement, which takes 2 ms of CPU."""
        if not rows.num_rows:
            return None
        connection.register("rows_of_a_day", rows)
        return self.write_day(connection, spec, day, "SELECT * FROM rows_of_a_day")

    @_name_damaged_files
    @translate_outages()
    def register(
        self,
        connection: duckdb.DuckDBPyConnection,
        spec: TableSpec,
        days: Iterable[date] | None = None,
        columns: Sequence[str] | None = None,
        view: str | None = None,
        snapshot_id: int | None = None,
        planned: Mapping[date, Sequence[PlannedFile]] | None = None,
    ) -> None:
        """Register partitions of a table as a lazy view of `connection`.

        On local disk DuckDB reads the Parquet files itself, about twice as fast as through Arrow. This is correct only
        because partition replace leaves neither delete files nor rewritten rows.

        Args:
            connection: gets the view.
            spec: the table.
            days: which partitions; None: all.
            columns: which columns; None: all.
            view: its name; None: the table's.
            snapshot_id: as of which snapshot; None: the head.
            planned: the result of `plan_days` for (at least) `days`, so that the table need not be loaded again.
        """
        view = view or spec.name
        wanted = None if days is None else list(days)
        names = list(columns or spec.schema.names)
        # An earlier call may have made a view: DuckDB's `register` replaces only what `register` made.
        connection.execute(f"DROP VIEW IF EXISTS {view}")
        if planned is not None and wanted is not None:
            files = [file for day in wanted for file in planned.get(day, ())]
            local = _find_local_paths(file.uri for file in files)
            if local is not None:
                _create_view(connection, spec, view, names, local, all(file.is_complete for file in files))
                return
        table = self.load_table(spec)
        if (snapshot_id is None and table.current_snapshot() is None) or wanted == []:
            connection.register(view, spec.schema.empty_table().select(names))
            return
        from flywheel_assets.lake.tables.iceberg import EVERY_ROW, has_every_column

        where = EVERY_ROW if wanted is None else _filter_partitions(spec, wanted)
        scan = table.scan(row_filter=where, snapshot_id=snapshot_id)
        found = [task.file for task in scan.plan_files()]
        local = _find_local_paths(file.file_path for file in found)
        if local is not None:
            _create_view(
                connection, spec, view, names, local, all(has_every_column(file, table, spec) for file in found)
            )
        else:
            # A snapshot has the columns of its own time.
            there = set(scan.projection().column_names)
            rows = scan.select(*(name for name in names if name in there)).to_arrow()
            connection.register(view, add_absent_columns(rows, spec, names))

    @_name_damaged_files
    @translate_outages()
    def plan_days(self, spec: TableSpec, days: Sequence[date]) -> dict[date, list[PlannedFile]]:
        """Plan the files of each day, for `register`.

        A range that reads its days one by one spent more time on loading and planning the table than on rows.
        """
        from flywheel_assets.lake.tables.iceberg import has_every_column, read_partition_day

        table = self.load_table(spec)
        planned: dict[date, list[PlannedFile]] = {}
        for task in table.scan(row_filter=_filter_partitions(spec, days)).plan_files() if days else ():
            is_complete = has_every_column(task.file, table, spec)
            file = PlannedFile(task.file.file_path, task.file.file_size_in_bytes, is_complete)
            planned.setdefault(read_partition_day(task.file), []).append(file)
        return planned

    @_name_damaged_files
    @translate_outages()
    def read(
        self,
        spec: TableSpec,
        days: Iterable[date] | None = None,
        columns: Sequence[str] | None = None,
        snapshot_id: int | None = None,
        where: str = "true",
        planned: Mapping[date, Sequence[PlannedFile]] | None = None,
        connection: duckdb.DuckDBPyConnection | None = None,
    ) -> pa.Table:
        """Read partitions of a table as Arrow, in the schema's column order; `days=None` reads all.

        `where` is SQL over the columns that are read; `planned` is as for `register`. Without a `connection` the method
        opens one.
        """
        if connection is None:
            if snapshot_id is None and self.load_table(spec).current_snapshot() is None:
                # A connection costs 15 ms of CPU, and the trigger asks for exclusions at every change.
                return spec.schema.empty_table().select(list(columns or spec.schema.names))
            with self.connect() as own:
                return self.read(spec, days, columns, snapshot_id, where, planned, own)
        self.register(connection, spec, days, columns, view="wanted", snapshot_id=snapshot_id, planned=planned)
        rows: pa.Table = connection.sql(f"SELECT * FROM wanted WHERE {where}").to_arrow_table()
        names = list(columns or spec.schema.names)
        return rows.select(names).cast(make_nullable(pa.schema([spec.schema.field(name) for name in names])))

    @_name_damaged_files
    @translate_outages()
    def count_rows_per_day(self, spec: TableSpec, stage: str | None = None) -> dict[date, int]:
        """Count the rows of every non-empty partition (of `stage`, or of all), from metadata alone."""
        table = self.load_table(spec)
        if table.current_snapshot() is None:
            return {}
        counts: dict[date, int] = {}
        for entry in table.inspect.partitions().to_pylist():
            partition = entry["partition"]
            if stage is None or partition[spec.stage_column] == stage:
                day = partition[spec.day_column]
                counts[day] = counts.get(day, 0) + entry["record_count"]
        return counts


@contextmanager
def translate_swept_files(spec: TableSpec) -> Iterator[None]:
    """Translate the loss of placed files into `CommitContentionError`.

    Between two attempts of a commit the table is not locked, and a sweep may delete the files.

    Raises:
        CommitContentionError: a placed file is gone; the step that built it must run again.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise CommitContentionError(
            f"{spec.name}: files were swept while their commit was tried again; nothing was changed, run it again"
        ) from error


def add_absent_columns(rows: pa.Table, spec: TableSpec, names: Sequence[str]) -> pa.Table:
    """Select columns of a data file's rows, with nulls for those that an earlier release did not write."""
    for name in names:
        if name not in rows.schema.names:
            rows = rows.append_column(name, pa.nulls(rows.num_rows, spec.schema.field(name).type))
    return rows.select(list(names))


def _create_view(
    connection: duckdb.DuckDBPyConnection,
    spec: TableSpec,
    view: str,
    names: Sequence[str],
    paths: Sequence[Path],
    are_complete: bool,
) -> None:
    if not paths:
        connection.register(view, spec.schema.empty_table().select(list(names)))
        return
    files = ", ".join(quote(str(path)) for path in paths)
    source = f"read_parquet([{files}])"
    if not are_complete:
        # Columns that no file has come from a table without rows. To unite by name opens every file: old ones only.
        absent = f"{view}_absent"
        connection.register(absent, spec.schema.empty_table().select(list(names)))
        source = f"(FROM read_parquet([{files}], union_by_name = true) UNION ALL BY NAME FROM {absent})"
    connection.execute(f"CREATE TEMP VIEW {view} AS SELECT {', '.join(names)} FROM {source}")


def _filter_partitions(spec: TableSpec, days: Sequence[date], stage: str | None = None) -> "BooleanExpression":
    """Filter the partitions `days` as few ranges: above 200 literals an IN drops no files by metadata."""
    from flywheel_assets.lake.tables.iceberg import build_filter

    return build_filter(str(spec.day_column), _group_days(days), None if stage is None else spec.stage_column, stage)


def _list_files(table: "Table", where: "BooleanExpression") -> frozenset[str]:
    return frozenset(task.file.file_path for task in table.scan(row_filter=where).plan_files())


def _group_days(days: Iterable[date]) -> list[tuple[date, date]]:
    """Group consecutive days as (first, last)."""
    runs: list[tuple[date, date]] = []
    for day in sorted(set(days)):
        if runs and day - runs[-1][1] == timedelta(days=1):
            runs[-1] = (runs[-1][0], day)
        else:
            runs.append((day, day))
    return runs


def _assert_rows_belong(path: Path, spec: TableSpec, day: date, stage: str | None) -> None:
    """Check that a file's partition columns contain exactly the partition that it is written for."""
    expected: dict[str, Any] = {str(spec.day_column): day}
    if stage is not None:
        expected[str(spec.stage_column)] = stage
    metadata = pq.read_metadata(path)
    positions = {metadata.schema.column(i).name: i for i in range(metadata.num_columns)}
    for name, value in expected.items():
        for group in range(metadata.num_row_groups):
            bounds = metadata.row_group(group).column(positions[name]).statistics
            if (
                bounds is None
                or not bounds.has_min_max
                or (bounds.min, bounds.max) != (value, value)
                or bounds.null_count
            ):
                found = "no bounds" if bounds is None else f"{bounds.min} … {bounds.max}, {bounds.null_count} nulls"
                raise PartitionMismatchError(f"{spec.name}: rows written for {name} = {value} contain {found}")


def _find_local_paths(uris: Iterable[str]) -> list[Path] | None:
    """Find the files' paths on this machine; return None if one is not on it."""
    found = []
    for uri in uris:
        path = find_local_path(uri)
        if path is None:
            return None
        found.append(path)
    return found
