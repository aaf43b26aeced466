"""Curates `joined_feedback` into `curated_dpo_pairs` (gold) and `quarantine`: each day by itself, in any order.

A day's result depends on that day's joined rows, on the row counts of the days before (for the breaker), on the policy
and on a person's reset, and on nothing else. Verdicts, duplicates, caps and the holdout are decided when a version is
resolved.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa

from flywheel_assets.curation.texts.breaker import BreakerLimits, hold_senders
from flywheel_assets.curation.texts.gate import Curated, GateRules, curate_each, withhold
from flywheel_assets.curation.texts.operator_findings import OperatorFinding
from flywheel_assets.lake.daily import breaker, ledger
from flywheel_assets.lake.daily.daily_steps import run_as_daily_step
from flywheel_assets.lake.daily.day_groups import count_bytes, group_days, part_by_day
from flywheel_assets.lake.daily.ledger import LedgerEntry, RunStamp
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import CURATED_DPO_PAIRS, JOINED_FEEDBACK, QUARANTINE, PlannedFile
from flywheel_assets.records import CURATION_STAGE, Reason


@run_as_daily_step
def curate_days(
    lake: Lake,
    days: Sequence[date],
    start: date,
    rules: GateRules,
    limits: BreakerLimits,
    stamp: RunStamp,
    findings: dict[date, tuple[OperatorFinding, ...]] | None = None,
) -> dict[date, LedgerEntry]:
    """Replace partitions `days` of gold by what their joined rows say; quarantine gets the refused ones with reasons.

    Every joined row is one row of gold: an example, or a statement without texts, which a later version weighs. A row
    that is refused, or that waits for the support of other users, is in quarantine as well. Gold holds no row of a
    closed day that trips the breaker, or of the few senders behind that, until the day is reset and curated again. An
    open day is not judged: its rows are provisional, and no version takes them.

    Args:
        lake: the application's tables.
        days: which partitions.
        start: the application's first day; the breaker looks at no day before it.
        rules: the row checks.
        limits: the breaker's.
        stamp: who writes.
        findings: filled with what the policy says about the team's own prompts of each day; the lake keeps none of it.

    Raises:
        MissingInputError: a day was never joined.
    """
    joined = ledger.require_entries(lake, JOINED_FEEDBACK.name, days)
    every_joined = ledger.read_entries(lake, JOINED_FEEDBACK.name)
    let_in = {(reset.day, reset.joined_hash) for reset in breaker.list_resets(lake)}
    files: dict[date, Path] = {}
    refused: dict[date, Path] = {}
    entries: list[LedgerEntry] = []
    judged: list[breaker.JudgedDay] = []
    planned = lake.plan_days(JOINED_FEEDBACK, days)
    with lake.connect() as connection:
        rows_of = {day: joined[day].rows_kept for day in days}
        bytes_of = {day: count_bytes(planned, [day]) for day in days}
        for group in group_days(sorted(days), rows_of, bytes_of):
            gold: dict[date, pa.Table] = {}
            curated_of: dict[date, Curated] = {}
            for day, rows, curated in _curate_group(lake, connection, group, planned, rules):
                if findings is not None:
                    findings[day] = curated.operator_findings
                if joined[day].is_closed:
                    held = hold_senders(rows, curated, breaker.list_trailing_rows(every_joined, day, limits), limits)
                    is_reset = (day, joined[day].content_hash) in let_in
                    judged.append(breaker.JudgedDay(day, joined[day].content_hash, held.figures, is_reset, stamp.now))
                    if judged[-1].is_kept_out:
                        whole = judged[-1].is_tripped
                        reason = Reason.BREAKER_TRIPPED if whole else Reason.SENDER_HELD
                        detail, which = held.figures.describe(), None if whole else held.event_ids
                        curated = withhold(curated, reason, detail, rules.policy.version, which)
                gold[day], curated_of[day] = curated.gold, curated
                if file := lake.write_rows(connection, CURATED_DPO_PAIRS, day, gold[day]):
                    files[day] = file
                if file := lake.write_rows(connection, QUARANTINE, day, curated.refused):
                    refused[day] = file
            hashes = ledger.hash_days(gold, str(CURATED_DPO_PAIRS.day_column), connection)
            for day, curated in curated_of.items():
                read = ledger.list_days(max(start, day - timedelta(days=limits.trailing_days)), day)
                entries.append(
                    LedgerEntry(
                        asset=CURATED_DPO_PAIRS.name,
                        day=day,
                        is_closed=joined[day].is_closed,
                        content_hash=hashes[day],
                        input_hashes={JOINED_FEEDBACK.name: ledger.hash_window(every_joined, read)},
                        rows_in=joined[day].rows_kept,
                        rows_kept=curated.kept.num_rows,
                        rows_by_reason=curated.counts,
                        rows_held=curated.waiting.num_rows,
                        rows_stated=curated.statements.num_rows,
                    )
                )
    properties = {**stamp.properties, "flywheel.policy-version": rules.policy.version}
    lake.replace_days(CURATED_DPO_PAIRS, days, files, properties)
    lake.replace_days(QUARANTINE, days, refused, properties, stage=CURATION_STAGE)
    breaker.record_judged_days(lake, judged, [day for day in days if not joined[day].is_closed], stamp)
    ledger.record_entries(lake, entries, stamp)
    return {entry.day: entry for entry in entries}


def _curate_group(
    lake: Lake,
    connection: duckdb.DuckDBPyConnection,
    days: Sequence[date],
    planned: Mapping[date, Sequence[PlannedFile]],
    rules: GateRules,
) -> Iterator[tuple[date, pa.Table, Curated]]:
    """Read and judge days together; return each day with its joined rows and the gate's result."""
    rows = lake.read(JOINED_FEEDBACK, days, planned=planned, connection=connection)
    parts = part_by_day(rows, JOINED_FEEDBACK, days)
    curated = curate_each(list(parts.values()), lake.application, rules)
    return zip(parts, parts.values(), curated, strict=True)
