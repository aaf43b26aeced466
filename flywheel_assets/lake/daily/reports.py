"""Writes two daily reports for people who watch a model: feedback per model version, and drift.

The feedback summary counts events: each thumb, rating, copy, accept, regeneration, edit, choice, demonstration and
retraction of the day counts, also one that a later revision replaced or a retraction took back. So the counts of a day
never change because of a later day; the state that feedback comes to is resolved for versions only. The summary is
never used for training: a thumb has no text to learn from, and a model trained on approval learns to be approved of.

The drift report compares `raw_predictions` of the week up to D with the champion's training rows, a row per field;
before the first promotion with the first days that were served, so that a bad model is watched from the start. It
takes a whole week, because the days of a week differ: single days named `is_weekend` on every day there was, weeks
nothing in 165 field-weeks. Drift does not see a new kind of fraud (PSI .009 while Σp/Σy fell to .36): the trigger
looks at that.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import duckdb
import msgspec
import pyarrow as pa

from flywheel_assets import records
from flywheel_assets.curation.labels.label_resolution import LabelRules, write_resolved_labels_sql
from flywheel_assets.curation.labels.sampling import write_draw_sql
from flywheel_assets.curation.labels.score_contract import ScoreContract, unpack_features
from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.daily.daily_steps import run_as_daily_step
from flywheel_assets.lake.daily.day_groups import count_bytes, group_days, part_by_day
from flywheel_assets.lake.daily.ledger import LedgerEntry, RunStamp, list_days
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import (
    DRIFT_REPORTS,
    FEEDBACK_SUMMARY,
    HARD_EXAMPLES,
    JOINED_FEEDBACK,
    RAW_SCORES,
)
from flywheel_assets.measures.drift import (
    DriftLimits,
    DriftReference,
    build_drift_reference,
    find_breaches,
    measure_drift,
)

WINDOW_DAYS = 7
MAX_ROWS = 200_000
"""Most predictions of a week that a report reads, the same ones each time: PSI's noise at this size is .0001."""

FIRST_DAYS = 28
"""Days with predictions that are the reference before the first promotion."""

_COLUMNS = ["completed_date", "model_version", "prediction_id", "signal", "output", "final_text", "value"]

_SUMMARY = """
    SELECT
        completed_date,
        coalesce(model_version, '') AS model_version,
        count(*) AS events,
        count(DISTINCT nullif(prediction_id, '')) AS interactions,
        count(*) FILTER (signal = 'edit' OR is_corrected) AS edits,
        count(*) FILTER (signal = 'edit' AND final_text = output) AS edits_unchanged,
        count(*) FILTER (signal = 'thumb' AND value > 0) AS thumbs_up,
        count(*) FILTER (signal = 'thumb' AND value < 0) AS thumbs_down,
        count(*) FILTER (signal = 'rating') AS ratings,
        avg(value) FILTER (signal = 'rating') AS mean_rating,
        count(*) FILTER (signal = 'copy') AS copies,
        count(*) FILTER (signal = 'accept') AS accepts,
        count(*) FILTER (signal = 'regenerate') AS regenerates,
        count(*) FILTER (signal = 'comment') AS comments,
        count(*) FILTER (signal = 'choice') AS choices,
        count(*) FILTER (signal = 'demonstration') AS demonstrations,
        count(*) FILTER (signal = 'retract') AS retractions
    FROM (
        SELECT *, signal IN ('thumb', 'rating') AND trim(final_text) <> '' AND final_text <> output AS is_corrected
        FROM joined
    ) GROUP BY ALL
"""


@run_as_daily_step
def summarize_days(lake: Lake, days: Sequence[date], stamp: RunStamp) -> dict[date, LedgerEntry]:
    """Replace partitions `days` of the summary: one row per model version with feedback.

    Raises:
        MissingInputError: a day was never joined.
    """
    joined = ledger.require_entries(lake, JOINED_FEEDBACK.name, days)
    files: dict[date, Path] = {}
    entries: list[LedgerEntry] = []
    planned = lake.plan_days(JOINED_FEEDBACK, days)
    with lake.connect() as connection:
        rows_of = {day: joined[day].rows_kept for day in days}
        bytes_of = {day: count_bytes(planned, [day]) for day in days}
        for group in group_days(sorted(days), rows_of, bytes_of):
            lake.register(connection, JOINED_FEEDBACK, group, _COLUMNS, view="joined", planned=planned)
            summaries = part_by_day(connection.sql(_SUMMARY).to_arrow_table(), FEEDBACK_SUMMARY, group)
            hashes = ledger.hash_days(summaries, str(FEEDBACK_SUMMARY.day_column), connection)
            for day, rows in summaries.items():
                if file := lake.write_rows(connection, FEEDBACK_SUMMARY, day, rows):
                    files[day] = file
                entries.append(
                    LedgerEntry(
                        asset=FEEDBACK_SUMMARY.name,
                        day=day,
                        is_closed=joined[day].is_closed,
                        content_hash=hashes[day],
                        input_hashes={JOINED_FEEDBACK.name: ledger.hash_window(joined, [day])},
                        rows_in=rows.num_rows,
                        rows_kept=rows.num_rows,
                        rows_by_reason={},
                    )
                )
    lake.replace_days(FEEDBACK_SUMMARY, days, files, stamp.properties)
    ledger.record_entries(lake, entries, stamp)
    return {entry.day: entry for entry in entries}


