"""Forgetting one person: every row, at every tag, in every export, in landing, and then on disk.

What belongs to the person is found by keys (`lake.traces`). The order of the steps is such that a run that was killed
can be given again: first the keyed hashes that refuse replays, then from what is derived back to what it was derived
from, so that as long as anything is left to erase, the events that lead there are left too.

1. the decision and the keyed hashes, in the table `erasures`;
2. the tagged snapshots of gold: a branch from the tag, the days rewritten there, the tag moved, the branch dropped;
3. exports: a new revision of each version that held a row; scores by row of its evaluation;
4. the heads of all tables, derived ones first; the ledger is set to what they hold then;
5. landing segments and their `_CLOSED.json`;
6. expiry of every snapshot that is no head and no tag, and the garbage collection, which waits for its grace period.

What cannot be reached is listed in the receipt: adapters that were trained on the rows, and copies of exports that went
elsewhere. The receipt names nobody.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pyarrow as pa

from flywheel_assets import records
from flywheel_assets.curation.sql_literals import quoted
from flywheel_assets.errors import InvalidRuleError, LandingError, OpenSegmentError
from flywheel_assets.lake import ledger
from flywheel_assets.lake.accounting import STAGE_OF
from flywheel_assets.lake.erased_people import erasure_key, keyed_hash
from flywheel_assets.lake.export_revisions import (
    drop_older_revisions,
    erase_scored_rows,
    exported_rows_of,
    revise_export,
)
from flywheel_assets.lake.exports import ExportSet, manifest_sha256, read_manifest
from flywheel_assets.lake.files import replace_file, write_once
from flywheel_assets.lake.garbage import expire_snapshots, sweep
from flywheel_assets.lake.landing import EventKind, LandingZone
from flywheel_assets.lake.landing_erasure import erase_lines
from flywheel_assets.lake.ledger import LedgerEntry, RunStamp
from flywheel_assets.lake.publishing import copies_of
from flywheel_assets.lake.references import tags
from flywheel_assets.lake.tables import (
    ERASURES,
    EXCLUSIONS,
    GROUND_TRUTH,
    LEDGER,
    QUARANTINE,
    ROLLBACKS,
    ApplicationTables,
    Lake,
    TableSpec,
)
from flywheel_assets.lake.traces import Traces, find_traces, segments_of
from flywheel_assets.lake.versions import Pin, VersionFolder, Versions, version_number

if TYPE_CHECKING:
    from pyiceberg.table import Table

ERASURE_CODE_VERSION = "1"
_EVERY_SNAPSHOT = datetime(9999, 1, 1, tzinfo=UTC)
"""Older than this are all; heads and tags stay, since expiry keeps them."""


@dataclass(frozen=True)
class Place:
    """Where one application's data lie, and how its days depend on each other."""

    lake: Lake
    tables: ApplicationTables
    versions: Versions
    landing_root: Path
    start: date
    lookback_days: Mapping[str, Mapping[str, int]]
    """Per derived table its inputs, with how many days before D its partition D reads."""


