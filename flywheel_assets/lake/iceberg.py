"""What only pyiceberg knows: opening the catalog, creating a table, which errors a commit may be tried again after.

`lake.tables` imports this module when a table is first touched: pyiceberg and SQLAlchemy cost 0.4 s, which loading a
code location must not pay.
"""

from collections.abc import Mapping
from contextlib import suppress
from datetime import date, timedelta
from typing import TYPE_CHECKING

import pyarrow as pa
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import (
    CommitFailedException,
    CommitStateUnknownException,
    NamespaceAlreadyExistsError,
    NoSuchTableError,
    TableAlreadyExistsError,
    ValidationException,
)
from pyiceberg.expressions import AlwaysTrue, BooleanExpression
from pyiceberg.manifest import DataFile
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
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

if TYPE_CHECKING:
    from flywheel_assets.lake.tables import TableSpec

RETRYABLE = (CommitFailedException, CommitStateUnknownException, ValidationException, OperationalError)
EVERY_ROW: BooleanExpression = AlwaysTrue()
_EPOCH = date(1970, 1, 1)

_TABLE_PROPERTIES = {
    # Off by default in pyiceberg: 500 commits then take 1.2 s to plan, merged 23 ms.
    "commit.manifest-merge.enabled": "true",
    # Without these, metadata files of all past commits stay: 94 MB after 500.
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "10",
    "write.parquet.compression-codec": "zstd",
    # One retry, ours: pyiceberg's own would run out inside it, and drops what shares the transaction.
    "commit.retry.num-retries": "0",
    # The default, stated: with `snapshot` two first writers of one day doubled it.
    "write.delete.isolation-level": "serializable",
    "write.update.isolation-level": "serializable",
    # Bounds would copy the first 16 characters of users' texts and ids into manifests.
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


def open_catalog(uri: str, warehouse: str, namespace: str, storage: Mapping[str, str]) -> SqlCatalog:
    """The SQL catalog, with `namespace` created where it is new."""
    catalog = SqlCatalog("flywheel", uri=uri, warehouse=warehouse, **storage)
    with suppress(NamespaceAlreadyExistsError):
        catalog.create_namespace(namespace)
    return catalog


def load_or_create(catalog: SqlCatalog, namespace: str, spec: "TableSpec") -> Table:
    """The table with its current metadata, created on first use."""
    identifier = (namespace, spec.name)
    try:
        return catalog.load_table(identifier)
    except NoSuchTableError:
        try:
            return catalog.create_table(
                identifier, _iceberg_schema(spec), partition_spec=_partition_spec(spec), properties=_properties(spec)
            )
        except TableAlreadyExistsError:
            return catalog.load_table(identifier)


def day_of(file: DataFile) -> date:
    """The partition day of a data file of a table whose first partition column is a day."""
    return _EPOCH + timedelta(days=int(file.partition[0]))


def _properties(spec: "TableSpec") -> dict[str, str]:
    bounded = {f"write.metadata.metrics.column.{name}": "full" for name in (spec.day_column, spec.stage_column) if name}
    return {**_TABLE_PROPERTIES, **bounded}


def _iceberg_schema(spec: "TableSpec") -> Schema:
    fields = [
        NestedField(
            field_id=position,
            name=column.name,
            field_type=_ICEBERG_TYPES[column.type],
            required=False,
            doc=records.description_of(column),
        )
        for position, column in enumerate(spec.schema, start=1)
    ]
    return Schema(*fields)


def _partition_spec(spec: "TableSpec") -> PartitionSpec:
    # Identity on a date column: pyiceberg's day transform needs pyiceberg-core.
    columns = [column for column in (spec.day_column, spec.stage_column) if column]
    ids = {column.name: position for position, column in enumerate(spec.schema, start=1)}
    return PartitionSpec(
        *(PartitionField(ids[name], 1000 + i, IdentityTransform(), name) for i, name in enumerate(columns))
    )
