"""Compares the segments of every closed landing day with what its `_CLOSED.json` records: there, size, sha256."""

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

from flywheel_assets.errors import (
    ClosedDayError,
    HomeMismatchError,
    LandingError,
    LandingRetiredError,
)
from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.daily.history import list_history_imports
from flywheel_assets.lake.daily.ledger import LedgerEntry
from flywheel_assets.lake.fsck.accounts import confirm_alone
from flywheel_assets.lake.fsck.findings import ALTERED, LOST, Finding, Report, Sample
from flywheel_assets.lake.landing.disk import (
    CLOSED_FILE,
    FIRST_DAY_FILE,
    OWNER_FILE,
    EventKind,
    LandingZone,
    digest_content,
    list_unfinished,
    read_closing,
)
from flywheel_assets.lake.landing.protocol import LandingPlace
from flywheel_assets.lake.landing.s3 import ObjectLanding, ObjectLandingZone
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
    _check_first_day(landing, lake, report, reads_lake=bool(accounts))
    if isinstance(landing, ObjectLanding):
        report.add(_check_owner(landing, lake))
    for kind in EventKind:
        zone = landing.open_zone(lake.application, kind)
        entries = ledger.read_entries(lake, accounts[kind]) if kind in accounts else {}
        closed = [day for day, entry in entries.items() if entry.is_closed]
        for day in sorted({*zone.list_days(), *closed}):
            place, entry = f"landing day {day} of {lake.application}/{kind}", entries.get(day)
            if isinstance(zone, LandingZone):
                look = _LookOnDisk(zone, day, entry, sample, report, is_retired=is_retired)
                confirm_alone(lake, report, place, look)
            elif isinstance(zone, ObjectLandingZone):
                scratch = lake.scratch / "landing"
                far = _LookOnS3(zone, day, entry, sample, report, scratch, is_retired=is_retired)
                confirm_alone(lake, report, place, far)


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


class _LookOnS3:
    """Looks at one day on S3; called again, it counts nothing twice."""

    def __init__(
        self,
        zone: ObjectLandingZone,
        day: date,
        entry: LedgerEntry | None,
        sample: Sample,
        report: Report,
        scratch: Path,
        *,
        is_retired: bool,
    ) -> None:
        self._zone, self._day, self._entry, self._sample, self._report = zone, day, entry, sample, report
        self._scratch, self._is_retired, self._is_first = scratch, is_retired, True

    def __call__(self) -> Iterator[Finding]:
        is_first, self._is_first = self._is_first, False
        zone, day = self._zone, self._day
        where = zone.build_uri(zone.build_key(day, ""))
        restore = "restore an older version of the object, or the one of a backup; the tables keep the day's rows."
        try:
            sealed = zone.find_closing(day)
        except ClosedDayError:
            yield self._find(f"{where}{CLOSED_FILE}", "cannot be read", ALTERED, restore)
            return
        if sealed is None:
            if self._entry is not None and self._entry.is_closed:
                yield self._find(f"{where}{CLOSED_FILE}", "is missing", LOST, restore)
            return
        closing = sealed.closing
        if is_first:
            self._report.count("closed landing days")
        digest = digest_content([(segment.name, segment.sha256) for segment in closing.segments])
        entry = self._entry
        may_be_gone = self._is_retired and entry is not None and entry.is_closed and entry.content_hash == digest
        there = {segment.name: segment.bytes for segment in zone.list_segments(day)}
        for segment in closing.segments:
            size = there.get(segment.name)
            if is_first:
                self._report.count("landed segments")
            if size is None:
                if not may_be_gone:
                    yield self._find(f"{where}{segment.name}", "is missing", LOST, restore)
            elif size != segment.bytes:
                problem = f"has {size:,} bytes, its closing recorded {segment.bytes:,}"
                yield self._find(f"{where}{segment.name}", problem, ALTERED, restore)
            elif self._sample.draws(f"{day}/{segment.name}"):
                if is_first:
                    self._report.bytes_read += size
                if not self._is_whole(segment.name):
                    problem = "has another sha256 than its name and its closing recorded"
                    yield self._find(f"{where}{segment.name}", problem, ALTERED, restore)

    def _is_whole(self, name: str) -> bool:
        self._scratch.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=self._scratch, prefix="fsck-") as folder:
            try:
                self._zone.download(self._day, name, Path(folder) / "segment.jsonl")
            except LandingRetiredError:
                return True  # an erasure has replaced it since it was listed
            except ClosedDayError:
                return False
        return True

    def _find(self, file: str, problem: str, cause: str, repair: str) -> Finding:
        place = f"landing day {self._day} of {self._zone.folder}"
        return Finding(place, file, problem, cause, repair)


def _check_owner(landing: ObjectLanding, lake: Lake) -> Iterator[Finding]:
    place, file = f"home of {lake.application}", f"{landing.place}/{OWNER_FILE}"
    try:
        owner = landing.read_owner()
    except HomeMismatchError:
        yield Finding(place, file, "cannot be read", ALTERED, "delete the object; the next ingest writes it again.")
        return
    own = lake.home.find_id()
    if owner is not None and own is not None and owner.id != own:
        problem = f"names the home {owner.id}, and this home is {own}"
        cause = "FLYWHEEL_LANDING_S3 names another home's landing zone."
        yield Finding(place, file, problem, cause, "set it to this home's; else `flywheel move --yes`.")


def _check_first_day(landing: LandingPlace, lake: Lake, report: Report, *, reads_lake: bool) -> None:
    problem = None
    try:
        if landing.read_first_day(lake.application) is None and reads_lake and list_history_imports(lake):
            problem, cause = "is missing, and history was imported", LOST
    except LandingError:
        problem, cause = "cannot be read", ALTERED
    if problem is not None:
        folder = landing.find_folder(lake.application)
        elsewhere = f"{landing.place}/{lake.application}" if isinstance(landing, ObjectLanding) else ""
        path = f"{folder or elsewhere}/{FIRST_DAY_FILE}"
        restore = 'restore it from a backup, or write {"first_day": "YYYY-MM-DD"}; `flywheel history` lists the days.'
        report.add([Finding(f"first day of {lake.application}", path, problem, cause, restore)])