@dataclass(frozen=True)
class ErasurePlan:
    """What an erasure would touch, without naming anybody."""

    traces: Traces = field(repr=False)
    landed_lines: int
    rows: Mapping[str, int]
    """By table, in their heads."""
    tagged_rows: Mapping[str, int]
    """By tag of the gold table."""


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
    copies: list[str] = []
    """Where exports of it went; nobody but their owners can erase those."""


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What one erasure did, without personal data."""

    id: str
    application: str
    decided_at: datetime
    decided_by: str
    reason: str
    landed_lines: dict[str, int]
    landed_segments: int
    rows: dict[str, int]
    versions: list[ErasedVersion]
    scored_rows: int
    files_deleted: int
    files_waiting: int
    """Unreachable files that are deleted by maintenance once their grace period is over."""
    files_gone_at: datetime


def plan_erasure(place: Place, user_id: str) -> ErasurePlan:
    """Find what a person left and count it; changes nothing.

    Raises:
        InvalidRuleError: the user id is empty.
    """
    if not user_id:
        raise InvalidRuleError("an erasure needs a user id")
    lake = place.lake
    traces = find_traces(lake, place.tables, place.landing_root, user_id, _earlier(lake, user_id))
    landed = 0
    for kind in EventKind:
        for path in segments_of(LandingZone(place.landing_root, lake.application, kind)):
            with open(path, "rb") as lines:
                landed += sum(map(traces.covers_line, lines))
    gold = place.tables.gold
    tagged = {name: sum(_matches(lake, gold, traces, snapshot).values()) for name, snapshot in tags(lake, gold).items()}
    rows = {spec.name: sum(_matches(lake, spec, traces).values()) for spec in _with_people(place.tables)}
    return ErasurePlan(traces, landed, rows, {name: number for name, number in tagged.items() if number})


def erase(place: Place, plan: ErasurePlan, *, who: str, reason: str, now: datetime, grace: timedelta) -> Receipt:
    """Carry out an erasure; given again after a crash it finishes.

    Args:
        place: where the application's data lie.
        plan: what `plan_erasure` found.
        who: decides.
        reason: why; must not name the person.
        now: events of the person received before are refused from now on.
        grace: how long files that nothing reaches any more stay for readers that planned their scan before.

    Raises:
        InvalidRuleError: the reason quotes the user id.
        OpenSegmentError: capture still writes a segment that holds the person's events; nothing was changed.
    """
    lake, traces = place.lake, plan.traces
    if traces.user_id in reason:
        raise InvalidRuleError("the reason names the person, and would be kept for ever: leave the user id out of it")
    _refuse_open_segments(place, traces)
    erasure = records.stable_id("erasure", lake.application, now.isoformat(), who)[:8]
    _remember(lake, traces, erasure, who, reason, now)
    stamp = RunStamp(f"erasure {erasure}", ERASURE_CODE_VERSION, now)

    fresh = _fresh_days(place)
    landed_before = _landed_hashes(place, now)
    versions, scored = _erase_versions(place, traces, erasure, stamp)
    _forget_in_exclusions(lake, traces, erasure)
    removed = {spec.name: _erase_head(lake, spec, traces, stamp) for spec in _with_people(place.tables)}
    landed = {
        kind: erase_lines(LandingZone(place.landing_root, lake.application, kind), traces.covers_line, erasure)
        for kind in EventKind
    }
    _set_ledger(place, removed, landed_before, _landed_hashes(place, now), fresh, stamp)

    deleted = waiting = 0
    for spec in _every_table(place.tables):
        expire_snapshots(lake, spec, _EVERY_SNAPSHOT)
        swept = sweep(lake, spec, grace, now)
        deleted, waiting = deleted + swept.deleted.files, waiting + swept.waiting.files
    receipt = Receipt(
        id=erasure,
        application=lake.application,
        decided_at=now,
        decided_by=who,
        reason=reason,
        landed_lines={kind.value: sum(each.lines_per_day.values()) for kind, each in landed.items()},
        landed_segments=sum(each.segments for each in landed.values()),
        rows={name: sum(rows.total() for rows in days.values()) for name, days in removed.items()},
        versions=versions,
        scored_rows=scored,
        files_deleted=deleted,
        files_waiting=waiting,
        files_gone_at=now + grace,
    )
    write_once(receipt_path(place.versions, erasure), msgspec.json.format(msgspec.json.encode(receipt)))
    return receipt


def receipt_path(versions: Versions, erasure: str) -> Path:
    """Where the receipt of an erasure lies."""
    return versions.root / versions.application / "erasures" / f"{erasure}.json"


def _with_people(tables: ApplicationTables) -> list[TableSpec]:
    """The tables with rows of people, derived ones first."""
    return [QUARANTINE, tables.gold, tables.joined, tables.predictions, GROUND_TRUTH]


def _every_table(tables: ApplicationTables) -> list[TableSpec]:
    return [*_with_people(tables), LEDGER, EXCLUSIONS, ROLLBACKS, ERASURES]


def _earlier(lake: Lake, user_id: str) -> Callable[[str], bool]:
    """Whether an event id was to be erased by an earlier run for the same person."""
    if not lake.has_table(ERASURES) or not (rows := lake.read(ERASURES).to_pylist()):
        return lambda _: False
    key = erasure_key(lake, make=False)
    person = keyed_hash(key, "user", user_id)
    events = {each for row in rows if row["person_key"] == person for each in json.loads(row["event_keys"])}
    return lambda event_id: bool(events) and keyed_hash(key, "event", event_id) in events


def _refuse_open_segments(place: Place, traces: Traces) -> None:
    for kind in EventKind:
        folder = LandingZone(place.landing_root, place.lake.application, kind).open_folder
        for path in folder.glob("*.jsonl") if folder.is_dir() else ():
            with open(path, "rb") as lines:
                if any(map(traces.covers_line, lines)):
                    raise OpenSegmentError(
                        f"capture still writes {path.name}, which holds events to erase. It is sealed when its age "
                        "limit is reached: repeat then."
                    )


def _remember(lake: Lake, traces: Traces, erasure: str, who: str, reason: str, now: datetime) -> None:
    key = erasure_key(lake, make=True)
    row = {
        "id": erasure,
        "decided_at": now,
        "decided_by": who,
        "reason": reason,
        "person_key": keyed_hash(key, "user", traces.user_id),
        "event_keys": json.dumps(sorted(keyed_hash(key, "event", each) for each in traces.event_ids)),
    }
    lake.append(ERASURES, pa.Table.from_pylist([row], schema=ERASURES.schema), erasure, {})


def _forget_in_exclusions(lake: Lake, traces: Traces, erasure: str) -> None:
    """A rule about this user no longer names anybody, and covers nobody: all its rows are gone."""
    if not lake.has_table(EXCLUSIONS):
        return

    def rename(rows: pa.Table) -> pa.Table:
        users = [f"erased:{erasure}" if user == traces.user_id else user for user in rows["user_id"].to_pylist()]
        position = rows.schema.get_field_index("user_id")
        return rows.set_column(position, "user_id", pa.array(users, pa.string()))

    if traces.user_id in lake.read(EXCLUSIONS)["user_id"].to_pylist():
        lake.replace_all(EXCLUSIONS, rename, {})


_Partition = tuple[date, str | None]


def _matches(lake: Lake, spec: TableSpec, traces: Traces, snapshot_id: int | None = None) -> dict[_Partition, int]:
    """The person's rows by partition."""
    if not lake.has_table(spec):
        return {}
    with lake.connect() as connection:
        traces.register(connection)
        lake.register(connection, spec, None, view="whole", snapshot_id=snapshot_id)
        stage = spec.stage_column or "NULL"
        found = connection.execute(
            f"SELECT {spec.day_column}, {stage}, count(*) FROM whole WHERE {traces.condition(spec)} GROUP BY 1, 2"
        ).fetchall()
    return {(day, stage): rows for day, stage, rows in found}


