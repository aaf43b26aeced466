"""`raw_predictions` + `ground_truth` → `joined_feedback`: finds the matches by keys, then fetches what they say.

Only key columns are read over the window of days. Text is fetched day by day for the matched rows alone, so that
memory is bounded by one day's feedback whatever the length of the range.
"""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from flywheel_assets import records
from flywheel_assets.joining import DayAccount, JoinedKeys, JoinWindow, join_keys
from flywheel_assets.lake import ledger
from flywheel_assets.lake.failed_steps import removes_unfinished
from flywheel_assets.lake.ledger import LedgerEntry, RunStamp
from flywheel_assets.lake.tables import (
    GROUND_TRUTH,
    JOINED_FEEDBACK,
    PREFERENCE_TABLES,
    QUARANTINE,
    RAW_PREDICTIONS,
    ApplicationTables,
    Lake,
)
from flywheel_assets.records import Reason, subject_of, subject_of_score


@removes_unfinished
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
    window_days = ledger.day_range(max(start, min(days) - timedelta(days=window.account_lookback_days)), max(days))
    predictions = ledger.require(lake, tables.predictions.name, window_days)
    feedback = ledger.require(lake, GROUND_TRUTH.name, window_days)
    with lake.connect() as connection:
        keys = _join_window(lake, connection, tables, days, window_days, window)
        planned = {spec.name: lake.plan_days(spec, window_days) for spec in (tables.predictions, GROUND_TRUTH)}
        files: dict[date, Path] = {}
        refused: dict[date, Path] = {}
        entries: list[LedgerEntry] = []
        for day in sorted(days):
            rows = _fetch_matched(lake, connection, tables, keys, day, planned)
            connection.register("joined", rows)
            if file := lake.write_day(connection, tables.joined, day, "SELECT * FROM joined"):
                files[day] = file
            connection.register("expired", _expired_rows(keys, day))
            if file := lake.write_day(connection, QUARANTINE, day, "SELECT * FROM expired"):
                refused[day] = file
            lookback = ledger.day_range(max(start, day - timedelta(days=window.match_lookback_days)), day)
            entries.append(
                LedgerEntry(
                    asset=JOINED_FEEDBACK.name,
                    day=day,
                    is_closed=all(predictions[past].is_closed and feedback[past].is_closed for past in lookback),
                    content_hash=ledger.content_hash(rows, connection),
                    input_hashes={
                        RAW_PREDICTIONS.name: ledger.window_hash(predictions, lookback),
                        GROUND_TRUTH.name: ledger.window_hash(feedback, lookback),
                    },
                    rows_in=keys.accounts[day].received + keys.accounts[day].carried_in,
                    rows_kept=rows.num_rows,
                    rows_by_reason=_reasons(keys.accounts[day]),
                )
            )
    properties = stamp.properties()
    lake.replace_days(tables.joined, days, files, properties)
    lake.replace_days(QUARANTINE, days, refused, properties, stage=JOINED_FEEDBACK.name)
    ledger.record(lake, entries, stamp)
    return {entry.day: entry for entry in entries}


def _join_window(
    lake: Lake,
    connection: duckdb.DuckDBPyConnection,
    tables: ApplicationTables,
    days: Sequence[date],
    window_days: Sequence[date],
    window: JoinWindow,
) -> JoinedKeys:
    lake.register(
        connection,
        tables.predictions,
        window_days,
        columns=["prediction_id", "received_date"],
        view="prediction_keys",
    )
    lake.register(
        connection,
        GROUND_TRUTH,
        window_days,
        columns=["event_id", "prediction_id", "received_date", "signal", "prompt_format"],
        view="feedback_columns",
    )
    # `prompt_format` stands for the texts it describes: asking the texts themselves would read them.
    connection.execute(
        "CREATE OR REPLACE TEMP VIEW feedback_keys AS SELECT event_id, prediction_id, received_date, "
        f"{tables.is_text} AND signal = 'edit' AND prompt_format IS NOT NULL AS carries_text FROM feedback_columns"
    )
    return join_keys(connection, sorted(days), window)


