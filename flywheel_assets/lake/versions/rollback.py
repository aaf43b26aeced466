"""Rolls the gold table back to a tagged snapshot, so that the next trigger counts from there.

Under one lock of the table's commits the old head gets a tag of its own, the decision is recorded, the ledger's entries
of the days that differ are set to the target's rows, versions cut since are marked as undone, and the head moves. The
head moves last: a run that was killed before that is simply repeated.

Days that the target does not hold count as closed and empty, with their rows under `rolled_back`; otherwise the daily
schedule would bring them back the next night. `flywheel backfill` brings them back on purpose.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import TYPE_CHECKING

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from flywheel_assets.curation.arrow import to_mask
from flywheel_assets.errors import UnknownNameError, VersionConflictError
from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.daily.ledger import STAGE_OF, RunStamp
from flywheel_assets.lake.storage.failures import translate_outages
from flywheel_assets.lake.storage.files import write_once
from flywheel_assets.lake.storage.schema_versions import decode_versioned
from flywheel_assets.lake.tables.decisions import make_decision_id, record_decision
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import QUARANTINE, ROLLBACKS, TableSpec
from flywheel_assets.lake.tables.tags import list_tags, set_head
from flywheel_assets.lake.versions.folders import VersionFolder, Versions, parse_version_number, read_pin
from flywheel_assets.records import ExampleKind, Reason

if TYPE_CHECKING:
    from pyiceberg.table import Table

SAVED_HEAD = "before_rollback_"
ROLLBACK_CODE_VERSION = "1"


@dataclass(frozen=True)
class ChangedDay:
    """Counts the rows of one gold day before and after."""

    rows_before: int
    rows_after: int


@dataclass(frozen=True)
class DataPlan:
    """Lists the changes of a rollback of the gold table; none if `days` is empty and the head stands there."""

    id: str
    to: str
    head: int
    target: int
    days: Mapping[date, ChangedDay]
    undone: tuple[str, ...]
    """Versions cut since; after the rollback the trigger counts them as never trained."""
    restored: tuple[str, ...]
    """Versions that an earlier rollback had undone."""

    @property
    def saved_head(self) -> str:
        """The tag that keeps the old head readable; a later rollback can return to it."""
        return f"{SAVED_HEAD}{self.id}"

    @property
    def changes_nothing(self) -> bool:
        """The table stands there already."""
        return self.head == self.target


class UndoneMark(msgspec.Struct, frozen=True, kw_only=True):
    """Marks a version from which the gold table no longer descends, in `rolled_back.json`."""

    rollback: str
    decided_at: datetime
    decided_by: str
    reason: str
    schema_version: int = 1


def plan_data_rollback(lake: Lake, versions: Versions, gold: TableSpec, to: str) -> DataPlan:
    """Plan a rollback of the gold table to a tag: list the changes it would make; reads metadata only.

    Raises:
        UnknownNameError: `to` is no tag of the gold table; lists those that are.
        VersionConflictError: a version cut since is not finished.
    """
    known = list_tags(lake, gold)
    if to not in known:
        raise UnknownNameError(
            "tag", to, known, "`flywheel gold list` shows what each of them holds; one whose cut failed has no tag."
        )
    head = lake.load_table(gold).current_snapshot()
    assert head is not None  # a tag points to a snapshot, so there is one
    undone = [] if to.startswith(SAVED_HEAD) else [each for each in versions if _is_later(each.version, to)]
    unfinished = [each.version for each in undone if not each.is_finished]
    if unfinished:
        raise VersionConflictError(
            f"{', '.join(unfinished)} was cut from what would be rolled back and is not finished. Let its run end, or "
            f"`flywheel abandon {unfinished[0]} --reason … --yes`, then repeat."
        )
    before, after = _list_files_per_day(lake, gold, head.snapshot_id), _list_files_per_day(lake, gold, known[to])
    return DataPlan(
        id=make_decision_id(lake, "rollback", to, head.snapshot_id),
        to=to,
        head=head.snapshot_id,
        target=known[to],
        days={
            day: ChangedDay(sum(before.get(day, {}).values()), sum(after.get(day, {}).values()))
            for day in sorted({*before, *after})
            if before.get(day) != after.get(day)
        },
        undone=tuple(each.version for each in undone if not each.undone.exists()),
        restored=tuple(each.version for each in versions if _is_restored(each, to)),
    )


def roll_back_data(
    lake: Lake, versions: Versions, gold: TableSpec, plan: DataPlan, *, who: str, reason: str, now: datetime
) -> None:
    """Carry out a plan; a repeated call after a crash finishes it.

    No version is cut and no person erased meanwhile: the tag of the old head would keep the person's rows. No daily
    step runs: it would record the account of a day that is gone.

    Raises:
        VersionConflictError: since the plan was made there was a commit, a new version or a move of the tag; nothing
            was changed.
        CommitContentionError: a version was being cut for two minutes, or a daily step or an erasure was at work for
            ten.
    """
    with lake.pause_daily_steps(), lake.lock_versions():
        _refuse_outdated_plan(lake, versions, gold, plan)
        _roll_back(lake, versions, gold, plan, who, reason, now)


def _refuse_outdated_plan(lake: Lake, versions: Versions, gold: TableSpec, plan: DataPlan) -> None:
    now = plan_data_rollback(lake, versions, gold, plan.to)
    cut = sorted(set(now.undone) - set(plan.undone), key=parse_version_number)
    if cut or now.target != plan.target:
        what = f"{', '.join(cut)} was cut" if cut else f"the tag {plan.to} was moved by an erasure"
        raise VersionConflictError(f"{what} since the plan was made. Look again what would change, then repeat.")


def _roll_back(
    lake: Lake, versions: Versions, gold: TableSpec, plan: DataPlan, who: str, reason: str, now: datetime
) -> None:
    content = _hash_contents(lake, versions, gold, plan)

    def record_all(table: "Table") -> None:
        if plan.saved_head not in table.metadata.refs:
            table.manage_snapshots().create_tag(plan.head, plan.saved_head).commit()
        facts = {
            "what": "data",
            "to_version": plan.to,
            "snapshot_before": plan.head,
            "snapshot_after": plan.target,
            "saved_head": plan.saved_head,
        }
        record_decision(lake, ROLLBACKS, plan.id, who=who, reason=reason, now=now, **facts)
        _set_ledger(lake, gold, plan, content, RunStamp(f"rollback {plan.id}", ROLLBACK_CODE_VERSION, now))
        mark = UndoneMark(rollback=plan.id, decided_at=now, decided_by=who, reason=reason)
        for version in plan.undone:
            write_once(versions.folder(version).undone, msgspec.json.format(msgspec.json.encode(mark)))
        for version in plan.restored:
            versions.folder(version).undone.unlink(missing_ok=True)

    set_head(lake, gold, plan.to, plan.head, before=record_all)


def record_model_rollback(
    lake: Lake, *, to: str, champion_before: str | None, who: str, reason: str, now: datetime
) -> None:
    """Write a rollback of the champion alone into the audit table, once."""
    decision = make_decision_id(lake, "model rollback", to, champion_before, now.isoformat())
    facts = {"what": "models", "to_version": to, "champion_before": champion_before}
    record_decision(lake, ROLLBACKS, decision, who=who, reason=reason, now=now, **facts)


def record_share_change(
    lake: Lake, *, champion: str, share: float, share_before: float, who: str, reason: str, now: datetime
) -> None:
    """Write a change of the champion's share of the users into the audit table, once."""
    decision = make_decision_id(lake, "share change", champion, share, now.isoformat())
    facts = {"what": "share", "to_version": champion, "champion_before": champion}
    shares = {"share_before": share_before, "share_after": share}
    record_decision(lake, ROLLBACKS, decision, who=who, reason=reason, now=now, **facts, **shares)