def _kept_file(
    lake: Lake, spec: TableSpec, traces: Traces, partition: _Partition, snapshot_id: int | None = None
) -> Path | None:
    """One partition without the person's rows, as a local file; None where nothing stays."""
    day, stage = partition
    with lake.connect() as connection:
        traces.register(connection)
        lake.register(connection, spec, [day], view="whole", snapshot_id=snapshot_id)
        of_stage = f"{spec.stage_column} = {quoted(stage)} AND " if stage is not None else ""
        query = f"SELECT * FROM whole WHERE {of_stage}NOT {traces.condition(spec)}"
        return lake.write_day(connection, spec, day, query)


def _erase_head(lake: Lake, spec: TableSpec, traces: Traces, stamp: RunStamp) -> dict[_Partition, Counter[str]]:
    """Rewrite the head's partitions that hold rows of the person; returns those rows by reason ('' where none)."""
    removed: dict[_Partition, Counter[str]] = {}
    # A daily run may write a day between our read and our commit: then it is looked at again.
    for _ in range(3):
        found = _matches(lake, spec, traces)
        if not found:
            break
        for partition in found:
            removed.setdefault(partition, Counter()).update(_reasons(lake, spec, traces, partition))
            day, stage = partition
            file = _kept_file(lake, spec, traces, partition)
            lake.replace_days(spec, [day], {day: file} if file else {}, stamp.properties(), stage)
    return removed


def _reasons(lake: Lake, spec: TableSpec, traces: Traces, partition: _Partition) -> Counter[str]:
    reason = "reason" if "reason" in spec.schema.names else "''"
    day, stage = partition
    with lake.connect() as connection:
        traces.register(connection)
        lake.register(connection, spec, [day], view="whole")
        of_stage = f"{spec.stage_column} = {quoted(stage)} AND " if stage is not None else ""
        return Counter(
            dict(
                connection.execute(
                    f"SELECT {reason}, count(*) FROM whole WHERE {of_stage}{traces.condition(spec)} GROUP BY 1"
                ).fetchall()
            )
        )


