"""Tagged versions without a person: the snapshot, the exports cut from it, the scores by row, and work in progress.

For each tag the snapshot is rewritten on a branch, the next revision of the export is prepared, the coming changes are
noted for the receipt, work in progress is deleted, the revision becomes visible, and the tag moves. A run that was
killed before the revision was visible finds the person's rows in the export and repeats everything. If it was killed
later, the next erasure moves the tag. A version whose tag contains nothing of the person is revised in the same way,
but its tag stays.
"""

import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from flywheel_assets.lake.daily.ledger import RunStamp
from flywheel_assets.lake.erasure._revisions import (
    PreparedRevision,
    count_exported_rows,
    drop_older_revisions,
    erase_scored_rows,
    prepare_revision,
)
from flywheel_assets.lake.erasure.person import Partition, PersonKeys, count_rows, find_rows, write_kept_rows
from flywheel_assets.lake.storage.files import replace_file
from flywheel_assets.lake.tables.lake import Lake, translate_swept_files
from flywheel_assets.lake.tables.specs import TableSpec
from flywheel_assets.lake.tables.tags import list_tags
from flywheel_assets.lake.versions.exports import EARLIER, FOLDS, LEARNT, ExportSet, read_manifest
from flywheel_assets.lake.versions.folders import VersionFolder, Versions, encode_pin, parse_version_number, read_pin
from flywheel_assets.lake.versions.publishing import list_copies

if TYPE_CHECKING:
    from pyiceberg.table import Table


class ErasedVersion(msgspec.Struct, frozen=True, kw_only=True):
    """The changes that an erasure made in one tagged version."""

    tag: str
    snapshot_before: int
    snapshot_after: int
    gold_rows_removed: int
    exported_rows_removed: int = 0
    manifest_sha256_before: str | None = None
    manifest_sha256_after: str | None = None
    trained: bool = False
    """A model was trained on rows that are gone: train another, or take it out of service."""
    fold_models: int = 0
    """Models of a cross-fit's folds, which judge its users, that were trained on rows that are gone."""
    training_dropped: bool = False
    """It was trained on rows that are gone, and not scored yet: its training was deleted, and is made again."""
    copies: list[str] = []
    """Destinations of its exports; only their owners can erase those."""

    def merge_earlier(self, known: "ErasedVersion | None") -> "ErasedVersion":
        """Merge with what an earlier attempt noted, whether that attempt came to change the version or not."""
        if known is None:
            return self
        merged = msgspec.structs.replace(
            self,
            trained=self.trained or (known.trained and not self.training_dropped),
            fold_models=max(self.fold_models, 0 if self.training_dropped else known.fold_models),
            training_dropped=self.training_dropped or known.training_dropped,
        )
        is_next = (
            self.manifest_sha256_before == known.manifest_sha256_after
            if self.manifest_sha256_before
            else self.snapshot_before == known.snapshot_after
        )
        if not is_next:
            # What was noted never became visible: its rows were found again.
            return merged
        return msgspec.structs.replace(
            merged,
            snapshot_before=known.snapshot_before,
            gold_rows_removed=known.gold_rows_removed + self.gold_rows_removed,
            exported_rows_removed=known.exported_rows_removed + self.exported_rows_removed,
            manifest_sha256_before=known.manifest_sha256_before,
        )


def erase_versions(
    lake: Lake,
    gold: TableSpec,
    versions: Versions,
    person: PersonKeys,
    erasure: str,
    stamp: RunStamp,
    on_changing: Callable[[ErasedVersion], None],
    on_scores: Callable[[str, int], None],
) -> None:
    """Rewrite every tag of gold that holds something of the person, and the exports cut from it.

    Args:
        lake: the application's tables.
        gold: the table whose tags are versions.
        versions: the application's versions.
        person: keys of what the person left.
        erasure: id of the erasure, for manifests.
        stamp: who writes.
        on_changing: gets each version before it changes; afterwards nothing shows that it was changed now.
        on_scores: gets the sha256 of each file of scores and how many rows it is about to lose.
    """
    for name in sorted(list_tags(lake, gold)):
        folder = versions.folder(name) if parse_version_number(name) else None
        exported = folder if folder is not None and folder.export.exists() else None
        if exported is not None:
            drop_older_revisions(exported)
        before = _finish_killed_move(lake, gold, name, exported)
        keys = _find_example_keys(lake, gold, person, before)
        found = find_rows(lake, gold, person, before)
        exported_rows = 0
        if exported is not None:
            erase_scored_rows(lake, exported, keys, person.user_id, on_scores)
            exported_rows = count_exported_rows(lake, exported, keys)
        if not found and not exported_rows:
            continue
        after = _rewrite_snapshot(lake, gold, person, name, before, list(found), stamp) if found else before
        version = ErasedVersion(
            tag=name, snapshot_before=before, snapshot_after=after, gold_rows_removed=count_rows(found)
        )
        if exported is not None:
            pin = read_pin(exported)
            pinned = sum(each for (day, _), each in found.items() if day.isoformat() in pin.days)
            revision = prepare_revision(lake, exported, keys, after, pinned, erasure)
            version = _add_export(version, exported, revision)
            on_changing(version)
            if version.training_dropped:
                _drop(exported.training)
            if version.exported_rows_removed and not exported.is_trained and exported.folds.exists():
                # The folds of a cross-fit are trained before the model that is deployed.
                _drop(exported.folds)
            if version.exported_rows_removed:
                _drop_work(lake, name)
            revision.publish()
            _move_pin(exported, after)
        else:
            on_changing(version)
            if folder is not None and folder.pin.exists():
                # Of a cut that was killed before it exported: pinned to the old snapshot it could never be finished.
                _move_pin(folder, after)
        _move_tag(lake, gold, name, after)


