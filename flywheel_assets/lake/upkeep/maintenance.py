"""The weekly upkeep of one application: trimming, landing retention, expiry, garbage collection, what it all weighs.

Nothing here touches a tagged version. Trimming raw predictions and removing landed files are off unless the application
asks for them, since neither can be taken back.
"""

from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path

import pyarrow as pa

from flywheel_assets.curation.joining import JoinWindow
from flywheel_assets.curation.labels.sampling import write_draw_sql
from flywheel_assets.errors import LandingError, PartitionChangedError
from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.daily.history import clear_killed_imports, list_history_imports
from flywheel_assets.lake.daily.ledger import LedgerEntry, RunStamp
from flywheel_assets.lake.landing.disk import EventKind
from flywheel_assets.lake.landing.protocol import LandingPlace
from flywheel_assets.lake.storage.failures import clean_up_on_failure
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.probing import name_damaged_tables
from flywheel_assets.lake.tables.specs import (
    ERASURES,
    GROUND_TRUTH,
    STORAGE,
    ApplicationTables,
    list_tables,
)
from flywheel_assets.lake.upkeep.garbage import (
    DeletedVersions,
    S3Client,
    Stored,
    delete_bucket_versions,
    expire_snapshots,
    find_unfinished_work,
    remove_unfinished,
    sweep_table,
    weigh_folder,
    weigh_table,
)
from flywheel_assets.lake.versions.folders import Versions
from flywheel_assets.lake.versions.pins import release_ended_cuts
from flywheel_assets.ranges import Checked, Count, CountOrZero, NotNegative, Share
from flywheel_assets.records import Reason

MAINTENANCE_CODE_VERSION = "1"
_UNFINISHED_AFTER = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class MaintenanceRules(Checked):
    """Limits of what the weekly upkeep of one application may remove."""

    snapshots_kept_days: Count = 7
    """Younger snapshots stay, as do heads and tags; of a burst only the newest do (`iceberg.forget_old_snapshots`)."""
    grace_hours: NotNegative = 24.0
    """Files that nothing reaches stay this long for readers that planned their scan before."""
    trimmed_share: Share | None = None
    """Of the predictions that left the join window unreferenced, the share that stays, by hash; None: all stay."""
    landing_kept_days: CountOrZero | None = None
    """Segments of closed, materialized days older than this are removed; None: all stay."""


@dataclass(frozen=True)
class Upkeep:
    """The result of one maintenance; `before` and `after` are files and bytes by stage."""

    before: dict[str, Stored]
    after: dict[str, Stored]
    snapshots_expired: int
    files_deleted: Stored
    files_waiting: Stored
    """Unreachable, but within their grace period."""
    predictions_trimmed: dict[date, int]
    segments_removed: int
    versions_deleted: DeletedVersions
    """Of deleted files, in a bucket that keeps them, of applications that have erased a person."""


