"""Gold versions: `<word>_gold_v<N>` is a tag on an application's gold table, resolved once and exported.

    <versions_dir>/<application>/dpo_gold_v<N>/
        pin.json        which snapshots and which closed days the version consists of; written first; only an
                        erasure changes it, to the snapshot without the person (see `lake.versions.pins`)
        export/         what is trained and evaluated on, sealed by a manifest (see `lake.versions.exports`)
        training/       the trainer's result
        evaluation/     the scores
        promotion.json  the decision; with it the version is finished

Cutting a version is three steps, each of which a repeated run finds done or does: pin, tag, export. What the version
holds is decided by the pin alone, so a crash between any two of them changes nothing; what the pin names is kept from
expiry until the export is complete. A pin with nothing to train on is taken back before anything is tagged. What
resolving means differs by kind: see `lake.versions.pair_versions` and `lake.versions.example_versions`.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import msgspec

from flywheel_assets.errors import EmptyVersionError, VersionConflictError
from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.storage.failures import clean_up_on_failure, translate_disk_full
from flywheel_assets.lake.storage.files import replace_file, write_once
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import ApplicationTables, TableSpec
from flywheel_assets.lake.tables.tags import create_tag, list_tags
from flywheel_assets.lake.versions.exclusions import excluded_per_day, in_force, pinned
from flywheel_assets.lake.versions.exports import ExportedFile, ExportSet, Manifest, verify_manifest, write_export
from flywheel_assets.lake.versions.folders import _VERSION, VersionFolder, Versions, read_pin
from flywheel_assets.lake.versions.pins import (
    Pin,
    encode_pin,
    held_versions,
    hold_head,
    hold_pinned,
    is_lost,
    release_snapshots,
)
from flywheel_assets.records import Reason


class Resolved(Protocol):
    """What a version consists of once its pin is resolved, ready to be exported."""

    @property
    def training_rows(self) -> int:
        """Rows to train on."""

    @property
    def dropped(self) -> dict[str, int]:
        """Rows of the closed days that resolving leaves out, by reason code; excluded ones it is never given."""

    @property
    def details(self) -> Mapping[str, Any]:
        """What only this kind of version records in its manifest."""

    def write_files(self, folder: Path) -> dict[ExportSet, ExportedFile]:
        """Write the export's files, durably."""


Resolve = Callable[[Lake, Pin], AbstractContextManager[Resolved]]


