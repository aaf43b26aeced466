"""`raw_predictions` of the week up to D against the champion's training rows → `drift_report[D]`, a row per field.

A whole week, because the days of a week differ: single days named `is_weekend` on every day there was, weeks nothing in
165 field-weeks. Drift does not see a new kind of fraud (PSI .009 while Σp/Σy fell to .36): the trigger looks at that.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import msgspec
import pyarrow as pa

from flywheel_assets import records
from flywheel_assets.curation.labels.sampling import write_draw_sql
from flywheel_assets.curation.labels.score_contract import ScoreContract, unpack_features
from flywheel_assets.lake.daily.daily_steps import daily_step
from flywheel_assets.lake.daily.ledger import RunStamp, day_range
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import DRIFT_REPORTS, RAW_SCORES
from flywheel_assets.measures.drift import DriftLimits, DriftReference, find_breaches, measure_drift

WINDOW_DAYS = 7
MAX_ROWS = 200_000
"""Predictions of a week that are looked at, the same ones whenever it is done: PSI's noise at this size is .0001."""


@dataclass(frozen=True)
class Reference:
    """What the champion was trained on."""

    version: str
    fields: DriftReference


def read_reference(version: str, file: Path) -> Reference:
    """The reference that the trainer left."""
    return Reference(version, msgspec.json.decode(file.read_bytes(), type=DriftReference))


@daily_step
def report_drift(
    lake: Lake,
    days: Sequence[date],
    start: date,
    contract: ScoreContract,
    limits: DriftLimits,
    reference: Reference | None,
    stamp: RunStamp,
) -> dict[date, list[dict[str, object]]]:
    """Replace partitions `days` of the report, also by nothing where there is no champion; returns the rows by day."""
    reports: dict[date, list[dict[str, object]]] = {day: [] for day in days}
    files: dict[date, Path] = {}
    with lake.connect() as connection:
        for day in sorted(days) if reference else []:
            assert reference is not None
            week = day_range(max(start, day - timedelta(days=WINDOW_DAYS - 1)), day)
            lake.register(connection, RAW_SCORES, week, ["prediction_id", "features", "score"])
            rows = connection.sql(
                f"SELECT {contract.write_struct_sql()} AS features, score FROM raw_predictions "
                f"WHERE {contract.write_problem_sql()} IS NULL ORDER BY {write_draw_sql('drift')} LIMIT {MAX_ROWS:d}"
            ).to_arrow_table()
            if not rows.num_rows:
                continue
            reports[day] = _rows(day, rows, limits, reference)
            connection.register("reported", pa.Table.from_pylist(reports[day], schema=records.DRIFT_REPORTS))
            if file := lake.write_day(connection, DRIFT_REPORTS, day, "SELECT * FROM reported"):
                files[day] = file
    lake.replace_days(DRIFT_REPORTS, days, files, stamp.properties())
    return reports


def _rows(day: date, rows: pa.Table, limits: DriftLimits, reference: Reference) -> list[dict[str, object]]:
    drifts = measure_drift(reference.fields, unpack_features(rows).append_column("score", rows["score"]), limits)
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