def _erase_versions(place: Place, traces: Traces, erasure: str, stamp: RunStamp) -> tuple[list[ErasedVersion], int]:
    """Rewrite every tag of gold that holds rows of the person, and the exports cut from it."""
    lake, gold = place.lake, place.tables.gold
    erased, scored = [], 0
    for name, before in sorted(tags(lake, gold).items()):
        branch = lake.table(gold).metadata.refs.get(_branch(name))
        if branch is not None and branch.snapshot_id == before:
            _move_tag(lake, gold, name, before)
        folder = place.versions.folder(name) if version_number(name) else None
        exported = folder if folder is not None and folder.export.exists() else None
        keys = _keys(lake, gold, traces, before)
        found = _matches(lake, gold, traces, before)
        exported_rows = 0
        if exported is not None:
            drop_older_revisions(exported)
            scored += erase_scored_rows(lake, exported, keys, traces.user_id)
            exported_rows = exported_rows_of(lake, exported, keys)
        if not found and not exported_rows:
            continue
        # The tag moves last: as long as it has not, a repeated run finds the rows and finishes.
        partitions = list(found)
        after = _rewritten(lake, gold, traces, name, before, partitions, exported, stamp) if found else before
        version = ErasedVersion(
            tag=name, snapshot_before=before, snapshot_after=after, gold_rows_removed=sum(found.values())
        )
        if exported is not None:
            version = _revised(lake, exported, version, keys, found, erasure)
        _move_tag(lake, gold, name, after)
        erased.append(version)
    return erased, scored


def _revised(
    lake: Lake,
    folder: VersionFolder,
    version: ErasedVersion,
    keys: set[str],
    found: Mapping[_Partition, int],
    erasure: str,
) -> ErasedVersion:
    pin = msgspec.json.decode(folder.pin.read_bytes(), type=Pin)
    pinned = sum(rows for (day, _), rows in found.items() if day.isoformat() in pin.days)
    manifest = read_manifest(folder.export)
    if found and manifest.snapshot_id == version.snapshot_after:
        # A run that was killed had come this far.
        revised = manifest.erasures[-1]
    else:
        revised = revise_export(lake, folder, keys, version.snapshot_after, pinned, erasure)
    moved = msgspec.structs.replace(pin, snapshot_id=version.snapshot_after)
    replace_file(folder.pin, msgspec.json.format(msgspec.json.encode(moved)))
    return msgspec.structs.replace(
        version,
        exported_rows_removed=sum(revised.rows_removed.values()),
        manifest_sha256_before=revised.manifest_sha256_before,
        manifest_sha256_after=manifest_sha256(folder.export),
        trained=folder.is_trained
        and any(rows for which, rows in revised.rows_removed.items() if which in (ExportSet.TRAIN, ExportSet.ACCEPTED)),
        copies=copies_of(folder),
    )


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
    partitions: list[_Partition],
    exported: VersionFolder | None,
    stamp: RunStamp,
) -> int:
    """A snapshot like the tagged one without the person's rows, kept by a branch; returns its id."""
    branch = _branch(name)
    known = lake.table(spec).metadata.refs.get(branch)
    if known and exported is not None and read_manifest(exported.export).snapshot_id == known.snapshot_id:
        return known.snapshot_id
    files = {day: _kept_file(lake, spec, traces, (day, stage), snapshot_id) for day, stage in partitions}
    placed: list[str] = []

    def rewrite(table: "Table") -> None:
        if branch in table.metadata.refs:
            table.manage_snapshots().remove_branch(branch).commit()
        table.manage_snapshots().create_branch(snapshot_id, branch).commit()
        placed.extend(lake.place(table, path) for path in [path for path in files.values() if path][len(placed) :])
        with table.transaction() as transaction:
            where = lake.partition_filter(spec, list(files))
            transaction.delete(where, snapshot_properties=stamp.properties(), branch=branch)
            if placed:
                transaction.add_files(
                    placed, snapshot_properties=stamp.properties(), check_duplicate_files=False, branch=branch
                )

    return lake.commit(spec, rewrite).metadata.refs[branch].snapshot_id


