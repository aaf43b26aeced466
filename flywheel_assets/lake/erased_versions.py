"""Tagged versions without a person: the snapshot, the exports cut from it, the scores by row, and work in progress.

A tag moves last. Until then a run that was killed finds the person's rows at it, recognises its own branch and its own
revision of the export, and goes on.
"""

import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import msgspec

from flywheel_assets.lake.erased_rows import Found, Partition, find_rows, kept_file, total
from flywheel_assets.lake.export_revisions import (
    drop_older_revisions,
    erase_scored_rows,
    exported_rows_of,
    revise_export,
)
from flywheel_assets.lake.exports import ExportSet, manifest_sha256, read_manifest
from flywheel_assets.lake.files import replace_file
from flywheel_assets.lake.ledger import RunStamp
from flywheel_assets.lake.publishing import copies_of
from flywheel_assets.lake.references import tags
from flywheel_assets.lake.tables import Lake, TableSpec
from flywheel_assets.lake.traces import Traces
from flywheel_assets.lake.versions import VersionFolder, Versions, read_pin, version_number

if TYPE_CHECKING:
    from pyiceberg.table import Table


class ErasedVersion(msgspec.Struct, frozen=True, kw_only=True):
    """What an erasure changed in one tagged version: it was frozen, and is not what it was."""

    tag: str
    snapshot_before: int
    snapshot_after: int
    gold_rows_removed: int
    exported_rows_removed: int = 0
    manifest_sha256_before: str | None = None
    manifest_sha256_after: str | None = None
    trained: bool = False
    """A model was trained on rows that are gone: train another, or take it out of service."""
    training_dropped: bool = False
    """It was trained on rows that are gone, and nobody had scored it: the training went, and is made again."""
    copies: list[str] = []
    """Where exports of it went; nobody but their owners can erase those."""


def erase_versions(
    lake: Lake,
    gold: TableSpec,
    versions: Versions,
    traces: Traces,
    erasure: str,
    stamp: RunStamp,
    on_changed: Callable[[ErasedVersion], None],
) -> int:
    """Rewrite every tag of gold that holds something of the person, and the exports cut from it.

    Args:
        lake: the application's tables.
        gold: the table whose tags are versions.
        versions: the application's versions.
        traces: of the person.
        erasure: id of the erasure, for manifests.
        stamp: who writes.
        on_changed: is told of each version before its tag moves, after which nothing shows that it was changed now.

    Returns how many scores by row went.
    """
    scored = 0
    for name, before in sorted(tags(lake, gold).items()):
        branch = lake.table(gold).metadata.refs.get(_branch(name))
        if branch is not None and branch.snapshot_id == before:
            _move_tag(lake, gold, name, before)
        folder = versions.folder(name) if version_number(name) else None
        exported = folder if folder is not None and folder.export.exists() else None
        keys = _keys(lake, gold, traces, before)
        found = find_rows(lake, gold, traces, before)
        exported_rows = 0
        if exported is not None:
            drop_older_revisions(exported)
            scored += erase_scored_rows(lake, exported, keys, traces.user_id)
            exported_rows = exported_rows_of(lake, exported, keys)
        if not found and not exported_rows:
            continue
        # The tag moves last: as long as it has not, a repeated run finds the rows and finishes.
        after = _rewritten(lake, gold, traces, name, before, list(found), exported, stamp) if found else before
        version = ErasedVersion(tag=name, snapshot_before=before, snapshot_after=after, gold_rows_removed=total(found))
        if exported is not None:
            version = _drop_training(exported, _revised(lake, exported, version, keys, found, erasure))
        elif folder is not None and folder.pin.exists():
            # Of a cut that was killed before it exported: pinned to the old snapshot it could never be finished.
            _move_pin(folder, after)
        if version.exported_rows_removed:
            _drop_work(lake, name)
        on_changed(version)
        _move_tag(lake, gold, name, after)
    return scored


def _drop_training(folder: VersionFolder, version: ErasedVersion) -> ErasedVersion:
    """Delete a model that was trained on rows that are gone, while it is in this folder only."""
    if not version.trained or folder.is_finished or folder.evaluation.exists():
        return version
    # By one rename first: a trainer takes half a folder for somebody else's. To a name of its own: what an erasure that
    # was killed has left there would be in the way.
    retired = folder.training.with_name(f".{folder.training.name}.{secrets.token_hex(8)}")
    os.rename(folder.training, retired)
    shutil.rmtree(retired)
    return msgspec.structs.replace(version, trained=False, training_dropped=True)


