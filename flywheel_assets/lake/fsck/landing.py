"""Compares the segments of every closed landing day with what its `_CLOSED.json` records: there, size, sha256."""

from collections.abc import Iterator
from datetime import date
from pathlib import Path

from flywheel_assets.errors import ClosedDayError, LandingError
from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.daily.history import list_history_imports
from flywheel_assets.lake.daily.ledger import LedgerEntry
from flywheel_assets.lake.fsck.accounts import confirm_alone
from flywheel_assets.lake.fsck.findings import ALTERED, LOST, Finding, Report, Sample
from flywheel_assets.lake.landing.disk import (
    CLOSED_FILE,
    FIRST_DAY_FILE,
    EventKind,
    LandingZone,
    digest_content,
    list_unfinished,
    read_closing,
)
from flywheel_assets.lake.landing.protocol import Landing, LandingPlace
from flywheel_assets.lake.storage.files import hash_file
from flywheel_assets.lake.tables.lake import Lake


def check_landing(
    lake: Lake,
    landing: LandingPlace,
    accounts: dict[EventKind, str],
    sample: Sample,
    report: Report,
    *,
    is_retired: bool,
) -> None:
    """Check every closed day of an application's landing.

    Args:
        lake: whose ledger says which days the tables hold.
        landing: the landing zone.
        accounts: by kind of event the raw table; empty where the ledger cannot be read.
        sample: draws the segments that are hashed.
        report: takes the findings.
        is_retired: segments of days that the tables hold may be gone, by the application's rules.
    """
    if landing.find_folder(lake.application) is not None:
        _check_first_day(landing, lake, report, reads_lake=bool(accounts))
    for kind in EventKind:
        zone = landing.open_zone(lake.application, kind)
        entries = ledger.read_entries(lake, accounts[kind]) if kind in accounts else {}
        closed = [day for day, entry in entries.items() if entry.is_closed] if isinstance(zone, LandingZone) else []
        for day in sorted({*zone.list_days(), *closed}):
            if isinstance(zone, LandingZone):
                look = _LookOnDisk(zone, day, entries.get(day), sample, report, is_retired=is_retired)
                confirm_alone(lake, report, f"landing day {day} of {lake.application}/{kind}", look)
            else:
                _look_elsewhere(lake, zone, day, kind, sample, report)


class _LookOnDisk:
    """Looks at one day; called again, it counts nothing twice."""

    def __init__(
        self,
        zone: LandingZone,
        day: date,
        entry: LedgerEntry | None,
        sample: Sample,
        report: Report,
        *,
        is_retired: bool,
    ) -> None:
        self._zone, self._day, self._entry, self._sample, self._report = zone, day, entry, sample, report
        self._is_retired, self._is_first = is_retired, True

    def __call__(self) -> Iterator[Finding]:
        is_first, self._is_first = self._is_first, False
        zone, day = self._zone, self._day
        folder = zone.find_day_folder(day)
        place = f"landing day {day} of {zone.application}/{zone.kind}"
        again = f"`flywheel backfill {day} {day} --application {zone.application}` reads the day again"
        for path in list_unfinished(folder):
            yield Finding(
                place,
                str(path),
                "is unfinished",
                "An erasure or an import of history was killed.",
                f"`flywheel maintain --application {zone.application} --yes` clears imports; give an erasure again.",
            )
        closed_file = folder / CLOSED_FILE
        if not closed_file.exists():
            if self._entry is not None and self._entry.is_closed:
                restore = (
                    f"restore the file from a backup; else {again}, closes it with the segments that lie there, and "
                    "`flywheel stale` names what differs."
                )
                yield Finding(place, str(closed_file), "is missing", LOST, restore)
            elif is_first and any(folder.glob("*.jsonl")):
                self._report.not_looked_at.append(
                    f"segments of {place}: the day is open, and no sha256 is recorded before it closes"
                )
            return
        if is_first:
            self._report.count("closed landing days")
        try:
            closing = read_closing(closed_file)
        except ClosedDayError:
            restore = "restore the file from a backup; until then the tables keep the day's rows."
            yield Finding(place, str(closed_file), "cannot be read", ALTERED, restore)
            return
        digest = digest_content([(segment.name, segment.sha256) for segment in closing.segments])
        may_be_gone = (
            self._is_retired
            and self._entry is not None
            and self._entry.is_closed
            and self._entry.content_hash == digest
        )
        for segment in closing.segments:
            path = folder / segment.name
            restore = f"restore the file from a backup; the tables keep the day's rows. Then {again}."
            problem = _find_problem(path, segment.bytes, None)
            if problem is None and self._sample.draws(f"{day}/{segment.name}"):
                problem = _find_problem(path, segment.bytes, segment.sha256)
                if is_first:
                    self._report.bytes_read += segment.bytes
            if is_first:
                self._report.count("landed segments")
            if problem == "is missing" and may_be_gone:
                continue
            if problem is not None:
                yield Finding(place, str(path), problem, LOST if problem == "is missing" else ALTERED, restore)


def _find_problem(path: Path, size: int, sha256: str | None) -> str | None:
    try:
        found = path.stat().st_size
        if found != size:
            return f"has {found:,} bytes, its closing recorded {size:,}"
        if sha256 is not None and hash_file(path) != sha256:
            return "has another sha256 than its closing recorded"
    except FileNotFoundError:
        return "is missing"
    return None


def _look_elsewhere(lake: Lake, zone: Landing, day: date, kind: EventKind, sample: Sample, report: Report) -> None:
    """Look at a day on S3, where each segment has its sha256 in its name; fetching compares it."""
    place = f"landing day {day} of {lake.application}/{kind}"
    try:
        landed = zone.look(day)
        if landed.is_closed:
            report.count("closed landing days")
        if sample.draws(f"{day}/{kind}"):
            with zone.fetch(landed, lake.scratch / "landing") as paths:
                report.count("landed segments", len(paths))
                report.bytes_read += sum(path.stat().st_size for path in paths)
    except LandingError as error:
        restore = "restore the object from an older version or a backup; the tables keep the day's rows."
        report.add([Finding(place, "", f"cannot be read: {error}", ALTERED, restore)])


def _check_first_day(landing: LandingPlace, lake: Lake, report: Report, *, reads_lake: bool) -> None:
    problem = None
    try:
        if landing.read_first_day(lake.application) is None and reads_lake and list_history_imports(lake):
            problem, cause = "is missing, and history was imported", LOST
    except LandingError:
        problem, cause = "cannot be read", ALTERED
    if problem is not None:
        path = str((landing.find_folder(lake.application) or Path()) / FIRST_DAY_FILE)
        restore = 'restore it from a backup, or write {"first_day": "YYYY-MM-DD"}; `flywheel history` lists the days.'
        report.add([Finding(f"first day of {lake.application}", path, problem, cause, restore)])
