"""Opens the pyiceberg catalog, creates tables, and names the errors after which a commit may be repeated.

Three things keep a commit from growing with history and with days: a transaction that copies the metadata once per
change, a bound on retained snapshots, and manifests of some hundred files. See docs/adr/0018.

`lake.tables.lake` imports this module when a table is first touched: pyiceberg and SQLAlchemy cost 0.4 s, which
loading a code location must not pay.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import pyarrow as pa
from pyiceberg.catalog.sql import IcebergTables, SqlCatalog
from pyiceberg.exceptions import (
    CommitFailedException,
    CommitStateUnknownException,
    NamespaceAlreadyExistsError,
    NoSuchTableError,
    TableAlreadyExistsError,
    ValidationException,
)
from pyiceberg.expressions import (
    AlwaysFalse,
    AlwaysTrue,
    And,
    BooleanExpression,
    EqualTo,
    GreaterThanOrEqual,
    LessThanOrEqual,
    Or,
)
from pyiceberg.manifest import DataFile
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import CommitTableResponse, Table, Transaction
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.snapshots import MetadataLogEntry
from pyiceberg.table.update import (
    AssertTableUUID,
    TableRequirement,
    TableUpdate,
    update_table_metadata,
)
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import (
    BooleanType,
    DateType,
    DoubleType,
    IcebergType,
    LongType,
    NestedField,
    StringType,
    TimestamptzType,
)
from sqlalchemy.exc import OperationalError

from flywheel_assets import records
from flywheel_assets.errors import CatalogUnavailableError, StorageUnavailableError
from flywheel_assets.lake.storage.commits import bound_waits, verify_locks
from flywheel_assets.lake.storage.schema_versions import refuse_newer

if TYPE_CHECKING:
    from flywheel_assets.lake.tables.specs import TableSpec

RETRYABLE = (
    CommitFailedException,
    CommitStateUnknownException,
    ValidationException,
    OperationalError,
    CatalogUnavailableError,
    StorageUnavailableError,
)
EVERY_ROW: BooleanExpression = AlwaysTrue()
MOST_SNAPSHOTS = 96
"""Limit of untagged snapshots of a table: above it the next commit forgets all but the newest `KEPT_SNAPSHOTS`."""
KEPT_SNAPSHOTS = 48
FILES_PER_MANIFEST = 100
"""One manifest adds at most so many files; replacing one day rewrites the manifest that lists the day."""
_EPOCH = date(1970, 1, 1)

SCHEMA_VERSION = "flywheel.schema-version"
"""Property of every table; see `TableSpec.schema_version`."""
_TABLE_PROPERTIES = {
    # pyiceberg merges no manifests by default: 500 commits then take 1.2 s to plan, merged 23 ms.
    "commit.manifest-merge.enabled": "true",
    # The defaults wait for 100 manifests and then make one of up to 8 MB: ten years of days in one manifest, which
    # every replaced day rewrites in 1 to 1.5 s. A manifest of one file is 8 KB (the schema), each further file 0.4 KB.
    "commit.manifest.min-count-to-merge": "5",
    "commit.manifest.target-size-bytes": str(64 * 1024),
    # Without these, metadata files of all past commits stay: 94 MB after 500.
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "10",
    "write.parquet.compression-codec": "zstd",
    # Only our own retry is used: pyiceberg's would run out inside it, and drops the other changes of the transaction.
    "commit.retry.num-retries": "0",
    # This is the default. It is stated because with `snapshot` two first writers of one day doubled the day.
    "write.delete.isolation-level": "serializable",
    "write.update.isolation-level": "serializable",
    # Column bounds would copy the first 16 characters of users' texts and ids into manifests.
    "write.metadata.metrics.default": "counts",
}
_ICEBERG_TYPES: dict[pa.DataType, IcebergType] = {
    pa.string(): StringType(),
    pa.float64(): DoubleType(),
    pa.int64(): LongType(),
    pa.bool_(): BooleanType(),
    pa.date32(): DateType(),
    records.TIMESTAMP: TimestamptzType(),
}


_WAITS = {"s3.connect-timeout": "5", "s3.request-timeout": "20"}
"""Seconds that Arrow waits for a silent S3; it asks three times. Its own 3 s are too few for a busy one."""


class _Unchanged(AssertTableUUID):
    """Requires that the table still has the metadata that the changes were made from.

    Metadata files have unique names, and each lists those before it.
    """

    before: list[MetadataLogEntry]

    def validate(self, base_metadata: TableMetadata | None) -> None:  # type: ignore[override]  # not pydantic's
        """See the base class."""
        super().validate(base_metadata)
        if base_metadata is not None and base_metadata.metadata_log[-1:] != self.before:
            raise CommitFailedException("the table has changed since it was loaded")


class StrictCatalog(SqlCatalog):
    """A catalog that commits only on the metadata a change was made from, while its locks exist.

    pyiceberg applies changes to the metadata that it finds, unless a head that it checks has moved. Without the lock,
    which Postgres may lose, an expiry would delete a tag that was set a moment before.
    """

    def commit_table(
        self, table: Table, requirements: tuple[TableRequirement, ...], updates: tuple[TableUpdate, ...]
    ) -> CommitTableResponse:
        """See `SqlCatalog.commit_table`."""
        verify_locks()
        unchanged = _Unchanged(uuid=table.metadata.table_uuid, before=table.metadata.metadata_log[-1:])
        return super().commit_table(table, (*requirements, unchanged), updates)


class ParsedOnceCatalog(StrictCatalog):
    """A catalog that parses each metadata file once: a file never changes, and a new one has a new name.

    A step loads its tables dozens of times and commits to each once; parsing took half of the time of every load.
    """

    def __init__(self, name: str, **properties: str) -> None:
        super().__init__(name, **properties)
        self._parsed: dict[tuple[str, str], tuple[str, TableMetadata]] = {}

    def _convert_orm_to_iceberg(self, orm_table: IcebergTables) -> Table:
        identifier = (orm_table.table_namespace, orm_table.table_name)
        location = orm_table.metadata_location
        known = self._parsed.get(identifier)
        if location is None or known is None or known[0] != location:
            table = super()._convert_orm_to_iceberg(orm_table)
            self._parsed[identifier] = (table.metadata_location, table.metadata)
            return table
        # As in `TransactionOnce`, nothing writes to the shared metadata: a refresh or a commit replaces it.
        io = self._load_file_io(known[1].properties, location)
        return Table((*self.identifier_to_tuple(identifier[0]), identifier[1]), known[1], location, io, self)


def open_catalog(uri: str, warehouse: str, namespace: str, storage: Mapping[str, str]) -> SqlCatalog:
    """Open the SQL catalog, and create `namespace` where it does not exist."""
    # A connection is checked before it is used: pooled ones outlast a restart of Postgres.
    properties = {"uri": bound_waits(uri), "pool_pre_ping": "true", "warehouse": warehouse, **_WAITS, **storage}
    catalog = ParsedOnceCatalog("flywheel", **properties)
    with suppress(NamespaceAlreadyExistsError):
        catalog.create_namespace(namespace)
    return catalog


def load_or_create_table(
    catalog: SqlCatalog, namespace: str, spec: "TableSpec", verify_new: Callable[[], None]
) -> Table:
    """Load the table with its current metadata; create it on first use, unless `verify_new` raises.

    Raises:
        NewerReleaseError: a newer release changed the table in a way that this one would misread.
    """
    identifier = (namespace, spec.name)
    try:
        table = catalog.load_table(identifier)
        refuse_newer_schema(table, spec)
        return table
    except NoSuchTableError:
        verify_new()
        try:
            return catalog.create_table(
                identifier,
                _build_schema(spec),
                partition_spec=_build_partition_spec(spec),
                properties=_build_properties(spec),
            )
        except TableAlreadyExistsError:
            return catalog.load_table(identifier)


def read_schema_version(table: Table) -> int | None:
    """Read the version of a table's schema; None: it was made before tables had one."""
    found = table.properties.get(SCHEMA_VERSION)
    return None if found is None else int(found)


