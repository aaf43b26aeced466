"""Pins the snapshots of a gold version, and keeps them until its export is complete.

A pin names a snapshot of every table whose rows the version reads. Each is *kept* from before the pin is written until
the export is complete, by a branch `cutting_<version>` of its table: expiry spares heads of branches. Without it a cut
that was killed found other rows when it was repeated a week later, or none.

The branch is no tag, since tags are what gold can be rolled back to, and it ends: raw tables that were tagged for ever
would keep rows that erasure and trimming are there to remove, and once there is an export it alone is read. Weekly
upkeep removes the branches of cuts that ended elsewhere (killed after their export, abandoned).
"""

from collections.abc import Iterable, Sequence
from datetime import date
from typing import TYPE_CHECKING

import duckdb
import msgspec

from flywheel_assets.errors import EmptyVersionError, UnknownNameError
from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.daily.breaker import find_tripped_days
from flywheel_assets.lake.storage.files import replace_file, write_once
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import BREAKER_DAYS, ApplicationTables, TableSpec
from flywheel_assets.lake.tables.tags import list_tags
from flywheel_assets.lake.versions.exclusions import list_exclusions_in_force
from flywheel_assets.lake.versions.folders import (
    Pin,
    VersionFolder,
    Versions,
    encode_pin,
    parse_version_number,
    read_pin,
)

if TYPE_CHECKING:
    from pyiceberg.table import Table

_CUTTING = "cutting_"


def list_tagged_versions(lake: Lake, gold: TableSpec) -> dict[str, int]:
    """List every gold version that is a tag in the lake, with its snapshot id."""
    return {name: snapshot_id for name, snapshot_id in list_tags(lake, gold).items() if parse_version_number(name)}


def pin_version(lake: Lake, folder: VersionFolder, gold: TableSpec, also_read: Sequence[TableSpec]) -> Pin:
    """Return the pin of a version, written now or by an earlier cut.

    While there is no export, the pinned snapshots are kept.

    Raises:
        EmptyVersionError: gold has no closed day, or the batch breaker keeps all of them out.
        UnknownNameError: a snapshot that an earlier cut pinned is gone.
    """
    _forget_lost_pin(lake, folder, gold, also_read)
    if folder.export.exists() or (not folder.pin.exists() and _pin_heads(lake, folder, gold, also_read)):
        return read_pin(folder)
    # Where cuts do not see each other's lock, the pin that was written first is the one that holds for both.
    pin = read_pin(folder)
    unpinned = [spec for spec in also_read if spec.name not in pin.also_read]
    if unpinned:
        # Older code read these tables' heads, and an erasure removes them from a pin: from here on the pin names them.
        now = {spec.name: keep_head(lake, spec, folder.version) for spec in unpinned}
        pin = msgspec.structs.replace(pin, also_read={**pin.also_read, **now})
        replace_file(folder.pin, encode_pin(pin))
    _keep_pinned_snapshots(lake, pin, gold, also_read)
    return pin


def withdraw_pin(lake: Lake, folder: VersionFolder, gold: TableSpec, also_read: Sequence[TableSpec]) -> None:
    """Remove the pin of a version that has nothing to train on, unless the version is tagged.

    Then nothing was begun: the same name may be cut again when there is something to train on.
    """
    if folder.version not in list_tagged_versions(lake, gold):
        folder.pin.unlink()
        release_snapshots(lake, folder.version, (gold, *also_read))


def register_pinned_days(
    lake: Lake, connection: duckdb.DuckDBPyConnection, pin: Pin, spec: TableSpec, days: Sequence[date]
) -> None:
    """Make a view of days of another table than gold, as they were when the version was pinned."""
    snapshot_id = pin.also_read[spec.name]
    lake.register(connection, spec, [] if snapshot_id is None else days, snapshot_id=snapshot_id)


def _forget_lost_pin(lake: Lake, folder: VersionFolder, gold: TableSpec, also_read: Sequence[TableSpec]) -> None:
    """Remove the pin of a cut that was killed before it tagged, if its snapshots have expired.

    Only pins of older code, which kept no snapshots, get there. Nothing of that version was ever visible: it may be
    pinned again. With the pin it could never be cut.
    """
    if not folder.pin.exists() or folder.export.exists() or folder.version in list_tagged_versions(lake, gold):
        return
    if any(
        lake.load_table(spec).metadata.snapshot_by_id(snapshot_id) is None
        for spec, snapshot_id in _list_snapshots(read_pin(folder), gold, also_read)
    ):
        folder.pin.unlink()


def _pin_heads(lake: Lake, folder: VersionFolder, gold: TableSpec, also_read: Sequence[TableSpec]) -> bool:
    """Pin the closed days as they stand; return False where another cut was faster."""
    # In this order a day that is curated in between is left to the next version, not taken for covered.
    days = ledger.read_closed_days(lake, gold.name)
    snapshot_id = keep_head(lake, gold, folder.version) if days else None
    if snapshot_id is None and (tripped := find_tripped_days(lake)):
        raise EmptyVersionError(
            f"{folder.version}: gold has no row, because the batch breaker keeps out {len(tripped)} days, the first of "
            f"them {tripped[0].day}. Look at them with `flywheel breaker list --application {lake.application}`; "
            "`flywheel breaker reset` lets a day in."
        )
    if snapshot_id is None:
        raise EmptyVersionError(
            f"{folder.version}: gold has no closed day yet. A day closes when it is materialized "
            "later than 15 minutes after its end (UTC)."
        )
    pin = Pin(
        version=folder.version,
        snapshot_id=snapshot_id,
        days={day.isoformat(): content for day, content in days.items()},
        exclusions=[exclusion.id for exclusion in list_exclusions_in_force(lake)],
        also_read={spec.name: keep_head(lake, spec, folder.version) for spec in also_read},
    )
    return write_once(folder.pin, encode_pin(pin))


