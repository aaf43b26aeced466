"""Does the repairs that lose nothing: what could be read before can be read afterwards, here or in `set_aside`."""

import shutil
from datetime import date
from pathlib import Path

from flywheel_assets.errors import InvalidRuleError
from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.fsck.findings import Finding, MendKind
from flywheel_assets.lake.storage.files import replace_file
from flywheel_assets.lake.tables.home import HOME_FILE, MARKER_FILE
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import ApplicationTables
from flywheel_assets.lake.versions.exports import verify_manifest
from flywheel_assets.lake.versions.folders import Pin, VersionFolder, Versions, encode_pin
from flywheel_assets.records import Reason

SET_ASIDE = "set_aside"
"""Folder of a home for damaged files; nothing reads it, and a person empties it."""


def mend(finding: Finding, lake: Lake, versions: Versions, today: date) -> str:
    """Do the repair of one finding, other than making a day again; return a sentence about it.

    Raises:
        InvalidRuleError: the finding has no such repair.
        FlywheelError: it could not be done.
    """
    wanted = finding.mend
    if wanted is None or wanted.kind is MendKind.MAKE_DAY:
        raise InvalidRuleError(f"{finding.place} has no repair that is a change of files")
    if wanted.kind is MendKind.WRITE_HOME_ID:
        return f"the home's id is {lake.verify_home()} in every part"
    assert wanted.path is not None
    if wanted.kind is MendKind.REMOVE_LEFTOVER:
        if wanted.path.is_dir():
            shutil.rmtree(wanted.path, ignore_errors=True)
        else:
            wanted.path.unlink(missing_ok=True)
        return f"removed {wanted.path}"
    if wanted.kind is MendKind.WRITE_PIN:
        assert wanted.version is not None
        _write_pin(lake, versions.folder(wanted.version), today)
        return f"wrote {wanted.path} from the export's manifest"
    moved = _set_aside(lake, wanted.path, today)
    if wanted.path.name in (HOME_FILE, MARKER_FILE):
        lake.verify_home()
    return f"moved {wanted.path} to {moved}"


def explain_refusal(lake: Lake, tables: ApplicationTables, day: date) -> str | None:
    """Explain why a day must not be made again by itself; None: it may be.

    A rollback has set its rows: made again it would hold others.
    """
    for spec in (tables.joined, tables.gold):
        entry = ledger.read_entries(lake, spec.name, [day]).get(day)
        if entry is not None and Reason.ROLLED_BACK.value in entry.rows_by_reason:
            return f"{day} was rolled back, and made again it would hold other rows: decide, then `flywheel backfill`"
    return None


def _write_pin(lake: Lake, folder: VersionFolder, today: date) -> None:
    """Write the pin of an exported version; what else it read, the export does not need any more."""
    with lake.lock_versions():
        manifest = verify_manifest(folder.export)
        pin = Pin(
            version=folder.version,
            snapshot_id=manifest.snapshot_id,
            days=manifest.days,
            exclusions=sorted(manifest.exclusions),
        )
        if folder.pin.exists():
            _set_aside(lake, folder.pin, today)
        replace_file(folder.pin, encode_pin(pin))


def _set_aside(lake: Lake, path: Path, today: date) -> Path:
    home = lake.home.folder
    inside = path.relative_to(home) if path.is_relative_to(home) else Path(*path.parts[1:])
    target = home / SET_ASIDE / today.isoformat() / inside
    number = 1
    while target.exists():
        number += 1
        target = target.with_name(f"{inside.name}.{number}")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(path, target)
    return target
