"""Joins `raw_predictions` and `ground_truth` into `joined_feedback`: finds matches by keys, then fetches their rows.

Only key columns are read over the window of days. The matched rows are fetched day by day, small days together
(`lake.daily._matched_rows`, `day_groups`), so that memory is bounded by one day's feedback whatever the length of the
range.

A label that finds no prediction within the window is looked up among those before it, too. If it is found there, its
row is one of `joined_feedback` like any other, and supersedes the silence; a copy in quarantine (stage
`LATE_LABEL_STAGE`) says by how much the window is too short.
"""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from flywheel_assets import records
from flywheel_assets.curation.joining import DayAccount, JoinedKeys, JoinWindow, join_keys
from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.daily._matched_rows import fetch_matched_rows, list_days_in
from flywheel_assets.lake.daily.daily_steps import run_as_daily_step
from flywheel_assets.lake.daily.day_groups import count_bytes, group_days, part_by_day
from flywheel_assets.lake.daily.ledger import LedgerEntry, RunStamp
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import (
    GROUND_TRUTH,
    JOINED_FEEDBACK,
    PREFERENCE_TABLES,
    QUARANTINE,
    RAW_PREDICTIONS,
    ApplicationTables,
    PlannedFile,
)
from flywheel_assets.records import Reason, Signal

LATE_LABEL_STAGE = "late_labels"
"""Quarantine's copies of labels that came after the join window; their rows stay in `joined_feedback`."""


@run_as_daily_step
def join_days(
    lake: Lake,
    days: Sequence[date],
    start: date,
    window: JoinWindow,
    stamp: RunStamp,
    tables: ApplicationTables = PREFERENCE_TABLES,
) -> dict[date, LedgerEntry]:
    """Replace partitions `days` of `joined_feedback` by the matches that became complete on them.

    Args:
        lake: the application's tables.
        days: the days to complete.
        start: the application's first day; no window reaches behind it.
        window: how far apart prediction and feedback may be.
        stamp: who writes.
        tables: of the application's kind.

    Raises:
        MissingInputError: a day of the window was never materialized in one of the raw tables.
    """
    reach = window.compute_reading_days(is_text=tables.is_text)
    window_days = ledger.list_days(max(start, min(days) - timedelta(days=reach)), max(days))
    predictions = ledger.require_entries(lake, tables.predictions.name, window_days)
    feedback = ledger.require_entries(lake, GROUND_TRUTH.name, window_days)
    with lake.connect() as connection:
        keys = _join_window(lake, connection, tables, days, window_days, window)
        planned = {spec.name: lake.plan_days(spec, window_days) for spec in (tables.predictions, GROUND_TRUTH)}
        files: dict[date, Path] = {}
        refused: dict[date, Path] = {}
        late: dict[date, Path] = {}
        entries: list[LedgerEntry] = []
        matches_of = {
            day: keys.matches.filter(pc.equal(keys.matches["completed_date"], pa.scalar(day))) for day in sorted(days)
        }
        rows_of = {day: matches.num_rows for day, matches in matches_of.items()}
        bytes_of = {day: _count_bytes_read(matches, tables, planned) for day, matches in matches_of.items()}
        for group in group_days(sorted(days), rows_of, bytes_of):
            matches = pa.concat_tables([matches_of[day] for day in group])
            joined = part_by_day(fetch_matched_rows(lake, connection, tables, matches, planned), tables.joined, group)
            hashes = ledger.hash_days(joined, str(tables.joined.day_column), connection)
            for day, rows in joined.items():
                if file := lake.write_rows(connection, tables.joined, day, rows):
                    files[day] = file
                if file := lake.write_rows(connection, QUARANTINE, day, _build_expired_rows(keys, day)):
                    refused[day] = file
                if file := lake.write_rows(connection, QUARANTINE, day, _build_late_rows(matches_of[day], day, window)):
                    late[day] = file
                lookback_days = window.compute_lookback_days(is_text=tables.is_text)
                lookback = ledger.list_days(max(start, day - timedelta(days=lookback_days)), day)
                entries.append(
                    LedgerEntry(
                        asset=JOINED_FEEDBACK.name,
                        day=day,
                        is_closed=all(predictions[past].is_closed and feedback[past].is_closed for past in lookback),
                        content_hash=hashes[day],
                        input_hashes={
                            RAW_PREDICTIONS.name: ledger.hash_window(predictions, lookback),
                            GROUND_TRUTH.name: ledger.hash_window(feedback, lookback),
                        },
                        rows_in=keys.accounts[day].received + keys.accounts[day].carried_in,
                        rows_kept=rows.num_rows,
                        rows_by_reason=_count_reasons(keys.accounts[day]),
                    )
                )
    properties = stamp.properties
    lake.replace_days(tables.joined, days, files, properties)
    lake.replace_days(QUARANTINE, days, refused, properties, stage=JOINED_FEEDBACK.name)
    if not tables.is_text:
        lake.replace_days(QUARANTINE, days, late, properties, stage=LATE_LABEL_STAGE)
    ledger.record_entries(lake, entries, stamp)
    return {entry.day: entry for entry in entries}


