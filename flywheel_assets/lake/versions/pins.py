"""What a version consists of before anything is resolved, and how those snapshots outlive a cut that is not finished.

A pin names a snapshot of every table whose rows the version reads. Each is *held* from before the pin is written until
the export is complete, by a branch `cutting_<version>` of its table: expiry spares heads of branches. Without it a cut
that was killed found other rows when it was repeated a week later, or none.

A hold is no tag, since tags are what gold can be rolled back to, and it ends: raw tables that were tagged for ever
would keep rows that erasure and trimming are there to remove, and once there is an export nobody reads them again.
Holds of cuts that ended elsewhere (killed after their export, abandoned) are let go by the weekly upkeep.
"""

from collections.abc import Iterable, Sequence
from datetime import date
from typing import TYPE_CHECKING

import duckdb
import msgspec

from flywheel_assets.errors import UnknownNameError
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import TableSpec

if TYPE_CHECKING:
    from pyiceberg.table import Table

_HOLD = "cutting_"


class Pin(msgspec.Struct, frozen=True, kw_only=True):
    """What a version consists of, before anything is resolved."""

    version: str
    snapshot_id: int
    """Of the gold table."""
    days: dict[str, str]
    """Closed day → content hash of its gold partition."""
    exclusions: list[str] = []
    """Ids of the exclusions in force when it was pinned: the rows they cover are left out."""
    also_read: dict[str, int | None] = {}
    """Snapshot of each other table whose rows are read, for instance to be judged on; null: it was empty."""

    @property
    def dates(self) -> list[date]:
        """The closed days, ascending."""
        return sorted(map(date.fromisoformat, self.days))


def encode_pin(pin: Pin) -> bytes:
    """A pin as its file holds it."""
    return msgspec.json.format(msgspec.json.encode(pin))


def register_pinned(
    lake: Lake, connection: duckdb.DuckDBPyConnection, pin: Pin, spec: TableSpec, days: Sequence[date]
) -> None:
    """Make days of another table than gold a view of `connection`, as they were when the version was pinned."""
    snapshot_id = pin.also_read[spec.name]
    lake.register(connection, spec, [] if snapshot_id is None else days, snapshot_id=snapshot_id)


def hold_head(lake: Lake, spec: TableSpec, version: str) -> int | None:
    """Keep the head of a table for a cut, as it is at this moment; returns its snapshot, None for an empty table."""
    held: int | None = None

    def hold(table: "Table") -> None:
        nonlocal held
        held = table.metadata.current_snapshot_id
        if held is not None:
            _point(table, _HOLD + version, held)

    lake.commit(spec, hold)
    return held


def hold_pinned(lake: Lake, pin: Pin, gold: TableSpec, others: Iterable[TableSpec]) -> None:
    """Keep the snapshots that a pin names, where they are not kept already.

    Raises:
        UnknownNameError: one of them is gone.
    """
    for spec, snapshot_id in _snapshots(pin, gold, others):

        def hold(table: "Table", wanted: int = snapshot_id) -> None:
            if table.metadata.snapshot_by_id(wanted) is None:
                known = [str(snapshot.snapshot_id) for snapshot in table.metadata.snapshots]
                raise UnknownNameError(
                    f"snapshot of {table.name()[-1]}",
                    str(wanted),
                    known,
                    f"{pin.version} was pinned to it, and it expired before the export was complete: `flywheel abandon "
                    f"{pin.version} --reason … --yes`, then cut the next version.",
                )
            _point(table, _HOLD + pin.version, wanted)

        lake.commit(spec, hold)


def is_lost(lake: Lake, pin: Pin, gold: TableSpec, others: Iterable[TableSpec]) -> bool:
    """Whether a snapshot that the pin names has expired; of older code, which held nothing."""
    return any(
        lake.load_table(spec).metadata.snapshot_by_id(snapshot_id) is None
        for spec, snapshot_id in _snapshots(pin, gold, others)
    )


def release_snapshots(lake: Lake, version: str, specs: Iterable[TableSpec]) -> None:
    """Stop keeping snapshots for a cut; done before is a success."""
    name = _HOLD + version

    def release(table: "Table") -> None:
        if name in table.metadata.refs:
            table.manage_snapshots().remove_branch(name).commit()

    for spec in specs:
        if lake.has_table(spec) and name in lake.load_table(spec).metadata.refs:
            lake.commit(spec, release)


def held_versions(lake: Lake, specs: Iterable[TableSpec]) -> set[str]:
    """The versions for whose cut a snapshot is kept."""
    return {
        name.removeprefix(_HOLD)
        for spec in specs
        if lake.has_table(spec)
        for name in lake.load_table(spec).metadata.refs
        if name.startswith(_HOLD)
    }


def _snapshots(pin: Pin, gold: TableSpec, others: Iterable[TableSpec]) -> list[tuple[TableSpec, int]]:
    known = [(spec, pin.also_read.get(spec.name)) for spec in others]
    return [(gold, pin.snapshot_id), *((spec, snapshot_id) for spec, snapshot_id in known if snapshot_id is not None)]


def _point(table: "Table", branch: str, snapshot_id: int) -> None:
    known = table.metadata.refs.get(branch)
    if known is not None and known.snapshot_id == snapshot_id:
        return
    # A hold without a pin, of a cut that was killed between the two, stands where gold stood then. One request for
    # both: in between nothing would hold the snapshot.
    table.manage_snapshots().create_branch(snapshot_id, branch).commit()