def _drop_work(lake: Lake, version: str) -> None:
    """Delete what a training or an evaluation left half done: it was made from the rows that are gone."""
    for step in ("training", "evaluation"):
        shutil.rmtree(lake.scratch / step / lake.application / version, ignore_errors=True)


def _revised(
    lake: Lake,
    folder: VersionFolder,
    version: ErasedVersion,
    keys: set[str],
    found: Mapping[Partition, Found],
    erasure: str,
) -> ErasedVersion:
    pin = read_pin(folder)
    pinned = sum(each.rows for (day, _), each in found.items() if day.isoformat() in pin.days)
    manifest = read_manifest(folder.export)
    if found and manifest.snapshot_id == version.snapshot_after:
        # A run that was killed had come this far.
        revised = manifest.erasures[-1]
    else:
        revised = revise_export(lake, folder, keys, version.snapshot_after, pinned, erasure)
    _move_pin(folder, version.snapshot_after)
    return msgspec.structs.replace(
        version,
        exported_rows_removed=sum(revised.rows_removed.values()),
        manifest_sha256_before=revised.manifest_sha256_before,
        manifest_sha256_after=manifest_sha256(folder.export),
        trained=folder.is_trained
        and any(rows for which, rows in revised.rows_removed.items() if which in (ExportSet.TRAIN, ExportSet.ACCEPTED)),
        copies=copies_of(folder),
    )


def _move_pin(folder: VersionFolder, snapshot_id: int) -> None:
    moved = msgspec.structs.replace(read_pin(folder), snapshot_id=snapshot_id)
    replace_file(folder.pin, msgspec.json.format(msgspec.json.encode(moved)))


def _keys(lake: Lake, gold: TableSpec, traces: Traces, snapshot_id: int) -> set[str]:
    """Keys of the person's examples in one snapshot of gold."""
    key = "pair_id" if "pair_id" in gold.schema.names else "prediction_id"
    with lake.connect() as connection:
        traces.register(connection)
        lake.register(connection, gold, None, view="whole", snapshot_id=snapshot_id)
        found = connection.execute(f"SELECT DISTINCT {key} FROM whole WHERE {traces.condition(gold)}").fetchall()
    examples = {each for (each,) in found}
    # A classification version is judged on rows that no example table holds: all predictions of later weeks.
    return examples if key == "pair_id" else examples | traces.prediction_ids


def _branch(tag: str) -> str:
    return f"erasing_{tag}"


def _rewritten(
    lake: Lake,
    spec: TableSpec,
    traces: Traces,
    name: str,
    snapshot_id: int,
    partitions: list[Partition],
    exported: VersionFolder | None,
    stamp: RunStamp,
) -> int:
    """A snapshot like the tagged one without the person's rows, kept by a branch; returns its id."""
    from flywheel_assets.lake.iceberg import swap_files

    branch = _branch(name)
    known = lake.table(spec).metadata.refs.get(branch)
    if known and exported is not None and read_manifest(exported.export).snapshot_id == known.snapshot_id:
        return known.snapshot_id
    files = {day: kept_file(lake, spec, traces, (day, stage), snapshot_id) for day, stage in partitions}
    placed: list[str] = []

    def rewrite(table: "Table") -> None:
        if branch in table.metadata.refs:
            table.manage_snapshots().remove_branch(branch).commit()
        table.manage_snapshots().create_branch(snapshot_id, branch).commit()
        placed.extend(lake.place(table, path) for path in [path for path in files.values() if path][len(placed) :])
        swap_files(table, lake.partition_filter(spec, list(files)), placed, stamp.properties(), branch)

    return lake.commit(spec, rewrite).metadata.refs[branch].snapshot_id


def _move_tag(lake: Lake, spec: TableSpec, name: str, snapshot_id: int) -> None:
    def move(table: "Table") -> None:
        if table.metadata.refs[name].snapshot_id != snapshot_id:
            # The one place that means to move a tag: a frozen version has changed, and its manifest says so.
            table.manage_snapshots().create_tag(snapshot_id, name).commit()
        if _branch(name) in table.metadata.refs:
            table.manage_snapshots().remove_branch(_branch(name)).commit()

    lake.commit(spec, move)