def refuse_newer_schema(table: Table, spec: "TableSpec") -> None:
    """Refuse a table whose schema this release does not know.

    Raises:
        NewerReleaseError: a newer release changed the table in a way that this one would misread.
    """
    refuse_newer(read_schema_version(table) or 1, spec.schema_version, f"the table {'.'.join(table.name())}")


def write_schema_version(table: Table, spec: "TableSpec") -> None:
    """Write the version of the specification to a table."""
    with table.transaction() as transaction:
        transaction.set_properties({SCHEMA_VERSION: str(spec.schema_version)})


def find_missing_columns(table: Table, spec: "TableSpec") -> list[str]:
    """Find the columns of a specification that a table, made by an earlier release, does not have."""
    there = set(table.schema().column_names)
    return [name for name in spec.schema.names if name not in there]


def add_missing_columns(table: Table, spec: "TableSpec") -> None:
    """Add the columns that a table lacks, at its end, in one commit; rows that exist have nulls there.

    The table gives the new columns its own next ids, and its name mapping to files that are added later. Columns that
    the specification dropped stay.
    """
    missing = find_missing_columns(table, spec)
    if missing:
        with table.update_schema() as update:
            for name in missing:
                column = spec.schema.field(name)
                update.add_column(name, _ICEBERG_TYPES[column.type], doc=records.read_description(column))