def tagged_versions(lake: Lake, gold: TableSpec) -> dict[str, int]:
    """Every gold version that is a tag in the lake, with its snapshot id."""
    return {name: snapshot_id for name, snapshot_id in list_tags(lake, gold).items() if _VERSION.match(name)}


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
    """Pin the gold table's closed days under `version`, resolve and export them; a repeated cut verifies and returns.

    One at a time for each application: of two cuts at once the second finds what the first has made.

    Args:
        lake: the application's tables.
        versions: the application's versions.
        version: `<word>_gold_v<N>`.
        gold: the table that is pinned and tagged.
        resolve: gives what a pin's closed days come to.
        rules: by which it resolves, for the manifest.
        code_version: of the resolving logic, for the manifest.
        also_read: the other tables that `resolve` reads; it finds their snapshots in the pin.

    Raises:
        EmptyVersionError: no closed day holds anything to train on.
        VersionConflictError: the tag or the export exists with other content.
        UnknownNameError: what it was pinned to is gone.
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
    _forget_lost_pin(lake, folder, gold, also_read)
    pin = _pin(lake, folder, gold, also_read)
    if folder.export.exists():
        create_tag(lake, gold, pin.version, pin.snapshot_id)
        manifest = _verified(folder, pin)
    else:
        with resolve(lake, pin) as resolved:
            if not resolved.training_rows:
                if version not in tagged_versions(lake, gold):
                    # Nothing was begun: the same name may be cut again when there is something to train on.
                    folder.pin.unlink()
                    release_snapshots(lake, version, (gold, *also_read))
                raise EmptyVersionError(
                    f"{version} has no training row in {len(pin.days)} closed days: nothing to train on"
                )
            create_tag(lake, gold, pin.version, pin.snapshot_id)
            exclusions = pinned(lake, pin.exclusions)
            excluded = excluded_per_day(lake, gold, exclusions, pin.dates, pin.snapshot_id)
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


def _verified(folder: VersionFolder, pin: Pin) -> Manifest:
    """An export that exists is checked, not made again: later rules or code would resolve the same pin differently."""
    manifest = verify_manifest(folder.export)
    if (manifest.snapshot_id, manifest.days) != (pin.snapshot_id, pin.days):
        raise VersionConflictError(
            f"the export of {folder.version} was made from snapshot {manifest.snapshot_id} and {len(manifest.days)} "
            f"days, its pin says {pin.snapshot_id} and {len(pin.days)}. Versions never change: cut a new one."
        )
    return manifest


def _forget_lost_pin(lake: Lake, folder: VersionFolder, gold: TableSpec, also_read: Sequence[TableSpec]) -> None:
    """Take back the pin of a cut that was killed before it tagged, and whose snapshots were not kept, and expired.

    Nobody has seen anything of that version: it may be pinned anew. Left there, it could never be cut.
    """
    if not folder.pin.exists() or folder.export.exists() or folder.version in tagged_versions(lake, gold):
        return
    if is_lost(lake, read_pin(folder), gold, also_read):
        folder.pin.unlink()


def _pin(lake: Lake, folder: VersionFolder, gold: TableSpec, also_read: Sequence[TableSpec]) -> Pin:
    """What the version is pinned to, now or by an earlier cut; while there is no export, its snapshots are kept."""
    if folder.export.exists() or (not folder.pin.exists() and _pin_now(lake, folder, gold, also_read)):
        return read_pin(folder)
    # Where cuts do not see each other's lock, the pin that was written first is the one that holds for both.
    pin = read_pin(folder)
    unpinned = [spec for spec in also_read if spec.name not in pin.also_read]
    if unpinned:
        # Of older code, which read their heads, or without what an erasure has let go: from here on it says which.
        now = {spec.name: hold_head(lake, spec, folder.version) for spec in unpinned}
        pin = msgspec.structs.replace(pin, also_read={**pin.also_read, **now})
        replace_file(folder.pin, encode_pin(pin))
    hold_pinned(lake, pin, gold, also_read)
    return pin


def _pin_now(lake: Lake, folder: VersionFolder, gold: TableSpec, also_read: Sequence[TableSpec]) -> bool:
    """Pin the closed days as they stand; False where another cut was faster."""
    # In this order a day that is curated in between is left to the next version, not taken for covered.
    days = ledger.closed_days(lake, gold.name)
    snapshot_id = hold_head(lake, gold, folder.version) if days else None
    if snapshot_id is None:
        raise EmptyVersionError(
            f"{folder.version}: gold has no closed day yet. A day closes when it is materialized "
            "later than 15 minutes after its end (UTC)."
        )
    pin = Pin(
        version=folder.version,
        snapshot_id=snapshot_id,
        days={day.isoformat(): content for day, content in days.items()},
        exclusions=[exclusion.id for exclusion in in_force(lake)],
        also_read={spec.name: hold_head(lake, spec, folder.version) for spec in also_read},
    )
    return write_once(folder.pin, encode_pin(pin))


def release_ended_cuts(lake: Lake, versions: Versions, tables: ApplicationTables) -> None:
    """Stop keeping snapshots for cuts that have ended without doing so: killed after the export, or abandoned.

    Raises:
        CommitContentionError: there are such, and another version is being cut, and was for two minutes.
    """
    specs = _readable(tables)

    def ended() -> list[str]:
        folders = map(versions.folder, held_versions(lake, specs))
        return [each.version for each in folders if not each.pin.exists() or each.export.exists() or each.is_finished]

    if ended():
        # Asked again: a cut holds before it pins.
        with lake.lock_versions():
            for version in ended():
                release_snapshots(lake, version, specs)


def release_unfinished_cuts(lake: Lake, versions: Versions, tables: ApplicationTables) -> None:
    """Let cuts that were killed before their export read what is there now; for an erasure, while no version is cut.

    Kept, their snapshots would hold the person's rows. Nobody has seen anything of those versions but perhaps the tag,
    which erases like any other. What is not tagged is pinned anew, what is reads the other tables' heads.
    """
    tagged = tagged_versions(lake, tables.gold)
    for folder in versions:
        if not folder.pin.exists() or folder.export.exists():
            continue
        if folder.version in tagged:
            replace_file(folder.pin, encode_pin(msgspec.structs.replace(read_pin(folder), also_read={})))
        else:
            folder.pin.unlink()
    for version in held_versions(lake, _readable(tables)):
        release_snapshots(lake, version, _readable(tables))


def _readable(tables: ApplicationTables) -> tuple[TableSpec, ...]:
    """The tables whose rows a version may be made of."""
    return tables.gold, tables.joined, tables.predictions