def _move_tag(lake: Lake, spec: TableSpec, name: str, snapshot_id: int) -> None:
    def move(table: "Table") -> None:
        if table.metadata.refs[name].snapshot_id != snapshot_id:
            # The one place that means to move a tag: a frozen version has changed, and its manifest says so.
            table.manage_snapshots().create_tag(snapshot_id, name).commit()
        if _branch(name) in table.metadata.refs:
            table.manage_snapshots().remove_branch(_branch(name)).commit()

    lake.commit(spec, move)


def _landed_hashes(place: Place, now: datetime) -> dict[tuple[str, date], str]:
    """Content hash of every landed day, by raw table; days whose segments retention removed have none."""
    found = {}
    for kind, spec in ((EventKind.PREDICTION, place.tables.predictions), (EventKind.FEEDBACK, GROUND_TRUTH)):
        zone = LandingZone(place.landing_root, place.lake.application, kind)
        for day in zone.days():
            try:
                found[spec.name, day] = zone.read(day, now).content_hash
            except LandingError:
                continue
    return found


def _fresh_days(place: Place) -> dict[str, set[date]]:
    """Per derived table the days that are not stale: the erasure must not make them so."""
    fresh = {}
    for asset, lookback in place.lookback_days.items():
        stale = ledger.stale_days(place.lake, asset, lookback, place.start)
        fresh[asset] = set(ledger.entries_of(place.lake, asset)) - set(stale)
    return fresh


def _set_ledger(
    place: Place,
    removed: Mapping[str, Mapping[_Partition, Counter[str]]],
    landed_before: Mapping[tuple[str, date], str],
    landed_after: Mapping[tuple[str, date], str],
    fresh: Mapping[str, set[date]],
    stamp: RunStamp,
) -> None:
    """Set counts and hashes to what the tables hold now, so that accounts add up and nothing looks stale."""
    lake = place.lake
    raw = {place.tables.predictions.name, GROUND_TRUTH.name}
    for spec in (place.tables.predictions, GROUND_TRUTH, place.tables.joined, place.tables.gold):
        entries = ledger.entries_of(lake, spec.name)
        in_table = {day: rows for (day, _), rows in removed[spec.name].items()}
        refused = {day: rows for (day, stage), rows in removed[QUARANTINE.name].items() if stage == STAGE_OF[spec.name]}
        changed = []
        for day, entry in entries.items():
            gone = in_table.get(day, Counter()).total()
            held = _held_now(lake, spec, day) if gone and entry.rows_held else entry.rows_held
            # A held row lies in gold and, counted under its reason, in quarantine.
            kept_less = gone - (entry.rows_held - held)
            less = refused.get(day, Counter())
            content = entry.content_hash
            if spec.name in raw:
                if landed_before.get((spec.name, day)) == content:
                    content = landed_after[spec.name, day]
            elif gone:
                content = ledger.content_hash(lake.read(spec, [day]))
            by_reason = {
                reason: rows - less.get(reason, 0)
                for reason, rows in entry.rows_by_reason.items()
                if rows > less.get(reason, 0)
            }
            changed.append(
                LedgerEntry(
                    asset=entry.asset,
                    day=day,
                    is_closed=entry.is_closed,
                    content_hash=content,
                    input_hashes=entry.input_hashes,
                    rows_in=entry.rows_in - kept_less - less.total(),
                    rows_kept=entry.rows_kept - kept_less,
                    rows_by_reason=by_reason,
                    rows_held=held,
                )
            )
        if changed:
            ledger.record(lake, _with_inputs(place, spec, changed, fresh), stamp)


def _held_now(lake: Lake, gold: TableSpec, day: date) -> int:
    return len(lake.read(gold, [day], ["held_reason"], where="held_reason IS NOT NULL"))


def _with_inputs(
    place: Place, spec: TableSpec, entries: list[LedgerEntry], fresh: Mapping[str, set[date]]
) -> list[LedgerEntry]:
    lookback = place.lookback_days.get(spec.name, {})
    inputs = {name: ledger.entries_of(place.lake, name) for name in lookback}
    return [
        replace(
            entry,
            input_hashes={
                name: ledger.window_hash(
                    inputs[name],
                    ledger.day_range(max(place.start, entry.day - timedelta(days=days)), entry.day),
                )
                for name, days in lookback.items()
            },
        )
        if lookback and entry.day in fresh[spec.name]
        else entry
        for entry in entries
    ]