@name_damaged_tables
@clean_up_on_failure
def maintain_tables(
    lake: Lake,
    tables: ApplicationTables,
    versions: Versions,
    landing: LandingPlace,
    window: JoinWindow,
    rules: MaintenanceRules,
    stamp: RunStamp,
    s3_client: S3Client | None = None,
) -> Upkeep:
    """Trim, retire, expire and collect, in this order, and record what everything weighs afterwards.

    Args:
        lake: the application's tables.
        tables: which of them its daily assets fill.
        versions: the application's versions; weighed, and what their ended cuts still hold is let go.
        landing: the landing zone; one that is no folder is weighed and emptied by the rules of its own place.
        window: how far back a join reads; nothing within is trimmed or removed.
        rules: what may be removed.
        stamp: who, and when it is.
        s3_client: for what a bucket keeps of deleted files; None: the warehouse is on a disk.

    Raises:
        HomeMismatchError: the home's parts contradict each other, see `lake.tables.home`; nothing was changed.
        CommitContentionError: there was something to trim or to retire, or history was imported before, and a daily
            step or an erasure was at work for ten minutes; it is safe to run again.
        LandingError: S3 does not answer, or we may not delete there what a killed import of history left.
    """
    now = stamp.now
    lake.verify_home(sweeps=True)
    before = weigh_stages(lake, tables, versions, landing)
    last = find_last_settled_day(lake, tables, window)
    trimmed: dict[date, int] = {}
    if rules.trimmed_share is not None and last is not None:
        trimmed = trim_predictions(lake, tables, last, rules.trimmed_share, stamp)
    removed = 0
    if rules.landing_kept_days is not None and last is not None:
        until = min(last, now.date() - timedelta(days=rules.landing_kept_days))
        removed = retire_segments(lake, tables, landing, until, now)
    if list_history_imports(lake):
        with lake.pause_daily_steps():
            clear_killed_imports(lake, landing)
    remove_unfinished(find_unfinished_work(lake.scratch, versions), now - _UNFINISHED_AFTER)
    release_ended_cuts(lake, versions, tables)
    expired, deleted, waiting = 0, Stored(0, 0), Stored(0, 0)
    for spec in list_tables(tables):
        expired += expire_snapshots(lake, spec, now - timedelta(days=rules.snapshots_kept_days))
        swept = sweep_table(lake, spec, timedelta(hours=rules.grace_hours), now)
        deleted, waiting = deleted + swept.deleted, waiting + swept.waiting
    forgotten = DeletedVersions()
    if s3_client is not None and lake.has_table(ERASURES) and lake.load_table(ERASURES).current_snapshot() is not None:
        # An erasure cannot do it to files in their grace period. Without one, versions are an operator's safety net.
        forgotten = delete_bucket_versions(lake, list_tables(tables), s3_client)
    after = weigh_stages(lake, tables, versions, landing)
    _record_sizes(lake, after, stamp)
    return Upkeep(before, after, expired, deleted, waiting, trimmed, removed, forgotten)


def find_last_settled_day(lake: Lake, tables: ApplicationTables, window: JoinWindow) -> date | None:
    """Find the last landed day that no later join will read; None while every day may be read again.

    Counted from the joined days, not from the calendar: after an outage the next join reaches as far back as it must.
    """
    closed = list(ledger.read_closed_days(lake, tables.joined.name))
    gapless = [day for number, day in enumerate(closed) if day - closed[0] == timedelta(days=number)]
    reach = window.compute_reading_days(is_text=tables.is_text)
    return gapless[-1] - timedelta(days=reach) if gapless else None


def weigh_stages(lake: Lake, tables: ApplicationTables, versions: Versions, landing: LandingPlace) -> dict[str, Stored]:
    """Count files and bytes by stage, in data order; a landing zone that is no folder is left out."""
    stages = {}
    if (folder := landing.find_folder(lake.application)) is not None:
        stages["landing"] = weigh_folder(folder)
    stages |= {spec.name: weigh_table(lake, spec) for spec in list_tables(tables)}
    stages["versions"] = weigh_folder(versions.root / versions.application)
    return stages


def read_storage_history(lake: Lake) -> dict[str, list[tuple[datetime, int]]]:
    """Read the bytes by stage over time, as every maintenance left them."""
    history: dict[str, list[tuple[datetime, int]]] = {}
    if lake.has_table(STORAGE):
        rows = sorted(lake.read(STORAGE).to_pylist(), key=lambda row: row["measured_at"])
        for row in rows:
            history.setdefault(row["stage"], []).append((row["measured_at"], row["bytes"]))
    return history


def trim_predictions(
    lake: Lake, tables: ApplicationTables, last: date, share: float, stamp: RunStamp
) -> dict[date, int]:
    """Trim the days up to `last` to predictions with feedback, and a share of the others by hash.

    The outcome of those days is known: no later join reads predictions without a reaction. Classifiers keep everything,
    since silence is what they learn from. Returns the rows dropped by day, which the ledger counts as `trimmed`.

    Raises:
        CommitContentionError: a daily step or an erasure was at work for ten minutes; it is safe to run again.
    """
    # Asked before, too: a writer that waits to be alone lets no other step begin.
    if not tables.is_text or not _find_days_to_trim(lake, tables, last):
        return {}
    with lake.pause_daily_steps():
        return _trim_days(lake, tables, last, share, stamp)


