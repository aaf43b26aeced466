"""Forgetting one person: every row, at every tag, in every export, in landing, and then on disk.

Keys find the data of the person (`lake.erasure.person`). The order of the steps allows a killed run to be repeated:
first the keyed hashes that refuse replays, then derived data, then the data that they were derived from. So as long as
anything is left to erase, the events that lead to it are left, too.

1. the decision and the keyed hashes, in the table `erasures`; the pins of killed cuts are released;
2. the tagged snapshots of gold: a branch from the tag, the days rewritten there, the exports written as a new revision
   with the scores by row of its evaluation, the tag moved, the branch dropped (`lake.erasure.versions`);
3. decisions that name the person, stores outside of the lake, messages that could not be read;
4. the heads of all tables, derived ones first (`lake.erasure.person`);
5. landing segments and their `_CLOSED.json` (`lake.erasure.landing`);
6. the ledger, set to the remaining rows (`lake.erasure._accounts`);
7. expiry of every snapshot that is no head and no tag, the garbage collection, and what killed processes left behind,
   all of which wait for their grace period; then what a bucket keeps of deleted files (`lake.upkeep.garbage`).

What cannot be reached is listed in the receipt: models that were trained on the rows, copies of exports in other
places, and events that may still be on their way to landing. The receipt names no person.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import msgspec
import pyarrow as pa

from flywheel_assets.errors import InvalidRuleError
from flywheel_assets.lake.daily.erased_people import compute_key_check, hash_with_key, load_erasure_key
from flywheel_assets.lake.daily.ledger import RunStamp
from flywheel_assets.lake.erasure._accounts import (
    Journal,
    LandedHashes,
    Lookback,
    find_days_in_step,
    forget_in_decisions,
    settle_accounts,
)
from flywheel_assets.lake.erasure.landing import ErasableLanding
from flywheel_assets.lake.erasure.person import (
    Partition,
    PersonKeys,
    count_rows,
    erase_head_rows,
    find_person_keys,
    find_rows,
    read_rows,
)
from flywheel_assets.lake.erasure.versions import ErasedVersion, erase_versions
from flywheel_assets.lake.landing.disk import EventKind, refuse_while_closing
from flywheel_assets.lake.storage.commits import hold_lock, verify_locks
from flywheel_assets.lake.storage.failures import translate_disk_full
from flywheel_assets.lake.storage.files import write_once
from flywheel_assets.lake.tables.decisions import list_decisions, make_decision_id, record_decision
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import (
    ERASURES,
    GROUND_TRUTH,
    QUARANTINE,
    ApplicationTables,
    TableSpec,
    list_tables,
)
from flywheel_assets.lake.tables.tags import list_tags
from flywheel_assets.lake.upkeep.backup.taking import explain_backups
from flywheel_assets.lake.upkeep.garbage import (
    DeletedVersions,
    S3Client,
    delete_bucket_versions,
    expire_snapshots,
    explain_versions_left,
    find_unfinished_work,
    remove_unfinished,
    sweep_table,
)
from flywheel_assets.lake.versions.folders import Versions
from flywheel_assets.lake.versions.pins import release_unfinished_cuts

ERASURE_CODE_VERSION = "2"
_EVERY_SNAPSHOT = datetime(9999, 1, 1, tzinfo=UTC)
"""Older than this are all; heads and tags stay, since expiry keeps them."""
_LOCK_TIMEOUT_S = 600.0

ForgetOutside = Callable[[PersonKeys, pa.Table], int]
"""Takes a person out of a store that the lake does not know, given their keys and their rows of the joined table;
returns how many entries were deleted."""


@dataclass(frozen=True)
class Place:
    """The places of one application's data, and the dependencies between its days."""

    lake: Lake
    tables: ApplicationTables
    versions: Versions
    landing: ErasableLanding
    start: date
    lookback_days: Lookback
    outside: Mapping[str, ForgetOutside] = field(default_factory=dict)
    """By name."""
    s3_client: S3Client | None = None
    """For the versions that a bucket keeps of a warehouse's deleted files; None: the warehouse is on a disk."""


@dataclass(frozen=True)
class ErasurePlan:
    """Counts of what an erasure would touch, without the person's name."""

    person: PersonKeys = field(repr=False)
    landed_lines: int
    rows: Mapping[str, int]
    """By table, in their heads."""
    tagged_rows: Mapping[str, int]
    """By tag of the gold table."""


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """The account of one erasure, killed attempts included, without personal data."""

    id: str
    application: str
    decided_at: datetime
    decided_by: str
    reason: str
    landed_lines: dict[str, int]
    landed_segments: int
    object_versions: int
    """Kept versions of landed objects on S3 that were deleted for good."""
    rows: dict[str, int]
    versions: list[ErasedVersion]
    scored_rows: int
    outside: dict[str, int]
    """Entries of other stores, by store: decisions that named the person, reviews, verdicts, unreadable messages."""
    files_deleted: int
    file_versions: int
    """Kept versions of deleted files of the warehouse on S3 that were deleted for good."""
    files_waiting: int
    """Unreachable files that are deleted by maintenance once their grace period is over."""
    schema_version: int = 1
    files_gone_at: datetime
    out_of_reach: list[str]
    """Places that may still hold data of the person, apart from the models and copies of `versions`."""


