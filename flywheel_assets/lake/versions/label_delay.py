"""Estimates from gold how late positives become known: for a version's weights, and to choose the maturity."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import duckdb

from flywheel_assets.curation.labels.example_resolution import TRUSTED_SHARE
from flywheel_assets.curation.sql_literals import quote
from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import HARD_EXAMPLES
from flywheel_assets.measures.label_delay import DelayCurve, list_curves

DELAY_DAYS = 365
"""Days of predictions that a curve rests on."""
LEAST_KNOWN_SHARE = 0.2
"""No known positive stands for more than five: at an age at which hardly any label has come, chance would decide."""
ENOUGH_KNOWN = 0.95
"""The share of the positives that should be known when silence is taken for a negative."""
_COLUMNS = [
    "prediction_id",
    "is_positive",
    "label_event_id",
    "label_received_date",
    "prediction_received_date",
    "labeling_source",
]


@dataclass(frozen=True)
class LabelDelay:
    """Holds the delay of positive labels, and its meaning for the configured maturity."""

    curves: tuple[DelayCurve, ...]
    """Of all labels, then of each source with enough positives."""
    maturity_days: int
    known_at_maturity: float
    """Share of the positives that is known at `maturity_days`."""
    proposed_days: int
    """First age at which `ENOUGH_KNOWN` of them is known."""


def read_delay_curves(connection: duckdb.DuckDBPyConnection, examples: str, until: date) -> list[DelayCurve]:
    """Estimate the curves of a relation of gold rows; empty with too few positives.

    Args:
        connection: holds `examples`.
        examples: a relation with the columns of `records.HARD_EXAMPLES` that are asked for.
        until: last day whose labels are seen.
    """
    first = quote((until - timedelta(days=DELAY_DAYS - 1)).isoformat())
    rows = connection.execute(f"""
SELECT source, greatest(delay, 0) AS delay, age, count(*) AS positives
FROM (
    SELECT arg_min(labeling_source, label_received_date) AS source,
           min(date_diff('day', prediction_received_date, label_received_date)) AS delay,
           date_diff('day', any_value(prediction_received_date), DATE {quote(until.isoformat())}) AS age
    FROM {examples}
    WHERE is_positive AND label_event_id IS NOT NULL AND prediction_received_date >= DATE {first}
    GROUP BY prediction_id
)
WHERE age >= greatest(delay, 0)
GROUP BY ALL
""").fetchall()
    sources, delays, ages, counts = zip(*rows, strict=True) if rows else ((), (), (), ())
    return list_curves(delays, ages, counts, list(map(str, sources)))


def register_known_shares(connection: duckdb.DuckDBPyConnection, curves: Iterable[DelayCurve]) -> None:
    """Make the table `known_shares(age, known_share)` of the overall curve; an age that is not there knows all."""
    overall = next((curve for curve in curves if curve.source is None), None)
    shares = [] if overall is None else [max(LEAST_KNOWN_SHARE, share) for share in overall.known_shares]
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE known_shares AS "
        "SELECT unnest(?::BIGINT[]) AS age, unnest(?::DOUBLE[]) AS known_share",
        [list(range(len(shares))), shares],
    )


def read_delay(lake: Lake, connection: duckdb.DuckDBPyConnection, closed: Sequence[date]) -> list[DelayCurve]:
    """Estimate the curves from the last `DELAY_DAYS` of the closed days of gold; empty with too few positives."""
    days = [day for day in closed if day > closed[-1] - timedelta(days=DELAY_DAYS)]
    lake.register(connection, HARD_EXAMPLES, days, _COLUMNS, view="delayed_examples")
    return read_delay_curves(connection, "delayed_examples", closed[-1])


def find_effective_maturity(curves: Iterable[DelayCurve], maturity_days: int) -> int:
    """Find the age in days from which rows count: `maturity_days`, or later where labels come later.

    It is the first age at which `TRUSTED_SHARE` of all positives is known; without a curve it is `maturity_days`.
    """
    overall = next((curve for curve in curves if curve.source is None), None)
    return maturity_days if overall is None else max(maturity_days, overall.find_age(TRUSTED_SHARE))


def measure_label_delay(lake: Lake, maturity_days: int) -> LabelDelay | None:
    """Estimate the curves from the closed days of gold; None with too few positives."""
    closed = list(ledger.read_closed_days(lake, HARD_EXAMPLES.name))
    if not closed:
        return None
    with lake.connect() as connection:
        curves = read_delay(lake, connection, closed)
    if not curves:
        return None
    overall = curves[0]
    return LabelDelay(
        curves=tuple(curves),
        maturity_days=maturity_days,
        known_at_maturity=overall.share_known(maturity_days),
        proposed_days=overall.find_age(ENOUGH_KNOWN),
    )
