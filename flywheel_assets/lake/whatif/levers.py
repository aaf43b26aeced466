"""Tries thresholds and sampling rates on the last days, without materializing anything.

For a person who thinks about moving a lever it counts the rows that each sampling would train on, and the rows they
would stand for, and the alerts that each threshold would raise, and the positives it would catch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta

from flywheel_assets.curation.labels.discrepancies import write_severity_sql
from flywheel_assets.curation.labels.example_resolution import write_matured_predictions_sql
from flywheel_assets.curation.labels.mining import MiningRules
from flywheel_assets.curation.labels.sampling import write_draw_sql, write_inclusion_probability_sql
from flywheel_assets.curation.labels.score_contract import ScoreContract
from flywheel_assets.curation.sql_literals import quote_double
from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import HARD_EXAMPLES, JOINED_LABELS, RAW_SCORES

THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
SURPRISE_FACTORS = (0.0, 5.0, 10.0, 20.0)
FLOORS = (0.002, 0.01, 0.05, 1.0)


@dataclass(frozen=True)
class ThresholdLever:
    """Counts the alerts that one threshold would have raised."""

    threshold: float
    alerts: int
    alerts_per_day: float
    positive_share: float | None
    """Of the alerts: precision; None without one."""
    caught: float | None
    """Share of all positives: recall; None without a positive."""


@dataclass(frozen=True)
class SamplingLever:
    """Counts the rows that one sampling would train on."""

    surprise_factor: float
    floor: float
    rows: int
    row_share: float
    """Of all matured rows."""
    positive_share: float | None
    effective_rows: float
    """(Σw)² / Σw²: the number of equal rows with the same evidence as the weighted ones."""
    fit_seconds: float | None
    """Extrapolated from the last training's rows and seconds; None before one."""


@dataclass(frozen=True)
class LeversReport:
    """Holds both tables over the same matured days."""

    first_day: date
    last_day: date
    rows: int
    positives: int
    thresholds: tuple[ThresholdLever, ...]
    samplings: tuple[SamplingLever, ...]


def report_levers(
    lake: Lake,
    contract: ScoreContract,
    rules: MiningRules,
    days: int,
    seconds_per_row: float | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
    surprise_factors: Sequence[float] = SURPRISE_FACTORS,
    floors: Sequence[float] = FLOORS,
) -> LeversReport | None:
    """Try the levers on the last `days` matured days; None where nothing has matured yet.

    Args:
        lake: the application's tables; only read.
        contract: declared features and label words.
        rules: their other levers (severity, amount, segments) stay as they are.
        days: number of days of receipt, up to the last matured one.
        seconds_per_row: of the last training.
        thresholds: scores to alert from.
        surprise_factors: to combine with every floor.
        floors: smallest π; 1 keeps every row.
    """
    closed = list(ledger.read_closed_days(lake, HARD_EXAMPLES.name))
    if not closed:
        return None
    last = closed[-1] - timedelta(days=rules.waiting_days)
    first = max(closed[0], last - timedelta(days=days - 1))
    if last < first:
        return None
    choices = [
        (factor, floor)
        for floor in floors
        for factor in surprise_factors
        if floor < 1 or factor == max(surprise_factors)  # to keep every row is one choice
    ]
    measured = [
        "count(*)",
        "count(*) FILTER (is_positive)",
        *(f"count(*) FILTER (score >= {quote_double(at)})" for at in thresholds),
        *(f"count(*) FILTER (is_positive AND score >= {quote_double(at)})" for at in thresholds),
    ]
    for factor, floor in choices:
        probability = write_inclusion_probability_sql(replace(rules.sampling, surprise_factor=factor, floor=floor))
        drawn = f"FILTER (draw < {probability})"
        measured += [f"count(*) {drawn}", f"sum(1 / ({probability})) {drawn}", f"sum(1 / ({probability}) ** 2) {drawn}"]
    with lake.connect() as connection:
        narrow = ["prediction_id", "event_id", "received_at", "received_date", "score", "amount", "segment", "action"]
        lake.register(connection, RAW_SCORES, ledger.list_days(first, last), narrow)
        lake.register(connection, JOINED_LABELS, ledger.list_days(first, closed[-1]))
        scored = (
            f"SELECT *, coalesce({write_severity_sql(rules.discrepancies)}, 0e0) AS severity, "
            f"{write_draw_sql(lake.application)} AS draw FROM ({write_matured_predictions_sql(contract, rules)})"
        )
        found = connection.execute(f"SELECT {', '.join(measured)} FROM ({scored})").fetchone()
    assert found is not None
    values = list(found)
    rows, positives = int(values[0]), int(values[1])
    if not rows:
        return None
    above, caught = values[2 : 2 + len(thresholds)], values[2 + len(thresholds) : 2 + 2 * len(thresholds)]
    sampled = values[2 + 2 * len(thresholds) :]
    span = (last - first).days + 1
    return LeversReport(
        first_day=first,
        last_day=last,
        rows=rows,
        positives=positives,
        thresholds=tuple(
            ThresholdLever(at, int(a), a / span, c / a if a else None, c / positives if positives else None)
            for at, a, c in zip(thresholds, above, caught, strict=True)
        ),
        samplings=tuple(
            SamplingLever(
                surprise_factor=factor,
                floor=floor,
                rows=int(kept),
                row_share=kept / rows,
                positive_share=positives / kept if kept else None,
                effective_rows=float(weight**2 / squared) if kept else 0.0,
                fit_seconds=None if seconds_per_row is None else kept * seconds_per_row,
            )
            for (factor, floor), (kept, weight, squared) in zip(
                choices, zip(sampled[::3], sampled[1::3], sampled[2::3], strict=True), strict=True
            )
        ),
    )