def read_summaries(lake: Lake, days: Sequence[date] | None = None) -> pa.Table:
    """Read the summary of some days, or of all, by day and model version."""
    return lake.read(FEEDBACK_SUMMARY, days).sort_by([("completed_date", "ascending"), ("model_version", "ascending")])


@dataclass(frozen=True)
class Reference:
    """Describes the rows that the champion was trained on, or the first that were served."""

    version: str
    """The gold version, or the first served days."""
    fields: DriftReference


def read_reference(version: str, file: Path) -> Reference:
    """Read the reference that the trainer wrote."""
    return Reference(version, msgspec.json.decode(file.read_bytes(), type=DriftReference))


@dataclass(frozen=True)
class Disputes:
    """Counts the predictions of some days with labels, and those about which equals contradict each other."""

    labelled: int
    disputed: int


_SAID = "coalesce(label_class, CAST(is_positive AS VARCHAR))"


def count_disputes(lake: Lake, rules: LabelRules, days: Sequence[date]) -> Disputes:
    """Count the labelled predictions whose labels became complete on `days`; reads key columns only."""
    columns = [
        *("prediction_id", "label_event_id", "is_positive", "labeling_source", "label_known_at"),
        *("label_received_at", "label_class"),
    ]
    with lake.connect() as connection:
        lake.register(connection, HARD_EXAMPLES, days, columns, view="recent_examples")
        labels = "(SELECT * FROM recent_examples WHERE label_event_id IS NOT NULL)"
        found = connection.execute(
            "SELECT count(*), count(*) FILTER (is_disputed) FROM (SELECT prediction_id, bool_or(is_disputed) AS "
            f"is_disputed FROM ({write_resolved_labels_sql(rules, labels, _SAID)}) GROUP BY prediction_id)"
        ).fetchone()
    assert found is not None
    return Disputes(*found)


@run_as_daily_step
def report_drift(
    lake: Lake,
    days: Sequence[date],
    start: date,
    contract: ScoreContract,
    limits: DriftLimits,
    reference: Reference | None,
    stamp: RunStamp,
) -> dict[date, list[dict[str, object]]]:
    """Replace partitions `days` of the report and return its rows by day.

    Without a reference the first `FIRST_DAYS` days with predictions are it; those days themselves have no rows.
    """
    reports: dict[date, list[dict[str, object]]] = {day: [] for day in days}
    files: dict[date, Path] = {}
    with lake.connect() as connection:
        compared = sorted(days)
        if reference is None:
            first = sorted(day for day, rows in lake.count_rows_per_day(RAW_SCORES).items() if rows)[:FIRST_DAYS]
            compared = [day for day in compared if len(first) == FIRST_DAYS and day > first[-1]]
            if compared:
                served = _read_fields(lake, connection, first, contract)
                reference = Reference(f"first served days {first[0]} … {first[-1]}", build_drift_reference(served))
        for day in compared:
            assert reference is not None
            week = list_days(max(start, day - timedelta(days=WINDOW_DAYS - 1)), day)
            rows = _read_fields(lake, connection, week, contract)
            if not rows.num_rows:
                continue
            reports[day] = _build_drift_rows(day, rows, limits, reference)
            connection.register("reported", pa.Table.from_pylist(reports[day], schema=records.DRIFT_REPORTS))
            if file := lake.write_day(connection, DRIFT_REPORTS, day, "SELECT * FROM reported"):
                files[day] = file
    lake.replace_days(DRIFT_REPORTS, days, files, stamp.properties)
    return reports


def _read_fields(
    lake: Lake, connection: duckdb.DuckDBPyConnection, days: Sequence[date], contract: ScoreContract
) -> pa.Table:
    """Read features and score of at most `MAX_ROWS` predictions, a column per field."""
    lake.register(connection, RAW_SCORES, days, ["prediction_id", "received_date", "features", "score"])
    rows = connection.sql(
        f"SELECT {contract.write_struct_sql(with_retired=True)} AS features, score FROM raw_predictions "
        f"WHERE {contract.write_problem_sql()} IS NULL ORDER BY {write_draw_sql('drift')} LIMIT {MAX_ROWS:d}"
    ).to_arrow_table()
    return unpack_features(rows).append_column("score", rows["score"])


def _build_drift_rows(day: date, rows: pa.Table, limits: DriftLimits, reference: Reference) -> list[dict[str, object]]:
    drifts = measure_drift(reference.fields, rows, limits)
    breached = find_breaches(drifts, limits)
    return [
        {
            "day": day,
            "field": name,
            "reference_version": reference.version,
            "rows": drift.rows,
            "missing_share": drift.missing_share,
            "psi": drift.psi,
            "wasserstein": drift.wasserstein,
            "jensen_shannon": drift.jensen_shannon,
            "breach": breached.get(name),
        }
        for name, drift in drifts.items()
    ]