def plan_erasure(place: Place, user_id: str) -> ErasurePlan:
    """Find what a person left and count it; changes nothing.

    Raises:
        InvalidRuleError: the user id is empty.
        LandingError: landing lies on S3, which does not answer or holds something else than it should.
    """
    if not user_id:
        raise InvalidRuleError("an erasure needs a user id")
    lake = place.lake
    person = find_person_keys(lake, place.tables, place.landing, user_id, _find_earlier_events(lake, user_id))
    landed = sum(sum(map(person.covers_line, place.landing.read_lines(kind))) for kind in EventKind)
    gold = place.tables.gold
    tagged = {
        name: count_rows(find_rows(lake, gold, person, snapshot)) for name, snapshot in list_tags(lake, gold).items()
    }
    rows = {spec.name: count_rows(find_rows(lake, spec, person)) for spec in _list_tables_of_people(place.tables)}
    return ErasurePlan(person, landed, rows, {name: number for name, number in tagged.items() if number})


def erase_person(place: Place, plan: ErasurePlan, *, who: str, reason: str, now: datetime, grace: timedelta) -> Receipt:
    """Erase one person; a repetition after a crash finishes it.

    Args:
        place: where the application's data lie.
        plan: what `plan_erasure` found; data that have come since are deleted, too.
        who: decides.
        reason: why; must not name the person.
        now: events of the person received before are refused from now on.
        grace: how long files that nothing reaches any more stay for readers that planned their scan before.

    Raises:
        InvalidRuleError: the reason quotes the user id.
        HomeMismatchError: the home's parts contradict each other, see `lake.tables.home`; nothing was changed.
        OpenSegmentError: capture still writes a segment that holds the person's events, or a landing day is about to
            close; nothing was changed.
        CommitContentionError: another erasure is at work, or a daily step, and was for ten minutes; or a version is
            being cut, and was for two.
        DiskFullError: no space is left; given again it finishes.
        PartitionChangedError: a writer without our lock keeps writing the person's rows; given again it finishes.
        LandingError: landing lies on S3, which failed; repeat.
    """
    lake, person = place.lake, plan.person
    if person.user_id in reason:
        raise InvalidRuleError("the reason names the person, and would be kept for ever: leave the user id out of it")
    lake.verify_home(sweeps=True)
    began = time.monotonic()

    def clock() -> datetime:
        return now + timedelta(seconds=time.monotonic() - began)

    # One at a time: two that rewrite the same days would each take the other's work for leftovers.
    alone = hold_lock(lake.catalog_uri, lake.scratch / "locks", f"{lake.application}.erasure", _LOCK_TIMEOUT_S)
    # And no daily step or cut at the same time: they would write, export and tag what was read before.
    with (
        alone,
        lake.pause_daily_steps(),
        lake.lock_versions(),
        translate_disk_full(place.landing.folder, place.versions.root, *lake.places),
    ):
        # Asked now, not before waiting: a day may be about to close meanwhile, and more of the person may have come.
        person = find_person_keys(
            lake, place.tables, place.landing, person.user_id, _find_earlier_events(lake, person.user_id)
        )
        place.landing.refuse_open_segments(person.covers_line)
        refuse_while_closing(clock().date() - timedelta(days=1), clock())
        return _erase_everywhere(place, person, who, reason, now, clock, grace)