def _finish_killed_move(lake: Lake, gold: TableSpec, name: str, exported: VersionFolder | None) -> int:
    """Return the snapshot of a tag; finish moving the tag first where a killed erasure had published its revision."""
    references = lake.load_table(gold).metadata.refs
    before, branch = references[name].snapshot_id, references.get(_name_branch(name))
    if branch is None:
        return before
    is_revised = exported is not None and read_manifest(exported.export).snapshot_id == branch.snapshot_id
    if not is_revised and branch.snapshot_id != before:
        # It is made again from the tag: it may be without the rows of another person.
        return before
    if exported is not None:
        _move_pin(exported, branch.snapshot_id)
    _move_tag(lake, gold, name, branch.snapshot_id)
    return branch.snapshot_id


def _add_export(version: ErasedVersion, folder: VersionFolder, revision: PreparedRevision) -> ErasedVersion:
    """Add what the prepared revision will change, and what happens to a model that was trained on erased rows."""
    removed = revision.revised.rows_removed
    learnt = (*LEARNT, *FOLDS, *EARLIER, ExportSet.REFIT)
    trained = folder.is_trained and any(removed.get(which, 0) for which in learnt)
    # While it is in this folder only it can be made again.
    dropped = trained and not folder.is_finished and not folder.evaluation.exists()
    return msgspec.structs.replace(
        version,
        exported_rows_removed=sum(removed.values()),
        manifest_sha256_before=revision.revised.manifest_sha256_before,
        manifest_sha256_after=revision.manifest_sha256,
        trained=trained and not dropped,
        fold_models=0 if dropped or not trained else sum(removed.get(which, 0) > 0 for which in FOLDS),
        training_dropped=dropped,
        copies=list_copies(folder),
    )


def _drop(result: Path) -> None:
    # By one rename first: a trainer takes half a folder for another run's. To a name of its own: what an erasure that
    # was killed has left there would be in the way.
    retired = result.with_name(f".{result.name}.{secrets.token_hex(8)}")
    os.rename(result, retired)
    shutil.rmtree(retired)


def _drop_work(lake: Lake, version: str) -> None:
    """Delete what a training or an evaluation left half done: it was made from the rows that are gone."""
    for step in ("training", "evaluation"):
        shutil.rmtree(lake.scratch / step / lake.application / version, ignore_errors=True)


def _move_pin(folder: VersionFolder, snapshot_id: int) -> None:
    moved = msgspec.structs.replace(read_pin(folder), snapshot_id=snapshot_id)
    replace_file(folder.pin, encode_pin(moved))


def _find_example_keys(lake: Lake, gold: TableSpec, person: PersonKeys, snapshot_id: int) -> set[str]:
    """Find the keys of the person's examples in one snapshot of gold."""
    key = "pair_id" if "pair_id" in gold.schema.names else "prediction_id"
    with lake.connect() as connection:
        person.register(connection)
        lake.register(connection, gold, None, view="whole", snapshot_id=snapshot_id)
        found = connection.execute(
            f"SELECT DISTINCT {key} FROM whole WHERE {person.write_condition_sql(gold)}"
        ).fetchall()
    examples = {each for (each,) in found}
    # A classification version is judged on rows that no example table holds: all predictions of later weeks.
    return examples if key == "pair_id" else examples | person.prediction_ids


def _name_branch(tag: str) -> str:
    return f"erasing_{tag}"


def _rewrite_snapshot(
    lake: Lake,
    spec: TableSpec,
    person: PersonKeys,
    name: str,
    snapshot_id: int,
    partitions: list[Partition],
    stamp: RunStamp,
) -> int:
    """Write the tagged snapshot without the person's rows, on a branch; return the new snapshot's id."""
    from flywheel_assets.lake.tables.iceberg import swap_files

    branch = _name_branch(name)
    files = {day: write_kept_rows(lake, spec, person, (day, stage), snapshot_id) for day, stage in partitions}
    placed: list[str] = []

    def rewrite(table: "Table") -> None:
        if branch in table.metadata.refs:
            table.manage_snapshots().remove_branch(branch).commit()
        table.manage_snapshots().create_branch(snapshot_id, branch).commit()
        placed.extend(lake.place(table, path) for path in [path for path in files.values() if path][len(placed) :])
        with translate_swept_files(spec):
            swap_files(table, lake.filter_partitions(spec, list(files)), placed, stamp.properties, branch)

    return lake.commit(spec, rewrite).metadata.refs[branch].snapshot_id


def _move_tag(lake: Lake, spec: TableSpec, name: str, snapshot_id: int) -> None:
    def move(table: "Table") -> None:
        if table.metadata.refs[name].snapshot_id != snapshot_id:
            # The one place that means to move a tag: a frozen version has changed, and its manifest says so.
            table.manage_snapshots().create_tag(snapshot_id, name).commit()
        if _name_branch(name) in table.metadata.refs:
            table.manage_snapshots().remove_branch(_name_branch(name)).commit()

    lake.commit(spec, move)
