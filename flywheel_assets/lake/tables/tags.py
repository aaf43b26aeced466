"""Creates and lists tags on a table; a tag keeps a version's rows readable for ever.

Each change of a tag or of the head is a commit of its own. A tag that shares a transaction with rows is silently lost
when that transaction is retried. A tag that shares one with a move of `main` loses rows of a concurrent writer. All
changes happen under the table's commit lock, as expiry does: an expiry that had read the table before a tag appeared
would delete the tag.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from flywheel_assets.errors import UnknownNameError, VersionConflictError
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import TableSpec

if TYPE_CHECKING:
    from pyiceberg.table import Table


def list_tags(lake: Lake, spec: TableSpec) -> dict[str, int]:
    """List every tag of a table with its snapshot id."""
    references = lake.load_table(spec).metadata.refs
    return {name: each.snapshot_id for name, each in references.items() if each.snapshot_ref_type == "tag"}


def create_tag(lake: Lake, spec: TableSpec, name: str, snapshot_id: int) -> None:
    """Tag a snapshot, once; repeating the same tag succeeds.

    Raises:
        VersionConflictError: the tag points to another snapshot; pyiceberg would silently move it.
        UnknownNameError: the table has no such snapshot.
    """

    def create(table: "Table") -> None:
        existing = table.metadata.refs.get(name)
        if existing is not None and existing.snapshot_id != snapshot_id:
            raise VersionConflictError(
                f"the tag {name} points to snapshot {existing.snapshot_id}, this cut was pinned to {snapshot_id}. "
                "Versions never move: cut a new one."
            )
        if existing is None:
            if table.metadata.snapshot_by_id(snapshot_id) is None:
                known = [str(snapshot.snapshot_id) for snapshot in table.metadata.snapshots]
                raise UnknownNameError("snapshot", str(snapshot_id), known, "It expired before it was tagged.")
            table.manage_snapshots().create_tag(snapshot_id, name).commit()

    lake.commit(spec, create)


def set_head(
    lake: Lake, spec: TableSpec, to_tag: str, expected_head: int, before: "Callable[[Table], None] | None" = None
) -> None:
    """Point the table at a tagged snapshot, if its head is still the expected one; repeating it succeeds.

    `before` runs before the head moves, under the same commit lock. It must be repeatable, and does not run once the
    head stands at the tag.

    Raises:
        VersionConflictError: another writer has committed since the head was read; nothing was changed.
        UnknownNameError: there is no such tag.
    """

    def move(table: "Table") -> None:
        if to_tag not in table.metadata.refs:
            raise UnknownNameError("tag", to_tag, list_tags(lake, spec))
        target = table.metadata.refs[to_tag].snapshot_id
        head = table.metadata.current_snapshot_id
        if head == target:
            return
        if head != expected_head:
            raise VersionConflictError(
                f"{spec.name} stands at snapshot {head}, it was planned from {expected_head}: another "
                "writer has committed since. Check again what would change, then repeat."
            )
        if before is not None:
            before(table)
        # The tag is used: `rollback_to_snapshot` needs the snapshot among main's ancestors, and expiry cuts that chain.
        table.manage_snapshots().set_current_snapshot(ref_name=to_tag).commit()

    lake.commit(spec, move)
