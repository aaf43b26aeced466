"""Checks a home's ids and small files, and looks for work that killed processes left."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from flywheel_assets.errors import DamagedFileError, HomeMismatchError
from flywheel_assets.lake.fsck.findings import ALTERED, Finding, Mend, MendKind, Report
from flywheel_assets.lake.landing.disk import OWNER_FILE, DiskLanding
from flywheel_assets.lake.storage.files import decode_file
from flywheel_assets.lake.tables.home import HOME_FILE, MARKER_FILE, Home, find_local_path
from flywheel_assets.lake.upkeep.garbage import find_last_write, find_unfinished_work
from flywheel_assets.lake.versions.folders import Versions

_LEFT_AFTER = timedelta(days=1)
"""As in the weekly maintenance: what nothing has written to for so long is a killed process's."""
_SMALL_FILES = {
    "capture_keys.json": "restore it from a backup; else move it away and create new keys: `flywheel keys create`.",
}


def check_home(home: Home, landing_folder: Path | None, report: Report) -> None:
    """Check the ids of a home's parts, without writing one.

    Args:
        home: the application's view of its home.
        landing_folder: the landing folder on this machine; None: landing is elsewhere.
        report: takes the findings.
    """
    report.count("homes' parts", 3)
    report.add(_compare_ids(home, landing_folder))


def _compare_ids(home: Home, landing_folder: Path | None) -> Iterator[Finding]:
    place = f"home of {home.application}"
    try:
        found = home.read_ids(sweeps=True)
    except HomeMismatchError as error:
        far = f"{home.root}/{MARKER_FILE}"
        if find_local_path(far) is None and f"{far} is damaged" in str(error):
            repair = "delete the object; `flywheel fsck --repair` or the next commit writes it again."
            yield Finding(place, far, "cannot be read", ALTERED, repair)
            return
        for marker in _list_markers(home):
            if f"{marker} is damaged" in str(error):
                repair = "`flywheel fsck --repair` sets it aside and writes it again from the home's other parts."
                yield Finding(place, str(marker), "cannot be read", ALTERED, repair, Mend(MendKind.SET_ASIDE, marker))
                return
        cause = "Parts were copied, moved, exchanged or lost: see docs/disaster_recovery.md."
        yield Finding(place, "", str(error).removesuffix("."), cause, "the command that the sentence names.")
        return
    missing = {"the home", "the catalog", "the warehouse"} - found.keys()
    if not home.read_catalog()[0]:
        # An application without a table has not committed, and carries the id from its first commit on.
        missing -= {"the catalog"}
    if found and missing:
        far = f"{home.root}/{MARKER_FILE}"
        without = {"the home": str(home.folder / HOME_FILE), "the warehouse": str(find_local_path(far) or far)}
        yield Finding(
            place,
            ", ".join(str(without[part]) for part in sorted(missing) if part in without),
            f"is missing: {' and '.join(sorted(missing))} carries no id, the other parts do",
            "A file was deleted, or a part restored from before the first commit.",
            "`flywheel fsck --repair` writes it from the others, as the next commit does.",
            Mend(MendKind.WRITE_HOME_ID),
        )
    if landing_folder is None or not found:
        return
    try:
        owner = DiskLanding(landing_folder).read_owner()
    except HomeMismatchError:
        marker = landing_folder / OWNER_FILE
        repair = "`flywheel fsck --repair` sets it aside; the next ingest writes it again."
        yield Finding(place, str(marker), "cannot be read", ALTERED, repair, Mend(MendKind.SET_ASIDE, marker))
        return
    own = next(iter(found.values()))
    if owner is not None and owner.id != own:
        yield Finding(
            place,
            str(landing_folder),
            f"belongs to the home {owner.id}, and this home is {own}",
            "The landing folder was exchanged, or FLYWHEEL_LANDING_DIR names another home's.",
            "set FLYWHEEL_LANDING_DIR to this home's; where this home shall have it, `flywheel move --yes`.",
        )


def _list_markers(home: Home) -> list[Path]:
    warehouse = find_local_path(home.root)
    return [home.folder / HOME_FILE, *([warehouse / MARKER_FILE] if warehouse is not None else [])]


def check_small_files(folder: Path, report: Report) -> None:
    """Check the small JSON files of a home that no other check reads."""
    for name, repair in _SMALL_FILES.items():
        try:
            decode_file(folder / name, Any, "")
        except FileNotFoundError:
            continue
        except DamagedFileError:
            report.add([Finding("home", str(folder / name), "is no JSON", ALTERED, repair)])


def check_leftovers(scratch: Path, versions: Versions, now: datetime, report: Report) -> None:
    """Find what killed processes have left: unfinished files that nothing has written to for a day."""
    for journal in sorted((scratch / "garbage").glob(f"{versions.application}.*.json")):
        try:
            decode_file(journal, Any, "")
        except (DamagedFileError, FileNotFoundError) as error:
            if isinstance(error, DamagedFileError):
                repair = "`flywheel fsck --repair` sets it aside: unreachable files then wait a grace period again."
                mend = Mend(MendKind.SET_ASIDE, journal)
                report.add([Finding("maintenance", str(journal), "is no JSON", ALTERED, repair, mend)])
    for path in find_unfinished_work(scratch, versions):
        if find_last_write(path) < (now - _LEFT_AFTER).timestamp():
            report.add(
                [
                    Finding(
                        "unfinished work",
                        str(path),
                        "was left",
                        "Its process was killed; it may hold users' texts.",
                        f"`flywheel maintain --application {versions.application} --yes` removes it.",
                        Mend(MendKind.REMOVE_LEFTOVER, path),
                    )
                ]
            )
