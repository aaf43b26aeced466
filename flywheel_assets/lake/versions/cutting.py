"""Cuts gold versions: `<word>_gold_v<N>` is a tag on an application's gold table, resolved once and exported.

    <versions_dir>/<application>/dpo_gold_v<N>/
        pin.json        names the snapshots and the closed days of the version; written first; only an erasure changes
                        it, to the snapshot without the person (see `lake.versions.pins`)
        export/         the rows for training and evaluation, sealed by a manifest (see `lake.versions.exports`)
        training/       the trainer's result
        folds/fold_1 …  of a cross-fit: the results of the folds' trainings, each judged by users it has not seen
        evaluation/     the scores
        promotion.json  the decision; with it the version is finished

A cut has three steps: pin, tag, export. A repeated run finds each of them done, or does it. The pin alone decides
about the version's rows, so a crash between any two steps changes nothing; the snapshots that the pin names are kept
from expiry until the export is complete. A pin with nothing to train on is withdrawn before anything is tagged.
Resolving differs by kind: see `lake.versions.pair_versions` and `lake.versions.example_versions`.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from flywheel_assets.errors import EmptyVersionError, VersionConflictError
from flywheel_assets.lake.storage.failures import clean_up_on_failure, translate_disk_full
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.probing import name_damaged_tables
from flywheel_assets.lake.tables.specs import TableSpec
from flywheel_assets.lake.tables.tags import create_tag
from flywheel_assets.lake.versions.exclusions import count_excluded_per_day, find_exclusions
from flywheel_assets.lake.versions.exports import ExportedFile, ExportSet, Manifest, verify_manifest, write_export
from flywheel_assets.lake.versions.folders import Pin, VersionFolder, Versions
from flywheel_assets.lake.versions.pins import pin_version, release_snapshots, withdraw_pin
from flywheel_assets.records import Reason


class Resolved(Protocol):
    """Holds the rows of a version once its pin is resolved, ready to be exported."""

    @property
    def training_rows(self) -> int:
        """Rows to train on."""

    @property
    def dropped(self) -> dict[str, int]:
        """Rows of the closed days that resolving leaves out, by reason code; it never sees the excluded ones."""

    @property
    def details(self) -> Mapping[str, Any]:
        """Facts that only this kind of version records in its manifest."""

    def write_files(self, folder: Path) -> dict[ExportSet, ExportedFile]:
        """Write the export's files, durably."""


Resolve = Callable[[Lake, Pin], AbstractContextManager[Resolved]]


@name_damaged_tables
@clean_up_on_failure
def cut_version(
    lake: Lake,
    versions: Versions,
    version: str,
    gold: TableSpec,
    resolve: Resolve,
    rules: Mapping[str, Any],
    code_version: str,
    also_read: Sequence[TableSpec] = (),
) -> Manifest:
    """Pin the gold table's closed days under `version`, resolve and export them; a repeated cut only verifies.

    Cuts of one application run one after another: of two at once the second finds what the first has made.

    Args:
        lake: the application's tables.
        versions: the application's versions.
        version: `<word>_gold_v<N>`.
        gold: the table that is pinned and tagged.
        resolve: gives the rows of a pin's closed days.
        rules: of `resolve`, for the manifest.
        code_version: of the resolving logic, for the manifest.
        also_read: the other tables that `resolve` reads; it finds their snapshots in the pin.

    Raises:
        EmptyVersionError: no closed day holds anything to train on.
        VersionConflictError: the tag or the export exists with other content.
        UnknownNameError: a snapshot that it was pinned to is gone.
        CommitContentionError: another version is being cut, and was for two minutes.
        DiskFullError: no space is left.
    """
    with lake.lock_versions(), translate_disk_full(versions.root, *lake.places):
        return _cut(lake, versions.folder(version), gold, resolve, rules, code_version, also_read)


def _cut(
    lake: Lake,
    folder: VersionFolder,
    gold: TableSpec,
    resolve: Resolve,
    rules: Mapping[str, Any],
    code_version: str,
    also_read: Sequence[TableSpec],
) -> Manifest:
    version = folder.version
    pin = pin_version(lake, folder, gold, also_read)
    if folder.export.exists():
        create_tag(lake, gold, pin.version, pin.snapshot_id)
        manifest = _verify_export(folder, pin)
    else:
        with resolve(lake, pin) as resolved:
            if not resolved.training_rows:
                withdraw_pin(lake, folder, gold, also_read)
                raise EmptyVersionError(
                    f"{version} has no training row in {len(pin.days)} closed days: nothing to train on"
                )
            create_tag(lake, gold, pin.version, pin.snapshot_id)
            exclusions = find_exclusions(lake, pin.exclusions)
            excluded = count_excluded_per_day(lake, gold, exclusions, pin.dates, pin.snapshot_id)
            manifest = write_export(
                folder.export,
                version=version,
                application=lake.application,
                snapshot_id=pin.snapshot_id,
                write_files=resolved.write_files,
                dropped=resolved.dropped | ({Reason.EXCLUDED.value: sum(excluded.values())} if excluded else {}),
                exclusions={exclusion.id: exclusion.rule.describe() for exclusion in exclusions},
                days=pin.days,
                rules=rules,
                code_version=code_version,
                details=resolved.details,
            )
    release_snapshots(lake, version, (gold, *also_read))
    return manifest


def _verify_export(folder: VersionFolder, pin: Pin) -> Manifest:
    """Check an export that exists; later rules or code would resolve the same pin differently."""
    manifest = verify_manifest(folder.export)
    if (manifest.snapshot_id, manifest.days) != (pin.snapshot_id, pin.days):
        raise VersionConflictError(
            f"the export of {folder.version} was made from snapshot {manifest.snapshot_id} and {len(manifest.days)} "
            f"days, its pin says {pin.snapshot_id} and {len(pin.days)}. Versions never change: cut a new one."
        )
    return manifest
