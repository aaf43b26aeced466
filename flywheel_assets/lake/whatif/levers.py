"""Tries thresholds and sampling rates on the last days, without materializing anything.

For a person who thinks about moving a lever it counts the rows that each sampling would train on, and the rows they
would stand for, and the alerts that each threshold would raise, and the positives it would catch. It also reads the
rows by which `evaluation.floor_costs` measures what a floor costs.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, timedelta

import duckdb
import pyarrow as pa

from flywheel_assets.curation.labels.discrepancies import write_severity_sql
from flywheel_assets.curation.labels.example_resolution import write_matured_predictions_sql
from flywheel_assets.curation.labels.mining import MiningRules, write_subject_sql
from flywheel_assets.curation.labels.sampling import (
    SamplingRules,
    write_draw_sql,
    write_inclusion_probability_sql,
    write_recency_factor_sql,
)
from flywheel_assets.curation.labels.score_contract import ScoreContract
from flywheel_assets.curation.sql_literals import quote, quote_double
from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.daily.breaker import find_tripped_days
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import HARD_EXAMPLES, JOINED_LABELS, RAW_SCORES

THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
SURPRISE_FACTORS = (0.0, 5.0, 10.0, 20.0)
FLOORS = (0.01, 0.03, 0.1, 0.3, 1.0)

_TEST_DAYS = 7
_FLOOR_OF_OTHER_LEVERS = 0.1
"""Where all rows are kept the other levers change nothing, so they are tried at this floor."""


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

    lever: str
    """What is tried, in words."""
    surprise_factor: float
    floor: float
    rows: int
    row_share: float
    """Of all matured rows."""
    positive_share: float | None
    effective_rows: float
    """(Σw)² / Σw²: the number of equal rows with the same evidence as the weighted ones."""


@dataclass(frozen=True)
class LeversReport:
    """Holds the tables over the same matured days."""

    first_day: date
    last_day: date
    rows: int
    positives: int
    floor: float
    """The floor in force: as named, or as the row budget gives it for the mean day."""
    thresholds: tuple[ThresholdLever, ...]
    samplings: tuple[SamplingLever, ...]
    """Surprise factors and floors, in all combinations."""
    others: tuple[SamplingLever, ...]
    """The rules as they are, and with one change each to severity, amount, segment or recency."""


@dataclass(frozen=True)
class FloorRows:
    """Holds the rows by which the cost of sampling floors is measured, drawn from the last matured days."""

    train: pa.Table
    """Columns `is_positive`, `draw`, `features` and, by the place of each floor, `share_0`, `share_1` …"""
    test: pa.Table
    """The last week, unsampled or a known share of it: `is_positive`, `subject`, `weight` and `features`."""
    test_from: date
    last_day: date
    floors: tuple[float, ...]
    """Ascending; the last one's rows are all of `train`."""
    floors_too_large: tuple[float, ...]
    """Those with more rows than the limit."""
    thinned_to: float
    """Below 1 where even the smallest floor has more rows than the limit: `train` is this share of them."""