def _erase_everywhere(
    place: Place,
    person: PersonKeys,
    who: str,
    reason: str,
    now: datetime,
    clock: Callable[[], datetime],
    grace: timedelta,
) -> Receipt:
    lake, tables = place.lake, place.tables
    erasure = make_decision_id(lake, "erasure", now.isoformat(), who)
    key = _record_erasure(lake, person, erasure, who, reason, now)
    stamp = RunStamp(f"erasure {erasure}", ERASURE_CODE_VERSION, now)
    journal = Journal.open(
        build_receipt_path(place.versions, erasure).with_name(f"unfinished-{key}.json"),
        find_days_in_step(lake, _hash_landed_days(place, now)),
    )

    release_unfinished_cuts(lake, place.versions, tables)
    erase_versions(lake, tables.gold, place.versions, person, erasure, stamp, journal.note_version, journal.note_scores)
    journal.count("outside", "decisions", forget_in_decisions(lake, person, erasure, stamp))
    joined = read_rows(lake, tables.joined, person)
    for name, forget in place.outside.items():
        journal.count("outside", name, forget(person, joined))
    journal.count("outside", "unreadable messages", place.landing.erase_unreadable(person.user_id))

    def touch(spec: TableSpec, rows: dict[Partition, int]) -> None:
        journal.touch(spec.name, rows)

    for spec in _list_tables_of_people(tables):
        erase_head_rows(lake, spec, person, stamp, touch)
    versions_left = 0
    for kind in EventKind:
        landed = place.landing.erase(kind, person.covers_line, erasure, clock)
        journal.count("landed_lines", kind.value, sum(landed.lines_per_day.values()))
        journal.count("landed", "segments", landed.segments)
        journal.count("landed", "object versions", landed.object_versions)
        versions_left += landed.versions_left
    progress = journal.progress
    settle_accounts(
        lake,
        tables,
        progress.touched,
        progress.in_step,
        _hash_landed_days(place, now),
        place.lookback_days,
        place.start,
        stamp,
    )

    deleted, waiting = _delete_garbage(place, grace, now)
    forgotten = (
        delete_bucket_versions(lake, list_tables(tables), place.s3_client) if place.s3_client else DeletedVersions()
    )
    journal.count("collected", "file versions", forgotten.deleted)
    # A version that was cut during this erasure may hold what it has taken out: no receipt may say otherwise.
    verify_locks()
    receipt = Receipt(
        id=erasure,
        application=lake.application,
        decided_at=now,
        decided_by=who,
        reason=reason,
        landed_lines=progress.counts["landed_lines"],
        landed_segments=progress.counts["landed"]["segments"],
        object_versions=progress.counts["landed"]["object versions"],
        rows={spec.name: journal.count_rows(spec.name) for spec in _list_tables_of_people(tables)},
        versions=[progress.versions[tag] for tag in sorted(progress.versions)],
        scored_rows=sum(progress.scores.values()),
        outside=progress.counts["outside"],
        files_deleted=deleted,
        file_versions=progress.counts["collected"]["file versions"],
        files_waiting=waiting,
        files_gone_at=now + grace,
        out_of_reach=[
            *explain_versions_left(lake.warehouse, forgotten),
            *place.landing.explain_out_of_reach(versions_left),
            *explain_backups(lake.home.folder),
        ],
    )
    write_once(build_receipt_path(place.versions, erasure), msgspec.json.format(msgspec.json.encode(receipt)))
    journal.close()
    return receipt


def build_receipt_path(versions: Versions, erasure: str) -> Path:
    """Return the path of an erasure's receipt."""
    return versions.root / versions.application / "erasures" / f"{erasure}.json"


def _list_tables_of_people(tables: ApplicationTables) -> list[TableSpec]:
    """Return the tables with rows of people, derived ones first."""
    return [QUARANTINE, tables.gold, tables.joined, tables.predictions, GROUND_TRUTH]


def _find_earlier_events(lake: Lake, user_id: str) -> Callable[[str], bool]:
    """Return a test for event ids that an earlier erasure of the same person covered."""
    if not lake.has_table(ERASURES) or not (rows := list_decisions(lake, ERASURES)):
        return lambda _: False
    key = load_erasure_key(lake, rows)
    person_hash = hash_with_key(key, "user", user_id)
    events = {each for row in rows if row["person_key"] == person_hash for each in json.loads(row["event_keys"])}
    return lambda event_id: bool(events) and hash_with_key(key, "event", event_id) in events


def _record_erasure(lake: Lake, person: PersonKeys, erasure: str, who: str, reason: str, now: datetime) -> str:
    """Record the decision, so that ingest refuses the person's events; return the hash of the user id."""
    earlier = list_decisions(lake, ERASURES) if lake.has_table(ERASURES) else []
    key = load_erasure_key(lake, earlier, make=True)
    person_hash = hash_with_key(key, "user", person.user_id)
    events = json.dumps(sorted(hash_with_key(key, "event", each) for each in person.event_ids))
    facts = {"person_key": person_hash, "event_keys": events, "key_check": compute_key_check(key)}
    record_decision(lake, ERASURES, erasure, who=who, reason=reason, now=now, **facts)
    return person_hash


def _hash_landed_days(place: Place, now: datetime) -> LandedHashes:
    return {
        place.tables.predictions.name: place.landing.hash_days(EventKind.PREDICTION, now),
        GROUND_TRUTH.name: place.landing.hash_days(EventKind.FEEDBACK, now),
    }


def _delete_garbage(place: Place, grace: timedelta, now: datetime) -> tuple[int, int]:
    """Delete files that were unreachable for `grace`; return the numbers of files deleted and waiting."""
    lake = place.lake
    deleted = waiting = 0
    for spec in list_tables(place.tables):
        expire_snapshots(lake, spec, _EVERY_SNAPSHOT)
        swept = sweep_table(lake, spec, grace, now)
        deleted, waiting = deleted + swept.deleted.files, waiting + swept.waiting.files
    deleted += remove_unfinished(find_unfinished_work(lake.scratch, place.versions), now - grace)
    return deleted, waiting + len(find_unfinished_work(lake.scratch, place.versions))