def _is_later(version: str, to: str) -> bool:
    return parse_version_number(version) > parse_version_number(to)


def _is_restored(folder: VersionFolder, to: str) -> bool:
    if not folder.undone.exists():
        return False
    if to.startswith(SAVED_HEAD):
        mark = decode_versioned(folder.undone.read_bytes(), UndoneMark, str(folder.undone))
        return mark.rollback == to.removeprefix(SAVED_HEAD)
    return not _is_later(folder.version, to)


@translate_outages()
def _list_files_per_day(lake: Lake, gold: TableSpec, snapshot_id: int) -> dict[date, dict[str, int]]:
    """List the data files of each day, with their rows, in one snapshot."""
    from flywheel_assets.lake.tables.iceberg import read_partition_day

    found: dict[date, dict[str, int]] = {}
    for task in lake.load_table(gold).scan(snapshot_id=snapshot_id).plan_files():
        found.setdefault(read_partition_day(task.file), {})[task.file.file_path] = task.file.record_count
    return found


def _hash_contents(lake: Lake, versions: Versions, gold: TableSpec, plan: DataPlan) -> dict[date, str]:
    """Return the target's content hash of every changed day, from the version's pin where it has the day."""
    known: Mapping[str, str] = {}
    if parse_version_number(plan.to) and (folder := versions.folder(plan.to)).pin.exists():
        known = read_pin(folder).days
    return {
        day: known.get(day.isoformat()) or ledger.hash_content(lake.read(gold, [day], snapshot_id=plan.target))
        for day in plan.days
    }


def _set_ledger(lake: Lake, gold: TableSpec, plan: DataPlan, content: Mapping[date, str], stamp: RunStamp) -> None:
    entries = ledger.read_entries(lake, gold.name, plan.days)
    restored = []
    for day, entry in entries.items():
        rows = plan.days[day].rows_after
        waiting, stated = _count_unkept_rows(lake, gold, day, plan.target) if rows else (0, 0)
        rows_in = max(entry.rows_in, rows)
        kept = rows - waiting - stated
        gone = {Reason.ROLLED_BACK.value: rows_in - kept} if rows_in > kept else {}
        restored.append(
            replace(
                entry,
                content_hash=content[day],
                rows_in=rows_in,
                rows_kept=kept,
                rows_by_reason=gone,
                rows_held=waiting,
                rows_stated=stated,
            )
        )
    if restored:
        # Quarantine's rows of these days belong to gold rows that are gone; a backfill writes both again.
        lake.replace_days(QUARANTINE, list(entries), {}, stamp.properties, stage=STAGE_OF[gold.name])
        ledger.record_entries(lake, restored, stamp)


def _count_unkept_rows(lake: Lake, gold: TableSpec, day: date, snapshot_id: int) -> tuple[int, int]:
    """Count the rows of a day that wait in gold for the support of other users, and the mere statements."""
    if "held_reason" not in gold.schema.names:
        return 0, 0
    rows = lake.read(gold, [day], ["held_reason", "example_kind"], snapshot_id)
    statements = pc.equal(rows["example_kind"], pa.scalar(ExampleKind.STATEMENT.value))
    return rows.num_rows - rows["held_reason"].null_count, int(to_mask(statements).sum())
