"""The ledger after an erasure: rows add up, nothing looks stale, and what people decided about a day still holds."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from flywheel_assets.curation.arrow import values_of
from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.daily.accounting import NOT_QUARANTINED, STAGE_OF
from flywheel_assets.lake.daily.ledger import LedgerEntry, RunStamp
from flywheel_assets.lake.erasure.person import Partition, PersonKeys
from flywheel_assets.lake.erasure.versions import ErasedVersion
from flywheel_assets.lake.storage.files import replace_file
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import (
    BREAKER_DAYS,
    BREAKER_RESETS,
    ERASURES,
    EXCLUSIONS,
    GROUND_TRUTH,
    QUARANTINE,
    ROLLBACKS,
    ApplicationTables,
    TableSpec,
)

Lookback = Mapping[str, Mapping[str, int]]
"""Per derived table its inputs, with how many days before D its partition D reads."""
LandedHashes = Mapping[str, Mapping[date, str]]
"""Per raw table the content hash of every landed day."""


def find_days_in_step(lake: Lake, landed: LandedHashes) -> dict[str, set[date]]:
    """Find, per raw table, the closed days that were made from what lies in landing now.

    To an open day capture may add before the erasure is over: its entry would name segments that are not ingested yet.
    """
    return {
        table: {
            day
            for day, entry in ledger.entries_of(lake, table).items()
            if entry.is_closed and hashes.get(day) == entry.content_hash
        }
        for table, hashes in landed.items()
    }


def settle_accounts(
    lake: Lake,
    tables: ApplicationTables,
    touched: Mapping[str, list[Partition]],
    in_step: Mapping[str, list[date]],
    landed: LandedHashes,
    lookback: Lookback,
    start: date,
    stamp: RunStamp,
) -> None:
    """Set the ledger entries of every touched day to what is left, in one commit.

    What was stale before stays so. That is asked of the entries as they are now, not as the erasure found them: one
    that was killed may be finished days later, when runs have written some of them again.

    Args:
        lake: the application's tables.
        tables: which of them its daily assets fill.
        touched: partitions that were rewritten, by table.
        in_step: days whose entry was that of what had landed, by raw table.
        landed: content hashes of the landed days as they are now.
        lookback: of the derived tables.
        start: the application's first day.
        stamp: who writes.
    """
    specs = [tables.predictions, GROUND_TRUTH, tables.joined, tables.gold]
    assets = [*(spec.name for spec in specs), *(name for name in lookback if name not in STAGE_OF)]
    before = {asset: ledger.entries_of(lake, asset) for asset in assets}
    after = {asset: dict(entries) for asset, entries in before.items()}
    for spec in specs:
        entries = after[spec.name]
        stage = STAGE_OF[spec.name]
        rewritten = {day for day, _ in touched.get(spec.name, [])}
        days = rewritten | {day for day, of in touched.get(QUARANTINE.name, []) if of == stage}
        for day in sorted(days & set(entries)):
            entries[day] = _recount_rows(lake, spec, entries[day])
            if spec.name not in landed and day in rewritten:
                entries[day] = replace(entries[day], content_hash=ledger.content_hash(lake.read(spec, [day])))
        for day in in_step.get(spec.name, []):
            if day in entries:
                entries[day] = replace(entries[day], content_hash=landed[spec.name].get(day, entries[day].content_hash))
    for asset, inputs in lookback.items():
        for day, entry in after[asset].items():
            if _hash_windows(before, inputs, start, day).items() <= entry.input_hashes.items():
                now = {**entry.input_hashes, **_hash_windows(after, inputs, start, day)}
                after[asset][day] = replace(entry, input_hashes=now)
    joined = tables.joined.name
    _rename_judged_days(
        lake,
        {(day, before[joined][day].content_hash): entry.content_hash for day, entry in after[joined].items()},
        stamp,
    )
    changed = [entry for asset in assets for day, entry in after[asset].items() if entry != before[asset][day]]
    if changed:
        ledger.record(lake, changed, stamp)


def _hash_windows(
    entries: Mapping[str, Mapping[date, LedgerEntry]], inputs: Mapping[str, int], start: date, day: date
) -> dict[str, str]:
    """Return the input hashes of a day that was made from these entries."""
    return {
        name: ledger.window_hash(entries[name], ledger.day_range(max(start, day - timedelta(days=days_before)), day))
        for name, days_before in inputs.items()
    }


def _recount_rows(lake: Lake, spec: TableSpec, entry: LedgerEntry) -> LedgerEntry:
    """Return the entry with the rows that the table and quarantine hold now."""
    columns = [spec.day_column or "", *(["held_reason"] if "held_reason" in spec.schema.names else [])]
    rows = lake.read(spec, [entry.day], columns)
    held = rows.num_rows - rows["held_reason"].null_count if len(columns) > 1 else 0
    refused = lake.read(QUARANTINE, [entry.day], ["stage", "reason"], where=f"stage = '{STAGE_OF[spec.name]}'")
    in_quarantine = {each["values"]: each["counts"] for each in refused["reason"].value_counts().to_pylist()}  # type: ignore[index, misc]
    by_reason = {
        reason: number if reason in NOT_QUARANTINED else in_quarantine.get(reason, 0)
        for reason, number in entry.rows_by_reason.items()
    }
    kept = rows.num_rows - held
    return replace(
        entry,
        rows_in=kept + sum(by_reason.values()),
        rows_kept=kept,
        rows_by_reason={reason: number for reason, number in by_reason.items() if number},
        rows_held=held,
    )


def _rename_judged_days(lake: Lake, renamed: Mapping[tuple[date, str], str], stamp: RunStamp) -> None:
    """Give judged days and resets the new hash of their joined rows.

    A person let a day in by the hash of its rows; the rows that are left are still those rows.
    """

    def rename(rows: pa.Table) -> pa.Table:
        hashes = [
            renamed.get((day, joined), joined)
            for day, joined in zip(values_of(rows["day"]), values_of(rows["joined_hash"]), strict=True)
        ]
        return rows.set_column(rows.schema.get_field_index("joined_hash"), "joined_hash", pa.array(hashes, pa.string()))

    for spec in (BREAKER_DAYS, BREAKER_RESETS):
        if lake.has_table(spec):
            rows = lake.read(spec)
            if not rename(rows).equals(rows):
                lake.replace_all(spec, rename, stamp.properties())


class Progress(msgspec.Struct, kw_only=True):
    """How things stood before the attempts, and what all of them have done."""

    in_step: dict[str, list[date]] = {}
    """Per raw table the days whose ledger entry was that of what had landed when one of the attempts began."""
    touched: dict[str, list[Partition]] = {}
    """Per table the partitions that were, or are about to be, rewritten."""
    rows: dict[str, dict[str, int]] = {}
    """Per table and partition the most rows of the person that were found there."""
    scores: dict[str, int] = {}
    """Rows taken out of each file of scores, by the sha256 that it had."""
    versions: dict[str, ErasedVersion] = {}
    """By tag."""
    counts: dict[str, dict[str, int]] = {}
    """What went from other places, by kind of place and place."""


@dataclass(frozen=True)
class Journal:
    """The progress on disk; every change of it is durable before the call returns."""

    path: Path
    progress: Progress

    @classmethod
    def open(cls, path: Path, in_step: Mapping[str, Iterable[date]]) -> "Journal":
        """Go on from an attempt that was killed, or begin; runs may have ingested days since."""
        progress = msgspec.json.decode(path.read_bytes(), type=Progress) if path.exists() else Progress()
        for table, days in in_step.items():
            progress.in_step[table] = sorted({*progress.in_step.get(table, []), *days})
        journal = cls(path, progress)
        journal._save()
        return journal

    def touch(self, table: str, rows: Mapping[Partition, int]) -> None:
        """Note partitions, and how many of their rows go, before they change."""
        progress = self.progress
        progress.touched[table] = list(dict.fromkeys([*progress.touched.get(table, []), *rows]))
        noted = progress.rows.setdefault(table, {})
        for (day, stage), number in rows.items():
            # A second attempt finds fewer, unless another run has written some of them again.
            name = f"{day} {stage or ''}".strip()
            noted[name] = max(noted.get(name, 0), number)
        self._save()

    def note_version(self, version: ErasedVersion) -> None:
        """Note a version before it changes."""
        self.progress.versions[version.tag] = version.merge_earlier(self.progress.versions.get(version.tag))
        self._save()

    def note_scores(self, sha256: str, rows: int) -> None:
        """Note how many rows a file of scores is about to lose."""
        self.progress.scores[sha256] = rows
        self._save()

    def count_rows(self, table: str) -> int:
        """Return how many rows were erased from a table."""
        return sum(self.progress.rows.get(table, {}).values())

    def count(self, kind: str, place: str, number: int) -> None:
        """Add to what went from a place, when it is gone."""
        counts = Counter(self.progress.counts.get(kind, {}))
        counts[place] += number
        self.progress.counts[kind] = dict(counts)
        self._save()

    def close(self) -> None:
        """Delete the journal: the receipt is written."""
        self.path.unlink(missing_ok=True)

    def _save(self) -> None:
        replace_file(self.path, msgspec.json.encode(self.progress))


def forget_in_decisions(lake: Lake, person: PersonKeys, erasure: str, stamp: RunStamp) -> int:
    """Rewrite the decisions that name the person; return how many rows did.

    A rule about this user gets an alias instead of the user id, and covers no row: all are gone. Reasons stay,
    without the user id. The breaker's examples of rows that are gone are dropped.
    """
    alias = f"erased:{erasure}"
    # Not within a longer word: the user "a" is in every reason.
    named = re.compile(rf"(?<!\w){re.escape(person.user_id)}(?!\w)")

    def reworded(reason: str | None) -> str | None:
        return reason if reason is None else named.sub(alias, reason)

    def renamed(user: str | None) -> str | None:
        return alias if user == person.user_id else user

    def without_examples(trips: str) -> str:
        found = json.loads(trips)
        for trip in found:
            trip["examples"] = [event for event in trip["examples"] if event not in person.event_ids]
        return json.dumps(found)

    changes: tuple[tuple[TableSpec, str, Callable[[Any], Any]], ...] = (
        (EXCLUSIONS, "user_id", renamed),
        (EXCLUSIONS, "reason", reworded),
        (ROLLBACKS, "reason", reworded),
        (BREAKER_RESETS, "reason", reworded),
        (ERASURES, "reason", reworded),
        (BREAKER_DAYS, "trips", without_examples),
    )
    return sum(_rewrite_column(lake, spec, column, change, stamp) for spec, column, change in changes)


def _rewrite_column(lake: Lake, spec: TableSpec, column: str, change: Callable[[Any], Any], stamp: RunStamp) -> int:
    if not lake.has_table(spec):
        return 0

    def rewrite(rows: pa.Table) -> pa.Table:
        position = rows.schema.get_field_index(column)
        values = pa.array([change(value) for value in rows[column].to_pylist()], pa.string())
        return rows.set_column(position, rows.schema.field(position), values)

    before = lake.read(spec)
    pairs = zip(before[column].to_pylist(), rewrite(before)[column].to_pylist(), strict=True)
    differing = sum(bool(old != new) for old, new in pairs)
    if differing:
        lake.replace_all(spec, rewrite, stamp.properties())
    return differing