def _count_bytes_read(
    matches: pa.Table, tables: ApplicationTables, planned: Mapping[str, Mapping[date, Sequence[PlannedFile]]]
) -> int:
    """Count the bytes of the files that hold the rows of some matches."""
    places = ((GROUND_TRUTH.name, "feedback_date"), (tables.predictions.name, "prediction_date"))
    return sum(count_bytes(planned[name], list_days_in(matches[column])) for name, column in places)


def _join_window(
    lake: Lake,
    connection: duckdb.DuckDBPyConnection,
    tables: ApplicationTables,
    days: Sequence[date],
    window_days: Sequence[date],
    window: JoinWindow,
) -> JoinedKeys:
    first, last = min(days) - timedelta(days=window.account_lookback_days), max(days)
    recent = [day for day in window_days if day >= first]
    old = [day for day in window_days if day < last - timedelta(days=window.join_days)]
    finds_late = not tables.is_text and window.late_days > 0
    views = {"prediction_keys": recent, **({"old_prediction_keys": old} if finds_late else {})}
    for view, read in views.items():
        lake.register(connection, tables.predictions, read, columns=["prediction_id", "received_date"], view=view)
    lake.register(
        connection,
        GROUND_TRUTH,
        recent,
        columns=["event_id", "prediction_id", "received_date", "signal", "prompt_format", "sibling_id"],
        view="feedback_columns",
    )
    _find_corrections(lake, connection)
    connection.execute(_FEEDBACK_KEYS.format(is_text=tables.is_text))
    return join_keys(connection, sorted(days), window, finds_late=finds_late)


def _find_corrections(lake: Lake, connection: duckdb.DuckDBPyConnection) -> None:
    """Find thumbs and ratings with a correction; texts are read of those days only on which some carry a prompt."""
    found = connection.execute(f"SELECT DISTINCT received_date FROM feedback_columns WHERE {_OPINION_WITH_PROMPT}")
    days = [day for (day,) in found.fetchall()]
    columns = ["event_id", "received_date", "signal", "prompt_format", "original_output", "final_text"]
    lake.register(connection, GROUND_TRUTH, days, columns, view="opinions")
    connection.execute(_CORRECTIONS)


_OPINION_WITH_PROMPT = f"signal IN ('{Signal.THUMB}', '{Signal.RATING}') AND prompt_format IS NOT NULL"
# A thumb with a correction and all that the correction is about needs no prediction. Without the correction it does:
# what it approves of has to be an answer that was served.
_CORRECTIONS = f"""
CREATE OR REPLACE TEMP TABLE corrections AS
SELECT DISTINCT event_id, received_date FROM opinions
WHERE {_OPINION_WITH_PROMPT} AND original_output IS NOT NULL AND final_text IS NOT NULL
"""
# `prompt_format` stands for the texts it describes, and the sibling for those that come with it: asking the texts
# themselves would read them.
_FEEDBACK_KEYS = f"""
CREATE OR REPLACE TEMP VIEW feedback_keys AS
SELECT event_id, prediction_id, f.received_date, {{is_text}} AND (
    signal = '{Signal.RETRACT}'
    OR (signal IN ('{Signal.EDIT}', '{Signal.CHOICE}', '{Signal.DEMONSTRATION}') AND prompt_format IS NOT NULL)
    OR (signal = '{Signal.REGENERATE}' AND prompt_format IS NOT NULL AND sibling_id IS NOT NULL)
    OR c.event_id IS NOT NULL
) AS carries_text
FROM feedback_columns f LEFT JOIN corrections c USING (event_id, received_date)
"""


def _build_expired_rows(keys: JoinedKeys, day: date) -> pa.Table:
    expiries = keys.expiries.filter(pc.equal(keys.expiries["day"], pa.scalar(day)))
    return pa.Table.from_pylist(
        [
            {
                "day": day,
                "stage": JOINED_FEEDBACK.name,
                "row_id": row["feedback_event_id"],
                "reason": Reason.NO_PREDICTION_IN_WINDOW.value,
                "detail": f"received {row['feedback_date']}, no prediction by {day}",
            }
            for row in expiries.to_pylist()
        ],
        schema=records.QUARANTINE,
    )


def _build_late_rows(matches: pa.Table, day: date, window: JoinWindow) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {
                "day": day,
                "stage": LATE_LABEL_STAGE,
                "row_id": row["feedback_event_id"],
                "reason": Reason.LABEL_AFTER_WINDOW.value,
                "detail": f"joined {delay_days} days after its prediction of {row['prediction_date']}, beyond the "
                f"window of {window.join_days}; JoinWindow(join_days={delay_days}) would take it at once",
            }
            for row in matches.to_pylist()
            if row["prediction_date"] is not None
            and (delay_days := (row["feedback_date"] - row["prediction_date"]).days) > window.join_days
        ],
        schema=records.QUARANTINE,
    )


def _count_reasons(account: DayAccount) -> dict[str, int]:
    reasons = {
        Reason.DUPLICATE_EVENT: account.duplicates,
        Reason.NO_PREDICTION_IN_WINDOW: account.expired,
        Reason.WAITING_FOR_PREDICTION: account.waiting,
    }
    return {reason.value: count for reason, count in reasons.items() if count}
