"""Keeps the books of an erasure: its journal, and then the ledger and the decisions of people.

A repeated erasure continues from the journal. It contains names of tables, days and counts only. Rows of tables,
versions and scores are noted before they change, so that a repeated note counts them once: after a kill between note
and change they are found again, after a later kill they are not, and the receipt is the same. The journal lies with the
receipts, as `unfinished-<keyed hash of the user id>.json`, until the receipt is written.

Afterwards the ledger's rows add up, nothing looks stale, and the decisions of people about a day are still valid.
"""

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
import pyarrow.compute as pc

from flywheel_assets.curation.arrow import to_mask, values_of
from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.daily.ledger import NOT_QUARANTINED, STAGE_OF, LedgerEntry, RunStamp
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
from flywheel_assets.records import ExampleKind

Lookback = Mapping[str, Mapping[str, int]]
"""For each derived table its inputs, each with the number of days before D that partition D reads."""
LandedHashes = Mapping[str, Mapping[date, str]]
"""For each raw table the content hash of every landed day."""


def find_days_in_step(lake: Lake, landed: LandedHashes) -> dict[str, set[date]]:
    """Find, for each raw table, the closed days whose rows came from the current landed segments.

    Open days are left out: capture may add to them during the erasure, and the entry would name segments that are not
    ingested yet.
    """
    return {
        table: {
            day
            for day, entry in ledger.read_entries(lake, table).items()
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
    """Set the ledger entries of every touched day to the remaining rows, in one commit.

    A stale day stays stale. The current entries decide that, not those that the erasure found: a killed erasure may be
    finished days later, when runs have written some entries again.

    Args:
        lake: the application's tables.
        tables: which of them its daily assets fill.
        touched: partitions that were rewritten, by table.
        in_step: by raw table, the days whose entry agreed with the landed segments.
        landed: current content hashes of the landed days.
        lookback: inputs of the derived tables.
        start: the application's first day.
        stamp: the run that writes.
    """
    specs = [tables.predictions, GROUND_TRUTH, tables.joined, tables.gold]
    assets = [*(spec.name for spec in specs), *(name for name in lookback if name not in STAGE_OF)]
    before = {asset: ledger.read_entries(lake, asset) for asset in assets}
    after = {asset: dict(entries) for asset, entries in before.items()}
    for spec in specs:
        entries = after[spec.name]
        stage = STAGE_OF[spec.name]
        rewritten = {day for day, _ in touched.get(spec.name, [])}
        days = rewritten | {day for day, of in touched.get(QUARANTINE.name, []) if of == stage}
        for day in sorted(days & set(entries)):
            entries[day] = _recount_rows(lake, spec, entries[day])
            if spec.name not in landed and day in rewritten:
                entries[day] = replace(entries[day], content_hash=ledger.hash_content(lake.read(spec, [day])))
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
        ledger.record_entries(lake, changed, stamp)


def _hash_windows(
    entries: Mapping[str, Mapping[date, LedgerEntry]], inputs: Mapping[str, int], start: date, day: date
) -> dict[str, str]:
    """Compute the input hashes of a day that was made from these entries."""
    return {
        name: ledger.hash_window(entries[name], ledger.list_days(max(start, day - timedelta(days=days_before)), day))
        for name, days_before in inputs.items()
    }


def _recount_rows(lake: Lake, spec: TableSpec, entry: LedgerEntry) -> LedgerEntry:
    """Count the rows of table and quarantine again; return the entry with the new counts."""
    has_statements = "held_reason" in spec.schema.names
    columns = [spec.day_column or "", *(["held_reason", "example_kind"] if has_statements else [])]
    rows = lake.read(spec, [entry.day], columns)
    held = rows.num_rows - rows["held_reason"].null_count if has_statements else 0
    statement = pa.scalar(ExampleKind.STATEMENT.value)
    stated = int(to_mask(pc.equal(rows["example_kind"], statement)).sum()) if has_statements else 0
    refused = lake.read(QUARANTINE, [entry.day], ["stage", "reason"], where=f"stage = '{STAGE_OF[spec.name]}'")
    in_quarantine = {each["values"]: each["counts"] for each in refused["reason"].value_counts().to_pylist()}  # type: ignore[index, misc]
    by_reason = {
        reason: number if reason in NOT_QUARANTINED else in_quarantine.get(reason, 0)
        for reason, number in entry.rows_by_reason.items()
    }
    kept = rows.num_rows - held - stated
    return replace(
        entry,
        rows_in=kept + sum(by_reason.values()),
        rows_kept=kept,
        rows_by_reason={reason: number for reason, number in by_reason.items() if number},
        rows_held=held,
        rows_stated=stated,
    )


def _rename_judged_days(lake: Lake, renamed: Mapping[tuple[date, str], str], stamp: RunStamp) -> None:
    """Give judged days and resets the new hash of their joined rows.

    A person admitted a day by the hash of its rows; the remaining rows are still those rows.
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
                lake.replace_all(spec, rename, stamp.properties)


class Progress(msgspec.Struct, kw_only=True):
    """The state before the attempts of an erasure, and the work of all of them."""

    in_step: dict[str, list[date]] = {}
    """By raw table, the days whose ledger entry agreed with landing when one of the attempts began."""
    touched: dict[str, list[Partition]] = {}
    """By table, the partitions that were rewritten or are about to be."""
    rows: dict[str, dict[str, int]] = {}
    """By table and partition, the largest number of the person's rows that was found there."""
    scores: dict[str, int] = {}
    """Rows removed from each file of scores, by the file's earlier sha256."""
    versions: dict[str, ErasedVersion] = {}
    """The changed versions, by tag."""
    counts: dict[str, dict[str, int]] = {}
    """Entries deleted from other places, by kind of place and place."""


@dataclass(frozen=True)
class Journal:
    """The progress on disk; every change is durable before the call returns."""

    path: Path
    progress: Progress

    @classmethod
    def open(cls, path: Path, in_step: Mapping[str, Iterable[date]]) -> "Journal":
        """Open the journal of a killed attempt, or a new one, and add the days in step.

        Runs may have ingested days since the killed attempt.
        """
        progress = msgspec.json.decode(path.read_bytes(), type=Progress) if path.exists() else Progress()
        for table, days in in_step.items():
            progress.in_step[table] = sorted({*progress.in_step.get(table, []), *days})
        journal = cls(path, progress)
        journal._save()
        return journal

    def touch(self, table: str, rows: Mapping[Partition, int]) -> None:
        """Note partitions, and how many of their rows are deleted, before they change."""
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
        """Count the rows that were erased from a table."""
        return sum(self.progress.rows.get(table, {}).values())

    def count(self, kind: str, place: str, number: int) -> None:
        """Add to the number of entries deleted from a place, after their deletion."""
        counts = Counter(self.progress.counts.get(kind, {}))
        counts[place] += number
        self.progress.counts[kind] = dict(counts)
        self._save()

    def close(self) -> None:
        """Delete the journal, once the receipt is written."""
        self.path.unlink(missing_ok=True)

    def _save(self) -> None:
        replace_file(self.path, msgspec.json.encode(self.progress))


def forget_in_decisions(lake: Lake, person: PersonKeys, erasure: str, stamp: RunStamp) -> int:
    """Rewrite the decisions that name the person; return how many rows named them.

    A rule about this user, or about what this user left, gets an alias instead of the id; it covers no row, since all
    are erased. Reasons stay, without the user id. The breaker's examples of erased rows are dropped.
    """
    alias = f"erased:{erasure}"
    # A longer word that contains the id does not count: the user "a" would be in every reason.
    named = re.compile(rf"(?<!\w){re.escape(person.user_id)}(?!\w)")

    def reword(reason: str | None) -> str | None:
        return reason if reason is None else named.sub(alias, reason)

    def rename_user(user: str | None) -> str | None:
        return alias if user == person.user_id else user

    def rename_one_of(ids: frozenset[str]) -> Callable[[str | None], str | None]:
        return lambda named: alias if named in ids else named

    def drop_examples(trips: str) -> str:
        found = json.loads(trips)
        for trip in found:
            trip["examples"] = [event for event in trip["examples"] if event not in person.event_ids]
        return json.dumps(found)

    changes: tuple[tuple[TableSpec, str, Callable[[Any], Any]], ...] = (
        (EXCLUSIONS, "user_id", rename_user),
        (EXCLUSIONS, "prediction_id", rename_one_of(person.prediction_ids)),
        (EXCLUSIONS, "thread_id", rename_one_of(person.thread_ids)),
        (EXCLUSIONS, "statement_id", rename_one_of(person.event_ids)),
        (EXCLUSIONS, "event_id", rename_one_of(person.event_ids)),
        (EXCLUSIONS, "reason", reword),
        (ROLLBACKS, "reason", reword),
        (BREAKER_RESETS, "reason", reword),
        (ERASURES, "reason", reword),
        (BREAKER_DAYS, "trips", drop_examples),
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
        lake.replace_all(spec, rewrite, stamp.properties)
    return differing