def keep_head(lake: Lake, spec: TableSpec, version: str) -> int | None:
    """Keep the head of a table for a cut; return its snapshot, None for an empty table."""
    kept: int | None = None

    def keep(table: "Table") -> None:
        nonlocal kept
        kept = table.metadata.current_snapshot_id
        if kept is not None:
            _point_branch(table, _CUTTING + version, kept)

    lake.commit(spec, keep)
    return kept


def _keep_pinned_snapshots(lake: Lake, pin: Pin, gold: TableSpec, others: Iterable[TableSpec]) -> None:
    """Keep the snapshots that a pin names, where they are not kept already.

    Raises:
        UnknownNameError: one of them is gone.
    """
    for spec, snapshot_id in _list_snapshots(pin, gold, others):

        def keep(table: "Table", wanted: int = snapshot_id) -> None:
            if table.metadata.snapshot_by_id(wanted) is None:
                known = [str(snapshot.snapshot_id) for snapshot in table.metadata.snapshots]
                raise UnknownNameError(
                    f"snapshot of {table.name()[-1]}",
                    str(wanted),
                    known,
                    f"{pin.version} was pinned to it, and it expired before the export was complete: `flywheel abandon "
                    f"{pin.version} --reason … --yes`, then cut the next version.",
                )
            _point_branch(table, _CUTTING + pin.version, wanted)

        lake.commit(spec, keep)


def release_snapshots(lake: Lake, version: str, specs: Iterable[TableSpec]) -> None:
    """Stop keeping snapshots for a cut; a repeated release succeeds."""
    name = _CUTTING + version

    def release(table: "Table") -> None:
        if name in table.metadata.refs:
            table.manage_snapshots().remove_branch(name).commit()

    for spec in specs:
        if lake.has_table(spec) and name in lake.load_table(spec).metadata.refs:
            lake.commit(spec, release)


def list_kept_versions(lake: Lake, specs: Iterable[TableSpec]) -> set[str]:
    """List the versions for whose cut a snapshot is kept."""
    return {
        name.removeprefix(_CUTTING)
        for spec in specs
        if lake.has_table(spec)
        for name in lake.load_table(spec).metadata.refs
        if name.startswith(_CUTTING)
    }


def release_ended_cuts(lake: Lake, versions: Versions, tables: ApplicationTables) -> None:
    """Stop keeping snapshots for cuts that ended without a release: killed after the export, or abandoned.

    Raises:
        CommitContentionError: there are such, and another version is being cut, and was for two minutes.
    """
    specs = _list_readable_tables(tables)

    def list_ended() -> list[str]:
        folders = map(versions.folder, list_kept_versions(lake, specs))
        return [each.version for each in folders if not each.pin.exists() or each.export.exists() or each.is_finished]

    if list_ended():
        # Listed again under the lock: a cut keeps its snapshots before it pins.
        with lake.lock_versions():
            for version in list_ended():
                release_snapshots(lake, version, specs)


def release_unfinished_cuts(lake: Lake, versions: Versions, tables: ApplicationTables) -> None:
    """Let cuts that were killed before their export read the present rows; for an erasure, while no version is cut.

    Kept, their snapshots would hold the person's rows. Nothing of those versions was ever visible but perhaps the tag,
    which the erasure moves like any other. A version without a tag is pinned again, one with a tag reads the other
    tables' heads.
    """
    tagged = list_tagged_versions(lake, tables.gold)
    for folder in versions:
        if not folder.pin.exists() or folder.export.exists():
            continue
        if folder.version in tagged:
            replace_file(folder.pin, encode_pin(msgspec.structs.replace(read_pin(folder), also_read={})))
        else:
            folder.pin.unlink()
    for version in list_kept_versions(lake, _list_readable_tables(tables)):
        release_snapshots(lake, version, _list_readable_tables(tables))


def _list_readable_tables(tables: ApplicationTables) -> tuple[TableSpec, ...]:
    """List the tables whose rows a version may be made of."""
    return tables.gold, tables.joined, tables.predictions, BREAKER_DAYS


def _list_snapshots(pin: Pin, gold: TableSpec, others: Iterable[TableSpec]) -> list[tuple[TableSpec, int]]:
    known = [(spec, pin.also_read.get(spec.name)) for spec in others]
    return [(gold, pin.snapshot_id), *((spec, snapshot_id) for spec, snapshot_id in known if snapshot_id is not None)]


def _point_branch(table: "Table", branch: str, snapshot_id: int) -> None:
    known = table.metadata.refs.get(branch)
    if known is not None and known.snapshot_id == snapshot_id:
        return
    # A branch without a pin, of a cut that was killed between the two, stands where gold stood then. One request for
    # both: in between no branch would keep the snapshot.
    table.manage_snapshots().create_branch(snapshot_id, branch).commit()