def _find_days_to_trim(lake: Lake, tables: ApplicationTables, last: date) -> dict[date, LedgerEntry]:
    return {
        day: each
        for day, each in ledger.read_entries(lake, tables.predictions.name).items()
        if day <= last and each.is_closed and each.rows_kept and Reason.TRIMMED.value not in each.rows_by_reason
    }


def _trim_days(lake: Lake, tables: ApplicationTables, last: date, share: float, stamp: RunStamp) -> dict[date, int]:
    spec = tables.predictions
    dropped: dict[date, int] = {}
    changed = []
    with lake.connect() as connection:
        lake.register(connection, tables.joined, None, ["prediction_id", "prediction_received_date"], view="joined")
        for day, entry in _find_days_to_trim(lake, tables, last).items():
            seen = lake.list_files(spec, [day])
            lake.register(connection, spec, [day], view="landed")
            file = lake.write_day(
                connection,
                spec,
                day,
                "SELECT landed.* FROM landed WHERE prediction_id IN "
                f"(SELECT prediction_id FROM joined WHERE prediction_received_date = DATE '{day}') "
                f"OR {write_draw_sql('trim')} < {share}",
            )
            properties = {**stamp.properties, "share": str(share)}
            try:
                lake.replace_days(spec, [day], {day: file} if file else {}, properties, seen=seen)
            except PartitionChangedError:
                # Written by a writer that does not know our lock: those rows are the right ones, trimmed next time.
                if file:
                    file.unlink()
                continue
            kept = lake.count_rows_per_day(spec).get(day, 0)
            dropped[day] = entry.rows_kept - kept
            reasons = {**entry.rows_by_reason, Reason.TRIMMED.value: dropped[day]}
            changed.append(replace(entry, rows_kept=kept, rows_by_reason=reasons))
    if changed:
        # The content hash stays that of the landed day: what was joined from it is not stale.
        ledger.record_entries(lake, changed, stamp)
    return dropped


def retire_segments(lake: Lake, tables: ApplicationTables, landing: LandingPlace, last: date, now: datetime) -> int:
    """Remove the segments of days up to `last` that the tables hold as they were closed; return how many.

    `_CLOSED.json` stays. Of a landing zone that is no folder nothing is removed.

    Raises:
        CommitContentionError: a daily step, which may be reading them, or an erasure was at work for ten minutes.
    """
    if landing.find_folder(lake.application) is None or not _find_segments_to_retire(lake, tables, landing, last, now):
        return 0
    with lake.pause_daily_steps():
        due = _find_segments_to_retire(lake, tables, landing, last, now)
        for path in due:
            path.unlink()
    return len(due)


def _find_segments_to_retire(
    lake: Lake, tables: ApplicationTables, landing: LandingPlace, last: date, now: datetime
) -> list[Path]:
    due: list[Path] = []
    for kind, spec in ((EventKind.PREDICTION, tables.predictions), (EventKind.FEEDBACK, GROUND_TRUTH)):
        zone = landing.open_zone(lake.application, kind)
        entries = ledger.read_entries(lake, spec.name)
        for day in zone.list_days():
            entry = entries.get(day)
            if day > last or entry is None or not entry.is_closed:
                continue
            try:
                landed = zone.read(day, now)
            except LandingError:
                # Removed before, or damaged: neither is ours to remove.
                continue
            if landed.content_hash == entry.content_hash:
                due.extend(landed.paths)
    return due


def _record_sizes(lake: Lake, stages: dict[str, Stored], stamp: RunStamp) -> None:
    rows = [
        {"measured_at": stamp.now, "stage": stage, "files": stored.files, "bytes": stored.bytes}
        for stage, stored in stages.items()
    ]
    lake.append(STORAGE, pa.Table.from_pylist(rows, schema=STORAGE.schema), stamp.run_id, stamp.properties)