def _fetch_matched(
    lake: Lake,
    connection: duckdb.DuckDBPyConnection,
    tables: ApplicationTables,
    keys: JoinedKeys,
    day: date,
    planned: Mapping[str, Mapping[date, Sequence[Path]] | None],
) -> pa.Table:
    """The joined rows of one day, in the columns of `tables.joined`."""
    matches = keys.matches.filter(pc.equal(keys.matches["completed_date"], pa.scalar(day)))
    if not matches.num_rows:
        return tables.joined.schema.empty_table()
    connection.register("matched", matches)
    for spec, column in ((GROUND_TRUTH, "feedback_date"), (tables.predictions, "prediction_date")):
        lake.register(connection, spec, _days_in(matches[column]), planned=planned[spec.name])
    columns = _TEXT_COLUMNS if tables.is_text else _SCORE_COLUMNS
    rows = connection.sql(_JOINED_ROWS.format(columns=columns)).to_arrow_table()
    return _with_subject(rows, tables)


_JOINED_ROWS = """
WITH feedback AS (
    SELECT m.completed_date, m.prediction_date, g.*
    FROM ground_truth g JOIN matched m ON g.event_id = m.feedback_event_id AND g.received_date = m.feedback_date
),
prediction AS (  -- several events for one prediction: the one received first
    SELECT * FROM raw_predictions
    SEMI JOIN matched ON raw_predictions.prediction_id = matched.prediction_id AND received_date = prediction_date
    QUALIFY row_number() OVER (PARTITION BY prediction_id, received_date ORDER BY received_at, event_id) = 1
)
SELECT f.completed_date,
       f.event_id AS feedback_event_id,
       f.prediction_id,
       f.prediction_date AS prediction_received_date,
       f.received_date AS feedback_received_date,
       f.received_at AS feedback_received_at,
       f.occurred_at,
       p.occurred_at AS predicted_at,
       f.signal,
       f.source,
       coalesce(p.model_version, f.model_version) AS model_version,
       coalesce(nullif(f.user_id, ''), nullif(p.user_id, '')) AS user_id,
       coalesce(nullif(f.thread_id, ''), nullif(p.thread_id, '')) AS thread_id,
       f.do_not_train OR coalesce(p.do_not_train, false) AS do_not_train,
       {columns},
       f.value, f.label, f.comment, f.sampling_probability
FROM feedback f
LEFT JOIN prediction p ON p.prediction_id = f.prediction_id AND p.received_date = f.prediction_date
"""


# What the user saw and changed comes first; what the server logged fills in where the event did not carry it.
_TEXT_COLUMNS = """
       coalesce(f.prompt, p.prompt) AS prompt,
       coalesce(f.prompt_format, p.prompt_format) AS prompt_format,
       coalesce(f.original_output, p.output, '') AS output,
       f.final_text"""
_SCORE_COLUMNS = """
       f.labeling_source, f.known_at,
       p.features, p.score, p.amount, p.segment, p.action, p.allow_propensity"""


def _with_subject(rows: pa.Table, tables: ApplicationTables) -> pa.Table:
    last_resort, decide = ("prompt", subject_of) if tables.is_text else ("prediction_id", subject_of_score)
    identities = zip(
        rows["user_id"].to_pylist(), rows["thread_id"].to_pylist(), rows[last_resort].to_pylist(), strict=True
    )
    subjects = [decide(user_id, thread_id, otherwise) for user_id, thread_id, otherwise in identities]
    rows = rows.append_column("subject", pa.array([subject for subject, _ in subjects], pa.string()))
    rows = rows.append_column("subject_kind", pa.array([kind.value for _, kind in subjects], pa.string()))
    return rows.select(tables.joined.schema.names).cast(tables.joined.schema)


def _expired_rows(keys: JoinedKeys, day: date) -> pa.Table:
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


def _reasons(account: DayAccount) -> dict[str, int]:
    reasons = {
        Reason.DUPLICATE_EVENT: account.duplicates,
        Reason.NO_PREDICTION_IN_WINDOW: account.expired,
        Reason.WAITING_FOR_PREDICTION: account.waiting,
    }
    return {reason.value: count for reason, count in reasons.items() if count}


def _days_in(column: pa.ChunkedArray) -> list[date]:
    return [day for day in pc.unique(column).to_pylist() if day is not None]