def report_levers(
    lake: Lake,
    contract: ScoreContract,
    rules: MiningRules,
    days: int,
    thresholds: Sequence[float] = THRESHOLDS,
    surprise_factors: Sequence[float] = SURPRISE_FACTORS,
    floors: Sequence[float] = FLOORS,
) -> LeversReport | None:
    """Try the levers on the last `days` matured days; None where nothing has matured yet.

    Args:
        lake: the application's tables; only read.
        contract: declared features and label words.
        rules: what is not tried stays as it is.
        days: number of days of receipt, up to the last matured one.
        thresholds: scores to alert from.
        surprise_factors: to combine with every floor.
        floors: smallest π; 1 keeps every row.
    """
    span = _find_span(lake, rules, days)
    if span is None:
        return None
    first, last, closed = span
    span_days = (last - first).days + 1
    with _open_matured(lake, contract, rules, first, last, closed) as connection:
        about = connection.execute("SELECT count(*), quantile_disc(amount, 0.95), mode(segment) FROM raw_predictions")
        predictions, large_amount, segment = about.fetchone() or (0, None, None)
        sampling = rules.sampling.settle_floor(predictions // span_days)
        assert sampling.floor is not None
        grid = [
            (f"surprise_factor {factor:g}, floor {floor:g}", replace(sampling, surprise_factor=factor, floor=floor))
            for floor in floors
            for factor in surprise_factors
            if floor < 1 or factor == max(surprise_factors)  # to keep every row is one choice
        ]
        levers = [*grid, *_list_other_levers(sampling, large_amount, segment)]
        measured = ["count(*)", "count(*) FILTER (is_positive)"]
        for at in thresholds:
            alerts = f"score >= {quote_double(at)}"
            measured += [f"count(*) FILTER ({alerts})", f"count(*) FILTER (is_positive AND {alerts})"]
        for _, tried in levers:
            share = _write_probability_sql(tried, closed)
            drawn = f"FILTER (draw < {share})"
            measured += [f"count(*) {drawn}", f"sum(1 / {share}) {drawn}", f"sum(1 / {share} ** 2) {drawn}"]
        found = connection.execute(f"SELECT {', '.join(measured)} FROM matured").fetchone()
    assert found is not None
    rows, positives = int(found[0]), int(found[1])
    if not rows:
        return None
    alerts_of, draws_of = found[2 : 2 + 2 * len(thresholds)], found[2 + 2 * len(thresholds) :]
    counted = [
        _describe_draw(name, tried, draws_of[3 * place : 3 * place + 3], rows, positives)
        for place, (name, tried) in enumerate(levers)
    ]
    return LeversReport(
        first_day=first,
        last_day=last,
        rows=rows,
        positives=positives,
        floor=sampling.floor,
        thresholds=tuple(
            ThresholdLever(at, int(a), a / span_days, c / a if a else None, c / positives if positives else None)
            for at, a, c in zip(thresholds, alerts_of[::2], alerts_of[1::2], strict=True)
        ),
        samplings=tuple(counted[: len(grid)]),
        others=tuple(counted[len(grid) :]),
    )


def read_floor_rows(
    lake: Lake, contract: ScoreContract, rules: MiningRules, days: int, max_rows: int, floors: Sequence[float] = FLOORS
) -> FloorRows | None:
    """Read the rows to measure floors by: older matured days to fit on, the last matured week to test on.

    The rows of a smaller floor are among those of a larger one, so that one read serves all floors. Labels are those
    known now, on both sides.

    Args:
        lake: the application's tables; only read.
        contract: declared features and label words.
        rules: what is not tried stays as it is.
        days: number of days of receipt, up to the last matured one.
        max_rows: of training, and of the test's negatives. A test week of more is thinned; its positives are not.
        floors: to compare.

    Returns:
        None where fewer than 14 days have matured.
    """
    span = _find_span(lake, rules, days)
    if span is None or (span[1] - span[0]).days + 1 < 2 * _TEST_DAYS:
        return None
    first, last, closed = span
    test_from = last - timedelta(days=_TEST_DAYS - 1)
    ordered = tuple(sorted(set(floors)))
    tried = {floor: _write_probability_sql(replace(rules.sampling, floor=floor), closed) for floor in ordered}
    is_train = f"received_date < DATE {quote(test_from.isoformat())}"
    with _open_matured(lake, contract, rules, first, last, closed, features=True) as connection:
        counts = connection.execute(
            f"SELECT {', '.join(f'count(*) FILTER ({is_train} AND draw < {share})' for share in tried.values())}, "
            f"count(*) FILTER (NOT {is_train}) FROM matured"
        ).fetchall()[0]
        fitting = tuple(floor for floor, rows in zip(ordered, counts, strict=False) if rows <= max_rows)
        used = fitting or ordered[:1]
        thinned = 1.0 if fitting else max_rows / counts[0]
        draw, fits = f"draw / {quote_double(thinned)}", f"{contract.write_problem_sql()} IS NULL"
        shares = ", ".join(f"{tried[floor]} AS share_{place}" for place, floor in enumerate(used))
        train = connection.sql(
            f"SELECT prediction_id, is_positive, {draw} AS draw, {shares}, {contract.write_struct_sql()} AS features "
            f"FROM matured WHERE {is_train} AND {draw} < {tried[used[-1]]} AND {fits} ORDER BY prediction_id"
        ).to_arrow_table()
        rate = quote_double(min(1.0, max_rows / max(1, counts[-1])))
        test = connection.sql(
            f"SELECT prediction_id, is_positive, {write_subject_sql('matured')} AS subject, "
            f"CASE WHEN is_positive THEN 1e0 ELSE 1e0 / {rate} END AS weight, "
            f"{contract.write_struct_sql()} AS features FROM matured WHERE NOT ({is_train}) "
            f"AND (is_positive OR {write_draw_sql('levers test')} < {rate}) AND {fits} ORDER BY prediction_id"
        ).to_arrow_table()
    return FloorRows(train, test, test_from, last, used, tuple(each for each in ordered if each not in used), thinned)


def _find_span(lake: Lake, rules: MiningRules, days: int) -> tuple[date, date, date] | None:
    """Return the first and last matured day to try on, and the last closed day; None where nothing has matured."""
    closed = list(ledger.read_closed_days(lake, HARD_EXAMPLES.name))
    if not closed:
        return None
    last = closed[-1] - timedelta(days=rules.waiting_days)
    first = max(closed[0], last - timedelta(days=days - 1))
    return None if last < first else (first, last, closed[-1])


@contextmanager
def _open_matured(
    lake: Lake,
    contract: ScoreContract,
    rules: MiningRules,
    first: date,
    last: date,
    closed: date,
    *,
    features: bool = False,
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a connection with the view `matured`: predictions with label, severity and draw."""
    with lake.connect() as connection:
        columns = [
            *("prediction_id", "event_id", "received_at", "received_date", "user_id", "thread_id", "score", "amount"),
            *("segment", "action", "do_not_train", *(["features"] if features else [])),
        ]
        lake.register(connection, RAW_SCORES, ledger.list_days(first, last), columns)
        lake.register(connection, JOINED_LABELS, ledger.list_days(first, closed))
        tripped = [each.day for each in find_tripped_days(lake)]
        connection.execute(
            "CREATE OR REPLACE TEMP VIEW matured AS "
            f"SELECT *, coalesce({write_severity_sql(rules.discrepancies)}, 0e0) AS severity, "
            f"{write_draw_sql(lake.application)} AS draw "
            f"FROM ({write_matured_predictions_sql(contract, rules, tripped)}) "
            "WHERE NOT do_not_train AND NOT is_label_withheld"
        )
        yield connection


def _list_other_levers(
    sampling: SamplingRules, large_amount: float | None, segment: str | None
) -> Iterator[tuple[str, SamplingRules]]:
    """List the rules as they are, and one change for each lever that the predictions have a value for."""
    if sampling.floor == 1:
        yield "as it is, all rows", sampling
        sampling = replace(sampling, floor=_FLOOR_OF_OTHER_LEVERS)
        yield f"floor {_FLOOR_OF_OTHER_LEVERS:g}", sampling
    else:
        yield f"as it is, floor {sampling.floor:g}", sampling
    boost = sampling.severity_boost + 4
    yield f"… severity_boost {boost:g}", replace(sampling, severity_boost=boost)
    if large_amount is not None:
        least, factor = float(sampling.large_amount or large_amount), 3 * sampling.large_amount_factor
        name = f"… large_amount {least:g}, large_amount_factor {factor:g}"
        yield name, replace(sampling, large_amount=least, large_amount_factor=factor)
    if segment is not None:
        rate = sampling.segment_rates.get(segment, 1.0) / 2
        rates = {**sampling.segment_rates, segment: rate}
        yield f"… segment_rates {segment}: {rate:g}", replace(sampling, segment_rates=rates)
    for half_life in (30.0, 90.0):
        yield f"… recency_half_life_days {half_life:g}", replace(sampling, recency_half_life_days=half_life)


def _write_probability_sql(sampling: SamplingRules, closed: date) -> str:
    """Write π as a version that is cut now would draw with it."""
    age = f"date_diff('day', received_date, DATE {quote(closed.isoformat())})"
    recency = write_recency_factor_sql(sampling, age_days=age)
    return f"(({write_inclusion_probability_sql(sampling)}) * {recency})"


def _describe_draw(
    name: str, sampling: SamplingRules, counts: Sequence[float], rows: int, positives: int
) -> SamplingLever:
    kept, weight, squared = counts
    assert sampling.floor is not None
    return SamplingLever(
        lever=name,
        surprise_factor=sampling.surprise_factor,
        floor=sampling.floor,
        rows=int(kept),
        row_share=kept / rows,
        positive_share=positives / kept if kept else None,
        effective_rows=float(weight**2 / squared) if kept else 0.0,
    )
