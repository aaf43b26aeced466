"""What people did with each model version, day by day: thumbs, ratings, copies, accepts, regenerations, edits.

For people who watch a model, never for training: a thumb has no text that could be learnt from, and a model trained on
approval learns to be approved of.
"""

from collections.abc import Sequence
from datetime import date
from pathlib import Path

import pyarrow as pa

from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.daily.daily_steps import daily_step
from flywheel_assets.lake.daily.ledger import LedgerEntry, RunStamp
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import FEEDBACK_SUMMARY, JOINED_FEEDBACK

_COLUMNS = ["completed_date", "model_version", "prediction_id", "signal", "output", "final_text", "value"]

_SUMMARY = """
    SELECT
        completed_date,
        coalesce(model_version, '') AS model_version,
        count(*) AS events,
        count(DISTINCT prediction_id) AS interactions,
        count(*) FILTER (signal = 'edit') AS edits,
        count(*) FILTER (signal = 'edit' AND final_text = output) AS edits_unchanged,
        count(*) FILTER (signal = 'thumb' AND value > 0) AS thumbs_up,
        count(*) FILTER (signal = 'thumb' AND value < 0) AS thumbs_down,
        count(*) FILTER (signal = 'rating') AS ratings,
        avg(value) FILTER (signal = 'rating') AS mean_rating,
        count(*) FILTER (signal = 'copy') AS copies,
        count(*) FILTER (signal = 'accept') AS accepts,
        count(*) FILTER (signal = 'regenerate') AS regenerates,
        count(*) FILTER (signal = 'comment') AS comments
    FROM joined GROUP BY ALL
"""


@daily_step
def summarize_days(lake: Lake, days: Sequence[date], stamp: RunStamp) -> dict[date, LedgerEntry]:
    """Replace partitions `days` of the summary: one row per model version that anybody reacted to.

    Raises:
        MissingInputError: a day was never joined.
    """
    joined = ledger.require(lake, JOINED_FEEDBACK.name, days)
    files: dict[date, Path] = {}
    entries: list[LedgerEntry] = []
    planned = lake.plan_days(JOINED_FEEDBACK, days)
    with lake.connect() as connection:
        for day in sorted(days):
            lake.register(connection, JOINED_FEEDBACK, [day], _COLUMNS, view="joined", planned=planned)
            rows = connection.sql(_SUMMARY).to_arrow_table()
            connection.register("summary", rows)
            if file := lake.write_day(connection, FEEDBACK_SUMMARY, day, "SELECT * FROM summary"):
                files[day] = file
            entries.append(
                LedgerEntry(
                    asset=FEEDBACK_SUMMARY.name,
                    day=day,
                    is_closed=joined[day].is_closed,
                    content_hash=ledger.content_hash(rows, connection),
                    input_hashes={JOINED_FEEDBACK.name: ledger.window_hash(joined, [day])},
                    rows_in=rows.num_rows,
                    rows_kept=rows.num_rows,
                    rows_by_reason={},
                )
            )
    lake.replace_days(FEEDBACK_SUMMARY, days, files, stamp.properties())
    ledger.record(lake, entries, stamp)
    return {entry.day: entry for entry in entries}


def summary_rows(lake: Lake, days: Sequence[date] | None = None) -> pa.Table:
    """The summary of some days, or of all, by day and model version."""
    return lake.read(FEEDBACK_SUMMARY, days).sort_by([("completed_date", "ascending"), ("model_version", "ascending")])
