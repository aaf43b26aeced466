"""Brings a home to the schema of this release: `flywheel upgrade`.

A daily step adds the columns that its table lacks when it first needs them, so that a new release works at once. An
upgrade does it for all tables at a time that people choose, writes the version of each table's schema, and names this
release in the home's markers. Rows are never rewritten: columns that they lack are null.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from flywheel_assets import __version__
from flywheel_assets.lake.storage.schema_versions import read_version
from flywheel_assets.lake.tables.home import Marker, read_home_file
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import TableSpec


@dataclass(frozen=True)
class TableUpgrade:
    """Lists what one table lacks."""

    spec: TableSpec
    version: int | None
    """Of the table's schema; None: it was made before tables had one."""
    new_columns: tuple[str, ...]


def plan_upgrade(lake: Lake, tables: Iterable[TableSpec]) -> list[TableUpgrade]:
    """Find the tables that exist and are not as this release makes them; nothing is changed.

    Raises:
        NewerReleaseError: a newer release made or upgraded a table, or the home.
    """
    from flywheel_assets.lake.tables.iceberg import find_missing_columns, read_schema_version, refuse_newer_schema

    found = []
    for spec in tables:
        if lake.is_begun and lake.has_table(spec):
            table = lake.catalog.load_table((lake.application, spec.name))
            refuse_newer_schema(table, spec)
            upgrade = TableUpgrade(spec, read_schema_version(table), tuple(find_missing_columns(table, spec)))
            if upgrade.new_columns or upgrade.version != spec.schema_version:
                found.append(upgrade)
    return found


def is_home_marked(lake: Lake) -> bool:
    """Return whether the home's own marker names this release and its schema."""
    marker = read_home_file(lake.home.folder)
    return marker is not None and (marker.release, marker.schema_version) == (__version__, read_version(Marker))


def upgrade_tables(lake: Lake, planned: Iterable[TableUpgrade]) -> None:
    """Upgrade tables, each in one commit under its lock; repeated after a kill it does what is left.

    Raises:
        HomeMismatchError: the home's parts contradict each other; nothing was changed.
        CommitContentionError: a table stayed busy past the deadline.
    """
    from flywheel_assets.lake.tables.iceberg import write_schema_version

    for each in planned:
        # A commit loads the table, which adds the columns that it lacks.
        lake.commit(each.spec, partial(write_schema_version, spec=each.spec))


def mark_home(lake: Lake) -> None:
    """Name this release in the markers of home and warehouse, once all their tables are upgraded."""
    lake.home.mark_release(lake.home_id, lake.lock_home())
