"""The ledger after an erasure: rows add up, nothing looks stale, and what people decided about a day still holds."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import date, timedelta

import pyarrow as pa

from flywheel_assets.curation.arrow import values_of
from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.daily.ledger import NOT_QUARANTINED, STAGE_OF, LedgerEntry, RunStamp
from flywheel_assets.lake.erasure.rows import Partition
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import (
    BREAKER_DAYS,
    BREAKER_RESETS,
    GROUND_TRUTH,
    QUARANTINE,
    ApplicationTables,
    TableSpec,
)

Lookback = Mapping[str, Mapping[str, int]]
"""Per derived table its inputs, with how many days before D its partition D reads."""
LandedHashes = Mapping[str, Mapping[date, str]]
"""Per raw table the content hash of every landed day."""


def days_in_step(lake: Lake, landed: LandedHashes) -> dict[str, set[date]]:
    """Find, per raw table, the closed days that were made from what lies in landing now.

    To an open day capture may add before the erasure is over: its entry would name segments that are not ingested yet.
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
    before = {asset: ledger.read_entries(lake, asset) for asset in assets}
    after = {asset: dict(entries) for asset, entries in before.items()}
    for spec in specs:
        entries = after[spec.name]
        stage = STAGE_OF[spec.name]
        rewritten = {day for day, _ in touched.get(spec.name, [])}
        days = rewritten | {day for day, of in touched.get(QUARANTINE.name, []) if of == stage}
        for day in sorted(days & set(entries)):
            entries[day] = _recount(lake, spec, entries[day])
            if spec.name not in landed and day in rewritten:
                entries[day] = replace(entries[day], content_hash=ledger.hash_content(lake.read(spec, [day])))
        for day in in_step.get(spec.name, []):
            if day in entries:
                entries[day] = replace(entries[day], content_hash=landed[spec.name].get(day, entries[day].content_hash))
    for asset, inputs in lookback.items():
        for day, entry in after[asset].items():
            if _windows(before, inputs, start, day).items() <= entry.input_hashes.items():
                now = {**entry.input_hashes, **_windows(after, inputs, start, day)}
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


def _windows(
    entries: Mapping[str, Mapping[date, LedgerEntry]], inputs: Mapping[str, int], start: date, day: date
) -> dict[str, str]:
    """Return the input hashes of a day that was made from these entries."""
    return {
        name: ledger.hash_window(entries[name], ledger.list_days(max(start, day - timedelta(days=days_before)), day))
        for name, days_before in inputs.items()
    }


def _recount(lake: Lake, spec: TableSpec, entry: LedgerEntry) -> LedgerEntry:
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
                lake.replace_all(spec, rename, stamp.properties)