def has_every_column(file: DataFile, table: Table, spec: "TableSpec") -> bool:
    """Return whether a data file has all columns of the specification; a file that does not say so has not."""
    counted, wanted = file.value_counts or {}, set(spec.schema.names)
    return all(column.field_id in counted for column in table.schema().fields if column.name in wanted)


class TransactionOnce(Transaction):
    """A transaction that builds its current metadata once per change.

    pyiceberg's own copies all metadata, every retained snapshot included, at every access: 42 times in a partition
    replace, which took 232 ms of CPU with 80 snapshots and 1,037 with 320; this one takes 89 and 219. The shared copy
    is safe: nothing writes to it, since every update makes a copy.
    """

    _known: tuple[TableMetadata, tuple[TableUpdate, ...], TableMetadata] | None = None

    @property
    def table_metadata(self) -> TableMetadata:
        """Return the table's metadata with the changes so far."""
        base, updates = self._table.metadata, self._updates
        if self._known is None or self._known[0] is not base or self._known[1] is not updates:
            self._known = (base, updates, update_table_metadata(base, updates))
        return self._known[2]


def swap_files(
    table: Table,
    where: BooleanExpression,
    placed: Sequence[str],
    properties: Mapping[str, str],
    branch: str = MAIN_BRANCH,
) -> None:
    """Replace the partitions that `where` covers by data files in the table's folder, in one commit.

    Neighbours in `placed` share a manifest.
    """
    stamped = dict(properties)
    with TransactionOnce(table) as transaction:
        transaction.delete(where, snapshot_properties=stamped, branch=branch)
        for first in range(0, len(placed), FILES_PER_MANIFEST):
            added = list(placed[first : first + FILES_PER_MANIFEST])
            transaction.add_files(added, snapshot_properties=stamped, check_duplicate_files=False, branch=branch)


def forget_old_snapshots(table: Table) -> None:
    """Forget old snapshots after a burst of commits, which would slow down all later ones.

    The upkeep's own expiry comes only once a week. Heads and tags stay. Files stay, too, until the upkeep finds that
    nothing reaches them.
    """
    named = {reference.snapshot_id for reference in table.metadata.refs.values()}
    times = sorted(each.timestamp_ms for each in table.metadata.snapshots if each.snapshot_id not in named)
    if len(times) > MOST_SNAPSHOTS:
        oldest_kept = datetime.fromtimestamp(times[-KEPT_SNAPSHOTS] / 1000, UTC)
        table.maintenance.expire_snapshots().older_than(oldest_kept).commit()


def build_filter(
    day_column: str, runs: Sequence[tuple[date, date]], stage_column: str | None = None, stage: str | None = None
) -> BooleanExpression:
    """Build the row filter of whole partitions: runs of days, of one stage.

    The filter is built from expressions: pyiceberg's parser takes 3 ms for the same filter as text.
    """
    days = [
        And(
            GreaterThanOrEqual(term=day_column, value=first.isoformat()),
            LessThanOrEqual(term=day_column, value=last.isoformat()),
        )
        for first, last in runs
    ]
    where = Or(AlwaysFalse(), AlwaysFalse(), *days)
    return where if stage_column is None else And(where, EqualTo(term=stage_column, value=stage))


def read_partition_day(file: DataFile) -> date:
    """Read the partition day of a data file; the table's first partition column must be a day."""
    return _EPOCH + timedelta(days=int(file.partition[0]))


def _build_properties(spec: "TableSpec") -> dict[str, str]:
    bounded = {f"write.metadata.metrics.column.{name}": "full" for name in (spec.day_column, spec.stage_column) if name}
    return {**_TABLE_PROPERTIES, **bounded, SCHEMA_VERSION: str(spec.schema_version)}


def _build_schema(spec: "TableSpec") -> Schema:
    fields = [
        NestedField(
            field_id=position,
            name=column.name,
            field_type=_ICEBERG_TYPES[column.type],
            required=False,
            doc=records.read_description(column),
        )
        for position, column in enumerate(spec.schema, start=1)
    ]
    return Schema(*fields)


def _build_partition_spec(spec: "TableSpec") -> PartitionSpec:
    # The identity of a date column is used, since pyiceberg's day transform needs pyiceberg-core.
    columns = [column for column in (spec.day_column, spec.stage_column) if column]
    ids = {column.name: position for position, column in enumerate(spec.schema, start=1)}
    return PartitionSpec(
        *(PartitionField(ids[name], 1000 + i, IdentityTransform(), name) for i, name in enumerate(columns))
    )
